"""An invariant for the end of every test: once everything is closed, all credit of a connection is back.

Streams, resets, stops, lost and repeated packets all use up credit that the receiver has to give back. A connection
that forgets some of it each time works for minutes and then stands still, so tests ask at their end, when nothing is
open any more, whether it is still as good as new.

Both ends may be in one process (``Baseline``), or in two, which then take the steps ``open_all``, ``take_all``,
``fill`` and ``empty`` alternately.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import wtio
    from wtio import _core

# Seconds, which are virtual on a simulated network: for what is under way to arrive and be acknowledged, and for
# anything that credit is awaited with.
SETTLING = 30.0
PATIENCE = 120.0


def engine_figures(core: _core.Connection) -> dict[str, int]:
    """What the engine says of a connection's open streams and of its credit, both ways, for comparing before and after.

    Every figure has to come back to what it was before a session began. The engine counts streams that are finished and
    not acknowledged yet. What else it counts in the future belongs here.
    """
    return {"unacked_streams": core.unacked_streams(0)}


@dataclass(slots=True)
class Baseline:
    """Two ends of a session that does nothing itself, on a connection that others use, and the figures of the start."""

    client: wtio.WebTransportSession
    server: wtio.WebTransportSession
    figures: tuple[dict[str, int], dict[str, int]]

    @classmethod
    def of(cls, client: wtio.WebTransportSession, server: wtio.WebTransportSession) -> Baseline:
        """Note how things stand: before anything else uses the connection."""
        return cls(client, server, (engine_figures(client._core), engine_figures(server._core)))

    async def check(self) -> None:
        """Assert that all credit is back. For the end: nothing but this session may be left on the connection.

        The figures are compared, and then the limits are used to the full, which needs no figures: every stream that
        they allow is open at once, both ways, and three quarters of the connection's window lie unread.
        """
        await asyncio.sleep(SETTLING)
        assert (engine_figures(self.client._core), engine_figures(self.server._core)) == self.figures
        for near, far in ((self.client, self.server), (self.server, self.client)):
            await open_all(near, far.limits)
            await take_all(far)
        for near, far in ((self.client, self.server), (self.server, self.client)):
            await fill(near, far.limits)
            await empty(far)
        await asyncio.sleep(SETTLING)
        assert (engine_figures(self.client._core), engine_figures(self.server._core)) == self.figures


def announced(most: int) -> int:
    """How many streams a side may open at least, of so many that its peer allows.

    The QUIC core announces new ones when more than an eighth is due, of all streams, up to three of HTTP/3 among them.
    So limits up to 4 are exact.
    """
    return most - (most + 3) // 8


async def open_all(near: wtio.WebTransportSession, limits: wtio.Limits) -> None:
    """Open every stream that the other side's limits allow, all at once, and reset them."""
    kinds: list[tuple[str, int, Callable[[], Coroutine[object, object, wtio.WebTransportSendStream]]]] = [
        ("bidirectional", announced(limits.bidirectional_streams), near.create_bidirectional_stream),
        ("unidirectional", announced(limits.unidirectional_streams), near.create_unidirectional_stream),
    ]
    for kind, most, create in kinds:
        streams: list[wtio.WebTransportSendStream] = []
        try:
            async with asyncio.timeout(PATIENCE):
                while len(streams) < most:
                    streams.append(await create())
        except TimeoutError:
            side = "client" if near.is_client else "server"
            raise AssertionError(f"the {side} may open only {len(streams)} of {most} {kind} streams") from None
        for stream in streams:
            await stream.close(error_code=0)


async def take_all(far: wtio.WebTransportSession) -> None:
    """See the end of every stream that ``open_all`` opened on the other side: only then its credit comes back."""
    async with asyncio.timeout(PATIENCE):
        for _ in range(announced(far.limits.bidirectional_streams)):
            await (await anext(far.incoming_bidirectional_streams())).close(error_code=0)
        for _ in range(announced(far.limits.unidirectional_streams)):
            await (await anext(far.incoming_unidirectional_streams())).close()


def _filling(limits: wtio.Limits) -> tuple[int, int]:
    """How many streams of which size fill three quarters of a window; up to an eighth of it may not be announced."""
    size = limits.stream_receive_window * 3 // 4
    count = max(limits.connection_receive_window * 3 // 4 // size, 1)
    assert count <= announced(limits.unidirectional_streams), "the limits allow too few streams to fill the window"
    return count, size


async def fill(near: wtio.WebTransportSession, limits: wtio.Limits) -> None:
    """Send as much as the other side's connection holds unread."""
    count, size = _filling(limits)
    accepted = 0
    streams = []
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                stream = await near.create_unidirectional_stream()
                streams.append(stream)
                await stream.write(data=bytes(size), end_stream=True)
                await stream.wait_acked()
                accepted += size
    except TimeoutError:
        side = "client" if near.is_client else "server"
        raise AssertionError(f"of the connection's window the {side} gets no more than {accepted} bytes") from None


async def empty(far: wtio.WebTransportSession) -> None:
    """Read what ``fill`` sent on the other side."""
    count, size = _filling(far.limits)
    async with asyncio.timeout(PATIENCE):
        for _ in range(count):
            assert len(await (await anext(far.incoming_unidirectional_streams())).read_all()) == size
