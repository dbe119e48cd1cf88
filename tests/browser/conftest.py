"""Headless browsers, a page over plain local HTTP, and a server of ours for the page to connect to."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

import wtio

from . import chromium, firefox, pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="module")
def page_url() -> Iterator[str]:
    with pages.page_server(Path(__file__).parent) as beginning:
        yield f"{beginning}/page.html"


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(browser_name: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[pages.Browser]:
    # A missing browser fails: a skipped browser test would look like a passed one.
    driver = chromium if browser_name == "chromium" else firefox
    if (reason := driver.missing()) is not None:
        pytest.fail(reason)
    if driver is chromium:
        async with chromium.launch() as browser:
            yield browser
    else:
        async with firefox.launch(tmp_path_factory.mktemp("firefox")) as browser:
            yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: pages.Browser, page_url: str) -> AsyncIterator[pages.Page]:
    page = await browser.new_page()
    async with asyncio.timeout(20):
        await page.goto(page_url)
    yield page
    async with asyncio.timeout(20):
        await page.close()


@pytest.fixture
def serving(tmp_path: Path) -> pages.Serving:
    """``async with serving(handler) as target``: a server of ours with a fresh development certificate."""

    @contextlib.asynccontextmanager
    async def run(handler: pages.Handler | None) -> AsyncIterator[pages.Target]:
        certificate = wtio.dev_certificate(directory=tmp_path)
        async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
            yield pages.Target(server, certificate.sha256_base64)

    return run
