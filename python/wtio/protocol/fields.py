"""Structured field values (RFC 9651), as far as the subprotocol headers need them.

``wt-available-protocols`` is a list of strings and ``wt-protocol`` one string. Any other value counts as absent, so
reading returns ``None`` instead of raising. Parameters and members of other types still have to be read correctly, to
find where a member ends.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["parse_string_item", "parse_string_list", "serialize_string", "serialize_string_list", "serialize_token"]

_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN: Final = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")
# Every other bare item: decimal, integer, byte sequence, boolean, date, display string.
_OTHER: Final = re.compile(
    r"-?[0-9]{1,12}\.[0-9]{1,3}(?![0-9.])"
    r"|-?[0-9]{1,15}(?![0-9.])"
    r"|:[A-Za-z0-9+/=]*:"
    r"|\?[01]"
    r"|@-?[0-9]{1,15}(?![0-9.])"
    r'|%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*"'
)
_ESCAPED: Final = re.compile(r"\\(.)")
_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_SPACES: Final = re.compile(r" *")
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")
_END: Final = re.compile(r"[ \t]*\Z")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")


def serialize_string(text: str) -> str:
    """Write a string item.

    Raises:
        ValueError: ``text`` is not printable ASCII.

    Source: RFC 9651, section 4.1.6.
    """
    if not _PRINTABLE.fullmatch(text):
        raise ValueError(f"{text!r} is not printable ASCII, which is all that a structured string can hold")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def serialize_token(text: str) -> str:
    """Write a token item, or a string item if ``text`` cannot be a token.

    Raises:
        ValueError: ``text`` is not printable ASCII.

    Source: RFC 9651, section 4.1.7.
    """
    return text if _TOKEN.fullmatch(text) else serialize_string(text)


def serialize_string_list(texts: Sequence[str]) -> str:
    """Write a list of string items.

    Raises:
        ValueError: One of them is not printable ASCII.
    """
    return ", ".join(map(serialize_string, texts))


def parse_string_item(value: str, *, tokens: bool = False) -> str | None:
    """Read one string; parameters are dropped.

    Args:
        value: The field value; several lines joined with a comma are not one item.
        tokens: Accept a token, too.

    Returns:
        The string, or ``None`` if the value is anything else.

    Source: RFC 9651, section 4.2.
    """
    start = _SPACES.match(value)
    item = _parse_item(value, start.end() if start else 0, tokens)
    if item is None or value[item[1] :].strip(" "):
        return None
    return item[0]


def parse_string_list(values: Sequence[str], *, tokens: bool = False) -> list[str] | None:
    """Read a list of strings; parameters are dropped.

    Args:
        values: The values of all lines of the field, in their order.
        tokens: Accept tokens, too.

    Returns:
        The strings, or ``None`` if the value is malformed or any member is not a string.

    Source: RFC 9651, section 4.2.1; draft-ietf-webtrans-http3-16, section 3.3.
    """
    value = ",".join(values).strip(" ")
    members: list[str] = []
    offset = 0
    while offset < len(value):
        item = _parse_item(value, offset, tokens)
        if item is None:
            return None
        members.append(item[0])
        offset = item[1]
        if _END.match(value, offset):
            break
        comma = _COMMA.match(value, offset)
        if comma is None or comma.end() == len(value):  # garbage, or a trailing comma
            return None
        offset = comma.end()
    return members


def _parse_item(value: str, offset: int, tokens: bool) -> tuple[str, int] | None:
    """Read a string (or token) with its parameters at ``offset``; None for anything else."""
    found = _STRING.match(value, offset)
    if found:
        text = _ESCAPED.sub(r"\1", found[1])
    else:
        found = _TOKEN.match(value, offset) if tokens else None
        if not found:
            return None
        text = found[0]
    end = _skip_parameters(value, found.end())
    return None if end is None else (text, end)


def _skip_parameters(value: str, offset: int) -> int | None:
    """Return the offset after the parameters at ``offset``; None if they are malformed."""
    while offset < len(value) and value[offset] == ";":
        key = _KEY.match(value, _end_of_spaces(value, offset + 1))
        if key is None:
            return None
        offset = key.end()
        if value[offset : offset + 1] == "=":
            bare = (
                _STRING.match(value, offset + 1) or _TOKEN.match(value, offset + 1) or _OTHER.match(value, offset + 1)
            )
            if bare is None or not _is_utf8(bare[0]):
                return None
            offset = bare.end()
    return offset


def _is_utf8(bare: str) -> bool:
    """Whether a display string decodes (RFC 9651, section 4.2.10); true of all other items."""
    try:
        if bare[0] == "%":
            unquote_to_bytes(bare).decode()
    except UnicodeDecodeError:
        return False
    return True


def _end_of_spaces(value: str, offset: int) -> int:
    spaces = _SPACES.match(value, offset)
    return spaces.end() if spaces else offset
