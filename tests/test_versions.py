"""What docs/versions.md promises: changed defaults and vanished names are in the changelog, and a deprecation ends."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

from tools.public_names import public_names

import wtio

TOP = Path(__file__).parents[1]
# The public names of the last release, by `make release`. There is none yet, and so no names.
RECORD = TOP / "tests" / "vectors" / "public-names.json"
CHANGELOG = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
VERSION = tomllib.loads((TOP / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]


def unnamed(before: dict[str, str], now: dict[str, str], changes: str) -> list[str]:
    """What vanished or got another default, and is not named in the changes.

    A change is named in backticks, such as `Limits.sessions` or `connect(congestion)`. Of a default that changed,
    the list item has both values, too.
    """
    found = []
    items = re.split(r"^- ", changes, flags=re.MULTILINE)
    for name, default in before.items():
        if now.get(name) == default:
            continue
        shown = f"`{name.removeprefix('wtio.')}`"
        named = [item for item in items if shown in item]
        if name in now and default:
            named = [item for item in named if default in item and now[name] in item]
        if not named:
            found.append(f"{shown}: {default or 'there'} -> {now.get(name, 'gone')}")
    return found


def newest_changes() -> str:
    return CHANGELOG.split("\n## ")[1]


def test_the_changelog_names_every_changed_default_and_vanished_name() -> None:
    before = json.loads(RECORD.read_text(encoding="utf-8"))
    assert unnamed(before, public_names(), newest_changes()) == []


def test_a_change_that_the_changelog_does_not_name_is_found() -> None:
    before = {
        "wtio.Limits.sessions": "1000",
        "wtio.connect(congestion)": "'cubic'",
        "wtio.connect(url)": "",
        "wtio.old": "",
    }
    now = {
        "wtio.Limits.sessions": "2000",
        "wtio.connect(congestion)": "'tolerant'",
        "wtio.connect(url)": "",
        "wtio.new": "1",
    }
    assert unnamed(before, before, "") == []
    assert unnamed(before, now, "- Faster.\n") == [
        "`Limits.sessions`: 1000 -> 2000",
        "`connect(congestion)`: 'cubic' -> 'tolerant'",
        "`old`: there -> gone",
    ]
    changes = (
        "- `Limits.sessions`: 1000 before, 2000 now.\n"
        "- `connect(congestion)` is 'tolerant', not 'cubic'.\n"
        "- `old` is gone.\n"
    )
    assert unnamed(before, now, changes) == []
    assert unnamed(before, now, changes.replace("1000 before, ", "")) == ["`Limits.sessions`: 1000 -> 2000"]


def test_public_names_have_the_defaults_that_matter() -> None:
    names = public_names()
    assert names["wtio.connect(congestion)"] == names["wtio.serve(congestion)"] == "'tolerant'"
    assert names["wtio.Limits.sessions_per_connection"] == "128"
    assert "wtio.WebTransportStream" in names
    assert "wtio.WebTransportSession.close(reason)" in names
    assert "wtio.hub.Hub" in names
    assert not [value for value in names.values() if " at 0x" in value]


def deprecations(source: str) -> list[str]:
    """The messages of all deprecations in a module."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call.args[0])
        for call in calls
        if len(call.args) > 1 and isinstance(call.args[1], ast.Name) and call.args[1].id == "DeprecationWarning"
    ]


def overdue(message: str, version: str) -> bool:
    """Whether what a deprecation announces should have gone by now; it says "goes in 0.3"."""
    named = re.search(r"goes in (\d+)\.(\d+)", message)
    assert named, f"a deprecation says in which version the name goes: {message}"
    return tuple(map(int, named.groups())) <= tuple(map(int, version.split(".")[:2]))


def test_no_deprecation_outlives_the_version_that_it_names() -> None:
    for path in (TOP / "python" / "wtio").rglob("*.py"):
        for message in deprecations(path.read_text(encoding="utf-8")):
            assert not overdue(message, VERSION), f"{path}: {message}"


def test_deprecations_are_found_and_end() -> None:
    source = "warnings.warn('`x` goes in 0.3; write `y`', DeprecationWarning, stacklevel=2)"
    (message,) = deprecations(source)
    assert not overdue(message, "0.2.9")
    assert overdue(message, "0.3.0")


def test_the_version_is_the_one_in_cargo_toml() -> None:
    assert wtio.__version__ == VERSION
    assert newest_changes().startswith(f"{VERSION},")
    # What pip shows, where wtio is installed and not only on the path.
    assert importlib.metadata.version("wtio") == VERSION
