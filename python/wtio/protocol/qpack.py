"""QPACK with the static table only (RFC 9204).

We announce a dynamic table of capacity 0. A peer that refers to it or inserts into it breaks the protocol, and neither
side ever waits for the other. Strings are read with or without Huffman coding, and written without it by default.
"""

from collections.abc import Callable, Iterable
from typing import Final

from wtio.protocol import huffman
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import ConnectionFault
from wtio.protocol.varint import MAX_VARINT

__all__ = [
    "FIELD_OVERHEAD",
    "STATIC_TABLE",
    "DecoderStream",
    "EncoderStream",
    "FieldSectionTooLargeError",
    "decode_field_section",
    "encode_field_section",
    "field_section_size",
]

FIELD_OVERHEAD: Final = 32
"""Bytes that each field counts in addition to its name and value (RFC 9114, section 4.2.2)."""

# RFC 9204, appendix A.
STATIC_TABLE: Final[tuple[tuple[str, str], ...]] = (
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
)

# RFC 9204, section 7.1.3: an intermediary must not compress these with other contexts.
_SECRET: Final = frozenset(("authorization", "cookie", "set-cookie", "proxy-authorization"))


class FieldSectionTooLargeError(Exception):
    """A field section is larger than the limit."""


def field_section_size(fields: Iterable[tuple[str, str]]) -> int:
    """Return the size of a field section in bytes, as limits count it (RFC 9114, section 4.2.2)."""
    return sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields)


def _failed(reason: str) -> ConnectionFault:
    return ConnectionFault(ErrorCodes.QPACK_DECOMPRESSION_FAILED, reason)


def _encode_integer(value: int, prefix_bits: int, flags: int) -> bytes:
    """Write a number whose first byte has ``flags`` above its low ``prefix_bits`` (RFC 7541, section 5.1)."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((flags | value,))
    result = bytearray((flags | most,))
    value -= most
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


# Fields, and names before a value, that are encoded by their first index in the static table (RFC 9204, sections 4.5.2
# and 4.5.4).
_FIELD_LINES: Final = {
    field: _encode_integer(index, 6, 0xC0) for index, field in reversed(tuple(enumerate(STATIC_TABLE)))
}
_NAMES: Final = {
    name: _encode_integer(index, 4, 0x70 if name in _SECRET else 0x50)
    for index, (name, _) in reversed(tuple(enumerate(STATIC_TABLE)))
}


def _decode_integer(data: bytes, offset: int, prefix_bits: int) -> tuple[int, int]:
    """Read a number of at most 62 bits; returns it and the offset after it."""
    if offset >= len(data):
        raise _failed("field section ends too early")
    most = (1 << prefix_bits) - 1
    value = data[offset] & most
    offset += 1
    if value < most:
        return value, offset
    shift = 0
    while True:
        if offset >= len(data):
            raise _failed("field section ends inside a number")
        byte = data[offset]
        offset += 1
        value += (byte & 0x7F) << shift
        shift += 7
        # RFC 9204, section 4.1.1: 62 bits must be understood; more bits, or endless padding, are refused.
        if value > MAX_VARINT or shift > 70:
            raise _failed("number in a field section is above 62 bits")
        if not byte & 0x80:
            return value, offset


def _encode_string(text: str, prefix_bits: int, flags: int, use_huffman: bool) -> bytes:
    """Write a string whose length has ``prefix_bits``; the Huffman bit is just above them."""
    raw = text.encode("latin-1")
    if use_huffman:
        coded = huffman.encode(raw)
        if len(coded) < len(raw):
            return _encode_integer(len(coded), prefix_bits, flags | 1 << prefix_bits) + coded
    return _encode_integer(len(raw), prefix_bits, flags) + raw


def _decode_string(data: bytes, offset: int, prefix_bits: int) -> tuple[str, int]:
    """Read a string whose length has ``prefix_bits``; returns it and the offset after it."""
    if offset >= len(data):
        raise _failed("field section ends too early")
    first = data[offset]
    coded = first >> prefix_bits & 1
    most = (1 << prefix_bits) - 1
    length = first & most
    offset += 1
    if length == most:
        length, offset = _decode_integer(data, offset - 1, prefix_bits)
    end = offset + length
    if end > len(data):
        raise _failed("field section ends inside a string")
    raw = data[offset:end]
    if coded:
        try:
            raw = huffman.decode(raw)
        except huffman.HuffmanError as error:
            raise _failed(str(error)) from error
    return raw.decode("latin-1"), end


def encode_field_section(fields: Iterable[tuple[str, str]], *, use_huffman: bool = False) -> bytes:
    """Encode fields in their order, without the dynamic table.

    Args:
        fields: Names (lower case) and values; characters up to U+00FF.
        use_huffman: Write a string in Huffman code if that is shorter.

    Raises:
        ValueError: A character is above U+00FF.

    Source: RFC 9204, section 4.5.
    """
    parts = [b"\x00\x00"]  # required insert count 0, base 0
    for field in fields:
        line = _FIELD_LINES.get(field)
        if line is None:
            name, value = field
            line = _NAMES.get(name) or _encode_string(name, 3, 0x30 if name in _SECRET else 0x20, use_huffman)
            line += _encode_string(value, 7, 0, use_huffman)
        parts.append(line)
    return b"".join(parts)


def decode_field_section(data: bytes, *, max_size: int) -> list[tuple[str, str]]:
    """Decode a field section. Names and values are decoded as Latin-1 and not changed otherwise.

    Args:
        data: Payload of a HEADERS frame.
        max_size: Largest size in bytes as ``field_section_size`` counts, checked field by field.

    Raises:
        ConnectionFault: QPACK_DECOMPRESSION_FAILED for anything that cannot be decoded or refers to the dynamic
            table, which has no entries.
        FieldSectionTooLargeError: The fields are larger than ``max_size``.

    Source: RFC 9204, section 4.5.
    """
    # Without a dynamic table the required insert count is 0, and nearly every encoder writes the base as 0 too.
    offset = 2 if data[:2] == b"\x00\x00" else _decode_prefix(data)
    fields: list[tuple[str, str]] = []
    size = 0
    while offset < len(data):
        first = data[offset]
        if first & 0x80:  # indexed field line
            if 0xC0 <= first < 0xFF:  # an index in this byte, as nearly always; otherwise see _decode_integer
                field = STATIC_TABLE[first & 0x3F]
                offset += 1
            else:
                index, offset = _decode_integer(data, offset, 6)
                field = _static(index, first & 0x40)
        elif first & 0x40:  # literal with name reference
            if 0x50 <= first < 0x5F:
                name = STATIC_TABLE[first & 0x0F][0]
                offset += 1
            else:
                index, offset = _decode_integer(data, offset, 4)
                name = _static(index, first & 0x10)[0]
            value, offset = _decode_string(data, offset, 7)
            field = (name, value)
        elif first & 0x20:  # literal with literal name
            name, offset = _decode_string(data, offset, 3)
            value, offset = _decode_string(data, offset, 7)
            field = (name, value)
        else:
            raise _failed("field section refers to the dynamic table, which has capacity 0")
        size += len(field[0]) + len(field[1]) + FIELD_OVERHEAD
        if size > max_size:
            raise FieldSectionTooLargeError
        fields.append(field)
    return fields


def _decode_prefix(data: bytes) -> int:
    """Check the numbers in front of the fields (RFC 9204, section 4.5.1); returns the offset after them."""
    required, offset = _decode_integer(data, 0, 8)
    if required:
        raise _failed("field section needs the dynamic table, which has capacity 0")
    base_is_negative = offset < len(data) and data[offset] & 0x80
    _, offset = _decode_integer(data, offset, 7)
    if base_is_negative:
        raise _failed("field section has a base below 0")
    return offset


def _static(index: int, is_static: int) -> tuple[str, str]:
    """Return a field of the static table; ``is_static`` is the bit that says whether the static table is meant."""
    if not is_static:
        raise _failed("field section refers to the dynamic table, which has capacity 0")
    if index >= len(STATIC_TABLE):
        raise _failed(f"field section refers to entry {index} of the static table, which has {len(STATIC_TABLE)}")
    return STATIC_TABLE[index]


class EncoderStream:
    """Reads the peer's encoder stream, which with capacity 0 can only set the capacity to 0."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        """Take bytes.

        Raises:
            ConnectionFault: QPACK_ENCODER_STREAM_ERROR for any instruction but "Set Dynamic Table Capacity 0".

        Source: RFC 9204, sections 3.2.3 and 4.3.
        """
        # 001 and a number with five bits: capacity 0 is the byte 0x20. Every insertion exceeds the capacity.
        if data.strip(b"\x20"):
            raise ConnectionFault(
                ErrorCodes.QPACK_ENCODER_STREAM_ERROR, "encoder uses the dynamic table, which has capacity 0"
            )


class DecoderStream:
    """Reads the peer's decoder stream. As we never insert, it can only cancel streams."""

    __slots__ = ("_digits",)

    def __init__(self) -> None:
        self._digits = 0  # bytes so far of an unfinished number; 0 between instructions

    def feed(self, data: bytes, cancelled: Callable[[], object] = bool) -> None:
        """Take bytes; ``cancelled`` is called for each stream that is cancelled. Default: a function without effect.

        Raises:
            ConnectionFault: QPACK_DECODER_STREAM_ERROR for an acknowledgement or increment of insertions that were
                never made, or for a number above 62 bits.

        Source: RFC 9204, section 4.4.
        """
        for byte in data:
            if self._digits:
                # RFC 9204, section 4.1.1: 62 bits must be understood, in 9 bytes after the first; more are padding.
                if self._digits > 10:
                    raise ConnectionFault(ErrorCodes.QPACK_DECODER_STREAM_ERROR, "number in decoder stream too long")
                self._digits = self._digits + 1 if byte & 0x80 else 0
            elif byte & 0xC0 == 0x40:  # stream cancellation, six bits
                cancelled()
                self._digits = int(byte & 0x3F == 0x3F)
            else:
                raise ConnectionFault(
                    ErrorCodes.QPACK_DECODER_STREAM_ERROR, "decoder acknowledges insertions that were never made"
                )
