"""The invariant that tests ask for at their end holds where nothing goes wrong, and notices what is missing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.support.credit import Baseline, fill

import wtio
from wtio import _core, testing
from wtio.testing import Network, session_pair

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.support.audit import Audit

LIMITS = wtio.Limits(
    bidirectional_streams=4,
    unidirectional_streams=4,
    stream_receive_window=16 * 1024,
    connection_receive_window=64 * 1024,
)


def run(main: Coroutine[object, object, None]) -> None:
    testing.run(asyncio.wait_for(main, 3000))


def test_a_new_connection_has_all_its_credit_again_and_again() -> None:
    async def main() -> None:
        async with session_pair(limits=LIMITS) as pair:
            baseline = Baseline.of(*pair)
            for _ in range(3):
                await baseline.check()

    run(main())


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_streams_that_come_to_their_end_give_all_credit_back(loss: float) -> None:
    async def main() -> None:
        network = Network(seed=1, loss=loss)
        async with session_pair(network, limits=LIMITS) as (client, server):
            baseline = Baseline.of(client, server)
            for near, far in ((client, server), (server, client)) * 20:
                outgoing = await near.create_bidirectional_stream()
                await outgoing.write(data=bytes(3000), end_stream=True)
                incoming = await anext(far.incoming_bidirectional_streams())
                await incoming.write(data=await incoming.read_all(), end_stream=True)
                assert len(await outgoing.read_all()) == 3000
                one_way = await near.create_unidirectional_stream()
                await one_way.write(data=bytes(3000), end_stream=True)
                assert len(await (await anext(far.incoming_unidirectional_streams())).read_all()) == 3000
            network.conditions.loss = 0
            await baseline.check()

    run(main())


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_stream_that_is_still_open_is_noticed(bidirectional: bool, side: str) -> None:
    async def main() -> None:
        async with session_pair(limits=LIMITS) as (client, server):
            baseline = Baseline.of(client, server)
            session = client if side == "client" else server
            stream: wtio.WebTransportSendStream
            if bidirectional:
                stream = await session.create_bidirectional_stream()
            else:
                stream = await session.create_unidirectional_stream()
            await stream.write(data=b"open")
            with pytest.raises(AssertionError, match=f"the {side} may open only 3 of 4"):
                await baseline.check()

    run(main())


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.unaudited("it leaves data unread on purpose")
def test_a_window_that_is_not_open_is_noticed(side: str) -> None:
    async def main() -> None:
        # Room for streams that fill the window beside those that are unread.
        async with session_pair(limits=replace(LIMITS, unidirectional_streams=8)) as (client, server):
            near, far = (client, server) if side == "client" else (server, client)
            streams = [await near.create_unidirectional_stream() for _ in range(3)]
            for stream in streams:
                await stream.write(data=bytes(8000), end_stream=True)
            unread = [await anext(far.incoming_unidirectional_streams()) for _ in streams]
            with pytest.raises(AssertionError, match=f"the {side} gets no more than 36864 bytes"):
                await fill(near, far.limits)
            assert len(unread) == 3

    run(main())


# -- the look at every connection before it closes


def test_every_connection_is_looked_at_before_it_closes(audit: Audit) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(None) as server:
            for _ in range(2):
                connecting = asyncio.ensure_future(opened(network))
                await (await anext(server)).accept()
                await (await connecting).close()
        assert audit.checked == 2
        # And one that the test leaves open.
        async with network.serve(None) as server:
            connecting = asyncio.ensure_future(opened(network))
            await (await anext(server)).accept()
            kept.append(await connecting)

    kept: list[wtio.WebTransportSession] = []
    run(main())
    assert audit.checked == 3
    assert not audit.failures


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_stream_that_does_not_end_with_its_session_is_found(audit: Audit, side: str, bidirectional: bool) -> None:
    async def main() -> None:
        async with session_pair(limits=LIMITS) as pair:
            session = pair[side == "server"]
            # Of no session, and so it does not end with this one.
            stream = session._core.open_stream(bidirectional, b"", None)
            assert stream is not None
            kept.append(stream)

    kept: list[_core.Stream] = []
    run(main())
    assert any("streams are kept" in failure for failure in audit.failures), audit
    audit.failures.clear()
    audit.checked += 1


async def opened(network: Network) -> wtio.WebTransportSession:
    return await network.connect()
