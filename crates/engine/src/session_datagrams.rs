//! The datagrams of one session: sending, receiving, waiting for them.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    datagrams::{self, DatagramStats, Outgoing, SharedDatagram},
    quic::core::Core,
    session::Sessions,
    varint,
};

/// The datagrams of a session, registered or not.
#[must_use]
pub struct SessionDatagrams<'a> {
    pub(crate) session_id: u64,
    /// When all this happens.
    pub(crate) now: Instant,
    /// The connection is over.
    pub(crate) is_closed: bool,
    pub(crate) core: &'a mut Core,
    /// All of them: a datagram that makes room for another may be that of another session, which counts it.
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) outgoing: &'a mut Outgoing,
}

impl std::fmt::Debug for SessionDatagrams<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionDatagrams").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl SessionDatagrams<'_> {
    /// Queue a datagram: 0 accepted, positive the limit that it exceeds, -1 impossible now.
    #[inline]
    pub fn send(&mut self, data: &[u8]) -> i64 {
        self.push(data.len(), |session_id| datagrams::frame(session_id, data))
    }

    /// The same with a datagram that other sessions get, too.
    #[inline]
    pub fn send_shared(&mut self, data: &mut SharedDatagram<'_>) -> i64 {
        self.push(data.payload().len(), |session_id| data.frame(session_id))
    }

    #[inline]
    fn push(&mut self, length: usize, frame: impl FnOnce(u64) -> Bytes) -> i64 {
        self.core.wants_transmit = true;
        if self.is_closed || !self.sessions.is_registered(self.session_id) {
            return -1;
        }
        let Some(most) = self.core.max_datagram() else { return -1 };
        let head = varint::length(self.session_id / 4);
        let limit = most.saturating_sub(head).min(self.outgoing.most());
        if length > limit {
            return limit.max(1) as i64;
        }
        self.outgoing.push(self.now, self.session_id, frame(self.session_id), |session_id, fate| {
            if let Some(session) = self.sessions.get_mut(session_id) {
                session.datagrams.note(fate);
            }
        });
        0
    }

    /// The oldest received datagram.
    #[inline]
    pub fn receive(&mut self) -> Option<Bytes> {
        self.sessions.take_datagram(self.session_id)
    }

    /// Ask for [`Event::DatagramReadable`](crate::Event::DatagramReadable). False: look again at once.
    pub fn want(&mut self) -> bool {
        match self.sessions.get_mut(self.session_id) {
            Some(session) if session.datagrams.is_empty() && !self.is_closed => {
                session.datagrams.interest = true;
                true
            }
            _ => false,
        }
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Option<DatagramStats> {
        Some(self.sessions.get(self.session_id)?.datagrams.stats())
    }
}
