"""``wtio bench``: how fast a server returns streams and datagrams, and how many datagrams get lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from wtio.cli._figures import Times, amount, milliseconds, per_second
from wtio.cli._options import add_connection_options, connector
from wtio.cli._returning import PER_MESSAGE, exchange, returns_while_open
from wtio.cli._status import Status
from wtio.cli._terminal import Board

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import wtio
    from wtio.cli._types import Subparsers

_CHUNK: Final = 64 * 1024
_AT_ONCE: Final = 8  # streams at once for throughput, if each takes one chunk
_EACH: Final = 0.2  # seconds between two looks at the screen
_LATE: Final = 1.0  # seconds after which a datagram counts as lost
# A datagram begins with its number and the time at which it was sent.
_HEAD: Final = struct.Struct("!Qd")


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "bench",
        help="measure latency, throughput and lost datagrams",
        description="Measure a server that returns what it gets, as `wtio serve` does: the time of a message there and "
        "back on a stream, bytes per second there and back, and datagrams: their time and how many get lost. Figures "
        "change while it runs, if standard output is a terminal. It uses one session; `wtio load` opens many. If the "
        "server returns a stream only after its end, each message takes a stream of its own; datagrams that it does "
        "not return count as lost.",
    )
    parser.add_argument("url", help="such as https://localhost:4433/")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each of the parts takes (default: 3)")
    parser.add_argument("--size", type=int, default=64, metavar="BYTES", help="bytes of a message (default: 64)")
    parser.add_argument("--rate", type=float, default=500.0, help="datagrams per second (default: 500)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end; times are seconds")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 0 if everything came back that has to."""
    if not 0 < options.seconds <= 3600:
        raise ValueError(f"--seconds is {options.seconds:g}; it must be more than 0 and at most 3600")
    if not _HEAD.size <= options.size <= 65536:
        raise ValueError(f"--size is {options.size}; it must be {_HEAD.size} to 65536 bytes")
    if not 0 < options.rate <= 100_000:
        raise ValueError(f"--rate is {options.rate:g}; it must be more than 0 and at most 100000")
    return asyncio.run(_bench(options))


async def _bench(options: argparse.Namespace) -> Status:
    start = time.perf_counter()
    error = ""
    async with connector(options) as session:
        bench = _Bench(session, options, time.perf_counter() - start)
        try:
            await _with_board(bench, bench.look, options.timeout)
            for part in (bench.latency, bench.throughput, bench.datagrams):
                await _with_board(bench, part, options.seconds + options.timeout)
            status = Status.OK
        except TimeoutError:
            status = Status.NO_ANSWER
            neither = "" if bench.has_looked else ", neither while a stream was open nor after its end"
            error = f"nothing came back within {options.timeout:g} s{neither}; does {options.url} return what it gets"
        except asyncio.IncompleteReadError as short:
            status = Status.FAILED
            error = (
                f"the server ended a stream after {len(short.partial)} of {short.expected} bytes; it has to return them"
            )
        finally:
            # After Ctrl-C, too: what was measured until then is worth something.
            bench.report(as_json=options.json)
    if error:
        print(f"error: {error}, as `wtio serve` does{'?' if status is Status.NO_ANSWER else ''}", file=sys.stderr)
    return status


async def _with_board(bench: _Bench, part: Callable[[float], Any], patience: float) -> None:
    """Run a part of it for its seconds, and show how it goes."""

    async def show() -> None:
        while True:
            bench.board.show(bench.lines())
            await asyncio.sleep(_EACH)

    showing = asyncio.create_task(show())
    try:
        async with asyncio.timeout(patience):
            await part(bench.seconds)
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


class _Bench:
    """The figures of one session, as they come."""

    def __init__(self, session: wtio.WebTransportSession, options: argparse.Namespace, connected: float) -> None:
        # The session, seconds that each part takes, bytes of a message, datagrams per second.
        self._session = session
        self.seconds: float = options.seconds
        self._size: int = options.size
        # Seconds to wait for the first answer.
        self._patience: float = options.timeout
        self._rate: float = options.rate
        # Seconds until there was a session, and the times of messages there and back.
        self._connected = connected
        self._on_stream = Times()
        self._as_datagram = Times()
        # Bytes that came back on a stream, and the seconds that they took.
        self._returned = 0
        self._elapsed = 0.0
        # Whether it is known how the server answers, and whether each message needs a stream of its own.
        self.has_looked = False
        self._stream_per_message = False
        # Datagrams sent, and come back.
        self._sent = 0
        self._received = 0
        # With JSON, a terminal shows the lines until the object comes.
        self.board = Board(sys.stderr if options.json else sys.stdout)

    async def look(self, _: float) -> None:
        """Find out when the server answers."""
        self._stream_per_message = not await returns_while_open(self._session, self._size, self._patience)
        self.has_looked = True

    async def latency(self, seconds: float) -> None:
        """One message after the other, each waiting for the one before to come back."""
        message = bytes(self._size)
        if self._stream_per_message:
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                await exchange(self._session, message)
                self._on_stream.add(time.perf_counter() - start)
            return
        async with await self._session.create_bidirectional_stream() as stream:
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                await stream.write(data=message)
                await stream.readexactly(n=self._size)
                self._on_stream.add(time.perf_counter() - start)

    async def throughput(self, seconds: float) -> None:
        """As many bytes as go, on one stream, while what comes back is counted."""
        if self._stream_per_message:
            await self._throughput_by_chunks(seconds)
            return
        stream = await self._session.create_bidirectional_stream()
        chunk = bytes(_CHUNK)

        async def send() -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                await stream.write(data=chunk)
            await stream.write(data=b"", end_stream=True)

        start = time.perf_counter()
        sending = asyncio.create_task(send())
        try:
            async for data in stream:
                self._returned += len(data)
                self._elapsed = time.perf_counter() - start
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await stream.close()

    async def _throughput_by_chunks(self, seconds: float) -> None:
        """The same with a stream for each chunk, a few at once: a server may hold all of a stream in memory."""
        chunk = bytes(_CHUNK)
        start = time.perf_counter()

        async def repeat() -> None:
            while time.perf_counter() < start + seconds:
                await exchange(self._session, chunk)
                self._returned += len(chunk)
                self._elapsed = time.perf_counter() - start

        repeating = [asyncio.create_task(repeat()) for _ in range(_AT_ONCE)]
        try:
            await asyncio.gather(*repeating)
        finally:
            for task in repeating:
                task.cancel()
            await asyncio.gather(*repeating, return_exceptions=True)

    async def datagrams(self, seconds: float) -> None:
        """Datagrams at an even rate; those that are not back after a second are lost."""
        padding = bytes(self._size - _HEAD.size)
        start = time.perf_counter()
        receiving = asyncio.create_task(self._receive_datagrams(start))
        try:
            while (now := time.perf_counter()) < start + seconds:
                due = int((now - start) * self._rate) + 1
                while self._sent < due:
                    self._session.send_datagram(_HEAD.pack(self._sent, time.perf_counter()) + padding)
                    self._sent += 1
                await asyncio.sleep(max(0.001, (self._sent / self._rate) - (time.perf_counter() - start)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LATE):
                    await receiving
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _receive_datagrams(self, start: float) -> None:
        wanted = int(self.seconds * self._rate)
        while self._received < max(wanted, 1):
            data = await self._session.receive_datagram()
            now = time.perf_counter()
            if len(data) != self._size:
                continue
            _, sent = _HEAD.unpack_from(data)
            # Another server may send something of its own.
            if start <= sent <= now:
                self._received += 1
                self._as_datagram.add(now - sent)

    @property
    def _loss(self) -> float:
        return 1 - min(1.0, self._received / self._sent) if self._sent else 0.0

    def report(self, *, as_json: bool) -> None:
        """Print what is known, in the place of what was shown before."""
        self.board.clear()
        if as_json:
            stats = self._session.stats()
            facts = self.facts() | {"rtt": stats.rtt, "mtu": stats.mtu, "packets_lost": stats.packets_lost}
            print(json.dumps(facts, indent=2), flush=True)
        else:
            print("\n".join(self.lines()), flush=True)

    def lines(self) -> list[str]:
        """What is known, for people."""
        rate = self._returned / self._elapsed if self._elapsed else 0.0
        session = f"{milliseconds(self._connected)}, {self._session.dialect}"
        lines = [f"session      {session}", f"stream       {self._on_stream.words()}"]
        if self._stream_per_message:
            lines.append(f"             {PER_MESSAGE}")
        if self._elapsed:
            lines.append(f"throughput   {per_second(rate)} there and back ({amount(self._returned)})")
        if self._sent:
            lines += [
                f"datagrams    {self._as_datagram.words()}",
                f"             {self._sent} sent, {self._sent - self._received} lost ({self._loss:.2%})",
            ]
        return lines

    def facts(self) -> dict[str, Any]:
        """The same for programs; None stands for what was not measured."""
        throughput, datagrams = None, None
        if self._elapsed:
            throughput = {
                "bytes": self._returned,
                "seconds": self._elapsed,
                "bytes_per_second": self._returned / self._elapsed,
            }
        if self._sent:
            datagrams = {
                "sent": self._sent,
                "received": self._received,
                "loss": self._loss,
                "times": self._as_datagram.facts(),
            }
        return {
            "connect": self._connected,
            "draft": self._session.dialect,
            "size": self._size,
            "stream_per_message": self._stream_per_message,
            "stream": self._on_stream.facts(),
            "throughput": throughput,
            "datagrams": datagrams,
        }
