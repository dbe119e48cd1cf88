"""Every combination of present and absent settings, and what must come of it.

What must come of it is written down here a second time, in tables of literals, and shares nothing with the table of
dialects that it judges (requirements 1 to 15, 59 to 64).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from wtio.protocol.codes import ErrorCodes
from wtio.protocol.dialects import Dialect
from wtio.protocol.outbox import SessionRequested, SettingsReceived
from wtio.protocol.transport_parameters import PeerTransport

from .pair import CLIENT_CONTROL, SERVER_CONTROL, Side, client, connect, control_stream, sent_fields, server

MAX_SESSIONS = 3
OUR_LIMITS = {"initial_max_data": 100, "initial_max_streams_bidi": 2, "initial_max_streams_uni": 1}

# -- what a peer may send: each setting absent or with the values that matter

ABSENT = None
VALUES: dict[int, tuple[int | None, ...]] = {
    0x2B603742: (ABSENT, 0, 1),
    0xC671706A: (ABSENT, 1, 4),
    0x14E9CD29: (ABSENT, 1, 4),
    0x2C7CF000: (ABSENT, 0, 1),
    0x08: (ABSENT, 0, 1),
    0x33: (ABSENT, 0, 1),
    0xFFD277: (ABSENT, 1),
}
INITIAL_LIMITS: tuple[dict[int, int], ...] = (
    {},
    {0x2B61: 0, 0x2B64: 0, 0x2B65: 0},
    {0x2B64: 7},
    {0x2B61: 1000, 0x2B64: 10, 0x2B65: 10},
)


def combinations() -> Iterator[dict[int, int]]:
    for values in product(*VALUES.values()):
        present = {number: value for number, value in zip(VALUES, values, strict=True) if value is not None}
        for limits in INITIAL_LIMITS:
            yield present | limits


# -- what each dialect means

NEWEST_FIRST = {"draft15": 0x2C7CF000, "draft13": 0x14E9CD29, "draft07": 0xC671706A, "draft02": 0x2B603742}
TOKEN = {
    "draft15": "webtransport-h3",
    "draft13": "webtransport",
    "draft07": "webtransport",
    "draft02": "webtransport",
}
NEEDS_EXTENDED_CONNECT = {"draft15": True, "draft13": True, "draft07": True, "draft02": False}
NEEDS_RESET_STREAM_AT = {"draft15": True, "draft13": True, "draft07": False, "draft02": False}
DRAFT02_HEADER = {"draft15": False, "draft13": False, "draft07": False, "draft02": True}
HAS_FLOW_CONTROL = {"draft15": True, "draft13": True, "draft07": False, "draft02": False}
COUNTS_SESSIONS_AS_FLOW_CONTROL = {"draft15": False, "draft13": True, "draft07": False, "draft02": False}
ONE_SESSION_WITHOUT_FLOW_CONTROL = {"draft15": True, "draft13": True, "draft07": False, "draft02": False}
# Whose number of sessions holds: the server's, sent in this setting.
NUMBER_OF_SESSIONS = {"draft13": 0x14E9CD29, "draft07": 0xC671706A}


@dataclass(frozen=True)
class Context:
    """What is true beside the peer's settings."""

    strict: bool = False
    flow_control: bool = False
    """We announce initial limits."""
    reset_stream_at: bool = True
    datagrams: bool = True
    is_transport_known: bool = True

    @property
    def transport(self) -> PeerTransport | None:
        if not self.is_transport_known:
            return None
        return PeerTransport(self.reset_stream_at, 65535 if self.datagrams else 0)


CONTEXTS = [
    Context(),
    Context(flow_control=True),
    Context(flow_control=True, reset_stream_at=False),
    Context(datagrams=False),
    Context(is_transport_known=False),
    Context(strict=True),
    Context(strict=True, flow_control=True),
    Context(strict=True, flow_control=True, reset_stream_at=False),
    Context(strict=True, datagrams=False),
    Context(strict=True, is_transport_known=False, reset_stream_at=False, datagrams=False),
]


@dataclass
class Outcome:
    dialect: str | None
    problem: str | None
    """A word that the explanation must contain."""
    flow_control: bool
    sessions: int


def outcome(peer: dict[int, int], context: Context, *, is_client: bool) -> Outcome:
    dialect = next((name for name, number in NEWEST_FIRST.items() if peer.get(number, 0) > 0), None)
    problem = problem_of(peer, dialect, context, is_client=is_client)
    if dialect is None:
        return Outcome(None, problem, False, 0)
    flow_control = False
    if HAS_FLOW_CONTROL[dialect] and context.flow_control:
        flow_control = any(peer.get(number, 0) > 0 for number in (0x2B61, 0x2B64, 0x2B65)) or (
            COUNTS_SESSIONS_AS_FLOW_CONTROL[dialect] and peer[0x14E9CD29] > 1
        )
    sessions = MAX_SESSIONS
    if ONE_SESSION_WITHOUT_FLOW_CONTROL[dialect] and not flow_control:
        sessions = 1
    elif dialect in NUMBER_OF_SESSIONS:
        # As a server we announce as many as we carry, in draft 07 always one.
        ours = 1 if dialect == "draft07" else MAX_SESSIONS
        sessions = min(sessions, peer[NUMBER_OF_SESSIONS[dialect]] if is_client else ours)
    return Outcome(dialect, problem, flow_control, 0 if problem else sessions)


def problem_of(peer: dict[int, int], dialect: str | None, context: Context, *, is_client: bool) -> str | None:
    strict = context.strict
    if dialect is None and (is_client or strict):
        return "no version"
    if is_client and dialect and NEEDS_EXTENDED_CONNECT[dialect] and peer.get(0x08, 0) != 1:
        return "ENABLE_CONNECT_PROTOCOL"
    if peer.get(0x33, 0) != 1 and (strict or peer.get(0xFFD277, 0) != 1):
        return "H3_DATAGRAM"
    if context.is_transport_known and not context.datagrams and (is_client or strict):
        return "max_datagram_frame_size"
    if context.is_transport_known and not context.reset_stream_at and strict:
        assert dialect is not None
        if NEEDS_RESET_STREAM_AT[dialect]:
            return "reset_stream_at"
    return None


def made(context: Context, *, is_client: bool, peer: dict[int, int]) -> Side:
    """A side that speaks every dialect, strict or not, and has got these settings."""
    side = (client if is_client else server)(
        None,
        dialects=list(Dialect),
        strict=context.strict,
        max_sessions=MAX_SESSIONS,
        **(OUR_LIMITS if context.flow_control else {}),
    )
    side.h3.peer_transport = context.transport
    side.receive(SERVER_CONTROL if is_client else CLIENT_CONTROL, control_stream(list(peer.items())))
    return side


def check(side: Side, expected: Outcome) -> None:
    h3 = side.h3
    [received] = side.of(SettingsReceived)
    assert (h3.dialect and h3.dialect.value) == expected.dialect
    assert (received.problem is None) == (expected.problem is None), received.problem
    assert (expected.problem or "") in (received.problem or "")
    assert h3.flow_control == expected.flow_control
    assert h3.session_limit == expected.sessions
    assert side.close_code is None


@pytest.mark.parametrize("context", CONTEXTS, ids=repr)
@pytest.mark.unmeasured
def test_r7_r10_r59_client_makes_the_documented_thing_of_every_combination(context: Context) -> None:
    outcomes = set()
    for peer in combinations():
        expected = outcome(peer, context, is_client=True)
        side = made(context, is_client=True, peer=peer)
        try:
            check(side, expected)
            if expected.problem:
                with pytest.raises(RuntimeError):
                    side.h3.send_connect(0, authority="a", path="/")
            else:
                side.run(lambda side=side: side.h3.send_connect(0, authority="a", path="/"))  # type: ignore[misc]
                assert expected.dialect is not None
                fields = sent_fields(side)
                assert (":protocol", TOKEN[expected.dialect]) in fields
                draft02 = ("sec-webtransport-http3-draft02", "1") in fields
                assert draft02 == DRAFT02_HEADER[expected.dialect]
        except AssertionError as error:
            error.add_note(f"settings: { {hex(number): value for number, value in peer.items()} }")
            raise
        outcomes.add((expected.dialect, expected.problem, expected.flow_control))
    assert len(outcomes) > 5  # the table distinguishes them


@pytest.mark.parametrize("context", CONTEXTS, ids=repr)
@pytest.mark.unmeasured
def test_r7_r13_r59_server_makes_the_documented_thing_of_every_combination(context: Context) -> None:
    for peer in combinations():
        expected = outcome(peer, context, is_client=False)
        side = made(context, is_client=False, peer=peer)
        try:
            check(side, expected)
            side.receive(0, connect(token=TOKEN[expected.dialect or "draft15"]))
            if expected.problem:
                assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]
                assert not side.of(SessionRequested)
            else:
                [request] = side.of(SessionRequested)
                assert request.dialect.value == (expected.dialect or "draft15")
        except AssertionError as error:
            error.add_note(f"settings: { {hex(number): value for number, value in peer.items()} }")
            raise


ZERO_OR_ONE = (0x2B603742, 0x08, 0x33)


@pytest.mark.parametrize("is_client", [True, False])
@pytest.mark.unmeasured
def test_r9_r14_value_above_1_is_settings_error_whatever_else_is_there(is_client: bool) -> None:
    numbers = (*ZERO_OR_ONE, 0x2C7CF000, 0xFFD277, 0xC671706A)
    for values in product((ABSENT, 0, 1, 2), repeat=len(numbers)):
        peer = {number: value for number, value in zip(numbers, values, strict=True) if value is not None}
        wrong = any(peer.get(number) == 2 for number in ZERO_OR_ONE)
        # Draft 16: only the client looks at WT_ENABLED; to a server any value above 0 counts, as in draft 15.
        wrong = wrong or (is_client and peer.get(0x2C7CF000) == 2)
        side = made(Context(), is_client=is_client, peer=peer)
        assert side.close_code == (ErrorCodes.H3_SETTINGS_ERROR if wrong else None), peer
