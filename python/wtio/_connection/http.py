"""The ordinary requests of one server connection: their bodies as they arrive, their answers as they leave.

``HttpExchanges`` has those that are under way. It takes their events from the HTTP/3 layer (``protocol/exchanges``) and
bounds how long the head of a request may take. Each is an ``Exchange``, which the server's hook answers.
``_http_service`` decides whether the hook runs, and what becomes of its failures.

Nothing here keeps a whole body. Less than 128 KiB of a request are read ahead of the hook; the engine holds the client
back. At most 64 KiB of an answer wait in ``raw``, beyond the engine's queue, while ``respond`` waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from wtio._buffer import Buffer, contiguous_bytes
from wtio._headers import header_pairs
from wtio._http import HttpRequest, HttpResponse, attach_body, close_body
from wtio._url import without_query
from wtio._waiting import Waiter, wake
from wtio.errors import (
    BusyError,
    ClientGoneError,
    ContentTooLargeError,
    LocalProtocolError,
    RequestTimeout,
    WebTransportError,
)
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.exchanges import ANSWER_RESERVED
from wtio.protocol.outbox import BodyEnded, BodyReceived, RequestReceived, RequestTerminated

if TYPE_CHECKING:
    from wtio import _core
    from wtio._connection.raw import RawStreams
    from wtio._options import EndpointOptions
    from wtio.protocol.connection import H3Connection
    from wtio.protocol.exchanges import AnswerHead

__all__ = ["Exchange", "HttpEvent", "HttpExchanges"]

HttpEvent = RequestReceived | BodyReceived | BodyEnded | RequestTerminated
"""Events of the HTTP/3 layer that are about ordinary requests."""

# Bytes of an answer in one DATA frame.
_FRAME_SIZE: Final = 64 * 1024
# Bytes of a body above which nothing more is read ahead of its reader.
_READ_AHEAD: Final = 64 * 1024


class HttpExchanges:
    """The ordinary requests of one connection that are under way."""

    __slots__ = ("_core", "_exchanges", "_h3", "_head_timers", "_is_over", "_pump", "_raw", "_take", "loop", "options")

    def __init__(
        self,
        core: _core.Connection,
        loop: asyncio.AbstractEventLoop,
        h3: H3Connection,
        raw: RawStreams,
        options: EndpointOptions,
        *,
        pump: Callable[[], None],
        take: Callable[[Exchange], None],
        is_over: Callable[[], None],
    ) -> None:
        # The connection's: the engine's side of it, the loop on which it lives, its HTTP/3 layer, its raw streams, and
        # the server's options.
        self._core = core
        self.loop = loop
        self._h3 = h3
        self._raw = raw
        self.options = options
        # The connection's: carries out the outputs of the HTTP/3 layer and passes its events on; called after each use
        # of that.
        self._pump = pump
        # The connection's: called when no request is left.
        self._is_over = is_over
        # The server's: answers a request.
        self._take = take
        # By stream ID, requests until their answers are delivered. Bounded by the streams that the client may open, and
        # by ``Limits.http_requests``.
        self._exchanges: dict[int, Exchange] = {}
        # By stream ID, requests of which the head is incomplete; bounded by the streams that the client may have open.
        self._head_timers: dict[int, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._exchanges)

    def get(self, stream_id: int) -> Exchange | None:
        """Find a request that is under way."""
        return self._exchanges.get(stream_id)

    # -- what arrives

    def watch_head(self, stream_id: int) -> None:
        """Something of a request has arrived. Its head is complete within ``Timeouts.http_head``, or it is refused."""
        if not self._h3.exchanges.awaits_head(stream_id):
            if timer := self._head_timers.pop(stream_id, None):
                timer.cancel()
        elif stream_id not in self._head_timers:
            patience = self.options.timeouts.http_head
            self._head_timers[stream_id] = self.loop.call_later(patience, self._expire_head, stream_id)

    def _expire_head(self, stream_id: int) -> None:
        del self._head_timers[stream_id]
        self._h3.expire_head(stream_id)
        self._pump()

    def take(self, event: HttpEvent) -> None:
        """Take an event of the HTTP/3 layer."""
        if isinstance(event, RequestReceived):
            exchange = Exchange(self, event, self._core.remote_address)
            self._exchanges[event.stream_id] = exchange
            self._take(exchange)
            return
        known = self._exchanges.get(event.stream_id)
        if known is None:
            return
        match event:
            case BodyReceived(_, data):
                known.body.take(data)
            case BodyEnded():
                known.body.end()
            case RequestTerminated(_, reason):
                known.end(reason)

    def lose(self) -> None:
        """The connection is lost."""
        for timer in self._head_timers.values():
            timer.cancel()
        self._head_timers.clear()
        exchanges, self._exchanges = self._exchanges, {}
        for exchange in exchanges.values():
            exchange.end("the connection was lost")

    # -- what an exchange asks for

    def stream(self, stream_id: int) -> _core.Stream | None:
        """Find the stream of a request; None once that is over."""
        return self._raw.get(stream_id)

    def read(self, stream_id: int) -> bool:
        """Let the next bytes of a request in; whether there may be more."""
        may_be_more = self._raw.read_piece(stream_id)
        self._pump()
        return may_be_more

    def room(self, stream_id: int) -> Waiter | None:
        """Return what to await until the client has taken enough for more to be sent; None if it has."""
        return self._raw.room(stream_id)

    def compose(self, request: HttpRequest, response: HttpResponse) -> AnswerHead:
        """Put the head of an answer together.

        Raises:
            ValueError: A header cannot be sent, or ``content-length`` is wrong.
            TypeError: The headers have changed since they were checked.
        """
        body = response.body
        size = len(contiguous_bytes(body, "body")) if isinstance(body, Buffer) else None
        headers = header_pairs(response.headers, ANSWER_RESERVED)
        return self._h3.exchanges.compose(request.method, response.status, headers, size)

    def begin(self, stream_id: int, head: AnswerHead) -> None:
        """Send the head of an answer, together with what follows in the same step."""
        self._h3.exchanges.begin(stream_id, head)

    def send(self, stream_id: int, data: bytes = b"", *, end: bool = False) -> None:
        """Send a piece of an answer, and its end.

        Raises:
            ValueError: The answer is longer or shorter than its content-length.
        """
        self._h3.exchanges.send(stream_id, data, end=end)
        self._pump()

    def abort(self, stream_id: int, code: int) -> None:
        """Break an answer off."""
        self._h3.exchanges.abort(stream_id, code)
        self._pump()

    def remove(self, stream_id: int) -> None:
        """Forget a request: nothing more happens on it."""
        if self._exchanges.pop(stream_id, None) is not None and not self._exchanges:
            self._is_over()


class Exchange:
    """One ordinary request, and its answer."""

    __slots__ = ("_has_begun", "_held", "_last", "_name", "_owner", "_stream_id", "body", "is_over", "request", "task")

    def __init__(self, owner: HttpExchanges, event: RequestReceived, remote_address: tuple[str, int]) -> None:
        # Reads the request's stream and sends on it.
        self._owner = owner
        self._stream_id = event.stream_id
        # What the hook gets.
        self.request = HttpRequest(
            method=event.method,
            path=event.path,
            authority=event.authority,
            headers=tuple(event.headers),
            remote_address=remote_address,
            scheme=event.scheme or "https",
            content_length=event.content_length,
        )
        # The request in words, without its query.
        self._name = f"{event.method} {without_query(event.path)}"
        # The request's body, as it arrives.
        self.body = Body(owner, event.stream_id, self._name, event.content_length)
        attach_body(self.request, self.body)
        # The task of the hook, which ``HttpService`` sets. Cancelled when the client goes.
        self.task: asyncio.Task[None] | None = None
        # Nothing more can be sent: the answer is complete or broken off, or the client has gone. Never reset.
        self.is_over = False
        # Whether the head of the answer was sent.
        self._has_begun = False
        # The head of an answer, from when it is given until it is sent, with the first piece or on its own.
        self._held: AnswerHead | None = None
        # The stream of a complete answer, until the client has all of it.
        self._last: _core.Stream | None = None

    # -- the client

    def end(self, reason: str) -> None:
        """The client gives the request up, breaks a rule, or is lost."""
        if not self.is_over:
            self._note_over(partial(ClientGoneError, f"{self._name}: {reason}"))
            if self.task is not None:
                self.task.cancel(reason)

    def note_readable(self) -> None:
        """More of the request may have arrived in the engine."""
        self.body.note_readable()

    # -- the answer

    def compose(self, response: HttpResponse) -> AnswerHead:
        """Put the head of an answer together; errors are those of ``HttpExchanges.compose``."""
        return self._owner.compose(self.request, response)

    def answer(self, response: HttpResponse) -> None:
        """Send an answer at once, with a body of bytes. For short ones: what the client does not take waits here."""
        if self.is_over:
            return
        self._held = head = self.compose(response)
        content = bytes(contiguous_bytes(response.body, "body")) if head.has_content else b""  # type: ignore[arg-type]
        with suppress(ClientGoneError):
            self._finish(content)

    def refuse(self, status: int) -> None:
        """Answer with a status alone; if that is too late, break the answer off."""
        self._held = None
        if self.is_over:
            return
        if self._has_begun:
            self.abort(ErrorCodes.H3_INTERNAL_ERROR)
        else:
            self.answer(HttpResponse(status=status))

    def abort(self, code: int) -> None:
        """Break the answer off."""
        if not self.is_over:
            self._note_over(partial(LocalProtocolError, f"the answer to {self._name} was broken off"))
            self._owner.abort(self._stream_id, code)

    async def respond(self, head: AnswerHead, body: Any) -> None:
        """Send an answer as fast as the client takes it.

        If this is cancelled or raises, the answer is incomplete and needs ``refuse`` or ``abort``.

        Args:
            head: From ``compose``.
            body: Bytes, or an iterable or asynchronous iterable of them.

        Raises:
            ClientGoneError: The client has gone, or took nothing for ``Timeouts.http_send``.
            TypeError: A piece is not bytes-like.
            ValueError: There are more or fewer bytes than announced.
            Exception: What the iterator raises.
        """
        self._check_open()
        self._held = head
        if not head.has_content:
            self._finish()
        elif isinstance(body, Buffer):
            content = memoryview(contiguous_bytes(body, "body"))
            last = (max(len(content), 1) - 1) // _FRAME_SIZE * _FRAME_SIZE
            await self._send(content[:last])
            self._finish(bytes(content[last:]))
        else:
            # The head waits for the first piece, so that both leave together and an iterator that fails at once is
            # answered with 500; but not longer than until the loop comes round.
            release = self._owner.loop.call_soon(self._release)
            try:
                await self._send_pieces(body)
            finally:
                release.cancel()
            self._finish()

    async def delivered(self) -> None:
        """Wait until the client has everything of a complete answer, or never will.

        A client that acknowledges nothing for ``Timeouts.http_send`` loses the rest.
        """
        stream, self._last = self._last, None
        patience = self._owner.options.timeouts.http_send
        while stream is not None:
            left = stream.unacked
            waiter = Waiter(self._owner.loop)
            stream.wait_acked(waiter)
            try:
                async with asyncio.timeout(patience):
                    await waiter
                return
            except TimeoutError:
                if stream.unacked >= left:
                    stream.reset(ErrorCodes.H3_REQUEST_CANCELLED)
                    return

    def close(self) -> None:
        """Forget the request: nothing more happens."""
        # The frames of the task may refer back to this.
        self.task = None
        self._owner.remove(self._stream_id)

    # -- its steps

    def _check_open(self) -> None:
        stream = None if self.is_over else self._owner.stream(self._stream_id)
        if stream is None or not stream.send_state().is_open:
            raise ClientGoneError(f"{self._name}: the client takes no answer any more")

    def _release(self) -> None:
        """Send the head that waits for the first piece."""
        if self._held is not None and not self.is_over:
            self._begin()
            self._owner.send(self._stream_id)

    def _begin(self) -> None:
        if self._held is not None:
            self._owner.begin(self._stream_id, self._held)
            self._held = None
            self._has_begun = True

    async def _send_pieces(self, body: Any) -> None:
        pieces = aiter(body) if isinstance(body, AsyncIterable) else iter(body)
        try:
            if isinstance(pieces, AsyncIterator):
                async for piece in pieces:
                    await self._send(piece)
            else:
                for piece in pieces:
                    await self._send(piece)
        finally:
            # The caller closes ``body`` itself. An iterator that was made here is closed here.
            if pieces is not body:
                await close_body(pieces)

    async def _send(self, piece: Any) -> None:
        """Send a piece of the body, and wait for room for the next one."""
        content = contiguous_bytes(piece, "a piece of the body")
        if not len(content):
            await asyncio.sleep(0)  # an iterator that makes only empty pieces must not hold the loop up for ever
        for start in range(0, len(content), _FRAME_SIZE):
            self._check_open()
            self._begin()
            self._owner.send(self._stream_id, bytes(content[start : start + _FRAME_SIZE]))
            if waiter := self._owner.room(self._stream_id):
                await self._wait_for_room(waiter)

    async def _wait_for_room(self, waiter: Waiter) -> None:
        patience = self._owner.options.timeouts.http_send
        try:
            async with asyncio.timeout(patience):
                await waiter
        except TimeoutError:
            self.abort(ErrorCodes.H3_REQUEST_CANCELLED)
            words = f"{self._name}: the client took nothing of the answer for {patience:g} s; see Timeouts.http_send"
            raise ClientGoneError(words) from None

    def _finish(self, content: bytes = b"") -> None:
        """Send the end of the answer, and ``content`` in front of it."""
        self._check_open()
        self._begin()
        stream = self._owner.stream(self._stream_id)
        self._owner.send(self._stream_id, content, end=True)
        self._last = stream
        words = f"{self._name} has been answered; what is left of its body is not sent"
        self._note_over(partial(LocalProtocolError, words))

    def _note_over(self, error: Callable[[], WebTransportError]) -> None:
        self.is_over = True
        self._held = None
        self.body.fail(error)


class Body:
    """The body of one request, as it arrives."""

    __slots__ = (
        "_announced",
        "_error",
        "_has_ended",
        "_is_busy",
        "_name",
        "_owner",
        "_pieces",
        "_size",
        "_stream_id",
        "_waiter",
        "_whole",
    )

    def __init__(self, owner: HttpExchanges, stream_id: int, name: str, announced: int | None) -> None:
        # Brings in more; None once nothing more will come.
        self._owner: HttpExchanges | None = owner
        self._stream_id = stream_id
        # The request in words, for errors.
        self._name = name
        # Bytes that the client has announced and nobody has read; None if it announced nothing.
        self._announced = announced
        # What has arrived and was not read, and its size in bytes: up to 64 KiB beyond ``_READ_AHEAD``, or what
        # ``read_all`` collects.
        self._pieces: deque[bytes] = deque()
        self._size = 0
        # What ``read_all`` returned, to be returned again.
        self._whole: bytes | None = None
        # Whether the end has arrived, after what is in ``_pieces``.
        self._has_ended = False
        # Makes the error that says why nothing more will come, if the body has not ended. A new one each time, because
        # its traceback refers back to this.
        self._error: Callable[[], WebTransportError] | None = None
        # Whether a task is in ``read`` or ``read_all``, and what it waits on.
        self._is_busy = False
        self._waiter: Waiter | None = None

    # -- what arrives

    def take(self, data: bytes) -> None:
        """Take a piece."""
        self._pieces.append(data)
        self._size += len(data)
        wake(self._waiter)

    def end(self) -> None:
        """Take the end."""
        self._has_ended = True
        self._owner = None
        wake(self._waiter)

    def fail(self, error: Callable[[], WebTransportError]) -> None:
        """Nothing more will come, unless all has: reading raises what ``error`` makes."""
        if not self._has_ended:
            self._error = error
            self._pieces.clear()
            self._size = 0
            self._owner = None
            wake(self._waiter)

    def note_readable(self) -> None:
        """The engine may have more. If no task waits for it, a little is read ahead, because a reset may follow."""
        if self._waiter is not None:
            wake(self._waiter)
            return
        while self._owner is not None and self._size < _READ_AHEAD:
            before = self._size
            if not self._owner.read(self._stream_id) or self._size == before:
                break

    # -- reading; see ``HttpRequest``

    async def read(self) -> bytes:
        """Return the next piece, waiting for it; ``b""`` at the end. Cancelling loses nothing."""
        with self._only_reader():
            while not self._pieces:
                if self._is_complete():
                    return b""
                await self._wait_for_more()
            piece = self._pieces.popleft()
            self._size -= len(piece)
            if self._announced is not None:
                self._announced -= len(piece)
            return piece

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body, or what ``read`` has left of it. Cancelling loses nothing."""
        with self._only_reader():
            if self._whole is not None:
                return self._whole
            setting = "`limit`"
            if limit == -1 and self._owner is not None:
                limit = self._owner.options.limits.http_body
                setting = "Limits.http_body"
            while True:
                size = max(self._announced or 0, self._size)
                if -1 < limit < size:
                    words = f"the body of {self._name} has {size} bytes or more, which exceeds {limit}; raise {setting}"
                    raise ContentTooLargeError(words, limit=limit, size=self._announced)
                if self._is_complete():
                    self._whole = b"".join(self._pieces)
                    self._pieces.clear()
                    self._size = 0
                    return self._whole
                await self._wait_for_more()

    def _is_complete(self) -> bool:
        if self._error is not None:
            raise self._error()
        return self._has_ended

    async def _wait_for_more(self) -> None:
        """Wait until a piece, the end or an error has arrived."""
        count = len(self._pieces)
        while len(self._pieces) == count and (owner := self._owner) is not None:
            if owner.read(self._stream_id) or self._owner is None or len(self._pieces) > count:
                continue
            patience = owner.options.timeouts.http_body
            self._waiter = Waiter(owner.loop)
            try:
                async with asyncio.timeout(patience):
                    await self._waiter
            except TimeoutError:
                words = f"{self._name}: the client sent no more of the body for {patience:g} s; see Timeouts.http_body"
                raise RequestTimeout(words, timeout=patience) from None
            finally:
                self._waiter = None

    @contextmanager
    def _only_reader(self) -> Iterator[None]:
        if self._is_busy:
            raise BusyError(f"another task is already reading the body of {self._name}")
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False
