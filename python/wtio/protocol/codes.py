"""Error codes by their standard names, and the mapping of application codes to the wire.

Every code that RESET_STREAM, STOP_SENDING or CONNECTION_CLOSE may carry has its name here. Application codes of a
session have 32 bits of their own. ``to_wire`` and ``from_wire`` map them to and from the range that
draft-ietf-webtrans-http3-16, section 4.4, reserves for them among the HTTP/3 codes.
"""

from enum import IntEnum
from typing import Final

__all__ = ["MAX_APPLICATION_CODE", "ErrorCodes", "describe", "describe_application", "from_wire", "to_wire"]

MAX_APPLICATION_CODE: Final = 0xFFFFFFFF
"""Largest application error code of a stream or a session."""

_FIRST: Final = 0x52E4A40FA8DB
_LAST: Final = 0x52E5AC983162


class ErrorCodes(IntEnum):
    """Error codes by their standard names.

    The three code spaces overlap only in 0; ``NO_ERROR`` is an alias of ``APP_NO_ERROR``.

    Source: RFC 9000, section 20.1; RFC 9114, section 8.1; RFC 9204, section 6; RFC 9297, section 5.2;
    draft-ietf-webtrans-http3-16, section 9.5.
    """

    APP_NO_ERROR = 0x0

    # QUIC transport codes (CONNECTION_CLOSE of type 0x1c).
    NO_ERROR = 0x0
    INTERNAL_ERROR = 0x1
    CONNECTION_REFUSED = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_LIMIT_ERROR = 0x4
    STREAM_STATE_ERROR = 0x5
    FINAL_SIZE_ERROR = 0x6
    FRAME_ENCODING_ERROR = 0x7
    TRANSPORT_PARAMETER_ERROR = 0x8
    CONNECTION_ID_LIMIT_ERROR = 0x9
    PROTOCOL_VIOLATION = 0xA
    INVALID_TOKEN = 0xB
    APPLICATION_ERROR = 0xC
    CRYPTO_BUFFER_EXCEEDED = 0xD
    KEY_UPDATE_ERROR = 0xE
    AEAD_LIMIT_REACHED = 0xF
    NO_VIABLE_PATH = 0x10
    VERSION_NEGOTIATION_ERROR = 0x11

    # HTTP/3 codes.
    H3_DATAGRAM_ERROR = 0x33
    H3_NO_ERROR = 0x100
    H3_GENERAL_PROTOCOL_ERROR = 0x101
    H3_INTERNAL_ERROR = 0x102
    H3_STREAM_CREATION_ERROR = 0x103
    H3_CLOSED_CRITICAL_STREAM = 0x104
    H3_FRAME_UNEXPECTED = 0x105
    H3_FRAME_ERROR = 0x106
    H3_EXCESSIVE_LOAD = 0x107
    H3_ID_ERROR = 0x108
    H3_SETTINGS_ERROR = 0x109
    H3_MISSING_SETTINGS = 0x10A
    H3_REQUEST_REJECTED = 0x10B
    H3_REQUEST_CANCELLED = 0x10C
    H3_REQUEST_INCOMPLETE = 0x10D
    H3_MESSAGE_ERROR = 0x10E
    H3_CONNECT_ERROR = 0x10F
    H3_VERSION_FALLBACK = 0x110
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202

    # WebTransport codes.
    WT_FLOW_CONTROL_ERROR = 0x045D4487
    WT_ALPN_ERROR = 0x0817B3DD
    WT_SESSION_GONE = 0x170D7B68
    WT_REQUIREMENTS_NOT_MET = 0x212C0D48
    WT_BUFFERED_STREAM_REJECTED = 0x3994BD84
    WT_APPLICATION_ERROR_FIRST = _FIRST
    WT_APPLICATION_ERROR_LAST = _LAST


# When wtio itself ends a session or stream of an application, and with which application code. These are the numbers of
# the HTTP/3 codes that say the same. Applications and other implementations may give them any other meaning.
_SENT_BY_WTIO: Final = {
    int(ErrorCodes.H3_INTERNAL_ERROR): "a handler or an `async with` block raises",
    int(ErrorCodes.H3_EXCESSIVE_LOAD): "a session has sent more than Limits.session_receive_bytes, or reads too slowly "
    "for a hub",
    int(ErrorCodes.H3_REQUEST_REJECTED): "a message of a hub is too late",
    int(ErrorCodes.H3_REQUEST_CANCELLED): "a hub has a newer update",
}


def to_wire(code: int) -> int:
    """Map an application error code to the HTTP/3 code that carries it.

    Args:
        code: Application error code, 0 to 2**32-1.

    Returns:
        The code for RESET_STREAM and STOP_SENDING, 0x52e4a40fa8db to 0x52e5ac983162.

    Raises:
        ValueError: ``code`` is outside 32 bits.

    Source: draft-ietf-webtrans-http3-16, section 4.4.
    """
    if not 0 <= code <= MAX_APPLICATION_CODE:
        raise ValueError(f"application error code {code} is outside 0 to {MAX_APPLICATION_CODE} (32 bits)")
    # Every 31st code point has the form 0x1f * N + 0x21, which RFC 9114 reserves for greasing, and is left out.
    return _FIRST + code + code // 30


def from_wire(code: int) -> int | None:
    """Map an HTTP/3 code back to the application error code it carries.

    Args:
        code: The code of a received RESET_STREAM or STOP_SENDING.

    Returns:
        The application error code, or ``None`` if the number is outside the range or one of the reserved numbers
        inside it. No number is an error, whatever the peer sent.

    Source: draft-ietf-webtrans-http3-16, section 4.4.
    """
    if not _FIRST <= code <= _LAST or (code - 0x21) % 31 == 0:
        return None
    shifted = code - _FIRST
    return shifted - shifted // 31


def describe_application(code: int) -> str:
    """Write an application code for an error message. If wtio sends it by itself, it says when.

    It may mean something else all the same: nobody knows who chose the number.
    """
    return f"{code} (wtio sends it when {_SENT_BY_WTIO[code]})" if code in _SENT_BY_WTIO else str(code)


def describe(code: int) -> str:
    """Name a wire code for an error message: its standard name, ``application code N``, or its number."""
    application = from_wire(code)
    if application is not None:
        return f"application code {describe_application(application)}"
    try:
        return f"{ErrorCodes(code).name} (0x{code:x})"
    except ValueError:
        return f"0x{code:x}"
