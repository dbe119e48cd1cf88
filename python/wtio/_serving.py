"""Handlers for a session's streams and datagrams (``WebTransportSession.serve_streams``), one task per stream.

``Serving`` takes streams and datagrams, runs the handlers, and keeps the failure of one from the others. Stream objects
are made elsewhere; it only knows how to end them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from wtio._log import session_name
from wtio._waiting import is_cancelled
from wtio.errors import SessionClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from types import TracebackType

    from wtio import _core
    from wtio._failures import FailureLog
    from wtio._session_state import SessionState
    from wtio._waiting import Arrivals

__all__ = ["Kind", "Serving"]


class _Stream(Protocol):
    """A stream object: leaving ``async with`` ends it, after an exception with a reset and a stop."""

    @property
    def stream_id(self) -> int: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Kind(NamedTuple):
    """Either the bidirectional or the unidirectional streams of a session, and their handler."""

    arrived: Arrivals[_core.Stream]
    """Those that nobody has taken yet."""
    make: Callable[[_core.Stream], _Stream]
    """Makes the application's object."""
    handler: Callable[[Any], Awaitable[object]]
    """The application's coroutine function."""


class Serving:
    """One call of ``serve_streams``."""

    __slots__ = ("_failures", "_patience", "_room", "_running", "_state", "_tasks")

    def __init__(self, state: SessionState, *, limit: int, patience: float, failures: FailureLog) -> None:
        # The session's state, whose end ends all of this.
        self._state = state
        # ``Timeouts.finish``, in seconds.
        self._patience = patience
        # Logs what handlers raise, for all sessions of a server or of a connection.
        self._failures = failures
        # How many more handlers may begin. What arrives beyond that waits unread, at most
        # ``Limits.bidirectional_streams`` and ``unidirectional_streams``, which is the peer's credit.
        self._room = asyncio.Semaphore(limit)
        # Handlers that have begun and have not returned. Those that are cancelled in the end stay counted, for the log.
        self._running = 0
        # All tasks of this call: one per kind of stream, one for datagrams, and the handlers.
        self._tasks = asyncio.TaskGroup()

    async def run(
        self,
        kinds: Sequence[Kind],
        receive: Callable[[], Coroutine[Any, Any, bytes]],
        datagrams: Callable[[bytes], object] | None,
    ) -> None:
        """Serve until the session has ended and everything that had arrived is handled.

        Args:
            kinds: Which streams to take.
            receive: Waits for the next datagram.
            datagrams: The application's function for each of them; None leaves them alone.

        Raises:
            SessionClosed: The session ended with another code than 0.
        """
        try:
            async with asyncio.timeout(None) as clock, self._tasks as tasks:
                for kind in kinds:
                    tasks.create_task(self._take_streams(kind))
                if datagrams is not None:
                    tasks.create_task(self._take_datagrams(receive, datagrams))
                await self._state.ended.wait()
                # The handlers that still run get this long: leaving this block waits for them.
                clock.reschedule(self._state.loop.time() + self._patience)
        except TimeoutError:
            if not clock.expired():
                raise
            self._report_unfinished(self._running + sum(len(kind.arrived) for kind in kinds))
        info = self._state.close_info
        if info is None or info.code != 0:
            raise self._state.closed_error()

    async def _take_streams(self, kind: Kind) -> None:
        """Start a handler for each stream, until the session has ended and no stream is left."""
        arrived = kind.arrived
        while await self._has_arrived(arrived):
            # A stream is taken only when there is room for its handler. Meanwhile another task that iterates over the
            # streams may have taken it.
            await self._room.acquire()
            if arrived.items:
                self._running += 1
                self._tasks.create_task(self._handle(kind.make(arrived.take()), kind.handler))
            else:
                self._room.release()

    async def _has_arrived(self, arrived: Arrivals[_core.Stream]) -> bool:
        """Wait until there is a stream to take; False if there will be none any more."""
        state = self._state
        while not arrived.items:
            if state.close_info is not None:
                return False
            await arrived.wait(state.loop)
        return True

    async def _handle(self, stream: _Stream, handler: Callable[[Any], Awaitable[object]]) -> None:
        """Run one handler. Whatever it raises ends its own stream, and nothing else."""
        try:
            async with stream:
                await handler(stream)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            self._report(error, "handler of stream %d", stream.stream_id, is_one_stream=True)
        finally:
            self._room.release()
        self._running -= 1

    async def _take_datagrams(
        self, receive: Callable[[], Coroutine[Any, Any, bytes]], handler: Callable[[bytes], object]
    ) -> None:
        """Give each datagram to the application, one after the other, until the session has ended."""
        while True:
            try:
                data = await receive()
            except SessionClosed:
                return
            self._running += 1
            try:
                result = handler(data)
                if inspect.isawaitable(result):
                    await result
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                self._report(error, "handler of datagrams")
            self._running -= 1

    # -- the log

    def _report(self, error: BaseException, what: str, *arguments: object, is_one_stream: bool = False) -> None:
        state = self._state
        name = session_name(state.log_id, state.facts.path)
        self._failures.report(
            error,
            f"%s: {what}",
            name,
            *arguments,
            has_ended=state.is_closed,
            session=state.log_id,
            is_one_stream=is_one_stream,
        )

    def _report_unfinished(self, count: int) -> None:
        state = self._state
        words = f"the session had ended {self._patience:g} s before (Timeouts.finish)"
        self._failures.write(
            TimeoutError(words),
            logging.WARNING,
            "%s: %d handlers or streams were given up",
            session_name(state.log_id, state.facts.path),
            count,
            session=state.log_id,
        )
