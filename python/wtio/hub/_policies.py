"""What a subscriber wants to happen to messages that it cannot take at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wtio._arguments import check_number, sealed
from wtio.config import LONGEST_TIMEOUT
from wtio.hub._messages import check_key

__all__ = ["Policy", "datagram", "everything", "latest", "within"]


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What happens if a subscriber is slow: ``everything``, ``datagram``, or what ``latest`` or ``within`` returns."""

    name: str
    """``everything``, ``latest``, ``within`` or ``datagram``."""
    key: str | None = None
    """With ``latest``: the only key wanted; None for all of them."""
    seconds: float | None = None
    """With ``within``: how long a message may take; None otherwise."""


everything: Final = Policy(name="everything")
"""All messages in their order, on one stream.

While a subscriber's queue is full (``HubLimits.subscriber_queue``), ``publish`` in the same process waits for it. If
that takes longer than ``HubLimits.patience``, or messages from the bus fill twice the queue, its session is closed with
``TOO_SLOW_CODE``. So it misses nothing that reached its process, or knows that it did.
"""

datagram: Final = Policy(name="datagram")
"""Each message as one datagram: unreliable, unordered, never waiting. What is too large for the path is counted."""


def latest(key: str | None = None) -> Policy:
    """Make the policy that sends only the newest message of each key, each on a stream of its own.

    A stream is left open behind its message. When there is a newer one, the stream is reset with ``REPLACED_CODE``
    (RESET_STREAM_AT where the peer knows it), which takes the message back from a viewer that has not read it. So what
    a slow viewer reads next is the newest, and there is no queue. A message that is being sent may finish, for at most
    ``HubLimits.patience``: otherwise a viewer on a slow path would never see a whole one.

    Args:
        key: The only key wanted; None (default) means all keys, ``HubLimits.updates`` at once.

    Raises:
        TypeError: ``key`` is neither a str nor None.
        ValueError: It is too long or not printable.

    Source: draft-ietf-quic-reliable-stream-reset-10; draft-ietf-webtrans-http3-16, section 4.4.
    """
    if key is not None:
        check_key(key)
    return Policy(name="latest", key=key)


def within(seconds: float) -> Policy:
    """Make the policy that sends each message on a stream of its own, in no order, and gives up those that are late.

    A message that is not acknowledged by the peer's QUIC stack in time is reset with ``EXPIRED_CODE`` and counted. If
    more than ``HubLimits.updates`` are under way, the oldest is given up.

    Args:
        seconds: How long a message may take, from ``publish`` in this process or its arrival from the bus on.

    Raises:
        TypeError: ``seconds`` is not a number.
        ValueError: It is not above 0.
    """
    check_number("seconds", seconds, 0, LONGEST_TIMEOUT, " of seconds")
    if seconds == 0:
        raise ValueError("seconds is 0; it must be more than 0")
    return Policy(name="within", seconds=seconds)
