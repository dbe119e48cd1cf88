//! The options of an engine. Every value comes from Python (`config.py`), which documents and checks it.

use std::{sync::Arc, time::Duration};

use crate::{
    memory::{FIRST_WINDOW, Memory},
    secret::Secret,
    window::Window,
};

/// Limits and timers of all connections of one engine. Sizes are bytes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time without any packet after which a connection is given up; zero means never.
    pub idle_timeout: Duration,
    /// Interval of PINGs on an otherwise quiet connection.
    pub keep_alive: Option<Duration>,
    /// Bidirectional streams a peer may have open at once.
    pub max_bidirectional_streams: u64,
    /// Unidirectional streams a peer may have open at once.
    pub max_unidirectional_streams: u64,
    /// Unread bytes a peer may send on one stream.
    pub stream_receive_window: u64,
    /// Unread bytes a peer may send on one connection.
    pub connection_receive_window: u64,
    /// Accepted but unsent bytes of one stream.
    pub stream_send_buffer: usize,
    /// Queued bytes of one connection, and, apart from that, its sent but unacknowledged bytes.
    pub connection_send_buffer: usize,
    /// Datagram bytes waiting to be sent on one connection; the oldest are dropped.
    pub datagram_send_buffer: usize,
    /// Age at which a datagram that still waits is dropped.
    pub datagram_send_age: Option<Duration>,
    /// Datagram bytes the QUIC core may hold before the engine takes them over; also the largest DATAGRAM frame
    /// announced to the peer (65535 at most).
    pub datagram_receive_buffer: usize,
    /// Datagrams kept for sessions that are not registered yet, per connection.
    pub early_datagrams: usize,
    /// Connections at once; further ones are refused.
    pub max_connections: usize,
    /// What all connections may hold and promise together, also those of other engines with the same budget. `None`: there is
    /// no limit, and receive windows have their full size from the beginning.
    pub memory: Option<Arc<Memory>>,
    /// UDP payload size before path MTU discovery.
    pub initial_mtu: u16,
    /// Largest UDP payload that path MTU discovery tries.
    pub max_mtu: u16,
    /// "tolerant", "cubic", "newreno" or "bbr".
    pub congestion: String,
    /// Let the kernel cut bursts into packets.
    pub gso: bool,
    /// Offer and use RESET_STREAM_AT (draft-ietf-quic-reliable-stream-reset).
    pub reset_stream_at: bool,
    /// From which the keys of stateless resets, connection IDs and tokens are derived, so that they outlive the process.
    /// Without it they are random.
    pub secret: Option<Secret>,
    /// What the connection IDs begin with: it tells whose they are among servers that share a secret, or an address. Each
    /// prefix has keys of its own for IDs and for stateless resets. Empty: the IDs are random from the first byte.
    pub id_prefix: Vec<u8>,
    /// Bytes of a connection ID, 20 at most.
    pub id_length: usize,
    /// Seed of everything random, for reproducible simulations.
    pub seed: Option<[u8; 32]>,
}

impl Options {
    /// The receive window of a new connection. With a budget it begins small.
    pub(crate) fn window(&self) -> Window {
        let full = self.connection_receive_window;
        Window::new(if self.memory.is_some() { FIRST_WINDOW } else { full }, full)
    }
}
