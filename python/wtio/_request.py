"""Requests of clients for sessions.

``RequestState`` is the state of a session request, which the server, its connection and ``SessionRequest`` share. The
server decides which requests are accepted, and its connection sends the answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol

from wtio._arguments import check_bool, check_integer, check_some_handler, check_text
from wtio._buffer import contiguous_bytes
from wtio._headers import HeaderArgument, Headers, header_pairs, parse_cookies
from wtio._log import session_name, shown_path
from wtio._reporting import certificate_report
from wtio._url import parse_query, without_query
from wtio.errors import LocalProtocolError, SessionClosedError
from wtio.protocol.handshake import RESPONSE_RESERVED
from wtio.report import CertificateReport  # noqa: TC001 - for typing.get_type_hints
from wtio.session import WebTransportSession

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from wtio import _core
    from wtio._session_state import SessionState
    from wtio.protocol.dialects import Dialect
    from wtio.protocol.outbox import SessionRequested

__all__ = ["RequestState", "SessionHandler", "SessionRequest"]

SessionHandler = Callable[[WebTransportSession], Awaitable[object]]


class Asker(Protocol):
    """The connection of a session request (``server.ServerConnection``)."""

    core: _core.Connection
    loop: asyncio.AbstractEventLoop
    # What limits per address count as the client's.
    address: str

    @property
    def log_name(self) -> str:
        """The connection's name in the log."""

    @property
    def is_lost(self) -> bool:
        """Whether the connection is over."""

    @property
    def is_ending(self) -> bool:
        """Whether the connection is being closed, or over."""

    @property
    def answer_timeout(self) -> float:
        """``Timeouts.request`` of the server, in seconds."""

    def peer_certificates(self) -> list[bytes]:
        """The client's chain in DER, its own certificate first; empty without one."""

    def accept_request(
        self, request: RequestState, protocol: str | None, headers: Headers, status: int, flush: bool
    ) -> WebTransportSession:
        """Answer and make the session. If ``protocol`` is None, the server chooses one."""

    def run_handler(self, request: RequestState, session: WebTransportSession, handler: SessionHandler) -> None:
        """Run a handler, in a task of its own, with the session that a request has become."""

    def reject_request(self, request: RequestState, status: int, headers: Headers, body: bytes) -> None:
        """Answer with another status."""

    def remove_request(self, request: RequestState) -> None:
        """Forget a request that is answered, or whose client is gone."""

    def withdraw_request(self, request: RequestState) -> None:
        """Remove a request from the server's queue, if it is there."""


class RequestState:
    """The state of a session request. The application sees it through ``SessionRequest``."""

    __slots__ = (
        "_connection",
        "_timer",
        "address",
        "authority",
        "core",
        "dialect",
        "headers",
        "is_answered",
        "is_gone",
        "namespace",
        "origin",
        "path",
        "protocol_token",
        "protocols",
        "session",
        "session_id",
    )

    def __init__(self, connection: Asker, event: SessionRequested) -> None:
        self._connection = connection
        self.core: _core.Connection = connection.core
        # What limits per address count as the client's.
        self.address: str = connection.address
        # The stream ID of the CONNECT stream. A session that is accepted has the same ID.
        self.session_id: int = event.stream_id
        # What the client sent; see the properties of ``SessionRequest``.
        self.authority: str = event.authority
        self.path: str = event.path
        self.origin: str | None = event.origin
        self.headers: Headers = tuple(event.headers)
        self.protocols: tuple[str, ...] = event.protocols
        self.protocol_token: str = event.protocol_token
        self.dialect: Dialect = event.dialect
        # The application's own attributes; None until it asks for them. ``adopt`` gives them to the session.
        self.namespace: SimpleNamespace | None = None
        # What is known of the session, once the request is accepted.
        self.session: SessionState | None = None
        # Whether it was accepted or rejected, by the application or by the server.
        self.is_answered: bool = False
        # Whether the client has withdrawn it, or its connection is lost.
        self.is_gone: bool = False
        # Rejects a request that waits in the server's queue for too long. None before that, and once it is settled.
        self._timer: asyncio.TimerHandle | None = None

    def peer_certificates(self) -> list[bytes]:
        """The client's chain in DER, its own certificate first; empty without one."""
        return self._connection.peer_certificates()

    def accept(
        self, protocol: str | None = None, headers: Headers = (), *, status: int = 200, flush: bool = True
    ) -> WebTransportSession:
        """Establish the session. The arguments are explained in ``SessionRequest.accept``.

        Raises:
            LocalProtocolError: The request has already been answered.
            SessionClosed: The client is gone.
            ValueError: ``protocol`` was not offered, or a header cannot be sent.
        """
        self._check_unanswered()
        if self.is_gone or self._connection.is_lost:
            raise SessionClosedError(
                code=None, reason="the client left before the session was accepted", closed_by="peer"
            )
        return self._connection.accept_request(self, protocol, headers, status, flush)

    @property
    def has_left(self) -> bool:
        """Whether the client is gone, or about to be."""
        return self.is_gone or self._connection.is_ending

    @property
    def log_name(self) -> str:
        """What the log calls it: the session that it has become, or its connection."""
        if self.session is not None:
            return session_name(self.session.log_id, self.path)
        return f"{self._connection.log_name}, path {shown_path(self.path)}"

    def adopt(self, session: SessionState) -> None:
        """The request has become a session, which has the application's attributes from now on."""
        session.namespace = self.namespace
        self.session = session

    def attributes(self) -> SimpleNamespace:
        """Return the application's own attributes, which are made for it when it first asks."""
        holder = self.session or self
        if holder.namespace is None:
            holder.namespace = SimpleNamespace()
        return holder.namespace

    def run(self, session: WebTransportSession, handler: SessionHandler) -> None:
        """Run a handler with the session that this request has become."""
        self._connection.run_handler(self, session, handler)

    def reject(self, status: int, headers: Headers = (), body: bytes = b"") -> None:
        """Refuse the session. Does nothing if the client is gone.

        Raises:
            LocalProtocolError: The request has already been answered.
            ValueError: The status or a header cannot be sent.
        """
        self._check_unanswered()
        if not self.is_gone:
            self._connection.reject_request(self, status, headers, body)

    def begin_waiting(self) -> None:
        """Start the timer of a request that waits in the server's queue."""
        self._timer = self._connection.loop.call_later(self._connection.answer_timeout, self._expire)

    def note_answered(self) -> None:
        """Record that the request was accepted or rejected."""
        self.is_answered = True
        self._settle()

    def note_gone(self) -> None:
        """Record that the client has withdrawn the request, or that its connection is lost."""
        self.is_gone = True
        self._settle()
        self._connection.withdraw_request(self)

    def _check_unanswered(self) -> None:
        if self.is_answered:
            raise LocalProtocolError(f"the request for `{without_query(self.path)}` was answered before")

    def _settle(self) -> None:
        self._connection.remove_request(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if not self.is_answered and not self.is_gone:
            self._connection.withdraw_request(self)
            self.reject(503)


class SessionRequest:
    """A client's request for a session. Answer it within ``Timeouts.request``: ``accept``, ``serve`` or ``reject``.

    ``serve(admit=...)`` and ``async for request in server`` give requests. Its facts can be read before and after the
    answer.
    """

    __slots__ = ("__weakref__", "_state")

    def __init__(self, state: RequestState) -> None:
        self._state = state

    @property
    def path(self) -> str:
        """Path with query, beginning with ``/``."""
        return self._state.path

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """Names and values in the query of ``path``, in order and decoded, as ``urllib.parse.parse_qsl`` gives them.

        Values may be empty. Parsed each time; never fails, whatever the client sent.
        """
        return parse_query(self._state.path)

    @property
    def authority(self) -> str:
        """Host and port as the client wrote them."""
        return self._state.authority

    @property
    def headers(self) -> Headers:
        """The client's headers in order, names in lower case, without pseudo-headers."""
        return self._state.headers

    @property
    def cookies(self) -> Mapping[str, str]:
        """The client's cookies by name. Parsed each time; never fails, whatever the client sent.

        What is no ``name=value`` is left out. Quotes around a value are taken off, nothing else is decoded. Of several
        cookies with the same name the first one counts, which browsers send for the longest path.

        Source: RFC 6265, sections 4.2 and 5.4.
        """
        return parse_cookies(self._state.headers)

    @property
    def state(self) -> SimpleNamespace:
        """The application's own attributes: what is stored here is on ``WebTransportSession.state`` of the session.

        For instance ``request.state.user = user`` in ``admit``. wtio never reads it. It is made when it is first asked
        for.
        """
        return self._state.attributes()

    @property
    def origin(self) -> str | None:
        """Value of the Origin header, which browsers always send; None without one."""
        return self._state.origin

    @property
    def protocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, preferred ones first."""
        return self._state.protocols

    @property
    def protocol_token(self) -> str:
        """Value of the ``:protocol`` pseudo-header as the client sent it: ``webtransport`` or ``webtransport-h3``.

        It is the upgrade token of HTTP, and says nothing about the subprotocols, which are ``protocols``.

        Source: RFC 9220, section 3; draft-ietf-webtrans-http3-16, section 3.2.
        """
        return self._state.protocol_token

    @property
    def dialect(self) -> str:
        """The group of drafts that the client uses, for instance ``draft02``."""
        return self._state.dialect.value

    @property
    def remote_address(self) -> tuple[str, int]:
        """IP address and UDP port of the client."""
        return self._state.core.remote_address

    @property
    def server_name(self) -> str | None:
        """The host name that the client asked for in TLS (SNI); None without one."""
        return self._state.core.server_name

    @property
    def peer_certificates(self) -> list[bytes]:
        """The client's certificate chain in DER, its own certificate first; empty if it showed none.

        What is here was checked against ``ServerTLS(client_cafile=...)``.
        """
        return self._state.peer_certificates()

    @property
    def peer_certificate(self) -> CertificateReport | None:
        """What the client's own certificate says; None if it showed none.

        Subject and issuer are text for people. A program that tells clients apart by more than ``sha256`` reads the DER
        with a library for X.509.
        """
        chain = self._state.peer_certificates()
        return certificate_report(chain[0]) if chain else None

    @property
    def is_answered(self) -> bool:
        """Whether the request was accepted, rejected, or answered because ``Timeouts.request`` was over."""
        return self._state.is_answered

    @property
    def is_accepted(self) -> bool:
        """Whether the request was accepted, and has become a session."""
        return self._state.session is not None

    async def accept(
        self,
        *,
        protocol: str | None = None,
        headers: HeaderArgument = (),
        status: int = 200,
        flush: bool = True,
    ) -> WebTransportSession:
        """Establish the session. Never suspends, so cancelling cannot interrupt it.

        Args:
            protocol: The subprotocol to use, one of ``protocols``; None takes the first of the server's own
                ``protocols`` that the client offers, or none.
            headers: Further headers of the response, in order: a mapping or pairs.
            status: HTTP status, 200 … 299. Default 200.
            flush: True (default) sends the answer at once, so that the client can go on while the session is made here.
                False lets it leave at the end of the event loop's turn, in the same packets as what is written until
                then: first data, or a close.

        Returns:
            The session. Close it, or use it with ``async with``. In ``admit``, leave it alone if the server's handler
            is to serve it.

        Raises:
            LocalProtocolError: The request has already been answered.
            SessionClosed: The client is gone.
            ValueError: ``protocol`` was not offered, ``status`` is out of its range, or a header cannot be sent; the
                request is still unanswered.
            TypeError: An argument is of the wrong type; the request is still unanswered.

        Source: draft-ietf-webtrans-http3-16, sections 3.2 and 3.3.
        """
        self._state.core.check_loop()
        check_text("protocol", protocol, optional=True)
        check_integer("status", status, 200, 299)
        check_bool("flush", flush)
        return self._state.accept(protocol, header_pairs(headers, RESPONSE_RESERVED), status=status, flush=flush)

    async def serve(
        self,
        handler: SessionHandler,
        *,
        protocol: str | None = None,
        headers: HeaderArgument = (),
        status: int = 200,
    ) -> None:
        """Establish the session, and run ``handler(session)`` in a task of its own, as ``wtio.serve(handler)`` does.

        The server closes the session when the handler ends, logs what it raises, and waits for it while it closes. So
        requests for different paths can have different handlers, in ``admit`` as well as with ``async for request in
        server``. In ``admit``, the server's own handler does not run then. Never suspends, so cancelling cannot
        interrupt it; whoever calls it may end before the handler does.

        Args:
            handler: ``async def handler(session)``.
            protocol: As in ``accept``.
            headers: As in ``accept``.
            status: As in ``accept``.

        Raises:
            LocalProtocolError: The request has already been answered.
            SessionClosed: The client is gone.
            ValueError: As in ``accept``; the request is still unanswered.
            TypeError: An argument is of the wrong type; the request is still unanswered.
        """
        check_some_handler("handler", handler)
        session = await self.accept(protocol=protocol, headers=headers, status=status)
        self._state.run(session, handler)

    async def reject(self, status: int | None = None, *, headers: HeaderArgument = (), body: bytes = b"") -> None:
        """Refuse the session. Never suspends, so cancelling cannot interrupt it.

        Args:
            status: HTTP status, 300 … 599; 403 for a forbidden origin. None (default) says that there is no
                WebTransport at this path, in the words of the client's draft: 405 in draft 16, 404 in older ones.
            headers: Further headers of the response, in order: a mapping or pairs.
            body: Content of the response. Default empty.

        Raises:
            LocalProtocolError: The request has already been answered.
            ValueError: The status or a header cannot be sent; the request is still unanswered.
            TypeError: An argument is of the wrong type; the request is still unanswered.

        Source: draft-ietf-webtrans-http3-16, section 3.2.
        """
        self._state.core.check_loop()
        if status is None:
            status = self._state.dialect.row.not_found_status
        check_integer("status", status, 300, 599)
        pairs = header_pairs(headers, RESPONSE_RESERVED)
        content = bytes(contiguous_bytes(body, "body"))
        self._state.reject(status, pairs, content)

    def __repr__(self) -> str:
        host, port = self.remote_address
        return f"<SessionRequest {self.authority}{without_query(self.path)} from {host} port {port}>"
