"""A server that closes while much is under way, or packets get lost: what its clients learn, and when."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import Any

import pytest
from tests.support.http3 import HttpClient

import wtio
from wtio import testing
from wtio._connection.client import ClientConnection
from wtio.testing import Network

pytestmark = pytest.mark.unaudited("when connections close is what is tested", entirely=True)

CLIENTS = 3
NETWORKS: dict[str, dict[str, Any]] = {
    "clean": {"bandwidth": 500_000},
    "far": {"latency": 0.3, "bandwidth": 500_000},
    "lossy": {"loss": 0.3, "bandwidth": 500_000},
    "narrow": {"bandwidth": 100_000},
    "full": {"bandwidth": 50_000, "queue": 1},
}


def now() -> float:
    return asyncio.get_running_loop().time()


async def wait(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def send_bulk(session: wtio.WebTransportSession) -> None:
    """A handler that has always more to send."""
    stream = await session.create_unidirectional_stream()
    await stream.write_all(data=bytes(10**8))


async def read_all(session: wtio.WebTransportSession) -> None:
    with contextlib.suppress(wtio.SessionClosed, wtio.StreamError):
        async for stream in session.incoming_unidirectional_streams():
            async for _ in stream:
                pass


@pytest.mark.parametrize("handler", [wait, send_bulk], ids=["idle", "bulk"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.unmeasured
def test_every_client_gets_the_code_whatever_is_under_way_or_lost(name: str, handler: Any) -> None:
    async def main(seed: int) -> None:
        network = Network(seed=seed)
        server = await network.serve(handler)
        sessions = await asyncio.gather(*(network.connect() for _ in range(CLIENTS)))
        reading = [asyncio.ensure_future(read_all(session)) for session in sessions]
        network.to_client.update(**NETWORKS[name])
        await asyncio.sleep(1)
        began = now()
        await server.close(7, "deploy")
        assert now() - began < 3
        for session in sessions:
            info = await session.wait_closed()
            assert (info.code, info.reason, info.closed_by) == (7, "deploy", "peer")
        await asyncio.gather(*reading)

    for seed in range(3):
        testing.run(main(seed))


def stay(connection: ClientConnection, session: object) -> None:
    """Of a client that keeps its connection when its last session is over."""


@pytest.mark.parametrize("latency", [0.001, 0.05])
def test_clients_have_three_probe_timeouts_to_go_before_the_server_closes_their_connections(
    monkeypatch: pytest.MonkeyPatch, latency: float
) -> None:
    monkeypatch.setattr(ClientConnection, "session_over", stay)

    async def main() -> None:
        network = Network(latency=latency)
        server = await network.serve(wait)
        session = await network.connect()
        closing = asyncio.ensure_future(server.close(7))
        await session.wait_closed()
        began = now()
        await session._link.lost.wait()  # type: ignore[attr-defined]
        assert now() - began == pytest.approx(3 * (2 * 2 * latency + 0.025) + 2 * latency, rel=0.3)
        await closing

    testing.run(main())


def test_clients_that_stay_hold_a_server_up_for_no_longer_than_timeouts_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientConnection, "session_over", stay)

    async def main() -> None:
        network = Network(latency=0.2)
        server = await network.serve(wait, timeouts=wtio.Timeouts(close=0.5))
        session = await network.connect()
        began = now()
        await server.close(7)
        assert now() - began < 1.1
        assert (await session.wait_closed()).code == 7

    testing.run(main())


def test_clients_that_go_by_themselves_hold_nobody_up() -> None:
    async def main() -> None:
        network = Network(latency=0.05)
        server = await network.serve(wait)
        sessions = await asyncio.gather(*(network.connect() for _ in range(3)))
        began = now()
        await server.close(7)
        # There and back.
        assert now() - began == pytest.approx(0.1, abs=0.001)
        assert all(session.is_closed for session in sessions)

    testing.run(main())


def test_a_connection_without_sessions_for_a_while_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientConnection, "session_over", stay)

    async def main() -> None:
        network = Network(latency=0.05)
        server = await network.serve(wait)
        session = await network.connect()
        await session.close()
        await asyncio.sleep(5)
        began = now()
        await server.close(7)
        assert now() == began

    testing.run(main())


@pytest.mark.parametrize("congestion", ["tolerant", "cubic", "newreno", "bbr"])
def test_an_abort_behind_bulk_is_seen_at_once(congestion: str) -> None:
    async def main() -> None:
        network = Network(latency=0.05, bandwidth=500_000, queue=0.1)
        server = await network.serve(send_bulk, congestion=congestion)
        session = await network.connect()
        reading = asyncio.ensure_future(read_all(session))
        await asyncio.sleep(1)
        began = now()
        await server.sessions[0].abort()
        assert (await session.wait_closed()).closed_by == "peer"
        assert now() - began < 0.16
        await session._link.lost.wait()  # type: ignore[attr-defined]
        assert now() - began < 0.16
        await reading
        await server.close()

    testing.run(main())


def test_cancelling_the_wait_does_not_stop_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientConnection, "session_over", stay)

    async def main() -> None:
        network = Network(latency=0.05)
        server = await network.serve(wait)
        session = await network.connect()
        for seconds in (0.01, 0.1, 0.05):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await server.close(7)
        await server.wait_closed()
        assert (await session.wait_closed()).code == 7

    testing.run(main())


@pytest.mark.parametrize("is_full", [False, True])
def test_a_socket_has_bounded_time_to_take_the_last_packets(is_full: bool) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait), network.connect() as session:
            driver = session._link.driver  # type: ignore[attr-defined]
            if is_full:
                driver.drive = lambda readable=False: None
            session.send_datagram(b"x")
            assert driver.endpoint.has_output
            began = now()
            await driver.wait_sent(2)
            assert driver.endpoint.has_output is is_full
            assert (now() - began >= 2) is is_full
            if is_full:
                del driver.drive

    testing.run(main())


# -- handlers that go on


async def stubborn(session: wtio.WebTransportSession) -> None:
    """Keep the first cancellation to itself."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(1000)
    await asyncio.sleep(1000)


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("way", ["handler", "router"])
def test_a_handler_that_keeps_its_cancellation_to_itself_is_named_with_its_session(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    names: list[str] = []
    router = wtio.Router()
    router.session("/{room}")(stubborn)

    async def main() -> None:
        network = Network()
        handler = router if way == "router" else stubborn
        server = await network.serve(handler, timeouts=wtio.Timeouts(close=3))
        async with network.connect("https://localhost/room?token=secret") as session:
            names.append(f"session {server.sessions[0].log_id}, path /room")
            await server.close()
            await session.wait_closed()

    testing.run(main())
    (text,) = warnings(caplog)
    place = rf"handler {stubborn.__module__}.stubborn, at \S*test_closing.py:\d+,"
    assert re.fullmatch(
        rf"{names[0]}: {place} still runs 3 s after it was cancelled \(Timeouts.close\); .* no longer", text
    ), text


def test_a_hook_that_keeps_its_cancellation_to_itself_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        await asyncio.sleep(1000)
        return wtio.HttpResponse(status=200)

    async def main() -> None:
        network = Network()
        async with network.serve(wait, http=hook) as server, HttpClient(network) as client:
            # Let go of, the request would be reset, which cancels the hook as well.
            request = await client.ask("GET", "/x?token=secret")
            await asyncio.sleep(1)
            await server.close()
            del request

    testing.run(main())
    (text,) = warnings(caplog)
    assert re.match(rf"hook GET /x {hook.__module__}.{re.escape(hook.__qualname__)}, at \S+:\d+, still runs 2 s", text)


def test_of_many_such_handlers_ten_are_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        async with network.client() as client, network.serve(stubborn):
            kept = [await client.connect("https://localhost/", allow_pooling=True) for _ in range(13)]
        assert len(kept) == 13

    testing.run(main())
    *named, others = warnings(caplog)
    assert len(named) == len(set(named)) == 10
    assert others == "3 more handlers still run after they were cancelled"


def test_handlers_that_let_themselves_be_cancelled_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        server = await network.serve(sleep)
        async with network.connect() as session:
            await server.close()
            await session.wait_closed()

    async def sleep(session: wtio.WebTransportSession) -> None:
        await asyncio.sleep(1000)

    testing.run(main())
    assert not warnings(caplog)
