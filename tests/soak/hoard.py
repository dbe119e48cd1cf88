"""A server that hoards, in a process of its own: ``python -m tests.soak.hoard DIRECTORY BYTES``.

Its memory budget has so many bytes. It prints its port, and for each line of input its memory: resident bytes, and the
figures of ``Server.memory``. It ends with its input. The path of a session says what its handler does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import resource
import sys
from pathlib import Path

import wtio

# What a write that waits keeps is the application's own, so it is little here.
PIECE = b"x" * 8191


async def handle(session: wtio.WebTransportSession) -> None:
    if session.path == "/keep":
        # "The database is slow."
        kept = []
        async for stream in session.incoming_unidirectional_streams():
            kept.append(stream)  # noqa: PERF401
    elif session.path == "/push":
        await asyncio.gather(*(push(session) for _ in range(8)))


async def push(session: wtio.WebTransportSession) -> None:
    """Send to a client that does not read."""
    stream = await session.create_unidirectional_stream()
    while True:
        # New bytes each time: the same ones would be kept only once.
        await stream.write(data=PIECE + b"y")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    directory, budget = sys.argv[1:]
    tls = wtio.dev_certificate(directory=directory).server_tls()
    limits = wtio.Limits(server_memory=int(budget))
    async with wtio.serve(handle, "127.0.0.1", 0, tls=tls, limits=limits) as server:
        print(server.addresses[0][1], flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            assert server.memory is not None
            print(json.dumps({"resident": resident(), **dataclasses.asdict(server.memory)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
