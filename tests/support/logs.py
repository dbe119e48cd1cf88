"""What was written into the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable

    import pytest


def is_about_no_session(record: logging.LogRecord) -> bool:
    """Whether a line is another one than those that each session has when it opens and when it ends. A filter."""
    return getattr(record, "kind", "") not in ("session opened", "session ended")


def but_sessions(records: Iterable[logging.LogRecord]) -> list[logging.LogRecord]:
    """The lines without those that each session has."""
    return [record for record in records if is_about_no_session(record)]


def written(log: pytest.LogCaptureFixture) -> list[tuple[int, str, bool]]:
    """Level, text and whether there is a traceback, of all lines so far; they are taken away."""
    lines = [(record.levelno, record.getMessage(), record.exc_info is not None) for record in log.records]
    log.clear()
    return lines
