"""Clients that are not read, and clients that do not read: a server's process stays within its memory budget."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MEGABYTE = 1024 * 1024
PIECE = bytes(65_536)
# What clients take for themselves is kept small: there are as many of them in this process.
CLIENT = wtio.Limits(
    connection_receive_window=64 * 1024,
    stream_receive_window=64 * 1024,
    stream_send_buffer=64 * 1024,
    connection_send_buffer=64 * 1024,
)

pytestmark = pytest.mark.timeout(300)


class Hoard:
    """The server's process."""

    def __init__(self, process: subprocess.Popen[str], certificate: wtio.DevCertificate) -> None:
        self.certificate = certificate
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        # Bytes before there are clients.
        self.before = self._ask()["resident"]

    def _ask(self) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        figures: dict[str, int] = json.loads(self._process.stdout.readline())
        return figures

    async def settled(self) -> dict[str, int]:
        """Its figures, once nothing comes any more."""
        before = None
        while (figures := await asyncio.to_thread(self._ask)) != before:
            before = figures
            await asyncio.sleep(0.5)
        return figures

    async def figures(self) -> dict[str, int]:
        return await asyncio.to_thread(self._ask)


@asynccontextmanager
async def hoard(directory: Path, budget: int) -> AsyncIterator[Hoard]:
    top = Path(__file__).parents[2]
    with subprocess.Popen(  # noqa: ASYNC220 - it takes milliseconds, once
        [sys.executable, "-m", "tests.soak.hoard", str(directory), str(budget)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=top,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(top / "python"), str(top)])},
    ) as process:
        try:
            server = await asyncio.to_thread(lambda: Hoard(process, wtio.dev_certificate(directory=directory)))
            yield server
        finally:
            process.kill()


async def fill(server: Hoard) -> None:
    """Write to eight streams as much as the server takes."""
    tls = server.certificate.client_tls()
    async with wtio.connect(f"https://127.0.0.1:{server.port}/keep", tls=tls, limits=CLIENT) as session:

        async def push() -> None:
            stream = await session.create_unidirectional_stream()
            while True:
                await stream.write(data=PIECE)

        await asyncio.gather(*(push() for _ in range(8)))


async def starve(server: Hoard) -> None:
    """Take a session, and read nothing of it."""
    tls = server.certificate.client_tls()
    with suppress(wtio.SessionClosed, wtio.ConnectError):
        async with wtio.connect(f"https://127.0.0.1:{server.port}/push", tls=tls, limits=CLIENT) as session:
            await session.wait_closed()


async def several(count: int, server: Hoard, act: object) -> list[asyncio.Task[None]]:
    """Start clients, not all of them at once."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(act(server)))  # type: ignore[operator]
        if number % 20 == 19:
            await asyncio.sleep(0.1)
    return tasks


@pytest.mark.parametrize(
    ("clients", "budget"), [(60, 48 * MEGABYTE), pytest.param(1000, 192 * MEGABYTE, marks=pytest.mark.long)]
)
async def test_clients_that_are_not_read_stay_within_the_budget(tmp_path: Path, clients: int, budget: int) -> None:
    async with hoard(tmp_path, budget) as server:
        tasks = await several(clients, server, fill)
        figures = await server.settled()
        grown = figures["resident"] - server.before
        print(f"{clients} clients, budget {budget}: {grown} bytes more, {figures}")
        assert not any(task.done() for task in tasks), "all were taken"
        assert figures["connections_refused"] == figures["connections_closed"] == 0
        assert figures["held"] > clients * 80 * 1024
        assert figures["used"] <= budget
        assert grown <= budget * 5 // 4
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.parametrize(
    ("clients", "budget"), [(60, 48 * MEGABYTE), pytest.param(1000, 192 * MEGABYTE, marks=pytest.mark.long)]
)
async def test_clients_that_do_not_read_stay_within_the_budget(tmp_path: Path, clients: int, budget: int) -> None:
    async with hoard(tmp_path, budget) as server:
        tasks = await several(clients, server, starve)
        most = 0
        for _ in range(20):
            figures = await server.figures()
            most = max(most, figures["resident"] - server.before)
            await asyncio.sleep(0.1)
        print(f"{clients} clients, budget {budget}: {most} bytes more, {figures}")
        assert figures["connections_closed"] > 0, "together they would hold more than the budget"
        assert figures["used"] <= budget
        assert most <= budget * 5 // 4
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
