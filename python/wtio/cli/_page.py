"""Serves one page over plain HTTP on this machine, with just enough HTTP/1.1 for that.

A page from http://localhost is a secure context, so it may use WebTransport without any flag.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from wtio._words import PORT_IS_TAKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_REQUEST_TIMEOUT: Final = 10.0
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src https:"
)


@asynccontextmanager
async def serve_page(document: Callable[[], bytes], port: int) -> AsyncIterator[int]:
    """Serve what ``document`` returns at ``/`` of localhost; gives the TCP port, also if 0 (any) was asked for.

    Raises:
        OSError: The port cannot be opened; the message names it.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, document()))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # A malformed request gets no answer.
            pass
        finally:
            writer.close()

    # 127.0.0.1 only: the page is for browsers on this machine, and all of them try this address for localhost.
    try:
        server = await asyncio.start_server(answer, "127.0.0.1", port)
    except OSError as error:
        is_taken = error.errno in PORT_IS_TAKEN
        words = "another program uses it" if is_taken else (error.strerror or str(error)).split(": ")[-1]
        raise OSError(
            error.errno,
            f"cannot serve the page on TCP 127.0.0.1 port {port}: {words}; choose another with --page-port (0: any "
            "free one), or leave the page out with --no-page",
        ) from error
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def _response(head: bytes, document: bytes) -> bytes:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        status, kind, body = "400 Bad Request", "text/plain", b"bad request\n"
    elif words[0] not in (b"GET", b"HEAD"):
        status, kind, body = "405 Method Not Allowed", "text/plain", b"only GET and HEAD\n"
    elif words[1].split(b"?")[0] != b"/":
        status, kind, body = "404 Not Found", "text/plain", b"there is only one page, /\n"
    else:
        status, kind, body = "200 OK", "text/html", document
    fields = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        f"Content-Security-Policy: {_POLICY}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        "Allow: GET, HEAD\r\nConnection: close\r\n\r\n"
    )
    return fields.encode() + (b"" if words[0] == b"HEAD" else body)
