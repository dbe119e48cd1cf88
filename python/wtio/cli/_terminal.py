"""What a terminal is shown: peers' text made harmless, colours, lines above a prompt, lines that change in place."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Board",
    "colour",
    "columns_of",
    "decode",
    "has_colour",
    "is_smart",
    "print_above_prompt",
    "visible",
    "width_of",
]

# Everything that moves a cursor, changes a terminal's state or the order in which text is read: C0, DEL, C1, lone
# surrogates, line and paragraph separators, and the controls for text in two directions.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What `colour` puts around a text.
_COLOUR: Final = re.compile(r"\x1b\[\d*m")
_UNSAFE_IN_LINES: Final = re.compile(_UNSAFE.pattern.replace(r"\x00-\x1f", r"\x00-\x08\x0b-\x1f"))


def visible(text: str, *, lines: bool = False) -> str:
    """Escape what a peer could use to control a terminal; with ``lines``, line ends and tabs stay as they are."""
    return (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return {9: r"\t", 10: r"\n", 13: r"\r"}.get(code) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def decode(data: bytes, *, lines: bool = False) -> str:
    """A peer's bytes as text that is safe to show; bytes that are not UTF-8 are escaped."""
    return visible(data.decode("utf-8", "backslashreplace"), lines=lines)


def is_smart(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb" if os.name == "posix" else "") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether to use colours: on a terminal, unless NO_COLOR is set (https://no-color.org) or TERM is dumb."""
    return is_smart(stream) and not os.environ.get("NO_COLOR")


def colour(text: str, code: str, stream: TextIO) -> str:
    """Text in a colour (an SGR code, such as "31"), if the stream shows any."""
    return f"\x1b[{code}m{text}\x1b[0m" if has_colour(stream) else text


def width_of(text: str) -> int:
    """How many columns a text takes; colours take none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in _COLOUR.sub("", text)
    )


def columns_of(stream: TextIO) -> int:
    """How many columns a stream's terminal has; without one, what ``COLUMNS`` says, or 80.

    The terminal comes first, other than in ``shutil``: ``COLUMNS`` may have been exported for another one, and rows
    that are counted wrongly leave gaps or are written over.
    """
    try:
        size = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        size = 0
    return size or shutil.get_terminal_size().columns


def cut(text: str, width: int) -> str:
    """The text, or as much of it as fits into so many columns."""
    while width_of(text) > width:
        text = text[:-1]
    return text


def print_above_prompt(text: str) -> None:
    """Print lines above the line in which somebody may be typing.

    The cursor is saved and comes back, so that neither we nor the line editor need to know of each other. At the bottom
    of the screen, the line feeds make room, and the move down at the end stops at the last line.
    """
    columns = columns_of(sys.stdout)
    rows = sum(max(1, -(-width_of(line) // columns)) for line in text.split("\n"))
    above = text.replace("\n", "\r\n")
    sys.stdout.write("\x1b7" + "\n" * rows + f"\x1b[{rows}A\r\x1b[{rows}L{above}\x1b8\x1b[{rows}B")
    sys.stdout.flush()


class Board:
    """Lines on a terminal that are replaced in place; without a terminal, nothing is shown."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_live = is_smart(stream)
        # How many lines are on the screen, which the next ones replace.
        self._shown = 0

    @property
    def is_live(self) -> bool:
        """Whether anybody sees lines before the end."""
        return self._is_live

    def show(self, lines: Sequence[str]) -> None:
        """Replace the lines; each is cut to the width of the terminal."""
        if not self._is_live:
            return
        columns = columns_of(self._stream)
        text = f"\x1b[{self._shown}A" if self._shown else ""
        text += "".join(f"\r\x1b[K{cut(line, columns - 1)}\n" for line in lines)
        self._shown = max(self._shown, len(lines))
        self._stream.write(text)
        self._stream.flush()

    def say(self, line: str) -> None:
        """Print a line that stays, whole, above those that are replaced."""
        if self._is_live:
            self.clear()
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def clear(self) -> None:
        """Take the lines away."""
        if self._is_live and self._shown:
            self._stream.write(f"\x1b[{self._shown}A\r\x1b[J")
            self._stream.flush()
            self._shown = 0
