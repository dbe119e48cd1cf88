//! What the engine reports. Events come in batches and in the order in which things happened.

use std::net::SocketAddr;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer's CONNECTION_CLOSE of type 0x1d: its application closed.
    Application,
    /// The peer's CONNECTION_CLOSE of type 0x1c: its QUIC stack closed.
    Transport,
    /// We found a violation of QUIC by the peer.
    Protocol,
    /// A TLS alert of either side.
    Tls,
    /// The idle timeout passed.
    Idle,
    /// The peer has forgotten the connection.
    Reset,
    /// We closed.
    Local,
    /// No common QUIC version.
    Version,
    /// The server turned the connection away.
    Refused,
}

impl CloseCause {
    /// The name that crosses the border to Python.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Transport => "transport",
            Self::Protocol => "protocol",
            Self::Tls => "tls",
            Self::Idle => "idle",
            Self::Reset => "reset",
            Self::Local => "local",
            Self::Version => "version",
            Self::Refused => "refused",
        }
    }
}

/// What is known of a connection, for people: at any time, and once more when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// The peer's address.
    pub remote: SocketAddr,
    /// The application protocol that TLS agreed on.
    pub alpn: Option<Vec<u8>>,
    /// Name of the cipher suite that TLS agreed on.
    pub cipher: Option<&'static str>,
    /// SNI name the client sent (server only).
    pub server_name: Option<String>,
    /// The peer's transport parameters in the order in which they came: (id, value).
    pub parameters: Option<Vec<(u64, Vec<u8>)>>,
    /// The peer's chain in DER, leaf first; also one that was refused.
    pub certificates: Vec<Vec<u8>>,
    /// Our verifier refused that chain.
    pub is_refused: bool,
    /// The end came in a CONNECTION_CLOSE of the peer.
    pub is_closed_by_peer: bool,
    /// Largest QUIC DATAGRAM payload, prefix included; `None` where the peer takes none.
    pub max_datagram: Option<usize>,
    /// UDP payload size in use.
    pub mtu: u16,
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
}

/// One thing that happened. `connection`, `stream` and `session` are ids, never reused within an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// A client's first packet was accepted (server only).
    Incoming { connection: u64 },
    /// The client's first flight was read: streams may be opened before the handshake is complete (server only).
    Ready { connection: u64 },
    /// The handshake is complete.
    Connected { connection: u64 },
    /// The connection is over; nothing follows for it.
    Closed { connection: u64, cause: CloseCause, code: u64, reason: String, facts: Box<ConnectionFacts> },
    /// A WebTransport data stream of the peer, its header read.
    Stream { connection: u64, stream: u64, session: u64 },
    /// Any other stream of the peer, nothing of it consumed.
    RawStream { connection: u64, stream: u64 },
    /// A raw stream has something to read. Comes once until a read finds nothing.
    RawReadable { connection: u64, stream: u64 },
    /// STOP_SENDING on a raw stream.
    RawStopped { connection: u64, stream: u64, code: u64 },
    /// A waiter for data, end or error of a stream can go on.
    Readable { connection: u64, stream: u64 },
    /// A waiter for queue space can go on.
    Writable { connection: u64, stream: u64 },
    /// A waiter for acknowledgement can go on.
    Acked { connection: u64, stream: u64 },
    /// Opening a stream may succeed now.
    StreamsAvailable { connection: u64, bidirectional: bool },
    /// A waiter for a datagram of the session can go on.
    DatagramReadable { connection: u64, session: u64 },
    /// All finished streams of the session are acknowledged.
    SessionAcked { connection: u64, session: u64 },
    /// A datagram without a valid quarter stream id.
    DatagramError { connection: u64 },
    /// First datagram for a session that is not registered.
    DatagramId { connection: u64, session: u64 },
    /// Time to announce WT_MAX_DATA.
    CreditDue { connection: u64, session: u64, limit: u64 },
    /// Time to announce WT_MAX_STREAMS.
    StreamsDue { connection: u64, session: u64, bidirectional: bool, limit: u64 },
    /// The peer broke a limit of the session.
    CreditExceeded { connection: u64, session: u64 },
    /// Our data waits for the peer's WT_MAX_DATA.
    CreditBlocked { connection: u64, session: u64, limit: u64 },
    /// A stream of ours waits for the peer's WT_MAX_STREAMS.
    StreamsBlocked { connection: u64, session: u64, bidirectional: bool, limit: u64 },
}
