"""What a server does with ordinary HTTP/3 requests: it runs the application's hook, so many times at once and no more.

``_connection/http`` brings the requests and sends the answers.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from wtio._arguments import check_instance
from wtio._http import HttpRequest, HttpResponse, close_body
from wtio._url import without_query
from wtio._waiting import is_cancelled, start_task
from wtio.errors import ClientGoneError, ContentTooLargeError, RequestTimeout

if TYPE_CHECKING:
    from wtio._connection.http import Exchange
    from wtio._failures import FailureLog
    from wtio.config import Limits

__all__ = ["HttpHook", "HttpService"]

HttpHook = Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse | None] | None]

_logger = logging.getLogger("wtio.server")


class HttpService:
    """Answers the ordinary requests of all connections of one server."""

    __slots__ = ("_failures", "_hook", "_limits", "_running", "tasks")

    def __init__(self, hook: HttpHook | None, *, limits: Limits, failures: FailureLog) -> None:
        # The application's function; None answers every ordinary request with status 405.
        self._hook = hook
        # ``http_requests`` bounds ``_running``.
        self._limits = limits
        # The server's: logs what the hook raises, a few of each kind a minute.
        self._failures = failures
        # Requests that the hook answers, or whose answers the client has not received completely.
        self._running = 0
        # The tasks of these.
        self.tasks: set[asyncio.Task[None]] = set()

    def take(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        if self._hook is None:
            self._settle(exchange, _not_allowed())
        elif exchange.request.method == "CONNECT":
            # RFC 9110, sections 9.3.6 and 15.6.2: it asks for a tunnel, which a hook cannot provide.
            self._settle(exchange, HttpResponse(status=501))
        elif self._running >= self._limits.http_requests:
            self._settle(exchange, HttpResponse(status=503))
        else:
            self._running += 1
            # The hook does not begin here, where the events of its connection are being passed on. With eager tasks it
            # could read its body at once, whose events may follow this one.
            asyncio.get_running_loop().call_soon(self._start, exchange)

    def _settle(self, exchange: Exchange, response: HttpResponse) -> None:
        exchange.answer(response)
        exchange.close()

    def _start(self, exchange: Exchange) -> None:
        if not exchange.is_over:
            # The end of the body, or a reset, may be in the engine already.
            exchange.note_readable()
        if exchange.is_over:  # the client left in the meantime
            self._end(exchange)
            return
        name = f"wtio hook {exchange.request.method} {without_query(exchange.request.path)}"
        task = start_task(self._run(exchange), name, self.tasks)
        if not task.done():
            exchange.task = task

    def _end(self, exchange: Exchange) -> None:
        exchange.close()
        self._running -= 1

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._answer(exchange)
            await exchange.delivered()
        except asyncio.CancelledError as error:
            # The server is closing. If the client has gone, ``refuse`` does nothing.
            if is_cancelled():
                exchange.refuse(503)
                raise
            # Nobody has cancelled the hook: what it waited for was.
            request = exchange.request
            self._failures.write(
                error, logging.ERROR, "the http hook failed on %s %s", request.method, without_query(request.path)
            )
            exchange.refuse(500)
        finally:
            self._end(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        """Run the hook and send its answer. Whatever goes wrong ends this exchange alone."""
        request = exchange.request
        response = None
        failure = "the http hook failed on %s %s"
        try:
            try:
                response = await self._ask(request)
                failure = "the answer to %s %s cannot be sent"
                head = exchange.compose(response)
                failure = "the body of the answer to %s %s failed"
                await exchange.respond(head, response.body)
            finally:
                if response is not None:
                    await close_body(response.body)
        except Exception as error:
            status = _status(error)
            # A hook that fails when it is cancelled mostly fails because of that.
            if status == 500 and not is_cancelled():
                self._failures.write(error, logging.ERROR, failure, request.method, without_query(request.path))
            else:
                _logger.debug(
                    "%s %s came to nothing: %s", request.method, without_query(request.path), type(error).__name__
                )
            exchange.refuse(status)

    async def _ask(self, request: HttpRequest) -> HttpResponse:
        assert self._hook is not None
        result: Any = self._hook(request)
        if inspect.isawaitable(result):
            result = await result
        check_instance("the hook's result", result, HttpResponse, "such as wtio.HttpResponse(status=404)")
        return _not_allowed() if result is None else result


def _not_allowed() -> HttpResponse:
    """The answer of a server that has sessions only."""
    return HttpResponse(status=405, headers=(("allow", "CONNECT"),))


def _status(error: Exception) -> int:
    """How a request is answered whose hook let this error through."""
    # If the client has gone, no answer is sent at all.
    kinds = ((ContentTooLargeError, 413), (RequestTimeout, 408), (ClientGoneError, 400))
    for kind, status in kinds:
        if isinstance(error, kind) or (isinstance(error, ExceptionGroup) and error.split(kind)[1] is None):
            return status
    return 500
