"""The Huffman code of header strings (RFC 7541, appendix B), which QPACK shares with HPACK.

The code is canonical, so it is defined by the lengths of its codes. Decoding walks the code tree four bits at a
time through a table that is built on first use.
"""

from functools import cache

__all__ = ["HuffmanError", "decode", "encode"]

# Length of each symbol's code in bits; symbol 256 is the end-of-string mark.
# fmt: off
_LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
)
# fmt: on
_END_OF_STRING = 256


class HuffmanError(ValueError):
    """The bytes are not a Huffman-coded string."""


def _canonical_codes() -> list[tuple[int, int]]:
    """Return (code, length) of each symbol: codes of one length count upwards in the order of symbols."""
    codes = [(0, 0)] * len(_LENGTHS)
    code = length = 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        codes[symbol] = (code, length)
        code += 1
    return codes


_CODES = _canonical_codes()


@cache
def _tables() -> tuple[list[tuple[int, int]], frozenset[int]]:
    """Build the decoder: a step (next state, symbol or -1) per state and four bits, and the states to end in.

    A state is an inner node of the code tree; the root is 0. State -1 is an error: the end-of-string mark came.
    No code is shorter than five bits, so four bits complete at most one symbol.
    """
    children: list[list[int]] = [[0, 0]]  # above 0: an inner node; below 0: the leaf of symbol -1 - value
    for symbol, (code, length) in enumerate(_CODES):
        node = 0
        for position in range(length - 1, 0, -1):
            bit = code >> position & 1
            if not children[node][bit]:
                children.append([0, 0])
                children[node][bit] = len(children) - 1
            node = children[node][bit]
        children[node][code & 1] = -1 - symbol
    steps: list[tuple[int, int]] = []
    for state in range(len(children)):
        for bits in range(16):
            node, symbol = state, -1
            for position in (3, 2, 1, 0):
                child = children[node][bits >> position & 1]
                if child < 0:
                    node, symbol = 0, -1 - child
                else:
                    node = child
            steps.append((-1, -1) if symbol == _END_OF_STRING else (node, symbol))
    # Padding is up to seven 1-bits, a beginning of the end-of-string mark (RFC 7541, section 5.2).
    padding = {0}
    node = 0
    for _ in range(7):
        node = children[node][1]
        padding.add(node)
    return steps, frozenset(padding)


def decode(data: bytes) -> bytes:
    """Decode a string; the result has at most 8/5 of the length of ``data``.

    Raises:
        HuffmanError: It contains the end-of-string mark, or its padding is too long or not all ones.

    Source: RFC 7541, section 5.2.
    """
    steps, padding = _tables()
    result = bytearray()
    state = 0
    for byte in data:
        state, symbol = steps[state << 4 | byte >> 4]
        if symbol >= 0:
            result.append(symbol)
        if state < 0:
            raise HuffmanError("end-of-string mark inside a Huffman-coded string")
        state, symbol = steps[state << 4 | byte & 15]
        if symbol >= 0:
            result.append(symbol)
        if state < 0:
            raise HuffmanError("end-of-string mark inside a Huffman-coded string")
    if state not in padding:
        raise HuffmanError("bad padding of a Huffman-coded string")
    return bytes(result)


def encode(data: bytes) -> bytes:
    """Encode a string."""
    bits = 0
    count = 0
    for byte in data:
        code, length = _CODES[byte]
        bits = bits << length | code
        count += length
    padding = -count % 8
    return (bits << padding | (1 << padding) - 1).to_bytes((count + padding) // 8, "big")
