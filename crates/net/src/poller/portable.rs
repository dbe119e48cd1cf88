//! Sleeping in kqueue or on a completion port; with the feature `portable` also in epoll.

use std::{io, net::UdpSocket, num::NonZeroUsize, time::Duration};

use polling::{Event, Events, PollMode};

#[cfg(windows)]
use crate::poller::clock::FineTimers;

/// Pause after an error of the system, which is not expected, so that a thread that meets it again and again does
/// not take all of the processor.
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// kqueue or completion ports, and epoll with the feature `portable`.
#[derive(Debug)]
pub(crate) struct Poller {
    poller: polling::Poller,
    /// The process that made it. A child inherits sockets, but what it forgot would be forgotten for its parent, too.
    process: u32,
}

pub(crate) type Ready = Event;

impl Poller {
    /// Make a poller that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { poller: polling::Poller::new()?, process: std::process::id() })
    }

    /// Watch a socket for packets to receive. Its owner calls `forget` before closing it.
    #[expect(unsafe_code, reason = "the poller does not own what it watches")]
    pub(crate) fn add(&self, socket: &UdpSocket, token: u64) -> io::Result<()> {
        // SAFETY: only `UdpEndpoint` adds sockets, and it calls `forget` when it is dropped, before its socket is.
        // A forked child does not, but there the poller is never waited on.
        unsafe { self.poller.add_with_mode(socket, interest(token, false), PollMode::Level) }
    }

    /// Watch a socket no longer.
    pub(crate) fn forget(&self, socket: &UdpSocket) {
        if std::process::id() == self.process {
            let _ = self.poller.delete(socket);
        }
    }

    /// Begin or stop watching a socket for room to send, beside packets to receive.
    pub(crate) fn want_room(&self, socket: &UdpSocket, token: u64, wants: bool) -> io::Result<()> {
        self.poller.modify_with_mode(socket, interest(token, wants), PollMode::Level)
    }

    /// Sleep until a socket is ready or `wake` is called, at most `time`. Returns whether a socket is
    /// ready; after `wake`, either.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        #[cfg(windows)]
        let _fine = FineTimers::for_sleep(time);
        !self.collect(1, time).is_empty()
    }

    /// The tokens of what is ready now, at most `limit` of them. The next call begins with those left out.
    pub(crate) fn ready<'a>(&self, scratch: &'a mut Vec<Ready>, limit: usize) -> impl Iterator<Item = u64> + use<'a> {
        scratch.clear();
        scratch.extend(self.collect(limit, Duration::ZERO).iter());
        scratch.iter().map(|event| event.key as u64)
    }

    fn collect(&self, limit: usize, time: Duration) -> Events {
        let mut events = Events::with_capacity(NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN));
        if self.poller.wait(&mut events, Some(time)).is_err() {
            std::thread::sleep(time.min(AFTER_ERROR));
        }
        events
    }

    /// End the current sleep, or the next one.
    pub(crate) fn wake(&self) {
        let _ = self.poller.notify();
    }

    /// Forget earlier calls of `wake`. The sleep that they ended has done so.
    #[expect(clippy::unused_self, reason = "as with epoll")]
    pub(crate) fn drain(&self) {}
}

fn interest(token: u64, wants_room: bool) -> Event {
    Event::new(token as usize, true, wants_room)
}
