"""Bounds on what a peer can make us keep or do, and the count of what it may still repeat."""

from dataclasses import dataclass
from typing import Final, Protocol

from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import ConnectionFault

__all__ = ["DEFAULT_LIMITS", "SMALL_FRAME", "Allowance", "Earnings", "ProtocolLimits"]

SMALL_FRAME: Final = 64
"""DATA frames below this size are counted as records without effect: many of them cost time and carry little."""


@dataclass(frozen=True, slots=True)
class ProtocolLimits:
    """Bounds on what a peer can make us keep or do. Sizes are bytes."""

    max_field_section_size: int = 65536
    """Largest header section, counted as RFC 9114, section 4.2.2, does: names, values and 32 bytes per field.

    Larger requests are answered with 431, larger responses reset."""
    max_settings_size: int = 8192
    """Largest SETTINGS frame; a larger one is H3_EXCESSIVE_LOAD."""
    max_buffered: int = 1048576
    """Bytes of incomplete frames and capsules over all streams of the connection; more is H3_EXCESSIVE_LOAD."""
    max_parked_requests: int = 16
    """Session requests that wait for the client's SETTINGS; more are reset with H3_REQUEST_REJECTED."""
    max_held_capsules: int = 64
    """Capsules kept for a session that the server has not accepted yet; more reset it with H3_EXCESSIVE_LOAD."""
    max_informational: int = 16
    """Interim (1xx) responses to one CONNECT; more reset it with H3_EXCESSIVE_LOAD."""
    max_discard: int = 65536
    """Bytes that a peer may go on sending on a stream that we have ended, before we send STOP_SENDING."""
    max_idle_records: int = 1000
    """Frames and capsules that have no effect, beyond those that the peer has earned; more is H3_EXCESSIVE_LOAD.

    They are reserved and unknown ones, repeated GOAWAY, WT_DRAIN_SESSION and MAX_PUSH_ID, PRIORITY_UPDATE, what QPACK's
    decoder cancels, DATAGRAM capsules, those of session flow control, and DATA frames below ``SMALL_FRAME`` bytes that
    complete no capsule."""
    max_refused_requests: int = 1000
    """Requests that are broken, refused by this layer or taken back before they were answered, and streams that mean
    nothing, beyond those that the peer has earned; more is H3_EXCESSIVE_LOAD."""


class Earnings(Protocol):
    """What a peer has earned beyond the last two of these limits, by time and traffic, which this layer does not know.

    It is called only when an allowance is used up, so it may be slow.
    """

    def records(self) -> int:
        """Return how many records without effect the peer has earned since the last call."""

    def requests(self) -> int:
        """Return how many refused requests the peer has earned since the last call."""


DEFAULT_LIMITS: Final = ProtocolLimits()


class Allowance:
    """How many records and requests without effect a peer may still send (RFC 9114, section 10.5)."""

    __slots__ = ("_earnings", "_idle_left", "_refused_left")

    def __init__(self, limits: ProtocolLimits, earnings: Earnings | None) -> None:
        self._earnings = earnings  # None if the peer can earn nothing, as in most tests
        # What the peer may still send: records without effect, and requests that are refused.
        self._idle_left = limits.max_idle_records
        self._refused_left = limits.max_refused_requests

    def count_idle(self) -> None:
        """Count a frame or capsule without effect.

        Raises:
            ConnectionFault: H3_EXCESSIVE_LOAD, if the peer has used up its allowance.
        """
        self._idle_left -= 1
        if self._idle_left < 0:
            self._idle_left += self._earnings.records() if self._earnings else 0
            if self._idle_left < 0:
                raise ConnectionFault(ErrorCodes.H3_EXCESSIVE_LOAD, "too many frames or capsules without effect")

    def count_refused(self) -> None:
        """Count a request or stream that was refused.

        Raises:
            ConnectionFault: H3_EXCESSIVE_LOAD, if the peer has used up its allowance.
        """
        self._refused_left -= 1
        if self._refused_left < 0:
            self._refused_left += self._earnings.requests() if self._earnings else 0
            if self._refused_left < 0:
                raise ConnectionFault(ErrorCodes.H3_EXCESSIVE_LOAD, "too many requests or streams that were refused")
