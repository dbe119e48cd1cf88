"""Where a client's connections get their sockets from. It knows which connections use them, and nothing of sessions."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from wtio._driver import Address
from wtio._qlog_directory import warn_of_qlogs
from wtio._waiting import check_loop
from wtio.errors import ConnectError

if TYPE_CHECKING:
    from wtio._connection.base import Connection
    from wtio._driver import Driver, Transport
    from wtio._options import EndpointOptions

__all__ = ["Sockets"]


class Sockets:
    """Where a client's connections get their sockets: each one of its own, or all of an address family the same."""

    def __init__(
        self,
        transport: Transport,
        options: EndpointOptions,
        *,
        is_shared: bool = False,
        local: Address | None = None,
    ) -> None:
        warn_of_qlogs(is_client=True)
        self.transport = transport
        """Looks up hosts and opens sockets: the system's, or a simulated network's."""
        self.options = options
        """Of all sockets and connections that come from here."""
        self.is_shared = is_shared
        """Whether connections share one socket for each address family."""
        self.is_closed: bool = False
        """No socket is opened any more."""
        self.event_loop: asyncio.AbstractEventLoop | None = None
        """The loop of shared sockets, once they are used."""
        self.connections: set[Connection] = set()
        """Those that are not lost yet."""
        # Where to send from; None: from wherever the system likes.
        self._local = local
        # Of shared sockets, by whether they are IPv6. One with a port of its own is shared by all attempts, also by
        # those of a single session, for as long as there is a connection.
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
            driver = self._open(self._local or Address("::" if is_ipv6 else "0.0.0.0", 0, is_ipv6), is_ipv6)
            if self.is_shared or (self._local is not None and self._local.port):
                self._drivers[is_ipv6] = driver
        return driver

    def _open(self, local: Address, is_ipv6: bool) -> Driver:
        if local.is_ipv6 is not is_ipv6:
            families = ("IPv6", "IPv4") if local.is_ipv6 else ("IPv4", "IPv6")
            words = "local_addr {} is an {} address, so nothing can be sent to {}".format(local.ip, *families)
            raise OSError(errno.EAFNOSUPPORT, words)
        try:
            return self.transport.open(self.options, ip=local.ip, port=local.port, dual_stack=False, server_tls=None)
        except OSError as error:
            if self._local is None:
                raise
            words = f"cannot send from {local.ip} port {local.port} (local_addr): {error.strerror or error}"
            raise OSError(error.errno, words) from None

    def release(self, driver: Driver) -> None:
        """A connection of the driver is over."""
        if not self.is_shared or self.is_closed:
            driver.close_when_idle()

    def close(self) -> None:
        """Close shared sockets as soon as their connections are drained (RFC 9000, section 10.2)."""
        self.is_closed = True
        for driver in self._drivers.values():
            driver.close_when_idle()
