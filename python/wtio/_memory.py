"""The memory budget of a server: its figures, and who has to go when more is held than it allows.

The engines count, let windows grow and refuse newcomers (crates/engine/src/memory.rs). That is enough as long as only
clients take memory. What the application itself lets grow, such as data for clients that do not read, can exceed the
budget. Then the connections that hold most are closed until the rest fits.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wtio._arguments import sealed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from wtio._connection.server import ServerConnection
    from wtio._driver import Driver

__all__ = ["MemoryBudget", "ServerMemory"]

_logger = logging.getLogger("wtio.server")

# In this many seconds, one connection that is closed is logged and the others are counted: clients could fill the log.
_PERIOD: Final = 60.0


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMemory:
    """A snapshot of a server's memory budget, from ``Server.memory``. Sizes are bytes."""

    limit: int
    """``Limits.server_memory``."""
    used: int
    """What the budget is charged for: about ``held`` and ``promised`` together."""
    held: int
    """What connections and sessions take by themselves, what came and was not read, and what waits to be sent or
    acknowledged."""
    promised: int
    """What clients may still send before anything more is read."""
    connections_refused: int
    """Connections that were refused because they would not have fitted."""
    connections_closed: int
    """Connections that were closed with H3_EXCESSIVE_LOAD because they held most."""


class MemoryBudget:
    """The budget that the sockets of one server share."""

    __slots__ = ("_closed", "_connections", "_drivers", "_is_due", "_quiet_until", "_unlogged")

    def __init__(self, drivers: Sequence[Driver], connections: Collection[ServerConnection]) -> None:
        # The server's own collections of its sockets and connections, which it changes.
        self._drivers = drivers
        self._connections = connections
        # Connections that were closed so far, and how many of them since the last line in the log.
        self._closed = 0
        self._unlogged = 0
        # Until when, on the loop's clock, no further line is written.
        self._quiet_until = 0.0
        # Whether ``_relieve`` is scheduled.
        self._is_due = False

    def watch(self, driver: Driver) -> None:
        """Let a new socket of the server share the budget."""
        if self._drivers:
            driver.endpoint.share_memory(self._drivers[0].endpoint)

        def note_short() -> None:
            # Connections are not closed here, where events are being passed on: some may be for them.
            if not self._is_due:
                self._is_due = True
                driver.loop.call_soon(self._relieve)

        driver.on_memory_short = note_short

    def figures(self) -> ServerMemory | None:
        """Where the budget stands; None if there is none, or no socket yet."""
        endpoints = [stats for driver in list(self._drivers) if (stats := driver.endpoint.memory()) is not None]
        if not endpoints:
            return None
        return ServerMemory(
            limit=endpoints[0].most,
            used=endpoints[0].used,
            held=sum(stats.held for stats in endpoints),
            promised=sum(stats.promised for stats in endpoints),
            connections_refused=endpoints[0].refused,
            connections_closed=self._closed,
        )

    def _relieve(self) -> None:
        """Close connections, the largest holder first, until the rest fits."""
        self._is_due = False
        drivers = [driver for driver in self._drivers if not driver.is_closed]
        for _ in range(len(self._connections)):
            excess = max((driver.endpoint.memory_excess for driver in drivers), default=0)
            connection, held = self._largest_holder() if excess else (None, 0)
            if connection is None:
                break
            self._log(connection, held, excess)
            self._closed += 1
            connection.shed()
        for driver in drivers:
            # Writers on other connections had to wait while memory was short. Driving wakes them.
            driver.drive()

    def _largest_holder(self) -> tuple[ServerConnection | None, int]:
        """The connection that holds most, and how many bytes; None if none is open."""
        most = 0
        largest = None
        for driver in self._drivers:
            if (holder := driver.endpoint.largest_holder()) is not None and holder[1] > most:
                core_id, most = holder
                largest = next((c for c in self._connections if c.driver is driver and c.core.id == core_id), None)
        return largest, most

    def _log(self, connection: ServerConnection, held: int, excess: int) -> None:
        now = connection.loop.time()
        if now < self._quiet_until:
            self._unlogged += 1
            return
        self._quiet_until = now + _PERIOD
        ip, port = connection.core.remote_address
        _logger.warning(
            "closed the connection from %s port %d with H3_EXCESSIVE_LOAD: it held %d bytes, more than any other, and "
            "the server %d above its limit of %d (Limits.server_memory)%s",
            ip,
            port,
            held,
            excess,
            connection.limits.server_memory or 0,
            f"; {self._unlogged} more since the last such line" if self._unlogged else "",
        )
        self._unlogged = 0
