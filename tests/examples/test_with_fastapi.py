"""docs/with-fastapi.md: its program behind uvicorn, in one process on one port number, asked over TCP and QUIC."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import urllib.request
from typing import TYPE_CHECKING

import pytest
from aioquic.asyncio.client import connect as quic_connect
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from tests.loopback.test_http import HttpClient
from tests.support.ports import free_port
from tests.support.with_fastapi import uvicorn, write_program

import wtio

if TYPE_CHECKING:
    from pathlib import Path

# No log may show one of them.
SECRETS = ("s3cret", "hunter2", "wr0ng")


async def over_tcp(port: int, path: str, data: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """A request over TCP; status, headers and body."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def ask() -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", data=data)
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()

    return await asyncio.to_thread(ask)


@pytest.mark.timeout(60)
async def test_one_process_serves_tcp_sessions_and_http3_with_the_same_state(
    tmp_path: Path, certificate: wtio.DevCertificate
) -> None:
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=ssl.CERT_NONE)
    port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    write_program(tmp_path, port, certificate)
    async with asyncio.timeout(50), uvicorn(tmp_path, port, certificate) as server:
        await server.until("Uvicorn running")
        url, tls = f"https://127.0.0.1:{port}/rooms/blue", certificate.client_tls()
        status, headers, body = await over_tcp(port, "/rooms/blue")
        assert (status, json.loads(body), headers["alt-svc"]) == (200, [], f'h3=":{port}"; ma=60')

        by_header = wtio.connect(url, tls=tls, headers={"authorization": "Bearer s3cret"})
        by_protocol = wtio.connect(url, tls=tls, protocols=["chat", "token.hunter2"])
        by_query = wtio.connect(f"{url}?token=hunter2", tls=tls)
        async with by_header as ada, by_protocol as grace, by_query as other:
            assert grace.protocol == "chat"
            stream = await ada.create_bidirectional_stream()
            await stream.write(data=b"hello", end_stream=True)
            assert await stream.read_all() == b"hello"
            # The state is the same, whichever way one asks.
            assert json.loads((await over_tcp(port, "/rooms/blue"))[2]) == ["ada", "grace", "grace"]
            assert (await over_tcp(port, "/rooms/blue", b"news"))[0] == 200
            assert [await session.receive_datagram() for session in (ada, grace, other)] == [b"news"] * 3
            async with quic_connect(
                "127.0.0.1", port, configuration=configuration, create_protocol=HttpClient
            ) as client:
                assert isinstance(client, HttpClient)
                answer = await client.get("/rooms/blue")
                assert (answer.status, answer.size) == ("200", len('["ada","grace","grace"]'))
                assert (await client.get("/nowhere")).status == "404"
                number, answer = client.ask("POST", "/rooms/blue", end=False)
                client.send(number, b"more", end=True)
                await answer.is_over.wait()
                assert answer.status == "200"
            assert await ada.receive_datagram() == b"more"

        for refused in (
            wtio.connect(url, tls=tls, headers={"authorization": "Bearer wr0ng"}),
            wtio.connect(url, tls=tls, protocols=["chat", "token.wr0ng"]),
            wtio.connect(f"{url}?token=wr0ng", tls=tls),
        ):
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await refused
            assert caught.value.status == 401
        async with wtio.connect(url, tls=tls, headers={"authorization": "Bearer s3cret"}) as last:
            server.process.terminate()
            assert (await last.wait_closed()).code == 0
        assert await server.finish() in (0, -15)
        assert "Application shutdown complete" in server.output
        assert not [secret for secret in SECRETS if secret in server.output]


# What the page shows, with Starlette alone.
STARLETTE = """
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import wtio
import wtio.asgi

PORT, CERTIFICATE = {port}, {certificate!r}
router = wtio.Router()

@asynccontextmanager
async def lifespan(app):
    tls = wtio.ServerTLS(certfile=CERTIFICATE)
    async with wtio.serve(router, "127.0.0.1", port=PORT, tls=tls):
        yield {{"members": members}}

members = []

async def index(request):
    return JSONResponse([len(request.state.members)])

@router.session("/rooms/{{room}}")
async def enter(session, room):
    members.append(session)
    await session.serve_streams(echo)
    members.remove(session)

async def echo(stream):
    await stream.write(data=await stream.read_all(), end_stream=True)

app = Starlette(routes=[Route("/members", index)], lifespan=lifespan)
router.mount("/", wtio.asgi.Application(app, lifespan="off", state={{"members": members}}))
"""


@pytest.mark.timeout(60)
async def test_starlette_alone_is_served_likewise(tmp_path: Path, certificate: wtio.DevCertificate) -> None:
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=ssl.CERT_NONE)
    port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    (tmp_path / "app.py").write_text(STARLETTE.format(port=port, certificate=str(certificate.certfile)))
    async with asyncio.timeout(50), uvicorn(tmp_path, port, certificate) as server:
        await server.until("Uvicorn running")
        url = f"https://127.0.0.1:{port}/rooms/blue"
        async with wtio.connect(url, tls=certificate.client_tls()) as session:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"hello", end_stream=True)
            assert await stream.read_all() == b"hello"
            assert json.loads((await over_tcp(port, "/members"))[2]) == [1]
            async with quic_connect(
                "127.0.0.1", port, configuration=configuration, create_protocol=HttpClient
            ) as client:
                assert isinstance(client, HttpClient)
                answer = await client.get("/members")
                assert (answer.status, answer.size) == ("200", len("[1]"))
            server.process.terminate()
            assert (await session.wait_closed()).code == 0
        assert await server.finish() in (0, -15)


async def test_uvicorn_does_not_start_if_the_port_is_taken(tmp_path: Path, certificate: wtio.DevCertificate) -> None:
    async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        port = server.addresses[0][1]
        write_program(tmp_path, port, certificate)
        async with uvicorn(tmp_path, port, certificate) as program:
            assert await program.finish() == 3
            assert f"cannot listen on UDP 127.0.0.1 port {port}" in program.output
