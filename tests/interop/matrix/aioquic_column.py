"""aioquic on either side, in this process."""

from __future__ import annotations

import asyncio
import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING

import aioquic
from tests.interop import aioquic_peer

from .halves import offered, play_client, play_server
from .rows import SPOKEN_SUBPROTOCOL, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.interop.aioquic_peer import PeerSession

    import wtio

    from .peer import Difference, Target
    from .rows import Report, Row


class _Serving:
    """aioquic serving every script, one session after the other."""

    def __init__(self) -> None:
        self.port = 0
        self._reports: asyncio.Queue[Report] = asyncio.Queue()

    async def report(self) -> Report:
        return await self._reports.get()

    def decide(self, session: PeerSession) -> int:
        script = Script.of(session.path)
        if script.name != "rejection":
            return 200
        self._reports.put_nowait({})
        return script.number("status")

    async def play(self, session: PeerSession) -> None:
        self._reports.put_nowait(await play_server(session))


# -- the columns


class _Aioquic:
    name = "aioquic"
    title = "aioquic"
    differences: Mapping[str, Difference] = MappingProxyType({})

    def prepare(self) -> str:
        return aioquic.__version__

    def close(self) -> None:
        """Nothing was started."""


class AioquicClient(_Aioquic):
    """aioquic's client, for our server."""

    async def run(self, row: Row, target: Target) -> Report:
        connecting = aioquic_peer.connect(
            "127.0.0.1", target.port, row.path, cafile=target.certificate.certfile, protocols=offered(row.path)
        )
        try:
            async with connecting as session:
                return await play_client(session)
        except aioquic_peer.PeerSessionRejected as rejection:
            return {"rejected": True, "status": rejection.status}


class AioquicServer(_Aioquic):
    """aioquic's server, for our client."""

    @contextlib.asynccontextmanager
    async def serve(self, certificate: wtio.DevCertificate, row: Row) -> AsyncIterator[_Serving]:
        serving = _Serving()
        async with aioquic_peer.serve(
            serving.play,
            "127.0.0.1",
            0,
            certificate=certificate.certfile,
            key=certificate.keyfile,
            decide=serving.decide,
            protocols=(SPOKEN_SUBPROTOCOL,),
        ) as port:
            serving.port = port
            yield serving
