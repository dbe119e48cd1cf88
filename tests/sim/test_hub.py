"""Fan-out over memory: every policy, with slow readers, ends, cancelling, and a bus that goes and comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio import hub as fan
from wtio.testing import Network, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

POLICIES = {
    "everything": fan.everything,
    "latest": fan.latest(),
    "only": fan.latest("b"),
    "within": fan.within(1.0),
    "datagram": fan.datagram,
}


def handler_of(hub: fan.Hub) -> Callable[[wtio.WebTransportSession], Any]:
    """A handler that subscribes to ``topic`` with the policy that the path names, until the session is over."""

    async def handler(session: wtio.WebTransportSession) -> None:
        async with hub.subscribe(session, "topic", policy=POLICIES[session.path[1:]]) as subscription:
            session.send_datagram(b"subscribed")
            assert subscription.is_active
            await session.wait_closed()

    return handler


@contextlib.asynccontextmanager
async def viewer(network: Network, policy: str, **options: Any) -> AsyncIterator[wtio.WebTransportSession]:
    async with network.connect(f"https://localhost/{policy}", **options) as session:
        assert await session.receive_datagram() == b"subscribed"
        yield session


async def received(session: wtio.WebTransportSession, policy: str, count: int) -> list[bytes]:
    """The data of so many messages."""
    found: list[bytes] = []
    if policy == "datagram":
        while len(found) < count:
            found.append(fan.decode_message(await session.receive_datagram()).data)
        return found
    streams = session.incoming_unidirectional_streams()
    while len(found) < count:
        async for message in fan.MessageReader(await anext(streams)):
            found.append(message.data)
            if policy != "everything" or len(found) == count:
                break
    return found


class Bus(fan.Bus):
    """A bus over memory that can be taken away, and that counts."""

    def __init__(self) -> None:
        self.memory = fan.MemoryBus()
        self.is_up = True
        self.is_silent = False
        self.attempts = 0
        self.subscribed: list[str] = []
        self.unsubscribed: list[str] = []
        self.published: list[tuple[str, bytes]] = []
        self.open: set[_Connection] = set()

    @property
    def name(self) -> str:
        return "a bus of a test"

    async def connect(self, receive: Callable[[str, bytes], None]) -> fan.BusConnection:
        self.attempts += 1
        if not self.is_up:
            raise ConnectionRefusedError
        connection = _Connection(self, await self.memory.connect(receive))
        self.open.add(connection)
        return connection

    def stop(self) -> None:
        self.is_up = False
        for connection in self.open:
            connection.lost.set()

    def start(self) -> None:
        self.is_up = True


class _Connection(fan.BusConnection):
    def __init__(self, bus: Bus, inner: fan.BusConnection) -> None:
        self.bus = bus
        self.inner = inner
        self.lost = asyncio.Event()

    async def answer(self) -> None:
        await asyncio.sleep(0.01)
        if self.bus.is_silent:
            await asyncio.get_running_loop().create_future()
        if self.lost.is_set():
            raise ConnectionResetError

    async def listen(self) -> None:
        await self.lost.wait()

    async def subscribe(self, channels: Sequence[str]) -> None:
        await self.answer()
        self.bus.subscribed += [channel for channel in channels if channel.startswith("topic/")]
        await self.inner.subscribe(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        await self.answer()
        self.bus.unsubscribed += channels
        await self.inner.unsubscribe(channels)

    async def publish(self, batch: Sequence[tuple[str, bytes]]) -> None:
        await self.answer()
        self.bus.published += [one for one in batch if one[0].startswith("topic/")]
        await self.inner.publish(batch)

    async def close(self) -> None:
        self.bus.open.discard(self)
        await self.inner.close()


# -- delivery


@pytest.mark.parametrize("policy", ["everything", "latest", "within", "datagram"])
def test_each_message_reaches_every_subscriber_once_in_both_processes(policy: str) -> None:
    async def main() -> None:
        bus, network = fan.MemoryBus(), Network()
        async with fan.Hub(bus) as near, fan.Hub(bus) as far:
            async with (
                network.serve(handler_of(near)),
                network.serve(handler_of(far), port=4000),
                viewer(network, policy) as one,
                viewer(network, policy) as two,
                network.connect(f"https://localhost:4000/{policy}") as three,
            ):
                assert await three.receive_datagram() == b"subscribed"
                for number in range(4):
                    await (near, far)[number % 2].publish("topic", b"%d" % number, key=str(number))
                    await near.publish("another topic", b"x")
                    await asyncio.sleep(0.1)
                for session in (one, two, three):
                    assert sorted(await received(session, policy, 4)) == [b"0", b"1", b"2", b"3"]
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(received(session, policy, 1), 5)
            assert near.stats().from_bus == far.stats().from_bus == 2
            assert near.stats().missed == far.stats().missed == 0
            assert (near.stats().topics, near.stats().subscriptions) == (0, 0)

    run(main())


def test_everything_keeps_order_and_topic_and_key() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network(loss=0.1, reorder=0.1)
        async with hub, network.serve(handler_of(hub)), viewer(network, "everything") as session:
            for number in range(300):
                await hub.publish("topic", bytes(number), key=f"ä{number}")
            reader = fan.MessageReader(await anext(session.incoming_unidirectional_streams()))
            for number in range(300):
                message = await anext(reader)
                assert message == fan.Message("topic", f"ä{number}", bytes(number))

    run(main())


def test_a_topic_is_subscribed_once_for_a_process_and_a_message_encoded_once() -> None:
    async def main() -> None:
        bus, network = Bus(), Network()
        async with fan.Hub(bus) as hub, fan.Hub(bus) as other, network.serve(handler_of(hub)):
            async with contextlib.AsyncExitStack() as stack:
                sessions = [await stack.enter_async_context(viewer(network, "datagram")) for _ in range(5)]
                assert bus.subscribed == ["topic/topic"]
                assert bus.unsubscribed == []
                await hub.publish("topic", b"one")
                datagrams = {await session.receive_datagram() for session in sessions}
                assert len(datagrams) == 1
                await asyncio.sleep(1)
                assert bus.published[-1][1].endswith(datagrams.pop())
                assert len(bus.published) == 1
            await asyncio.sleep(1)
            assert bus.unsubscribed == ["topic/topic"]
            assert other.stats().from_bus == 0

    run(main())


def test_leaving_a_subscription_sends_what_was_published_before() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network(latency=0.1)

        async def handler(session: wtio.WebTransportSession) -> None:
            async with hub.subscribe(session, "topic", policy=POLICIES[session.path[1:]]):
                for number in range(100):
                    await hub.publish("topic", b"x" * 1000, key=str(number))

        async with hub, network.serve(handler):
            async with network.connect("https://localhost/everything") as session:
                stream = await anext(session.incoming_unidirectional_streams())
                assert [message.data async for message in fan.MessageReader(stream)] == [b"x" * 1000] * 100
            for policy in ("latest", "within"):
                async with network.connect(f"https://localhost/{policy}") as session:
                    assert len(await received(session, policy, 100)) == 100
            assert hub.stats().subscriptions == 0

    run(main())


# -- slow subscribers


SMALL = fan.HubLimits(subscriber_queue=20_000, patience=2.0)
# What a session takes that is not read.
NARROW = wtio.Limits(stream_receive_window=10_000, stream_send_buffer=10_000)


def test_everything_holds_the_publisher_back_and_at_last_closes_who_does_not_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wtio.hub")

    async def main() -> None:
        hub, network = fan.Hub(limits=SMALL), Network()
        async with (
            hub,
            network.serve(handler_of(hub), limits=NARROW) as server,
            viewer(network, "everything", limits=NARROW) as slow,
            viewer(network, "everything") as quick,
        ):
            numbers = {session.log_id for session in server.sessions}
            taken: list[bytes] = []

            async def take() -> None:
                taken.extend(await received(quick, "everything", 100))

            reading = asyncio.ensure_future(take())
            loop = asyncio.get_running_loop()
            begin = loop.time()
            waits = []
            for number in range(100):
                before = loop.time()
                await hub.publish("topic", b"%d" % number + bytes(997))
                waits.append(loop.time() - before)
            assert loop.time() - begin < 3
            assert max(waits) == pytest.approx(2.0)
            info = await slow.wait_closed()
            assert (info.code, info.reason, info.closed_by) == (fan.TOO_SLOW_CODE, "too slow", "peer")
            await reading
            assert [data[:2].rstrip(b"\0") for data in taken] == [b"%d" % number for number in range(100)]
            assert not quick.is_closed
            assert hub.stats().closed_as_too_slow == 1
            assert hub.stats().subscriptions == 1
            (gone,) = numbers - {session.log_id for session in server.sessions}
            (line,) = [text for text in caplog.messages if "too slow" in text]
            assert line.startswith(f"session {gone}, path /")

    run(main())


def test_everything_goes_at_the_readers_pace_while_it_reads() -> None:
    async def main() -> None:
        hub, network = fan.Hub(limits=SMALL), Network()
        async with (
            hub,
            network.serve(handler_of(hub), limits=NARROW),
            viewer(network, "everything", limits=NARROW) as session,
        ):

            async def read_slowly() -> int:
                count = 0
                stream = await anext(session.incoming_unidirectional_streams())
                async for _ in fan.MessageReader(stream):
                    count += 1
                    await asyncio.sleep(0.05)
                    if count == 200:
                        break
                return count

            reading = asyncio.ensure_future(read_slowly())
            for _ in range(200):
                await hub.publish("topic", bytes(1000))
            assert await reading == 200
            assert hub.stats().closed_as_too_slow == 0

    run(main())


def test_the_bus_never_waits_for_a_slow_subscriber() -> None:
    async def main() -> None:
        bus, network = fan.MemoryBus(), Network()
        async with (
            fan.Hub(bus, limits=SMALL) as hub,
            fan.Hub(bus) as other,
            network.serve(handler_of(hub)),
            viewer(network, "everything") as slow,
        ):
            # More than its queue takes twice, at once.
            for _ in range(60):
                await other.publish("topic", bytes(1000))
            info = await slow.wait_closed()
            assert info.code == fan.TOO_SLOW_CODE
            assert other.stats().closed_as_too_slow == 0

    run(main())


def test_a_viewer_at_a_tenth_of_the_rate_sees_the_newest_with_latest() -> None:
    interval, delay = 0.1, 0.05

    async def main() -> None:
        hub, network = fan.Hub(), Network(latency=delay)
        async with hub, network.serve(handler_of(hub)), viewer(network, "latest") as session:
            loop = asyncio.get_running_loop()

            async def publish() -> None:
                while True:
                    await hub.publish("topic", b"%f" % loop.time(), key="board")
                    await asyncio.sleep(interval)

            publishing = asyncio.ensure_future(publish())
            ages: list[float] = []
            streams = session.incoming_unidirectional_streams()
            while len(ages) < 30:
                async for message in fan.MessageReader(await anext(streams)):
                    ages.append(loop.time() - float(message.data))
                    await asyncio.sleep(10 * interval)
                    break
            publishing.cancel()
            assert max(ages) <= interval + 2 * delay
            # What is under way is one stream.
            assert session.stats().stream_bytes_received < 400 * 50

    run(main())


def test_memory_stays_flat_behind_a_viewer_at_a_tenth_of_the_rate() -> None:
    interval, delay = 0.1, 0.05

    async def main() -> None:
        hub, network = fan.Hub(), Network(latency=delay)
        async with (
            hub,
            network.serve(handler_of(hub), limits=wtio.Limits(server_memory=2**30)) as server,
            viewer(network, "latest") as session,
        ):
            loop = asyncio.get_running_loop()

            async def publish() -> None:
                while True:
                    await hub.publish("topic", (b"%f" % loop.time()).ljust(5000), key="board")
                    await asyncio.sleep(interval)

            publishing = asyncio.ensure_future(publish())
            ages: list[float] = []
            used: list[int] = []
            streams = session.incoming_unidirectional_streams()
            while len(ages) < 60:
                async for message in fan.MessageReader(await anext(streams)):
                    ages.append(loop.time() - float(message.data))
                    assert server.memory is not None
                    used.append(server.memory.used)
                    await asyncio.sleep(10 * interval)
                    break
            publishing.cancel()
            assert max(ages) <= interval + 2 * delay
            # 3 MB were published.
            assert max(used[10:]) <= max(used[:10])
            assert max(used) < min(used) + 4 * 5000
            assert hub.stats().published > 550
            assert len(asyncio.all_tasks()) < 20

    run(main())


def test_a_viewer_that_stopped_reading_sees_the_newest_when_it_goes_on() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network(latency=0.05)
        async with hub, network.serve(handler_of(hub)), viewer(network, "latest") as session:
            # More than the streams that the peer may open.
            for number in range(1000):
                await hub.publish("topic", b"%d" % number)
                await asyncio.sleep(0.1)
            loop = asyncio.get_running_loop()
            found: list[bytes] = []
            begin = loop.time()
            streams = session.incoming_unidirectional_streams()
            while not found:
                found = [message.data async for message in _until_first(await anext(streams))]
            assert found == [b"999"]
            assert loop.time() - begin < 0.3
            assert hub.stats().replaced > 800

    run(main())


async def _until_first(stream: wtio.WebTransportReceiveStream) -> AsyncIterator[fan.Message]:
    async for message in fan.MessageReader(stream):
        yield message
        return


def test_updates_larger_than_the_path_carries_in_time_arrive_whole() -> None:
    async def main() -> None:
        # An update takes half a second, and there are ten of them in one.
        hub, network = fan.Hub(), Network(bandwidth=100_000, latency=0.01)
        async with hub, network.serve(handler_of(hub)), viewer(network, "latest") as session:
            publishing = asyncio.ensure_future(_publish_often(hub, b"x" * 50_000, 0.05))
            found = await asyncio.wait_for(received(session, "latest", 5), 10)
            assert [len(data) for data in found] == [50_000] * 5
            publishing.cancel()
            assert hub.stats().replaced > 10

    run(main())


def test_a_large_update_that_is_not_read_gives_way_in_the_end() -> None:
    async def main() -> None:
        hub, network = fan.Hub(limits=SMALL), Network()
        async with (
            hub,
            network.serve(handler_of(hub), limits=NARROW),
            viewer(network, "latest", limits=NARROW) as session,
        ):
            await hub.publish("topic", b"old" * 20_000)
            await asyncio.sleep(1)
            await hub.publish("topic", b"new")
            await asyncio.sleep(5)
            assert await received(session, "latest", 1) == [b"new"]
            # Alone, it may take as long as it takes.
            await hub.publish("topic", b"alone" * 20_000)
            await asyncio.sleep(10)
            assert await received(session, "latest", 1) == [b"alone" * 20_000]

    run(main())


async def _publish_often(hub: fan.Hub, data: bytes, interval: float) -> None:
    while True:
        await hub.publish("topic", data)
        await asyncio.sleep(interval)


def test_latest_of_one_key_leaves_the_others_out() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network()
        async with hub, network.serve(handler_of(hub)), viewer(network, "only") as session:
            for key in "abc":
                await hub.publish("topic", key.encode(), key=key)
            assert await received(session, "latest", 1) == [b"b"]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(received(session, "latest", 1), 5)

    run(main())


def test_latest_holds_a_limited_number_of_keys() -> None:
    async def main() -> None:
        hub, network = fan.Hub(limits=fan.HubLimits(updates=10)), Network()
        async with hub, network.serve(handler_of(hub)), viewer(network, "latest") as session:
            # At once: there is room for ten.
            for number in range(15):
                await hub.publish("topic", b"%d" % number, key=str(number))
            assert len(await received(session, "latest", 10)) == 10
            assert hub.stats().replaced == 5
            # One after the other: the one that changed longest ago makes room.
            for number in range(100, 150):
                await hub.publish("topic", b"%d" % number, key=str(number))
                assert await received(session, "latest", 1) == [b"%d" % number]
            assert hub.stats().replaced == 5
        assert hub.stats().subscriptions == 0

    run(main())


def test_within_gives_up_what_is_late() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network(latency=0.01)
        async with hub, network.serve(handler_of(hub)), viewer(network, "within") as session:
            network.blackout(3)
            await hub.publish("topic", b"late")
            await asyncio.sleep(10)
            await hub.publish("topic", b"in time")
            assert await received(session, "within", 1) == [b"in time"]
            assert hub.stats().expired == 1

    run(main())


def test_within_holds_a_limited_number_of_messages() -> None:
    async def main() -> None:
        hub, network = fan.Hub(limits=fan.HubLimits(updates=10)), Network(latency=0.01)
        async with hub, network.serve(handler_of(hub)), viewer(network, "within") as session:
            for number in range(15):
                await hub.publish("topic", b"%d" % number)
            assert sorted(map(int, await received(session, "within", 10))) == list(range(5, 15))
            assert hub.stats().expired == 5

    run(main())


def test_datagrams_that_are_too_large_are_counted() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network()
        async with hub, network.serve(handler_of(hub)), viewer(network, "datagram") as session:
            await hub.publish("topic", bytes(5000))
            await hub.publish("topic", b"small")
            assert await received(session, "datagram", 1) == [b"small"]
            assert hub.stats().too_large == 1

    run(main())


def test_datagrams_of_a_topic_go_to_all_at_once_past_those_that_cannot_take_them() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network()
        async with hub, network.serve(handler_of(hub)), contextlib.AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(viewer(network, "datagram")) for _ in range(3)]
            await hub.publish("topic", b"1")
            await hub.publish("topic", bytes(5000))
            assert hub.stats().too_large == 3
            closing = asyncio.ensure_future(sessions[1].close())
            for number in b"2345":
                await hub.publish("topic", bytes([number]))
                await asyncio.sleep(0.01)
            await closing
            for session in (sessions[0], sessions[2]):
                assert await received(session, "datagram", 5) == [b"1", b"2", b"3", b"4", b"5"]
            assert hub.stats().too_large == 3

    run(main())


# -- ends and cancelling


@pytest.mark.parametrize("policy", POLICIES)
def test_a_session_that_ends_takes_nobody_with_it(policy: str) -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network(latency=0.01)
        ended = []

        async def handler(session: wtio.WebTransportSession) -> None:
            # It does not look at the session at all.
            async with hub.subscribe(session, "topic", policy=POLICIES[policy]) as subscription:
                session.send_datagram(b"subscribed")
                await subscription.wait_ended()
            ended.append(session)

        async with hub, network.serve(handler), viewer(network, policy) as stays:
            async with viewer(network, policy) as goes:
                await hub.publish("topic", b"1", key="b")
                await goes.abort()
            await asyncio.sleep(1)
            await hub.publish("topic", b"2", key="b")
            await asyncio.sleep(1)
            assert (await received(stays, policy, 1 if policy in ("latest", "only") else 2))[-1] == b"2"
            assert len(ended) == 1
            assert hub.stats().subscriptions == 1

    run(main())


def test_a_peer_that_stops_the_stream_of_everything_ends_the_subscription() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network()
        async with hub, network.serve(handler_of(hub)), viewer(network, "everything") as session:
            await hub.publish("topic", b"1")
            stream = await anext(session.incoming_unidirectional_streams())
            await stream.stop_receiving()
            await asyncio.sleep(1)
            await hub.publish("topic", b"2")
            await asyncio.sleep(1)
            assert hub.stats().subscriptions == 0
            assert not session.is_closed

    run(main())


def test_a_peer_that_stops_an_update_gets_the_next_one() -> None:
    async def main() -> None:
        hub, network = fan.Hub(), Network()
        async with hub, network.serve(handler_of(hub)), viewer(network, "latest") as session:
            for number in range(300):
                await hub.publish("topic", b"%d" % number)
                stream = await anext(session.incoming_unidirectional_streams())
                assert (await anext(fan.MessageReader(stream))).data == b"%d" % number
                await stream.stop_receiving()

    run(main())


def test_a_cancelled_publish_has_reached_everybody() -> None:
    async def main() -> None:
        hub, network = fan.Hub(limits=SMALL), Network()
        async with (
            hub,
            network.serve(handler_of(hub), limits=NARROW),
            viewer(network, "everything", limits=NARROW) as slow,
            viewer(network, "datagram") as quick,
        ):
            count = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    while count < 1000:
                        count += 1
                        await hub.publish("topic", bytes(900))
            assert count < 1000
            assert len(await received(quick, "datagram", count)) == count
            assert len(await received(slow, "everything", count)) == count
            await hub.publish("topic", b"again")
            assert await received(quick, "datagram", 1) == [b"again"]

    run(main())


def test_cancelled_while_entering_there_is_no_subscription() -> None:
    async def main() -> None:
        bus, network = Bus(), Network()

        async def handler(session: wtio.WebTransportSession) -> None:
            bus.is_silent = True
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5), hub.subscribe(session, "topic"):
                    raise AssertionError("it has waited for the bus")
            assert hub.stats().subscriptions == 0
            bus.is_silent = False
            async with hub.subscribe(session, "topic") as subscription:
                session.send_datagram(b"subscribed")
                with pytest.raises(wtio.LocalProtocolError, match="entered once"):
                    await subscription.__aenter__()
                await session.wait_closed()

        async with fan.Hub(bus) as hub, network.serve(handler):
            await asyncio.sleep(1)
            async with viewer(network, "everything") as session:
                await hub.publish("topic", b"x")
                assert await received(session, "everything", 1) == [b"x"]

    run(main())


@pytest.mark.parametrize("policy", ["everything", "latest", "within"])
def test_cancelled_while_leaving_it_gives_up_what_is_not_sent(policy: str) -> None:
    async def main() -> None:
        hub, network = fan.Hub(limits=fan.HubLimits(patience=1000)), Network()
        took = []

        async def handler(session: wtio.WebTransportSession) -> None:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5), hub.subscribe(session, "topic", policy=POLICIES[policy]):
                    await hub.publish("topic", bytes(100_000), key="b")
            took.append(loop.time() - begin)
            assert hub.stats().subscriptions == 0
            session.send_datagram(b"left")
            await session.wait_closed()

        async with (
            hub,
            network.serve(handler, limits=NARROW),
            network.connect("https://localhost/", limits=NARROW) as session,
        ):
            assert await session.receive_datagram() == b"left"
            assert took == [pytest.approx(0.5)]

    run(main())


def test_a_closed_hub_ends_subscriptions_and_refuses_more() -> None:
    async def main() -> None:
        hub, network = fan.Hub(fan.MemoryBus()), Network()
        ended = []

        async def handler(session: wtio.WebTransportSession) -> None:
            async with hub.subscribe(session, "topic") as subscription:
                session.send_datagram(b"subscribed")
                await subscription.wait_ended()
                ended.append(repr(subscription))
            await session.wait_closed()

        async with network.serve(handler) as server, viewer(network, "everything") as session:
            (number,) = (one.log_id for one in server.sessions)
            await hub.publish("topic", b"x")
            assert await received(session, "everything", 1) == [b"x"]
            await hub.close()
            await hub.close()
            await asyncio.sleep(1)
            assert ended == [f"<Subscription 'topic' everything session={number} ended>"]
            assert not session.is_closed
            assert repr(hub) == "<Hub topics=0 subscriptions=0 closed>"
            for use in (hub.publish("topic", b"x"), hub.subscribe(session, "topic").__aenter__()):
                with pytest.raises(wtio.LocalProtocolError, match="this hub is closed"):
                    await use

    run(main())


def test_a_hub_belongs_to_the_loop_that_used_it_first() -> None:
    hub = fan.Hub()
    run(hub.publish("topic", b"x"))
    with pytest.raises(RuntimeError, match="this hub belongs to an event loop that is closed"):
        run(hub.publish("topic", b"x"))


# -- the bus goes and comes


def test_a_bus_that_goes_and_comes_raises_nothing_and_everything_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wtio.hub")

    async def main() -> None:
        bus, network = Bus(), Network()
        async with (
            fan.Hub(bus) as near,
            fan.Hub(bus) as far,
            network.serve(handler_of(near)),
            network.serve(handler_of(far), port=4000),
            viewer(network, "datagram") as here,
            network.connect("https://localhost:4000/datagram") as there,
        ):
            assert await there.receive_datagram() == b"subscribed"
            sent = 0
            for _ in range(10):
                for is_up in (True, False):
                    (bus.start if is_up else bus.stop)()
                    # Whole again within one second of its return.
                    await asyncio.sleep(1)
                    assert near.stats().is_bus_connected is is_up
                    for _ in range(5):
                        await near.publish("topic", b"%d" % sent)
                        sent += 1
                        await asyncio.sleep(0.05)
            bus.start()
            await asyncio.sleep(1)
            await near.publish("topic", b"last")
            assert len(await received(here, "datagram", sent + 1)) == sent + 1
            assert (await received(there, "datagram", 51))[-1] == b"last"
            assert near.stats().unsent == 50
            assert far.stats().missed == 50
            assert far.stats().from_bus == 51
            assert near.stats().bus_lost == far.stats().bus_lost == 10

    run(main())
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert len(lines) == 40
    assert lines[0] == (
        "WARNING",
        "a bus of a test is down (ConnectionError); messages reach subscribers of this process only, until it is back",
    )
    assert ("INFO", "a bus of a test is back after 1.3 s; 5 messages were not sent to it meanwhile") in [
        (level, text.replace("1.4", "1.3").replace("1.5", "1.3").replace("1.6", "1.3")) for level, text in lines
    ]


def test_a_bus_that_does_not_answer_counts_as_down_and_is_connected_to_again() -> None:
    async def main() -> None:
        bus = Bus()
        async with fan.Hub(bus) as hub:
            await asyncio.sleep(1)
            assert hub.stats().is_bus_connected
            bus.is_silent = True
            await asyncio.sleep(8)
            assert not hub.stats().is_bus_connected
            attempts = bus.attempts
            await asyncio.sleep(60)
            assert 10 < bus.attempts - attempts < 60
            bus.is_silent = False
            await asyncio.sleep(3)
            assert hub.stats().is_bus_connected
            assert len(bus.open) == 1
        assert not bus.open

    run(main())


def test_what_waits_for_the_bus_is_bounded() -> None:
    async def main() -> None:
        bus = Bus()
        async with fan.Hub(bus, limits=fan.HubLimits(bus_queue=10_000)) as hub:
            await asyncio.sleep(1)
            for _ in range(100):
                await hub.publish("topic", bytes(1000))
            assert hub.stats().bus_queued <= 10_000
            assert hub.stats().unsent == 91
            await asyncio.sleep(1)
            assert hub.stats().bus_queued == 0
            assert len(bus.published) == 9
            # What was in its hands when it went is not known to have arrived.
            await hub.publish("topic", b"x")
            await asyncio.sleep(0.005)
            bus.stop()
            await hub.publish("topic", b"x")
            await asyncio.sleep(1)
            assert hub.stats().unsent == 93

    run(main())


def test_a_subscription_does_not_wait_for_a_bus_that_is_down() -> None:
    async def main() -> None:
        bus, network = Bus(), Network()
        bus.stop()
        async with (
            fan.Hub(bus) as hub,
            fan.Hub(bus) as other,
            network.serve(handler_of(hub)),
            viewer(network, "datagram") as session,
        ):
            await hub.publish("topic", b"local")
            assert await received(session, "datagram", 1) == [b"local"]
            bus.start()
            await asyncio.sleep(1)
            await other.publish("topic", b"from elsewhere")
            assert await received(session, "datagram", 1) == [b"from elsewhere"]

    run(main())


def test_what_is_no_message_on_the_bus_is_left_alone() -> None:
    async def main() -> None:
        bus, network = fan.MemoryBus(), Network()
        async with fan.Hub(bus) as hub, network.serve(handler_of(hub)), viewer(network, "datagram") as session:
            stranger = await bus.connect(lambda channel, payload: None)
            await stranger.publish(
                [("topic/topic", payload) for payload in (b"", b"x", bytes(9), bytes(20), b"\xff" * 99)]
            )
            await hub.publish("topic", b"good")
            assert await received(session, "datagram", 1) == [b"good"]
            assert repr(bus) == "<MemoryBus hubs=2>"
            await stranger.close()

    run(main())


# -- messages


def test_a_cancelled_read_of_messages_loses_none() -> None:
    async def main() -> None:
        async with wtio.testing.session_pair(latency=0.01) as (client, server):
            stream = await server.create_unidirectional_stream()
            whole = bytes([5]) + b"topic" + bytes([1]) + b"k" + bytes([4]) + b"data"
            await stream.write(data=whole[:3])
            reader = fan.MessageReader(await anext(client.incoming_unidirectional_streams()))
            for end in (7, 10, len(whole)):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(reader), 1)
                begin = {7: 3, 10: 7, len(whole): 10}[end]
                await stream.write(data=whole[begin:end])
            await stream.write(data=whole * 2 + whole[:-1], end_stream=True)
            for _ in range(3):
                assert await anext(reader) == fan.Message("topic", "k", b"data")
            with pytest.raises(asyncio.IncompleteReadError):
                await anext(reader)

    run(main())


def test_what_is_no_message_is_refused() -> None:
    async def main() -> None:
        async with wtio.testing.session_pair() as (client, server):
            streams = client.incoming_unidirectional_streams()
            for wrong in (b"\xbf\xff\xff\xff", b"\x01\xff\x00\x00"):
                stream = await server.create_unidirectional_stream()
                await stream.write(data=wrong, end_stream=True)
                reader = fan.MessageReader(await anext(streams), max_bytes=100)
                assert repr(reader).startswith("<MessageReader <WebTransportReceiveStream")
                with pytest.raises(ValueError, match=r"more than 100 bytes|invalid start byte"):
                    await anext(reader)
            stream = await server.create_unidirectional_stream()
            await stream.reset(error_code=5)
            with pytest.raises(wtio.StreamResetError):
                await anext(fan.MessageReader(await anext(streams)))

    run(main())
    for wrong in (b"", b"\x05", b"\x01a\x00\x05xx", b"\x01a\x00\x00more"):
        with pytest.raises(ValueError, match="not a message"):
            fan.decode_message(wrong)
