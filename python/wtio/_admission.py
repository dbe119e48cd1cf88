"""Admission: requests that the application's ``admit`` decides about, before anything is answered.

``Admissions`` runs ``admit`` and makes sure that every request gets an answer, in bounded time. ``_service`` decides
which requests come here at all, and what becomes of an admitted session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from wtio._failures import FailureLog, severity
from wtio._request import SessionRequest
from wtio._waiting import is_cancelled
from wtio._words import SERVER_CLOSES
from wtio.errors import SessionClosed
from wtio.session import WebTransportSession
from wtio.stream import BODY_RAISED_CODE

if TYPE_CHECKING:
    from wtio._request import RequestState

__all__ = ["Admissions", "AdmitHook", "check_result"]

AdmitHook = Callable[[SessionRequest], Awaitable[object]]

_logger = logging.getLogger("wtio.server")


def check_result(result: object) -> object:
    """Return what ``admit`` returned.

    Raises:
        TypeError: It is neither None nor a session. Whoever returns False means to refuse, which must not let anybody
            in.
    """
    if result is not None and not isinstance(result, WebTransportSession):
        raise TypeError(
            f"admit returned {type(result).__name__}; it returns None, and calls request.reject(...) to refuse"
        )
    return result


class _Decision:
    """One request that ``admit`` is deciding about."""

    __slots__ = ("session", "task")

    def __init__(self, task: asyncio.Task[object] | None) -> None:
        # Runs ``admit``, and then the handler.
        self.task = task
        # The session, if ``admit`` has accepted the request and left it to the server's handler; None otherwise.
        self.session: WebTransportSession | None = None


class Admissions:
    """The requests of a server that ``admit`` is deciding about. ``Service`` bounds their number."""

    __slots__ = ("_admit", "_decisions", "_failures", "_timeout")

    def __init__(self, admit: AdmitHook, *, timeout: float, failures: FailureLog) -> None:
        # The application's function.
        self._admit = admit
        # ``Timeouts.request``, in seconds.
        self._timeout = timeout
        # The server's: logs what ``admit`` raises.
        self._failures = failures
        # By request, from the start of ``admit`` to its end.
        self._decisions: dict[RequestState, _Decision] = {}

    async def decide(self, request: RequestState) -> WebTransportSession | None:
        """Run ``admit`` in this task. Every way out leaves the request answered, unless its client is gone.

        Returns:
            The session for the server's handler; None if there is none, or if another handler has it.
        """
        if request.is_answered or request.is_gone:
            return None  # the server closed, or the client left, before this task began to run
        timer = asyncio.get_running_loop().call_later(self._timeout, self._expire, request)
        decision = self._decisions[request] = _Decision(asyncio.current_task())
        try:
            try:
                await self._ask(request)
            finally:
                timer.cancel()
                self._decisions.pop(request, None)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                if not request.is_answered:
                    request.reject(503)
                if decision.session is not None:
                    await decision.session.close(BODY_RAISED_CODE, "admit was cancelled")
                raise
            self._report(error, request, decision.session)
            if not request.is_answered:
                request.reject(500)
            if decision.session is not None:
                await decision.session.close(BODY_RAISED_CODE, "internal error")
            return None
        session = decision.session
        if session is not None and (info := session.close_info) is not None and info.closed_by == "local":
            # ``admit`` has closed it. After the client's close, the handler still runs: for what had arrived before.
            return None
        return session

    async def _ask(self, request: RequestState) -> None:
        """Run ``admit``. A request that it has neither accepted nor rejected is accepted."""
        check_result(await self._admit(SessionRequest(request)))
        if not request.is_answered and not request.has_left:
            request.accept()

    def _report(self, error: BaseException, request: RequestState, session: WebTransportSession | None) -> None:
        level = severity(error, has_ended=request.has_left or (session is not None and session.is_closed))
        if isinstance(error, SessionClosed) and level < logging.ERROR:
            _logger.debug("%s: admit ended with its client: %s", request.log_name, type(error).__name__)
            return
        words = "failed" if level >= logging.ERROR else "ended early"
        self._write(error, level, words, request)

    def _write(self, error: BaseException, level: int, words: str, request: RequestState) -> None:
        number = None if request.session is None else request.session.log_id
        self._failures.write(error, level, f"%s: admit {words}", request.log_name, session=number)

    # -- what happens meanwhile

    def note_accepted(self, request: RequestState, session: WebTransportSession) -> None:
        """A request has become a session."""
        if decision := self._decisions.get(request):
            decision.session = session

    def let_go(self, request: RequestState) -> None:
        """Another handler has the session."""
        if decision := self._decisions.get(request):
            decision.session = None

    def withdraw(self, request: RequestState) -> None:
        """Cancel ``admit`` for a request whose client is gone."""
        if (decision := self._decisions.get(request)) and decision.task is not None:
            decision.task.cancel("the client is gone")

    def refuse(self) -> None:
        """The server is closing: refuse all requests that are not answered yet."""
        for request, decision in list(self._decisions.items()):
            if not request.is_answered:
                request.reject(503)
                if decision.task is not None:
                    decision.task.cancel(SERVER_CLOSES)

    def _expire(self, request: RequestState) -> None:
        decision = self._decisions[request]
        late = TimeoutError(f"it took longer than {self._timeout:g} s (Timeouts.request)")
        self._write(late, logging.WARNING, "ended early", request)
        if not request.is_answered:
            request.reject(503)
        if decision.task is not None:
            decision.task.cancel("Timeouts.request")
