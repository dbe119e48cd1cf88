"""The fixture that starts programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from .programs import ROOT, Program, Start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def restore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """``async with start("examples/echo_server.py", "--port", "0") as program``; keywords are for its environment."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}

    @contextlib.asynccontextmanager
    async def run(*arguments: str | Path, **variables: str) -> AsyncIterator[Program]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *map(str, arguments),
            cwd=ROOT,
            env=environment | variables,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A shell starts what runs in its background with SIGINT ignored, and programs inherit that.
            preexec_fn=restore_interrupt,
        )
        program = Program(process)
        try:
            yield program
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
                try:
                    await program.finish()
                except TimeoutError:
                    process.kill()
                    await process.wait()
                    raise

    return run
