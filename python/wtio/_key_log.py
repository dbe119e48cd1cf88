"""The file for TLS secrets that ``SSLKEYLOGFILE`` names, with which Wireshark decrypts what it recorded.

The engine writes it. Whoever can read it can read everything that the program sends and receives, so it is never quiet.

Source: RFC 9850.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

__all__ = ["key_log_file", "warn_of_key_log"]

_server_logger = logging.getLogger("wtio.server")
_client_logger = logging.getLogger("wtio.client")

_VARIABLE: Final = "SSLKEYLOGFILE"
# Windows has no such flag: its children inherit only what is passed to them.
_CLOSE_ON_EXEC: Final[int] = getattr(os, "O_CLOEXEC", 0)
# Files of which clients have been warned, because each connect call may make its own trust settings.
_told: set[str] = set()


def key_log_file(*, is_client: bool) -> str | None:
    """Return the file that secrets are to be appended to; None without one. A client is warned once in a process.

    A file that cannot be written is worth a warning, too, but no error: the program works without it.
    """
    path = os.environ.get(_VARIABLE)
    # Python's own TLS follows the same rule.
    if not path or sys.flags.ignore_environment:
        return None
    is_quiet = is_client and path in _told
    if is_client:
        _told.add(path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _CLOSE_ON_EXEC, 0o600))
    except OSError as error:
        if not is_quiet:
            logger = _client_logger if is_client else _server_logger
            logger.warning("no TLS secrets are written: %s `%s` cannot be opened: %s", _VARIABLE, path, error.strerror)
        return None
    if is_client and not is_quiet:
        _warn(_client_logger, path)
    return path


def warn_of_key_log() -> None:
    """A server starts."""
    path = key_log_file(is_client=False)
    if path is not None:
        _warn(_server_logger, path)


def _warn(logger: logging.Logger, path: str) -> None:
    logger.warning(
        "TLS secrets are written to `%s`: whoever can read it can read all that this program sends and receives; unset "
        "%s to end that",
        path,
        _VARIABLE,
    )
