"""One HTTP/3 connection that carries WebTransport sessions, without any input or output of its own.

The driver hands in bytes of raw streams, and after every call empties ``H3Connection.outbox``, which collects outputs
and events. WebTransport data streams and datagrams never pass through here.

``H3Connection`` only routes: the peer's SETTINGS to ``Terms``, its control and QPACK streams to ``PeerStreams``, frames
of request streams to ``Requests``, everything about sessions to ``ConnectStreams``, ordinary requests to ``Exchanges``.
None of these parts refers back to the connection, so that a session and a connection are freed without the garbage
collector.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from wtio.protocol import messages, varint
from wtio.protocol.capsules import CapsuleType, encode_close
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.connect_streams import ConnectStreams
from wtio.protocol.dialects import Dialect
from wtio.protocol.exchanges import Exchanges
from wtio.protocol.faults import ConnectionFault, SessionStateError, StreamFault
from wtio.protocol.frames import FrameType, encode_record
from wtio.protocol.handshake import acceptance, headers_frame, rejection, session_request
from wtio.protocol.limits import DEFAULT_LIMITS, Allowance, Earnings, ProtocolLimits
from wtio.protocol.outbox import Outbox, RequestRefused, Role, SettingsReceived
from wtio.protocol.qpack import FieldSectionTooLargeError
from wtio.protocol.request import Requests, RequestStream
from wtio.protocol.session import Input, State
from wtio.protocol.settings import DEFAULT_TERMS, LocalTerms, Terms
from wtio.protocol.unidirectional import Goaway, PeerStreams

if TYPE_CHECKING:
    from wtio.protocol.transport_parameters import PeerTransport

__all__ = ["H3Connection"]

_Arguments = ParamSpec("_Arguments")
_Method = Callable[Concatenate["H3Connection", _Arguments], None]


def _closes(method: _Method[_Arguments]) -> _Method[_Arguments]:
    """Make a method close the connection if the peer breaks a rule, and do nothing on a closed connection."""

    @wraps(method)
    def guarded(self: "H3Connection", /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        if self.closed:
            return
        try:
            method(self, *args, **kwargs)
        except ConnectionFault as fault:
            self.fail(fault.code, fault.reason)

    return guarded


class H3Connection:
    """The HTTP/3 layer of one connection.

    Attributes:
        is_client: Whether we are the client.
        closed: Whether the connection is over: ``CloseConnection`` was queued. From then on ``send_connect``,
            ``accept`` and ``reject`` raise SessionStateError; other calls do nothing.
        outbox: Collects outputs and events. The driver empties it after every call.
        exchanges: Server: the ordinary requests. What it says is in ``outbox``, too.
        peer_transport: What the peer's transport parameters say. The driver sets it before it hands in the peer's
            SETTINGS. ``None``: they are not known, and nothing is demanded of them.
    """

    __slots__ = (
        "_allowance",
        "_goaway_sent",
        "_peer_streams",
        "_requests",
        "_sessions",
        "_terms",
        "closed",
        "exchanges",
        "is_client",
        "outbox",
        "peer_transport",
    )

    def __init__(
        self,
        *,
        is_client: bool,
        local: LocalTerms = DEFAULT_TERMS,
        limits: ProtocolLimits = DEFAULT_LIMITS,
        earnings: Earnings | None = None,
    ) -> None:
        """Set up a connection; nothing is sent before ``start``.

        Args:
            is_client: Whether we are the client.
            local: What we announce and demand.
            limits: Bounds on what the peer can make us keep.
            earnings: What the peer has earned beyond the constants in ``limits``; ``None`` if it cannot earn any.
        """
        self.is_client: bool = is_client
        self.closed: bool = False
        self.peer_transport: PeerTransport | None = None
        self._goaway_sent: int | None = None  # identifier in our GOAWAY: a server refuses requests from there on
        # Each part receives only the parts that it works with.
        self._terms = Terms(is_client, local, limits.max_field_section_size)
        self.outbox: Outbox = Outbox()
        self._allowance = Allowance(limits, earnings)
        self._peer_streams = PeerStreams(is_client, limits, self._allowance, self.outbox)
        self._requests = Requests(is_client, limits, self._allowance, self.outbox)
        self._sessions = ConnectStreams(limits, self._terms, self._allowance, self.outbox, self._requests)
        self.exchanges: Exchanges = Exchanges(self._terms, self._allowance, self.outbox, self._requests)

    # -- state

    @property
    def dialect(self) -> Dialect | None:
        """The dialect of this connection; ``None`` until it is known, or if the two sides have none in common.

        If a client announces none, the server learns it from the first CONNECT.
        """
        return self._terms.dialect

    @property
    def sent_settings(self) -> tuple[tuple[int, int], ...]:
        """Our settings in their order, as ``start`` sends them: (identifier, value)."""
        return self._terms.ours.settings

    @property
    def peer_settings(self) -> Mapping[int, int] | None:
        """The peer's settings, or ``None`` until they have arrived."""
        return self._terms.theirs

    @property
    def flow_control(self) -> bool:
        """Whether session flow control is on. False until the peer's settings have arrived."""
        return self._terms.flow_control

    @property
    def peer_initial_limits(self) -> tuple[int, int, int]:
        """Initial session limits that the peer announced: bytes, bidirectional streams, unidirectional streams."""
        return self._terms.initial_limits

    @property
    def sessions(self) -> int:
        """Sessions that count against the limit: waiting for an answer or open."""
        return self._sessions.live

    @property
    def parked(self) -> int:
        """Server: session requests that wait for the client's SETTINGS."""
        return self._sessions.parked

    @property
    def session_limit(self) -> int:
        """Sessions that this connection may carry at once; 0 until the dialect is known, and if there is none."""
        terms = self._terms
        return 0 if terms.dialect is None or terms.problem is not None else terms.session_limit(terms.dialect.row)

    @property
    def goaway_received(self) -> bool:
        """Whether the peer sent GOAWAY: a client needs a new connection for new sessions."""
        return self._sessions.goaway is not None

    def session_state(self, stream_id: int) -> str | None:
        """Name of a session's state (see ``wtio.protocol.session``), or ``None`` if it is unknown or finished."""
        found = self._requests.session(stream_id)
        return found[1].state.value if found else None

    # -- what we do

    def start(self) -> None:
        """Queue our control stream with SETTINGS. Call once, when connected.

        We open no QPACK streams. Without a dynamic table on either side they would stay empty (RFC 9204, section 4.2)
        and cost every connection two streams.
        """
        self.outbox.send(Role.CONTROL, self._terms.ours.opening)

    def send_connect(
        self,
        stream_id: int,
        *,
        authority: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        protocols: Sequence[str] = (),
        origin: str | None = None,
    ) -> None:
        """Client: request a session on a fresh bidirectional stream. Only after ``SettingsReceived``.

        ``SessionAccepted``, ``SessionRejected`` or ``SessionTerminated`` follows.

        Args:
            stream_id: The stream, which becomes the session's ID.
            authority: Host, with port unless it is 443.
            path: Path with query, beginning with ``/``.
            headers: Further header fields; names are lowered.
            protocols: Subprotocols to offer, preferred ones first; printable ASCII, 1 to 512 characters each.
            origin: Value of the Origin header; ``None`` sends none.

        Raises:
            ValueError: A header, the path, the authority or a subprotocol cannot be sent, or the header section
                is larger than the peer takes.
            SessionStateError: No SETTINGS yet, a peer without WebTransport, GOAWAY was received, or this
                connection carries as many sessions as it can.

        Source: draft-ietf-webtrans-http3-16, sections 3.2 and 3.3.
        """
        if not self.is_client or not self._requests.is_fresh(stream_id):
            raise ValueError(f"stream {stream_id} is no fresh bidirectional stream of a client")
        if self.closed:
            raise SessionStateError("the connection is closed", "closed")
        row = self._sessions.check_may_connect()
        fields = session_request(
            row, authority=authority, path=path, headers=headers, protocols=protocols, origin=origin
        )
        self._terms.check_size(fields)
        self._sessions.connect(self._requests.open(stream_id), headers_frame(fields), tuple(protocols))

    def accept(
        self,
        stream_id: int,
        *,
        headers: Sequence[tuple[str, str]] = (),
        protocol: str | None = None,
        status: int = 200,
    ) -> None:
        """Server: answer a session request with a status that accepts it.

        Capsules that the client sent ahead, even its close, are reported as events of this call.

        Args:
            stream_id: The session.
            headers: Further header fields; names are lowered.
            protocol: The subprotocol chosen, one of those offered; ``None`` for none.
            status: 200 to 299.

        Raises:
            ValueError: A header cannot be sent, ``protocol`` was not offered, or ``status`` does not accept.
            SessionStateError: The request is answered already, or its client is gone.
        """
        stream, session = self._sessions.pending(stream_id, Input.ACCEPT)
        if protocol is not None and protocol not in session.offered:
            raise ValueError(f"protocol {protocol!r} was not offered; offered were {list(session.offered)!r}")
        assert session.request is not None  # it is kept until then
        if not 200 <= status <= 299:
            raise ValueError(f"status {status} is outside 200 to 299")
        fields = acceptance(session.request, protocol, session.protocol_fields, headers, status)
        if headers:  # our own few fields are sent even to a peer that announces a senseless limit
            self._terms.check_size(fields)
        try:
            self._sessions.accept(stream, session, headers_frame(fields))
        except ConnectionFault as fault:  # in the capsules that the client sent ahead
            self.fail(fault.code, fault.reason)

    def reject(
        self, stream_id: int, status: int, *, headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        """Server: answer a request, of a session or an ordinary one, and end the stream.

        Args:
            stream_id: The request stream.
            status: 200 to 599; for a session request 300 to 599.
            headers: Further header fields; names are lowered.
            body: Sent with ``content-length``, but not in answers that have no content, such as those to HEAD.

        Raises:
            ValueError: The status or a header cannot be sent.
            SessionStateError: The request is answered already, or its client is gone.
        """
        stream = self._requests.get(stream_id)
        if stream is None or not stream.method:
            raise SessionStateError(f"stream {stream_id} has no request to answer", State.FINISHED.value)
        session = stream.session
        lowest = 300 if session else 200
        if not lowest <= status <= 599:
            raise ValueError(f"status {status} is outside {lowest} to 599")
        if not session:
            self.exchanges.answer(stream, status, headers, body)
            return
        self._sessions.pending(stream_id, Input.REJECT)
        fields = rejection(status, headers, len(body))
        if headers:
            self._terms.check_size(fields)
        payload = headers_frame(fields)
        if body and status != 304:
            payload += encode_record(FrameType.DATA, body)
        self._sessions.reject(stream, session, payload)

    def close_session(self, stream_id: int, code: int, reason: str) -> None:
        """Send WT_CLOSE_SESSION and the end of the stream. No-op on a session that is closing or closed.

        A session that is not open yet is cancelled instead. ``SessionFinished`` follows when the peer has ended its
        side too. A peer may never do so: bound the wait, then call ``abort_session``.

        Args:
            stream_id: The session.
            code: Application close code, 0 to 2**32-1.
            reason: Cut to the longest prefix of at most 1024 bytes of UTF-8.

        Raises:
            ValueError: ``code`` is outside 32 bits.

        Source: draft-ietf-webtrans-http3-16, section 6.
        """
        capsule = encode_close(code, reason)
        if found := self._requests.session(stream_id):
            self._sessions.close(*found, capsule)

    def abort_session(self, stream_id: int, wire_code: int) -> None:
        """Reset and stop the CONNECT stream with an HTTP/3 code. No-op on a finished session."""
        if found := self._requests.session(stream_id):
            self._sessions.abort(*found, wire_code)

    def drain_session(self, stream_id: int) -> None:
        """Send WT_DRAIN_SESSION, once. No-op on a session that is not open."""
        found = self._requests.session(stream_id)
        if found and not found[1].has_sent_drain:
            found[1].has_sent_drain = True
            self._sessions.send_capsule(*found, encode_record(CapsuleType.WT_DRAIN_SESSION, b""))

    def send_capsule(self, stream_id: int, capsule: bytes) -> None:
        """Send a capsule on an open session. No-op on a session that is not open.

        A client may send capsules before the answer (draft 16, section 3.2), but this one does not.
        """
        if found := self._requests.session(stream_id):
            self._sessions.send_capsule(*found, capsule)

    def send_goaway(self) -> None:
        """Send GOAWAY: we take no new requests, and refuse those that the peer still sends."""
        if self.closed or self._goaway_sent is not None:
            return
        # RFC 9114, section 5.2: a server names the first request it will not process; a client names a push ID, and
        # never allows a push.
        self._goaway_sent = 0 if self.is_client else self._requests.next_id
        self.outbox.send(Role.CONTROL, encode_record(FrameType.GOAWAY, varint.encode(self._goaway_sent)))

    def fail(self, code: int, reason: str) -> None:
        """Close the connection because of an error that another layer detected, such as H3_DATAGRAM_ERROR.

        Queues ``CloseConnection`` and ``ConnectionFailed``, as for errors detected here.
        """
        if not self.closed:
            self.closed = True
            self._requests.clear()
            self._sessions.clear()
            self.outbox.close(code, reason)

    def expire_parked(self) -> int:
        """Server: refuse the session requests that still wait for the client's SETTINGS; return their number."""
        return self._sessions.expire_parked()

    @_closes
    def expire_head(self, stream_id: int) -> None:
        """Server: refuse a request whose header section is still incomplete, with status 408."""
        self.exchanges.expire_head(stream_id)

    # -- what the peer did

    @_closes
    def receive_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """Take bytes of a raw stream, in order; ``end`` with the last ones (or with ``b""``). Never raises."""
        kind = stream_id & 3  # RFC 9000, section 2.1: who opened it, and whether it is unidirectional
        if kind == 0:
            stream = self._requests.get(stream_id)
            if stream is None:
                # A client has opened all its request streams itself, so an unknown one is over.
                if self.is_client or self.outbox.is_freed(stream_id):
                    return
                stream = self._requests.open(stream_id)
                if self._goaway_sent is not None and stream_id >= self._goaway_sent:
                    self._requests.refuse(stream, ErrorCodes.H3_REQUEST_REJECTED)
                    return
            self._receive_request(stream, data, end)
        elif not self.outbox.is_freed(stream_id):
            if kind == 1 and self.is_client:
                self._peer_streams.receive_stray(stream_id, data, end)
            elif kind == (3 if self.is_client else 2):
                for message in self._peer_streams.receive(stream_id, data, end):
                    if isinstance(message, Goaway):
                        self._sessions.take_goaway(message.identifier)
                    else:
                        self._terms.take(message, self.peer_transport)
                        self.outbox.report(SettingsReceived(message, self._terms.dialect, self._terms.problem))
                        self._sessions.admit_parked()

    @_closes
    def receive_reset(self, stream_id: int, code: int) -> None:
        """Take the reset of a raw stream. Never raises."""
        stream = self._requests.get(stream_id)
        if stream is None:
            self._peer_streams.end(stream_id)
        elif stream.session:
            self._sessions.take_reset(stream, stream.session, code)
        else:
            self.exchanges.take_reset(stream, code)

    @_closes
    def receive_stop(self, stream_id: int | Role, code: int) -> None:
        """Take a STOP_SENDING for a request stream or for one of our unidirectional streams. Never raises."""
        if isinstance(stream_id, Role) or stream_id & 3 == (2 if self.is_client else 3):
            # RFC 9114, section 6.2.1; RFC 9204, section 4.2. All unidirectional streams of ours are critical.
            raise ConnectionFault(ErrorCodes.H3_CLOSED_CRITICAL_STREAM, "the peer stopped a critical stream")
        stream = self._requests.get(stream_id)
        if stream is None:
            return
        if stream.session:
            self._sessions.take_stop(stream, stream.session, code)
        else:
            self.exchanges.take_stop(stream, code)

    @_closes
    def note_refused(self) -> None:
        """Count a stream of the peer that the driver refused. Never raises."""
        self._allowance.count_refused()

    def check_session_id(self, session_id: int) -> bool:
        """Check the session ID of a data stream or datagram.

        Queues CloseConnection(H3_ID_ERROR) if no session can have this ID: it is not a client-initiated bidirectional
        stream, or on a client it was never requested. The ID of a session that has ended is no error.

        Returns:
            Whether the ID is possible.

        Source: draft-ietf-webtrans-http3-16, section 4.
        """
        if self.closed:
            return False
        if session_id % 4 or not 0 <= session_id <= varint.MAX_VARINT:
            self.fail(ErrorCodes.H3_ID_ERROR, f"session id {session_id} is no client-initiated bidirectional stream")
        elif self.is_client and session_id >= self._requests.next_id:
            self.fail(ErrorCodes.H3_ID_ERROR, f"session id {session_id} was never requested")
        return not self.closed

    # -- request streams

    def _receive_request(self, stream: RequestStream, data: bytes, end: bool) -> None:
        """Pass on the header sections and body of a request stream, and count what is kept of them."""
        sessions = self._sessions
        try:
            if stream.session and stream.is_discarding:
                sessions.discard(stream, stream.session, len(data), end)
            else:
                for part in stream.read(data):
                    session = stream.session
                    if isinstance(part, bytes):
                        if session:
                            sessions.take_body(stream, session, part)
                        else:
                            self.exchanges.take_body(stream, part)
                    elif session:  # we are the client: our requests are sessions from the start
                        sessions.take_response(stream, session, part)
                    else:
                        self._take_request(stream, messages.read_request(part))
                    if stream.is_over:
                        return
                if end:
                    stream.check_end()
                    if stream.session:
                        sessions.end(stream, stream.session)
                    else:
                        self.exchanges.take_end(stream)
        except StreamFault as fault:
            if stream.session:
                sessions.fail(stream, stream.session, fault)
            else:
                self.exchanges.fail(stream, fault)
        except FieldSectionTooLargeError:
            self._requests.answer(stream, headers_frame(rejection(431)))  # RFC 9114, section 4.2.2
            self.outbox.report(RequestRefused(stream.stream_id, 431))
            self._allowance.count_refused()
        if not stream.is_over:
            self._requests.account(stream)

    def _take_request(self, stream: RequestStream, request: messages.Request) -> None:
        """Take the header section of a request: an ordinary one, or an extended CONNECT."""
        stream.method = request.method
        stream.begin_body(None if request.protocol else request.content_length)
        if not request.protocol:
            self.exchanges.take_request(stream, request)
        else:
            self._sessions.take_request(stream, request)
