"""What a terminal shows after a program has run, and pictures of it (SVG), light or dark as a reader has it."""

from __future__ import annotations

import os
import re
from html import escape, unescape
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from playwright.async_api import FloatRect

from .programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.async_api import Page

PICTURES = ROOT / "docs" / "_static"

_TOKEN = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z@])|\x1b([78=>])|([\x00-\x1f])|([^\x00-\x1f]+)")
_CODES = {"1": "bold", "2": "faint", "31": "red", "32": "green", "33": "yellow", "36": "cyan"}
_WIDTH, _HEIGHT, _MARGIN = 8.4, 19, 12  # of a character, in units of the picture
_STYLE = """
text { font: 14px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }
text { fill: #1f2328 }
.ground { fill: #f6f8fa; stroke: #d1d9e0 } .bold { font-weight: bold } .faint { fill: #59636e }
.red { fill: #b3261e } .green { fill: #0b6e4f } .yellow { fill: #7d4e00 } .cyan { fill: #0a5c78 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .ground { fill: #161b22; stroke: #30363d } .faint { fill: #9198a1 }
.red { fill: #ff8a80 } .green { fill: #5fd3a5 } .yellow { fill: #e3b341 } .cyan { fill: #76d0ea }
}
"""


class Cell(NamedTuple):
    """A character, and the names of its styles."""

    character: str = " "
    style: str = ""


class Screen:
    """A terminal as wide as asked for and as high as needed; what it does not understand is an error."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        # Cells by row and column; where the next character goes, and the place that was saved.
        self._rows: list[list[Cell]] = []
        self._row = self._column = 0
        self._saved = (0, 0)
        self._styles: list[str] = []

    def feed(self, output: str) -> None:
        """Show this output of a program, which is whole."""
        position = 0
        while position < len(output):
            token = _TOKEN.match(output, position)
            assert token is not None, f"unknown to this terminal: {output[position : position + 10]!r}"
            position = token.end()
            arguments, command, short, control, text = token.groups()
            if text:
                for character in text:
                    self._put(character)
            elif control:
                self._control(control)
            elif short:
                self._keep(short)
            else:
                self._command(command, arguments)

    def lines(self) -> list[str]:
        """The text, without what is blank at the end of lines and of all."""
        return ["".join(cell.character for cell in row).rstrip() for row in self._trimmed()]

    def _trimmed(self) -> list[list[Cell]]:
        rows = list(self._rows)
        while rows and not any(cell.character.strip() for cell in rows[-1]):
            rows.pop()
        return rows

    def _put(self, character: str) -> None:
        if self._column == self._columns:
            self._row, self._column = self._row + 1, 0
        while len(self._rows) <= self._row:
            self._rows.append([])
        row = self._rows[self._row]
        row.extend([Cell()] * (self._column + 1 - len(row)))
        row[self._column] = Cell(character, " ".join(self._styles))
        self._column += 1

    def _control(self, control: str) -> None:
        match control:
            case "\r":
                self._column = 0
            case "\n":
                self._row += 1
            case "\b":
                self._column -= 1
            case "\x01" | "\x02" | "\x07":
                pass
            case _:
                raise AssertionError(f"unknown to this terminal: {control!r}")

    def _keep(self, short: str) -> None:
        if short == "7":
            self._saved = (self._row, self._column)
        elif short == "8":
            self._row, self._column = self._saved

    def _command(self, command: str, arguments: str) -> None:
        number = int(arguments) if arguments.isdigit() else 1
        row = self._rows[self._row] if self._row < len(self._rows) else []
        match command:
            case "A":
                self._row -= number
            case "B":
                self._row = min(self._row + number, max(self._row, len(self._rows)))
            case "C":
                self._column += number
            case "D":
                self._column -= number
            case "L":
                self._rows[self._row : self._row] = [[] for _ in range(number)]
            case "K":
                del row[self._column :]
            case "J":
                del row[self._column :]
                del self._rows[self._row + 1 :]
            case "P":
                del row[self._column : self._column + number]
            case "@":
                row[self._column : self._column] = [Cell()] * number
            case "m":
                self._style(arguments)
            case "h" | "l":
                pass
            case _:
                raise AssertionError(f"unknown to this terminal: {arguments}{command}")

    def _style(self, arguments: str) -> None:
        for code in arguments.split(";"):
            if code in ("", "0"):
                self._styles = []
            else:
                self._styles.append(_CODES[code])

    # -- pictures

    def svg(self, title: str) -> str:
        """A picture of what is shown; runs of one style have the width that their characters have to have."""
        rows = self._trimmed()
        width, height = self._columns * _WIDTH + 2 * _MARGIN, len(rows) * _HEIGHT + 2 * _MARGIN
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" x=".5" y=".5" width="{width - 1:g}" height="{height - 1}" rx="8"/>',
        ]
        for number, row in enumerate(rows):
            parts.append(f"<g>{''.join(_runs(row, _MARGIN + 14 + number * _HEIGHT))}</g>")
        return "\n".join([*parts, "</svg>", ""])


def _runs(row: list[Cell], y: int) -> Iterator[str]:
    column = 0
    for style, cells in groupby(row, key=lambda cell: cell.style):
        text = "".join(cell.character for cell in cells)
        # Blanks at both ends are left out: not every browser gives them a width.
        begin, shown = column + len(text) - len(text.lstrip()), text.strip()
        column += len(text)
        if shown:
            kind = f' class="{style}"' if style else ""
            place = f'x="{_MARGIN + begin * _WIDTH:g}" y="{y}" textLength="{len(shown) * _WIDTH:g}"'
            yield f"<text {place}{kind}>{escape(shown, quote=False)}</text>"


def _shape(lines: list[str]) -> str:
    """What has to stay the same: without digests, figures, units and blanks, which differ from run to run."""
    text = re.sub(r"\b[0-9a-f]{32,}\b", "", " ".join(lines))
    return re.sub(r"\b\d[\d.]*( ?(ms|µs|s|B|kB|MB|GB)\b(/s)?)?|\s", "", text)


def keep_or_compare(screen: Screen, name: str, title: str) -> None:
    """With ``WTIO_PICTURES=docs/_static``, keep the picture there; otherwise it has to show the same as the screen."""
    directory = os.environ.get("WTIO_PICTURES")
    path: Path = PICTURES / f"terminal-{name}.svg"
    if directory is not None:
        (ROOT / directory / path.name).write_text(screen.svg(title), encoding="utf-8")
        return
    rows = re.findall(r"<g>(.*?)</g>", path.read_text(encoding="utf-8"))
    shown = [" ".join(unescape(text) for text in re.findall(r">([^<]+)</text>", row)) for row in rows]
    assert _shape(shown) == _shape(screen.lines()), f"{path.name} shows something else; WTIO_PICTURES renews it"


async def keep_picture(page: Page, name: str, width: int, height: int) -> None:
    """With ``WTIO_PICTURES=docs/_static``, keep a picture of the upper left of a page in a browser there."""
    if (directory := os.environ.get("WTIO_PICTURES")) is not None:
        clip = FloatRect(x=0, y=0, width=width, height=height)
        await page.screenshot(path=ROOT / directory / f"{name}.png", clip=clip)
