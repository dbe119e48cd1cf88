//! Errors that the network reports about our packets: the error queue of a UDP socket (`IP_RECVERR`, see ip(7)).
//!
//! The kernel queues an ICMP error if the port that it quotes is the socket's. The address of the entry is the
//! destination of the packet in question.

use std::{
    mem::MaybeUninit,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
};

use socket2::{MaybeUninitSlice, MsgHdrMut, SockAddr, SockRef};

/// Errors read at a time, so that a flood of them does not stop other work.
const AT_ONCE: usize = 64;
/// Room for one control message with an error and an address, and for those of usual packets.
const CONTROL: usize = 256;

/// Read the queue. Returns the network's errors, each with the destination of its packet, and the number of entries
/// read, which includes those that the system itself has made.
pub(crate) fn read_errors(socket: &UdpSocket, mut take: impl FnMut(SocketAddr, i32)) -> usize {
    for count in 0..AT_ONCE {
        let mut control = [MaybeUninit::new(0u8); CONTROL];
        // Of either family; the kernel overwrites it.
        let mut destination = SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
        let mut byte = [MaybeUninit::new(0u8); 1];
        let mut buffers = [MaybeUninitSlice::new(&mut byte)];
        let mut message =
            MsgHdrMut::new().with_addr(&mut destination).with_buffers(&mut buffers).with_control(&mut control);
        if SockRef::from(socket).recvmsg(&mut message, libc::MSG_ERRQUEUE).is_err() {
            return count;
        }
        let length = message.control_len().min(CONTROL);
        let control = control.map(initialised);
        if let Some(errno) = network_error(&control[..length])
            && let Some(destination) = destination.as_socket()
        {
            take(destination, errno);
        }
    }
    AT_ONCE
}

#[expect(unsafe_code, reason = "socket2 takes memory that need not be initialised; this is")]
fn initialised(byte: MaybeUninit<u8>) -> u8 {
    // SAFETY: it was initialised above, and a system call only writes values to it.
    unsafe { byte.assume_init() }
}

/// The errno of the first control message that reports an ICMP error.
fn network_error(mut control: &[u8]) -> Option<i32> {
    /// `cmsghdr`: length with header, level, type.
    const WORD: usize = size_of::<usize>();
    const HEAD: usize = WORD + 8;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i32::from_ne_bytes);
    while let Some((head, rest)) = control.split_at_checked(HEAD) {
        let length = usize::from_ne_bytes(head[..WORD].try_into().ok()?).checked_sub(HEAD)?;
        let data = rest.get(..length)?;
        let kind = (number(&head[WORD..WORD + 4])?, number(&head[WORD + 4..])?);
        // `sock_extended_err`: errno, origin, type, code, and more.
        if matches!(kind, (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR))
            && data.len() >= 16
            && matches!(data[4], libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6)
        {
            return number(&data[..4]);
        }
        control = rest.get(length.next_multiple_of(WORD)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let head = size_of::<usize>() + 8;
        let mut out = (head + data.len()).to_ne_bytes().to_vec();
        out.extend(level.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(data);
        out.resize(out.len().next_multiple_of(size_of::<usize>()), 0);
        out
    }

    fn error(errno: i32, origin: u8) -> Vec<u8> {
        let mut out = errno.to_ne_bytes().to_vec();
        out.extend([origin, 3, 3, 0]);
        out.resize(16, 0);
        out
    }

    #[test]
    fn an_error_is_found_among_other_messages() {
        let mut control = message(libc::IPPROTO_IP, 8, &[0; 12]);
        control.extend(message(1, 35, &[0; 16]));
        control.extend(message(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &error(111, libc::SO_EE_ORIGIN_ICMP6)));
        assert_eq!(network_error(&control), Some(111));
        assert_eq!(
            network_error(&message(libc::IPPROTO_IP, libc::IP_RECVERR, &error(113, libc::SO_EE_ORIGIN_ICMP))),
            Some(113)
        );
    }

    #[test]
    fn what_the_system_said_itself_and_what_is_cut_is_no_error_of_the_network() {
        assert_eq!(network_error(&message(libc::IPPROTO_IP, libc::IP_RECVERR, &error(90, 1))), None);
        let whole = message(libc::IPPROTO_IP, libc::IP_RECVERR, &error(111, libc::SO_EE_ORIGIN_ICMP));
        for length in 0..whole.len() {
            assert_eq!(network_error(&whole[..length]), None);
        }
        assert_eq!(network_error(&[0; 64]), None);
    }

    #[test]
    fn nobody_at_a_port_is_told_with_the_destination() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        quinn_udp::UdpSocketState::new((&socket).into()).unwrap().enable_transport_errors((&socket).into()).unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        socket.send_to(b"hello", closed).unwrap();
        let mut errors = Vec::new();
        // Loopback answers within the call.
        assert_eq!(read_errors(&socket, |destination, errno| errors.push((destination, errno))), 1);
        assert_eq!(errors, [(closed, libc::ECONNREFUSED)]);
        assert_eq!(read_errors(&socket, |_, _| ()), 0);
    }
}
