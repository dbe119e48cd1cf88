"""Asks a port whether somebody is there, without a handshake of QUIC.

A QUIC server answers a version that does not exist with the list of versions that it supports (RFC 9000, section 6).
And a connected UDP socket, unlike the engine's, reports an error if the network says that nobody is there.
"""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["ProbeResult", "has_tcp_server", "probe"]

# Reserved to force version negotiation (RFC 9000, section 15).
_VERSION: Final = bytes.fromhex("1a2a3a4a")
_ID: Final = 8
_SIZE: Final = 1200
_AGAIN: Final = 0.3  # seconds after which the packet is sent again
_UNREACHABLE: Final = frozenset((errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH))


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came back from a UDP port."""

    outcome: Literal["quic", "other", "unreachable", "silent"]
    versions: tuple[int, ...] = ()
    """QUIC versions that the server supports."""
    detail: str = ""
    """The system's error, in words."""


class _Question(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer: asyncio.Future[ProbeResult] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _: object) -> None:
        self._settle(_read(data))

    def error_received(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in _UNREACHABLE:
            self._settle(ProbeResult("unreachable", detail=os.strerror(error.errno).lower()))

    def _settle(self, result: ProbeResult) -> None:
        if not self.answer.done():
            self.answer.set_result(result)


async def probe(ip: str, port: int, patience: float) -> ProbeResult:
    """Probe one address.

    Args:
        ip: IPv4 or IPv6 address.
        port: UDP port.
        patience: Seconds to wait for an answer.

    Returns:
        What came back; ``"unreachable"`` if the system cannot send to the address. Never raises an OSError.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, question = await loop.create_datagram_endpoint(_Question, remote_addr=(ip, port))
    except OSError as error:
        return ProbeResult("unreachable", detail=(error.strerror or str(error)).lower())
    ids = b"".join(bytes((_ID,)) + os.urandom(_ID) for _ in range(2))
    packet = (b"\xc0" + _VERSION + ids).ljust(_SIZE, b"\0")
    try:
        async with asyncio.timeout(patience):
            while True:
                transport.sendto(packet)
                done, _ = await asyncio.wait((question.answer,), timeout=_AGAIN)
                if done:
                    return question.answer.result()
    except TimeoutError:
        return ProbeResult("silent")
    finally:
        transport.close()


async def has_tcp_server(ip: str, port: int, patience: float) -> bool:
    """Whether a TCP connection to this address comes about within ``patience`` seconds. Never raises an OSError."""
    try:
        async with asyncio.timeout(patience):
            _, writer = await asyncio.open_connection(ip, port)
    except OSError:  # TimeoutError is one of them.
        return False
    writer.close()
    return True


def _read(data: bytes) -> ProbeResult:
    """Read an answer. A version negotiation packet has version 0 and ends with a list of versions."""
    if len(data) < 7 or not data[0] & 0x80 or data[1:5] != bytes(4):
        return ProbeResult("other")
    position = 5
    for _ in range(2):
        if position >= len(data):
            return ProbeResult("other")
        position += 1 + data[position]
    rest = data[position:]
    if not rest or len(rest) % 4:
        return ProbeResult("other")
    return ProbeResult("quic", tuple(int.from_bytes(rest[i : i + 4], "big") for i in range(0, len(rest), 4)))
