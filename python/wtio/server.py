"""The server: sockets, requests, handlers and the orderly end.

``serve`` opens the sockets. Each request for a session is accepted and given to the handler, or waits for
``async for request in server``. Ordinary HTTP/3 requests on the same port are answered by a hook.
"""

from __future__ import annotations

import asyncio
import errno
import socket  # noqa: TC003 - for typing.get_type_hints
from collections.abc import (  # noqa: TC003 - for typing.get_type_hints
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Final

from wtio._admission import AdmitHook  # noqa: TC001 - for typing.get_type_hints
from wtio._arguments import (
    check_code,
    check_handler,
    check_hook,
    check_instance,
    check_integer,
    check_number,
    check_text,
    strings,
)
from wtio._certificates import Certificates
from wtio._connection.server import ServerConnection
from wtio._driver.loop import GivenSockets, LoopTransport
from wtio._headers import offered_protocols
from wtio._http import HttpRequest, HttpResponse
from wtio._http_service import HttpHook  # noqa: TC001 - for typing.get_type_hints
from wtio._key_log import warn_of_key_log
from wtio._memory import MemoryBudget, ServerMemory
from wtio._options import EndpointOptions
from wtio._qlog_directory import warn_of_qlogs
from wtio._request import SessionHandler, SessionRequest
from wtio._running import running
from wtio._service import ANY_ORIGIN, Service
from wtio._site import Site
from wtio._sockets import given_sockets
from wtio._stats import ServerStats, server_stats
from wtio._waiting import check_loop
from wtio._words import BIND_HINTS, PORT_IS_TAKEN
from wtio.config import LONGEST_TIMEOUT, Limits, Timeouts
from wtio.errors import LocalProtocolError
from wtio.protocol.host import parse_host
from wtio.protocol.origin import check_origin
from wtio.secret import Secret  # noqa: TC001 - for typing.get_type_hints
from wtio.session import WebTransportSession  # noqa: TC001 - for typing.get_type_hints
from wtio.steering import ServerId  # noqa: TC001 - for typing.get_type_hints
from wtio.tls import ClientTLS, DevCertificate, ServerTLS

if TYPE_CHECKING:
    from types import TracebackType

    from wtio import _core
    from wtio._driver import Address, Driver, Transport

__all__ = ["HttpRequest", "HttpResponse", "Server", "SessionRequest", "serve"]

# How often another port is tried where port 0 has to be free at several addresses.
_PORT_ATTEMPTS: Final = 16


class Server:
    """A running server, made by ``serve``. Without a handler, ``async for request in server`` takes requests.

    A server belongs to the event loop that started it. On another loop or thread, its methods and those of its requests
    raise RuntimeError. Properties can be read from any thread.
    """

    __slots__ = (
        "__weakref__",
        "_certificates",
        "_closed",
        "_closer",
        "_closing",
        "_drivers",
        "_failure",
        "_host",
        "_loop",
        "_memory",
        "_options",
        "_port",
        "_service",
        "_site",
        "_site_runs",
        "_takes_requests",
        "_transport",
    )

    def __init__(
        self,
        handler: SessionHandler | None,
        host: str | Sequence[str] | None,
        port: int,
        *,
        certificates: Certificates,
        admit: AdmitHook | None,
        protocols: tuple[str, ...],
        origins: frozenset[str],
        http: HttpHook | None,
        options: EndpointOptions,
        transport: Transport,
    ) -> None:
        # The loop that started the server; None before that.
        self._loop: asyncio.AbstractEventLoop | None = None
        # Where to listen.
        self._host = host
        self._port = port
        # Limits, timeouts and choices of all sockets.
        self._options = options
        # Where sockets come from: the system, or a simulated network.
        self._transport = transport
        # What clients are shown. ``reload`` changes it, and so do watched files.
        self._certificates = certificates
        # What was given whole; None otherwise. It starts before the server, and stops after it.
        self._site = handler if isinstance(handler, Site) else None
        # Whether it has started, and not been stopped yet.
        self._site_runs = False
        # One for each address that the server listens on, once it has started.
        self._drivers: list[Driver] = []
        # What is decided about clients, and what is open.
        self._service = Service(
            handler,
            admit=admit,
            limits=options.limits,
            timeouts=options.timeouts,
            protocols=protocols,
            origins=origins,
            http=http,
        )
        # What the sockets may hold and promise together.
        self._memory = MemoryBudget(self._drivers, self._service.connections)
        # Whether requests are for ``async for``.
        self._takes_requests = handler is None
        # The shutdown; None before it begins. It goes on when nobody waits for it any more.
        self._closing: asyncio.Task[None] | None = None
        # The task that called ``close``. It may be a handler, which must neither be waited for nor cancelled.
        self._closer: asyncio.Task[Any] | None = None
        # Set when the shutdown is over.
        self._closed = asyncio.Event()
        # Why the server closed itself: the engine of a socket failed.
        self._failure: Exception | None = None

    # -- facts

    @property
    def protocols(self) -> tuple[str, ...]:
        """Subprotocols that this server supports, preferred ones first."""
        return self._service.protocols

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._options.limits

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts in force."""
        return self._options.timeouts

    @property
    def tls(self) -> tuple[ServerTLS, ...]:
        """The certificates in force, the default one first. ``reload`` and watched files change them."""
        return self._certificates.tls

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """IP address and UDP port of every socket, with the actual port if 0 was given."""
        return [driver.local_address for driver in self._drivers]

    @property
    def sessions(self) -> list[WebTransportSession]:
        """All sessions that are open now. The server keeps them until they end; ``close`` closes them."""
        # Copies, so that other threads can call this too.
        return [
            session
            for connection in list(self._service.connections)
            for session in connection.sessions
            if not session.is_closed
        ]

    @property
    def loop_late_total(self) -> int:
        """How often the event loop was late for the server's sockets; see ``SessionStats.loop_late_total``."""
        return sum(driver.endpoint.loop_late_total for driver in self._drivers)

    @property
    def memory(self) -> ServerMemory | None:
        """Where the memory budget stands (``Limits.server_memory``); None without a limit.

        Looks at all connections, which takes some milliseconds with 10 000 of them.
        """
        return self._memory.figures()

    def stats(self) -> ServerStats:
        """Return the server's figures: totals since it was started, by cause, and what there is now.

        For a monitoring system that asks again and again: totals never go down. See docs/logging-and-counters.md for
        what to watch. May be called from any thread, before the start and after the end. The figures of one snapshot
        may be some moments apart. It looks at all connections, which takes 1 or 2 ms for each 1000 of them.
        """
        return server_stats(
            list(self._drivers),
            self._service.counts,
            self.memory,
            sessions=self._service.session_count,
            waiting=self._service.unanswered,
        )

    @property
    def is_closing(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing is not None

    # -- start and end

    def __await__(self) -> Generator[object, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> Server:
        self._check_loop()
        if self._closing is not None:
            raise LocalProtocolError("this server has been closed; call serve again for another one")
        if self._drivers:
            return self
        self._loop = asyncio.get_running_loop()
        if self._site is not None:
            await self._site.start(self.timeouts)
            self._site_runs = True
        try:
            await self._listen()
        except BaseException:
            await self._stop_site()
            raise
        if (program := running.get()) is not None:
            program.servers.add(self)
        warn_of_key_log()
        warn_of_qlogs(is_client=False)
        self._certificates.start(self._loop, self._adopt)
        return self

    async def _listen(self) -> None:
        addresses, dual_stack = await self._listening_addresses()
        for attempt in range(_PORT_ATTEMPTS):
            try:
                self._bind(addresses, dual_stack, self._certificates.engine)
                break
            except BaseException as error:
                for driver in self._drivers:
                    driver.close()
                self._drivers.clear()
                # With port 0 the first socket's port may be taken at another address: ask for another one.
                is_taken = isinstance(error, OSError) and error.errno in PORT_IS_TAKEN
                if not (is_taken and self._port == 0 and attempt + 1 < _PORT_ATTEMPTS):
                    raise

    async def _stop_site(self) -> None:
        if self._site is not None and self._site_runs:
            self._site_runs = False
            await self._site.stop()

    def _check_loop(self) -> None:
        check_loop(self._loop, "this server")

    def _check_started(self) -> None:
        """Refuse to wait for what would never come."""
        self._check_loop()
        if self._loop is None and self._closing is None:
            raise LocalProtocolError("this server was not started; use `async with wtio.serve(...)`, or `await` it")

    async def _listening_addresses(self) -> tuple[list[Address], bool]:
        """The addresses to bind, and whether IPv6 ones shall take IPv4 clients, too."""
        hosts = [self._host] if self._host is None or isinstance(self._host, str) else list(self._host)
        is_wildcard = hosts in ([None], [""], ["::"])
        addresses: list[Address] = []
        for host in ["::"] if is_wildcard else hosts:
            try:
                found = await self._transport.resolve(host or "::", self._port, listening=True)
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on host `{host}`: {error.strerror or error}") from None
            addresses += [address for address in found if address not in addresses]
        return addresses, is_wildcard

    def _bind(self, addresses: list[Address], dual_stack: bool, tls: _core.ServerTls) -> None:
        port = 0
        for address in addresses:
            # Given sockets each have a port of their own. Of port 0, the first address gets a free one for all.
            port = address.port or port
            try:
                driver = self._open(address.ip, port, dual_stack and address.is_ipv6, tls)
            except OSError as error:
                no_ipv6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
                if not (dual_stack and address.is_ipv6 and error.errno in no_ipv6):
                    raise self._bind_error(error, address.ip, port) from None
                # A host without IPv6: all of its addresses are IPv4 ones.
                try:
                    driver = self._open("0.0.0.0", port, False, tls)
                except OSError as second:
                    raise self._bind_error(second, "0.0.0.0", port) from None
            driver.on_incoming = self._incoming
            driver.on_failure = self._fail
            self._memory.watch(driver)
            self._drivers.append(driver)
            port = driver.local_address[1]

    def _open(self, ip: str, port: int, dual_stack: bool, tls: _core.ServerTls) -> Driver:
        return self._transport.open(self._options, ip=ip, port=port, dual_stack=dual_stack, server_tls=tls)

    def _bind_error(self, error: OSError, ip: str, port: int) -> OSError:
        hint = BIND_HINTS.get(error.errno or 0, "")
        words = f"cannot listen on UDP {ip} port {port}: {error.strerror or error}" + (f"; {hint}" if hint else "")
        return OSError(error.errno, words)

    def reload(self, tls: ServerTLS | Sequence[ServerTLS] | None = None) -> None:
        """Use other certificates from now on, for every handshake that begins; sessions go on as they are.

        It takes effect before it returns, on all addresses or, if it raises, on none. ``loop.add_signal_handler(
        signal.SIGHUP, server.reload)`` reads the files again when the process gets SIGHUP. It does nothing once the
        server is being closed.

        Clients that have been here before may resume, unless it changes which certificates of clients are taken: then
        all of them are checked anew.

        Args:
            tls: As for ``serve``. None (default) reads the files of the present ones again.

        Raises:
            CertificateError: A file cannot be used; the present certificates stay in force.
            ValueError: Several certificates differ in what they want of clients; the present ones stay in force.
            TypeError: ``tls`` is of the wrong type.

        Source: RFC 8446, section 4.6.1, for resumption.
        """
        checked = None if tls is None else check_server_tls(tls)
        self._check_loop()
        if self._closing is None:
            self._certificates.replace(checked)

    def _adopt(self, tls: _core.ServerTls) -> None:
        """Use other certificates on all sockets."""
        for driver in self._drivers:
            driver.endpoint.set_server_tls(tls)

    async def close(self, code: int = 0, reason: str = "server is closing", *, drain: float | None = None) -> None:
        """Shut down: refuse new clients, close all sessions, release the ports. Idempotent; takes bounded time.

        Clients get GOAWAY first, and requests that wait for ``admit`` or an iterator status 503. Handlers, answers to
        ordinary requests, and sessions that an iterator's requests have become, then have ``Timeouts.drain`` (default
        0 s) to finish on their own. After that, every session is closed (bounded by ``Timeouts.close``, see
        ``WebTransportSession.close``), handlers and hooks that still run after another ``Timeouts.close`` are
        cancelled, and further unanswered requests get status 503. Those that go on nevertheless for another
        ``Timeouts.close`` are named in the log, and left alone. Clients whose last session has just ended have three
        probe timeouts (0.1 s on a short path, never more than ``Timeouts.close``) to close their connections before the
        server does. Cancelling stops the wait, but not the shutdown.

        Args:
            code: Application close code for all sessions, 0 … 2^32-1. Default 0.
            reason: Reason for all sessions, cut to 1024 bytes of UTF-8. Default "server is closing".
            drain: Seconds in the place of ``Timeouts.drain``. If the server drains already, they count from now, and
                can end that sooner but not later. None (default) means ``Timeouts.drain``, and leaves a server that
                drains alone.

        Raises:
            ValueError: ``code`` is outside 32 bits, or ``drain`` is negative or not finite.
            TypeError: ``code`` is not an int, ``reason`` is not a str, or ``drain`` is not a number.
        """
        check_code("code", code, "close code")
        check_text("reason", reason)
        if drain is not None:
            check_number("drain", drain, 0, LONGEST_TIMEOUT, " of seconds")
            self._service.shorten_drain(drain)
        self._check_loop()
        drain = self.timeouts.drain if drain is None else drain
        await asyncio.shield(self._begin_closing(code, reason, asyncio.current_task(), drain))

    def _begin_closing(
        self, code: int, reason: str, closer: asyncio.Task[Any] | None, drain: float
    ) -> asyncio.Task[None]:
        """Shut down in the background, unless that was begun before."""
        if self._closing is None:
            # A handler may close its own server: it cannot be waited for, and must not be cancelled.
            self._closer = closer
            self._service.stop()
            self._closing = asyncio.get_running_loop().create_task(self._shut_down(code, reason, drain))
        return self._closing

    async def wait_closed(self) -> None:
        """Wait until the server is closed. Cancelling changes nothing.

        Raises:
            LocalProtocolError: The server was never started.
            RuntimeError: The server closed itself because its QUIC engine failed, which is a bug in wtio.
        """
        self._check_started()
        self._note_awaited()
        await self._closed.wait()
        self._raise_failure()

    def abort(self) -> None:
        """Shut down at once: end all sessions without a code, cancel handlers, close all connections.

        Never waits, so cancelling cannot interrupt it; ``wait_closed`` tells when the ports are released. Works also
        while ``close`` drains. Does nothing on a server that is closed.
        """
        self._check_loop()
        if self._closed.is_set():
            return
        self._begin_closing(0, "", asyncio.current_task(), self.timeouts.drain)
        for connection in list(self._service.connections):
            connection.close_at_once(reason="the server is closing at once")
        for task in self._service.running - {asyncio.current_task()}:
            task.cancel("the server is closing at once")
        if self._site is not None and self._site_runs:
            self._site.abort()

    def _fail(self, error: Exception) -> None:
        """Close the server, because the engine of a socket is gone: no client can reach it there any more."""
        self._failure = error
        self._begin_closing(0, "internal error", None, self.timeouts.drain)

    def _note_awaited(self) -> None:
        """Somebody waits for the end of the server, and need not be told of it."""
        if (program := running.get()) is not None:
            program.is_awaited = True

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RuntimeError(f"the server closed itself: {self._failure}") from self._failure

    async def _shut_down(self, code: int, reason: str, drain: float) -> None:
        try:
            self._certificates.close()
            for driver in self._drivers:
                driver.endpoint.refuse_new()
            for connection in list(self._service.connections):
                connection.send_goaway()
            self._service.refuse_waiting()
            if drain:
                await self._service.drain(drain, self._closer)
            sessions = [session for c in self._service.connections for session in c.sessions]
            await asyncio.gather(*(session.close(code, reason) for session in sessions))
            for connection in list(self._service.connections):
                for request in list(connection.requests.values()):
                    request.reject(503)
            await self._service.end_handlers(self.timeouts.close, self._closer)
            await asyncio.gather(*(connection.leave(reason) for connection in list(self._service.connections)))
            # A socket that was full has taken the last CONNECTION_CLOSE.
            await asyncio.gather(*(driver.wait_sent(self.timeouts.close) for driver in self._drivers))
        finally:
            for driver in self._drivers:
                driver.close()
            self._service.close()
            try:
                await self._stop_site()
            finally:
                self._closed.set()

    # -- requests

    def __aiter__(self) -> AsyncIterator[SessionRequest]:
        """Iterate over the requests for sessions, if there is no handler. Ends when the server is closed.

        Any number of tasks may iterate; each request goes to one of them. Cancelling loses none. A server that was
        never started raises LocalProtocolError, and so does one that has a handler.
        """
        return self

    async def __anext__(self) -> SessionRequest:
        self._check_started()
        if not self._takes_requests:
            raise LocalProtocolError("this server has a handler, which gets all requests; pass handler=None to iterate")
        self._note_awaited()
        request = await self._service.next_request()
        if request is None:
            self._raise_failure()
            raise StopAsyncIteration
        return SessionRequest(request)

    def _incoming(self, driver: Driver, core: _core.Connection) -> ServerConnection:
        """Take a connection that a client has begun."""
        connection = ServerConnection(core, driver, self._options, self._service)
        self._service.connections.add(connection)
        return connection

    def __repr__(self) -> str:
        try:
            where = ", ".join(f"{ip} port {port}" for ip, port in self.addresses) or "not started"
        except OSError:
            where = "closed"  # its sockets have no addresses any more
        return f"<wtio.Server {where}>"


def serve(
    handler: Callable[[WebTransportSession], Coroutine[Any, Any, object]] | SessionHandler | None = None,
    host: str | Sequence[str] | None = None,
    port: int = 443,
    *,
    tls: ServerTLS | Sequence[ServerTLS],
    admit: Callable[[SessionRequest], Coroutine[Any, Any, object]] | AdmitHook | None = None,
    protocols: Sequence[str] = (),
    origins: Collection[str] = (),
    http: HttpHook | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    congestion: str = "tolerant",
    reset_stream_at: bool = True,
    strict: bool = False,
    io: str = "loop",
    secret: Secret | None = None,
    slot: int | None = None,
    server_id: ServerId | bytes | None = None,
    sock: socket.socket | Sequence[socket.socket] | None = None,
    fd: int | Sequence[int] | None = None,
) -> Server:
    """Serve WebTransport: ``async with wtio.serve(handler, host, port, tls=tls) as server``.

    ``server = await wtio.serve(...)`` starts it too; then call ``server.close()``. With a handler, every request that
    ``admit`` does not refuse is accepted, and the handler runs in a task of its own. When it returns, its session is
    closed with code 0; if it raises, with ``BODY_RAISED_CODE`` (0x102) and the reason "internal error". Without a
    handler, take requests with ``async for request in server``.

    Exceptions of handlers are logged (logger ``wtio.server``) as ERROR, with traceback. Exceptions that the client
    caused (StreamResetError, StreamStoppedError, ReadLimitError, a stream's asyncio.IncompleteReadError) are one line
    of level INFO instead, and those that the path to the client caused (DatagramTooLargeError, StreamCreditError) one
    of level WARNING. Each minute, three errors from the same lines of code are logged, and one of each other class;
    further ones are counted. A handler that ends because its session ended is not logged.

    Leaving ``async with`` calls ``Server.close``.

    Args:
        handler: ``async def handler(session)``, or None to iterate over requests. A ``wtio.Router`` or a
            ``wtio.asgi.Application`` takes the place of handler, ``admit`` and ``http``. See docs/routes.md.
        host: Name or address, or several of them; the server listens on all addresses of a name. None, ``""`` and
            ``"::"`` mean all addresses of IPv4 and IPv6.
        port: UDP port; 0 chooses a free one, the same on all addresses (see ``Server.addresses``). Default 443.
        tls: Certificate and key, or a sequence of several. The host name that a client asks for (SNI) chooses among
            them; the first is for clients that ask for none, or for one that no certificate has. ``Server.reload``
            changes them.
        admit: ``async def admit(request)``, which is called with each ``SessionRequest`` of an allowed origin before
            anything is answered, for any number of requests at once. It may accept the request (with headers, a
            subprotocol, or another handler: ``SessionRequest.serve``) or reject it. If it returns None without an
            answer, the request is accepted. Then the handler runs with the session; what ``admit`` stored on
            ``request.state`` is on ``session.state``. If it raises, or returns anything but None or the session, the
            client gets status 500 and the log an entry, as for handlers. If it takes longer than ``Timeouts.request``,
            the client gets status 503 and the log a line of level WARNING. Requests beyond ``Limits.pending_requests``
            get status 429. It is cancelled if the client leaves, and if the server closes. It needs a handler. Default
            None, which accepts all.
        protocols: Subprotocols of the handler, preferred ones first. The first one that the client offers is chosen.
        origins: Origins of web pages that may connect in addition to the server's own, such as ``https://example.org``,
            or ``chrome-extension://…`` for an extension; ``"null"`` allows pages without an origin, from files and
            sandboxes; ``"*"`` allows all. There are no patterns. The server's own origin is ``https://`` with host and
            port of the session's URL; for a server on a loopback host, every loopback host counts. Other pages get
            status 403. Requests without Origin are accepted; browsers always send one. Default none.
        http: A function from HttpRequest to HttpResponse, plain or ``async def``, that answers ordinary HTTP/3
            requests. Without it, or if it returns None, they get status 405 with ``allow: CONNECT``; CONNECT itself
            gets 501. It is called in a task for each request, at most ``Limits.http_requests`` at once, which is
            cancelled when the client goes. If it raises, or returns something else, the answer is 500 and the failure
            is logged as that of a handler. See docs/http.md.
        timeouts: Durations in seconds; None means ``Timeouts()``.
        limits: Sizes in bytes and counts; None means ``Limits()``.
        congestion: How fast to send: ``"tolerant"`` (default; CUBIC that tells random losses from a full queue),
            ``"cubic"``, ``"newreno"`` or ``"bbr"`` (experimental). See docs/congestion.md.
        reset_stream_at: Offer and use reliable resets (draft-ietf-quic-reliable-stream-reset), which deliver the
            header of a stream together with its reset. Default True. Without them, or if the peer does not support
            them, a reset waits until the header is acknowledged. Strict peers require them.
        strict: For conformance tests: speak only draft 16, and require clients to follow it to the letter. Requests of
            other clients, such as today's browsers, are reset with H3_MESSAGE_ERROR, and any ``:protocol`` other than
            ``webtransport-h3`` gets status 501. False (default) speaks every draft, and requires from a client only
            what a session needs.
        io: Who receives packets, acknowledges them and runs QUIC's timers: ``"loop"`` (default), the event loop, or
            ``"thread"``, a thread per socket that never waits for Python. A thread serves the peer evenly if handlers
            often compute for long; otherwise it makes every answer slower. See docs/late-loops.md.
        secret: What keys are derived from that stay the same over restarts, such as ``Secret.from_file(path)``, so that
            clients of a server that was killed learn at once that their sessions are gone. None (default) makes the
            keys at random, and such clients wait for ``Timeouts.idle``. See docs/clients.md.
        slot: Which of several sockets at the same address (SO_REUSEPORT) this server has, 0 to 255. It is in every
            connection ID, so that whoever steers packets among the sockets can read it there. Servers with the same
            ``secret`` and different slots take each other's address tokens, but can end none of each other's
            connections. Default None: it has its address for itself.
        server_id: By which a load balancer that speaks QUIC-LB knows this server: a ``ServerId``, such as
            ``ServerId.from_environment()``, or its 1 to 8 bytes. Default None. See docs/more-than-one-machine.md.
        sock: A UDP socket, or several, that are bound already, in the place of ``host`` and ``port``: from
            ``systemd_sockets``, or with options of your own such as SO_REUSEPORT. It stays yours to close: the server
            works with a duplicate, which it opens when it starts and closes at its end. Meanwhile it is non-blocking
            and has to stay so; do not call its ``settimeout``, ``setblocking`` or ``dup``. Default None.
        fd: The same by file descriptor. Default None. Not on Windows.

    Returns:
        The server, which starts with ``async with`` or ``await``.

    Raises:
        OSError: A socket cannot be opened, for instance because the port is in use; raised at the start. The message
            names address and port.
        CertificateError: Certificate and key cannot be used.
        ValueError: An argument is out of its range, several certificates differ in what they want of clients, or
            ``sock`` or ``fd`` is no bound UDP socket or is combined with ``host``, ``port`` or each other.
        TypeError: An argument is of the wrong type.

    Source: draft-ietf-webtrans-http3-16, section 3; draft-ietf-quic-load-balancers-21 for ``server_id``.
    """
    options = EndpointOptions(
        limits=Limits() if limits is None else limits,
        timeouts=Timeouts() if timeouts is None else timeouts,
        congestion=congestion,
        reset_stream_at=reset_stream_at,
        strict=strict,
        io=io,
        secret=secret,
        slot=slot,
        server_id=server_id,
    )
    return make_server(
        handler,
        host,
        port,
        tls=tls,
        admit=admit,
        protocols=protocols,
        origins=origins,
        http=http,
        options=options,
        transport=LoopTransport() if (given := given_sockets(sock, fd, host, port)) is None else GivenSockets(given),
    )


def make_server(
    handler: SessionHandler | None,
    host: str | Sequence[str] | None,
    port: int,
    *,
    tls: ServerTLS | Sequence[ServerTLS],
    admit: AdmitHook | None,
    protocols: Sequence[str],
    origins: Collection[str],
    http: HttpHook | None,
    options: EndpointOptions,
    transport: Transport,
) -> Server:
    """Check what can be checked without a network, for ``serve`` and for the simulated network."""
    check_handler("handler", handler)
    check_handler("admit", admit)
    if admit is not None and handler is None:
        raise ValueError("admit needs a handler; without one, `async for request in server` decides")
    check_hook("http", http)
    if isinstance(handler, Site):
        for name, given in (("admit", admit), ("http", http)):
            if given is not None:
                raise ValueError(f"{name} is given, and {type(handler).__name__} as the handler brings its own")
        admit, http = handler.admit, handler.http
    check_integer("port", port, 0, 65_535)
    certificates = Certificates(check_server_tls(tls))
    if isinstance(origins, (str, bytes)) and origins != ANY_ORIGIN:
        kind = type(origins).__name__
        raise TypeError(f"origins is one {kind}; it takes collections of str, such as [{origins!r}], or {ANY_ORIGIN!r}")
    allowed = (ANY_ORIGIN,) if origins == ANY_ORIGIN else strings("origins", origins, "collection of str")
    return Server(
        handler,
        _hosts(host),
        port,
        certificates=certificates,
        admit=admit,
        protocols=offered_protocols(protocols, unique=False),
        origins=frozenset(origin if origin == ANY_ORIGIN else check_origin(origin) for origin in allowed),
        http=http,
        options=options,
        transport=transport,
    )


def check_server_tls(tls: ServerTLS | Sequence[ServerTLS]) -> tuple[ServerTLS, ...]:
    """Return the certificates of a server as a tuple of one or more.

    Raises:
        TypeError: It is anything else.
    """
    several = tuple(tls) if isinstance(tls, (list, tuple)) and tls else (tls,)
    for one in several:
        way = "ClientTLS is for wtio.connect"
        if isinstance(one, DevCertificate):
            way = "use its server_tls()"
        elif not isinstance(one, ClientTLS):
            way = "such as wtio.ServerTLS(certfile=..., keyfile=...), or a list of several"
        check_instance("tls", one, ServerTLS, way, optional=False)
    return several


def _hosts(host: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """Check where to listen."""
    if host is None:
        return None
    hosts = strings("host", [host] if isinstance(host, str) else host, "str, a sequence of str or None")
    if not hosts:
        raise ValueError("host is an empty list; None listens on all addresses")
    # What is not ASCII would be looked up under another name than clients look up (IDNA 2003).
    names = []
    for name in hosts:
        try:
            names.append(name if name.isascii() else parse_host(name))
        except ValueError as error:
            raise ValueError(f"host `{name}` {error}") from None
    return names[0] if isinstance(host, str) else tuple(names)
