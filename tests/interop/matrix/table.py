"""The matrix as text: Markdown tables that are readable on a terminal, too, with footnotes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from .rows import Row

Direction: TypeAlias = Literal["client", "server"]
HEADINGS: dict[Direction, str] = {
    "client": "Others as clients of our server, with its default settings",
    "server": "Our client, with others as servers",
}
BEGIN = "<!-- matrix: written by pytest's --interop-table -->"
END = "<!-- end of matrix -->"
# Marks that do not explain themselves come with a note.
Mark: TypeAlias = Literal["ok", "FAIL", "-", "missing"]


@dataclass(frozen=True)
class Cell:
    """The outcome of one test."""

    direction: Direction
    peer: str
    row: str
    mark: Mark = "ok"
    note: str = ""
    version: str = ""


def render(cells: Iterable[Cell], rows: Mapping[str, Row], titles: Mapping[tuple[Direction, str], str]) -> str:
    """Both tables and their footnotes; ``titles`` gives the columns and their order. Columns without cells are left
    out, cells that were not run stay empty."""
    cells = list(cells)
    versions = {(cell.direction, cell.peer): cell.version for cell in cells}
    found = {(cell.direction, cell.peer, cell.row): cell for cell in cells}
    notes: dict[str, int] = {}
    blocks = []
    for direction, heading in HEADINGS.items():
        peers = [peer for way, peer in titles if way == direction]
        peers = [peer for peer in peers if any((direction, peer, row) in found for row in rows)]
        if peers:
            grid = [["", *(titles[direction, peer] for peer in peers)]]
            grid.append(["version", *(versions[direction, peer] for peer in peers)])
            grid.extend(
                [row.title, *(_text(found.get((direction, peer, row.name)), notes) for peer in peers)]
                for row in rows.values()
            )
            blocks.append(f"{heading}:\n\n{_markdown(grid)}")
    if notes:
        blocks.append("\n".join(f"{number}. {note}" for note, number in notes.items()))
    return "\n\n".join(blocks)


def _text(cell: Cell | None, notes: dict[str, int]) -> str:
    if cell is None:
        return ""
    return f"{cell.mark} ({notes.setdefault(cell.note, len(notes) + 1)})" if cell.note else cell.mark


def _markdown(grid: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in grid) for column in range(len(grid[0]))]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in grid]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Put the matrix between the marks of a document, or into a file of its own."""
    before, found, rest = (path.read_text() if path.exists() else "").partition(BEGIN)
    _old, found_end, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}" if found and found_end else f"{text}\n")
