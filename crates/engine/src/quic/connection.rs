//! One QUIC connection with its streams, sessions and datagrams.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{ConnectionHandle, Dir, ReadError, Side, StreamEvent, StreamId, VarInt, WriteError};
use rustc_hash::FxHashMap;
use rustls::pki_types::CertificateDer;

use super::{
    allowance::Allowance,
    ecn::Marking,
    handshake::{self, TapHandle},
    tap::{Extent, STOP_UNSEEN, Tap},
};
use crate::{
    buffer::SendQueue,
    config::Options,
    event::{CloseCause, ConnectionFacts, Event},
    header::{self, HEADER_LIMIT, Header},
    members::Members,
    session::{Credit, DatagramStats, EarlyLedger, Session, SessionLimits},
    stream::{Phase, ReadOutcome, ReceiveState, SendState, Stream, StreamStats},
    tls::{self, Refusal},
    varint,
};

/// Largest quarter stream id (RFC 9297, section 2.1).
const QUARTER_ID_LIMIT: u64 = (1 << 60) - 1;
/// Bytes one stream may hand to the core before the next stream has its turn.
const QUANTUM: usize = 64 * 1024;
/// Pieces below this size are copied, so that they do not keep a whole receive buffer, or what a writer gave, alive.
const COPY_BELOW: usize = 4096;
/// Bytes a stream may queue even when the connection's queue is full.
const STREAM_RESERVE: usize = 16 * 1024;
/// Held resets tried again after each packet.
const HELD_PER_TURN: usize = 64;
/// Ended sessions remembered, to answer late streams; the oldest are forgotten.
const ENDED_SESSIONS: usize = 4096;
/// Sessions that were never asked for, of whose streams the counts are kept.
const EARLY_LEDGERS: usize = 256;

/// The turn in which a session or stream was last served, and its number.
type Turn<Number> = (u64, Number);

pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) inner: quinn_proto::Connection,
    pub(crate) handle: ConnectionHandle,
    pub(super) tap: Arc<Tap>,
    pub(super) marking: Marking,
    /// A server's.
    pub(super) allowance: Option<Allowance>,
    pub(crate) streams: FxHashMap<u64, Box<Stream>>,
    pub(super) members: Members,
    sessions: FxHashMap<u64, Box<Session>>,
    ended: FxHashMap<u64, u64>,
    ended_order: VecDeque<u64>,
    early: VecDeque<(u64, Bytes)>,
    /// Streams that were turned away before their session was registered: its flow control has to count them.
    early_ledgers: FxHashMap<u64, EarlyLedger>,
    outgoing: VecDeque<(Instant, u64, Bytes)>,
    outgoing_bytes: usize,
    /// Streams with something to hand to the core. Whoever was not served for longest comes first: the session first,
    /// so that many streams get it no more than one would, then the stream.
    flush: BTreeMap<Turn<Option<u64>>, BTreeSet<Turn<u64>>>,
    /// Times that a stream was served.
    turn: u64,
    /// Streams somebody waits to write to.
    writers: Vec<u64>,
    queued: usize,
    /// Streams with a held reset, in turn.
    held: VecDeque<u64>,
    /// Streams of which the peer promised bytes before its reset, until they are here.
    promised: Vec<u64>,
    streams_wanted: [bool; 2],
    /// Streams (bidirectional, unidirectional) that the peer may have open at once.
    streams_allowed: [u64; 2],
    /// A session has ended, and credit that comes back with it may not be announced yet.
    owes_credit: bool,
    /// Streams of the peer (bidirectional, unidirectional) that the core kept when credit was last announced for that.
    kept_by_core: [u64; 2],
    pub(crate) is_connected: bool,
    pub(crate) is_closed: bool,
    is_closed_by_peer: bool,
    refusal: Refusal,
    /// The core's endpoint has forgotten the connection.
    pub(crate) is_settled: bool,
    pub(crate) timer: Option<Instant>,
    pub(crate) listed: bool,
    options: Arc<Options>,
    /// There is something to send that the core or the engine found outside of sending, such as freed credit.
    pub(crate) wants_transmit: bool,
    scratch: Vec<u64>,
    grown: Vec<(u64, Extent)>,
}

fn direction_index(bidirectional: bool) -> usize {
    usize::from(!bidirectional)
}

/// A finished stream of the session has nothing left that could be acknowledged.
fn count_acked(sessions: &mut FxHashMap<u64, Box<Session>>, stream: &Stream) {
    if let Some(session) = stream.session.and_then(|number| sessions.get_mut(&number)) {
        session.unacked -= 1;
    }
}

pub(crate) fn wire(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

impl Conn {
    pub(crate) fn new(
        id: u64,
        handle: ConnectionHandle,
        inner: quinn_proto::Connection,
        options: Arc<Options>,
    ) -> Self {
        let tap = inner
            .crypto_session()
            .handshake_data()
            .and_then(|data| data.downcast::<TapHandle>().ok())
            .map_or_else(|| Arc::new(Tap::new(inner.side(), false)), |handle| handle.tap);
        let marking = Marking::new(inner.remote_address());
        Self {
            id,
            inner,
            handle,
            tap,
            marking,
            allowance: None,
            streams: FxHashMap::default(),
            members: Members::default(),
            sessions: FxHashMap::default(),
            ended: FxHashMap::default(),
            ended_order: VecDeque::new(),
            early: VecDeque::new(),
            early_ledgers: FxHashMap::default(),
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            flush: BTreeMap::new(),
            turn: 0,
            writers: Vec::new(),
            queued: 0,
            held: VecDeque::new(),
            promised: Vec::new(),
            streams_wanted: [false; 2],
            streams_allowed: [options.max_bidirectional_streams, options.max_unidirectional_streams],
            owes_credit: false,
            kept_by_core: [0; 2],
            is_connected: false,
            is_closed: false,
            is_closed_by_peer: false,
            refusal: Refusal::default(),
            is_settled: false,
            timer: None,
            listed: false,
            options,
            wants_transmit: false,
            scratch: Vec::new(),
            grown: Vec::new(),
        }
    }

    // ---------------------------------------------------------------- events of the core

    /// Take over what the core reports after a packet or a timer.
    pub(crate) fn poll_events(&mut self, now: Instant, events: &mut Vec<Event>) {
        while let Some(event) = self.inner.poll() {
            match event {
                quinn_proto::Event::HandshakeDataReady => {
                    if !self.is_client() {
                        events.push(Event::Ready { connection: self.id });
                    }
                }
                quinn_proto::Event::Connected => {
                    self.is_connected = true;
                    events.push(Event::Connected { connection: self.id });
                }
                quinn_proto::Event::ConnectionLost { reason } => {
                    use quinn_proto::ConnectionError::{ApplicationClosed, ConnectionClosed};
                    self.is_closed_by_peer = matches!(reason, ConnectionClosed(_) | ApplicationClosed(_));
                    let (cause, code, reason) = super::describe(reason);
                    self.lose(now, cause, code, reason, events);
                }
                quinn_proto::Event::Stream(event) => self.stream_event(now, event, events),
                quinn_proto::Event::DatagramReceived => self.take_datagrams(events),
                quinn_proto::Event::DatagramsUnblocked => {}
            }
        }
        // Most packets bring nothing of that.
        if self.tap.has_news() || !self.held.is_empty() || !self.promised.is_empty() {
            self.note_acknowledged(now, events);
            self.settle_resets(now, events);
            self.note_arrived(events);
        }
        if self.owes_credit && !self.is_closed {
            self.announce_credit();
        }
    }

    /// From now on, announce credit that comes back as it does.
    fn owe_credit(&mut self) {
        self.owes_credit = true;
        self.kept_by_core = [u64::MAX; 2];
    }

    /// Announce all the credit that came back since a session ended. The core keeps up to an eighth for later, which the
    /// sessions of a connection would lack together.
    fn announce_credit(&mut self) {
        let [_, bidirectional, unidirectional] = self.core_streams();
        let kept = [bidirectional, unidirectional];
        if kept == self.kept_by_core {
            return;
        }
        self.kept_by_core = kept;
        for (direction, dir) in [(0, Dir::Bi), (1, Dir::Uni)] {
            self.announce_streams(dir, self.streams_allowed[direction]);
        }
        let window = self.options.connection_receive_window;
        self.inner.set_receive_window(wire(window + 1));
        self.inner.set_receive_window(wire(window));
        self.wants_transmit = true;
        // What the core keeps beyond the streams of other sessions is stopped and has not come to its end.
        let mut others = [0; 2];
        for (id, stream) in self.streams.iter().filter(|(_, stream)| stream.peer_initiated) {
            let is_bidirectional = StreamId::from(wire(*id)).dir() == Dir::Bi;
            let stays = match stream.session {
                Some(number) => !self.ended.contains_key(&number),
                // Of a stream whose header has not come nobody knows whether it is one of them. A request is over with
                // its session, though its peer may end it later; other raw streams last as long as the connection.
                None if is_bidirectional => self.sessions.contains_key(id),
                None => matches!(stream.phase, Phase::Raw) && stream.receive == ReceiveState::Open,
            };
            others[direction_index(is_bidirectional)] += u64::from(stays);
        }
        self.owes_credit = (0..2).any(|direction| kept[direction] > others[direction]);
    }

    /// Let the peer have so many streams open, and tell it at once how many it may open in all.
    fn announce_streams(&mut self, dir: Dir, most: u64) {
        // A limit of none makes any difference one that the core announces; the peer sees only what comes of both.
        self.inner.set_max_concurrent_streams(dir, wire(0));
        self.inner.set_max_concurrent_streams(dir, wire(most));
    }

    fn stream_event(&mut self, now: Instant, event: StreamEvent, events: &mut Vec<Event>) {
        match event {
            // Unidirectional streams first: where SETTINGS come with requests, the layer above needs them to answer.
            StreamEvent::Opened { .. } => {
                for dir in [Dir::Uni, Dir::Bi] {
                    while let Some(id) = self.inner.streams().accept(dir) {
                        self.opened(now, u64::from(id), dir == Dir::Bi, events);
                    }
                }
            }
            StreamEvent::Readable { id } => self.readable(now, u64::from(id), events),
            StreamEvent::Writable { id } => self.list_flush(u64::from(id)),
            StreamEvent::Finished { id } => self.finished(now, u64::from(id), events),
            StreamEvent::Stopped { id, error_code } => self.stopped(now, u64::from(id), error_code.into(), events),
            StreamEvent::Available { dir } => {
                if std::mem::take(&mut self.streams_wanted[direction_index(dir == Dir::Bi)]) {
                    events.push(Event::StreamsAvailable { connection: self.id, bidirectional: dir == Dir::Bi });
                }
            }
        }
    }

    /// The peer has opened a stream.
    fn opened(&mut self, now: Instant, id: u64, bidirectional: bool, events: &mut Vec<Event>) {
        if bidirectional {
            self.tap.register(id);
        }
        self.tap.register_receiving(id);
        let stream = Stream::new(now, Phase::Header(BytesMut::new()), true, true, bidirectional);
        self.streams.insert(id, Box::new(stream));
        self.read_header(now, id, events);
    }

    fn readable(&mut self, now: Instant, id: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.phase {
            Phase::Header(_) => self.read_header(now, id, events),
            Phase::Raw => {
                if !std::mem::replace(&mut stream.raw_notified, true) {
                    events.push(Event::RawReadable { connection: self.id, stream: id });
                }
            }
            Phase::Data => {
                stream.first_byte.get_or_insert(now);
                if std::mem::take(&mut stream.read_interest) {
                    events.push(Event::Readable { connection: self.id, stream: id });
                } else {
                    stream.has_news = true;
                }
            }
        }
    }

    /// Read the one or two varints at the head of a peer's stream, as far as they have arrived.
    fn read_header(&mut self, now: Instant, id: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Phase::Header(head) = &mut stream.phase else { return };
        let stream_id = StreamId::from(wire(id));
        let mut ended = false;
        loop {
            let found = header::read(head, stream_id.dir() == Dir::Bi);
            if found == Header::Raw {
                break;
            }
            if let Header::Data { session, length } = found {
                let rest = std::mem::take(head).freeze().slice(length..);
                stream.buffer.push(rest);
                stream.phase = Phase::Data;
                stream.receive_header = length as u64;
                self.tap.set_header(id, length as u64);
                if ended {
                    stream.pending_end = Some(ReceiveState::Ended);
                }
                self.announce(now, id, session, events);
                return;
            }
            if ended {
                break;
            }
            let mut stream_reader = self.inner.recv_stream(stream_id);
            let Ok(mut chunks) = stream_reader.read(true) else { return };
            match chunks.next(HEADER_LIMIT) {
                Ok(Some(chunk)) => head.extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    ended = true;
                    if let Some(reset) = self.tap.reset_of(id) {
                        // All that the peer sent before its reset, and not a whole header.
                        drop(chunks);
                        self.abandon(id, reset.code, events);
                        return;
                    }
                }
                Err(ReadError::Blocked) => return,
                Err(ReadError::Reset(code)) => {
                    drop(chunks);
                    self.abandon(id, code.into(), events);
                    return;
                }
            }
            let _ = chunks.finalize();
        }
        let rest = std::mem::take(head).freeze();
        stream.buffer.push(rest);
        stream.phase = Phase::Raw;
        stream.has_handle = true;
        stream.raw_notified = true;
        if ended {
            stream.pending_end = Some(ReceiveState::Ended);
        }
        events.push(Event::RawStream { connection: self.id, stream: id });
        events.push(Event::RawReadable { connection: self.id, stream: id });
    }

    /// Let go of a stream of the peer that was reset before it showed whose it is. Our half goes too.
    fn abandon(&mut self, id: u64, code: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.receive = ReceiveState::Reset(code);
        if stream.send == SendState::Open {
            stream.send = SendState::Reset(code);
            let _ = self.inner.send_stream(StreamId::from(wire(id))).reset(wire(code));
        }
        self.tap.settle(id);
        self.forget_if_done(id, events);
    }

    /// A data stream of the peer has shown its session.
    fn announce(&mut self, now: Instant, id: u64, session: u64, events: &mut Vec<Event>) {
        if let Some(&code) = self.ended.get(&session) {
            // It was on its way when the session ended, and its credit comes back now.
            self.owe_credit();
            self.stop(now, id, code, events);
            self.reset(now, id, code);
            self.forget_if_done(id, events);
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.session = Some(session);
        stream.place = self.members.add(session, id);
        stream.has_handle = true;
        if self.tap.received(id) > stream.receive_header {
            stream.first_byte = Some(now);
        }
        let direction = direction_index(StreamId::from(wire(id)).dir() == Dir::Bi);
        if self.sessions.get_mut(&session).is_some_and(|ledger| ledger.count_peer_opened(direction)) {
            events.push(Event::CreditExceeded { connection: self.id, session });
        }
        self.account(id, events);
        events.push(Event::Stream { connection: self.id, stream: id, session });
    }

    /// Streams of which more arrived, or of which the end is known now.
    fn note_arrived(&mut self, events: &mut Vec<Event>) {
        let mut grown = std::mem::take(&mut self.grown);
        self.tap.take_grown(&mut grown);
        for (id, extent) in grown.drain(..) {
            self.account_to(id, extent, events);
            self.forget_if_done(id, events);
        }
        self.grown = grown;
    }

    /// Bring the session's ledger up to what has arrived on a stream.
    fn account(&mut self, id: u64, events: &mut Vec<Event>) {
        self.account_to(id, self.tap.extent(id), events);
    }

    /// The same for a stream that is known to reach so far.
    fn account_to(&mut self, id: u64, extent: Extent, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !matches!(stream.phase, Phase::Data) {
            return;
        }
        stream.is_extent_final = extent.is_final;
        stream.was_reset = extent.is_reset;
        let arrived = extent.end.saturating_sub(stream.receive_header);
        if let Some(number) = stream.session
            && let Some(session) = self.sessions.get_mut(&number)
        {
            let more = arrived.saturating_sub(stream.arrived);
            stream.arrived += more;
            if session.count_arrived(more) {
                events.push(Event::CreditExceeded { connection: self.id, session: number });
            }
        }
        self.give_credit(id, events);
    }

    /// Give the session credit for what was read of a stream or never will be.
    fn give_credit(&mut self, id: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(number) = stream.session else { return };
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let more = stream.past_reading().saturating_sub(stream.consumed);
        if more == 0 {
            return;
        }
        stream.consumed += more;
        if let Some(limit) = session.count_consumed(more) {
            events.push(Event::CreditDue { connection: self.id, session: number, limit });
        }
    }

    fn finished(&mut self, now: Instant, id: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.send == SendState::Finished {
            count_acked(&mut self.sessions, stream);
            stream.send = SendState::Acked;
        }
        stream.held_reset = None;
        stream.settle_ended(now);
        self.wake_sender(id, events);
        self.note_session_acked(id, events);
        self.forget_if_done(id, events);
    }

    fn stopped(&mut self, now: Instant, id: u64, code: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !matches!(stream.send, SendState::Open | SendState::Finished) {
            return;
        }
        if stream.send == SendState::Finished {
            count_acked(&mut self.sessions, stream);
        }
        stream.send = SendState::Stopped(code);
        self.queued -= stream.queue.clear();
        if matches!(stream.phase, Phase::Raw) {
            events.push(Event::RawStopped { connection: self.id, stream: id, code });
        }
        stream.settle_ended(now);
        // RFC 9000, section 3.5: STOP_SENDING is answered with a reset that carries the same code.
        self.reset_core(id, code);
        self.wake_sender(id, events);
        self.note_session_acked(id, events);
        self.forget_if_done(id, events);
    }

    /// Streams whose acknowledged prefix grew: held resets may go, waiters may wake.
    fn note_acknowledged(&mut self, now: Instant, events: &mut Vec<Event>) {
        let mut advanced = std::mem::take(&mut self.scratch);
        self.tap.take_advanced(&mut advanced);
        for id in advanced.drain(..) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.held_reset.is_some() {
                self.send_held(now, id, events);
                continue;
            }
            if !stream.acked_interest {
                continue;
            }
            let (_, acked) = self.tap.progress(id);
            // With the end given, the core's own event tells when that too is acknowledged.
            if stream.send == SendState::Open
                && stream.acked_interest
                && stream.queue.is_empty()
                && acked >= stream.pushed
            {
                stream.acked_interest = false;
                events.push(Event::Acked { connection: self.id, stream: id });
            }
        }
        self.scratch = advanced;
        // Resets that were acknowledged made room for others, and headers that were queued are with the core.
        for _ in 0..self.held.len().min(HELD_PER_TURN) {
            let Some(id) = self.held.pop_front() else { break };
            if self.send_held(now, id, events) {
                self.held.push_back(id);
            }
        }
    }

    /// Try to send a held reset; whether it has to be held further.
    fn send_held(&mut self, now: Instant, id: u64, events: &mut Vec<Event>) -> bool {
        let Some(code) = self.streams.get(&id).and_then(|s| s.held_reset) else { return false };
        if !self.give_reset(id, code) {
            return true;
        }
        self.wants_transmit = true;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.held_reset = None;
            stream.settle_ended(now);
        }
        self.forget_if_done(id, events);
        false
    }

    /// Act on resets of the peer that promised bytes: when those are here, the stream's reader gets them and then the
    /// reset.
    fn settle_resets(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.tap.take_resets(&mut self.promised);
        for id in std::mem::take(&mut self.promised) {
            let Some(reset) = self.tap.reset_of(id) else { continue };
            if !self.keep_promise(now, id, reset.reliable.unwrap_or(0), events) {
                self.promised.push(id);
                continue;
            }
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            self.tap.settle(id);
            stream.is_kept_by_core = true;
            if matches!(stream.phase, Phase::Header(_)) {
                self.let_core_forget(id);
                self.abandon(id, reset.code, events);
            } else if stream.receive == ReceiveState::Open && stream.pending_end.is_none() {
                stream.pending_end = Some(ReceiveState::Reset(reset.code));
                stream.settle_receive(now);
                self.account(id, events);
                self.readable(now, id, events);
            } else {
                self.let_core_forget(id);
                self.forget_if_done(id, events);
            }
        }
    }

    /// Give the core's credit for a stream back, of which the reader has seen the reset or which nobody reads.
    ///
    /// Not before: a peer could open and reset streams without end while nobody takes them.
    fn let_core_forget(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !std::mem::take(&mut stream.is_kept_by_core) {
            return;
        }
        self.wants_transmit = true;
        let mut half = self.inner.recv_stream(StreamId::from(wire(id)));
        let Ok(mut chunks) = half.read(true) else { return };
        let is_read_out = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(_)) => {}
                Ok(None) | Err(ReadError::Reset(_)) => break true,
                Err(ReadError::Blocked) => break false,
            }
        };
        let _ = chunks.finalize();
        if !is_read_out {
            // The rest may never come; the core has to know that nobody waits for it.
            self.tap.expect_unseen_stop();
            let _ = half.stop(wire(STOP_UNSEEN));
        }
    }

    /// Take over what a reset promised; whether all of it is here, or nobody wants it any more.
    fn keep_promise(&mut self, now: Instant, id: u64, reliable: u64, events: &mut Vec<Event>) -> bool {
        let Some(stream) = self.streams.get(&id) else { return true };
        let had = stream.buffer.len();
        match &stream.phase {
            // A header that is longer than what was promised need not come.
            Phase::Header(head) => return stream.receive != ReceiveState::Open || head.len() as u64 >= reliable,
            _ if stream.receive != ReceiveState::Open || stream.pending_end.is_some() => return true,
            _ => {
                let want = reliable.saturating_sub(stream.receive_header + stream.read);
                self.pull(now, id, usize::try_from(want).unwrap_or(usize::MAX), events);
            }
        }
        let Some(stream) = self.streams.get(&id) else { return true };
        let has = stream.buffer.len();
        let is_kept = stream.pending_end.is_some() || stream.receive_header + stream.read + has as u64 >= reliable;
        if has > had {
            self.readable(now, id, events);
        }
        is_kept
    }

    fn note_session_acked(&mut self, id: u64, events: &mut Vec<Event>) {
        let Some(number) = self.streams.get(&id).and_then(|s| s.session) else { return };
        if !self.sessions.get(&number).is_some_and(|s| s.acked_interest) || self.unacked_streams(number) > 0 {
            return;
        }
        if let Some(session) = self.sessions.get_mut(&number) {
            session.acked_interest = false;
            events.push(Event::SessionAcked { connection: self.id, session: number });
        }
    }

    fn wake_sender(&mut self, id: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if std::mem::take(&mut stream.write_interest) {
            events.push(Event::Writable { connection: self.id, stream: id });
        }
        if std::mem::take(&mut stream.acked_interest) {
            events.push(Event::Acked { connection: self.id, stream: id });
        }
        if std::mem::take(&mut stream.stop_interest) {
            events.push(Event::Stopped { connection: self.id, stream: id });
        }
    }

    /// The peer has stopped the stream, or has no reason to any more.
    pub(crate) fn wake_stopped(&mut self, id: u64, events: &mut Vec<Event>) {
        if self.streams.get_mut(&id).is_some_and(|stream| std::mem::take(&mut stream.stop_interest)) {
            events.push(Event::Stopped { connection: self.id, stream: id });
        }
    }

    fn wake_all(&mut self, id: u64, events: &mut Vec<Event>) {
        self.wake_sender(id, events);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if std::mem::take(&mut stream.read_interest) {
            events.push(Event::Readable { connection: self.id, stream: id });
        }
    }

    /// The connection is over: what has arrived stays readable, everybody wakes.
    pub(crate) fn lose(&mut self, now: Instant, cause: CloseCause, code: u64, reason: String, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        if cause == CloseCause::Tls && self.is_client() {
            self.refusal = tls::take_refusal();
        }
        let reason = if self.refusal.words.is_empty() { reason } else { self.refusal.words.clone() };
        let facts = Box::new(self.facts());
        let ids: Vec<u64> = self.streams.keys().copied().collect();
        for id in ids {
            self.pull(now, id, usize::MAX, events);
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.receive == ReceiveState::Open {
                stream.pending_end.get_or_insert(ReceiveState::Gone);
                stream.settle_receive(now);
            }
            if matches!(stream.send, SendState::Open | SendState::Finished) {
                stream.send = SendState::Gone;
            }
            stream.held_reset = None;
            self.queued -= stream.queue.clear();
            stream.settle_ended(now);
            if matches!(stream.phase, Phase::Raw) && !std::mem::replace(&mut stream.raw_notified, true) {
                events.push(Event::RawReadable { connection: self.id, stream: id });
            }
            self.wake_all(id, events);
            self.forget_if_done(id, events);
        }
        for (&session, state) in &mut self.sessions {
            if std::mem::take(&mut state.datagram_interest) {
                events.push(Event::DatagramReadable { connection: self.id, session });
            }
            if std::mem::take(&mut state.acked_interest) {
                events.push(Event::SessionAcked { connection: self.id, session });
            }
        }
        for bidirectional in [true, false] {
            if std::mem::take(&mut self.streams_wanted[direction_index(bidirectional)]) {
                events.push(Event::StreamsAvailable { connection: self.id, bidirectional });
            }
        }
        self.outgoing.clear();
        self.outgoing_bytes = 0;
        self.early.clear();
        self.early_ledgers.clear();
        events.push(Event::Closed { connection: self.id, cause, code, reason, facts });
    }

    /// What is known by now, for people.
    pub(crate) fn facts(&mut self) -> ConnectionFacts {
        let session = self.inner.crypto_session();
        let chain = || Some(*session.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?);
        let certificates = match &self.refusal.chain[..] {
            [] => chain().unwrap_or_default().iter().map(|certificate| certificate.as_ref().to_vec()).collect(),
            refused => refused.to_vec(),
        };
        let handle = session.handshake_data().and_then(|data| data.downcast::<TapHandle>().ok());
        let (alpn, cipher, server_name) =
            handle.map_or((None, None, None), |handle| (handle.alpn, handle.cipher, handle.server_name));
        let parameters = self
            .tap
            .peer_parameters()
            .map(|raw| handshake::parameters(raw).into_iter().map(|(id, value)| (id, value.to_vec())).collect());
        let stats = self.inner.stats();
        ConnectionFacts {
            remote: self.inner.remote_address(),
            alpn,
            cipher,
            server_name,
            parameters,
            certificates,
            is_refused: !self.refusal.chain.is_empty(),
            is_closed_by_peer: self.is_closed_by_peer,
            max_datagram: self.inner.datagrams().max_size(),
            mtu: stats.path.current_mtu,
            datagrams_sent: stats.udp_tx.datagrams,
            datagrams_received: stats.udp_rx.datagrams,
        }
    }

    // ---------------------------------------------------------------- streams, receiving

    /// Move contiguous bytes from the core into the stream's buffer until it holds `want`. Whether anything moved.
    fn pull(&mut self, now: Instant, id: u64, want: usize, events: &mut Vec<Event>) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if stream.receive != ReceiveState::Open || stream.pending_end.is_some() {
            return false;
        }
        stream.has_news = false;
        let before = stream.buffer.len();
        let mut reader = self.inner.recv_stream(StreamId::from(wire(id)));
        let Ok(mut chunks) = reader.read(true) else {
            stream.pending_end = Some(ReceiveState::Gone);
            return false;
        };
        while stream.buffer.len() < want {
            match chunks.next(want - stream.buffer.len()) {
                Ok(Some(chunk)) => stream.buffer.push(chunk.bytes),
                Ok(None) => {
                    // All has arrived, but a reset says that it was not meant to be all.
                    let reset = self.tap.reset_of(id);
                    let end = reset.map_or(ReceiveState::Ended, |reset| ReceiveState::Reset(reset.code));
                    stream.pending_end = Some(end);
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => {
                    stream.pending_end = Some(ReceiveState::Reset(code.into()));
                    break;
                }
            }
        }
        self.wants_transmit |= chunks.finalize().should_transmit();
        let moved = stream.buffer.len() - before;
        if moved > 0 {
            stream.first_byte.get_or_insert(now);
        }
        // As with the core's own flow control, what a read collects counts before the read can return it: it may need
        // more than the window.
        stream.wanted = stream.read + stream.buffer.len() as u64;
        let has_news = moved > 0 || stream.pending_end.is_some();
        self.give_credit(id, events);
        has_news
    }

    pub(crate) fn prepare_read(&mut self, now: Instant, id: u64, most: usize, events: &mut Vec<Event>) -> ReadOutcome {
        self.pull(now, id, most, events);
        let Some(stream) = self.streams.get_mut(&id) else { return ReadOutcome::Ended };
        let ready = (!stream.buffer.is_empty()).then(|| stream.buffer.len().min(most));
        self.conclude(now, id, ready, events)
    }

    pub(crate) fn prepare_exactly(
        &mut self,
        now: Instant,
        id: u64,
        count: usize,
        events: &mut Vec<Event>,
    ) -> ReadOutcome {
        self.pull(now, id, count, events);
        let Some(stream) = self.streams.get_mut(&id) else { return ReadOutcome::Ended };
        let ready = (stream.buffer.len() >= count).then_some(count);
        self.conclude(now, id, ready, events)
    }

    pub(crate) fn prepare_until(
        &mut self,
        now: Instant,
        id: u64,
        separator: &[u8],
        limit: usize,
        events: &mut Vec<Event>,
    ) -> ReadOutcome {
        if separator.is_empty() {
            return ReadOutcome::OverLimit;
        }
        self.pull(now, id, limit.saturating_add(separator.len()), events);
        let Some(stream) = self.streams.get_mut(&id) else { return ReadOutcome::Ended };
        let found = stream.buffer.find(separator);
        match found {
            Some(length) if length - separator.len() > limit => ReadOutcome::OverLimit,
            // As in asyncio: the bytes before the separator are what counts.
            None if stream.buffer.len() >= limit.saturating_add(separator.len()) => ReadOutcome::OverLimit,
            _ => self.conclude(now, id, found, events),
        }
    }

    pub(crate) fn prepare_all(
        &mut self,
        now: Instant,
        id: u64,
        limit: Option<usize>,
        events: &mut Vec<Event>,
    ) -> ReadOutcome {
        self.pull(now, id, limit.map_or(usize::MAX, |l| l.saturating_add(1)), events);
        let Some(stream) = self.streams.get_mut(&id) else { return ReadOutcome::Ended };
        if limit.is_some_and(|limit| stream.buffer.len() > limit) {
            return ReadOutcome::OverLimit;
        }
        // Nothing can complete what is in the buffer. It stays there, but the reader learns of the end before it.
        if stream.receive == ReceiveState::Open
            && let Some(end) = stream.pending_end.filter(|end| *end != ReceiveState::Ended)
        {
            stream.receive = end;
            stream.settle_ended(now);
        }
        let at_end = stream.pending_end == Some(ReceiveState::Ended) || stream.receive == ReceiveState::Ended;
        let ready = at_end.then(|| stream.buffer.len());
        self.conclude(now, id, ready, events)
    }

    fn conclude(&mut self, now: Instant, id: u64, ready: Option<usize>, events: &mut Vec<Event>) -> ReadOutcome {
        let Some(stream) = self.streams.get_mut(&id) else { return ReadOutcome::Ended };
        let outcome = stream.outcome_of(ready);
        match outcome {
            ReadOutcome::Ended => {
                stream.settle_receive(now);
                if stream.is_kept_by_core {
                    self.let_core_forget(id);
                }
                self.count_if_closed(id, events);
            }
            ReadOutcome::Wait => stream.raw_notified = false,
            _ => {}
        }
        outcome
    }

    /// Move bytes that a `prepare_*` found ready into `out`.
    pub(crate) fn take(&mut self, now: Instant, id: u64, out: &mut [u8], events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.buffer.take_into(out);
        stream.read += out.len() as u64;
        stream.settle_receive(now);
        if stream.receive != ReceiveState::Open {
            self.count_if_closed(id, events);
        }
    }

    pub(crate) fn stop(&mut self, now: Instant, id: u64, code: u64, events: &mut Vec<Event>) -> bool {
        let Some(mut stream) = self.streams.get_mut(&id) else { return false };
        if stream.is_kept_by_core {
            self.let_core_forget(id);
            let Some(again) = self.streams.get_mut(&id) else { return false };
            stream = again;
        }
        if stream.receive != ReceiveState::Open {
            return false;
        }
        let finished = stream.pending_end.is_some();
        stream.buffer.clear();
        stream.receive = ReceiveState::Stopped(code);
        if !finished {
            let mut half = self.inner.recv_stream(StreamId::from(wire(id)));
            // Of a stream that was reset the core gives no credit back when it is stopped, not before the next packet
            // arrives, and a peer that waits for credit may send none.
            if !matches!(half.received_reset(), Ok(Some(_))) {
                let _ = half.stop(wire(code));
            }
            self.wants_transmit = true;
        }
        self.tap.settle(id);
        stream.settle_ended(now);
        self.give_credit(id, events);
        !finished
    }

    // ---------------------------------------------------------------- streams, sending

    pub(crate) fn open(
        &mut self,
        now: Instant,
        bidirectional: bool,
        header: &[u8],
        session: Option<u64>,
        events: &mut Vec<Event>,
    ) -> Option<u64> {
        let direction = direction_index(bidirectional);
        if self.is_closed {
            return None;
        }
        if let Some(number) = session
            && let Some(ledger) = self.sessions.get_mut(&number)
            && !ledger.may_open(direction)
        {
            if let Some(limit) = ledger.note_streams_blocked(direction) {
                events.push(Event::StreamsBlocked { connection: self.id, session: number, bidirectional, limit });
            }
            self.streams_wanted[direction] = true;
            return None;
        }
        let Some(id) = self.inner.streams().open(if bidirectional { Dir::Bi } else { Dir::Uni }) else {
            self.streams_wanted[direction] = true;
            return None;
        };
        if let Some(session) = session.and_then(|number| self.sessions.get_mut(&number)) {
            session.opened[direction] += 1;
        }
        let id = u64::from(id);
        self.tap.register(id);
        if bidirectional {
            self.tap.register_receiving(id);
        }
        let phase = if session.is_some() { Phase::Data } else { Phase::Raw };
        let mut stream = Box::new(Stream::new(now, phase, false, bidirectional, true));
        stream.session = session;
        if let Some(number) = session {
            stream.place = self.members.add(number, id);
        }
        stream.has_handle = true;
        let length = header.len().min(HEADER_LIMIT);
        stream.header[..length].copy_from_slice(&header[..length]);
        stream.header_length = length as u64;
        stream.turn = self.turn;
        stream.queue.push(header);
        self.queued += header.len();
        self.streams.insert(id, stream);
        if !header.is_empty() {
            self.list_flush(id);
        }
        Some(id)
    }

    pub(crate) fn want_streams(&mut self, bidirectional: bool) {
        self.streams_wanted[direction_index(bidirectional)] = true;
    }

    /// Accept a prefix of `data` into the stream's queue, with a copy. `None`: the sending half is closed.
    pub(crate) fn write(&mut self, id: u64, data: &[u8]) -> Option<usize> {
        self.accept(id, data.len(), |queue, accepted| queue.push(&data[..accepted]))
    }

    /// As `write`, without a copy.
    pub(crate) fn write_whole(&mut self, id: u64, data: &Bytes) -> Option<usize> {
        self.accept(id, data.len(), |queue, accepted| {
            if accepted < COPY_BELOW {
                queue.push(&data[..accepted]);
            } else {
                queue.push_whole(data.slice(..accepted));
            }
        })
    }

    fn accept(&mut self, id: u64, length: usize, push: impl FnOnce(&mut SendQueue, usize)) -> Option<usize> {
        let stream = self.streams.get_mut(&id)?;
        if stream.send != SendState::Open {
            return None;
        }
        let (sent, _) = self.tap.progress(id);
        let waiting = stream.queue.len() + usize::try_from(stream.pushed.saturating_sub(sent)).unwrap_or(usize::MAX);
        let own = self.options.stream_send_buffer.saturating_sub(waiting);
        let shared = self.options.connection_send_buffer.saturating_sub(self.queued);
        // Streams that nobody reads may fill the connection's queue; the others still get on.
        let room = own.min(shared.max(STREAM_RESERVE.saturating_sub(stream.queue.len())));
        let accepted = room.min(length);
        if accepted > 0 {
            push(&mut stream.queue, accepted);
            stream.written += accepted as u64;
            self.queued += accepted;
            self.list_flush(id);
        }
        Some(accepted)
    }

    pub(crate) fn finish(&mut self, id: u64) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if stream.send != SendState::Open {
            return false;
        }
        stream.send = SendState::Finished;
        if let Some(session) = stream.session.and_then(|number| self.sessions.get_mut(&number)) {
            session.unacked += 1;
        }
        self.list_flush(id);
        true
    }

    pub(crate) fn reset(&mut self, now: Instant, id: u64, code: u64) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if !matches!(stream.send, SendState::Open | SendState::Finished) {
            return false;
        }
        if stream.send == SendState::Finished {
            count_acked(&mut self.sessions, stream);
        }
        stream.send = SendState::Reset(code);
        stream.settle_ended(now);
        self.reset_core(id, code);
        true
    }

    /// Reset in the core, or hold the reset back: a reset that hides the header of its stream leaves the peer with a
    /// stream it cannot attribute (section 4.4 of the draft).
    fn reset_core(&mut self, id: u64, code: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let keep = stream.header_length.saturating_sub(stream.pushed);
        let mut header = Vec::new();
        while (header.len() as u64) < keep {
            let Some(chunk) = stream.queue.take_front((keep - header.len() as u64) as usize) else { break };
            self.queued -= chunk.len();
            header.extend_from_slice(&chunk);
        }
        self.queued -= stream.queue.clear();
        if let Ok(written) = self.inner.send_stream(StreamId::from(wire(id))).write(&header) {
            stream.pushed += written as u64;
            header.drain(..written);
        }
        if self.give_reset(id, code) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.held_reset = Some(code);
        self.held.push_back(id);
        if !header.is_empty() {
            stream.queue.push(&header);
            self.queued += header.len();
            self.list_flush(id);
        }
    }

    /// Give a reset to the core if the peer is sure to get the stream's header: with RESET_STREAM_AT once the header is
    /// with the core, otherwise once it is acknowledged.
    fn give_reset(&mut self, id: u64, code: u64) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        let length = stream.header_length;
        if length > 0 {
            let (_, acked) = self.tap.progress(id);
            let is_delivered = acked >= length || stream.send == SendState::Acked;
            if self.tap.sends_resets() {
                let missing = if is_delivered { &[] } else { &stream.header[..length as usize] };
                if stream.pushed < length || !self.tap.send_reset(id, length, missing) {
                    return false;
                }
            } else if !is_delivered {
                return false;
            }
        }
        if self.inner.send_stream(StreamId::from(wire(id))).reset(wire(code)).is_err() {
            // The core is through with the stream, and no reset will leave.
            self.tap.cancel_reset(id);
        }
        true
    }

    fn list_flush(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.flush_listed, true)
        {
            let turn = stream.session.and_then(|number| self.sessions.get(&number)).map_or(0, |session| session.turn);
            self.flush.entry((turn, stream.session)).or_default().insert((stream.turn, id));
        }
    }

    fn next_to_flush(&mut self) -> Option<u64> {
        let mut first = self.flush.first_entry()?;
        let next = first.get_mut().pop_first();
        if first.get().is_empty() {
            first.remove();
            if self.flush.is_empty() {
                // An empty tree keeps half a KiB.
                self.flush = BTreeMap::new();
            }
        }
        next.map(|(_, id)| id)
    }

    /// A stream was served: the others come first, those of other sessions before those of its own.
    fn note_served(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.turn += 1;
        stream.turn = self.turn;
        if let Some(session) = stream.session.and_then(|number| self.sessions.get_mut(&number)) {
            let before = std::mem::replace(&mut session.turn, self.turn);
            if let Some(others) = self.flush.remove(&(before, stream.session)) {
                self.flush.insert((self.turn, stream.session), others);
            }
        }
    }

    /// Hand queued bytes to the core: every stream in turn, a quantum each, until the core takes no more.
    pub(crate) fn flush(&mut self, now: Instant, events: &mut Vec<Event>) {
        if !self.is_closed {
            self.flush_datagrams(now);
        }
        while let Some(id) = self.next_to_flush() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.flush_listed = false;
            let pushed = stream.pushed;
            let mut turn = QUANTUM;
            let mut is_blocked = false;
            while turn > 0 && !stream.queue.is_empty() {
                let header_left = stream.header_length.saturating_sub(stream.pushed);
                let mut most = turn;
                if header_left > 0 {
                    most = most.min(header_left as usize);
                } else if let Some(number) = stream.session
                    && let Some(session) = self.sessions.get_mut(&number)
                    && session.limits.flow_control
                {
                    let credit = session.send_credit();
                    if credit == 0 {
                        if session.blocked_at.replace(session.limits.send_limit) != Some(session.limits.send_limit) {
                            let limit = session.limits.send_limit;
                            events.push(Event::CreditBlocked { connection: self.id, session: number, limit });
                        }
                        is_blocked = true;
                        break;
                    }
                    most = most.min(usize::try_from(credit).unwrap_or(usize::MAX));
                }
                let Some(chunk) = stream.queue.take_front(most) else { break };
                let length = chunk.len();
                let mut chunks = [chunk];
                let result = self.inner.send_stream(StreamId::from(wire(id))).write_chunks(&mut chunks);
                let [rest] = chunks;
                match result {
                    Ok(written) => {
                        stream.queue.put_back(rest);
                        stream.pushed += written.bytes as u64;
                        self.queued -= written.bytes;
                        turn -= written.bytes.min(turn);
                        if header_left == 0
                            && let Some(session) = stream.session.and_then(|number| self.sessions.get_mut(&number))
                        {
                            session.sent += written.bytes as u64;
                        }
                        if written.bytes < length {
                            is_blocked = true;
                            // Ask again so that the core notes this stream as blocked and reports when it is not.
                            continue;
                        }
                    }
                    Err(WriteError::Blocked) => {
                        stream.queue.put_back(rest);
                        is_blocked = true;
                        break;
                    }
                    Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                        // The event that says why is already queued or was handled.
                        self.queued -= stream.queue.clear() + rest.len();
                        break;
                    }
                }
            }
            if stream.queue.is_empty() {
                if let Some(since) = stream.blocked_since.take() {
                    stream.blocked += now.saturating_duration_since(since).as_secs_f64();
                }
                if stream.send == SendState::Finished && !std::mem::replace(&mut stream.end_pushed, true) {
                    let _ = self.inner.send_stream(StreamId::from(wire(id))).finish();
                }
            } else if is_blocked {
                stream.blocked_since.get_or_insert(now);
            }
            let has_more = !stream.queue.is_empty() && !is_blocked;
            if stream.pushed > pushed {
                self.note_served(id);
            }
            if has_more {
                self.list_flush(id);
            }
        }
    }

    /// After packets left: writers whose queue has room again.
    pub(crate) fn wake_writers(&mut self, events: &mut Vec<Event>) {
        if self.writers.is_empty() {
            return;
        }
        let low = self.options.stream_send_buffer / 2;
        let connection_full = self.queued * 2 > self.options.connection_send_buffer;
        let mut writers = std::mem::take(&mut self.writers);
        let mut woken: Vec<(u64, u64, u64)> = Vec::new();
        writers.retain(|&id| {
            let Some(stream) = self.streams.get_mut(&id) else { return false };
            if !stream.write_interest {
                return false;
            }
            let (sent, _) = self.tap.progress(id);
            let waiting = stream.queue.len() as u64 + stream.pushed.saturating_sub(sent);
            if waiting > low as u64 || connection_full && stream.queue.len() > STREAM_RESERVE / 2 {
                return true;
            }
            stream.write_interest = false;
            let session = stream.session.and_then(|number| self.sessions.get(&number));
            woken.push((session.map_or(0, |session| session.turn), stream.turn, id));
            false
        });
        // The room may not be enough for all of them.
        woken.sort_unstable();
        events.extend(woken.into_iter().map(|(_, _, stream)| Event::Writable { connection: self.id, stream }));
        self.writers = writers;
    }

    // ---------------------------------------------------------------- waiting

    /// Register interest; false when there is nothing to wait for (the caller should look again at once).
    pub(crate) fn want_read(&mut self, id: u64) -> bool {
        match self.streams.get_mut(&id) {
            Some(stream)
                if stream.receive == ReceiveState::Open && stream.pending_end.is_none() && !stream.has_news =>
            {
                stream.read_interest = true;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn want_write(&mut self, id: u64) -> bool {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.send == SendState::Open => {
                if !std::mem::replace(&mut stream.write_interest, true) {
                    self.writers.push(id);
                }
                true
            }
            _ => false,
        }
    }

    pub(crate) fn want_acked(&mut self, id: u64) -> bool {
        let (_, acked) = self.tap.progress(id);
        match self.streams.get_mut(&id) {
            Some(stream) if matches!(stream.send, SendState::Open | SendState::Finished) => {
                if stream.send == SendState::Open && stream.queue.is_empty() && acked >= stream.pushed {
                    return false;
                }
                stream.acked_interest = true;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn want_stopped(&mut self, id: u64) -> bool {
        match self.streams.get_mut(&id) {
            Some(stream) if matches!(stream.send, SendState::Open | SendState::Finished) => {
                stream.stop_interest = true;
                true
            }
            _ => false,
        }
    }

    // ---------------------------------------------------------------- facts

    pub(crate) fn stream_stats(&self, now: Instant, id: u64) -> Option<StreamStats> {
        let stream = self.streams.get(&id)?;
        let pulled = stream.read + stream.buffer.len() as u64;
        let received = pulled.max(self.tap.received(id).saturating_sub(stream.receive_header));
        // What a stop or a reset threw away no longer waits for anybody.
        let waiting = match stream.receive {
            ReceiveState::Open => received - stream.read,
            _ => stream.buffer.len() as u64,
        };
        let blocked_now = stream.blocked_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let (sent, acked) = self.tap.progress(id);
        let (sent, acked) = match stream.send {
            SendState::Acked => (stream.pushed, stream.pushed),
            _ => (sent, acked),
        };
        let payload = |offset: u64| offset.saturating_sub(stream.header_length);
        Some(StreamStats {
            written: stream.written,
            sent: payload(sent),
            acked: payload(acked),
            received,
            read: stream.read,
            send_buffered: stream.written.saturating_sub(payload(sent)),
            receive_buffered: waiting,
            blocked: stream.blocked + blocked_now,
            created: stream.created,
            first_byte: stream.first_byte,
            ended: stream.ended,
        })
    }

    pub(crate) fn core_streams(&mut self) -> [u64; 3] {
        let streams = self.inner.streams();
        [streams.send_streams() as u64, streams.remote_open_streams(Dir::Bi), streams.remote_open_streams(Dir::Uni)]
    }

    pub(crate) fn unacked(&self, id: u64) -> u64 {
        let Some(stream) = self.streams.get(&id) else { return 0 };
        let (_, acked) = self.tap.progress(id);
        match stream.send {
            SendState::Acked => 0,
            _ => stream.written.saturating_sub(acked.saturating_sub(stream.header_length)),
        }
    }

    pub(crate) fn set_priority(&mut self, id: u64, priority: i32) {
        if self.streams.get(&id).is_some_and(|s| s.send == SendState::Open) {
            let _ = self.inner.send_stream(StreamId::from(wire(id))).set_priority(priority);
        }
    }

    /// The last reference from above is gone: stop and reset what is open, forget what is done.
    pub(crate) fn release(&mut self, now: Instant, id: u64, code: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.has_handle = false;
        stream.read_interest = false;
        stream.acked_interest = false;
        stream.stop_interest = false;
        let is_sending = stream.send == SendState::Open;
        self.stop(now, id, code, events);
        if is_sending {
            self.reset(now, id, code);
        }
        self.forget_if_done(id, events);
    }

    /// A stream of the peer that is over makes room for another one, also while its handle is still held.
    fn count_if_closed(&mut self, id: u64, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get(&id) else { return };
        if !stream.peer_initiated || stream.is_counted_closed || !stream.is_over() || self.awaits_final_size(stream) {
            return;
        }
        let Some(number) = stream.session else { return };
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let bidirectional = StreamId::from(wire(id)).dir() == Dir::Bi;
        if let Some(limit) = session.count_peer_closed(direction_index(bidirectional)) {
            events.push(Event::StreamsDue { connection: self.id, session: number, bidirectional, limit });
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_counted_closed = true;
        }
    }

    fn forget_if_done(&mut self, id: u64, events: &mut Vec<Event>) {
        self.count_if_closed(id, events);
        if !self.streams.get(&id).is_some_and(|s| s.is_forgettable() && !self.awaits_final_size(s)) {
            return;
        }
        let extent = self.tap.extent(id);
        let Some(stream) = self.streams.remove(&id) else { return };
        self.queued -= stream.queue.len();
        self.tap.forget(id);
        if let Some(number) = stream.session
            && let Some(moved) = self.members.remove(number, stream.place)
            && let Some(other) = self.streams.get_mut(&moved)
        {
            other.place = stream.place;
        }
        let Some(number) = stream.session.filter(|_| stream.peer_initiated) else { return };
        if !self.sessions.contains_key(&number)
            && !self.ended.contains_key(&number)
            && (self.early_ledgers.len() < EARLY_LEDGERS || self.early_ledgers.contains_key(&number))
        {
            let ledger = self.early_ledgers.entry(number).or_default();
            ledger.streams[direction_index(StreamId::from(wire(id)).dir() == Dir::Bi)] += 1;
            ledger.bytes += extent.end.saturating_sub(stream.receive_header);
        }
    }

    /// Whether a stopped stream has to be remembered because its session's ledger still lacks its final size.
    fn awaits_final_size(&self, stream: &Stream) -> bool {
        let Some(number) = stream.session else { return false };
        matches!(stream.receive, ReceiveState::Stopped(_))
            && !stream.is_extent_final
            && !self.is_closed
            && match self.sessions.get(&number) {
                Some(session) => session.limits.flow_control,
                None => !self.ended.contains_key(&number),
            }
    }

    /// Whether nothing above refers to the connection's streams any more.
    pub(crate) fn is_unreferenced(&self) -> bool {
        !self.streams.values().any(|s| s.has_handle)
    }

    // ---------------------------------------------------------------- sessions and datagrams

    pub(crate) fn add_session(&mut self, number: u64, limits: SessionLimits, events: &mut Vec<Event>) {
        let mut session = Box::new(Session::new(limits));
        let ledger = self.early_ledgers.remove(&number).unwrap_or_default();
        let mut is_exceeded = session.count_arrived(ledger.bytes);
        for direction in 0..2 {
            for _ in 0..ledger.streams[direction] {
                is_exceeded |= session.count_peer_opened(direction);
            }
        }
        let present = self.members.of(number).to_vec();
        session.unacked = self.finished_streams(number);
        for id in present.iter().filter(|id| self.streams.get(id).is_some_and(|stream| stream.peer_initiated)) {
            is_exceeded |= session.count_peer_opened(direction_index(StreamId::from(wire(*id)).dir() == Dir::Bi));
        }
        if is_exceeded {
            events.push(Event::CreditExceeded { connection: self.id, session: number });
        }
        if let Some(limit) = session.count_consumed(ledger.bytes) {
            events.push(Event::CreditDue { connection: self.id, session: number, limit });
        }
        for direction in 0..2 {
            let due = (0..ledger.streams[direction]).filter_map(|_| session.count_peer_closed(direction)).last();
            if let Some(limit) = due {
                let bidirectional = direction == direction_index(true);
                events.push(Event::StreamsDue { connection: self.id, session: number, bidirectional, limit });
            }
        }
        let early = std::mem::take(&mut self.early);
        for (target, data) in early {
            if target == number {
                session.push_datagram(data);
            } else {
                self.early.push_back((target, data));
            }
        }
        self.sessions.insert(number, session);
        for id in present {
            self.account(id, events);
            self.forget_if_done(id, events);
        }
    }

    pub(crate) fn set_send_limit(&mut self, number: u64, limit: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.limits.send_limit = limit;
        for id in self.members.of(number).to_vec() {
            if self.streams.get(&id).is_some_and(|stream| !stream.queue.is_empty()) {
                self.list_flush(id);
            }
        }
    }

    /// How many streams the peer may have open at once; what is open already stays.
    pub(crate) fn set_concurrent_streams(&mut self, bidirectional: bool, count: u64) {
        self.streams_allowed[direction_index(bidirectional)] = count;
        if !self.is_closed {
            // Sessions that stay take a stream each, and the core would announce the room for another only after some.
            self.announce_streams(if bidirectional { Dir::Bi } else { Dir::Uni }, count);
        }
    }

    pub(crate) fn set_send_streams(&mut self, number: u64, bidirectional: bool, limit: u64, events: &mut Vec<Event>) {
        let direction = direction_index(bidirectional);
        if let Some(session) = self.sessions.get_mut(&number) {
            session.limits.send_streams[direction] = limit;
        }
        if std::mem::take(&mut self.streams_wanted[direction]) {
            events.push(Event::StreamsAvailable { connection: self.id, bidirectional });
        }
    }

    /// Finished streams of the session whose bytes are not all acknowledged.
    pub(crate) fn unacked_streams(&self, number: u64) -> usize {
        let count = self.sessions.get(&number).map_or(0, |session| session.unacked);
        debug_assert!(self.is_closed || !self.sessions.contains_key(&number) || count == self.finished_streams(number));
        count
    }

    fn finished_streams(&self, number: u64) -> usize {
        let streams = self.members.of(number).iter().filter_map(|id| self.streams.get(id));
        streams.filter(|stream| stream.send == SendState::Finished).count()
    }

    pub(crate) fn want_session_acked(&mut self, number: u64) -> bool {
        if self.is_closed || self.unacked_streams(number) == 0 {
            return false;
        }
        match self.sessions.get_mut(&number) {
            Some(session) => {
                session.acked_interest = true;
                true
            }
            None => false,
        }
    }

    /// Close all data streams of a session with `code` and wake everybody who waits for something of it.
    pub(crate) fn end_session(&mut self, now: Instant, number: u64, code: u64, events: &mut Vec<Event>) {
        self.owe_credit();
        if let Some(mut session) = self.sessions.remove(&number) {
            if std::mem::take(&mut session.datagram_interest) {
                events.push(Event::DatagramReadable { connection: self.id, session: number });
            }
            if std::mem::take(&mut session.acked_interest) {
                events.push(Event::SessionAcked { connection: self.id, session: number });
            }
        }
        if self.ended.insert(number, code).is_none() {
            self.ended_order.push_back(number);
            if self.ended_order.len() > ENDED_SESSIONS
                && let Some(old) = self.ended_order.pop_front()
            {
                self.ended.remove(&old);
            }
        }
        self.early.retain(|(session, _)| *session != number);
        self.early_ledgers.remove(&number);
        for id in self.members.of(number).to_vec() {
            // What has arrived to its end stays readable; the window bounds how much that is.
            self.pull(now, id, usize::MAX, events);
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.pending_end == Some(ReceiveState::Ended) {
                stream.settle_receive(now);
            } else {
                self.stop(now, id, code, events);
            }
            self.reset(now, id, code);
            self.wake_all(id, events);
            self.forget_if_done(id, events);
        }
        for bidirectional in [true, false] {
            if std::mem::take(&mut self.streams_wanted[direction_index(bidirectional)]) {
                events.push(Event::StreamsAvailable { connection: self.id, bidirectional });
            }
        }
    }

    fn take_datagrams(&mut self, events: &mut Vec<Event>) {
        while let Some(data) = self.inner.datagrams().recv() {
            let Some((quarter, length)) = varint::read(&data).filter(|(quarter, _)| *quarter <= QUARTER_ID_LIMIT)
            else {
                events.push(Event::DatagramError { connection: self.id });
                continue;
            };
            let number = quarter * 4;
            let payload =
                if data.len() < COPY_BELOW { Bytes::copy_from_slice(&data[length..]) } else { data.slice(length..) };
            if let Some(session) = self.sessions.get_mut(&number) {
                session.push_datagram(payload);
                if std::mem::take(&mut session.datagram_interest) {
                    events.push(Event::DatagramReadable { connection: self.id, session: number });
                }
            } else if !self.ended.contains_key(&number) {
                if !self.early.iter().any(|(session, _)| *session == number) {
                    events.push(Event::DatagramId { connection: self.id, session: number });
                }
                self.early.push_back((number, payload));
                if self.early.len() > self.options.early_datagrams {
                    self.early.pop_front();
                }
            }
        }
    }

    /// Largest QUIC DATAGRAM payload, prefix included. What resets under way claim of a packet passes with them.
    pub(crate) fn max_datagram(&mut self) -> Option<usize> {
        if self.is_closed { None } else { self.inner.datagrams().max_size().map(|size| size + self.tap.reserve()) }
    }

    pub(crate) fn peer_parameters(&self) -> Option<&[u8]> {
        self.tap.peer_parameters()
    }

    /// 0: accepted. Positive: the limit that `data` exceeds. -1: not possible on this connection now.
    pub(crate) fn send_datagram(&mut self, now: Instant, number: u64, data: &[u8]) -> i64 {
        let Some(most) = self.max_datagram() else { return -1 };
        if !self.sessions.contains_key(&number) {
            return -1;
        }
        let mut frame = Vec::with_capacity(data.len() + 8);
        varint::write(number / 4, &mut frame);
        let limit = most.saturating_sub(frame.len()).min(self.options.datagram_send_buffer);
        if data.len() > limit {
            return limit.max(1) as i64;
        }
        frame.extend_from_slice(data);
        self.outgoing_bytes += frame.len();
        self.outgoing.push_back((now, number, frame.into()));
        while self.outgoing_bytes > self.options.datagram_send_buffer {
            self.drop_outgoing(false);
        }
        0
    }

    fn drop_outgoing(&mut self, expired: bool) {
        let Some((_, number, data)) = self.outgoing.pop_front() else { return };
        self.outgoing_bytes -= data.len();
        if let Some(session) = self.sessions.get_mut(&number) {
            if expired {
                session.stats.expired_outgoing += 1;
            } else {
                session.stats.dropped_outgoing += 1;
            }
        }
    }

    fn flush_datagrams(&mut self, now: Instant) {
        if self.outgoing.is_empty() {
            return;
        }
        let age = self.options.datagram_send_age.unwrap_or(Duration::MAX);
        while let Some((queued, _, _)) = self.outgoing.front() {
            if now.saturating_duration_since(*queued) > age {
                self.drop_outgoing(true);
                continue;
            }
            let Some((queued, number, data)) = self.outgoing.pop_front() else { break };
            let length = data.len();
            if self.tap.reserve() > 0 && self.inner.datagrams().max_size().is_some_and(|most| length > most) {
                // It fits again when the resets under way are acknowledged.
                self.outgoing.push_front((queued, number, data));
                break;
            }
            match self.inner.datagrams().send(data, false) {
                Ok(()) => {
                    self.outgoing_bytes -= length;
                    if let Some(session) = self.sessions.get_mut(&number) {
                        session.stats.sent += 1;
                    }
                }
                Err(quinn_proto::SendDatagramError::Blocked(data)) => {
                    self.outgoing.push_front((queued, number, data));
                    break;
                }
                Err(_) => {
                    // The path's limit shrank below this datagram since it was accepted.
                    self.outgoing_bytes -= length;
                    if let Some(session) = self.sessions.get_mut(&number) {
                        session.stats.dropped_outgoing += 1;
                    }
                }
            }
        }
    }

    pub(crate) fn receive_datagram(&mut self, number: u64) -> Option<Bytes> {
        self.sessions.get_mut(&number)?.pop_datagram()
    }

    pub(crate) fn want_datagram(&mut self, number: u64) -> bool {
        match self.sessions.get_mut(&number) {
            Some(session) if session.datagrams.is_empty() && !self.is_closed => {
                session.datagram_interest = true;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn credit(&self, number: u64) -> Option<Credit> {
        self.sessions.get(&number).map(|session| session.credit())
    }

    pub(crate) fn datagram_stats(&self, number: u64) -> Option<DatagramStats> {
        let session = self.sessions.get(&number)?;
        Some(DatagramStats { queued_incoming: session.datagrams.len() as u64, ..session.stats })
    }

    pub(crate) fn is_client(&self) -> bool {
        self.inner.side() == Side::Client
    }
}
