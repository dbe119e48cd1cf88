//! Where an endpoint may be used: on one event loop, and on the thread that runs it.
//!
//! Every call that changes something checks this first, so the check has to cost next to nothing. Asking Python for the
//! running loop takes as long as a short write, so it is asked once per callback of the driver. The loop cannot change
//! within a callback. The callback has an ID that no other thread has, so comparing IDs also compares threads.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use pyo3::{intern, prelude::*, sync::PyOnceLock};

/// The next ID of a callback or thread; none is given twice.
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// This thread's ID; 0 before it was asked for.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    /// The ID of this thread's current callback; 0 before the first.
    static CALLBACK: Cell<u64> = const { Cell::new(0) };
}

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The ID in a thread-local cell, made when it is first needed.
fn id(of: &'static std::thread::LocalKey<Cell<u64>>) -> u64 {
    match of.get() {
        0 => {
            let id = next();
            of.set(id);
            id
        }
        id => id,
    }
}

/// A callback of a driver ends on this thread. Another loop may run here next.
pub(crate) fn end_callback() {
    CALLBACK.set(next());
}

/// What becomes of a call while no loop runs and the endpoint's own loop is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It does nothing. Destructors and abandoned coroutines end streams as late as this, with nothing left to end.
    Ignored,
    /// It raises RuntimeError: data would be lost in silence.
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
    /// The callback in which the loop was found to be running on this thread; 0 for none.
    callback: AtomicU64,
}

impl Home {
    /// Belong to this loop from now on.
    pub(crate) fn settle(&self, event_loop: &Bound<'_, PyAny>) {
        self.event_loop.store(event_loop.as_ptr().addr(), Ordering::Relaxed);
        self.thread.store(id(&THREAD), Ordering::Relaxed);
    }

    /// The driver has driven: ask for the running loop again.
    pub(crate) fn forget(&self) {
        self.callback.store(0, Ordering::Relaxed);
    }

    /// Whether the caller is on the thread on which the loop ran last.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.event_loop.load(Ordering::Relaxed) == 0 || self.thread.load(Ordering::Relaxed) == id(&THREAD)
    }

    /// Whether the loop was found to be running here in this callback.
    pub(crate) fn is_known(&self) -> bool {
        self.callback.load(Ordering::Relaxed) == id(&CALLBACK)
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
            self.thread.store(id(&THREAD), Ordering::Relaxed);
            self.callback.store(id(&CALLBACK), Ordering::Relaxed);
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
