"""A WebTransport session: streams, datagrams and the end, as an application sees them.

A session object wraps its ``SessionState``, which knows what is queued for the application and how the session ended.
Packets are the engine's, the CONNECT stream is the protocol layer's, and ``_connection`` joins the three.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, Self

from wtio._arguments import check_code, check_integer, check_text
from wtio._buffer import Buffer, contiguous_bytes
from wtio._facts import CloseInfo, SessionFacts, SessionStats
from wtio._headers import Headers  # noqa: TC001 - for typing.get_type_hints
from wtio._incoming import IncomingDatagrams, IncomingStreams
from wtio._url import without_query
from wtio.errors import DatagramTooLargeError, WebTransportError
from wtio.protocol import varint
from wtio.protocol.session import EXPORTER_LABEL, exporter_context
from wtio.stream import (
    BODY_RAISED_CODE,
    WebTransportReceiveStream,
    WebTransportSendStream,
    WebTransportStream,
)

if TYPE_CHECKING:
    from types import TracebackType

    from wtio._reporting import Trace
    from wtio._session_state import SessionState
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


class Link(Protocol):
    """What a session needs from its connection (``_connection.Connection``)."""

    is_client: bool
    timeouts: Timeouts

    @property
    def loop_late_total(self) -> int: ...
    def close_session(self, session: SessionState, code: int, reason: str) -> None: ...
    def abort_session(self, session: SessionState) -> None: ...
    def drain_session(self, session: SessionState) -> None: ...
    def report(self, session: SessionState, trace: Trace | None) -> ConnectionReport: ...
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
    def is_client(self) -> bool:
        """Whether this side asked for the session."""
        return self._link.is_client

    @property
    def remote_address(self) -> tuple[str, int]:
        """IP address and UDP port of the peer; after the end of the session, the last ones."""
        return self._state.remote_address

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
    def path(self) -> str:
        """Path with query, beginning with ``/``."""
        return self._state.facts.path

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
        it first returns the streams that had arrived, and then raises SessionClosed.
        """
        state = self._state
        make = partial(WebTransportStream, session=self, state=state)
        return IncomingStreams(state, state.arrived(True), make)

    def incoming_unidirectional_streams(self) -> IncomingStreams[WebTransportReceiveStream]:
        """Iterate over the unidirectional streams that the peer opens: ``async for stream in …``.

        The iterator waits for the next stream; cancelling loses none. Several tasks may iterate. When the session ends,
        it first returns the streams that had arrived, and then raises SessionClosed.
        """
        state = self._state
        make = partial(WebTransportReceiveStream, session=self, state=state)
        return IncomingStreams(state, state.arrived(False), make)

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
        """Iterate over the datagrams that arrive: ``async for data in …``. Otherwise as ``receive_datagram``."""
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
        session that has ended. Never waits, so cancelling cannot interrupt it.

        Source: draft-ietf-webtrans-http3-16, section 6.
        """
        self._core.check_loop()
        if self._state.close_info is None:
            self._link.abort_session(self._state)

    async def drain(self) -> None:
        """Ask the peer to wind the session down (WT_DRAIN_SESSION). Everything still works afterwards.

        Does nothing on a session that has ended. Never waits, so cancelling cannot interrupt it.

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
        return f"<WebTransportSession {self._id} {facts.authority}{without_query(facts.path)} {state}>"

    def _datagram_failure(self, size: int, limit: int) -> WebTransportError:
        if limit > 0:
            return DatagramTooLargeError(
                f"datagram of {size} bytes exceeds this session's limit of {limit}; see "
                "WebTransportSession.max_datagram_size",
                size=size,
                limit=limit,
            )
        return self._state.closed_error()
