//! The adapter to the QUIC core, quinn-proto. No other module names its types.

mod allowance;
mod congestion;
mod connection;
mod ecn;
pub(crate) mod frames;
mod handshake;
mod keys;
mod opened;
mod progress;
mod tap;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, ConnectionError, ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig},
};
use rustc_hash::FxHashMap;
use rustls::pki_types::CertificateDer;

use self::{
    allowance::Allowance,
    congestion::TolerantConfig,
    connection::Conn,
    handshake::{ClientCrypto, ServerCrypto, TapHandle},
};
use crate::{
    config::Options,
    error::SetupError,
    event::{CloseCause, ConnectionFacts, Event, Untaken},
    session::{Credit, DatagramStats, SessionLimits},
    stream::{ReadOutcome, ReceiveState, SendState, StreamStats},
    tls::{ClientTls, ServerTls},
};

/// RFC 9000.
const QUIC_VERSION: u32 = 1;
/// Room for the address-validation and reset answers of an endpoint that a full socket may hold back.
const ANSWER_LIMIT: usize = 1024;
/// Bursts one connection may send before the next has its turn.
const BURSTS_PER_TURN: usize = 8;
/// Timers that may lie about, set anew since, apart from two for each connection.
const SPARE_TIMERS: usize = 64;
/// Bytes of datagrams inside the core: a few bursts. The rest waits in the engine, where its age is watched.
const CORE_DATAGRAM_BUFFER: usize = 24 * 1024;

/// UDP payload on its way out: one datagram, or several of `segment_size` for the kernel to cut.
#[derive(Debug)]
pub struct OutgoingDatagram<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// From which of our addresses, where it matters.
    pub source: Option<IpAddr>,
    /// ECN bits of the IP header.
    pub ecn: u8,
    /// Size of each datagram in `contents`, the last may be shorter; `None` for a single one.
    pub segment_size: Option<usize>,
    /// The bytes.
    pub contents: &'a [u8],
}

#[derive(Debug)]
struct Held {
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: u8,
    segment_size: Option<usize>,
    contents: Vec<u8>,
}

impl Held {
    fn new(transmit: &quinn_proto::Transmit, ecn: u8, buffer: &[u8]) -> Self {
        Self {
            destination: transmit.destination,
            source: transmit.src_ip,
            ecn,
            segment_size: transmit.segment_size,
            contents: buffer[..transmit.size].to_vec(),
        }
    }

    fn view(&self) -> OutgoingDatagram<'_> {
        OutgoingDatagram {
            destination: self.destination,
            source: self.source,
            ecn: self.ecn,
            segment_size: self.segment_size,
            contents: &self.contents,
        }
    }
}

/// Figures of a connection.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct ConnectionStats {
    pub rtt: Duration,
    pub min_rtt: Duration,
    pub congestion_window: u64,
    pub congestion_events: u64,
    pub mtu: u16,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub packets_received: u64,
    /// ACK frames of the peer's, from packets that were decrypted.
    pub acks_received: u64,
    pub packets_lost: u64,
    pub bytes_lost: u64,
    pub send_calls: u64,
}

/// Name what the core reports as the end of a connection.
pub(crate) fn describe(error: ConnectionError) -> (CloseCause, u64, String) {
    /// RFC 9001, section 4.8: TLS alerts are transport errors 0x100 to 0x1ff.
    fn tls(code: u64) -> Option<u64> {
        code.checked_sub(0x100).filter(|alert| *alert < 0x100)
    }
    const CONNECTION_REFUSED: u64 = 0x2;
    match error {
        ConnectionError::VersionMismatch => (CloseCause::Version, 0, "the peer speaks no QUIC version 1".into()),
        ConnectionError::TransportError(e) => {
            let code = u64::from(e.code);
            match tls(code) {
                Some(alert) => (CloseCause::Tls, alert, e.reason),
                None => (CloseCause::Protocol, code, e.to_string()),
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            match tls(code) {
                Some(alert) => (CloseCause::Tls, alert, reason),
                None if code == CONNECTION_REFUSED => (CloseCause::Refused, code, reason),
                None => (CloseCause::Transport, code, reason),
            }
        }
        ConnectionError::ApplicationClosed(close) => {
            (CloseCause::Application, close.error_code.into(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        ConnectionError::Reset => (CloseCause::Reset, 0, "stateless reset by the peer".into()),
        ConnectionError::TimedOut => (CloseCause::Idle, 0, "no packet within the idle timeout".into()),
        ConnectionError::LocallyClosed => (CloseCause::Local, 0, String::new()),
        ConnectionError::CidsExhausted => (CloseCause::Protocol, 0, "connection ids are exhausted".into()),
    }
}

fn transport(options: &Options) -> Result<TransportConfig, SetupError> {
    let varint = |value: u64| VarInt::from_u64(value).unwrap_or(VarInt::MAX);
    let mut config = TransportConfig::default();
    let idle = if options.idle_timeout.is_zero() {
        None
    } else {
        Some(
            IdleTimeout::try_from(options.idle_timeout)
                .map_err(|e| SetupError::Option(format!("idle timeout: {e}")))?,
        )
    };
    let congestion: Arc<dyn ControllerFactory + Send + Sync> = match options.congestion.as_str() {
        "tolerant" => Arc::new(TolerantConfig),
        "cubic" => Arc::new(CubicConfig::default()),
        "bbr" => Arc::new(BbrConfig::default()),
        "newreno" => Arc::new(NewRenoConfig::default()),
        other => {
            return Err(SetupError::Option(format!(
                "congestion control `{other}` is unknown; use `tolerant`, `cubic`, `newreno` or `bbr`"
            )));
        }
    };
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(options.max_mtu);
    config
        .max_idle_timeout(idle)
        .keep_alive_interval(options.keep_alive)
        .max_concurrent_bidi_streams(varint(options.max_bidirectional_streams))
        .max_concurrent_uni_streams(varint(options.max_unidirectional_streams))
        .stream_receive_window(varint(options.stream_receive_window))
        .receive_window(varint(options.connection_receive_window))
        .send_window(options.connection_send_buffer as u64)
        .send_fairness(true)
        .initial_mtu(options.initial_mtu)
        .mtu_discovery_config((options.max_mtu > options.initial_mtu).then_some(discovery))
        .datagram_receive_buffer_size(Some(options.datagram_receive_buffer))
        .datagram_send_buffer_size(CORE_DATAGRAM_BUFFER.max(2 * usize::from(options.max_mtu)))
        .congestion_controller_factory(congestion)
        .enable_segmentation_offload(options.gso);
    Ok(config)
}

/// An endpoint: all connections that share one UDP socket, real or simulated.
pub struct Engine {
    endpoint: quinn_proto::Endpoint,
    options: Arc<Options>,
    transport: Arc<TransportConfig>,
    /// Boxed, for most of a table's slots are empty.
    connections: FxHashMap<u64, Box<Conn>>,
    ids: FxHashMap<ConnectionHandle, u64>,
    next_id: u64,
    /// Connections with something to do.
    dirty: VecDeque<u64>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    answers: VecDeque<Held>,
    buffer: Vec<u8>,
    events: Untaken,
    is_server: bool,
    is_refusing: bool,
    has_drained: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Make an engine; with `server`, it accepts connections.
    ///
    /// # Errors
    /// For a TLS configuration or an option that the QUIC core refuses.
    pub fn new(options: Options, server: Option<&ServerTls>) -> Result<Self, SetupError> {
        let transport = Arc::new(transport(&options)?);
        let mut config = EndpointConfig::default();
        config.rng_seed(options.seed);
        config.supported_versions(vec![QUIC_VERSION]);
        let server = match server {
            None => None,
            Some(tls) => {
                let mut server = ServerConfig::with_crypto(Arc::new(ServerCrypto::new(tls, options.reset_stream_at)?));
                server.transport_config(transport.clone());
                Some(Arc::new(server))
            }
        };
        Ok(Self {
            is_server: server.is_some(),
            endpoint: quinn_proto::Endpoint::new(Arc::new(config), server, true, None),
            options: Arc::new(options),
            transport,
            connections: FxHashMap::default(),
            ids: FxHashMap::default(),
            next_id: 0,
            dirty: VecDeque::new(),
            timers: BinaryHeap::new(),
            answers: VecDeque::new(),
            buffer: Vec::new(),
            events: Untaken::default(),
            is_refusing: false,
            has_drained: false,
        })
    }

    // ---------------------------------------------------------------- in and out

    /// Take one UDP payload from the network. Nothing is sent before [`Engine::process`].
    pub fn receive(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>, ecn: u8, data: BytesMut) {
        self.buffer.clear();
        self.events.bound();
        let ecn = EcnCodepoint::from_bits(ecn & 0b11);
        let size = data.len();
        match self.endpoint.handle(now, remote, local, ecn, data, &mut self.buffer) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(&id) = self.ids.get(&handle) else { return };
                let Some(conn) = self.connections.get_mut(&id) else { return };
                if let Some(allowance) = &mut conn.allowance {
                    allowance.receive(remote, size);
                }
                conn.inner.handle_event(event);
                if let Some(allowance) = &mut conn.allowance {
                    allowance.review(now, &conn.inner, &conn.tap);
                }
                conn.poll_events(now, &mut self.events.list);
                self.mark(id);
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let present = self.connections.len().max(self.events.incoming());
                if self.is_refusing || present >= self.options.max_connections {
                    let transmit = self.endpoint.refuse(incoming, &mut self.buffer);
                    self.answer(&transmit);
                    return;
                }
                match self.endpoint.accept(incoming, now, &mut self.buffer, None) {
                    Ok((handle, inner)) => {
                        let id = self.insert(handle, inner);
                        self.events.push_incoming(id);
                        if let Some(conn) = self.connections.get_mut(&id) {
                            conn.allowance = Some(Allowance::new(&conn.inner, size));
                            conn.poll_events(now, &mut self.events.list);
                        }
                    }
                    Err(error) => {
                        if let Some(transmit) = error.response {
                            self.answer(&transmit);
                        }
                    }
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit),
        }
    }

    fn answer(&mut self, transmit: &quinn_proto::Transmit) {
        if self.answers.len() < ANSWER_LIMIT {
            self.answers.push_back(Held::new(transmit, 0, &self.buffer));
        }
    }

    fn insert(&mut self, handle: ConnectionHandle, inner: quinn_proto::Connection) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert(handle, id);
        self.connections.insert(id, Box::new(Conn::new(id, handle, inner, self.options.clone())));
        self.mark(id);
        id
    }

    fn mark(&mut self, id: u64) {
        if let Some(conn) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut conn.listed, true)
        {
            self.dirty.push_back(id);
        }
    }

    /// Whether [`Engine::process`] has something to do apart from timers.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.answers.is_empty() || !self.events.list.is_empty()
    }

    /// Whether packets want to leave (or may: a connection was touched).
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.dirty.is_empty() || !self.answers.is_empty()
    }

    /// Whether events wait to be taken.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.list.is_empty()
    }

    /// Whether a connection has died down since the last call, which makes no event.
    pub fn take_drained(&mut self) -> bool {
        std::mem::take(&mut self.has_drained)
    }

    /// Run due timers, hand queued bytes to the core and give packets to `send` until nothing wants to leave or
    /// `send` answers false: the socket is full, and the packet it refused comes first next time. `bursts` bounds
    /// the number of calls. Returns whether everything left.
    pub fn process(
        &mut self,
        now: Instant,
        segments: usize,
        mut bursts: usize,
        mut send: impl FnMut(&OutgoingDatagram<'_>) -> bool,
    ) -> bool {
        let largest = usize::from(self.options.max_mtu);
        self.run_timers(now);
        while let Some(answer) = self.answers.front() {
            if bursts == 0 || !send(&answer.view()) {
                return false;
            }
            bursts -= 1;
            self.answers.pop_front();
        }
        while let Some(id) = self.dirty.pop_front() {
            let Some(conn) = self.connections.get_mut(&id) else { continue };
            conn.listed = false;
            conn.wants_transmit = false;
            Self::settle_endpoint(&mut self.endpoint, conn);
            conn.poll_events(now, &mut self.events.list);
            let mut turn = BURSTS_PER_TURN;
            let mut is_idle = false;
            while turn > 0 && bursts > 0 {
                conn.flush(now, &mut self.events.list);
                let segments = match &mut conn.allowance {
                    Some(allowance) => allowance.datagrams(now, &conn.inner, largest, segments),
                    None => segments,
                };
                self.buffer.clear();
                let transmit = match segments {
                    0 => None,
                    _ => conn.inner.poll_transmit(now, segments, &mut self.buffer),
                };
                let Some(transmit) = transmit else {
                    is_idle = true;
                    break;
                };
                if let Some(allowance) = &mut conn.allowance
                    && !allowance.send(now, transmit.destination, transmit.size)
                {
                    continue;
                }
                turn -= 1;
                bursts -= 1;
                let ecn = conn.marking.bits(now, &transmit, &mut conn.inner, &conn.tap);
                let outgoing = OutgoingDatagram {
                    destination: transmit.destination,
                    source: transmit.src_ip,
                    ecn,
                    segment_size: transmit.segment_size,
                    contents: &self.buffer[..transmit.size],
                };
                if !send(&outgoing) {
                    self.answers.push_front(Held::new(&transmit, ecn, &self.buffer));
                    bursts = 0;
                    break;
                }
            }
            Self::settle_endpoint(&mut self.endpoint, conn);
            conn.poll_events(now, &mut self.events.list);
            conn.wake_writers(&mut self.events.list);
            let timer = conn.inner.poll_timeout();
            if timer != conn.timer {
                conn.timer = timer;
                if let Some(at) = timer {
                    self.timers.push(Reverse((at, id)));
                }
            }
            if conn.inner.is_drained() {
                self.has_drained = true;
                // The core gives the handle of a drained connection to the next one: only our own entry may go.
                if self.ids.get(&conn.handle) == Some(&id) {
                    self.ids.remove(&conn.handle);
                }
                if conn.is_unreferenced() {
                    self.connections.remove(&id);
                }
                continue;
            }
            // What was settled just now may have to be sent, such as a reset that was held.
            if !is_idle || std::mem::take(&mut conn.wants_transmit) {
                self.mark(id);
                if bursts == 0 {
                    return false;
                }
            }
        }
        true
    }

    fn settle_endpoint(endpoint: &mut quinn_proto::Endpoint, conn: &mut Conn) {
        if conn.is_settled {
            return;
        }
        conn.is_settled = conn.inner.is_drained();
        while let Some(event) = conn.inner.poll_endpoint_events() {
            if let Some(event) = endpoint.handle_event(conn.handle, event) {
                conn.inner.handle_event(event);
            }
        }
    }

    /// Drop timers that were set anew since, before they outnumber the connections: each packet moves one.
    fn sweep_timers(&mut self) {
        if self.timers.len() > 2 * self.connections.len() + SPARE_TIMERS {
            self.timers
                .retain(|Reverse((at, id))| self.connections.get(id).is_some_and(|conn| conn.timer == Some(*at)));
        }
    }

    fn run_timers(&mut self, now: Instant) {
        self.sweep_timers();
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            let is_current = self.connections.get(&id).is_some_and(|conn| conn.timer == Some(at));
            if is_current && at > now {
                break;
            }
            self.timers.pop();
            if is_current && let Some(conn) = self.connections.get_mut(&id) {
                conn.timer = None;
                conn.inner.handle_timeout(now);
                self.mark(id);
            }
        }
    }

    /// When [`Engine::process`] must run next, if nothing happens before.
    pub fn next_timer(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, id))) = self.timers.peek() {
            if self.connections.get(id).is_some_and(|conn| conn.timer == Some(*at)) {
                return Some(*at);
            }
            self.timers.pop();
        }
        None
    }

    /// Everything that happened since the last call.
    pub fn take_events(&mut self, into: &mut Vec<Event>) {
        self.events.take(into);
    }

    // ---------------------------------------------------------------- connections

    /// Begin a connection.
    ///
    /// # Errors
    /// For a server name, an address or a TLS configuration that cannot be used.
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        server_name: &str,
        tls: &ClientTls,
    ) -> Result<u64, SetupError> {
        let mut config = ClientConfig::new(Arc::new(ClientCrypto::new(tls, self.options.reset_stream_at)?));
        config.transport_config(self.transport.clone());
        let (handle, inner) = self
            .endpoint
            .connect(now, config, remote, server_name)
            .map_err(|e| SetupError::Destination(e.to_string()))?;
        Ok(self.insert(handle, inner))
    }

    /// What was sent to `remote` cannot be delivered, says the system or (`is_remote`) the network. Reports
    /// [`Event::Unreachable`] for those of our connections that have just begun and heard nothing from there; an established
    /// one goes on, for what fails now may work again. Whether there was one.
    pub fn note_unreachable(&mut self, remote: SocketAddr, errno: i32, is_remote: bool) -> bool {
        let mut is_ours = false;
        for conn in self.connections.values() {
            let at = conn.inner.remote_address();
            if (at.ip(), at.port()) == (remote.ip(), remote.port())
                && conn.is_client()
                && !conn.is_connected
                && !conn.is_closed
                && conn.inner.stats().udp_rx.datagrams == 0
            {
                is_ours = true;
                self.events.list.push(Event::Unreachable { connection: conn.id, errno, is_remote });
            }
        }
        self.events.bound();
        is_ours
    }

    /// Whether this side accepts connections.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.is_server
    }

    /// Forget all connections at once, without a word to anybody: what they are made of cannot be relied on any more.
    pub fn abandon(&mut self) {
        let connections = std::mem::take(&mut self.connections);
        self.ids.clear();
        self.dirty.clear();
        self.timers.clear();
        self.answers.clear();
        drop(connections);
    }

    /// Turn away new connections from now on.
    pub fn refuse_new(&mut self) {
        self.is_refusing = true;
    }

    /// Connections not fully gone.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.values().filter(|conn| !conn.inner.is_drained()).count()
    }

    /// Close a connection with an application error code.
    pub fn close(&mut self, now: Instant, id: u64, code: u64, reason: &[u8]) {
        let Some(conn) = self.connections.get_mut(&id) else { return };
        if conn.is_closed {
            return;
        }
        conn.poll_events(now, &mut self.events.list);
        conn.flush(now, &mut self.events.list);
        conn.inner.close(now, connection::wire(code), Bytes::copy_from_slice(reason));
        let reason = String::from_utf8_lossy(reason).into_owned();
        conn.lose(now, CloseCause::Local, code, reason, &mut self.events.list);
        self.mark(id);
    }

    /// The peer's address.
    #[must_use]
    pub fn remote_address(&self, id: u64) -> Option<SocketAddr> {
        self.connections.get(&id).map(|conn| conn.inner.remote_address())
    }

    /// SNI name the client sent (server only, once the handshake has begun).
    #[must_use]
    pub fn server_name(&self, id: u64) -> Option<String> {
        let data = self.connections.get(&id)?.inner.crypto_session().handshake_data()?;
        data.downcast::<TapHandle>().ok()?.server_name
    }

    /// The peer's transport parameters in the order in which they came: (id, value). `None` before they are known: a
    /// server knows them with [`Event::Ready`], a client with [`Event::Connected`].
    #[must_use]
    pub fn peer_parameters(&self, id: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        let raw = self.connections.get(&id)?.peer_parameters()?;
        Some(handshake::parameters(raw).into_iter().map(|(id, value)| (id, value.to_vec())).collect())
    }

    /// Begin to use new keys for application data (RFC 9001, section 6). The core does so by itself long before it has to.
    pub fn update_keys(&mut self, id: u64) {
        self.with_work(id, |conn, _| conn.inner.force_key_update());
    }

    /// The peer's certificate chain in DER, leaf first.
    #[must_use]
    pub fn peer_certificates(&self, id: u64) -> Vec<Vec<u8>> {
        self.connections
            .get(&id)
            .and_then(|conn| conn.inner.crypto_session().peer_identity())
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|chain| chain.iter().map(|c| c.as_ref().to_vec()).collect())
            .unwrap_or_default()
    }

    /// What is known of a connection, for people.
    pub fn connection_facts(&mut self, id: u64) -> Option<ConnectionFacts> {
        self.with(id, |conn, _| conn.facts())
    }

    /// Keying material of the TLS session (RFC 5705), or `None` when it cannot be had.
    #[must_use]
    pub fn export_keying_material(&self, id: u64, label: &[u8], context: &[u8], length: usize) -> Option<Vec<u8>> {
        let conn = self.connections.get(&id)?;
        let mut out = vec![0; length];
        conn.inner.crypto_session().export_keying_material(&mut out, label, context).ok()?;
        Some(out)
    }

    /// Figures of a connection.
    #[must_use]
    pub fn connection_stats(&self, id: u64) -> Option<ConnectionStats> {
        let stats = self.connections.get(&id)?.inner.stats();
        Some(ConnectionStats {
            rtt: stats.path.rtt,
            min_rtt: stats.path.min_rtt,
            congestion_window: stats.path.cwnd,
            congestion_events: stats.path.congestion_events,
            mtu: stats.path.current_mtu,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_sent: stats.path.sent_packets,
            packets_received: stats.udp_rx.datagrams,
            acks_received: stats.frame_rx.acks,
            packets_lost: stats.path.lost_packets,
            bytes_lost: stats.path.lost_bytes,
            send_calls: stats.udp_tx.ios,
        })
    }

    fn with<R>(&mut self, id: u64, act: impl FnOnce(&mut Conn, &mut Vec<Event>) -> R) -> Option<R> {
        let conn = self.connections.get_mut(&id)?;
        Some(act(conn, &mut self.events.list))
    }

    /// As `with`, for what may leave packets to send behind.
    fn with_work<R>(&mut self, id: u64, act: impl FnOnce(&mut Conn, &mut Vec<Event>) -> R) -> Option<R> {
        let result = self.with(id, act);
        self.mark(id);
        result
    }

    /// As `with`, for reads: there is something to send only where reading freed enough credit.
    fn with_read<R>(&mut self, id: u64, act: impl FnOnce(&mut Conn, &mut Vec<Event>) -> R) -> Option<R> {
        let result = self.with(id, act);
        if self.connections.get_mut(&id).is_some_and(|conn| std::mem::take(&mut conn.wants_transmit)) {
            self.mark(id);
        }
        result
    }

    // ---------------------------------------------------------------- streams

    /// Open a stream whose first bytes are `header`; `None` without credit. `session` `None` makes a raw stream.
    pub fn open_stream(
        &mut self,
        now: Instant,
        id: u64,
        bidirectional: bool,
        header: &[u8],
        session: Option<u64>,
    ) -> Option<u64> {
        self.with_work(id, |conn, events| conn.open(now, bidirectional, header, session, events))?
    }

    /// Report [`Event::StreamsAvailable`] when there may be credit. False: the connection is gone.
    pub fn want_streams(&mut self, id: u64, bidirectional: bool) -> bool {
        self.with(id, |conn, _| {
            conn.want_streams(bidirectional);
            !conn.is_closed
        })
        .unwrap_or(false)
    }

    /// Find what a read of at most `most` bytes can return; [`Engine::take`] then moves it.
    pub fn prepare_read(&mut self, now: Instant, id: u64, stream: u64, most: usize) -> ReadOutcome {
        self.with_read(id, |conn, events| conn.prepare_read(now, stream, most, events)).unwrap_or(ReadOutcome::Ended)
    }

    /// As [`Engine::prepare_read`], for exactly `count` bytes.
    pub fn prepare_exactly(&mut self, now: Instant, id: u64, stream: u64, count: usize) -> ReadOutcome {
        self.with_read(id, |conn, events| conn.prepare_exactly(now, stream, count, events))
            .unwrap_or(ReadOutcome::Ended)
    }

    /// As [`Engine::prepare_read`], through the first `separator`; at most `limit` bytes may precede it.
    pub fn prepare_until(&mut self, now: Instant, id: u64, stream: u64, separator: &[u8], limit: usize) -> ReadOutcome {
        self.with_read(id, |conn, events| conn.prepare_until(now, stream, separator, limit, events))
            .unwrap_or(ReadOutcome::Ended)
    }

    /// As [`Engine::prepare_read`], for everything, once the end has arrived.
    pub fn prepare_all(&mut self, now: Instant, id: u64, stream: u64, limit: Option<usize>) -> ReadOutcome {
        self.with_read(id, |conn, events| conn.prepare_all(now, stream, limit, events)).unwrap_or(ReadOutcome::Ended)
    }

    /// Move bytes found ready into `out`.
    pub fn take(&mut self, now: Instant, id: u64, stream: u64, out: &mut [u8]) {
        self.with_read(id, |conn, events| conn.take(now, stream, out, events));
    }

    /// STOP_SENDING; what has arrived is dropped. False on a finished or stopped stream.
    pub fn stop(&mut self, now: Instant, id: u64, stream: u64, code: u64) -> bool {
        self.with_work(id, |conn, events| {
            let stopped = conn.stop(now, stream, code, events);
            events.push(Event::Readable { connection: conn.id, stream });
            stopped
        })
        .unwrap_or(false)
    }

    /// Accept a prefix of `data`; `None` when the sending half is closed.
    pub fn write(&mut self, id: u64, stream: u64, data: &[u8]) -> Option<usize> {
        self.with_work(id, |conn, _| conn.write(stream, data))?
    }

    /// As [`Engine::write`], but what is accepted is kept as it is until it is acknowledged, not copied.
    pub fn write_whole(&mut self, id: u64, stream: u64, data: &Bytes) -> Option<usize> {
        self.with_work(id, |conn, _| conn.write_whole(stream, data))?
    }

    /// End the sending half after all accepted bytes.
    pub fn finish(&mut self, id: u64, stream: u64) -> bool {
        self.with_work(id, |conn, events| {
            let finished = conn.finish(stream);
            // A write that waits for room can no longer go on.
            events.push(Event::Writable { connection: conn.id, stream });
            finished
        })
        .unwrap_or(false)
    }

    /// Abandon the sending half. The reset waits until the peer is sure to have the stream's header.
    pub fn reset(&mut self, now: Instant, id: u64, stream: u64, code: u64) -> bool {
        self.with_work(id, |conn, events| {
            let reset = conn.reset(now, stream, code);
            events.push(Event::Writable { connection: conn.id, stream });
            events.push(Event::Acked { connection: conn.id, stream });
            conn.wake_stopped(stream, events);
            reset
        })
        .unwrap_or(false)
    }

    /// State of the receiving half.
    #[must_use]
    pub fn receive_state(&self, id: u64, stream: u64) -> ReceiveState {
        self.connections.get(&id).and_then(|c| c.streams.get(&stream)).map_or(ReceiveState::Gone, |s| s.receive)
    }

    /// State of the sending half.
    #[must_use]
    pub fn send_state(&self, id: u64, stream: u64) -> SendState {
        self.connections.get(&id).and_then(|c| c.streams.get(&stream)).map_or(SendState::Gone, |s| s.send)
    }

    /// Ask for [`Event::Readable`]. False: look again at once.
    pub fn want_read(&mut self, id: u64, stream: u64) -> bool {
        self.with(id, |conn, _| conn.want_read(stream)).unwrap_or(false)
    }

    /// Ask for [`Event::Writable`]. False: look again at once.
    pub fn want_write(&mut self, id: u64, stream: u64) -> bool {
        self.with_work(id, |conn, _| conn.want_write(stream)).unwrap_or(false)
    }

    /// Ask for [`Event::Acked`]. False: nothing is outstanding.
    pub fn want_acked(&mut self, id: u64, stream: u64) -> bool {
        self.with(id, |conn, _| conn.want_acked(stream)).unwrap_or(false)
    }

    /// Ask for [`Event::Stopped`]. False: the sending half is over.
    pub fn want_stopped(&mut self, id: u64, stream: u64) -> bool {
        self.with(id, |conn, _| conn.want_stopped(stream)).unwrap_or(false)
    }

    /// Payload bytes accepted and not acknowledged.
    #[must_use]
    pub fn unacked(&self, id: u64, stream: u64) -> u64 {
        self.connections.get(&id).map_or(0, |conn| conn.unacked(stream))
    }

    /// Streams of a connection the engine still keeps state of.
    #[must_use]
    pub fn stream_count(&self, id: u64) -> usize {
        self.connections.get(&id).map_or(0, |conn| conn.streams.len())
    }

    /// Streams that the QUIC core keeps: those on which we send, and the peer's, bidirectional and unidirectional. With
    /// all streams over they are zero.
    pub fn core_streams(&mut self, id: u64) -> Option<[u64; 3]> {
        self.with(id, |conn, _| conn.core_streams())
    }

    /// Higher goes first.
    pub fn set_priority(&mut self, id: u64, stream: u64, priority: i32) {
        self.with(id, |conn, _| conn.set_priority(stream, priority));
    }

    /// Numbers for diagnostics.
    #[must_use]
    pub fn stream_stats(&self, now: Instant, id: u64, stream: u64) -> Option<StreamStats> {
        self.connections.get(&id)?.stream_stats(now, stream)
    }

    /// Nobody refers to the stream any more; what is still open is stopped and reset with `code`.
    pub fn release(&mut self, now: Instant, id: u64, stream: u64, code: u64) {
        self.with_work(id, |conn, events| conn.release(now, stream, code, events));
    }

    // ---------------------------------------------------------------- sessions

    /// Register a session.
    pub fn add_session(&mut self, id: u64, session: u64, limits: SessionLimits) {
        self.with(id, |conn, events| conn.add_session(session, limits, events));
    }

    /// How many streams the peer may have open at once from now on.
    pub fn set_concurrent_streams(&mut self, id: u64, bidirectional: bool, count: u64) {
        self.with_work(id, |conn, _| conn.set_concurrent_streams(bidirectional, count));
    }

    /// The peer's WT_MAX_DATA.
    pub fn set_send_limit(&mut self, id: u64, session: u64, limit: u64) {
        self.with_work(id, |conn, _| conn.set_send_limit(session, limit));
    }

    /// The peer's WT_MAX_STREAMS.
    pub fn set_send_streams(&mut self, id: u64, session: u64, bidirectional: bool, limit: u64) {
        self.with_work(id, |conn, events| conn.set_send_streams(session, bidirectional, limit, events));
    }

    /// End all streams of a session with `code` and wake whoever waits.
    pub fn end_session(&mut self, now: Instant, id: u64, session: u64, code: u64) {
        self.with_work(id, |conn, events| conn.end_session(now, session, code, events));
    }

    /// Finished streams of a session that are not fully acknowledged.
    #[must_use]
    pub fn unacked_streams(&self, id: u64, session: u64) -> usize {
        self.connections.get(&id).map_or(0, |conn| if conn.is_closed { 0 } else { conn.unacked_streams(session) })
    }

    /// Ask for [`Event::SessionAcked`]. False: nothing is outstanding.
    pub fn want_session_acked(&mut self, id: u64, session: u64) -> bool {
        self.with(id, |conn, _| conn.want_session_acked(session)).unwrap_or(false)
    }

    /// Queue a datagram: 0 accepted, positive the limit it exceeds, -1 impossible now.
    pub fn send_datagram(&mut self, now: Instant, id: u64, session: u64, data: &[u8]) -> i64 {
        self.with_work(id, |conn, _| conn.send_datagram(now, session, data)).unwrap_or(-1)
    }

    /// The oldest received datagram.
    pub fn receive_datagram(&mut self, id: u64, session: u64) -> Option<Bytes> {
        self.with(id, |conn, _| conn.receive_datagram(session))?
    }

    /// Ask for [`Event::DatagramReadable`]. False: look again at once.
    pub fn want_datagram(&mut self, id: u64, session: u64) -> bool {
        self.with(id, |conn, _| conn.want_datagram(session)).unwrap_or(false)
    }

    /// Where the flow control of a session stands.
    #[must_use]
    pub fn credit(&self, id: u64, session: u64) -> Option<Credit> {
        self.connections.get(&id).and_then(|conn| conn.credit(session))
    }

    /// Counters of a session's datagrams.
    #[must_use]
    pub fn datagram_stats(&self, id: u64, session: u64) -> Option<DatagramStats> {
        self.connections.get(&id)?.datagram_stats(session)
    }

    /// Largest QUIC DATAGRAM payload on the current path.
    pub fn max_datagram(&mut self, id: u64) -> Option<usize> {
        self.with(id, |conn, _| conn.max_datagram())?
    }

    /// Whether the connection is a client's.
    #[must_use]
    pub fn is_client(&self, id: u64) -> bool {
        self.connections.get(&id).is_some_and(|conn| conn.is_client())
    }
}
