"""The echo service: everything that a session sends is returned in the same form."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from wtio.errors import DatagramTooLargeError, StreamError

if TYPE_CHECKING:
    from wtio.session import WebTransportSession
    from wtio.stream import WebTransportReceiveStream, WebTransportStream


async def echo(session: WebTransportSession) -> None:
    """Handle a session: echo bidirectional streams, unidirectional streams (on new ones) and datagrams."""

    async def bidirectional(stream: WebTransportStream) -> None:
        # The peer may reset or stop a stream and go on with the session.
        with contextlib.suppress(StreamError):
            async with stream:
                async for chunk in stream:
                    await stream.write(data=chunk)

    async def unidirectional(incoming: WebTransportReceiveStream) -> None:
        with contextlib.suppress(StreamError):
            async with incoming, await session.create_unidirectional_stream() as outgoing:
                async for chunk in incoming:
                    await outgoing.write(data=chunk)

    async def all_bidirectional() -> None:
        async for stream in session.incoming_bidirectional_streams():
            tasks.create_task(bidirectional(stream))

    async def all_unidirectional() -> None:
        async for stream in session.incoming_unidirectional_streams():
            tasks.create_task(unidirectional(stream))

    async def datagrams() -> None:
        async for data in session.incoming_datagrams():
            # The path back may have a smaller limit, and datagrams may get lost anyway.
            with contextlib.suppress(DatagramTooLargeError):
                session.send_datagram(data)

    # The end of the session raises SessionClosed in every loop, which the server expects.
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(all_bidirectional())
        tasks.create_task(all_unidirectional())
        tasks.create_task(datagrams())
