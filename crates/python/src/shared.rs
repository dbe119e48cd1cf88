//! What all objects of an endpoint share: the engine, the wakers that wait for it, and its event loop.
//!
//! Knows neither connections nor streams; they are made of a `Shared` and an ID.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pyo3::{PyTraverseError, PyVisit, intern, prelude::*};
use wtio_engine::Engine;

use crate::{
    home::{Closed, Home},
    waiters::{Wait, Waiters},
};

/// Forks seen by this process, as the child.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// This process is the child of a fork: what was made before belongs to the parent.
pub(crate) fn note_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The callback that asks for a drive, and the event loop that does it.
type Scheduler = (Py<PyAny>, Py<PyAny>);

/// What all objects of an endpoint share.
pub(crate) struct Shared {
    /// The engine behind its lock, with its socket.
    pub(crate) endpoint: Arc<wtio_net::Endpoint>,
    /// Python objects that wait for something of the engine.
    pub(crate) waiters: Waiters,
    /// `None` before `set_scheduler`, and once the endpoint is closed.
    scheduler: Mutex<Option<Scheduler>>,
    /// The loop and thread that may use the endpoint.
    home: Home,
    /// A drive was asked for and has not come yet.
    is_scheduled: AtomicBool,
    /// Zero of all times that cross the border.
    start: Instant,
    /// Forks this process had seen when the endpoint was made.
    generation: u64,
}

/// Whether the interpreter is on its way out. Classes and their functions are being freed then, and a call of one that is
/// may crash.
#[expect(unsafe_code, reason = "PyO3 has no name for it")]
fn is_exiting() -> bool {
    // SAFETY: it may be called at any time.
    unsafe { pyo3::ffi::Py_IsInitialized() == 0 }
}

impl Shared {
    pub(crate) fn new(endpoint: Arc<wtio_net::Endpoint>) -> Self {
        Self {
            endpoint,
            waiters: Waiters::default(),
            scheduler: Mutex::new(None),
            home: Home::default(),
            is_scheduled: AtomicBool::new(false),
            start: Instant::now(),
            generation: GENERATION.load(Ordering::Relaxed),
        }
    }

    /// Whether the endpoint was made before a fork, by the parent of this process.
    pub(crate) fn is_inherited(&self) -> bool {
        self.generation != GENERATION.load(Ordering::Relaxed)
    }

    /// The instant `now_ns` nanoseconds of virtual time after the start.
    pub(crate) fn at(&self, now_ns: u64) -> Instant {
        self.start + Duration::from_nanos(now_ns)
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    /// From now on `callback` asks for drives, and only `event_loop` may use the endpoint.
    pub(crate) fn set_scheduler(&self, callback: Py<PyAny>, event_loop: &Bound<'_, PyAny>) {
        self.home.settle(event_loop);
        let old = self.scheduler().replace((callback, event_loop.clone().unbind()));
        drop(old);
    }

    pub(crate) fn forget_scheduler(&self) {
        // Dropped when the lock is free again: that may run Python code.
        let old = self.scheduler().take();
        drop(old);
    }

    /// Show the collector what the scheduler holds.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(scheduler) = self.scheduler.try_lock()
            && let Some((callback, event_loop)) = &*scheduler
        {
            visit.call(callback)?;
            visit.call(event_loop)?;
        }
        Ok(())
    }

    /// A drive has come. Another loop may run on this thread by the next call, so ask for the running one again.
    pub(crate) fn forget_home(&self) {
        self.home.forget();
    }

    /// Whatever happens from now on may need another drive.
    pub(crate) fn rearm_scheduler(&self) {
        self.is_scheduled.store(false, Ordering::Relaxed);
    }

    /// Do something with the engine, then ask Python for a drive if there is output or an event.
    pub(crate) fn act<R>(&self, py: Python<'_>, act: impl FnOnce(&mut Engine, Instant) -> R) -> R {
        let (result, has_work) = self.endpoint.act(None, act);
        if has_work {
            self.schedule(py);
        }
        result
    }

    /// As `act`, for what changes nothing.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Engine) -> R) -> R {
        self.endpoint.act(None, |engine, _| look(engine)).0
    }

    /// As `look`, for what depends on the time.
    pub(crate) fn look_now<R>(&self, look: impl FnOnce(&mut Engine, Instant) -> R) -> R {
        self.endpoint.act(None, look).0
    }

    /// Raise RuntimeError unless the caller is on the endpoint's event loop.
    pub(crate) fn check(&self, py: Python<'_>, closed: Closed) -> PyResult<()> {
        if self.home.is_known() {
            return Ok(());
        }
        let event_loop = self.scheduler().as_ref().map(|(_, event_loop)| event_loop.clone_ref(py));
        self.home.look(py, event_loop, closed)
    }

    fn scheduler(&self) -> MutexGuard<'_, Option<Scheduler>> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `act`, from a destructor. The collector may run it on any thread, and in the middle of collecting a whole
    /// driver: then there may be no loop any more that could drive.
    pub(crate) fn act_in_drop(&self, py: Python<'_>, act: impl FnOnce(&mut Engine, Instant)) {
        let ((), has_work) = self.endpoint.act(None, act);
        if has_work && !is_exiting() {
            let scheduled = if self.home.is_own_thread() { self.call_scheduler(py) } else { self.hand_over(py) };
            if scheduled.is_err() {
                // The loop is closed.
                self.is_scheduled.store(false, Ordering::Relaxed);
            }
        }
    }

    /// As `call_scheduler`, from another thread than the loop's.
    fn hand_over(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_scheduled.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let scheduler =
            self.scheduler().as_ref().map(|(callback, event_loop)| (callback.clone_ref(py), event_loop.clone_ref(py)));
        if let Some((callback, event_loop)) = scheduler {
            event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (callback,))?;
        }
        Ok(())
    }

    pub(crate) fn schedule(&self, py: Python<'_>) {
        if let Err(error) = self.call_scheduler(py) {
            error.write_unraisable(py, None);
        }
    }

    fn call_scheduler(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_scheduled.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let callback = self.scheduler().as_ref().map(|(callback, _)| callback.clone_ref(py));
        if let Some(callback) = callback {
            callback.call0(py)?;
        }
        Ok(())
    }

    /// Register `waker` if `want` says that there is something to wait for, or else complete it at once.
    pub(crate) fn wait(
        &self,
        waker: &Bound<'_, PyAny>,
        connection: u64,
        wait: Wait,
        want: impl FnOnce(&mut Engine, Instant) -> bool,
    ) -> PyResult<()> {
        let py = waker.py();
        if self.act(py, want) {
            self.waiters.add(py, connection, wait, waker.clone().unbind());
            return Ok(());
        }
        if !waker.call_method0("done")?.is_truthy()? {
            waker.call_method1("set_result", (py.None(),))?;
        }
        Ok(())
    }
}
