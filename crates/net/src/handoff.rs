//! The handoff of events from the guardian to the loop's thread, in one struct of atomics.
//!
//! The loom model below checks two promises:
//! 1. Events that the guardian leaves in the engine are taken by a drive of the loop that was still to come, or a
//!    wake-up is in the pipe. No event waits for the next packet.
//! 2. At most one wake-up byte is in the pipe, and none once the loop has emptied it. A byte that stays would wake the
//!    loop for ever.
//!
//! Only a loop that was woken through the pipe empties it. It then clears the flag, and after that takes the events. In
//! any other order a byte can be read while its flag stays set, and no further byte is ever written.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

/// Run with `cargo test -p wtio-net --release --features loom handoff`.
#[cfg(all(test, feature = "loom"))]
mod model {
    use super::*;
    use loom::{
        sync::{Arc, Mutex},
        thread,
    };

    /// The engine's events behind its mutex, and the pipe as a counter of bytes.
    struct World {
        handoff: Handoff,
        events: Mutex<u32>,
        pipe: AtomicU64,
    }

    impl World {
        fn take_events(&self) -> u32 {
            std::mem::take(&mut *self.events.lock().unwrap())
        }

        /// A drive for any other reason than the pipe.
        fn flush(&self) -> u32 {
            self.handoff.beat();
            self.take_events()
        }

        /// One iteration of a loop that watches the pipe.
        fn iterate(&self) -> u32 {
            if self.pipe.load(Ordering::Acquire) == 0 {
                return 0;
            }
            self.pipe.swap(0, Ordering::AcqRel);
            self.handoff.clear();
            self.handoff.beat();
            self.take_events()
        }

        fn guard(&self) {
            *self.events.lock().unwrap() += 1;
            if self.handoff.signal() {
                let before = self.pipe.fetch_add(1, Ordering::AcqRel);
                assert_eq!(before, 0, "a second wake-up");
            }
        }
    }

    #[test]
    fn no_event_is_left_without_a_wake_up_and_every_wake_up_is_taken() {
        loom::model(|| {
            let world = Arc::new(World { handoff: Handoff::new(), events: Mutex::new(0), pipe: AtomicU64::new(0) });
            let guardian = {
                let world = world.clone();
                thread::spawn(move || {
                    for _ in 0..3 {
                        world.guard();
                    }
                })
            };
            let mut taken = world.iterate() + world.flush() + world.iterate();
            guardian.join().unwrap();
            assert!(taken == 3 || world.pipe.load(Ordering::Acquire) == 1, "events without a wake-up");
            taken += world.iterate();
            assert_eq!(taken, 3);
            assert_eq!(world.pipe.load(Ordering::Acquire), 0);
            // And the next events wake it again.
            world.guard();
            assert_eq!(world.iterate(), 1);
        });
    }
}
