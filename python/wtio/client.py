"""Opening sessions: ``connect``, and ``Client`` for many sessions that share sockets and connections.

``connect`` checks the URL, finds a connection (``_connection.dial``, ``_connection.pool``) and requests the session on
it. ``Timeouts.connect`` limits all of that together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Sequence  # noqa: TC003 - for typing.get_type_hints
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from wtio._arguments import check_bool, check_instance, check_text
from wtio._connection.dial import Dialer
from wtio._connection.pool import Pool
from wtio._connection.sockets import Sockets
from wtio._core import CloseCause
from wtio._driver.loop import LoopTransport
from wtio._facts import SessionFacts
from wtio._headers import HeaderArgument, header_pairs, offered_protocols
from wtio._options import EndpointOptions
from wtio._reconnecting import Backoff, may_pass, without_frames
from wtio._reporting import Trace
from wtio._session_state import closed_error
from wtio._sockets import local_address
from wtio._url import parse_url, without_secrets
from wtio._words import GIVEN_UP, status_hint
from wtio.config import Limits, Timeouts
from wtio.errors import (
    ConnectError,
    HandshakeTimeout,
    LocalProtocolError,
    RemoteProtocolError,
    SessionRejectedError,
)
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import SessionStateError
from wtio.protocol.messages import check_headers
from wtio.protocol.outbox import SessionRejected, SessionTerminated
from wtio.session import WebTransportSession  # noqa: TC001 - for typing.get_type_hints
from wtio.tls import ClientTLS, DevCertificate, ServerTLS

if TYPE_CHECKING:
    from types import TracebackType

    from wtio._connection.client import ClientConnection, PendingRequest
    from wtio._connection.pool import Spare
    from wtio._driver import Address, Transport

__all__ = ["Client", "Connector", "connect"]

_logger = logging.getLogger("wtio.client")


class Connector:
    """What ``connect`` returns.

    Enter it with ``async with``, await it and close the session yourself, or iterate over it with ``async for`` to
    connect again whenever a session is over.
    """

    __slots__ = (
        "__weakref__",
        "_dialer",
        "_is_connecting",
        "_last_error",
        "_pool",
        "_protocols",
        "_request",
        "_session",
    )

    def __init__(self, dialer: Dialer, *, request: SessionFacts, protocols: tuple[str, ...], pool: Pool | None) -> None:
        # Makes a connection, and keeps what errors and reports say about that.
        self._dialer = dialer
        # What to request on it, and the subprotocols to offer.
        self._request = request
        self._protocols = protocols
        # The client's connections that may be shared; None for a connection of its own.
        self._pool = pool
        # The session that was entered last.
        self._session: WebTransportSession | None = None
        # Whether a task is establishing a session now.
        self._is_connecting = False
        # Why ``async for`` had to connect again; see ``last_error``.
        self._last_error: OSError | None = None

    @property
    def last_error(self) -> OSError | None:
        """Why ``async for`` had to connect again last: a SessionClosed, or the error of an attempt that failed.

        None at first, and after a body that came to its end while its session was open.
        """
        return self._last_error

    def __await__(self) -> Generator[object, None, WebTransportSession]:
        return self._establish().__await__()

    async def __aenter__(self) -> WebTransportSession:
        if self._session is not None and not self._session.is_closed:
            # Leaving would close the second one only.
            raise RuntimeError("this connect() has been entered already; call connect() once for each session")
        self._session = await self._establish()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.__aexit__(kind, error, trace)

    async def __aiter__(self) -> AsyncGenerator[WebTransportSession, None]:
        """Iterate over sessions: connect, and connect again whenever a session is over.

        Each session is closed (code 0) when the loop's body comes to its end. It is over for the loop then, whether it
        had ended by itself or not. A body that uses a session which ended gets SessionClosed as everywhere, so catch it
        to go on::

            async for session in wtio.connect(url):
                with contextlib.suppress(wtio.SessionClosed):
                    await follow(session)

        After a session of some length, the next attempt begins within ``Timeouts.reconnect`` (default 0.5 s). After
        each attempt that fails the wait doubles, up to ``Timeouts.reconnect_longest`` (default 60 s), and is varied by
        chance between half and all of it; a session that was shorter than the wait counts as a failure. Never less than
        what the server asks for with Retry-After, up to an hour. ``last_error`` and a line of level INFO (logger
        ``wtio.client``) tell why it connects again.

        Leaving the loop closes the session in the background. Use ``contextlib.aclosing(aiter(connector))`` to wait for
        that. Cancelling ends the attempt or the wait, and with it the iteration.

        Raises:
            SessionRejectedError: The server answered with a status that will not change by itself: below 500, except
                408, 425 and 429.
            CertificateError: The server's certificate is not trusted.
            RequirementsNotMetError: The server does not support HTTP/3 or WebTransport.
            LocalProtocolError: The client was closed.
        """
        loop = asyncio.get_running_loop()
        backoff = Backoff(self._dialer.sockets.options.timeouts)
        while True:
            try:
                session = await self._establish()
            except OSError as error:
                if not may_pass(error):
                    raise
                self._last_error = error
                wait = backoff.after_failure(error)
            else:
                began = loop.time()
                try:
                    yield session
                except BaseException:
                    # The loop was left.
                    await session.close()
                    raise
                wait = backoff.after_session(loop.time() - began)
                self._last_error = closed_error(session.close_info) if session.is_closed else None
                await session.close()
                # The next session shall not wait for this one's memory.
                del session
            if self._last_error is not None:
                without_frames(self._last_error)
            _logger.info(
                "connecting to %s again in %.1f s: %s",
                self._dialer.target.url,
                wait,
                self._last_error or "the session was closed here",
            )
            await asyncio.sleep(wait)

    async def _establish(self) -> WebTransportSession:
        dialer = self._dialer
        dialer.sockets.settle()
        if dialer.sockets.is_closed:
            raise LocalProtocolError("this client was closed; make another one")
        if self._is_connecting:
            raise RuntimeError("this connect() is awaited by another task; call connect() once for each session")
        self._is_connecting = True
        limit = dialer.sockets.options.timeouts.connect
        dialer.restart()
        try:
            async with asyncio.timeout(limit) as timer:
                session = await self._connect()
        except TimeoutError:
            if not timer.expired():
                raise
            # Not kept in a variable: a frame and an exception that know each other would keep the connection until the
            # collector comes.
            raise dialer.reported(self._late(limit)) from None
        except ConnectError as error:
            # The message and the report say at which step it failed, and why. The frames inside say no more, and are
            # most of what Python would print.
            raise dialer.reported(error).with_traceback(None) from error.__cause__
        finally:
            self._is_connecting = False
        dialer.mark("")
        dialer.trace.settle()
        return session

    def _late(self, limit: float) -> HandshakeTimeout:
        """Say that there was no session within so many seconds, and how far it came."""
        dialer = self._dialer
        return HandshakeTimeout(
            f"no session with `{dialer.target.url}` within {limit:g} s (Timeouts.connect): stopped while "
            f"{dialer.step}{dialer.silence_in_words()}",
            timeout=limit,
        )

    async def _connect(self) -> WebTransportSession:
        """Find a connection and request the session on it."""
        dialer, pool = self._dialer, self._pool
        pending: PendingRequest | None = None

        # Given to ``dial`` for the time of its call. If an object kept it, it would keep itself.
        def request_at_once(connection: ClientConnection) -> bool:
            nonlocal pending
            # If the request cannot be sent, ``_request_session`` finds that out again and says why.
            with suppress(SessionStateError, ValueError):
                pending = self._send_request(connection)
            return pending is not None

        while True:
            connection = await (dialer.dial(request_at_once) if pool is None else pool.acquire(dialer))
            is_shared = connection.is_used
            connection.add_connector()
            spare = None if pool is None else pool.spare(dialer, connection)
            try:
                session = await self._request_session(connection, pending, spare)
                if session is not None:
                    return session
            except ConnectError as error:
                # A server may take fewer sessions than it said, or be about to go: nothing was processed.
                # Others may also have come meanwhile, and been served first.
                is_shared = is_shared or connection.connector_count > 1 or bool(connection.sessions)
                if pool is None or not is_shared or not (_was_refused(error) or _was_left(connection)):
                    raise
                connection.is_refusing = True
            finally:
                connection.remove_connector()

    def _send_request(self, connection: ClientConnection) -> PendingRequest | None:
        """Send the CONNECT request; None while the server allows no stream for it."""
        dialer = self._dialer
        return connection.send_request(self._request, self._protocols, dialer.trace, dialer.changed.set)

    async def _request_session(
        self, connection: ClientConnection, pending: PendingRequest | None, spare: Spare | None
    ) -> WebTransportSession | None:
        """Send the CONNECT request, unless ``pending`` was sent on this connection already, and wait for its answer.

        Returns None if ``spare`` has another connection and this one does not serve.
        """
        dialer = self._dialer
        dialer.mark("waiting for the server to allow a request stream")
        if pending is not None and pending.connection is not connection:
            # It was sent on one that was lost before it could be used.
            pending = None
        try:
            while pending is None:
                dialer.raise_if_lost(connection)
                pending = self._send_request(connection)
                if pending is None and await self._wait_for_progress(spare, None):
                    return None
            dialer.step = "waiting for the server's answer to the session request"
            while pending.session is None:
                if pending.rejection is not None:
                    raise self._rejection(pending.rejection)
                dialer.raise_if_lost(connection)
                if await self._wait_for_progress(spare, pending):
                    connection.cancel_request(pending.stream_id)
                    return None
        except SessionStateError as error:
            raise ConnectError(f"no session with `{dialer.target.url}` on this connection: {error}") from error
        except BaseException:
            if pending is not None:
                connection.cancel_request(pending.stream_id)
            raise
        finally:
            if connection.waiting_for_streams is not None:
                connection.waiting_for_streams.discard(dialer.changed.set)
            if spare is not None:
                spare.close()
        return pending.session

    async def _wait_for_progress(self, spare: Spare | None, pending: PendingRequest | None) -> bool:
        """Wait until something has happened. Returns whether the spare connection is to be used instead."""
        self._dialer.changed.clear()
        if spare is None:
            await self._dialer.changed.wait()
            return False
        return await spare.wait(pending, self._dialer.changed)

    def _rejection(self, event: SessionRejected | SessionTerminated) -> ConnectError:
        url = self._dialer.target.url
        if isinstance(event, SessionTerminated):
            error = ConnectError(f"the session request to `{url}` was not answered: {event.reason or 'it was reset'}")
            if event.wire_code is not None:
                error.__cause__ = RemoteProtocolError(event.reason, error_code=event.wire_code)
            return error
        hint = status_hint(event.status, without_secrets(dict(event.headers).get("location", "elsewhere")))
        return SessionRejectedError(
            f"the server rejected the session request to `{url}` with status {event.status}"
            + (f"; {hint}" if hint else ""),
            status=event.status,
            headers=tuple(event.headers),
        )


def _was_refused(error: ConnectError) -> bool:
    """Whether a request is sure not to have been processed (RFC 9114, sections 4.1.1 and 5.2)."""
    cause = error.__cause__
    return isinstance(cause, SessionStateError) or (
        isinstance(cause, RemoteProtocolError) and cause.error_code == ErrorCodes.H3_REQUEST_REJECTED
    )


def _was_left(connection: ClientConnection) -> bool:
    """Whether the server closed the connection without an error, as it may if there is no session on it, or forgot it.

    It forgets a connection that it has closed. If its CONNECTION_CLOSE was lost, it answers with a stateless reset. In
    both cases no session came of the request, even if the server has seen it, so sending it again does no harm.
    """
    loss = connection.loss or GIVEN_UP
    return loss.cause is CloseCause.RESET or (
        loss.cause is CloseCause.APPLICATION and loss.code == ErrorCodes.H3_NO_ERROR
    )


def connect(
    url: str,
    *,
    tls: ClientTLS | None = None,
    headers: HeaderArgument = (),
    protocols: Sequence[str] = (),
    origin: str | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    congestion: str = "tolerant",
    reset_stream_at: bool = True,
    strict: bool = False,
    io: str = "loop",
    local_addr: tuple[str, int] | None = None,
) -> Connector:
    """Open a session: ``async with wtio.connect(url) as session``, or ``session = await wtio.connect(url)``.

    All addresses of the host are tried, each ``Timeouts.attempt_delay`` (default 0.25 s) after the one before; the
    first complete handshake wins. The session has its own connection. Leaving ``async with`` closes both, with code 0,
    or with ``BODY_RAISED_CODE`` (0x102) if the body raised; an exception of the body is never masked. Cancelling closes
    everything that was opened.

    Args:
        url: ``https://host[:port][/path][?query]``; the default port is 443. The host is read as in browsers (WHATWG
            URL Standard); names that are not ASCII need the extra ``wtio[idna]``, or their form with ``xn--``. A
            link-local address needs its interface, as in ``https://[fe80::1%25eth0]/`` (RFC 6874).
        tls: What to trust; None trusts the authorities of the system.
        headers: Further headers of the request, in order: a mapping or pairs.
        protocols: Subprotocols to offer, preferred ones first; the choice is ``session.protocol``.
        origin: Value of the Origin header. None (default) sends no Origin header, which is right for anything but a
            browser.
        timeouts: Durations in seconds; None means ``Timeouts()``. ``Timeouts.connect`` (default 10 s) limits all of
            this together.
        limits: Sizes in bytes and counts; None means ``Limits()``.
        congestion: How fast to send: ``"tolerant"`` (default; CUBIC that tells random losses from a full queue),
            ``"cubic"``, ``"newreno"`` or ``"bbr"`` (experimental). See docs/congestion.md.
        reset_stream_at: Offer and use reliable resets (draft-ietf-quic-reliable-stream-reset), which deliver the
            header of a stream together with its reset. Default True. Without them, or if the peer does not support
            them, a reset waits until the header is acknowledged. Strict peers require them.
        strict: For conformance tests: speak only draft 16, and require the server to follow it to the letter, or raise
            RequirementsNotMetError. False (default) speaks every draft, and requires from a server only what a session
            needs.
        io: Who receives packets, acknowledges them and runs QUIC's timers: ``"loop"`` (default), the event loop, or
            ``"thread"``, a thread per socket that never waits for Python. A thread serves the peer evenly if handlers
            often compute for long; otherwise it makes every answer slower. See docs/late-loops.md.
        local_addr: IP address and UDP port to send from, such as ``("192.0.2.1", 0)``; port 0 takes a free one. A
            link-local address has a zone: ``("fe80::1%eth0", 0)``. Only addresses of the same family are tried. None
            (default) leaves both to the system.

    Raises:
        InvalidURLError: The URL is malformed, not https, or has a fragment or a user name. Raised at once.
        ValueError: A header, subprotocol or origin cannot be sent, or ``congestion`` or ``io`` is unknown. Raised at
            once.
        TypeError: An argument is of the wrong type. Raised at once.
        NameResolutionError: The host has no address.
        CertificateError: The server's certificate is not trusted.
        ConnectionRefused: The server accepts no new connection, or nothing listens at its port.
        RequirementsNotMetError: The server does not support HTTP/3 or WebTransport.
        SessionRejectedError: The server answered with a status other than 2xx.
        HandshakeTimeout: The time is up.
        ConnectError: Base of all these except ValueError and TypeError. Any other failure raises it directly.

    Source: draft-ietf-webtrans-http3-16, section 3.
    """
    options = EndpointOptions(
        limits=Limits() if limits is None else limits,
        timeouts=Timeouts() if timeouts is None else timeouts,
        congestion=congestion,
        reset_stream_at=reset_stream_at,
        strict=strict,
        io=io,
    )
    return make_connector(
        url,
        tls=tls,
        headers=headers,
        protocols=protocols,
        origin=origin,
        sockets=Sockets(LoopTransport(), options, local=local_address(local_addr)),
    )


class Client:
    """Sessions that share sockets and, on request, connections.

    Use it as a context manager::

        async with wtio.Client(tls=tls) as client:
            async with client.connect("https://example.org/chat", allow_pooling=True) as session:
                ...

    All of its connections use one UDP socket per address family and one set of trust settings. They have no threads or
    tasks of their own, so a thousand quiet sessions cost little. A client belongs to the event loop of its first
    session. On another loop or thread, opening sessions and ``close`` raise RuntimeError. Leaving ``async with`` closes
    it.
    """

    __slots__ = ("__weakref__", "_headers", "_origin", "_pool", "_protocols", "_sockets", "_tls")

    def __init__(
        self,
        *,
        tls: ClientTLS | None = None,
        headers: HeaderArgument = (),
        protocols: Sequence[str] = (),
        origin: str | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        congestion: str = "tolerant",
        reset_stream_at: bool = True,
        strict: bool = False,
        io: str = "loop",
        local_addr: tuple[str, int] | None = None,
    ) -> None:
        """Make a client. No socket is opened before the first session.

        Args:
            tls: What to trust; None trusts the authorities of the system.
            headers: Headers of every request, in front of those given to ``connect``.
            protocols: Subprotocols to offer if ``connect`` does not give any.
            origin: Value of the Origin header if ``connect`` does not give one; None (default) sends none.
            timeouts: Durations in seconds; None means ``Timeouts()``.
            limits: Sizes in bytes and counts; None means ``Limits()``.
            congestion: How fast to send: ``"tolerant"`` (default; CUBIC that tells random losses from a full queue),
                ``"cubic"``, ``"newreno"`` or ``"bbr"`` (experimental). See docs/congestion.md.
            reset_stream_at: Offer and use reliable resets (draft-ietf-quic-reliable-stream-reset), which deliver the
                header of a stream together with its reset. Default True. Without them, or if the peer does not support
                them, a reset waits until the header is acknowledged. Strict peers require them.
            strict: As for ``wtio.connect``.
            io: As for ``wtio.connect``. With ``"thread"``, there is one thread per address family.
            local_addr: As for ``wtio.connect``, for all sessions.

        Raises:
            ValueError: A header, subprotocol or origin cannot be sent, or ``congestion`` or ``io`` is unknown.
            TypeError: An argument is of the wrong type.
        """
        options = EndpointOptions(
            limits=Limits() if limits is None else limits,
            timeouts=Timeouts() if timeouts is None else timeouts,
            congestion=congestion,
            reset_stream_at=reset_stream_at,
            strict=strict,
            io=io,
        )
        self._set_up(
            LoopTransport(),
            options,
            tls=tls,
            headers=headers,
            protocols=protocols,
            origin=origin,
            local=local_address(local_addr),
        )

    def _set_up(
        self,
        transport: Transport,
        options: EndpointOptions,
        *,
        tls: ClientTLS | None,
        headers: HeaderArgument,
        protocols: Sequence[str],
        origin: str | None,
        local: Address | None = None,
    ) -> None:
        """Do what constructors have in common; the simulated network's gives another transport."""
        check_client_tls(tls)
        # What to trust, for all connections.
        self._tls = ClientTLS() if tls is None else tls
        # Headers of every request, in front of those given to ``connect``.
        self._headers = header_pairs(headers)
        # Subprotocols and Origin header of requests whose ``connect`` gives none.
        self._protocols = offered_protocols(protocols)
        check_own_origin(origin, self._headers)
        self._origin = origin
        # Connections of sessions that allow pooling. It stays empty if none does.
        self._pool = Pool()
        # All sockets and connections, pooled or not. It also knows whether the client was closed.
        self._sockets = Sockets(transport, options, is_shared=True, local=local)

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._sockets.is_closed

    @property
    def connections(self) -> int:
        """QUIC connections that are open or being opened."""
        return len(self._sockets.connections)

    def connect(
        self,
        url: str,
        *,
        headers: HeaderArgument = (),
        protocols: Sequence[str] | None = None,
        origin: str | None = None,
        allow_pooling: bool = False,
    ) -> Connector:
        """Open a session: ``async with client.connect(url) as session``, or ``session = await client.connect(url)``.

        As ``wtio.connect``, with the client's options and sockets. With pooling, sessions to the same host and port
        share a connection as long as the server allows more sessions on it, which requires session flow control on both
        sides; otherwise each gets its own connection. If the server is going away, its connection gets no new sessions.
        A shared connection is closed with its last session; the end of one session does not affect the others.
        Cancelling gives up only this session, even while several wait for the same handshake.

        Args:
            url: ``https://host[:port][/path][?query]``; the default port is 443.
            headers: Further headers of the request, in order: a mapping or pairs.
            protocols: Subprotocols to offer, preferred ones first; None offers the client's.
            origin: Value of the Origin header; None sends the client's.
            allow_pooling: Whether the session may share its connection with others that allow it too. Default False.

        Raises:
            ValueError: Pooling is combined with ``ClientTLS(certificate_hashes=...)``, which browsers do not allow
                either, or a header or subprotocol cannot be sent.
            TypeError: An argument is of the wrong type.
            LocalProtocolError: The client was closed.
            ConnectError: As ``wtio.connect``, which lists its kinds.

        Source: draft-ietf-webtrans-http3-16, sections 3 and 5.1; W3C WebTransport, ``allowPooling``.
        """
        check_bool("allow_pooling", allow_pooling)
        if self.is_closed:
            raise LocalProtocolError("this client was closed; make another one")
        if allow_pooling and self._tls.certificate_hashes:
            raise ValueError(
                "allow_pooling=True does not go with ClientTLS(certificate_hashes=...): browsers forbid it, too; "
                "leave pooling off, or trust the certificate's authority with ClientTLS(cafile=...)"
            )
        return make_connector(
            url,
            tls=self._tls,
            headers=(*self._headers, *header_pairs(headers)),
            protocols=self._protocols if protocols is None else protocols,
            origin=self._origin if origin is None else origin,
            sockets=self._sockets,
            pool=self._pool if allow_pooling else None,
        )

    async def close(self) -> None:
        """Close all sessions with code 0, then connections and sockets. Idempotent.

        Takes as long as the slowest ``WebTransportSession.close``. Sessions that are being opened raise ConnectError.
        Cancelling closes what is left at once, without waiting for the peers' closes.
        """
        self._sockets.check_loop()
        self._sockets.is_closed = True
        sessions = [session for connection in self._sockets.connections for session in connection.sessions]
        try:
            for connection in list(self._sockets.connections):
                if not connection.sessions:
                    connection.close_at_once()
            await self._pool.close()
            await asyncio.gather(*(session.close() for session in sessions))
        finally:
            for connection in list(self._sockets.connections):
                connection.close_at_once()
            self._sockets.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<wtio.Client with {self.connections} connections{' closed' * self.is_closed}>"


def make_connector(
    url: str,
    *,
    tls: ClientTLS | None,
    headers: HeaderArgument,
    protocols: Sequence[str],
    origin: str | None,
    sockets: Sockets,
    pool: Pool | None = None,
) -> Connector:
    """Check what can be checked without a network, for ``connect``, clients and the simulated network."""
    target = parse_url(url)
    check_client_tls(tls)
    pairs = header_pairs(headers)
    check_own_origin(origin, pairs)
    request = SessionFacts(
        authority=target.authority,
        path=target.path,
        origin=origin,
        protocol=None,
        dialect="",
        protocol_token="",
        request_headers=pairs,
        response_headers=(),
    )
    trusted = ClientTLS() if tls is None else tls
    offered = offered_protocols(protocols)
    trace = Trace(target.url, target.host, trusted, offered, origin)
    dialer = Dialer(target, tls=trusted, sockets=sockets, trace=trace)
    return Connector(dialer, request=request, protocols=offered, pool=pool)


def check_client_tls(tls: ClientTLS | None) -> None:
    """Raise TypeError for a ``tls`` of another class."""
    way = "ServerTLS is for wtio.serve"
    if isinstance(tls, DevCertificate):
        way = "use its client_tls()"
    elif not isinstance(tls, ServerTLS):
        way = "such as wtio.ClientTLS(cafile=...); None trusts the system's authorities"
    check_instance("tls", tls, ClientTLS, way)


def check_own_origin(origin: str | None, headers: Sequence[tuple[str, str]]) -> None:
    """Check the Origin that a client wants to send."""
    check_text("origin", origin, optional=True)
    if origin is None:
        return
    if not origin.isascii():
        raise ValueError("origin is not ASCII; browsers write names in other scripts with `xn--`")
    check_headers((("origin", origin),))
    if any(name == "origin" for name, _ in headers):
        raise ValueError("Origin is given both in `headers` and as `origin`")
