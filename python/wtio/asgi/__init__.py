"""ASGI: any application of ASGI 3 behind wtio's HTTP/3, and sessions for those that know WebTransport.

``wtio.serve(wtio.asgi.Application(app), ...)`` serves Starlette, FastAPI, Django and others: their scope ``http`` with
bodies both ways and back pressure, and ``lifespan``. Sessions reach an application as a scope of the type
``webtransport``, which is experimental and written down in docs/asgi-webtransport.md. ``check`` finds what an
application does against the specification.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from wtio._arguments import check_bool, check_choice
from wtio._site import Site
from wtio._waiting import start_task
from wtio._words import SERVER_CLOSES
from wtio.asgi._checker import check
from wtio.asgi._http import HttpCall
from wtio.asgi._lifespan import Lifespan
from wtio.asgi._rules import SpecificationError
from wtio.asgi._sessions import WEBTRANSPORT_VERSION, SessionCall
from wtio.asgi._types import ASGIApplication, Message, Receive, Scope, Send
from wtio.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Mapping

    from wtio._http import HttpRequest, HttpResponse
    from wtio._request import SessionRequest
    from wtio.config import Timeouts
    from wtio.session import WebTransportSession

__all__ = [
    "WEBTRANSPORT_VERSION",
    "ASGIApplication",
    "Application",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "SpecificationError",
    "check",
]

# Seconds for what a closing server has cancelled.
_PATIENCE: Final = 1.0


class Application(Site):
    """An ASGI application, for ``wtio.serve`` as the handler, or for ``wtio.Router.mount``.

    Each request has a call of the application in a task of its own, at most ``Limits.http_requests`` at once. It
    counts until the application returns, background tasks included. When the client leaves, the application is not
    cancelled: ``receive`` returns ``http.disconnect``, and ``send`` of more raises an OSError. When the server closes,
    calls that go on after ``Timeouts.drain`` and ``Timeouts.close`` are cancelled. No extension of ASGI is offered,
    such as trailers or ``pathsend``. What an application raises is logged as for hooks of ``serve(http=...)``.

    Args:
        application: The application, of ASGI 3.
        lifespan: ``"auto"`` (default) runs the application's lifespan: its startup before the server opens its sockets,
            its shutdown when the server has closed, each for at most ``Timeouts.lifespan``. A startup that fails fails
            ``serve``; an application that ends or raises without an answer has no lifespan. With ``"on"`` that is an
            error, too. ``"off"`` runs none, for an application whose lifespan another server runs.
        state: What is copied into ``scope["state"]`` of every request, before the lifespan adds to it. Default None.
        webtransport: Whether the application knows the scope ``webtransport``. Its ``scope["state"]`` also has what the
            admission of a router has stored on ``request.state``. Default False: sessions are refused as at an unknown
            path.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: ``lifespan`` is unknown.

    Source: the ASGI specification 3.0; docs/asgi-webtransport.md.
    """

    __slots__ = ("_application", "_has_webtransport", "_lifespan", "_mode", "_patience", "_servers", "_state", "_tasks")

    def __init__(
        self,
        application: ASGIApplication,
        *,
        lifespan: str = "auto",
        state: Mapping[str, Any] | None = None,
        webtransport: bool = False,
    ) -> None:
        if not callable(application):
            raise TypeError(f"application must be an ASGI application, not {type(application).__name__}")
        if not isinstance(lifespan, str):
            raise TypeError(f"lifespan must be a str, not {type(lifespan).__name__}")
        check_choice("lifespan", lifespan, ("auto", "on", "off"))
        if state is not None and not hasattr(state, "keys"):
            raise TypeError(f"state must be a mapping or None, not {type(state).__name__}")
        check_bool("webtransport", webtransport)
        self._application = application
        self._mode = lifespan
        # Given by the user; the lifespan has a copy.
        self._state = state
        self._has_webtransport = webtransport
        # The running lifespan, from start to stop; None if there is none.
        self._lifespan: Lifespan | None = None
        # ``Timeouts.lifespan`` of the server, in seconds.
        self._patience = 0.0
        # How many servers it has been started for. Without a lifespan there may be several.
        self._servers = 0
        # Calls of the application, for requests and sessions. The server bounds their number and waits for them.
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, timeouts: Timeouts) -> None:
        """Run the application's startup. Called by the server."""
        if self._mode == "off":
            self._servers += 1
            return
        if self._lifespan is not None:
            raise LocalProtocolError("this application is being served already; lifespan='off' serves it twice")
        self._patience = timeouts.lifespan
        self._lifespan = Lifespan(self._application, self._state or {})
        try:
            await self._lifespan.start(patience=self._patience, required=self._mode == "on")
        except BaseException:
            self._lifespan = None
            raise
        self._servers += 1

    def abort(self) -> None:
        """Cancel all calls of the application, unless another server has it, too. Called by the server."""
        if self._servers == 1:
            for task in list(self._tasks):
                task.cancel(SERVER_CLOSES)

    async def stop(self) -> None:
        """Run the application's shutdown. Called by the server."""
        self._servers -= 1
        if self._tasks and not self._servers:
            # Those that the server has given up.
            for task in self._tasks:
                task.cancel(SERVER_CLOSES)
            await asyncio.wait(self._tasks, timeout=_PATIENCE)
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.stop(patience=self._patience)

    async def admit(self, request: SessionRequest, root: str = "") -> None:
        """Ask the application about a request for a session. Called by the server."""
        if self._has_webtransport:
            state = {**(self._scope_state() or {}), **vars(request.state)}
            await SessionCall(self._application, request, root=root, state=state, spawn=self._spawn).decide()
        else:
            await request.reject()

    async def handle(self, session: WebTransportSession, root: str) -> None:
        """Not used: the application answers requests itself."""
        raise LocalProtocolError("an ASGI application serves only sessions whose request it has accepted")

    def http(self, request: HttpRequest, root: str = "") -> Awaitable[HttpResponse]:
        """Let the application answer an ordinary request. Called by the server."""
        return HttpCall(self._application, request, root=root, state=self._scope_state(), spawn=self._spawn).answer()

    def _scope_state(self) -> Mapping[str, Any] | None:
        return self._state if self._lifespan is None else self._lifespan.state

    def _spawn(self, call: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return start_task(call, name, self._tasks)
