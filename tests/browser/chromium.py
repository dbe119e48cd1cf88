"""A headless Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

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


def missing() -> str | None:
    """What to install when there is no Chromium to test with; None when all is there."""
    if not Path(EXECUTABLE).exists():
        elsewhere = shutil.which("chromium")
        found = f" (there is one at `{elsewhere}`)" if elsewhere else ""
        return f"`{EXECUTABLE}` is missing{found}; install it with `apt-get install chromium chromium-driver`"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "the Python package `playwright` is missing; install it with `pip install playwright`"
    return None


@contextlib.asynccontextmanager
async def launch(*flags: str) -> AsyncIterator[Browser]:
    """Start Chromium with a profile of its own, and with further ``flags``; it ends with the context."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            await browser.close()
