//! The QUIC core's endpoint: which connection a datagram is for, new connections, configuration.

use std::{
    hash::{Hash as _, Hasher as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TokenMemoryCache, TransportConfig, ValidationTokenConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig},
};
use ring::{
    hkdf, hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use rustc_hash::{FxHashMap, FxHasher};

use super::{
    allowance::CREDIT,
    congestion::TolerantConfig,
    core::{Burst, Core},
    handshake::{ClientCrypto, ServerCrypto},
    ids::ConnectionIds,
    last_packet::LastPacketConfig,
    qlog,
    resets::Budget,
    tokens::UsedTokens,
};
use crate::{
    config::Options,
    error::SetupError,
    peer_credit::FIRST_STREAMS,
    qlog::Qlog,
    secret::Secret,
    tls::{ClientTls, ServerTls},
};

/// RFC 9000.
const QUIC_VERSION: u32 = 1;
/// RFC 9000, section 17.2.
const LONG_HEADER: u8 = 0x80;
/// Bytes of a short header with the longest connection ID.
const LONGEST_HEAD: usize = 21;
/// Bytes of datagrams inside the core: a few bursts. The rest waits in the engine, where a datagram can still expire.
const CORE_DATAGRAM_BUFFER: usize = 24 * 1024;
/// For how long a client's address counts as validated after a connection from there (NEW_TOKEN).
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Tokens that a client gets with each connection. The next connection uses one.
const TOKENS_SENT: u32 = 1;

/// How an endpoint makes connection IDs and stateless resets. Without a secret the keys are random, and end with the process.
///
/// Each prefix of IDs has keys of its own: a packet that reaches the wrong one of several servers with the same secret must not
/// end its connection (RFC 9000, section 10.3.2).
fn endpoint(options: &Options) -> Result<EndpointConfig, SetupError> {
    let key = |purpose, holder: &[u8]| {
        options.secret.as_ref().map_or_else(random_key, |secret: &Secret| Ok(secret.key(purpose, holder)))
    };
    let resets = hmac::Key::new(hmac::HMAC_SHA256, &key("stateless resets", &options.id_prefix)?);
    let mut config = EndpointConfig::new(Arc::new(resets));
    let ids = ConnectionIds::new(&key("connection ids", &options.id_prefix)?, &options.id_prefix, options.id_length)?;
    config.cid_generator(move || Box::new(ids.clone()));
    Ok(config)
}

fn random_key() -> Result<[u8; 32], SetupError> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| SetupError::Option("the system has no random bytes".into()))?;
    Ok(key)
}

/// The round trip that is assumed before the first is measured. What is lost of a handshake is sent again after three times that:
/// 0.3 s instead of the second that RFC 9002 (section 6.2.2) suggests. Browsers assume as much.
const ASSUMED_ROUND_TRIP: Duration = Duration::from_millis(100);

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
    let (initial, largest) = (options.initial_mtu, options.max_mtu);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(largest);
    config
        .max_idle_timeout(idle)
        .keep_alive_interval(options.keep_alive)
        .initial_rtt(ASSUMED_ROUND_TRIP)
        .max_concurrent_bidi_streams(varint(options.max_bidirectional_streams.min(FIRST_STREAMS)))
        .max_concurrent_uni_streams(varint(options.max_unidirectional_streams.min(FIRST_STREAMS)))
        .stream_receive_window(varint(options.stream_receive_window))
        .receive_window(varint(options.window().current()))
        .send_window(options.connection_send_buffer as u64)
        .send_fairness(true)
        .initial_mtu(initial)
        .mtu_discovery_config((largest > initial).then_some(discovery))
        .datagram_receive_buffer_size(Some(options.datagram_receive_buffer))
        .datagram_send_buffer_size(CORE_DATAGRAM_BUFFER.max(2 * usize::from(largest)))
        .congestion_controller_factory(Arc::new(LastPacketConfig(congestion)))
        .enable_segmentation_offload(options.gso);
    Ok(config)
}

/// What a UDP datagram was.
pub(crate) enum Received {
    /// For nobody here, or not to be answered.
    Nothing,
    /// For this connection, whose core has it now.
    Packet(u64),
    /// A client wants a connection, to be accepted or refused.
    New(Box<Incoming>),
    /// Answered by the endpoint; the answer is in the buffer.
    Answer(Burst),
}

/// A connection that a client wants.
pub(crate) struct Incoming {
    inner: quinn_proto::Incoming,
    /// Bytes of the client's first datagram.
    size: usize,
}

impl Incoming {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// What the packets of one hello have in common, as a hash: the client's address, its choice of an ID, and whether it brings
    /// a token. Nobody else's has the same, unless he knows that ID.
    pub(crate) fn hello(&self) -> u64 {
        let mut hasher = FxHasher::default();
        (self.inner.remote_address(), &self.inner.orig_dst_cid()[..], self.is_validated()).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the client has shown that it receives at its address: it brings a token from a Retry or an earlier connection.
    pub(crate) fn is_validated(&self) -> bool {
        self.inner.remote_address_validated()
    }
}

pub(crate) struct Endpoint {
    inner: quinn_proto::Endpoint,
    /// How connections are accepted; `None` if none are. Changes with the certificates.
    server: Option<Arc<ServerConfig>>,
    /// Limits and timers of all connections.
    transport: Arc<TransportConfig>,
    /// The engine's IDs of the connections that the core knows. The core uses a handle again, the engine no ID.
    ids: FxHashMap<ConnectionHandle, u64>,
    /// Whether RESET_STREAM_AT is offered.
    reset_stream_at: bool,
    /// A client's: tokens of servers it had connections with, by name. Bounded by the core: two for each of 256 names.
    tokens: Arc<TokenMemoryCache>,
    /// How many stateless resets may be sent.
    resets: Budget,
    /// Where each new connection gets a qlog, and with which options the core is to write on it.
    logs: Option<Box<(PathBuf, Options)>>,
}

impl Endpoint {
    /// Make an endpoint; with `server`, it accepts connections.
    ///
    /// # Errors
    /// For a TLS configuration or an option that the core refuses.
    pub(crate) fn new(options: &Options, server: Option<&ServerTls>) -> Result<Self, SetupError> {
        let transport = Arc::new(transport(options)?);
        let mut config = endpoint(options)?;
        config.rng_seed(options.seed);
        // The budget bounds resets. With the core's interval, a client whose reset is held back learns nothing until it sends
        // its next packet, and it sends ever more rarely while nothing comes back.
        config.min_reset_interval(Duration::ZERO);
        config.supported_versions(vec![QUIC_VERSION]);
        let server = match server {
            None => None,
            Some(tls) => {
                let crypto = Arc::new(ServerCrypto::new(tls, options.reset_stream_at)?);
                let mut server = match &options.secret {
                    None => ServerConfig::with_crypto(crypto),
                    Some(secret) => {
                        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret.key("tokens", &[]));
                        ServerConfig::new(crypto, Arc::new(key))
                    }
                };
                server.transport_config(transport.clone());
                Some(Arc::new(server))
            }
        };
        Ok(Self {
            inner: quinn_proto::Endpoint::new(Arc::new(config), server.clone(), true, None),
            server,
            transport,
            ids: FxHashMap::default(),
            reset_stream_at: options.reset_stream_at,
            tokens: Arc::default(),
            resets: Budget::new(options.max_connections),
            logs: None,
        })
    }

    /// Have each new connection write a qlog into a directory.
    pub(crate) fn write_qlogs(&mut self, directory: PathBuf, options: Options) {
        self.logs = Some(Box::new((directory, options)));
    }

    /// Begin the qlog of a new connection, if there shall be one, with limits and timers that name it.
    #[cold]
    fn begin_qlog(&self, now: Instant, is_client: bool) -> Option<(Qlog, Arc<TransportConfig>)> {
        let (directory, options) = &**self.logs.as_ref()?;
        let mut transport = transport(options).ok()?;
        let qlog = Qlog::in_directory(directory, now, is_client)?;
        transport.qlog_stream(qlog::stream(&qlog));
        Some((qlog, Arc::new(transport)))
    }

    /// Give each client a token that validates its address when it comes again.
    pub(crate) fn give_tokens(&mut self) {
        if let Some(server) = &mut self.server {
            let mut tokens = ValidationTokenConfig::default();
            tokens.sent(TOKENS_SENT).lifetime(TOKEN_LIFETIME).log(Arc::new(UsedTokens::default()));
            Arc::make_mut(server).validation_token_config(tokens);
            self.inner.set_server_config(Some(server.clone()));
        }
    }

    /// Accept further connections with another TLS configuration; existing ones are not affected.
    ///
    /// # Errors
    /// For one that the core refuses; the old one stays.
    pub(crate) fn set_server_tls(&mut self, tls: &ServerTls) -> Result<(), SetupError> {
        let crypto = Arc::new(ServerCrypto::new(tls, self.reset_stream_at)?);
        if let Some(server) = &mut self.server {
            // Everything else stays, above all the key of the tokens that clients have been given.
            Arc::make_mut(server).crypto = crypto;
            self.inner.set_server_config(Some(server.clone()));
        }
        Ok(())
    }

    /// Take a UDP datagram. `core` finds a connection by its ID; an answer is put into `buffer`.
    #[expect(clippy::too_many_arguments, reason = "what there is to know of a datagram")]
    #[inline]
    pub(crate) fn receive<'a>(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<IpAddr>,
        ecn: u8,
        data: BytesMut,
        buffer: &mut Vec<u8>,
        core: impl FnOnce(u64) -> Option<&'a mut Core>,
    ) -> Received {
        let size = data.len();
        let is_long = data.first().is_some_and(|first| first & LONG_HEADER != 0);
        let head = data.first_chunk::<LONGEST_HEAD>().copied();
        match self.inner.handle(now, remote, local, EcnCodepoint::from_bits(ecn & 0b11), data, buffer) {
            None => Received::Nothing,
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(&id) = self.ids.get(&handle) else { return Received::Nothing };
                let Some(core) = core(id) else { return Received::Nothing };
                core.receive(now, remote, size, event);
                if !is_long
                    && core.wants_credit(remote)
                    && let Some(head) = head
                {
                    // To the core this is a packet of the same connection that cannot be opened.
                    let mut blank = BytesMut::zeroed(CREDIT);
                    blank[..LONGEST_HEAD].copy_from_slice(&head);
                    if let Some(DatagramEvent::ConnectionEvent(_, event)) =
                        self.inner.handle(now, remote, local, None, blank, buffer)
                    {
                        core.take_credit(event);
                    }
                }
                Received::Packet(id)
            }
            Some(DatagramEvent::NewConnection(inner)) => Received::New(Box::new(Incoming { inner, size })),
            // Only a stateless reset has a short header. The core of an endpoint that accepts nobody sends one for each client's
            // first packet, too, with a token of an ID that never was.
            Some(DatagramEvent::Response(_))
                if buffer.first().is_some_and(|first| first & LONG_HEADER == 0)
                    && (is_long || !self.resets.take(now)) =>
            {
                Received::Nothing
            }
            Some(DatagramEvent::Response(transmit)) => Received::Answer(Burst::unmarked(&transmit)),
        }
    }

    /// Accept a connection, which the engine knows by `id`.
    ///
    /// # Errors
    /// When the first packet cannot be used. If it is to be answered, the answer is in the buffer.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        id: u64,
        incoming: Box<Incoming>,
        buffer: &mut Vec<u8>,
    ) -> Result<Core, Option<Burst>> {
        let is_validated = incoming.is_validated();
        let mut logged = if self.logs.is_some() { self.begin_qlog(now, false) } else { None };
        let server = logged.as_ref().and_then(|(_, transport)| {
            let mut server = self.server.as_deref()?.clone();
            server.transport_config(transport.clone());
            Some(Arc::new(server))
        });
        match self.inner.accept(incoming.inner, now, buffer, server) {
            Ok((handle, inner)) => {
                self.ids.insert(handle, id);
                let mut core = Core::new(handle, inner, now);
                if let Some((qlog, _)) = logged.take() {
                    core.begin_log(qlog);
                }
                core.limit(incoming.size, is_validated);
                Ok(core)
            }
            Err(error) => {
                if let Some((qlog, _)) = logged {
                    qlog.discard();
                }
                Err(error.response.map(|transmit| Burst::unmarked(&transmit)))
            }
        }
    }

    /// Turn a client away; the answer is in the buffer.
    pub(crate) fn refuse(&mut self, incoming: Box<Incoming>, buffer: &mut Vec<u8>) -> Burst {
        Burst::unmarked(&self.inner.refuse(incoming.inner, buffer))
    }

    /// Do nothing about a client's packet.
    pub(crate) fn ignore(&mut self, incoming: Box<Incoming>) {
        self.inner.ignore(incoming.inner);
    }

    /// Send a Retry: the client has to validate its address. The answer is in the buffer; `None` if it had one already.
    pub(crate) fn retry(&mut self, incoming: Box<Incoming>, buffer: &mut Vec<u8>) -> Option<Burst> {
        match self.inner.retry(incoming.inner, buffer) {
            Ok(transmit) => Some(Burst::unmarked(&transmit)),
            Err(error) => {
                self.inner.ignore(error.into_incoming());
                None
            }
        }
    }

    /// Begin a connection, which the engine knows by `id`.
    ///
    /// # Errors
    /// For a server name, an address or a TLS configuration that cannot be used.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        id: u64,
        remote: SocketAddr,
        server_name: &str,
        tls: &ClientTls,
    ) -> Result<Core, SetupError> {
        let mut config = ClientConfig::new(Arc::new(ClientCrypto::new(tls, self.reset_stream_at)?));
        let logged = if self.logs.is_some() { self.begin_qlog(now, true) } else { None };
        let transport = logged.as_ref().map_or(&self.transport, |(_, transport)| transport);
        config.transport_config(transport.clone()).token_store(self.tokens.clone());
        let (handle, inner) =
            self.inner.connect(now, config, remote, server_name).map_err(|e| SetupError::Destination(e.to_string()))?;
        self.ids.insert(handle, id);
        let mut core = Core::new(handle, inner, now);
        if let Some((qlog, _)) = logged {
            core.begin_log(qlog);
        }
        Ok(core)
    }

    /// Pass on what the core's connection and endpoint have to tell each other.
    #[inline]
    pub(crate) fn settle(&mut self, core: &mut Core) {
        core.settle(&mut self.inner);
    }

    /// Forget a drained connection. The core may have given its handle to a new one, whose entry stays.
    pub(crate) fn forget(&mut self, core: &Core, id: u64) {
        if self.ids.get(&core.handle()) == Some(&id) {
            self.ids.remove(&core.handle());
        }
    }

    /// Forget a connection that is over, without waiting for packets that may come late for it.
    pub(crate) fn cut_short(&mut self, core: &mut Core) {
        core.cut_short(&mut self.inner);
    }

    /// Forget all connections.
    pub(crate) fn clear(&mut self) {
        self.ids.clear();
    }
}
