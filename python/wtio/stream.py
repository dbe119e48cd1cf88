"""The three stream classes, which an application reads from and writes to, and the session that they belong to.

The session is here because a session and its streams name each other in their signatures; ``wtio.session`` exports
it. A session object wraps its ``SessionState``.

The engine looks after bytes, order, windows and retransmission. This module decides what an end, a reset or a stop
means and which error it becomes. A stream object holds its engine stream, its session and a few flags; it has no queue
and no task. A call that must wait leaves one waiter with the engine and takes the bytes itself when it resumes. That is
why cancelling loses none.

Calls that wait or change something raise RuntimeError unless they are made on the session's event loop; the engine
checks this. Properties and ``diagnostics`` can be read from any thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable  # noqa: TC003 - for typing.get_type_hints
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, Protocol, Self

from wtio._arguments import (
    check_bool,
    check_code,
    check_function,
    check_handler,
    check_integer,
    check_path,
    check_text,
    sealed,
)
from wtio._buffer import Buffer, contiguous_bytes
from wtio._core import ReadAnswer, send_datagrams
from wtio._facts import CloseInfo, SessionFacts, SessionStats
from wtio._headers import Headers, parse_cookies
from wtio._incoming import IncomingDatagrams, IncomingStreams
from wtio._reporting import certificate_report
from wtio._serving import Kind, Serving
from wtio._session_state import WIRE_ZERO
from wtio._url import parse_query, without_query
from wtio._waiting import Waiter
from wtio.errors import (
    BusyError,
    DatagramTooLargeError,
    LocalProtocolError,
    ReadLimitError,
    StreamClosedError,
    StreamResetError,
    StreamStoppedError,
    WebTransportError,
)
from wtio.protocol import varint
from wtio.protocol.codes import ErrorCodes, describe, from_wire, to_wire
from wtio.protocol.session import EXPORTER_LABEL, exporter_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

    from wtio import _core
    from wtio._core import HalfState
    from wtio._failures import FailureLog
    from wtio._reporting import Trace
    from wtio._session_state import SessionState
    from wtio.config import Limits, Timeouts
    from wtio.report import CertificateReport, ConnectionReport

__all__ = [
    "BODY_RAISED_CODE",
    "Buffer",
    "ErrorCodes",
    "StreamDiagnostics",
    "StreamDirection",
    "WebTransportReceiveStream",
    "WebTransportSendStream",
    "WebTransportStream",
    "broadcast",
]

BODY_RAISED_CODE: Final = int(ErrorCodes.H3_INTERNAL_ERROR)
"""Application error code 0x102 (258). A stream is reset and stopped with it if the body of its ``async with`` raised; a
session is closed with it if the body of its ``async with`` or its server's handler raised."""

# The most that QUIC can carry on one stream (RFC 9000, section 4.5).
_MOST_BYTES: Final = 2**62 - 1
# Seconds. Only a peer that ends its session resets streams with a code that has no meaning for applications. These
# resets may arrive before the capsule with the session's code and reason; Firefox sends them first. So wait for the
# capsule.
_END_PATIENCE: Final = 0.5


class StreamDirection(StrEnum):
    """The directions in which a stream carries bytes, seen from this side."""

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
    """The directions in which it carries bytes."""
    is_peer_initiated: bool
    """Whether the peer opened it."""
    receive_state: str
    """``open``, ``ended`` (everything was read), ``reset`` (by the peer), ``stopped`` (by this side), ``gone`` (with
    its connection) or ``none`` (send-only)."""
    send_state: str
    """``open``, ``finished``, ``acked`` (finished, and everything acknowledged), ``reset`` (by this side), ``stopped``
    (by the peer), ``gone`` (with its connection) or ``none`` (receive-only)."""
    bytes_written: int
    """Accepted from the application."""
    bytes_sent: int
    """Sent in packets, without retransmissions."""
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
    """How long data has waited for the peer's flow control, in total."""
    receive_reset_code: int | None
    """Application code with which the peer reset its sending side; None if it did not, or if the code has no
    application meaning."""
    receive_stop_code: int | None
    """Application code with which this side stopped receiving; None if it did not."""
    send_reset_code: int | None
    """Application code with which this side reset its sending side; None if it did not."""
    send_stop_code: int | None
    """Application code with which the peer stopped receiving; None if it did not, or if the code has no
    application meaning."""
    send_order: int
    """Priority within the session: higher goes first."""
    dialect: str
    """Draft that the session uses, for instance ``draft15``."""
    created_at: float | None
    """When the stream was opened or arrived, on the engine's clock."""
    first_byte_at: float | None
    """When the first payload byte was received; None if not yet."""
    ended_at: float | None
    """When both directions had ended; None if not yet."""


def _checked_wire(error_code: int) -> int:
    """The wire code of an application's error code."""
    check_code("error_code", error_code, "application error code")
    return to_wire(error_code)


class _Stream:
    """What all kinds of stream share. Its slots are the whole state of a stream object."""

    __slots__ = (
        "__weakref__",
        "_body_raised_code",
        "_core",
        "_last_write_accepted",
        "_reading",
        "_reset_seen",
        "_session",
        "_state",
        "_stop_seen",
        "_writing",
    )

    def __init__(self, core: _core.Stream, session: WebTransportSession, state: SessionState) -> None:
        # Dropping an unfinished stream resets and stops it without an error code of its own.
        core.abandon_code = WIRE_ZERO
        self._core = core
        # The application's object, which a stream keeps alive, and what is known of the session.
        self._session = session
        self._state = state
        # Whether a task waits in a read or a write, so that a second one gets a BusyError.
        self._reading = False
        self._writing = False
        # When a call first met a reset or stop that may announce the end of the session, in seconds of the loop's
        # clock; None before.
        self._reset_seen: float | None = None
        self._stop_seen: float | None = None
        self._last_write_accepted = 0
        # The application error code for the peer if the body of ``async with`` raises; the application may choose it.
        self._body_raised_code = BODY_RAISED_CODE

    @property
    def last_write_accepted(self) -> int:
        """Bytes that the latest ``write`` or ``write_all`` accepted.

        This is all of its data or, after a cancellation or an error, the length of the accepted prefix. 0 before the
        first write.
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
    def body_raised_code(self) -> int:
        """Application error code with which the stream is reset and stopped if the body of ``async with`` raises.

        Default ``BODY_RAISED_CODE`` (0x102); can be set, 0 … 2^32-1, also inside the body. It applies to handlers of
        ``serve_streams``, too. Setting a number outside 32 bits raises ValueError, anything but an int TypeError.
        """
        return self._body_raised_code

    @body_raised_code.setter
    def body_raised_code(self, value: int) -> None:
        check_code("body_raised_code", value, "application error code")
        self._body_raised_code = value

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

        A finished sending side counts as ended, although its last bytes may not have arrived yet (``wait_acked``).
        """
        return not (self._core.receive_state().is_open or self._core.send_state().is_open)

    def diagnostics(self) -> StreamDiagnostics:
        """Return a snapshot of this stream's numbers. Never fails, also after the end."""
        core = self._core
        stats = core.stats()
        receiving = core.receive_state()
        sending = core.send_state()
        return StreamDiagnostics(
            stream_id=core.id,
            session_id=self._state.session_id,
            direction=self.direction,
            is_peer_initiated=self.is_peer_initiated,
            receive_state=receiving.name,
            send_state=sending.name,
            bytes_written=stats.bytes_written,
            bytes_sent=stats.bytes_sent,
            bytes_acknowledged=stats.bytes_acknowledged,
            bytes_received=stats.bytes_received,
            bytes_read=stats.bytes_read,
            send_buffered=stats.send_buffered,
            receive_buffered=stats.receive_buffered,
            blocked_seconds=stats.blocked_seconds,
            receive_reset_code=from_wire(receiving.wire_code) if receiving.is_reset else None,
            receive_stop_code=from_wire(receiving.wire_code) if receiving.is_stopped else None,
            send_reset_code=from_wire(sending.wire_code) if sending.is_reset else None,
            send_stop_code=from_wire(sending.wire_code) if sending.is_stopped else None,
            send_order=core.send_order,
            dialect=self._state.facts.dialect,
            created_at=stats.created_at,
            first_byte_at=stats.first_byte_at,
            ended_at=stats.ended_at,
        )

    def _ended_with_session(self, state: HalfState) -> bool:
        """Whether a half in this state was open until the session ended (section 6 of the draft).

        A code without application meaning belongs to the session, on either half.
        """
        return state.is_gone or (
            (state.is_reset or state.is_stopped) and self._state.is_closed and from_wire(state.wire_code) is None
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
        # The same for all three classes: the engine ignores calls for a direction that the stream does not have.
        if error is None:
            self._core.finish()
            self._core.stop(WIRE_ZERO)
        else:
            wire = to_wire(self._body_raised_code)
            self._core.reset(wire)
            self._core.stop(wire)

    def __repr__(self) -> str:
        core = self._core
        states = f"receive={core.receive_state().name} send={core.send_state().name}"
        return f"<{type(self).__name__} {core.id} session={self._state.log_id} {states}>"


class WebTransportReceiveStream(_Stream):
    """Manage the readable side of a WebTransport stream.

    Cancelling any method is safe: bytes that were not returned stay in the stream. One task may read at a time; a
    second one gets a BusyError. ``async with`` closes the stream at the end, ``async for chunk in stream`` reads to
    its end.

    A reset with a code that has no meaning for applications may be the first sign of the session's end. The call that
    meets one waits for that end, up to 0.5 seconds, and then raises SessionClosed with the session's code and reason.
    If the session goes on, it raises StreamResetError with ``error_code`` None. Cancelling this wait loses no bytes.

    Source: draft-ietf-webtrans-http3-16, sections 4 and 6.
    """

    __slots__ = ()

    @property
    def can_read(self) -> bool:
        """Return True if the stream is readable: a read can still deliver data or the end.

        False once the end, a reset, a stop or the end of the session was seen.
        """
        return self._core.receive_state().is_open

    @property
    def direction(self) -> StreamDirection:
        """Return the directionality of the stream."""
        return StreamDirection.RECEIVE_ONLY

    async def read(self, *, max_bytes: int = -1) -> bytes:
        """Read data from the stream: what has arrived, at most ``max_bytes``.

        Waits only until there is at least one byte. Does not suspend if data is there. Cancelling loses no byte.

        Args:
            max_bytes: Most bytes to return; -1 (default) returns all that have arrived, 0 returns ``b""`` at once.

        Returns:
            At least one byte, or ``b""`` at the end of the stream, however often it is called.

        Raises:
            ValueError: ``max_bytes`` is below -1.
            TypeError: ``max_bytes`` is not an int.
            StreamResetError: The peer abandoned the stream; ``error_code`` is its application code.
            StreamClosedError: This side has already stopped receiving.
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
            if data is ReadAnswer.WAIT:
                await self._wait_readable()
            else:
                await self._raise_unless_ended()
                return b""
            data = core.read(max_bytes)
        return data

    async def readinto(self, buffer: Buffer) -> int:
        """Read what has arrived into ``buffer``, without making a bytes object.

        Waits only until there is at least one byte. Cancelling loses no byte and leaves ``buffer`` unchanged.

        Args:
            buffer: A writable, contiguous buffer of at least one byte.

        Returns:
            Number of bytes stored, at least 1; 0 at the end of the stream, or for an empty buffer.

        Raises:
            TypeError: ``buffer`` is read-only, not contiguous or not a buffer.
            StreamResetError: The peer abandoned the stream.
            StreamClosedError: This side has already stopped receiving.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.
        """
        if self._reading:
            raise self._busy("read")
        core = self._core
        # Always released: a view that a traceback keeps alive would prevent the caller from resizing the buffer.
        with memoryview(contiguous_bytes(buffer, "buffer")) as target:
            if target.readonly and (len(target) or isinstance(buffer, bytes)):
                raise TypeError("buffer is read-only; use a bytearray or a writable memoryview")
            if not len(target):
                return 0
            count = core.read_into(target)
            while not isinstance(count, int):
                if count is ReadAnswer.WAIT:
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
            ReadLimitError: More than ``Limits.read_all`` bytes (default 64 MiB) arrived; all are still readable.
            StreamResetError: The peer abandoned the stream; bytes delivered before the reset are still readable with
                ``read``.
            StreamClosedError: This side has already stopped receiving.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.
        """
        if self._reading:
            raise self._busy("read")
        core = self._core
        limit = self._state.limits.read_all
        most = -1 if limit is None else limit
        data = core.read_all(most)
        while not isinstance(data, bytes):
            if data is ReadAnswer.WAIT:
                await self._wait_readable()
            elif data is ReadAnswer.OVER_LIMIT:
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
        """Read exactly n bytes from the stream. ``n`` may exceed any receive window.

        Cancelling loses no byte: what has arrived stays in the stream for the next call.

        Args:
            n: Number of bytes; 0 returns ``b""`` at once.

        Returns:
            ``n`` bytes.

        Raises:
            ValueError: ``n`` is negative.
            TypeError: ``n`` is not an int.
            asyncio.IncompleteReadError: The stream ended first; ``partial`` holds the bytes before the end.
            StreamResetError: The peer abandoned the stream first; ``partial`` holds the bytes before the reset.
            StreamClosedError: This side has already stopped receiving.
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
            if data is ReadAnswer.WAIT:
                await self._wait_readable()
            else:
                raise await self._incomplete(n)
            data = core.read_exactly(n)
        return data

    async def readline(self, *, limit: int = -1) -> bytes:
        r"""Read a line from the stream, through its ``\n``.

        Cancelling loses no byte: the unfinished line stays in the stream for the next call.

        Args:
            limit: Longest line in bytes, without its ``\n``; -1 (default) means ``Limits.line`` (default 1 MiB).

        Returns:
            One line with its ``\n``; the last line may lack it; ``b""`` at the end of the stream.

        Raises:
            ValueError: ``limit`` is below -1.
            TypeError: ``limit`` is not an int.
            ReadLimitError: There is no ``\n`` within the limit (also an ``asyncio.LimitOverrunError``); all bytes stay
                in the stream.
            StreamResetError: The peer abandoned the stream; ``partial`` holds the unfinished line.
            StreamClosedError: This side has already stopped receiving.
            SessionClosed: The session ended first.
            BusyError: Another task is reading this stream.
        """
        try:
            return await self.readuntil(separator=b"\n", limit=limit)
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def readuntil(self, *, separator: bytes, limit: int = -1) -> bytes:
        """Read data from the stream until a separator is found, even if it arrives in pieces.

        Takes time in proportion to the bytes received. Cancelling loses no byte.

        Args:
            separator: One or more bytes.
            limit: Most bytes before the separator, as in asyncio; -1 (default) means ``Limits.line`` (default 1 MiB).

        Returns:
            Everything through the first separator.

        Raises:
            ValueError: ``separator`` is empty, or ``limit`` is below -1.
            TypeError: ``separator`` is not bytes-like, or ``limit`` is not an int.
            ReadLimitError: There is no separator within the limit (also an ``asyncio.LimitOverrunError``); all bytes
                stay in the stream.
            asyncio.IncompleteReadError: The stream ended first; ``partial`` holds the bytes before the end.
            StreamResetError: The peer abandoned the stream first; ``partial`` holds the bytes before the reset.
            StreamClosedError: This side has already stopped receiving.
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
        most = self._state.limits.line if limit == -1 else limit
        data = core.read_until(separator, most)
        while not isinstance(data, bytes):
            if data is ReadAnswer.WAIT:
                await self._wait_readable()
            elif data is ReadAnswer.OVER_LIMIT:
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
        """Tell the peer to stop sending data (STOP_SENDING). Data that has arrived and was not read is discarded.

        Does nothing if this direction has ended. Never suspends, so cancelling cannot interrupt it. A pending read in
        another task raises StreamClosedError.

        Args:
            error_code: Application error code for the peer, 0 … 2^32-1. Default 0.

        Raises:
            ValueError: ``error_code`` is outside 32 bits.
            TypeError: ``error_code`` is not an int.

        Source: draft-ietf-webtrans-http3-16, section 4.4.
        """
        self._core.stop(_checked_wire(error_code))

    async def close(self) -> None:
        """Terminate the receiving side of the stream: ``stop_receiving`` with code 0, unless it has ended already.

        Idempotent. Never suspends, so cancelling cannot interrupt it.
        """
        self._core.stop(WIRE_ZERO)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over chunks as they arrive, until the end; each ``__anext__`` is one ``read()``.

        The stream's end ends it quietly; the session's end raises SessionClosed (SessionClosedOK after code 0).
        """
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _wait_readable(self) -> None:
        waiter = Waiter(self._state.loop)
        self._core.wait_readable(waiter)
        self._reading = True
        try:
            await waiter
        finally:
            self._reading = False

    async def _raise_unless_ended(self) -> None:
        """Return at a regular end of the stream; otherwise raise the error that ended it."""
        await self._await_end_after_reset()
        error = self._receive_failure()
        if error is not None:
            try:
                raise error
            finally:
                # The frame and the exception refer to each other, which would keep the stream until a garbage
                # collection.
                del error

    async def _incomplete(self, expected: int | None) -> Exception:
        """The error for a stream that ended too early. It carries the remaining bytes, which leave the stream."""
        # At a regular end this is all that is left. After a reset, read_all returns no bytes: they stay in the stream
        # for now, so that cancelling the wait below cannot lose them.
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
        """If the peer's reset may announce the end of the session, wait for that, at most _END_PATIENCE."""
        state = self._core.receive_state()
        if not state.is_reset or from_wire(state.wire_code) is not None:
            return
        if self._reset_seen is None:
            self._reset_seen = self._state.loop.time()
        self._reading = True
        try:
            await self._state.ended_by(self._reset_seen + _END_PATIENCE)
        finally:
            self._reading = False

    def _receive_failure(self) -> WebTransportError | None:
        state = self._core.receive_state()
        wire, stream_id = state.wire_code, self._core.id
        if self._ended_with_session(state):
            return self._state.closed_error()
        if state.is_reset:
            return StreamResetError(
                f"stream {stream_id} was reset by the peer with {describe(wire)}",
                error_code=from_wire(wire),
                wire_code=wire,
                stream_id=stream_id,
            )
        if state.is_stopped:
            return StreamClosedError(
                f"stream {stream_id} cannot be read: this side stopped receiving with {describe(wire)}",
                stream_id=stream_id,
            )
        return None


class WebTransportSendStream(_Stream):
    """Manage the writable side of a WebTransport stream.

    One task may write at a time; a second one gets a BusyError. ``async with`` ends the stream normally, or with
    ``reset`` and ``body_raised_code`` if the body raised.

    A stop with a code that has no meaning for applications may be the first sign of the session's end. The call that
    meets one waits for that end, up to 0.5 seconds, and then raises SessionClosed with the session's code and reason.
    If the session goes on, it raises StreamStoppedError with ``error_code`` None.

    Source: draft-ietf-webtrans-http3-16, sections 4 and 6.
    """

    __slots__ = ()

    @property
    def can_write(self) -> bool:
        """Return True if the stream is writable: not finished, reset, stopped by the peer or gone with its session."""
        return self._core.send_state().is_open

    @property
    def direction(self) -> StreamDirection:
        """Return the directionality of the stream."""
        return StreamDirection.SEND_ONLY

    @property
    def send_order(self) -> int:
        """Priority among the streams of the connection: higher numbers are sent first. Default 0; can be set.

        Streams of equal order share the connection fairly. The order is local and not sent to the peer. It is a signed
        32-bit number; setting any other number raises ValueError, anything but an int TypeError.
        """
        return self._core.send_order

    @send_order.setter
    def send_order(self, value: int) -> None:
        check_integer("send_order", value, -(2**31), 2**31 - 1)
        self._core.send_order = value

    async def write(self, *, data: Buffer, end_stream: bool = False) -> None:
        """Write data to the stream. Returns when all of it is accepted into the stream's bounded queue.

        Accepted data is not yet sent or acknowledged (see ``wait_acked``). Waits while the queue is full
        (``Limits.stream_send_buffer``, default 256 KiB, and ``Limits.connection_send_buffer``, default 4 MiB). Does not
        suspend while there is room. Small writes of one loop iteration are sent together. The caller may change
        ``data`` after the call returns.

        If the call is cancelled, a prefix of ``data`` was accepted. ``last_write_accepted`` is its length in bytes, and
        so is the attribute ``bytes_accepted`` of the CancelledError. The end of the stream is not sent then.

        Args:
            data: Bytes-like and contiguous. ``b""`` writes nothing.
            end_stream: End the stream after ``data``.

        Raises:
            TypeError: ``data`` is text, not a buffer, or not contiguous, or ``end_stream`` is not a bool.
            StreamClosedError: This side has already finished or reset the stream.
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
        accepted = core.write(data, 0) if size else self._check_open()
        if accepted == size:
            self._last_write_accepted = size
            if end_stream:
                core.finish()
            return
        await self._write_rest(data, size, size, accepted, True, end_stream)

    async def write_all(self, *, data: Buffer, chunk_size: int = 65536, end_stream: bool = False) -> None:
        """Write data to the stream in chunks, so that gigabytes of data need no gigabytes of memory.

        Cancellation and errors are as with ``write``: a prefix of ``data`` was accepted.

        Args:
            data: Bytes-like and contiguous, for instance a ``mmap``. It must not change before the call returns.
            chunk_size: Most bytes put into the queue at once. Default 65 536.
            end_stream: End the stream after ``data``.

        Raises:
            ValueError: ``chunk_size`` is below 1.
            TypeError: ``data`` is text, not a buffer, or not contiguous, or ``end_stream`` is not a bool.
            StreamClosedError: This side has already finished or reset the stream.
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
        """Abruptly terminate the sending side of the stream. The peer sees the stream and the code.

        Data that is not yet delivered is given up. Does nothing if the stream is finished and its end is acknowledged,
        or if it was reset before. Never suspends, so cancelling cannot interrupt it. A pending write in another task
        raises StreamClosedError.

        Args:
            error_code: Application error code for the peer, 0 … 2^32-1. Default 0.

        Raises:
            ValueError: ``error_code`` is outside 32 bits.
            TypeError: ``error_code`` is not an int.

        Source: draft-ietf-webtrans-http3-16, section 4.4; draft-ietf-quic-reliable-stream-reset-10.
        """
        self._core.reset(_checked_wire(error_code))

    async def close(self, *, error_code: int | None = None) -> None:
        """Terminate the sending side of the stream.

        Idempotent. Never suspends, so cancelling cannot interrupt it; ``wait_acked`` waits for delivery. A pending
        write in another task raises StreamClosedError.

        Args:
            error_code: None (default) ends the stream after all accepted data; a number resets it, as ``reset`` does.

        Raises:
            ValueError: ``error_code`` is outside 32 bits.
            TypeError: ``error_code`` is not an int.
        """
        if error_code is None:
            self._core.finish()
        else:
            self._core.reset(_checked_wire(error_code))

    async def wait_acked(self) -> None:
        """Wait until the peer's QUIC stack has acknowledged everything that was accepted, including the end.

        Acknowledged means received, not read. Cancelling changes nothing. Returns at once if nothing is outstanding.
        Also waits for what another task writes meanwhile.

        Raises:
            StreamClosedError: This side reset the stream, so part of the data may never arrive.
            StreamStoppedError: The peer stopped the stream, so part of the data may never arrive.
            SessionClosed: The session ended first.
        """
        self._state.core.check_loop()
        core = self._core
        state = core.send_state()
        if state.is_finished or (state.is_open and core.unacked):
            waiter = Waiter(self._state.loop)
            core.wait_acked(waiter)
            await waiter
            state = core.send_state()
        if not (state.is_acked or state.is_open or state.is_finished):
            raise await self._send_failure()

    async def wait_stopped(self) -> int | None:
        """Wait until the peer stops the stream (STOP_SENDING). Pages in browsers have ``writer.closed`` for this.

        It is useful if there is nothing to write for a long time, or if computing the next data takes long, to find out
        that nobody reads the stream any more. Returns at once if the peer has already stopped it. Any number of tasks
        may wait, also while one writes. Cancelling changes nothing.

        Returns:
            The peer's application error code, 0 … 2^32-1; None if its code has no application meaning.

        Raises:
            StreamClosedError: The peer cannot stop the stream any more, because all data including the end is
                acknowledged, or because this side reset it. While a finished stream has unacknowledged data, the call
                waits.
            SessionClosed: The session ended first.

        Source: RFC 9000, section 3.5; draft-ietf-webtrans-http3-16, section 4.4.
        """
        self._state.core.check_loop()
        core = self._core
        state = core.send_state()
        if state.is_open or state.is_finished:
            waiter = Waiter(self._state.loop)
            core.wait_stopped(waiter)
            await waiter
        await self._await_end_after_stop()
        state = core.send_state()
        if self._ended_with_session(state):
            raise self._state.closed_error()
        if state.is_stopped:
            return from_wire(state.wire_code)
        words = "all of its data is acknowledged"
        if state.is_reset:
            words = f"this side reset it with {describe(state.wire_code)}"
        raise StreamClosedError(f"stream {core.id} cannot be stopped by the peer any more: {words}", stream_id=core.id)

    def _check_open(self) -> int:
        """What an empty write accepts: 0, or -1 if nothing can be written any more."""
        self._state.core.check_loop()
        return 0 if self._core.send_state().is_open else -1

    async def _write_rest(
        self,
        data: bytes | bytearray | memoryview,
        size: int,
        chunk_size: int,
        accepted: int,
        is_full: bool,
        end_stream: bool,
    ) -> None:
        """Continue after ``accepted`` bytes (-1: closed), in chunks, waiting for room as often as needed."""
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
                        accepted = core.write(piece, 0)
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
                # The view is ours. If a traceback kept it alive, the caller could not resize the buffer.
                data.release()
        try:
            raise error
        finally:
            del error

    async def _wait_writable(self) -> None:
        waiter = Waiter(self._state.loop)
        self._core.wait_writable(waiter)
        await waiter

    async def _send_failure(self) -> WebTransportError:
        """The error that says why nothing can be written."""
        await self._await_end_after_stop()
        state = self._core.send_state()
        wire, stream_id = state.wire_code, self._core.id
        if self._ended_with_session(state):
            return self._state.closed_error()
        if state.is_stopped:
            return StreamStoppedError(
                f"stream {stream_id} cannot be written: the peer stopped receiving with {describe(wire)}",
                error_code=from_wire(wire),
                wire_code=wire,
                stream_id=stream_id,
            )
        words = f"reset by this side with {describe(wire)}" if state.is_reset else "ended by this side before"
        return StreamClosedError(f"stream {stream_id} cannot be written: it was {words}", stream_id=stream_id)

    async def _await_end_after_stop(self) -> None:
        """Wait, bounded, for the end of the session where the peer's stop may announce it."""
        state = self._core.send_state()
        if not state.is_stopped or from_wire(state.wire_code) is not None:
            return
        if self._stop_seen is None:
            self._stop_seen = self._state.loop.time()
        await self._state.ended_by(self._stop_seen + _END_PATIENCE)


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
            TypeError: ``error_code`` is not an int.
        """
        if error_code is None:
            self._core.finish()
            self._core.stop(WIRE_ZERO)
        else:
            wire = _checked_wire(error_code)
            self._core.reset(wire)
            self._core.stop(wire)


class Link(Protocol):
    """What a session needs from its connection (``_connection.Connection``)."""

    is_client: bool
    timeouts: Timeouts

    @property
    def loop_late_total(self) -> int: ...
    def peer_certificates(self) -> list[bytes]: ...
    def close_session(self, session: SessionState, code: int, reason: str) -> None: ...
    def abort_session(self, session: SessionState) -> None: ...
    def drain_session(self, session: SessionState) -> None: ...
    def report(self, session: SessionState, trace: Trace | None) -> ConnectionReport: ...
    def failure_log(self) -> FailureLog: ...
    def start_qlog(self, path: str) -> bool: ...
    def stop_qlog(self) -> None: ...
    def forget_session(self, session: WebTransportSession) -> None: ...
    async def wait_session_over(self, session: SessionState) -> None: ...


class WebTransportSession:
    """A WebTransport session. Made by ``wtio.connect``, ``wtio.serve`` and ``SessionRequest.accept``.

    When it ends, every pending call and every later one raises the same error, SessionClosedOK or SessionClosedError.
    ``async with session`` closes it, with code 0, or with ``BODY_RAISED_CODE`` (0x102) if the body raised anything
    other than the end of this session.

    If a client drops the last reference to an open session and no task waits on it, the session is closed with code 0
    and gives a ResourceWarning. A server keeps its sessions itself.

    A session and its streams belong to its event loop. On another loop or thread, calls that wait or change something
    raise RuntimeError. Properties, ``stats`` and ``report`` can be read from any thread. A session does not survive
    ``os.fork``: its engine does not work in the child.

    Source: draft-ietf-webtrans-http3-16.
    """

    __slots__ = ("__weakref__", "_core", "_id", "_link", "_prefix_size", "_state", "_trace")

    def __init__(self, link: Link, state: SessionState, trace: Trace | None = None) -> None:
        self._link = link
        self._state = state
        # The two that every datagram needs, at hand.
        self._core = state.core
        self._id = state.session_id
        # Bytes in front of each datagram (RFC 9297, section 2.1): a quarter of the session ID.
        self._prefix_size = len(varint.encode(state.session_id // 4))
        # What the client noted while it connected, for the report; None on a server.
        self._trace = trace

    # -- facts

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._state.limits

    @property
    def session_id(self) -> int:
        """The session ID: the QUIC stream ID of the CONNECT stream. Unique within a connection."""
        return self._id

    @property
    def log_id(self) -> int:
        """Number of the session in wtio's log and in ``repr``, for lines of yours: unique in a process, from 1 on."""
        return self._state.log_id

    @property
    def is_client(self) -> bool:
        """Whether this side asked for the session."""
        return self._link.is_client

    @property
    def remote_address(self) -> tuple[str, int]:
        """IP address and UDP port of the peer; after the end of the session, the last ones."""
        return self._state.remote_address

    @property
    def peer_certificates(self) -> list[bytes]:
        """The peer's certificate chain in DER, its own certificate first; empty if it showed none. Also after the end.

        On a client it is the server's. On a server it is the client's, which was checked against
        ``ServerTLS(client_cafile=...)``.
        """
        return self._link.peer_certificates()

    @property
    def peer_certificate(self) -> CertificateReport | None:
        """What the peer's own certificate says; None if it showed none. See ``SessionRequest.peer_certificate``."""
        chain = self._link.peer_certificates()
        return certificate_report(chain[0]) if chain else None

    @property
    def facts(self) -> SessionFacts:
        """What was agreed when the session was established, as one immutable object."""
        return self._state.facts

    @property
    def report(self) -> ConnectionReport:
        """What is known about the connection now: a new value each time, also after the end. ``str()`` makes it text.

        It is put together on request, which takes some tenths of a millisecond.
        """
        return self._link.report(self._state, self._trace)

    @property
    def state(self) -> SimpleNamespace:
        """The application's own attributes: whatever it wants to keep with the session, such as the user's name.

        What ``admit`` or whoever accepted the request has stored on ``SessionRequest.state`` is here. wtio never reads
        it. It is made when it is first asked for, and lives as long as the session object.
        """
        namespace = self._state.namespace
        if namespace is None:
            namespace = self._state.namespace = SimpleNamespace()
        return namespace

    @property
    def path(self) -> str:
        """Path with query, beginning with ``/``."""
        return self._state.facts.path

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """Names and values in the query of ``path``, in order and decoded, as ``urllib.parse.parse_qsl`` gives them.

        Values may be empty. Parsed each time.
        """
        return parse_query(self._state.facts.path)

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that the client sent with its request, as ``SessionRequest.cookies``. Parsed each time."""
        return parse_cookies(self._state.facts.request_headers)

    @property
    def authority(self) -> str:
        """Host, and port unless it is 443, as in the URL."""
        return self._state.facts.authority

    @property
    def origin(self) -> str | None:
        """Value of the Origin header, which browsers always send; None without one."""
        return self._state.facts.origin

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the server chose; None without one."""
        return self._state.facts.protocol

    @property
    def dialect(self) -> str:
        """The group of drafts in use. Drafts of one group cannot be told apart.

        ``draft02`` (drafts 00 to 05), ``draft07`` (07 to 12), ``draft13`` (13 and 14) or ``draft15`` (15 and later).
        """
        return self._state.facts.dialect

    @property
    def protocol_token(self) -> str:
        """Value of the ``:protocol`` pseudo-header of the request: ``webtransport`` or ``webtransport-h3``."""
        return self._state.facts.protocol_token

    @property
    def request_headers(self) -> Headers:
        """The client's headers in order, names in lower case, without pseudo-headers."""
        return self._state.facts.request_headers

    @property
    def response_headers(self) -> Headers:
        """The server's headers in order, names in lower case, without pseudo-headers."""
        return self._state.facts.response_headers

    @property
    def is_closed(self) -> bool:
        """Whether the session has ended, for any reason."""
        return self._state.close_info is not None

    @property
    def close_info(self) -> CloseInfo | None:
        """How the session ended; None while it is open."""
        return self._state.close_info

    @property
    def is_draining(self) -> bool:
        """Whether the peer asked to wind the session down (WT_DRAIN_SESSION or GOAWAY). Everything still works."""
        return self._state.drain_requested

    @property
    def max_datagram_size(self) -> int:
        """Largest datagram in bytes that can be sent now. Changes with the path's MTU; 0 once the session has ended."""
        most = None if self._state.close_info is not None else self._core.max_datagram_payload
        if most is None:
            return 0
        return max(min(most - self._prefix_size, self._state.limits.datagram_send_buffer), 0)

    # -- streams

    async def create_bidirectional_stream(
        self, *, send_order: int = 0, wait_until_available: bool = True
    ) -> WebTransportStream:
        """Open a stream that carries bytes both ways.

        Waits only while the peer allows no further stream. The peer sees the stream when its first bytes arrive.
        Cancelling opens none.

        Args:
            send_order: Priority: streams with a higher number are sent first. Default 0.
            wait_until_available: False raises StreamCreditError instead of waiting.

        Returns:
            The new stream. Dropping the last reference to an unfinished stream resets and stops it with code 0.

        Raises:
            SessionClosed: The session has ended.
            StreamCreditError: The peer allows no further stream now, and ``wait_until_available`` is False.
            ValueError: ``send_order`` does not fit into 32 bits.
            TypeError: An argument is of the wrong type.

        Source: draft-ietf-webtrans-http3-16, section 4.3.
        """
        stream = await self._state.open_stream(True, send_order, wait_until_available)
        return WebTransportStream(stream, self, self._state)

    async def create_unidirectional_stream(
        self, *, send_order: int = 0, wait_until_available: bool = True
    ) -> WebTransportSendStream:
        """Open a stream that carries bytes only to the peer. Otherwise as ``create_bidirectional_stream``.

        Args:
            send_order: Priority: streams with a higher number are sent first. Default 0.
            wait_until_available: False raises StreamCreditError instead of waiting.

        Returns:
            The new stream.

        Raises:
            SessionClosed: The session has ended.
            StreamCreditError: The peer allows no further stream now, and ``wait_until_available`` is False.
            ValueError: ``send_order`` does not fit into 32 bits.
            TypeError: An argument is of the wrong type.

        Source: draft-ietf-webtrans-http3-16, section 4.2.
        """
        stream = await self._state.open_stream(False, send_order, wait_until_available)
        return WebTransportSendStream(stream, self, self._state)

    def incoming_bidirectional_streams(self) -> IncomingStreams[WebTransportStream]:
        """Iterate over the bidirectional streams that the peer opens: ``async for stream in …``.

        The iterator waits for the next stream; cancelling loses none. Several tasks may iterate. When the session ends,
        it first returns the streams that had arrived, and then raises SessionClosed (SessionClosedOK after code 0)
        rather than end quietly.
        """
        state = self._state
        make = partial(WebTransportStream, session=self, state=state)
        return IncomingStreams(state, state.arrived(True), make)

    def incoming_unidirectional_streams(self) -> IncomingStreams[WebTransportReceiveStream]:
        """Iterate over the unidirectional streams that the peer opens: ``async for stream in …``.

        The iterator waits for the next stream; cancelling loses none. Several tasks may iterate. When the session ends,
        it first returns the streams that had arrived, and then raises SessionClosed (SessionClosedOK after code 0)
        rather than end quietly.
        """
        state = self._state
        make = partial(WebTransportReceiveStream, session=self, state=state)
        return IncomingStreams(state, state.arrived(False), make)

    async def serve_streams(
        self,
        handler: Callable[[WebTransportStream], Awaitable[object]] | None = None,
        *,
        unidirectional: Callable[[WebTransportReceiveStream], Awaitable[object]] | None = None,
        datagrams: Callable[[bytes], object] | None = None,
        limit: int | None = None,
    ) -> None:
        """Run a handler for each stream that the peer opens, until the session has ended.

        Each handler has a task of its own. When it returns, its stream is closed, as by ``async with stream``. If it
        raises, its stream is reset and stopped with ``BODY_RAISED_CODE`` (0x102), and the log has an entry, as for the
        handlers of ``wtio.serve`` (logger ``wtio.server`` or ``wtio.client``). Other streams and the session go on.

        No stream is lost that had arrived before the session ended: its handler begins even then, and goes on, for
        ``Timeouts.finish`` (default 10 s). It reads what had arrived if that is the whole stream; otherwise, and if it
        writes, it gets SessionClosed, which is not logged. Handlers that are not done by then are cancelled; what was
        given up is one line of level WARNING. A server that closes cancels its handlers after ``Timeouts.close``.

        Cancelling cancels the handlers, whose streams are reset and stopped, and waits until they have ended. Streams
        that had not begun stay for the next call. So does everything for which no handler is given.

        Args:
            handler: ``async def handler(stream)`` for bidirectional streams; None leaves them alone.
            unidirectional: The same for unidirectional streams.
            datagrams: A function of the payload, which may be a coroutine function; it is called for one datagram after
                the other. What it raises is logged, too. While it waits, datagrams queue up as in
                ``receive_datagram``. None leaves them alone.
            limit: Most handlers of streams at once, at least 1; further streams wait unread, and their peer gets no
                credit for new ones. None (default) means ``Limits.stream_handlers`` (128).

        Returns:
            When the session has ended with code 0 and all handlers have.

        Raises:
            SessionClosedError: The session ended with another code, or none; raised when all handlers have ended.
            ValueError: There is no handler at all, or ``limit`` is below 1.
            TypeError: An argument is of the wrong type.

        Source: draft-ietf-webtrans-http3-16, sections 4.2 to 4.5.
        """
        check_handler("handler", handler)
        check_handler("unidirectional", unidirectional)
        check_function("datagrams", datagrams)
        if limit is None:
            limit = self._state.limits.stream_handlers
        check_integer("limit", limit, 1)
        if handler is None and unidirectional is None and datagrams is None:
            raise ValueError("handler is None, and so are unidirectional and datagrams; give at least one of them")
        self._core.check_loop()
        state = self._state
        kinds = []
        if handler is not None:
            kinds.append(Kind(state.arrived(True), partial(WebTransportStream, session=self, state=state), handler))
        if unidirectional is not None:
            make = partial(WebTransportReceiveStream, session=self, state=state)
            kinds.append(Kind(state.arrived(False), make, unidirectional))
        serving = Serving(state, limit=limit, patience=self._link.timeouts.finish, failures=self._link.failure_log())
        await serving.run(kinds, self.receive_datagram, datagrams)

    # -- datagrams

    def send_datagram(self, data: Buffer) -> None:
        """Send a datagram: unreliable, unordered, not flow-controlled. Never waits.

        If the queue is full (``Limits.datagram_send_buffer``, default 1 MiB), the oldest datagrams are dropped, and
        ``stats`` counts them.

        Args:
            data: Bytes-like and contiguous, at most ``max_datagram_size`` bytes, possibly empty. Copied.

        Raises:
            DatagramTooLargeError: ``data`` is larger than the path allows now; has ``size`` and ``limit``.
            TypeError: ``data`` is text, not a buffer, or not contiguous.
            SessionClosed: The session has ended.

        Source: RFC 9221; RFC 9297, section 2.1; draft-ietf-webtrans-http3-16, section 4.5.
        """
        if not isinstance(data, bytes):
            data = contiguous_bytes(data)
        limit = self._core.send_datagram(self._id, data)
        if limit:
            raise self._datagram_failure(len(data), limit)

    async def receive_datagram(self) -> bytes:
        """Return the oldest datagram that has arrived, waiting for one.

        Does not suspend if one has arrived. Cancelling loses none. Several tasks may wait; each datagram goes to one.
        Unread datagrams beyond ``Limits.datagram_receive_count`` (default 1024) or ``Limits.datagram_receive_buffer``
        (default 1 MiB) are dropped, oldest first. Those that arrived before the end of the session are delivered.

        Raises:
            SessionClosed: The session has ended and no datagram is left.
        """
        data = self._core.receive_datagram(self._id)
        if data is not None:
            return data
        state = self._state
        has_waited = False
        while True:
            if state.close_info is not None:
                return state.late_datagram()
            waiters = state.datagram_waiters()
            await waiters.wait(again=has_waited)
            has_waited = True
            data = self._core.receive_datagram(self._id)
            if data is not None:
                waiters.pass_on()
                return data

    def incoming_datagrams(self) -> IncomingDatagrams:
        """Iterate over the datagrams that arrive: ``async for data in …``. Otherwise as ``receive_datagram``.

        When the session ends, it first returns the datagrams that had arrived, and then raises SessionClosed
        (SessionClosedOK after code 0) rather than end quietly.
        """
        return IncomingDatagrams(self.receive_datagram)

    # -- the end

    async def close(self, code: int = 0, reason: str = "") -> None:
        """End the session with a code and a reason for the peer.

        Finished streams are delivered first; all others are reset. Takes at most twice ``Timeouts.close`` (default 2 s
        each): once until finished streams are acknowledged, and once until the peer has closed the session too. Pending
        calls on this session raise SessionClosed. On a session that has already ended, nothing changes: the first code
        and reason stay. Cancelling sends the close at once and does not wait for an answer.

        Args:
            code: Application close code, 0 … 2^32-1. Default 0.
            reason: Text for the peer, cut to 1024 bytes of UTF-8 between characters. Default none.

        Raises:
            ValueError: ``code`` is outside 32 bits.
            TypeError: ``code`` is not an int, or ``reason`` is not a str.

        Source: draft-ietf-webtrans-http3-16, section 6.
        """
        check_code("code", code, "close code")
        check_text("reason", reason)
        self._core.check_loop()
        state = self._state
        try:
            if state.close_info is None:
                await state.wait_finished_streams(self._link.timeouts.close)
        finally:
            if state.close_info is None:
                self._link.close_session(state, code, reason)
        await self._link.wait_session_over(state)

    async def abort(self) -> None:
        """End the session at once, without a close code: the CONNECT stream is reset.

        If the connection carries no other session, it is closed too. Data in flight is given up. Does nothing on a
        session that has ended. Never suspends, so cancelling cannot interrupt it.

        Source: draft-ietf-webtrans-http3-16, section 6.
        """
        self._core.check_loop()
        if self._state.close_info is None:
            self._link.abort_session(self._state)

    async def drain(self) -> None:
        """Ask the peer to wind the session down (WT_DRAIN_SESSION). Everything still works afterwards.

        Does nothing on a session that has ended. Never suspends, so cancelling cannot interrupt it.

        Source: draft-ietf-webtrans-http3-16, section 4.7.
        """
        self._core.check_loop()
        if self._state.close_info is None:
            self._link.drain_session(self._state)

    async def wait_draining(self) -> None:
        """Wait until the peer asks to wind the session down. Cancelling changes nothing.

        Raises:
            SessionClosed: The session ended without such a request.
        """
        self._core.check_loop()
        await self._state.draining.wait()
        if not self._state.drain_requested:
            raise self._state.closed_error()

    async def wait_closed(self) -> CloseInfo:
        """Wait until the session has ended, for any reason, and return how. The end itself raises nothing here.

        Cancelling changes nothing.
        """
        self._core.check_loop()
        await self._state.ended.wait()
        info = self._state.close_info
        assert info is not None
        return info

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # This never masks the body's exception, because close() raises nothing but a cancellation.
        if error is None or self.is_closed:
            await self.close()
        else:
            await self.close(BODY_RAISED_CODE, "")

    # -- more

    def stats(self) -> SessionStats:
        """Return a snapshot of the connection's and this session's numbers. Never fails, even after the end."""
        connection = self._core.stats()
        datagrams = self._state.datagram_stats()
        credit = self._state.credit()
        return SessionStats(
            rtt=connection.rtt,
            min_rtt=connection.min_rtt,
            congestion_window=connection.congestion_window,
            mtu=connection.mtu,
            bytes_sent=connection.bytes_sent,
            bytes_received=connection.bytes_received,
            packets_sent=connection.packets_sent,
            packets_received=connection.packets_received,
            packets_lost=connection.packets_lost,
            datagrams_sent=datagrams.sent,
            datagrams_received=datagrams.received,
            datagrams_dropped_outgoing=datagrams.dropped_outgoing,
            datagrams_expired_outgoing=datagrams.expired_outgoing,
            datagrams_dropped_incoming=datagrams.dropped_incoming,
            datagrams_queued_incoming=datagrams.queued_incoming,
            stream_bytes_sent=credit.stream_bytes_sent,
            stream_bytes_received=credit.stream_bytes_received,
            send_credit=credit.send_credit,
            bidirectional_stream_credit=credit.bidirectional_stream_credit,
            unidirectional_stream_credit=credit.unidirectional_stream_credit,
            loop_late_total=self._link.loop_late_total,
        )

    def start_qlog(self, path: str | os.PathLike[str]) -> None:
        """Write a qlog of the session's connection from now on, to see what a live session does.

        It has what wtio's own layer sees: streams, datagrams, sessions, changes of round-trip time and window, and the
        end; of all sessions of the connection, and nothing of the time before. Packets are only in the qlogs of
        new connections (``QLOGDIR``), and the file says so. No payload, query or header is in it. It ends with the
        connection, with ``stop_qlog``, or with an event that says so at 16 MiB. A full disk ends the file and nothing
        else. Writing holds the event loop while the disk takes it. Never suspends, so cancelling cannot interrupt it.

        Args:
            path: Of a file that is not there yet, such as ``session.sqlog``. Only its owner can read it (mode 0600).

        Raises:
            OSError: The file cannot be made, for instance FileExistsError.
            LocalProtocolError: A qlog of this connection is being written.
            SessionClosed: The session has ended.
            TypeError: ``path`` is neither a str nor a path object.
            ValueError: ``path`` has a null character.

        Source: draft-ietf-quic-qlog-main-schema-13.
        """
        check_path("path", path)
        self._core.check_loop()
        if self._state.close_info is not None:
            raise self._state.closed_error()
        if not self._link.start_qlog(os.fspath(path)):
            raise LocalProtocolError("a qlog of this connection is being written; stop_qlog ends one of start_qlog")

    def stop_qlog(self) -> None:
        """End the file of ``start_qlog``. Does nothing if there is none, or if the session has ended."""
        self._core.check_loop()
        self._link.stop_qlog()

    def export_keying_material(self, label: bytes, context: bytes = b"", *, length: int) -> bytes:
        """Derive secret bytes that only the two sides of this session can derive.

        Args:
            label: What the bytes are for, at most 255 bytes.
            context: Further input, at most 255 bytes. Default empty.
            length: Number of bytes, 1 … 4096.

        Returns:
            ``length`` bytes.

        Raises:
            ValueError: An argument is out of its range.
            TypeError: ``label`` or ``context`` is not bytes-like, or ``length`` is not an int.
            SessionClosed: The session has ended.

        Source: draft-ietf-webtrans-http3-16, section 4.8.
        """
        label = bytes(contiguous_bytes(label, "label"))
        context = bytes(contiguous_bytes(context, "context"))
        scope = exporter_context(self._id, label, context)
        check_integer("length", length, 1, 4096)
        if self._state.close_info is not None:
            raise self._state.closed_error()
        material = self._core.export_keying_material(EXPORTER_LABEL, scope, length)
        if material is None:
            # The connection is over, and its loop has not come to end this session yet.
            raise self._state.closed_error()
        return material

    def __del__(self) -> None:
        # Unset if it was never made.
        state = getattr(self, "_state", None)
        if state is not None and state.close_info is None:
            self._link.forget_session(self)

    def __repr__(self) -> str:
        info, facts = self._state.close_info, self._state.facts
        state = "open" if info is None else f"closed by {info.closed_by}"
        return f"<WebTransportSession {self._state.log_id} {facts.authority}{without_query(facts.path)} {state}>"

    def _datagram_failure(self, size: int, limit: int) -> WebTransportError:
        if limit > 0:
            return DatagramTooLargeError(
                f"datagram of {size} bytes exceeds this session's limit of {limit}; see "
                "WebTransportSession.max_datagram_size",
                size=size,
                limit=limit,
            )
        return self._state.closed_error()


def broadcast(sessions: Iterable[WebTransportSession], data: Buffer) -> int:
    """Send the same datagram to many sessions: as ``send_datagram`` of each, for less. Never waits.

    Passed over are sessions that have ended, and those whose path does not allow a datagram of this size now. A session
    gets it as often as it is in ``sessions``. Where a queue is full (``Limits.datagram_send_buffer``), the oldest
    datagrams are dropped, and the session's ``stats`` counts them.

    Args:
        sessions: Sessions of this event loop, possibly none. Those of one server should be neighbours: they cost one
            lock.
        data: Bytes-like and contiguous, possibly empty. Copied.

    Returns:
        How many sessions took it, or rather how often one did.

    Raises:
        RuntimeError: A session belongs to another event loop or thread. Nobody gets anything then.
        TypeError: ``sessions`` has something else in it, or ``data`` is text, not a buffer, or not contiguous.

    Source: RFC 9221; draft-ietf-webtrans-http3-16, section 4.5.
    """
    if not isinstance(data, bytes):
        data = contiguous_bytes(data)
    try:
        targets = [(session._core, session._id) for session in sessions]  # noqa: SLF001 - its own module, for speed
    except (TypeError, AttributeError) as error:
        raise TypeError(f"sessions must be an iterable of WebTransportSession: {error}") from None
    return send_datagrams(targets, data).count(0)
