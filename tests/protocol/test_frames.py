from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtio.protocol import varint
from wtio.protocol.frames import Handling, RecordReader, data_stream_header, encode_record

records = st.lists(st.tuples(st.integers(0, varint.MAX_VARINT), st.binary(max_size=40)), max_size=8)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(borders)]


@given(records, st.lists(st.integers(0, 400), max_size=12))
def test_records_survive_any_split(written: list[tuple[int, bytes]], places: list[int]) -> None:
    stream = b"".join(encode_record(kind, value) for kind, value in written)
    reader = RecordReader()
    read = [record for piece in cut(stream, places) for record in reader.feed(piece, lambda *_: Handling.COLLECT)]
    assert read == written
    assert reader.at_boundary
    assert reader.buffered == 0


@given(records, st.lists(st.integers(0, 400), max_size=12))
def test_streamed_values_are_passed_on_and_never_kept(written: list[tuple[int, bytes]], places: list[int]) -> None:
    stream = b"".join(encode_record(kind, value) for kind, value in written)
    reader = RecordReader()
    received = b""
    for piece in cut(stream, places):
        received += b"".join(value for _, value in reader.feed(piece, lambda *_: Handling.STREAM))
        assert reader.buffered < 16
    assert received == b"".join(value for _, value in written)


def test_x1_skipped_value_of_any_length_is_not_kept() -> None:
    reader = RecordReader()
    assert list(reader.feed(varint.encode(99) + varint.encode(2**62 - 1), lambda *_: Handling.SKIP)) == []
    for _ in range(100):
        assert list(reader.feed(bytes(65536), lambda *_: Handling.SKIP)) == []
        assert reader.buffered == 0
    assert not reader.at_boundary


def test_head_is_judged_before_any_value_is_kept() -> None:
    seen: list[tuple[int, int]] = []

    def classify(kind: int, length: int) -> Handling:
        seen.append((kind, length))
        raise ValueError("no")

    reader = RecordReader()
    with pytest.raises(ValueError, match="no"):
        list(reader.feed(varint.encode(1) + varint.encode(2**40), classify))
    assert seen == [(1, 2**40)]
    assert reader.buffered == 0


def test_next_head_is_judged_after_the_record_before_it_was_handled() -> None:
    order: list[str] = []

    def classify(kind: int, length: int) -> Handling:
        order.append(f"judge {kind}")
        return Handling.COLLECT

    for kind, _ in RecordReader().feed(encode_record(1, b"x") + encode_record(2, b""), classify):
        order.append(f"handle {kind}")
    assert order == ["judge 1", "handle 1", "judge 2", "handle 2"]


@pytest.mark.parametrize(
    ("session_id", "bidirectional", "header"),
    [
        (0, True, "404100"),
        (0, False, "405400"),
        (4, True, "404104"),
        (64, False, "40544040"),
        (2**62 - 4, True, "4041fffffffffffffffc"),
    ],
)
def test_r37_r38_data_stream_header(session_id: int, bidirectional: bool, header: str) -> None:
    assert data_stream_header(session_id, bidirectional=bidirectional).hex() == header
