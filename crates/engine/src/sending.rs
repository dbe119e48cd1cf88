//! The sending half of one stream, together with what writing changes: the core's half, the connection's backlog, the
//! session's ledger, events.
//!
//! It can look at the receiving half and cannot change it. In which order streams are flushed is decided by the
//! [`Schedule`](crate::schedule::Schedule); how many bytes one of them gives to the core at a time is decided here.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    backlog::Backlog,
    buffer::SendQueue,
    event::Event,
    quic::core::{Core, Written},
    session::{Session, Sessions},
    stream::{Life, ReceivingHalf, SendState, SendingHalf},
};

/// Bytes one stream may give to the core before the next stream is served.
const QUANTUM: usize = 64 * 1024;
/// Pieces below this size are copied, so that they do not keep all of what a writer gave alive.
const COPY_BELOW: usize = 4096;

/// The sending half of a stream, to write to, to end and to reset.
#[must_use]
pub struct Sending<'a> {
    pub(crate) stream_id: u64,
    pub(crate) connection_id: u64,
    /// When all this happens.
    pub(crate) now: Instant,
    pub(crate) half: &'a mut SendingHalf,
    pub(crate) receiving: &'a ReceivingHalf,
    pub(crate) life: &'a mut Life,
    pub(crate) core: &'a mut Core,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) backlog: &'a mut Backlog,
    pub(crate) events: &'a mut Vec<Event>,
}

impl std::fmt::Debug for Sending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").field("stream_id", &self.stream_id).field("half", &self.half).finish_non_exhaustive()
    }
}

impl Sending<'_> {
    // ---------------------------------------------------------------- for the application

    /// State of this half.
    #[must_use]
    #[inline]
    pub fn state(&self) -> SendState {
        self.half.state
    }

    /// Accept a prefix of `data`, with a copy; how much. `None` when this half is closed.
    pub fn write(&mut self, data: &[u8]) -> Option<usize> {
        self.accept(data.len(), |queue, accepted| queue.push(&data[..accepted]))
    }

    /// As [`Sending::write`], but what is accepted is kept as it is until it is acknowledged, not copied.
    pub fn write_whole(&mut self, data: &Bytes) -> Option<usize> {
        self.accept(data.len(), |queue, accepted| {
            if accepted < COPY_BELOW {
                queue.push(&data[..accepted]);
            } else {
                queue.push_whole(data.slice(..accepted));
            }
        })
    }

    #[inline]
    fn accept(&mut self, length: usize, push: impl FnOnce(&mut SendQueue, usize)) -> Option<usize> {
        self.core.wants_transmit = true;
        if self.half.state != SendState::Open {
            return None;
        }
        let (sent, _) = self.core.progress(self.stream_id);
        let accepted = self.backlog.room(self.half, sent).min(length);
        if accepted > 0 {
            push(&mut self.half.queue, accepted);
            self.half.written += accepted as u64;
            self.backlog.grow(accepted);
            self.list();
        }
        Some(accepted)
    }

    /// End this half after all accepted bytes. False where it has an end already.
    pub fn finish(&mut self) -> bool {
        let is_open = self.half.state == SendState::Open;
        if is_open {
            self.half.state = SendState::Finished;
            if let Some(session) = self.session() {
                session.unacked += 1;
            }
            self.list();
        }
        // A write that waits for room can no longer go on.
        self.events.push(Event::Writable { connection: self.connection_id, stream: self.stream_id });
        self.core.wants_transmit = true;
        is_open
    }

    /// Abandon this half. The reset waits until the peer is sure to have the stream's header.
    pub fn reset(&mut self, code: u64) -> bool {
        let is_reset = self.abandon(code);
        self.events.push(Event::Writable { connection: self.connection_id, stream: self.stream_id });
        self.events.push(Event::Acked { connection: self.connection_id, stream: self.stream_id });
        // Nor has the peer a reason to stop the stream any more.
        if std::mem::take(&mut self.half.stop_interest) {
            self.events.push(Event::Stopped { connection: self.connection_id, stream: self.stream_id });
        }
        self.core.wants_transmit = true;
        is_reset
    }

    /// Ask for [`Event::Writable`]. False: this half is closed, so try again at once.
    pub fn want_write(&mut self) -> bool {
        // There may be room by now, which is looked for after packets were sent.
        self.core.wants_transmit = true;
        if self.half.state != SendState::Open {
            return false;
        }
        if !std::mem::replace(&mut self.half.write_interest, true) {
            self.backlog.add_writer(self.stream_id);
        }
        true
    }

    /// Ask for [`Event::Acked`]. False: nothing is outstanding.
    pub fn want_acked(&mut self) -> bool {
        let (_, acked) = self.core.progress(self.stream_id);
        let is_outstanding = match self.half.state {
            SendState::Open => !self.half.is_acked(acked),
            SendState::Finished => true,
            _ => false,
        };
        self.half.acked_interest |= is_outstanding;
        is_outstanding
    }

    /// Ask for [`Event::Stopped`]. False: this half is over.
    pub fn want_stopped(&mut self) -> bool {
        let is_undecided = self.half.is_undecided();
        self.half.stop_interest |= is_undecided;
        is_undecided
    }

    /// Payload bytes accepted and not acknowledged.
    #[must_use]
    pub fn unacked(&self) -> u64 {
        let (_, acked) = self.core.progress(self.stream_id);
        match self.half.state {
            SendState::Acked => 0,
            _ => self.half.written.saturating_sub(self.half.payload(acked)),
        }
    }

    /// Higher goes first.
    pub fn set_priority(&mut self, priority: i32) {
        if self.half.state == SendState::Open {
            self.core.set_priority(self.stream_id, priority);
        }
    }

    // ---------------------------------------------------------------- ends

    /// Reset this half, unless it is over; whether that was so.
    pub(crate) fn abandon(&mut self, code: u64) -> bool {
        if !self.half.is_undecided() {
            return false;
        }
        self.count_acked();
        self.half.state = SendState::Reset(code);
        self.note_end();
        self.reset_core(code);
        true
    }

    /// The peer has stopped this half. Whether that changes anything.
    pub(crate) fn stopped(&mut self, code: u64) -> bool {
        if !self.half.is_undecided() {
            return false;
        }
        self.count_acked();
        self.half.state = SendState::Stopped(code);
        self.backlog.shrink(self.half.queue.clear());
        if self.receiving.is_raw() {
            self.events.push(Event::RawStopped { connection: self.connection_id, stream: self.stream_id, code });
        }
        self.note_end();
        // RFC 9000, section 3.5: STOP_SENDING is answered with a reset that carries the same code.
        self.reset_core(code);
        self.wake();
        true
    }

    /// Everything including the end is acknowledged.
    pub(crate) fn finished(&mut self) {
        if self.half.state == SendState::Finished {
            self.count_acked();
            self.half.state = SendState::Acked;
        }
        self.half.held_reset = None;
        self.note_end();
        self.wake();
    }

    /// The connection is over.
    pub(crate) fn lose(&mut self) {
        if self.half.is_undecided() {
            self.half.state = SendState::Gone;
        }
        self.half.held_reset = None;
        self.backlog.shrink(self.half.queue.clear());
        self.note_end();
    }

    fn note_end(&mut self) {
        self.life.note_end(self.now, self.receiving.state, self.half.state);
    }

    /// A finished stream of the session has nothing left that could be acknowledged.
    fn count_acked(&mut self) {
        if self.half.state == SendState::Finished
            && let Some(session) = self.session()
        {
            session.unacked -= 1;
        }
    }

    fn session(&mut self) -> Option<&mut Session> {
        self.sessions.of_mut(self.life.session_id)
    }

    // ---------------------------------------------------------------- resets

    /// Reset in the core, or hold the reset back: a reset that hides the header of its stream leaves the peer with a
    /// stream it cannot attribute (section 4.4 of the draft).
    fn reset_core(&mut self, code: u64) {
        // What is left of the header goes to the core, and nothing else does.
        let keep = self.half.header_left();
        let mut header = Vec::new();
        while (header.len() as u64) < keep {
            let Some(chunk) = self.half.queue.take_front((keep - header.len() as u64) as usize) else { break };
            self.backlog.shrink(chunk.len());
            header.extend_from_slice(&chunk);
        }
        self.backlog.shrink(self.half.queue.clear());
        let written = self.core.write_copy(self.stream_id, &header);
        self.half.pushed += written as u64;
        header.drain(..written);
        if self.give_reset(code) {
            return;
        }
        self.half.held_reset = Some(code);
        self.backlog.held.push_back(self.stream_id);
        if !header.is_empty() {
            self.half.queue.push(&header);
            self.backlog.grow(header.len());
            self.list();
        }
    }

    /// Give a reset to the core, if it takes it now.
    fn give_reset(&mut self, code: u64) -> bool {
        let header = &self.half.header[..self.half.header_length as usize];
        let is_acked = self.half.state == SendState::Acked;
        self.core.reset(self.stream_id, code, header, self.half.pushed, is_acked)
    }

    /// Try to give a held reset to the core. `None`: none is held; otherwise, whether it is gone.
    pub(crate) fn try_held(&mut self) -> Option<bool> {
        let code = self.half.held_reset?;
        let is_given = self.give_reset(code);
        if is_given {
            self.core.wants_transmit = true;
            self.half.held_reset = None;
            self.note_end();
        }
        Some(is_given)
    }

    // ---------------------------------------------------------------- wake-ups

    /// More of this half was acknowledged.
    pub(crate) fn acknowledged(&mut self) {
        if !self.half.acked_interest {
            return;
        }
        let (_, acked) = self.core.progress(self.stream_id);
        // After `finish`, the core's own event reports that everything with the end is acknowledged.
        if self.half.state == SendState::Open && self.half.is_acked(acked) {
            self.half.acked_interest = false;
            self.events.push(Event::Acked { connection: self.connection_id, stream: self.stream_id });
        }
    }

    /// Let everybody who waits for this half go on.
    pub(crate) fn wake(&mut self) {
        let (connection, stream) = (self.connection_id, self.stream_id);
        if std::mem::take(&mut self.half.write_interest) {
            self.events.push(Event::Writable { connection, stream });
        }
        if std::mem::take(&mut self.half.acked_interest) {
            self.events.push(Event::Acked { connection, stream });
        }
        if std::mem::take(&mut self.half.stop_interest) {
            self.events.push(Event::Stopped { connection, stream });
        }
    }

    // ---------------------------------------------------------------- flushing

    /// List the stream for the next flush.
    pub(crate) fn list(&mut self) {
        self.backlog.list(self.stream_id, self.half, self.life, self.sessions);
    }

    /// Serve the stream: give queued bytes to the core, a quantum at most, as far as it takes them and the session's
    /// credit goes.
    pub(crate) fn flush(&mut self) {
        self.half.is_listed = false;
        let pushed = self.half.pushed;
        let is_blocked = self.push();
        if self.half.queue.is_empty() {
            if let Some(since) = self.half.blocked_since.take() {
                self.half.blocked += self.now.saturating_duration_since(since).as_secs_f64();
            }
            if self.half.state == SendState::Finished && !std::mem::replace(&mut self.half.is_end_pushed, true) {
                self.core.finish(self.stream_id);
            }
        } else if is_blocked {
            self.half.blocked_since.get_or_insert(self.now);
        }
        if self.half.pushed > pushed {
            let session = self.life.session_id.and_then(|id| Some((id, &mut self.sessions.get_mut(id)?.served)));
            self.backlog.schedule.serve(&mut self.half.served, session);
        }
        if !self.half.queue.is_empty() && !is_blocked {
            self.list();
        }
    }

    /// Whether the core or the session's credit holds back what is left in the queue.
    fn push(&mut self) -> bool {
        let mut session = self.sessions.of_mut(self.life.session_id);
        let mut quantum = QUANTUM;
        let mut is_blocked = false;
        while quantum > 0 && !self.half.queue.is_empty() {
            let header_left = self.half.header_left();
            let mut most = quantum;
            if header_left > 0 {
                // The header is not payload, and needs no credit.
                most = most.min(header_left as usize);
            } else if let Some(session) = &mut session
                && session.limits.flow_control
            {
                let credit = session.send_credit();
                if credit == 0 {
                    if let Some(limit) = session.note_blocked()
                        && let Some(session_id) = self.life.session_id
                    {
                        let connection = self.connection_id;
                        self.events.push(Event::CreditBlocked { connection, session: session_id, limit });
                    }
                    return true;
                }
                most = most.min(usize::try_from(credit).unwrap_or(usize::MAX));
            }
            let Some(mut chunk) = self.half.queue.take_front(most) else { break };
            let length = chunk.len();
            match self.core.write(self.stream_id, &mut chunk) {
                Written::Some(written) => {
                    self.half.queue.put_back(chunk);
                    self.half.pushed += written as u64;
                    self.backlog.shrink(written);
                    quantum -= written.min(quantum);
                    if header_left == 0
                        && let Some(session) = &mut session
                    {
                        session.count_sent(written as u64);
                    }
                    // If it did not take all, ask again, so that the core notes this stream as blocked and reports when it
                    // is not.
                    is_blocked |= written < length;
                }
                Written::Blocked => {
                    self.half.queue.put_back(chunk);
                    return true;
                }
                Written::Gone => {
                    // The report that says why is already queued or was handled.
                    self.backlog.shrink(self.half.queue.clear() + chunk.len());
                    break;
                }
            }
        }
        is_blocked
    }
}
