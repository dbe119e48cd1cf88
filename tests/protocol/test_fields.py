import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtio.protocol.fields import parse_string_item, parse_string_list, serialize_string, serialize_string_list

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))


@given(st.lists(printable))
def test_r28_list_of_strings_survives(texts: list[str]) -> None:
    assert parse_string_list([serialize_string_list(texts)]) == texts


@given(printable)
def test_r29_string_item_survives(text: str) -> None:
    assert parse_string_item(serialize_string(text)) == text


@pytest.mark.parametrize("text", ["é", "\n", "\x7f", "\0", "日本"])
def test_h14_only_printable_ascii_can_be_written(text: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        serialize_string(text)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['"a", "b"'], ["a", "b"]),
        (['"a"', '"b","c"'], ["a", "b", "c"]),
        (['"a"\t ,\t"b"  '], ["a", "b"]),
        (['  "a"'], ["a"]),
        (['"a" \t'], ["a"]),
        ([], []),
        ([""], []),
        ([r'"a\"b\\c"'], [r'a"b\c']),
        (['"a, b", "c"'], ["a, b", "c"]),
        (['"a";q=1;x;y="1, 2";z=tok/en:1;b=:YQ==:;c=?1;d=-1.5;e=@1659578233;f=%"%c3%bc", "b"'], ["a", "b"]),
        (['"a"; q=0.5'], ["a"]),
    ],
)
def test_r28_r30_well_formed_list(lines: list[str], expected: list[str]) -> None:
    assert parse_string_list(lines) == expected


@pytest.mark.parametrize(
    "line",
    [
        "a", '"a", b', '"a", 1', '("a" "b")', '"a" "b"', '"a",', ',"a"', '"a",,"b"', '"a', 'a"', '"a\\x"', '"é"',
        '"a\x01"', '"a";',
        '"a";A=1', '"a";q=', '"a";q=1.', '"a";q=1.2345', '"a"; q =1', "?1", ":YQ==:", '"a";q=1234567890123456',
        '"a"; q=%"%C3"', "\t\"a\"", '"a";q=%"%c3"', '"a",\t',
    ],
)  # fmt: skip
def test_r30_r31_anything_but_strings_counts_as_absent(line: str) -> None:
    assert parse_string_list([line]) is None


@pytest.mark.parametrize("value", ["", "a", '"a", "b"', '"a" b', '"a",', "1", '("a")', '"a"\t'])
def test_r31_anything_but_one_string_counts_as_absent(value: str) -> None:
    assert parse_string_item(value) is None


def test_r30_parameters_of_the_choice_are_ignored() -> None:
    assert parse_string_item(' "a";x=1;y ') == "a"


def test_r34_tokens_are_read_where_the_dialect_has_them() -> None:
    assert parse_string_list(["moq-00, *x", '"b"'], tokens=True) == ["moq-00", "*x", "b"]
    assert parse_string_item("moq-00;a=1", tokens=True) == "moq-00"
    assert parse_string_list(["1"], tokens=True) is None


@given(st.lists(st.text(), max_size=3), st.booleans())
def test_x4_anything_parses_or_is_absent(lines: list[str], tokens: bool) -> None:
    parse_string_list(lines, tokens=tokens)
    for line in lines:
        parse_string_item(line, tokens=tokens)
