"""``serve(admit=...)`` and requests: who gets a session, before anything is answered. In virtual time."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.logs import written

import wtio
from wtio._driver.simulated import SimulatedDriver
from wtio.testing import Network, run

if TYPE_CHECKING:
    from wtio import SessionRequest, WebTransportSession

CLOSED = "its connections end by CONNECTION_CLOSE while a session is open"
NO_SESSION = "no session comes of its connection, which its client gives up at once"


def failures(log: pytest.LogCaptureFixture) -> list[tuple[int, str, bool]]:
    """As ``written``, without lines about how sessions go."""
    return [line for line in written(log) if "admit" in line[1] or "handler" in line[1]]


async def stay(session: WebTransportSession) -> None:
    """A handler."""
    await session.wait_closed()


async def status_of(network: Network, path: str = "/", **arguments: Any) -> int:
    """The status with which a request is answered. A session that comes of it is closed."""
    try:
        async with network.connect(f"https://localhost{path}", **arguments) as session:
            return session.facts.status
    except wtio.SessionRejectedError as error:
        return error.status


# -- what admit may do


def test_admit_accepts_rejects_or_returns_and_the_handler_runs_with_what_it_stored() -> None:
    seen: list[tuple[str, str]] = []

    async def admit(request: SessionRequest) -> None:
        request.state.user = dict(request.query).get("user")
        match request.path.partition("?")[0]:
            case "/accept":
                await request.accept(protocol="v2", headers={"x-hello": "you"}, status=204)
            case "/reject":
                await request.reject(401, headers={"www-authenticate": "Bearer"}, body=b"who are you?")

    async def handler(session: WebTransportSession) -> None:
        seen.append((session.path, session.state.user))
        await session.wait_closed()

    async def main() -> None:
        network = Network()
        async with network.serve(handler, admit=admit, protocols=["v1", "v2"]):
            async with network.connect("https://localhost/accept?user=ada", protocols=["v1", "v2"]) as session:
                assert session.facts.status == 204
                assert session.protocol == "v2"
                assert session.response_headers[-1] == ("x-hello", "you")
            async with network.connect("https://localhost/?user=grace", protocols=["v1", "v2"]) as session:
                assert (session.facts.status, session.protocol) == (200, "v1")
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await network.connect("https://localhost/reject?user=eve")
            assert caught.value.status == 401
            assert ("www-authenticate", "Bearer") in caught.value.headers
        assert seen == [("/accept?user=ada", "ada"), ("/?user=grace", "grace")]

    run(main())


def test_nothing_is_answered_before_admit_has_decided() -> None:
    decide = asyncio.Event()

    async def admit(request: SessionRequest) -> None:
        await decide.wait()

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit) as server:
            connecting = asyncio.ensure_future(status_of(network))
            await asyncio.sleep(3)
            assert not connecting.done()
            assert server.sessions == []
            decide.set()
            assert await connecting == 200

    run(main())


def test_requests_are_decided_beside_each_other() -> None:
    async def admit(request: SessionRequest) -> None:
        await asyncio.sleep(2)

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            start = asyncio.get_running_loop().time()
            assert await asyncio.gather(*(status_of(network) for _ in range(20))) == [200] * 20
            assert asyncio.get_running_loop().time() - start < 4

    run(main())


def test_admit_may_return_the_session() -> None:
    async def admit(request: SessionRequest) -> WebTransportSession:
        return await request.accept(status=202)

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            assert await status_of(network) == 202

    run(main())


@pytest.mark.unaudited(NO_SESSION)
@pytest.mark.parametrize("answer", [False, True, 403])
def test_an_answer_that_is_returned_instead_of_given_lets_nobody_in(
    answer: object, log: pytest.LogCaptureFixture
) -> None:
    async def admit(request: SessionRequest) -> object:
        return answer

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            assert await status_of(network) == 500
        [(level, text, has_traceback)] = failures(log)
        assert level == logging.ERROR
        assert has_traceback
        assert re.fullmatch(r"connection \d+ from \S+ port \d+, path /: admit failed", text)

    run(main())


@pytest.mark.unaudited(NO_SESSION)
def test_a_page_of_another_site_does_not_come_to_admit() -> None:
    async def admit(request: SessionRequest) -> None:
        raise AssertionError("it was asked")

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            assert await status_of(network, origin="https://evil.example") == 403

    run(main())


def test_admit_without_a_handler_is_refused_at_the_call() -> None:
    async def admit(request: SessionRequest) -> None:
        """Accept."""

    with pytest.raises(ValueError, match="admit needs a handler"):
        Network().serve(admit=admit)


# -- bounds


@pytest.mark.unaudited(NO_SESSION)
def test_a_slow_admit_is_cancelled_and_answered_with_503(log: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def admit(request: SessionRequest) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            ended.append(request.path)
            raise

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit, timeouts=wtio.Timeouts(request=3)) as server:
            start = asyncio.get_running_loop().time()
            assert await status_of(network, "/slow?token=secret") == 503
            assert asyncio.get_running_loop().time() - start == pytest.approx(3, abs=0.5)
            assert ended == ["/slow?token=secret"]
            assert not server._service.tasks
            assert server._service.unanswered == 0
        [(level, text, has_traceback)] = failures(log)
        assert (level, has_traceback) == (logging.WARNING, False)
        assert "longer than 3 s (Timeouts.request)" in text
        assert "secret" not in text

    run(main())


def test_an_admit_that_does_not_return_after_it_has_accepted_ends_its_session(log: pytest.LogCaptureFixture) -> None:
    async def admit(request: SessionRequest) -> None:
        await request.accept()
        await asyncio.sleep(1000)

    async def main() -> None:
        network = Network()
        async with (
            network.serve(stay, admit=admit, timeouts=wtio.Timeouts(request=3)),
            network.connect() as session,
        ):
            info = await session.wait_closed()
            assert (info.code, info.closed_by) == (wtio.BODY_RAISED_CODE, "peer")
        assert [level for level, _, _ in failures(log)] == [logging.WARNING]

    run(main())


@pytest.mark.unaudited(NO_SESSION)
def test_an_admit_that_takes_no_notice_of_its_time_changes_nothing() -> None:
    async def admit(request: SessionRequest) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            with pytest.raises(wtio.LocalProtocolError):
                await request.accept()

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit, timeouts=wtio.Timeouts(request=3)) as server:
            assert await status_of(network) == 503
            assert server._service.session_count == 0

    run(main())


@pytest.mark.parametrize("kind", ["admit", "iterator", "iterator that takes them"])
def test_requests_beyond_those_that_may_be_undecided_are_answered_with_429(kind: str) -> None:
    decide = asyncio.Event()

    async def admit(request: SessionRequest) -> None:
        await decide.wait()

    async def take(server: wtio.Server) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for request in server:
                tasks.create_task(answer(request))

    async def answer(request: SessionRequest) -> None:
        await decide.wait()
        await request.serve(stay)

    async def main() -> None:
        network = Network()
        limits = wtio.Limits(pending_requests=3)
        made = network.serve(stay, admit=admit, limits=limits) if kind == "admit" else network.serve(limits=limits)
        async with made as server:
            taking = asyncio.ensure_future(take(server)) if kind == "iterator that takes them" else None
            waiting = [asyncio.ensure_future(status_of(network)) for _ in range(3)]
            await asyncio.sleep(1)
            assert await status_of(network) == 429
            decide.set()
            if kind == "iterator":
                taking = asyncio.ensure_future(take(server))
            assert await asyncio.gather(*waiting) == [200] * 3
            # There is room again.
            assert await status_of(network) == 200
        if taking is not None:
            await taking

    run(main())


def test_undecided_requests_count_as_sessions() -> None:
    decide = asyncio.Event()

    async def admit(request: SessionRequest) -> None:
        await decide.wait()

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit, limits=wtio.Limits(sessions=2)) as server:
            waiting = [asyncio.ensure_future(status_of(network)) for _ in range(2)]
            await asyncio.sleep(1)
            assert await status_of(network) == 429
            decide.set()
            assert await asyncio.gather(*waiting) == [200] * 2
            assert server._service.unanswered == 0

    run(main())


# -- ends


@pytest.mark.unaudited(NO_SESSION)
def test_admit_is_cancelled_when_its_client_leaves(log: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def admit(request: SessionRequest) -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            ended.set()
            raise

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit) as server:
            connecting = asyncio.ensure_future(status_of(network))
            await asyncio.sleep(1)
            connecting.cancel()
            async with asyncio.timeout(1):
                await ended.wait()
            await asyncio.sleep(0)
            assert not server._service.tasks
            assert server._service.unanswered == 0
        assert failures(log) == []

    run(main())


@pytest.mark.unaudited(NO_SESSION)
@pytest.mark.parametrize("drain", [0, 5])
def test_a_server_that_closes_answers_undecided_requests_at_once_with_503(drain: float) -> None:
    ended: list[float] = []

    async def admit(request: SessionRequest) -> None:
        try:
            await asyncio.sleep(20)
        finally:
            ended.append(asyncio.get_running_loop().time())

    async def main() -> None:
        network = Network()
        loop = asyncio.get_running_loop()
        async with network.serve(stay, admit=admit, timeouts=wtio.Timeouts(drain=drain)) as server:
            connecting = asyncio.ensure_future(status_of(network))
            await asyncio.sleep(1)
            start = loop.time()
            await server.close()
            assert await connecting == 503
            assert ended == [pytest.approx(start, abs=0.1)]

    run(main())


@pytest.mark.unaudited(CLOSED)
def test_an_admit_that_has_accepted_is_treated_as_a_handler_while_its_server_closes() -> None:
    ended: list[str] = []

    async def admit(request: SessionRequest) -> None:
        await request.accept()
        try:
            await asyncio.sleep(20)
        finally:
            ended.append(request.path)

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit) as server, network.connect() as session:
            await asyncio.sleep(1)
            await server.close(7, "deploy")
            assert (await session.wait_closed()).code == 7
            assert ended == ["/"]
            assert not server._service.tasks

    run(main())


@pytest.mark.unaudited("its connection is lost")
def test_a_client_that_is_lost_while_admit_runs_is_no_error(log: pytest.LogCaptureFixture) -> None:
    answered: list[str] = []

    async def admit(request: SessionRequest) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await request.reject(403)
            with pytest.raises(wtio.SessionClosed):
                await request.accept()
            answered.append(request.path)

    async def main() -> None:
        network = Network()
        timeouts = wtio.Timeouts(idle=3, request=100)
        async with network.serve(stay, admit=admit, timeouts=timeouts) as server:
            connecting = asyncio.ensure_future(status_of(network))
            await asyncio.sleep(1)
            network.conditions.blackout = True
            await asyncio.sleep(10)
            assert answered == ["/"]
            assert server._service.unanswered == 0
            connecting.cancel()
            await asyncio.wait([connecting])
        assert failures(log) == []

    run(main())


@pytest.mark.unaudited(NO_SESSION)
def test_what_admit_raises_is_500_and_logged(log: pytest.LogCaptureFixture) -> None:
    async def admit(request: SessionRequest) -> None:
        raise KeyError("nobody")

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            for _ in range(5):
                assert await status_of(network, "/?token=secret") == 500
            lines = failures(log)
            assert [(level, has_traceback) for level, _, has_traceback in lines] == [(logging.ERROR, True)] * 3
            assert "secret" not in str(lines)
        assert [text for _, text, _ in written(log) if "more failures" in text] == [
            "2 more failures like the last one of KeyError"
        ]

    run(main())


@pytest.mark.unaudited(CLOSED)
def test_what_admit_raises_after_it_has_accepted_ends_the_session(log: pytest.LogCaptureFixture) -> None:
    async def admit(request: SessionRequest) -> None:
        await request.accept()
        raise KeyError("nobody")

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            async with network.connect() as session:
                info = await session.wait_closed()
                assert (info.code, info.reason) == (wtio.BODY_RAISED_CODE, "internal error")
            await asyncio.sleep(1)
        assert [level for level, _, _ in failures(log)] == [logging.ERROR]

    run(main())


def test_what_the_client_did_while_admit_ran_is_no_error(log: pytest.LogCaptureFixture) -> None:
    async def admit(request: SessionRequest) -> None:
        session = await request.accept()
        await anext(session.incoming_bidirectional_streams())

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            async with network.connect():
                pass
            await asyncio.sleep(1)
        assert failures(log) == []

    run(main())


def test_the_handler_sees_a_session_that_ended_while_admit_ran() -> None:
    # What had arrived for it can still be taken.
    taken: list[bytes] = []

    async def admit(request: SessionRequest) -> None:
        await request.accept()
        await asyncio.sleep(5)

    async def handler(session: WebTransportSession) -> None:
        assert session.is_closed
        taken.append(await (await anext(session.incoming_unidirectional_streams())).read_all())

    async def main() -> None:
        network = Network()
        async with network.serve(handler, admit=admit):
            async with network.connect() as session:
                stream = await session.create_unidirectional_stream()
                await stream.write(data=b"acknowledged", end_stream=True)
                await stream.wait_acked()
            await asyncio.sleep(10)
        assert taken == [b"acknowledged"]

    run(main())


@pytest.mark.unaudited(CLOSED)
def test_the_handler_does_not_run_with_a_session_that_admit_has_closed() -> None:
    async def admit(request: SessionRequest) -> None:
        await (await request.accept()).close(4, "full")

    async def handler(session: WebTransportSession) -> None:
        raise AssertionError("it ran")

    async def main() -> None:
        network = Network()
        async with network.serve(handler, admit=admit):
            async with network.connect() as session:
                assert await session.wait_closed() == wtio.CloseInfo(4, "full", "peer")
            await asyncio.sleep(1)

    run(main())


def test_a_handler_that_admit_has_started_is_not_cancelled_with_it() -> None:
    ended: list[str] = []

    async def other(session: WebTransportSession) -> None:
        await session.wait_closed()
        ended.append("other")

    async def admit(request: SessionRequest) -> None:
        await request.serve(other, status=203)
        await asyncio.sleep(1000)

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit, timeouts=wtio.Timeouts(request=3)):
            async with network.connect() as session:
                assert session.facts.status == 203
                await asyncio.sleep(10)
                assert not session.is_closed
            await asyncio.sleep(1)
        assert ended == ["other"]

    run(main())


# -- with the iterator


async def answer_late(session: WebTransportSession) -> None:
    """A handler whose answer takes a while."""
    async with session:
        stream = await anext(session.incoming_bidirectional_streams())
        await asyncio.sleep(1.5)
        await stream.write(data=b"answer", end_stream=True)
        await stream.wait_acked()


async def take_all(server: wtio.Server, kind: str) -> None:
    async def one(request: SessionRequest) -> None:
        if kind == "serve":
            await request.serve(answer_late)
        else:
            await answer_late(await request.accept())

    async with asyncio.TaskGroup() as tasks:
        async for request in server:
            tasks.create_task(one(request))


@pytest.mark.parametrize("kind", ["handler", "accept", "serve"])
def test_a_server_that_closes_waits_for_its_sessions_however_they_were_accepted(kind: str) -> None:
    async def main() -> None:
        network = Network()
        loop = asyncio.get_running_loop()
        async with network.serve(answer_late if kind == "handler" else None, timeouts=wtio.Timeouts(drain=5)) as server:
            taking = None if kind == "handler" else asyncio.ensure_future(take_all(server, kind))
            async with network.connect() as session:
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"question", end_stream=True)
                await asyncio.sleep(0.5)
                start = loop.time()
                closing = asyncio.ensure_future(server.close(7, "deploy"))
                assert await stream.read_all() == b"answer"
            await closing
            assert loop.time() - start < 3
            if taking is not None:
                await taking

    run(main())


def test_a_server_that_closes_waits_no_longer_than_it_may_for_sessions_without_a_handler() -> None:
    async def main() -> None:
        network = Network()
        loop = asyncio.get_running_loop()
        async with network.serve(timeouts=wtio.Timeouts(drain=5)) as server:
            connecting: asyncio.Future[WebTransportSession] = asyncio.ensure_future(awaited(network.connect()))
            await (await anext(server)).accept()
            session = await connecting
            start = loop.time()
            await server.close(7, "deploy")
            assert loop.time() - start == pytest.approx(5, abs=1)
            assert (await session.wait_closed()).code == 7

    run(main())


def test_a_handler_that_closes_its_server_is_not_waited_for() -> None:
    server: wtio.Server | None = None

    async def handler(session: WebTransportSession) -> None:
        await session.receive_datagram()
        assert server is not None
        await server.close(7, "enough")

    async def main() -> None:
        nonlocal server
        network = Network()
        loop = asyncio.get_running_loop()
        server = network.serve(handler, timeouts=wtio.Timeouts(drain=50))
        async with server, network.connect() as session:
            start = loop.time()
            session.send_datagram(b"stop")
            assert (await session.wait_closed()).code == 7
            assert loop.time() - start < 5

    run(main())


async def awaited(connector: wtio.Connector) -> WebTransportSession:
    return await connector


@pytest.mark.unaudited(CLOSED)
def test_a_handler_of_a_request_is_logged_as_the_servers_own(log: pytest.LogCaptureFixture) -> None:
    async def fail(session: WebTransportSession) -> None:
        raise KeyError("in the handler")

    async def main() -> None:
        network = Network()
        async with network.serve() as server:
            connecting = asyncio.ensure_future(awaited(network.connect()))
            request = await anext(server)
            with pytest.raises(TypeError, match="handler must be a coroutine function"):
                await request.serve(None)  # type: ignore[arg-type]
            await request.serve(fail)
            async with await connecting as session:
                info = await session.wait_closed()
                assert (info.code, info.reason) == (wtio.BODY_RAISED_CODE, "internal error")
        assert [(level, has_traceback) for level, _, has_traceback in failures(log)] == [(logging.ERROR, True)]

    run(main())


# -- facts of a request


def facts_of(path: str, headers: list[tuple[str, str]], read: Any) -> list[Any]:
    """What ``read`` finds on the request, and on both ends of the session that comes of it."""

    async def main() -> list[Any]:
        network = Network()
        async with network.serve() as server:
            connecting = asyncio.ensure_future(awaited(network.connect(f"https://localhost{path}", headers=headers)))
            request = await anext(server)
            found = [read(request)]
            accepted = await request.accept()
            async with await connecting as session:
                return [*found, read(accepted), read(session)]

    return run(main())


@pytest.mark.parametrize(
    ("path", "pairs"),
    [
        ("/", ()),
        ("/?", ()),
        ("/?a=1&b=&a=2&c", (("a", "1"), ("b", ""), ("a", "2"), ("c", ""))),
        ("/?name=Gr%C3%A4fin+Ada&x=%26%3D", (("name", "Gräfin Ada"), ("x", "&="))),
        ("/?x=%ff%zz", (("x", "\ufffd%zz"),)),
        ("/?x=a?b", (("x", "a?b"),)),
    ],
)
def test_query_is_parsed_as_urllib_does(path: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert facts_of(path, [], lambda of: of.query) == [pairs] * 3


@pytest.mark.parametrize(
    ("lines", "cookies"),
    [
        ([], {}),
        (["a=1"], {"a": "1"}),
        (["a=1; b=2;c=3 ;; d"], {"a": "1", "b": "2", "c": "3"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (["a=first; a=second"], {"a": "first"}),
        (['a="quoted value"; b="; c="', "d=x=y"], {"a": "quoted value", "b": '"', "c": '"', "d": "x=y"}),
        (["=nameless; a=; b = 2"], {"a": "", "b": "2"}),
        (["a=%20; $Version=1"], {"a": "%20", "$Version": "1"}),
        ([";;;===\x80"], {}),
    ],
)
def test_cookies_are_read_leniently(lines: list[str], cookies: dict[str, str]) -> None:
    found = facts_of("/", [("cookie", line) for line in lines], lambda of: dict(of.cookies))
    assert found == [cookies] * 3


def test_protocol_token_is_the_one_that_was_sent() -> None:
    assert facts_of("/", [], lambda of: of.protocol_token) == ["webtransport-h3"] * 3


def test_state_is_the_same_on_request_and_session_whoever_asks_first() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server:
            for first in ("before", "request", "session"):
                connecting = asyncio.ensure_future(awaited(network.connect()))
                request = await anext(server)
                if first == "before":
                    request.state.name = first
                session = await request.accept()
                if first == "request":
                    request.state.name = first
                elif first == "session":
                    session.state.name = first
                assert request.state is session.state
                assert session.state.name == first
                async with await connecting as client:
                    assert vars(client.state) == {}

    run(main())


def test_state_that_nobody_uses_takes_no_memory() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server:
            connecting = asyncio.ensure_future(awaited(network.connect()))
            request = await anext(server)
            session = await request.accept()
            async with await connecting:
                assert session._state.namespace is None
                assert request._state.namespace is None

    run(main())


# -- answers that leave with what follows


@pytest.mark.unaudited(CLOSED)
@pytest.mark.parametrize("what", ["first data", "close"])
def test_an_answer_that_is_not_flushed_leaves_with_what_follows(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a socket does. Without this, nothing leaves before the end of a turn on a simulated network.
    monkeypatch.setattr(SimulatedDriver, "flush", SimulatedDriver.drive)
    packets: list[float] = []

    async def handler(session: WebTransportSession) -> None:
        if what == "close":
            await session.close(5, "no room")
        else:
            stream = await session.create_unidirectional_stream()
            await stream.write(data=b"hello", end_stream=True)
            await session.wait_closed()

    async def sent(flush: bool) -> int:
        """How many packets leave the server when it answers."""

        async def admit(request: SessionRequest) -> None:
            await asyncio.sleep(0.5)  # everything else of the handshake is over
            packets.clear()
            await request.accept(flush=flush)

        network = Network(latency=0.1)
        send = network._wire.send

        def count(source: tuple[str, int], destination: tuple[str, int], data: bytes, ecn: int) -> None:
            if source[1] == 443:
                packets.append(asyncio.get_running_loop().time())
            send(source, destination, data, ecn)

        network._wire.send = count  # type: ignore[method-assign]
        # Without packets that look for a larger MTU.
        limits = wtio.Limits(max_mtu=1200)
        async with network.serve(handler, admit=admit, limits=limits):
            session = await network.connect(limits=limits)
            # The answer has just arrived, 0.1 s after it left.
            answered = asyncio.get_running_loop().time()
            in_flight = [time for time in packets if time < answered]
            if what == "close":
                assert await session.wait_closed() == wtio.CloseInfo(5, "no room", "peer")
            else:
                assert await (await anext(session.incoming_unidirectional_streams())).read_all() == b"hello"
            # All of it was there: nothing came later.
            assert asyncio.get_running_loop().time() == answered
            assert len(set(in_flight)) == 1
            await session.close()
            await asyncio.sleep(1)
        return len(in_flight)

    async def main() -> None:
        together = await sent(flush=False)
        assert await sent(flush=True) == together + 1

    run(main())


def test_an_answer_that_is_not_flushed_leaves_at_the_end_of_the_turn() -> None:
    async def admit(request: SessionRequest) -> None:
        await request.accept(flush=False)
        await asyncio.sleep(5)

    async def main() -> None:
        network = Network()
        async with network.serve(stay, admit=admit):
            start = asyncio.get_running_loop().time()
            async with network.connect():
                assert asyncio.get_running_loop().time() - start < 1

    run(main())


def test_an_admitted_session_is_freed_without_the_collector() -> None:
    made: list[weakref.ref[WebTransportSession]] = []

    async def admit(request: SessionRequest) -> None:
        request.state.user = "ada"
        if request.path == "/accept":
            await request.accept()

    async def handler(session: WebTransportSession) -> None:
        made.append(weakref.ref(session))
        await session.receive_datagram()

    async def main() -> None:
        network = Network()
        async with network.serve(handler, admit=admit):
            for path in ("/", "/accept"):
                async with network.connect(f"https://localhost{path}"):
                    await asyncio.sleep(1)
                await asyncio.sleep(1)
                assert made.pop()() is None

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()
