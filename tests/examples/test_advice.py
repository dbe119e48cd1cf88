"""The advice of `python -m wtio doctor`: each rule speaks for its case, and is silent for a server without faults."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from wtio.cli._advice import RULES, advise
from wtio.protocol.dialects import Setting
from wtio.protocol.transport_parameters import TransportParameter
from wtio.report import (
    AddressReport,
    BufferReport,
    CertificateReport,
    ConnectionReport,
    EndReport,
    ParameterReport,
    PhaseTimes,
    SettingReport,
    TLSReport,
)

if TYPE_CHECKING:
    from wtio.report import AddressOutcome, EndedBy, Step


NOW = 1_795_000_000
DAY = 24 * 3600

CERTIFICATE = CertificateReport(
    sha256="ab" * 32,
    subject="CN=example.org",
    issuer="CN=example.org",
    names=("example.org", "*.example.net", "192.0.2.1"),
    not_before=NOW - 2 * DAY,
    not_after=NOW + 10 * DAY,
    key="ECDSA P-256",
)
SETTINGS = {
    Setting.ENABLE_CONNECT_PROTOCOL: 1,
    Setting.H3_DATAGRAM: 1,
    Setting.ENABLE_WEBTRANSPORT: 1,
    Setting.WEBTRANSPORT_MAX_SESSIONS: 1,
    Setting.WT_MAX_SESSIONS: 100,
    Setting.WT_ENABLED: 1,
    Setting.WT_INITIAL_MAX_DATA: 1_000_000,
    Setting.WT_INITIAL_MAX_STREAMS_UNI: 100,
    Setting.WT_INITIAL_MAX_STREAMS_BIDI: 100,
}
PARAMETERS: dict[int, int | str] = {
    TransportParameter.MAX_DATAGRAM_FRAME_SIZE: 65535,
    TransportParameter.INITIAL_MAX_STREAMS_BIDI: 129,
    TransportParameter.INITIAL_MAX_STREAMS_UNI: 131,
    TransportParameter.RESET_STREAM_AT: "",
    TransportParameter.RESET_STREAM_AT_DRAFT05: "",
}


def settings(values: dict[Setting, int]) -> tuple[SettingReport, ...]:
    return tuple(SettingReport(identifier, identifier.name, value) for identifier, value in values.items())


def parameters(values: dict[int, int | str]) -> tuple[ParameterReport, ...]:
    return tuple(ParameterReport(identifier, "", value) for identifier, value in values.items())


HEALTHY = ConnectionReport(
    url="https://example.org/",
    host="example.org",
    is_client=True,
    made_at=NOW,
    step="session",
    addresses=(
        AddressReport(ip="192.0.2.1", port=443, outcome="connected"),
        AddressReport(ip="2001:db8::1", port=443, outcome="given up"),
    ),
    times=PhaseTimes(),
    tls=TLSReport(
        version="1.3",
        alpn="h3",
        cipher="TLS13_AES_128_GCM_SHA256",
        server_name="example.org",
        trust="hashes",
        expected_hashes=(CERTIFICATE.sha256,),
        certificate=CERTIFICATE,
        chain_length=1,
        hash_matches=True,
        refusal="",
    ),
    dialect="draft15",
    dialect_reason="",
    settings_sent=settings(SETTINGS),
    settings_received=settings(SETTINGS),
    transport_parameters=parameters(PARAMETERS),
    flow_control=True,
    max_datagram_size=1400,
    mtu=1452,
    loop_late_total=0,
    protocols=(),
    protocol=None,
    origin="https://example.org",
    status=200,
    end=None,
)


def with_settings(**changes: int | None) -> ConnectionReport:
    """The healthy report with other settings; None leaves one out."""
    values = SETTINGS | {Setting[name]: value for name, value in changes.items() if value is not None}
    values = {key: value for key, value in values.items() if changes.get(key.name, 0) is not None}
    return replace(HEALTHY, settings_received=settings(values))


def with_parameters(changes: dict[int, int | str | None]) -> ConnectionReport:
    values = {key: value for key, value in (PARAMETERS | changes).items() if value is not None}
    return replace(HEALTHY, transport_parameters=parameters(values))


def with_certificate(report: ConnectionReport = HEALTHY, /, **changes: object) -> ConnectionReport:
    assert report.tls is not None
    return replace(report, tls=replace(report.tls, certificate=replace(CERTIFICATE, **changes)))  # type: ignore[arg-type]


def with_tls(report: ConnectionReport = HEALTHY, /, **changes: object) -> ConnectionReport:
    assert report.tls is not None
    return replace(report, tls=replace(report.tls, **changes))  # type: ignore[arg-type]


def with_buffers(*, receive: int, send: int) -> ConnectionReport:
    return replace(HEALTHY, udp_buffers=BufferReport(asked=4_194_304, receive=receive, send=send))


def failed(
    cause: str,
    step: Step = "handshake",
    *,
    report: ConnectionReport = HEALTHY,
    by: EndedBy = "peer",
    code: int | None = None,
    status: int | None = None,
) -> ConnectionReport:
    end = EndReport(cause=cause, by=by, code=code, code_name="" if code is None else f"0x{code:x}", reason="because")
    return replace(report, step=step, end=end, status=status)


def addresses(report: ConnectionReport, *outcomes: AddressOutcome) -> ConnectionReport:
    ips = ("192.0.2.1", "2001:db8::1")
    found = (AddressReport(ip=ip, port=443, outcome=outcome) for ip, outcome in zip(ips, outcomes, strict=False))
    return replace(report, addresses=tuple(found))


def at(ip: str) -> ConnectionReport:
    return replace(HEALTHY, addresses=(AddressReport(ip=ip, port=443, outcome="connected"),))


def refused(report: ConnectionReport, /, **changes: object) -> ConnectionReport:
    return failed("tls", by="local", code=42, report=with_tls(report, refusal="no", **changes))


def unfinished(step: Step, report: ConnectionReport = HEALTHY) -> ConnectionReport:
    return failed("timeout", step, by="timeout", report=report)


NO_WEBTRANSPORT = with_settings(
    ENABLE_WEBTRANSPORT=None, WEBTRANSPORT_MAX_SESSIONS=None, WT_MAX_SESSIONS=None, WT_ENABLED=None
)
OLD = {"not_after": NOW - DAY}
EARLY = {"not_before": NOW + DAY}
LONG = {"not_before": NOW - 20 * DAY, "not_after": NOW + 60 * DAY}
AUTHORITY = {"issuer": "CN=Some Authority"}

# (name of the rule, report, words of the advice)
CASES: list[tuple[str, ConnectionReport, str]] = [
    (
        "small_udp_buffers",
        with_buffers(receive=212_992, send=4_194_304),
        "grants a UDP socket 212992 bytes to receive; 4194304 are better",
    ),
    (
        "small_udp_buffers",
        with_buffers(receive=212_992, send=212_992),
        "`sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304`",
    ),
    ("no_address", failed("lookup", "lookup", by="local"), "`example.org` has no address"),
    ("port_unreachable", addresses(unfinished("handshake"), "unreachable", "unreachable"), "Nothing listens there"),
    ("not_quic", addresses(unfinished("handshake"), "not QUIC"), "does not speak QUIC"),
    ("no_answer", addresses(unfinished("handshake"), "no answer", "not tried"), "Not one packet came back"),
    ("no_answer", addresses(failed("idle", by="timeout"), "no answer", "unreachable"), "drops UDP"),
    ("handshake_stalled", addresses(unfinished("handshake"), "incomplete"), "Packets of 1200 bytes"),
    ("no_common_version", failed("version"), "not version 1"),
    ("connection_refused", failed("refused"), "takes no new connections"),
    ("no_http3", failed("tls", code=120), "must contain `h3`"),
    ("other_alert", failed("tls", code=116), "asks for a client certificate"),
    ("other_alert", failed("tls", code=112), "knows no host of this name"),
    ("other_alert", failed("tls", code=250), "its log may say more"),
    ("wrong_hash", refused(HEALTHY, hash_matches=False), f"the server shows {'ab' * 32}"),
    ("expired", refused(with_certificate(**OLD)), "expired 24 hours ago"),
    ("not_valid_yet", refused(with_certificate(**EARLY)), "clocks is wrong"),
    ("hash_rules", refused(with_certificate(**LONG)), "is valid for 80 days"),
    ("hash_rules", refused(with_certificate(not_after=NOW + 12 * DAY + 1)), "is valid for a little more than 14 days"),
    ("hash_rules", refused(with_certificate(not_after=NOW + 10_000 * DAY)), "is valid for 10002 days"),
    ("hash_rules", refused(with_certificate(key="RSA")), "key of type RSA"),
    (
        "wrong_name",
        refused(with_certificate(names=("elsewhere.example",)), trust="authorities", hash_matches=None),
        "not for `example.org` but for elsewhere.example",
    ),
    ("unknown_authority", refused(HEALTHY, trust="system", hash_matches=None), f"--hash {'ab' * 32}"),
    (
        "unknown_authority",
        refused(with_certificate(**AUTHORITY), trust="system", hash_matches=None),
        "--cafile. The server sent one certificate only",
    ),
    (
        "unknown_authority",
        refused(with_certificate(**AUTHORITY), trust="authorities", hash_matches=None, chain_length=2),
        "the authorities in the given file are others",
    ),
    ("no_settings", unfinished("settings"), "SETTINGS did not come"),
    ("no_webtransport", failed("requirements", "settings", report=NO_WEBTRANSPORT), "announces no WebTransport"),
    (
        "no_extended_connect",
        failed("requirements", "settings", report=with_settings(ENABLE_CONNECT_PROTOCOL=None)),
        "ENABLE_CONNECT_PROTOCOL (0x8) = 1",
    ),
    ("no_datagrams", failed("requirements", "settings", report=with_settings(H3_DATAGRAM=None)), "H3_DATAGRAM (0x33)"),
    (
        "no_datagrams",
        failed("requirements", "settings", report=with_parameters({0x20: None})),
        "max_datagram_frame_size (0x20)",
    ),
    ("forbidden", failed("rejected", "request", status=403), "`https://example.org` is not among the origins"),
    (
        "forbidden",
        failed("rejected", "request", status=403, report=replace(HEALTHY, origin=None)),
        "No Origin header was sent",
    ),
    ("redirected", failed("rejected", "request", status=307), "never follows"),
    ("rejected", failed("rejected", "request", status=404), "(404): check the path"),
    ("rejected", failed("rejected", "request", status=405), "(405): check the path"),
    ("rejected", failed("rejected", "request", status=429), "as many sessions as it wants"),
    ("rejected", failed("rejected", "request", status=418), "status 418"),
    ("no_response", unfinished("request"), "did not answer the session request in time"),
    ("request_reset", failed("request", "request", code=0x10B), "reset the session request with 0x10b"),
    ("closed_by_peer", failed("application", "request", code=0x109), "closed the connection with 0x109: because"),
    ("broken_protocol", failed("violation", "settings", by="local", code=0x109), "That is a bug of the server"),
    ("hash_not_for_browsers", with_tls(with_certificate(**LONG), trust="anyone"), "valid for 80 days"),
    ("hash_not_for_browsers", with_tls(with_certificate(key="RSA"), trust="authorities"), "key of type RSA"),
    ("expires_soon", with_certificate(not_after=NOW + 3600), "expires in 60 minutes"),
    ("expires_soon", with_certificate(not_before=NOW - 80 * DAY), "expires in 10 days"),
    ("name_not_checked", with_certificate(names=("localhost",)), "for localhost, not for `example.org`"),
    ("not_for_chrome_and_firefox", with_settings(ENABLE_WEBTRANSPORT=None), "Chrome, Edge and Firefox cannot"),
    ("not_for_new_firefox", with_settings(ENABLE_CONNECT_PROTOCOL=None), "ENABLE_CONNECT_PROTOCOL (0x8) = 1 as well"),
    ("not_for_safari", with_settings(WEBTRANSPORT_MAX_SESSIONS=None, WT_MAX_SESSIONS=None), "Safari cannot connect"),
    ("incomplete_flow_control", with_settings(WT_INITIAL_MAX_DATA=0), "WT_INITIAL_MAX_DATA (0x2b61) is missing or 0"),
    (
        "incomplete_flow_control",
        with_settings(WT_INITIAL_MAX_DATA=None, WT_INITIAL_MAX_STREAMS_BIDI=None),
        "(0x2b61), WT_INITIAL_MAX_STREAMS_BIDI (0x2b65) are missing or 0",
    ),
    ("no_draft_15", with_settings(WT_ENABLED=None), "WT_ENABLED (0x2c7cf000) = 1"),
    ("no_reset_stream_at", with_parameters({0x1D: None, 0x17F7586D2CB571: None}), "reset_stream_at (0x1d)"),
    ("no_old_reset_stream_at", with_parameters({0x17F7586D2CB571: None}), "0x17f7586d2cb571"),
    ("one_family_only", addresses(HEALTHY, "connected", "no answer"), "Only IPv4 works"),
    ("one_family_only", addresses(HEALTHY, "unreachable", "connected"), "Only IPv6 works"),
    (
        "localhost_without_ipv6",
        with_certificate(replace(addresses(HEALTHY, "connected"), host="localhost"), names=("localhost",)),
        "write 127.0.0.1",
    ),
    ("local_address", at("127.0.0.1"), "pages from http://localhost need no permission"),
    ("local_address", at("192.168.1.5"), "an address of a local network; pages from the same network"),
    ("local_address", at("fe80::1%eth0"), "ask their user"),
    ("certificate_not_checked", with_tls(trust="anyone"), "was not checked"),
    ("no_origin", replace(HEALTHY, origin=None), "try --origin"),
    ("small_mtu", replace(HEALTHY, mtu=1200, max_datagram_size=1160), "up to 1160 bytes"),
    ("few_streams", with_parameters({0x09: 3}), "129 bidirectional and 3 unidirectional streams"),
    ("few_streams", with_parameters({0x08: 1}), "1 bidirectional and 131 unidirectional streams"),
    ("no_subprotocol", replace(HEALTHY, protocols=("a", "b")), "(a, b)"),
    (
        "ended_by_server",
        replace(HEALTHY, end=EndReport(cause="session", by="peer", code=7, code_name="application code 7", reason="")),
        "by the peer with application code 7.",
    ),
]


def test_a_server_without_faults_needs_no_advice() -> None:
    assert advise(HEALTHY) == []
    system = with_tls(with_certificate(**LONG, **AUTHORITY), trust="system", expected_hashes=(), hash_matches=None)
    assert advise(system) == []


@pytest.mark.parametrize(("name", "report", "words"), CASES, ids=[f"{name}-{words}" for name, _, words in CASES])
def test_each_fault_has_its_advice(name: str, report: ConnectionReport, words: str) -> None:
    found = {item.name: item for item in advise(report)}
    assert name in found
    assert words in found[name].text
    assert found[name].text.endswith((".", "ab" * 32))
    if not report.is_established:
        assert {item.name for item in found.values() if item.kind == "problem"} == {name}, "one cause, one problem"
    else:
        assert all(item.kind != "problem" for item in found.values())


def test_every_rule_has_a_case() -> None:
    assert {name for name, _, _ in CASES} == set(RULES)


def test_buffers_that_are_large_or_unknown_are_no_reason_for_advice() -> None:
    for size in (4_194_304, 8_000_000, 0):
        assert advise(with_buffers(receive=size, send=size)) == advise(HEALTHY)


def test_an_unknown_failure_still_says_something() -> None:
    advice = advise(failed("socket", by="local"))
    assert [(item.kind, item.name, item.text) for item in advice] == [
        ("problem", "other_failure", "It failed: because.")
    ]


@pytest.mark.parametrize(
    ("host", "is_covered"),
    [
        ("example.org", True),
        ("EXAMPLE.org.", True),
        ("www.example.org", False),
        ("www.example.net", True),
        ("a.b.example.net", False),
        ("example.net", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
    ],
)
def test_names_are_compared_as_clients_do(host: str, is_covered: bool) -> None:
    names = {item.name for item in advise(replace(HEALTHY, host=host))}
    assert ("name_not_checked" not in names) is is_covered


def test_problems_come_first() -> None:
    report = failed("rejected", "request", status=404, report=with_settings(WT_ENABLED=None, ENABLE_WEBTRANSPORT=None))
    assert [item.kind for item in advise(report)] == ["problem", "others", "others"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, "firewall rule of this machine"),
        (errno.EACCES, "forbids it"),
        (errno.EMSGSIZE, "raise its MTU"),
        (errno.ENETUNREACH, "no route"),
        (errno.ENETDOWN, "interface is down"),
        (errno.ECONNREFUSED, "Nothing listens there"),
        (errno.EHOSTUNREACH, "Nothing listens there"),
        (None, "Nothing listens there"),
    ],
)
def test_an_address_that_cannot_be_reached_gets_advice_by_its_errno(number: int | None, words: str) -> None:
    one = AddressReport(ip="192.0.2.1", port=443, outcome="unreachable", errno=number)
    report = replace(failed("unreachable", by="transport"), addresses=(one,))
    (text,) = (advice.text for advice in advise(report) if advice.name == "port_unreachable")
    assert words in text
