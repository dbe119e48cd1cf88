"""What wtio writes into the log about sessions and connections.

``wtio.server`` and ``wtio.client`` have one line at INFO when a session has opened and one when it has ended, and lines
at DEBUG about connections, handshakes that fail and requests that are refused. The frames in ``wtio.protocol`` are in
``_connection/watched``. Each line has its facts a second time as fields of the record (``extra``), for structured logs;
docs/logging-and-counters.md lists them.

Lines about a session call it ``session 5``, by a number that is unique in the process; those about a connection
``connection 3``. ``session_name`` is for lines that other modules write.

No line has a query, a header or a token. Nor has one a reason that a peer or the application gave: it may contain
anything. Codes and causes are named instead.

Other modules write there, too: about failures of handlers (``_failures``), certificates, memory.
"""

from __future__ import annotations

import logging
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol

from wtio._core import CloseCause
from wtio._url import without_query
from wtio._words import Loss, alert_name, loss_in_words
from wtio.protocol.codes import describe

if TYPE_CHECKING:
    from wtio import _core
    from wtio._facts import CloseInfo, SessionFacts
    from wtio.errors import RemoteProtocolError

__all__ = [
    "CLIENT",
    "PROTOCOL",
    "SERVER",
    "ConnectionLog",
    "PacedLines",
    "SessionLog",
    "connection_name",
    "connection_numbers",
    "session_name",
    "session_numbers",
    "shown_path",
]

SERVER: Final = logging.getLogger("wtio.server")
CLIENT: Final = logging.getLogger("wtio.client")
PROTOCOL: Final = logging.getLogger("wtio.protocol")

connection_numbers: Final = count(1)
"""Numbers of connections in the log, unique in the process."""
session_numbers: Final = count(1)
"""Numbers of sessions in the log, unique in the process."""

# In this many seconds, no more lines of one kind are written at DEBUG than so many.
_PERIOD: Final = 60.0
_MOST_LINES: Final = 1000
# Characters of a path in a line. Clients choose it, up to ``Limits.header_size`` bytes.
_MOST_PATH: Final = 200
# Losses of which the reason is in words of this side: of the QUIC core, and of the verifier of certificates. The latter
# may also be the peer's.
_OWN_WORDS: Final = frozenset((CloseCause.PROTOCOL, CloseCause.TLS))


def shown_path(path: str) -> str:
    """A path as it may be in the log: printable ASCII, as HTTP/3 allows no more, without its query and not too long."""
    path = without_query(path)
    return path if len(path) <= _MOST_PATH else f"{path[:_MOST_PATH]}…"


def session_name(number: int, path: str) -> str:
    """Name a session at the beginning of a line. With its path, which its first line has, but perhaps nobody sees."""
    return f"session {number}, path {shown_path(path)}"


def connection_name(logger: logging.Logger, number: int, remote: tuple[str, int]) -> str:
    """Name a connection of the side that writes to this logger, and where its peer is."""
    ip, port = remote
    return f"connection {number} {'from' if logger is SERVER else 'to'} {ip} port {port}"


class Session(Protocol):
    """What a line says of a session (``_session_state.SessionState``)."""

    log_id: int
    facts: SessionFacts

    @property
    def remote_address(self) -> tuple[str, int]: ...
    def credit(self) -> _core.Credit: ...
    def datagram_stats(self) -> _core.DatagramStats: ...


class SessionLog:
    """The two lines at INFO about one session. Made only if they are wanted when it opens."""

    __slots__ = ("_connection", "_logger", "_opened_at")

    def __init__(self, logger: logging.Logger, connection: int, session: Session, now: float) -> None:
        """Write that the session is established.

        Args:
            logger: Of the side that this is.
            connection: Number of the session's connection in the log.
            session: The session.
            now: On the loop's clock.
        """
        self._logger = logger
        self._connection = connection
        # In seconds of the loop's clock.
        self._opened_at = now
        self._write("session opened", "session %d opened: %s, path %s", session)

    def ended(self, session: Session, info: CloseInfo, now: float) -> None:
        """Write how the session has ended on this side."""
        credit, datagrams = session.credit(), session.datagram_stats()
        seconds = round(now - self._opened_at, 3)
        received = credit.stream_bytes_received + datagrams.bytes_received
        sent = credit.stream_bytes_sent + datagrams.bytes_sent
        self._write(
            "session ended",
            "session %d ended: %s, path %s, %s by %s, %.3f s, %d bytes received, %d sent",
            session,
            "no code" if info.code is None else f"code {info.code}",
            info.closed_by,
            seconds,
            received,
            sent,
            code=info.code,
            closed_by=info.closed_by,
            seconds=seconds,
            bytes_received=received,
            bytes_sent=sent,
            datagrams_received=datagrams.received,
            datagrams_sent=datagrams.sent,
        )

    def _write(self, kind: str, message: str, session: Session, *arguments: object, **fields: object) -> None:
        remote = session.remote_address
        path = shown_path(session.facts.path)
        self._logger.info(
            message,
            session.log_id,
            connection_name(self._logger, self._connection, remote),
            path,
            *arguments,
            extra={
                "kind": kind,
                "session": session.log_id,
                "connection": self._connection,
                "peer": remote[0],
                "peer_port": remote[1],
                "path": path,
                **fields,
            },
        )


class PacedLines:
    """Writes lines at DEBUG, of each kind so many a minute, and counts the others.

    Strangers can cause as many as they like: each first packet is a handshake that may fail.
    """

    __slots__ = ("_kinds", "_most", "logger")

    def __init__(self, logger: logging.Logger, most: int = _MOST_LINES) -> None:
        # Where they are written.
        self.logger: logging.Logger = logger
        # Lines of a kind in ``_PERIOD``.
        self._most = most
        # By kind: when its minute is over, on the loop's clock; how many lines are left in it; how many were left out.
        # The kinds are those of this module and of ``_connection/watched``, a handful.
        self._kinds: dict[str, tuple[float, int, int]] = {}

    def write(self, now: float, kind: str, message: str, *arguments: object, **fields: object) -> None:
        """Write a line of one kind with its fields, or count it."""
        until, room, left_out = self._kinds.get(kind, (now + _PERIOD, self._most, 0))
        if now >= until:
            if left_out:
                self.logger.debug(
                    "%d more lines of the kind `%s` were left out: no more than %d a minute are written",
                    left_out,
                    kind,
                    self._most,
                    extra={"kind": "left out", "left_out": left_out},
                )
            until, room, left_out = now + _PERIOD, self._most, 0
        if room:
            self.logger.debug(message, *arguments, extra={"kind": kind, **fields})
            room -= 1
        else:
            left_out += 1
        self._kinds[kind] = (until, room, left_out)


class ConnectionLog:
    """The lines at DEBUG about one connection. Made only if they are wanted when it begins."""

    __slots__ = ("_began_at", "_lines", "_number")

    def __init__(self, lines: PacedLines, number: int, now: float) -> None:
        self._lines = lines
        # Of the connection, unique in the process.
        self._number = number
        # When the connection began, in seconds of the loop's clock.
        self._began_at = now

    def _write(
        self, now: float, kind: str, remote: tuple[str, int], message: str, *arguments: object, **fields: object
    ) -> None:
        self._lines.write(
            now,
            kind,
            f"%s: {message}",
            connection_name(self._lines.logger, self._number, remote),
            *arguments,
            connection=self._number,
            peer=remote[0],
            peer_port=remote[1],
            **fields,
        )

    def opened(self, now: float, remote: tuple[str, int]) -> None:
        """The handshake is complete."""
        seconds = round(now - self._began_at, 3)
        self._write(now, "connection opened", remote, "opened after %.3f s", seconds, seconds=seconds)

    def lost(
        self,
        now: float,
        facts: _core.ConnectionFacts | None,
        loss: Loss,
        violation: RemoteProtocolError | None,
        idle: float,
        *,
        is_connected: bool,
    ) -> None:
        """The connection is over, or its handshake has failed (``is_connected`` is false).

        Args:
            now: On the loop's clock.
            facts: What the engine knew at the end.
            loss: How it ended.
            violation: What the peer did, if this side closed because of it.
            idle: This side's ``Timeouts.idle``, in seconds.
            is_connected: Whether the handshake was complete.
        """
        seconds = round(now - self._began_at, 3)
        remote = ("", 0) if facts is None else facts.remote_address
        is_by_peer = facts is not None and facts.is_closed_by_peer
        # What HTTP/3 finds wrong is in words of this side's, with numbers of the peer's at most.
        why = _why(loss, idle, is_by_peer=is_by_peer) if violation is None else str(violation)
        self._write(
            now,
            "connection lost" if is_connected else "handshake failed",
            remote,
            "lost after %.3f s: %s" if is_connected else "the handshake failed after %.3f s: %s",
            seconds,
            why,
            seconds=seconds,
            cause=loss.cause.name,
            code=loss.code,
            code_name=alert_name(loss.code) if loss.cause is CloseCause.TLS else describe(loss.code),
        )

    def rejected(self, now: float, remote: tuple[str, int], status: int, path: str | None) -> None:
        """A request was answered with a status that refuses it. ``path`` is None if that is not known."""
        shown = None if path is None else shown_path(path)
        what = "a request" if shown is None else f"a session for {shown}"
        self._write(
            now, "session rejected", remote, "%s was refused with status %d", what, status, status=status, path=shown
        )


def _why(loss: Loss, idle: float, *, is_by_peer: bool) -> str:
    """Explain a loss without words of the peer's or the application's."""
    # Code 0 is that of the engine, which ends handshakes: no application closes with it.
    is_own = loss.cause in _OWN_WORDS or (loss.cause is CloseCause.LOCAL and loss.code == 0)
    reason = loss.reason if is_own and not is_by_peer else ""
    text = loss_in_words(Loss(loss.cause, loss.code, reason, loss.is_remote), idle=idle)
    return "".join(character if character.isprintable() else "�" for character in text)
