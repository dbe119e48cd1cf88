"""Frames of HTTP/3: types, writing, and an incremental reader of type-length-value records.

Frames and capsules have the same shape (RFC 9114, section 7.1; RFC 9297, section 3.2), so ``RecordReader`` serves
both. It stores only what its owner asks it to collect; a payload that is not understood is counted and skipped.
"""

from collections.abc import Callable, Iterator
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Final

from wtio.protocol import varint

__all__ = ["FrameType", "Handling", "RecordReader", "StreamType", "data_stream_header", "encode_record"]


class FrameType(IntEnum):
    """Frame types with a meaning in HTTP/3."""

    DATA = 0x00
    HEADERS = 0x01
    CANCEL_PUSH = 0x03
    SETTINGS = 0x04
    PUSH_PROMISE = 0x05
    GOAWAY = 0x07
    MAX_PUSH_ID = 0x0D
    WT_STREAM = 0x41  # not a frame: the signal at the head of a bidirectional data stream
    PRIORITY_UPDATE_REQUEST = 0xF0700  # RFC 9218
    PRIORITY_UPDATE_PUSH = 0xF0701


HTTP2_FRAME_TYPES: Final = frozenset((0x02, 0x06, 0x08, 0x09))
"""Types of HTTP/2 frames without a counterpart: H3_FRAME_UNEXPECTED (RFC 9114, section 7.2.8)."""


class StreamType(IntEnum):
    """First number of a unidirectional stream."""

    CONTROL = 0x00
    PUSH = 0x01
    QPACK_ENCODER = 0x02
    QPACK_DECODER = 0x03
    WT_STREAM = 0x54


def encode_record(type: int, value: bytes) -> bytes:
    """Return a frame or a capsule: type, length, value."""
    return varint.encode(type) + varint.encode(len(value)) + value


@lru_cache(maxsize=256)
def data_stream_header(session_id: int, *, bidirectional: bool) -> bytes:
    """Return the header of a WebTransport data stream (3 to 10 bytes); mostly the same object for the same arguments.

    Source: draft-ietf-webtrans-http3-16, sections 4.2 and 4.3.
    """
    signal = FrameType.WT_STREAM if bidirectional else StreamType.WT_STREAM
    return varint.encode(signal) + varint.encode(session_id)


class Handling(Enum):
    """What to do with the value of a record."""

    COLLECT = "collect"  # yield it when it is complete
    STREAM = "stream"  # yield it piece by piece
    SKIP = "skip"


class RecordReader:
    """Cuts a byte stream into type-length-value records."""

    __slots__ = ("_buffer", "_handling", "_head", "_left", "_type")

    def __init__(self) -> None:
        self._head = b""  # an incomplete type and length: at most 15 bytes
        self._handling: Handling | None = None
        self._type = 0
        self._left = 0
        # Value of a record that arrives in pieces.
        self._buffer: bytearray | None = None

    @property
    def buffered(self) -> int:
        """Bytes stored for an incomplete record."""
        return len(self._head) + len(self._buffer or b"")

    @property
    def at_boundary(self) -> bool:
        """Whether the bytes so far end with a complete record."""
        return self._handling is None and not self._head

    @property
    def may_be_data_stream(self) -> bool:
        """Whether the bytes so far may be the beginning of a data stream's header: inside a type, or after 0x41."""
        if self._handling is not None or not self._head:
            return False
        number = varint.decode(self._head)
        return number is None or number[0] == FrameType.WT_STREAM

    def feed(self, data: bytes, classify: Callable[[int, int], Handling]) -> Iterator[tuple[int, bytes]]:
        """Take bytes; yield (type, value) for each collected value and for each piece of a streamed one.

        ``classify(type, length)`` is called as soon as type and length of a record are complete, before any of its
        value is stored. It says what to do with the value, or raises to refuse the record. It must not COLLECT a value
        that is too large to store. The reader does not keep it, so it may be a method of the reader's owner.

        The iterator is lazy, so that the caller can act on a record before the next one is classified. It must be
        exhausted, or bytes are lost.
        """
        if self._head:
            data = self._head + data
            self._head = b""
        offset = 0
        size = len(data)
        while offset < size:
            if self._handling is None:
                offset = self._begin(data, offset, classify)
                if self._handling is None:
                    continue
                if not self._left:
                    handling, self._handling = self._handling, None
                    if handling is Handling.COLLECT:
                        yield self._type, b""
                    continue
            taken = min(self._left, size - offset)
            piece = data[offset : offset + taken] if self._handling is not Handling.SKIP else b""
            offset += taken
            self._left -= taken
            handling = self._handling
            if handling is Handling.COLLECT and (self._buffer is not None or self._left):
                if self._buffer is None:
                    self._buffer = bytearray()
                self._buffer += piece
                piece = b""
            if not self._left:
                self._handling = None
            if handling is Handling.STREAM:
                # None of the value has arrived if ``data`` ends with the head. An empty piece would say nothing, and a
                # reader may take it for the end.
                if piece:
                    yield self._type, piece
            elif handling is Handling.COLLECT and not self._left:
                if self._buffer is not None:
                    piece = bytes(self._buffer)
                    self._buffer = None
                yield self._type, piece

    def _begin(self, data: bytes, offset: int, classify: Callable[[int, int], Handling]) -> int:
        """Read the head of a record at ``offset``; returns the offset after it, or the end if it is incomplete."""
        kind = varint.decode(data, offset)
        length = varint.decode(data, kind[1]) if kind else None
        if kind is None or length is None:
            self._head = data[offset:]
            return len(data)
        self._type = kind[0]
        self._left = length[0]
        self._handling = classify(kind[0], length[0])
        return length[1]
