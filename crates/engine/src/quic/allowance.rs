//! How much a server sends to an address that is not validated: at most three times what it received from there (RFC 9000,
//! section 8). Without this limit, packets with forged addresses could make a server flood somebody else.
//!
//! The core counts too, but too generously. It sends a whole datagram as long as a single byte is left, and probes for a
//! larger MTU beyond that; in a handshake it counts datagrams from any address as its client's; and its PATH_CHALLENGE, and
//! its answer to one, have 1200 bytes, however small the datagram was that asked for it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn_proto::Connection;

use super::{SMALLEST_MTU, tap::Tap};

/// Bytes by which PATH_CHALLENGE datagrams may exceed the limit in [`FREE_INTERVAL`]. Hardly any does, because they are
/// shortened to what is left. Those with much data in them cannot be, and without one, the core never follows its peer.
const FREE_BYTES: usize = SMALLEST_MTU;
const FREE_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that the core is told have come, with each packet from an address that is not validated: three times as many are
/// more than it counts for what it sends in return, which is shortened afterwards. With its own account it would answer one
/// packet of a client that sends little, and then none until it gives up the address.
pub(super) const CREDIT: usize = SMALLEST_MTU / 2;

/// UDP payload that came from an address, and that was sent there.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    received: usize,
    sent: usize,
}

impl Bytes {
    /// How much may still be sent.
    fn left(self) -> usize {
        (3 * self.received).saturating_sub(self.sent)
    }
}

/// A server's account of one connection.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Where the core sends, as of the last look at it.
    path: SocketAddr,
    /// What is counted of `path`; `None` once it is validated.
    limit: Option<Bytes>,
    /// The address that was validated last, to which the core goes back if the peer does not answer at a new one. `None`
    /// before the first, while the handshake has to validate the client's address.
    home: Option<SocketAddr>,
    /// The path has changed since the core was last asked for packets, or its timer was passed over once.
    has_moved: bool,
    /// PATH_RESPONSE frames that had come when the path changed; the next one validates it.
    responses: u64,
    /// When the core is asked for one PATH_CHALLENGE datagram, although there is no room for its largest; `None` if none is
    /// due. Set when the path changes or something comes from it, and when such a datagram was discarded.
    asks_at: Option<Instant>,
    /// When the next interval begins, and how many of its bytes are left in this one.
    free: Option<(Instant, usize)>,
    /// The last address other than `path` from which something came: perhaps the peer is about to move there.
    elsewhere: Option<(SocketAddr, Bytes)>,
}

impl Allowance {
    /// For a connection that begins with a datagram of `size` bytes. `is_validated`: it had a token that validates its
    /// address.
    pub(crate) fn new(core: &Connection, size: usize, is_validated: bool) -> Self {
        Self {
            path: core.remote_address(),
            limit: (!is_validated).then_some(Bytes { received: size, sent: 0 }),
            home: is_validated.then(|| core.remote_address()),
            has_moved: false,
            responses: 0,
            asks_at: None,
            free: None,
            elsewhere: None,
        }
    }

    /// Count a datagram that the core is about to get.
    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, size: usize) {
        if from == self.path {
            if let Some(bytes) = &mut self.limit {
                bytes.received += size;
                // What was asked may be lost.
                self.asks_at.get_or_insert(now);
            }
            return;
        }
        let (address, bytes) = self.elsewhere.get_or_insert((from, Bytes::default()));
        if *address != from {
            (*address, *bytes) = (from, Bytes::default());
        }
        bytes.received += size;
    }

    /// See what the core has made of it: the peer may have moved, and its address may be validated now.
    pub(crate) fn review(&mut self, now: Instant, core: &mut Connection, tap: &Tap) {
        self.follow(now, core);
        if self.limit.is_some()
            && match self.home {
                // RFC 9000, section 8.1.
                None => tap.is_client_heard(),
                Some(_) => core.stats().frame_rx.path_response > self.responses,
            }
        {
            self.limit = None;
            self.home = Some(self.path);
        }
    }

    /// Note that the core sends somewhere else: the peer has moved, or has not answered at its new address.
    fn follow(&mut self, now: Instant, core: &mut Connection) {
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
            // Back at a validated address. What the core has sent to the other one is lost, and only a timer tells it so.
            // The timer that runs belongs to the other address and does nothing; sending the PING starts another one.
            core.ping();
        }
    }

    /// How many datagrams the core may be asked for now, at most `most`. `largest` is the size in bytes of the largest that
    /// it makes, a probe for an MTU.
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
        self.follow(now, core);
        self.has_moved = false;
        let Some(bytes) = self.limit else { return most };
        if self.home.is_none() {
            // In a handshake: the core does not probe for an MTU yet. The first datagram leaves in any case, because the
            // initial MTU may be set to more than three times the client's datagram.
            return most.min(bytes.left() / usize::from(core.current_mtu())).max(usize::from(bytes.sent == 0));
        }
        let left = bytes.left();
        if left < largest && self.asks_at.is_none_or(|at| at > now) {
            return 0;
        }
        // The core fills its PATH_CHALLENGE datagram up to the MTU of the old path. If the new path takes less, no such
        // datagram would arrive, and the core would go back each time to an address that the peer has left. The limit may
        // be lower still.
        tap.begin_asking(usize::from(core.current_mtu()), left);
        // The tap can shorten the last datagram of a burst only.
        1
    }

    /// Whether the core has to send something on its new path before its timers run, once after each move. Its timer for
    /// losses still belongs to the old path until then; sending sets it anew.
    pub(crate) fn take_move(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Whether the peer seems to have moved to this address, and is asked for there.
    pub(crate) fn is_asking(&self, at: SocketAddr) -> bool {
        self.limit.is_some() && self.home.is_some() && at == self.path
    }

    /// Whether what is sent is counted.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Count a burst of `size` bytes. False: it must not be sent, and is to be discarded.
    pub(crate) fn send(&mut self, now: Instant, to: SocketAddr, size: usize) -> bool {
        if to == self.path {
            if let Some(bytes) = &mut self.limit {
                self.asks_at = None;
                let excess = size.saturating_sub(bytes.left());
                if excess > 0 && self.home.is_some() {
                    // A PATH_CHALLENGE datagram with data. One that comes too early is discarded, and the core asked for
                    // another one later. It had to be made, because the core goes on only when it believes that it has
                    // sent one.
                    let (until, free) =
                        self.free.filter(|(until, _)| *until > now).unwrap_or((now + FREE_INTERVAL, FREE_BYTES));
                    if free < excess {
                        self.asks_at = Some(until);
                        return false;
                    }
                    self.free = Some((until, free - excess));
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
