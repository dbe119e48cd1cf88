"""Ten thousand short streams on one session: memory stays flat on both sides, however they end."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import wtio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

COUNT = 10_000
ROUND = 1_000
AT_ONCE = 50

Sessions = tuple[wtio.WebTransportSession, wtio.WebTransportSession]

pytestmark = pytest.mark.timeout(120)


def resident() -> int:
    """Bytes of memory of this process, with both sides in it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- one stream each; the far side is a task that runs all the time


async def by_end(session: wtio.WebTransportSession, number: int) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"%d" % number, end_stream=True)
    assert await stream.read_all() == b"%d" % number


async def by_end_one_way(session: wtio.WebTransportSession, number: int) -> None:
    stream = await session.create_unidirectional_stream()
    await stream.write(data=b"%d" % number, end_stream=True)


async def by_reset(session: wtio.WebTransportSession, number: int) -> None:
    stream = await session.create_unidirectional_stream()
    await stream.write(data=b"%d" % number)
    await stream.reset(error_code=number)


async def by_reset_unwritten(session: wtio.WebTransportSession, number: int) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.close(error_code=number)


async def by_stop(session: wtio.WebTransportSession, number: int) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"stop me")
    while stream.can_write:
        try:
            await stream.write(data=b"x" * 100)
            await asyncio.sleep(0)
        except wtio.StreamStoppedError:
            break
    await stream.stop_receiving()


async def by_forgetting(session: wtio.WebTransportSession, number: int) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"%d" % number)
    # Dropped without a word.


async def unread(session: wtio.WebTransportSession, number: int) -> None:
    stream = await session.create_unidirectional_stream()
    await stream.write(data=bytes(1000), end_stream=True)


async def echo(session: wtio.WebTransportSession) -> None:
    """Send everything back."""

    async def answer(stream: wtio.WebTransportStream) -> None:
        await stream.write_all(data=await stream.read_all(), end_stream=True)

    async with asyncio.TaskGroup() as group:
        async for stream in session.incoming_bidirectional_streams():
            group.create_task(answer(stream))


async def read_all(session: wtio.WebTransportSession) -> None:
    """Read to the end, whatever that is."""

    async def both() -> None:
        async for stream in session.incoming_bidirectional_streams():
            await read(stream)
            await stream.close()

    async def read(stream: wtio.WebTransportReceiveStream) -> None:
        try:
            await stream.read_all()
        except wtio.StreamResetError:
            return

    async with asyncio.TaskGroup() as group:
        group.create_task(both())
        async for stream in session.incoming_unidirectional_streams():
            await read(stream)


async def stop(session: wtio.WebTransportSession) -> None:
    """Stop them, and end the other direction."""
    async for stream in session.incoming_bidirectional_streams():
        await stream.close()


async def ignore(session: wtio.WebTransportSession) -> None:
    """Take them and read nothing."""
    async for _ in session.incoming_unidirectional_streams():
        pass


CASES: dict[
    str,
    tuple[
        Callable[[wtio.WebTransportSession, int], Awaitable[None]],
        Callable[[wtio.WebTransportSession], Awaitable[None]],
    ],
] = {
    "end": (by_end, echo),
    "end-one-way": (by_end_one_way, read_all),
    "reset": (by_reset, read_all),
    "reset-unwritten": (by_reset_unwritten, read_all),
    "stop": (by_stop, stop),
    "forgotten": (by_forgetting, read_all),
    "unread": (unread, ignore),
}


@pytest.mark.parametrize("opener", ["client", "server"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.trap("S6", "H20")
async def test_memory_stays_flat(pair: Sessions, case: str, opener: str) -> None:
    near, far = pair if opener == "client" else pair[::-1]
    one, other_side = CASES[case]
    serving = asyncio.ensure_future(other_side(far))
    number = 0

    async def work() -> None:
        nonlocal number
        while number < limit:
            number += 1
            await one(near, number)

    sizes: list[int] = []
    traced: list[int] = []
    for limit in range(ROUND, COUNT + 1, ROUND):
        if limit == COUNT:
            # Only at the end: tracing makes everything several times slower.
            tracemalloc.start()
            await settle(near, far)
            traced.append(tracemalloc.get_traced_memory()[0])
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        assert not serving.done(), serving
        await settle(near, far)
        sizes.append(resident())
    traced.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # Python's objects: fewer bytes than there were streams since.
    assert traced[1] - traced[0] < 50 * ROUND, traced
    # All memory, both sides: after three rounds of warming up, less than 100 bytes a stream.
    growth = sizes[-2] - sizes[2]
    assert growth < 100 * (COUNT - 4 * ROUND) + 1024 * 1024, sizes
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def settle(near: wtio.WebTransportSession, far: wtio.WebTransportSession) -> None:
    """Wait until what was done before has reached the other side and come back."""
    for session, other in ((near, far), (far, near)):
        session.send_datagram(b"?")
        await other.receive_datagram()
    gc.collect()


async def test_streams_left_waiting_are_bounded_by_credit(pair: Sessions) -> None:
    # Nobody accepts; the peer's credit ends the flood, and what waits is all there is.
    client, server = pair
    opened = 0
    kept = []
    while True:
        try:
            # All but the first 100 are allowed when the server has seen some.
            stream = await asyncio.wait_for(client.create_unidirectional_stream(), 5)
        except TimeoutError:
            break
        await stream.write(data=b"x", end_stream=True)
        kept.append(stream)
        opened += 1
    assert opened == wtio.Limits().unidirectional_streams
    waiting = asyncio.ensure_future(client.create_unidirectional_stream())
    for _ in range(opened):
        stream_in = await anext(aiter(server.incoming_unidirectional_streams()))
        assert await stream_in.read_all() == b"x"
    await (await waiting).close()


async def test_sessions_come_and_go(server: wtio.Server, url: str, certificate: wtio.DevCertificate) -> None:
    # Connections, their sockets and everything that belongs to them.
    async def serve() -> None:
        async for request in server:
            session = await request.accept()
            stream = await anext(aiter(session.incoming_bidirectional_streams()))
            await stream.write(data=await stream.read_all(), end_stream=True)

    serving = asyncio.ensure_future(serve())
    before = open_files()
    sizes: list[int] = []
    # Connections that linger after their end make up the first rounds' growth; then it must be flat.
    for _ in range(10):
        for _ in range(100):
            async with wtio.connect(url, tls=certificate.client_tls()) as session:
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"hello", end_stream=True)
                assert await stream.read_all() == b"hello"
        # Closing connections keep state and sockets for three probe timeouts (RFC 9000, section 10.2).
        async with asyncio.timeout(30):
            while open_files() > before + 5:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        gc.collect()
        sizes.append(resident())
    assert server.sessions == []
    assert sizes[-1] - sizes[5] < 2 * 1024 * 1024, sizes
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
