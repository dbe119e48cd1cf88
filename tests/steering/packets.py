"""QUIC packets as far as steering looks at them, and sockets that count what they get."""

from __future__ import annotations

import random
import select
import socket
from collections import Counter
from typing import TYPE_CHECKING

from wtio._connection_ids import connection_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# RFC 9000, section 17.2.2.
INITIAL = 0xC3
SHORT = 0x43
# Packets that fit into the smallest socket buffer.
AT_ONCE = 50
SECONDS = 30


def long(connection_id: bytes, size: int = 60) -> bytes:
    """The beginning of an Initial packet, which nobody decrypts."""
    head = bytes([INITIAL, 0, 0, 0, 1, len(connection_id)]) + connection_id
    return head.ljust(size, b"\0")


def short(connection_id: bytes, size: int = 60) -> bytes:
    """A packet of an established connection."""
    return (bytes([SHORT]) + connection_id).ljust(size, b"\0")


def id_of(slot: int, server_id: bytes = b"", *, seed: int = 0) -> bytes:
    """A connection ID of a server's."""
    prefix, length = connection_ids(server_id, slot)
    return prefix + random.Random(seed).randbytes(length - len(prefix))


def client_ids(count: int, seed: int, length: int = 8) -> list[bytes]:
    """Connection IDs as clients choose them."""
    chance = random.Random(f"{seed} {length}")
    return [chance.randbytes(length) for _ in range(count)]


def owners(sockets: Sequence[socket.socket], packets: Iterable[bytes]) -> list[int]:
    """Send packets to sockets that share an address; to which of them each one came, by number."""
    to = sockets[0].getsockname()
    if to[0] in ("0.0.0.0", "::"):
        to = ("::1" if to[0] == "::" else "127.0.0.1", *to[1:])
    numbered = list(enumerate(packets))
    found: dict[int, int] = {}
    with socket.socket(sockets[0].family, socket.SOCK_DGRAM) as source:
        for start in range(0, len(numbered), AT_ONCE):
            for number, packet in numbered[start : start + AT_ONCE]:
                # Behind everything that steering looks at.
                source.sendto(packet + number.to_bytes(4, "big"), to)
            while len(found) < min(start + AT_ONCE, len(numbered)):
                ready, _, _ = select.select(sockets, [], [], SECONDS)
                assert ready, f"{len(numbered) - len(found)} packets are lost"
                for sock in ready:
                    found[int.from_bytes(sock.recv(65_536)[-4:], "big")] = sockets.index(sock)
    return [found[number] for number, _ in numbered]


def is_even(found: Iterable[int], among: Sequence[int]) -> bool:
    """Whether chance would spread at least as unevenly once in a thousand times (chi-square)."""
    counts = Counter(found)
    assert set(counts) <= set(among)
    expected = sum(counts.values()) / len(among)
    distance = sum((counts[one] - expected) ** 2 / expected for one in among)
    # Quantiles of the distribution, by degrees of freedom.
    return distance < {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 7: 24.32}[len(among) - 1]
