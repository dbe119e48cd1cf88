"""ARCHITECTURE.md is short, its layers are kept, and the tests that it and the page of decisions name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PAGE = (TOP / "ARCHITECTURE.md").read_text(encoding="utf-8")
INVARIANTS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| name")]

# Where a name of another library may occur, as a path prefix below crates/.
RUST_OWNERS = {
    "quinn_proto": "engine/src/quic/",
    "quinn_udp": "net/",
    "socket2": "net/",
    "pyo3": "python/",
}
# What would tie the protocol to a network, a clock or a runtime.
NOT_IN_THE_PROTOCOL = {
    *("asyncio", "concurrent", "contextvars", "queue", "sched", "select", "selectors", "signal"),
    *("socket", "ssl", "subprocess", "threading", "time", "_thread"),
}


def test_the_page_can_be_read_in_ten_minutes() -> None:
    assert len(PAGE.split()) <= 900


def test_the_modules_that_the_page_names_exist() -> None:
    # Such as `stream.py`, `_words`, `_connection/dial`, `crates/net`, `engine/sending` and `quic/core`.
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+|_[a-z_]+|[a-z_]+\.py)`", PAGE))
    assert {"stream.py", "_words", "_connection/dial", "crates/net", "engine/sending", "quic/core"} <= named
    for name in named:
        in_rust = name.removeprefix("engine/").removeprefix("src/")
        places = [TOP / name, TOP / "crates/engine/src" / in_rust, TOP / "python/wtio" / name]
        found = [path for place in places for path in (place, place.with_suffix(".rs"), place.with_suffix(".py"))]
        assert any(path.exists() for path in found), f"there is no {name}"


@pytest.mark.parametrize("row", INVARIANTS, ids=[row.split("|")[1].strip() for row in INVARIANTS])
def test_each_invariant_names_a_test_that_exists(row: str) -> None:
    _, _, invariant, test, _ = row.split("|")
    assert invariant.strip()
    (path, name) = re.findall(r"`([^`]+)::(\w+)`", test)[0]
    assert re.search(rf"\b(def|fn) {name}\(", (TOP / path).read_text(encoding="utf-8")), f"{path} has no {name}"


def test_the_tests_that_decisions_name_exist() -> None:
    named = re.findall(r"`([^`]+)::(\w+)`", (TOP / "docs/decisions.md").read_text(encoding="utf-8"))
    assert named
    for path, name in named:
        file = TOP / path if path.startswith("crates/") else TOP / "tests" / path
        assert re.search(rf"\b(def|fn) {name}\(", file.read_text(encoding="utf-8")), f"{path} has no {name}"


def test_there_are_eight_invariants() -> None:
    assert len(INVARIANTS) == 8


def test_each_layer_names_only_what_is_its_own() -> None:
    for name, owner in RUST_OWNERS.items():
        users = [
            path
            for path in (TOP / "crates").rglob("*.rs")
            if re.search(rf"\b{name}\b", path.read_text(encoding="utf-8"))
        ]
        strangers = [path for path in users if not path.is_relative_to(TOP / "crates" / owner)]
        assert users, f"nothing uses {name}: the table is out of date"
        assert not strangers, f"{name} belongs to crates/{owner}"
    for path in (TOP / "python/wtio/protocol").rglob("*.py"):
        for module in imports(path):
            assert module.partition(".")[0] not in NOT_IN_THE_PROTOCOL, f"{path.name} imports {module}"
            assert not module.startswith("wtio") or module.startswith("wtio.protocol"), f"{path.name} imports {module}"


def imports(path: Path) -> list[str]:
    """The modules that a file imports, also inside of functions and for type checkers."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found.append(node.module or "")
    return found
