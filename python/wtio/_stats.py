"""Figures of a whole server, from ``Server.stats``: totals that never go down, and what there is now.

The engines count what concerns connections, and add up when they are asked. Requests and sessions are counted by
``_service``, which decides about them.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - for typing.get_type_hints
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wtio._arguments import sealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wtio._driver import Driver
    from wtio._memory import ServerMemory

__all__ = ["ServerStats", "SessionCounts", "server_stats"]

# How connections end, and handshakes fail: also those that can hardly happen to a server, so that the sum is right.
_ENDINGS: Final = ("application", "transport", "protocol", "tls", "idle", "reset", "local", "version", "refused")
_FAILURES: Final = (*_ENDINGS, "timeout", "displaced")


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """A snapshot of a server's figures, from ``Server.stats``.

    Names are those of Prometheus: what ends in ``_total`` counts since the server was started and never goes down, also
    when sessions and connections end and when the server is closed; everything else is how things are now. ``_bytes``
    is the unit. A mapping has one count for each cause or kind, 0 included, in the order in which it is documented.
    """

    connections_open: int
    """Connections with a complete handshake that are not over."""
    connections_half_open: int
    """Connections whose handshake is not complete; see ``Limits.half_open_connections``."""
    connections_accepted_total: int
    """Handshakes begun. Each is later in ``connections_opened_total`` or in ``handshakes_failed_total``."""
    connections_validated_total: int
    """Of these, those whose client had shown its address, by a Retry or by a token of an earlier connection."""
    connections_opened_total: int
    """Handshakes completed."""
    connections_closed_total: Mapping[str, int]
    """Connections that ended after their handshake: ``"application"`` (the client closed, which is how a program or
    page leaves), ``"transport"`` (its QUIC stack closed), ``"protocol"`` (it broke QUIC's rules), ``"tls"``,
    ``"idle"`` (nothing was heard for ``Timeouts.idle``), ``"reset"``, ``"local"`` (this server closed), ``"version"``
    and ``"refused"``."""
    connections_refused_total: Mapping[str, int]
    """Clients refused before their handshake began: ``"capacity"`` (``Limits.connections`` and
    ``half_open_connections``), ``"address"`` (their address has as many connections as it may have), ``"rate"`` (their
    address begins handshakes too fast), ``"memory"`` (``Limits.server_memory``) and ``"closing"`` (the server is
    closing)."""
    connections_shed_total: int
    """Connections closed with H3_EXCESSIVE_LOAD because the server held more than ``Limits.server_memory``. They are in
    ``connections_closed_total["local"]``, too."""
    handshakes_failed_total: Mapping[str, int]
    """Handshakes that failed: as ``connections_closed_total``, and ``"timeout"`` (it took longer than
    ``Timeouts.handshake``) and ``"displaced"`` (it made room for another client)."""
    retries_total: int
    """First packets answered with Retry, so that the client shows its address."""
    sessions_open: int
    """Sessions that are not over on both sides."""
    requests_waiting: int
    """Requests for sessions that are not answered yet; see ``Limits.pending_requests``."""
    sessions_opened_total: int
    """Sessions established."""
    sessions_closed_total: Mapping[str, int]
    """Sessions that are over, by who ended them: ``"peer"``, ``"local"`` or ``"transport"`` (the connection was lost,
    or a side broke the protocol), as in ``CloseInfo.closed_by``."""
    sessions_rejected_total: Mapping[int, int]
    """Requests refused with a status other than 2xx, by status; only those that occurred. Beside those of the
    application they are 403 (a page of another origin), 429 (a limit), 503 (not answered in time, or the server is
    closing), 500 (``admit`` failed), 501 (an unknown ``:protocol``), 431 (headers above ``Limits.header_size``) and 408
    (headers that did not come in time). Answers of the ``http`` hook are not here."""
    streams_opened_total: Mapping[str, int]
    """Streams of sessions that this server opened: ``"bidirectional"`` and ``"unidirectional"``."""
    streams_received_total: Mapping[str, int]
    """Streams of sessions that clients opened, likewise."""
    stream_sent_bytes_total: int
    """Payload of streams of sessions that was sent."""
    stream_received_bytes_total: int
    """Payload of streams of sessions that clients sent."""
    datagrams_sent_total: int
    """Datagrams of sessions handed to packets."""
    datagrams_received_total: int
    """Datagrams of sessions that arrived."""
    datagrams_dropped_total: Mapping[str, int]
    """Datagrams dropped: ``"outgoing"`` (the queue was full, or the path's limit shrank), ``"expired"`` (they waited
    longer than ``Timeouts.datagram_send``) and ``"incoming"`` (the application did not receive them fast enough)."""
    datagram_sent_bytes_total: int
    """Payload of datagrams that were sent."""
    datagram_received_bytes_total: int
    """Payload of datagrams that arrived."""
    udp_sent_bytes_total: int
    """UDP payload of all connections: streams, datagrams, headers, acknowledgements, repetitions."""
    udp_received_bytes_total: int
    """UDP payload of all connections."""
    packets_sent_total: int
    """QUIC packets sent on all connections."""
    packets_received_total: int
    """UDP datagrams received on all connections."""
    packets_lost_total: int
    """QUIC packets declared lost, whose contents were sent again."""
    packets_astray_total: int
    """Packets that came here although their connection ID has another ``slot`` (or another server ID, if this server
    has no slot). They are dropped, and lost for their connection."""
    loop_late_total: int
    """How often the event loop was late; see ``SessionStats.loop_late_total``."""
    memory_limit_bytes: int | None
    """``Limits.server_memory``; None without a limit. So are the next three."""
    memory_used_bytes: int | None
    """What the budget is charged for; see ``ServerMemory``."""
    memory_held_bytes: int | None
    """What connections and sessions take, what was not read, and what waits to be sent or acknowledged."""
    memory_promised_bytes: int | None
    """What clients may still send before anything more is read."""


class SessionCounts:
    """What a server counts of sessions and requests. Its event loop does that, other threads read."""

    __slots__ = ("closed", "opened", "rejected")

    def __init__(self) -> None:
        # Sessions that were established.
        self.opened = 0
        # Those of them that are over, by who ended them.
        self.closed: dict[str, int] = {"peer": 0, "local": 0, "transport": 0}
        # Requests that were refused, by status: at most one entry for each from 300 to 599.
        self.rejected: dict[int, int] = {}

    def note_rejected(self, status: int) -> None:
        """Count a request that is answered with a status that refuses it."""
        self.rejected[status] = self.rejected.get(status, 0) + 1


def server_stats(
    drivers: Sequence[Driver], counts: SessionCounts, memory: ServerMemory | None, *, sessions: int, waiting: int
) -> ServerStats:
    """Put the figures of a server together. Any thread may call this.

    Args:
        drivers: Of all its sockets.
        counts: Of its sessions.
        memory: Where its budget stands; None without one.
        sessions: How many are open.
        waiting: Requests that are not answered.
    """
    stats = [driver.endpoint.stats() for driver in drivers]
    totals = [driver.endpoint.totals() for driver in drivers]
    ended = _sums((one.ended for one in totals), _ENDINGS)
    failed = _sums((one.failed for one in totals), _FAILURES)
    accepted = sum(one.accepted for one in totals)
    connected = sum(one.connected for one in totals)
    return ServerStats(
        # All of one moment, so that they add up.
        connections_open=connected - sum(ended.values()),
        connections_half_open=accepted - connected - sum(failed.values()),
        connections_accepted_total=accepted,
        connections_validated_total=sum(one.validated for one in stats),
        connections_opened_total=connected,
        connections_closed_total=ended,
        connections_refused_total={
            "capacity": sum(one.refused_capacity for one in stats),
            "address": sum(one.refused_address for one in stats),
            "rate": sum(one.refused_rate for one in stats),
            "memory": sum(one.refused_memory for one in stats),
            "closing": sum(one.refused_closing for one in stats),
        },
        connections_shed_total=0 if memory is None else memory.connections_closed,
        handshakes_failed_total=failed,
        retries_total=sum(one.retried for one in stats),
        sessions_open=sessions,
        requests_waiting=waiting,
        sessions_opened_total=counts.opened,
        sessions_closed_total=counts.closed.copy(),
        sessions_rejected_total=counts.rejected.copy(),
        streams_opened_total={
            "bidirectional": sum(one.bidirectional_opened for one in totals),
            "unidirectional": sum(one.unidirectional_opened for one in totals),
        },
        streams_received_total={
            "bidirectional": sum(one.bidirectional_received for one in totals),
            "unidirectional": sum(one.unidirectional_received for one in totals),
        },
        stream_sent_bytes_total=sum(one.stream_bytes_sent for one in totals),
        stream_received_bytes_total=sum(one.stream_bytes_received for one in totals),
        datagrams_sent_total=sum(one.datagrams.sent for one in totals),
        datagrams_received_total=sum(one.datagrams.received for one in totals),
        datagrams_dropped_total={
            "outgoing": sum(one.datagrams.dropped_outgoing for one in totals),
            "expired": sum(one.datagrams.expired_outgoing for one in totals),
            "incoming": sum(one.datagrams.dropped_incoming for one in totals),
        },
        datagram_sent_bytes_total=sum(one.datagrams.bytes_sent for one in totals),
        datagram_received_bytes_total=sum(one.datagrams.bytes_received for one in totals),
        udp_sent_bytes_total=sum(one.bytes_sent for one in totals),
        udp_received_bytes_total=sum(one.bytes_received for one in totals),
        packets_sent_total=sum(one.packets_sent for one in totals),
        packets_received_total=sum(one.packets_received for one in totals),
        packets_lost_total=sum(one.packets_lost for one in totals),
        packets_astray_total=sum(one.packets_astray for one in stats),
        loop_late_total=sum(driver.endpoint.loop_late_total for driver in drivers),
        memory_limit_bytes=None if memory is None else memory.limit,
        memory_used_bytes=None if memory is None else memory.used,
        memory_held_bytes=None if memory is None else memory.held,
        memory_promised_bytes=None if memory is None else memory.promised,
    )


def _sums(endpoints: Iterable[list[tuple[str, int]]], names: Sequence[str]) -> dict[str, int]:
    sums = dict.fromkeys(names, 0)
    for counts in endpoints:
        for name, number in counts:
            if name in sums:
                sums[name] += number
    return sums
