"""Raw streams whose HTTP/3 frames and capsules are written to the log ``wtio.protocol``, at DEBUG, or into a qlog.

They take the place of ``RawStreams`` in connections that begin while that is wanted; other connections pay nothing for
it. A second reader cuts the same bytes, and the HTTP/3 layer knows nothing of it. Types and sizes are written, and no
contents. The data of sessions, on streams of their own and in datagrams, never comes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wtio._connection.raw import RawStreams
from wtio._log import PROTOCOL, PacedLines
from wtio.protocol import varint
from wtio.protocol.capsules import CapsuleType
from wtio.protocol.frames import FrameType, Handling, RecordReader, StreamType
from wtio.protocol.outbox import Role

if TYPE_CHECKING:
    import asyncio
    from enum import IntEnum

    from wtio import _core
    from wtio._qlog import ConnectionQlog
    from wtio.protocol.connection import H3Connection
    from wtio.protocol.exchanges import Exchanges

__all__ = ["WatchedStreams"]

_DIRECTIONS: Final = {True: "sent", False: "received"}


def _name(kinds: type[IntEnum], number: int) -> str:
    """Name a type. RFC 9114, sections 7.2.8 and 6.2.3; RFC 9297, section 5.4: some are reserved to mean nothing."""
    try:
        return kinds(number).name
    except ValueError:
        return "GREASE" if number >= 0x21 and (number - 0x21) % 31 == 0 else "unknown"


class _Flow:
    """What travels on one stream in one direction."""

    __slots__ = ("_capsules", "_frames", "_head", "_is_session", "_sent", "_stream_id", "_watch")

    def __init__(self, watch: _Watch, stream_id: int | None, *, sent: bool, has_type: bool) -> None:
        self._watch = watch
        # None for our control stream, which may not be open yet.
        self._stream_id = stream_id
        self._sent = sent
        # What has come of the type of a unidirectional stream, at most 7 bytes; None once it is known.
        self._head: bytes | None = b"" if has_type else None
        # Cuts frames; None on streams that have none, such as QPACK's.
        self._frames: RecordReader | None = RecordReader()
        # Cuts the capsules of a session, once it is known that the stream is one's.
        self._capsules: RecordReader | None = None
        # Whether the stream is a session's.
        self._is_session = False

    def feed(self, data: bytes, *, is_session: bool) -> None:
        """Take the next bytes."""
        self._is_session = self._is_session or is_session
        if self._head is not None:
            head = self._head + data
            kind = varint.decode(head)
            if kind is None:
                self._head = head
                return
            self._head = None
            data = head[kind[1] :]
            self._write("stream", StreamType, kind[0], None)
            if kind[0] != StreamType.CONTROL:
                self._frames = None
        if self._frames is not None:
            for _, payload in self._frames.feed(data, self._note_frame):
                if self._capsules is None:
                    self._capsules = RecordReader()
                for _ in self._capsules.feed(payload, self._note_capsule):
                    pass

    def _note_frame(self, frame_type: int, length: int) -> Handling:
        self._write("frame", FrameType, frame_type, length)
        return Handling.STREAM if frame_type == FrameType.DATA and self._is_session else Handling.SKIP

    def _note_capsule(self, capsule_type: int, length: int) -> Handling:
        self._write("capsule", CapsuleType, capsule_type, length)
        return Handling.SKIP

    def _write(self, kind: str, kinds: type[IntEnum], number: int, length: int | None) -> None:
        self._watch.write(kind, _name(kinds, number), number, length, self._stream_id, sent=self._sent)


class _Watch:
    """Reads along on all raw streams of one connection. Stands in for the HTTP/3 layer where bytes arrive."""

    __slots__ = ("_flows", "_h3", "_lines", "_loop", "_number", "_qlog", "control_id")

    def __init__(
        self,
        h3: H3Connection,
        loop: asyncio.AbstractEventLoop,
        number: int,
        *,
        is_logged: bool,
        qlog: ConnectionQlog | None,
    ) -> None:
        self._h3 = h3
        self._loop = loop
        # Of the connection in the log.
        self._number = number
        # Shared by nobody: a peer that sends many frames leaves out those of its own connection. None if the log does
        # not want them.
        self._lines = PacedLines(PROTOCOL) if is_logged else None
        # Of the connection; None without one.
        self._qlog = qlog
        # Of our control stream; ``WatchedStreams`` sets it when it is open.
        self.control_id = 0
        # By stream and by whether it is sent: those that the HTTP/3 layer has not freed. None once the connection is
        # lost.
        self._flows: dict[tuple[int | Role, bool], _Flow] | None = {}

    # -- what arrives: see ``Layer``

    @property
    def exchanges(self) -> Exchanges:
        return self._h3.exchanges

    def receive_data(self, stream_id: int, data: bytes, end: bool) -> None:
        h3 = self._h3
        is_over = h3.closed or h3.outbox.is_freed(stream_id)
        # A session may begin and end with these bytes.
        was_session = h3.session_state(stream_id) is not None
        h3.receive_data(stream_id, data, end)
        if self._qlog is not None:
            self._qlog.note_settings(h3)
        # What this leads to is sent later.
        if not is_over:
            self._feed(stream_id, data, sent=False, is_session=was_session or h3.session_state(stream_id) is not None)

    def receive_reset(self, stream_id: int, code: int) -> None:
        self._h3.receive_reset(stream_id, code)

    # -- what is sent

    def note_sent(self, target: int | Role, data: bytes) -> None:
        """Bytes leave on a stream."""
        is_session = not isinstance(target, Role) and self._h3.session_state(target) is not None
        self._feed(target, data, sent=True, is_session=is_session)

    def forget(self, stream_id: int) -> None:
        """The HTTP/3 layer wants nothing of a stream any more."""
        for sent in (True, False):
            if self._flows is not None:
                self._flows.pop((stream_id, sent), None)

    def clear(self) -> None:
        """The connection is lost. What reads along refers back to this."""
        self._flows = None

    def _feed(self, target: int | Role, data: bytes, *, sent: bool, is_session: bool) -> None:
        if self._flows is None:
            return
        flow = self._flows.get((target, sent))
        if flow is None:
            stream_id = None if isinstance(target, Role) else target
            # RFC 9000, section 2.1: the second bit is set on unidirectional streams.
            has_type = stream_id is None or bool(stream_id & 2)
            flow = self._flows[target, sent] = _Flow(self, stream_id, sent=sent, has_type=has_type)
        flow.feed(data, is_session=is_session)

    def write(self, kind: str, name: str, number: int, size: int | None, stream_id: int | None, *, sent: bool) -> None:
        """Write about a frame, a capsule, or the type of a stream (``size`` is None)."""
        if self._qlog is not None:
            place = self.control_id if stream_id is None else stream_id
            self._qlog.note_frame(self._h3, kind, number, size, place, sent=sent)
        if self._lines is None:
            return
        self._lines.write(
            self._loop.time(),
            kind,
            "connection %d, %s: %s %s %s (0x%x)%s",
            self._number,
            "our control stream" if stream_id is None else f"stream {stream_id}",
            _DIRECTIONS[sent],
            kind,
            name,
            number,
            "" if size is None else f" of {size} bytes",
            connection=self._number,
            stream_id=stream_id,
            direction=_DIRECTIONS[sent],
            type=number,
            type_name=name,
            size=size,
        )


class WatchedStreams(RawStreams):
    """The raw streams of a connection of which the log or a qlog shall have every frame."""

    __slots__ = ("_watch",)

    def __init__(
        self,
        core: _core.Connection,
        loop: asyncio.AbstractEventLoop,
        h3: H3Connection,
        unidirectional_streams: int,
        number: int,
        *,
        is_logged: bool,
        qlog: ConnectionQlog | None,
    ) -> None:
        # ``number`` is that of the connection in the log, which wants frames if ``is_logged``.
        self._watch = _Watch(h3, loop, number, is_logged=is_logged, qlog=qlog)
        super().__init__(core, loop, self._watch, unidirectional_streams)

    def send(self, target: int | Role, data: bytes, end: bool) -> bool:
        # What waits until our control stream is open comes here once more.
        if not isinstance(target, Role) or self._control is not None:
            if self._control is not None:
                self._watch.control_id = self._control.id
            self._watch.note_sent(target, data)
        return super().send(target, data, end)

    def remove(self, stream_id: int) -> _core.Stream | None:
        self._watch.forget(stream_id)
        return super().remove(stream_id)

    def free(self, stream_id: int) -> None:
        self._watch.forget(stream_id)
        super().free(stream_id)

    def clear(self) -> None:
        self._watch.clear()
        super().clear()
