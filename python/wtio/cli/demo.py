"""``python -m wtio demo``: a server and a client in two processes; shows what they can exchange, and how fast.

The server has three paths. ``/echo`` returns what the client sends, on ``/call`` the server opens the streams, and
``/transfer`` reads each stream to its end and then returns it. The server writes what it saw to its standard output, as
lines of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import wtio
from wtio.cli._echo import echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wtio.cli._types import Subparsers

_STREAMS: Final = 500
_STREAM_BYTES: Final = 1024
_AT_ONCE: Final = 32
_ROUND_TRIPS: Final = 1000
_ROUND_TRIP_BYTES: Final = 64
_DATAGRAMS: Final = 5000
_DATAGRAM_BYTES: Final = 1000
# Datagrams have no flow control. At most this many are sent ahead of their echoes, so that no queue overflows.
_DATAGRAMS_AHEAD: Final = 64
_TRANSFER_MIB: Final = 64
_CODE: Final = 7
_REASON: Final = "that is all"
_PATIENCE: Final = 60.0


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "demo",
        help="show streams, datagrams and transfers between two processes",
        description="Start a server and a client, move streams both ways, datagrams and 64 MiB each way, and end.",
    )
    parser.add_argument("--as-server", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the client's side, which starts the server's."""
    asyncio.run(_serve() if options.as_server else _demonstrate())
    return 0


# -- the server


async def _serve() -> None:
    """Serve until standard input ends, which it does when the parent process ends in any way."""
    certificate = wtio.dev_certificate()
    async with wtio.serve(_handle, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        _tell(port=server.addresses[0][1], sha256=certificate.sha256_hex)
        ended = asyncio.Event()
        # Not every system has loops that watch standard input.
        loop = asyncio.get_running_loop()
        threading.Thread(target=_wait_for_the_end, args=(loop, ended), daemon=True).start()
        await ended.wait()


def _wait_for_the_end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    # Not through `sys.stdin`, whose lock the interpreter would want when it exits.
    while os.read(0, 1024):
        pass
    # The loop is closed if the server has ended in another way.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(ended.set)


def _tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def _handle(session: wtio.WebTransportSession) -> None:
    match session.path:
        case "/echo":
            try:
                await echo(session)
            finally:
                info = await session.wait_closed()
                _tell(closed_by=info.closed_by, code=info.code, reason=info.reason)
        case "/call":
            _tell(
                bidirectional=await _repeat(_STREAMS, lambda: _bidirectional(session)),
                unidirectional=await _repeat(_STREAMS, lambda: _unidirectional(session)),
            )
        case "/transfer":
            async for stream in session.incoming_bidirectional_streams():
                await stream.write(data=await stream.read_all(), end_stream=True)


# -- both sides


async def _bidirectional(session: wtio.WebTransportSession) -> None:
    """Open a stream, write, and compare what comes back."""
    data = os.urandom(_STREAM_BYTES)
    async with await session.create_bidirectional_stream() as stream:
        await stream.write(data=data, end_stream=True)
        _check(await stream.read_all() == data, "a bidirectional stream came back changed")


async def _unidirectional(session: wtio.WebTransportSession) -> None:
    """Open a stream, write, and accept one that comes back, in any order."""
    stream = await session.create_unidirectional_stream()
    await stream.write(data=bytes(_STREAM_BYTES), end_stream=True)
    answer = await anext(session.incoming_unidirectional_streams())
    _check(await answer.read_all() == bytes(_STREAM_BYTES), "a unidirectional stream came back changed")


async def _repeat(count: int, action: Callable[[], Awaitable[None]]) -> float:
    """Run the action ``count`` times, several at once; returns the seconds that it took."""
    start = time.perf_counter()
    remaining = iter(range(count))

    async def work() -> None:
        for _ in remaining:
            await action()

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return time.perf_counter() - start


def _check(is_right: bool, otherwise: str) -> None:
    if not is_right:
        raise wtio.WebTransportError(otherwise)


# -- the client


async def _demonstrate() -> None:
    start = time.perf_counter()
    _line(f"wtio {wtio.__version__}: a server and a client, two processes, over UDP on this machine")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "wtio",
        "demo",
        "--as-server",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    server = _Server(process.stdout)
    try:
        facts = await server.next_report()
        url = f"https://127.0.0.1:{facts['port']}"
        tls = wtio.ClientTLS(certificate_hashes=[facts["sha256"]])
        _line()
        _line(f"server       {url}")
        _line(f"certificate  SHA-256 {facts['sha256']}")
        await _call(url, tls, server)
        await _transfer(url, tls)
    finally:
        process.stdin.close()
        await process.wait()
    _line()
    _line(f"done in {time.perf_counter() - start:.1f} s")


class _Server:
    """The server's process, as the client uses it."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output

    async def next_report(self) -> dict[str, Any]:
        """Wait for the next line of the server's output, and return what it says."""
        async with asyncio.timeout(_PATIENCE):
            line = await self._output.readline()
        if not line:
            raise OSError("the server's process ended early; what it said is above")
        facts: dict[str, Any] = json.loads(line)
        return facts


async def _call(url: str, tls: wtio.ClientTLS, server: _Server) -> None:
    """Streams from both sides, datagrams, and the end with code and reason."""
    start = time.perf_counter()
    async with wtio.connect(f"{url}/echo", tls=tls) as session:
        _line(f"session      in {_milliseconds(time.perf_counter() - start)}, {session.dialect}")
        _heading(f"streams, {_STREAMS} of each kind, {_STREAM_BYTES} bytes there and back, {_AT_ONCE} at once")
        _rate("client opens, both ways", await _repeat(_STREAMS, lambda: _bidirectional(session)), "streams")
        _rate("client opens, one way", await _repeat(_STREAMS, lambda: _unidirectional(session)), "streams")
        async with wtio.connect(f"{url}/call", tls=tls) as called:
            echoing = asyncio.create_task(echo(called))
            facts = await server.next_report()
            await called.wait_closed()
            await asyncio.gather(echoing, return_exceptions=True)
        _rate("server opens, both ways", facts["bidirectional"], "streams")
        _rate("server opens, one way", facts["unidirectional"], "streams")

        _heading(f"one message of {_ROUND_TRIP_BYTES} bytes there and back, {_ROUND_TRIPS} times")
        _times("on a stream that stays open", await _stream_round_trips(session))
        _times("in a datagram", await _datagram_round_trips(session))

        _heading(f"datagrams, {_DATAGRAMS} of {_DATAGRAM_BYTES} bytes")
        elapsed, returned = await _datagrams(session)
        _rate("there and back", elapsed, "datagrams", returned)
        _row("lost", f"{_DATAGRAMS - returned}")

        await session.close(_CODE, _REASON)
    facts = await server.next_report()
    _heading("the end of the session")
    _row("client closed with", f"code {_CODE}, reason “{_REASON}”")
    _row("server saw", f"code {facts['code']}, reason “{facts['reason']}”")
    _check((facts["code"], facts["reason"]) == (_CODE, _REASON), "the server saw another code or reason")


async def _stream_round_trips(session: wtio.WebTransportSession) -> list[float]:
    times = []
    async with await session.create_bidirectional_stream() as stream:
        for _ in range(_ROUND_TRIPS):
            start = time.perf_counter()
            await stream.write(data=bytes(_ROUND_TRIP_BYTES))
            await stream.readexactly(n=_ROUND_TRIP_BYTES)
            times.append(time.perf_counter() - start)
    return times


async def _datagram_round_trips(session: wtio.WebTransportSession) -> list[float]:
    times = []
    for _ in range(_ROUND_TRIPS):
        start = time.perf_counter()
        session.send_datagram(bytes(_ROUND_TRIP_BYTES))
        try:
            async with asyncio.timeout(1.0):
                await session.receive_datagram()
        except TimeoutError:
            continue
        times.append(time.perf_counter() - start)
    return times


async def _datagrams(session: wtio.WebTransportSession) -> tuple[float, int]:
    """Send datagrams, a few ahead of their echoes; returns the seconds that it took, and how many came back."""
    start = last = time.perf_counter()
    sent = returned = 0
    while returned < _DATAGRAMS:
        while sent < _DATAGRAMS and sent - returned < _DATAGRAMS_AHEAD:
            session.send_datagram(bytes(_DATAGRAM_BYTES))
            sent += 1
        try:
            async with asyncio.timeout(1.0):
                await session.receive_datagram()
        except TimeoutError:
            # Some were lost, as datagrams may be.
            break
        returned += 1
        last = time.perf_counter()
    return last - start, returned


async def _transfer(url: str, tls: wtio.ClientTLS) -> None:
    """Send a large piece of random data on a fresh connection, and get it back."""
    data = os.urandom(_TRANSFER_MIB * 1024 * 1024)
    async with (
        wtio.connect(f"{url}/transfer", tls=tls) as session,
        await session.create_bidirectional_stream() as stream,
    ):
        start = time.perf_counter()
        await stream.write_all(data=data, chunk_size=256 * 1024, end_stream=True)
        # The server answers when it has everything, so the first byte of its answer marks the end of the upload.
        first = await stream.readexactly(n=1)
        middle = time.perf_counter()
        rest = await stream.read_all()
        end = time.perf_counter()
        _heading(f"one stream of {_TRANSFER_MIB} MiB on a new connection")
        for name, elapsed in (("client to server", middle - start), ("server to client", end - middle)):
            _row(name, f"{len(data) / elapsed / 1e6:8,.0f} MB/s{elapsed:10.2f} s".replace(",", " "))
        _check(
            len(rest) + 1 == len(data) and data.startswith(first) and data.endswith(rest), "the data came back changed"
        )
        _row("", "all bytes came back as they were sent")


# -- words


def _line(text: str = "") -> None:
    print(text, flush=True)


def _heading(text: str) -> None:
    _line()
    _line(text)


def _row(name: str, value: str) -> None:
    _line(f"  {name:<30}{value}")


def _rate(name: str, elapsed: float, unit: str, count: int = _STREAMS) -> None:
    _row(name, f"{count / elapsed:8,.0f} {unit} per second".replace(",", " "))


def _times(name: str, times: list[float]) -> None:
    if not times:
        raise wtio.WebTransportError("no datagram came back")
    ordered = sorted(times)
    high = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    _row(name, f"median {statistics.median(ordered) * 1e6:6.0f} µs   99 % within {high * 1e6:6.0f} µs")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
