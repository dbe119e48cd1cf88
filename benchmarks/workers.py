"""What workers cost: processor time per session with one process alone, and with 1, 2 and 4 workers, and how evenly
newcomers are spread.

``python benchmarks/run.py --workers``, or ``make bench ARGS=--workers``. The ways take turns, and medians of ratios to
the round's own base are printed, so that whatever else the machine does meets all of them. With clients on the same
cores, more workers cannot show more throughput; what they show is that a session costs no more. Each worker has as many
sessions at once, whatever their number: with fewer, it would be woken for fewer packets at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import wtio
from wtio.workers import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROUNDS: Final = 9
# For each worker, in all and at once.
SESSIONS: Final = 400
ECHOES: Final = 40
SIZE: Final = 1000
AT_ONCE: Final = 16
NEWCOMERS: Final = 1000
SEEDS: Final = 3
TICK: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

APP = """
import os, wtio

async def handle(session: wtio.WebTransportSession) -> None:
    await session.serve_streams(answer)

async def answer(stream: wtio.WebTransportStream) -> None:
    data = await stream.read_all()
    await stream.write(data=data or str(os.getpid()).encode(), end_stream=True)
"""
ALONE = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import wtio, workers_app

async def main():
    tls = wtio.dev_certificate(directory=sys.argv[1]).server_tls()
    async with wtio.serve(workers_app.handle, "127.0.0.1", 0, tls=tls) as server:
        print(server.addresses[0][1], flush=True)
        await server.wait_closed()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def served(directory: Path, workers: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Port and processes of so many workers; 0 is one process without a supervisor."""
    if workers:
        tls = wtio.dev_certificate(directory=directory).server_tls()
        async with Supervisor(
            "workers_app:handle", "127.0.0.1", 0, tls=tls, workers=workers, directory=directory
        ) as supervisor:
            yield supervisor.addresses[0][1], supervisor.pids
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ALONE, str(directory), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline()), [process.pid]
    finally:
        process.kill()
        await process.wait()


def processor_time(pids: list[int]) -> float:
    """Seconds that processes have had, theirs and the kernel's for them."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


async def use(port: int, tls: wtio.ClientTLS, room: asyncio.Semaphore) -> None:
    """One session with its echoes."""
    async with room, wtio.connect(f"https://127.0.0.1:{port}/", tls=tls) as session:
        for _ in range(ECHOES):
            stream = await session.create_bidirectional_stream()
            await stream.write(data=bytes(SIZE), end_stream=True)
            assert len(await stream.read_all()) == SIZE


async def cost(directory: Path, workers: int, tls: wtio.ClientTLS) -> float:
    """Seconds of all servers for each session."""
    async with served(directory, workers) as (port, pids):
        room = asyncio.Semaphore(AT_ONCE * len(pids))
        # What is only done once, in each worker.
        await asyncio.gather(*(use(port, tls, room) for _ in range(24 * len(pids))))
        before = processor_time(pids)
        sessions = SESSIONS * len(pids)
        await asyncio.gather(*(use(port, tls, room) for _ in range(sessions)))
        return (processor_time(pids) - before) / sessions


async def spread(directory: Path, workers: int, tls: wtio.ClientTLS) -> tuple[list[int], float]:
    """How many newcomers each worker gets, and how probable it is that chance makes it as uneven."""
    async with served(directory, workers) as (port, pids):
        room = asyncio.Semaphore(AT_ONCE)

        async def ask() -> bytes:
            async with room, wtio.connect(f"https://127.0.0.1:{port}/", tls=tls) as session:
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"", end_stream=True)
                return await stream.read_all()

        counts = Counter(await asyncio.gather(*(ask() for _ in range(NEWCOMERS))))
        found = [counts[str(pid).encode()] for pid in pids]
        expected = NEWCOMERS / workers
        return found, chance(sum((one - expected) ** 2 / expected for one in found), workers - 1)


def chance(square: float, freedom: int) -> float:
    """The probability of a chi-square of at least so much, with an odd number of degrees of freedom."""
    probability = math.erfc(math.sqrt(square / 2))
    term = math.sqrt(2 * square / math.pi) * math.exp(-square / 2)
    for odd in range(1, freedom, 2):
        probability += term
        term *= square / (odd + 2)
    return probability


async def compare(rounds: int) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "workers_app.py").write_text(APP)
        tls = wtio.dev_certificate(directory=directory).client_tls()
        ways = (0, 1, 2, 4)
        costs: dict[int, list[float]] = {workers: [] for workers in ways}
        for number in range(rounds):
            # In another order each time.
            for workers in ways[number % 4 :] + ways[: number % 4]:
                costs[workers].append(await cost(directory, workers, tls))
            print(f"round {number + 1}: " + ", ".join(f"{costs[one][-1] * 1000:.2f} ms" for one in ways), flush=True)
        print(f"\nprocessor time of servers per session ({ECHOES} echoes of {SIZE} bytes), median of {rounds}:")
        for workers in ways:
            base = 0 if workers == 1 else 1
            ratio = statistics.median(mine / theirs for mine, theirs in zip(costs[workers], costs[base], strict=True))
            what = f"{workers} workers" if workers > 1 else "1 worker" if workers else "one process alone"
            against = f", {ratio:.3f} of {'one process alone' if base == 0 else '1 worker'}" if workers else ""
            print(f"  {what:18} {statistics.median(costs[workers]) * 1000:6.2f} ms{against}")
        print(f"\nhow {NEWCOMERS} newcomers are spread:")
        for workers in (2, 4):
            for _ in range(SEEDS):
                found, probability = await spread(directory, workers, tls)
                print(f"  {workers} workers: {found}, p = {probability:.3f}")


def run(*, quick: bool) -> None:
    """Compare, with fewer rounds if it shall be quick."""
    asyncio.run(compare(3 if quick else ROUNDS))
