//! What a connection holds and has promised, for the [budget](crate::memory) that it is charged to.

use std::time::Instant;

use super::{Connection, ConnectionMut};
use crate::{
    memory::{Account, CONNECTION_COST, Holding, SESSION_COST},
    stream::ReceiveState,
};

/// Bytes that are written to a connection before its account is brought up to date.
const UNCHARGED: usize = 16 * 1024;

impl Connection {
    /// Whether anybody waits to write.
    pub(crate) fn has_writers(&self) -> bool {
        self.backlog.has_writers()
    }

    /// Bytes of all streams that came and were not taken from the core.
    fn unread(&self) -> u64 {
        let open = self.streams.iter().filter(|(_, stream)| stream.receiving.state == ReceiveState::Open);
        open.map(|(stream_id, stream)| {
            let receiving = &stream.receiving;
            let taken = receiving.header_length + receiving.read + receiving.buffer.len() as u64;
            self.core.extent(*stream_id).end.saturating_sub(taken)
        })
        .sum()
    }

    /// What waits in queues, apart from what came and is still in the core.
    #[inline]
    fn queued(&self) -> u64 {
        let received = self.buffered + self.sessions.datagram_memory();
        if self.is_closed {
            return received as u64;
        }
        (received + self.backlog.bytes() + self.outgoing.memory() + self.early.memory()) as u64
            + self.core.outstanding()
    }

    /// What the connection takes apart from what waits. Nothing once it is over.
    #[inline]
    fn own_cost(&self) -> u64 {
        if self.is_closed { 0 } else { CONNECTION_COST + SESSION_COST * self.sessions.len() as u64 }
    }

    /// Let the window grow where there is reason to and the budget allows it, and bring the account up to date. The account
    /// of a connection that is over is that of what can still be read.
    #[inline]
    pub(crate) fn settle_account(&mut self, now: Instant) {
        if self.account.is_none() {
            return;
        }
        if !self.is_closed && self.peer_credit.window.is_due(self.core.flow()) {
            self.review_window(now);
        }
        let window = if self.is_closed { 0 } else { self.peer_credit.window.current() };
        let charge = self.own_cost() + window + self.queued();
        self.backlog_charged = self.backlog.bytes();
        if let Some(account) = &mut self.account {
            account.charge(charge);
        }
    }

    /// Bring the account up to date if much was written since: before connections are looked at again, many of them may have
    /// been written to.
    #[inline]
    pub(super) fn settle_writes(&mut self, now: Instant) {
        if self.backlog.bytes() > self.backlog_charged + UNCHARGED {
            self.settle_many_writes(now);
        }
    }

    #[cold]
    fn settle_many_writes(&mut self, now: Instant) {
        self.settle_account(now);
    }

    fn review_window(&mut self, now: Instant) {
        let Some(account) = &self.account else { return };
        let memory = account.memory();
        let flow = self.core.flow();
        let mut window = std::mem::take(&mut self.peer_credit.window);
        let has_grown = window.review(
            now,
            flow,
            || self.core.rtt(),
            || self.unread(),
            |more, is_read| memory.grants(more, is_read),
        );
        if has_grown {
            self.core.widen(window.current());
        }
        self.peer_credit.window = window;
    }

    /// What the connection holds and has promised.
    pub(crate) fn holding(&self) -> Holding {
        let unread = if self.is_closed { 0 } else { self.unread() };
        let window = if self.is_closed { 0 } else { self.peer_credit.window.current() };
        Holding { held: self.own_cost() + self.queued() + unread, promised: window.saturating_sub(unread) }
    }

    /// What the connection is charged for: more than it holds.
    pub(crate) fn charged(&self) -> u64 {
        self.account.as_ref().map_or(0, Account::charged)
    }
}

impl ConnectionMut<'_> {
    /// Drop all that came and was not read, of a connection that is over: what it holds is needed elsewhere.
    pub fn drop_received(&mut self) {
        if !self.connection.is_closed {
            return;
        }
        let streams: Vec<u64> = self.connection.streams.keys().copied().collect();
        for stream_id in streams {
            if let Some(mut half) = self.receiving(stream_id) {
                if !half.half.buffer.is_empty() {
                    // It would look whole, with less in it than its peer has sent.
                    half.half.pending_end = Some(ReceiveState::Gone);
                }
                half.drop_buffer();
                half.settle();
            }
            self.forget_if_done(stream_id);
        }
        self.connection.sessions.drop_datagrams();
        self.connection.settle_account(self.now);
    }
}
