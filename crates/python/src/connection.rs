//! A QUIC connection, as Python sees it.

use std::sync::Arc;

use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyBytes, PyDict},
};

use crate::{
    address::pair, buffer::with_bytes, home::Closed, options::EndpointOptions, shared::Shared, stream::Stream,
    waiters::Wait,
};

#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    #[pyo3(get)]
    id: u64,
}

/// What is known of a connection. Python's objects are made when somebody asks.
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

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self { shared, id }
    }
}

#[pymethods]
impl Connection {
    #[getter]
    fn remote_address(&self) -> (String, u16) {
        self.shared.look(|engine| engine.remote_address(self.id)).map_or_else(|| (String::new(), 0), pair)
    }

    #[getter]
    fn server_name(&self) -> Option<String> {
        self.shared.look(|engine| engine.server_name(self.id))
    }

    #[getter]
    fn peer_certificates<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let chain = self.shared.look(|engine| engine.peer_certificates(self.id));
        chain.iter().map(|der| PyBytes::new(py, der)).collect()
    }

    fn peer_parameters<'py>(&self, py: Python<'py>) -> Option<Vec<(u64, Bound<'py, PyBytes>)>> {
        let parameters = self.shared.look(|engine| engine.peer_parameters(self.id))?;
        Some(parameters.iter().map(|(id, value)| (*id, PyBytes::new(py, value))).collect())
    }

    fn facts(&self) -> Option<ConnectionFacts> {
        self.shared.look(|engine| engine.connection_facts(self.id)).map(ConnectionFacts)
    }

    #[getter]
    fn max_datagram_payload(&self) -> Option<usize> {
        self.shared.look(|engine| engine.max_datagram(self.id))
    }

    #[pyo3(signature = (bidirectional, header, session = None))]
    fn open_stream(
        &self,
        py: Python<'_>,
        bidirectional: bool,
        header: &[u8],
        session: Option<u64>,
    ) -> PyResult<Option<Stream>> {
        self.shared.check(py, Closed::Refused)?;
        let id = self.shared.act(py, |engine, now| engine.open_stream(now, self.id, bidirectional, header, session));
        Ok(id.map(|id| Stream::new(self.shared.clone(), self.id, id, session.is_none())))
    }

    fn check_loop(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.check(py, Closed::Refused)
    }

    fn wait_streams(&self, bidirectional: bool, session: u64, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = session;
        self.shared
            .wait(waker, self.id, Wait::Streams(bidirectional), |engine| engine.want_streams(self.id, bidirectional))
    }

    #[expect(clippy::needless_pass_by_value, reason = "what is extracted from an argument is owned")]
    fn add_session(
        &self,
        py: Python<'_>,
        session_id: u64,
        options: EndpointOptions<'_>,
        send_credit: Option<(u64, u64, u64)>,
    ) -> PyResult<()> {
        let limits = options.for_session(send_credit)?;
        self.shared.act(py, |engine, _| engine.add_session(self.id, session_id, limits));
        Ok(())
    }

    fn set_concurrent_streams(&self, py: Python<'_>, bidirectional: bool, count: u64) {
        self.shared.act(py, |engine, _| engine.set_concurrent_streams(self.id, bidirectional, count));
    }

    fn set_send_limit(&self, py: Python<'_>, session: u64, limit: u64) {
        self.shared.act(py, |engine, _| engine.set_send_limit(self.id, session, limit));
    }

    fn set_send_streams(&self, py: Python<'_>, session: u64, bidirectional: bool, limit: u64) {
        self.shared.act(py, |engine, _| engine.set_send_streams(self.id, session, bidirectional, limit));
    }

    fn end_session(&self, py: Python<'_>, session: u64, code: u64) {
        self.shared.act(py, |engine, now| engine.end_session(now, self.id, session, code));
    }

    fn unacked_streams(&self, session: u64) -> usize {
        self.shared.look(|engine| engine.unacked_streams(self.id, session))
    }

    fn wait_session_acked(&self, session: u64, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.shared
            .wait(waker, self.id, Wait::SessionAcked(session), |engine| engine.want_session_acked(self.id, session))
    }

    fn send_datagram(&self, session: u64, data: &Bound<'_, PyAny>) -> PyResult<i64> {
        self.shared.check(data.py(), Closed::Refused)?;
        with_bytes(data, |bytes| {
            self.shared.act(data.py(), |engine, now| engine.send_datagram(now, self.id, session, bytes))
        })
    }

    fn receive_datagram<'py>(&self, py: Python<'py>, session: u64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.shared.check(py, Closed::Refused)?;
        let data = self.shared.look(|engine| engine.receive_datagram(self.id, session));
        Ok(data.map(|data| PyBytes::new(py, &data)))
    }

    fn receive_datagrams<'py>(&self, py: Python<'py>, session: u64, most: usize) -> Vec<Bound<'py, PyBytes>> {
        let mut batch = Vec::new();
        self.shared.look(|engine| {
            while batch.len() < most {
                let Some(data) = engine.receive_datagram(self.id, session) else { break };
                batch.push(data);
            }
        });
        batch.iter().map(|data| PyBytes::new(py, data)).collect()
    }

    fn wait_datagram(&self, session: u64, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.shared.wait(waker, self.id, Wait::Datagram(session), |engine| engine.want_datagram(self.id, session))
    }

    fn credit(&self, session: u64) -> (u64, u64, Option<u64>, Option<u64>, Option<u64>) {
        let credit = self.shared.look(|engine| engine.credit(self.id, session)).unwrap_or_default();
        let streams = |direction: usize| credit.stream_credit.map(|streams| streams[direction]);
        (credit.sent, credit.received, credit.send_credit, streams(0), streams(1))
    }

    fn datagram_stats<'py>(&self, py: Python<'py>, session: u64) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.shared.look(|engine| engine.datagram_stats(self.id, session)).unwrap_or_default();
        let dict = PyDict::new(py);
        dict.set_item("sent", stats.sent)?;
        dict.set_item("received", stats.received)?;
        dict.set_item("dropped_outgoing", stats.dropped_outgoing)?;
        dict.set_item("expired_outgoing", stats.expired_outgoing)?;
        dict.set_item("dropped_incoming", stats.dropped_incoming)?;
        dict.set_item("queued_incoming", stats.queued_incoming)?;
        Ok(dict)
    }

    fn close(&self, py: Python<'_>, code: u64, reason: &[u8]) {
        self.shared.act(py, |engine, now| engine.close(now, self.id, code, reason));
    }

    fn export_keying_material<'py>(
        &self,
        py: Python<'py>,
        label: &[u8],
        context: &[u8],
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.shared
            .look(|engine| engine.export_keying_material(self.id, label, context, length))
            .map(|material| PyBytes::new(py, &material))
            .ok_or_else(|| PyValueError::new_err(format!("{length} bytes of keying material cannot be had now")))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let Some(stats) = self.shared.look(|engine| engine.connection_stats(self.id)) else { return Ok(dict) };
        dict.set_item("rtt", stats.rtt.as_secs_f64())?;
        dict.set_item("min_rtt", stats.min_rtt.as_secs_f64())?;
        dict.set_item("congestion_window", stats.congestion_window)?;
        dict.set_item("congestion_events", stats.congestion_events)?;
        dict.set_item("mtu", stats.mtu)?;
        dict.set_item("bytes_sent", stats.bytes_sent)?;
        dict.set_item("bytes_received", stats.bytes_received)?;
        dict.set_item("packets_sent", stats.packets_sent)?;
        dict.set_item("packets_received", stats.packets_received)?;
        dict.set_item("acks_received", stats.acks_received)?;
        dict.set_item("packets_lost", stats.packets_lost)?;
        dict.set_item("bytes_lost", stats.bytes_lost)?;
        dict.set_item("send_calls", stats.send_calls)?;
        Ok(dict)
    }
}
