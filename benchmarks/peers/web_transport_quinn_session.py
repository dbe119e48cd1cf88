"""web-transport-quinn: streams and sessions of the interoperability peer, as the workloads want them; all defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.interop.peer_session import PeerSessionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    # A stream of the peer already has the two methods of a workload's stream.
    from tests.interop.web_transport_quinn_peer import QuinnSession as PeerSession
    from tests.interop.web_transport_quinn_peer import QuinnStream


class QuinnSession:
    """A session of the peer."""

    def __init__(self, session: PeerSession) -> None:
        self.path = session.path
        self._session = session

    async def open_stream(self) -> QuinnStream:
        return await self._session.create_stream()

    async def incoming_streams(self) -> AsyncIterator[QuinnStream]:
        try:
            while True:
                yield await self._session.accept_stream()
        except PeerSessionClosed:
            return

    async def send_datagram(self, data: bytes) -> None:
        self._session.send_datagram(data)

    async def receive_datagram(self) -> bytes:
        return await self._session.receive_datagram()

    async def close(self) -> None:
        self._session.close()
