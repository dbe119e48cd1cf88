"""The driver on an asyncio event loop: a UDP socket, one timer, one flush per iteration of the loop.

It uses portable loop calls only (``add_reader``, ``add_writer``, ``call_soon``, ``call_at``), so every loop that has
them will do, uvloop and winloop included. With a loop that cannot watch a socket, a thread receives.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import ipaddress
import os
import socket
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from wtio import _core
from wtio._core import ForkStage
from wtio._driver import Address, Driver
from wtio._driver.pipe import PipeReader, can_watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wtio._options import EndpointOptions

# A timer that has to come forward by less than this stays as it is; loops round to a millisecond anyway.
_TIMER_SLACK: Final = 0.0005
# linux/udp.h. Python has no name for it.
UDP_GRO: Final = 104


# The guardian (crates/net/src/guardian.rs) is a thread of the process: it ends before the interpreter does, and a
# forked child has none.
atexit.register(_core.shut_down)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=partial(_core.note_fork, ForkStage.BEFORE),
        after_in_parent=partial(_core.note_fork, ForkStage.PARENT),
        after_in_child=partial(_core.note_fork, ForkStage.CHILD),
    )


class LoopDriver(Driver):
    """Serves an endpoint with a socket of its own.

    While the loop is late, a guardian thread receives and acknowledges in its place; what that brought is fetched when
    the wake-up descriptor turns readable. With ``has_thread`` a thread always receives and runs the timers, and the
    loop watches the wake-up descriptor alone.
    """

    def __init__(self, endpoint: _core.Endpoint, loop: asyncio.AbstractEventLoop, *, has_thread: bool = False) -> None:
        super().__init__(endpoint, loop)
        # The socket; None if a thread receives.
        self._descriptor = None if has_thread else endpoint.fileno()
        # Readable once another thread has left events. A loop that cannot watch it has a reader instead.
        self._wake_descriptor: int | None = None
        self._reader: PipeReader | None = None
        # The engine's next timer and when it is due, on the loop's clock. It may come early and find nothing due.
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        # The socket is full, so the loop watches it for room, too.
        self._waits_to_write = False
        endpoint.set_scheduler(self._schedule, loop)
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._readable)
        if can_watch(loop):
            self._wake_descriptor = endpoint.wake_fileno()
            loop.add_reader(self._wake_descriptor, self._woken)
        else:
            taken = endpoint.take_wake_fileno()
            self._reader = PipeReader(loop, taken, woken=self._woken, failed=self._fail)

    @property
    def local_address(self) -> tuple[str, int]:
        return self.endpoint.local_address

    def connect(self, address: Address, server_name: str, tls: _core.ClientTls) -> _core.Connection:
        return self.endpoint.connect((address.ip, address.port), server_name, tls, None)

    def drive(self, readable: bool = False) -> None:
        try:
            # If more has arrived than one batch, the loop reports the socket as readable again.
            wakes, events, delay, has_more, is_blocked = self.endpoint.drive(readable, None)
        except Exception as error:
            self._fail(error)
            return
        self._is_spent = has_more
        if has_more:
            # The send budget of one drive is used up; other callbacks of the loop run before the next.
            self._has_output = True
            self._schedule_flush()
        if is_blocked is not self._waits_to_write and self._descriptor is not None:
            self._waits_to_write = is_blocked
            if is_blocked:
                self.loop.add_writer(self._descriptor, self.drive)
            else:
                self.loop.remove_writer(self._descriptor)
        if delay is not None:
            deadline = self.loop.time() + delay
            # The usual case: acknowledgements move the deadline back. The old timer then finds nothing due.
            if self._timer is None or deadline < self._deadline - _TIMER_SLACK:
                if self._timer is not None:
                    self._timer.cancel()
                self._deadline = deadline
                self._timer = self.loop.call_at(deadline, self._expired)
        if wakes or events or self._closes_when_idle:
            self._pass_on(wakes, events)
            if events and self._has_output and not has_more and not self.is_closed:
                # What the connections answer is sent now, not one iteration later: a handshake has several answers.
                self.flush()

    def flush(self) -> None:
        self.endpoint.flush()

    def _readable(self) -> None:
        self._drive_and_run_tasks(True)

    def _woken(self) -> None:
        self.endpoint.clear_wake_up()
        self._drive_and_run_tasks()

    def _errors_read(self) -> None:
        # libuv, and so uvloop, calls back once when a socket has an error pending, and watches it no longer. It may be
        # in the middle of that.
        if self._descriptor is not None:
            self.loop.call_soon(self._watch_again)

    def _watch_again(self) -> None:
        if self.is_closed or self._descriptor is None:
            return
        self.loop.remove_reader(self._descriptor)
        if self._waits_to_write:
            self.loop.remove_writer(self._descriptor)
            self.loop.add_writer(self._descriptor, self.drive)
        self.loop.add_reader(self._descriptor, self._readable)

    def _expired(self) -> None:
        self._timer = None
        if not self.is_closed:
            self._drive_and_run_tasks()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reader is not None:
            self._reader.close()
        if self.loop.is_closed():
            return
        if self._wake_descriptor is not None:
            self.loop.remove_reader(self._wake_descriptor)
        if self._descriptor is None:
            return
        self.loop.remove_reader(self._descriptor)
        if self._waits_to_write:
            self._waits_to_write = False
            self.loop.remove_writer(self._descriptor)


def _literal(host: str | None, port: int) -> Address | None:
    """The address that ``host`` spells out, which spares a name lookup its thread; None for a name or a scope id."""
    try:
        ip = ipaddress.ip_address(host or "")
    except ValueError:
        return None
    return None if getattr(ip, "scope_id", None) else Address(str(ip), port, ip.version == 6)


def _numbered(ip: str) -> str:
    """Replace the name of an interface by its number. OSError if there is none of this name."""
    address, percent, zone = ip.partition("%")
    if not percent or zone.isdigit():
        return ip
    try:
        return f"{address}%{socket.if_nametoindex(zone)}"
    except OSError as error:
        raise OSError(error.errno, f"there is no network interface `{zone}`, which {ip} names") from None


def _of_socket(sock: socket.socket) -> Address:
    """Where a socket is bound."""
    name = sock.getsockname()
    is_ipv6 = sock.family == socket.AF_INET6
    return Address(f"{name[0]}%{name[3]}" if is_ipv6 and name[3] else name[0], name[1], is_ipv6)


class LoopTransport:
    """Real UDP sockets on the running loop, which receives itself or lets a thread do it (``EndpointOptions.io``).

    A loop that cannot watch sockets always lets a thread do it.
    """

    async def resolve(self, host: str | None, port: int, *, listening: bool = False) -> list[Address]:
        """Look up all addresses of a host, best first (RFC 6724 order, as the system gives them)."""
        literal = _literal(host, port)
        if literal is not None:
            return [literal]
        flags = socket.AI_PASSIVE if listening else 0
        if host is not None and "%" in host:
            # An address with a zone, which uvloop drops. No resolver is asked about it, so nobody waits.
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags | socket.AI_NUMERICHOST)
        else:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
        addresses: list[Address] = []
        for family, _, _, _, where in found:
            if family in (socket.AF_INET, socket.AF_INET6):
                is_ipv6 = family == socket.AF_INET6
                # Only link-local addresses have the number of an interface.
                zone = f"%{where[3]}" if is_ipv6 and len(where) == 4 and where[3] else ""
                address = Address(f"{where[0]}{zone}", int(where[1]), is_ipv6)
                if address not in addresses:
                    addresses.append(address)
        if not addresses:
            raise OSError(f"{host} has neither IPv4 nor IPv6 addresses")
        return addresses

    def open(
        self, options: EndpointOptions, *, ip: str, port: int, dual_stack: bool, server_tls: _core.ServerTls | None
    ) -> Driver:
        """Open a socket; OSError where it cannot be had."""
        return _drive(options, server_tls, lambda one: one.bind(_numbered(ip), port, dual_stack=dual_stack))


class GivenSockets(LoopTransport):
    """Sockets that the application has opened and bound. They stay its own: each driver has a duplicate of one."""

    def __init__(self, sockets: Sequence[socket.socket | int]) -> None:
        # Socket objects and file descriptors, all of them different.
        self._sockets = sockets

    async def resolve(self, host: str | None, port: int, *, listening: bool = False) -> list[Address]:
        """Where they are bound, in their order."""
        addresses = []
        for given in self._sockets:
            with duplicate(given) as sock:
                addresses.append(_of_socket(sock))
        return addresses

    def open(
        self, options: EndpointOptions, *, ip: str, port: int, dual_stack: bool, server_tls: _core.ServerTls | None
    ) -> Driver:
        """Use the one that is bound there."""
        for given in self._sockets:
            with duplicate(given) as sock:
                address = _of_socket(sock)
                if (address.ip, address.port) == (ip, port):
                    return _drive(options, server_tls, partial(_adopt, sock))
        raise OSError(errno.EBADF, f"none of the given sockets is bound to {ip} port {port} any more")


def duplicate(given: socket.socket | int) -> socket.socket:
    """Make another socket object for a socket or a file descriptor. OSError if it is closed, or no socket."""
    if os.name == "nt" and not isinstance(given, int):
        copied = given.dup()
        copied.setblocking(False)
        return copied
    # Not with the socket's own ``dup``: that makes the socket block again, which all duplicates share.
    copy = os.dup(given if isinstance(given, int) else given.fileno())
    try:
        return socket.socket(fileno=copy)
    except BaseException:
        os.close(copy)
        raise


def _adopt(sock: socket.socket, endpoint: _core.Endpoint) -> None:
    endpoint.adopt(sock.detach())


def _refuse_bundles(endpoint: _core.Endpoint) -> None:
    """Have the kernel hand in each packet as it came (no GRO).

    A bundle goes where its first packet goes. It is made of packets with the same addresses and ports, and these may
    belong to several connections of one client, each at another one of the sockets that share the address.
    """
    with duplicate(endpoint.fileno()) as sock:
        sock.setsockopt(socket.SOL_UDP, UDP_GRO, 0)


def _drive(
    options: EndpointOptions, server_tls: _core.ServerTls | None, attach: Callable[[_core.Endpoint], None]
) -> Driver:
    """Make an endpoint, give it its socket, and drive it on the running loop."""
    loop = asyncio.get_running_loop()
    if not can_watch(loop):
        options = replace(options, io="thread")
    endpoint = _core.Endpoint(options, server_tls=server_tls, seed=None)
    attach(endpoint)
    if options.slot is not None and sys.platform == "linux":
        _refuse_bundles(endpoint)
    return LoopDriver(endpoint, loop, has_thread=options.io == "thread")
