"""Programs on a terminal of their own, as somebody sits there and types."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from typing import TYPE_CHECKING

from .programs import ROOT, SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[78=>])|[\x01\x02\r]")


class Terminal:
    """A terminal, the program that runs on it, and what it has shown up to now."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self.output = ""
        self._master = master
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # The program has closed the other end.
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.output += data.decode("utf-8", "replace")
        self._more.set()

    @property
    def text(self) -> str:
        """What was shown, without colours and movements of the cursor."""
        return ESCAPES.sub("", self.output)

    async def until(self, words: str, *, times: int = 1) -> str:
        """Wait until words were shown so many times; returns what was shown up to now."""
        try:
            async with asyncio.timeout(SECONDS):
                while self.text.count(words) < times:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"`{words}` was not shown; this was:\n{self.text}") from None
        return self.text

    async def more(self) -> None:
        """Wait until something further is shown."""
        self._more.clear()
        async with asyncio.timeout(SECONDS):
            await self._more.wait()

    def type(self, text: str) -> None:
        """Press keys; a line ends with Enter, which is a carriage return."""
        os.write(self._master, text.encode())

    async def finish(self) -> int:
        """Wait for the end of the program; its exit status."""
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def sitting_at(
    *arguments: object, environment: Mapping[str, str], columns: int = 80, stdout: int | None = None
) -> AsyncIterator[Terminal]:
    """Run Python on a terminal; ``stdout``, if given, goes there instead."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def own() -> None:
        # As in `programs`: a shell's background ignores it, and programs inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, arguments),
        cwd=ROOT,
        env={"TERM": "xterm", **environment},
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        preexec_fn=own,
    )
    os.close(slave)
    terminal = Terminal(process, master)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)
