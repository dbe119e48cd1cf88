"""Capsules of a session: types, writing, and reading of their values.

Capsules are a byte stream inside the DATA frames of the CONNECT stream; a capsule may begin and end anywhere in a
frame. Unknown capsules, and those that a dialect without flow control ignores, are skipped.
"""

from enum import IntEnum
from typing import Final

from wtio.protocol import varint
from wtio.protocol.codes import MAX_APPLICATION_CODE, ErrorCodes
from wtio.protocol.faults import StreamFault
from wtio.protocol.frames import Handling, encode_record

__all__ = [
    "FLOW_CONTROL_CAPSULES",
    "MAX_REASON",
    "MAX_STREAMS_LIMIT",
    "CapsuleType",
    "classify_capsule",
    "cut_reason",
    "decode_close",
    "decode_limit",
    "encode_close",
    "encode_limit",
]

MAX_REASON: Final = 1024
"""Largest close reason in bytes of UTF-8."""

MAX_STREAMS_LIMIT: Final = 1 << 60
"""Largest number of streams that a capsule may allow; more have no stream ID (section 5.6.2)."""


class CapsuleType(IntEnum):
    """Capsule types with a meaning on a WebTransport session over HTTP/3."""

    DATAGRAM = 0x00
    WT_CLOSE_SESSION = 0x2843
    WT_DRAIN_SESSION = 0x78AE
    WT_MAX_DATA = 0x190B4D3D
    WT_MAX_STREAM_DATA = 0x190B4D3E  # prohibited over HTTP/3
    WT_MAX_STREAMS_BIDI = 0x190B4D3F
    WT_MAX_STREAMS_UNI = 0x190B4D40
    WT_DATA_BLOCKED = 0x190B4D41
    WT_STREAM_DATA_BLOCKED = 0x190B4D42  # prohibited over HTTP/3
    WT_STREAMS_BLOCKED_BIDI = 0x190B4D43
    WT_STREAMS_BLOCKED_UNI = 0x190B4D44


FLOW_CONTROL_CAPSULES: Final = frozenset(
    (
        CapsuleType.WT_MAX_DATA,
        CapsuleType.WT_MAX_STREAMS_BIDI,
        CapsuleType.WT_MAX_STREAMS_UNI,
        CapsuleType.WT_DATA_BLOCKED,
        CapsuleType.WT_STREAMS_BLOCKED_BIDI,
        CapsuleType.WT_STREAMS_BLOCKED_UNI,
    )
)
_STREAM_COUNTS = frozenset(
    (
        CapsuleType.WT_MAX_STREAMS_BIDI,
        CapsuleType.WT_MAX_STREAMS_UNI,
        CapsuleType.WT_STREAMS_BLOCKED_BIDI,
        CapsuleType.WT_STREAMS_BLOCKED_UNI,
    )
)
_PROHIBITED = frozenset((CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAM_DATA_BLOCKED))


def classify_capsule(type: int, length: int, *, flow_control: bool) -> Handling:
    """Decide what to do with a capsule from its type and length alone, so that a bad one is never stored.

    Raises:
        StreamFault: H3_MESSAGE_ERROR for a known capsule of impossible length; WT_FLOW_CONTROL_ERROR for one
            that is prohibited over HTTP/3, if session flow control is on.

    Source: draft-ietf-webtrans-http3-16, sections 4.7, 5.4, 5.6 and 6; RFC 9297, sections 3.2 and 3.3.
    """
    if type == CapsuleType.WT_CLOSE_SESSION:
        if not 4 <= length <= 4 + MAX_REASON:
            raise StreamFault(
                ErrorCodes.H3_MESSAGE_ERROR,
                f"WT_CLOSE_SESSION of {length} bytes; 4 to {4 + MAX_REASON} are possible",
            )
        return Handling.COLLECT
    if type == CapsuleType.WT_DRAIN_SESSION:
        if length:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, f"WT_DRAIN_SESSION of {length} bytes instead of none")
        return Handling.COLLECT
    if not flow_control:
        # Section 5.1: without flow control its capsules are ignored, like unknown ones.
        return Handling.SKIP
    if type in _PROHIBITED:
        raise StreamFault(
            ErrorCodes.WT_FLOW_CONTROL_ERROR, f"{CapsuleType(type).name} is prohibited over HTTP/3: streams have QUIC's"
        )
    if type in FLOW_CONTROL_CAPSULES:
        if not 1 <= length <= 8:
            raise StreamFault(
                ErrorCodes.H3_MESSAGE_ERROR, f"{CapsuleType(type).name} of {length} bytes is no single number"
            )
        return Handling.COLLECT
    return Handling.SKIP


def cut_reason(reason: str) -> bytes:
    """Encode a close reason, cut to the longest prefix of whole characters within 1024 bytes.

    Lone surrogates, which UTF-8 cannot carry, become U+FFFD, as browsers do.
    """
    # A reason longer than this in characters is longer in bytes, so there is no need to encode the rest.
    text = reason[: MAX_REASON + 1]
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        encoded = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    if len(encoded) <= MAX_REASON:
        return encoded
    return encoded[:MAX_REASON].decode(errors="ignore").encode()


def encode_close(code: int, reason: str) -> bytes:
    """Return a WT_CLOSE_SESSION capsule; ``reason`` is cut as ``cut_reason`` does.

    Raises:
        ValueError: ``code`` is outside 32 bits.
    """
    if not 0 <= code <= MAX_APPLICATION_CODE:
        raise ValueError(f"close code {code} is outside 0 to {MAX_APPLICATION_CODE} (32 bits)")
    return encode_record(CapsuleType.WT_CLOSE_SESSION, code.to_bytes(4, "big") + cut_reason(reason))


def decode_close(value: bytes) -> tuple[int, str]:
    """Read the value of WT_CLOSE_SESSION: application close code and reason.

    Raises:
        StreamFault: H3_MESSAGE_ERROR if the reason is not UTF-8 (the length was checked before).

    Source: draft-ietf-webtrans-http3-16, section 6.
    """
    try:
        return int.from_bytes(value[:4], "big"), value[4:].decode()
    except UnicodeDecodeError as error:
        raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "reason in WT_CLOSE_SESSION is not UTF-8") from error


def encode_limit(type: int, limit: int) -> bytes:
    """Return a flow-control capsule with its number.

    Raises:
        ValueError: The number is too large, or allows more than 2**60 streams.
    """
    if type in _STREAM_COUNTS and limit > MAX_STREAMS_LIMIT:
        raise ValueError(f"{limit} streams are more than a session can number (2**60)")
    return encode_record(type, varint.encode(limit))


def decode_limit(type: int, value: bytes) -> int:
    """Read the number of a flow-control capsule.

    Raises:
        StreamFault: H3_MESSAGE_ERROR if it is not a single number; WT_FLOW_CONTROL_ERROR if it allows more than
            2**60 streams.

    Source: draft-ietf-webtrans-http3-16, sections 5.6.2 to 5.6.5.
    """
    number = varint.decode(value)
    if number is None or number[1] != len(value):
        raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, f"{CapsuleType(type).name} is no single number")
    if type in _STREAM_COUNTS and number[0] > MAX_STREAMS_LIMIT:
        raise StreamFault(
            ErrorCodes.WT_FLOW_CONTROL_ERROR, f"{CapsuleType(type).name} says {number[0]}, above 2**60 streams"
        )
    return number[0]
