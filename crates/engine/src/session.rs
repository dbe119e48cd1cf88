//! Sessions of one connection, as far as bytes are concerned: which are registered, which have ended, which streams each
//! has, and, where it is negotiated, the ledger of credit (draft-ietf-webtrans-http3, section 5).
//!
//! Policy, capsules and errors are Python's. Directions are 0 for bidirectional streams and 1 for unidirectional ones.

use std::{collections::VecDeque, ops::AddAssign};

use bytes::Bytes;
use rustc_hash::FxHashMap;

pub use crate::datagrams::DatagramStats;
use crate::{
    datagrams::Received,
    members::Members,
    pace::{Pace, Waiting},
    schedule::Served,
};

/// Ended sessions remembered, to answer late streams; the oldest are forgotten.
const ENDED_SESSIONS: usize = 4096;
/// Sessions that were never asked for, of whose streams the counts are kept.
const EARLY_LEDGERS: usize = 256;

/// Limits with which a session is registered.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionLimits {
    /// Whether the session has flow control of its own; without, the credit fields mean nothing.
    pub flow_control: bool,
    /// Payload bytes the peer lets us send.
    pub send_limit: u64,
    /// Payload bytes the peer may be ahead of our reading.
    pub receive_window: u64,
    /// Streams (bidirectional, unidirectional) the peer lets us open, counted from the start.
    pub send_streams: [u64; 2],
    /// Streams the peer may have open at once.
    pub receive_streams: [u64; 2],
    /// Bytes of received datagrams kept for the application; the oldest are dropped.
    pub datagram_buffer: usize,
    /// Received datagrams kept, beside the bound in bytes.
    pub datagram_count: usize,
    /// Bytes per second that are read of all streams together; `None`: as many as come.
    pub receive_rate: Option<u64>,
    /// Bytes that the peer may send in all, payload of streams and datagrams; `None`: no limit.
    pub receive_bytes: Option<u64>,
}

/// Where a session's flow control stands. Bytes are payload of streams; the credit is `None` without flow control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Credit {
    pub sent: u64,
    pub received: u64,
    pub send_credit: Option<u64>,
    /// Streams that may still be opened: bidirectional, unidirectional.
    pub stream_credit: Option<[u64; 2]>,
}

/// What sessions have moved. Directions are as above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Streams of ours.
    pub opened: [u64; 2],
    /// Streams of the peers.
    pub peer_opened: [u64; 2],
    /// Payload of streams that the core was given.
    pub bytes_sent: u64,
    /// Payload of streams of the peers, up to the highest offset or final size of each.
    pub bytes_received: u64,
    /// Of these, `queued_incoming` is 0.
    pub datagrams: DatagramStats,
}

impl AddAssign for SessionTotals {
    fn add_assign(&mut self, other: Self) {
        for direction in 0..2 {
            self.opened[direction] += other.opened[direction];
            self.peer_opened[direction] += other.peer_opened[direction];
        }
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.datagrams += other.datagrams;
    }
}

/// One registered session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// As registered; the peer raises `send_limit` and `send_streams` later.
    pub(crate) limits: SessionLimits,
    pub(crate) datagrams: Received,
    /// Somebody waits until `unacked` is 0. Reset when that is reported.
    pub(crate) acked_interest: bool,
    /// Finished streams of ours whose bytes are not all acknowledged.
    pub(crate) unacked: usize,
    /// When a stream of the session was last served.
    pub(crate) served: Served,
    /// Payload bytes given to the core.
    sent: u64,
    /// Limit for which WT_DATA_BLOCKED was reported last, so that it is reported once.
    blocked_at: Option<u64>,
    /// Limits for which WT_STREAMS_BLOCKED was reported last.
    streams_blocked_at: [Option<u64>; 2],
    /// Payload bytes of the peer's, up to the highest offset or final size of each stream.
    arrived: u64,
    /// Those that were read, or that nobody will ever read.
    consumed: u64,
    /// How far `arrived` may go, as announced to the peer.
    receive_limit: u64,
    /// The peer broke a limit; it was reported.
    is_exceeded: bool,
    /// How fast its streams are read. Boxed, for few have one.
    pub(crate) pace: Option<Box<Pace>>,
    /// Payload bytes of the peer's datagrams, counted if there is a limit.
    datagrams_arrived: u64,
    /// The peer has sent more than it may in all; it was reported.
    is_full: bool,
    /// Streams of ours opened so far, per direction.
    opened: [u64; 2],
    /// Streams of the peer opened so far, per direction.
    peer_opened: [u64; 2],
    /// Those of them that are over.
    peer_closed: [u64; 2],
    /// How far `peer_opened` may go, as announced to the peer.
    peer_limit: [u64; 2],
}

impl Session {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            datagrams: Received::new(limits.datagram_buffer, limits.datagram_count),
            receive_limit: limits.receive_window,
            peer_limit: limits.receive_streams,
            pace: limits.receive_rate.map(|rate| Box::new(Pace::new(rate))),
            ..Self::default()
        }
    }

    // ---------------------------------------------------------------- sending

    /// Payload bytes that may still be sent.
    pub(crate) fn send_credit(&self) -> u64 {
        if self.limits.flow_control { self.limits.send_limit.saturating_sub(self.sent) } else { u64::MAX }
    }

    /// Count payload bytes that the core has taken.
    pub(crate) fn count_sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// Note that data waits for the peer's limit. Returns the limit if that is to be reported to the peer.
    pub(crate) fn note_blocked(&mut self) -> Option<u64> {
        let limit = self.limits.send_limit;
        (self.blocked_at.replace(limit) != Some(limit)).then_some(limit)
    }

    /// Whether the peer lets us open one more stream.
    pub(crate) fn may_open(&self, direction: usize) -> bool {
        !self.limits.flow_control || self.opened[direction] < self.limits.send_streams[direction]
    }

    /// Count a stream of ours.
    pub(crate) fn count_opened(&mut self, direction: usize) {
        self.opened[direction] += 1;
    }

    /// Note that streams of `direction` wait for the peer's limit. Returns the limit if that is to be reported to the
    /// peer.
    pub(crate) fn note_streams_blocked(&mut self, direction: usize) -> Option<u64> {
        let limit = self.limits.send_streams[direction];
        (self.streams_blocked_at[direction].replace(limit) != Some(limit)).then_some(limit)
    }

    // ---------------------------------------------------------------- receiving

    /// Count payload of the peer's; whether that broke the limit, which is said once.
    pub(crate) fn count_arrived(&mut self, bytes: u64) -> bool {
        self.arrived += bytes;
        self.limits.flow_control && self.arrived > self.receive_limit && !std::mem::replace(&mut self.is_exceeded, true)
    }

    /// Whether the peer has sent more than it may in all, which is said once.
    #[inline]
    pub(crate) fn has_too_much(&mut self) -> bool {
        self.limits.receive_bytes.is_some_and(|most| self.arrived + self.datagrams_arrived > most)
            && !std::mem::replace(&mut self.is_full, true)
    }

    /// Count a stream of the peer's; whether that broke the limit, which is said once.
    pub(crate) fn count_peer_opened(&mut self, direction: usize) -> bool {
        self.peer_opened[direction] += 1;
        self.limits.flow_control
            && self.peer_opened[direction] > self.peer_limit[direction]
            && !std::mem::replace(&mut self.is_exceeded, true)
    }

    /// Count payload that nobody will read any more; the new limit when it should be announced.
    ///
    /// Half a window is the step, so that capsules stay rare and the sender never runs dry. See also `relief`.
    pub(crate) fn count_consumed(&mut self, bytes: u64) -> Option<u64> {
        if !self.limits.flow_control {
            return None;
        }
        self.consumed += bytes;
        let limit = self.consumed + self.limits.receive_window;
        (limit - self.receive_limit >= self.limits.receive_window.div_ceil(2)).then(|| {
            self.receive_limit = limit;
            limit
        })
    }

    /// What to announce when a reader waits, or when data has come while one may; None for nothing.
    ///
    /// Where more than half of the window is unread, on streams that nobody reads, the last half would never come back
    /// whole. A reader that is slow, and has its window full, makes no capsules for small steps this way.
    pub(crate) fn relief(&mut self) -> Option<u64> {
        if !self.limits.flow_control {
            return None;
        }
        let limit = self.consumed + self.limits.receive_window;
        let (owed, left) = (limit - self.receive_limit, self.receive_limit.saturating_sub(self.arrived));
        (owed > 0 && owed >= left).then(|| {
            self.receive_limit = limit;
            limit
        })
    }

    /// Count a finished stream of the peer; the new cumulative limit when it should be announced.
    ///
    /// That is when half of the limit has come back, or as much as the peer has left: streams that stay open may never let
    /// it be half.
    pub(crate) fn count_peer_closed(&mut self, direction: usize) -> Option<u64> {
        if !self.limits.flow_control {
            return None;
        }
        self.peer_closed[direction] += 1;
        let limit = self.peer_closed[direction] + self.limits.receive_streams[direction];
        let owed = limit - self.peer_limit[direction];
        let left = self.peer_limit[direction].saturating_sub(self.peer_opened[direction]);
        (owed >= self.limits.receive_streams[direction].div_ceil(2).min(left)).then(|| {
            self.peer_limit[direction] = limit;
            limit
        })
    }

    /// What the session has moved so far.
    fn totals(&self) -> SessionTotals {
        SessionTotals {
            opened: self.opened,
            peer_opened: self.peer_opened,
            bytes_sent: self.sent,
            bytes_received: self.arrived,
            // How many wait is no count that only grows.
            datagrams: DatagramStats { queued_incoming: 0, ..self.datagrams.stats() },
        }
    }

    /// Where flow control stands.
    pub(crate) fn credit(&self) -> Credit {
        let limits = &self.limits;
        let streams = [0, 1].map(|direction| limits.send_streams[direction].saturating_sub(self.opened[direction]));
        Credit {
            sent: self.sent,
            received: self.arrived,
            send_credit: limits.flow_control.then(|| self.send_credit()),
            stream_credit: limits.flow_control.then_some(streams),
        }
    }
}

/// What is known of a session that is not registered yet, of streams that are over already.
#[derive(Debug, Default, Clone, Copy)]
struct EarlyLedger {
    /// Streams of the peer, per direction.
    streams: [u64; 2],
    /// Their payload bytes.
    bytes: u64,
}

/// What has to be sent to the peer of a session that was registered just now, because its streams came before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Registration {
    /// It broke a limit.
    pub(crate) is_exceeded: bool,
    /// Bytes that it may send in all.
    pub(crate) limit: Option<u64>,
    /// Streams that it may open in all, per direction.
    pub(crate) stream_limits: [Option<u64>; 2],
}

/// The sessions of one connection.
#[derive(Default)]
pub(crate) struct Sessions {
    /// Registered and not ended. Boxed, for most of a table's slots are empty. Bounded above: Python registers them.
    registered: FxHashMap<u64, Box<Session>>,
    /// Boxed, and `None` before the first: most connections carry one session, and end with it.
    unregistered: Option<Box<Unregistered>>,
    members: Members,
    /// Memory that received datagrams of all registered sessions take.
    datagram_memory: usize,
    /// Sessions whose peer has sent too much in datagrams; empty between calls.
    pub(crate) full: Vec<u64>,
    /// `None` as long as no session has had a rate, or a limit of bytes: then `full` is empty, too.
    pub(crate) waiting: Option<Box<Waiting>>,
}

/// What is known of sessions that have ended, or that nobody has registered yet.
#[derive(Debug, Default)]
struct Unregistered {
    /// Wire codes with which the streams of ended sessions are answered. Bounded by ENDED_SESSIONS.
    ended: FxHashMap<u64, u64>,
    /// The keys of `ended`, the oldest first.
    ended_order: VecDeque<u64>,
    /// Streams that were refused before their session was registered: its flow control has to count them. Bounded by
    /// EARLY_LEDGERS.
    early: FxHashMap<u64, EarlyLedger>,
    /// What those that have ended had moved.
    totals: SessionTotals,
}

impl Sessions {
    pub(crate) fn get(&self, session_id: u64) -> Option<&Session> {
        self.registered.get(&session_id).map(|session| &**session)
    }

    pub(crate) fn get_mut(&mut self, session_id: u64) -> Option<&mut Session> {
        self.registered.get_mut(&session_id).map(|session| &mut **session)
    }

    /// When the session of a stream was last served; never, where the stream has none that is registered.
    pub(crate) fn served(&self, stream: Option<u64>) -> Served {
        stream.and_then(|session_id| self.get(session_id)).map_or(Served::default(), |session| session.served)
    }

    /// The session of a stream, where it has one that is registered.
    pub(crate) fn of_mut(&mut self, stream: Option<u64>) -> Option<&mut Session> {
        self.get_mut(stream?)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Session)> {
        self.registered.iter_mut().map(|(id, session)| (*id, &mut **session))
    }

    pub(crate) fn is_registered(&self, session_id: u64) -> bool {
        self.registered.contains_key(&session_id)
    }

    /// The code that answers streams of an ended session.
    pub(crate) fn end_code(&self, session_id: u64) -> Option<u64> {
        self.unregistered.as_ref()?.ended.get(&session_id).copied()
    }

    /// Whether the ledger of a session counts a stream to its final size, also if nobody reads the stream. A session that is
    /// not registered yet may turn out to have flow control.
    pub(crate) fn needs_final_size(&self, session_id: u64) -> bool {
        match self.get(session_id) {
            Some(session) => session.limits.flow_control,
            None => self.end_code(session_id).is_none(),
        }
    }

    /// How many are registered.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.registered.len()
    }

    // ---------------------------------------------------------------- datagrams

    /// Memory that received datagrams of all registered sessions take.
    #[inline]
    pub(crate) fn datagram_memory(&self) -> usize {
        self.datagram_memory
    }

    /// Keep a received datagram; whether somebody waits for it. It comes back if its session is not registered.
    pub(crate) fn keep_datagram(&mut self, session_id: u64, data: Bytes) -> Result<bool, Bytes> {
        let Some(session) = self.registered.get_mut(&session_id) else { return Err(data) };
        let before = session.datagrams.memory();
        if session.limits.receive_bytes.is_some() {
            session.datagrams_arrived += data.len() as u64;
            if session.has_too_much() {
                self.full.push(session_id);
            }
        }
        session.datagrams.push(data);
        self.datagram_memory = self.datagram_memory + session.datagrams.memory() - before;
        Ok(std::mem::take(&mut session.datagrams.interest))
    }

    /// The oldest datagram received for a session.
    #[inline]
    pub(crate) fn take_datagram(&mut self, session_id: u64) -> Option<Bytes> {
        let received = &mut self.registered.get_mut(&session_id)?.datagrams;
        let before = received.memory();
        let data = received.pop()?;
        self.datagram_memory -= before - received.memory();
        Some(data)
    }

    /// Drop all received datagrams.
    pub(crate) fn drop_datagrams(&mut self) {
        for session in self.registered.values_mut() {
            session.datagrams.clear();
        }
        self.datagram_memory = 0;
    }

    // ---------------------------------------------------------------- beginning and end

    /// Register a session. `peer_streams` of the peer are there already, per direction, and `unacked` finished ones of ours.
    pub(crate) fn register(
        &mut self,
        session_id: u64,
        limits: SessionLimits,
        peer_streams: [u64; 2],
        unacked: usize,
    ) -> Registration {
        let mut session = Box::new(Session::new(limits));
        if limits.receive_rate.is_some() || limits.receive_bytes.is_some() {
            self.waiting.get_or_insert_default();
        }
        let early = self.unregistered.as_mut().and_then(|others| others.early.remove(&session_id)).unwrap_or_default();
        session.unacked = unacked;
        let mut registration =
            Registration { is_exceeded: session.count_arrived(early.bytes), ..Registration::default() };
        for (direction, present) in peer_streams.into_iter().enumerate() {
            for _ in 0..early.streams[direction] + present {
                registration.is_exceeded |= session.count_peer_opened(direction);
            }
        }
        registration.limit = session.count_consumed(early.bytes);
        for direction in 0..2 {
            registration.stream_limits[direction] =
                (0..early.streams[direction]).filter_map(|_| session.count_peer_closed(direction)).last();
        }
        self.registered.insert(session_id, session);
        registration
    }

    /// End a session; the entry of a registered one. Its streams that come from now on are answered with `code`.
    pub(crate) fn end(&mut self, session_id: u64, code: u64) -> Option<Box<Session>> {
        let others = self.unregistered.get_or_insert_default();
        if others.ended.insert(session_id, code).is_none() {
            others.ended_order.push_back(session_id);
            if others.ended_order.len() > ENDED_SESSIONS
                && let Some(oldest) = others.ended_order.pop_front()
            {
                others.ended.remove(&oldest);
            }
        }
        others.early.remove(&session_id);
        let session = self.registered.remove(&session_id)?;
        others.totals += session.totals();
        self.datagram_memory -= session.datagrams.memory();
        Some(session)
    }

    /// What all sessions so far have moved.
    pub(crate) fn totals(&self) -> SessionTotals {
        let mut totals = self.unregistered.as_ref().map_or_else(SessionTotals::default, |others| others.totals);
        for session in self.registered.values() {
            totals += session.totals();
        }
        totals
    }

    /// Remember a stream of the peer that is over, with the payload that it had, until its session is registered.
    pub(crate) fn note_early(&mut self, session_id: u64, direction: usize, bytes: u64) {
        if self.registered.contains_key(&session_id) || self.end_code(session_id).is_some() {
            return;
        }
        let early = &mut self.unregistered.get_or_insert_default().early;
        if early.len() < EARLY_LEDGERS || early.contains_key(&session_id) {
            let ledger = early.entry(session_id).or_default();
            ledger.streams[direction] += 1;
            ledger.bytes += bytes;
        }
    }

    /// The connection is over: none will be registered any more.
    pub(crate) fn forget_early(&mut self) {
        if let Some(others) = &mut self.unregistered {
            others.early.clear();
        }
    }

    /// The streams of each session, registered or not.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// The same, to add and remove.
    pub(crate) fn members_mut(&mut self) -> &mut Members {
        &mut self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_announced_in_half_windows() {
        let mut session =
            Session::new(SessionLimits { flow_control: true, receive_window: 100, ..SessionLimits::default() });
        assert_eq!(session.count_consumed(49), None);
        assert_eq!(session.count_consumed(1), Some(150));
        assert_eq!(session.count_consumed(10), None);
    }

    #[test]
    fn a_broken_limit_is_reported_once() {
        let limits = SessionLimits {
            flow_control: true,
            receive_window: 10,
            receive_streams: [1, 0],
            ..SessionLimits::default()
        };
        let mut session = Session::new(limits);
        assert!(!session.count_arrived(10));
        assert!(session.count_arrived(1));
        assert!(!session.count_arrived(1));
        let mut session = Session::new(limits);
        assert!(!session.count_peer_opened(0));
        assert!(session.count_peer_opened(1));
        assert!(!session.count_peer_opened(0));
    }

    #[test]
    fn blocked_streams_are_reported_once_per_limit() {
        let mut session = Session::new(SessionLimits { send_streams: [3, 0], ..SessionLimits::default() });
        assert_eq!(session.note_streams_blocked(0), Some(3));
        assert_eq!(session.note_streams_blocked(0), None);
        assert_eq!(session.note_streams_blocked(1), Some(0));
        session.limits.send_streams[0] = 4;
        assert_eq!(session.note_streams_blocked(0), Some(4));
    }

    #[test]
    fn blocked_data_is_reported_once_per_limit() {
        let mut session =
            Session::new(SessionLimits { flow_control: true, send_limit: 10, ..SessionLimits::default() });
        session.count_sent(10);
        assert_eq!(session.send_credit(), 0);
        assert_eq!([session.note_blocked(), session.note_blocked()], [Some(10), None]);
        session.limits.send_limit = 12;
        assert_eq!(session.send_credit(), 2);
        assert_eq!([session.note_blocked(), session.note_blocked()], [Some(12), None]);
    }

    #[test]
    fn credit_comes_back_before_half_of_it_does_where_the_peer_has_no_more_left() {
        let limits = SessionLimits {
            flow_control: true,
            receive_window: 100,
            receive_streams: [8, 8],
            ..SessionLimits::default()
        };
        let mut session = Session::new(limits);
        session.count_arrived(75);
        assert_eq!(session.count_consumed(20), None);
        assert_eq!(session.relief(), None, "25 are left");
        session.count_arrived(5);
        assert_eq!(session.relief(), Some(120));
        assert_eq!(session.relief(), None);
        // Seven of eight streams stay open.
        for _ in 0..8 {
            session.count_peer_opened(0);
        }
        assert_eq!(session.count_peer_closed(0), Some(9));
        session.count_peer_opened(0);
        assert_eq!(session.count_peer_closed(0), Some(10));
        assert_eq!(session.relief(), None);
    }

    #[test]
    fn streams_that_were_over_before_their_session_was_registered_count() {
        let limits = SessionLimits {
            flow_control: true,
            receive_window: 100,
            receive_streams: [4, 1],
            ..SessionLimits::default()
        };
        let mut sessions = Sessions::default();
        for _ in 0..2 {
            sessions.note_early(0, 0, 30);
        }
        assert!(sessions.needs_final_size(0));
        let registration = sessions.register(0, limits, [1, 0], 5);
        let expected = Registration { is_exceeded: false, limit: Some(160), stream_limits: [Some(5), None] };
        assert_eq!(registration, expected);
        let session = sessions.get(0).unwrap();
        assert_eq!((session.peer_opened, session.peer_closed, session.arrived), ([3, 0], [2, 0], 60));
        assert_eq!(session.unacked, 5);
        // Those of a registered session are in its own ledger, and those of an ended one in nobody's.
        sessions.note_early(0, 0, 30);
        assert!(sessions.end(0, 7).is_some());
        sessions.note_early(0, 0, 30);
        assert_eq!(
            sessions.register(0, limits, [0, 2], 0),
            Registration { is_exceeded: true, ..Registration::default() }
        );
    }

    #[test]
    fn ended_sessions_and_early_ledgers_are_bounded() {
        let mut sessions = Sessions::default();
        for session_id in 0..10_000 {
            sessions.note_early(session_id, 1, 1);
        }
        assert_eq!(sessions.unregistered.as_ref().unwrap().early.len(), EARLY_LEDGERS);
        for session_id in 0..10_000 {
            sessions.end(session_id, session_id + 1);
            sessions.end(session_id, session_id + 2);
        }
        let others = sessions.unregistered.as_ref().unwrap();
        assert_eq!((others.ended.len(), others.ended_order.len(), others.early.len()), (4096, 4096, 0));
        assert_eq!(sessions.end_code(10_000 - 4097), None);
        assert_eq!(sessions.end_code(9_999), Some(10_001));
        assert!(sessions.needs_final_size(0) && !sessions.needs_final_size(9_999));
    }
}
