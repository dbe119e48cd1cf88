//! What a sleeping thread of ours is woken by: sockets, and an alarm.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// An epoll instance. A socket leaves it by being closed: no second descriptor keeps its port taken.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: std::os::fd::OwnedFd,
    alarm: UnixStream,
}

#[cfg(target_os = "linux")]
impl Poller {
    /// Make one that `alarm` wakes once its other end is written to, until it is drained.
    pub(crate) fn new(alarm: UnixStream) -> io::Result<Self> {
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
        let poller = Self { epoll, alarm };
        poller.add(&poller.alarm)?;
        Ok(poller)
    }

    pub(crate) fn add(&self, source: impl AsFd) -> io::Result<()> {
        use rustix::event::epoll::{EventData, EventFlags, add};
        Ok(add(&self.epoll, source, EventData::new_u64(0), EventFlags::IN)?)
    }

    /// Watch a socket for room to send, too, or no longer.
    pub(crate) fn want_room(&self, source: BorrowedFd<'_>, wants: bool) -> io::Result<()> {
        use rustix::event::epoll::{EventData, EventFlags, modify};
        let flags = if wants { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(modify(&self.epoll, source, EventData::new_u64(0), flags)?)
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
    alarm: UnixStream,
}

#[cfg(not(target_os = "linux"))]
impl Poller {
    pub(crate) fn new(alarm: UnixStream) -> io::Result<Self> {
        Ok(Self { alarm })
    }

    pub(crate) fn add(&self, _: impl AsFd) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn want_room(&self, _: BorrowedFd<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn wait(&self, time: Duration) -> bool {
        std::thread::sleep(time.min(Duration::from_millis(5)));
        true
    }
}

impl Poller {
    /// Silence the alarm.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 16];
        let _ = (&self.alarm).read(&mut bytes);
    }
}
