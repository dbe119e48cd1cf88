"""Floods end the connection, and what honest peers do all day long does not (RFC 9114, section 10.5)."""

from __future__ import annotations

import asyncio

import pytest
from tests.protocol.pair import DRAFT15_CLIENT, FLOW_CONTROL, GREASE, data
from tests.protocol.raw import RawPeer, RawStream, raw_client, settle

import wtio
from wtio import testing
from wtio.protocol.capsules import CapsuleType, encode_limit
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.frames import encode_record
from wtio.protocol.limits import DEFAULT_LIMITS
from wtio.testing import Network

FLOW_CLIENT = [*DRAFT15_CLIENT, *FLOW_CONTROL]
RESERVED = data(encode_record(GREASE, b""))


async def held(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def opened(peer: RawPeer) -> RawStream:
    stream = peer.request()
    await settle()
    assert stream.fields[":status"] == "200"
    return stream


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_a_flood_closes_the_connection_and_says_why() -> None:
    infos = []

    async def handler(session: wtio.WebTransportSession) -> None:
        infos.append(await session.wait_closed())

    async def main() -> None:
        network = Network()
        async with network.serve(handler), raw_client(network) as peer:
            stream = await opened(peer)
            stream.send(10_000 * RESERVED)
            await settle()
            assert peer.closed is not None
            assert peer.closed[1] == ErrorCodes.H3_EXCESSIVE_LOAD

    testing.run(main())
    assert "without effect" in infos[0].reason


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_a_flood_of_streams_for_sessions_that_are_not_there_closes_the_connection() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(held), raw_client(network) as peer:
            await settle()
            while peer.closed is None:
                streams = [peer.open_data_stream(4000, b"x") for _ in range(50)]
                await asyncio.sleep(0.1)
                for stream in streams:
                    del peer.raw_streams[stream.id]
            assert peer.closed is not None
            assert peer.closed[1] == ErrorCodes.H3_EXCESSIVE_LOAD

    testing.run(main())


@pytest.mark.unmeasured
@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_a_reserved_capsule_a_second_is_fine_for_days() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(held), raw_client(network) as peer:
            stream = await opened(peer)
            for _ in range(10 * DEFAULT_LIMITS.max_idle_records):
                stream.send(RESERVED)
                await asyncio.sleep(1)
            assert peer.closed is None

    testing.run(main())


@pytest.mark.unmeasured
@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_requests_that_are_refused_now_and_then_are_fine_for_days() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(sessions_per_connection=1)
        async with network.serve(held, limits=limits), raw_client(network, FLOW_CLIENT) as peer:
            accepted = await opened(peer)
            for _ in range(3 * DEFAULT_LIMITS.max_refused_requests):
                refused = peer.request()
                await asyncio.sleep(0.2)
                assert refused.reset_code == ErrorCodes.H3_REQUEST_REJECTED
                del peer.raw_streams[refused.id]
            assert peer.closed is None
            assert accepted.reset_code is None

    testing.run(main())


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_a_limit_may_grow_by_one_for_each_stream_that_is_opened() -> None:
    count = 4 * DEFAULT_LIMITS.max_idle_records

    async def handler(session: wtio.WebTransportSession) -> None:
        for _ in range(count):
            stream = await session.create_unidirectional_stream()
            await stream.write(data=b"x", end_stream=True)
        await session.wait_closed()

    async def main() -> None:
        network = Network()
        async with network.serve(handler), raw_client(network, FLOW_CLIENT) as peer:
            stream = await opened(peer)
            seen = 0
            limit = 10
            while seen < count:
                await asyncio.sleep(0.02)
                assert peer.closed is None
                taken, peer.data_streams = peer.data_streams, []
                seen += len(taken)
                for _ in taken:
                    limit += 1
                    stream.send(data(encode_limit(CapsuleType.WT_MAX_STREAMS_UNI, limit)))

    testing.run(main())


@pytest.mark.unmeasured
@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_blocked_may_be_said_once_for_each_limit() -> None:
    count = 3 * DEFAULT_LIMITS.max_idle_records
    limits = wtio.Limits(session_receive_window=2)

    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_unidirectional_streams().__aiter__())
        while await stream.read():
            pass

    async def main() -> None:
        network = Network()
        async with network.serve(handler, limits=limits), raw_client(network, FLOW_CLIENT) as peer:
            connect = await opened(peer)
            stream = peer.open_data_stream(connect.id, b"ab")
            for number in range(count):
                connect.send(data(encode_limit(CapsuleType.WT_DATA_BLOCKED, 2 + number)))
                await asyncio.sleep(0.03)
                stream.send(b"x")
            assert peer.closed is None

    testing.run(main())
