"""Clients that come: who is asked for his address, who is refused, what counts by address, and how long it may take."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from wtio import _core

V4 = "https://127.0.0.1/"
V6 = "https://[::1]/"


async def held(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


def figures(server: wtio.Server) -> _core.EndpointStats:
    (driver,) = server._drivers
    return driver.endpoint.stats()


@pytest.mark.parametrize("limits", [wtio.Limits(retry_percentage=0), wtio.Limits(unvalidated_connections=0)])
def test_a_server_may_ask_every_client_for_its_address(limits: wtio.Limits) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(held, limits=limits) as server:
            for _ in range(2):
                async with network.connect() as session:
                    assert not session.is_closed
            assert figures(server).retried == 2
            assert figures(server).validated == 2

    testing.run(main())


def test_a_client_that_comes_back_is_not_asked_for_its_address_again() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(retry_percentage=0)
        async with network.serve(held, limits=limits) as server, network.client() as client:
            for _ in range(3):
                async with client.connect(V4):
                    await asyncio.sleep(1)
            assert figures(server).retried == 1
            assert figures(server).validated == 3

    testing.run(main())


def test_newcomers_show_their_address_when_most_connections_are_taken() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(connections=4, retry_percentage=50)
        async with network.serve(held, limits=limits) as server, AsyncExitStack() as stack:
            for retried in (0, 0, 1, 2):
                await stack.enter_async_context(network.connect(V4))
                assert figures(server).retried == retried
            with pytest.raises(wtio.ConnectionRefused):
                await network.connect(V4)
            assert figures(server).refused_capacity == 1

    testing.run(main())


def test_a_connection_that_is_over_leaves_its_place_at_once() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(connections=1, connections_per_address=2, retry_percentage=100)
        async with network.serve(held, limits=limits):
            for _ in range(20):
                async with network.connect() as session:
                    await session.close()
                # What closes a connection is half a trip ahead of what begins another one.
                await asyncio.sleep(0.001)

    testing.run(main())


@pytest.mark.unaudited("its client is heard by nobody", entirely=True)
def test_a_handshake_has_a_timeout_of_its_own() -> None:
    async def main() -> None:
        network = Network()
        server_timeouts = wtio.Timeouts(handshake=3)
        async with network.serve(held, timeouts=server_timeouts) as server:
            network.to_client.loss = 1.0
            task = asyncio.create_task(network.connect(V4, timeouts=wtio.Timeouts(connect=20)).__aenter__())
            await asyncio.sleep(2.9)
            assert figures(server).half_open_connections == 1
            assert len(server._service.connections) == 1
            await asyncio.sleep(0.2)
            assert figures(server).half_open_connections == 0
            assert figures(server).handshake_timeouts == 1
            assert not server._service.connections
            # It tries again all the time, and gets in when it hears the server.
            network.to_client.loss = 0.0
            task.cancel()
            async with network.connect():
                await asyncio.sleep(5)
                assert figures(server).open_connections == 1

    testing.run(main())


def test_an_address_has_so_many_connections() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(connections_per_address=2)
        async with network.serve(held, limits=limits) as server, network.connect(V4), network.connect(V4):
            with pytest.raises(wtio.ConnectionRefused):
                await network.connect(V4)
            async with network.connect(V6):
                assert figures(server).refused_address == 1

    testing.run(main())


def test_an_address_begins_so_many_handshakes_in_a_second() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(handshakes_per_address=4)
        async with network.serve(held, limits=limits) as server, network.client() as client:
            results = await asyncio.gather(*(client.connect(V4) for _ in range(8)), return_exceptions=True)
            refused = [result for result in results if isinstance(result, wtio.ConnectionRefused)]
            assert len(refused) == figures(server).refused_rate == 4
            async with network.connect(V6):
                pass
            await asyncio.sleep(1)
            async with network.connect(V4):
                pass

    testing.run(main())


def test_an_address_has_so_many_sessions_and_those_that_are_over_do_not_count() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(sessions_per_address=2)
        async with network.serve(held, limits=limits) as server:
            for _ in range(3):
                async with network.connect(V4), network.connect(V4):
                    with pytest.raises(wtio.SessionRejectedError) as caught:
                        await network.connect(V4)
                    assert caught.value.status == 429
                    async with network.connect(V6):
                        pass
                await asyncio.sleep(1)
            assert server._service.address_sessions.refused_total == 3
            assert not server._service.address_sessions._counts

    testing.run(main())


@pytest.mark.unmeasured
@pytest.mark.unaudited("it takes too long to look at a thousand connections", entirely=True)
def test_a_thousand_sessions_behind_one_ipv4_address_get_in_at_once() -> None:
    count = 1000

    async def main() -> None:
        network = Network()
        async with network.serve(held) as server, network.client() as client:
            sessions = await asyncio.gather(*(client.connect(V4) for _ in range(count)))
            assert not any(session.is_closed for session in sessions)
            assert server._service.session_count == count
            stats = figures(server)
            assert (stats.open_connections, stats.known_addresses) == (count, 1)
            assert stats.refused_address == stats.refused_rate == stats.refused_capacity == 0

    testing.run(main())
