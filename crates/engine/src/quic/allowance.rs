//! How much a server sends to an address at which nobody has shown that he receives (RFC 9000, section 8).
//!
//! The core counts too, but it lets a whole datagram go as long as a single byte is left, and probes for a larger MTU
//! unasked; in a handshake it takes what comes from anywhere for its client's; and an answer to a PATH_CHALLENGE has 1200
//! bytes, whatever asked for it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn_proto::Connection;

use super::{SMALLEST_MTU, tap::Tap};

/// The core asks whether the peer is at its new address in a datagram of 1200 bytes or more, however small the packet was
/// that came from there, and cannot do without (RFC 9000, section 8.2.1, would have it). This often, it may.
const FREE_INTERVAL: Duration = Duration::from_secs(1);

/// What came from an address, and went there.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    received: usize,
    sent: usize,
}

impl Bytes {
    fn left(self) -> usize {
        (3 * self.received).saturating_sub(self.sent)
    }
}

/// A server's account of one connection.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Where the core sends.
    path: SocketAddr,
    /// What is counted there, until the peer has answered from there.
    limit: Option<Bytes>,
    /// The last address from which it has.
    home: Option<SocketAddr>,
    /// The path is another one, and the core has not sent anything since.
    has_moved: bool,
    /// PATH_RESPONSE frames that had come when the peer moved.
    responses: u64,
    /// When one datagram beyond the limit may be made, for an address that was not asked.
    asks_at: Option<Instant>,
    /// When it may also leave.
    next_free: Option<Instant>,
    /// The last other address that something came from.
    elsewhere: Option<(SocketAddr, Bytes)>,
}

impl Allowance {
    /// Of a connection that begins with a datagram of this size, from an address that a token has validated or not.
    pub(crate) fn new(core: &Connection, size: usize, is_validated: bool) -> Self {
        Self {
            path: core.remote_address(),
            limit: (!is_validated).then_some(Bytes { received: size, sent: 0 }),
            home: is_validated.then(|| core.remote_address()),
            has_moved: false,
            responses: 0,
            asks_at: None,
            next_free: None,
            elsewhere: None,
        }
    }

    /// Count a datagram that the core is about to get.
    pub(crate) fn receive(&mut self, from: SocketAddr, size: usize) {
        if from == self.path {
            if let Some(bytes) = &mut self.limit {
                bytes.received += size;
            }
            return;
        }
        let (address, bytes) = self.elsewhere.get_or_insert((from, Bytes::default()));
        if *address != from {
            (*address, *bytes) = (from, Bytes::default());
        }
        bytes.received += size;
    }

    /// See what the core has made of it.
    pub(crate) fn review(&mut self, now: Instant, core: &mut Connection, tap: &Tap) {
        self.follow(now, core, tap);
        if self.limit.is_some()
            && match self.home {
                // RFC 9000, section 8.1.
                None => tap.is_client_heard(),
                Some(_) => core.stats().frame_rx.path_response > self.responses,
            }
        {
            self.limit = None;
            self.home = Some(self.path);
            tap.set_spare(0);
        }
    }

    /// The peer may have moved, or the core have given up on its new address.
    fn follow(&mut self, now: Instant, core: &mut Connection, tap: &Tap) {
        let path = core.remote_address();
        if path == self.path {
            return;
        }
        self.path = path;
        self.has_moved = true;
        let known = self.elsewhere.take().filter(|(address, _)| *address == path);
        self.limit = (self.home != Some(path)).then(|| known.map_or_else(Bytes::default, |(_, bytes)| bytes));
        self.responses = core.stats().frame_rx.path_response;
        self.asks_at = Some(now);
        if self.limit.is_none() {
            tap.set_spare(0);
            // What the core has sent elsewhere is lost. It only finds out by a timer that it sets when it sends something;
            // the one that it has belongs to the other address, and comes to nothing.
            core.ping();
        }
    }

    /// How many of `most` datagrams may be made now; `largest` is the size of the largest that probes for an MTU.
    pub(crate) fn datagrams(
        &mut self,
        now: Instant,
        core: &mut Connection,
        tap: &Tap,
        largest: usize,
        most: usize,
    ) -> usize {
        if self.limit.is_none() {
            return most;
        }
        self.follow(now, core, tap);
        self.has_moved = false;
        let Some(bytes) = self.limit else { return most };
        if self.home.is_none() {
            // The core does not probe before the handshake is over. It has to begin, also with packets that are set to be
            // larger than three of a client's.
            return most.min(bytes.left() / usize::from(core.current_mtu())).max(usize::from(bytes.sent == 0));
        }
        // The core asks in one datagram, as large as its packets are. If the path takes less by now, it would ask in vain
        // for ever, and go back each time to an address that the peer has left.
        tap.set_spare(usize::from(core.current_mtu()).saturating_sub(SMALLEST_MTU));
        match bytes.left() / largest {
            0 => usize::from(self.asks_at.is_some_and(|at| at <= now)),
            // Of which one at a time can be shortened.
            _ => 1,
        }
    }

    /// Whether the core has to send something on its new path before its timers run: the one for losses belongs to the old
    /// path, and when it sends, it sets it anew. Once after each move.
    pub(crate) fn take_move(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Whether what is sent is counted.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Count a burst. False: it must not be sent, and is lost.
    pub(crate) fn send(&mut self, now: Instant, to: SocketAddr, size: usize) -> bool {
        if to == self.path {
            if let Some(bytes) = &mut self.limit {
                if bytes.left() < size {
                    // Made all the same: the core counts on something to be under way.
                    self.asks_at = self.next_free.filter(|at| *at > now);
                    if self.asks_at.is_some() {
                        return false;
                    }
                    self.next_free = Some(now + FREE_INTERVAL);
                }
                bytes.sent += size;
            }
            return true;
        }
        if self.home == Some(to) {
            return true;
        }
        match &mut self.elsewhere {
            Some((address, bytes)) if *address == to && bytes.left() >= size => {
                bytes.sent += size;
                true
            }
            _ => false,
        }
    }
}
