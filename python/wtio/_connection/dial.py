"""From a URL to a connection that is ready for sessions: look-up, a race of addresses, SETTINGS and requirements.

A ``Dialer`` belongs to one connect call, or to all that wait in a pool for the same new connection. It puts into words
why there is no connection. It knows nothing of pools and session requests.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from wtio import _core
from wtio._connection.client import ClientConnection
from wtio._core import CloseCause
from wtio._driver import Address
from wtio._reporting import Attempt, failure_report
from wtio._words import (
    GIVEN_UP,
    NO_APPLICATION_PROTOCOL,
    SELF_SIGNED,
    alert_name,
    is_about_certificate,
    loss_in_words,
    refusal_in_words,
)
from wtio.errors import (
    CertificateError,
    ConnectError,
    ConnectionRefused,
    NameResolutionError,
    RequirementsNotMetError,
)
from wtio.protocol.codes import ErrorCodes
from wtio.tls import client_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from wtio._connection.base import Connection
    from wtio._connection.sockets import Sockets
    from wtio._reporting import Trace
    from wtio._url import Target
    from wtio.tls import ClientTLS

__all__ = ["Dialer", "interleave"]


class Dialer:
    """Makes connections to one server, and keeps what it learned on the way, for errors and reports."""

    __slots__ = ("_attempts", "_in_use", "changed", "sockets", "step", "target", "tls", "trace")

    def __init__(self, target: Target, *, tls: ClientTLS, sockets: Sockets, trace: Trace) -> None:
        # The server, and which certificates to trust.
        self.target: Target = target
        self.tls: ClientTLS = tls
        # Where connections get their sockets and options.
        self.sockets: Sockets = sockets
        # Set whenever something has happened that the connect call may wait for.
        self.changed: asyncio.Event = asyncio.Event()
        # When each step began, and how each address fared; for reports.
        self.trace: Trace = trace
        # What is being done, in words, for the error of a call that takes too long.
        self.step: str = ""
        # Connections of the race, or its winner. They are closed unless ``dial`` returns them.
        self._attempts: list[ClientConnection] = []
        # The one that ``on_ready`` of ``dial`` has used. It has won the race, unless it is lost.
        self._in_use: ClientConnection | None = None

    def restart(self) -> None:
        """Forget what was learned, before another attempt of the same connect call."""
        self.step = ""
        self.trace = self.trace.copy_empty()

    def copy(self) -> Dialer:
        """Return a dialer for the same server, with progress of its own."""
        return Dialer(self.target, tls=self.tls, sockets=self.sockets, trace=self.trace.copy_empty())

    def adopt(self, dialer: Dialer) -> None:
        """Take over what another dialer has learned on the way to the connection."""
        trace, theirs = self.trace, dialer.trace
        trace.attempts = [replace(attempt) for attempt in theirs.attempts]
        trace.marks = list(theirs.marks)
        trace.winner = theirs.winner
        self.step = dialer.step

    def reuse(self, connection: ClientConnection) -> None:
        """Note that the connection was there already."""
        ip, port = connection.core.remote_address
        self.trace.attempts = [Attempt(Address(ip, port, ":" in ip), connection)]
        self.trace.winner = connection
        self.trace.marks = [asyncio.get_running_loop().time()] * 3

    async def dial(self, on_ready: Callable[[ClientConnection], bool] | None = None) -> ClientConnection:
        """Make a connection that is ready for sessions. The caller must call ``add_connector`` before it suspends.

        Cancelling closes every connection that was begun.

        Args:
            on_ready: Called with a connection as soon as its SETTINGS allow sessions, in the same iteration of the
                loop: the task that awaits ``dial`` runs later. Says whether the connection is in use now; it is then
                returned unless it is lost. None lets the task begin.
        """
        ready: ClientConnection | None = None
        try:
            connection = await self._race(await self._resolve(), on_ready)
            await self._check_requirements(connection)
            ready = connection
            connection.forget_dialer()
        finally:
            # Also if cancelled at the very moment at which it was ready: nobody else would close it.
            self._close_all_but(ready)
            self._attempts = []
            self._in_use = None
        return ready

    def _close_all_but(self, ready: ClientConnection | None) -> None:
        for attempt in self._attempts:
            if attempt is not ready:
                # Reports keep it for a while: it must not keep the connect call.
                attempt.forget_dialer()
                attempt.close_at_once()

    def mark(self, words: str) -> None:
        """The next step begins."""
        self.step = words
        self.trace.marks.append(asyncio.get_running_loop().time())

    def reported(self, error: ConnectError, connection: Connection | None = None) -> ConnectError:
        """Give an error its report, unless it has one."""
        if error.report is None:
            error.report = failure_report(
                self.trace, connection or self.trace.winner, error, asyncio.get_running_loop().time()
            )
        return error

    async def _resolve(self) -> list[Address]:
        target = self.target
        self.mark(f"looking up `{target.where}`")
        try:
            return interleave(await self.sockets.transport.resolve(target.where, target.port))
        except OSError as error:
            raise self._unresolved(error) from None

    def _unresolved(self, reason: OSError) -> NameResolutionError:
        target = self.target
        error = NameResolutionError(
            f"no address for host `{target.where}` of `{target.url}`: {reason}", host=target.host
        )
        error.errno = reason.errno
        return error

    async def _race(
        self, addresses: list[Address], on_ready: Callable[[ClientConnection], bool] | None
    ) -> ClientConnection:
        """Try the addresses, each with a head start before the next; the first complete handshake wins (RFC 8305)."""
        names = ", ".join(f"{address.ip} port {address.port}" for address in addresses)
        self.mark(f"waiting for the QUIC handshake with {names} (UDP)")
        self.trace.attempts = [Attempt(address) for address in addresses]
        tls = client_engine(self.tls)
        waiting = list(addresses)
        failures: list[Exception] = []
        while waiting or not all(attempt.is_lost for attempt in self._attempts):
            if waiting:
                attempt = self.trace.attempts[len(addresses) - len(waiting)]
                try:
                    connection = attempt.connection = self._begin(waiting.pop(0), tls, on_ready)
                except (OSError, _core.TlsError) as error:
                    failures.append(error)
                    attempt.failure = str(error)
                    attempt.errno = error.errno if isinstance(error, OSError) else None
                    continue
                self._attempts.append(connection)
            winner = await self._wait_for_winner(self.sockets.options.timeouts.attempt_delay if waiting else None)
            if winner is not None:
                self._close_all_but(winner)
                self._attempts = [winner]
                self.trace.winner = winner
                return winner
        failures += [self._loss_error(attempt) for attempt in self._attempts]
        try:
            raise self._best(failures)
        finally:
            # This frame is part of the error's traceback, and must not hold the error.
            failures.clear()

    async def _wait_for_winner(self, head_start: float | None) -> ClientConnection | None:
        """Wait for a complete handshake; None when all attempts have failed or the head start (seconds) is over.

        If there is a head start, the failure of any attempt ends it (RFC 8305, section 5).
        """
        lost = sum(attempt.is_lost for attempt in self._attempts)
        try:
            async with asyncio.timeout(head_start):
                while True:
                    self.changed.clear()
                    if self._in_use is not None and not self._in_use.is_lost:
                        return self._in_use
                    for attempt in self._attempts:
                        if attempt.is_connected and not attempt.is_lost:
                            return attempt
                    now_lost = sum(attempt.is_lost for attempt in self._attempts)
                    if now_lost == len(self._attempts) or (head_start is not None and now_lost > lost):
                        return None
                    await self.changed.wait()
        except TimeoutError:
            return None

    def _begin(
        self, address: Address, tls: _core.ClientTls, on_ready: Callable[[ClientConnection], bool] | None
    ) -> ClientConnection:
        driver = self.sockets.open(address.is_ipv6)
        try:
            core = driver.connect(address, self.target.host, tls)
        except BaseException:
            self.sockets.release(driver)
            raise
        # Sent now, so that the server can work while the rest is done here.
        driver.flush()
        connection = ClientConnection(core, driver, sockets=self.sockets, on_progress=self.changed.set)
        if on_ready is not None:
            connection.on_settings = partial(self._offer, on_ready)
        return connection

    def _offer(self, on_ready: Callable[[ClientConnection], bool], connection: ClientConnection) -> None:
        """Let the caller use a connection whose SETTINGS have arrived, if it is the only one that may win."""
        rivals = any(attempt.is_connected for attempt in self._attempts if attempt is not connection)
        settings = connection.settings
        if self._in_use is not None or rivals or not connection.is_connected:
            return
        if settings is not None and settings.problem is None and on_ready(connection):
            self._in_use = connection

    async def _check_requirements(self, connection: ClientConnection) -> None:
        """Wait for the server's SETTINGS, before which no CONNECT may be sent (section 3.1)."""
        self.mark("waiting for the server's HTTP/3 SETTINGS")
        while connection.settings is None:
            self.raise_if_lost(connection)
            self.changed.clear()
            await self.changed.wait()
        problem = connection.settings.problem
        if problem is not None:
            connection.close_at_once(ErrorCodes.WT_REQUIREMENTS_NOT_MET)
            raise RequirementsNotMetError(
                f"`{self.target.authority}` speaks HTTP/3 but not WebTransport: {problem}", missing=(problem,)
            )

    def silence_in_words(self) -> str:
        """What the addresses answered during the handshake, or what may be wrong if nothing came back; else empty."""
        trace = self.trace
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
                said = loss_in_words(loss, idle=self.sockets.options.timeouts.idle)
                words += f"; {attempt.address.ip}: {said}"
            else:
                # It was closed only because the time is over.
                facts = connection.facts()
                silent = silent or facts is None or not facts.datagrams_received
                if connection.is_too_large:
                    words += f"; a router on the way to {attempt.address.ip} answers that QUIC's packets are too large"
        if silent:
            words += (
                f"; nothing came back: a firewall may block UDP port {self.target.port}, the server may not run, or a "
                "link on the way may carry less (MTU) than the 1200 bytes that QUIC needs"
            )
        return words

    def raise_if_lost(self, connection: ClientConnection) -> None:
        if connection.is_lost:
            raise self._loss_error(connection)

    def _loss_error(self, connection: ClientConnection) -> ConnectError:
        return self.reported(self._loss_in_words(connection), connection)

    def _loss_in_words(self, connection: ClientConnection) -> ConnectError:
        loss = connection.loss or GIVEN_UP
        # The engine may have forgotten the connection by now, but not what it knew at the end.
        facts = connection.facts()
        ip, port = connection.core.remote_address if facts is None else facts.remote_address
        where = f"`{self.target.authority}` ({ip} port {port})"
        if loss.cause is CloseCause.TLS and loss.code == NO_APPLICATION_PROTOCOL:
            return RequirementsNotMetError(
                f"{where} speaks QUIC but not HTTP/3: {loss.reason or alert_name(loss.code)}",
                missing=("HTTP/3",),
            )
        if loss.cause is CloseCause.TLS and is_about_certificate(loss.code):
            if facts is not None and facts.is_closed_by_peer:
                return CertificateError(f"{where} refused this client: {refusal_in_words(loss)}")
            why = f"the certificate of {where} is not trusted: {loss.reason or alert_name(loss.code)}"
            if loss.reason == SELF_SIGNED and facts is not None:
                digest = _core.sha256(facts.certificates[0]).hex()
                return CertificateError(
                    f"{why}; if it is the development certificate of this machine, pass "
                    "wtio.dev_certificate().client_tls(), otherwise, if it is yours, its file as "
                    f"ClientTLS(cafile=...) or ClientTLS(certificate_hashes=['{digest}'])"
                )
            return CertificateError(
                f"{why}; for a private authority pass ClientTLS(cafile=...), for a development certificate "
                "wtio.dev_certificate().client_tls() where it was made, elsewhere ClientTLS(certificate_hashes=[...])"
            )
        words = loss_in_words(loss, idle=self.sockets.options.timeouts.idle)
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
        """The most informative of several failures; the others become notes."""
        ranks = (CertificateError, RequirementsNotMetError, ConnectionRefused, ConnectError, Exception)
        failures.sort(key=lambda failure: next(i for i, kind in enumerate(ranks) if isinstance(failure, kind)))
        first, others = failures[0], failures[1:]
        if not isinstance(first, ConnectError):
            cause = first
            first = ConnectError(f"no connection to `{self.target.authority}`: {cause}")
            if isinstance(cause, OSError):
                first.errno = cause.errno
        for other in others:
            first.add_note(f"another address failed, too: {other}")
        return first


def interleave(addresses: list[Address]) -> list[Address]:
    """Order addresses so that the families take turns, beginning with that of the first (RFC 8305, section 4)."""
    first = [address for address in addresses if address.is_ipv6 == addresses[0].is_ipv6]
    second = [address for address in addresses if address.is_ipv6 != addresses[0].is_ipv6]
    mixed: list[Address] = []
    for position in range(max(len(first), len(second))):
        mixed += first[position : position + 1] + second[position : position + 1]
    return mixed
