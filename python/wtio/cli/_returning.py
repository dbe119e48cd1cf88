"""How a server returns what it gets: while a stream is open, as `wtio serve` does, or only after its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wtio.session import WebTransportSession

__all__ = ["PER_MESSAGE", "exchange", "returns_while_open"]

PER_MESSAGE: Final = "one stream per message: the server answers only after the end of a stream"
"""What the figures are to be read with if ``returns_while_open`` is false."""

# Seconds to wait for an answer while the stream is open, and most of them for both ways.
_WHILE_OPEN: Final = 2.0
_PATIENCE: Final = 5.0


async def returns_while_open(session: WebTransportSession, size: int, patience: float) -> bool:
    """Send one message: does it come back while its stream is open (True), or after the end of it (False)?

    Args:
        session: Takes one bidirectional stream.
        size: Bytes of the message.
        patience: Seconds to wait in all; five at most.

    Raises:
        TimeoutError: It came back neither way.
        asyncio.IncompleteReadError: The server ended the stream before all of it came back.
    """
    patience = min(patience, _PATIENCE)
    async with asyncio.timeout(patience), await session.create_bidirectional_stream() as stream:
        await stream.write(data=bytes(size))
        try:
            async with asyncio.timeout(min(_WHILE_OPEN, patience / 2)):
                await stream.readexactly(n=size)
        except TimeoutError:
            await stream.write(data=b"", end_stream=True)
            await stream.readexactly(n=size)
            return False
        return True


async def exchange(session: WebTransportSession, message: bytes) -> None:
    """Send a message on a stream of its own, with its end, and wait until it is back.

    Raises:
        asyncio.IncompleteReadError: The server ended the stream before all of it came back.
    """
    async with await session.create_bidirectional_stream() as stream:
        await stream.write(data=message, end_stream=True)
        await stream.readexactly(n=len(message))
