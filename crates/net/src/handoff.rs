//! What the loop's thread and the guardian tell each other, in one struct of atomics.
//!
//! Two promises, checked by the loom model below:
//! 1. News that the guardian leaves behind is either taken by a drive that was still to come, or a wake-up is in the
//!    pipe. No news waits for the next packet.
//! 2. At most one wake-up byte is in the pipe.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by the loop's thread and the guardian.
#[derive(Debug)]
pub(crate) struct Handoff {
    /// Drives by the loop, a heartbeat.
    beats: AtomicU64,
    /// A wake-up is in the pipe, or a drive has begun that will see the news.
    signalled: AtomicBool,
    /// Times the guardian had to step in.
    late: AtomicU64,
}

impl Handoff {
    pub(crate) fn new() -> Self {
        Self { beats: AtomicU64::new(0), signalled: AtomicBool::new(false), late: AtomicU64::new(0) }
    }

    /// The loop begins a drive. True: a byte is in the pipe and must be drained. Call before taking the news.
    pub(crate) fn beat(&self) -> bool {
        self.beats.fetch_add(1, Ordering::Relaxed);
        self.signalled.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// The guardian has left news. True: it must put a byte into the pipe. Call after leaving the news.
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

    /// The engine's news behind its mutex, the pipe as a counter of bytes.
    struct World {
        handoff: Handoff,
        news: Mutex<u32>,
        pipe: AtomicU64,
    }

    impl World {
        fn drive(&self) -> u32 {
            if self.handoff.beat() {
                // The byte may still be on its way; the loop would find the pipe empty and be woken once more.
                let _ = self.pipe.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bytes| bytes.checked_sub(1));
            }
            std::mem::take(&mut *self.news.lock().unwrap())
        }

        fn guard(&self) {
            *self.news.lock().unwrap() += 1;
            if self.handoff.signal() {
                self.pipe.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    #[test]
    fn no_news_is_left_without_a_wake_up() {
        loom::model(|| {
            let world = Arc::new(World { handoff: Handoff::new(), news: Mutex::new(0), pipe: AtomicU64::new(0) });
            let guardian = {
                let world = world.clone();
                thread::spawn(move || {
                    world.guard();
                    world.guard();
                })
            };
            let mut taken = world.drive();
            taken += world.drive();
            guardian.join().unwrap();
            // Whatever was not taken has a byte in the pipe that makes the loop drive again.
            if taken < 2 {
                assert!(world.pipe.load(Ordering::Acquire) > 0, "news without a wake-up");
                taken += world.drive();
            }
            assert_eq!(taken, 2);
            assert!(world.pipe.load(Ordering::Acquire) <= 2);
        });
    }
}
