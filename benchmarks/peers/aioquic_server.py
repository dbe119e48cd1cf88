"""Benchmark server on aioquic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.interop.aioquic_peer import PeerSession, serve

from benchmarks.peers.aioquic_session import AioquicSession
from benchmarks.workloads import serve_session, server_main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


async def handle(session: PeerSession) -> None:
    await serve_session(AioquicSession(session))


async def run(options: argparse.Namespace, ready: Callable[[int], None]) -> None:
    async with serve(handle, "127.0.0.1", 0, certificate=options.certificate, key=options.key) as port:
        ready(port)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    server_main(run)
