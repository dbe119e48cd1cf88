"""ASGI applications behind HTTP/3: requests with bodies both ways, disconnects, background tasks, lifespan."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from tests.support.http3 import HttpClient

import wtio
import wtio.asgi
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from wtio.asgi import Receive, Scope, Send

pytestmark = pytest.mark.unaudited("its clients are raw ones, which keep streams")

MIB = 1024 * 1024


def run(main: Callable[[Network], Coroutine[Any, Any, None]]) -> None:
    testing.run(main(Network()))


def served(network: Network, application: wtio.asgi.ASGIApplication, **options: Any) -> wtio.Server:
    named = {name: options.pop(name) for name in ("lifespan", "state", "webtransport") if name in options}
    return network.serve(wtio.asgi.Application(wtio.asgi.check(application), **named), **options)


def application(*routes: Any, **options: Any) -> Starlette:
    return Starlette(routes=list(routes), **options)


def only(endpoint: Callable[..., Any], path: str = "/", *methods: str) -> Starlette:
    return application(Route(path, endpoint, methods=methods or ("GET", "POST", "PUT")))


# -- the scope


def test_an_application_is_told_everything_about_a_request() -> None:
    async def main(network: Network) -> None:
        scopes: list[Scope] = []

        async def bare(scope: Scope, receive: Receive, send: Send) -> None:
            scopes.append(scope)
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        router = wtio.Router()
        router.mount("/api", wtio.asgi.Application(bare, lifespan="off", state={"pool": 5}))
        async with network.serve(router), HttpClient(network) as client:
            answer = await client.get(
                "/api/gr%C3%BCn?a=%20b", ("x-a", "1"), ("cookie", "a=b"), ("x-a", "\xe9"), ("cookie", "c=d")
            )
            assert answer.status == 200
            [scope] = scopes
            host, _ = scope.pop("client")
            assert host == "::1"
            assert scope == {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": "3",
                "method": "GET",
                "scheme": "https",
                "path": "/api/grün",
                "raw_path": b"/api/gr%C3%BCn",
                "query_string": b"a=%20b",
                "root_path": "/api",
                "headers": [(b"host", b"localhost"), (b"x-a", b"1"), (b"x-a", b"\xe9"), (b"cookie", b"a=b; c=d")],
                "server": None,
                "extensions": {},
                "state": {"pool": 5},
            }

    run(main)


def test_a_mounted_application_finds_its_routes() -> None:
    async def main(network: Network) -> None:
        async def item(request: Request) -> JSONResponse:
            return JSONResponse({"path": request.url.path, "for": str(request.url_for("item", number=3))})

        inner = application(Route("/items/{number:int}", item, name="item"))
        router = wtio.Router()
        router.mount("/api", wtio.asgi.Application(inner))
        router.mount("/", wtio.asgi.Application(application(Mount("/v1", inner))))
        async with network.serve(router), HttpClient(network) as client:
            expected = b'{"path":"/api/items/5","for":"https://localhost/api/items/3"}'
            assert bytes((await client.get("/api/items/5")).body) == expected
            assert (await client.get("/v1/items/5")).status == 200
            assert (await client.get("/items/5")).status == 404

    run(main)


# -- bodies


def test_fastapi_answers_json_and_refuses_what_it_does_not_take() -> None:
    async def main(network: Network) -> None:
        app = FastAPI()

        @app.post("/sum")
        async def add(numbers: list[int]) -> dict[str, int]:
            return {"sum": sum(numbers)}

        async with served(network, app), HttpClient(network) as client:
            request = await client.ask("POST", "/sum", ("content-type", "application/json"), end=False)
            await request.send_body(b"[1,2,", end=False)
            await request.send_body(b"39]", end=True)
            await request.answer()
            assert (request.status, bytes(request.body)) == (200, b'{"sum":42}')
            assert request.headers["content-length"] == "10"
            assert (await client.get("/sum")).status == 405
            assert (await client.get("/nowhere")).status == 404
            request = await client.ask("POST", "/sum", ("content-type", "application/json"), end=False)
            await request.send_body(b"no json", end=True)
            await request.answer()
            assert request.status == 422
            assert (await client.get("/openapi.json")).status == 200

    run(main)


def test_a_body_is_echoed_piece_by_piece_in_little_memory() -> None:
    async def main(network: Network) -> None:
        longest = 0

        # Not Starlette's streaming: it also receives to hear of a disconnect, and drops pieces that it gets (also under
        # other servers).
        async def echo(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal longest
            await send({"type": "http.response.start", "status": 200})
            more = True
            while more:
                message = await receive()
                more = message["more_body"]
                longest = max(longest, len(message["body"]))
                piece = bytearray(message["body"])
                await send({"type": "http.response.body", "body": piece, "more_body": more})
                piece[:] = bytes(len(piece))  # it was taken

        async with served(network, echo, lifespan="off"), HttpClient(network) as client:
            data = bytes(range(256)) * (MIB // 64)
            request = await client.ask("POST", "/", end=False)
            reading = asyncio.ensure_future(request.answer())
            assert await request.send_body(data, end=True)
            await reading
            assert bytes(request.body) == data
            assert longest <= 64 * 1024

    run(main)


def test_a_reader_that_pauses_holds_the_application_up() -> None:
    async def main(network: Network) -> None:
        made = 0

        async def endless(request: Request) -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                nonlocal made
                while True:
                    made += 1
                    yield bytes(64 * 1024)

            return StreamingResponse(pieces())

        limits = wtio.Limits(stream_receive_window=128 * 1024, stream_send_buffer=128 * 1024)
        async with served(network, only(endless), limits=limits), HttpClient(network, limits=limits) as client:
            request = await client.ask("GET", "/")
            await request.head()
            await asyncio.sleep(5)
            held = made
            assert held * 64 * 1024 < MIB
            await asyncio.sleep(5)
            assert made == held
            while len(request.body) < 4 * MIB:
                await request.read()
            assert made > held
            request.leave()

    run(main)


def test_a_body_that_is_not_asked_for_is_held_back() -> None:
    async def main(network: Network) -> None:
        go_on = asyncio.Event()

        async def later(request: Request) -> PlainTextResponse:
            await go_on.wait()
            return PlainTextResponse(str(len(await request.body())))

        limits = wtio.Limits(stream_receive_window=128 * 1024)
        async with served(network, only(later), limits=limits), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            sending = asyncio.ensure_future(request.send_body(bytes(MIB), end=True))
            await asyncio.sleep(5)
            assert request.core.stats().bytes_sent < 512 * 1024
            go_on.set()
            await request.answer()
            assert bytes(request.body) == str(MIB).encode()
            assert await sending

    run(main)


def test_answers_without_content_and_headers_of_http_1_are_right() -> None:
    async def main(network: Network) -> None:
        async def some(request: Request) -> Response:
            if request.url.path == "/empty":
                return Response(status_code=204)
            response = StreamingResponse(pieces_of(b"a", b"b", b"c", b"d"))
            response.raw_headers.append((b"Connection", b"close"))
            response.headers["transfer-encoding"] = "chunked"
            response.headers["set-cookie"] = "a=b"
            return response

        # Not checked: the check would find the upper case.
        site = wtio.asgi.Application(only(some, "/{rest:path}", "GET", "HEAD"))
        async with network.serve(site), HttpClient(network) as client:
            answer = await client.get("/empty")
            assert (answer.status, bytes(answer.body)) == (204, b"")
            assert "content-length" not in answer.headers
            for method, body in (("GET", b"abcd"), ("HEAD", b"")):
                answer = await client.get("/", method=method)
                assert bytes(answer.body) == body
                assert not {"connection", "transfer-encoding"} & set(answer.headers)
                assert answer.headers["set-cookie"] == "a=b"

    run(main)


# -- ends


def test_a_background_task_runs_after_the_answer_and_the_server_waits_for_it() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        async def work(name: str) -> None:
            log.append(f"begin {name}")
            await asyncio.sleep(3)
            log.append(f"end {name}")

        app = FastAPI()

        @app.get("/fast")
        async def fast(tasks: BackgroundTasks) -> str:
            tasks.add_task(work, "fast")
            return "answered"

        @app.get("/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(pieces_of(*[b"x"] * 10), background=BackgroundTask(work, "stream"))

        timeouts = wtio.Timeouts(drain=10)
        async with served(network, app, timeouts=timeouts) as server, HttpClient(network) as client:
            for path in ("/fast", "/stream"):
                log.clear()
                started = asyncio.get_running_loop().time()
                assert (await client.get(path)).status == 200
                assert asyncio.get_running_loop().time() - started < 1
                assert log == [f"begin {path[1:]}"]
                await asyncio.sleep(4)
                assert log[1:] == [f"end {path[1:]}"]
            log.clear()
            await client.get("/fast")
            await server.close()
            assert log == ["begin fast", "end fast"]

    run(main)


def test_background_tasks_count_as_requests() -> None:
    async def main(network: Network) -> None:
        async def endpoint(request: Request) -> PlainTextResponse:
            return PlainTextResponse("x", background=BackgroundTask(asyncio.sleep, 5))

        limits = wtio.Limits(http_requests=2)
        async with served(network, only(endpoint), limits=limits), HttpClient(network) as client:
            assert [(await client.get()).status for _ in range(3)] == [200, 200, 503]
            await asyncio.sleep(6)
            assert (await client.get()).status == 200

    run(main)


def test_a_client_that_leaves_a_stream_ends_it_and_background_tasks_run(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        async def note() -> None:
            log.append("background")

        async def events(request: Request) -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                try:
                    yield b"first"
                    await asyncio.sleep(1000)  # nothing is sent that could fail
                finally:
                    log.append("closed")

            return StreamingResponse(pieces(), background=BackgroundTask(note))

        async def busy(request: Request) -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                while True:
                    yield b"more" * 1000

            return StreamingResponse(pieces(), background=BackgroundTask(note))

        app = application(Route("/events", events), Route("/busy", busy))
        async with served(network, app), HttpClient(network) as client:
            for path, expected in (("/events", ["closed", "background"]), ("/busy", ["background"])):
                log.clear()
                request = await client.ask("GET", path)
                while not request.body:
                    await request.read()
                assert log == []
                request.leave()
                await asyncio.sleep(1)
                assert log == expected

    caplog.set_level(logging.INFO)
    run(main)
    assert not caplog.records


def test_an_application_may_ask_whether_its_client_has_left_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        log: list[object] = []

        async def wait(request: Request) -> PlainTextResponse:
            while not await request.is_disconnected():  # noqa: ASYNC110 - what Starlette offers
                await asyncio.sleep(0.1)
            log.append("left")
            await asyncio.sleep(5)  # is not cancelled
            log.append("done")
            return PlainTextResponse("to nobody")

        async def upload(request: Request) -> PlainTextResponse:
            try:
                await request.body()
            except ClientDisconnect:
                log.append("upload left")
            return PlainTextResponse("to nobody")

        app = application(Route("/", wait), Route("/upload", upload, methods=["POST"]))
        async with served(network, app), HttpClient(network) as client:
            request = await client.ask("GET", "/")
            await asyncio.sleep(1)
            assert log == []
            request.leave()
            await asyncio.sleep(10)
            assert log == ["left", "done"]
            log.clear()
            request = await client.ask("POST", "/upload", end=False)
            await request.send_body(b"x")
            await asyncio.sleep(1)
            request.leave()
            await asyncio.sleep(1)
            assert log == ["upload left"]

    caplog.set_level(logging.INFO)
    run(main)
    assert not caplog.records


def test_an_application_that_sends_to_nobody_gets_an_os_error() -> None:
    async def main(network: Network) -> None:
        caught: list[BaseException] = []

        async def forever(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"", "more_body": True})
                    await asyncio.sleep(0.01)  # or virtual time would stand still
            except OSError as error:
                caught.append(error)

        async with served(network, forever, lifespan="off"), HttpClient(network) as client:
            request = await client.ask("GET", "/")
            await request.head()
            request.leave()
            await asyncio.sleep(1)
            assert len(caught) == 1

    run(main)


def test_middleware_of_starlettes_own_kind_works() -> None:
    async def main(network: Network) -> None:
        class Stamp(BaseHTTPMiddleware):
            async def dispatch(self, request: Request, call_next: Any) -> Response:
                response: Response = await call_next(request)
                response.headers["x-stamp"] = "yes"
                return response

        async def echo(request: Request) -> StreamingResponse:
            return StreamingResponse(pieces_of(*[await request.body()] * 2))

        app = application(Route("/", echo, methods=["POST"]), middleware=[Middleware(Stamp)])
        async with served(network, app), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            await request.send_body(b"x" * 200_000, end=True)
            await request.answer()
            assert (request.headers["x-stamp"], len(request.body)) == ("yes", 400_000)

    run(main)


# -- failures


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    """Not a plain iterator: Starlette takes it to a thread, for which virtual time does not wait."""
    for piece in pieces:
        yield piece


async def _raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("of the application")


async def _raises_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await asyncio.sleep(1)
    raise ValueError("of the application")


async def _raises_afterwards(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"x"})
    await asyncio.sleep(1)
    raise ValueError("of the application")


async def _silent(scope: Scope, receive: Receive, send: Send) -> None: ...


async def _incomplete(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})


async def _body_first(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b"x"})


async def _bad_header(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b\nc")]})


async def _returns(scope: Scope, receive: Receive, send: Send) -> Any:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"x"})
    return 5


@pytest.mark.parametrize(
    ("application", "status", "words"),
    [
        (_raises, 500, "of the application"),
        (_raises_late, None, "of the application"),
        (_raises_afterwards, 200, "of the application"),
        (_silent, 500, "without starting a response"),
        (_incomplete, None, "without completing its response"),
        (_body_first, 500, "before `http.response.start`"),
        (_bad_header, 500, "cannot be sent"),
        (_returns, 200, "returned int"),
    ],
)
def test_an_application_that_fails_is_logged_and_answered(
    application: wtio.asgi.ASGIApplication, status: int | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(network: Network) -> None:
        site = wtio.asgi.Application(application, lifespan="off")
        async with network.serve(site), HttpClient(network) as client:
            answer = await client.get("/?token=secret")
            await asyncio.sleep(2)
            if status is None:
                assert answer.reset_code is not None
            else:
                assert (answer.status, answer.reset_code) == (status, None)

    run(main)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert words in caplog.text
    assert "secret" not in caplog.text


def test_a_client_that_sends_no_more_of_its_body_gets_408() -> None:
    async def main(network: Network) -> None:
        heard: list[object] = []

        async def upload(request: Request) -> PlainTextResponse:
            try:
                await request.body()
            except ClientDisconnect:
                heard.append("left")
            return PlainTextResponse("too late")

        async with (
            served(network, only(upload), timeouts=wtio.Timeouts(http_body=5)),
            HttpClient(network) as client,
        ):
            request = await client.ask("POST", "/", end=False)
            await request.send_body(b"x")
            await request.answer()
            assert (request.status, heard) == (408, ["left"])

    run(main)


def test_a_client_that_stalls_in_the_middle_of_an_echo_gets_a_reset() -> None:
    async def main(network: Network) -> None:
        heard: list[object] = []

        async def echo(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200})
            message = await receive()
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
            heard.append(await receive())

        timeouts = wtio.Timeouts(http_body=5)
        async with served(network, echo, lifespan="off", timeouts=timeouts), HttpClient(network) as client:
            request = await client.ask("POST", "/", end=False)
            await request.send_body(b"x")
            await request.answer()
            assert (request.status, bytes(request.body)) == (200, b"x")
            assert request.reset_code is not None
            assert heard == [{"type": "http.disconnect"}]

    run(main)


@pytest.mark.unaudited("its server closes while an application holds a request", entirely=True)
def test_a_server_that_closes_ends_an_upload_and_cancels_who_does_not_care() -> None:
    async def main(network: Network) -> None:
        log: list[object] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            assert (await receive())["body"] == b"x"
            log.append(await receive())
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        # Calls are cancelled when the last server of an application stops.
        site = wtio.asgi.Application(app, lifespan="off")
        async with (
            network.serve(site, port=5),
            network.serve(site) as server,
            HttpClient(network, url="https://localhost:5/") as elsewhere,
            HttpClient(network) as client,
        ):
            requests = [await one.ask("POST", "/", end=False) for one in (client, elsewhere)]
            for request in requests:
                await request.send_body(b"x")
                await request.head()
            await asyncio.sleep(1)
            await server.close()
            assert log == [{"type": "http.disconnect"}]
            requests[1].leave()
            await asyncio.sleep(1)
            assert log == [{"type": "http.disconnect"}] * 2
        assert log[2:] == ["cancelled"] * 2

    run(main)


@pytest.mark.unaudited("its server closes at once", entirely=True)
def test_a_server_that_closes_at_once_cancels_its_applications() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        async def hang(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/stream":
                await send({"type": "http.response.start", "status": 200})
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                log.append(scope["path"])
                raise

        router = wtio.Router()
        router.mount("/", wtio.asgi.Application(hang, lifespan="off"))
        async with network.serve(router) as server, HttpClient(network) as client:
            for path in ("/", "/stream"):
                request = await client.ask("GET", path)
                for _ in range(20):
                    await request.read()
            started = asyncio.get_running_loop().time()
            server.abort()
            await server.wait_closed()
            assert sorted(log) == ["/", "/stream"]
            assert asyncio.get_running_loop().time() - started < 1

    run(main)


def test_a_client_that_leaves_in_two_steps_does_not_cancel_its_application() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            await asyncio.sleep(5)
            log.append("done")

        async with served(network, app, lifespan="off"):
            client = HttpClient(network)
            async with client:
                request = await client.ask("GET", "/")
                await request.head()
                request.leave()
                await asyncio.sleep(1)
            # Now its connection is over, too. A task that was cancelled already is cancelled again.
            for task in asyncio.all_tasks():
                if task.get_name().startswith("wtio hook"):
                    task.cancel("the connection was lost")
            await asyncio.sleep(6)
            assert log == ["done"]

    run(main)


def test_a_server_that_closes_cancels_what_does_not_end() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        async def hang(request: Request) -> PlainTextResponse:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                log.append("cancelled")
                raise
            return PlainTextResponse("")

        async def stream(request: Request) -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"x"
                try:
                    await asyncio.sleep(1000)
                finally:
                    log.append("stream")

            return StreamingResponse(pieces())

        app = application(Route("/hang", hang), Route("/stream", stream))
        async with served(network, app) as server, HttpClient(network) as client:
            requests = [await client.ask("GET", path) for path in ("/hang", "/stream")]
            await requests[1].head()
            closing = asyncio.ensure_future(server.close())
            for request in requests:
                await request.answer()
            await closing
            assert sorted(log) == ["cancelled", "stream"]
            assert [request.headers[":status"] for request in requests] == ["503", "200"]
            assert requests[1].reset_code is not None

    run(main)


# -- lifespan


def test_a_lifespan_surrounds_the_server_and_gives_state_to_requests() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
            log.append("startup")
            await asyncio.sleep(1)
            yield {"visits": log}
            await asyncio.sleep(1)
            log.append("shutdown")

        async def visit(request: Request) -> PlainTextResponse:
            request.state.visits.append("visit")
            return PlainTextResponse(str(request.state.given))

        app = application(Route("/", visit), lifespan=lifespan)
        server = served(network, app, state={"given": 5}, lifespan="on")
        assert log == []
        async with server:
            assert log == ["startup"]
            async with HttpClient(network) as client:
                assert bytes((await client.get()).body) == b"5"
        assert log == ["startup", "visit", "shutdown"]

    run(main)


def test_a_startup_that_fails_fails_the_server() -> None:
    async def main(network: Network) -> None:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            raise ValueError("no database")
            yield

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(1000)

        for mode in ("auto", "on"):
            site = wtio.asgi.Application(application(lifespan=lifespan), lifespan=mode)
            with pytest.raises(RuntimeError, match=r"(?s)the startup of the application failed.*no database") as caught:
                await network.serve(site, port=7)
            assert isinstance(caught.value.__cause__, ValueError)
            # Nothing is left behind: the port is free, and the same site may try again.
            with pytest.raises(RuntimeError, match="no database"):
                await network.serve(site, port=7)
        with pytest.raises(TimeoutError, match=r"took longer than 5 s \(Timeouts.lifespan\)"):
            await network.serve(wtio.asgi.Application(slow), timeouts=wtio.Timeouts(lifespan=5))

    run(main)


def test_an_application_without_a_lifespan_is_served_unless_it_is_required() -> None:
    async def main(network: Network) -> None:
        async def bare(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                raise NotImplementedError(scope["type"])
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        async def returns(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "lifespan":
                await bare(scope, receive, send)

        for app in (bare, returns):
            async with network.serve(wtio.asgi.Application(app)), HttpClient(network) as client:
                assert (await client.get()).status == 200
            with pytest.raises(RuntimeError, match="lifespan='on' requires it"):
                await network.serve(wtio.asgi.Application(app, lifespan="on"))

    run(main)


def test_a_shutdown_that_fails_is_logged_and_the_server_closes(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        @asynccontextmanager
        async def raising(app: Starlette) -> AsyncIterator[None]:
            yield
            raise ValueError("still in use")

        @asynccontextmanager
        async def hanging(app: Starlette) -> AsyncIterator[None]:
            yield
            await asyncio.sleep(1000)

        for lifespan, words in ((raising, "still in use"), (hanging, "took longer than 5 s")):
            caplog.clear()
            site = wtio.asgi.Application(application(lifespan=lifespan))
            async with network.serve(site, timeouts=wtio.Timeouts(lifespan=5)):
                pass
            assert words in caplog.text
            assert [record.levelno for record in caplog.records] == [logging.ERROR]

    run(main)


def test_a_server_whose_port_is_taken_runs_the_shutdown() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            log.append("startup")
            yield
            log.append("shutdown")

        async with network.serve(port=5):
            with pytest.raises(OSError, match="port 5"):
                await served(network, application(lifespan=lifespan), port=5)
        assert log == ["startup", "shutdown"]

    run(main)


def test_an_application_is_served_once_with_its_lifespan() -> None:
    async def main(network: Network) -> None:
        site = wtio.asgi.Application(application())
        async with network.serve(site):
            with pytest.raises(wtio.LocalProtocolError, match="lifespan='off'"):
                await network.serve(site, port=5)
        async with network.serve(site):
            pass

    run(main)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"application": 5}, "application must be"),
        ({"lifespan": "yes"}, "lifespan is 'yes'"),
        ({"lifespan": True}, "lifespan must be"),
        ({"state": 5}, "state must be"),
        ({"webtransport": 1}, "webtransport must be"),
    ],
)
def test_wrong_arguments_are_named(named: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        wtio.asgi.Application(**{"application": application(), **named})
    with pytest.raises(TypeError, match="application must be"):
        wtio.asgi.check(5)  # type: ignore[arg-type]


def test_sessions_are_refused_by_applications_that_do_not_know_them() -> None:
    async def main(network: Network) -> None:
        async with served(network, application()), HttpClient(network):
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await network.connect("https://localhost/")
            assert caught.value.status == 405

    run(main)
