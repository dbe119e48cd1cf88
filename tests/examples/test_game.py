"""examples/game.py in a real Chromium: two players in a room, another elsewhere, and one without a token."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser import chromium

from .programs import ROOT
from .screens import keep_picture

if TYPE_CHECKING:
    from playwright.async_api import Page

    from .programs import Start


CONNECT_WITHOUT_TOKEN = """async () => {
    const page = await (await fetch(location.href)).text();
    const { port } = JSON.parse(page.match(/const facts = (.*);/)[1]);
    const options = eval(`(${page.match(/const options = (.*);/)[1]})`);
    const session = new WebTransport(`https://127.0.0.1:${port}/lobby?token=root.00`, options);
    return session.ready.then(() => "let in", (error) => error.message);
}"""


@pytest.fixture(name="chromium")
def is_installed() -> None:
    if (reason := chromium.missing()) is not None:
        pytest.fail(reason)


async def seen(page: Page, name: str) -> list[Any]:
    """Where a page shows a player, once that is not where players begin."""
    await page.wait_for_function(
        """(wanted) => JSON.parse(document.getElementById("field").dataset.players ?? "[]")
            .some(([name, x, y]) => name === wanted && x && y)""",
        arg=name,
    )
    players = json.loads(await page.evaluate("document.getElementById('field').dataset.players"))
    return next(position for other, *position in players if other == name)


async def move(page: Page, x: int, y: int) -> None:
    await page.locator("#field").hover(position={"x": x, "y": y})


@pytest.mark.usefixtures("chromium")
async def test_pages_play_in_rooms(start: Start) -> None:
    problems: list[str] = []
    async with start("examples/game.py", "--page-port", "0") as server, chromium.launch() as browser:
        address = (await server.until("open http")).split()[-1]
        pages = []
        for url in (address, address, address.replace("/lobby", "/kitchen")):
            page = await browser.new_page()
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: problems.append(str(error)))
            await page.goto(url)
            await page.get_by_text("Connected.").wait_for()
            pages.append(page)
        ada, grace, alan = pages
        names = [await page.locator("#name").inner_text() for page in pages]

        # Datagrams: a player is where its pointer is, for everybody in the room.
        await move(ada, 120, 80)
        assert await seen(grace, names[0]) == pytest.approx([120, 80], abs=2)
        await move(grace, 300, 200)
        assert await seen(ada, names[1]) == pytest.approx([300, 200], abs=2)

        # A stream: what is said is heard in this room and not in the other.
        await ada.get_by_label("Line").fill("grüß dich")
        await ada.get_by_label("Line").press("Enter")
        await grace.get_by_text(f"{names[0]}: grüß dich").wait_for()
        await keep_picture(ada, "game-page", width=664, height=510)
        await alan.get_by_label("Line").fill("anybody here?")
        await alan.get_by_label("Line").press("Enter")
        await alan.get_by_text(f"{names[2]}: anybody here?").wait_for()
        assert "anybody" not in await grace.locator("#chat").inner_text()
        assert "grüß" not in await alan.locator("#chat").inner_text()

        # Without a token that the server has signed, nobody is let in.
        assert "handshake failed" in await alan.evaluate(CONNECT_WITHOUT_TOKEN)

        await grace.goto("about:blank")
        await ada.get_by_text(f"{names[1]} left").wait_for()
        counters = await ada.locator("#counters").inner_text()
        assert re.fullmatch(r"2 players, 3 sessions, 1 refused, \d+ positions, 2 lines", counters), counters

        server.process.terminate()
        await ada.get_by_text("Closed with code 0: server is closing").wait_for()
    assert problems == []


def test_programs_are_short() -> None:
    for name in ("game.py", "game.html", "telemetry.py", "transfer.py", "pipe.py"):
        lines = (ROOT / "examples" / name).read_text().count("\n")
        assert lines <= 120, f"{name} has {lines} lines"
