"""The whole public surface once over real sockets, on every event loop."""

from __future__ import annotations

import array
import asyncio
import logging
import mmap
import socket
from typing import TYPE_CHECKING

import pytest
from tests.support.logs import but_sessions

import wtio

if TYPE_CHECKING:
    from collections.abc import Callable

Pair = tuple[wtio.WebTransportSession, wtio.WebTransportSession]


async def streams_of(pair: Pair) -> tuple[wtio.WebTransportStream, wtio.WebTransportStream]:
    """Both ends of a bidirectional stream; one byte has been written and read."""
    near = await pair[0].create_bidirectional_stream()
    await near.write(data=b"!")
    far = await anext(pair[1].incoming_bidirectional_streams())
    assert await far.readexactly(n=1) == b"!"
    return near, far


async def test_facts_of_a_session(server: wtio.Server, url: str, certificate: wtio.DevCertificate) -> None:
    async def client() -> None:
        connecting = wtio.connect(
            url + "?q=1",
            tls=certificate.client_tls(),
            headers=[("X-One", "1"), ("x-two", "2")],
            protocols=["chat.v2", "chat.v1"],
            origin="http://localhost:8000",
        )
        async with connecting as session:
            assert session.protocol == "chat.v1"
            assert ("x-server", "yes") in session.response_headers
            assert session.path == "/test?q=1"
            assert session.is_client
            assert session.remote_address == server.addresses[0]
            await session.wait_closed()

    task = asyncio.ensure_future(client())
    request = await anext(server)
    assert request.path == "/test?q=1"
    assert request.origin == "http://localhost:8000"
    assert request.protocols == ("chat.v2", "chat.v1")
    assert [pair for pair in request.headers if pair[0].startswith("x-")] == [("x-one", "1"), ("x-two", "2")]
    assert request.remote_address[0] == "127.0.0.1"
    session = await request.accept(protocol="chat.v1", headers={"X-Server": "yes"})
    assert session.protocol == "chat.v1"
    assert not session.is_client
    with pytest.raises(wtio.LocalProtocolError):
        await request.reject(404)
    await session.close()
    await task


async def test_reading_and_writing_in_every_way(pair: Pair) -> None:
    near, far = await streams_of(pair)
    await near.write(data=b"line one\nline two\nkey: value\r\n\r\nrest")
    assert await far.readline() == b"line one\n"
    assert await far.readuntil(separator=b"two\n") == b"line two\n"
    assert await far.readuntil(separator=b"\r\n\r\n") == b"key: value\r\n\r\n"
    buffer = bytearray(2)
    assert await far.readinto(buffer) == 2
    assert buffer == b"re"
    assert await far.read(max_bytes=1) == b"s"
    assert await far.read(max_bytes=0) == b""
    assert await far.read() == b"t"
    await near.write(data=b"", end_stream=True)
    assert await far.read() == b""
    assert await far.readline() == b""
    assert await far.read_all() == b""
    assert not far.can_read
    assert far.can_write
    await near.wait_acked()
    assert near.diagnostics().send_state == "acked"


async def test_exact_read_beyond_every_window(pair: Pair) -> None:
    near, far = await streams_of(pair)
    data = bytes(range(256)) * 4096 * 24  # 24 MiB; the window of a stream has 1 MiB, that of a connection 16
    writing = asyncio.ensure_future(near.write_all(data=data))
    assert await far.readexactly(n=len(data)) == data
    await writing


async def test_ends_and_errors_of_reading(pair: Pair) -> None:
    near, far = await streams_of(pair)
    await near.write(data=b"short", end_stream=True)
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await far.readexactly(n=10)
    assert (caught.value.partial, caught.value.expected) == (b"short", 10)
    for bad in (far.read(max_bytes=-2), far.readexactly(n=-1), far.readuntil(separator=b""), far.readline(limit=-2)):
        with pytest.raises(ValueError, match=r"-2|-1|empty"):
            await bad


async def test_over_limit_keeps_the_bytes(pair: Pair) -> None:
    near, far = await streams_of(pair)
    await near.write(data=b"0123456789\n")
    with pytest.raises(wtio.ReadLimitError, match="limit") as caught:
        await far.readline(limit=5)
    assert isinstance(caught.value, asyncio.LimitOverrunError)
    assert await far.readline(limit=10) == b"0123456789\n"


async def test_second_reader_and_second_writer_are_told(pair: Pair) -> None:
    near, far = await streams_of(pair)
    reading = asyncio.ensure_future(far.read())
    await asyncio.sleep(0)
    with pytest.raises(wtio.BusyError, match=f"stream {far.stream_id}"):
        await far.readline()
    writing = asyncio.ensure_future(far.write(data=bytes(8 * 1024 * 1024)))
    await asyncio.sleep(0)
    with pytest.raises(wtio.BusyError):
        await far.write(data=b"x")
    writing.cancel()
    await near.write(data=b"done")
    assert await reading == b"done"


@pytest.mark.parametrize(
    "make",
    [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data)), lambda data: array.array("B", data)],
    ids=["bytes", "bytearray", "memoryview", "writable memoryview", "array"],
)
async def test_every_buffer_can_be_written(pair: Pair, make: Callable[[bytes], wtio.Buffer]) -> None:
    near, far = await streams_of(pair)
    data = make(b"some bytes")
    assert isinstance(data, wtio.Buffer)
    await near.write(data=data)
    await near.write_all(data=data, chunk_size=3)
    pair[0].send_datagram(data)
    assert await far.readexactly(n=20) == b"some bytes" * 2
    assert await pair[1].receive_datagram() == b"some bytes"


async def test_wide_items_mmap_and_bad_buffers(pair: Pair) -> None:
    near, far = await streams_of(pair)
    numbers = array.array("I", [1, 2, 3])
    await near.write(data=numbers)
    assert await far.readexactly(n=numbers.itemsize * 3) == numbers.tobytes()
    with mmap.mmap(-1, 100_000) as mapped:
        mapped[:4] = b"mmap"
        await near.write_all(data=mapped, chunk_size=1000)
        assert (await far.readexactly(n=100_000))[:4] == b"mmap"
    with pytest.raises(TypeError, match="encode"):
        await near.write(data="text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="contiguous"):
        await near.write(data=memoryview(b"abcdef")[::2])
    with pytest.raises(TypeError, match="bytes-like"):
        pair[0].send_datagram(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="read-only"):
        await far.readinto(b"abc")
    with pytest.raises(ValueError, match="chunk_size"):
        await near.write_all(data=b"x", chunk_size=0)
    assert not isinstance("text", wtio.Buffer)


async def test_caller_may_change_the_buffer_after_write(pair: Pair) -> None:
    near, far = await streams_of(pair)
    buffer = bytearray(b"a" * 50_000)
    await near.write(data=buffer)
    buffer[:] = b"b" * 50_000
    assert await far.readexactly(n=50_000) == b"a" * 50_000


async def test_reset_stop_and_close_codes(pair: Pair) -> None:
    near, far = await streams_of(pair)
    assert isinstance(near, wtio.WebTransportSendStream)
    assert isinstance(near, wtio.WebTransportReceiveStream)
    assert near.direction is wtio.StreamDirection.BIDIRECTIONAL
    assert not near.is_peer_initiated
    assert far.is_peer_initiated
    assert near.session is pair[0]
    await near.reset(error_code=7)
    await near.reset(error_code=8)  # no second one
    with pytest.raises(wtio.StreamResetError) as reset:
        await far.read()
    assert reset.value.error_code == 7
    with pytest.raises(wtio.StreamClosedError, match="reset by this side"):
        await near.write(data=b"x")
    await near.stop_receiving(error_code=9)
    with pytest.raises(wtio.StreamStoppedError):
        await far.write(data=bytes(64 * 1024 * 1024))
    with pytest.raises(wtio.StreamStoppedError) as stopped:
        await far.write(data=b"x")
    assert stopped.value.error_code == 9
    assert near.is_closed
    assert far.is_closed
    for bad in (near.reset(error_code=2**32), near.stop_receiving(error_code=-1), near.close(error_code=2**32)):
        with pytest.raises(ValueError, match="32 bits"):
            await bad
    diagnostics = far.diagnostics()
    assert diagnostics.receive_reset_code == 7
    assert diagnostics.send_stop_code == 9


async def test_body_that_raises_ends_the_stream_with_the_documented_code(pair: Pair) -> None:
    near, far = await streams_of(pair)
    with pytest.raises(KeyError):
        async with near:
            raise KeyError("body")
    with pytest.raises(wtio.StreamResetError) as caught:
        await far.read()
    assert caught.value.error_code == wtio.BODY_RAISED_CODE


async def test_async_with_and_async_for(pair: Pair) -> None:
    async with await pair[0].create_unidirectional_stream() as stream:
        assert stream.direction is wtio.StreamDirection.SEND_ONLY
        await stream.write(data=b"chunks")
    incoming = await anext(pair[1].incoming_unidirectional_streams())
    assert incoming.direction is wtio.StreamDirection.RECEIVE_ONLY
    assert b"".join([chunk async for chunk in incoming]) == b"chunks"


async def test_dropping_a_stream_resets_it(pair: Pair) -> None:
    near, far = await streams_of(pair)
    del near
    with pytest.raises(wtio.StreamResetError) as caught:
        await far.read()
    assert caught.value.error_code == 0


async def test_datagrams_both_ways(pair: Pair) -> None:
    for sender, receiver in (pair, pair[::-1]):
        for number in range(10):
            sender.send_datagram(bytes([number]))
        received = [(await receiver.receive_datagram())[0] for _ in range(10)]
        assert received == list(range(10))
        sender.send_datagram(b"")
        assert await anext(receiver.incoming_datagrams()) == b""


async def test_session_close_wakes_and_tells(pair: Pair) -> None:
    near, far = await streams_of(pair)
    reading = asyncio.ensure_future(far.read())
    waiting = asyncio.ensure_future(pair[1].receive_datagram())
    await asyncio.sleep(0)
    await pair[0].close(42, "that is it")
    assert await pair[1].wait_closed() == wtio.CloseInfo(42, "that is it", "peer")
    for pending in (reading, waiting):
        with pytest.raises(wtio.SessionClosedError, match="that is it") as caught:
            await pending
        assert (caught.value.code, caught.value.closed_by) == (42, "peer")
    with pytest.raises(wtio.SessionClosedError) as local:
        await near.write(data=b"x")
    assert local.value.closed_by == "local"
    with pytest.raises(wtio.SessionClosedError):
        pair[0].send_datagram(b"x")
    await pair[0].close(1, "too late")
    assert pair[0].close_info == wtio.CloseInfo(42, "that is it", "local")
    assert pair[0].max_datagram_size == 0
    near.diagnostics()
    pair[0].stats()


async def test_keying_material_is_the_same_on_both_sides(pair: Pair) -> None:
    first = pair[0].export_keying_material(b"label", b"context", length=64)
    assert first == pair[1].export_keying_material(b"label", b"context", length=64)
    assert first != pair[1].export_keying_material(b"label", b"other", length=64)
    with pytest.raises(ValueError, match="255"):
        pair[0].export_keying_material(b"x" * 256, length=1)


async def test_handler_that_raises_is_logged_and_closes(
    certificate: wtio.DevCertificate, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        raise KeyError("defect in the handler")

    async with wtio.serve(handler, "localhost", 0, tls=certificate.server_tls()) as server:
        port = server.addresses[0][1]
        session = await wtio.connect(f"https://localhost:{port}", tls=certificate.client_tls())
        assert await session.wait_closed() == wtio.CloseInfo(wtio.BODY_RAISED_CODE, "internal error", "peer")
        await session.close()
    assert "defect in the handler" in caplog.text


async def test_handler_that_ends_with_its_session_is_not_logged(
    certificate: wtio.DevCertificate, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(session.receive_datagram())
            group.create_task(anext_of(session))

    async def anext_of(session: wtio.WebTransportSession) -> None:
        await anext(session.incoming_bidirectional_streams())

    with caplog.at_level(logging.INFO):
        async with wtio.serve(handler, None, 0, tls=certificate.server_tls()) as server:
            port = server.addresses[0][1]
            async with wtio.connect(f"https://127.0.0.1:{port}", tls=certificate.client_tls()):
                pass
            async with wtio.connect(f"https://[::1]:{port}", tls=certificate.client_tls()):
                pass
    assert "wtio" not in {record.name.split(".")[0] for record in but_sessions(caplog.records)}


async def test_rejection_carries_status_and_headers(
    server: wtio.Server, url: str, certificate: wtio.DevCertificate
) -> None:
    async def reject() -> None:
        await (await anext(server)).reject(403, headers=[("x-why", "because")], body=b"no")

    rejecting = asyncio.ensure_future(reject())
    with pytest.raises(wtio.SessionRejectedError, match="status 403") as caught:
        await wtio.connect(url, tls=certificate.client_tls())
    assert caught.value.status == 403
    assert ("x-why", "because") in caught.value.headers
    await rejecting


async def test_origins_and_session_limit(certificate: wtio.DevCertificate) -> None:
    async def handler(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    serving = wtio.serve(
        handler,
        "127.0.0.1",
        0,
        tls=certificate.server_tls(),
        origins=["https://good.example"],
        limits=wtio.Limits(sessions=1),
    )
    async with serving as server:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        tls = certificate.client_tls()
        with pytest.raises(wtio.SessionRejectedError, match="403"):
            await wtio.connect(url, tls=tls, origin="https://bad.example")
        async with wtio.connect(url, tls=tls, origin="https://good.example"):
            with pytest.raises(wtio.SessionRejectedError, match="429"):
                await wtio.connect(url, tls=tls)


async def test_taken_port_is_named(server: wtio.Server, certificate: wtio.DevCertificate) -> None:
    host, port = server.addresses[0]
    with pytest.raises(OSError, match=f"{host} port {port}.*choose another port"):
        await wtio.serve(None, host, port, tls=certificate.server_tls())


async def test_port_is_free_after_close(certificate: wtio.DevCertificate) -> None:
    tls = certificate.server_tls()
    async with wtio.serve(None, "127.0.0.1", 0, tls=tls) as server:
        port = server.addresses[0][1]
    async with wtio.serve(None, "127.0.0.1", port, tls=tls) as server:
        assert server.addresses == [("127.0.0.1", port)]


async def test_several_hosts_share_one_port(certificate: wtio.DevCertificate) -> None:
    async with wtio.serve(None, ["127.0.0.1", "::1"], 0, tls=certificate.server_tls()) as server:
        assert {host for host, _ in server.addresses} == {"127.0.0.1", "::1"}
        assert len({port for _, port in server.addresses}) == 1


async def test_garbage_does_not_disturb_the_server(server: wtio.Server, pair: Pair) -> None:
    host, port = server.addresses[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as garbage:
        for size in (0, 1, 20, 1200, 1500):
            garbage.sendto(b"\xc0" + bytes(size), (host, port))
            garbage.sendto(b"\x40" * size, (host, port))
            garbage.sendto(b"GET / HTTP/1.1\r\n\r\n", (host, port))
    near, far = await streams_of(pair)
    await near.write(data=b"alive", end_stream=True)
    assert await far.read_all() == b"alive"


async def test_connect_can_be_cancelled(certificate: wtio.DevCertificate) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await wtio.connect(url, tls=certificate.client_tls())
        with pytest.raises(wtio.HandshakeTimeout, match=r"0\.2 s"):
            await wtio.connect(url, tls=certificate.client_tls(), timeouts=wtio.Timeouts(connect=0.2))


async def test_body_exception_is_not_masked(server: wtio.Server, url: str, certificate: wtio.DevCertificate) -> None:
    async def client() -> None:
        async with wtio.connect(url, tls=certificate.client_tls()):
            raise KeyError("body")

    task = asyncio.ensure_future(client())
    session = await (await anext(server)).accept()
    with pytest.raises(KeyError):
        await task
    info = await session.wait_closed()
    assert (info.code, info.closed_by) == (wtio.BODY_RAISED_CODE, "peer")
