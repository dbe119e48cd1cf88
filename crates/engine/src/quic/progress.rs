//! Which bytes of one half of a stream have arrived.

use std::collections::BTreeMap;

/// Bytes of one half of a stream that have arrived: here if it is a receiving half, at the peer if it is a sending one. In
/// stream offsets, the header included.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A sending half's: up to where packets have carried it.
    pub(super) sent: u64,
    /// Up to where everything has arrived.
    pub(super) acked: u64,
    /// Ranges above `acked` that have arrived, with gaps between them: their ends, by their starts. A sending half's are
    /// bounded by our own send window, a receiving half's by the gaps that the core allows before it closes the connection.
    /// After a stop or a reset it allows any number, so nothing is kept from then on ([`super::tap`], `is_settled`).
    /// Boxed, and `None` without gaps, because every slot of a table holds a progress.
    #[expect(clippy::box_collection, reason = "a third of the size")]
    pub(super) beyond: Option<Box<BTreeMap<u64, u64>>>,
}

impl Progress {
    /// Note a range that has arrived; whether `acked` grew.
    pub(super) fn acknowledge(&mut self, start: u64, end: u64) -> bool {
        if end <= self.acked {
            return false;
        }
        if start > self.acked {
            self.keep_beyond(start, end);
            return false;
        }
        self.acked = end;
        if let Some(beyond) = &mut self.beyond {
            while let Some((&start, &end)) = beyond.first_key_value() {
                if start > self.acked {
                    break;
                }
                self.acked = self.acked.max(end);
                beyond.pop_first();
            }
            if beyond.is_empty() {
                self.beyond = None;
            }
        }
        true
    }

    /// Keep a range behind a gap, joined with those that it touches.
    pub(super) fn keep_beyond(&mut self, mut start: u64, mut end: u64) {
        let beyond = self.beyond.get_or_insert_default();
        if let Some((&before, &until)) = beyond.range(..=start).next_back()
            && until >= start
        {
            if until >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &until)) = beyond.range(start..).next() {
            if next > end {
                break;
            }
            end = end.max(until);
            beyond.remove(&next);
        }
        beyond.insert(start, end);
    }
}
