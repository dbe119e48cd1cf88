"""Which servers run below one call of ``wtio.run``: they report here, and it closes them."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from wtio.config import Timeouts
    from wtio.session import WebTransportSession

__all__ = ["Running", "running"]


class Stoppable(Protocol):
    """What ``wtio.run`` needs from a server."""

    @property
    def timeouts(self) -> Timeouts: ...
    @property
    def sessions(self) -> list[WebTransportSession]: ...
    @property
    def is_closing(self) -> bool: ...
    async def close(self, code: int, reason: str) -> None: ...
    def abort(self) -> None: ...


class Running:
    """The servers that a program has started."""

    __slots__ = ("is_awaited", "leaving", "servers")

    def __init__(self) -> None:
        # Those that were started, also while they close. Weak, because a program may start and drop any number.
        self.servers: WeakSet[Stoppable] = WeakSet()
        # Whether anybody has waited for one of them to be closed: the program then notices the end by itself.
        self.is_awaited = False
        # Set when it is told to end, so that balancers send newcomers elsewhere. Never reset.
        self.leaving = asyncio.Event()


running: Final[ContextVar[Running | None]] = ContextVar("wtio.run", default=None)
"""The program's, in all tasks that it has started; None outside of ``wtio.run``."""
