//! Where an endpoint is at home: on one event loop, and on whatever thread runs that.
//!
//! Everything that changes something looks here first, so the look has to cost next to nothing: asking Python for the
//! running loop takes as long as a short write. It is asked once per turn of the driver; within a turn the loop cannot
//! change, and a turn's number tells threads apart, too.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use pyo3::{intern, prelude::*, sync::PyOnceLock};

/// The number for the next turn or thread; none is given twice.
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// This thread's number; 0 before it was asked for.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    /// The number of this thread's current turn; 0 before the first.
    static TURN: Cell<u64> = const { Cell::new(0) };
}

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn number(of: &'static std::thread::LocalKey<Cell<u64>>) -> u64 {
    match of.get() {
        0 => {
            let number = next();
            of.set(number);
            number
        }
        number => number,
    }
}

/// A turn ends on this thread: what was found in it holds no longer.
pub(crate) fn end_turn() {
    TURN.set(next());
}

/// Whether what ends something may be called where no loop runs and the own one is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Destructors and abandoned coroutines come as late as this; there is nothing left to do.
    Ignored,
    Refused,
}

/// The event loop of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Home {
    /// Its address; 0 for an endpoint that its caller drives by hand, from wherever it wants to. Whoever can use the
    /// endpoint holds an object that holds the loop, so no other object can have this address.
    event_loop: AtomicUsize,
    /// The thread that ran the loop when it was last looked at.
    thread: AtomicU64,
    /// The turn in which the loop was found to be running on this thread.
    turn: AtomicU64,
}

impl Home {
    pub(crate) fn settle(&self, event_loop: &Bound<'_, PyAny>) {
        self.event_loop.store(event_loop.as_ptr().addr(), Ordering::Relaxed);
        self.thread.store(number(&THREAD), Ordering::Relaxed);
    }

    /// The driver has had its turn.
    pub(crate) fn forget(&self) {
        self.turn.store(0, Ordering::Relaxed);
    }

    /// Whether the caller is on the thread on which the loop ran last.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.event_loop.load(Ordering::Relaxed) == 0 || self.thread.load(Ordering::Relaxed) == number(&THREAD)
    }

    /// Whether the loop was found to be running here in this turn.
    pub(crate) fn is_known(&self) -> bool {
        self.turn.load(Ordering::Relaxed) == number(&TURN)
    }

    /// Raise RuntimeError unless the caller is on the loop. `event_loop` is `None` once the endpoint is closed.
    #[cold]
    pub(crate) fn look(&self, py: Python<'_>, event_loop: Option<Py<PyAny>>, closed: Closed) -> PyResult<()> {
        static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let own = self.event_loop.load(Ordering::Relaxed);
        if own == 0 {
            return Ok(());
        }
        let get = RUNNING.get_or_try_init(py, || {
            py.import(intern!(py, "asyncio"))?.getattr(intern!(py, "_get_running_loop")).map(Bound::unbind)
        })?;
        let running = get.bind(py).call0()?;
        if running.as_ptr().addr() == own {
            // A loop may move: started on one thread, run for good on another.
            self.thread.store(number(&THREAD), Ordering::Relaxed);
            self.turn.store(number(&TURN), Ordering::Relaxed);
            return Ok(());
        }
        // Between two runs of the loop nothing runs, and its thread may still prepare the next.
        let is_between_runs = running.is_none() && self.is_own_thread();
        if is_between_runs && (closed == Closed::Ignored || event_loop.is_none()) {
            return Ok(());
        }
        let refuse = py.import(intern!(py, "wtio._waiting"))?.getattr(intern!(py, "refuse_foreign"))?;
        refuse.call1((event_loop, is_between_runs))?;
        Ok(())
    }
}
