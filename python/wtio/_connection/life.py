"""The life of one connection, as a table.

A connection lives through these states::

    NEW ──keys──▶ SHAKING ──handshake complete──▶ OPEN
    NEW, SHAKING, OPEN ──we close──▶ CLOSING
    any ──the engine reports the end, or we abandon it──▶ LOST

``TRANSITIONS`` says all of it: (state, input) → (next state, effects). Every pair is in the table, because the engine
reports what it sees at any time, and a connection may be closed at any time, more than once.

There are three ways to end a connection on this side, and they differ in what is sent before CONNECTION_CLOSE:

- CLOSE is the orderly one. It takes effect in the next iteration of the loop, because whoever closes may be in the
  middle of the engine's events, and what is queued by then is sent first, as far as it can be.
- CLOSE_AT_ONCE is for a connection that no session needs: the same, but before the call returns.
- ABANDON is for a connection with which nothing can be done any more: wtio itself failed, or the network refuses to
  deliver. The sessions end at once; the engine closes in the next iteration, and what is queued is not sent first.

Three rules are easy to get wrong:

- CLOSING is not the end: until the engine reports it, packets may arrive, and with them the end of sessions. So END,
  which ends what sessions are left, belongs to the transitions into LOST alone, and is carried out exactly once.
- What happens while we are closing starts nothing: no SETTINGS are sent, and ``connected`` is not called.
- CLOSE_AT_ONCE works in CLOSING, too: it makes sooner what CLOSE has only scheduled.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["TRANSITIONS", "Effect", "Input", "Life", "State"]


class State(StrEnum):
    """How far a connection has come. A ``StrEnum``, like ``Input``, because Python hashes other enums slowly."""

    NEW = "new"  # nothing can be sent on streams yet
    SHAKING = "shaking"  # our SETTINGS are on their way, the handshake is not complete; for a server only
    OPEN = "open"
    CLOSING = "closing"  # we are about to send CONNECTION_CLOSE, or have sent it
    LOST = "lost"


class Input(StrEnum):
    """What happens to a connection."""

    # The engine.
    READY = "there are keys for streams"
    CONNECTED = "the handshake is complete"
    CLOSED = "the connection has ended"
    # Local calls.
    CLOSE = "close"
    CLOSE_AT_ONCE = "close at once"
    ABANDON = "abandon"


class Effect(StrEnum):
    """What a transition makes the connection do, in the order given."""

    START = "send our SETTINGS"
    REPORT = "report the complete handshake to the client or server"
    CLOSE_SOON = "send what is queued and CONNECTION_CLOSE, in the next iteration of the loop"
    CLOSE_NOW = "send what is queued and CONNECTION_CLOSE"
    DISCARD_SOON = "send CONNECTION_CLOSE alone, in the next iteration of the loop"
    END = "end the sessions, and then report the loss to the client or server"


_ABANDONED: Final = (State.LOST, (Effect.DISCARD_SOON, Effect.END))
_ENDED: Final = (State.LOST, (Effect.END,))

TRANSITIONS: Final[dict[tuple[State, Input], tuple[State, tuple[Effect, ...]]]] = {
    (State.NEW, Input.READY): (State.SHAKING, (Effect.START,)),
    (State.NEW, Input.CONNECTED): (State.OPEN, (Effect.START, Effect.REPORT)),
    (State.NEW, Input.CLOSED): _ENDED,
    (State.NEW, Input.CLOSE): (State.CLOSING, (Effect.CLOSE_SOON,)),
    (State.NEW, Input.CLOSE_AT_ONCE): (State.CLOSING, (Effect.CLOSE_NOW,)),
    (State.NEW, Input.ABANDON): _ABANDONED,
    #
    (State.SHAKING, Input.READY): (State.SHAKING, ()),
    (State.SHAKING, Input.CONNECTED): (State.OPEN, (Effect.REPORT,)),
    (State.SHAKING, Input.CLOSED): _ENDED,
    (State.SHAKING, Input.CLOSE): (State.CLOSING, (Effect.CLOSE_SOON,)),
    (State.SHAKING, Input.CLOSE_AT_ONCE): (State.CLOSING, (Effect.CLOSE_NOW,)),
    (State.SHAKING, Input.ABANDON): _ABANDONED,
    #
    (State.OPEN, Input.READY): (State.OPEN, ()),
    (State.OPEN, Input.CONNECTED): (State.OPEN, ()),
    (State.OPEN, Input.CLOSED): _ENDED,
    (State.OPEN, Input.CLOSE): (State.CLOSING, (Effect.CLOSE_SOON,)),
    (State.OPEN, Input.CLOSE_AT_ONCE): (State.CLOSING, (Effect.CLOSE_NOW,)),
    (State.OPEN, Input.ABANDON): _ABANDONED,
    #
    (State.CLOSING, Input.READY): (State.CLOSING, ()),
    (State.CLOSING, Input.CONNECTED): (State.CLOSING, ()),
    (State.CLOSING, Input.CLOSED): _ENDED,
    (State.CLOSING, Input.CLOSE): (State.CLOSING, ()),
    (State.CLOSING, Input.CLOSE_AT_ONCE): (State.CLOSING, (Effect.CLOSE_NOW,)),
    (State.CLOSING, Input.ABANDON): _ABANDONED,
    #
    (State.LOST, Input.READY): (State.LOST, ()),
    (State.LOST, Input.CONNECTED): (State.LOST, ()),
    (State.LOST, Input.CLOSED): (State.LOST, ()),
    (State.LOST, Input.CLOSE): (State.LOST, ()),
    (State.LOST, Input.CLOSE_AT_ONCE): (State.LOST, ()),
    (State.LOST, Input.ABANDON): (State.LOST, ()),
}


class Life:
    """How far one connection has come. Only ``step`` changes it."""

    __slots__ = ("is_connected", "state")

    def __init__(self) -> None:
        self.state = State.NEW
        # Whether the handshake was completed. The states CLOSING and LOST do not say it.
        self.is_connected = False

    def step(self, event: Input) -> tuple[Effect, ...]:
        """Move to the next state and return what is to be done."""
        self.state, effects = TRANSITIONS[self.state, event]
        if self.state is State.OPEN:
            self.is_connected = True
        return effects
