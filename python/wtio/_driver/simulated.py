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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from wtio import _core
from wtio._driver import Address, Driver, endpoint_options

if TYPE_CHECKING:
    from wtio.config import Limits, Timeouts

# The engine's clock must not begin at zero: it subtracts.
_EPOCH: Final = 1_000.0
# How long a loop without any timer waits for another thread before that counts as a deadlock.
_DEADLOCK_SECONDS: Final = 5.0
_FIRST_EPHEMERAL: Final = 49_152
_OVERHEAD_IPV4: Final = 28
_OVERHEAD_IPV6: Final = 48


class DeadlockError(RuntimeError):
    """Every task of a virtual-time loop waits, and no timer and no packet is left that could wake one."""


class _VirtualSelector(selectors.BaseSelector):
    """Instead of sleeping, moves the clock forward. Real events, such as those of other threads, still come through."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = _EPOCH

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = self._real.select(_DEADLOCK_SECONDS)
            if not ready:
                raise DeadlockError("every task waits, and no timer or packet is left to wake one")
            return ready
        self.now += max(timeout, 0.0)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in which ``sleep(3600)`` takes no time. Its clock counts virtual seconds."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)
        # asyncio widens timers by the resolution of the real clock; here every instant is exact.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual.now


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
