"""What a server does for its clients: it answers requests, runs handlers, and keeps count of connections and sessions.

``Server`` opens the sockets, starts and ends; ``ServerConnection`` brings the requests and sends the answers. Between
them, ``Service`` decides: which requests are accepted, which wait for the application, and which are refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from wtio._failures import FailureLog, severity
from wtio._http_service import HttpHook, HttpService
from wtio._url import without_query
from wtio._waiting import Arrivals
from wtio.errors import SessionClosed
from wtio.protocol.origin import allowed_form, is_own_origin
from wtio.session import WebTransportSession
from wtio.stream import BODY_RAISED_CODE

if TYPE_CHECKING:
    from wtio._connection.server import ServerConnection
    from wtio._request import RequestState
    from wtio.config import Limits
    from wtio.tls import ServerTLS

__all__ = ["ANY_ORIGIN", "Service", "SessionHandler"]

SessionHandler = Callable[[WebTransportSession], Awaitable[object]]

ANY_ORIGIN: Final = "*"
"""In ``serve(origins=...)``: pages from everywhere may connect."""

_logger = logging.getLogger("wtio.server")


class Service:
    """What a server's connections share. Belongs to one ``Server``, and to its event loop once that has started."""

    __slots__ = (
        "_failures",
        "_handler",
        "_has_refused_origin",
        "_limits",
        "_origins",
        "_requests",
        "_tls",
        "connections",
        "http",
        "is_closing",
        "protocols",
        "session_count",
        "tasks",
    )

    def __init__(
        self,
        handler: SessionHandler | None,
        *,
        limits: Limits,
        tls: ServerTLS,
        protocols: tuple[str, ...],
        origins: frozenset[str],
        http: HttpHook | None,
    ) -> None:
        # What the application gave to ``serve``. Without a handler, it takes the requests itself.
        self._handler = handler
        self._limits = limits
        # Origins of pages that may connect besides the server's own; ``ANY_ORIGIN`` allows all.
        self._origins = origins
        self.protocols = protocols
        self._tls = tls
        # Those that are not lost yet, at most ``Limits.connections``: the engine refuses further ones.
        self.connections: set[ServerConnection] = set()
        # Sessions of all connections that are not over on both sides. ``ServerConnection`` reports both changes.
        self.session_count = 0
        # Handlers that run, at most twice ``Limits.sessions``: some go on after their sessions have ended.
        self.tasks: set[asyncio.Task[None]] = set()
        # Requests that wait for the application, at most ``Limits.pending_requests``.
        self._requests: Arrivals[RequestState] = Arrivals()
        # Set by ``stop`` and never reset: every further request is refused.
        self.is_closing = False
        # Whether a page's origin was refused before: only the first refusal is logged as a warning.
        self._has_refused_origin = False
        # Logs what handlers and the hook raise, a few of each kind a minute.
        self._failures = FailureLog(_logger)
        # Answers ordinary HTTP/3 requests.
        self.http = HttpService(http, limits=limits, failures=self._failures)

    # -- what a connection reports, and asks

    @property
    def certificates(self) -> list[bytes]:
        """The chain that clients are shown, in DER, the server's own certificate first."""
        return self._tls.certificates

    def session_opened(self) -> None:
        """One more session is open."""
        self.session_count += 1

    def session_over(self) -> None:
        """A session has ended on both sides."""
        self.session_count -= 1

    def connection_lost(self, connection: ServerConnection) -> None:
        """A connection is gone, and its sessions with it."""
        self.connections.discard(connection)

    def take_request(self, request: RequestState) -> None:
        """A client asks for a session."""
        if self.is_closing:
            request.reject(503)
        elif not self._allows_origin(request):
            # Section 3.2: a server must check the origin of browsers; 403 says that it did.
            request.reject(403)
        elif self.session_count >= self._limits.sessions or len(self.tasks) >= 2 * self._limits.sessions:
            # Handlers may go on when their clients have left, and clients could come and leave again and again.
            request.reject(429)
        elif self._handler is not None:
            self._start_handler(request)
        elif len(self._requests) >= self._limits.pending_requests:
            request.reject(429)
        else:
            request.begin_waiting()
            self._requests.put(request)

    def _allows_origin(self, request: RequestState) -> bool:
        origin = request.origin
        if (
            origin is None
            or ANY_ORIGIN in self._origins
            or allowed_form(origin) in self._origins
            or is_own_origin(origin, request.authority)
        ):
            return True
        # Once aloud, because browsers do not tell their users; then quietly, because clients could fill the log.
        _logger.log(
            logging.DEBUG if self._has_refused_origin else logging.WARNING,
            "a page from %s was refused; serve(origins=...) allows further origins than %s",
            origin,
            f"https://{request.authority}",
        )
        self._has_refused_origin = True
        return False

    def withdraw_request(self, request: RequestState) -> None:
        """A request that may wait here has become void."""
        with suppress(ValueError):
            self._requests.items.remove(request)

    def _start_handler(self, request: RequestState) -> None:
        try:
            session = request.accept()
        except SessionClosed:
            return  # the client left in the same packet
        task = asyncio.get_running_loop().create_task(
            self._handle(session), name=f"wtio handler {without_query(session.path)}"
        )
        # With eager tasks it may have finished already.
        if not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _handle(self, session: WebTransportSession) -> None:
        assert self._handler is not None
        try:
            await self._handler(session)
        except asyncio.CancelledError:
            await session.close(BODY_RAISED_CODE, "handler was cancelled")
            raise
        except Exception as error:
            level = severity(error, session)
            if level >= logging.ERROR:
                self._failures.write(error, level, "handler of %r failed", session)
            elif session.is_closed:
                _logger.debug("handler of %r ended with its session: %s", session, error)
            else:
                self._failures.write(error, level, "handler of %r ended early", session)
            await session.close(BODY_RAISED_CODE, "internal error")
        else:
            await session.close()

    # -- what the server asks

    async def next_request(self) -> RequestState | None:
        """Wait for a request that no handler takes; None once the server is closing. Cancelling loses none."""
        while not self._requests:
            if self.is_closing:
                return None
            waiter = self._requests.add_waiter(asyncio.get_running_loop())
            try:
                await waiter
            except BaseException:
                self._requests.remove_waiter(waiter)
                raise
        return self._requests.items.popleft()

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """All tasks of the application: its handlers, and those that answer ordinary requests. A copy."""
        return self.tasks | self.http.tasks

    def stop(self) -> None:
        """Refuse further requests."""
        self.is_closing = True

    def refuse_waiting(self) -> None:
        """Refuse the requests that wait for the application, and wake the tasks that wait for requests."""
        while self._requests:
            self._requests.items.popleft().reject(503)
        self._requests.wake()

    async def end_handlers(self, patience: float, closer: asyncio.Task[Any] | None) -> None:
        """Wait until the handlers have returned, whose sessions have ended, and ordinary requests are answered.

        Those that do not end are cancelled.

        Args:
            patience: Seconds before handlers are cancelled, and again before they are left alone.
            closer: The task that closes the server; it may be a handler, which is not waited for.
        """
        tasks = self.running - {closer}
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        tasks = self.running - {closer}
        for task in tasks:
            task.cancel("the server is closing")
        if tasks:
            await asyncio.wait(tasks, timeout=patience)

    def close(self) -> None:
        """Log the failures that were only counted."""
        self._failures.close()
