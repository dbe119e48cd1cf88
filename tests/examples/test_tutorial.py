"""The files of the tutorial do what the page says: its tests pass, and sensor and collector find each other."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from tests.support.ports import free_port

from .programs import ROOT, SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    """A directory with the files of the page; each block of Python begins with its file's name."""
    port = str(free_port())
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        (tmp_path / code.splitlines()[0].removeprefix("# ")).write_text(code.replace("4433", port))
    # The checkout from which a reader has installed wtio, under the name of the package and with tests of its own.
    (tmp_path / "wtio").symlink_to(ROOT)
    return tmp_path


async def test_the_tests_of_the_tutorial_pass(tutorial: Path) -> None:
    [command] = re.findall(r"`play/bin/python (-m pytest .*?)`", PAGE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command.split(), "-p", "no:cacheprovider"), cwd=tutorial, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"2 passed" in output


async def test_the_sensor_of_the_tutorial_reaches_the_collector_again_and_again(start: Start, tutorial: Path) -> None:
    async with start(tutorial / "collector.py") as collector:
        await collector.until("listening on")
        async with start(tutorial / "sensor.py", "roof") as sensor:
            await sensor.until("connected")
            await collector.until("'roof'")
            collector.process.send_signal(signal.SIGINT)
            await collector.finish()
            assert collector.output.rstrip().endswith("KeyboardInterrupt")  # as the page says
            async with start(tutorial / "collector.py") as another:
                await sensor.until("connected")
                await another.until("'roof'")
