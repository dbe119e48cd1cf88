"""Loops that are late: while a handler holds the loop, something else receives, acknowledges and runs timers.

With ``io="loop"`` that is the guardian thread, with ``io="thread"`` the thread that always does. The server has a loop
in a thread of its own, so that it can be held for as long as the client needs to see what comes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from typing import Any

# asyncio.run has a loop on Windows that cannot watch sockets: a thread receives in any case, and is never late.
CAN_BE_LATE = sys.platform != "win32"

Pair = tuple[wtio.WebTransportSession, wtio.WebTransportSession]

MEGABYTE = 1024 * 1024
# Far beyond what any of these tests takes: a hold ends even where nobody lets it go.
PATIENCE = 25.0


def content(size: int, seed: int) -> bytes:
    """Bytes that differ everywhere."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a number that no event announces."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def io_threads() -> int:
    """I/O threads of this process."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            names.append(path.read_text())
    return names.count("wtio-io\n")


@contextmanager
def serving_elsewhere(
    handler: Callable[[wtio.WebTransportSession], Coroutine[Any, Any, object]],
    certificate: wtio.DevCertificate,
    io: str,
    timeouts: wtio.Timeouts | None = None,
) -> Iterator[tuple[str, list[wtio.Server]]]:
    """Serve on a loop in another thread. Gives the URL and a list with the server in it."""
    ready = threading.Event()
    stop: list[Callable[[], object]] = []
    servers: list[wtio.Server] = []

    async def serve() -> None:
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ending.set))
        tls = certificate.server_tls()
        async with wtio.serve(handler, "127.0.0.1", 0, tls=tls, io=io, timeouts=timeouts) as server:
            servers.append(server)
            ready.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield f"https://127.0.0.1:{servers[0].addresses[0][1]}/", servers
    finally:
        for end in stop:
            end()
        thread.join()


class Hold:
    """A handler that blocks its loop until the test lets it go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._over = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self._over.wait(PATIENCE)

    def let_go(self) -> None:
        self._over.set()


@pytest.fixture
async def hold() -> AsyncIterator[Hold]:
    hold = Hold()
    yield hold
    hold.let_go()


# -- a loop that is held


async def test_what_arrives_is_acknowledged(certificate: wtio.DevCertificate, io: str, hold: Hold) -> None:
    data = content(700_000, 1)  # within the window of a stream: nobody reads
    received: list[bytes] = []

    async def handler(session: wtio.WebTransportSession) -> None:
        hold()
        stream = await anext(session.incoming_unidirectional_streams())
        received.append(await stream.read_all())
        received.append(await session.receive_datagram())

    with serving_elsewhere(handler, certificate, io) as (url, servers):
        async with wtio.connect(url, tls=certificate.client_tls()) as session:
            await asyncio.to_thread(hold.begun.wait)
            stream = await session.create_unidirectional_stream()
            await stream.write(data=data, end_stream=True)
            session.send_datagram(b"not lost either")
            await stream.wait_acked()
            assert not received
            hold.let_go()
            await session.wait_closed()
        assert received == [data, b"not lost either"]
        assert (servers[0].loop_late_total > 0) is (io == "loop" and CAN_BE_LATE)


async def test_timers_run(certificate: wtio.DevCertificate, io: str, hold: Hold) -> None:
    # Nobody but the held server sends of itself, and the connection would be idle for too long without it.
    async def handler(session: wtio.WebTransportSession) -> None:
        hold()

    of_server = wtio.Timeouts(keep_alive=0.03)
    of_client = wtio.Timeouts(keep_alive=None)
    with serving_elsewhere(handler, certificate, io, of_server) as (url, _):
        async with wtio.connect(url, tls=certificate.client_tls(), timeouts=of_client) as session:
            await asyncio.to_thread(hold.begun.wait)
            before = session.stats().packets_received
            await until(lambda: session.stats().packets_received > before + 10)
            hold.let_go()
            assert (await session.wait_closed()).code == 0


async def test_what_was_written_leaves(certificate: wtio.DevCertificate, io: str, hold: Hold) -> None:
    data = content(200_000, 2)  # within the send buffer: the handler goes on at once

    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await session.create_unidirectional_stream()
        await stream.write(data=data, end_stream=True)
        session.send_datagram(b"as well")
        hold()

    with serving_elsewhere(handler, certificate, io) as (url, _):
        async with wtio.connect(url, tls=certificate.client_tls()) as session:
            stream = await anext(session.incoming_unidirectional_streams())
            assert await stream.read_all() == data
            assert await session.receive_datagram() == b"as well"
            hold.let_go()
            assert (await session.wait_closed()).code == 0


async def test_upload_to_a_loop_that_is_late_all_the_time(certificate: wtio.DevCertificate, io: str) -> None:
    data = content(12 * MEGABYTE, 3)
    received: list[bytes] = []

    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_unidirectional_streams())
        chunks: list[bytes] = []
        while chunk := await stream.read():
            chunks.append(chunk)
            time.sleep(0.008)  # noqa: ASYNC251
        received.append(b"".join(chunks))

    with serving_elsewhere(handler, certificate, io) as (url, _):
        async with wtio.connect(url, tls=certificate.client_tls()) as session:
            stream = await session.create_unidirectional_stream()
            await stream.write_all(data=data, end_stream=True)
            assert (await session.wait_closed()).code == 0
    assert received == [data]


@pytest.mark.skipif(not CAN_BE_LATE, reason="a thread receives")
async def test_a_late_loop_is_counted(certificate: wtio.DevCertificate, hold: Hold) -> None:
    reports: list[wtio.ConnectionReport] = []
    counts: list[int] = []

    async def handler(session: wtio.WebTransportSession) -> None:
        counts.append(session.stats().loop_late_total)
        hold()
        counts.append(session.stats().loop_late_total)
        reports.append(session.report)

    with serving_elsewhere(handler, certificate, "loop") as (url, servers):
        async with wtio.connect(url, tls=certificate.client_tls()) as session:
            await asyncio.to_thread(hold.begun.wait)
            stream = await session.create_unidirectional_stream()
            await stream.write(data=b"for whom it waits")
            # Acknowledged by the guardian, as the loop is not there.
            await stream.wait_acked()
            hold.let_go()
            await session.wait_closed()
        assert servers[0].loop_late_total >= counts[1] > counts[0]
    assert reports[0].loop_late_total >= counts[1]
    assert reports[0].as_dict()["loop_late_total"] == reports[0].loop_late_total
    assert "\nevent loop    late " in str(reports[0])


# -- the I/O thread


async def test_bulk_both_ways_at_once(pair: Pair) -> None:
    # Beyond the windows of a stream (1 MiB) and of a connection (16 MiB).
    sizes = (24 * MEGABYTE + 1, 17 * MEGABYTE)

    async def send(session: wtio.WebTransportSession, seed: int) -> None:
        stream = await session.create_unidirectional_stream()
        await stream.write_all(data=content(sizes[seed], seed), end_stream=True)

    async def receive(session: wtio.WebTransportSession, seed: int) -> None:
        stream = await anext(session.incoming_unidirectional_streams())
        assert await stream.readexactly(n=sizes[seed]) == content(sizes[seed], seed)
        assert await stream.read() == b""

    async with asyncio.TaskGroup() as group:
        for seed, (near, far) in enumerate((pair, pair[::-1])):
            group.create_task(send(near, seed))
            group.create_task(receive(far, seed))


async def test_echo_on_many_streams(pair: Pair) -> None:
    client, server = pair

    async def answer(stream: wtio.WebTransportStream) -> None:
        await stream.write(data=await stream.read_all(), end_stream=True)

    async def serve() -> None:
        async with asyncio.TaskGroup() as answering:
            for _ in range(500):
                answering.create_task(answer(await anext(server.incoming_bidirectional_streams())))

    async def ask(number: int) -> None:
        stream = await client.create_bidirectional_stream()
        await stream.write(data=b"%d" % number * 100, end_stream=True)
        assert await stream.read_all() == b"%d" % number * 100

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        for number in range(500):
            group.create_task(ask(number))


async def test_many_datagrams(pair: Pair) -> None:
    for number in range(2000):
        pair[0].send_datagram(b"%d" % number)
        assert await pair[1].receive_datagram() == b"%d" % number


async def test_lost_peer_is_noticed(certificate: wtio.DevCertificate, io: str) -> None:
    timeouts = wtio.Timeouts(idle=0.3)
    server = await wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls(), io=io)

    async def connect() -> wtio.WebTransportSession:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        return await wtio.connect(url, tls=certificate.client_tls(), timeouts=timeouts, io=io)

    connecting = asyncio.ensure_future(connect())
    await (await anext(server)).accept()
    session = await connecting
    reading = asyncio.ensure_future(session.receive_datagram())
    # As if the machine had gone: without a word.
    for driver in server._drivers:
        driver.close()
    with pytest.raises(wtio.SessionClosedError, match="idle"):
        await reading
    assert session.report.end is not None
    assert session.report.end.by == "timeout"
    for connection in list(server._service.connections):
        connection.break_off(ConnectionError("over"))
    await server.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
async def test_threads_end_with_their_sockets(certificate: wtio.DevCertificate) -> None:
    gc.collect()
    await until(lambda: io_threads() == 0)
    async with wtio.serve(None, ["127.0.0.1", "::1"], 0, tls=certificate.server_tls(), io="thread") as server:
        port = server.addresses[0][1]
        # A thread takes its name when it first runs.
        await until(lambda: io_threads() == 2)
        tls = wtio.ClientTLS(cafile=certificate.certfile)
        async with wtio.Client(tls=tls, io="thread") as client:
            sessions = []
            for host in ("127.0.0.1", "[::1]", "127.0.0.1"):
                connector = client.connect(f"https://{host}:{port}/", allow_pooling=True)
                connecting = asyncio.ensure_future(_opened(connector))
                accepted = await (await anext(server)).accept()
                sessions.append(await connecting)
                sessions[-1].send_datagram(b"shared")
                assert await accepted.receive_datagram() == b"shared"
            await until(lambda: io_threads() == 4)
    # Those of the client as soon as its connections have died down.
    await until(lambda: io_threads() == 0)


async def _opened(connector: wtio.Connector) -> wtio.WebTransportSession:
    return await connector


# -- arguments


@pytest.mark.parametrize(("value", "kind"), [("asyncio", ValueError), ("", ValueError), (None, TypeError)])
def test_other_values_are_refused_with_the_ways_out(
    certificate: wtio.DevCertificate, value: object, kind: type[Exception]
) -> None:
    words = "io must be a str, not NoneType" if value is None else rf"io is '{value}'; it must be 'loop' .*'thread'"
    with pytest.raises(kind, match=words):
        wtio.connect("https://host.example/", io=value)  # type: ignore[arg-type]
    with pytest.raises(kind, match=words):
        wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls(), io=value)  # type: ignore[arg-type]
    with pytest.raises(kind, match=words):
        wtio.Client(io=value)  # type: ignore[arg-type]
