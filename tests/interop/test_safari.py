"""The emulated Safari: that it is as strict as it should be, and what our server does for it beyond the matrix."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from aioquic.h3.connection import H3Connection
from aioquic.quic.events import StreamReset

import wtio
from wtio.protocol import varint

from . import aioquic_peer as peer
from . import safari
from .safari import Flavour

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from aioquic.quic.connection import QuicConnection
    from aioquic.quic.events import QuicEvent

pytestmark = pytest.mark.timeout(30)

SHORT_STREAMS = 20_000
BASE = {0x08: 1, 0x33: 1}
LIMITS = {0x2B61: 1 << 20, 0x2B64: 10, 0x2B65: 10}
RESETS = {0x17F7586D2CB571: b""}


@pytest.fixture
def certificate(tmp_path: Path) -> wtio.DevCertificate:
    return wtio.dev_certificate(directory=tmp_path)


# -- what it insists on


@pytest.mark.trap("H3")
@pytest.mark.parametrize(
    ("flavour", "settings", "parameters", "accepted"),
    [
        (Flavour.D07, BASE | {0xC671706A: 1}, {}, True),
        (Flavour.D07, BASE | {0xC671706A: 16}, {}, True),
        (Flavour.D07, BASE | {0xC671706A: 0}, {}, False),
        (Flavour.D07, BASE | {0x2B603742: 1}, {}, False),
        (Flavour.D07, BASE | {0x2C7CF000: 1} | LIMITS, RESETS, False),
        (Flavour.D07, {0x33: 1, 0xC671706A: 1}, {}, False),
        (Flavour.D07, {0x08: 1, 0xC671706A: 1}, {}, False),
        (Flavour.D13, BASE | {0x14E9CD29: 1}, RESETS, True),
        (Flavour.D13, BASE | {0x14E9CD29: 1} | LIMITS, RESETS, True),
        (Flavour.D13, BASE | {0x14E9CD29: 2} | LIMITS, RESETS, True),
        (Flavour.D13, BASE | {0x14E9CD29: 2}, RESETS, False),
        (Flavour.D13, BASE | {0x14E9CD29: 2} | LIMITS | {0x2B64: 0}, RESETS, False),
        (Flavour.D13, BASE | {0x14E9CD29: 2, 0x2B61: 1, 0x2B65: 1}, RESETS, False),
        (Flavour.D13, BASE | {0x14E9CD29: 1} | LIMITS, {}, False),
        (Flavour.D13, BASE | {0x14E9CD29: 1} | LIMITS, {0x1D: b""}, False),
        (Flavour.D13, BASE | {0x2C7CF000: 1} | LIMITS, RESETS, False),
        (Flavour.D13, BASE | {0xC671706A: 1}, RESETS, False),
    ],
)
def test_safari_takes_or_leaves_a_server_by_its_announcement(
    flavour: Flavour, settings: dict[int, int], parameters: dict[int, bytes], accepted: bool
) -> None:
    assert (safari.refusal(flavour, settings, parameters, 65536) is None) is accepted
    assert safari.refusal(flavour, settings, parameters, None) is not None


class AnnouncingProtocol(peer.PeerProtocol):
    """aioquic's server with other settings, which remembers resets of request streams."""

    announced: Mapping[int, int] = {}

    def __init__(self, quic: QuicConnection, *arguments: object, **options: object) -> None:
        self.resets: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        super().__init__(quic, *arguments, **options)  # type: ignore[arg-type]
        serialize = quic._serialize_transport_parameters
        ending = varint.encode(0x17F7586D2CB571) + varint.encode(0)
        quic._serialize_transport_parameters = lambda: serialize() + ending  # type: ignore[method-assign]

    def make_http(self, quic: QuicConnection) -> H3Connection:
        announced = dict(self.announced)

        class Http(H3Connection):
            def _get_local_settings(self) -> dict[int, int]:
                return announced

        return Http(quic, enable_webtransport=True)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamReset):
            self.resets.put_nowait((event.stream_id, event.error_code))
        super().quic_event_received(event)


@contextlib.asynccontextmanager
async def announcing(
    certificate: wtio.DevCertificate,
    settings: Mapping[int, int],
    handler: Callable[[peer.PeerSession], Awaitable[None]],
) -> AsyncIterator[tuple[int, list[AnnouncingProtocol]]]:
    protocols: list[AnnouncingProtocol] = []

    class Protocol(AnnouncingProtocol):
        announced = settings

        def __init__(self, quic: QuicConnection, *arguments: object, **options: object) -> None:
            super().__init__(quic, *arguments, **options)
            protocols.append(self)

    async with peer.serve(
        handler,
        "127.0.0.1",
        0,
        certificate=certificate.certfile,
        key=certificate.keyfile,
        create_protocol=Protocol,
    ) as port:
        yield port, protocols


async def until_closed(session: peer.PeerSession) -> None:
    await session.closed


async def test_safari_cancels_its_request_stream_before_it_has_a_request(certificate: wtio.DevCertificate) -> None:
    async with announcing(certificate, BASE | {0x2B603742: 1}, until_closed) as (port, protocols):
        with pytest.raises(safari.SafariRefused, match="0xc671706a"):
            async with safari.connect("127.0.0.1", port, "/", flavour=Flavour.D07):
                pass
        assert await protocols[0].resets.get() == (0, 0x10C)


async def test_safari_waits_for_session_credit_and_says_that_it_is_blocked(certificate: wtio.DevCertificate) -> None:
    settings = BASE | {0x14E9CD29: 1, 0x2B61: 4, 0x2B64: 1, 0x2B65: 1}
    capsules: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(session: peer.PeerSession) -> None:
        def arrived(kind: int, value: bytes) -> None:
            number = varint.decode(value)
            capsules.put_nowait((kind, -1 if number is None else number[0]))

        session.capsule_arrived = arrived  # type: ignore[method-assign]
        assert await capsules.get() == (safari.DATA_BLOCKED, 4)
        session.send_capsule(safari.MAX_DATA, varint.encode(9))
        assert await capsules.get() == (safari.STREAMS_BLOCKED_UNI, 1)
        session.send_capsule(safari.MAX_STREAMS_UNI, varint.encode(2))
        for _ in range(2):
            received.put_nowait(await (await session.accept_stream(bidirectional=False)).read_all())

    async with (
        announcing(certificate, settings, serve) as (port, _),
        safari.connect("127.0.0.1", port, "/", flavour=Flavour.D13) as session,
    ):
        await (await session.create_stream(bidirectional=False)).write(b"12345", True)
        await (await session.create_stream(bidirectional=False)).write(b"6789", True)
        assert [await received.get(), await received.get()] == [b"12345", b"6789"]
        assert session.complaints == []


async def send_too_much(session: peer.PeerSession) -> None:
    stream = session.open_stream(bidirectional=False)
    for _ in range(safari.GRANTED_DATA // 65536 + 1):
        await stream.write(bytes(65536))


async def open_too_many(session: peer.PeerSession) -> None:
    for _ in range(safari.GRANTED_STREAMS + 1):
        await session.open_stream(bidirectional=False).write(b"x")


async def lower_a_limit(session: peer.PeerSession) -> None:
    session.send_capsule(safari.MAX_DATA, varint.encode(LIMITS[0x2B61] - 1))


async def allow_a_stream_bytes(session: peer.PeerSession) -> None:
    session.send_capsule(0x190B4D3E, varint.encode(4) + varint.encode(1000))


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (send_too_much, "bytes where 1048576 were allowed"),
        (open_too_many, "101 streams where 100 were allowed"),
        (lower_a_limit, "from 1048576 to 1048575"),
        (allow_a_stream_bytes, "WT_MAX_STREAM_DATA"),
    ],
)
async def test_safari_ends_a_session_whose_server_breaks_flow_control(
    certificate: wtio.DevCertificate, handler: Callable[[peer.PeerSession], Awaitable[None]], complaint: str
) -> None:
    settings = BASE | {0x14E9CD29: 1} | LIMITS
    async with (
        announcing(certificate, settings, handler) as (port, protocols),
        safari.connect("127.0.0.1", port, "/", flavour=Flavour.D13) as session,
    ):
        assert complaint in (await session.closed).reason
        assert complaint in session.complaints[0]
        assert await protocols[0].resets.get() == (0, safari.FLOW_CONTROL_ERROR)


# -- with our server


@contextlib.asynccontextmanager
async def safari_on_wtio(
    certificate: wtio.DevCertificate,
    flavour: Flavour,
    handler: Callable[[wtio.WebTransportSession], Awaitable[None]],
    *,
    refills: bool = True,
) -> AsyncIterator[safari.SafariSession]:
    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        port = server.addresses[0][1]
        async with safari.connect("127.0.0.1", port, "/", flavour=flavour, refills=refills) as session:
            yield session
        assert session.complaints == []


@pytest.mark.trap("H4")
@pytest.mark.parametrize("flavour", Flavour)
async def test_our_server_speaks_safaris_dialect(certificate: wtio.DevCertificate, flavour: Flavour) -> None:
    dialects: asyncio.Queue[str] = asyncio.Queue()

    async def tell(session: wtio.WebTransportSession) -> None:
        dialects.put_nowait(session.dialect)
        await session.wait_closed()

    async with safari_on_wtio(certificate, flavour, tell):
        assert await dialects.get() == flavour.value


@pytest.mark.trap("H5")
@pytest.mark.parametrize("flavour", Flavour)
async def test_our_servers_settings_are_the_first_thing_that_safari_gets(
    certificate: wtio.DevCertificate, flavour: Flavour
) -> None:
    async def wait(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    async with safari_on_wtio(certificate, flavour, wait) as session:
        # A control stream whose first frame is SETTINGS, and nothing else.
        ((control, first),) = session.connection.first_data.items()
        assert (control, first[:2]) == (3, b"\x00\x04")


@pytest.mark.trap("H20")
@pytest.mark.timeout(120)  # aioquic needs a millisecond for a stream
async def test_safari_gets_twenty_thousand_streams_from_our_server(certificate: wtio.DevCertificate) -> None:
    async def send(session: wtio.WebTransportSession) -> None:
        for number in range(SHORT_STREAMS):
            stream = await session.create_unidirectional_stream()
            await stream.write(data=b"%d" % number, end_stream=True)
        await session.wait_closed()

    async with safari_on_wtio(certificate, Flavour.D13, send) as session:
        seen = set()
        for _ in range(SHORT_STREAMS):
            seen.add(int(await (await session.accept_stream(bidirectional=False)).read_all()))
    assert seen == set(range(SHORT_STREAMS))


@pytest.mark.trap("H20")
async def test_our_server_waits_when_safari_gives_no_further_credit(certificate: wtio.DevCertificate) -> None:
    ended: asyncio.Queue[tuple[int, BaseException | None]] = asyncio.Queue()

    async def send(session: wtio.WebTransportSession) -> None:
        opened = 0
        try:
            while True:
                stream = await session.create_unidirectional_stream()
                await stream.write(data=b"x", end_stream=True)
                opened += 1
        except wtio.SessionClosed as error:
            ended.put_nowait((opened, error))
            raise

    async with safari_on_wtio(certificate, Flavour.D13, send, refills=False) as session:
        for _ in range(safari.GRANTED_STREAMS):
            assert await (await session.accept_stream(bidirectional=False)).read_all() == b"x"
        while safari.STREAMS_BLOCKED_UNI not in session.capsules:
            await session.wait_capsule()
        # The rest of the session goes on.
        session.send_datagram(b"still here")
        await (await session.create_stream()).write(b"and here", True)
        assert not session.closed.done()
    opened, error = await ended.get()
    assert opened == safari.GRANTED_STREAMS
    assert isinstance(error, wtio.SessionClosed)


@pytest.mark.trap("S1")
async def test_safari_learns_of_a_stream_that_our_server_resets_at_once(certificate: wtio.DevCertificate) -> None:
    codes = [0, 1, 30, 2**32 - 1]

    async def reset(session: wtio.WebTransportSession) -> None:
        for code in codes:
            stream = await session.create_unidirectional_stream()
            await stream.write(data=b"part")
            await stream.reset(error_code=code)
        await session.wait_closed()

    async with safari_on_wtio(certificate, Flavour.D13, reset) as session:
        reliable = session.connection.quic.reliable_resets
        while len(reliable) < len(codes):
            await session.connection.wait_progress()
        # Header and nothing else is certain to arrive.
        assert sorted(reliable.values()) == sorted((peer.to_wire(code), session.header_size) for code in codes)


async def test_bytes_that_a_reset_discards_count_on_both_sides_alike(certificate: wtio.DevCertificate) -> None:
    # Ten times the window passes, most of it unread: a miscount would block the session or break it.
    piece, rounds = safari.GRANTED_DATA // 8, 40

    async def reset(session: wtio.WebTransportSession) -> None:
        async for stream in session.incoming_bidirectional_streams():
            answer = await session.create_unidirectional_stream()
            for sending in (stream, answer):
                await sending.write(data=bytes(piece))
            await stream.readexactly(n=1)
            for sending in (stream, answer):
                await sending.reset(error_code=7)

    async with safari_on_wtio(certificate, Flavour.D13, reset) as session:
        for _ in range(rounds):
            stream = await session.create_stream()
            await stream.write(b"")
            streams = (stream, await session.accept_stream(bidirectional=False))
            for receiving in streams:
                assert await receiving.read() != b""
            await stream.write(b"x", True)
            for receiving in streams:
                with pytest.raises(peer.PeerStreamReset) as caught:
                    await receiving.read_all()
                assert caught.value.code == 7
        assert session.data_counted > safari.GRANTED_DATA


async def test_safari_learns_of_streams_of_which_nothing_but_the_header_is_left(
    certificate: wtio.DevCertificate,
) -> None:
    async def reset(session: wtio.WebTransportSession) -> None:
        for _ in range(safari.GRANTED_STREAMS * 2):
            await (await session.create_unidirectional_stream()).reset(error_code=7)
        await session.wait_closed()

    async with safari_on_wtio(certificate, Flavour.D13, reset) as session:
        for _ in range(safari.GRANTED_STREAMS * 2):
            with pytest.raises(peer.PeerStreamReset) as caught:
                await (await session.accept_stream(bidirectional=False)).read_all()
            assert caught.value.code == 7
