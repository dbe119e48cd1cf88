import pytest
from hypothesis import given
from hypothesis import strategies as st

import wtio
from wtio import hub
from wtio.protocol.codes import MAX_APPLICATION_CODE, ErrorCodes, describe, describe_application, from_wire, to_wire

from .pair import vectors

VECTORS = vectors("codes")


@pytest.mark.parametrize(("application", "wire"), VECTORS["application to wire"])
def test_r44_application_code_vector(application: int, wire: str) -> None:
    assert to_wire(application) == int(wire, 16)
    assert from_wire(int(wire, 16)) == application


@pytest.mark.parametrize("wire", VECTORS["reserved"])
def test_r46_reserved_number_in_the_range_carries_no_code(wire: str) -> None:
    assert from_wire(int(wire, 16)) is None


@pytest.mark.parametrize("wire", [0, 0x100, 0x52E4A40FA8DA, 0x52E5AC983163, 2**62 - 1, -1])
def test_s5_number_outside_the_range_carries_no_code(wire: int) -> None:
    assert from_wire(wire) is None


@given(st.integers(0, MAX_APPLICATION_CODE))
def test_s5_every_32_bit_code_survives_the_wire(code: int) -> None:
    wire = to_wire(code)
    assert (wire - 0x21) % 31
    assert from_wire(wire) == code


@given(st.integers(0x52E4A40FA8DB, 0x52E5AC983162))
def test_s5_every_number_of_the_range_is_a_code_or_reserved(wire: int) -> None:
    code = from_wire(wire)
    assert (wire - 0x21) % 31 == 0 if code is None else to_wire(code) == wire


@pytest.mark.parametrize("code", [-1, 2**32, 2**62])
def test_code_outside_32_bits_cannot_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        to_wire(code)


@pytest.mark.parametrize(("name", "number"), VECTORS["names"].items())
def test_code_has_its_standard_number(name: str, number: str) -> None:
    assert ErrorCodes[name] == int(number, 16)


def test_zero_is_named_for_the_application() -> None:
    assert ErrorCodes(0).name == "APP_NO_ERROR"
    assert ErrorCodes["NO_ERROR"].name == "APP_NO_ERROR"


def test_description_names_what_can_be_named() -> None:
    assert describe(to_wire(7)) == "application code 7"
    assert describe(0x10C) == "H3_REQUEST_CANCELLED (0x10c)"
    assert describe(0x52E4A40FA8F9) == "0x52e4a40fa8f9"


def test_description_of_a_code_that_wtio_sends_by_itself_says_when() -> None:
    words = "258 (wtio sends it when a handler or an `async with` block raises)"
    assert describe_application(258) == words
    assert describe(to_wire(258)) == f"application code {words}"
    assert describe_application(257) == "257"


@pytest.mark.parametrize(
    "code",
    [wtio.BODY_RAISED_CODE, hub.TOO_SLOW_CODE, hub.REPLACED_CODE, hub.EXPIRED_CODE, ErrorCodes.H3_EXCESSIVE_LOAD],
)
def test_every_code_that_wtio_sends_by_itself_is_explained(code: int) -> None:
    assert "(wtio sends it when " in describe_application(code)
