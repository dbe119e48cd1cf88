"""A server's connection: requests that come in, answers that go out, and room for streams.

What becomes of a request is not decided here: that is for the ``Host`` that the connection is given.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from wtio._connection.base import Connection
from wtio._connection.http import Exchange, HttpEvent, HttpExchanges
from wtio._facts import SessionFacts
from wtio._log import SERVER, PacedLines
from wtio._request import RequestState, SessionHandler
from wtio.errors import SessionClosedError
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import SessionStateError
from wtio.protocol.outbox import (
    BodyEnded,
    BodyReceived,
    Event,
    RequestReceived,
    RequestRefused,
    RequestTerminated,
    SessionFinished,
    SessionRequested,
    SessionStopping,
    SessionTerminated,
)

if TYPE_CHECKING:
    from wtio import _core
    from wtio._driver import Driver
    from wtio._failures import FailureLog
    from wtio._headers import Headers
    from wtio._options import EndpointOptions
    from wtio._reporting import Trace
    from wtio._session_state import SessionState
    from wtio.errors import ClosedBy
    from wtio.session import WebTransportSession

__all__ = ["Host", "ServerConnection"]

# Probe timeouts that a client has to go by itself, as many as a closed connection lasts (RFC 9000, section 10.2).
_PARTING_IN_PTOS: Final = 3


class HttpHost(Protocol):
    """What a connection needs from whoever answers ordinary requests (``_http_service.HttpService``)."""

    def take(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""


class Host(Protocol):
    """What a connection needs from its server (``_service.Service``)."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """Subprotocols that the server supports, preferred ones first."""

    @property
    def failures(self) -> FailureLog:
        """Logs what handlers raise."""

    @property
    def lines(self) -> PacedLines:
        """Writes what the log says of connections at DEBUG."""

    def take_request(self, request: RequestState) -> None:
        """Answer a request for a session, now or later."""

    def withdraw_request(self, request: RequestState) -> None:
        """Forget a request that may wait for an answer: it has become void."""

    def request_accepted(self, request: RequestState, session: WebTransportSession) -> None:
        """Note what a request has become."""

    def request_settled(self) -> None:
        """Count a request less: it is answered, or its client is gone."""

    def run_handler(self, request: RequestState, session: WebTransportSession, handler: SessionHandler) -> None:
        """Run a handler, in a task of its own, with the session that a request has become."""

    @property
    def http(self) -> HttpHost:
        """Who answers ordinary requests."""

    def request_rejected(self, status: int) -> None:
        """Count a request that is answered with a status that refuses it."""

    def session_opened(self, address: str) -> None:
        """Count one more session, of a client at this address."""

    def session_over(self, address: str, closed_by: ClosedBy) -> None:
        """Count a session less: it has ended on both sides."""

    def connection_lost(self, connection: ServerConnection) -> None:
        """Forget the connection."""


class ServerConnection(Connection):
    """A connection of a server: any number of sessions and ordinary requests."""

    __slots__ = (
        "_exchanges",
        "_further_room",
        "_host",
        "_idle_timer",
        "_parked_timer",
        "address",
        "requests",
    )

    is_client = False
    logger = SERVER

    def __init__(self, core: _core.Connection, driver: Driver, options: EndpointOptions, host: Host) -> None:
        super().__init__(core, driver, options, host.lines)
        # Decides about requests, and counts sessions and connections.
        self._host = host
        # What limits per address count as the client's: where the connection began. An IPv4 address or an IPv6 network.
        self.address = core.address_prefix
        # Requests for sessions that are unanswered, by session ID. They count as sessions of the connection, which
        # bounds them.
        self.requests: dict[int, RequestState] = {}
        # Ordinary requests. Made for the first of them, which most connections never have.
        self._exchanges: HttpExchanges | None = None
        # Closes a connection without sessions and requests; runs while it has none.
        self._idle_timer: asyncio.TimerHandle | None = None
        # Refuses requests for which the client's SETTINGS do not come; runs while there are such requests.
        self._parked_timer: asyncio.TimerHandle | None = None
        # How many more bidirectional streams the client may have open than at the beginning, for its CONNECT streams.
        # ``_make_room`` changes it.
        self._further_room = 0
        self.watch_idle()

    def send_goaway(self) -> None:
        """Ask the client for no further sessions."""
        self.h3.send_goaway()
        self._pump()

    async def leave(self, reason: str) -> None:
        """Close the connection and wait until it is lost. A client that has just lost its last session goes first.

        Clients whose last session has ended close their connection (draft-ietf-webtrans-http3-16, section 6). Chromium
        does so, silently, in a task behind the one that reads the end of the session. A CONNECTION_CLOSE that it can
        read before that task runs makes it drop the session's code and reason.
        """
        parting = min(_PARTING_IN_PTOS * self.probe_timeout, self.timeouts.close)
        # The timer runs since there are no sessions and requests.
        if self.is_connected and self._idle_timer is not None:
            unused_since = self._idle_timer.when() - self.timeouts.without_session
            try:
                async with asyncio.timeout_at(unused_since + parting):
                    await self.lost.wait()
            except TimeoutError:
                pass
        self.close_connection(ErrorCodes.H3_NO_ERROR, reason)
        await self.lost.wait()

    def take_event(self, event: Event) -> None:
        match event:
            case SessionRequested():
                request = RequestState(self, event)
                self.requests[event.stream_id] = request
                self._host.take_request(request)
            case RequestRefused(_, status):
                self._count_rejected(status, None)
            case RequestReceived() | BodyReceived() | BodyEnded() | RequestTerminated():
                self._take_http(event)
            case SessionTerminated(session_id) | SessionFinished(session_id):
                if gone := self.requests.get(session_id):
                    gone.note_gone()
                    self.forget_request(session_id)
                self.watch_idle()
            case SessionStopping(session_id):
                if session_id in self.requests:
                    self.h3.abort_session(session_id, ErrorCodes.H3_REQUEST_CANCELLED)

    # -- calls of session requests

    @property
    def answer_timeout(self) -> float:
        return self.timeouts.request

    def accept_request(
        self, request: RequestState, protocol: str | None, headers: Headers, status: int, flush: bool
    ) -> WebTransportSession:
        if protocol is None:
            protocol = next((name for name in self._host.protocols if name in request.protocols), None)
        try:
            self.h3.accept(request.session_id, headers=headers, protocol=protocol, status=status)
        except SessionStateError as error:
            raise SessionClosedError(code=None, reason=str(error), closed_by="peer") from error
        self.send_outputs()
        if flush:
            # The answer is on its way while the session is made here.
            self.driver.flush()
        request.note_answered()
        session = self.add_session(
            request.session_id,
            SessionFacts(
                authority=request.authority,
                path=request.path,
                origin=request.origin,
                protocol=protocol,
                dialect=request.dialect.value,
                protocol_token=request.protocol_token,
                request_headers=request.headers,
                response_headers=headers,
                status=status,
            ),
        )
        if state := self.sessions.get(request.session_id):
            request.adopt(state)
        self._host.request_accepted(request, session)
        self._pump()
        return session

    def run_handler(self, request: RequestState, session: WebTransportSession, handler: SessionHandler) -> None:
        self._host.run_handler(request, session, handler)

    def reject_request(self, request: RequestState, status: int, headers: Headers, body: bytes) -> None:
        try:
            self.h3.reject(request.session_id, status, headers=headers, body=body)
        except SessionStateError:
            return  # the connection is about to end, and the request with it
        self._count_rejected(status, request.path)
        request.note_answered()
        self.forget_request(request.session_id)
        self._pump()
        self.watch_idle()

    def _count_rejected(self, status: int, path: str | None) -> None:
        self._host.request_rejected(status)
        self.note_rejected(status, path)

    def remove_request(self, request: RequestState) -> None:
        if self.requests.pop(request.session_id, None) is not None:
            self._host.request_settled()
            if not self.requests:
                # A dict keeps the room for what was in it.
                self.requests = {}

    def withdraw_request(self, request: RequestState) -> None:
        self._host.withdraw_request(request)

    # -- ordinary requests

    def _take_http(self, event: HttpEvent) -> None:
        exchanges = self._begin_exchanges()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        exchanges.take(event)

    def _begin_exchanges(self) -> HttpExchanges:
        if self._exchanges is None:
            self._exchanges = HttpExchanges(
                self.core,
                self.loop,
                self.h3,
                self._raw,
                self.options,
                pump=self._pump,
                take=self._host.http.take,
                is_over=self.watch_idle,
            )
        return self._exchanges

    # -- sessions

    def add_session(self, session_id: int, facts: SessionFacts, trace: Trace | None = None) -> WebTransportSession:
        self._host.session_opened(self.address)
        session = super().add_session(session_id, facts, trace)
        self.sessions.hold(session)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        self._make_room()
        return session

    def abort_session(self, session: SessionState) -> None:
        super().abort_session(session)
        # Clients differ in what of a CONNECT stream has to end before a session has: after a reset alone, a page in
        # Chromium waits. CONNECTION_CLOSE is the end for all of them, and is repeated for as long as the client sends.
        if not self._is_in_use():
            self.close_connection(ErrorCodes.H3_NO_ERROR, "")

    def shed(self) -> None:
        """Close the connection before this returns, and drop what it holds: the server needs the memory."""
        self.close_at_once(ErrorCodes.H3_EXCESSIVE_LOAD, "the server is short of memory")
        self.core.drop_received()

    def _make_room(self) -> None:
        """Let CONNECT streams not take from the streams that sessions may have, nor from further sessions."""
        if self.is_lost or not self.h3.flow_control:
            return
        further = 0
        if len(self.sessions) > 1:
            # Beyond the limit are sessions that their clients do not end: these do take from the others' streams.
            further = min(len(self.sessions), self.h3.session_limit)
        if further != self._further_room:
            self._further_room = further
            count, _ = self.options.peer_streams(is_server=True)
            self.core.set_concurrent_streams(True, count + further)

    def failure_log(self) -> FailureLog:
        """Where to report what handlers of streams raise."""
        return self._host.failures

    def session_over(self, session: SessionState) -> None:
        # A session that is over on both sides has ended on this one.
        self._host.session_over(self.address, "local" if session.close_info is None else session.close_info.closed_by)
        self._make_room()
        self.watch_idle()

    def connection_lost(self) -> None:
        for request in list(self.requests.values()):
            request.note_gone()
        if self._exchanges is not None:
            self._exchanges.lose()
            # It refers back to the connection.
            self._exchanges = None
        for timer in (self._idle_timer, self._parked_timer):
            if timer is not None:
                timer.cancel()
        self._host.connection_lost(self)

    def watch_idle(self) -> None:
        """Close a connection that stays without sessions and requests for ``Timeouts.without_session``."""
        if self._idle_timer is None and not self._is_in_use() and not self.is_lost:
            self._idle_timer = self.loop.call_later(self.timeouts.without_session, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._idle_timer = None
        if not self._is_in_use():
            self.close_connection(ErrorCodes.H3_NO_ERROR, "no session for too long")

    def _is_in_use(self) -> bool:
        """Whether the connection has sessions, or requests of any kind."""
        return bool(self.sessions or self.requests or self._exchanges)

    def read_raw(self, stream_id: int) -> None:
        exchanges = self._exchanges
        if exchanges is not None and (exchange := exchanges.get(stream_id)):
            exchange.note_readable()
            return
        self._raw.read(stream_id)
        if stream_id & 3:  # RFC 9000, section 2.1: the client has sent it on a control or QPACK stream
            return
        if exchanges is not None or self.h3.exchanges.awaits_head(stream_id):
            self._begin_exchanges().watch_head(stream_id)
        # Requests that came before the client's SETTINGS wait for them, but not for ever.
        if self.h3.parked and self._parked_timer is None and not self.is_lost:
            self._parked_timer = self.loop.call_later(self.timeouts.request, self._expire_parked)

    def _expire_parked(self) -> None:
        self._parked_timer = None
        if not self.is_lost and self.h3.expire_parked():
            self._pump()
