"""Many clients of a cluster in a process of their own, behind a NAT each, with bulk that is hashed at both ends.

``python -m tests.workers.clients PORT CERTIFICATES SESSIONS`` connects so many, prints a line of JSON for each line
that it reads, and ends with its input::

    owners               which worker has how many sessions
    rebind               gives every session another port, and asks each who serves it
    bulk BYTES           begins to send so many bytes on a stream of each session
    hashes               waits for the answers; how many were right, and the longest that one took
    longest              the longest that any echo has taken since the last question, in seconds
    lost                 how many sessions have ended
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from collections import Counter
from typing import Any

from tests.support.nat import Nat

import wtio

# Bulk is made of this, so that no client keeps it.
BLOCK = bytes(range(256)) * 64
AT_ONCE = 25


class Client:
    """One session."""

    def __init__(self, session: wtio.WebTransportSession, nat: Nat) -> None:
        self.session = session
        self.nat = nat
        self.owner = ""
        self.longest = 0.0
        self.bulk: asyncio.Task[bool] | None = None

    async def ask(self) -> str:
        began = time.monotonic()
        stream = await self.session.create_bidirectional_stream()
        await stream.write(data=b"who", end_stream=True)
        answer = (await stream.read_all()).decode()
        self.longest = max(self.longest, time.monotonic() - began)
        return answer

    async def send(self, size: int) -> bool:
        """Send bulk; whether the worker has received what was sent, and has sent back as much."""
        stream = await self.session.create_bidirectional_stream()
        digest = hashlib.sha256()

        async def write() -> None:
            await stream.write(data=b"bulk")
            sent = 0
            while sent < size:
                chunk = BLOCK[: size - sent]
                digest.update(chunk)
                await stream.write(data=chunk)
                sent += len(chunk)
            await stream.write(data=b"", end_stream=True)

        writing = asyncio.ensure_future(write())
        back = hashlib.sha256()
        received = 0
        tail = b""
        async for chunk in stream:
            data = tail + chunk
            tail = data[-32:]
            back.update(data[:-32])
            received += len(data) - len(tail)
        await writing
        return received == size and tail == digest.digest() and back.digest() == digest.digest()


async def connect(server: tuple[str, int], tls: wtio.ClientTLS, room: asyncio.Semaphore) -> Client:
    loop = asyncio.get_running_loop()
    _, nat = await loop.create_datagram_endpoint(lambda: Nat(server), local_addr=("127.0.0.1", 0))
    await nat.rebind()
    async with room:
        session = await wtio.connect(
            f"https://127.0.0.1:{nat.port}/", tls=tls, timeouts=wtio.Timeouts(connect=60, idle=60)
        )
    client = Client(session, nat)
    client.owner = await client.ask()
    return client


async def main(port: int, directory: str, count: int) -> None:
    tls = wtio.dev_certificate(directory=directory).client_tls()
    room = asyncio.Semaphore(AT_ONCE)
    clients = await asyncio.gather(*(connect(("127.0.0.1", port), tls, room) for _ in range(count)))
    loop = asyncio.get_running_loop()
    print(json.dumps("ready"), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, *arguments = line.split()
        answer: Any = None
        open_ones = [client for client in clients if not client.session.is_closed]
        if what == "owners":
            answer = Counter(client.owner for client in open_ones)
        elif what == "rebind":
            await asyncio.gather(*(client.nat.rebind() for client in open_ones))
            owners = await asyncio.gather(*(client.ask() for client in open_ones), return_exceptions=True)
            answer = sum(owner == client.owner for owner, client in zip(owners, open_ones, strict=True))
        elif what == "bulk":
            for client in open_ones:
                client.bulk = asyncio.ensure_future(client.send(int(arguments[0])))
        elif what == "hashes":
            began = time.monotonic()
            done = await asyncio.gather(
                *(client.bulk for client in clients if client.bulk is not None), return_exceptions=True
            )
            answer = [sum(one is True for one in done), len(done), time.monotonic() - began]
        elif what == "longest":
            answer = max(client.longest for client in clients)
            for client in clients:
                client.longest = 0.0
        elif what == "lost":
            answer = len(clients) - len(open_ones)
        print(json.dumps(answer), flush=True)
    for client in clients:
        with contextlib.suppress(wtio.WebTransportError):
            await client.session.abort()
        client.nat.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
