"""How long a server that closes drains: ``Server.close(drain=...)``, and calls while it drains."""

from __future__ import annotations

import asyncio

import pytest

import wtio
from wtio.testing import Network


async def closing_after(*drains: float | None, timeouts: float = 0.0) -> float:
    """How long a session goes on whose server is closed with these times to drain, one second after the other."""
    network = Network()

    async def handler(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    async with network.serve(handler, timeouts=wtio.Timeouts(drain=timeouts)) as server, network.connect() as session:
        loop = asyncio.get_running_loop()
        began = loop.time()
        closing = []
        for drain in drains:
            closing.append(asyncio.ensure_future(server.close(drain=drain)))
            await asyncio.sleep(1)
        await session.wait_closed()
        took = loop.time() - began
        await asyncio.gather(*closing)
        return took


@pytest.mark.parametrize(
    ("drains", "timeout", "seconds"),
    [
        ((20,), 0, 20),
        ((20,), 100, 20),
        ((None,), 30, 30),
        ((20, 4), 0, 5),
        ((20, 100), 0, 20),
        ((20, None), 3, 20),
        ((20, 10, 2), 0, 4),
    ],
)
def test_a_server_drains_for_as_long_as_it_is_told_and_a_later_call_only_shortens_that(
    drains: tuple[float | None, ...], timeout: float, seconds: float
) -> None:
    assert wtio.testing.run(closing_after(*drains, timeouts=timeout)) == pytest.approx(seconds, abs=0.5)


def test_a_server_that_need_not_drain_is_closed_at_once() -> None:
    assert wtio.testing.run(closing_after(0, timeouts=50)) < 2
