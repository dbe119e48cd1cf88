//! Which bytes of one half of a stream have arrived.

use std::collections::BTreeMap;

/// Bytes of one half of a stream that have arrived, here or at the peer's, in stream offsets (header included).
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) sent: u64,
    pub(super) acked: u64,
    /// Ranges above `acked` with gaps between them, by their start. Bounded by what the stream's sender may have under way:
    /// sending, by our own send buffer; receiving, by the gaps that the core allows before it closes the connection. It
    /// allows any after a stop or a reset, so from then on nothing is kept here ([`Arrival::is_settled`]).
    pub(super) beyond: BTreeMap<u64, u64>,
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
        while let Some((&start, &end)) = self.beyond.first_key_value() {
            if start > self.acked {
                break;
            }
            self.acked = self.acked.max(end);
            self.beyond.pop_first();
        }
        true
    }

    /// Keep a range behind a gap, joined with those that it touches.
    pub(super) fn keep_beyond(&mut self, mut start: u64, mut end: u64) {
        if let Some((&before, &until)) = self.beyond.range(..=start).next_back()
            && until >= start
        {
            if until >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &until)) = self.beyond.range(start..).next() {
            if next > end {
                break;
            }
            end = end.max(until);
            self.beyond.remove(&next);
        }
        self.beyond.insert(start, end);
    }
}
