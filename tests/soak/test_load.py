"""Honest clients through everything at once: new certificates, restarts, floods.

None of them loses a session but by a restart, everything that was acknowledged is stored, and newcomers get in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.soak.keeper import REASON

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOP = Path(__file__).parents[2]
MEBIBYTE = 2**20
# Seconds for what takes a moment, on a machine that has other things to do.
PATIENCE = 60.0
# Seconds between two newcomers: as fast as it goes would be a flood itself.
NEWCOMERS = 0.05


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    clients: int
    # Mean seconds between two batches of a client.
    pause: float
    # New certificates, over all lives of the server.
    reloads: int
    restarts: int
    # First packets of each flood.
    flood: int
    budget: int


SHORT = Plan(clients=60, pause=0.3, reloads=4, restarts=1, flood=2000, budget=96 * MEBIBYTE)
LONG = Plan(clients=500, pause=1, reloads=20, restarts=5, flood=20_000, budget=192 * MEBIBYTE)


class Side:
    """A process that answers each line with a line of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, line: str = "") -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if line:
            self.process.stdin.write(f"{line}\n".encode())
        async with asyncio.timeout(PATIENCE):
            answer = await self.process.stdout.readline()
        assert answer, f"the process ended instead of answering `{line}`"
        found: dict[str, Any] = json.loads(answer)
        return found

    async def end(self) -> None:
        """Let it end in good order."""
        self.process.terminate()
        async with asyncio.timeout(PATIENCE):
            await self.process.wait()
        assert self.process.returncode == 0


@contextlib.asynccontextmanager
async def run(module: str, *arguments: object) -> AsyncIterator[Side]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.soak.{module}", *map(str, arguments)),
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield Side(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@dataclass
class Newcomers:
    """Clients that come one after the other, each for a moment."""

    # When each came, and how many seconds later it was in.
    taken: list[tuple[float, float]] = field(default_factory=list)
    # When it came, when it was turned away, and why.
    refused: list[tuple[float, float, str]] = field(default_factory=list)
    # Certificates that they were shown.
    certificates: set[str] = field(default_factory=set)

    async def come(self, url: str) -> None:
        while True:
            # Whoever has been here before may resume, and then is shown no certificate.
            tls = wtio.ClientTLS(dangerously_trust_any_certificate=True)
            began = time.monotonic()
            try:
                async with wtio.connect(f"{url}newcomer", tls=tls) as session:
                    self.taken.append((began, time.monotonic() - began))
                    certificate = session.peer_certificate
                    assert certificate is not None
                    self.certificates.add(certificate.sha256)
            except (wtio.ConnectError, wtio.SessionClosed) as error:
                self.refused.append((began, time.monotonic(), str(error)))
            await asyncio.sleep(NEWCOMERS)


@dataclass
class Restart:
    """When the old server was told to end, when the new one listened, and when all clients had been answered there."""

    begun: float
    listening: float
    back: float


class Load:
    """Everything that happens to one server."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        secret = directory / "secret"
        secret.write_text(secrets.token_hex(32))
        secret.chmod(0o600)
        # Certificates to change to, one after the other.
        names = iter(range(plan.reloads + 1))
        self.certificates = [wtio.dev_certificate(directory=directory / str(name)) for name in names]
        self.used = 0
        self.newcomers = Newcomers()
        self.restarts: list[Restart] = []
        # Most bytes that a process of the server grew by, and that its budget said were used.
        self.most_grown = 0
        self.most_used = 0

    @property
    def certificate(self) -> Path:
        return self.certificates[self.used].certfile

    async def note(self, server: Side) -> None:
        figures = await server.ask("figures")
        self.most_grown = max(self.most_grown, figures["grown"])
        self.most_used = max(self.most_used, figures["memory"]["used"])
        assert figures["memory"]["connections_closed"] == 0

    async def flood(self, port: int, kind: str) -> None:
        """Let a flood of first packets loose, and wait for its end."""
        async with run("flooder", port, kind, self.plan.flood) as flooder:
            assert flooder.process.stdin is not None
            assert flooder.process.stdout is not None
            assert await flooder.process.stdout.readline() == b"ready\n"
            flooder.process.stdin.write(b"\n")
            async with asyncio.timeout(PATIENCE):
                await flooder.process.stdout.readline()

    async def reload(self, server: Side, count: int) -> None:
        """Change the certificate so many times; after each change, newcomers are shown the new one."""
        for _ in range(count):
            self.used += 1
            await server.ask(f"reload {self.certificate}")
            await self.note(server)
            wanted = self.certificates[self.used].sha256_hex
            async with asyncio.timeout(PATIENCE):
                while wanted not in self.newcomers.certificates:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(NEWCOMERS)

    async def all_back(self, clients: Side, since: float) -> float:
        """Wait until each client has been answered in a session that began after that time; when that was."""
        async with asyncio.timeout(PATIENCE):
            while (await clients.ask(f"back {since}"))["back"] < self.plan.clients:  # noqa: ASYNC110 - it answers
                await asyncio.sleep(0.02)
        return time.monotonic()

    async def restart(self, stack: contextlib.AsyncExitStack, old: Side, port: int, clients: Side) -> Side:
        new = await stack.enter_async_context(run("keeper", self.directory, self.plan.budget))
        assert (await new.ask())["ready"]
        begun = time.monotonic()
        await old.end()
        await new.ask(f"listen {port} {self.certificate}")
        listening = time.monotonic()
        self.restarts.append(Restart(begun, listening, await self.all_back(clients, begun)))
        return new

    async def run(self) -> dict[str, Any]:
        """Everything, one after the other where it has to be; what the clients say in the end."""
        plan = self.plan
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            server = await stack.enter_async_context(run("keeper", self.directory, plan.budget))
            assert (await server.ask())["ready"]
            port = (await server.ask(f"listen 0 {self.certificate}"))["port"]
            clients = await stack.enter_async_context(run("honest", port, plan.clients, plan.pause))
            assert (await clients.ask())["ready"]
            await self.all_back(clients, 0)
            coming = tasks.create_task(self.newcomers.come(f"https://127.0.0.1:{port}/"))
            lives = plan.restarts + 1
            for life in range(lives):
                # Each life has its share of the certificates, and the first ones a flood or two meanwhile.
                count = plan.reloads * (life + 1) // lives - plan.reloads * life // lives
                kinds = ["forged", "one", "shown"][life::lives]
                await asyncio.gather(self.reload(server, count), *(self.flood(port, kind) for kind in kinds))
                await self.note(server)
                if life < plan.restarts:
                    server = await self.restart(stack, server, port, clients)
            coming.cancel()
            # Everybody is where he was after the last restart.
            await self.note(server)
            said = await clients.ask("stop")
            await server.end()
        return said

    def in_a_restart(self, begun: float, ended: float) -> bool:
        return any(restart.begun <= ended and begun <= restart.back for restart in self.restarts)

    def stored(self) -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(self.directory / "readings.db")) as database:
            rows = database.execute("SELECT sensor, count(*), max(number) FROM readings GROUP BY sensor").fetchall()
        # None is missing among the numbers of a client.
        assert all(count == last + 1 for _, count, last in rows)
        return {name: count for name, count, _ in rows}

    def check(self, said: dict[str, Any]) -> None:
        assert said["failures"] == []
        ends = [(when, how) for ends in said["ends"].values() for when, how in ends]
        lost = [(when, how) for when, how in ends if not self.in_a_restart(when, when)]
        assert lost == [], "sessions ended without a restart"
        # Whom the close did not reach learns from the new server that his session is gone.
        assert all(REASON in how or "forgotten" in how for _, how in ends), Counter(how for _, how in ends)
        assert all(len(ends) <= self.plan.restarts for ends in said["ends"].values())
        stored = self.stored()
        assert all(0 < count <= stored[name] for name, count in said["acknowledged"].items())
        refused = [entry for entry in self.newcomers.refused if not self.in_a_restart(*entry[:2])]
        assert refused == [], "newcomers were turned away without a restart"
        assert self.most_grown <= self.plan.budget * 5 // 4

    def describe(self, said: dict[str, Any]) -> str:
        taken = sorted(took for began, took in self.newcomers.taken if not self.in_a_restart(began, began + took))
        ends = Counter(how for ends in said["ends"].values() for _, how in ends)
        first = [
            min(began + took for began, took in self.newcomers.taken if began + took > restart.listening)
            - restart.listening
            for restart in self.restarts
        ]
        return "\n".join(
            [
                f"{self.plan}",
                f"newcomers: {len(taken)}, half of them in {taken[len(taken) // 2] * 1000:.0f} ms, the slowest in "
                f"{taken[-1]:.2f} s, {sum(took > 1 for took in taken)} in more than 1 s",
                f"restarts: away for {seconds(restart.listening - restart.begun for restart in self.restarts)}; then "
                f"the first newcomer in {seconds(first)}, all clients back in "
                f"{seconds(restart.back - restart.listening for restart in self.restarts)}",
                f"ends of sessions: {dict(ends)}",
                f"acknowledged: {sum(said['acknowledged'].values())}, the slowest batch in {said['slowest']:.2f} s; "
                f"{said['datagrams']} datagrams came back",
                f"memory: the server grew by {self.most_grown / MEBIBYTE:.0f} MiB at most, and used "
                f"{self.most_used / MEBIBYTE:.0f} of {self.plan.budget / MEBIBYTE:.0f} MiB of its budget",
            ]
        )


def seconds(durations: Any) -> str:
    return ", ".join(f"{duration:.2f}" for duration in durations) + " s"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("plan", [SHORT, pytest.param(LONG, marks=pytest.mark.long)], ids=["short", "long"])
async def test_honest_clients_lose_no_session_but_by_a_restart_and_nothing_that_was_acknowledged(
    tmp_path: Path, plan: Plan
) -> None:
    load = Load(plan, tmp_path)
    said = await load.run()
    print(load.describe(said))
    load.check(said)
