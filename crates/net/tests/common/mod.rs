//! Shared by the tests of this crate.

use std::time::Duration;

use wtio_engine::Options;

/// Small windows, long timeouts.
pub(crate) fn options() -> Options {
    Options {
        idle_timeout: Duration::from_secs(30),
        keep_alive: None,
        max_bidirectional_streams: 10,
        max_unidirectional_streams: 10,
        stream_receive_window: 1 << 20,
        connection_receive_window: 1 << 22,
        stream_send_buffer: 1 << 18,
        connection_send_buffer: 1 << 22,
        datagram_send_buffer: 1 << 16,
        datagram_send_age: None,
        datagram_receive_buffer: 1 << 16,
        early_datagrams: 4,
        max_connections: 10,
        memory: None,
        initial_mtu: 1200,
        max_mtu: 1452,
        congestion: "tolerant".into(),
        gso: true,
        reset_stream_at: true,
        secret: None,
        id_prefix: Vec::new(),
        id_length: 8,
        seed: None,
    }
}
