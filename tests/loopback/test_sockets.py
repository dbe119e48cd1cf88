"""Sockets that the application gives to a server, and addresses that a client is to send from."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.ports import free_port

import wtio
from wtio._driver import Address
from wtio._driver.loop import LoopTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Becomes a process to which systemd has passed sockets: which there are, and what the variables say.
ACTIVATE = """
import os, socket, sys
program, kinds, names, pid = sys.argv[1:5]
opened = []
for kind in kinds.split():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    opened.append(s)
print(*(s.getsockname()[1] for s in opened), flush=True)
# Moved away first, for they may have these numbers already.
moved = [os.dup2(s.fileno(), 100 + index) for index, s in enumerate(opened)]
for index, descriptor in enumerate(moved):
    os.dup2(descriptor, 3 + index)
os.environ |= {"LISTEN_FDS": str(len(opened)), "LISTEN_FDNAMES": names, "LISTEN_PID": pid or str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-c", program, *sys.argv[5:]])
"""
SERVE = """
import select, sys
# Not before the first packet of a client is in the first passed socket.
select.select([3], [], [])
import wtio

async def echo(session):
    async for stream in session.incoming_bidirectional_streams():
        await stream.write(data=await stream.read_all(), end_stream=True)

tls = wtio.dev_certificate(directory=sys.argv[1]).server_tls()
wtio.run(wtio.serve(echo, tls=tls, sock=wtio.systemd_sockets()))
"""
SHOW = """
import os, wtio
for name in (None, "quic", "other"):
    sockets = wtio.systemd_sockets(name)
    again = wtio.systemd_sockets(name)
    print(*(s.getsockname()[1] for s in sockets), os.get_inheritable(3) if sockets else "", flush=True)
    assert [s.getsockname() for s in sockets] == [s.getsockname() for s in again]
    for s in sockets + again:
        s.close()
"""


NOT_ON_WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="sockets have no file descriptors on Windows")
WAYS = ["sock", pytest.param("fd", marks=NOT_ON_WINDOWS)]


async def echo(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        await stream.write(data=await stream.read_all(), end_stream=True)


def bound(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def url_of(address: tuple[str, int]) -> str:
    ip, port = address
    return f"https://[{ip}]:{port}/" if ":" in ip else f"https://{ip}:{port}/"


@pytest.fixture
def certificate(tmp_path: Path) -> wtio.DevCertificate:
    return wtio.dev_certificate(directory=tmp_path)


async def check_echo(url: str, certificate: wtio.DevCertificate, **options: Any) -> None:
    async with wtio.connect(url, tls=certificate.client_tls(), **options) as session:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=b"hello", end_stream=True)
        assert await stream.read_all() == b"hello"


# -- servers


@pytest.mark.parametrize("way", WAYS)
async def test_a_given_socket_serves_and_stays_the_callers(certificate: wtio.DevCertificate, io: str, way: str) -> None:
    with bound() as sock:
        given: dict[str, Any] = {way: sock if way == "sock" else sock.fileno()}
        sock.settimeout(5)
        for _ in range(2):
            async with wtio.serve(echo, tls=certificate.server_tls(), io=io, **given) as server:
                assert server.addresses == [sock.getsockname()]
                await check_echo(url_of(server.addresses[0]), certificate)
            # Still open, still bound.
            with bound() as other:
                other.sendto(b"to the caller", sock.getsockname())
            while not (await asyncio.to_thread(sock.recv, 2000)).startswith(b"to the caller"):
                pass


async def test_several_sockets_have_ports_of_their_own(certificate: wtio.DevCertificate) -> None:
    with bound() as first, bound("::1") as second, bound() as third:
        async with wtio.serve(echo, tls=certificate.server_tls(), sock=[first, second, third]) as server:
            assert server.addresses == [sock.getsockname()[:2] for sock in (first, second, third)]
            for address in server.addresses:
                await check_echo(url_of(address), certificate)


async def test_a_socket_that_is_closed_before_the_start_is_an_error_of_the_start(
    certificate: wtio.DevCertificate,
) -> None:
    sock = bound()
    server = wtio.serve(echo, tls=certificate.server_tls(), sock=sock)
    sock.close()
    with pytest.raises(OSError, match="10038" if sys.platform == "win32" else "Bad file descriptor"):
        await server


@contextlib.contextmanager
def unusable(kind: str) -> Iterator[socket.socket]:
    if kind == "unix":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            yield sock
    elif kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as sock:
            yield sock
    elif kind == "unbound":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            yield sock
    elif kind == "connected":
        with bound() as peer, bound() as sock:
            sock.connect(peer.getsockname())
            yield sock
    else:
        sock = bound()
        sock.close()
        yield sock


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("tcp", "no UDP socket"),
        pytest.param("unix", "no UDP socket", marks=NOT_ON_WINDOWS),
        ("unbound", "not bound"),
        ("connected", "is connected to"),
        ("closed", "closed"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_bound_udp_socket_is_refused_at_once(
    certificate: wtio.DevCertificate, way: str, kind: str, words: str
) -> None:
    with unusable(kind) as sock:
        descriptor = sock.fileno()
        given: dict[str, Any] = {way: sock if way == "sock" else (descriptor if descriptor >= 0 else 10**6)}
        with pytest.raises(ValueError, match=f"(?s){way}.*{words}"):
            wtio.serve(echo, tls=certificate.server_tls(), **given)
        if descriptor >= 0:
            # Looking at it has not closed it.
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)


def test_contradictions_are_refused_at_once(certificate: wtio.DevCertificate) -> None:
    tls = certificate.server_tls()
    with bound() as sock:
        for arguments, words in (
            ({"sock": sock, "host": "localhost"}, "sock and host"),
            ({"sock": sock, "port": 4433}, "sock and port"),
            ({"fd": sock.fileno(), "host": ""}, "fd and host"),
            ({"sock": sock, "fd": sock.fileno()}, "sock and fd"),
            ({"sock": [sock, sock]}, "twice"),
            ({"sock": []}, "sock is empty"),
        ):
            with pytest.raises(ValueError, match=words):
                wtio.serve(echo, tls=tls, **arguments)


# -- systemd


@contextlib.asynccontextmanager
async def activated(program: str, kinds: str, names: str, pid: str, *arguments: str) -> Any:
    """A process with passed sockets, and their ports."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ACTIVATE, program, kinds, names, pid, *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().split()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@NOT_ON_WINDOWS
async def test_clients_that_come_before_the_server_has_started_wait_at_the_socket_of_systemd(
    certificate: wtio.DevCertificate, tmp_path: Path
) -> None:
    # On a machine with much to do, an interpreter that loads wtio and serves takes longer than the default of 10 s.
    patient = wtio.Timeouts(connect=50)
    async with activated(SERVE, "udp", "", "", str(tmp_path)) as (_, ports):
        await check_echo(f"https://127.0.0.1:{ports[0]}/", certificate, timeouts=patient)


@NOT_ON_WINDOWS
@pytest.mark.parametrize(
    ("kinds", "names", "pid", "expected"),
    [
        ("udp tcp udp", "quic:web:other", "", [[0, 2], [0], [2]]),
        ("udp", "", "", [[0], [], []]),
        ("udp", "quic", "1", [[], [], []]),
        ("tcp", "quic", "", [[], [], []]),
    ],
)
async def test_the_sockets_of_systemd_are_found_by_their_names(
    kinds: str, names: str, pid: str, expected: list[list[int]]
) -> None:
    async with activated(SHOW, kinds, names, pid) as (process, ports):
        output = (await process.stdout.read()).decode().splitlines()
        assert await process.wait() == 0
    found = [line.split() for line in output]
    # Those that are passed are not inherited by children.
    assert found == [[*(ports[index] for index in indices), *["False"] * bool(indices)] for indices in expected]


@NOT_ON_WINDOWS
@pytest.mark.parametrize(("count", "words"), [("three", "LISTEN_FDS is 'three'"), ("100000", "LISTEN_FDS promises")])
def test_variables_of_systemd_that_make_no_sense_are_named(
    monkeypatch: pytest.MonkeyPatch, count: str, words: str
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setattr("wtio._sockets._FIRST_PASSED", 10**6)
    with pytest.raises(ValueError, match=words):
        wtio.systemd_sockets()
    monkeypatch.delenv("LISTEN_PID")
    assert wtio.systemd_sockets() == []


# -- clients


Seen = list[tuple[str, int]]


@contextlib.asynccontextmanager
async def watched(certificate: wtio.DevCertificate, host: str) -> Any:
    """A server, and the addresses of its clients."""
    seen: Seen = []

    async def handler(session: wtio.WebTransportSession) -> None:
        seen.append(session.remote_address)
        await echo(session)

    async with wtio.serve(handler, host, 0, tls=certificate.server_tls()) as server:
        yield url_of(server.addresses[0]), seen


@pytest.mark.parametrize("has_port", [False, True])
async def test_a_client_sends_from_its_local_address(certificate: wtio.DevCertificate, io: str, has_port: bool) -> None:
    port = free_port() if has_port else 0
    async with watched(certificate, "127.0.0.1") as (url, seen):
        await check_echo(url, certificate, local_addr=("127.0.0.2", port), io=io)
        async with (
            wtio.Client(tls=certificate.client_tls(), local_addr=("127.0.0.3", port), io=io) as client,
            client.connect(url),
            client.connect(url),
        ):
            pass
    assert [ip for ip, _ in seen] == ["127.0.0.2", "127.0.0.3", "127.0.0.3"]
    if has_port:
        assert [theirs for _, theirs in seen] == [port] * 3


async def test_the_zone_of_an_address_is_kept() -> None:
    index, name = socket.if_nameindex()[0]
    for zone in (str(index), *([] if sys.platform == "win32" else [name])):
        addresses = await LoopTransport().resolve(f"fe80::1%{zone}", 443)
        assert addresses == [Address(f"fe80::1%{index}", 443, True)]
    with pytest.raises(socket.gaierror):
        await LoopTransport().resolve("fe80::1%nowhere", 443)


async def test_a_client_with_a_port_of_its_own_connects_again_at_once(certificate: wtio.DevCertificate) -> None:
    port = free_port()
    async with watched(certificate, "127.0.0.1") as (url, seen):
        count = 0
        timeouts = wtio.Timeouts(reconnect=0.001)
        local = ("127.0.0.1", port)
        async for _ in wtio.connect(url, tls=certificate.client_tls(), local_addr=local, timeouts=timeouts):
            count += 1
            if count == 3:
                break
    assert [theirs for _, theirs in seen] == [port] * 3


@pytest.mark.parametrize(
    ("local", "number", "words"),
    [
        (("::1", 0), errno.EAFNOSUPPORT, "local_addr ::1 is an IPv6 address, so nothing can be sent to IPv4"),
        (("192.0.2.1", 0), errno.EADDRNOTAVAIL, "cannot send from 192.0.2.1 port 0 \\(local_addr\\)"),
        (("fe80::1%nowhere", 0), None, "local_addr"),
    ],
)
async def test_a_local_address_that_cannot_be_used_is_named(
    certificate: wtio.DevCertificate, local: tuple[str, int], number: int | None, words: str
) -> None:
    host = "::1" if "%" in local[0] else "127.0.0.1"
    async with watched(certificate, host) as (url, seen):
        with pytest.raises(wtio.ConnectError, match=words) as caught:
            await wtio.connect(url, tls=certificate.client_tls(), local_addr=local)
        if number is not None:
            assert caught.value.errno == number
        assert not seen


async def test_only_addresses_of_the_family_of_the_local_one_are_used(
    certificate: wtio.DevCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(transport: object, host: str, port: int, **_: object) -> list[Address]:
        ips = [host] if host != "localhost" else ["::1", "127.0.0.1"]
        return [Address(ip, port, ":" in ip) for ip in ips]

    # What the name stands for depends on the machine.
    monkeypatch.setattr(LoopTransport, "resolve", resolve)
    async with wtio.serve(echo, ["127.0.0.1", "::1"], 0, tls=certificate.server_tls()) as server:
        url = f"https://localhost:{server.addresses[0][1]}/"
        for ip in ("127.0.0.1", "::1"):
            async with wtio.connect(url, tls=certificate.client_tls(), local_addr=(ip, 0)) as session:
                assert session.remote_address[0] == ip


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: ("127.0.0.1",), TypeError),
        (lambda: ["127.0.0.1", 0], TypeError),
        (lambda: ("localhost", 0), ValueError),
        (lambda: ("127.0.0.1", 65_536), ValueError),
        (lambda: (5, 0), TypeError),
    ],
)
def test_a_local_address_that_is_none_is_refused_at_once(call: Callable[[], Any], error: type[Exception]) -> None:
    for make in (wtio.Client, lambda **named: wtio.connect("https://localhost/", **named)):
        with pytest.raises(error, match="local_addr"):
            make(local_addr=call())
