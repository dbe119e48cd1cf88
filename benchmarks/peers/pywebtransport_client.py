"""Benchmark client on pywebtransport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pywebtransport import ClientConfig, WebTransportClient

from benchmarks.peers.pywebtransport_session import SETTINGS, PywebtransportSession
from benchmarks.workloads import client_main

if TYPE_CHECKING:
    import argparse


class PywebtransportClient:
    """Keeps one endpoint with its reactor thread for all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._client = WebTransportClient(config=ClientConfig(ca_certs=options.cafile, **SETTINGS))
        self._url = f"https://127.0.0.1:{options.port}"

    async def connect(self, path: str) -> PywebtransportSession:
        return PywebtransportSession(await self._client.connect(url=self._url + path))

    async def close(self) -> None:
        await self._client.close()

    def shared(self) -> PywebtransportClient:
        return self

    def pooled(self) -> PywebtransportClient:
        return self


if __name__ == "__main__":
    client_main(PywebtransportClient)
