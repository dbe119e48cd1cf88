"""What the system and the network say about packets that they do not deliver."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pickle
import socket
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.support.ports import free_port

if sys.platform != "linux":
    pytest.skip("only Linux says which packet an error of the network is about", allow_module_level=True)

import resource

import wtio
from wtio._connection.base import Connection
from wtio._connection.sockets import Sockets
from wtio._driver import Address
from wtio._driver.loop import LoopTransport
from wtio._options import EndpointOptions
from wtio.client import make_connector

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[wtio.WebTransportSession, wtio.WebTransportSession]

# Far above the time that a test may take: what waits for it fails.
NEVER = wtio.Timeouts(connect=3600, attempt_delay=3600)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")


@pytest.fixture
def closed() -> int:
    """A UDP port of 127.0.0.1 at which nobody listens."""
    return free_port()


@pytest.fixture
def silent() -> Iterator[int]:
    """A UDP port of 127.0.0.1 at which somebody listens and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        yield int(one.getsockname()[1])


class Hosts(LoopTransport):
    """Real sockets, and a host with these addresses."""

    def __init__(self, *ports: int) -> None:
        self._found = [Address("127.0.0.1", port, False) for port in ports]

    async def resolve(self, host: str | None, port: int, *, listening: bool = False) -> list[Address]:
        return list(self._found)


def own_sockets(transport: LoopTransport, io: str, timeouts: wtio.Timeouts = NEVER) -> Sockets:
    options = EndpointOptions(
        limits=wtio.Limits(), timeouts=timeouts, congestion="cubic", reset_stream_at=True, strict=False, io=io
    )
    return Sockets(transport, options)


def connector(
    transport: LoopTransport, io: str, certificate: wtio.DevCertificate, timeouts: wtio.Timeouts = NEVER
) -> wtio.client.Connector:
    return connector_with(own_sockets(transport, io, timeouts), certificate)


def connector_with(sockets: Sockets, certificate: wtio.DevCertificate) -> wtio.client.Connector:
    return make_connector(
        "https://localhost/",
        tls=certificate.client_tls(),
        headers=(),
        protocols=(),
        origin=None,
        sockets=sockets,
    )


async def test_where_nothing_listens_connect_fails_at_once_as_tcp_does(
    closed: int, certificate: wtio.DevCertificate, io: str
) -> None:
    with pytest.raises(ConnectionRefusedError, match="nothing listens") as caught:
        await wtio.connect(f"https://127.0.0.1:{closed}/", tls=certificate.client_tls(), timeouts=NEVER, io=io)
    error = caught.value
    assert isinstance(error, wtio.ConnectionRefused)
    assert error.errno == errno.ECONNREFUSED
    assert error.report is not None
    (address,) = error.report.addresses
    assert (address.outcome, address.errno) == ("unreachable", errno.ECONNREFUSED)
    assert error.report.end is not None
    end = error.report.end
    assert (end.cause, end.by, end.code, end.code_name) == (
        "unreachable",
        "transport",
        errno.ECONNREFUSED,
        "ECONNREFUSED",
    )
    error.__cause__ = error.report = None
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.errno) == (str(error), errno.ECONNREFUSED)


async def test_the_next_address_has_its_turn_as_soon_as_one_cannot_be_reached(
    server: wtio.Server, closed: int, certificate: wtio.DevCertificate, io: str
) -> None:
    good = server.addresses[0][1]
    connecting = asyncio.ensure_future(_await(connector(Hosts(closed, closed, good), io, certificate)))
    request = await anext(server)
    await request.accept()
    session = await connecting
    assert [address.outcome for address in session.report.addresses] == ["unreachable", "unreachable", "connected"]
    await session.close()


async def test_a_silent_address_keeps_its_head_start_while_others_cannot_be_reached(
    closed: int, silent: int, certificate: wtio.DevCertificate, io: str
) -> None:
    timeouts = wtio.Timeouts(connect=0.5, attempt_delay=0.05)
    with pytest.raises(wtio.HandshakeTimeout) as caught:
        await connector(Hosts(closed, silent), io, certificate, timeouts)
    message = str(caught.value)
    assert "nothing listens" in message
    assert "firewall" in message
    assert "1200 bytes" in message
    assert caught.value.report is not None
    assert [address.outcome for address in caught.value.report.addresses] == ["unreachable", "no answer"]


async def test_a_shared_socket_serves_on_after_an_error(
    server: wtio.Server, url: str, closed: int, certificate: wtio.DevCertificate, io: str
) -> None:
    async with wtio.Client(tls=certificate.client_tls(), timeouts=NEVER, io=io) as client:
        for _ in range(3):
            with pytest.raises(wtio.ConnectionRefused):
                await client.connect(f"https://127.0.0.1:{closed}/")
            connecting = asyncio.ensure_future(_await(client.connect(url)))
            request = await anext(server)
            far = await request.accept()
            near = await connecting
            with suppress(wtio.ConnectionRefused):
                await client.connect(f"https://127.0.0.1:{closed}/")
            far.send_datagram(b"still there")
            assert await near.receive_datagram() == b"still there"
            await near.close()


class Relay:
    """A port in front of a server that can close, and open again."""

    def __init__(self, server: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._back.connect(("127.0.0.1", server))
        self._client: tuple[str, int] | None = None
        self._front: socket.socket | None = None
        self.port = 0
        self.open()
        self._loop.add_reader(self._back, self._answer)

    def open(self) -> None:
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.setblocking(False)
        self._front.bind(("127.0.0.1", self.port))
        self.port = self._front.getsockname()[1]
        self._loop.add_reader(self._front, self._ask)

    def close(self) -> None:
        assert self._front is not None
        self._loop.remove_reader(self._front)
        self._front.close()
        self._front = None

    def end(self) -> None:
        self.close()
        self._loop.remove_reader(self._back)
        self._back.close()

    def _ask(self) -> None:
        assert self._front is not None
        data, self._client = self._front.recvfrom(65535)
        self._back.send(data)

    def _answer(self) -> None:
        data = self._back.recv(65535)
        if self._front is not None and self._client is not None:
            self._front.sendto(data, self._client)


async def test_an_icmp_error_never_ends_an_established_session(
    server: wtio.Server, certificate: wtio.DevCertificate, io: str
) -> None:
    relay = Relay(server.addresses[0][1])
    url = f"https://127.0.0.1:{relay.port}/"
    connecting = asyncio.ensure_future(_await(wtio.connect(url, tls=certificate.client_tls(), io=io)))
    await (await anext(server)).accept()
    session = await connecting
    relay.close()
    for _ in range(20):
        session.send_datagram(b"anybody there?")
        await asyncio.sleep(0.001)
    assert not session.is_closed
    relay.open()
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"hello", end_stream=True)
    try:
        await stream.wait_acked()
    finally:
        await session.close()
        relay.end()


@as_root
async def test_an_icmp_error_counts_only_for_the_ports_that_it_quotes(
    silent: int, closed: int, certificate: wtio.DevCertificate, io: str
) -> None:
    sockets = own_sockets(Hosts(silent), io)
    connecting = asyncio.ensure_future(_await(connector_with(sockets, certificate)))
    while not sockets.connections:  # noqa: ASYNC110 - no event reports a first packet
        await asyncio.sleep(0.01)
    (attempt,) = sockets.connections
    own = attempt.driver.local_address[1]
    for source, destination, ip in (
        (own, closed, "127.0.0.1"),
        (closed, silent, "127.0.0.1"),
        (own, silent, "127.0.0.2"),
    ):
        for kind, code in ((3, 3), (3, 1), (3, 0), (3, 13)):
            _forge(source, ip, destination, kind, code)
            await asyncio.sleep(0.02)
    # Too large is no end either: it may be about a packet of somebody else.
    _forge(own, "127.0.0.1", silent, 3, 4)
    await asyncio.sleep(0.05)
    assert not connecting.done()
    _forge(own, "127.0.0.1", silent, 3, 1)
    with pytest.raises(wtio.ConnectError) as caught:
        await connecting
    assert caught.value.errno == errno.EHOSTUNREACH


@as_root
async def test_packets_from_port_zero_change_nothing_for_others(pair: Pair, server: wtio.Server) -> None:
    session, far = pair
    ip, port = server.addresses[0]
    # Of a version that does not exist, which a server has to answer (RFC 9000, section 6).
    strange = (b"\xc0\x1a\x2a\x3a\x4a\x08" + bytes(8) + b"\x08" + bytes(8)).ljust(1200, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        for _ in range(1000):
            raw.sendto(struct.pack("!HHHH", 0, port, 8 + len(strange), 0) + strange, (ip, port))
            await asyncio.sleep(0)
    endpoint = server._drivers[0].endpoint
    before = far.stats().packets_sent
    stream = await far.create_unidirectional_stream()
    writing = asyncio.ensure_future(stream.write_all(data=bytes(1 << 20), end_stream=True))
    received = await anext(session.incoming_unidirectional_streams())
    assert len(await received.read_all()) == 1 << 20
    await writing
    assert endpoint.send_failures() == []
    if sys.platform == "linux":
        assert endpoint.stats().gso_segments > 1
        stats = connection_of(far).core.stats()
        assert stats.send_calls < (stats.packets_sent - before) / 2


@pytest.mark.parametrize("side", [0, 1])
async def test_a_panic_of_the_engine_ends_the_session_for_whoever_waits(
    pair: Pair, side: int, server: wtio.Server, caplog: pytest.LogCaptureFixture
) -> None:
    session = pair[side]
    stream = await session.create_bidirectional_stream()
    waiting = [
        asyncio.ensure_future(call)
        for call in (
            stream.read(),
            session.receive_datagram(),
            anext(session.incoming_bidirectional_streams()),
            session.wait_closed(),
        )
    ]
    await asyncio.sleep(0.01)
    with caplog.at_level(logging.CRITICAL, "asyncio"):
        connection_of(session).driver.endpoint.sabotage()
        session.send_datagram(b"into the void")
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, wtio.SessionClosed) for result in results[:2]), results
    assert session.is_closed
    assert session.close_info is not None
    assert "panicked" in session.close_info.reason
    with pytest.raises(wtio.SessionClosed):
        await session.create_bidirectional_stream()
    if side:
        with pytest.raises(RuntimeError, match="panicked"):
            await anext(server)
        with pytest.raises(RuntimeError, match="panicked"):
            await server.wait_closed()


async def test_without_a_file_descriptor_connect_says_so_and_works_again_later(
    server: wtio.Server, url: str, certificate: wtio.DevCertificate, io: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    await asyncio.sleep(0)
    tls = certificate.client_tls()
    connecting = wtio.connect(url, tls=tls, io=io)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(wtio.ConnectError) as caught:
            await connecting
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert caught.value.report is not None
    assert caught.value.report.addresses[0].errno == errno.EMFILE
    again = asyncio.ensure_future(_await(wtio.connect(url, tls=tls, io=io)))
    await (await anext(server)).accept()
    await (await again).close()


def connection_of(session: wtio.WebTransportSession) -> Connection:
    assert isinstance(session._link, Connection)
    return session._link


async def _await(connecting: wtio.client.Connector) -> wtio.WebTransportSession:
    return await connecting


def _forge(source: int, ip: str, destination: int, kind: int, code: int) -> None:
    """Send an ICMP error that quotes a UDP packet from 127.0.0.1 (RFC 792)."""
    quoted = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 1228, 1, 0x4000, 64, 17, 0, socket.inet_aton("127.0.0.1"), socket.inet_aton(ip)
    ) + struct.pack("!HHHH", source, destination, 1208, 0)
    # The size is for "fragmentation needed". The kernel believes it for ten minutes, so it is one that hurts nobody.
    body = struct.pack("!BBHI", kind, code, 0, 65_535) + quoted
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~(total + (total >> 16)) & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.sendto(body[:2] + struct.pack("!H", check) + body[4:], ("127.0.0.1", 0))
