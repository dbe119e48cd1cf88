"""Headers and subprotocols: what applications pass, and what sessions show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from wtio._arguments import strings
from wtio.protocol.handshake import REQUEST_RESERVED, check_protocols
from wtio.protocol.messages import check_headers

__all__ = ["HeaderArgument", "Headers", "header_pairs", "offered_protocols", "parse_cookies"]

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


def parse_cookies(headers: Headers) -> Mapping[str, str]:
    """Return the cookies of a request by name. Never fails: what is no ``name=value`` is left out.

    The quotes around a value are taken off, nothing else is decoded. Of several cookies with the same name, the first
    one counts: browsers send it for the longest path (RFC 6265, section 5.4).

    Source: RFC 6265, section 4.2; RFC 9114, section 4.2.1, for several Cookie fields.
    """
    cookies: dict[str, str] = {}
    for field, line in headers:
        if field != "cookie":
            continue
        for pair in line.split(";"):
            name, separator, value = pair.partition("=")
            name, value = name.strip(" \t"), value.strip(" \t")
            if separator and name:
                if len(value) >= 2 and value[0] == value[-1] == '"':
                    value = value[1:-1]
                cookies.setdefault(name, value)
    return MappingProxyType(cookies)


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
