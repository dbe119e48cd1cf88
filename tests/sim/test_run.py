"""``wtio.run``: what signals do to servers, to their clients and to the program. In virtual time, with real signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.support.logs import but_sessions

import wtio
from wtio.testing import Network, VirtualTimeLoop

pytestmark = pytest.mark.unaudited("when connections close is what is tested", entirely=True)

Program = Callable[[Network], Coroutine[Any, Any, Any]]
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(params=SIGNALS, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> signal.Signals:
    found: signal.Signals = request.param
    return found


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Any:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


def now() -> float:
    return asyncio.get_running_loop().time()


def send(number: signal.Signals, *, after: float) -> None:
    """Send this process a signal in so many virtual seconds."""
    # Not os.kill, which ends a process on Windows, whatever the signal.
    asyncio.get_running_loop().call_later(after, signal.raise_signal, number)


async def wait(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


def run(main: Any, **arguments: Any) -> Any:
    return wtio.run(main, loop_factory=VirtualTimeLoop, **arguments)


# -- one signal


def test_a_signal_closes_a_server_in_good_order(number: signal.Signals) -> None:
    network = Network()
    seen: list[Any] = []

    async def client() -> None:
        async with network.connect() as session:
            send(number, after=1)
            info = await session.wait_closed()
            seen.append((info.code, info.reason, info.closed_by))

    def make_loop() -> VirtualTimeLoop:
        loop = VirtualTimeLoop()
        loop.call_soon(lambda: seen.append(loop.create_task(client())))
        return loop

    result = wtio.run(network.serve(wait), code=7, reason="deploy", loop_factory=make_loop)
    assert result is None
    assert seen[1:] == [(7, "deploy", "peer")]


def test_everything_is_served_as_before_until_the_delay_is_over(number: signal.Signals) -> None:
    async def main() -> list[float]:
        network = Network()
        timeouts = wtio.Timeouts(drain_delay=5, drain=20)

        async def echo(session: wtio.WebTransportSession) -> None:
            async for stream in session.incoming_bidirectional_streams():
                await stream.write(data=await stream.read_all(), end_stream=True)

        async with network.serve(echo, timeouts=timeouts) as server:
            first = await network.connect()
            send(number, after=1)
            await asyncio.sleep(4)
            assert not server.is_closing
            # A newcomer.
            async with network.connect() as session:
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"still here", end_stream=True)
                assert await stream.read_all() == b"still here"
            began = now()
            await first.wait_draining()
            drained = now() - began
            await server.wait_closed()
            return [drained, now() - began, (await first.wait_closed()).code or 0]

    drained, closed, code = run(main(), code=3)
    # 6 s after the beginning; then the session, whose handler does not end by itself, has 20 s.
    assert (drained, closed, code) == (pytest.approx(2, abs=0.3), pytest.approx(22, abs=0.3), 3)


def test_a_program_that_waits_for_its_server_takes_its_time_afterwards(number: signal.Signals) -> None:
    async def main() -> str:
        network = Network()
        async with network.serve(wait) as server:
            send(number, after=1)
            await server.wait_closed()
            await asyncio.sleep(3600)
        return "saved"

    assert run(main()) == "saved"


def test_an_iterator_of_requests_ends_and_so_does_its_program(number: signal.Signals) -> None:
    async def main() -> int:
        network = Network()
        async with network.serve() as server, asyncio.TaskGroup() as tasks:
            connecting = tasks.create_task(network.connect().__aenter__())
            send(number, after=1)
            async for request in server:
                await request.accept()
            session = await connecting
            return (await session.wait_closed()).code or 0

    assert run(main(), code=9) == 9


@pytest.mark.parametrize("has_server", [True, False])
def test_a_program_that_waits_for_no_server_is_cancelled_behind_their_ends(
    number: signal.Signals, has_server: bool
) -> None:
    seen: list[object] = []

    async def main() -> None:
        network = Network()
        async with contextlib.AsyncExitStack() as stack:
            server = None
            if has_server:
                server = await stack.enter_async_context(network.serve(wait, timeouts=wtio.Timeouts(drain_delay=2)))
            send(number, after=1)
            began = now()
            try:
                await asyncio.sleep(10**6)
            finally:
                # Clean-up is not disturbed.
                await asyncio.sleep(30)
                seen.append((server is not None and server.is_closing, round(now() - began)))

    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
        run(main())
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 0
    assert seen == [(True, 33) if has_server else (False, 31)]


def test_all_servers_of_a_program_are_closed_also_one_that_starts_late() -> None:
    async def main() -> list[int | None]:
        network = Network()
        first = await network.serve(wait, port=1000, timeouts=wtio.Timeouts(drain_delay=5))
        second = await network.serve(wait, port=1001, timeouts=wtio.Timeouts(drain_delay=1))
        sessions = [await network.connect(f"https://localhost:{port}/") for port in (1000, 1001)]
        send(signal.SIGTERM, after=1)
        await asyncio.sleep(4)
        assert second.is_closing
        assert not first.is_closing
        third = await network.serve(wait, port=1002)
        sessions.append(await network.connect("https://localhost:1002/"))
        await asyncio.gather(*(server.wait_closed() for server in (first, second, third)))
        return [(await session.wait_closed()).code for session in sessions]

    assert run(main(), code=4) == [4, 4, 4]


def test_what_a_program_returns_and_raises_passes(number: signal.Signals) -> None:
    async def main(error: BaseException | None) -> int:
        async with Network().serve(wait) as server:
            if error is not None:
                raise error
            send(number, after=1)
            await server.wait_closed()
            raise KeyError("after the signal")

    with pytest.raises(ValueError, match="before"):
        run(main(ValueError("before")))
    with pytest.raises(asyncio.CancelledError):
        run(main(asyncio.CancelledError()))
    with pytest.raises(KeyError):
        run(main(None))

    async def answer() -> int:
        return 42

    assert run(answer()) == 42


def test_a_server_that_cannot_listen_is_an_error_of_the_call() -> None:
    network = Network()

    async def main() -> None:
        async with network.serve(wait):
            await network.serve(wait)

    with pytest.raises(OSError, match="cannot listen"):
        run(main())


def test_a_server_that_is_being_closed_keeps_its_code() -> None:
    async def main() -> int | None:
        network = Network()
        server = await network.serve(wait, timeouts=wtio.Timeouts(drain=5))
        session = await network.connect()
        closing = asyncio.ensure_future(server.close(1, "by myself"))
        send(signal.SIGTERM, after=1)
        await server.wait_closed()
        await closing
        return (await session.wait_closed()).code

    assert run(main(), code=2) == 1


DRAINING = "takes no new sessions; sessions open: 1; they have 20 s to end (Timeouts.drain) before they are closed"
CLOSING = "closes; sessions open: 1; handlers have 2 s to return (Timeouts.close) before they are cancelled"


@pytest.mark.parametrize("delay", [0, 5])
@pytest.mark.parametrize(("drain", "words"), [(0, CLOSING), (20, DRAINING)])
def test_the_log_says_what_is_waited_for_and_what_a_second_signal_does(
    number: signal.Signals, delay: int, drain: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wtio.server")
    shown: list[str] = []

    async def main() -> None:
        network = Network()
        timeouts = wtio.Timeouts(drain_delay=delay, drain=drain)
        async with network.serve(wait, timeouts=timeouts) as server, network.connect() as session:
            shown.append(repr(server))
            send(number, after=1)
            await session.wait_closed()
            await server.wait_closed()

    run(main())
    server = shown[0]
    lines = [f"{number.name}: {server} {words}; a second signal ends all at once", f"{server} is closed"]
    if delay:
        first = f"{number.name}: {server} serves on for 5 s (Timeouts.drain_delay), and closes then"
        lines.insert(0, f"{first}; a second signal ends all at once")
    assert [record.getMessage() for record in but_sessions(caplog.records)] == lines


# -- the second signal


@pytest.mark.parametrize("moment", ["delay", "drain", "program"])
@pytest.mark.parametrize("second", SIGNALS, ids=lambda number: number.name)
def test_a_second_signal_ends_all_at_once(
    second: signal.Signals, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wtio.server")
    seen: list[object] = []

    async def handler(session: wtio.WebTransportSession) -> None:
        try:
            await asyncio.sleep(10**6)
        finally:
            seen.append("handler")

    async def client(network: Network) -> None:
        async with network.connect() as session:
            await session.wait_closed()

    async def main() -> None:
        network = Network()
        delay = 10**5 if moment == "delay" else 0
        drain = 10**5 if moment == "drain" else 0
        async with network.serve(handler, timeouts=wtio.Timeouts(drain_delay=delay, drain=drain)) as server:
            task = asyncio.ensure_future(client(network))
            await asyncio.sleep(1)
            began = now()
            send(signal.SIGTERM, after=1)
            send(second, after=20)
            try:
                await server.wait_closed()
                await asyncio.sleep(10**5)
            finally:
                seen.append(round(now() - began))
                await task

    with pytest.raises(KeyboardInterrupt if second == signal.SIGINT else SystemExit) as caught:
        run(main())
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 128 + signal.SIGTERM
    assert 20 in seen
    assert "handler" in seen
    assert f"{second.name} again: all sessions end at once, and all tasks are cancelled" in caplog.messages


# -- where there are no signals


class WithoutSignals(VirtualTimeLoop):
    """As on Windows."""

    def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError

    def remove_signal_handler(self, sig: int) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize("is_waiting", [True, False])
def test_signals_close_servers_where_the_loop_handles_none(is_waiting: bool, number: signal.Signals) -> None:
    seen: list[int | None] = []

    async def main() -> str:
        network = Network()
        async with network.serve(wait) as server:
            session = await network.connect()
            send(number, after=1)
            try:
                await (server.wait_closed() if is_waiting else asyncio.sleep(10**5))
            finally:
                seen.append((await session.wait_closed()).code)
        return "closed"

    if is_waiting:
        assert wtio.run(main(), code=5, loop_factory=WithoutSignals) == "closed"
    else:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            wtio.run(main(), code=5, loop_factory=WithoutSignals)
    assert seen == [5]


def test_a_second_ctrl_c_ends_all_at_once_there_too() -> None:
    async def main() -> None:
        async with Network().serve(wait, timeouts=wtio.Timeouts(drain_delay=10**5)) as server:
            for seconds in (1, 2):
                send(signal.SIGINT, after=seconds)
            await server.wait_closed()

    with pytest.raises(KeyboardInterrupt):
        wtio.run(main(), loop_factory=WithoutSignals)


def test_another_thread_runs_a_program_without_signals() -> None:
    results: list[object] = []

    async def main() -> str:
        async with Network().serve(wait) as server:
            asyncio.get_running_loop().call_later(1, lambda: asyncio.ensure_future(server.close()))
            await server.wait_closed()
        return "closed"

    thread = threading.Thread(target=lambda: results.append(run(main())))
    thread.start()
    thread.join()
    assert results == ["closed"]


def test_a_running_loop_and_functions_are_refused_without_a_warning() -> None:
    async def nothing() -> None:
        pass

    async def main() -> None:
        with pytest.raises(RuntimeError, match="while an event loop is running"):
            wtio.run(nothing())

    run(main())
    with pytest.raises(TypeError, match=r"call it: run\(main\(\)\)"):
        wtio.run(nothing)  # type: ignore[call-overload]


# -- abort


def test_abort_ends_everything_at_once_also_while_a_server_drains() -> None:
    seen: list[object] = []

    async def handler(session: wtio.WebTransportSession) -> None:
        try:
            await asyncio.sleep(10**6)
        finally:
            seen.append("cancelled")

    async def main(*, is_draining: bool) -> None:
        network = Network(latency=0.05)
        server = await network.serve(handler, timeouts=wtio.Timeouts(drain=10**5))
        session = await network.connect()
        closing = None
        if is_draining:
            closing = asyncio.ensure_future(server.close(7))
            await asyncio.sleep(100)
        began = now()
        server.abort()
        server.abort()
        info = await session.wait_closed()
        assert (info.code, info.closed_by) == (None, "peer")
        assert now() - began < 0.06
        await server.wait_closed()
        if closing is not None:
            await closing
        assert now() - began < 0.06
        server.abort()

    for is_draining in (False, True):
        run(main(is_draining=is_draining))
    assert seen == ["cancelled"] * 2


def test_a_handler_may_abort_its_own_server() -> None:
    seen: list[str] = []

    async def main() -> None:
        network = Network()

        async def handler(session: wtio.WebTransportSession) -> None:
            server.abort()
            await asyncio.sleep(1)
            seen.append("went on")

        async with network.serve(handler) as server:
            with contextlib.suppress(wtio.ConnectError, wtio.SessionClosed):
                await (await network.connect()).wait_closed()
            await server.wait_closed()
            await asyncio.sleep(2)

    run(main())
    assert seen == ["went on"]
