"""Turns a connection report into advice: one rule for each known way in which connections fail, here or for others.

Every rule looks at one report and returns a sentence or None; ``RULES`` is the table of rules. Nothing here opens a
connection, so each rule can be tested with a report that was made by hand.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from wtio._words import ALERTS, DAY, NO_APPLICATION_PROTOCOL, STATUSES, SYSTEM_ERRORS, WHO, date, duration
from wtio.protocol.dialects import STRICT_DIALECT, Dialect, Setting
from wtio.protocol.transport_parameters import TransportParameter
from wtio.report import CertificateReport, ConnectionReport

__all__ = ["RULES", "Advice", "advise", "hash_faults"]

Kind: TypeAlias = Literal["problem", "others", "note"]
"""``"problem"``: why it failed here. ``"others"``: why other clients would fail. ``"note"``: good to know."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of advice."""

    kind: Kind
    name: str
    """Name of the rule, for programs."""
    text: str
    """One or two sentences."""


_Rule: TypeAlias = Callable[[ConnectionReport], str | None]
RULES: Final[dict[str, tuple[Kind, _Rule]]] = {}

_HASH_DAYS: Final = 14
# Which addresses are local (Local Network Access, a draft of WICG): loopback, private, link-local, carrier's NAT.
_LOCAL_NETWORKS: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)
_SMALLEST_MTU: Final = 1200  # RFC 9000, section 14
# Streams that HTTP/3 itself needs: control and two for QPACK (RFC 9114, section 6.2).
_HTTP3_STREAMS: Final = 3


def advise(report: ConnectionReport) -> list[Advice]:
    """Apply all rules to a report. Explanations of a failure come first."""
    found = [Advice(kind, name, text) for name, (kind, rule) in RULES.items() if (text := rule(report)) is not None]
    if not report.is_established and not any(item.kind == "problem" for item in found):
        reason = report.end.reason if report.end is not None else "no reason is known"
        found.append(Advice("problem", "other_failure", f"It failed: {reason}."))
    order: tuple[Kind, ...] = ("problem", "others", "note")
    return sorted(found, key=lambda item: order.index(item.kind))


def _rule(kind: Kind) -> Callable[[_Rule], _Rule]:
    def add(rule: _Rule) -> _Rule:
        RULES[rule.__name__] = (kind, rule)
        return rule

    return add


def _cause(report: ConnectionReport) -> str:
    """The cause of a failure; empty after success."""
    return "" if report.is_established or report.end is None else report.end.cause


def _outcomes(report: ConnectionReport) -> set[str]:
    return {address.outcome for address in report.addresses if address.outcome not in ("not tried", "given up")}


# -- problems: before TLS


@_rule("problem")
def no_address(report: ConnectionReport) -> str | None:
    """The host cannot be looked up."""
    if _cause(report) != "lookup":
        return None
    return f"`{report.host}` has no address: check the spelling, the DNS entry, and this machine's resolver."


@_rule("problem")
def port_unreachable(report: ConnectionReport) -> str | None:
    """The network says that nothing is there."""
    if report.is_established or _outcomes(report) != {"unreachable"}:
        return None
    numbers = {address.errno or 0 for address in report.addresses if address.outcome == "unreachable"}
    advice = [fault.advice for number in sorted(numbers) if (fault := SYSTEM_ERRORS.get(number)) and fault.advice]
    if numbers and len(advice) == len(numbers):
        return "Nothing gets there. " + " ".join(advice)
    return (
        "Nothing listens there: the network answers that the UDP port or host is unreachable. Start the server, or "
        "check the port."
    )


@_rule("problem")
def not_quic(report: ConnectionReport) -> str | None:
    """Something else listens at the port."""
    if report.is_established or "not QUIC" not in _outcomes(report):
        return None
    return "Something answers at this UDP port, but it does not speak QUIC: another service has the port."


@_rule("problem")
def no_answer(report: ConnectionReport) -> str | None:
    """No packet came back."""
    outcomes = _outcomes(report)
    if report.is_established or "no answer" not in outcomes or not outcomes <= {"no answer", "unreachable"}:
        return None
    return (
        "Not one packet came back. Either no server runs there, or a firewall drops UDP: QUIC needs UDP both ways at "
        "this port, and a rule that opens the TCP port does not. Try from another network, and from the server's own "
        "machine."
    )


@_rule("problem")
def handshake_stalled(report: ConnectionReport) -> str | None:
    """Packets came back, but the handshake did not end."""
    if _cause(report) not in ("timeout", "idle") or "incomplete" not in _outcomes(report):
        return None
    return (
        f"The server answers, but the handshake was not over in time. Packets of {_SMALLEST_MTU} bytes may be lost on "
        "the way (a tunnel with a small MTU), or the server is overloaded; a longer --timeout shows which."
    )


@_rule("problem")
def no_common_version(report: ConnectionReport) -> str | None:
    """QUIC's version negotiation failed."""
    if _cause(report) != "version":
        return None
    return "The server speaks QUIC, but not version 1: it is older than RFC 9000, or restricted to another version."


@_rule("problem")
def connection_refused(report: ConnectionReport) -> str | None:
    """CONNECTION_REFUSED."""
    if _cause(report) != "refused":
        return None
    return "The server takes no new connections: it is shutting down, or has as many as it wants."


# -- problems: TLS


@_rule("problem")
def no_http3(report: ConnectionReport) -> str | None:
    """ALPN found nothing in common."""
    if _cause(report) != "tls" or report.end is None or report.end.code != NO_APPLICATION_PROTOCOL:
        return None
    return "The server speaks QUIC, but not HTTP/3: its list of application protocols (ALPN) must contain `h3`."


@_rule("problem")
def other_alert(report: ConnectionReport) -> str | None:
    """TLS failed, but not because this side refused the certificate."""
    if _cause(report) != "tls" or report.end is None or (report.tls is not None and report.tls.refusal):
        return None
    if report.end.code == NO_APPLICATION_PROTOCOL:
        return None
    alert = ALERTS.get(report.end.code or 0)
    meaning = (alert.meaning if alert is not None else "") or "its log may say more"
    return f"The TLS handshake failed with {report.end.code_name}: {meaning}."


@_rule("problem")
def wrong_hash(report: ConnectionReport) -> str | None:
    """The certificate is not the expected one."""
    if report.tls is None or not report.tls.refusal or report.tls.hash_matches is not False:
        return None
    certificate = report.tls.certificate
    shown = certificate.sha256 if certificate is not None else "unknown"
    return (
        f"The certificate is not the one with the given hash; the server shows {shown}. Certificates for development "
        "change every two weeks: take the hash from the server anew, by a way that you trust."
    )


@_rule("problem")
def expired(report: ConnectionReport) -> str | None:
    """The certificate's validity is over."""
    certificate = _refused(report)
    if certificate is None or not certificate.not_after or report.made_at <= certificate.not_after:
        return None
    age = duration(report.made_at - certificate.not_after)
    return f"The certificate expired {age} ago, on {date(certificate.not_after)}: renew it and restart the server."


@_rule("problem")
def not_valid_yet(report: ConnectionReport) -> str | None:
    """The certificate's validity has not begun."""
    certificate = _refused(report)
    if certificate is None or report.made_at >= certificate.not_before:
        return None
    return (
        f"The certificate is valid from {date(certificate.not_before)} on, and here it is {date(report.made_at)}: one "
        "of the two clocks is wrong."
    )


@_rule("problem")
def hash_rules(report: ConnectionReport) -> str | None:
    """The hash is right, but the certificate breaks the rules for trust by hash."""
    certificate = _refused(report)
    if certificate is None or report.tls is None or not report.tls.hash_matches:
        return None
    faults = hash_faults(certificate)
    if not faults:
        return None
    return (
        f"The hash is right, but the certificate {' and '.join(faults)}; to be trusted by its hash it must be valid "
        f"for at most {_HASH_DAYS} days and have an ECDSA P-256 key. `python -m wtio cert` makes such a one."
    )


@_rule("problem")
def wrong_name(report: ConnectionReport) -> str | None:
    """The certificate is for another host."""
    certificate = _refused(report)
    if certificate is None or not _checks_names(report) or _covers(certificate, report.host):
        return None
    names = ", ".join(certificate.names) or "no name at all"
    return f"The certificate is not for `{report.host}` but for {names}: connect by such a name, or issue another one."


@_rule("problem")
def unknown_authority(report: ConnectionReport) -> str | None:
    """No trusted authority has signed it."""
    certificate = _refused(report)
    if certificate is None or not _checks_names(report) or not _covers(certificate, report.host):
        return None
    if not certificate.not_before <= report.made_at <= certificate.not_after:
        return None
    if certificate.is_self_signed:
        # By its hash, one that breaks the rules for that would be refused, too.
        way = "by its file: --cafile FILE" if hash_faults(certificate) else f"by its hash: --hash {certificate.sha256}"
        return (
            "The certificate is self-signed. If it is the certificate for development of this machine, add --dev; "
            f"otherwise, if it is yours, trust it {way}"
        )
    way = (
        "give the authority's certificate with --cafile"
        if report.tls is not None and report.tls.trust == "system"
        else "the authorities in the given file are others"
    )
    missing = report.tls is not None and report.tls.chain_length == 1
    return f"No trusted authority has signed the certificate (its issuer is {certificate.issuer}): {way}." + (
        " The server sent one certificate only; it may have forgotten the intermediates." if missing else ""
    )


# -- problems: HTTP/3


@_rule("problem")
def no_settings(report: ConnectionReport) -> str | None:
    """The server's SETTINGS do not arrive."""
    if report.step != "settings" or _cause(report) != "timeout":
        return None
    return (
        "QUIC works, but the server's HTTP/3 SETTINGS did not come. It may not speak HTTP/3 although it says so, or "
        "allow the client no unidirectional streams."
    )


@_rule("problem")
def no_webtransport(report: ConnectionReport) -> str | None:
    """No dialect in common."""
    if report.is_established or report.settings_received is None or _dialects(report):
        return None
    return (
        "The server speaks HTTP/3, but announces no WebTransport in its SETTINGS: it is switched off, or this is an "
        "ordinary web server."
    )


@_rule("problem")
def no_extended_connect(report: ConnectionReport) -> str | None:
    """ENABLE_CONNECT_PROTOCOL is missing."""
    if (
        _cause(report) != "requirements"
        or not _dialects(report)
        or report.setting(Setting.ENABLE_CONNECT_PROTOCOL) == 1
    ):
        return None
    if not any(Setting.ENABLE_CONNECT_PROTOCOL in dialect.row.server_settings for dialect in _dialects(report)):
        return None
    return "The server announces WebTransport but not extended CONNECT: it must send ENABLE_CONNECT_PROTOCOL (0x8) = 1."


@_rule("problem")
def no_datagrams(report: ConnectionReport) -> str | None:
    """Datagrams are not offered, which WebTransport requires."""
    if _cause(report) != "requirements" or not _dialects(report):
        return None
    if not _has_datagram_setting(report):
        return "The server offers no HTTP datagrams: it must send H3_DATAGRAM (0x33) = 1."
    if not _datagram_frame_size(report):
        return (
            "The server takes no QUIC datagrams: it must send the transport parameter max_datagram_frame_size (0x20) "
            "with a value above 0."
        )
    return None


@_rule("problem")
def forbidden(report: ConnectionReport) -> str | None:
    """Status 403, mostly about the origin."""
    if report.status != 403:
        return None
    if report.origin is None:
        return (
            "The server forbids the session (403). No Origin header was sent; if the server allows certain pages only, "
            "try --origin https://the-page's-host, and look at what else it wants, such as a token in a header."
        )
    return (
        f"The server forbids the session (403): `{report.origin}` is not among the origins that it allows. A server of "
        "wtio takes pages of its own host and port, and those that its program names."
    )


@_rule("problem")
def redirected(report: ConnectionReport) -> str | None:
    """Status 3xx."""
    if report.status is None or not 300 <= report.status < 400:
        return None
    return f"The server redirects (status {report.status}), which WebTransport never follows: use the final URL."


@_rule("problem")
def rejected(report: ConnectionReport) -> str | None:
    """Any other status outside 2xx."""
    if report.status is None or report.status < 400 or report.status == 403:
        return None
    status = STATUSES.get(report.status)
    if status is None:
        return f"The server rejected the session with status {report.status}; its log or documentation may say why."
    return f"{status.meaning[0].upper()}{status.meaning[1:]} ({report.status}): {status.advice}."


@_rule("problem")
def no_response(report: ConnectionReport) -> str | None:
    """The request is not answered."""
    if report.step != "request" or _cause(report) != "timeout":
        return None
    return (
        "The server did not answer the session request in time: its handler may wait for something, or it waits for "
        "settings or transport parameters that this client did not send."
    )


@_rule("problem")
def request_reset(report: ConnectionReport) -> str | None:
    """The request stream was reset."""
    if _cause(report) != "request" or report.end is None:
        return None
    return (
        f"The server reset the session request with {report.end.code_name or 'no code'}: it may want another draft, "
        "strict settings or reset_stream_at, or carry no further session on this connection."
    )


@_rule("problem")
def closed_by_peer(report: ConnectionReport) -> str | None:
    """The server closed the whole connection."""
    if _cause(report) not in ("application", "transport") or report.end is None:
        return None
    return (
        f"The server closed the connection with {report.end.code_name}: {report.end.reason}. It disagrees with "
        "something that this client sent; its log may say more."
    )


@_rule("problem")
def broken_protocol(report: ConnectionReport) -> str | None:
    """The server broke a rule, and we closed the connection."""
    if _cause(report) not in ("protocol", "violation") or report.end is None:
        return None
    return f"The server broke the protocol ({report.end.code_name}): {report.end.reason}. That is a bug of the server."


# -- others: the certificate


@_rule("others")
def hash_not_for_browsers(report: ConnectionReport) -> str | None:
    """Browsers would not accept the certificate by its hash."""
    certificate = _unofficial(report)
    if certificate is None or (report.tls is not None and report.tls.refusal and report.tls.hash_matches):
        return None
    faults = hash_faults(certificate)
    if not faults:
        return None
    return (
        f"Browsers would refuse this certificate in serverCertificateHashes: it {' and '.join(faults)}. It must be "
        f"valid for at most {_HASH_DAYS} days and have an ECDSA P-256 key."
    )


@_rule("others")
def expires_soon(report: ConnectionReport) -> str | None:
    """The certificate expires soon."""
    certificate = None if report.tls is None else report.tls.certificate
    if certificate is None or not certificate.not_after:
        return None
    left = certificate.not_after - report.made_at
    # Two weeks for the usual 90 days, two days for certificates of two weeks.
    if not 0 <= left < min(14 * DAY, certificate.validity_days * DAY / 6):
        return None
    return f"The certificate expires in {duration(left)}, on {date(certificate.not_after)}: renew it."


@_rule("others")
def name_not_checked(report: ConnectionReport) -> str | None:
    """Names were not checked here, but are elsewhere."""
    certificate = _unofficial(report)
    if certificate is None or _checks_names(report) or _covers(certificate, report.host):
        return None
    names = ", ".join(certificate.names) or "no name at all"
    return (
        f"The certificate is for {names}, not for `{report.host}`: clients that trust an authority instead of a hash "
        "would refuse it."
    )


# -- others: what other clients want


def _add_left_out(name: str) -> None:
    """Add the rule for clients that need a dialect, in whichever row of ``Dialect`` it is.

    Its place among the other rules is its place in the advice.
    """
    rows = [dialect.row for dialect in Dialect if dialect.row.left_out.advice == name]
    wanted = " or ".join(f"{row.setting.name} (0x{row.setting:x})" for row in rows)
    value = "= 1" if all("client" in row.flag_readers for row in rows) else "of at least 1"
    text = f"{rows[0].left_out.words} {wanted} {value} in the SETTINGS."

    def rule(report: ConnectionReport) -> str | None:
        if report.settings_received is None or not _dialects(report):
            return None
        return None if any(report.setting(row.setting) for row in rows) else text

    RULES[name] = ("others", rule)


_add_left_out("not_for_chrome_and_firefox")


@_rule("others")
def not_for_new_firefox(report: ConnectionReport) -> str | None:
    """Firefox requires settings that draft 02 implied."""
    if report.settings_received is None or report.setting(Setting.ENABLE_WEBTRANSPORT) != 1:
        return None
    lacks = [
        f"{setting.name} (0x{setting:x}) = 1"
        for setting in (Setting.ENABLE_CONNECT_PROTOCOL, Setting.H3_DATAGRAM)
        if report.setting(setting) != 1
    ]
    if not lacks:
        return None
    return f"Newer versions of Firefox cannot connect: they want {' and '.join(lacks)} as well."


_add_left_out("not_for_safari")


@_rule("others")
def incomplete_flow_control(report: ConnectionReport) -> str | None:
    """Several sessions are announced without the limits that belong to them."""
    initial = (
        Setting.WT_INITIAL_MAX_DATA,
        Setting.WT_INITIAL_MAX_STREAMS_UNI,
        Setting.WT_INITIAL_MAX_STREAMS_BIDI,
    )
    lacks = [f"{setting.name} (0x{setting:x})" for setting in initial if not report.setting(setting)]
    if (report.setting(Setting.WT_MAX_SESSIONS) or 0) <= 1 or not lacks:
        return None
    return (
        f"Safari refuses the connection: WT_MAX_SESSIONS (0x14e9cd29) above 1 promises session flow control, but "
        f"{', '.join(lacks)} {'is' if len(lacks) == 1 else 'are'} missing or 0."
    )


# Clients that need one of the newer dialects.
for _dialect in Dialect:
    if _dialect.row.left_out.advice not in RULES:
        _add_left_out(_dialect.row.left_out.advice)


@_rule("others")
def no_reset_stream_at(report: ConnectionReport) -> str | None:
    """RESET_STREAM_AT is not offered."""
    if report.transport_parameters is None or not _dialects(report) or _offers_reset(report):
        return None
    return (
        f"Strict clients of draft {STRICT_DIALECT.row.drafts[-1]} cannot connect: they want the transport parameter "
        "reset_stream_at (0x1d). Without it a reset may also reach the peer later."
    )


@_rule("others")
def no_old_reset_stream_at(report: ConnectionReport) -> str | None:
    """Safari in draft 13 knows only the older identifier."""
    if not _offers_reset(report) or not report.setting(Setting.WT_MAX_SESSIONS):
        return None
    if report.transport_parameter(TransportParameter.RESET_STREAM_AT_DRAFT05) is not None:
        return None
    return (
        "Safari may fail in draft 13: it looks for reset_stream_at by its older identifier, 0x17f7586d2cb571, which "
        "the server does not send."
    )


@_rule("others")
def one_family_only(report: ConnectionReport) -> str | None:
    """The host has IPv4 and IPv6 addresses, and one kind does not work."""
    connected = {address.is_ipv6 for address in report.addresses if address.outcome == "connected"}
    silent = {
        address.is_ipv6
        for address in report.addresses
        if address.outcome in ("no answer", "unreachable", "not QUIC", "failed", "incomplete")
    } - connected
    if len(connected) != 1 or not silent:
        return None
    works, fails = ("IPv6", "IPv4") if True in connected else ("IPv4", "IPv6")
    return (
        f"Only {works} works: the host also has an {fails} address, which does not answer. Clients that try it first "
        f"are slow, and clients without {works} fail; listen on both, or remove the address from DNS."
    )


@_rule("others")
def localhost_without_ipv6(report: ConnectionReport) -> str | None:
    """Chromium resolves localhost by itself."""
    connected = [address for address in report.addresses if address.outcome == "connected"]
    if report.host != "localhost" or not connected or any(address.is_ipv6 for address in report.addresses):
        return None
    return "For `localhost` Chromium tries ::1 only: in a page write 127.0.0.1, or listen on ::1 as well."


# -- notes


@_rule("note")
def local_address(report: ConnectionReport) -> str | None:
    """Pages from elsewhere need their user's permission for addresses of this machine or a local network."""
    connected = [address.ip for address in report.addresses if address.outcome == "connected"]
    if not report.is_established or not connected:
        return None
    ip = ipaddress.ip_address(connected[0].partition("%")[0])
    if not any(ip.version == network.version and ip in network for network in _LOCAL_NETWORKS):
        return None
    where, exempt = ("this machine", "http://localhost") if ip.is_loopback else ("a local network", "the same network")
    return (
        f"Chrome and Edge, from version 147 on, ask their user before a page of the public web may connect to {ip}, an "
        f"address of {where}; pages from {exempt} need no permission."
    )


@_rule("note")
def certificate_not_checked(report: ConnectionReport) -> str | None:
    """Trust was switched off."""
    if report.tls is None or report.tls.trust != "anyone":
        return None
    return "The certificate was not checked; who answered may be anybody. Try again with --hash or --cafile."


@_rule("note")
def no_origin(report: ConnectionReport) -> str | None:
    """Browsers send an origin, and this client did not."""
    if not report.is_established or report.origin is not None:
        return None
    return "Browsers send an Origin header, which a server may refuse (403): try --origin with the page's."


@_rule("note")
def small_mtu(report: ConnectionReport) -> str | None:
    """Only packets of the smallest size got through."""
    if not report.is_established or report.mtu is None or report.mtu > _SMALLEST_MTU:
        return None
    return (
        f"No packet above {_SMALLEST_MTU} bytes has passed yet, so datagrams stay small (up to "
        f"{report.max_datagram_size} bytes): a tunnel or VPN is on the way, or the connection was too short to find "
        "out."
    )


@_rule("note")
def few_streams(report: ConnectionReport) -> str | None:
    """The client may open very few streams."""
    if report.transport_parameters is None or not report.is_client:
        return None
    bidirectional = report.transport_parameter(TransportParameter.INITIAL_MAX_STREAMS_BIDI) or 0
    unidirectional = report.transport_parameter(TransportParameter.INITIAL_MAX_STREAMS_UNI) or 0
    if not isinstance(bidirectional, int) or not isinstance(unidirectional, int):
        return None
    if bidirectional > 1 and unidirectional > _HTTP3_STREAMS:
        return None
    return (
        f"The server allows {bidirectional} bidirectional and {unidirectional} unidirectional streams at the start; "
        f"one and {_HTTP3_STREAMS} of them belong to the session request and HTTP/3, so a client may have to wait to "
        "open streams."
    )


@_rule("note")
def no_subprotocol(report: ConnectionReport) -> str | None:
    """The server chose none of the offered subprotocols."""
    if not report.is_established or not report.protocols or report.protocol is not None:
        return None
    return f"The server chose none of the offered subprotocols ({', '.join(report.protocols)})."


@_rule("note")
def ended_by_server(report: ConnectionReport) -> str | None:
    """The session has already ended, and this side did not close it."""
    if not report.is_established or report.end is None or report.end.by == "local":
        return None
    words = report.end.code_name or "no code"
    reason = f": {report.end.reason}" if report.end.reason else ""
    return f"The session came about, but it was ended at once, by {WHO[report.end.by]} with {words}{reason}."


@_rule("note")
def small_udp_buffers(report: ConnectionReport) -> str | None:
    """The system grants smaller buffers than were asked for."""
    buffers = report.udp_buffers
    if not report.is_established or buffers is None:
        return None
    granted = (("receive", buffers.receive, "rmem_max"), ("send", buffers.send, "wmem_max"))
    small = [(what, size, name) for what, size, name in granted if 0 < size < buffers.asked]
    if not small:
        return None
    words = " and ".join(f"{size} bytes to {what}" for what, size, _ in small)
    change = " ".join(f"net.core.{name}={buffers.asked}" for _, _, name in small)
    if sys.platform == "darwin":
        change = f"kern.ipc.maxsockbuf={2 * buffers.asked}"
    return (
        f"This machine grants a UDP socket {words}; {buffers.asked} are better, or packets are dropped when many come "
        f"at once. Run `sysctl -w {change}` as root, and put the same into a file in /etc/sysctl.d to keep it."
    )


# -- facts of a report


def _refused(report: ConnectionReport) -> CertificateReport | None:
    """The certificate, if it was refused for another reason than its hash."""
    if report.tls is None or not report.tls.refusal or report.tls.hash_matches is False:
        return None
    return report.tls.certificate


def _unofficial(report: ConnectionReport) -> CertificateReport | None:
    """A certificate that browsers do not trust otherwise; None if the system trusts it."""
    if report.tls is None or (report.tls.trust == "system" and not report.tls.refusal):
        return None
    certificate = report.tls.certificate
    return certificate if certificate is not None and certificate.not_after else None


def hash_faults(certificate: CertificateReport) -> list[str]:
    """Why a certificate cannot be trusted by its hash, as clauses about it; empty if it can."""
    faults = []
    if certificate.validity_days > _HASH_DAYS:
        days = f"{certificate.validity_days:.2f}".rstrip("0").rstrip(".")
        faults.append(f"is valid for {'a little more than ' if days == str(_HASH_DAYS) else ''}{days} days")
    if certificate.key and certificate.key != "ECDSA P-256":
        faults.append(f"has a key of type {certificate.key}")
    return faults


def _checks_names(report: ConnectionReport) -> bool:
    return report.tls is not None and report.tls.trust in ("system", "authorities")


def _covers(certificate: CertificateReport, host: str) -> bool:
    """Whether a certificate is for a host (RFC 6125, section 6.4: a wildcard stands for one whole label)."""
    try:
        host = ipaddress.ip_address(host).compressed
    except ValueError:
        host = host.lower().removesuffix(".")
        parent = "*." + host.partition(".")[2]
        return any(name.lower() in (host, parent) for name in certificate.names)
    return host in certificate.names


def _dialects(report: ConnectionReport) -> list[Dialect]:
    """The dialects that the peer announces."""
    return [dialect for dialect in Dialect if report.setting(dialect.row.setting)]


def _has_datagram_setting(report: ConnectionReport) -> bool:
    return bool(report.setting(Setting.H3_DATAGRAM) or report.setting(Setting.H3_DATAGRAM_DRAFT04))


def _datagram_frame_size(report: ConnectionReport) -> int:
    size = report.transport_parameter(TransportParameter.MAX_DATAGRAM_FRAME_SIZE)
    return size if isinstance(size, int) else 0


def _offers_reset(report: ConnectionReport) -> bool:
    either = (TransportParameter.RESET_STREAM_AT, TransportParameter.RESET_STREAM_AT_DRAFT05)
    return any(report.transport_parameter(identifier) is not None for identifier in either)
