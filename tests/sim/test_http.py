"""Ordinary HTTP/3 requests on the WebTransport port: the hook, bodies both ways, and how each of them ends."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.support.http3 import HttpClient, Request, begin, data_frame, headers_frame

import wtio
from wtio import testing
from wtio._connection.client import ClientConnection
from wtio._connection.http import Body, Exchange
from wtio._connection.server import ServerConnection
from wtio.protocol.codes import ErrorCodes
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from wtio._http_service import HttpHook

pytestmark = pytest.mark.unaudited("its clients are raw ones, which keep streams")

OK = wtio.HttpResponse(status=200)
KIB = 1024


def run(main: Callable[[Network], Coroutine[Any, Any, None]]) -> None:
    testing.run(main(Network()))


async def hold(seconds: float = 3600) -> None:
    await asyncio.sleep(seconds)


# -- hooks


def _greet(request: wtio.HttpRequest) -> wtio.HttpResponse | None:
    if request.path != "/health?x=1":
        return None
    assert request.method in ("GET", "HEAD")
    assert ("x-a", "b") in request.headers
    assert request.authority == "localhost"
    assert request.scheme == "https"
    return wtio.HttpResponse(status=200, headers={"Content-Type": "text/plain"}, body=b"fine" * 100_000)


async def _greet_later(request: wtio.HttpRequest) -> wtio.HttpResponse | None:
    await asyncio.sleep(1)
    return _greet(request)


def _fail(request: wtio.HttpRequest) -> wtio.HttpResponse:
    raise KeyError(request.path)


def _nonsense(_: wtio.HttpRequest) -> wtio.HttpResponse:
    return wtio.HttpResponse(status=99)


@pytest.mark.parametrize(
    ("hook", "path", "status"),
    [
        (None, "/", 405),
        (_greet, "/elsewhere", 405),
        (_greet, "/health?x=1", 200),
        (_greet_later, "/elsewhere", 405),
        (_greet_later, "/health?x=1", 200),
        (_fail, "/", 500),
        (_nonsense, "/", 500),
    ],
)
def test_hook_answers_ordinary_requests(hook: HttpHook | None, path: str, status: int) -> None:
    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            answer = await client.get(path, ("x-a", "b"))
            assert answer.status == status
            if status == 405:
                assert answer.headers["allow"] == "CONNECT"
            if status == 200:
                assert answer.headers["content-type"] == "text/plain"
                assert answer.body == b"fine" * 100_000
                assert answer.headers["content-length"] == str(len(answer.body))

    run(main)


def _later(result: object) -> Any:
    async def hook(_: wtio.HttpRequest) -> object:
        return result

    return hook


def _changed() -> wtio.HttpResponse:
    headers = {"a": "b"}
    response = wtio.HttpResponse(status=200, headers=headers)
    headers["a"] = "b\n"
    return response


async def _raises(_: wtio.HttpRequest) -> wtio.HttpResponse:
    raise ValueError("of the hook")


async def _cancels_itself(_: wtio.HttpRequest) -> wtio.HttpResponse:
    raise asyncio.CancelledError


def _bad_status(_: wtio.HttpRequest) -> wtio.HttpResponse:
    return wtio.HttpResponse(status=101)


class _Endless:
    def __iter__(self) -> Iterator[bytes]:
        raise OSError("no such file")


@pytest.mark.parametrize(
    "hook",
    [
        lambda request: "hello",
        lambda request: asyncio.sleep(0, "hello"),
        _later(b"hello"),
        _later((200, {}, b"")),
        _bad_status,
        _raises,
        _cancels_itself,
        lambda request: _changed(),
        lambda request: wtio.HttpResponse(status=200, headers={"a": "x" * 200_000}),
        lambda request: wtio.HttpResponse(status=200, headers={"content-length": "5"}, body=b"four"),
        lambda request: wtio.HttpResponse(status=200, body=["text"]),  # type: ignore[list-item]
        lambda request: wtio.HttpResponse(status=200, body=iter([1, 2])),  # type: ignore[arg-type]
        lambda request: wtio.HttpResponse(status=200, body=_Endless()),
    ],
)
def test_whatever_a_hook_returns_or_raises_is_500_and_leaves_the_connection_alone(hook: Any) -> None:
    async def main(network: Network) -> None:
        async def handler(session: wtio.WebTransportSession) -> None:
            await session.wait_closed()

        async with network.serve(handler, http=hook), HttpClient(network) as client:
            for _ in range(2):
                answer = await client.get()
                assert (answer.status, bytes(answer.body), answer.has_ended) == (500, b"", True)
            assert not client.connection.is_lost

    run(main)


def test_a_hook_does_not_end_the_session_on_its_connection() -> None:
    async def main(network: Network) -> None:
        async def hook(request: wtio.HttpRequest) -> None:
            return None

        async def echo(session: wtio.WebTransportSession) -> None:
            async for stream in session.incoming_bidirectional_streams():
                await stream.write(data=await stream.read_all(), end_stream=True)

        async with network.serve(echo, http=hook), network.connect() as session:
            assert isinstance(session._link, ClientConnection)
            request = begin(session._link)
            fields = ((":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/"))
            await request.send(headers_frame(*fields), end=True)
            await request.answer()
            assert request.status == 405
            mine = await session.create_bidirectional_stream()
            await mine.write(data=b"still here", end_stream=True)
            assert await mine.read_all() == b"still here"

    run(main)


def test_connect_without_a_protocol_is_not_for_the_hook() -> None:
    async def main(network: Network) -> None:
        async with network.serve(http=lambda _: OK), HttpClient(network) as client:
            request = client.stream()
            await request.send(headers_frame((":method", "CONNECT"), (":authority", "localhost:80")))
            await request.answer()
            assert request.status == 501

    run(main)


# -- bodies of requests


async def _size(request: wtio.HttpRequest) -> wtio.HttpResponse:
    body = await request.body()
    assert await request.body() == body
    assert [piece async for piece in request.stream()] == []
    return wtio.HttpResponse(status=200, body=str(len(body)).encode())


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("size", [0, 1, 70_000, 1024 * KIB])
def test_a_body_is_read_whole(size: int, announced: bool) -> None:
    async def main(network: Network) -> None:
        async with network.serve(http=_size), HttpClient(network) as client:
            fields = [("content-length", str(size))] if announced else []
            request = await client.ask("POST", "/", *fields, end=False)
            await request.send(data_frame(bytes(size)) if size else b"", end=True)
            await request.answer()
            assert (request.status, bytes(request.body)) == (200, str(size).encode())
            assert request.stop_code is None

    run(main)


def test_trailers_are_dropped() -> None:
    async def main(network: Network) -> None:
        async with network.serve(http=_size), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            await request.send(data_frame(b"abc") + headers_frame(("checksum", "1")), end=True)
            await request.answer()
            assert (request.status, bytes(request.body)) == (200, b"3")

    run(main)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_above_the_limit_is_413_and_the_client_told_to_stop(announced: bool) -> None:
    read: list[object] = []

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        try:
            await request.body()
        except wtio.ContentTooLargeError as error:
            read.append((error.limit, error.size))
            raise
        return OK

    async def main(network: Network) -> None:
        limits = wtio.Limits(http_body=100_000)
        async with network.serve(http=hook, limits=limits), HttpClient(network) as client:
            fields = [("content-length", "100001")] if announced else []
            request = await client.ask("POST", "/", *fields, end=False)
            await request.send_body(bytes(100_001))
            await request.answer()
            assert (request.status, request.stop_code) == (413, ErrorCodes.H3_NO_ERROR)
            assert read == [(100_000, 100_001 if announced else None)]

    run(main)


def test_what_has_arrived_of_a_body_above_the_limit_is_kept() -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        with pytest.raises(wtio.ContentTooLargeError, match="limit"):
            await request.body(limit=10)
        assert await anext(request.stream())
        return wtio.HttpResponse(status=200, body=await request.body(limit=50_000))

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            await request.send_body(b"head")
            await asyncio.sleep(1)
            await request.send_body(b"x" * 40_000, end=True)
            await request.answer()
            assert (request.status, bytes(request.body)) == (200, b"x" * 40_000)

    run(main)


def test_a_cancelled_read_loses_nothing() -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        pieces = request.stream()
        got = b""
        for _ in range(100):
            try:
                async with asyncio.timeout(0.03):
                    got += await anext(pieces)
            except TimeoutError:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await request.body()
            except StopAsyncIteration:
                break
        return wtio.HttpResponse(status=200, body=got)

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            for number in range(20):
                await request.send_body(b"%02d," % number)
                await asyncio.sleep(0.05)
            await request.send(b"", end=True)
            await request.answer()
            assert bytes(request.body) == b"".join(b"%02d," % number for number in range(20))

    run(main)


def test_two_readers_of_a_body_are_one_too_many() -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        reading = asyncio.create_task(request.body())
        await asyncio.sleep(0)
        with pytest.raises(wtio.BusyError):
            await anext(request.stream())
        return wtio.HttpResponse(status=200, body=await reading)

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            await asyncio.sleep(1)
            await request.send_body(b"one", end=True)
            await request.answer()
            assert bytes(request.body) == b"one"

    run(main)


def test_an_upload_that_nobody_reads_waits_at_its_client() -> None:
    """What is read ahead of the hook is two pieces at most, and what the client may send one window."""
    window, total = 64 * KIB, 4 * KIB * KIB
    ahead: list[int] = []

    async def main(network: Network) -> None:
        upload: Request | None = None

        async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
            taken = 0
            assert upload is not None
            await asyncio.sleep(5)
            ahead.append(upload.core.stats().bytes_acknowledged)
            async for piece in request.stream():
                taken += len(piece)
                if taken % (512 * KIB) < len(piece):
                    await asyncio.sleep(1)
                    ahead.append(upload.core.stats().bytes_acknowledged - taken)
            return wtio.HttpResponse(status=200, body=str(taken).encode())

        async with (
            network.serve(http=hook, limits=wtio.Limits(stream_receive_window=window)),
            HttpClient(network) as client,
        ):
            upload = await client.ask("PUT", "/", ("content-length", str(total)), end=False)
            await upload.send_body(bytes(total), end=True)
            await upload.answer()
            assert (upload.status, bytes(upload.body)) == (200, str(total).encode())

    run(main)
    assert len(ahead) > 8
    assert max(ahead) <= window + 128 * KIB + 1000


def test_a_client_that_sends_nothing_more_is_408() -> None:
    async def main(network: Network) -> None:
        timeouts = wtio.Timeouts(http_body=5)
        async with network.serve(http=_size, timeouts=timeouts), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            started = asyncio.get_running_loop().time()
            for _ in range(3):
                await request.send_body(b"x" * 100)
                await asyncio.sleep(4)
            await request.answer()
            assert request.status == 408
            assert 12 < asyncio.get_running_loop().time() - started < 14
            assert request.stop_code == ErrorCodes.H3_NO_ERROR

    run(main)


@pytest.mark.parametrize("hook", [None, _size])
def test_a_head_that_takes_too_long_is_408(hook: HttpHook | None) -> None:
    async def main(network: Network) -> None:
        async with network.serve(http=hook, timeouts=wtio.Timeouts(http_head=3)), HttpClient(network) as client:
            head = headers_frame((":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/"))
            slow, late = client.stream(), client.stream()
            await slow.send(head[:5])
            await late.send(head[:5])
            await asyncio.sleep(2)
            await late.send(head[5:], end=True)
            await slow.send(head[5:6])
            await late.answer()
            await slow.answer()
            assert (slow.status, slow.stop_code) == (408, ErrorCodes.H3_NO_ERROR)
            assert late.status == (405 if hook is None else 200)

    run(main)


@pytest.mark.parametrize("sent", [b"longer", b"shrt"])
def test_a_body_that_is_not_as_long_as_announced_is_malformed(sent: bytes) -> None:
    ends: list[str] = []

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        try:
            await request.body()
        except BaseException as error:
            ends.append(type(error).__name__)
            raise
        return OK

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/", ("content-length", "5"), end=False)
            await asyncio.sleep(1)
            await request.send_body(sent, end=True)
            await request.answer()
            assert (request.reset_code, request.headers) == (ErrorCodes.H3_MESSAGE_ERROR, {})
            assert (await client.get("/", ("content-length", "0"))).status == 200

    run(main)
    assert ends == ["ClientGoneError"]


def test_an_early_answer_tells_the_client_to_send_no_more() -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        return wtio.HttpResponse(status=401, body=b"who are you?")

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            assert not await request.send_body(bytes(16 * KIB * KIB))
            await request.answer()
            assert (request.status, bytes(request.body), request.has_ended) == (401, b"who are you?", True)
            assert request.stop_code == ErrorCodes.H3_NO_ERROR
            assert (await client.get()).status == 401

    run(main)


def test_a_body_cannot_be_read_after_the_answer() -> None:
    kept: list[wtio.HttpRequest] = []

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        kept.append(request)
        return OK

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            await request.answer()
            with pytest.raises(wtio.LocalProtocolError, match="has been answered"):
                await kept[0].body()

    run(main)


# -- bodies of answers


async def _pieces(count: int = 3, size: int = 5) -> AsyncIterator[bytes]:
    for number in range(count):
        await asyncio.sleep(0.1)
        yield b"%d" % (number % 10) * size


@pytest.mark.parametrize(
    "make",
    [
        lambda: _pieces(),
        lambda: [b"00000", bytearray(b"11111"), memoryview(b"22222")],
        lambda: (piece for piece in (b"00000", b"", b"1111122222")),
        lambda: {b"000001111122222": 1},
    ],
)
def test_an_answer_may_come_in_pieces(make: Callable[[], Any]) -> None:
    async def main(network: Network) -> None:
        def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, body=make())

        async with network.serve(http=hook), HttpClient(network) as client:
            answer = await client.get()
            assert (answer.status, bytes(answer.body), answer.has_ended) == (200, b"000001111122222", True)
            assert "content-length" not in answer.headers

    run(main)


def test_a_request_can_be_echoed_while_it_arrives() -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        return wtio.HttpResponse(status=200, body=request.stream())

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            await request.head()
            assert request.status == 200
            for number in range(5):
                await request.send_body(b"%d" % number * 1000)
                while len(request.body) < (number + 1) * 1000:
                    assert await request.read()
            await request.send(b"", end=True)
            await request.answer()
            assert bytes(request.body) == b"".join(b"%d" % number * 1000 for number in range(5))

    run(main)


def test_a_frame_whose_head_comes_alone_does_not_end_the_body() -> None:
    """The body would end early, and what follows would be lost without a word."""
    got: list[bytes] = []

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        got.extend([piece async for piece in request.stream()])
        return wtio.HttpResponse(status=200)

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            for data in (b"one", b"", b"two"):
                frame = data_frame(data)
                await request.send(frame[:2])
                await asyncio.sleep(1)
                await request.send(frame[2:], end=data == b"two")
            await request.answer()
            assert request.status == 200

    run(main)
    assert got == [b"one", b"two"]


def test_a_download_waits_for_a_slow_client() -> None:
    """Ahead of the client are the queue for one stream, one piece, and what the client itself lets in."""
    piece, total, window = 64 * KIB, 8 * KIB * KIB, 64 * KIB
    ahead: list[int] = []
    made = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal made
        while made < total:
            made += piece
            yield bytes(piece)

    async def main(network: Network) -> None:
        limits = wtio.Limits(stream_send_buffer=128 * KIB)

        def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, headers={"content-length": str(total)}, body=body())

        async with (
            network.serve(http=hook, limits=limits),
            HttpClient(network, limits=wtio.Limits(stream_receive_window=window)) as client,
        ):
            request = await client.ask("GET", "/")
            await asyncio.sleep(5)
            while await request.read(48 * KIB):
                if len(request.body) % (512 * KIB) < 48 * KIB:
                    await asyncio.sleep(1)
                ahead.append(made - len(request.body))
            assert (request.status, len(request.body), request.has_ended) == (200, total, True)

    run(main)
    assert max(ahead) <= 128 * KIB + 2 * piece + 2 * window


def test_a_large_body_of_bytes_is_sent_as_the_client_takes_it() -> None:
    content = bytes(range(256)) * (4 * KIB * 8)

    async def main(network: Network) -> None:
        async with (
            network.serve(http=lambda _: wtio.HttpResponse(status=200, body=content)) as server,
            HttpClient(network, limits=wtio.Limits(stream_receive_window=64 * KIB)) as client,
        ):
            request = await client.ask("GET", "/")
            await asyncio.sleep(5)
            (connection,) = server._service.connections
            pending = connection._raw._pending
            assert pending is not None
            assert sum(len(one.data) for one in pending.values()) <= 65 * KIB
            await request.answer()
            assert request.body == content

    run(main)


@pytest.mark.parametrize(
    ("method", "response", "length"),
    [
        ("HEAD", lambda: wtio.HttpResponse(status=200, body=b"hello"), "5"),
        ("HEAD", lambda: wtio.HttpResponse(status=200), None),
        ("HEAD", lambda: wtio.HttpResponse(status=200, headers={"content-length": "77"}), "77"),
        ("HEAD", lambda: wtio.HttpResponse(status=200, headers={"content-length": "77"}, body=_pieces()), "77"),
        ("HEAD", lambda: wtio.HttpResponse(status=200, body=_pieces()), None),
        ("GET", lambda: wtio.HttpResponse(status=204, headers={"content-length": "0"}), None),
        ("GET", lambda: wtio.HttpResponse(status=205, body=b"x"), "0"),
        ("GET", lambda: wtio.HttpResponse(status=304), None),
        ("GET", lambda: wtio.HttpResponse(status=304, headers={"content-length": "9"}, body=_pieces()), "9"),
        ("GET", lambda: wtio.HttpResponse(status=404), "0"),
        ("GET", lambda: wtio.HttpResponse(status=200, headers={"content-length": "0"}), "0"),
        ("GET", lambda: wtio.HttpResponse(status=200, headers={"content-length": "0"}, body=[]), "0"),
    ],
)
def test_answers_without_content_have_the_right_length(
    method: str, response: Callable[[], wtio.HttpResponse], length: str | None
) -> None:
    async def main(network: Network) -> None:
        async with network.serve(http=lambda _: response()), HttpClient(network) as client:
            answer = await client.get(method=method)
            assert answer.status == response().status
            assert answer.headers.get("content-length") == length
            assert (bytes(answer.body), answer.has_ended) == (b"", True)

    run(main)


BROKEN: Final = object()
"""A step of ``Watched`` that raises. An exception in the parameters of a test would keep what it went through."""


class Watched:
    """An asynchronous iterator that notes that it was closed."""

    def __init__(self, *steps: object, delay: float | None = None) -> None:
        self.steps = iter(steps)
        self.delay = delay
        self.asked = 0
        self.closed = 0

    def __aiter__(self) -> Watched:
        return self

    async def __anext__(self) -> Any:
        self.asked += 1
        if self.delay is not None:
            await asyncio.sleep(self.delay)
        step = next(self.steps, None)
        if step is None:
            raise StopAsyncIteration
        if step is BROKEN:
            raise OSError("disk")
        return step

    async def aclose(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("body", "delay", "headers"),
    [
        ((b"abc", BROKEN), 0.5, {}),
        ((b"abc", "text"), None, {}),
        ((b"abc", b"def"), 0.0, {"content-length": "4"}),
        ((b"abc",), 0.5, {"content-length": "4"}),
    ],
)
def test_a_body_that_fails_in_the_middle_is_reset(
    body: tuple[object, ...], delay: float | None, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main(network: Network) -> None:
        pieces = Watched(*body, delay=delay)

        def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, headers=headers, body=pieces)

        async with network.serve(http=hook), HttpClient(network) as client:
            answer = await client.get("/?token=secret")
            assert answer.reset_code == ErrorCodes.H3_INTERNAL_ERROR
            assert pieces.closed == 1
            assert not client.connection.is_lost

    run(main)
    assert "the body of the answer to GET / failed" in caplog.text
    assert "secret" not in caplog.text
    caplog.clear()


def test_a_body_that_fails_at_once_is_500_and_a_slow_one_begins_with_its_head() -> None:
    async def main(network: Network) -> None:
        bodies = [Watched(BROKEN), Watched(b"x", delay=10)]

        def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, body=bodies[int(request.path[1:])])

        async with network.serve(http=hook), HttpClient(network) as client:
            assert (await client.get("/0")).status == 500
            request = await client.ask("GET", "/1")
            started = asyncio.get_running_loop().time()
            await request.head()
            assert request.status == 200
            assert asyncio.get_running_loop().time() - started < 1
            await request.answer()
            assert bytes(request.body) == b"x"
            assert [body.closed for body in bodies] == [1, 1]

    run(main)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_iterator_is_closed_whether_or_not_it_is_needed(method: str) -> None:
    async def main(network: Network) -> None:
        body = Watched(b"abc")
        ended: list[str] = []

        def plain() -> Iterator[bytes]:
            try:
                yield b"abc"
            finally:
                ended.append("plain")

        def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, body=body if request.path == "/0" else plain())

        async with network.serve(http=hook), HttpClient(network) as client:
            for path in ("/0", "/1"):
                assert bytes((await client.get(path, method=method)).body) == (b"abc" if method == "GET" else b"")
            assert body.closed == 1
            assert body.asked == (2 if method == "GET" else 0)
            assert ended == (["plain"] if method == "GET" else [])

    run(main)


# -- ends


@pytest.mark.parametrize("how", ["stop", "reset", "both", "connection"])
def test_a_client_that_leaves_cancels_the_hook(how: str) -> None:
    ends: list[str] = []

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        try:
            await hold()
        except asyncio.CancelledError:
            ends.append(request.path)
            raise
        return OK

    async def main(network: Network) -> None:
        async with network.serve(http=hook) as server, HttpClient(network) as client:
            request = await client.ask("POST", "/gone", end=False)
            await request.send_body(b"x" * 1000)
            await asyncio.sleep(1)
            assert ends == []
            if how == "stop":
                request.core.stop(ErrorCodes.H3_REQUEST_CANCELLED)
            elif how == "reset":
                request.core.reset(ErrorCodes.H3_REQUEST_CANCELLED)
            elif how == "both":
                request.leave()
            else:
                client.connection.close_at_once()
            await asyncio.sleep(1)
            assert ends == ["/gone"]
            assert not server._service.http.tasks
            assert all(not connection._exchanges for connection in server._service.connections)

    run(main)


@pytest.mark.parametrize("how", ["stop", "connection"])
@pytest.mark.parametrize("delay", [None, 0.2])
def test_a_client_that_leaves_closes_the_iterator(how: str, delay: float | None) -> None:
    async def main(network: Network) -> None:
        body = Watched(*[b"x" * 100_000] * 1000, delay=delay)
        async with (
            network.serve(http=lambda _: wtio.HttpResponse(status=200, body=body)) as server,
            HttpClient(network) as client,
        ):
            request = await client.ask("GET", "/")
            await request.head()
            assert request.status == 200
            if how == "stop":
                request.leave()
            else:
                client.connection.close_at_once()
            await asyncio.sleep(2)
            assert body.closed == 1
            asked = body.asked
            await asyncio.sleep(2)
            assert body.asked == asked < 1000
            assert not server._service.http.tasks

    run(main)


def test_tasks_of_a_hook_see_that_the_client_has_gone() -> None:
    seen: list[BaseException] = []

    async def read(request: wtio.HttpRequest) -> None:
        try:
            await request.body()
        except wtio.WebTransportError as error:
            seen.append(error)

    tasks: set[asyncio.Task[None]] = set()

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        tasks.add(asyncio.create_task(read(request)))
        await hold()
        return OK

    async def main(network: Network) -> None:
        async with network.serve(http=hook), HttpClient(network) as client:
            request = await client.ask("POST", "/x?secret", end=False)
            await asyncio.sleep(1)
            request.leave()
            await asyncio.sleep(1)

    run(main)
    (error,) = seen
    assert isinstance(error, wtio.ClientGoneError)
    assert "POST /x: the client" in str(error)
    assert "secret" not in str(error)


def test_a_hook_that_does_not_want_to_be_cancelled_disturbs_nobody() -> None:
    async def main(network: Network) -> None:
        body = Watched(b"abc")

        async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
            if request.path == "/":
                return OK
            try:
                await hold()
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            return wtio.HttpResponse(status=200, body=body)

        async with network.serve(http=hook) as server, HttpClient(network) as client:
            request = await client.ask("GET", "/stubborn")
            await asyncio.sleep(1)
            request.leave()
            await asyncio.sleep(3)
            assert (body.asked, body.closed) == (0, 1)
            assert (await client.get()).status == 200
            await asyncio.sleep(1)  # until the last acknowledgement
            assert not server._service.http.tasks

    run(main)


def test_a_client_that_takes_nothing_loses_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        body = Watched(*[b"x" * 100_000] * 100)
        bodies: dict[str, Any] = {"/large": body, "/short": b"x" * 200_000}

        def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, body=bodies[request.path])

        async with (
            network.serve(http=hook, timeouts=wtio.Timeouts(http_send=5)) as server,
            HttpClient(network, limits=wtio.Limits(stream_receive_window=32 * KIB)) as client,
        ):
            requests = [await client.ask("GET", path) for path in ("/large", "/short")]
            await asyncio.sleep(4)
            assert len(server._service.http.tasks) == 2
            await asyncio.sleep(7)
            assert not server._service.http.tasks
            assert body.closed == 1
            for request in requests:
                await request.answer()
                assert request.reset_code == ErrorCodes.H3_REQUEST_CANCELLED

    with caplog.at_level(logging.INFO, "wtio"):
        run(main)
    assert not caplog.records


def test_requests_beyond_the_limit_are_503_until_others_are_answered() -> None:
    release: list[asyncio.Event] = []

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        await release[0].wait()
        return OK

    async def main(network: Network) -> None:
        release.append(asyncio.Event())
        async with (
            network.serve(http=hook, limits=wtio.Limits(http_requests=2)),
            HttpClient(network) as one,
            HttpClient(network) as other,
        ):
            first, second = await one.ask("GET", "/"), await other.ask("GET", "/")
            await asyncio.sleep(1)
            assert (await one.get()).status == 503
            assert (await other.get()).status == 503
            second.leave()
            await asyncio.sleep(1)
            third = await other.ask("GET", "/")
            await asyncio.sleep(1)
            assert (await one.get()).status == 503
            release[0].set()
            for request in (first, third):
                await request.answer()
                assert request.status == 200
            await asyncio.sleep(1)  # until the last acknowledgement
            assert (await one.get()).status == 200

    run(main)


def test_requests_keep_a_connection_without_sessions_open() -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        await asyncio.sleep(20)
        return OK

    async def main(network: Network) -> None:
        timeouts = wtio.Timeouts(without_session=5)
        async with network.serve(http=hook, timeouts=timeouts), HttpClient(network) as client:
            assert (await client.get()).status == 200
            await asyncio.sleep(4)
            assert not client.connection.is_lost
            await asyncio.sleep(3)
            assert client.connection.is_lost

    run(main)


def test_closing_lets_hooks_finish_within_drain_and_their_answers_arrive() -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        await asyncio.sleep(int(request.path[1:]))
        return wtio.HttpResponse(status=200, body=b"x" * 200_000)

    async def main(network: Network) -> None:
        timeouts = wtio.Timeouts(drain=10, close=2)
        async with network.serve(http=hook, timeouts=timeouts) as server, HttpClient(network) as client:
            requests = [await client.ask("GET", path) for path in ("/5", "/3600")]
            await asyncio.sleep(1)
            answers = [asyncio.create_task(request.answer()) for request in requests]
            await server.close()
            await asyncio.gather(*answers)
            assert (requests[0].status, len(requests[0].body)) == (200, 200_000)
            assert requests[1].status == 503

    run(main)


def test_closing_breaks_off_what_does_not_end() -> None:
    async def main(network: Network) -> None:
        body = Watched(*[b"x"] * 1000, delay=1)
        async with (
            network.serve(http=lambda _: wtio.HttpResponse(status=200, body=body)) as server,
            HttpClient(network) as client,
        ):
            request = await client.ask("GET", "/")
            await request.head()
            await server.close()
            await request.answer()
            assert not request.has_ended
            assert body.closed == 1

    run(main)


# -- trouble in the log


def test_what_clients_do_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        async with asyncio.TaskGroup() as group:
            group.create_task(request.body())
        return OK

    async def main(network: Network) -> None:
        timeouts, limits = wtio.Timeouts(http_body=1), wtio.Limits(http_body=10)
        async with network.serve(http=hook, timeouts=timeouts, limits=limits), HttpClient(network) as client:
            for status, size in ((413, 11), (408, 1)):
                request = await client.ask("POST", "/", end=False)
                await request.send_body(bytes(size))
                await request.answer()
                assert request.status == status
            request = await client.ask("POST", "/", end=False)
            await asyncio.sleep(0.5)
            request.leave()
            await asyncio.sleep(1)

    with caplog.at_level(logging.INFO, "wtio"):
        run(main)
    assert not caplog.records


# -- lifetimes


@pytest.mark.parametrize("how", ["answered", "failed", "left", "lost"])
def test_exchanges_and_their_connection_are_freed_without_the_collector(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps what is logged, and with it the traceback of what the hook raised.
    monkeypatch.setattr(logging.getLogger("wtio.server"), "disabled", True)

    def all_of_them() -> list[object]:
        return [one for one in gc.get_objects() if isinstance(one, (Body, Exchange, ServerConnection))]

    of_others = {id(one) for one in all_of_them()}

    def left() -> list[str]:
        return [type(one).__name__ for one in all_of_them() if id(one) not in of_others]

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        if how in ("left", "lost"):
            await hold()
        if how == "failed":
            raise OSError("no such file")
        return wtio.HttpResponse(status=200, body=await request.body())

    async def main(network: Network) -> None:
        async with network.serve(http=hook):
            async with HttpClient(network) as client:
                request = await client.ask("POST", "/", end=False)
                await request.send_body(b"abc", end=how != "left")
                await asyncio.sleep(1)
                if how == "left":
                    request.leave()
                elif how != "lost":
                    await request.answer()
                await asyncio.sleep(1)
                assert left() == (["ServerConnection"] if how != "lost" else left())
            await asyncio.sleep(1)
            assert left() == []

    gc.collect()
    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()
