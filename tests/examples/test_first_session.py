"""The files of docs/first-session.md: what a reader copies does what the page says, in Chromium and as a program."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import TYPE_CHECKING

import pytest
from tests.browser import chromium
from tests.browser.pages import page_server
from tests.support.ports import free_port

from .programs import ROOT
from .screens import keep_picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Page

    from .programs import Program, Start

PAGE = (ROOT / "docs" / "first-session.md").read_text(encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files of the page; each block begins with its file's name."""
    ports = {"4433": str(free_port()), "8080": str(free_port(socket.SOCK_STREAM))}
    for code in re.findall(r"^```(?:python|html)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        name = re.search(r"[\w.]+", code)
        assert name is not None
        text = re.sub("4433|8080", lambda match: ports[match[0]], code)
        # Programs run in the directory of the repository; a reader runs them where the files are.
        (tmp_path / name[0]).write_text(text.replace('"page.html"', f'"{tmp_path / "page.html"}"'))
    return tmp_path


@contextlib.asynccontextmanager
async def opened(start: Start, files: Path) -> AsyncIterator[tuple[Program, Page]]:
    """The server, and its page in a browser, in which nothing may be left uncaught."""
    if (reason := chromium.missing()) is not None:
        pytest.fail(reason)
    problems: list[str] = []
    async with start(files / "server.py") as server, chromium.launch() as browser:
        address = (await server.until("open http")).split()[-1]
        page = await browser.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(address)
        yield server, page
    assert problems == []


async def test_the_page_of_the_first_session_shouts_and_says_goodbye(start: Start, files: Path) -> None:
    async with opened(start, files) as (server, page):
        await page.locator("#state", has_text="open").wait_for()
        await page.locator("#echo", has_text="An echo takes").wait_for()
        await page.get_by_label("Text").fill("good morning")
        await page.get_by_role("button").click()
        await page.locator("#answer", has_text="GOOD MORNING").wait_for()
        # It goes on measuring.
        echo = await page.locator("#echo").inner_text()
        await page.wait_for_function("(old) => document.getElementById('echo').textContent !== old", arg=echo)
        await keep_picture(page, "first-session-page", width=480, height=170)
        await page.goto("about:blank")
        await server.until("goodbye")


@pytest.mark.parametrize(
    ("change", "answer", "word"),
    [
        ("text[::-1]", "gninrom doog", "hello,"),
        ("len(text)", "Failed to fetch", "'int' object has no attribute 'encode'"),
    ],
)
async def test_a_handler_that_was_changed_answers_so_or_fails_where_the_page_says(
    start: Start, files: Path, change: str, answer: str, word: str
) -> None:
    server_file = files / "server.py"
    server_file.write_text(server_file.read_text().replace("text.upper()", change))
    async with opened(start, files) as (server, page):
        await page.locator("#state", has_text="open").wait_for()
        await page.get_by_label("Text").fill("good morning")
        await page.get_by_role("button").click()
        await page.locator("#answer", has_text=answer).wait_for()
        await server.until(word)


async def test_the_page_of_the_first_session_says_what_became_of_the_server(start: Start, files: Path) -> None:
    async with opened(start, files) as (server, page):
        await page.locator("#echo", has_text="An echo takes").wait_for()
        server.process.terminate()
        assert await server.finish() == 0
        await page.locator("#state", has_text="closed").wait_for()
        assert await page.get_by_role("button").is_disabled(), "nothing would answer"
        # And one that was never there.
        (files / "page.html").write_text((files / "page.html").read_text().replace("/*options*/", "{}"))
        with page_server(files) as beginning:
            await page.goto(f"{beginning}/page.html")
            await page.locator("#state", has_text="over: ").wait_for()
            assert ".." not in await page.locator("p").first.inner_text()


async def test_the_client_of_the_first_session_gets_both_answers(start: Start, files: Path) -> None:
    async with start(files / "server.py") as server:
        await server.until("open http")
        async with start(files / "client.py") as client:
            assert await client.finish() == 0, client.output
        assert client.output == "b'HELLO'\nb'and back'\n"
