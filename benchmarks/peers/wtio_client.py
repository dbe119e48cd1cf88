"""Benchmark client on wtio."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import wtio
from benchmarks.peers.wtio_session import WtioSession
from benchmarks.workloads import client_main

if TYPE_CHECKING:
    import argparse


class OwnedSession(WtioSession):
    """A session together with the ``async with`` that closes its connection."""

    def __init__(self, session: wtio.WebTransportSession, resources: contextlib.AsyncExitStack) -> None:
        super().__init__(session)
        self._resources = resources

    async def close(self) -> None:
        await self._resources.aclose()


class WtioClient:
    """wtio keeps the trust settings between connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._tls = wtio.ClientTLS(cafile=options.cafile)
        self._url = f"https://127.0.0.1:{options.port}"

    async def connect(self, path: str) -> OwnedSession:
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(wtio.connect(self._url + path, tls=self._tls))
            return OwnedSession(session, stack.pop_all())

    async def close(self) -> None:
        """Nothing else is kept."""

    def shared(self) -> SharedClient:
        return SharedClient(self._url, self._tls)


class SharedClient:
    """One socket for all connections; each session still has a connection of its own."""

    def __init__(self, url: str, tls: wtio.ClientTLS) -> None:
        self._url = url
        self._client = wtio.Client(tls=tls)

    async def connect(self, path: str) -> WtioSession:
        return WtioSession(await self._client.connect(self._url + path, allow_pooling=False))

    async def close(self) -> None:
        await self._client.close()

    def shared(self) -> SharedClient:
        return self


if __name__ == "__main__":
    client_main(WtioClient)
