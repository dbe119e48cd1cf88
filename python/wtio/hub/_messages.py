"""What a message looks like to a subscriber: the same bytes on a stream, in a datagram, and on the bus.

A message is its topic, its key and its data, each with its length in front as a variable-length integer of QUIC
(RFC 9000, section 16). So it is encoded once, whoever receives it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from wtio._arguments import check_instance, check_integer, check_text, sealed
from wtio._buffer import Buffer, contiguous_bytes
from wtio.config import HubLimits
from wtio.errors import StreamResetError
from wtio.protocol import varint
from wtio.protocol.codes import ErrorCodes
from wtio.stream import WebTransportReceiveStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "EXPIRED_CODE",
    "REPLACED_CODE",
    "TOO_SLOW_CODE",
    "Encoded",
    "Message",
    "MessageReader",
    "check_key",
    "check_topic",
    "decode_message",
    "encode",
    "key_of",
]

TOO_SLOW_CODE: Final = int(ErrorCodes.H3_EXCESSIVE_LOAD)
"""Application close code 0x107 (263) of a session that is closed because it read too slowly for ``everything``."""

REPLACED_CODE: Final = int(ErrorCodes.H3_REQUEST_CANCELLED)
"""Application error code 0x10c (268) of a stream that carried an update of ``latest``, because there is a
newer one."""

EXPIRED_CODE: Final = int(ErrorCodes.H3_REQUEST_REJECTED)
"""Application error code 0x10b (267) of a stream whose message was not delivered ``within`` its time."""

# Bytes of UTF-8. Redis takes longer names; NATS counts a subject to its 4096 bytes of a control line, and escapes take
# three bytes for one.
_LONGEST_NAME: Final = 255


@sealed
@dataclass(frozen=True, slots=True)
class Message:
    """What was published, as a subscriber receives it."""

    topic: str
    """The topic that it was published on."""
    key: str
    """Its key; empty without one."""
    data: bytes
    """Its payload."""


class Encoded(NamedTuple):
    """A message as it is sent to everybody."""

    key: str
    """Its key; empty without one."""
    data: bytes
    """All of it: topic, key and payload."""


def check_topic(value: object) -> None:
    """Raise TypeError or ValueError for anything but the name of a topic."""
    _check_name("topic", value)
    if not value:
        raise ValueError("topic is empty; it must have at least one character")


def check_key(value: object) -> None:
    """Raise TypeError or ValueError for anything but a key."""
    _check_name("key", value)


def _check_name(name: str, value: object) -> None:
    check_text(name, value)
    assert isinstance(value, str)
    if len(value.encode()) > _LONGEST_NAME:
        raise ValueError(f"{name} has {len(value.encode())} bytes; it must have at most {_LONGEST_NAME}")
    if not value.isprintable():
        raise ValueError(f"{name} is {value!r}; it must be printable")


def encode(topic: str, key: str, data: Buffer, limit: int) -> Encoded:
    """Encode a message.

    Raises:
        TypeError: ``data`` is text, not a buffer, or not contiguous.
        ValueError: The message is longer than ``limit`` bytes.
    """
    payload = data if isinstance(data, bytes) else bytes(contiguous_bytes(data))
    parts = []
    for part in (topic.encode(), key.encode(), payload):
        parts += [varint.encode(len(part)), part]
    encoded = b"".join(parts)
    if len(encoded) > limit:
        raise ValueError(f"data makes a message of {len(encoded)} bytes; see HubLimits.message ({limit})")
    return Encoded(key, encoded)


def decode_message(data: Buffer) -> Message:
    """Read a message that arrived as a datagram.

    Args:
        data: The datagram.

    Raises:
        TypeError: ``data`` is not bytes-like.
        ValueError: It is not one whole message.
    """
    whole = bytes(contiguous_bytes(data))
    found = _split(whole, 0, varint.MAX_VARINT)
    if found is None or found[1] != len(whole):
        raise ValueError(f"data of {len(whole)} bytes is not a message of a hub")
    return found[0]


def key_of(data: bytes) -> str:
    """The key of an encoded message.

    Raises:
        ValueError: It is none.
    """
    return decode_message(data).key


def _split(data: bytes | bytearray, offset: int, limit: int) -> tuple[Message, int] | None:
    """The message at ``offset`` and where it ends; None if it is not there whole. ValueError if it is none."""
    parts, begin = [], offset
    for _ in range(3):
        size = varint.decode(data, offset)
        if size is None:
            return None
        if size[0] + size[1] - begin > limit:
            raise ValueError(f"a message has more than {limit} bytes; see `max_bytes`")
        offset = sum(size)
        if offset > len(data):
            return None
        parts.append(bytes(data[size[1] : offset]))
    topic, key, payload = parts
    # Bytes that are not UTF-8 raise a UnicodeDecodeError, which is a ValueError.
    return Message(topic.decode(), key.decode(), payload), offset


class MessageReader:
    """The messages on a stream of a hub: ``async for message in MessageReader(stream)``.

    The iteration ends with the stream, and if the hub gave the stream up for a newer update or because its message was
    too late (``REPLACED_CODE``, ``EXPIRED_CODE``). Cancelling loses no message.

    Args:
        stream: A stream that the server's hub opened.
        max_bytes: Most bytes of one message, with topic and key; None (default) means ``HubLimits.message``
            (1 000 000).

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: ``max_bytes`` is below 1. While iterating: a message is longer, or what arrives is no message.
    """

    __slots__ = ("_buffer", "_limit", "_stream")

    def __init__(self, stream: WebTransportReceiveStream, *, max_bytes: int | None = None) -> None:
        check_instance("stream", stream, WebTransportReceiveStream, "one that a hub opened", optional=False)
        if max_bytes is None:
            max_bytes = HubLimits().message
        check_integer("max_bytes", max_bytes, 1)
        self._stream = stream
        self._limit = max_bytes
        # What has arrived of messages that were not returned yet: at most one that is not whole, and what one read
        # brought with it.
        self._buffer = bytearray()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while True:
            found = _split(self._buffer, 0, self._limit)
            if found is not None:
                message, end = found
                del self._buffer[:end]
                if self._is_taken_back():
                    raise StopAsyncIteration
                return message
            try:
                chunk = await self._stream.read()
            except StreamResetError as error:
                if error.error_code in (REPLACED_CODE, EXPIRED_CODE):
                    raise StopAsyncIteration from None
                raise
            if chunk:
                self._buffer += chunk
            elif self._buffer:
                raise asyncio.IncompleteReadError(bytes(self._buffer), None)
            else:
                raise StopAsyncIteration

    def _is_taken_back(self) -> bool:
        """Whether the hub has reset the stream, although what had arrived before can still be read."""
        stream = self._stream
        return not stream.can_read and stream.diagnostics().receive_reset_code in (REPLACED_CODE, EXPIRED_CODE)

    def __repr__(self) -> str:
        return f"<MessageReader {self._stream!r}>"
