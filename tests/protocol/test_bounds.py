"""What a peer can make a connection keep has a bound; what it may repeat is in ``test_excessive_load``."""

from __future__ import annotations

from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.frames import encode_record
from wtio.protocol.limits import ProtocolLimits
from wtio.protocol.outbox import MOST_FREED

from .pair import CHROMIUM, CLIENT_CONTROL, GREASE, Side, connect, data, headers, requested_server, server


def test_finished_requests_are_remembered_up_to_a_bound() -> None:
    side = server(CHROMIUM)
    for number in range(2 * MOST_FREED):
        side.receive(4 * number, connect(token="webtransport"))
        side.run(lambda number=number: side.h3.accept(4 * number))  # type: ignore[misc]
        side.receive(4 * number, b"", True)
    assert len(side.h3.outbox._freed or ()) == MOST_FREED
    assert not list(side.h3._requests)
    assert not side.h3._requests.buffered


def test_streams_of_the_peer_are_forgotten_when_they_are_over() -> None:
    side = server()
    before = len(side.h3._peer_streams._streams or ())
    for number in range(1, 200):
        stream = CLIENT_CONTROL + 4 * number
        if number % 3 == 0:
            side.receive(stream, varint.encode(GREASE))
        elif number % 3 == 1:
            side.receive(stream, b"\x40")
            side.reset(stream, 0)
        else:
            side.receive(stream, b"\x40", True)
    assert side.close_code is None
    assert len(side.h3._peer_streams._streams or ()) == before


def test_incomplete_frames_of_all_streams_together_are_bounded() -> None:
    limits = ProtocolLimits(max_buffered=5000, max_field_section_size=4000)
    side = server(CHROMIUM, limits=limits)
    half = headers((":method", "GET"), ("x", "y" * 3000))[:2000]
    for number in range(2):
        side.receive(4 * number, half)
    assert not side.h3.closed
    side.receive(8, half)
    assert side.close_code == ErrorCodes.H3_EXCESSIVE_LOAD


def test_capsules_ahead_of_the_answer_are_bounded() -> None:
    limits = ProtocolLimits(max_held_capsules=3)
    side = requested_server(limits=limits)
    capsule = data(encode_record(CapsuleType.WT_DRAIN_SESSION, b""))
    for _ in range(3):
        side.receive(0, capsule)
    assert held(side) == 3
    side.receive(0, capsule)
    assert side.resets(0) == [ErrorCodes.H3_EXCESSIVE_LOAD]


def held(side: Side) -> int:
    found = side.h3._requests.session(0)
    assert found
    return len(found[1].held or ())


def test_nothing_is_kept_of_a_record_that_is_skipped() -> None:
    side = server(CHROMIUM)
    side.receive(0, connect(token="webtransport"))
    side.run(lambda: side.h3.accept(0))
    side.receive(0, data(varint.encode(GREASE) + varint.encode(1 << 30)))
    side.receive(0, varint.encode(GREASE) + varint.encode(1 << 30))
    side.receive(CLIENT_CONTROL, varint.encode(GREASE) + varint.encode(1 << 30))
    for _ in range(50):
        side.receive(0, bytes(50_000))
        side.receive(CLIENT_CONTROL, bytes(50_000))
    assert side.close_code is None
    stream = side.h3._requests.get(0)
    assert stream
    assert stream.buffered == side.h3._requests.buffered == 0
    assert side.h3._peer_streams._control.buffered == 0
