//! The guardian: one thread per process that stands in for loops that are late.
//!
//! It never takes the GIL and never calls anything that could. While a loop drives its endpoint, the guardian only
//! looks at a counter once per [`TICK`]. When the counter stands still although packets or timers wait, it receives,
//! acknowledges, retransmits and answers probes itself, and leaves the events for the loop. While all endpoints are
//! quiet, the guardian sleeps in its poller and costs nothing.
//!
//! An endpoint on which nothing waits is left alone, so that a thousand idle ones cost nothing beside a busy one. Three
//! things make the guardian look again: the poller names the readable sockets, a timer is due, or the engine was used. Who
//! uses it sends the endpoint's ID through a channel, once until the guardian has looked.
//!
//! An endpoint with [`Io::Thread`] has a thread of its own instead, which always receives and runs the timers. The loop
//! still sends what it writes itself; what it leaves behind, the thread sends.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    io,
    net::{SocketAddr, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak, mpsc::Receiver,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    endpoint::{Endpoint, Io},
    poller::{Poller, Ready},
    watch::{GRACE, Line, Look},
};

/// How often busy endpoints are looked at.
const TICK: Duration = Duration::from_millis(1);
/// Time without a drive after which all endpoints count as quiet.
const QUIET: Duration = Duration::from_millis(50);
/// Pause after a panic of a round.
const AFTER_PANIC: Duration = Duration::from_millis(500);

struct Registry {
    /// Endpoints that the guardian has not taken over yet, with their IDs.
    endpoints: Vec<(u64, Weak<Endpoint>)>,
    last_id: u64,
    /// Started with the first endpoint that needs it.
    guardian: Option<Guardian>,
    /// Asked to end by [`shut_down`].
    is_ending: bool,
    /// Threads of endpoints with [`Io::Thread`], and what they sleep on.
    own_threads: Vec<(JoinHandle<()>, Weak<Poller>)>,
}

struct Guardian {
    thread: JoinHandle<()>,
    /// Copied for each endpoint, which sends its ID when it is used.
    line: Line,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    endpoints: Vec::new(),
    last_id: 0,
    guardian: None,
    is_ending: false,
    own_threads: Vec::new(),
});
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

impl Endpoint {
    /// Open the socket, and put the endpoint under the guardian's eyes or start its thread.
    ///
    /// # Errors
    /// Whatever the system answers: address in use, not available, no permission, no thread to be had.
    pub fn bind(self: &Arc<Self>, address: SocketAddr, dual_stack: bool) -> io::Result<()> {
        self.open(address, dual_stack)?;
        watch(self).inspect_err(|_| self.close())
    }

    /// As [`bind`](Self::bind), with a socket that is bound already. It is closed with the endpoint.
    ///
    /// # Errors
    /// For a socket that cannot be used, and if there is no thread to be had.
    pub fn adopt(self: &Arc<Self>, socket: UdpSocket) -> io::Result<()> {
        self.open_with(socket)?;
        watch(self).inspect_err(|_| self.close())
    }
}

/// Look after an endpoint from now on.
///
/// # Errors
/// For an endpoint with a thread of its own: no thread or descriptor is left, or the process is ending.
pub(crate) fn watch(endpoint: &Arc<Endpoint>) -> io::Result<()> {
    let mut registry = registry();
    if endpoint.io() == Io::Thread {
        if registry.is_ending {
            return Err(io::Error::other("the process is ending; no I/O thread can be started"));
        }
        let poller = Arc::new(Poller::new()?);
        endpoint.serve_with(&poller)?;
        let weak = Arc::downgrade(endpoint);
        let sleeps_on = Arc::downgrade(&poller);
        let thread = std::thread::Builder::new().name("wtio-io".into()).spawn(move || serve(&weak, &poller))?;
        registry.own_threads.retain(|(thread, _)| !thread.is_finished());
        registry.own_threads.push((thread, sleeps_on));
        return Ok(());
    }
    if registry.is_ending {
        return Ok(());
    }
    // Without a guardian the endpoint still works; it only lacks its stand-in.
    if registry.guardian.is_none() {
        registry.guardian = start_guardian().ok();
    }
    let registry = &mut *registry;
    if let Some(guardian) = &registry.guardian {
        registry.last_id += 1;
        endpoint.watch_with(registry.last_id, &guardian.line);
        registry.endpoints.push((registry.last_id, Arc::downgrade(endpoint)));
        CHANGED.notify_all();
        guardian.line.poller().wake();
    }
    Ok(())
}

fn start_guardian() -> io::Result<Guardian> {
    let (line, touches) = Line::new(Arc::new(Poller::new()?));
    let own = line.clone();
    let thread = std::thread::Builder::new().name("wtio-guardian".into()).spawn(move || {
        let mut round = Round::new(own, touches);
        // A panic is a defect of ours in one round. The other endpoints of the process still need the guardian.
        while catch_unwind(AssertUnwindSafe(|| guard(&mut round))).is_err() {
            std::thread::sleep(AFTER_PANIC);
            round.start_over();
        }
    })?;
    Ok(Guardian { thread, line })
}

/// End all threads and wait for them. Call at exit, without the GIL.
pub fn shut_down() {
    let (guardian, own) = {
        let mut registry = registry();
        registry.is_ending = true;
        CHANGED.notify_all();
        (registry.guardian.take(), std::mem::take(&mut registry.own_threads))
    };
    let guardian = guardian.map(|guardian| (guardian.thread, Arc::downgrade(guardian.line.poller())));
    for (thread, poller) in guardian.into_iter().chain(own) {
        if let Some(poller) = poller.upgrade() {
            poller.wake();
        }
        let _ = thread.join();
    }
}

fn is_ending() -> bool {
    registry().is_ending
}

/// Whether the registry has something for the guardian.
fn has_changed() -> bool {
    let registry = registry();
    registry.is_ending || !registry.endpoints.is_empty()
}

/// What the guardian remembers of an endpoint between two looks.
struct Watched {
    endpoint: Weak<Endpoint>,
    /// The loop's drives at that time. If there are more by now, the loop is not late.
    beats: u64,
    /// Since when something waits.
    waiting: Option<Instant>,
    /// The loop was late, and has not driven since: what comes next does not wait for [`GRACE`] again.
    is_standing_in: bool,
    /// Not left alone: to be looked at in the next round.
    is_busy: bool,
    /// When it has to be looked at although it was left alone.
    until: Option<Instant>,
}

/// The endpoints that the guardian looks after.
struct Round {
    /// The guardian's own copy.
    line: Line,
    /// Endpoints that were left alone and were used since.
    touches: Receiver<u64>,
    /// All of them, by ID.
    watched: HashMap<u64, Watched>,
    /// Those to look at in the next round.
    busy: Vec<u64>,
    /// When to look at those that were left alone.
    timers: BTreeSet<(Instant, u64)>,
    /// When a counter last moved, or the guardian last stood in.
    active: Instant,
    /// Memory for the poller's answers, kept between rounds.
    scratch: Vec<Ready>,
}

fn guard(round: &mut Round) {
    while take_new(round) {
        let now = Instant::now();
        let working = at_work();
        round.go(now);
        drop(working);
        if round.is_quiet(now) {
            round.rest(now);
        } else {
            std::thread::sleep(TICK);
        }
    }
}

/// Take over newly registered endpoints; false when the thread should end.
fn take_new(round: &mut Round) -> bool {
    let mut registry = registry();
    loop {
        for (id, endpoint) in std::mem::take(&mut registry.endpoints) {
            round.take(id, endpoint);
        }
        if registry.is_ending {
            return false;
        }
        if !round.watched.is_empty() {
            return true;
        }
        registry = CHANGED.wait(registry).unwrap_or_else(PoisonError::into_inner);
    }
}

impl Round {
    fn new(line: Line, touches: Receiver<u64>) -> Self {
        Self {
            line,
            touches,
            watched: HashMap::new(),
            busy: Vec::new(),
            timers: BTreeSet::new(),
            active: Instant::now(),
            scratch: Vec::new(),
        }
    }

    fn take(&mut self, id: u64, endpoint: Weak<Endpoint>) {
        let beats = endpoint.upgrade().map_or(0, |endpoint| endpoint.beats());
        let watched = Watched { endpoint, beats, waiting: None, is_standing_in: false, is_busy: true, until: None };
        self.watched.insert(id, watched);
        self.busy.push(id);
        self.active = Instant::now();
    }

    /// Look once at every endpoint on which something may wait.
    fn go(&mut self, now: Instant) {
        while let Ok(id) = self.touches.try_recv() {
            self.mark_busy(id);
        }
        // One more for calls of `wake`.
        let limit = self.watched.len() + 1;
        let mut scratch = std::mem::take(&mut self.scratch);
        for id in self.line.poller().ready(&mut scratch, limit) {
            self.mark_busy(id);
        }
        self.scratch = scratch;
        while let Some(&(until, id)) = self.timers.first()
            && until < now
        {
            self.mark_busy(id);
        }
        let mut busy = std::mem::take(&mut self.busy);
        busy.retain(|&id| {
            catch_unwind(AssertUnwindSafe(|| self.look(id, now))).unwrap_or_else(|panic| {
                if let Some(endpoint) = self.watched.remove(&id).and_then(|one| one.endpoint.upgrade()) {
                    endpoint.fail(&*panic);
                }
                false
            })
        });
        self.busy = busy;
    }

    /// Look at every endpoint again, whatever was noted before.
    fn start_over(&mut self) {
        self.timers.clear();
        self.busy.clear();
        for (&id, one) in &mut self.watched {
            one.until = None;
            one.is_busy = true;
            self.busy.push(id);
        }
    }

    /// Look at an endpoint in the next round, if it is one of ours.
    fn mark_busy(&mut self, id: u64) {
        let Some(one) = self.watched.get_mut(&id) else { return };
        if let Some(until) = one.until.take() {
            self.timers.remove(&(until, id));
        }
        if !std::mem::replace(&mut one.is_busy, true) {
            self.busy.push(id);
        }
    }

    /// Look at a busy endpoint; false when it needs no further look for now.
    fn look(&mut self, id: u64, now: Instant) -> bool {
        let Some(one) = self.watched.get_mut(&id) else { return false };
        let Some(endpoint) = one.endpoint.upgrade() else {
            self.watched.remove(&id);
            return false;
        };
        let beats = endpoint.beats();
        if beats != one.beats {
            one.beats = beats;
            one.waiting = None;
            one.is_standing_in = false;
            self.active = now;
            return true;
        }
        match endpoint.look(now, GRACE) {
            Look::Closed => {
                self.watched.remove(&id);
                return false;
            }
            Look::Waiting => {
                let since = *one.waiting.get_or_insert(now);
                if !one.is_standing_in && now - since >= GRACE {
                    one.is_standing_in = true;
                    endpoint.count_late();
                }
                if one.is_standing_in {
                    self.active = now;
                    endpoint.stand_in();
                }
            }
            Look::Idle => one.waiting = None,
            Look::LeftAlone { timer } => {
                one.waiting = None;
                one.is_busy = false;
                one.until = timer.map(|at| at + GRACE);
                self.timers.extend(one.until.map(|until| (until, id)));
                return false;
            }
        }
        true
    }

    /// Whether nothing waits, and neither a loop nor the guardian has driven an endpoint for a while.
    fn is_quiet(&self, now: Instant) -> bool {
        let mut busy = self.busy.iter().filter_map(|id| self.watched.get(id));
        now - self.active > QUIET && busy.all(|one| one.waiting.is_none())
    }

    /// Sleep until a packet comes, a timer is due, or an endpoint is used, closed or new.
    fn rest(&mut self, now: Instant) {
        self.line.begin_rest();
        // A busy endpoint may have a timer that is not known here.
        let mut time = if self.busy.is_empty() { Duration::MAX } else { GRACE };
        if let Some(&(until, _)) = self.timers.first() {
            time = time.min(until.saturating_duration_since(now));
        }
        time = time.max(TICK);
        let is_needed = self.touches.try_recv().map(|id| self.mark_busy(id)).is_ok() || has_changed();
        if !is_needed {
            self.line.poller().wait(time);
        }
        self.line.end_rest();
        if now.checked_add(time).is_none_or(|end| Instant::now() < end) {
            // The loop was woken by the same packet, or uses the endpoint: let it drive first.
            std::thread::sleep(GRACE);
        }
    }
}

/// The thread of an endpoint with [`Io::Thread`].
fn serve(endpoint: &Weak<Endpoint>, poller: &Poller) {
    let mut time = Duration::ZERO;
    while !is_ending() {
        poller.wait(time);
        let _working = at_work();
        let Some(endpoint) = endpoint.upgrade() else { return };
        match catch_unwind(AssertUnwindSafe(|| endpoint.serve(poller))) {
            Ok(Some(until)) => time = until,
            Ok(None) => return,
            Err(panic) => return endpoint.fail(&*panic),
        }
    }
}

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
pub(crate) mod common;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use wtio_engine::{
        Engine,
        tls::{ClientTls, Trust},
    };

    use super::*;

    const MANY: u64 = 50;
    /// Of the one on which something happens.
    const ID: u64 = 33;

    /// A guardian without a thread, and many endpoints that it has looked at before.
    fn idle() -> (Round, Vec<Arc<Endpoint>>) {
        let (line, touches) = Line::new(Arc::new(Poller::new().unwrap()));
        let mut round = Round::new(line, touches);
        let endpoints = (1..=MANY)
            .map(|id| {
                let endpoint = Endpoint::new(Engine::new(common::options(), None).unwrap(), Io::Loop).unwrap();
                endpoint.open("127.0.0.1:0".parse().unwrap(), false).unwrap();
                endpoint.watch_with(id, &round.line);
                round.take(id, Arc::downgrade(&endpoint));
                endpoint
            })
            .collect();
        assert_eq!(round.busy.len() as u64, MANY);
        round.go(Instant::now());
        assert!(round.busy.is_empty());
        (round, endpoints)
    }

    fn one(endpoints: &[Arc<Endpoint>]) -> &Endpoint {
        &endpoints[ID as usize - 1]
    }

    fn drive(endpoint: &Endpoint) {
        endpoint.drive(true, None, &mut Vec::new()).unwrap();
    }

    fn send_to(endpoint: &Endpoint) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"no packet of QUIC", endpoint.local_address().unwrap()).unwrap();
    }

    #[test]
    fn only_the_busy_one_of_many_is_looked_at() {
        let (mut round, endpoints) = idle();
        let now = Instant::now();
        for _ in 0..3 {
            send_to(one(&endpoints));
            drive(one(&endpoints));
            round.go(now);
            assert_eq!(round.busy, [ID]);
        }
        round.go(now);
        assert!(round.busy.is_empty());
        assert_eq!(one(&endpoints).late(), 0);
    }

    #[test]
    fn the_late_one_of_many_is_stood_in_for() {
        let (mut round, endpoints) = idle();
        let now = Instant::now();
        send_to(one(&endpoints));
        round.go(now);
        assert_eq!(round.busy, [ID]);
        assert!(!round.is_quiet(now + 2 * QUIET));
        assert_eq!(one(&endpoints).late(), 0);
        round.go(now + GRACE);
        assert_eq!(one(&endpoints).late(), 1);
        // Received; and what comes next does not wait for the grace again, until the loop is back.
        round.go(now + GRACE);
        assert!(round.busy.is_empty());
        assert!(!round.is_quiet(now + GRACE));
        send_to(one(&endpoints));
        round.go(now + GRACE);
        round.go(now + GRACE);
        assert!(round.busy.is_empty());
        assert_eq!(endpoints.iter().map(|endpoint| endpoint.late()).sum::<u64>(), 1);
        drive(one(&endpoints));
        send_to(one(&endpoints));
        round.go(now + GRACE);
        round.go(now + GRACE);
        assert_eq!(round.busy, [ID]);
        assert_eq!(one(&endpoints).late(), 1);
    }

    #[test]
    fn output_and_timers_are_noticed_among_many() {
        let (mut round, endpoints) = idle();
        let now = Instant::now();
        let trust = ClientTls::new(Trust::Insecure, None).unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = silent.local_addr().unwrap();
        one(&endpoints).act(None, |engine, now| engine.connect(now, to, "localhost", &trust)).0.unwrap();
        // Its output waits for the end of the loop's iteration.
        round.go(now);
        round.go(now);
        assert_eq!(round.busy, [ID]);
        drive(one(&endpoints));
        round.go(now);
        round.go(now);
        assert!(round.busy.is_empty());
        // Nobody answers: the packet is to be sent again.
        let &(until, id) = round.timers.first().unwrap();
        assert_eq!((round.timers.len(), id), (1, ID));
        round.go(until);
        assert!(round.busy.is_empty());
        round.go(until + TICK);
        assert_eq!(round.busy, [ID]);
        assert!(round.timers.is_empty());
    }

    #[test]
    fn a_rest_ends_only_when_an_endpoint_is_used_closed_or_has_a_packet() {
        let (mut round, endpoints) = idle();
        assert!(round.timers.is_empty());
        let acts: [fn(&Endpoint); 3] = [|one| one.act(None, |_, _| ()).0, send_to, Endpoint::close];
        for act in acts {
            let endpoint = endpoints[ID as usize - 1].clone();
            let user = std::thread::spawn(move || {
                std::thread::sleep(2 * GRACE);
                act(&endpoint);
            });
            // With nothing to wake it, it would sleep for ever.
            round.rest(Instant::now());
            user.join().unwrap();
            round.go(Instant::now());
            drive(one(&endpoints));
            round.go(Instant::now());
            round.go(Instant::now());
            assert!(round.busy.is_empty());
        }
        assert_eq!(round.watched.len() as u64, MANY - 1);
    }

    #[test]
    fn what_was_used_before_a_rest_began_is_looked_at() {
        let (mut round, endpoints) = idle();
        one(&endpoints).act(None, |_, _| ());
        round.rest(Instant::now());
        assert_eq!(round.busy, [ID]);
    }

    #[test]
    fn closed_and_dropped_ones_are_forgotten() {
        let (mut round, mut endpoints) = idle();
        endpoints[3].close();
        drop(endpoints.pop());
        // One in use is no exception.
        drive(&endpoints[5]);
        endpoints[5].close();
        for _ in 0..2 {
            round.go(Instant::now());
        }
        assert!(round.busy.is_empty());
        assert_eq!(round.watched.len() as u64, MANY - 3);
    }
    #[test]
    fn a_panic_of_one_engine_fails_its_endpoint_and_no_other() {
        let (mut round, endpoints) = idle();
        let now = Instant::now();
        one(&endpoints).sabotage();
        round.go(now);
        round.go(now + GRACE);
        round.go(now + GRACE);
        assert_eq!(round.watched.len() as u64, MANY - 1);
        assert!(one(&endpoints).drive(false, None, &mut Vec::new()).is_err());
        // The others are looked after as before.
        send_to(&endpoints[0]);
        round.go(now);
        round.go(now + GRACE);
        assert_eq!(endpoints[0].late(), 1);
        drive(&endpoints[0]);
    }

    #[test]
    fn a_guardian_that_starts_over_looks_at_all_of_them() {
        let (mut round, endpoints) = idle();
        round.start_over();
        assert_eq!(round.busy.len() as u64, MANY);
        let now = Instant::now();
        send_to(one(&endpoints));
        round.go(now);
        assert_eq!(round.busy, [ID]);
        round.go(now + GRACE);
        assert_eq!(one(&endpoints).late(), 1);
    }
}
