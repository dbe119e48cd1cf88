"""Datagrams byte by byte, against a QUIC stack that lets its user write the whole frame (requirements 41 and 43)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest
from aioquic.asyncio.client import connect as quic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, QuicEvent

import wtio
from wtio.protocol import varint
from wtio.protocol.codes import ErrorCodes

from .pair import DRAFT15_CLIENT, connect, control_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(20)


class Client(QuicConnectionProtocol):
    """Speaks QUIC and nothing above it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.datagrams: asyncio.Queue[bytes] = asyncio.Queue()
        self.terminated: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, DatagramFrameReceived):
            self.datagrams.put_nowait(event.data)
        elif isinstance(event, ConnectionTerminated) and not self.terminated.done():
            self.terminated.set_result(event.error_code)

    def send_stream(self, data: bytes, *, is_unidirectional: bool) -> None:
        number = self._quic.get_next_available_stream_id(is_unidirectional=is_unidirectional)
        self._quic.send_stream_data(number, data)
        self.transmit()

    def send_datagram(self, data: bytes) -> None:
        self._quic.send_datagram_frame(data)
        self.transmit()


@contextlib.asynccontextmanager
async def client_of(server: wtio.Server, *, first_requests: int = 0) -> AsyncIterator[Client]:
    """A client that has sent its SETTINGS, and so many requests that it will not go on with."""
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, is_client=True, verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536
    )
    port = server.addresses[0][1]
    async with quic_connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as client:
        assert isinstance(client, Client)
        client.send_stream(control_stream(DRAFT15_CLIENT), is_unidirectional=True)
        for _ in range(first_requests):
            client.send_stream(connect(), is_unidirectional=False)
            await (await anext(aiter(server))).reject(404)
        yield client


@pytest.mark.parametrize("requests", [0, 1, 70])  # quarter stream ids of one byte and of two
@pytest.mark.parametrize("payload", [b"", b"x", b"\x00" * 1000])
async def test_r41_datagram_is_quarter_stream_id_and_payload(
    server: wtio.Server, requests: int, payload: bytes
) -> None:
    async with client_of(server, first_requests=requests) as client:
        client.send_stream(connect(), is_unidirectional=False)
        session = await (await anext(aiter(server))).accept()
        assert session.session_id == 4 * requests
        session.send_datagram(payload)
        assert await client.datagrams.get() == varint.encode(requests) + payload
        client.send_datagram(varint.encode(requests) + payload)
        assert await session.receive_datagram() == payload


@pytest.mark.parametrize("prefix", [b"\x40\x00", b"\x80\0\0\0", b"\xc0\0\0\0\0\0\0\0"])
async def test_r41_quarter_stream_id_may_be_longer_than_needed(server: wtio.Server, prefix: bytes) -> None:
    async with client_of(server) as client:
        client.send_stream(connect(), is_unidirectional=False)
        session = await (await anext(aiter(server))).accept()
        client.send_datagram(prefix + b"payload")
        assert await session.receive_datagram() == b"payload"


@pytest.mark.parametrize(
    "frame", [b"", b"\x40", b"\x80\0\0", b"\xc0\0\0\0\0\0\0", varint.encode(2**60), b"\xff" * 8 + b"payload"], ids=repr
)
async def test_r43_h15_d5_quarter_stream_id_that_cannot_be_is_datagram_error(server: wtio.Server, frame: bytes) -> None:
    async with client_of(server) as client:
        client.send_stream(connect(), is_unidirectional=False)
        session = await (await anext(aiter(server))).accept()
        client.send_datagram(frame)
        assert await client.terminated == ErrorCodes.H3_DATAGRAM_ERROR
        with pytest.raises(wtio.SessionClosedError) as caught:
            await session.receive_datagram()
        assert isinstance(caught.value.__cause__, wtio.RemoteProtocolError)


async def test_r43_quarter_stream_id_of_a_stream_that_cannot_be_open_yet_is_dropped(server: wtio.Server) -> None:
    """H3_ID_ERROR is a SHOULD there; dropping spares a peer whose limit on streams has just been raised."""
    async with client_of(server) as client:
        client.send_stream(connect(), is_unidirectional=False)
        session = await (await anext(aiter(server))).accept()
        client.send_datagram(varint.encode(2**60 - 1) + b"far away")
        client.send_datagram(b"\x00here")
        assert await session.receive_datagram() == b"here"
        assert not client.terminated.done()
