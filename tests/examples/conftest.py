"""The fixture that starts programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .programs import Program, Start, running

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """``async with start("examples/echo_server.py", "--port", "0") as program``; keywords are for its environment."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}

    def run(*arguments: str | Path, **variables: str) -> AbstractAsyncContextManager[Program]:
        return running(*arguments, environment=environment | variables)

    return run
