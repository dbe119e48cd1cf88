"""Many sessions on two workers: none is lost over NAT rebindings, a killed worker of others, and deployments with bulk.

A short form with 40 sessions runs always, the whole one with 500 in ``make test-long``; both print their figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio._steering import is_supported
from wtio.workers import Supervisor, WorkerLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(not is_supported(), reason="only Linux chooses among sockets by connection ID")

TOP = Path(__file__).parents[2]
APP = """
import hashlib, os
import wtio

async def handle(session: wtio.WebTransportSession) -> None:
    await session.serve_streams(answer)

async def answer(stream: wtio.WebTransportStream) -> None:
    if await stream.readexactly(n=3) == b"who":
        await stream.write(data=str(os.getpid()).encode(), end_stream=True)
        return
    await stream.readexactly(n=1)
    digest = hashlib.sha256()
    async for chunk in stream:
        digest.update(chunk)
        await stream.write(data=chunk)
    await stream.write(data=digest.digest(), end_stream=True)
"""


class Clients:
    """The process of the clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, *words: object) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        return await self.answer()

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the clients have failed"
        return json.loads(line)


@contextlib.asynccontextmanager
async def clients(supervisor: Supervisor, directory: Path, count: int) -> AsyncIterator[Clients]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.workers.clients"),
        *(str(supervisor.addresses[0][1]), str(directory), str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TOP / "python"), str(TOP)])},
    )
    one = Clients(process)
    try:
        assert await one.answer() == "ready"
        yield one
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 60)
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def no_session_is_lost(directory: Path, sessions: int, rebindings: int, deployments: int, bulk: int) -> None:
    (directory / "many_app.py").write_text(APP)
    certificate = wtio.dev_certificate(directory=directory / "certificate")
    async with Supervisor(
        "many_app:handle",
        "127.0.0.1",
        0,
        tls=certificate.server_tls(),
        directory=directory,
        workers=2,
        # So that several generations live at once, each with sessions.
        worker_limits=WorkerLimits(slots=2 * (deployments + 2), drain=3600),
        timeouts=wtio.Timeouts(idle=60, close=1),
    ) as supervisor:
        began = time.monotonic()
        async with clients(supervisor, directory / "certificate", sessions) as many:
            owners = await many.ask("owners")
            print(
                f"\n{sessions} sessions after {time.monotonic() - began:.1f} s, on workers: {sorted(owners.values())}"
            )
            assert sum(owners.values()) == sessions
            assert len(owners) == 2
            for rebinding in range(rebindings):
                assert await many.ask("rebind") == sessions, f"rebinding {rebinding}"
            print(f"{rebindings} rebindings: none lost, the longest echo took {await many.ask('longest'):.2f} s")
            first = supervisor.pids
            for deployment in range(deployments):
                await many.ask("bulk", bulk)
                began = time.monotonic()
                assert await supervisor.deploy()
                took = time.monotonic() - began
                assert await many.ask("rebind") == sessions
                right, asked, later = await many.ask("hashes")
                assert (right, asked) == (sessions, sessions)
                print(
                    f"deployment {deployment + 1}: {took:.1f} s; {sessions} times {bulk} bytes and as many back, "
                    f"hashed at both ends, {later:.1f} s after it"
                )
            assert await many.ask("lost") == 0
            # Newcomers are at the newest workers, one of which is killed: nobody else's session notices.
            newest = [pid for pid in supervisor.pids if pid not in first]
            os.kill(newest[-1], signal.SIGKILL)
            assert await many.ask("rebind") == sessions
            assert await many.ask("lost") == 0
            # One of those that have sessions: its own are lost, and no others.
            victim = first[0]
            # What it has counted since its last report goes with it.
            await supervisor.stats()
            os.kill(victim, signal.SIGKILL)
            kept = sessions - owners[str(victim)]
            deadline = time.monotonic() + 60
            await many.ask("longest")
            await many.ask("rebind")
            while await many.ask("lost") < owners[str(victim)]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
            assert await many.ask("rebind") == kept
            assert await many.ask("lost") == owners[str(victim)]
            stats = await supervisor.stats()
            print(
                f"killed: {owners[str(victim)]} sessions lost, {kept} of other workers kept; with two other ports in a "
                f"row, the longest echo took {await many.ask('longest'):.2f} s"
            )
            assert stats.sessions_opened_total == sessions
            assert stats.sessions_open == kept


@pytest.mark.timeout(300)
async def test_no_session_is_lost_over_rebindings_deployments_and_the_death_of_other_workers(tmp_path: Path) -> None:
    await no_session_is_lost(tmp_path, sessions=40, rebindings=3, deployments=1, bulk=200_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_no_session_of_500_is_lost_over_20_rebindings_3_deployments_and_the_death_of_others(
    tmp_path: Path,
) -> None:
    await no_session_is_lost(tmp_path, sessions=500, rebindings=20, deployments=3, bulk=200_000)
