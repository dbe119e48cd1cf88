//! What the engine keeps per WebTransport session: received datagrams and, where negotiated, the credit ledger
//! (draft-ietf-webtrans-http3, section 5). Policy, capsules and errors are Python's.

use std::collections::VecDeque;

use bytes::Bytes;

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
    /// Number of received datagrams kept.
    pub datagram_count: usize,
}

/// Counters of a session's datagrams.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct DatagramStats {
    pub sent: u64,
    pub received: u64,
    pub dropped_outgoing: u64,
    pub expired_outgoing: u64,
    pub dropped_incoming: u64,
    pub queued_incoming: u64,
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

/// One registered session.
#[derive(Debug, Default)]
pub struct Session {
    pub(crate) limits: SessionLimits,
    pub(crate) datagrams: VecDeque<Bytes>,
    pub(crate) datagram_bytes: usize,
    pub(crate) datagram_interest: bool,
    pub(crate) acked_interest: bool,
    /// Finished streams of ours whose bytes are not all acknowledged.
    pub(crate) unacked: usize,
    pub(crate) stats: DatagramStats,
    /// Payload bytes given to the core.
    pub(crate) sent: u64,
    /// Limit at which the peer was told that data waits.
    pub(crate) blocked_at: Option<u64>,
    /// Limits at which the peer was told that streams wait.
    pub(crate) streams_blocked_at: [Option<u64>; 2],
    /// The connection's turn in which a stream of the session was last served.
    pub(crate) turn: u64,
    /// Payload bytes of the peer's, up to the highest offset or final size of each stream.
    pub(crate) arrived: u64,
    /// Those that were read, or that nobody will ever read.
    pub(crate) consumed: u64,
    pub(crate) receive_limit: u64,
    /// The peer broke a limit; it was reported.
    pub(crate) is_exceeded: bool,
    /// Streams of ours opened so far, per direction (0 bidirectional, 1 unidirectional).
    pub(crate) opened: [u64; 2],
    pub(crate) peer_opened: [u64; 2],
    pub(crate) peer_closed: [u64; 2],
    pub(crate) peer_limit: [u64; 2],
}

impl Session {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self { limits, receive_limit: limits.receive_window, peer_limit: limits.receive_streams, ..Self::default() }
    }

    /// Keep a received datagram, dropping the oldest beyond the bounds.
    pub(crate) fn push_datagram(&mut self, data: Bytes) {
        self.stats.received += 1;
        if data.len() > self.limits.datagram_buffer || self.limits.datagram_count == 0 {
            self.stats.dropped_incoming += 1;
            return;
        }
        self.datagram_bytes += data.len();
        self.datagrams.push_back(data);
        while self.datagrams.len() > self.limits.datagram_count || self.datagram_bytes > self.limits.datagram_buffer {
            let Some(old) = self.datagrams.pop_front() else { break };
            self.datagram_bytes -= old.len();
            self.stats.dropped_incoming += 1;
        }
    }

    pub(crate) fn pop_datagram(&mut self) -> Option<Bytes> {
        let data = self.datagrams.pop_front()?;
        self.datagram_bytes -= data.len();
        Some(data)
    }

    /// Note that streams of `direction` wait for the peer's limit; the limit when the peer should be told.
    pub(crate) fn note_streams_blocked(&mut self, direction: usize) -> Option<u64> {
        let limit = self.limits.send_streams[direction];
        (self.streams_blocked_at[direction].replace(limit) != Some(limit)).then_some(limit)
    }

    /// Payload bytes that may still be sent.
    pub(crate) fn send_credit(&self) -> u64 {
        if self.limits.flow_control { self.limits.send_limit.saturating_sub(self.sent) } else { u64::MAX }
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

    pub(crate) fn may_open(&self, direction: usize) -> bool {
        !self.limits.flow_control || self.opened[direction] < self.limits.send_streams[direction]
    }

    /// Count payload of the peer's; whether that broke the limit, which is said once.
    pub(crate) fn count_arrived(&mut self, bytes: u64) -> bool {
        self.arrived += bytes;
        self.limits.flow_control && self.arrived > self.receive_limit && !std::mem::replace(&mut self.is_exceeded, true)
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
    /// Half a window is the step, so that capsules stay rare and the sender never runs dry.
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

    /// Count a finished stream of the peer; the new cumulative limit when it should be announced.
    pub(crate) fn count_peer_closed(&mut self, direction: usize) -> Option<u64> {
        if !self.limits.flow_control {
            return None;
        }
        self.peer_closed[direction] += 1;
        let limit = self.peer_closed[direction] + self.limits.receive_streams[direction];
        (limit - self.peer_limit[direction] >= self.limits.receive_streams[direction].div_ceil(2)).then(|| {
            self.peer_limit[direction] = limit;
            limit
        })
    }
}

/// What is known of a session that is not registered yet, of streams that are over already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct EarlyLedger {
    /// Streams of the peer, per direction.
    pub(crate) streams: [u64; 2],
    /// Their payload bytes.
    pub(crate) bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_beyond_the_bounds_drop_the_oldest() {
        let mut session =
            Session::new(SessionLimits { datagram_buffer: 10, datagram_count: 3, ..SessionLimits::default() });
        for byte in 0..5u8 {
            session.push_datagram(Bytes::copy_from_slice(&[byte; 4]));
        }
        assert_eq!(session.datagrams.len(), 2);
        assert_eq!(session.stats.dropped_incoming, 3);
        assert_eq!(session.pop_datagram().unwrap()[0], 3);
    }

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
}
