"""The wait for a session's end behind a reset or a stop, cancelled at every await point and then begun again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import wtio
import wtio.testing

from .interrupt import When, interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

H3_REQUEST_CANCELLED = int(wtio.ErrorCodes.H3_REQUEST_CANCELLED)


async def next_chunk(stream: wtio.WebTransportStream) -> bytes | None:
    async for chunk in stream:
        return chunk
    return None


CALLS: dict[str, Callable[[wtio.WebTransportStream], Coroutine[Any, Any, object]]] = {
    "read": lambda stream: stream.read(),
    "readinto": lambda stream: stream.readinto(bytearray(10)),
    "read_all": lambda stream: stream.read_all(),
    "readexactly": lambda stream: stream.readexactly(n=10),
    "readline": lambda stream: stream.readline(),
    "readuntil": lambda stream: stream.readuntil(separator=b"--"),
    "anext": next_chunk,
    "write": lambda stream: stream.write(data=b"more"),
    "write_all": lambda stream: stream.write_all(data=b"more"),
    "wait_acked": lambda stream: stream.wait_acked(),
}
KEEPING = ("read_all", "readexactly", "readline", "readuntil")


@pytest.mark.parametrize("ends", [True, False], ids=["session ends", "session lives on"])
@pytest.mark.parametrize("when", ["waiting", "woken"])
@pytest.mark.parametrize("name", CALLS)
def test_cancelled_wait_for_the_sessions_end_changes_nothing(name: str, when: When, ends: bool) -> None:
    cancelled = 0

    async def main(has_arrived: bool, point: int) -> None:
        nonlocal cancelled
        async with wtio.testing.session_pair() as (client, server):
            ours = await client.create_bidirectional_stream()
            await ours.write(data=b"0123")
            theirs = await anext(server.incoming_bidirectional_streams())
            await theirs.write(data=b"x")
            held = b""
            if name in KEEPING:
                held = b"0123"
                # The bytes are with the stream before the reset comes: the read that is cancelled has collected them.
                assert not (await interrupted(CALLS[name](theirs), 1, "waiting"))[0]
            else:
                assert await theirs.read() == b"0123"
            ours._core.reset(H3_REQUEST_CANCELLED)
            ours._core.stop(H3_REQUEST_CANCELLED)
            if has_arrived:
                # So that the call waits for nothing but the session.
                await asyncio.sleep(0.1)
            closing = asyncio.ensure_future(close_after(client, 0.3)) if ends else None
            error: wtio.WebTransportError | None = None
            for _ in range(3):
                try:
                    done, _ = await interrupted(CALLS[name](theirs), point, when)
                except wtio.WebTransportError as early:
                    error = early
                    break
                if not done:
                    cancelled += 1
                    assert server.is_closed or theirs.diagnostics().receive_buffered == len(held)
            while error is None:
                try:
                    # Writes find room until the stop has arrived.
                    await CALLS[name](theirs)
                    await asyncio.sleep(0.01)
                except wtio.WebTransportError as late:
                    error = late
            if closing is not None:
                assert isinstance(error, wtio.SessionClosedError)
                assert (error.code, error.reason) == (5, "bye")
                await closing
                return
            assert isinstance(error, (wtio.StreamResetError, wtio.StreamStoppedError))
            assert error.error_code is None
            if name == "read_all":
                assert await theirs.read() == held
            elif name in KEEPING:
                assert isinstance(error, wtio.StreamResetError)
                assert error.partial == held
            # The stream's task slots are free again, and the session is as good as before.
            for free in (theirs.read(), theirs.write(data=b"x")):
                with pytest.raises((wtio.StreamResetError, wtio.StreamStoppedError)):
                    await free
            await (await server.create_unidirectional_stream()).write(data=b"x")

    for has_arrived, point in ((True, 1), (False, 1), (False, 2)):
        wtio.testing.run(main(has_arrived, point))
    # What ends the wait in vain is a timer, not a wake-up.
    assert cancelled or (when == "woken" and not ends)


async def close_after(session: wtio.WebTransportSession, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await session.close(5, "bye")
