"""Pictures of a terminal in the documentation: the commands still show what they show there."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from wtio.cli._status import Status

from .programs import port_of, url_of
from .screens import Screen, keep_or_compare
from .terminals import Terminal, sitting_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .programs import Start

COLUMNS = 88


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    # The width that somebody exported is that of another terminal.
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "31"}
    return {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | own


@pytest.fixture
async def port(start: Start) -> AsyncIterator[str]:
    """Where `wtio serve` listens; in pictures it is 4433, which is what a reader sees."""
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        yield await port_of(server)


@contextlib.asynccontextmanager
async def at(port: str, environment: dict[str, str], command: str, *arguments: str) -> AsyncIterator[Terminal]:
    url = f"https://127.0.0.1:{port}/"
    async with sitting_at(
        "-m", "wtio", command, url, "--dev", *arguments, environment=environment, columns=COLUMNS
    ) as terminal:
        yield terminal


def screen_of(terminal: Terminal, command: str, ports: dict[str, str]) -> Screen:
    output = terminal.output
    for real, shown in ports.items():
        output = output.replace(real, shown)
    screen = Screen(COLUMNS)
    screen.feed(f"\x1b[2m$\x1b[0m \x1b[1m{command}\x1b[0m\r\n{output}")
    return screen


async def test_connect_shows_what_its_picture_shows(port: str, environment: dict[str, str]) -> None:
    async with at(port, environment, "connect") as terminal:
        answers = {"hello": "< hello", "/uni one way": ": one way", "/dgram tick": ": tick", "/stats": "streams: "}
        for number, (typed, answer) in enumerate(answers.items(), 1):
            await terminal.until(">", times=number)
            terminal.type(f"{typed}\r")
            await terminal.until(answer)
        # What is typed before the prompt is there is shown twice.
        await terminal.until(">", times=len(answers) + 1)
        terminal.type("/close 7 bye\r")
        assert await terminal.finish() == 0
        await terminal.until("\nclosed")
    screen = screen_of(terminal, "wtio connect https://127.0.0.1:4433/ --dev", {port: "4433"})
    assert "> /close 7 bye" in screen.lines()
    assert "" not in screen.lines(), "lines above the prompt take as much room as they need"
    keep_or_compare(screen, "connect", "wtio connect: lines at a prompt, and what the server answers")


async def test_the_chat_shows_what_its_picture_shows(start: Start, environment: dict[str, str]) -> None:
    async with start("examples/chat_server.py", "--port", "0") as server:
        url = await url_of(server)
        arguments = ("examples/chat_client.py", "ada", url)
        async with sitting_at(*arguments, environment=environment, columns=COLUMNS) as ada:
            await ada.until("ada")
            async with start("examples/chat_client.py", "grace", url) as grace:
                await ada.until("grace")
                await grace.says("hello, is anybody here?")
                await ada.until("anybody here?")
                ada.type("good morning, grace\r")
                await grace.until("good morning")
            await ada.until("left")
            ada.type("\x04")
            assert await ada.finish() == 0
    screen = screen_of(ada, "python examples/chat_client.py ada", {})
    keep_or_compare(screen, "chat", "The client of the chat, in which ada and grace talk")


async def test_bench_shows_what_its_picture_shows(port: str, environment: dict[str, str]) -> None:
    async with at(port, environment, "bench", "--seconds", "1") as terminal:
        assert await terminal.finish() == 0
        await terminal.until("lost (")
    screen = screen_of(terminal, "wtio bench https://127.0.0.1:4433/ --dev --seconds 1", {port: "4433"})
    keep_or_compare(screen, "bench", "wtio bench: latency, throughput, datagrams")


async def test_load_shows_what_its_picture_shows(port: str, environment: dict[str, str]) -> None:
    course = ("--sessions", "50", "--ramp", "1", "--hold", "1")
    async with at(port, environment, "load", *course) as terminal:
        assert await terminal.finish() == 0
        await terminal.until("failed")
    command = f"wtio load https://127.0.0.1:4433/ --dev {' '.join(course)}"
    keep_or_compare(screen_of(terminal, command, {port: "4433"}), "load", "wtio load: many sessions, percentiles")


async def test_doctor_shows_what_its_picture_shows(environment: dict[str, str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = str(taken.getsockname()[1])
    async with at(nobody, environment, "doctor") as terminal:
        assert await terminal.finish() == Status.NO_CONNECTION
        await terminal.until("problem")
    screen = screen_of(terminal, "wtio doctor https://127.0.0.1:4433/ --dev", {nobody: "4433"})
    keep_or_compare(screen, "doctor", "wtio doctor: why there is no connection, and what to do")


async def test_serve_shows_what_its_picture_shows(environment: dict[str, str], tmp_path: Path) -> None:
    # As it is where wtio is installed, wherever the tests run.
    script = tmp_path / "wtio"
    script.touch(0o755)
    environment |= {"PATH": os.pathsep.join((str(tmp_path), environment["PATH"]))}
    arguments = ("-m", "wtio", "serve", "--port", "0", "--page-port", "0")
    async with sitting_at(*arguments, environment=environment, columns=COLUMNS) as terminal:
        text = await terminal.until("Ctrl-C ends it")
        urls = [line.split()[-1] for line in text.splitlines() if line.startswith(("echo", "page"))]
        terminal.type("\x03")
        assert await terminal.finish() == 0
        await terminal.until("closed")
    ports = dict(zip((url.strip("/").rpartition(":")[2] for url in urls), ("4433", "8080"), strict=True))
    keep_or_compare(screen_of(terminal, "wtio serve", ports), "serve", "wtio serve: where it listens, and its page")
