"""The server that floods are let loose on, in a process of its own: ``python -m tests.soak.victim DIRECTORY IO``.

It prints its port, and ends with its input. The path of a session says what its handler does; it prints what a session
or its streams met, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import wtio


async def handle(session: wtio.WebTransportSession) -> None:
    match session.path:
        case "/ignore":
            # Nobody ever takes a unidirectional stream.
            async for echo in session.incoming_bidirectional_streams():
                await echo.write(data=await echo.read_all(), end_stream=True)
        case "/stop":
            async for stream in session.incoming_unidirectional_streams():
                await stream.stop_receiving(error_code=7)
        case "/keep":
            kept = [stream async for stream in session.incoming_unidirectional_streams()]
            del kept
        case "/block":
            # The loop stands still until the test has seen enough.
            await session.receive_datagram()
            sys.stdin.readline()
            await session.wait_closed()


async def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    directory, io = sys.argv[1:]
    tls = wtio.dev_certificate(directory=directory).server_tls()
    # Windows have their whole size from the beginning, and resets may be as far ahead.
    limits = wtio.Limits(server_memory=None)
    async with wtio.serve(handle, "127.0.0.1", 0, tls=tls, io=io, limits=limits) as server:
        print(server.addresses[0][1], flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
