"""``wtio.ServerId``: where it comes from, what is refused, and what connection IDs look like with it."""

from __future__ import annotations

import pickle

import pytest
from tests.test_options import options

import wtio

VALUE = bytes.fromhex("0123456789abcdef")


@pytest.mark.parametrize("text", ["ASNFZ4mrze8=", "0x0123456789abcdef", "0x0123456789ABCDEF"])
def test_an_environment_variable_has_base64_or_hexadecimal_digits(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AWS_LBC_QUIC_SERVER_ID", text)
    monkeypatch.setenv("OTHER", "0x07")
    assert wtio.ServerId.from_environment() == wtio.ServerId(VALUE)
    assert wtio.ServerId.from_environment("OTHER").value == b"\x07"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "variable NAME is not set"),
        ("", "variable NAME is a server ID of 0 bytes; it must have 1 to 8"),
        ("0x" + "00" * 9, "variable NAME is a server ID of 9 bytes; it must have 1 to 8"),
        ("AAAAAAAAAAAA", "variable NAME is a server ID of 9 bytes"),
        ("0x012", "variable NAME is '0x012'; it must be base64, such as .*, or 0x and hexadecimal digits"),
        ("node-7", "variable NAME is 'node-7'; it must be base64"),
        ("ASNFZ4mrze8", "variable NAME is 'ASNFZ4mrze8'; it must be base64"),
        ("ä", "variable NAME is 'ä'; it must be base64"),
    ],
)
def test_what_is_no_server_id_says_so(monkeypatch: pytest.MonkeyPatch, text: str | None, words: str) -> None:
    monkeypatch.delenv("NAME", raising=False)
    if text is not None:
        monkeypatch.setenv("NAME", text)
    with pytest.raises(ValueError, match=words):
        wtio.ServerId.from_environment("NAME")
    with pytest.raises(TypeError, match="name must be"):
        wtio.ServerId.from_environment(5)  # type: ignore[arg-type]


def test_nothing_is_read_from_the_environment_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LBC_QUIC_SERVER_ID", "0x0123456789abcdef")
    assert options().connection_ids == (b"", 8)


def test_a_server_id_is_a_value() -> None:
    one = wtio.ServerId(VALUE)
    assert one == wtio.ServerId(bytearray(VALUE))  # type: ignore[arg-type]
    assert repr(one) == "ServerId(0x0123456789abcdef)"
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(one) == hash(wtio.ServerId(VALUE))


@pytest.mark.parametrize(
    ("given", "prefix", "length"),
    [
        # One byte of configuration and length; the server ID; the nonce of 10 bytes, which begins with the slot.
        ({"server_id": VALUE}, bytes([18]) + VALUE, 19),
        ({"server_id": wtio.ServerId(VALUE), "slot": 5}, bytes([18]) + VALUE + b"\x05", 19),
        ({"server_id": b"\x07", "slot": 0}, b"\x0b\x07\x00", 12),
        # The codepoint of IDs that no balancer reads.
        ({"slot": 255}, b"\xea\xff", 11),
    ],
)
def test_connection_ids_are_those_of_quic_lb(given: dict[str, object], prefix: bytes, length: int) -> None:
    assert options(**given).connection_ids == (prefix, length)  # type: ignore[arg-type]
    assert prefix[0] & 0b11111 == length - 1


def test_arguments_are_named() -> None:
    with pytest.raises(
        TypeError, match=r"server_id must be wtio\.ServerId, bytes or None, not str; .*from_environment"
    ):
        options(server_id="node-7")
    with pytest.raises(ValueError, match=r"server_id: .* 9 bytes; it must have 1 to 8"):
        options(server_id=bytes(9))
    with pytest.raises(ValueError, match="slot is 256; it must be between 0 and 255"):
        options(slot=256)
