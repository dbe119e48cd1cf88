"""What ``connect`` returns is for one session at a time, and says so where it is used for two."""

from __future__ import annotations

import asyncio

import pytest

import wtio
from wtio import testing
from wtio.testing import Network

URL = "https://localhost/"


async def wait_for_end(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def _awaited(connector: wtio.Connector) -> wtio.WebTransportSession:
    return await connector


def test_two_tasks_that_await_one_connect_do_not_share_a_session() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end) as server:
            connector = network.connect(URL)
            first = asyncio.ensure_future(_awaited(connector))
            await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="once for each session"):
                await connector
            # One after the other they are sessions of their own.
            async with await first, await connector:
                await asyncio.sleep(1)
                assert len(server.sessions) == 2

    testing.run(asyncio.wait_for(main(), 1000))


def test_a_connect_is_entered_once_at_a_time() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end) as server:
            connector = network.connect(URL)
            async with connector as session:
                with pytest.raises(RuntimeError, match="once for each session"):
                    await connector.__aenter__()
                assert not session.is_closed
            async with connector:
                await asyncio.sleep(1)
                assert len(server.sessions) == 1

    testing.run(asyncio.wait_for(main(), 1000))
