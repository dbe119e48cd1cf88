"""A session that an ASGI application serves: the scope ``webtransport`` of docs/asgi-webtransport.md.

The application runs in a task of its own. Small tasks wait for what the client does and turn it into messages, of which
a bounded number waits for the application.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from wtio._log import session_name, shown_path
from wtio._url import without_query
from wtio._waiting import start_task
from wtio._words import SERVER_CLOSES
from wtio.asgi._calls import end_of_call
from wtio.asgi._rules import SessionRules, SpecificationError, header_lines
from wtio.asgi._scopes import make_scope
from wtio.errors import SessionClosed, StreamClosedError, StreamResetError
from wtio.stream import WebTransportReceiveStream, WebTransportSendStream, WebTransportStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    from wtio._request import SessionRequest
    from wtio.asgi._types import ASGIApplication, Message, Spawn
    from wtio.session import WebTransportSession

__all__ = ["WEBTRANSPORT_VERSION", "SessionCall"]

WEBTRANSPORT_VERSION: Final = "0.1"
"""Version of the scope ``webtransport``, as in ``scope["asgi"]["spec_version"]``. While it begins with 0, each version
may break applications for the one before."""

# How many messages wait for the application. What comes after that waits in the session, where it has limits.
_MOST_MESSAGES: Final = 16
# Bytes that a read brings at most, unless it says.
_READ_SIZE: Final = 64 * 1024

_Stream = WebTransportStream | WebTransportSendStream | WebTransportReceiveStream
_logger = logging.getLogger("wtio.asgi")


class SessionCall:
    """One request for a session, and the application that answers it and serves the session."""

    __slots__ = (
        "_answered",
        "_application",
        "_arrived",
        "_end",
        "_messages",
        "_over",
        "_readers",
        "_request",
        "_room",
        "_rules",
        "_scope",
        "_session",
        "_spawn",
        "_started",
        "_streams",
        "_task",
        "_tasks",
    )

    def __init__(
        self,
        application: ASGIApplication,
        request: SessionRequest,
        *,
        root: str,
        state: Mapping[str, Any] | None,
        spawn: Spawn,
    ) -> None:
        self._application = application
        self._spawn = spawn
        self._request = request
        self._scope = make_scope(request, "webtransport", WEBTRANSPORT_VERSION, scheme="https", root=root, state=state)
        self._scope["subprotocols"] = list(request.protocols)
        # Names of streams that may be dropped, once what is being done with them has begun.
        self._over: list[int | str] = []
        self._rules = SessionRules(request.protocols, forget=self._over.append)
        # For the application, at most ``_MOST_MESSAGES``; and the last one, which it gets again and again.
        self._messages: deque[Message] = deque([{"type": "webtransport.connect"}])
        self._end: Message | None = None
        # Set when there may be a message, and when there may be room for one.
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        # Set when the request is answered, or the application has ended; and when the session is there.
        self._answered = asyncio.Event()
        self._started = asyncio.Event()
        self._session: WebTransportSession | None = None
        # Streams of which the rules know, by name: the client's by stream ID, others by the name that the application
        # gave them.
        self._streams: dict[int | str, _Stream] = {}
        # Runs the application.
        self._task: asyncio.Task[None] | None = None
        # Those that wait for what the client does, and for how many of the application's reads.
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers = 0

    # -- the server

    async def decide(self) -> None:
        """Run the application, and return when it has answered the request. Runs in ``admit``.

        Raises:
            Exception: What the application raises before that.
            SpecificationError: It returned without an answer.
        """
        self._task = self._spawn(self._run(), f"wtio asgi session {without_query(self._request.path)}")
        self._task.add_done_callback(lambda _: self._answered.set())
        try:
            await self._answered.wait()
            if not self._request.is_accepted:
                # It has rejected the request, and may have more to do, or has failed.
                self._disconnect(None, "the session was rejected")
                await self._finish()
        except asyncio.CancelledError as error:
            # The client has left, or it took too long: the application hears of it. Or the server is closing.
            self._disconnect(None, "the session was not established")
            if error.args == (SERVER_CLOSES,):
                self._task.cancel(SERVER_CLOSES)
            await self._finish()
            raise
        if not self._request.is_answered:
            raise SpecificationError("the application returned without an answer")

    async def _serve(self, session: WebTransportSession) -> None:
        """Pass on what happens in the session, until the application has ended. The server closes it then."""
        self._session = session
        taking = [
            self._begin(self._take_streams(session.incoming_bidirectional_streams())),
            self._begin(self._take_streams(session.incoming_unidirectional_streams())),
            self._begin(self._take_datagrams(session)),
            self._begin(self._wait_for_drain(session)),
        ]
        self._begin(self._wait_for_end(session, taking))
        self._started.set()
        try:
            await self._finish()
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            self._streams.clear()

    async def _finish(self) -> None:
        """Wait for the application, and raise what it has raised.

        If this is cancelled because the server is closing, so is the application.
        """
        assert self._task is not None
        task = self._task
        await end_of_call(task)
        if task.cancelled():
            if not task.cancelling():
                task.result()  # what the application waited for was cancelled, and raises that here
            return
        if (error := task.exception()) is None:
            return
        if self._end is not None and isinstance(error, OSError):
            _logger.debug("%s: the application ended after its session: %r", self._log_name(), error)
            return
        try:
            raise error
        finally:
            del error

    def _log_name(self) -> str:
        path = self._request.path
        return f"path {shown_path(path)}" if self._session is None else session_name(self._session.log_id, path)

    def _begin(self, waiting: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return start_task(waiting, None, self._tasks)

    # -- what the client does

    async def _take_streams(
        self, incoming: AsyncIterator[WebTransportStream] | AsyncIterator[WebTransportReceiveStream]
    ) -> None:
        try:
            async for stream in incoming:
                is_bidirectional = isinstance(stream, WebTransportStream)
                name = stream.stream_id
                self._streams[name] = stream
                message = {"type": "webtransport.stream.open", "stream": name, "bidirectional": is_bidirectional}
                await self._put(message)
                if isinstance(stream, WebTransportStream):
                    self._begin(self._wait_for_stop(name, stream))
        except SessionClosed:
            return

    async def _take_datagrams(self, session: WebTransportSession) -> None:
        try:
            async for data in session.incoming_datagrams():
                await self._put({"type": "webtransport.datagram.receive", "data": data})
        except SessionClosed:
            return

    async def _wait_for_drain(self, session: WebTransportSession) -> None:
        try:
            await session.wait_draining()
        except SessionClosed:
            return
        await self._put({"type": "webtransport.drain"})

    async def _wait_for_stop(self, name: int | str, stream: WebTransportSendStream) -> None:
        try:
            code = await stream.wait_stopped()
        except (StreamClosedError, SessionClosed):
            return
        if name in self._rules:
            await self._put({"type": "webtransport.stream.stop", "stream": name, "code": code})

    async def _read(self, name: int | str, stream: WebTransportReceiveStream, most: int) -> None:
        try:
            data = await stream.read(max_bytes=most)
            message: Message = {"type": "webtransport.stream.receive", "stream": name, "data": data, "end": not data}
        except StreamResetError as error:
            message = {"type": "webtransport.stream.reset", "stream": name, "code": error.error_code}
        except (StreamClosedError, SessionClosed):
            return  # the application has stopped it, or will be told of the end
        finally:
            self._readers -= 1
            self._arrived.set()
        await self._put(message)

    async def _wait_for_end(self, session: WebTransportSession, taking: list[asyncio.Task[None]]) -> None:
        info = await session.wait_closed()
        # What had arrived before comes first.
        await asyncio.wait(taking)
        self._disconnect(info.code, info.reason)

    def _disconnect(self, code: int | None, reason: str) -> None:
        if self._end is None:
            self._end = {"type": "webtransport.disconnect", "code": code, "reason": reason}
            self._arrived.set()

    async def _put(self, message: Message) -> None:
        """Leave a message for the application, and wait while there are too many."""
        while len(self._messages) >= _MOST_MESSAGES:
            self._room.clear()
            await self._room.wait()
        self._messages.append(message)
        self._arrived.set()

    # -- the application

    async def _run(self) -> None:
        if self._task is None:
            await asyncio.sleep(0)  # an eager task begins before it is known
        result: object = await self._application(self._scope, self._receive, self._send)  # type: ignore[func-returns-value]
        if result is not None:
            raise SpecificationError(f"the application returned {type(result).__name__}; it returns None")

    async def _receive(self) -> Message:
        """Return the next message, waiting for it. Cancelling loses none."""
        while not self._messages:
            # What a read brings comes before the end.
            if self._end is not None and not self._readers:
                message = dict(self._end)
                break
            self._arrived.clear()
            await self._arrived.wait()
        else:
            message = dict(self._messages.popleft())
            self._room.set()
        self._rules.note_received(message)
        self._drop_streams()
        return message

    async def _send(self, message: Message) -> None:
        """Do what the application says. Cancelling is as with the methods of sessions and streams."""
        kind = self._rules.check_sent(message)
        match kind.removeprefix("webtransport."):
            case "accept":
                await self._accept(message)
            case "reject":
                headers = header_lines(message.get("headers", ()))
                body = message.get("body", b"")
                if not self._request.is_answered:
                    await self._request.reject(message.get("status", 403), headers=headers, body=body)
                self._answered.set()
            case "datagram.send":
                self._open_session().send_datagram(message["data"])
            case "drain":
                await self._open_session().drain()
            case "close":
                await self._open_session().close(message.get("code", 0), message.get("reason", ""))
            case "stream.open":
                self._drop_streams()
                await self._open(message["stream"], message.get("bidirectional", True))
            case verb:
                await self._use(verb.removeprefix("stream."), message)

    def _open_session(self) -> WebTransportSession:
        assert self._session is not None  # which the rules have checked
        return self._session

    async def _accept(self, message: Message) -> None:
        headers = header_lines(message.get("headers", ()))
        if self._request.is_answered:
            # It took too long, and has been told.
            raise SessionClosed(code=None, reason="the request was answered before", closed_by="local")
        await self._request.serve(self._serve, protocol=message.get("subprotocol"), headers=headers)
        self._answered.set()
        await self._started.wait()

    async def _open(self, name: str, is_bidirectional: bool) -> None:
        session = self._open_session()
        opening = session.create_bidirectional_stream if is_bidirectional else session.create_unidirectional_stream
        stream: WebTransportSendStream = await opening()
        self._streams[name] = stream
        self._begin(self._wait_for_stop(name, stream))

    async def _use(self, verb: str, message: Message) -> None:
        name = message["stream"]
        stream: Any = self._streams.get(name)
        if stream is None:
            raise SpecificationError(f"stream {name!r} is not open yet: `webtransport.stream.open` has not returned")
        self._drop_streams()
        match verb:
            case "read":
                self._readers += 1
                self._begin(self._read(name, stream, message.get("max_bytes", _READ_SIZE)))
            case "send":
                await stream.write(data=message.get("data", b""), end_stream=message.get("end", False))
            case "reset":
                await stream.reset(error_code=message.get("code", 0))
            case "stop":
                await stream.stop_receiving(error_code=message.get("code", 0))

    def _drop_streams(self) -> None:
        while self._over:
            self._streams.pop(self._over.pop(), None)
