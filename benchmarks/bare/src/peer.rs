//! One UDP socket, one QUIC endpoint, a blocking loop. All settings are wtio's defaults.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, Transmit, TransportConfig, VarInt, congestion::CubicConfig,
};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

const KERNEL_BUFFER: usize = 4 * 1024 * 1024;
const BATCH: usize = 8;
const BATCHES_PER_TURN: usize = 8;
const BUNDLE: usize = 65_535;
const SEGMENTS: usize = 32;
const BURSTS_PER_TURN: usize = 8;

pub fn transport() -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(1452);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(IdleTimeout::try_from(Duration::from_secs(30)).ok())
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .max_concurrent_bidi_streams(VarInt::from_u32(128))
        .max_concurrent_uni_streams(VarInt::from_u32(128))
        .stream_receive_window(VarInt::from_u32(1024 * 1024))
        .receive_window(VarInt::from_u32(16 * 1024 * 1024))
        .send_window(4 * 1024 * 1024)
        .send_fairness(true)
        .initial_mtu(1200)
        .mtu_discovery_config(Some(discovery))
        .datagram_receive_buffer_size(Some(1024 * 1024))
        .datagram_send_buffer_size(24 * 1024)
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    Arc::new(config)
}

struct Entry {
    inner: Connection,
    timer: Option<Instant>,
    is_listed: bool,
}

/// An endpoint with its connections.
pub struct Peer {
    socket: UdpSocket,
    state: UdpSocketState,
    endpoint: Endpoint,
    connections: HashMap<ConnectionHandle, Entry>,
    /// Connections that may have packets or events.
    listed: VecDeque<ConnectionHandle>,
    /// What a full socket refused; it goes first.
    held: VecDeque<(Transmit, Vec<u8>)>,
    pub events: VecDeque<(ConnectionHandle, Event)>,
    received: Box<[u8]>,
    buffer: Vec<u8>,
}

impl Peer {
    pub fn new(server: Option<ServerConfig>) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Refused sizes are no failure: the system's limits stay in force.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            socket,
            state,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), server.map(Arc::new), true, None),
            connections: HashMap::new(),
            listed: VecDeque::new(),
            held: VecDeque::new(),
            events: VecDeque::new(),
            received: vec![0; BATCH * BUNDLE].into_boxed_slice(),
            buffer: Vec::with_capacity(BUNDLE),
        })
    }

    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    pub fn connect(&mut self, config: ClientConfig, server: SocketAddr) -> io::Result<ConnectionHandle> {
        let (handle, inner) =
            self.endpoint.connect(Instant::now(), config, server, "127.0.0.1").map_err(io::Error::other)?;
        self.add(handle, inner);
        Ok(handle)
    }

    /// The connection, which will be asked for packets in the next iteration.
    pub fn connection(&mut self, handle: ConnectionHandle) -> Option<&mut Connection> {
        let entry = self.connections.get_mut(&handle)?;
        if !entry.is_listed {
            entry.is_listed = true;
            self.listed.push_back(handle);
        }
        Some(&mut entry.inner)
    }

    /// Send what wants to leave; then, unless something happened already, wait and receive. False: `other` is readable.
    pub fn iterate(&mut self, other: Option<BorrowedFd<'_>>, limit: Option<Instant>) -> io::Result<bool> {
        self.flush();
        if !self.events.is_empty() {
            return Ok(true);
        }
        let is_waiting = self.listed.is_empty() || !self.held.is_empty();
        let timer = self.connections.values().filter_map(|entry| entry.timer).chain(limit).min();
        let pause = match timer {
            _ if !is_waiting => Some(Duration::ZERO),
            Some(at) => Some(at.saturating_duration_since(Instant::now())),
            None => None,
        };
        let pause = pause.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
        let interest = if self.held.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut watched = vec![PollFd::from_borrowed_fd(self.socket.as_fd(), interest)];
        watched.extend(other.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN)));
        poll(&mut watched, pause.as_ref())?;
        let is_readable = watched[0].revents().contains(PollFlags::IN);
        let is_over = watched.get(1).is_some_and(|descriptor| !descriptor.revents().is_empty());
        if is_readable {
            self.receive();
        }
        Ok(!is_over)
    }

    fn add(&mut self, handle: ConnectionHandle, inner: Connection) {
        self.connections.insert(handle, Entry { inner, timer: None, is_listed: true });
        self.listed.push_back(handle);
    }

    fn receive(&mut self) {
        let now = Instant::now();
        for _ in 0..BATCHES_PER_TURN {
            let mut metas = [RecvMeta::default(); BATCH];
            let mut slices: Vec<_> = self.received.chunks_mut(BUNDLE).map(IoSliceMut::new).collect();
            // Errors of earlier sends (ICMP) surface here; the batch is empty either way.
            let count = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas).unwrap_or(0);
            for (index, meta) in metas.iter().take(count).enumerate() {
                for start in (0..meta.len).step_by(meta.stride.max(1)) {
                    let end = meta.len.min(start + meta.stride.max(1));
                    let datagram = BytesMut::from(&self.received[index * BUNDLE + start..index * BUNDLE + end]);
                    self.take(now, meta, datagram);
                }
            }
            if count < BATCH {
                break;
            }
        }
    }

    fn take(&mut self, now: Instant, meta: &RecvMeta, datagram: BytesMut) {
        self.buffer.clear();
        let ecn = meta.ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
        match self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut self.buffer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(inner) = self.connection(handle) {
                    inner.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.buffer.clear();
                match self.endpoint.accept(incoming, now, &mut self.buffer, None) {
                    Ok((handle, inner)) => self.add(handle, inner),
                    Err(error) => self.held.extend(error.response.map(|answer| (answer, self.buffer.clone()))),
                }
            }
            Some(DatagramEvent::Response(answer)) => self.held.push_back((answer, self.buffer.clone())),
            None => {}
        }
    }

    fn flush(&mut self) {
        while let Some((transmit, contents)) = self.held.front() {
            if !send(&self.socket, &self.state, transmit, contents) {
                return;
            }
            self.held.pop_front();
        }
        let now = Instant::now();
        for (handle, entry) in &mut self.connections {
            if entry.timer.is_some_and(|at| at <= now) {
                entry.inner.handle_timeout(now);
                if !entry.is_listed {
                    entry.is_listed = true;
                    self.listed.push_back(*handle);
                }
            }
        }
        let segments = self.state.max_gso_segments().min(SEGMENTS);
        for _ in 0..self.listed.len() {
            let Some(handle) = self.listed.pop_front() else { break };
            let Some(entry) = self.connections.get_mut(&handle) else { continue };
            let mut is_idle = false;
            settle(&mut self.endpoint, handle, &mut entry.inner);
            for _ in 0..BURSTS_PER_TURN {
                self.buffer.clear();
                let Some(transmit) = entry.inner.poll_transmit(now, segments, &mut self.buffer) else {
                    is_idle = true;
                    break;
                };
                let contents = &self.buffer[..transmit.size];
                if !send(&self.socket, &self.state, &transmit, contents) {
                    self.held.push_back((transmit, contents.to_vec()));
                    break;
                }
            }
            settle(&mut self.endpoint, handle, &mut entry.inner);
            while let Some(event) = entry.inner.poll() {
                self.events.push_back((handle, event));
            }
            entry.timer = entry.inner.poll_timeout();
            entry.is_listed = !is_idle;
            if entry.inner.is_drained() {
                self.connections.remove(&handle);
            } else if !is_idle {
                self.listed.push_back(handle);
            }
            if !self.held.is_empty() {
                return;
            }
        }
    }
}

fn settle(endpoint: &mut Endpoint, handle: ConnectionHandle, inner: &mut Connection) {
    while let Some(event) = inner.poll_endpoint_events() {
        if let Some(event) = endpoint.handle_event(handle, event) {
            inner.handle_event(event);
        }
    }
}

/// False: the socket is full.
fn send(socket: &UdpSocket, state: &UdpSocketState, transmit: &Transmit, contents: &[u8]) -> bool {
    let outgoing = quinn_udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
        contents,
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    };
    match state.try_send(UdpSockRef::from(socket), &outgoing) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        // Any other failure is a lost packet, which QUIC repeats.
        _ => true,
    }
}
