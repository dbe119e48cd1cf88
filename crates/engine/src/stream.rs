//! One stream: the buffer between the QUIC core and its reader, the bounded queue between its writer and the core.
//!
//! Received bytes stay in the core, where they hold back the peer, until somebody reads. What a read had to collect
//! and could not yet return (a line, an exact count) lies in `received`, so that a cancelled read loses nothing.

use std::time::Instant;

use bytes::BytesMut;

use crate::{
    buffer::{ReceiveBuffer, SendQueue},
    header::HEADER_LIMIT,
};

/// State of the receiving half. "Ended" is only reported once everything was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReceiveState {
    /// This stream has no receiving half.
    None,
    Open,
    Ended,
    /// The peer abandoned it with this wire code.
    Reset(u64),
    /// We stopped it with this wire code.
    Stopped(u64),
    /// The connection is gone.
    Gone,
}

/// State of the sending half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SendState {
    /// This stream has no sending half.
    None,
    Open,
    /// The end was given; bytes may still be on their way.
    Finished,
    /// Everything including the end is acknowledged.
    Acked,
    /// We abandoned it with this wire code.
    Reset(u64),
    /// The peer stopped it with this wire code.
    Stopped(u64),
    /// The connection is gone.
    Gone,
}

impl SendState {
    /// Whether nothing of this half is left to do for the engine.
    pub(crate) fn is_done(self) -> bool {
        !matches!(self, Self::Open | Self::Finished)
    }
}

/// Result of a read that may have to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReadOutcome {
    /// This many bytes at the front of the buffer are the answer.
    Ready(usize),
    Wait,
    Ended,
    OverLimit,
}

/// Numbers for diagnostics. Byte counts are payload; times are on the engine's clock.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct StreamStats {
    pub written: u64,
    pub sent: u64,
    pub acked: u64,
    pub received: u64,
    pub read: u64,
    pub send_buffered: u64,
    pub receive_buffered: u64,
    pub blocked: f64,
    pub created: Instant,
    pub first_byte: Option<Instant>,
    pub ended: Option<Instant>,
}

/// The head of a peer's stream, while it is being read.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The first varints are incomplete.
    Header(BytesMut),
    /// A WebTransport data stream.
    Data,
    /// Everything else; Python reads it whole.
    Raw,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) session: Option<u64>,
    /// Its place among the session's streams.
    pub(crate) place: usize,
    pub(crate) phase: Phase,
    pub(crate) peer_initiated: bool,
    /// A Python object (or anything else above) refers to this stream.
    pub(crate) has_handle: bool,
    /// The handle was given out at least once.
    pub(crate) created: Instant,
    pub(crate) first_byte: Option<Instant>,
    pub(crate) ended: Option<Instant>,
    // -- receiving
    pub(crate) receive: ReceiveState,
    pub(crate) buffer: ReceiveBuffer,
    /// The core reported this end; visible as `receive` once the buffer is empty.
    pub(crate) pending_end: Option<ReceiveState>,
    pub(crate) read_interest: bool,
    /// Something arrived since the last read, while nobody waited. Between a read that found nothing and the call that
    /// waits, the guardian may have received: such a wait must not begin.
    pub(crate) has_news: bool,
    /// RawReadable was reported and not yet answered by a read that found nothing.
    pub(crate) raw_notified: bool,
    pub(crate) read: u64,
    /// Bytes of the peer's stream header.
    pub(crate) receive_header: u64,
    /// The peer's reset is known here, and the core still keeps this half: until the reader has seen the reset, so that the
    /// peer's credit for the stream does not come back before.
    pub(crate) is_kept_by_core: bool,
    /// Payload counted in the session's ledger as arrived: up to the highest offset or the final size.
    pub(crate) arrived: u64,
    /// Payload counted there as consumed.
    pub(crate) consumed: u64,
    /// Payload that a reader has asked for, taken or collected in `buffer`.
    pub(crate) wanted: u64,
    /// The session's ledger counts it as closed.
    pub(crate) is_counted_closed: bool,
    /// The peer's final size is known.
    pub(crate) is_extent_final: bool,
    /// The peer's reset arrived, which may be before it is due to whoever reads.
    pub(crate) was_reset: bool,
    // -- sending
    pub(crate) send: SendState,
    pub(crate) queue: SendQueue,
    /// Our header, in its first `header_length` bytes.
    pub(crate) header: [u8; HEADER_LIMIT],
    pub(crate) header_length: u64,
    /// Bytes given to the core, header included.
    pub(crate) pushed: u64,
    /// Payload accepted from the writer.
    pub(crate) written: u64,
    /// The end has been given to the core.
    pub(crate) end_pushed: bool,
    /// A reset (its wire code) that waits for the header to be sent or acknowledged, or for fewer resets under way.
    pub(crate) held_reset: Option<u64>,
    pub(crate) write_interest: bool,
    pub(crate) acked_interest: bool,
    pub(crate) stop_interest: bool,
    /// Listed for the next flush.
    pub(crate) flush_listed: bool,
    pub(crate) blocked_since: Option<Instant>,
    pub(crate) blocked: f64,
    /// The connection's turn in which this stream was last served.
    pub(crate) turn: u64,
}

impl Stream {
    pub(crate) fn new(now: Instant, phase: Phase, peer_initiated: bool, receives: bool, sends: bool) -> Self {
        Self {
            session: None,
            place: 0,
            phase,
            peer_initiated,
            has_handle: false,
            created: now,
            first_byte: None,
            ended: None,
            receive: if receives { ReceiveState::Open } else { ReceiveState::None },
            buffer: ReceiveBuffer::default(),
            pending_end: None,
            read_interest: false,
            has_news: false,
            raw_notified: false,
            read: 0,
            receive_header: 0,
            is_kept_by_core: false,
            arrived: 0,
            consumed: 0,
            wanted: 0,
            is_counted_closed: false,
            is_extent_final: false,
            was_reset: false,
            send: if sends { SendState::Open } else { SendState::None },
            queue: SendQueue::default(),
            header: [0; HEADER_LIMIT],
            header_length: 0,
            pushed: 0,
            written: 0,
            end_pushed: false,
            held_reset: None,
            write_interest: false,
            acked_interest: false,
            stop_interest: false,
            flush_listed: false,
            blocked_since: None,
            blocked: 0.0,
            turn: 0,
        }
    }

    /// Payload of the peer's that was asked for or that nobody can read any more.
    pub(crate) fn past_reading(&self) -> u64 {
        let is_over = self.receive != ReceiveState::Open
            || self.was_reset
            || matches!(self.pending_end, Some(ReceiveState::Reset(_)));
        if is_over { self.arrived } else { self.wanted }
    }

    /// Make the end visible once the buffer is empty.
    pub(crate) fn settle_receive(&mut self, now: Instant) {
        if self.buffer.is_empty()
            && self.receive == ReceiveState::Open
            && let Some(end) = self.pending_end
        {
            self.receive = end;
            self.settle_ended(now);
        }
    }

    pub(crate) fn settle_ended(&mut self, now: Instant) {
        if self.receive != ReceiveState::Open && self.send.is_done() && self.ended.is_none() {
            self.ended = Some(now);
        }
    }

    /// Whether nothing is left to do in either direction.
    pub(crate) fn is_over(&self) -> bool {
        self.receive != ReceiveState::Open && self.send.is_done() && self.held_reset.is_none() && !self.is_kept_by_core
    }

    /// Whether the engine may forget the stream.
    pub(crate) fn is_forgettable(&self) -> bool {
        !self.has_handle && self.is_over()
    }

    /// Answer a read for whatever is there, at most `most` bytes.
    pub(crate) fn outcome_of(&self, ready: Option<usize>) -> ReadOutcome {
        match ready {
            Some(length) => ReadOutcome::Ready(length),
            None if self.receive != ReceiveState::Open || self.pending_end.is_some() => ReadOutcome::Ended,
            None => ReadOutcome::Wait,
        }
    }
}
