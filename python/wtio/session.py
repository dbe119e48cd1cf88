"""A WebTransport session: streams, datagrams and the end, as an application sees them.

The session object knows what is queued for the application and how the session ended. Packets are the engine's, the
CONNECT stream is the protocol layer's, and ``_connection`` joins the three.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from wtio._arguments import check_bool, check_code, check_integer, check_text
from wtio._buffer import Buffer, contiguous_bytes
from wtio._facts import CloseInfo, SessionFacts, SessionStats
from wtio._url import without_query
from wtio._waiting import Flag, Waiter, Waiters
from wtio.errors import (
    DatagramTooLargeError,
    RemoteProtocolError,
    SessionClosed,
    SessionClosedError,
    SessionClosedOK,
    StreamCreditError,
    WebTransportError,
)
from wtio.protocol import varint
from wtio.protocol.frames import data_stream_header
from wtio.stream import (
    BODY_RAISED_CODE,
    WIRE_ZERO,
    WebTransportReceiveStream,
    WebTransportSendStream,
    WebTransportStream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from wtio import _core
    from wtio._headers import Headers
    from wtio._reporting import Trace
    from wtio.config import Limits, Timeouts
    from wtio.report import ConnectionReport

__all__ = [
    "CloseInfo",
    "IncomingDatagrams",
    "IncomingStreams",
    "SessionFacts",
    "SessionStats",
    "WebTransportSession",
]

_Stream = TypeVar("_Stream", WebTransportStream, WebTransportReceiveStream)


class Link(Protocol):
    """What a session needs from its connection (``_connection.Connection``)."""

    is_client: bool
    core: _core.Connection
    limits: Limits
    timeouts: Timeouts
    loop: asyncio.AbstractEventLoop

    @property
    def loop_late_total(self) -> int: ...
    def close_session(self, session: WebTransportSession, code: int, reason: str) -> None: ...
    def abort_session(self, session: WebTransportSession) -> None: ...
    def drain_session(self, session: WebTransportSession) -> None: ...
    def report(self, session: WebTransportSession) -> ConnectionReport: ...
    def forget_session(self, session: WebTransportSession) -> None: ...
    async def wait_session_over(self, session: WebTransportSession) -> None: ...


class _Arrived:
    """The peer's streams of one kind that nobody has taken yet, and the tasks that wait for more.

    It knows nothing of the session, which owns it: sessions that have ended go without the help of the collector.
    """

    __slots__ = ("streams", "waiters")

    def __init__(self) -> None:
        # As many as the peer may have open: a stream counts as open until somebody has taken it and seen its end, also
        # one that the peer has reset (``Limits.bidirectional_streams``, ``unidirectional_streams``).
        self.streams: deque[_core.Stream] = deque()
        self.waiters: deque[Waiter] | None = None

    def put(self, stream: _core.Stream) -> None:
        self.streams.append(stream)
        if self.waiters:
            self.wake_one()

    def wake_one(self) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def wake_all(self) -> None:
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)


class IncomingStreams(Generic[_Stream]):
    """The peer's streams of one kind, in the order of their arrival. Any number of tasks may iterate.

    Each stream goes to exactly one of them. Cancelling ``__anext__`` loses no stream. What arrived before the session
    ended is still delivered; then the session's error is raised.
    """

    __slots__ = ("_arrived", "_kind", "_session")

    def __init__(
        self,
        session: WebTransportSession,
        arrived: _Arrived,
        kind: type[_Stream],
    ) -> None:
        self._session = session
        self._arrived = arrived
        self._kind: type[_Stream] = kind

    def __aiter__(self) -> AsyncIterator[_Stream]:
        return self

    def __len__(self) -> int:
        """Number of streams that wait to be taken."""
        return len(self._arrived.streams)

    async def __anext__(self) -> _Stream:
        """Return the next stream, waiting for it.

        Raises:
            SessionClosed: The session has ended and no stream is left.
        """
        session = self._session
        arrived = self._arrived
        session._core.check_loop()
        while not arrived.streams:
            if session._close_info is not None:
                raise session._closed_error()
            waiter = Waiter(session._loop)
            if arrived.waiters is None:
                arrived.waiters = deque()
            arrived.waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if arrived.waiters and waiter in arrived.waiters:
                    arrived.waiters.remove(waiter)
                elif arrived.streams:
                    # Woken for a stream and cancelled before taking it: somebody else must.
                    arrived.wake_one()
                raise
        return self._kind(arrived.streams.popleft(), session)


class IncomingDatagrams:
    """The peer's datagrams as an iterator: each ``__anext__`` is one ``WebTransportSession.receive_datagram``."""

    __slots__ = ("_session",)

    def __init__(self, session: WebTransportSession) -> None:
        self._session = session

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next datagram, waiting for it."""
        return await self._session.receive_datagram()


class WebTransportSession:
    """A WebTransport session. Made by ``wtio.connect``, ``wtio.serve`` and ``SessionRequest.accept``.

    When it ends, every pending call raises the same error, SessionClosedOK or SessionClosedError, and so does every
    later one. ``async with session`` closes it: with code 0, or with ``BODY_RAISED_CODE`` (0x102) if the body raised
    anything else than this session's own end.

    A client's session that is let go of while it is open, with no task that waits on it, is closed with code 0 and
    gives a ResourceWarning. A server holds its sessions itself.

    A session belongs to its event loop, and so do its streams: where another loop runs, or on another thread, whatever
    changes something or waits raises RuntimeError. Properties, ``stats`` and ``report`` may be read from any thread. It
    does not survive ``os.fork``: in the child its engine is dead.

    Source: draft-ietf-webtrans-http3-16.
    """

    __slots__ = (
        "__weakref__",
        "_bidirectional_arrived",
        "_bidirectional_credit",
        "_bidirectional_header",
        "_cause",
        "_close_info",
        "_core",
        "_datagram_waiters",
        "_drain_requested",
        "_draining",
        "_end_timer",
        "_ended",
        "_facts",
        "_final_credit",
        "_final_datagrams",
        "_id",
        "_late_datagrams",
        "_limits",
        "_link",
        "_loop",
        "_over",
        "_prefix_size",
        "_remote_address",
        "_trace",
        "_unidirectional_arrived",
        "_unidirectional_credit",
        "_unidirectional_header",
        "_waited_for",
    )

    def __init__(self, link: Link, session_id: int, facts: SessionFacts) -> None:
        loop = link.loop
        core = link.core
        self._link = link
        self._loop = loop
        self._core = core
        self._id = session_id
        self._facts = facts
        # What the client noted while it connected; for the report.
        self._trace: Trace | None = None
        self._remote_address: tuple[str, int] | None = None
        self._limits = link.limits
        self._bidirectional_header = data_stream_header(session_id, bidirectional=True)
        self._unidirectional_header = data_stream_header(session_id, bidirectional=False)
        # RFC 9297, section 2.1: a datagram begins with a quarter of the stream id.
        self._prefix_size = len(varint.encode(session_id // 4))
        # Made when they are needed, which most are not in most sessions.
        self._bidirectional_arrived: _Arrived | None = None
        self._unidirectional_arrived: _Arrived | None = None
        self._bidirectional_credit: Waiters | None = None
        self._unidirectional_credit: Waiters | None = None
        self._datagram_waiters: Waiters | None = None
        self._late_datagrams: deque[bytes] | None = None
        self._final_credit: tuple[int, int, int | None, int | None, int | None] | None = None
        self._final_datagrams: dict[str, int] | None = None
        self._close_info: CloseInfo | None = None
        self._cause: Exception | None = None
        # Bounds what the peer takes to end it, too; the connection's.
        self._end_timer: asyncio.TimerHandle | None = None
        self._ended = Flag()
        self._over = Flag()
        # Set by the end of the session, too, so that nobody waits for ever; the flag tells the two apart.
        self._draining = Flag()
        self._drain_requested = False
        # What leads to the tasks that wait, and so to their session. Its connection holds nothing else of an open
        # session: who neither holds it nor waits has forgotten it.
        self._waited_for: list[Flag | _Arrived] = [self._ended, self._over, self._draining]

    # -- facts

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._limits

    @property
    def session_id(self) -> int:
        """The session ID: the QUIC stream ID of the CONNECT stream. Unique within a connection."""
        return self._id

    @property
    def is_client(self) -> bool:
        """Whether this side asked for the session."""
        return self._link.is_client

    @property
    def remote_address(self) -> tuple[str, int]:
        """IP address and UDP port of the peer; once the session has ended, its last ones."""
        return self._remote_address or self._core.remote_address

    @property
    def facts(self) -> SessionFacts:
        """Everything agreed when the session was established, in one immutable object."""
        return self._facts

    @property
    def report(self) -> ConnectionReport:
        """Everything known of the connection now: a new value each time, also after the end. ``str()`` makes it text.

        It is put together when it is asked for, which takes some tenths of a millisecond.
        """
        return self._link.report(self)

    @property
    def path(self) -> str:
        """Path with query, beginning with ``/``."""
        return self._facts.path

    @property
    def authority(self) -> str:
        """Host, and port unless it is 443, as in the URL."""
        return self._facts.authority

    @property
    def origin(self) -> str | None:
        """Value of the Origin header, which browsers always send; None without one."""
        return self._facts.origin

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the server chose; None for none."""
        return self._facts.protocol

    @property
    def dialect(self) -> str:
        """The family of drafts that is spoken, whose members cannot be told apart.

        ``draft02`` (drafts 00 to 05), ``draft07`` (07 to 12), ``draft13`` (13 and 14) or ``draft15`` (15 and later).
        """
        return self._facts.dialect

    @property
    def request_headers(self) -> Headers:
        """The client's headers in order, names in lower case, pseudo-headers left out."""
        return self._facts.request_headers

    @property
    def response_headers(self) -> Headers:
        """The server's headers in order, names in lower case, pseudo-headers left out."""
        return self._facts.response_headers

    @property
    def is_closed(self) -> bool:
        """Whether the session has ended, on whatever way."""
        return self._close_info is not None

    @property
    def close_info(self) -> CloseInfo | None:
        """How the session ended; None while it is open."""
        return self._close_info

    @property
    def is_draining(self) -> bool:
        """Whether the peer asked to wind the session down (WT_DRAIN_SESSION or GOAWAY). Everything still works."""
        return self._drain_requested

    @property
    def max_datagram_size(self) -> int:
        """Largest datagram in bytes that can be sent now. Changes with the path's MTU; 0 once the session has ended."""
        most = None if self._close_info is not None else self._core.max_datagram_payload
        if most is None:
            return 0
        return max(min(most - self._prefix_size, self._limits.datagram_send_buffer), 0)

    # -- streams

    async def create_bidirectional_stream(
        self, *, send_order: int = 0, wait_until_available: bool = True
    ) -> WebTransportStream:
        """Open a stream that carries bytes both ways.

        Waits only while the peer allows no further stream. The peer sees the stream with its first bytes. Cancelling
        opens none.

        Args:
            send_order: Priority: streams with a higher number send first. Default 0.
            wait_until_available: False raises StreamCreditError instead of waiting.

        Returns:
            The new stream. Dropping the last reference to it resets and stops what is unfinished, with code 0.

        Raises:
            SessionClosed: The session has ended.
            StreamCreditError: The peer allows no further stream now, and waiting was not wanted.
            ValueError: ``send_order`` does not fit into 32 bits.
            TypeError: An argument is of the wrong type.

        Source: draft-ietf-webtrans-http3-16, section 4.3.
        """
        return WebTransportStream(await self._open(True, send_order, wait_until_available), self)

    async def create_unidirectional_stream(
        self, *, send_order: int = 0, wait_until_available: bool = True
    ) -> WebTransportSendStream:
        """Open a stream that carries bytes to the peer only. In all else as ``create_bidirectional_stream``.

        Args:
            send_order: Priority: streams with a higher number send first. Default 0.
            wait_until_available: False raises StreamCreditError instead of waiting.

        Returns:
            The new stream.

        Raises:
            SessionClosed: The session has ended.
            StreamCreditError: The peer allows no further stream now, and waiting was not wanted.
            ValueError: ``send_order`` does not fit into 32 bits.
            TypeError: An argument is of the wrong type.

        Source: draft-ietf-webtrans-http3-16, section 4.2.
        """
        return WebTransportSendStream(await self._open(False, send_order, wait_until_available), self)

    def incoming_bidirectional_streams(self) -> IncomingStreams[WebTransportStream]:
        """Iterate over the bidirectional streams that the peer opens: ``async for stream in …``.

        The iterator waits for the next stream; cancelling that loses none. Several tasks may iterate. When the session
        ends, streams that had arrived come first, then SessionClosed is raised.
        """
        return IncomingStreams(self, self._arrived(True), WebTransportStream)

    def incoming_unidirectional_streams(self) -> IncomingStreams[WebTransportReceiveStream]:
        """Iterate over the unidirectional streams that the peer opens: ``async for stream in …``.

        The iterator waits for the next stream; cancelling that loses none. Several tasks may iterate. When the session
        ends, streams that had arrived come first, then SessionClosed is raised.
        """
        return IncomingStreams(self, self._arrived(False), WebTransportReceiveStream)

    # -- datagrams

    def send_datagram(self, data: Buffer) -> None:
        """Send a datagram: unreliable, unordered, not flow-controlled. Never waits.

        What does not fit into the queue (``Limits.datagram_send_buffer``, default 1 MiB) pushes out the oldest, and
        ``stats`` counts it.

        Args:
            data: Bytes-like and contiguous, at most ``max_datagram_size`` bytes, possibly empty. Copied.

        Raises:
            DatagramTooLargeError: ``data`` exceeds what the path carries now; has ``size`` and ``limit``.
            TypeError: ``data`` is text, no buffer, or not contiguous.
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

        Does not suspend if one is there. Cancelling loses none. Several tasks may wait; each datagram goes to one.
        Unread datagrams beyond ``Limits.datagram_receive_count`` (default 1024) or ``Limits.datagram_receive_buffer``
        (default 1 MiB) are dropped, oldest first. Those that arrived before the end of the session are delivered.

        Raises:
            SessionClosed: The session has ended and no datagram is left.
        """
        data = self._core.receive_datagram(self._id)
        if data is not None:
            return data
        has_waited = False
        while True:
            if self._close_info is not None:
                if self._late_datagrams:
                    return self._late_datagrams.popleft()
                raise self._closed_error()
            waiters = self._datagram_waiters
            if waiters is None:
                register = partial(self._core.wait_datagram, self._id)
                waiters = self._datagram_waiters = Waiters(self._loop, register)
            await waiters.wait(again=has_waited)
            has_waited = True
            data = self._core.receive_datagram(self._id)
            if data is not None:
                waiters.pass_on()
                return data

    def incoming_datagrams(self) -> IncomingDatagrams:
        """Iterate over the datagrams that arrive: ``async for data in …``; as ``receive_datagram``."""
        return IncomingDatagrams(self)

    # -- the end

    async def close(self, code: int = 0, reason: str = "") -> None:
        """End the session with a code and a reason for the peer.

        Streams that were finished are delivered first; all others are reset. Takes at most twice ``Timeouts.close``
        (default 2 s each): once until finished streams are acknowledged, once until the peer has said goodbye too.
        Pending calls on this session raise SessionClosed. On a session that has ended already nothing changes: the
        first code and reason hold. Cancelling sends the goodbye at once and does not wait for an answer.

        Args:
            code: Application close code, 0 … 2^32-1. Default 0.
            reason: Words for the peer; cut to 1024 bytes of UTF-8, at a character. Default none.

        Raises:
            ValueError: ``code`` is outside 32 bits.
            TypeError: ``code`` is no int, or ``reason`` no str.

        Source: draft-ietf-webtrans-http3-16, section 6.
        """
        check_code("code", code, "close code")
        check_text("reason", reason)
        self._core.check_loop()
        try:
            if self._close_info is None:
                await self._deliver_finished_streams()
        finally:
            if self._close_info is None:
                self._link.close_session(self, code, reason)
        await self._link.wait_session_over(self)

    async def abort(self) -> None:
        """End the session at once and without a goodbye: the peer gets a reset of the CONNECT stream.

        A connection that carries no other session is closed with it. Data in flight is given up. Does nothing on a
        session that has ended. Never waits, so cancelling cannot interrupt it.

        Source: draft-ietf-webtrans-http3-16, section 6.
        """
        self._core.check_loop()
        if self._close_info is None:
            self._link.abort_session(self)

    async def drain(self) -> None:
        """Ask the peer to wind the session down (WT_DRAIN_SESSION). Everything still works afterwards.

        Does nothing on a session that has ended. Never waits, so cancelling cannot interrupt it.

        Source: draft-ietf-webtrans-http3-16, section 4.7.
        """
        self._core.check_loop()
        if self._close_info is None:
            self._link.drain_session(self)

    async def wait_draining(self) -> None:
        """Wait until the peer asks to wind the session down. Cancelling changes nothing.

        Raises:
            SessionClosed: The session ended without such a request.
        """
        self._core.check_loop()
        await self._draining.wait()
        if not self._drain_requested:
            raise self._closed_error()

    async def wait_closed(self) -> CloseInfo:
        """Wait until the session has ended, on whatever way, and say how. Never raises for it.

        Cancelling changes nothing.
        """
        self._core.check_loop()
        await self._ended.wait()
        assert self._close_info is not None
        return self._close_info

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The body's own exception is never masked: close() raises nothing but a cancellation.
        if error is None or self.is_closed:
            await self.close()
        else:
            await self.close(BODY_RAISED_CODE, "")

    # -- more

    def stats(self) -> SessionStats:
        """Return a snapshot of the connection's and this session's numbers. Never fails, also after the end."""
        connection = self._core.stats()
        datagrams = self._final_datagrams
        if datagrams is None:
            datagrams = self._core.datagram_stats(self._id)
        credit = self._core.credit(self._id) if self._final_credit is None else self._final_credit
        return SessionStats(
            rtt=float(connection.get("rtt", 0.0)),
            min_rtt=float(connection.get("min_rtt", 0.0)),
            congestion_window=int(connection.get("congestion_window", 0)),
            mtu=int(connection.get("mtu", 0)),
            bytes_sent=int(connection.get("bytes_sent", 0)),
            bytes_received=int(connection.get("bytes_received", 0)),
            packets_sent=int(connection.get("packets_sent", 0)),
            packets_received=int(connection.get("packets_received", 0)),
            packets_lost=int(connection.get("packets_lost", 0)),
            datagrams_sent=datagrams.get("sent", 0),
            datagrams_received=datagrams.get("received", 0),
            datagrams_dropped_outgoing=datagrams.get("dropped_outgoing", 0),
            datagrams_expired_outgoing=datagrams.get("expired_outgoing", 0),
            datagrams_dropped_incoming=datagrams.get("dropped_incoming", 0),
            datagrams_queued_incoming=datagrams.get("queued_incoming", 0),
            stream_bytes_sent=credit[0],
            stream_bytes_received=credit[1],
            send_credit=credit[2],
            bidirectional_stream_credit=credit[3],
            unidirectional_stream_credit=credit[4],
            loop_late_total=self._link.loop_late_total,
        )

    def export_keying_material(self, label: bytes, context: bytes = b"", *, length: int) -> bytes:
        """Derive secret bytes that both sides of this session, and nobody else, can derive.

        Args:
            label: What the bytes are for, at most 255 bytes.
            context: Further input, at most 255 bytes. Default empty.
            length: Number of bytes, 1 … 4096.

        Returns:
            ``length`` bytes.

        Raises:
            ValueError: An argument is out of its range.
            TypeError: ``label`` or ``context`` is not bytes-like, or ``length`` is no int.
            SessionClosed: The session has ended.

        Source: draft-ietf-webtrans-http3-16, section 4.8.
        """
        label = bytes(contiguous_bytes(label, "label"))
        context = bytes(contiguous_bytes(context, "context"))
        if len(label) > 255 or len(context) > 255:
            raise ValueError(f"label ({len(label)} bytes) and context ({len(context)} bytes) may have 255 bytes each")
        check_integer("length", length, 1, 4096)
        if self._close_info is not None:
            raise self._closed_error()
        scope = self._id.to_bytes(8, "big")
        for part in (label, context):
            scope += len(part).to_bytes(1, "big") + part
        return self._core.export_keying_material(b"EXPORTER-WebTransport", scope, length)

    def __del__(self) -> None:
        # Unset if it was never made.
        if getattr(self, "_close_info", True) is None:
            self._link.forget_session(self)

    def __repr__(self) -> str:
        state = "open" if self._close_info is None else f"closed by {self._close_info.closed_by}"
        return f"<WebTransportSession {self._id} {self._facts.authority}{without_query(self._facts.path)} {state}>"

    # -- for streams and the connection

    async def _open(self, bidirectional: bool, send_order: int, wait_until_available: bool) -> _core.Stream:
        if send_order != 0 or type(send_order) is not int:
            check_integer("send_order", send_order, -(2**31), 2**31 - 1)
        if wait_until_available is not True:
            check_bool("wait_until_available", wait_until_available)
        header = self._bidirectional_header if bidirectional else self._unidirectional_header
        if self._close_info is not None:
            raise self._closed_error()
        stream = self._core.open_stream(bidirectional, header, self._id)
        if stream is None:
            if not wait_until_available:
                kind = "bidirectional" if bidirectional else "unidirectional"
                raise StreamCreditError(
                    f"the peer allows no further {kind} stream now; finish others, or let the call wait"
                )
            stream = await self._open_later(bidirectional, header)
        if send_order:
            stream.priority = send_order
        return stream

    async def _open_later(self, bidirectional: bool, header: bytes) -> _core.Stream:
        """Open a stream once the peer allows another one."""
        waiters = self._credit_waiters(bidirectional)
        has_waited = False
        while True:
            await waiters.wait(again=has_waited)
            has_waited = True
            if self._close_info is not None:
                raise self._closed_error()
            stream = self._core.open_stream(bidirectional, header, self._id)
            if stream is not None:
                waiters.pass_on()
                return stream

    def _credit_waiters(self, bidirectional: bool) -> Waiters:
        """Those who wait until the peer allows a stream."""
        waiters = self._bidirectional_credit if bidirectional else self._unidirectional_credit
        if waiters is None:
            waiters = Waiters(self._loop, partial(self._core.wait_streams, bidirectional, self._id))
            if bidirectional:
                self._bidirectional_credit = waiters
            else:
                self._unidirectional_credit = waiters
        return waiters

    def _take_stream(self, core: _core.Stream) -> None:
        """A stream of the peer has arrived."""
        # Also for one that is never taken.
        core.abandon_code = WIRE_ZERO
        # RFC 9000, section 2.1: the second bit is set on unidirectional streams.
        arrived = self._unidirectional_arrived if core.id & 2 else self._bidirectional_arrived
        (arrived or self._arrived(not core.id & 2)).put(core)

    def _arrived(self, bidirectional: bool) -> _Arrived:
        """Where streams of one kind wait; made for the first one, or for the first who wants one."""
        arrived = self._bidirectional_arrived if bidirectional else self._unidirectional_arrived
        if arrived is None:
            arrived = _Arrived()
            self._waited_for.append(arrived)
            if bidirectional:
                self._bidirectional_arrived = arrived
            else:
                self._unidirectional_arrived = arrived
        return arrived

    def _note_draining(self) -> None:
        """The peer asked to wind down."""
        self._drain_requested = True
        self._draining.set()

    def _datagram_failure(self, size: int, limit: int) -> WebTransportError:
        if limit > 0:
            return DatagramTooLargeError(
                f"datagram of {size} bytes exceeds this session's limit of {limit}; see "
                "WebTransportSession.max_datagram_size",
                size=size,
                limit=limit,
            )
        return self._closed_error()

    async def _deliver_finished_streams(self) -> None:
        """Wait until every finished stream is acknowledged, at most ``Timeouts.close``."""
        if not self._core.unacked_streams(self._id):
            return
        acknowledged = Waiter(self._loop)
        self._core.wait_session_acked(self._id, acknowledged)
        try:
            async with asyncio.timeout(self._link.timeouts.close):
                await acknowledged
        except TimeoutError:
            return

    async def _ended_by(self, deadline: float) -> None:
        """Wait for the session's end, until the loop's clock shows ``deadline`` at most. Cancelling changes nothing."""
        if self._close_info is not None or self._loop.time() >= deadline:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._ended.wait()
        except TimeoutError:
            return

    def _closed_error(self) -> SessionClosed:
        """The error of this session's end: a fresh object with the same facts every time."""
        info = self._close_info
        if info is None:
            return SessionClosedError(code=None, reason="the connection was lost", closed_by="transport")
        kind = SessionClosedOK if info.code == 0 else SessionClosedError
        error = kind(code=info.code, reason=info.reason, closed_by=info.closed_by)
        error.__cause__ = self._cause
        return error

    def _end(self, info: CloseInfo, cause: RemoteProtocolError | None = None) -> None:
        """Note the end and wake everybody; the engine's waiters are woken by ``Connection``, which calls this."""
        self._note_end(info, cause)
        self._settle_end()

    def _note_end(self, info: CloseInfo, cause: RemoteProtocolError | None = None) -> None:
        """Note how the session ended: every call raises from now on. ``_settle_end`` must follow, if not at once."""
        if self._close_info is None:
            self._close_info = info
            self._cause = cause

    def _settle_end(self) -> bool:
        """Keep what is left of the session and wake everybody who waits; whether that had not been done before."""
        if self._ended.is_set:
            return False
        # The engine forgets what it holds of a session that ends; what has arrived belongs to the application.
        late = self._core.receive_datagrams(self._id, self._limits.datagram_receive_count)
        self._late_datagrams = deque(late) if late else None
        self._final_datagrams = self._core.datagram_stats(self._id)
        self._final_credit = self._core.credit(self._id)
        self._remote_address = self._core.remote_address
        self._ended.set()
        self._draining.set()
        for arrived in (self._bidirectional_arrived, self._unidirectional_arrived):
            if arrived is not None:
                arrived.wake_all()
        for waiters in (self._bidirectional_credit, self._unidirectional_credit, self._datagram_waiters):
            if waiters is not None:
                waiters.wake()
        return True
