"""Second opinions for the fuzz targets: slow and literal readings of the standards, on whole inputs."""

from __future__ import annotations

import string

__all__ = ["reference_item", "reference_list", "reference_records"]


def reference_records(data: bytes) -> tuple[list[tuple[int, int, bytes]], bool]:
    """Type, length and value of each record (the last value may be cut short), and whether the last one is complete."""
    records: list[tuple[int, int, bytes]] = []
    while data:
        head = []
        rest = data
        for _ in range(2):
            size = 1 << (rest[0] >> 6) if rest else 1
            if len(rest) < size:
                return records, False
            head.append(int.from_bytes(rest[:size], "big") % (1 << (8 * size - 2)))
            rest = rest[size:]
        kind, length = head
        records.append((kind, length, rest[:length]))
        if len(rest) < length:
            return records, False
        data = rest[length:]
    return records, True


class _Malformed(Exception):
    pass


_KEY_START = set(string.ascii_lowercase + "*")
_KEY = _KEY_START | set(string.digits + "_-.")
_TOKEN_START = set(string.ascii_letters + "*")
_TOKEN = set(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~:/")
_BASE64 = set(string.ascii_letters + string.digits + "+/=")


def reference_list(text: str, tokens: bool) -> list[str] | None:
    """A list of strings (or tokens) by RFC 9651, section 4.2.1; None for anything else."""
    try:
        parser = _Parser(text)
        parser.discard(" ")
        members = parser.list(tokens)
        return members if not parser.discard(" ") else None
    except _Malformed:
        return None


def reference_item(text: str, tokens: bool) -> str | None:
    """A string (or token) by RFC 9651, section 4.2; None for anything else."""
    try:
        parser = _Parser(text)
        parser.discard(" ")
        item = parser.item(tokens)
        return item if not parser.discard(" ") else None
    except _Malformed:
        return None


class _Parser:
    """RFC 9651, section 4.2, step by step; every member that is no string counts as malformed."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def discard(self, characters: str) -> str:
        self.rest = self.rest.lstrip(characters)
        return self.rest

    def take(self) -> str:
        if not self.rest:
            raise _Malformed
        first, self.rest = self.rest[0], self.rest[1:]
        return first

    def take_while(self, characters: set[str]) -> str:
        taken = ""
        while self.rest and self.rest[0] in characters:
            taken += self.take()
        return taken

    def list(self, tokens: bool) -> list[str]:
        members = []
        while self.rest:
            members.append(self.item(tokens))
            if not self.discard(" \t"):
                return members
            if self.take() != ",":
                raise _Malformed
            if not self.discard(" \t"):
                raise _Malformed
        return members

    def item(self, tokens: bool) -> str:
        kind, text = self.bare_item()
        while self.rest.startswith(";"):
            self.take()
            self.discard(" ")
            if self.rest[:1] not in _KEY_START:
                raise _Malformed
            self.take_while(_KEY)
            if self.rest.startswith("="):
                self.take()
                self.bare_item()
        if kind == "string" or (kind == "token" and tokens):
            return text
        raise _Malformed

    def bare_item(self) -> tuple[str, str]:
        first = self.rest[:1]
        if first == '"':
            return "string", self.string()
        if first and first in _TOKEN_START:
            return "token", self.take_while(_TOKEN)
        if first and first in "-0123456789":
            self.number()
        elif first == ":":
            self.take()
            self.take_while(_BASE64)
            if self.take() != ":":
                raise _Malformed
        elif first == "?":
            self.take()
            if self.take() not in "01":
                raise _Malformed
        elif first == "@":
            self.take()
            if self.number() != "integer":
                raise _Malformed
        elif first == "%":
            self.display_string()
        else:
            raise _Malformed
        return "other", ""

    def string(self) -> str:
        self.take()
        text = ""
        while (character := self.take()) != '"':
            if character == "\\":
                character = self.take()
                if character not in '"\\':
                    raise _Malformed
            elif not " " <= character <= "~":
                raise _Malformed
            text += character
        return text

    def number(self) -> str:
        if self.rest.startswith("-"):
            self.take()
        whole = self.take_while(set(string.digits))
        if not whole:
            raise _Malformed
        if not self.rest.startswith("."):
            if len(whole) > 15:
                raise _Malformed
            return "integer"
        self.take()
        fraction = self.take_while(set(string.digits))
        if len(whole) > 12 or not 1 <= len(fraction) <= 3:
            raise _Malformed
        return "decimal"

    def display_string(self) -> None:
        self.take()
        if self.take() != '"':
            raise _Malformed
        raw = b""
        while (character := self.take()) != '"':
            if not " " <= character <= "~":
                raise _Malformed
            if character == "%":
                digits = self.take() + self.take()
                if set(digits) - set("0123456789abcdef"):
                    raise _Malformed
                raw += bytes.fromhex(digits)
            else:
                raw += character.encode()
        try:
            raw.decode()
        except UnicodeDecodeError:
            raise _Malformed from None
