"""Cancel a coroutine exactly at one of its await points.

A task can be cancelled while the future it waits for is still open, and also when that future is done already but the
task has not run yet. The second is where wake-ups, streams and bytes get lost, and chance hardly ever finds it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

Result = TypeVar("Result")
When = Literal["waiting", "woken"]


class Interrupted(Generic[Result]):
    """``await Interrupted(coroutine, point, when)`` raises CancelledError into it at its ``point``-th await point.

    A coroutine that has fewer ends as if nothing had happened.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Result], point: int, when: When) -> None:
        self._coroutine = coroutine
        self._point = point
        self._when = when
        self.points = 0

    def __await__(self) -> Generator[Any, Any, Result]:
        step = self._coroutine.send
        argument: Any = None
        while True:
            try:
                future = step(argument)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            self.points += 1
            is_here = self.points == self._point
            if is_here and self._when == "waiting":
                if future is not None:
                    # What asyncio's own task does: it cancels the future, and the coroutine gets it an iteration later.
                    future._asyncio_future_blocking = False
                    future.cancel()
                    yield None
                step, argument = self._coroutine.throw, asyncio.CancelledError()
                continue
            try:
                yield future
            except BaseException as error:
                step, argument = self._coroutine.throw, error
            else:
                step, argument = self._coroutine.send, None
                if is_here:
                    step, argument = self._coroutine.throw, asyncio.CancelledError()


async def until(condition: Callable[[], bool]) -> None:
    """Wait, in virtual time, for something that no event announces."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def interrupted(coroutine: Coroutine[Any, Any, Result], point: int, when: When) -> tuple[bool, Result | None]:
    """Whether the coroutine came to its end, and with what."""
    try:
        return True, await Interrupted(coroutine, point, when)
    except asyncio.CancelledError:
        return False, None
