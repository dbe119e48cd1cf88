//! What all streams of a connection have accepted from their writers and not yet given to the core, and who waits for
//! that to get less.

use std::{collections::VecDeque, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    memory::Memory,
    schedule::{self, Schedule},
    session::Sessions,
    stream::{Life, SendingHalf, Stream},
};

/// Bytes a stream may queue even when the connection's queue is full.
const STREAM_RESERVE: usize = 16 * 1024;

/// The sending side of a connection, across its streams. The bytes themselves are in the queues of the streams.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Streams with something to give to the core.
    pub(crate) schedule: Schedule,
    /// Streams somebody waits to write to, each once: those with a `write_interest`, and some that have lost it since.
    writers: Vec<u64>,
    /// Streams with a held reset, the one tried longest ago first. As `writers`, bounded by the connection's streams.
    pub(crate) held: VecDeque<u64>,
    /// Sum of the queues of all streams.
    bytes: usize,
    /// Bytes that one stream may have accepted and not sent.
    most_of_stream: usize,
    /// Bytes that all queues together may hold, apart from [`STREAM_RESERVE`] for each stream.
    most: usize,
    /// The budget of a server. While it is short, nothing more is accepted.
    memory: Option<Arc<Memory>>,
}

impl Backlog {
    pub(crate) fn new(most_of_stream: usize, most: usize, memory: Option<Arc<Memory>>) -> Self {
        Self {
            schedule: Schedule::default(),
            writers: Vec::new(),
            held: VecDeque::new(),
            bytes: 0,
            most_of_stream,
            most,
            memory,
        }
    }

    /// Bytes were put into the queue of a stream.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Bytes were taken from the queue of a stream.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Bytes in the queues of all streams.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that a stream may accept, of whose bytes `sent` have left.
    pub(crate) fn room(&self, half: &SendingHalf, sent: u64) -> usize {
        if self.is_short() {
            return 0;
        }
        let own = self.most_of_stream.saturating_sub(half.unsent(sent));
        let shared = self.most.saturating_sub(self.bytes);
        // Streams that nobody reads may fill the connection's queue; the others still get on.
        own.min(shared.max(STREAM_RESERVE.saturating_sub(half.queue.len())))
    }

    fn is_short(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.is_short())
    }

    /// Whether the writer of a stream that had no room is to go on. Not for each byte: when half of its queue is free.
    fn may_go_on(&self, half: &SendingHalf, sent: u64) -> bool {
        let is_full = self.bytes * 2 > self.most;
        !self.is_short()
            && half.unsent(sent) <= self.most_of_stream / 2
            && !(is_full && half.queue.len() > STREAM_RESERVE / 2)
    }

    /// Somebody waits to write to a stream.
    pub(crate) fn add_writer(&mut self, stream_id: u64) {
        self.writers.push(stream_id);
    }

    pub(crate) fn has_writers(&self) -> bool {
        !self.writers.is_empty()
    }

    /// Streams whose writers may go on, in the order in which streams are served. `sent` says how many bytes of one have
    /// left.
    pub(crate) fn take_writers(
        &mut self,
        streams: &mut FxHashMap<u64, Box<Stream>>,
        sessions: &Sessions,
        sent: impl Fn(u64) -> u64,
    ) -> Vec<u64> {
        let mut writers = std::mem::take(&mut self.writers);
        let mut woken = Vec::new();
        writers.retain(|&stream_id| {
            let Some(stream) = streams.get_mut(&stream_id) else { return false };
            let half = &mut stream.sending;
            if !half.write_interest {
                return false;
            }
            if !self.may_go_on(half, sent(stream_id)) {
                return true;
            }
            half.write_interest = false;
            woken.push((sessions.served(stream.life.session_id), half.served, stream_id));
            false
        });
        self.writers = writers;
        schedule::in_order(woken)
    }

    /// List a stream for the next flush, if it is not.
    pub(crate) fn list(&mut self, stream_id: u64, half: &mut SendingHalf, life: &Life, sessions: &Sessions) {
        if !std::mem::replace(&mut half.is_listed, true) {
            self.schedule.list((sessions.served(life.session_id), life.session_id), (half.served, stream_id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{session::SessionLimits, stream::Phase};

    fn half(queued: usize, pushed: u64) -> SendingHalf {
        let mut half = Stream::new(Instant::now(), Phase::Data, false, true, true).sending;
        half.queue.push(&vec![0; queued]);
        half.pushed = pushed;
        half
    }

    #[test]
    fn a_stream_has_room_for_what_neither_waits_nor_lies_unsent_in_the_core() {
        let mut backlog = Backlog::new(100_000, 1_000_000, None);
        assert_eq!(backlog.room(&half(0, 0), 0), 100_000);
        assert_eq!(backlog.room(&half(20_000, 50_000), 10_000), 40_000);
        assert_eq!(backlog.room(&half(20_000, 500_000), 0), 0);
        backlog.grow(970_000);
        assert_eq!(backlog.room(&half(20_000, 0), 0), 30_000);
        backlog.shrink(900_000);
        assert_eq!(backlog.room(&half(20_000, 0), 0), 80_000);
    }

    #[test]
    fn a_full_connection_leaves_every_stream_a_little() {
        let mut backlog = Backlog::new(100_000, 50_000, None);
        backlog.grow(60_000);
        assert_eq!(backlog.room(&half(0, 0), 0), STREAM_RESERVE);
        assert_eq!(backlog.room(&half(STREAM_RESERVE, 0), 0), 0);
        assert!(backlog.may_go_on(&half(STREAM_RESERVE / 2, 0), 0));
        assert!(!backlog.may_go_on(&half(STREAM_RESERVE / 2 + 1, 0), 0));
    }

    #[test]
    fn writers_that_may_go_on_are_woken_once_whoever_was_not_served_for_longest_first() {
        let mut backlog = Backlog::new(100_000, 1_000_000, None);
        let mut sessions = Sessions::default();
        let mut streams: FxHashMap<u64, Box<Stream>> = FxHashMap::default();
        for (stream_id, session_id) in [(0, 0), (4, 0), (8, 4), (12, 4), (16, 8)] {
            sessions.register(session_id, SessionLimits::default(), [0, 0], 0);
            let mut stream = Box::new(Stream::new(Instant::now(), Phase::Data, false, true, true));
            stream.life.session_id = Some(session_id);
            stream.sending.write_interest = true;
            streams.insert(stream_id, stream);
            backlog.add_writer(stream_id);
        }
        // Stream 4 was served and so its session, stream 12 has no room, and nobody waits for stream 16 any more.
        let served = &mut streams.get_mut(&4).unwrap().sending.served;
        backlog.schedule.serve(served, sessions.get_mut(0).map(|session| (0, &mut session.served)));
        streams.get_mut(&12).unwrap().sending.queue.push(&[0; 60_000]);
        streams.get_mut(&16).unwrap().sending.write_interest = false;
        assert_eq!(backlog.take_writers(&mut streams, &sessions, |_| 0), [8, 0, 4]);
        assert!(!streams[&0].sending.write_interest && streams[&12].sending.write_interest);
        assert_eq!(backlog.writers, [12]);
        streams.get_mut(&12).unwrap().sending.queue.clear();
        assert_eq!(backlog.take_writers(&mut streams, &sessions, |_| 0), [12]);
        assert!(!backlog.has_writers());
    }

    #[test]
    fn a_writer_goes_on_when_half_of_its_queue_is_free() {
        let backlog = Backlog::new(100_000, 1_000_000, None);
        assert!(!backlog.may_go_on(&half(10_000, 50_000), 9_999));
        assert!(backlog.may_go_on(&half(10_000, 50_000), 10_000));
    }
}
