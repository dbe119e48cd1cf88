"""``session.serve_streams``: a handler per stream, whose failures stay its own; no acknowledged stream is lost."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio.testing import Network, run, session_pair

if TYPE_CHECKING:
    from wtio import WebTransportReceiveStream, WebTransportSession, WebTransportStream

CLOSED = "its connections end by CONNECTION_CLOSE while a session is open"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "wtio")
    return caplog


def failures(log: pytest.LogCaptureFixture) -> list[tuple[str, int, str, bool]]:
    """Logger, level, text and whether there is a traceback, of all lines about handlers; all are taken away."""
    lines = [
        (record.name, record.levelno, record.getMessage(), record.exc_info is not None)
        for record in log.records
        if "handler" in record.getMessage() or "given up" in record.getMessage() or "failures" in record.getMessage()
    ]
    log.clear()
    return lines


async def echo(stream: WebTransportStream) -> None:
    await stream.write(data=await stream.read_all(), end_stream=True)


async def ask(session: WebTransportSession, data: bytes = b"hello") -> bytes:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=data, end_stream=True)
    return await stream.read_all()


async def send(session: WebTransportSession, data: bytes) -> None:
    """Send a unidirectional stream, and wait until it is acknowledged."""
    stream = await session.create_unidirectional_stream()
    await stream.write(data=data, end_stream=True)
    await stream.wait_acked()


def test_streams_of_both_kinds_and_datagrams_have_their_handlers() -> None:
    taken: list[bytes] = []

    async def take(stream: WebTransportReceiveStream) -> None:
        taken.append(await stream.read_all())

    async def later(data: bytes) -> None:
        await asyncio.sleep(0.5)
        taken.append(data)

    async def main() -> None:
        async with session_pair() as (client, server):
            for datagrams in (taken.append, later):
                serving = asyncio.ensure_future(server.serve_streams(echo, unidirectional=take, datagrams=datagrams))
                assert await asyncio.gather(*(ask(client, b"%d" % number) for number in range(10))) == [
                    b"%d" % number for number in range(10)
                ]
                await send(client, b"one way")
                client.send_datagram(b"first")
                client.send_datagram(b"second")
                await asyncio.sleep(2)
                assert taken == [b"one way", b"first", b"second"]
                taken.clear()
                serving.cancel()
                await asyncio.wait([serving])

    run(main())


def test_a_kind_without_a_handler_is_left_alone() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            serving = asyncio.ensure_future(server.serve_streams(echo))
            await send(client, b"one way")
            client.send_datagram(b"datagram")
            assert await ask(client) == b"hello"
            assert await (await anext(server.incoming_unidirectional_streams())).read_all() == b"one way"
            assert await server.receive_datagram() == b"datagram"
            await client.close()
            await serving

    run(main())


def test_without_any_handler_it_is_refused() -> None:
    async def main() -> None:
        async with session_pair() as (_, server):
            with pytest.raises(ValueError, match="give at least one"):
                await server.serve_streams()

    run(main())


# -- one bad stream


def test_a_stream_that_its_peer_resets_ends_no_other(log: pytest.LogCaptureFixture) -> None:
    async def handler(session: WebTransportSession) -> None:
        await session.serve_streams(echo)

    async def main() -> None:
        network = Network()
        async with network.serve(handler), network.connect() as session:
            slow = await session.create_bidirectional_stream()
            await slow.write(data=b"be")
            for code in range(5):
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"x")
                await stream.reset(error_code=code)
                with pytest.raises(wtio.StreamResetError) as caught:
                    await stream.read_all()
                assert caught.value.error_code == wtio.BODY_RAISED_CODE
            await slow.write(data=b"fore", end_stream=True)
            assert await slow.read_all() == b"before"
            assert await ask(session, b"after") == b"after"
            assert not session.is_closed
        [(name, level, text, has_traceback), (_, _, count, _)] = failures(log)
        assert (name, level, has_traceback) == ("wtio.server", logging.INFO, False)
        assert re.match(r"session \d+, path /: handler of stream 8 ended early: StreamResetError: ", text)
        assert count == "4 more failures like the last one of StreamResetError"

    run(main())


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_handler_that_fails_ends_its_own_stream_only(side: str, log: pytest.LogCaptureFixture) -> None:
    async def handle(stream: WebTransportStream) -> None:
        if await stream.read(max_bytes=1) == b"?":
            raise KeyError("what is it?")
        await stream.write(data=await stream.read_all(), end_stream=True)

    async def main() -> None:
        async with session_pair() as (client, server):
            near, far = (server, client) if side == "server" else (client, server)
            serving = asyncio.ensure_future(near.serve_streams(handle))
            for _ in range(5):
                with pytest.raises(wtio.StreamResetError) as caught:
                    await ask(far, b"?")
                assert caught.value.error_code == wtio.BODY_RAISED_CODE
                assert await ask(far, b".fine") == b"fine"
            await far.close()
            await serving
        lines = failures(log)
        assert [line[0:2] for line in lines] == [(f"wtio.{side}", logging.ERROR)] * 4
        assert [line[3] for line in lines] == [True] * 3 + [False]

    run(main())


def test_handlers_of_datagrams_go_on_after_a_failure(log: pytest.LogCaptureFixture) -> None:
    taken: list[bytes] = []

    def take(data: bytes) -> None:
        if data == b"?":
            raise KeyError("what is it?")
        taken.append(data)

    async def main() -> None:
        async with session_pair() as (client, server):
            serving = asyncio.ensure_future(server.serve_streams(datagrams=take))
            for data in (b"1", b"?", b"2"):
                client.send_datagram(data)
            await asyncio.sleep(1)
            assert taken == [b"1", b"2"]
            await client.close()
            await serving
        assert [line[0:2] for line in failures(log)] == [("wtio.server", logging.ERROR)]

    run(main())


def test_a_handler_that_returns_early_closes_its_stream() -> None:
    async def refuse(stream: WebTransportStream) -> None:
        await stream.write(data=b"no")

    async def main() -> None:
        async with session_pair() as (client, server):
            serving = asyncio.ensure_future(server.serve_streams(refuse))
            stream = await client.create_bidirectional_stream()
            await stream.write(data=b"may I?")
            assert await stream.read_all() == b"no"
            assert await stream.wait_stopped() == 0
            await client.close()
            await serving

    run(main())


# -- bounds


@pytest.mark.parametrize("given", ["the call", "Limits"])
def test_no_more_handlers_run_than_may_and_further_streams_wait_unread(given: str) -> None:
    running = most = 0
    go_on = asyncio.Event()

    async def handle(stream: WebTransportStream) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        await echo(stream)
        running -= 1

    async def main() -> None:
        limits = wtio.Limits(stream_handlers=3) if given == "Limits" else None
        async with session_pair(limits=limits) as (client, server):
            limit = None if given == "Limits" else 3
            serving = asyncio.ensure_future(server.serve_streams(handle, limit=limit))
            asking = [asyncio.ensure_future(ask(client)) for _ in range(20)]
            await asyncio.sleep(1)
            assert (running, len(server.incoming_bidirectional_streams())) == (3, 17)
            go_on.set()
            assert await asyncio.gather(*asking) == [b"hello"] * 20
            assert most == 3
            await client.close()
            await serving

    run(main())


def test_streams_of_one_kind_do_not_keep_those_of_the_other_waiting() -> None:
    taken: list[bytes] = []

    async def take(stream: WebTransportReceiveStream) -> None:
        taken.append(await stream.read_all())

    async def main() -> None:
        async with session_pair() as (client, server):
            serving = asyncio.ensure_future(server.serve_streams(echo, unidirectional=take, limit=1))
            for number in range(3):
                await send(client, b"%d" % number)
                assert await ask(client) == b"hello"
            assert taken == [b"0", b"1", b"2"]
            await client.close()
            await serving

    run(main())


# -- the end of the session


@pytest.mark.unaudited(CLOSED)
@pytest.mark.parametrize("limit", [1, 128])
@pytest.mark.parametrize("goodbye", ["close", "abort"])
def test_no_stream_is_lost_that_had_arrived_before_the_end(limit: int, goodbye: str) -> None:
    stored: list[bytes] = []
    ended: list[str] = []

    async def store(stream: WebTransportReceiveStream) -> None:
        await asyncio.sleep(0.05)  # a database that is a little slow
        stored.append(await stream.read_all())

    async def handler(session: WebTransportSession) -> None:
        try:
            await session.serve_streams(unidirectional=store, limit=limit)
            ended.append("returned")
        except wtio.SessionClosedError:
            ended.append("raised")

    async def main() -> None:
        network = Network(loss=0.05, seed=5)
        async with network.serve(handler):
            session = await network.connect()
            for number in range(50):
                await send(session, b"%d" % number)
            await (session.close() if goodbye == "close" else session.abort())
            await asyncio.sleep(5)
        assert stored == [b"%d" % number for number in range(50)]
        assert ended == ["returned" if goodbye == "close" else "raised"]

    run(main())


def test_streams_that_had_not_arrived_whole_are_no_news(log: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            serving = asyncio.ensure_future(server.serve_streams(echo))
            stream = await client.create_bidirectional_stream()
            await stream.write(data=b"half of it")
            await asyncio.sleep(1)
            await client.close()
            await serving
        assert failures(log) == []

    run(main())


def test_handlers_that_never_end_are_cancelled_after_a_while(log: pytest.LogCaptureFixture) -> None:
    ended: list[float] = []

    async def hang(stream: WebTransportStream) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(asyncio.get_running_loop().time())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with session_pair(timeouts=wtio.Timeouts(finish=3)) as (client, server):
            serving = asyncio.ensure_future(server.serve_streams(hang, limit=2))
            for _ in range(5):
                stream = await client.create_bidirectional_stream()
                await stream.write(data=b"hello", end_stream=True)
            await asyncio.sleep(1)
            start = loop.time()
            await client.close()
            await serving
            assert loop.time() - start == pytest.approx(3, abs=0.5)
            assert len(ended) == 2
        [(_, level, text, _)] = failures(log)
        assert level == logging.WARNING
        assert re.fullmatch(
            r"session \d+, path /: 5 handlers or streams were given up: TimeoutError: "
            r"the session had ended 3 s before \(Timeouts.finish\)",
            text,
        )

    run(main())


@pytest.mark.parametrize(
    ("code", "words"), [(0, None), (7, "SessionClosedError"), (None, "SessionClosedError")], ids=["0", "7", "lost"]
)
@pytest.mark.unaudited("one of its connections is lost")
def test_it_returns_after_a_clean_end_and_raises_after_another(code: int | None, words: str | None) -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network, timeouts=wtio.Timeouts(idle=5)) as (client, server):
            serving = asyncio.ensure_future(server.serve_streams(echo))
            assert await ask(client) == b"hello"
            if code is None:
                network.conditions.blackout = True
            else:
                await client.close(code, "that is all")
            if words is None:
                await serving
            else:
                with pytest.raises(wtio.SessionClosedError) as caught:
                    await serving
                assert caught.value.code == code
            # On a session that has ended, it has nothing left to wait for.
            again = server.serve_streams(echo)
            if words is None:
                await again
            else:
                with pytest.raises(wtio.SessionClosedError):
                    await again

    run(main())


def test_a_server_that_closes_lets_handlers_end() -> None:
    stored: list[bytes] = []

    async def store(stream: WebTransportReceiveStream) -> None:
        await asyncio.sleep(1)
        stored.append(await stream.read_all())

    async def handler(session: WebTransportSession) -> None:
        await session.serve_streams(unidirectional=store)

    async def main() -> None:
        network = Network()
        async with network.serve(handler) as server, network.connect() as session:
            await asyncio.gather(*(send(session, b"%d" % number) for number in range(20)))
            await server.close()
        assert len(stored) == 20

    run(main())


# -- cancelling


def test_cancelling_ends_the_handlers_and_leaves_the_rest_to_the_next_call() -> None:
    cancelled: list[int] = []

    async def hang(stream: WebTransportStream) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(stream.stream_id)
            raise

    async def main() -> None:
        async with session_pair() as (client, server):
            serving = asyncio.ensure_future(server.serve_streams(hang, limit=2))
            asking: list[asyncio.Future[Any]] = [asyncio.ensure_future(ask(client)) for _ in range(5)]
            await asyncio.sleep(1)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert len(cancelled) == 2
            serving = asyncio.ensure_future(server.serve_streams(echo))
            results = await asyncio.gather(*asking, return_exceptions=True)
            assert [getattr(result, "error_code", result) for result in results] == [wtio.BODY_RAISED_CODE] * 2 + [
                b"hello"
            ] * 3
            await client.close()
            await serving

    run(main())


@pytest.mark.parametrize("seed", range(10))
def test_however_often_it_is_cancelled_each_stream_is_handled_or_reset(seed: int) -> None:
    async def main() -> None:
        handled: list[bytes] = []

        async def handle(stream: WebTransportStream) -> None:
            data = await stream.read_all()
            await asyncio.sleep(0.013)
            handled.append(data)
            await stream.write(data=data, end_stream=True)

        async with session_pair(seed=seed, jitter=0.02, loss=0.1) as (client, server):
            asking: list[asyncio.Future[Any]] = []
            for number in range(30):
                asking.append(asyncio.ensure_future(ask(client, b"%d" % number)))
                serving = asyncio.ensure_future(server.serve_streams(handle, limit=3))
                await asyncio.sleep(0.003 * (number + seed))
                serving.cancel()
                await asyncio.wait([serving])
            serving = asyncio.ensure_future(server.serve_streams(handle, limit=3))
            results = await asyncio.gather(*asking, return_exceptions=True)
            answered = [result for result in results if isinstance(result, bytes)]
            assert len(answered) > 5
            assert set(answered) <= set(handled)
            assert all(isinstance(result, (bytes, wtio.StreamResetError)) for result in results)
            await client.close()
            await serving

    run(main())


@pytest.mark.parametrize("code", [0, 7])
def test_a_session_that_was_served_is_freed_without_the_collector(code: int) -> None:
    ends: list[weakref.ref[WebTransportSession]] = []

    async def handler(session: WebTransportSession) -> None:
        ends.append(weakref.ref(session))
        await session.serve_streams(echo, datagrams=session.send_datagram)

    async def main() -> None:
        network = Network()
        async with network.serve(handler):
            session = await network.connect()
            assert await ask(session) == b"hello"
            session.send_datagram(b"x")
            # A failure that is logged without a traceback, which the record would keep.
            await (await session.create_bidirectional_stream()).reset(error_code=7)
            await asyncio.sleep(1)
            await session.close(code)
            await asyncio.sleep(1)
            assert [end() for end in ends] == [None]

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()
