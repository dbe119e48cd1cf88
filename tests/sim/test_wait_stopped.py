"""Waiting for the peer's STOP_SENDING, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio.testing import run, session_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# A window that a few writes fill, so that a finished stream can have data on its way for as long as nobody reads.
TIGHT = wtio.Limits(stream_receive_window=4096)


async def stream_from(
    near: wtio.WebTransportSession, far: wtio.WebTransportSession, form: str
) -> tuple[wtio.WebTransportSendStream, wtio.WebTransportReceiveStream]:
    writer: wtio.WebTransportSendStream = await getattr(near, f"create_{form}_stream")()
    await writer.write(data=b"x")
    reader: wtio.WebTransportReceiveStream = await anext(getattr(far, f"incoming_{form}_streams")())
    assert await reader.read() == b"x"
    return writer, reader


@pytest.mark.parametrize("code", [0, 7, 29, 30, 2**32 - 1])
@pytest.mark.parametrize("form", ["bidirectional", "unidirectional"])
@pytest.mark.parametrize("opener", ["client", "server"])
def test_wait_stopped_returns_the_peers_code(opener: str, form: str, code: int) -> None:
    async def main() -> None:
        async with session_pair() as pair:
            near, far = pair if opener == "client" else pair[::-1]
            writer, reader = await stream_from(near, far, form)
            waiting = [asyncio.ensure_future(writer.wait_stopped()) for _ in range(3)]
            await asyncio.sleep(100)
            # Several tasks may wait, beside one that writes.
            await writer.write(data=b"still wanted")
            assert not any(task.done() for task in waiting)
            await reader.stop_receiving(error_code=code)
            assert await asyncio.gather(*waiting) == [code] * 3
            # Again and again, and without waiting.
            started = asyncio.get_running_loop().time()
            assert await writer.wait_stopped() == code
            assert asyncio.get_running_loop().time() == started

    run(main())


def test_a_stop_reaches_a_writer_that_is_full_and_one_that_waits_for_it() -> None:
    async def main() -> None:
        async with session_pair(limits=TIGHT) as (client, server):
            writer, reader = await stream_from(client, server, "bidirectional")
            writing = asyncio.ensure_future(writer.write_all(data=bytes(10**6)))
            waiting = asyncio.ensure_future(writer.wait_stopped())
            await asyncio.sleep(1)
            await reader.stop_receiving(error_code=5)
            assert await waiting == 5
            with pytest.raises(wtio.StreamStoppedError):
                await writing

    run(main())


def test_a_finished_stream_can_be_stopped_until_all_of_it_is_acknowledged() -> None:
    async def main() -> None:
        async with session_pair(limits=TIGHT) as (client, server):
            for is_stopped in (True, False):
                writer, reader = await stream_from(client, server, "unidirectional")
                await writer.write(data=bytes(20_000), end_stream=True)
                waiting = asyncio.ensure_future(writer.wait_stopped())
                await asyncio.sleep(1)
                assert not waiting.done()
                if is_stopped:
                    await reader.stop_receiving(error_code=9)
                    assert await waiting == 9
                    continue
                assert await reader.read_all() == bytes(20_000)
                for call in (waiting, writer.wait_stopped()):
                    with pytest.raises(wtio.StreamClosedError, match="all of its data is acknowledged") as caught:
                        await call
                    assert caught.value.stream_id == writer.stream_id

    run(main())


def test_a_stream_that_this_side_resets_cannot_be_stopped_any_more() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            writer, _ = await stream_from(client, server, "bidirectional")
            waiting = asyncio.ensure_future(writer.wait_stopped())
            await asyncio.sleep(0.1)
            await writer.reset(error_code=3)
            for call in (waiting, writer.wait_stopped()):
                with pytest.raises(wtio.StreamClosedError, match="this side reset it with application code 3"):
                    await call

    run(main())


ENDS: dict[str, tuple[Callable[[Any, Any], Awaitable[object]], tuple[int | None, str]]] = {
    "closed by the peer": (lambda near, far: far.close(4, "enough"), (4, "peer")),
    "closed here": (lambda near, far: near.close(4, "enough"), (4, "local")),
    "aborted by the peer": (lambda near, far: far.abort(), (None, "peer")),
    "aborted here": (lambda near, far: near.abort(), (None, "local")),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("finishes", [False, True])
@pytest.mark.unaudited("some of its connections end with a session open, or are lost")
def test_wait_stopped_raises_the_sessions_end(end: str, finishes: bool) -> None:
    async def main() -> None:
        act, (code, closed_by) = ENDS[end]
        timeouts = wtio.Timeouts(close=0.2)
        async with session_pair(limits=TIGHT, timeouts=timeouts) as (client, server):
            writer, _ = await stream_from(client, server, "bidirectional")
            if finishes:
                await writer.write(data=bytes(20_000), end_stream=True)
            waiting = asyncio.ensure_future(writer.wait_stopped())
            await asyncio.sleep(0.1)
            await act(client, server)
            for call in (waiting, writer.wait_stopped()):
                with pytest.raises(wtio.SessionClosed) as caught:
                    await call
                assert (caught.value.code, caught.value.closed_by) == (code, closed_by)

    run(main())


@pytest.mark.unaudited("some of its connections end with a session open, or are lost")
def test_the_loss_of_the_connection_ends_the_wait() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            writer, _ = await stream_from(client, server, "unidirectional")
            waiting = asyncio.ensure_future(writer.wait_stopped())
            server._link.close_connection(0x100, "")  # type: ignore[attr-defined]
            with pytest.raises(wtio.SessionClosedError):
                await waiting

    run(main())


@pytest.mark.parametrize("ends", [True, False])
def test_a_stop_without_meaning_is_none_unless_the_session_ends_behind_it(ends: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with session_pair() as (client, server):
            writer, reader = await stream_from(client, server, "bidirectional")
            waiting = asyncio.ensure_future(writer.wait_stopped())
            reader._core.stop(int(wtio.ErrorCodes.H3_REQUEST_CANCELLED))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            if ends:
                await server.close(5, "bye")
                for call in (waiting, writer.wait_stopped()):
                    with pytest.raises(wtio.SessionClosedError, match="bye"):
                        await call
                return
            assert await waiting is None
            started = loop.time()
            assert await writer.wait_stopped() is None
            assert loop.time() == started

    run(main())


def test_a_stream_that_was_stopped_keeps_its_code_when_the_session_ends() -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            writer, reader = await stream_from(client, server, "bidirectional")
            await reader.stop_receiving(error_code=5)
            assert await writer.wait_stopped() == 5
            await server.close(4)
            assert await writer.wait_stopped() == 5

    run(main())
