"""Session flow control, as far as SETTINGS and capsules go (requirements 59 to 77)."""

import pytest

from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType, encode_limit
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.connection import H3Connection
from wtio.protocol.dialects import Dialect
from wtio.protocol.frames import encode_record
from wtio.protocol.outbox import CapsuleReceived, SessionRequested, SessionTerminated

from .pair import (
    CLIENT_CONTROL,
    DRAFT15_CLIENT,
    FLOW_CONTROL,
    Pair,
    Side,
    connect,
    control_stream,
    data,
    open_server,
    server,
)

OURS = {"initial_max_data": 5, "initial_max_streams_bidi": 6, "initial_max_streams_uni": 7}


def controlled_server(**options: object) -> Side:
    side = server([*DRAFT15_CLIENT, *FLOW_CONTROL], **OURS, **options)
    side.receive(0, connect())
    side.run(lambda: side.h3.accept(0))
    return side


def limit(kind: CapsuleType, value: int) -> bytes:
    return data(encode_limit(kind, value))


@pytest.mark.parametrize("number", [0x2B61, 0x2B64, 0x2B65])
@pytest.mark.parametrize("option", OURS)
def test_r59_s15_on_if_both_sent_any_nonzero_limit(number: int, option: str) -> None:
    assert server([*DRAFT15_CLIENT, (number, 1)], **{option: 1}).h3.flow_control
    assert not server([*DRAFT15_CLIENT, (number, 0)], **{option: 1}).h3.flow_control
    assert not server([*DRAFT15_CLIENT, (number, 1)]).h3.flow_control


def test_r59_draft02_and_draft07_have_no_flow_control() -> None:
    for number in (0x2B603742, 0xC671706A):
        assert not server([(0x33, 1), (number, 1), *FLOW_CONTROL], **OURS).h3.flow_control


@pytest.mark.parametrize(
    ("sessions", "limits", "expected"), [(1, [], False), (2, [], True), (1, FLOW_CONTROL, True), (2**62 - 1, [], True)]
)
def test_r59_draft14_counts_sessions_too(sessions: int, limits: list[tuple[int, int]], expected: bool) -> None:
    side = server([(0x33, 1), (0x14E9CD29, sessions), *limits], dialects=list(Dialect), **OURS)
    assert side.h3.dialect is Dialect.D13
    assert side.h3.flow_control is expected


def test_r77_initial_limits_of_the_peer_are_known() -> None:
    assert controlled_server().h3.peer_initial_limits == (1000, 20, 10)
    assert server().h3.peer_initial_limits == (0, 0, 0)
    assert H3Connection(is_client=True).peer_initial_limits == (0, 0, 0)


def test_r60_flow_control_lets_sessions_share_a_connection() -> None:
    side = controlled_server(max_sessions=2)
    side.receive(4, connect())
    side.receive(8, connect())
    assert [event.stream_id for event in side.of(SessionRequested)] == [0, 4]
    assert side.resets(8) == [ErrorCodes.H3_REQUEST_REJECTED]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (CapsuleType.WT_MAX_DATA, 2**62 - 1),
        (CapsuleType.WT_MAX_STREAMS_BIDI, 2**60),
        (CapsuleType.WT_MAX_STREAMS_UNI, 11),
        (CapsuleType.WT_DATA_BLOCKED, 0),
        (CapsuleType.WT_STREAMS_BLOCKED_BIDI, 20),
        (CapsuleType.WT_STREAMS_BLOCKED_UNI, 2**60),
    ],
)
def test_capsule_is_reported_with_its_number(kind: CapsuleType, value: int) -> None:
    assert controlled_server().receive(0, limit(kind, value)) == [CapsuleReceived(0, kind, value)]


@pytest.mark.parametrize(
    "kind", [CapsuleType.WT_MAX_DATA, CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAMS_BLOCKED_UNI]
)
def test_r63_without_flow_control_its_capsules_are_ignored(kind: CapsuleType) -> None:
    side = open_server()
    assert side.receive(0, data(encode_record(kind, b"\xff" * 30))) == []
    assert side.h3.session_state(0) == "open"


@pytest.mark.parametrize(
    ("kind", "initial"),
    [(CapsuleType.WT_MAX_DATA, 1000), (CapsuleType.WT_MAX_STREAMS_BIDI, 20), (CapsuleType.WT_MAX_STREAMS_UNI, 10)],
)
def test_r69_r72_limit_that_does_not_grow_is_flow_control_error(kind: CapsuleType, initial: int) -> None:
    for values in ([initial], [initial - 1], [initial + 5, initial + 5], [initial + 5, initial + 4]):
        side = controlled_server()
        for value in values:
            side.receive(0, limit(kind, value))
        assert side.of(SessionTerminated)[0].wire_code == ErrorCodes.WT_FLOW_CONTROL_ERROR
        assert side.resets(0) == side.stops(0) == [ErrorCodes.WT_FLOW_CONTROL_ERROR]
        assert side.close_code is None


def test_r69_before_draft16_only_a_decrease_is_an_error() -> None:
    side = server([(0x33, 1), (0x14E9CD29, 2), *FLOW_CONTROL], dialects=list(Dialect), **OURS)
    side.receive(0, connect())
    side.run(lambda: side.h3.accept(0))
    for _ in range(2):
        assert side.receive(0, limit(CapsuleType.WT_MAX_DATA, 1000))
    side.receive(0, limit(CapsuleType.WT_MAX_DATA, 999))
    assert side.resets(0) == [ErrorCodes.WT_FLOW_CONTROL_ERROR]


@pytest.mark.parametrize("kind", [kind for kind in CapsuleType if "STREAMS" in kind.name])
def test_r68_stream_count_above_2_60_ends_the_session(kind: CapsuleType) -> None:
    side = controlled_server()
    side.receive(0, data(encode_record(kind, varint.encode(2**60 + 1))))
    assert side.resets(0) == [ErrorCodes.WT_FLOW_CONTROL_ERROR]
    assert side.close_code is None


@pytest.mark.parametrize("kind", [CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAM_DATA_BLOCKED])
def test_r75_prohibited_capsule_ends_the_session(kind: CapsuleType) -> None:
    side = controlled_server()
    side.receive(0, data(encode_record(kind, b"\x00\x00")))
    assert side.resets(0) == [ErrorCodes.WT_FLOW_CONTROL_ERROR]


@pytest.mark.parametrize("value", [b"", b"\x40", b"\x01\x01", bytes(9)])
def test_malformed_limit_is_message_error(value: bytes) -> None:
    side = controlled_server()
    side.receive(0, data(encode_record(CapsuleType.WT_MAX_DATA, value)))
    assert side.resets(0) == [ErrorCodes.H3_MESSAGE_ERROR]


@pytest.mark.parametrize(("settings", "reported"), [([*DRAFT15_CLIENT, *FLOW_CONTROL], True), (DRAFT15_CLIENT, False)])
def test_limit_that_comes_before_the_settings_counts_if_flow_control_is_on(
    settings: list[tuple[int, int]], reported: bool
) -> None:
    side = server(None, **OURS)
    side.receive(0, connect() + limit(CapsuleType.WT_MAX_DATA, 2000))
    side.receive(CLIENT_CONTROL, control_stream(settings))
    events = side.run(lambda: side.h3.accept(0))
    assert events == ([CapsuleReceived(0, CapsuleType.WT_MAX_DATA, 2000)] if reported else [])


def test_limits_travel_between_our_own_sides() -> None:
    pair = Pair(client_options=OURS, **OURS)
    assert pair.client.h3.flow_control
    assert pair.server.h3.flow_control
    for stream_id in (0, 4):
        pair.client.h3.send_connect(stream_id, authority="a", path="/")
        pair.exchange()
        pair.server.h3.accept(stream_id)
    pair.exchange()
    pair.server.h3.send_capsule(4, encode_limit(CapsuleType.WT_MAX_STREAMS_UNI, 8))
    pair.client.h3.send_capsule(0, encode_limit(CapsuleType.WT_DATA_BLOCKED, 5))
    pair.exchange()
    assert pair.client.of(CapsuleReceived) == [CapsuleReceived(4, CapsuleType.WT_MAX_STREAMS_UNI, 8)]
    assert pair.server.of(CapsuleReceived) == [CapsuleReceived(0, CapsuleType.WT_DATA_BLOCKED, 5)]
