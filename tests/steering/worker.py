"""A server on one of several sockets, in a process of its own: it answers streams with its slot and what came on them.

It ends with its standard input. The certificate is in a directory, the secret in the environment.
"""

from __future__ import annotations

import asyncio
import sys

import wtio


async def main(directory: str, fd: str, slot: str, io: str) -> None:
    async def answer(stream: wtio.WebTransportStream) -> None:
        await stream.write_all(data=slot.encode() + b" " + await stream.read_all(), end_stream=True)

    async def handle(session: wtio.WebTransportSession) -> None:
        await session.serve_streams(answer)

    tls = wtio.dev_certificate(directory=directory).server_tls()
    secret = wtio.Secret.from_environment()
    async with wtio.serve(handle, tls=tls, fd=int(fd), slot=int(slot), secret=secret, io=io):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
