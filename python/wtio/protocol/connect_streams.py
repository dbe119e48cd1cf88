"""The sessions of one connection: how they begin, what their capsules say, and how they end.

``session`` has the table: what may happen to a session, and the effects. ``ConnectStreams`` carries the effects out. It
is called by ``connection`` for all that applications and peers do, and never decides about the connection itself.
"""

from functools import partial
from typing import Final

from wtio.protocol import messages
from wtio.protocol.capsules import (
    FLOW_CONTROL_CAPSULES,
    CapsuleType,
    classify_capsule,
    decode_close,
    decode_limit,
)
from wtio.protocol.codes import ErrorCodes, describe
from wtio.protocol.dialects import TOKENS, DialectRow, dialect_of_request
from wtio.protocol.faults import ConnectionFault, SessionStateError, StreamFault
from wtio.protocol.frames import FrameType, Handling, RecordReader, encode_record
from wtio.protocol.handshake import headers_frame, read_choice, read_offer, rejection
from wtio.protocol.limits import Allowance, ProtocolLimits
from wtio.protocol.messages import Fields
from wtio.protocol.outbox import (
    CapsuleReceived,
    GoawayReceived,
    Outbox,
    RequestRefused,
    SessionAccepted,
    SessionDraining,
    SessionFinished,
    SessionRejected,
    SessionRequested,
    SessionStopping,
    SessionTerminated,
)
from wtio.protocol.request import Requests, RequestStream
from wtio.protocol.session import LIVE, Effect, Input, Session, State
from wtio.protocol.settings import Terms

__all__ = ["ConnectStreams"]

# States in which a server has not answered yet. A client that gives up here has cost us work for nothing.
_UNANSWERED: Final = frozenset((State.PARKED, State.REQUESTED))
# The flow-control capsules that carry limits, and the index of each initial value in ``Terms.initial_limits``.
_LIMIT_CAPSULES: Final[dict[int, int]] = {
    CapsuleType.WT_MAX_DATA: 0,
    CapsuleType.WT_MAX_STREAMS_BIDI: 1,
    CapsuleType.WT_MAX_STREAMS_UNI: 2,
}


class ConnectStreams:
    """The sessions of one connection by their CONNECT streams."""

    __slots__ = ("_allowance", "_limits", "_outbox", "_requests", "_terms", "goaway", "live", "parked")

    def __init__(
        self, limits: ProtocolLimits, terms: Terms, allowance: Allowance, outbox: Outbox, requests: Requests
    ) -> None:
        self._limits = limits
        # Shared with the rest of the connection: what was agreed, what the peer may still repeat, where outputs go, and
        # all request streams.
        self._terms = terms
        self._allowance = allowance
        self._outbox = outbox
        self._requests = requests
        self.live: int = 0  # sessions that count against the limit: waiting for an answer or open
        self.parked: int = 0  # requests that wait for the client's SETTINGS
        self.goaway: int | None = None  # identifier in the peer's last GOAWAY; from then on it takes no requests

    def clear(self) -> None:
        """Count no sessions any more, because the connection is over."""
        self.live = self.parked = 0

    # -- requests (server)

    def take_request(self, stream: RequestStream, request: messages.Request) -> None:
        """Take an extended CONNECT. If it asks for a session, it waits until the client's settings are known.

        Raises:
            StreamFault: The request is refused.
        """
        if request.protocol not in TOKENS:
            self._requests.answer(stream, headers_frame(rejection(501)))  # RFC 9220, section 3
            self._outbox.report(RequestRefused(stream.stream_id, 501))
            self._allowance.count_refused()
            return
        if request.scheme.lower() != "https":
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "WebTransport needs the scheme https")  # section 3.2
        session = self._begin(stream, State.PARKED)
        session.request = request
        if self._terms.theirs is not None:
            self._admit(stream, session, request)
        elif self.parked > self._limits.max_parked_requests:
            raise StreamFault(ErrorCodes.H3_REQUEST_REJECTED, "too many requests before SETTINGS")

    def admit_parked(self) -> None:
        """Continue with the requests that were waiting for the client's settings."""
        for stream in self._requests:
            session = stream.session
            if session and session.state is State.PARKED and session.request is not None:
                try:
                    self._admit(stream, session, session.request)
                except StreamFault as fault:
                    self.fail(stream, session, fault)

    def expire_parked(self) -> int:
        """Refuse the requests that still wait for the client's settings; return their number."""
        if not self.parked:
            return 0
        before = self.parked
        for stream in self._requests:
            session = stream.session
            if session and session.state is State.PARKED:
                self._step(stream, session, Input.ABORT, code=ErrorCodes.H3_REQUEST_REJECTED)
        return before

    def _admit(self, stream: RequestStream, session: Session, request: messages.Request) -> None:
        """Report a request to the application, or refuse it, now that the client's settings are known."""
        terms = self._terms
        if terms.problem is not None:
            # Section 3.1: with settings that do not allow it, the request is malformed.
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, terms.problem)
        dialect = terms.dialect or dialect_of_request(request.protocol, request.headers)
        if dialect is None or not terms.allows_request(dialect, request.protocol):
            self._step(stream, session, Input.SETTINGS)
            self.reject(stream, session, headers_frame(rejection(501)))  # RFC 9220, section 3
            self._outbox.report(RequestRefused(stream.stream_id, 501))
            self._allowance.count_refused()
            return
        if self.live >= terms.session_limit(dialect.row):
            raise StreamFault(ErrorCodes.H3_REQUEST_REJECTED, "no more sessions on this connection")
        terms.dialect = dialect
        session.offered, session.protocol_fields = read_offer(dialect.row, request.headers)
        session.announced = True
        self._step(stream, session, Input.SETTINGS)
        origins = messages.values_of(request.headers, "origin")
        self._outbox.report(
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

    def pending(self, stream_id: int, event: Input) -> tuple[RequestStream, Session]:
        """Find a session that waits for the application's answer, which is ``event``.

        Raises:
            SessionStateError: There is no such session.
        """
        found = self._requests.session(stream_id)
        if found is None:
            raise SessionStateError(f"{event.value} is impossible: stream {stream_id} has no session", "finished")
        _, session = found
        if session.state is not State.REQUESTED:
            session.step(event)  # raises
        return found

    def accept(self, stream: RequestStream, session: Session, payload: bytes) -> None:
        """Send an answer that opens a session, then act on the capsules that the client sent ahead."""
        session.request = None
        self._step(stream, session, Input.ACCEPT, payload=payload)
        held, session.held = session.held, None
        try:
            for capsule_type, value in held or ():
                self._take_capsule(stream, session, capsule_type, value)
            if stream.has_ended:
                self.end(stream, session)
        except StreamFault as fault:
            self.fail(stream, session, fault)

    def reject(self, stream: RequestStream, session: Session, payload: bytes) -> None:
        """Send an answer that refuses a session, and end the stream."""
        self._step(stream, session, Input.REJECT, payload=payload)
        if stream.has_ended:
            self._step(stream, session, Input.END)

    # -- requests (client)

    def check_may_connect(self) -> DialectRow:
        """Return the row of the connection's dialect, if a session may be requested now.

        Raises:
            SessionStateError: No session may be requested.
        """
        terms = self._terms
        if terms.theirs is None:
            # Draft 16, section 3.1.
            raise SessionStateError("the server's SETTINGS have not arrived", "connecting")
        if terms.problem is not None or terms.dialect is None:
            raise SessionStateError(f"no WebTransport with this server: {terms.problem}", "unfit")
        if self.goaway is not None:
            raise SessionStateError("the server is going away; connect anew", "draining")
        row = terms.dialect.row
        limit = terms.session_limit(row)
        if self.live >= limit:
            raise SessionStateError(f"this connection carries {limit} session(s) at most", "full")
        return row

    def connect(self, stream: RequestStream, payload: bytes, offered: tuple[str, ...]) -> None:
        """Send a request for a session; ``offered`` are the subprotocols that it offers."""
        stream.method = "CONNECT"
        session = self._begin(stream, State.CONNECTING)
        session.offered = offered
        session.announced = True
        self._outbox.send(stream.stream_id, payload)

    def take_response(self, stream: RequestStream, session: Session, fields: Fields) -> None:
        """Take a response to our request, interim or final.

        Raises:
            StreamFault: It is malformed, one interim response too many, or chooses a subprotocol that we did not offer.
        """
        status, headers = messages.read_response(fields)
        if status < 200:
            session.interim += 1
            if session.interim > self._limits.max_informational:
                raise StreamFault(ErrorCodes.H3_EXCESSIVE_LOAD, "too many interim responses")
            return
        stream_id = stream.stream_id
        stream.begin_body()
        if status >= 300:
            self._outbox.report(SessionRejected(stream_id, status, headers))
            self._step(stream, session, Input.REFUSAL, code=ErrorCodes.H3_REQUEST_CANCELLED)
            return
        assert self._terms.dialect is not None  # or no request would have been sent
        protocol = read_choice(self._terms.dialect.row, session.offered, headers)
        self._step(stream, session, Input.SUCCESS)
        self._outbox.report(SessionAccepted(stream_id, status, headers, protocol))
        if session.stop_code is not None:
            # A server that closes at once may do so in the packet of its answer. QUIC puts STOP_SENDING first; close
            # code and reason follow.
            self._step(stream, session, Input.STOP, code=session.stop_code)

    # -- what the application does

    def close(self, stream: RequestStream, session: Session, capsule: bytes) -> None:
        """Send ``capsule`` (WT_CLOSE_SESSION) and end the stream; cancel a session that is not open yet."""
        payload = encode_record(FrameType.DATA, capsule) if session.state is State.OPEN else b""
        self._step(stream, session, Input.CLOSE, payload=payload, code=ErrorCodes.H3_REQUEST_CANCELLED)

    def abort(self, stream: RequestStream, session: Session, wire_code: int) -> None:
        """Reset and stop the stream."""
        self._step(stream, session, Input.ABORT, code=wire_code)

    def send_capsule(self, stream: RequestStream, session: Session, capsule: bytes) -> None:
        """Send a capsule, if the session is open."""
        if session.state is State.OPEN:
            self._outbox.send(stream.stream_id, encode_record(FrameType.DATA, capsule))

    # -- what the peer does

    def take_body(self, stream: RequestStream, session: Session, data: bytes) -> None:
        """Take a piece of the stream of capsules.

        Raises:
            StreamFault: A capsule is malformed, or follows WT_CLOSE_SESSION.
        """
        if session.saw_close:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "data after WT_CLOSE_SESSION")
        if session.capsules is None:
            session.capsules = RecordReader()
        for capsule_type, value in session.capsules.feed(data, partial(self._classify, session)):
            stream.is_barren = False
            self._take_capsule(stream, session, capsule_type, value)
        # An incomplete frame after the capsule is wrong already. Its rest may arrive after our answer has left.
        if session.saw_close and not (session.capsules.at_boundary and stream.at_boundary):
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "data after WT_CLOSE_SESSION")

    def _classify(self, session: Session, capsule_type: int, length: int) -> Handling:
        if session.saw_close:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "data after WT_CLOSE_SESSION")
        # Before the client's SETTINGS we do not know whether flow control is on, so its capsules are held.
        terms = self._terms
        flow_control = terms.flow_control if terms.theirs is not None else terms.local.flow_control
        handling = classify_capsule(capsule_type, length, flow_control=flow_control)
        if handling is Handling.SKIP:
            self._allowance.count_idle()
        return handling

    def _take_capsule(self, stream: RequestStream, session: Session, capsule_type: int, value: bytes) -> None:
        stream_id = stream.stream_id
        if capsule_type == CapsuleType.WT_CLOSE_SESSION:
            session.saw_close = True
        if session.state in _UNANSWERED:
            if session.held is None:
                session.held = []
            if len(session.held) >= self._limits.max_held_capsules:
                raise StreamFault(ErrorCodes.H3_EXCESSIVE_LOAD, "too many capsules before the session is accepted")
            session.held.append((capsule_type, value))
        elif capsule_type == CapsuleType.WT_CLOSE_SESSION:
            code, reason = decode_close(value)
            report = SessionTerminated(stream_id, code, reason, clean=True, by="peer", wire_code=None)
            self._step(stream, session, Input.CLOSE_CAPSULE, report=report)
        elif capsule_type == CapsuleType.WT_DRAIN_SESSION:
            if session.is_draining:
                self._allowance.count_idle()
            self._drain(stream, session)
        elif capsule_type in FLOW_CONTROL_CAPSULES and self._terms.flow_control:
            # Growing limits count as well: a peer could raise one by 1 each time.
            self._allowance.count_idle()
            limit = decode_limit(capsule_type, value)
            place = _LIMIT_CAPSULES.get(capsule_type)
            if place is not None:
                dialect = self._terms.dialect
                must_grow = dialect is not None and dialect.row.equal_limit_is_error
                session.raise_limit(capsule_type, limit, self._terms.initial_limits[place], must_grow=must_grow)
            self._outbox.report(CapsuleReceived(stream_id, capsule_type, limit))

    def end(self, stream: RequestStream, session: Session) -> None:
        """Take the end of the peer's side of the stream.

        Raises:
            StreamFault: The stream ended inside a capsule.
        """
        if session.capsules and not session.capsules.at_boundary:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "stream ends inside a capsule")  # RFC 9297, section 3.3
        if session.state in _UNANSWERED:
            stream.has_ended = True
            return
        stream_id = stream.stream_id
        report = SessionTerminated(stream_id, 0, "", clean=True, by="peer", wire_code=None)
        self._step(stream, session, Input.END, report=report)

    def discard(self, stream: RequestStream, session: Session, size: int, end: bool) -> None:
        """Count what arrives after we have ended the session. After ``max_discard`` bytes, STOP_SENDING is sent."""
        if end:
            self._step(stream, session, Input.END)
            return
        stream.discarded += size
        if stream.discarded > self._limits.max_discard:
            self._step(stream, session, Input.FAULT, code=ErrorCodes.H3_NO_ERROR)

    def take_reset(self, stream: RequestStream, session: Session, code: int) -> None:
        """Take the peer's RESET_STREAM."""
        reason = f"the peer reset the CONNECT stream with {describe(code)}"
        report = SessionTerminated(stream.stream_id, 0, reason, clean=False, by="peer", wire_code=code)
        is_unanswered = session.state in _UNANSWERED
        self._step(stream, session, Input.RESET, code=ErrorCodes.H3_REQUEST_CANCELLED, report=report)
        if is_unanswered:
            self._allowance.count_refused()

    def take_stop(self, stream: RequestStream, session: Session, code: int) -> None:
        """Take the peer's STOP_SENDING."""
        session.stop_code = code
        reason = f"the peer stopped the CONNECT stream with {describe(code)}"
        report = SessionTerminated(stream.stream_id, 0, reason, clean=False, by="peer", wire_code=code)
        is_unanswered = session.state in _UNANSWERED
        self._step(stream, session, Input.STOP, code=code, report=report)
        if is_unanswered:
            self._allowance.count_refused()

    def fail(self, stream: RequestStream, session: Session, fault: StreamFault) -> None:
        """End a session because the peer broke a rule."""
        stream_id = stream.stream_id
        report = SessionTerminated(stream_id, 0, fault.reason, clean=False, by="local", wire_code=fault.code)
        self._step(stream, session, Input.FAULT, code=fault.code, report=report)
        if not self._terms.is_client:
            self._allowance.count_refused()

    def take_goaway(self, identifier: int) -> None:
        """Note that the peer takes no more requests (RFC 9114, section 5.2; draft 16, section 4.7).

        Raises:
            ConnectionFault: The identifier is an impossible one.
        """
        if self._terms.is_client and identifier % 4:
            raise ConnectionFault(ErrorCodes.H3_ID_ERROR, f"GOAWAY names {identifier}, which is no request stream")
        last, self.goaway = self.goaway, identifier
        if last is not None:
            if identifier > last:
                raise ConnectionFault(ErrorCodes.H3_ID_ERROR, f"GOAWAY grows from {last} to {identifier}")
            self._allowance.count_idle()
            if identifier == last:
                return
        self._outbox.report(GoawayReceived(identifier))
        for stream in self._requests:
            session = stream.session
            if session is None or session.state not in LIVE:
                continue
            stream_id = stream.stream_id
            if session.state is State.CONNECTING and stream_id >= identifier:
                # The server has not processed it and never will.
                report = SessionTerminated(
                    stream_id,
                    0,
                    "the server is going away and did not process the request",
                    clean=False,
                    by="peer",
                    wire_code=ErrorCodes.H3_REQUEST_REJECTED,
                )
                self._step(stream, session, Input.FAULT, code=ErrorCodes.H3_REQUEST_CANCELLED, report=report)
            else:
                self._drain(stream, session)

    def _drain(self, stream: RequestStream, session: Session) -> None:
        if not session.is_draining:
            session.is_draining = True
            self._outbox.report(SessionDraining(stream.stream_id))

    # -- steps

    def _begin(self, stream: RequestStream, state: State) -> Session:
        session = stream.session = Session(state)
        self._count(state, 1)
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
        """Move a session to its next state and carry out the effects.

        ``payload`` is for SEND and FINISH, ``code`` for RESET and STOP, ``report`` for REPORT.
        """
        stream_id = stream.stream_id
        outbox = self._outbox
        before = session.state
        effects = session.step(event)
        if session.state is not before:
            self._count(before, -1)
            self._count(session.state, 1)
        for effect in effects:
            match effect:
                case Effect.SEND:
                    outbox.send(stream_id, payload)
                case Effect.FINISH:
                    if session.can_send:
                        session.can_send = False
                        outbox.send(stream_id, payload, end=True)
                case Effect.RESET:
                    # Also after the end was sent: data that is still on its way is not needed any more.
                    if not session.was_reset:
                        session.can_send = False
                        session.was_reset = True
                        outbox.reset(stream_id, code)
                case Effect.STOP:
                    outbox.stop(stream_id, code)
                case Effect.REPORT:
                    if report is not None:
                        outbox.report(report)
                case Effect.REPORT_STOP:
                    outbox.report(SessionStopping(stream_id, int(code)))
                case Effect.FREE:
                    self._requests.free(stream)
                    if session.announced:
                        outbox.report(SessionFinished(stream_id))
        if session.state is State.CLOSING:
            stream.is_discarding = True

    def _count(self, state: State, change: int) -> None:
        if state in LIVE:
            self.live += change
        elif state is State.PARKED:
            self.parked += change
