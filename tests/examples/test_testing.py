"""The tests that docs/testing.md shows pass, in a project of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from .programs import ROOT
from .test_readme import blocks

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = """
async def handle(session):
    async for stream in session.incoming_bidirectional_streams():
        await stream.write(data=await stream.read_all(), end_stream=True)
"""


def test_what_the_page_about_testing_shows(tmp_path: Path) -> None:
    pair, application, fixtures, conditions, conftest = blocks_by_words(
        "session_pair(loss",
        "application.handle",
        "test_step_by_step",
        "network.rebind()",
        "pytest_asyncio_loop_factories",
    )
    files = {
        "application.py": APPLICATION,
        "conftest.py": f"import wtio.testing\n\n{conftest}",
        "test_pair.py": pair,
        "test_application.py": (
            "import application, wtio.testing\n\n" + application + "\ndef test_it():\n    wtio.testing.run(main())\n"
        ),
        "test_fixtures.py": f"import pytest\nfrom application import handle\n\n{fixtures}",
        "test_conditions.py": (
            "import asyncio\nfrom application import handle\n\nasync def test_it(wtio_network):\n"
            "    network = wtio_network\n    async with network.serve(handle), network.connect() as session:\n"
            + textwrap.indent(conditions, "        ")
            + "        await asyncio.sleep(20)\n        assert network.counts.blacked_out > 0\n"
            "        assert not session.is_closed\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--strict-markers",
            "-o",
            "asyncio_default_fixture_loop_scope=function",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 6 passed" in done.stdout


def blocks_by_words(*words: str) -> list[str]:
    """The blocks of the page with these words, each of which is in one block; together they are all of them."""
    found = blocks(ROOT / "docs" / "testing.md", "python")
    chosen = []
    for one in words:
        (block,) = [block for block in found if one in block]
        chosen.append(block)
    assert set(chosen) == set(found), "a block of the page is not tested"
    return chosen
