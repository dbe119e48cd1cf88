"""RFC 9114, sections 6.2 and 7.2: unidirectional streams and the frames of the control stream."""

import pytest

from wtio.protocol import varint
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.frames import encode_record
from wtio.protocol.outbox import ConnectionFailed, Role, SettingsReceived

from .pair import (
    CLIENT_CONTROL,
    CLIENT_DECODER,
    CLIENT_ENCODER,
    DRAFT15_CLIENT,
    DRAFT15_SERVER,
    GREASE,
    SERVER_CONTROL,
    Side,
    client,
    control_stream,
    open_server,
    server,
)


def control(side: Side, frame: bytes, end: bool = False) -> int | None:
    side.receive(SERVER_CONTROL if side.h3.is_client else CLIENT_CONTROL, frame, end)
    return side.close_code


@pytest.mark.parametrize("first", [0x0, 0x1, 0x7, 0xD, GREASE, 0x41])
def test_first_frame_other_than_settings_is_missing_settings(first: int) -> None:
    side = server(None)
    assert control(side, b"\x00" + encode_record(first, b"\x00")) == ErrorCodes.H3_MISSING_SETTINGS


def test_second_settings_frame_is_unexpected() -> None:
    assert control(server(), encode_record(0x4, b"")) == ErrorCodes.H3_FRAME_UNEXPECTED


@pytest.mark.parametrize("kind", [0x0, 0x1, 0x5, 0x2, 0x6, 0x8, 0x9])
@pytest.mark.parametrize("length", [0, 2**40])
def test_frame_that_does_not_belong_is_unexpected(kind: int, length: int) -> None:
    frame = varint.encode(kind) + varint.encode(length)
    assert control(server(), frame) == ErrorCodes.H3_FRAME_UNEXPECTED


def test_r39_stream_signal_on_the_control_stream_is_frame_error() -> None:
    assert control(server(), encode_record(0x41, b"\x00")) == ErrorCodes.H3_FRAME_ERROR


def test_grease_frames_are_drained_and_not_kept() -> None:
    side = server()
    assert control(side, varint.encode(GREASE) + varint.encode(10_000_000)) is None
    for _ in range(100):
        assert control(side, bytes(100_000)) is None
    assert control(side, encode_record(0x7, b"\x00")) is None
    assert side.h3.goaway_received


def test_second_control_stream_is_stream_creation_error() -> None:
    side = server()
    side.receive(14, b"\x00")
    assert side.close_code == ErrorCodes.H3_STREAM_CREATION_ERROR


@pytest.mark.parametrize("kind", [b"\x02", b"\x03"])
def test_second_qpack_stream_is_stream_creation_error(kind: bytes) -> None:
    side = server()
    side.receive(CLIENT_ENCODER, kind)
    side.receive(14, kind)
    assert side.close_code == ErrorCodes.H3_STREAM_CREATION_ERROR


@pytest.mark.parametrize("stream_id", [CLIENT_CONTROL, CLIENT_ENCODER, CLIENT_DECODER])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_closing_a_critical_stream_closes_the_connection(stream_id: int, how: str) -> None:
    side = server()
    side.receive(CLIENT_ENCODER, b"\x02")
    side.receive(CLIENT_DECODER, b"\x03")
    assert side.close_code is None
    if how == "end":
        side.receive(stream_id, b"", True)
    else:
        side.reset(stream_id, 0)
    assert side.close_code == ErrorCodes.H3_CLOSED_CRITICAL_STREAM


@pytest.mark.parametrize("stream", [*Role, 3, 7, 11])
def test_stopping_our_critical_stream_closes_the_connection(stream: int | Role) -> None:
    side = server()
    side.stop(stream, 0)
    assert side.close_code == ErrorCodes.H3_CLOSED_CRITICAL_STREAM


@pytest.mark.parametrize("kind", [GREASE, 0x04, 0x54, 2**62 - 1])
def test_stream_of_unknown_type_is_stopped_and_forgotten(kind: int) -> None:
    side = server()
    side.receive(14, varint.encode(kind) + bytes(100))
    assert side.close_code is None
    assert side.stops(14) == [ErrorCodes.H3_STREAM_CREATION_ERROR]
    assert side.is_free(14)
    side.receive(14, b"\x00more", True)
    assert side.close_code is None


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("head", [b"", b"\x40", b"\xc0\0\0\0\0\0\0"])
def test_unidirectional_stream_may_end_inside_its_type(head: bytes, how: str) -> None:
    side = server()
    side.receive(14, head, how == "end")
    if how == "reset":
        side.reset(14, 0x100)
    assert side.close_code is None
    assert side.is_free(14)


def test_push_stream_of_a_client_is_stream_creation_error() -> None:
    side = server()
    side.receive(14, b"\x01")
    assert side.close_code == ErrorCodes.H3_STREAM_CREATION_ERROR


def test_push_stream_of_a_server_is_id_error() -> None:
    side = client()
    side.receive(15, b"\x01\x00")
    assert side.close_code == ErrorCodes.H3_ID_ERROR


def test_bidirectional_stream_of_a_server_is_stream_creation_error() -> None:
    side = client()
    side.receive(1, encode_record(0x1, b""))
    assert side.close_code == ErrorCodes.H3_STREAM_CREATION_ERROR


@pytest.mark.parametrize("head", [b"", b"\x40", b"\x40\x41", b"\x40\x41\x40"])
def test_r40_data_stream_of_a_server_may_end_inside_its_header(head: bytes) -> None:
    side = client()
    side.receive(1, head, True)
    assert side.close_code is None
    assert side.is_free(1)


def test_type_and_settings_survive_any_split() -> None:
    stream = control_stream(DRAFT15_CLIENT)
    side = server(None)
    for byte in stream:
        side.receive(CLIENT_CONTROL, bytes((byte,)))
    assert [event.settings for event in side.of(SettingsReceived)] == [dict(DRAFT15_CLIENT)]


def test_stream_type_may_be_written_in_more_bytes_than_needed() -> None:
    side = server(None)
    side.receive(CLIENT_CONTROL, b"\x40\x00" + control_stream(DRAFT15_CLIENT)[1:])
    assert side.of(SettingsReceived)


def test_x2_large_settings_frame_is_excessive_load_before_it_is_read() -> None:
    side = server(None)
    assert control(side, b"\x00\x04" + varint.encode(8193)) == ErrorCodes.H3_EXCESSIVE_LOAD


@pytest.mark.parametrize("kind", [0x3, 0x7, 0xD])
@pytest.mark.parametrize("payload", [b"", b"\x40", b"\x00\x00", bytes(9)])
def test_id_frame_of_wrong_length_is_frame_error(kind: int, payload: bytes) -> None:
    assert control(server(), encode_record(kind, payload)) == ErrorCodes.H3_FRAME_ERROR


def test_max_push_id_may_grow_but_not_shrink() -> None:
    side = server()
    for value in (0, 5, 5):
        assert control(side, encode_record(0xD, varint.encode(value))) is None
    assert control(side, encode_record(0xD, varint.encode(4))) == ErrorCodes.H3_ID_ERROR


def test_max_push_id_of_a_server_is_unexpected() -> None:
    assert control(client(), encode_record(0xD, b"\x00")) == ErrorCodes.H3_FRAME_UNEXPECTED


@pytest.mark.parametrize("side", [server(), client()])
def test_cancelling_a_push_that_does_not_exist_is_id_error(side: Side) -> None:
    assert control(side, encode_record(0x3, b"\x00")) == ErrorCodes.H3_ID_ERROR


@pytest.mark.parametrize("value", [b"u=1", b"u=9, i=?x", b"", b"\xff", bytes(100_000)], ids=len)
def test_r90_priority_update_of_a_client_is_taken_and_means_nothing(value: bytes) -> None:
    side = open_server()
    for stream_id in (0, 400):
        assert control(side, encode_record(0xF0700, varint.encode(stream_id) + value)) is None
    assert side.h3.session_state(0) == "open"


@pytest.mark.parametrize("kind", [0xF0700, 0xF0701])
def test_r90_priority_update_of_a_server_is_unexpected(kind: int) -> None:
    assert control(client(), encode_record(kind, b"\x00u=1")) == ErrorCodes.H3_FRAME_UNEXPECTED


@pytest.mark.parametrize(("kind", "stream_id"), [(0xF0700, 1), (0xF0700, 2), (0xF0700, 3), (0xF0701, 0)])
def test_r90_priority_update_for_no_request_is_id_error(kind: int, stream_id: int) -> None:
    assert control(server(), encode_record(kind, varint.encode(stream_id) + b"u=1")) == ErrorCodes.H3_ID_ERROR


@pytest.mark.parametrize("payload", [b"", b"\x40", b"\xc0\0\0"])
def test_r90_priority_update_without_an_id_is_frame_error(payload: bytes) -> None:
    assert control(server(), encode_record(0xF0700, payload)) == ErrorCodes.H3_FRAME_ERROR


@pytest.mark.trap("X5")
def test_dynamic_table_use_closes_the_connection() -> None:
    side = server()
    side.receive(CLIENT_ENCODER, b"\x02\x20\xc0\x01a")
    assert side.close_code == ErrorCodes.QPACK_ENCODER_STREAM_ERROR
    other = client(DRAFT15_SERVER)
    other.receive(11, b"\x03\x44\x80")
    assert other.close_code == ErrorCodes.QPACK_DECODER_STREAM_ERROR


def test_connection_is_closed_once_and_then_deaf() -> None:
    side = server()
    control(side, encode_record(0x4, b""))
    assert side.of(ConnectionFailed) == [ConnectionFailed(ErrorCodes.H3_FRAME_UNEXPECTED, "second SETTINGS frame")]
    count = len(side.outputs)
    control(side, encode_record(0x4, b""))
    side.receive(0, b"\x00\x00")
    side.reset(CLIENT_CONTROL, 0)
    side.stop(Role.CONTROL, 0)
    side.run(lambda: side.h3.fail(1, "again"))
    side.run(side.h3.send_goaway)
    assert len(side.outputs) == count
    assert side.h3.closed


def test_another_layer_can_close_the_connection() -> None:
    side = server()
    side.run(lambda: side.h3.fail(ErrorCodes.H3_DATAGRAM_ERROR, "datagram without a session"))
    assert side.close_code == ErrorCodes.H3_DATAGRAM_ERROR
