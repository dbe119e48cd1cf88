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
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from tests.support.credit import Baseline
from tests.support.lives import ENDS, Actor, until_closed

import wtio
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SEEDS = int(os.environ.get("WTIO_SEEDS", "20"))
CHOSEN = os.environ.get("WTIO_SEED")
FIRST = 1
# Virtual seconds that a whole program may take, several times what the slowest one needs.
PATIENCE = 5000.0
# Small, so that credit runs out all the time and has to come back. The fewer streams, the more exactly Baseline checks.
LIMITS = wtio.Limits(
    bidirectional_streams=4,
    unidirectional_streams=4,
    stream_receive_window=16 * 1024,
    connection_receive_window=64 * 1024,
    stream_send_buffer=16 * 1024,
    connection_send_buffer=64 * 1024,
)
# No run of bad luck lasts as long, so a connection that ends has an end that somebody gave it.
TIMEOUTS = wtio.Timeouts(connect=1000, handshake=1000, idle=1000, close=100)


def seeds() -> list[int]:
    return [int(CHOSEN)] if CHOSEN else list(range(FIRST, FIRST + SEEDS))


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
                waiting = [f"{actor.name}: {actor.doings()}" for actor in self.actors if actor.busy]
                raise AssertionError("still waiting: " + ("; ".join(waiting) or "nobody knows for what")) from None


@pytest.mark.unmeasured
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
