"""A headless Chromium, a page over plain local HTTP, and a server of ours for the page to connect to."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

import wtio

from . import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, Page


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Access lines of the page's server say nothing about a failed test."""


@pytest.fixture(scope="module")
def page_url() -> Iterator[str]:
    # localhost is a secure context without a certificate; about:blank has no WebTransport at all.
    handler = functools.partial(QuietHandler, directory=str(Path(__file__).parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}/page.html"
        server.shutdown()
        thread.join()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    # A missing browser fails: a skipped browser test would look like a passed one.
    if (reason := chromium.missing()) is not None:
        pytest.fail(reason)
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium.EXECUTABLE, args=list(chromium.FLAGS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, page_url: str) -> AsyncIterator[Page]:
    page = await browser.new_page()
    page.set_default_timeout(20_000)
    await page.goto(page_url)
    yield page
    await page.close()


@pytest.fixture
def serving(tmp_path: Path) -> chromium.Serving:
    """``async with serving(handler) as target``: a server of ours with a fresh development certificate."""

    @contextlib.asynccontextmanager
    async def run(handler: chromium.Handler | None) -> AsyncIterator[chromium.Target]:
        certificate = wtio.dev_certificate(directory=tmp_path)
        async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
            yield chromium.Target(server, certificate.sha256_base64)

    return run
