"""Servers that share a secret and an address, each with a slot or a server ID of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wtio
from wtio import testing
from wtio.testing import Network

from .test_restart import SECRET, kill, now, send, wait

pytestmark = pytest.mark.unaudited("its connection is lost")

PLACES: list[dict[str, Any]] = [{"slot": 3}, {"server_id": b"server 7"}, {"server_id": b"server 7", "slot": 3}]
OTHERS: list[dict[str, Any]] = [{"slot": 4}, {"server_id": b"server 8"}, {"server_id": b"server 8", "slot": 3}, {}]


@pytest.mark.parametrize("place", PLACES)
def test_clients_of_a_killed_server_know_once_its_place_is_taken_again(place: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network(latency=0.02)
        server = await network.serve(wait, secret=SECRET, **place)
        session = await network.connect()
        sending = asyncio.ensure_future(send(session))
        await asyncio.sleep(1)
        kill(server)
        async with network.serve(wait, secret=SECRET, **place):
            assert await sending - now() < 1
            assert "stateless reset" in (await session.wait_closed()).reason

    testing.run(main())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("other", OTHERS)
def test_a_server_in_another_place_ends_no_connection(place: dict[str, Any], other: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network()
        server = await network.serve(wait, secret=SECRET, **place)
        session = await network.connect()
        kill(server)
        # As if packets had gone astray.
        async with network.serve(wait, secret=SECRET, **other):
            began = now()
            ended = await send(session)
        assert ended - began > wtio.Timeouts().idle - 1
        assert "nothing was heard" in (await session.wait_closed()).reason

    testing.run(main())


def test_a_token_is_good_in_every_place() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(retry_percentage=0)
        async with network.client() as client:
            for slot in range(3):
                async with (
                    network.serve(wait, secret=SECRET, limits=limits, slot=slot) as server,
                    client.connect("https://localhost/"),
                ):
                    stats = server.stats()
                    assert stats.connections_validated_total == 1
                    # Only the first one had to ask the client to show its address.
                    assert stats.retries_total == (slot == 0)

    testing.run(main())


def test_a_client_that_shows_its_address_to_another_server_than_the_one_that_asked_gets_in() -> None:
    async def main() -> None:
        # Too short for the client to try again by itself.
        network = Network(latency=0.1)
        limits = wtio.Limits(retry_percentage=0)
        first = await network.serve(wait, secret=SECRET, limits=limits, slot=0)
        connecting = asyncio.ensure_future(network.connect("https://127.0.0.1/"))
        await asyncio.sleep(0.15)
        assert first.stats().retries_total == 1
        kill(first)
        async with network.serve(wait, secret=SECRET, limits=limits, slot=1) as second:
            await (await connecting).close()
            stats = second.stats()
            assert (stats.retries_total, stats.connections_validated_total) == (0, 1)

    testing.run(main())


@pytest.mark.parametrize("place", PLACES)
def test_a_session_with_long_ids_goes_on_from_every_address(place: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network(loss=0.02, seed=3)
        async with network.serve(wait, secret=SECRET, **place), network.connect() as session:
            for _ in range(10):
                network.rebind()
                stream = await session.create_bidirectional_stream()
                await stream.write(data=bytes(10_000), end_stream=True)
                await stream.wait_acked()

    testing.run(main())
