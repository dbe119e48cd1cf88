"""A server that keeps what its clients send, in a process of its own: ``python -m tests.soak.keeper DIRECTORY BYTES``.

The directory has its secret and its database; BYTES are its memory budget. It does what lines on its input say, and
answers each with a line of JSON:

- ``listen PORT CERTIFICATE``: serve at that port of 127.0.0.1, or at a free one for 0. Before that, only what takes
  time is done: a standby that takes over.
- ``reload CERTIFICATE``: show that one to newcomers from now on.
- ``figures``: memory and counts.

SIGTERM lets handlers go on for DRAIN seconds, closes all sessions and ends the process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import signal
import sys
from pathlib import Path

from tests.soak.hoard import resident

import wtio
from telemetry import Store

DRAIN = 0.5
REASON = "a restart"


async def handle(session: wtio.WebTransportSession, store: Store) -> None:
    name = session.path.removeprefix("/")

    async def take(stream: wtio.WebTransportStream) -> None:
        numbers = json.loads(await stream.read_all())
        await store.add([(name, number, 0.0) for number in numbers])
        await stream.write(data=b"stored", end_stream=True)

    def echo(datagram: bytes) -> None:
        session.send_datagram(datagram)

    await session.serve_streams(take, datagrams=echo)


async def listen(directory: Path, budget: int, port: int, certificate: str) -> wtio.Server:
    store = Store(str(directory / "readings.db"))

    async def handler(session: wtio.WebTransportSession) -> None:
        await handle(session, store)

    return await wtio.serve(
        handler,
        "127.0.0.1",
        port,
        tls=wtio.ServerTLS(certfile=certificate),
        limits=wtio.Limits(server_memory=budget),
        timeouts=wtio.Timeouts(drain=DRAIN),
        secret=wtio.Secret.from_file(directory / "secret"),
    )


async def main() -> None:
    # What a client does is no failure, and all other failures are looked for here.
    logging.basicConfig(level=logging.WARNING)
    directory, budget = Path(sys.argv[1]), int(sys.argv[2])
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    before = resident()
    server: wtio.Server | None = None

    def answer(verb: str, *arguments: str) -> dict[str, object]:
        assert server is not None
        if verb == "reload":
            server.reload(wtio.ServerTLS(certfile=arguments[0]))
        memory = server.memory
        assert memory is not None
        return {
            "port": server.addresses[0][1],
            "sessions": len(server.sessions),
            "grown": resident() - before,
            "memory": dataclasses.asdict(memory),
        }

    async def work() -> None:
        nonlocal server
        while line := (await lines.readline()).decode().split():
            if line[0] == "listen":
                server = await listen(directory, budget, int(line[1]), line[2])
            print(json.dumps(answer(*line)), flush=True)

    working = asyncio.create_task(work())
    ending = asyncio.create_task(ended.wait())
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.wait([working, ending], return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    if server is not None:
        await server.close(0, REASON)


if __name__ == "__main__":
    asyncio.run(main())
