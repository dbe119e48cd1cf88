"""Tasks that run in the iteration of the loop that woke them: all that asyncio promises about tasks still holds."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import traceback
import weakref
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import testing
from wtio._connection.base import Connection
from wtio._core import Waiter, collect_woken, run_woken

if TYPE_CHECKING:
    from collections.abc import Callable

name: contextvars.ContextVar[str] = contextvars.ContextVar("name")


class Waiting:
    """Some tasks, each at its waiter, and what they record."""

    def __init__(self, count: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.waiters = [Waiter(self.loop) for _ in range(count)]
        self.record: list[str] = []
        self.tasks = [asyncio.create_task(self.wait(number)) for number in range(count)]

    async def wait(self, number: int) -> None:
        name.set(f"task {number}")
        try:
            await self.waiters[number]
        except asyncio.CancelledError as error:
            self.record.append(f"{name.get()} cancelled {error}".rstrip())
            raise
        self.record.append(name.get())

    def in_callback(self, work: Callable[[], None]) -> asyncio.Future[list[str]]:
        """Do ``work`` in a callback of the loop; returns what was recorded by the end of the callback."""
        answer = self.loop.create_future()

        def callback() -> None:
            try:
                work()
            finally:
                answer.set_result(list(self.record))

        self.loop.call_soon(callback)
        return answer


async def test_woken_tasks_run_in_order_within_the_callback_and_in_their_own_context() -> None:
    name.set("test")
    waiting = Waiting(3)
    await asyncio.sleep(0)

    def work() -> None:
        collect_woken()
        for waiter in (waiting.waiters[2], waiting.waiters[0]):
            waiter.set_result(None)
        assert waiting.record == []
        run_woken()

    assert await waiting.in_callback(work) == ["task 2", "task 0"]
    assert name.get() == "test"
    waiting.waiters[1].set_result(None)
    assert waiting.record == ["task 2", "task 0"]
    await asyncio.gather(*waiting.tasks)
    assert waiting.record == ["task 2", "task 0", "task 1"]


async def test_woken_task_that_another_one_cancels_is_cancelled() -> None:
    waiting = Waiting(1)

    async def cancel(waiter: Waiter) -> None:
        await waiter
        assert waiting.tasks[0].cancel()

    first = Waiter(waiting.loop)
    canceller = asyncio.create_task(cancel(first))
    await asyncio.sleep(0)

    def work() -> None:
        collect_woken()
        first.set_result(None)
        waiting.waiters[0].set_result(None)
        run_woken()

    assert await waiting.in_callback(work) == ["task 0 cancelled"]
    await canceller
    assert waiting.tasks[0].cancelled()


async def test_cancelling_keeps_its_message_and_nothing_comes_after_it() -> None:
    waiting = Waiting(1)
    await asyncio.sleep(0)
    waiting.tasks[0].cancel("enough")
    assert waiting.waiters[0].done()
    assert waiting.waiters[0].cancelled()
    with pytest.raises(asyncio.CancelledError):
        await waiting.tasks[0]
    assert waiting.record == ["task 0 cancelled enough"]
    assert not waiting.waiters[0].cancel()


async def test_waiter_set_before_it_is_awaited_does_not_wait() -> None:
    waiter = Waiter(asyncio.get_running_loop())
    waiter.set_result(None)
    await waiter
    assert waiter.done()
    assert not waiter.cancelled()


def test_others_go_on_after_a_task_that_interrupts_the_loop() -> None:
    loop = asyncio.SelectorEventLoop()

    async def main() -> Waiting:
        waiting = Waiting(3)
        await asyncio.sleep(0)
        return waiting

    waiting = loop.run_until_complete(main())

    async def interrupt(waiter: Waiter) -> None:
        await waiter
        raise KeyboardInterrupt

    first = Waiter(loop)
    interrupting = loop.create_task(interrupt(first))
    loop.run_until_complete(asyncio.sleep(0))

    def work() -> None:
        collect_woken()
        waiting.waiters[1].set_result(None)
        first.set_result(None)
        waiting.waiters[2].set_result(None)
        waiting.waiters[0].set_result(None)
        run_woken()

    loop.call_soon(work)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(1))
    assert waiting.record == ["task 1"]
    loop.run_until_complete(asyncio.gather(*waiting.tasks))
    assert waiting.record == ["task 1", "task 2", "task 0"]
    assert isinstance(interrupting.exception(), KeyboardInterrupt)
    loop.close()


async def test_task_that_nobody_can_wake_any_more_is_garbage() -> None:
    waiting = Waiting(1)
    await asyncio.sleep(0)
    task = weakref.ref(waiting.tasks[0])
    waiting.loop.set_exception_handler(lambda *_: None)
    del waiting
    gc.collect()
    assert task() is None


@pytest.mark.parametrize("debug", [False, True])
def test_reader_runs_in_the_turn_that_brought_its_bytes_except_in_debug_mode(debug: bool) -> None:
    places: set[str] = set()

    async def main() -> None:
        async with testing.session_pair(seed=1) as (client, server):
            stream = await client.create_bidirectional_stream()
            await stream.write(data=b"one")
            other = await anext(server.incoming_bidirectional_streams())
            assert await other.read() == b"one"
            reading = asyncio.create_task(note(other))
            await asyncio.sleep(0)
            await stream.write(data=b"two")
            await reading

    async def note(stream: wtio.WebTransportStream) -> None:
        assert await stream.read() == b"two"
        places.update(frame.name for frame in traceback.extract_stack())

    testing.run(main(), debug=debug)
    assert ("_drive_and_run_tasks" in places) is not debug


async def test_loop_that_a_task_makes_turn_runs_no_task_inside_of_it(
    pair: tuple[wtio.WebTransportSession, wtio.WebTransportSession],
) -> None:
    client, server = pair
    stream = await client.create_bidirectional_stream()
    await stream.write(data=b"one")
    other = await anext(server.incoming_bidirectional_streams())
    assert await other.read() == b"one"
    running: list[asyncio.Task[None] | None] = []

    async def read() -> None:
        assert await other.read() == b"two"
        running.append(asyncio.current_task())

    link = server._link
    assert isinstance(link, Connection)
    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await stream.write(data=b"two")
    async with asyncio.timeout(10):
        while not running:
            # As nested loops do: a callback of the loop, called while a task runs.
            link.driver._drive_and_run_tasks(True)
            assert not running
            await asyncio.sleep(0)
    await reading
    assert running == [reading]
