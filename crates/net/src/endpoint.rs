//! An engine with its socket, driven by whoever is there.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wtio_engine::{Engine, Event};

use crate::{
    guardian::{self, GRACE},
    handoff::Handoff,
    poller::{NAMELESS, Poller},
    udp::UdpEndpoint,
};

/// Send calls in one drive.
const BURSTS_PER_DRIVE: usize = 64;
/// Datagrams in one send call: beyond this, larger bursts gain nothing and overrun small receive buffers.
const SEGMENTS: usize = 32;
/// Steps of a stand-in before the guardian looks at its other endpoints.
const STEPS_PER_STAND_IN: usize = 8;
/// A timer that has to come forward by less than this does not wake the I/O thread.
const TIMER_SLACK: Duration = Duration::from_micros(500);
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

/// How the I/O thread is woken.
#[derive(Debug)]
struct Sleeper {
    alarm: UnixStream,
    /// When it wakes by itself at the latest; `None`: not for a timer.
    wakes_at: Option<Instant>,
    /// It also waits for room to send.
    wants_room: bool,
}

impl Sleeper {
    /// Have the thread up by `at`.
    fn rouse(&mut self, at: Instant) {
        if self.wakes_at.is_none_or(|planned| planned > at + TIMER_SLACK) {
            self.wakes_at = Some(at);
            self.wake();
        }
    }

    fn wake(&mut self) {
        // A full pipe wakes as well.
        let _ = self.alarm.write(&[1]);
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // The thread sees that the endpoint is closed or gone, and ends.
        self.wake();
    }
}

/// What the guardian learns of an endpoint that it does not look at.
#[derive(Debug)]
struct Watch {
    id: u64,
    /// Ids of endpoints to look at again. Sending never blocks.
    touched: Sender<u64>,
    /// The guardian relies on the socket and the timer to tell it when something waits.
    is_left_alone: bool,
}

impl Watch {
    /// The endpoint was used: output or an earlier timer may be there now.
    fn touch(&mut self) {
        if std::mem::take(&mut self.is_left_alone) {
            // Without a guardian there is nobody to tell.
            let _ = self.touched.send(self.id);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The guardian sees that the endpoint is closed or gone, and forgets it.
        self.touch();
    }
}

/// What the guardian sees in an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Closed,
    /// Something waits that the loop should have seen to by now.
    Waiting,
    /// Nothing waits.
    Idle,
    /// Nothing waits before this timer unless the guardian is told so, by the poller or the channel.
    LeftAlone {
        timer: Option<Instant>,
    },
}

#[derive(Debug)]
struct State {
    engine: Engine,
    socket: Option<UdpEndpoint>,
    /// Of an open endpoint under the guardian's eyes.
    watch: Option<Watch>,
    /// Of an open endpoint with [`Io::Thread`].
    thread: Option<Sleeper>,
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
    /// Reading and writing end of the pipe; `None` once closed.
    wake: Mutex<Option<(UnixStream, UnixStream)>>,
    io: Io,
}

impl Endpoint {
    /// Wrap an engine.
    ///
    /// # Errors
    /// When the system has no file descriptor left for the wake-up pipe.
    pub fn new(engine: Engine, io: Io) -> io::Result<Arc<Self>> {
        let (wake_reader, wake_writer) = UnixStream::pair()?;
        wake_reader.set_nonblocking(true)?;
        wake_writer.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            state: Mutex::new(State { engine, socket: None, watch: None, thread: None, virtual_now: None }),
            handoff: Handoff::new(),
            wake: Mutex::new(Some((wake_reader, wake_writer))),
            io,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Open the socket, and put the endpoint under the guardian's eyes or start its thread.
    ///
    /// # Errors
    /// Whatever the system answers: address in use, not available, no permission, no thread to be had.
    pub fn bind(self: &Arc<Self>, address: SocketAddr, dual_stack: bool) -> io::Result<()> {
        self.open(address, dual_stack)?;
        guardian::watch(self).inspect_err(|_| self.close())
    }

    /// Open the socket alone.
    pub(crate) fn open(&self, address: SocketAddr, dual_stack: bool) -> io::Result<()> {
        let socket = UdpEndpoint::bind(address, dual_stack)?;
        self.lock().socket = Some(socket);
        Ok(())
    }

    /// Who receives.
    #[must_use]
    pub fn io(&self) -> Io {
        self.io
    }

    /// File descriptor of the socket; `None` without one.
    #[must_use]
    pub fn socket_descriptor(&self) -> Option<RawFd> {
        self.lock().socket.as_ref().map(UdpEndpoint::file_descriptor)
    }

    /// File descriptor that turns readable when the guardian has news for the loop; `None` once closed.
    #[must_use]
    pub fn wake_descriptor(&self) -> Option<RawFd> {
        self.pipe().as_ref().map(|(reader, _)| reader.as_raw_fd())
    }

    fn pipe(&self) -> MutexGuard<'_, Option<(UnixStream, UnixStream)>> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Use the engine. Also says whether it now has output or events.
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
            // The loop sends it at the end of its turn, unless that takes long.
            thread.rouse(now + GRACE);
        }
        (result, state.engine.has_work())
    }

    /// Set the virtual time for what happens until the next drive.
    pub fn set_now(&self, now: Instant) {
        self.lock().virtual_now = Some(now);
    }

    /// The loop's drive: receive if `readable`, run timers, send, and hand over all events.
    pub fn drive(&self, readable: bool, now: Option<Instant>, events: &mut Vec<Event>) -> Driven {
        self.handoff.beat();
        let mut state = self.lock();
        state.touch();
        if now.is_some() {
            state.virtual_now = now;
        }
        let driven = state.step(readable);
        state.engine.take_drained();
        state.engine.take_events(events);
        let Some(thread) = &mut state.thread else { return driven };
        if let Some(time) = if driven.is_unfinished() { Some(Duration::ZERO) } else { driven.timer } {
            thread.rouse(Instant::now() + time);
        }
        Driven::default()
    }

    /// Send what is there, ahead of the drive that was asked for and that takes the events.
    pub fn flush(&self) {
        let mut state = self.lock();
        if state.socket.is_some() {
            state.touch();
            state.step(false);
        }
    }

    /// The wake-up descriptor has turned readable: call before the drive that takes the news.
    pub fn hear(&self) {
        let mut bytes = [0; 16];
        if let Some((reader, _)) = &mut *self.pipe() {
            let _ = reader.read(&mut bytes);
        }
        self.handoff.hear();
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

    /// See whether something waits that the loop should have seen to by now. If nothing does, the guardian need not look
    /// again until it is told to.
    pub(crate) fn look(&self, now: Instant, grace: Duration) -> Look {
        // A mutex that is taken means that the loop is at it this very moment.
        let Ok(mut state) = self.state.try_lock() else { return Look::Idle };
        let state = &mut *state;
        let Some(socket) = &state.socket else { return Look::Closed };
        let timer = state.engine.next_timer();
        let is_due = timer.is_some_and(|at| at + grace < now);
        if is_due || state.engine.has_output() || is_readable(socket.as_fd()) {
            return Look::Waiting;
        }
        match &mut state.watch {
            Some(watch) => {
                watch.is_left_alone = true;
                Look::LeftAlone { timer }
            }
            None => Look::Idle,
        }
    }

    /// Receive, run timers and send in the loop's place; wake the loop if that left news.
    pub(crate) fn stand_in(&self) {
        for _ in 0..STEPS_PER_STAND_IN {
            // The mutex is free between two steps: the loop may be back and wait for it with the GIL in its hands.
            let (has_more, has_news) = {
                let mut state = self.lock();
                if state.socket.is_none() {
                    return;
                }
                (state.step(true).has_more, state.has_news())
            };
            if has_news {
                self.wake_loop();
            }
            if !has_more {
                return;
            }
        }
    }

    /// The same as the endpoint's own thread: how long it may sleep now. `None`: the endpoint is closed.
    pub(crate) fn serve(&self, poller: &Poller) -> Option<Duration> {
        poller.drain();
        for _ in 0..STEPS_PER_STAND_IN {
            let (driven, has_news) = {
                let mut state = self.lock();
                let state = &mut *state;
                let driven = state.step(true);
                let (socket, thread) = (state.socket.as_ref()?, state.thread.as_mut()?);
                thread.wakes_at = driven.timer.map(|time| Instant::now() + time);
                if thread.wants_room != driven.is_blocked {
                    thread.wants_room = driven.is_blocked;
                    let _ = poller.want_room(socket.as_fd(), driven.is_blocked);
                }
                (driven, state.has_news())
            };
            if has_news {
                self.wake_loop();
            }
            if !driven.has_more {
                return Some(driven.timer.unwrap_or(Duration::MAX));
            }
        }
        Some(Duration::ZERO)
    }

    fn wake_loop(&self) {
        if self.handoff.signal()
            && let Some((_, writer)) = &mut *self.pipe()
        {
            let _ = writer.write(&[1]);
        }
    }

    /// Let the endpoint's own thread watch the socket and be woken by `alarm`.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub(crate) fn serve_with(&self, poller: &Poller, alarm: UnixStream) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(socket) = &state.socket {
            poller.add(socket.as_fd(), NAMELESS)?;
            state.thread = Some(Sleeper { alarm, wakes_at: None, wants_room: false });
        }
        Ok(())
    }

    /// Let the guardian's poller watch the socket under the name of `id`, until it is closed. Where that is not possible,
    /// the guardian has to look for itself.
    pub(crate) fn watch_with(&self, poller: &Poller, id: u64, touched: Sender<u64>) {
        let mut state = self.lock();
        if let Some(socket) = &state.socket
            && poller.add(socket.as_fd(), id).is_ok()
            && Poller::NAMES_SOCKETS
        {
            state.watch = Some(Watch { id, touched, is_left_alone: false });
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

    /// Whether the loop has to look: events wait, or a connection has died down.
    fn has_news(&mut self) -> bool {
        self.engine.take_drained() || self.engine.has_events()
    }

    fn step(&mut self, readable: bool) -> Driven {
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
                    is_blocked = !socket.send(outgoing);
                    !is_blocked
                });
                has_more = !all && !is_blocked;
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

/// Whether a descriptor is readable now.
fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}
