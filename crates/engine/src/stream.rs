//! One stream as the application sees it: how each half stands, what a read is answered, what the writer has left to send.
//!
//! Received bytes stay in the QUIC core, where they hold back the peer, until somebody reads. What a read had to collect
//! and could not yet return (a line, an exact count) is in the receiving half's buffer, so that a cancelled read loses
//! nothing.
//!
//! Nothing here asks the core for anything; the views in [`receiving`](crate::receiving) and [`sending`](crate::sending)
//! do, and change what is here.

use std::time::Instant;

use bytes::BytesMut;

use crate::{
    buffer::{ReceiveBuffer, SendQueue},
    header::HEADER_LIMIT,
    schedule::Served,
};

/// Whether a stream is bidirectional (RFC 9000, section 2.1).
pub(crate) fn is_bidirectional(stream_id: u64) -> bool {
    stream_id & 2 == 0
}

/// Index of a stream's direction: 0 for bidirectional ones, 1 for unidirectional ones.
pub(crate) fn direction(stream_id: u64) -> usize {
    direction_index(is_bidirectional(stream_id))
}

/// The same for streams to come.
pub(crate) fn direction_index(bidirectional: bool) -> usize {
    usize::from(!bidirectional)
}

/// How far a stream reaches, as its peer counts it: what is missing below the end is part of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Highest offset seen, stream header included.
    pub(crate) end: u64,
    /// Whether that is the final size.
    pub(crate) is_final: bool,
    /// Whether the core was given a reset, with which it drops what nobody took from it.
    pub(crate) is_reset: bool,
}

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

/// Figures for diagnostics. Byte counts are payload; times are on the engine's clock.
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
    /// The first varints are incomplete; these bytes of them are here.
    Header(BytesMut),
    /// A WebTransport data stream.
    Data,
    /// Everything else; Python reads it whole.
    Raw,
}

/// What a stream is made of. The halves are apart so that who changes one can do no more than look at the other.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) life: Life,
    pub(crate) receiving: ReceivingHalf,
    pub(crate) sending: SendingHalf,
}

impl Stream {
    pub(crate) fn new(now: Instant, phase: Phase, is_from_peer: bool, receives: bool, sends: bool) -> Self {
        Self {
            life: Life {
                session_id: None,
                place: 0,
                is_from_peer,
                has_handle: false,
                is_counted_closed: false,
                created: now,
                first_byte: None,
                ended: None,
            },
            receiving: ReceivingHalf {
                state: if receives { ReceiveState::Open } else { ReceiveState::None },
                phase,
                header_length: 0,
                buffer: ReceiveBuffer::default(),
                pending_end: None,
                is_kept_by_core: false,
                read_interest: false,
                has_arrived: false,
                turn: 0,
                is_raw_reported: false,
                read: 0,
                wanted: 0,
                arrived: 0,
                consumed: 0,
                is_extent_final: false,
                was_reset: false,
            },
            sending: SendingHalf {
                state: if sends { SendState::Open } else { SendState::None },
                queue: SendQueue::default(),
                header: [0; HEADER_LIMIT],
                header_length: 0,
                pushed: 0,
                written: 0,
                is_end_pushed: false,
                held_reset: None,
                write_interest: false,
                acked_interest: false,
                stop_interest: false,
                is_listed: false,
                served: Served::default(),
                blocked_since: None,
                blocked: 0.0,
            },
        }
    }

    /// Figures for diagnostics. `received` and `progress` (sent, acknowledged) are the core's offsets, headers
    /// included.
    pub(crate) fn stats(&self, now: Instant, received: u64, progress: (u64, u64)) -> StreamStats {
        let Self { life, receiving, sending } = self;
        let pulled = receiving.read + receiving.buffer.len() as u64;
        let received = pulled.max(received.saturating_sub(receiving.header_length));
        let blocked_now = sending.blocked_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let (sent, acked) = match sending.state {
            SendState::Acked => (sending.pushed, sending.pushed),
            _ => progress,
        };
        StreamStats {
            written: sending.written,
            sent: sending.payload(sent),
            acked: sending.payload(acked),
            received,
            read: receiving.read,
            send_buffered: sending.written.saturating_sub(sending.payload(sent)),
            receive_buffered: match receiving.state {
                ReceiveState::Open => received - receiving.read,
                // What a stop or a reset threw away no longer waits for anybody.
                _ => receiving.buffer.len() as u64,
            },
            blocked: sending.blocked + blocked_now,
            created: life.created,
            first_byte: life.first_byte,
            ended: life.ended,
        }
    }
}

/// What concerns a stream as a whole.
#[derive(Debug)]
pub(crate) struct Life {
    /// The session that it belongs to. `None`: a raw stream, or one of the peer whose header has not come.
    pub(crate) session_id: Option<u64>,
    /// Its place among the session's streams, see [`Members`](crate::members::Members).
    pub(crate) place: usize,
    /// The peer opened it.
    pub(crate) is_from_peer: bool,
    /// A Python object (or anything else above) refers to this stream. Until that lets go, the stream is remembered.
    pub(crate) has_handle: bool,
    /// The session's ledger counts it as closed, so that the peer may open another one.
    pub(crate) is_counted_closed: bool,
    /// When it was opened here, or its first packet arrived.
    pub(crate) created: Instant,
    /// When payload arrived first.
    pub(crate) first_byte: Option<Instant>,
    /// When both halves had come to an end.
    pub(crate) ended: Option<Instant>,
}

impl Life {
    /// Note the end, if both halves have come to theirs.
    pub(crate) fn note_end(&mut self, now: Instant, receiving: ReceiveState, sending: SendState) {
        if receiving != ReceiveState::Open && sending.is_done() && self.ended.is_none() {
            self.ended = Some(now);
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(crate) struct ReceivingHalf {
    /// As the reader sees it: an end shows once everything before it was read.
    pub(crate) state: ReceiveState,
    pub(crate) phase: Phase,
    /// Bytes of the peer's stream header. Offsets of the core include them, payload does not.
    pub(crate) header_length: u64,
    /// Taken from the core and not yet returned by a read. Bounded by what readers ask for at once.
    pub(crate) buffer: ReceiveBuffer,
    /// The core reported this end; visible as `state` once the buffer is empty.
    pub(crate) pending_end: Option<ReceiveState>,
    /// The peer's reset is known here, and the core still keeps this half: until the reader has seen the reset, so that the
    /// peer's credit for the stream does not come back before.
    pub(crate) is_kept_by_core: bool,
    /// Somebody waits for data or the end. Reset when that is reported.
    pub(crate) read_interest: bool,
    /// Something arrived since the last read, while nobody waited. Between a read that found nothing and the call that
    /// waits, the guardian may have received: such a wait must not begin.
    pub(crate) has_arrived: bool,
    /// When it was read last under the rate of its session, counted in reads of the whole connection; 0 for never.
    pub(crate) turn: u64,
    /// RawReadable was reported and not yet answered by a read that found nothing.
    pub(crate) is_raw_reported: bool,
    /// Payload that reads have returned.
    pub(crate) read: u64,
    /// Payload that a reader has asked for, taken or collected in `buffer`.
    pub(crate) wanted: u64,
    /// Payload counted in the session's ledger as arrived: up to the highest offset or the final size.
    pub(crate) arrived: u64,
    /// Payload counted there as consumed.
    pub(crate) consumed: u64,
    /// The peer's final size is known.
    pub(crate) is_extent_final: bool,
    /// The peer's reset arrived, which may be before it is due to whoever reads.
    pub(crate) was_reset: bool,
}

impl ReceivingHalf {
    /// Whether Python reads the stream whole, from its first byte on.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.phase, Phase::Raw)
    }

    /// Whether a read has something to wait for: neither an end nor its announcement is here.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state == ReceiveState::Open && self.pending_end.is_none()
    }

    /// Whether nothing of this half is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.state != ReceiveState::Open && !self.is_kept_by_core
    }

    /// Payload of the peer's that was asked for or that nobody can read any more.
    pub(crate) fn past_reading(&self) -> u64 {
        let is_over = self.state != ReceiveState::Open
            || self.was_reset
            || matches!(self.pending_end, Some(ReceiveState::Reset(_)));
        if is_over { self.arrived } else { self.wanted }
    }

    /// How much more of that there is since the last call.
    #[inline]
    pub(crate) fn take_consumed(&mut self) -> u64 {
        let more = self.past_reading().saturating_sub(self.consumed);
        self.consumed += more;
        more
    }

    /// Make the end visible once the buffer is empty; whether it is now and was not before.
    pub(crate) fn settle(&mut self) -> bool {
        if self.buffer.is_empty()
            && self.state == ReceiveState::Open
            && let Some(end) = self.pending_end
        {
            self.state = end;
            return true;
        }
        false
    }

    /// The same before the buffer is empty, for a reader of everything: without a proper end nothing can complete what is in
    /// the buffer. It stays there, but the reader learns of the end.
    pub(crate) fn settle_incomplete(&mut self) -> bool {
        if self.state == ReceiveState::Open
            && let Some(end) = self.pending_end.filter(|end| *end != ReceiveState::Ended)
        {
            self.state = end;
            return true;
        }
        false
    }

    /// Answer a read of at most `most` bytes from what is in the buffer.
    pub(crate) fn answer(&self, most: usize) -> ReadOutcome {
        self.conclude((!self.buffer.is_empty()).then(|| self.buffer.len().min(most)))
    }

    /// The same for a read of exactly `count` bytes.
    pub(crate) fn answer_exactly(&self, count: usize) -> ReadOutcome {
        self.conclude((self.buffer.len() >= count).then_some(count))
    }

    /// The same for a read through the first `separator`, which at most `limit` bytes may precede.
    pub(crate) fn answer_until(&mut self, separator: &[u8], limit: usize) -> ReadOutcome {
        match self.buffer.find(separator) {
            Some(length) if length - separator.len() > limit => ReadOutcome::OverLimit,
            // As in asyncio: the bytes before the separator are what counts.
            None if self.buffer.len() >= limit.saturating_add(separator.len()) => ReadOutcome::OverLimit,
            found => self.conclude(found),
        }
    }

    /// The same for a read of everything.
    pub(crate) fn answer_all(&self, limit: Option<usize>) -> ReadOutcome {
        if limit.is_some_and(|limit| self.buffer.len() > limit) {
            return ReadOutcome::OverLimit;
        }
        let is_at_end = self.pending_end == Some(ReceiveState::Ended) || self.state == ReceiveState::Ended;
        self.conclude(is_at_end.then(|| self.buffer.len()))
    }

    fn conclude(&self, ready: Option<usize>) -> ReadOutcome {
        match ready {
            Some(length) => ReadOutcome::Ready(length),
            None if self.is_waiting() => ReadOutcome::Wait,
            None => ReadOutcome::Ended,
        }
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub(crate) struct SendingHalf {
    /// As the writer sees it.
    pub(crate) state: SendState,
    /// Accepted from the writer and not given to the core, our header in front.
    pub(crate) queue: SendQueue,
    /// Our header, in its first `header_length` bytes.
    pub(crate) header: [u8; HEADER_LIMIT],
    pub(crate) header_length: u64,
    /// Bytes given to the core, header included.
    pub(crate) pushed: u64,
    /// Payload accepted from the writer.
    pub(crate) written: u64,
    /// The end has been given to the core.
    pub(crate) is_end_pushed: bool,
    /// A reset (its wire code) that waits for the header to be sent or acknowledged, or for fewer resets under way.
    pub(crate) held_reset: Option<u64>,
    /// Somebody waits for room in the queue. Reset when that is reported, as those below.
    pub(crate) write_interest: bool,
    /// Somebody waits until all is acknowledged.
    pub(crate) acked_interest: bool,
    /// Somebody waits for the peer's STOP_SENDING.
    pub(crate) stop_interest: bool,
    /// Listed in the [`Schedule`](crate::schedule::Schedule).
    pub(crate) is_listed: bool,
    /// When it was last served.
    pub(crate) served: Served,
    /// Since when the peer's credit or the core's buffer has held it back.
    pub(crate) blocked_since: Option<Instant>,
    /// Seconds for which that was so before.
    pub(crate) blocked: f64,
}

impl SendingHalf {
    /// Whether an end or a reset can still be given.
    pub(crate) fn is_undecided(&self) -> bool {
        matches!(self.state, SendState::Open | SendState::Finished)
    }

    /// Whether nothing of this half is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.state.is_done() && self.held_reset.is_none()
    }

    /// Bytes of our header that the core does not have yet.
    pub(crate) fn header_left(&self) -> u64 {
        self.header_length.saturating_sub(self.pushed)
    }

    /// The payload below an offset of the core's.
    pub(crate) fn payload(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.header_length)
    }

    /// Bytes that are accepted and did not leave: in the queue, or in the core's buffer, of which `sent` have left.
    pub(crate) fn unsent(&self, sent: u64) -> usize {
        self.queue.len() + usize::try_from(self.pushed.saturating_sub(sent)).unwrap_or(usize::MAX)
    }

    /// Whether all that was accepted is with the core and acknowledged.
    pub(crate) fn is_acked(&self, acked: u64) -> bool {
        self.queue.is_empty() && acked >= self.pushed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn stream() -> Stream {
        Stream::new(Instant::now(), Phase::Data, true, true, true)
    }

    fn half(data: &'static [u8], pending_end: Option<ReceiveState>) -> ReceivingHalf {
        let mut half = stream().receiving;
        half.buffer.push(Bytes::from_static(data));
        half.pending_end = pending_end;
        half
    }

    #[test]
    fn a_read_gets_what_is_there_or_waits_or_learns_of_the_end() {
        assert_eq!(half(b"abc", None).answer(2), ReadOutcome::Ready(2));
        assert_eq!(half(b"abc", Some(ReceiveState::Ended)).answer(9), ReadOutcome::Ready(3));
        assert_eq!(half(b"", None).answer(9), ReadOutcome::Wait);
        for end in [ReceiveState::Ended, ReceiveState::Reset(7), ReceiveState::Gone] {
            assert_eq!(half(b"", Some(end)).answer(9), ReadOutcome::Ended);
        }
    }

    #[test]
    fn an_exact_read_gets_all_or_nothing() {
        assert_eq!(half(b"abc", None).answer_exactly(3), ReadOutcome::Ready(3));
        assert_eq!(half(b"abc", None).answer_exactly(4), ReadOutcome::Wait);
        assert_eq!(half(b"abc", Some(ReceiveState::Ended)).answer_exactly(4), ReadOutcome::Ended);
        assert_eq!(half(b"", None).answer_exactly(0), ReadOutcome::Ready(0));
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_without_its_separator() {
        assert_eq!(half(b"abcd\r\nx", None).answer_until(b"\r\n", 4), ReadOutcome::Ready(6));
        assert_eq!(half(b"abcd\r\nx", None).answer_until(b"\r\n", 3), ReadOutcome::OverLimit);
        assert_eq!(half(b"abcd\r", None).answer_until(b"\r\n", 4), ReadOutcome::Wait);
        assert_eq!(half(b"abcdef", None).answer_until(b"\r\n", 4), ReadOutcome::OverLimit);
        assert_eq!(half(b"abcd", Some(ReceiveState::Ended)).answer_until(b"\r\n", 4), ReadOutcome::Ended);
    }

    #[test]
    fn a_read_of_everything_waits_for_a_proper_end() {
        assert_eq!(half(b"abc", None).answer_all(None), ReadOutcome::Wait);
        assert_eq!(half(b"abc", None).answer_all(Some(2)), ReadOutcome::OverLimit);
        assert_eq!(half(b"abc", Some(ReceiveState::Ended)).answer_all(Some(3)), ReadOutcome::Ready(3));
        let mut reset = half(b"abc", Some(ReceiveState::Reset(7)));
        assert_eq!(reset.answer_all(None), ReadOutcome::Ended);
        assert!(reset.settle_incomplete());
        assert_eq!((reset.state, reset.buffer.len()), (ReceiveState::Reset(7), 3));
        assert!(!half(b"abc", Some(ReceiveState::Ended)).settle_incomplete());
    }

    #[test]
    fn an_end_shows_once_everything_before_it_was_read() {
        let mut half = half(b"abc", Some(ReceiveState::Ended));
        assert!(!half.settle());
        half.buffer.take_into(&mut [0; 3]);
        assert!(half.settle() && !half.settle());
        assert_eq!(half.state, ReceiveState::Ended);
        assert!(half.is_over());
        half.is_kept_by_core = true;
        assert!(!half.is_over());
    }

    #[test]
    fn what_a_reset_cut_off_counts_as_read() {
        let mut half = half(b"", None);
        (half.arrived, half.wanted) = (100, 10);
        assert_eq!(half.past_reading(), 10);
        half.was_reset = true;
        assert_eq!(half.past_reading(), 100);
        half.was_reset = false;
        half.pending_end = Some(ReceiveState::Ended);
        assert_eq!(half.past_reading(), 10);
        half.pending_end = Some(ReceiveState::Reset(7));
        assert_eq!(half.past_reading(), 100);
    }

    #[test]
    fn the_end_of_a_stream_is_that_of_its_later_half() {
        let mut life = stream().life;
        let now = life.created;
        life.note_end(now, ReceiveState::Open, SendState::Acked);
        life.note_end(now, ReceiveState::Ended, SendState::Finished);
        assert_eq!(life.ended, None);
        life.note_end(now, ReceiveState::Ended, SendState::Acked);
        assert_eq!(life.ended, Some(now));
    }

    #[test]
    fn what_did_not_leave_is_counted_with_the_header_and_payload_without() {
        let mut half = stream().sending;
        half.header_length = 3;
        half.queue.push(b"abcdefg");
        half.pushed = 2;
        assert_eq!((half.header_left(), half.unsent(1), half.payload(2), half.payload(5)), (1, 8, 0, 2));
        assert!(!half.is_acked(2));
        half.queue.clear();
        assert!(half.is_acked(2) && !half.is_acked(1));
    }
}
