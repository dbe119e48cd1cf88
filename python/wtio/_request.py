"""Requests of clients for sessions.

``RequestState`` is the state of a session request, which the server, its connection and ``SessionRequest`` share. The
server decides which requests are accepted, and its connection sends the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from wtio._arguments import check_integer, check_text
from wtio._buffer import contiguous_bytes
from wtio._headers import HeaderArgument, Headers, header_pairs
from wtio._url import without_query
from wtio.errors import LocalProtocolError, SessionClosedError
from wtio.protocol.handshake import RESPONSE_RESERVED
from wtio.session import WebTransportSession  # noqa: TC001 - for typing.get_type_hints

if TYPE_CHECKING:
    import asyncio

    from wtio import _core
    from wtio.protocol.dialects import Dialect
    from wtio.protocol.outbox import SessionRequested

__all__ = ["RequestState", "SessionRequest"]


class Asker(Protocol):
    """The connection of a session request (``server.ServerConnection``)."""

    core: _core.Connection
    loop: asyncio.AbstractEventLoop

    @property
    def is_lost(self) -> bool:
        """Whether the connection is over."""

    @property
    def answer_timeout(self) -> float:
        """``Timeouts.request`` of the server, in seconds."""

    def accept_request(self, request: RequestState, protocol: str | None, headers: Headers) -> WebTransportSession:
        """Answer with 200 and make the session. If ``protocol`` is None, the server chooses one."""

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
        "authority",
        "core",
        "dialect",
        "headers",
        "is_answered",
        "is_gone",
        "origin",
        "path",
        "protocols",
        "session_id",
    )

    def __init__(self, connection: Asker, event: SessionRequested) -> None:
        self._connection = connection
        self.core = connection.core
        # The stream ID of the CONNECT stream. A session that is accepted has the same ID.
        self.session_id = event.stream_id
        # What the client sent; see the properties of ``SessionRequest``.
        self.authority = event.authority
        self.path = event.path
        self.origin = event.origin
        self.headers: Headers = tuple(event.headers)
        self.protocols = event.protocols
        self.dialect: Dialect = event.dialect
        # Whether it was accepted or rejected, by the application or by the server.
        self.is_answered = False
        # Whether the client has withdrawn it, or its connection is lost.
        self.is_gone = False
        # Rejects a request that waits in the server's queue for too long. None before that, and once it is settled.
        self._timer: asyncio.TimerHandle | None = None

    def accept(self, protocol: str | None = None, headers: Headers = ()) -> WebTransportSession:
        """Establish the session.

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
        return self._connection.accept_request(self, protocol, headers)

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
    """A client's request for a session. Answer it with ``accept`` or ``reject`` within ``Timeouts.request``."""

    __slots__ = ("__weakref__", "_state")

    def __init__(self, state: RequestState) -> None:
        self._state = state

    @property
    def path(self) -> str:
        """Path with query, beginning with ``/``."""
        return self._state.path

    @property
    def authority(self) -> str:
        """Host and port as the client wrote them."""
        return self._state.authority

    @property
    def headers(self) -> Headers:
        """The client's headers in order, names in lower case, without pseudo-headers."""
        return self._state.headers

    @property
    def origin(self) -> str | None:
        """Value of the Origin header, which browsers always send; None without one."""
        return self._state.origin

    @property
    def protocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, preferred ones first."""
        return self._state.protocols

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
    def is_answered(self) -> bool:
        """Whether the request was accepted, rejected, or answered because ``Timeouts.request`` was over."""
        return self._state.is_answered

    async def accept(self, *, protocol: str | None = None, headers: HeaderArgument = ()) -> WebTransportSession:
        """Establish the session: status 200. Never suspends, so cancelling cannot interrupt it.

        Args:
            protocol: The subprotocol to use, one of ``protocols``; None takes the first of the server's own
                ``protocols`` that the client offers, or none.
            headers: Further headers of the response, in order: a mapping or pairs.

        Returns:
            The session. Close it, or use it with ``async with``.

        Raises:
            LocalProtocolError: The request has already been answered.
            SessionClosed: The client is gone.
            ValueError: ``protocol`` was not offered, or a header cannot be sent; the request is still unanswered.
            TypeError: An argument is of the wrong type; the request is still unanswered.

        Source: draft-ietf-webtrans-http3-16, sections 3.2 and 3.3.
        """
        self._state.core.check_loop()
        check_text("protocol", protocol, optional=True)
        return self._state.accept(protocol, header_pairs(headers, RESPONSE_RESERVED))

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
