"""What becomes of connections whose event loop is late, and of memory when a reader pauses.

    python -m benchmarks.late               everything, about two minutes; exit status 1 if a bar is missed
    python -m benchmarks.late upload        only that; the names are hold, upload, pause and io
    python -m benchmarks.late --io thread   servers with io="thread"

Client and server are two processes on loopback, new ones for each line. Every byte that arrives is compared with what
was sent.

hold    The server's loop is blocked for 3 s while streams arrive. The client would give up after 1.5 s of silence.
upload  256 MiB to a server that is blocked for 20 ms in every 40 ms, against the same while it is not.
pause   256 MiB to a reader that pauses three times for 2 s, in both directions, on one stream and on 32: what
        ``write`` took beyond what was read, and how the memory of both processes grew, beside the limits.
io      io="thread" against io="loop": echo, bulk, and how long a server that is blocked for 20 ms in every 40 ms takes
        to acknowledge a few packets. There is no bar: it says what a thread costs and what it is worth.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

KIBIBYTE = 1024
MEBIBYTE = 1024 * 1024
WRITE_SIZE = 64 * KIBIBYTE
LIMITS = wtio.Limits()

HOLD_SECONDS = 3.0
HOLD_STREAMS = 24
HOLD_SIZE = 2 * MEBIBYTE
HOLD_IDLE = 1.5
HOLD_KEEP_ALIVE = 0.25

UPLOAD_RUNS = 9
UPLOAD_SIZE = 256 * MEBIBYTE
UPLOAD_BLOCKED = 0.020
UPLOAD_PERIOD = 0.040

PAUSE_SIZE = 256 * MEBIBYTE
PAUSE_STREAMS = (1, 32)
PAUSES = 3
PAUSE_SECONDS = 2.0
# Memory that does not hold payload: lists and headers around each packet, the allocator's rounding, Python's own.
PAUSE_ALLOWANCE = 1.25
PAUSE_SPARE = 2 * MEBIBYTE

IO_ECHOES = 5_000
IO_SIZE = 128 * MEBIBYTE
IO_ROUNDS = 5
IO_WRITES = 200
IO_WRITE_SIZE = 4000  # several packets, which are acknowledged at once and not after a while

# A length that is no multiple of anything, so that bytes at a wrong offset are noticed.
PATTERN_SIZE = 1_000_003
PATTERN = random.Random(0).randbytes(PATTERN_SIZE) * 2

Result = dict[str, Any]


# -- both sides


def pattern(offset: int, size: int) -> bytes:
    """What belongs at an offset of any stream; up to PATTERN_SIZE bytes."""
    start = offset % PATTERN_SIZE
    return PATTERN[start : start + size]


class Writer:
    """Sends the pattern on streams and knows how much of it was accepted, and when."""

    def __init__(self) -> None:
        self.accepted = 0
        self.samples: list[tuple[float, int]] = []

    async def send(self, stream: wtio.WebTransportSendStream, size: int) -> None:
        for offset in range(0, size, WRITE_SIZE):
            data = pattern(offset, min(WRITE_SIZE, size - offset))
            await stream.write(data=data, end_stream=offset + len(data) == size)
            self.accepted += len(data)

    async def sample(self) -> None:
        """Note every 20 ms how much was accepted. Runs until it is cancelled."""
        while True:
            self.samples.append((time.monotonic(), self.accepted))
            await asyncio.sleep(0.02)

    def at(self, moment: float) -> int:
        return max((count for when, count in self.samples if when <= moment), default=0)


class Reader:
    """Compares what arrives, and pauses where it has to."""

    def __init__(self, pauses_at: Sequence[int] = ()) -> None:
        self.count = 0
        self.wrong = 0
        self.pauses: list[dict[str, float]] = []
        self._pauses_at = list(pauses_at)
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._pausing: asyncio.Task[None] | None = None

    async def take(self, stream: wtio.WebTransportReceiveStream) -> int:
        """Read a stream to its end; how many bytes it had."""
        offset = 0
        while data := await stream.read(max_bytes=WRITE_SIZE):
            self.wrong += data != pattern(offset, len(data))
            offset += len(data)
            self.count += len(data)
            # Whoever waits holds nothing that was read: memory is to be the library's.
            del data
            if self._pauses_at and self.count >= self._pauses_at[0]:
                self._pauses_at.pop(0)
                self._may_read.clear()
                self._pausing = asyncio.ensure_future(self._pause())
            await self._may_read.wait()
        return offset

    async def _pause(self) -> None:
        begun = time.monotonic()
        await asyncio.sleep(PAUSE_SECONDS)
        self.pauses.append({"begun": begun, "over": time.monotonic(), "count": self.count})
        self._may_read.set()


class Memory:
    """Growth of this process's resident memory, at its highest."""

    def __init__(self) -> None:
        # Sets the high-water mark back to what is used now; see proc(5).
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._status("VmRSS")

    @property
    def growth(self) -> int:
        return self._status("VmHWM") - self._before

    @staticmethod
    def _status(name: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * KIBIBYTE
        raise LookupError(name)


async def gather_streams(
    session: wtio.WebTransportSession, count: int, take: Callable[[wtio.WebTransportReceiveStream], Awaitable[int]]
) -> int:
    """Take that many streams of the peer at once; how many bytes they had together."""
    incoming = session.incoming_unidirectional_streams()
    return sum(await asyncio.gather(*[take(await anext(incoming)) for _ in range(count)]))


async def send_streams(session: wtio.WebTransportSession, count: int, size: int, writer: Writer) -> None:
    """Send the pattern on that many streams at once."""
    streams = [await session.create_unidirectional_stream() for _ in range(count)]
    await asyncio.gather(*(writer.send(stream, size) for stream in streams))


async def send_result(session: wtio.WebTransportSession, result: Result) -> None:
    """Send the other side a result."""
    async with await session.create_unidirectional_stream() as stream:
        await stream.write_all(data=json.dumps(result).encode())


async def receive_result(session: wtio.WebTransportSession) -> Result:
    """Wait for the other side's result."""
    stream = await anext(session.incoming_unidirectional_streams())
    result: Result = json.loads(await stream.read_all())
    return result


# -- the server


async def serve_hold(session: wtio.WebTransportSession, _: dict[str, str]) -> None:
    reader = Reader()
    taking = asyncio.ensure_future(gather_streams(session, HOLD_STREAMS, reader.take))
    while reader.count < MEBIBYTE:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    begun = time.monotonic()
    time.sleep(HOLD_SECONDS)  # noqa: ASYNC251
    over = time.monotonic()
    result = {"count": await taking, "wrong": reader.wrong, "begun": begun, "over": over}
    await send_result(session, {**result, "loop_late_total": session.stats().loop_late_total})


async def be_late() -> None:
    """Block the loop for half of the time, until cancelled."""
    # Begin anywhere in a period: with six of them in one upload, the first makes a difference.
    await asyncio.sleep(random.uniform(0, UPLOAD_PERIOD - UPLOAD_BLOCKED))
    while True:
        time.sleep(UPLOAD_BLOCKED)  # noqa: ASYNC251
        await asyncio.sleep(UPLOAD_PERIOD - UPLOAD_BLOCKED)


async def serve_upload(session: wtio.WebTransportSession, options: dict[str, str]) -> None:
    reader = Reader()
    blocking = asyncio.ensure_future(be_late()) if options["blocked"] == "1" else None
    count = await gather_streams(session, 1, reader.take)
    if blocking is not None:
        blocking.cancel()
    await send_result(session, {"count": count, "wrong": reader.wrong})


async def receive_with_pauses(session: wtio.WebTransportSession, streams: int) -> Result:
    # The first pause is right after the first bytes.
    reader = Reader([PAUSE_SIZE * part // (PAUSES + 1) for part in range(PAUSES)])
    memory = Memory()
    count = await gather_streams(session, streams, reader.take)
    return {"count": count, "wrong": reader.wrong, "pauses": reader.pauses, "growth": memory.growth}


async def send_with_samples(session: wtio.WebTransportSession, streams: int) -> tuple[Writer, Memory]:
    writer = Writer()
    memory = Memory()
    sampling = asyncio.ensure_future(writer.sample())
    await send_streams(session, streams, PAUSE_SIZE // streams, writer)
    sampling.cancel()
    return writer, memory


def held_back(writer: Writer, pauses: list[dict[str, float]]) -> list[int]:
    """Bytes accepted beyond what was read, at the end of each pause; -1 where the writer did not stand still."""
    beyond = []
    for pause in pauses:
        accepted = writer.at(pause["over"] - 0.05)
        stood_still = accepted == writer.at(pause["over"] - PAUSE_SECONDS / 2)
        beyond.append(accepted - int(pause["count"]) if stood_still else -1)
    return beyond


async def serve_pause_up(session: wtio.WebTransportSession, options: dict[str, str]) -> None:
    await send_result(session, await receive_with_pauses(session, int(options["streams"])))


async def serve_pause_down(session: wtio.WebTransportSession, options: dict[str, str]) -> None:
    writer, memory = await send_with_samples(session, int(options["streams"]))
    pauses = (await receive_result(session))["pauses"]
    await send_result(session, {"growth": memory.growth, "held_back": held_back(writer, pauses)})


async def serve_io(session: wtio.WebTransportSession, _: dict[str, str]) -> None:
    stream = await anext(session.incoming_bidirectional_streams())
    while data := await stream.read():
        await stream.write(data=data)
    await send_result(session, {"count": await gather_streams(session, 1, Reader().take)})
    blocking = asyncio.ensure_future(be_late())
    await session.wait_closed()
    blocking.cancel()


CASES = {
    "/hold": serve_hold,
    "/upload": serve_upload,
    "/pause-up": serve_pause_up,
    "/pause-down": serve_pause_down,
    "/io": serve_io,
}


async def server_main(io: str, directory: str) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        url = urlsplit(session.path)
        await CASES[url.path](session, dict(parse_qsl(url.query)))
        await session.wait_closed()

    certificate = wtio.dev_certificate(directory=directory)
    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls(), io=io) as server:
        print(server.addresses[0][1], flush=True)
        # Until the parent closes the pipe.
        await asyncio.to_thread(sys.stdin.read)


# -- the client


class Client:
    """Opens sessions to one server."""

    def __init__(self, port: int, directory: str, io: str) -> None:
        self._port = port
        self._tls = wtio.dev_certificate(directory=directory).client_tls()
        self._io = io

    @contextlib.asynccontextmanager
    async def session(
        self, case: str, timeouts: wtio.Timeouts | None = None, **options: object
    ) -> AsyncIterator[wtio.WebTransportSession]:
        url = f"https://127.0.0.1:{self._port}/{case}?{urlencode(options)}"
        async with wtio.connect(url, tls=self._tls, timeouts=timeouts, io=self._io) as session:
            yield session


async def hold(client: Client) -> Result:
    timeouts = wtio.Timeouts(idle=HOLD_IDLE, keep_alive=HOLD_KEEP_ALIVE)
    samples: list[tuple[float, int]] = []

    async def sample() -> None:
        while True:
            samples.append((time.monotonic(), session.stats().packets_received))
            await asyncio.sleep(0.02)

    async with client.session("hold", timeouts) as session:
        sampling = asyncio.ensure_future(sample())
        sending = asyncio.ensure_future(send_streams(session, HOLD_STREAMS, HOLD_SIZE, Writer()))
        result = await receive_result(session)
        await sending
        sampling.cancel()
        lost = session.stats().packets_lost
    # The first half second has the data that was under way; what comes later answers probes.
    begun, over = result["begun"] + 0.5, result["over"]
    counts = [(when, count) for when, count in samples if begun <= when < over]
    answers = counts[-1][1] - counts[0][1]
    arrivals = [begun, *(when for (_, old), (when, new) in pairwise(counts) if new > old), over]
    silence = max(later - earlier for earlier, later in pairwise(arrivals))
    return {**result, "packets_lost": lost, "answers": answers, "silence": silence}


async def upload(client: Client) -> Result:
    result: Result = {}
    for blocked in (0, 1):
        async with client.session("upload", blocked=blocked) as session:
            stream = await session.create_unidirectional_stream()
            before = time.perf_counter()
            await Writer().send(stream, UPLOAD_SIZE)
            received = await receive_result(session)
            result["blocked" if blocked else "free"] = {
                **received,
                "speed": UPLOAD_SIZE / (time.perf_counter() - before) / 1e6,
                "packets_lost": session.stats().packets_lost,
                "packets_sent": session.stats().packets_sent,
            }
    return result


async def pause_up(client: Client, streams: int) -> Result:
    async with client.session("pause-up", streams=streams) as session:
        writer, memory = await send_with_samples(session, streams)
        reader = await receive_result(session)
        sides = {"writer_growth": memory.growth, "reader_growth": reader["growth"]}
        return {**reader, **sides, "held_back": held_back(writer, reader["pauses"])}


async def pause_down(client: Client, streams: int) -> Result:
    async with client.session("pause-down", streams=streams) as session:
        reader = await receive_with_pauses(session, streams)
        await send_result(session, {"pauses": reader["pauses"]})
        writer = await receive_result(session)
        sides = {"writer_growth": writer["growth"], "reader_growth": reader["growth"]}
        return {**reader, **sides, "held_back": writer["held_back"]}


async def compare_io(client: Client) -> Result:
    async with client.session("io") as session:
        stream = await session.create_bidirectional_stream()
        times = []
        for _ in range(IO_ECHOES):
            before = time.perf_counter()
            await stream.write(data=bytes(64))
            await stream.readexactly(n=64)
            times.append(time.perf_counter() - before)
        await stream.write(data=b"", end_stream=True)
        bulk = await session.create_unidirectional_stream()
        before = time.perf_counter()
        await Writer().send(bulk, IO_SIZE)
        await receive_result(session)
        speed = IO_SIZE / (time.perf_counter() - before) / 1e6
        late = await session.create_unidirectional_stream()
        acknowledged = []
        for _ in range(IO_WRITES):
            await asyncio.sleep(random.uniform(0, UPLOAD_PERIOD))
            before = time.perf_counter()
            await late.write(data=bytes(IO_WRITE_SIZE))
            await late.wait_acked()
            acknowledged.append((time.perf_counter() - before) * 1e3)
    echo = statistics.median(times[IO_ECHOES // 10 :]) * 1e6
    return {"echo": echo, "speed": speed, "acknowledged": statistics.quantiles(acknowledged, n=10)[-1]}


async def client_main(case: str, streams: int, port: int, directory: str, io: str) -> None:
    client = Client(port, directory, io)
    calls: dict[str, Callable[[], Awaitable[Result]]] = {
        "hold": lambda: hold(client),
        "upload": lambda: upload(client),
        "pause-up": lambda: pause_up(client, streams),
        "pause-down": lambda: pause_down(client, streams),
        "io": lambda: compare_io(client),
    }
    print(json.dumps(await calls[case]()))


# -- the lines


@contextlib.contextmanager
def server(io: str, directory: str) -> Iterator[int]:
    """A server process; gives its port."""
    command = [sys.executable, "-m", "benchmarks.late", "--server", "--io", io, "--directory", directory]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start")
        yield int(line)
        process.stdin.close()
        process.wait(30)


def measure(case: str, *, io: str, client_io: str = "loop", streams: int = 1) -> Result:
    """Run a case with a new client and a new server."""
    with tempfile.TemporaryDirectory() as directory, server(io, directory) as port:
        command = [sys.executable, "-m", "benchmarks.late", "--client", case, "--io", client_io]
        command += ["--directory", directory, "--port", str(port), "--streams", str(streams)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {done.returncode}")
    result: Result = json.loads(done.stdout)
    return result


def line(text: str, bars: dict[str, bool]) -> bool:
    """Print one line; whether all of its bars are met."""
    missed = [words for words, is_met in bars.items() if not is_met]
    verdict = "bar met: " + "; ".join(bars) if bars else "no bar"
    if missed:
        verdict = "bar MISSED: " + "; ".join(missed)
    print(f"{text}\n    {verdict}", flush=True)
    return not missed


def line_hold(io: str) -> bool:
    result = measure("hold", io=io)
    size = HOLD_STREAMS * HOLD_SIZE
    probes = (HOLD_SECONDS - 0.5) / HOLD_KEEP_ALIVE
    return line(
        f'hold, io="{io}": loop blocked {HOLD_SECONDS:g} s while {HOLD_STREAMS} streams of {HOLD_SIZE // MEBIBYTE} MiB '
        f"arrive: connection kept, {result['answers']} packets back once the data stood (about {probes:.0f} probes), "
        f"longest silence {result['silence']:.2f} s, {result['packets_lost']} packets lost, "
        f"{result['count'] / MEBIBYTE:g} MiB complete",
        {
            "every probe is answered": result["silence"] < 2 * HOLD_KEEP_ALIVE,
            "nothing is lost": result["count"] == size and result["wrong"] == 0,
        },
    )


def line_upload(io: str) -> bool:
    runs = [measure("upload", io=io) for _ in range(UPLOAD_RUNS)]
    blocked = [run["blocked"] for run in runs]
    shares = [run["blocked"]["speed"] / run["free"]["speed"] for run in runs]
    lossless = sum(run["packets_lost"] == 0 for run in blocked)
    lossless_free = sum(run["free"]["packets_lost"] == 0 for run in runs)
    lost = sum(run["packets_lost"] for run in blocked)
    is_complete = all(part["count"] == UPLOAD_SIZE and not part["wrong"] for run in runs for part in run.values())
    return line(
        f'upload, io="{io}": {UPLOAD_SIZE // MEBIBYTE} MiB to a loop blocked {UPLOAD_BLOCKED * 1000:g} ms in every '
        f"{UPLOAD_PERIOD * 1000:g} ms: {lossless} of {len(runs)} runs without a loss ({lossless_free} when not "
        f"blocked), {lost} of {sum(run['packets_sent'] for run in blocked)} packets lost in all; "
        f"median {statistics.median(run['speed'] for run in blocked):.0f} MB/s, "
        f"{statistics.median(shares):.2f} of the speed when not blocked ({min(shares):.2f} to {max(shares):.2f})",
        {
            "most runs without a loss": 2 * lossless > len(runs),
            "half of the speed": statistics.median(shares) >= 0.5,
            "every byte right": is_complete,
        },
    )


def line_pause(io: str, direction: str, streams: int) -> bool:
    result = measure(f"pause-{direction}", io=io, streams=streams)
    window = min(streams * LIMITS.stream_receive_window, LIMITS.connection_receive_window)
    # A stream may hold 16 KiB beyond the connection's bound (Limits.connection_send_buffer).
    queue = min(streams * LIMITS.stream_send_buffer, LIMITS.connection_send_buffer + streams * 16 * KIBIBYTE)
    bounds = {"held_back": window + queue, "writer": window + queue, "reader": window}
    most = max(result["held_back"])
    grown = {side: result[f"{side}_growth"] for side in ("writer", "reader")}

    def mebibytes(size: float) -> str:
        return f"{size / MEBIBYTE:.1f}"

    return line(
        f'pause, io="{io}": {PAUSE_SIZE // MEBIBYTE} MiB {direction} on {streams} stream{"s" * (streams > 1)}, reader '
        f"pauses {PAUSES} times for {PAUSE_SECONDS:g} s: the writer waits, at most {mebibytes(most)} MiB ahead of the "
        f"reader (bound {mebibytes(bounds['held_back'])}); memory of the writer +{mebibytes(grown['writer'])} MiB "
        f"(bound {mebibytes(bounds['writer'])}: unacknowledged window and queue), of the reader "
        f"+{mebibytes(grown['reader'])} MiB (bound {mebibytes(bounds['reader'])}: window)",
        {
            "the writer waits": min(result["held_back"]) >= 0 and most <= bounds["held_back"],
            **{
                f"memory of the {side}": size <= bounds[side] * PAUSE_ALLOWANCE + PAUSE_SPARE
                for side, size in grown.items()
            },
            "every byte right": result["count"] == PAUSE_SIZE and not result["wrong"],
            "all pauses were made": len(result["pauses"]) == PAUSES,
        },
    )


def line_io() -> bool:
    results: dict[str, list[Result]] = {"loop": [], "thread": []}
    for _ in range(IO_ROUNDS):
        for io, rows in results.items():
            rows.append(measure("io", io=io, client_io=io))
    of = {
        name: {io: statistics.median(row[name] for row in rows) for io, rows in results.items()}
        for name in ("echo", "speed", "acknowledged")
    }
    return line(
        f'io="thread" on both sides against io="loop", medians of {IO_ROUNDS}: echo of 64 bytes '
        f"{of['echo']['thread']:.0f} µs against {of['echo']['loop']:.0f} µs "
        f"({of['echo']['thread'] / of['echo']['loop']:.1f} times as long), one stream up "
        f"{of['speed']['thread']:.0f} MB/s against {of['speed']['loop']:.0f} MB/s "
        f"({of['speed']['thread'] / of['speed']['loop']:.2f} of it); nine of ten writes to a loop blocked "
        f"{UPLOAD_BLOCKED * 1000:g} ms in every {UPLOAD_PERIOD * 1000:g} ms are acknowledged within "
        f"{of['acknowledged']['thread']:.2f} ms against {of['acknowledged']['loop']:.2f} ms",
        {},
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.late", description=__doc__.partition("\n")[0])
    parser.add_argument("lines", nargs="*", metavar="line", help="hold, upload, pause, io; default all")
    parser.add_argument("--io", choices=("loop", "thread"), default="loop", help="of the servers")
    parser.add_argument("--server", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--streams", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        asyncio.run(server_main(options.io, options.directory))
        return 0
    if options.client:
        asyncio.run(client_main(options.client, options.streams, options.port, options.directory, options.io))
        return 0
    makers: dict[str, list[Callable[[], bool]]] = {
        "hold": [lambda: line_hold(options.io)],
        "upload": [lambda: line_upload(options.io)],
        "pause": [
            (lambda direction=direction, streams=streams: line_pause(options.io, direction, streams))  # type: ignore[misc]
            for direction in ("up", "down")
            for streams in PAUSE_STREAMS
        ],
        "io": [line_io],
    }
    wanted = options.lines or list(makers)
    if unknown := [name for name in wanted if name not in makers]:
        parser.error(f"no such line: {', '.join(unknown)}; there are {', '.join(makers)}")
    print(f"wtio {wtio.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores", flush=True)
    # All lines, whatever becomes of the first.
    missed = [name for name in wanted for make in makers[name] if not make()]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
