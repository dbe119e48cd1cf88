"""Stubs of the frameworks of macOS that the extension uses, so that it links where there is no macOS.

zig has the C library of macOS, not its frameworks. To link, only the names in them are needed: those that the crates
declare that bind them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tools.wheels.crates import Crate

# A framework, by the crate that binds it.
FRAMEWORKS = {"security-framework-sys": "Security", "core-foundation-sys": "CoreFoundation"}
_FUNCTION = re.compile(r"^\s*pub fn (\w+)\s*\(", re.MULTILINE)
_STATIC = re.compile(r"^\s*pub static (?:mut )?(\w+)\s*:", re.MULTILINE)


def write_stubs(directory: Path, crates: list[Crate]) -> None:
    """Write a stub for each framework that is bound by one of the crates."""
    for crate in crates:
        if framework := FRAMEWORKS.get(crate.name):
            folder = directory / f"{framework}.framework"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{framework}.tbd").write_text(_stub(framework, _names(crate.directory)), encoding="utf-8")


def _names(sources: Path) -> list[str]:
    found: set[str] = set()
    for path in sources.rglob("*.rs"):
        text = path.read_text(encoding="utf-8")
        found.update(_FUNCTION.findall(text), _STATIC.findall(text))
    return sorted(found)


def _stub(framework: str, names: list[str]) -> str:
    targets = "[ x86_64-macos, arm64-macos ]"
    symbols = ", ".join(f"_{name}" for name in names)
    return "\n".join(
        (
            "--- !tapi-tbd",
            "tbd-version: 4",
            f"targets: {targets}",
            f"install-name: '/System/Library/Frameworks/{framework}.framework/Versions/A/{framework}'",
            "exports:",
            f"  - targets: {targets}",
            f"    symbols: [ {symbols} ]",
            "...",
            "",
        )
    )
