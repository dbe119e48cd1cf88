"""One HTTP/3 connection that carries WebTransport sessions, without any input or output of its own.

Bytes of raw streams go in, outputs (``take_outputs``) and events (``take_events``) come out; both lists are to be
drained after every call. WebTransport data streams and datagrams never pass through here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wtio.protocol.events import (
    CapsuleReceived,
    CloseConnection,
    ConnectionFailed,
    Event,
    FreeStream,
    GoawayReceived,
    Headers,
    Output,
    RequestReceived,
    Reset,
    Role,
    Send,
    SessionAccepted,
    SessionClosed,
    SessionDraining,
    SessionFinished,
    SessionRejected,
    SessionRequested,
    SessionStopping,
    SettingsReceived,
    Stop,
)
from wtio.protocol.faults import SessionStateError
from wtio.protocol.settings import DEFAULT_DIALECTS, Dialect

__all__ = [
    "CapsuleReceived",
    "CloseConnection",
    "ConnectionFailed",
    "Event",
    "FreeStream",
    "GoawayReceived",
    "H3Connection",
    "Headers",
    "Output",
    "ProtocolLimits",
    "RequestReceived",
    "Reset",
    "Role",
    "Send",
    "SessionAccepted",
    "SessionClosed",
    "SessionDraining",
    "SessionFinished",
    "SessionRejected",
    "SessionRequested",
    "SessionStateError",
    "SessionStopping",
    "SettingsReceived",
    "Stop",
]


@dataclass(frozen=True, slots=True)
class ProtocolLimits:
    """Bounds on what a peer can make us keep or do. Sizes are bytes."""

    max_field_section_size: int = 65536
    """Largest header section, counted as RFC 9114, section 4.2.2, does: names, values and 32 bytes per field.

    Larger requests are answered with 431, larger responses reset."""
    max_settings_size: int = 8192
    """Largest SETTINGS frame; a larger one is H3_EXCESSIVE_LOAD."""
    max_buffered: int = 1048576
    """Bytes of incomplete frames and capsules over all streams of the connection; more is H3_EXCESSIVE_LOAD."""
    max_parked_requests: int = 16
    """Session requests that wait for the client's SETTINGS; more are reset with H3_REQUEST_REJECTED."""
    max_held_capsules: int = 64
    """Capsules kept for a session that the server has not accepted yet; more reset it with H3_EXCESSIVE_LOAD."""
    max_informational: int = 16
    """Interim (1xx) responses to one CONNECT; more reset it with H3_EXCESSIVE_LOAD."""
    max_discard: int = 65536
    """Bytes that a peer may go on sending on a stream that we have ended, before it is told to stop."""


DEFAULT_LIMITS = ProtocolLimits()


class H3Connection:
    """The HTTP/3 layer of one connection.

    Attributes:
        is_client: Whether we are the client.
        limits: The bounds in force.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        limits: ProtocolLimits = DEFAULT_LIMITS,
        initial_max_data: int = 0,
        initial_max_streams_bidi: int = 0,
        initial_max_streams_uni: int = 0,
        max_sessions: int = 1000,
        dialects: Collection[Dialect] = DEFAULT_DIALECTS,
    ) -> None:
        """Set up a connection; nothing is sent before ``start``.

        Args:
            is_client: Whether we are the client.
            limits: Bounds on what the peer can make us keep.
            initial_max_data: Session flow control: bytes the peer may send on a new session. All three 0: off.
            initial_max_streams_bidi: Session flow control: bidirectional streams the peer may open.
            initial_max_streams_uni: Session flow control: unidirectional streams the peer may open.
            max_sessions: Sessions at once on this connection. Dialects with a limit of their own lower it to 1.
            dialects: Dialects to announce.
        """

    # -- state

    @property
    def dialect(self) -> Dialect | None:
        """The dialect of this connection; ``None`` until it is known, or where there is none in common.

        A server whose client announced none learns it from the first CONNECT.
        """

    @property
    def peer_settings(self) -> dict[int, int] | None:
        """The peer's settings, or ``None`` until they have arrived."""

    @property
    def flow_control(self) -> bool:
        """Whether session flow control is on. False until the peer's settings have arrived."""

    @property
    def peer_initial_limits(self) -> tuple[int, int, int]:
        """Initial session limits that the peer announced: bytes, bidirectional streams, unidirectional streams."""

    @property
    def closed(self) -> bool:
        """Whether the connection is over: ``CloseConnection`` was queued. Further calls do nothing."""

    @property
    def sessions(self) -> int:
        """Sessions that count against the limit: waiting for an answer or open."""

    @property
    def parked(self) -> int:
        """Server: session requests that wait for the client's SETTINGS."""

    @property
    def goaway_received(self) -> bool:
        """Whether the peer sent GOAWAY: a client needs a new connection for new sessions."""

    def session_state(self, stream_id: int) -> str | None:
        """Name of a session's state (see ``wtio.protocol.session``), or ``None`` for one not known or finished."""

    # -- what we do

    def start(self) -> None:
        """Queue our control stream with SETTINGS, and the two QPACK streams. Call once, when connected."""

    def send_connect(
        self,
        stream_id: int,
        *,
        authority: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        protocols: Sequence[str] = (),
        origin: str | None = None,
        require_protocol: bool = False,
    ) -> None:
        """Client: ask for a session on a fresh bidirectional stream. Only after ``SettingsReceived``.

        ``SessionAccepted``, ``SessionRejected`` or ``SessionClosed`` follows.

        Args:
            stream_id: The stream, which becomes the session's id.
            authority: Host, with port unless it is 443.
            path: Path with query, beginning with ``/``.
            headers: Further header fields; names are lowered.
            protocols: Subprotocols to offer, most wanted first; printable ASCII, 1 to 512 characters each.
            origin: Value of the Origin header; ``None`` sends none.
            require_protocol: End the session with WT_ALPN_ERROR if the server chooses no subprotocol.

        Raises:
            ValueError: A header, the path, the authority or a subprotocol cannot be sent, or the header section
                is larger than the peer takes.
            SessionStateError: No SETTINGS yet, a peer without WebTransport, GOAWAY was received, or this
                connection carries as many sessions as it can.

        Source: draft-ietf-webtrans-http3-16, sections 3.2 and 3.3.
        """

    def accept(self, stream_id: int, *, headers: Sequence[tuple[str, str]] = (), protocol: str | None = None) -> None:
        """Server: answer a session request with 200.

        What the client sent ahead (capsules, even its close) becomes events of this call.

        Args:
            stream_id: The session.
            headers: Further header fields; names are lowered.
            protocol: The subprotocol chosen, one of those offered; ``None`` for none.

        Raises:
            ValueError: A header cannot be sent, or ``protocol`` was not offered.
            SessionStateError: The request is answered already, or its client is gone.
        """

    def reject(
        self, stream_id: int, status: int, *, headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        """Server: answer a request, of a session or an ordinary one, and end the stream.

        Args:
            stream_id: The request stream.
            status: 200 to 599; for a session request 300 to 599.
            headers: Further header fields; names are lowered.
            body: Sent unless the method is HEAD, with ``content-length``.

        Raises:
            ValueError: The status or a header cannot be sent.
            SessionStateError: The request is answered already, or its client is gone.
        """

    def close_session(self, stream_id: int, code: int, reason: str) -> None:
        """Send WT_CLOSE_SESSION and the end of the stream. No-op on a session that is closing or closed.

        A session that is not open yet is cancelled instead. ``SessionFinished`` follows when the peer has ended
        its side too; a peer may never do so, so bound the wait and then call ``abort_session``.

        Args:
            stream_id: The session.
            code: Application close code, 0 to 2**32-1.
            reason: Cut to the longest prefix of at most 1024 bytes of UTF-8.

        Raises:
            ValueError: ``code`` is outside 32 bits.

        Source: draft-ietf-webtrans-http3-16, section 6.
        """

    def abort_session(self, stream_id: int, wire_code: int) -> None:
        """Reset and stop the CONNECT stream with an HTTP/3 code. No-op on a finished session."""

    def drain_session(self, stream_id: int) -> None:
        """Send WT_DRAIN_SESSION. No-op on a session that is not open."""

    def send_capsule(self, stream_id: int, type: int, value: bytes) -> None:
        """Send a capsule on an open session. No-op on a session that is not open."""

    def send_goaway(self) -> None:
        """Tell the peer that we take no new requests. Requests it sends from now on are refused."""

    def fail(self, code: int, reason: str) -> None:
        """Close the connection for an error that another layer detected, such as H3_DATAGRAM_ERROR."""

    def expire_parked(self) -> int:
        """Server: refuse the session requests that still wait for the client's SETTINGS; returns their number."""

    # -- what the peer did

    def receive_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """Take bytes of a raw stream, in order; ``end`` with the last ones (or with ``b""``). Never raises."""

    def receive_reset(self, stream_id: int, code: int) -> None:
        """Take the reset of a raw stream. Never raises."""

    def receive_stop(self, stream_id: int | Role, code: int) -> None:
        """Take a STOP_SENDING for a request stream or for one of our unidirectional streams. Never raises."""

    # -- decisions about data streams and datagrams

    def check_session_id(self, session_id: int) -> bool:
        """Check the session id of a data stream or datagram.

        Queues CloseConnection(H3_ID_ERROR) for an id that can never be a session: not a client-initiated
        bidirectional stream or, on a client, one that we have not asked for. An id of a session that ended is
        not an error.

        Returns:
            Whether the id is possible.

        Source: draft-ietf-webtrans-http3-16, section 4.
        """

    # -- results

    def take_outputs(self) -> list[Output]:
        """Return the outputs queued since the last call, oldest first."""

    def take_events(self) -> list[Event]:
        """Return the events queued since the last call, oldest first."""
