//! Stateless resets (RFC 9000, section 10.3): how many may be sent.
//!
//! A server that was restarted gets packets for connections of the process before. It can tell its clients that these are
//! gone if it has the same [`Secret`](crate::Secret): then it recognizes its old connection IDs, and knows their tokens.

use std::time::{Duration, Instant};

use crate::rate::Rate;

/// One reset per interval, beyond those that may be sent at once.
const INTERVAL: Duration = Duration::from_millis(1);

/// How many resets may be sent. A reset is smaller than the packet that it answers, so this bounds work, not traffic.
///
/// All clients of a server that was killed ask for theirs at about the same time, so there is one for each connection that
/// it may have had at once, and one more each millisecond.
#[derive(Debug)]
pub(super) struct Budget {
    /// How many may be sent at once, as the time in which they are earned.
    most: Duration,
    sent: Rate,
}

impl Budget {
    /// `most` resets at once.
    pub(super) fn new(most: usize) -> Self {
        Self { most: INTERVAL * u32::try_from(most).unwrap_or(u32::MAX), sent: Rate::default() }
    }

    /// Whether one may be sent; it counts as sent then.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let has_one = self.sent.owed(now) + INTERVAL <= self.most;
        if has_one {
            self.sent.count(now, INTERVAL);
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_bounded_at_once_and_by_time() {
        let begin = Instant::now();
        let mut budget = Budget::new(500);
        let mut taken = |at: u64| (0..5000).filter(|_| budget.take(begin + Duration::from_micros(at))).count();
        assert_eq!(taken(0), 500);
        assert_eq!(taken(999), 0);
        assert_eq!(taken(1999), 1);
        assert_eq!(taken(2000), 1);
        assert_eq!(taken(100_000), 98);
        assert_eq!(taken(3_600_000_000), 500);
        assert_eq!(taken(3_600_000_000), 0);
    }
}
