"""The life of one session, as a table; and the exporter context.

A session is its CONNECT stream. It lives through these states::

    server:  PARKED ──settings──▶ REQUESTED ──accept──▶ OPEN
                                      └──────reject───▶ CLOSING
    client:  CONNECTING ──2xx──▶ OPEN
                 └──other status──▶ FINISHED

    OPEN ──close────────────▶ CLOSING    we sent WT_CLOSE_SESSION and the end; the peer's end is awaited
    OPEN ──peer's capsule───▶ ENDING     the peer closed and we sent our end; its end is awaited, nothing else may come
    OPEN ──peer stops us────▶ STOPPED    we can send no more; the peer's capsule, end or reset is awaited
    any  ──reset, abort, broken rule──▶ FINISHED
    CLOSING, ENDING, STOPPED ──peer's end──▶ FINISHED

``TRANSITIONS`` says all of it: (state, input) → (next state, effects). A pair that is not in the table cannot be
caused by a peer; it is a local call at the wrong time and raises ``SessionStateError`` in ``Session.step``.

Three rules are easy to get wrong:

- WT_CLOSE_SESSION leaves with the end of the stream and *without* STOP_SENDING. Chromium and Firefox drop code and
  reason if the two arrive together. So CLOSE has FINISH and never STOP, and for the same reason a STOP that *we*
  receive does not end the session yet: the close that it belongs to may still be on its way.
- A session is reported closed at most once, and not at all if the application closed it. Only the transitions out
  of REQUESTED, CONNECTING, OPEN and STOPPED that the peer causes have REPORT.
- What a client sends before the server has accepted is held back and replayed after ACCEPT, so END and CLOSE_CAPSULE
  cannot occur in PARKED and REQUESTED (draft-ietf-webtrans-http3-16, section 3.2).
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wtio.protocol.capsules import CapsuleType
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.dialects import PROTOCOL_FIELDS, ProtocolFields
from wtio.protocol.faults import SessionStateError, StreamFault

if TYPE_CHECKING:
    from wtio.protocol.frames import RecordReader
    from wtio.protocol.messages import Request

__all__ = ["EXPORTER_LABEL", "LIVE", "TRANSITIONS", "Effect", "Input", "Session", "State", "exporter_context"]


class State(StrEnum):
    """Where a session stands. A ``StrEnum``, like ``Input``, because Python hashes other enums slowly."""

    PARKED = "parked"  # server: the CONNECT came before the client's SETTINGS
    REQUESTED = "requested"  # server: the application has not decided
    CONNECTING = "connecting"  # client: the answer is awaited
    OPEN = "open"
    STOPPED = "stopped"
    CLOSING = "closing"
    ENDING = "ending"
    FINISHED = "finished"


class Input(StrEnum):
    """What happens to a session."""

    # Local calls.
    ACCEPT = "accept"
    REJECT = "reject"
    CLOSE = "close"
    ABORT = "abort"
    # The peer.
    SETTINGS = "settings"  # they have arrived and allow sessions
    SUCCESS = "2xx response"
    REFUSAL = "other response"
    CLOSE_CAPSULE = "WT_CLOSE_SESSION"
    END = "end of stream"
    RESET = "RESET_STREAM"
    STOP = "STOP_SENDING"
    FAULT = "broken rule"


class Effect(StrEnum):
    """What a transition makes the connection do, in the order given."""

    SEND = "send what the caller prepared"
    FINISH = "send what the caller prepared, then the end of the stream"
    RESET = "RESET_STREAM"
    STOP = "STOP_SENDING"
    REPORT = "report the session as closed"
    REPORT_STOP = "report that the peer is ending the session"
    FREE = "forget the stream"


_GONE: Final = (State.FINISHED, (Effect.RESET, Effect.STOP, Effect.FREE))
_FAILED: Final = (State.FINISHED, (Effect.RESET, Effect.STOP, Effect.REPORT, Effect.FREE))

TRANSITIONS: Final[dict[tuple[State, Input], tuple[State, tuple[Effect, ...]]]] = {
    # The application does not know of a parked session, so nothing is reported.
    (State.PARKED, Input.SETTINGS): (State.REQUESTED, ()),
    (State.PARKED, Input.CLOSE): _GONE,
    (State.PARKED, Input.ABORT): _GONE,
    (State.PARKED, Input.RESET): (State.FINISHED, (Effect.RESET, Effect.FREE)),
    (State.PARKED, Input.STOP): _GONE,
    (State.PARKED, Input.FAULT): _GONE,
    #
    (State.REQUESTED, Input.ACCEPT): (State.OPEN, (Effect.SEND,)),
    (State.REQUESTED, Input.REJECT): (State.CLOSING, (Effect.FINISH,)),
    (State.REQUESTED, Input.CLOSE): _GONE,
    (State.REQUESTED, Input.ABORT): _GONE,
    (State.REQUESTED, Input.RESET): (State.FINISHED, (Effect.RESET, Effect.REPORT, Effect.FREE)),
    (State.REQUESTED, Input.STOP): _FAILED,
    (State.REQUESTED, Input.FAULT): _FAILED,
    #
    (State.CONNECTING, Input.SUCCESS): (State.OPEN, ()),
    (State.CONNECTING, Input.REFUSAL): (State.FINISHED, (Effect.FINISH, Effect.STOP, Effect.FREE)),
    (State.CONNECTING, Input.CLOSE): _GONE,
    (State.CONNECTING, Input.ABORT): _GONE,
    (State.CONNECTING, Input.RESET): (State.FINISHED, (Effect.RESET, Effect.REPORT, Effect.FREE)),
    # RFC 9114, section 4.1: a server may stop a request and still answer it. A refusal tells why; after a success the
    # session goes from OPEN to STOPPED at once.
    (State.CONNECTING, Input.STOP): (State.CONNECTING, (Effect.RESET,)),
    (State.CONNECTING, Input.FAULT): _FAILED,
    #
    (State.OPEN, Input.CLOSE): (State.CLOSING, (Effect.FINISH,)),
    (State.OPEN, Input.ABORT): _GONE,
    (State.OPEN, Input.CLOSE_CAPSULE): (State.ENDING, (Effect.FINISH, Effect.REPORT)),
    (State.OPEN, Input.END): (State.FINISHED, (Effect.FINISH, Effect.REPORT, Effect.FREE)),
    (State.OPEN, Input.RESET): (State.FINISHED, (Effect.RESET, Effect.REPORT, Effect.FREE)),
    (State.OPEN, Input.STOP): (State.STOPPED, (Effect.RESET, Effect.REPORT_STOP)),
    (State.OPEN, Input.FAULT): _FAILED,
    #
    (State.STOPPED, Input.CLOSE): (State.FINISHED, (Effect.STOP, Effect.FREE)),
    (State.STOPPED, Input.ABORT): (State.FINISHED, (Effect.STOP, Effect.FREE)),
    (State.STOPPED, Input.CLOSE_CAPSULE): (State.ENDING, (Effect.REPORT,)),
    (State.STOPPED, Input.END): (State.FINISHED, (Effect.REPORT, Effect.FREE)),
    (State.STOPPED, Input.RESET): (State.FINISHED, (Effect.REPORT, Effect.FREE)),
    (State.STOPPED, Input.STOP): (State.STOPPED, ()),
    (State.STOPPED, Input.FAULT): (State.FINISHED, (Effect.STOP, Effect.REPORT, Effect.FREE)),
    #
    (State.CLOSING, Input.CLOSE): (State.CLOSING, ()),
    (State.CLOSING, Input.ABORT): _GONE,
    (State.CLOSING, Input.END): (State.FINISHED, (Effect.FREE,)),
    (State.CLOSING, Input.RESET): (State.FINISHED, (Effect.FREE,)),
    (State.CLOSING, Input.STOP): (State.CLOSING, ()),
    (State.CLOSING, Input.FAULT): (State.FINISHED, (Effect.STOP, Effect.FREE)),
    #
    (State.ENDING, Input.CLOSE): (State.ENDING, ()),
    (State.ENDING, Input.ABORT): _GONE,
    (State.ENDING, Input.END): (State.FINISHED, (Effect.FREE,)),
    (State.ENDING, Input.RESET): (State.FINISHED, (Effect.FREE,)),
    (State.ENDING, Input.STOP): (State.ENDING, ()),
    (State.ENDING, Input.FAULT): _GONE,
    #
    (State.FINISHED, Input.CLOSE): (State.FINISHED, ()),
    (State.FINISHED, Input.ABORT): (State.FINISHED, ()),
}

LIVE: Final = frozenset((State.REQUESTED, State.CONNECTING, State.OPEN, State.STOPPED))
"""States in which a session counts against the limit of its connection."""

_NO_LIMITS: Final[Mapping[int, int]] = MappingProxyType({})


class Session:
    """One session: its state, and all that is remembered of it. ``connect_streams`` carries out its effects."""

    __slots__ = (
        "announced",
        "can_send",
        "capsules",
        "has_sent_drain",
        "held",
        "interim",
        "is_draining",
        "limits",
        "offered",
        "protocol_fields",
        "request",
        "saw_close",
        "state",
        "stop_code",
        "was_reset",
    )

    def __init__(self, state: State) -> None:
        self.state: State = state
        self.can_send: bool = True  # we have neither ended nor reset our direction of the stream
        self.was_reset: bool = False  # we have reset our direction
        self.stop_code: int | None = None  # code of the peer's STOP_SENDING, if it has sent one
        self.announced: bool = False  # the application knows of the session: ``SessionFinished`` will be reported
        self.is_draining: bool = False  # a request to wind down was reported
        self.has_sent_drain: bool = False  # we have sent WT_DRAIN_SESSION

        # The handshake.
        self.offered: tuple[str, ...] = ()  # subprotocols that the client offered
        self.protocol_fields: ProtocolFields = PROTOCOL_FIELDS  # the header fields in which it offered them
        self.request: Request | None = None  # server: kept until the session is accepted
        self.interim: int = 0  # client: interim responses so far

        # Capsules.
        self.capsules: RecordReader | None = None  # made with the first byte of a capsule
        self.saw_close: bool = False  # WT_CLOSE_SESSION was read, so nothing may follow
        # Server: capsules that arrived before the session was accepted, at most ``max_held_capsules``.
        self.held: list[tuple[int, bytes]] | None = None
        # The last value of each limit that the peer has raised, by capsule type. ``raise_limit`` replaces it.
        self.limits: Mapping[int, int] = _NO_LIMITS

    @property
    def buffered(self) -> int:
        """Bytes of capsules that are kept: of an incomplete one, and of those that are held."""
        kept = sum(len(value) for _, value in self.held or ())
        return kept + self.capsules.buffered if self.capsules else kept

    def step(self, event: Input) -> tuple[Effect, ...]:
        """Move to the next state and return what is to be done.

        Raises:
            SessionStateError: The state does not allow ``event``; nothing has changed.
        """
        transition = TRANSITIONS.get((self.state, event))
        if transition is None:
            raise SessionStateError(f"{event.value} is impossible: the session is {self.state.value}", self.state.value)
        self.state, effects = transition
        return effects

    def raise_limit(self, capsule_type: int, limit: int, initial: int, *, must_grow: bool) -> None:
        """Note that the peer raises a limit.

        Args:
            capsule_type: The capsule that carries it.
            limit: Its new value.
            initial: Its value before the first capsule.
            must_grow: Whether a limit may not stay the same.

        Raises:
            StreamFault: WT_FLOW_CONTROL_ERROR, if the limit does not grow.

        Source: draft-ietf-webtrans-http3-16, sections 5.6.2 and 5.6.4.
        """
        last = self.limits.get(capsule_type, initial)
        if limit < last or (must_grow and limit == last):
            raise StreamFault(
                ErrorCodes.WT_FLOW_CONTROL_ERROR,
                f"{CapsuleType(capsule_type).name} goes from {last} to {limit}; limits only grow",
            )
        self.limits = {**self.limits, capsule_type: limit}


EXPORTER_LABEL: Final = b"EXPORTER-WebTransport"
"""TLS exporter label of every session."""


def exporter_context(session_id: int, label: bytes, context: bytes = b"") -> bytes:
    """Return the TLS exporter context that separates the keys of sessions that share a connection.

    Args:
        session_id: The session.
        label: Application label, at most 255 bytes.
        context: Application context, at most 255 bytes.

    Raises:
        ValueError: ``label`` or ``context`` is longer than 255 bytes.

    Source: draft-ietf-webtrans-http3-16, section 4.8.
    """
    if len(label) > 255 or len(context) > 255:
        raise ValueError(f"label ({len(label)} bytes) and context ({len(context)} bytes) may have 255 bytes each")
    return session_id.to_bytes(8, "big") + bytes((len(label),)) + label + bytes((len(context),)) + context
