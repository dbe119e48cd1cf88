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

/// One registered session.
#[derive(Debug, Default)]
pub struct Session {
    pub(crate) limits: SessionLimits,
    pub(crate) datagrams: VecDeque<Bytes>,
    pub(crate) datagram_bytes: usize,
    pub(crate) datagram_interest: bool,
    pub(crate) acked_interest: bool,
    pub(crate) stats: DatagramStats,
    pub(crate) sent: u64,
    pub(crate) blocked_at: Option<u64>,
    pub(crate) received: u64,
    pub(crate) receive_limit: u64,
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

    /// Payload bytes that may still be sent.
    pub(crate) fn send_credit(&self) -> u64 {
        if self.limits.flow_control { self.limits.send_limit.saturating_sub(self.sent) } else { u64::MAX }
    }

    pub(crate) fn may_open(&self, direction: usize) -> bool {
        !self.limits.flow_control || self.opened[direction] < self.limits.send_streams[direction]
    }

    /// Count payload that the application took; the new limit when it should be announced.
    ///
    /// Half a window is the step, so that capsules stay rare and the sender never runs dry.
    pub(crate) fn count_read(&mut self, bytes: u64) -> Option<u64> {
        if !self.limits.flow_control {
            return None;
        }
        self.received += bytes;
        let limit = self.received + self.limits.receive_window;
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
        assert_eq!(session.count_read(49), None);
        assert_eq!(session.count_read(1), Some(150));
        assert_eq!(session.count_read(10), None);
    }
}
