//! An engine with its socket. The loop drives it; if the loop is late, the guardian does, or a thread of its own
//! always.
//!
//! All state is behind one mutex. A thread holds it for one step at a time and calls nothing that could wait.

use std::{
    any::Any,
    io,
    net::{SocketAddr, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wtio_engine::{Engine, Event};

use crate::{
    handoff::Handoff,
    pipe::{Descriptor, Pipe},
    poller::{NAMELESS, Poller},
    sending::{TOO_LARGE, Trouble},
    udp::{KernelBuffers, UdpEndpoint},
    watch::{GRACE, Line, Look, Watch},
};

/// Send calls in one drive.
const BURSTS_PER_DRIVE: usize = 64;
/// Datagrams in one send call: beyond this, larger bursts gain nothing and overrun small receive buffers.
const SEGMENTS: usize = 32;
/// Steps of a stand-in before the guardian looks at its other endpoints.
const STEPS_PER_STAND_IN: usize = 8;
/// A timer that has to come forward by less than this does not wake the I/O thread.
const TIMER_SLACK: Duration = Duration::from_micros(500);
/// Time between two reports of failures to send, for each errno by itself.
const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// Every path has to carry packets of this size (RFC 9000, section 14). A larger one may be a probe of the path's MTU.
const SMALLEST_MTU: usize = 1200;
/// Simulated packets leave one by one.
const SIMULATED: usize = 1;

/// Who receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// The event loop; the guardian only while the loop is late.
    Loop,
    /// A thread of its own, always. It also runs the timers, and sends what the loop leaves behind.
    Thread,
}

/// How the I/O thread is woken, and what it is waiting for.
#[derive(Debug)]
struct Sleeper {
    /// What it sleeps on.
    poller: Arc<Poller>,
    /// When it wakes by itself at the latest; `None`: not for a timer.
    wakes_at: Option<Instant>,
    /// It also waits for room to send.
    wants_room: bool,
}

impl Sleeper {
    /// Make the thread wake at `at` or earlier.
    fn wake_by(&mut self, at: Instant) {
        if self.wakes_at.is_none_or(|planned| planned > at + TIMER_SLACK) {
            self.wakes_at = Some(at);
            self.poller.wake();
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // The thread sees that the endpoint is closed or gone, and ends.
        self.poller.wake();
    }
}

/// The engine has panicked, a defect: what the panic said. Its connections are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked(pub String);

/// Failures to send. Each errno is reported at most once per [`REPORT_AGAIN`], so that a broken route does not fill
/// logs. Bounded by the number of errnos.
#[derive(Debug, Default)]
struct SendFailures(Vec<SendFailure>);

#[derive(Debug)]
struct SendFailure {
    errno: i32,
    /// One of the destinations.
    destination: SocketAddr,
    /// Packets since the last report.
    count: u64,
    /// When it was last reported.
    reported: Option<Instant>,
}

impl SendFailures {
    fn note(&mut self, trouble: &Trouble) {
        match self.0.iter_mut().find(|one| one.errno == trouble.errno) {
            Some(one) => {
                one.count += trouble.count;
                one.destination = trouble.destination;
            }
            None => self.0.push(SendFailure {
                errno: trouble.errno,
                destination: trouble.destination,
                count: trouble.count,
                reported: None,
            }),
        }
    }

    /// Report those that are due.
    fn report(&mut self, now: Instant, events: &mut Vec<Event>) {
        for one in &mut self.0 {
            if one.count > 0 && one.reported.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_AGAIN) {
                one.reported = Some(now);
                let count = std::mem::take(&mut one.count);
                events.push(Event::SendFailed { destination: one.destination, errno: one.errno, count });
            }
        }
    }
}

#[derive(Debug)]
struct State {
    engine: Engine,
    /// Set once the engine has panicked.
    panicked: Option<Panicked>,
    /// For tests: panic at the next occasion.
    is_sabotaged: bool,
    /// Failures that no connection was given, to be reported to the loop.
    send_failures: SendFailures,
    /// `None` before `bind`, once closed, and in simulations.
    socket: Option<UdpEndpoint>,
    /// What the system keeps for the socket, also once that is closed.
    kernel_buffers: Option<KernelBuffers>,
    /// The line to the guardian, of an open endpoint with [`Io::Loop`].
    watch: Option<Watch>,
    /// How to wake its thread, of an open endpoint with [`Io::Thread`].
    thread: Option<Sleeper>,
    /// The time of a simulation, as its last call gave it; `None` with a real clock.
    virtual_now: Option<Instant>,
}

/// What a drive leaves to its caller; nothing where a thread does it.
#[derive(Debug, Default)]
pub struct Driven {
    /// When the next timer is due.
    pub timer: Option<Duration>,
    /// The send budget is used up and there is more.
    pub has_more: bool,
    /// The socket takes no more.
    pub is_blocked: bool,
}

/// An engine, its socket and the pipe through which the guardian wakes the loop.
#[derive(Debug)]
pub struct Endpoint {
    state: Mutex<State>,
    handoff: Handoff,
    /// `None` once closed.
    pipe: Mutex<Option<Pipe>>,
    io: Io,
}

impl Endpoint {
    /// Wrap an engine.
    ///
    /// # Errors
    /// When the system has no file descriptor left for the wake-up pipe.
    pub fn new(engine: Engine, io: Io) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            state: Mutex::new(State {
                engine,
                panicked: None,
                is_sabotaged: false,
                send_failures: SendFailures::default(),
                socket: None,
                kernel_buffers: None,
                watch: None,
                thread: None,
                virtual_now: None,
            }),
            handoff: Handoff::new(),
            pipe: Mutex::new(Some(Pipe::new()?)),
            io,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Open the socket. `bind` (in `guardian`) does that and registers the endpoint with the guardian or starts its
    /// thread.
    pub(crate) fn open(&self, address: SocketAddr, dual_stack: bool) -> io::Result<()> {
        self.keep(UdpEndpoint::bind(address, dual_stack, self.reports_errors())?);
        Ok(())
    }

    /// The same with a socket that is bound already.
    pub(crate) fn open_with(&self, socket: UdpSocket) -> io::Result<()> {
        self.keep(UdpEndpoint::adopt(socket, self.reports_errors())?);
        Ok(())
    }

    fn keep(&self, socket: UdpEndpoint) {
        let mut state = self.lock();
        state.kernel_buffers = Some(socket.kernel_buffers());
        state.socket = Some(socket);
    }

    /// A server answers strangers. What networks say about that is of no use, and anybody can have them say it.
    fn reports_errors(&self) -> bool {
        !self.lock().engine.is_server()
    }

    /// Who receives.
    #[must_use]
    pub fn io(&self) -> Io {
        self.io
    }

    /// File descriptor of the socket; `None` without one.
    #[must_use]
    pub fn socket_descriptor(&self) -> Option<Descriptor> {
        self.lock().socket.as_ref().map(UdpEndpoint::descriptor)
    }

    /// File descriptor that turns readable when the guardian has left events for the loop; `None` once closed or taken.
    #[must_use]
    pub fn wake_descriptor(&self) -> Option<Descriptor> {
        self.pipe().as_ref().and_then(Pipe::descriptor)
    }

    /// The same for a loop that cannot watch it, which reads from it and closes it in the end.
    #[must_use]
    pub fn take_wake_descriptor(&self) -> Option<Descriptor> {
        self.pipe().as_mut().and_then(Pipe::take_reader)
    }

    fn pipe(&self) -> MutexGuard<'_, Option<Pipe>> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address in use.
    ///
    /// # Errors
    /// Without a socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match &self.lock().socket {
            Some(socket) => socket.local_address(),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "no socket is open")),
        }
    }

    /// Datagrams in one send call at most.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.lock().socket.as_ref().map_or(SIMULATED, UdpEndpoint::segments)
    }

    /// Whether there may be packets to send, or the socket was too full for some.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let state = self.lock();
        state.engine.has_output() || state.socket.as_ref().is_some_and(UdpEndpoint::has_output)
    }

    /// What the system keeps for the socket; `None` in simulations, and before there is one.
    #[must_use]
    pub fn kernel_buffers(&self) -> Option<KernelBuffers> {
        self.lock().kernel_buffers
    }

    /// Packets that could not be sent, by errno; empty once closed.
    #[must_use]
    pub fn send_failures(&self) -> Vec<(i32, u64)> {
        self.lock().socket.as_ref().map_or_else(Vec::new, |socket| socket.failures().to_vec())
    }

    /// For tests: let the engine panic when it is driven next, by whomever.
    #[doc(hidden)]
    pub fn sabotage(&self) {
        let mut state = self.lock();
        state.is_sabotaged = true;
        state.touch();
    }

    /// Times the guardian had to step in; also once closed.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.handoff.late()
    }

    /// Release the socket and the pipe at once, however long the endpoint itself is still referred to.
    pub fn close(&self) {
        let (socket, watch, thread) = {
            let mut state = self.lock();
            (state.socket.take(), state.watch.take(), state.thread.take())
        };
        drop((socket, watch, thread));
        let pipe = self.pipe().take();
        drop(pipe);
    }

    /// Call `act` with the engine. Also returns whether the engine now has output or events.
    pub fn act<R>(&self, now: Option<Instant>, act: impl FnOnce(&mut Engine, Instant) -> R) -> (R, bool) {
        let mut state = self.lock();
        let state = &mut *state;
        state.touch();
        if now.is_some() {
            state.virtual_now = now;
        }
        let now = state.virtual_now.unwrap_or_else(Instant::now);
        let result = act(&mut state.engine, now);
        if let Some(thread) = &mut state.thread
            && state.engine.has_output()
        {
            // The loop sends it at the end of its iteration, unless that takes long.
            thread.wake_by(now + GRACE);
        }
        (result, state.engine.has_work())
    }

    /// Set the virtual time for what happens until the next drive.
    pub fn set_now(&self, now: Instant) {
        self.lock().virtual_now = Some(now);
    }

    /// The loop's drive: receive if `readable`, run timers, send, and hand over all events.
    ///
    /// # Errors
    /// Once the engine has panicked, here or in a thread.
    pub fn drive(&self, readable: bool, now: Option<Instant>, events: &mut Vec<Event>) -> Result<Driven, Panicked> {
        self.handoff.beat();
        let mut state = self.lock();
        state.touch();
        if now.is_some() {
            state.virtual_now = now;
        }
        let driven = state.step(readable)?;
        state.engine.take_drained();
        state.engine.take_events(events);
        state.take_send_failures(events);
        let Some(thread) = &mut state.thread else { return Ok(driven) };
        if let Some(time) = if driven.is_unfinished() { Some(Duration::ZERO) } else { driven.timer } {
            thread.wake_by(Instant::now() + time);
        }
        Ok(Driven::default())
    }

    /// Send what is there, ahead of the drive that was asked for and that takes the events.
    pub fn flush(&self) {
        let mut state = self.lock();
        if state.socket.is_some() {
            state.touch();
            // The drive that was asked for says what went wrong.
            let _ = state.step(false);
        }
    }

    /// The wake-up descriptor has turned readable: call before the drive that takes the events.
    pub fn clear_wake_up(&self) {
        if let Some(pipe) = &*self.pipe() {
            pipe.empty();
        }
        self.handoff.clear();
    }

    /// The drive of a simulation: everything that wants to leave goes to `send`.
    pub fn collect(&self, now: Instant, mut send: impl FnMut(SocketAddr, &[u8], u8)) -> bool {
        let mut state = self.lock();
        state.virtual_now = Some(now);
        state.engine.process(now, SIMULATED, usize::MAX, |outgoing| {
            send(outgoing.destination, outgoing.contents, outgoing.ecn);
            true
        });
        state.engine.has_work()
    }

    // ---------------------------------------------------------------- the guardian's side

    pub(crate) fn beats(&self) -> u64 {
        self.handoff.beats()
    }

    pub(crate) fn count_late(&self) {
        self.handoff.count_late();
    }

    /// See whether something waits that the loop should have handled by now. If nothing does, the guardian need not
    /// look again until the endpoint is touched.
    pub(crate) fn look(&self, now: Instant, grace: Duration) -> Look {
        // A mutex that is taken means that the loop is at it this very moment.
        let Ok(mut state) = self.state.try_lock() else { return Look::Idle };
        let state = &mut *state;
        if state.panicked.is_some() {
            return Look::Closed;
        }
        let Some(socket) = &state.socket else { return Look::Closed };
        let timer = state.engine.next_timer();
        let is_due = timer.is_some_and(|at| at + grace < now);
        if is_due
            || state.is_sabotaged
            || state.engine.has_output()
            || socket.has_output()
            || is_readable(socket.socket())
        {
            return Look::Waiting;
        }
        match &mut state.watch {
            Some(watch) => {
                watch.leave_alone();
                Look::LeftAlone { timer }
            }
            None => Look::Idle,
        }
    }

    /// Receive, run timers and send in the loop's place; wake the loop if that left events.
    pub(crate) fn stand_in(&self) {
        for _ in 0..STEPS_PER_STAND_IN {
            // The mutex is free between two steps: the loop may be back and wait for it with the GIL in its hands.
            let (has_more, needs_loop) = {
                let mut state = self.lock();
                if state.socket.is_none() {
                    return;
                }
                (state.step(true).is_ok_and(|driven| driven.has_more), state.needs_loop())
            };
            if needs_loop {
                self.wake_loop();
            }
            if !has_more {
                return;
            }
        }
    }

    /// The same in the endpoint's own thread. Returns how long that may sleep now; `None` once the endpoint is closed.
    pub(crate) fn serve(&self, poller: &Poller) -> Option<Duration> {
        poller.drain();
        for _ in 0..STEPS_PER_STAND_IN {
            let (driven, needs_loop) = {
                let mut state = self.lock();
                let state = &mut *state;
                let Ok(driven) = state.step(true) else {
                    break;
                };
                let (socket, thread) = (state.socket.as_ref()?, state.thread.as_mut()?);
                thread.wakes_at = driven.timer.map(|time| Instant::now() + time);
                if thread.wants_room != driven.is_blocked {
                    thread.wants_room = driven.is_blocked;
                    let _ = socket.want_room(driven.is_blocked);
                }
                (driven, state.needs_loop())
            };
            if needs_loop {
                self.wake_loop();
            }
            if !driven.has_more {
                return Some(driven.timer.unwrap_or(Duration::MAX));
            }
        }
        if self.lock().panicked.is_some() {
            self.wake_loop();
            return None;
        }
        Some(Duration::ZERO)
    }

    /// A thread of ours has panicked while it served this endpoint: fail the endpoint and wake its loop.
    pub(crate) fn fail(&self, panic: &(dyn Any + Send)) {
        self.lock().fail(panic);
        self.wake_loop();
    }

    fn wake_loop(&self) {
        if self.handoff.signal()
            && let Some(pipe) = &*self.pipe()
        {
            pipe.fill();
        }
    }

    /// Let the endpoint's own thread, which sleeps on `poller`, watch the socket.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub(crate) fn serve_with(&self, poller: &Arc<Poller>) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(socket) = &mut state.socket {
            socket.watch(poller, NAMELESS)?;
            state.thread = Some(Sleeper { poller: poller.clone(), wakes_at: None, wants_room: false });
        }
        Ok(())
    }

    /// Let the guardian's poller watch the socket under the name of `id`, until it is closed. Where that is not possible,
    /// the guardian has to look for itself.
    pub(crate) fn watch_with(&self, id: u64, line: &Line) {
        let mut state = self.lock();
        if let Some(socket) = &mut state.socket
            && socket.watch(line.poller(), id).is_ok()
        {
            state.watch = Some(Watch::new(id, line.clone()));
        }
    }
}

impl Driven {
    /// Packets wait that the caller could not send.
    fn is_unfinished(&self) -> bool {
        self.has_more || self.is_blocked
    }
}

impl State {
    fn touch(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.touch();
        }
    }

    /// Whether the loop has to drive: events wait, a connection is drained, or the engine has panicked.
    fn needs_loop(&mut self) -> bool {
        self.engine.take_drained() || self.engine.has_events() || self.panicked.is_some()
    }

    fn step(&mut self, readable: bool) -> Result<Driven, Panicked> {
        if self.panicked.is_none() {
            match catch_unwind(AssertUnwindSafe(|| self.run(readable))) {
                Ok(driven) => return Ok(driven),
                Err(panic) => self.fail(&*panic),
            }
        }
        Err(self.panicked.clone().unwrap_or_else(|| Panicked(String::new())))
    }

    /// The engine has panicked. Whatever waits for it shall not wait for ever, so it loses its connections.
    fn fail(&mut self, panic: &(dyn Any + Send)) {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
        self.panicked.get_or_insert(Panicked(words.unwrap_or_else(|| "a panic without words".to_owned())));
        // They were left in the middle of something; letting them go may not work either.
        let _ = catch_unwind(AssertUnwindSafe(|| self.engine.abandon()));
    }

    fn take_send_failures(&mut self, events: &mut Vec<Event>) {
        let Some(socket) = &mut self.socket else { return };
        if socket.take_has_read_errors() {
            events.push(Event::ErrorsRead);
        }
        if !self.send_failures.0.is_empty() {
            self.send_failures.report(Instant::now(), events);
        }
    }

    /// Give failures to the connections in their handshake that they concern. The rest are counted, and reported to the
    /// socket's owner.
    fn pass_on(&mut self, troubles: &[Trouble]) {
        for trouble in troubles {
            let Trouble { destination, errno, is_remote, size, .. } = *trouble;
            let is_probe = errno == TOO_LARGE && size > SMALLEST_MTU;
            let is_given = !self.engine.is_server() && self.engine.note_unreachable(destination, errno, is_remote);
            if !is_given && !is_remote && !is_probe {
                self.send_failures.note(trouble);
            }
        }
    }

    fn run(&mut self, readable: bool) -> Driven {
        assert!(!self.is_sabotaged, "sabotage by a test");
        let now = self.virtual_now.unwrap_or_else(Instant::now);
        let mut has_more = false;
        let mut is_blocked = false;
        match &mut self.socket {
            Some(socket) => {
                if readable {
                    // One batch of up to 8 bundles, so that readers take them while they are in the cache. What is left
                    // in the socket makes the caller come again.
                    socket.receive(|meta, datagram| {
                        self.engine.receive(now, meta.source, meta.destination, meta.ecn, datagram);
                    });
                }
                let segments = socket.segments().min(SEGMENTS);
                let all = self.engine.process(now, segments, BURSTS_PER_DRIVE, |outgoing| {
                    is_blocked = !socket.post(outgoing);
                    !is_blocked
                });
                is_blocked |= !socket.flush();
                has_more = !all && !is_blocked;
                if socket.has_troubles() {
                    let troubles = socket.take_troubles();
                    self.pass_on(&troubles);
                }
            }
            // A simulation collects its packets; here only timers and events are due.
            None => {
                self.engine.process(now, SIMULATED, 0, |_| false);
            }
        }
        let timer = self.engine.next_timer().map(|at| at.saturating_duration_since(now));
        Driven { timer, has_more, is_blocked }
    }
}

/// Whether a socket is readable now.
fn is_readable(socket: &UdpSocket) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::UdpSocket;

    use wtio_engine::tls::{ClientTls, Trust};

    use super::*;
    use crate::guardian::{self, common};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn endpoint(io: Io) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(Engine::new(common::options(), None).unwrap(), io).unwrap();
        endpoint.open("127.0.0.1:0".parse().unwrap(), false).unwrap();
        endpoint
    }

    fn connect(endpoint: &Endpoint, to: SocketAddr) -> u64 {
        let trust = ClientTls::new(Trust::Insecure, None).unwrap();
        endpoint.act(None, |engine, now| engine.connect(now, to, "localhost", &trust)).0.unwrap()
    }

    fn drive(endpoint: &Endpoint) -> Vec<Event> {
        let mut events = Vec::new();
        endpoint.drive(true, None, &mut events).unwrap();
        events
    }

    /// Whether the loop is woken through the pipe within a while.
    fn is_woken(endpoint: &Endpoint) -> bool {
        let pipe = endpoint.pipe().as_ref().unwrap().clone_reader();
        let mut ready = [PollFd::new(&pipe, PollFlags::IN)];
        poll(&mut ready, Some(&Timespec::try_from(PATIENCE).unwrap())).unwrap() == 1
    }

    /// An address of ours at which nobody listens.
    fn closed() -> SocketAddr {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_panic_of_the_io_thread_fails_the_endpoint_and_wakes_its_loop() {
        let endpoint = endpoint(Io::Thread);
        guardian::watch(&endpoint).unwrap();
        connect(&endpoint, closed());
        endpoint.sabotage();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", endpoint.local_address().unwrap()).unwrap();
        assert!(is_woken(&endpoint));
        for _ in 0..2 {
            let panicked = endpoint.drive(true, None, &mut Vec::new()).unwrap_err();
            assert_eq!(panicked, Panicked("sabotage by a test".into()));
        }
        assert_eq!(endpoint.act(None, |engine, _| engine.connection_count()).0, 0);
    }

    #[test]
    fn a_panic_in_the_drive_of_the_loop_fails_the_endpoint() {
        let endpoint = endpoint(Io::Loop);
        endpoint.sabotage();
        endpoint.drive(false, None, &mut Vec::new()).unwrap_err();
        endpoint.drive(false, None, &mut Vec::new()).unwrap_err();
    }

    #[test]
    fn only_the_attempt_whose_address_is_quoted_fails() {
        let endpoint = endpoint(Io::Loop);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let refused = closed();
        let other = connect(&endpoint, silent.local_addr().unwrap());
        let ours = connect(&endpoint, refused);
        let mut events = drive(&endpoint);
        events.append(&mut drive(&endpoint));
        let errno = libc::ECONNREFUSED;
        let expected = Event::Unreachable { connection: ours, errno, is_remote: true };
        assert!(events.contains(&expected), "{events:?}");
        assert!(!events.iter().any(|e| matches!(e, Event::Unreachable { connection, .. } if *connection == other)));
        assert!(events.contains(&Event::ErrorsRead), "{events:?}");
    }

    #[test]
    fn what_cannot_be_sent_is_reported_once_and_counted() {
        let endpoint = endpoint(Io::Loop);
        let errno = libc::EINVAL;
        let mut reported = Vec::new();
        for count in 1..=100 {
            {
                let mut state = endpoint.lock();
                let contents = &[0; 100];
                // Nothing can be sent to port 0.
                let destination = "127.0.0.1:0".parse().unwrap();
                let outgoing =
                    wtio_engine::OutgoingDatagram { destination, source: None, ecn: 0, segment_size: None, contents };
                assert!(state.socket.as_mut().unwrap().send(&outgoing));
            }
            reported.extend(drive(&endpoint).into_iter().filter(|e| matches!(e, Event::SendFailed { .. })));
            assert_eq!(endpoint.send_failures(), [(errno, count)]);
        }
        let destination = "127.0.0.1:0".parse().unwrap();
        assert_eq!(reported, [Event::SendFailed { destination, errno, count: 1 }]);
        // And again after a while.
        let mut later = Vec::new();
        endpoint.lock().send_failures.report(Instant::now() + REPORT_AGAIN, &mut later);
        assert_eq!(later, [Event::SendFailed { destination, errno, count: 99 }]);
    }

    #[test]
    fn a_probe_of_the_mtu_that_is_too_large_for_the_system_is_not_reported() {
        let endpoint = endpoint(Io::Loop);
        let destination = "127.0.0.1:9".parse().unwrap();
        let trouble = |size| Trouble { destination, errno: TOO_LARGE, is_remote: false, size, count: 1 };
        endpoint.lock().pass_on(&[trouble(1452)]);
        assert!(drive(&endpoint).is_empty());
        endpoint.lock().pass_on(&[trouble(1200)]);
        assert_eq!(drive(&endpoint).len(), 1);
    }
}
