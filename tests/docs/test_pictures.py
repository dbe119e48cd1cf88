"""Pictures of the documentation are small, and each is shown with words for those who do not see it."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted(path for path in (DOCS / "_static").iterdir() if path.suffix in (".png", ".svg"))


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in PICTURES}
    assert sizes
    assert max(sizes.values()) < 150_000, sizes
    assert sum(sizes.values()) < 1_000_000, sizes


def test_every_picture_is_on_a_page_and_described() -> None:
    described = {
        name
        for page in DOCS.glob("*.md")
        for words, name in re.findall(r"!\[([^\]]+)\]\(_static/([\w.-]+)\)", page.read_text(encoding="utf-8"))
        if len(words) > 20
    }
    assert described == {path.name for path in PICTURES}
