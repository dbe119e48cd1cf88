"""Sessions and streams of web-transport-quinn as tests and benchmarks want them. Nothing in this module knows wtio.

The package is called web-transport-quinn, its module web_transport.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import web_transport

from .peer_session import PeerSessionClosed, PeerSessionRejected, PeerStreamReset, PeerStreamStopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

CHUNK = 65536
_WRITE_SECONDS = 0.005


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Its errors as those of ``peer_session``."""
    try:
        yield
    except web_transport.StreamClosedByPeer as error:
        raise (PeerStreamReset if error.kind == "reset" else PeerStreamStopped)(error.code) from error
    except web_transport.SessionError as error:
        raise _ended(error) from error


def _ended(error: web_transport.SessionError | None) -> PeerSessionClosed:
    if isinstance(error, web_transport.SessionClosedByPeer):
        return PeerSessionClosed(error.code, error.reason)
    return PeerSessionClosed(None, str(error))


class QuinnStream:
    """One stream; a unidirectional one has half of it."""

    def __init__(self, send: Any, receive: Any) -> None:
        self._send = send
        self._receive = receive

    @property
    def stopped(self) -> Awaitable[int | None]:
        return self._wait_stopped()

    async def _wait_stopped(self) -> int | None:
        """Only a write shows it."""
        try:
            while True:
                await self.write(b"x")
                await asyncio.sleep(_WRITE_SECONDS)
        except PeerStreamStopped as stopped:
            return stopped.code

    async def read(self) -> bytes:
        with _errors():
            data: bytes = await self._receive.read(CHUNK)
        return data

    async def read_all(self) -> bytes:
        with _errors():
            data: bytes = await self._receive.read()
        return data

    async def write(self, data: bytes, end: bool = False) -> None:
        with _errors():
            if data:
                await self._send.write(data)
            if end:
                await self._send.finish()

    def reset(self, code: int) -> None:
        self._send.reset(code)

    def stop(self, code: int) -> None:
        self._receive.stop(code)


class QuinnSession:
    """One session on a connection of its own."""

    protocol = None

    def __init__(self, session: web_transport.Session, url: str) -> None:
        parts = urlsplit(url)
        self.path = parts.path + (f"?{parts.query}" if parts.query else "")
        # It neither sends nor reports a wish to wind down.
        self.draining: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.draining.set_result(None)
        self._session = session

    @property
    def closed(self) -> Awaitable[PeerSessionClosed]:
        return self._wait_closed()

    async def _wait_closed(self) -> PeerSessionClosed:
        await self._session.wait_closed()
        return _ended(self._session.close_reason)

    async def create_stream(self, *, bidirectional: bool = True) -> QuinnStream:
        with _errors():
            if bidirectional:
                return QuinnStream(*await self._session.open_bi())
            return QuinnStream(await self._session.open_uni(), None)

    async def accept_stream(self, *, bidirectional: bool = True) -> QuinnStream:
        with _errors():
            if bidirectional:
                return QuinnStream(*await self._session.accept_bi())
            return QuinnStream(None, await self._session.accept_uni())

    def send_datagram(self, data: bytes) -> None:
        with _errors():
            self._session.send_datagram(data)

    async def receive_datagram(self) -> bytes:
        with _errors():
            data: bytes = await self._session.receive_datagram()
        return data

    def close(self, code: int = 0, reason: str = "") -> None:
        self._session.close(code, reason)

    def drain(self) -> None:
        """It cannot."""


@contextlib.asynccontextmanager
async def connect(url: str, *, certificate_hash: bytes) -> AsyncIterator[QuinnSession]:
    """A session on an endpoint of its own."""
    async with web_transport.Client(server_certificate_hashes=[certificate_hash]) as client:
        try:
            session = QuinnSession(await client.connect(url), url)
        except web_transport.ConnectError as error:
            # The same error stands for whatever may go wrong; its text has the status.
            status = re.search(r"expected 200, got: Some\((\d+)\)", str(error))
            if status is not None:
                raise PeerSessionRejected(int(status[1])) from error
            raise
        try:
            yield session
        finally:
            session.close()


def serve(port: int, *, certificate: str, key: str) -> web_transport.Server:
    """A server on 127.0.0.1; iterate over it for its requests."""
    return web_transport.Server(
        certificate_chain=_blocks(certificate, "CERTIFICATE"),
        private_key=_blocks(key, "PRIVATE KEY")[0],
        bind=f"127.0.0.1:{port}",
    )


def _blocks(path: str, name: str) -> list[bytes]:
    """What PEM blocks of a file hold; both files may be one."""
    begin, end = f"-----BEGIN {name}-----", f"-----END {name}-----"
    parts = Path(path).read_text().split(begin)[1:]
    return [base64.b64decode(part.partition(end)[0]) for part in parts]
