//! One connection with its streams, sessions and datagrams: what the core reports, and what the layers above ask for.
//!
//! This module owns what appears and vanishes: streams, sessions, the connection itself. What happens to one half of a
//! stream is in [`receiving`](crate::receiving) and [`sending`](crate::sending), which borrow no more than they change. The
//! order of service, queues and ledgers are parts of their own, without any type of a core. This module names none either:
//! it asks [`quic::core`](crate::quic::core), where another core would stand beside the QUIC one.

mod credit;
mod datagrams;
mod holding;
mod log;
mod totals;

use std::{collections::VecDeque, time::Instant};

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use crate::{
    backlog::Backlog,
    config::Options,
    datagrams::{Early, Outgoing},
    event::{CloseCause, ConnectionFacts, ConnectionStats, Event},
    header::HEADER_LIMIT,
    memory::Account,
    newcomers::Arrival,
    peer_credit::PeerCredit,
    quic::core::{Core, Report},
    receiving::{Head, Receiving},
    sending::Sending,
    session::{Credit, SessionLimits, Sessions},
    session_datagrams::SessionDatagrams,
    stream::{
        Extent, Phase, ReceiveState, SendState, Stream, StreamStats, direction, direction_index, is_bidirectional,
    },
    tls::{self, Refusal},
    totals::Ending,
};

/// Held resets tried again after each packet. If there are more, the next packet goes on.
const HELD_PER_PASS: usize = 64;

/// What is kept of one connection.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) core: Core,
    /// All streams that the engine remembers: open ones, and those that somebody above still refers to or whose ledger
    /// lacks a final size. Boxed, because most of a table's slots are empty. Bounded by the core's limits of streams.
    pub(crate) streams: FxHashMap<u64, Box<Stream>>,
    pub(crate) sessions: Sessions,
    backlog: Backlog,
    outgoing: Outgoing,
    early: Early,
    /// Streams of which the peer promised bytes before its reset, until they are here.
    promised: Vec<u64>,
    /// Per direction, somebody waits to open a stream. Reset when that is reported.
    streams_wanted: [bool; 2],
    peer_credit: PeerCredit,
    /// A server's with a budget.
    account: Option<Account>,
    /// Bytes in the receive buffers of all streams.
    buffered: usize,
    /// Bytes that waited to be sent when the account was brought up to date.
    backlog_charged: usize,
    /// The handshake is complete.
    pub(crate) is_connected: bool,
    /// The connection is over, and its event of that was reported.
    pub(crate) is_closed: bool,
    is_closed_by_peer: bool,
    /// How it ended, once it is over.
    ending: Option<Ending>,
    /// Why our verifier refused the peer's certificate, if it did. Set when the connection is over.
    refusal: Option<Box<Refusal>>,
    /// When the core wants to be asked again.
    pub(crate) timer: Option<Instant>,
    /// When the engine looks after that, at the latest: its entry in the engine's list of timers.
    pub(crate) alarm: Option<Instant>,
    /// The engine has the connection on its list of those with something to do.
    pub(crate) is_listed: bool,
    /// As what a server's engine counts the connection, and whether anybody knows of it.
    pub(crate) arrival: Arrival,
}

/// Empty between calls, with memory to use again. One is enough for all connections of an engine.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Streams whose acknowledged prefix grew.
    advanced: Vec<u64>,
    /// Streams whose extent changed.
    grown: Vec<(u64, Extent)>,
}

impl Connection {
    pub(crate) fn new(id: u64, core: Core, options: &Options) -> Self {
        Self {
            id,
            core,
            streams: FxHashMap::default(),
            sessions: Sessions::default(),
            backlog: Backlog::new(options.stream_send_buffer, options.connection_send_buffer, options.memory.clone()),
            outgoing: Outgoing::new(options.datagram_send_buffer, options.datagram_send_age),
            early: Early::new(options.early_datagrams),
            promised: Vec::new(),
            streams_wanted: [false; 2],
            peer_credit: PeerCredit::new(
                [options.max_bidirectional_streams, options.max_unidirectional_streams],
                options.window(),
            ),
            account: options.memory.clone().map(Account::new),
            buffered: 0,
            backlog_charged: 0,
            is_connected: false,
            is_closed: false,
            is_closed_by_peer: false,
            ending: None,
            refusal: None,
            timer: None,
            alarm: None,
            is_listed: false,
            arrival: Arrival::default(),
        }
    }

    /// Whether nothing above refers to the connection's streams any more.
    pub(crate) fn is_unreferenced(&self) -> bool {
        !self.streams.values().any(|stream| stream.life.has_handle)
    }
}

/// A connection, to use at one moment. When it is let go, the engine has it on its list if there is something to send.
#[must_use]
pub struct ConnectionMut<'a> {
    connection: &'a mut Connection,
    now: Instant,
    events: &'a mut Vec<Event>,
    /// The engine's list of connections with something to do.
    listed: &'a mut VecDeque<u64>,
    scratch: &'a mut Scratch,
}

impl std::fmt::Debug for ConnectionMut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionMut").field("id", &self.connection.id).finish_non_exhaustive()
    }
}

impl Drop for ConnectionMut<'_> {
    #[inline]
    fn drop(&mut self) {
        if !std::mem::take(&mut self.connection.core.wants_transmit) {
            return;
        }
        self.connection.settle_writes(self.now);
        if !std::mem::replace(&mut self.connection.is_listed, true) {
            self.listed.push_back(self.connection.id);
        }
    }
}

impl<'a> ConnectionMut<'a> {
    #[inline]
    pub(crate) fn new(
        connection: &'a mut Connection,
        now: Instant,
        events: &'a mut Vec<Event>,
        listed: &'a mut VecDeque<u64>,
        scratch: &'a mut Scratch,
    ) -> Self {
        connection.core.set_now(now);
        Self { connection, now, events, listed, scratch }
    }

    #[inline]
    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.connection.core
    }

    pub(crate) fn state(&mut self) -> &mut Connection {
        self.connection
    }

    /// The receiving half of a stream; `None` if the engine does not know the stream (any more).
    #[inline]
    pub fn receiving(&mut self, stream_id: u64) -> Option<Receiving<'_>> {
        let connection = &mut *self.connection;
        let Stream { life, receiving, sending } = &mut **connection.streams.get_mut(&stream_id)?;
        Some(Receiving {
            stream_id,
            connection_id: connection.id,
            now: self.now,
            is_closed: connection.is_closed,
            half: receiving,
            sending,
            life,
            core: &mut connection.core,
            sessions: &mut connection.sessions,
            buffered: &mut connection.buffered,
            events: self.events,
        })
    }

    /// The sending half of a stream; `None` if the engine does not know the stream (any more).
    #[inline]
    pub fn sending(&mut self, stream_id: u64) -> Option<Sending<'_>> {
        let connection = &mut *self.connection;
        let Stream { life, receiving, sending } = &mut **connection.streams.get_mut(&stream_id)?;
        Some(Sending {
            stream_id,
            connection_id: connection.id,
            now: self.now,
            half: sending,
            receiving,
            life,
            core: &mut connection.core,
            sessions: &mut connection.sessions,
            backlog: &mut connection.backlog,
            events: self.events,
        })
    }

    /// The datagrams of a session.
    #[inline]
    pub fn datagrams(&mut self, session_id: u64) -> SessionDatagrams<'_> {
        let connection = &mut *self.connection;
        SessionDatagrams {
            session_id,
            now: self.now,
            is_closed: connection.is_closed,
            core: &mut connection.core,
            sessions: &mut connection.sessions,
            outgoing: &mut connection.outgoing,
        }
    }

    // ---------------------------------------------------------------- what the core reports

    /// Take over what the core reports after a packet or a timer.
    pub(crate) fn poll_events(&mut self) {
        let id = self.connection.id;
        while let Some(report) = self.connection.core.poll() {
            match report {
                Report::HandshakeDataReady => {
                    if !self.is_client() && self.connection.arrival.is_told {
                        self.events.push(Event::Ready { connection: id });
                    }
                }
                Report::Connected => {
                    self.connection.is_connected = true;
                    if self.connection.arrival.tell() {
                        self.events.push(Event::Incoming { connection: id });
                    }
                    self.events.push(Event::Connected { connection: id });
                }
                Report::Lost { cause, code, reason, is_by_peer } => {
                    self.connection.is_closed_by_peer = is_by_peer;
                    self.lose(cause, code, reason);
                }
                // Unidirectional streams first: where SETTINGS come with requests, the layer above needs them to answer.
                Report::Opened => {
                    for bidirectional in [false, true] {
                        while let Some(stream_id) = self.connection.core.accept(bidirectional) {
                            self.opened(stream_id);
                        }
                    }
                }
                Report::Datagrams => self.take_datagrams(),
                Report::StreamsAvailable { bidirectional } => self.wake_openers(bidirectional),
                Report::Readable(stream_id) => self.readable(stream_id),
                Report::Writable(stream_id) => {
                    if let Some(mut half) = self.sending(stream_id) {
                        half.list();
                    }
                }
                Report::Finished(stream_id) => {
                    let Some(mut half) = self.sending(stream_id) else { continue };
                    half.finished();
                    self.sending_ended(stream_id);
                }
                Report::Stopped(stream_id, code) => {
                    if self.sending(stream_id).is_some_and(|mut half| half.stopped(code)) {
                        self.sending_ended(stream_id);
                    }
                }
            }
        }
        // Most packets bring nothing of that.
        let connection = &mut *self.connection;
        if connection.core.has_changes() || !connection.backlog.held.is_empty() || !connection.promised.is_empty() {
            self.note_acknowledged();
            self.settle_resets();
            self.note_arrived();
        }
        if self.connection.sessions.waiting.is_some() {
            self.note_paces();
        }
        if self.connection.peer_credit.is_owed() && !self.connection.is_closed {
            self.announce_credit();
        }
    }

    /// The peer has opened a stream.
    fn opened(&mut self, stream_id: u64) {
        let phase = Phase::Header(BytesMut::new());
        let stream = Stream::new(self.now, phase, true, true, is_bidirectional(stream_id));
        self.connection.streams.insert(stream_id, Box::new(stream));
        self.readable(stream_id);
    }

    fn readable(&mut self, stream_id: u64) {
        if let Some(head) = self.receiving(stream_id).and_then(|mut half| half.readable()) {
            self.begin(stream_id, head);
        }
    }

    /// The head of a stream of the peer was read.
    fn begin(&mut self, stream_id: u64, head: Head) {
        let connection = self.connection.id;
        match head {
            Head::Reset(code) => self.abandon(stream_id, code),
            Head::Raw => {
                self.events.push(Event::RawStream { connection, stream: stream_id });
                self.events.push(Event::RawReadable { connection, stream: stream_id });
            }
            Head::Session(session_id) => {
                if let Some(code) = self.connection.sessions.end_code(session_id) {
                    // It was on its way when the session ended, and its credit comes back now.
                    self.connection.peer_credit.owe();
                    self.stop_and_reset(stream_id, code);
                    self.forget_if_done(stream_id);
                    return;
                }
                let Some(mut half) = self.receiving(stream_id) else { return };
                half.join(session_id);
                self.connection.core.note_session_stream(stream_id, session_id, false);
                self.events.push(Event::Stream { connection, stream: stream_id, session: session_id });
            }
        }
    }

    /// Forget a stream of the peer that was reset before its header named a session. Our half is reset, too.
    fn abandon(&mut self, stream_id: u64, code: u64) {
        let connection = &mut *self.connection;
        let Some(stream) = connection.streams.get_mut(&stream_id) else { return };
        stream.receiving.state = ReceiveState::Reset(code);
        if stream.sending.state == SendState::Open {
            stream.sending.state = SendState::Reset(code);
            connection.core.reset_at_once(stream_id, code);
        }
        connection.core.settle_receiving(stream_id);
        self.forget_if_done(stream_id);
    }

    /// Close both halves, the receiving one first: so the peer reads STOP_SENDING before the reset.
    fn stop_and_reset(&mut self, stream_id: u64, code: u64) {
        if let Some(mut half) = self.receiving(stream_id) {
            half.abandon(code);
        }
        if let Some(mut half) = self.sending(stream_id) {
            half.abandon(code);
        }
    }

    /// The core is through with the sending half of a stream.
    fn sending_ended(&mut self, stream_id: u64) {
        let session_id = self.connection.streams.get(&stream_id).and_then(|stream| stream.life.session_id);
        if let Some(session_id) = session_id {
            self.note_session_acked(session_id);
        }
        self.forget_if_done(stream_id);
    }

    /// Report that all finished streams of the session are acknowledged, if they are and somebody waits for it.
    fn note_session_acked(&mut self, session_id: u64) {
        if !self.connection.sessions.get(session_id).is_some_and(|session| session.acked_interest)
            || self.count_unacked(session_id) > 0
        {
            return;
        }
        if let Some(session) = self.connection.sessions.get_mut(session_id) {
            session.acked_interest = false;
            self.events.push(Event::SessionAcked { connection: self.connection.id, session: session_id });
        }
    }

    /// Streams whose acknowledged prefix grew: send held resets, wake waiters.
    fn note_acknowledged(&mut self) {
        let mut advanced = std::mem::take(&mut self.scratch.advanced);
        self.connection.core.take_advanced(&mut advanced);
        for stream_id in advanced.drain(..) {
            let Some(mut half) = self.sending(stream_id) else { continue };
            if half.half.held_reset.is_some() {
                self.send_held(stream_id);
            } else {
                half.acknowledged();
            }
        }
        self.scratch.advanced = advanced;
        // Resets that were acknowledged made room for others, and headers that were queued are with the core.
        for _ in 0..self.connection.backlog.held.len().min(HELD_PER_PASS) {
            let Some(stream_id) = self.connection.backlog.held.pop_front() else { break };
            if self.send_held(stream_id) {
                self.connection.backlog.held.push_back(stream_id);
            }
        }
    }

    /// Try to send a held reset; whether it has to be held further.
    fn send_held(&mut self, stream_id: u64) -> bool {
        let Some(is_gone) = self.sending(stream_id).and_then(|mut half| half.try_held()) else { return false };
        if is_gone {
            self.forget_if_done(stream_id);
        }
        !is_gone
    }

    /// Act on resets of the peer that promised bytes: when those are here, the stream's reader gets them and then the
    /// reset.
    fn settle_resets(&mut self) {
        let mut promised = std::mem::take(&mut self.connection.promised);
        self.connection.core.take_resets(&mut promised);
        promised.retain(|&stream_id| {
            let Some((code, reliable)) = self.connection.core.promise(stream_id) else { return false };
            let Some(mut half) = self.receiving(stream_id) else { return false };
            if !half.keep_promise(reliable) {
                return true;
            }
            match half.settle_reset(code) {
                Some(head) => self.begin(stream_id, head),
                None => self.forget_if_done(stream_id),
            }
            false
        });
        self.connection.promised = promised;
    }

    /// Streams of which more arrived, or of which the end is known now.
    fn note_arrived(&mut self) {
        let mut grown = std::mem::take(&mut self.scratch.grown);
        self.connection.core.take_grown(&mut grown);
        for (stream_id, extent) in grown.drain(..) {
            let Some(mut half) = self.receiving(stream_id) else { continue };
            half.account(extent);
            half.count_if_closed();
            if half.is_forgettable() {
                self.forget(stream_id);
            }
        }
        self.scratch.grown = grown;
    }

    /// The connection is over: what has arrived stays readable, everybody wakes.
    fn lose(&mut self, cause: CloseCause, code: u64, reason: String) {
        if std::mem::replace(&mut self.connection.is_closed, true) {
            return;
        }
        self.connection.ending = Some(Ending::Closed(cause));
        if cause == CloseCause::Tls {
            self.connection.refusal = tls::take_refusal().map(Box::new);
        }
        let words = self.connection.refusal.as_ref().map_or("", |refusal| &refusal.words);
        let reason = if words.is_empty() { reason } else { words.to_owned() };
        let facts = Box::new(self.facts());
        let streams: Vec<u64> = self.connection.streams.keys().copied().collect();
        for stream_id in streams {
            if let Some(mut half) = self.receiving(stream_id) {
                half.lose();
            }
            if let Some(mut half) = self.sending(stream_id) {
                half.lose();
                half.wake();
            }
            if let Some(mut half) = self.receiving(stream_id) {
                half.wake();
            }
            self.forget_if_done(stream_id);
        }
        let connection = self.connection.id;
        for (session, state) in self.connection.sessions.iter_mut() {
            if std::mem::take(&mut state.datagrams.interest) {
                self.events.push(Event::DatagramReadable { connection, session });
            }
            if std::mem::take(&mut state.acked_interest) {
                self.events.push(Event::SessionAcked { connection, session });
            }
        }
        for bidirectional in [true, false] {
            self.wake_openers(bidirectional);
        }
        self.connection.outgoing.clear();
        self.connection.early.clear();
        self.connection.sessions.forget_early();
        if self.connection.arrival.is_told {
            self.events.push(Event::Closed { connection, cause, code, reason, facts });
        }
    }

    // ---------------------------------------------------------------- streams that go

    fn forget_if_done(&mut self, stream_id: u64) {
        let Some(mut half) = self.receiving(stream_id) else { return };
        half.count_if_closed();
        if half.is_forgettable() {
            self.forget(stream_id);
        }
    }

    fn forget(&mut self, stream_id: u64) {
        let connection = &mut *self.connection;
        let extent = connection.core.extent(stream_id);
        let Some(stream) = connection.streams.remove(&stream_id) else { return };
        connection.backlog.shrink(stream.sending.queue.len());
        connection.buffered -= stream.receiving.buffer.len();
        connection.core.forget(stream_id, stream.sending.pushed);
        let Some(session_id) = stream.life.session_id else { return };
        if let Some(moved) = connection.sessions.members_mut().remove(session_id, stream.life.place)
            && let Some(other) = connection.streams.get_mut(&moved)
        {
            other.life.place = stream.life.place;
        }
        if stream.life.is_from_peer {
            let bytes = extent.end.saturating_sub(stream.receiving.header_length);
            connection.sessions.note_early(session_id, direction(stream_id), bytes);
        }
    }

    // ---------------------------------------------------------------- streams

    /// Open a stream whose first bytes are `header`; `None` without credit. `session` `None` makes a raw stream.
    pub fn open_stream(&mut self, bidirectional: bool, header: &[u8], session: Option<u64>) -> Option<u64> {
        let connection = &mut *self.connection;
        connection.core.wants_transmit = true;
        let direction = direction_index(bidirectional);
        if connection.is_closed {
            return None;
        }
        if let Some(session_id) = session
            && let Some(ledger) = connection.sessions.get_mut(session_id)
            && !ledger.may_open(direction)
        {
            if let Some(limit) = ledger.note_streams_blocked(direction) {
                let connection = connection.id;
                self.events.push(Event::StreamsBlocked { connection, session: session_id, bidirectional, limit });
            }
            connection.streams_wanted[direction] = true;
            return None;
        }
        let Some(stream_id) = connection.core.open(bidirectional) else {
            connection.streams_wanted[direction] = true;
            return None;
        };
        if let Some(ledger) = connection.sessions.of_mut(session) {
            ledger.count_opened(direction);
        }
        let phase = if session.is_some() { Phase::Data } else { Phase::Raw };
        let mut stream = Box::new(Stream::new(self.now, phase, false, bidirectional, true));
        let Stream { life, sending, .. } = &mut *stream;
        life.session_id = session;
        if let Some(session_id) = session {
            connection.core.note_session_stream(stream_id, session_id, true);
            life.place = connection.sessions.members_mut().add(session_id, stream_id);
        }
        life.has_handle = true;
        let length = header.len().min(HEADER_LIMIT);
        sending.header[..length].copy_from_slice(&header[..length]);
        sending.header_length = length as u64;
        sending.served = connection.backlog.schedule.latest();
        sending.queue.push(header);
        connection.backlog.grow(header.len());
        if !header.is_empty() {
            connection.backlog.list(stream_id, sending, life, &connection.sessions);
        }
        connection.streams.insert(stream_id, stream);
        Some(stream_id)
    }

    /// Report [`Event::StreamsAvailable`] when there may be credit. False: the connection is over.
    pub fn want_streams(&mut self, bidirectional: bool) -> bool {
        self.connection.streams_wanted[direction_index(bidirectional)] = true;
        !self.connection.is_closed
    }

    fn wake_openers(&mut self, bidirectional: bool) {
        if std::mem::take(&mut self.connection.streams_wanted[direction_index(bidirectional)]) {
            self.events.push(Event::StreamsAvailable { connection: self.connection.id, bidirectional });
        }
    }

    /// Nobody refers to the stream any more: what is still open is stopped and reset with `code`, what is done forgotten.
    pub fn release(&mut self, stream_id: u64, code: u64) {
        let connection = &mut *self.connection;
        connection.core.wants_transmit = true;
        let Some(stream) = connection.streams.get_mut(&stream_id) else { return };
        stream.life.has_handle = false;
        stream.receiving.read_interest = false;
        stream.sending.acked_interest = false;
        stream.sending.stop_interest = false;
        if stream.sending.state == SendState::Open {
            self.stop_and_reset(stream_id, code);
        } else if let Some(mut half) = self.receiving(stream_id) {
            half.abandon(code);
        }
        self.forget_if_done(stream_id);
    }

    /// Streams the engine still keeps state of.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.connection.streams.len()
    }

    /// Streams that the QUIC core keeps: those on which we send, and the peer's, bidirectional and unidirectional. With
    /// all streams over they are zero.
    pub fn core_streams(&mut self) -> [u64; 3] {
        self.connection.core.streams()
    }

    /// Figures of a stream for diagnostics.
    #[must_use]
    pub fn stream_stats(&self, stream_id: u64) -> Option<StreamStats> {
        let core = &self.connection.core;
        let stream = self.connection.streams.get(&stream_id)?;
        Some(stream.stats(self.now, core.received(stream_id), core.progress(stream_id)))
    }

    // ---------------------------------------------------------------- flushing

    /// Give queued bytes to the core: a quantum of each stream in the order of service, until the core takes no more.
    pub(crate) fn flush(&mut self) {
        if !self.connection.is_closed {
            self.flush_datagrams();
        }
        while let Some(stream_id) = self.connection.backlog.schedule.next() {
            if let Some(mut half) = self.sending(stream_id) {
                half.flush();
            }
        }
    }

    /// After packets were sent: wake writers whose queue has room again.
    pub(crate) fn wake_writers(&mut self) {
        let Connection { id, core, streams, sessions, backlog, .. } = &mut *self.connection;
        if backlog.has_writers() {
            let woken = backlog.take_writers(streams, sessions, |stream_id| core.progress(stream_id).0);
            self.events.extend(woken.into_iter().map(|stream| Event::Writable { connection: *id, stream }));
        }
    }

    // ---------------------------------------------------------------- sessions

    /// Register a session.
    pub fn add_session(&mut self, session_id: u64, limits: SessionLimits) {
        let present = self.connection.sessions.members().of(session_id).to_vec();
        let mut peer_streams = [0; 2];
        for stream_id in &present {
            if self.connection.streams.get(stream_id).is_some_and(|stream| stream.life.is_from_peer) {
                peer_streams[direction(*stream_id)] += 1;
            }
        }
        let unacked = self.finished_streams(session_id);
        let connection = &mut *self.connection;
        let due = connection.sessions.register(session_id, limits, peer_streams, unacked);
        let sessions = &mut connection.sessions;
        connection.early.take(session_id, |data| drop(sessions.keep_datagram(session_id, data)));
        let (connection, session) = (connection.id, session_id);
        if due.is_exceeded {
            self.events.push(Event::CreditExceeded { connection, session });
        }
        if let Some(limit) = due.limit {
            self.events.push(Event::CreditDue { connection, session, limit });
        }
        for bidirectional in [true, false] {
            if let Some(limit) = due.stream_limits[direction_index(bidirectional)] {
                self.events.push(Event::StreamsDue { connection, session, bidirectional, limit });
            }
        }
        for stream_id in present {
            let extent = self.connection.core.extent(stream_id);
            if let Some(mut half) = self.receiving(stream_id) {
                half.account(extent);
            }
            self.forget_if_done(stream_id);
        }
    }

    /// The peer's WT_MAX_DATA.
    pub fn set_send_limit(&mut self, session_id: u64, limit: u64) {
        self.connection.core.wants_transmit = true;
        let Some(session) = self.connection.sessions.get_mut(session_id) else { return };
        session.limits.send_limit = limit;
        for stream_id in self.connection.sessions.members().of(session_id).to_vec() {
            if let Some(mut half) = self.sending(stream_id)
                && !half.half.queue.is_empty()
            {
                half.list();
            }
        }
    }

    /// The peer's WT_MAX_STREAMS.
    pub fn set_send_streams(&mut self, session_id: u64, bidirectional: bool, limit: u64) {
        if let Some(session) = self.connection.sessions.get_mut(session_id) {
            session.limits.send_streams[direction_index(bidirectional)] = limit;
        }
        self.wake_openers(bidirectional);
        self.connection.core.wants_transmit = true;
    }

    /// Close all data streams of a session with `code` and wake everybody who waits for something of it.
    pub fn end_session(&mut self, session_id: u64, code: u64) {
        self.connection.peer_credit.owe();
        let connection = self.connection.id;
        if let Some(session) = self.connection.sessions.end(session_id, code) {
            if session.datagrams.interest {
                self.events.push(Event::DatagramReadable { connection, session: session_id });
            }
            if session.acked_interest {
                self.events.push(Event::SessionAcked { connection, session: session_id });
            }
        }
        self.connection.early.take(session_id, drop);
        for stream_id in self.connection.sessions.members().of(session_id).to_vec() {
            // STOP_SENDING before the reset, as everywhere.
            if let Some(mut half) = self.receiving(stream_id) {
                half.end(code);
            }
            if let Some(mut half) = self.sending(stream_id) {
                half.abandon(code);
                half.wake();
            }
            if let Some(mut half) = self.receiving(stream_id) {
                half.wake();
            }
            self.forget_if_done(stream_id);
        }
        for bidirectional in [true, false] {
            self.wake_openers(bidirectional);
        }
        self.connection.core.wants_transmit = true;
    }

    /// Finished streams of a session that are not fully acknowledged.
    #[must_use]
    pub fn unacked_streams(&self, session_id: u64) -> usize {
        if self.connection.is_closed { 0 } else { self.count_unacked(session_id) }
    }

    fn count_unacked(&self, session_id: u64) -> usize {
        let session = self.connection.sessions.get(session_id);
        let count = session.map_or(0, |session| session.unacked);
        debug_assert!(self.connection.is_closed || session.is_none() || count == self.finished_streams(session_id));
        count
    }

    fn finished_streams(&self, session_id: u64) -> usize {
        let streams = &self.connection.streams;
        let members = self.connection.sessions.members().of(session_id).iter().filter_map(|id| streams.get(id));
        members.filter(|stream| stream.sending.state == SendState::Finished).count()
    }

    /// Ask for [`Event::SessionAcked`]. False: nothing is outstanding.
    pub fn want_session_acked(&mut self, session_id: u64) -> bool {
        let is_outstanding = self.unacked_streams(session_id) > 0;
        match self.connection.sessions.get_mut(session_id) {
            Some(session) if is_outstanding => {
                session.acked_interest = true;
                true
            }
            _ => false,
        }
    }

    /// Where the flow control of a session stands.
    #[must_use]
    pub fn credit(&self, session_id: u64) -> Option<Credit> {
        self.connection.sessions.get(session_id).map(|session| session.credit())
    }

    // ---------------------------------------------------------------- datagrams

    /// Largest QUIC DATAGRAM payload on the current path, the session's ID in front included.
    pub fn max_datagram(&mut self) -> Option<usize> {
        if self.connection.is_closed { None } else { self.connection.core.max_datagram() }
    }

    // ---------------------------------------------------------------- the connection itself

    /// Close the connection with an application error code.
    pub fn close(&mut self, code: u64, reason: &[u8]) {
        if self.connection.is_closed {
            return;
        }
        self.poll_events();
        self.flush();
        self.connection.core.close(self.now, code, reason);
        self.lose(CloseCause::Local, code, String::from_utf8_lossy(reason).into_owned());
        self.connection.core.wants_transmit = true;
    }

    /// Whether the connection is a client's.
    #[must_use]
    pub fn is_client(&self) -> bool {
        self.connection.core.is_client()
    }

    /// The peer's address.
    #[must_use]
    pub fn remote_address(&self) -> std::net::SocketAddr {
        self.connection.core.remote_address()
    }

    /// SNI name the client sent (server only, once the handshake has begun).
    #[must_use]
    pub fn server_name(&self) -> Option<String> {
        self.connection.core.server_name()
    }

    /// The peer's transport parameters in the order in which they came: (id, value). `None` before they are known: a
    /// server knows them with [`Event::Ready`], a client with [`Event::Connected`].
    #[must_use]
    pub fn peer_parameters(&self) -> Option<Vec<(u64, Vec<u8>)>> {
        self.connection.core.peer_parameters()
    }

    /// The peer's certificate chain in DER, leaf first.
    #[must_use]
    pub fn peer_certificates(&self) -> Vec<Vec<u8>> {
        self.connection.core.peer_certificates()
    }

    /// Keying material of the TLS session (RFC 5705), or `None` when it cannot be had.
    #[must_use]
    pub fn export_keying_material(&self, label: &[u8], context: &[u8], length: usize) -> Option<Vec<u8>> {
        self.connection.core.export_keying_material(label, context, length)
    }

    /// How many updates of the keys for application data have begun, by either side.
    #[must_use]
    pub fn key_updates(&self) -> u64 {
        self.connection.core.key_updates()
    }

    /// Begin to use new keys for application data (RFC 9001, section 6). The core does so by itself, for the first time early on.
    /// Nothing checks that the peer has acknowledged a packet with the keys in use (section 6.1).
    pub fn update_keys(&mut self) {
        self.connection.core.update_keys();
        self.connection.core.wants_transmit = true;
    }

    /// What is known of the connection by now, for reports.
    pub fn facts(&mut self) -> ConnectionFacts {
        let connection = &mut *self.connection;
        let mut facts = connection.core.facts();
        facts.is_closed_by_peer = connection.is_closed_by_peer;
        if let Some(refusal) = &connection.refusal {
            // TLS forgets a chain that was refused.
            facts.is_refused = true;
            facts.certificates.clone_from(&refusal.chain);
        }
        facts
    }

    /// Figures of the connection.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.connection.core.stats()
    }
}
