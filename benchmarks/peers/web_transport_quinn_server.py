"""Benchmark server on web-transport-quinn."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.interop.peer_session import PeerSessionClosed, PeerStreamStopped
from tests.interop.web_transport_quinn_peer import QuinnSession as PeerSession
from tests.interop.web_transport_quinn_peer import serve

from benchmarks.peers.web_transport_quinn_session import QuinnSession
from benchmarks.workloads import serve_session, server_main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import web_transport


async def handle(request: web_transport.SessionRequest) -> None:
    with contextlib.suppress(PeerSessionClosed, PeerStreamStopped):
        await serve_session(QuinnSession(PeerSession(await request.accept(), request.url)))


async def run(options: argparse.Namespace, ready: Callable[[int], None]) -> None:
    tasks: set[asyncio.Task[None]] = set()
    async with serve(0, certificate=options.certificate, key=options.key) as server:
        ready(server.local_addr[1])
        async for request in server:
            task = asyncio.create_task(handle(request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    server_main(run)
