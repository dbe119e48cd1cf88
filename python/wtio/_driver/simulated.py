"""The driver on a simulated network with virtual time: the same engine, no socket, no waiting.

``VirtualTimeLoop`` is an asyncio loop whose clock jumps to the next timer whenever nothing is ready. ``Wire`` carries
UDP payloads between endpoints as call_at timers of that loop, with the damage that its settings ask for.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import math
import random
import selectors
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from wtio import _core
from wtio._driver import Address, Driver, endpoint_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from wtio.config import Limits, Timeouts

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

# The engine's clock must not begin at zero: it subtracts.
_EPOCH: Final = 1_000.0
# How long a loop without any timer waits for another thread before that counts as a deadlock.
_DEADLOCK_SECONDS: Final = 5.0
# The most real seconds that a wait may have taken too long and that the clock makes up for afterwards: waits are
# rounded up to milliseconds, and simulated packets come closer together.
_MOST_SPARE: Final = 0.001
_FIRST_EPHEMERAL: Final = 49_152
_OVERHEAD_IPV4: Final = 28
_OVERHEAD_IPV6: Final = 48


class DeadlockError(RuntimeError):
    """Every task of a virtual-time loop waits, and no timer and no packet is left that could wake one."""


class _VirtualSelector(selectors.BaseSelector):
    """Instead of sleeping, moves the clock forward, unless something real is under way that it must not outrun."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = _EPOCH
        # Reasons for the clock to stand still, and others for it to keep to real time. The loop counts them.
        self.standing = 0
        self.is_held = False
        self.is_asked = False
        self.processes: list[asyncio.SubprocessTransport] = []
        # Descriptors that somebody watches; the loop's own, through which other threads wake it, is not one of them.
        self.watched = 0
        # Real seconds that were waited and not yet given to the clock: a wait takes whole milliseconds.
        self._spare = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if self.standing or self.is_held:
            return self._real.select()
        if self.watched or self.is_asked or self._has_process():
            return self._keep_to_real_time(timeout)
        if timeout is None:
            ready = self._real.select(_DEADLOCK_SECONDS)
            if not ready:
                raise DeadlockError("every task waits, and no timer or packet is left to wake one")
            return ready
        self.now += max(timeout, 0.0)
        return ready

    def _keep_to_real_time(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as a real loop does, and move the clock by no more than the time that this takes."""
        if timeout is not None and timeout <= self._spare:
            self._spare -= timeout
            self.now += timeout
            return []
        began = time.monotonic()
        ready = self._real.select(None if timeout is None else timeout - self._spare)
        passed = self._spare + time.monotonic() - began
        step = passed if timeout is None else min(passed, timeout)
        self.now += step
        self._spare = min(passed - step, _MOST_SPARE)
        return ready

    def _has_process(self) -> bool:
        """Whether a child process of the loop runs; without pipes there is no descriptor to tell."""
        if self.processes:
            self.processes = [process for process in self.processes if process.get_returncode() is None]
        return bool(self.processes)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._real.register(fileobj, events, data)
        self.watched += 1
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._real.unregister(fileobj)
        self.watched -= 1
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class _Recorder(Executor):
    """Passes one job on to an executor, and remembers it."""

    job: Future[Any]

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.job = self._executor.submit(function, *arguments, **named)
        return self.job


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in which ``sleep(3600)`` takes no time. Its clock counts virtual seconds.

    The clock jumps to the next timer whenever every task waits. It does not outrun what is real:

    - While a job of ``run_in_executor``, ``asyncio.to_thread`` or ``getaddrinfo`` is not done, in whatever executor,
      the clock stands still, also when nobody waits for the job any more. A thread that calls into the loop
      (``call_soon_threadsafe``, ``asyncio.run_coroutine_threadsafe``) may be waiting for timers, though: from then on,
      until the jobs of that moment are done, the clock keeps to real time.
    - While the loop watches descriptors (``add_reader``, ``add_writer``, sockets, pipes, servers) or has child
      processes, the clock advances at most as fast as real time.

    Threads that the loop did not start wake it, but it cannot know of their work: ``stand_still`` is for these. While
    the clock stands still, or nothing but real events is left, the loop waits as long as it takes.
    """

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        self._jobs: set[Future[Any]] = set()
        # Those that were under way when a thread called into the loop.
        self._asking: set[Future[Any]] = set()
        self._threads: Executor | None = None
        self._has_shut_down_threads = False
        super().__init__(self._virtual)
        self._virtual.watched = 0
        # asyncio widens timers by the resolution of the real clock; here every instant is exact.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual.now

    @contextmanager
    def stand_still(self) -> Iterator[None]:
        """Keep the clock from moving within a ``with`` block, such as while a thread of one's own works."""
        self._virtual.standing += 1
        try:
            yield
        finally:
            self._virtual.standing -= 1

    def set_default_executor(self, executor: Any) -> None:
        """As of every loop."""
        super().set_default_executor(executor)
        self._threads = executor

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Arguments], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        """As of every loop; the clock stands still until the job is done."""
        if executor is None:
            if self._has_shut_down_threads:
                # Which says so.
                return super().run_in_executor(None, func, *args)
            if self._threads is None:
                self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
            executor = self._threads
        assert executor is not None
        recorder = _Recorder(executor)
        future = super().run_in_executor(recorder, func, *args)
        job = recorder.job
        self._jobs.add(job)
        self._set_pace()
        # Behind the callback that hands over the result: the clock must not move before that.
        job.add_done_callback(self._job_done)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*_Arguments], object], *args: *_Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """As of every loop."""
        # To hand over a job's result is no question. The job itself may not be known yet: it can be that quick.
        if not self._is_here() and not any(isinstance(argument, Future) and argument.done() for argument in args):
            super().call_soon_threadsafe(self._called_by_thread)
        return super().call_soon_threadsafe(callback, *args, context=context)

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """As of every loop."""
        self._has_shut_down_threads = True
        with self.stand_still():
            await super().shutdown_default_executor(*args, **kwargs)

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        """As of every loop; the clock keeps to real time until the process has ended."""
        return self._with_process(await super().subprocess_exec(*args, **kwargs))

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        """As of every loop; the clock keeps to real time until the process has ended."""
        return self._with_process(await super().subprocess_shell(*args, **kwargs))

    def _with_process(self, made: tuple[asyncio.SubprocessTransport, Any]) -> tuple[asyncio.SubprocessTransport, Any]:
        self._virtual.processes.append(made[0])
        return made

    def _is_here(self) -> bool:
        """Whether this is the thread in which the loop runs."""
        try:
            return asyncio.get_running_loop() is self
        except RuntimeError:
            return False

    def _job_done(self, job: Future[Any]) -> None:
        # In whatever thread the job ended, and perhaps after the loop did.
        with suppress(RuntimeError):
            super().call_soon_threadsafe(self._forget, job)

    def _forget(self, job: Future[Any]) -> None:
        self._jobs.discard(job)
        self._asking.discard(job)
        self._set_pace()

    def _called_by_thread(self) -> None:
        self._asking |= self._jobs
        self._set_pace()

    def _set_pace(self) -> None:
        self._virtual.is_held = len(self._jobs) > len(self._asking)
        self._virtual.is_asked = bool(self._asking)


@dataclass(slots=True)
class Conditions:
    """What the network does to packets. All can be changed while it runs."""

    latency: float = 0.01
    """Seconds in one direction."""
    jitter: float = 0.0
    """Up to so many seconds more, at random; packets do not overtake each other because of it."""
    loss: float = 0.0
    """Share of packets that vanish, 0 … 1."""
    reorder: float = 0.0
    """Share of packets that are held back by up to two more latencies, so that others overtake them, 0 … 1."""
    duplicate: float = 0.0
    """Share of packets that arrive twice, 0 … 1."""
    mtu: int = 1500
    """Bytes of the largest IP packet that passes; larger ones vanish."""
    bandwidth: float | None = None
    """Bytes per second in each direction; None is without limit. Up to a quarter of a second queues,
    the rest is lost."""
    blackout: bool = False
    """True lets nothing pass."""


@dataclass(slots=True)
class WireCounts:
    """What happened to the packets so far."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    too_large: int = 0


class Wire:
    """Carries UDP payloads between simulated endpoints. Everything random comes from one seed."""

    def __init__(self, seed: int, conditions: Conditions) -> None:
        self.seed = seed
        self.conditions = conditions
        self.counts = WireCounts()
        self.names: dict[str, list[str]] = {"localhost": ["::1", "127.0.0.1"]}
        self._random = random.Random(seed)
        self._drivers: dict[tuple[str, int], SimulatedDriver] = {}
        self._busy_until: dict[tuple[str, int], float] = {}
        self._last_arrival: dict[tuple[tuple[str, int], tuple[str, int]], float] = {}
        self._next_port = _FIRST_EPHEMERAL
        self._endpoints = 0

    def next_seed(self) -> bytes:
        """A seed for the next endpoint, the same in every run."""
        self._endpoints += 1
        return f"{self.seed}/{self._endpoints}".encode()

    def bind(self, driver: SimulatedDriver, ip: str, port: int) -> tuple[str, int]:
        """Give a driver its address; port 0 is a free one."""
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        where = (ip, port)
        if where in self._drivers:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._drivers[where] = driver
        return where

    def unbind(self, where: tuple[str, int]) -> None:
        """Take an address back."""
        self._drivers.pop(where, None)

    def send(self, source: tuple[str, int], destination: tuple[str, int], data: bytes, ecn: int) -> None:
        """Take a payload from an endpoint and decide its fate."""
        conditions = self.conditions
        loop = asyncio.get_event_loop()
        now = loop.time()
        self.counts.sent += 1
        overhead = _OVERHEAD_IPV6 if ":" in destination[0] else _OVERHEAD_IPV4
        # Every packet draws the same numbers whatever happens to it, so that one change does not shuffle the rest.
        lost, late, twice, wait, hold = (self._random.random() for _ in range(5))
        if len(data) + overhead > conditions.mtu:
            self.counts.too_large += 1
            return
        start = now
        if conditions.bandwidth is not None:
            start = max(now, self._busy_until.get(source, now))
            if start - now > 0.25:
                self.counts.lost += 1
                return
            start += (len(data) + overhead) / conditions.bandwidth
            self._busy_until[source] = start
        if conditions.blackout or lost < conditions.loss:
            self.counts.lost += 1
            return
        arrival = start + conditions.latency + wait * conditions.jitter
        if late < conditions.reorder:
            self.counts.reordered += 1
            arrival += (0.5 + 1.5 * hold) * max(conditions.latency, 0.001)
        else:
            path = (source, destination)
            # The loop keeps no order among timers of the same instant, so no two packets of a path share one.
            arrival = max(arrival, math.nextafter(self._last_arrival.get(path, 0.0), math.inf))
            self._last_arrival[path] = arrival
        loop.call_at(arrival, self._deliver, source, destination, data, ecn)
        if twice < conditions.duplicate:
            self.counts.duplicated += 1
            loop.call_at(arrival + conditions.latency / 2, self._deliver, source, destination, data, ecn)

    def _deliver(self, source: tuple[str, int], destination: tuple[str, int], data: bytes, ecn: int) -> None:
        ip, port = destination
        wildcard = "::" if ":" in ip else "0.0.0.0"
        driver = (
            self._drivers.get(destination) or self._drivers.get((wildcard, port)) or self._drivers.get(("::", port))
        )
        if driver is not None and not driver.is_closed:
            self.counts.delivered += 1
            driver.receive(data, source, destination, ecn)


class SimulatedDriver(Driver):
    """Serves an endpoint on a wire."""

    def __init__(
        self, endpoint: _core.Endpoint, loop: asyncio.AbstractEventLoop, wire: Wire, ip: str, port: int
    ) -> None:
        super().__init__(endpoint, loop)
        self._wire = wire
        self._address = wire.bind(self, ip, port)
        self._timer: asyncio.TimerHandle | None = None
        endpoint.set_scheduler(self._schedule)

    @property
    def local_address(self) -> tuple[str, int]:
        return self._address

    def connect(self, address: Address, server_name: str, tls: _core.ClientTls) -> _core.Connection:
        return self.endpoint.connect((address.ip, address.port), server_name, tls, self._now())

    def receive(self, data: bytes, source: tuple[str, int], destination: tuple[str, int], ecn: int) -> None:
        """Take a payload from the wire; the scheduler then asks for a drive."""
        self.endpoint.deliver(self._now(), data, source, destination, ecn)

    def flush(self) -> None:
        """Nothing: all of a turn happens at one and the same time."""

    def drive(self, readable: bool = False) -> None:
        now = self._now()
        try:
            wakes, events, delay, _, _ = self.endpoint.drive(False, now)
            for destination, data, ecn in self.endpoint.collect(now):
                self._wire.send(self._source(destination), destination, data, ecn)
            # Sending may have moved timers, and it may have made room for writers.
            more_wakes, more_events, delay, _, _ = self.endpoint.drive(False, now)
        except Exception as error:
            self._fail(error)
            return
        wakes += more_wakes
        events += more_events
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay is not None:
            self._timer = self.loop.call_later(delay, self._expired)
        if wakes or events or self._closes_when_idle:
            self._pass_on(wakes, events)

    def _source(self, destination: tuple[str, int]) -> tuple[str, int]:
        ip, port = self._address
        if ip in ("::", "0.0.0.0"):
            ip = "::1" if ":" in destination[0] else "127.0.0.1"
        return ip, port

    def _now(self) -> int:
        return round(self.loop.time() * 1e9)

    def _expired(self) -> None:
        self._timer = None
        if not self.is_closed:
            self._take_turn()

    def _release(self) -> None:
        self._wire.unbind(self._address)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SimulatedTransport:
    """Endpoints on a wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def resolve(self, host: str | None, port: int, *, listening: bool = False) -> list[Address]:
        """Look a name up in the wire's table; addresses are taken as they are."""
        name = host or "::"
        found = self.wire.names.get(name)
        if found is None:
            try:
                found = [ipaddress.ip_address(name).compressed]
            except ValueError:
                raise OSError(f"the simulated network knows no host `{name}`") from None
        return [Address(ip, port, ":" in ip) for ip in found]

    def open(
        self,
        *,
        ip: str,
        port: int,
        dual_stack: bool,
        limits: Limits,
        timeouts: Timeouts,
        server_tls: _core.ServerTls | None,
        congestion: str,
        reset_stream_at: bool,
    ) -> Driver:
        """Make an endpoint on the wire."""
        endpoint = _core.Endpoint(
            server_tls=server_tls,
            congestion=congestion,
            reset_stream_at=reset_stream_at,
            seed=self.wire.next_seed(),
            **endpoint_options(limits, timeouts, is_server=server_tls is not None),
        )
        return SimulatedDriver(endpoint, asyncio.get_running_loop(), self.wire, ip, port)


__all__ = [
    "Conditions",
    "DeadlockError",
    "SimulatedDriver",
    "SimulatedTransport",
    "VirtualTimeLoop",
    "Wire",
    "WireCounts",
]
