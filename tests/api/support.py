"""Sessions and channels for tests: both ends of everything, in one process, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import Any

# The edges of the 32-bit code space and of the holes in its mapping to the wire (every 31st number).
CODES = (0, 1, 29, 30, 31, 255, 0x8000_0000, 2**32 - 1)

# Where the bytes of a channel flow: who opened the stream, of which kind, and whether they flow back to the opener.
CHANNELS = (
    "client-uni",
    "server-uni",
    "client-bidi",
    "server-bidi",
    "client-bidi-back",
    "server-bidi-back",
)

# Every way to wait for bytes. None of them can finish on a stream that carries nothing.
READS: dict[str, Callable[[wtio.WebTransportReceiveStream], Coroutine[Any, Any, object]]] = {
    "read": lambda stream: stream.read(),
    "read-max": lambda stream: stream.read(max_bytes=10),
    "read_all": lambda stream: stream.read_all(),
    "readexactly": lambda stream: stream.readexactly(n=10),
    "readline": lambda stream: stream.readline(),
    "readuntil": lambda stream: stream.readuntil(separator=b"--"),
    "readinto": lambda stream: stream.readinto(bytearray(10)),
    "anext": lambda stream: _anext(stream),
}


async def _anext(stream: wtio.WebTransportReceiveStream) -> bytes:
    async for chunk in stream:
        return chunk
    raise AssertionError("the stream ended")


@dataclass(slots=True)
class Pair:
    """A server, one session on it, and what came before the session."""

    server: wtio.Server
    request: wtio.SessionRequest
    client: wtio.WebTransportSession
    accepted: wtio.WebTransportSession

    def sides(self, first: str) -> tuple[wtio.WebTransportSession, wtio.WebTransportSession]:
        """The two sessions, beginning with that of ``"client"`` or ``"server"``."""
        return (self.client, self.accepted) if first == "client" else (self.accepted, self.client)


@dataclass(slots=True)
class Channel:
    """One direction of one stream."""

    writer: wtio.WebTransportSendStream
    reader: wtio.WebTransportReceiveStream
    near: wtio.WebTransportSession
    """The session of the writer."""
    far: wtio.WebTransportSession
    """The session of the reader."""
    opener_writes: bool

    async def send(self, data: bytes, *, end_stream: bool = False) -> None:
        """Write, and wait until the other side's engine has it all."""
        await self.writer.write(data=data, end_stream=end_stream)
        await self.writer.wait_acked()


@contextlib.asynccontextmanager
async def session_pair(
    certificate: wtio.DevCertificate,
    *,
    client_limits: wtio.Limits | None = None,
    server_limits: wtio.Limits | None = None,
    client_timeouts: wtio.Timeouts | None = None,
    server_timeouts: wtio.Timeouts | None = None,
    path: str = "/",
    **options: Any,
) -> AsyncIterator[Pair]:
    """Give both ends of a session on a server of its own. ``options`` go to ``connect``."""
    async with wtio.serve(
        None, "127.0.0.1", 0, tls=certificate.server_tls(), limits=server_limits, timeouts=server_timeouts
    ) as server:
        connecting = asyncio.ensure_future(
            opened(
                wtio.connect(
                    f"https://127.0.0.1:{port_of(server)}{path}",
                    tls=certificate.client_tls(),
                    limits=client_limits,
                    timeouts=client_timeouts,
                    **options,
                )
            )
        )
        try:
            request = await anext(aiter(server))
            accepted = await request.accept()
            client = await connecting
        except BaseException:
            connecting.cancel()
            raise
        async with client:
            yield Pair(server, request, client, accepted)


async def opened(connector: wtio.Connector) -> wtio.WebTransportSession:
    """A coroutine for tasks, which take no other awaitables."""
    return await connector


async def open_channel(pair: Pair, kind: str) -> Channel:
    """Open a stream and accept it; ``kind`` is one of CHANNELS."""
    side, form, *back = kind.split("-")
    opener, acceptor = pair.sides(side)
    if form == "uni":
        outgoing = await opener.create_unidirectional_stream()
        incoming = await first(acceptor.incoming_unidirectional_streams())
        return Channel(outgoing, incoming, opener, acceptor, True)
    here = await opener.create_bidirectional_stream()
    there = await first(acceptor.incoming_bidirectional_streams())
    if back:
        return Channel(there, here, acceptor, opener, False)
    return Channel(here, there, opener, acceptor, True)


async def first(items: Any) -> Any:
    """The next of an async iterable."""
    async for item in items:
        return item
    raise AssertionError("the iterator ended")


def port_of(server: wtio.Server) -> int:
    """The port of the first socket of a server."""
    return server.addresses[0][1]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a number that no event announces."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def is_pending(task: asyncio.Future[Any]) -> bool:
    """Whether a task is still waiting after it had every chance to run."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


async def outcome(awaitable: Awaitable[object]) -> object:
    """What an awaitable returns, or the exception that it raises."""
    try:
        return await awaitable
    except Exception as error:
        return error
