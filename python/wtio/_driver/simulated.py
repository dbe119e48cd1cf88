"""The driver on a simulated network with virtual time: the same engine, no socket, no waiting.

``VirtualTimeLoop`` is an asyncio loop whose clock jumps to the next timer whenever nothing is ready. ``Wire`` carries
UDP payloads between endpoints, as call_at timers of that loop, with the losses and damage that its conditions say.
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
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from wtio import _core
from wtio._driver import Address, Driver
from wtio._field_texts import with_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from wtio._options import EndpointOptions

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

# The engine's clock must not begin at zero, because the engine subtracts from it.
_EPOCH: Final = 1_000.0
# How long a loop without any timer waits for another thread before that counts as a deadlock.
_DEADLOCK_SECONDS: Final = 5.0
# The most real seconds of overlong waits that the clock catches up on. Waits are rounded up to milliseconds, and
# simulated packets are closer together.
_MOST_SPARE: Final = 0.001
_FIRST_EPHEMERAL: Final = 49_152
_LAST_EPHEMERAL: Final = 65_535
# Packets of one direction that are kept for replays.
_HISTORY: Final = 1024
# The codepoint CE (RFC 3168, section 5).
_ECN_CONGESTED: Final = 0b11
_OVERHEAD_IPV4: Final = 28
_OVERHEAD_IPV6: Final = 48


class DeadlockError(RuntimeError):
    """Every task of a virtual-time loop waits, and there is no timer or packet left that could wake one."""


class _VirtualSelector(selectors.BaseSelector):
    """Moves the clock forward instead of sleeping, unless something real is in progress that it must not outrun."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = _EPOCH
        # The loop sets these. The clock stops while a ``stand_still`` block is open or a job runs in a thread.
        self.standing = 0
        self.is_held = False
        # Every running job's thread has called into the loop since, and may be waiting for timers: so the clock keeps
        # to real time.
        self.is_asked = False
        # Child processes that may still run; the clock keeps to real time while one does.
        self.processes: list[asyncio.SubprocessTransport] = []
        # Descriptors that are watched, without the loop's own, through which other threads wake it.
        self.watched = 0
        # Real seconds that have passed and were not added to the clock yet, because a wait takes whole milliseconds.
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
        """Wait as a real loop does, and move the clock by at most the time that this takes."""
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
        """Whether a child process of the loop runs. Without pipes, no descriptor would show that."""
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
    """Passes a job on to an executor, and keeps it."""

    job: Future[Any]

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.job = self._executor.submit(function, *arguments, **named)
        return self.job


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in which ``sleep(3600)`` takes no time. Its clock counts virtual seconds.

    The clock jumps to the next timer whenever every task waits. It does not outrun real things:

    - While a job of ``run_in_executor``, ``asyncio.to_thread`` or ``getaddrinfo`` runs, in any executor, the clock
      stops, even if nobody waits for the job any more. A thread that calls into the loop (``call_soon_threadsafe``,
      ``asyncio.run_coroutine_threadsafe``) may be waiting for timers. From then on, until the jobs of that moment are
      done, the clock keeps to real time.
    - While the loop watches descriptors (``add_reader``, ``add_writer``, sockets, pipes, servers) or has child
      processes, the clock advances at most as fast as real time.

    Threads that the loop did not start can wake it, but it cannot know that they are working; use ``stand_still`` for
    these. While the clock is stopped, or only real events are left, the loop waits as long as it takes.

    What a callback raises goes to the exception handler, as in every loop, unless it is no ``Exception``, such as the
    end of a test by a timeout: ``run_forever`` and ``run_until_complete`` raise that.
    """

    def __init__(self) -> None:
        # The clock.
        self._virtual = _VirtualSelector()
        # Jobs of executors that are not done.
        self._jobs: set[Future[Any]] = set()
        # Those of them that were running when a thread called into the loop.
        self._asking: set[Future[Any]] = set()
        # The default executor. asyncio's own attribute for it is private.
        self._threads: Executor | None = None
        self._has_shut_down_threads = False
        # What a callback raised that nothing but the caller of ``run_forever`` may catch.
        self._outcome: BaseException | None = None
        super().__init__(self._virtual)
        # Without the pipe that asyncio has registered for itself.
        self._virtual.watched = 0
        # asyncio runs timers early by the resolution of the real clock; here every time is exact.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual.now

    @contextmanager
    def stand_still(self) -> Iterator[None]:
        """Stop the clock within a ``with`` block, for instance while a thread of your own works."""
        self._virtual.standing += 1
        try:
            yield
        finally:
            self._virtual.standing -= 1

    def run_forever(self) -> None:
        """As of every loop."""
        super().run_forever()
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            raise outcome

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As of every loop, but what is no ``Exception``, such as the end of a test by a timeout, ends the loop."""
        exception = context.get("exception")
        if self.is_running() and not isinstance(exception, Exception | asyncio.CancelledError | None):
            # Written into a log it would end nothing, and a loop that never sleeps may run for ever.
            self._outcome = exception
            self.stop()
        else:
            super().call_exception_handler(context)

    def set_default_executor(self, executor: Any) -> None:
        """As of every loop."""
        super().set_default_executor(executor)
        self._threads = executor

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Arguments], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        """As of every loop; the clock stops until the job is done."""
        if executor is None:
            if self._has_shut_down_threads:
                # This raises the usual error.
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
        # After the callback that delivers the result, because the clock must not move before that.
        job.add_done_callback(self._job_done)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*_Arguments], object], *args: *_Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """As of every loop."""
        # Delivering a job's result does not count as a call into the loop. A quick job may not be known yet.
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
        # Runs in the thread in which the job ended, possibly after the loop was closed.
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


@with_texts
@dataclass(slots=True)
class Conditions:
    """What the network does to packets. It can be changed at any time; packets in flight are not affected.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is out of range.
    """

    latency: float = 0.01
    """Seconds in one direction. Default 10 ms."""
    jitter: float = 0.0
    """Random extra delay of up to this many seconds; packets do not overtake each other because of it. Default 0."""
    loss: float = 0.0
    """Share of packets that are lost, 0 … 1. Default 0."""
    reorder: float = 0.0
    """Share of packets that are delayed by up to two more latencies, so that later ones overtake them, 0 … 1.
    Default 0."""
    duplicate: float = 0.0
    """Share of packets that arrive twice, 0 … 1. Default 0."""
    corrupt: float = 0.0
    """Share of packets that arrive with one bit flipped, 0 … 1, as if UDP's checksum had missed it. Default 0."""
    replay: float = 0.0
    """Share of packets after which an older one, of any age, arrives once more, 0 … 1. Default 0."""
    ecn: str = "pass"
    """What happens to packets with ECN marks (RFC 3168): ``"pass"`` (default) leaves them alone, ``"bleach"`` clears
    the marks, ``"drop"`` drops the packets, ``"congested"`` marks them as having met congestion (CE)."""
    mtu: int = 1500
    """Bytes of the largest IP packet that passes; larger ones are lost, and the sender is not told. Default 1500."""
    bandwidth: float | None = None
    """Bytes per second of each sender; None (default) means no limit."""
    queue: float = 0.25
    """Seconds that packets may wait for ``bandwidth``; those that would wait longer are lost. Default 0.25 s."""
    blackout: bool = False
    """True lets no packets pass. Default False. ``Network.blackout`` does this for a time."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _CONDITIONS:
            raise AttributeError(f"a network has no condition {name!r}; its conditions are {', '.join(_CONDITIONS)}")
        _check_condition(name, value)
        object.__setattr__(self, name, value)

    def update(self, **changes: Any) -> None:
        """Change several conditions at once: all of them, or none if one is invalid.

        Raises:
            TypeError: A value is of the wrong type, or there is no condition of that name.
            ValueError: A value is out of range.
        """
        for name, value in changes.items():
            _check_condition(name, value)
        for name, value in changes.items():
            setattr(self, name, value)


_CONDITIONS: Final = tuple(field.name for field in fields(Conditions))
_SHARES: Final = frozenset(("loss", "reorder", "duplicate", "corrupt", "replay"))
_ECN: Final = ("pass", "bleach", "drop", "congested")


def _check_condition(name: str, value: object) -> None:
    if name not in _CONDITIONS:
        raise TypeError(f"a network has no condition {name!r}; its conditions are {', '.join(_CONDITIONS)}")
    if name == "blackout":
        if not isinstance(value, bool):
            raise TypeError(f"blackout must be True or False, not {value!r}")
    elif name == "ecn":
        if not isinstance(value, str):
            raise TypeError(f"ecn must be a str, not {type(value).__name__}")
        if value not in _ECN:
            raise ValueError(f"ecn is {value!r}; it must be one of {', '.join(map(repr, _ECN))}")
    elif name == "mtu":
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"mtu must be an int, not {type(value).__name__}")
        if value < 1:
            raise ValueError(f"mtu is {value}; it must be 1 byte or more")
    elif name != "bandwidth" or value is not None:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            words = "a number or None" if name == "bandwidth" else "a number"
            raise TypeError(f"{name} must be {words}, not {type(value).__name__}")
        if name in _SHARES:
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it is a share of packets and must be 0 … 1 (0.05 is 5 %)")
        elif not math.isfinite(value) or value < 0 or (name == "bandwidth" and value == 0):
            what = "more than 0 bytes per second, or None for no limit" if name == "bandwidth" else "0 seconds or more"
            raise ValueError(f"{name} is {value}; it must be finite and {what}")


@with_texts
@dataclass(slots=True)
class WireCounts:
    """What has happened to packets so far."""

    sent: int = 0
    """Packets that endpoints gave to the network."""
    delivered: int = 0
    """Packets that arrived, including copies and replays."""
    lost: int = 0
    """Packets that were lost because of ``loss``."""
    duplicated: int = 0
    """Copies made by ``duplicate``."""
    reordered: int = 0
    """Packets delayed by ``reorder``."""
    too_large: int = 0
    """Packets that were lost because they are larger than ``mtu``."""
    corrupted: int = 0
    """Packets in which a bit was flipped; copies of one are not counted again."""
    replayed: int = 0
    """Older packets sent once more by ``replay``."""
    blacked_out: int = 0
    """Packets that were lost in a blackout."""
    overflowed: int = 0
    """Packets that were lost because the queue for ``bandwidth`` was full."""
    ecn_bleached: int = 0
    """Packets that lost their ECN marks."""
    ecn_dropped: int = 0
    """Packets that were lost because of their ECN marks."""
    ecn_congested: int = 0
    """Packets marked as having met congestion."""
    unreachable: int = 0
    """Packets to an address that nobody has (any more)."""

    @property
    def in_flight(self) -> int:
        """Packets in flight, including copies and replays."""
        vanished = self.lost + self.too_large + self.blacked_out + self.overflowed + self.ecn_dropped + self.unreachable
        return self.sent + self.duplicated + self.replayed - self.delivered - vanished


_Where = tuple[str, int]
_Packet = tuple[_Where, _Where, bytes, int]


class Direction(Conditions):
    """What the network does to packets in one direction, and what has happened to them."""

    __slots__ = ("counts",)

    counts: WireCounts
    """What has happened to the packets of this direction so far."""

    def __init__(self, **conditions: Any) -> None:
        super().__init__(**conditions)
        object.__setattr__(self, "counts", WireCounts())


class _Lane:
    """One direction of a wire: its conditions, and what the wire remembers of it."""

    __slots__ = ("_dark_until", "_history", "direction")

    def __init__(self, direction: Direction) -> None:
        # The conditions, which the application may change at any time.
        self.direction = direction
        # No packets pass before this time of the loop's clock (seconds).
        self._dark_until = -math.inf
        # At most _HISTORY packets. A new one takes the place of any other, so that some of them are old.
        self._history: list[_Packet] = []

    def darken(self, until: float) -> None:
        """Let no packets pass before this time of the loop's clock."""
        self._dark_until = max(until, self._dark_until)

    def is_dark(self, now: float) -> bool:
        """Whether there is a blackout."""
        return self.direction.blackout or now < self._dark_until

    def remember(self, packet: _Packet, chance: float) -> None:
        """Keep a packet for replays."""
        if len(self._history) < _HISTORY:
            self._history.append(packet)
        else:
            self._history[int(chance * _HISTORY)] = packet

    def recall(self, chance: float) -> _Packet:
        """Any of the packets kept."""
        return self._history[int(chance * len(self._history))]


class BothDirections(Conditions):
    """Sets a condition for both directions at once. Reading returns what was last set here."""

    __slots__ = ("_directions",)

    _directions: tuple[Direction, ...]

    def __init__(self, *directions: Direction, **conditions: Any) -> None:
        object.__setattr__(self, "_directions", directions)
        super().__init__(**conditions)

    def __setattr__(self, name: str, value: object) -> None:
        Conditions.__setattr__(self, name, value)
        for direction in self._directions:
            setattr(direction, name, value)


class Wire:
    """Carries UDP payloads between simulated endpoints. Everything random comes from one seed."""

    def __init__(self, seed: int, to_server: Direction, to_client: Direction) -> None:
        # Of everything random here; endpoints get seeds that are made from it.
        self.seed = seed
        # Both directions together.
        self.counts = WireCounts()
        # Host names and their addresses, best first; tests may add some.
        self.names: dict[str, list[str]] = {"localhost": ["::1", "127.0.0.1"]}
        self._to_server = _Lane(to_server)
        self._to_client = _Lane(to_client)
        self._random = random.Random(seed)
        # A separate generator, so that corruption and replays do not change the losses of a seed.
        self._random_damage = random.Random(f"{seed}/damage")
        # The endpoints by their own addresses.
        self._drivers: dict[_Where, SimulatedDriver] = {}
        # When each sender's last packet has left, on the loop's clock; only with ``bandwidth``.
        self._busy_until: dict[_Where, float] = {}
        # When the last packet of each path arrives, so that jitter reorders none.
        self._last_arrival: dict[tuple[_Where, _Where], float] = {}
        # Clients that have sent something: their address, and the address that servers see, which differs after a
        # rebind.
        self._outer: dict[_Where, _Where] = {}
        self._inner: dict[_Where, _Where] = {}
        # Ports are given in order. Only after the last one may a port be in use.
        self._next_port = _FIRST_EPHEMERAL
        self._has_used_all = False
        # Endpoints so far, for their seeds.
        self._endpoints = 0

    def darken(self, direction: Direction, until: float) -> None:
        """Let no packets pass in one direction before this time of the loop's clock."""
        for lane in (self._to_server, self._to_client):
            if lane.direction is direction:
                lane.darken(until)

    def next_seed(self) -> bytes:
        """A seed for the next endpoint, the same in every run."""
        self._endpoints += 1
        return f"{self.seed}/{self._endpoints}".encode()

    def bind(self, driver: SimulatedDriver, ip: str, port: int) -> tuple[str, int]:
        """Give a driver its address; port 0 means a free one."""
        if port == 0:
            port = self._free_port()
        where = (ip, port)
        if where in self._drivers:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._drivers[where] = driver
        return where

    def unbind(self, where: tuple[str, int]) -> None:
        """Take an address back."""
        self._drivers.pop(where, None)
        ip, port = where
        for source in ((ip, port), ("::1", port), ("127.0.0.1", port)):
            outer = self._outer.pop(source, None)
            if outer is not None:
                del self._inner[outer]

    def _free_port(self) -> int:
        used = {port for _, port in (*self._drivers, *self._inner)} if self._has_used_all else ()
        for _ in range(_LAST_EPHEMERAL - _FIRST_EPHEMERAL + 1):
            port, self._next_port = self._next_port, self._next_port + 1
            if self._next_port > _LAST_EPHEMERAL:
                self._next_port, self._has_used_all = _FIRST_EPHEMERAL, True
            if port not in used:
                return port
        raise OSError(errno.EADDRINUSE, "Address already in use: the simulated network has no port left")

    def rebind(self, address: _Where | None, ip: str | None) -> dict[_Where, _Where]:
        """Let servers see clients at another address; returns a mapping from old addresses to new ones."""
        chosen = [(inner, outer) for inner, outer in self._outer.items() if address is None or outer == address]
        if address is not None and not chosen:
            known = ", ".join(f"{ip} port {port}" for ip, port in self._inner) or "none so far"
            raise ValueError(f"address: no client is seen at {address[0]} port {address[1]}; addresses seen: {known}")
        moved = {}
        for inner, outer in chosen:
            new = (ip or outer[0], self._free_port())
            if (":" in new[0]) != (":" in outer[0]):
                raise ValueError(f"ip: {outer[0]} cannot turn into {new[0]}: the one is IPv4, the other IPv6")
            del self._inner[outer]
            self._outer[inner] = new
            self._inner[new] = inner
            moved[outer] = new
        return moved

    def send(self, source: tuple[str, int], destination: tuple[str, int], data: bytes, ecn: int) -> None:
        """Take a payload from an endpoint, and lose, damage or deliver it."""
        origin = self._driver_at(source)
        to_client = origin is not None and origin.is_server
        lane = self._to_client if to_client else self._to_server
        direction = lane.direction
        sender = source
        loop = asyncio.get_event_loop()
        now = loop.time()
        self._count(direction, "sent")
        if not to_client:
            outer = self._outer.get(source)
            if outer is None:
                self._outer[source] = outer = source
                self._inner[source] = source
            source = outer
        overhead = _OVERHEAD_IPV6 if ":" in destination[0] else _OVERHEAD_IPV4
        # Every packet draws the same random numbers whatever happens to it, so that one change does not affect the
        # rest.
        lost, late, twice, wait, hold = (self._random.random() for _ in range(5))
        broken, where, again, kept, recalled = (self._random_damage.random() for _ in range(5))
        if len(data) + overhead > direction.mtu:
            self._count(direction, "too_large")
            return
        start = now
        if direction.bandwidth is not None:
            start = max(now, self._busy_until.get(sender, now))
            if start - now > direction.queue:
                self._count(direction, "overflowed")
                return
            start += (len(data) + overhead) / direction.bandwidth
            self._busy_until[sender] = start
        if lane.is_dark(now):
            self._count(direction, "blacked_out")
            return
        if lost < direction.loss:
            self._count(direction, "lost")
            return
        if ecn and direction.ecn != "pass":
            if direction.ecn == "drop":
                self._count(direction, "ecn_dropped")
                return
            bleached = direction.ecn == "bleach"
            self._count(direction, "ecn_bleached" if bleached else "ecn_congested")
            ecn = 0 if bleached else _ECN_CONGESTED
        if broken < direction.corrupt and data:
            self._count(direction, "corrupted")
            bit = int(where * len(data) * 8)
            data = data[: bit // 8] + bytes((data[bit // 8] ^ 1 << bit % 8,)) + data[bit // 8 + 1 :]
        arrival = start + direction.latency + wait * direction.jitter
        if late < direction.reorder:
            self._count(direction, "reordered")
            arrival += (0.5 + 1.5 * hold) * max(direction.latency, 0.001)
        else:
            path = (sender, destination)
            # The loop does not keep the order of timers with the same time, so no two packets of a path share one.
            arrival = max(arrival, math.nextafter(self._last_arrival.get(path, 0.0), math.inf))
            self._last_arrival[path] = arrival
        packet = (source, destination, data, ecn)
        loop.call_at(arrival, self._deliver, direction, packet)
        if twice < direction.duplicate:
            self._count(direction, "duplicated")
            loop.call_at(arrival + direction.latency / 2, self._deliver, direction, packet)
        if direction.replay:
            lane.remember(packet, kept)
            if again < direction.replay:
                self._count(direction, "replayed")
                loop.call_at(arrival + direction.latency / 2, self._deliver, direction, lane.recall(recalled))

    def _driver_at(self, where: _Where) -> SimulatedDriver | None:
        ip, port = where
        wildcard = "::" if ":" in ip else "0.0.0.0"
        return self._drivers.get(where) or self._drivers.get((wildcard, port)) or self._drivers.get(("::", port))

    def _count(self, direction: Direction, what: str) -> None:
        for counts in (self.counts, direction.counts):
            setattr(counts, what, getattr(counts, what) + 1)

    def _deliver(self, direction: Direction, packet: _Packet) -> None:
        source, destination, data, ecn = packet
        # An address that a client has left belongs to nobody.
        inner = self._inner.get(destination, destination)
        driver = self._driver_at(inner) if self._outer.get(inner, destination) == destination else None
        if driver is None or driver.is_closed:
            self._count(direction, "unreachable")
            return
        self._count(direction, "delivered")
        driver.receive(data, source, inner, ecn)


class SimulatedDriver(Driver):
    """Serves an endpoint on a wire."""

    def __init__(
        self,
        endpoint: _core.Endpoint,
        loop: asyncio.AbstractEventLoop,
        wire: Wire,
        ip: str,
        port: int,
        *,
        is_server: bool | None = None,
    ) -> None:
        super().__init__(endpoint, loop)
        self._wire = wire
        # Decides which conditions apply to what it sends. If a test does not say, an endpoint with a given port is a
        # server.
        self.is_server = bool(port) if is_server is None else is_server
        self._address = wire.bind(self, ip, port)
        self._timer: asyncio.TimerHandle | None = None
        endpoint.set_scheduler(self._schedule, loop)

    @property
    def local_address(self) -> tuple[str, int]:
        return self._address

    def connect(self, address: Address, server_name: str, tls: _core.ClientTls) -> _core.Connection:
        return self.endpoint.connect((address.ip, address.port), server_name, tls, self._now())

    def receive(self, data: bytes, source: tuple[str, int], destination: tuple[str, int], ecn: int) -> None:
        """Take a payload from the wire; the engine then schedules a drive."""
        self.endpoint.deliver(self._now(), data, source, destination, ecn)

    def flush(self) -> None:
        """Do nothing: everything in one callback happens at the same virtual time."""

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
            self._drive_and_run_tasks()

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
        self, options: EndpointOptions, *, ip: str, port: int, dual_stack: bool, server_tls: _core.ServerTls | None
    ) -> Driver:
        """Make an endpoint on the wire."""
        # There is no socket that a thread could serve, and the virtual time belongs to the loop.
        if options.io != "loop":
            options = replace(options, io="loop")
        endpoint = _core.Endpoint(options, server_tls=server_tls, seed=self.wire.next_seed())
        return SimulatedDriver(
            endpoint, asyncio.get_running_loop(), self.wire, ip, port, is_server=server_tls is not None
        )


__all__ = [
    "BothDirections",
    "Conditions",
    "DeadlockError",
    "Direction",
    "SimulatedDriver",
    "SimulatedTransport",
    "VirtualTimeLoop",
    "Wire",
    "WireCounts",
]
