//! The memory budget of a server: what its connections hold and what it has promised to take, on all of its sockets.
//!
//! A connection is charged for its own state, for the window that its peer may fill, and for what waits in queues, in
//! either direction. A window covers what was promised as well as what came and was not read. So the sum of all charges is
//! a bound: whatever peers send, memory cannot exceed it unless a window grows.
//!
//! Near the limit windows grow less, and then newcomers are refused. What can still grow is up to the application, such as
//! queues for peers that do not read. Above the limit the engines report [`Event::MemoryShort`](crate::Event::MemoryShort),
//! and the layers above close the connections that hold most.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What a connection takes by itself, without sessions: state of QUIC and TLS, and the objects above. Measured.
pub(crate) const CONNECTION_COST: u64 = 32 * 1024;
/// What a session takes by itself. Measured.
pub(crate) const SESSION_COST: u64 = 16 * 1024;
/// The window of a new connection, if there is a budget. It has room for a browser's first flight of 32 packets.
pub(crate) const FIRST_WINDOW: u64 = 48 * 1024;
/// Charges are multiples of this, so that most packets change none.
const STEP: u64 = 4096;
/// Share of what is free by which one window may grow, if its data is read.
const SHARE_OF_READERS: u64 = 4;
/// The same of what is free in the first half of the budget, if what came is not read. It is for the other streams of the
/// connection, which would stop. The second half is for connections whose data is read, and for new ones.
const SHARE_OF_UNREAD: u64 = 64;

/// Share of the budget that newcomers leave to those who are in: their sessions, and what waits to be sent to them. Else a flood
/// of handshakes would fill the budget, and the next byte for an honest client exceed it.
const SHARE_OF_PRESENT: u64 = 16;

/// A budget that engines share.
#[derive(Debug)]
pub struct Memory {
    /// The limit, in bytes.
    most: u64,
    /// The sum of all charges, in bytes. [`Account`]s change it.
    used: AtomicU64,
    /// Connections that were refused for lack of room, so far.
    refused: AtomicU64,
}

impl Memory {
    /// Make a budget of `most` bytes.
    #[must_use]
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicU64::new(0), refused: AtomicU64::new(0) })
    }

    /// The limit.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// What is promised and held.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Connections that were turned away for lack of room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether more is held and promised than there may be.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.used() > self.most
    }

    /// Whether there is room for another connection. If not, that counts as one refused.
    pub(crate) fn admits(&self) -> bool {
        let cost = CONNECTION_COST + SESSION_COST + FIRST_WINDOW;
        let has_room = self.used() + cost <= self.most - self.most / SHARE_OF_PRESENT;
        if !has_room {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    /// Whether a window may grow by `more`. `is_read`: its data is read as it comes.
    pub(crate) fn grants(&self, more: u64, is_read: bool) -> bool {
        if is_read {
            more <= self.most.saturating_sub(self.used()) / SHARE_OF_READERS
        } else {
            more <= (self.most / 2).saturating_sub(self.used()) / SHARE_OF_UNREAD
        }
    }
}

/// What connections of a server with a budget take, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Their own state, what came and was not read, and what waits to be sent or acknowledged.
    pub held: u64,
    /// What their peers may still send.
    pub promised: u64,
}

/// What one connection is charged for. Dropping it gives that back.
#[derive(Debug)]
pub(crate) struct Account {
    memory: Arc<Memory>,
    /// Bytes, a multiple of [`STEP`].
    charged: u64,
}

impl Account {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, charged: 0 }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How many bytes the connection is charged for.
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    /// Charge the connection for so much from now on.
    #[inline]
    pub(crate) fn charge(&mut self, bytes: u64) {
        let charge = bytes.next_multiple_of(STEP);
        if charge > self.charged {
            self.memory.used.fetch_add(charge - self.charged, Ordering::Relaxed);
        } else if charge < self.charged {
            self.memory.used.fetch_sub(self.charged - charge, Ordering::Relaxed);
        }
        self.charged = charge;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.charge(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn charges_add_up_and_go_with_their_connections() {
        let memory = Memory::new(MIB);
        let mut first = Account::new(memory.clone());
        let mut second = Account::new(memory.clone());
        first.charge(100_000);
        second.charge(1);
        assert_eq!(memory.used(), 25 * STEP + STEP);
        first.charge(0);
        assert_eq!((memory.used(), first.charged(), second.charged()), (STEP, 0, STEP));
        drop(second);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn windows_grow_by_a_share_of_what_is_free_and_newcomers_need_room() {
        let memory = Memory::new(64 * MIB);
        let mut account = Account::new(memory.clone());
        assert!(memory.grants(16 * MIB, true) && !memory.grants(16 * MIB + 1, true));
        assert!(memory.grants(MIB / 2, false) && !memory.grants(MIB / 2 + 1, false));
        account.charge(16 * MIB);
        assert!(memory.grants(MIB / 4, false) && !memory.grants(MIB / 4 + 1, false));
        account.charge(32 * MIB);
        assert!(!memory.grants(1, false), "the other half is for those who read, and for newcomers");
        account.charge(60 * MIB);
        assert!(memory.grants(MIB, true) && !memory.grants(MIB + 1, true));
        assert!(!memory.admits(), "a sixteenth is for those who are in");
        account.charge(60 * MIB - 96 * 1024);
        assert!(memory.admits());
        account.charge(64 * MIB - 64 * 1024);
        assert!(!memory.admits() && !memory.is_short());
        account.charge(65 * MIB);
        assert!(memory.is_short() && !memory.grants(1, true) && !memory.admits());
        assert_eq!(memory.refused(), 3);
    }
}
