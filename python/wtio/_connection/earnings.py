"""What a peer may send without effect beyond ``ProtocolLimits``: it earns that with time, and with what we send.

An honest peer raises a limit once for each stream that we open, and each takes more bytes than its record earns; a
flood is thousands of times denser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from wtio import _core

__all__ = ["Earnings"]

# Records without effect and refused requests that a second earns.
_RECORDS_PER_SECOND: Final = 100
_REQUESTS_PER_SECOND: Final = 10
# Bytes that we send for each further record that the peer may.
_BYTES_PER_RECORD: Final = 16
# At most this many are granted at once, however long the last time is ago.
_MOST_SAVED: Final = 65536


class Earnings:
    """What a peer has earned by time and traffic. Apart from the connection, so that nothing refers in a circle."""

    __slots__ = ("_core", "_loop", "_records_at", "_requests_at", "_sent")

    def __init__(self, core: _core.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        # Up to when, by the loop's clock, records and requests have been earned with time.
        self._records_at = self._requests_at = loop.time()
        # Bytes on the connection that have earned records so far.
        self._sent = 0

    def records(self) -> int:
        """Return how many records without effect the peer has earned since the last call."""
        # The engine returns 0 once it has forgotten the connection.
        sent = max(self._core.stats().bytes_sent, self._sent)
        count = (sent - self._sent) // _BYTES_PER_RECORD
        self._sent += count * _BYTES_PER_RECORD
        by_time = int((self._loop.time() - self._records_at) * _RECORDS_PER_SECOND)
        self._records_at += by_time / _RECORDS_PER_SECOND
        return min(count + by_time, _MOST_SAVED)

    def requests(self) -> int:
        """Return how many refused requests the peer has earned since the last call."""
        count = int((self._loop.time() - self._requests_at) * _REQUESTS_PER_SECOND)
        self._requests_at += count / _REQUESTS_PER_SECOND
        return min(count, _MOST_SAVED)
