"""The lifespan of an application: its startup before the server's, and its shutdown after it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from wtio.asgi._rules import LifespanRules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wtio.asgi._types import ASGIApplication, Message

__all__ = ["Lifespan"]

_VERSION: Final = "2.0"
_logger = logging.getLogger("wtio.asgi")


class Lifespan:
    """One run of an application's lifespan.

    Source: the ASGI specification, lifespan.
    """

    __slots__ = ("_answers", "_application", "_failure", "_messages", "_rules", "_task", "state")

    def __init__(self, application: ASGIApplication, state: Mapping[str, Any]) -> None:
        self._application = application
        # What the application leaves there is copied into the scope of each request.
        self.state: dict[str, Any] = dict(state)
        self._rules = LifespanRules()
        # What it is told: ``startup``, and later ``shutdown``.
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        # Set by its answers.
        self._answers = {"startup": asyncio.Event(), "shutdown": asyncio.Event()}
        # What it said when something failed; None as long as nothing has.
        self._failure: str | None = None
        # Runs the application; None before the start, and if it knows no lifespan.
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, patience: float, required: bool) -> None:
        """Run the application's startup.

        Args:
            patience: Seconds that it may take.
            required: Whether an application that knows no lifespan, or fails before it answers, is an error.

        Raises:
            RuntimeError: It failed.
            TimeoutError: It took too long.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": _VERSION}, "state": self.state}
        self._task = asyncio.get_running_loop().create_task(self._run(scope), name="wtio asgi lifespan")
        try:
            answered = await self._ask("startup", patience)
        except BaseException:
            await self._end()
            raise
        if self._failure is not None:
            await self._end()
            raise RuntimeError(f"the startup of the application failed{self._failure}") from self._error()
        if not answered:
            error = self._error()
            self._task = None
            if required:
                raise RuntimeError("the application has no lifespan, and lifespan='on' requires it") from error
            _logger.debug("the application has no lifespan: %r", error)

    async def stop(self, *, patience: float) -> None:
        """Run the application's shutdown, for so many seconds. A failure is logged: the server is closed already."""
        if self._task is None:
            return
        try:
            try:
                answered = await self._ask("shutdown", patience)
            finally:
                await self._end()
        except TimeoutError as error:
            _logger.error("%s", error)
            return
        if self._failure is not None or not answered:
            _logger.error("the shutdown of the application failed%s", self._failure or "", exc_info=self._error())

    async def _ask(self, what: str, patience: float) -> bool:
        """Tell the application, and wait for its answer; False if it ends without one."""
        assert self._task is not None
        self._messages.put_nowait({"type": f"lifespan.{what}"})
        answer = asyncio.ensure_future(self._answers[what].wait())
        try:
            await asyncio.wait((answer, self._task), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.cancel()
        if not self._answers[what].is_set() and not self._task.done():
            raise TimeoutError(f"the {what} of the application took longer than {patience:g} s (Timeouts.lifespan)")
        return self._answers[what].is_set()

    async def _end(self) -> None:
        """Let the application return, at once."""
        assert self._task is not None
        if not self._task.done():
            # What follows the answer is seldom anything; a turn of the loop is enough for a return.
            await asyncio.wait((self._task,), timeout=0.1)
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=1)

    def _error(self) -> BaseException | None:
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def _run(self, scope: Message) -> None:
        await self._application(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        message = await self._messages.get()
        self._rules.note_received(message)
        return message

    async def _send(self, message: Message) -> None:
        _, what, how = self._rules.check_sent(message).split(".")
        if how == "failed":
            words = message.get("message", "")
            self._failure = f": {words}" if words else ""
        self._answers[what].set()
