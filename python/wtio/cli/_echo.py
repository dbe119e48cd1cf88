"""The echo service: everything that a session sends is returned in the same form."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from wtio.errors import DatagramTooLargeError, StreamError

if TYPE_CHECKING:
    from wtio.session import WebTransportSession
    from wtio.stream import WebTransportReceiveStream, WebTransportStream


async def echo(session: WebTransportSession) -> None:
    """Handle a session: echo bidirectional streams, unidirectional streams (on new ones) and datagrams."""

    async def bidirectional(stream: WebTransportStream) -> None:
        # The peer may reset or stop a stream and go on with the session; that is no news.
        with contextlib.suppress(StreamError):
            async with stream:
                async for chunk in stream:
                    await stream.write(data=chunk)

    async def unidirectional(incoming: WebTransportReceiveStream) -> None:
        with contextlib.suppress(StreamError):
            async with incoming, await session.create_unidirectional_stream() as outgoing:
                async for chunk in incoming:
                    await outgoing.write(data=chunk)

    def datagram(data: bytes) -> None:
        # The path back may have a smaller limit, and datagrams may get lost anyway.
        with contextlib.suppress(DatagramTooLargeError):
            session.send_datagram(data)

    await session.serve_streams(bidirectional, unidirectional=unidirectional, datagrams=datagram)
