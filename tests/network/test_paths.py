"""Routes, firewalls and links, over network namespaces of our own."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from .lab import NOWHERE, SERVERS, Lab, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .lab import Peer

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(params=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["loop", "thread"])
def io(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def url(ip: str) -> str:
    return f"https://[{ip}]:4433/" if ":" in ip else f"https://{ip}:4433/"


def client(lab: Lab, directory: Path, ip: str, io: str = "loop") -> tuple[Peer, dict[str, Any]]:
    """Connect, and what came of it."""
    peer = lab.start(lab.client, "connect", str(directory), url(ip), io)
    return peer, json.loads(peer.line())


def ask(peer: Peer, line: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(peer.ask(line))
    return result


def route(lab: Lab, family: str, words: str) -> None:
    run(f"ip -n {lab.client} {'-6 ' if family == 'ipv6' else ''}route {words}")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("none", "ENETUNREACH"), ("unreachable", "EHOSTUNREACH"), ("prohibit", "EACCES"), ("blackhole", "EINVAL")],
)
def test_what_this_machine_cannot_send_ends_the_attempt_with_its_errno(
    lab: Lab, tmp_path: Path, family: str, kind: str, name: str
) -> None:
    if kind == "none":
        route(lab, family, "del default")
    else:
        route(lab, family, f"add {kind} {SERVERS[family]}")
    _, found = client(lab, tmp_path, SERVERS[family])
    assert (found["error"], found["errno"], found["outcomes"]) == ("ConnectError", name, ["unreachable"])


def test_what_a_router_cannot_deliver_ends_the_attempt_with_its_errno(
    lab: Lab, tmp_path: Path, family: str, io: str
) -> None:
    _, found = client(lab, tmp_path, NOWHERE[family], io)
    assert found["error"] == "ConnectError"
    assert found["errno"] in ("EHOSTUNREACH", "ENETUNREACH", "EACCES")
    assert "the network answers" in found["message"]


def test_a_link_that_is_too_narrow_for_quic_ends_the_attempt_and_says_so(lab: Lab, tmp_path: Path) -> None:
    # IPv6 knows no such links (RFC 8200, section 5).
    run(f"ip -n {lab.client} link set first mtu 1220")
    _, found = client(lab, tmp_path, SERVERS["ipv4"])
    assert (found["error"], found["errno"]) == ("ConnectError", "EMSGSIZE")
    assert "1200 bytes" in found["message"]


def test_a_fault_of_sending_is_counted_and_logged_once_and_gets_over(
    lab: Lab, tmp_path: Path, family: str, io: str
) -> None:
    lab.serve(tmp_path)
    peer, found = client(lab, tmp_path, SERVERS[family], io)
    assert found["error"] is None
    assert ask(peer, "echo 100000")["same"]
    route(lab, family, f"add prohibit {SERVERS[family]}")
    ask(peer, "spray 100")
    facts = ask(peer, "facts")
    assert facts["failures"]["EACCES"] >= 50
    assert len(facts["records"]) == 1
    assert "EACCES" in facts["records"][0]
    assert not facts["closed"]
    route(lab, family, f"del prohibit {SERVERS[family]}")
    assert ask(peer, "echo 300000")["same"]
    facts = ask(peer, "facts")
    assert len(facts["records"]) == 1
    assert facts["gso"] > 1


@pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables")
def test_a_firewall_rule_of_this_machine_is_named_and_gets_over(lab: Lab, tmp_path: Path) -> None:
    lab.serve(tmp_path)
    peer, found = client(lab, tmp_path, SERVERS["ipv4"])
    assert found["error"] is None
    rule = "OUTPUT -p udp --dport 4433 -j DROP"
    lab.within(lab.client, f"iptables -A {rule}")
    ask(peer, "spray 100")
    facts = ask(peer, "facts")
    assert facts["failures"]["EPERM"] >= 50
    assert len(facts["records"]) == 1
    assert "firewall" in facts["records"][0]
    _, found = client(lab, tmp_path, SERVERS["ipv4"])
    assert (found["error"], found["errno"]) == ("ConnectError", "EPERM")
    lab.within(lab.client, f"iptables -D {rule}")
    assert ask(peer, "echo 300000")["same"]


@pytest.mark.parametrize("change", ["route", "address gone", "link down"])
def test_a_session_goes_on_when_the_network_of_its_client_changes(
    lab: Lab, tmp_path: Path, family: str, change: str, io: str
) -> None:
    lab.serve(tmp_path)
    peer, found = client(lab, tmp_path, SERVERS[family], io)
    assert found["error"] is None
    assert ask(peer, "echo 100000")["same"]
    lab.second_uplink(family, with_first=change)
    assert ask(peer, "echo 1000")["same"]
    assert ask(peer, "echo 1000000")["same"]
    facts = ask(peer, "facts")
    assert facts["gso"] > 1


@pytest.mark.parametrize("change", ["link down", "address gone"])
def test_a_session_goes_on_when_its_client_had_no_network_for_a_while(
    lab: Lab, tmp_path: Path, family: str, change: str
) -> None:
    lab.serve(tmp_path)
    peer, found = client(lab, tmp_path, SERVERS[family])
    assert found["error"] is None
    assert ask(peer, "echo 100000")["same"]
    lab.without_network(family, change)
    # It is sent in vain, as there is no route. Roaming takes seconds in which there is none.
    peer.send_line("echo 100000")
    time.sleep(3)
    lab.second_uplink(family)
    answer = json.loads(peer.line())
    assert answer["same"]
    assert ask(peer, "echo 1000000")["same"]
    failures = ask(peer, "facts")["failures"]
    assert failures.get("ENETUNREACH", 0) > 0, failures


def test_an_address_of_the_server_that_goes_costs_others_nothing(lab: Lab, tmp_path: Path, family: str) -> None:
    # Answers go from the address that was asked, and the system refuses one that is not its own any more.
    extra = {"ipv4": "10.9.3.9", "ipv6": "fd09:3::9"}[family]
    size = {"ipv4": 24, "ipv6": 64}[family]
    run(f"ip -n {lab.server} addr add {extra}/{size} dev eth{' nodad' if family == 'ipv6' else ''}")
    server = lab.serve(tmp_path)
    first, found = client(lab, tmp_path, extra)
    assert found["error"] is None
    assert ask(first, "echo 100000")["same"]
    second, found = client(lab, tmp_path, SERVERS[family])
    assert found["error"] is None
    first.send_line("echo 10000000")
    assert ask(second, "echo 1000000")["same"]
    run(f"ip -n {lab.server} addr del {extra}/{size} dev eth")
    facts: dict[str, Any] = {"failures": {}}
    while not facts["failures"]:
        assert ask(second, "echo 100000")["same"]
        facts = ask(server, "facts")
    assert facts["gso"] > 1


def test_a_session_goes_on_over_a_second_uplink_with_a_smaller_mtu(lab: Lab, tmp_path: Path, family: str) -> None:
    lab.serve(tmp_path)
    peer, found = client(lab, tmp_path, SERVERS[family])
    assert found["error"] is None
    assert ask(peer, "echo 1000000")["mtu"] > 1400
    for name, device in ((lab.client, "second"), (lab.router, "rsecond")):
        run(f"ip -n {name} link set {device} mtu 1300")
    lab.second_uplink(family)
    assert ask(peer, "echo 1000000")["same"]
    assert ask(peer, "echo 100000")["mtu"] < 1300
