"""What a server does for its clients: it answers requests, runs handlers, and keeps count of connections and sessions.

``Server`` opens the sockets, starts and ends; ``ServerConnection`` brings the requests and sends the answers. Between
them, ``Service`` decides: which requests are accepted, which wait for the application, and which are refused.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from wtio._addresses import AddressSessions
from wtio._admission import Admissions, AdmitHook
from wtio._failures import FailureLog, place_of
from wtio._http_service import HttpHook, HttpService
from wtio._log import SERVER, PacedLines, session_name
from wtio._stats import SessionCounts
from wtio._url import without_query
from wtio._waiting import Arrivals, Flag, is_cancelled, start_task
from wtio._words import SERVER_CLOSES
from wtio.errors import SessionClosed
from wtio.protocol.origin import allowed_form, is_own_origin
from wtio.stream import BODY_RAISED_CODE

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from wtio._connection.server import ServerConnection
    from wtio._request import RequestState, SessionHandler
    from wtio.config import Limits, Timeouts
    from wtio.errors import ClosedBy
    from wtio.session import WebTransportSession

__all__ = ["ANY_ORIGIN", "Service"]

ANY_ORIGIN: Final = "*"
"""In ``serve(origins=...)``: pages from everywhere may connect."""


# Of handlers that do not let themselves be cancelled, so many are named in the log.
_MOST_UNFINISHED: Final = 10


class Service:
    """What a server's connections share. Belongs to one ``Server``, and to its event loop once that has started."""

    __slots__ = (
        "_admissions",
        "_drain_end",
        "_failures",
        "_few_sessions",
        "_handler",
        "_handling",
        "_has_refused_origin",
        "_limits",
        "_origins",
        "_requests",
        "_spared",
        "address_sessions",
        "connections",
        "counts",
        "http",
        "is_closing",
        "lines",
        "protocols",
        "session_count",
        "tasks",
        "unanswered",
    )

    def __init__(
        self,
        handler: SessionHandler | None,
        *,
        admit: AdmitHook | None,
        limits: Limits,
        timeouts: Timeouts,
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
        # Those that are not lost yet, half-open ones included. The engine refuses more than ``Limits`` allows.
        self.connections: set[ServerConnection] = set()
        # Sessions of all connections that are not over on both sides. ``ServerConnection`` reports both changes.
        self.session_count = 0
        # The same, by the address of the client.
        self.address_sessions = AddressSessions(limits.sessions_per_address)
        # Requests that are not answered yet, at most ``Limits.pending_requests``. ``take_request`` and
        # ``request_settled`` count them.
        self.unanswered = 0
        # Handlers that run, also those that ``admit`` still decides about. At most twice ``Limits.sessions``, because
        # some go on after their sessions have ended.
        self.tasks: set[asyncio.Task[None]] = set()
        # The sessions of those in which a handler is at work.
        self._handling: dict[asyncio.Task[Any], WebTransportSession] = {}
        # Requests that wait for ``async for request in server``.
        self._requests: Arrivals[RequestState] = Arrivals()
        # Set by ``stop`` and never reset: every further request is refused.
        self.is_closing = False
        # Whether a page's origin was refused before: only the first refusal is logged as a warning.
        self._has_refused_origin = False
        # Logs what handlers, also those of streams, and the hook raise, a few of each kind a minute.
        self._failures = FailureLog(SERVER, warns_first=True)
        # Writes what the log says of connections at DEBUG.
        self.lines = PacedLines(SERVER)
        # Totals for ``Server.stats``.
        self.counts = SessionCounts()
        # Asks the application about requests, if it wants to be asked.
        self._admissions = (
            None if admit is None else Admissions(admit, timeout=timeouts.request, failures=self._failures)
        )
        # While the server drains: set when no more sessions are left than ``_spared``.
        self._few_sessions: Flag | None = None
        self._spared = 0
        # When that ends at the latest; None while it does not.
        self._drain_end: asyncio.Timeout | None = None
        # Answers ordinary HTTP/3 requests.
        self.http = HttpService(http, limits=limits, failures=self._failures)

    # -- what a connection reports, and asks

    @property
    def failures(self) -> FailureLog:
        """Logs what handlers raise."""
        return self._failures

    def session_opened(self, address: str) -> None:
        """One more session is open."""
        self.session_count += 1
        self.counts.opened += 1
        self.address_sessions.add(address)

    def session_over(self, address: str, closed_by: ClosedBy) -> None:
        """A session has ended on both sides."""
        self.session_count -= 1
        self.counts.closed[closed_by] += 1
        self.address_sessions.remove(address)
        if self._few_sessions is not None and self.session_count <= self._spared:
            self._few_sessions.set()

    def connection_lost(self, connection: ServerConnection) -> None:
        """A connection is gone, and its sessions with it."""
        self.connections.discard(connection)

    def take_request(self, request: RequestState) -> None:
        """A client asks for a session."""
        self.unanswered += 1
        limits = self._limits
        if self.is_closing:
            request.reject(503)
        elif not self._allows_origin(request):
            # Section 3.2: a server must check the origin of browsers; 403 says that it did.
            request.reject(403)
        elif self.session_count + self.unanswered > limits.sessions or len(self.tasks) >= 2 * limits.sessions:
            # Each request may become a session. Handlers may go on when their clients have left, and clients could come
            # and leave again and again.
            request.reject(429)
        elif self.address_sessions.refuses(request.address):
            request.reject(429)
        elif self._admissions is None and self._handler is not None:
            self._start_handler(request, self._handler)
        elif self.unanswered > limits.pending_requests:
            request.reject(429)
        elif self._admissions is not None:
            self._start(self._admit(request, self._admissions), f"wtio admit {without_query(request.path)}")
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
        SERVER.log(
            logging.DEBUG if self._has_refused_origin else logging.WARNING,
            "a page from %s was refused; serve(origins=...) allows further origins than %s",
            origin,
            f"https://{request.authority}",
        )
        self._has_refused_origin = True
        return False

    def withdraw_request(self, request: RequestState) -> None:
        """A request that may wait here has become void."""
        if self._admissions is not None:
            self._admissions.withdraw(request)
        self._requests.discard(request)

    def request_settled(self) -> None:
        """A request is answered, or its client is gone."""
        self.unanswered -= 1

    def request_rejected(self, status: int) -> None:
        """A request is answered with a status that refuses it."""
        self.counts.note_rejected(status)

    def request_accepted(self, request: RequestState, session: WebTransportSession) -> None:
        """A request has become a session."""
        if self._admissions is not None:
            self._admissions.note_accepted(request, session)

    def run_handler(self, request: RequestState, session: WebTransportSession, handler: SessionHandler) -> None:
        """Run a handler that the application has chosen for a session."""
        if self._admissions is not None:
            self._admissions.let_go(request)
        self._start_handling(session, handler)

    def _start_handler(self, request: RequestState, handler: SessionHandler) -> None:
        try:
            session = request.accept()
        except SessionClosed:
            return  # the client left in the same packet
        self._start_handling(session, handler)

    def _start_handling(self, session: WebTransportSession, handler: SessionHandler) -> None:
        self._start(self._handle(session, handler), _task_name(session))

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        start_task(coroutine, name, self.tasks)

    async def _admit(self, request: RequestState, admissions: Admissions) -> None:
        if self.is_closing:
            request.reject(503)  # since this task was made
            return
        session = await admissions.decide(request)
        if session is not None:
            # With ``admit`` there is a handler: see ``server.make_server``.
            assert self._handler is not None
            if (task := asyncio.current_task()) is not None:
                task.set_name(_task_name(session))
            await self._handle(session, self._handler)

    async def _handle(self, session: WebTransportSession, handler: SessionHandler) -> None:
        self._handling[_running_task()] = session
        try:
            try:
                await handler(session)
            finally:
                del self._handling[_running_task()]
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                await session.close(BODY_RAISED_CODE, "handler was cancelled")
                raise
            number = session.log_id
            name = session_name(number, session.path)
            self._failures.report(error, "%s: handler", name, has_ended=session.is_closed, session=number)
            await session.close(BODY_RAISED_CODE, "internal error")
        else:
            await session.close()

    # -- what the server asks

    async def next_request(self) -> RequestState | None:
        """Wait for a request that no handler takes; None once the server is closing. Cancelling loses none."""
        while not self._requests:
            if self.is_closing:
                return None
            await self._requests.wait(asyncio.get_running_loop())
        return self._requests.take()

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """All tasks of the application: its handlers, and those that answer ordinary requests. A copy."""
        return self.tasks | self.http.tasks

    def stop(self) -> None:
        """Refuse further requests."""
        self.is_closing = True

    def refuse_waiting(self) -> None:
        """Refuse the requests that wait for the application, and wake the tasks that wait for requests.

        Those that a task has taken are left to it.
        """
        if self._admissions is not None:
            self._admissions.refuse()
        while self._requests:
            self._requests.take().reject(503)
        self._requests.wake()

    async def drain(self, patience: float, closer: asyncio.Task[Any] | None) -> None:
        """Wait until handlers and answers to ordinary requests have ended, and all sessions are over.

        Args:
            patience: Seconds after which it returns in any case.
            closer: The task that closes the server; it may be a handler, which is not waited for, nor is its session.
        """
        self._spared = 1 if closer in self.tasks else 0
        self._few_sessions = Flag()
        if self.session_count <= self._spared:
            self._few_sessions.set()
        try:
            async with asyncio.timeout(patience) as self._drain_end:
                while tasks := self.running - {closer}:
                    await asyncio.wait(tasks)
                # Without a handler, nobody else knows when the application is done with a session.
                await self._few_sessions.wait()
        except TimeoutError:
            return
        finally:
            self._drain_end = None

    def shorten_drain(self, patience: float) -> None:
        """End draining after so many seconds from now, if it is going on and would take longer."""
        clock = self._drain_end
        if clock is not None and not clock.expired() and (end := clock.when()) is not None:
            clock.reschedule(min(end, asyncio.get_running_loop().time() + patience))

    async def end_handlers(self, patience: float, closer: asyncio.Task[Any] | None) -> None:
        """Wait until the handlers have returned, whose sessions have ended, and ordinary requests are answered.

        Those that do not end are cancelled. Those that go on nevertheless are named in the log.

        Args:
            patience: Seconds before handlers are cancelled, and again before they are left alone.
            closer: The task that closes the server; it may be a handler, which is not waited for.
        """
        tasks = self.running - {closer}
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        tasks = self.running - {closer}
        for task in tasks:
            task.cancel(SERVER_CLOSES)
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=patience)
            self._report_unfinished(list(unfinished), patience)

    def _report_unfinished(self, tasks: list[asyncio.Task[None]], patience: float) -> None:
        for task in tasks[:_MOST_UNFINISHED]:
            session = self._handling.get(task)
            what = task.get_name().removeprefix("wtio ")
            if session is not None:
                what = f"{session_name(session.log_id, session.path)}: handler"
            SERVER.warning(
                "%s%s still runs %g s after it was cancelled (Timeouts.close); the server waits for it no longer",
                what,
                place_of(task),
                patience,
                extra={"kind": "failure", "session": None if session is None else session.log_id},
            )
        if len(tasks) > _MOST_UNFINISHED:
            SERVER.warning("%d more handlers still run after they were cancelled", len(tasks) - _MOST_UNFINISHED)

    def close(self) -> None:
        """Log the failures that were only counted."""
        self._failures.close()


def _running_task() -> asyncio.Task[Any]:
    # No local variable of a handler's frames: the traceback of what it raised would hold the task that holds the error.
    task = asyncio.current_task()
    assert task is not None
    return task


def _task_name(session: WebTransportSession) -> str:
    """Name the task of a handler, for asyncio's lines."""
    return f"wtio handler of {session_name(session.log_id, session.path)}"
