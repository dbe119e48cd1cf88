"""What tasks wait on: something that happens once, and something the engine reports again and again.

Most sessions and connections never have anybody wait for most of this, so what holds the waiting tasks is made when the
first one comes: an idle session is a fifth smaller for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Flag", "Waiters"]


class Flag:
    """Something that happens once. As ``asyncio.Event`` without ``clear``, at a tenth of its size."""

    __slots__ = ("_futures", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._futures: list[asyncio.Future[None]] | None = None

    def set(self) -> None:
        """It has happened: everybody who waits goes on. Idempotent."""
        self.is_set = True
        futures, self._futures = self._futures, None
        for future in futures or ():
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Wait until it has happened; at once if it has. Cancelling changes nothing."""
        if self.is_set:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._futures is None:
            self._futures = []
        self._futures.append(future)
        try:
            await future
        except BaseException:
            if self._futures is not None and future in self._futures:
                self._futures.remove(future)
            raise


class Waiters:
    """Tasks that wait for one thing that the engine reports, in the order in which they came.

    The engine gets this object in place of a future. It wakes the first task only; a task that found something wakes
    the next (``pass_on``), and one that found nothing waits again, as the first. So a report costs as many looks as it
    is worth, however many wait. A cancelled task leaves nothing behind in the engine and hands on what woke it.
    """

    __slots__ = ("_futures", "_is_registered", "_loop", "_register")

    def __init__(self, loop: asyncio.AbstractEventLoop, register: Callable[[asyncio.Future[None]], None]) -> None:
        self._loop = loop
        self._register = register
        self._futures: deque[asyncio.Future[None]] = deque()
        self._is_registered = False

    def done(self) -> bool:
        """Part of what the driver asks of a future."""
        return False

    def set_result(self, _: None) -> None:
        """Part of what the driver asks of a future: the engine has something to report."""
        self._is_registered = False
        self.pass_on()

    def pass_on(self) -> None:
        """Let the task that waits first look."""
        while self._futures:
            future = self._futures.popleft()
            if not future.done():
                future.set_result(None)
                return

    def wake(self) -> None:
        """Let all tasks look."""
        futures, self._futures = self._futures, deque()
        for future in futures:
            if not future.done():
                future.set_result(None)

    async def wait(self, *, again: bool) -> None:
        """Wait for the next report; ``again`` after one that brought nothing. Cancelling leaves nothing behind."""
        future = self._loop.create_future()
        if again:
            self._futures.appendleft(future)
        else:
            self._futures.append(future)
        if not self._is_registered:
            self._is_registered = True
            self._register(cast("asyncio.Future[None]", self))
        try:
            if future.done():
                # Reported on the spot: let the loop turn, so that looking again can never spin.
                await asyncio.sleep(0)
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self.pass_on()
            elif future in self._futures:
                self._futures.remove(future)
            raise
