"""The matrix as text, and what becomes of peers that cannot be had."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from . import wtio_before
from .peer import Missing
from .program import Installed, Program, ProgramClient, call
from .rows import ROWS
from .table import BEGIN, END, Cell, Direction, render, write

if TYPE_CHECKING:
    from pathlib import Path

TITLES: dict[tuple[Direction, str], str] = {
    ("client", "one"): "One",
    ("client", "two"): "Two",
    ("server", "one"): "One",
}
SOME_ROWS = {name: ROWS[name] for name in ("connect", "drain")}


def test_marks_stand_in_their_columns_with_footnotes() -> None:
    cells = [
        Cell("client", "one", "connect", version="1.0"),
        Cell("client", "one", "drain", "-", "One: cannot drain", "1.0"),
        Cell("client", "two", "connect", "missing", "Two is missing: no compiler"),
        Cell("client", "two", "drain", "missing", "Two is missing: no compiler"),
        Cell("server", "one", "connect", "FAIL", version="1.0"),
    ]
    text = render(cells, SOME_ROWS, TITLES)
    assert text.splitlines() == [
        "Others as clients of our server, with its default settings:",
        "",
        "|                  | One   | Two         |",
        "|------------------|-------|-------------|",
        "| version          | 1.0   |             |",
        "| connect          | ok    | missing (1) |",
        "| drain, both ways | - (2) | missing (1) |",
        "",
        "Our client, with others as servers:",
        "",
        "|                  | One  |",
        "|------------------|------|",
        "| version          | 1.0  |",
        "| connect          | FAIL |",
        "| drain, both ways |      |",
        "",
        "1. Two is missing: no compiler",
        "2. One: cannot drain",
    ]


def test_table_goes_between_the_marks_of_a_document(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(document, "new")
    assert document.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_table_fills_a_file_without_marks(tmp_path: Path) -> None:
    write(tmp_path / "table.md", "new")
    write(tmp_path / "table.md", "newer")
    assert (tmp_path / "table.md").read_text() == "newer\n"


@pytest.mark.parametrize(
    ("command", "seconds", "words"),
    [
        (["no-such-tool-anywhere"], 20.0, "`no-such-tool-anywhere` is not installed"),
        ([sys.executable, "-c", "raise SystemExit('no network')"], 20.0, "failed: no network"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], 0.01, "took more than 0 s"),
    ],
)
def test_tool_that_fails_makes_its_peer_missing(command: list[str], seconds: float, words: str, tmp_path: Path) -> None:
    with pytest.raises(Missing) as missing:
        call(command, cwd=tmp_path, seconds=seconds)
    assert words in str(missing.value)


def test_program_that_cannot_be_had_is_tried_once() -> None:
    attempts = 0

    def install() -> Installed:
        nonlocal attempts
        attempts += 1
        raise Missing("no compiler")

    program = Program("one", "One", install)
    for _ in range(2):
        with pytest.raises(Missing, match="no compiler"):
            ProgramClient(program).prepare()
    assert attempts == 1


def test_an_earlier_state_needs_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wtio_before, "COMMIT", "0" * 40)
    with pytest.raises(Missing, match="history"):
        wtio_before.install()
