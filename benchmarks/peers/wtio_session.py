"""wtio: its streams and sessions as the workloads want them. All settings are its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import wtio


class WtioStream:
    """A bidirectional stream."""

    def __init__(self, stream: wtio.WebTransportStream) -> None:
        self._stream = stream

    async def write(self, data: bytes, end: bool = False) -> None:
        await self._stream.write(data=data, end_stream=end)

    async def read(self) -> bytes:
        return await self._stream.read()


class WtioSession:
    """A session."""

    def __init__(self, session: wtio.WebTransportSession) -> None:
        self.path = session.path
        self._session = session

    async def open_stream(self) -> WtioStream:
        return WtioStream(await self._session.create_bidirectional_stream())

    async def incoming_streams(self) -> AsyncIterator[WtioStream]:
        async for stream in self._session.incoming_bidirectional_streams():
            yield WtioStream(stream)

    async def send_datagram(self, data: bytes) -> None:
        self._session.send_datagram(data)

    async def receive_datagram(self) -> bytes:
        return await self._session.receive_datagram()

    async def close(self) -> None:
        await self._session.close()
