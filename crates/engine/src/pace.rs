//! How fast a session is read: a rate for all of its streams together, and who waits for it.
//!
//! What is not read is not taken from the core, so the flow control of QUIC holds the peer back, and nothing is lost.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// The rate of one session.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes per second.
    rate: u64,
    /// When as much time has passed as what was read is worth; `None` before the first.
    paid: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, paid: None }
    }

    /// Bytes that may be read now: none, or what the rate is worth in a tenth of a second.
    pub(crate) fn room(&self, now: Instant) -> usize {
        if self.paid.is_some_and(|paid| paid > now) {
            0
        } else {
            usize::try_from(self.rate / 10).unwrap_or(usize::MAX).max(1)
        }
    }

    /// Count bytes that were read; when more may be.
    pub(crate) fn take(&mut self, now: Instant, bytes: usize) -> Instant {
        let from = self.paid.map_or(now, |paid| paid.max(now));
        let paid = from + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.paid = Some(paid);
        paid
    }
}

/// Streams of a connection of which more may be read at a time, the one that was read longest ago first. Each is there once for
/// each time at which it tried, so their number is bounded by that of the streams: nobody tries again before he is woken, or
/// at the same time.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// When, and the turn in which the stream was read last.
    streams: BTreeSet<(Instant, u64, u64)>,
    /// Reads so far.
    turns: u64,
}

impl Waiting {
    /// Whatever is read next has this turn.
    pub(crate) fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// False: it waits already.
    pub(crate) fn add(&mut self, at: Instant, turn: u64, stream_id: u64) -> bool {
        self.streams.insert((at, turn, stream_id))
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.streams.first().map(|(at, ..)| *at)
    }

    /// The next stream whose time has come.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u64> {
        if self.next()? > now {
            return None;
        }
        self.streams.pop_first().map(|(.., stream_id)| stream_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_paid_for_with_time() {
        let now = Instant::now();
        let mut pace = Pace::new(1000);
        assert_eq!(pace.room(now), 100);
        assert_eq!(pace.take(now, 100), now + Duration::from_millis(100));
        assert_eq!(pace.room(now + Duration::from_millis(99)), 0);
        assert_eq!(pace.room(now + Duration::from_millis(100)), 100);
        // Time that passes unused is not saved.
        let later = now + Duration::from_secs(60);
        assert_eq!((pace.room(later), pace.take(later, 50)), (100, later + Duration::from_millis(50)));
        assert_eq!(Pace::new(1).room(now), 1);
    }

    #[test]
    fn streams_wait_for_their_time() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        assert_eq!((waiting.turn(), waiting.turn()), (1, 2));
        waiting.add(now + Duration::from_secs(2), 1, 4);
        waiting.add(now + Duration::from_secs(1), 2, 0);
        assert!(waiting.add(now + Duration::from_secs(1), 1, 8));
        assert!(!waiting.add(now + Duration::from_secs(1), 1, 8));
        assert_eq!((waiting.next(), waiting.take(now)), (Some(now + Duration::from_secs(1)), None));
        let later = now + Duration::from_secs(2);
        let taken = std::array::from_fn(|_| waiting.take(later));
        assert_eq!(taken, [Some(8), Some(0), Some(4), None]);
        assert_eq!(waiting.next(), None);
    }
}
