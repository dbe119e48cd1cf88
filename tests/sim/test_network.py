"""The simulated network itself: what it does to packets, what sessions make of that, and what the counts say."""

from __future__ import annotations

import asyncio
import errno
import random
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio import testing
from wtio._driver import simulated
from wtio.testing import Network, session_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

SIZE = 100_000
CONTENT = bytes(range(256)) * (SIZE // 256)
DIRECTIONS = ("to_server", "to_client")
VANISHED = ("lost", "too_large", "blacked_out", "overflowed", "ecn_dropped", "unreachable")


def run(main: Coroutine[Any, Any, None]) -> None:
    testing.run(asyncio.wait_for(main, 600))


def now() -> float:
    return asyncio.get_running_loop().time()


async def write_until_stopped(stream: wtio.WebTransportSendStream) -> None:
    while True:
        await stream.write(data=b"x")
        await asyncio.sleep(0.01)


async def exchange(client: wtio.WebTransportSession, server: wtio.WebTransportSession) -> None:
    """Streams of both kinds from both ends, a reset, a stop and datagrams: everything comes to its end."""

    async def send(session: wtio.WebTransportSession) -> None:
        stream = await session.create_unidirectional_stream()
        await stream.write(data=CONTENT, end_stream=True)
        await stream.wait_acked()

    async def receive(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_unidirectional_streams())
        assert await stream.read_all() == CONTENT

    await asyncio.gather(send(client), receive(server), send(server), receive(client))
    echo = await client.create_bidirectional_stream()
    await echo.write(data=b"first")
    answer = await anext(server.incoming_bidirectional_streams())
    assert await answer.readexactly(n=5) == b"first"
    await echo.close(error_code=7)
    with pytest.raises(wtio.StreamResetError) as reset:
        await answer.read()
    assert reset.value.error_code == 7
    with pytest.raises(wtio.StreamStoppedError) as stopped:
        await write_until_stopped(answer)
    assert stopped.value.error_code == 7
    # Datagrams may get lost, but not all of them.
    got = asyncio.ensure_future(server.receive_datagram())
    for _ in range(500):
        client.send_datagram(b"d")
        await asyncio.sleep(0.05)
        if got.done():
            break
    assert got.result() == b"d"


def assert_every_packet_is_accounted_for(network: Network) -> None:
    counts = network.counts
    vanished = sum(getattr(counts, name) for name in VANISHED)
    assert counts.sent + counts.duplicated + counts.replayed == counts.delivered + vanished + counts.in_flight
    for name in counts.__slots__:
        assert getattr(counts, name) == sum(getattr(getattr(network, way).counts, name) for way in DIRECTIONS), name


SURVIVED: dict[str, dict[str, Any]] = {
    "lost": {"loss": 0.1},
    "duplicated": {"duplicate": 0.3},
    "reordered": {"reorder": 0.3},
    "corrupted": {"corrupt": 0.1},
    "replayed": {"replay": 0.3},
    "ecn_bleached": {"ecn": "bleach"},
    "ecn_congested": {"ecn": "congested"},
    "overflowed": {"bandwidth": 30_000, "queue": 0.1},
    "too_large": {"mtu": 1300},
}


@pytest.mark.parametrize("direction", ["both", *DIRECTIONS])
@pytest.mark.parametrize("count", SURVIVED)
@pytest.mark.unmeasured
def test_a_session_survives_and_the_counts_say_what_it_survived(count: str, direction: str) -> None:
    async def main() -> None:
        network = Network(seed=3)
        conditions = network.conditions if direction == "both" else getattr(network, direction)
        conditions.update(**SURVIVED[count])
        async with session_pair(network) as (client, server):
            await exchange(client, server)
        touched = {way for way in DIRECTIONS if getattr(getattr(network, way).counts, count)}
        assert touched == (set(DIRECTIONS) if direction == "both" else {direction})
        others = set(SURVIVED) - {count}
        assert all(getattr(network.counts, other) == 0 for other in others)
        assert_every_packet_is_accounted_for(network)

    run(main())


@pytest.mark.parametrize("seed", range(4))
def test_a_session_survives_everything_at_once(seed: int) -> None:
    async def main() -> None:
        network = Network(
            seed=seed, jitter=0.01, loss=0.03, reorder=0.05, duplicate=0.05, corrupt=0.02, replay=0.05, ecn="bleach"
        )
        async with session_pair(network) as (client, server):
            for step in range(1, 4):
                network.after(step * 0.3, network.rebind)
                network.after(step * 0.4, network.blackout, 0.2)
            network.after(0.5, network.conditions.update, mtu=1280)
            # Until all of that has come.
            end = asyncio.get_running_loop().time() + 2
            while asyncio.get_running_loop().time() < end:
                await exchange(client, server)
        assert network.counts.blacked_out
        assert_every_packet_is_accounted_for(network)

    run(main())


def test_the_same_seed_does_the_same_damage() -> None:
    async def fates() -> list[tuple[int, ...]]:
        network = Network(seed=5, loss=0.2, corrupt=0.3, replay=0.3)
        for number in range(200):
            network._wire.send(("10.0.0.1", 1), ("10.0.0.2", 2), bytes(number + 1), 0)
        return [tuple(getattr(network.counts, name) for name in network.counts.__slots__)]

    first = testing.run(fates())
    assert first == testing.run(fates())


def test_damage_does_not_change_which_packets_are_lost() -> None:
    async def losses(**more: Any) -> list[bool]:
        network = Network(seed=5, loss=0.5, **more)
        fates = []
        for _ in range(200):
            before = network.counts.lost
            network._wire.send(("10.0.0.1", 1), ("10.0.0.2", 2), b"x", 1)
            fates.append(network.counts.lost > before)
        return fates

    assert testing.run(losses()) == testing.run(losses(corrupt=0.5, replay=0.5, duplicate=0.5, ecn="bleach"))


# -- directions


def test_conditions_set_both_directions_and_each_can_differ() -> None:
    network = Network(loss=0.1, mtu=1400)
    assert network.to_server.loss == network.to_client.loss == network.conditions.loss == 0.1
    network.to_client.loss = 0.5
    assert (network.to_server.loss, network.to_client.loss) == (0.1, 0.5)
    network.conditions.loss = 0
    assert network.to_server.loss == network.to_client.loss == 0
    network.to_server.update(latency=0.3, ecn="drop")
    assert (network.to_client.latency, network.to_client.ecn) == (0.01, "pass")
    assert network.to_server.mtu == network.to_client.mtu == 1400


def test_each_direction_has_its_own_latency() -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network) as (client, server):
            await asyncio.sleep(1)
            network.to_server.latency, network.to_client.latency = 0.3, 0.07
            for sender, receiver, latency in ((client, server, 0.3), (server, client, 0.07)):
                before = now()
                sender.send_datagram(b"x")
                await receiver.receive_datagram()
                assert now() - before == pytest.approx(latency, abs=1e-6)

    run(main())


# -- blackouts


def test_a_session_survives_a_blackout_shorter_than_its_idle_timeout() -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network, timeouts=wtio.Timeouts(idle=30)) as (client, server):
            network.blackout(10)
            before = now()
            stream = await client.create_unidirectional_stream()
            await stream.write(data=CONTENT, end_stream=True)
            assert await (await anext(server.incoming_unidirectional_streams())).read_all() == CONTENT
            assert now() - before > 10
            assert network.counts.blacked_out > 0
            assert network.counts.lost == 0

    run(main())


@pytest.mark.parametrize("direction", ["both", *DIRECTIONS])
@pytest.mark.unaudited("its connection is lost, or ends where nothing passes")
def test_a_session_ends_in_a_blackout_longer_than_its_idle_timeout(direction: str) -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network, timeouts=wtio.Timeouts(idle=5)) as (client, server):
            client_end, server_end = asyncio.ensure_future(client.wait_closed()), server.wait_closed()
            await asyncio.sleep(1)
            network.blackout(60, direction=direction)
            before = now()
            await asyncio.gather(client_end, server_end, return_exceptions=True)
            # RFC 9000, section 10.1: after the timeout, or three probes of it where that is longer.
            assert 5 <= now() - before < 30
        for way in DIRECTIONS:
            assert bool(getattr(network, way).counts.blacked_out) == (direction in ("both", way))

    run(main())


def test_the_longer_of_two_blackouts_holds_and_each_has_its_direction() -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network) as (client, server):
            network.blackout(3)
            network.blackout(1)
            network.blackout(5, direction="to_client")
            before = now()

            async def first(sender: wtio.WebTransportSession, receiver: wtio.WebTransportSession) -> float:
                received = asyncio.ensure_future(receiver.receive_datagram())
                while not received.done():
                    sender.send_datagram(b"x")
                    await asyncio.sleep(0.1)
                return now() - before

            up, down = await asyncio.gather(first(client, server), first(server, client))
            assert 3 <= up < 4
            assert 5 <= down < 6

    run(main())


# -- NAT


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_session_survives_that_a_nat_gives_its_client_another_port(host: str) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as listening:
            connecting = asyncio.ensure_future(asyncio.wait_for(network.connect(f"https://{host}/"), 10))
            server = await (await anext(listening)).accept()
            async with await connecting as client:
                await exchange(client, server)
                for _ in range(3):
                    before = server.remote_address
                    moved = network.rebind(before)
                    assert list(moved) == [before]
                    assert moved[before][0] == before[0]
                    await exchange(client, server)
                    assert server.remote_address == moved[before]
                assert_every_packet_is_accounted_for(network)

    run(main())


def test_a_client_may_come_from_another_host_too() -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network) as (client, server):
            [new] = network.rebind(ip="2001:db8::7").values()
            assert new[0] == "2001:db8::7"
            await exchange(client, server)
            assert server.remote_address == new
            with pytest.raises(ValueError, match="IPv4"):
                network.rebind(ip="192.0.2.1")
            with pytest.raises(ValueError, match="300"):
                network.rebind(ip="192.0.2.300")
            with pytest.raises(ValueError, match=r"192\.0\.2\.1 port 5.*2001:db8::7"):
                network.rebind(("192.0.2.1", 5))

    run(main())


def test_what_a_server_sends_to_the_old_address_is_lost_and_sent_again() -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network) as (client, server):
            stream = await server.create_unidirectional_stream()
            writing = asyncio.ensure_future(stream.write(data=CONTENT * 20, end_stream=True))
            reader = await anext(client.incoming_unidirectional_streams())
            await asyncio.sleep(0.05)
            network.rebind()
            assert len(await reader.readexactly(n=len(CONTENT) * 20)) == len(CONTENT) * 20
            await writing
            assert network.to_client.counts.unreachable > 0
            assert_every_packet_is_accounted_for(network)

    run(main())


def test_rebinding_one_client_leaves_the_others_where_they_are() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server:
            sessions = []
            for _ in range(3):
                connecting = asyncio.ensure_future(asyncio.wait_for(network.connect(), 10))
                accepted = await (await anext(server)).accept()
                sessions.append((await connecting, accepted))
            places = [accepted.remote_address for _, accepted in sessions]
            network.rebind(places[1])
            for client, accepted in sessions:
                await exchange(client, accepted)
            moved = [before != accepted.remote_address for before, (_, accepted) in zip(places, sessions, strict=True)]
            assert moved == [False, True, False]
            assert len(network.rebind()) == 3
            for client, accepted in sessions:
                await exchange(client, accepted)
                await client.close()
            # Clients that are gone are forgotten.
            await asyncio.sleep(5)
            assert network.rebind() == {}

    run(main())


# -- sizes, ECN, queues


def test_a_session_survives_that_its_path_carries_less() -> None:
    async def main() -> None:
        network = Network()
        async with session_pair(network) as (client, server):
            await exchange(client, server)
            await asyncio.sleep(5)
            assert client._core.stats().mtu > 1280
            network.conditions.mtu = 1280
            await exchange(client, server)
            assert network.counts.too_large > 0
            assert client._core.stats().mtu <= 1280 - 48

    run(main())


def test_nothing_connects_where_the_path_carries_less_than_quic_asks_for() -> None:
    async def main() -> None:
        # RFC 9000, section 14: a path must carry UDP payloads of 1200 bytes; IPv6 and UDP have headers of 48.
        network = Network(mtu=1200 + 47)
        network.add_host("six", "::1")
        with pytest.raises(wtio.ConnectError):
            async with network.serve():
                await network.connect("https://six/", timeouts=wtio.Timeouts(connect=5))
        assert network.counts.too_large == network.counts.sent > 0

    run(main())


def test_a_path_that_drops_marked_packets_drops_these_alone() -> None:
    async def main() -> None:
        network = Network(ecn="drop")
        loop = asyncio.get_running_loop()
        wire = network._wire
        for mark in (0, 1, 2, 3):
            wire.send(("10.0.0.1", 1), ("10.0.0.2", 2), b"x", mark)
        assert (network.counts.ecn_dropped, network.counts.in_flight) == (3, 1)
        assert loop.time() == now()

    run(main())


@pytest.mark.parametrize(("ecn", "arrives"), [("pass", [0, 1, 2, 3]), ("bleach", [0] * 4), ("congested", [0, 3, 3, 3])])
def test_ecn_marks_arrive_as_the_path_leaves_them(ecn: str, arrives: list[int]) -> None:
    async def main() -> None:
        network = Network(ecn=ecn)
        async with network.serve() as _:
            [driver] = {id(one): one for one in network._wire._drivers.values()}.values()
            seen = []
            driver.receive = lambda data, source, destination, ecn: seen.append(ecn)  # type: ignore[method-assign]
            for mark in (0, 1, 2, 3):
                network._wire.send(("::1", 1), ("::1", 443), b"x", mark)
            await asyncio.sleep(1)
            assert seen == arrives

    run(main())


def test_a_queue_of_its_own_length_bounds_how_late_a_packet_is() -> None:
    async def main() -> None:
        network = Network(bandwidth=10_000, queue=1.05, latency=0)
        arrivals = []
        async with network.serve():
            [driver] = {id(one): one for one in network._wire._drivers.values()}.values()
            driver.receive = lambda *_: arrivals.append(now())  # type: ignore[method-assign]
            before = now()
            for _ in range(100):
                network._wire.send(("::1", 1), ("::1", 443), bytes(1000 - 48), 0)
            await asyncio.sleep(100)
        # A packet takes a tenth of a second: one is under way, ten wait, and those behind them find the queue full.
        assert len(arrivals) == 11
        assert arrivals[-1] - before == pytest.approx(1.1)
        assert network.counts.overflowed == 89

    run(main())


# -- replays


def test_a_replay_is_a_packet_that_was_there_before_of_any_age() -> None:
    async def main() -> None:
        network = Network(seed=1, replay=0.5, latency=0.001)
        seen: list[bytes] = []
        async with network.serve():
            [driver] = {id(one): one for one in network._wire._drivers.values()}.values()
            driver.receive = lambda data, *_: seen.append(data)  # type: ignore[method-assign]
            for number in range(3000):
                network._wire.send(("::1", 1), ("::1", 443), number.to_bytes(2, "big"), 0)
                await asyncio.sleep(0.1)
        ages = []
        newest = -1
        for data in seen:
            number = int.from_bytes(data, "big")
            if number == newest + 1:
                newest = number
            else:
                ages.append(newest - number)
        assert len(ages) == network.counts.replayed
        assert 1300 < len(ages) < 1700
        assert min(ages) >= 0
        assert max(ages) > 1500

    run(main())


def test_corruption_flips_one_bit() -> None:
    async def main() -> None:
        network = Network(seed=1, corrupt=1)
        seen: list[bytes] = []
        async with network.serve():
            [driver] = {id(one): one for one in network._wire._drivers.values()}.values()
            driver.receive = lambda data, *_: seen.append(data)  # type: ignore[method-assign]
            for _ in range(1000):
                network._wire.send(("::1", 1), ("::1", 443), bytes(100), 0)
            network._wire.send(("::1", 1), ("::1", 443), b"", 0)
            await asyncio.sleep(1)
        assert seen.pop() == b""
        bits = {int.from_bytes(data, "big") for data in seen}
        assert all(bit.bit_count() == 1 for bit in bits)
        assert len(bits) > 500
        assert network.counts.corrupted == 1000

    run(main())


# -- schedules and arguments


def test_calls_for_later_come_at_their_virtual_time_and_can_be_taken_back() -> None:
    async def main() -> None:
        network = Network()
        before = now()
        calls: list[tuple[float, object]] = []
        network.after(5, lambda: calls.append((now() - before, "five")))
        network.after(2, calls.append, (2, "two"))
        network.after(3, network.conditions.update, loss=0.25)
        network.after(4, calls.append, (0, "never")).cancel()
        await asyncio.sleep(6)
        assert calls == [(2, "two"), (5, "five")]
        assert network.to_server.loss == network.to_client.loss == 0.25

    run(main())


REFUSED: list[tuple[type[Exception], str, Callable[[Network], object]]] = [
    (ValueError, "loss is 50", lambda network: Network(loss=50)),
    (ValueError, "corrupt is -0.1", lambda network: network.conditions.update(corrupt=-0.1)),
    (ValueError, "replay is nan", lambda network: network.to_client.update(replay=float("nan"))),
    (TypeError, "loss must be a number", lambda network: Network(loss="0.1")),  # type: ignore[arg-type]
    (TypeError, "duplicate must be a number", lambda network: Network(duplicate=True)),
    (ValueError, "latency is inf", lambda network: Network(latency=float("inf"))),
    (ValueError, "jitter is -1", lambda network: Network(jitter=-1)),
    (ValueError, "bandwidth is 0", lambda network: Network(bandwidth=0)),
    (TypeError, "bandwidth must be a number or None", lambda network: Network(bandwidth="1M")),  # type: ignore[arg-type]
    (TypeError, "queue must be a number", lambda network: Network(queue=None)),  # type: ignore[arg-type]
    (TypeError, "mtu must be an int", lambda network: Network(mtu=1500.0)),  # type: ignore[arg-type]
    (ValueError, "mtu is -1", lambda network: Network(mtu=-1)),
    (ValueError, "ecn is 'clear'.*'bleach'", lambda network: Network(ecn="clear")),
    (TypeError, "ecn must be a str", lambda network: Network(ecn=True)),  # type: ignore[arg-type]
    (TypeError, "seed must be an int", lambda network: Network(seed="x")),  # type: ignore[arg-type]
    (TypeError, "blackout must be True or False", lambda network: network.conditions.update(blackout=3)),
    (AttributeError, "no condition 'los'.*loss", lambda network: setattr(network.conditions, "los", 0.1)),
    (AttributeError, "no condition 'los'", lambda network: setattr(network.to_server, "los", 0.1)),
    (TypeError, "no condition 'rate'", lambda network: network.conditions.update(rate=5)),
    (TypeError, "seconds must be a number", lambda network: network.blackout("3")),  # type: ignore[arg-type]
    (ValueError, "seconds is -1", lambda network: network.blackout(-1)),
    (ValueError, "direction is 'up'.*'to_server'", lambda network: network.blackout(1, direction="up")),
    (ValueError, "seconds is inf", lambda network: network.after(float("inf"), print)),
]


@pytest.mark.parametrize(("error", "words", "call"), REFUSED, ids=[words for _, words, _ in REFUSED])
def test_values_that_mean_nothing_are_refused_in_words(
    error: type[Exception], words: str, call: Callable[[Network], object]
) -> None:
    async def main() -> None:
        network = Network()
        with pytest.raises(error, match=words):
            call(network)
        assert network.to_server == testing.Direction()

    run(main())


def test_an_update_with_one_wrong_value_changes_nothing() -> None:
    network = Network()
    with pytest.raises(ValueError, match="loss"):
        network.conditions.update(latency=0.5, loss=7)
    assert network.conditions.latency == network.to_client.latency == 0.01


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_session_goes_without_marks_where_marked_packets_are_dropped(direction: str) -> None:
    async def main() -> None:
        network = Network()
        getattr(network, direction).ecn = "drop"
        async with session_pair(network) as (client, server):
            await exchange(client, server)
        # And one that meets such a path later (RFC 9000, section 13.4.2).
        network = Network()
        async with session_pair(network) as (client, server):
            await exchange(client, server)
            getattr(network, direction).ecn = "drop"
            await exchange(client, server)

    run(main())


# -- a path that carries less, and a client that moves


@pytest.mark.parametrize("latency", [0.001, 0.05])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.unmeasured
def test_what_is_sent_goes_on_when_the_path_begins_to_carry_less(seed: int, latency: float) -> None:
    async def main() -> None:
        chance = random.Random(seed)
        network = Network(seed=seed, latency=latency, bandwidth=1_250_000)
        async with session_pair(network) as (client, server):
            await send(client, server, 300_000)
            await asyncio.sleep(2)
            assert client.stats().mtu > 1400
            network.conditions.mtu = 1300
            # Only what is sent after a timeout is small, so that it arrives.
            for size in (chance.randrange(5_000, 80_000), 1_000_000):
                began = asyncio.get_running_loop().time()
                await send(client, server, size)
                assert asyncio.get_running_loop().time() - began < size / 1_000_000 + 3
            assert client.stats().mtu < 1300

    run(main())


@pytest.mark.parametrize(("speaks", "most"), [(False, 10), (True, 1)])
def test_a_server_goes_on_although_its_first_packets_to_a_new_address_are_lost(speaks: bool, most: float) -> None:
    # To an address that is not validated it may send three times what came from there, and all of that is lost.
    async def main() -> None:
        network = Network(latency=0.01)
        async with session_pair(network) as (client, server):
            await send(server, client, 100_000)
            network.conditions.blackout = True
            sending = asyncio.ensure_future(send(server, client, 20_000))
            await asyncio.sleep(1)
            network.to_server.blackout = False
            network.rebind()
            client.send_datagram(b"here")
            await asyncio.sleep(0.021)
            network.to_client.blackout = False
            began = asyncio.get_running_loop().time()
            while not sending.done():
                await asyncio.sleep(0.05)
                if speaks:
                    client.send_datagram(bytes(50))
            await sending
            assert asyncio.get_running_loop().time() - began < most

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_client_is_found_at_a_new_address_where_the_path_carries_less(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    # The client's packet from there also acknowledges something: the server's timer for losses, set for the old path,
    # is overdue then. In a debug build the core panics if it runs before anything is sent on the new one.
    async def main() -> None:
        network = Network(latency=0.02)
        async with network.serve() as listening:
            connecting = asyncio.ensure_future(asyncio.wait_for(network.connect(f"https://{host}/"), 10))
            server = await (await anext(listening)).accept()
            async with await connecting as client:
                await send(server, client, 300_000)
                await asyncio.sleep(2)
                assert server.stats().mtu > 1400
                network.conditions.blackout = True
                sending = asyncio.ensure_future(send(server, client, 20_000))
                await asyncio.sleep(8)
                network.conditions.update(blackout=False, mtu=1280)
                network.rebind()
                client.send_datagram(b"here")
                began = now()
                await sending
                assert now() - began < 5

    run(main())
    assert not caplog.records


async def send(near: wtio.WebTransportSession, far: wtio.WebTransportSession, size: int) -> None:
    """Let so many bytes arrive."""
    stream = await near.create_unidirectional_stream()
    writing = asyncio.ensure_future(stream.write_all(data=bytes(size), end_stream=True))
    assert len(await (await anext(far.incoming_unidirectional_streams())).read_all()) == size
    await writing


@pytest.mark.parametrize("number", [errno.EADDRINUSE, 10013], ids=["EADDRINUSE", "WSAEACCES"])
def test_port_0_is_another_port_when_somebody_has_the_first_at_a_later_address(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows says WSAEACCES if the other one has the port exclusively.
    bind, tried = simulated.Wire.bind, []

    def bind_late(wire: simulated.Wire, driver: simulated.SimulatedDriver, ip: str, port: int) -> tuple[str, int]:
        tried.append((ip, port))
        if len(tried) == 2:
            raise OSError(number, "somebody has it")
        return bind(wire, driver, ip, port)

    monkeypatch.setattr(simulated.Wire, "bind", bind_late)

    async def main() -> None:
        network, tls = Network(), wtio.dev_certificate()
        async with network.serve(None, ["127.0.0.1", "::1"], 0, tls=tls.server_tls()) as server:
            (_, first), (_, second) = server.addresses
            assert first == second
            assert [port for _, port in tried] == [0, tried[1][1], 0, first]
            assert tried[1][1] != first

    run(main())
