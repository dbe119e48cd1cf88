//! The datagrams of one session: sending, receiving, waiting for them.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    datagrams::{DatagramStats, Outgoing, write_session_id},
    quic::core::Core,
    session::Sessions,
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
        self.core.wants_transmit = true;
        if self.is_closed || !self.sessions.is_registered(self.session_id) {
            return -1;
        }
        let Some(most) = self.core.max_datagram() else { return -1 };
        let mut frame = Vec::with_capacity(data.len() + 8);
        write_session_id(self.session_id, &mut frame);
        let limit = most.saturating_sub(frame.len()).min(self.outgoing.most());
        if data.len() > limit {
            return limit.max(1) as i64;
        }
        frame.extend_from_slice(data);
        self.outgoing.push(self.now, self.session_id, frame.into(), |session_id, fate| {
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
