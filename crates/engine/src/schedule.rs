//! Fair service: which of the streams that have something to send is served next, and in which order writers are woken.
//!
//! Least recently served first, sessions before streams: the session comes first that was not served for longest, and
//! within it the stream. So a session with many streams gets no more than one with a single stream. Any fixed order, by ID
//! or by age, starves some streams as soon as the credit that comes back is worth less than one round of all streams.
//!
//! This module knows nothing of bytes, credit or the QUIC core. Its owner lists the streams that wait, and notes which
//! were served.

use std::collections::{BTreeMap, BTreeSet};

/// When a session or a stream was last served, counted in services of the whole connection. 0, never, comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Served(u64);

/// A session among those with waiting streams: when it was last served, and its ID. All streams without a session are one
/// group, which counts as never served.
pub(crate) type Group = (Served, Option<u64>);
/// A stream within its group: when it was last served, and its ID.
pub(crate) type Place = (Served, u64);

/// The streams of one connection that wait to be served.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Bounded by the streams of the connection: each is listed once at most, which its owner sees to.
    groups: BTreeMap<Group, BTreeSet<Place>>,
    /// Times that any stream was served.
    services: u64,
}

impl Schedule {
    /// Where a stream that begins now stands: behind all that wait already.
    pub(crate) fn latest(&self) -> Served {
        Served(self.services)
    }

    /// List a stream that has something to send and is not listed.
    pub(crate) fn list(&mut self, group: Group, place: Place) {
        self.groups.entry(group).or_default().insert(place);
    }

    /// Take the stream that is served next off the list.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let mut first = self.groups.first_entry()?;
        let next = first.get_mut().pop_first();
        if first.get().is_empty() {
            first.remove();
            if self.groups.is_empty() {
                // An empty tree keeps half a KiB.
                self.groups = BTreeMap::new();
            }
        }
        next.map(|(_, stream_id)| stream_id)
    }

    /// Note that a stream was served, and with it its session, if that is registered. What else waits comes before both.
    pub(crate) fn serve(&mut self, stream: &mut Served, session: Option<(u64, &mut Served)>) {
        self.services += 1;
        *stream = self.latest();
        if let Some((session_id, served)) = session {
            let before = std::mem::replace(served, self.latest());
            // The session's other streams move with it.
            if let Some(places) = self.groups.remove(&(before, Some(session_id))) {
                self.groups.insert((self.latest(), Some(session_id)), places);
            }
        }
    }
}

/// Streams in the order in which they are served, each with when its session and when itself was served last. The room that
/// they were waiting for may not be enough for all of them.
pub(crate) fn in_order(mut waiting: Vec<(Served, Served, u64)>) -> Vec<u64> {
    waiting.sort_unstable();
    waiting.into_iter().map(|(_, _, stream_id)| stream_id).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Sessions and streams that always have more to send.
    struct Busy {
        schedule: Schedule,
        sessions: HashMap<u64, Served>,
        streams: HashMap<u64, (Option<u64>, Served)>,
    }

    impl Busy {
        fn new(streams: &[(u64, Option<u64>)]) -> Self {
            let mut busy = Self { schedule: Schedule::default(), sessions: HashMap::new(), streams: HashMap::new() };
            for &(stream_id, session_id) in streams {
                busy.streams.insert(stream_id, (session_id, Served::default()));
                if let Some(session_id) = session_id {
                    busy.sessions.insert(session_id, Served::default());
                }
                busy.list(stream_id);
            }
            busy
        }

        fn list(&mut self, stream_id: u64) {
            let (session_id, served) = self.streams[&stream_id];
            let group = session_id.map_or(Served::default(), |id| self.sessions[&id]);
            self.schedule.list((group, session_id), (served, stream_id));
        }

        /// Serve whoever is next, and list it again.
        fn serve(&mut self) -> u64 {
            let stream_id = self.schedule.next().expect("all of them wait");
            let (session_id, served) = self.streams.get_mut(&stream_id).unwrap();
            let session = session_id.map(|id| (id, self.sessions.get_mut(&id).unwrap()));
            self.schedule.serve(served, session);
            self.list(stream_id);
            stream_id
        }
    }

    #[test]
    fn sessions_are_served_alike_however_many_streams_they_have() {
        let mut busy = Busy::new(&[(0, Some(0)), (4, Some(0)), (8, Some(0)), (12, Some(4)), (16, Some(8))]);
        let mut served: HashMap<u64, u64> = HashMap::new();
        for _ in 0..900 {
            *served.entry(busy.serve()).or_default() += 1;
        }
        assert_eq!(served, HashMap::from([(0, 100), (4, 100), (8, 100), (12, 300), (16, 300)]));
    }

    #[test]
    fn nobody_waits_longer_than_one_round() {
        let streams: Vec<(u64, Option<u64>)> = (0..20).map(|n| (n, Some(n % 4))).collect();
        let mut busy = Busy::new(&streams);
        let mut rounds: Vec<u64> = (0..40).map(|_| busy.serve()).collect();
        let second = rounds.split_off(20);
        assert_eq!(rounds, second);
        rounds.sort_unstable();
        assert_eq!(rounds, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn streams_without_a_session_come_first_and_never_wait_for_one() {
        let mut busy = Busy::new(&[(0, Some(0)), (4, Some(0)), (2, None), (6, None)]);
        assert_eq!([2, 6, 2, 6], std::array::from_fn(|_| busy.serve()));
    }

    #[test]
    fn a_stream_that_begins_comes_behind_the_others_of_its_session() {
        let mut schedule = Schedule::default();
        let (mut session, mut old) = (Served::default(), Served::default());
        schedule.serve(&mut old, Some((0, &mut session)));
        let new = schedule.latest();
        schedule.list((session, Some(0)), (new, 4));
        schedule.list((session, Some(0)), (old, 0));
        assert_eq!([schedule.next(), schedule.next(), schedule.next()], [Some(0), Some(4), None]);
    }

    #[test]
    fn writers_are_woken_in_the_order_of_service() {
        let waiting = vec![(Served(3), Served(1), 8), (Served(2), Served(2), 4), (Served(2), Served(1), 0)];
        assert_eq!(in_order(waiting), [0, 4, 8]);
    }
}
