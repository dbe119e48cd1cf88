"""One HTTP/3 connection that carries WebTransport sessions, without any input or output of its own.

Bytes of raw streams go in, outputs (``take_outputs``) and events (``take_events``) come out; both lists are to be
drained after every call. WebTransport data streams and datagrams never pass through here.

Contents: construction and state · local calls · input from the driver · settings and GOAWAY of the peer · request
streams · session requests (server) · responses (client) · capsules · session steps. The peer's unidirectional
streams are in ``unidirectional``, the rules for the next frame of a request stream in ``request``.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVarTuple, Unpack

from wtio.protocol import messages, qpack, varint
from wtio.protocol.capsules import (
    FLOW_CONTROL_CAPSULES,
    CapsuleType,
    classify_capsule,
    decode_close,
    decode_limit,
    encode_close,
)
from wtio.protocol.codes import ErrorCodes, describe
from wtio.protocol.dialects import (
    DEFAULT_DIALECTS,
    MARKS,
    PROTOCOL_FIELDS,
    STRICT_DIALECT,
    TOKENS,
    Dialect,
    DialectRow,
    Setting,
    dialect_of_request,
    negotiate,
)
from wtio.protocol.faults import ConnectionFault, SessionStateError, StreamFault
from wtio.protocol.fields import (
    parse_string_item,
    parse_string_list,
    serialize_string,
    serialize_string_list,
    serialize_token,
)
from wtio.protocol.frames import FrameType, Handling, RecordReader, StreamType, encode_record
from wtio.protocol.limits import DEFAULT_LIMITS, Earnings, ProtocolLimits
from wtio.protocol.outbox import (
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
    SessionDraining,
    SessionFinished,
    SessionRejected,
    SessionRequested,
    SessionStopping,
    SessionTerminated,
    SettingsReceived,
    Stop,
)
from wtio.protocol.request import RequestStream
from wtio.protocol.session import LIVE, Effect, Input, Session, State
from wtio.protocol.settings import announce, peer_problem
from wtio.protocol.unidirectional import PeerStreams

if TYPE_CHECKING:
    from wtio.protocol.transport_parameters import PeerTransport

__all__ = ["REQUEST_RESERVED", "RESPONSE_RESERVED", "H3Connection"]


# Header fields that this layer writes itself.
_FIELDS: Final = (PROTOCOL_FIELDS.offer, PROTOCOL_FIELDS.choice, "content-length")
REQUEST_RESERVED: Final = frozenset((*_FIELDS, *(mark.request[0] for mark in MARKS), "host"))
RESPONSE_RESERVED: Final = frozenset((*_FIELDS, *(mark.answer[0] for mark in MARKS)))
_Arguments = TypeVarTuple("_Arguments")
_MOST_REMEMBERED: Final = 512  # finished streams whose late input must not look like a new request
# States of a server's session that its client may still take back without anything to show for it.
_UNANSWERED: Final = frozenset((State.PARKED, State.REQUESTED))
# The limits among the flow-control capsules, and their initial value's place in ``peer_initial_limits``.
_LIMIT_CAPSULES: Final[dict[int, int]] = {
    CapsuleType.WT_MAX_DATA: 0,
    CapsuleType.WT_MAX_STREAMS_BIDI: 1,
    CapsuleType.WT_MAX_STREAMS_UNI: 2,
}


class H3Connection:
    """The HTTP/3 layer of one connection.

    Attributes:
        is_client: Whether we are the client.
        limits: The bounds in force.
        strict: Whether the peer is held to the letter of its dialect.
        peer_transport: What the peer's transport parameters say; to be set before the peer's SETTINGS are handed in.
            ``None`` where they are not known; then they are not judged.
    """

    __slots__ = (
        "_announced",
        "_buffered",
        "_closed",
        "_dialect",
        "_dialects",
        "_earnings",
        "_events",
        "_flow_control",
        "_goaway_received",
        "_goaway_sent",
        "_idle_left",
        "_live",
        "_max_sessions",
        "_may_control_flow",
        "_next_request",
        "_outputs",
        "_parked",
        "_peer_settings",
        "_peer_streams",
        "_problem",
        "_refused_left",
        "_remembered",
        "_requests",
        "is_client",
        "limits",
        "peer_transport",
        "strict",
    )

    def __init__(
        self,
        *,
        is_client: bool,
        limits: ProtocolLimits = DEFAULT_LIMITS,
        initial_max_data: int = 0,
        initial_max_streams_bidi: int = 0,
        initial_max_streams_uni: int = 0,
        max_sessions: int = 1000,
        dialects: Collection[Dialect] | None = None,
        strict: bool = False,
        earnings: Earnings | None = None,
    ) -> None:
        """Set up a connection; nothing is sent before ``start``.

        Args:
            is_client: Whether we are the client.
            limits: Bounds on what the peer can make us keep.
            initial_max_data: Session flow control: bytes the peer may send on a new session. All three 0: off.
            initial_max_streams_bidi: Session flow control: bidirectional streams the peer may open.
            initial_max_streams_uni: Session flow control: unidirectional streams the peer may open.
            max_sessions: Sessions at once on this connection. Dialects with a limit of their own lower it to 1.
            dialects: Dialects to announce; ``None`` is ``DEFAULT_DIALECTS``, or ``STRICT_DIALECT`` if strict.
            strict: Hold the peer to the letter of its dialect. By default a peer may lack what can be done without:
                reset_stream_at, a client's WebTransport setting, the final number of the datagram setting, the
                ``:protocol`` of its dialect.
            earnings: What the peer has earned beyond the constants in ``limits``; ``None`` is nothing.
        """
        if dialects is None:
            dialects = (STRICT_DIALECT,) if strict else DEFAULT_DIALECTS
        self.is_client = is_client
        self.limits = limits
        self.strict = strict
        self.peer_transport: PeerTransport | None = None
        self._announced = announce(
            is_client,
            limits.max_field_section_size,
            initial_max_data,
            initial_max_streams_bidi,
            initial_max_streams_uni,
            max_sessions,
            tuple(dialects),
        )
        self._dialects = dialects
        self._max_sessions = max_sessions
        self._may_control_flow = any((initial_max_data, initial_max_streams_bidi, initial_max_streams_uni))
        self._dialect: Dialect | None = None
        self._problem: str | None = None
        self._peer_settings: Mapping[int, int] | None = None
        self._flow_control = False
        self._closed = False
        # Both are drained after every call, so they hold what one call has to say.
        self._outputs: list[Output] = []
        self._events: list[Event] = []
        self._buffered = 0
        # Never more than the peer, or we, may have open at once.
        self._requests: dict[int, RequestStream] = {}
        self._live = 0
        self._parked = 0
        self._remembered: dict[int, None] | None = None  # at most _MOST_REMEMBERED
        self._earnings = earnings
        self._idle_left = limits.max_idle_records
        self._refused_left = limits.max_refused_requests
        self._next_request = 0  # above every request stream seen
        self._peer_streams = PeerStreams(self)
        self._goaway_sent: int | None = None
        self._goaway_received: int | None = None

    # -- state

    @property
    def dialect(self) -> Dialect | None:
        """The dialect of this connection; ``None`` until it is known, or where there is none in common.

        A server whose client announced none learns it from the first CONNECT.
        """
        return self._dialect

    @property
    def sent_settings(self) -> tuple[tuple[int, int], ...]:
        """Our settings in their order, as ``start`` sends them: (identifier, value)."""
        return self._announced.settings

    @property
    def peer_settings(self) -> Mapping[int, int] | None:
        """The peer's settings, or ``None`` until they have arrived."""
        return self._peer_settings

    @property
    def flow_control(self) -> bool:
        """Whether session flow control is on. False until the peer's settings have arrived."""
        return self._flow_control

    @property
    def peer_initial_limits(self) -> tuple[int, int, int]:
        """Initial session limits that the peer announced: bytes, bidirectional streams, unidirectional streams."""
        settings = self._peer_settings or {}
        return (
            settings.get(Setting.WT_INITIAL_MAX_DATA, 0),
            settings.get(Setting.WT_INITIAL_MAX_STREAMS_BIDI, 0),
            settings.get(Setting.WT_INITIAL_MAX_STREAMS_UNI, 0),
        )

    @property
    def closed(self) -> bool:
        """Whether the connection is over: ``CloseConnection`` was queued.

        From then on ``send_connect``, ``accept`` and ``reject`` raise SessionStateError; other calls do nothing.
        """
        return self._closed

    @property
    def sessions(self) -> int:
        """Sessions that count against the limit: waiting for an answer or open."""
        return self._live

    @property
    def parked(self) -> int:
        """Server: session requests that wait for the client's SETTINGS."""
        return self._parked

    @property
    def session_limit(self) -> int:
        """Sessions that this connection may carry at once; 0 until the dialect is known, and where there is none."""
        if self._dialect is None or self._problem is not None:
            return 0
        return self._session_limit(self._dialect.row)

    @property
    def goaway_received(self) -> bool:
        """Whether the peer sent GOAWAY: a client needs a new connection for new sessions."""
        return self._goaway_received is not None

    def session_state(self, stream_id: int) -> str | None:
        """Name of a session's state (see ``wtio.protocol.session``), or ``None`` for one not known or finished."""
        stream = self._requests.get(stream_id)
        return stream.session.state.value if stream and stream.session else None

    # -- what we do

    def start(self) -> None:
        """Queue our control stream with SETTINGS. Call once, when connected.

        There are no QPACK streams of ours: without a dynamic table on either side they would stay empty (RFC 9204,
        section 4.2), and cost every connection two streams.
        """
        settings = encode_record(FrameType.SETTINGS, self._announced.payload)
        self._send(Role.CONTROL, varint.encode(StreamType.CONTROL) + settings)

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

        ``SessionAccepted``, ``SessionRejected`` or ``SessionTerminated`` follows.

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
        row = self._check_may_connect(stream_id)
        messages.check_target(authority, path)
        fields = [
            (":method", "CONNECT"),
            (":scheme", "https"),
            (":authority", authority),
            (":path", path),
            (":protocol", row.token),
        ]
        if row.mark is not None:
            fields.append(row.mark.request)
        own = messages.check_headers(headers, REQUEST_RESERVED)
        if origin is not None:
            if messages.values_of(own, "origin"):
                raise ValueError("Origin is given both as a header and as `origin`")
            fields += messages.check_headers((("origin", origin),))
        if protocols:
            _check_protocols(protocols)
            fields.append((PROTOCOL_FIELDS.offer, serialize_string_list(protocols)))
        fields += own
        self._check_size(fields)
        stream = self._open_request(stream_id)
        stream.protocols = tuple(protocols)
        stream.require_protocol = require_protocol
        self._begin_session(stream, State.CONNECTING)
        self._send(stream_id, _headers_frame(fields))

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
        stream, session = self._pending(stream_id, Input.ACCEPT)
        if protocol is not None and protocol not in session.offered:
            raise ValueError(f"protocol {protocol!r} was not offered; offered were {list(session.offered)!r}")
        fields = [(":status", "200")]
        request = stream.request
        # Draft 02, section 3.3; harmless elsewhere, so it goes to whoever sent the request's counterpart.
        fields += [mark.answer for mark in MARKS if request and messages.values_of(request.headers, mark.request[0])]
        if protocol is not None:
            names = session.protocol_fields
            write = serialize_token if names.choice_is_token else serialize_string
            fields.append((names.choice, write(protocol)))
        if headers:  # our own few fields go out even to a peer that announces a senseless limit
            fields += messages.check_headers(headers, RESPONSE_RESERVED)
            self._check_size(fields)
        stream.request = None
        self._step(stream, session, Input.ACCEPT, payload=_headers_frame(fields))
        self._guarded(self._replay, stream, session)

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
        stream = self._requests.get(stream_id)
        if self._closed or stream is None or not (stream.session or stream.method) or stream.responded:
            raise SessionStateError(f"stream {stream_id} has no request to answer", State.FINISHED.value)
        lowest = 300 if stream.session else 200
        if not lowest <= status <= 599:
            raise ValueError(f"status {status} is outside {lowest} to 599")
        session = stream.session
        if session and session.state is not State.REQUESTED:
            session.step(Input.REJECT)  # raises
        fields = [(":status", str(status)), *messages.check_headers(headers, RESPONSE_RESERVED)]
        # RFC 9110, section 8.6: 204 has no content-length.
        if status != 204:
            fields.append(("content-length", str(len(body))))
        if headers:
            self._check_size(fields)
        payload = _headers_frame(fields)
        if body and stream.method != "HEAD" and status not in (204, 304):
            payload += encode_record(FrameType.DATA, body)
        if session:
            self._step(stream, session, Input.REJECT, payload=payload)
            if stream.held_end:
                self._step(stream, session, Input.END)
            return
        stream.responded = True
        self._send(stream_id, payload, end=True)
        if not stream.held_end:
            # RFC 9114, section 4.1: the rest of the request is not needed.
            self._outputs.append(Stop(stream_id, ErrorCodes.H3_NO_ERROR))
        self._free(stream)

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
        capsule = encode_close(code, reason)
        stream, session = self._find(stream_id)
        if stream and session:
            payload = encode_record(FrameType.DATA, capsule) if session.state is State.OPEN else b""
            self._step(stream, session, Input.CLOSE, payload=payload, code=ErrorCodes.H3_REQUEST_CANCELLED)

    def abort_session(self, stream_id: int, wire_code: int) -> None:
        """Reset and stop the CONNECT stream with an HTTP/3 code. No-op on a finished session."""
        stream, session = self._find(stream_id)
        if stream and session:
            self._step(stream, session, Input.ABORT, code=wire_code)

    def drain_session(self, stream_id: int) -> None:
        """Send WT_DRAIN_SESSION, once. No-op on a session that is not open."""
        stream, session = self._find(stream_id)
        if stream and session and not session.has_sent_drain:
            session.has_sent_drain = True
            self.send_capsule(stream_id, CapsuleType.WT_DRAIN_SESSION, b"")

    def send_capsule(self, stream_id: int, type: int, value: bytes) -> None:
        """Send a capsule on an open session. No-op on a session that is not open.

        A client could send capsules before the answer (draft 16, section 3.2); this one does not.
        """
        stream, session = self._find(stream_id)
        if stream and session and session.state is State.OPEN:
            self._send(stream_id, encode_record(FrameType.DATA, encode_record(type, value)))

    def send_goaway(self) -> None:
        """Tell the peer that we take no new requests. Requests it sends from now on are refused."""
        if self._closed or self._goaway_sent is not None:
            return
        # RFC 9114, section 5.2: a server names the first request it will not process; a client names a push.
        self._goaway_sent = 0 if self.is_client else self._next_request
        self._send(Role.CONTROL, encode_record(FrameType.GOAWAY, varint.encode(self._goaway_sent)))

    def fail(self, code: int, reason: str) -> None:
        """Close the connection for an error that another layer detected, such as H3_DATAGRAM_ERROR.

        Queues ``CloseConnection`` and ``ConnectionFailed``, as an error detected here does.
        """
        if self._closed:
            return
        self._closed = True
        self._requests.clear()
        self._live = self._parked = 0
        self._outputs.append(CloseConnection(int(code), reason))
        self._events.append(ConnectionFailed(int(code), reason))

    def expire_parked(self) -> int:
        """Server: refuse the session requests that still wait for the client's SETTINGS; returns their number."""
        if not self._parked:
            return 0
        parked = [
            stream for stream in self._requests.values() if stream.session and stream.session.state is State.PARKED
        ]
        for stream in parked:
            if stream.session:
                self._step(stream, stream.session, Input.ABORT, code=ErrorCodes.H3_REQUEST_REJECTED)
        return len(parked)

    # -- what the peer did

    def receive_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """Take bytes of a raw stream, in order; ``end`` with the last ones (or with ``b""``). Never raises."""
        self._guarded(self._receive, stream_id, data, end)

    def receive_reset(self, stream_id: int, code: int) -> None:
        """Take the reset of a raw stream. Never raises."""
        self._guarded(self._reset, stream_id, code)

    def receive_stop(self, stream_id: int | Role, code: int) -> None:
        """Take a STOP_SENDING for a request stream or for one of our unidirectional streams. Never raises."""
        self._guarded(self._stop, stream_id, code)

    def note_refused(self) -> None:
        """Count a stream of the peer's that the driver turned away. Never raises."""
        self._guarded(self._count_refused)

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
        if self._closed:
            return False
        if session_id % 4 or not 0 <= session_id <= varint.MAX_VARINT:
            self.fail(ErrorCodes.H3_ID_ERROR, f"session id {session_id} is no client-initiated bidirectional stream")
        elif self.is_client and session_id >= self._next_request:
            self.fail(ErrorCodes.H3_ID_ERROR, f"session id {session_id} was never requested")
        return not self._closed

    # -- input from the driver

    def _guarded(self, action: Callable[[Unpack[_Arguments]], None], *arguments: *_Arguments) -> None:
        """Run what may find a fault of the connection, and close the connection for it."""
        if self._closed:
            return
        try:
            action(*arguments)
        except ConnectionFault as fault:
            self.fail(fault.code, fault.reason)

    def _count_idle(self) -> None:
        """Count what has no effect, and what a peer could repeat for ever otherwise (RFC 9114, section 10.5)."""
        self._idle_left -= 1
        if self._idle_left < 0:
            self._idle_left += self._earnings.records() if self._earnings else 0
            if self._idle_left < 0:
                raise ConnectionFault(ErrorCodes.H3_EXCESSIVE_LOAD, "too many frames or capsules without effect")

    def _count_refused(self) -> None:
        """Count a request or stream that came to nothing."""
        self._refused_left -= 1
        if self._refused_left < 0:
            self._refused_left += self._earnings.requests() if self._earnings else 0
            if self._refused_left < 0:
                raise ConnectionFault(ErrorCodes.H3_EXCESSIVE_LOAD, "too many requests or streams that were refused")

    def _is_remembered(self, stream_id: int) -> bool:
        return self._remembered is not None and stream_id in self._remembered

    def _receive(self, stream_id: int, data: bytes, end: bool) -> None:
        kind = stream_id & 3
        if kind == 0:
            stream = self._requests.get(stream_id)
            if stream is None:
                # A client knows all its request streams; what else arrives belongs to one that is over.
                if self.is_client or self._is_remembered(stream_id):
                    return
                stream = self._open_request(stream_id)
                if self._goaway_sent is not None and stream_id >= self._goaway_sent:
                    self._refuse(stream, ErrorCodes.H3_REQUEST_REJECTED)
                    return
            self._receive_request(stream, data, end)
        elif not self._is_remembered(stream_id):
            if kind == 1 and self.is_client:
                self._peer_streams.receive_stray(stream_id, data, end)
            elif kind == (3 if self.is_client else 2):
                self._peer_streams.receive(stream_id, data, end)

    def _reset(self, stream_id: int, code: int) -> None:
        stream = self._requests.get(stream_id)
        if stream is None:
            self._peer_streams.end(stream_id)
        elif stream.session:
            is_unanswered = stream.session.state in _UNANSWERED
            reason = f"the peer reset the CONNECT stream with {describe(code)}"
            self._step(
                stream,
                stream.session,
                Input.RESET,
                code=ErrorCodes.H3_REQUEST_CANCELLED,
                report=SessionTerminated(stream_id, 0, reason, clean=False, by="peer", wire_code=code),
            )
            if is_unanswered:
                self._count_refused()
        else:
            self._outputs.append(Reset(stream_id, ErrorCodes.H3_REQUEST_CANCELLED))
            self._free(stream)
            self._count_refused()

    def _stop(self, stream_id: int | Role, code: int) -> None:
        if isinstance(stream_id, Role) or stream_id & 3 == (2 if self.is_client else 3):
            # RFC 9114, section 6.2.1; RFC 9204, section 4.2. All unidirectional streams of ours are critical.
            raise ConnectionFault(ErrorCodes.H3_CLOSED_CRITICAL_STREAM, "the peer stopped a critical stream")
        stream = self._requests.get(stream_id)
        if stream is None:
            return
        if stream.session:
            reason = f"the peer stopped the CONNECT stream with {describe(code)}"
            stream.session.stop_code = code
            is_unanswered = stream.session.state in _UNANSWERED
            self._step(
                stream,
                stream.session,
                Input.STOP,
                code=code,
                report=SessionTerminated(stream_id, 0, reason, clean=False, by="peer", wire_code=code),
            )
            if is_unanswered:
                self._count_refused()
        else:  # an ordinary request whose answer is not wanted
            self._refuse(stream, ErrorCodes.H3_REQUEST_CANCELLED)

    # -- settings and GOAWAY of the peer

    def _take_settings(self, settings: Mapping[int, int]) -> None:
        local = self._announced.values
        self._peer_settings = settings
        self._dialect = negotiate(local, settings)
        self._problem = peer_problem(
            settings, self._dialect, is_client=self.is_client, strict=self.strict, transport=self.peer_transport
        )
        if self._dialect is not None:
            takes_part = self._dialect.row.takes_part_in_flow_control
            self._flow_control = takes_part(local) and takes_part(settings)
        self._events.append(SettingsReceived(settings, self._dialect, self._problem))
        for stream in list(self._requests.values()):
            if stream.request and stream.session and stream.session.state is State.PARKED:
                try:
                    self._admit(stream, stream.session, stream.request)
                except StreamFault as fault:
                    self._stream_fault(stream, fault)

    def _take_goaway(self, identifier: int) -> None:
        """Note that the peer takes no more requests (RFC 9114, section 5.2; draft 16, section 4.7)."""
        if self.is_client and identifier % 4:
            raise ConnectionFault(ErrorCodes.H3_ID_ERROR, f"GOAWAY names {identifier}, which is no request stream")
        if self._goaway_received is not None and identifier > self._goaway_received:
            raise ConnectionFault(ErrorCodes.H3_ID_ERROR, f"GOAWAY grows from {self._goaway_received} to {identifier}")
        if self._goaway_received is not None:
            self._count_idle()
            if identifier == self._goaway_received:
                return
        self._goaway_received = identifier
        self._events.append(GoawayReceived(identifier))
        for stream in list(self._requests.values()):
            session = stream.session
            if session is None or session.state not in LIVE:
                continue
            if session.state is State.CONNECTING and stream.stream_id >= identifier:
                # The server has not processed it and never will.
                self._step(
                    stream,
                    session,
                    Input.FAULT,
                    code=ErrorCodes.H3_REQUEST_CANCELLED,
                    report=SessionTerminated(
                        stream.stream_id,
                        0,
                        "the server is going away and did not process the request",
                        clean=False,
                        by="peer",
                        wire_code=ErrorCodes.H3_REQUEST_REJECTED,
                    ),
                )
            else:
                self._drain(stream.stream_id, session)

    # -- request streams

    def _open_request(self, stream_id: int) -> RequestStream:
        stream = self._requests[stream_id] = RequestStream(stream_id, self)
        self._next_request = max(self._next_request, stream_id + 4)
        return stream

    def _receive_request(self, stream: RequestStream, data: bytes, end: bool) -> None:
        if not stream.is_discarding:
            try:
                for frame_type, payload in stream.reader.feed(data):
                    if frame_type == FrameType.HEADERS:
                        self._header_section(stream, payload)
                    else:
                        self._body(stream, payload)
                    if stream.is_over:
                        break
                if end and not stream.is_over:
                    self._end_request(stream)
            except StreamFault as fault:
                self._stream_fault(stream, fault)
            except qpack.FieldSectionTooLargeError:
                self._header_section_too_large(stream)
        elif end and stream.session:
            self._step(stream, stream.session, Input.END)
        else:
            self._discard(stream, len(data))
        if not stream.is_over:
            kept = stream.buffered()
            self._buffered += kept - stream.counted
            stream.counted = kept
            if self._buffered > self.limits.max_buffered:
                raise ConnectionFault(
                    ErrorCodes.H3_EXCESSIVE_LOAD, f"incomplete frames exceed {self.limits.max_buffered} bytes"
                )

    def _header_section(self, stream: RequestStream, payload: bytes) -> None:
        fields = qpack.decode_field_section(payload, max_size=self.limits.max_field_section_size)
        if stream.phase == "body":
            stream.phase = "end"
            messages.check_trailers(fields)
        elif stream.session:  # ours: a client's stream has its session from the start
            self._response(stream, stream.session, fields)
        else:
            self._request(stream, messages.read_request(fields))

    def _header_section_too_large(self, stream: RequestStream) -> None:
        """Answer a request with 431; give up a response (RFC 9114, section 4.2.2)."""
        limit = self.limits.max_field_section_size
        if self.is_client or stream.phase != "head":
            self._stream_fault(stream, StreamFault(ErrorCodes.H3_EXCESSIVE_LOAD, f"headers exceed {limit} bytes"))
            return
        self._send(stream.stream_id, _headers_frame([(":status", "431"), ("content-length", "0")]), end=True)
        self._outputs.append(Stop(stream.stream_id, ErrorCodes.H3_NO_ERROR))
        self._free(stream)
        self._count_refused()

    def _body(self, stream: RequestStream, data: bytes) -> None:
        if stream.session is None:
            stream.body += len(data)
            if stream.announced_body is not None and stream.body > stream.announced_body:
                raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "body is longer than content-length")
            return
        if stream.saw_close:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "data after WT_CLOSE_SESSION")
        if stream.capsules is None:
            stream.capsules = RecordReader(partial(self._classify_capsule, stream))
        for capsule_type, value in stream.capsules.feed(data):
            stream.is_barren = False
            self._capsule(stream, stream.session, capsule_type, value)
        # A frame that goes on behind the capsule is enough: its rest may come when our answer has left already.
        if stream.saw_close and not (stream.capsules.at_boundary and stream.reader.at_boundary):
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "data after WT_CLOSE_SESSION")

    def _end_request(self, stream: RequestStream) -> None:
        """The peer ended its side, at a moment that may be wrong."""
        if not stream.reader.at_boundary:
            if stream.phase == "head" and stream.reader.may_be_data_stream:
                raise StreamFault(ErrorCodes.H3_REQUEST_INCOMPLETE, "stream ends inside its first number")
            raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, "stream ends inside a frame")  # RFC 9114, section 7.1
        if stream.phase == "head":
            code = ErrorCodes.H3_MESSAGE_ERROR if self.is_client else ErrorCodes.H3_REQUEST_INCOMPLETE
            raise StreamFault(code, "stream ends before a complete header section")
        session = stream.session
        if session is None:
            if stream.announced_body is not None and stream.body != stream.announced_body:
                raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "body is shorter than content-length")
            stream.held_end = True
            return
        if stream.capsules and not stream.capsules.at_boundary:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "stream ends inside a capsule")  # RFC 9297, section 3.3
        if session.state in (State.PARKED, State.REQUESTED):
            stream.held_end = True
            return
        self._step(
            stream,
            session,
            Input.END,
            report=SessionTerminated(stream.stream_id, 0, "", clean=True, by="peer", wire_code=None),
        )

    def _discard(self, stream: RequestStream, count: int) -> None:
        """Count what comes on a stream that we have ended; a peer that does not stop is told to."""
        stream.discarded += count
        if stream.session and stream.discarded > self.limits.max_discard:
            self._step(stream, stream.session, Input.FAULT, code=ErrorCodes.H3_NO_ERROR)

    def _stream_fault(self, stream: RequestStream, fault: StreamFault) -> None:
        if stream.session is None:
            self._refuse(stream, fault.code)
            return
        self._step(
            stream,
            stream.session,
            Input.FAULT,
            code=fault.code,
            report=SessionTerminated(stream.stream_id, 0, fault.reason, clean=False, by="local", wire_code=fault.code),
        )
        if not self.is_client:
            self._count_refused()

    def _refuse(self, stream: RequestStream, code: int) -> None:
        """Reset and stop a request stream without a session."""
        self._outputs += (Reset(stream.stream_id, int(code)), Stop(stream.stream_id, int(code)))
        self._free(stream)
        self._count_refused()

    def _free(self, stream: RequestStream) -> None:
        stream.is_over = True
        self._buffered -= stream.counted
        del self._requests[stream.stream_id]
        self._forget(stream.stream_id)

    def _forget(self, stream_id: int) -> None:
        """Let the driver forget a stream; remember for a while that its input means nothing any more."""
        self._outputs.append(FreeStream(stream_id))
        if self._remembered is None:
            self._remembered = {}
        self._remembered[stream_id] = None
        if len(self._remembered) > _MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    # -- session requests (server)

    def _request(self, stream: RequestStream, request: messages.Request) -> None:
        stream.phase = "body"
        stream.method = request.method
        if not request.protocol:
            stream.announced_body = request.content_length
            self._events.append(
                RequestReceived(
                    stream.stream_id,
                    request.method,
                    request.path,
                    request.headers,
                    scheme=request.scheme,
                    authority=request.authority,
                )
            )
            return
        if request.protocol not in TOKENS:
            self.reject(stream.stream_id, 501)  # RFC 9220, section 3
            self._count_refused()
            return
        if request.scheme.lower() != "https":
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "WebTransport needs the scheme https")  # section 3.2
        stream.request = request
        session = self._begin_session(stream, State.PARKED)
        if self._peer_settings is not None:
            self._admit(stream, session, request)
        elif self.parked > self.limits.max_parked_requests:
            raise StreamFault(ErrorCodes.H3_REQUEST_REJECTED, "too many requests before SETTINGS")

    def _admit(self, stream: RequestStream, session: Session, request: messages.Request) -> None:
        """Let a session request go to the application, now that the client's settings are known."""
        if self._problem is not None:
            # Section 3.1: with settings that do not allow it, the request is malformed.
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, self._problem)
        dialect = self._dialect or dialect_of_request(request.protocol, request.headers)
        if dialect is None or dialect not in self._dialects or (self.strict and request.protocol != dialect.row.token):
            self._step(stream, session, Input.SETTINGS)
            self.reject(stream.stream_id, 501)  # RFC 9220, section 3
            self._count_refused()
            return
        row = dialect.row
        if self.sessions >= self._session_limit(row):
            raise StreamFault(ErrorCodes.H3_REQUEST_REJECTED, "no more sessions on this connection")
        self._dialect = dialect
        offers: list[str] = []
        for names in row.protocol_fields:
            if offers := messages.values_of(request.headers, names.offer):
                session.protocol_fields = names
                break
        # Section 3.3: a malformed list counts as none.
        session.offered = tuple(parse_string_list(offers, tokens=row.tokens_as_protocols) or ())
        session.announced = True
        self._step(stream, session, Input.SETTINGS)
        origins = messages.values_of(request.headers, "origin")
        self._events.append(
            SessionRequested(
                stream.stream_id,
                request.method,
                request.scheme,
                request.authority,
                request.path,
                request.protocol,
                request.headers,
                origins[0] if origins else None,
                session.offered,
                dialect,
            )
        )

    def _pending(self, stream_id: int, event: Input) -> tuple[RequestStream, Session]:
        """Find a session that waits for the application's decision."""
        stream, session = self._find(stream_id)
        if stream is None or session is None:
            raise SessionStateError(f"{event.value} is impossible: stream {stream_id} has no session", "finished")
        if session.state is not State.REQUESTED:
            session.step(event)  # raises
        return stream, session

    def _replay(self, stream: RequestStream, session: Session) -> None:
        """Act on what a client sent before its session was accepted."""
        held, stream.held = stream.held, None
        try:
            for capsule_type, value in held or ():
                self._capsule(stream, session, capsule_type, value)
            if stream.held_end:
                self._end_request(stream)
        except StreamFault as fault:
            self._stream_fault(stream, fault)

    # -- responses (client)

    def _check_may_connect(self, stream_id: int) -> DialectRow:
        """Raise unless a session can be requested now; return the row of the dialect."""
        if not self.is_client or stream_id % 4 or stream_id in self._requests or self._is_remembered(stream_id):
            raise ValueError(f"stream {stream_id} is no fresh bidirectional stream of a client")
        if self._closed:
            raise SessionStateError("the connection is closed", "closed")
        if self._peer_settings is None:
            # Draft 16, section 3.1.
            raise SessionStateError("the server's SETTINGS have not arrived", "connecting")
        if self._problem is not None or self._dialect is None:
            raise SessionStateError(f"no WebTransport with this server: {self._problem}", "unfit")
        if self._goaway_received is not None:
            raise SessionStateError("the server is going away; connect anew", "draining")
        row = self._dialect.row
        limit = self._session_limit(row)
        if self.sessions >= limit:
            raise SessionStateError(f"this connection carries {limit} session(s) at most", "full")
        return row

    def _response(self, stream: RequestStream, session: Session, fields: Headers) -> None:
        status, headers = messages.read_response(fields)
        if status < 200:
            stream.interim += 1
            if stream.interim > self.limits.max_informational:
                raise StreamFault(ErrorCodes.H3_EXCESSIVE_LOAD, "too many interim responses")
            return
        stream.phase = "body"
        if status >= 300:
            self._events.append(SessionRejected(stream.stream_id, status, headers))
            self._step(stream, session, Input.REFUSAL, code=ErrorCodes.H3_REQUEST_CANCELLED)
            return
        protocol = self._choice(stream, headers)
        self._step(stream, session, Input.SUCCESS)
        self._events.append(SessionAccepted(stream.stream_id, status, headers, protocol))
        if session.stop_code is not None:
            # A server that closes at once may say so in the packet of its answer, where STOP_SENDING comes first; its
            # code and reason follow.
            self._step(stream, session, Input.STOP, code=session.stop_code)

    def _choice(self, stream: RequestStream, headers: Headers) -> str | None:
        """Return the subprotocol that the server chose (draft 16, section 3.3)."""
        assert self._dialect is not None  # or the request would not have been sent
        row = self._dialect.row
        values: list[str] = []
        for names in row.protocol_fields:
            if values := messages.values_of(headers, names.choice):
                break
        # Anything but one string counts as absent; what was not asked for is not looked at.
        choice = parse_string_item(values[0], tokens=row.tokens_as_protocols) if len(values) == 1 else None
        if choice is not None and choice not in stream.protocols:
            if row.protocol_mismatch_closes:
                raise StreamFault(ErrorCodes.WT_ALPN_ERROR, f"the server chose {choice!r}, which was not offered")
            choice = None
        if choice is None and stream.require_protocol:
            raise StreamFault(ErrorCodes.WT_ALPN_ERROR, "the server chose no subprotocol")
        return choice

    # -- capsules

    def _classify_capsule(self, stream: RequestStream, capsule_type: int, length: int) -> Handling:
        if stream.saw_close:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "data after WT_CLOSE_SESSION")
        # Before the client's SETTINGS it is not known whether flow control is on: its capsules are held.
        flow_control = self._flow_control if self._peer_settings is not None else self._may_control_flow
        handling = classify_capsule(capsule_type, length, flow_control=flow_control)
        if handling is Handling.SKIP:
            self._count_idle()
        return handling

    def _capsule(self, stream: RequestStream, session: Session, capsule_type: int, value: bytes) -> None:
        if capsule_type == CapsuleType.WT_CLOSE_SESSION:
            stream.saw_close = True
        if session.state in (State.PARKED, State.REQUESTED):
            if stream.held is None:
                stream.held = []
            if len(stream.held) >= self.limits.max_held_capsules:
                raise StreamFault(ErrorCodes.H3_EXCESSIVE_LOAD, "too many capsules before the session is accepted")
            stream.held.append((capsule_type, value))
        elif capsule_type == CapsuleType.WT_CLOSE_SESSION:
            code, reason = decode_close(value)
            self._step(
                stream,
                session,
                Input.CLOSE_CAPSULE,
                report=SessionTerminated(stream.stream_id, code, reason, clean=True, by="peer", wire_code=None),
            )
        elif capsule_type == CapsuleType.WT_DRAIN_SESSION:
            if session.is_draining:
                self._count_idle()
            self._drain(stream.stream_id, session)
        elif capsule_type in FLOW_CONTROL_CAPSULES and self._flow_control:
            # A limit that grows by one each time costs as much as one that does not grow.
            self._count_idle()
            number = decode_limit(capsule_type, value)
            self._check_limit(session, capsule_type, number)
            self._events.append(CapsuleReceived(stream.stream_id, capsule_type, number))

    def _check_limit(self, session: Session, capsule_type: int, limit: int) -> None:
        """Refuse a limit that does not grow (draft 16, sections 5.6.2 and 5.6.4)."""
        place = _LIMIT_CAPSULES.get(capsule_type)
        if place is None:
            return
        last = (session.limits or {}).get(capsule_type, self.peer_initial_limits[place])
        must_grow = self._dialect is not None and self._dialect.row.equal_limit_is_error
        if limit < last or (must_grow and limit == last):
            raise StreamFault(
                ErrorCodes.WT_FLOW_CONTROL_ERROR,
                f"{CapsuleType(capsule_type).name} goes from {last} to {limit}; limits only grow",
            )
        session.limits = {**(session.limits or {}), capsule_type: limit}

    def _drain(self, stream_id: int, session: Session) -> None:
        if not session.is_draining:
            session.is_draining = True
            self._events.append(SessionDraining(stream_id))

    # -- session steps

    def _session_limit(self, row: DialectRow) -> int:
        """Return how many sessions this connection may carry at once (draft 16, section 5.1)."""
        if row.one_session_without_flow_control and not self._flow_control:
            return min(self._max_sessions, 1)
        if row.session_setting is None:
            return self._max_sessions
        server = self._peer_settings if self.is_client else self._announced.values
        return min(self._max_sessions, (server or {}).get(row.session_setting, 1))

    def _find(self, stream_id: int) -> tuple[RequestStream | None, Session | None]:
        stream = self._requests.get(stream_id)
        return stream, stream.session if stream else None

    def _begin_session(self, stream: RequestStream, state: State) -> Session:
        session = Session(state)
        session.announced = self.is_client
        stream.session = session
        self._count_state(state, 1)
        return session

    def _step(
        self,
        stream: RequestStream,
        session: Session,
        event: Input,
        *,
        payload: bytes = b"",
        code: int = ErrorCodes.H3_NO_ERROR,
        report: SessionTerminated | None = None,
    ) -> None:
        """Move a session on and do what the table says.

        ``payload`` is for SEND and FINISH, ``code`` for RESET and STOP, ``report`` for REPORT.
        """
        stream_id = stream.stream_id
        before = session.state
        effects = session.step(event)
        if session.state is not before:
            self._count_state(before, -1)
            self._count_state(session.state, 1)
        for effect in effects:
            match effect:
                case Effect.SEND:
                    self._send(stream_id, payload)
                case Effect.FINISH:
                    if session.can_send:
                        session.can_send = False
                        self._send(stream_id, payload, end=True)
                case Effect.RESET:
                    # Also after the end was sent: what is still on its way need not arrive any more.
                    if not session.was_reset:
                        session.can_send = False
                        session.was_reset = True
                        self._outputs.append(Reset(stream_id, int(code)))
                case Effect.STOP:
                    self._outputs.append(Stop(stream_id, int(code)))
                case Effect.REPORT:
                    if report is not None:
                        self._events.append(report)
                case Effect.REPORT_STOP:
                    self._events.append(SessionStopping(stream_id, int(code)))
                case Effect.FREE:
                    self._free(stream)
                    if session.announced:
                        self._events.append(SessionFinished(stream_id))
        if session.state is State.CLOSING:
            stream.is_discarding = True

    def _count_state(self, state: State, change: int) -> None:
        if state in LIVE:
            self._live += change
        elif state is State.PARKED:
            self._parked += change

    # -- results

    def _emit(self, output: Output) -> None:
        self._outputs.append(output)

    def _send(self, stream: int | Role, data: bytes, end: bool = False) -> None:
        self._outputs.append(Send(stream, data, end))

    def _check_size(self, fields: Headers) -> None:
        """Raise ValueError for a header section that is larger than the peer takes (RFC 9114, section 4.2.2)."""
        limit = (self._peer_settings or {}).get(Setting.MAX_FIELD_SECTION_SIZE)
        size = qpack.field_section_size(fields)
        if limit is not None and size > limit:
            raise ValueError(f"headers of {size} bytes exceed the peer's limit of {limit}")

    def take_outputs(self) -> list[Output]:
        """Return the outputs queued since the last call, oldest first."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_events(self) -> list[Event]:
        """Return the events queued since the last call, oldest first."""
        events, self._events = self._events, []
        return events


def _headers_frame(fields: Headers) -> bytes:
    return encode_record(FrameType.HEADERS, qpack.encode_field_section(fields))


def _check_protocols(protocols: Sequence[str]) -> None:
    """Raise ValueError for subprotocols that cannot be offered (W3C WebTransport, constructor)."""
    for protocol in protocols:
        if not 1 <= len(protocol) <= 512:
            raise ValueError(f"protocol of {len(protocol)} characters; 1 to 512 are possible")
    if len(set(protocols)) != len(protocols):
        raise ValueError(f"protocols {list(protocols)!r} name one twice")
