"""A FastAPI application behind HTTP/3: 100 MB each way, and a reader that is slow, in flat memory."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.examples.programs import Program
from tests.support.http3 import HttpClient

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MB = 1_000_000
SIZE = 100 * MB
# What a request may take beside its own size: windows and queues, the packets on the way, and what malloc keeps.
ROOM = 24 * MB

APPLICATION = """
import asyncio
import sys
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, StreamingResponse

import wtio.asgi

app = FastAPI()
PIECE = bytes(50_000)

@app.put("/upload")
async def upload(request: Request) -> PlainTextResponse:
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return PlainTextResponse(str(size))

@app.get("/download")
async def download(size: int) -> StreamingResponse:
    async def pieces():
        for _ in range(size // len(PIECE)):
            yield PIECE

    return StreamingResponse(pieces(), headers={"content-length": str(size)})

@app.get("/memory")
async def memory() -> PlainTextResponse:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")  # the mark begins anew; see proc(5)
    return PlainTextResponse(status["VmHWM"].split()[0])

async def main() -> None:
    tls = wtio.ServerTLS(certfile=sys.argv[1])
    async with wtio.serve(wtio.asgi.Application(app), "127.0.0.1", 0, tls=tls) as server:
        print("port", server.addresses[0][1], flush=True)
        await server.wait_closed()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def serving(directory: Path, certificate: wtio.DevCertificate) -> AsyncIterator[HttpClient]:
    """The application in a process of its own, and a client of it."""
    (directory / "app.py").write_text(APPLICATION)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(directory / "app.py"),
        str(certificate.certfile),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    program = Program(process)
    try:
        port = (await program.until("port")).split()[1]
        connect = partial(wtio.connect, f"https://127.0.0.1:{port}/", tls=certificate.client_tls())
        network: Any = SimpleNamespace(connect=connect)
        async with HttpClient(network) as client:
            yield client
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def most_memory(client: HttpClient) -> int:
    """Bytes that the server's process has taken at most since the last time."""
    return int((await client.get("/memory")).body) * 1024


@pytest.mark.timeout(120)
async def test_large_bodies_and_slow_readers_keep_memory_flat(tmp_path: Path, certificate: wtio.DevCertificate) -> None:
    async with serving(tmp_path, certificate) as client:
        await client.get(f"/download?size={2 * MB}")
        await most_memory(client)
        before = await most_memory(client)

        request = await client.ask("PUT", "/upload", ("content-length", str(SIZE)), end=False)
        piece = bytes(MB)
        for number in range(SIZE // MB):
            assert await request.send_body(piece, end=number == SIZE // MB - 1)
        await request.answer()
        assert (request.status, int(request.body)) == (200, SIZE)
        assert await most_memory(client) < before + ROOM

        request = await client.ask("GET", f"/download?size={SIZE}")
        size = 0
        while await request.read():
            size += len(request.body)
            request.body.clear()
        assert (request.status, size) == (200, SIZE)
        assert await most_memory(client) < before + ROOM

        # One that reads next to nothing, for as long as the application would take for all of it several times over.
        slow = await client.ask("GET", f"/download?size={SIZE}")
        await slow.head()
        for _ in range(20):
            await slow.read(1000)
            await asyncio.sleep(0.05)
        assert await most_memory(client) < before + ROOM
        slow.leave()
