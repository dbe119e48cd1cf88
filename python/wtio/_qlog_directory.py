"""The directory that ``QLOGDIR`` names, in which each new connection gets a file (``_qlog``).

Other QUIC stacks know the variable, too. It is read when an endpoint's options are made, and is never quiet.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

__all__ = ["qlog_directory", "warn_of_qlogs"]

_VARIABLE: Final = "QLOGDIR"
_server_logger: Final = logging.getLogger("wtio.server")
_client_logger: Final = logging.getLogger("wtio.client")
# Directories of which clients have been warned, because each connect call may make its own socket.
_told: set[str] = set()


def qlog_directory() -> str | None:
    """Return the directory for the qlogs of new connections; None if none are wanted, or it cannot be written to."""
    directory = os.environ.get(_VARIABLE)
    # As for SSLKEYLOGFILE.
    if not directory or sys.flags.ignore_environment or not _is_writable(directory):
        return None
    return directory


def _is_writable(directory: str) -> bool:
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)


def warn_of_qlogs(*, is_client: bool) -> None:
    """A server starts, or a client opens a socket; of the latter only the first in a process says so."""
    directory = os.environ.get(_VARIABLE)
    if not directory or sys.flags.ignore_environment or (is_client and directory in _told):
        return
    if is_client:
        _told.add(directory)
    logger = _client_logger if is_client else _server_logger
    if _is_writable(directory):
        logger.warning(
            "each new connection writes a qlog into `%s`, with addresses and paths, and the event loop waits for the "
            "disk; unset %s to end that",
            directory,
            _VARIABLE,
        )
    else:
        logger.warning("no qlogs are written: %s `%s` is no directory that can be written to", _VARIABLE, directory)
