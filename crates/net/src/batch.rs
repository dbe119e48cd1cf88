//! Packets that wait to leave together, for any destinations: of what a small packet costs, the system call is a quarter.
//! Linux only (sendmmsg); elsewhere each packet leaves at once.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use wtio_engine::OutgoingDatagram;

/// Packets in one call. More gain nothing that shows, and the first one waits while the others are made.
const MOST: usize = 16;
/// A larger packet, or a bundle, is worth a call of its own.
const LARGEST: usize = 1500;

/// What is needed to send a packet.
#[derive(Debug)]
struct Packet {
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: u8,
    /// Its bytes in [`Batch::contents`].
    start: usize,
    end: usize,
}

/// Packets that wait. The owner sends them before anything else.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the order in which they came. At most [`MOST`].
    packets: Vec<Packet>,
    /// Their bytes. At most [`MOST`] times [`LARGEST`].
    contents: Vec<u8>,
    /// How many of the packets have left already.
    left: usize,
    /// The system does not take packets together, and is not asked again.
    is_refused: bool,
}

impl Batch {
    /// Whether a packet may wait here.
    pub(crate) fn suits(&self, outgoing: &OutgoingDatagram<'_>) -> bool {
        cfg!(target_os = "linux")
            && !self.is_refused
            && outgoing.segment_size.is_none()
            && outgoing.contents.len() <= LARGEST
    }

    pub(crate) fn is_full(&self) -> bool {
        self.packets.len() >= MOST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Keep a packet that suits, if the batch is not full.
    pub(crate) fn push(&mut self, outgoing: &OutgoingDatagram<'_>) {
        let start = self.contents.len();
        self.contents.extend_from_slice(outgoing.contents);
        let OutgoingDatagram { destination, source, ecn, .. } = *outgoing;
        self.packets.push(Packet { destination, source, ecn, start, end: self.contents.len() });
    }

    /// Send what waits: with `many`, which says how many packets left. A packet that it refuses is given to `one`, which says
    /// whether it left; `None`: the socket is full. False: the socket is full, and the rest waits on.
    pub(crate) fn flush(
        &mut self,
        mut many: impl FnMut(&[OutgoingDatagram<'_>]) -> io::Result<usize>,
        mut one: impl FnMut(&OutgoingDatagram<'_>) -> Option<bool>,
    ) -> bool {
        while self.left < self.packets.len() {
            let waiting: Vec<_> =
                self.packets[self.left..].iter().map(|packet| packet.outgoing(&self.contents)).collect();
            // One packet is nothing to send together.
            let sent = if self.is_refused || waiting.len() == 1 { Ok(0) } else { many(&waiting) };
            match sent {
                Ok(count) if count > 0 => self.left += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    // An error is about the first packet, or about the call itself.
                    let Some(has_left) = one(&waiting[0]) else { return false };
                    self.left += 1;
                    self.is_refused |= has_left && result.is_err_and(|error| is_refusal(&error));
                }
            }
        }
        self.packets.clear();
        self.contents.clear();
        self.left = 0;
        true
    }
}

impl Packet {
    fn outgoing<'a>(&self, contents: &'a [u8]) -> OutgoingDatagram<'a> {
        let Self { destination, source, ecn, start, end } = *self;
        OutgoingDatagram { destination, source, ecn, segment_size: None, contents: &contents[start..end] }
    }
}

/// Whether the error of a call for several packets, of which the first one left by itself then, says that the system refuses
/// such calls: it does not know them, or a sandbox forbids them.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP))
}

#[cfg(target_os = "linux")]
pub(crate) use linux::send;

#[cfg(not(target_os = "linux"))]
pub(crate) fn send(_socket: &std::net::UdpSocket, _packets: &[OutgoingDatagram<'_>]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io,
        net::{IpAddr, UdpSocket},
        os::fd::AsRawFd as _,
        ptr::from_mut,
    };

    use socket2::SockAddr;
    use wtio_engine::OutgoingDatagram;

    /// Room for the control messages of one packet: ECN bits and source.
    const CONTROL: usize = 64;
    /// `cmsghdr`: length with header, level, type.
    const HEAD: usize = size_of::<usize>() + 8;

    /// Control messages of one packet.
    #[repr(align(8))]
    struct Control {
        bytes: [u8; CONTROL],
        length: usize,
    }

    impl Control {
        fn of(outgoing: &OutgoingDatagram<'_>) -> Self {
            let mut control = Self { bytes: [0; CONTROL], length: 0 };
            let ecn = i32::from(outgoing.ecn).to_ne_bytes();
            // An IPv6 socket sends to an address that stands for an IPv4 one (::ffff:a.b.c.d) with IPv4.
            if outgoing.destination.ip().to_canonical().is_ipv4() {
                control.push(libc::IPPROTO_IP, libc::IP_TOS, &[&ecn]);
            } else {
                control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &[&ecn]);
            }
            match outgoing.source {
                // `in_pktinfo`: interface, source, destination. `in6_pktinfo`: source, interface.
                Some(IpAddr::V4(ip)) => {
                    control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &[&[0; 4], &ip.octets(), &[0; 4]])
                }
                Some(IpAddr::V6(ip)) => control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[&ip.octets(), &[0; 4]]),
                None => {}
            }
            control
        }

        fn push(&mut self, level: i32, kind: i32, data: &[&[u8]]) {
            let size = HEAD + data.iter().map(|part| part.len()).sum::<usize>();
            let (size, level, kind) = (size.to_ne_bytes(), level.to_ne_bytes(), kind.to_ne_bytes());
            for part in [&size[..], &level, &kind].iter().chain(data) {
                self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
                self.length += part.len();
            }
            self.length = self.length.next_multiple_of(size_of::<usize>());
        }
    }

    /// Send packets with one call (sendmmsg). Returns how many of them the system took, the first ones.
    ///
    /// # Errors
    /// If it took none: what is wrong with the first one, or what was with an earlier packet.
    #[expect(unsafe_code, reason = "no crate of ours offers this call")]
    pub(crate) fn send(socket: &UdpSocket, packets: &[OutgoingDatagram<'_>]) -> io::Result<usize> {
        let addresses: Vec<_> = packets.iter().map(|packet| SockAddr::from(packet.destination)).collect();
        let mut controls: Vec<_> = packets.iter().map(Control::of).collect();
        let mut contents: Vec<_> = packets
            .iter()
            .map(|packet| libc::iovec {
                iov_base: packet.contents.as_ptr().cast_mut().cast(),
                iov_len: packet.contents.len(),
            })
            .collect();
        let mut messages = Vec::with_capacity(packets.len());
        for ((address, control), contents) in addresses.iter().zip(&mut controls).zip(&mut contents) {
            // SAFETY: integers and pointers, which may be zero; some systems have further fields that have to be.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = address.len();
            message.msg_hdr.msg_iov = from_mut(contents);
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.bytes.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = control.length as _;
            messages.push(message);
        }
        // SAFETY: the descriptor is open, and all that the messages point to is alive until the call returns. The system
        // only reads it, and writes how much it took into the messages.
        let count =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as libc::c_uint, 0) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(contents: &[u8]) -> OutgoingDatagram<'_> {
        let destination = "10.0.0.1:4433".parse().unwrap();
        OutgoingDatagram { destination, source: None, ecn: 0, segment_size: None, contents }
    }

    fn filled() -> Batch {
        let mut batch = Batch::default();
        for number in 0..5 {
            batch.push(&packet(&[number]));
        }
        batch
    }

    fn failed<T>(errno: i32) -> io::Result<T> {
        Err(io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn what_a_full_socket_does_not_take_waits_in_order() {
        let mut batch = filled();
        let mut sent = Vec::new();
        for room in [2, 0, 1, 9] {
            let mut room = room;
            let is_done = batch.flush(
                |packets| {
                    let count = packets.len().min(room);
                    room -= count;
                    sent.extend(packets[..count].iter().map(|packet| packet.contents[0]));
                    if count == 0 { failed(libc::EAGAIN) } else { Ok(count) }
                },
                |_| panic!("none is alone, and none is refused"),
            );
            assert_eq!((is_done, batch.is_empty()), (sent.len() == 5, sent.len() == 5));
        }
        assert_eq!(sent, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn one_that_fails_takes_no_other_with_it() {
        let mut batch = filled();
        let mut left = Vec::new();
        let mut alone = Vec::new();
        assert!(batch.flush(
            |packets| match packets.iter().position(|packet| packet.contents[0] == 2) {
                Some(0) => failed(libc::EINVAL),
                Some(count) => {
                    left.extend(packets[..count].iter().map(|packet| packet.contents[0]));
                    Ok(count)
                }
                None => {
                    left.extend(packets.iter().map(|packet| packet.contents[0]));
                    Ok(packets.len())
                }
            },
            |packet| {
                alone.push(packet.contents[0]);
                Some(false)
            },
        ));
        assert_eq!((left, alone), (vec![0, 1, 3, 4], vec![2]));
        assert!(!batch.is_refused);
    }

    #[test]
    fn a_system_that_refuses_the_call_is_asked_once() {
        let mut batch = filled();
        let (mut asked, mut alone) = (0, 0);
        assert!(batch.flush(
            |_| {
                asked += 1;
                failed(libc::ENOSYS)
            },
            |_| {
                alone += 1;
                Some(true)
            }
        ));
        assert_eq!((asked, alone), (1, 5));
        assert!(!batch.suits(&packet(&[0])));
    }
}
