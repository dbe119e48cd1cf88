"""The sockets of all workers: opened once, bound to the same addresses (SO_REUSEPORT), and open until the end.

A slot has one socket for each address, and its number is in the connection IDs of the worker that has it. The kernel
chooses by that (``_steering``), and sends newcomers to the slots that ``steer`` was told. For a slot that no process
has, ``Slots`` answers itself: clients learn that their connections are gone.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
from typing import TYPE_CHECKING, Final

from wtio._driver import Address
from wtio._driver.loop import UDP_GRO, LoopTransport
from wtio._resets import ResetResponder
from wtio._steering import open_slots, places, steer
from wtio._words import BIND_HINTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from wtio.secret import Secret
    from wtio.steering import ServerId

__all__ = ["Slots", "adopt", "open_sockets"]

_logger = logging.getLogger("wtio.workers")

# How often another port is tried where port 0 has to be free at several addresses.
_PORT_ATTEMPTS: Final = 16
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


class Slots:
    """The sockets, by slot.

    Args:
        sockets: For each slot the same addresses in the same order. ``close`` closes them.
        secret: That of all workers.
        server_id: Likewise.

    Raises:
        OSError: The kernel does not let this process steer.
    """

    def __init__(
        self, sockets: Sequence[Sequence[socket.socket]], *, secret: Secret, server_id: ServerId | None
    ) -> None:
        self._sockets = sockets
        self._secret = secret
        self._server_id = server_id
        # Whether the kernel may hand in packets in bundles; never again once some went astray in them.
        self._may_bundle = sys.platform == "linux"
        # By slot: who answers for a worker that is gone.
        self._responders: dict[int, list[ResetResponder]] = {}

    @property
    def count(self) -> int:
        """How many slots there are."""
        return len(self._sockets)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """IP address and UDP port of every address."""
        return [sock.getsockname()[:2] for sock in self._sockets[0]]

    def descriptors(self, slot: int) -> list[int]:
        """The sockets of a slot."""
        return [sock.fileno() for sock in self._sockets[slot]]

    def steer(self, generation: Sequence[int], down: Collection[int]) -> None:
        """Send newcomers to these slots, but for those that are down. If all are, newcomers go where they went."""
        if set(generation) <= set(down):
            return
        newcomers = places(generation, down)
        server_id = b"" if self._server_id is None else self._server_id.value
        for sock in self._sockets[0]:
            steer(sock, slots=self.count, newcomers=newcomers, server_id=server_id)

    def allow_bundles(self) -> None:
        """Have the kernel hand in packets of the same addresses and length in bundles (GRO), unless some went astray.

        A server that is given a socket refuses them, so this is for whenever one serves. Which socket the kernel asks
        whether it makes bundles depends on the client's addresses, so all allow them, also those that nobody has.
        """
        if self._may_bundle:
            self._set_bundles(1)

    def refuse_bundles(self) -> None:
        """Have the kernel hand in each packet as it came, at all sockets and for good.

        A bundle goes where its first packet goes, but a client may have connections at several slots from one port.
        """
        if self._may_bundle:
            self._may_bundle = False
            self._set_bundles(0)
            _logger.info(
                "a client has connections at several workers, whose packets came in bundles (GRO), so that some went "
                "astray; from now on they come one by one"
            )

    def _set_bundles(self, value: int) -> None:
        for of_slot in self._sockets:
            for sock in of_slot:
                sock.setsockopt(socket.SOL_UDP, UDP_GRO, value)

    def answer(self, slot: int) -> None:
        """Tell the clients of a slot that their connections are gone, until ``leave``."""
        if slot in self._responders:
            return
        responders = self._responders[slot] = []
        try:
            responders.extend(
                ResetResponder(sock, secret=self._secret, slot=slot, server_id=self._server_id)
                for sock in self._sockets[slot]
            )
        except OSError as error:
            # Then clients wait for their idle timeout, as after a power failure.
            _logger.warning("the clients of slot %d are not told that its worker is gone: %s", slot, error)

    def leave(self, slot: int) -> None:
        """Leave the packets of a slot to a worker."""
        for responder in self._responders.pop(slot, ()):
            responder.close()

    def close(self) -> None:
        """Close all sockets."""
        for slot in list(self._responders):
            self.leave(slot)
        for of_slot in self._sockets:
            for sock in of_slot:
                sock.close()


async def open_sockets(host: str | Sequence[str] | None, port: int, count: int) -> list[list[socket.socket]]:
    """Open the sockets of so many slots at all addresses of a host, as ``wtio.serve`` does for one.

    Raises:
        OSError: A host is unknown, or an address cannot be used.
    """
    hosts = [host] if host is None or isinstance(host, str) else list(host)
    dual_stack = hosts in ([None], [""], ["::"])
    addresses: list[Address] = []
    for name in ["::"] if dual_stack else hosts:
        try:
            found = await LoopTransport().resolve(name or "::", port, listening=True)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on host `{name}`: {error.strerror or error}") from None
        addresses += [address for address in found if address not in addresses]
    for attempt in range(_PORT_ATTEMPTS):
        try:
            by_address = _open_all(addresses, count, dual_stack)
        except OSError as error:
            # With port 0 the first address's port may be taken at another one.
            if port or error.errno != errno.EADDRINUSE or attempt + 1 == _PORT_ATTEMPTS:
                raise
        else:
            break
    return [list(of_slot) for of_slot in zip(*by_address, strict=True)]


def _open_all(addresses: Sequence[Address], count: int, dual_stack: bool) -> list[list[socket.socket]]:
    opened: list[list[socket.socket]] = []
    try:
        for address in addresses:
            # Of port 0, the first address gets a free one for all.
            port = address.port or (opened[0][0].getsockname()[1] if opened else 0)
            opened.append(_open(Address(address.ip, port, address.is_ipv6), count, dual_stack and address.is_ipv6))
    except BaseException:
        for sockets in opened:
            for sock in sockets:
                sock.close()
        raise
    return opened


def _open(address: Address, count: int, dual_stack: bool) -> list[socket.socket]:
    try:
        try:
            return open_slots(address, count, dual_stack=dual_stack)
        except OSError as error:
            if not (dual_stack and error.errno in _NO_IPV6):
                raise
            # A host without IPv6: all of its addresses are IPv4 ones.
            return open_slots(Address("0.0.0.0", address.port, False), count)
    except OSError as error:
        hint = BIND_HINTS.get(error.errno or 0, "")
        words = f"cannot listen on UDP {address.ip} port {address.port}: {error.strerror or error}"
        raise OSError(error.errno, f"{words}; {hint}" if hint else words) from None


def adopt(given: Sequence[socket.socket]) -> list[list[socket.socket]]:
    """Sort sockets that are bound already into slots: those of each address in their order, as the kernel counts them.

    Raises:
        ValueError: They cannot be shared, or there are not as many of each address.
    """
    by_address: dict[tuple[object, ...], list[socket.socket]] = {}
    for sock in given:
        where = sock.getsockname()
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            raise ValueError(
                f"the socket of {where[0]} port {where[1]} was opened without SO_REUSEPORT; with systemd, set "
                "ReusePort=yes in the socket unit"
            )
        by_address.setdefault(where, []).append(sock)
    if len({len(group) for group in by_address.values()}) != 1:
        counts = ", ".join(f"{len(group)} of {where[0]} port {where[1]}" for where, group in by_address.items())
        raise ValueError(f"each slot needs a socket of every address, but there are {counts or 'none'}")
    return [list(of_slot) for of_slot in zip(*by_address.values(), strict=True)]
