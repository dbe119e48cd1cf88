"""The client: from a URL to an established session.

``connect`` checks the URL, looks the host up, tries its addresses in a race (happy eyeballs), waits for the server's
SETTINGS and asks for the session. All of that together is bounded by ``Timeouts.connect``. ``wtio.pool`` has the
client whose sessions share sockets and connections.
"""

from __future__ import annotations

import asyncio
import errno
import warnings
from collections.abc import Callable, Generator, Sequence  # noqa: TC003 - for typing.get_type_hints
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from wtio import _core
from wtio._arguments import check_instance, check_text, strings
from wtio._connection.base import Connection
from wtio._connection.early import refuse
from wtio._core import CloseCause
from wtio._driver import Address
from wtio._driver.loop import LoopTransport
from wtio._facts import CloseInfo, SessionFacts
from wtio._headers import HeaderArgument, header_pairs
from wtio._options import EndpointOptions
from wtio._reporting import Attempt, Trace, failure_report
from wtio._url import Target, parse_url, without_secrets
from wtio._waiting import check_loop
from wtio._words import (
    GIVEN_UP,
    NO_APPLICATION_PROTOCOL,
    Loss,
    alert_name,
    is_about_certificate,
    loss_in_words,
    status_hint,
)
from wtio.config import Limits, Timeouts
from wtio.errors import (
    CertificateError,
    ConnectError,
    ConnectionRefused,
    HandshakeTimeout,
    NameResolutionError,
    RemoteProtocolError,
    RequirementsNotMetError,
    SessionRejectedError,
)
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import SessionStateError
from wtio.protocol.handshake import check_protocols
from wtio.protocol.messages import check_headers
from wtio.protocol.outbox import Event, SessionAccepted, SessionRejected, SessionTerminated, SettingsReceived
from wtio.session import WebTransportSession  # noqa: TC001 - for typing.get_type_hints
from wtio.tls import ClientTLS, DevCertificate, ServerTLS, client_engine

if TYPE_CHECKING:
    from types import TracebackType

    from wtio._driver import Driver, Transport
    from wtio._session_state import SessionState
    from wtio.pool import Pool, Spare

__all__ = ["Connector", "connect"]

# How many probe timeouts (RFC 9002, section 6.2) a connection may take to acknowledge a request: two probes, and a way
# back for the second.
_PATIENCE_IN_PTOS: Final = 4
# What a peer may add to each (RFC 9000, section 18.2, max_ack_delay), in seconds.
_ACK_DELAY: Final = 0.025
# What may be over by the time at which QUIC sends again.
_PASSING: Final = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR))


class Sockets:
    """Where a client's connections get their sockets: each one of its own, or all of an address family the same."""

    def __init__(self, transport: Transport, options: EndpointOptions, *, is_shared: bool = False) -> None:
        self.transport = transport
        self.options = options
        """Of all sockets and connections that come from here."""
        self.is_shared = is_shared
        """Whether connections share one socket for each address family."""
        self.is_closed = False
        """No socket is opened any more."""
        self.event_loop: asyncio.AbstractEventLoop | None = None
        """The loop of shared sockets, once they are used."""
        self.connections: set[ClientConnection] = set()
        """Those that are not lost yet."""
        # Of shared sockets, by whether they are IPv6.
        self._drivers: dict[bool, Driver] = {}

    def settle(self) -> None:
        """Belong to the running loop from the first use on; RuntimeError on another one."""
        if self.is_shared:
            self.check_loop()
            self.event_loop = asyncio.get_running_loop()

    def check_loop(self) -> None:
        """Raise RuntimeError on another loop than that of the first use."""
        check_loop(self.event_loop, "this client")

    def open(self, is_ipv6: bool) -> Driver:
        """Give the driver for one more connection; OSError where there is none to be had."""
        if self.is_closed:
            raise ConnectError("the client was closed")
        driver = self._drivers.get(is_ipv6)
        if driver is None or driver.is_closed:
            driver = self.transport.open(
                self.options, ip="::" if is_ipv6 else "0.0.0.0", port=0, dual_stack=False, server_tls=None
            )
            if self.is_shared:
                self._drivers[is_ipv6] = driver
        return driver

    def release(self, driver: Driver) -> None:
        """A connection of the driver is over."""
        if not self.is_shared or self.is_closed:
            driver.close_when_idle()

    def close(self) -> None:
        """Close shared sockets as soon as their connections have died down."""
        self.is_closed = True
        for driver in self._drivers.values():
            driver.close_when_idle()


def _nobody() -> None:
    """Placeholder callback: nobody is waiting."""


class _Asked:
    """A session request under way."""

    __slots__ = ("connection", "facts", "notify", "number", "rejection", "session", "trace")

    def __init__(
        self, connection: ClientConnection, number: int, facts: SessionFacts, trace: Trace, notify: Callable[[], None]
    ) -> None:
        self.connection = connection
        self.number = number
        self.facts = facts
        self.trace = trace
        self.notify = notify
        self.session: WebTransportSession | None = None
        self.rejection: SessionRejected | SessionTerminated | None = None


class ClientConnection(Connection):
    """A connection of a client: carries one session, or those of a pool that go to the same server."""

    __slots__ = (
        "_asked",
        "_notify",
        "_silent_at",
        "_sockets",
        "is_full",
        "is_refusing",
        "is_too_large",
        "on_lost",
        "on_settings",
        "settings",
        "starving",
        "users",
    )

    is_client = True

    def __init__(self, core: _core.Connection, driver: Driver, *, sockets: Sockets, notify: Callable[[], None]) -> None:
        super().__init__(core, driver, sockets.options)
        self.settings: SettingsReceived | None = None
        self.users = 0
        """Connectors that have been given this connection and have no session yet."""
        self.is_refusing = False
        """The server refused a session that its limits would have allowed."""
        self.is_too_large = False
        """The network says that it cannot carry the packets of the handshake: they cannot be smaller."""
        self.is_full = False
        """The server allows no further stream for a request now."""
        self.starving: set[Callable[[], None]] = set()
        """Whom to tell when it does."""
        # How many acknowledgements had come when a request went without one for too long.
        self._silent_at: int | None = None
        self.on_lost: Callable[[], None] | None = None
        self.on_settings: Callable[[ClientConnection], None] | None = None
        self._sockets = sockets
        self._notify = notify
        self._asked: dict[int, _Asked] = {}
        sockets.connections.add(self)
        driver.add(core.id, self)

    @property
    def has_room(self) -> bool:
        """Whether one more session may be asked for (draft-ietf-webtrans-http3-16, sections 4.7 and 5.1)."""
        h3 = self.h3
        limit = h3.session_limit if h3.flow_control else 1
        is_usable = not (self.is_ending or self.is_refusing or h3.goaway_received)
        return is_usable and h3.sessions + self.users < limit

    @property
    def is_used(self) -> bool:
        """Whether there are sessions on it, or somebody is about to ask for one."""
        return bool(self.sessions or self.users)

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
        """Seconds within which a server that is there has acknowledged a request, whatever it then does with it.

        At least the head start that addresses get, so that a server may be late; at most a quarter of the time there is
        for connecting.
        """
        probe_timeout = 2 * self.core.stats().rtt + _ACK_DELAY
        patience = max(self.timeouts.attempt_delay, _PATIENCE_IN_PTOS * probe_timeout)
        return min(patience, self.timeouts.connect / 4)

    def is_acknowledged(self, asked: _Asked) -> bool:
        """Whether the server has the whole of a request."""
        stream = self._raw.get(asked.number)
        return stream is None or not stream.unacked

    def connected(self) -> None:
        self._notify()

    def unreachable(self, number: int, is_remote: bool) -> None:
        if is_remote and number == errno.EMSGSIZE:
            # It may have been about another packet than ours. The time limit says it, if nothing comes.
            self.is_too_large = True
        elif number not in _PASSING and not self.is_lost:
            self._final_facts = self.core.facts()
            loss = Loss(CloseCause.UNREACHABLE, number, "", is_remote=is_remote)
            self.abandon(loss, ErrorCodes.H3_NO_ERROR, "")

    def detach(self) -> None:
        """The connector that made this connection has it now, and need not live as long."""
        self._notify = _nobody
        self.on_settings = None

    def ask(
        self, facts: SessionFacts, protocols: Sequence[str], trace: Trace, notify: Callable[[], None]
    ) -> _Asked | None:
        """Send a session request; None while the server allows no stream for it."""
        stream = self.open_request()
        if stream is None:
            if not self.is_full:
                self.is_full = True
                future = self.loop.create_future()
                future.add_done_callback(self._has_streams)
                self.core.wait_streams(True, future)
            return None
        asked = self._asked[stream.id] = _Asked(self, stream.id, facts, trace, notify)
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
            self.retract(stream.id)
            raise
        self._pump()
        return asked

    def _has_streams(self, _: asyncio.Future[None]) -> None:
        """The server allows streams again, or the connection is lost."""
        self.is_full = False
        for notify in list(self.starving):
            notify()

    def retract(self, number: int) -> None:
        """Give up a session request, also one that was answered while nobody looked."""
        self._asked.pop(number, None)
        if self.is_lost:
            return
        if session := self.sessions.get(number):
            self.abort_session(session)
            return
        self.h3.abort_session(number, ErrorCodes.H3_REQUEST_CANCELLED)
        self._pump()
        if stream := self._raw.remove(number):
            # The request could not even be written.
            refuse(stream, ErrorCodes.H3_REQUEST_CANCELLED)
        self.forget_request(number)

    def take_event(self, event: Event) -> None:
        match event:
            case SettingsReceived():
                self.settings = event
                if self.on_settings is not None:
                    self.on_settings(self)
                self._notify()
            case SessionAccepted(number, status, headers, protocol) if asked := self._asked.pop(number, None):
                request = asked.facts
                asked.session = self.add_session(
                    number,
                    SessionFacts(
                        authority=request.authority,
                        path=request.path,
                        origin=request.origin,
                        protocol=protocol,
                        dialect=self.h3.dialect.value if self.h3.dialect else "",
                        request_headers=request.request_headers,
                        response_headers=tuple(headers),
                        status=status,
                    ),
                    asked.trace,
                )
                asked.notify()
            case SessionRejected(number) | SessionTerminated(number):
                if asked := self._asked.pop(number, None):
                    asked.rejection = event
                    self.forget_request(number)
                    asked.notify()

    def forget_session(self, session: WebTransportSession) -> None:
        """Warn of a session that nobody can close any more, and close it."""
        if not self.loop.is_closed():
            # Alive again until it is closed; a destructor never runs twice.
            self.sessions.hold(session)
            self.loop.call_soon_threadsafe(self._close_forgotten, session)
        facts = session.facts
        warnings.warn(
            f"unclosed WebTransport session https://{facts.authority}{facts.path.partition('?')[0]}; use `async with`, "
            "or await its close()",
            ResourceWarning,
            # Whoever let go of it, where it was not the collector.
            stacklevel=3,
            source=session,
        )

    def _close_forgotten(self, session: WebTransportSession) -> None:
        number = session.session_id
        state = self.sessions.get(number)
        if state is None or state.is_closed:
            return
        if not self.is_lost and self.h3.session_state(number) is not None:
            # Nothing can have come for it but streams that arrived while it was being collected.
            self.refuse_early(number)
            self.close_session(state, 0, "")
            return
        self.sessions.end(state, CloseInfo(None, "it was not closed", "local"))
        self._session_finished(state)

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
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()
        asked, self._asked = self._asked, {}
        for request in asked.values():
            request.notify()
        self._notify()

    def give_up(self, code: int = ErrorCodes.H3_NO_ERROR) -> None:
        """Close at once; there is no session to take care of."""
        self.close_at_once(code)
        self._sockets.release(self.driver)

    def leave(self) -> None:
        """A connector that was given this connection goes, with a session or without."""
        self.users -= 1
        if not self.is_used:
            self.give_up()


class Connector:
    """What ``connect`` returns: enter it with ``async with``, or await it and close the session yourself."""

    __slots__ = (
        "__weakref__",
        "_asked",
        "_attempts",
        "_changed",
        "_is_connecting",
        "_pool",
        "_protocols",
        "_request",
        "_session",
        "_sockets",
        "_step",
        "_target",
        "_timeouts",
        "_tls",
        "_trace",
    )

    def __init__(
        self,
        target: Target,
        *,
        tls: ClientTLS,
        request: SessionFacts,
        protocols: tuple[str, ...],
        sockets: Sockets,
        pool: Pool | None,
    ) -> None:
        self._target = target
        self._tls = tls
        self._request = request
        self._protocols = protocols
        self._timeouts = sockets.options.timeouts
        self._sockets = sockets
        self._pool = pool
        self._session: WebTransportSession | None = None
        self._step = ""
        self._trace = self._new_trace()
        self._changed = asyncio.Event()
        self._attempts: list[ClientConnection] = []
        self._asked: _Asked | None = None
        self._is_connecting = False

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

    async def _establish(self) -> WebTransportSession:
        self._sockets.settle()
        if self._is_connecting:
            raise RuntimeError("this connect() is awaited by another task; call connect() once for each session")
        self._is_connecting = True
        try:
            return await self._establish_once()
        finally:
            self._is_connecting = False

    async def _establish_once(self) -> WebTransportSession:
        limit = self._timeouts.connect
        self._trace = self._new_trace()
        try:
            async with asyncio.timeout(limit) as timer:
                session = await self._connect()
        except TimeoutError as error:
            if not timer.expired():
                raise
            late = HandshakeTimeout(
                f"no session with `{self._target.url}` within {limit:g} s (Timeouts.connect): stopped while "
                f"{self._step}{self._silence_in_words()}",
                timeout=limit,
            )
            try:
                raise self._reported(late) from error
            finally:
                # A frame and an exception that know each other would keep the connection until the collector comes.
                del late
        except ConnectError as error:
            self._reported(error)
            raise
        self._mark("")
        self._trace.settle()
        return session

    async def _connect(self) -> WebTransportSession:
        """Find a connection and ask for the session on it."""
        while True:
            connection = await (self._dial(asks=True) if self._pool is None else self._pool.acquire(self))
            is_shared = connection.is_used
            connection.users += 1
            spare = None if self._pool is None else self._pool.spare(self, connection)
            try:
                session = await self._ask(connection, spare)
                if session is not None:
                    return session
            except ConnectError as error:
                # A server may take fewer sessions than it said, or be about to go: nothing was processed.
                # Others may also have come meanwhile, and been served first.
                is_shared = is_shared or connection.users > 1 or bool(connection.sessions)
                if self._pool is None or not is_shared or not (_was_refused(error) or _was_left(connection)):
                    raise
                connection.is_refusing = True
            finally:
                connection.leave()

    def _twin(self) -> Connector:
        """Another one for the same, whose progress is its own."""
        return Connector(
            self._target,
            tls=self._tls,
            request=self._request,
            protocols=self._protocols,
            sockets=self._sockets,
            pool=None,
        )

    def _adopt(self, dialer: Connector) -> None:
        """Take over what another connector has learned on the way to the connection."""
        trace, theirs = self._trace, dialer._trace
        trace.attempts = [replace(attempt) for attempt in theirs.attempts]
        trace.marks = list(theirs.marks)
        trace.winner = theirs.winner
        self._step = dialer._step

    def _reuse(self, connection: ClientConnection) -> None:
        """Note that the connection was there already."""
        ip, port = connection.core.remote_address
        self._trace.attempts = [Attempt(Address(ip, port, ":" in ip), connection)]
        self._trace.winner = connection
        self._trace.marks = [asyncio.get_running_loop().time()] * 3

    async def _dial(self, *, asks: bool = False) -> ClientConnection:
        """Make a connection that is ready for sessions. Whoever gets it counts in ``users`` before it suspends.

        With ``asks``, the session may have been asked for on it by then (``_asked``).
        """
        self._attempts = []
        self._asked = None
        ready: ClientConnection | None = None
        try:
            connection = await self._race(await self._resolve(), asks)
            await self._check_requirements(connection)
            ready = connection
            connection.detach()
        finally:
            # Also when cancelled at the very moment at which it came: nobody would ever hold it.
            for attempt in self._attempts:
                if attempt is not ready:
                    attempt.give_up()
            self._attempts = []
        return ready

    def _new_trace(self) -> Trace:
        return Trace(self._target.url, self._target.host, self._tls, self._protocols, self._request.origin)

    def _mark(self, words: str) -> None:
        """The next step begins."""
        self._step = words
        self._trace.marks.append(asyncio.get_running_loop().time())

    def _reported(self, error: ConnectError, connection: Connection | None = None) -> ConnectError:
        """Give an error its report, unless it has one."""
        if error.report is None:
            error.report = failure_report(
                self._trace, connection or self._trace.winner, error, asyncio.get_running_loop().time()
            )
        return error

    async def _resolve(self) -> list[Address]:
        target = self._target
        self._mark(f"looking up `{target.host}`")
        try:
            return interleave(await self._sockets.transport.resolve(target.host, target.port))
        except OSError as error:
            raise NameResolutionError(
                f"no address for host `{target.host}` of `{target.url}`: {error}", host=target.host
            ) from error

    async def _race(self, addresses: list[Address], asks: bool = False) -> ClientConnection:
        """Try the addresses, each with a head start before the next; the first complete handshake wins (RFC 8305)."""
        names = ", ".join(f"{address.ip} port {address.port}" for address in addresses)
        self._mark(f"waiting for the QUIC handshake with {names} (UDP)")
        self._trace.attempts = [Attempt(address) for address in addresses]
        tls = client_engine(self._tls)
        waiting = list(addresses)
        failures: list[Exception] = []
        while waiting or not all(attempt.is_lost for attempt in self._attempts):
            if waiting:
                attempt = self._trace.attempts[len(addresses) - len(waiting)]
                try:
                    connection = attempt.connection = self._begin(waiting.pop(0), tls, asks)
                except (OSError, _core.TlsError) as error:
                    failures.append(error)
                    attempt.failure = str(error)
                    attempt.errno = error.errno if isinstance(error, OSError) else None
                    continue
                self._attempts.append(connection)
            winner = await self._wait_for_winner(self._timeouts.attempt_delay if waiting else None)
            if winner is not None:
                for other in self._attempts:
                    if other is not winner:
                        other.give_up()
                self._attempts = [winner]
                self._trace.winner = winner
                return winner
        failures += [self._loss_error(attempt) for attempt in self._attempts]
        raise self._best(failures)

    async def _wait_for_winner(self, head_start: float | None) -> ClientConnection | None:
        """Wait for a complete handshake; None when all attempts have failed or the head start (seconds) is over.

        Where there is a head start, the failure of any attempt ends it (RFC 8305, section 5).
        """
        lost = sum(attempt.is_lost for attempt in self._attempts)
        try:
            async with asyncio.timeout(head_start):
                while True:
                    self._changed.clear()
                    if self._asked is not None and not self._asked.connection.is_lost:
                        return self._asked.connection
                    for attempt in self._attempts:
                        if attempt.is_connected and not attempt.is_lost:
                            return attempt
                    now_lost = sum(attempt.is_lost for attempt in self._attempts)
                    if now_lost == len(self._attempts) or (head_start is not None and now_lost > lost):
                        return None
                    await self._changed.wait()
        except TimeoutError:
            return None

    def _begin(self, address: Address, tls: _core.ClientTls, asks: bool) -> ClientConnection:
        driver = self._sockets.open(address.is_ipv6)
        try:
            core = driver.connect(address, self._target.host, tls)
        except BaseException:
            self._sockets.release(driver)
            raise
        # The server has work to do; what is left to do here is done meanwhile.
        driver.flush()
        connection = ClientConnection(core, driver, sockets=self._sockets, notify=self._changed.set)
        if asks:
            connection.on_settings = self._ask_at_once
        return connection

    def _ask_at_once(self, connection: ClientConnection) -> None:
        """Send the request in the turn in which the SETTINGS arrive: the task that waits comes a turn later."""
        rivals = any(attempt.is_connected for attempt in self._attempts if attempt is not connection)
        settings = connection.settings
        if self._asked is None and connection.is_connected and not rivals and settings and settings.problem is None:
            # What cannot be asked, the task finds out and says.
            with suppress(SessionStateError, ValueError):
                self._asked = connection.ask(self._request, self._protocols, self._trace, self._changed.set)

    async def _check_requirements(self, connection: ClientConnection) -> None:
        """Wait for the server's SETTINGS, before which no CONNECT may be sent (section 3.1)."""
        self._mark("waiting for the server's HTTP/3 SETTINGS")
        while connection.settings is None:
            self._raise_if_lost(connection)
            self._changed.clear()
            await self._changed.wait()
        problem = connection.settings.problem
        if problem is not None:
            connection.give_up(ErrorCodes.WT_REQUIREMENTS_NOT_MET)
            raise RequirementsNotMetError(
                f"`{self._target.authority}` speaks HTTP/3 but not WebTransport: {problem}", missing=(problem,)
            )

    async def _ask(self, connection: ClientConnection, spare: Spare | None) -> WebTransportSession | None:
        """Send the CONNECT request, unless it is on its way, and wait for its answer.

        None where ``spare`` has another connection and this one does not serve.
        """
        self._mark("waiting for the server to allow a request stream")
        asked = self._asked
        connection.starving.add(self._changed.set)
        try:
            while asked is None or asked.connection is not connection:
                self._raise_if_lost(connection)
                asked = connection.ask(self._request, self._protocols, self._trace, self._changed.set)
                if asked is None and await self._wait_for_news(spare, None):
                    return None
            self._step = "waiting for the server's answer to the session request"
            while asked.session is None:
                if asked.rejection is not None:
                    raise self._rejection(asked.rejection)
                self._raise_if_lost(connection)
                if await self._wait_for_news(spare, asked):
                    connection.retract(asked.number)
                    return None
        except SessionStateError as error:
            raise ConnectError(f"no session with `{self._target.url}` on this connection: {error}") from error
        except BaseException:
            if asked is not None and asked.connection is connection:
                connection.retract(asked.number)
            raise
        finally:
            connection.starving.discard(self._changed.set)
            # The session is its user's now, and not held here.
            self._asked = None
            if spare is not None:
                spare.close()
        return asked.session

    async def _wait_for_news(self, spare: Spare | None, asked: _Asked | None) -> bool:
        """Wait until something has happened; whether a spare connection serves instead of the one that was asked."""
        self._changed.clear()
        if spare is None:
            await self._changed.wait()
            return False
        return await spare.wait(asked, self._changed)

    def _rejection(self, event: SessionRejected | SessionTerminated) -> ConnectError:
        url = self._target.url
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

    def _silence_in_words(self) -> str:
        """What to look at where nothing came back during the handshake."""
        trace = self._trace
        if trace.step != "handshake":
            return ""
        words = ""
        silent = False
        for attempt in trace.attempts:
            connection = attempt.connection
            if not isinstance(connection, ClientConnection):
                continue
            loss = connection.loss or GIVEN_UP
            if loss.cause is not CloseCause.LOCAL:
                said = loss_in_words(loss, idle=self._timeouts.idle)
                words += f"; {attempt.address.ip}: {said}"
            else:
                # It was given up only because the time is over.
                facts = connection.facts()
                silent = silent or facts is None or not facts.datagrams_received
                if connection.is_too_large:
                    words += f"; a router on the way to {attempt.address.ip} answers that QUIC's packets are too large"
        if silent:
            words += (
                f"; nothing came back: a firewall may block UDP port {self._target.port}, the server may not run, or a "
                "link on the way may carry less (MTU) than the 1200 bytes that QUIC needs"
            )
        return words

    def _raise_if_lost(self, connection: ClientConnection) -> None:
        if connection.is_lost:
            raise self._loss_error(connection)

    def _loss_error(self, connection: ClientConnection) -> ConnectError:
        return self._reported(self._loss_in_words(connection), connection)

    def _loss_in_words(self, connection: ClientConnection) -> ConnectError:
        loss = connection.loss or GIVEN_UP
        # The engine may have forgotten the connection by now, but not what it knew at the end.
        facts = connection.facts()
        ip, port = connection.core.remote_address if facts is None else facts.remote_address
        where = f"`{self._target.authority}` ({ip} port {port})"
        if loss.cause is CloseCause.TLS and loss.code == NO_APPLICATION_PROTOCOL:
            return RequirementsNotMetError(
                f"{where} speaks QUIC but not HTTP/3: {loss.reason or alert_name(loss.code)}",
                missing=("HTTP/3",),
            )
        if loss.cause is CloseCause.TLS and is_about_certificate(loss.code):
            return CertificateError(
                f"the certificate of {where} is not trusted: {loss.reason or alert_name(loss.code)}; for a private "
                "authority pass ClientTLS(cafile=...), for a development certificate "
                "ClientTLS(certificate_hashes=[...])"
            )
        words = loss_in_words(loss, idle=self._timeouts.idle)
        if loss.cause is CloseCause.REFUSED or (
            loss.cause is CloseCause.TRANSPORT and loss.code == ErrorCodes.CONNECTION_REFUSED
        ):
            return ConnectionRefused(f"{where} refused the connection: {words}")
        if loss.cause is CloseCause.UNREACHABLE:
            kind = ConnectionRefused if loss.code == errno.ECONNREFUSED else ConnectError
            error = kind(f"no connection to {where}: {words}")
            error.errno = loss.code
            return error
        error = ConnectError(f"no connection to {where}: {words}")
        error.__cause__ = connection.violation
        return error

    def _best(self, failures: list[Exception]) -> ConnectError:
        """The most telling of several failures; the others become notes."""
        ranks = (CertificateError, RequirementsNotMetError, ConnectionRefused, ConnectError, Exception)
        failures.sort(key=lambda failure: next(i for i, kind in enumerate(ranks) if isinstance(failure, kind)))
        first, others = failures[0], failures[1:]
        if not isinstance(first, ConnectError):
            cause = first
            first = ConnectError(f"no connection to `{self._target.authority}`: {cause}")
            first.__cause__ = cause
            if isinstance(cause, OSError):
                first.errno = cause.errno
        for other in others:
            first.add_note(f"another address failed, too: {other}")
        return first


def _was_refused(error: ConnectError) -> bool:
    """Whether a request is sure not to have been processed (RFC 9114, sections 4.1.1 and 5.2)."""
    cause = error.__cause__
    return isinstance(cause, SessionStateError) or (
        isinstance(cause, RemoteProtocolError) and cause.error_code == ErrorCodes.H3_REQUEST_REJECTED
    )


def _was_left(connection: ClientConnection) -> bool:
    """Whether the server closed a connection without an error, as it may where it knows of no session, or forgot it.

    The server may have closed and forgotten it long ago without the client hearing of it: the answer is a stateless
    reset then. In both cases the request that was on its way has no session, whatever became of it, so asking again
    does no harm.
    """
    loss = connection.loss or GIVEN_UP
    return loss.cause is CloseCause.RESET or (
        loss.cause is CloseCause.APPLICATION and loss.code == ErrorCodes.H3_NO_ERROR
    )


def interleave(addresses: list[Address]) -> list[Address]:
    """Order addresses so that the families take turns, beginning with that of the first (RFC 8305, section 4)."""
    first = [address for address in addresses if address.is_ipv6 == addresses[0].is_ipv6]
    second = [address for address in addresses if address.is_ipv6 != addresses[0].is_ipv6]
    mixed: list[Address] = []
    for position in range(max(len(first), len(second))):
        mixed += first[position : position + 1] + second[position : position + 1]
    return mixed


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
) -> Connector:
    """Open a session: ``async with wtio.connect(url) as session``, or ``session = await wtio.connect(url)``.

    All addresses of the host are tried, each ``Timeouts.attempt_delay`` (default 0.25 s) after the one before; the
    first complete handshake wins. The session has its own connection. Leaving ``async with`` closes both, with code 0,
    or with ``BODY_RAISED_CODE`` (0x102) if the body raised; an exception of the body is never masked. Cancelling closes
    everything that was opened.

    Args:
        url: ``https://host[:port][/path][?query]``; the default port is 443. The host is read as in browsers (WHATWG
        URL
            Standard); names that are not ASCII need the extra ``wtio[idna]``, or their form with ``xn--``.
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
        sockets=Sockets(LoopTransport(), options),
    )


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
        request_headers=pairs,
        response_headers=(),
    )
    return Connector(
        target,
        tls=ClientTLS() if tls is None else tls,
        request=request,
        protocols=offered_protocols(protocols),
        sockets=sockets,
        pool=pool,
    )


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


def offered_protocols(protocols: Sequence[str], *, unique: bool = True) -> tuple[str, ...]:
    """Check subprotocols.

    Raises:
        TypeError: It is not a sequence of str.
        ValueError: One cannot be sent, or is given twice although that is not allowed.

    Source: W3C WebTransport, section 5.2.
    """
    offered = strings("protocols", protocols)
    check_protocols(offered, unique=unique)
    return offered
