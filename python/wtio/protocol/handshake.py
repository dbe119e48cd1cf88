"""The header sections of a session's request and its answer, written and read by pure functions.

Rules for the header sections of all requests are in ``messages``, names that differ between drafts in ``dialects``.
``connect_streams`` decides when a request may be sent, and acts on answers.
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
"""Fields of a request that applications cannot set, because this layer writes them."""
RESPONSE_RESERVED: Final = frozenset((*_RESERVED, *(mark.answer[0] for mark in MARKS)))
"""Fields of a response that applications cannot set."""

_LONGEST_PROTOCOL: Final = 512


def headers_frame(fields: Fields) -> bytes:
    """Return the HEADERS frame with these fields."""
    return encode_record(FrameType.HEADERS, qpack.encode_field_section(fields))


def check_protocols(protocols: Sequence[str], *, unique: bool = True) -> None:
    """Check the subprotocols that an application wants to offer, or to choose from.

    Raises:
        ValueError: One cannot be sent, or is listed twice and ``unique`` is true.

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
    """Return the fields of a request for a session. The arguments are explained in ``H3Connection.send_connect``.

    Raises:
        ValueError: An argument cannot be sent.

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
    """Return the subprotocols that a request offers, and the names of the fields that it uses.

    Source: draft-ietf-webtrans-http3-16, section 3.3.
    """
    for names in row.protocol_fields:
        if offers := messages.values_of(headers, names.offer):
            # Section 3.3: a malformed list is ignored.
            return tuple(parse_string_list(offers, tokens=row.tokens_as_protocols) or ()), names
    return (), PROTOCOL_FIELDS


def acceptance(
    request: messages.Request,
    protocol: str | None,
    names: ProtocolFields,
    headers: Sequence[tuple[str, str]],
    status: int = 200,
) -> Fields:
    """Return the fields of an answer that accepts a session.

    Args:
        request: The request.
        protocol: The subprotocol chosen.
        names: The fields in which the client offered it.
        headers: Further header fields.
        status: 200 to 299.

    Raises:
        ValueError: A header cannot be sent.
    """
    fields = [(":status", str(status))]
    # The mark does no harm in other drafts, so every client that sent its counterpart gets it.
    fields += [mark.answer for mark in MARKS if messages.values_of(request.headers, mark.request[0])]
    if protocol is not None:
        write = serialize_token if names.choice_is_token else serialize_string
        fields.append((names.choice, write(protocol)))
    return fields + messages.check_headers(headers, RESPONSE_RESERVED)


def rejection(status: int, headers: Sequence[tuple[str, str]] = (), size: int = 0) -> Fields:
    """Return the fields of a final answer: to an ordinary request, or one that refuses a session.

    Args:
        status: 200 to 599.
        headers: Further header fields.
        size: Length of the body in bytes.

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
        StreamFault: WT_ALPN_ERROR, if it chose another one and the dialect forbids that.

    Source: draft-ietf-webtrans-http3-16, section 3.3.
    """
    for names in row.protocol_fields:
        if values := messages.values_of(headers, names.choice):
            break
    # Anything but a single string is ignored.
    choice = parse_string_item(values[0], tokens=row.tokens_as_protocols) if len(values) == 1 else None
    if choice is None or choice in offered:
        return choice
    if row.protocol_mismatch_closes:
        raise StreamFault(ErrorCodes.WT_ALPN_ERROR, f"the server chose {choice!r}, which was not offered")
    return None
