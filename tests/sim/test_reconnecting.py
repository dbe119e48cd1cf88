"""A client that stays: it connects again after what may pass, says why, and raises what will not pass."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import gc
import logging
import time
import weakref
from typing import TYPE_CHECKING, NoReturn

import pytest

import wtio
from wtio import testing
from wtio._reconnecting import Backoff
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

URL = "https://localhost/news?token=secret"


async def wait_for_end(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def say_goodbye(session: wtio.WebTransportSession) -> None:
    await session.close(7, "again")


def run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    testing.run(asyncio.wait_for(main(), 100_000))


class Rejecting:
    """A server that rejects some requests, with a status and headers, and accepts all after them."""

    def __init__(self, status: int, count: int, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.left = count
        self.headers = headers or {}
        self.times: list[float] = []

    async def run(self, server: wtio.Server) -> None:
        async with asyncio.TaskGroup() as group:
            async for request in server:
                self.times.append(asyncio.get_running_loop().time())
                if self.left:
                    self.left -= 1
                    await request.reject(self.status, headers=self.headers)
                else:
                    group.create_task(wait_for_end(await request.accept()))


async def rejected(rejecting: Rejecting) -> OSError | None:
    """Iterate until a session is there; return why the attempt before it failed."""
    network = Network()
    async with network.serve() as server:
        answering = asyncio.ensure_future(rejecting.run(server))
        try:
            connector = network.connect(URL)
            async with contextlib.aclosing(aiter(connector)) as sessions:
                await anext(sessions)
                return connector.last_error
        finally:
            answering.cancel()


@pytest.mark.unaudited("its connections end with sessions that the server closed with a code")
def test_each_session_that_ends_is_followed_by_another_one_and_says_why() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(say_goodbye):
            connector = network.connect(URL)
            assert connector.last_error is None
            ended = []
            async for session in connector:
                ended.append(await session.wait_closed())
                if len(ended) > 1:
                    error = connector.last_error
                    assert isinstance(error, wtio.SessionClosedError)
                    assert (error.code, error.reason, error.closed_by) == (7, "again", "peer")
                if len(ended) == 4:
                    break
            assert {info.code for info in ended} == {7}

    run(main)


def test_a_body_that_ends_closes_its_session() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end) as server:
            sessions: list[wtio.WebTransportSession] = []
            connector = network.connect(URL)
            async for session in connector:
                assert all(earlier.is_closed for earlier in sessions)
                assert connector.last_error is None
                assert len(server.sessions) == 1
                sessions.append(session)
                if len(sessions) == 3:
                    break
            await asyncio.sleep(3)
            assert server.sessions == [], "leaving the loop closes the session"
            assert sessions[-1].close_info == wtio.CloseInfo(code=0, reason="", closed_by="local")

    run(main)


def test_leaving_the_loop_by_an_exception_or_aclose_closes_the_session() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end) as server:

            async def fail() -> None:
                async for _session in network.connect(URL):
                    raise KeyError

            with pytest.raises(KeyError):
                await fail()
            await asyncio.sleep(3)
            assert server.sessions == []
            async with contextlib.aclosing(aiter(network.connect(URL))) as sessions:
                session = await anext(sessions)
            assert session.is_closed

    run(main)


def test_a_cancelled_iteration_stops_and_leaves_nothing_behind() -> None:
    async def follow(network: Network) -> None:
        async for session in network.connect(URL):
            with contextlib.suppress(wtio.SessionClosed):
                await session.receive_datagram()

    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end) as server:
            for patience in (0.001, 0.01, 5):
                task = asyncio.ensure_future(follow(network))
                await asyncio.sleep(patience)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.sleep(3)
                assert server.sessions == []
        # Nobody listens any more: cancelled while it waits for the next attempt.
        task = asyncio.ensure_future(follow(network))
        await asyncio.sleep(200)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_rejections_that_may_pass_are_followed_by_another_attempt(status: int) -> None:
    async def main() -> None:
        rejecting = Rejecting(status, 3)
        error = await rejected(rejecting)
        assert isinstance(error, wtio.SessionRejectedError)
        assert error.status == status
        assert error.report is not None
        waits = [later - earlier for earlier, later in zip(rejecting.times, rejecting.times[1:], strict=False)]
        assert len(waits) == 3
        for wait, longest in zip(waits, (0.5, 1, 2), strict=True):
            assert longest / 2 <= wait <= longest + 0.5, waits

    run(main)


@pytest.mark.unaudited("its connection is given up after the rejection")
@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 410, 421])
def test_rejections_that_will_not_change_are_raised(status: int) -> None:
    async def main() -> None:
        rejecting = Rejecting(status, 100)
        with pytest.raises(wtio.SessionRejectedError) as caught:
            await rejected(rejecting)
        assert caught.value.status == status
        assert len(rejecting.times) == 1

    run(main)


def test_certificates_that_are_not_trusted_are_raised() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end):
            tls = wtio.ClientTLS(certificate_hashes=[bytes(32)])
            with pytest.raises(wtio.CertificateError):
                await anext(aiter(network.connect(URL, tls=tls)))

    run(main)


def test_a_closed_client_ends_the_iteration() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(wait_for_end), network.client() as client:
            sessions = aiter(client.connect(URL))
            await anext(sessions)
            await client.close()
            with pytest.raises(wtio.LocalProtocolError, match="was closed"):
                await anext(sessions)

    run(main)


@pytest.mark.parametrize("is_date", [False, True])
def test_retry_after_is_honoured(is_date: bool) -> None:
    async def main() -> None:
        value = email.utils.formatdate(time.time() + 120, usegmt=True) if is_date else "120"
        rejecting = Rejecting(503, 1, {"retry-after": value})
        await rejected(rejecting)
        first, second = rejecting.times
        assert 110 <= second - first <= 121

    run(main)


@pytest.mark.parametrize("value", ["", "-5", "soon", "9" * 4300, "1e3", "\u0664", "Fri, 31 Feb 2026", "0", " 7 "])
def test_no_value_of_retry_after_fails_or_waits_for_more_than_an_hour(value: str) -> None:
    error = wtio.SessionRejectedError("no", status=503, headers=(("retry-after", value),))
    assert 0.25 <= Backoff(wtio.Timeouts()).after_failure(error) <= 3600


def test_waits_double_up_to_the_longest_and_start_over_after_a_long_session() -> None:
    backoff = Backoff(wtio.Timeouts(reconnect=1, reconnect_longest=60))
    error = wtio.ConnectError("nobody answers")
    for longest in (1, 2, 4, 8, 16, 32, 60, 60):
        assert longest / 2 <= backoff.after_failure(error) <= longest
    assert 30 <= backoff.after_session(59) <= 60, "too short to start over"
    assert backoff.after_session(61) <= 1
    for _ in range(2000):
        backoff.after_failure(error)
    assert 30 <= backoff.after_failure(error) <= 60
    assert backoff.after_session(61) <= 1
    assert 0.5 <= backoff.after_session(0.9) <= 1, "a session that ends at once counts as a failure"
    assert 1 <= backoff.after_session(0.9) <= 2


def test_a_server_that_goes_away_and_comes_back_is_found_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        arrived = 0

        async def follow() -> NoReturn:
            nonlocal arrived
            async for session in network.connect(URL, timeouts=wtio.Timeouts(reconnect_longest=4)):
                arrived += 1
                with contextlib.suppress(wtio.SessionClosed):
                    await session.receive_datagram()
            raise AssertionError("the loop has no end of its own")

        following = asyncio.ensure_future(follow())
        for count in (1, 2, 3):
            async with network.serve(wait_for_end):
                await asyncio.sleep(20)
                assert arrived == count
            await asyncio.sleep(100)
        following.cancel()

    with caplog.at_level(logging.INFO, logger="wtio.client"):
        run(main)
    assert any("server is closing" in line and "connecting to https://localhost" in line for line in caplog.messages)
    assert "secret" not in caplog.text


@pytest.mark.unaudited("its connections end with sessions that the server closed with a code")
def test_a_session_that_is_over_is_freed_at_once() -> None:
    async def main() -> None:
        network = Network()
        freed: list[weakref.ref[wtio.WebTransportSession]] = []
        async with network.serve(say_goodbye):
            gc.disable()
            try:
                async for session in network.connect(URL):
                    assert all(earlier() is None for earlier in freed)
                    freed.append(weakref.ref(session))
                    await session.wait_closed()
                    if len(freed) == 3:
                        break
                    del session
            finally:
                gc.enable()

    run(main)


def test_the_first_wait_is_not_above_the_longest() -> None:
    with pytest.raises(ValueError, match=r"Timeouts\.reconnect \(9\) exceeds Timeouts\.reconnect_longest \(5\)"):
        wtio.Timeouts(reconnect=9, reconnect_longest=5)
