"""One QUIC connection: the place where the engine, the HTTP/3 layer and the sessions meet.

::

    engine event ──► handle ──► H3Connection ──► outputs: raw streams, the end of the connection
          │                          └─────────► events: sessions, client, server
          └──► DataStream ──► session, or kept until it is established

Engine events go in through ``handle``. What the HTTP/3 layer makes of them is carried out (``_carry_out``) and passed
on (``_pass_on``) by ``_pump``, at the end of each event and of each call. Streams and datagrams of sessions never pass
through Python's protocol layer.

``Connection`` owns the protocol layer and how far the connection has come (the table in ``life``). It gives the rest
to parts that do not know it: ``raw`` has the streams of HTTP/3, ``early`` the streams whose session is not established,
``sessions`` those that are. Which sessions there may be is not decided here: ``client`` and ``server`` add what differs
between the two sides.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from wtio._connection.early import EarlyStreams, refuse
from wtio._connection.earnings import Earnings
from wtio._connection.life import Effect, Input, Life, State
from wtio._connection.raw import RawStreams
from wtio._connection.sessions import GONE, Sessions
from wtio._connection.watched import WatchedStreams
from wtio._core import CloseCause, EngineEvent
from wtio._facts import CloseInfo
from wtio._log import PROTOCOL, ConnectionLog, PacedLines, SessionLog, connection_name, connection_numbers
from wtio._qlog import ConnectionQlog
from wtio._reporting import Snapshot, certificate_report, session_report
from wtio._session_state import SessionState
from wtio._waiting import Flag
from wtio._words import SELF_SIGNED, Loss, is_about_issuer, loss_in_words
from wtio.errors import RemoteProtocolError
from wtio.protocol.capsules import CapsuleType, cut_reason, encode_limit
from wtio.protocol.codes import ErrorCodes, describe
from wtio.protocol.connection import H3Connection
from wtio.protocol.limits import ProtocolLimits
from wtio.protocol.outbox import (
    CapsuleReceived,
    CloseConnection,
    Event,
    FreeStream,
    Output,
    Reset,
    Send,
    SessionDraining,
    SessionFinished,
    SessionStopping,
    SessionTerminated,
    Stop,
)
from wtio.protocol.transport_parameters import read_peer_transport
from wtio.session import WebTransportSession

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from wtio import _core
    from wtio._driver import Driver
    from wtio._facts import SessionFacts
    from wtio._failures import FailureLog
    from wtio._options import EndpointOptions
    from wtio._reporting import Trace
    from wtio.config import Limits, Timeouts
    from wtio.errors import ClosedBy
    from wtio.report import ConnectionReport

# What fits into a CONNECTION_CLOSE frame in one packet of the smallest size.
_REASON_LIMIT: Final = 512
# How long a peer may wait before it acknowledges (RFC 9000, section 18.2, max_ack_delay), in seconds.
_ACK_DELAY: Final = 0.025
# Who ended the sessions of a lost connection; for any other cause it is the transport.
_CLOSED_BY: Final[dict[CloseCause, ClosedBy]] = {CloseCause.APPLICATION: "peer", CloseCause.LOCAL: "local"}
# What may be about an established session. Most other events come while a session is made.
_SESSION_EVENTS: Final = (SessionTerminated, SessionFinished, SessionStopping, SessionDraining, CapsuleReceived)


class Connection:
    """Base of ``ClientConnection`` and ``ServerConnection``."""

    __slots__ = (
        "_early",
        "_final_facts",
        "_is_pumping",
        "_life",
        "_log",
        "_log_number",
        "_lost",
        "_qlog",
        "_raw",
        "core",
        "driver",
        "h3",
        "limits",
        "loop",
        "loss",
        "options",
        "sessions",
        "timeouts",
        "violation",
    )

    # Each side has its own.
    is_client: bool
    logger: logging.Logger
    failure_log: Callable[[], FailureLog]

    def __init__(
        self, core: _core.Connection, driver: Driver, options: EndpointOptions, lines: PacedLines | None = None
    ) -> None:
        # The engine's connection. It stays usable after the end.
        self.core: _core.Connection = core
        # Serves the endpoint that the connection belongs to, and the event loop that it runs on.
        self.driver: Driver = driver
        self.loop: asyncio.AbstractEventLoop = driver.loop
        # The endpoint's options, and the two parts of them that are used all over.
        self.options: EndpointOptions = options
        self.limits: Limits = options.limits
        self.timeouts: Timeouts = options.timeouts
        # Reads and writes HTTP/3. Its outputs and events are taken by ``_pump``.
        self.h3: H3Connection = H3Connection(
            is_client=self.is_client,
            local=options.local_terms,
            limits=_protocol_limits(options.limits.header_size),
            earnings=Earnings(core, driver.loop),
        )
        # Established sessions, until they are over on both sides.
        self.sessions: Sessions = Sessions(core, driver.loop)
        # Of the connection in the log, unique in the process.
        self._log_number = next(connection_numbers)
        # What is written about the connection itself, to the ``lines`` of its server; None if nothing is.
        self._log: ConnectionLog | None = None
        if self.logger.isEnabledFor(logging.DEBUG):
            self._log = ConnectionLog(lines or PacedLines(self.logger), self._log_number, driver.loop.time())
        self._raw: RawStreams
        streams = options.limits.unidirectional_streams
        # Describes HTTP/3 and sessions in the connection's qlog; None without one, which is nearly always.
        self._qlog: ConnectionQlog | None = None
        if options.qlog_directory is not None and core.has_qlog:
            self._qlog = ConnectionQlog(core, self._log_number)
        is_logged = PROTOCOL.isEnabledFor(logging.DEBUG)
        if is_logged or self._qlog is not None:
            self._raw = WatchedStreams(
                core, driver.loop, self.h3, streams, self._log_number, is_logged=is_logged, qlog=self._qlog
            )
        else:
            self._raw = RawStreams(core, driver.loop, self.h3, streams)
        # Made with the first of them; most connections never have one.
        self._early: EarlyStreams | None = None
        # How far the connection has come. ``_advance`` alone moves it on.
        self._life = Life()
        # How the connection ended; None while it lasts.
        self.loss: Loss | None = None
        # What the peer did, if we close the connection because of it: the cause of the sessions' errors.
        self.violation: RemoteProtocolError | None = None
        # What the engine knew of the connection at its end; None until then.
        self._final_facts: _core.ConnectionFacts | None = None
        # The property of the same name, created when it is first needed.
        self._lost: Flag | None = None
        # Whether ``_pump`` is running. Events that occur meanwhile are passed on by its loop, in order.
        self._is_pumping = False

    # -- hooks for the two sides

    def connected(self) -> None:
        """The handshake is complete and our SETTINGS are on their way."""

    def take_event(self, event: Event) -> None:
        """Take an event of the HTTP/3 layer that is about no established session: SETTINGS, and requests."""

    def read_raw(self, stream_id: int) -> None:
        """A raw stream has something to read."""
        self._raw.read(stream_id)

    def unreachable(self, code: int, is_remote: bool) -> None:
        """The first packets of a client cannot be delivered: the errno, and whether the network says so."""

    def session_over(self, session: SessionState) -> None:
        """Nothing will happen on a session any more."""

    def connection_lost(self) -> None:
        """The connection is lost and its sessions have ended."""

    # -- for reports

    @property
    def log_name(self) -> str:
        """The connection's name in the log."""
        return connection_name(self.logger, self._log_number, self.core.remote_address)

    @property
    def loop_late_total(self) -> int:
        """How often the guardian had to step in on this connection's socket."""
        return self.driver.endpoint.loop_late_total

    @property
    def probe_timeout(self) -> float:
        """Seconds after which QUIC asks whether a packet has arrived, about (RFC 9002, section 6.2.1)."""
        return 2 * self.core.stats().rtt + _ACK_DELAY

    def peer_certificates(self) -> list[bytes]:
        """The peer's chain in DER, its own certificate first; empty if it showed none that was accepted."""
        facts = self.facts()
        return [] if facts is None or facts.is_refused else facts.certificates

    def facts(self) -> _core.ConnectionFacts | None:
        """What the engine knows of the connection, or knew at its end."""
        return self._final_facts or self.core.facts()

    def snapshot(self) -> Snapshot:
        """Return the facts about the connection for a report."""
        return Snapshot(
            is_client=self.is_client,
            engine=self.facts(),
            dialect=self.h3.dialect,
            settings_sent=tuple(self.h3.sent_settings),
            settings_received=self.h3.peer_settings,
            flow_control=self.h3.flow_control,
            loop_late_total=self.loop_late_total,
            buffers=self.driver.endpoint.socket_buffers(),
            idle_timeout=self.timeouts.idle,
            loss=self.loss,
            violation=self.violation,
        )

    def report(self, session: SessionState, trace: Trace | None) -> ConnectionReport:
        """Put a session's report together."""
        return session_report(self.snapshot(), session.session_id, session.facts, session.close_info, trace)

    # -- qlog

    def start_qlog(self, path: str) -> bool:
        """Write a qlog from now on, from our own layer; False if there is one already.

        Raises:
            OSError: The file cannot be made.
        """
        if not self.core.start_qlog(path):
            return False
        self._qlog = ConnectionQlog(self.core, self._log_number)
        for session in self.sessions.states():
            self._qlog.session_opened(session, is_earlier=True)
        return True

    def stop_qlog(self) -> None:
        """End what ``start_qlog`` has begun, if it has."""
        if self.core.stop_qlog():
            self._qlog = None

    # -- events of the engine

    def handle(self, event: EngineEvent) -> None:
        """Take an event of the engine, then do what the HTTP/3 layer makes of it. The frequent ones come first."""
        match event:
            case EngineEvent.DataStream(stream=stream, session_id=session_id):
                session = self.sessions.get(session_id)
                if session is not None:
                    if session.close_info is not None:
                        refuse(stream, GONE)
                    else:
                        session.take_stream(stream)
                    # Not the HTTP/3 layer's, so there is nothing to pump. This saves time: most events are this one.
                    return
                self._take_without_session(stream, session_id)
            case EngineEvent.RawReadable(stream_id=stream_id):
                self.read_raw(stream_id)
            case EngineEvent.RawStream(stream=stream):
                self._raw.take(stream)
                return
            case EngineEvent.Ready():
                # A server's SETTINGS need not wait for the client's last flight (RFC 9114, section 7.2.4.2): sent with
                # the first one, they spare the client a round trip before its CONNECT.
                self._advance(Input.READY)
            case EngineEvent.Connected():
                self._advance(Input.CONNECTED)
            case EngineEvent.Closed(cause=cause, code=code, reason=reason, facts=facts):
                self._final_facts = facts
                if (
                    facts.is_refused
                    and is_about_issuer(code)
                    and certificate_report(facts.certificates[0]).is_self_signed
                ):
                    # To the engine, an authority of the same name that is trusted makes it another fault.
                    reason = SELF_SIGNED
                self._advance(Input.CLOSED, loss=Loss(cause, code, reason))
                return
            case EngineEvent.CreditDue(session_id=session_id, limit=limit):
                self.h3.send_capsule(session_id, encode_limit(CapsuleType.WT_MAX_DATA, limit))
            case EngineEvent.StreamsDue(session_id=session_id, bidirectional=bidirectional, limit=limit):
                kind = CapsuleType.WT_MAX_STREAMS_BIDI if bidirectional else CapsuleType.WT_MAX_STREAMS_UNI
                self.h3.send_capsule(session_id, encode_limit(kind, limit))
            case EngineEvent.CreditBlocked(session_id=session_id, limit=limit):
                self.h3.send_capsule(session_id, encode_limit(CapsuleType.WT_DATA_BLOCKED, limit))
            case EngineEvent.StreamsBlocked(session_id=session_id, bidirectional=bidirectional, limit=limit):
                kind = CapsuleType.WT_STREAMS_BLOCKED_BIDI if bidirectional else CapsuleType.WT_STREAMS_BLOCKED_UNI
                self.h3.send_capsule(session_id, encode_limit(kind, limit))
            case EngineEvent.CreditExceeded(session_id=session_id):
                self._end_exceeded(session_id)
            case EngineEvent.BytesExceeded(session_id=session_id):
                # Closing drives, and that is what goes on at this moment.
                self.loop.call_soon(self._end_full, session_id)
            case EngineEvent.RawStopped(stream_id=stream_id, wire_code=wire_code):
                self.h3.receive_stop(stream_id, wire_code)
            case EngineEvent.DatagramId(session_id=session_id):
                self.h3.check_session_id(session_id)
            case EngineEvent.DatagramError():
                # RFC 9297, section 2.1.
                self.h3.fail(ErrorCodes.H3_DATAGRAM_ERROR, "datagram without a valid quarter stream id")
            case EngineEvent.Unreachable(errno=errno, is_remote=is_remote):
                self.unreachable(errno, is_remote)
            case _:
                raise AssertionError(f"no connection handles {event!r}")
        self._pump()

    def _take_without_session(self, stream: _core.Stream, session_id: int) -> None:
        """Keep a data stream until its session is there: that may be on its way, in another packet (section 4.6)."""
        if not self.h3.check_session_id(session_id) or self.is_lost:
            return
        if self._early is None:
            self._early = EarlyStreams(
                self.loop,
                most=self.limits.early_streams,
                patience=self.timeouts.request,
                session_state=self.h3.session_state,
            )
        if not self._early.keep(session_id, stream):
            self.h3.note_refused()

    def _end_exceeded(self, session_id: int) -> None:
        """End a session whose peer broke a limit."""
        session = self.sessions.get(session_id)
        if session is not None and not session.is_closed:
            words = "the peer sent more than the session's flow control allows"
            cause = RemoteProtocolError(words, error_code=ErrorCodes.WT_FLOW_CONTROL_ERROR)
            self.sessions.end(session, CloseInfo(None, words, "transport"), cause)
            self.h3.abort_session(session_id, ErrorCodes.WT_FLOW_CONTROL_ERROR)

    def _end_full(self, session_id: int) -> None:
        """Close a session whose peer has sent all that it may, and more."""
        session = self.sessions.get(session_id)
        if session is not None and not session.is_closed and not self.is_lost:
            most = self.limits.session_receive_bytes
            words = f"the peer sent more than {most} bytes (Limits.session_receive_bytes)"
            self.close_session(session, ErrorCodes.H3_EXCESSIVE_LOAD, words)

    # -- its life

    @property
    def is_connected(self) -> bool:
        """Whether the handshake was completed. Stays True after the end."""
        return self._life.is_connected

    @property
    def lost(self) -> Flag:
        """Set when the last session of the lost connection has ended, after ``connection_lost``."""
        if self._lost is None:
            self._lost = Flag()
        return self._lost

    @property
    def is_ending(self) -> bool:
        """Whether the connection is being closed, or lost."""
        return self._life.state in (State.CLOSING, State.LOST)

    @property
    def is_lost(self) -> bool:
        """Whether the connection is over; its sessions have ended or are about to (``lost``)."""
        return self._life.state is State.LOST

    def close_connection(self, code: int, reason: str) -> None:
        """Close it in the next iteration of the loop, after what is queued has been sent as far as it can be."""
        self._advance(Input.CLOSE, code, reason)

    def close_at_once(self, code: int = ErrorCodes.H3_NO_ERROR, reason: str = "") -> None:
        """Close it before this returns, whatever becomes of its sessions."""
        self._advance(Input.CLOSE_AT_ONCE, code, reason)

    def break_off(self, error: Exception) -> None:
        """End everything because of a defect of ours."""
        loss = Loss(CloseCause.LOCAL, ErrorCodes.H3_INTERNAL_ERROR, f"internal error of wtio: {error!r}")
        self.abandon(loss, ErrorCodes.H3_INTERNAL_ERROR, "internal error")

    def abandon(self, loss: Loss, code: int, reason: str) -> None:
        """End everything now because of ``loss``. ``code`` and ``reason`` are sent to the peer, if that is possible."""
        self._advance(Input.ABANDON, code, reason, loss)

    def _advance(self, event: Input, code: int = 0, reason: str = "", loss: Loss | None = None) -> None:
        """Move on in the table and do what it says.

        Args:
            event: What happens.
            code: For CONNECTION_CLOSE, an error code of HTTP/3.
            reason: For CONNECTION_CLOSE.
            loss: How the connection ends, if that is what happens.
        """
        for effect in self._life.step(event):
            match effect:
                case Effect.START:
                    self._start()
                case Effect.REPORT:
                    if self._log is not None:
                        self._log.opened(self.loop.time(), self.core.remote_address)
                    self.connected()
                case Effect.CLOSE_SOON:
                    self.loop.call_soon(self._send_close, code, reason)
                case Effect.CLOSE_NOW:
                    self._send_close(code, reason)
                case Effect.DISCARD_SOON:
                    self.loop.call_soon(self._send_close_alone, code, reason)
                case Effect.END:
                    assert loss is not None
                    self._end(loss)

    def _start(self) -> None:
        """Send our SETTINGS."""
        parameters = self.core.peer_parameters()
        if parameters is not None:
            self.h3.peer_transport = read_peer_transport(parameters)
            if self._qlog is not None:
                self._qlog.parameters(parameters)
        self.h3.start()
        if self._qlog is not None:
            self._qlog.own_settings(self.h3)

    def _send_close(self, code: int, reason: str) -> None:
        """Send what is queued, then CONNECTION_CLOSE; the engine reports the end."""
        if not self.is_lost and not self.driver.is_closed:
            # This may bring the end before we get to it.
            self.driver.drive()
        if not self.is_lost:
            self._send_close_alone(code, reason)

    def _send_close_alone(self, code: int, reason: str) -> None:
        if not self.driver.is_closed:
            self.core.close(code, reason.encode()[:_REASON_LIMIT])
            self.driver.drive()

    def _end(self, loss: Loss) -> None:
        """End the sessions of the connection, which is lost."""
        self.loss = loss
        if self._log is not None:
            self._log.lost(
                self.loop.time(),
                self.facts(),
                loss,
                self.violation,
                self.timeouts.idle,
                is_connected=self.is_connected,
            )
        if self._early is not None:
            self._early.close()
        self._raw.lose()
        if not self.sessions:
            self._sessions_ended()
            return
        words = loss_in_words(loss, idle=self.timeouts.idle) if self.violation is None else str(self.violation)
        info = CloseInfo(None, words, _CLOSED_BY.get(loss.cause, "transport"))
        # Until the last session has ended, the raw streams keep the engine from forgetting the connection, and with it
        # what has arrived for the sessions.
        self.sessions.end_all(info, self.violation, self._session_finished, self._sessions_ended)

    def _sessions_ended(self) -> None:
        """The last session of a lost connection has ended."""
        self._raw.clear()
        self.connection_lost()
        self.lost.set()

    # -- calls of sessions

    def add_session(self, session_id: int, facts: SessionFacts, trace: Trace | None = None) -> WebTransportSession:
        """Make an established session; what arrived early for it follows."""
        h3 = self.h3
        self.core.add_session(session_id, self.options, h3.peer_initial_limits if h3.flow_control else None)
        state = SessionState(self.core, self.loop, self.limits, session_id, facts)
        session = WebTransportSession(self, state, trace)
        self.sessions.add(session, state)
        if self._early is not None:
            for stream in self._early.take(session_id):
                state.take_stream(stream)
        if self.logger.isEnabledFor(logging.INFO):
            state.log = SessionLog(self.logger, self._log_number, state, self.loop.time())
        if self._qlog is not None:
            self._qlog.session_opened(state)
        return session

    def close_session(self, session: SessionState, code: int, reason: str) -> None:
        """Say goodbye with a capsule; the peer has ``Timeouts.close`` to answer."""
        session_id = session.session_id
        self.sessions.bound_end(session_id, self.timeouts.close, self._expire_session)
        # Only the capsule and the end of the stream: with a STOP_SENDING beside it, browsers drop the capsule. They
        # leave in a packet of their own: resets in the same packet come in front of them, and Chromium's tab may crash
        # when its streams are reset before it learns that the session is over.
        self.h3.close_session(session_id, code, reason)
        self._pump()
        # The end is noted before the drive, which may already bring the peer's answer: without an end of its own by
        # then, the session would have ended with an answer that has neither code nor reason.
        self.sessions.hold_ended(session)
        session.end(CloseInfo(code, cut_reason(reason).decode(), "local"))
        self.driver.drive()
        self.core.end_session(session_id, GONE)

    def abort_session(self, session: SessionState) -> None:
        """Reset the CONNECT stream."""
        self.sessions.end(session, CloseInfo(None, "aborted", "local"))
        self.h3.abort_session(session.session_id, ErrorCodes.H3_REQUEST_CANCELLED)
        self._pump()

    def forget_session(self, session: WebTransportSession) -> None:
        """The application has dropped an open session without closing it. Its destructor calls this, on any thread."""

    def drain_session(self, session: SessionState) -> None:
        """Send WT_DRAIN_SESSION."""
        self.h3.drain_session(session.session_id)
        self._pump()

    async def wait_session_over(self, session: SessionState) -> None:
        """Wait until the peer has ended its side too, or ``Timeouts.close`` has passed."""
        await session.over.wait()

    # -- the end of sessions

    def _expire_session(self, session_id: int) -> None:
        session = self.sessions.get(session_id)
        if session is None or self.is_lost:
            return
        self.sessions.end(session, CloseInfo(None, "the peer stopped the session without a goodbye", "peer"))
        self.h3.abort_session(session_id, ErrorCodes.H3_REQUEST_CANCELLED)
        self._pump()
        self._session_finished(session)

    def _session_finished(self, session: SessionState) -> None:
        if self.sessions.finish(session):
            if self._qlog is not None:
                self._qlog.session_closed(session)
            self.session_over(session)

    def note_rejected(self, status: int, path: str | None) -> None:
        """Write that a request was refused with a status; ``path`` is None if that is not known."""
        if self._log is not None:
            self._log.rejected(self.loop.time(), self.core.remote_address, status, path)
        if self._qlog is not None:
            self._qlog.session_rejected(status, path)

    def forget_request(self, session_id: int) -> None:
        """A session that will never be: its early streams and datagrams go."""
        if self._early is not None:
            self._early.take(session_id)
        if not self.is_lost:
            self.core.end_session(session_id, GONE)

    def refuse_early(self, session_id: int) -> None:
        """Refuse the streams that arrived for a session that will never be."""
        if self._early is not None:
            self._early.refuse(session_id)

    # -- the HTTP/3 layer

    def _pump(self) -> None:
        """Carry out the HTTP/3 layer's outputs and pass on its events. Outputs go first and at once, also if nested."""
        outbox = self.h3.outbox
        if outbox.outputs:
            self.send_outputs()
        if self._is_pumping or not outbox.events:
            return
        self._is_pumping = True
        try:
            while outbox.events:
                for event in outbox.take_events():
                    self._pass_on(event)
                    if outbox.outputs:
                        self.send_outputs()
        finally:
            self._is_pumping = False

    def send_outputs(self) -> None:
        """Carry out what the HTTP/3 layer wants done; its events wait."""
        outputs = self.h3.outbox.take_outputs()
        if len(outputs) == 1:
            self._carry_out(outputs[0])
            return
        for output, following in zip_longest(outputs, outputs[1:]):
            if (
                isinstance(following, Reset)
                and isinstance(output, Send)
                and output.end
                and output.stream == following.stream_id
            ):
                # A stream that breaks a rule right behind its WT_CLOSE_SESSION is reset. The end that answered the
                # capsule must not leave before that, as it may where a thread sends while this loop is at work.
                continue
            self._carry_out(output)

    def _carry_out(self, output: Output) -> None:
        match output:
            case Send(stream, data, end):
                if not self._raw.send(stream, data, end):
                    self.h3.fail(ErrorCodes.H3_EXCESSIVE_LOAD, "the peer does not read what it must")
                    self._pump()
            case Reset(stream_id, code):
                self._raw.reset(stream_id, code)
            case Stop(stream_id, code):
                self._raw.stop(stream_id, code)
            case FreeStream(stream_id):
                self._raw.free(stream_id)
            case CloseConnection(code, reason):
                if not self.is_ending:
                    self.violation = RemoteProtocolError(
                        f"the peer broke the protocol: {reason} ({describe(code)})", error_code=code
                    )
                self.close_connection(code, reason)

    def _pass_on(self, event: Event) -> None:
        """Give an event to the session that it is about, or to the client or server."""
        if not isinstance(event, _SESSION_EVENTS):
            self.take_event(event)
            return
        match event:
            case SessionTerminated(session_id, code, reason, clean, by, wire_code):
                session = self.sessions.get(session_id)
                if session is None:
                    self.take_event(event)
                    return
                cause = None
                info = CloseInfo(code, reason, "peer")
                if not clean:
                    wire = wire_code or 0
                    words = reason or f"the CONNECT stream was reset with {describe(wire)}"
                    info = CloseInfo(None, words, "peer" if by == "peer" else "transport")
                    cause = RemoteProtocolError(words, error_code=wire) if by == "local" else None
                self.sessions.end(session, info, cause)
                self.sessions.bound_end(session_id, self.timeouts.close, self._expire_session)
            case SessionFinished(session_id):
                session = self.sessions.get(session_id)
                if session is None:
                    self.take_event(event)
                    return
                self.sessions.end(session, CloseInfo(None, "the CONNECT stream ended", "peer"))
                self._session_finished(session)
            case SessionStopping(session_id):
                if session_id in self.sessions:
                    self.sessions.bound_end(session_id, self.timeouts.close, self._expire_session)
                else:
                    self.take_event(event)
            case SessionDraining(session_id):
                if session := self.sessions.get(session_id):
                    session.note_draining()
            case CapsuleReceived(session_id, kind, value):
                if kind == CapsuleType.WT_MAX_DATA:
                    self.core.set_send_limit(session_id, value)
                elif kind == CapsuleType.WT_MAX_STREAMS_BIDI:
                    self.core.set_send_streams(session_id, True, value)
                elif kind == CapsuleType.WT_MAX_STREAMS_UNI:
                    self.core.set_send_streams(session_id, False, value)

    def open_request(self) -> _core.Stream | None:
        """Open a stream for a request; None while the peer allows none."""
        return self._raw.open_request()


@lru_cache(maxsize=64)
def _protocol_limits(header_size: int) -> ProtocolLimits:
    return ProtocolLimits(max_field_section_size=header_size)
