"""The state of a session, which its connection and the application's objects share.

The connection reports here what arrives and how the session ended. ``WebTransportSession`` and its streams wait for
that and raise the session's error. The engine sends and receives packets, the protocol layer reads the CONNECT stream,
and the connection closes sessions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from wtio._arguments import check_bool, check_integer
from wtio._log import session_numbers
from wtio._waiting import Arrivals, Flag, Waiter, Waiters
from wtio.errors import SessionClosed, SessionClosedError, SessionClosedOK, StreamCreditError
from wtio.protocol.codes import to_wire
from wtio.protocol.frames import data_stream_header

if TYPE_CHECKING:
    from types import SimpleNamespace

    from wtio import _core
    from wtio._facts import CloseInfo, SessionFacts
    from wtio._log import SessionLog
    from wtio.config import Limits

__all__ = ["WIRE_ZERO", "SessionState", "closed_error"]

WIRE_ZERO: Final = to_wire(0)
"""Error code 0 as it stands on the wire."""


def closed_error(info: CloseInfo | None) -> SessionClosed:
    """Make the error that says how a session ended; None stands for a lost connection."""
    if info is None:
        return SessionClosedError(code=None, reason="the connection was lost", closed_by="transport")
    kind = SessionClosedOK if info.code == 0 else SessionClosedError
    return kind(code=info.code, reason=info.reason, closed_by=info.closed_by)


class SessionState:
    """Everything about one session: what the application has not taken yet, which tasks wait, and how it ended.

    It refers neither to the session object nor to the connection. So the connection can keep it without keeping the
    session object alive, which is how a client notices that the application has forgotten an open session. And it is
    freed without the garbage collector, because it is not part of a reference cycle.

    Only the event loop may use it, except for the figures, which any thread may read.
    """

    __slots__ = (
        "_bidirectional_arrived",
        "_bidirectional_credit",
        "_bidirectional_header",
        "_datagram_waiters",
        "_draining",
        "_ended",
        "_final_credit",
        "_final_datagrams",
        "_final_remote_address",
        "_late_datagrams",
        "_over",
        "_unidirectional_arrived",
        "_unidirectional_credit",
        "_unidirectional_header",
        "cause",
        "close_info",
        "core",
        "drain_requested",
        "end_timer",
        "facts",
        "limits",
        "log",
        "log_id",
        "loop",
        "namespace",
        "session_id",
    )

    def __init__(
        self,
        core: _core.Connection,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        session_id: int,
        facts: SessionFacts,
    ) -> None:
        # The engine's connection. It stays usable after the session has ended.
        self.core: _core.Connection = core
        self.loop: asyncio.AbstractEventLoop = loop
        self.limits: Limits = limits
        # The stream ID of the CONNECT stream.
        self.session_id: int = session_id
        self.facts: SessionFacts = facts
        # Number of the session in the log, unique in the process.
        self.log_id: int = next(session_numbers)
        # Writes into the log how the session ends; None if nobody wants to know. The connection sets it.
        self.log: SessionLog | None = None
        # The application's own attributes (``WebTransportSession.state``); None until it asks for them.
        self.namespace: SimpleNamespace | None = None
        # The bytes that every stream opened by this side begins with.
        self._bidirectional_header = data_stream_header(session_id, bidirectional=True)
        self._unidirectional_header = data_stream_header(session_id, bidirectional=False)
        # The peer's streams that the application has not taken yet. At most ``Limits.bidirectional_streams`` and
        # ``unidirectional_streams``, because a stream counts as open until the application has taken it and seen its
        # end, even if the peer has reset it. These two and the next three are created when they are first needed;
        # most sessions need only some of them.
        self._bidirectional_arrived: Arrivals[_core.Stream] | None = None
        self._unidirectional_arrived: Arrivals[_core.Stream] | None = None
        # Tasks that wait until the peer allows another stream, and until a datagram arrives.
        self._bidirectional_credit: Waiters | None = None
        self._unidirectional_credit: Waiters | None = None
        self._datagram_waiters: Waiters | None = None
        # How the session ended, and the exception that caused it, if any. None while it is open. ``note_end`` sets
        # them once.
        self.close_info: CloseInfo | None = None
        self.cause: Exception | None = None
        # What the engine had of the session at the end, because it forgets ended sessions. ``settle_end`` sets these.
        # There are at most ``Limits.datagram_receive_count`` datagrams.
        self._late_datagrams: deque[bytes] | None = None
        self._final_credit: _core.Credit | None = None
        self._final_datagrams: _core.DatagramStats | None = None
        self._final_remote_address: tuple[str, int] | None = None
        # Limits how long the peer may take to end its side, too. The connection starts and stops it.
        self.end_timer: asyncio.TimerHandle | None = None
        # The properties of the same names, created when they are first needed.
        self._ended: Flag | None = None
        self._over: Flag | None = None
        self._draining: Flag | None = None
        # Whether the peer asked to wind the session down.
        self.drain_requested: bool = False

    @property
    def ended(self) -> Flag:
        """Set by ``settle_end``: the session has ended on this side."""
        if self._ended is None:
            self._ended = Flag()
        return self._ended

    @property
    def over(self) -> Flag:
        """Set by the connection: the session has ended on both sides, or the peer took too long."""
        if self._over is None:
            self._over = Flag()
        return self._over

    @property
    def draining(self) -> Flag:
        """Set when the peer asks to wind the session down, and when the session ends, so that no task waits forever.

        ``drain_requested`` is True only in the first case.
        """
        if self._draining is None:
            self._draining = Flag()
        return self._draining

    @property
    def is_closed(self) -> bool:
        """Whether the session has ended, for any reason."""
        return self.close_info is not None

    # -- figures

    @property
    def remote_address(self) -> tuple[str, int]:
        """IP address and UDP port of the peer; once the session has ended, its last ones."""
        return self._final_remote_address or self.core.remote_address

    def datagram_stats(self) -> _core.DatagramStats:
        """Return the engine's figures for this session's datagrams. After the end, the last ones."""
        return self.core.datagram_stats(self.session_id) if self._final_datagrams is None else self._final_datagrams

    def credit(self) -> _core.Credit:
        """Return the engine's figures for this session's flow control. After the end, the last ones."""
        return self.core.credit(self.session_id) if self._final_credit is None else self._final_credit

    # -- streams of this side

    async def open_stream(self, bidirectional: bool, send_order: int, wait_until_available: bool) -> _core.Stream:
        """Open a stream. If the peer allows none now, wait until it does. The arguments come from the application.

        Raises:
            SessionClosed: The session has ended.
            StreamCreditError: The peer allows no further stream now, and waiting was not wanted.
            ValueError: ``send_order`` does not fit into 32 bits.
            TypeError: An argument is of the wrong type.
        """
        if send_order != 0 or type(send_order) is not int:
            check_integer("send_order", send_order, -(2**31), 2**31 - 1)
        if wait_until_available is not True:
            check_bool("wait_until_available", wait_until_available)
        header = self._bidirectional_header if bidirectional else self._unidirectional_header
        if self.close_info is not None:
            raise self.closed_error()
        stream = self.core.open_stream(bidirectional, header, self.session_id)
        if stream is None:
            if not wait_until_available:
                kind = "bidirectional" if bidirectional else "unidirectional"
                raise StreamCreditError(
                    f"the peer allows no further {kind} stream now; finish others, or let the call wait"
                )
            stream = await self._open_later(bidirectional, header)
        if send_order:
            stream.send_order = send_order
        return stream

    async def _open_later(self, bidirectional: bool, header: bytes) -> _core.Stream:
        """Open a stream once the peer allows another one."""
        waiters = self.credit_waiters(bidirectional)
        has_waited = False
        while True:
            await waiters.wait(again=has_waited)
            has_waited = True
            if self.close_info is not None:
                raise self.closed_error()
            stream = self.core.open_stream(bidirectional, header, self.session_id)
            if stream is not None:
                waiters.pass_on()
                return stream

    def credit_waiters(self, bidirectional: bool) -> Waiters:
        """Return the tasks that wait until the peer allows another stream."""
        waiters = self._bidirectional_credit if bidirectional else self._unidirectional_credit
        if waiters is None:
            waiters = Waiters(self.loop, partial(self.core.wait_streams, bidirectional))
            if bidirectional:
                self._bidirectional_credit = waiters
            else:
                self._unidirectional_credit = waiters
        return waiters

    async def wait_finished_streams(self, patience: float) -> None:
        """Wait until every finished stream is acknowledged, for ``patience`` seconds at most."""
        if not self.core.unacked_streams(self.session_id):
            return
        acknowledged = Waiter(self.loop)
        self.core.wait_session_acked(self.session_id, acknowledged)
        try:
            async with asyncio.timeout(patience):
                await acknowledged
        except TimeoutError:
            return

    # -- what arrives

    def take_stream(self, stream: _core.Stream) -> None:
        """Keep a stream of the peer's for the application."""
        # For a stream that the application never takes.
        stream.abandon_code = WIRE_ZERO
        # RFC 9000, section 2.1: the second bit is set on unidirectional streams.
        arrived = self._unidirectional_arrived if stream.id & 2 else self._bidirectional_arrived
        if arrived is None:
            arrived = self.arrived(not stream.id & 2)
        arrived.put(stream)

    def arrived(self, bidirectional: bool) -> Arrivals[_core.Stream]:
        """Return the peer's streams of one kind that the application has not taken yet."""
        arrived = self._bidirectional_arrived if bidirectional else self._unidirectional_arrived
        if arrived is None:
            arrived = Arrivals()
            if bidirectional:
                self._bidirectional_arrived = arrived
            else:
                self._unidirectional_arrived = arrived
        return arrived

    def datagram_waiters(self) -> Waiters:
        """Return the tasks that wait for a datagram."""
        if self._datagram_waiters is None:
            self._datagram_waiters = Waiters(self.loop, partial(self.core.wait_datagram, self.session_id))
        return self._datagram_waiters

    def late_datagram(self) -> bytes:
        """Take a datagram that arrived before the session ended.

        Raises:
            SessionClosed: There is none left.
        """
        if not self._late_datagrams:
            raise self.closed_error()
        return self._late_datagrams.popleft()

    def note_draining(self) -> None:
        """Report that the peer asked to wind the session down."""
        self.drain_requested = True
        self.draining.set()

    # -- the end

    async def ended_by(self, deadline: float) -> None:
        """Wait for the session's end, until the loop's clock shows ``deadline`` at most. Cancelling changes nothing."""
        if self.close_info is not None or self.loop.time() >= deadline:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self.ended.wait()
        except TimeoutError:
            return

    def closed_error(self) -> SessionClosed:
        """Return the error that calls raise after the end: a new object with the same attributes each time."""
        error = closed_error(self.close_info)
        error.__cause__ = self.cause
        return error

    def end(self, info: CloseInfo, cause: Exception | None = None) -> None:
        """End the session and wake all tasks that wait here. The engine wakes those that wait on streams."""
        self.note_end(info, cause)
        self.settle_end()

    def note_end(self, info: CloseInfo, cause: Exception | None = None) -> None:
        """Record how the session ended. From now on every call raises. ``settle_end`` must follow, possibly later."""
        if self.close_info is None:
            self.close_info = info
            self.cause = cause

    def settle_end(self) -> bool:
        """Keep what the engine has of the session and wake all waiting tasks. False if that was done before."""
        if self.ended.is_set:
            return False
        # The engine drops what it has of a session that ends, but the application may still take what had arrived.
        late = self.core.receive_datagrams(self.session_id, self.limits.datagram_receive_count)
        self._late_datagrams = deque(late) if late else None
        self._final_datagrams = self.core.datagram_stats(self.session_id)
        self._final_credit = self.core.credit(self.session_id)
        self._final_remote_address = self.core.remote_address
        self.ended.set()
        self.draining.set()
        for arrived in (self._bidirectional_arrived, self._unidirectional_arrived):
            if arrived is not None:
                arrived.wake()
        for waiters in (self._bidirectional_credit, self._unidirectional_credit, self._datagram_waiters):
            if waiters is not None:
                waiters.wake()
        if self.log is not None and self.close_info is not None:
            self.log.ended(self, self.close_info, self.loop.time())
        return True
