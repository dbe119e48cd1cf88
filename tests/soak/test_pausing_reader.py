"""A reader that pauses: the writer waits, and both sides keep to the limits that bound their memory."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import wtio

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 1024 * 1024
STREAMS = 32
SIZE = 4 * MEGABYTE  # of each stream; together far beyond every window and queue
WRITE_SIZE = 65_536
LIMITS = wtio.Limits()
WINDOW = LIMITS.connection_receive_window
# A stream may hold 16 KiB beyond the connection's bound.
QUEUE = LIMITS.connection_send_buffer + STREAMS * 16 * 1024
# The reader's window; the same bytes once more on the way to being acknowledged, and the writer's queue. A quarter is
# for what surrounds the payload of packets, the rest for Python's own.
MEMORY = (WINDOW + WINDOW + QUEUE) * 5 // 4 + 4 * MEGABYTE

PATTERN = random.Random(0).randbytes(1_000_003)

pytestmark = pytest.mark.timeout(120)


def content(offset: int, size: int) -> bytes:
    """What belongs at an offset of any stream."""
    start = offset % len(PATTERN)
    return (PATTERN[start : start + size] + PATTERN)[:size]


def memory(name: str) -> int:
    """Bytes of memory of this process, with both sides in it: now (VmRSS), or at most since the reset (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def reset_memory() -> int:
    """Set the high-water mark back to what is used now, and give that; see proc(5)."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a number that no event announces."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


class Reader:
    """Compares what arrives, as long as it may read."""

    def __init__(self) -> None:
        self.count = 0
        self.may_read = asyncio.Event()

    async def take(self, stream: wtio.WebTransportReceiveStream) -> int:
        offset = 0
        while True:
            await self.may_read.wait()
            data = await stream.read(max_bytes=WRITE_SIZE)
            if not data:
                return offset
            assert data == content(offset, len(data))
            offset += len(data)
            self.count += len(data)
            # Nothing that was read is kept over a pause.
            del data


@pytest.mark.parametrize("io", ["loop", "thread"])
@pytest.mark.parametrize("writing_side", ["client", "server"])
async def test_writer_waits_and_memory_stays_within_the_limits(
    certificate: wtio.DevCertificate, writing_side: str, io: str
) -> None:
    accepted = 0

    async def write(stream: wtio.WebTransportSendStream) -> None:
        nonlocal accepted
        for offset in range(0, SIZE, WRITE_SIZE):
            await stream.write(data=content(offset, WRITE_SIZE), end_stream=offset + WRITE_SIZE == SIZE)
            accepted += WRITE_SIZE

    async def connect() -> wtio.WebTransportSession:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        return await wtio.connect(url, tls=certificate.client_tls(), io=io)

    async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls(), io=io) as server:
        connecting = asyncio.ensure_future(connect())
        near = await (await anext(server)).accept()
        far = await connecting
        if writing_side == "client":
            near, far = far, near
        reader = Reader()
        before = reset_memory()
        async with asyncio.TaskGroup() as group:
            for _ in range(STREAMS):
                group.create_task(write(await near.create_unidirectional_stream()))
            incoming = far.incoming_unidirectional_streams()
            reading = [group.create_task(reader.take(await anext(incoming))) for _ in range(STREAMS)]
            for pause in range(3):
                # New credit may be announced late, when an eighth of the window is free.
                await until(lambda: far.stats().stream_bytes_received - reader.count > WINDOW * 3 // 4)
                assert accepted <= reader.count + WINDOW + QUEUE
                reader.may_read.set()
                enough = (pause + 1) * STREAMS * SIZE // 4
                await until(lambda enough=enough: reader.count >= enough)  # type: ignore[misc]
                reader.may_read.clear()
            reader.may_read.set()
        assert [task.result() for task in reading] == [SIZE] * STREAMS
        assert memory("VmHWM") - before <= MEMORY
        await far.close()
