"""Another event loop, another thread: calls that change something or wait raise at once, calls that only look work."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

import wtio
from wtio.session import IncomingDatagrams, IncomingStreams


@dataclass
class World:
    """One of everything, alive on its loop."""

    client: wtio.Client
    server: wtio.Server
    iterating: wtio.Server
    request: wtio.SessionRequest
    session: wtio.WebTransportSession
    stream: wtio.WebTransportStream
    send: wtio.WebTransportSendStream
    receive: wtio.WebTransportReceiveStream
    url: str


async def closing(manager: Any) -> None:
    await manager.__aexit__(None, None, None)


async def next_of(iterator: Any) -> None:
    await anext(aiter(iterator))


async def connecting(world: World) -> None:
    await world.client.connect(world.url)


async def starting(server: wtio.Server) -> None:
    await server


def ordered(stream: wtio.WebTransportSendStream) -> None:
    stream.send_order = 3


Use = Callable[[World], Any]

REFUSED: dict[tuple[type, str], Use] = {
    (wtio.Client, "connect"): connecting,
    (wtio.Client, "close"): lambda world: world.client.close(),
    (wtio.Client, "__aexit__"): lambda world: closing(world.client),
    (wtio.Server, "close"): lambda world: world.server.close(),
    (wtio.Server, "abort"): lambda world: world.server.abort(),
    (wtio.Server, "reload"): lambda world: world.server.reload(),
    (wtio.Server, "wait_closed"): lambda world: world.server.wait_closed(),
    (wtio.Server, "__await__"): lambda world: starting(world.server),
    (wtio.Server, "__aenter__"): lambda world: world.server.__aenter__(),
    (wtio.Server, "__aexit__"): lambda world: closing(world.server),
    (wtio.Server, "__anext__"): lambda world: next_of(world.iterating),
    (wtio.SessionRequest, "accept"): lambda world: world.request.accept(),
    (wtio.SessionRequest, "serve"): lambda world: world.request.serve(silent),
    (wtio.SessionRequest, "reject"): lambda world: world.request.reject(),
    (wtio.WebTransportSession, "abort"): lambda world: world.session.abort(),
    (wtio.WebTransportSession, "close"): lambda world: world.session.close(),
    (wtio.WebTransportSession, "__aexit__"): lambda world: closing(world.session),
    (wtio.WebTransportSession, "create_bidirectional_stream"): (
        lambda world: world.session.create_bidirectional_stream()
    ),
    (wtio.WebTransportSession, "create_unidirectional_stream"): (
        lambda world: world.session.create_unidirectional_stream()
    ),
    (wtio.WebTransportSession, "drain"): lambda world: world.session.drain(),
    (wtio.WebTransportSession, "receive_datagram"): lambda world: world.session.receive_datagram(),
    (wtio.WebTransportSession, "send_datagram"): lambda world: world.session.send_datagram(b"x"),
    (wtio.WebTransportSession, "serve_streams"): lambda world: world.session.serve_streams(datagrams=print),
    (wtio.WebTransportSession, "start_qlog"): lambda world: world.session.start_qlog("elsewhere.sqlog"),
    (wtio.WebTransportSession, "stop_qlog"): lambda world: world.session.stop_qlog(),
    (wtio.WebTransportSession, "wait_closed"): lambda world: world.session.wait_closed(),
    (wtio.WebTransportSession, "wait_draining"): lambda world: world.session.wait_draining(),
    (IncomingStreams, "__anext__"): lambda world: next_of(world.session.incoming_bidirectional_streams()),
    (IncomingDatagrams, "__anext__"): lambda world: next_of(world.session.incoming_datagrams()),
    (wtio.WebTransportStream, "close"): lambda world: world.stream.close(),
    (wtio.WebTransportStream, "__aexit__"): lambda world: closing(world.stream),
    (wtio.WebTransportStream, "read"): lambda world: world.stream.read(),
    (wtio.WebTransportReceiveStream, "__aexit__"): lambda world: closing(world.receive),
    (wtio.WebTransportReceiveStream, "__anext__"): lambda world: next_of(world.receive),
    (wtio.WebTransportReceiveStream, "close"): lambda world: world.receive.close(),
    (wtio.WebTransportReceiveStream, "read"): lambda world: world.receive.read(),
    (wtio.WebTransportReceiveStream, "read_all"): lambda world: world.receive.read_all(),
    (wtio.WebTransportReceiveStream, "readexactly"): lambda world: world.receive.readexactly(n=1),
    (wtio.WebTransportReceiveStream, "readinto"): lambda world: world.receive.readinto(bytearray(4)),
    (wtio.WebTransportReceiveStream, "readline"): lambda world: world.receive.readline(),
    (wtio.WebTransportReceiveStream, "readuntil"): lambda world: world.receive.readuntil(separator=b"x"),
    (wtio.WebTransportReceiveStream, "stop_receiving"): lambda world: world.receive.stop_receiving(),
    (wtio.WebTransportSendStream, "__aexit__"): lambda world: closing(world.send),
    (wtio.WebTransportSendStream, "close"): lambda world: world.send.close(),
    (wtio.WebTransportSendStream, "reset"): lambda world: world.send.reset(),
    (wtio.WebTransportSendStream, "send_order"): lambda world: ordered(world.send),
    (wtio.WebTransportSendStream, "wait_acked"): lambda world: world.send.wait_acked(),
    (wtio.WebTransportSendStream, "wait_stopped"): lambda world: world.send.wait_stopped(),
    (wtio.WebTransportSendStream, "write"): lambda world: world.send.write(data=b"x"),
    (wtio.WebTransportSendStream, "write_all"): lambda world: world.send.write_all(data=b"x"),
}

# What only looks, or makes an object that belongs nowhere yet.
ALLOWED: dict[type, tuple[str, ...]] = {
    wtio.Client: ("connections", "is_closed", "__aenter__"),
    wtio.Server: (
        "addresses", "is_closing", "limits", "loop_late_total", "memory", "protocols", "sessions", "stats", "timeouts",
        "tls", "__aiter__",
    ),
    wtio.SessionRequest: (
        "authority", "cookies", "dialect", "headers", "is_accepted", "is_answered", "origin", "path",
        "peer_certificate", "peer_certificates", "protocol_token", "protocols", "query", "remote_address",
        "server_name", "state",
    ),
    wtio.WebTransportSession: (
        "authority", "close_info", "cookies", "dialect", "facts", "is_client", "is_closed", "is_draining", "limits",
        "max_datagram_size", "origin", "path", "peer_certificate", "peer_certificates", "protocol",
        "protocol_token", "query", "remote_address", "report", "request_headers", "response_headers",
        "log_id", "session_id", "state", "stats", "export_keying_material",
        "incoming_bidirectional_streams", "incoming_unidirectional_streams", "incoming_datagrams", "__aenter__",
    ),
    IncomingStreams: ("__aiter__", "__len__"),
    IncomingDatagrams: ("__aiter__",),
    wtio.WebTransportReceiveStream: (
        "body_raised_code", "can_read", "direction", "diagnostics", "is_closed", "is_peer_initiated",
        "last_write_accepted", "session", "stream_id", "__aenter__", "__aiter__",
    ),
    wtio.WebTransportSendStream: (
        "body_raised_code", "can_write", "direction", "diagnostics", "is_closed", "is_peer_initiated",
        "last_write_accepted", "session", "stream_id", "__aenter__",
    ),
    wtio.WebTransportStream: (
        "body_raised_code", "can_read", "can_write", "direction", "diagnostics", "is_closed", "is_peer_initiated",
        "last_write_accepted", "session", "stream_id", "__aenter__", "__aiter__",
    ),
}  # fmt: skip

PROTOCOL = ("__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__", "__len__")


def test_the_tables_name_every_public_method() -> None:
    refused = {kind: {name for cls, name in REFUSED if cls is kind} for kind in ALLOWED}
    # A stream of both directions is one of each.
    inherited = refused[wtio.WebTransportReceiveStream] | refused[wtio.WebTransportSendStream]
    refused[wtio.WebTransportStream] |= inherited
    for kind, allowed in ALLOWED.items():
        public = {name for name in dir(kind) if not name.startswith("_") or name in PROTOCOL}
        assert public == refused[kind] | set(allowed), kind


async def silent(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def says_hello(session: wtio.WebTransportSession) -> None:
    stream = await session.create_unidirectional_stream()
    await stream.write(data=b"hello\n")
    await session.wait_closed()


async def make_world(certificate: wtio.DevCertificate) -> World:
    server = await wtio.serve(says_hello, "127.0.0.1", 0, tls=certificate.server_tls())
    iterating = await wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls())
    client = wtio.Client(tls=certificate.client_tls())
    url = f"https://127.0.0.1:{server.addresses[0][1]}/"
    session = await client.connect(url)
    asking = asyncio.ensure_future(_connect(client, f"https://127.0.0.1:{iterating.addresses[0][1]}/"))
    request = await anext(iterating)
    asking.cancel()
    await asyncio.wait([asking])
    return World(
        client=client,
        server=server,
        iterating=iterating,
        request=request,
        session=session,
        stream=await session.create_bidirectional_stream(),
        send=await session.create_unidirectional_stream(),
        receive=await anext(session.incoming_unidirectional_streams()),
        url=url,
    )


async def _connect(client: wtio.Client, url: str) -> None:
    async with client.connect(url):
        pass


async def end_world(world: World) -> None:
    await world.client.close()
    await world.server.close()
    await world.iterating.close()


def raised(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def used_on_a_loop(use: Use, world: World) -> BaseException | None:
    """What a use raises on a loop of its own."""

    async def on_a_loop() -> None:
        result = use(world)
        if inspect.isawaitable(result):
            await asyncio.wait_for(result, 5)

    return raised(lambda: asyncio.run(on_a_loop()))


def used_without_a_loop(use: Use, world: World) -> BaseException | None:
    """What a use raises where no loop runs, up to where it would wait."""

    def without_a_loop() -> None:
        result = use(world)
        if isinstance(result, Coroutine):
            try:
                result.send(None)
            finally:
                result.close()

    return raised(without_a_loop)


async def test_on_another_thread_whatever_changes_something_or_waits_is_refused(
    certificate: wtio.DevCertificate,
) -> None:
    world = await make_world(certificate)
    for (kind, name), use in REFUSED.items():
        on_a_loop = await asyncio.to_thread(used_on_a_loop, use, world)
        without_a_loop = await asyncio.to_thread(used_without_a_loop, use, world)
        what = f"{kind.__name__}.{name}"
        assert type(on_a_loop) is RuntimeError, (what, on_a_loop)
        assert "call_soon_threadsafe" in str(on_a_loop), (what, on_a_loop)
        assert "run_coroutine_threadsafe" in str(on_a_loop), (what, on_a_loop)
        assert type(without_a_loop) is RuntimeError, (what, without_a_loop)
    # Nothing of it has left a trace.
    assert world.receive.can_read
    assert await world.receive.readline() == b"hello\n"
    assert world.stream.can_read
    assert world.stream.can_write
    assert world.send.send_order == 0
    assert world.send.can_write
    assert not world.session.is_closed
    assert not world.request.is_answered
    await world.send.write(data=b"x")
    await end_world(world)


async def test_whatever_only_looks_may_be_called_on_any_thread(certificate: wtio.DevCertificate) -> None:
    world = await make_world(certificate)
    objects: dict[type, Any] = {
        wtio.Client: world.client,
        wtio.Server: world.server,
        wtio.SessionRequest: world.request,
        wtio.WebTransportSession: world.session,
        IncomingStreams: world.session.incoming_bidirectional_streams(),
        IncomingDatagrams: world.session.incoming_datagrams(),
        wtio.WebTransportReceiveStream: world.receive,
        wtio.WebTransportSendStream: world.send,
        wtio.WebTransportStream: world.stream,
    }

    def look() -> None:
        for kind, names in ALLOWED.items():
            for name in names:
                value = getattr(objects[kind], name)
                if name == "export_keying_material":
                    assert len(value(b"label", length=16)) == 16
                elif callable(value) and name != "__aenter__":
                    value()
            repr(objects[kind])

    await asyncio.to_thread(look)
    await end_world(world)


async def test_a_reset_of_a_stream_that_another_thread_lets_go_of_arrives(certificate: wtio.DevCertificate) -> None:
    arrived: asyncio.Queue[wtio.WebTransportStream] = asyncio.Queue()

    async def collect(session: wtio.WebTransportSession) -> None:
        async for stream in session.incoming_bidirectional_streams():
            arrived.put_nowait(stream)

    async with (
        wtio.serve(collect, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.connect(
            f"https://127.0.0.1:{server.addresses[0][1]}/",
            tls=certificate.client_tls(),
            # Nothing else makes the client send.
            timeouts=wtio.Timeouts(keep_alive=None),
        ) as session,
    ):
        for _ in range(5):
            held = [await session.create_bidirectional_stream()]
            await held[0].write(data=b"x")
            theirs = await arrived.get()
            assert await theirs.readexactly(n=1) == b"x"
            # By then the loop sleeps.
            dropper = threading.Timer(0.05, held.clear)
            dropper.start()
            with pytest.raises(wtio.StreamResetError):
                await theirs.read()
            dropper.join()


def test_what_belongs_to_another_loop_of_the_same_thread_is_refused(certificate: wtio.DevCertificate) -> None:
    loop = asyncio.SelectorEventLoop()
    world = loop.run_until_complete(make_world(certificate))
    for (kind, name), use in REFUSED.items():
        error = used_on_a_loop(use, world)
        assert type(error) is RuntimeError, (kind, name, error)
        assert "belongs to another event loop" in str(error), (kind, name, error)
    # Where no loop runs, its own may run again.
    world.session.send_datagram(b"x")
    assert not world.session.is_closed
    loop.run_until_complete(end_world(world))
    loop.close()
    for (kind, name), use in REFUSED.items():
        # A closed client says so itself, and so do sessions and streams that have ended.
        if kind in (wtio.Client, wtio.Server) and name != "connect":
            error = used_on_a_loop(use, world)
            assert type(error) is RuntimeError, (kind, name, error)
            assert "belongs to an event loop that is closed" in str(error), (kind, name, error)


def test_nothing_is_sent_once_the_loop_is_closed(certificate: wtio.DevCertificate) -> None:
    loop = asyncio.SelectorEventLoop()
    server = wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls())

    async def both() -> list[wtio.WebTransportSession]:
        await server
        connecting = asyncio.ensure_future(_opened(f"https://127.0.0.1:{server.addresses[0][1]}/", certificate))
        await (await anext(server)).accept()
        return [await connecting]

    held = loop.run_until_complete(both())
    loop.close()
    with pytest.raises(RuntimeError, match="event loop that is closed"):
        held[0].send_datagram(b"x")
    assert not held[0].is_closed
    with pytest.warns(ResourceWarning, match="unclosed"):
        held.clear()


async def _opened(url: str, certificate: wtio.DevCertificate) -> wtio.WebTransportSession:
    return await wtio.connect(url, tls=certificate.client_tls())


def test_a_client_serves_the_loop_of_its_first_session_and_no_other(certificate: wtio.DevCertificate) -> None:
    client = wtio.Client(tls=certificate.client_tls())
    server = wtio.serve(silent, "127.0.0.1", 0, tls=certificate.server_tls())
    own = asyncio.SelectorEventLoop()

    async def url() -> str:
        await server
        return f"https://127.0.0.1:{server.addresses[0][1]}/"

    where = own.run_until_complete(url())
    own.run_until_complete(_connect(client, where))
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(_connect(client, where))
    # Its own loop goes on, on whatever thread that runs.
    runner = threading.Thread(target=own.run_forever)
    runner.start()
    try:
        for coroutine in (_connect(client, where), client.close(), server.close()):
            asyncio.run_coroutine_threadsafe(coroutine, own).result(20)
    finally:
        own.call_soon_threadsafe(own.stop)
        runner.join()
        own.close()
