"""How many sessions each address has: an IPv4 address, or an IPv6 network of 64 bits.

The engine counts connections and handshakes by address, before it makes anything for them
(crates/engine/src/newcomers.rs). It also decides what counts as one address, and gives that as text.
"""

from __future__ import annotations

__all__ = ["AddressSessions"]


class AddressSessions:
    """Sessions of a server that are not over, by address. Belongs to ``Service``."""

    __slots__ = ("_counts", "_most", "refused_total")

    def __init__(self, most: int | None) -> None:
        # ``Limits.sessions_per_address``; with None nothing is counted.
        self._most = most
        # By address; those without a session are left out, so ``Limits.sessions`` bounds it.
        self._counts: dict[str, int] = {}
        # Requests that were refused because of this limit. It only grows.
        self.refused_total = 0

    def refuses(self, address: str) -> bool:
        """Whether an address has as many sessions as it may have. If so, that counts as a request refused."""
        if self._most is None or self._counts.get(address, 0) < self._most:
            return False
        self.refused_total += 1
        return True

    def add(self, address: str) -> None:
        """Count a session that is open."""
        if self._most is not None:
            self._counts[address] = self._counts.get(address, 0) + 1

    def remove(self, address: str) -> None:
        """Count a session less: it has ended on both sides."""
        if self._most is not None:
            left = self._counts[address] - 1
            if left:
                self._counts[address] = left
            else:
                del self._counts[address]
