"""A plain HTTP/3 client on a simulated network that leaves every step to the test: frames, ends, resets, stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from wtio._core import ReadAnswer
from wtio.protocol import frames, qpack
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.frames import FrameType, Handling, RecordReader

if TYPE_CHECKING:
    from types import TracebackType

    from wtio import _core
    from wtio._connection.client import ClientConnection
    from wtio.testing import Network

# Virtual seconds between two looks at a stream.
STEP = 0.01


def headers_frame(*fields: tuple[str, str]) -> bytes:
    return frames.encode_record(FrameType.HEADERS, qpack.encode_field_section(fields))


def data_frame(data: bytes) -> bytes:
    return frames.encode_record(FrameType.DATA, data)


class HttpClient:
    """A connection without sessions."""

    def __init__(self, network: Network, **options: Any) -> None:
        self._connector = network.connect(**options)
        self.connection: ClientConnection

    async def __aenter__(self) -> HttpClient:
        self.connection = await self._connector._dialer.dial()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close_at_once()

    def stream(self) -> Request:
        """A request of which nothing is sent yet."""
        return begin(self.connection)

    async def ask(self, method: str, path: str, *fields: tuple[str, str], end: bool = True) -> Request:
        """Send a request, or the beginning of one."""
        request = self.stream()
        target = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        await request.send(headers_frame(*target, *fields), end=end)
        return request

    async def get(self, path: str = "/", *fields: tuple[str, str], method: str = "GET") -> Request:
        """Send a request, and wait for the whole answer."""
        request = await self.ask(method, path, *fields)
        await request.answer()
        return request


def begin(connection: ClientConnection) -> Request:
    """A request of which nothing is sent yet, also on a connection with sessions."""
    stream = connection.open_request()
    assert stream is not None
    connection._raw.remove(stream.id)  # what it brings is for the test, not for the session layer
    return Request(stream)


class Request:
    """A request, and as much of the answer as was read."""

    def __init__(self, stream: _core.Stream) -> None:
        self.core = stream
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        # The code of the server's reset; None if it sent none, or not yet.
        self.reset_code: int | None = None
        self.has_ended = False
        self._reader = RecordReader()

    @property
    def status(self) -> int:
        return int(self.headers[":status"])

    @property
    def stop_code(self) -> int | None:
        """The code with which the server stopped the request."""
        state = self.core.send_state()
        return state.wire_code if state.is_stopped else None

    async def send(self, data: bytes, *, end: bool = False) -> bool:
        """Send bytes of the stream as fast as the server lets them in; whether it took them all."""
        sent = 0
        while sent < len(data):
            accepted = self.core.write(data, sent)
            if accepted < 0:
                return False
            sent += accepted
            if not accepted:
                await asyncio.sleep(STEP)
        if end:
            self.core.finish()
        return True

    async def send_body(self, data: bytes, *, end: bool = False) -> bool:
        return await self.send(data_frame(data), end=end)

    def leave(self, code: int = ErrorCodes.H3_REQUEST_CANCELLED) -> None:
        """Take the request back, as RFC 9114, section 4.1.1, wants it."""
        self.core.reset(code)
        self.core.stop(code)

    async def read(self, most: int = -1) -> bool:
        """Take what has arrived of the answer, at most so many bytes; whether more may come."""
        data = self.core.read(most)
        if isinstance(data, bytes):
            for kind, payload in self._reader.feed(data, _classify):
                if kind == FrameType.HEADERS:
                    self.headers = dict(qpack.decode_field_section(payload, max_size=65536))
                else:
                    self.body += payload
        elif data is ReadAnswer.ENDED:
            state = self.core.receive_state()
            self.has_ended = state.is_ended
            self.reset_code = state.wire_code if state.is_reset else None
            return False
        else:
            await asyncio.sleep(STEP)
        return True

    async def head(self) -> None:
        """Wait for the head of the answer, or a reset."""
        while not self.headers and await self.read():
            pass

    async def answer(self) -> None:
        """Wait for the end of the answer, or a reset."""
        while await self.read():
            pass


def _classify(kind: int, length: int) -> Handling:
    return Handling.STREAM if kind == FrameType.DATA else Handling.COLLECT
