//! Sleeping in epoll, on Linux.

use std::{
    io::{self, Read, Write},
    net::UdpSocket,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::event::{
    Timespec,
    epoll::{CreateFlags, Event, EventData, EventFlags, add, create, modify, wait},
};

/// Token of what `wake` uses, which no endpoint has.
const ALARM: u64 = u64::MAX;

/// An epoll instance. Closing a socket removes it, because it has no second descriptor (which would also keep its
/// port).
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
    /// Watched; readable from a call of `wake` until `drain`.
    near: UnixStream,
    /// What `wake` writes to.
    far: UnixStream,
}

pub(crate) type Ready = Event;

impl Poller {
    /// Make a poller that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let poller = Self { epoll: create(CreateFlags::CLOEXEC)?, near, far };
        poller.add_any(&poller.near, ALARM)?;
        Ok(poller)
    }

    fn add_any(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        Ok(add(&self.epoll, source, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Watch a socket for packets to receive. Its owner calls `forget` before closing it.
    pub(crate) fn add(&self, socket: &UdpSocket, token: u64) -> io::Result<()> {
        self.add_any(socket, token)
    }

    /// Watch a socket no longer. Closing it is enough here, and `forget` does nothing.
    #[expect(clippy::unused_self, reason = "as on other systems")]
    pub(crate) fn forget(&self, _: &UdpSocket) {}

    /// Begin or stop watching a socket for room to send, beside packets to receive.
    pub(crate) fn want_room(&self, socket: &UdpSocket, token: u64, wants: bool) -> io::Result<()> {
        let flags = if wants { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(modify(&self.epoll, socket, EventData::new_u64(token), flags)?)
    }

    /// Sleep until a socket is ready or `wake` is called, at most `time`. Returns whether a socket is
    /// ready; after `wake`, either.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let mut ready = Vec::with_capacity(1);
        self.collect(&mut ready, time);
        !ready.is_empty()
    }

    /// The tokens of what is ready now, at most `limit` of them. The next call begins with those left out.
    pub(crate) fn ready<'a>(&self, scratch: &'a mut Vec<Ready>, limit: usize) -> impl Iterator<Item = u64> + use<'a> {
        scratch.clear();
        scratch.reserve(limit);
        self.collect(scratch, Duration::ZERO);
        scratch.iter().map(|event| event.data.u64())
    }

    fn collect(&self, ready: &mut Vec<Ready>, time: Duration) {
        let time = Timespec::try_from(time).ok();
        // Interrupted by a signal: as if nothing were readable.
        let _ = wait(&self.epoll, rustix::buffer::spare_capacity(ready), time.as_ref());
    }

    /// End the current sleep, or the next one.
    pub(crate) fn wake(&self) {
        // A full pipe wakes as well.
        let _ = (&self.far).write(&[1]);
    }

    /// Forget earlier calls of `wake`.
    pub(crate) fn drain(&self) {
        let _ = (&self.near).read(&mut [0; 16]);
    }
}
