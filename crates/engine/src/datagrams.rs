//! Datagrams that wait: outgoing ones for the network, received ones for their session's reader, and early ones for a
//! session that is not registered yet.
//!
//! What is new counts more than what is complete, so every queue here drops its oldest datagram rather than refuse the
//! newest. The QUIC core is given a datagram only when it can send it soon: inside of it, none can expire or be dropped.

use std::{
    collections::VecDeque,
    ops::AddAssign,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::varint;

/// Largest quarter stream ID (RFC 9297, section 2.1).
const QUARTER_ID_LIMIT: u64 = (1 << 60) - 1;

/// Counters of a session's datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DatagramStats {
    pub sent: u64,
    pub received: u64,
    pub dropped_outgoing: u64,
    pub expired_outgoing: u64,
    pub dropped_incoming: u64,
    pub queued_incoming: u64,
    /// Payload of those that were sent.
    pub bytes_sent: u64,
    /// Payload of those that were received.
    pub bytes_received: u64,
}

impl AddAssign for DatagramStats {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.dropped_outgoing += other.dropped_outgoing;
        self.expired_outgoing += other.expired_outgoing;
        self.dropped_incoming += other.dropped_incoming;
        self.queued_incoming += other.queued_incoming;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

/// Read the head of a DATAGRAM frame's payload (RFC 9297, section 2.1): the session's ID and the length of the head. `None`
/// where it is incomplete or names no stream.
#[inline]
pub(crate) fn read_session_id(data: &[u8]) -> Option<(u64, usize)> {
    let (quarter, length) = varint::read(data)?;
    (quarter <= QUARTER_ID_LIMIT).then_some((quarter * 4, length))
}

/// Write that head.
pub(crate) fn write_session_id(session_id: u64, out: &mut Vec<u8>) {
    varint::write(session_id / 4, out);
}

/// A datagram as it leaves: its session's ID, then its payload.
#[inline]
pub(crate) fn frame(session_id: u64, payload: &[u8]) -> Bytes {
    // Of the exact size: with room to spare, `Bytes` would need a second allocation.
    let mut frame = Vec::with_capacity(varint::length(session_id / 4) + payload.len());
    write_session_id(session_id, &mut frame);
    frame.extend_from_slice(payload);
    frame.into()
}

/// A datagram for many sessions. Those that have the same ID on their connections, as most have, share its bytes.
#[derive(Debug)]
pub struct SharedDatagram<'a> {
    payload: &'a [u8],
    /// The frame that was made last, and for which ID.
    last: Option<(u64, Bytes)>,
}

impl<'a> SharedDatagram<'a> {
    /// With this payload.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, last: None }
    }

    #[inline]
    pub(crate) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    #[inline]
    pub(crate) fn frame(&mut self, session_id: u64) -> Bytes {
        match &self.last {
            Some((id, frame)) if *id == session_id => frame.clone(),
            _ => self.last.insert((session_id, frame(session_id, self.payload))).1.clone(),
        }
    }
}

/// What a queue takes for each datagram apart from its bytes.
const ENTRY_COST: usize = 64;

/// What became of an outgoing datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The core has so many, with so many bytes of payload.
    Sent { count: u64, bytes: u64 },
    /// It made room for newer ones, or the path's limit shrank below it.
    Dropped,
    /// It waited for too long.
    Expired,
}

/// How the core answers the offer of a datagram.
#[derive(Debug)]
pub(crate) enum Offer {
    /// It will be sent.
    Taken,
    /// Not now; here it is again.
    Full(Bytes),
    /// It can never be sent: it is larger than the path's limit by now.
    Refused,
}

/// One datagram on its way out, its session's ID in front.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    data: Bytes,
}

/// The datagrams of one session on their way out, in the order in which they were sent.
#[derive(Debug, Default)]
struct Lane {
    session_id: u64,
    queue: VecDeque<Waiting>,
    /// Sum of the lengths in `queue`.
    bytes: usize,
}

/// Datagrams of all sessions of a connection on their way out. Sessions take turns, so that one that sends more than the
/// network takes delays and drops its own.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// A lane for each session with something in it; the last one stays when it is empty. Bounded by `most` bytes, heads
    /// included: a datagram has a byte at least.
    lanes: Vec<Lane>,
    /// The lane that is served next. An index of `lanes`, 0 if there are none.
    turn: usize,
    /// The lane that was found last. It may be gone.
    last: usize,
    /// Datagrams that wait, and the sum of their lengths.
    count: usize,
    bytes: usize,
    /// Bytes that may wait, heads included.
    most: usize,
    /// Age at which a datagram that still waits is dropped. `None` is never, and costs nothing.
    age: Option<Duration>,
}

impl Outgoing {
    pub(crate) fn new(most: usize, age: Option<Duration>) -> Self {
        Self { lanes: Vec::new(), turn: 0, last: 0, count: 0, bytes: 0, most, age }
    }

    /// Most bytes that may wait, heads included. A larger datagram cannot be sent.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Queue a datagram. If there is no room, the oldest of the session with most bytes are dropped for it, and `note` is
    /// called for each.
    #[inline]
    pub(crate) fn push(&mut self, now: Instant, session_id: u64, data: Bytes, note: impl FnMut(u64, Fate)) {
        if self.lanes.get(self.last).is_none_or(|lane| lane.session_id != session_id) {
            self.last = self.find(session_id);
        }
        let lane = &mut self.lanes[self.last];
        lane.bytes += data.len();
        self.bytes += data.len();
        self.count += 1;
        lane.queue.push_back(Waiting { since: now, data });
        if self.bytes > self.most {
            self.make_room(note);
        }
    }

    /// The lane of a session, which it may not have had.
    fn find(&mut self, session_id: u64) -> usize {
        if self.count == 0
            && let Some(lane) = self.lanes.first_mut()
        {
            lane.session_id = session_id;
            return 0;
        }
        self.lanes.iter().position(|lane| lane.session_id == session_id).unwrap_or_else(|| {
            self.lanes.push(Lane { session_id, ..Lane::default() });
            self.lanes.len() - 1
        })
    }

    #[cold]
    fn make_room(&mut self, mut note: impl FnMut(u64, Fate)) {
        while self.bytes > self.most {
            // The last of the largest, so that of several equal ones the first lane loses.
            let largest = self.lanes.iter().enumerate().rev().max_by_key(|(_, lane)| lane.bytes);
            let Some(index) = largest.map(|(index, _)| index) else { break };
            let session_id = self.lanes[index].session_id;
            let Some(oldest) = self.lanes[index].queue.pop_front() else { break };
            self.leave(index, oldest.data.len(), false);
            note(session_id, Fate::Dropped);
        }
    }

    /// A datagram of this length was taken off a lane, because it was the lane's turn or to make room.
    #[inline]
    fn leave(&mut self, index: usize, length: usize, was_turn: bool) {
        self.lanes[index].bytes -= length;
        self.bytes -= length;
        self.count -= 1;
        if self.lanes.len() > 1 {
            self.pass_turn(index, was_turn);
        }
    }

    /// Several lanes: one that has become empty goes, and whoever comes next takes its place.
    fn pass_turn(&mut self, index: usize, was_turn: bool) {
        if self.lanes[index].bytes == 0 {
            self.lanes.remove(index);
            self.turn -= usize::from(index < self.turn);
        } else {
            self.turn += usize::from(was_turn);
        }
        if self.turn >= self.lanes.len() {
            self.turn = 0;
        }
    }

    /// Offer datagrams to the core until it takes no more; those that are too old are dropped.
    #[inline]
    pub(crate) fn flush(
        &mut self,
        now: Instant,
        mut offer: impl FnMut(Bytes) -> Offer,
        mut note: impl FnMut(u64, Fate),
    ) {
        // Several of one session that leave in a row are noted at once.
        let (mut sender, mut sent, mut bytes) = (0, 0, 0);
        while let Some(lane) = self.lanes.get_mut(self.turn) {
            let Some(Waiting { since, data }) = lane.queue.pop_front() else { break };
            let (session_id, length) = (lane.session_id, data.len());
            let fate = if self.age.is_some_and(|age| now.saturating_duration_since(since) > age) {
                Fate::Expired
            } else {
                match offer(data) {
                    Offer::Taken => {
                        if session_id != sender && sent > 0 {
                            note(
                                sender,
                                Fate::Sent { count: std::mem::take(&mut sent), bytes: std::mem::take(&mut bytes) },
                            );
                        }
                        sender = session_id;
                        sent += 1;
                        bytes += (length - varint::length(session_id / 4)) as u64;
                        self.leave(self.turn, length, true);
                        continue;
                    }
                    Offer::Refused => Fate::Dropped,
                    Offer::Full(data) => {
                        lane.queue.push_front(Waiting { since, data });
                        break;
                    }
                }
            };
            self.leave(self.turn, length, true);
            note(session_id, fate);
        }
        if sent > 0 {
            note(sender, Fate::Sent { count: sent, bytes });
        }
    }

    /// The connection is over.
    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
        (self.turn, self.count, self.bytes) = (0, 0, 0);
    }

    /// Memory that the queue takes.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.bytes + self.count * ENTRY_COST
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Datagrams for sessions that nobody has registered yet, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Early {
    /// Each with its session's ID. Bounded by `most`.
    queue: VecDeque<(u64, Bytes)>,
    /// Sum of the lengths in `queue`.
    bytes: usize,
    /// Datagrams that may be kept, of all sessions together.
    most: usize,
}

impl Early {
    pub(crate) fn new(most: usize) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, most }
    }

    /// Keep a datagram; whether it is the only one for its session.
    pub(crate) fn push(&mut self, session_id: u64, data: Bytes) -> bool {
        let is_first = !self.queue.iter().any(|(other, _)| *other == session_id);
        self.bytes += data.len();
        self.queue.push_back((session_id, data));
        if self.queue.len() > self.most
            && let Some((_, oldest)) = self.queue.pop_front()
        {
            self.bytes -= oldest.len();
        }
        is_first
    }

    /// Take those for a session, in their order.
    pub(crate) fn take(&mut self, session_id: u64, mut give: impl FnMut(Bytes)) {
        self.queue.retain_mut(|(target, data)| {
            let stays = *target != session_id;
            if !stays {
                self.bytes -= data.len();
                give(std::mem::take(data));
            }
            stays
        });
    }

    /// The connection is over.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
    }

    /// Memory that the queue takes.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.bytes
    }
}

/// Received datagrams of one session, and what is counted of all its datagrams.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Bounded by `most_bytes` and `most`.
    queue: VecDeque<Bytes>,
    /// Sum of the lengths in `queue`.
    bytes: usize,
    /// Bytes that may wait; a larger datagram is dropped.
    most_bytes: usize,
    /// Datagrams that may wait.
    most: usize,
    /// Somebody waits for a datagram. Reset when that is reported.
    pub(crate) interest: bool,
    stats: DatagramStats,
}

impl Received {
    pub(crate) fn new(most_bytes: usize, most: usize) -> Self {
        Self { most_bytes, most, ..Self::default() }
    }

    /// Keep a received datagram, dropping the oldest beyond the bounds.
    #[inline]
    pub(crate) fn push(&mut self, data: Bytes) {
        self.stats.received += 1;
        self.stats.bytes_received += data.len() as u64;
        if data.len() > self.most_bytes || self.most == 0 {
            self.stats.dropped_incoming += 1;
            return;
        }
        self.bytes += data.len();
        self.queue.push_back(data);
        while self.queue.len() > self.most || self.bytes > self.most_bytes {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.bytes -= oldest.len();
            self.stats.dropped_incoming += 1;
        }
    }

    /// The oldest one.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let data = self.queue.pop_front()?;
        self.bytes -= data.len();
        Some(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Memory that the queue takes.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.bytes + self.queue.len() * ENTRY_COST
    }

    /// Drop what waits.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
    }

    /// Count what became of an outgoing datagram.
    pub(crate) fn note(&mut self, fate: Fate) {
        let counter = match fate {
            Fate::Sent { count, bytes } => {
                self.stats.sent += count;
                self.stats.bytes_sent += bytes;
                return;
            }
            Fate::Dropped => &mut self.stats.dropped_outgoing,
            Fate::Expired => &mut self.stats.expired_outgoing,
        };
        *counter += 1;
    }

    pub(crate) fn stats(&self) -> DatagramStats {
        DatagramStats { queued_incoming: self.queue.len() as u64, ..self.stats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: u8, length: usize) -> Bytes {
        vec![value; length].into()
    }

    #[test]
    fn datagrams_beyond_the_bounds_drop_the_oldest() {
        let mut received = Received::new(10, 3);
        for byte in 0..5u8 {
            received.push(bytes(byte, 4));
        }
        assert_eq!(received.stats().queued_incoming, 2);
        assert_eq!(received.stats().dropped_incoming, 3);
        assert_eq!(received.pop().unwrap()[0], 3);
        received.push(bytes(9, 11));
        assert_eq!((received.stats().dropped_incoming, received.stats().received), (4, 6));
        for _ in 0..4 {
            received.push(Bytes::new());
        }
        assert_eq!(received.stats().queued_incoming, 3, "empty ones count, too");
    }

    #[test]
    fn the_oldest_outgoing_one_makes_room_for_the_newest() {
        let now = Instant::now();
        let mut outgoing = Outgoing::new(10, None);
        let mut fates = Vec::new();
        for session_id in [0, 4, 8] {
            outgoing.push(now, session_id, bytes(session_id as u8, 4), |id, fate| fates.push((id, fate)));
        }
        assert_eq!(fates, [(0, Fate::Dropped)]);
        let mut taken = Vec::new();
        outgoing.flush(
            now,
            |data| {
                taken.push(data[0]);
                Offer::Taken
            },
            |id, fate| fates.push((id, fate)),
        );
        assert_eq!(taken, [4, 8]);
        assert_eq!(fates[1..], [(4, Fate::Sent { count: 1, bytes: 3 }), (8, Fate::Sent { count: 1, bytes: 3 })]);
        assert!(outgoing.is_empty());
        assert_eq!(outgoing.bytes, 0);
    }

    #[test]
    fn sessions_take_turns_and_one_that_sends_too_much_drops_its_own() {
        let now = Instant::now();
        let mut outgoing = Outgoing::new(20, None);
        let mut dropped = Vec::new();
        let mut push = |outgoing: &mut Outgoing, session_id: u64, value: u8| {
            outgoing.push(now, session_id, bytes(value, 2), |id, _| dropped.push(id));
        };
        for value in 0..50 {
            push(&mut outgoing, 4, value);
        }
        for value in 100..103 {
            push(&mut outgoing, 8, value);
        }
        push(&mut outgoing, 12, 200);
        assert_eq!(outgoing.memory(), 20 + 10 * ENTRY_COST);
        let mut sent = Vec::new();
        let mut flush = |outgoing: &mut Outgoing, most: usize| {
            let mut left = most;
            outgoing.flush(
                now,
                |data| {
                    if left == 0 {
                        return Offer::Full(data);
                    }
                    left -= 1;
                    sent.push(data[0]);
                    Offer::Taken
                },
                |_, _| (),
            );
        };
        flush(&mut outgoing, 2);
        push(&mut outgoing, 16, 210);
        flush(&mut outgoing, 100);
        assert_eq!(sent, [44, 100, 200, 210, 45, 101, 46, 102, 47, 48, 49]);
        assert!(dropped.iter().all(|id| *id == 4) && dropped.len() == 44);
        assert_eq!((outgoing.memory(), outgoing.is_empty()), (0, true));
        // The lane that is left serves whoever comes.
        for session_id in [20, 4, 20] {
            outgoing.push(now, session_id, bytes(1, 1), |_, _| panic!("there is room"));
        }
        let mut order = Vec::new();
        outgoing.flush(now, |_| Offer::Taken, |id, _| order.push(id));
        assert_eq!(order, [20, 4, 20]);
    }

    #[test]
    fn what_waits_for_too_long_expires_and_what_the_core_returns_stays_first() {
        let begin = Instant::now();
        let age = Duration::from_millis(100);
        let mut outgoing = Outgoing::new(100, Some(age));
        for (n, at) in [(1, begin), (2, begin + age), (3, begin + age)] {
            outgoing.push(at, u64::from(n) * 4, bytes(n, 1), |_, _| panic!("there is room"));
        }
        let mut fates = Vec::new();
        let now = begin + age + Duration::from_millis(1);
        outgoing.flush(now, Offer::Full, |id, fate| fates.push((id, fate)));
        assert_eq!(fates, [(4, Fate::Expired)]);
        let mut offered = Vec::new();
        outgoing.flush(
            now,
            |data| {
                offered.push(data[0]);
                if data[0] == 2 { Offer::Refused } else { Offer::Full(data) }
            },
            |id, fate| fates.push((id, fate)),
        );
        assert_eq!(offered, [2, 3]);
        assert_eq!(fates[1..], [(8, Fate::Dropped)]);
        assert_eq!(outgoing.bytes, 1);
    }

    #[test]
    fn early_ones_are_kept_for_their_session_within_a_bound() {
        let mut early = Early::new(3);
        assert!(early.push(4, bytes(1, 1)));
        assert!(early.push(8, bytes(2, 1)));
        assert!(!early.push(4, bytes(3, 1)));
        assert!(!early.push(4, bytes(4, 1)), "the first one is dropped only now");
        let mut taken = Vec::new();
        early.take(4, |data| taken.push(data[0]));
        assert_eq!(taken, [3, 4]);
        early.take(4, |_| panic!("there are none left"));
        early.take(8, |data| taken.push(data[0]));
        assert_eq!(taken, [3, 4, 2]);
        let mut none = Early::new(0);
        none.push(4, bytes(1, 1));
        none.take(4, |_| panic!("none may be kept"));
    }

    #[test]
    fn a_shared_datagram_is_the_one_that_each_session_would_send() {
        let mut shared = SharedDatagram::new(b"all");
        let ids = [0, 0, 4, 256, 256, 0, 4 << 20];
        let frames: Vec<_> = ids.iter().map(|&id| shared.frame(id)).collect();
        for (id, sent) in ids.iter().zip(&frames) {
            assert_eq!(sent, &frame(*id, b"all"));
        }
        // Neighbours with the same ID share the bytes.
        assert_eq!(frames[0].as_ptr(), frames[1].as_ptr());
        assert_ne!(frames[1].as_ptr(), frames[2].as_ptr());
        assert_eq!(frames[3].as_ptr(), frames[4].as_ptr());
    }

    #[test]
    fn a_session_is_named_by_a_quarter_of_its_id() {
        for session_id in [0, 4, 4 * 63, 4 * 64, 4 * QUARTER_ID_LIMIT] {
            let mut data = Vec::new();
            write_session_id(session_id, &mut data);
            let length = data.len();
            data.extend_from_slice(b"payload");
            assert_eq!(read_session_id(&data), Some((session_id, length)));
        }
        let mut beyond = Vec::new();
        varint::write(QUARTER_ID_LIMIT + 1, &mut beyond);
        assert_eq!(read_session_id(&beyond), None);
        assert_eq!(read_session_id(&[]), None);
        assert_eq!(read_session_id(&[0x40]), None);
    }
}
