"""Clients behind NATs that give them other ports: how soon they are served again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from wtio.testing import Network, run

if TYPE_CHECKING:
    import wtio

LATENCY = 0.01
ROUND_TRIP = 2 * LATENCY
# A client that hears nothing sends again after its round trip, its variance, and the server's longest delay of an
# acknowledgment, all of which it has measured (RFC 9002, section 6.2.1).
AGAIN = ROUND_TRIP + 0.03


async def answer(stream: wtio.WebTransportStream) -> None:
    await stream.write(data=await stream.read_all(), end_stream=True)


async def serve(session: wtio.WebTransportSession) -> None:
    await session.serve_streams(answer)


async def echo(session: wtio.WebTransportSession) -> float:
    """Seconds that a few bytes take there and back."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"who", end_stream=True)
    assert await asyncio.wait_for(stream.read_all(), 60) == b"who"
    return loop.time() - began


def move(pause: float, most: float, *, is_first_answer_lost: bool = False) -> None:
    """Move five times, ``pause`` seconds apart; each first echo takes ``most`` seconds at most."""

    async def main() -> None:
        network = Network(latency=LATENCY)
        async with network.serve(serve), network.connect() as session:
            for _ in range(20):
                await echo(session)
            for _ in range(5):
                network.rebind()
                if is_first_answer_lost:
                    network.blackout(1.6 * ROUND_TRIP, direction="to_client")
                assert await echo(session) < most
                await asyncio.sleep(pause)

    run(main())


@pytest.mark.parametrize("pause", [0, ROUND_TRIP, 0.3])
def test_a_client_that_moves_again_and_again_is_asked_for_at_once_each_time(pause: float) -> None:
    # One round trip until the server knows that it is there, and one for what is on the stream.
    move(pause, 2.1 * ROUND_TRIP)


def test_a_client_that_was_not_heard_at_its_new_port_is_asked_for_with_its_next_packet() -> None:
    move(0.3, AGAIN + 2.1 * ROUND_TRIP, is_first_answer_lost=True)
