"""What tasks wait on: something that happens once, and something the engine reports again and again.

Most sessions and connections never have anybody wait for most of this, so what holds the waiting tasks is made when the
first one comes: an idle session is a fifth smaller for it.

asyncio runs a task that was woken in the loop's next turn, and its answer leaves at the end of that. With ``Waiter`` in
place of a future, the driver runs the task in the turn that woke it, as soon as the engine is done
(``Driver._take_turn``): that spares a turn on each side of an echo.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from wtio._core import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Flag", "Waiter", "Waiters", "Waker", "check_loop", "refuse_foreign"]


def check_loop(event_loop: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Raise RuntimeError unless ``event_loop`` is the one that runs here; None belongs to no loop yet."""
    if event_loop is not None and asyncio.get_running_loop() is not event_loop:
        raise _foreign(event_loop, what)


def refuse_foreign(event_loop: asyncio.AbstractEventLoop | None, is_between_runs: bool) -> None:
    """Raise RuntimeError for a call that did not come from its event loop. The engine calls this.

    Between two runs of a loop, where no other loop runs on its thread either, only a closed one is refused: nothing
    would ever come of the call.
    """
    if not is_between_runs or event_loop is None or event_loop.is_closed():
        raise _foreign(event_loop, "this session")


def _foreign(event_loop: asyncio.AbstractEventLoop | None, what: str) -> RuntimeError:
    if event_loop is None or event_loop.is_closed():
        return RuntimeError(f"{what} belongs to an event loop that is closed; make another one on the running loop")
    if event_loop.is_running():
        return RuntimeError(
            f"{what} belongs to an event loop on another thread; hand calls to it with loop.call_soon_threadsafe() and "
            "coroutines with asyncio.run_coroutine_threadsafe()"
        )
    return RuntimeError(f"{what} belongs to another event loop; make another one on the running loop")


class Waker(Protocol):
    """What the engine reports to: a ``Waiter``, ``Waiters``, an ``asyncio.Future[None]``."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, value: None, /) -> None:
        """It has happened."""


class Flag:
    """Something that happens once. As ``asyncio.Event`` without ``clear``, at a tenth of its size."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiters: list[Waiter] | None = None

    def set(self) -> None:
        """It has happened: everybody who waits goes on. Idempotent."""
        self.is_set = True
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until it has happened; at once if it has. Cancelling changes nothing."""
        if self.is_set:
            return
        waiter = Waiter(asyncio.get_running_loop())
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)
            raise


class Waiters:
    """Tasks that wait for one thing that the engine reports, in the order in which they came.

    The engine gets this object in place of a ``Waiter``. It wakes the first task only; a task that found something
    wakes the next (``pass_on``), and one that found nothing waits again, as the first. So a report costs as many looks
    as it is worth, however many wait. A cancelled task leaves nothing behind in the engine and hands on what woke it.
    """

    __slots__ = ("_is_registered", "_loop", "_register", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop, register: Callable[[Waker], None]) -> None:
        self._loop = loop
        self._register = register
        self._waiters: deque[Waiter] = deque()
        self._is_registered = False

    def done(self) -> bool:
        """Never: it registers again and again."""
        return False

    def set_result(self, value: None, /) -> None:
        """The engine has something to report."""
        self._is_registered = False
        self.pass_on()

    def pass_on(self) -> None:
        """Let the task that waits first look."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def wake(self) -> None:
        """Let all tasks look."""
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, *, again: bool) -> None:
        """Wait for the next report; ``again`` after one that brought nothing. Cancelling leaves nothing behind."""
        waiter = Waiter(self._loop)
        if again:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        if not self._is_registered:
            self._is_registered = True
            self._register(self)
        try:
            if waiter.done():
                # Reported on the spot: let the loop turn, so that looking again can never spin.
                await asyncio.sleep(0)
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.pass_on()
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
