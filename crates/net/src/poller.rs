//! What a thread of ours sleeps on: sockets, and an alarm by which other threads wake it.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// Token of alarms, and of the only socket of a poller.
pub(crate) const NAMELESS: u64 = 0;

/// An epoll instance. Closing a socket removes it, because it has no second descriptor (which would also keep its
/// port).
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: std::os::fd::OwnedFd,
    alarm: UnixStream,
}

#[cfg(target_os = "linux")]
pub(crate) type Ready = rustix::event::epoll::Event;

#[cfg(target_os = "linux")]
impl Poller {
    /// Whether `ready` is supported.
    pub(crate) const NAMES_SOCKETS: bool = true;

    /// Make a poller that `alarm` wakes when its other end is written to, until it is drained.
    pub(crate) fn new(alarm: UnixStream) -> io::Result<Self> {
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
        let poller = Self { epoll, alarm };
        poller.add(&poller.alarm, NAMELESS)?;
        Ok(poller)
    }

    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        use rustix::event::epoll::{EventData, EventFlags, add};
        Ok(add(&self.epoll, source, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Begin or stop watching a socket for room to send, beside packets to receive.
    pub(crate) fn want_room(&self, source: BorrowedFd<'_>, wants: bool) -> io::Result<()> {
        use rustix::event::epoll::{EventData, EventFlags, modify};
        let flags = if wants { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(modify(&self.epoll, source, EventData::new_u64(NAMELESS), flags)?)
    }

    /// Sleep until something is readable, at most `time`. Returns whether something is.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let mut ready = Vec::with_capacity(1);
        self.collect(&mut ready, time);
        !ready.is_empty()
    }

    /// The tokens of what is readable now, at most `limit` of them. The next call begins with those left out.
    pub(crate) fn ready<'a>(&self, scratch: &'a mut Vec<Ready>, limit: usize) -> impl Iterator<Item = u64> + use<'a> {
        scratch.clear();
        scratch.reserve(limit);
        self.collect(scratch, Duration::ZERO);
        scratch.iter().map(|event| event.data.u64())
    }

    fn collect(&self, ready: &mut Vec<Ready>, time: Duration) {
        use rustix::event::{Timespec, epoll};
        let time = Timespec::try_from(time).ok();
        // Interrupted by a signal: as if nothing were readable.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), time.as_ref());
    }
}

/// On other systems the thread looks by itself, often enough for its purpose.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Poller {
    alarm: UnixStream,
}

#[cfg(not(target_os = "linux"))]
pub(crate) type Ready = std::convert::Infallible;

#[cfg(not(target_os = "linux"))]
impl Poller {
    pub(crate) const NAMES_SOCKETS: bool = false;

    pub(crate) fn new(alarm: UnixStream) -> io::Result<Self> {
        Ok(Self { alarm })
    }

    pub(crate) fn add(&self, _: impl AsFd, _: u64) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn want_room(&self, _: BorrowedFd<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn wait(&self, time: Duration) -> bool {
        std::thread::sleep(time.min(Duration::from_millis(5)));
        true
    }

    #[expect(clippy::unused_self, reason = "as elsewhere")]
    pub(crate) fn ready(&self, _: &mut Vec<Ready>, _: usize) -> impl Iterator<Item = u64> + use<> {
        std::iter::empty()
    }
}

impl Poller {
    /// Empty the alarm's stream: it wakes the thread only after it was written to again.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 16];
        let _ = (&self.alarm).read(&mut bytes);
    }
}
