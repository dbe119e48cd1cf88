"""The echo server of the examples, on a network that it cannot choose."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tests.support.logs import but_sessions

import echo_server
from wtio.testing import Network, run

if TYPE_CHECKING:
    import pytest


def test_the_echo_server_survives_a_way_back_that_carries_less(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        network = Network()
        send = network._wire.send

        def narrow(source: tuple[str, int], destination: tuple[str, int], data: bytes, ecn: int) -> None:
            if source[1] != 443 or len(data) <= 1250:
                send(source, destination, data, ecn)

        network._wire.send = narrow  # type: ignore[method-assign]
        async with network.serve(echo_server.echo) as server, network.connect() as session:
            # Both sides look how large their packets may be.
            await asyncio.sleep(5)
            (served,) = server.sessions
            assert session.max_datagram_size > served.max_datagram_size
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"before")
            assert await stream.readexactly(n=6) == b"before"
            session.send_datagram(bytes(session.max_datagram_size))
            session.send_datagram(b"small")
            assert await session.receive_datagram() == b"small"
            # The session and its streams are as good as before.
            await stream.write(data=b"after", end_stream=True)
            assert await stream.read_all() == b"after"

    run(main())
    assert not but_sessions(caplog.records)
