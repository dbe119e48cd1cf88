//! What the peer may use of the connection as a whole: streams open at once, and bytes that nobody has read.
//!
//! The core announces credit by itself, but keeps up to an eighth of it for later. That is too late in three cases. When a
//! session ends, the other sessions of its connection would lack all of that together. Where all but an eighth of the
//! streams stay open, the last eighth would never come back whole. And the same goes for bytes, where streams that nobody
//! reads hold all but an eighth of the window. So then credit is announced as it comes back.
//!
//! A peer gets no more than [`FIRST_STREAMS`] of each direction until it uses some of them.

use std::time::{Duration, Instant};

use crate::{
    quic::core::Core,
    window::{Flow, Window},
};

/// Time for which bytes that came back wait for more, while streams that nobody reads hold almost all of the window, or one
/// that is read slowly does. Of the two only the second makes progress.
const PATIENCE: Duration = Duration::from_millis(100);
/// The core announces bytes when an eighth of the window came back. Where less than this part can, it may never do so.
const SCARCE_PART: u64 = 7;

/// Streams of a direction that the peer may have open at once while it has had few: the core makes room for every stream that
/// may be opened, and from 113 on its tables take twice as much, 9 KB of the 48 KB of an idle session with the default limits.
/// RFC 9114 (section 6.1) asks for at least 100 requests at a time.
pub(crate) const FIRST_STREAMS: u64 = 100;
/// With so many open at once, the peer is told that it may have all that it is allowed.
const MANY_STREAMS: u64 = FIRST_STREAMS / 4;

/// The peer's credit of one connection.
#[derive(Debug)]
pub(crate) struct PeerCredit {
    /// Streams, per direction, that the peer may have open at once, as the layers above say.
    streams_allowed: [u64; 2],
    /// Whether the peer has had so many streams open, per direction, that it may have all of those.
    has_many: [bool; 2],
    /// Bytes that the peer may send and that nobody has read, on all streams together.
    pub(crate) window: Window,
    /// A session has ended, and credit that comes back with it may not be announced yet.
    is_owed: bool,
    /// Streams of the peer, per direction, that the core kept when credit was last announced for that.
    kept_by_core: [u64; 2],
    /// Streams of the peer, per direction, that were over when they were last announced for being scarce.
    closed: [u64; 2],
    /// Bytes that the peer may send in all, as it was told last.
    window_end: u64,
    /// Bytes that had been read when it was.
    read_before: u64,
    /// Bytes came back since, otherwise than by reading: nobody knows how many.
    has_released: bool,
    /// When those are announced that came back; `None`: the peer has enough, or none came back.
    relief: Option<Instant>,
}

impl PeerCredit {
    pub(crate) fn new(streams_allowed: [u64; 2], window: Window) -> Self {
        Self {
            streams_allowed,
            has_many: [false; 2],
            window_end: window.current(),
            window,
            is_owed: false,
            kept_by_core: [0; 2],
            closed: [0; 2],
            read_before: 0,
            has_released: false,
            relief: None,
        }
    }

    /// Streams of a direction that the peer may have open at once for now.
    #[inline]
    fn most(&self, direction: usize) -> u64 {
        let allowed = self.streams_allowed[direction];
        if self.has_many[direction] { allowed } else { allowed.min(FIRST_STREAMS) }
    }

    /// From now on, the peer may have so many streams open at once. What is open already stays.
    pub(crate) fn allow(&mut self, core: &mut Core, direction: usize, streams: u64) {
        self.streams_allowed[direction] = streams;
        self.announce_streams(core, direction);
    }

    fn announce_streams(&self, core: &mut Core, direction: usize) {
        core.announce_streams(direction == 0, self.most(direction));
        core.wants_transmit = true;
    }

    /// When to look again what came back.
    #[inline]
    pub(crate) fn next_relief(&self) -> Option<Instant> {
        self.relief
    }

    /// Announce bytes that came back where the core would not, because so many are not read.
    ///
    /// If somebody has read all there was on his stream, and may wait for more, that is done at once, as soon as as much came
    /// back as the peer has left. Otherwise it is done after a while: whoever reads slowly what has piled up needs no frame
    /// for each step.
    #[inline]
    pub(crate) fn relieve(&mut self, now: Instant, core: &mut Core) {
        let (flow, window_end) = (core.flow(), core.window_end());
        if window_end > self.window_end {
            self.window_end = window_end;
            self.note_announced(core, flow);
        }
        let left = self.window_end.saturating_sub(flow.came);
        core.is_scarce = left < self.window.current() / SCARCE_PART;
        if core.is_scarce {
            self.relieve_scarce(now, core, flow, left);
        } else {
            self.relief = None;
        }
    }

    #[cold]
    fn relieve_scarce(&mut self, now: Instant, core: &mut Core, flow: Flow, left: u64) {
        let has_drained = core.take_drained();
        self.has_released |= core.take_released();
        let owed = flow.read - self.read_before;
        let is_needed = owed >= left && owed + left < self.window.current() / SCARCE_PART;
        if !is_needed || owed == 0 && !self.has_released {
            self.relief = None;
            return;
        }
        let is_due = self.relief.is_some_and(|at| at <= now);
        if is_due || has_drained && owed > 0 {
            self.note_announced(core, flow);
            core.announce_window(self.window.current());
            core.wants_transmit = true;
        } else {
            self.relief.get_or_insert(now + PATIENCE);
        }
    }

    /// All that came back so far is announced, or is about to be.
    fn note_announced(&mut self, core: &mut Core, flow: Flow) {
        core.take_released();
        self.has_released = false;
        self.read_before = flow.read;
        self.relief = None;
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
        self.announce_streams(core, 0);
        self.announce_streams(core, 1);
        core.announce_window(self.window.current());
        let others = others();
        self.is_owed = (0..2).any(|direction| kept[direction] > others[direction]);
    }

    /// Announce streams to a peer that begins to use many, and those that came back where the core would not, because so many
    /// stay open.
    #[inline]
    pub(crate) fn announce_scarce(&mut self, core: &mut Core) {
        let [_, bidirectional, unidirectional] = core.streams();
        for (direction, open) in [bidirectional, unidirectional].into_iter().enumerate() {
            let is_held_back = self.streams_allowed[direction] > FIRST_STREAMS && !self.has_many[direction];
            if is_held_back && open >= MANY_STREAMS {
                self.has_many[direction] = true;
                self.announce_streams(core, direction);
            }
            let most = self.most(direction);
            // Otherwise the peer gets to the point where more than an eighth came back, which the core announces.
            if open >= most - most / 8 {
                self.announce_closed(core, direction, open);
            }
        }
    }

    #[cold]
    fn announce_closed(&mut self, core: &mut Core, direction: usize, open: u64) {
        let closed = core.opened(direction).saturating_sub(open);
        if closed > self.closed[direction] {
            self.closed[direction] = closed;
            self.announce_streams(core, direction);
        }
    }
}
