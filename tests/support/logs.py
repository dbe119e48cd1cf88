"""What was written into the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def written(log: pytest.LogCaptureFixture) -> list[tuple[int, str, bool]]:
    """Level, text and whether there is a traceback, of all lines so far; they are taken away."""
    lines = [(record.levelno, record.getMessage(), record.exc_info is not None) for record in log.records]
    log.clear()
    return lines
