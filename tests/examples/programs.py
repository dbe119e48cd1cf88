"""Running programs of the repository: in processes of their own, with a certificate directory of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 30.0


@dataclass
class Program:
    """A process, and what it has printed up to now."""

    process: asyncio.subprocess.Process
    output: str = ""

    async def until(self, words: str) -> str:
        """The first line with ``words`` in it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while line := (await self.process.stdout.readline()).decode():
                self.output += line
                if words in line:
                    return line.strip()
        raise AssertionError(f"the program ended without `{words}`; it printed:\n{self.output}")

    async def says(self, text: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        await self.process.stdin.drain()

    async def finish(self) -> int:
        """Close its standard input and wait for its end; the exit status."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait()


Start = Callable[..., AbstractAsyncContextManager[Program]]


async def url_of(server: Program) -> str:
    """Where a server that was just started listens."""
    return (await server.until("https://")).split()[-1]


async def port_of(server: Program) -> str:
    """At which port of this machine a server that was just started listens."""
    return (await url_of(server)).rstrip("/").rpartition(":")[2]
