"""Routes by path for sessions, and for the few pages that a WebTransport server has beside them.

``wtio.Router`` is given to ``wtio.serve`` as the handler. It is not a web framework: for more than ``get``, mount an
ASGI application (``wtio.asgi.Application``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from wtio._arguments import check_handler, check_hook, check_some_handler
from wtio._http import HttpResponse
from wtio._routes import Call, Mount, Page, Pattern, Routes, SessionRoute, check_prefix
from wtio._site import Site

__all__ = ["Router"]

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[object]])
_Hook = TypeVar("_Hook", bound=Callable[..., HttpResponse | Awaitable[HttpResponse | None] | None])


class Router(Routes):
    """Chooses by path who serves a session or answers an ordinary request: ``wtio.serve(router, tls=tls)``.

    ::

        router = wtio.Router()

        @router.session("/rooms/{room}")
        async def play(session: wtio.WebTransportSession, room: str) -> None:
            await session.serve_streams(...)

        @router.get("/health")
        def health(request: wtio.HttpRequest) -> wtio.HttpResponse:
            return wtio.HttpResponse(status=200, body=b"fine")

    The path of a request is matched decoded, without its query, and as a whole: ``/rooms`` is not ``/rooms/``. Routes
    are tried in the order in which they were made, and the first one that matches answers, as in Starlette.

    A parameter is written ``{name}`` or ``{name:type}``. The types are Starlette's: ``str`` (default: one or more
    characters, no slash), ``int`` and ``float`` (not negative), ``path`` (anything, with slashes, also nothing) and
    ``uuid``. What is captured is given to functions by the name of their arguments, as in FastAPI: each gets those
    that it names, or all of them as ``**parameters``.

    A request for a session at an unknown path is refused as the client's draft wants it (404 or 405), and nobody is
    asked. An ordinary one gets 404, or 405 with ``allow`` if the path is there for another method or for sessions.

    Args:
        admit: ``async def admit(request)``, which decides about each request for a session that has a route, as
            ``serve(admit=...)`` does, before the route's own ``admit``. If it rejects the request, the route's is not
            asked; it may accept it only if nobody is asked after it. A router that is mounted in another one is asked
            after that. Default None, which admits all.

    Raises:
        TypeError: ``admit`` is not a coroutine function, or needs further arguments.
    """

    __slots__ = ()

    def __init__(self, *, admit: Callable[..., Awaitable[object]] | None = None) -> None:
        check_handler("admit", admit)
        super().__init__(None if admit is None else Call("admit", admit, ()))

    def session(
        self, path: str, *, admit: Callable[..., Awaitable[object]] | None = None
    ) -> Callable[[_Handler], _Handler]:
        """Let the decorated function handle the sessions of a path, as ``wtio.serve(handler)`` does.

        Its first argument is the session, others have the names of the path's parameters. It is returned as it is.

        Args:
            path: Such as ``/rooms/{room}``.
            admit: Decides about the requests for this path, after the router's own; with the request as its first
                argument and the path's parameters by name. Default None, which admits all.

        Raises:
            ValueError: ``path`` is no path, or its parameters are not clear.
            TypeError: An argument is of the wrong type, or a function needs an argument that the path does not have.
        """
        pattern = Pattern(path)
        check_handler("admit", admit)
        admission = None if admit is None else Call("admit", admit, pattern.names)

        def decorate(handler: _Handler) -> _Handler:
            check_some_handler("handler", handler)
            self.add(SessionRoute(pattern, Call("handler", handler, pattern.names), admission))
            return handler

        return decorate

    def get(self, path: str) -> Callable[[_Hook], _Hook]:
        """Let the decorated function answer GET and HEAD for a path, as ``serve(http=...)`` does.

        It may be plain or ``async def``. Its first argument is the ``HttpRequest``, others have the names of the path's
        parameters. It is returned as it is. Admission is for sessions and not asked.

        Args:
            path: Such as ``/rooms/{room}/size``.

        Raises:
            ValueError: ``path`` is no path, or its parameters are not clear.
            TypeError: ``path`` is not a str, or the function needs an argument that the path does not have.
        """
        pattern = Pattern(path)

        def decorate(hook: _Hook) -> _Hook:
            if hook is None:
                raise TypeError("hook must be a function, not None")
            check_hook("hook", hook)
            self.add(Page(pattern, Call("hook", hook, pattern.names)))
            return hook

        return decorate

    def mount(self, path: str, site: Site) -> None:
        """Leave everything below a path to another router, or to an ASGI application.

        That is every path that begins with ``path`` and a slash. No later route of this router is tried then, even if
        nothing there matches, as in Starlette. A mounted router matches what is left of the path, from that slash on.
        An application gets the whole path, and ``path`` as its ``root_path``.

        Args:
            path: Such as ``/api``, without parameters; ``/`` leaves everything that no route before it matches.
            site: A ``wtio.Router``, to which routes may still be added, or a ``wtio.asgi.Application``.

        Raises:
            ValueError: ``path`` is no path, or ``site`` has this router mounted.
            TypeError: An argument is of the wrong type.
        """
        prefix = check_prefix(path)
        if not isinstance(site, Site):
            raise TypeError(f"site must be a wtio.Router or a wtio.asgi.Application, not {type(site).__name__}")
        self.add(Mount(prefix, site))
