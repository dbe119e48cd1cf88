"""A bus for hubs of one process: several servers, or tests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wtio.hub._bus import Bus, BusConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MemoryBus"]


class MemoryBus(Bus):
    """A bus for the hubs of one event loop, for instance of several servers in one process, or in tests.

    One hub alone needs none.
    """

    __slots__ = ("_connections",)

    def __init__(self) -> None:
        # Open connections in the order in which they were made; one for each hub.
        self._connections: dict[_MemoryConnection, None] = {}

    @property
    def name(self) -> str:
        """``memory``."""
        return "memory"

    async def connect(self, receive: Callable[[str, bytes], None]) -> BusConnection:
        """Connect a hub. Never waits."""
        connection = _MemoryConnection(self._connections, receive)
        self._connections[connection] = None
        return connection

    def __repr__(self) -> str:
        return f"<MemoryBus hubs={len(self._connections)}>"


class _MemoryConnection(BusConnection):
    """What one hub has of the bus."""

    __slots__ = ("_all", "_channels", "_receive")

    def __init__(self, everybody: dict[_MemoryConnection, None], receive: Callable[[str, bytes], None]) -> None:
        # The bus's own dictionary.
        self._all = everybody
        self._receive = receive
        # The channels that the hub subscribes to.
        self._channels: set[str] = set()

    async def listen(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def subscribe(self, channels: Sequence[str]) -> None:
        self._channels.update(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self._channels.difference_update(channels)

    async def publish(self, batch: Sequence[tuple[str, bytes]]) -> None:
        for channel, payload in batch:
            for connection in list(self._all):
                connection.take(channel, payload)

    def take(self, channel: str, payload: bytes) -> None:
        """Receive what anybody has published."""
        if channel in self._channels:
            self._receive(channel, payload)

    async def close(self) -> None:
        self._all.pop(self, None)
