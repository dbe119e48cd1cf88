"""pywebtransport: its streams and sessions as the workloads want them, and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pywebtransport import WebTransportBidirectionalStream, WebTransportSession

# Its defaults are meant for few streams: 10 per session to begin with, 100 datagrams queued. With them the workloads
# with 100 requests in flight and the datagrams would measure those limits. Everything else is its default.
SETTINGS = {
    "initial_max_streams_bidi": 1000,
    "max_streams_bidi": 1000,
    "max_pending_datagrams": 4096,
    "max_connections": 10_000,
}


class PywebtransportStream:
    """A bidirectional stream."""

    def __init__(self, stream: WebTransportBidirectionalStream) -> None:
        self._stream = stream

    async def write(self, data: bytes, end: bool = False) -> None:
        await self._stream.write(data=data, end_stream=end)

    async def read(self) -> bytes:
        data: bytes = await self._stream.read()
        return data


class PywebtransportSession:
    """A session."""

    def __init__(self, session: WebTransportSession) -> None:
        self.path = session.path
        self._session = session

    async def open_stream(self) -> PywebtransportStream:
        return PywebtransportStream(await self._session.create_bidirectional_stream())

    async def incoming_streams(self) -> AsyncIterator[PywebtransportStream]:
        async for stream in self._session.incoming_bidirectional_streams():
            yield PywebtransportStream(stream)

    async def send_datagram(self, data: bytes) -> None:
        await self._session.send_datagram(data=data)

    async def receive_datagram(self) -> bytes:
        data: bytes = await self._session.read_datagram()
        return data

    async def close(self) -> None:
        # The connection is the session's only holder; closing both is what a program would do.
        connection = self._session.connection
        await self._session.close()
        await connection.close()
