"""wtio and aioquic, each as client and as server: draft 02 on the wire, written by somebody else."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

import wtio

from . import aioquic_peer as peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

BULK = bytes(range(256)) * 8192  # 2 MiB: twice the peer's stream window
pytestmark = pytest.mark.timeout(30)

CODES = [0, 1, 29, 30, 31, 255, 2**32 - 1]


# -- handlers: the same behaviour on either library


async def wtio_handler(session: wtio.WebTransportSession) -> None:
    """Echo in upper case on the kind of stream the request came on; echo datagrams; "close" closes with 7."""

    async def bidirectional() -> None:
        async for stream in session.incoming_bidirectional_streams():
            await stream.write_all(data=(await stream.read_all()).upper(), end_stream=True)

    async def unidirectional() -> None:
        async for stream in session.incoming_unidirectional_streams():
            data = await stream.read_all()
            if data == b"close":
                await session.close(7, "as you wish ä")
                return
            answer = await session.create_unidirectional_stream()
            await answer.write(data=data.upper(), end_stream=True)

    async def datagrams() -> None:
        async for datagram in session.incoming_datagrams():
            session.send_datagram(datagram.upper())

    await asyncio.gather(bidirectional(), unidirectional(), datagrams())


async def aioquic_handler(session: peer.PeerSession) -> None:
    """The same on aioquic."""

    async def bidirectional() -> None:
        while True:
            stream = await session.accept_stream()
            data = (await stream.read_all()).upper()
            for start in range(0, len(data), 65536):
                await stream.write(data[start : start + 65536])
            await stream.write(b"", True)

    async def unidirectional() -> None:
        while True:
            data = await (await session.accept_stream(bidirectional=False)).read_all()
            if data == b"close":
                session.close(7, "as you wish ä")
                return
            await session.open_stream(bidirectional=False).write(data.upper(), True)

    async def datagrams() -> None:
        while True:
            session.send_datagram((await session.receive_datagram()).upper())

    await asyncio.gather(bidirectional(), unidirectional(), datagrams())


@contextlib.asynccontextmanager
async def wtio_serving(
    certificate: wtio.DevCertificate, handler: Callable[[wtio.WebTransportSession], Awaitable[None]]
) -> AsyncIterator[int]:
    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        yield server.addresses[0][1]


@contextlib.asynccontextmanager
async def aioquic_to_wtio(
    certificate: wtio.DevCertificate,
    handler: Callable[[wtio.WebTransportSession], Awaitable[None]] = wtio_handler,
) -> AsyncIterator[peer.PeerSession]:
    """A session of aioquic's client on our server; it verifies our certificate."""
    async with (
        wtio_serving(certificate, handler) as port,
        peer.connect("127.0.0.1", port, "/path?query", cafile=certificate.certfile) as session,
    ):
        yield session


@contextlib.asynccontextmanager
async def wtio_to_aioquic(
    certificate: wtio.DevCertificate,
    handler: Callable[[peer.PeerSession], Awaitable[None]] = aioquic_handler,
) -> AsyncIterator[wtio.WebTransportSession]:
    """A session of our client on aioquic's server, trusted by its hash."""
    async with peer.serve(handler, "127.0.0.1", 0, certificate=certificate.certfile, key=certificate.keyfile) as port:
        tls = wtio.ClientTLS(certificate_hashes=[certificate.sha256])
        async with wtio.connect(f"https://127.0.0.1:{port}/path?query", tls=tls) as session:
            yield session


@pytest.fixture
def certificate(tmp_path: Path) -> wtio.DevCertificate:
    return wtio.dev_certificate(directory=tmp_path)


# -- aioquic's client, our server


async def test_aioquic_client_exchanges_bidirectional_streams_with_our_server(
    certificate: wtio.DevCertificate,
) -> None:
    async with aioquic_to_wtio(certificate) as session:
        for data in (b"hello", b"", BULK):
            stream = session.open_stream()
            writing = asyncio.ensure_future(stream.write(data, True))
            assert await stream.read_all() == data.upper()
            await writing


async def test_aioquic_client_exchanges_unidirectional_streams_with_our_server(
    certificate: wtio.DevCertificate,
) -> None:
    async with aioquic_to_wtio(certificate) as session:
        for data in (b"hello", BULK):
            await session.open_stream(bidirectional=False).write(data, True)
            answer = await session.accept_stream(bidirectional=False)
            assert await answer.read_all() == data.upper()


async def test_aioquic_client_exchanges_datagrams_with_our_server(certificate: wtio.DevCertificate) -> None:
    async with aioquic_to_wtio(certificate) as session:
        for data in (b"hello", b"", b"x" * 1000):
            session.send_datagram(data)
            assert await session.receive_datagram() == data.upper()


async def test_our_server_opens_streams_to_aioquic(certificate: wtio.DevCertificate) -> None:
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=b"question", end_stream=True)
        answers.put_nowait(await stream.read_all())
        sending = await session.create_unidirectional_stream()
        await sending.write(data=b"done", end_stream=True)
        await session.wait_closed()

    async with aioquic_to_wtio(certificate, handler) as session:
        stream = await session.accept_stream()
        assert await stream.read_all() == b"question"
        await stream.write(b"answer", True)
        assert await answers.get() == b"answer"
        assert await (await session.accept_stream(bidirectional=False)).read_all() == b"done"


@pytest.mark.parametrize("code", CODES)
async def test_reset_and_stop_of_aioquic_reach_our_server(certificate: wtio.DevCertificate, code: int) -> None:
    seen: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        assert await stream.readexactly(n=5) == b"start"
        await stream.write(data=b"go")
        with pytest.raises(wtio.StreamResetError) as reset:
            await stream.read_all()
        seen.put_nowait(reset.value.error_code)
        with pytest.raises(wtio.StreamStoppedError) as stop:
            await write_forever(stream)
        seen.put_nowait(stop.value.error_code)
        await session.wait_closed()

    async with aioquic_to_wtio(certificate, handler) as session:
        stream = session.open_stream()
        await stream.write(b"start")
        assert await stream.read() == b"go"
        stream.reset(code)
        stream.stop(code)
        assert [await seen.get(), await seen.get()] == [code, code]


@pytest.mark.parametrize("code", CODES)
async def test_reset_and_stop_of_our_server_reach_aioquic(certificate: wtio.DevCertificate, code: int) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        assert await stream.readexactly(n=5) == b"start"
        await stream.stop_receiving(error_code=code)
        await stream.reset(error_code=code)
        await session.wait_closed()

    async with aioquic_to_wtio(certificate, handler) as session:
        stream = session.open_stream()
        await stream.write(b"start")
        with pytest.raises(peer.PeerStreamReset) as reset:
            await stream.read_all()
        assert reset.value.code == code
        assert await stream.stopped == code


async def test_our_server_sees_close_code_and_reason_of_aioquic(certificate: wtio.DevCertificate) -> None:
    seen: asyncio.Queue[wtio.CloseInfo] = asyncio.Queue()

    async def handler(session: wtio.WebTransportSession) -> None:
        seen.put_nowait(await session.wait_closed())

    async with aioquic_to_wtio(certificate, handler) as session:
        session.close(2**32 - 1, "good bye ä")
        info = await seen.get()
    assert (info.code, info.reason, info.closed_by) == (2**32 - 1, "good bye ä", "peer")


async def test_aioquic_sees_close_code_and_reason_of_our_server(certificate: wtio.DevCertificate) -> None:
    async with aioquic_to_wtio(certificate) as session:
        await session.open_stream(bidirectional=False).write(b"close", True)
        closed = await session.closed
    assert (closed.code, closed.reason) == (7, "as you wish ä")


async def test_our_server_says_goodbye_before_it_resets_streams(certificate: wtio.DevCertificate) -> None:
    """Chromium's tab crashed now and then when its streams were reset before it learned that the session was over."""

    async def handler(session: wtio.WebTransportSession) -> None:
        sending = await session.create_unidirectional_stream()
        await sending.write(data=b"still going")
        stream = await anext(session.incoming_bidirectional_streams())
        await stream.read()
        await session.close(7, "over")

    async with aioquic_to_wtio(certificate, handler) as session:
        receiving = await session.accept_stream(bidirectional=False)
        stream = session.open_stream()
        await stream.write(b"start")
        closed = await session.closed
        assert (closed.code, closed.reason) == (7, "over")
        assert await receiving.read() == b"still going"
        # A stream keeps the first event it got.
        for affected in (stream, receiving):
            with pytest.raises(peer.PeerSessionClosed):
                await affected.read()


async def test_our_server_rejects_aioquic(certificate: wtio.DevCertificate) -> None:
    async def reject(server: wtio.Server) -> None:
        async for request in server:
            assert request.path == "/path?query"
            await request.reject(404)

    async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        rejecting = asyncio.ensure_future(reject(server))
        with pytest.raises(peer.PeerSessionRejected) as rejected:
            async with peer.connect("127.0.0.1", server.addresses[0][1], "/path?query"):
                pass
        assert rejected.value.status == 404
        rejecting.cancel()
        await asyncio.gather(rejecting, return_exceptions=True)


# -- our client, aioquic's server


async def test_our_client_exchanges_bidirectional_streams_with_aioquic(certificate: wtio.DevCertificate) -> None:
    async with wtio_to_aioquic(certificate) as session:
        for data in (b"hello", b"", BULK):
            stream = await session.create_bidirectional_stream()
            writing = asyncio.ensure_future(stream.write_all(data=data, end_stream=True))
            assert await stream.read_all() == data.upper()
            await writing


async def test_keys_are_exchanged_without_ml_kem_with_aioquic_which_has_none(certificate: wtio.DevCertificate) -> None:
    seen: asyncio.Queue[wtio.ConnectionReport] = asyncio.Queue()

    async def handler(session: wtio.WebTransportSession) -> None:
        seen.put_nowait(session.report)

    async with wtio_to_aioquic(certificate) as ours:
        seen.put_nowait(ours.report)
    async with aioquic_to_wtio(certificate, handler):
        pass
    # The second is that of a client that puts it first.
    for key_exchange in ("X25519", "secp256r1"):
        report = await seen.get()
        assert report.tls is not None
        assert report.tls.key_exchange == key_exchange


async def test_our_client_exchanges_unidirectional_streams_with_aioquic(certificate: wtio.DevCertificate) -> None:
    async with wtio_to_aioquic(certificate) as session:
        for data in (b"hello", BULK):
            sending = await session.create_unidirectional_stream()
            await sending.write_all(data=data, end_stream=True)
            answer = await anext(session.incoming_unidirectional_streams())
            assert await answer.read_all() == data.upper()


async def test_our_client_exchanges_datagrams_with_aioquic(certificate: wtio.DevCertificate) -> None:
    async with wtio_to_aioquic(certificate) as session:
        for data in (b"hello", b"", b"x" * 1000):
            session.send_datagram(data)
            assert await session.receive_datagram() == data.upper()


async def test_aioquic_opens_streams_to_our_client(certificate: wtio.DevCertificate) -> None:
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(session: peer.PeerSession) -> None:
        stream = session.open_stream()
        await stream.write(b"question", True)
        answers.put_nowait(await stream.read_all())
        await session.open_stream(bidirectional=False).write(b"done", True)

    async with wtio_to_aioquic(certificate, handler) as session:
        stream = await anext(session.incoming_bidirectional_streams())
        assert await stream.read_all() == b"question"
        await stream.write(data=b"answer", end_stream=True)
        assert await answers.get() == b"answer"
        assert await (await anext(session.incoming_unidirectional_streams())).read_all() == b"done"


@pytest.mark.parametrize("code", CODES)
async def test_reset_and_stop_of_our_client_reach_aioquic(certificate: wtio.DevCertificate, code: int) -> None:
    seen: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(session: peer.PeerSession) -> None:
        stream = await session.accept_stream()
        assert await stream.read() == b"start"
        await stream.write(b"go")
        with pytest.raises(peer.PeerStreamReset) as reset:
            await stream.read_all()
        seen.put_nowait(reset.value.code)
        seen.put_nowait(await stream.stopped)

    async with wtio_to_aioquic(certificate, handler) as session:
        stream = await session.create_bidirectional_stream()
        # aioquic reports no stream before its first byte after the header.
        await stream.write(data=b"start")
        assert await stream.readexactly(n=2) == b"go"
        await stream.reset(error_code=code)
        await stream.stop_receiving(error_code=code)
        assert [await seen.get(), await seen.get()] == [code, code]


@pytest.mark.parametrize("code", CODES)
async def test_reset_and_stop_of_aioquic_reach_our_client(certificate: wtio.DevCertificate, code: int) -> None:
    async def handler(session: peer.PeerSession) -> None:
        stream = await session.accept_stream()
        await stream.read()
        stream.stop(code)
        stream.reset(code)

    async with wtio_to_aioquic(certificate, handler) as session:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=b"start")
        with pytest.raises(wtio.StreamResetError) as reset:
            await stream.read_all()
        assert reset.value.error_code == code
        with pytest.raises(wtio.StreamStoppedError) as stop:
            await write_forever(stream)
        assert stop.value.error_code == code


async def test_our_client_sees_close_code_and_reason_of_aioquic(certificate: wtio.DevCertificate) -> None:
    async with wtio_to_aioquic(certificate) as session:
        stream = await session.create_unidirectional_stream()
        await stream.write(data=b"close", end_stream=True)
        info = await session.wait_closed()
    assert (info.code, info.reason, info.closed_by) == (7, "as you wish ä", "peer")


async def test_aioquic_sees_close_code_and_reason_of_our_client(certificate: wtio.DevCertificate) -> None:
    seen: asyncio.Queue[peer.PeerSessionClosed] = asyncio.Queue()

    async def handler(session: peer.PeerSession) -> None:
        seen.put_nowait(await session.closed)

    async with wtio_to_aioquic(certificate, handler) as session:
        await session.close(2**32 - 1, "good bye ä")
        closed = await seen.get()
    assert (closed.code, closed.reason) == (2**32 - 1, "good bye ä")


async def test_our_client_reports_that_aioquic_rejected_it(certificate: wtio.DevCertificate) -> None:
    async with peer.serve(
        aioquic_handler,
        "127.0.0.1",
        0,
        certificate=certificate.certfile,
        key=certificate.keyfile,
        decide=lambda session: 404,
    ) as port:
        tls = wtio.ClientTLS(certificate_hashes=[certificate.sha256])
        with pytest.raises(wtio.SessionRejectedError) as rejected:
            async with wtio.connect(f"https://127.0.0.1:{port}/", tls=tls):
                pass
        assert rejected.value.status == 404


# -- aioquic on both ends: what fails here is not our fault


async def test_aioquic_exchanges_everything_with_itself(certificate: wtio.DevCertificate) -> None:
    async with (
        peer.serve(aioquic_handler, "127.0.0.1", 0, certificate=certificate.certfile, key=certificate.keyfile) as port,
        peer.connect("127.0.0.1", port, "/", cafile=certificate.certfile) as session,
    ):
        stream = session.open_stream()
        await stream.write(b"hello", True)
        assert await stream.read_all() == b"HELLO"
        await session.open_stream(bidirectional=False).write(b"uni", True)
        assert await (await session.accept_stream(bidirectional=False)).read_all() == b"UNI"
        session.send_datagram(b"datagram")
        assert await session.receive_datagram() == b"DATAGRAM"
        await session.open_stream(bidirectional=False).write(b"close", True)
        closed = await session.closed
    assert (closed.code, closed.reason) == (7, "as you wish ä")


async def write_forever(stream: wtio.WebTransportStream) -> None:
    while True:
        await stream.write(data=b"x")
        await asyncio.sleep(0.01)
