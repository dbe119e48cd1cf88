"""What a hub needs of a bus. A bus connects; the hub decides when, and what to do if the connection is lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Bus", "BusConnection"]


class BusConnection(ABC):
    """One connection to a bus, until it is lost. The hub calls ``listen`` in a task of its own.

    Methods may raise anything when the connection is lost; the hub then closes it and makes another one. Each call is
    cancelled after ``HubLimits.bus_answer``, except ``listen``.
    """

    @abstractmethod
    async def listen(self) -> None:
        """Receive until the connection is lost, then return or raise. Cancelling ends it."""

    @abstractmethod
    async def subscribe(self, channels: Sequence[str]) -> None:
        """Subscribe to channels. Return when the bus has confirmed it; cancelling may leave it either way."""

    @abstractmethod
    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Take subscriptions back; cancelling may leave it either way."""

    @abstractmethod
    async def publish(self, batch: Sequence[tuple[str, bytes]]) -> None:
        """Publish payloads on channels, in order. Return when the bus has them; cancelling may leave it either way."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection, whatever its state. Cancelling gives it up."""


class Bus(ABC):
    """Carries messages between the hubs of several processes, each to everybody who is there, and keeps none.

    ``MemoryBus``, ``RedisBus`` and ``NatsBus`` are buses; derive from this class for another one.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is and where, for the log, without passwords."""

    @abstractmethod
    async def connect(self, receive: Callable[[str, bytes], None]) -> BusConnection:
        """Make one attempt to connect. Cancelling gives it up.

        Args:
            receive: To be called with channel and payload of whatever arrives. It never waits and never raises.
        """
