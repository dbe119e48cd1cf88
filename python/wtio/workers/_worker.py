"""The process of a worker: ``python -m wtio.workers._worker DESCRIPTOR``, started by a supervisor and by nobody else.

It serves one application on sockets that it was passed, and does what the supervisor says (``_messages``). It ends in
good order if the supervisor is gone. The supervisor decides what a signal means, so those that a terminal sends to all
processes at once are ignored here; SIGTERM, from whoever wants to end this worker only, is what ``stop`` is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from wtio._running import Running, running
from wtio.server import serve
from wtio.workers import _messages as messages
from wtio.workers._app import describe, load
from wtio.workers._log import configure
from wtio.workers._settings import Settings
from wtio.workers._totals import to_message

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from wtio.server import Server

_logger = logging.getLogger("wtio.workers")

# Seconds between two looks at packets that went astray.
_ASTRAY: Final = 1.0


def main(descriptor: int) -> int:
    """Serve until the supervisor says otherwise; the exit status."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    message = messages.read_waiting(channel)
    if message is None:
        return 1
    try:
        settings = Settings.from_message(message)
        for passed in message["descriptors"]:
            os.set_inheritable(passed, False)
        if settings.log_level is not None:
            configure(settings.log_level)
        app = load(settings.app, factory=settings.factory, directory=settings.directory)
        make_loop = importlib.import_module("uvloop").new_event_loop if settings.loop == "uvloop" else None
    except BaseException as error:
        _fail(channel, error)
        return 1
    try:
        channel.sendall(messages.pack("loaded"))
        if (messages.read_waiting(channel) or {}).get("kind") != "serve":
            return 1
    except OSError:
        return 1
    # In the context of everything that the loop runs, where an application's health answer looks for it.
    running.set(Running())
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(_Service(channel, settings, message["slot"], message["descriptors"]).run(app))


def _fail(channel: socket.socket, error: BaseException) -> None:
    with contextlib.suppress(OSError):
        channel.sendall(messages.pack("failed", why=describe(error)))


class _Service:
    """The server of this process, and what the supervisor wants of it."""

    def __init__(self, channel: socket.socket, settings: Settings, slot: int, descriptors: list[int]) -> None:
        self._channel = channel
        self._settings = settings
        # Which slot is this worker's, and its sockets.
        self._slot = slot
        self._descriptors = descriptors
        self._server: Server
        self._writer: asyncio.StreamWriter
        # What is being done to end: None before, and replaced by what ends sooner.
        self._ending: asyncio.Task[None] | None = None
        # Whether that is to shut down, and not only to let sessions end.
        self._is_stopping = False

    async def run(self, app: Callable[..., Any]) -> int:
        """Serve; the exit status."""
        settings = self._settings
        try:
            self._server = await serve(
                app,
                tls=settings.tls,
                fd=self._descriptors,
                origins=settings.origins,
                protocols=settings.protocols,
                limits=settings.limits,
                timeouts=settings.timeouts,
                congestion=settings.congestion,
                io=settings.io,
                secret=settings.secret,
                slot=self._slot,
                server_id=settings.server_id,
            )
        except Exception as error:
            _fail(self._channel, error)
            return 1
        reader, self._writer = await asyncio.open_connection(sock=self._channel)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        self._say("ready")
        obeying = asyncio.create_task(self._obey(reader))
        reporting = asyncio.create_task(self._report_always())
        try:
            await self._server.wait_closed()
        except RuntimeError as error:
            _logger.error("%s", error)
            return 1
        finally:
            obeying.cancel()
            reporting.cancel()
            self._report()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._writer.drain()
                    self._writer.close()
                    await self._writer.wait_closed()
        return 0

    # -- what is said

    def _say(self, kind: str, **content: object) -> None:
        if not self._writer.is_closing():
            self._writer.write(messages.pack(kind, **content))

    def _report(self) -> None:
        # A supervisor that does not read needs no further figures.
        if not self._writer.transport.get_write_buffer_size():
            self._say("figures", stats=to_message(self._server.stats()))

    async def _report_always(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._settings.report
        astray = 0
        while True:
            await asyncio.sleep(min(_ASTRAY, max(due - loop.time(), 0)))
            # The supervisor can have the rest of these come here no more.
            now_astray = self._server.stats().packets_astray_total
            if now_astray > astray or loop.time() >= due:
                due = loop.time() + self._settings.report
                self._report()
            astray = now_astray

    # -- what is to be done

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        try:
            while (message := await messages.read(reader)) is not None:
                match message["kind"]:
                    case "report":
                        self._report()
                    case "certificates":
                        self._reload()
                    case "drain":
                        self._end(self._drain(float(message["seconds"])))
                    case "stop":
                        self._stop()
                    case "abort":
                        self._leave()
                        self._server.abort()
        except ValueError as error:
            _logger.error("the supervisor does not speak as it should: %s", error)
        else:
            _logger.warning("the supervisor is gone; this worker ends, too")
        self._leave()
        await self._server.close(self._settings.code, self._settings.reason, drain=0)

    def _reload(self) -> None:
        error = None
        try:
            self._server.reload()
        except (OSError, ValueError) as failure:
            error = str(failure)
        self._say("certificates", error=error)

    def _leave(self) -> None:
        """Let health answers say that newcomers should go elsewhere."""
        if (program := running.get()) is not None:
            program.leaving.set()

    def _stop(self) -> None:
        # SIGTERM may come beside the supervisor's message, if a service manager sends it to all processes.
        if not self._is_stopping:
            self._is_stopping = True
            self._end(self._shut_down())

    def _end(self, way: Coroutine[Any, Any, None]) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._leave()
        self._ending = asyncio.create_task(way)

    async def _drain(self, seconds: float) -> None:
        """Serve who is here, and who is about to be; newcomers go to another worker already."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + self._settings.timeouts.handshake
        await asyncio.sleep(self._settings.settle)
        # Nobody tells when a handshake is over.
        while self._server.stats().connections_half_open and loop.time() < latest:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await self._server.close(self._settings.code, self._settings.reason, drain=seconds)

    async def _shut_down(self) -> None:
        timeouts = self._settings.timeouts
        if not self._server.is_closing:
            await asyncio.sleep(timeouts.drain_delay)
        await self._server.close(self._settings.code, self._settings.reason, drain=timeouts.drain)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
