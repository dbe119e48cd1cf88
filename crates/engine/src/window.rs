//! The receive window of a connection: how many bytes its peer may send beyond what was read, and when that becomes more.
//!
//! With a [budget](crate::memory) a window starts small and grows in two cases:
//!
//! - Its data is read as fast as it comes, which means a quarter of the window within a round trip. Congestion control
//!   doubles what is in flight each round trip, and this rule keeps the window at four times of that or more, so that it
//!   does not hold the peer back.
//! - Half of the window came and was not read. Otherwise the other streams of the connection would soon wait for the one
//!   that nobody reads.
//!
//! The budget says whether it may grow. A window never shrinks, because QUIC cannot take a promise back (RFC 9000, section
//! 4.1).

use std::time::{Duration, Instant};

/// A quarter of the window that is read within this time counts as quick on every path. Round trips can be shorter than
/// the delays of an event loop.
const QUICK: Duration = Duration::from_millis(20);
/// A window below this becomes four times as large when it grows, not twice. Then the peer need not wait if the packet that
/// announces it is lost.
const SMALL: u64 = 1024 * 1024;
/// How long after a refusal the budget is not asked again because of unread data.
const PAUSE: Duration = Duration::from_millis(100);

/// The receive window of one connection. All sizes are bytes.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// What the peer may send beyond what was read.
    current: u64,
    /// How far `current` may grow.
    full: u64,
    /// [`Flow::read`] at the start of the quarter that is measured now.
    read_before: u64,
    /// When the first bytes of this quarter were read; `None` before that.
    since: Option<Instant>,
    /// [`Flow::came`] when the unread bytes were last counted, or the window last grew. They are counted again when another
    /// quarter has come.
    came_before: u64,
    /// Before this time unread bytes are not counted; `None` unless the budget has just refused growth for them.
    not_before: Option<Instant>,
}

/// What has passed on a connection so far, on all of its streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    /// Bytes that were read from the core.
    pub(crate) read: u64,
    /// Bytes that came: up to the highest offset of each stream.
    pub(crate) came: u64,
}

impl Window {
    /// Begin with `first` bytes, which may become `full`.
    pub(crate) fn new(first: u64, full: u64) -> Self {
        Self { current: first.min(full), full, read_before: 0, since: None, came_before: 0, not_before: None }
    }

    /// Bytes that the peer may be ahead.
    pub(crate) fn current(&self) -> u64 {
        self.current
    }

    /// Whether [`Window::review`] has something to do, which takes a quarter of the window. Cheap, for it is asked after each
    /// packet.
    #[inline]
    pub(crate) fn is_due(&self, flow: Flow) -> bool {
        let quarter = self.current / 4;
        let read = flow.read - self.read_before;
        self.current < self.full
            && (read >= quarter || flow.came - self.came_before >= quarter || read > 0 && self.since.is_none())
    }

    #[cfg(test)]
    fn is_full(&self) -> bool {
        self.current == self.full
    }

    /// Let the window grow if it is time; whether it has grown. `unread` counts the bytes that came and were not read.
    /// `grants` says whether the window may grow by so many bytes, with true because its data is read, with false because it
    /// is not.
    pub(crate) fn review(
        &mut self,
        now: Instant,
        flow: Flow,
        rtt: impl FnOnce() -> Duration,
        unread: impl FnOnce() -> u64,
        grants: impl Fn(u64, bool) -> bool,
    ) -> bool {
        let quarter = self.current / 4;
        if flow.read - self.read_before >= quarter {
            let since = self.since.take().unwrap_or(now);
            self.read_before = flow.read;
            let is_quick = now.saturating_duration_since(since) <= rtt().max(QUICK);
            if is_quick && self.grow(|more| grants(more, true)) {
                self.came_before = flow.came;
                return true;
            }
        } else if flow.read > self.read_before && self.since.is_none() {
            self.since = Some(now);
        }
        if flow.came - self.came_before < quarter || self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        if unread() < self.current / 2 {
            self.came_before = flow.came;
            return false;
        }
        let has_grown = self.grow(|more| grants(more, false));
        self.not_before = (!has_grown).then(|| now + PAUSE);
        if has_grown {
            self.came_before = flow.came;
        }
        has_grown
    }

    fn grow(&mut self, grants: impl FnOnce(u64) -> bool) -> bool {
        let factor = if self.current < SMALL { 4 } else { 2 };
        let more = ((factor - 1) * self.current).min(self.full - self.current);
        let may_grow = grants(more);
        if may_grow {
            self.current += more;
        }
        may_grow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    /// A window of 64 units that may become 1000, and the time.
    fn window() -> (Window, Instant) {
        (Window::new(64 * UNIT, 1000 * UNIT), Instant::now())
    }

    /// The least window that doubles is 64 of them.
    const UNIT: u64 = SMALL / 64;

    fn review(window: &mut Window, now: Instant, read: u64, came: u64) -> bool {
        let flow = Flow { read: read * UNIT, came: came * UNIT };
        window.review(now, flow, || RTT, || (came - read) * UNIT, |_, _| true)
    }

    #[test]
    fn doubles_for_a_quarter_that_is_read_within_a_round_trip() {
        let (mut window, now) = window();
        assert!(!review(&mut window, now, 15, 15));
        assert!(review(&mut window, now + RTT, 16, 16));
        assert_eq!(window.current(), 128 * UNIT);
        assert!(!review(&mut window, now + RTT * 9, 17, 17));
        assert!(!review(&mut window, now + RTT * 11, 48, 48));
        assert_eq!(window.current(), 128 * UNIT);
        assert!(review(&mut window, now + RTT * 11, 80, 80));
        assert_eq!(window.current(), 256 * UNIT);
    }

    #[test]
    fn a_small_one_becomes_four_times_as_large() {
        let mut window = Window::new(SMALL / 2, 100 * SMALL);
        assert!(review(&mut window, Instant::now(), 8, 8));
        assert_eq!(window.current(), 2 * SMALL);
    }

    #[test]
    fn keeps_ahead_of_slow_start() {
        let mut window = Window::new(48 * 1024, 16 * 1024 * 1024);
        let now = Instant::now();
        let (mut total, mut round, mut limit) = (0, 14_720, window.current());
        for trip in 1..12 {
            // A round comes in packets spread over a round trip, each read at once.
            for packet in 0..round / 1472 {
                total += 1472;
                let at = now + RTT * trip + RTT * packet as u32 * 1472 / round as u32;
                review(&mut window, at, total, total);
                limit = limit.max(total + window.current());
            }
            round *= 2;
            assert!(total + round <= limit || window.is_full(), "trip {trip}: {total} + {round} > {limit}");
        }
        assert!(window.is_full());
    }

    #[test]
    fn grows_for_what_is_not_read_as_long_as_that_is_granted() {
        let (mut window, now) = window();
        let mut unread = |now, came, is_granted| {
            window.review(
                now,
                Flow { read: 0, came: came * UNIT },
                || RTT,
                || came * UNIT,
                |_, is_read| {
                    assert!(!is_read);
                    is_granted
                },
            )
        };
        assert!(!unread(now, 31, true));
        assert!(!unread(now, 32, true), "not enough has come since the last look");
        assert!(unread(now, 48, true));
        assert!(!unread(now, 100, false));
        assert!(!unread(now, 128, true), "it was refused just now");
        assert!(unread(now + PAUSE, 128, true));
        assert_eq!(window.current(), 256 * UNIT);
    }

    #[test]
    fn ends_at_its_limit() {
        let (mut window, now) = window();
        for read in 1..200 {
            review(&mut window, now, read * 10, read * 10);
        }
        assert!(window.is_full());
        assert_eq!(window.current(), 1000 * UNIT);
        assert_eq!(Window::new(64, 10).current(), 10);
    }
}
