//! What a connection adds to the [totals](crate::totals) of its engine.

use super::{Connection, ConnectionMut};
use crate::totals::{Ending, Totals};

impl Connection {
    /// All of it so far.
    pub(crate) fn totals(&self) -> Totals {
        Totals::of(self.is_connected, self.ending, &self.core.stats(), self.sessions.totals())
    }
}

impl ConnectionMut<'_> {
    /// End a connection whose handshake shall not be completed, unless it is over.
    pub(crate) fn give_up(&mut self, ending: Ending, reason: &[u8]) {
        if !self.connection.is_closed {
            // QUIC has no codes of applications before the handshake is complete (RFC 9000, section 10.2.3).
            self.close(0, reason);
            if self.connection.ending == Some(Ending::Closed(crate::event::CloseCause::Local)) {
                self.connection.ending = Some(ending);
            }
        }
    }
}
