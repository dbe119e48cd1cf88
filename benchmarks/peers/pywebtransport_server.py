"""Benchmark server on pywebtransport."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pywebtransport import ServerConfig, WebTransportConnection, WebTransportError, WebTransportServer

from benchmarks.peers.pywebtransport_session import SETTINGS, PywebtransportSession
from benchmarks.workloads import serve_session, server_main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


async def handle(connection: WebTransportConnection) -> None:
    async for session in connection.incoming_sessions():
        await session.accept()
        with contextlib.suppress(WebTransportError):
            await serve_session(PywebtransportSession(session))


async def run(options: argparse.Namespace, ready: Callable[[int], None]) -> None:
    # It refuses port 0, so that the port comes from the caller.
    config = ServerConfig(
        certfile=options.certificate,
        keyfile=options.key,
        bind_host="127.0.0.1",
        bind_port=options.port,
        **SETTINGS,
    )
    tasks: set[asyncio.Task[None]] = set()
    async with WebTransportServer(config=config) as server:
        await server.listen()
        ready(options.port)
        async for connection in server.incoming_connections():
            task = asyncio.create_task(handle(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    server_main(run)
