"""A client's connection: it sends session requests, and calls those who made it or wait for it when things change.

It carries one session, or those of a pool that go to the same server. ``dial`` makes connections, ``pool`` shares them.
"""

from __future__ import annotations

import errno
import warnings
from typing import TYPE_CHECKING, Final

from wtio._connection.base import Connection
from wtio._connection.early import refuse
from wtio._core import CloseCause
from wtio._facts import CloseInfo, SessionFacts
from wtio._failures import FailureLog
from wtio._log import CLIENT
from wtio._words import Loss
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.outbox import Event, SessionAccepted, SessionRejected, SessionTerminated, SettingsReceived

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from wtio import _core
    from wtio._connection.sockets import Sockets
    from wtio._driver import Driver
    from wtio._reporting import Trace
    from wtio._session_state import SessionState
    from wtio.session import WebTransportSession

__all__ = ["ClientConnection", "PendingRequest"]

# How many probe timeouts (RFC 9002, section 6.2) a connection may take to acknowledge a request: two probes, and a way
# back for the second.
_PATIENCE_IN_PTOS: Final = 4
# What may be over by the time at which QUIC sends again.
_PASSING: Final = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR))


def _nobody() -> None:
    """Placeholder callback: nobody is waiting."""


class PendingRequest:
    """A session request that has been sent. ``ClientConnection.send_request`` makes it, and notes the answer in it."""

    __slots__ = ("connection", "facts", "on_progress", "rejection", "session", "stream_id", "trace")

    def __init__(
        self,
        connection: ClientConnection,
        stream_id: int,
        facts: SessionFacts,
        trace: Trace,
        on_progress: Callable[[], None],
    ) -> None:
        # The connection that it was sent on.
        self.connection: ClientConnection = connection
        # Of the CONNECT stream, and so the session ID.
        self.stream_id: int = stream_id
        # What was requested. The session's own facts are made of it.
        self.facts: SessionFacts = facts
        # Of the connect call, for the session's report.
        self.trace: Trace = trace
        # Called when there is an answer, or the connection is lost.
        self.on_progress: Callable[[], None] = on_progress
        # The answer: the session, or the event that says why there is none. Both are None until it arrives, and stay
        # None if the connection is lost.
        self.session: WebTransportSession | None = None
        self.rejection: SessionRejected | SessionTerminated | None = None


class ClientConnection(Connection):
    """A connection of a client."""

    __slots__ = (
        "_failures",
        "_on_progress",
        "_pending",
        "_silent_at",
        "_sockets",
        "connector_count",
        "is_full",
        "is_refusing",
        "is_too_large",
        "on_lost",
        "on_settings",
        "settings",
        "waiting_for_streams",
    )

    is_client = True
    logger = CLIENT

    def __init__(
        self, core: _core.Connection, driver: Driver, *, sockets: Sockets, on_progress: Callable[[], None]
    ) -> None:
        super().__init__(core, driver, sockets.options)
        # The server's SETTINGS; None until they arrive.
        self.settings: SettingsReceived | None = None
        # Connect calls that have been given this connection and have no session yet. ``has_room`` includes them.
        self.connector_count: int = 0
        # Set by a connect call: the server refused a session that its limits would have allowed. No further one is
        # requested here.
        self.is_refusing: bool = False
        # Set when the network says that it cannot carry the packets of the handshake, which cannot be smaller.
        self.is_too_large: bool = False
        # The server allows no further stream for a request now. While it is set, those in
        # ``waiting_for_streams`` wait.
        self.is_full: bool = False
        # Called once when the server allows streams again, or the connection is lost. ``send_request`` adds who found
        # none; whoever waits no longer is removed. None while nobody waits.
        self.waiting_for_streams: set[Callable[[], None]] | None = None
        # How many acknowledgements had come when a request went without one for too long; None if none ever did.
        self._silent_at: int | None = None
        # Called once when the connection is lost; set by the pool that keeps it.
        self.on_lost: Callable[[], None] | None = None
        # Called when SETTINGS arrive; set by the dialer until ``forget_dialer``.
        self.on_settings: Callable[[ClientConnection], None] | None = None
        # Where the socket is from. The connection is in its set until it is lost.
        self._sockets = sockets
        # Called when the handshake is complete, SETTINGS arrive or the connection is lost, until ``forget_dialer``.
        self._on_progress = on_progress
        # Requests without an answer, by stream ID; at most as many as the server allows streams. None without any.
        self._pending: dict[int, PendingRequest] | None = None
        # Made with the first handler of streams (``serve_streams``).
        self._failures: FailureLog | None = None
        sockets.connections.add(self)
        driver.add(core.id, self)

    @property
    def has_room(self) -> bool:
        """Whether one more session may be requested (draft-ietf-webtrans-http3-16, sections 4.7 and 5.1)."""
        h3 = self.h3
        limit = h3.session_limit if h3.flow_control else 1
        is_usable = not (self.is_ending or self.is_refusing or h3.goaway_received)
        return is_usable and h3.sessions + self.connector_count < limit

    @property
    def is_used(self) -> bool:
        """Whether there are sessions on it, or a connect call is about to request one."""
        return bool(self.sessions or self.connector_count)

    @property
    def acks(self) -> int:
        """Acknowledgements that the server has sent so far."""
        return self.core.stats().acks_received

    @property
    def is_silent(self) -> bool:
        """Whether the server has acknowledged nothing since ``note_silent``: it is gone, or the way to it is."""
        return self._silent_at is not None and self._silent_at == self.acks

    def note_silent(self) -> None:
        """A request was not acknowledged within ``patience``."""
        self._silent_at = self.acks

    @property
    def patience(self) -> float:
        """Seconds within which a server that is there has acknowledged a request, before it answers.

        At least the head start that addresses get, so that a server may be late; at most a quarter of the time there is
        for connecting.
        """
        patience = max(self.timeouts.attempt_delay, _PATIENCE_IN_PTOS * self.probe_timeout)
        return min(patience, self.timeouts.connect / 4)

    def is_acknowledged(self, request: PendingRequest) -> bool:
        """Whether the server has the whole of a request."""
        stream = self._raw.get(request.stream_id)
        return stream is None or not stream.unacked

    def connected(self) -> None:
        self._on_progress()

    def unreachable(self, code: int, is_remote: bool) -> None:
        if is_remote and code == errno.EMSGSIZE:
            # It may have been about another program's packet. If it was ours, the connect timeout's error says so.
            self.is_too_large = True
        elif code not in _PASSING and not self.is_lost:
            self._final_facts = self.core.facts()
            loss = Loss(CloseCause.UNREACHABLE, code, "", is_remote=is_remote)
            self.abandon(loss, ErrorCodes.H3_NO_ERROR, "")

    def forget_dialer(self) -> None:
        """Call the dialer no more, and keep it no longer in memory: it has returned the connection, or closed it."""
        self._on_progress = _nobody
        self.on_settings = None

    def send_request(
        self, facts: SessionFacts, protocols: Sequence[str], trace: Trace, on_progress: Callable[[], None]
    ) -> PendingRequest | None:
        """Send a session request; None while the server allows no stream for it.

        ``on_progress`` is called when there is an answer, or when it is time to ask again.
        """
        stream = self.open_request()
        if stream is None:
            if self.waiting_for_streams is None:
                self.waiting_for_streams = set()
            self.waiting_for_streams.add(on_progress)
            if not self.is_full:
                self.is_full = True
                future = self.loop.create_future()
                future.add_done_callback(self._has_streams)
                self.core.wait_streams(True, future)
            return None
        request = PendingRequest(self, stream.id, facts, trace, on_progress)
        if self._pending is None:
            self._pending = {}
        self._pending[stream.id] = request
        try:
            self.h3.send_connect(
                stream.id,
                authority=facts.authority,
                path=facts.path,
                headers=facts.request_headers,
                protocols=protocols,
                origin=facts.origin,
            )
        except BaseException:
            self.cancel_request(stream.id)
            raise
        self._pump()
        return request

    def _has_streams(self, _: asyncio.Future[None]) -> None:
        """The server allows streams again, or the connection is lost."""
        self.is_full = False
        waiting, self.waiting_for_streams = self.waiting_for_streams, None
        for on_streams in waiting or ():
            on_streams()

    def _take_pending(self, stream_id: int) -> PendingRequest | None:
        """Take a request off those without an answer; None if it is not one of them."""
        if self._pending is None:
            return None
        pending = self._pending.pop(stream_id, None)
        if not self._pending:
            # A dict keeps the room for what was in it.
            self._pending = None
        return pending

    def cancel_request(self, stream_id: int) -> None:
        """Cancel a session request, also one whose answer has arrived but was not looked at yet."""
        self._take_pending(stream_id)
        if self.is_lost:
            return
        if session := self.sessions.get(stream_id):
            self.abort_session(session)
            return
        self.h3.abort_session(stream_id, ErrorCodes.H3_REQUEST_CANCELLED)
        self._pump()
        if stream := self._raw.remove(stream_id):
            # The request could not even be written.
            refuse(stream, ErrorCodes.H3_REQUEST_CANCELLED)
        self.forget_request(stream_id)

    def take_event(self, event: Event) -> None:
        match event:
            case SettingsReceived():
                self.settings = event
                if self.on_settings is not None:
                    self.on_settings(self)
                self._on_progress()
            case SessionAccepted(stream_id, status, headers, protocol) if pending := self._take_pending(stream_id):
                request = pending.facts
                dialect = self.h3.dialect
                pending.session = self.add_session(
                    stream_id,
                    SessionFacts(
                        authority=request.authority,
                        path=request.path,
                        origin=request.origin,
                        protocol=protocol,
                        dialect=dialect.value if dialect else "",
                        protocol_token=dialect.row.token if dialect else "",
                        request_headers=request.request_headers,
                        response_headers=tuple(headers),
                        status=status,
                    ),
                    pending.trace,
                )
                pending.on_progress()
            case SessionRejected(stream_id) | SessionTerminated(stream_id):
                if pending := self._take_pending(stream_id):
                    if isinstance(event, SessionRejected):
                        self.note_rejected(event.status, pending.facts.path)
                    pending.rejection = event
                    self.forget_request(stream_id)
                    pending.on_progress()

    def forget_session(self, session: WebTransportSession) -> None:
        """Warn of an open session that the application has lost, and close it."""
        if not self.loop.is_closed():
            # Alive again until it is closed; a destructor never runs twice.
            self.sessions.hold(session)
            self.loop.call_soon_threadsafe(self._close_forgotten, session)
        facts = session.facts
        warnings.warn(
            f"unclosed WebTransport session https://{facts.authority}{facts.path.partition('?')[0]}; use `async with`, "
            "or await its close()",
            ResourceWarning,
            # The line that dropped the last reference, unless the garbage collector did.
            stacklevel=3,
            source=session,
        )

    def _close_forgotten(self, session: WebTransportSession) -> None:
        session_id = session.session_id
        state = self.sessions.get(session_id)
        if state is None or state.is_closed:
            return
        if not self.is_lost and self.h3.session_state(session_id) is not None:
            # Nothing can have come for it but streams that arrived while it was being collected.
            self.refuse_early(session_id)
            self.close_session(state, 0, "")
            return
        self.sessions.end(state, CloseInfo(None, "it was not closed", "local"))
        self._session_finished(state)

    def failure_log(self) -> FailureLog:
        """Where to report what handlers of streams raise."""
        if self._failures is None:
            self._failures = FailureLog(self.logger)
        return self._failures

    def session_over(self, session: SessionState) -> None:
        # Section 6: a client whose last session has ended on both sides closes the connection.
        if not self.is_used:
            self.close_connection(ErrorCodes.H3_NO_ERROR, "")

    async def wait_session_over(self, session: SessionState) -> None:
        await super().wait_session_over(session)
        # Until CONNECTION_CLOSE has left, too, for the program may end right after.
        if self.is_ending:
            await self.lost.wait()

    def connection_lost(self) -> None:
        self._sockets.connections.discard(self)
        self._sockets.release(self.driver)
        if self._failures is not None:
            self._failures.close()
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()
        pending, self._pending = self._pending, None
        for request in (pending or {}).values():
            request.on_progress()
        self._on_progress()

    def close_at_once(self, code: int = ErrorCodes.H3_NO_ERROR, reason: str = "") -> None:
        """Close it, and its socket as soon as nothing needs that any more."""
        super().close_at_once(code, reason)
        self._sockets.release(self.driver)

    def add_connector(self) -> None:
        """A connect call has been given this connection."""
        self.connector_count += 1

    def remove_connector(self) -> None:
        """A connect call is done, with or without a session. A connection that has neither is closed."""
        self.connector_count -= 1
        if not self.is_used:
            self.close_at_once()
