"""The asynchronous iterators over a peer's streams and datagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from wtio import _core
    from wtio._session_state import SessionState
    from wtio._waiting import Arrivals

__all__ = ["IncomingDatagrams", "IncomingStreams"]

_Stream = TypeVar("_Stream")


class IncomingStreams(Generic[_Stream]):
    """The peer's streams of one kind, in the order of their arrival. Any number of tasks may iterate.

    Each stream goes to exactly one of them. Cancelling ``__anext__`` loses no stream. What arrived before the session
    ended is still delivered; then the session's error is raised.
    """

    __slots__ = ("_arrived", "_make", "_state")

    def __init__(
        self, state: SessionState, arrived: Arrivals[_core.Stream], make: Callable[[_core.Stream], _Stream]
    ) -> None:
        self._state = state
        self._arrived = arrived
        # Makes the application's stream object. It refers to the session, so an iterator keeps its session alive.
        self._make = make

    def __aiter__(self) -> AsyncIterator[_Stream]:
        return self

    def __len__(self) -> int:
        """Number of streams that wait to be taken."""
        return len(self._arrived)

    async def __anext__(self) -> _Stream:
        """Return the next stream, waiting for it.

        Raises:
            SessionClosed: The session has ended and no stream is left.
        """
        state = self._state
        arrived = self._arrived
        state.core.check_loop()
        while not arrived.items:
            if state.close_info is not None:
                raise state.closed_error()
            await arrived.wait(state.loop)
        return self._make(arrived.items.popleft())


class IncomingDatagrams:
    """The peer's datagrams as an iterator: each ``__anext__`` is one ``WebTransportSession.receive_datagram``."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Coroutine[None, None, bytes]]) -> None:
        self._receive = receive

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next datagram, waiting for it."""
        return await self._receive()
