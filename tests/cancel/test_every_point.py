"""Each awaitable method, cancelled at every await point and then used again: nothing is lost, doubled or left behind.

All of it runs on the simulated network in virtual time, so that a seed always gives the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from typing import TYPE_CHECKING, Any

import pytest

import wtio
import wtio.testing

from .interrupt import When, interrupted, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

SEEDS = range(6)
WHENS: tuple[When, ...] = ("waiting", "woken")

# Small windows and queues make many await points of every transfer.
TIGHT = wtio.Limits(
    stream_receive_window=4096,
    connection_receive_window=16 * 1024,
    stream_send_buffer=2048,
    connection_send_buffer=8192,
    bidirectional_streams=3,
    unidirectional_streams=3,
)


def text_of_lines(chance: random.Random, size: int) -> bytes:
    """Bytes in which line ends and the separator below are neither rare nor frequent."""
    return bytes(chance.choices(b"ab\n-", weights=[40, 40, 3, 6], k=size))


async def trickle(chance: random.Random, writer: wtio.WebTransportSendStream, data: bytes) -> None:
    """Write in pieces of any size at any time."""
    position = 0
    while position < len(data):
        size = chance.choice((1, 2, 7, 100, 1500, 5000))
        await writer.write(data=data[position : position + size])
        position += size
        if chance.random() < 0.7:
            await asyncio.sleep(chance.random() * 0.03)
    await writer.close()


# -- reading

# A read returns what it took, and b"" at the end.


async def read_exactly(stream: wtio.WebTransportReceiveStream, chance: random.Random) -> bytes:
    try:
        return await stream.readexactly(n=chance.choice((1, 10, 3000, 10_000)))
    except asyncio.IncompleteReadError as error:
        return error.partial


async def read_until(stream: wtio.WebTransportReceiveStream, chance: random.Random) -> bytes:
    try:
        return await stream.readuntil(separator=chance.choice((b"-", b"--", b"-\n-")))
    except asyncio.IncompleteReadError as error:
        return error.partial


async def read_until_limited(stream: wtio.WebTransportReceiveStream, chance: random.Random) -> bytes:
    try:
        return await stream.readuntil(separator=b"--", limit=chance.randrange(1, 40))
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(max_bytes=error.consumed)


async def read_into(stream: wtio.WebTransportReceiveStream, chance: random.Random) -> bytes:
    buffer = bytearray(chance.choice((1, 100, 5000)))
    return bytes(buffer[: await stream.readinto(buffer)])


async def read_next(stream: wtio.WebTransportReceiveStream, chance: random.Random) -> bytes:
    async for chunk in stream:
        return chunk
    return b""


READERS: dict[str, Callable[[wtio.WebTransportReceiveStream, random.Random], Coroutine[Any, Any, bytes]]] = {
    "read": lambda stream, chance: stream.read(),
    "read-some": lambda stream, chance: stream.read(max_bytes=chance.choice((1, 10, 2000))),
    "readexactly": read_exactly,
    "readline": lambda stream, chance: stream.readline(),
    "readuntil": read_until,
    "readuntil-limit": read_until_limited,
    "readinto": read_into,
    "anext": read_next,
}


async def mixed(stream: wtio.WebTransportReceiveStream, chance: random.Random) -> bytes:
    return await chance.choice(list(READERS.values()))(stream, chance)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [*READERS, "mixed"])
@pytest.mark.unmeasured
def test_cancelled_reads_lose_and_double_no_byte(name: str, seed: int) -> None:
    chance = random.Random(seed)
    read = READERS.get(name, mixed)
    data = text_of_lines(chance, 30_000)
    counts = {"finished": 0, "cancelled": 0}

    async def main() -> None:
        conditions: dict[str, Any] = {"loss": 0.05, "jitter": 0.01, "reorder": 0.1} if seed % 2 else {}
        async with wtio.testing.session_pair(seed=seed, limits=TIGHT, **conditions) as (client, server):
            writer = await client.create_unidirectional_stream()
            writing = asyncio.ensure_future(trickle(chance, writer, data))
            reader = await anext(aiter(server.incoming_unidirectional_streams()))
            received = bytearray()
            while True:
                done, piece = await interrupted(read(reader, chance), chance.choice((1, 1, 2, 3)), chance.choice(WHENS))
                counts["finished" if done else "cancelled"] += 1
                if done:
                    assert piece is not None
                    if not piece:
                        break
                    received += piece
                elif chance.random() < 0.5:
                    await asyncio.sleep(chance.random() * 0.02)
            assert received == data
            assert not reader.can_read
            await writing

    wtio.testing.run(main())
    assert counts["cancelled"] > 3
    assert counts["finished"] > 3


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("seed", SEEDS)
def test_cancelled_read_all_keeps_everything(seed: int, when: When) -> None:
    chance = random.Random(seed)
    data = chance.randbytes(50_000)

    async def main() -> None:
        async with wtio.testing.session_pair(seed=seed, limits=TIGHT) as (client, server):
            writer = await client.create_unidirectional_stream()
            writing = asyncio.ensure_future(trickle(chance, writer, data))
            reader = await anext(aiter(server.incoming_unidirectional_streams()))
            attempts = 0
            while True:
                # Later and later, through every await point it has.
                done, everything = await interrupted(reader.read_all(), attempts // 3 + 1, when)
                attempts += 1
                if done:
                    break
            assert everything == data
            assert attempts > 3
            await writing

    wtio.testing.run(main())


# -- writing


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("method", ["write", "write_all"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.trap("S10")
@pytest.mark.unmeasured
def test_cancelled_writes_lose_and_double_no_byte(seed: int, method: str, when: When) -> None:
    # What was accepted is a prefix, and the caller can ask how long it is.
    chance = random.Random(seed)
    data = chance.randbytes(60_000)
    cancelled = 0

    async def main() -> None:
        nonlocal cancelled
        conditions: dict[str, Any] = {"loss": 0.05, "jitter": 0.01, "reorder": 0.1} if seed % 2 else {}
        async with wtio.testing.session_pair(seed=seed, limits=TIGHT, **conditions) as (client, server):
            writer = await client.create_bidirectional_stream()
            reader = await anext(aiter(server.incoming_bidirectional_streams()))
            reading = asyncio.ensure_future(slowly(chance, reader))
            position = 0
            while writer.can_write:
                call: Coroutine[Any, Any, None]
                rest = data[position:]
                if method == "write":
                    call = writer.write(data=rest, end_stream=True)
                else:
                    call = writer.write_all(data=rest, chunk_size=chance.choice((1, 100, 3000)), end_stream=True)
                done, _ = await interrupted(call, chance.choice((1, 1, 2, 5)), when)
                if done:
                    assert writer.last_write_accepted == len(rest)
                else:
                    cancelled += 1
                    # The end is not sent with a part of the data.
                    assert writer.can_write
                    assert writer.last_write_accepted < len(rest) or not rest
                position += writer.last_write_accepted
            assert position == len(data)
            assert await reading == data

    wtio.testing.run(main())
    assert cancelled > 3


async def slowly(chance: random.Random, reader: wtio.WebTransportReceiveStream) -> bytes:
    received = bytearray()
    while chunk := await reader.read(max_bytes=chance.choice((100, 1000, 5000))):
        received += chunk
        await asyncio.sleep(chance.random() * 0.02)
    return bytes(received)


def test_cancelled_write_tells_how_much_was_accepted() -> None:
    async def main() -> None:
        async with wtio.testing.session_pair(limits=TIGHT) as (client, server):
            writer = await client.create_unidirectional_stream()
            data = random.Random(1).randbytes(100_000)
            writing = asyncio.ensure_future(writer.write(data=data, end_stream=True))
            await asyncio.sleep(1)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await writing
            accepted = writer.last_write_accepted
            assert 0 < accepted < len(data)
            assert caught.value.bytes_accepted == accepted  # type: ignore[attr-defined]
            assert any(str(accepted) in note for note in caught.value.__notes__)
            assert accepted == writer.diagnostics().bytes_written
            await writer.close()
            reader = await anext(aiter(server.incoming_unidirectional_streams()))
            assert await reader.read_all() == data[:accepted]

    wtio.testing.run(main())


def test_timeout_of_a_write_tells_how_much_was_accepted() -> None:
    async def main() -> None:
        async with wtio.testing.session_pair(limits=TIGHT) as (client, server):
            writer = await client.create_unidirectional_stream()
            data = random.Random(1).randbytes(100_000)
            reader = await anext(aiter(server.incoming_unidirectional_streams()))
            received = bytearray()
            position = 0
            while position < len(data):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(writer.write(data=data[position:]), 0.1)
                position += writer.last_write_accepted
                received += await reader.readexactly(n=min(1000, position - len(received)))
            await writer.close()
            assert received + await reader.read_all() == data
            assert writer.diagnostics().bytes_written == len(data)

    wtio.testing.run(main())


@pytest.mark.parametrize("when", WHENS)
def test_cancelled_wait_acked_can_be_waited_for_again(when: When) -> None:
    async def main() -> None:
        async with wtio.testing.session_pair(limits=TIGHT) as (client, server):
            writer = await client.create_unidirectional_stream()
            await writer.write(data=b"data", end_stream=True)
            for _ in range(5):
                done, _ = await interrupted(writer.wait_acked(), 1, when)
                assert not done or writer.diagnostics().send_state == "acked"
            await writer.wait_acked()
            assert writer.diagnostics().bytes_acknowledged == 4
            reader = await anext(aiter(server.incoming_unidirectional_streams()))
            assert await reader.read_all() == b"data"

    wtio.testing.run(main())


@pytest.mark.parametrize("code", [7, None])
@pytest.mark.parametrize("when", WHENS)
def test_cancelled_wait_stopped_can_be_waited_for_again(when: When, code: int | None) -> None:
    async def main(point: int) -> None:
        async with wtio.testing.session_pair() as (client, server):
            writer = await client.create_bidirectional_stream()
            await writer.write(data=b"x")
            reader = await anext(aiter(server.incoming_bidirectional_streams()))
            stopping = asyncio.ensure_future(stop_after(reader, code, 0.5))
            # So many that what the engine keeps for them has to be swept.
            for _ in range(100):
                done, seen = await interrupted(writer.wait_stopped(), point, when)
                if done:
                    assert seen == code
                if not writer.can_write:
                    break
                await writer.write(data=b"y")
            assert await writer.wait_stopped() == code
            await stopping

    for point in (1, 2):
        wtio.testing.run(main(point))


async def stop_after(reader: wtio.WebTransportStream, code: int | None, seconds: float) -> None:
    await asyncio.sleep(seconds)
    if code is None:
        reader._core.stop(int(wtio.ErrorCodes.H3_REQUEST_CANCELLED))
    else:
        await reader.stop_receiving(error_code=code)


# -- methods that never wait have no await point


@pytest.mark.parametrize(
    "call",
    [
        lambda stream: stream.reset(error_code=1),
        lambda stream: stream.stop_receiving(error_code=1),
        lambda stream: stream.close(),
        lambda stream: stream.close(error_code=1),
        lambda stream: stream.read(max_bytes=0),
        lambda stream: stream.write(data=b"small", end_stream=True),
        lambda stream: stream.session.abort(),
        lambda stream: stream.session.drain(),
        lambda stream: stream.session.create_bidirectional_stream(),
    ],
)
@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_methods_that_need_not_wait_do_not(call: Callable[[wtio.WebTransportStream], Coroutine[Any, Any, Any]]) -> None:
    async def main() -> None:
        async with wtio.testing.session_pair() as (client, _):
            stream = await client.create_bidirectional_stream()
            done, _ = await interrupted(call(stream), 1, "waiting")
            assert done

    wtio.testing.run(main())


# -- streams


@pytest.mark.parametrize("form", ["bidirectional", "unidirectional"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.trap("S7")
def test_cancelled_opening_opens_nothing(seed: int, form: str) -> None:
    # Only three streams are allowed at once, so opening has to wait for the end of others.
    chance = random.Random(seed)

    async def main() -> None:
        async with wtio.testing.session_pair(seed=seed, limits=TIGHT) as (client, server):
            create = getattr(client, f"create_{form}_stream")
            opened: list[int] = []
            seen: list[int] = []
            cancelled = 0

            async def consume() -> None:
                async for stream in getattr(server, f"incoming_{form}_streams")():
                    seen.append(stream.stream_id)
                    await asyncio.sleep(chance.random() * 0.1)
                    assert await stream.read_all() == b"%d" % stream.stream_id
                    await stream.close()

            consuming = asyncio.ensure_future(consume())
            while len(opened) < 40:
                done, stream = await interrupted(create(), chance.choice((1, 1, 2)), chance.choice(WHENS))
                if not done:
                    cancelled += 1
                    await asyncio.sleep(chance.random() * 0.02)
                    continue
                assert stream is not None
                opened.append(stream.stream_id)
                await stream.write(data=b"%d" % stream.stream_id, end_stream=True)
                if form == "bidirectional":
                    await stream.stop_receiving()
                await stream.wait_acked()
            await until(lambda: len(seen) == len(opened))
            # Ids without gaps: nothing was opened that nobody got.
            assert opened == list(range(opened[0], opened[0] + 4 * len(opened), 4))
            assert seen == opened
            assert cancelled > 3
            consuming.cancel()

    wtio.testing.run(main())


@pytest.mark.parametrize("acceptors", [1, 3])
@pytest.mark.parametrize("form", ["bidirectional", "unidirectional"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.trap("S7", "S8")
@pytest.mark.unmeasured
def test_cancelled_accepting_loses_no_stream(seed: int, form: str, acceptors: int) -> None:
    chance = random.Random(seed)
    count = 60

    async def main() -> None:
        async with wtio.testing.session_pair(seed=seed, jitter=0.02) as (client, server):
            seen: list[int] = []

            async def accept() -> None:
                incoming = aiter(getattr(server, f"incoming_{form}_streams")())
                while len(seen) < count:
                    done, stream = await interrupted(anext_of(incoming), chance.choice((1, 1, 2)), chance.choice(WHENS))
                    if done:
                        assert stream is not None
                        seen.append(stream.stream_id)
                        await stream.close()

            tasks = [asyncio.ensure_future(accept()) for _ in range(acceptors)]
            opened = []
            for _ in range(count):
                stream = await getattr(client, f"create_{form}_stream")()
                opened.append(stream.stream_id)
                await stream.close()
                await asyncio.sleep(chance.random() * 0.01)
            await until(lambda: len(seen) == count)
            # One of several tasks may still wait for a stream that will not come.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert sorted(seen) == opened

    wtio.testing.run(main())


async def anext_of(items: Any) -> Any:
    return await anext(items)


# -- datagrams


@pytest.mark.parametrize("receivers", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_cancelled_receiving_loses_no_datagram(seed: int, receivers: int) -> None:
    chance = random.Random(seed)
    count = 100

    async def main() -> None:
        async with wtio.testing.session_pair(seed=seed) as (client, server):
            received: list[int] = []

            async def receive() -> None:
                while len(received) < count:
                    done, data = await interrupted(
                        server.receive_datagram(), chance.choice((1, 1, 2)), chance.choice(WHENS)
                    )
                    if done:
                        assert data is not None
                        received.append(int(data))

            tasks = [asyncio.ensure_future(receive()) for _ in range(receivers)]
            for number in range(count):
                client.send_datagram(b"%d" % number)
                await asyncio.sleep(chance.random() * 0.01)
            await until(lambda: len(received) == count)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert sorted(received) == list(range(count))

    wtio.testing.run(main())


# -- sessions, clients, servers


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("closer", ["client", "server"])
def test_close_cancelled_at_every_point_still_says_goodbye(closer: str, when: When) -> None:
    async def attempt(point: int) -> bool:
        async with wtio.testing.session_pair() as (client, server):
            near, far = (client, server) if closer == "client" else (server, client)
            stream = await near.create_unidirectional_stream()
            await stream.write(data=b"x", end_stream=True)
            done, _ = await interrupted(near.close(7, "goodbye"), point, when)
            assert await far.wait_closed() == wtio.CloseInfo(7, "goodbye", "peer")
            await near.close(8)
            assert near.close_info == wtio.CloseInfo(7, "goodbye", "local")
            return done

    point = 1
    while not wtio.testing.run(attempt(point)):
        point += 1
    assert point > 2


@pytest.mark.parametrize("when", WHENS)
def test_waiting_for_the_end_cancelled_and_taken_up_again(when: When) -> None:
    async def main() -> None:
        async with wtio.testing.session_pair() as (client, server):
            for wait in (server.wait_closed, server.wait_draining):
                for _ in range(3):
                    cancelled = asyncio.ensure_future(interrupted(wait(), 1, when))
                    await asyncio.sleep(0.1)
                    if when == "waiting":
                        assert await cancelled == (False, None)
                    else:
                        cancelled.cancel()
            await client.drain()
            await server.wait_draining()
            await client.close(3)
            assert (await server.wait_closed()).code == 3

    wtio.testing.run(main())


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.trap("S7")
def test_connect_cancelled_at_every_point_leaves_nothing_behind(when: When) -> None:
    # Every endpoint on the network must be gone in the end, and the server must serve on.
    async def attempt(point: int) -> bool:
        network = wtio.testing.Network()
        async with network.serve(wait_closed) as server:
            before = len(network._wire._drivers)

            async def connect() -> wtio.WebTransportSession:
                return await network.connect("https://localhost/")

            done, session = await interrupted(connect(), point, when)
            if session is not None:
                await session.close()
            # Closing connections linger for a while (RFC 9000, section 10.2).
            await asyncio.sleep(30)
            assert len(network._wire._drivers) == before
            assert server.sessions == []
            assert len(asyncio.all_tasks()) == 1
            async with network.connect("https://localhost/") as other:
                assert not other.is_closed
            return done

    point = 1
    while not wtio.testing.run(attempt(point)):
        point += 1
    assert point > 2


@pytest.mark.parametrize("when", WHENS)
def test_serve_cancelled_at_every_point_leaves_nothing_behind(when: When) -> None:
    async def attempt(point: int) -> bool:
        network = wtio.testing.Network()

        async def start() -> wtio.Server:
            return await network.serve(wait_closed)

        done, server = await interrupted(start(), point, when)
        if server is not None:
            await server.close()
        assert not network._wire._drivers
        async with network.serve(wait_closed), network.connect() as session:
            assert not session.is_closed
        return done

    point = 1
    while not wtio.testing.run(attempt(point)):
        point += 1


@pytest.mark.parametrize("when", WHENS)
def test_closing_a_server_cancelled_at_every_point_still_closes_it(when: When) -> None:
    async def attempt(point: int) -> bool:
        network = wtio.testing.Network()
        server = await network.serve(wait_closed)
        session = await network.connect()
        done, _ = await interrupted(server.close(6, "closing"), point, when)
        await server.wait_closed()
        assert await session.wait_closed() == wtio.CloseInfo(6, "closing", "peer")
        await session.close()
        return done

    point = 1
    while not wtio.testing.run(attempt(point)):
        point += 1


@pytest.mark.parametrize("iterators", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.unaudited("no session comes of its connections")
def test_cancelled_iteration_loses_no_request(seed: int, iterators: int) -> None:
    chance = random.Random(seed)
    count = 12

    async def main() -> None:
        network = wtio.testing.Network(seed=seed)
        async with network.serve() as server:
            paths: list[str] = []

            async def iterate() -> None:
                while len(paths) < count:
                    done, request = await interrupted(anext_of(server), chance.choice((1, 1, 2)), chance.choice(WHENS))
                    if done:
                        assert request is not None
                        paths.append(request.path)
                        await request.reject(404)

            async def ask(number: int) -> None:
                await asyncio.sleep(chance.random())
                with pytest.raises(wtio.SessionRejectedError):
                    await network.connect(f"https://localhost/{number}")

            tasks = [asyncio.ensure_future(iterate()) for _ in range(iterators)]
            await asyncio.gather(*(ask(number) for number in range(count)))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert sorted(paths) == sorted(f"/{number}" for number in range(count))

    wtio.testing.run(main())


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.trap("C8")
def test_leaving_the_context_manager_cancelled_at_every_point(when: When) -> None:
    # The goodbye leaves, whatever happens to the task.
    async def attempt(point: int) -> bool:
        network = wtio.testing.Network()
        async with network.serve() as server:
            connector = network.connect()
            connecting = asyncio.ensure_future(connector.__aenter__())
            accepted = await (await anext_of(server)).accept()
            await connecting
            done, _ = await interrupted(connector.__aexit__(None, None, None), point, when)
            assert (await accepted.wait_closed()).code == 0
            return done

    point = 1
    while not wtio.testing.run(attempt(point)):
        point += 1


async def wait_closed(session: wtio.WebTransportSession) -> None:
    """A handler."""
    await session.wait_closed()


# -- nothing is left behind


def futures() -> int:
    gc.collect()
    return sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.trap("S7")
@pytest.mark.unmeasured
def test_cancelled_calls_leave_no_waiter(when: When) -> None:
    # One entry per cancelled call would be a leak in a program that polls with timeouts.
    async def main() -> None:
        async with wtio.testing.session_pair(limits=TIGHT) as (client, server):
            writer = await client.create_bidirectional_stream()
            stuck = await client.create_unidirectional_stream()
            reader = await anext(aiter(server.incoming_bidirectional_streams()))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stuck.write(data=bytes(100_000)), 1)
            while True:
                try:
                    await client.create_unidirectional_stream(wait_until_available=False)
                except wtio.StreamCreditError:
                    break
            kept = [anext(aiter(server.incoming_unidirectional_streams())) for _ in range(1)]
            kept_streams = [await stream for stream in kept]
            calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
                reader.read,
                reader.read_all,
                lambda: reader.readexactly(n=5),
                lambda: stuck.write(data=b"x" * 10_000),
                lambda: stuck.write_all(data=b"x" * 10_000, chunk_size=10),
                stuck.wait_acked,
                lambda: anext_of(aiter(server.incoming_bidirectional_streams())),
                server.receive_datagram,
                server.wait_closed,
                server.wait_draining,
            ]

            async def each(times: int) -> None:
                for call in calls:
                    for _ in range(times):
                        if when == "waiting":
                            done, _ = await interrupted(call(), 1, when)
                            assert not done
                        else:
                            with pytest.raises(TimeoutError):
                                await asyncio.wait_for(call(), 0.001)

            await each(300)
            before = futures()
            await each(300)
            assert futures() <= before + 5
            # And all of them still work.
            await writer.write(data=b"alive", end_stream=True)
            assert await reader.read_all() == b"alive"
            client.send_datagram(b"alive")
            assert await server.receive_datagram() == b"alive"
            del kept_streams

    wtio.testing.run(main())
