"""Health and figures over TCP, for balancers and monitoring systems; and the answer for an application's own routes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from wtio._arguments import check_instance
from wtio._http import HttpRequest, HttpResponse
from wtio._running import running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from wtio._stats import ServerStats

__all__ = ["HealthServer", "health", "wait_leaving"]

# Seconds for a request and its answer, bytes of a request, and requests at once. Further ones are not read.
_PATIENCE: Final = 5.0
_LONGEST: Final = 8192
_MOST: Final = 64
_WORDS: Final = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


def health(request: HttpRequest) -> HttpResponse:
    """Answer whether newcomers are welcome: status 200 and ``ok``, or 503 and ``draining``.

    For a router: ``router.get("/health")(wtio.workers.health)``. It says 503 as soon as the process is told to end,
    which is ``Timeouts.drain_delay`` before clients are refused, so that balancers have time to notice. That holds
    below ``wtio.run`` and in workers.

    Args:
        request: Any request.

    Raises:
        TypeError: ``request`` is something else.
    """
    check_instance("request", request, HttpRequest, "which hooks are called with", optional=False)
    program = running.get()
    if program is not None and program.leaving.is_set():
        return HttpResponse(status=503, body=b"draining\n")
    return HttpResponse(status=200, body=b"ok\n")


async def wait_leaving() -> None:
    """Wait until this process is told to end: by a deployment, which has new code for newcomers, or by a signal.

    A handler that waits for it can tell its client to connect again, while its session goes on. Clients that
    understand GOAWAY (``session.wait_draining()``) know without that; browsers have no way to know. Holds below
    ``wtio.run`` and in workers; elsewhere it waits for ever. Cancelling changes nothing.
    """
    program = running.get()
    await (asyncio.Event() if program is None else program.leaving).wait()


def prometheus(stats: ServerStats) -> Iterator[str]:
    """The figures as Prometheus reads them."""
    for field in dataclasses.fields(stats):
        value = getattr(stats, field.name)
        if value is None:
            continue
        yield f"# TYPE wtio_{field.name} {'counter' if field.name.endswith('_total') else 'gauge'}"
        if isinstance(value, Mapping):
            for cause, number in value.items():
                yield f'wtio_{field.name}{{cause="{cause}"}} {number}'
        else:
            yield f"wtio_{field.name} {value}"


class HealthServer:
    """Answers ``GET /health`` and ``GET /metrics`` on a TCP port."""

    def __init__(self, is_welcome: Callable[[], bool], stats: Callable[[], Awaitable[ServerStats]]) -> None:
        # Whether newcomers find a worker that will stay.
        self._is_welcome = is_welcome
        # The figures of all workers.
        self._stats = stats
        # Room for requests.
        self._room = asyncio.Semaphore(_MOST)
        # None before the start.
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._server is not None
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: It cannot.
        """
        self._server = await asyncio.start_server(self._answer, host, port, limit=_LONGEST)

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE), self._room:
                head = await reader.readuntil(b"\r\n\r\n")
                method, _, rest = head.partition(b" ")
                status, body = await self._body(rest.split(b" ", 1)[0].split(b"?", 1)[0])
                lines = (
                    f"HTTP/1.1 {status} {_WORDS[status]}",
                    "content-type: text/plain; version=0.0.4",
                    f"content-length: {len(body)}",
                    "connection: close",
                )
                writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
                writer.write(b"" if method == b"HEAD" else body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _body(self, path: bytes) -> tuple[int, bytes]:
        if path == b"/health":
            return (200, b"ok\n") if self._is_welcome() else (503, b"draining\n")
        if path == b"/metrics":
            return 200, "\n".join([*prometheus(await self._stats()), ""]).encode()
        return 404, b"/health and /metrics\n"
