"""What `make docs` does again, and when: seen on a site of two pages."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

# At the end of conf.py: code that adds a sentence to every page.
AFTERTHOUGHT = """
_before = setup


def setup(app):
    _before(app)
    app.connect("doctree-resolved", lambda app, page, name: page.append(nodes.paragraph(text="Added by conf.py.")))
"""

# Sphinx starts three times, which takes its time on a busy machine.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Two pages of their own, with what makes them of ours."""
    docs = tmp_path / "docs"
    (docs / "_static").mkdir(parents=True)
    (docs / "project").mkdir()
    shutil.copy(TOP / "docs" / "conf.py", docs)
    for name in ("Cargo.toml", "requirements-dev.txt"):
        shutil.copy(TOP / name, tmp_path)
    (docs / "README.md").write_text("# Pages\n\n## All\n\n- [Page](page.md)\n")
    (docs / "index.md").write_text("# First\n\n<!-- contents -->\n")
    (docs / "page.md").write_text("# Page\n\nText.\n")
    return docs


async def run(docs: Path) -> tuple[int | None, str]:
    """Build, and return the status and what was printed."""
    options = ("--fail-on-warning", "--keep-going", "--quiet")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sphinx", *options, str(docs), str(docs / "_build")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def build(docs: Path) -> dict[str, str]:
    """The pages as they are after a build, without a warning."""
    status, output = await run(docs)
    assert status == 0, output
    return {name: (docs / "_build" / f"{name}.html").read_text(encoding="utf-8") for name in ("index", "page")}


async def test_every_page_is_made_anew_when_the_code_that_makes_them_has_changed(docs: Path) -> None:
    before = await build(docs)
    # Otherwise only what has changed.
    (docs / "_build" / "page.html").write_text("as it was")
    assert await build(docs) == before | {"page": "as it was"}
    with (docs / "conf.py").open("a", encoding="utf-8") as conf:
        conf.write(AFTERTHOUGHT)
    after = await build(docs)
    assert {name: text.count("Added by conf.py.") for name, text in after.items()} == {"index": 1, "page": 1}


async def test_a_warning_fails_each_build_until_its_reason_is_gone(docs: Path) -> None:
    page = docs / "page.md"
    page.write_text("# Page\n\n[Nowhere](nowhere.md#here)\n")
    for _ in range(2):
        status, output = await run(docs)
        assert status == 1
        assert "nowhere.md" in output
    page.write_text("# Page\n\nText.\n")
    await build(docs)
