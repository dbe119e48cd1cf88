"""Virtual time beside what is real: threads, executors, descriptors, child processes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import file_client
import file_server
import wtio
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path


def now() -> float:
    return asyncio.get_running_loop().time()


async def tick() -> None:
    """Timers that the clock would jump to, for as long as nothing holds it."""
    while True:  # noqa: ASYNC110
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def ticking() -> Any:
    task = asyncio.ensure_future(tick())
    try:
        yield
    finally:
        task.cancel()


async def standing(awaitable: Awaitable[Any]) -> Any:
    """The result of something during which the clock must not move."""
    before = now()
    async with ticking(), asyncio.timeout(0.001):
        result = await awaitable
    assert now() == before
    return result


def work() -> str:
    time.sleep(0.02)
    return threading.current_thread().name


def test_the_clock_stands_still_while_a_thread_works() -> None:
    async def main() -> None:
        assert (await standing(asyncio.to_thread(work))).startswith("asyncio")
        # Thousands of times, as the end of a job and the next jump of the clock must never meet.
        for number in range(2000):
            assert await standing(asyncio.to_thread(int, number)) == number

    testing.run(main())


def test_the_clock_stands_still_for_executors_of_every_kind() -> None:
    class Inline(Executor):
        def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(function(*arguments, **named))
            return future

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2, thread_name_prefix="own") as threads, ProcessPoolExecutor(1) as processes:
            assert (await standing(loop.run_in_executor(threads, work))).startswith("own")
            assert await standing(loop.run_in_executor(processes, pow, 2, 10)) == 1024
            assert await standing(loop.run_in_executor(Inline(), pow, 2, 10)) == 1024
            loop.set_default_executor(threads)
            assert (await standing(asyncio.to_thread(work))).startswith("own")

    testing.run(main())


def test_the_clock_stands_still_while_names_are_looked_up() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        found = await standing(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
        assert found[0][4] == ("127.0.0.1", 80)
        assert await standing(loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))

    testing.run(main())


def test_many_jobs_at_once_all_hold_the_clock() -> None:
    async def main() -> None:
        before = now()
        async with ticking():
            names = await asyncio.gather(*(asyncio.to_thread(work) for _ in range(40)))
        assert len(names) == 40
        assert now() == before

    testing.run(main())


def test_a_job_that_raises_lets_the_clock_go_on() -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    async def main() -> None:
        with pytest.raises(LookupError):
            await standing(asyncio.to_thread(fail))
        before = now()
        await asyncio.sleep(100)
        assert now() == before + 100

    testing.run(main())


def test_an_executor_that_refuses_lets_the_clock_go_on() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(1)
        threads.shutdown()
        with pytest.raises(RuntimeError):
            await loop.run_in_executor(threads, work)
        before = now()
        await asyncio.sleep(100)
        assert now() == before + 100

    testing.run(main())


def test_a_job_whose_waiter_was_cancelled_holds_the_clock_until_it_is_done() -> None:
    async def main() -> None:
        started, may_end = threading.Event(), threading.Event()
        done = []

        def job() -> None:
            started.set()
            may_end.wait()
            done.append(now_of())

        now_of = asyncio.get_running_loop().time
        before = now()
        task = asyncio.ensure_future(asyncio.to_thread(job))
        await asyncio.to_thread(started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        threading.Timer(0.02, may_end.set).start()
        await asyncio.sleep(50)
        assert done == [before]
        assert now() == before + 50

    testing.run(main())


def test_a_job_that_is_cancelled_before_it_begins_holds_the_clock_no_longer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        may_end = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            first = loop.run_in_executor(threads, may_end.wait)
            second = loop.run_in_executor(threads, work)
            await asyncio.sleep(0)
            assert second.cancel()
            may_end.set()
            await standing(first)
        before = now()
        await asyncio.sleep(50)
        assert now() == before + 50

    testing.run(main())


def test_threads_of_threads_are_waited_for() -> None:
    def outer() -> list[str]:
        with ThreadPoolExecutor(2, thread_name_prefix="inner") as threads:
            names = list(threads.map(lambda _: work(), range(4)))
        # And a loop of its own, with virtual time of its own.
        names.append(testing.run(asyncio.to_thread(work)))
        return names

    async def main() -> None:
        names = await standing(asyncio.to_thread(outer))
        assert [name.partition("_")[0] for name in names] == ["inner"] * 4 + ["asyncio"]

    testing.run(main())


@pytest.mark.parametrize("nested", [False, True])
def test_a_thread_may_wait_for_the_loop_and_for_its_timers(nested: bool) -> None:
    async def answer() -> int:
        await asyncio.sleep(0.01)
        async with testing.session_pair() as (client, server):
            client.send_datagram(b"x")
            return len(await server.receive_datagram())

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def ask() -> int:
            return asyncio.run_coroutine_threadsafe(answer(), loop).result()

        def ask_nested() -> int:
            with ThreadPoolExecutor(1) as threads:
                return threads.submit(ask).result()

        assert await asyncio.to_thread(ask_nested if nested else ask) == 1
        # Once it is done, the clock is free, and stands still for the next.
        before = now()
        await asyncio.sleep(1000)
        assert now() == before + 1000
        await standing(asyncio.to_thread(work))

    testing.run(main())


def test_a_thread_of_ones_own_wakes_the_loop_and_can_hold_the_clock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        before = now()
        with loop.stand_still():  # type: ignore[attr-defined]
            threading.Timer(0.02, partial(loop.call_soon_threadsafe, event.set)).start()
            async with ticking(), asyncio.timeout(0.001):
                await event.wait()
        assert now() == before

    testing.run(main())


def test_waiting_for_a_thread_does_not_spin() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        selector = loop._virtual  # type: ignore[attr-defined]
        looks = 0
        select = selector.select

        def counted(timeout: float | None = None) -> Any:
            nonlocal looks
            looks += 1
            return select(timeout)

        selector.select = counted
        near, far = socket.socketpair()
        with near, far:
            async with ticking():
                await asyncio.to_thread(work)
                near.setblocking(False)
                threading.Timer(0.02, partial(far.send, b"x")).start()
                assert await loop.sock_recv(near, 1) == b"x"
        assert looks < 30

    testing.run(main())


def test_after_the_end_of_the_loop_a_job_that_still_runs_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    may_end = threading.Event()
    threads = ThreadPoolExecutor(1)

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(threads, may_end.wait)

    testing.run(main())
    may_end.set()
    threads.shutdown()
    assert not caplog.records


def test_a_loop_whose_threads_are_shut_down_takes_no_more_jobs() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="shutdown"):
            await asyncio.to_thread(work)

    testing.run(main())


# -- descriptors


@contextlib.contextmanager
def not_faster_than_real_time() -> Iterator[None]:
    virtual, real = now(), time.monotonic()
    yield
    # A millisecond may be left over from the wait before.
    assert now() - virtual <= time.monotonic() - real + 0.0011


def test_time_does_not_run_ahead_of_a_watched_descriptor() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            threading.Timer(0.02, partial(far.send, b"x")).start()
            with not_faster_than_real_time():
                async with ticking(), asyncio.timeout(30):
                    assert await loop.sock_recv(near, 1) == b"x"
            with not_faster_than_real_time():
                loop.add_reader(near, bool)
                for _ in range(20):
                    await asyncio.sleep(0.0003)
                loop.remove_reader(near)
            with contextlib.suppress(BlockingIOError):
                while near.send(bytes(65_536)):
                    pass
            with not_faster_than_real_time():
                loop.add_writer(near, bool)
                for _ in range(20):
                    await asyncio.sleep(0.0003)
                loop.remove_writer(near)
        # Nothing real is left.
        before = now()
        await asyncio.sleep(1000)
        assert now() == before + 1000

    testing.run(main())


def test_a_real_tcp_connection_works_beside_the_simulated_network() -> None:
    async def main() -> None:
        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()
            await writer.wait_closed()

        # A gateway: what comes from a session goes to a real server, and back.
        async def gateway(session: wtio.WebTransportSession) -> None:
            async for stream in session.incoming_bidirectional_streams():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(await stream.read_all())
                await stream.write(data=await reader.read(), end_stream=True)
                writer.close()
                await writer.wait_closed()

        with not_faster_than_real_time():
            async with await asyncio.start_server(shout, "127.0.0.1", 0) as tcp, asyncio.timeout(20):
                port = tcp.sockets[0].getsockname()[1]
                network = Network(seed=1, latency=0.001, loss=0.05)
                async with network.serve(gateway), network.connect() as session:
                    for word in (b"one", b"two", b"three"):
                        stream = await session.create_bidirectional_stream()
                        await stream.write(data=word + b"\n", end_stream=True)
                        assert await stream.read_all() == word.upper() + b"\n"

    testing.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows only asyncio's Proactor loop has child processes")
@pytest.mark.parametrize("piped", [False, True])
def test_a_child_process_is_waited_for(piped: bool) -> None:
    async def main() -> None:
        program = "import time; time.sleep(0.05); print('done')"
        pipe = asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL
        with not_faster_than_real_time():
            async with ticking(), asyncio.timeout(60):
                child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=pipe)
                output, _ = await child.communicate()
                assert child.returncode == 0
                assert output == (b"done\n" if piped else None)
                shell = await asyncio.create_subprocess_shell("sleep 0.02; exit 3")
                assert await shell.wait() == 3
        before = now()
        await asyncio.sleep(1000)
        assert now() == before + 1000

    testing.run(main())


def test_a_watched_descriptor_without_timers_is_no_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wtio._driver.simulated._DEADLOCK_SECONDS", 0.001)

    async def main() -> None:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            threading.Timer(0.05, partial(far.send, b"x")).start()
            assert await asyncio.get_running_loop().sock_recv(near, 1) == b"x"
        may_end = threading.Event()
        threading.Timer(0.05, may_end.set).start()
        assert await asyncio.to_thread(may_end.wait)

    testing.run(main())


# -- a program that uses threads


@pytest.mark.parametrize("seed", range(5))
def test_the_file_server_works_on_the_simulated_network(tmp_path: Path, seed: int) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    contents = {f"{size}.bin": bytes(range(256)) * (size // 256 + 1) for size in (0, 1000, 300_000)}
    for name, content in contents.items():
        (here / name).write_bytes(content)

    async def main() -> float:
        network = Network(seed=seed, loss=0.05, reorder=0.05, duplicate=0.02)
        # No answer takes that long on this network; threads on a busy machine do.
        timeouts = wtio.Timeouts(connect=15, idle=15)
        before = now()
        async with (
            asyncio.timeout(120),
            network.serve(file_server.FileServer(there).handle, timeouts=timeouts),
            network.connect(timeouts=timeouts) as session,
        ):
            await asyncio.gather(*(file_client.put(session, here / name) for name in contents))
            for name, content in contents.items():
                assert (there / name).read_bytes() == content
                (here / name).unlink()
            await asyncio.gather(*(file_client.get(session, name, here) for name in contents))
            with pytest.raises(wtio.StreamResetError) as caught:
                await file_client.get(session, "absent", here)
            assert caught.value.error_code == file_server.NO_SUCH_FILE
        for name, content in contents.items():
            assert (here / name).read_bytes() == content
        assert sorted(path.name for path in there.iterdir()) == sorted(contents)
        return now() - before

    assert testing.run(main()) < 60


# -- programs without anything real


def test_programs_without_anything_real_repeat_to_the_last_digit() -> None:
    async def echo(session: wtio.WebTransportSession) -> None:
        async for stream in session.incoming_bidirectional_streams():
            await stream.write(data=await stream.read_all(), end_stream=True)

    async def main() -> list[float]:
        network = Network(seed=11, loss=0.1, jitter=0.005, reorder=0.1)
        instants = []
        async with network.serve(echo), network.connect() as session:
            for size in (1, 10_000, 30_000):
                stream = await session.create_bidirectional_stream()
                await stream.write(data=bytes(size), end_stream=True)
                assert len(await stream.read_all()) == size
                instants.append(now())
        return instants

    def alone() -> Coroutine[Any, Any, list[float]]:
        return main()

    async def behind_a_thread() -> list[float]:
        await asyncio.to_thread(work)
        return await main()

    assert testing.run(alone()) == testing.run(behind_a_thread())


# -- what ends a test


class _Outcome(BaseException):
    """As plugins of pytest raise it, from the handler of a signal, when a test takes too long."""


def give_up(*_: object) -> None:
    raise _Outcome


async def forget_a_task_that_gives_up() -> None:
    async def give_up_later() -> None:
        give_up()

    task = asyncio.ensure_future(give_up_later())
    await asyncio.sleep(0)
    del task


@pytest.mark.parametrize("how", ["in a callback", "at a signal", "in a task that nobody awaits"])
def test_the_end_of_a_test_reaches_the_caller_of_a_loop_that_never_sleeps(how: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        match how:
            case "in a callback":
                loop.call_later(3, give_up)
            case "at a signal":
                loop.call_later(3, signal.raise_signal, signal.SIGINT)
            case _:
                await forget_a_task_that_gives_up()
        await tick()

    before = signal.signal(signal.SIGINT, give_up)
    try:
        with pytest.raises(_Outcome):
            testing.run(main())
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_a_callback_raises_ends_no_loop() -> None:
    caught: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: caught.append(context))
        loop.call_soon(int, "no number")
        await asyncio.sleep(3)

    testing.run(main())
    assert [type(context["exception"]) for context in caught] == [ValueError]
