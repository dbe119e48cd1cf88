"""However much of its credit a peer holds for long, what it gives back comes to it again: nobody waits for ever.

Whoever announces credit may save frames by waiting until enough has come back. If most of it is held, by streams that
stay open or data that nobody reads, it may never be enough.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import testing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

STREAMS = 16
WINDOW = 64 * 1024
# Of the connection alone, of the session alone, where it is the smaller one.
LIMITS = {
    "connection": wtio.Limits(
        bidirectional_streams=STREAMS, unidirectional_streams=STREAMS, connection_receive_window=WINDOW
    ),
    "session": wtio.Limits(
        session_bidirectional_streams=STREAMS, session_unidirectional_streams=STREAMS, session_receive_window=WINDOW
    ),
}


def run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    testing.run(asyncio.wait_for(main(), 1000))


@pytest.mark.parametrize("held", [0, 1, 7, 8, 9, 13, 14, 15])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("of", LIMITS)
@pytest.mark.unmeasured
def test_streams_go_on_however_many_stay_open(of: str, bidirectional: bool, held: int) -> None:
    async def take(session: wtio.WebTransportSession) -> None:
        if bidirectional:
            async for stream in session.incoming_bidirectional_streams():
                await stream.write(data=await stream.read_all(), end_stream=True)
        else:
            async for receiving in session.incoming_unidirectional_streams():
                await receiving.read_all()

    async def main() -> None:
        async with testing.session_pair(limits=LIMITS[of]) as (client, server), asyncio.TaskGroup() as group:
            # A task per stream, for those that are held have no end.
            takers = [group.create_task(take(server)) for _ in range(held + 1)]
            long: list[wtio.WebTransportSendStream] = []
            for _ in range(held):
                long.append(await open_stream(client))
                await long[-1].write(data=b"held")
            for number in range(4 * STREAMS):
                stream = await open_stream(client)
                await stream.write(data=str(number).encode(), end_stream=True)
                if isinstance(stream, wtio.WebTransportStream):
                    assert await stream.read_all() == str(number).encode()
            for stream in long:
                await stream.write(data=b"", end_stream=True)
                if isinstance(stream, wtio.WebTransportStream):
                    assert await stream.read_all() == b"held"
            await asyncio.sleep(1)
            for taker in takers:
                taker.cancel()

    async def open_stream(client: wtio.WebTransportSession) -> wtio.WebTransportSendStream:
        if bidirectional:
            return await client.create_bidirectional_stream()
        return await client.create_unidirectional_stream()

    run(main)


@pytest.mark.parametrize("free", [100, 1000, 2000, WINDOW // 8, WINDOW // 2, WINDOW])
@pytest.mark.parametrize("budget", [None, 1024 * 1024 * 1024])
@pytest.mark.parametrize("of", LIMITS)
@pytest.mark.unmeasured
def test_data_goes_on_however_much_is_unread(of: str, budget: int | None, free: int) -> None:
    async def main() -> None:
        limits = dataclasses.replace(LIMITS[of], server_memory=budget)
        async with testing.session_pair(limits=limits) as (client, server):
            held = await client.create_unidirectional_stream()
            await held.write(data=bytes(WINDOW - free), end_stream=True)
            unread = await anext(server.incoming_unidirectional_streams())
            stream = await client.create_unidirectional_stream()
            writing = asyncio.ensure_future(stream.write(data=bytes(3 * WINDOW), end_stream=True))
            reading = await anext(server.incoming_unidirectional_streams())
            assert len(await reading.read_all()) == 3 * WINDOW
            await writing
            assert len(await unread.read_all()) == WINDOW - free

    run(main)
