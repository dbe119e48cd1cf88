//! Sending on a socket: in bundles, or packet by packet if bundles fail.
//!
//! A bundle (GSO) can fail although its packets would not: a route through a tunnel may not support bundles. So a
//! bundle that fails is sent again packet by packet. If that works, its address gets no bundles for a while. A failure
//! for one destination does not change what others get.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use quinn_udp::{EcnCodepoint, Transmit};
use wtio_engine::OutgoingDatagram;

/// How long an address gets no bundles before the next one is tried.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// How many addresses are remembered as taking no bundles. Beyond that, the one due next is tried at once.
const PLAIN: usize = 256;
/// Failures kept until they are taken; further ones are only counted.
const TROUBLES: usize = 64;
/// How many values of errno are counted separately, which is more than Linux has for sending.
const ERRNOS: usize = 64;
/// The errno of a packet that is larger than the system sends: on Windows WSAEMSGSIZE, as sockets have numbers of their
/// own there.
pub(crate) const TOO_LARGE: i32 = if cfg!(windows) { 10_040 } else { libc::EMSGSIZE };

/// A failure that the system or the network reported for packets to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) destination: SocketAddr,
    pub(crate) errno: i32,
    /// Reported by a router or the destination itself (ICMP), not by this system.
    pub(crate) is_remote: bool,
    /// Size of the smallest packet concerned, in bytes; 0 if that is not known.
    pub(crate) size: usize,
    pub(crate) count: u64,
}

/// The state of sending on one socket.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// Addresses that take no bundles, with the time after which they are tried again, in order of that time.
    plain: VecDeque<(Instant, IpAddr)>,
    /// How many packets of the bundle refused last have left. That bundle is passed in again first.
    left: usize,
    troubles: Vec<Trouble>,
    /// Packets that could not be sent, by errno.
    failures: Vec<(i32, u64)>,
}

impl Sending {
    /// Send one datagram or bundle through `raw`. False: the socket is full, and the same has to be passed in again.
    pub(crate) fn send(
        &mut self,
        outgoing: &OutgoingDatagram<'_>,
        mut raw: impl FnMut(&Transmit<'_>) -> io::Result<()>,
    ) -> bool {
        let whole = outgoing.contents;
        let Some(size) = outgoing.segment_size.filter(|size| *size < whole.len()) else {
            return self.send_one(outgoing, whole, &mut raw).is_some();
        };
        let left = std::mem::take(&mut self.left);
        if left == 0 && !self.is_plain(outgoing.destination.ip()) {
            match raw(&transmit(outgoing, whole, Some(size))) {
                Ok(()) => return true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {}
            }
            // Its first packet shows whether bundling is at fault.
            match self.send_one(outgoing, &whole[..size], &mut raw) {
                None => return false,
                Some(true) => self.set_plain(outgoing.destination.ip()),
                Some(false) => {}
            }
            return self.send_apart(outgoing, size, 1, &mut raw);
        }
        self.send_apart(outgoing, size, left, &mut raw)
    }

    /// Send the packets of a bundle without the first `skip`.
    fn send_apart(
        &mut self,
        outgoing: &OutgoingDatagram<'_>,
        size: usize,
        skip: usize,
        raw: &mut impl FnMut(&Transmit<'_>) -> io::Result<()>,
    ) -> bool {
        for (index, packet) in outgoing.contents.chunks(size).enumerate().skip(skip) {
            if self.send_one(outgoing, packet, raw).is_none() {
                self.left = index;
                return false;
            }
        }
        true
    }

    /// Whether one packet left. `None`: the socket is full.
    pub(crate) fn send_one(
        &mut self,
        outgoing: &OutgoingDatagram<'_>,
        packet: &[u8],
        raw: &mut impl FnMut(&Transmit<'_>) -> io::Result<()>,
    ) -> Option<bool> {
        match raw(&transmit(outgoing, packet, None)) {
            Ok(()) => Some(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // It counts as a lost packet: QUIC sends its content again, and decides when to give up.
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.count(errno);
                self.note(outgoing.destination, errno, false, packet.len());
                Some(false)
            }
        }
    }

    fn count(&mut self, errno: i32) {
        if let Some((_, count)) = self.failures.iter_mut().find(|(known, _)| *known == errno) {
            *count += 1;
        } else if self.failures.len() < ERRNOS {
            self.failures.push((errno, 1));
        }
    }

    /// Keep a failure for [`Sending::take_troubles`]; equal ones are counted as one.
    pub(crate) fn note(&mut self, destination: SocketAddr, errno: i32, is_remote: bool, size: usize) {
        let alike =
            |one: &&mut Trouble| one.destination == destination && one.errno == errno && one.is_remote == is_remote;
        if let Some(one) = self.troubles.iter_mut().find(alike) {
            one.count += 1;
            one.size = one.size.min(size);
        } else if self.troubles.len() < TROUBLES {
            self.troubles.push(Trouble { destination, errno, is_remote, size, count: 1 });
        }
    }

    pub(crate) fn has_troubles(&self) -> bool {
        !self.troubles.is_empty()
    }

    /// Failures since the last call.
    pub(crate) fn take_troubles(&mut self) -> Vec<Trouble> {
        std::mem::take(&mut self.troubles)
    }

    /// Packets that could not be sent, by errno.
    pub(crate) fn failures(&self) -> &[(i32, u64)] {
        &self.failures
    }

    fn is_plain(&mut self, ip: IpAddr) -> bool {
        if self.plain.is_empty() {
            return false;
        }
        let now = Instant::now();
        while self.plain.front().is_some_and(|(until, _)| *until <= now) {
            self.plain.pop_front();
        }
        self.plain.iter().any(|(_, known)| *known == ip)
    }

    fn set_plain(&mut self, ip: IpAddr) {
        if self.plain.len() >= PLAIN {
            self.plain.pop_front();
        }
        self.plain.push_back((Instant::now() + PROBE_AGAIN, ip));
    }
}

fn transmit<'a>(outgoing: &OutgoingDatagram<'_>, contents: &'a [u8], segment_size: Option<usize>) -> Transmit<'a> {
    Transmit {
        destination: outgoing.destination,
        ecn: EcnCodepoint::from_bits(outgoing.ecn),
        contents,
        segment_size,
        src_ip: outgoing.source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 10;

    fn bundle(destination: &str, contents: &'static [u8]) -> OutgoingDatagram<'static> {
        OutgoingDatagram {
            destination: destination.parse().unwrap(),
            source: None,
            ecn: 2,
            segment_size: Some(SIZE),
            contents,
        }
    }

    fn failed(errno: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(errno))
    }

    /// A system that accepts what `takes` says, and records what it was given.
    fn system<'a>(
        given: &'a mut Vec<(usize, bool)>,
        takes: impl Fn(&Transmit<'_>) -> io::Result<()> + 'a,
    ) -> impl FnMut(&Transmit<'_>) -> io::Result<()> + 'a {
        move |transmit| {
            given.push((transmit.contents.len(), transmit.segment_size.is_some()));
            takes(transmit)
        }
    }

    #[test]
    fn a_destination_that_takes_no_bundles_gets_packets_and_the_others_bundles() {
        let mut sending = Sending::default();
        let mut given = Vec::new();
        let tunnel: IpAddr = "10.0.0.1".parse().unwrap();
        let takes = |transmit: &Transmit<'_>| {
            if transmit.segment_size.is_some() && transmit.destination.ip() == tunnel {
                failed(libc::EIO)
            } else {
                Ok(())
            }
        };
        for _ in 0..2 {
            assert!(sending.send(&bundle("10.0.0.1:4433", &[0; 25]), system(&mut given, takes)));
            assert!(sending.send(&bundle("10.0.0.2:4433", &[0; 25]), system(&mut given, takes)));
        }
        let apart = [(10, false), (10, false), (5, false)];
        let mut expected = vec![(25, true)];
        expected.extend(apart);
        expected.push((25, true));
        // The next time, it is not even tried there.
        expected.extend(apart);
        expected.push((25, true));
        assert_eq!(given, expected);
        assert!(sending.take_troubles().is_empty(), "nothing was lost");
    }

    #[test]
    fn bundles_are_tried_again_later() {
        let mut sending = Sending::default();
        let mut given = Vec::new();
        sending.plain.push_back((Instant::now(), "10.0.0.1".parse().unwrap()));
        assert!(sending.send(&bundle("10.0.0.1:4433", &[0; 25]), system(&mut given, |_| Ok(()))));
        assert_eq!(given, [(25, true)]);
    }

    #[test]
    fn a_destination_that_takes_nothing_says_nothing_about_bundles() {
        let mut sending = Sending::default();
        let mut given = Vec::new();
        let fails = |_: &Transmit<'_>| failed(libc::EINVAL);
        assert!(sending.send(&bundle("10.0.0.1:4433", &[0; 25]), system(&mut given, fails)));
        given.clear();
        assert!(sending.send(&bundle("10.0.0.1:4433", &[0; 25]), system(&mut given, |_| Ok(()))));
        assert_eq!(given, [(25, true)]);
        assert_eq!(sending.failures(), [(libc::EINVAL, 3)]);
        let troubles = sending.take_troubles();
        assert_eq!((troubles.len(), troubles[0].count, troubles[0].size), (1, 3, 5));
    }

    #[test]
    fn a_socket_that_fills_up_between_two_packets_gets_each_of_them_once() {
        let mut sending = Sending::default();
        sending.set_plain("10.0.0.1".parse().unwrap());
        let mut sent = Vec::new();
        let contents: &'static [u8] = b"aaaaaaaaaabbbbbbbbbbccccc";
        for room in [1, 0, 1, 9] {
            let mut room = room;
            let is_done = sending.send(&bundle("10.0.0.1:4433", contents), |transmit: &Transmit<'_>| {
                if room == 0 {
                    return failed(libc::EAGAIN);
                }
                room -= 1;
                sent.push(transmit.contents[0]);
                Ok(())
            });
            assert_eq!(is_done, sent.len() == 3);
        }
        assert_eq!(sent, b"abc");
    }

    #[test]
    fn what_is_remembered_of_destinations_is_bounded() {
        let mut sending = Sending::default();
        for number in 0..2000u16 {
            let [high, low] = number.to_be_bytes();
            sending.set_plain([10, 0, high, low].into());
            sending.note(SocketAddr::from(([10, 0, high, low], 4433)), 1, true, 0);
            sending.count(i32::from(number));
        }
        assert!(sending.plain.len() <= PLAIN);
        assert!(sending.troubles.len() <= TROUBLES);
        assert!(sending.failures.len() <= ERRNOS);
    }
}
