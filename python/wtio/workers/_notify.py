"""What a service tells systemd of itself (sd_notify(3)): that it is ready, reloads or stops, and that it is alive."""

from __future__ import annotations

import contextlib
import os
import socket
import time

__all__ = ["Notifier"]


class Notifier:
    """Tells the service manager, if there is one: the environment names its socket. Nothing here fails or waits."""

    def __init__(self) -> None:
        # The manager's socket; empty if nobody wants to know.
        self._address = _address()
        # Between two signs of life, in seconds; None if nobody waits for them. Half of what the manager allows.
        self.watchdog = _watchdog() if self._address else None

    def ready(self, status: str) -> None:
        """The service serves, for the first time or after a reload."""
        self._send("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """New code is being started. ``ready`` follows."""
        # For Type=notify-reload, which compares it with its own clock.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service shuts down."""
        self._send("STOPPING=1")

    def status(self, words: str) -> None:
        """Show this line in ``systemctl status``."""
        self._send(f"STATUS={words}")

    def alive(self) -> None:
        """A sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # A manager that does not read must not hold the service up.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._address)


def _address() -> str:
    address = os.environ.get("NOTIFY_SOCKET", "") if hasattr(socket, "AF_UNIX") else ""
    # A socket in the abstract namespace is written with an at sign for the null byte that it begins with.
    return "\0" + address[1:] if address.startswith("@") else address


def _watchdog() -> float | None:
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2_000_000 if microseconds.isascii() and microseconds.isdecimal() else None
