"""What comes out of ``H3Connection``: outputs for the driver, events for the application, and the box they wait in.

Outputs are orders that must be carried out in their sequence; events are facts. All are immutable. Every part of the
protocol puts its own into the connection's ``Outbox``, which knows none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from wtio.protocol.dialects import Dialect
from wtio.protocol.messages import Fields

__all__ = [
    "MOST_FREED",
    "CapsuleReceived",
    "CloseConnection",
    "ConnectionFailed",
    "Event",
    "FreeStream",
    "GoawayReceived",
    "Outbox",
    "Output",
    "RequestReceived",
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
"""Freed streams that are remembered, so that what still arrives on them does not look like a new request."""


class Role(Enum):
    """The unidirectional stream of ours. The driver opens it when it is first named in a ``Send``."""

    CONTROL = "control"


# -- outputs


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``data`` on a stream, then, if ``end``, its end. ``data`` may be empty only with ``end``."""

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
    """Refuse what the peer may still send on a stream: STOP_SENDING with ``code`` (a wire code)."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close the QUIC connection with an application error. Comes once, and is the last output."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class FreeStream:
    """Nothing will be sent, and nothing that arrives matters any more: the driver may forget the stream.

    What was sent before still has to be delivered. What is handed in afterwards is ignored.
    """

    stream_id: int


Output: TypeAlias = Send | Reset | Stop | CloseConnection | FreeStream


# -- events


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer's SETTINGS arrived. Comes once; a client can send its CONNECT from now on.

    Attributes:
        settings: All settings of the peer, unknown ones included.
        dialect: The newest common dialect; ``None`` where there is none, which a server decides per request.
        problem: Why WebTransport is impossible with this peer, or ``None``. A client should close with
            WT_REQUIREMENTS_NOT_MET; a server needs to do nothing, as its requests are refused here.
    """

    settings: Mapping[int, int]
    dialect: Dialect | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class SessionRequested:
    """Server: a client asks for a session. Answer with ``accept`` or ``reject``.

    Attributes:
        stream_id: The CONNECT stream, which is the session's id.
        method: Always ``"CONNECT"``.
        scheme: Always ``"https"``.
        authority: Host and port as the client wrote them.
        path: Path with query.
        protocol_token: The ``:protocol`` pseudo-header: ``"webtransport"`` or ``"webtransport-h3"``.
        headers: All other header fields.
        origin: Value of the Origin header, or ``None``.
        protocols: Subprotocols that the client offers, in its order of preference; empty if there are none or
            the header is malformed.
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
    """Server: an ordinary HTTP/3 request. Answer with ``reject``; its body is discarded unseen.

    Attributes:
        stream_id: The request stream.
        method: Such as ``"GET"``; ``"CONNECT"`` for one without ``:protocol``.
        path: Path with query; empty for CONNECT.
        headers: All header fields but the pseudo-headers.
        scheme: Such as ``"https"``; empty for CONNECT.
        authority: Host and port, from ``:authority`` or else Host.
    """

    stream_id: int
    method: str
    path: str
    headers: Fields
    scheme: str
    authority: str


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
    """Client: the server answered with another status than 2xx. Redirects are not followed."""

    stream_id: int
    status: int
    headers: Fields


@dataclass(frozen=True, slots=True)
class SessionTerminated:
    """A session ended in a way that the application did not ask for; at most once per session.

    Does not come after ``close_session``, ``abort_session``, ``reject``, ``SessionRejected`` or when the whole
    connection ends. On a client it also ends a session that was never answered.

    Attributes:
        stream_id: The session.
        code: Application close code; 0 for a clean end without a capsule and where ``clean`` is false.
        reason: The peer's words, or a description of what was wrong where ``clean`` is false.
        clean: True after WT_CLOSE_SESSION or a clean end of the CONNECT stream, false after a reset or an error.
        by: ``"peer"``, or ``"local"`` where we ended it because the peer broke a rule.
        wire_code: The HTTP/3 code of the reset, the peer's or ours; ``None`` where ``clean``.
    """

    stream_id: int
    code: int
    reason: str
    clean: bool
    by: Literal["peer", "local"]
    wire_code: int | None


@dataclass(frozen=True, slots=True)
class SessionStopping:
    """The peer sent STOP_SENDING on the CONNECT stream: it is ending the session, nothing can be sent there.

    Its close code and reason, or its reset, are likely on their way, and ``SessionTerminated`` follows with them.
    A peer that leaves it at that should be given a bounded time and then ``abort_session``.
    """

    stream_id: int
    wire_code: int


@dataclass(frozen=True, slots=True)
class SessionFinished:
    """Both directions of a CONNECT stream are over; the last event of a session, after whatever ended it.

    Comes once per session that was requested by us or announced by ``SessionRequested``, unless the whole
    connection ended first.
    """

    stream_id: int


@dataclass(frozen=True, slots=True)
class SessionDraining:
    """The peer asks to wind the session down: WT_DRAIN_SESSION or GOAWAY. At most once per session."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class GoawayReceived:
    """The peer takes no new requests (for a client: none from stream ``id`` on). May come several times."""

    id: int


@dataclass(frozen=True, slots=True)
class CapsuleReceived:
    """A session flow-control capsule, checked against the rules for its value.

    Comes only while session flow control is on.

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
    """The peer broke a rule of the connection; ``CloseConnection`` with the same facts is among the outputs."""

    code: int
    reason: str


Event: TypeAlias = (
    SettingsReceived
    | SessionRequested
    | RequestReceived
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
    """Outputs and events of one connection, each in their order, until they are taken."""

    __slots__ = ("_events", "_freed", "_outputs")

    def __init__(self) -> None:
        # Both are taken after every call of the connection, so they hold what one call has to say.
        self._outputs: list[Output] = []
        self._events: list[Event] = []
        # The streams freed last, oldest first, at most MOST_FREED. Most connections free none before they end.
        self._freed: dict[int, None] | None = None

    def send(self, stream: int | Role, data: bytes, end: bool = False) -> None:
        """Queue bytes of a stream, with ``end`` the last ones."""
        self._outputs.append(Send(stream, data, end))

    def reset(self, stream_id: int, code: int) -> None:
        """Queue RESET_STREAM with a wire code."""
        self._outputs.append(Reset(stream_id, int(code)))

    def stop(self, stream_id: int, code: int) -> None:
        """Queue STOP_SENDING with a wire code."""
        self._outputs.append(Stop(stream_id, int(code)))

    def free(self, stream_id: int) -> None:
        """Let the driver forget a stream, and remember for a while that its input means nothing any more."""
        self._outputs.append(FreeStream(stream_id))
        if self._freed is None:
            self._freed = {}
        self._freed[stream_id] = None
        if len(self._freed) > MOST_FREED:
            del self._freed[next(iter(self._freed))]

    def is_freed(self, stream_id: int) -> bool:
        """Whether a stream was freed lately."""
        return self._freed is not None and stream_id in self._freed

    def close(self, code: int, reason: str) -> None:
        """Queue the end of the connection, for the driver and for the application."""
        self._outputs.append(CloseConnection(int(code), reason))
        self._events.append(ConnectionFailed(int(code), reason))

    def report(self, event: Event) -> None:
        """Queue an event."""
        self._events.append(event)

    def take_outputs(self) -> list[Output]:
        """Return the outputs queued since the last call, oldest first."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_events(self) -> list[Event]:
        """Return the events queued since the last call, oldest first."""
        events, self._events = self._events, []
        return events
