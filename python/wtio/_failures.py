"""What a server logs when handlers fail: a few entries of each kind per minute, and then how often it happened.

A client can make handlers fail as often as it likes, for instance by resetting one stream of each session. So a failure
that a client can cause is not logged as an error, and no kind of failure is logged every time. But a server logs the
first of each class as a warning, which Python shows without any configuration: whoever tries a handler for the first
time sees why it ended.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING, Any, Final

from wtio.errors import (
    DatagramTooLargeError,
    ReadLimitError,
    RemoteProtocolError,
    SessionClosed,
    StreamCreditError,
    StreamResetError,
    StreamStoppedError,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from types import FrameType

__all__ = ["FailureLog", "place_of", "severity"]

# In this many seconds, no more is written of one kind than three errors (their differences help to find the bug) or one
# line of anything else.
_PERIOD: Final = 60.0
_MOST_ERRORS: Final = 3
# How many kinds are distinguished; further ones count as one.
_KINDS: Final = 64


def severity(error: BaseException, *, has_ended: bool) -> int:
    """Return the logging level for what a handler raised, an exception or a group of them.

    INFO if the peer caused it; WARNING if the path to the peer did not allow it; ERROR for the rest, such as the end of
    another session, or that of a task that the handler waited for and somebody had cancelled. ``has_ended`` says
    whether the handler's own session is over.
    """
    if isinstance(error, BaseExceptionGroup):
        return max(severity(part, has_ended=has_ended) for part in error.exceptions)
    if isinstance(error, (StreamResetError, StreamStoppedError, ReadLimitError)):
        return logging.INFO
    if isinstance(error, (SessionClosed, asyncio.CancelledError)):
        # Helpers of a handler are cancelled when its session ends, and it may wait for them.
        return logging.INFO if has_ended else logging.ERROR
    if isinstance(error, asyncio.IncompleteReadError):
        # A client may end a stream at any byte. The same error from somewhere else, such as a database, is serious.
        return logging.INFO if _origin(error) == "wtio.stream" else logging.ERROR
    if isinstance(error, (DatagramTooLargeError, StreamCreditError)):
        return logging.WARNING
    return logging.ERROR


class FailureLog:
    """Writes failures to a logger: the first of each kind, and after a minute how many more there were.

    Errors are of the same kind if they came from the same lines of code, other failures if they have the same class.
    """

    def __init__(self, logger: logging.Logger, *, warns_first: bool = False) -> None:
        # The logger.
        self.logger = logger
        # Whether the first failure of each class that a peer has caused is a warning; and the classes that were. Only
        # those of ``severity`` are in it, alone and in groups.
        self._warns_first = warns_first
        self._warned: set[frozenset[type[BaseException]]] = set()
        # By what makes failures alike (``_key``). At most ``_KINDS``, and one more for each message and level, which
        # stands for all further kinds.
        self._kinds: dict[Hashable, _Kind] = {}

    def write(
        self, error: BaseException, level: int, message: str, *arguments: object, session: int | None = None
    ) -> None:
        """Log ``message % arguments`` with the error, or count it. ``session`` is the number of the one it is about."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        kind = self._kind(_key(error, level, message), (message, level), now)
        if kind.until <= now:
            kind.until = now + _PERIOD
            kind.level = level
            kind.words = ", ".join(dict.fromkeys(type(part).__name__ for part in _parts(error)))
            kind.room = _MOST_ERRORS if level >= logging.ERROR else 1
        if not kind.room:
            kind.count += 1
            if kind.timer is None:
                kind.timer = loop.call_at(kind.until, self._log_count, kind)
            return
        kind.room -= 1
        extra = {"kind": "failure", "session": session}
        if level >= logging.ERROR:
            self.logger.log(level, message, *arguments, exc_info=error, extra=extra)
        else:
            first = next(_parts(error))
            self.logger.log(level, "%s: %s: %s", message % arguments, type(first).__name__, first, extra=extra)

    def report(
        self,
        error: BaseException,
        what: str,
        *arguments: object,
        has_ended: bool,
        session: int,
        is_one_stream: bool = False,
    ) -> None:
        """Log what a handler raised, as serious as it is: it failed, ended early, or ended with its session.

        Args:
            error: The exception.
            what: The handler in words, a format string.
            *arguments: For ``what``.
            has_ended: Whether the handler's session is over.
            session: The session's number in the log.
            is_one_stream: Whether it is the handler of a single stream, which a peer may give up at any time.
        """
        level = severity(error, has_ended=has_ended)
        violation = _violation(error) if has_ended else None
        if level >= logging.ERROR:
            self.write(error, level, f"{what} failed", *arguments, session=session)
        elif violation is not None:
            self._write_first(violation, f"{what} ended with its session", *arguments, session=session)
        elif has_ended:
            # Its reads and writes end with the session. That is expected, and only of interest when debugging. The text
            # of the error has the peer's reason, which may contain anything.
            self.logger.debug("%s ended with its session: %s", what % arguments, type(error).__name__)
        elif level == logging.INFO and not (is_one_stream and _is_given_up(error)):
            self._write_first(error, f"{what} ended early", *arguments, session=session)
        else:
            self.write(error, level, f"{what} ended early", *arguments, session=session)

    def _write_first(self, error: BaseException, message: str, *arguments: object, session: int) -> None:
        """Log what a peer has caused: at INFO, but the first of a class as a warning."""
        kind = frozenset(type(part) for part in _parts(error))
        if self._warns_first and kind not in self._warned:
            self._warned.add(kind)
            self.write(error, logging.WARNING, f"{message} (further ones are at INFO)", *arguments, session=session)
        else:
            self.write(error, logging.INFO, message, *arguments, session=session)

    def close(self) -> None:
        """Log the counts now."""
        for kind in self._kinds.values():
            if kind.timer is not None:
                kind.timer.cancel()
                self._log_count(kind)
        self._kinds.clear()

    def _kind(self, key: Hashable, otherwise: Hashable, now: float) -> _Kind:
        """Find or make the kind of this key; that of ``otherwise`` if there are too many."""
        if key not in self._kinds and len(self._kinds) >= _KINDS:
            self._kinds = {name: kind for name, kind in self._kinds.items() if kind.until > now}
            if len(self._kinds) >= _KINDS:
                key = otherwise
        return self._kinds.setdefault(key, _Kind())

    def _log_count(self, kind: _Kind) -> None:
        self.logger.log(kind.level, "%d more failures like the last one of %s", kind.count, kind.words)
        kind.timer = None
        kind.count = 0


class _Kind:
    """Failures of one kind."""

    __slots__ = ("count", "level", "room", "timer", "until", "words")

    def __init__(self) -> None:
        # End of the current period, in seconds of the loop's clock.
        self.until = 0.0
        # Level and classes of the period's first failure, for the line with the count.
        self.level = 0
        self.words = ""
        # How many more are written in this period.
        self.room = 0
        # How many were not written, and the timer that will log this count.
        self.count = 0
        self.timer: asyncio.TimerHandle | None = None


def _key(error: BaseException, level: int, message: str) -> Hashable:
    """What two failures of the same kind have in common."""
    parts = _parts(error)
    if level >= logging.ERROR:
        # A set, because a group may have one part for each of the client's streams.
        return message, level, frozenset((type(part), *_lines(part)) for part in parts)
    return message, level, frozenset(type(part) for part in parts)


def _violation(error: BaseException) -> BaseException | None:
    """What the peer did against the rules, if that has ended the session whose end the error tells of."""
    causes = (part.__cause__ for part in _parts(error) if isinstance(part, SessionClosed))
    return next((cause for cause in causes if isinstance(cause, RemoteProtocolError)), None)


def _is_given_up(error: BaseException) -> bool:
    """Whether the peer has reset or stopped a stream, and nothing else has happened."""
    return all(isinstance(part, (StreamResetError, StreamStoppedError)) for part in _parts(error))


def _parts(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _parts(part)
    else:
        yield error


def _lines(error: BaseException) -> Iterator[tuple[str, int]]:
    """The lines of code through which an exception came: file and number."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield frame.f_code.co_filename, line


def place_of(task: asyncio.Task[Any]) -> str:
    """Name the application's function that a task of ours runs, and the line at which it waits, to follow a noun.

    Routers and wrappers of ours in front of it are passed over. Empty if it is not known.
    """
    frames = [frame for frame in _frames(task) if not _is_ours(frame.f_globals.get("__name__", ""))]
    if not frames:
        return ""
    outermost, innermost = frames[0], frames[-1]
    name = f"{outermost.f_globals.get('__name__')}.{outermost.f_code.co_qualname}"
    return f" {name}, at {innermost.f_code.co_filename}:{innermost.f_lineno},"


def _frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of a task that waits, from the outermost one in. ``Task.get_stack`` gives only the first."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _is_ours(module: str) -> bool:
    """Whether a module is no application's: one of wtio's or asyncio's."""
    return module.partition(".")[0] in ("wtio", "asyncio")


def _origin(error: BaseException) -> object:
    """The module that raised an exception."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__") if frames else None
