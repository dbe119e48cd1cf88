"""Running programs of the repository: in processes of their own, with a certificate directory of their own."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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


def _restore_interrupt() -> None:
    # A shell starts what runs in its background with SIGINT ignored, and programs inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def running(
    *arguments: object, environment: Mapping[str, str] | None = None, end: signal.Signals = signal.SIGINT
) -> AsyncIterator[Program]:
    """Run Python with these arguments until the block is left, which sends ``end``; kill what does not end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, arguments),
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=_restore_interrupt,
    )
    program = Program(process)
    try:
        yield program
    finally:
        if process.returncode is None:
            process.send_signal(end)
            try:
                await program.finish()
            except TimeoutError:
                process.kill()
                await process.wait()
                raise


Start = Callable[..., AbstractAsyncContextManager[Program]]


async def url_of(server: Program) -> str:
    """Where a server that was just started listens."""
    return (await server.until("https://")).split()[-1]


async def port_of(server: Program) -> str:
    """At which port of this machine a server that was just started listens."""
    return (await url_of(server)).rstrip("/").rpartition(":")[2]
