"""The options of an endpoint as one value, from the public calls down to the engine.

``connect``, ``Client``, ``serve`` and ``testing.Network`` build an ``EndpointOptions`` from their arguments, and all
layers below take it whole. It is checked here and nowhere else; values that follow from options alone are computed here
too. Numbers have their defaults and ranges in ``wtio.config``. Settings of one server or one session, such as
certificates, addresses and headers, are not options of an endpoint.

The engine reads the value by attribute (crates/python/src/options.rs).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from wtio._arguments import check_bool, check_choice, check_instance, check_integer, sealed
from wtio._connection_ids import ConnectionIds, connection_ids
from wtio._qlog_directory import qlog_directory
from wtio.config import LARGEST_LIMIT, LARGEST_SLOT, Limits, Timeouts
from wtio.protocol.settings import LocalTerms
from wtio.secret import Secret
from wtio.steering import ServerId

__all__ = ["EndpointOptions", "SessionCredit"]


class SessionCredit(NamedTuple):
    """The initial limits that one side of a session with flow control sets for the other."""

    data: int
    """Bytes on all streams together."""
    bidirectional: int
    """Bidirectional streams."""
    unidirectional: int
    """Unidirectional streams."""


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """How an endpoint and its connections behave. ``wtio.connect`` and ``wtio.serve`` explain each option.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: ``congestion`` or ``io`` is unknown, or ``slot`` or ``server_id`` is out of its range.
    """

    limits: Limits
    timeouts: Timeouts
    congestion: str
    """The congestion controller: ``"tolerant"``, ``"cubic"``, ``"newreno"`` or ``"bbr"``."""
    reset_stream_at: bool
    """Whether to offer and use reliable resets (draft-ietf-quic-reliable-stream-reset)."""
    strict: bool
    """Whether peers are held to the letter of the newest draft."""
    io: str
    """Who receives: ``"loop"`` (the event loop) or ``"thread"`` (a thread per socket)."""
    secret: Secret | None = None
    """What a server derives keys from that outlive the process; None makes them at random."""
    slot: int | None = None
    """Which of the sockets that share an address is the server's; None if it is alone there."""
    server_id: ServerId | bytes | None = None
    """By which load balancers know the server; None if they do not have to."""

    keep_alive: float | None = field(init=False, repr=False, compare=False)
    """Interval of PINGs in seconds: ``Timeouts.keep_alive``, but short enough that three may get lost before the idle
    timeout. None sends none."""
    session_credit: SessionCredit = field(init=False, repr=False, compare=False)
    """The peer's initial limits on a new session, if it supports session flow control."""
    retry_from: int = field(init=False, repr=False, compare=False)
    """With so many connections, clients of a server have to validate their address first."""
    connection_ids: ConnectionIds = field(init=False, repr=False, compare=False)
    """What connection IDs begin with, and how long they are."""
    local_terms: LocalTerms = field(init=False, repr=False, compare=False)
    """What HTTP/3 announces to peers and demands of them."""
    qlog_directory: str | None = field(init=False, repr=False, compare=False)
    """Where each new connection gets a qlog; None for none. From the environment (``QLOGDIR``)."""

    def __post_init__(self) -> None:
        check_instance("limits", self.limits, Limits, "such as wtio.Limits(read_all=None)")
        check_instance("timeouts", self.timeouts, Timeouts, "such as wtio.Timeouts(connect=5)")
        check_choice("congestion", self.congestion, ("tolerant", "cubic", "newreno", "bbr"))
        check_bool("reset_stream_at", self.reset_stream_at)
        check_bool("strict", self.strict)
        if self.secret is not None:
            check_instance("secret", self.secret, Secret, "such as wtio.Secret.from_file(path)")
        if not isinstance(self.io, str):
            raise TypeError(f"io must be a str, not {type(self.io).__name__}")
        if self.io not in ("loop", "thread"):
            raise ValueError(
                f"io is {self.io!r}; it must be 'loop' (the event loop receives) or 'thread' (a thread does, for loops "
                "that are often late)"
            )
        if self.slot is not None:
            check_integer("slot", self.slot, 0, LARGEST_SLOT)
        server_id = b"" if self.server_id is None else _server_id(self.server_id).value
        # The only way to set a field of a frozen class.
        object.__setattr__(self, "connection_ids", connection_ids(server_id, self.slot))
        object.__setattr__(self, "keep_alive", _keep_alive(self.timeouts))
        credit = _session_credit(self.limits)
        object.__setattr__(self, "session_credit", credit)
        object.__setattr__(self, "qlog_directory", qlog_directory())
        # Rounded up, so that a server with room for one connection does not ask its first client.
        retry_from = -(-self.limits.connections * self.limits.retry_percentage // 100)
        object.__setattr__(self, "retry_from", retry_from)
        object.__setattr__(
            self,
            "local_terms",
            LocalTerms(
                initial_max_data=credit.data,
                initial_max_streams_bidi=credit.bidirectional,
                initial_max_streams_uni=credit.unidirectional,
                max_sessions=min(self.limits.sessions, self.limits.sessions_per_connection),
                strict=self.strict,
            ),
        )

    def peer_streams(self, is_server: bool) -> tuple[int, int]:
        """Return how many streams (bidirectional, unidirectional) the peer may have open at once on a new connection.

        In addition to streams of sessions, HTTP/3 needs a client's CONNECT stream and a control stream from each side.
        ``Connection`` adds QPACK streams when they are opened. At first there must be room for three unidirectional
        streams (RFC 9114, section 6.2).
        """
        limits = self.limits
        return limits.bidirectional_streams + (1 if is_server else 0), max(limits.unidirectional_streams + 1, 3)


def _keep_alive(timeouts: Timeouts) -> float | None:
    return None if timeouts.keep_alive is None else min(timeouts.keep_alive, timeouts.idle / 3)


def _server_id(given: ServerId | bytes) -> ServerId:
    if isinstance(given, ServerId):
        return given
    if not isinstance(given, (bytes, bytearray)):
        raise TypeError(
            f"server_id must be wtio.ServerId, bytes or None, not {type(given).__name__}; see also "
            "wtio.ServerId.from_environment"
        )
    try:
        return ServerId(given)
    except ValueError as error:
        raise ValueError(f"server_id: {error}") from None


def _session_credit(limits: Limits) -> SessionCredit:
    def given(value: int | None, of_connection: int, factor: int = 2) -> int:
        return min(factor * of_connection, LARGEST_LIMIT) if value is None else value

    streams = limits.unidirectional_streams
    return SessionCredit(
        data=given(limits.session_receive_window, limits.connection_receive_window),
        bidirectional=given(limits.session_bidirectional_streams, limits.bidirectional_streams),
        # The connection has to allow 2, for HTTP/3. The session enforces a limit below that.
        unidirectional=given(limits.session_unidirectional_streams, streams, 2 if streams >= 2 else 1),
    )
