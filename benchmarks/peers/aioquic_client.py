"""Benchmark client on aioquic."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.interop.aioquic_peer import PeerSession, connect

from benchmarks.peers.aioquic_session import AioquicSession
from benchmarks.workloads import client_main

if TYPE_CHECKING:
    import argparse


class OwnedSession(AioquicSession):
    """A session together with the connection it lives on."""

    def __init__(self, session: PeerSession, resources: contextlib.AsyncExitStack) -> None:
        super().__init__(session)
        self._resources = resources

    async def close(self) -> None:
        await self._resources.aclose()


class AioquicClient:
    """aioquic keeps nothing between connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    async def connect(self, path: str) -> OwnedSession:
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(
                connect("127.0.0.1", self._options.port, path, cafile=self._options.cafile)
            )
            return OwnedSession(session, stack.pop_all())

    async def close(self) -> None:
        """Nothing is kept."""

    def shared(self) -> AioquicClient:
        return self

    def pooled(self) -> AioquicClient:
        return self


if __name__ == "__main__":
    client_main(AioquicClient)
