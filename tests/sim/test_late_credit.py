"""Credit of a shared connection that comes back after a session has ended is announced, too, to the last stream."""

from __future__ import annotations

import asyncio

import pytest
from tests.protocol.pair import DRAFT15_CLIENT, FLOW_CONTROL
from tests.protocol.raw import RawPeer, raw_client, settle

import wtio
from wtio import testing
from wtio.testing import Network

LIMITS = wtio.Limits(bidirectional_streams=8, unidirectional_streams=8)
SETTINGS = [*DRAFT15_CLIENT, *FLOW_CONTROL]
NO_ERROR = 0x52E4A40FA8DB


def streams_left(peer: RawPeer, *, bidirectional: bool) -> int:
    """How many streams the peer may open; they are open afterwards."""
    count = 0
    while peer.core.open_stream(bidirectional, b"", None) is not None:
        count += 1
    return count


async def _session(peer: RawPeer, server: wtio.Server) -> wtio.WebTransportSession:
    peer.request()
    return await (await anext(server)).accept()


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_streams_that_arrive_after_their_session_has_ended_give_their_credit_back() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(None, limits=LIMITS) as server, raw_client(network, SETTINGS) as peer:
            await _session(peer, server)
            session = await _session(peer, server)
            await settle()
            connect = peer.raw_streams[session.session_id]
            closing = asyncio.ensure_future(session.close())
            await settle()
            connect.send(b"", end=True)
            await closing
            await settle()
            late = peer.open_data_stream(session.session_id, b"late")
            await settle()
            late.core.reset(NO_ERROR)
            await settle()
            assert streams_left(peer, bidirectional=False) == 8

    testing.run(asyncio.wait_for(main(), 1000))


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_a_refused_request_that_its_client_ends_late_gives_its_stream_back() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(None, limits=LIMITS) as server, raw_client(network, SETTINGS) as peer:
            await _session(peer, server)
            stream = peer.request()
            await (await anext(server)).reject(403)
            await settle()
            stream.core.reset(NO_ERROR)
            await settle()
            assert streams_left(peer, bidirectional=True) == 8

    testing.run(asyncio.wait_for(main(), 1000))
