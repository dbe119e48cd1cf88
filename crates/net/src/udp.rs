//! One UDP socket: receives in batches (recvmmsg, GRO), sends in bursts (GSO), with ECN. Where the system gives one datagram
//! per call, a batch is several calls.

use std::{
    cell::RefCell,
    hint::black_box,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Once},
};

use bytes::BytesMut;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use wtio_engine::OutgoingDatagram;

use crate::{
    batch::{self, Batch},
    packets::Packets,
    pipe::Descriptor,
    poller::Poller,
    sending::{Sending, Trouble},
};

/// Size of the kernel's buffers to ask for; the system may grant less.
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;
/// What a system may refuse without being asked for half of it.
const SMALL_KERNEL_BUFFER: usize = 128 * 1024;
/// Free memory that the process keeps at the top of its heap: what a large stream may bring in one batch.
const KEPT_HEAP: usize = 4 * 1024 * 1024;
/// Whether a call receives one datagram or bundle; Linux gives several.
const IS_ONE_BY_ONE: bool = quinn_udp::BATCH_SIZE == 1 || cfg!(feature = "portable");
/// Receive buffers of one call. Each takes one GRO bundle.
const BATCH: usize = if IS_ONE_BY_ONE { 1 } else { 8 };
/// Calls for one batch.
const CALLS: usize = if IS_ONE_BY_ONE { 32 } else { 4 };
/// Bytes up to which a batch takes further calls although they bring several datagrams each: acknowledgments are that small.
const SMALL_BATCH: usize = 4096;
/// Bytes after which a batch ends, if its calls bring bundles.
const BATCH_BYTES: usize = 8 * BUNDLE;
/// Largest UDP payload, and so the largest GRO bundle.
const BUNDLE: usize = 65_535;
/// ICMP errors kept until they are taken.
#[cfg(target_os = "linux")]
const NETWORK_ERRORS: usize = 64;

/// What the system keeps for a socket: bytes of packets that wait to be received, or to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelBuffers {
    /// Asked for, of each.
    pub asked: usize,
    /// Granted for receiving; 0 if the system does not say.
    pub receive: usize,
    /// Granted for sending; 0 if the system does not say.
    pub send: usize,
}

impl KernelBuffers {
    fn of(socket: &UdpSocket) -> Self {
        let socket = SockRef::from(socket);
        // Linux doubles what it grants, for its own bookkeeping, and reports that (socket(7)).
        let share = if cfg!(target_os = "linux") { 2 } else { 1 };
        Self {
            asked: KERNEL_BUFFER,
            receive: socket.recv_buffer_size().unwrap_or(0) / share,
            send: socket.send_buffer_size().unwrap_or(0) / share,
        }
    }
}

/// Facts about a received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Its source.
    pub source: SocketAddr,
    /// The address of ours to which it was sent, if the system reports it.
    pub destination: Option<IpAddr>,
    /// ECN bits of the IP header.
    pub ecn: u8,
}

/// A bound UDP socket.
pub struct UdpEndpoint {
    socket: Plug,
    /// What watches the socket, and under which token; `None`: nothing of ours.
    watch: Option<(Arc<Poller>, u64)>,
    buffer: Box<[u8]>,
    packets: Packets,
    sending: Sending,
    /// Packets that [`UdpEndpoint::post`] was given, and that have not left.
    batch: Batch,
    kernel_buffers: KernelBuffers,
}

/// The socket and what is known about it.
struct Plug {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Datagrams that the kernel accepts in one send call.
    segments: usize,
    /// Whether the system was asked to report ICMP errors in the error queue.
    #[cfg(target_os = "linux")]
    reports_errors: bool,
    /// Whether the error queue was read and found not to be empty. Cleared by [`UdpEndpoint::take_has_read_errors`].
    has_read_errors: bool,
    /// What the network reported: the destination of a packet, and the errno. At most [`NETWORK_ERRORS`].
    network_errors: Vec<(SocketAddr, i32)>,
}

impl std::fmt::Debug for UdpEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpEndpoint").field("socket", &self.socket.socket).finish_non_exhaustive()
    }
}

impl UdpEndpoint {
    /// Bind. `dual_stack` lets an IPv6 wildcard socket serve IPv4 too. With `reports_errors`, failures include those
    /// that the network reports (ICMP).
    ///
    /// # Errors
    /// Those of the system: address in use, not available, no permission.
    pub fn bind(address: SocketAddr, dual_stack: bool, reports_errors: bool) -> io::Result<Self> {
        keep_heap();
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!dual_stack)?;
        }
        ask_for_buffer(|size| socket.set_recv_buffer_size(size));
        ask_for_buffer(|size| socket.set_send_buffer_size(size));
        #[cfg(windows)]
        use_alone(&socket)?;
        socket.bind(&address.into())?;
        Self::new(socket.into(), reports_errors)
    }

    /// Use a socket that is bound already. Its kernel buffers are made larger, if they are small.
    ///
    /// # Errors
    /// For a socket that cannot be used.
    pub fn adopt(socket: UdpSocket, reports_errors: bool) -> io::Result<Self> {
        keep_heap();
        let options = SockRef::from(&socket);
        if options.recv_buffer_size().is_ok_and(|size| size < KERNEL_BUFFER) {
            ask_for_buffer(|size| options.set_recv_buffer_size(size));
        }
        if options.send_buffer_size().is_ok_and(|size| size < KERNEL_BUFFER) {
            ask_for_buffer(|size| options.set_send_buffer_size(size));
        }
        Self::new(socket, reports_errors)
    }

    fn new(socket: UdpSocket, reports_errors: bool) -> io::Result<Self> {
        let kernel_buffers = KernelBuffers::of(&socket);
        let state = state_of(&socket)?;
        // Without these reports, which only Linux has, a connection only notices that nobody answers.
        #[cfg(target_os = "linux")]
        let reports_errors = reports_errors && state.enable_transport_errors(UdpSockRef::from(&socket)).is_ok();
        #[cfg(not(target_os = "linux"))]
        let _ = reports_errors;
        let segments = state.max_gso_segments();
        Ok(Self {
            socket: Plug {
                socket,
                state,
                segments,
                #[cfg(target_os = "linux")]
                reports_errors,
                has_read_errors: false,
                network_errors: Vec::new(),
            },
            watch: None,
            buffer: vec![0; BATCH * BUNDLE].into_boxed_slice(),
            packets: Packets::default(),
            sending: Sending::default(),
            batch: Batch::default(),
            kernel_buffers,
        })
    }

    /// What the system keeps for the socket.
    #[must_use]
    pub fn kernel_buffers(&self) -> KernelBuffers {
        self.kernel_buffers
    }

    /// The address in use.
    ///
    /// # Errors
    /// If the system does not report it.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.socket.local_addr()
    }

    /// What a loop can watch for readiness.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        #[cfg(unix)]
        return std::os::fd::AsRawFd::as_raw_fd(&self.socket.socket);
        #[cfg(windows)]
        return std::os::windows::io::AsRawSocket::as_raw_socket(&self.socket.socket);
    }

    /// The socket, to be polled.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket.socket
    }

    /// Let a poller watch the socket for packets to receive, under this token, until it is closed.
    ///
    /// # Errors
    /// Those of the system, such as no memory.
    pub(crate) fn watch(&mut self, poller: &Arc<Poller>, token: u64) -> io::Result<()> {
        self.unwatch();
        poller.add(&self.socket.socket, token)?;
        self.watch = Some((poller.clone(), token));
        Ok(())
    }

    /// Begin or stop watching for room to send, too.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn want_room(&self, wants: bool) -> io::Result<()> {
        match &self.watch {
            Some((poller, token)) => poller.want_room(&self.socket.socket, *token, wants),
            None => Ok(()),
        }
    }

    fn unwatch(&mut self) {
        if let Some((poller, _)) = self.watch.take() {
            poller.forget(&self.socket.socket);
        }
    }

    /// Datagrams that the kernel accepts in one send call.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.socket.segments
    }

    /// Packets that could not be sent, by errno.
    #[must_use]
    pub fn failures(&self) -> &[(i32, u64)] {
        self.sending.failures()
    }

    /// Whether there are failures to take.
    pub(crate) fn has_troubles(&self) -> bool {
        self.sending.has_troubles() || !self.socket.network_errors.is_empty()
    }

    /// Failures since the last call.
    pub(crate) fn take_troubles(&mut self) -> Vec<Trouble> {
        for (destination, errno) in self.socket.network_errors.drain(..) {
            self.sending.note(destination, errno, true, 0);
        }
        self.sending.take_troubles()
    }

    /// Whether the error queue was read since the last call.
    pub(crate) fn take_has_read_errors(&mut self) -> bool {
        std::mem::take(&mut self.socket.has_read_errors)
    }

    /// Receive one batch and hand out each datagram.
    pub fn receive(&mut self, mut take: impl FnMut(Received, BytesMut)) {
        let (mut bundles, mut bytes, mut is_single) = (0, 0, true);
        for _ in 0..CALLS {
            let mut metas = [RecvMeta::default(); BATCH];
            let count = {
                let mut slices = self.buffer.chunks_mut(BUNDLE).map(IoSliceMut::new).collect::<Vec<_>>();
                match self.socket.state.recv(UdpSockRef::from(&self.socket.socket), &mut slices, &mut metas) {
                    Ok(count) => count,
                    Err(error) => {
                        self.socket.read_errors();
                        if error.kind() == io::ErrorKind::WouldBlock {
                            break;
                        }
                        // An ICMP error came first, which Windows reports as WSAECONNRESET.
                        continue;
                    }
                }
            };
            for (meta, bundle) in metas.iter().take(count).zip(self.buffer.chunks(BUNDLE)) {
                bytes += meta.len;
                is_single &= meta.len <= meta.stride;
                if meta.addr.port() == 0 {
                    // Port 0 cannot be answered (RFC 768, RFC 8085, section 5.1). Such a packet is meant to make sending
                    // fail.
                    continue;
                }
                let received =
                    Received { source: meta.addr, destination: meta.dst_ip, ecn: meta.ecn.map_or(0, |e| e as u8) };
                for datagram in bundle[..meta.len].chunks(meta.stride.max(1)) {
                    take(received, self.packets.copy(datagram));
                }
            }
            bundles += count;
            if bytes >= BATCH_BYTES || (!IS_ONE_BY_ONE && (count < BATCH || bytes > SMALL_BATCH)) {
                break;
            }
        }
        // Not if nothing came at all, which was an error.
        if bundles == 1 && is_single {
            self.packets.shrink();
        }
    }

    /// Send one datagram or burst. False: the socket is full, nothing was sent, and the same has to come next.
    pub fn send(&mut self, outgoing: &OutgoingDatagram<'_>) -> bool {
        self.sending.send(outgoing, |transmit| self.socket.send(transmit))
    }

    /// Send one datagram or burst at the next [`UdpEndpoint::flush`] at the latest. False: the socket is full, and the same
    /// has to come next.
    pub(crate) fn post(&mut self, outgoing: &OutgoingDatagram<'_>) -> bool {
        let suits = self.batch.suits(outgoing);
        if (!suits || self.batch.is_full()) && !self.flush() {
            return false;
        }
        if !suits {
            return self.send(outgoing);
        }
        self.batch.push(outgoing);
        true
    }

    /// Send what was posted. False: the socket is full, and some of it waits on.
    pub(crate) fn flush(&mut self) -> bool {
        let Self { socket, sending, batch, .. } = self;
        // Both need the socket, one after the other.
        let socket = RefCell::new(socket);
        batch.is_empty()
            || batch.flush(
                |packets| socket.borrow_mut().send_together(packets),
                |packet| {
                    sending.send_one(packet, packet.contents, &mut |transmit: &Transmit<'_>| {
                        socket.borrow_mut().send(transmit)
                    })
                },
            )
    }

    /// Whether something that was posted waits for room.
    pub(crate) fn has_output(&self) -> bool {
        !self.batch.is_empty()
    }
}

impl Drop for UdpEndpoint {
    fn drop(&mut self) {
        self.unwatch();
    }
}

impl Plug {
    fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        let result = self.state.try_send(UdpSockRef::from(&self.socket), transmit);
        if result.is_ok() && self.state.max_gso_segments() == self.segments {
            return result;
        }
        self.amend(transmit, result)
    }

    /// Send packets with one call; how many left, the first ones.
    fn send_together(&mut self, packets: &[OutgoingDatagram<'_>]) -> io::Result<usize> {
        let result = batch::send(&self.socket, packets);
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) && self.read_errors() {
            // The error was about an earlier packet; these have not been tried.
            return batch::send(&self.socket, packets);
        }
        result
    }

    /// Handle a packet that was not sent.
    #[cold]
    fn amend(&mut self, transmit: &Transmit<'_>, mut result: io::Result<()>) -> io::Result<()> {
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) && self.read_errors() {
            // The error was about an earlier packet; this one has not been tried.
            result = self.state.try_send(UdpSockRef::from(&self.socket), transmit);
        }
        if self.state.max_gso_segments() != self.segments {
            // quinn-udp has given up bundles and ECN marks, for good and for every destination, because of one packet.
            // A new state starts again with both.
            if let Ok(state) = state_of(&self.socket) {
                self.state = state;
            }
        }
        result
    }

    /// Read the socket's error queue. Returns whether the network has reported an error.
    #[cfg(target_os = "linux")]
    fn read_errors(&mut self) -> bool {
        let mut has_errors = false;
        if self.reports_errors {
            let network_errors = &mut self.network_errors;
            let count = crate::icmp::read_errors(&self.socket, |destination, errno| {
                has_errors = true;
                if network_errors.len() < NETWORK_ERRORS {
                    network_errors.push((destination, errno));
                }
            });
            self.has_read_errors |= count > 0;
        }
        has_errors
    }

    /// Other systems have no queue of errors.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "as on Linux")]
    fn read_errors(&mut self) -> bool {
        false
    }
}

/// Ask for a buffer of the kernel. It is no failure if the system refuses every size; its default applies then. Linux
/// grants what it allows. macOS refuses what is beyond its limit, so it is asked for half of that, and so on.
fn ask_for_buffer(set: impl Fn(usize) -> io::Result<()>) {
    let mut size = KERNEL_BUFFER;
    while set(size).is_err() && size > SMALL_KERNEL_BUFFER {
        size /= 2;
    }
}

/// Keep other programs from binding the same port and taking its packets, which Windows allows by default.
#[cfg(windows)]
#[expect(unsafe_code, reason = "no crate of ours offers this option")]
fn use_alone(socket: &Socket) -> io::Result<()> {
    use std::os::windows::io::AsRawSocket;

    use windows_sys::Win32::Networking::WinSock::{SO_EXCLUSIVEADDRUSE, SOL_SOCKET, setsockopt};

    let on = 1_u32;
    let size = size_of_val(&on) as i32;
    let value = std::ptr::from_ref(&on).cast();
    // SAFETY: the socket is open, and the pointer is to a value of the size given, which the call only reads.
    let result = unsafe { setsockopt(socket.as_raw_socket() as _, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, value, size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Prepare a socket for bundles and ECN.
fn state_of(socket: &UdpSocket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    #[cfg(target_os = "linux")]
    drop_timestamps(socket);
    Ok(state)
}

/// Turn off the time of arrival, which quinn-udp asks for. Nothing needs it, and quinn-udp's buffer for control
/// messages has no room for both that and the ECN bits of a bundle.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate of ours offers this option")]
fn drop_timestamps(socket: &UdpSocket) {
    let off: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the pointer is to a value of the size given, which the call only reads.
    unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(socket),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            std::ptr::from_ref(&off).cast(),
            size_of_val(&off) as libc::socklen_t,
        );
    }
}

/// Keep glibc from returning memory to the system each time a large `bytes` is freed, and from fetching it again, page
/// by page, for the next one, which takes a tenth of a receiver's time. Freeing a large block raises its limit for that
/// (128 KiB at first) to twice the size of the block. So allocate and free one that is never touched.
fn keep_heap() {
    static ONCE: Once = Once::new();
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(KEPT_HEAP / 2))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1200;

    fn endpoint(reports_errors: bool) -> UdpEndpoint {
        UdpEndpoint::bind("127.0.0.1:0".parse().unwrap(), false, reports_errors).unwrap()
    }

    fn send(from: &mut UdpEndpoint, destination: SocketAddr, contents: &[u8]) -> bool {
        let segment_size = (contents.len() > PACKET).then_some(PACKET);
        from.send(&OutgoingDatagram { destination, source: None, ecn: 2, segment_size, contents })
    }

    /// ECN bits and sizes of what arrives.
    fn received(by: &mut UdpEndpoint) -> Vec<(u8, usize)> {
        let mut all = Vec::new();
        by.receive(|meta, datagram| all.push((meta.ecn, datagram.len())));
        all
    }

    #[test]
    fn a_destination_that_fails_changes_nothing_for_the_others() {
        let (mut from, mut to) = (endpoint(false), endpoint(false));
        let destination = to.local_address().unwrap();
        let nowhere = SocketAddr::new(destination.ip(), 0);
        let segments = from.segments();
        assert!(segments > 1, "this kernel has no GSO, and there is nothing to test");
        for _ in 0..1000 {
            assert!(send(&mut from, nowhere, &[0; 3 * PACKET]));
            assert!(send(&mut from, nowhere, &[0; PACKET]));
        }
        assert_eq!(from.failures(), [(libc::EINVAL, 4000)]);
        assert_eq!((from.segments(), from.socket.state.max_gso_segments()), (segments, segments));
        assert!(send(&mut from, destination, &[0; 3 * PACKET]));
        // One bundle, marked.
        assert_eq!(received(&mut to), [(2, PACKET); 3]);
        assert_eq!(from.take_troubles().len(), 1);
        assert!(from.take_troubles().is_empty());
    }

    #[test]
    fn buffers_are_what_was_asked_for_or_what_the_system_allows() {
        let KernelBuffers { asked, receive, send } = endpoint(false).kernel_buffers();
        for (granted, name) in [(receive, "rmem_max"), (send, "wmem_max")] {
            assert!(granted > 0 && granted <= asked, "{granted}");
            if let Ok(most) = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")) {
                assert_eq!(granted, asked.min(most.trim().parse().unwrap()));
            }
        }
    }

    #[test]
    fn packets_of_a_bundle_arrive_with_their_ecn_bits() {
        for ip in ["127.0.0.1", "::1"] {
            let at = SocketAddr::new(ip.parse().unwrap(), 0);
            let Ok(mut from) = UdpEndpoint::bind(at, false, false) else { continue };
            let mut to = UdpEndpoint::bind(at, false, false).unwrap();
            assert!(send(&mut from, to.local_address().unwrap(), &[0; 3 * PACKET]));
            assert_eq!(received(&mut to), [(2, PACKET); 3], "{ip}");
        }
    }

    #[test]
    fn posted_packets_leave_together_in_order_each_to_its_destination() {
        // An IPv6 socket may send to IPv4, too.
        for (source, destination) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")] {
            let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
            let Ok(mut from) = UdpEndpoint::bind(at(source), source == "::", false) else { continue };
            let mut to = [0, 1].map(|_| UdpEndpoint::bind(at(destination), false, false).unwrap());
            let mut destinations = to.each_ref().map(|one| one.local_address().unwrap());
            let named: IpAddr = destination.parse().unwrap();
            for (destination, own) in destinations.iter_mut().zip(&to) {
                let port = own.local_address().unwrap().port();
                if let (IpAddr::V4(ip), "::") = (named, source) {
                    *destination = SocketAddr::new(ip.to_ipv6_mapped().into(), port);
                }
            }
            for number in 0..40u8 {
                let ecn = number % 3;
                // Half of them with the address that they shall come from.
                let source = (number % 4 < 2).then_some(named);
                let destination = destinations[usize::from(number % 2)];
                let contents = &[number; 50][..usize::from(number) + 1];
                let outgoing = OutgoingDatagram { destination, source, ecn, segment_size: None, contents };
                assert!(from.post(&outgoing));
            }
            assert_eq!(from.has_output(), cfg!(target_os = "linux"));
            assert!(from.flush());
            assert!(!from.has_output());
            for (parity, to) in to.iter_mut().enumerate() {
                let mut all = Vec::new();
                for _ in 0..20 {
                    to.receive(|meta, datagram| all.push((meta.ecn, datagram[0], datagram.len())));
                }
                let expected =
                    (0..40u8).filter(|n| usize::from(n % 2) == parity).map(|n| (n % 3, n, usize::from(n) + 1));
                assert_eq!(all, expected.collect::<Vec<_>>(), "{source} to {destination}");
            }
            assert!(from.failures().is_empty());
        }
    }

    #[test]
    fn a_posted_packet_that_fails_takes_no_other_with_it() {
        let (mut from, mut to) = (endpoint(true), endpoint(false));
        let destination = to.local_address().unwrap();
        let nowhere = SocketAddr::new(destination.ip(), 0);
        let closed = endpoint(false).local_address().unwrap();
        for round in 1..=2 {
            for at in [closed, destination, nowhere, destination, nowhere, destination] {
                let outgoing =
                    OutgoingDatagram { destination: at, source: None, ecn: 0, segment_size: None, contents: &[0; 9] };
                assert!(from.post(&outgoing));
            }
            assert!(from.flush());
            assert_eq!(received(&mut to), [(0, 9); 3]);
            // What the network says of the port that is closed is no failure to send.
            assert_eq!(from.failures(), [(libc::EINVAL, 2 * round)]);
            let troubles = from.take_troubles();
            assert!(troubles.iter().any(|trouble| (trouble.destination, trouble.is_remote) == (closed, true)));
        }
    }

    #[test]
    fn a_bundle_leaves_behind_what_was_posted_before() {
        let (mut from, mut to) = (endpoint(false), endpoint(false));
        let destination = to.local_address().unwrap();
        for (size, segment_size) in [(9, None), (2 * PACKET, Some(PACKET)), (8, None)] {
            let contents = &vec![0; size];
            assert!(from.post(&OutgoingDatagram { destination, source: None, ecn: 0, segment_size, contents }));
        }
        assert!(from.flush());
        assert_eq!(received(&mut to), [(0, 9), (0, PACKET), (0, PACKET), (0, 8)]);
    }

    #[test]
    fn an_error_of_an_earlier_packet_does_not_cost_the_next_one() {
        let (mut from, mut to) = (endpoint(true), endpoint(false));
        let closed = endpoint(false).local_address().unwrap();
        let destination = to.local_address().unwrap();
        for _ in 0..100 {
            assert!(send(&mut from, closed, &[0; PACKET]));
            // The socket has an error pending now.
            assert!(send(&mut from, destination, &[0; PACKET]));
            assert_eq!(received(&mut to).len(), 1);
        }
        assert!(from.failures().is_empty());
        let troubles = from.take_troubles();
        assert_eq!(troubles.len(), 1);
        assert_eq!((troubles[0].destination, troubles[0].is_remote), (closed, true));
        assert!(from.take_has_read_errors());
        assert!(!from.take_has_read_errors());
    }

    #[test]
    fn buffers_are_halved_until_the_system_takes_them() {
        let asked = std::cell::RefCell::new(Vec::new());
        let refuse_above = |limit| {
            asked.borrow_mut().clear();
            ask_for_buffer(|size| {
                asked.borrow_mut().push(size);
                if size > limit { Err(io::Error::other("too large")) } else { Ok(()) }
            });
            (asked.borrow().len(), *asked.borrow().last().unwrap())
        };
        assert_eq!(refuse_above(KERNEL_BUFFER), (1, KERNEL_BUFFER));
        assert_eq!(refuse_above(KERNEL_BUFFER - 1), (2, KERNEL_BUFFER / 2));
        assert_eq!(refuse_above(300_000), (5, KERNEL_BUFFER / 16));
        // A system that takes none keeps its own size.
        assert_eq!(refuse_above(0), (6, SMALL_KERNEL_BUFFER));
    }

    #[test]
    fn a_batch_of_small_datagrams_takes_four_times_as_many() {
        let (mut from, mut to) = (endpoint(false), endpoint(false));
        let destination = to.local_address().unwrap();
        let most = if IS_ONE_BY_ONE { CALLS } else { CALLS * BATCH };
        for _ in 0..most + BATCH + 3 {
            assert!(send(&mut from, destination, &[0; 30]));
        }
        assert_eq!(received(&mut to).len(), most);
        assert_eq!(received(&mut to).len(), BATCH + 3);
        assert!(received(&mut to).is_empty());
    }

    #[test]
    fn a_batch_ends_with_what_there_is_or_with_its_limit() {
        let (mut from, mut to) = (endpoint(false), endpoint(false));
        let destination = to.local_address().unwrap();
        let most = if IS_ONE_BY_ONE { CALLS } else { BATCH };
        for _ in 0..most + 3 {
            assert!(send(&mut from, destination, &[0; PACKET]));
        }
        assert_eq!(received(&mut to).len(), most);
        assert_eq!(received(&mut to).len(), 3);
        assert!(received(&mut to).is_empty());
    }

    #[test]
    fn an_error_of_an_earlier_packet_does_not_hide_what_arrives() {
        let (mut from, mut to) = (endpoint(true), endpoint(false));
        let closed = endpoint(false).local_address().unwrap();
        let destination = from.local_address().unwrap();
        assert!(send(&mut from, closed, &[0; PACKET]));
        assert!(send(&mut to, destination, &[0; PACKET]));
        assert_eq!(received(&mut from).len(), 1);
    }
}
