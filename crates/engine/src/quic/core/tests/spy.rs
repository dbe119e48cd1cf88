//! Two connections of the QUIC core, without the engine, with keys that write down what they see.

use std::{
    any::Any,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::varint;
use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionHandle, ConnectionId, DatagramEvent, Endpoint, EndpointConfig,
    ServerConfig, Side, TransportConfig, TransportError, crypto,
    crypto::{
        CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session, UnsupportedVersion,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
    transport_parameters::TransportParameters,
};

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

/// A packet with application data, as a key saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) number: u64,
    pub(crate) payload: Vec<u8>,
}

/// What the keys of one side have seen, and what they change.
#[derive(Default)]
pub(crate) struct Spy {
    sealed: Mutex<Vec<Packet>>,
    opened: Mutex<Vec<Packet>>,
    /// Bytes that the tag claims beyond its length.
    claimed: AtomicUsize,
    /// What the next packet holds in place of its frames.
    instead: Mutex<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Spy {
    /// The packets that were sealed since the last call.
    pub(crate) fn sealed(&self) -> Vec<Packet> {
        std::mem::take(&mut *lock(&self.sealed))
    }

    /// The packets that were opened since the last call.
    pub(crate) fn opened(&self) -> Vec<Packet> {
        std::mem::take(&mut *lock(&self.opened))
    }

    pub(crate) fn claim(&self, bytes: usize) {
        self.claimed.store(bytes, Ordering::Relaxed);
    }
}

struct SpyKey {
    inner: Box<dyn PacketKey>,
    spy: Arc<Spy>,
}

impl PacketKey for SpyKey {
    fn encrypt(&self, number: u64, buf: &mut [u8], header_len: usize) {
        let end = buf.len() - self.inner.tag_len();
        let payload = &mut buf[header_len..end];
        let used = payload.len() - self.spy.claimed.load(Ordering::Relaxed);
        lock(&self.spy.sealed).push(Packet { number, payload: payload[..used].to_vec() });
        let instead = std::mem::take(&mut *lock(&self.spy.instead));
        if !instead.is_empty() {
            payload.fill(0);
            payload[..instead.len()].copy_from_slice(&instead);
        } else {
            // Claimed and not needed: PADDING at the front.
            payload[used..].fill(0);
            payload.rotate_right(payload.len() - used);
        }
        self.inner.encrypt(number, buf, header_len);
    }

    fn decrypt(&self, number: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.inner.decrypt(number, header, payload)?;
        lock(&self.spy.opened).push(Packet { number, payload: payload.to_vec() });
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.inner.tag_len() + self.spy.claimed.load(Ordering::Relaxed)
    }

    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

struct SpySession {
    inner: Box<dyn Session>,
    spy: Arc<Spy>,
    /// Keys that the session has given: those of the handshake, then those for application data.
    given: usize,
}

impl SpySession {
    fn spied(&self, keys: KeyPair<Box<dyn PacketKey>>) -> KeyPair<Box<dyn PacketKey>> {
        let spied = |inner| Box::new(SpyKey { inner, spy: self.spy.clone() }) as Box<dyn PacketKey>;
        KeyPair { local: spied(keys.local), remote: spied(keys.remote) }
    }
}

impl Session for SpySession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let Keys { header, packet } = self.inner.write_handshake(buf)?;
        self.given += 1;
        Some(Keys { header, packet: if self.given == 2 { self.spied(packet) } else { packet } })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.inner.next_1rtt_keys()?;
        Some(self.spied(keys))
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(out, label, context)
    }
}

struct SpyClient(Arc<QuicClientConfig>, Arc<Spy>);

impl crypto::ClientConfig for SpyClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = crypto::ClientConfig::start_session(self.0.clone(), version, server_name, params)?;
        Ok(Box::new(SpySession { inner, spy: self.1.clone(), given: 0 }))
    }
}

struct SpyServer(Arc<QuicServerConfig>, Arc<Spy>);

impl crypto::ServerConfig for SpyServer {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let inner = crypto::ServerConfig::start_session(self.0.clone(), version, params);
        Box::new(SpySession { inner, spy: self.1.clone(), given: 0 })
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(16u32.into())
        .max_concurrent_uni_streams(16u32.into())
        .stream_receive_window(65_536u32.into())
        .receive_window(65_536u32.into())
        .initial_mtu(1200)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    Arc::new(config)
}

/// A client and a server with 16 streams of each kind and a window of 64 KiB.
pub(crate) struct Pair {
    endpoints: [Endpoint; 2],
    handles: [Option<ConnectionHandle>; 2],
    connections: [Option<Connection>; 2],
    addresses: [SocketAddr; 2],
    pub(crate) spies: [Arc<Spy>; 2],
    pub(crate) now: Instant,
}

impl Pair {
    /// With the handshake over and nothing under way.
    pub(crate) fn new() -> Self {
        let mut pair = Self::unconnected();
        pair.settle();
        for side in [CLIENT, SERVER] {
            assert!(!pair.core(side).is_handshaking());
            pair.spies[side].sealed();
            pair.spies[side].opened();
        }
        pair
    }

    /// With nothing sent.
    pub(crate) fn unconnected() -> Self {
        let now = Instant::now();
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client_tls = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server_tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .unwrap();
        let spies = [Arc::new(Spy::default()), Arc::new(Spy::default())];
        let server_tls = Arc::new(QuicServerConfig::try_from(server_tls).unwrap());
        let mut server = ServerConfig::with_crypto(Arc::new(SpyServer(server_tls, spies[SERVER].clone())));
        server.transport_config(transport());
        let client_tls = Arc::new(QuicClientConfig::try_from(client_tls).unwrap());
        let mut client = ClientConfig::new(Arc::new(SpyClient(client_tls, spies[CLIENT].clone())));
        client.transport_config(transport());
        let endpoint = |server, seed| {
            let mut config = EndpointConfig::default();
            config.rng_seed(Some([seed; 32]));
            Endpoint::new(Arc::new(config), server, true, None)
        };
        let addresses = ["10.0.0.1:1000".parse().unwrap(), "10.0.0.2:443".parse().unwrap()];
        let mut endpoints = [endpoint(None, 1), endpoint(Some(Arc::new(server)), 2)];
        let (handle, connection) = endpoints[CLIENT].connect(now, client, addresses[SERVER], "localhost").unwrap();
        Self { endpoints, handles: [Some(handle), None], connections: [Some(connection), None], addresses, spies, now }
    }

    pub(crate) fn core(&mut self, side: usize) -> &mut Connection {
        self.connections[side].as_mut().unwrap()
    }

    /// What a side sends now, by datagrams.
    pub(crate) fn sent(&mut self, side: usize) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let now = self.now;
        let Some(connection) = &mut self.connections[side] else { return datagrams };
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
            datagrams.push(buffer[..transmit.size].to_vec());
            buffer.clear();
        }
        datagrams
    }

    /// Give a side a datagram of the other.
    pub(crate) fn give(&mut self, side: usize, datagram: &[u8]) {
        let (now, from) = (self.now, self.addresses[1 - side]);
        let endpoint = &mut self.endpoints[side];
        let mut buffer = Vec::new();
        match endpoint.handle(now, from, None, None, datagram.into(), &mut buffer) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => self.core(side).handle_event(event),
            Some(DatagramEvent::NewConnection(incoming)) => {
                let (handle, connection) =
                    endpoint.accept(incoming, now, &mut buffer, None).map_err(|error| error.cause).expect("accepted");
                self.handles[side] = Some(handle);
                self.connections[side] = Some(connection);
            }
            other => assert!(other.is_none(), "no answer of the endpoint itself"),
        }
        let (endpoint, handle) = (&mut self.endpoints[side], self.handles[side].unwrap());
        let connection = self.connections[side].as_mut().unwrap();
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = endpoint.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
    }

    /// Let a side send, and the other receive.
    pub(crate) fn pass(&mut self, from: usize) {
        for datagram in self.sent(from) {
            self.give(1 - from, &datagram);
        }
    }

    /// Let both speak until they are silent, acknowledgments that are held back included.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            for side in [CLIENT, SERVER] {
                self.pass(side);
            }
            self.now += Duration::from_millis(30);
            let now = self.now;
            for connection in self.connections.iter_mut().flatten() {
                if connection.poll_timeout().is_some_and(|at| at <= now) {
                    connection.handle_timeout(now);
                }
            }
        }
    }

    /// Have the next packet of a side hold these frames, and pass it on.
    pub(crate) fn send_instead(&mut self, from: usize, frames: &[u8]) {
        *lock(&self.spies[from].instead) = frames.to_vec();
        // Something to take the place of.
        self.core(from).datagrams().send(vec![0; 300].into(), false).unwrap();
        self.pass(from);
    }
}

/// The frames of a packet but PADDING: type, and the bytes from the type on. Fails at what is not known here.
pub(crate) fn frames(payload: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    let mut place = 0;
    while place < payload.len() {
        let start = place;
        let mut next = || {
            let (value, length) = varint::read(&payload[place..]).expect("a whole varint");
            place += length;
            value
        };
        let kind = next();
        // Varints that follow the type, and whether the last of them is the length of what comes then.
        let (varints, has_length) = match kind {
            0x00 | 0x01 | 0x1e | 0x1f => (0, false),
            0x02 | 0x03 => {
                // What counts the ranges is the third one.
                let ranges = [next(), next(), next()][2];
                (2 * ranges + 1 + if kind == 3 { 3 } else { 0 }, false)
            }
            0x10 | 0x12..=0x14 | 0x16 | 0x17 | 0x19 => (1, false),
            0x05 | 0x11 | 0x15 => (2, false),
            0x04 => (3, false),
            0x07 | 0x31 => (1, true),
            0x06 => (2, true),
            0x08..=0x0f => (1 + u64::from(kind & 4 != 0) + u64::from(kind & 2 != 0), kind & 2 != 0),
            0x18 => (2, false),
            0x30 => (0, false),
            other => panic!("frame type {other:#x}"),
        };
        let last = (0..varints).map(|_| next()).last().unwrap_or_default();
        place += match kind {
            // To the end of the packet.
            0x30 => payload.len() - place,
            0x08..=0x0f if !has_length => payload.len() - place,
            // A connection ID, its length in front, and a token.
            0x18 => 1 + usize::from(payload[place]) + 16,
            _ if has_length => last as usize,
            _ => 0,
        };
        if kind != 0 {
            found.push((kind, &payload[start..place]));
        }
    }
    found
}
