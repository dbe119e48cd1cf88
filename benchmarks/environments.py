"""Virtual environments for other libraries, which the project's own must not see: for benchmarks and interop tests."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CACHE = Path(__file__).resolve().parent / ".cache"
"""Where they are kept from one run to the next."""


AIOPQUIC = "aiopquic==0.6.1"
PYWEBTRANSPORT = "pywebtransport==0.21.1"
WEB_TRANSPORT_QUINN = "web-transport-quinn==0.1.0"
PEERS_PYTHON = (3, 12)
"""Oldest Python that all three of them run on."""


class CannotRun(Exception):
    """A library cannot take part; the text is for the reader of the table."""


def python_version(python: str) -> tuple[int, int] | None:
    """Major and minor version of an interpreter; None for one that does not run."""
    command = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        major, minor = map(int, output.split())
        return major, minor
    return None


def find_python(minimum: tuple[int, int], *, newest: bool = False) -> str | None:
    """The oldest interpreter that is new enough, the one most wheels exist for; or the newest."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(minimum[1], minimum[1] + 6)]
    candidates += [str(path) for path in Path.home().glob(".pyenv/versions/3.*/bin/python")]
    candidates.append(sys.executable)
    versions = {python: python_version(python) for python in filter(None, candidates)}
    usable = [(version, python) for python, version in versions.items() if version is not None and version >= minimum]
    if not usable:
        return None
    return (max if newest else min)(usable)[1]


def environment_python(cache: Path, base: str, name: str, requirements: Sequence[str]) -> str:
    """The interpreter of a virtual environment with ``requirements``, made when it is not there.

    Raises:
        CannotRun: It cannot be made.
    """
    version = python_version(base)
    assert version is not None
    directory = cache / f"{name}-py{version[0]}{version[1]}"
    python, stamp = directory / "bin" / "python", directory / "requirements.txt"
    wanted = "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making {directory} ({', '.join(requirements)})", flush=True)
        commands = (
            [base, "-m", "venv", "--clear", str(directory)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode != 0:
                raise CannotRun(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-300:]}")
        stamp.write_text(wanted)
    return str(python)
