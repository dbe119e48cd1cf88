"""What others do wrong: each mistake gives one clear error, in bounded time, and the server lives on."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as quic_serve
from aioquic.h3.connection import H3_ALPN
from aioquic.h3.connection import H3Connection as PeerH3
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from tests.support.ports import free_port

import wtio

from .support import opened, outcome, port_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from aioquic.quic.events import QuicEvent

    from wtio import DevCertificate, Server, WebTransportSession

SHORT = wtio.Timeouts(connect=1.0)


async def echo(session: WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        await stream.write_all(data=await stream.read_all(), end_stream=True)


@pytest.fixture
async def server(certificate: DevCertificate) -> AsyncIterator[Server]:
    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        yield server


async def assert_alive(server: Server, certificate: DevCertificate) -> None:
    """The server still serves."""
    async with wtio.connect(f"https://127.0.0.1:{port_of(server)}/", tls=certificate.client_tls()) as session:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=b"alive", end_stream=True)
        assert await stream.read_all() == b"alive"


async def failure(url: str, certificate: DevCertificate, timeouts: wtio.Timeouts = SHORT) -> wtio.ConnectError:
    """The error of connecting."""
    error = await outcome(opened(wtio.connect(url, tls=certificate.client_tls(), timeouts=timeouts)))
    assert isinstance(error, wtio.ConnectError), repr(error)
    return error


# -- the port


async def test_taken_port_is_named(server: Server, certificate: DevCertificate) -> None:
    port = port_of(server)
    with pytest.raises(OSError, match=rf"127\.0\.0\.1 port {port}.*another port") as caught:
        await wtio.serve(echo, "127.0.0.1", port, tls=certificate.server_tls())
    assert caught.value.errno == errno.EADDRINUSE
    await assert_alive(server, certificate)


async def test_foreign_address_is_named(certificate: DevCertificate) -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        await wtio.serve(echo, "192.0.2.1", 0, tls=certificate.server_tls())


async def test_unknown_host_is_named(certificate: DevCertificate) -> None:
    with pytest.raises(OSError, match=r"no-such-host\.invalid"):
        await wtio.serve(echo, "no-such-host.invalid", 0, tls=certificate.server_tls())
    error = await failure("https://no-such-host.invalid/", certificate, wtio.Timeouts())
    assert isinstance(error, wtio.NameResolutionError)
    assert error.host == "no-such-host.invalid"
    assert "no-such-host.invalid" in str(error)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_impossible_port_is_refused(certificate: DevCertificate, port: int) -> None:
    with pytest.raises(ValueError, match=str(port)):
        wtio.serve(echo, "127.0.0.1", port, tls=certificate.server_tls())


# -- URLs


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "scheme"),
        ("example.org", "scheme"),
        ("//example.org/", "scheme"),
        ("http://example.org/", "http"),
        ("wss://example.org/", "wss"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://:443/", "host"),
        ("https://example.org:0/", "port"),
        ("https://example.org:65536/", "(?i)port"),
        ("https://example.org:-1/", "(?i)port"),
        ("https://example.org:https/", "(?i)port"),
        ("https://user@example.org/", "user"),
        ("https://user:secret@example.org/", "user"),
        ("https://example.org/#part", "fragment"),
        ("https://example.org/#", "fragment"),
        ("https://[::1/", "IPv6"),
        ("https://[::g]/", "address"),
        ("https://[fe80::1%eth0]/", "zone"),
        ("https://[fe80::1%25]/", "zone"),
        ("https://[2001:db8::1%25eth0]/", "zone"),
        ("https://exa mple.org/", "space"),
        ("https://example.org/a b", "space"),
        ("https://example.org/\n", "control"),
        ("https://" + "x" * 64 + ".org/", "name"),
        ("https://" + "x." * 130 + "org/", "name"),
        ("https://example..org/", "name"),
    ],
)
@pytest.mark.trap("H18")
def test_malformed_url_is_refused_at_once(url: str, words: str) -> None:
    with pytest.raises(wtio.InvalidURLError, match=words) as caught:
        wtio.connect(url)
    assert caught.value.url == url
    assert isinstance(caught.value, ValueError)
    assert "https://host" in str(caught.value)


@pytest.mark.parametrize("url", [None, b"https://example.org/", 5])
def test_url_that_is_no_text_is_refused(url: object) -> None:
    with pytest.raises(TypeError, match="url"):
        wtio.connect(url)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "/", "/a/b?c=d&e", "?only=query", "/%C3%A4", "/ä?ö"])
@pytest.mark.trap("H18")
async def test_unusual_but_correct_urls(server: Server, certificate: DevCertificate, path: str) -> None:
    async with wtio.connect(f"https://127.0.0.1:{port_of(server)}{path}", tls=certificate.client_tls()) as session:
        assert session.path.startswith("/")
        assert session.path.isascii()


# -- peers that are nobody


async def test_closed_port(certificate: DevCertificate) -> None:
    port = free_port()
    error = await failure(f"https://127.0.0.1:{port}/", certificate)
    assert str(port) in str(error)


async def test_port_that_never_answers(certificate: DevCertificate) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        error = await failure(f"https://127.0.0.1:{port}/", certificate)
    assert isinstance(error, wtio.HandshakeTimeout)
    assert isinstance(error, TimeoutError)
    assert error.timeout == SHORT.connect
    assert str(port) in str(error)
    assert "Timeouts.connect" in str(error)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(1200), b"\xff" * 100])
async def test_port_that_answers_nonsense(certificate: DevCertificate, answer: bytes) -> None:
    class Nonsense(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            self.transport.sendto(answer, address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Nonsense, local_addr=("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        error = await failure(f"https://127.0.0.1:{port}/", certificate)
        assert str(port) in str(error)
    finally:
        transport.close()


async def test_cancelled_connect_leaves_nothing_behind(certificate: DevCertificate) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        for _ in range(5):
            with pytest.raises(TimeoutError) as caught:
                await asyncio.wait_for(opened(wtio.connect(url, tls=certificate.client_tls())), 0.02)
            assert not isinstance(caught.value, wtio.HandshakeTimeout)


# -- peers that are no WebTransport servers


class WithoutWebTransport(QuicConnectionProtocol):
    """An HTTP/3 server that has never heard of WebTransport."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._http = PeerH3(self._quic)

    def quic_event_received(self, event: QuicEvent) -> None:
        for happened in self._http.handle_event(event):
            if isinstance(happened, HeadersReceived):
                self._http.send_headers(happened.stream_id, [(b":status", b"404")], end_stream=True)


class WithoutSettings(QuicConnectionProtocol):
    """Speaks QUIC with HTTP/3's name, and then nothing."""

    def quic_event_received(self, event: QuicEvent) -> None:
        pass


class WithGarbage(QuicConnectionProtocol):
    """Sends a control stream of garbage."""

    def quic_event_received(self, event: QuicEvent) -> None:
        if type(event).__name__ == "HandshakeCompleted":
            number = self._quic.get_next_available_stream_id(is_unidirectional=True)
            self._quic.send_stream_data(number, b"\x00" + b"\x01\x02\x03\xff" * 10)
            self.transmit()


class ThatLeaves(QuicConnectionProtocol):
    """Closes as soon as it can."""

    def quic_event_received(self, event: QuicEvent) -> None:
        if type(event).__name__ == "HandshakeCompleted":
            self._quic.close(error_code=0x107, reason_phrase="go away")
            self.transmit()


@asynccontextmanager
async def peer(
    certificate: DevCertificate, protocol: type[QuicConnectionProtocol], alpn: list[str] = H3_ALPN, **options: object
) -> AsyncIterator[str]:
    configuration = QuicConfiguration(alpn_protocols=alpn, is_client=False, **options)  # type: ignore[arg-type]
    configuration.load_cert_chain(certificate.certfile, certificate.keyfile)
    server = await quic_serve("127.0.0.1", 0, configuration=configuration, create_protocol=protocol)
    try:
        assert server._transport is not None
        yield f"https://127.0.0.1:{server._transport.get_extra_info('sockname')[1]}/"
    finally:
        server.close()


async def test_http3_server_without_webtransport(certificate: DevCertificate) -> None:
    async with peer(certificate, WithoutWebTransport) as url:
        error = await failure(url, certificate, wtio.Timeouts())
    assert isinstance(error, wtio.RequirementsNotMetError)
    assert error.missing
    assert "not WebTransport" in str(error)


@pytest.mark.trap("D6")
async def test_http3_server_without_datagrams(certificate: DevCertificate) -> None:
    async with peer(certificate, WithoutWebTransport, max_datagram_frame_size=None) as url:
        error = await failure(url, certificate, wtio.Timeouts())
    assert isinstance(error, wtio.RequirementsNotMetError)


async def test_http3_server_without_settings(certificate: DevCertificate) -> None:
    async with peer(certificate, WithoutSettings) as url:
        error = await failure(url, certificate)
    assert isinstance(error, wtio.HandshakeTimeout)
    assert "SETTINGS" in str(error)


async def test_server_of_another_protocol(certificate: DevCertificate) -> None:
    async with peer(certificate, WithoutSettings, alpn=["hq-interop"]) as url:
        error = await failure(url, certificate, wtio.Timeouts())
    assert isinstance(error, wtio.RequirementsNotMetError)
    assert "HTTP/3" in str(error)


async def test_server_with_a_garbled_control_stream(certificate: DevCertificate) -> None:
    async with peer(certificate, WithGarbage) as url:
        error = await failure(url, certificate, wtio.Timeouts())
    assert isinstance(error.__cause__, wtio.RemoteProtocolError)
    assert error.__cause__.error_code >= 0x100


async def test_server_that_closes_at_once(certificate: DevCertificate) -> None:
    async with peer(certificate, ThatLeaves) as url:
        error = await failure(url, certificate, wtio.Timeouts())
    assert "go away" in str(error)
    assert "H3_EXCESSIVE_LOAD" in str(error)


# -- what is thrown at a server


def packets(port: int) -> Iterator[bytes]:
    """What no QUIC client would send, and near misses of what it would."""
    chance = random.Random(7)
    yield b""
    yield b"\x00"
    yield b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for size in (1, 5, 20, 21, 100, 1199, 1200, 1452, 9000, 65_000):
        yield bytes(size)
        yield b"\xff" * size
        yield chance.randbytes(size)
        # Long header, version 1, Initial.
        yield (b"\xc0\x00\x00\x00\x01" + chance.randbytes(size))[:65_000]
        # An unknown version, which is answered by a negotiation.
        yield (b"\xc0\x1a\x2a\x3a\x4a\x08" + bytes(8) + b"\x08" + bytes(8 + size))[:65_000]
    for initial in initials(port, 20):
        yield initial[: chance.randrange(len(initial))]
        yield initial[:1200] + chance.randbytes(200)
        for _ in range(20):
            mutated = bytearray(initial)
            for _ in range(chance.randrange(1, 6)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            yield bytes(mutated)


def initials(port: int, count: int) -> Iterator[bytes]:
    """Correct first packets of clients that then say no more."""
    for _ in range(count):
        client = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN))
        client.connect(("127.0.0.1", port), now=0.0)
        yield from (data for data, _ in client.datagrams_to_send(now=0.0))


async def test_garbage_over_udp_disturbs_nobody(server: Server, certificate: DevCertificate) -> None:
    port = port_of(server)
    async with wtio.connect(f"https://127.0.0.1:{port}/", tls=certificate.client_tls()) as session:
        stream = await session.create_bidirectional_stream()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thrower:
            thrower.connect(("127.0.0.1", port))
            for number, packet in enumerate(packets(port)):
                try:
                    thrower.send(packet)
                except ConnectionRefusedError:
                    pytest.fail("the server's port is closed")
                if number % 20 == 0:
                    # Let the server have it, and a correct exchange in between.
                    await stream.write(data=b"%04d" % number)
        await stream.write(data=b"", end_stream=True)
        assert len(await stream.read_all()) % 4 == 0
    await assert_alive(server, certificate)


@pytest.mark.trap("X6")
async def test_garbage_from_the_address_of_a_client_disturbs_nobody(certificate: DevCertificate) -> None:
    # A proxy in between adds garbage of its own in both directions.
    chance = random.Random(3)
    loop = asyncio.get_running_loop()

    class Proxy(asyncio.DatagramProtocol):
        client: tuple[str, int] | None = None

        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            if address == target:
                destination = self.client
            else:
                self.client, destination = address, target
            assert destination is not None
            for packet in (data, mutate(data), chance.randbytes(chance.randrange(1, 100))):
                self.transport.sendto(packet, destination)

    def mutate(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)

    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        target = server.addresses[0]
        transport, _ = await loop.create_datagram_endpoint(Proxy, local_addr=("127.0.0.1", 0))
        try:
            url = f"https://127.0.0.1:{transport.get_extra_info('sockname')[1]}/"
            async with wtio.connect(url, tls=certificate.client_tls()) as session:
                stream = await session.create_bidirectional_stream()
                data = random.Random(1).randbytes(200_000)
                await stream.write(data=data, end_stream=True)
                assert await stream.read_all() == data
        finally:
            transport.close()


async def test_plain_http_over_tcp_finds_nobody(server: Server, certificate: DevCertificate) -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port_of(server))
    await assert_alive(server, certificate)


async def test_clients_that_vanish_in_the_handshake(certificate: DevCertificate) -> None:
    timeouts = wtio.Timeouts(idle=0.5)
    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls(), timeouts=timeouts) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thrower:
            for initial in initials(port_of(server), 30):
                thrower.sendto(initial, server.addresses[0])
        await assert_alive(server, certificate)


class BrokenClient(QuicConnectionProtocol):
    """A client that breaks the rules above QUIC."""

    async def until_closed(self) -> None:
        await self.wait_closed()


@pytest.mark.parametrize(
    ("stream", "data", "code"),
    [
        # RFC 9114, section 6.2.1: a control stream begins with SETTINGS.
        ("control", b"\x00\x01\x00", 0x10A),
        # Section 7.2.4.1: settings of HTTP/2.
        ("control", b"\x00\x04\x02\x02\x01", 0x109),
        # Section 7.2.4: SETTINGS twice.
        ("control", b"\x00\x04\x00\x04\x00", 0x105),
        # draft-ietf-webtrans-http3-16, section 4: a session id that no CONNECT stream can have.
        ("uni", b"\x40\x54\x01", 0x108),
        # RFC 9204, section 2.2: a field section that refers to entries of the dynamic table.
        ("request", b"\x01\x03\x02\x00\x80", 0x200),
        # RFC 9114, section 7.1: a frame that ends after its payload.
        ("request", b"\x01\x02\x00", 0x106),
    ],
)
async def test_clients_that_break_the_rules_get_its_error_and_the_server_lives_on(
    server: Server, certificate: DevCertificate, stream: str, data: bytes, code: int
) -> None:
    from aioquic.asyncio.client import connect as quic_connect
    from aioquic.quic.events import ConnectionTerminated

    terminated: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Client(QuicConnectionProtocol):
        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, ConnectionTerminated) and not terminated.done():
                terminated.set_result(event.error_code)

    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=0)
    async with quic_connect(
        "127.0.0.1", port_of(server), configuration=configuration, create_protocol=Client
    ) as client:
        number = client._quic.get_next_available_stream_id(is_unidirectional=stream != "request")
        client._quic.send_stream_data(number, data, end_stream=stream == "request")
        client.transmit()
        assert await terminated == code
    await assert_alive(server, certificate)
