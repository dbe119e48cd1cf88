"""Real browsers as clients: each starts once per run and plays every row in a tab of its own."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tests.browser import chromium, firefox
from tests.browser.pages import page_server

from .peer import Difference, Missing
from .rows import CODES, ROWS, SUBPROTOCOLS, Script, codes_row

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from tests.browser.pages import Browser

    from .peer import Target
    from .rows import Report, Row

_TESTS = Path(__file__).parents[2]
_START_SECONDS = 120.0


class _BrowserClient(ABC):
    """A browser on a thread and an event loop of its own, as it outlives those of the tests."""

    name: str
    title: str
    differences: Mapping[str, Difference]

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = contextlib.ExitStack()
        self._browsers = contextlib.AsyncExitStack()
        self._browser: Browser | None = None
        self._page = ""

    @abstractmethod
    def missing(self) -> str | None:
        """Why the browser cannot be had; None if it can."""

    @abstractmethod
    async def launch(self, stack: contextlib.AsyncExitStack, directory: Path) -> Browser:
        """Start the browser; it ends with ``stack``."""

    def prepare(self) -> str:
        if (reason := self.missing()) is not None:
            raise Missing(reason)
        self._page = f"{self._stack.enter_context(page_server(_TESTS))}/interop/matrix/rows.html"
        # Firefox may write its last words while it is removed.
        directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._stack.enter_context(directory)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name=self.name)
        thread.start()
        self._stack.callback(thread.join)
        self._browser = self._wait(self.launch(self._browsers, Path(directory.name)))
        return self._browser.version

    def close(self) -> None:
        assert self._loop is not None
        self._wait(self._browsers.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._stack.close()
        self._loop.close()

    async def run(self, row: Row, target: Target) -> Report:
        assert self._loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._play(row, target), self._loop))

    async def _play(self, row: Row, target: Target) -> Report:
        assert self._browser is not None
        script = Script.of(row.path)
        # A page of its own for each row: Chromium holds back the next session of a page whose last one was refused.
        page = await self._browser.new_page()
        try:
            await page.goto(self._page)
            report = await page.evaluate(
                "play",
                {
                    "url": target.url(row),
                    "hash": target.certificate.sha256_base64,
                    "options": {"protocols": list(SUBPROTOCOLS)} if row.name == "subprotocol" else {},
                    "name": script.name,
                    "parameters": script.parameters,
                },
            )
        finally:
            await page.close()
        assert isinstance(report, dict)
        return report

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_SECONDS)


# Both browsers keep a page's stream codes in eight bits.
_EIGHT_BITS = tuple(min(code, 255) for code in CODES)
_CUT = "a page's stream codes above 255 leave the browser as 255"
_NO_STATUS = Difference(
    "a page learns that its session was refused, but not the status",
    replace(ROWS["rejection"], client={"rejected": True}),
)
_NO_DRAIN = Difference(
    "has no `draining` and sends no drain; the session goes on after ours",
    replace(ROWS["drain"], client={"answer": "STILL HERE"}, server={"question": "still here"}),
    mark="-",
)


def _with(row: Row, parameter: str) -> Row:
    return replace(row, query=f"{row.query}&{parameter}")


class ChromiumClient(_BrowserClient):
    """Debian's Chromium."""

    name = "chromium"
    title = "Chromium"
    differences = MappingProxyType(
        {
            "reset": Difference(_CUT, codes_row("reset", ROWS["reset"].title, server=_EIGHT_BITS)),
            "stop": Difference(_CUT, codes_row("stop", ROWS["stop"].title, server=_EIGHT_BITS)),
            "rejection": _NO_STATUS,
            "drain": _NO_DRAIN,
        }
    )

    def missing(self) -> str | None:
        return chromium.missing()

    async def launch(self, stack: contextlib.AsyncExitStack, directory: Path) -> Browser:
        return await stack.enter_async_context(chromium.launch())


class FirefoxClient(_BrowserClient):
    """Debian's Firefox ESR."""

    name = "firefox"
    title = "Firefox ESR"
    differences = MappingProxyType(
        {
            "reset": Difference(
                "when the server resets a page's stream, the page gets an error without code, and its own half says "
                f"nothing more, so the page resets first; {_CUT}",
                _with(
                    codes_row("reset", ROWS["reset"].title, client=(None,) * len(CODES), server=_EIGHT_BITS),
                    "first=client",
                ),
            ),
            "stop": Difference(
                "sends no STOP_SENDING when a page cancels; codes above 255 reach the page as 0",
                _with(
                    codes_row(
                        "stop",
                        ROWS["stop"].title,
                        client=tuple(code if code < 256 else 0 for code in CODES),
                        server=(),
                    ),
                    "one-way=1",
                ),
            ),
            "subprotocol": Difference(
                "cannot offer subprotocols before version 155",
                replace(ROWS["subprotocol"], client={"protocol": None}, server={"protocol": None}),
                mark="-",
            ),
            "rejection": _NO_STATUS,
            "drain": _NO_DRAIN,
        }
    )

    def missing(self) -> str | None:
        return firefox.missing()

    async def launch(self, stack: contextlib.AsyncExitStack, directory: Path) -> Browser:
        return await stack.enter_async_context(firefox.launch(directory))
