"""What one session sends holds up the datagrams of another on its connection no longer than the network does."""

from __future__ import annotations

import asyncio
import statistics
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import testing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# 20 Mbit/s, 30 ms in one direction.
BANDWIDTH = 20_000_000 / 8
LATENCY = 0.03
# The first slow start may lose a few of them.
DATAGRAMS = 500
INTERVAL = 0.02


async def send_bulk(session: wtio.WebTransportSession) -> None:
    """Write to a stream as much as it takes."""
    stream = await session.create_unidirectional_stream()
    while True:
        await stream.write(data=bytes(65_536))


async def send_datagrams(session: wtio.WebTransportSession) -> None:
    """Send datagrams, more than three times as many as the network takes."""
    while True:
        for _ in range(40):
            session.send_datagram(bytes(1100))
        await asyncio.sleep(0.005)


async def read(stream: wtio.WebTransportReceiveStream) -> None:
    while await stream.read():
        pass


def delays(busy: Callable[[wtio.WebTransportSession], Coroutine[object, object, None]], queue: float) -> list[float]:
    """Seconds that datagrams of a session take, which another one keeps busy from the beginning; ``queue`` is how long
    packets may wait in the network."""
    taken: list[float] = []

    async def serve(session: wtio.WebTransportSession) -> None:
        if session.path == "/busy":
            await session.serve_streams(read)
        else:
            async for datagram in session.incoming_datagrams():
                taken.append(asyncio.get_running_loop().time() - float(datagram))  # noqa: PERF401

    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = testing.Network(latency=LATENCY, bandwidth=BANDWIDTH, queue=queue)
        async with network.serve(serve), network.client() as client:
            neighbour = await client.connect("https://localhost/busy", allow_pooling=True)
            session = await client.connect("https://localhost/", allow_pooling=True)
            assert client.connections == 1
            task = asyncio.create_task(busy(neighbour))
            for _ in range(DATAGRAMS):
                session.send_datagram(repr(loop.time()).encode())
                await asyncio.sleep(INTERVAL)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(1)
            await session.close()
            await neighbour.close()

    testing.run(main())
    taken.sort()
    figures = [1000 * value for value in (statistics.median(taken), taken[len(taken) * 99 // 100], taken[-1])]
    print(f"{busy.__name__}, queue {queue:g} s: median, 99 % and most", *(f"{figure:.1f} ms" for figure in figures))
    return taken


@pytest.mark.unmeasured
@pytest.mark.unaudited("bulk is under way when its session closes")
@pytest.mark.parametrize("busy", [send_bulk, send_datagrams])
@pytest.mark.parametrize("queue", [0.02, 0.25])
def test_datagrams_wait_no_longer_than_the_network_makes_them(
    busy: Callable[[wtio.WebTransportSession], Coroutine[object, object, None]], queue: float
) -> None:
    taken = delays(busy, queue)
    # The network loses some of what does not fit into its queue.
    assert len(taken) >= (1.0 if queue > 0.1 else 0.99) * DATAGRAMS
    # The 24 KiB of datagrams that the QUIC core may have take 10 ms. After a loss nothing may leave for a round trip.
    assert statistics.median(taken) <= LATENCY + queue + 0.01
    assert taken[-1] <= LATENCY + queue + 0.01 + 2 * 2 * LATENCY
