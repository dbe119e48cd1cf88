"""Streams that arrived before their session was established: its request or its answer may be in another packet.

They are kept until the session takes them, its request has not come in time, or there are too many of them.

Source: draft-ietf-webtrans-http3-16, section 4.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wtio.protocol.codes import ErrorCodes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from wtio import _core

__all__ = ["EarlyStreams", "refuse"]


def refuse(stream: _core.Stream, wire_code: int) -> None:
    """Reset and stop a stream that no session will take."""
    stream.abandon_code = wire_code
    stream.reset(wire_code)
    stream.stop(wire_code)


class EarlyStreams:
    """The early streams of one connection. It refers to no connection, so its timer keeps none in memory."""

    __slots__ = ("_by_session", "_count", "_loop", "_most", "_patience", "_session_state", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, most: int, patience: float, session_state: Callable[[int], str | None]
    ) -> None:
        self._loop = loop
        # ``Limits.early_streams``: how many there may be, of all sessions together.
        self._most = most
        # Seconds that streams wait for a request, ``Timeouts.request``. Some wait up to twice as long: one timer,
        # started with the first of them, serves all.
        self._patience = patience
        # Names the state of a session that is requested; its streams wait for as long as its answer takes.
        self._session_state = session_state
        # By session ID, and how many that are.
        self._by_session: dict[int, list[_core.Stream]] = {}
        self._count = 0
        # Runs since ``keep`` was called; it may find that all have been taken.
        self._timer: asyncio.TimerHandle | None = None

    def keep(self, session_id: int, stream: _core.Stream) -> bool:
        """Keep a stream for its session; False, and the stream is refused, if there are too many."""
        if self._count >= self._most:
            refuse(stream, ErrorCodes.WT_BUFFERED_STREAM_REJECTED)
            return False
        self._by_session.setdefault(session_id, []).append(stream)
        self._count += 1
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._expire)
        return True

    def take(self, session_id: int) -> list[_core.Stream]:
        """Take the streams of a session, in the order in which they arrived."""
        taken = self._by_session.pop(session_id, None)
        if taken is None:
            return []
        self._count -= len(taken)
        if not self._by_session:
            # A dict keeps the room for what was in it.
            self._by_session = {}
        return taken

    def refuse(self, session_id: int) -> None:
        """Refuse the streams of a session that will never be."""
        for stream in self.take(session_id):
            refuse(stream, ErrorCodes.WT_BUFFERED_STREAM_REJECTED)

    def close(self) -> None:
        """Refuse all: the connection is lost."""
        for session_id in list(self._by_session):
            self.refuse(session_id)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """Refuse streams whose session was not requested in time."""
        self._timer = None
        for session_id in list(self._by_session):
            if self._session_state(session_id) is None:
                self.refuse(session_id)
        if self._by_session:
            self._timer = self._loop.call_later(self._patience, self._expire)
