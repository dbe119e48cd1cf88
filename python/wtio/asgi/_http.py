"""An ordinary request that an ASGI application answers.

The application runs in a task of its own, because it goes on after its answer (background tasks) and when its client
has left, as with other servers. The server's hook waits for its head, and asks for the pieces of its body as the
client takes them. The hook's task ends with the application's, so everything that bounds hooks bounds applications.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from wtio._buffer import contiguous_bytes
from wtio._http import HttpRequest, HttpResponse
from wtio._url import without_query
from wtio._words import SERVER_CLOSES
from wtio.asgi._calls import end_of_call
from wtio.asgi._rules import HttpRules, SpecificationError, header_lines
from wtio.asgi._scopes import make_scope
from wtio.errors import ClientGoneError, HttpRequestError, LocalProtocolError, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from wtio.asgi._types import ASGIApplication, Message, Spawn

__all__ = ["HttpCall"]

# As uvicorn and hypercorn have it. From 2.4 on, Starlette looks for a client that has left only when it sends, and an
# answer that waits for something to send would go on for ever.
_VERSION: Final = "2.3"
# What belongs to a connection of HTTP/1.1, and is not sent over HTTP/3 (RFC 9114, section 4.2).
_OF_CONNECTIONS: Final = frozenset(("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"))

_logger = logging.getLogger("wtio.asgi")


class HttpCall:
    """One request, and the application that answers it. It is also the body of the answer: an asynchronous iterator."""

    __slots__ = (
        "_application",
        "_body_has_ended",
        "_changed",
        "_has_left",
        "_is_complete",
        "_is_over",
        "_name",
        "_piece",
        "_pieces",
        "_reading",
        "_request",
        "_response",
        "_room",
        "_rules",
        "_scope",
        "_spawn",
        "_task",
        "_turn",
    )

    def __init__(
        self,
        application: ASGIApplication,
        request: HttpRequest,
        *,
        root: str,
        state: Mapping[str, Any] | None,
        spawn: Spawn,
    ) -> None:
        self._application = application
        self._spawn = spawn
        self._request = request
        self._scope = make_scope(request, "http", _VERSION, scheme=request.scheme, root=root, state=state)
        self._scope["method"] = request.method
        # For messages.
        self._name = f"{request.method} {without_query(request.path)}"
        self._rules = HttpRules(request.method)
        # The body of the request, whether its end was given to the application, and who may read it now.
        self._pieces: AsyncIterator[bytes] = request.stream()
        self._body_has_ended = False
        self._turn = asyncio.Lock()
        # The wait for a piece of it, which ends when the client leaves.
        self._reading: asyncio.Timeout | None = None
        # The answer's head; None until the application has sent it.
        self._response: HttpResponse | None = None
        # A piece of its body that the client was not sent yet. There is one at most.
        self._piece: bytes | None = None
        # Set when there is something new for the hook: the head, a piece, the end of the body or of the application.
        self._changed = asyncio.Event()
        # Set while there is room for a piece, and for good when the client has left.
        self._room = asyncio.Event()
        # Set when the application gets `http.disconnect`: its answer is complete, or the client has left.
        self._is_over = asyncio.Event()
        # Nobody wants the rest of the answer.
        self._has_left = False
        # Whether the last piece was taken over from the application.
        self._is_complete = False
        # Runs the application.
        self._task: asyncio.Task[None] | None = None

    # -- the hook

    async def answer(self) -> HttpResponse:
        """Run the application, and return the head of its answer; the body follows as it is asked for.

        Raises:
            Exception: What the application raises before that.
            SpecificationError: It returned without an answer.
        """
        self._task = self._spawn(self._run(), f"wtio asgi {self._name}")
        self._task.add_done_callback(self._note_end)
        try:
            await self._wait_for_change(lambda: self._response is not None)
        except asyncio.CancelledError as error:
            # The client has left: the application hears of it and goes on. Or the server is closing: then it ends.
            self._leave()
            if error.args == (SERVER_CLOSES,):
                self._task.cancel(SERVER_CLOSES)
            await self._finish()
            raise
        if self._response is None:
            self._raise_failure()
            raise SpecificationError("the application returned without starting a response")
        return self._response

    def __aiter__(self) -> HttpCall:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece of the answer, waiting for it."""
        await self._wait_for_change(lambda: self._piece is not None or self._is_complete or self._has_left)
        piece, self._piece = self._piece, None
        self._room.set()
        if piece is not None:
            return piece
        if self._is_complete:
            raise StopAsyncIteration
        if self._has_left:
            raise ClientGoneError(f"{self._name}: the client sent no more of its body")
        self._raise_failure()
        raise SpecificationError("the application returned without completing its response")

    async def aclose(self) -> None:
        """The answer is sent, or broken off: wait for the application, which may have more to do."""
        self._leave()
        try:
            await self._finish()
        finally:
            self._response = None  # which refers to this

    async def _wait_for_change(self, is_there: Callable[[], bool]) -> None:
        """Wait until something is there, or the application has ended."""
        assert self._task is not None
        while not is_there() and not self._task.done():
            self._changed.clear()
            await self._changed.wait()

    def _leave(self) -> None:
        """Tell the application that nobody wants more of it, unless its answer is complete."""
        self._has_left = True
        self._is_over.set()
        self._room.set()
        self._changed.set()
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(0)

    async def _finish(self) -> None:
        """Wait for the application. If this is cancelled because the server is closing, so is the application."""
        assert self._task is not None
        await end_of_call(self._task)
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Raise what the application has raised, once."""
        task = self._task
        if task is None or task.cancelled() or (error := task.exception()) is None:
            return
        if self._has_left and not self._is_complete:
            # It may not have liked what happened to it.
            _logger.debug("the application ended after its client had left %s: %r", self._name, error)
            return
        try:
            raise error
        finally:
            del error

    def _note_end(self, _: asyncio.Task[None]) -> None:
        self._changed.set()

    # -- the application

    async def _run(self) -> None:
        result: object = await self._application(self._scope, self._receive, self._send)  # type: ignore[func-returns-value]
        if result is not None:
            raise SpecificationError(f"the application returned {type(result).__name__}; it returns None")

    async def _receive(self) -> Message:
        """Return the next piece of the request's body, or its end, or that nothing is left to do. May be cancelled."""
        async with self._turn:
            if not self._body_has_ended and not self._is_over.is_set():
                message = await self._read()
                if message is not None:
                    return message
        await self._is_over.wait()
        return {"type": "http.disconnect"}

    async def _read(self) -> Message | None:
        """Read a piece of the body; None if the client has left."""
        try:
            piece = await self._next_piece()
        except RequestTimeout as error:
            self._give_up(error)
            return None
        except (TimeoutError, HttpRequestError, LocalProtocolError):
            return None  # whoever knows that the client has left will say so
        self._body_has_ended = not piece
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    async def _next_piece(self) -> bytes:
        try:
            async with asyncio.timeout(None) as self._reading:
                return await anext(self._pieces, b"")
        finally:
            self._reading = None

    def _give_up(self, error: RequestTimeout) -> None:
        """The client sends no more of its body. Answer 408, unless the application has answered."""
        _logger.debug("%s", error)
        if self._response is None:
            self._response = HttpResponse(status=408, body=self)
            self._is_complete = True
        self._leave()

    async def _send(self, message: Message) -> None:
        """Take a part of the answer, and wait while there is no room for it. If this is cancelled, the part is lost."""
        kind = self._rules.check_sent(message)
        if kind == "http.response.start":
            if self._response is None:
                lines = header_lines(message.get("headers", ()))
                headers = [line for line in lines if line[0].lower() not in _OF_CONNECTIONS]
                self._response = HttpResponse(status=message["status"], headers=headers, body=self)
            self._changed.set()
            return
        piece, is_last = message.get("body", b""), self._rules.is_complete
        if not is_last and (self._has_left or not len(piece)):
            # An application that never waits must not hold up the loop.
            await asyncio.sleep(0)
            if self._has_left:
                raise ClientGoneError(f"{self._name}: nobody takes the answer any more")
        while self._piece is not None and not self._has_left:
            self._room.clear()
            await self._room.wait()
        if len(piece) and not self._has_left:
            # A copy of what the application may change.
            self._piece = piece if isinstance(piece, bytes) else bytes(contiguous_bytes(piece, "body"))
        if is_last:
            self._is_complete = True
            self._is_over.set()
        self._changed.set()
