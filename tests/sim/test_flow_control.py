"""Session flow control end to end, on the simulated network, mostly with small limits (fact sheet 59 to 78)."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio import testing
from wtio.testing import session_pair

if TYPE_CHECKING:
    from collections.abc import Coroutine


LOSSY: dict[str, Any] = {"loss": 0.05, "reorder": 0.1, "duplicate": 0.1, "jitter": 0.01}


def run(main: Coroutine[Any, Any, None]) -> None:
    # Whoever waits for credit that never comes waits for ever, and virtual time is endless.
    testing.run(asyncio.wait_for(main, 600))


async def settled() -> None:
    """Let everything that is on its way arrive: virtual time costs nothing."""
    await asyncio.sleep(5)


@pytest.mark.parametrize("window", [1, 1000, 100_000])
def test_r73_writer_blocked_by_session_credit_goes_on_as_the_reader_reads(window: int) -> None:
    async def main() -> None:
        data = random.Random(1).randbytes(min(window * 50, 1_000_000))
        async with session_pair(limits=wtio.Limits(session_receive_window=window)) as (client, server):
            stream = await client.create_unidirectional_stream()
            writing = asyncio.ensure_future(stream.write_all(data=data, end_stream=True))
            incoming = await anext(server.incoming_unidirectional_streams())
            await settled()
            # R71: not one byte more than the window, and the rest does not pass for sent.
            assert incoming.diagnostics().bytes_received == window
            assert stream.diagnostics().bytes_sent == window
            assert await incoming.read_all() == data
            await writing
            assert stream.diagnostics().blocked_seconds > 1

    run(main())


def test_r70_session_credit_counts_payload_and_no_headers() -> None:
    async def main() -> None:
        async with session_pair(limits=wtio.Limits(session_receive_window=100)) as (client, server):
            for _ in range(10):
                stream = await client.create_unidirectional_stream()
                await stream.write(data=bytes(10), end_stream=True)
            await settled()
            received = [await anext(server.incoming_unidirectional_streams()) for _ in range(10)]
            assert [stream.diagnostics().bytes_received for stream in received] == [10] * 10

    run(main())


def test_r65_r66_open_waits_for_stream_credit_or_fails_fast() -> None:
    async def main() -> None:
        limits = wtio.Limits(session_bidirectional_streams=2, session_unidirectional_streams=1)
        async with session_pair(limits=limits) as (client, server):
            for side, peer in ((client, server), (server, client)):
                streams = [await side.create_bidirectional_stream() for _ in range(2)]
                with pytest.raises(wtio.StreamCreditError):
                    await side.create_bidirectional_stream(wait_until_available=False)
                # The other kind has a limit of its own.
                await side.create_unidirectional_stream(wait_until_available=False)
                with pytest.raises(wtio.StreamCreditError):
                    await side.create_unidirectional_stream(wait_until_available=False)
                waiting = asyncio.ensure_future(side.create_bidirectional_stream())
                await settled()
                assert not waiting.done()
                await streams[0].write(data=b"x", end_stream=True)
                incoming = await anext(peer.incoming_bidirectional_streams())
                assert await incoming.read_all() == b"x"
                await settled()
                assert not waiting.done()  # still half open
                await incoming.write(data=b"y", end_stream=True)
                del incoming
                third = await waiting
                await third.write(data=b"z", end_stream=True)

    run(main())


@pytest.mark.parametrize("end", ["finish", "reset", "unread", "refused"])
def test_s6_r65_stream_credit_comes_back_however_streams_end(end: str) -> None:
    async def main() -> None:
        limits = wtio.Limits(session_unidirectional_streams=3, session_receive_window=50)
        async with session_pair(limits=limits, **LOSSY) as (client, server):

            async def send() -> None:
                for _ in range(100):
                    stream = await client.create_unidirectional_stream()
                    await stream.write(data=bytes(20), end_stream=end != "reset")
                    if end == "reset":
                        await stream.reset(error_code=1)

            async def receive() -> None:
                for _ in range(100):
                    stream = await anext(server.incoming_unidirectional_streams())
                    if end == "finish":
                        assert await stream.read_all() == bytes(20)
                    elif end == "reset":
                        with pytest.raises(wtio.StreamResetError):
                            await stream.read_all()
                    elif end == "refused":
                        await stream.stop_receiving(error_code=2)
                    del stream

            async with asyncio.TaskGroup() as group:
                group.create_task(send())
                group.create_task(receive())
            # All credit is back: the whole window at once on one stream.
            await settled()
            stream = await client.create_unidirectional_stream()
            await stream.write(data=bytes(50))
            incoming = await anext(server.incoming_unidirectional_streams())
            await settled()
            assert incoming.diagnostics().bytes_received >= 25

    run(main())
