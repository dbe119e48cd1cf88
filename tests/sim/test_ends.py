"""Resets and stops that announce the end of a session before its capsule does, in virtual time.

Firefox closes by resetting and stopping its streams with H3_REQUEST_CANCELLED; the capsule with code and reason comes
behind.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.logs import but_sessions

import wtio
from wtio import ErrorCodes
from wtio.testing import Network, run, session_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE = 0.5
CANCELLED = int(ErrorCodes.H3_REQUEST_CANCELLED)
# None of them means anything to an application.
CODES = [
    CANCELLED,
    int(ErrorCodes.WT_SESSION_GONE),
    int(ErrorCodes.WT_BUFFERED_STREAM_REJECTED),
    int(ErrorCodes.H3_NO_ERROR),
    0,
    0x52E4A40FA8F9,
    2**62 - 1,
]


async def next_chunk(stream: wtio.WebTransportReceiveStream) -> bytes | None:
    async for chunk in stream:
        return chunk
    return None


READS: dict[str, Callable[[wtio.WebTransportStream], Awaitable[object]]] = {
    "read": lambda stream: stream.read(),
    "read-some": lambda stream: stream.read(max_bytes=3),
    "readinto": lambda stream: stream.readinto(bytearray(10)),
    "read_all": lambda stream: stream.read_all(),
    "readexactly": lambda stream: stream.readexactly(n=10),
    "readline": lambda stream: stream.readline(),
    "readuntil": lambda stream: stream.readuntil(separator=b"--"),
    "anext": next_chunk,
}
WRITES: dict[str, Callable[[wtio.WebTransportStream], Awaitable[object]]] = {
    "write": lambda stream: stream.write(data=b"more"),
    "write-nothing": lambda stream: stream.write(data=b""),
    "write_all": lambda stream: stream.write_all(data=b"more"),
    "wait_acked": lambda stream: stream.wait_acked(),
}
CALLS = READS | WRITES
# These keep what has come, so that a partial answer is there when the reset arrives.
COLLECTING = ["read_all", "readexactly", "readline", "readuntil"]


async def stream_of(
    client: wtio.WebTransportSession, server: wtio.WebTransportSession
) -> tuple[wtio.WebTransportStream, wtio.WebTransportStream]:
    """Both ends of a stream of the client's, which has carried bytes both ways."""
    ours = await client.create_bidirectional_stream()
    await ours.write(data=b"hello")
    theirs = await anext(server.incoming_bidirectional_streams())
    await theirs.write(data=await theirs.read())
    await ours.read()
    return ours, theirs


def abandon(stream: wtio.WebTransportStream, code: int = CANCELLED) -> None:
    """What no public call does: reset and stop with a code that is none of an application's."""
    stream._core.reset(code)
    stream._core.stop(code)


def code_of(error: wtio.StreamError) -> int | None:
    assert isinstance(error, (wtio.StreamResetError, wtio.StreamStoppedError))
    return error.error_code


async def until_it_fails(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        await call()
        await asyncio.sleep(0.001)


async def seconds(call: Awaitable[object]) -> float:
    """How long a call takes to fail with a stream's error of the peer's."""
    started = asyncio.get_running_loop().time()
    with pytest.raises((wtio.StreamResetError, wtio.StreamStoppedError)) as caught:
        await call
    assert code_of(caught.value) is None
    return asyncio.get_running_loop().time() - started


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.4])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.unmeasured
def test_a_close_that_begins_with_resets_reaches_every_call_with_its_code(name: str, delay: float) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            ours, theirs = await stream_of(client, server)
            abandon(ours)

            async def close() -> None:
                await asyncio.sleep(delay)
                await client.close(5, "bye")

            closing = asyncio.ensure_future(close())
            # Before, while and after the reset arrives.
            for _ in range(4):
                with pytest.raises(wtio.SessionClosedError) as caught:
                    await until_it_fails(lambda: CALLS[name](theirs))
                assert (caught.value.code, caught.value.reason, caught.value.closed_by) == (5, "bye", "peer")
            await closing

    run(main())


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", CALLS)
def test_where_the_session_lives_on_the_streams_error_comes_after_half_a_second_at_most(name: str, code: int) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            ours, theirs = await stream_of(client, server)
            abandon(ours, code)
            await asyncio.sleep(1)
            assert await seconds(CALLS[name](theirs)) == pytest.approx(PATIENCE)
            # The time counts once for each direction, not for each call.
            assert await seconds(CALLS[name](theirs)) == 0
            assert (await stream_of(client, server))[0].can_write

    run(main())


@pytest.mark.parametrize("name", CALLS)
def test_codes_of_applications_need_no_patience(name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with session_pair() as (client, server):
            ours, theirs = await stream_of(client, server)
            await ours.close(error_code=7)
            await asyncio.sleep(1)
            started = loop.time()
            with pytest.raises((wtio.StreamResetError, wtio.StreamStoppedError)) as caught:
                await CALLS[name](theirs)
            assert code_of(caught.value) == 7
            assert loop.time() == started

    run(main())


@pytest.mark.parametrize("name", COLLECTING)
def test_bytes_before_the_reset_are_neither_lost_nor_doubled_by_the_wait(name: str) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            ours, theirs = await stream_of(client, server)
            await ours.write(data=b"0123")
            await asyncio.sleep(0.1)
            reading = asyncio.ensure_future(CALLS[name](theirs))
            await asyncio.sleep(0.1)
            abandon(ours)
            await asyncio.sleep(0.1)
            assert not reading.done()
            # In the middle of the wait: what came is still there for somebody else.
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            assert await theirs.read(max_bytes=1) == b"0"
            with pytest.raises(wtio.StreamResetError) as caught:
                await CALLS[name](theirs)
            assert caught.value.error_code is None
            rest = b"123"
            if name == "read_all":
                assert await theirs.read() == rest
            else:
                assert caught.value.partial == rest
            assert await seconds(theirs.read()) == 0

    run(main())


def test_another_task_gets_an_error_while_a_read_waits_for_the_sessions_end() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            ours, theirs = await stream_of(client, server)
            abandon(ours)
            reading = asyncio.ensure_future(theirs.readexactly(n=10))
            writing = asyncio.ensure_future(theirs.write_all(data=bytes(10**6)))
            await asyncio.sleep(0.1)
            with pytest.raises(wtio.BusyError):
                await theirs.read()
            with pytest.raises(wtio.BusyError):
                await theirs.write(data=b"x")
            with pytest.raises(wtio.StreamResetError):
                await reading
            with pytest.raises(wtio.StreamStoppedError):
                await writing

    run(main())


@pytest.mark.parametrize("name", CALLS)
def test_every_way_for_the_session_to_end_ends_the_wait(name: str) -> None:
    async def main(way: str) -> None:
        async with session_pair() as (client, server):
            ours, theirs = await stream_of(client, server)
            abandon(ours)
            await asyncio.sleep(0.1)
            call = asyncio.ensure_future(CALLS[name](theirs))
            await asyncio.sleep(0.1)
            started = asyncio.get_running_loop().time()
            if way == "aborted by the peer":
                await client.abort()
            elif way == "closed here":
                await server.close(3, "enough")
            else:
                client._link.close_connection(int(ErrorCodes.H3_NO_ERROR), "going")  # type: ignore[attr-defined]
            with pytest.raises(wtio.SessionClosed) as caught:
                await call
            assert caught.value.closed_by == ("local" if way == "closed here" else "peer")
            assert asyncio.get_running_loop().time() - started < 0.1

    for way in ("aborted by the peer", "closed here", "connection closed"):
        run(main(way))


def test_datagrams_and_new_streams_do_not_wait() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with session_pair() as (client, server):
            ours, theirs = await stream_of(client, server)
            abandon(ours)
            client.send_datagram(b"ping")
            await asyncio.sleep(0.1)
            reading = asyncio.ensure_future(theirs.read())
            started = loop.time()
            assert await server.receive_datagram() == b"ping"
            server.send_datagram(b"pong")
            await (await server.create_bidirectional_stream()).write(data=b"x")
            assert loop.time() == started
            with pytest.raises(wtio.StreamResetError):
                await reading

    run(main())


@pytest.mark.parametrize("name", COLLECTING)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.unmeasured
def test_calls_that_hold_bytes_see_the_close_whichever_packet_comes_first(name: str, seed: int) -> None:
    # The resets of a closing session (WT_SESSION_GONE) may overtake its capsule.
    async def main() -> None:
        async with session_pair(seed=seed, jitter=0.05, reorder=0.5, duplicate=0.1) as (client, server):
            pairs = [await stream_of(client, server) for _ in range(8)]
            for ours, _ in pairs:
                await ours.write(data=b"0123")
            await asyncio.sleep(0.5)
            calls = [asyncio.ensure_future(CALLS[name](theirs)) for _, theirs in pairs]
            await asyncio.sleep(0)
            await client.close(9, "over")
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(result, wtio.SessionClosedError)
                assert (result.code, result.reason) == (9, "over")

    run(main())


def test_a_server_logs_nothing_about_a_client_that_closes_with_resets_first(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen: list[Any] = []

    async def handler(session: wtio.WebTransportSession) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for stream in session.incoming_bidirectional_streams():
                tasks.create_task(echo(stream))
            seen.append(session.close_info)

    async def echo(stream: wtio.WebTransportStream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.write(data=chunk)

    async def main() -> None:
        network = Network()
        async with network.serve(handler) as server, network.connect() as session:
            streams = [await session.create_bidirectional_stream() for _ in range(5)]
            for stream in streams:
                await stream.write(data=b"x")
                assert await stream.read() == b"x"
            (served,) = server.sessions
            for stream in streams:
                abandon(stream)
            await asyncio.sleep(0.1)
            await session.close(5, "bye")
            info = await served.wait_closed()
            assert (info.code, info.reason, info.closed_by) == (5, "bye", "peer")

    run(main())
    assert not but_sessions(caplog.records)


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_abort_of_the_only_session_ends_its_connection_within_a_round_trip() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with session_pair(latency=0.05) as (client, server):
            await stream_of(client, server)
            started = loop.time()
            await server.abort()
            info = await client.wait_closed()
            assert (info.code, info.closed_by) == (None, "peer")
            await client._link.lost.wait()  # type: ignore[attr-defined]
            assert loop.time() - started < 0.1

    run(main())


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_abort_is_seen_within_a_round_trip_although_the_reset_is_lost() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = Network(latency=0.05)
        async with session_pair(network) as (client, server):
            ours, _ = await stream_of(client, server)
            await asyncio.sleep(1)
            send = network._wire.send
            is_first = True

            def lose_the_first(*packet: Any) -> None:
                nonlocal is_first
                if not is_first:
                    send(*packet)
                is_first = False

            network._wire.send = lose_the_first  # type: ignore[method-assign, assignment]
            started = loop.time()
            await server.abort()
            with pytest.raises(wtio.SessionClosedError):
                await ours.read()
            assert loop.time() - started < 0.1

    run(main())


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_abort_leaves_the_connection_to_other_sessions_and_requests() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, network.client() as sharing:
            connecting = [
                asyncio.ensure_future(connected(sharing.connect("https://localhost/", allow_pooling=True)))
                for _ in range(3)
            ]
            requests = [await anext(server) for _ in range(3)]
            accepted = [await request.accept() for request in requests[:2]]
            await asyncio.sleep(1)
            await accepted[0].abort()
            await asyncio.sleep(1)
            # One session and one request without an answer are left, then the request alone.
            await accepted[1].abort()
            await asyncio.sleep(1)
            last = await requests[2].accept()
            await asyncio.sleep(1)
            assert not last.is_closed
            sessions = [await session for session in connecting]
            assert sorted(session.is_closed for session in sessions) == [False, True, True]
            assert sharing.connections == 1
            await last.abort()
            await asyncio.sleep(1)
            assert sharing.connections == 0

    run(main())


async def connected(connector: Awaitable[wtio.WebTransportSession]) -> wtio.WebTransportSession:
    return await connector
