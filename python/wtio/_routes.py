"""Routes: patterns of paths, and which function answers which path. ``wtio.routing.Router`` collects them.

Paths are matched as Starlette does it: percent-decoded and without their query, in the order of the routes, and the
first that matches answers. What is captured is given to functions as arguments, by name, as FastAPI does it.
"""

from __future__ import annotations

import inspect
import keyword
import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote
from uuid import UUID

from wtio._admission import check_result
from wtio._http import HttpResponse
from wtio._site import Site
from wtio._url import without_query
from wtio.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

    from wtio._http import HttpRequest
    from wtio._request import SessionRequest
    from wtio.config import Timeouts
    from wtio.session import WebTransportSession

__all__ = ["Call", "Mount", "Page", "Pattern", "Routes", "SessionRoute", "check_prefix"]


# -- patterns


class _Converter(NamedTuple):
    """A type of parameter."""

    regex: str
    convert: Callable[[str], object]
    """Raises ValueError for what is no value of the type all the same."""


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # 400 digits are infinite
        raise ValueError("not finite")
    return value


# The types of Starlette's paths. An int of more than 4300 digits is none for Python.
_CONVERTERS: Final = {
    "str": _Converter("[^/]+", str),
    "int": _Converter("[0-9]+", int),
    "float": _Converter(r"[0-9]+(?:\.[0-9]+)?", _float),
    "path": _Converter(".*", str),
    "uuid": _Converter("[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}", UUID),
}
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")


class Pattern:
    """The pattern of a route, such as ``/rooms/{room}/players/{number:int}``.

    Raises:
        TypeError: It is not a str.
        ValueError: It cannot match, or could match one path in several ways.
    """

    __slots__ = ("_converters", "_regex", "text")

    def __init__(self, text: str) -> None:
        _check_path(text)
        parameters = _PARAMETER.findall(text)
        self.text: str = text
        # By the names of the parameters.
        self._converters: dict[str, Callable[[str], object]] = {}
        for name, kind in parameters:
            if name in self._converters:
                raise ValueError(f"path `{text}` has two parameters of the name `{name}`")
            if keyword.iskeyword(name):
                raise ValueError(f"path `{text}`: `{name}` is a word of Python's and no name of an argument")
            if (kind or "str") not in _CONVERTERS:
                raise ValueError(f"path `{text}`: {kind!r} is no type; there are {', '.join(_CONVERTERS)}")
            self._converters[name] = _CONVERTERS[kind or "str"].convert
        # More of them could match a long path in very many ways, and trying all of them takes seconds.
        if any(len(_PARAMETER.findall(segment)) > 1 for segment in text.split("/")):
            raise ValueError(f"path `{text}` has two parameters between two slashes; take them apart in the function")
        if [kind for _, kind in parameters].count("path") > 1:
            raise ValueError(f"path `{text}` has two parameters of the type `path`; one is the most")
        rest = _PARAMETER.sub("", text)
        if "{" in rest or "}" in rest:
            raise ValueError(f"path `{text}`: a parameter is written {{name}} or {{name:type}}")
        regex, position = "", 0
        for found in _PARAMETER.finditer(text):
            name, kind = found.groups()
            regex += f"{re.escape(text[position : found.start()])}(?P<{name}>{_CONVERTERS[kind or 'str'].regex})"
            position = found.end()
        self._regex = re.compile(regex + re.escape(text[position:]), re.DOTALL)

    @property
    def names(self) -> Collection[str]:
        """The names of the parameters."""
        return self._converters.keys()

    def match(self, path: str) -> dict[str, object] | None:
        """Return the parameters in a decoded path; None if it is another one."""
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        try:
            return {name: convert(found[name]) for name, convert in self._converters.items()}
        except ValueError:
            return None


def check_prefix(path: object) -> str:
    """Check where something is mounted, and return it without a slash at its end."""
    _check_path(path)
    assert isinstance(path, str)
    if "{" in path or "}" in path:
        raise ValueError(f"path `{path}` has a parameter; it belongs into the paths of the routes that need it")
    return path.rstrip("/")


def _check_path(path: object) -> None:
    if not isinstance(path, str):
        raise TypeError(f"path must be str, not {type(path).__name__}")
    if not path.startswith("/"):
        raise ValueError(f"path `{path}` must begin with a slash")
    if found := re.search("[?#%]", path):
        raise ValueError(f"path `{path}` has a `{found[0]}`; it is matched decoded, and without a query")


# -- functions


class Call:
    """A function of the application, and which of the parameters of a path it wants.

    Args:
        name: What it is, in words.
        function: Its first argument is a request or a session.
        names: The parameters that are always there.

    Raises:
        TypeError: It needs an argument that it would not get.
    """

    __slots__ = ("_function", "_takes_all", "_wanted")

    def __init__(self, name: str, function: Callable[..., Any], names: Collection[str]) -> None:
        self._function = function
        # Whether it has ``**parameters``, and otherwise which parameters it names.
        self._takes_all = False
        self._wanted: set[str] = set()
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return  # a function in C that does not say
        first = parameters.pop(0) if parameters and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY else None
        if first is None or first.kind is inspect.Parameter.VAR_KEYWORD:
            raise TypeError(f"{name} takes no argument; its first one is the session or the request")
        for one in parameters:
            if one.kind is inspect.Parameter.VAR_KEYWORD:
                self._takes_all = True
            elif one.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
                self._wanted.add(one.name)
                if one.name not in names and one.default is inspect.Parameter.empty:
                    there = f"the path has {', '.join(names)}" if names else "there is no parameter in the path"
                    raise TypeError(f"{name} needs `{one.name}`; {there}")
            elif one.kind is inspect.Parameter.POSITIONAL_ONLY and one.default is inspect.Parameter.empty:
                raise TypeError(f"{name} takes `{one.name}` by position; parameters are given by name")
        if first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and first.name in names:
            raise TypeError(f"{name}: `{first.name}` is the session or the request, and a parameter of the path")

    def __call__(self, subject: object, parameters: Mapping[str, object]) -> Any:
        """Call it with what it wants of the parameters."""
        if self._takes_all:
            return self._function(subject, **parameters)
        return self._function(subject, **{name: parameters[name] for name in self._wanted if name in parameters})


# -- routes


class SessionRoute(NamedTuple):
    """Who serves the sessions of some paths."""

    pattern: Pattern
    handler: Call
    admit: Call | None


class Page(NamedTuple):
    """Who answers GET and HEAD for some paths."""

    pattern: Pattern
    hook: Call


class Mount(NamedTuple):
    """Who answers everything below a path."""

    prefix: str
    site: Site


_PAGE_METHODS: Final = ("GET", "HEAD")


class Routes(Site):
    """The routes of a router, in order, and the way through them."""

    __slots__ = ("_admit", "_routes", "_started")

    def __init__(self, admit: Call | None) -> None:
        # The application's; asked about all requests for sessions that a route matches, before the route's own. None
        # admits all.
        self._admit = admit
        # Of each path, the first that matches answers.
        self._routes: list[SessionRoute | Page | Mount] = []
        # The mounted sites that have started, in order.
        self._started: list[Site] = []

    def add(self, route: SessionRoute | Page | Mount) -> None:
        """Put a route behind the others.

        Raises:
            ValueError: A router would be mounted in itself.
        """
        if isinstance(route, Mount) and isinstance(route.site, Routes) and self in route.site.mounted():
            raise ValueError("site is this router, or has it mounted; its paths would have no end")
        self._routes.append(route)

    def mounted(self) -> Iterator[Site]:
        """This, and everything that is mounted in it."""
        yield self
        for route in self._routes:
            if isinstance(route, Mount):
                yield from route.site.mounted() if isinstance(route.site, Routes) else (route.site,)

    # -- sessions

    async def admit(self, request: SessionRequest, root: str = "") -> object:
        """Ask the router's admission, then that of the route, or of what is mounted there."""
        route, parameters = self._find_session(request.path, root)
        if route is None:
            await request.reject()
            return None
        last: Call | Site | None = route.site if isinstance(route, Mount) else route.admit
        if self._admit is not None:
            result = check_result(await self._admit(request, parameters))
            if last is None or (request.is_answered and not request.is_accepted):
                return result
            if request.is_answered:
                raise LocalProtocolError(
                    f"the admission of a router accepted `{without_query(request.path)}`, where another one follows "
                    "that has not been asked; only the last one may accept"
                )
        if isinstance(route, Mount):
            return await route.site.admit(request, root + route.prefix)
        return None if route.admit is None else await route.admit(request, parameters)

    async def handle(self, session: WebTransportSession, root: str) -> object:
        """Run the handler of the session's path."""
        route, parameters = self._find_session(session.path, root)
        if route is None:
            raise LocalProtocolError(f"no route leads to `{without_query(session.path)}`")
        if isinstance(route, Mount):
            return await route.site.handle(session, root + route.prefix)
        return await route.handler(session, parameters)

    def session_pattern(self, path: str, root: str = "") -> str | None:
        """Return the pattern of the route that serves the sessions of a path, with where it is mounted.

        None without one, and if something else than a router is mounted there. For traces: there are few of them.

        Args:
            path: Of a session, with or without a query.
            root: Where this router is mounted.
        """
        route, _ = self._find_session(path, root)
        if isinstance(route, Mount):
            inner = root + route.prefix
            return route.site.session_pattern(path, inner) if isinstance(route.site, Routes) else None
        return None if route is None else root + route.pattern.text

    def _find_session(self, path: str, root: str) -> tuple[SessionRoute | Mount | None, dict[str, object]]:
        own = _decoded(path)[len(root) :]
        for route in self._routes:
            if isinstance(route, Mount):
                if own.startswith(f"{route.prefix}/"):
                    return route, {}
            elif isinstance(route, SessionRoute) and (parameters := route.pattern.match(own)) is not None:
                return route, parameters
        return None, {}

    # -- ordinary requests

    def http(self, request: HttpRequest, root: str = "") -> HttpResponse | Awaitable[HttpResponse | None] | None:
        """Let the first route that matches answer; 404 without one, and 405 if it is there for another method."""
        own = _decoded(request.path)[len(root) :]
        allowed: list[str] = []
        for route in self._routes:
            if isinstance(route, Mount):
                if own.startswith(f"{route.prefix}/"):
                    return route.site.http(request, root + route.prefix)
                continue
            parameters = route.pattern.match(own)
            if parameters is None:
                continue
            if isinstance(route, Page):
                if request.method in _PAGE_METHODS:
                    result: HttpResponse | Awaitable[HttpResponse | None] | None = route.hook(request, parameters)
                    return result
                allowed += _PAGE_METHODS
            else:
                allowed.append("CONNECT")
        if not allowed:
            return HttpResponse(status=404)
        return HttpResponse(status=405, headers=(("allow", ", ".join(dict.fromkeys(allowed))),))

    # -- the server

    async def start(self, timeouts: Timeouts) -> None:
        """Start what is mounted, each once."""
        try:
            for site in dict.fromkeys(route.site for route in self._routes if isinstance(route, Mount)):
                await site.start(timeouts)
                self._started.append(site)
        except BaseException:
            await self.stop()
            raise

    def abort(self) -> None:
        """Cancel what goes on in what was started."""
        for site in self._started:
            site.abort()

    async def stop(self) -> None:
        """Stop what was started, the last one first."""
        while self._started:
            await self._started.pop().stop()


def _decoded(path: str) -> str:
    """The path as routes match it. Never fails; what is no UTF-8 becomes U+FFFD."""
    return unquote(without_query(path))
