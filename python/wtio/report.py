"""The connection report: what is known about a connection, and why it was made, ended or failed.

``session.report`` returns it at any time, also after the end. Errors of ``connect`` have it as ``error.report``, unless
they were raised before the host was looked up. ``str(report)`` is text for people, ``report.as_dict()`` is for JSON.
``python -m wtio doctor URL`` prints it with advice. It is put together on request; until then it costs a connection
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final, Literal, TypeAlias

from wtio._arguments import check_integer, sealed
from wtio._words import DAY, WHO, date, duration

__all__ = [
    "AddressReport",
    "BufferReport",
    "CertificateReport",
    "ConnectionReport",
    "EndReport",
    "ParameterReport",
    "PhaseTimes",
    "SettingReport",
    "TLSReport",
]

Step: TypeAlias = Literal["lookup", "handshake", "settings", "request", "session"]
"""The last step that was reached; ``"session"`` means that a session was established."""
AddressOutcome: TypeAlias = Literal[
    "connected", "failed", "incomplete", "no answer", "unreachable", "not QUIC", "given up", "not tried"
]
EndedBy: TypeAlias = Literal["peer", "local", "transport", "timeout"]
Trust: TypeAlias = Literal["system", "authorities", "hashes", "anyone"]

HEADING_WIDTH: Final = 14


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReport:
    """One address of the host, and what happened with it."""

    ip: str
    """IPv4 or IPv6 address."""
    port: int
    """UDP port."""
    outcome: AddressOutcome
    """``"connected"``: in use. ``"failed"``: it answered, and the handshake failed. ``"incomplete"``: it answered, but
    the handshake did not finish in time. ``"no answer"``: no packet came back. ``"given up"``: another address was
    faster. ``"not tried"``: there was no need or no time. ``"unreachable"``: this machine cannot send to it, or the
    network reports that nothing is there. Only ``python -m wtio doctor`` finds ``"not QUIC"`` (something else
    answers)."""
    detail: str = ""
    """Further explanation; may be empty."""
    errno: int | None = None
    """The system's error number, such as ``errno.ENETUNREACH``, if it or the network gave a reason; None otherwise."""

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.ip


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTimes:
    """How long each step took, in seconds; None for a step that did not complete. A server measures none."""

    lookup: float | None = None
    """Finding the addresses of the host."""
    handshake: float | None = None
    """From the first packet to a complete QUIC and TLS handshake, including the race between addresses."""
    settings: float | None = None
    """From there to the server's HTTP/3 SETTINGS."""
    request: float | None = None
    """From there to the server's answer to the session request."""
    total: float | None = None
    """All steps together, also if the attempt failed."""


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateReport:
    """A server's or client's certificate. Fields that cannot be read are empty or 0; ``sha256`` is always right."""

    sha256: str
    """SHA-256 of the certificate, 64 hexadecimal digits. Clients and browsers pin this."""
    subject: str = ""
    """Its subject, such as ``CN=example.org``."""
    issuer: str = ""
    """Who signed it."""
    names: tuple[str, ...] = ()
    """DNS names and IP addresses for which it is valid (subject alternative names)."""
    not_before: int = 0
    """Start of its validity, in Unix seconds."""
    not_after: int = 0
    """End of its validity, in Unix seconds."""
    key: str = ""
    """Type of its key: ``ECDSA P-256``, ``RSA``, ``Ed25519`` or another."""

    @property
    def validity_days(self) -> float:
        """Length of its validity in days. Browsers accept at most 14 for a certificate that is trusted by its hash."""
        return (self.not_after - self.not_before) / DAY

    @property
    def is_self_signed(self) -> bool:
        """Whether subject and issuer are the same."""
        return bool(self.subject) and self.subject == self.issuer


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class TLSReport:
    """TLS parameters, trust, and the server's certificate."""

    version: str
    """``"1.3"``, the only one that QUIC uses."""
    alpn: str | None
    """The negotiated application protocol: ``"h3"``; None if the handshake did not get that far."""
    cipher: str | None
    """The negotiated cipher suite, such as ``TLS13_AES_128_GCM_SHA256``; None if the handshake did not get that far."""
    key_exchange: str | None = None
    """The negotiated group of the key exchange: ``X25519MLKEM768``, which a quantum computer does not break either, or
    ``X25519`` or another with peers that lack that; None if the handshake did not get that far."""
    server_name: str | None
    """Host name that the client asked for (SNI); on a client the host of the URL."""
    trust: Trust | None
    """What the client trusts: the system's authorities, given authorities, given hashes, or anyone. None on servers."""
    expected_hashes: tuple[str, ...]
    """Hashes that the client was given, in hexadecimal."""
    certificate: CertificateReport | None
    """The server's certificate, also if it was refused; None if none was received. On a server its own."""
    chain_length: int
    """Number of certificates that the server sent; 0 if none was received."""
    hash_matches: bool | None
    """Whether the certificate has one of ``expected_hashes``; None if none are given or no certificate was received."""
    refusal: str
    """Why the client refused the certificate; empty if it did not."""


@sealed
@dataclass(frozen=True, slots=True)
class SettingReport:
    """One HTTP/3 setting."""

    id: int
    """Its identifier."""
    name: str
    """Its name; ``GREASE`` for a reserved identifier, ``unknown`` for any other without a name."""
    value: int
    """Its value."""


@sealed
@dataclass(frozen=True, slots=True)
class ParameterReport:
    """One QUIC transport parameter."""

    id: int
    """Its identifier."""
    name: str
    """Its name; ``grease`` for a reserved identifier, ``unknown`` for any other without a name."""
    value: int | str
    """A number if it is one, otherwise its bytes in hexadecimal; ``""`` for a parameter without a value."""


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class BufferReport:
    """What this side's system keeps for the UDP socket: bytes of packets that wait. What does not fit is dropped."""

    asked: int
    """Bytes that wtio asked for, in each direction."""
    receive: int
    """Bytes granted for packets that arrived while the program was busy; 0 if the system does not say. Linux reports
    twice as much, for its own bookkeeping, and grants ``net.core.rmem_max`` at most."""
    send: int
    """Bytes granted for packets that wait to leave; 0 if the system does not say. On Linux ``net.core.wmem_max`` at
    most."""


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class EndReport:
    """How a session ended, or why there was none."""

    cause: str
    """What ended it: ``"lookup"`` (no address), ``"socket"``, ``"timeout"`` (``Timeouts.connect``), ``"requirements"``
    (the peer lacks something), ``"rejected"`` (an HTTP status), ``"request"`` (the request was reset), ``"session"``
    (the session itself ended); for connections ``"application"`` and ``"transport"`` (the peer's
    CONNECTION_CLOSE from HTTP/3 or from QUIC), ``"protocol"`` (the peer broke QUIC's rules), ``"tls"``, ``"idle"``,
    ``"reset"``, ``"version"``, ``"refused"``, ``"local"``, ``"unreachable"`` (nothing can be delivered to the peer) and
    ``"violation"`` (the peer broke HTTP/3's rules)."""
    by: EndedBy
    """``"peer"``, ``"local"``, ``"transport"`` (neither: the connection was lost) or ``"timeout"``."""
    code: int | None
    """A close code, HTTP/3 or QUIC error, TLS alert, HTTP status or errno, depending on ``cause``; None without one."""
    code_name: str
    """Name of the code, such as ``H3_NO_ERROR (0x100)``; empty without one."""
    reason: str
    """The reason in words: the peer's, if it gave one."""


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionReport:
    """All that is known about one connection. Immutable: request a new one to see changes."""

    url: str
    """The URL without its query, which may contain a token. On a server it is derived from the request."""
    host: str
    """The host of the URL, without brackets."""
    is_client: bool
    """Which side this is."""
    made_at: int
    """When this report was made, in Unix seconds."""
    step: Step
    """The last step that was reached."""
    addresses: tuple[AddressReport, ...]
    """Addresses of the peer in the order in which they were tried; on a server only the client's."""
    times: PhaseTimes
    """How long the steps took."""
    tls: TLSReport | None
    """TLS and the certificate; None if no packet came back."""
    dialect: str | None
    """The draft in use, such as ``draft15``; None if none was negotiated."""
    dialect_reason: str
    """Why this draft, or why none."""
    settings_sent: tuple[SettingReport, ...]
    """HTTP/3 settings of this side, in order; empty if there was no connection."""
    settings_received: tuple[SettingReport, ...] | None
    """HTTP/3 settings of the peer, in order; None if they did not arrive."""
    transport_parameters: tuple[ParameterReport, ...] | None
    """QUIC transport parameters of the peer, in order; None if they did not arrive."""
    flow_control: bool
    """Whether session flow control is on."""
    max_datagram_size: int | None
    """Largest datagram that can be sent, in bytes; None if the peer accepts none or it is not known."""
    mtu: int | None
    """UDP payload size in use, in bytes; None without a connection."""
    loop_late_total: int
    """How often this side's event loop was late for the connection's socket; see ``SessionStats.loop_late_total``."""
    protocols: tuple[str, ...]
    """Subprotocols that the client offered, preferred ones first."""
    protocol: str | None
    """The subprotocol that the server chose."""
    origin: str | None
    """Value of the Origin header; None without one."""
    status: int | None
    """HTTP status of the answer to the session request; None without an answer."""
    end: EndReport | None
    """How it ended or why it failed; None while the session is open."""
    udp_buffers: BufferReport | None = None
    """What the system grants this side's socket; None without a connection, and on a simulated network."""

    @property
    def is_established(self) -> bool:
        """Whether there was a session."""
        return self.step == "session"

    def setting(self, identifier: int) -> int | None:
        """Value of a setting of the peer; None if it was not sent."""
        check_integer("identifier", identifier)
        return next((item.value for item in self.settings_received or () if item.id == identifier), None)

    def transport_parameter(self, identifier: int) -> int | str | None:
        """Value of a transport parameter of the peer; None if it was not sent."""
        check_integer("identifier", identifier)
        return next((item.value for item in self.transport_parameters or () if item.id == identifier), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as dicts, lists, str, numbers, bool and None, ready for ``json.dumps``."""
        result: dict[str, Any] = _plain(self)
        return result

    def __str__(self) -> str:
        """Return the report as several lines of text, without a newline at the end."""
        return "\n".join(f"{name:<{HEADING_WIDTH}}{text}".rstrip() for name, text in report_rows(self))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


# -- as text


def report_rows(report: ConnectionReport) -> list[tuple[str, str]]:
    """The report as (heading, text) lines; an empty heading continues the previous one."""
    rows = [("url", report.url), ("result", _result(report))]
    rows += _block("address", [_address(address) for address in report.addresses])
    times = _times(report.times)
    if times:
        rows.append(("times", times))
    if report.tls is not None:
        rows.append(("TLS", _tls(report.tls)))
        if report.tls.certificate is not None:
            rows += _block("certificate", _certificate(report.tls.certificate, report.made_at))
        rows += _block("trust", _trust(report.tls))
    # Before a handshake, neither a draft nor the socket says anything about the failure.
    is_connected = report.step not in ("lookup", "handshake")
    if is_connected:
        rows.append(("dialect", f"{report.dialect or 'none'}: {report.dialect_reason}"))
    rows += _block("we sent", [_setting(item) for item in report.settings_sent])
    if report.settings_received is not None:
        rows += _block("peer sent", [_setting(item) for item in report.settings_received] or ["no setting"])
    if report.transport_parameters is not None:
        rows += _block("QUIC of peer", [_parameter(item) for item in report.transport_parameters])
    if report.settings_received is not None:
        rows.append(("flow control", "on, per session" if report.flow_control else "off (QUIC's own only)"))
    if report.mtu is not None and is_connected:
        most = "none possible" if report.max_datagram_size is None else f"up to {report.max_datagram_size} bytes"
        rows.append(("datagrams", f"{most}; UDP payload {report.mtu} bytes"))
    if report.udp_buffers is not None and is_connected:
        rows.append(("UDP buffers", _buffers(report.udp_buffers)))
    if report.loop_late_total:
        times_late = "once" if report.loop_late_total == 1 else f"{report.loop_late_total} times"
        rows.append(("event loop", f"late {times_late}: something held it while packets or timers waited"))
    if report.protocols or report.protocol is not None:
        rows.append(("subprotocol", f"{report.protocol or 'none'}, offered: {', '.join(report.protocols) or 'none'}"))
    if report.origin is not None:
        rows.append(("origin", report.origin))
    if report.status is not None:
        rows.append(("HTTP status", str(report.status)))
    # Of an address that cannot be reached, all is said above.
    if report.end is not None and not _has_only(report, "unreachable"):
        rows += _block("end", _end(report, report.end))
    return rows


def _block(name: str, lines: list[str]) -> list[tuple[str, str]]:
    return [("" if position else name, line) for position, line in enumerate(lines)]


def _result(report: ConnectionReport) -> str:
    if report.step == "handshake" and _has_only(report, "unreachable", "no answer", "given up", "not tried"):
        return "no session: no server was reached"
    if not report.is_established:
        reached = {
            "lookup": "looking up the host",
            "handshake": "the QUIC handshake",
            "settings": f"{'waiting for' if report.settings_received is None else 'checking'} the peer's SETTINGS",
            "request": "the session request",
        }[report.step]
        return f"no session: it failed in {reached}"
    return "session established" + (", over by now" if report.end is not None else "")


def _has_only(report: ConnectionReport, *outcomes: AddressOutcome) -> bool:
    """Whether there are addresses, and all of them ended in one of these ways."""
    return bool(report.addresses) and all(address.outcome in outcomes for address in report.addresses)


def _address(address: AddressReport) -> str:
    return f"{address.ip} port {address.port}: {address.outcome}" + (f", {address.detail}" if address.detail else "")


def _times(times: PhaseTimes) -> str:
    named = (
        ("lookup", times.lookup),
        ("handshake", times.handshake),
        ("SETTINGS", times.settings),
        ("request", times.request),
        ("all", times.total),
    )
    return ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in named if seconds is not None)


def _tls(tls: TLSReport) -> str:
    parts = [tls.version, f"ALPN {tls.alpn}" if tls.alpn is not None else "no ALPN agreed on"]
    if tls.cipher:
        parts.append(tls.cipher)
    if tls.key_exchange:
        parts.append(tls.key_exchange)
    if tls.server_name:
        parts.append(f"asked for {tls.server_name}")
    return ", ".join(parts)


def _certificate(certificate: CertificateReport, now: int) -> list[str]:
    lines = [f"SHA-256 {certificate.sha256}"]
    if not certificate.not_after:
        return [*lines, "it cannot be read as X.509"]
    by = "itself" if certificate.is_self_signed else certificate.issuer or "nobody named"
    lines += [
        f"{certificate.subject or 'no subject'}, signed by {by}, key {certificate.key}",
        f"for {', '.join(certificate.names) or 'no name'}",
        f"valid {date(certificate.not_before)} to {date(certificate.not_after)} ({certificate.validity_days:.1f} days)",
    ]
    if now > certificate.not_after:
        lines.append(f"expired {duration(now - certificate.not_after)} ago")
    elif now < certificate.not_before:
        lines.append(f"not valid yet, for another {duration(certificate.not_before - now)}")
    return lines


def _trust(tls: TLSReport) -> list[str]:
    if tls.trust is None:
        return []
    words = {
        "system": "the system's authorities",
        "authorities": "authorities that were given",
        "hashes": "certificates by their hash",
        "anyone": "anyone: the certificate was not checked",
    }[tls.trust]
    lines = [words]
    if tls.hash_matches is not None:
        lines = [f"{words}; this one {'matches' if tls.hash_matches else 'does not match'}"]
        lines += [f"expected {value}" for value in tls.expected_hashes]
    if tls.refusal and tls.hash_matches is not False:
        lines.append(f"refused: {tls.refusal}")
    return lines


def _setting(item: SettingReport) -> str:
    return f"{item.name} (0x{item.id:x}) = {item.value}"


def _parameter(item: ParameterReport) -> str:
    return f"{item.name} (0x{item.id:x})" + (f" = {item.value}" if item.value != "" else "")


def _buffers(buffers: BufferReport) -> str:
    return f"{buffers.receive} bytes to receive and {buffers.send} to send, {buffers.asked} each were asked for"


def _end(report: ConnectionReport, end: EndReport) -> list[str]:
    """Who ended it and why, unless an address or the certificate is the reason: they are above."""
    first = f"by {WHO[end.by]}" + (f" with {end.code_name}" if end.code_name else "")
    is_refusal = report.tls is not None and bool(report.tls.refusal) and end.reason.endswith(report.tls.refusal)
    if is_refusal or any(end.reason == address.detail for address in report.addresses):
        return [first]
    return [first, *end.reason.splitlines()]
