"""Session flow control between our server and a raw client, capsule by capsule (requirements 59 to 77)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import testing
from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType, encode_limit
from wtio.protocol.codes import ErrorCodes
from wtio.testing import Network

from .pair import DRAFT15_CLIENT, FLOW_CONTROL, data, headers
from .raw import RawPeer, RawStream, raw_client, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK = headers((":status", "200"))
# What the raw client grants: 1000 bytes, 10 unidirectional and 20 bidirectional streams.
CLIENT = [*DRAFT15_CLIENT, *FLOW_CONTROL]
# What our server grants.
LIMITS = wtio.Limits(session_receive_window=10, session_bidirectional_streams=2, session_unidirectional_streams=2)


@asynccontextmanager
async def connected(*, sessions: int = 1) -> AsyncIterator[tuple[RawPeer, list[wtio.WebTransportSession]]]:
    network = Network()
    async with network.serve(limits=LIMITS) as server, raw_client(network, CLIENT) as peer:
        accepted = []
        for _ in range(sessions):
            peer.request()
            accepted.append(await (await anext(aiter(server))).accept())
        await settle()
        yield peer, accepted


def capsules(stream: RawStream) -> list[tuple[int, int]]:
    """The limits that have come on a CONNECT stream: type and number."""
    rest = stream.data.removeprefix(OK)
    found = []
    offset = 0
    while offset < len(rest):
        kind, offset = varint.decode(rest, offset) or (0, 0)
        length, offset = varint.decode(rest, offset) or (0, 0)
        assert kind == 0  # DATA with one capsule
        capsule, inside = varint.decode(rest, offset) or (0, 0)
        _, inside = varint.decode(rest, inside) or (0, 0)
        number, inside = varint.decode(rest, inside) or (0, 0)
        offset += length
        assert inside == offset
        found.append((capsule, number))
    return found


def grant(peer: RawPeer, kind: CapsuleType, limit: int, session_id: int = 0) -> None:
    peer.raw_streams[session_id].send(data(encode_limit(kind, limit)))


def received(peer: RawPeer, session_id: int = 0) -> int:
    return sum(len(stream.data) for stream in peer.data_streams if stream.session_id == session_id)


def test_r59_r60_flow_control_lets_a_client_share_its_connection() -> None:
    async def main() -> None:
        async with connected(sessions=3) as (peer, sessions):
            assert [session.session_id for session in sessions] == [0, 4, 8]
            assert [peer.raw_streams[number].data for number in (0, 4, 8)] == [OK] * 3

    testing.run(main())


@pytest.mark.parametrize("bidirectional", [True, False])
def test_r65_r67_stream_beyond_the_limit_resets_the_session_with_flow_control_error(bidirectional: bool) -> None:
    async def main() -> None:
        async with connected(sessions=2) as (peer, (session, sibling)):
            for _ in range(2):
                peer.open_data_stream(0, b"x", bidirectional=bidirectional)
            await settle()
            assert not session.is_closed
            peer.open_data_stream(0, b"x", bidirectional=bidirectional)
            assert (await session.wait_closed()).code is None
            await settle()
            assert peer.raw_streams[0].reset_code == peer.raw_streams[0].stop_code == ErrorCodes.WT_FLOW_CONTROL_ERROR
            assert not sibling.is_closed
            assert peer.closed is None

    testing.run(main())


@pytest.mark.parametrize("pieces", [[11], [5, 6], [10, 1]])
def test_r70_r71_payload_beyond_the_limit_resets_the_session_with_flow_control_error(pieces: list[int]) -> None:
    async def main() -> None:
        async with connected() as (peer, (session,)):
            for size in pieces:
                peer.open_data_stream(0, bytes(size))
            await session.wait_closed()
            await settle()
            assert peer.raw_streams[0].reset_code == peer.raw_streams[0].stop_code == ErrorCodes.WT_FLOW_CONTROL_ERROR
            assert peer.closed is None

    testing.run(main())


def test_r71_r74_server_keeps_to_the_clients_limit_says_so_and_goes_on_when_it_grows() -> None:
    async def main() -> None:
        async with connected() as (peer, (session,)):
            streams = [await session.create_unidirectional_stream() for _ in range(2)]
            for stream in streams:
                await stream.write(data=bytes(800), end_stream=True)
            await settle()
            assert received(peer) == 1000
            assert capsules(peer.raw_streams[0]) == [(CapsuleType.WT_DATA_BLOCKED, 1000)]
            grant(peer, CapsuleType.WT_MAX_DATA, 1500)
            await settle()
            assert received(peer) == 1500
            grant(peer, CapsuleType.WT_MAX_DATA, 1600)
            await settle()
            assert [len(stream.data) for stream in peer.data_streams] == [800, 800]

    testing.run(main())


@pytest.mark.parametrize(
    ("bidirectional", "limit", "blocked", "more"),
    [
        (False, 10, CapsuleType.WT_STREAMS_BLOCKED_UNI, CapsuleType.WT_MAX_STREAMS_UNI),
        (True, 20, CapsuleType.WT_STREAMS_BLOCKED_BIDI, CapsuleType.WT_MAX_STREAMS_BIDI),
    ],
)
def test_r66_r74_server_opens_no_more_streams_than_allowed_and_says_so(
    bidirectional: bool, limit: int, blocked: CapsuleType, more: CapsuleType
) -> None:
    async def main() -> None:
        async with connected() as (peer, (session,)):
            opened = session.create_bidirectional_stream if bidirectional else session.create_unidirectional_stream
            streams = [await opened() for _ in range(limit)]
            waiting = asyncio.ensure_future(opened())
            await settle()
            assert not waiting.done()
            assert len(peer.data_streams) <= limit
            assert (blocked, limit) in capsules(peer.raw_streams[0])
            grant(peer, more, limit + 1)
            streams.append(await waiting)
            with pytest.raises(wtio.StreamCreditError):
                await opened(wait_until_available=False)
            assert len(streams) == limit + 1

    testing.run(main())


def test_r73_server_grants_what_was_read_without_being_asked() -> None:
    async def main() -> None:
        async with connected() as (peer, (session,)):
            stream = peer.open_data_stream(0, bytes(10))
            incoming = await anext(session.incoming_unidirectional_streams())
            assert await incoming.readexactly(n=10) == bytes(10)
            await settle()
            limits = [number for kind, number in capsules(peer.raw_streams[0]) if kind == CapsuleType.WT_MAX_DATA]
            assert limits == sorted(set(limits))
            assert limits[-1] >= 20
            stream.send(bytes(10))
            assert await incoming.readexactly(n=10) == bytes(10)

    testing.run(main())


def test_r76_r77_every_session_has_the_initial_limits_and_credit_of_its_own() -> None:
    async def main() -> None:
        async with connected(sessions=2) as (peer, sessions):
            streams = [await session.create_unidirectional_stream() for session in sessions]
            for stream in streams:
                await stream.write(data=bytes(3000))
            await settle()
            assert [received(peer, number) for number in (0, 4)] == [1000, 1000]
            grant(peer, CapsuleType.WT_MAX_DATA, 2500, session_id=4)
            await settle()
            assert [received(peer, number) for number in (0, 4)] == [1000, 2500]

    testing.run(main())


@pytest.mark.parametrize(
    ("kind", "limit"),
    [(CapsuleType.WT_MAX_DATA, 1000), (CapsuleType.WT_MAX_STREAMS_BIDI, 19), (CapsuleType.WT_MAX_STREAMS_UNI, 1)],
)
def test_r69_r72_limit_that_does_not_grow_resets_the_session(kind: CapsuleType, limit: int) -> None:
    async def main() -> None:
        async with connected() as (peer, (session,)):
            grant(peer, kind, limit)
            await session.wait_closed()
            await settle()
            assert peer.raw_streams[0].reset_code == ErrorCodes.WT_FLOW_CONTROL_ERROR

    testing.run(main())
