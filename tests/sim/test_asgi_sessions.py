"""The ASGI scope ``webtransport``: docs/asgi-webtransport.md, sentence by sentence."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.logs import but_sessions

import wtio
import wtio.asgi
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from wtio.asgi import ASGIApplication, Message, Receive, Scope, Send

KIB = 1024
NO_SESSION = "there is no session"


def run(main: Callable[[Network], Coroutine[Any, Any, None]]) -> None:
    testing.run(main(Network()))


def served(network: Network, application: ASGIApplication, **options: Any) -> wtio.Server:
    """Every application here is checked, too."""
    site = wtio.asgi.Application(
        wtio.asgi.check(application), webtransport=True, lifespan="off", state=options.pop("state", None)
    )
    return network.serve(site, **options)


async def accepted(receive: Receive, send: Send, **named: object) -> None:
    assert await receive() == {"type": "webtransport.connect"}
    await send({"type": "webtransport.accept", **named})


async def until_the_end(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "webtransport.disconnect":
            return message


# -- the request


def test_an_application_is_told_of_the_request_and_answers_it() -> None:
    async def main(network: Network) -> None:
        scopes: list[Scope] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scopes.append(scope)
            await accepted(receive, send, subprotocol="chat", headers=[(b"x-by", b"app")])
            await until_the_end(receive)

        router = wtio.Router()
        router.mount("/live", wtio.asgi.Application(app, webtransport=True, lifespan="off", state={"a": 1}))
        async with network.serve(router):
            connector = network.connect(
                "https://localhost/live/r%C3%A4ume?b=%20c", headers={"x-a": "1"}, protocols=["game", "chat"]
            )
            async with connector as session:
                assert session.protocol == "chat"
                assert ("x-by", "app") in session.response_headers
        [scope] = scopes
        scope.pop("client")
        headers = scope.pop("headers")
        assert headers[0] == (b"host", b"localhost")
        assert (b"x-a", b"1") in headers
        assert scope == {
            "type": "webtransport",
            "asgi": {"version": "3.0", "spec_version": wtio.asgi.WEBTRANSPORT_VERSION},
            "http_version": "3",
            "scheme": "https",
            "path": "/live/räume",
            "raw_path": b"/live/r%C3%A4ume",
            "query_string": b"b=%20c",
            "root_path": "/live",
            "server": None,
            "extensions": {},
            "subprotocols": ["game", "chat"],
            "state": {"a": 1},
        }

    run(main)


def test_the_admission_of_a_router_comes_first_and_its_state_arrives() -> None:
    async def main(network: Network) -> None:
        asked: list[object] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(scope["state"])
            await accepted(receive, send)
            await until_the_end(receive)

        async def admit(request: wtio.SessionRequest) -> None:
            if request.path.endswith("?user=eve"):
                await request.reject(401)
            request.state.user = dict(request.query)["user"]

        router = wtio.Router(admit=admit)
        router.mount("/", wtio.asgi.Application(app, webtransport=True, lifespan="off", state={"a": 1}))
        async with network.serve(router):
            async with network.connect("https://localhost/x?user=ada"):
                pass
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await network.connect("https://localhost/x?user=eve")
            assert caught.value.status == 401
        assert asked == [{"a": 1, "user": "ada"}]

    run(main)


@pytest.mark.unaudited(NO_SESSION)
def test_a_request_is_rejected_with_status_headers_and_body(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        ends: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert await receive() == {"type": "webtransport.connect"}
            answer: dict[str, Any] = {"type": "webtransport.reject"}
            if scope["path"] == "/full":
                answer |= {"status": 429, "headers": [(b"retry-after", b"5")], "body": b"full"}
            await send(answer)
            ends.append(await receive())

        async with served(network, app):
            for path, status in (("/", 403), ("/full", 429)):
                with pytest.raises(wtio.SessionRejectedError) as caught:
                    await network.connect(f"https://localhost{path}")
                assert caught.value.status == status
            assert ("retry-after", "5") in caught.value.headers
            await asyncio.sleep(1)
        assert [end["type"] for end in ends] == ["webtransport.disconnect"] * 2

    caplog.set_level(logging.INFO)
    run(main)
    assert not but_sessions(caplog.records)


async def _raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("of the application")


async def _silent(scope: Scope, receive: Receive, send: Send) -> None: ...


async def _bad_header(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "webtransport.accept", "headers": [(b"a b", b"c")]})


async def _too_early(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "webtransport.datagram.send", "data": b"x"})


@pytest.mark.unaudited(NO_SESSION)
@pytest.mark.parametrize(
    ("app", "words"),
    [
        (_raises, "of the application"),
        (_silent, "without an answer"),
        (_bad_header, "no header name"),
        (_too_early, "before `webtransport.accept`"),
    ],
)
def test_an_application_that_fails_before_its_answer_gives_500(
    app: ASGIApplication, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(network: Network) -> None:
        site = wtio.asgi.Application(app, webtransport=True, lifespan="off")
        async with network.serve(site):
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await network.connect("https://localhost/?token=secret")
            assert caught.value.status == 500

    run(main)
    assert words in caplog.text
    assert "secret" not in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.unaudited("a client leaves before it has a session")
def test_an_application_that_is_slow_to_answer_hears_of_the_end_and_is_not_cancelled() -> None:
    async def main(network: Network) -> None:
        log: list[object] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            log.append(await receive())
            await asyncio.sleep(1)
            with pytest.raises(OSError, match=r"answered before|client left"):
                await send({"type": "webtransport.accept"})
            log.append("done")

        async with served(network, app, timeouts=wtio.Timeouts(request=5)):
            # It takes longer than Timeouts.request.
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await network.connect("https://localhost/")
            assert caught.value.status == 503
            await asyncio.sleep(2)
            end = {"type": "webtransport.disconnect", "code": None, "reason": "the session was not established"}
            assert log == [end, "done"]
            # The client leaves.
            log.clear()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await network.connect("https://localhost/")
            await asyncio.sleep(3)
            assert log == [end, "done"]

    run(main)


# -- streams


def test_the_echo_of_the_page_echoes_streams_and_datagrams() -> None:
    async def main(network: Network) -> None:
        async with served(network, echo), network.connect("https://localhost/") as session:
            for size in (0, 1, 300 * KIB):
                stream = await session.create_bidirectional_stream()
                reading = asyncio.ensure_future(stream.read_all())
                await stream.write_all(data=bytes(size), end_stream=True)
                assert await reading == bytes(size)
            session.send_datagram(b"hello")
            assert await session.receive_datagram() == b"hello"

    run(main)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await accepted(receive, send)
    while True:
        match await receive():
            case {"type": "webtransport.stream.open", "stream": stream, "bidirectional": True}:
                await send({"type": "webtransport.stream.read", "stream": stream})
            case {"type": "webtransport.stream.receive", "stream": stream, "data": data, "end": end}:
                await send({"type": "webtransport.stream.send", "stream": stream, "data": data, "end": end})
                if not end:
                    await send({"type": "webtransport.stream.read", "stream": stream})
            case {"type": "webtransport.datagram.receive", "data": data}:
                await send({"type": "webtransport.datagram.send", "data": data})
            case {"type": "webtransport.disconnect"}:
                return


def test_streams_of_all_kinds_from_both_sides() -> None:
    async def main(network: Network) -> None:
        log: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            await send({"type": "webtransport.stream.open", "stream": "both"})
            await send({"type": "webtransport.stream.open", "stream": "out", "bidirectional": False})
            await send({"type": "webtransport.stream.send", "stream": "both", "data": b"question"})
            await send({"type": "webtransport.stream.send", "stream": "out", "data": b"news", "end": True})
            await send({"type": "webtransport.stream.read", "stream": "both", "max_bytes": 4})
            while True:
                message = await receive()
                log.append(message)
                if message["type"] == "webtransport.stream.open" or (
                    message["type"] == "webtransport.stream.receive" and not message["end"]
                ):
                    await send({"type": "webtransport.stream.read", "stream": message["stream"]})
                elif message["type"] == "webtransport.disconnect":
                    return

        async with served(network, app), network.connect("https://localhost/") as session:
            both = await anext(session.incoming_bidirectional_streams())
            assert await both.read() == b"question"
            await both.write(data=b"answer", end_stream=True)
            out = await anext(session.incoming_unidirectional_streams())
            assert await out.read_all() == b"news"
            up = await session.create_unidirectional_stream()
            await up.write(data=b"up", end_stream=True)
            await asyncio.sleep(1)
            name = up.stream_id
            assert sorted(log, key=lambda message: message["stream"] != "both") == [
                {"type": "webtransport.stream.receive", "stream": "both", "data": b"answ", "end": False},
                {"type": "webtransport.stream.receive", "stream": "both", "data": b"er", "end": False},
                {"type": "webtransport.stream.receive", "stream": "both", "data": b"", "end": True},
                {"type": "webtransport.stream.open", "stream": name, "bidirectional": False},
                {"type": "webtransport.stream.receive", "stream": name, "data": b"up", "end": False},
                {"type": "webtransport.stream.receive", "stream": name, "data": b"", "end": True},
            ]

    run(main)


def test_resets_and_stops_have_their_codes_both_ways() -> None:
    async def main(network: Network) -> None:
        log: list[Message] = []
        errors: list[OSError] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            while True:
                message = await receive()
                match message:
                    case {"type": "webtransport.stream.open", "stream": stream}:
                        await send({"type": "webtransport.stream.reset", "stream": stream, "code": 5})
                        await send({"type": "webtransport.stream.stop", "stream": stream, "code": 6})
                        await send({"type": "webtransport.stream.open", "stream": "own"})
                        await send({"type": "webtransport.stream.send", "stream": "own", "data": b"x"})
                        await send({"type": "webtransport.stream.read", "stream": "own"})
                    case {"type": "webtransport.stream.stop", "stream": "own"}:
                        log.append(message)
                        for _ in range(2):
                            try:
                                await send({"type": "webtransport.stream.send", "stream": "own", "data": b"x"})
                            except OSError as error:
                                errors.append(error)
                    case {"type": "webtransport.disconnect"}:
                        return
                    case _:
                        log.append(message)

        async with served(network, app), network.connect("https://localhost/") as session:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"x")
            own = await anext(session.incoming_bidirectional_streams())
            with pytest.raises(wtio.StreamResetError) as reset:
                await stream.read()
            assert reset.value.error_code == 5
            assert await stream.wait_stopped() == 6
            await own.reset(error_code=7)
            await own.stop_receiving(error_code=8)
            await asyncio.sleep(1)
            assert sorted(log, key=str) == [
                {"type": "webtransport.stream.reset", "stream": "own", "code": 7},
                {"type": "webtransport.stream.stop", "stream": "own", "code": 8},
            ]
            assert [type(error) for error in errors] == [wtio.StreamStoppedError] * 2
            assert [error.error_code for error in errors] == [8, 8]  # type: ignore[attr-defined]

    run(main)


def test_a_stream_that_is_not_open_yet_cannot_be_used() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            opening = asyncio.ensure_future(send({"type": "webtransport.stream.open", "stream": "a"}))
            await asyncio.sleep(1)
            with pytest.raises(wtio.asgi.SpecificationError, match="not open yet"):
                await send({"type": "webtransport.stream.send", "stream": "a", "data": b"x"})
            log.append("refused")
            opening.cancel()

        site = wtio.asgi.Application(app, webtransport=True, lifespan="off")
        limits = wtio.Limits(bidirectional_streams=0)
        async with network.serve(site), network.connect("https://localhost/", limits=limits) as session:
            assert (await session.wait_closed()).code == 0
            assert log == ["refused"]

    run(main)


def test_names_of_stopped_streams_are_free_and_few_are_remembered() -> None:
    async def main(network: Network) -> None:
        dropped: list[wtio.StreamStoppedError] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            for number in range(600):
                name = "again" if number % 2 else f"stream {number}"
                await send({"type": "webtransport.stream.open", "stream": name, "bidirectional": False})
                await send({"type": "webtransport.stream.send", "stream": name, "data": b"x"})
                assert (await receive()) == {"type": "webtransport.stream.stop", "stream": name, "code": number}
            try:
                await send({"type": "webtransport.stream.send", "stream": name, "data": b"x"})
            except wtio.StreamStoppedError as error:
                dropped.append(error)
            with pytest.raises(wtio.asgi.SpecificationError, match="unknown"):
                await send({"type": "webtransport.stream.send", "stream": "stream 0", "data": b"x"})

        site = wtio.asgi.Application(app, webtransport=True, lifespan="off")
        async with network.serve(site), network.connect("https://localhost/") as session:
            number = 0
            async for stream in session.incoming_unidirectional_streams():
                await stream.stop_receiving(error_code=number)
                number += 1
                if number == 600:
                    break
            assert (await session.wait_closed()).code == 0
            assert [error.error_code for error in dropped] == [599]

    run(main)


def test_an_error_of_the_end_is_no_failure_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            await until_the_end(receive)
            raise BrokenPipeError

        async with served(network, app):
            async with network.connect("https://localhost/"):
                pass
            await asyncio.sleep(1)

    caplog.set_level(logging.INFO)
    run(main)
    assert not but_sessions(caplog.records)


def test_a_slow_reader_slows_its_client_and_nobody_else() -> None:
    async def main(network: Network) -> None:
        read = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal read
            await accepted(receive, send)
            slow: object = None
            while True:
                match await receive():
                    case {"type": "webtransport.stream.open", "stream": stream}:
                        if slow is None:
                            slow = stream  # of which nothing is read until there is a datagram
                        else:
                            await send({"type": "webtransport.stream.read", "stream": stream})
                    case {"type": "webtransport.datagram.receive"}:
                        await send({"type": "webtransport.stream.read", "stream": slow, "max_bytes": 10 * KIB})
                    case {"type": "webtransport.stream.receive", "stream": stream, "data": data, "end": end}:
                        if stream == slow:
                            read += len(data)
                        elif not end:
                            await send({"type": "webtransport.stream.read", "stream": stream})
                    case {"type": "webtransport.disconnect"}:
                        return

        limits = wtio.Limits(stream_receive_window=64 * KIB)
        async with served(network, app, limits=limits), network.connect("https://localhost/") as session:
            slow = await session.create_bidirectional_stream()
            writing = asyncio.ensure_future(slow.write(data=bytes(1024 * KIB)))
            await asyncio.sleep(1)
            fast = await session.create_unidirectional_stream()
            await fast.write(data=bytes(512 * KIB), end_stream=True)
            await fast.wait_acked()
            assert slow.diagnostics().bytes_sent <= 64 * KIB
            assert read == 0
            session.send_datagram(b"read")
            await asyncio.sleep(1)
            assert 0 < read <= 10 * KIB
            writing.cancel()

    run(main)


def test_sending_waits_for_each_stream_by_itself() -> None:
    async def main(network: Network) -> None:
        sent = {"slow": 0, "fast": 0}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)

            async def pour(name: str) -> None:
                await send({"type": "webtransport.stream.open", "stream": name, "bidirectional": False})
                await send({"type": "webtransport.stream.send", "stream": name, "data": name.encode()})
                for _ in range(100):
                    await send({"type": "webtransport.stream.send", "stream": name, "data": bytes(16 * KIB)})
                    sent[name] += 1
                await send({"type": "webtransport.stream.send", "stream": name, "end": True})

            tasks = [asyncio.ensure_future(pour(name)) for name in sent]
            await until_the_end(receive)
            for task in tasks:
                task.cancel()

        limits = wtio.Limits(stream_receive_window=64 * KIB, stream_send_buffer=64 * KIB)
        async with (
            served(network, app, limits=limits),
            network.connect("https://localhost/", limits=limits) as session,
        ):
            incoming = session.incoming_unidirectional_streams()
            streams = [await anext(incoming) for _ in range(2)]
            names = [await stream.readexactly(n=4) for stream in streams]
            fast = streams[names.index(b"fast")]
            assert len(await fast.read_all()) == 1600 * KIB
            assert sent["fast"] == 100
            assert sent["slow"] < 20

    run(main)


def test_messages_wait_for_the_application_in_bounded_number() -> None:
    async def main(network: Network) -> None:
        go_on = asyncio.Event()
        opened: list[object] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            await go_on.wait()
            while (message := await receive())["type"] != "webtransport.disconnect":
                opened.append(message["type"])

        async with served(network, app) as server, network.connect("https://localhost/") as session:
            for _ in range(100):
                stream = await session.create_unidirectional_stream()
                await stream.write(data=b"x", end_stream=True)
            await asyncio.sleep(1)
            [there] = server.sessions
            # 16 messages, and one stream that is taken and waits for room.
            assert len(there.incoming_unidirectional_streams()) == 100 - 17
            go_on.set()
            await asyncio.sleep(1)
            assert opened == ["webtransport.stream.open"] * 100

    run(main)


# -- the session


def test_closes_drains_and_datagrams_pass_both_ways() -> None:
    async def main(network: Network) -> None:
        log: list[object] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            await send({"type": "webtransport.drain"})
            try:
                await send({"type": "webtransport.datagram.send", "data": bytes(70_000)})
            except ValueError as error:
                log.append(error.limit)  # type: ignore[attr-defined]
            await send({"type": "webtransport.datagram.send", "data": bytearray(b"fits")})
            if scope["path"] == "/close":
                await send({"type": "webtransport.close", "code": 9, "reason": "done"})
            log.append((await receive())["type"])
            end = await receive()
            log.append((end["type"], end["code"], end["reason"]))
            assert await receive() == end
            with pytest.raises(OSError, match="closed"):
                await send({"type": "webtransport.datagram.send", "data": b"late"})
            with pytest.raises(OSError, match="closed"):
                await send({"type": "webtransport.stream.open", "stream": "late"})

        async with served(network, app):
            async with network.connect("https://localhost/") as session:
                await session.wait_draining()
                assert await session.receive_datagram() == b"fits"
                await session.drain()
                await session.close(4, "bye")
            await asyncio.sleep(1)
            limit, *rest = log
            assert isinstance(limit, int)
            assert rest == ["webtransport.drain", ("webtransport.disconnect", 4, "bye")]

    run(main)


@pytest.mark.unaudited("its sessions are closed with codes")
@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [("/close", 9, "done"), ("/return", 0, ""), ("/raise", 258, ""), ("/wait-for-a-task-that-is-cancelled", 258, "")],
)
def test_an_application_ends_its_session(path: str, code: int, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            if scope["path"] == "/close":
                await send({"type": "webtransport.close", "code": 9, "reason": "done"})
                assert (await receive())["code"] == 9
            elif scope["path"] == "/raise":
                raise ValueError("of the application")
            elif scope["path"] != "/return":
                task = asyncio.create_task(asyncio.sleep(10))
                asyncio.get_running_loop().call_soon(task.cancel)
                await task

        async with served(network, app), network.connect(f"https://localhost{path}?token=secret") as session:
            info = await session.wait_closed()
            assert (info.code, info.closed_by) == (code, "peer")
            assert info.reason == (reason or ("internal error" if code else ""))

    run(main)
    assert ("of the application" in caplog.text) == (path == "/raise")
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * (code == 258)
    assert "secret" not in caplog.text


def test_streams_that_had_arrived_whole_are_read_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        whole: dict[object, bytes] = {}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            await asyncio.sleep(5)  # until the client has left
            streams = []
            while (message := await receive())["type"] == "webtransport.stream.open":
                streams.append(message["stream"])
            assert message["type"] == "webtransport.disconnect"
            for stream in streams:
                await send({"type": "webtransport.stream.read", "stream": stream})
                whole[stream] = (await receive())["data"]
            assert (await receive())["type"] == "webtransport.disconnect"

        async with served(network, app):
            async with network.connect("https://localhost/") as session:
                for number in range(20):
                    stream = await session.create_unidirectional_stream()
                    await stream.write(data=b"%d" % number, end_stream=True)
                    await stream.wait_acked()
            await asyncio.sleep(10)
            assert list(whole.values()) == [b"%d" % number for number in range(20)]

    caplog.set_level(logging.INFO)
    run(main)
    assert not but_sessions(caplog.records)


@pytest.mark.unaudited("its client vanishes")
def test_a_client_that_vanishes_is_a_disconnect_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        ends: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            ends.append(await until_the_end(receive))
            await send({"type": "webtransport.datagram.send", "data": b"late"})  # what it raises is no failure

        async with served(network, app):
            session = await network.connect("https://localhost/")
            await session.abort()
            await asyncio.sleep(1)
            assert [(end["code"], bool(end["reason"])) for end in ends] == [(None, True)]

    caplog.set_level(logging.INFO)
    run(main)
    assert not but_sessions(caplog.records)


@pytest.mark.unaudited("its server closes with sessions open")
def test_a_server_that_closes_ends_sessions_and_cancels_what_goes_on() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            await until_the_end(receive)
            log.append("end")
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        async with served(network, app) as server:
            session = await network.connect("https://localhost/")
            await server.close(3, "for today")
            assert (await session.wait_closed()).code == 3
            assert log == ["end", "cancelled"]

    run(main)


def test_receiving_may_be_cancelled_without_loss() -> None:
    async def main(network: Network) -> None:
        got: list[bytes] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accepted(receive, send)
            while True:
                try:
                    async with asyncio.timeout(0.001):
                        message = await receive()
                except TimeoutError:
                    continue
                if message["type"] == "webtransport.disconnect":
                    return
                got.append(message["data"])

        async with served(network, app), network.connect("https://localhost/") as session:
            for number in range(50):
                session.send_datagram(b"%d" % number)
                await asyncio.sleep(0.0007)
            await asyncio.sleep(1)
            assert got == [b"%d" % number for number in range(50)]

    run(main)


def test_a_session_leaves_no_task_behind() -> None:
    async def main(network: Network) -> None:
        async with served(network, echo):
            before = len(asyncio.all_tasks())
            for _ in range(3):
                async with network.connect("https://localhost/") as session:
                    stream = await session.create_bidirectional_stream()
                    await stream.write(data=b"x", end_stream=True)
                    assert await stream.read_all() == b"x"
            await asyncio.sleep(5)
            assert len(asyncio.all_tasks()) == before

    run(main)
