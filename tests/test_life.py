"""The table of a connection's life says all of it, and what its module's text promises."""

from __future__ import annotations

import itertools

import pytest

from wtio._connection.life import TRANSITIONS, Effect, Input, Life, State

ENDINGS = (State.CLOSING, State.LOST)


def test_every_input_has_a_row_in_every_state() -> None:
    assert set(TRANSITIONS) == set(itertools.product(State, Input))


def test_every_state_can_be_reached_and_every_effect_occurs() -> None:
    assert {state for state, _ in TRANSITIONS.values()} == set(State) - {State.NEW}
    assert {effect for _, effects in TRANSITIONS.values() for effect in effects} == set(Effect)


def test_lost_is_lost() -> None:
    for event in Input:
        assert TRANSITIONS[State.LOST, event] == (State.LOST, ())


def test_sessions_end_once_and_in_no_other_way_than_into_lost() -> None:
    for (before, _), (after, effects) in TRANSITIONS.items():
        assert (Effect.END in effects) == (after is State.LOST and before is not State.LOST)


def test_nothing_starts_while_the_connection_is_closing() -> None:
    for (before, _), (after, effects) in TRANSITIONS.items():
        if before in ENDINGS:
            assert after in ENDINGS
            assert not {Effect.START, Effect.REPORT} & set(effects)


@pytest.mark.parametrize(
    ("events", "effects"),
    [
        ((Input.CONNECTED,), [Effect.START, Effect.REPORT]),
        ((Input.READY, Input.CONNECTED), [Effect.START, Effect.REPORT]),
        ((Input.READY, Input.READY, Input.CONNECTED, Input.CONNECTED), [Effect.START, Effect.REPORT]),
    ],
)
def test_a_handshake_starts_once_and_is_reported_once(events: tuple[Input, ...], effects: list[Effect]) -> None:
    life = Life()
    assert [effect for event in events for effect in life.step(event)] == effects
    assert life.is_connected
    assert life.state is State.OPEN


@pytest.mark.parametrize("shaken", [True, False])
def test_whether_the_handshake_was_completed_is_remembered(shaken: bool) -> None:
    life = Life()
    if shaken:
        life.step(Input.CONNECTED)
    assert life.step(Input.CLOSE) == (Effect.CLOSE_SOON,)
    assert life.step(Input.CLOSE) == ()
    assert life.step(Input.CLOSE_AT_ONCE) == (Effect.CLOSE_NOW,)
    assert life.step(Input.CLOSED) == (Effect.END,)
    assert life.step(Input.ABANDON) == ()
    assert life.is_connected is shaken
