"""What can only be seen on the wire, against a peer that sends exactly what a test gives it (requirements 8 to 91).

The engine and the sessions are real; the network and the clock are simulated.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import testing
from wtio._connection.base import Connection
from wtio._core import EngineEvent
from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType, encode_close
from wtio.protocol.codes import ErrorCodes, from_wire
from wtio.protocol.frames import encode_record
from wtio.protocol.outbox import Output, Send
from wtio.testing import Network, session_pair

from .pair import CHROMIUM, DRAFT15_CLIENT, DRAFT15_SERVER, close, data, headers
from .raw import RawPeer, RawStream, accept, raw_client, raw_server, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OK = headers((":status", "200"))
LOSSY = {"loss": 0.2, "reorder": 0.2, "duplicate": 0.1}


def closed_with(peer: RawPeer) -> int | None:
    """The HTTP/3 code with which the library closed the connection."""
    if peer.closed is None:
        return None
    cause, code, _ = peer.closed
    assert cause == "application"
    return code


async def connected(network: Network, peers: list[RawPeer], **options: object) -> wtio.WebTransportSession:
    """Our client's session with a raw server."""

    async def connecting() -> wtio.WebTransportSession:
        return await network.connect(**options)  # type: ignore[arg-type]

    task = asyncio.ensure_future(connecting())
    await settle()
    accept(peers[-1].raw_streams[0])
    return await task


async def requested(server: wtio.Server, peer: RawPeer, *fields: tuple[str, str]) -> wtio.SessionRequest:
    """A raw client's request at our server."""
    peer.request(*fields)
    return await anext(aiter(server))


# -- establishing


def test_r4_r5_h10_both_sides_announce_datagrams_and_reset_stream_at_under_both_numbers() -> None:
    def check(peer: RawPeer) -> None:
        parameters = dict(peer.core.peer_parameters() or [])
        assert parameters[0x1D] == parameters[0x17F7586D2CB571] == b""
        size = varint.decode(parameters[0x20])
        assert size
        assert size[0] > 1200

    async def main() -> None:
        network = Network()
        async with network.serve(), raw_client(network) as peer:
            check(peer)
        async with raw_server(network) as peers, await connected(network, peers):
            check(peers[0])

    testing.run(main())


@pytest.mark.parametrize("strict", [True, False])
def test_r10_r11_h9_client_without_reset_stream_at_at_the_server(strict: bool) -> None:
    """Strict, it refuses; otherwise it goes on without."""

    async def main() -> None:
        network = Network()
        async with raw_server(network, reset_stream_at=False) as peers:
            if not strict:
                async with await connected(network, peers) as session:
                    assert session.dialect == "draft15"
                return
            with pytest.raises(wtio.RequirementsNotMetError, match="reset_stream_at") as caught:
                await network.connect(strict=True)
            assert len(caught.value.missing) == 1
            await settle()
            assert closed_with(peers[0]) == ErrorCodes.WT_REQUIREMENTS_NOT_MET

    testing.run(main())


@pytest.mark.parametrize("strict", [True, False])
def test_r13_h9_server_without_reset_stream_at_at_the_client(strict: bool) -> None:
    """Strict, it takes the request as malformed; otherwise it goes on without."""

    async def main() -> None:
        network = Network()
        async with network.serve(_hold, strict=strict), raw_client(network, reset_stream_at=False) as peer:
            stream = peer.request()
            await settle()
            if strict:
                assert stream.reset_code == ErrorCodes.H3_MESSAGE_ERROR
            else:
                assert stream.data == OK
            assert peer.closed is None

    testing.run(main())


def test_r11_server_without_webtransport_is_left_with_requirements_not_met() -> None:
    async def main() -> None:
        network = Network()
        async with raw_server(network, [(0x33, 1)]) as peers:
            with pytest.raises(wtio.RequirementsNotMetError, match="no version of WebTransport"):
                await network.connect()
            await settle()
            assert closed_with(peers[0]) == ErrorCodes.WT_REQUIREMENTS_NOT_MET

    testing.run(main())


def test_r8_client_sends_no_request_before_the_servers_settings() -> None:
    async def main() -> None:
        network = Network()
        async with raw_server(network, None) as peers:
            connector = network.connect(timeouts=wtio.Timeouts(connect=20))
            task = asyncio.ensure_future(_awaited(connector))
            await asyncio.sleep(10)
            (peer,) = peers
            assert sorted(peer.raw_streams) == [2]  # the control stream, nothing else
            peer.send_settings(DRAFT15_SERVER)
            await settle()
            assert peer.raw_streams[0].data.startswith(b"\x01")
            accept(peer.raw_streams[0])
            await task

    testing.run(main())


def test_h5_first_flight_of_each_side_is_what_was_recorded() -> None:
    """Streams in this order, SETTINGS first and in this order; a change here needs another run with every browser."""

    async def main() -> None:
        network = Network()
        async with network.serve(), raw_client(network, None) as peer:
            await settle()
            check({number: stream.data for number, stream in peer.raw_streams.items()}, 3, extended_connect=True)
        async with raw_server(network, None) as peers:
            task = asyncio.ensure_future(_awaited(network.connect()))
            await settle()
            check({number: stream.data for number, stream in peers[0].raw_streams.items()}, 2, extended_connect=False)
            task.cancel()

    def check(streams: dict[int, bytes], first: int, *, extended_connect: bool) -> None:
        assert list(streams) == [first]
        (control,) = streams.values()
        assert control[:2] == b"\x00\x04"
        assert control[2] == len(control) - 3
        numbers = []
        offset = 3
        while offset < len(control):
            number, offset = varint.decode(control, offset) or (0, 0)
            _, offset = varint.decode(control, offset) or (0, 0)
            numbers.append(number)
        expected = [0x01, 0x06, 0x07, *([0x08] if extended_connect else []), 0x33, 0xFFD277, 0x2B603742, 0xC671706A]
        assert numbers[: len(expected)] == expected
        assert 0x2C7CF000 in numbers

    testing.run(main())


def test_r12_h6_request_before_settings_waits_for_them() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network, None) as peer:
            stream = peer.request()
            await asyncio.sleep(5)
            assert not server._service._requests
            assert (stream.data, stream.reset_code) == (b"", None)
            peer.send_settings(DRAFT15_CLIENT)
            await (await anext(aiter(server))).accept()
            await settle()
            assert stream.data == OK

    testing.run(main())


def test_h6_request_without_settings_is_refused_in_the_end() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(timeouts=wtio.Timeouts(request=4)), raw_client(network, None) as peer:
            stream = peer.request()
            await asyncio.sleep(5)
            assert stream.reset_code == ErrorCodes.H3_REQUEST_REJECTED

    testing.run(main())


def early_data_packets(datagram: bytes) -> int:
    """Count the 0-RTT packets in a UDP payload of QUIC version 1 (RFC 9000, section 17.2)."""
    found = offset = 0
    while offset < len(datagram) and datagram[offset] & 0x80:
        kind = datagram[offset] >> 4 & 3
        found += kind == 1
        if kind == 3:  # Retry
            break
        offset += 5
        for _ in range(2):
            offset += 1 + datagram[offset]
        if kind == 0:
            length, offset = varint.decode(datagram, offset) or (0, 0)
            offset += length
        length, offset = varint.decode(datagram, offset) or (0, 0)
        offset += length
    return found


def test_r23_r24_h11_nothing_is_sent_or_remembered_before_the_handshake() -> None:
    """Without 0-RTT there are no remembered settings, so none can come back lower."""
    zero_rtt = struct.pack(">BIBB", 0xD0, 1, 0, 0) + b"\x05abcde"
    assert early_data_packets(zero_rtt) == 1

    async def main() -> None:
        network = Network()
        tls = testing._certificate().client_tls()
        found = []
        send = network._wire.send

        def watch(source, destination, payload, ecn):  # type: ignore[no-untyped-def]
            found.append(early_data_packets(payload))
            send(source, destination, payload, ecn)

        network._wire.send = watch  # type: ignore[method-assign]

        async def handler(session: wtio.WebTransportSession) -> None:
            await session.wait_closed()

        for header_size in (65536, 2048):
            # The second server announces less than the first; a client that remembered would have to complain.
            async with network.serve(handler, limits=wtio.Limits(header_size=header_size)):
                for _ in range(3):
                    async with network.connect(tls=tls) as session:
                        assert not session.is_closed
        assert len(found) > 50
        assert not any(found)

    testing.run(main())


@pytest.mark.parametrize(
    ("settings", "status"),
    [(CHROMIUM, "404"), ([(0x33, 1), (0xC671706A, 1)], "404"), ([(0x33, 1)], "405"), (DRAFT15_CLIENT, "405")],
)
def test_r20_status_for_no_webtransport_at_a_path_follows_the_dialect(
    settings: list[tuple[int, int]], status: str
) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network, settings) as peer:
            await (await requested(server, peer)).reject()
            await settle()
            assert peer.raw_streams[0].fields[":status"] == status

    testing.run(main())


@pytest.mark.parametrize(
    ("fields", "status"), [([], "200"), ([("origin", "https://good")], "200"), ([("origin", "https://bad")], "403")]
)
def test_r18_r19_origin_is_verified_where_it_is_present(fields: list[tuple[str, str]], status: str) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(_hold, origins=["https://good"]), raw_client(network) as peer:
            stream = peer.request(*fields)
            await settle()
            assert stream.fields[":status"] == status
            assert stream.has_ended == (status == "403")

    testing.run(main())


def test_r27_server_uses_the_session_in_the_flight_of_its_answer() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"at once")
            peer.add_session(0)
            session.send_datagram(b"me too")
            await asyncio.sleep(0.015)  # one way: no packet of the client's can have come in between
            assert peer.raw_streams[0].data == OK
            assert [(stream.session_id, stream.data) for stream in peer.data_streams] == [(0, b"at once")]
            assert peer.core.receive_datagram(0) == b"me too"

    testing.run(main())


def test_r27_r48_streams_and_datagrams_of_a_client_may_come_with_its_request() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            peer.open_data_stream(0, b"first")  # even before the request
            peer.add_session(0)
            peer.core.send_datagram(0, b"datagram")
            await settle()
            request = await requested(server, peer)
            peer.open_data_stream(0, b"second", bidirectional=True)
            await settle()
            session = await request.accept()
            first = await anext(session.incoming_unidirectional_streams())
            second = await anext(session.incoming_bidirectional_streams())
            assert await first.read() + await second.read() == b"firstsecond"
            assert await session.receive_datagram() == b"datagram"

    testing.run(main())


def test_r42_no_datagram_before_settings_went_both_ways() -> None:
    async def main() -> None:
        network = Network()

        async def handler(session: wtio.WebTransportSession) -> None:
            session.send_datagram(b"hello")
            await session.wait_closed()

        async with network.serve(handler), raw_client(network, None) as peer:
            peer.add_session(0)
            peer.request()
            await asyncio.sleep(5)
            assert peer.core.receive_datagram(0) is None
            peer.send_settings(DRAFT15_CLIENT)
            await settle()
            assert peer.core.receive_datagram(0) == b"hello"

    testing.run(main())


# -- session ids


@pytest.mark.parametrize("session_id", [1, 2, 3, 5, 2**62 - 1])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_r35_h15_data_stream_of_an_impossible_session_is_id_error(session_id: int, bidirectional: bool) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(), raw_client(network) as peer:
            peer.open_data_stream(session_id, b"", bidirectional=bidirectional)
            await settle()
            assert closed_with(peer) == ErrorCodes.H3_ID_ERROR

    testing.run(main())


@pytest.mark.parametrize("how", ["unidirectional", "bidirectional", "datagram"])
def test_r35_server_that_names_a_session_never_requested_is_id_error(how: str) -> None:
    async def main() -> None:
        network = Network()
        async with raw_server(network) as peers:
            session = await connected(network, peers)
            if how == "datagram":
                peers[0].add_session(4)
                peers[0].core.send_datagram(4, b"x")
            else:
                peers[0].open_data_stream(4, b"x", bidirectional=how == "bidirectional")
            info = await session.wait_closed()
            assert "never requested" in info.reason
            await settle()
            assert closed_with(peers[0]) == ErrorCodes.H3_ID_ERROR

    testing.run(main())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_r36_c7_late_stream_of_a_session_that_ended_is_reset_with_session_gone(bidirectional: bool) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            await session.close(1, "over")
            late = peer.open_data_stream(0, b"late", bidirectional=bidirectional)
            await settle()
            assert late.stop_code == ErrorCodes.WT_SESSION_GONE
            if bidirectional:
                assert late.reset_code == ErrorCodes.WT_SESSION_GONE
            assert peer.closed is None

    testing.run(main())


def test_r36_d5_datagram_of_a_session_that_ended_or_never_was_is_dropped() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            await session.close(1, "over")
            for number in (0, 4, 400):
                peer.add_session(number)
                peer.core.send_datagram(number, b"late")
            await settle()
            assert peer.closed is None

    testing.run(main())


# -- heads of data streams


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("session_id", [b"\x00", b"\x40\x00", b"\x80\0\0\0", b"\xc0\0\0\0\0\0\0\0"])
def test_r37_r38_r40_head_may_come_byte_by_byte_and_longer_than_needed(session_id: bytes, bidirectional: bool) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            head = (b"\x40\x41" if bidirectional else b"\x40\x54") + session_id
            stream = peer.open(head[:1], bidirectional=bidirectional)
            for byte in head[1:]:
                await asyncio.sleep(0.1)
                stream.send(bytes((byte,)))
            stream.send(b"payload", end=True)
            if bidirectional:
                assert await (await anext(session.incoming_bidirectional_streams())).read_all() == b"payload"
            else:
                assert await (await anext(session.incoming_unidirectional_streams())).read_all() == b"payload"

    testing.run(main())


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cut", range(4))
@pytest.mark.parametrize("how", ["end", "reset"])
def test_r40_head_cut_short_disturbs_nobody(bidirectional: bool, cut: int, how: str) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            head = (b"\x40\x41" if bidirectional else b"\x40\x54") + b"\x40\x00"
            for _ in range(300):  # more than may be open at once: credit comes back
                core = peer.core.open_stream(bidirectional, b"", None)
                if core is None:
                    await asyncio.sleep(0.1)
                    core = peer.core.open_stream(bidirectional, b"", None)
                assert core is not None
                core.write(head[:cut], 0)
                if how == "end":
                    core.finish()
                else:
                    core.reset(0x100)
                if bidirectional:
                    core.stop(0x100)
            await settle()
            assert peer.closed is None
            peer.open_data_stream(0, b"fine")
            assert await (await anext(session.incoming_unidirectional_streams())).read() == b"fine"

    testing.run(main())


def test_s11_end_may_come_in_the_packet_of_the_head() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            peer.open(b"\x40\x54\x00", end=True)
            assert await (await anext(session.incoming_unidirectional_streams())).read_all() == b""

    testing.run(main())


# -- resets


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_r45_r78_s1_s2_reset_never_hides_the_head_of_its_stream(seed: int, bidirectional: bool) -> None:
    """The peer learns of every stream, whatever was lost, so both sides count the same."""

    async def main() -> None:
        async with session_pair(Network(seed=seed, **LOSSY)) as (client, server):  # type: ignore[arg-type]
            codes: list[int] = []

            async def accept_all() -> None:
                incoming = (
                    server.incoming_bidirectional_streams()
                    if bidirectional
                    else server.incoming_unidirectional_streams()
                )
                async for stream in incoming:
                    with pytest.raises(wtio.StreamResetError) as caught:
                        await stream.read_all()
                    assert caught.value.error_code is not None
                    codes.append(caught.value.error_code)
                    if len(codes) == 300:
                        break

            accepting = asyncio.ensure_future(accept_all())
            for code in range(300):
                stream = await (
                    client.create_bidirectional_stream() if bidirectional else client.create_unidirectional_stream()
                )
                if code % 3 == 1:
                    await stream.write(data=b"some data")
                await stream.reset(error_code=code)
                if isinstance(stream, wtio.WebTransportStream):
                    await stream.stop_receiving()
            await accepting
            assert sorted(codes) == list(range(300))

    testing.run(main())


@pytest.mark.parametrize("reset_stream_at", [True, False])
@pytest.mark.parametrize("written", [b"", b"some data"])
def test_r45_s1_peer_learns_of_every_stream_with_and_without_the_frame_for_it(
    reset_stream_at: bool, written: bytes
) -> None:
    async def main() -> None:
        network = Network(seed=3, **LOSSY)  # type: ignore[arg-type]
        async with network.serve() as server, raw_client(network, reset_stream_at=reset_stream_at) as peer:
            session = await (await requested(server, peer)).accept()
            for code in range(60):
                stream = await session.create_unidirectional_stream()
                if written:
                    await stream.write(data=written)
                await stream.reset(error_code=code)
            for _ in range(30):
                await settle()
            assert len(peer.data_streams) == 60
            assert {stream.session_id for stream in peer.data_streams} == {0}
            codes = {from_wire(stream.reset_code or 0) for stream in peer.data_streams}
            assert codes == set(range(60))

    testing.run(main())


@pytest.mark.parametrize("code", [0, 1, 29, 30, 31, 255, 2**31, 2**32 - 1])
def test_r44_r47_codes_pass_an_intermediary_unchanged_and_stay_what_they_are(code: int) -> None:
    """A relay forwards a reset as a reset and a stop as a stop, with the code that it got."""

    async def relay(upstream: wtio.WebTransportSession, downstream: wtio.WebTransportSession) -> None:
        source = await anext(upstream.incoming_bidirectional_streams())
        target = await downstream.create_bidirectional_stream()
        await target.write(data=await source.readexactly(n=5))
        with pytest.raises(wtio.StreamResetError) as reset:
            await source.read()
        assert reset.value.error_code is not None
        await target.reset(error_code=reset.value.error_code)
        with pytest.raises(wtio.StreamStoppedError) as stopped:
            await _write_until_stopped(source)
        assert stopped.value.error_code is not None
        await target.stop_receiving(error_code=stopped.value.error_code)

    async def main() -> None:
        network = Network()
        async with session_pair(network) as (client, upstream), network.serve(port=444) as server:
            connecting = asyncio.ensure_future(_awaited(network.connect("https://localhost:444/")))
            far = await (await anext(aiter(server))).accept()
            relaying = asyncio.ensure_future(relay(upstream, await connecting))
            stream = await client.create_bidirectional_stream()
            await stream.write(data=b"hello")
            end = await anext(far.incoming_bidirectional_streams())
            assert await end.readexactly(n=5) == b"hello"
            await stream.reset(error_code=code)
            with pytest.raises(wtio.StreamResetError) as reset:
                await end.read()
            assert reset.value.error_code == code
            await stream.stop_receiving(error_code=code)
            with pytest.raises(wtio.StreamStoppedError) as stopped:
                await _write_until_stopped(end)
            assert stopped.value.error_code == code
            await relaying

    testing.run(main())


@pytest.mark.parametrize("wire_code", [0x52E4A40FA8F9, 0x52E4A40FA8DA, 0x52E5AC983163, ErrorCodes.WT_SESSION_GONE, 0])
def test_r46_s5_code_without_application_meaning_is_a_reset_all_the_same(wire_code: int) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            stream = peer.open_data_stream(0, b"x", bidirectional=True)
            incoming = await anext(session.incoming_bidirectional_streams())
            assert await incoming.read() == b"x"
            stream.core.reset(wire_code)
            stream.core.stop(wire_code)
            with pytest.raises(wtio.StreamResetError) as reset:
                await incoming.read()
            assert (reset.value.error_code, reset.value.wire_code) == (None, wire_code)
            with pytest.raises(wtio.StreamStoppedError) as stopped:
                await incoming.write(data=b"y")
            assert (stopped.value.error_code, stopped.value.wire_code) == (None, wire_code)
            assert not session.is_closed

    testing.run(main())


# -- early streams and datagrams


@pytest.mark.parametrize("bidirectional", [False, True])
def test_r48_r49_r50_h7_early_streams_are_kept_up_to_a_limit_and_refused_beyond(bidirectional: bool) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(limits=wtio.Limits(early_streams=5)) as server, raw_client(network) as peer:
            request = await requested(server, peer)
            streams = [peer.open_data_stream(0, bytes([n]), bidirectional=bidirectional) for n in range(12)]
            await settle()
            assert [stream.stop_code for stream in streams[:5]] == [None] * 5
            assert {stream.stop_code for stream in streams[5:]} == {ErrorCodes.WT_BUFFERED_STREAM_REJECTED}
            if bidirectional:
                assert {stream.reset_code for stream in streams[5:]} == {ErrorCodes.WT_BUFFERED_STREAM_REJECTED}
            session = await request.accept()
            incoming = (
                session.incoming_bidirectional_streams() if bidirectional else session.incoming_unidirectional_streams()
            )
            assert [await (await anext(incoming)).read() for _ in range(5)] == [bytes([n]) for n in range(5)]

    testing.run(main())


def test_qpack_streams_take_nothing_from_what_sessions_may_have() -> None:
    async def main() -> None:
        network = Network()
        for kinds in (b"", b"\x02", b"\x03\x02"):
            async with (
                network.serve(limits=wtio.Limits(unidirectional_streams=4)) as server,
                raw_client(network) as peer,
            ):
                for kind in kinds:
                    peer.open(bytes([kind]))
                    await settle()
                request = await requested(server, peer)
                await request.accept()
                for number in range(4):
                    peer.open_data_stream(0, bytes([number]))
                await settle()
                assert peer.core.open_stream(False, b"", None) is None

    testing.run(main())


def test_r49_streams_of_a_session_that_nobody_asks_for_are_kept_for_a_while_only() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(timeouts=wtio.Timeouts(request=3)), raw_client(network) as peer:
            stream = peer.open_data_stream(400, b"early")
            await asyncio.sleep(2)
            assert stream.stop_code is None
            await asyncio.sleep(2)
            assert stream.stop_code == ErrorCodes.WT_BUFFERED_STREAM_REJECTED

    testing.run(main())


def test_r48_r49_r51_h7_early_datagrams_are_kept_up_to_a_limit_and_dropped_beyond() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(limits=wtio.Limits(early_datagrams=3)) as server, raw_client(network) as peer:
            request = await requested(server, peer)
            peer.add_session(0)
            for number in range(10):
                assert peer.core.send_datagram(0, bytes([number])) == 0
            await settle()
            session = await request.accept()
            received = [await session.receive_datagram() for _ in range(3)]
            assert len(set(received)) == 3
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.receive_datagram(), 5)
            assert peer.closed is None

    testing.run(main())


def test_r52_client_keeps_what_comes_before_the_answer() -> None:
    async def main() -> None:
        network = Network()
        async with raw_server(network) as peers:
            limits = wtio.Limits(early_streams=24)
            task = asyncio.ensure_future(_awaited(network.connect(limits=limits)))
            await settle()
            (peer,) = peers
            streams = [peer.open_data_stream(0, bytes([number])) for number in range(30)]
            peer.add_session(0)
            peer.core.send_datagram(0, b"early")
            await settle()
            assert [stream.stop_code for stream in streams] == (
                [None] * 24 + [ErrorCodes.WT_BUFFERED_STREAM_REJECTED] * 6
            )
            accept(peer.raw_streams[0])
            session = await task
            incoming = session.incoming_unidirectional_streams()
            assert [await (await anext(incoming)).read() for _ in range(24)] == [bytes([n]) for n in range(24)]
            assert await session.receive_datagram() == b"early"

    testing.run(main())


# -- GOAWAY and drain


def test_r53_client_opens_a_new_connection_for_each_session_so_also_after_goaway() -> None:
    async def main() -> None:
        network = Network()
        async with raw_server(network) as peers:
            session = await connected(network, peers)
            control = next(stream for stream in peers[0].raw_streams.values() if stream.id % 4 == 3)
            control.send(encode_record(0x07, varint.encode(4)))
            await session.wait_draining()
            other = await connected(network, peers)
            assert len(peers) == 2
            assert not other.is_draining
            assert not session.is_closed

    testing.run(main())


def test_r54_r56_closing_the_server_sends_goaway_and_lets_sessions_go_on() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(_hold, timeouts=wtio.Timeouts(drain=5)) as server, raw_client(network) as peer:
            stream = peer.request()
            await settle()
            assert stream.data == OK
            closing = asyncio.ensure_future(server.close())
            await settle()
            assert peer.raw_streams[3].data.endswith(encode_record(0x07, varint.encode(4)))
            assert not stream.has_ended
            late = peer.request()
            echo = peer.open_data_stream(0, b"still here", bidirectional=True)
            await settle()
            assert late.reset_code == ErrorCodes.H3_REQUEST_REJECTED
            assert echo.data == b"still here"
            await closing

    testing.run(main())


def test_r57_intermediary_can_turn_goaway_into_a_drain_capsule() -> None:
    async def main() -> None:
        network = Network()
        async with raw_server(network) as peers:
            upstream = await connected(network, peers)
            async with network.serve(port=444) as server:
                connecting = asyncio.ensure_future(_awaited(network.connect("https://localhost:444/")))
                downstream = await (await anext(aiter(server))).accept()
                client = await connecting
                control = next(stream for stream in peers[0].raw_streams.values() if stream.id % 4 == 3)
                control.send(encode_record(0x07, varint.encode(4)))
                await upstream.wait_draining()
                await downstream.drain()
                await client.wait_draining()
                assert not client.is_closed

    testing.run(main())


# -- the end


def test_r79_r80_r84_close_ends_every_stream_with_session_gone() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            mine = [await session.create_bidirectional_stream(), await session.create_unidirectional_stream()]
            for stream in mine:
                await stream.write(data=b"x")
            theirs = [peer.open_data_stream(0, b"y", bidirectional=bidirectional) for bidirectional in (True, False)]
            await settle()
            closing = asyncio.ensure_future(session.close(7, "bye"))
            await settle()
            assert peer.raw_streams[0].data == OK + close(7, "bye")
            assert peer.raw_streams[0].has_ended
            assert peer.raw_streams[0].stop_code is None  # browsers would drop the close code
            assert [stream.reset_code for stream in peer.data_streams] == [ErrorCodes.WT_SESSION_GONE] * 2
            [both] = [stream for stream in peer.data_streams if stream.core.id & 2 == 0]
            assert both.stop_code == ErrorCodes.WT_SESSION_GONE
            assert [stream.stop_code for stream in theirs] == [ErrorCodes.WT_SESSION_GONE] * 2
            assert theirs[0].reset_code == ErrorCodes.WT_SESSION_GONE
            peer.raw_streams[0].core.finish()
            await closing

    testing.run(main())


def _send_close(stream: RawStream) -> None:
    stream.send(close(3, "done"))


def _send_end(stream: RawStream) -> None:
    stream.core.finish()


def _reset(stream: RawStream) -> None:
    stream.core.reset(ErrorCodes.H3_REQUEST_CANCELLED)


@pytest.mark.parametrize(("how", "code"), [(_send_close, 3), (_send_end, 0), (_reset, None)])
def test_r79_r80_r81_end_by_the_peer_ends_every_stream_and_all_sending(
    how: Callable[[RawStream], None], code: int | None
) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            session = await (await requested(server, peer)).accept()
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"x")
            theirs = peer.open_data_stream(0, b"y", bidirectional=True)
            peer.add_session(0)
            await settle()
            how(peer.raw_streams[0])
            assert (await session.wait_closed()).code == code
            with pytest.raises(wtio.SessionClosed):
                await session.create_unidirectional_stream()
            with pytest.raises(wtio.SessionClosed):
                session.send_datagram(b"too late")
            await settle()
            for ended in (*peer.data_streams, theirs):
                assert ended.reset_code == ended.stop_code == ErrorCodes.WT_SESSION_GONE
            assert len(peer.data_streams) == 1
            assert peer.core.receive_datagram(0) is None

    testing.run(main())


@pytest.mark.parametrize("answers", [True, False])
def test_r88_c2_client_waits_for_the_end_of_the_connect_stream_before_it_closes_the_connection(answers: bool) -> None:
    async def main() -> None:
        network = Network()
        async with raw_server(network) as peers:
            session = await connected(network, peers, timeouts=wtio.Timeouts(close=3))
            (peer,) = peers
            loop = asyncio.get_running_loop()
            begun = loop.time()
            closing = asyncio.ensure_future(session.close(1, "bye"))
            await settle()
            assert peer.raw_streams[0].data.endswith(encode_record(0x00, encode_close(1, "bye")))
            assert peer.closed is None
            assert not closing.done()
            if answers:
                peer.raw_streams[0].core.finish()
            await closing
            await settle()
            assert closed_with(peer) == ErrorCodes.H3_NO_ERROR
            assert peer.closed_at is not None
            # Bounded: with no answer by Timeouts.close.
            assert peer.closed_at - begun < (1.5 if answers else 3.5)

    testing.run(main())


@pytest.mark.parametrize("rest", [close(8, "y"), data(b"\xc0"), b""])
def test_r86_the_end_that_answers_a_close_does_not_leave_before_the_reset(
    rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Output] = []
    carry_out = Connection._carry_out

    def carried_out(connection: Connection, output: Output) -> None:
        if isinstance(output, Send) and output.end:
            ends.append(output)
        carry_out(connection, output)

    monkeypatch.setattr(Connection, "_carry_out", carried_out)

    async def main() -> None:
        network = Network()
        async with network.serve(_hold), raw_client(network) as peer:
            stream = peer.request()
            await settle()
            stream.send(close(7, "x") + rest, end=not rest)
            await settle()
            assert stream.has_ended is not bool(rest)
            if rest:
                assert stream.reset_code == stream.stop_code == ErrorCodes.H3_MESSAGE_ERROR
                assert not ends

    testing.run(main())


def test_c2_close_ends_though_the_peer_gives_no_credit_for_the_capsule() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(stream_receive_window=1024)
        async with raw_server(network, limits=limits) as peers:
            session = await connected(network, peers, headers={"x": "y" * 900}, timeouts=wtio.Timeouts(close=3))
            begun = asyncio.get_running_loop().time()
            await session.close(1, "z" * 1000)
            assert asyncio.get_running_loop().time() - begun < 3.5
            assert b"z" * 1000 not in peers[0].raw_streams[0].data

    testing.run(main())


# -- capsules and load


def test_r63_r76_limits_of_one_session_are_consumed_here_and_change_nothing_elsewhere() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer, raw_client(network) as other:
            session = await (await requested(server, peer)).accept()
            await (await requested(server, other)).accept()
            await settle()
            for kind in (CapsuleType.WT_MAX_DATA, CapsuleType.WT_MAX_STREAMS_BIDI, CapsuleType.WT_STREAMS_BLOCKED_UNI):
                peer.raw_streams[0].send(data(encode_record(kind, varint.encode(1000))))
            await settle()
            assert not session.is_closed
            assert peer.raw_streams[0].data == other.raw_streams[0].data == OK

    testing.run(main())


def test_r67_r71_session_whose_peer_exceeds_its_credit_is_reset_with_flow_control_error() -> None:
    """What the engine's ledger notices (test_ledger) ends the session, and neither the connection nor its sibling."""

    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network, CHROMIUM) as peer:
            session = await (await requested(server, peer)).accept()
            sibling = await (await requested(server, peer)).accept()
            (connection,) = server._service.connections
            connection.handle(EngineEvent.CreditExceeded(connection.core.id, 0))
            info = await session.wait_closed()
            assert "flow control" in info.reason
            await settle()
            assert peer.raw_streams[0].reset_code == ErrorCodes.WT_FLOW_CONTROL_ERROR
            assert peer.raw_streams[0].stop_code == ErrorCodes.WT_FLOW_CONTROL_ERROR
            assert not sibling.is_closed
            assert peer.closed is None

    testing.run(main())


@pytest.mark.parametrize(
    ("event", "values", "kind", "value"),
    [
        (EngineEvent.CreditDue, (70_000,), CapsuleType.WT_MAX_DATA, 70_000),
        (EngineEvent.StreamsDue, (True, 300), CapsuleType.WT_MAX_STREAMS_BIDI, 300),
        (EngineEvent.StreamsDue, (False, 3), CapsuleType.WT_MAX_STREAMS_UNI, 3),
        (EngineEvent.CreditBlocked, (0,), CapsuleType.WT_DATA_BLOCKED, 0),
    ],
)
def test_r73_r74_what_the_ledger_says_goes_out_as_a_capsule(
    event: Callable[..., EngineEvent], values: tuple[int, ...], kind: CapsuleType, value: int
) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, raw_client(network) as peer:
            await (await requested(server, peer)).accept()
            (connection,) = server._service.connections
            connection.handle(event(connection.core.id, 0, *values))
            await settle()
            assert peer.raw_streams[0].data == OK + data(encode_record(kind, varint.encode(value)))

    testing.run(main())


def test_r91_x2_peer_that_makes_us_keep_too_much_is_excessive_load() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(), raw_client(network) as peer:
            while peer.closed is None:
                peer.open(b"\x01" + varint.encode(60_000) + bytes(50_000), bidirectional=True)
                await asyncio.sleep(0.1)
            await settle()
            assert closed_with(peer) == ErrorCodes.H3_EXCESSIVE_LOAD

    testing.run(main())


def test_x3_c2_capsules_for_a_peer_that_never_reads_are_bounded() -> None:
    async def main() -> None:
        network = Network()
        async with (
            network.serve() as server,
            raw_client(network, limits=wtio.Limits(stream_receive_window=1024)) as peer,
        ):
            session = await (await requested(server, peer)).accept()
            (connection,) = server._service.connections
            for _ in range(1000):
                connection.h3.send_capsule(0, encode_record(0x17, bytes(1000)))
                connection._pump()
            assert "does not read" in (await session.wait_closed()).reason
            await settle()
            assert closed_with(peer) == ErrorCodes.H3_EXCESSIVE_LOAD

    testing.run(main())


@pytest.mark.parametrize("streams_of_the_other", [1, 8])
def test_r91_sessions_on_one_connection_share_it(streams_of_the_other: int) -> None:
    """Stream by stream: a session with many streams gets more, but its sibling is not starved."""

    async def write(session: wtio.WebTransportSession) -> None:
        stream = await session.create_unidirectional_stream()
        await stream.write_all(data=bytes(10_000_000))

    async def main() -> None:
        network = Network(bandwidth=200_000)
        async with network.serve() as server, raw_client(network, CHROMIUM) as peer:
            sessions = [await (await requested(server, peer)).accept() for _ in range(2)]
            tasks = [asyncio.ensure_future(write(sessions[0]))]
            tasks += [asyncio.ensure_future(write(sessions[1])) for _ in range(streams_of_the_other)]
            for _ in range(100):
                await asyncio.sleep(0.1)
                received = [0, 0]
                for stream in peer.data_streams:
                    assert stream.session_id is not None
                    received[stream.session_id // 4] += len(stream.data)
            fair = sum(received) / (1 + streams_of_the_other)
            assert sum(received) > 1_000_000
            assert 0.5 * fair < received[0] < 2 * fair
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    testing.run(main())


def test_r91_sessions_beyond_the_servers_limit_get_429() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(limits=wtio.Limits(sessions=2)) as server:
            held = []
            for _ in range(2):
                connecting = asyncio.ensure_future(_awaited(network.connect()))
                await (await anext(aiter(server))).accept()
                held.append(await connecting)
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await network.connect()
            assert caught.value.status == 429

    testing.run(main())


def test_r58_keys_of_both_sides_agree_and_differ_by_label_and_context() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            pairs: list[tuple[bytes, bytes]] = [(b"a", b""), (b"a", b"b"), (b"ab", b""), (b"", b"ab")]
            keys = [client.export_keying_material(label, context, length=32) for label, context in pairs]
            assert keys == [server.export_keying_material(label, context, length=32) for label, context in pairs]
            assert len(set(keys)) == len(pairs)

    testing.run(main())


async def _hold(session: wtio.WebTransportSession) -> None:
    """A handler that echoes until its session ends."""
    async for stream in session.incoming_bidirectional_streams():
        async for piece in stream:
            await stream.write(data=piece)


async def _write_until_stopped(stream: wtio.WebTransportSendStream) -> None:
    while True:
        await stream.write(data=b"x")
        await asyncio.sleep(0.1)


async def _awaited(awaitable: Awaitable[wtio.WebTransportSession]) -> wtio.WebTransportSession:
    return await awaitable
