"""``wtio.Router``: which path goes where, who is asked, and what everybody else is answered."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.routing import compile_path
from tests.support.http3 import HttpClient

import wtio
from wtio import testing
from wtio._routes import Pattern
from wtio._site import Site
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from wtio.config import Timeouts

RAW = pytest.mark.unaudited("its clients are raw ones, which keep streams")


def run(main: Callable[[Network], Coroutine[Any, Any, None]]) -> None:
    testing.run(main(Network()))


async def answer(network: Network, path: str, **options: Any) -> object:
    """The datagram that the handler of a path sends, or the status of a refusal."""
    try:
        async with network.connect(f"https://localhost{path}", **options) as session:
            return (await session.receive_datagram()).decode()
    except wtio.SessionRejectedError as error:
        return error.status


async def say(session: wtio.WebTransportSession, text: object) -> None:
    session.send_datagram(str(text).encode())
    await session.wait_closed()


# -- patterns

ID = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("pattern", "path", "parameters"),
    [
        ("/", "/", {}),
        ("/rooms", "/rooms", {}),
        ("/rooms", "/rooms/", None),
        ("/rooms", "/roomsy", None),
        ("/a.b", "/axb", None),
        ("/rooms/{room}", "/rooms/blue", {"room": "blue"}),
        ("/rooms/{room}", "/rooms/", None),
        ("/rooms/{room}", "/rooms/a/b", None),
        ("/rooms/{room:str}/x", "/rooms/a b\n/x", {"room": "a b\n"}),
        ("/n/{n:int}", "/n/0042", {"n": 42}),
        ("/n/{n:int}", "/n/-1", None),
        ("/n/{n:int}", "/n/４２", None),
        ("/n/{n:int}", "/n/" + "9" * 5000, None),
        ("/n/{n:int}\n", "/n/4\n", {"n": 4}),
        ("/n/{n:int}", "/n/4\n", None),
        ("/x/{x:float}", "/x/1.5", {"x": 1.5}),
        ("/x/{x:float}", "/x/2", {"x": 2.0}),
        ("/x/{x:float}", "/x/nan", None),
        ("/x/{x:float}", "/x/" + "9" * 400, None),
        ("/f/{rest:path}", "/f/a/b\n/c", {"rest": "a/b\n/c"}),
        ("/f/{rest:path}", "/f/", {"rest": ""}),
        ("/f/{rest:path}/end", "/f/a/end/end", {"rest": "a/end"}),
        ("/u/{id:uuid}", f"/u/{ID}", {"id": uuid.UUID(ID)}),
        ("/u/{id:uuid}", "/u/1234", None),
        ("/v{major:int}/{name}.txt", "/v2/a.b.txt", {"major": 2, "name": "a.b"}),
    ],
)
def test_a_pattern_matches_as_starlettes_do(pattern: str, path: str, parameters: dict[str, object] | None) -> None:
    assert Pattern(pattern).match(path) == parameters


PATTERNS = (
    "/",
    "/a/{b}",
    "/a/{b:int}/c",
    "/{x:float}",
    "/a{b}c/{d:path}",
    "/{p:path}/a/{b}",
    "/u/{u:uuid}",
)


# Not with line feeds: Starlette's `$` is also before the last one, and its `path` ends at one.
@given(st.sampled_from(PATTERNS), st.text(st.sampled_from("/abcu.-0129Aé{}%"), max_size=40).map("/".__add__))
@example("/u/{u:uuid}", f"/u/{ID}")
@example("/{p:path}/a/{b}", "/a/a/a/a")
def test_starlette_agrees_about_every_path(pattern: str, path: str) -> None:
    regex, _, convertors = compile_path(pattern)
    found = regex.match(path)
    expected = None if found is None else {name: convertors[name].convert(found[name]) for name in convertors}
    assert Pattern(pattern).match(path) == expected


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("rooms", "begin with a slash"),
        ("", "begin with a slash"),
        ("/a?b=c", "without a query"),
        ("/a#b", "without a query"),
        ("/a%20b", "decoded"),
        ("/{a", "written"),
        ("/a}", "written"),
        ("/{}", "written"),
        ("/{1a}", "written"),
        ("/{a:}", "written"),
        ("/{class}", "Python"),
        ("/{a:integer}", "'integer' is no type"),
        ("/{a}/{a}", "two parameters of the name"),
        ("/{a}-{b}", "between two slashes"),
        ("/{a:path}/{b:path}", "type `path`"),
    ],
)
def test_a_bad_pattern_raises_at_decoration(path: str, words: str) -> None:
    router = wtio.Router()
    for decorate in (router.session, router.get):
        with pytest.raises(ValueError, match=words):
            decorate(path)


def test_no_path_takes_a_pattern_long() -> None:
    # What a client may send at most, against the patterns with the most ways to match.
    pattern = Pattern("/{a:path}/x/{b}/{c}/y")
    started = time.process_time()
    assert pattern.match("/x" * 32_000) is None
    assert time.process_time() - started < 5


# -- functions


def test_functions_that_need_what_the_path_lacks_raise_at_decoration() -> None:
    router = wtio.Router()

    async def wants_more(session: wtio.WebTransportSession, room: str, seat: int) -> None: ...
    async def nothing() -> None: ...
    async def by_position(session: wtio.WebTransportSession, room: str, /) -> None: ...
    async def clash(room: wtio.WebTransportSession) -> None: ...
    async def plain_admit(request: wtio.SessionRequest, seat: int) -> None: ...

    for function, words in (
        (wants_more, "needs `seat`; the path has room"),
        (nothing, "takes no argument"),
        (by_position, "by position"),
        (clash, "`room` is the session or the request, and a parameter"),
    ):
        with pytest.raises(TypeError, match=words):
            router.session("/rooms/{room}")(function)
    with pytest.raises(TypeError, match="admit needs `seat`"):
        router.session("/rooms/{room}", admit=plain_admit)
    with pytest.raises(TypeError, match="admit needs `seat`; there is no parameter"):
        wtio.Router(admit=plain_admit)
    with pytest.raises(TypeError, match="coroutine function"):
        router.session("/")(lambda session: None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="generator"):
        router.get("/")(lambda request: (yield))


def test_what_is_captured_is_given_by_name_to_those_that_want_it() -> None:
    async def main(network: Network) -> None:
        asked: list[object] = []

        async def admit_all(request: wtio.SessionRequest, **parameters: object) -> None:
            asked.append(parameters)

        async def admit(request: wtio.SessionRequest, number: int) -> None:
            asked.append(number)

        router = wtio.Router(admit=admit_all)

        @router.session("/rooms/{room}/{number:int}", admit=admit)
        async def play(session: wtio.WebTransportSession, room: str, number: int) -> None:
            await say(session, (room, number))

        @router.session("/all/{room}/{number:int}")
        async def everything(session: wtio.WebTransportSession, **parameters: object) -> None:
            await say(session, parameters)

        @router.session("/none/{room}/{number:int}")
        async def none(session: wtio.WebTransportSession, seat: int = 7) -> None:
            await say(session, seat)

        @router.session("/decoded/{room}")
        async def decoded(session: wtio.WebTransportSession, room: str) -> None:
            await say(session, room)

        async with network.serve(router):
            assert await answer(network, "/rooms/blue/3?token=x") == "('blue', 3)"
            assert asked == [{"room": "blue", "number": 3}, 3]
            assert await answer(network, "/all/red/4") == "{'room': 'red', 'number': 4}"
            assert await answer(network, "/none/red/4") == "7"
            assert await answer(network, "/decoded/gr%C3%BCn%20") == "grün "
            assert await answer(network, "/decoded/a%2Fb") == 405
            assert await answer(network, "/decoded/%FF") == "\N{REPLACEMENT CHARACTER}"

    run(main)


# -- which route


def test_the_first_route_that_matches_answers_and_others_are_unknown() -> None:
    async def main(network: Network) -> None:
        asked: list[str] = []

        async def admit(request: wtio.SessionRequest) -> None:
            asked.append(request.path)

        router = wtio.Router(admit=admit)

        @router.session("/rooms/lobby")
        async def lobby(session: wtio.WebTransportSession) -> None:
            await say(session, "lobby")

        @router.session("/rooms/{room}")
        async def first(session: wtio.WebTransportSession, room: str) -> None:
            await say(session, f"first {room}")

        @router.session("/{rest:path}/")
        async def second(session: wtio.WebTransportSession, rest: str) -> None:
            await say(session, f"second {rest}")

        async with network.serve(router):
            assert await answer(network, "/rooms/lobby") == "lobby"
            assert await answer(network, "/rooms/b") == "first b"
            assert await answer(network, "/rooms/b/") == "second rooms/b"
            # As draft 16 says it; nobody was asked.
            assert await answer(network, "/elsewhere") == 405
            assert asked == ["/rooms/lobby", "/rooms/b", "/rooms/b/"]

    run(main)


def test_a_mounted_router_answers_everything_below_its_path() -> None:
    async def main(network: Network) -> None:
        router, games, chess = wtio.Router(), wtio.Router(), wtio.Router()
        router.mount("/games", games)
        games.mount("/chess/", chess)

        @router.session("/games/chess/1")
        async def never(session: wtio.WebTransportSession) -> None:
            await say(session, "never")

        @router.session("/games")
        async def front(session: wtio.WebTransportSession) -> None:
            await say(session, "front")

        # Added to a router that is mounted already.
        @chess.session("/{board:int}")
        async def board(session: wtio.WebTransportSession, board: int) -> None:
            await say(session, f"board {board}")

        @games.session("/")
        async def index(session: wtio.WebTransportSession) -> None:
            await say(session, "index")

        async with network.serve(router):
            assert await answer(network, "/games/chess/1") == "board 1"
            assert await answer(network, "/games/") == "index"
            assert await answer(network, "/games") == "front"
            assert await answer(network, "/games/chess/x") == 405
            assert await answer(network, "/gamesy/") == 405

    run(main)


def test_a_router_cannot_be_mounted_in_itself() -> None:
    one, two, three = wtio.Router(), wtio.Router(), wtio.Router()
    one.mount("/", two)
    two.mount("/x", three)
    for inner in (three, two, one):
        with pytest.raises(ValueError, match="no end"):
            inner.mount("/", one)


@pytest.mark.parametrize("path", ["games", "/{game}", "/a?b", 5])
def test_a_bad_prefix_raises(path: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="path"):
        wtio.Router().mount(path, wtio.Router())


# -- admission


def test_everybody_on_the_way_is_asked_from_outside_in_until_one_rejects() -> None:
    async def main(network: Network) -> None:
        asked: list[str] = []

        def admission(name: str) -> Callable[[wtio.SessionRequest], Coroutine[Any, Any, None]]:
            async def admit(request: wtio.SessionRequest) -> None:
                asked.append(name)
                await asyncio.sleep(0.01)
                if dict(request.query).get("stop") == name:
                    await request.reject(418)
                request.state.last = name

            return admit

        router = wtio.Router(admit=admission("outer"))
        inner = wtio.Router(admit=admission("inner"))
        router.mount("/in", inner)

        @inner.session("/", admit=admission("route"))
        async def handle(session: wtio.WebTransportSession) -> None:
            await say(session, session.state.last)

        async with network.serve(router):
            assert await answer(network, "/in/") == "route"
            assert asked == ["outer", "inner", "route"]
            for count, name in enumerate(("outer", "inner", "route"), 1):
                asked.clear()
                assert await answer(network, f"/in/?stop={name}") == 418
                assert len(asked) == count

    run(main)


def test_only_the_last_admission_may_accept(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        async def accept(request: wtio.SessionRequest) -> wtio.WebTransportSession:
            return await request.accept(headers={"x-by": "admit"})

        async def refuse(request: wtio.SessionRequest) -> None:
            await request.reject(403)

        router = wtio.Router(admit=accept)

        @router.session("/open")
        async def opened(session: wtio.WebTransportSession) -> None:
            await say(session, "open")

        @router.session("/shut", admit=refuse)
        async def shut(session: wtio.WebTransportSession) -> None:
            await say(session, "nobody gets here")

        async with network.serve(router):
            async with network.connect("https://localhost/open") as session:
                assert ("x-by", "admit") in session.response_headers
                assert await session.receive_datagram() == b"open"
            async with network.connect("https://localhost/shut?token=secret") as session:
                assert (await session.wait_closed()).code == wtio.BODY_RAISED_CODE
                with pytest.raises(wtio.SessionClosed):
                    await session.receive_datagram()

    run(main)
    assert "only the last one may accept" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.unaudited("its only client is refused")
def test_whoever_returns_false_lets_nobody_in() -> None:
    async def main(network: Network) -> None:
        async def deny(request: wtio.SessionRequest) -> bool:
            return False

        async def allow(request: wtio.SessionRequest) -> None: ...

        router = wtio.Router(admit=deny)

        @router.session("/", admit=allow)
        async def handle(session: wtio.WebTransportSession) -> None:
            await say(session, "hello")

        async with network.serve(router):
            assert await answer(network, "/") == 500

    run(main)


def test_an_admission_may_choose_another_handler() -> None:
    async def main(network: Network) -> None:
        async def other(session: wtio.WebTransportSession) -> None:
            await say(session, "other")

        async def admit(request: wtio.SessionRequest) -> None:
            await request.serve(other)

        router = wtio.Router()

        @router.session("/", admit=admit)
        async def handle(session: wtio.WebTransportSession) -> None:
            await say(session, "the route's")

        async with network.serve(router):
            assert await answer(network, "/") == "other"

    run(main)


def test_hundreds_of_requests_at_once_are_all_let_in() -> None:
    # More than may be undecided (Limits.pending_requests).
    async def main(network: Network) -> None:
        router = wtio.Router()

        @router.session("/{number:int}")
        async def handle(session: wtio.WebTransportSession, number: int) -> None:
            await say(session, number)

        async with network.serve(router), network.client() as client:

            async def one(number: int) -> str:
                connector = client.connect(f"https://localhost/{number}", allow_pooling=True)
                async with connector as session:
                    return (await session.receive_datagram()).decode()

            assert await asyncio.gather(*map(one, range(300))) == [str(number) for number in range(300)]

    run(main)


def test_a_router_serves_requests_that_are_taken_one_by_one() -> None:
    async def main(network: Network) -> None:
        router = wtio.Router()

        @router.session("/{name}")
        async def handle(session: wtio.WebTransportSession, name: str) -> None:
            await say(session, name)

        async with network.serve() as server:

            async def take() -> None:
                async for request in server:
                    await request.serve(router)

            task = asyncio.ensure_future(take())
            assert await answer(network, "/blue") == "blue"
        await task

    run(main)


# -- ordinary requests


@RAW
def test_pages_are_answered_and_everything_else_is_404_or_405() -> None:
    async def main(network: Network) -> None:
        router, below = wtio.Router(), wtio.Router()

        @router.get("/health")
        def health(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, body=b"fine")

        @router.get("/rooms/{room}/size")
        async def size(request: wtio.HttpRequest, room: str) -> wtio.HttpResponse:
            await asyncio.sleep(0.01)
            return wtio.HttpResponse(status=200, body=room.encode())

        @router.session("/rooms/{room}")
        async def play(session: wtio.WebTransportSession, room: str) -> None:
            await say(session, room)

        @router.get("/rooms/lobby")
        def lobby(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, body=b"lobby")

        @below.get("/")
        def front(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, body=b"below")

        router.mount("/below", below)
        async with network.serve(router), HttpClient(network) as client:

            async def ask(path: str, method: str = "GET") -> tuple[int, bytes, str | None]:
                found = await client.get(path, method=method)
                return found.status, bytes(found.body), found.headers.get("allow")

            assert await ask("/health?x=1") == (200, b"fine", None)
            assert await ask("/health", "HEAD") == (200, b"", None)
            assert await ask("/health", "POST") == (405, b"", "GET, HEAD")
            assert await ask("/rooms/gr%C3%BCn/size") == (200, "grün".encode(), None)
            assert await ask("/rooms/lobby") == (200, b"lobby", None)
            assert await ask("/rooms/lobby", "PUT") == (405, b"", "CONNECT, GET, HEAD")
            assert await ask("/rooms/blue") == (405, b"", "CONNECT")
            assert await ask("/below/") == (200, b"below", None)
            assert await ask("/below") == (404, b"", None)
            assert await ask("/below/deeper") == (404, b"", None)
            assert await ask("/") == (404, b"", None)
            assert await answer(network, "/health") == 405
            assert await answer(network, "/rooms/blue") == "blue"

    run(main)


# -- the server


class Recorder(Site):
    """A site that notes what happens to it."""

    def __init__(self, log: list[str], name: str, *, fails: bool = False) -> None:
        self.log = log
        self.name = name
        self.fails = fails

    async def admit(self, request: wtio.SessionRequest, root: str = "") -> None:
        raise AssertionError("nobody asks")

    async def handle(self, session: wtio.WebTransportSession, root: str) -> None:
        raise AssertionError("nobody comes")

    def http(self, request: wtio.HttpRequest, root: str = "") -> None:
        raise AssertionError("nobody asks")

    async def start(self, timeouts: Timeouts) -> None:
        if self.fails:
            raise ValueError(self.name)
        self.log.append(f"+{self.name}")

    async def stop(self) -> None:
        self.log.append(f"-{self.name}")


def test_what_is_mounted_starts_and_stops_with_the_server() -> None:
    async def main(network: Network) -> None:
        log: list[str] = []
        router, inner = wtio.Router(), wtio.Router()
        one = Recorder(log, "one")
        router.mount("/a", one)
        router.mount("/b", inner)
        router.mount("/c", one)
        inner.mount("/", Recorder(log, "two"))
        server = network.serve(router)
        assert log == []
        async with server:
            assert log == ["+one", "+two"]
        assert log == ["+one", "+two", "-two", "-one"]

        # One that fails stops those before it, and the server does not start.
        log.clear()
        router.mount("/d", Recorder(log, "three", fails=True))
        with pytest.raises(ValueError, match="three"):
            await network.serve(router)
        assert log == ["+one", "+two", "-two", "-one"]

        # So does an address that is taken.
        log.clear()
        async with network.serve(port=5):
            with pytest.raises(OSError, match="port 5"):
                await network.serve(inner, port=5)
        assert log == ["+two", "-two"]

        # What never started is not stopped.
        log.clear()
        await network.serve(inner).close()
        assert log == []

    run(main)


@pytest.mark.parametrize("name", ["admit", "http"])
def test_a_router_brings_its_own_admission_and_hook(name: str) -> None:
    async def either(_: object) -> None: ...

    named: Any = {name: either}
    with pytest.raises(ValueError, match=f"{name} is given, and Router"):
        Network().serve(wtio.Router(), **named)


@pytest.mark.unaudited("its only session is closed with a code")
def test_a_handler_that_fails_is_logged_without_its_query(caplog: pytest.LogCaptureFixture) -> None:
    async def main(network: Network) -> None:
        router = wtio.Router()

        @router.session("/{name}")
        async def handle(session: wtio.WebTransportSession, name: str) -> None:
            raise KeyError(name)

        async with network.serve(router) as server:
            async with network.connect("https://localhost/x?token=secret") as session:
                assert (await session.wait_closed()).code == wtio.BODY_RAISED_CODE
            await server.close()

    caplog.set_level(logging.DEBUG)
    run(main)
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_a_program_that_has_no_routes_does_not_load_them() -> None:
    source = (
        "import sys, wtio\n"
        "new = [name for name in sys.modules if name.startswith(('wtio.asgi', 'wtio._rout', 'wtio.rout'))]\n"
        "assert not new, new\n"
        "assert wtio.Router is __import__('wtio.routing').routing.Router\n"
        "assert 'Router' in dir(wtio) or 'Router' in wtio.__all__\n"
    )
    subprocess.run([sys.executable, "-c", source], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Rooter'"):
        _ = wtio.Rooter  # type: ignore[attr-defined]
