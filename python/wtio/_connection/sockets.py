"""Where a client's connections get their sockets from. It knows which connections use them, and nothing of sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wtio._waiting import check_loop
from wtio.errors import ConnectError

if TYPE_CHECKING:
    from wtio._connection.base import Connection
    from wtio._driver import Driver, Transport
    from wtio._options import EndpointOptions

__all__ = ["Sockets"]


class Sockets:
    """Where a client's connections get their sockets: each one of its own, or all of an address family the same."""

    def __init__(self, transport: Transport, options: EndpointOptions, *, is_shared: bool = False) -> None:
        self.transport = transport
        """Looks up hosts and opens sockets: the system's, or a simulated network's."""
        self.options = options
        """Of all sockets and connections that come from here."""
        self.is_shared = is_shared
        """Whether connections share one socket for each address family."""
        self.is_closed = False
        """No socket is opened any more."""
        self.event_loop: asyncio.AbstractEventLoop | None = None
        """The loop of shared sockets, once they are used."""
        self.connections: set[Connection] = set()
        """Those that are not lost yet."""
        # Of shared sockets, by whether they are IPv6.
        self._drivers: dict[bool, Driver] = {}

    def settle(self) -> None:
        """Belong to the running loop from the first use on. RuntimeError on any other loop."""
        if self.is_shared:
            self.check_loop()
            self.event_loop = asyncio.get_running_loop()

    def check_loop(self) -> None:
        """Raise RuntimeError on another loop than that of the first use."""
        check_loop(self.event_loop, "this client")

    def open(self, is_ipv6: bool) -> Driver:
        """Return the driver for one more connection. OSError if no socket can be opened."""
        if self.is_closed:
            raise ConnectError("the client was closed")
        driver = self._drivers.get(is_ipv6)
        if driver is None or driver.is_closed:
            driver = self.transport.open(
                self.options, ip="::" if is_ipv6 else "0.0.0.0", port=0, dual_stack=False, server_tls=None
            )
            if self.is_shared:
                self._drivers[is_ipv6] = driver
        return driver

    def release(self, driver: Driver) -> None:
        """A connection of the driver is over."""
        if not self.is_shared or self.is_closed:
            driver.close_when_idle()

    def close(self) -> None:
        """Close shared sockets as soon as their connections are drained (RFC 9000, section 10.2)."""
        self.is_closed = True
        for driver in self._drivers.values():
            driver.close_when_idle()
