"""Ordinary HTTP/3 requests on the WebTransport port."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.connecting import dial

import wtio
from wtio import testing
from wtio.protocol import frames, qpack, varint
from wtio.testing import Network

if TYPE_CHECKING:
    from wtio._service import HttpHook


async def get(network: Network, method: str = "GET", path: str = "/health?x=1") -> tuple[dict[str, str], bytes]:
    """Ask as any HTTP/3 client would; headers and body of the answer."""
    connection = await dial(network)
    stream = connection.open_request()
    assert stream is not None
    connection._raw.remove(stream.id)  # its answer is for this test, not for the session layer
    fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), ("x-a", "b")]
    stream.write(frames.encode_record(0x01, qpack.encode_field_section(fields)), 0)
    stream.finish()
    answer = b""
    while stream.receive_state().is_open:
        await asyncio.sleep(0.01)
        data = stream.read(-1)
        answer += data if isinstance(data, bytes) else b""
    headers: dict[str, str] = {}
    body = b""
    offset = 0
    while offset < len(answer):
        kind, offset = varint.decode(answer, offset) or (0, 0)
        length, offset = varint.decode(answer, offset) or (0, 0)
        content, offset = answer[offset : offset + length], offset + length
        if kind == 0x01:
            headers = dict(qpack.decode_field_section(content, max_size=65536))
        elif kind == 0x00:
            body += content
    connection.close_at_once()
    return headers, body


def _greet(request: wtio.HttpRequest) -> wtio.HttpResponse | None:
    if request.path != "/health?x=1":
        return None
    assert request.method in ("GET", "HEAD")
    assert ("x-a", "b") in request.headers
    assert request.authority == "localhost"
    return wtio.HttpResponse(status=200, headers={"Content-Type": "text/plain"}, body=b"fine" * 100_000)


def _fail(request: wtio.HttpRequest) -> wtio.HttpResponse:
    raise KeyError(request.path)


def _nonsense(_: wtio.HttpRequest) -> wtio.HttpResponse:
    return wtio.HttpResponse(status=99)


@pytest.mark.parametrize(
    ("hook", "path", "status"),
    [
        (None, "/", "405"),
        (_greet, "/elsewhere", "405"),
        (_greet, "/health?x=1", "200"),
        (_fail, "/", "500"),
        (_nonsense, "/", "500"),
    ],
)
@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_hook_answers_ordinary_requests(hook: HttpHook | None, path: str, status: str) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(http=hook):
            headers, body = await get(network, path=path)
            assert headers[":status"] == status
            if status == "405":
                assert headers["allow"] == "CONNECT"
            if status == "200":
                assert headers["content-type"] == "text/plain"
                assert body == b"fine" * 100_000
                assert headers["content-length"] == str(len(body))

    testing.run(main())
