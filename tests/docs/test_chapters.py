"""Chapters that go through an example show its parts as they are in the file."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio.testing import Network, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TOP = Path(__file__).parents[2]
EXAMPLES = {
    "chat": {"python": "chat_server.py"},
    "game": {"python": "game.py", "javascript": "game.html"},
}


@pytest.mark.parametrize("page", EXAMPLES)
def test_each_part_of_a_chapter_is_in_its_example(page: str) -> None:
    text = (TOP / "docs" / f"{page}.md").read_text(encoding="utf-8")
    parts = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert {language for language, _ in parts} == EXAMPLES[page].keys()
    for language, part in parts:
        name = EXAMPLES[page][language]
        code = "\n" + (TOP / "examples" / name).read_text(encoding="utf-8")
        assert any("\n" + indent(part, " " * depth) in code for depth in (0, 4, 8)), f"not in {name}:\n{part}"


def test_pages_show_their_code_where_nothing_is_included() -> None:
    # Only the first page of the site is made of others; README.md says where they are.
    for page in (TOP / "docs").glob("*.md"):
        if page.name != "index.md":
            assert "{literalinclude}" not in page.read_text(encoding="utf-8"), page.name
    assert "](../README.md)" in (TOP / "docs" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["streams", "from-websocket", "from-aioquic"])
def test_all_arguments_of_streams_are_given_by_name_as_pages_say(page: str) -> None:
    assert re.search(r"All arguments of streams are given by name", (TOP / "docs" / f"{page}.md").read_text("utf-8"))
    methods = [
        method
        for name in dir(wtio.WebTransportStream)
        if not name.startswith("_") and inspect.isfunction(method := getattr(wtio.WebTransportStream, name))
    ]
    by_position = {
        method.__name__
        for method in methods
        for parameter in list(inspect.signature(method).parameters.values())[1:]
        if parameter.kind is not parameter.KEYWORD_ONLY
    }
    assert len(methods) > 10
    assert by_position == {"readinto"}


READS: dict[str, Callable[[wtio.WebTransportReceiveStream], Awaitable[bytes]]] = {
    "read": lambda stream: stream.read(),
    "read_all": lambda stream: stream.read_all(),
    "readline": lambda stream: stream.readline(),
    "readexactly": lambda stream: stream.readexactly(n=1000),
    "readuntil": lambda stream: stream.readuntil(separator=b"\n"),
}


@pytest.mark.parametrize("call", READS)
def test_a_handler_that_returns_ends_a_stream_that_its_client_reads_as_the_page_says(call: str) -> None:
    async def handle(session: wtio.WebTransportSession) -> None:
        stream = await session.create_unidirectional_stream()
        await stream.write(data=b"half")
        await asyncio.sleep(1)

    async def main() -> None:
        network = Network()
        async with network.serve(handle), network.connect("https://localhost/") as session:
            stream = await anext(session.incoming_unidirectional_streams())
            if call == "read":
                assert await stream.read() == b"half"
            with pytest.raises(wtio.SessionClosedOK):
                await READS[call](stream)

    run(main())


@pytest.mark.parametrize("code", [0, 1])
def test_loops_end_as_the_page_on_streams_says(code: int) -> None:
    """The peer opens two streams, of which one is whole, and closes the session."""
    closed = wtio.SessionClosedOK if code == 0 else wtio.SessionClosedError
    done = asyncio.Event()

    async def handle(session: wtio.WebTransportSession) -> None:
        streams = session.incoming_unidirectional_streams()
        await asyncio.sleep(5)
        assert (await session.wait_closed()).code == code
        whole, half = await anext(streams), await anext(streams)
        assert [chunk async for chunk in whole] == [b"whole"]
        assert await whole.readline() == b""
        with pytest.raises(asyncio.IncompleteReadError):
            await whole.readexactly(n=1)
        for call in READS.values():
            with pytest.raises(closed):
                await call(half)
        with pytest.raises(closed):
            await anext(streams)
        datagrams = session.incoming_datagrams()
        assert await anext(datagrams) == b"datagram"
        with pytest.raises(closed):
            await anext(datagrams)
        with pytest.raises(closed):
            await session.receive_datagram()
        if code == 0:
            await session.serve_streams(datagrams=print)
        else:
            with pytest.raises(closed):
                await session.serve_streams(datagrams=print)
        done.set()

    async def main() -> None:
        network = Network()
        async with network.serve(handle), network.connect("https://localhost/") as session:
            whole, half = [await session.create_unidirectional_stream() for _ in range(2)]
            await whole.write(data=b"whole", end_stream=True)
            await half.write(data=b"half")
            session.send_datagram(b"datagram")
            await asyncio.sleep(1)
            await session.close(code)
            await done.wait()

    run(main())
