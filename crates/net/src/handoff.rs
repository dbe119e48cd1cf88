//! The handoff of events from the guardian to the loop's thread, in one struct of atomics.
//!
//! A model in loom (tests/handoff.rs) checks two promises:
//! 1. Events that the guardian leaves in the engine are taken by a drive of the loop that was still to come, or a
//!    wake-up is in the pipe. No event waits for the next packet.
//! 2. At most one wake-up byte is in the pipe, and none once the loop has emptied it. A byte that stays would wake the
//!    loop for ever.
//!
//! Only a loop that was woken through the pipe empties it. It then clears the flag, and after that takes the events. In
//! any other order a byte can be read while its flag stays set, and no further byte is ever written.

use super::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by the loop's thread and the guardian.
#[derive(Debug)]
pub(crate) struct Handoff {
    /// Number of drives by the loop, as a heartbeat.
    beats: AtomicU64,
    /// A wake-up is in the pipe or about to be, or the loop has emptied the pipe and is about to take the events.
    signalled: AtomicBool,
    /// Times the guardian had to step in.
    late: AtomicU64,
}

impl Handoff {
    pub(crate) fn new() -> Self {
        Self { beats: AtomicU64::new(0), signalled: AtomicBool::new(false), late: AtomicU64::new(0) }
    }

    /// The loop begins a drive.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// The loop was woken through the pipe: clear the flag. Call after emptying the pipe and before taking the events.
    pub(crate) fn clear(&self) {
        self.signalled.swap(false, Ordering::AcqRel);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// The guardian has left events. True: it must write a byte to the pipe. Call after leaving the events.
    pub(crate) fn signal(&self) -> bool {
        !self.signalled.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}
