"""ASGI applications on real sockets, on every kind of event loop: requests of aioquic's client, threads, sessions."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import TYPE_CHECKING

from aioquic.asyncio.client import connect as quic_connect
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from fastapi import FastAPI, Request
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse

import wtio
import wtio.asgi

from .test_http import HttpClient, content, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wtio.asgi import Receive, Scope, Send

LARGE = 1024 * 1024


async def test_fastapi_answers_requests_while_a_session_goes_on(certificate: wtio.DevCertificate, io: str) -> None:
    app = FastAPI()
    left = asyncio.Event()

    @app.put("/upload")
    async def upload(request: Request) -> PlainTextResponse:
        digest = hashlib.sha256()
        async for piece in request.stream():
            digest.update(piece)
        return PlainTextResponse(digest.hexdigest())

    @app.get("/download")
    def download() -> StreamingResponse:  # in a thread, and so are its pieces
        data = content(LARGE)
        return StreamingResponse(data[start : start + 100_000] for start in range(0, LARGE, 100_000))

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield bytes(100_000)
                await asyncio.sleep(0.01)

        async def note() -> None:
            left.set()

        return StreamingResponse(pieces(), background=BackgroundTask(note))

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "webtransport":
            await app(scope, receive, send)
            return
        await receive()
        await send({"type": "webtransport.accept"})
        while (message := await receive())["type"] != "webtransport.disconnect":
            if message["type"] == "webtransport.stream.receive":
                await send({**message, "type": "webtransport.stream.send"})
            if message["type"].startswith("webtransport.stream") and not message.get("end"):
                await send({"type": "webtransport.stream.read", "stream": message["stream"]})

    site = wtio.asgi.Application(wtio.asgi.check(both), webtransport=True)
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=ssl.CERT_NONE)
    async with wtio.serve(site, "127.0.0.1", 0, tls=certificate.server_tls(), io=io) as server:
        port = server.addresses[0][1]
        connector = wtio.connect(f"https://127.0.0.1:{port}/", tls=certificate.client_tls())
        dialing = quic_connect("127.0.0.1", port, configuration=configuration, create_protocol=HttpClient)
        async with connector as session, dialing as client:
            assert isinstance(client, HttpClient)
            stream = await session.create_bidirectional_stream()
            reading = asyncio.ensure_future(stream.read_all())
            writing = asyncio.ensure_future(stream.write_all(data=content(LARGE), end_stream=True))

            number, uploaded = client.ask("PUT", "/upload", end=False)
            client.send(number, content(LARGE), end=True)
            downloaded = await client.get("/download")
            await uploaded.is_over.wait()
            assert (uploaded.status, uploaded.size) == ("200", 64)
            assert downloaded.digest.digest() == hashlib.sha256(content(LARGE)).digest()

            number, answer = client.ask("GET", "/endless")
            await until(lambda: answer.size > LARGE)
            client.leave(number)
            async with asyncio.timeout(10):
                await left.wait()
            assert await reading == content(LARGE)
            await writing
