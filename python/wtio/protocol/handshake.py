"""What a session's request and its answer say, written and read: pure functions from fields to facts and back.

The rules for header sections of any request are in ``messages``, the names that differ between drafts in ``dialects``.
When a request may be sent, and what becomes of an answer, is decided in ``connection`` and ``connect_streams``.
"""

from collections.abc import Sequence
from typing import Final

from wtio.protocol import messages, qpack
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.dialects import MARKS, PROTOCOL_FIELDS, DialectRow, ProtocolFields
from wtio.protocol.faults import StreamFault
from wtio.protocol.fields import (
    parse_string_item,
    parse_string_list,
    serialize_string,
    serialize_string_list,
    serialize_token,
)
from wtio.protocol.frames import FrameType, encode_record
from wtio.protocol.messages import Fields

__all__ = [
    "REQUEST_RESERVED",
    "RESPONSE_RESERVED",
    "acceptance",
    "check_protocols",
    "headers_frame",
    "read_choice",
    "read_offer",
    "rejection",
    "session_request",
]

_RESERVED: Final = (PROTOCOL_FIELDS.offer, PROTOCOL_FIELDS.choice, "content-length")
REQUEST_RESERVED: Final = frozenset((*_RESERVED, *(mark.request[0] for mark in MARKS), "host"))
"""Header fields of a request that applications cannot set: this layer writes them itself."""
RESPONSE_RESERVED: Final = frozenset((*_RESERVED, *(mark.answer[0] for mark in MARKS)))
"""Header fields of a response that applications cannot set."""

_LONGEST_PROTOCOL: Final = 512


def headers_frame(fields: Fields) -> bytes:
    """Return the HEADERS frame with these fields."""
    return encode_record(FrameType.HEADERS, qpack.encode_field_section(fields))


def check_protocols(protocols: Sequence[str], *, unique: bool = True) -> None:
    """Check subprotocols that an application wants to offer, or to choose from.

    Raises:
        ValueError: One cannot be sent, or comes twice although ``unique``.

    Source: W3C WebTransport, section 5.2.
    """
    for protocol in protocols:
        if not (1 <= len(protocol) <= _LONGEST_PROTOCOL and protocol.isascii() and protocol.isprintable()):
            raise ValueError(f"protocols: {protocol!r} must be 1 to {_LONGEST_PROTOCOL} printable characters of ASCII")
    if unique and len(set(protocols)) != len(protocols):
        raise ValueError(f"protocols: {list(protocols)} contain a duplicate")


def session_request(
    row: DialectRow,
    *,
    authority: str,
    path: str,
    headers: Sequence[tuple[str, str]],
    protocols: Sequence[str],
    origin: str | None,
) -> Fields:
    """Return the fields of a request for a session; the arguments are those of ``H3Connection.send_connect``.

    Raises:
        ValueError: One of them cannot be sent.

    Source: draft-ietf-webtrans-http3-16, sections 3.2 and 3.3.
    """
    messages.check_target(authority, path)
    fields = [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", authority),
        (":path", path),
        (":protocol", row.token),
    ]
    if row.mark is not None:
        fields.append(row.mark.request)
    own = messages.check_headers(headers, REQUEST_RESERVED)
    if origin is not None:
        if messages.values_of(own, "origin"):
            raise ValueError("Origin is given both as a header and as `origin`")
        fields += messages.check_headers((("origin", origin),))
    if protocols:
        check_protocols(protocols)
        fields.append((PROTOCOL_FIELDS.offer, serialize_string_list(protocols)))
    return fields + own


def read_offer(row: DialectRow, headers: Fields) -> tuple[tuple[str, ...], ProtocolFields]:
    """Return the subprotocols that a request offers, and the fields in which it does so.

    Source: draft-ietf-webtrans-http3-16, section 3.3.
    """
    for names in row.protocol_fields:
        if offers := messages.values_of(headers, names.offer):
            # A malformed list counts as none.
            return tuple(parse_string_list(offers, tokens=row.tokens_as_protocols) or ()), names
    return (), PROTOCOL_FIELDS


def acceptance(
    request: messages.Request, protocol: str | None, names: ProtocolFields, headers: Sequence[tuple[str, str]]
) -> Fields:
    """Return the fields of an answer that accepts a session.

    Args:
        request: What is answered.
        protocol: The subprotocol chosen.
        names: The fields in which it was offered.
        headers: Further header fields.

    Raises:
        ValueError: A header cannot be sent.
    """
    fields = [(":status", "200")]
    # A draft's mark is harmless in other drafts, so it goes to whoever sent the request's counterpart.
    fields += [mark.answer for mark in MARKS if messages.values_of(request.headers, mark.request[0])]
    if protocol is not None:
        write = serialize_token if names.choice_is_token else serialize_string
        fields.append((names.choice, write(protocol)))
    return fields + messages.check_headers(headers, RESPONSE_RESERVED)


def rejection(status: int, headers: Sequence[tuple[str, str]] = (), size: int = 0) -> Fields:
    """Return the fields of an answer to a request, of a session or an ordinary one, that ends with it.

    Args:
        status: 200 to 599.
        headers: Further header fields.
        size: Bytes of the body.

    Raises:
        ValueError: A header cannot be sent.
    """
    fields = [(":status", str(status)), *messages.check_headers(headers, RESPONSE_RESERVED)]
    # RFC 9110, section 8.6: 204 has no content-length.
    if status != 204:
        fields.append(("content-length", str(size)))
    return fields


def read_choice(row: DialectRow, offered: Sequence[str], headers: Fields) -> str | None:
    """Return the subprotocol that the server chose among those offered, or ``None``.

    Raises:
        StreamFault: WT_ALPN_ERROR: it chose another one, and the dialect forbids that.

    Source: draft-ietf-webtrans-http3-16, section 3.3.
    """
    for names in row.protocol_fields:
        if values := messages.values_of(headers, names.choice):
            break
    # Anything but one string counts as absent.
    choice = parse_string_item(values[0], tokens=row.tokens_as_protocols) if len(values) == 1 else None
    if choice is None or choice in offered:
        return choice
    if row.protocol_mismatch_closes:
        raise StreamFault(ErrorCodes.WT_ALPN_ERROR, f"the server chose {choice!r}, which was not offered")
    return None
