//! The handoff from the guardian to the loop's thread, in every order in which its atomics can be seen.

// Its atomics are those of this program's `atomic`, which are loom's.
#[path = "../src/handoff.rs"]
#[allow(dead_code, reason = "what only counts is not part of the model")]
mod handoff;

use handoff::Handoff;
use loom::{
    sync::{
        Arc, Mutex,
        atomic::{self, AtomicU64, Ordering},
    },
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
