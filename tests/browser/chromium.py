"""How the tests start Chromium, where a page connects to, and how a script runs in it within bounded time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wtio

if TYPE_CHECKING:
    from playwright.async_api import Page

EXECUTABLE = "/usr/bin/chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

Handler = Callable[[wtio.WebTransportSession], Awaitable[None]]


@dataclass(frozen=True)
class Target:
    """A running server of ours; ``at`` is what the page's ``openSession`` takes."""

    server: wtio.Server
    hash: str

    def at(self, path: str = "/", **options: object) -> dict[str, object]:
        port = self.server.addresses[0][1]
        return {"url": f"https://127.0.0.1:{port}{path}", "hash": self.hash, "options": options}


Serving = Callable[[Handler | None], AbstractAsyncContextManager[Target]]


def missing() -> str | None:
    """What to install when there is no browser to test with; None when all is there."""
    if not Path(EXECUTABLE).exists():
        elsewhere = shutil.which("chromium")
        found = f" (there is one at `{elsewhere}`)" if elsewhere else ""
        return f"`{EXECUTABLE}` is missing{found}; install it with `apt-get install chromium chromium-driver`"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "the Python package `playwright` is missing; install it with `pip install playwright`"
    return None


async def run(page: Page, script: str, argument: object = None, *, seconds: float = 30.0) -> Any:
    """Evaluate ``script`` in the page; Playwright itself would wait for its promise for ever."""
    async with asyncio.timeout(seconds):
        return await page.evaluate(script, argument)
