//! Streams by session, so that what concerns one session costs the same however many others there are.

use rustc_hash::FxHashMap;

/// The streams of each session that has any, registered or not: never more than the connection's streams.
#[derive(Default)]
pub(crate) struct Members(FxHashMap<u64, Vec<u64>>);

impl Members {
    /// Note a stream; its place, by which it is removed.
    pub(crate) fn add(&mut self, session: u64, stream: u64) -> usize {
        let streams = self.0.entry(session).or_default();
        streams.push(stream);
        streams.len() - 1
    }

    /// Forget the stream at `place`; the stream that has taken this place, if one has.
    pub(crate) fn remove(&mut self, session: u64, place: usize) -> Option<u64> {
        let streams = self.0.get_mut(&session)?;
        if place < streams.len() {
            streams.swap_remove(place);
        }
        let moved = streams.get(place).copied();
        if streams.is_empty() {
            self.0.remove(&session);
        }
        moved
    }

    /// The streams of a session, in no order.
    pub(crate) fn of(&self, session: u64) -> &[u64] {
        self.0.get(&session).map_or(&[], Vec::as_slice)
    }

    #[cfg(test)]
    pub(crate) fn sessions(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_moves_up_is_named() {
        let mut members = Members::default();
        assert_eq!([2, 6, 10].map(|stream| members.add(0, stream)), [0, 1, 2]);
        assert_eq!(members.remove(0, 0), Some(10));
        assert_eq!(members.of(0), [10, 6]);
        assert_eq!(members.remove(0, 1), None);
        assert_eq!(members.of(0), [10]);
    }

    #[test]
    fn a_session_without_streams_takes_no_room() {
        let mut members = Members::default();
        for session in 0..100 {
            let place = members.add(session, 2);
            assert_eq!(members.remove(session, place), None);
        }
        assert_eq!(members.sessions(), 0);
        assert!(members.of(0).is_empty());
    }
}
