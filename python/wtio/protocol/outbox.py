"""What comes out of ``H3Connection``: outputs for the driver, events for the application.

Outputs are orders that must be carried out in their sequence; events are facts. All are immutable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from wtio.protocol.dialects import Dialect

__all__ = [
    "CapsuleReceived",
    "CloseConnection",
    "ConnectionFailed",
    "Event",
    "FreeStream",
    "GoawayReceived",
    "Headers",
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

Headers: TypeAlias = list[tuple[str, str]]
"""Header fields in their order, names in lower case, pseudo-headers left out. Bytes above 127 are Latin-1."""


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
    headers: Headers
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
    headers: Headers
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
    headers: Headers
    protocol: str | None


@dataclass(frozen=True, slots=True)
class SessionRejected:
    """Client: the server answered with another status than 2xx. Redirects are not followed."""

    stream_id: int
    status: int
    headers: Headers


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
