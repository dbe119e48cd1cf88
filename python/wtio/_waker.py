"""What can be woken. Apart from ``_waiting``, so that the border can name it without knowing who waits how."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Waker"]


class Waker(Protocol):
    """What the engine completes: a ``Waiter``, ``Waiters`` or ``asyncio.Future[None]``."""

    def done(self) -> bool:
        """Whether nobody waits any more, so that there is no need to set a result."""

    def set_result(self, value: None, /) -> None:
        """Report that it has happened."""
