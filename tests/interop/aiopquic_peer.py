"""Sessions and streams of aiopquic (picoquic) as tests and benchmarks want them. Nothing in this module knows wtio.

aiopquic reports everything about a session as events. Here they go to the streams, futures and queues that wait.
Its server takes sessions on one path only, to the letter of the query, and a session does not know which.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from aiopquic._binding._transport import TransportContext
from aiopquic.asyncio.webtransport import (
    WT_SESSION_GONE,
    WebTransportError,
    connect_webtransport,
    serve_webtransport,
)
from aiopquic.quic.configuration import QuicConfiguration
from aiopquic.quic.events import (
    WebTransportDatagramReceived,
    WebTransportNewStream,
    WebTransportSessionClosed,
    WebTransportSessionDraining,
    WebTransportStopSending,
    WebTransportStreamReset,
)

from .peer_session import PeerSessionClosed, PeerSessionRejected, PeerStreamReset, PeerStreamStopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from aiopquic.asyncio.webtransport import WebTransportSession


class AiopquicStream:
    """One stream; a unidirectional one uses half of the methods."""

    def __init__(self, session: WebTransportSession, stream_id: int) -> None:
        self.stream_id = stream_id
        self.stopped: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._session = session
        self._events = session.receive_stream_data(stream_id)

    async def read(self) -> bytes:
        async for event in self._events:
            if isinstance(event, WebTransportStreamReset):
                if event.error_code == WT_SESSION_GONE:
                    raise PeerSessionClosed(None, "")
                raise PeerStreamReset(event.error_code)
            if event.data:
                return bytes(event.data)
        return b""

    async def read_all(self) -> bytes:
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def write(self, data: bytes, end: bool = False) -> None:
        try:
            await self._session.send_stream_data_drained(self.stream_id, data, end)
        except WebTransportError as error:
            if self.stopped.done():
                raise PeerStreamStopped(self.stopped.result()) from error
            raise

    def reset(self, code: int) -> None:
        self._session.reset_stream(self.stream_id, code)

    def stop(self, code: int) -> None:
        self._session.stop_stream(self.stream_id, code)


class AiopquicSession:
    """One session on a connection of its own, with the task that takes its events."""

    def __init__(self, session: WebTransportSession, path: str) -> None:
        loop = asyncio.get_running_loop()
        self.path = path
        self.closed: asyncio.Future[PeerSessionClosed] = loop.create_future()
        self.draining: asyncio.Future[None] = loop.create_future()
        self._session = session
        self._streams: dict[int, AiopquicStream] = {}
        self._incoming: dict[bool, asyncio.Queue[AiopquicStream | None]] = {
            True: asyncio.Queue(),
            False: asyncio.Queue(),
        }
        self._datagrams: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.events = asyncio.create_task(self._take_events())

    @property
    def protocol(self) -> str | None:
        protocol: str | None = self._session.negotiated_protocol
        return protocol

    async def create_stream(self, *, bidirectional: bool = True) -> AiopquicStream:
        return self._stream(await self._session.create_stream(bidirectional))

    async def accept_stream(self, *, bidirectional: bool = True) -> AiopquicStream:
        stream = await self._incoming[bidirectional].get()
        if stream is None:
            self._incoming[bidirectional].put_nowait(None)
            raise self.closed.result()
        return stream

    def send_datagram(self, data: bytes) -> None:
        """Send it, or drop it where the queue is full or the session has ended."""
        with contextlib.suppress(ConnectionError):
            self._session.send_datagram_frame(data)

    async def send_datagram_when_there_is_room(self, data: bytes) -> None:
        while self._session.send_datagram_frame(data) == 0:
            await self._session.get_datagram_tx_drain_event().wait()

    async def receive_datagram(self) -> bytes:
        datagram = await self._datagrams.get()
        if datagram is None:
            self._datagrams.put_nowait(None)
            raise self.closed.result()
        return datagram

    def close(self, code: int = 0, reason: str = "") -> None:
        self._session.close(code, reason.encode())

    def drain(self) -> None:
        self._session.drain()

    def _stream(self, stream_id: int) -> AiopquicStream:
        stream = self._streams[stream_id] = AiopquicStream(self._session, stream_id)
        return stream

    async def _take_events(self) -> None:
        ended = None
        async for event in self._session.events():
            match event:
                case WebTransportNewStream(stream_id=stream_id):
                    self._incoming[stream_id & 2 == 0].put_nowait(self._stream(stream_id))
                case WebTransportStopSending(stream_id=stream_id, error_code=code):
                    stopped = self._streams[stream_id].stopped
                    if not stopped.done():
                        stopped.set_result(code)
                case WebTransportDatagramReceived(data=data):
                    self._datagrams.put_nowait(bytes(data))
                case WebTransportSessionDraining():
                    if not self.draining.done():
                        self.draining.set_result(None)
                case WebTransportSessionClosed():
                    ended = event
        # Where the end came early, or other events just before it, the iterator stops without it.
        ended = ended or self._session._session_close_event
        code, reason = (None, "") if ended is None else (ended.error_code, bytes(ended.reason).decode())
        if not self.closed.done():
            self.closed.set_result(PeerSessionClosed(code, reason))
        for streams in self._incoming.values():
            streams.put_nowait(None)
        self._datagrams.put_nowait(None)


def start_endpoint(cafile: str) -> TransportContext:
    """A client's socket and thread for many connections, with the limits that an endpoint of one connection has."""
    configuration = QuicConfiguration(is_client=True)
    transport = TransportContext()
    transport.start(
        is_client=True,
        alpn="h3",
        verify_peer=True,
        ca_file=cafile,
        max_datagram_frame_size=configuration.max_datagram_frame_size,
        rx_data_ring_cap=configuration.max_stream_data,
        initial_max_data=configuration.max_data,
        initial_max_streams_uni=configuration.max_streams_uni,
        initial_max_streams_bidi=configuration.max_streams_bidi,
        idle_timeout_ms=int(configuration.idle_timeout * 1000),
        congestion_control_algorithm=configuration.congestion_control_algorithm,
    )
    return transport


@contextlib.asynccontextmanager
async def connect(
    host: str,
    port: int,
    path: str,
    *,
    cafile: str | None = None,
    endpoint: TransportContext | None = None,
    protocols: Sequence[str] = (),
) -> AsyncIterator[AiopquicSession]:
    """A session on an endpoint of its own, which trusts ``cafile``, or on the one given."""
    connecting = connect_webtransport(
        host,
        port,
        path,
        ca_file=cafile,
        transport=endpoint,
        wt_available_protocols=list(protocols),
        configuration=QuicConfiguration(is_client=True),
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(connecting)
        except WebTransportError as error:
            status = re.search(r"HTTP (\d+)", str(error))
            if status is not None:
                raise PeerSessionRejected(int(status[1])) from error
            raise
        session = AiopquicSession(client, path)
        stack.callback(session.events.cancel)
        yield session


def is_bound(port: int) -> bool:
    """Whether a socket of this machine has a UDP port. Trying to bind it could take the port from whoever wants it."""
    tables = [path.read_text().splitlines()[1:] for path in (Path("/proc/net/udp"), Path("/proc/net/udp6"))]
    return any(int(line.split()[1].rpartition(":")[2], 16) == port for table in tables for line in table)


@contextlib.asynccontextmanager
async def serve(
    handler: Callable[[AiopquicSession], Awaitable[None]],
    port: int,
    path: str,
    *,
    certificate: str,
    key: str,
    protocols: Sequence[str] = (),
) -> AsyncIterator[None]:
    """Serve one path on all addresses; every other one gets 404."""

    async def run(session: WebTransportSession) -> None:
        await handler(AiopquicSession(session, path))

    server = await serve_webtransport(
        "127.0.0.1",
        port,
        path,
        handler=run,
        cert_file=certificate,
        key_file=key,
        configuration=QuicConfiguration(is_client=False),
        wt_supported_protocols=list(protocols),
    )
    try:
        # A thread of its own opens the socket, and no event says when.
        async with asyncio.timeout(10):
            while not is_bound(port):  # noqa: ASYNC110 - the kernel has no event for it
                await asyncio.sleep(0.01)
        yield
    finally:
        await server.aclose()
