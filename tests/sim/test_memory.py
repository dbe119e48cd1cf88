"""The memory budget of a server: newcomers are refused, the largest holder is closed, and the others live on."""

from __future__ import annotations

import asyncio
import logging

import pytest

import wtio
from wtio import testing
from wtio.testing import Network

KIB = 1024
MIB = 1024 * KIB
# A connection with its session and its first window.
ALONE = 96 * KIB
# For what waits to be acknowledged when a newcomer arrives.
SLACK = 32 * KIB
# Room for eleven clients: newcomers leave a sixteenth to those who are in.
ROOM = (11 * ALONE + SLACK) * 16 // 15
SMALL = wtio.Limits(connection_receive_window=64 * KIB, stream_receive_window=64 * KIB)


async def hold(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


def figures(server: wtio.Server) -> wtio.ServerMemory:
    assert server.memory is not None
    return server.memory


TIGHT = pytest.mark.unaudited("its budget leaves no room for a full window", entirely=True)


@TIGHT
def test_clients_that_would_not_fit_are_refused_until_others_leave() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(hold, limits=wtio.Limits(server_memory=ROOM)) as server:
            sessions = [await network.connect() for _ in range(11)]
            await asyncio.sleep(1)
            memory = figures(server)
            assert (memory.limit, memory.used, memory.connections_refused) == (ROOM, 11 * ALONE, 0)
            assert memory.promised == 11 * 48 * KIB
            assert memory.held == memory.used - memory.promised
            with pytest.raises(wtio.ConnectionRefused):
                await network.connect()
            # At both of its addresses.
            assert figures(server).connections_refused == 2
            await sessions.pop().close()
            await asyncio.sleep(1)
            assert figures(server).used == 10 * ALONE
            sessions.append(await network.connect())
            for session in sessions:
                await session.close()

    testing.run(main())


@TIGHT
def test_all_sockets_of_a_server_share_its_budget() -> None:
    async def main() -> None:
        network = Network()
        network.add_host("four", "127.0.0.1")
        network.add_host("six", "::1")
        tls = wtio.dev_certificate(["four", "six"])
        limits = wtio.Limits(server_memory=ROOM)
        async with network.serve(hold, ["127.0.0.1", "::1"], tls=tls.server_tls(), limits=limits) as server:
            urls = ["https://four/", "https://six/"] * 6
            sessions = [await network.connect(url, tls=tls.client_tls()) for url in urls[:11]]
            with pytest.raises(wtio.ConnectionRefused):
                await network.connect(urls[11], tls=tls.client_tls())
            memory = figures(server)
            assert memory.used == 11 * ALONE == memory.held + memory.promised
            assert memory.connections_refused == 1
            for session in sessions:
                await session.close()

    testing.run(main())


@TIGHT
def test_the_client_for_which_most_waits_is_closed_and_the_others_live_on(caplog: pytest.LogCaptureFixture) -> None:
    async def push(session: wtio.WebTransportSession) -> None:
        if session.path == "/greedy":
            async with asyncio.TaskGroup() as group:
                for _ in range(12):
                    stream = await session.create_unidirectional_stream()
                    group.create_task(stream.write(data=bytes(MIB)))
                    await asyncio.sleep(1)
        else:
            async for stream in session.incoming_bidirectional_streams():
                await stream.write(data=await stream.read_all(), end_stream=True)

    async def main() -> None:
        network = Network()
        async with network.serve(push, limits=wtio.Limits(server_memory=2 * MIB)) as server:
            modest = await network.connect(limits=SMALL)
            # It reads nothing, and its windows are small, so all of that stays at the server.
            greedy = await network.connect("https://localhost/greedy", limits=SMALL)
            info = await greedy.wait_closed()
            assert "short of memory" in info.reason
            memory = figures(server)
            assert memory.connections_closed == 1
            assert memory.used == ALONE
            stream = await modest.create_bidirectional_stream()
            await stream.write(data=b"still here", end_stream=True)
            assert await stream.read_all() == b"still here"
            assert greedy.report.end is not None
            assert greedy.report.end.code == 0x107
            await modest.close()

    with caplog.at_level(logging.WARNING, "wtio.server"):
        testing.run(main())
    (line,) = [record.message for record in caplog.records if "H3_EXCESSIVE_LOAD" in record.message]
    assert "Limits.server_memory" in line


@TIGHT
def test_what_nobody_reads_stays_within_the_budget_and_is_given_back() -> None:
    async def keep(session: wtio.WebTransportSession) -> None:
        kept = []
        async for stream in session.incoming_unidirectional_streams():
            kept.append(stream)  # noqa: PERF401

    async def fill(session: wtio.WebTransportSession) -> None:
        stream = await session.create_unidirectional_stream()
        await stream.write(data=bytes(20 * MIB))

    async def main() -> None:
        network = Network()
        async with network.serve(keep, limits=wtio.Limits(server_memory=32 * MIB)) as server:
            sessions = [await network.connect() for _ in range(30)]
            tasks = [asyncio.create_task(fill(session)) for session in sessions]
            await asyncio.sleep(5)
            memory = figures(server)
            assert 30 * 2 * ALONE < memory.used <= 32 * MIB
            assert memory.held > 30 * ALONE
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for session in sessions:
                await session.close()
            await asyncio.sleep(10)
            assert figures(server).used == 0

    testing.run(main())


@TIGHT
def test_a_stream_whose_bytes_were_dropped_does_not_look_whole() -> None:
    read: list[bytes | wtio.SessionClosed] = []

    async def hoard(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_unidirectional_streams())
        sending = [await session.create_unidirectional_stream() for _ in range(12)]
        await asyncio.gather(*(one.write(data=bytes(MIB)) for one in sending), return_exceptions=True)
        try:
            read.append(await stream.read_all())
        except wtio.SessionClosed as error:
            read.append(error)

    async def main() -> None:
        network = Network()
        async with network.serve(hoard, limits=wtio.Limits(server_memory=2 * MIB)):
            # It reads nothing, so the server runs short of memory.
            client = await network.connect(limits=SMALL)
            stream = await client.create_unidirectional_stream()
            await stream.write(data=b"whole", end_stream=True)
            await client.wait_closed()
            await asyncio.sleep(1)
        (end,) = read
        assert isinstance(end, wtio.SessionClosed), end
        assert "short of memory" in str(end)

    testing.run(main())


def test_without_a_budget_there_are_no_figures() -> None:
    async def main() -> None:
        network = Network()
        server = network.serve(hold, limits=wtio.Limits(server_memory=None))
        assert server.memory is None
        async with server, network.connect():
            assert server.memory is None

    testing.run(main())
