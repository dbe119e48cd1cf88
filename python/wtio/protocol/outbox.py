"""Outputs for the driver, events for the application, and the ``Outbox`` of a connection that collects both.

Outputs are instructions that the driver carries out in their order. Events are facts. All are immutable. Each part of a
connection writes to the connection's one ``Outbox``; the outbox does not know who does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from wtio.protocol.dialects import Dialect
from wtio.protocol.messages import Fields

__all__ = [
    "MOST_FREED",
    "BodyEnded",
    "BodyReceived",
    "CapsuleReceived",
    "CloseConnection",
    "ConnectionFailed",
    "Event",
    "FreeStream",
    "GoawayReceived",
    "Outbox",
    "Output",
    "RequestReceived",
    "RequestRefused",
    "RequestTerminated",
    "Reset",
    "Role",
    "Send",
    "SessionAccepted",
    "SessionDraining",
    "SessionFinished",
    "SessionRejected",
    "SessionRequested",
    "SessionStopping",
    "SessionTerminated",
    "SettingsReceived",
    "Stop",
]

MOST_FREED: Final = 512
"""Freed streams that a connection remembers, so that late data on them is not taken for a new request."""


class Role(Enum):
    """Our unidirectional stream. The driver opens it when a ``Send`` names it for the first time."""

    CONTROL = "control"


# -- outputs


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``data`` on a stream, and end the stream if ``end``. ``data`` is empty only with ``end``."""

    stream: int | Role
    data: bytes
    end: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """Abandon our direction of a request stream: RESET_STREAM with ``code`` (a wire code)."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the peer to send no more on a stream: STOP_SENDING with ``code`` (a wire code)."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close the QUIC connection with an application error. Queued once, as the last output."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class FreeStream:
    """Forget a stream: nothing more will be sent on it, and whatever arrives on it is ignored.

    Data that was sent before still has to be delivered.
    """

    stream_id: int


Output: TypeAlias = Send | Reset | Stop | CloseConnection | FreeStream


# -- events


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer's SETTINGS arrived. Reported once. From now on a client can send its CONNECT.

    Attributes:
        settings: All settings of the peer, unknown ones included.
        dialect: The newest dialect that both sides announced. ``None`` if there is none; a server then learns the
            dialect from the first request.
        problem: Why WebTransport is impossible with this peer, or ``None``. A client should close with
            WT_REQUIREMENTS_NOT_MET. A server need not do anything: the peer's requests are refused here.
    """

    settings: Mapping[int, int]
    dialect: Dialect | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class SessionRequested:
    """Server: a client asks for a session. Answer with ``accept`` or ``reject``.

    Attributes:
        stream_id: The CONNECT stream. Its ID is the session ID.
        method: Always ``"CONNECT"``.
        scheme: Always ``"https"``.
        authority: Host and port as the client wrote them.
        path: Path with query.
        protocol_token: The ``:protocol`` pseudo-header: ``"webtransport"`` or ``"webtransport-h3"``.
        headers: All other header fields.
        origin: Value of the Origin header, or ``None``.
        protocols: Subprotocols that the client offers, most wanted first. Empty if it offers none or the header is
            malformed.
        dialect: The dialect of this session.
    """

    stream_id: int
    method: str
    scheme: str
    authority: str
    path: str
    protocol_token: str
    headers: Fields
    origin: str | None
    protocols: tuple[str, ...]
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """Server: an ordinary HTTP/3 request. Answer with ``reject``, or with ``H3Connection.exchanges``.

    Its body follows as the driver hands it in, and then ``BodyEnded``; or ``RequestTerminated`` at any time.

    Attributes:
        stream_id: The request stream.
        method: Such as ``"GET"``; ``"CONNECT"`` for one without ``:protocol``.
        path: Path with query; empty for CONNECT.
        headers: All header fields but the pseudo-headers.
        scheme: Such as ``"https"``; empty for CONNECT.
        authority: Host and port, from ``:authority`` or else Host.
        content_length: Length of the body in bytes, or ``None`` if the client does not announce it.
    """

    stream_id: int
    method: str
    path: str
    headers: Fields
    scheme: str
    authority: str
    content_length: int | None


@dataclass(frozen=True, slots=True)
class BodyReceived:
    """Server: a piece of an ordinary request's body."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class BodyEnded:
    """Server: an ordinary request is complete. If it had trailers, they were checked and dropped."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class RequestTerminated:
    """Server: an ordinary request is over before its answer was complete. This is the last event of the request.

    The client has taken it back, or its body breaks a rule. Nothing more can be sent.

    Attributes:
        stream_id: The request stream.
        reason: What happened, in words.
    """

    stream_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """Server: a request was answered here, before anybody else saw it, with a status that refuses it.

    Attributes:
        stream_id: The request stream.
        status: 408 (its header section did not come in time), 431 (it is too large) or 501 (``:protocol`` is unknown).
    """

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class SessionAccepted:
    """Client: the server answered with a 2xx status.

    Attributes:
        stream_id: The session.
        status: 200 to 299.
        headers: Header fields of the answer, ``wt-protocol`` included.
        protocol: The subprotocol that the server chose among those offered, or ``None``.
    """

    stream_id: int
    status: int
    headers: Fields
    protocol: str | None


@dataclass(frozen=True, slots=True)
class SessionRejected:
    """Client: the server answered with a status other than 2xx. Redirects are not followed."""

    stream_id: int
    status: int
    headers: Fields


@dataclass(frozen=True, slots=True)
class SessionTerminated:
    """The peer ended a session, or broke a rule so that we did. Reported at most once per session.

    Not reported after ``close_session``, ``abort_session``, ``reject`` or ``SessionRejected``, nor when the whole
    connection ends. On a client the session may still be waiting for its answer.

    Attributes:
        stream_id: The session.
        code: Application close code. 0 if the stream ended without a capsule or ``clean`` is false.
        reason: The peer's reason; if ``clean`` is false, a description of what was wrong.
        clean: True after WT_CLOSE_SESSION or the end of the CONNECT stream, false after a reset or an error.
        by: ``"peer"``, or ``"local"`` if we ended the session because the peer broke a rule.
        wire_code: The HTTP/3 code of the reset, the peer's or ours. ``None`` if ``clean``.
    """

    stream_id: int
    code: int
    reason: str
    clean: bool
    by: Literal["peer", "local"]
    wire_code: int | None


@dataclass(frozen=True, slots=True)
class SessionStopping:
    """The peer sent STOP_SENDING on the CONNECT stream. It is ending the session, and nothing can be sent any more.

    Its close code and reason, or its reset, are probably on their way. ``SessionTerminated`` reports them. In case the
    peer sends nothing else, the driver should bound the wait and then call ``abort_session``.
    """

    stream_id: int
    wire_code: int


@dataclass(frozen=True, slots=True)
class SessionFinished:
    """Both directions of a CONNECT stream have ended. This is the last event of a session.

    Reported once for each session that we requested or that ``SessionRequested`` announced, unless the whole connection
    ends first.
    """

    stream_id: int


@dataclass(frozen=True, slots=True)
class SessionDraining:
    """The peer asks to wind the session down, by WT_DRAIN_SESSION or GOAWAY. Reported at most once per session."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class GoawayReceived:
    """The peer takes no new requests; a server takes none from stream ``id`` on. May be reported several times."""

    id: int


@dataclass(frozen=True, slots=True)
class CapsuleReceived:
    """A valid capsule of session flow control. Reported only if session flow control is on.

    Attributes:
        stream_id: The session.
        type: Capsule type: one of the flow-control types in ``wtio.protocol.capsules.CapsuleType``.
        value: The limit that the capsule carries: bytes or a number of streams.
    """

    stream_id: int
    type: int
    value: int


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The peer broke a rule of the connection. ``CloseConnection`` with the same facts is among the outputs."""

    code: int
    reason: str


Event: TypeAlias = (
    SettingsReceived
    | SessionRequested
    | RequestReceived
    | BodyReceived
    | BodyEnded
    | RequestTerminated
    | RequestRefused
    | SessionAccepted
    | SessionRejected
    | SessionTerminated
    | SessionStopping
    | SessionFinished
    | SessionDraining
    | GoawayReceived
    | CapsuleReceived
    | ConnectionFailed
)


class Outbox:
    """The outputs and events of one connection, in order, until the driver takes them."""

    __slots__ = ("_freed", "events", "outputs")

    def __init__(self) -> None:
        # The driver takes both after every call of the connection, so each holds the results of one call. None if there
        # are none, because most connections are idle.
        self.outputs: list[Output] | None = None
        self.events: list[Event] | None = None
        # The latest freed streams, oldest first, at most MOST_FREED. None until the first one is freed.
        self._freed: dict[int, None] | None = None

    def send(self, stream: int | Role, data: bytes, end: bool = False) -> None:
        """Queue bytes of a stream; ``end`` marks the last ones."""
        self._add(Send(stream, data, end))

    def reset(self, stream_id: int, code: int) -> None:
        """Queue RESET_STREAM with a wire code."""
        self._add(Reset(stream_id, int(code)))

    def stop(self, stream_id: int, code: int) -> None:
        """Queue STOP_SENDING with a wire code."""
        self._add(Stop(stream_id, int(code)))

    def free(self, stream_id: int) -> None:
        """Queue FreeStream, and remember the stream so that late input on it is ignored."""
        self._add(FreeStream(stream_id))
        if self._freed is None:
            self._freed = {}
        self._freed[stream_id] = None
        if len(self._freed) > MOST_FREED:
            del self._freed[next(iter(self._freed))]

    def is_freed(self, stream_id: int) -> bool:
        """Whether a stream was freed lately."""
        return self._freed is not None and stream_id in self._freed

    def close(self, code: int, reason: str) -> None:
        """Queue the end of the connection: CloseConnection and ConnectionFailed."""
        self._add(CloseConnection(int(code), reason))
        self.report(ConnectionFailed(int(code), reason))

    def report(self, event: Event) -> None:
        """Queue an event."""
        if self.events is None:
            self.events = [event]
        else:
            self.events.append(event)

    def _add(self, output: Output) -> None:
        if self.outputs is None:
            self.outputs = [output]
        else:
            self.outputs.append(output)

    def take_outputs(self) -> list[Output]:
        """Return the outputs queued since the last call, oldest first."""
        outputs, self.outputs = self.outputs, None
        return outputs or []

    def take_events(self) -> list[Event]:
        """Return the events queued since the last call, oldest first."""
        events, self.events = self.events, None
        return events or []
