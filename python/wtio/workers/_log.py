"""The log of a server that is run by name: one format for the supervisor and its workers, with the process in it."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["LEVELS", "configure"]

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
"""Names of levels, from the one with most lines on."""


def configure(level: str) -> None:
    """Write what is at this level or above to standard error, unless the program has configured logging itself."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s")
