"""``python -m wtio doctor``: connect, and say what works, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import sys
import textwrap
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import wtio
from wtio._url import parse_url
from wtio._words import describe_errno
from wtio.cli._advice import Advice, advise
from wtio.cli._options import add_connection_options, header_pairs, not_the_development_one, trust
from wtio.cli._probe import ProbeResult, has_tcp_server, probe
from wtio.cli._status import Status, status_of
from wtio.cli._terminal import columns_of, has_colour, visible
from wtio.cli._words import in_options
from wtio.report import HEADING_WIDTH, report_rows

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from wtio.cli._types import Subparsers
    from wtio.report import AddressReport, ConnectionReport

# Seconds to wait for an answer to the probe, for path MTU discovery, and for a connection to a port on which nothing
# listens, according to the network.
_PROBE_PATIENCE: Final = 1.0
_MTU_PATIENCE: Final = 1.0
_HOPELESS: Final = 1.0
_RESULT: Final = "result"
# What fills a screen and tells little to most: numbers that the advice has looked at.
_LONG: Final = ("we sent", "peer sent", "QUIC of peer", "UDP buffers")
_TCP_ONLY: Final = (
    "At TCP port {port} something does listen, a web server perhaps. WebTransport runs over UDP, and the port of its "
    "server may have another number."
)
_MESSAGE: Final = b"wtio doctor"
_KINDS: Final = {"problem": "problem", "others": "for others", "note": "note"}
_COLOURS: Final = {"problem": "31", "others": "33", "note": "36"}


@dataclass(frozen=True, slots=True)
class Check:
    """A test of an established session, and its result."""

    name: str
    worked: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Findings:
    """What connecting once has shown."""

    report: ConnectionReport
    checks: list[Check]
    status: Status
    has_tcp: bool
    """Whether a TCP server listens at the port, though nothing answered over UDP."""


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "doctor",
        help="find out why a connection fails, here or for others",
        description="Connect to a server, print all that is known of the connection, and give advice: why it fails, "
        "which browsers and libraries would fail, and what to change. The exit status is 0 if a session came about, "
        "and otherwise the one that `connect` would have.",
    )
    parser.add_argument("url", help="such as https://localhost:4433/")
    add_connection_options(parser)
    parser.add_argument(
        "--echo", action="store_true", help="also send a stream and a datagram and expect them back, as `serve` does"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="also print every HTTP/3 setting of both sides and the peer's transport parameters",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with everything instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine the server, print the result, and return 0 if there was a session."""
    found = asyncio.run(_examine(options))
    report = found.report
    words = not_the_development_one(options, report)
    advice = [
        replace(item, text=words[0].upper() + words[1:]) if words is not None and item.name == "wrong_hash" else item
        for item in advise(report)
    ]
    if found.has_tcp:
        advice.insert(1, Advice("problem", "tcp_only", _TCP_ONLY.format(port=report.addresses[0].port)))
    if options.json:
        facts = {
            "report": report.as_dict(),
            "checks": [asdict(check) for check in found.checks],
            "advice": [asdict(item) for item in advice],
        }
        print(json.dumps(facts, indent=2))
    else:
        _print(report, found.checks, advice, is_whole=options.all)
    return found.status


# -- examining


async def _examine(options: argparse.Namespace) -> _Findings:
    target = parse_url(options.url)
    tls = trust(options)
    probes = await _probe_all(target.where, target.port)
    hopeless = bool(probes) and all(result.outcome == "unreachable" for result in probes.values())
    connector = wtio.connect(
        options.url,
        tls=tls,
        headers=header_pairs(options.header),
        protocols=options.protocol,
        origin=options.origin,
        timeouts=wtio.Timeouts(connect=min(options.timeout, _HOPELESS) if hopeless else options.timeout),
    )
    checks: list[Check] = []
    status, has_tcp = Status.OK, False
    try:
        async with connector as session:
            if options.echo:
                checks = [await _try_stream(session, options.timeout), await _try_datagram(session, options.timeout)]
            # Path MTU discovery needs a few round trips. If the session ends early, the report shows it.
            patience = min(_MTU_PATIENCE, max(20 * session.stats().rtt, 0.1))
            await asyncio.wait((asyncio.ensure_future(session.wait_closed()),), timeout=patience)
            report = session.report
    except wtio.ConnectError as error:
        if error.report is None:
            raise
        report, status = error.report, status_of(error)
        if probes and all(result.outcome in ("silent", "unreachable") for result in probes.values()):
            has_tcp = any(await asyncio.gather(*(has_tcp_server(ip, target.port, _HOPELESS) for ip in probes)))
    # The library's report leaves the query out. Here the user has typed it, so it is shown.
    report = replace(report, url=options.url, addresses=_merge(report.addresses, probes))
    return _Findings(report, checks, status, has_tcp)


async def _probe_all(host: str, port: int) -> dict[str, ProbeResult]:
    """Probe all addresses of the host at once. If it has none, connecting will report that."""
    loop = asyncio.get_running_loop()
    try:
        ips = [ipaddress.ip_address(host).compressed]
    except ValueError:
        try:
            found = await loop.getaddrinfo(host, port)
        except OSError:
            return {}
        ips = list(dict.fromkeys(str(where[0]) for *_, where in found))
    return dict(zip(ips, await asyncio.gather(*(probe(ip, port, _PROBE_PATIENCE) for ip in ips)), strict=True))


def _merge(addresses: Iterable[AddressReport], probes: dict[str, ProbeResult]) -> tuple[AddressReport, ...]:
    """Complete the outcomes of connecting with those of the probes."""
    merged = []
    for address in addresses:
        result = probes.get(address.ip)
        if result is not None and address.outcome in ("no answer", "given up", "not tried"):
            address = _complete(address, result)
        merged.append(address)
    return tuple(merged)


def _complete(address: AddressReport, result: ProbeResult) -> AddressReport:
    match result.outcome:
        case "unreachable":
            return replace(address, outcome="unreachable", detail=result.detail)
        case "other":
            return replace(address, outcome="not QUIC", detail="something answers, but not as QUIC servers do")
        case "silent":
            return replace(address, outcome="no answer", detail="")
    versions = ", ".join(f"0x{version:x}" for version in result.versions if not _is_reserved(version))
    return replace(address, detail=f"a QUIC server answers there (versions {versions})")


def _is_reserved(version: int) -> bool:
    # RFC 9000, section 15: reserved versions.
    return version & 0x0F0F0F0F == 0x0A0A0A0A


async def _try_stream(session: wtio.WebTransportSession, patience: float) -> Check:
    name = "stream"
    try:
        async with asyncio.timeout(patience):
            stream = await session.create_bidirectional_stream()
            await stream.write(data=_MESSAGE, end_stream=True)
            answer = await stream.read_all()
    except TimeoutError:
        return Check(name, False, f"no answer within {patience:g} s")
    except wtio.WebTransportError as error:
        return Check(name, False, str(error))
    if answer != _MESSAGE:
        return Check(name, False, f"{len(answer)} other bytes came back; this server answers, but is no echo server")
    return Check(name, True, "came back")


async def _try_datagram(session: wtio.WebTransportSession, patience: float) -> Check:
    name = "datagram"
    try:
        async with asyncio.timeout(patience):
            session.send_datagram(_MESSAGE)
            while await session.receive_datagram() != _MESSAGE:
                pass
    except TimeoutError:
        return Check(name, False, f"it did not come back within {patience:g} s (datagrams may get lost)")
    except wtio.WebTransportError as error:
        return Check(name, False, str(error))
    return Check(name, True, "came back")


# -- printing


def _print(report: ConnectionReport, checks: list[Check], advice: list[Advice], *, is_whole: bool) -> None:
    is_terminal = sys.stdout.isatty()
    in_colour = has_colour(sys.stdout)
    width = max(columns_of(sys.stdout), HEADING_WIDTH + 20) if is_terminal else 0

    def line(heading: str, text: str, colour: str) -> None:
        for position, part in enumerate(_wrapped(visible(in_options(text)), width - HEADING_WIDTH)):
            head = f"{'' if position else heading:<{HEADING_WIDTH}}"
            print((f"\x1b[{colour}m{head}\x1b[0m" if in_colour and head.strip() else head) + part)

    rows = list(report_rows(_without_advice(report) if is_whole else _shortened(_without_advice(report))))
    block = ""
    for heading, text in rows:
        block = heading or block
        # Once, at the end, where it is seen: the top of a long report has left the screen.
        if block != _RESULT and (is_whole or block not in _LONG):
            line(heading, text, "1")
    if not is_whole and any(heading in _LONG for heading, _ in rows):
        line("more", "--all prints the settings of both sides, the peer's transport parameters, and UDP buffers", "1")
    for check in checks:
        line(check.name, f"{'ok' if check.worked else 'failed'}: {check.detail}", "1")
    print()
    if not advice:
        print("Nothing to advise: every known client should be able to connect.")
    for item in advice:
        line(_KINDS[item.kind], item.text, _COLOURS[item.kind])
    print()
    line(_RESULT, dict(rows)[_RESULT], "1")


def _without_advice(report: ConnectionReport) -> ConnectionReport:
    """Of addresses, only what the system says of them; what that means is in the advice."""
    addresses, end = [], report.end
    if end is not None and end.cause == "lookup":
        end = replace(end, reason=re.sub(r"^no address for host .*: \[Errno -?\d+\] ", "", end.reason))
    for address in report.addresses:
        if address.outcome == "unreachable" and address.errno is not None:
            if end is not None and end.reason == address.detail:
                end = replace(end, reason="")
            address = replace(address, detail=describe_errno(address.errno))
        addresses.append(address)
    return replace(report, addresses=tuple(addresses), end=end)


def _shortened(report: ConnectionReport) -> ConnectionReport:
    """Without the hashes that were expected, if the certificate, which is shown, has one of them."""
    if report.tls is None or not report.tls.hash_matches:
        return report
    return replace(report, tls=replace(report.tls, expected_hashes=()))


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap lines for a terminal; lines for a file or pipe are not wrapped."""
    return textwrap.wrap(text, width, break_on_hyphens=False) if width > 0 else [text]
