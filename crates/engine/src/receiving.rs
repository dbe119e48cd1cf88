//! The receiving half of one stream, together with what reading changes: the core's half, the session's ledger, events.
//!
//! It can look at the sending half and cannot change it. Streams that begin or end, and so appear or vanish, are the
//! business of [`connection`](crate::connection).

use std::time::Instant;

use crate::{
    event::Event,
    header::{self, HEADER_LIMIT, Header},
    quic::core::{Core, ReadEnd},
    session::{Session, Sessions},
    stream::{Extent, Life, Phase, ReadOutcome, ReceiveState, ReceivingHalf, SendingHalf, direction, is_bidirectional},
};

/// What has become clear of a stream of the peer, now that its head was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// A data stream of this session.
    Session(u64),
    /// Any other stream.
    Raw,
    /// It was reset, with this code, before it showed whose it is.
    Reset(u64),
}

/// The receiving half of a stream, to read from and to stop.
#[must_use]
pub struct Receiving<'a> {
    pub(crate) stream_id: u64,
    pub(crate) connection_id: u64,
    /// When all this happens.
    pub(crate) now: Instant,
    /// The connection is over: nothing more will arrive.
    pub(crate) is_closed: bool,
    pub(crate) half: &'a mut ReceivingHalf,
    pub(crate) sending: &'a SendingHalf,
    pub(crate) life: &'a mut Life,
    pub(crate) core: &'a mut Core,
    pub(crate) sessions: &'a mut Sessions,
    /// Bytes in the buffers of all streams of the connection.
    pub(crate) buffered: &'a mut usize,
    pub(crate) events: &'a mut Vec<Event>,
}

impl std::fmt::Debug for Receiving<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiving")
            .field("stream_id", &self.stream_id)
            .field("half", &self.half)
            .finish_non_exhaustive()
    }
}

impl Receiving<'_> {
    // ---------------------------------------------------------------- for the application

    /// State of this half.
    #[must_use]
    #[inline]
    pub fn state(&self) -> ReceiveState {
        self.half.state
    }

    /// Find what a read of at most `most` bytes can return; [`Receiving::take`] then moves it.
    pub fn prepare_read(&mut self, most: usize) -> ReadOutcome {
        self.pull_for_reader(most);
        let outcome = self.half.answer(most);
        self.conclude(outcome)
    }

    /// As [`Receiving::prepare_read`], for exactly `count` bytes.
    pub fn prepare_exactly(&mut self, count: usize) -> ReadOutcome {
        self.pull_for_reader(count);
        let outcome = self.half.answer_exactly(count);
        self.conclude(outcome)
    }

    /// As [`Receiving::prepare_read`], through the first `separator`; at most `limit` bytes may precede it.
    pub fn prepare_until(&mut self, separator: &[u8], limit: usize) -> ReadOutcome {
        if separator.is_empty() {
            return ReadOutcome::OverLimit;
        }
        self.pull_for_reader(limit.saturating_add(separator.len()));
        let outcome = self.half.answer_until(separator, limit);
        self.conclude(outcome)
    }

    /// As [`Receiving::prepare_read`], for everything, once the end has arrived.
    pub fn prepare_all(&mut self, limit: Option<usize>) -> ReadOutcome {
        self.pull_for_reader(limit.map_or(usize::MAX, |limit| limit.saturating_add(1)));
        let outcome = self.half.answer_all(limit);
        if outcome != ReadOutcome::OverLimit && self.half.settle_incomplete() {
            self.note_end();
        }
        self.conclude(outcome)
    }

    /// Move bytes that a `prepare_*` found ready into `out`.
    pub fn take(&mut self, out: &mut [u8]) {
        self.half.buffer.take_into(out);
        self.half.read += out.len() as u64;
        *self.buffered -= out.len();
        self.settle();
        if self.half.state != ReceiveState::Open {
            self.count_if_closed();
        }
    }

    /// STOP_SENDING; what has arrived is dropped. False on a finished or stopped stream.
    pub fn stop(&mut self, code: u64) -> bool {
        let is_stopped = self.abandon(code);
        // A read that waits can no longer go on.
        self.events.push(Event::Readable { connection: self.connection_id, stream: self.stream_id });
        self.core.wants_transmit = true;
        is_stopped
    }

    /// Ask for [`Event::Readable`]. False: look again at once.
    pub fn want_read(&mut self) -> bool {
        let is_waiting = self.half.is_waiting() && !self.half.has_arrived;
        if is_waiting {
            self.half.read_interest = true;
        }
        is_waiting
    }

    // ---------------------------------------------------------------- reading

    /// As [`Receiving::pull`], but no faster than the session is to be read.
    #[inline]
    fn pull_for_reader(&mut self, want: usize) {
        if self.sessions.waiting.is_some() {
            self.pull_paced(want);
        } else {
            self.pull(want);
        }
    }

    #[cold]
    fn pull_paced(&mut self, want: usize) {
        let before = self.half.buffer.len();
        let pace = self.life.session_id.and_then(|id| self.sessions.get(id)).and_then(|session| session.pace.as_ref());
        let Some(room) = pace.map(|pace| pace.room(self.now)).filter(|_| self.half.is_waiting()) else {
            return self.pull(want);
        };
        let most = before.saturating_add(room).max(before);
        self.pull(want.min(most));
        let read = self.half.buffer.len() - before;
        if let Some(session_id) = self.life.session_id
            && let Some(pace) = self.sessions.get_mut(session_id).and_then(|session| session.pace.as_mut())
        {
            let next = pace.take(self.now, read);
            let Some(waiting) = &mut self.sessions.waiting else { return };
            if read > 0 {
                self.half.turn = waiting.turn();
            }
            if read == room {
                // There may be more, and the core does not report it again.
                self.core.wants_transmit |= waiting.add(next, self.half.turn, self.stream_id);
            }
        }
    }

    /// Move contiguous bytes from the core into the buffer until it holds `want`.
    pub(crate) fn pull(&mut self, want: usize) {
        if !self.half.is_waiting() {
            return;
        }
        self.half.has_arrived = false;
        let before = self.half.buffer.len();
        let buffer = &mut self.half.buffer;
        let end = self.core.read(self.stream_id, want.saturating_sub(before), |chunk| buffer.push(chunk));
        self.half.pending_end = match end {
            ReadEnd::Blocked => None,
            ReadEnd::Ended => Some(ReceiveState::Ended),
            ReadEnd::Reset(code) => Some(ReceiveState::Reset(code)),
            ReadEnd::Gone => Some(ReceiveState::Gone),
        };
        *self.buffered += self.half.buffer.len() - before;
        if end == ReadEnd::Gone {
            return;
        }
        if self.half.buffer.len() > before {
            self.life.first_byte.get_or_insert(self.now);
        }
        // As with the core's own flow control, what a read collects counts before the read can return it: it may need
        // more than the window.
        self.half.wanted = self.half.read + self.half.buffer.len() as u64;
        self.give_credit();
    }

    #[inline]
    fn conclude(&mut self, outcome: ReadOutcome) -> ReadOutcome {
        match outcome {
            ReadOutcome::Ended => {
                self.settle();
                self.let_core_forget();
                self.count_if_closed();
            }
            ReadOutcome::Wait => {
                self.half.is_raw_reported = false;
                self.relieve();
            }
            ReadOutcome::Ready(_) | ReadOutcome::OverLimit => {}
        }
        outcome
    }

    /// Show the end to the reader, if all before it was read.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.half.settle() {
            self.note_end();
        }
    }

    #[inline]
    fn note_end(&mut self) {
        self.life.note_end(self.now, self.half.state, self.sending.state);
    }

    /// Read no more: drop what is here, and ask the peer to stop unless its end is known. Whether it was asked.
    pub(crate) fn abandon(&mut self, code: u64) -> bool {
        self.let_core_forget();
        if self.half.state != ReceiveState::Open {
            return false;
        }
        let is_finished = self.half.pending_end.is_some();
        self.drop_buffer();
        self.half.state = ReceiveState::Stopped(code);
        if !is_finished {
            self.core.stop(self.stream_id, code);
        }
        self.core.settle_receiving(self.stream_id);
        self.note_end();
        self.give_credit();
        !is_finished
    }

    /// Drop what was collected for a read.
    pub(crate) fn drop_buffer(&mut self) {
        *self.buffered -= self.half.buffer.len();
        self.half.buffer.clear();
    }

    /// The session ends: what has arrived to its end stays readable, and the window bounds how much that is.
    pub(crate) fn end(&mut self, code: u64) {
        self.pull(usize::MAX);
        if self.half.pending_end == Some(ReceiveState::Ended) {
            self.settle();
        } else {
            self.abandon(code);
        }
    }

    /// The connection is over: what has arrived stays readable.
    pub(crate) fn lose(&mut self) {
        self.pull(usize::MAX);
        if self.half.state == ReceiveState::Open {
            self.half.pending_end.get_or_insert(ReceiveState::Gone);
            self.settle();
        }
        if self.half.is_raw() {
            self.report_raw();
        }
    }

    // ---------------------------------------------------------------- what arrives

    /// Something has arrived, or the end has. For a stream whose head is being read: what that shows, if it does.
    pub(crate) fn readable(&mut self) -> Option<Head> {
        match self.half.phase {
            Phase::Header(_) => return self.read_head(),
            Phase::Raw => self.report_raw(),
            Phase::Data => {
                self.life.first_byte.get_or_insert(self.now);
                if !self.wake() {
                    self.half.has_arrived = true;
                }
            }
        }
        None
    }

    /// Report that a raw stream has something to read, once until a read finds nothing.
    fn report_raw(&mut self) {
        if !std::mem::replace(&mut self.half.is_raw_reported, true) {
            self.events.push(Event::RawReadable { connection: self.connection_id, stream: self.stream_id });
        }
    }

    /// Let whoever waits for data go on; whether anybody did.
    pub(crate) fn wake(&mut self) -> bool {
        let is_waited_for = std::mem::take(&mut self.half.read_interest);
        if is_waited_for {
            self.events.push(Event::Readable { connection: self.connection_id, stream: self.stream_id });
        }
        is_waited_for
    }

    /// Read the one or two varints at the head of a peer's stream, as far as they have arrived.
    pub(crate) fn read_head(&mut self) -> Option<Head> {
        let Phase::Header(head) = &mut self.half.phase else { return None };
        let mut is_ended = false;
        let (phase, length, shown) = loop {
            match header::read(head, is_bidirectional(self.stream_id)) {
                Header::Raw => break (Phase::Raw, 0, Head::Raw),
                Header::Data { session, length } => break (Phase::Data, length, Head::Session(session)),
                Header::Incomplete if is_ended => break (Phase::Raw, 0, Head::Raw),
                Header::Incomplete => {}
            }
            match self.core.read_head(self.stream_id, HEADER_LIMIT) {
                Ok(bytes) => head.extend_from_slice(&bytes),
                Err(ReadEnd::Ended) => is_ended = true,
                // All that the peer sent before its reset, and not a whole header.
                Err(ReadEnd::Reset(code)) => return Some(Head::Reset(code)),
                Err(ReadEnd::Blocked | ReadEnd::Gone) => return None,
            }
        };
        self.half.buffer.push(std::mem::take(head).freeze().slice(length..));
        *self.buffered += self.half.buffer.len();
        self.half.phase = phase;
        if is_ended {
            self.half.pending_end = Some(ReceiveState::Ended);
        }
        if length > 0 {
            self.half.header_length = length as u64;
            self.core.set_header(self.stream_id, length as u64);
        } else {
            self.life.has_handle = true;
            self.half.is_raw_reported = true;
        }
        Some(shown)
    }

    /// A data stream of the peer has shown its session, which has not ended.
    pub(crate) fn join(&mut self, session_id: u64) {
        self.life.session_id = Some(session_id);
        self.life.place = self.sessions.members_mut().add(session_id, self.stream_id);
        self.life.has_handle = true;
        if self.core.received(self.stream_id) > self.half.header_length {
            self.life.first_byte = Some(self.now);
        }
        if let Some(session) = self.sessions.get_mut(session_id)
            && session.count_peer_opened(direction(self.stream_id))
        {
            self.events.push(Event::CreditExceeded { connection: self.connection_id, session: session_id });
        }
        self.account(self.core.extent(self.stream_id));
    }

    // ---------------------------------------------------------------- resets that promise bytes

    /// Take over what a reset promised; whether all of it is here, or nobody wants it any more.
    pub(crate) fn keep_promise(&mut self, reliable: u64) -> bool {
        if let Phase::Header(head) = &self.half.phase {
            // A header that is longer than what was promised need not come.
            return self.half.state != ReceiveState::Open || head.len() as u64 >= reliable;
        }
        if !self.half.is_waiting() {
            return true;
        }
        let had = self.half.buffer.len();
        let want = reliable.saturating_sub(self.half.header_length + self.half.read);
        self.pull(usize::try_from(want).unwrap_or(usize::MAX));
        let has = self.half.buffer.len();
        if has > had {
            self.readable();
        }
        self.half.pending_end.is_some() || self.half.header_length + self.half.read + has as u64 >= reliable
    }

    /// All that the peer's reset promised is here: the reader gets it and then the reset. What that shows of a stream whose
    /// head is not complete.
    pub(crate) fn settle_reset(&mut self, code: u64) -> Option<Head> {
        self.core.settle_receiving(self.stream_id);
        self.half.is_kept_by_core = true;
        if matches!(self.half.phase, Phase::Header(_)) {
            self.let_core_forget();
            return Some(Head::Reset(code));
        }
        if self.half.is_waiting() {
            self.half.pending_end = Some(ReceiveState::Reset(code));
            self.settle();
            self.account(self.core.extent(self.stream_id));
            self.readable();
        } else {
            self.let_core_forget();
        }
        None
    }

    /// Give the core's credit for a stream back, of which the reader has seen the reset or which nobody reads.
    ///
    /// Not before: a peer could open and reset streams without end while nobody takes them.
    fn let_core_forget(&mut self) {
        if std::mem::take(&mut self.half.is_kept_by_core) {
            self.core.discard(self.stream_id);
        }
    }

    // ---------------------------------------------------------------- the session's ledger

    /// Bring the session's ledger up to how far the stream reaches.
    #[inline]
    pub(crate) fn account(&mut self, extent: Extent) {
        if !matches!(self.half.phase, Phase::Data) {
            return;
        }
        self.half.is_extent_final = extent.is_final;
        self.half.was_reset = extent.is_reset;
        let connection = self.connection_id;
        let Some(session) = self.life.session_id else { return };
        let Some(ledger) = self.sessions.get_mut(session) else { return };
        let arrived = extent.end.saturating_sub(self.half.header_length);
        let more = arrived.saturating_sub(self.half.arrived);
        if more > 0 {
            self.half.arrived += more;
            if ledger.count_arrived(more) {
                self.events.push(Event::CreditExceeded { connection, session });
            }
            if ledger.has_too_much() {
                self.events.push(Event::BytesExceeded { connection, session });
            }
        }
        let limit = ledger.count_consumed(self.half.take_consumed());
        // If the one announces all there is, the other has nothing.
        if let Some(limit) = ledger.relief().or(limit) {
            self.events.push(Event::CreditDue { connection, session, limit });
        }
    }

    /// Give the session credit for what was read or never will be.
    fn give_credit(&mut self) {
        if self.half.past_reading() <= self.half.consumed {
            return;
        }
        let Some(session_id) = self.life.session_id else { return };
        let Some(session) = self.sessions.get_mut(session_id) else { return };
        if let Some(limit) = session.count_consumed(self.half.take_consumed()) {
            self.events.push(Event::CreditDue { connection: self.connection_id, session: session_id, limit });
        }
    }

    /// A reader may have nothing left to read, now that it waits or that data of other streams took the credit. If the peer
    /// waits for credit, it shall not wait for other readers.
    fn relieve(&mut self) {
        let Some(session_id) = self.life.session_id else { return };
        if let Some(limit) = self.sessions.get_mut(session_id).and_then(Session::relief) {
            self.events.push(Event::CreditDue { connection: self.connection_id, session: session_id, limit });
        }
    }

    /// A stream of the peer that is over makes room for another one, also while its handle is still held.
    #[inline]
    pub(crate) fn count_if_closed(&mut self) {
        if !self.life.is_from_peer || self.life.is_counted_closed || !self.is_over() || self.awaits_final_size() {
            return;
        }
        let Some(session_id) = self.life.session_id else { return };
        let Some(session) = self.sessions.get_mut(session_id) else { return };
        if let Some(limit) = session.count_peer_closed(direction(self.stream_id)) {
            self.events.push(Event::StreamsDue {
                connection: self.connection_id,
                session: session_id,
                bidirectional: is_bidirectional(self.stream_id),
                limit,
            });
        }
        self.life.is_counted_closed = true;
    }

    fn is_over(&self) -> bool {
        self.half.is_over() && self.sending.is_over()
    }

    /// Whether the engine may forget the stream.
    #[inline]
    pub(crate) fn is_forgettable(&self) -> bool {
        !self.life.has_handle && self.is_over() && !self.awaits_final_size()
    }

    /// Whether a stopped stream has to be remembered because its session's ledger still lacks its final size.
    fn awaits_final_size(&self) -> bool {
        matches!(self.half.state, ReceiveState::Stopped(_))
            && !self.half.is_extent_final
            && !self.is_closed
            && self.life.session_id.is_some_and(|session_id| self.sessions.needs_final_size(session_id))
    }
}
