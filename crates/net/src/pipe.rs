//! The pipe through which another thread wakes the loop.

use std::io;

/// What a loop watches: a file descriptor, or on Windows a socket.
#[cfg(unix)]
pub type Descriptor = std::os::fd::RawFd;
/// What a loop watches: a file descriptor, or on Windows a socket.
#[cfg(windows)]
pub type Descriptor = std::os::windows::io::RawSocket;

/// An end of the pipe. Windows has no pairs of sockets, so two UDP sockets there that take packets from each other only.
#[cfg(unix)]
type End = std::os::unix::net::UnixStream;
#[cfg(windows)]
type End = std::net::UdpSocket;

/// A pipe that never makes anybody wait.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// `None` once it was taken.
    reader: Option<End>,
    writer: End,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader: Some(reader), writer })
    }

    /// What turns readable once a byte was written; `None` if it was taken.
    pub(crate) fn descriptor(&self) -> Option<Descriptor> {
        self.reader.as_ref().map(raw)
    }

    /// Hand the reading end over to a loop that reads by itself, which has to close it; `None` if it was taken.
    pub(crate) fn take_reader(&mut self) -> Option<Descriptor> {
        self.reader.take().map(into_raw)
    }

    /// Write a byte. A full pipe wakes the loop as well.
    pub(crate) fn fill(&self) {
        #[cfg(unix)]
        let _ = io::Write::write(&mut &self.writer, &[1]);
        #[cfg(windows)]
        let _ = self.writer.send(&[1]);
    }

    /// Read what was written. Whoever has taken the reading end has done so.
    pub(crate) fn empty(&self) {
        let Some(reader) = &self.reader else { return };
        let mut bytes = [0; 16];
        #[cfg(unix)]
        let _ = io::Read::read(&mut &*reader, &mut bytes);
        #[cfg(windows)]
        let _ = reader.recv(&mut bytes);
    }

    /// Another handle of the reading end, to see whether it is readable.
    #[cfg(test)]
    pub(crate) fn clone_reader(&self) -> End {
        self.reader.as_ref().unwrap().try_clone().unwrap()
    }
}

#[cfg(unix)]
fn pair() -> io::Result<(End, End)> {
    End::pair()
}

#[cfg(windows)]
fn pair() -> io::Result<(End, End)> {
    let any = (std::net::Ipv4Addr::LOCALHOST, 0);
    let (reader, writer) = (End::bind(any)?, End::bind(any)?);
    reader.connect(writer.local_addr()?)?;
    writer.connect(reader.local_addr()?)?;
    Ok((reader, writer))
}

#[cfg(unix)]
fn raw(end: &End) -> Descriptor {
    std::os::fd::AsRawFd::as_raw_fd(end)
}

#[cfg(windows)]
fn raw(end: &End) -> Descriptor {
    std::os::windows::io::AsRawSocket::as_raw_socket(end)
}

#[cfg(unix)]
fn into_raw(end: End) -> Descriptor {
    std::os::fd::IntoRawFd::into_raw_fd(end)
}

#[cfg(windows)]
fn into_raw(end: End) -> Descriptor {
    std::os::windows::io::IntoRawSocket::into_raw_socket(end)
}
