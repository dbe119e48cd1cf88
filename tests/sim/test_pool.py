"""Pools whose connections do not answer, or have no stream left: another one is made beside them."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio import testing
from wtio._connection.base import Connection
from wtio._core import CloseCause
from wtio._words import Loss
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

URL = "https://localhost/"
# Long enough for whatever a pool does on its own.
A_WHILE = 15


def run(main: Coroutine[Any, Any, None]) -> None:
    testing.run(asyncio.wait_for(main, 600))


async def echo(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        await stream.write(data=await stream.read_all(), end_stream=True)


async def says(session: wtio.WebTransportSession, data: bytes = b"x") -> bytes:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=data, end_stream=True)
    return await stream.read_all()


async def opened(client: wtio.Client) -> wtio.WebTransportSession:
    return await client.connect(URL, allow_pooling=True)


async def finish(streams: list[wtio.WebTransportStream]) -> None:
    for stream in streams:
        await stream.write(data=b"y", end_stream=True)
        assert await stream.read_all() == b"xy"


def kill(server: wtio.Server) -> None:
    """Let a server vanish, as a process that is killed does."""
    for driver in server._drivers:
        driver.close()


@asynccontextmanager
async def killed(network: Network) -> AsyncIterator[tuple[wtio.Client, wtio.WebTransportSession]]:
    """A client with a session to a server that has just vanished."""
    server = await network.serve(echo)
    async with network.client() as client:
        session = await opened(client)
        kill(server)
        yield client, session
    for connection in list(server._service.connections):
        connection.abandon(Loss(CloseCause.LOCAL, 0, ""), 0, "")


@asynccontextmanager
async def full(
    network: Network, *, connections: int = 10
) -> AsyncIterator[tuple[wtio.Client, wtio.WebTransportSession, list[wtio.WebTransportStream]]]:
    """A client with a session that has opened all streams that its connection may have."""
    limits = wtio.Limits(bidirectional_streams=8, session_bidirectional_streams=100, connections=connections)
    async with network.serve(echo, limits=limits) as server, network.client() as client:
        session = await opened(client)
        streams: list[wtio.WebTransportStream] = []
        while True:
            try:
                stream = await session.create_bidirectional_stream(wait_until_available=False)
            except wtio.StreamCreditError:
                break
            await stream.write(data=b"x")
            streams.append(stream)
        assert len(server.sessions) == 1
        yield client, session, streams


def test_a_server_that_was_restarted_serves_before_the_old_connection_is_noticed_to_be_dead() -> None:
    async def main() -> None:
        network = Network()
        async with killed(network) as (client, old), network.serve(echo) as server:
            new = await opened(client)
            assert await says(new) == b"x"
            assert not old.is_closed
            # What came to the new server is this session and nothing else.
            assert len(server.sessions) == 1
            # From now on it is known, and the new one is shared.
            others = [await opened(client) for _ in range(5)]
            assert client.connections == 2
            assert [await says(session) for session in others] == [b"x"] * 5
            await old.wait_closed()
            assert client.connections == 1

    run(main())


@pytest.mark.unaudited("its connection is lost, or ends where nothing passes")
def test_a_server_that_stays_away_fails_the_connect_and_leaves_no_dial_behind() -> None:
    async def main() -> None:
        network = Network()
        async with killed(network) as (client, old):
            for _ in range(2):
                with pytest.raises(wtio.HandshakeTimeout, match="beside one that does not answer"):
                    await opened(client)
                # Attempts end in the next iteration.
                await asyncio.sleep(0.1)
                assert client.connections == 1
            assert not old.is_closed

    run(main())


@pytest.mark.parametrize("seconds", [0.1, 1, 3, 6])
def test_whichever_is_ready_first_after_an_outage_serves(seconds: float) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo) as server, network.client() as client:
            old = await opened(client)
            network.conditions.blackout = True
            connecting = [asyncio.ensure_future(opened(client)) for _ in range(3)]
            await asyncio.sleep(seconds)
            connecting += [asyncio.ensure_future(opened(client)) for _ in range(3)]
            network.conditions.blackout = False
            sessions = await asyncio.gather(*connecting)
            assert [await says(session) for session in (old, *sessions)] == [b"x"] * 7
            await asyncio.sleep(A_WHILE)
            # Connections that serve nobody are gone, on both sides, and so are requests that came to nothing.
            assert client.connections == len({id(session._link) for session in (old, *sessions)})
            assert client.connections <= 2
            assert len(server._service.connections) == client.connections
            assert len(server.sessions) == 7

    run(main())


def test_however_many_wait_one_connection_is_made_beside_a_silent_one() -> None:
    async def main() -> None:
        network = Network()
        async with killed(network) as (client, _):
            most = 0
            connecting = [asyncio.ensure_future(opened(client)) for _ in range(300)]
            for _ in range(90):
                await asyncio.sleep(0.1)
                most = max(most, client.connections)
            # Of one address family after the other.
            assert most <= 3
            async with network.serve(echo):
                results = await asyncio.gather(*connecting, return_exceptions=True)
                assert all(isinstance(result, wtio.WebTransportSession | wtio.ConnectError) for result in results)
                async with await opened(client) as session:
                    assert await says(session) == b"x"

    run(main())


def test_a_connection_without_streams_left_is_left_for_a_new_one() -> None:
    async def main() -> None:
        network = Network()
        async with full(network) as (client, old, streams):
            new = await opened(client)
            assert client.connections == 2
            assert await says(new) == b"x"
            # The next ones need not find out.
            others = [await opened(client) for _ in range(5)]
            assert client.connections == 2
            await finish(streams)
            for session in (new, *others):
                await session.close()
            # There are streams again.
            assert client.connections == 1
            another = await opened(client)
            assert client.connections == 1
            assert await says(another) == b"x"
            assert not old.is_closed

    run(main())


def test_a_stream_that_comes_free_in_time_serves_and_the_dial_is_dropped() -> None:
    async def main() -> None:
        network = Network()
        async with full(network) as (client, old, streams):
            # The first address of the host does not answer.
            network.add_host("localhost", "::9", "::1")
            connecting = asyncio.ensure_future(opened(client))
            await asyncio.sleep(0.4)
            assert client.connections == 2
            await finish(streams)
            session = await connecting
            assert session._link is old._link
            assert await says(session) == b"x"
            await asyncio.sleep(A_WHILE)
            assert client.connections == 1

    run(main())


def test_where_no_other_connection_is_to_be_had_a_full_one_is_waited_for() -> None:
    async def main() -> None:
        network = Network()
        async with full(network, connections=1) as (client, old, streams):
            connecting = asyncio.ensure_future(opened(client))
            await asyncio.sleep(3)
            assert not connecting.done()
            assert client.connections == 1
            await finish(streams)
            session = await connecting
            assert session._link is old._link
            assert client.connections == 1

    run(main())


def test_a_server_that_takes_its_time_is_not_asked_twice() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(None) as server, network.client() as client:
            connecting = [asyncio.ensure_future(opened(client))]
            accepted = [await (await anext(server)).accept()]
            await connecting[0]
            connecting.append(asyncio.ensure_future(opened(client)))
            request = await anext(server)
            await asyncio.sleep(8)
            assert client.connections == 1
            assert not server._service._requests
            accepted.append(await request.accept())
            await connecting[1]
            assert client.connections == 1

    run(main())


def test_a_lossy_path_still_gives_every_session_and_leaves_no_idle_connection() -> None:
    async def main() -> None:
        network = Network(loss=0.25, duplicate=0.05, reorder=0.1, seed=5)
        timeouts = wtio.Timeouts(connect=60)
        async with network.serve(echo), network.client(timeouts=timeouts) as client:
            sessions = [await opened(client) for _ in range(20)]
            assert [await says(session) for session in sessions] == [b"x"] * 20
            await asyncio.sleep(60)
            assert client.connections == len({id(session._link) for session in sessions})

    run(main())


@pytest.mark.parametrize("when", [0.0, 0.1, 0.25, 0.27, 0.28, 0.29, 0.3, 0.31, 0.33, 0.36, 0.4, 1.0])
@pytest.mark.parametrize("comes_back", [False, True])
@pytest.mark.unaudited("its connection is lost, or ends where nothing passes")
@pytest.mark.unmeasured
def test_a_cancelled_connect_beside_a_silent_connection_leaves_nothing(when: float, comes_back: bool) -> None:
    async def main() -> None:
        network = Network()
        async with killed(network) as (client, old):
            server = await network.serve(echo) if comes_back else None
            connecting = asyncio.ensure_future(opened(client))
            await asyncio.sleep(when)
            if not connecting.done():
                connecting.cancel()
                await asyncio.wait([connecting])
                assert connecting.cancelled()
                await asyncio.sleep(1)
                assert client.connections == 1
                assert not client._pool._dials
            else:
                await (await connecting).close()
            assert not old.is_closed
            if server is not None:
                async with await opened(client) as session:
                    assert await says(session) == b"x"
                await server.close()

    run(main())


@pytest.mark.parametrize("when", [0.0, 0.1, 0.25, 0.27, 0.28, 0.29, 0.3, 0.31, 0.33, 0.36, 0.4])
def test_a_cancelled_connect_beside_a_full_connection_leaves_nothing(when: float) -> None:
    async def main() -> None:
        network = Network()
        async with full(network) as (client, _, _):
            connecting = [asyncio.ensure_future(opened(client)) for _ in range(2)]
            await asyncio.sleep(when)
            connecting[0].cancel()
            # The other one is served all the same.
            async with await connecting[1] as session:
                assert await says(session) == b"x"
            if not connecting[0].cancelled():
                await (await connecting[0]).close()
            await asyncio.sleep(1)
            assert client.connections == 1
            assert not client._pool._dials

    run(main())


@pytest.mark.unaudited("its connection is lost, or ends where nothing passes")
def test_closing_the_client_ends_those_who_wait_beside_a_silent_connection() -> None:
    async def main() -> None:
        network = Network()
        async with killed(network) as (client, _):
            connecting = [asyncio.ensure_future(opened(client)) for _ in range(3)]
            await asyncio.sleep(1)
            await client.close()
            results = await asyncio.gather(*connecting, return_exceptions=True)
            assert all(isinstance(result, wtio.ConnectError) for result in results)
            assert client.connections == 0

    run(main())


def test_full_and_silent_connections_are_freed_without_the_collector() -> None:
    async def main() -> None:
        network = Network()
        async with full(network) as (client, _, _):
            await (await opened(client)).close()
        async with killed(network) as (client, _):
            with pytest.raises(wtio.HandshakeTimeout):
                await opened(client)

    gc.collect()
    gc.disable()
    try:
        run(main())
        assert not [item for item in gc.get_objects() if isinstance(item, Connection) and item.is_client]
    finally:
        gc.enable()


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("gap", [0.0, 0.001, 0.015, 0.03])
def test_sessions_asked_for_at_once_beyond_what_a_connection_takes_are_all_served(limit: int, gap: float) -> None:
    """Also where the request of one is refused while another's, on the same new connection, is not answered yet."""

    async def main() -> None:
        network = Network(latency=0.02)
        limits = wtio.Limits(sessions_per_connection=limit)
        async with network.serve(echo, limits=limits) as server, network.client() as client:

            async def one(number: int) -> wtio.WebTransportSession:
                await asyncio.sleep(number * gap)
                return await client.connect(URL, allow_pooling=True)

            sessions = await asyncio.gather(*(one(number) for number in range(5)))
            assert len(server.sessions) == 5
            for session in sessions:
                await session.close()

    testing.run(asyncio.wait_for(main(), 1000))


def test_a_request_that_crosses_the_end_of_its_connection_is_asked_again() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo) as server, network.client() as client:
            first = await opened(client)
            [accepted] = server.sessions
            crossing = asyncio.ensure_future(opened(client))
            await asyncio.sleep(0)
            # The server knows of no other session, and closes the connection, too.
            await accepted.abort()
            second = await crossing
            assert await says(second) == b"x"
            assert first.is_closed
            assert client.connections == 1

    run(main())


def test_a_request_that_crosses_the_end_of_its_connection_is_asked_again_where_that_end_was_lost() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(echo) as server, network.client() as client:
            first = await opened(client)
            [accepted] = server.sessions
            network.conditions.blackout = True
            await accepted.abort()
            # By then the server has forgotten the connection, and answers what comes for it with a stateless reset.
            await asyncio.sleep(3)
            crossing = asyncio.ensure_future(opened(client))
            await asyncio.sleep(0)
            network.conditions.blackout = False
            second = await crossing
            assert await says(second) == b"x"
            assert first.is_closed
            assert client.connections == 1

    run(main())
