"""Drivers: who calls the engine, when, and with what clock.

A driver owns one engine endpoint. It drives it after anything happened, completes the futures that the engine hands
back, and passes events to the connection they belong to. ``loop`` does so on an asyncio loop with a UDP socket,
``simulated`` on a virtual-time loop with a simulated network. Nothing above knows which one it is.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from asyncio import current_task, sleep
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from wtio._core import EngineEvent, collect_woken, run_woken
from wtio._words import describe_errno, system_error_hint

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from wtio import _core
    from wtio._options import EndpointOptions
    from wtio._waker import Waker

_logger = logging.getLogger("wtio.network")

# How often a driver that is about to be closed looks whether a full socket has taken its last packets, in seconds.
_LOOK_AGAIN: Final = 0.005


class Handler(Protocol):
    """What a driver needs from a connection (``_connection.Connection``)."""

    def handle(self, event: EngineEvent) -> None: ...
    def break_off(self, error: Exception) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a host."""

    ip: str
    port: int
    is_ipv6: bool


class Transport(Protocol):
    """Makes drivers: on real sockets, or on a simulated network."""

    async def resolve(self, host: str | None, port: int, *, listening: bool = False) -> list[Address]:
        """Look up all addresses of a host, best first. OSError where there is none."""

    def open(
        self, options: EndpointOptions, *, ip: str, port: int, dual_stack: bool, server_tls: _core.ServerTls | None
    ) -> Driver:
        """Make an endpoint at an address; OSError where it cannot be had."""


class Driver(ABC):
    """One endpoint and the event loop that serves it."""

    def __init__(self, endpoint: _core.Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        # Owned by the driver, which closes it.
        self.endpoint = endpoint
        # The only loop on which all of this runs.
        self.loop = loop
        # Called with each connection that a client opens; returns what its events are passed to. Set by the server.
        self.on_incoming: Callable[[Driver, _core.Connection], Handler] | None = None
        # Called once if the engine itself fails. Set by the server.
        self.on_failure: Callable[[Exception], None] | None = None
        # Called when the server holds more than its memory budget. Set by the server.
        self.on_memory_short: Callable[[], None] | None = None
        # Set by ``close`` and never reset.
        self.is_closed: bool = False
        # By connection ID, until the connection's ``Closed``. Events of the endpoint itself have None, which is never
        # a key.
        self._handlers: dict[int | None, Handler] = {}
        # In debug mode the loop runs every task itself, so that it can log slow ones.
        self._is_debugged = loop.get_debug()
        # Set by ``close_when_idle``.
        self._closes_when_idle = False
        # ``_flush`` is among the loop's next callbacks.
        self._is_flush_scheduled = False
        # A callback of the driver is running and will send at its end, so output need not schedule a flush.
        self._flushes_at_end = False
        # The engine has output that no drive has sent yet.
        self._has_output = False
        # Events of this callback may have started tasks, such as handlers, and these mostly write. So the callback
        # schedules a flush behind them.
        self._starts_tasks = False
        # The last drive used up its send budget; the next one is scheduled.
        self._is_spent = False

    @property
    @abstractmethod
    def local_address(self) -> tuple[str, int]:
        """IP address and UDP port."""

    @abstractmethod
    def connect(self, address: Address, server_name: str, tls: _core.ClientTls) -> _core.Connection:
        """Begin a handshake."""

    @abstractmethod
    def drive(self, readable: bool = False) -> None:
        """Let the engine receive (if ``readable``), run timers and send, then pass on wake-ups and events."""

    @abstractmethod
    def flush(self) -> None:
        """Send at once, not at the end of the callback: the peer can go on while there is work left here."""

    @abstractmethod
    def _release(self) -> None:
        """Stop watching the socket, and cancel timers."""

    def add(self, connection: int, handler: Handler) -> None:
        """Pass events of a connection to ``handler`` from now on."""
        self._handlers[connection] = handler

    def close(self) -> None:
        """Release socket and timers at once. Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._release()
            self.endpoint.close()

    async def wait_sent(self, patience: float) -> None:
        """Wait until the socket has taken all packets, for ``patience`` seconds at most."""
        deadline = self.loop.time() + patience
        # Hardly ever: there is no need for an event.
        while self.endpoint.has_output and not self.is_closed and self.loop.time() < deadline:  # noqa: ASYNC110
            await sleep(_LOOK_AGAIN)

    def close_when_idle(self) -> None:
        """Release socket and timers as soon as the last connection is drained (RFC 9000, section 10.2)."""
        self._closes_when_idle = True
        if not self.is_closed and not self.endpoint.connections:
            self.close()

    def _schedule(self) -> None:
        # The engine calls this for the first output since the last drive. Everything written until the end of the
        # loop's iteration is sent together. A destructor may cause it, too, after the loop is closed.
        self._has_output = True
        if not self._flushes_at_end:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._is_flush_scheduled and not self.loop.is_closed():
            self._is_flush_scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        if self._has_output and not self.is_closed:
            self._has_output = False
            self._drive_and_run_tasks()

    def _drive_and_run_tasks(self, readable: bool = False) -> None:
        """Drive, run the tasks that this woke, and send what they wrote. For callbacks of the loop."""
        if self._is_debugged or current_task(self.loop) is not None:
            # In debug mode the loop logs tasks that take long, so it has to run them. And if this callback runs inside
            # of a task, because a loop is nested (nest_asyncio), no other task may run here: asyncio forbids it.
            self.drive(readable)
            return
        self._flushes_at_end = True
        collect_woken()
        try:
            self.drive(readable)
        finally:
            try:
                run_woken()
            finally:
                self._flushes_at_end = False
                if self._has_output and not self._is_spent and not self.is_closed:
                    self._has_output = False
                    self.drive()
                if self._starts_tasks:
                    self._starts_tasks = False
                    if not self.is_closed:
                        self._schedule_flush()

    def _pass_on(self, wakes: list[Waker], events: list[EngineEvent]) -> None:
        """Set wakers and pass on events. What they write is sent at the end of the callback, or in a flush after it."""
        held, self._flushes_at_end = self._flushes_at_end, True
        try:
            for waker in wakes:
                if not waker.done():
                    waker.set_result(None)
            for event in events:
                self._pass_on_event(event)
        finally:
            self._flushes_at_end = held
            if held:
                if events:
                    self._starts_tasks = True
            elif not self.is_closed:
                # Woken tasks mostly write. A flush that is scheduled now runs right behind them, in the same iteration
                # of the loop. If it were scheduled by their first write, it would run one iteration later.
                self._schedule_flush()
        if self._closes_when_idle and not self.is_closed and not self.endpoint.connections:
            self.close()

    def _pass_on_event(self, event: EngineEvent) -> None:
        connection_id = event.connection_id
        handler = self._handlers.get(connection_id)
        if handler is None:
            match event:
                case EngineEvent.Incoming(connection=connection):
                    if self.on_incoming is not None:
                        self._handlers[connection_id] = self.on_incoming(self, connection)
                case EngineEvent.SendFailed(errno=code, count=count, destination=destination):
                    self._log_failure(code, count, destination)
                case EngineEvent.ErrorsRead():
                    self._errors_read()
                case EngineEvent.MemoryShort():
                    if self.on_memory_short is not None:
                        self.on_memory_short()
            # Other events came too late: the connection has no handler any more.
            return
        if isinstance(event, EngineEvent.Closed):
            del self._handlers[connection_id]
        try:
            handler.handle(event)
        except Exception as error:
            # A defect of ours in one connection must not stop the others.
            self.loop.call_exception_handler(
                {"message": "wtio: handling an event of a connection failed", "exception": error}
            )
            handler.break_off(error)

    def _log_failure(self, code: int, count: int, destination: tuple[str, int]) -> None:
        """Say once in a while what cannot be sent: single packets get lost on every network."""
        ip, port = self.local_address
        _logger.warning(
            "%d packets could not be sent from %s port %d, the last to %s port %d: %s%s; they count as lost, and QUIC "
            "sends again what was in them",
            count,
            ip,
            port,
            *destination,
            describe_errno(code),
            f" ({hint})" if (hint := system_error_hint(code)) else "",
        )

    def _errors_read(self) -> None:  # noqa: B027 - most drivers need not care
        """The socket had errors pending, which were read."""

    def _fail(self, error: Exception) -> None:
        """The engine itself failed: every connection ends with that error."""
        self.loop.call_exception_handler({"message": "wtio: the engine failed", "exception": error})
        handlers, self._handlers = self._handlers, {}
        for handler in handlers.values():
            handler.break_off(error)
        if self.on_failure is not None:
            self.on_failure(error)
        self.close()
        # The engine wakes nobody any more. Woken here, tasks find that their connection is lost.
        for waker in self.endpoint.take_wakers():
            if not waker.done():
                waker.set_result(None)
