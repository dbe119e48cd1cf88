"""Values that describe a session: what was agreed at the start, its statistics, and how it ended.

The session and its connection make them; they never change.
"""

from __future__ import annotations

from dataclasses import dataclass

from wtio._arguments import sealed
from wtio._headers import Headers  # noqa: TC001 - for typing.get_type_hints
from wtio._url import without_query
from wtio.errors import ClosedBy  # noqa: TC001 - for typing.get_type_hints

__all__ = ["CloseInfo", "SessionFacts", "SessionStats"]


@sealed
@dataclass(frozen=True, slots=True)
class CloseInfo:
    """How a session ended."""

    code: int | None
    """Application close code, 0 … 2^32-1; 0 after a plain end; None if the session ended without one."""
    reason: str
    """The application's reason, at most 1024 bytes of UTF-8, or a description of wtio's if the connection was lost."""
    closed_by: ClosedBy
    """``"peer"``, ``"local"`` or ``"transport"`` (the connection was lost, or a side broke the protocol)."""


@sealed
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SessionFacts:
    """What was agreed when the session was established; it does not change afterwards."""

    authority: str
    """Host, and port unless it is 443, as in the URL."""
    path: str
    """Path with query, beginning with ``/``."""
    origin: str | None
    """Value of the Origin header, which browsers always send; None without one."""
    protocol: str | None
    """The subprotocol that the server chose; None without one."""
    dialect: str
    """The group of drafts in use: ``draft02``, ``draft07``, ``draft13`` or ``draft15``."""
    protocol_token: str
    """Value of the ``:protocol`` pseudo-header of the request: ``webtransport`` or ``webtransport-h3``."""
    request_headers: Headers
    """The client's headers in order, names in lower case, without pseudo-headers."""
    response_headers: Headers
    """The server's headers in order, names in lower case, without pseudo-headers."""
    status: int = 200
    """HTTP status of the server's answer, 200 … 299."""

    def __repr__(self) -> str:
        # Without query and headers, which may contain tokens: logs are passed around.
        where = f"{self.authority}{without_query(self.path)}"
        return f"<SessionFacts {where} {self.dialect} protocol={self.protocol} origin={self.origin}>"


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats:
    """A snapshot of figures of the connection and of this session. Sizes are bytes, times are seconds."""

    rtt: float
    """Smoothed round-trip time."""
    min_rtt: float
    """Smallest round-trip time seen."""
    congestion_window: int
    """Bytes that may be in flight."""
    mtu: int
    """UDP payload size in use."""
    bytes_sent: int
    """UDP payload sent on the connection."""
    bytes_received: int
    """UDP payload received on the connection."""
    packets_sent: int
    """QUIC packets sent on the connection."""
    packets_received: int
    """QUIC packets received on the connection."""
    packets_lost: int
    """QUIC packets declared lost on the connection."""
    datagrams_sent: int
    """Datagrams of this session handed to packets."""
    datagrams_received: int
    """Datagrams of this session that arrived."""
    datagrams_dropped_outgoing: int
    """Dropped before sending: the queue was full, or the path's limit shrank."""
    datagrams_expired_outgoing: int
    """Dropped before sending: older than ``Timeouts.datagram_send``."""
    datagrams_dropped_incoming: int
    """Dropped unread: the receive queue was full."""
    datagrams_queued_incoming: int
    """Waiting to be received."""
    stream_bytes_sent: int
    """Payload of this session's streams given to the QUIC connection."""
    stream_bytes_received: int
    """Payload of this session's streams that the peer sent, up to the furthest byte or the end of each stream."""
    send_credit: int | None
    """Payload bytes that the peer's session flow control allows now; None without session flow control."""
    bidirectional_stream_credit: int | None
    """Bidirectional streams that the peer's session flow control allows now; None without session flow control."""
    unidirectional_stream_credit: int | None
    """Unidirectional streams that the peer's session flow control allows now; None without session flow control."""
    loop_late_total: int
    """How often the event loop left packets or timers of this socket waiting for some milliseconds, because a handler
    or another callback held it, so that a thread had to acknowledge and retransmit in its place. Counted per socket,
    since it was opened; always 0 with ``io="thread"``."""
