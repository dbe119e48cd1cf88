"""``check``: an application that raises when another one breaks the specification."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from wtio.asgi._rules import HttpRules, LifespanRules, Rules, SessionRules, SpecificationError

if TYPE_CHECKING:
    from wtio.asgi._types import ASGIApplication, Message, Receive, Scope, Send

__all__ = ["check"]


def check(application: ASGIApplication) -> ASGIApplication:
    """Wrap an application, for tests: what breaks the specification raises SpecificationError.

    It is checked more strictly than a server would: also keys that do not exist, such as ``more`` for ``more_body``,
    names of headers in upper case, bodies that do not have their ``content-length``, two tasks in one ``receive`` or
    sending on one stream, and what an application returns. The error is raised where the application sends the message,
    and again when it returns, if it has swallowed the error.

    The result can be served by any server, or called by a test. Scopes of types other than ``http``, ``lifespan`` and
    ``webtransport`` are passed on unchecked.

    Args:
        application: An application of ASGI 3.

    Returns:
        An application that does the same.

    Raises:
        TypeError: ``application`` cannot be called.

    Source: the ASGI specification 3.0; docs/asgi-webtransport.md.
    """
    if not callable(application):
        raise TypeError(f"application must be an ASGI application, not {type(application).__name__}")

    @functools.wraps(application, updated=())
    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        rules = _rules(scope)
        if rules is None:
            await application(scope, receive, send)
            return
        checking = _Checking(rules, receive, send)
        result: object = await application(scope, checking.receive, checking.send)  # type: ignore[func-returns-value]
        checking.check_return(result)

    return checked


def _rules(scope: Scope) -> Rules | None:
    """Those for a kind of scope; None if there are none."""
    match scope["type"]:
        case "http":
            return HttpRules(scope["method"], thorough=True)
        case "lifespan":
            return LifespanRules(thorough=True)
        case "webtransport":
            return SessionRules(scope.get("subprotocols", ()), thorough=True)
    return None


class _Checking:
    """One call of an application."""

    __slots__ = ("_first", "_is_receiving", "_receive", "_rules", "_send", "_sending")

    def __init__(self, rules: Rules, receive: Receive, send: Send) -> None:
        self._rules = rules
        self._receive = receive
        self._send = send
        # The first error, which the application may have swallowed.
        self._first: SpecificationError | None = None
        # Whether a task is in ``receive``, and the streams on which one is sending.
        self._is_receiving = False
        self._sending: set[Any] = set()

    async def receive(self) -> Message:
        # Starlette has two there while it streams an answer, one of them to hear of a disconnect.
        if self._is_receiving and isinstance(self._rules, SessionRules):
            self._fail(SpecificationError("two tasks are in `receive` at once"))
        self._is_receiving = True
        try:
            message = await self._receive()
        finally:
            self._is_receiving = False
        self._rules.note_received(message)
        return message

    async def send(self, message: Message) -> None:
        try:
            kind = self._rules.check_sent(message)
        except SpecificationError as error:
            self._fail(error)
        stream = message.get("stream") if kind == "webtransport.stream.send" else None
        if stream is not None and stream in self._sending:
            self._fail(SpecificationError("two tasks are sending on one stream at once"))
        self._sending.add(stream)
        try:
            await self._send(message)
        finally:
            self._sending.discard(stream)

    def check_return(self, result: object) -> None:
        if self._first is not None:
            raise self._first
        if result is not None:
            raise SpecificationError(f"the application returned {type(result).__name__}; it returns None")
        self._rules.check_return()

    def _fail(self, error: SpecificationError) -> Any:
        self._first = self._first or error
        raise error
