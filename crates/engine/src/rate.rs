//! How often something may happen: a number of times at once, and then again as time passes.

use std::time::{Duration, Instant};

/// What was used of a rate, kept as the time in which it is earned again.
///
/// Each use owes some time. A caller that lets n such times be owed allows n uses at once, and one more each time that one is
/// paid off.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    /// When nothing is owed any more; `None` before the first use.
    paid_at: Option<Instant>,
}

impl Rate {
    /// How long it takes until nothing is owed.
    pub(crate) fn owed(self, now: Instant) -> Duration {
        self.paid_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Count a use that owes so much.
    pub(crate) fn count(&mut self, now: Instant, cost: Duration) {
        self.paid_at = Some(now + self.owed(now) + cost);
    }
}
