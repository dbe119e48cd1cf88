"""What a peer can repeat for ever at no cost: it may, up to a point (RFC 9114, section 10.5)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import pytest

from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType, encode_limit
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.frames import encode_record
from wtio.protocol.limits import SMALL_FRAME, ProtocolLimits
from wtio.protocol.outbox import ConnectionFailed

from .pair import (
    CHROMIUM,
    CLIENT_CONTROL,
    CLIENT_DECODER,
    DRAFT15_CLIENT,
    DRAFT15_SERVER,
    FLOW_CONTROL,
    GREASE,
    SERVER_CONTROL,
    Side,
    client,
    connect,
    data,
    headers,
    server,
)

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS = REQUESTS = 200
LIMITS: Final = ProtocolLimits(max_idle_records=RECORDS, max_refused_requests=REQUESTS)
FREE: Final = 10
"""The first ones of a kind may have an effect."""


@dataclass
class Earned:
    """Earnings, as a driver knows them."""

    earned: int = 0

    def records(self) -> int:
        earned, self.earned = self.earned, 0
        return earned

    requests = records


def flow_server(**options: object) -> Side:
    """A server with session flow control and an open session on stream 0."""
    window = {"initial_max_data": 1000, "initial_max_streams_bidi": 10, "initial_max_streams_uni": 10}
    side = server([*DRAFT15_CLIENT, *FLOW_CONTROL], limits=LIMITS, **window, **options)
    side.receive(0, connect())
    side.run(lambda: side.h3.accept(0))
    return side


def control(frame: bytes) -> Callable[[Side, int], None]:
    return lambda side, _: side.h3.receive_data(CLIENT_CONTROL, frame, False)


def request(frame: bytes) -> Callable[[Side, int], None]:
    return lambda side, _: side.h3.receive_data(0, frame, False)


def capsule(kind: int, value: bytes) -> Callable[[Side, int], None]:
    return request(data(encode_record(kind, value)))


def limit(kind: int, start: int) -> Callable[[Side, int], None]:
    return lambda side, number: side.h3.receive_data(0, data(encode_limit(kind, start + number)), False)


def decoder(side: Side, number: int) -> None:
    side.h3.receive_data(CLIENT_DECODER, b"\x41" if number else b"\x03\x41", False)


def inside_a_capsule(side: Side, number: int) -> None:
    """Bytes of a capsule that never ends, one in each frame."""
    side.h3.receive_data(0, data(b"x" if number else varint.encode(GREASE) + varint.encode(1 << 40)), False)


IDLE_RECORDS: Final[dict[str, Callable[[Side, int], None]]] = {
    "GOAWAY": control(encode_record(0x7, b"\x00")),
    "MAX_PUSH_ID": control(encode_record(0xD, b"\x05")),
    "MAX_PUSH_ID that grows": lambda side, number: side.h3.receive_data(
        CLIENT_CONTROL, encode_record(0xD, varint.encode(number)), False
    ),
    "PRIORITY_UPDATE": control(encode_record(0xF0700, b"\x00u=1")),
    "long PRIORITY_UPDATE": control(encode_record(0xF0700, bytes(1000))),
    "reserved frame on the control stream": control(encode_record(GREASE, b"")),
    "unknown frame on the control stream": control(encode_record(0x4242, bytes(100))),
    "reserved frame on a request stream": request(encode_record(GREASE, b"")),
    "unknown frame on a request stream": request(encode_record(0x4242, bytes(100))),
    "empty DATA": request(data(b"")),
    "DATA that completes nothing": inside_a_capsule,
    "reserved capsule": capsule(0x29 * 5 + 0x17, b""),
    "unknown capsule": capsule(0x4242, bytes(100)),
    "DATAGRAM capsule": capsule(CapsuleType.DATAGRAM, b"x"),
    "WT_DRAIN_SESSION": capsule(CapsuleType.WT_DRAIN_SESSION, b""),
    "WT_DATA_BLOCKED": capsule(CapsuleType.WT_DATA_BLOCKED, b"\x01"),
    "WT_STREAMS_BLOCKED_BIDI": capsule(CapsuleType.WT_STREAMS_BLOCKED_BIDI, b"\x01"),
    "WT_STREAMS_BLOCKED_UNI": capsule(CapsuleType.WT_STREAMS_BLOCKED_UNI, b"\x01"),
    "WT_MAX_DATA by one": limit(CapsuleType.WT_MAX_DATA, 1001),
    "WT_MAX_STREAMS_BIDI by one": limit(CapsuleType.WT_MAX_STREAMS_BIDI, 21),
    "WT_MAX_STREAMS_UNI by one": limit(CapsuleType.WT_MAX_STREAMS_UNI, 11),
    "stream cancellation of QPACK": decoder,
}


@pytest.mark.parametrize("kind", IDLE_RECORDS)
def test_a_flood_without_effect_closes_the_connection(kind: str) -> None:
    side = flow_server()
    repeat = IDLE_RECORDS[kind]
    for number in range(RECORDS // 2):
        repeat(side, number)
    assert not side.h3.closed
    for number in range(RECORDS // 2, RECORDS + FREE):
        repeat(side, number)
    side.collect()
    assert side.close_code == ErrorCodes.H3_EXCESSIVE_LOAD
    assert "without effect" in side.of(ConnectionFailed)[0].reason


@pytest.mark.parametrize("kind", IDLE_RECORDS)
def test_what_time_and_traffic_earn_goes_on_for_ever(kind: str) -> None:
    earned = Earned()
    side = flow_server(earnings=earned)
    repeat = IDLE_RECORDS[kind]
    for number in range(3 * RECORDS):
        earned.earned += 2  # a small frame and the capsule in it may both be idle
        repeat(side, number)
    side.collect()
    assert side.close_code is None


@pytest.mark.parametrize("kind", IDLE_RECORDS)
@pytest.mark.unmeasured
def test_a_flood_is_one_however_its_bytes_are_cut(kind: str) -> None:
    whole, pieces = flow_server(), flow_server()
    receive = pieces.h3.receive_data

    def receive_bytes(stream_id: int, payload: bytes, end: bool) -> None:
        for byte in payload:
            receive(stream_id, bytes((byte,)), end)

    count = 0
    while not whole.h3.closed:
        assert not pieces.h3.closed
        IDLE_RECORDS[kind](whole, count)
        cut = SimpleNamespace(h3=SimpleNamespace(receive_data=receive_bytes))
        IDLE_RECORDS[kind](cut, count)  # type: ignore[arg-type]
        count += 1
    assert pieces.h3.closed


def test_large_frames_pay_for_themselves() -> None:
    side = flow_server()
    side.receive(0, data(varint.encode(GREASE) + varint.encode(1 << 40)))
    for _ in range(5 * RECORDS):
        side.h3.receive_data(0, data(bytes(SMALL_FRAME)), False)
    assert not side.h3.closed


def test_a_client_counts_its_server_too() -> None:
    side = client(DRAFT15_SERVER, limits=LIMITS)
    for _ in range(RECORDS + FREE):
        side.h3.receive_data(SERVER_CONTROL, encode_record(GREASE, b""), False)
    side.collect()
    assert side.close_code == ErrorCodes.H3_EXCESSIVE_LOAD


def broken(side: Side, number: int) -> None:
    side.h3.receive_data(4 * number, headers((":method", "CONNECT")), False)


def beyond_the_limit(side: Side, number: int) -> None:
    side.h3.receive_data(4 * number, connect(token="webtransport"), False)


def unknown_protocol(side: Side, number: int) -> None:
    side.h3.receive_data(4 * number, connect(token="masque"), False)


def too_large(side: Side, number: int) -> None:
    side.h3.receive_data(4 * number, varint.encode(0x1) + varint.encode(1 << 30), False)


def after_goaway(side: Side, number: int) -> None:
    side.h3.send_goaway()
    side.h3.receive_data(4 * number, connect(token="webtransport"), False)


def reset_before_the_answer(side: Side, number: int) -> None:
    side.h3.receive_data(4 * number, connect(token="webtransport"), False)
    side.h3.receive_reset(4 * number, ErrorCodes.H3_REQUEST_CANCELLED)


def stopped_before_the_answer(side: Side, number: int) -> None:
    side.h3.receive_data(4 * number, connect(token="webtransport"), False)
    side.h3.receive_stop(4 * number, ErrorCodes.H3_REQUEST_CANCELLED)


def reset_ordinary_request(side: Side, number: int) -> None:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")]
    side.h3.receive_data(4 * number, headers(*fields), False)
    side.h3.receive_reset(4 * number, ErrorCodes.H3_REQUEST_CANCELLED)


def unknown_stream(side: Side, number: int) -> None:
    side.h3.receive_data(CLIENT_CONTROL + 4 * (number + 1), varint.encode(GREASE), False)


def turned_away(side: Side, _: int) -> None:
    side.h3.note_refused()


REFUSED: Final = {
    function.__name__: function
    for function in (
        broken,
        beyond_the_limit,
        unknown_protocol,
        too_large,
        after_goaway,
        reset_before_the_answer,
        stopped_before_the_answer,
        reset_ordinary_request,
        unknown_stream,
        turned_away,
    )
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_flood_of_requests_that_come_to_nothing_closes_the_connection(kind: str) -> None:
    side = server(CHROMIUM, limits=LIMITS, max_sessions=1)
    for number in range(REQUESTS - FREE):
        REFUSED[kind](side, number)
    assert not side.h3.closed
    for number in range(REQUESTS - FREE, REQUESTS + FREE):
        REFUSED[kind](side, number)
    side.collect()
    assert side.close_code == ErrorCodes.H3_EXCESSIVE_LOAD
    assert "refused" in side.of(ConnectionFailed)[0].reason


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_requests_that_are_earned_go_on_for_ever(kind: str) -> None:
    earned = Earned()
    side = server(CHROMIUM, limits=LIMITS, max_sessions=1, earnings=earned)
    for number in range(2 * REQUESTS):
        earned.earned += 1
        REFUSED[kind](side, number)
    side.collect()
    assert side.close_code is None


def test_a_client_counts_streams_of_its_server_that_mean_nothing() -> None:
    side = client(DRAFT15_SERVER, limits=LIMITS)
    for number in range(REQUESTS + FREE):
        side.h3.receive_data(4 * number + 1, b"\x40", True)
    side.collect()
    assert side.close_code == ErrorCodes.H3_EXCESSIVE_LOAD


def test_sessions_that_were_accepted_are_no_flood() -> None:
    side = server(CHROMIUM, limits=LIMITS, max_sessions=1)
    for number in range(3 * REQUESTS):
        side.receive(4 * number, connect(token="webtransport"))
        side.run(lambda number=number: side.h3.accept(4 * number))  # type: ignore[misc]
        side.reset(4 * number, ErrorCodes.H3_REQUEST_CANCELLED)
    assert side.close_code is None
