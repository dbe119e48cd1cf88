"""Benchmark server on wtio."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import wtio
from benchmarks.peers.wtio_session import WtioSession
from benchmarks.workloads import serve_session, server_main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


async def handle(session: wtio.WebTransportSession) -> None:
    with contextlib.suppress(wtio.SessionClosed):
        await serve_session(WtioSession(session))


async def run(options: argparse.Namespace, ready: Callable[[int], None]) -> None:
    tls = wtio.ServerTLS(certfile=options.certificate, keyfile=options.key)
    limits = wtio.Limits(sessions_per_connection=10_000)  # as the client
    async with wtio.serve(handle, "127.0.0.1", 0, tls=tls, limits=limits) as server:
        ready(server.addresses[0][1])
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    server_main(run)
