"""The page about reliability speaks of tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PAGE = TOP / "docs" / "reliability.md"
ROWS = [
    line
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| Input")
]


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_row_names_a_test_that_exists(row: str) -> None:
    _, _, happens, test, _ = row.split("|")
    assert happens.strip()
    names = re.findall(r"`([^`]+)::(\w+)`", test)
    assert names, "no test is named"
    for path, name in names:
        file = TOP / path if path.startswith("crates/") else TOP / "tests" / path
        assert re.search(rf"\b(def|fn) {name}\(", file.read_text(encoding="utf-8")), f"{path} has no {name}"
