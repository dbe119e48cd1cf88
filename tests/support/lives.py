"""What one end of a session does, for whole programs: streams of every kind and end, and datagrams.

Both sides know what becomes of a stream by its tag, its first bytes, and so they notice whatever is lost, repeated,
mixed up, or ended otherwise than by its plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import wtio
from wtio.protocol.codes import ErrorCodes

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    Stream = wtio.WebTransportSendStream | wtio.WebTransportReceiveStream

HEAD = 5
ENDS = ("client", "server", "abort", "leave")


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
        return ("finish", "finish", "finish", "reset", "stop", "let go", "ignore")[self.tag // 6 % 7]

    @property
    def after(self) -> int:
        """Bytes after which one side gives up."""
        return self.tag // 42 % (self.size + 1)

    @property
    def code(self) -> int:
        """The code that comes with a reset or a stop; 0 where a side only drops its stream."""
        return 0 if self.end in ("let go", "ignore") else self.tag * 2_654_435_761 % 2**32

    def head(self) -> bytes:
        return self.tag.to_bytes(HEAD, "big")


async def of_the_session(
    session: wtio.WebTransportSession, error: wtio.StreamResetError | wtio.StreamStoppedError
) -> bool:
    """Whether the error was only the first sign of the session's end, which then has to come."""
    if error.wire_code != ErrorCodes.WT_SESSION_GONE:
        return False
    assert error.error_code is None
    await session.wait_closed()
    return True


async def write(stream: wtio.WebTransportSendStream, plan: Plan, session: wtio.WebTransportSession) -> None:
    """Send what the plan says, behind its head."""
    data = plan.head() + content(plan.tag, plan.size)
    try:
        if plan.end in ("reset", "let go"):
            await stream.write(data=data[: HEAD + plan.after])
            if plan.end == "reset":
                await stream.reset(error_code=plan.code)
            return
        await stream.write(data=data, end_stream=True)
        await stream.wait_acked()
    except wtio.StreamStoppedError as error:
        if await of_the_session(session, error):
            return
        assert plan.end in ("stop", "ignore"), f"{plan} was stopped: {error}"  # noqa: PT017
        assert plan.code == error.error_code, f"{plan} was stopped: {error}"  # noqa: PT017


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
            if plan is not None and plan.end in ("stop", "ignore") and len(got) >= HEAD + plan.after:
                if plan.end == "stop":
                    await stream.stop_receiving(error_code=plan.code)
                break
            piece = await stream.read(max_bytes=4000)
            if not piece:
                break
            got += piece
        else:
            if plan.end not in ("stop", "ignore"):
                rest = await stream.read()
                assert rest == b"", f"{len(rest)} bytes behind the end"
                assert plan.end == "finish", f"ended, and was to {plan.end}"
    except wtio.StreamResetError as error:
        # The writer's reset may overtake everything but the stream itself.
        if await of_the_session(session, error):
            return Plan(0)
        if len(got) >= HEAD:
            plan = Plan(int.from_bytes(got[:HEAD], "big"))
            assert plan.end in ("reset", "let go"), f"{plan} was reset: {error}"  # noqa: PT017
            assert plan.code == error.error_code, f"{plan} was reset: {error}"  # noqa: PT017
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
    # What is going on, and on which stream, for when it does not end.
    busy: dict[str, Stream | None] = field(default_factory=dict)

    def doings(self) -> str:
        """What this side is busy with, and how far it has come."""
        words = []
        for what, stream in self.busy.items():
            words.append(what)
            if stream is not None:
                core = stream._core
                words[-1] += (
                    f" (stream {stream.stream_id}, {core.send_state().name}, {core.receive_state().name}, "
                    f"{stream.diagnostics()})"
                )
        return ", ".join(words) or "nothing"

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
            if bidirectional and plan.end == "ignore":
                # Both directions belong to one object, which is let go of as a whole: this is the end before.
                plan = Plan(plan.tag - 6)
            what = f"{'bidirectional' if bidirectional else 'unidirectional'} {plan.tag}"
            with self.doing(what):
                if bidirectional:
                    await self.ask(plan, what)
                else:
                    await self.send(plan, what)

    async def send(self, plan: Plan, what: str) -> None:
        stream = self.busy[what] = await self.session.create_unidirectional_stream()
        await write(stream, plan, self.session)

    async def ask(self, plan: Plan, what: str) -> None:
        stream = self.busy[what] = await self.session.create_bidirectional_stream()
        if plan.end == "let go":
            await write(stream, plan, self.session)
        else:
            # The answer is another plan, which follows from this one.
            await asyncio.gather(write(stream, plan, self.session), self.read_answer(stream, plan))

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
            # Or the last one would be held here when its task lets go of it.
            del stream

    async def take_bidirectional(self, tasks: asyncio.TaskGroup) -> None:
        async for stream in self.session.incoming_bidirectional_streams():
            tasks.create_task(self.answer(stream))
            del stream

    async def take_datagrams(self) -> None:
        async for data in self.session.incoming_datagrams():
            self.received.append(data)

    async def take(self, stream: wtio.WebTransportReceiveStream) -> None:
        with self.doing(f"taking {stream.stream_id}", stream), contextlib.suppress(wtio.SessionClosed):
            await read(stream, self.session)

    async def answer(self, stream: wtio.WebTransportStream) -> None:
        with self.doing(f"answering {stream.stream_id}", stream), contextlib.suppress(wtio.SessionClosed):
            plan = await read(stream, self.session)
            if plan.tag == 0:
                # Reset before its plan was seen; whoever opened it may also have let go of it.
                with contextlib.suppress(wtio.StreamStoppedError):
                    await stream.write(data=plan.head(), end_stream=True)
            elif plan.end != "let go":
                await write(stream, Plan(plan.tag ^ 1), self.session)

    @contextlib.contextmanager
    def doing(self, what: str, stream: Stream | None = None) -> Iterator[None]:
        self.busy[what] = stream
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
