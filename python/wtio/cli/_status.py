"""Exit statuses of all commands: one table, which help, the man page and the documentation show."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from wtio import errors

__all__ = ["MEANINGS", "Status", "status_of", "status_of_end"]


class Status(IntEnum):
    """How a command ended, for the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_CONNECTION = 3
    NOT_TRUSTED = 4
    REFUSED = 5
    LOST = 6
    CLOSED = 7
    NO_ANSWER = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: Final[dict[Status, str]] = {
    Status.OK: "it did what was asked",
    Status.FAILED: "something else failed; standard error says what",
    Status.USAGE: "the command line is wrong: an option, a URL, a file that it names",
    Status.NO_CONNECTION: "no connection: no address, no answer, UDP refused, or no WebTransport there",
    Status.NOT_TRUSTED: "the certificate is not trusted",
    Status.REFUSED: "the server refused the session with an HTTP status other than 2xx",
    Status.LOST: "the session was lost, without a close code",
    Status.CLOSED: "the peer closed the session with a code other than 0, or before all was done",
    Status.NO_ANSWER: "the session is fine, but no answer came in time",
    Status.INTERRUPTED: "interrupted from the keyboard (Ctrl-C)",
    Status.BROKEN_PIPE: "whoever read standard output went away, as `head` does",
}


def status_of(error: BaseException) -> Status:
    """The status for an error that a user can act on."""
    match error:
        case KeyboardInterrupt():
            return Status.INTERRUPTED
        case errors.InvalidURLError():
            return Status.USAGE
        case errors.CertificateError():
            return Status.NOT_TRUSTED if error.path is None else Status.USAGE
        case errors.SessionRejectedError():
            return Status.REFUSED
        case errors.ConnectError():
            return Status.NO_CONNECTION
        case errors.SessionClosed():
            # Nobody expected the end here.
            return status_of_end(error.code, is_whole=False)
        case errors.WebTransportError():
            return Status.FAILED
        case BrokenPipeError():
            return Status.BROKEN_PIPE
        case OSError() if error.filename is not None:
            # A file that the command line names.
            return Status.USAGE
        case ValueError():
            return Status.USAGE
    return Status.FAILED


def status_of_end(code: int | None, *, is_whole: bool = True) -> Status:
    """The status for a session that this side did not close.

    ``code`` is its close code, None if it has none, and ``is_whole`` whether all was done that the command is for.
    """
    if code is None:
        return Status.LOST
    return Status.OK if code == 0 and is_whole else Status.CLOSED
