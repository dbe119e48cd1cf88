"""Limits and timeouts: every number that can be tuned, with its default, its unit and its effect.

Sizes are bytes, durations are seconds. Both classes are immutable; ``dataclasses.replace`` makes variants. All
defaults of the library stand here and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from wtio._arguments import sealed


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and counts. Pass to ``connect`` or ``serve``.

    Raises:
        TypeError: A value is not an int (or None where None means something).
        ValueError: A value is out of its range; the message names both.
    """

    read_all: int | None = 64 * 1024 * 1024
    """Most bytes that ``read_all`` collects; None means no limit. Default 64 MiB."""
    line: int = 1024 * 1024
    """Most bytes before the separator in ``readline`` and ``readuntil``, unless given there. Default 1 MiB."""
    bidirectional_streams: int = 128
    """Bidirectional streams that the peer may have open at once on one connection. Default 128. Every connection keeps
    some 70 bytes for each of them, opened or not."""
    unidirectional_streams: int = 128
    """Unidirectional streams that the peer may have open at once on one connection. A peer without session flow
    control may open 2 even where this is less, for HTTP/3 demands room. Default 128. Every connection keeps some 40
    bytes for each of them, opened or not. Source: RFC 9114, section 6.2."""
    early_streams: int = 64
    """Streams kept per connection for a session that is not established yet; further ones are rejected with
    WT_BUFFERED_STREAM_REJECTED. Default 64. Source: draft-ietf-webtrans-http3-16, section 4.6."""
    early_datagrams: int = 64
    """Datagrams kept per connection for a session that is not established yet; further ones are dropped. Default 64."""
    stream_receive_window: int = 4 * 1024 * 1024
    """Unread bytes that the peer may send on one stream; at most 16 MiB. Default 4 MiB, which lets one stream carry
    320 Mbit/s over a round trip of 100 ms; several streams have a window each. Each packet that is lost leaves a gap,
    and more than 1024 of them in one stream end its connection. In 4 MiB of full packets there are never as many at
    random; in 8 MiB there can be where a fifth is lost, in 16 MiB where more than a tenth is."""
    connection_receive_window: int = 16 * 1024 * 1024
    """Unread bytes that the peer may send on one connection. Default 16 MiB."""
    session_receive_window: int | None = None
    """Unread bytes that the peer may send on one session, where the peer speaks session flow control. At least 1; None
    means twice ``connection_receive_window``, so that it holds nobody back. Default None.
    Source: draft-ietf-webtrans-http3-16, section 5."""
    session_bidirectional_streams: int | None = None
    """Bidirectional streams that the peer may have open at once on one session, where the peer speaks session flow
    control; ``bidirectional_streams`` holds for all sessions of a connection together. None means twice that. Default
    None."""
    session_unidirectional_streams: int | None = None
    """Unidirectional streams that the peer may have open at once on one session, where the peer speaks session flow
    control; ``unidirectional_streams`` holds for all sessions of a connection together. None means twice that. Default
    None."""
    stream_send_buffer: int = 256 * 1024
    """Accepted, unsent bytes per stream above which ``write`` waits. Default 256 KiB."""
    connection_send_buffer: int = 4 * 1024 * 1024
    """Accepted, unsent bytes per connection above which ``write`` waits. Each stream may hold 16 KiB beyond that, so
    that streams that nobody reads do not stop the others. Default 4 MiB."""
    datagram_send_buffer: int = 1024 * 1024
    """Datagram bytes per connection that wait to be sent; beyond, the oldest are dropped. Default 1 MiB."""
    datagram_receive_buffer: int = 1024 * 1024
    """Datagram bytes per session that wait to be received; beyond, the oldest are dropped. Default 1 MiB."""
    datagram_receive_count: int = 1024
    """Datagrams per session that wait to be received; beyond, the oldest are dropped. Default 1024."""
    header_size: int = 64 * 1024
    """Most bytes of headers in one request or response, counted as in RFC 9114, section 4.2.2. Default 64 KiB."""
    connections: int = 10_000
    """Server: connections at once; further clients are refused. Default 10 000."""
    sessions: int = 10_000
    """Server: sessions at once; further requests are answered with status 429, and so they are while twice as many
    handlers run, whose sessions may be over. Default 10 000."""
    sessions_per_connection: int = 128
    """Sessions at once on one connection, and never more than ``sessions``; only connections with session flow control
    carry several. A server says so to its clients where their draft can be told (drafts 13 and 14, WT_MAX_SESSIONS) and
    resets further requests with H3_REQUEST_REJECTED; a ``Client`` dials a further connection. Default 128.
    Source: draft-ietf-webtrans-http3-16, section 5.1."""
    pending_requests: int = 128
    """Server: requests that wait to be taken by ``async for request in server``; further ones are answered with
    status 429. Default 128."""
    initial_mtu: int = 1200
    """UDP payload size in use until path MTU discovery finds more. Default 1200, the smallest that QUIC allows."""
    max_mtu: int = 1452
    """Largest UDP payload size that path MTU discovery tries. Default 1452 (Ethernet with IPv6)."""

    def __post_init__(self) -> None:
        for name, (least, most, optional) in _LIMIT_RANGES.items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                words = "an int or None" if optional else "an int"
                raise TypeError(f"Limits.{name} must be {words}, not {type(value).__name__}")
            if not least <= value <= most:
                way_out = _WAYS_OUT.get(name, "") if value > most else ""
                raise ValueError(f"Limits.{name} is {value}; it must be between {least} and {most}{way_out}")
        if self.initial_mtu > self.max_mtu:
            raise ValueError(f"Limits.initial_mtu ({self.initial_mtu}) exceeds Limits.max_mtu ({self.max_mtu})")


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Durations in seconds. Pass to ``connect`` or ``serve``.

    Raises:
        TypeError: A value is not a number (or None where None means something).
        ValueError: A value is negative, zero where that makes no sense, not finite, or above 10⁹ (31 years).
    """

    connect: float = 10.0
    """Client: from the call to the established session, name resolution included. Default 10 s."""
    attempt_delay: float = 0.25
    """Client: head start of each address of the host before the next is tried at the same time. Default 0.25 s.
    Source: RFC 8305, section 5."""
    idle: float = 30.0
    """Silence after which a connection is given up; the smaller of the two sides' values holds. Default 30 s."""
    keep_alive: float | None = 10.0
    """Interval of PINGs on a connection without other traffic, so that quiet sessions stay; None sends none and lets
    ``idle`` end them. Never more than a third of ``idle``. Default 10 s."""
    close: float = 2.0
    """Most time that closing a session waits: once for finished streams to be acknowledged (only when leaving
    ``async with`` or a server's handler), once for the peer's goodbye. Default 2 s."""
    drain: float = 0.0
    """Server: how long ``Server.close`` lets handlers go on after it announced the end (GOAWAY). Default 0 s,
    not at all."""
    request: float = 30.0
    """Server: how long a request may wait for ``accept`` or ``reject`` before it is answered with 503. Default 30 s."""
    without_session: float = 30.0
    """Server: how long a connection may stay without any session before it is closed. Default 30 s."""
    datagram_send: float | None = None
    """Age at which a datagram that still waits to be sent is dropped; None means never. Default None."""

    def __post_init__(self) -> None:
        for name, (zero, optional) in _TIMEOUT_RANGES.items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                words = "a number of seconds or None" if optional else "a number of seconds"
                raise TypeError(f"Timeouts.{name} must be {words}, not {type(value).__name__}")
            if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
                least = "0 or more" if zero else "more than 0"
                raise ValueError(f"Timeouts.{name} is {value}; it must be {least} seconds and finite")
            if value > LONGEST_TIMEOUT:
                raise ValueError(f"Timeouts.{name} is {value}; it must be at most {LONGEST_TIMEOUT:g} seconds")


LARGEST_LIMIT: Final = 2**60
"""No size and no count may be larger; QUIC can number no more streams (RFC 9000, section 4.6)."""

LONGEST_TIMEOUT: Final = 1e9
"""No duration may be longer, in seconds; QUIC's clocks cannot count much further."""

LARGEST_STREAM_WINDOW: Final = 16 * 1024 * 1024
"""The QUIC core allows 1024 gaps in one stream; crates/engine/tests/gaps.rs shows for what that is enough."""

# name: (least, most, may be None)
_LIMIT_RANGES: Final[dict[str, tuple[int, int, bool]]] = {
    "read_all": (0, LARGEST_LIMIT, True),
    "line": (1, LARGEST_LIMIT, False),
    "bidirectional_streams": (0, LARGEST_LIMIT, False),
    "unidirectional_streams": (0, LARGEST_LIMIT, False),
    "early_streams": (0, 65_536, False),
    "early_datagrams": (0, 65_536, False),
    "stream_receive_window": (1024, LARGEST_STREAM_WINDOW, False),
    "connection_receive_window": (1024, LARGEST_LIMIT, False),
    "session_receive_window": (1, LARGEST_LIMIT, True),
    "session_bidirectional_streams": (0, LARGEST_LIMIT, True),
    "session_unidirectional_streams": (0, LARGEST_LIMIT, True),
    "stream_send_buffer": (1, 2**40, False),
    "connection_send_buffer": (1, 2**40, False),
    "datagram_send_buffer": (1500, 2**40, False),
    "datagram_receive_buffer": (1500, 2**40, False),
    "datagram_receive_count": (1, 2**31, False),
    "header_size": (1024, 2**24, False),
    "connections": (1, 2**31, False),
    "sessions": (1, 2**31, False),
    "sessions_per_connection": (1, 2**31, False),
    "pending_requests": (1, 2**31, False),
    "initial_mtu": (1200, 65_527, False),
    "max_mtu": (1200, 65_527, False),
}

# For those that have one: how to get what a larger value was meant for.
_WAYS_OUT: Final = {"stream_receive_window": "; for more bytes under way use several streams, each has such a window"}

# name: (zero allowed, may be None)
_TIMEOUT_RANGES: Final[dict[str, tuple[bool, bool]]] = {
    "connect": (False, False),
    "attempt_delay": (True, False),
    "idle": (False, False),
    "keep_alive": (False, True),
    "close": (True, False),
    "drain": (True, False),
    "request": (False, False),
    "without_session": (False, False),
    "datagram_send": (False, True),
}

if {field.name for field in fields(Limits)} != _LIMIT_RANGES.keys():
    raise AssertionError("every field of Limits needs its range")
if {field.name for field in fields(Timeouts)} != _TIMEOUT_RANGES.keys():
    raise AssertionError("every field of Timeouts needs its range")
