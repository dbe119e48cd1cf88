"""Benchmark client on wtio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import wtio
from benchmarks.peers.wtio_session import WtioSession
from benchmarks.workloads import client_main

if TYPE_CHECKING:
    import argparse


class WtioClient:
    """Keeps one socket for all connections; each session has a connection of its own, unless they are pooled."""

    def __init__(self, options: argparse.Namespace) -> None:
        # The limit only bounds how many sessions the series over sessions on one connection may open.
        limits = wtio.Limits(sessions_per_connection=10_000)
        self._client = wtio.Client(tls=wtio.ClientTLS(cafile=options.cafile), limits=limits)
        self._is_pooled = False
        self._url = f"https://127.0.0.1:{options.port}"

    async def connect(self, path: str) -> WtioSession:
        return WtioSession(await self._client.connect(self._url + path, allow_pooling=self._is_pooled))

    async def close(self) -> None:
        await self._client.close()

    def shared(self) -> WtioClient:
        return self

    def pooled(self) -> WtioClient:
        self._is_pooled = True
        return self


if __name__ == "__main__":
    client_main(WtioClient)
