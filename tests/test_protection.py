"""The pages about protection speak of limits with their true defaults, and of tests that exist."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import wtio

TOP = Path(__file__).parents[1]
DOCS = TOP / "docs"
DEFAULTS = {"Limits": wtio.Limits(), "Timeouts": wtio.Timeouts()}


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of all rows of the tables whose first heading is ``first``."""
    found = []
    is_ours = False
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            is_ours = False
        elif line.startswith(f"| {first} |"):
            is_ours = True
        elif is_ours and not line.startswith("|--"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


ATTACKS = rows("protection.md", "Attack")
CLAIMS = rows("threat-model.md", "What holds")


def written(name: str) -> str:
    """A default as the page writes it."""
    kind, field = name.split(".")
    value = getattr(DEFAULTS[kind], field)
    if kind == "Timeouts":
        return f"{value:g} s"
    if value is None:
        return "None"
    for size, unit in ((2**20, "MiB"), (2**10, "KiB")):
        if value >= size and value % size == 0:
            return f"{value // size} {unit}"
    return str(value)


def check_tests(cell: str) -> None:
    names = re.findall(r"`([^`]+)::(\w+)`", cell)
    assert names, "no test is named"
    for path, name in names:
        file = TOP / path if path.startswith("crates/") else TOP / "tests" / path
        assert re.search(rf"\b(def|fn) {name}\(", file.read_text(encoding="utf-8")), f"{path} has no {name}"


@pytest.mark.parametrize("row", ATTACKS, ids=[row[0] for row in ATTACKS])
def test_attack_has_its_limit_its_default_and_a_test(row: list[str]) -> None:
    _, limit, default, seen, test = row
    names = re.findall(r"`(\w+\.\w+)`", limit)
    assert default == (", ".join(written(name) for name in names) if names else "none")
    assert seen
    check_tests(test)


@pytest.mark.parametrize("row", CLAIMS, ids=[row[0] for row in CLAIMS])
def test_claim_of_the_threat_model_has_a_test(row: list[str]) -> None:
    holds, test = row
    assert holds
    check_tests(test)


def test_every_limit_of_newcomers_is_on_the_page() -> None:
    page = (DOCS / "protection.md").read_text(encoding="utf-8")
    fields = [field.name for field in dataclasses.fields(wtio.Limits)]
    for name in fields[fields.index("connections") : fields.index("pending_requests")]:
        assert f"`Limits.{name}`" in page, name
    assert "`Timeouts.handshake`" in page
