"""Headers and subprotocols: what applications pass, and what sessions show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from wtio._arguments import strings
from wtio.protocol.handshake import REQUEST_RESERVED, check_protocols
from wtio.protocol.messages import check_headers

__all__ = ["HeaderArgument", "Headers", "header_pairs", "offered_protocols"]

HeaderArgument = Mapping[str, str] | Sequence[tuple[str, str]]
"""What an application may pass: a mapping, or pairs in order."""

Headers = tuple[tuple[str, str], ...]
"""Names and values in order, names in lower case."""


def header_pairs(headers: HeaderArgument, reserved: Collection[str] = REQUEST_RESERVED) -> Headers:
    """Bring headers into the form of the protocol layer: pairs in order, names in lower case.

    Args:
        headers: What the application gave.
        reserved: Names that this library writes itself.

    Raises:
        TypeError: It is neither a mapping nor pairs, or a name or value is not a str.
        ValueError: A name or value cannot be sent.
    """
    pairs: list[tuple[str, str]] = []
    try:
        members = tuple(headers.items() if isinstance(headers, Mapping) else headers)
    except TypeError:
        raise TypeError(f"headers must be a mapping or a sequence of pairs, not {type(headers).__name__}") from None
    for pair in members:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"headers must be pairs of str; one member is of type {type(pair).__name__}")
        name, value = pair
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers must be pairs of str, not ({type(name).__name__}, {type(value).__name__})")
        if name.startswith(":"):
            raise ValueError(f"headers: `{name}` is a pseudo-header; wtio sends those itself")
        pairs.append((name, value))
    try:
        return tuple(check_headers(pairs, reserved))
    except ValueError as error:
        raise ValueError(f"headers: {error}") from None


def offered_protocols(protocols: Sequence[str], *, unique: bool = True) -> tuple[str, ...]:
    """Check subprotocols.

    Raises:
        TypeError: It is not a sequence of str.
        ValueError: One cannot be sent, or is given twice although that is not allowed.

    Source: W3C WebTransport, section 5.2.
    """
    offered = strings("protocols", protocols)
    check_protocols(offered, unique=unique)
    return offered
