"""examples/cluster.py in a real Chromium: two pages see and hear each other through all that happens to the workers."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.browser import chromium

from .programs import ROOT
from .screens import keep_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.async_api import Page

    from .programs import Start

pytestmark = pytest.mark.skipif(
    shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin") is None,
    reason="there is no nats-server here; make setup installs it as root on Debian",
)

DEPLOY, REBIND, KILL = "Deploy", "Change everybody's address", "Kill a worker"


@pytest.fixture(name="chromium")
def is_installed() -> None:
    if (reason := chromium.missing()) is not None:
        pytest.fail(reason)


async def number(page: Page, identifier: str) -> float:
    return float(await page.locator(identifier).inner_text())


async def sees(page: Page, name: str, x: int, y: int) -> None:
    """Wait until a page shows a player at a place."""
    await page.wait_for_function(
        """([wanted, x, y]) => JSON.parse(document.getElementById("board").dataset.players ?? "[]")
            .some(([name, [left, top]]) => name === wanted && Math.abs(left - x) < 3 && Math.abs(top - y) < 3)""",
        arg=[name, x, y],
    )


async def go_through(start: Start, steps: Sequence[str]) -> None:
    """Click these buttons one after the other; five pages go on whatever happens."""
    problems: list[str] = []
    async with start("examples/cluster.py", "--page-port", "0") as cluster, chromium.launch() as browser:
        address = (await cluster.until("open http")).split()[-1]
        pages = []
        # Workers are chosen by chance: with five pages, seldom all are at the same one.
        for _ in range(5):
            page = await browser.new_page()
            page.set_default_timeout(60_000)
            page.on("pageerror", lambda error: problems.append(str(error)))
            await page.goto(address)
            await page.wait_for_function("document.getElementById('worker').textContent !== '-'")
            pages.append(page)
        names = [await page.locator("#name").inner_text() for page in pages]
        said: list[str] = []

        async def all_is_well(step: int) -> None:
            for index, (page, name) in enumerate(zip(pages, names, strict=True)):
                x, y = 50 + 40 * index, 20 + 25 * (step + 2 * index) % 260
                await page.locator("#board").hover(position={"x": x, "y": y})
                for other in pages:
                    await sees(other, name, x, y)
            page, name = pages[step % len(pages)], names[step % len(pages)]
            await page.get_by_label("Line").fill(f"step {step}")
            await page.get_by_label("Line").press("Enter")
            said.append(f"{name}: step {step}")
            for other in pages:
                await other.get_by_text(said[-1], exact=False).wait_for()

        await all_is_well(0)
        # Those that have served a page before the last deployment, too.
        workers = {await page.locator("#worker").inner_text() for page in pages}
        assert len(workers) <= 2
        for step, what in enumerate(steps, 1):
            # Until it can be clicked, the last deployment is not over.
            await pages[0].get_by_role("button", name=what).click()
            if what == DEPLOY:
                for page in pages:
                    await page.wait_for_function(
                        "(old) => !old.includes(document.getElementById('worker').textContent)", arg=list(workers)
                    )
                workers |= {await page.locator("#worker").inner_text() for page in pages}
            await all_is_well(step)
        await keep_picture(pages[0], "cluster-page", width=664, height=590)
        # Once, although pages change sessions.
        for page in pages:
            heard = (await page.locator("#chat").inner_text()).splitlines()
            assert [line for line in heard if line] == said
        longest = [await number(page, "#longest") for page in pages]
        print(
            f"{steps.count(DEPLOY)} deployments, {len(workers)} workers, longest silence of each page:",
            ", ".join(f"{one:.1f} s" for one in longest),
        )
        assert json.dumps(problems) == "[]"


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("chromium")
async def test_pages_see_each_other_through_deployments_a_killed_worker_and_new_addresses(start: Start) -> None:
    await go_through(start, [DEPLOY, REBIND, KILL, DEPLOY])


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("chromium")
async def test_pages_see_each_other_through_20_deployments_killed_workers_and_new_addresses(start: Start) -> None:
    await go_through(start, [DEPLOY, REBIND, DEPLOY, KILL] * 10)


def test_programs_are_short() -> None:
    for name in ("cluster.py", "cluster.html"):
        lines = (ROOT / "examples" / name).read_text().count("\n")
        assert lines <= 150, f"{name} has {lines} lines"
