"""The supervisor: sockets and workers from start to end, and what a signal, a service manager or a file causes."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Collection, Sequence  # noqa: TC003 - for typing.get_type_hints
from typing import TYPE_CHECKING, Any, Final, Self

from wtio._arguments import check_bool, check_choice, check_code, check_instance, check_integer, check_path, check_text
from wtio._driver.loop import LoopTransport
from wtio._options import EndpointOptions
from wtio._run import run as run_alone
from wtio._sockets import is_udp
from wtio._stats import ServerStats  # noqa: TC001 - for typing.get_type_hints
from wtio._steering import is_supported
from wtio.config import LARGEST_SLOT, LEAST_SECRET, Limits, Timeouts, WorkerLimits
from wtio.errors import LocalProtocolError
from wtio.secret import Secret
from wtio.server import check_server_tls, make_server, serve
from wtio.steering import ServerId
from wtio.tls import ServerTLS  # noqa: TC001 - for typing.get_type_hints
from wtio.workers._app import check_name, load
from wtio.workers._crew import Crew
from wtio.workers._files import PidFile, changes
from wtio.workers._health import HealthServer
from wtio.workers._log import LEVELS
from wtio.workers._notify import Notifier
from wtio.workers._process import CannotStart
from wtio.workers._settings import Settings, divided
from wtio.workers._slots import Slots, adopt, open_sockets

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Supervisor", "run"]

_logger = logging.getLogger("wtio.workers")

# What shells add to the number of a signal for the exit status of a process that it has ended.
_STATUS_OF_SIGNALS: Final = 128
_ENDING: Final = ("SIGTERM", "SIGINT")


class Supervisor:
    """Serves an application with several processes at one address: ``Supervisor("shop.main:app", ...).run()``.

    It opens the sockets once, and starts workers, which import the application; this process never does. The kernel
    steers each packet to the worker that has its connection, also if the client's address changes (Linux). A worker
    that dies is started again. ``deploy`` starts new code beside the old: newcomers go there once it serves, and
    sessions with the old code may go on for ``WorkerLimits.drain``.

    ``run`` does it all, signals included. In a program with an event loop of its own, ``async with`` starts it and
    shuts it down; like a server, it belongs to that loop.

    Limits of the whole server, such as ``Limits.connections``, ``sessions_per_address`` and ``server_memory``, are
    divided by the number of workers, rounded up. While two generations live, each has its share.

    Args:
        app: The application, as ``module:attribute``: a session handler, a ``wtio.Router`` or an ASGI application.
        host: As for ``wtio.serve``.
        port: As for ``wtio.serve``; 0 chooses one that is free at all addresses.
        tls: As for ``wtio.serve``. Workers read the files themselves, and again with ``reload``.
        workers: How many processes serve, 1 to 128. About one for each processor core. Default 1.
        factory: Whether ``app`` is a function without arguments that returns the application. Default False.
        directory: Where modules are looked for before anywhere else. Default the working directory.
        protocols: As for ``wtio.serve``.
        origins: As for ``wtio.serve``.
        limits: Those of the whole server; None means ``Limits()``.
        timeouts: As for ``wtio.serve``. ``drain_delay`` and ``drain`` are for the end of the supervisor.
        worker_limits: Counts and durations of workers; None means ``WorkerLimits()``.
        congestion: As for ``wtio.serve``.
        io: As for ``wtio.serve``.
        secret: What all workers derive keys from. None (default) makes one that is as old as the supervisor, so that
            clients learn at once that a worker has died, but not that the supervisor has.
        server_id: As for ``wtio.serve``.
        sock: UDP sockets that are bound already and share their addresses (SO_REUSEPORT), in the place of ``host`` and
            ``port``, such as those of ``systemd_sockets``: for each address one for each slot. They stay open. Default
            None.
        loop: ``"asyncio"`` (default) or ``"uvloop"``, for the workers.
        log_level: Workers write their log to standard error from this level on, such as ``"info"``. None (default)
            leaves logging to the application.
        code: Application close code for sessions that are ended, 0 … 2^32-1. Default 0.
        reason: Reason for these, cut to 1024 bytes of UTF-8.
        pid_file: Write the number of this process there. Default None.
        health: Host and TCP port at which ``/health`` (200, or 503 from the moment in which it is told to end) and
            ``/metrics`` (``stats`` for Prometheus) are answered. Default None.
        watch: Deploy whenever a Python file below ``directory`` changes, for development. Default False.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its range.
        CertificateError: Certificate and key cannot be used.
    """

    __slots__ = (
        "_background",
        "_closed",
        "_closing",
        "_crew",
        "_health",
        "_health_address",
        "_limits",
        "_loop",
        "_notifier",
        "_pid_file",
        "_settings",
        "_slots",
        "_sockets",
        "_watches",
        "_where",
        "_whole_limits",
        "_workers",
    )

    def __init__(
        self,
        app: str,
        host: str | Sequence[str] | None = None,
        port: int = 443,
        *,
        tls: ServerTLS | Sequence[ServerTLS],
        workers: int = 1,
        factory: bool = False,
        directory: str | os.PathLike[str] = ".",
        protocols: Sequence[str] = (),
        origins: Collection[str] = (),
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        worker_limits: WorkerLimits | None = None,
        congestion: str = "tolerant",
        io: str = "loop",
        secret: Secret | None = None,
        server_id: ServerId | bytes | None = None,
        sock: Sequence[socket.socket] | None = None,
        loop: str = "asyncio",
        log_level: str | None = None,
        code: int = 0,
        reason: str = "server is closing",
        pid_file: str | os.PathLike[str] | None = None,
        health: tuple[str, int] | None = None,
        watch: bool = False,
    ) -> None:
        check_name(app)
        check_integer("workers", workers, 1, (LARGEST_SLOT + 1) // 2)
        check_bool("factory", factory)
        check_path("directory", directory)
        check_choice("loop", loop, ("asyncio", "uvloop"))
        if log_level is not None:
            check_choice("log_level", log_level, LEVELS)
        check_code("code", code, "close code")
        check_text("reason", reason)
        if pid_file is not None:
            check_path("pid_file", pid_file)
        check_instance("worker_limits", worker_limits, WorkerLimits, "such as wtio.workers.WorkerLimits(drain=60)")
        check_bool("watch", watch)
        options = EndpointOptions(
            limits=Limits() if limits is None else limits,
            timeouts=Timeouts() if timeouts is None else timeouts,
            congestion=congestion,
            reset_stream_at=True,
            strict=False,
            io=io,
            secret=secret,
            server_id=server_id,
        )
        # What a server alone would be, so that everything is checked here. It never starts.
        alone = make_server(
            None,
            host,
            port,
            tls=tls,
            admit=None,
            protocols=protocols,
            origins=origins,
            http=None,
            options=options,
            transport=LoopTransport(),
        )
        self._limits = WorkerLimits() if worker_limits is None else worker_limits
        # Of all workers together.
        self._whole_limits = options.limits
        # How many processes serve at once.
        self._workers = workers
        # Where to listen: sockets that were given, or else host and port.
        self._sockets = None if sock is None else _check_sockets(sock, host, port, 2 * workers)
        self._where = (host, port)
        if self._limits.slots is not None and self._limits.slots < 2 * workers:
            raise ValueError(
                f"WorkerLimits.slots is {self._limits.slots}; {workers} workers need {2 * workers}, because new ones "
                "start beside the old ones"
            )
        self._settings = Settings(
            app=app,
            factory=factory,
            directory=os.path.abspath(directory),
            tls=check_server_tls(tls),
            limits=divided(options.limits, workers),
            timeouts=options.timeouts,
            secret=Secret(secrets.token_bytes(LEAST_SECRET)) if secret is None else secret,
            server_id=ServerId(server_id) if isinstance(server_id, (bytes, bytearray)) else server_id,
            origins=origins if isinstance(origins, str) else tuple(origins),
            protocols=alone.protocols,
            congestion=congestion,
            io=io,
            loop=loop,
            log_level=log_level,
            code=code,
            reason=reason,
            settle=self._limits.settle,
            report=self._limits.report,
        )
        self._pid_file = None if pid_file is None else PidFile(os.fspath(pid_file))
        self._health_address = None if health is None else _check_address("health", health)
        # Whether changed files are deployed.
        self._watches = watch
        # From the start on: the sockets, who has them, and who answers over TCP.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots: Slots | None = None
        self._crew: Crew | None = None
        self._health: HealthServer | None = None
        # What the service manager is told.
        self._notifier = Notifier()
        # Tasks that end with the supervisor.
        self._background: list[asyncio.Task[None]] = []
        # The shutdown; None before it begins. Set when it is over.
        self._closing: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    # -- facts

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """IP address and UDP port of every address, once it has started."""
        return [] if self._slots is None else self._slots.addresses

    @property
    def health_address(self) -> tuple[str, int] | None:
        """IP address and TCP port of the health answer; None without one, or before the start."""
        return None if self._health is None else self._health.address

    @property
    def pids(self) -> list[int]:
        """The processes of all workers, those included that are starting and those whose sessions come to an end."""
        return [] if self._crew is None else [worker.pid for worker in self._crew.workers]

    async def stats(self) -> ServerStats:
        """Return the figures of all workers, added up, those of workers that are gone included.

        Asks the workers, and waits for a second at most; of those that do not answer, what they reported last counts.
        Totals never go down. What a worker counted after its last report (``WorkerLimits.report``) is lost if it is
        killed. Its open sessions then count as closed by ``"transport"``, its connections as ``"local"``. Cancelling
        changes nothing.
        """
        return await self._started().stats()

    # -- start and end

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the sockets, start the workers, and wait until all of them serve. Cancelling undoes it.

        Raises:
            RuntimeError: A worker does not start. The text says why: the application cannot be imported, or ends, or
                takes longer than ``WorkerLimits.start``.
            OSError: A socket cannot be opened, the pid file belongs to another process, or this system cannot share a
                port between processes.
            LocalProtocolError: It was started before.
        """
        if self._loop is not None:
            raise LocalProtocolError("a supervisor is started once; make another one")
        self._loop = asyncio.get_running_loop()
        try:
            await self._start()
        except BaseException:
            if self._crew is not None:
                await asyncio.shield(self._crew.abort())
            self._release()
            raise

    async def _start(self) -> None:
        host, port = self._where
        if self._sockets is not None:
            sockets = adopt(self._sockets)
        else:
            sockets = await open_sockets(host, port, self._limits.slots or 2 * self._workers)
        self._slots = Slots(sockets, secret=self._settings.secret, server_id=self._settings.server_id)
        if self._pid_file is not None:
            self._pid_file.write()
        crew = self._crew = Crew(self._workers, self._settings, self._limits, self._slots)
        if self._health_address is not None:
            self._health = HealthServer(lambda: crew.is_serving, crew.stats)
            await self._health.start(*self._health_address)
        try:
            await crew.start()
        except CannotStart as error:
            raise RuntimeError(f"`{self._settings.app}` does not start: {error}") from None
        self._notifier.ready(crew.in_words)
        _logger.info("%r serves", self)
        self._background = [asyncio.create_task(crew.watch()), asyncio.create_task(self._show_signs_of_life(crew))]
        if self._watches:
            self._background.append(asyncio.create_task(self._deploy_changes()))

    def _started(self) -> Crew:
        if self._crew is None:
            raise LocalProtocolError("the supervisor has not been started; use `async with` or await start()")
        return self._crew

    async def deploy(self) -> bool:
        """Start the code that is in the files now, beside the workers that serve, and send newcomers there.

        Waits until it serves, and before that for free slots, if older workers still have too many of them. Calls
        before new code begins to be read are one deployment. Cancelling stops the wait, but not the deployment.

        Returns:
            Whether the new code serves. If not, a line at ERROR says why, and the old code goes on as if nothing had
            happened.
        """
        crew = self._started()
        self._notifier.reloading()
        try:
            return await crew.deploy()
        finally:
            self._notifier.ready(crew.in_words)

    async def reload(self) -> bool:
        """Let all workers read their certificates again. Cancelling does not stop them.

        Returns:
            Whether all of them could. If not, a line at ERROR says why; the old ones stay in force there.
        """
        answers = await asyncio.gather(*self._started().reload_certificates())
        problems = sorted({error for error in answers if error is not None})
        for problem in problems:
            _logger.error("the certificates are not renewed, the old ones stay in force: %s", problem)
        if not problems:
            _logger.info("%d workers have read their certificates again", len(answers))
        return not problems

    async def close(self) -> None:
        """Shut all workers down in good order, as ``wtio.run`` does with a server, and release the port. Idempotent.

        Takes at most ``Timeouts.drain_delay``, ``drain``, three times ``close`` and ``lifespan``; what is left then is
        killed. Cancelling stops the wait, but not the shutdown.
        """
        if self._loop is not None:
            await asyncio.shield(self._begin_closing())

    def _begin_closing(self) -> asyncio.Task[None]:
        if self._closing is None:
            self._notifier.stopping()
            self._closing = asyncio.create_task(self._shut_down())
        return self._closing

    async def abort(self) -> None:
        """Shut down at once: sessions end without a code. Works also while ``close`` drains."""
        if self._crew is not None:
            self._begin_closing()
            await self._crew.abort()
            await self.close()

    async def wait_closed(self) -> None:
        """Wait until it is shut down. Cancelling changes nothing."""
        await self._closed.wait()

    async def _shut_down(self) -> None:
        try:
            for task in self._background:
                task.cancel()
            if self._crew is not None:
                await self._crew.close()
        finally:
            self._release()

    def _release(self) -> None:
        if self._health is not None:
            self._health.close()
        if self._slots is not None:
            self._slots.close()
        if self._pid_file is not None:
            self._pid_file.remove()
        self._closed.set()

    # -- in the background

    async def _show_signs_of_life(self, crew: Crew) -> None:
        """Tell the service manager that newcomers are served; if it hears nothing, it starts everything again."""
        while self._notifier.watchdog is not None:
            if crew.is_serving:
                self._notifier.alive()
            await asyncio.sleep(self._notifier.watchdog)

    async def _deploy_changes(self) -> None:
        async for _ in changes(self._settings.directory):
            _logger.info("files have changed")
            await self.deploy()

    # -- a program of its own

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and shut down in good order.

        SIGHUP deploys (``deploy``), SIGUSR1 lets workers read their certificates again (``reload``). A second SIGTERM
        or SIGINT ends all at once. On systems without what it takes to share a port between processes (macOS, Windows),
        it serves with this process alone, and a line at WARNING says so.

        Raises:
            RuntimeError: The application does not start; or an event loop is running in this thread.
            OSError: As for ``start``.
            SystemExit: With status 143 (SIGTERM) or 130 (SIGINT), after a second signal.
        """
        if is_supported():
            asyncio.run(_Program(self).run())
        else:
            self._run_alone()

    def _run_alone(self) -> None:
        settings = self._settings
        _logger.warning(
            "this system cannot steer packets to several processes: one process serves, without workers, and "
            "deployments end its sessions"
        )
        host, port = self._where
        app = load(settings.app, factory=settings.factory, directory=settings.directory)
        server = serve(
            app,
            host,
            port,
            tls=settings.tls,
            origins=settings.origins,
            protocols=settings.protocols,
            limits=self._whole_limits,
            timeouts=settings.timeouts,
            congestion=settings.congestion,
            io=settings.io,
            secret=settings.secret,
            server_id=settings.server_id,
        )
        run_alone(server, code=settings.code, reason=settings.reason)

    def __repr__(self) -> str:
        where = ", ".join(f"{ip} port {port}" for ip, port in self.addresses)
        return f"<Supervisor {self._settings.app} workers={self._workers} {where or 'not started'}>"


class _Program:
    """One call of ``Supervisor.run``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        # The signals that were to end it.
        self._signals: list[signal.Signals] = []
        self._signalled = asyncio.Event()
        # Whether the workers serve, and it has not been told to end.
        self._is_serving = False
        # Tasks that a signal has started.
        self._tasks: set[asyncio.Task[bool]] = set()

    async def run(self) -> None:
        """From start to end."""
        loop = asyncio.get_running_loop()
        for name in _ENDING:
            number = signal.Signals[name]
            loop.add_signal_handler(number, self._end, number)
        # Until there are workers, these would have nothing to do; not to handle them would end the process.
        loop.add_signal_handler(signal.SIGHUP, self._start, self._supervisor.deploy)
        loop.add_signal_handler(signal.SIGUSR1, self._start, self._supervisor.reload)
        starting = asyncio.ensure_future(self._supervisor.start())
        if await self._is_signalled_before(starting):
            starting.cancel()
            await asyncio.wait((starting,))
            return
        await starting
        self._is_serving = True
        await self._signalled.wait()
        self._is_serving = False
        self._signalled.clear()
        closing = asyncio.ensure_future(self._supervisor.close())
        if await self._is_signalled_before(closing):
            await self._supervisor.abort()
            raise SystemExit(_STATUS_OF_SIGNALS + self._signals[1])
        await closing

    def _end(self, number: signal.Signals) -> None:
        self._signals.append(number)
        self._signalled.set()
        if len(self._signals) > 1:
            _logger.info("%s again: %r ends its workers at once", number.name, self._supervisor)
        else:
            _logger.info("%s: %r closes; a second signal ends its workers at once", number.name, self._supervisor)

    def _start(self, what: Any) -> None:
        if self._is_serving:
            task = asyncio.ensure_future(what())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _is_signalled_before(self, task: asyncio.Future[None]) -> bool:
        signalled = asyncio.ensure_future(self._signalled.wait())
        await asyncio.wait((task, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        return not task.done()


def run(app: str, host: str | Sequence[str] | None = None, port: int = 443, **arguments: Any) -> None:
    """Serve an application with workers until a signal ends it: ``Supervisor(app, host, port, ...).run()``.

    Args:
        app: As for ``Supervisor``, and so is everything else.
        host: Likewise.
        port: Likewise.
        **arguments: Likewise.
    """
    Supervisor(app, host, port, **arguments).run()


def _check_sockets(given: Any, host: object, port: object, least: int) -> list[socket.socket]:
    sockets = list(given) if isinstance(given, (list, tuple)) else [given]
    for one in sockets:
        if not isinstance(one, socket.socket):
            raise TypeError(f"sock must be a sequence of socket.socket, not of {type(one).__name__}")
        if one.fileno() < 0 or not is_udp(one) or not one.getsockname()[1]:
            raise ValueError("sock has one that is closed, not of UDP or not bound")
    if host is not None or port != 443:
        raise ValueError("sock and host or port both say where to listen; leave one of them out")
    slots = adopt(sockets)
    if len(slots) < least:
        raise ValueError(
            f"sock has {len(slots)} sockets for each address; it must have {least}, two for each worker; with systemd, "
            "write ListenDatagram= that often in the socket unit, with ReusePort=yes"
        )
    return sockets


def _check_address(name: str, value: Any) -> tuple[str, int]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"{name} must be a tuple of host and port, such as ('127.0.0.1', 8081), not {value!r}")
    check_text(name, value[0])
    check_integer(name, value[1], 0, 65_535)
    return value
