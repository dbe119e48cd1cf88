"""Fan-out between two servers over Redis and NATS themselves, which are stopped and started in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.ports import free_port

import wtio
from wtio import hub as fan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class BusServer:
    """A bus of our own on the loopback."""

    def __init__(self, kind: str, directory: Path) -> None:
        program = shutil.which(f"{kind}-server", path="/usr/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            pytest.skip(f"there is no {kind}-server here; make setup installs it as root on Debian")
        self.port = free_port(socket.SOCK_STREAM)
        self.url = f"{kind}://127.0.0.1:{self.port}"
        if kind == "redis":
            options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(directory)]
        else:
            options = ["--addr", "127.0.0.1", "--port", str(self.port)]
        self.command = [program, *options]
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and return when it answers."""
        self.spawn()
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.005)
                else:
                    writer.close()
                    return

    def spawn(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None


@pytest.fixture(params=["redis", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bus_server(kind: str, tmp_path: Path) -> AsyncIterator[BusServer]:
    server = BusServer(kind, tmp_path)
    await server.start()
    yield server
    server.stop()


@pytest.fixture
def make_bus(kind: str, bus_server: BusServer) -> Callable[[], fan.Bus]:
    make: Any = fan.RedisBus if kind == "redis" else fan.NatsBus
    return lambda: make(bus_server.url)


class Place:
    """One server with its hub, and its subscribers."""

    def __init__(
        self,
        bus: fan.Bus,
        certificate: wtio.DevCertificate,
        hub_limits: fan.HubLimits | None = None,
        limits: wtio.Limits | None = None,
    ) -> None:
        self.hub = fan.Hub(bus, limits=hub_limits)
        self.certificate = certificate
        self.limits = limits
        # Data that each subscriber has received, and what was raised in a handler.
        self.received: list[list[bytes]] = []
        self.raised: list[BaseException] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def handler(self, session: wtio.WebTransportSession) -> None:
        try:
            policy = fan.datagram if session.path == "/datagram" else fan.everything
            async with self.hub.subscribe(session, "chat/room 1.2", policy=policy):
                session.send_datagram(b"subscribed")
                await session.wait_closed()
        except Exception as error:
            self.raised.append(error)

    async def subscriber(self, policy: str, *, reads: bool = True) -> None:
        url = f"https://127.0.0.1:{self.port}/{policy}"
        session = await self.stack.enter_async_context(wtio.connect(url, tls=self.certificate.client_tls()))
        assert await session.receive_datagram() == b"subscribed"
        if not reads:
            return
        found: list[bytes] = []
        self.received.append(found)

        async def read() -> None:
            with contextlib.suppress(wtio.SessionClosed):
                if policy == "datagram":
                    async for data in session.incoming_datagrams():
                        self.note(found, fan.decode_message(data))
                stream = await anext(session.incoming_unidirectional_streams())
                async for message in fan.MessageReader(stream):
                    self.note(found, message)

        self.tasks.append(asyncio.ensure_future(read()))

    async def __aenter__(self) -> Place:
        self.stack = contextlib.AsyncExitStack()
        await self.stack.enter_async_context(self.hub)
        server = wtio.serve(self.handler, "127.0.0.1", 0, tls=self.certificate.server_tls(), limits=self.limits)
        await self.stack.enter_async_context(server)
        self.port = server.addresses[0][1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stack.aclose()
        await asyncio.gather(*self.tasks)

    def note(self, found: list[bytes], message: fan.Message) -> None:
        found.append(message.data)

    def have(self, data: bytes) -> bool:
        return all(data in found for found in self.received)


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> float:
    """Wait until something is so, and return how long it took."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.005)
    return loop.time() - begin


async def goes_and_comes(
    bus_server: BusServer, make_bus: Callable[[], fan.Bus], certificate: wtio.DevCertificate, *, times: int, crowd: int
) -> list[float]:
    """Stop and start the bus; return how many seconds it took each time until messages crossed it again."""
    topic, took = "chat/room 1.2", []
    loop = asyncio.get_running_loop()
    async with Place(make_bus(), certificate) as near, Place(make_bus(), certificate) as far:
        await until(lambda: near.hub.stats().is_bus_connected and far.hub.stats().is_bus_connected)
        for place in (near, far):
            for number in range(crowd):
                await place.subscriber("everything" if number % 2 else "datagram")
        await near.subscriber("everything", reads=False)
        number = 0

        async def publish() -> bytes:
            nonlocal number
            number += 1
            await near.hub.publish(topic, b"%d" % number)
            return b"%d" % number

        first = await publish()
        await until(lambda: near.have(first) and far.have(first))
        for _ in range(times):
            bus_server.stop()
            await until(lambda: not near.hub.stats().is_bus_connected and not far.hub.stats().is_bus_connected)
            before = near.hub.stats().unsent
            for _ in range(5):
                data = await publish()
            assert near.hub.stats().unsent == before + 5
            await until(lambda data=data: near.have(data))  # type: ignore[misc]
            await bus_server.start()
            begin = loop.time()
            before = far.hub.stats().from_bus
            while far.hub.stats().from_bus == before:
                # What is published before both sides are back is lost, and counted.
                await publish()
                await asyncio.sleep(0.02)
                assert loop.time() - begin < 15
            took.append(loop.time() - begin)
            data = await publish()
            await until(lambda data=data: near.have(data) and far.have(data))  # type: ignore[misc]
        last = await publish()
        await until(lambda: near.have(last) and far.have(last))
        assert near.raised == far.raised == []
        # Local delivery is whole and in order; with the others, everything is here or counted.
        everything = [b"%d" % one for one in range(1, number + 1)]
        # Loopback loses datagrams only if its buffers overflow.
        assert [found for found in near.received if found != everything] == []
        missed = far.hub.stats().missed
        for found in far.received:
            assert len(found) + missed == number
            assert sorted(map(int, found)) == list(map(int, found))
        assert near.hub.stats().missed == 0
        assert near.hub.stats().bus_lost == far.hub.stats().bus_lost == times
        assert near.hub.stats().closed_as_too_slow == 0
    return took


async def test_a_bus_that_is_stopped_and_started_stops_nobody(
    bus_server: BusServer, make_bus: Callable[[], fan.Bus], certificate: wtio.DevCertificate
) -> None:
    await goes_and_comes(bus_server, make_bus, certificate, times=2, crowd=4)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_bus_that_is_stopped_ten_times_is_whole_again_within_a_second(
    bus_server: BusServer, make_bus: Callable[[], fan.Bus], certificate: wtio.DevCertificate, kind: str
) -> None:
    took = await goes_and_comes(bus_server, make_bus, certificate, times=10, crowd=20)
    print(f"{kind}: whole again after {', '.join(f'{seconds:.2f}' for seconds in took)} s")
    assert max(took) < 1


class Crowd:
    """Subscribers in a process of their own (tests/buses/crowd.py)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hear(self) -> bytes:
        assert self.process.stdout is not None
        async with asyncio.timeout(120):
            return await self.process.stdout.readline()

    async def have(self, number: int) -> list[dict[str, Any]]:
        """Wait until everybody has a message; what each of them has received."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % number)
        found: list[dict[str, Any]] = json.loads(await self.hear())
        assert [one for one in found if number not in one["numbers"]] == []
        return found


@contextlib.asynccontextmanager
async def crowd_of(ports: list[int], count: int, certificate: wtio.DevCertificate) -> AsyncIterator[Crowd]:
    command = [sys.executable, "-m", "tests.buses.crowd", ",".join(map(str, ports)), str(count), certificate.sha256_hex]
    pipe = asyncio.subprocess.PIPE
    root = Path(__file__).parents[2]
    # What it has received is one line.
    process = await asyncio.create_subprocess_exec(*command, cwd=root, stdin=pipe, stdout=pipe, limit=2**24)
    try:
        crowd = Crowd(process)
        assert await crowd.hear() == b"ready\n"
        yield crowd
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def serves_a_crowd(
    bus_server: BusServer, make_bus: Callable[[], fan.Bus], certificate: wtio.DevCertificate, crowd_size: int
) -> tuple[float, str]:
    """Two servers whose clients are elsewhere, one of which never reads; the bus is killed in the middle.

    Return how many seconds it took after the bus's return until messages crossed it again, and what there is to print.
    """
    # The queue of one that does not read is full after some messages.
    hub_limits = fan.HubLimits(subscriber_queue=10_000)
    limits = wtio.Limits(stream_send_buffer=10_000)
    number, times = 0, []
    loop = asyncio.get_running_loop()
    async with (
        Place(make_bus(), certificate, hub_limits, limits) as near,
        Place(make_bus(), certificate, hub_limits, limits) as far,
        crowd_of([near.port, far.port], crowd_size, certificate) as crowd,
    ):
        await until(lambda: near.hub.stats().is_bus_connected and far.hub.stats().is_bus_connected)

        async def publish() -> None:
            nonlocal number
            number += 1
            await near.hub.publish("chat/room 1.2", b"%d %f " % (number, loop.time()) + b"." * 1000)

        async def rounds(count: int) -> None:
            for _ in range(count):
                await publish()
                await publish()
                await crowd.have(number)

        await rounds(5)
        assert near.hub.stats().unsent == far.hub.stats().missed == 0
        bus_server.stop()
        await until(lambda: not near.hub.stats().is_bus_connected and not far.hub.stats().is_bus_connected)
        for _ in range(5):
            await publish()
        assert near.hub.stats().unsent == 5
        await bus_server.start()
        begin, before = loop.time(), far.hub.stats().from_bus
        # Nobody waits here for the subscriber that never reads: that has nothing to do with the bus.
        publishing = []
        while far.hub.stats().from_bus == before:
            publishing.append(asyncio.ensure_future(publish()))
            await asyncio.sleep(0.02)
            assert loop.time() - begin < 30
        back = loop.time() - begin
        await asyncio.gather(*publishing)
        await rounds(30)
        found = await crowd.have(number)
        missed, everything = far.hub.stats().missed, list(range(1, number + 1))
        for one in found:
            if one["port"] == near.port:
                assert one["numbers"] == everything
            else:
                assert one["numbers"] == sorted(set(one["numbers"]))
                assert len(one["numbers"]) + missed == number
            times.append(one["slowest"])
        # The one that never read, and nobody else.
        assert near.hub.stats().closed_as_too_slow == 1
        assert far.hub.stats().closed_as_too_slow == near.hub.stats().missed == 0
        assert near.hub.stats().subscriptions == far.hub.stats().subscriptions == crowd_size
        assert near.raised == far.raised == []
    return back, (
        f"{number} messages, {missed} lost with the bus, whole again after {back:.2f} s; the slowest took "
        f"{max(times):.2f} s"
    )


async def test_a_crowd_elsewhere_misses_what_is_counted_and_nothing_else(
    bus_server: BusServer, make_bus: Callable[[], fan.Bus], certificate: wtio.DevCertificate
) -> None:
    await serves_a_crowd(bus_server, make_bus, certificate, 3)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_two_hundred_subscribers_on_each_of_two_servers(
    bus_server: BusServer, make_bus: Callable[[], fan.Bus], certificate: wtio.DevCertificate, kind: str
) -> None:
    back, words = await serves_a_crowd(bus_server, make_bus, certificate, 200)
    print(f"{kind}: {words}")
    assert back < 1


async def test_what_is_left_is_unsubscribed_and_large_messages_cross(
    make_bus: Callable[[], fan.Bus], certificate: wtio.DevCertificate
) -> None:
    async with Place(make_bus(), certificate) as near, Place(make_bus(), certificate) as far:
        await until(lambda: near.hub.stats().is_bus_connected and far.hub.stats().is_bus_connected)
        for _ in range(2):
            async with wtio.connect(
                f"https://127.0.0.1:{far.port}/everything", tls=certificate.client_tls()
            ) as session:
                assert await session.receive_datagram() == b"subscribed"
                for size in (0, 100, 900_000):
                    await near.hub.publish("chat/room 1.2", bytes(size), key="ä")
                reader = fan.MessageReader(await anext(session.incoming_unidirectional_streams()))
                for size in (0, 100, 900_000):
                    assert await anext(reader) == fan.Message("chat/room 1.2", "ä", bytes(size))
            await until(lambda: far.hub.stats().topics == 0)
            before = far.hub.stats().from_bus
            await asyncio.sleep(0.05)
            await near.hub.publish("chat/room 1.2", b"for nobody")
            await until(lambda: near.hub.stats().bus_queued == 0)
            assert far.hub.stats().from_bus == before


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_a_bus_that_was_never_there_takes_nothing_from_local_delivery(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = f"{kind}://user:s3cret@127.0.0.1:9"
    bus: fan.Bus = fan.RedisBus(secret) if kind == "redis" else fan.NatsBus(secret)
    async with fan.Hub(bus) as hub:
        await until(lambda: bool(caplog.records))
        await hub.publish("topic", b"x")
        await asyncio.sleep(0.5)
        assert hub.stats().unsent == 1
    [record] = [record for record in caplog.records if record.name == "wtio.hub"]
    assert f"{kind} at 127.0.0.1:9 is down" in record.getMessage()
    assert "s3cret" not in caplog.text + repr(bus)
