"""Peers that are programs: one process per cell, reports as lines of JSON on standard output.

::

    program client <url> <SHA-256 of the certificate> <certificate file>     one report, then the end
    program server <certificate and key file> <port or 0>                    {"port": …}, then a report per session

A server ends with its standard input. One that serves a single path gets the row's as a further argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, cast

from .peer import Difference, Missing, PeerFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    import wtio

    from .peer import Target
    from .rows import Report, Row

REPOSITORY = Path(__file__).resolve().parents[3]
SOURCES = REPOSITORY / "tests" / "interop" / "peers"
BUILT = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target").resolve() / "interop-peers"
"""Where programs are built: with the other things that a build makes, and out of git's sight."""
CRATES = BUILT / "crates"
"""Cargo's directory for peers in Rust. They have half of their dependencies in common, which are built once if both
have the same profile: not optimised, and with nothing kept for the next build."""

_START_SECONDS = 30.0
_END_SECONDS = 10.0


@dataclass(frozen=True)
class Installed:
    """A program that is there."""

    command: Sequence[str]
    version: str


@dataclass(frozen=True)
class Program:
    """A peer's program for both directions; built or installed once per run, whoever asks first."""

    name: str
    title: str
    install: Callable[[], Installed]
    """Raises Missing where something is not to be had, PeerFailed where a program of ours does not compile."""
    serves_one_path: bool = False
    _outcome: list[Installed | Missing | PeerFailed] = field(default_factory=list)

    def prepare(self) -> Installed:
        if not self._outcome:
            try:
                self._outcome.append(self.install())
            except (Missing, PeerFailed) as error:
                self._outcome.append(error)
        outcome = self._outcome[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def call(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    seconds: float,
    environment: Mapping[str, str] = MappingProxyType({}),
    failure: type[Missing | PeerFailed] = Missing,
) -> str:
    """Run a command of a tool and return its output.

    Raises:
        Missing: It is not installed or took too long.
        failure: It failed.
    """
    words = " ".join(map(str, command))
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except FileNotFoundError as error:
        raise Missing(f"`{command[0]}` is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Missing(f"`{words}` took more than {seconds:.0f} s") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise failure(f"`{words}` failed: {' | '.join(lines[-3:]) or f'exit status {done.returncode}'}")
    return done.stdout


@dataclass(frozen=True)
class _ProgramPeer:
    program: Program
    differences: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def title(self) -> str:
        return self.program.title

    def prepare(self) -> str:
        return self.program.prepare().version

    def close(self) -> None:
        """Its processes end with their cells."""


class ProgramClient(_ProgramPeer):
    """A program as client of our server."""

    async def run(self, row: Row, target: Target) -> Report:
        certificate = target.certificate
        arguments = ["client", target.url(row), certificate.sha256_hex, str(certificate.certfile)]
        async with _process(self.program, arguments) as running:
            return await running.line()


class ProgramServer(_ProgramPeer):
    """A program as server for our client."""

    @contextlib.asynccontextmanager
    async def serve(self, certificate: wtio.DevCertificate, row: Row) -> AsyncIterator[RunningProgram]:
        arguments = ["server", str(certificate.certfile), "0"]
        if self.program.serves_one_path:
            arguments.append(row.path)
        async with _process(self.program, arguments) as running:
            async with asyncio.timeout(_START_SECONDS):
                running.port = cast("int", (await running.line())["port"])
            yield running


class RunningProgram:
    """A process that prints lines of JSON."""

    port = 0

    def __init__(self, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    async def line(self) -> Report:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"the peer's program ended without a report; {self.said()}")
        return cast("Report", json.loads(line))

    async def report(self) -> Report:
        return await self.line()

    def said(self) -> str:
        """The end of what it wrote to standard error."""
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace").strip() or "it said nothing"


@contextlib.asynccontextmanager
async def _process(program: Program, arguments: Sequence[str]) -> AsyncIterator[RunningProgram]:
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *program.prepare().command,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
        assert process.stdin is not None
        running = RunningProgram(process, log)
        try:
            yield running
        except Exception as error:
            error.add_note(f"{program.title}: {running.said()}")
            raise
        finally:
            process.stdin.close()
            try:
                async with asyncio.timeout(_END_SECONDS):
                    # Reads its last words, too: a process with a full pipe would not end.
                    await process.communicate()
            except TimeoutError:
                process.kill()
                await process.communicate()
