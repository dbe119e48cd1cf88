//! The guardian: one thread per process that stands in for loops that are late.
//!
//! It never takes the GIL and never calls anything that could. While a loop drives its endpoint, the guardian only
//! looks at a counter once per [`TICK`]. When the counter stands still although packets or timers wait, it receives,
//! acknowledges, retransmits and answers probes itself, and leaves the events for the loop. While an endpoint is quiet,
//! the guardian sleeps in `poll` and costs nothing.
//!
//! An endpoint with [`Io::Thread`] has a thread of its own instead, which always receives and runs the timers. The loop
//! still sends what it writes itself; what it leaves behind, the thread sends.

use std::{
    cell::RefCell,
    io::{self, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    endpoint::{Endpoint, Io},
    poller::Poller,
};

/// How often a busy endpoint is looked at.
const TICK: Duration = Duration::from_millis(1);
/// How long something may wait before the guardian steps in.
pub(crate) const GRACE: Duration = Duration::from_millis(3);
/// Time without a drive after which an endpoint counts as quiet.
const QUIET: Duration = Duration::from_millis(50);
/// Longest sleep, after which closed endpoints are forgotten.
const NAP: Duration = Duration::from_millis(500);

struct Registry {
    /// Not seen by the guardian yet.
    endpoints: Vec<Weak<Endpoint>>,
    guardian: Option<Guardian>,
    /// Asked to end by [`shut_down`].
    is_ending: bool,
    own_threads: Vec<(JoinHandle<()>, UnixStream)>,
}

struct Guardian {
    thread: JoinHandle<()>,
    /// The sockets it sleeps on, and the far end of its alarm.
    poller: Arc<Poller>,
    alarm: UnixStream,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { endpoints: Vec::new(), guardian: None, is_ending: false, own_threads: Vec::new() });
static CHANGED: Condvar = Condvar::new();

/// Held by our threads while they touch an endpoint, and exclusively over a fork: no mutex of an endpoint is inherited
/// locked by a thread that the child does not have.
static AT_WORK: RwLock<()> = RwLock::new(());

fn at_work() -> RwLockReadGuard<'static, ()> {
    AT_WORK.read().unwrap_or_else(PoisonError::into_inner)
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

type OverFork = (RwLockWriteGuard<'static, ()>, MutexGuard<'static, Registry>);

thread_local! {
    /// Keeps everything locked over a fork, so that the child does not inherit it in the middle of a change.
    static OVER_FORK: RefCell<Option<OverFork>> = const { RefCell::new(None) };
}

/// Call before a fork, on the forking thread.
pub fn before_fork() {
    let idle = AT_WORK.write().unwrap_or_else(PoisonError::into_inner);
    let guards = (idle, registry());
    OVER_FORK.with_borrow_mut(|slot| *slot = Some(guards));
}

/// Call after a fork, in parent and child. A child has no threads of ours and watches nothing.
pub fn after_fork(is_child: bool) {
    let Some((_idle, mut registry)) = OVER_FORK.with_borrow_mut(Option::take) else { return };
    if is_child {
        registry.endpoints.clear();
        // Handles of threads that exist in the parent only: joining them would wait for ever.
        std::mem::forget(registry.guardian.take());
        registry.own_threads.drain(..).for_each(std::mem::forget);
    }
}

/// Look after an endpoint from now on.
///
/// # Errors
/// When an endpoint that cannot do without has to: no thread or descriptor is left, or the process is ending.
pub(crate) fn watch(endpoint: &Arc<Endpoint>) -> io::Result<()> {
    let mut registry = registry();
    if endpoint.io() == Io::Thread {
        if registry.is_ending {
            return Err(io::Error::other("the process is ending; no I/O thread can be started"));
        }
        let (poller, alarm) = poller()?;
        endpoint.serve_with(&poller, alarm.try_clone()?)?;
        let weak = Arc::downgrade(endpoint);
        let thread = std::thread::Builder::new().name("wtio-io".into()).spawn(move || serve(&weak, &poller))?;
        registry.own_threads.retain(|(thread, _)| !thread.is_finished());
        registry.own_threads.push((thread, alarm));
        return Ok(());
    }
    if registry.is_ending {
        return Ok(());
    }
    // Without a guardian the endpoint still works; it only lacks its stand-in.
    if registry.guardian.is_none() {
        registry.guardian = start_guardian().ok();
    }
    if let Some(guardian) = &registry.guardian {
        endpoint.watch_with(&guardian.poller);
        registry.endpoints.push(Arc::downgrade(endpoint));
        CHANGED.notify_all();
    }
    Ok(())
}

fn start_guardian() -> io::Result<Guardian> {
    let (poller, alarm) = poller()?;
    let sleeper = poller.clone();
    let thread = std::thread::Builder::new().name("wtio-guardian".into()).spawn(move || guard(&sleeper))?;
    Ok(Guardian { thread, poller, alarm })
}

/// A poller with an alarm: a byte into the stream wakes whoever sleeps on it.
fn poller() -> io::Result<(Arc<Poller>, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    Ok((Arc::new(Poller::new(near)?), far))
}

/// End all threads and wait for them. Call at exit, without the GIL.
pub fn shut_down() {
    let (guardian, own) = {
        let mut registry = registry();
        registry.is_ending = true;
        CHANGED.notify_all();
        (registry.guardian.take(), std::mem::take(&mut registry.own_threads))
    };
    let guardian = guardian.map(|guardian| (guardian.thread, guardian.alarm));
    for (thread, mut alarm) in guardian.into_iter().chain(own) {
        let _ = alarm.write(&[1]);
        let _ = thread.join();
    }
}

fn is_ending() -> bool {
    registry().is_ending
}

/// What the guardian remembers of an endpoint between two looks.
struct Watched {
    endpoint: Weak<Endpoint>,
    beats: u64,
    /// When the counter last moved.
    moved: Instant,
    /// Since when something waits.
    waiting: Option<Instant>,
    is_standing_in: bool,
}

fn guard(poller: &Poller) {
    let mut watched: Vec<Watched> = Vec::new();
    loop {
        if !take_new(&mut watched) {
            return;
        }
        let now = Instant::now();
        let working = at_work();
        watched.retain_mut(|one| one.look(now));
        drop(working);
        let is_quiet = watched.iter().all(|one| now - one.moved > QUIET && !one.is_standing_in);
        if is_quiet {
            rest(&watched, poller, now);
        } else {
            std::thread::sleep(TICK);
        }
    }
}

/// Take over newly registered endpoints; false when the thread should end.
fn take_new(watched: &mut Vec<Watched>) -> bool {
    let mut registry = registry();
    loop {
        for weak in std::mem::take(&mut registry.endpoints) {
            let Some(endpoint) = weak.upgrade() else { continue };
            let beats = endpoint.beats();
            drop(endpoint);
            watched.push(Watched {
                endpoint: weak,
                beats,
                moved: Instant::now(),
                waiting: None,
                is_standing_in: false,
            });
        }
        if registry.is_ending {
            return false;
        }
        if !watched.is_empty() {
            return true;
        }
        registry = CHANGED.wait(registry).unwrap_or_else(PoisonError::into_inner);
    }
}

impl Watched {
    /// Look once; false when the endpoint is gone.
    fn look(&mut self, now: Instant) -> bool {
        let Some(endpoint) = self.endpoint.upgrade() else { return false };
        let beats = endpoint.beats();
        if beats != self.beats {
            self.beats = beats;
            self.moved = now;
            self.waiting = None;
            self.is_standing_in = false;
            return true;
        }
        match endpoint.is_waiting(GRACE) {
            None => return false,
            Some(false) => {}
            Some(true) if self.is_standing_in => endpoint.stand_in(),
            Some(true) => {
                let since = *self.waiting.get_or_insert(now);
                if now - since >= GRACE {
                    self.is_standing_in = true;
                    endpoint.count_late();
                    endpoint.stand_in();
                }
                return true;
            }
        }
        if !self.is_standing_in {
            self.waiting = None;
        }
        true
    }
}

/// All endpoints are quiet: sleep until a packet comes, a timer is due, or a nap is over.
fn rest(watched: &[Watched], poller: &Poller, now: Instant) {
    let mut time = NAP;
    let working = at_work();
    for one in watched {
        if let Some(endpoint) = one.endpoint.upgrade()
            && let Some(Some(at)) = endpoint.next_timer()
        {
            time = time.min(at.saturating_duration_since(now) + GRACE);
        }
    }
    drop(working);
    if poller.wait(time.max(TICK)) {
        // The loop was woken by the same packet; give it its turn.
        std::thread::sleep(GRACE);
    }
}

/// The thread of an endpoint with [`Io::Thread`].
fn serve(endpoint: &Weak<Endpoint>, poller: &Poller) {
    let mut time = Duration::ZERO;
    while !is_ending() {
        poller.wait(time.min(NAP));
        let _working = at_work();
        match endpoint.upgrade().and_then(|endpoint| endpoint.serve(poller)) {
            Some(until) => time = until,
            None => return,
        }
    }
}
