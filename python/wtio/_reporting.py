"""Puts connection reports together, from what connections, sessions and connectors keep anyway.

Nothing here runs until a report is read or an attempt to connect fails.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol, get_args
from urllib.parse import urlsplit

from wtio import _core
from wtio._core import CloseCause
from wtio._url import without_query
from wtio._words import GIVEN_UP, Loss, alert_name, errno_name, loss_in_words
from wtio.errors import (
    ConnectError,
    HandshakeTimeout,
    NameResolutionError,
    RemoteProtocolError,
    RequirementsNotMetError,
    SessionRejectedError,
)
from wtio.protocol import messages, varint
from wtio.protocol.codes import ErrorCodes, describe, describe_application
from wtio.protocol.dialects import PROTOCOL_FIELDS, Dialect, Setting, announced_dialects
from wtio.protocol.fields import parse_string_list
from wtio.protocol.transport_parameters import TransportParameter, parameter_name, parameter_value
from wtio.report import (
    AddressOutcome,
    AddressReport,
    BufferReport,
    CertificateReport,
    ConnectionReport,
    EndedBy,
    EndReport,
    ParameterReport,
    PhaseTimes,
    SettingReport,
    Step,
    TLSReport,
    Trust,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wtio._driver import Address
    from wtio._facts import CloseInfo, SessionFacts
    from wtio.tls import ClientTLS

_STEPS: Final[tuple[Step, ...]] = get_args(Step)
_LOST_BY: Final[dict[CloseCause, EndedBy]] = {
    CloseCause.APPLICATION: "peer",
    CloseCause.TRANSPORT: "peer",
    CloseCause.REFUSED: "peer",
    CloseCause.PROTOCOL: "local",
    CloseCause.LOCAL: "local",
    CloseCause.IDLE: "timeout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The facts about a connection at one moment, from which a report is made."""

    is_client: bool
    engine: _core.ConnectionFacts | None
    """The engine's facts; None if it has forgotten the connection before they were read."""
    dialect: Dialect | None
    """The draft that is spoken; None if none was agreed on."""
    settings_sent: tuple[tuple[int, int], ...]
    """This side's SETTINGS, in order: identifier and value."""
    settings_received: Mapping[int, int] | None
    """The peer's SETTINGS; None if they did not arrive."""
    flow_control: bool
    """Whether session flow control is on."""
    loop_late_total: int
    """See ``SessionStats.loop_late_total``."""
    buffers: _core.SocketBuffers | None
    """What the system keeps for the socket; None on a simulated network."""
    idle_timeout: float
    """``Timeouts.idle`` of this side, in seconds."""
    loss: Loss | None
    """How the connection ended; None while it is open."""
    violation: RemoteProtocolError | None
    """What the peer did, where this side closed the connection because of it."""


class Observed(Protocol):
    """A connection that a report may describe."""

    def snapshot(self) -> Snapshot: ...


@dataclass(slots=True)
class Attempt:
    """One address that a client tried or will try."""

    address: Address
    connection: Observed | None = None
    failure: str = ""
    """Why there is no connection: the socket or the engine refused."""
    errno: int | None = None
    """The system's error code for that."""
    outcome: AddressReport | None = None
    """What is reported of it, if another attempt won; its connection is not kept."""


@dataclass(slots=True)
class Trace:
    """What a client notes on its way to a session: references and times, no words."""

    url: str
    host: str
    tls: ClientTLS
    protocols: tuple[str, ...]
    origin: str | None
    attempts: list[Attempt] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)
    """When each step began, on the loop's clock, and last when the session was there."""
    winner: Observed | None = None
    """The connection whose handshake was complete first."""

    def copy_empty(self) -> Trace:
        """Return a trace for the same request, with nothing noted yet."""
        return Trace(self.url, self.host, self.tls, self.protocols, self.origin)

    @property
    def step(self) -> Step:
        """How far it came."""
        return _STEPS[max(len(self.marks) - 1, 0)]

    def settle(self) -> None:
        """A session is there: keep the outcome of the other attempts, but not their connections."""
        for attempt in self.attempts:
            if attempt.connection is not None and attempt.connection is not self.winner:
                attempt.outcome = _address(self, attempt)
                attempt.connection = None


def session_report(
    connection: Snapshot, session_id: int, facts: SessionFacts, info: CloseInfo | None, trace: Trace | None
) -> ConnectionReport:
    """Report on a session that is or was established."""
    end = None
    if info is not None:
        if info.code is None and connection.loss is not None and info.closed_by != "local":
            end = _loss(connection, info.reason)
        else:
            name = "" if info.code is None else f"application code {describe_application(info.code)}"
            end = EndReport(cause="session", by=info.closed_by, code=info.code, code_name=name, reason=info.reason)
    protocols = trace.protocols if trace is not None else _offered(facts.request_headers)
    return _report(
        connection,
        trace,
        url=f"https://{facts.authority}{without_query(facts.path)}",
        step="session",
        session_id=session_id,
        protocols=protocols,
        protocol=facts.protocol,
        origin=facts.origin,
        status=facts.status,
        end=end,
        times=None if trace is None else _times(trace, None),
    )


def failure_report(trace: Trace, connection: Observed | None, error: ConnectError, now: float) -> ConnectionReport:
    """Report on an attempt to connect that has just failed, at time ``now`` on the loop's clock."""
    at_fault = connection or trace.winner
    return _report(
        _most_informative(trace.attempts) if at_fault is None else at_fault.snapshot(),
        trace,
        url=trace.url,
        step=trace.step,
        session_id=0,
        protocols=trace.protocols,
        protocol=None,
        origin=trace.origin,
        status=error.status if isinstance(error, SessionRejectedError) else None,
        end=_failure(None if connection is None else connection.snapshot(), error),
        times=_times(trace, now),
    )


def _most_informative(attempts: Iterable[Attempt]) -> Snapshot | None:
    connections = [attempt.connection.snapshot() for attempt in attempts if attempt.connection is not None]
    return max(connections, key=_received, default=None)


def _received(connection: Snapshot) -> int:
    return 0 if connection.engine is None else connection.engine.datagrams_received


def _report(
    connection: Snapshot | None,
    trace: Trace | None,
    *,
    url: str,
    step: Step,
    session_id: int,
    protocols: tuple[str, ...],
    protocol: str | None,
    origin: str | None,
    status: int | None,
    end: EndReport | None,
    times: PhaseTimes | None,
) -> ConnectionReport:
    core_facts = None if connection is None else connection.engine
    sent = () if connection is None else connection.settings_sent
    received = None if connection is None else connection.settings_received
    dialect = None if connection is None else connection.dialect
    # Our SETTINGS are made with the connection, but not sent before the handshake is complete.
    has_sent = step not in ("lookup", "handshake")
    most = None if core_facts is None else core_facts.max_datagram_payload
    return ConnectionReport(
        url=trace.url if trace is not None else url,
        host=trace.host if trace is not None else _host(url),
        is_client=connection is None or connection.is_client,
        made_at=int(time.time()),
        step=step,
        addresses=_addresses(trace, core_facts),
        times=times or PhaseTimes(),
        tls=_tls(connection, trace),
        dialect=None if dialect is None else dialect.value,
        dialect_reason=_dialect_reason(dict(sent), received, dialect),
        settings_sent=tuple(_setting(*pair) for pair in sent) if has_sent else (),
        settings_received=None if received is None else tuple(_setting(*pair) for pair in received.items()),
        transport_parameters=_transport_parameters(core_facts),
        flow_control=connection is not None and connection.flow_control,
        max_datagram_size=None if most is None or not has_sent else max(most - len(varint.encode(session_id // 4)), 0),
        mtu=None if core_facts is None else core_facts.mtu,
        loop_late_total=0 if connection is None else connection.loop_late_total,
        protocols=protocols,
        protocol=protocol,
        origin=origin,
        status=status,
        end=end,
        udp_buffers=None if connection is None else _buffers(connection.buffers),
    )


def _buffers(buffers: _core.SocketBuffers | None) -> BufferReport | None:
    if buffers is None:
        return None
    return BufferReport(asked=buffers.asked, receive=buffers.receive, send=buffers.send)


# -- addresses and times


def _addresses(trace: Trace | None, facts: _core.ConnectionFacts | None) -> tuple[AddressReport, ...]:
    if trace is not None:
        return tuple(attempt.outcome or _address(trace, attempt) for attempt in trace.attempts)
    if facts is None:
        return ()
    ip, port = facts.remote_address
    return (AddressReport(ip=ip, port=port, outcome="connected"),)


def _address(trace: Trace, attempt: Attempt) -> AddressReport:
    address, connection = attempt.address, attempt.connection
    outcome: AddressOutcome
    detail = attempt.failure
    code = attempt.errno
    known = None if connection is None else connection.snapshot()
    if known is None or (facts := known.engine) is None:
        outcome = "failed" if detail else "not tried"
    elif connection is trace.winner:
        outcome = "connected"
    elif known.loss is not None and known.loss.cause is CloseCause.UNREACHABLE:
        outcome = "unreachable"
        code = known.loss.code
        detail = _loss(known, "").reason
    elif known.loss is not None and known.loss.cause is not CloseCause.LOCAL:
        outcome = "failed" if facts.datagrams_received else "no answer"
        detail = "its certificate was refused" if facts.is_refused else _loss(known, "").reason
    elif trace.winner is not None:
        outcome = "given up"
        detail = "another address was faster"
    elif facts.datagrams_received:
        outcome = "incomplete"
        detail = f"{facts.datagrams_received} packets came back"
    else:
        outcome = "no answer"
        detail = f"{facts.datagrams_sent} packets sent"
    return AddressReport(ip=address.ip, port=address.port, outcome=outcome, detail=detail, errno=code)


def _times(trace: Trace, now: float | None) -> PhaseTimes:
    """Turn marks into durations; ``now`` is the time of a failure, None after success."""
    marks = trace.marks
    if not marks:
        return PhaseTimes()
    spans = [end - begin for begin, end in pairwise(marks)]
    lookup, handshake, settings, request = (*spans, None, None, None, None)[:4]
    total = (marks[-1] if now is None else now) - marks[0]
    return PhaseTimes(lookup=lookup, handshake=handshake, settings=settings, request=request, total=total)


# -- TLS


def _tls(connection: Snapshot | None, trace: Trace | None) -> TLSReport | None:
    if connection is None or (facts := connection.engine) is None or not facts.datagrams_received:
        return None
    chain = facts.certificates if connection.is_client else facts.own_certificates
    certificate = certificate_report(chain[0]) if chain else None
    expected: tuple[str, ...] = ()
    if trace is not None:
        expected = tuple(digest.hex() for digest in trace.tls.expected_hashes())
    matches = None if certificate is None or not expected else certificate.sha256 in expected
    return TLSReport(
        version="1.3",
        alpn=None if facts.alpn is None else facts.alpn.decode("ascii", "backslashreplace"),
        cipher=facts.cipher,
        key_exchange=facts.key_exchange,
        server_name=facts.server_name if trace is None else trace.host,
        trust=None if trace is None else _trust(trace.tls),
        expected_hashes=expected,
        certificate=certificate,
        chain_length=len(chain),
        hash_matches=matches,
        refusal=connection.loss.reason if facts.is_refused and connection.loss is not None else "",
    )


def _trust(tls: ClientTLS) -> Trust:
    if tls.certificate_hashes:
        return "hashes"
    if tls.dangerously_trust_any_certificate:
        return "anyone"
    return "system" if tls.cafile is None and tls.cadata is None else "authorities"


def certificate_report(der: bytes) -> CertificateReport:
    """Read a certificate."""
    digest = _core.sha256(der).hex()
    try:
        facts = _core.certificate_facts(der)
    except _core.TlsError:
        return CertificateReport(sha256=digest)
    return CertificateReport(
        sha256=digest,
        subject=facts.subject,
        issuer=facts.issuer,
        names=tuple(facts.names),
        not_before=facts.not_before,
        not_after=facts.not_after,
        key=facts.key_algorithm,
    )


# -- settings, parameters, dialect


def _is_grease(identifier: int, start: int) -> bool:
    return identifier >= start and (identifier - start) % 31 == 0


def _setting(identifier: int, value: int) -> SettingReport:
    # RFC 9114, section 7.2.4.1: reserved identifiers have the form 0x1f * N + 0x21.
    name = "GREASE" if _is_grease(identifier, 0x21) else "unknown"
    with suppress(ValueError):
        name = Setting(identifier).name
    return SettingReport(identifier, name, value)


def _offered(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What a client's request offers as subprotocols."""
    return tuple(parse_string_list(messages.values_of(list(headers), PROTOCOL_FIELDS.offer), tokens=True) or ())


def _announced(settings: Mapping[int, int]) -> list[str]:
    return [dialect.value for dialect in announced_dialects(settings)]


def _dialect_reason(sent: Mapping[int, int], received: Mapping[int, int] | None, dialect: Dialect | None) -> str:
    ours = ", ".join(_announced(sent)) or "none"
    if received is None:
        return "the peer's SETTINGS did not arrive"
    theirs = _announced(received)
    if dialect is not None and dialect.value not in theirs:
        return f"the peer announced {', '.join(theirs) or 'none'}; taken from its request"
    both = f"this side announced {ours}; the peer {', '.join(theirs) or 'none'}"
    return f"the newest in common ({both})" if dialect is not None else f"no draft in common ({both})"


# -- the end


def _loss(connection: Snapshot, reason: str) -> EndReport:
    """The end of a connection, in a report's words."""
    loss = connection.loss or GIVEN_UP
    facts = connection.engine
    by: EndedBy = _LOST_BY.get(loss.cause, "transport")
    code: int | None = loss.code
    name = describe(loss.code)
    match loss.cause:
        case CloseCause.TLS:
            by = "peer" if facts is not None and facts.is_closed_by_peer else "local"
            name = alert_name(loss.code)
        case CloseCause.UNREACHABLE:
            name = errno_name(loss.code)
        case CloseCause.IDLE | CloseCause.RESET | CloseCause.VERSION:
            code, name = None, ""
    words = loss_in_words(loss, idle=connection.idle_timeout)
    if facts is not None and facts.is_refused:
        words = f"the certificate was refused: {loss.reason}"
    return EndReport(cause=loss.cause.name, by=by, code=code, code_name=name, reason=reason or words)


def _failure(connection: Snapshot | None, error: ConnectError) -> EndReport:
    """Why there is no session."""
    cause = "socket"
    by: EndedBy = "local"
    code: int | None = None
    name = ""
    if isinstance(error, HandshakeTimeout):
        cause, by = "timeout", "timeout"
    elif isinstance(error, NameResolutionError):
        # Its number is one of the look-up, not one of the system's.
        cause = "lookup"
    elif connection is None and error.errno is not None:
        code, name = error.errno, errno_name(error.errno)
    elif isinstance(error, SessionRejectedError):
        cause, by, code, name = "rejected", "peer", error.status, f"HTTP status {error.status}"
    elif connection is not None and connection.loss is not None and connection.loss.cause is not CloseCause.LOCAL:
        return _loss(connection, "")
    elif connection is not None and connection.violation is not None:
        cause, code = "violation", connection.violation.error_code
        return EndReport(cause=cause, by=by, code=code, code_name=describe(code), reason=str(connection.violation))
    elif isinstance(error, RequirementsNotMetError):
        cause, code = "requirements", int(ErrorCodes.WT_REQUIREMENTS_NOT_MET)
        name = describe(code)
    elif connection is not None:
        cause = "request"
        if isinstance(error.__cause__, RemoteProtocolError):
            code, by = error.__cause__.error_code, "peer"
            name = describe(code)
    return EndReport(cause=cause, by=by, code=code, code_name=name, reason=str(error))


def _transport_parameters(facts: _core.ConnectionFacts | None) -> tuple[ParameterReport, ...] | None:
    if facts is None or (parameters := facts.peer_parameters) is None:
        return None
    return tuple(_parameter(identifier, value) for identifier, value in parameters)


def _parameter(identifier: int, raw: bytes) -> ParameterReport:
    # With the token anybody can end the connection (RFC 9000, section 10.3), and reports are passed around.
    if identifier == TransportParameter.STATELESS_RESET_TOKEN:
        raw = b""
    value = parameter_value(identifier, raw)
    return ParameterReport(identifier, parameter_name(identifier), value if isinstance(value, int) else value.hex())


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
