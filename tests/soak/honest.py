"""Clients that want to stay, in a process of their own: ``python -m tests.soak.honest PORT COUNT PAUSE``.

Each sends a few numbers on a stream, again and again, with so many seconds between them, and goes on with the next ones
when the server has said that these are stored; if the session ends, it says them again in the next one. Between them it
sends datagrams. Lines on the input are answered with a line of JSON:

- ``back SECONDS``: how many clients have been answered in a session that began after that time of the monotonic clock.
- ``stop``: what was acknowledged to each, how its sessions ended and when, and what else went wrong. Then it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time

import wtio

BATCH = 3


class Honest:
    """One client."""

    def __init__(self, number: int) -> None:
        self.name = f"client-{number}"
        # Numbers from 0 on that the server has said are stored.
        self.acknowledged = 0
        # When the session began in which the server answered last.
        self.answered_in = 0.0
        # When sessions ended that this client had not left, and how.
        self.ends: list[tuple[float, str]] = []
        # What should never happen.
        self.failures: list[str] = []
        self.datagrams = 0
        # Longest time in seconds that a batch took.
        self.slowest = 0.0

    async def stay(self, client: wtio.Client, url: str, pause: float, stopping: asyncio.Event) -> None:
        connector = client.connect(f"{url}{self.name}")
        async for session in connector:
            began = time.monotonic()
            counting = asyncio.create_task(self.count_datagrams(session))
            try:
                await self.send(session, began, pause, stopping)
            except wtio.SessionClosed as end:
                self.ends.append((time.monotonic(), str(end)))
            finally:
                counting.cancel()
            if stopping.is_set():
                break

    async def send(
        self, session: wtio.WebTransportSession, began: float, pause: float, stopping: asyncio.Event
    ) -> None:
        while not stopping.is_set():
            asked = time.monotonic()
            stream = await session.create_bidirectional_stream()
            numbers = list(range(self.acknowledged, self.acknowledged + BATCH))
            await stream.write(data=json.dumps(numbers).encode(), end_stream=True)
            try:
                answer = await stream.read_all()
            except wtio.StreamResetError as error:
                self.failures.append(str(error))
                return
            if answer != b"stored":
                self.failures.append(f"the answer is {answer!r}")
            self.acknowledged += BATCH
            self.answered_in = began
            self.slowest = max(self.slowest, time.monotonic() - asked)
            session.send_datagram(b"position")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0, 2 * pause)):
                    await stopping.wait()

    async def count_datagrams(self, session: wtio.WebTransportSession) -> None:
        with contextlib.suppress(wtio.SessionClosed):
            async for _ in session.incoming_datagrams():
                self.datagrams += 1


async def main() -> None:
    port, count, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    clients = [Honest(number) for number in range(count)]
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    stopping = asyncio.Event()
    tls = wtio.ClientTLS(dangerously_trust_any_certificate=True)
    async with wtio.Client(tls=tls) as shared, asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(client.stay(shared, f"https://127.0.0.1:{port}/", pause, stopping))
        print(json.dumps({"ready": True}), flush=True)
        while line := (await lines.readline()).decode().split():
            if line[0] == "stop":
                break
            back = sum(client.answered_in > float(line[1]) for client in clients)
            print(json.dumps({"back": back}), flush=True)
        stopping.set()
    print(
        json.dumps(
            {
                "acknowledged": {client.name: client.acknowledged for client in clients},
                "ends": {client.name: client.ends for client in clients},
                "failures": [failure for client in clients for failure in client.failures],
                "datagrams": sum(client.datagrams for client in clients),
                "slowest": max(client.slowest for client in clients),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main())
