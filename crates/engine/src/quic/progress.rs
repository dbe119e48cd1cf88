//! Which bytes of one half of a stream have arrived.

use std::collections::BTreeMap;

/// Bytes of one half of a stream that have arrived, here or at the peer's, in stream offsets (header included).
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) sent: u64,
    pub(super) acked: u64,
    /// Ranges above `acked` with gaps between them, by their start. Bounded by what the stream's sender may have under way:
    /// sending, by our own send buffer; receiving, by the gaps that the core allows before it closes the connection. It
    /// allows any after a stop or a reset, so from then on nothing is kept here ([`Arrival::is_settled`]). Boxed, and `None`
    /// without gaps: tables hold a progress in each slot.
    #[expect(clippy::box_collection, reason = "a third of the size")]
    pub(super) beyond: Option<Box<BTreeMap<u64, u64>>>,
}

impl Progress {
    /// Note a range; whether the contiguous prefix grew.
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
