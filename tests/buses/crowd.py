"""Subscribers in a process of their own: ``python -m tests.buses.crowd PORT,PORT COUNT SHA256``.

Opens so many sessions to each server, every other one with datagrams, and prints a line. For each line with a number
that it reads, it prints what everybody has received, as soon as they all have that message. A message is a number and
the time at which it was published.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

import wtio
from wtio import hub as fan

# Opened at a time, so that no handshake takes long.
AT_ONCE = 10
PATIENCE = 60.0


class Member:
    """One subscriber, and what it has received."""

    def __init__(self, port: int, policy: str) -> None:
        self.port = port
        self.policy = policy
        self.numbers: list[int] = []
        # Seconds that the slowest message took.
        self.slowest = 0.0

    def take(self, message: fan.Message) -> None:
        number, published = message.data.split()[:2]
        self.numbers.append(int(number))
        self.slowest = max(self.slowest, time.monotonic() - float(published))

    async def read(self, session: wtio.WebTransportSession) -> None:
        with contextlib.suppress(wtio.SessionClosed):
            if self.policy == "datagram":
                async for data in session.incoming_datagrams():
                    self.take(fan.decode_message(data))
                return
            async for message in fan.MessageReader(await anext(session.incoming_unidirectional_streams())):
                self.take(message)


async def main(ports: list[int], count: int, sha256: str) -> None:
    tls = wtio.ClientTLS(certificate_hashes=[bytes.fromhex(sha256)])
    members = [Member(port, "everything" if number % 2 else "datagram") for port in ports for number in range(count)]
    narrow = wtio.Limits(stream_receive_window=10_000)
    async with wtio.Client(tls=tls) as client, wtio.Client(tls=tls, limits=narrow) as stopped:

        def everybody_has(number: int) -> bool:
            return all(number in member.numbers[-100:] for member in members)

        async def connect(by: wtio.Client, port: int, policy: str) -> wtio.WebTransportSession:
            session = await by.connect(f"https://127.0.0.1:{port}/{policy}", allow_pooling=False)
            assert await session.receive_datagram() == b"subscribed"
            return session

        async def join(member: Member) -> asyncio.Task[None]:
            return asyncio.ensure_future(member.read(await connect(client, member.port, member.policy)))

        tasks = []
        for begin in range(0, len(members), AT_ONCE):
            tasks += await asyncio.gather(*map(join, members[begin : begin + AT_ONCE]))
        # One that never reads.
        never_read = await connect(stopped, ports[0], "everything")
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            deadline = time.monotonic() + PATIENCE
            while not everybody_has(int(line)) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            found = [vars(member) for member in members]
            print(json.dumps(found), flush=True)
        assert never_read.is_closed
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main([int(port) for port in sys.argv[1].split(",")], int(sys.argv[2]), sys.argv[3]))
