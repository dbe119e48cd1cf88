//! What a sleeping thread of ours is woken by: sockets, and an alarm.

use std::{io, os::fd::AsFd, os::unix::net::UnixStream, time::Duration};

/// An epoll instance. A socket leaves it by being closed: no second descriptor keeps its port taken.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: std::os::fd::OwnedFd,
    _alarm: UnixStream,
}

#[cfg(target_os = "linux")]
impl Poller {
    /// Make one that `alarm` wakes for good once its other end is written to.
    pub(crate) fn new(alarm: UnixStream) -> io::Result<Self> {
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
        let poller = Self { epoll, _alarm: alarm };
        poller.add(&poller._alarm)?;
        Ok(poller)
    }

    pub(crate) fn add(&self, source: impl AsFd) -> io::Result<()> {
        use rustix::event::epoll::{EventData, EventFlags, add};
        Ok(add(&self.epoll, source, EventData::new_u64(0), EventFlags::IN)?)
    }

    /// Sleep until something is readable, at most `time`. Whether something is.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        use rustix::event::{Timespec, epoll};
        let time = Timespec::try_from(time).ok();
        let mut events = Vec::with_capacity(1);
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), time.as_ref()).is_ok_and(|n| n > 0)
    }
}

/// Elsewhere the thread looks for itself, often enough for what it is there for.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Poller {
    _alarm: UnixStream,
}

#[cfg(not(target_os = "linux"))]
impl Poller {
    pub(crate) fn new(alarm: UnixStream) -> io::Result<Self> {
        Ok(Self { _alarm: alarm })
    }

    pub(crate) fn add(&self, _: impl AsFd) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn wait(&self, time: Duration) -> bool {
        std::thread::sleep(time.min(Duration::from_millis(5)));
        true
    }
}
