"""``wtio load``: many sessions at once, and how a server bears them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import wtio
from wtio._url import parse_url
from wtio.cli._figures import Times
from wtio.cli._options import add_connection_options, header_pairs, refuse, trust
from wtio.cli._returning import PER_MESSAGE, exchange, returns_while_open
from wtio.cli._status import Status
from wtio.cli._terminal import Board, visible
from wtio.cli._words import in_options, of_system

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers

_EACH: Final = 0.5  # seconds between two looks at the screen
_MOST: Final = 100_000
_LONGEST: Final = 24 * 3600  # seconds of a stage
_MOST_REASONS: Final = 20
# Handshakes under way at once: more of them only wait for each other, and then look slow.
_CONNECTING: Final = 64
# How long sessions may take to close at the end, in seconds.
_CLOSING: Final = 10.0


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "load",
        help="open thousands of sessions, and measure how a server bears them",
        description="Open sessions at a server that returns what it gets, as `wtio serve` does, and send messages on "
        "each. Their number rises evenly to --sessions within --ramp seconds and stays for --hold seconds; --stage "
        "30:500, repeated, describes any other course: within 30 seconds to 500. The first session is opened alone: if "
        "that fails, nothing else is tried, and if the server returns a stream only after its end, each message takes "
        "a stream of its own. The exit status is 1 if a later session or a message failed.",
    )
    parser.add_argument("url", help="such as https://localhost:4433/")
    parser.add_argument("--sessions", type=int, default=100, help="how many sessions (default: 100)")
    parser.add_argument("--ramp", type=float, default=5.0, metavar="SECONDS", help="until all are open (default: 5)")
    parser.add_argument("--hold", type=float, default=10.0, metavar="SECONDS", help="how long they stay (default: 10)")
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="SECONDS:SESSIONS",
        help="a part of the course, in place of --sessions, --ramp and --hold; repeatable",
    )
    parser.add_argument("--rate", type=float, default=1.0, help="messages per second and session (default: 1)")
    parser.add_argument("--size", type=int, default=64, metavar="BYTES", help="bytes of a message (default: 64)")
    parser.add_argument("--datagrams", action="store_true", help="send messages as datagrams, not on streams")
    parser.add_argument("--pool", action="store_true", help="let sessions share connections, if the server allows it")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end; times are seconds")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Put load on the server, print the figures, and return 0 if nothing failed."""
    # Here, because otherwise each session would fail with it.
    parse_url(options.url)
    if options.pool and (options.dev or options.hash):
        raise ValueError(
            f"--pool does not go with {'--dev' if options.dev else '--hash'}: as in browsers, sessions share "
            "connections only if the certificate is trusted otherwise; give --cafile or "
            "--dangerously-trust-any-certificate in its place, or leave --pool out"
        )
    stages = _stages(options)
    if not 0 < options.rate <= 10_000:
        raise ValueError(f"--rate is {options.rate:g}; it must be more than 0 and at most 10000")
    if not 1 <= options.size <= 65536:
        raise ValueError(f"--size is {options.size}; it must be 1 to 65536 bytes")
    return asyncio.run(_Load(options, stages).run())


def _stages(options: argparse.Namespace) -> list[tuple[float, int]]:
    """The course: seconds, and the sessions at their end."""
    if options.stage:
        refuse(options, ("--sessions", "--ramp", "--hold"), "does nothing beside --stage; leave one of them out")
    stages = []
    for text in options.stage:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)s?:(\d+)", text, re.ASCII)
        if found is None:
            raise ValueError(f"--stage is `{text}`; it must be SECONDS:SESSIONS, such as 30:500")
        stages.append((float(found[1]), int(found[2])))
    if not stages:
        for name, seconds in (("--ramp", options.ramp), ("--hold", options.hold)):
            if not 0 <= seconds <= _LONGEST:
                raise ValueError(f"{name} is {seconds:g}; it must be 0 to {_LONGEST} seconds")
        if not 1 <= options.sessions <= _MOST:
            raise ValueError(f"--sessions is {options.sessions}; it must be 1 to {_MOST}")
        stages = [(options.ramp, options.sessions), (options.hold, options.sessions)]
    for seconds, sessions in stages:
        if not 0 <= seconds <= _LONGEST:
            raise ValueError(f"--stage takes {seconds:g} seconds; it must be 0 to {_LONGEST}")
        if not 0 <= sessions <= _MOST:
            raise ValueError(f"--stage asks for {sessions} sessions; it must be 0 to {_MOST}")
    if not any(sessions for _, sessions in stages):
        raise ValueError("no --stage asks for a session; add one such as --stage 30:500")
    return stages


class _Load:
    """Opens and closes sessions as the course demands, and counts."""

    def __init__(self, options: argparse.Namespace, stages: list[tuple[float, int]]) -> None:
        # What was asked for.
        self._options = options
        self._stages = stages
        # Sessions that are being opened or are open, oldest first; and how many are open.
        self._tasks: list[asyncio.Task[None]] = []
        self._open = 0
        self._most_open = 0
        # Whether the first session is open, or has failed, and why it could not be opened; whether each message needs
        # a stream of its own, as it has found out.
        self._has_begun = asyncio.Event()
        self._refusal: Exception | None = None
        self._stream_per_message = False
        # Sessions that are being opened, and whether there are none.
        self._opening = 0
        self._settled = asyncio.Event()
        # Totals, and failures by what was said about them (the rest has no words of its own).
        self._opened = 0
        self._messages = 0
        self._has_sent = False
        self._failures: Counter[str] = Counter()
        self._lost = 0
        self._connecting = asyncio.Semaphore(_CONNECTING)
        self._connect_times = Times()
        self._message_times = Times()
        self._start = time.monotonic()
        self._board = Board(sys.stderr if options.json else sys.stdout)

    async def run(self) -> Status:
        """Run the course to its end."""
        options = self._options
        timeouts = wtio.Timeouts(connect=options.timeout)
        try:
            async with wtio.Client(tls=trust(options), timeouts=timeouts) as client:
                try:
                    await self._begin(client)
                    await self._follow(client)
                finally:
                    await self._change(client, 0)
        except asyncio.CancelledError:
            # Ctrl-C: what was measured until then is worth something.
            self._report()
            raise
        self._report()
        if self._failures:
            return Status.FAILED
        if self._has_sent and not self._messages and any(seconds for seconds, _ in self._stages):
            print(
                f"error: no message came back; does {options.url} return what it gets, as `wtio serve` does?",
                file=sys.stderr,
            )
            return Status.NO_ANSWER
        return Status.OK

    def _report(self) -> None:
        """Print the figures, in the place of what was shown before."""
        self._board.clear()
        if self._options.json:
            print(json.dumps(self._facts(), indent=2), flush=True)
        else:
            print("\n".join(self._lines(is_over=True)), flush=True)

    async def _begin(self, client: wtio.Client) -> None:
        """Open the first session alone: what is wrong with it, all others would repeat for the whole course."""
        self._board.show(self._lines())
        await self._change(client, 1)
        await self._has_begun.wait()
        if self._refusal is not None:
            self._board.clear()
            raise self._refusal
        self._start = time.monotonic()

    async def _follow(self, client: wtio.Client) -> None:
        # The first session is open.
        begin, before = time.monotonic(), 1
        shown = 0.0
        for seconds, sessions in self._stages:
            while (passed := time.monotonic() - begin) < seconds:
                await self._change(client, before + round((sessions - before) * passed / seconds))
                if time.monotonic() - shown > _EACH:
                    shown = time.monotonic()
                    self._board.show(self._lines())
                await asyncio.sleep(0.02)
            await self._change(client, sessions)
            # The next part begins when these are open, so that a slow server is seen with as many as were asked for.
            # The timeout of connecting ends this wait.
            late = time.monotonic()
            while self._opening:
                self._settled.clear()
                await self._settled.wait()
            begin, before = begin + seconds + (time.monotonic() - late), sessions

    async def _change(self, client: wtio.Client, wanted: int) -> None:
        """Open sessions, or close the oldest."""
        while len(self._tasks) < wanted:
            self._opening += 1
            self._tasks.append(asyncio.create_task(self._use_session(client)))
        surplus = self._tasks[: len(self._tasks) - wanted]
        del self._tasks[: len(surplus)]
        for task in surplus:
            task.cancel()
        if surplus:
            await asyncio.wait(surplus, timeout=_CLOSING)

    async def _use_session(self, client: wtio.Client) -> None:
        try:
            try:
                session = await self._connect(client)
            except (wtio.ConnectError, OSError, ValueError) as error:
                if self._has_begun.is_set():
                    raise
                self._refusal = error
                return
            finally:
                self._opening -= 1
                if not self._opening:
                    self._settled.set()
            async with session:
                self._opened += 1
                self._open += 1
                self._most_open = max(self._most_open, self._open)
                try:
                    if not self._has_begun.is_set():
                        await self._look(session)
                        self._has_begun.set()
                    await self._send(session)
                finally:
                    self._open -= 1
                    # With code 0: to leave by cancelling would look like a failure to the server.
                    await session.close()
        except wtio.WebTransportError as error:
            self._fail(str(error))
        except OSError as error:
            self._fail(of_system(error))
        except asyncio.IncompleteReadError:
            self._fail("the server ended a stream; it has to return what it gets, as `wtio serve` does")
        finally:
            self._has_begun.set()

    async def _look(self, session: wtio.WebTransportSession) -> None:
        """Find out when the server answers. If it never does, so will the messages say."""
        options = self._options
        if not options.datagrams:
            self._has_sent = True
            with contextlib.suppress(TimeoutError):
                while_open = await returns_while_open(session, options.size, options.timeout)
                self._stream_per_message = not while_open

    async def _connect(self, client: wtio.Client) -> wtio.WebTransportSession:
        options = self._options
        async with self._connecting:
            start = time.perf_counter()
            session = await client.connect(
                options.url,
                headers=header_pairs(options.header),
                protocols=options.protocol,
                origin=options.origin,
                allow_pooling=options.pool,
            )
        self._connect_times.add(time.perf_counter() - start)
        return session

    async def _send(self, session: wtio.WebTransportSession) -> None:
        options = self._options
        message = bytes(options.size)
        is_alone = options.datagrams or self._stream_per_message
        stream = None if is_alone else await session.create_bidirectional_stream()
        due = time.perf_counter()
        while True:
            start = time.perf_counter()
            self._has_sent = True
            try:
                async with asyncio.timeout(options.timeout):
                    if self._stream_per_message:
                        await exchange(session, message)
                    elif stream is None:
                        session.send_datagram(message)
                        await session.receive_datagram()
                    else:
                        await stream.write(data=message)
                        await stream.readexactly(n=options.size)
            except TimeoutError:
                if not options.datagrams:
                    self._fail(f"a message had no answer within {options.timeout:g} s")
                    return
                self._lost += 1
            else:
                self._messages += 1
                self._message_times.add(time.perf_counter() - start)
            due += 1 / options.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    def _fail(self, words: str) -> None:
        words = visible(in_options(words))
        if words not in self._failures and len(self._failures) < _MOST_REASONS:
            # Lines that are replaced are cut to the width of the terminal; this one is not.
            self._board.say(f"failed: {words}")
        self._failures[words if words in self._failures or len(self._failures) < _MOST_REASONS else "others"] += 1

    def _lines(self, *, is_over: bool = False) -> list[str]:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        what = "datagrams" if self._options.datagrams else "messages"
        lines = [
            f"time         {elapsed:.1f} s",
            # At the end all are closed, which says nothing.
            f"sessions     {'' if is_over else f'{self._open} open, '}{self._most_open} at most, {self._opened} in all",
            f"connecting   {self._connect_times.words()}",
            f"{what:<12} {self._messages} there and back, {self._messages / elapsed:.0f} per second",
            f"             {self._message_times.words()}",
        ]
        if self._stream_per_message:
            lines.append(f"             {PER_MESSAGE}")
        if self._options.datagrams:
            lines.append(f"lost         {self._lost}")
        lines.append(f"failed       {self._failures.total()}")
        lines += [f"  {count:>9}  {words}" for words, count in self._failures.most_common(_MOST_REASONS)]
        return lines

    def _facts(self) -> dict[str, Any]:
        return {
            "seconds": time.monotonic() - self._start,
            "sessions": {"opened": self._opened, "most": self._most_open},
            "connect": self._connect_times.facts(),
            "stream_per_message": self._stream_per_message,
            "messages": self._messages,
            "lost": self._lost,
            "times": self._message_times.facts(),
            "failed": self._failures.total(),
            "failures": dict(self._failures),
        }
