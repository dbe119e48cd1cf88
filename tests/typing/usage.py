"""How programs use the library, for the type checker only: `test_typing.py` runs mypy --strict over it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import assert_type

import wtio
import wtio.asgi
import wtio.testing


async def handler(session: wtio.WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        assert_type(stream, wtio.WebTransportStream)
        async for chunk in stream:
            assert_type(chunk, bytes)
            await stream.write(data=chunk)
    async for incoming in session.incoming_unidirectional_streams():
        assert_type(incoming, wtio.WebTransportReceiveStream)
    async for datagram in session.incoming_datagrams():
        assert_type(datagram, bytes)


async def streams(session: wtio.WebTransportSession) -> None:
    await session.serve_streams(both, unidirectional=receiving, datagrams=session.send_datagram, limit=5)


async def client() -> None:
    tls = wtio.ClientTLS(certificate_hashes=[b""])
    async with wtio.connect(
        "https://localhost/", tls=tls, headers=[("a", "b")], protocols=["v1"], timeouts=wtio.Timeouts(connect=1)
    ) as session:
        assert_type(session, wtio.WebTransportSession)
        assert_type(session.session_id, int)
        assert_type(session.max_datagram_size, int)
        assert_type(session.close_info, wtio.CloseInfo | None)
        assert_type(session.report, wtio.ConnectionReport)
        session.send_datagram(b"x")
        session.send_datagram(bytearray(b"x"))
        session.send_datagram(memoryview(b"x"))
        assert_type(await session.receive_datagram(), bytes)
        await receiving(await session.create_bidirectional_stream())
        await sending(await session.create_unidirectional_stream())
        await session.drain()
        await session.close(1, "reason")
        await session.abort()
        assert_type(await session.wait_closed(), wtio.CloseInfo)
    session = await wtio.connect("https://localhost/", headers={"a": "b"})
    assert_type(session, wtio.WebTransportSession)


async def receiving(stream: wtio.WebTransportReceiveStream) -> None:
    assert_type(stream.can_read, bool)
    assert_type(stream.direction, wtio.StreamDirection)
    assert_type(await stream.read(), bytes)
    assert_type(await stream.read(max_bytes=5), bytes)
    assert_type(await stream.read_all(), bytes)
    assert_type(await stream.readexactly(n=5), bytes)
    assert_type(await stream.readline(limit=5), bytes)
    assert_type(await stream.readuntil(separator=b"\n", limit=5), bytes)
    assert_type(await stream.readinto(bytearray(5)), int)
    await stream.stop_receiving(error_code=wtio.ErrorCodes.APP_NO_ERROR)
    await stream.stop_receiving(error_code=5)
    await stream.close()
    assert_type(stream.diagnostics(), wtio.StreamDiagnostics)
    async with stream as entered:
        assert_type(entered, wtio.WebTransportReceiveStream)


async def sending(stream: wtio.WebTransportSendStream) -> None:
    assert_type(stream.can_write, bool)
    await stream.write(data=b"x", end_stream=True)
    await stream.write_all(data=memoryview(b"x"), chunk_size=5, end_stream=False)
    await stream.reset(error_code=5)
    await stream.close(error_code=None)
    await stream.close(error_code=5)
    await stream.wait_acked()
    assert_type(await stream.wait_stopped(), int | None)
    stream.send_order = 5
    async with stream as entered:
        assert_type(entered, wtio.WebTransportSendStream)


async def both(stream: wtio.WebTransportStream) -> None:
    await receiving(stream)
    await sending(stream)
    await stream.close(error_code=5)
    assert_type(stream.session, wtio.WebTransportSession)
    async with stream as entered:
        assert_type(entered, wtio.WebTransportStream)


async def server() -> None:
    tls = wtio.ServerTLS(certfile="cert.pem", keyfile="key.pem")
    async with wtio.serve(handler, "localhost", 0, tls=tls, limits=wtio.Limits(read_all=None)) as running:
        assert_type(running, wtio.Server)
        assert_type(running.addresses, list[tuple[str, int]])
    async with wtio.serve(None, None, 0, tls=wtio.tls.dev_certificate().server_tls()) as running:
        async for request in running:
            assert_type(request, wtio.SessionRequest)
            assert_type(request.headers, tuple[tuple[str, str], ...])
            assert_type(request.origin, str | None)
            assert_type(request.remote_address, tuple[str, int])
            assert_type(await request.accept(headers={"a": "b"}), wtio.WebTransportSession)
            await request.reject(404, headers=[("a", "b")])
            assert_type(request.query, tuple[tuple[str, str], ...])
            assert_type(request.cookies, Mapping[str, str])
            assert_type(request.state, SimpleNamespace)
            await request.serve(handler, status=202)
    async with wtio.serve(handler, tls=tls, admit=admit):
        pass


async def admit(request: wtio.SessionRequest) -> wtio.WebTransportSession | None:
    return await request.accept(status=201, flush=False) if request.path == "/" else None


router = wtio.Router(admit=admit)


@router.session("/rooms/{room}", admit=admit)
async def room(session: wtio.WebTransportSession, room: str) -> None: ...


@router.get("/health")
def health(request: wtio.HttpRequest) -> wtio.HttpResponse | None:
    return None


@router.get("/later/{number:int}")
async def later(request: wtio.HttpRequest, number: int) -> wtio.HttpResponse:
    return wtio.HttpResponse(status=number)


async def routed(tls: wtio.ServerTLS) -> None:
    assert_type(router, wtio.Router)
    router.mount("/games", wtio.Router())
    async with wtio.serve(router, tls=tls) as running:
        assert_type(running, wtio.Server)


async def application(scope: wtio.asgi.Scope, receive: wtio.asgi.Receive, send: wtio.asgi.Send) -> None:
    message = await receive()
    await send({"type": "webtransport.accept", "subprotocol": message["type"]})


async def asgi(tls: wtio.ServerTLS) -> None:
    site = wtio.asgi.Application(wtio.asgi.check(application), lifespan="off", state={"a": 1}, webtransport=True)
    router.mount("/", site)
    async with wtio.serve(site, tls=tls) as running:
        assert_type(running, wtio.Server)


async def pooled() -> None:
    async with wtio.Client(headers={"a": "b"}, limits=wtio.Limits(sessions=5)) as sharing:
        assert_type(sharing, wtio.Client)
        async with sharing.connect("https://localhost/", allow_pooling=True) as session:
            assert_type(session, wtio.WebTransportSession)
        assert_type(await sharing.connect("https://localhost/", protocols=["a"]), wtio.WebTransportSession)
        assert_type(sharing.connections, int)


async def errors() -> None:
    try:
        await client()
    except wtio.StreamResetError as error:
        assert_type(error.error_code, int | None)
    except wtio.StreamStoppedError as error:
        assert_type(error.error_code, int | None)
    except wtio.SessionClosed as error:
        assert_type(error.code, int | None)
        assert_type(error.reason, str)
    except wtio.SessionRejectedError as error:
        assert_type(error.status, int)
        assert_type(error.report, wtio.ConnectionReport | None)
    except wtio.DatagramTooLargeError as error:
        assert_type((error.size, error.limit), tuple[int, int])


async def simulated() -> None:
    async with wtio.testing.session_pair(loss=0.1, seed=1) as (near, far):
        assert_type(near, wtio.WebTransportSession)
        assert_type(far, wtio.WebTransportSession)


assert_type(wtio.testing.run(simulated()), None)
asyncio.run(server())
