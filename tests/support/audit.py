"""A look at every connection of a simulated test before it closes: all of its streams and credit must be back.

While an ``Audit`` is in effect, a connection on a simulated network that closes without an error, all sessions being
over, is looked at first, at both ends: the QUIC core keeps no stream but the control streams; each side may open as
many streams as the other one's limits allow; and each side's window takes what it should. Only then it closes. This
takes virtual seconds, and whoever waits for the end waits for it. What is still open when a test's program returns, is
closed and looked at then.

tests/conftest.py puts one into effect for every test of tests/sim, tests/api and tests/cancel.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from wtio import testing
from wtio._connection.base import Connection
from wtio._connection.life import State
from wtio._core import EngineEvent
from wtio._driver import simulated
from wtio.protocol.codes import ErrorCodes

from .credit import announced

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pytest

    from wtio import _core
    from wtio._driver import Driver
    from wtio._options import EndpointOptions

# What the QUIC core keeps as long as the connection: streams on which a side sends, and the peer's, bidirectional and
# unidirectional. They are the two control streams.
AT_REST = [1, 0, 1]
# Virtual seconds for what is under way to arrive, on the worst of networks: clients that have lost their address, too.
PATIENCE = 600.0
# What takes the place of the default, which is too large to be filled in every test.
WINDOW = 128 * 1024
DEFAULT_WINDOW = 16 * 1024 * 1024
# A side allows no more until its peer has a quarter of them open (crates/engine/src/peer_credit.rs).
FIRST_STREAMS = 100
# Of a stream and of a frame, with no meaning (RFC 9114, sections 6.2.3 and 7.2.8).
RESERVED_TYPE = b"\x21"


@dataclass
class Audit:
    """What was found in one test."""

    established: int = 0
    """Ends of connections whose handshakes were completed."""
    checked: int = 0
    """Connections that were looked at, at both ends."""
    unchecked: list[str] = field(default_factory=list)
    """Why others were not."""
    failures: list[str] = field(default_factory=list)
    wires: WeakSet[simulated.Wire] = field(default_factory=WeakSet)
    under_way: dict[bytes, asyncio.Task[None]] = field(default_factory=dict)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Take effect."""
        close_connection, handle = Connection.close_connection, Connection.handle
        bind, open_endpoint, run = simulated.Wire.bind, simulated.SimulatedTransport.open, testing.run

        def closing(connection: Connection, code: int, reason: str) -> None:
            if code == ErrorCodes.H3_NO_ERROR and self._takes(connection):
                before, connection._life.state = connection._life.state, State.CLOSING
                task = self._look_at(connection)
                if task is not None:
                    task.add_done_callback(lambda _: close_now(connection, before, code, reason))
                    return
                connection._life.state = before
            close_connection(connection, code, reason)

        def close_now(connection: Connection, before: State, code: int, reason: str) -> None:
            if not connection.is_lost:
                connection._life.state = before
            if not connection.loop.is_closed():
                close_connection(connection, code, reason)

        def handling(connection: Connection, event: EngineEvent) -> None:
            is_simulated = isinstance(connection.driver, simulated.SimulatedDriver)
            self.established += is_simulated and isinstance(event, EngineEvent.Connected)
            handle(connection, event)

        def binding(wire: simulated.Wire, driver: simulated.SimulatedDriver, ip: str, port: int) -> tuple[str, int]:
            self.wires.add(wire)
            return bind(wire, driver, ip, port)

        def running(main: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
            self.wires.clear()
            self.under_way.clear()
            is_right = asyncio.iscoroutine(main) and isinstance(debug, bool | None)
            return run(self._and_then_look(main) if is_right else main, debug=debug)

        def opening(transport: simulated.SimulatedTransport, options: EndpointOptions, **named: Any) -> Driver:
            if options.limits.connection_receive_window == DEFAULT_WINDOW:
                limits = replace(options.limits, connection_receive_window=WINDOW)
                options = replace(options, limits=limits)
            return open_endpoint(transport, options, **named)

        patch.setattr(Connection, "close_connection", closing)
        patch.setattr(Connection, "handle", handling)
        patch.setattr(simulated.Wire, "bind", binding)
        patch.setattr(simulated.SimulatedTransport, "open", opening)
        patch.setattr(testing, "run", running)

    def _takes(self, connection: Connection) -> bool:
        is_simulated = isinstance(connection.driver, simulated.SimulatedDriver)
        return is_simulated and not (connection.is_ending or connection.driver.is_closed)

    def _look_at(self, connection: Connection) -> asyncio.Task[None] | None:
        """Begin, or join who began at the other end."""
        far = other_end(connection)
        why = None
        if far is None:
            why = "its other end is no connection of wtio's, or gone"
        elif is_dark(connection):
            why = "nothing passes"
        elif any(not session.is_closed for end in (connection, far) for session in end.sessions.states()):
            why = "it closes while a session is open"
        if why is not None or far is None:
            self.unchecked.append(why or "")
            return None
        secret = fingerprint(connection)
        assert secret is not None
        task = self.under_way.get(secret)
        if task is None:
            task = self.under_way[secret] = connection.loop.create_task(self._check(connection, far))
        return task

    async def _check(self, near: Connection, far: Connection) -> None:
        ends = End.of(near), End.of(far)
        try:
            await look(*ends)
            self.checked += 1
        except Gone:
            self.unchecked.append("it was lost before its end")
        except AssertionError as error:
            self.failures.append(str(error))
        finally:
            for end in ends:
                end.leave()

    async def _and_then_look(self, main: Coroutine[Any, Any, Any]) -> Any:
        result = await main
        for wire in list(self.wires):
            for lane in (wire._to_server, wire._to_client):
                lane.direction.update(**asdict(testing.Conditions()))
            connections = [one for one in connections_of(wire) if not one.is_lost]
            for connection in connections:
                sessions = [session for session in connection.sessions if not session.is_closed]
                await asyncio.gather(*(session.close() for session in sessions))
        if self.under_way:
            await asyncio.wait(self.under_way.values())
        for wire in list(self.wires):
            for connection in connections_of(wire):
                if connection.is_client and self._takes(connection) and fingerprint(connection) not in self.under_way:
                    task = self._look_at(connection)
                    if task is not None:
                        await task
        return result


# -- the two ends of a connection


class Gone(Exception):
    """A connection was lost while it was looked at."""


def connections_of(wire: simulated.Wire) -> list[Connection]:
    """All connections of wtio's on a network, also while they are looked at."""
    handlers = [handler for driver in set(wire._drivers.values()) for handler in driver._handlers.values()]
    connections = [handler.connection if isinstance(handler, End) else handler for handler in handlers]
    return [connection for connection in connections if isinstance(connection, Connection)]


def is_dark(connection: Connection) -> bool:
    assert isinstance(connection.driver, simulated.SimulatedDriver)
    wire, now = connection.driver._wire, connection.loop.time()
    return any(lane.is_dark(now) or lane.direction.loss == 1 for lane in (wire._to_server, wire._to_client))


def fingerprint(connection: Connection) -> bytes | None:
    """What both ends of a connection know and nobody else; None before the handshake is complete."""
    try:
        return connection.core.export_keying_material(b"audit", b"", 16)
    except ValueError:
        return None


def other_end(connection: Connection) -> Connection | None:
    secret = fingerprint(connection)
    assert isinstance(connection.driver, simulated.SimulatedDriver)
    if secret is None:
        return None
    for other in connections_of(connection.driver._wire):
        if other.is_client != connection.is_client and not other.is_lost and fingerprint(other) == secret:
            return other
    return None


class End:
    """One end of a connection while it is looked at: the driver passes its events to this."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.core = connection.core
        self.limits = connection.limits
        self.own: set[int] = set()
        self.taken: list[_core.Stream] = []
        connection.driver._handlers[connection.core.id] = self

    @classmethod
    def of(cls, connection: Connection) -> End:
        return cls(connection)

    def leave(self) -> None:
        self.taken.clear()
        handlers = self.connection.driver._handlers
        if handlers.get(self.core.id) is self:
            handlers[self.core.id] = self.connection

    @property
    def name(self) -> str:
        return "client" if self.connection.is_client else "server"

    def handle(self, event: EngineEvent) -> None:
        match event:
            case EngineEvent.RawStream(stream=stream) if stream.id in self.own:
                self.taken.append(stream)
            case EngineEvent.RawReadable(stream_id=stream_id) if stream_id in self.own:
                pass
            case EngineEvent.RawStopped(stream_id=stream_id) if stream_id in self.own:
                pass
            case _:
                self.connection.handle(event)

    def break_off(self, error: Exception) -> None:
        self.connection.break_off(error)

    def open_all(self, bidirectional: bool, most: int) -> list[_core.Stream]:
        """Open as many streams as are allowed at this moment."""
        streams: list[_core.Stream] = []
        while len(streams) < most and (stream := self.core.open_stream(bidirectional, b"", None)) is not None:
            streams.append(stream)
            self.own.add(stream.id)
            if most > FIRST_STREAMS:
                # The other end allows more only when it has seen some.
                stream.write(RESERVED_TYPE, 0)
        return streams


async def look(near: End, far: End) -> None:
    """See that all is back, at both ends, and that it can be used."""
    near.own = far.own
    await rest(near, far)
    opened: list[_core.Stream] = []
    for side, other in ((near, far), (far, near)):
        for bidirectional, limit in (
            (True, other.limits.bidirectional_streams),
            (False, other.limits.unidirectional_streams),
        ):
            least = announced(limit)
            streams: list[_core.Stream] = []

            def is_done(
                side: End = side,
                streams: list[_core.Stream] = streams,
                is_bidi: bool = bidirectional,
                most: int = least,
            ) -> bool:
                streams += side.open_all(is_bidi, most - len(streams))
                return len(streams) == most

            done = await until(near, far, is_done)
            opened += streams
            kind = "bidirectional" if bidirectional else "unidirectional"
            assert done, f"the {side.name} may open {len(streams)} of {least} {kind} streams"
    for stream in opened:
        stream.reset(0)
        stream.stop(0)
    opened.clear()
    await rest(near, far)
    for side, other in ((near, far), (far, near)):
        await fill(side, other)
        await rest(near, far)


async def rest(near: End, far: End) -> None:
    """Wait until neither end has a stream but the control streams."""
    kept: list[list[int] | None] = []

    def is_done() -> bool:
        for end in (near, far):
            # Dropping them is what ends them here.
            end.taken.clear()
        kept[:] = [near.core.core_streams(), far.core.core_streams()]
        return kept == [AT_REST, AT_REST]

    if not await until(near, far, is_done):
        raise AssertionError(f"streams are kept by {near.name} and {far.name}: {kept}, not {AT_REST} each")


async def fill(side: End, other: End) -> None:
    """Send three quarters of what the other end holds unread; up to an eighth of it may not be announced."""
    window = min(other.limits.connection_receive_window, WINDOW if is_default(other) else 2**62)
    if window > 2 * 1024 * 1024:
        # A whole one takes too long here, and tests that set so much are not about credit.
        return
    bidirectional = not other.limits.unidirectional_streams
    most = announced(other.limits.bidirectional_streams if bidirectional else other.limits.unidirectional_streams)
    size = min(other.limits.stream_receive_window, window) * 3 // 4
    # Some tests make the send buffer so small that a window takes hours.
    total = min(window * 3 // 4, size * most, 256 * side.limits.stream_send_buffer)
    streams: list[_core.Stream] = []
    written = 0

    def is_done() -> bool:
        nonlocal written
        while written < total:
            at = written % size
            if not at and len(streams) <= written // size:
                if not (opened := side.open_all(bidirectional, 1)):
                    return False
                streams.extend(opened)
            accepted = streams[written // size].write(bytes(min(size - at, total - written)), 0)
            if accepted <= 0:
                return False
            written += accepted
        return not any(stream.unacked for stream in streams)

    done = await until(side, other, is_done, longest_pause=0.05)
    acked = written - sum(stream.unacked for stream in streams)
    for stream in streams:
        stream.reset(0)
        stream.stop(0)
    assert done, f"of the connection's window the {side.name} gets {acked} of {total} bytes"


def is_default(end: End) -> bool:
    return end.limits.connection_receive_window == DEFAULT_WINDOW


async def until(near: End, far: End, is_done: Callable[[], bool], *, longest_pause: float = 1.0) -> bool:
    """Wait for what no event announces, in virtual time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    pause = 0.01
    while True:
        if any(end.connection.is_lost or end.connection.driver.is_closed for end in (near, far)):
            raise Gone
        if is_done():
            return True
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest_pause)
