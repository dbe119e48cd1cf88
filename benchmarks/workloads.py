"""What is measured: names, sizes, the client's side and the server's side, once for every library.

A library is reached through the four small protocols below; its adapter is a few lines in ``benchmarks/peers``. A
client measures and prints one JSON line per workload; a server answers by the path of the session. Nothing here
imports a library under test.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

MIB = 1 << 20

# One write of a bulk transfer; what WebTransportSendStream.write_all uses by default.
CHUNK = b"\x5a" * 65536
SMALL = b"\xa5" * 64
LARGE = b"\xc3" * 65536

# Datagrams one way: how many a client sends without a report from the server, and how often the server reports.
# A window makes the result a rate that the receiver keeps up with, not the rate at which a sender can throw away.
DATAGRAM_WINDOW = 256
DATAGRAM_REPORT = 32
DATAGRAM_PATIENCE = 0.05  # seconds without a report until what is outstanding counts as lost


# -- what an adapter provides


class Stream(Protocol):
    """One bidirectional stream."""

    async def write(self, data: bytes, end: bool = False) -> None:
        """Send ``data``, waiting as the library wants it; ``end`` ends the sending side."""

    async def read(self) -> bytes:
        """Return what has arrived, at least a byte, or ``b""`` at the end."""


class Session(Protocol):
    """One session on a connection of its own."""

    path: str

    async def open_stream(self) -> Stream: ...
    def incoming_streams(self) -> AsyncIterator[Stream]: ...
    async def send_datagram(self, data: bytes) -> None: ...
    async def receive_datagram(self) -> bytes: ...
    async def close(self) -> None: ...


class Client(Protocol):
    """What a program keeps between connections (an endpoint, a configuration)."""

    async def connect(self, path: str) -> Session: ...
    async def close(self) -> None: ...

    def shared(self) -> Client:
        """A client for many sessions, each with its own connection: one endpoint for all, where the library can."""

    def pooled(self) -> Client:
        """A client whose sessions to one server share a connection, where the library can."""


# -- sizes


@dataclass(frozen=True)
class Profile:
    """How much of everything; ``bulk`` may be scaled down for a library that would need minutes."""

    bulk: int
    echoes: int
    requests: int
    in_flight: int
    small_requests: int
    large_requests: int
    datagram_seconds: float
    datagram_echoes: int
    handshakes: int
    sessions: int
    mixed_pairs: int
    seconds: float  # limit for one workload

    def scaled(self, divisor: int) -> Profile:
        """The same with smaller bulk work; results are rates, so that they stay comparable."""
        values = dict(vars(self))
        values.update(bulk=self.bulk // divisor, large_requests=max(100, self.large_requests // divisor))
        return Profile(**values)


PROFILES = {
    "full": Profile(256 * MIB, 2000, 1000, 100, 5000, 1500, 2.0, 2000, 100, 1000, 3, 60.0),
    "quick": Profile(64 * MIB, 500, 300, 100, 1500, 400, 0.5, 500, 12, 100, 1, 30.0),
}


@dataclass(frozen=True)
class Workload:
    """A row of the table."""

    name: str
    title: str
    unit: str  # "us", "ms", "KB", "MB/s", "/s", "%"
    measure: Callable[[Client, Callable[[], Client], Profile], Awaitable[dict[str, float]]] = field(repr=False)
    extra: tuple[str, ...] = ()  # further values shown beside the main one
    # Memory is measured in processes that have done nothing else: what earlier work freed would hide it.
    needs_fresh_processes: bool = False

    @property
    def higher_is_better(self) -> bool:
        return self.unit.endswith(("/s", "%"))


# -- the client's side: every function returns "warm", mostly "cold", and extras in the workload's unit


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def read_exactly(stream: Stream, size: int) -> bytes:
    data = await stream.read()
    while len(data) < size:
        piece = await stream.read()
        if not piece:
            raise EOFError(f"stream ended after {len(data)} of {size} bytes")
        data += piece
    return data


async def _read_all(stream: Stream) -> bytes:
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    return b"".join(pieces)


async def upload(session: Session, size: int) -> float:
    started = time.perf_counter()
    stream = await session.open_stream()
    for _ in range(size // len(CHUNK)):
        await stream.write(CHUNK)
    await stream.write(b"", True)
    received = int.from_bytes(await _read_all(stream), "big")
    seconds = time.perf_counter() - started
    if received != size:
        raise EOFError(f"the server received {received} of {size} bytes")
    return size / seconds / 1e6


async def download(session: Session, size: int) -> float:
    started = time.perf_counter()
    stream = await session.open_stream()
    await stream.write(size.to_bytes(8, "big"), True)
    received = 0
    while piece := await stream.read():
        received += len(piece)
    seconds = time.perf_counter() - started
    if received != size:
        raise EOFError(f"received {received} of {size} bytes")
    return size / seconds / 1e6


@contextlib.asynccontextmanager
async def _session(client: Client, path: str) -> AsyncIterator[Session]:
    session = await client.connect(path)
    try:
        yield session
    finally:
        await session.close()


async def measure_upload(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    async with _session(client, "/upload") as session:
        return {"cold": await upload(session, profile.bulk), "warm": await upload(session, profile.bulk)}


async def measure_download(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    async with _session(client, "/download") as session:
        return {"cold": await download(session, profile.bulk), "warm": await download(session, profile.bulk)}


async def _latencies(operation: Callable[[], Awaitable[None]], count: int) -> dict[str, float]:
    """Time ``operation``: the first is cold, the next tenth warms up, the rest counts. Microseconds."""
    clock = time.perf_counter
    times = []
    for _ in range(1 + count // 10 + count):
        started = clock()
        await operation()
        times.append((clock() - started) * 1e6)
    warm = times[1 + count // 10 :]
    return {"cold": times[0], "warm": _percentile(warm, 0.5), "p99": _percentile(warm, 0.99), "min": min(warm)}


async def measure_echo(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    async with _session(client, "/echo") as session:
        stream = await session.open_stream()

        async def echo() -> None:
            await stream.write(SMALL)
            await read_exactly(stream, len(SMALL))

        result = await _latencies(echo, profile.echoes)
        await stream.write(b"", True)
        await _read_all(stream)
        return result


async def _request(session: Session, body: bytes) -> None:
    stream = await session.open_stream()
    await stream.write(body, True)
    answer = await _read_all(stream)
    if len(answer) != len(body):
        raise EOFError(f"answer of {len(answer)} bytes to a request of {len(body)}")


async def measure_request(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    async with _session(client, "/request") as session:
        return await _latencies(lambda: _request(session, SMALL), profile.requests)


async def _in_flight(session: Session, body: bytes, count: int, width: int) -> float:
    remaining = count

    async def worker() -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= 1
            await _request(session, body)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(width)))
    return count / (time.perf_counter() - started)


async def _measure_in_flight(client: Client, body: bytes, count: int, width: int) -> dict[str, float]:
    async with _session(client, "/request") as session:
        cold = await _in_flight(session, body, count // 4, width)
        return {"cold": cold, "warm": await _in_flight(session, body, count, width)}


async def measure_small_in_flight(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    return await _measure_in_flight(client, SMALL, profile.small_requests, profile.in_flight)


async def measure_large_in_flight(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    return await _measure_in_flight(client, LARGE, profile.large_requests, profile.in_flight)


class _DatagramRun:
    """One burst of datagrams one way, paced by the server's reports."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent = 0
        self.arrived = 0
        self.last_progress = 0.0
        self._reported = asyncio.Event()

    async def run(self, seconds: float) -> tuple[float, float]:
        """Returns datagrams received per second and the share that was lost, in percent."""
        reports = asyncio.ensure_future(self._read_reports())
        started = time.perf_counter()
        written_off = 0
        while time.perf_counter() - started < seconds:
            if self.sent - self.arrived - written_off >= DATAGRAM_WINDOW:
                if not await self._report():
                    written_off = self.sent - self.arrived
                continue
            for _ in range(DATAGRAM_REPORT):
                await self.session.send_datagram(SMALL)
            self.sent += DATAGRAM_REPORT
            await asyncio.sleep(0)
        while self.arrived < self.sent and await self._report():
            pass
        reports.cancel()
        await asyncio.gather(reports, return_exceptions=True)
        if self.arrived == 0:
            raise EOFError("no datagram arrived")
        return self.arrived / (self.last_progress - started), 100.0 * (1 - self.arrived / self.sent)

    async def _report(self) -> bool:
        self._reported.clear()
        try:
            async with asyncio.timeout(DATAGRAM_PATIENCE):
                await self._reported.wait()
        except TimeoutError:
            return False
        return True

    async def _read_reports(self) -> None:
        while True:
            arrived = int.from_bytes(await self.session.receive_datagram(), "big")
            if arrived > self.arrived:
                self.arrived = arrived
                self.last_progress = time.perf_counter()
                self._reported.set()


async def measure_datagrams(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    async with _session(client, "/datagrams") as session:
        cold, _lost = await _DatagramRun(session).run(profile.datagram_seconds / 4)
    async with _session(client, "/datagrams") as session:
        warm, lost = await _DatagramRun(session).run(profile.datagram_seconds)
    return {"cold": cold, "warm": warm, "lost %": lost}


async def measure_datagram_echo(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    async with _session(client, "/datagram-echo") as session:
        answered = lost = 0

        async def echo() -> None:
            nonlocal answered
            await session.send_datagram(SMALL)
            await session.receive_datagram()
            answered += 1

        async def send_again() -> None:
            # A lost datagram must not end the run. This costs the measured operation nothing.
            nonlocal lost
            before = -1
            while True:
                await asyncio.sleep(0.5)
                if answered == before:
                    lost += 1
                    await session.send_datagram(SMALL)
                before = answered

        watcher = asyncio.ensure_future(send_again())
        try:
            result = await _latencies(echo, profile.datagram_echoes)
        finally:
            watcher.cancel()
        return {**result, "lost": float(lost)}


async def measure_handshake(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    times = []
    for _count in range(1 + profile.handshakes):
        started = time.perf_counter()
        session = await client.connect("/request")
        times.append((time.perf_counter() - started) * 1e3)
        await session.close()
    return {"cold": times[0], "warm": _percentile(times[1:], 0.5), "p99": _percentile(times[1:], 0.99)}


async def measure_connect_request_close(
    _: Client, make_client: Callable[[], Client], profile: Profile
) -> dict[str, float]:
    times = []
    for _count in range(1 + profile.handshakes // 2):
        started = time.perf_counter()
        client = make_client()
        session = await client.connect("/request")
        await _request(session, SMALL)
        await session.close()
        await client.close()
        times.append((time.perf_counter() - started) * 1e3)
    return {"cold": times[0], "warm": _percentile(times[1:], 0.5)}


async def _resident_there(session: Session) -> int:
    """Memory of the server's process, in bytes."""
    stream = await session.open_stream()
    # A server of aiopquic does not notice a stream that ends without a byte.
    await stream.write(b"?", True)
    return int.from_bytes(await _read_all(stream), "big")


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _connect_many(client: Client, path: str, count: int, width: int = 10) -> list[Session]:
    sessions: list[Session] = []
    while len(sessions) < count:
        batch = min(width, count - len(sessions))
        sessions += await asyncio.gather(*(client.connect(path) for _ in range(batch)))
    return sessions


async def measure_idle_sessions(_: Client, make_client: Callable[[], Client], profile: Profile) -> dict[str, float]:
    client = make_client().shared()
    asking = await client.connect("/memory")
    # What the first sessions cost is the price of the library, not of a session.
    held = await _connect_many(client, "/request", max(10, profile.sessions // 20))
    here, there = _resident(), await _resident_there(asking)
    held += await _connect_many(client, "/request", profile.sessions)
    await asyncio.sleep(1.0)  # acknowledgements, path MTU probes
    here, there = _resident() - here, await _resident_there(asking) - there
    await client.close()
    return {"warm": there / profile.sessions / 1000, "client": here / profile.sessions / 1000}


async def _mixed(client: Client, size: int, slow: bool) -> float:
    """MB/s of 99 streams that are read at once, with or without a hundredth that is hardly read."""
    async with _session(client, "/download") as session:

        async def read_slowly() -> None:
            stream = await session.open_stream()
            await stream.write((64 * MIB).to_bytes(8, "big"), True)
            while await stream.read():  # noqa: ASYNC110 - the pause is what makes it slow
                await asyncio.sleep(0.05)

        reader = asyncio.ensure_future(read_slowly()) if slow else None
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        await asyncio.gather(*(download(session, size) for _ in range(99)))
        seconds = time.perf_counter() - started
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        return 99 * size / seconds / 1e6


async def measure_mixed_speed(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    size = max(len(CHUNK), profile.bulk // 256)
    await _mixed(client, size, False)
    rates = [(await _mixed(client, size, False), await _mixed(client, size, True)) for _ in range(profile.mixed_pairs)]
    return {
        "warm": statistics.median(100 * slow / fast for fast, slow in rates),
        "MB/s": statistics.median(slow for _fast, slow in rates),
    }


# -- series: how the cost grows; keys are the numbers on the x axis


async def measure_stream_series(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    """Microseconds for each of many streams that are asked for at once."""
    result = {}
    async with _session(client, "/request") as session:
        await _in_flight(session, SMALL, 1000, 100)
        for count in (10, 30, 100, 300, 1000, 3000, 10_000):
            times = []
            for _repeat in range(max(3, 300 // count)):
                started = time.perf_counter()
                await asyncio.gather(*(_request(session, SMALL) for _ in range(count)))
                times.append((time.perf_counter() - started) * 1e6 / count)
            result[str(count)] = statistics.median(times)
    return result


async def measure_session_series(_: Client, make_client: Callable[[], Client], profile: Profile) -> dict[str, float]:
    """Milliseconds for each of many sessions: connect all, one request on each while all others are open."""
    result = {}
    for count in (10, 30, 100, 300, 1000):
        client = make_client().shared()
        started = time.perf_counter()
        for session in await _connect_many(client, "/request", count):
            await _request(session, SMALL)
        result[str(count)] = (time.perf_counter() - started) * 1e3 / count
        await client.close()
    return result


async def measure_pooled_series(_: Client, make_client: Callable[[], Client], profile: Profile) -> dict[str, float]:
    """As the series over sessions, with all of them on one connection, and until all have ended."""
    result = {}
    for count in (10, 30, 100, 300, 1000, 3000):
        client = make_client().pooled()
        started = time.perf_counter()
        for session in await _connect_many(client, "/request", count):
            await _request(session, SMALL)
        await client.close()
        result[str(count)] = (time.perf_counter() - started) * 1e3 / count
    return result


async def measure_size_series(client: Client, _: Callable[[], Client], profile: Profile) -> dict[str, float]:
    """Microseconds until a message of some size has come back on a stream of its own."""
    result = {}
    async with _session(client, "/request") as session:
        await _request(session, bytes(MIB))
        for power in range(0, 25, 2):
            body = bytes(1 << power)
            times = []
            for _repeat in range(100 if power <= 16 else 10):
                started = time.perf_counter()
                await _request(session, body)
                times.append((time.perf_counter() - started) * 1e6)
            result[str(len(body))] = statistics.median(times)
    return result


SERIES = (
    Workload("stream-series", "streams asked for at once", "us", measure_stream_series),
    Workload("session-series", "sessions open", "ms", measure_session_series),
    Workload("pooled-series", "sessions on one connection", "ms", measure_pooled_series),
    Workload("size-series", "bytes of a message", "us", measure_size_series),
)


WORKLOADS = (
    # The handshake comes first: its cold value is then the first connection of a process.
    Workload("handshake", "handshake to usable session, p50", "ms", measure_handshake, ("p99",)),
    Workload(
        "connect-request-close", "connect, request, close; nothing kept, p50", "ms", measure_connect_request_close
    ),
    Workload("echo", "64-byte echo on an open stream, p50", "us", measure_echo, ("p99", "min")),
    Workload("request", "new stream, 64-byte request and response, p50", "us", measure_request, ("p99", "min")),
    Workload("datagram-echo", "64-byte datagram echo, p50", "us", measure_datagram_echo, ("p99", "min", "lost")),
    Workload("datagrams", "64-byte datagrams one way, received", "/s", measure_datagrams, ("lost %",)),
    Workload("small-in-flight", "64-byte requests, 100 in flight", "/s", measure_small_in_flight),
    Workload("large-in-flight", "64 KiB requests, 100 in flight", "/s", measure_large_in_flight),
    Workload("upload", "one stream up", "MB/s", measure_upload),
    Workload("download", "one stream down", "MB/s", measure_download),
    Workload("mixed-speed", "99 streams beside a slow reader: speed that is left", "%", measure_mixed_speed, ("MB/s",)),
    Workload(
        "idle-sessions",
        "idle sessions, memory of the server for each",
        "KB",
        measure_idle_sessions,
        ("client",),
        needs_fresh_processes=True,
    ),
)


# -- the server's side


async def serve_session(session: Session) -> None:
    """Answer one session by its path until it ends (an adapter's session then raises or stops iterating)."""
    if session.path == "/datagrams":
        await _count_datagrams(session)
    elif session.path == "/datagram-echo":
        while True:
            await session.send_datagram(await session.receive_datagram())
    else:
        answer = STREAM_ANSWERS[session.path]
        tasks: set[asyncio.Future[None]] = set()
        async for stream in session.incoming_streams():
            task = asyncio.ensure_future(answer(stream))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def _count_datagrams(session: Session) -> None:
    arrived = 0
    while True:
        await session.receive_datagram()
        arrived += 1
        if arrived % DATAGRAM_REPORT == 0:
            await session.send_datagram(arrived.to_bytes(8, "big"))


async def _answer_echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.write(b"", True)


async def _answer_request(stream: Stream) -> None:
    await stream.write(await _read_all(stream), True)


async def _answer_upload(stream: Stream) -> None:
    received = 0
    while piece := await stream.read():
        received += len(piece)
    await stream.write(received.to_bytes(8, "big"), True)


async def _answer_download(stream: Stream) -> None:
    size = int.from_bytes(await _read_all(stream), "big")
    for _ in range(size // len(CHUNK)):
        await stream.write(CHUNK)
    await stream.write(b"", True)


async def _answer_memory(stream: Stream) -> None:
    await _read_all(stream)
    await stream.write(_resident().to_bytes(8, "big"), True)


STREAM_ANSWERS: dict[str, Callable[[Stream], Coroutine[None, None, None]]] = {
    "/echo": _answer_echo,
    "/request": _answer_request,
    "/upload": _answer_upload,
    "/download": _answer_download,
    "/memory": _answer_memory,
}


# -- processes


def _run(main: Coroutine[None, None, None], loop: str, seconds: float) -> None:
    # Whatever hangs, also inside a library's own code, the process is gone a little after its time.
    faulthandler.dump_traceback_later(seconds + 10, exit=True)
    if loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)
    faulthandler.cancel_dump_traceback_later()


def server_main(serve: Callable[[argparse.Namespace, Callable[[int], None]], Coroutine[None, None, None]]) -> None:
    """Run a peer's server until its standard input ends or its time is over.

    ``serve(options, ready)`` calls ``ready(port)`` once it listens; ``options.port`` is a free port for a library
    that cannot ask for port 0.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()

    async def main() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        serving = asyncio.ensure_future(serve(options, _print_port))
        ending = asyncio.ensure_future(ended.wait())
        await asyncio.wait((serving, ending), timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if serving.done():
            serving.result()
        serving.cancel()
        await asyncio.wait((serving,), timeout=5.0)

    _run(main(), options.loop, options.seconds)


def _print_port(port: int) -> None:
    print(json.dumps({"port": port}), flush=True)


def client_main(make_client: Callable[[argparse.Namespace], Client]) -> None:
    """Run the workloads of a peer's client; one JSON line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cafile", required=True)
    parser.add_argument("--profile", choices=PROFILES, required=True)
    parser.add_argument("--divisor", type=int, default=1)
    parser.add_argument("--most-sessions", type=int, required=True)
    parser.add_argument("--workloads", required=True)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    wanted = set(options.workloads.split(","))
    profile = PROFILES[options.profile].scaled(options.divisor)
    profile = replace(profile, sessions=min(profile.sessions, options.most_sessions))

    async def main() -> None:
        client = make_client(options)
        for workload in (*WORKLOADS, *SERIES):
            if workload.name not in wanted:
                continue
            line: dict[str, object] = {"workload": workload.name}
            try:
                async with asyncio.timeout(profile.seconds):
                    line["values"] = await workload.measure(client, lambda: make_client(options), profile)
            except Exception as error:  # one broken workload must not hide the others
                line["error"] = f"{type(error).__name__}: {error}"[:300]
            print(json.dumps(line), flush=True)
        await client.close()

    _run(main(), options.loop, options.seconds)
