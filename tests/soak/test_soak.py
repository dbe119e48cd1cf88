"""A server and 200 sessions that come and go, in real time, over a relay that loses and repeats packets.

``WTIO_SOAK_SECONDS`` is how long: 20 by default, 1800 in ``make test-long``; memory is judged from 180 on. Half of the
sessions share a connection, a quarter only a socket, and a quarter has both for itself. Their streams end in every way
there is, and so do they. At the end all credit is back, descriptors, tasks and threads are as many as at the beginning,
and memory was flat.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

if TYPE_CHECKING:
    from types import TracebackType

SECONDS: Final = float(os.environ.get("WTIO_SOAK_SECONDS", "20"))
SESSIONS: Final = 200
LOSS: Final = 0.02
DUPLICATES: Final = 0.01
DELAY: Final = 0.005  # seconds, each way
SAMPLES: Final = 30
# The share of the time in which everything may still grow: what is kept for reuse is kept then.
WARM_UP: Final = 0.4
# Memory takes longer than a short run to settle.
LEAST_SECONDS_FOR_MEMORY: Final = 180
# What the second half of the rest may have more than the first. On a quiet machine it has nothing more; on a busy one
# more sessions and packets wait at once at some time, and Python keeps the room. In the second half of half an hour
# there are 13 000 sessions and 60 000 streams, so this is 1 200 bytes for each session or 280 for each stream.
MORE_MEMORY: Final = 16 * 1024 * 1024
# Streams, and with them tasks and connections, come and go by chance.
MORE_OF_OTHERS: Final = 1.25

pytestmark = pytest.mark.timeout(SECONDS + 1200)

Figures = dict[str, Any]


class Program:
    """A process of the soak: it answers lines with lines."""

    def __init__(self, module: str, *arguments: object) -> None:
        top = Path(__file__).parents[2]
        self.name = str(arguments[0])
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=top,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(top / "python"), str(top)])},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout

    def ask(self, *words: object) -> Any:
        """Have it do something, and give what it answers."""
        self.input.write(" ".join(map(str, words)) + "\n")
        self.input.flush()
        line = self.output.readline()
        assert line, f"the {self.name} has ended instead of: {words}"
        answer = json.loads(line)
        assert "error" not in answer, f"{self.name}, {' '.join(map(str, words))}: {answer['error']}"
        return answer["answer"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.input.close()
        try:
            assert self.process.wait(60 if error is None else 5) == 0 or error is not None, f"{self.name} failed"
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            if error is None:
                raise
        finally:
            self.output.close()


COLUMNS: Final = ("live", "sessions", "streams", "connections", "tasks", "descriptors", "threads", "failures")


def show(seconds: float, figures: Figures) -> None:
    columns = "".join(f"{figures[name]:>{len(name) + 2}}" for name in COLUMNS)
    memory = figures["rss"] / 2**20
    print(f"{seconds:7.0f} s  {figures['side']:6} {memory:8.1f} MiB {figures['processor']:7.1f} s{columns}", flush=True)


def growth(samples: list[Figures], name: str) -> tuple[float, float]:
    """The middle values of both halves of what was measured after the warm-up."""
    values = [figures[name] for figures in samples[int(len(samples) * WARM_UP) :]]
    middle = len(values) // 2
    return statistics.median(values[:middle]), statistics.median(values[middle:])


def test_sessions_that_come_and_go_leave_nothing(tmp_path: Path) -> None:
    with Program("tests.soak.sides", "server", tmp_path) as server:
        port = int(server.output.readline())
        with Program("tests.soak.relay", port, LOSS, DUPLICATES, DELAY) as relay:
            relay_port = int(relay.output.readline())
            with Program("tests.soak.sides", "client", relay_port) as client:
                soak(server, client)
            relay.input.close()
            print("relay:", relay.output.readline().strip())


def soak(server: Program, client: Program) -> None:
    sides = (server, client)
    client.ask("keep")
    # What is made once is made now.
    client.ask("start", 4)
    client.ask("stop")
    for side in sides:
        side.ask("quiet")
    before = [side.ask("figures") for side in sides]
    print(f"\n{'time':>9}  {'side':6} {'memory':>12} {'processor':>9}" + "".join(f"  {name}" for name in COLUMNS))
    for figures in before:
        show(0, figures)

    samples: list[list[Figures]] = [[], []]
    client.ask("start", SESSIONS)
    begin = time.monotonic()
    for number in range(SAMPLES):
        time.sleep(max(begin + (number + 1) * SECONDS / SAMPLES - time.monotonic(), 0))
        for side, taken in zip(sides, samples, strict=True):
            taken.append(side.ask("figures"))
            show(time.monotonic() - begin, taken[-1])
    client.ask("stop")
    for side in sides:
        side.ask("quiet")

    # All credit is back, both ways.
    for near, far in (sides, sides[::-1]):
        near.ask("credit", "open_all")
        far.ask("credit", "take_all")
    for near, far in (sides, sides[::-1]):
        near.ask("credit", "fill")
        far.ask("credit", "empty")
    for side in sides:
        side.ask("quiet")
        side.ask("collect")

    failures = [f"{side.name}: {failure}" for side in sides for failure in side.ask("failures")]
    print(*failures, sep="\n")
    # Connections that are closing keep their sockets for three probe timeouts (RFC 9000, section 10.2).
    deadline = time.monotonic() + 60
    while True:
        after = [side.ask("figures") for side in sides]
        left = [
            f"{then['side']} has {now[name]} {name}, and had {then[name]}"
            for then, now in zip(before, after, strict=True)
            for name in ("descriptors", "threads", "python_threads", "tasks", "connections")
            if now[name] > then[name]
        ]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for figures in after:
        show(time.monotonic() - begin, figures)
    print(f"{'':32}{'first half':>12}{'second half':>12}, after the warm-up")
    for figures in samples:
        for name in ("rss", "descriptors", "threads", "tasks", "connections"):
            first, second = growth(figures, name)
            scale, unit = (2**20, "MiB") if name == "rss" else (1, "")
            print(f"{figures[0]['side']:6}  {name:12}{unit:>12}{first / scale:12.1f}{second / scale:12.1f}")
            allowed = first + MORE_MEMORY if name == "rss" else first * MORE_OF_OTHERS + 5
            if second > allowed and (name != "rss" or SECONDS >= LEAST_SECONDS_FOR_MEMORY):
                left.append(f"{figures[0]['side']}: {name} grew from {first} to {second}")
    if SECONDS < LEAST_SECONDS_FOR_MEMORY:
        print(f"too short to judge memory, which takes {LEAST_SECONDS_FOR_MEMORY} s")
    assert not failures
    assert not left, left
    client.ask("leave")
