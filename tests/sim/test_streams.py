"""Streams and datagrams on the simulated network, in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from typing import Any

import pytest

import wtio
from wtio import testing
from wtio.testing import Network, session_pair

CONDITIONS: dict[str, dict[str, Any]] = {
    "clean": {},
    "loss": {"loss": 0.05},
    "reorder": {"reorder": 0.3},
    "duplicate": {"duplicate": 0.3},
    "jitter": {"jitter": 0.03},
    "all": {"loss": 0.05, "reorder": 0.1, "duplicate": 0.1, "jitter": 0.01},
    "slow": {"bandwidth": 1_000_000.0, "latency": 0.05},
    "small packets": {"mtu": 1280},
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.unmeasured
def test_bytes_arrive_whole_and_in_order(name: str, seed: int) -> None:
    async def main() -> None:
        data = random.Random(seed).randbytes(700_000)
        async with session_pair(seed=seed, **CONDITIONS[name]) as (client, server):

            async def echo() -> None:
                stream = await anext(server.incoming_bidirectional_streams())
                async with stream:
                    async for chunk in stream:
                        await stream.write(data=chunk)

            echoing = asyncio.ensure_future(echo())
            stream = await client.create_bidirectional_stream()
            writing = asyncio.ensure_future(stream.write_all(data=data, end_stream=True))
            back = await stream.read_all()
            assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
            await writing
            await echoing

    testing.run(main())


@pytest.mark.trap("S12")
def test_streams_that_nobody_reads_do_not_stop_the_others() -> None:
    async def main() -> None:
        limits = wtio.Limits(
            stream_send_buffer=64 * 1024, connection_send_buffer=256 * 1024, stream_receive_window=8 * 1024
        )
        async with session_pair(limits=limits) as (client, server):
            # More than the connection's queue holds, and each of them stuck.
            unread = [await client.create_unidirectional_stream() for _ in range(10)]
            writings = [asyncio.ensure_future(stream.write_all(data=bytes(200_000))) for stream in unread]
            stuck = [await anext(server.incoming_unidirectional_streams()) for _ in unread]
            await asyncio.sleep(10)
            assert not any(writing.done() for writing in writings)
            stream = await client.create_unidirectional_stream()
            writing = asyncio.ensure_future(stream.write_all(data=b"x" * 300_000, end_stream=True))
            reader = await anext(server.incoming_unidirectional_streams())
            assert await reader.read_all() == b"x" * 300_000
            await writing
            for left in stuck:
                await left.read()
            for writing in writings:
                writing.cancel()
            await asyncio.gather(*writings, return_exceptions=True)

    testing.run(main())


@pytest.mark.parametrize("seed", range(5))
def test_many_streams_both_ways_through_loss(seed: int) -> None:
    async def main() -> None:
        async with session_pair(seed=seed, **CONDITIONS["all"]) as (client, server):

            async def send(session: wtio.WebTransportSession) -> None:
                for number in range(60):
                    stream = await session.create_unidirectional_stream()
                    await stream.write(data=number.to_bytes(2, "big") * (number + 1), end_stream=True)

            async def receive(session: wtio.WebTransportSession) -> set[int]:
                numbers = set()
                for _ in range(60):
                    stream = await anext(session.incoming_unidirectional_streams())
                    data = await stream.read_all()
                    number = int.from_bytes(data[:2], "big")
                    assert data == number.to_bytes(2, "big") * (number + 1)
                    numbers.add(number)
                return numbers

            results = await asyncio.gather(send(client), send(server), receive(client), receive(server))
            assert results[2] == results[3] == set(range(60))

    testing.run(main())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.trap("S1")
def test_reset_delivers_code_and_stream_through_loss(seed: int) -> None:
    async def main() -> None:
        async with session_pair(seed=seed, **CONDITIONS["all"]) as (client, server):
            stream = await client.create_bidirectional_stream()
            await stream.reset(error_code=0xFFFFFFFF)
            # Nothing was written, yet the peer learns of the stream.
            incoming = await anext(server.incoming_bidirectional_streams())
            with pytest.raises(wtio.StreamResetError) as caught:
                await incoming.read()
            assert caught.value.error_code == 0xFFFFFFFF
            assert not incoming.can_read
            await incoming.write(data=b"the other way", end_stream=True)
            assert await stream.read_all() == b"the other way"

    testing.run(main())


@pytest.mark.trap("S13")
def test_stop_receiving_ends_a_waiting_writer() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await client.create_unidirectional_stream()
            writing = asyncio.ensure_future(stream.write(data=bytes(32 * 1024 * 1024)))
            incoming = await anext(server.incoming_unidirectional_streams())
            await incoming.read(max_bytes=10)
            await incoming.stop_receiving(error_code=5)
            with pytest.raises(wtio.StreamStoppedError) as caught:
                await writing
            assert caught.value.error_code == 5
            assert 0 < stream.last_write_accepted < 32 * 1024 * 1024
            assert not stream.can_write
            with pytest.raises(wtio.StreamClosedError):
                await incoming.read()

    testing.run(main())


@pytest.mark.trap("S12", "S13")
def test_writer_is_held_back_by_a_slow_reader_and_other_streams_are_not() -> None:
    async def main() -> None:
        limits = wtio.Limits(stream_receive_window=64 * 1024, stream_send_buffer=64 * 1024)
        async with session_pair(limits=limits) as (client, server):
            slow = await client.create_unidirectional_stream()
            writing = asyncio.ensure_future(slow.write(data=bytes(1024 * 1024)))
            await asyncio.sleep(10)
            assert not writing.done()
            incoming = await anext(server.incoming_unidirectional_streams())
            assert slow.diagnostics().bytes_written <= 2 * 64 * 1024 + 4096
            fast = await client.create_bidirectional_stream()
            await fast.write(data=b"quick", end_stream=True)
            other = await anext(server.incoming_bidirectional_streams())
            assert await other.read_all() == b"quick"
            received = 0
            while received < 1024 * 1024:
                received += len(await incoming.read())
            await writing

    testing.run(main())


@pytest.mark.trap("H19")
def test_peers_stream_limit_holds_and_credit_comes_back() -> None:
    async def main() -> None:
        limits = wtio.Limits(bidirectional_streams=3)
        async with session_pair(limits=limits) as (client, server):
            streams = [await client.create_bidirectional_stream() for _ in range(3)]
            with pytest.raises(wtio.StreamCreditError):
                await client.create_bidirectional_stream(wait_until_available=False)
            opening = asyncio.ensure_future(client.create_bidirectional_stream())
            await asyncio.sleep(5)
            assert not opening.done()
            for stream in streams:
                await stream.write(data=b"x", end_stream=True)
            incoming = [await anext(server.incoming_bidirectional_streams()) for _ in range(3)]
            for stream in incoming:
                assert await stream.read_all() == b"x"
                await stream.close()
            for stream in streams:
                assert await stream.read_all() == b""
            await opening

    testing.run(main())


def test_cancelled_reads_lose_no_byte() -> None:
    async def main() -> None:
        data = bytes(range(256)) * 40
        async with session_pair(latency=0.005) as (client, server):
            stream = await client.create_unidirectional_stream()

            async def send() -> None:
                for position in range(0, len(data), 64):
                    await stream.write(data=data[position : position + 64])
                    await asyncio.sleep(0.003)
                await stream.close()

            sending = asyncio.ensure_future(send())
            incoming = await anext(server.incoming_unidirectional_streams())
            received = bytearray()
            turn = 0
            while incoming.can_read:
                turn += 1
                calls = [
                    incoming.read(max_bytes=37),
                    incoming.readexactly(n=150),
                    incoming.readuntil(separator=b"\xff\x00\x01"),
                    incoming.readline(),
                ]
                for position, call in enumerate(calls):
                    if position == turn % 4:
                        try:
                            async with asyncio.timeout(0.001 * (turn % 5)):
                                received += await call
                        except TimeoutError:
                            pass
                        except asyncio.IncompleteReadError as error:
                            received += error.partial
                    else:
                        call.close()
            assert received == data
            await sending

    testing.run(main())


@pytest.mark.trap("S10")
def test_cancelled_write_says_how_much_was_accepted() -> None:
    async def main() -> None:
        data = random.Random(1).randbytes(8 * 1024 * 1024)
        async with session_pair() as (client, server):
            stream = await client.create_unidirectional_stream()
            writing = asyncio.ensure_future(stream.write(data=data, end_stream=True))
            incoming = await anext(server.incoming_unidirectional_streams())
            await asyncio.sleep(1)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await writing
            accepted = stream.last_write_accepted
            assert caught.value.bytes_accepted == accepted  # type: ignore[attr-defined]
            assert f"{accepted} were accepted" in caught.value.__notes__[0]
            assert 0 < accepted < len(data)
            writing = asyncio.ensure_future(stream.write(data=data[accepted:], end_stream=True))
            assert await incoming.read_all() == data
            await writing

    testing.run(main())


@pytest.mark.trap("S18")
def test_priority_sends_the_higher_order_first() -> None:
    async def main() -> None:
        async with session_pair(bandwidth=500_000.0) as (client, server):
            low = await client.create_unidirectional_stream(send_order=-1)
            high = await client.create_unidirectional_stream(send_order=1)
            assert (low.send_order, high.send_order) == (-1, 1)
            await low.write(data=b"l" * 200_000, end_stream=True)
            await high.write(data=b"h" * 200_000, end_stream=True)
            finished: list[bytes] = []

            async def drain(stream: wtio.WebTransportReceiveStream) -> None:
                finished.append((await stream.read_all())[:1])

            streams = [await anext(server.incoming_unidirectional_streams()) for _ in range(2)]
            await asyncio.gather(*map(drain, streams))
            assert finished == [b"h", b"l"]

    testing.run(main())


@pytest.mark.trap("D2")
def test_datagrams_are_bounded_and_counted() -> None:
    async def main() -> None:
        limits = wtio.Limits(datagram_receive_count=10)
        async with session_pair(limits=limits) as (client, server):
            for number in range(30):
                client.send_datagram(bytes([number]))
            await asyncio.sleep(1)
            received = [(await server.receive_datagram())[0] for _ in range(10)]
            assert received == list(range(20, 30))
            assert server.stats().datagrams_dropped_incoming == 20
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await server.receive_datagram()

    testing.run(main())


@pytest.mark.trap("D3")
def test_datagram_limit_grows_with_the_path() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            await asyncio.sleep(5)
            limit = client.max_datagram_size
            assert limit > 1200
            client.send_datagram(bytes(limit))
            assert len(await server.receive_datagram()) == limit
            with pytest.raises(wtio.DatagramTooLargeError, match=rf"datagram of {limit + 1} bytes.*{limit}") as caught:
                client.send_datagram(bytes(limit + 1))
            assert (caught.value.size, caught.value.limit) == (limit + 1, limit)

    testing.run(main())


@pytest.mark.trap("D4")
def test_old_datagrams_expire_unsent() -> None:
    async def main() -> None:
        timeouts = wtio.Timeouts(datagram_send=0.2)
        async with session_pair(timeouts=timeouts, bandwidth=50_000.0) as (client, _):
            for _ in range(500):
                client.send_datagram(bytes(1000))
            await asyncio.sleep(5)
            assert client.stats().datagrams_expired_outgoing > 0

    testing.run(main())


@pytest.mark.trap("S8")
def test_several_tasks_share_incoming_datagrams_and_streams() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):

            async def take_datagram() -> bytes:
                return await server.receive_datagram()

            async def take_stream() -> bytes:
                return await (await anext(server.incoming_bidirectional_streams())).read_all()

            tasks = [asyncio.ensure_future(take_datagram()) for _ in range(5)]
            tasks += [asyncio.ensure_future(take_stream()) for _ in range(5)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[5].cancel()
            for number in range(4):
                client.send_datagram(b"d%d" % number)
                stream = await client.create_bidirectional_stream()
                await stream.write(data=b"s%d" % number, end_stream=True)
            results = await asyncio.gather(*tasks[1:5], *tasks[6:])
            assert sorted(results) == [b"d0", b"d1", b"d2", b"d3", b"s0", b"s1", b"s2", b"s3"]

    testing.run(main())


def test_same_seed_gives_the_same_fate() -> None:
    async def fates() -> list[int]:
        network = Network(seed=5, loss=0.5)
        wire = network._wire
        results = []
        for _ in range(200):
            before = wire.counts.lost
            wire.send(("10.0.0.1", 1), ("10.0.0.2", 2), b"x", 0)
            results.append(wire.counts.lost - before)
        return results

    first = testing.run(fates())
    assert first == testing.run(fates())
    assert 60 < sum(first) < 140


def test_a_deadlock_is_named() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wtio._driver.simulated._DEADLOCK_SECONDS", 0.01)
        with pytest.raises(testing.DeadlockError):
            testing.run(main())


def test_an_answer_leaves_in_the_turn_of_the_loop_in_which_its_writer_woke() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            sent_by_next_turn = asyncio.get_running_loop().create_future()

            async def answer() -> int:
                async with await anext(server.incoming_bidirectional_streams()) as stream:
                    assert await stream.readexactly(n=5) == b"first"
                    await stream.write(data=b"first")
                    assert await stream.readexactly(n=6) == b"second"
                    before = server.stats().packets_sent
                    # Comes after everything that has lined up by now, and before whatever the write would ask for.
                    asyncio.get_running_loop().call_soon(
                        lambda: sent_by_next_turn.set_result(server.stats().packets_sent)
                    )
                    await stream.write(data=b"second")
                    return before

            answering = asyncio.ensure_future(answer())
            async with await client.create_bidirectional_stream() as stream:
                await stream.write(data=b"first")
                await stream.readexactly(n=5)
                await stream.write(data=b"second")
                await stream.readexactly(n=6)
            assert await sent_by_next_turn > await answering

    testing.run(main())


@pytest.mark.parametrize(
    ("size", "is_kept"), [(64 * 1024 - 1, False), (64 * 1024, True), (256 * 1024, True), (256 * 1024 + 1, False)]
)
def test_large_bytes_travel_without_a_copy_and_are_let_go(size: int, is_kept: bool) -> None:
    async def main() -> None:
        async with session_pair(limits=wtio.Limits(stream_send_buffer=1024 * 1024)) as (client, server):
            data = bytes(number * 7 % 251 for number in range(size))
            before = sys.getrefcount(data)
            near = await client.create_bidirectional_stream()
            await near.write(data=data, end_stream=True)
            assert (sys.getrefcount(data) > before) is is_kept
            far = await anext(server.incoming_bidirectional_streams())
            assert await far.read_all() == data
            await near.wait_acked()
            assert sys.getrefcount(data) == before

    testing.run(main())


@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "plain"])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["bidirectional", "unidirectional"])
@pytest.mark.parametrize("from_server", [False, True], ids=["client", "server"])
def test_streams_that_are_reset_before_anybody_takes_them_give_no_credit_back(
    from_server: bool, bidirectional: bool, reliable: bool
) -> None:
    limits = wtio.Limits(bidirectional_streams=10, unidirectional_streams=10)

    async def main() -> None:
        network = Network()
        accepted: asyncio.Future[wtio.WebTransportSession] = asyncio.get_running_loop().create_future()

        async def handler(session: wtio.WebTransportSession) -> None:
            accepted.set_result(session)
            await session.wait_closed()

        async with (
            network.serve(handler, limits=limits, reset_stream_at=reliable),
            network.connect("https://localhost/", limits=limits, reset_stream_at=reliable) as client,
        ):
            server = await accepted
            near, far = (server, client) if from_server else (client, server)
            create = near.create_bidirectional_stream if bidirectional else near.create_unidirectional_stream
            incoming = far.incoming_bidirectional_streams() if bidirectional else far.incoming_unidirectional_streams()

            async def open_and_reset(most: int) -> int:
                for number in range(most):
                    try:
                        async with asyncio.timeout(20):
                            stream = await create()
                    except TimeoutError:
                        return number
                    await stream.write(data=b"x")
                    await asyncio.sleep(number % 2)
                    await stream.close(error_code=number)
                return most

            assert await open_and_reset(1000) == 10
            assert len(incoming) == 10
            # Each one that is taken and looked at makes room for another.
            for number in range(10):
                stream = await anext(incoming)
                with pytest.raises(wtio.StreamResetError) as caught:
                    await stream.read_all()
                assert caught.value.error_code == number
                await stream.close()
            assert await open_and_reset(1000) == 10

    testing.run(main())
