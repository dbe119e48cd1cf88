"""A client whose work benchmarks/profile.py measures from outside: it says when a section begins and when it has ended.

Before each section it prints `{"begin": NAME}`, after it what was done, and both times it waits for a line on standard
input, with its work at rest. Then follows how long each operation took. What is not the operation itself (warming up,
closing) lies between sections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.peers.wtio_client import WtioClient
from benchmarks.workloads import MIB, SMALL, download, read_exactly, upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.peers.wtio_session import WtioSession

TRANSFER = 64 * MIB
# Connections of one section are closed after it. More of them at once would measure the guardian, who watches them all.
CONNECTIONS = 16


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)
    sys.stdin.readline()


async def _section(name: str, seconds: float, work: Callable[[], Awaitable[None]], at_most: int, each: int = 1) -> None:
    """Do ``work`` for some time; each time counts as ``each`` operations."""
    clock = time.perf_counter
    times: list[float] = []
    _say(begin=name)
    end = clock() + seconds
    while len(times) < at_most and (started := clock()) < end:
        await work()
        times.append((clock() - started) / each)
    _say(ended=name, operations=len(times) * each)
    print(json.dumps(times), flush=True)


async def _echo(client: WtioClient, seconds: float) -> None:
    session = await client.connect("/echo")
    stream = await session.open_stream()

    async def echo() -> None:
        await stream.write(SMALL)
        await read_exactly(stream, len(SMALL))

    for _ in range(300):
        await echo()
    await _section("echo", seconds, echo, sys.maxsize)
    await stream.write(b"", True)
    await stream.read()
    await session.close()


async def _bulk(client: WtioClient, name: str, seconds: float) -> None:
    session = await client.connect(f"/{name}")
    transfer = {"upload": upload, "download": download}[name]

    async def move() -> None:
        await transfer(session, TRANSFER)

    await move()
    await _section(name, seconds, move, sys.maxsize, TRANSFER // MIB)
    await session.close()


async def _connect(client: WtioClient, seconds: float) -> None:
    for session in [await client.connect("/request") for _ in range(20)]:
        await session.close()
    spent = 0.0
    while spent < seconds:
        sessions: list[WtioSession] = []

        async def connect(kept: list[WtioSession] = sessions) -> None:
            kept.append(await client.connect("/request"))

        started = time.perf_counter()
        await _section("connect", seconds, connect, CONNECTIONS)
        spent += time.perf_counter() - started
        for session in sessions:
            await session.close()


async def _main(options: argparse.Namespace) -> None:
    client = WtioClient(options)
    await _echo(client, options.seconds)
    await _bulk(client, "upload", options.seconds)
    await _bulk(client, "download", options.seconds)
    await _connect(client, options.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cafile", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asyncio.run(_main(parser.parse_args()))
