"""Bounds on what a peer can make us keep or do."""

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_LIMITS", "ProtocolLimits"]


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
    """Bytes that a peer may go on sending on a stream that we have ended, before it is told to stop."""


DEFAULT_LIMITS: Final = ProtocolLimits()
