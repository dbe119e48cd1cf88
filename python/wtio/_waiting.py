"""What tasks wait on: ``Flag`` for something that happens once, ``Waiters`` for reports of the engine.

Most sessions and connections never have a waiting task, so the containers for them are made when the first one waits.
An idle session is a fifth smaller because of that.

asyncio runs a woken task in the loop's next iteration, and its answer is sent at the end of that one. With ``Waiter``
in place of a future, the driver runs the task in the same callback, as soon as the engine is done. That saves an
iteration on each side of an echo.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wtio._core import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from wtio._waker import Waker

__all__ = [
    "Arrivals",
    "Flag",
    "Waiter",
    "Waiters",
    "check_loop",
    "is_cancelled",
    "refuse_foreign",
    "start_task",
    "wake",
]

_Item = TypeVar("_Item")


def check_loop(event_loop: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Raise RuntimeError unless ``event_loop`` is the running loop; None means that it belongs to no loop yet."""
    if event_loop is not None and asyncio.get_running_loop() is not event_loop:
        raise _foreign(event_loop, what)


def refuse_foreign(event_loop: asyncio.AbstractEventLoop | None, is_between_runs: bool) -> None:
    """Raise RuntimeError for a call that did not come from its event loop. The engine calls this.

    Between two runs of a loop, while no other loop runs on its thread, only a closed loop is refused: the call would
    never take effect.
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


def start_task(
    coroutine: Coroutine[Any, Any, None], name: str | None, running: set[asyncio.Task[None]]
) -> asyncio.Task[None]:
    """Start a task on the running loop, and keep it in ``running`` until it has finished: asyncio keeps none itself."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    # With eager tasks it may have finished already.
    if not task.done():
        running.add(task)
        task.add_done_callback(running.discard)
    return task


def is_cancelled() -> bool:
    """Whether somebody has cancelled the current task. A CancelledError that it meets may also be another task's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def wake(waiter: Waiter | None) -> None:
    """Wake a task, if one waits."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def wake_first(waiters: list[Waiter]) -> None:
    """Wake the first waiting task, passing over those that were cancelled.

    A list, because nearly always one task waits: a deque takes ten times the memory of a short list.
    """
    while waiters:
        waiter = waiters.pop(0)
        if not waiter.done():
            waiter.set_result(None)
            return


def wake_all(waiters: Iterable[Waiter]) -> None:
    """Wake all waiting tasks."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


class Flag:
    """Something that happens once: an ``asyncio.Event`` without ``clear``, at a tenth of its size."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        self._waiters: list[Waiter] | None = None

    def set(self) -> None:
        """Set the flag and wake every waiting task. Idempotent."""
        self.is_set = True
        waiters, self._waiters = self._waiters, None
        if waiters:
            wake_all(waiters)

    async def wait(self) -> None:
        """Wait until the flag is set; return at once if it is. Cancelling changes nothing."""
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


class Arrivals(Generic[_Item]):
    """Items that arrive one by one, and the tasks that wait for them. Each item goes to one task, in order.

    The code that puts items in limits how many there are. To take one::

        while not arrivals:
            await arrivals.wait(loop)
        return arrivals.take()
    """

    __slots__ = ("_waiters", "items")

    def __init__(self) -> None:
        # Items that no task has taken yet, the oldest first. None until the first one comes, which saves memory.
        self.items: deque[_Item] | None = None
        # Waiting tasks in order of their arrival. None until the first one waits.
        self._waiters: list[Waiter] | None = None

    def __len__(self) -> int:
        return len(self.items) if self.items else 0

    def put(self, item: _Item) -> None:
        """Add an item and wake the first waiting task."""
        items = self.items
        if items is None:
            items = self.items = deque()
        items.append(item)
        if self._waiters:
            wake_first(self._waiters)

    def take(self) -> _Item:
        """Take the oldest item, of which there must be one."""
        assert self.items
        return self.items.popleft()

    def discard(self, item: _Item) -> None:
        """Remove an item, if it is there."""
        if self.items and item in self.items:
            self.items.remove(item)

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until an item may be there, or ``wake`` is called. Look again then. Cancelling loses no item."""
        waiter = Waiter(loop)
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if self._waiters and waiter in self._waiters:
                self._waiters.remove(waiter)
            elif self.items and self._waiters:
                # The task was woken for an item and cancelled before it took it: another task must.
                wake_first(self._waiters)
            raise

    def wake(self) -> None:
        """Wake all waiting tasks, because no more items will come."""
        waiters, self._waiters = self._waiters, None
        if waiters:
            wake_all(waiters)


class Waiters:
    """Tasks that wait for the same report of the engine, served in the order of their arrival.

    The engine gets this object in place of a ``Waiter``. A report wakes only the first task. If that task finds
    something, it wakes the next one (``pass_on``); if not, it waits again, at the front. So the cost of a report does
    not depend on how many tasks wait. A cancelled task leaves nothing behind in the engine and passes its wake-up on.
    """

    __slots__ = ("_is_registered", "_loop", "_register", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop, register: Callable[[Waker], None]) -> None:
        self._loop = loop
        self._register = register
        # In the order in which they are served.
        self._waiters: list[Waiter] = []
        self._is_registered = False

    def done(self) -> bool:
        """Return False: it can be registered any number of times."""
        return False

    def set_result(self, value: None, /) -> None:
        """Report that there is something to look at."""
        self._is_registered = False
        self.pass_on()

    def pass_on(self) -> None:
        """Wake the first waiting task."""
        wake_first(self._waiters)

    def wake(self) -> None:
        """Wake all waiting tasks."""
        waiters, self._waiters = self._waiters, []
        wake_all(waiters)

    async def wait(self, *, again: bool) -> None:
        """Wait for the next report.

        Cancelling leaves nothing behind.

        Args:
            again: Whether the last report brought this task nothing, so that it keeps its place at the front.
        """
        waiter = Waiter(self._loop)
        if again:
            self._waiters.insert(0, waiter)
        else:
            self._waiters.append(waiter)
        if not self._is_registered:
            self._is_registered = True
            self._register(self)
        try:
            if waiter.done():
                # Completed at once: give other tasks a chance, so that trying again can never spin.
                await asyncio.sleep(0)
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.pass_on()
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
