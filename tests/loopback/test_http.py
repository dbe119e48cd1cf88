"""Ordinary HTTP/3 requests of aioquic's client: bodies both ways, ends, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from typing import TYPE_CHECKING

import pytest
from aioquic.asyncio.client import connect as quic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamReset

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from wtio._http_service import HttpHook

LARGE = 1024 * 1024


class Answer:
    """What has arrived of an answer."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.digest = hashlib.sha256()
        self.size = 0
        self.is_over = asyncio.Event()
        self.reset_code: int | None = None
        self.stop_code: int | None = None

    @property
    def status(self) -> str:
        return self.headers[":status"]


class HttpClient(QuicConnectionProtocol):
    """HTTP/3 requests with aioquic."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._http = H3Connection(self._quic)
        self.answers: dict[int, Answer] = {}

    def ask(self, method: str, path: str, *fields: tuple[str, str], end: bool = True) -> tuple[int, Answer]:
        number = self._quic.get_next_available_stream_id()
        answer = self.answers[number] = Answer()
        head = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *fields]
        self._http.send_headers(number, [(name.encode(), value.encode()) for name, value in head], end_stream=end)
        self.transmit()
        return number, answer

    async def get(self, path: str) -> Answer:
        _, answer = self.ask("GET", path)
        await answer.is_over.wait()
        return answer

    def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        self._http.send_data(number, data, end_stream=end)
        self.transmit()

    def leave(self, number: int) -> None:
        """Take a request back."""
        self._quic.stop_stream(number, 0x10C)
        with contextlib.suppress(AssertionError, ValueError):  # where all of it was sent
            self._quic.reset_stream(number, 0x10C)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamReset) and event.stream_id in self.answers:
            self.answers[event.stream_id].reset_code = event.error_code
            self.answers[event.stream_id].is_over.set()
        elif isinstance(event, StopSendingReceived) and event.stream_id in self.answers:
            self.answers[event.stream_id].stop_code = event.error_code
        elif isinstance(event, ConnectionTerminated):
            for answer in self.answers.values():
                answer.is_over.set()
        for happened in self._http.handle_event(event):
            if isinstance(happened, HeadersReceived):
                answer = self.answers[happened.stream_id]
                answer.headers = {name.decode(): value.decode() for name, value in happened.headers}
            elif isinstance(happened, DataReceived):
                answer = self.answers[happened.stream_id]
                answer.digest.update(happened.data)
                answer.size += len(happened.data)
            else:
                continue
            if happened.stream_ended:
                answer.is_over.set()


@contextlib.asynccontextmanager
async def serving(
    certificate: wtio.DevCertificate, io: str, hook: HttpHook
) -> AsyncIterator[tuple[wtio.Server, HttpClient]]:
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=ssl.CERT_NONE)
    async with (
        wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls(), http=hook, io=io) as server,
        quic_connect(
            "127.0.0.1", server.addresses[0][1], configuration=configuration, create_protocol=HttpClient
        ) as client,
    ):
        assert isinstance(client, HttpClient)
        yield server, client


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - the peer has no event for it
            await asyncio.sleep(0.01)


def content(size: int) -> bytes:
    return hashlib.shake_128(b"wtio").digest(size)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        await asyncio.sleep(0)
        yield data[start : start + 100_000]


@pytest.mark.unmeasured
async def test_bodies_arrive_whole_both_ways(certificate: wtio.DevCertificate, io: str) -> None:
    data = content(LARGE)
    digest = hashlib.sha256(data).hexdigest()

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        if request.method == "PUT":
            received = hashlib.sha256()
            async for piece in request.stream():
                received.update(piece)
            return wtio.HttpResponse(status=201, headers={"x-digest": received.hexdigest()})
        body = data if request.path == "/whole" else pieces(data)
        return wtio.HttpResponse(status=200, headers={"content-length": str(len(data))}, body=body)

    async with serving(certificate, io, hook) as (_, client):
        uploads = [client.ask("PUT", "/", end=False) for _ in range(2)]
        for start in range(0, len(data), 100_000):
            for number, _ in uploads:
                client.send(number, data[start : start + 100_000], end=start + 100_000 >= len(data))
            await asyncio.sleep(0)
        for _, answer in uploads:
            await answer.is_over.wait()
            assert (answer.status, answer.headers["x-digest"]) == ("201", digest)
        for path in ("/whole", "/pieces"):
            answer = await client.get(path)
            assert (answer.status, answer.size, answer.digest.hexdigest()) == ("200", LARGE, digest)


async def test_an_early_answer_reaches_a_client_in_the_middle_of_its_upload(
    certificate: wtio.DevCertificate, io: str
) -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        await request.body(limit=100)
        raise AssertionError

    async with serving(certificate, io, hook) as (_, client):
        number, answer = client.ask("POST", "/", ("content-length", str(64 * LARGE)), end=False)
        client.send(number, bytes(LARGE))
        await answer.is_over.wait()
        assert answer.status == "413"
        await until(lambda: answer.stop_code == 0x100)
        assert (await client.get("/")).status == "500"


@pytest.mark.parametrize("path", ["/wait", "/endless"])
async def test_a_client_that_leaves_ends_its_hook(certificate: wtio.DevCertificate, io: str, path: str) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            ended.set()

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        began.set()
        if request.path == "/endless":
            return wtio.HttpResponse(status=200, body=endless())
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with serving(certificate, io, hook) as (server, client):
        number, answer = client.ask("GET", path)
        await began.wait()
        if path == "/endless":
            await until(lambda: answer.size > LARGE)
        client.leave(number)
        await ended.wait()
        await until(lambda: not server._service.http.tasks)
