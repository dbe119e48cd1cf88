//! Totals of an engine: how its connections ended, and what they and their sessions have moved. They never go down.
//!
//! A connection counts what is its own anyway. It is added here when the engine forgets it; those that there are still are
//! added when somebody asks. So counting costs nothing meanwhile.

use std::ops::AddAssign;

use crate::{
    event::{CloseCause, ConnectionStats},
    session::SessionTotals,
};

/// How a connection ended, or why its handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As the core reports it.
    Closed(CloseCause),
    /// The handshake took too long.
    Timeout,
    /// It made room for another client in its handshake.
    Displaced,
}

impl Ending {
    /// All of them, in the order of the counts in [`Totals`].
    pub const ALL: [Self; 11] = [
        Self::Closed(CloseCause::Application),
        Self::Closed(CloseCause::Transport),
        Self::Closed(CloseCause::Protocol),
        Self::Closed(CloseCause::Tls),
        Self::Closed(CloseCause::Idle),
        Self::Closed(CloseCause::Reset),
        Self::Closed(CloseCause::Local),
        Self::Closed(CloseCause::Version),
        Self::Closed(CloseCause::Refused),
        Self::Timeout,
        Self::Displaced,
    ];

    /// Its place in [`Ending::ALL`].
    fn place(self) -> usize {
        Self::ALL.iter().position(|one| *one == self).unwrap_or_default()
    }
}

/// Totals since an engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections of which the handshake was completed.
    pub connected: u64,
    /// Handshakes that failed, by [`Ending::ALL`].
    pub failed: [u64; Ending::ALL.len()],
    /// Connections that ended later, by [`Ending::ALL`].
    pub ended: [u64; Ending::ALL.len()],
    /// In UDP payloads.
    pub bytes_sent: u64,
    /// In UDP payloads.
    pub bytes_received: u64,
    /// QUIC packets.
    pub packets_sent: u64,
    /// UDP datagrams.
    pub packets_received: u64,
    /// QUIC packets.
    pub packets_lost: u64,
    /// Of all sessions.
    pub sessions: SessionTotals,
}

impl Totals {
    /// Those of one connection.
    pub(crate) fn of(
        is_connected: bool,
        ending: Option<Ending>,
        stats: &ConnectionStats,
        sessions: SessionTotals,
    ) -> Self {
        let mut totals = Self {
            connected: u64::from(is_connected),
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            packets_sent: stats.packets_sent,
            packets_received: stats.packets_received,
            packets_lost: stats.packets_lost,
            sessions,
            ..Self::default()
        };
        if let Some(ending) = ending {
            let counts = if is_connected { &mut totals.ended } else { &mut totals.failed };
            counts[ending.place()] = 1;
        }
        totals
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.connected += other.connected;
        for (sum, more) in self.failed.iter_mut().zip(other.failed) {
            *sum += more;
        }
        for (sum, more) in self.ended.iter_mut().zip(other.ended) {
            *sum += more;
        }
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.packets_sent += other.packets_sent;
        self.packets_received += other.packets_received;
        self.packets_lost += other.packets_lost;
        self.sessions += other.sessions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_place_of_its_own() {
        for (place, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending.place(), place);
        }
    }
}
