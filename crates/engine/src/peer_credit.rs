//! What the peer may use of the connection as a whole: streams open at once, and bytes that nobody has read.
//!
//! The core announces credit by itself, but keeps up to an eighth of it for later. That is too late in two cases. When a
//! session ends, the other sessions of its connection would lack all of that together. And where all but an eighth of the
//! streams stay open, the last eighth would never come back whole. So then credit is announced as it comes back.

use crate::{quic::core::Core, window::Window};

/// The peer's credit of one connection.
#[derive(Debug)]
pub(crate) struct PeerCredit {
    /// Streams, per direction, that the peer may have open at once.
    pub(crate) streams_allowed: [u64; 2],
    /// Bytes that the peer may send and that nobody has read, on all streams together.
    pub(crate) window: Window,
    /// A session has ended, and credit that comes back with it may not be announced yet.
    is_owed: bool,
    /// Streams of the peer, per direction, that the core kept when credit was last announced for that.
    kept_by_core: [u64; 2],
    /// Streams of the peer, per direction, that the core kept when it was last looked at what is free.
    open: [u64; 2],
}

impl PeerCredit {
    pub(crate) fn new(streams_allowed: [u64; 2], window: Window) -> Self {
        Self { streams_allowed, window, is_owed: false, kept_by_core: [0; 2], open: [0; 2] }
    }

    /// From now on, announce credit that comes back as it does.
    pub(crate) fn owe(&mut self) {
        self.is_owed = true;
        self.kept_by_core = [u64::MAX; 2];
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.is_owed
    }

    /// Announce all the credit that came back since the last call. `others` says how many of the peer's streams, per
    /// direction, go on: when the core keeps no others, nothing more comes back.
    pub(crate) fn announce(&mut self, core: &mut Core, others: impl FnOnce() -> [u64; 2]) {
        let [_, bidirectional, unidirectional] = core.streams();
        let kept = [bidirectional, unidirectional];
        if kept == self.kept_by_core {
            return;
        }
        self.kept_by_core = kept;
        core.announce_streams(true, self.streams_allowed[0]);
        core.announce_streams(false, self.streams_allowed[1]);
        core.announce_window(self.window.current());
        core.wants_transmit = true;
        let others = others();
        self.is_owed = (0..2).any(|direction| kept[direction] > others[direction]);
    }

    /// Announce streams that came back where the core would not, because so many stay open.
    pub(crate) fn announce_scarce(&mut self, core: &mut Core) {
        let [_, bidirectional, unidirectional] = core.streams();
        let open = [bidirectional, unidirectional];
        for (direction, (now, before)) in open.into_iter().zip(self.open).enumerate() {
            let allowed = self.streams_allowed[direction];
            // Otherwise the peer gets to the point where more than an eighth came back, which the core announces.
            let is_scarce = now >= allowed - allowed / 8;
            if is_scarce && now < before {
                core.announce_streams(direction == 0, allowed);
                core.wants_transmit = true;
            }
        }
        self.open = open;
    }
}
