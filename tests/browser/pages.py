"""What the browser tests share: a page in some browser, where it connects to, and how a script runs in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.server
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import wtio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Handler = Callable[[wtio.WebTransportSession], Awaitable[None]]


class Page(Protocol):
    """A tab: what Playwright's page and the one of ``firefox.py`` have in common."""

    async def evaluate(self, script: str, argument: Any = None, /) -> Any: ...

    async def goto(self, url: str, /) -> Any: ...

    async def reload(self) -> Any: ...

    async def close(self) -> None: ...


class Browser(Protocol):
    """A running browser."""

    @property
    def version(self) -> str: ...

    async def new_page(self) -> Page: ...


@dataclass(frozen=True)
class Target:
    """A running server of ours; ``at`` is what the page's ``openSession`` takes."""

    server: wtio.Server
    hash: str

    def at(self, path: str = "/", **options: object) -> dict[str, object]:
        port = self.server.addresses[0][1]
        return {"url": f"https://127.0.0.1:{port}{path}", "hash": self.hash, "options": options}


Serving = Callable[[Handler | None], AbstractAsyncContextManager[Target]]


async def run(page: Page, script: str, argument: object = None, *, seconds: float = 30.0) -> Any:
    """Evaluate ``script`` in the page; the browser itself would wait for its promise for ever."""
    async with asyncio.timeout(seconds):
        return await page.evaluate(script, argument)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Access lines of the page's server say nothing about a failed test."""


@contextlib.contextmanager
def page_server(directory: Path) -> Iterator[str]:
    """Serve the files of ``directory``; yields the beginning of their URLs."""
    # localhost is a secure context without a certificate; about:blank has no WebTransport at all.
    handler = functools.partial(_QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
