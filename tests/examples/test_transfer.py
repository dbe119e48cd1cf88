"""examples/transfer.py: files that arrive whole, although client, server and network are interrupted."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from .programs import SECONDS, port_of

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Program, Start

# Their programs run nothing of the library that other tests do not.
pytestmark = pytest.mark.unmeasured

TRANSFER = "examples/transfer.py"
SIZE = 32 * 1024 * 1024


def make_file(path: Path) -> bytes:
    content = os.urandom(SIZE)
    path.write_bytes(content)
    return content


def part_of(directory: Path) -> Path | None:
    """A file that is being received."""
    return next((path for path in directory.glob(".large.*") if path.stat().st_size), None)


async def in_the_middle(directory: Path) -> None:
    """Wait until a part of a file is there."""
    async with asyncio.timeout(SECONDS):
        while part_of(directory) is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


async def kill(program: Program) -> None:
    program.process.kill()
    await program.process.wait()


def check_resumed(output: str) -> None:
    (line,) = [line for line in output.splitlines() if line.startswith("large: done")]
    assert 0 < int(line.split()[2]) < SIZE


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


async def test_files_go_both_ways(start: Start, tmp_path: Path, shelf: Path) -> None:
    desk = tmp_path / "desk"
    desk.mkdir()
    (tmp_path / "small").write_bytes(b"few bytes")
    (tmp_path / "empty").write_bytes(b"")
    async with start(TRANSFER, "serve", shelf, "--port", "0") as server:
        port = await port_of(server)
        async with start(TRANSFER, "put", tmp_path / "small", tmp_path / "empty", "--port", port) as put:
            assert await put.finish() == 0, put.output
        async with start(TRANSFER, "get", "small", "none", "../desk/x", "empty", "--into", desk, "--port", port) as get:
            assert await get.finish() == 1
        assert "none: there is no such file" in get.output
    for directory in (shelf, desk):
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == {"small": b"few bytes", "empty": b""}


@pytest.mark.parametrize("verb", ["put", "get"])
async def test_a_client_that_was_killed_goes_on_where_it_was(
    start: Start, tmp_path: Path, shelf: Path, verb: str
) -> None:
    desk = tmp_path / "desk"
    desk.mkdir()
    source, target = (desk, shelf) if verb == "put" else (shelf, desk)
    content = make_file(source / "large")
    async with start(TRANSFER, "serve", shelf, "--port", "0") as server:
        command = (TRANSFER, verb, desk / "large", "--into", desk, "--port", await port_of(server))
        async with start(*command) as client:
            await in_the_middle(target)
            await kill(client)
        async with start(*command) as client:
            assert await client.finish() == 0, client.output
        check_resumed(client.output)
    assert [path.name for path in target.iterdir()] == ["large"]
    assert (target / "large").read_bytes() == content


async def test_a_server_that_was_killed_is_found_again(start: Start, tmp_path: Path, shelf: Path) -> None:
    content = make_file(tmp_path / "large")
    async with start(TRANSFER, "serve", shelf, "--port", "0") as server:
        port = await port_of(server)
        async with start(TRANSFER, "put", tmp_path / "large", "--port", port) as client:
            await in_the_middle(shelf)
            await kill(server)
            async with start(TRANSFER, "serve", shelf, "--port", port):
                assert await client.finish() == 0, client.output
            check_resumed(client.output)
    assert (shelf / "large").read_bytes() == content


async def test_a_file_that_changed_meanwhile_is_sent_from_its_beginning(
    start: Start, tmp_path: Path, shelf: Path
) -> None:
    make_file(tmp_path / "large")
    async with start(TRANSFER, "serve", shelf, "--port", "0") as server:
        command = (TRANSFER, "put", tmp_path / "large", "--port", await port_of(server))
        async with start(*command) as client:
            await in_the_middle(shelf)
            await kill(client)
        (tmp_path / "large").write_bytes(b"another file")
        async with start(*command) as client:
            assert await client.finish() == 0, client.output
        assert "large: done, 0 bytes were there" in client.output
    assert (shelf / "large").read_bytes() == b"another file"


async def test_a_part_that_is_damaged_is_thrown_away(start: Start, tmp_path: Path, shelf: Path) -> None:
    content = make_file(tmp_path / "large")
    async with start(TRANSFER, "serve", shelf, "--port", "0") as server:
        command = (TRANSFER, "put", tmp_path / "large", "--port", await port_of(server))
        async with start(*command) as client:
            await in_the_middle(shelf)
            await kill(client)
        part = part_of(shelf)
        assert part is not None
        with part.open("r+b") as file:
            file.write(b"damaged")
        async with start(*command) as client:
            assert await client.finish() == 1
        assert "try again" in client.output
        async with start(*command) as client:
            assert await client.finish() == 0, client.output
    assert (shelf / "large").read_bytes() == content
