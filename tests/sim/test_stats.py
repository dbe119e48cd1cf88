"""What ``Server.stats`` counts, and that no total goes down whatever ends, in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.protocol.raw import raw_client, settle
from tests.support.totals import Watch, totals

import wtio
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Mapping

V4 = "https://127.0.0.1/"


async def stay(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def echo(session: wtio.WebTransportSession) -> None:
    async def answer(stream: wtio.WebTransportStream) -> None:
        await stream.write(data=await stream.read_all(), end_stream=True)

    async def take(stream: wtio.WebTransportReceiveStream) -> None:
        data = await stream.read_all()
        async with await session.create_unidirectional_stream() as back:
            await back.write(data=data)

    await session.serve_streams(answer, unidirectional=take, datagrams=session.send_datagram)


def counted(counts: Mapping[Any, int]) -> dict[Any, int]:
    """Those that are not 0."""
    return {name: number for name, number in counts.items() if number}


# -- what is counted


def test_what_sessions_move_is_counted_and_stays_when_they_end() -> None:
    async def main() -> None:
        network = Network()
        server = await network.serve(echo)
        watch = Watch(server)
        before = watch.look()
        assert not any(totals(before).values())
        for count in (1, 2):
            async with network.connect() as session:
                for _ in range(3):
                    stream = await session.create_bidirectional_stream()
                    await stream.write(data=b"x" * 1000, end_stream=True)
                    assert len(await stream.read_all()) == 1000
                async with await session.create_unidirectional_stream() as one_way:
                    await one_way.write(data=b"y" * 100)
                back = await anext(session.incoming_unidirectional_streams())
                assert await back.read_all() == b"y" * 100
                for _ in range(4):
                    session.send_datagram(b"z" * 10)
                    await session.receive_datagram()
                stats = watch.look()
                assert (stats.sessions_open, stats.connections_open) == (1, 1)
                assert stats.sessions_opened_total == count
            for _ in range(2):
                # Then the connection is forgotten.
                await asyncio.sleep(30)
                stats = watch.look()
                assert (stats.sessions_open, stats.connections_open) == (0, 0)
                assert counted(stats.sessions_closed_total) == {"peer": count}
                assert counted(stats.connections_closed_total) == {"application": count}
                assert stats.streams_received_total == {"bidirectional": 3 * count, "unidirectional": count}
                assert stats.streams_opened_total == {"bidirectional": 0, "unidirectional": count}
                assert stats.stream_received_bytes_total == stats.stream_sent_bytes_total == 3100 * count
                assert stats.datagrams_received_total == stats.datagrams_sent_total == 4 * count
                assert stats.datagram_received_bytes_total == stats.datagram_sent_bytes_total == 40 * count
                assert stats.udp_received_bytes_total > 3140 * count + 1200
                assert stats.udp_sent_bytes_total > 3140 * count + 1200
                assert stats.packets_received_total > 10
                assert stats.packets_sent_total > 10
                assert stats.packets_lost_total == 0
                assert not server._drivers[0].endpoint.connections
        await server.close()
        assert totals(watch.look()) == totals(stats)

    testing.run(main())


def test_lost_packets_are_counted() -> None:
    async def main() -> None:
        network = Network(seed=3)
        network.to_client.loss = 0.1

        async def send(session: wtio.WebTransportSession) -> None:
            async with await session.create_unidirectional_stream() as stream:
                await stream.write_all(data=bytes(300_000))
            await session.wait_closed()

        async with network.serve(send) as server, network.connect() as session:
            await (await anext(session.incoming_unidirectional_streams())).read_all()
            assert server.stats().packets_lost_total > 10

    testing.run(main())


def test_datagrams_are_counted_by_why_they_were_dropped() -> None:
    limits = wtio.Limits(datagram_receive_count=2, datagram_send_buffer=2000)

    async def main() -> None:
        network = Network()
        timeouts = wtio.Timeouts(datagram_send=0.5)
        async with network.serve(stay, limits=limits, timeouts=timeouts) as server, network.connect() as session:
            for _ in range(5):
                session.send_datagram(b"unread")
            await asyncio.sleep(1)
            (served,) = server.sessions
            # More than the queue holds leaves at once.
            for _ in range(100):
                served.send_datagram(bytes(1000))
            await asyncio.sleep(1)
            stats = server.stats()
            assert stats.datagrams_received_total == 5
            assert stats.datagrams_dropped_total["incoming"] == 3
            assert stats.datagrams_dropped_total["outgoing"] > 50
            # None was lost on its way through the queue.
            assert stats.datagrams_sent_total + sum(stats.datagrams_dropped_total.values()) - 3 == 100
            dropped = stats.datagrams_dropped_total
        assert server.stats().datagrams_dropped_total == dropped

    testing.run(main())


@pytest.mark.unaudited("its peer is a raw one")
def test_sessions_are_counted_by_who_ended_them_and_requests_by_status() -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        if session.path == "/local":
            return
        await session.wait_closed()

    async def admit(request: wtio.SessionRequest) -> None:
        if request.path.startswith("/4"):
            await request.reject(int(request.path[1:]))
        if request.path == "/fails":
            raise RuntimeError("a fault of the application")

    async def main() -> None:
        network = Network()
        async with network.serve(handler, admit=admit) as server:
            for path in ("peer", "local"):
                async with network.connect(f"https://localhost/{path}") as session:
                    if path == "local":
                        await session.wait_closed()
            for refused in ("404", "404", "418", "fails"):
                with pytest.raises(wtio.SessionRejectedError):
                    await network.connect(f"https://localhost/{refused}")
            async with raw_client(network) as peer:
                peer.request()
                await settle()
                # An incomplete frame of type DATA before a header section: the connection is lost.
                peer.open(b"\x00\x05a", bidirectional=True)
                await settle()
            stats = Watch(server).look()
            # A side that breaks the protocol has the connection closed by the other.
            assert stats.sessions_closed_total == {"peer": 1, "local": 2, "transport": 0}
            assert stats.sessions_rejected_total == {404: 2, 418: 1, 500: 1}
            assert stats.requests_waiting == 0

    testing.run(main())


# -- connections


@pytest.mark.unaudited("most of its clients are refused", entirely=True)
def test_clients_that_are_refused_are_counted_by_cause() -> None:
    async def refused(network: Network, server: wtio.Server) -> dict[str, int]:
        with suppress(wtio.ConnectError):
            await network.connect(V4, timeouts=wtio.Timeouts(connect=2))
        return counted(Watch(server).look().connections_refused_total)

    async def main() -> None:
        for cause, limits in {
            "capacity": wtio.Limits(connections=1, retry_percentage=100),
            "address": wtio.Limits(connections_per_address=1),
            "rate": wtio.Limits(handshakes_per_address=1),
            "memory": wtio.Limits(server_memory=1_500_000),
        }.items():
            network = Network()
            async with network.serve(stay, limits=limits) as server, AsyncExitStack() as stack:
                with suppress(wtio.ConnectionRefused):
                    for _ in range(30):
                        await stack.enter_async_context(network.connect(V4))
                assert await refused(network, server) == {cause: 2}, cause

    testing.run(main())


@pytest.mark.unaudited("no session comes about")
def test_handshakes_that_fail_are_counted_by_cause() -> None:
    async def main() -> None:
        network = Network()
        timeouts = wtio.Timeouts(handshake=3)
        limits = wtio.Limits(retry_percentage=0)
        async with network.serve(stay, timeouts=timeouts, limits=limits) as server:
            watch = Watch(server)
            with pytest.raises(wtio.CertificateError):
                await network.connect(V4, tls=wtio.ClientTLS(certificate_hashes=["00" * 32]))
            await asyncio.sleep(1)
            stats = watch.look()
            assert counted(stats.handshakes_failed_total) == {"tls": 1}
            assert stats.retries_total == stats.connections_validated_total == 1
            # The client gets the Retry, and hears nothing more.
            network.after(0.015, network.to_client.update, loss=1.0)
            with pytest.raises(wtio.HandshakeTimeout):
                await network.connect(V4, timeouts=wtio.Timeouts(connect=8))
            await asyncio.sleep(1)
            stats = watch.look()
            assert stats.handshakes_failed_total["timeout"] >= 1
            assert stats.connections_half_open == 0
            await asyncio.sleep(30)
            assert watch.look().handshakes_failed_total["timeout"] >= 1

    testing.run(main())


@pytest.mark.unaudited("its connections are lost")
def test_connections_are_counted_by_how_they_ended() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(stay, timeouts=wtio.Timeouts(idle=5, without_session=2)) as server:
            watch = Watch(server)
            async with network.connect(V4):
                pass
            async with raw_client(network):
                await asyncio.sleep(4)
            async with network.client() as client:
                session = await client.connect(V4)
                network.blackout(20)
                await asyncio.sleep(10)
                stats = watch.look()
                assert counted(stats.connections_closed_total) == {"application": 1, "local": 1, "idle": 1}
                await session.abort()
            assert counted(stats.sessions_closed_total) == {"peer": 1, "transport": 1}

    testing.run(main())


@pytest.mark.unmeasured
def test_no_total_goes_down_whatever_comes_and_goes() -> None:
    async def main() -> None:
        network = Network(seed=7, loss=0.05)
        limits = wtio.Limits(sessions=12)

        async def visit(number: int) -> None:
            with suppress(wtio.WebTransportError):
                async with network.connect(V4 if number % 2 else "https://localhost/") as session:
                    stream = await session.create_bidirectional_stream()
                    await stream.write(data=bytes(20_000), end_stream=number % 3 == 0)
                    session.send_datagram(bytes(100))
                    await asyncio.sleep(0.2 + number % 5 / 10)

        server = await network.serve(echo, limits=limits)
        watch = Watch(server)
        looking = asyncio.ensure_future(watch.look_every(0.01))
        for _ in range(4):
            await asyncio.gather(*(visit(number) for number in range(15)))
            await asyncio.sleep(3)
        leaving = [asyncio.ensure_future(visit(number)) for number in range(10)]
        await asyncio.sleep(0.3)
        await server.close()
        await asyncio.wait(leaving)
        await asyncio.sleep(5)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        stats = watch.look()
        assert stats.sessions_opened_total > 30
        assert stats.sessions_rejected_total[429] > 0

    testing.run(main())


@pytest.mark.unaudited("its engine fails")
def test_totals_outlive_an_engine_that_fails() -> None:
    async def main() -> None:
        network = Network()
        async with AsyncExitStack() as stack:
            server = await network.serve(echo)
            session = await stack.enter_async_context(network.connect())
            stream = await session.create_bidirectional_stream()
            await stream.write(data=bytes(1000), end_stream=True)
            await stream.read_all()
            watch = Watch(server)
            watch.look()
            (driver,) = server._drivers
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            driver.endpoint.sabotage()
            driver.drive()
            with pytest.raises(RuntimeError):
                await server.wait_closed()
            stats = server.stats()
            assert stats.stream_received_bytes_total == 1000
            assert stats.connections_opened_total == 1
            network.blackout(60)

    testing.run(main())


# -- the rest


@pytest.mark.unaudited("its budget leaves no room for a full window", entirely=True)
def test_memory_is_there_if_there_is_a_budget() -> None:
    async def main() -> None:
        network = Network()
        for limit in (10_000_000, None):
            async with network.serve(stay, limits=wtio.Limits(server_memory=limit)) as server, network.connect():
                stats = server.stats()
                assert stats.memory_limit_bytes == limit
                figures = (stats.memory_used_bytes, stats.memory_held_bytes, stats.memory_promised_bytes)
                assert all(figure is not None and figure > 0 for figure in figures) == (limit is not None)
                assert stats.connections_shed_total == 0

    testing.run(main())


def test_figures_can_be_had_before_the_start_and_after_the_end() -> None:
    async def main() -> None:
        network = Network()
        server = network.serve(stay)
        assert not any(totals(server.stats()).values())
        async with server, network.connect():
            pass
        await asyncio.sleep(60)
        assert server.stats().sessions_opened_total == 1

    testing.run(main())


def test_a_snapshot_is_frozen_and_what_it_was() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(stay) as server:
            before = server.stats()
            async with network.connect():
                pass
            await asyncio.sleep(1)
            assert before.sessions_opened_total == 0
            assert before.sessions_closed_total == {"peer": 0, "local": 0, "transport": 0}
            with pytest.raises(dataclasses.FrozenInstanceError):
                before.sessions_open = 3  # type: ignore[misc]

    testing.run(main())
