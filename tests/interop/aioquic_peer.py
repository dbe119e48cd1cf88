"""A WebTransport client and server on aioquic: the other implementation in interoperability tests and benchmarks.

aioquic gives HTTP/3 and the framing of WebTransport streams and datagrams of draft 02. What it leaves to its user is
here: sessions, capsules, stream objects with back pressure. Nothing in this module knows wtio.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from aioquic._buffer import Buffer, BufferReadError
from aioquic.asyncio.client import connect as quic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as quic_serve
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, FrameType, H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamReset

from .peer_session import PeerSessionClosed as PeerSessionClosed
from .peer_session import PeerSessionRejected as PeerSessionRejected
from .peer_session import PeerStreamReset as PeerStreamReset
from .peer_session import PeerStreamStopped as PeerStreamStopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from os import PathLike

    from aioquic.asyncio.protocol import QuicStreamHandler
    from aioquic.h3.events import H3Event
    from aioquic.quic.connection import NetworkAddress, QuicConnection

Item = TypeVar("Item")

CLOSE_SESSION = 0x2843
DRAIN_SESSION = 0x78AE

# draft-ietf-webtrans-http3, section 4.4: where the 32-bit application codes lie among the HTTP/3 codes.
APPLICATION_ERROR_FIRST = 0x52E4A40FA8DB
APPLICATION_ERROR_LAST = 0x52E5AC983162

# aioquic takes any number of bytes at once and has no word for "wait"; without a mark a bulk sender would
# hold the whole transfer in memory.
WRITE_HIGH_WATER = 1 << 20


def to_wire(code: int) -> int:
    """Map a 32-bit application code to its HTTP/3 code, skipping the reserved ones."""
    return APPLICATION_ERROR_FIRST + code + code // 0x1E


def from_wire(code: int) -> int | None:
    """Map an HTTP/3 code back to the application's 32-bit code; None for a code of the protocol itself."""
    shifted = code - APPLICATION_ERROR_FIRST
    inside = APPLICATION_ERROR_FIRST <= code <= APPLICATION_ERROR_LAST
    return shifted - shifted // 0x1F if inside else None


class Inbox(Generic[Item]):
    """Things that arrived and wait for one reader; after the error only what had arrived comes out."""

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def get(self) -> Item:
        while not self.items:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.items.popleft()

    def put(self, item: Item) -> None:
        self.items.append(item)
        self._wake()

    def fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class PeerStream:
    """One WebTransport stream; a unidirectional one uses half of the methods."""

    def __init__(self, session: PeerSession, protocol: PeerProtocol, stream_id: int) -> None:
        self.stream_id = stream_id
        self.stopped: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._session = session
        self._protocol = protocol
        self._pieces: Inbox[bytes] = Inbox()
        self._ended = False
        self._receiving = protocol.can_receive(stream_id)
        self._sending = protocol.can_send(stream_id)

    async def read(self) -> bytes:
        """Return the next piece that arrived, or ``b""`` at the end."""
        if self._ended and not self._pieces.items:
            return b""
        return await self._pieces.get()

    async def read_all(self) -> bytes:
        """Return everything until the end."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def write(self, data: bytes, end: bool = False) -> None:
        """Send ``data``; waits while more than the high-water mark is unacknowledged."""
        if self.stopped.done():
            raise PeerStreamStopped(self.stopped.result())
        self._protocol.quic.send_stream_data(self.stream_id, data, end)
        self._protocol.transmit_soon()
        if end:
            self._sending = False
            self._forget_when_done()
        while self._protocol.unacknowledged(self.stream_id) > WRITE_HIGH_WATER:
            await self._protocol.wait_progress()
            if self._session.closed.done():
                raise self._session.closed.result()

    def reset(self, code: int) -> None:
        """RESET_STREAM with the mapped code."""
        self._protocol.quic.reset_stream(self.stream_id, to_wire(code))
        self._protocol.transmit_soon()
        self._sending = False
        self._forget_when_done()

    def stop(self, code: int) -> None:
        """STOP_SENDING with the mapped code."""
        self._protocol.quic.stop_stream(self.stream_id, to_wire(code))
        self._protocol.transmit_soon()

    def data_arrived(self, data: bytes, end: bool) -> None:
        if data:
            self._pieces.put(data)
        if end:
            self._ended = True
            self._receiving = False
            self._pieces.put(b"")
            self._forget_when_done()

    def reset_arrived(self, code: int | None) -> None:
        self._receiving = False
        self._pieces.fail(PeerStreamReset(code))
        self._forget_when_done()

    def stop_arrived(self, code: int | None) -> None:
        if not self.stopped.done():
            self.stopped.set_result(code)

    def session_ended(self, error: PeerSessionClosed) -> None:
        self._pieces.fail(error)

    def _forget_when_done(self) -> None:
        if not self._sending and not self._receiving:
            self._session.forget(self.stream_id)


class PeerSession:
    """One WebTransport session, named by the CONNECT stream it lives on."""

    def __init__(self, protocol: PeerProtocol, session_id: int, path: str, headers: Sequence[tuple[str, str]]) -> None:
        loop = asyncio.get_running_loop()
        self.session_id = session_id
        self.path = path
        self.headers = headers
        self.response: asyncio.Future[int] = loop.create_future()
        self.closed: asyncio.Future[PeerSessionClosed] = loop.create_future()
        self.draining: asyncio.Future[None] = loop.create_future()
        self._protocol = protocol
        self._capsules = bytearray()
        self._streams: dict[int, PeerStream] = {}
        self._bidirectional: Inbox[PeerStream] = Inbox()
        self._unidirectional: Inbox[PeerStream] = Inbox()
        self._datagrams: Inbox[bytes] = Inbox()
        self._close_sent = False

    def open_stream(self, *, bidirectional: bool = True) -> PeerStream:
        """Open a stream; its header leaves with the first data."""
        http = self._protocol.http
        stream_id = http.create_webtransport_stream(self.session_id, is_unidirectional=not bidirectional)
        if bidirectional:
            # aioquic parses what comes back on a stream that we opened as HTTP/3 frames, unless it is told
            # that the stream's header has been seen.
            with http._get_or_create_stream(stream_id) as stream:
                stream.frame_type = FrameType.WEBTRANSPORT_STREAM
                stream.session_id = self.session_id
        self._streams[stream_id] = opened = self.make_stream(stream_id)
        self._protocol.transmit_soon()
        return opened

    async def create_stream(self, *, bidirectional: bool = True) -> PeerStream:
        """Open a stream once it may be opened; aioquic itself waits for the credit of QUIC before it sends."""
        return self.open_stream(bidirectional=bidirectional)

    async def accept_stream(self, *, bidirectional: bool = True) -> PeerStream:
        """Wait for the next stream that the other side opened; PeerSessionClosed when none can come."""
        return await (self._bidirectional if bidirectional else self._unidirectional).get()

    def send_datagram(self, data: bytes) -> None:
        """Queue one datagram; aioquic knows no limit."""
        self._protocol.http.send_datagram(self.session_id, data)
        self._protocol.transmit_soon()

    async def receive_datagram(self) -> bytes:
        """Wait for the next datagram."""
        return await self._datagrams.get()

    def close(self, code: int = 0, reason: str = "") -> None:
        """Send WT_CLOSE_SESSION and the end of the CONNECT stream."""
        if self._close_sent or self.closed.done():
            return
        self._close_sent = True
        self.send_capsule(CLOSE_SESSION, code.to_bytes(4, "big") + reason.encode(), end=True)

    def drain(self) -> None:
        """Ask the other side to wind down."""
        self.send_capsule(DRAIN_SESSION, b"")

    def send_capsule(self, kind: int, value: bytes, *, end: bool = False) -> None:
        """Send a capsule, and with ``end`` the end of the CONNECT stream."""
        capsule = encode_uint_var(kind) + encode_uint_var(len(value)) + value
        self._protocol.http.send_data(self.session_id, capsule, end_stream=end)
        self._protocol.transmit_soon()

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the server chose; its name is a plain one."""
        for name, value in self.headers:
            if name == "wt-protocol":
                return value.strip('"')
        return None

    def make_stream(self, stream_id: int) -> PeerStream:
        return PeerStream(self, self._protocol, stream_id)

    def stream(self, stream_id: int) -> PeerStream:
        """The stream of this id, announced to the application when it is new."""
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = self.make_stream(stream_id)
            (self._unidirectional if stream_id & 2 else self._bidirectional).put(stream)
        return stream

    def known_stream(self, stream_id: int) -> PeerStream | None:
        return self._streams.get(stream_id)

    def forget(self, stream_id: int) -> None:
        """Drop the entry of a stream that is over in both directions."""
        self._streams.pop(stream_id, None)

    def datagram_arrived(self, data: bytes) -> None:
        self._datagrams.put(data)

    def capsule_bytes_arrived(self, data: bytes, end: bool) -> None:
        self._capsules += data
        while self._capsules:
            buffer = Buffer(data=bytes(self._capsules))
            try:
                capsule, length = buffer.pull_uint_var(), buffer.pull_uint_var()
                value = buffer.pull_bytes(length)
            except BufferReadError:
                break
            del self._capsules[: buffer.tell()]
            self.capsule_arrived(capsule, value)
        if end:
            # draft-ietf-webtrans-http3, section 6: an end without a capsule is code 0 without a reason.
            self.ended(PeerSessionClosed(0, ""))
            if not self._close_sent and not self._protocol.terminated:
                self._close_sent = True
                self._protocol.quic.send_stream_data(self.session_id, b"", end_stream=True)
                self._protocol.transmit_soon()

    def capsule_arrived(self, kind: int, value: bytes) -> None:
        if kind == CLOSE_SESSION:
            self.ended(PeerSessionClosed(int.from_bytes(value[:4], "big"), value[4:].decode()))
        elif kind == DRAIN_SESSION and not self.draining.done():
            self.draining.set_result(None)

    def ended(self, error: PeerSessionClosed) -> None:
        if not self.response.done():
            self.response.set_exception(error)
            self.response.exception()  # whoever awaits it still gets it; nobody need await it
        if not self.closed.done():
            self.closed.set_result(error)
            for inbox in (self._bidirectional, self._unidirectional, self._datagrams):
                inbox.fail(error)
            for stream in self._streams.values():
                stream.session_ended(error)


class PeerProtocol(QuicConnectionProtocol):
    """One QUIC connection with its sessions; a server asks ``decide`` for a status and runs ``handler`` after a 2xx."""

    def __init__(
        self,
        quic: QuicConnection,
        stream_handler: QuicStreamHandler | None = None,
        *,
        handler: Callable[[PeerSession], Awaitable[None]] | None = None,
        decide: Callable[[PeerSession], int] = lambda session: 200,
        protocols: Sequence[str] = (),
    ) -> None:
        super().__init__(quic, stream_handler)
        self.quic = quic
        self.http = self.make_http(quic)
        self.protocols = protocols
        self.terminated = False
        self.settings: asyncio.Future[dict[int, int]] = asyncio.get_running_loop().create_future()
        self._sessions: dict[int, PeerSession] = {}
        self._handler = handler
        self._decide = decide
        self._tasks: set[asyncio.Task[None]] = set()
        self._progress: asyncio.Future[None] | None = None

    # -- for sessions and streams

    def transmit_soon(self) -> None:
        """Send at the end of this loop iteration, everything together."""
        self._transmit_soon()

    def can_receive(self, stream_id: int) -> bool:
        return self.quic._stream_can_receive(stream_id)

    def can_send(self, stream_id: int) -> bool:
        return self.quic._stream_can_send(stream_id)

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes of the stream that the other side has not acknowledged."""
        stream = self.quic._streams.get(stream_id)
        return len(stream.sender._buffer) if stream is not None else 0

    async def wait_progress(self) -> None:
        """Wait until a packet arrived or the connection ended."""
        if self._progress is None:
            self._progress = asyncio.get_running_loop().create_future()
        await self._progress

    async def request_session(self, authority: str, path: str) -> PeerSession:
        """Client: CONNECT, and the session once the server accepted it."""
        await self.settings
        stream_id = self.quic.get_next_available_stream_id()
        session = self._sessions[stream_id] = self.make_session(stream_id, path, ())
        headers = self.request_headers(authority, path)
        if self.protocols:
            headers.append((b"wt-available-protocols", ", ".join(f'"{name}"' for name in self.protocols).encode()))
        self.http.send_headers(stream_id, headers)
        self.transmit_soon()
        status = await session.response
        if not 200 <= status < 300:
            raise PeerSessionRejected(status)
        return session

    # -- for other kinds of peers

    def make_http(self, quic: QuicConnection) -> H3Connection:
        return H3Connection(quic, enable_webtransport=True)

    def make_session(self, session_id: int, path: str, headers: Sequence[tuple[str, str]]) -> PeerSession:
        return PeerSession(self, session_id, path, headers)

    def request_headers(self, authority: str, path: str) -> list[tuple[bytes, bytes]]:
        return [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            (b":protocol", b"webtransport"),
            (b"sec-webtransport-http3-draft02", b"1"),
        ]

    # -- from aioquic

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        super().datagram_received(data, addr)
        self._wake_writers()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.terminated = True
            error = PeerSessionClosed(None, event.reason_phrase)
            for session in self._sessions.values():
                session.ended(error)
            if not self.settings.done():
                self.settings.set_exception(ConnectionError(event.reason_phrase))
                self.settings.exception()
            self._wake_writers()
        elif isinstance(event, StreamReset):
            if (stream := self._known_stream(event.stream_id)) is not None:
                stream.reset_arrived(from_wire(event.error_code))
            elif event.stream_id in self._sessions:
                self._sessions[event.stream_id].ended(PeerSessionClosed(None, "CONNECT stream reset"))
        elif isinstance(event, StopSendingReceived) and (stream := self._known_stream(event.stream_id)) is not None:
            stream.stop_arrived(from_wire(event.error_code))
        for http_event in self.http.handle_event(event):
            self._http_event(http_event)
        if self.http.received_settings is not None and not self.settings.done():
            self.settings.set_result(self.http.received_settings)

    def _http_event(self, event: H3Event) -> None:
        if isinstance(event, WebTransportStreamDataReceived):
            if (session := self._sessions.get(event.session_id)) is not None:
                session.stream(event.stream_id).data_arrived(event.data, event.stream_ended)
        elif isinstance(event, DatagramReceived):
            if (session := self._sessions.get(event.stream_id)) is not None:
                session.datagram_arrived(event.data)
        elif isinstance(event, HeadersReceived):
            headers = [(name.decode(), value.decode()) for name, value in event.headers]
            if self.quic.configuration.is_client:
                session = self._sessions[event.stream_id]
                session.headers = headers
                if not session.response.done():
                    session.response.set_result(int(dict(headers)[":status"]))
            else:
                self._session_requested(event.stream_id, headers)
        elif isinstance(event, DataReceived) and (session := self._sessions.get(event.stream_id)) is not None:
            session.capsule_bytes_arrived(event.data, event.stream_ended)

    def _session_requested(self, stream_id: int, headers: Sequence[tuple[str, str]]) -> None:
        fields = dict(headers)
        if fields.get(":method") != "CONNECT" or not fields.get(":protocol", "").startswith("webtransport"):
            self.http.send_headers(stream_id, [(b":status", b"405")], end_stream=True)
            return
        session = self.make_session(stream_id, fields[":path"], headers)
        status = self._decide(session)
        accepted = 200 <= status < 300
        answer = [(b":status", str(status).encode()), (b"sec-webtransport-http3-draft", b"draft02")]
        offered = [name.strip(' "') for name in fields.get("wt-available-protocols", "").split(",")]
        if accepted and (common := [name for name in offered if name in self.protocols]):
            answer.append((b"wt-protocol", f'"{common[0]}"'.encode()))
            session.headers = [*headers, ("wt-protocol", common[0])]
        self.http.send_headers(stream_id, answer, end_stream=not accepted)
        if accepted:
            self._sessions[stream_id] = session
            if self._handler is not None:
                task = asyncio.ensure_future(self._run(self._handler, session))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _run(self, handler: Callable[[PeerSession], Awaitable[None]], session: PeerSession) -> None:
        with contextlib.suppress(PeerSessionClosed):
            await handler(session)

    def _known_stream(self, stream_id: int) -> PeerStream | None:
        for session in self._sessions.values():
            if (stream := session.known_stream(stream_id)) is not None:
                return stream
        return None

    def _wake_writers(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)
        self._progress = None


def _configuration(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(is_client=is_client, alpn_protocols=H3_ALPN, max_datagram_frame_size=65536)


@contextlib.asynccontextmanager
async def connect(
    host: str,
    port: int,
    path: str,
    *,
    cafile: str | PathLike[str] | None = None,
    protocols: Sequence[str] = (),
) -> AsyncIterator[PeerSession]:
    """Open a session; without ``cafile`` any certificate is accepted (this is a test peer)."""
    configuration = _configuration(is_client=True)
    if cafile is None:
        configuration.verify_mode = ssl.CERT_NONE
    else:
        configuration.load_verify_locations(cafile=str(cafile))
    create_protocol = partial(PeerProtocol, protocols=protocols)
    async with quic_connect(host, port, configuration=configuration, create_protocol=create_protocol) as protocol:
        assert isinstance(protocol, PeerProtocol)
        session = await protocol.request_session(f"{host}:{port}", path)
        yield session
        session.close()


@contextlib.asynccontextmanager
async def serve(
    handler: Callable[[PeerSession], Awaitable[None]],
    host: str,
    port: int,
    *,
    certificate: str | PathLike[str],
    key: str | PathLike[str],
    decide: Callable[[PeerSession], int] = lambda session: 200,
    protocols: Sequence[str] = (),
    create_protocol: Callable[..., PeerProtocol] = PeerProtocol,
) -> AsyncIterator[int]:
    """Run ``handler`` for each session that ``decide`` gives a 2xx status; yields the port."""
    configuration = _configuration(is_client=False)
    configuration.load_cert_chain(certificate, key)
    server = await quic_serve(
        host,
        port,
        configuration=configuration,
        create_protocol=partial(create_protocol, handler=handler, decide=decide, protocols=protocols),
    )
    try:
        assert server._transport is not None
        yield server._transport.get_extra_info("sockname")[1]
    finally:
        server.close()
