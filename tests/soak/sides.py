"""The two programs of the soak: a server, and a client with many sessions that come and go.

Each is told what to do by lines on its input, and answers each with a line of JSON. What a session does, and how it
ends, follows from its number, which both sides know from its path.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import random
import re
import resource
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support import credit
from tests.support.lives import ENDS, Actor, until_closed

import wtio

if TYPE_CHECKING:
    from collections.abc import Callable

    from wtio.client import Connector

LIMITS: Final = wtio.Limits(
    bidirectional_streams=64,
    unidirectional_streams=64,
    stream_receive_window=32 * 1024,
    connection_receive_window=512 * 1024,
    stream_send_buffer=16 * 1024,
    connection_send_buffer=512 * 1024,
)
# A busy machine is no reason to fail.
TIMEOUTS: Final = wtio.Timeouts(connect=60, idle=60, close=30)
# Seconds that a session lasts.
SHORTEST: Final = 1.0
LONGEST: Final = 10.0
# Seconds for all that was ended to be over: longer than any timeout.
PATIENCE: Final = 120.0


class Plan:
    """What becomes of a session, by its number."""

    def __init__(self, number: int) -> None:
        chance = random.Random(number)
        self.seconds = chance.uniform(SHORTEST, LONGEST)
        self.is_cut_short = chance.random() < 0.5
        self.end = chance.choice(ENDS)
        self.aborts = chance.choice(("client", "server"))
        self.code = 0 if self.end == "leave" else chance.randrange(2**32)
        self.streams = {"client": chance.randrange(10), "server": chance.randrange(10)}


class Side:
    """What server and client have in common: sessions, figures, and a list of what went wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.sessions = 0
        self.live = 0
        self.streams = 0
        self.keeper: wtio.WebTransportSession | None = None
        self.figures_before: dict[str, int] = {}
        handler = logging.Handler(logging.WARNING)
        handler.emit = self.logged  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)

    def logged(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.fail(f"log of {record.name}: {first_line(record.getMessage())} {describe(error)}")

    def fail(self, what: str) -> None:
        """Count a failure of its kind, which is known by its words without their numbers."""
        print(f"{time.time():.3f} {self.name}: {what}", file=sys.stderr, flush=True)
        kind = re.sub(r"\d+", "…", what)
        self.failures[kind] += 1
        self.examples.setdefault(kind, what)

    def keep(self, session: wtio.WebTransportSession) -> None:
        self.keeper = session
        self.figures_before = credit.engine_figures(session._core)

    async def live_session(self, session: wtio.WebTransportSession, number: int) -> None:
        """Do what this side does in a session, up to its end."""
        self.live += 1
        try:
            await self.follow_plan(session, Plan(number))
        except Exception as error:
            if not self.is_void(number):
                self.fail(f"session {number}: {describe(error)}")
            await session.abort()
        finally:
            self.live -= 1
            self.sessions += 1

    def is_void(self, number: int) -> bool:
        """Whether it may be that nobody has this session at the other side."""
        return False

    async def follow_plan(self, session: wtio.WebTransportSession, plan: Plan) -> None:
        actor = Actor(session, random.Random(), self.name)
        serving = asyncio.ensure_future(until_closed(session, actor.serve()))
        acting = asyncio.ensure_future(until_closed(session, actor.act(plan.streams[self.name])))
        tasks = {serving, acting}
        try:
            done, _ = await asyncio.wait(tasks, timeout=plan.seconds, return_when=asyncio.FIRST_EXCEPTION)
            if not plan.is_cut_short and acting not in done:
                # The other side may end the session all the same.
                await asyncio.wait(tasks, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                assert any(task.done() for task in tasks), f"still busy with {actor.doings()}"
            for task in tasks:
                if task.done():
                    task.result()
            await self.end(session, plan)
            try:
                info = await asyncio.wait_for(session.wait_closed(), 2 * PATIENCE)
            except TimeoutError:
                raise AssertionError(f"never ended by {plan.end}, busy with {actor.doings()}") from None
            await asyncio.gather(serving, acting)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self.streams += plan.streams[self.name]
        if plan.end != "abort":
            assert info.code == plan.code, f"{info}, where {plan.end} said {plan.code}"
            assert info.closed_by in ("local", "peer"), f"the session ended with {info}"

    async def end(self, session: wtio.WebTransportSession, plan: Plan) -> None:
        match plan.end:
            case "abort":
                if plan.aborts == self.name:
                    await session.abort()
            case "leave":
                if session.is_client:
                    async with session:
                        pass
            case side:
                if side == self.name:
                    await session.close(plan.code, side)

    # -- what the test asks for

    def figures(self) -> dict[str, int | float | str]:
        """How things stand."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "side": self.name,
            "rss": resident(),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "threads": len(list(Path("/proc/self/task").iterdir())),
            "python_threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
            "live": self.live,
            "sessions": self.sessions,
            "streams": self.streams,
            "connections": self.connections(),
            "processor": usage.ru_utime + usage.ru_stime,
            "failures": sum(self.failures.values()),
        }

    def connections(self) -> int:
        raise NotImplementedError

    async def quiet(self) -> None:
        """Wait until nothing but the keeper's session is left, and then for the credit that it saw at first."""
        async with asyncio.timeout(3 * PATIENCE):
            while self.live:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert self.keeper is not None, "nothing was kept"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while credit.engine_figures(self.keeper._core) != self.figures_before:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        figures = credit.engine_figures(self.keeper._core)
        assert figures == self.figures_before, f"{figures}, which were {self.figures_before} at first"

    async def credit(self, step: str) -> None:
        assert self.keeper is not None, "nothing was kept"
        match step:
            case "open_all":
                await credit.open_all(self.keeper, LIMITS)
            case "take_all":
                await credit.take_all(self.keeper)
            case "fill":
                await credit.fill(self.keeper, LIMITS)
            case "empty":
                await credit.empty(self.keeper)

    async def obey(self) -> None:
        """Read what to do, and do it, up to the end of the input."""
        # One thread of the loop's executor looks at certificates, minutes later. It is not one that was left behind.
        await asyncio.to_thread(int)
        commands = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(commands)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := (await commands.readline()).decode():
            answer: object = None
            try:
                match line.split():
                    case ["figures"]:
                        answer = self.figures()
                    case ["failures"]:
                        answer = [f"{count} x {self.examples[kind]}" for kind, count in self.failures.most_common(20)]
                    case ["collect"]:
                        answer = gc.collect()
                    case ["quiet"]:
                        await self.quiet()
                    case ["credit", step]:
                        await self.credit(step)
                    case words:
                        await self.do(*words)
                print(json.dumps({"answer": answer}), flush=True)
            except Exception as error:
                print(json.dumps({"error": describe(error)}), flush=True)

    async def do(self, word: str, *values: str) -> None:
        raise AssertionError(f"{self.name} does not know {word}")


class Server(Side):
    def __init__(self) -> None:
        super().__init__("server")
        self.server: wtio.Server | None = None
        # A pooled request that is not acknowledged is asked again on another connection: a session may come twice.
        self.numbers: deque[int] = deque(maxlen=5000)

    async def handle(self, session: wtio.WebTransportSession) -> None:
        word = session.path.removeprefix("/")
        if word == "keeper":
            self.keep(session)
            await session.wait_closed()
        else:
            self.numbers.append(int(word))
            await self.live_session(session, int(word))

    def is_void(self, number: int) -> bool:
        return self.numbers.count(number) > 1

    def connections(self) -> int:
        assert self.server is not None, "nothing is served"
        return len(self.server._service.connections)

    async def run(self, directory: str) -> None:
        tls = wtio.dev_certificate(directory=directory).server_tls()
        async with wtio.serve(self.handle, "127.0.0.1", 0, tls=tls, limits=LIMITS, timeouts=TIMEOUTS) as self.server:
            print(self.server.addresses[0][1], flush=True)
            await self.obey()


class Client(Side):
    def __init__(self) -> None:
        super().__init__("client")
        self.numbers = iter(range(10**9))
        self.slots: list[asyncio.Task[None]] = []
        self.stopping = asyncio.Event()

    async def slot(self, connect: Callable[[int], Connector]) -> None:
        """One session after the other, until it is enough."""
        # Not all at once.
        await asyncio.sleep(random.uniform(0, SHORTEST))
        while not self.stopping.is_set():
            number = next(self.numbers)
            try:
                session = await connect(number)
            except Exception as error:
                plan = Plan(number)
                # The server may have aborted the session before its answer was here.
                if not (isinstance(error, wtio.ConnectError) and plan.end == "abort" and plan.aborts == "server"):
                    self.fail(f"session {number} is not connected: {describe(error)}")
                await asyncio.sleep(1)
            else:
                await self.live_session(session, number)

    def connections(self) -> int:
        return self.client.connections

    async def do(self, word: str, *values: str) -> None:
        match word:
            case "keep":
                self.keep(await self.client.connect(f"{self.url}/keeper", allow_pooling=True))
            case "start":
                ways = (self.pooled, self.pooled, self.shared, self.alone)
                for number in range(int(values[0])):
                    self.slots.append(asyncio.ensure_future(self.slot(ways[number % len(ways)])))
            case "stop":
                self.stopping.set()
                await asyncio.gather(*self.slots)
                self.slots.clear()
                self.stopping.clear()
            case "leave":
                assert self.keeper is not None, "nothing was kept"
                await self.keeper.close()

    # A connection for many sessions, connections that share a socket, and one of each for itself.

    def pooled(self, number: int) -> Connector:
        return self.client.connect(f"{self.url}/{number}", allow_pooling=True)

    def shared(self, number: int) -> Connector:
        return self.client.connect(f"{self.url}/{number}")

    def alone(self, number: int) -> Connector:
        return wtio.connect(f"{self.url}/{number}", tls=self.tls, limits=LIMITS, timeouts=TIMEOUTS)

    async def run(self, port: int) -> None:
        self.url = f"https://127.0.0.1:{port}"
        # A certificate that is known by its hash does not go with shared connections.
        self.tls = wtio.ClientTLS(dangerously_trust_any_certificate=True)
        async with wtio.Client(tls=self.tls, limits=LIMITS, timeouts=TIMEOUTS) as self.client:
            await self.obey()


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def first_line(text: str) -> str:
    return text.split("\n")[0]


def describe(error: BaseException | None) -> str:
    """One line: what went wrong, and where."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(part) for part in error.exceptions[:3])
    if error is None:
        return ""
    notes = ", ".join(getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {first_line(str(error))}" + (f" ({notes})" if notes else "")


if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(Server().run(sys.argv[2]))
    else:
        asyncio.run(Client().run(int(sys.argv[2])))
