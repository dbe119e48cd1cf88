"""One worker process, from its start to its end, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final, TypeVar

from wtio.workers import _messages as messages
from wtio.workers._totals import from_message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wtio._stats import ServerStats
    from wtio.workers._messages import Message
    from wtio.workers._settings import Settings

__all__ = ["CannotStart", "Worker", "start_worker"]

_Answer = TypeVar("_Answer")

_logger = logging.getLogger("wtio.workers")

# What is meant for the supervisor: a worker would think that its own service manager speaks to it.
_NOT_INHERITED: Final = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"),
)
# Seconds for a process that has closed its side of the messages to end.
_PATIENCE: Final = 10.0


class CannotStart(Exception):
    """A worker ended before it served, or took too long. Its text says why, in one line."""


class Worker:
    """A process that serves one slot. ``start_worker`` makes it."""

    def __init__(
        self,
        slot: int,
        process: asyncio.subprocess.Process,
        writer: asyncio.StreamWriter,
        clear: Callable[[int], None],
        settle: Callable[[], None],
        note: Callable[[Worker, ServerStats], None],
    ) -> None:
        # Which sockets it has.
        self.slot = slot
        self._process = process
        # What it is told. It is asked for one report at a time, so what waits there is bounded.
        self._writer = writer
        # Leaves the sockets of a slot to it: called when it is about to use them.
        self._clear = clear
        # Called when it uses them.
        self._settle = settle
        # Takes what it reports of its server.
        self._note = note
        # When it began to serve, and when it last reported anything, on the loop's clock; None before that.
        self.ready_at: float | None = None
        self.heard_at = asyncio.get_running_loop().time()
        # Done when it serves, or with CannotStart.
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # What it said of why it could not start; empty if it said nothing.
        self._failure = ""
        # Whether it was told to end, or to let its sessions end: it is not started again then.
        self.is_leaving = False
        # Tasks that wait for its next figures, and for what came of reading certificates.
        self._reports: list[asyncio.Future[None]] = []
        self._certificates: list[asyncio.Future[str | None]] = []
        # Ends when the process has. Its result is how it ended, in words.
        self.gone: asyncio.Task[str]

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it serves."""
        return self.ready_at is not None and not self.gone.done()

    async def wait_ready(self) -> None:
        """Wait until it serves.

        Raises:
            CannotStart: It never will.
        """
        await asyncio.shield(self._ready)

    # -- what it is told

    def tell(self, kind: str, **content: object) -> None:
        """Send a message. One that is over gets none."""
        if not self.gone.done() and not self._writer.is_closing():
            self._writer.write(messages.pack(kind, **content))

    def drain(self, seconds: float) -> None:
        """Let its sessions end, within so many seconds."""
        self.is_leaving = True
        self.tell("drain", seconds=seconds)

    def stop(self) -> None:
        """Let it shut down in good order."""
        self.is_leaving = True
        self.tell("stop")

    def abort(self) -> None:
        """Let it shut down at once."""
        self.is_leaving = True
        self.tell("abort")

    def kill(self) -> None:
        """End the process without asking."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def report(self) -> None:
        """Ask for new figures, and wait for them. Returns also if the worker ends."""
        if not self._reports:
            self.tell("report")
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reports.append(answer)
        await asyncio.wait((answer, self.gone), return_when=asyncio.FIRST_COMPLETED)

    async def reload_certificates(self) -> str | None:
        """Let it read its certificates again; what is wrong with them, in words, or None."""
        if not self._certificates:
            self.tell("certificates")
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._certificates.append(answer)
        await asyncio.wait((answer, self.gone), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None

    # -- what it says

    async def follow(self, reader: asyncio.StreamReader) -> str:
        """Take its messages until the process has ended; how that was, in words."""
        listening = asyncio.ensure_future(self._listen(reader))
        ending = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((listening, ending), return_when=asyncio.FIRST_COMPLETED)
            # Of a process that is over, what it sent last is still there. A process of its own may have kept its side
            # of the messages, so their end may not come.
            await asyncio.wait((listening, ending), timeout=_PATIENCE if listening.done() else 1)
            if not ending.done():
                self.kill()
            words = _ending_in_words(await ending)
        finally:
            listening.cancel()
            self._writer.close()
        if not self._ready.done():
            self._ready.set_exception(CannotStart(self._failure or f"it {words} before it served"))
            self._ready.exception()  # nobody has to ask
        return words

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while (message := await messages.read(reader)) is not None:
                self.heard_at = asyncio.get_running_loop().time()
                self._take(message)
        except ValueError as error:
            _logger.error("worker %d does not speak as it should, and is killed: %s", self.pid, error)
            self._failure = self._failure or str(error)
            self.kill()

    def _take(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "loaded":
            self._clear(self.slot)
            self.tell("serve")
        elif kind == "ready":
            self.ready_at = self.heard_at
            self._settle()
            if not self._ready.done():
                self._ready.set_result(None)
        elif kind == "failed":
            self._failure = str(message.get("why", ""))
        elif kind == "figures":
            self._note(self, from_message(message["stats"]))
            _answer(self._reports, None)
        elif kind == "certificates":
            _answer(self._certificates, message.get("error"))

    def __repr__(self) -> str:
        return f"<Worker {self.pid} slot={self.slot}>"


def _answer(waiting: list[asyncio.Future[_Answer]], value: _Answer) -> None:
    """Answer all who wait."""
    for one in waiting:
        if not one.done():
            one.set_result(value)
    waiting.clear()


def _ending_in_words(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


async def start_worker(
    slot: int,
    descriptors: Sequence[int],
    settings: Settings,
    clear: Callable[[int], None],
    settle: Callable[[], None],
    note: Callable[[Worker, ServerStats], None],
) -> Worker:
    """Start a process for a slot. It is a new interpreter, not a fork: threads of this one would be missing there.

    Raises:
        OSError: There can be no further process.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "wtio.workers._worker", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                env={name: value for name, value in os.environ.items() if name not in _NOT_INHERITED},
            )
        reader, writer = await asyncio.open_connection(sock=ours)
    except BaseException:
        ours.close()
        raise
    worker = Worker(slot, process, writer, clear, settle, note)
    worker.gone = asyncio.create_task(worker.follow(reader), name=f"wtio worker {process.pid}")
    worker.tell("settings", slot=slot, descriptors=list(descriptors), **settings.to_message())
    return worker
