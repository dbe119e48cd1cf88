"""A server that was killed and started again: what the clients of the one before learn, and when."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import wtio
from wtio import testing
from wtio.testing import Network

SECRET = wtio.Secret(b"known before and after a restart")
pytestmark = pytest.mark.unaudited("its connection is lost")


def now() -> float:
    return asyncio.get_running_loop().time()


async def wait(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


def kill(server: wtio.Server) -> None:
    """Let a server vanish, as a process that is killed does."""
    for driver in server._drivers:
        driver.close()


async def send(session: wtio.WebTransportSession, *, on_a_stream: bool = False) -> float:
    """Send until the session has ended; when that was."""
    stream = await session.create_unidirectional_stream() if on_a_stream else None
    with contextlib.suppress(wtio.SessionClosed):
        while True:
            if stream is None:
                session.send_datagram(b"position")
            else:
                await stream.write(data=b"position")
            await asyncio.sleep(0.2)
    await session.wait_closed()
    return now()


@pytest.mark.unmeasured
@pytest.mark.parametrize("on_a_stream", [False, True])
@pytest.mark.parametrize("away", [0.5, 3])
def test_500_sending_clients_of_a_killed_server_know_within_2_seconds_of_its_restart(
    away: float, on_a_stream: bool
) -> None:
    async def main() -> None:
        network = Network(latency=0.02)
        server = await network.serve(wait, secret=SECRET)
        sessions = await asyncio.gather(*(network.connect() for _ in range(500)))
        sending = [asyncio.ensure_future(send(session, on_a_stream=on_a_stream)) for session in sessions]
        await asyncio.sleep(1)
        kill(server)
        await asyncio.sleep(away)
        async with network.serve(wait, secret=SECRET):
            began = now()
            ended = await asyncio.gather(*sending)
        assert max(ended) - began < 2
        info = await sessions[0].wait_closed()
        assert (info.code, info.closed_by) == (None, "transport")
        assert "stateless reset" in info.reason

    testing.run(main())


def test_idle_clients_know_with_their_next_keep_alive() -> None:
    async def main() -> None:
        network = Network()
        server = await network.serve(wait, secret=SECRET)
        sessions = await asyncio.gather(*(network.connect(timeouts=wtio.Timeouts(keep_alive=5)) for _ in range(20)))
        await asyncio.sleep(2)
        kill(server)
        async with network.serve(wait, secret=SECRET):
            began = now()
            await asyncio.gather(*(session.wait_closed() for session in sessions))
        assert now() - began < 5.1

    testing.run(main())


@pytest.mark.parametrize("secret", [None, wtio.Secret(bytes(32))])
def test_a_server_with_another_secret_or_none_leaves_clients_to_their_idle_timeout(secret: wtio.Secret | None) -> None:
    async def main() -> None:
        network = Network()
        server = await network.serve(wait, secret=SECRET)
        session = await network.connect()
        kill(server)
        async with network.serve(wait, secret=secret):
            began = now()
            sending = asyncio.ensure_future(send(session))
            ended = await sending
        assert ended - began > wtio.Timeouts().idle - 1
        assert "nothing was heard" in (await session.wait_closed()).reason

    testing.run(main())


def test_a_server_with_a_secret_serves_as_one_without() -> None:
    async def main() -> None:
        network = Network(loss=0.02, seed=3)
        async with network.serve(wait, secret=SECRET), network.connect() as session:
            for _ in range(3):
                network.rebind()
                stream = await session.create_bidirectional_stream()
                await stream.write(data=bytes(10_000), end_stream=True)
                await stream.wait_acked()

    testing.run(main())
