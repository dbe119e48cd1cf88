import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtio.protocol import varint

from .pair import vectors

VECTORS = vectors("varint")
numbers = st.one_of(st.integers(0, varint.MAX_VARINT), st.integers(0, 70000))


@pytest.mark.parametrize(("encoded", "value"), VECTORS["encodings"])
def test_vector_in_both_directions(encoded: str, value: int) -> None:
    assert varint.encode(value).hex() == encoded
    assert varint.decode(bytes.fromhex(encoded)) == (value, len(encoded) // 2)


@pytest.mark.parametrize(("encoded", "value"), VECTORS["longer than needed"])
def test_longer_encoding_than_needed_is_read_by_value(encoded: str, value: int) -> None:
    assert varint.decode(bytes.fromhex(encoded)) == (value, len(encoded) // 2)


@given(numbers, st.binary(max_size=4), st.binary(max_size=4))
def test_round_trip_at_any_offset(value: int, before: bytes, after: bytes) -> None:
    encoded = varint.encode(value)
    assert varint.decode(before + encoded + after, len(before)) == (value, len(before) + len(encoded))


@given(numbers)
def test_every_proper_prefix_is_incomplete(value: int) -> None:
    encoded = varint.encode(value)
    assert all(varint.decode(encoded[:length]) is None for length in range(len(encoded)))


@pytest.mark.parametrize("value", [-1, -(2**61), varint.MAX_VARINT + 1])
def test_number_outside_62_bits_cannot_be_encoded(value: int) -> None:
    with pytest.raises(ValueError, match="variable-length"):
        varint.encode(value)
