"""Variable-length integers of QUIC (RFC 9000, section 16)."""

from typing import Final

__all__ = ["MAX_VARINT", "decode", "encode"]

MAX_VARINT: Final = (1 << 62) - 1
"""Largest number that a variable-length integer can hold."""


def encode(value: int) -> bytes:
    """Encode a number in the fewest bytes (1, 2, 4 or 8).

    Raises:
        ValueError: ``value`` is negative or above 2**62-1.
    """
    if 0 <= value < 0x40:
        return value.to_bytes(1, "big")
    if value < 0x4000 and value > 0:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x4000_0000 and value > 0:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if 0 < value <= MAX_VARINT:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise ValueError(f"{value} does not fit into a variable-length integer (0 to 2**62-1)")


def decode(data: bytes | bytearray, offset: int = 0) -> tuple[int, int] | None:
    """Decode the number at ``offset``. Longer encodings than needed are legal and accepted.

    Returns:
        The number and the offset after it, or ``None`` if ``data`` ends inside the number.
    """
    if offset >= len(data):
        return None
    first = data[offset]
    if first < 0x40:
        return first, offset + 1
    end = offset + (1 << (first >> 6))
    if end > len(data):
        return None
    return int.from_bytes(data[offset:end], "big") & ((1 << (8 * (end - offset) - 2)) - 1), end
