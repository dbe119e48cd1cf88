"""What a server can be given whole: one object that answers everything that its clients ask for.

``serve`` takes a ``Site`` as its handler; it brings its own admission and its own hook. ``wtio.Router`` is one, and
``wtio.asgi.Application`` is another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from wtio._http import HttpRequest, HttpResponse
    from wtio._request import SessionRequest
    from wtio.config import Timeouts
    from wtio.session import WebTransportSession

__all__ = ["Site"]


class Site(ABC):
    """Answers requests for sessions and ordinary requests, and serves the sessions.

    A site may be mounted in another one. ``root`` is where: the beginning of the decoded path that is not its own, such
    as ``/api``; empty for the site of the server itself.
    """

    __slots__ = ()

    async def __call__(self, session: WebTransportSession) -> object:
        """Serve a session that ``admit`` has let in."""
        return await self.handle(session, "")

    @abstractmethod
    async def admit(self, request: SessionRequest, root: str = "") -> object:
        """Decide about a request for a session, as ``serve(admit=...)``."""

    @abstractmethod
    async def handle(self, session: WebTransportSession, root: str) -> object:
        """Serve a session, as ``serve(handler)``."""

    @abstractmethod
    def http(self, request: HttpRequest, root: str = "") -> HttpResponse | Awaitable[HttpResponse | None] | None:
        """Answer an ordinary request, as ``serve(http=...)``."""

    async def start(self, timeouts: Timeouts) -> None:  # noqa: B027 - most have nothing to do
        """Get ready. Called once, before the server opens its sockets; if it raises, the server does not start."""

    def abort(self) -> None:  # noqa: B027 - most have nothing to do
        """Cancel what goes on: the server shuts down at once. Called between ``start`` and ``stop``, or not at all."""

    async def stop(self) -> None:  # noqa: B027 - most have nothing to do
        """Tidy up. Called once after ``start``, when the server has closed everything."""
