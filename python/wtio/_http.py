"""Ordinary HTTP/3 requests on the WebTransport port, and their answers, as the application's hook sees them.

``_connection/http`` brings requests and sends answers; ``_http_service`` runs the hook and handles its failures.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from wtio._arguments import check_integer, sealed
from wtio._buffer import Buffer, contiguous_bytes
from wtio._headers import HeaderArgument, Headers, header_pairs
from wtio._url import without_query
from wtio.config import LARGEST_LIMIT
from wtio.protocol.exchanges import ANSWER_RESERVED
from wtio.protocol.messages import content_length

__all__ = ["AnswerBody", "BodyReader", "HttpRequest", "HttpResponse", "attach_body", "close_body"]

AnswerBody = Buffer | AsyncIterable[Buffer] | Iterable[Buffer]
"""The content of an answer: all of it, or its pieces one after the other."""


class BodyReader(Protocol):
    """The body of a request as it arrives (``_connection.http``)."""

    async def read(self) -> bytes:
        """Return the next piece, waiting for it; ``b""`` at the end."""

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body. ``limit`` -1 means ``Limits.http_body``."""


@sealed
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HttpRequest:
    """An ordinary HTTP/3 request on the WebTransport port.

    Its body is read with ``body`` or ``stream``, and not before that: up to 128 KiB are kept here, and the client may
    send ``Limits.stream_receive_window`` more. If there is a rest that nobody has read when the answer is complete, the
    client is told to stop.
    """

    method: str
    """Such as ``GET``."""
    path: str
    """Path with query."""
    authority: str
    """Host and port as the client wrote them."""
    headers: Headers
    """All headers in order, names in lower case, without pseudo-headers."""
    remote_address: tuple[str, int]
    """IP address and UDP port of the client."""
    scheme: str = "https"
    """As the client wrote it, nearly always ``https``. Default ``https``."""
    content_length: int | None = None
    """Length of the body in bytes, as the client announces it; None (default) if it does not."""
    _reader: BodyReader | None = field(default=None, init=False, repr=False, compare=False)
    """The body, set by ``attach_body``. None for a request that a program has made itself: its body is empty."""

    async def body(self, *, limit: int = -1) -> bytes:
        """Read the whole body. Calling it again returns the same bytes.

        Cancelling is safe: what has arrived is kept for the next call.

        Args:
            limit: Most bytes to collect; -1 (default) means ``Limits.http_body`` (default 1 MiB).

        Returns:
            The body, ``b""`` if there is none. Trailers are dropped.

        Raises:
            ContentTooLargeError: It has more than ``limit`` bytes, or the client announces more. A hook that lets this
                error through answers 413. What has arrived is kept: a call with a higher limit, or ``stream``, goes on.
            RequestTimeout: The client sent nothing more for ``Timeouts.http_body``. Uncaught, the answer is 408.
            ClientGoneError: The client has given the request up, or broke a rule, or the connection is lost.
            BusyError: Another task is reading the body.
            LocalProtocolError: The request has been answered.
            ValueError: ``limit`` is below -1.
            TypeError: ``limit`` is not an int.
        """
        check_integer("limit", limit, -1, LARGEST_LIMIT)
        return b"" if self._reader is None else await self._reader.read_all(limit)

    def stream(self) -> AsyncIterator[bytes]:
        """Read the body piece by piece: ``async for piece in request.stream()``.

        A client is held back by a reader that is slower. Pieces have 1 byte to 64 KiB, as they arrive, and each is
        returned once: a second call goes on where the first one stopped. What ``body`` has collected comes first.

        Cancelling ``__anext__`` is safe: no piece is lost. Errors are those of ``body``, without ContentTooLargeError,
        for there is no limit.
        """
        return _Pieces(self._reader)

    def __repr__(self) -> str:
        # Without query and headers, which may contain tokens: logs are passed around.
        host, port = self.remote_address
        return f"<HttpRequest {self.method} {self.authority}{without_query(self.path)} from {host} port {port}>"


class _Pieces:
    """The iterator of ``HttpRequest.stream``. No asynchronous generator, because that ends when it is cancelled."""

    __slots__ = ("_reader",)

    def __init__(self, reader: BodyReader | None) -> None:
        self._reader = reader

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = b"" if self._reader is None else await self._reader.read()
        if not piece:
            raise StopAsyncIteration
        return piece


def attach_body(request: HttpRequest, reader: BodyReader) -> None:
    """Give a request its body."""
    # The only way to set a field of a frozen class.
    object.__setattr__(request, "_reader", reader)


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """The answer to an ordinary HTTP/3 request.

    Raises:
        TypeError: ``status`` is not an int, ``headers`` are not pairs of str, or ``body`` is neither bytes-like nor
            iterable.
        ValueError: ``status`` is outside 200 to 599, a header cannot be sent, or ``content-length`` is not a number.
    """

    status: int
    """200 … 599."""
    headers: HeaderArgument = field(default=(), repr=False)
    """Headers in order: a mapping or pairs. ``content-length`` is added if ``body`` is bytes. For pieces you may set
    it; an answer that has more or fewer bytes is reset with H3_INTERNAL_ERROR. Default none."""
    body: AnswerBody = field(default=b"", repr=False)
    """The content: bytes, or an iterable or asynchronous iterable of bytes, each piece of any size. Pieces are asked
    for as the client takes them, so that a large file needs little memory: ahead of the client are one piece and
    ``Limits.stream_send_buffer``. A plain iterable holds the event loop up while it makes a piece.

    An iterator that has ``aclose`` or ``close``, such as a generator, is closed when the answer is over, whether it was
    sent, broken off, or has no content, as for HEAD. If it raises, the answer is 500 as long as nothing was sent, and
    reset with H3_INTERNAL_ERROR after that. Default none."""

    def __post_init__(self) -> None:
        check_integer("status", self.status, 200, 599)
        pairs = header_pairs(self.headers, ANSWER_RESERVED)
        try:
            content_length(pairs)
        except ValueError as error:
            raise ValueError(f"headers: {error}") from None
        body = self.body
        if isinstance(body, (str, Buffer)):
            contiguous_bytes(body, "body")
        elif not (hasattr(type(body), "__aiter__") or hasattr(type(body), "__iter__")):
            kind = type(body).__name__
            raise TypeError(f"body must be bytes-like, or an iterable or asynchronous iterable of bytes, not {kind}")
        elif isinstance(body, (list, tuple)):
            for piece in body:
                contiguous_bytes(piece, "a piece of the body")


async def close_body(body: Any) -> None:
    """Close an iterator that nobody will ask for more, if it can be closed."""
    if isinstance(body, Buffer):
        return
    if (close := getattr(body, "aclose", None)) is not None:
        await close()
    elif (close := getattr(body, "close", None)) is not None:
        close()
