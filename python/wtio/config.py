"""Limits and timeouts: every number that you can tune, with its default, unit and effect.

Sizes are bytes, durations are seconds. Both classes are immutable; ``dataclasses.replace`` makes variants. All
defaults of the library are here and nowhere else, each with the range of its field. A field may be None if its type
says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from itertools import compress
from operator import attrgetter, is_not
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from wtio._arguments import sealed

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_LIMIT: Final = 2**60
"""Largest size or count; QUIC has no IDs for more streams (RFC 9000, section 4.6)."""

LONGEST_TIMEOUT: Final = 1e9
"""Longest duration in seconds; QUIC's clocks cannot count much further."""

LONGEST_RETRY_AFTER: Final = 3600
"""Longest time in seconds that a client waits because a server asked it to (``Retry-After``)."""

LARGEST_STREAM_WINDOW: Final = 16 * 1024 * 1024
"""Larger ones could exceed the 1024 gaps that the QUIC core allows in one stream; see crates/engine/tests/gaps.rs."""

LEAST_SECRET: Final = 32
"""Bytes of the shortest ``Secret``."""

LONGEST_SERVER_ID: Final = 8
"""Bytes of the longest ``ServerId``."""

LARGEST_SLOT: Final = 255
"""The last slot among the sockets of one address."""

_Size = TypeVar("_Size", int, None)
_Seconds = TypeVar("_Seconds", float, None)


class _Range(NamedTuple):
    """The range of a size or a count."""

    least: int
    most: int
    beyond: str
    """What to do instead of choosing a larger value, in words."""

    def __str__(self) -> str:
        most = f"2^{self.most.bit_length() - 1}" if self.most > 2**24 and self.most.bit_count() == 1 else str(self.most)
        return f"{self.least} to {most}"

    def check(self, name: str, value: object, optional: bool) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            words = "an int or None" if optional else "an int"
            raise TypeError(f"{name} must be {words}, not {type(value).__name__}")
        if not self.least <= value <= self.most:
            way_out = f"; {self.beyond}" if self.beyond and value > self.most else ""
            raise ValueError(f"{name} is {value}; it must be between {self.least} and {self.most}{way_out}")


class _Duration(NamedTuple):
    """The range of a number of seconds."""

    may_be_zero: bool

    def __str__(self) -> str:
        return f"{'0' if self.may_be_zero else 'more than 0'} to {LONGEST_TIMEOUT:g} seconds"

    def check(self, name: str, value: object, optional: bool) -> None:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            words = "a number of seconds or None" if optional else "a number of seconds"
            raise TypeError(f"{name} must be {words}, not {type(value).__name__}")
        if not math.isfinite(value) or value < 0 or (value == 0 and not self.may_be_zero):
            least = "0 or more" if self.may_be_zero else "more than 0"
            raise ValueError(f"{name} is {value}; it must be {least} seconds and finite")
        if value > LONGEST_TIMEOUT:
            raise ValueError(f"{name} is {value}; it must be at most {LONGEST_TIMEOUT:g} seconds")


def _limit(default: _Size, *, least: int, most: int = LARGEST_LIMIT, beyond: str = "") -> _Size:
    """Make a field for a size or count, with its default and range."""
    return field(default=default, metadata={"range": _Range(least, most, beyond)})


def _duration(default: _Seconds, *, may_be_zero: bool = False) -> _Seconds:
    """Make a field for a number of seconds, with its default and range."""
    return field(default=default, metadata={"range": _Duration(may_be_zero)})


class _Checks(NamedTuple):
    """The checks of one class, its fields in their order."""

    read: Callable[[object], tuple[Any, ...]]
    """Returns the values of all fields."""
    defaults: tuple[Any, ...]
    of_fields: tuple[tuple[str, str, bool, Callable[[str, object, bool], None]], ...]
    """The attribute, its name in messages, whether it may be None, and the check of its range."""


def _checks(cls: type) -> _Checks:
    """Collect the ranges of a class. A field without one, or whose default is outside it, fails the import."""
    of_fields = []
    for one in fields(cls):
        if "range" not in one.metadata:
            raise AssertionError(f"{cls.__name__}.{one.name} needs a range")
        name, optional, check = f"{cls.__name__}.{one.name}", "None" in str(one.type), one.metadata["range"].check
        if one.default is not None or not optional:
            check(name, one.default, optional)
        of_fields.append((one.name, name, optional, check))
    read = attrgetter(*(one.name for one in fields(cls)))
    return _Checks(read, tuple(one.default for one in fields(cls)), tuple(of_fields))


def _check(values: Limits | Timeouts | HubLimits | WorkerLimits, checks: _Checks) -> None:
    """Raise TypeError or ValueError for the first field whose value is outside its range.

    Most fields have their defaults, which were checked when the module was imported.
    """
    is_given = map(is_not, checks.read(values), checks.defaults)
    for attribute, name, optional, check in compress(checks.of_fields, is_given):
        value = getattr(values, attribute)
        if value is not None or not optional:
            check(name, value, optional)


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and counts. Pass to ``connect`` or ``serve``.

    Raises:
        TypeError: A value is not an int (or None if None has a meaning).
        ValueError: A value is out of its range; the message names both.
    """

    read_all: int | None = _limit(64 * 1024 * 1024, least=0)
    """Most bytes that ``read_all`` collects; None means no limit. Default 64 MiB."""
    line: int = _limit(1024 * 1024, least=1)
    """Most bytes before the separator in ``readline`` and ``readuntil``, unless the call says. Default 1 MiB."""
    bidirectional_streams: int = _limit(128, least=0)
    """Bidirectional streams that the peer may have open at once on one connection. Default 128. More than 100 are
    allowed once the peer has 25 open. Each that is allowed costs the connection some 70 bytes, opened or not."""
    unidirectional_streams: int = _limit(128, least=0)
    """Unidirectional streams that the peer may have open at once on one connection. A peer without session flow
    control may always open 2: HTTP/3 needs them. Default 128. More than 100 are allowed once the peer has 25 open.
    Each that is allowed costs the connection some 40 bytes, opened or not. Source: RFC 9114, section 6.2."""
    early_streams: int = _limit(64, least=0, most=65_536)
    """Streams kept per connection for a session that is not established yet; further ones are rejected with
    WT_BUFFERED_STREAM_REJECTED. Default 64. Source: draft-ietf-webtrans-http3-16, section 4.6."""
    early_datagrams: int = _limit(64, least=0, most=65_536)
    """Datagrams kept per connection for a session that is not established yet; further ones are dropped. Default 64."""
    stream_receive_window: int = _limit(
        4 * 1024 * 1024,
        least=1024,
        most=LARGEST_STREAM_WINDOW,
        beyond="for more bytes under way use several streams, each has such a window",
    )
    """Unread bytes that the peer may send on one stream; at most 16 MiB. Default 4 MiB, which lets one stream carry
    320 Mbit/s over a round trip of 100 ms; each of several streams has its own window. Each lost packet leaves a gap,
    and more than 1024 gaps in one stream end its connection. Random losses never make as many in 4 MiB of full packets;
    in 8 MiB they can if a fifth is lost, in 16 MiB if a twelfth is."""
    connection_receive_window: int = _limit(16 * 1024 * 1024, least=1024)
    """Unread bytes that the peer may send on one connection. Default 16 MiB."""
    session_receive_window: int | None = _limit(None, least=1)
    """Unread bytes that the peer may send on one session, if it supports session flow control. At least 1; None means
    twice ``connection_receive_window``, so that the connection's limit is reached first. Default None.
    Source: draft-ietf-webtrans-http3-16, section 5."""
    session_receive_rate: int | None = _limit(None, least=1, most=2**40)
    """Bytes per second that are read of all streams of one session together, in steps of a tenth of a second. Flow
    control holds a faster peer back, nothing is lost. Datagrams do not count. None means as many as come. Default
    None."""
    session_receive_bytes: int | None = _limit(None, least=1)
    """Bytes that the peer may send on one session in all: what streams and datagrams carry. When it has sent more, the
    session is closed with code 263 (0x107, as H3_EXCESSIVE_LOAD), which is also that of this side's ``SessionClosed``.
    None means no limit. Default None."""
    session_bidirectional_streams: int | None = _limit(None, least=0)
    """Bidirectional streams that the peer may have open at once on one session, if it supports session flow control;
    ``bidirectional_streams`` applies to all sessions of a connection together. None means twice that. Default None."""
    session_unidirectional_streams: int | None = _limit(None, least=0)
    """Unidirectional streams that the peer may have open at once on one session, if it supports session flow control;
    ``unidirectional_streams`` applies to all sessions of a connection together. None means twice that. Default None."""
    stream_send_buffer: int = _limit(256 * 1024, least=1, most=2**40)
    """Accepted, unsent bytes per stream above which ``write`` waits. Default 256 KiB."""
    connection_send_buffer: int = _limit(4 * 1024 * 1024, least=1, most=2**40)
    """Accepted, unsent bytes per connection above which ``write`` waits. Each stream may hold 16 KiB more, so that
    streams that nobody reads do not stop the others. Default 4 MiB."""
    datagram_send_buffer: int = _limit(1024 * 1024, least=1500, most=2**40)
    """Most bytes of datagrams per connection that wait to be sent. Beyond that, the session that has most of them loses
    its oldest. Default 1 MiB."""
    datagram_receive_buffer: int = _limit(1024 * 1024, least=1500, most=2**40)
    """Most bytes of datagrams per session that wait to be received; the oldest are dropped first. Default 1 MiB."""
    datagram_receive_count: int = _limit(1024, least=1, most=2**31)
    """Most datagrams per session that wait to be received; the oldest are dropped first. Default 1024."""
    header_size: int = _limit(64 * 1024, least=1024, most=2**24)
    """Most bytes of headers in one request or response, counted as in RFC 9114, section 4.2.2. Default 64 KiB."""
    connections: int = _limit(10_000, least=1, most=2**31)
    """Server: connections at once, for each address that it listens on; further clients are refused. Those that are
    over do not count, nor do handshakes that are not complete, but the latter make room if there is none. Default
    10 000."""
    half_open_connections: int = _limit(1_000, least=1, most=2**31)
    """Server: connections at once whose handshake is not complete. Beyond that, a client with a validated address takes
    the place of the oldest one without, or of one from an address that has more than its share; others are refused.
    Default 1000. Each takes about 50 KB."""
    unvalidated_connections: int = _limit(250, least=0, most=2**31)
    """Server: of ``half_open_connections``, those whose client's address was not validated when they began: it had not
    shown yet that it receives there. While there are as many, further clients have to validate their address first
    (Retry), which takes them one more round trip; a token from an earlier connection does that, too. So packets with
    forged addresses cannot begin more. 0 asks every client. Default 250. Source: RFC 9000, section 8.1."""
    retry_percentage: int = _limit(75, least=0, most=100)
    """Server: percentage of ``connections`` from which clients have to validate their address first, as with
    ``unvalidated_connections``. 0 asks every client. Default 75."""
    connections_per_address: int | None = _limit(4_000, least=1, most=2**31)
    """Server: connections at once from one IPv4 address or one IPv6 network of 64 bits, with those whose handshake is
    not complete; further clients from there are refused. The last half is kept for clients whose address is validated,
    so nobody can use up somebody else's. None means no limit. Default 4000, because thousands of clients can be behind
    one address of a carrier."""
    handshakes_per_address: int | None = _limit(1_000, least=1, most=2**20)
    """Server: handshakes that clients at one IPv4 address or in one IPv6 network of 64 bits may begin per second, also
    all at once; further ones are refused. The last half is kept as with ``connections_per_address``. None means no
    limit. Default 1000."""
    sessions: int = _limit(10_000, least=1, most=2**31)
    """Server: sessions at once, requests that are not answered yet included. Further requests are answered with status
    429, also while twice as many handlers run, including those of ended sessions. Default 10 000."""
    sessions_per_address: int | None = _limit(4_000, least=1, most=2**31)
    """Server: sessions at once of clients from one IPv4 address or one IPv6 network of 64 bits. Further requests from
    there are answered with status 429. None means no limit. Default 4000."""
    sessions_per_connection: int = _limit(128, least=1, most=2**31)
    """Sessions at once on one connection, and never more than ``sessions``; only connections with session flow control
    carry several. A server announces this to its clients if their draft has a way to (drafts 13 and 14,
    WT_MAX_SESSIONS), and resets further requests with H3_REQUEST_REJECTED; a ``Client`` makes another connection.
    Default 128.
    Source: draft-ietf-webtrans-http3-16, section 5.1."""
    pending_requests: int = _limit(128, least=1, most=2**31)
    """Server: requests that are not answered yet, because ``admit`` or whoever takes them with ``async for request in
    server`` has not decided; further ones are answered with status 429. Default 128."""
    stream_handlers: int = _limit(128, least=1, most=2**31)
    """Handlers that one call of ``serve_streams`` runs at once, unless the call says; further streams wait unread.
    Default 128."""
    server_memory: int | None = _limit(1024 * 1024 * 1024, least=1024 * 1024)
    """Server: bytes that all connections together may hold and promise to take; see "Memory of a server" in the
    documentation. Near it receive windows stay small, and above 15/16 of it further clients are refused; above it
    the connection that holds most is closed with H3_EXCESSIVE_LOAD. A connection with a session counts as 96 KiB at
    first. None means no limit, and receive windows that have their full size from the beginning. Default 1 GiB."""
    http_requests: int = _limit(1000, least=1, most=2**31)
    """Server: ordinary HTTP/3 requests at once that the hook answers, over all connections; each counts until the
    client has the whole answer. Further ones are answered with status 503. Default 1000."""
    http_body: int = _limit(1024 * 1024, least=0)
    """Server: most bytes that ``await request.body()`` collects of an ordinary HTTP/3 request, unless the call says;
    ``request.stream()`` has no limit. Default 1 MiB."""
    initial_mtu: int = _limit(1200, least=1200, most=65_527)
    """UDP payload size in bytes until path MTU discovery finds more. Default 1200, the smallest that QUIC allows."""
    max_mtu: int = _limit(1452, least=1200, most=65_527)
    """Largest UDP payload size in bytes that path MTU discovery tries. Default 1452 (Ethernet with IPv6)."""

    def __post_init__(self) -> None:
        _check(self, _LIMITS)
        if self.initial_mtu > self.max_mtu:
            raise ValueError(f"Limits.initial_mtu ({self.initial_mtu}) exceeds Limits.max_mtu ({self.max_mtu})")


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Durations in seconds. Pass to ``connect`` or ``serve``.

    Raises:
        TypeError: A value is not a number (or None if None has a meaning).
        ValueError: A value is negative, zero where that makes no sense, not finite, or above 10⁹ (31 years).
    """

    connect: float = _duration(10.0)
    """Client: from the call to the established session, name resolution included. Default 10 s."""
    attempt_delay: float = _duration(0.25, may_be_zero=True)
    """Client: head start of each address of the host before the next one is tried as well. Default 0.25 s.
    Source: RFC 8305, section 5."""
    reconnect: float = _duration(0.5)
    """Client that stays (``async for session in connect(...)``): first wait before it connects again; doubled after
    each attempt that fails, and varied by chance. Default 0.5 s."""
    reconnect_longest: float = _duration(60.0)
    """Client that stays: longest of these waits, unless the server asks for more (``Retry-After``, at most an hour).
    Default 60 s."""
    handshake: float = _duration(10.0)
    """Server: how long a handshake may take, from the client's first packet, before it is given up. Default 10 s. A
    client's is bounded by ``connect``."""
    idle: float = _duration(30.0)
    """Silence after which a connection is given up; the smaller of the two sides' values applies. Default 30 s."""
    keep_alive: float | None = _duration(10.0)
    """Interval of PINGs on a connection without other traffic, which keep quiet sessions alive; None sends none, so
    that ``idle`` ends them. Never more than a third of ``idle``. Default 10 s."""
    close: float = _duration(2.0, may_be_zero=True)
    """Longest time that closing a session waits: once until finished streams are acknowledged (only when leaving
    ``async with`` or a server's handler), and once for the peer's close. Default 2 s."""
    finish: float = _duration(10.0, may_be_zero=True)
    """How long ``serve_streams`` lets handlers go on after the session has ended, so that no stream is lost that had
    arrived before. Then they are cancelled. Default 10 s."""
    drain_delay: float = _duration(0.0, may_be_zero=True)
    """Server: how long ``wtio.run`` still serves as before after SIGTERM or Ctrl-C, so that load balancers and name
    servers can send clients elsewhere; then it calls ``Server.close``. Default 0 s."""
    drain: float = _duration(0.0, may_be_zero=True)
    """Server: how long ``Server.close`` lets handlers, and sessions that have none, go on after it has announced the
    end (GOAWAY). Default 0 s, not at all."""
    request: float = _duration(30.0)
    """Server: how long ``admit`` may take, and how long a request may otherwise wait for ``accept`` or ``reject``,
    before it is answered with 503. Default 30 s."""
    without_session: float = _duration(30.0)
    """Server: how long a connection may stay without any session or request before it is closed. Default 30 s."""
    http_head: float = _duration(30.0)
    """Server: how long the header section of a request, also of one for a session, may take from its first byte on.
    Then it is answered with 408. Default 30 s."""
    http_body: float = _duration(60.0)
    """Server: how long a hook waits for the next bytes of an ordinary HTTP/3 request's body. Then ``request.body()``
    and ``request.stream()`` raise RequestTimeout, and the answer is 408 unless the hook has another. Default 60 s."""
    http_send: float = _duration(60.0)
    """Server: how long the answer to an ordinary HTTP/3 request waits for a client that takes nothing. Then it is reset
    with H3_REQUEST_CANCELLED. Default 60 s."""
    lifespan: float = _duration(60.0)
    """Server with an ASGI application: how long its startup may take, and again its shutdown. Default 60 s."""
    datagram_send: float | None = _duration(None)
    """Age at which a datagram that still waits to be sent is dropped; None means never. Default None."""

    def __post_init__(self) -> None:
        _check(self, _TIMEOUTS)
        if self.reconnect > self.reconnect_longest:
            raise ValueError(
                f"Timeouts.reconnect ({self.reconnect}) exceeds Timeouts.reconnect_longest ({self.reconnect_longest})"
            )


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class HubLimits:
    """Sizes and durations of a ``wtio.hub.Hub``. Sizes are bytes, durations are seconds.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is out of its range.
    """

    message: int = _limit(1_000_000, least=1, most=2**30)
    """Most bytes of one message, with topic and key. Default 1 000 000: NATS takes no more unless it is told to."""
    subscriber_queue: int = _limit(1024 * 1024, least=1, most=2**40)
    """Bytes that wait for one subscriber with ``everything`` before ``publish`` waits for it. At twice as much it is
    closed as too slow. Default 1 MiB; the stream holds ``Limits.stream_send_buffer`` more."""
    updates: int = _limit(256, least=1, most=65_536)
    """Messages under way to one subscriber at once: keys with ``latest``, messages with ``within``. Default 256."""
    topics: int = _limit(10_000, least=1, most=2**31)
    """Topics of which the hub remembers how much it has published, so that others can count what they missed; and
    senders that it remembers for one topic. Those of longest ago are forgotten. Default 10 000."""
    bus_queue: int = _limit(16 * 1024 * 1024, least=1, most=2**40)
    """Bytes that wait to be handed to the bus; further messages are not sent there, and counted. Default 16 MiB."""
    patience: float = _duration(5.0)
    """How long a subscriber with ``everything`` may keep its queue full, before it is closed as too slow; and how long
    an update of ``latest`` that is being sent may delay a newer one, and leaving a subscription waits. Default 5 s."""
    subscribe: float = _duration(1.0, may_be_zero=True)
    """How long entering a subscription waits for the bus to confirm it. Not at all while the bus is down. Default 1
    s."""
    bus_answer: float = _duration(2.0)
    """How long connecting to the bus may take, and any of its answers. Then it counts as down. Default 2 s."""
    bus_check: float = _duration(5.0)
    """How often it is tried whether the bus still delivers. Default 5 s."""
    bus_reconnect: float = _duration(0.05)
    """First wait before the bus is connected to again; doubled after each attempt that fails, and varied by chance.
    Default 0.05 s."""
    bus_reconnect_longest: float = _duration(0.25)
    """Longest of these waits. Default 0.25 s."""

    def __post_init__(self) -> None:
        _check(self, _HUB_LIMITS)
        if self.bus_reconnect > self.bus_reconnect_longest:
            raise ValueError(
                f"HubLimits.bus_reconnect ({self.bus_reconnect}) exceeds HubLimits.bus_reconnect_longest "
                f"({self.bus_reconnect_longest})"
            )


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """Counts and durations of a ``wtio.workers.Supervisor``. Durations are seconds.

    Raises:
        TypeError: A value is not a number (or None if None has a meaning).
        ValueError: A value is out of its range.
    """

    slots: int | None = _limit(None, least=1, most=LARGEST_SLOT + 1)
    """Sockets at each address, of which each worker has one. New code begins on those that are free, so a further
    deployment waits for old workers while there are not enough. None means twice as many as workers. Default None."""
    start: float = _duration(60.0)
    """How long new workers may take until they serve, imports and lifespan included. Default 60 s."""
    settle: float = _duration(1.0, may_be_zero=True)
    """How long old workers still serve as before once newcomers go to new ones, so that handshakes and requests that
    are under way come to their end. While handshakes are not complete it takes longer, at most ``Timeouts.handshake``.
    Default 1 s."""
    drain: float = _duration(3600.0, may_be_zero=True)
    """How long sessions with old workers may go on after a deployment, once their clients are told to wind down.
    Default one hour. ``Timeouts.drain`` applies if the supervisor itself is stopped."""
    restart: float = _duration(0.5)
    """First wait before a worker is started again that died although it had just been started; doubled each time.
    One that has lived for longer than ``restart_longest`` is started again at once. Default 0.5 s."""
    restart_longest: float = _duration(30.0)
    """Longest of these waits. Default 30 s."""
    report: float = _duration(5.0)
    """How often workers report their figures, and so what may be missing in the totals when one is killed. Default
    5 s."""
    silence: float | None = _duration(60.0)
    """How long a worker may report nothing, because its event loop is blocked or it is stopped, before it is killed and
    started again. None lets it. Default 60 s."""

    def __post_init__(self) -> None:
        _check(self, _WORKER_LIMITS)
        if self.restart > self.restart_longest:
            raise ValueError(
                f"WorkerLimits.restart ({self.restart}) exceeds WorkerLimits.restart_longest ({self.restart_longest})"
            )
        if self.silence is not None and self.silence < 2 * self.report:
            raise ValueError(
                f"WorkerLimits.silence ({self.silence}) is less than twice WorkerLimits.report ({self.report}), so "
                "that workers would be killed between two reports"
            )


_LIMITS: Final = _checks(Limits)
_TIMEOUTS: Final = _checks(Timeouts)
_HUB_LIMITS: Final = _checks(HubLimits)
_WORKER_LIMITS: Final = _checks(WorkerLimits)
