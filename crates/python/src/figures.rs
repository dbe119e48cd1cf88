//! Facts and figures: frozen classes, whose attributes become Python objects only when they are read.

use pyo3::{prelude::*, types::PyBytes};
use wtio_engine::Ending;

use crate::{address::pair, shared::Shared, states::CloseCause};

/// What is known of a connection.
#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct ConnectionFacts(pub(crate) wtio_engine::ConnectionFacts);

#[pymethods]
impl ConnectionFacts {
    #[getter]
    fn remote_address(&self) -> (String, u16) {
        pair(self.0.remote)
    }

    #[getter]
    fn alpn<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.alpn.as_ref().map(|name| PyBytes::new(py, name))
    }

    #[getter]
    fn cipher(&self) -> Option<&'static str> {
        self.0.cipher
    }

    #[getter]
    fn key_exchange(&self) -> Option<&'static str> {
        self.0.key_exchange
    }

    #[getter]
    fn peer_parameters<'py>(&self, py: Python<'py>) -> Option<Vec<(u64, Bound<'py, PyBytes>)>> {
        let parameters = self.0.parameters.as_ref()?;
        Some(parameters.iter().map(|(id, value)| (*id, PyBytes::new(py, value))).collect())
    }

    #[getter]
    fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    #[getter]
    fn certificates<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.certificates.iter().map(|der| PyBytes::new(py, der)).collect()
    }

    #[getter]
    fn own_certificates<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.own_chain.iter().flat_map(|chain| chain.iter()).map(|der| PyBytes::new(py, der)).collect()
    }

    #[getter]
    fn is_refused(&self) -> bool {
        self.0.is_refused
    }

    #[getter]
    fn is_closed_by_peer(&self) -> bool {
        self.0.is_closed_by_peer
    }

    #[getter]
    fn max_datagram_payload(&self) -> Option<usize> {
        self.0.max_datagram
    }

    #[getter]
    fn mtu(&self) -> u16 {
        self.0.mtu
    }

    #[getter]
    fn datagrams_sent(&self) -> u64 {
        self.0.datagrams_sent
    }

    #[getter]
    fn datagrams_received(&self) -> u64 {
        self.0.datagrams_received
    }
}

/// Figures of a connection; all 0 once the engine has forgotten it.
#[pyclass(frozen, get_all, module = "wtio._core")]
#[derive(Default)]
pub(crate) struct ConnectionStats {
    rtt: f64,
    min_rtt: f64,
    congestion_window: u64,
    congestion_events: u64,
    mtu: u16,
    bytes_sent: u64,
    bytes_received: u64,
    packets_sent: u64,
    packets_received: u64,
    acks_received: u64,
    packets_lost: u64,
    bytes_lost: u64,
    send_calls: u64,
}

impl ConnectionStats {
    pub(crate) fn new(stats: &wtio_engine::ConnectionStats) -> Self {
        Self {
            rtt: stats.rtt.as_secs_f64(),
            min_rtt: stats.min_rtt.as_secs_f64(),
            congestion_window: stats.congestion_window,
            congestion_events: stats.congestion_events,
            mtu: stats.mtu,
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            packets_sent: stats.packets_sent,
            packets_received: stats.packets_received,
            acks_received: stats.acks_received,
            packets_lost: stats.packets_lost,
            bytes_lost: stats.bytes_lost,
            send_calls: stats.send_calls,
        }
    }
}

/// Figures of a session's datagrams; all 0 for a session that is not registered.
#[pyclass(frozen, get_all, module = "wtio._core")]
pub(crate) struct DatagramStats {
    sent: u64,
    received: u64,
    dropped_outgoing: u64,
    expired_outgoing: u64,
    dropped_incoming: u64,
    queued_incoming: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

impl DatagramStats {
    pub(crate) fn new(stats: &wtio_engine::session::DatagramStats) -> Self {
        Self {
            sent: stats.sent,
            received: stats.received,
            dropped_outgoing: stats.dropped_outgoing,
            expired_outgoing: stats.expired_outgoing,
            dropped_incoming: stats.dropped_incoming,
            queued_incoming: stats.queued_incoming,
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
        }
    }
}

/// Where a session's flow control stands.
#[pyclass(frozen, get_all, module = "wtio._core")]
pub(crate) struct Credit {
    stream_bytes_sent: u64,
    stream_bytes_received: u64,
    send_credit: Option<u64>,
    bidirectional_stream_credit: Option<u64>,
    unidirectional_stream_credit: Option<u64>,
}

impl Credit {
    pub(crate) fn new(credit: &wtio_engine::session::Credit) -> Self {
        let [bidirectional, unidirectional] = credit.stream_credit.map_or([None; 2], |streams| streams.map(Some));
        Self {
            stream_bytes_sent: credit.sent,
            stream_bytes_received: credit.received,
            send_credit: credit.send_credit,
            bidirectional_stream_credit: bidirectional,
            unidirectional_stream_credit: unidirectional,
        }
    }
}

/// Figures of a stream; all 0 once the engine has forgotten it.
#[pyclass(frozen, get_all, module = "wtio._core")]
#[derive(Default)]
pub(crate) struct StreamStats {
    bytes_written: u64,
    bytes_sent: u64,
    bytes_acknowledged: u64,
    bytes_received: u64,
    bytes_read: u64,
    send_buffered: u64,
    receive_buffered: u64,
    blocked_seconds: f64,
    created_at: Option<f64>,
    first_byte_at: Option<f64>,
    ended_at: Option<f64>,
}

impl StreamStats {
    pub(crate) fn new(stats: &wtio_engine::StreamStats, shared: &Shared) -> Self {
        Self {
            bytes_written: stats.written,
            bytes_sent: stats.sent,
            bytes_acknowledged: stats.acked,
            bytes_received: stats.received,
            bytes_read: stats.read,
            send_buffered: stats.send_buffered,
            receive_buffered: stats.receive_buffered,
            blocked_seconds: stats.blocked,
            created_at: Some(shared.seconds(stats.created)),
            first_byte_at: stats.first_byte.map(|at| shared.seconds(at)),
            ended_at: stats.ended.map(|at| shared.seconds(at)),
        }
    }
}

/// Figures of an endpoint.
#[pyclass(frozen, get_all, module = "wtio._core")]
pub(crate) struct EndpointStats {
    connections: usize,
    gso_segments: usize,
    open_connections: usize,
    half_open_connections: usize,
    known_addresses: usize,
    accepted: u64,
    validated: u64,
    retried: u64,
    refused_capacity: u64,
    refused_address: u64,
    refused_rate: u64,
    refused_memory: u64,
    refused_closing: u64,
    displaced: u64,
    handshake_timeouts: u64,
    packets_astray: u64,
}

impl EndpointStats {
    pub(crate) fn new(
        connections: usize,
        gso_segments: usize,
        newcomers: &wtio_engine::NewcomerFigures,
        packets_astray: u64,
    ) -> Self {
        Self {
            connections,
            gso_segments,
            open_connections: newcomers.open,
            half_open_connections: newcomers.half_open,
            known_addresses: newcomers.addresses,
            accepted: newcomers.accepted,
            validated: newcomers.validated,
            retried: newcomers.retried,
            refused_capacity: newcomers.refused_capacity,
            refused_address: newcomers.refused_address,
            refused_rate: newcomers.refused_rate,
            refused_memory: newcomers.refused_memory,
            refused_closing: newcomers.refused_closing,
            displaced: newcomers.displaced,
            handshake_timeouts: newcomers.handshake_timeouts,
            packets_astray,
        }
    }
}

/// Totals of an endpoint. Endings have the names of [`CloseCause`], and two more.
#[pyclass(frozen, get_all, module = "wtio._core")]
pub(crate) struct EndpointTotals {
    accepted: u64,
    connected: u64,
    failed: Vec<(&'static str, u64)>,
    ended: Vec<(&'static str, u64)>,
    bytes_sent: u64,
    bytes_received: u64,
    packets_sent: u64,
    packets_received: u64,
    packets_lost: u64,
    bidirectional_opened: u64,
    bidirectional_received: u64,
    unidirectional_opened: u64,
    unidirectional_received: u64,
    stream_bytes_sent: u64,
    stream_bytes_received: u64,
    datagrams: Py<DatagramStats>,
}

impl EndpointTotals {
    /// `accepted`: handshakes begun with a server, as its figures of newcomers have it at the same moment.
    pub(crate) fn new(py: Python<'_>, totals: &wtio_engine::Totals, accepted: u64) -> PyResult<Self> {
        let sessions = &totals.sessions;
        let [bidirectional_opened, unidirectional_opened] = sessions.opened;
        let [bidirectional_received, unidirectional_received] = sessions.peer_opened;
        Ok(Self {
            accepted,
            connected: totals.connected,
            failed: named(totals.failed),
            ended: named(totals.ended),
            bytes_sent: totals.bytes_sent,
            bytes_received: totals.bytes_received,
            packets_sent: totals.packets_sent,
            packets_received: totals.packets_received,
            packets_lost: totals.packets_lost,
            bidirectional_opened,
            bidirectional_received,
            unidirectional_opened,
            unidirectional_received,
            stream_bytes_sent: sessions.bytes_sent,
            stream_bytes_received: sessions.bytes_received,
            datagrams: Py::new(py, DatagramStats::new(&sessions.datagrams))?,
        })
    }
}

/// Counts by ending, with the names of endings.
fn named(counts: [u64; Ending::ALL.len()]) -> Vec<(&'static str, u64)> {
    let name = |ending| match ending {
        Ending::Closed(cause) => CloseCause::from(cause).name(),
        Ending::Timeout => "timeout",
        Ending::Displaced => "displaced",
    };
    Ending::ALL.into_iter().map(name).zip(counts).collect()
}

/// What the system keeps for a socket, in bytes.
#[pyclass(frozen, get_all, module = "wtio._core")]
pub(crate) struct SocketBuffers {
    asked: usize,
    receive: usize,
    send: usize,
}

impl SocketBuffers {
    pub(crate) fn new(buffers: wtio_net::KernelBuffers) -> Self {
        Self { asked: buffers.asked, receive: buffers.receive, send: buffers.send }
    }
}

/// Where the memory budget of a server stands. What is held and promised is that of one endpoint.
#[pyclass(frozen, get_all, module = "wtio._core")]
pub(crate) struct MemoryStats {
    most: u64,
    used: u64,
    held: u64,
    promised: u64,
    refused: u64,
}

impl MemoryStats {
    pub(crate) fn new(memory: &wtio_engine::Memory, holding: wtio_engine::Holding) -> Self {
        Self {
            most: memory.most(),
            used: memory.used(),
            held: holding.held,
            promised: holding.promised,
            refused: memory.refused(),
        }
    }
}

/// What a certificate says.
#[pyclass(frozen, get_all, module = "wtio._core")]
pub(crate) struct CertificateFacts {
    not_before: i64,
    not_after: i64,
    key_algorithm: String,
    subject: String,
    issuer: String,
    names: Vec<String>,
}

impl CertificateFacts {
    pub(crate) fn new(facts: wtio_engine::tls::CertificateFacts) -> Self {
        Self {
            not_before: facts.not_before,
            not_after: facts.not_after,
            key_algorithm: facts.key_algorithm,
            subject: facts.subject,
            issuer: facts.issuer,
            names: facts.names,
        }
    }
}
