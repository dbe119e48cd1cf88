"""What a supervisor and its workers say to each other: JSON objects over a pair of sockets, one pair for each worker.

A worker may run other code than its supervisor, which is not restarted by a deployment: a later wtio, too. So each side
begins with the version of these messages, ignores what it does not know, and takes what is missing as not said.

========== ============================================= =====================================================
to worker  ``settings``                                  what to serve, and on which descriptors; comes first
           ``serve``                                     the answer to ``loaded``: the sockets are yours
           ``drain`` (``seconds``)                       other workers get the newcomers: settle, then wind down
           ``stop``, ``abort``                           shut down in good order, or at once
           ``certificates``                              read the files again
           ``report``                                    send ``figures`` now
from it    ``loaded``                                    the application is imported
           ``ready``, ``failed`` (``why``)               it serves; or it cannot, in words
           ``figures`` (``stats``)                       from ``Server.stats``, from time to time
           ``certificates`` (``error``)                  what came of reading them; None if they are in force
========== ============================================= =====================================================

Each is sent as four bytes, which are the length in network order, and that many bytes.
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import socket

__all__ = ["VERSION", "Message", "pack", "read", "read_waiting"]

Message: TypeAlias = dict[str, Any]

VERSION: Final = 1
"""Of these messages. Another one means that the two sides cannot understand each other."""

# Bytes of the longest message: settings with certificates in memory, or figures.
_LONGEST: Final = 4 * 1024 * 1024
_LENGTH: Final = struct.Struct("!I")


def pack(kind: str, **content: object) -> bytes:
    """Put a message into bytes."""
    data = json.dumps({"version": VERSION, "kind": kind, **content}).encode()
    if len(data) > _LONGEST:
        raise ValueError(f"a message `{kind}` of {len(data)} bytes is longer than {_LONGEST}")
    return _LENGTH.pack(len(data)) + data


async def read(reader: asyncio.StreamReader) -> Message | None:
    """Wait for the next message; None if there will be none any more.

    Raises:
        ValueError: What came is no message.
    """
    try:
        length = _length(await reader.readexactly(_LENGTH.size))
        return _unpack(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def read_waiting(sock: socket.socket) -> Message | None:
    """As ``read``, without an event loop, from a socket that blocks."""
    head = _exactly(sock, _LENGTH.size)
    body = head and _exactly(sock, _length(head))
    return _unpack(body) if body else None


def _exactly(sock: socket.socket, size: int) -> bytes:
    """Read so many bytes; none if the other side ends before that."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _length(head: bytes) -> int:
    length: int = _LENGTH.unpack(head)[0]
    if length > _LONGEST:
        raise ValueError(f"a message of {length} bytes is longer than {_LONGEST}")
    return length


def _unpack(data: bytes) -> Message:
    message = json.loads(data)
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ValueError("what was received is no message")
    if message.get("version") != VERSION:
        raise ValueError(
            f"messages have version {message.get('version')} on the other side and {VERSION} on this one; restart the "
            "supervisor with the new version of wtio"
        )
    return message
