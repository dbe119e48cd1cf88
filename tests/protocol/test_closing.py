"""How sessions end (requirements 35, 36, 53 to 58 and 79 to 89)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import SessionStateError
from wtio.protocol.frames import encode_record
from wtio.protocol.limits import ProtocolLimits
from wtio.protocol.outbox import (
    CloseConnection,
    GoawayReceived,
    Send,
    SessionAccepted,
    SessionDraining,
    SessionFinished,
    SessionRequested,
    SessionStopping,
    SessionTerminated,
)
from wtio.protocol.session import EXPORTER_LABEL, LIVE, TRANSITIONS, Effect, Input, Session, State, exporter_context

from .pair import (
    CHROMIUM,
    CLIENT_CONTROL,
    DRAIN,
    GREASE,
    SERVER_CONTROL,
    Pair,
    client,
    close,
    connect,
    connecting_client,
    data,
    headers,
    open_client,
    open_server,
    requested_server,
    server,
)

OPENED = [open_client, open_server]
ended_cleanly = SessionTerminated(0, 0, "", clean=True, by="peer", wire_code=None)


def open_pair() -> Pair:
    pair = Pair()
    pair.client.h3.send_connect(0, authority="a", path="/")
    pair.exchange()
    pair.server.h3.accept(0)
    pair.exchange()
    return pair


# -- local close


@pytest.mark.parametrize("opened", OPENED)
def test_c1_r84_close_is_capsule_and_end_and_never_stop_sending(opened: Any) -> None:
    side = opened()
    before = len(side.outputs)
    assert side.run(lambda: side.h3.close_session(0, 7, "bye")) == []
    assert side.outputs[before:] == [Send(0, bytes.fromhex("000a 684307 00000007 627965"), True)]


@given(st.integers(0, 2**32 - 1), st.text(max_size=300))
def test_close_code_and_reason_reach_the_peer(code: int, reason: str) -> None:
    pair = open_pair()
    pair.client.h3.close_session(0, code, reason)
    pair.exchange()
    assert pair.server.of(SessionTerminated) == [
        SessionTerminated(0, code, reason, clean=True, by="peer", wire_code=None)
    ]
    # R85: the receiver ends its side too, and both are done with the stream.
    assert pair.client.of(SessionTerminated) == []
    assert pair.client.of(SessionFinished) == pair.server.of(SessionFinished) == [SessionFinished(0)]
    assert pair.client.is_free(0)
    assert pair.server.is_free(0)
    assert not pair.client.of(CloseConnection)


def test_c3_r82_long_reason_is_cut_and_the_peer_takes_it() -> None:
    pair = open_pair()
    pair.server.h3.close_session(0, 1, "日" * 1000)
    pair.exchange()
    assert pair.client.of(SessionTerminated)[0].reason == "日" * 341


@pytest.mark.parametrize("opened", OPENED)
def test_close_code_outside_32_bits_changes_nothing(opened: Any) -> None:
    side = opened()
    with pytest.raises(ValueError, match="32 bits"):
        side.h3.close_session(0, 2**32, "")
    assert side.h3.session_state(0) == "open"


@pytest.mark.parametrize("opened", OPENED)
def test_c6_second_close_does_nothing(opened: Any) -> None:
    side = opened()
    side.run(lambda: side.h3.close_session(0, 1, "first"))
    count = len(side.outputs)
    side.run(lambda: side.h3.close_session(0, 2, "second"))
    side.run(lambda: side.h3.drain_session(0))
    side.run(lambda: side.h3.send_capsule(0, encode_record(0x17, b"")))
    assert len(side.outputs) == count


@pytest.mark.parametrize("opened", OPENED)
def test_c6_crossing_closes_give_no_second_event(opened: Any) -> None:
    side = opened()
    side.run(lambda: side.h3.close_session(0, 1, "ours"))
    assert side.receive(0, close(2, "theirs"), True) == [SessionFinished(0)]


@pytest.mark.parametrize("opened", OPENED)
def test_stop_sending_after_our_close_does_not_cancel_it(opened: Any) -> None:
    side = opened()
    side.run(lambda: side.h3.close_session(0, 1, "ours"))
    assert side.stop(0, ErrorCodes.WT_SESSION_GONE) == []
    assert side.resets(0) == []
    assert side.reset(0, ErrorCodes.WT_SESSION_GONE) == [SessionFinished(0)]


@pytest.mark.parametrize("opened", OPENED)
def test_peer_that_never_ends_after_our_close_can_be_aborted(opened: Any) -> None:
    side = opened()
    side.run(lambda: side.h3.close_session(0, 1, "ours"))
    assert side.run(lambda: side.h3.abort_session(0, ErrorCodes.H3_REQUEST_CANCELLED)) == [SessionFinished(0)]
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_REQUEST_CANCELLED]
    assert side.is_free(0)
    assert side.run(lambda: side.h3.abort_session(0, 0)) == []


@pytest.mark.parametrize("opened", OPENED)
def test_peer_that_goes_on_sending_after_our_close_is_stopped_in_the_end(opened: Any) -> None:
    side = opened()
    side.run(lambda: side.h3.close_session(0, 1, "ours"))
    limit = ProtocolLimits().max_discard
    side.receive(0, bytes(limit))
    assert side.stops(0) == []
    assert side.receive(0, b"!") == [SessionFinished(0)]
    assert side.stops(0) == [ErrorCodes.H3_NO_ERROR]


def test_closing_while_connecting_cancels_the_request() -> None:
    side = connecting_client()
    assert side.run(lambda: side.h3.close_session(0, 1, "changed my mind")) == [SessionFinished(0)]
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_REQUEST_CANCELLED]


@pytest.mark.parametrize("prepared", [open_client, open_server, connecting_client, requested_server])
def test_abort_resets_and_stops(prepared: Any) -> None:
    side = prepared()
    assert side.run(lambda: side.h3.abort_session(0, ErrorCodes.WT_FLOW_CONTROL_ERROR)) == [SessionFinished(0)]
    assert side.resets(0) == side.stops(0) == [ErrorCodes.WT_FLOW_CONTROL_ERROR]
    assert side.h3.sessions == 0


# -- the peer's close


@pytest.mark.parametrize("opened", OPENED)
def test_c4_r87_end_without_capsule_is_code_0_without_reason(opened: Any) -> None:
    side = opened()
    assert side.receive(0, b"", True) == [ended_cleanly, SessionFinished(0)]
    assert side.ended(0)
    assert side.resets(0) == side.stops(0) == []


@pytest.mark.parametrize("opened", OPENED)
def test_c4_reset_is_abnormal(opened: Any) -> None:
    side = opened()
    [closed, finished] = side.reset(0, ErrorCodes.H3_REQUEST_CANCELLED)
    assert isinstance(closed, SessionTerminated)
    assert (closed.clean, closed.by, closed.wire_code) == (False, "peer", ErrorCodes.H3_REQUEST_CANCELLED)
    assert finished == SessionFinished(0)
    assert side.resets(0) == [ErrorCodes.H3_REQUEST_CANCELLED]


@pytest.mark.parametrize("opened", OPENED)
def test_r85_receiver_of_close_ends_its_side_at_once(opened: Any) -> None:
    side = opened()
    assert side.receive(0, close(5, "é")) == [SessionTerminated(0, 5, "é", clean=True, by="peer", wire_code=None)]
    assert side.ended(0)
    assert side.h3.session_state(0) == "ending"
    assert side.h3.sessions == 0
    assert side.receive(0, b"", True) == [SessionFinished(0)]


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize(
    "rest", [data(b"\x00"), data(close()), data(encode_record(0x17, b"")), data(b"\xc0"), DRAIN], ids=repr
)
@pytest.mark.parametrize("together", [True, False])
def test_c4_r86_data_after_close_resets_with_message_error(opened: Any, rest: bytes, together: bool) -> None:
    side = opened()
    if together:
        side.receive(0, close(5, "x") + rest)
    else:
        side.receive(0, close(5, "x"))
        for byte in rest:
            side.receive(0, bytes((byte,)))
    assert side.of(SessionTerminated) == [SessionTerminated(0, 5, "x", clean=True, by="peer", wire_code=None)]
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]
    assert side.close_code is None
    assert side.of(SessionFinished) == [SessionFinished(0)]


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("more", [b"\x40", b"\x17\x00", b"\x17\x05ab"])
def test_r86_more_bytes_in_the_frame_of_the_close_are_data_after_it(opened: Any, more: bytes) -> None:
    side = opened()
    side.receive(0, data(encode_record(0x2843, bytes(4)) + more))
    assert side.resets(0) == [ErrorCodes.H3_MESSAGE_ERROR]


@pytest.mark.parametrize("opened", OPENED)
def test_r86_a_frame_that_goes_on_behind_the_close_resets_before_the_rest_has_arrived(opened: Any) -> None:
    side = opened()
    closing = encode_record(0x2843, bytes(4))
    side.receive(0, data(closing + closing)[: -len(closing)])
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]


@pytest.mark.parametrize("opened", OPENED)
def test_frames_that_carry_nothing_may_follow_the_close(opened: Any) -> None:
    side = opened()
    events = side.receive(0, close() + data(b"") + encode_record(GREASE, b"x"), True)
    assert [type(event) for event in events] == [SessionTerminated, SessionFinished]
    assert side.resets(0) == []


@pytest.mark.parametrize("opened", OPENED)
def test_r89_close_split_over_data_frames_and_packets(opened: Any) -> None:
    side = opened()
    capsule = encode_record(0x2843, bytes(3) + b"\x09" + "späte".encode())
    stream = b"".join(data(capsule[index : index + 1]) for index in range(len(capsule)))
    for byte in stream:
        side.receive(0, bytes((byte,)))
    assert side.of(SessionTerminated) == [SessionTerminated(0, 9, "späte", clean=True, by="peer", wire_code=None)]


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize(
    "value", [b"", b"\0\0\0", bytes(4) + b"a" * 1025, bytes(4) + b"\xff", bytes(4) + b"a" * 1023 + b"\xc3"], ids=len
)
def test_c3_r83_r89_bad_close_capsule_is_message_error(opened: Any, value: bytes) -> None:
    side = opened()
    [closed, _] = side.receive(0, data(encode_record(0x2843, value)))
    assert isinstance(closed, SessionTerminated)
    assert (closed.clean, closed.by, closed.wire_code) == (False, "local", ErrorCodes.H3_MESSAGE_ERROR)
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]
    assert side.close_code is None


@pytest.mark.parametrize("opened", OPENED)
def test_r82_reason_of_1024_bytes_is_taken(opened: Any) -> None:
    side = opened()
    side.receive(0, data(encode_record(0x2843, bytes(4) + b"a" * 1024)))
    assert len(side.of(SessionTerminated)[0].reason) == 1024


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("piece", [b"\x68", b"\x68\x43", b"\x68\x43\x07\x00", b"\x17\x05ab"])
def test_r89_capsule_cut_short_by_the_end_is_message_error(opened: Any, piece: bytes) -> None:
    side = opened()
    [closed, _] = side.receive(0, data(piece), True)
    assert isinstance(closed, SessionTerminated)
    assert closed.wire_code == ErrorCodes.H3_MESSAGE_ERROR


@pytest.mark.parametrize("opened", OPENED)
def test_stop_before_the_close_capsule_does_not_hide_it(opened: Any) -> None:
    side = opened()
    assert side.stop(0, ErrorCodes.WT_SESSION_GONE) == [SessionStopping(0, ErrorCodes.WT_SESSION_GONE)]
    assert side.resets(0) == [ErrorCodes.WT_SESSION_GONE]
    assert side.stop(0, ErrorCodes.WT_SESSION_GONE) == []
    events = side.receive(0, close(4, "why"), True)
    assert events == [SessionTerminated(0, 4, "why", clean=True, by="peer", wire_code=None), SessionFinished(0)]
    assert side.resets(0) == [ErrorCodes.WT_SESSION_GONE]
    assert not side.ended(0)


def test_stop_before_the_answer_does_not_hide_the_close_that_follows() -> None:
    # A server that closes at once: in one packet STOP_SENDING comes before the answer, the capsule and the end.
    side = connecting_client()
    assert side.stop(0, ErrorCodes.WT_SESSION_GONE) == []
    events = side.receive(0, headers((":status", "200")) + close(7, "no"), end=True)
    assert [type(event) for event in events] == [SessionAccepted, SessionStopping, SessionTerminated, SessionFinished]
    assert side.of(SessionTerminated) == [SessionTerminated(0, 7, "no", clean=True, by="peer", wire_code=None)]
    assert side.is_free(0)


@pytest.mark.parametrize("opened", OPENED)
def test_peer_that_only_stops_can_be_aborted(opened: Any) -> None:
    side = opened()
    side.stop(0, 1)
    assert side.run(lambda: side.h3.abort_session(0, ErrorCodes.WT_SESSION_GONE)) == [SessionFinished(0)]
    assert side.stops(0) == [ErrorCodes.WT_SESSION_GONE]


def test_x1_unknown_capsule_of_any_size_is_not_kept() -> None:
    side = open_server(limits=ProtocolLimits(max_buffered=100))
    side.receive(0, varint.encode(0) + varint.encode(2**61))
    side.receive(0, varint.encode(0x17) + varint.encode(2**60))
    for _ in range(200):
        side.receive(0, bytes(65536))
    assert side.close_code is None
    assert side.h3.session_state(0) == "open"


def test_x1_datagram_capsules_are_drained() -> None:
    side = open_server()
    assert side.receive(0, data(encode_record(CapsuleType.DATAGRAM, bytes(70000))) + DRAIN) == [SessionDraining(0)]


def test_c10_fault_of_one_session_leaves_its_siblings_alone() -> None:
    side = server(CHROMIUM)
    for stream_id in (0, 4):
        side.receive(stream_id, connect(token="webtransport"))
        side.h3.accept(stream_id)
    side.receive(0, data(encode_record(0x2843, b"")))
    assert side.h3.session_state(0) is None
    assert side.h3.session_state(4) == "open"
    assert side.close_code is None


@pytest.mark.parametrize("opened", OPENED)
def test_input_for_a_finished_session_means_nothing(opened: Any) -> None:
    side = opened()
    side.receive(0, b"", True)
    count = len(side.outputs)
    assert side.receive(0, close(), True) == []
    assert side.reset(0, 1) == []
    assert side.stop(0, 1) == []
    side.run(lambda: side.h3.close_session(0, 0, ""))
    assert len(side.outputs) == count
    assert side.close_code is None


# -- drain and GOAWAY


@pytest.mark.parametrize("opened", OPENED)
def test_r55_drain_is_reported_once_and_the_session_stays_open(opened: Any) -> None:
    side = opened()
    assert side.receive(0, DRAIN + DRAIN) == [SessionDraining(0)]
    assert side.h3.session_state(0) == "open"


@pytest.mark.parametrize("opened", OPENED)
def test_r55_drain_with_a_value_is_message_error(opened: Any) -> None:
    side = opened()
    side.receive(0, data(encode_record(0x78AE, b"x")))
    assert side.resets(0) == [ErrorCodes.H3_MESSAGE_ERROR]


@pytest.mark.parametrize("opened", OPENED)
def test_r55_r56_we_send_drain_and_go_on(opened: Any) -> None:
    side = opened()
    side.run(lambda: side.h3.drain_session(0))
    assert side.of(Send)[-1] == Send(0, bytes.fromhex("0005 800078ae 00"), False)
    assert side.h3.session_state(0) == "open"


def test_r53_r54_goaway_drains_all_sessions_and_forbids_new_ones() -> None:
    side = client([(0x33, 1), (0x2B603742, 1)])
    side.h3.send_connect(0, authority="a", path="/")
    side.receive(0, bytes.fromhex("0103 0000 d9"))
    events = side.receive(SERVER_CONTROL, encode_record(0x7, varint.encode(4)))
    assert events == [GoawayReceived(4), SessionDraining(0)]
    assert side.h3.session_state(0) == "open"
    with pytest.raises(SessionStateError, match="going away"):
        side.h3.send_connect(4, authority="a", path="/")


def test_request_that_goaway_excludes_is_over() -> None:
    side = connecting_client()
    events = side.receive(SERVER_CONTROL, encode_record(0x7, varint.encode(0)))
    assert [type(event) for event in events] == [GoawayReceived, SessionTerminated, SessionFinished]
    assert isinstance(events[1], SessionTerminated)
    assert (events[1].by, events[1].wire_code) == ("peer", ErrorCodes.H3_REQUEST_REJECTED)
    assert side.resets(0) == [ErrorCodes.H3_REQUEST_CANCELLED]


@pytest.mark.parametrize("identifier", [1, 2, 3, 5])
def test_goaway_naming_no_request_is_id_error(identifier: int) -> None:
    side = client()
    side.receive(SERVER_CONTROL, encode_record(0x7, varint.encode(identifier)))
    assert side.close_code == ErrorCodes.H3_ID_ERROR


def test_goaway_may_come_again_but_not_grow() -> None:
    side = client()
    for identifier in (8, 8, 4):
        side.receive(SERVER_CONTROL, encode_record(0x7, varint.encode(identifier)))
        assert side.close_code is None
    side.receive(SERVER_CONTROL, encode_record(0x7, varint.encode(8)))
    assert side.close_code == ErrorCodes.H3_ID_ERROR


def test_goaway_of_a_client_names_a_push() -> None:
    side = open_server()
    side.receive(8, headers((":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")))
    assert side.receive(CLIENT_CONTROL, encode_record(0x7, varint.encode(3))) == [GoawayReceived(3), SessionDraining(0)]


def test_after_our_goaway_new_requests_are_rejected_and_old_sessions_live() -> None:
    side = open_server()
    side.run(side.h3.send_goaway)
    side.run(side.h3.send_goaway)
    assert side.of(Send)[-1].data == encode_record(0x7, varint.encode(4))
    side.receive(4, connect())
    assert side.resets(4) == [ErrorCodes.H3_REQUEST_REJECTED]
    assert side.h3.session_state(0) == "open"
    assert len(side.of(SessionRequested)) == 1


# -- session ids


@pytest.mark.parametrize("session_id", [1, 2, 3, 5, 2**62, -4])
def test_r35_h15_impossible_session_id_closes_with_id_error(session_id: int) -> None:
    side = open_server()
    assert side.h3.check_session_id(session_id) is False
    side.collect()
    assert side.close_code == ErrorCodes.H3_ID_ERROR


@pytest.mark.parametrize("session_id", [0, 4, 400, 2**62 - 4])
def test_r35_server_waits_for_sessions_that_may_still_come(session_id: int) -> None:
    side = open_server()
    assert side.h3.check_session_id(session_id) is True
    side.collect()
    assert side.close_code is None


def test_r35_client_knows_which_sessions_it_asked_for() -> None:
    side = open_client()
    assert side.h3.check_session_id(0)
    assert not side.h3.check_session_id(4)
    side.collect()
    assert side.close_code == ErrorCodes.H3_ID_ERROR


@pytest.mark.parametrize("opened", OPENED)
def test_r36_id_of_a_session_that_ended_is_no_error(opened: Any) -> None:
    side = opened()
    side.receive(0, b"", True)
    assert side.h3.check_session_id(0)
    side.collect()
    assert side.close_code is None


# -- the table


@pytest.mark.parametrize("state", [state for state in State if state is not State.FINISHED])
@pytest.mark.parametrize("event", [Input.RESET, Input.STOP, Input.FAULT, Input.ABORT, Input.CLOSE])
def test_table_has_an_answer_to_everything_a_peer_can_do(state: State, event: Input) -> None:
    assert (state, event) in TRANSITIONS


def test_table_never_stops_in_the_flight_of_a_close() -> None:
    for (state, event), (following, effects) in TRANSITIONS.items():
        if Effect.FINISH in effects and state is not State.CONNECTING:
            assert Effect.STOP not in effects, (state, event)
            assert Effect.RESET not in effects, (state, event)
        if following is State.FINISHED and state is not State.FINISHED:
            assert effects[-1] is Effect.FREE, (state, event)


def test_table_reports_a_close_at_most_once() -> None:
    def walk(state: State, seen: bool, path: tuple[State, ...]) -> None:
        for (start, _), (following, effects) in TRANSITIONS.items():
            if start is not state:
                continue
            reports = Effect.REPORT in effects
            assert not (reports and seen), (path, state)
            if following is not state and following not in path:
                walk(following, seen or reports, (*path, state))

    for state in (State.PARKED, State.CONNECTING):
        walk(state, False, ())


def test_every_live_state_can_be_left() -> None:
    for state in LIVE:
        assert any(start is state and following not in LIVE for (start, _), (following, _) in TRANSITIONS.items())


def test_step_that_the_table_lacks_changes_nothing() -> None:
    session = Session(State.OPEN)
    with pytest.raises(SessionStateError) as caught:
        session.step(Input.ACCEPT)
    assert caught.value.state == "open"
    assert session.state is State.OPEN


# -- exporter


def test_r58_exporter_context() -> None:
    assert EXPORTER_LABEL == b"EXPORTER-WebTransport"
    assert exporter_context(4, b"ab", b"xyz").hex() == "0000000000000004" + "02" + "6162" + "03" + "78797a"
    assert exporter_context(4, b"") == bytes(7) + b"\x04\0\0"
    for label, context in ((b"a" * 256, b""), (b"", b"a" * 256)):
        with pytest.raises(ValueError, match="255"):
            exporter_context(0, label, context)
