import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtio.protocol import varint
from wtio.protocol.capsules import (
    CapsuleType,
    classify_capsule,
    cut_reason,
    decode_close,
    decode_limit,
    encode_close,
    encode_limit,
)
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import StreamFault
from wtio.protocol.frames import Handling

LIMITS = [
    CapsuleType.WT_MAX_DATA,
    CapsuleType.WT_MAX_STREAMS_BIDI,
    CapsuleType.WT_MAX_STREAMS_UNI,
    CapsuleType.WT_DATA_BLOCKED,
    CapsuleType.WT_STREAMS_BLOCKED_BIDI,
    CapsuleType.WT_STREAMS_BLOCKED_UNI,
]
COUNTS = [kind for kind in LIMITS if "STREAMS" in kind.name]


@given(st.integers(0, 2**32 - 1), st.text(max_size=256))
def test_close_survives(code: int, reason: str) -> None:
    capsule = encode_close(code, reason)
    kind, length = varint.decode(capsule), varint.decode(capsule, 2)
    assert kind
    assert length
    assert (kind[0], length[0]) == (0x2843, len(capsule) - length[1])
    assert decode_close(capsule[length[1] :]) == (code, reason)


def test_close_vector() -> None:
    assert encode_close(0x01020304, "bye").hex() == "6843" + "07" + "01020304" + "627965"
    assert encode_close(0, "").hex() == "684304" + "00000000"


@pytest.mark.parametrize(
    ("reason", "length"),
    [
        ("a" * 1024, 1024),
        ("a" * 1025, 1024),
        ("a" * 1023 + "é", 1023),
        ("é" * 600, 1024),
        ("日" * 400, 1023),
        ("a" + "😀" * 300, 1021),
    ],
)
def test_c3_long_reason_is_cut_between_characters(reason: str, length: int) -> None:
    cut = cut_reason(reason)
    assert len(cut) == length
    assert reason.startswith(cut.decode())


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_c3_any_reason_can_be_sent(reason: str) -> None:
    cut = cut_reason(reason)
    assert len(cut) <= 1024
    cut.decode()


def test_c3_lone_surrogate_becomes_the_replacement_character() -> None:
    assert cut_reason("a\ud800b").decode() == "a\ufffdb"
    assert cut_reason("\ud83d\ude00").decode() == "😀"


@pytest.mark.parametrize("code", [-1, 2**32])
def test_close_code_has_32_bits(code: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        encode_close(code, "")


@pytest.mark.parametrize("length", [0, 3, 1029, 2**40])
def test_r89_close_of_impossible_length_is_message_error_before_it_is_read(length: int) -> None:
    with pytest.raises(StreamFault) as caught:
        classify_capsule(CapsuleType.WT_CLOSE_SESSION, length, flow_control=False)
    assert caught.value.code == ErrorCodes.H3_MESSAGE_ERROR


@pytest.mark.parametrize("reason", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"ok\xc0\x80"])
def test_r83_reason_that_is_not_utf8_is_message_error(reason: bytes) -> None:
    with pytest.raises(StreamFault) as caught:
        decode_close(bytes(4) + reason)
    assert caught.value.code == ErrorCodes.H3_MESSAGE_ERROR


@given(st.sampled_from(LIMITS), st.integers(0, 2**60))
def test_limit_survives(kind: CapsuleType, limit: int) -> None:
    capsule = encode_limit(kind, limit)
    assert capsule[:4] == varint.encode(kind)
    assert decode_limit(kind, capsule[5:]) == limit


@pytest.mark.parametrize("kind", COUNTS)
def test_r68_stream_count_above_2_60_is_flow_control_error(kind: CapsuleType) -> None:
    assert decode_limit(kind, varint.encode(2**60)) == 2**60
    with pytest.raises(StreamFault) as caught:
        decode_limit(kind, varint.encode(2**60 + 1))
    assert caught.value.code == ErrorCodes.WT_FLOW_CONTROL_ERROR
    with pytest.raises(ValueError, match="2\\*\\*60"):
        encode_limit(kind, 2**60 + 1)


@pytest.mark.parametrize("value", ["40", "0000", "c0000000000000"])
def test_limit_that_is_no_single_number_is_message_error(value: str) -> None:
    with pytest.raises(StreamFault) as caught:
        decode_limit(CapsuleType.WT_MAX_DATA, bytes.fromhex(value))
    assert caught.value.code == ErrorCodes.H3_MESSAGE_ERROR


@pytest.mark.parametrize("kind", [CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAM_DATA_BLOCKED])
def test_r75_prohibited_capsule_is_flow_control_error(kind: CapsuleType) -> None:
    with pytest.raises(StreamFault) as caught:
        classify_capsule(kind, 2, flow_control=True)
    assert caught.value.code == ErrorCodes.WT_FLOW_CONTROL_ERROR


@pytest.mark.parametrize("kind", [*LIMITS, CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAM_DATA_BLOCKED])
def test_r63_flow_control_capsules_are_skipped_without_flow_control(kind: CapsuleType) -> None:
    assert classify_capsule(kind, 2**50, flow_control=False) is Handling.SKIP


@pytest.mark.parametrize("kind", [CapsuleType.DATAGRAM, 0x17, 0x1F * 9 + 0x17, 2**62 - 1])
def test_h1_unknown_capsule_is_skipped_whatever_its_length(kind: int) -> None:
    assert classify_capsule(kind, 2**62 - 1, flow_control=True) is Handling.SKIP
