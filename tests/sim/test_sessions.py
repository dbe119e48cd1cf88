"""Sessions on the simulated network: establishing and ending them, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.connecting import dial

import wtio
from wtio import testing
from wtio._connection.sessions import Sessions
from wtio._core import CloseCause
from wtio._words import Loss
from wtio.testing import Network, session_pair

HOSTILE: dict[str, Any] = {"loss": 0.15, "reorder": 0.2, "duplicate": 0.1, "jitter": 0.01}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.trap("H16")
@pytest.mark.unmeasured
def test_handshake_survives_loss_reordering_and_duplication(seed: int) -> None:
    async def main() -> None:
        async with session_pair(seed=seed, **HOSTILE) as (client, server):
            assert client.dialect == server.dialect == "draft15"

    testing.run(main())


@pytest.mark.parametrize("lost", range(8))
@pytest.mark.trap("H16")
def test_loss_of_any_single_early_packet_is_survived(lost: int) -> None:
    async def main() -> None:
        network = Network()
        send = network._wire.send
        count = 0

        def drop_one(source, destination, data, ecn):  # type: ignore[no-untyped-def]
            nonlocal count
            count += 1
            if count - 1 != lost:
                send(source, destination, data, ecn)

        network._wire.send = drop_one  # type: ignore[method-assign]
        async with session_pair(network) as (client, _):
            stream = await client.create_bidirectional_stream()
            await stream.write(data=b"x", end_stream=True)
            await stream.wait_acked()

    testing.run(main())


@pytest.mark.trap("H16")
def test_no_answer_ends_in_handshake_timeout() -> None:
    async def main() -> None:
        network = Network(loss=1.0)
        started = asyncio.get_running_loop().time()
        with pytest.raises(wtio.HandshakeTimeout, match=r"within 3 s \(Timeouts.connect\).*QUIC handshake") as caught:
            await network.connect(timeouts=wtio.Timeouts(connect=3))
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, wtio.ConnectError)
        assert asyncio.get_running_loop().time() - started == pytest.approx(3, abs=0.01)

    testing.run(main())


@pytest.mark.unaudited("no session comes of its connection, which its client gives up at once")
def test_unanswered_request_ends_in_handshake_timeout() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve():
            with pytest.raises(wtio.HandshakeTimeout, match="answer to the session request"):
                await network.connect(timeouts=wtio.Timeouts(connect=5))

    testing.run(main())


@pytest.mark.unaudited("no session comes of its connection, which its client gives up at once")
def test_server_answers_503_when_nobody_takes_the_request() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(timeouts=wtio.Timeouts(request=2)):
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await network.connect()
        assert caught.value.status == 503

    testing.run(main())


@pytest.mark.trap("H17")
def test_ipv4_is_used_where_ipv6_is_dead() -> None:
    async def main() -> None:
        network = Network()

        async def handler(session: wtio.WebTransportSession) -> None:
            await session.wait_closed()

        async with network.serve(handler, "127.0.0.1"):
            started = asyncio.get_running_loop().time()
            async with network.connect("https://localhost/") as session:
                # RFC 8305: the first address has a head start of 250 ms.
                elapsed = asyncio.get_running_loop().time() - started
                assert session.remote_address == ("127.0.0.1", 443)
                assert 0.25 < elapsed < 0.5

    testing.run(main())


@pytest.mark.unaudited("its connection is lost, or ends where nothing passes")
def test_idle_timeout_ends_the_session_on_both_sides() -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network, timeouts=wtio.Timeouts(idle=5)) as (client, server):
            reading = asyncio.ensure_future(client.receive_datagram())
            await asyncio.sleep(60)  # keep-alive holds it
            assert not client.is_closed
            network.conditions.blackout = True
            with pytest.raises(wtio.SessionClosedError, match=r"Timeouts.idle is 5 s") as caught:
                await reading
            assert caught.value.closed_by == "transport"
            assert caught.value.code is None
            assert (await server.wait_closed()).closed_by == "transport"

    testing.run(main())


@pytest.mark.unaudited("its connection is lost, or ends where nothing passes")
def test_without_keep_alive_a_quiet_session_ends() -> None:
    async def main() -> None:
        timeouts = wtio.Timeouts(idle=5, keep_alive=None)
        async with session_pair(timeouts=timeouts) as (client, _):
            started = asyncio.get_running_loop().time()
            info = await client.wait_closed()
            assert info.closed_by == "transport"
            assert asyncio.get_running_loop().time() - started == pytest.approx(5, abs=1)

    testing.run(main())


@pytest.mark.parametrize("closer", ["client", "server"])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.trap("C2")
@pytest.mark.unmeasured
def test_close_code_and_reason_arrive_through_loss(closer: str, seed: int) -> None:
    async def main() -> None:
        async with session_pair(seed=seed, **HOSTILE) as (client, server):
            near, far = (client, server) if closer == "client" else (server, client)
            closing = asyncio.ensure_future(near.close(4711, "enough – 十分"))
            info = await far.wait_closed()
            assert (info.code, info.reason, info.closed_by) == (4711, "enough – 十分", "peer")
            await closing
            assert near.close_info == wtio.CloseInfo(4711, "enough – 十分", "local")

    testing.run(main())


@pytest.mark.trap("C2")
@pytest.mark.unaudited("its connection is lost, or ends where nothing passes")
def test_close_without_an_answer_takes_bounded_time() -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network) as (client, _):
            network.conditions.blackout = True
            started = asyncio.get_running_loop().time()
            await client.close(1, "into the dark")
            assert asyncio.get_running_loop().time() - started <= 2.1

    testing.run(main())


def test_long_reason_is_cut_at_a_character() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            await client.close(1, "ä" * 1000)
            info = await server.wait_closed()
            assert info.reason == "ä" * 512
            assert client.close_info is not None
            assert client.close_info.reason == info.reason

    testing.run(main())


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_abort_ends_without_a_code() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            await client.abort()
            info = await server.wait_closed()
            assert info.code is None
            assert info.closed_by == "peer"
            with pytest.raises(wtio.SessionClosedError):
                await server.create_bidirectional_stream()

    testing.run(main())


def test_drain_is_seen_and_everything_still_works() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            assert not client.is_draining
            await server.drain()
            await client.wait_draining()
            assert client.is_draining
            server.send_datagram(b"still here")
            assert await client.receive_datagram() == b"still here"

    testing.run(main())


def test_wait_draining_ends_with_the_session() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            waiting = asyncio.ensure_future(client.wait_draining())
            await asyncio.sleep(0)
            await server.close(3, "bye")
            with pytest.raises(wtio.SessionClosedError):
                await waiting

    testing.run(main())


@pytest.mark.trap("C5")
def test_every_pending_call_ends_with_the_same_error() -> None:
    async def main() -> None:
        limits = wtio.Limits(bidirectional_streams=1, unidirectional_streams=2)
        async with session_pair(limits=limits) as (client, server):
            reader = await client.create_bidirectional_stream()
            await reader.write(data=b"x")
            writer, _ = [await client.create_unidirectional_stream() for _ in range(2)]

            async def fill() -> None:
                await writer.write(data=bytes(64 * 1024 * 1024))

            calls = {
                "read": reader.read(),
                "write": fill(),
                "create bidirectional": client.create_bidirectional_stream(),
                "create unidirectional": client.create_unidirectional_stream(),
                "incoming bidirectional": client.incoming_bidirectional_streams().__anext__(),
                "incoming unidirectional": client.incoming_unidirectional_streams().__anext__(),
                "receive datagram": client.receive_datagram(),
                "wait acked": reader.wait_acked(),
            }
            tasks = {name: asyncio.ensure_future(call) for name, call in calls.items()}
            await asyncio.sleep(1)
            pending = {name for name, task in tasks.items() if not task.done()}
            assert pending == calls.keys() - {"wait acked"}
            await server.close(99, "reason")
            for name in pending:
                with pytest.raises(wtio.SessionClosedError) as caught:
                    await tasks[name]
                assert (caught.value.code, caught.value.reason, caught.value.closed_by) == (99, "reason", "peer"), name

    testing.run(main())


def test_finished_streams_are_delivered_before_the_session_ends() -> None:
    async def main() -> None:
        network = Network(loss=0.1, seed=3)

        async def handler(session: wtio.WebTransportSession) -> None:
            stream = await session.create_unidirectional_stream()
            await stream.write(data=b"z" * 100_000, end_stream=True)

        async with network.serve(handler), network.connect() as session:
            stream = await anext(session.incoming_unidirectional_streams())
            assert len(await stream.read_all()) == 100_000
            assert await session.wait_closed() == wtio.CloseInfo(0, "", "peer")

    testing.run(main())


def test_what_arrived_before_the_end_is_still_delivered() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await server.create_unidirectional_stream()
            await stream.write(data=b"last words", end_stream=True)
            server.send_datagram(b"last datagram")
            await server.close()
            await client.wait_closed()
            assert await client.receive_datagram() == b"last datagram"
            incoming = await anext(client.incoming_unidirectional_streams())
            assert await incoming.read_all() == b"last words"
            with pytest.raises(wtio.SessionClosedOK):
                await client.receive_datagram()
            with pytest.raises(wtio.SessionClosedOK):
                await anext(client.incoming_unidirectional_streams())

    testing.run(main())


def test_streams_and_datagrams_before_accept_are_kept() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server:

            async def client() -> None:
                async with network.connect() as session:
                    incoming = await anext(session.incoming_bidirectional_streams())
                    assert await incoming.read(max_bytes=5) == b"early"
                    assert await session.receive_datagram() == b"early too"

            task = asyncio.ensure_future(client())
            request = await anext(server)
            # The client's answer is still on its way when the first stream leaves.
            session = await request.accept()
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"early")
            session.send_datagram(b"early too")
            await task

    testing.run(main())


@pytest.mark.trap("C11")
def test_server_close_says_goodbye_to_every_session() -> None:
    async def main() -> None:
        network = Network()
        ended: list[BaseException] = []

        async def handler(session: wtio.WebTransportSession) -> None:
            try:
                await session.receive_datagram()
            except wtio.SessionClosed as error:
                ended.append(error)
                raise

        async with network.serve(handler) as server:
            sessions = [await network.connect() for _ in range(5)]
            await server.close(7, "maintenance")
            for session in sessions:
                assert await session.wait_closed() == wtio.CloseInfo(7, "maintenance", "peer")
        assert len(ended) == 5

    testing.run(main())


def test_drain_timeout_lets_handlers_finish() -> None:
    async def main() -> None:
        network = Network()
        finished = []

        async def handler(session: wtio.WebTransportSession) -> None:
            await asyncio.sleep(3)
            session.send_datagram(b"done")
            finished.append(session)

        async with network.serve(handler, timeouts=wtio.Timeouts(drain=10)) as server:
            session = await network.connect()
            closing = asyncio.ensure_future(server.close())
            await session.wait_draining()
            assert await session.receive_datagram() == b"done"
            await closing
        assert len(finished) == 1

    testing.run(main())


@pytest.mark.trap("C11")
def test_connection_without_a_session_is_closed() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(timeouts=wtio.Timeouts(without_session=4)) as server:
            connection = await dial(network)
            await asyncio.sleep(3)
            assert not connection.is_lost
            await asyncio.sleep(2)
            assert connection.loss == Loss(
                CloseCause.APPLICATION, wtio.ErrorCodes.H3_NO_ERROR, "no session for too long"
            )
            assert not server._service.connections

    testing.run(main())


@pytest.mark.unaudited("no session comes of its connection, which its client gives up at once")
def test_unanswered_request_counts_as_a_session() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(timeouts=wtio.Timeouts(without_session=2)) as server:
            task = asyncio.ensure_future(_connect(network))
            request = await anext(server)
            await asyncio.sleep(8)
            assert len(server._service.connections) == 1
            await request.reject(404)
            with pytest.raises(wtio.SessionRejectedError):
                await task
            await asyncio.sleep(1)
            assert not server._service.connections

    testing.run(main())


def test_full_server_refuses_connections() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(_wait, limits=wtio.Limits(connections=1)), network.connect():
            with pytest.raises(wtio.ConnectionRefused) as caught:
                await network.connect()
            assert isinstance(caught.value, ConnectionRefusedError)

    testing.run(main())


@pytest.mark.parametrize("congestion", ["tolerant", "cubic", "newreno", "bbr"])
def test_every_congestion_controller_carries_data(congestion: str) -> None:
    async def main() -> None:
        network = Network(loss=0.01, seed=1)
        async with network.serve(_echo, congestion=congestion), network.connect(congestion=congestion) as session:
            stream = await session.create_bidirectional_stream()
            writing = asyncio.ensure_future(stream.write(data=bytes(500_000), end_stream=True))
            assert len(await stream.read_all()) == 500_000
            await writing

    testing.run(main())


def test_unknown_congestion_controller_is_refused() -> None:
    with pytest.raises(ValueError, match="'reno'"):
        Network().connect(congestion="reno")


@pytest.mark.trap("H7")
def test_streams_before_the_answer_are_kept_up_to_the_limit() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server:
            connecting = asyncio.ensure_future(_connect(network, limits=wtio.Limits(early_streams=5)))
            request = await anext(server)
            await asyncio.sleep(1)
            network.conditions.blackout = True
            session = await request.accept()
            await asyncio.sleep(0.001)  # the answer leaves, and is lost
            network.conditions.blackout = False
            streams = [await session.create_unidirectional_stream() for _ in range(12)]
            for number, stream in enumerate(streams):
                await stream.write(data=bytes([number]))
            client = await connecting
            await asyncio.sleep(1)
            refused = [stream for stream in streams if not stream.can_write]
            assert len(refused) == 7
            with pytest.raises(wtio.StreamStoppedError) as caught:
                await refused[0].write(data=b"x")
            assert caught.value.wire_code == wtio.ErrorCodes.WT_BUFFERED_STREAM_REJECTED
            assert caught.value.error_code is None
            kept = [await anext(client.incoming_unidirectional_streams()) for _ in range(5)]
            numbers = {(await stream.readexactly(n=1))[0] for stream in kept}
            assert numbers == {number for number, stream in enumerate(streams) if stream.can_write}

    testing.run(main())


def test_defect_in_one_connection_spares_the_others() -> None:
    async def main() -> None:
        network = Network()
        problems: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with network.serve(_echo) as server:
            broken = await network.connect()
            (victim,) = server._service.connections
            healthy = await network.connect()

            class Defect(Sessions):
                def get(self, session_id: int) -> Any:
                    raise ZeroDivisionError("a defect")

            victim.sessions = Defect(victim.core, victim.loop)
            stream = await broken.create_unidirectional_stream()
            await stream.write(data=b"x")
            info = await broken.wait_closed()
            assert (info.closed_by, info.code) == ("peer", None)
            assert isinstance(problems[0]["exception"], ZeroDivisionError)
            stream = await healthy.create_bidirectional_stream()
            await stream.write(data=b"fine", end_stream=True)
            assert await stream.read_all() == b"fine"

    testing.run(main())


async def _wait(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def _echo(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        async with stream:
            async for chunk in stream:
                await stream.write(data=chunk)


async def _connect(network: Network, *, limits: wtio.Limits | None = None) -> wtio.WebTransportSession:
    return await network.connect(limits=limits)


def test_openers_are_served_in_their_order_and_cancelled_ones_take_nothing() -> None:
    async def main() -> None:
        limits = wtio.Limits(unidirectional_streams=3, session_unidirectional_streams=3)
        async with session_pair(limits=limits) as (client, server):
            served = []

            async def use(number: int) -> None:
                stream = await client.create_unidirectional_stream()
                served.append(number)
                await stream.write(data=b"x", end_stream=True)

            async def take() -> None:
                async for stream in server.incoming_unidirectional_streams():
                    await stream.read_all()

            openers = [asyncio.ensure_future(use(number)) for number in range(300)]
            taking = asyncio.ensure_future(take())
            for number in range(5, 300, 7):
                await asyncio.sleep(0)
                openers[number].cancel()
            results = await asyncio.gather(*openers, return_exceptions=True)
            assert served == [number for number, result in enumerate(results) if result is None]
            assert len(served) > 250
            # Nothing is owed to anybody, and nobody waits.
            assert await asyncio.wait_for(client.create_unidirectional_stream(), 1)
            taking.cancel()

    testing.run(main())


def test_receivers_of_datagrams_are_served_in_their_order() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            order = []

            async def receive(number: int) -> None:
                order.append((number, await server.receive_datagram()))

            receivers = [asyncio.ensure_future(receive(number)) for number in range(20)]
            await asyncio.sleep(0.1)
            receivers[0].cancel()
            for number in range(1, 20):
                client.send_datagram(data=bytes([number]))
            await asyncio.gather(*receivers, return_exceptions=True)
            assert order == [(number, bytes([number])) for number in range(1, 20)]

    testing.run(main())
