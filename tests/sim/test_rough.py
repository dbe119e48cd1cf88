"""Whole programs on rough networks: every kind of stream, end and damage at once, chosen by a seed.

Sessions come and go, on a shared connection and on connections of their own; both ends open streams of both kinds,
finish, reset and stop them, and send datagrams, while the network loses, repeats, reorders, corrupts and replays
packets, goes dark, shrinks and gives clients new addresses. Whatever happens, what is read is what was written, every
wait ends, every session ends with the code that somebody gave it, and afterwards all credit is back.

``WTIO_SEEDS=5000`` runs so many seeds, ``WTIO_SEED=1234`` that one; a failure names the line that runs its seed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.credit import Baseline

import wtio
from wtio import testing
from wtio.protocol.codes import ErrorCodes
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

SEEDS = int(os.environ.get("WTIO_SEEDS", "20"))
CHOSEN = os.environ.get("WTIO_SEED")
FIRST = 1
# Virtual seconds that a whole program may take, several times what the slowest one needs.
PATIENCE = 5000.0
# Small, so that credit runs out all the time and has to come back.
LIMITS = wtio.Limits(
    bidirectional_streams=8,
    unidirectional_streams=8,
    stream_receive_window=16 * 1024,
    connection_receive_window=64 * 1024,
    stream_send_buffer=16 * 1024,
    connection_send_buffer=64 * 1024,
)
# No run of bad luck lasts as long, so a connection that ends has an end that somebody gave it.
TIMEOUTS = wtio.Timeouts(connect=1000, idle=1000, close=100)
HEAD = 5
ENDS = ("client", "server", "abort", "leave")


def seeds() -> list[int]:
    return [int(CHOSEN)] if CHOSEN else list(range(FIRST, FIRST + SEEDS))


def content(tag: int, size: int) -> bytes:
    """The bytes of a stream, which every other stream would have otherwise."""
    return random.Random(tag).randbytes(size)


# -- one stream


@dataclass(frozen=True)
class Plan:
    """What becomes of one direction of a stream; its tag says all of it, to both sides."""

    tag: int

    @property
    def size(self) -> int:
        return (0, 1, 700, 5_000, 17_000, 40_000)[self.tag % 6]

    @property
    def end(self) -> str:
        return ("finish", "finish", "finish", "reset", "stop")[self.tag // 6 % 5]

    @property
    def after(self) -> int:
        """Bytes after which a reset or a stop comes."""
        return self.tag // 30 % (self.size + 1)

    @property
    def code(self) -> int:
        return self.tag * 2_654_435_761 % 2**32

    def head(self) -> bytes:
        return self.tag.to_bytes(HEAD, "big")


async def of_the_session(
    session: wtio.WebTransportSession, error: wtio.StreamResetError | wtio.StreamStoppedError
) -> bool:
    """Whether the error only told of the session's end ahead of it, which then has to come."""
    if error.wire_code != ErrorCodes.WT_SESSION_GONE:
        return False
    assert error.error_code is None
    await session.wait_closed()
    return True


async def write(stream: wtio.WebTransportSendStream, plan: Plan, session: wtio.WebTransportSession) -> None:
    """Send what the plan says, behind its head."""
    data = plan.head() + content(plan.tag, plan.size)
    try:
        if plan.end == "reset":
            await stream.write(data=data[: HEAD + plan.after])
            await stream.reset(error_code=plan.code)
            return
        await stream.write(data=data, end_stream=True)
        await stream.wait_acked()
    except wtio.StreamStoppedError as error:
        if await of_the_session(session, error):
            return
        assert (plan.end, plan.code) == ("stop", error.error_code), f"{plan} was stopped: {error}"  # noqa: PT017


async def read(
    stream: wtio.WebTransportReceiveStream, session: wtio.WebTransportSession, plan: Plan | None = None
) -> Plan:
    """Receive a stream, and check that it is what its plan says."""
    got = b""
    # A reset may come before all data, but not before the head of the stream was read here once.
    try:
        while plan is None or len(got) < HEAD + plan.size:
            if plan is None and len(got) >= HEAD:
                plan = Plan(int.from_bytes(got[:HEAD], "big"))
                continue
            if plan is not None and plan.end == "stop" and len(got) >= HEAD + plan.after:
                await stream.stop_receiving(error_code=plan.code)
                break
            piece = await stream.read(max_bytes=4000)
            if not piece:
                break
            got += piece
        else:
            if plan.end != "stop":
                rest = await stream.read()
                assert rest == b"", f"{len(rest)} bytes behind the end"
                assert plan.end == "finish", f"ended, and was to {plan.end}"
    except wtio.StreamResetError as error:
        # The writer's reset may overtake everything but the stream itself.
        if await of_the_session(session, error):
            return Plan(0)
        if len(got) >= HEAD:
            plan = Plan(int.from_bytes(got[:HEAD], "big"))
            assert (plan.end, plan.code) == ("reset", error.error_code), f"{plan} was reset: {error}"  # noqa: PT017
        return Plan(0) if plan is None else plan
    assert plan is not None, f"ended after {len(got)} bytes, within its head"
    expected = plan.head() + content(plan.tag, plan.size)
    assert expected.startswith(got), f"{plan}: {len(got)} bytes that are not what was sent"
    if plan.end == "finish":
        assert len(got) == len(expected), f"{plan}: {len(got)} of {len(expected)} bytes"
    return plan


# -- one end of a session


@dataclass
class Actor:
    """What one side does in a session, until it ends."""

    session: wtio.WebTransportSession
    chance: random.Random
    name: str
    sent: set[bytes] = field(default_factory=set)
    received: list[bytes] = field(default_factory=list)
    busy: dict[str, int] = field(default_factory=dict)

    async def act(self, streams: int) -> None:
        """Open so many streams, one after the other in a few tasks, and send datagrams."""
        plans = [Plan(self.chance.randrange(2**38)) for _ in range(streams)]
        kinds = [self.chance.random() < 0.5 for _ in plans]
        pauses = [self.chance.choice((0, 0, 0.01, 0.3)) for _ in plans]
        lanes = self.chance.randrange(1, 15)
        work = list(zip(plans, kinds, pauses, strict=True))
        async with asyncio.TaskGroup() as tasks:
            for lane in range(lanes):
                tasks.create_task(self.lane(work[lane::lanes]))
            tasks.create_task(self.datagrams(self.chance.randrange(0, 40)))

    async def lane(self, work: list[tuple[Plan, bool, float]]) -> None:
        for plan, bidirectional, pause in work:
            await asyncio.sleep(pause)
            with self.doing(f"{'bidirectional' if bidirectional else 'unidirectional'} {plan.tag}"):
                if bidirectional:
                    stream = await self.session.create_bidirectional_stream()
                    # The answer is another plan, which follows from this one.
                    await asyncio.gather(write(stream, plan, self.session), self.read_answer(stream, plan))
                else:
                    await write(await self.session.create_unidirectional_stream(), plan, self.session)

    async def read_answer(self, stream: wtio.WebTransportStream, plan: Plan) -> None:
        got = await read(stream, self.session)
        assert got.tag in (plan.tag ^ 1, 0), f"{got} answers {plan}"

    async def datagrams(self, count: int) -> None:
        for number in range(count):
            data = f"{self.name} {number} ".encode() + bytes(number * 20)
            self.sent.add(data)
            self.session.send_datagram(data)
            await asyncio.sleep(0.02)

    async def serve(self) -> None:
        """Take everything that the other side opens."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.take_unidirectional(tasks))
            tasks.create_task(self.take_bidirectional(tasks))
            tasks.create_task(self.take_datagrams())

    async def take_unidirectional(self, tasks: asyncio.TaskGroup) -> None:
        async for stream in self.session.incoming_unidirectional_streams():
            tasks.create_task(self.take(stream))

    async def take_bidirectional(self, tasks: asyncio.TaskGroup) -> None:
        async for stream in self.session.incoming_bidirectional_streams():
            tasks.create_task(self.answer(stream))

    async def take_datagrams(self) -> None:
        async for data in self.session.incoming_datagrams():
            self.received.append(data)

    async def take(self, stream: wtio.WebTransportReceiveStream) -> None:
        with self.doing(f"taking {stream.stream_id}"), contextlib.suppress(wtio.SessionClosed):
            await read(stream, self.session)

    async def answer(self, stream: wtio.WebTransportStream) -> None:
        with self.doing(f"answering {stream.stream_id}"), contextlib.suppress(wtio.SessionClosed):
            plan = await read(stream, self.session)
            await write(stream, Plan(plan.tag ^ 1) if plan.tag else Plan(0), self.session)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        self.busy[what] = self.busy.get(what, 0) + 1
        try:
            yield
        except AssertionError as error:
            error.add_note(f"{self.name}: {what}")
            raise
        finally:
            del self.busy[what]


async def until_closed(session: wtio.WebTransportSession, work: Coroutine[Any, Any, None]) -> None:
    """Work that may be cut off by the end of the session."""
    try:
        await work
    except* wtio.SessionClosed:
        assert session.is_closed


# -- a program


class Program:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.network = Network(seed=seed)
        self.actors: list[Actor] = []
        self.connecting = 0
        # A request that a silent connection does not acknowledge is asked on another one, too: several for one path.
        self.accepted: dict[str, list[wtio.WebTransportSession]] = {}
        self.has_accepted = asyncio.Condition()

    def roughen(self) -> None:
        """Choose conditions, each direction's for itself."""
        chance = self.chance
        for direction in (self.network.to_server, self.network.to_client):
            direction.update(
                latency=chance.choice((0.001, 0.01, 0.05)),
                jitter=chance.choice((0, 0.002, 0.03)),
                loss=chance.choice((0, 0.01, 0.05)),
                reorder=chance.choice((0, 0.02, 0.2)),
                duplicate=chance.choice((0, 0.01, 0.1)),
                corrupt=chance.choice((0, 0.01)),
                replay=chance.choice((0, 0.02, 0.2)),
                ecn=chance.choice(("pass", "bleach", "congested")),
                bandwidth=chance.choice((None, None, 100_000)),
            )

    async def weather(self) -> None:
        """Change what changes on the way, until it is cancelled."""
        chance, network = self.chance, self.network
        while True:
            await asyncio.sleep(chance.uniform(0.1, 4))
            match chance.randrange(4):
                case 0:
                    network.blackout(chance.uniform(0, 1), direction=chance.choice(("both", "to_server", "to_client")))
                case 1 if not self.connecting:
                    # Handshakes rely on addresses that stay (RFC 9000, section 9).
                    network.rebind()
                case 2:
                    network.conditions.mtu = chance.choice((1280, 1400, 1500))
                case 3:
                    self.roughen()

    async def handle(self, session: wtio.WebTransportSession) -> None:
        self.accepted.setdefault(session.path, []).append(session)
        async with self.has_accepted:
            self.has_accepted.notify_all()
        await session.wait_closed()

    async def opened(
        self, client: wtio.Client, path: str, *, pooled: bool
    ) -> tuple[wtio.WebTransportSession, wtio.WebTransportSession]:
        self.connecting += 1
        try:
            session = await client.connect(f"https://localhost{path}", allow_pooling=pooled)
            async with self.has_accepted:
                while (far := self.other_end(session)) is None:
                    await self.has_accepted.wait()
            return session, far
        finally:
            self.connecting -= 1

    def other_end(self, session: wtio.WebTransportSession) -> wtio.WebTransportSession | None:
        secret = session.export_keying_material(b"rough", length=16)
        for far in self.accepted.get(session.path, ()):
            if not far.is_closed and far.export_keying_material(b"rough", length=16) == secret:
                return far
        return None

    async def session(self, client: wtio.Client, number: int) -> None:
        chance = random.Random(self.chance.random())
        await asyncio.sleep(chance.uniform(0, 3))
        near, far = await self.opened(client, f"/{number}", pooled=chance.random() < 0.7)
        ours = Actor(near, random.Random(chance.random()), f"client {number}")
        theirs = Actor(far, random.Random(chance.random()), f"server {number}")
        self.actors += [ours, theirs]
        serving = [asyncio.ensure_future(until_closed(actor.session, actor.serve())) for actor in (ours, theirs)]
        acting = [
            asyncio.ensure_future(until_closed(actor.session, actor.act(chance.randrange(0, 25))))
            for actor in (ours, theirs)
        ]
        end, code = chance.choice(ENDS), chance.randrange(2**32)
        if chance.random() < 0.5:
            # In the middle of everything.
            await asyncio.wait(acting, timeout=chance.uniform(0, 3))
        else:
            await asyncio.wait(acting)
        with ours.doing(f"ending by {end}"):
            if end == "abort":
                await chance.choice((near, far)).abort()
            elif end == "leave":
                async with near:
                    code = 0
            else:
                await (near if end == "client" else far).close(code, end)
            infos = [await near.wait_closed(), await far.wait_closed()]
        await asyncio.gather(*acting, *serving)
        if end != "abort":
            assert [info.code for info in infos] == [code, code], infos
            assert {info.closed_by for info in infos} == {"local", "peer"}, infos
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            assert set(receiver.received) <= sender.sent, "a datagram that nobody sent"
            assert len(set(receiver.received)) == len(receiver.received), "a datagram that came twice"

    async def run(self) -> None:
        async with self.running() as client:
            near, far = await self.opened(client, "/keeper", pooled=True)
            baseline = Baseline.of(near, far)
            self.roughen()
            weather = asyncio.ensure_future(self.weather())
            try:
                async with asyncio.TaskGroup() as tasks:
                    for number in range(self.chance.randrange(2, 12)):
                        tasks.create_task(self.session(client, number))
            finally:
                weather.cancel()
            self.network.conditions.update(**asdict(testing.Conditions()))
            await baseline.check()
            await near.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[wtio.Client]:
        async with (
            self.network.serve(self.handle, limits=LIMITS, timeouts=TIMEOUTS),
            self.network.client(limits=LIMITS, timeouts=TIMEOUTS) as client,
        ):
            try:
                async with asyncio.timeout(PATIENCE):
                    yield client
            except TimeoutError:
                waiting = [f"{actor.name}: {', '.join(actor.busy)}" for actor in self.actors if actor.busy]
                raise AssertionError("still waiting: " + ("; ".join(waiting) or "nobody knows for what")) from None


@pytest.mark.parametrize("seed", seeds())
def test_a_program_on_a_rough_network_loses_nothing_and_leaves_nothing(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        testing.run(Program(seed).run())
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert not errors
    except BaseException as error:
        error.add_note(f"again: make pytest WTIO_SEED={seed} ARGS=tests/sim/test_rough.py")
        raise
