"""What workers cost: processor time per session with one process alone, and with 1, 2 and 4 workers, and how evenly
newcomers are spread.

``python benchmarks/run.py --workers``, or ``make bench ARGS=--workers``. The ways take turns, and medians of ratios to
the round's own base are printed, so that whatever else the machine does meets all of them. With clients on the same
cores, more workers cannot show more throughput; what they show is that a session costs no more.

There are two loads. With the *even* one each worker has as many new sessions a second, and as many echoes, whatever the
number of workers: that compares what a session costs. With the *greedy* one each worker has as many sessions at once,
each of which sends again as soon as it has its answer. One worker is never idle then, so many packets wait when it
looks. Several have less to do, because the one process of clients can do no more, and are woken for fewer packets at a
time; how often a session has its worker wait is printed, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
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
# For each worker: in all and at once, of the greedy load.
SESSIONS: Final = 160
AT_ONCE: Final = 16
# For each worker, of the even load: in all, new ones a second, and seconds from one echo to the next. So there are 16
# at once, too, and even with four workers the machine is idle for most of the time.
EVEN_SESSIONS: Final = 40
A_SECOND: Final = 4
BETWEEN: Final = 0.1
ECHOES: Final = 40
SIZE: Final = 1000
NEWCOMERS: Final = 1000
SEEDS: Final = 3
WAYS: Final = (0, 1, 2, 4)

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
    """Seconds that processes have had, theirs and the kernel's for them, in threads that have not ended."""
    files = (file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def waits(pids: list[int]) -> int:
    """How often processes have waited for something to do."""
    found = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "voluntary_ctxt_switches":
                found += int(value)
    return found


async def use(port: int, tls: wtio.ClientTLS, between: float = 0.0) -> None:
    """One session with its echoes."""
    loop = asyncio.get_running_loop()
    async with wtio.connect(f"https://127.0.0.1:{port}/", tls=tls) as session:
        due = loop.time()
        for _ in range(ECHOES):
            due += between
            if between:
                await asyncio.sleep(due - loop.time())
            stream = await session.create_bidirectional_stream()
            await stream.write(data=bytes(SIZE), end_stream=True)
            assert len(await stream.read_all()) == SIZE


async def greedy(port: int, tls: wtio.ClientTLS, workers: int, each: int = SESSIONS) -> int:
    """So many sessions for each worker, each as fast as it goes; how many there were."""
    room = asyncio.Semaphore(AT_ONCE * workers)

    async def one() -> None:
        async with room:
            await use(port, tls)

    await asyncio.gather(*(one() for _ in range(each * workers)))
    return each * workers


async def even(port: int, tls: wtio.ClientTLS, workers: int) -> int:
    """Sessions that come and send at their times; how many there were."""

    async def one(number: int) -> None:
        await asyncio.sleep(number / (A_SECOND * workers))
        await use(port, tls, BETWEEN)

    await asyncio.gather(*(one(number) for number in range(EVEN_SESSIONS * workers)))
    return EVEN_SESSIONS * workers


LOADS: Final = {"even": even, "greedy": greedy}


async def cost(directory: Path, workers: int, tls: wtio.ClientTLS, load: str) -> tuple[float, float]:
    """Seconds of all servers for each session, and how often they waited for something to do."""
    async with served(directory, workers) as (port, pids):
        # What is only done once, in each worker.
        await greedy(port, tls, len(pids), 24)
        before, waited = processor_time(pids), waits(pids)
        sessions = await LOADS[load](port, tls, len(pids))
        return (processor_time(pids) - before) / sessions, (waits(pids) - waited) / sessions


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
    """Print all tables."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "workers_app.py").write_text(APP)
        tls = wtio.dev_certificate(directory=directory).client_tls()
        costs: dict[tuple[str, int], list[tuple[float, float]]] = {(load, n): [] for load in LOADS for n in WAYS}
        for number in range(rounds):
            for load in LOADS:
                # In another order each time.
                for workers in WAYS[number % 4 :] + WAYS[: number % 4]:
                    costs[load, workers].append(await cost(directory, workers, tls, load))
                last = ", ".join(f"{costs[load, workers][-1][0] * 1000:.2f} ms" for workers in WAYS)
                print(f"round {number + 1}, {load}: {last}", flush=True)
        for load in LOADS:
            print(
                f"\n{load} load: processor time of servers per session ({ECHOES} echoes of {SIZE} bytes), "
                f"median of {rounds}:"
            )
            for workers in WAYS:
                base = 0 if workers == 1 else 1
                pairs = zip(costs[load, workers], costs[load, base], strict=True)
                ratio = statistics.median(mine / theirs for (mine, _), (theirs, _) in pairs)
                what = f"{workers} workers" if workers > 1 else "1 worker" if workers else "one process alone"
                against = f", {ratio:.3f} of {'one process alone' if base == 0 else '1 worker'}" if workers else ""
                time, waited = (statistics.median(values) for values in zip(*costs[load, workers], strict=True))
                print(f"  {what:18} {time * 1000:6.2f} ms, waits {waited:3.0f} times{against}")
        print(f"\nhow {NEWCOMERS} newcomers are spread:")
        for workers in (2, 4):
            for _ in range(SEEDS):
                found, probability = await spread(directory, workers, tls)
                print(f"  {workers} workers: {found}, p = {probability:.3f}")


def run(*, quick: bool) -> None:
    """Compare, with fewer rounds if it shall be quick."""
    asyncio.run(compare(3 if quick else ROUNDS))
