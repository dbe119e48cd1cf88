"""The three stream classes: what an application reads from and writes to.

Bytes, order, windows and retransmission are the engine's; what an end, a reset or a stop means, and what it is called,
is decided here. A stream object holds its engine stream, its session and a few flags. No queue and no task belongs to
it: a call that must wait leaves one waiter with the engine and pulls the bytes itself when it resumes, which is why
cancelling loses none.

Thread rules: whatever changes something or waits belongs to the session's event loop and raises RuntimeError elsewhere;
the engine looks. Properties and ``diagnostics`` may be read from any thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from wtio._arguments import check_bool, check_code, check_integer, sealed
from wtio._buffer import Buffer, contiguous_bytes
from wtio._core import OVER_LIMIT, WAIT
from wtio._waiting import Waiter
from wtio.errors import (
    BusyError,
    ReadLimitError,
    StreamClosedError,
    StreamResetError,
    StreamStoppedError,
    WebTransportError,
)
from wtio.protocol.codes import ErrorCodes, describe, from_wire, to_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from wtio import _core
    from wtio.session import WebTransportSession

__all__ = [
    "BODY_RAISED_CODE",
    "Buffer",
    "ErrorCodes",
    "StreamDiagnostics",
    "StreamDirection",
    "WebTransportReceiveStream",
    "WebTransportSendStream",
    "WebTransportStream",
]

BODY_RAISED_CODE: Final = int(ErrorCodes.H3_INTERNAL_ERROR)
"""Application error code 0x102 (258): a stream is reset and stopped with it when the body of its ``async with`` raised;
a session is closed with it when the body of its ``async with`` or its server's handler raised."""

WIRE_ZERO: Final = to_wire(0)
"""Error code 0 as it stands on the wire."""
_WIRE_BODY_RAISED: Final = to_wire(BODY_RAISED_CODE)
# QUIC can carry no more on one stream (RFC 9000, section 4.5).
_MOST_BYTES: Final = 2**62 - 1
# Seconds. No application closes a stream with a code that has no meaning for applications, but a peer that ends its
# session does, and the resets may overtake the capsule with the session's code and reason: Firefox sends them first.
_END_PATIENCE: Final = 0.5


class StreamDirection(StrEnum):
    """Which ways a stream carries bytes, seen from this side."""

    BIDIRECTIONAL = "bidirectional"
    SEND_ONLY = "send_only"
    RECEIVE_ONLY = "receive_only"


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDiagnostics:
    """A snapshot of one stream's numbers. Byte counts are payload, without the stream's header; times are seconds.

    Cheap to take, and readable after the end of the stream.
    """

    stream_id: int
    """QUIC stream ID."""
    session_id: int
    """Session ID: the QUIC stream ID of the session's CONNECT stream."""
    direction: StreamDirection
    """Which ways it carries bytes."""
    is_peer_initiated: bool
    """Whether the peer opened it."""
    receive_state: str
    """``open``, ``ended`` (all was read), ``reset`` (by the peer), ``stopped`` (by this side), ``gone`` (with its
    connection) or ``none`` (send-only)."""
    send_state: str
    """``open``, ``finished``, ``acked`` (finished, and all acknowledged), ``reset`` (by this side), ``stopped`` (by the
    peer), ``gone`` (with its connection) or ``none`` (receive-only)."""
    bytes_written: int
    """Accepted from the application."""
    bytes_sent: int
    """Handed to packets, retransmissions not counted."""
    bytes_acknowledged: int
    """Acknowledged by the peer's QUIC stack."""
    bytes_received: int
    """Received in order."""
    bytes_read: int
    """Taken by the application."""
    send_buffered: int
    """Accepted and not sent yet."""
    receive_buffered: int
    """Received and not read yet."""
    blocked_seconds: float
    """How long data waited for the peer's flow control, in all."""
    receive_reset_code: int | None
    """Application code with which the peer reset its sending side; None if it did not, or if the code has no such
    meaning."""
    receive_stop_code: int | None
    """Application code with which this side stopped receiving; None if it did not."""
    send_reset_code: int | None
    """Application code with which this side reset its sending side; None if it did not."""
    send_stop_code: int | None
    """Application code with which the peer stopped receiving; None if it did not, or the code has no such meaning."""
    send_order: int
    """Priority within the session: higher goes first."""
    dialect: str
    """Draft that the session speaks, for instance ``draft15``."""
    created_at: float | None
    """When the stream was opened or arrived, on the engine's clock."""
    first_byte_at: float | None
    """When the first payload byte was received; None if not yet."""
    ended_at: float | None
    """When both sides had ended; None if not yet."""


def _checked_wire(error_code: int) -> int:
    """The wire code of an application's error code."""
    check_code("error_code", error_code, "application error code")
    return to_wire(error_code)


class _Stream:
    """What all streams share. Its slots are the whole state of a stream object."""

    __slots__ = (
        "__weakref__",
        "_core",
        "_last_write_accepted",
        "_reading",
        "_reset_seen",
        "_session",
        "_stop_seen",
        "_writing",
    )

    def __init__(self, core: _core.Stream, session: WebTransportSession) -> None:
        # Dropping an unfinished stream resets and stops it without an error code of its own.
        core.abandon_code = WIRE_ZERO
        self._core = core
        self._session = session
        self._reading = False
        self._writing = False
        # When a call first met a reset or a stop that may announce the end of the session; None before.
        self._reset_seen: float | None = None
        self._stop_seen: float | None = None
        self._last_write_accepted = 0

    @property
    def last_write_accepted(self) -> int:
        """Bytes that the latest ``write`` or ``write_all`` accepted.

        All of its data, or after a cancellation or an error the length of the prefix that was. 0 before the first
        write.
        """
        return self._last_write_accepted

    @property
    def stream_id(self) -> int:
        """The QUIC stream ID."""
        return self._core.id

    @property
    def session(self) -> WebTransportSession:
        """The session that this stream belongs to."""
        return self._session

    @property
    def direction(self) -> StreamDirection:
        """Return the directionality of the stream."""
        return StreamDirection.BIDIRECTIONAL

    @property
    def is_peer_initiated(self) -> bool:
        """Whether the peer opened this stream."""
        # RFC 9000, section 2.1: the lowest bit is set on streams that the server opened.
        return bool(self._core.id & 1) == self._session.is_client

    @property
    def is_closed(self) -> bool:
        """Whether both sides have ended: nothing can be read or written any more.

        A finished sending side counts as ended; its last bytes may still be on their way (``wait_acked``).
        """
        return self._core.receive_state()[0] != "open" and self._core.send_state()[0] != "open"

    def diagnostics(self) -> StreamDiagnostics:
        """Return a snapshot of this stream's numbers. Never fails, also after the end."""
        core = self._core
        stats = core.stats()
        receive_state, receive_code = core.receive_state()
        send_state, send_code = core.send_state()
        return StreamDiagnostics(
            stream_id=core.id,
            session_id=self._session.session_id,
            direction=self.direction,
            is_peer_initiated=self.is_peer_initiated,
            receive_state=receive_state,
            send_state=send_state,
            bytes_written=int(stats["written"] or 0),
            bytes_sent=int(stats["sent"] or 0),
            bytes_acknowledged=int(stats["acked"] or 0),
            bytes_received=int(stats["received"] or 0),
            bytes_read=int(stats["read"] or 0),
            send_buffered=int(stats["send_buffered"] or 0),
            receive_buffered=int(stats["receive_buffered"] or 0),
            blocked_seconds=float(stats["blocked"] or 0.0),
            receive_reset_code=from_wire(receive_code) if receive_state == "reset" else None,
            receive_stop_code=from_wire(receive_code) if receive_state == "stopped" else None,
            send_reset_code=from_wire(send_code) if send_state == "reset" else None,
            send_stop_code=from_wire(send_code) if send_state == "stopped" else None,
            send_order=core.priority,
            dialect=self._session.dialect,
            created_at=stats["created"],
            first_byte_at=stats["first_byte"],
            ended_at=stats["ended"],
        )

    def _ended_with_session(self, state: str, wire: int) -> bool:
        """Whether a side in this state was open until the session ended (section 6 of the draft).

        A code without application meaning is the session's, on either side.
        """
        return state == "gone" or (
            state in ("reset", "stopped") and self._session.is_closed and from_wire(wire) is None
        )

    def _busy(self, doing: str) -> BusyError:
        return BusyError(
            f"stream {self._core.id} is already being {doing} by another task; use one task per direction, or a lock"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The same for all three classes: on a side that a stream does not have, the engine does nothing.
        if error is None:
            self._core.finish()
            self._core.stop(WIRE_ZERO)
        else:
            self._core.reset(_WIRE_BODY_RAISED)
            self._core.stop(_WIRE_BODY_RAISED)

    def __repr__(self) -> str:
        core = self._core
        states = f"receive={core.receive_state()[0]} send={core.send_state()[0]}"
        return f"<{type(self).__name__} {core.id} session={self._session.session_id} {states}>"


class WebTransportReceiveStream(_Stream):
    """Manage the readable side of a WebTransport stream.

    Cancelling any method is safe: bytes that were not returned stay in the stream. One task may read at a time; a
    second one gets a BusyError. ``async with`` closes the stream at the end, ``async for chunk in stream`` reads to
    its end.

    A reset whose code has no meaning for applications may be the first sign of the session's end: the call that meets
    one waits for that, up to 0.5 seconds, and raises SessionClosed with the session's code and reason if it comes,
    otherwise StreamResetError with ``error_code`` None. No bytes are lost if the wait is cancelled.

    Source: draft-ietf-webtrans-http3-16, sections 4 and 6.
    """

    __slots__ = ()

    @property
    def can_read(self) -> bool:
        """Return True if the stream is readable: a read can still deliver data or the end.

        False once the end, a reset, a stop or the end of the session was seen.
        """
        return self._core.receive_state()[0] == "open"

    @property
    def direction(self) -> StreamDirection:
        """Return the directionality of the stream."""
        return StreamDirection.RECEIVE_ONLY

    async def read(self, *, max_bytes: int = -1) -> bytes:
        """Read data from the stream: what has arrived, at most ``max_bytes``.

        Waits for the first byte only. Does not suspend if data is there. Cancelling loses no byte.

        Args:
            max_bytes: Most bytes to return; -1 returns all that have arrived, 0 returns ``b""`` at once.

        Returns:
            At least one byte, or ``b""`` at the end of the stream, again and again.

        Raises:
            ValueError: ``max_bytes`` is below -1.
            TypeError: ``max_bytes`` is no int.
            StreamResetError: The peer abandoned the stream; ``error_code`` is its application code.
            StreamClosedError: This side stopped receiving before.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.

        Source: draft-ietf-webtrans-http3-16, section 4.4.
        """
        if self._reading:
            raise self._busy("read")
        core = self._core
        try:
            if max_bytes <= 0 and max_bytes != -1:
                if max_bytes == 0:
                    check_integer("max_bytes", max_bytes, -1)
                    return b""
                raise ValueError(f"max_bytes is {max_bytes}; it must be -1 (all that has arrived) or more")
            data = core.read(max_bytes)
        except (TypeError, OverflowError):
            check_integer("max_bytes", max_bytes, -1, _MOST_BYTES)
            raise
        while not isinstance(data, bytes):
            if data == WAIT:
                await self._wait_readable()
            else:
                await self._raise_unless_ended()
                return b""
            data = core.read(max_bytes)
        return data

    async def readinto(self, buffer: Buffer) -> int:
        """Read what has arrived into ``buffer``, without making a bytes object.

        Waits for the first byte only. Cancelling loses no byte; ``buffer`` is untouched then.

        Args:
            buffer: A writable, contiguous buffer of at least one byte.

        Returns:
            Number of bytes stored, at least 1; 0 at the end of the stream, or for an empty buffer.

        Raises:
            TypeError: ``buffer`` is read-only, not contiguous or not a buffer.
            StreamResetError: The peer abandoned the stream.
            StreamClosedError: This side stopped receiving before.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.
        """
        if self._reading:
            raise self._busy("read")
        core = self._core
        # Released in any case: a view that lives on in a traceback would keep the caller from resizing the buffer.
        with memoryview(contiguous_bytes(buffer, "buffer")) as target:
            if target.readonly and (len(target) or isinstance(buffer, bytes)):
                raise TypeError("buffer is read-only; use a bytearray or a writable memoryview")
            if not len(target):
                return 0
            count = core.read_into(target)
            while count < 0:
                if count == -1:
                    await self._wait_readable()
                else:
                    await self._raise_unless_ended()
                    return 0
                count = core.read_into(target)
            return count

    async def read_all(self) -> bytes:
        """Read all data from the stream until EOF.

        Cancelling loses no byte: everything stays in the stream for the next call.

        Returns:
            Everything up to the end of the stream, ``b""`` if nothing is left.

        Raises:
            ReadLimitError: More than ``Limits.read_all`` bytes (default 64 MiB) came; all are still readable.
            StreamResetError: The peer abandoned the stream; what came before is still readable with ``read``, if the
                peer's QUIC stack delivered it.
            StreamClosedError: This side stopped receiving before.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.
        """
        if self._reading:
            raise self._busy("read")
        core = self._core
        limit = self._session._limits.read_all
        most = -1 if limit is None else limit
        data = core.read_all(most)
        while not isinstance(data, bytes):
            if data == WAIT:
                await self._wait_readable()
            elif data == OVER_LIMIT:
                raise ReadLimitError(
                    f"stream {core.id} holds more than {limit} bytes; raise Limits.read_all (None: no limit), "
                    "or read in pieces: all bytes are still in the stream",
                    limit=most,
                    setting="Limits.read_all",
                    stream_id=core.id,
                )
            else:
                await self._raise_unless_ended()
                return b""
            data = core.read_all(most)
        return data

    async def readexactly(self, *, n: int) -> bytes:
        """Read exactly n bytes from the stream, however large ``n`` is compared with any window.

        Cancelling loses no byte: what had come stays in the stream for the next call.

        Args:
            n: Number of bytes; 0 returns ``b""`` at once.

        Returns:
            ``n`` bytes.

        Raises:
            ValueError: ``n`` is negative.
            TypeError: ``n`` is no int.
            asyncio.IncompleteReadError: The stream ended first; ``partial`` holds the bytes before the end.
            StreamResetError: The peer abandoned the stream first; ``partial`` holds the bytes before the reset.
            StreamClosedError: This side stopped receiving before.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.
        """
        if self._reading:
            raise self._busy("read")
        core = self._core
        try:
            if n <= 0:
                if n == 0:
                    check_integer("n", n, 0)
                    return b""
                raise ValueError(f"n is {n}; it must be 0 or more")
            data = core.read_exactly(n)
        except (TypeError, OverflowError):
            check_integer("n", n, 0, _MOST_BYTES)
            raise
        while not isinstance(data, bytes):
            if data == WAIT:
                await self._wait_readable()
            else:
                raise await self._incomplete(n)
            data = core.read_exactly(n)
        return data

    async def readline(self, *, limit: int = -1) -> bytes:
        r"""Read a line from the stream, through its ``\n``.

        Cancelling loses no byte: the unfinished line stays in the stream for the next call.

        Args:
            limit: Longest line in bytes, its ``\n`` not counted; -1 is ``Limits.line`` (default 1 MiB).

        Returns:
            One line with its ``\n``; the last line may lack it; ``b""`` at the end of the stream.

        Raises:
            ValueError: ``limit`` is below -1.
            TypeError: ``limit`` is no int.
            ReadLimitError: No ``\n`` within the limit (also an ``asyncio.LimitOverrunError``); all bytes stay in the
                stream.
            StreamResetError: The peer abandoned the stream; ``partial`` holds the unfinished line.
            StreamClosedError: This side stopped receiving before.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.
        """
        try:
            return await self.readuntil(separator=b"\n", limit=limit)
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def readuntil(self, *, separator: bytes, limit: int = -1) -> bytes:
        """Read data from the stream until a separator is found, also one that arrives in pieces.

        The time is linear in the bytes received. Cancelling loses no byte.

        Args:
            separator: One or more bytes.
            limit: Most bytes before the separator, as in asyncio; -1 is ``Limits.line`` (default 1 MiB).

        Returns:
            Everything through the first separator.

        Raises:
            ValueError: ``separator`` is empty, or ``limit`` is below -1.
            TypeError: ``separator`` is not bytes-like, or ``limit`` no int.
            ReadLimitError: No separator within the limit (also an ``asyncio.LimitOverrunError``); all bytes stay in
                the stream.
            asyncio.IncompleteReadError: The stream ended first; ``partial`` holds the bytes before the end.
            StreamResetError: The peer abandoned the stream first; ``partial`` holds the bytes before the reset.
            StreamClosedError: This side stopped receiving before.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.
        """
        if self._reading:
            raise self._busy("read")
        if not isinstance(separator, bytes):
            separator = bytes(contiguous_bytes(separator, "separator"))
        if not separator:
            raise ValueError("separator is empty; it must be at least one byte")
        if limit != -1 or type(limit) is not int:
            check_integer("limit", limit, -1, _MOST_BYTES)
        core = self._core
        most = self._session._limits.line if limit == -1 else limit
        data = core.read_until(separator, most)
        while not isinstance(data, bytes):
            if data == WAIT:
                await self._wait_readable()
            elif data == OVER_LIMIT:
                setting = "Limits.line" if limit == -1 else "limit"
                raise ReadLimitError(
                    f"more than {most} bytes without separator {separator!r} on stream {core.id}; raise {setting}, "
                    "or read in pieces: all bytes are still in the stream",
                    limit=most,
                    setting=setting,
                    stream_id=core.id,
                )
            else:
                raise await self._incomplete(None)
            data = core.read_until(separator, most)
        return data

    async def stop_receiving(self, *, error_code: int = ErrorCodes.APP_NO_ERROR) -> None:
        """Signal the peer to stop sending data (STOP_SENDING). What had arrived is discarded.

        Does nothing on a side that is already finished. Never suspends, so cancelling cannot interrupt it. A read
        that is pending in another task ends with StreamClosedError.

        Args:
            error_code: Application error code for the peer, 0 … 2^32-1. Default 0.

        Raises:
            ValueError: ``error_code`` is outside 32 bits.
            TypeError: ``error_code`` is no int.

        Source: draft-ietf-webtrans-http3-16, section 4.4.
        """
        self._core.stop(_checked_wire(error_code))

    async def close(self) -> None:
        """Terminate the receiving side of the stream: ``stop_receiving`` with code 0, unless the end was seen.

        Idempotent. Never suspends, so cancelling cannot interrupt it.
        """
        self._core.stop(WIRE_ZERO)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the chunks as they arrive, to the end; each ``__anext__`` is one ``read()``."""
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _wait_readable(self) -> None:
        waiter = Waiter(self._session._loop)
        self._core.wait_readable(waiter)
        self._reading = True
        try:
            await waiter
        finally:
            self._reading = False

    async def _raise_unless_ended(self) -> None:
        """Return at a regular end of the stream; raise what ended it otherwise."""
        await self._await_end_after_reset()
        error = self._receive_failure()
        if error is not None:
            try:
                raise error
            finally:
                # A frame and an exception that know each other would keep the stream until the collector comes.
                del error

    async def _incomplete(self, expected: int | None) -> Exception:
        """The error for a stream that ended before what was asked for; takes the rest out of the stream."""
        # All that is left at a regular end. After a reset it stays in the stream for now, where a cancellation of the
        # wait cannot lose it.
        partial = self._core.read_all(-1)
        if isinstance(partial, bytes):
            return asyncio.IncompleteReadError(partial, expected)
        await self._await_end_after_reset()
        error = self._receive_failure()
        if isinstance(error, StreamResetError):
            partial = self._core.read(-1)
            error.partial = partial if isinstance(partial, bytes) else b""
        return asyncio.IncompleteReadError(b"", expected) if error is None else error

    async def _await_end_after_reset(self) -> None:
        """Wait, bounded, for the end of the session where the peer's reset may announce it."""
        state, wire = self._core.receive_state()
        if state != "reset" or from_wire(wire) is not None:
            return
        session = self._session
        if self._reset_seen is None:
            self._reset_seen = session._loop.time()
        self._reading = True
        try:
            await session._ended_by(self._reset_seen + _END_PATIENCE)
        finally:
            self._reading = False

    def _receive_failure(self) -> WebTransportError | None:
        state, wire = self._core.receive_state()
        number = self._core.id
        if self._ended_with_session(state, wire):
            return self._session._closed_error()
        if state == "reset":
            return StreamResetError(
                f"stream {number} was reset by the peer with {describe(wire)}",
                error_code=from_wire(wire),
                wire_code=wire,
                stream_id=number,
            )
        if state == "stopped":
            return StreamClosedError(
                f"stream {number} cannot be read: this side stopped receiving with {describe(wire)}", stream_id=number
            )
        return None


class WebTransportSendStream(_Stream):
    """Manage the writable side of a WebTransport stream.

    One task may write at a time; a second one gets a BusyError. ``async with`` ends the stream: with its end if the
    body was left normally, with ``reset`` and the code ``BODY_RAISED_CODE`` (0x102) if it raised.

    A stop whose code has no meaning for applications may be the first sign of the session's end: the call that meets
    one waits for that, up to 0.5 seconds, and raises SessionClosed with the session's code and reason if it comes,
    otherwise StreamStoppedError with ``error_code`` None.

    Source: draft-ietf-webtrans-http3-16, sections 4 and 6.
    """

    __slots__ = ()

    @property
    def can_write(self) -> bool:
        """Return True if the stream is writable: not finished, reset, stopped by the peer or gone with its session."""
        return self._core.send_state()[0] == "open"

    @property
    def direction(self) -> StreamDirection:
        """Return the directionality of the stream."""
        return StreamDirection.SEND_ONLY

    @property
    def send_order(self) -> int:
        """Priority among the streams of the connection: those with a higher number go first. Default 0; settable.

        Streams of equal order share the connection fairly. Local only: nothing of it goes over the wire. 32 bits,
        signed; setting another number raises ValueError, and anything but an int TypeError.
        """
        return self._core.priority

    @send_order.setter
    def send_order(self, value: int) -> None:
        check_integer("send_order", value, -(2**31), 2**31 - 1)
        self._core.priority = value

    async def write(self, *, data: Buffer, end_stream: bool = False) -> None:
        """Write data to the stream. Returns when all of it is accepted into the stream's bounded queue.

        Accepted means neither sent nor acknowledged (``wait_acked``). Waits while the queue is full
        (``Limits.stream_send_buffer``, default 256 KiB, and ``Limits.connection_send_buffer``, default 4 MiB). Does not
        suspend while there is room. Small writes of one loop iteration leave together. After the return the caller may
        change ``data``.

        Cancelling keeps what was accepted, a prefix of ``data``. ``last_write_accepted`` is its length in bytes; the
        CancelledError carries it too, as its attribute ``bytes_accepted``. The end is not sent then.

        Args:
            data: Bytes-like and contiguous. ``b""`` writes nothing.
            end_stream: End the stream after ``data``.

        Raises:
            TypeError: ``data`` is text, no buffer, or not contiguous, or ``end_stream`` is no bool.
            StreamClosedError: This side finished or reset the stream before.
            StreamStoppedError: The peer does not want more; ``error_code`` is its application code.
            SessionClosed: The session ended.
            BusyError: Another task is writing to this stream.

        Source: draft-ietf-webtrans-http3-16, section 4.
        """
        if self._writing:
            raise self._busy("written")
        if not isinstance(data, bytes):
            data = contiguous_bytes(data)
        if end_stream is not False and end_stream is not True:
            check_bool("end_stream", end_stream)
        size = len(data)
        core = self._core
        accepted = core.write(data) if size else self._check_open()
        if accepted == size:
            self._last_write_accepted = size
            if end_stream:
                core.finish()
            return
        await self._write_rest(data, size, size, accepted, True, end_stream)

    async def write_all(self, *, data: Buffer, chunk_size: int = 65536, end_stream: bool = False) -> None:
        """Write buffer data to the stream in chunks, so that gigabytes need no gigabytes of queue.

        As ``write``, with cancellation and errors as there: what was accepted is a prefix of ``data``.

        Args:
            data: Bytes-like and contiguous, for instance a ``mmap``. It must not change before the return.
            chunk_size: Most bytes handed to the queue at once. Default 65 536.
            end_stream: End the stream after ``data``.

        Raises:
            ValueError: ``chunk_size`` is below 1.
            TypeError: ``data`` is text, no buffer, or not contiguous, or ``end_stream`` is no bool.
            StreamClosedError: This side finished or reset the stream before.
            StreamStoppedError: The peer does not want more.
            SessionClosed: The session ended.
            BusyError: Another task is writing to this stream.
        """
        if type(chunk_size) is not int or chunk_size < 1:
            check_integer("chunk_size", chunk_size, 1)
        if end_stream is not False and end_stream is not True:
            check_bool("end_stream", end_stream)
        if self._writing:
            raise self._busy("written")
        view = memoryview(contiguous_bytes(data))
        await self._write_rest(view, len(view), chunk_size, self._check_open(), False, end_stream)

    async def reset(self, *, error_code: int = ErrorCodes.APP_NO_ERROR) -> None:
        """Abruptly terminate stream transmission; the peer learns of the stream and of the code.

        Data not delivered yet is given up. Does nothing on a finished stream whose end is acknowledged, or on one that
        is reset already. Never suspends, so cancelling cannot interrupt it. A write that is pending in another task
        ends with StreamClosedError.

        Args:
            error_code: Application error code for the peer, 0 … 2^32-1. Default 0.

        Raises:
            ValueError: ``error_code`` is outside 32 bits.
            TypeError: ``error_code`` is no int.

        Source: draft-ietf-webtrans-http3-16, section 4.4; draft-ietf-quic-reliable-stream-reset-10.
        """
        self._core.reset(_checked_wire(error_code))

    async def close(self, *, error_code: int | None = None) -> None:
        """Terminate the sending side of the stream.

        Idempotent. Never suspends, so cancelling cannot interrupt it; ``wait_acked`` waits for delivery. A write that
        is pending in another task ends with StreamClosedError.

        Args:
            error_code: None sends the end after all accepted data; a number does what ``reset`` does with it.

        Raises:
            ValueError: ``error_code`` is outside 32 bits.
            TypeError: ``error_code`` is no int.
        """
        if error_code is None:
            self._core.finish()
        else:
            self._core.reset(_checked_wire(error_code))

    async def wait_acked(self) -> None:
        """Wait until everything accepted so far, the end included, is acknowledged by the peer's QUIC stack.

        Acknowledged means received, not read. Cancelling changes nothing. Returns at once if nothing is outstanding.
        What another task writes meanwhile is waited for, too.

        Raises:
            StreamClosedError: This side reset the stream, so part of the data may never arrive.
            StreamStoppedError: The peer stopped the stream, so part of the data may never arrive.
            SessionClosed: The session ended first.
        """
        self._session._core.check_loop()
        core = self._core
        state = core.send_state()[0]
        if state == "finished" or (state == "open" and core.unacked):
            waiter = Waiter(self._session._loop)
            core.wait_acked(waiter)
            await waiter
            state = core.send_state()[0]
        if state not in ("open", "finished", "acked"):
            raise await self._send_failure()

    async def wait_stopped(self) -> int | None:
        """Wait until the peer stops the stream (STOP_SENDING), as ``writer.closed`` tells pages in browsers.

        For those who have nothing to write for a long time, or compute at length before they do, and want to leave off
        when nobody reads it any more. Returns at once if the peer has stopped the stream before. Any number of tasks
        may wait, also beside one that writes. Cancelling changes nothing.

        Returns:
            The peer's application error code, 0 … 2^32-1; None where its code has no application meaning.

        Raises:
            StreamClosedError: No stop can come any more: all data is acknowledged, the end included, or this side
                reset the stream. While a finished stream still has data on the way, the call waits.
            SessionClosed: The session ended first.

        Source: RFC 9000, section 3.5; draft-ietf-webtrans-http3-16, section 4.4.
        """
        self._session._core.check_loop()
        core = self._core
        if core.send_state()[0] in ("open", "finished"):
            waiter = Waiter(self._session._loop)
            core.wait_stopped(waiter)
            await waiter
        await self._await_end_after_stop()
        state, wire = core.send_state()
        if self._ended_with_session(state, wire):
            raise self._session._closed_error()
        if state == "stopped":
            return from_wire(wire)
        words = f"this side reset it with {describe(wire)}" if state == "reset" else "all of its data is acknowledged"
        raise StreamClosedError(f"stream {core.id} cannot be stopped by the peer any more: {words}", stream_id=core.id)

    def _check_open(self) -> int:
        """What an empty write accepts: 0, or -1 where nothing can be written any more."""
        self._session._core.check_loop()
        return 0 if self._core.send_state()[0] == "open" else -1

    async def _write_rest(
        self,
        data: bytes | bytearray | memoryview,
        size: int,
        chunk_size: int,
        accepted: int,
        is_full: bool,
        end_stream: bool,
    ) -> None:
        """Go on after ``accepted`` bytes (-1: closed), in chunks, waiting for space as often as needed."""
        core = self._core
        total = max(accepted, 0)
        self._writing = True
        try:
            while accepted >= 0 and total < size:
                if is_full:
                    await self._wait_writable()
                end = total + chunk_size
                if end < size and isinstance(data, memoryview):
                    with data[total:end] as piece:
                        accepted = core.write(piece)
                    is_full = accepted < chunk_size
                else:
                    accepted = core.write(data, total)
                    is_full = accepted < size - total
                total += max(accepted, 0)
            if accepted >= 0:
                if end_stream:
                    core.finish()
                return
            error = await self._send_failure()
        except asyncio.CancelledError as cancelled:
            cancelled.bytes_accepted = total  # type: ignore[attr-defined]
            cancelled.add_note(
                f"the write of {size} bytes to stream {core.id} was cancelled after {total} were accepted"
            )
            raise
        finally:
            self._writing = False
            self._last_write_accepted = total
            if isinstance(data, memoryview):
                # Ours; a traceback that kept it would keep the caller from resizing the buffer.
                data.release()
        try:
            raise error
        finally:
            del error

    async def _wait_writable(self) -> None:
        waiter = Waiter(self._session._loop)
        self._core.wait_writable(waiter)
        await waiter

    async def _send_failure(self) -> WebTransportError:
        """The error that says why nothing can be written."""
        await self._await_end_after_stop()
        state, wire = self._core.send_state()
        number = self._core.id
        if self._ended_with_session(state, wire):
            return self._session._closed_error()
        if state == "stopped":
            return StreamStoppedError(
                f"stream {number} cannot be written: the peer stopped receiving with {describe(wire)}",
                error_code=from_wire(wire),
                wire_code=wire,
                stream_id=number,
            )
        words = f"reset by this side with {describe(wire)}" if state == "reset" else "ended by this side before"
        return StreamClosedError(f"stream {number} cannot be written: it was {words}", stream_id=number)

    async def _await_end_after_stop(self) -> None:
        """Wait, bounded, for the end of the session where the peer's stop may announce it."""
        state, wire = self._core.send_state()
        if state != "stopped" or from_wire(wire) is not None:
            return
        session = self._session
        if self._stop_seen is None:
            self._stop_seen = session._loop.time()
        await session._ended_by(self._stop_seen + _END_PATIENCE)


class WebTransportStream(WebTransportSendStream, WebTransportReceiveStream):
    """Manage the bidirectional WebTransport stream: everything of its two base classes.

    One task may read and another one write at the same time. ``async with`` ends both sides.

    Source: draft-ietf-webtrans-http3-16, section 4.3.
    """

    __slots__ = ()

    @property
    def direction(self) -> StreamDirection:
        """Return the directionality of the stream."""
        return StreamDirection.BIDIRECTIONAL

    async def close(self, *, error_code: int | None = None) -> None:
        """Terminate both sides of the stream.

        Idempotent. Never suspends, so cancelling cannot interrupt it.

        Args:
            error_code: None sends the end after all accepted data, and stops receiving with code 0 unless the peer's
                end was seen; a number resets and stops with that code.

        Raises:
            ValueError: ``error_code`` is outside 32 bits.
            TypeError: ``error_code`` is no int.
        """
        if error_code is None:
            self._core.finish()
            self._core.stop(WIRE_ZERO)
        else:
            wire = _checked_wire(error_code)
            self._core.reset(wire)
            self._core.stop(wire)
