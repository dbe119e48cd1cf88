"""What can be woken. In a module of its own, so that the border's stub need not import ``_waiting``."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Waker"]


class Waker(Protocol):
    """What the engine completes: a ``Waiter``, ``Waiters`` or ``asyncio.Future[None]``."""

    def done(self) -> bool:
        """Whether it was woken or cancelled, so that ``set_result`` must not be called."""

    def set_result(self, value: None, /) -> None:
        """Report that it has happened."""
