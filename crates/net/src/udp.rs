//! One UDP socket: received in batches (recvmmsg, GRO), sent in bursts (GSO), with ECN.

use std::{
    hint::black_box,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Once,
};

use bytes::BytesMut;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use wtio_engine::OutgoingDatagram;

use crate::packets::Packets;

/// Kernel buffers asked for; the system may grant less.
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;
/// Free memory that the process keeps at the top of its heap: what a large stream may bring in a turn.
const KEPT_HEAP: usize = 4 * 1024 * 1024;
/// Receive buffers of one batch. Each takes one GRO bundle.
const BATCH: usize = 8;
/// Largest UDP payload, and so the largest GRO bundle.
const BUNDLE: usize = 65_535;

/// What came with a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// From where.
    pub source: SocketAddr,
    /// To which of our addresses, where the system tells.
    pub destination: Option<IpAddr>,
    /// ECN bits of the IP header.
    pub ecn: u8,
}

/// A bound UDP socket.
pub struct UdpEndpoint {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Box<[u8]>,
    packets: Packets,
}

impl std::fmt::Debug for UdpEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpEndpoint").field("fd", &self.socket.as_raw_fd()).finish_non_exhaustive()
    }
}

impl UdpEndpoint {
    /// Bind. `dual_stack` lets an IPv6 wildcard socket serve IPv4 too.
    ///
    /// # Errors
    /// Whatever the system answers: address in use, not available, no permission.
    pub fn bind(address: SocketAddr, dual_stack: bool) -> io::Result<Self> {
        keep_heap();
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!dual_stack)?;
        }
        // Refused sizes are no failure: the system's limits stay in force.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket, state, buffer: vec![0; BATCH * BUNDLE].into_boxed_slice(), packets: Packets::default() })
    }

    /// The address in use.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// File descriptor, to be watched for readiness.
    #[must_use]
    pub fn file_descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The socket, to be polled.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Datagrams the kernel takes in one send call; falls to 1 where it turns out to take no bursts.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Receive one batch and hand out each datagram.
    pub fn receive(&mut self, mut take: impl FnMut(Received, BytesMut)) {
        let mut metas = [RecvMeta::default(); BATCH];
        let count = {
            let mut slices = self.buffer.chunks_mut(BUNDLE).map(IoSliceMut::new).collect::<Vec<_>>();
            match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas) {
                Ok(count) => count,
                // Errors of earlier sends (ICMP) surface here; the batch is empty either way.
                Err(_) => return,
            }
        };
        for (meta, bundle) in metas.iter().take(count).zip(self.buffer.chunks(BUNDLE)) {
            let received =
                Received { source: meta.addr, destination: meta.dst_ip, ecn: meta.ecn.map_or(0, |e| e as u8) };
            for datagram in bundle[..meta.len].chunks(meta.stride.max(1)) {
                take(received, self.packets.copy(datagram));
            }
        }
        if count <= 1 && metas[0].len <= metas[0].stride {
            self.packets.shrink();
        }
    }

    /// Send one datagram or burst. False: the socket is full, nothing was sent.
    pub fn send(&self, outgoing: &OutgoingDatagram<'_>) -> bool {
        let transmit = Transmit {
            destination: outgoing.destination,
            ecn: EcnCodepoint::from_bits(outgoing.ecn),
            contents: outgoing.contents,
            segment_size: outgoing.segment_size,
            src_ip: outgoing.source,
        };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // Any other failure is a lost packet: QUIC repeats it, and gives up in its own time.
            _ => true,
        }
    }
}

/// Keep glibc from giving memory back to the system each time a large `bytes` is let go, to fetch it again, page by page,
/// for the next: a tenth of a receiver's time. Whoever frees a large block teaches it to expect more of them (its limit
/// for that, 128 KiB at first, becomes twice the size of the block), so free one that nobody ever touched.
fn keep_heap() {
    static ONCE: Once = Once::new();
    if cfg!(target_env = "gnu") {
        ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(KEPT_HEAP / 2))));
    }
}
