import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtio.protocol import huffman
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import ConnectionFault
from wtio.protocol.qpack import (
    STATIC_TABLE,
    DecoderStream,
    EncoderStream,
    FieldSectionTooLargeError,
    decode_field_section,
    encode_field_section,
    field_section_size,
)

from .pair import vectors

HUFFMAN = vectors("huffman")
QPACK = vectors("qpack")
text = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=200)
fields = st.lists(st.one_of(st.tuples(text, text), st.sampled_from(STATIC_TABLE)), max_size=10)


@pytest.mark.parametrize(("coded", "plain"), HUFFMAN["strings"])
def test_huffman_vector_in_both_directions(coded: str, plain: str) -> None:
    assert huffman.decode(bytes.fromhex(coded)) == plain.encode()
    assert huffman.encode(plain.encode()).hex() == coded


@pytest.mark.parametrize(("coded", "why"), HUFFMAN["malformed"])
def test_malformed_huffman_string_is_refused(coded: str, why: str) -> None:
    with pytest.raises(huffman.HuffmanError):
        huffman.decode(bytes.fromhex(coded))


@given(st.binary(max_size=300))
def test_huffman_round_trip(plain: bytes) -> None:
    assert huffman.decode(huffman.encode(plain)) == plain


@given(st.binary(max_size=300))
def test_huffman_decoding_of_anything_is_a_string_or_an_error_and_bounded(coded: bytes) -> None:
    try:
        plain = huffman.decode(coded)
    except huffman.HuffmanError:
        return
    assert len(plain) <= len(coded) * 8 / 5
    assert huffman.encode(plain) == coded


@pytest.mark.parametrize(("encoded", "expected"), QPACK["sections"])
def test_qpack_vector(encoded: str, expected: list[list[str]]) -> None:
    assert decode_field_section(bytes.fromhex(encoded), max_size=1000) == [(name, value) for name, value in expected]


@pytest.mark.parametrize(("encoded", "why"), QPACK["malformed"])
def test_malformed_section_is_decompression_failed(encoded: str, why: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        decode_field_section(bytes.fromhex(encoded), max_size=1000)
    assert caught.value.code == ErrorCodes.QPACK_DECOMPRESSION_FAILED


def test_static_table_has_its_99_entries() -> None:
    assert len(STATIC_TABLE) == 99
    assert STATIC_TABLE[15] == (":method", "CONNECT")
    assert STATIC_TABLE[25] == (":status", "200")
    assert STATIC_TABLE[98] == ("x-frame-options", "sameorigin")


@given(fields, st.booleans())
def test_fields_survive_in_order(written: list[tuple[str, str]], use_huffman: bool) -> None:
    encoded = encode_field_section(written, use_huffman=use_huffman)
    assert decode_field_section(encoded, max_size=field_section_size(written)) == written


@given(fields.filter(bool))
def test_limit_is_the_size_of_names_values_and_32_bytes_a_field(written: list[tuple[str, str]]) -> None:
    with pytest.raises(FieldSectionTooLargeError):
        decode_field_section(encode_field_section(written), max_size=field_section_size(written) - 1)


@given(st.binary(max_size=300))
def test_x4_anything_decodes_or_fails_as_documented(encoded: bytes) -> None:
    try:
        decoded = decode_field_section(encoded, max_size=2000)
    except FieldSectionTooLargeError:
        return
    except ConnectionFault as fault:
        failure = fault.code
    else:
        assert field_section_size(decoded) <= 2000
        return
    assert failure == ErrorCodes.QPACK_DECOMPRESSION_FAILED


def test_numbers_of_any_size_survive() -> None:
    written = [("a" * 5000, "b" * 300), ("etag", "c" * 70000)]
    assert decode_field_section(encode_field_section(written), max_size=80000) == written


@pytest.mark.parametrize("field", [b"\xc1", b"\xd9", b"\xff\x18"])
def test_x2_fields_of_one_byte_are_counted_with_their_overhead(field: bytes) -> None:
    """An entry of the static table costs the sender a byte and us a tuple: 65536 bytes may be 2048 fields at most."""
    largest = 65536
    decoded = decode_field_section(b"\0\0" + field * 900, max_size=largest)
    assert len(decoded) == 900
    with pytest.raises(FieldSectionTooLargeError):
        decode_field_section(b"\0\0" + field * 2048, max_size=largest)


def test_x2_huffman_string_counts_with_its_length_after_decoding() -> None:
    encoded = encode_field_section([("etag", "0" * 100_000)], use_huffman=True)
    assert len(encoded) < 65536
    with pytest.raises(FieldSectionTooLargeError):
        decode_field_section(encoded, max_size=65536)


def test_huffman_code_is_written_where_it_is_shorter() -> None:
    written = [("etag", "~~~~"), ("etag", "aaaa")]
    encoded = encode_field_section(written, use_huffman=True)
    assert b"\x04~~~~" in encoded
    assert b"aaaa" not in encoded


def test_credentials_are_never_indexed() -> None:
    encoded = encode_field_section([("authorization", "a"), ("proxy-authorization", "b"), ("etag", "c")])
    # RFC 9204, section 4.5.4 and 4.5.6: the N bit.
    assert encoded[2] & 0x20
    assert b"\x37" in encoded[:7]
    assert not encoded[encoded.index(b"\x01c") - 1] & 0x20


def test_encoder_stream_may_only_set_capacity_zero() -> None:
    EncoderStream().feed(b"\x20\x20")


@pytest.mark.parametrize("instruction", ["21", "3fe11f", "c00161", "4161 0161", "00", "02"])
def test_use_of_dynamic_table_is_encoder_stream_error(instruction: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        EncoderStream().feed(bytes.fromhex(instruction))
    assert caught.value.code == ErrorCodes.QPACK_ENCODER_STREAM_ERROR


@pytest.mark.trap("X5")
def test_decoder_stream_may_cancel_streams() -> None:
    stream = DecoderStream()
    for byte in bytes.fromhex("40 7e 7f00 7f8001 44"):
        stream.feed(bytes((byte,)))


@pytest.mark.parametrize("instruction", ["80", "ff00", "00", "01", "7f" + "80" * 12])
def test_acknowledging_what_was_never_inserted_is_decoder_stream_error(instruction: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        DecoderStream().feed(bytes.fromhex(instruction))
    assert caught.value.code == ErrorCodes.QPACK_DECODER_STREAM_ERROR
