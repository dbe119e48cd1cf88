"""QUIC transport parameters: the names of the known ones, and what WebTransport needs to know of the peer's.

The QUIC core checks and obeys them. Here they are only read: to hold a peer to the drafts, and to print them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from wtio.protocol import varint

__all__ = [
    "PeerTransport",
    "TransportParameter",
    "parameter_name",
    "parameter_value",
    "read_peer_transport",
]


class TransportParameter(IntEnum):
    """Identifiers of transport parameters that are in use, by their names in lower case.

    Source: RFC 9000, section 18.2; RFC 9221, section 3; RFC 9287; RFC 9368; draft-ietf-quic-reliable-stream-reset-10,
    section 3.
    """

    ORIGINAL_DESTINATION_CONNECTION_ID = 0x00
    MAX_IDLE_TIMEOUT = 0x01
    STATELESS_RESET_TOKEN = 0x02
    MAX_UDP_PAYLOAD_SIZE = 0x03
    INITIAL_MAX_DATA = 0x04
    INITIAL_MAX_STREAM_DATA_BIDI_LOCAL = 0x05
    INITIAL_MAX_STREAM_DATA_BIDI_REMOTE = 0x06
    INITIAL_MAX_STREAM_DATA_UNI = 0x07
    INITIAL_MAX_STREAMS_BIDI = 0x08
    INITIAL_MAX_STREAMS_UNI = 0x09
    ACK_DELAY_EXPONENT = 0x0A
    MAX_ACK_DELAY = 0x0B
    DISABLE_ACTIVE_MIGRATION = 0x0C
    PREFERRED_ADDRESS = 0x0D
    ACTIVE_CONNECTION_ID_LIMIT = 0x0E
    INITIAL_SOURCE_CONNECTION_ID = 0x0F
    RETRY_SOURCE_CONNECTION_ID = 0x10
    VERSION_INFORMATION = 0x11
    RESET_STREAM_AT = 0x1D
    MAX_DATAGRAM_FRAME_SIZE = 0x20
    GREASE_QUIC_BIT = 0x2AB2
    MIN_ACK_DELAY = 0xFF04DE1B
    RESET_STREAM_AT_DRAFT05 = 0x17F7586D2CB571  # drafts 05 to 07 of reliable reset; many stacks still use it


_NUMBERS = frozenset(
    (
        TransportParameter.MAX_IDLE_TIMEOUT,
        TransportParameter.MAX_UDP_PAYLOAD_SIZE,
        TransportParameter.INITIAL_MAX_DATA,
        TransportParameter.INITIAL_MAX_STREAM_DATA_BIDI_LOCAL,
        TransportParameter.INITIAL_MAX_STREAM_DATA_BIDI_REMOTE,
        TransportParameter.INITIAL_MAX_STREAM_DATA_UNI,
        TransportParameter.INITIAL_MAX_STREAMS_BIDI,
        TransportParameter.INITIAL_MAX_STREAMS_UNI,
        TransportParameter.ACK_DELAY_EXPONENT,
        TransportParameter.MAX_ACK_DELAY,
        TransportParameter.ACTIVE_CONNECTION_ID_LIMIT,
        TransportParameter.MAX_DATAGRAM_FRAME_SIZE,
        TransportParameter.MIN_ACK_DELAY,
    )
)


@dataclass(frozen=True, slots=True)
class PeerTransport:
    """What the peer's transport parameters say about WebTransport."""

    reset_stream_at: bool
    """The peer takes RESET_STREAM_AT frames."""
    max_datagram_frame_size: int
    """Largest DATAGRAM frame that the peer takes, in bytes; 0 means none at all."""


def read_peer_transport(parameters: Iterable[tuple[int, bytes]]) -> PeerTransport:
    """Read the parameters that WebTransport depends on.

    Args:
        parameters: Identifiers and raw values, as the peer sent them. The QUIC core has refused malformed ones before;
            one that is malformed all the same counts as absent.

    Source: RFC 9221, section 3; draft-ietf-quic-reliable-stream-reset-10, section 3.
    """
    values = dict(parameters)
    return _peer_transport(
        values.get(TransportParameter.RESET_STREAM_AT) == b""
        or values.get(TransportParameter.RESET_STREAM_AT_DRAFT05) == b"",
        _number(values.get(TransportParameter.MAX_DATAGRAM_FRAME_SIZE, b"")) or 0,
    )


# Most peers say the same again and again.
_peer_transport = lru_cache(maxsize=64)(PeerTransport)


def parameter_name(identifier: int) -> str:
    """Name a transport parameter as its RFC does: in lower case, or ``grease`` or ``unknown``."""
    if identifier % 31 == 27:
        return "grease"
    try:
        return TransportParameter(identifier).name.lower()
    except ValueError:
        return "unknown"


def parameter_value(identifier: int, value: bytes) -> int | bytes:
    """Return the number that a parameter carries, or its bytes where it carries none."""
    number = _number(value) if identifier in _NUMBERS else None
    return value if number is None else number


def _number(value: bytes) -> int | None:
    number = varint.decode(value)
    return number[0] if number and number[1] == len(value) else None
