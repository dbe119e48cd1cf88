"""Benchmark server on aiopquic."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.interop.aiopquic_peer import AiopquicSession as PeerSession
from tests.interop.aiopquic_peer import serve
from tests.interop.peer_session import PeerSessionClosed

from benchmarks.peers.aiopquic_session import AiopquicSession
from benchmarks.workloads import STREAM_ANSWERS, serve_session, server_main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

PATHS = ("/datagrams", "/datagram-echo", *STREAM_ANSWERS)


async def handle(session: PeerSession) -> None:
    with contextlib.suppress(PeerSessionClosed, ConnectionError):
        await serve_session(AiopquicSession(session))


async def run(options: argparse.Namespace, ready: Callable[[int], None]) -> None:
    # It does not tell which port the system gave it, so that the port comes from the caller.
    workloads = [path.removeprefix("/") for path in PATHS]
    async with serve(handle, options.port, "/", certificate=options.certificate, key=options.key, protocols=workloads):
        ready(options.port)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    server_main(run)
