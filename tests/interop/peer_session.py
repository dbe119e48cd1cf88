"""What sessions and streams of other implementations look like to the tests, and the errors that end them.

Nothing here imports a library: an adapter to one may live in an environment that has no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator


class Stream(Protocol):
    """One WebTransport stream; a unidirectional one uses half of the methods."""

    @property
    def stopped(self) -> Awaitable[int | None]:
        """Waits for the other side's STOP_SENDING and gives its application code."""

    async def read(self) -> bytes:
        """Return the next piece that arrived, or ``b""`` at the end."""

    async def read_all(self) -> bytes:
        """Return everything until the end."""

    async def write(self, data: bytes, end: bool = False) -> None:
        """Send ``data``, waiting where the library wants it; ``end`` ends the sending side."""

    def reset(self, code: int) -> None:
        """Reset the sending side with an application code."""

    def stop(self, code: int) -> None:
        """Ask the other side to stop sending, with an application code."""


class Draining(Protocol):
    """The other side's wish to wind down: waited for, or looked up."""

    def __await__(self) -> Generator[object, None, object]: ...
    def done(self) -> bool: ...


class Session(Protocol):
    """One session on a connection of its own."""

    @property
    def path(self) -> str:
        """Path of its URL, with the query."""

    @property
    def protocol(self) -> str | None:
        """Its subprotocol."""

    @property
    def closed(self) -> Awaitable[PeerSessionClosed]:
        """Waits for its end."""

    @property
    def draining(self) -> Draining: ...

    async def create_stream(self, *, bidirectional: bool = True) -> Stream: ...
    async def accept_stream(self, *, bidirectional: bool = True) -> Stream: ...
    def send_datagram(self, data: bytes) -> None: ...
    async def receive_datagram(self) -> bytes: ...
    def close(self, code: int = 0, reason: str = "") -> None: ...
    def drain(self) -> None: ...


class PeerStreamReset(Exception):
    """The other side reset the stream; ``code`` is the application's code."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"stream reset with code {code}")
        self.code = code


class PeerStreamStopped(Exception):
    """The other side sent STOP_SENDING; ``code`` is the application's code."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"stream stopped with code {code}")
        self.code = code


class PeerSessionClosed(Exception):
    """The session ended; ``code`` and ``reason`` are those of the capsule, None and "" without one."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"session closed with code {code}: {reason}")
        self.code = code
        self.reason = reason


class PeerSessionRejected(Exception):
    """The server answered CONNECT with a status outside 2xx."""

    def __init__(self, status: int) -> None:
        super().__init__(f"session rejected with status {status}")
        self.status = status
