"""The types that users see, checked as users check them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["usage.py", "misuse.py"])
@pytest.mark.timeout(180)
def test_mypy_strict_agrees(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--no-incremental"]
    # A configuration of its own: what a user of the installed package has.
    command += ["--config-file", "/dev/null", "--cache-dir", str(tmp_path), str(HERE / name)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
