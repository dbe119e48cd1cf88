"""The sessions of one connection: which there are, who keeps them alive, and how they end.

What a session asks of its connection, and what is sent when it ends, is the connection's part (``base``).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final
from weakref import ref

from wtio.protocol.codes import ErrorCodes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from wtio import _core
    from wtio._facts import CloseInfo
    from wtio._session_state import SessionState
    from wtio.errors import RemoteProtocolError
    from wtio.session import WebTransportSession

__all__ = ["ENDS_PER_ITERATION", "GONE", "Sessions"]

ENDS_PER_ITERATION: Final = 64
"""Sessions of a lost connection that end in one iteration of the loop; their tasks run before the next ones end."""
GONE: Final = int(ErrorCodes.WT_SESSION_GONE)
"""The code with which the streams of an ended session are reset and stopped."""


class Sessions:
    """The sessions of one connection by session ID.

    A client's open session belongs to the application alone, which is how a forgotten one is noticed: its object is
    held weakly, its ``SessionState`` strongly: that wakes the tasks that wait. The object of a session that has ended,
    or was forgotten, is held until the peer has ended it, too. A server holds all its sessions (``Server.sessions``).
    """

    __slots__ = ("_core", "_entries", "_loop")

    def __init__(self, core: _core.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        # By session ID. Those that are not over on both sides, at most as many as there may be CONNECT streams.
        self._entries: dict[int, tuple[WebTransportSession | ref[WebTransportSession], SessionState]] = {}

    def add(self, session: WebTransportSession, state: SessionState) -> None:
        """Note a new session."""
        self._entries[state.session_id] = (ref(session), state)

    def hold(self, session: WebTransportSession) -> None:
        """Keep a session from now on. Any thread may call this, at any time."""
        entry = self._entries.get(session.session_id)
        if entry is not None:
            self._entries[session.session_id] = (session, entry[1])

    def hold_ended(self, state: SessionState) -> None:
        """Keep the object of a session that ends, unless it is gone already."""
        entry = self._entries.get(state.session_id)
        if entry is not None and (session := _object(entry[0])) is not None:
            self._entries[state.session_id] = (session, state)

    def get(self, session_id: int) -> SessionState | None:
        """Find a session."""
        entry = self._entries.get(session_id)
        return None if entry is None else entry[1]

    def states(self) -> list[SessionState]:
        """Return the states of all sessions, as a copy."""
        return [state for _, state in self._entries.values()]

    # -- the end

    def end(self, session: SessionState, info: CloseInfo, cause: RemoteProtocolError | None = None) -> None:
        """End a session on this side, unless it has ended. The peer still has to end its side."""
        if not session.is_closed:
            self.hold_ended(session)
            session.end(info, cause)
            self._core.end_session(session.session_id, GONE)

    def bound_end(self, session_id: int, seconds: float, expire: Callable[[int], None]) -> None:
        """Give the peer a bounded time to end a session; then ``expire`` is called with its ID."""
        session = self.get(session_id)
        if session is not None and session.end_timer is None:
            session.end_timer = self._loop.call_later(seconds, expire, session_id)

    def finish(self, session: SessionState) -> bool:
        """Let go of a session that is over on both sides; False if that was done before."""
        # A timer left running would hold the whole connection in memory until it expires.
        if session.end_timer is not None:
            session.end_timer.cancel()
            session.end_timer = None
        if self._entries.pop(session.session_id, None) is None:
            return False
        session.over.set()
        return True

    def end_all(
        self,
        info: CloseInfo,
        cause: RemoteProtocolError | None,
        finish: Callable[[SessionState], None],
        when_all_have: Callable[[], None],
    ) -> None:
        """End the sessions of a lost connection.

        From now on every call of every session raises the same error. Whoever waits is woken in slices.

        Args:
            info: How the sessions ended.
            cause: What the peer did, if that is why.
            finish: Called with each session when it has ended.
            when_all_have: Called when all have ended; at once if there are none.
        """
        ending = deque(self.states())
        for session in ending:
            session.note_end(info, cause)
        self._end_some(ending, finish, when_all_have)

    def _end_some(
        self, ending: deque[SessionState], finish: Callable[[SessionState], None], when_all_have: Callable[[], None]
    ) -> None:
        """End the next ``ENDS_PER_ITERATION`` sessions. The rest follow later, so that other tasks can run."""
        try:
            for _ in range(min(len(ending), ENDS_PER_ITERATION)):
                session = ending.popleft()
                if session.settle_end():
                    self._core.end_session(session.session_id, GONE)
                finish(session)
        finally:
            # Whatever happens to one of them, the others end.
            if ending:
                self._loop.call_soon(self._end_some, ending, finish, when_all_have)
            else:
                when_all_have()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._entries

    def __iter__(self) -> Iterator[WebTransportSession]:
        """Iterate over a copy."""
        for held, _ in list(self._entries.values()):
            session = _object(held)
            if session is not None:
                yield session


def _object(held: WebTransportSession | ref[WebTransportSession]) -> WebTransportSession | None:
    return held() if isinstance(held, ref) else held
