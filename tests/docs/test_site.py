"""The site that `make docs` makes: the search finds, no page is wider than a phone, and it can be dark."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from bs4 import BeautifulSoup
from tests.browser import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, Page

TOP = Path(__file__).parents[2]
SITE = TOP / "docs" / "_build" / "html"
# Where a person finds pictures of the pages after a run, to look at.
PICTURES = SITE.parent / "pictures"
# One for each kind of page: the first, prose with code, wide tables, classes with fields, text from elsewhere.
PAGES = ("index", "first-session", "interop", "reference/limits", "reference/sessions", "project/changelog")

# The first test waits for the site, which takes minutes on a busy machine if `make docs` has not run.
pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, brought up to date as `make docs` does it; a warning of Sphinx is a failure."""

    async def build() -> tuple[int | None, str]:
        arguments = ("--fail-on-warning", "--keep-going", "--quiet", "--doctree-dir", SITE.parent / "doctrees")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sphinx", *map(str, arguments), str(TOP / "docs"), str(SITE)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    status, output = asyncio.run(build())
    assert status == 0, output
    return SITE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(site: Path) -> AsyncIterator[Browser]:
    if (reason := chromium.missing()) is not None:
        pytest.skip(reason)
    async with chromium.launch() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def desk(browser: Browser) -> AsyncIterator[Page]:
    # Each has a context of its own, like a window without history.
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(30_000)
    yield page
    await page.close()


async def test_the_search_finds_what_is_typed_and_a_click_leads_there(desk: Page) -> None:
    await desk.goto((SITE / "index.html").as_uri())
    await desk.get_by_placeholder("Search").fill("ReadLimitError")
    await desk.keyboard.press("Enter")
    await desk.locator("ul.search li a").first.click()
    await desk.wait_for_load_state()
    assert "ReadLimitError" in await desk.inner_text("article")


async def test_the_first_screen_says_what_it_is_how_fast_and_how_to_install_it(desk: Page) -> None:
    await desk.goto((SITE / "index.html").as_uri())
    for words in ("WebTransport for Python", "requests a second", "pip install wtio"):
        box = await desk.get_by_text(words).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 800, words


async def picture(page: Page, name: str, kind: str) -> None:
    await page.goto((SITE / f"{name}.html").as_uri())
    await page.screenshot(path=PICTURES / f"{name.replace('/', '-')}-{kind}.png")


async def test_no_page_is_wider_than_a_phone(desk: Page) -> None:
    await desk.set_viewport_size({"width": 360, "height": 800})
    for name in PAGES:
        await picture(desk, name, "phone")
        assert await desk.evaluate("document.documentElement.scrollWidth") <= 360, name


async def test_on_a_phone_tables_with_much_text_scroll_rather_than_break_it_into_letters(desk: Page) -> None:
    await desk.set_viewport_size({"width": 360, "height": 800})
    await picture(desk, "reliability", "phone")
    widths = await desk.evaluate("[...document.querySelectorAll('td.longest')].map((cell) => cell.offsetWidth)")
    assert len(widths) > 100
    assert min(widths) >= 200
    # A name goes on behind a dot or an underscore.
    assert await desk.locator("td code wbr").count() > 100
    parts = await desk.evaluate(
        "[...document.querySelectorAll('td code')].flatMap((code) => [...code.childNodes].map((part) => part.data))"
    )
    # Neither its first character nor the end of a file's name is alone in a line.
    assert not {"_", "py"}.intersection(parts)


async def test_the_reference_says_of_constants_and_properties_what_we_say(desk: Page) -> None:
    await picture(desk, "reference/hub", "desk")
    text = await desk.inner_text("article")
    assert "Application error code 0x10b (267) of a stream whose message was not delivered" in text
    assert "integer" not in text
    await picture(desk, "reference/asgi", "desk")
    assert "An ASGI application, for" in await desk.inner_text("article")
    # Of a property whose first line has a colon.
    await picture(desk, "reference/connecting", "desk")
    assert "Why async for had to connect again last: a SessionClosed, or" in await desk.inner_text("article")


def texts_in_reference(site: Path, selector: str) -> Iterator[tuple[str, str]]:
    """The name of a page, and the text of an element on it; no browser is needed for that."""
    for page in sorted((TOP / "docs" / "reference").glob("*.md")):
        html = (site / "reference" / f"{page.stem}.html").read_text(encoding="utf-8")
        for element in BeautifulSoup(html, "html.parser").select(selector):
            yield page.name, element.get_text()


async def test_the_reference_shows_types_and_defaults_as_a_reader_knows_them(site: Path) -> None:
    found = list(texts_in_reference(site, "dt.sig, dl.field-list > dd"))
    assert len(found) > 500
    for page, text in found:
        # A private class, the address of an object, the dots of any arguments in brackets.
        assert not re.search(r"\b_[A-Z]|object>|\[\[\.\.\.\]", text), (page, text)


async def test_what_the_reference_lists_as_raised_are_errors(site: Path) -> None:
    # A line of a docstring that is not indented enough would be taken for another one.
    names = "dl.field-list > dt:-soup-contains('Raises') + dd p > :first-child:is(strong, a)"
    found = {text for _, text in texts_in_reference(site, names)}
    assert len(found) > 20
    assert not [name for name in found if not re.fullmatch(r"[a-zA-Z.]+", name)]


async def test_the_reference_of_streams_has_the_values_of_its_enumerations_and_what_calls_return(desk: Page) -> None:
    await picture(desk, "reference/streams", "desk")
    text = await desk.inner_text("article")
    for words in ("BIDIRECTIONAL = 'bidirectional'", "H3_REQUEST_CANCELLED = 0x10c", "WT_SESSION_GONE = 0x170d7b68"):
        assert words in text
    snapshot = desk.locator("dl.method", has_text="Return a snapshot of this stream").first
    assert "StreamDiagnostics" in await snapshot.inner_text()


async def test_code_in_docstrings_has_colours(desk: Page) -> None:
    await picture(desk, "reference/routing", "desk")
    assert await desk.locator("article pre span.k").count() > 2


async def test_the_first_page_has_what_a_browser_needs(desk: Page) -> None:
    await desk.goto((SITE / "index.html").as_uri())
    code = "\n".join(await desk.locator("article pre").all_inner_texts())
    for words in ("wtio.serve(", "wtio.connect(", "new WebTransport("):
        assert words in code
    assert await desk.locator("article pre span.k").count() > 5, "code has colours"


async def test_nothing_that_is_private_is_shown_as_a_name_of_ours(desk: Page) -> None:
    for name in PAGES:
        await picture(desk, name, "desk")
        names = await desk.locator("dt.sig .sig-name").all_inner_texts()
        assert not [one for one in names if one.startswith("_")]


async def test_it_is_dark_where_the_reader_has_it_dark(desk: Page) -> None:
    await desk.emulate_media(color_scheme="dark")
    for name in PAGES:
        await picture(desk, name, "dark")
    style = "getComputedStyle(document.body)"
    background, text = [
        max(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))
        for colour in await desk.evaluate(f"[{style}.backgroundColor, {style}.color]")
    ]
    assert background < 64 < 160 < text
