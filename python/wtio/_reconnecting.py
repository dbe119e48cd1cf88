"""Clients that connect again (``async for session in connect(...)``): after which failures, and how long they wait.

``Connector`` makes the attempts and waits. Nothing here knows of sessions or of a clock.
"""

from __future__ import annotations

import random
import time
from typing import Final

from wtio.config import LONGEST_RETRY_AFTER, Timeouts
from wtio.errors import CertificateError, InvalidURLError, RequirementsNotMetError, SessionRejectedError

__all__ = ["Backoff", "may_pass", "without_frames"]

# Statuses of the client's fault (4xx) after which the same request may succeed later: Request Timeout, Too Early, and
# Too Many Requests (RFC 9110, section 15.5.9; RFC 8470, section 5.2; RFC 6585, section 4).
_PASSING: Final = frozenset((408, 425, 429))


def may_pass(error: OSError) -> bool:
    """Whether the same attempt may succeed later, although nobody changes the program or its server."""
    if isinstance(error, SessionRejectedError):
        return error.status >= 500 or error.status in _PASSING
    return not isinstance(error, (CertificateError, InvalidURLError, RequirementsNotMetError))


def without_frames(error: BaseException) -> None:
    """Free the frames that an exception and its causes hold, so that it can be kept for long."""
    known: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in known:
        known.add(id(following))
        following.__traceback__ = None
        following = following.__cause__ or following.__context__


class Backoff:
    """How long to wait before the next attempt. The waits double, and chance spreads the clients of one server."""

    __slots__ = ("_failures", "_timeouts")

    def __init__(self, timeouts: Timeouts) -> None:
        # ``reconnect`` and ``reconnect_longest`` bound the waits.
        self._timeouts = timeouts
        # How many attempts have failed, or led to a session that ended too soon, one after the other.
        self._failures = 0

    def after_failure(self, error: OSError) -> float:
        """Seconds to wait after an attempt that failed."""
        delay = self._present_delay()
        self._failures += 1
        return max(random.uniform(delay / 2, delay), _retry_after(error))

    def after_session(self, lasted: float) -> float:
        """Seconds to wait after a session that lasted so many seconds.

        A session that was shorter than the wait before it counts as a failure: a server that takes sessions and closes
        them at once would be asked again and again otherwise.
        """
        delay = self._present_delay()
        if lasted > delay:
            self._failures = 0
            return random.uniform(0, self._timeouts.reconnect)
        self._failures += 1
        return random.uniform(delay / 2, delay)

    def _present_delay(self) -> float:
        # 2.0**1024 would raise OverflowError. 64 doublings make even a nanosecond longer than any wait that is allowed.
        return min(self._timeouts.reconnect * 2.0 ** min(self._failures, 64), self._timeouts.reconnect_longest)


def _retry_after(error: OSError) -> float:
    """Seconds that the server asked to wait, at most ``LONGEST_RETRY_AFTER``; 0 if it did not (RFC 9110, 10.2.3)."""
    if not isinstance(error, SessionRejectedError):
        return 0
    value = dict(error.headers).get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        # More digits than this are more than the bound, and could be too many for an int.
        return float(min(int(value[:12]), LONGEST_RETRY_AFTER))
    # Loads half of `email`, for what few servers say.
    import email.utils

    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(seconds, 0), LONGEST_RETRY_AFTER)
