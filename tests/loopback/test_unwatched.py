"""Loops that cannot watch descriptors, like asyncio's default on Windows: a thread receives, and the loop reads from
the pipe that wakes it.

Linux has no such loop, so these tests take ``add_reader`` away from one. ``tests/conftest.py`` has the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from typing import TYPE_CHECKING

import wtio
from wtio._driver.pipe import PipeReader, can_watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    import pytest

CONTENT = bytes(range(256)) * 4096


class Unwatched(asyncio.SelectorEventLoop):
    """A loop without ``add_reader`` and ``add_writer``. Its own ``sock_recv`` does not use them."""

    add_reader = asyncio.AbstractEventLoop.add_reader
    add_writer = asyncio.AbstractEventLoop.add_writer


def run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=Unwatched) as runner:
        runner.run(main())


@contextlib.asynccontextmanager
async def session(certificate: wtio.DevCertificate) -> AsyncIterator[tuple[wtio.WebTransportSession, wtio.Server]]:
    async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls()) as server:

        async def answer() -> None:
            accepted = await (await anext(server)).accept()
            accepted.send_datagram(await accepted.receive_datagram())
            with contextlib.suppress(wtio.SessionClosed):
                async for stream in accepted.incoming_bidirectional_streams():
                    await stream.write(data=await stream.read_all(), end_stream=True)

        answering = asyncio.create_task(answer())
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        async with wtio.connect(url, tls=certificate.client_tls()) as session:
            yield session, server
        await answering


async def echo(session: wtio.WebTransportSession) -> bytes:
    stream = await session.create_bidirectional_stream()
    await stream.write(data=CONTENT, end_stream=True)
    return await stream.read_all()


def test_streams_and_datagrams_pass(certificate: wtio.DevCertificate) -> None:
    async def main() -> None:
        assert not can_watch(asyncio.get_running_loop())
        async with session(certificate) as (client, server):
            client.send_datagram(b"hello")
            assert await client.receive_datagram() == b"hello"
            for _ in range(4):
                assert await echo(client) == CONTENT
            # Whatever the loop does, a thread receives, so it is never late.
            assert server.loop_late_total == 0

    run(main)


def test_no_task_reads_that_could_be_cancelled(certificate: wtio.DevCertificate) -> None:
    async def main() -> None:
        async with session(certificate) as (client, _):
            client.send_datagram(b"hello")
            await client.receive_datagram()
            names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
            assert not [name for name in names if "recv" in name]
            assert await echo(client) == CONTENT

    run(main)


def test_a_loop_may_be_closed_before_what_it_drove(certificate: wtio.DevCertificate) -> None:
    left = []

    async def main() -> None:
        left.append(await wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls()))

    run(main)
    # No ResourceWarning: the pipe is closed.
    left.clear()
    gc.collect()


# -- the reader by itself


@contextlib.contextmanager
def pipe() -> Iterator[tuple[asyncio.AbstractEventLoop, socket.socket, list[object], PipeReader]]:
    """A reader, the far end of its pipe, and what it has said."""
    loop = Unwatched()
    near, far = socket.socketpair()
    said: list[object] = []
    reader = PipeReader(loop, near.detach(), woken=lambda: said.append("woken"), failed=said.append)
    try:
        yield loop, far, said, reader
    finally:
        reader.close()
        far.close()
        loop.close()


def turn(loop: asyncio.AbstractEventLoop, said: list[object], count: int) -> None:
    """Run until that much was said."""

    async def wait() -> None:
        async with asyncio.timeout(20):
            while len(said) < count:  # noqa: ASYNC110
                await asyncio.sleep(0)

    loop.run_until_complete(wait())


def test_each_wake_up_is_heard_once() -> None:
    with pipe() as (loop, far, said, _):
        for count in range(1, 4):
            far.send(b"\1")
            turn(loop, said, count)
            loop.run_until_complete(asyncio.sleep(0))
        assert said == ["woken"] * 3


def test_a_wake_up_before_the_first_read_is_heard_later() -> None:
    loop = Unwatched()
    near, far = socket.socketpair()
    far.send(b"\1")
    said: list[object] = []
    reader = PipeReader(loop, near.detach(), woken=lambda: said.append("woken"), failed=said.append)
    assert said == []
    turn(loop, said, 1)
    reader.close()
    far.close()
    loop.close()


def test_an_error_of_the_callback_ends_nothing() -> None:
    loop = Unwatched()
    near, far = socket.socketpair()
    said: list[object] = []
    loop.set_exception_handler(lambda _, context: said.append(type(context["exception"])))

    def fail() -> None:
        raise ZeroDivisionError

    reader = PipeReader(loop, near.detach(), woken=fail, failed=said.append)
    for count in (1, 2):
        far.send(b"\1")
        turn(loop, said, count)
    assert said == [ZeroDivisionError, ZeroDivisionError]
    reader.close()
    far.close()
    loop.close()


def test_a_pipe_that_fails_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_sock: socket.socket, _count: int) -> bytes:
        raise OSError("no more")

    with pipe() as (loop, far, said, reader):
        monkeypatch.setattr(loop, "sock_recv", refuse)
        far.send(b"\1")
        turn(loop, said, 2)
        assert said[0] == "woken"
        assert str(said[1]) == "no more"
        reader.close()


def test_a_closed_reader_hears_nothing_and_has_closed_its_end() -> None:
    with pipe() as (loop, far, said, reader):
        far.send(b"\1")
        reader.close()
        reader.close()
        # Not while the loop still watches it: on Windows it would ask the system about a socket that is closed.
        assert reader._socket.fileno() != -1
        loop.run_until_complete(asyncio.sleep(0))
        assert reader._socket.fileno() == -1
        assert said == []
