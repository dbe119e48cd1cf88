"""Benchmark client on web-transport-quinn."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import web_transport
from tests.interop.web_transport_quinn_peer import QuinnSession as PeerSession

from benchmarks.peers.web_transport_quinn_session import QuinnSession
from benchmarks.workloads import client_main

if TYPE_CHECKING:
    import argparse


class QuinnClient:
    """Keeps one endpoint for all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        # It trusts the system's authorities, and this variable says which these are.
        os.environ["SSL_CERT_FILE"] = options.cafile
        self._client = web_transport.Client()
        self._url = f"https://127.0.0.1:{options.port}"
        self._is_entered = False

    async def connect(self, path: str) -> QuinnSession:
        if not self._is_entered:
            self._is_entered = True
            await self._client.__aenter__()
        url = self._url + path
        return QuinnSession(PeerSession(await self._client.connect(url), url))

    async def close(self) -> None:
        self._client.close()
        await self._client.wait_closed()

    def shared(self) -> QuinnClient:
        return self

    def pooled(self) -> QuinnClient:
        return self


if __name__ == "__main__":
    client_main(QuinnClient)
    # Its threads go on while the interpreter ends, and now and then that aborts the process: it ends before.
    sys.stdout.flush()
    os._exit(0)
