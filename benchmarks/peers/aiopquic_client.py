"""Benchmark client on aiopquic."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.interop.aiopquic_peer import AiopquicSession as PeerSession
from tests.interop.aiopquic_peer import connect, start_endpoint

from benchmarks.peers.aiopquic_session import AiopquicSession
from benchmarks.workloads import client_main

if TYPE_CHECKING:
    import argparse


class OwnedSession(AiopquicSession):
    """A session together with what ends it."""

    def __init__(self, session: PeerSession, resources: contextlib.AsyncExitStack) -> None:
        super().__init__(session)
        self._resources = resources

    async def close(self) -> None:
        await self._resources.aclose()


class AiopquicClient:
    """Keeps one endpoint with its thread for all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._endpoint = start_endpoint(options.cafile)
        self._port = options.port

    async def connect(self, path: str) -> OwnedSession:
        async with contextlib.AsyncExitStack() as stack:
            connecting = connect(
                "127.0.0.1", self._port, "/", endpoint=self._endpoint, protocols=(path.removeprefix("/"),)
            )
            session = await stack.enter_async_context(connecting)
            return OwnedSession(session, stack.pop_all())

    async def close(self) -> None:
        self._endpoint.stop()

    def shared(self) -> AiopquicClient:
        return self

    def pooled(self) -> AiopquicClient:
        return self


if __name__ == "__main__":
    client_main(AiopquicClient)
