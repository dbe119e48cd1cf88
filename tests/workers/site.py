"""An application in a directory of its own, whose code can be changed, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import wtio
from wtio.workers import Supervisor, WorkerLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECONDS = 30

APP = """
import os
import wtio
import wtio.workers

VERSION = {version!r}
router = wtio.Router()
router.get("/health")(wtio.workers.health)

@router.session("/")
async def serve(session: wtio.WebTransportSession) -> None:
    await session.serve_streams(answer)

async def answer(stream: wtio.WebTransportStream) -> None:
    data = await stream.read_all()
    await stream.write_all(data=f"{{VERSION}} {{os.getpid()}} ".encode() + data, end_stream=True)
"""


class Answer(NamedTuple):
    """Who has answered on a stream."""

    version: str
    pid: int


class Site:
    """A directory with the application and its certificate."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._changed = int(time.time())
        self.certificate = wtio.dev_certificate(directory=directory / "certificate")
        self.write("first")

    def write(self, version: str, further: str = "") -> None:
        """Change the code."""
        path = self.directory / "site_app.py"
        path.write_text(APP.format(version=version) + further)
        # Python goes on with what it has compiled if the source has the same size and was changed in the same second.
        self._changed += 1
        os.utime(path, (self._changed, self._changed))

    @contextlib.asynccontextmanager
    async def served(self, **options: Any) -> AsyncIterator[Supervisor]:
        """A supervisor with two workers."""
        given: dict[str, Any] = {
            "tls": self.certificate.server_tls(),
            "directory": self.directory,
            "workers": 2,
            "worker_limits": WorkerLimits(settle=0.1, report=0.2, restart=0.05, drain=SECONDS),
            "timeouts": wtio.Timeouts(close=0.5, lifespan=5),
        }
        host = options.pop("host", "127.0.0.1")
        port = options.pop("port", 0)
        async with Supervisor("site_app:router", host, port, **(given | options)) as supervisor:
            yield supervisor

    def connect(self, place: Supervisor | int, **options: Any) -> wtio.Connector:
        """Connect to a supervisor, or a port."""
        port = place if isinstance(place, int) else place.addresses[0][1]
        return wtio.connect(f"https://127.0.0.1:{port}/", tls=self.certificate.client_tls(), **options)


async def ask(session: wtio.WebTransportSession, data: bytes = b"?") -> Answer:
    """Who answers a session."""
    async with asyncio.timeout(SECONDS):
        stream = await session.create_bidirectional_stream()
        await stream.write_all(data=data, end_stream=True)
        version, pid, back = (await stream.read_all()).split(b" ", 2)
    assert back == data
    return Answer(version.decode(), int(pid))


@contextlib.asynccontextmanager
async def clients(site: Site, place: Supervisor | int, count: int) -> AsyncIterator[list[wtio.WebTransportSession]]:
    """So many sessions, each on a connection of its own."""
    async with contextlib.AsyncExitStack() as stack:
        opening = [stack.enter_async_context(site.connect(place)) for _ in range(count)]
        yield [await one for one in opening]


async def until(condition: Any, what: str) -> None:
    """Wait for a state."""
    try:
        async with asyncio.timeout(SECONDS):
            while not condition():  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {SECONDS} s: {what}") from None
