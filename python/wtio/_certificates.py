"""The certificates of a running server: those in force, and the files that may bring others.

``Certificates`` belongs to one ``Server``, which gives what is in force to its sockets. Files are looked at every few
seconds: a ``stat`` for each, and reading only what has changed. That works the same for files that are written in
place, renamed over, or behind symbolic links that move, as certbot's and those of Kubernetes do. A thread of the loop's
executor looks, because file systems can be slow; all else happens in the event loop.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from wtio._words import date
from wtio.errors import CertificateError
from wtio.tls import read_again, renew, server_engine

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from wtio import _core
    from wtio.tls import ServerTLS

__all__ = ["Certificates", "join"]

_logger = logging.getLogger("wtio.server")

# Seconds between two looks at watched files. What has changed is used once it has been the same for two looks.
_LOOK_EVERY: Final = 2.0
# Seconds that changed files may be of no use before that is logged: somebody may still be replacing them.
_PATIENCE: Final = 10.0

# What differs between two states of a file: device, inode, size, times of change. None if it cannot be looked at.
_Mark = tuple[int, int, int, int, int] | None


def join(tls: tuple[ServerTLS, ...]) -> _core.ServerTls:
    """Make one engine object of the certificates of a server, the default one first.

    Raises:
        ValueError: They differ in what they want of clients.
    """
    first, *others = map(server_engine, tls)
    for number, other in enumerate(others, 2):
        if not first.has_same_clients(other):
            raise ValueError(
                f"tls: number {number} of {len(tls)} differs from the first in client_cafile, client_cadata or "
                "client_certificates; a server asks all of its clients for the same, whatever name they connect to"
            )
    return first.with_further(others) if others else first


class _Watched:
    """The files of one ``ServerTLS`` with ``watch=True``. ``look`` runs in a thread, one at a time."""

    __slots__ = ("_complaint", "_failing_since", "_seen", "_used", "tls")

    def __init__(self, tls: ServerTLS) -> None:
        # What is in force, read from the files. ``Certificates`` replaces it.
        self.tls = tls
        # The state of the files at the last look, and when they were last read with success; None before that. They may
        # have changed since ``tls`` was made, so the second look reads them.
        self._seen: tuple[_Mark, ...] | None = None
        self._used: tuple[_Mark, ...] | None = None
        # Since when, on the loop's clock, what is in the files cannot be used; None while it can.
        self._failing_since: float | None = None
        # What was logged of that, so that it is logged once; empty before.
        self._complaint = ""

    def look(self, now: float) -> ServerTLS | None:
        """Return what is new in the files, has stayed the same since the last look, and can be used; None otherwise.

        Args:
            now: The loop's clock, in seconds.
        """
        try:
            renew(self.tls)
            marks = self._marks()
            is_settled = marks == self._seen
            self._seen = marks
            if not is_settled or marks == self._used:
                return None
            # Raises if a file is incomplete, or if only one of certificate and key is new. The next look reads again.
            fresh = read_again(self.tls)
        except (CertificateError, ValueError, OSError) as error:
            self._note_failure(str(error), now)
            return None
        if self._marks() != marks:
            return None  # something changed while it was read
        self._used = marks
        self._failing_since, self._complaint = None, ""
        if fresh.certificates == self.tls.certificates and server_engine(fresh).has_same_clients(
            server_engine(self.tls)
        ):
            return None
        return fresh

    @property
    def is_failing(self) -> bool:
        """Whether what is in the files cannot be used."""
        return self._failing_since is not None

    def _marks(self) -> tuple[_Mark, ...]:
        return tuple(_mark(path) for path in self.tls.files)

    def _note_failure(self, words: str, now: float) -> None:
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= _PATIENCE and words != self._complaint:
            self._complaint = words
            _logger.error("the certificate is not renewed, the old one stays in force: %s", words)


def _mark(path: str) -> _Mark:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _look_at(watched: dict[int, _Watched], now: float) -> dict[int, ServerTLS]:
    """Look at all files; return what is new, by position."""
    found = {position: one.look(now) for position, one in watched.items()}
    return {position: tls for position, tls in found.items() if tls is not None}


class Certificates:
    """The certificates of a server, and which certificates it wants of its clients."""

    __slots__ = ("_adopt", "_changed", "_loop", "_timer", "_watched", "engine", "tls")

    def __init__(self, tls: tuple[ServerTLS, ...]) -> None:
        # What is in force, the default first, and the same as one object of the engine. ``_put_in_force`` changes both.
        self.tls: tuple[ServerTLS, ...] = tls
        self.engine: _core.ServerTls = join(tls)
        # By position in ``tls``: those whose files are watched, and what is to replace them, once all fit together.
        self._watched: dict[int, _Watched] = {}
        self._changed: dict[int, ServerTLS] = {}
        # Gives the engine's object to every socket. None before the server starts, and once it is closed.
        self._adopt: Callable[[_core.ServerTls], None] | None = None
        # The server's event loop; None before it starts.
        self._loop: asyncio.AbstractEventLoop | None = None
        # Until the next look at the files; None if none is watched.
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, adopt: Callable[[_core.ServerTls], None]) -> None:
        """Look at the files from now on, and report what changes to ``adopt``."""
        self._loop, self._adopt = loop, adopt
        self._watch()

    def close(self) -> None:
        """Look at no file any more."""
        self._adopt = None
        self._cancel_look()

    def replace(self, tls: tuple[ServerTLS, ...] | None) -> None:
        """Put others in force; None reads the files of the present ones again. All or nothing.

        Raises:
            CertificateError: A file cannot be used.
            ValueError: They differ in what they want of clients.
        """
        self._put_in_force(tuple(map(read_again, self.tls)) if tls is None else tls)
        self._watch()

    def _put_in_force(self, tls: tuple[ServerTLS, ...]) -> None:
        engine = join(tls).after(self.engine)
        if self._adopt is not None:
            self._adopt(engine)
        self.tls, self.engine = tls, engine

    def _watch(self) -> None:
        """Watch the files of what is in force now, and of nothing else."""
        self._watched = {position: _Watched(tls) for position, tls in enumerate(self.tls) if tls.watch}
        self._changed = {}
        self._cancel_look()
        self._look_later()

    def _cancel_look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        if self._watched and self._adopt is not None and self._loop is not None:
            self._timer = self._loop.call_later(_LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._timer = None
        assert self._loop is not None
        watched = self._watched
        try:
            looking = self._loop.run_in_executor(None, _look_at, watched, self._loop.time())
        except RuntimeError:
            # The loop is about to end and has shut its executor down.
            return
        looking.add_done_callback(partial(self._looked, watched))

    def _looked(self, watched: dict[int, _Watched], looking: asyncio.Future[dict[int, ServerTLS]]) -> None:
        if self._adopt is None or watched is not self._watched or looking.cancelled():
            # The server was closed meanwhile, or ``replace`` has put something else in force, whose files have a timer.
            return
        if changed := looking.result():
            self._changed |= changed
            self._take_changed()
        self._look_later()

    def _take_changed(self) -> None:
        """Put what has changed in force, if all fit together."""
        try:
            self._put_in_force(tuple(self._changed.get(position, tls) for position, tls in enumerate(self.tls)))
        except ValueError as error:
            # They differ in what they want of clients. That passes if the files of one cannot be used yet, because
            # several can share a file of authorities, and the others have taken its new content already.
            if not any(one.is_failing for one in self._watched.values()):
                _logger.error("the certificates are not renewed, the old ones stay in force: %s", error)
            return
        for position, fresh in self._changed.items():
            self._watched[position].tls = fresh
            names = ", ".join(fresh.names[:3]) or "no name"
            _logger.info("a new certificate is in force, for %s, until %s", names, date(fresh.not_after))
        self._changed = {}
