"""Sockets and local addresses that an application gives: checked here, and those that systemd passes."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from wtio._arguments import check_integer, check_text
from wtio._driver import Address
from wtio._driver.loop import duplicate

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["given_sockets", "local_address", "systemd_sockets"]

# The port that ``serve`` listens on unless it is told another one.
_DEFAULT_PORT: Final = 443
# systemd passes sockets from here on (sd_listen_fds(3)).
_FIRST_PASSED: Final = 3
# What Windows says of a socket that has no address yet.
_WSAEINVAL: Final = 10022


def given_sockets(
    sock: socket.socket | Sequence[socket.socket] | None,
    fd: int | Sequence[int] | None,
    host: object,
    port: object,
) -> list[socket.socket | int] | None:
    """Check the sockets that ``serve`` is given; None if it opens its own.

    Raises:
        TypeError: One of them is of another type.
        ValueError: One is closed, no UDP socket, not bound or connected, is given twice, or there are none; or there
            are other arguments that say where to listen.
    """
    if sock is None and fd is None:
        return None
    if sock is not None and fd is not None:
        raise ValueError("sock and fd are both given; give all sockets in one of them")
    name, value = ("fd", fd) if sock is None else ("sock", sock)
    given = list(_members(name, value))
    if not given:
        raise ValueError(f"{name} is empty; None opens a socket at host and port")
    if host is not None or port != _DEFAULT_PORT:
        other = "port" if host is None else "host"
        raise ValueError(f"{name} and {other} both say where to listen; leave one of them out")
    bound = [_check_socket(name, one) for one in given]
    if len(set(bound)) != len(bound):
        raise ValueError(f"{name} has a socket twice; give it once")
    return given


def _members(name: str, value: Any) -> Sequence[socket.socket | int]:
    kind: type = socket.socket if name == "sock" else int
    words = "a socket.socket or a sequence of them" if name == "sock" else "an int or a sequence of int"
    members: Sequence[Any] = value if isinstance(value, (list, tuple)) else (value,)
    for member in members:
        if not isinstance(member, kind) or isinstance(member, bool):
            raise TypeError(f"{name} must be {words}, not {type(member).__name__}")
    return members


def _check_socket(name: str, given: socket.socket | int) -> object:
    """Raise ValueError for what a server cannot use; return where it is bound."""
    shown = name if name == "sock" else f"fd {given}"
    try:
        copy = duplicate(given)
    except (OSError, OverflowError) as error:
        raise ValueError(f"{shown} is closed, or no socket: {error}") from error
    with copy:
        if not is_udp(copy):
            raise ValueError(f"{shown} is no UDP socket; make it with socket.AF_INET or AF_INET6 and SOCK_DGRAM")
        try:
            where = copy.getsockname()
            is_bound = where[1] != 0
        except OSError as error:
            if getattr(error, "winerror", None) != _WSAEINVAL:
                raise
            is_bound = False
        if not is_bound:
            raise ValueError(f"{shown} is not bound; call its bind((host, port)) first")
        try:
            peer = copy.getpeername()
        except OSError:
            return where
        raise ValueError(f"{shown} is connected to {peer[0]} port {peer[1]}, so no other client could reach it")


def is_udp(sock: socket.socket) -> bool:
    """Whether it is one of UDP over IPv4 or IPv6."""
    return sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_DGRAM


def local_address(local_addr: tuple[str, int] | None) -> Address | None:
    """Check the address that a client is to send from.

    Raises:
        TypeError: It is not a pair of str and int.
        ValueError: It has no IP address, or no port.
    """
    if local_addr is None:
        return None
    if not isinstance(local_addr, tuple) or len(local_addr) != 2:
        raise TypeError(f"local_addr must be a tuple of IP address and port, or None, not {local_addr!r}")
    host, port = local_addr
    check_text("local_addr", host)
    check_integer("local_addr", port, 0, 65_535)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"local_addr: `{host}` is no IP address, such as 192.0.2.1 or fe80::1%eth0") from None
    return Address(str(ip), port, ip.version == 6)


def systemd_sockets(name: str | None = None) -> list[socket.socket]:
    """Return the UDP sockets that systemd has passed to this process (socket activation), for ``serve(sock=...)``.

    A socket unit with ``ListenDatagram=443`` opens the port before the service starts, and keeps it open while that is
    restarted: packets that come meanwhile wait. The service needs no right to open it. See docs/ends.md.

    The objects are duplicates, and yours to close. What systemd has passed stays open, so that this can be called
    again; it is not passed on to child processes. Sockets of other kinds are left alone.

    Args:
        name: Only those with this ``FileDescriptorName=``; None (default) returns all.

    Returns:
        The sockets in systemd's order. Empty if there are none: the process was not activated by systemd, or they are
        meant for another one (``LISTEN_PID``).

    Raises:
        ValueError: An environment variable of systemd's is malformed, or ``name`` is no text.
        TypeError: ``name`` is not a str.

    Source: sd_listen_fds(3).
    """
    check_text("name", name, optional=True)
    if _number("LISTEN_PID") != os.getpid():
        return []
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found: list[socket.socket] = []
    for index in range(_number("LISTEN_FDS") or 0):
        descriptor = _FIRST_PASSED + index
        if name is not None and (index >= len(names) or names[index] != name):
            continue
        try:
            sock = duplicate(descriptor)
        except OSError as error:
            for other in found:
                other.close()
            raise ValueError(f"LISTEN_FDS promises a socket as file descriptor {descriptor}: {error}") from error
        os.set_inheritable(descriptor, False)
        if is_udp(sock):
            found.append(sock)
        else:
            sock.close()
    return found


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the environment variable {variable} is {text!r}, which is no number")
    return int(text)
