"""Every program in examples/ does what its docstring says."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from .programs import url_of
from .terminals import sitting_at

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start

# Their programs run nothing of the library that other tests do not.
pytestmark = pytest.mark.unmeasured


async def test_echo(start: Start) -> None:
    async with start("examples/echo_server.py", "--port", "0") as server:
        async with start("examples/echo_client.py", await url_of(server)) as client:
            assert await client.finish() == 0
        assert client.output.splitlines() == ["hello on a stream", "hello in a datagram"]


async def test_chat(start: Start) -> None:
    async with start("examples/chat_server.py", "--port", "0") as server:
        url = await url_of(server)
        async with start("examples/chat_client.py", "ada", url) as ada:
            await ada.until("welcome, ada; here: ada")
            await ada.says("anybody here?")
            async with start("examples/chat_client.py", "grace", url) as grace:
                await grace.until("welcome, grace; here: ada, grace")
                await ada.until("grace joined")
                await ada.says("hello Grace")
                await grace.until("ada: hello Grace")
                await grace.says("hello Ada")
                await ada.until("grace: hello Ada")
                assert await grace.finish() == 0
            await ada.until("grace left")
            async with start("examples/chat_client.py", "ada", url) as double:
                assert "taken" in await double.until("sent you away")
                assert await double.finish() == 0
            assert await ada.finish() == 0


@pytest.mark.parametrize("way", ["key", "signal"])
async def test_ctrl_c_leaves_the_chat_at_once_and_without_a_traceback(start: Start, tmp_path: Path, way: str) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    async with start("examples/chat_server.py", "--port", "0") as server:
        url = await url_of(server)
        async with (
            start("examples/chat_client.py", "grace", url) as grace,
            sitting_at("examples/chat_client.py", "ada", url, environment=environment) as ada,
        ):
            await grace.until("welcome, grace")
            await ada.until("welcome, ada")
            if way == "key":
                ada.type("\x03")
            else:
                ada.process.send_signal(signal.SIGINT)
            assert await ada.finish() == 0
            await grace.until("ada left")
            assert "Traceback" not in ada.text
            assert "Fatal" not in ada.text
            assert await grace.finish() == 0


async def test_file_transfer(start: Start, tmp_path: Path) -> None:
    shelf, desk = tmp_path / "shelf", tmp_path / "desk"
    shelf.mkdir()
    desk.mkdir()
    content = os.urandom(3_000_000)
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    async with start("examples/file_server.py", shelf, "--port", "0") as server:
        url = await url_of(server)
        async with start("examples/file_client.py", "put", tmp_path / "large", tmp_path / "empty", "--url", url) as put:
            assert await put.finish() == 0, put.output
        assert "large: 3000000 bytes stored" in put.output
        assert (shelf / "large").read_bytes() == content
        async with start("examples/file_client.py", "get", "large", "empty", "--into", desk, "--url", url) as get:
            assert await get.finish() == 0, get.output
        assert (desk / "large").read_bytes() == content
        assert (desk / "empty").read_bytes() == b""
        async with start(
            "examples/file_client.py", "get", "../desk/large", "none", "--into", desk, "--url", url
        ) as get:
            assert await get.finish() == 1
        assert "none: the server has no such file" in get.output
        assert sorted(path.name for path in desk.iterdir()) == ["empty", "large"]
    assert sorted(path.name for path in shelf.iterdir()) == ["empty", "large"]
