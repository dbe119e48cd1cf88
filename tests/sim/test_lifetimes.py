"""How long sessions live: forgotten ones are closed and warned of, ended ones go without the help of the collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio import testing
from wtio._connection.base import Connection
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

URL = "https://localhost/room?token=secret"


def run(main: Coroutine[Any, Any, None]) -> None:
    testing.run(asyncio.wait_for(main, 600))


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def wait_for_end(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


# ---------------------------------------------------------------- forgotten


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.usefixtures("no_collector")
def test_a_forgotten_session_warns_and_closes(pooled: bool) -> None:
    ends: list[wtio.CloseInfo] = []

    async def note(session: wtio.WebTransportSession) -> None:
        ends.append(await session.wait_closed())

    async def main() -> None:
        network = Network()
        async with network.serve(note) as server, network.client() as client:
            connector = client.connect(URL, allow_pooling=True) if pooled else network.connect(URL)
            session = await connector
            assert len(server.sessions) == 1
            with pytest.warns(ResourceWarning, match=r"unclosed .* https://localhost/room; use `async with`"):
                del session
            await asyncio.sleep(1)
            assert server.sessions == []
            assert client.connections == 0
            assert ends == [wtio.CloseInfo(0, "", "peer")]

    run(main())


def test_the_warning_shows_neither_query_nor_token() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end):
            with pytest.warns(ResourceWarning) as caught:
                await network.connect(URL, headers={"authorization": "secret"})
            assert "secret" not in str(caught[0].message)
            # It points at whoever let go of the session.
            assert caught[0].filename == __file__
            await asyncio.sleep(1)

    run(main())


def test_a_session_lost_in_a_gather_of_which_another_part_failed_is_closed() -> None:
    async def failed(*connects: Coroutine[Any, Any, object]) -> None:
        with pytest.raises(wtio.ConnectError):
            await asyncio.gather(*connects)

    async def collected(*connects: Coroutine[Any, Any, object]) -> None:
        await failed(*connects)
        # Leave the callback in which the result came.
        await asyncio.sleep(0.1)
        gc.collect()

    async def main() -> None:
        network = Network()

        async def opened(url: str) -> wtio.WebTransportSession:
            return await network.connect(url, timeouts=wtio.Timeouts(connect=1))

        async with network.serve(wait_for_end) as server:
            with pytest.warns(ResourceWarning, match="unclosed"):
                await collected(opened(URL), opened("https://localhost:9/"))
            await asyncio.sleep(1)
            assert server.sessions == []

    run(main())


def test_a_forgotten_session_with_unread_streams_and_datagrams_is_closed() -> None:
    async def talk(session: wtio.WebTransportSession) -> None:
        for _ in range(3):
            await (await session.create_bidirectional_stream()).write(data=b"x")
            await (await session.create_unidirectional_stream()).write(data=b"x", end_stream=True)
            session.send_datagram(b"x")
        await session.wait_closed()

    async def main() -> None:
        network = Network()
        async with network.serve(talk) as server:
            session = await network.connect(URL)
            await asyncio.sleep(1)
            assert len(session.incoming_bidirectional_streams()) == 3
            with pytest.warns(ResourceWarning, match="unclosed"):
                del session
            # Streams that are on their way then are refused.
            await asyncio.sleep(1)
            assert server.sessions == []

    run(main())


def collect_elsewhere() -> None:
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join()


def test_the_collector_of_another_thread_closes_a_forgotten_session() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end) as server:
            cycle: list[Any] = [await network.connect(URL)]
            cycle.append(cycle)
            del cycle
            with pytest.warns(ResourceWarning, match="unclosed"):
                collect_elsewhere()
            await asyncio.sleep(1)
            assert server.sessions == []

    run(main())


async def _next_stream(session: wtio.WebTransportSession) -> None:
    await anext(session.incoming_bidirectional_streams())


async def _next_one_way(session: wtio.WebTransportSession) -> None:
    await anext(session.incoming_unidirectional_streams())


async def _read(session: wtio.WebTransportSession) -> None:
    await (await session.create_bidirectional_stream()).read()


WAITS: dict[str, Callable[[wtio.WebTransportSession], Awaitable[object]]] = {
    "wait_closed": lambda session: session.wait_closed(),
    "wait_draining": lambda session: session.wait_draining(),
    "receive_datagram": lambda session: session.receive_datagram(),
    "bidirectional streams": _next_stream,
    "unidirectional streams": _next_one_way,
    "read": _read,
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_session_on_which_a_task_waits_is_not_forgotten(wait: Callable[..., Awaitable[object]]) -> None:
    """Though nobody holds the task, as many programs do not hold theirs."""

    async def begin(network: Network) -> None:
        async def use(session: wtio.WebTransportSession) -> None:
            with contextlib.suppress(wtio.SessionClosedOK):
                await wait(session)
            assert session.is_closed
            done.set()

        done = asyncio.Event()
        finished.append(done)
        asyncio.ensure_future(use(await network.connect(URL)))  # noqa: RUF006
        await asyncio.sleep(1)

    finished: list[asyncio.Event] = []

    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end) as server:
            await begin(network)
            gc.collect()
            await asyncio.sleep(60)
            assert len(server.sessions) == 1
            await server.sessions[0].close(0, "enough")
            await finished[0].wait()

    run(main())


def test_a_server_keeps_a_session_that_its_program_lets_go_of() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(None) as server:
            connecting = asyncio.ensure_future(_awaited(network.connect(URL)))
            await (await anext(server)).accept()
            async with await connecting as session:
                gc.collect()
                server.sessions[0].send_datagram(b"x")
                assert await session.receive_datagram() == b"x"

    run(main())


async def _awaited(connector: wtio.Connector) -> wtio.WebTransportSession:
    return await connector


# ---------------------------------------------------------------- ended


async def _close(near: wtio.WebTransportSession, far: wtio.WebTransportSession, network: Network) -> None:
    await near.close(7, "done")


async def _abort(near: wtio.WebTransportSession, far: wtio.WebTransportSession, network: Network) -> None:
    await near.abort()


async def _drained(near: wtio.WebTransportSession, far: wtio.WebTransportSession, network: Network) -> None:
    await near.drain()
    await far.wait_draining()
    await far.close()


async def _vanished(near: wtio.WebTransportSession, far: wtio.WebTransportSession, network: Network) -> None:
    network.conditions.blackout = True
    await near.wait_closed()
    await far.wait_closed()


async def _left_by_an_exception(
    near: wtio.WebTransportSession, far: wtio.WebTransportSession, network: Network
) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with near:
            raise ValueError("mine")


ENDS = {
    "close": _close,
    "abort": _abort,
    "drain": _drained,
    "vanish": _vanished,
    "exception": _left_by_an_exception,
}


async def _idle(near: wtio.WebTransportSession, far: wtio.WebTransportSession) -> list[Any]:
    return []


async def _streams(near: wtio.WebTransportSession, far: wtio.WebTransportSession) -> list[Any]:
    """Streams of all kinds, half of them held, read or not; tasks that wait; datagrams in both directions."""
    held: list[Any] = []
    for one, other in ((near, far), (far, near)):
        for number in range(4):
            stream = await one.create_bidirectional_stream()
            await stream.write(data=b"x", end_stream=bool(number & 1))
            one_way = await one.create_unidirectional_stream()
            await one_way.write(data=b"x")
            one.send_datagram(b"x")
            if number < 2:
                held += [stream, one_way]
        taken = await anext(other.incoming_bidirectional_streams())
        assert await taken.readexactly(n=1) == b"x"
        await other.receive_datagram()
    return held


async def _waiting(near: wtio.WebTransportSession, far: wtio.WebTransportSession) -> list[Any]:
    tasks = [asyncio.ensure_future(wait(session)) for session in (near, far) for wait in WAITS.values()]
    await asyncio.sleep(0.5)
    # One of each kind is cancelled before the end.
    for task in tasks[::2]:
        task.cancel()
    return tasks


USES = {"idle": _idle, "streams": _streams, "waiting": _waiting}


def connections() -> set[object]:
    """Those that are still in memory."""
    return {item for item in gc.get_objects() if isinstance(item, Connection)}


async def opened(
    connector: wtio.Connector, server: wtio.Server
) -> tuple[wtio.WebTransportSession, wtio.WebTransportSession]:
    connecting = asyncio.ensure_future(_awaited(connector))
    accepted = await (await anext(server)).accept()
    return await connecting, accepted


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("pooled", [False, True], ids=["alone", "pooled"])
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.unaudited("some of its connections end with a session open, or are lost")
@pytest.mark.unmeasured
def test_an_ended_session_is_freed_at_once(end: str, use: str, pooled: bool, side: str) -> None:
    async def ended(network: Network, server: wtio.Server, client: wtio.Client) -> list[weakref.ref[Any]]:
        connector = client.connect(URL, allow_pooling=True) if pooled else network.connect(URL, timeouts=timeouts)
        session, accepted = await opened(connector, server)
        near, far = (session, accepted) if side == "client" else (accepted, session)
        held = await USES[use](near, far)
        await ENDS[end](near, far, network)
        await far.wait_closed()
        with pytest.raises(wtio.SessionClosed):
            await far.create_bidirectional_stream()
        with pytest.raises(wtio.SessionClosed):
            near.send_datagram(b"x")
        await asyncio.gather(*(task for task in held if isinstance(task, asyncio.Task)), return_exceptions=True)
        assert near.report.end is not None
        # Until both sides have ended it, and a connection of its own has died down.
        await asyncio.sleep(10)
        network.conditions.blackout = False
        return [weakref.ref(item) for item in (session, accepted, *held)]

    timeouts = wtio.Timeouts(idle=5, without_session=5)

    async def main() -> None:
        network = Network()
        async with network.serve(None, timeouts=timeouts) as server, network.client(timeouts=timeouts) as client:
            # It keeps the connection of the pool.
            other, its_peer = await opened(client.connect(URL, allow_pooling=True), server)
            for item in await ended(network, server, client):
                assert item() is None, gc.get_referrers(item())
            assert connections() == {other._link, its_peer._link}
            assert other.is_closed == (end == "vanish")

    run(main())


@pytest.mark.usefixtures("no_collector")
def test_the_connection_of_a_pool_is_freed_with_its_last_session() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end), network.client() as client:
            for _ in range(2):
                async with client.connect(URL, allow_pooling=True), client.connect(URL, allow_pooling=True):
                    assert client.connections == 1
            await asyncio.sleep(10)
            assert not connections()

    run(main())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("outcome", ["returns", "raises", "sees the end", "is cancelled"])
def test_a_session_is_freed_after_its_handler(outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    freed: list[weakref.ref[Any]] = []
    # A record would hold what was raised.
    caplog.set_level("CRITICAL", "wtio.server")

    async def handle(session: wtio.WebTransportSession) -> None:
        freed.append(weakref.ref(session))
        stream = await anext(session.incoming_bidirectional_streams())
        freed.append(weakref.ref(stream))
        if outcome == "raises":
            raise ValueError(session)
        if outcome == "sees the end":
            await stream.readexactly(n=10)
        if outcome == "is cancelled":
            await session.receive_datagram()

    async def main() -> None:
        network = Network()
        async with network.serve(handle) as server:
            async with network.connect(URL) as session:
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"x")
                await asyncio.sleep(1)
                if outcome == "is cancelled":
                    for task in server._service.tasks:
                        task.cancel()
                    del task
                if outcome != "sees the end":
                    await session.wait_closed()
            del session, stream
            await asyncio.sleep(10)
            assert len(freed) == 2
            for item in freed:
                assert item() is None, gc.get_referrers(item())
            assert not connections()

    run(main())


def test_a_program_that_ends_in_the_middle_of_everything_exits_in_good_order() -> None:
    # What its traceback holds is freed with the interpreter's modules, when nothing of Python may be called any more.
    program = """
import asyncio, wtio
from wtio import testing

async def main():
    async with testing.session_pair(limits=wtio.Limits(session_receive_window=65536)) as (client, server):
        held = await client.create_unidirectional_stream()
        await held.write(data=bytes(60000), end_stream=True)
        unread = await anext(server.incoming_unidirectional_streams())
        stream = await client.create_unidirectional_stream()
        asyncio.ensure_future(stream.write(data=bytes(200000), end_stream=True))
        reading = await anext(server.incoming_unidirectional_streams())
        asyncio.ensure_future(reading.read_all()).cancel()
        await asyncio.sleep(1)
        asyncio.ensure_future(reading.read_all())
        await asyncio.sleep(1)
        raise SystemError("planned")

testing.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "SystemError: planned")
