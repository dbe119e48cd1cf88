//! A QUIC connection, as Python sees it.

use std::sync::Arc;

use pyo3::{prelude::*, types::PyBytes};

use crate::{
    address::pair,
    buffer::with_bytes,
    figures::{ConnectionFacts, ConnectionStats, Credit, DatagramStats},
    home::Closed,
    options::EndpointOptions,
    shared::Shared,
    stream::Stream,
    waiters::Wait,
};

#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    #[pyo3(get)]
    id: u64,
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

    #[pyo3(signature = (bidirectional, header, session_id = None))]
    fn open_stream(
        &self,
        py: Python<'_>,
        bidirectional: bool,
        header: &[u8],
        session_id: Option<u64>,
    ) -> PyResult<Option<Stream>> {
        self.shared.check(py, Closed::Refused)?;
        let id = self.shared.act(py, |engine, now| engine.open_stream(now, self.id, bidirectional, header, session_id));
        Ok(id.map(|id| Stream::new(self.shared.clone(), self.id, id, session_id.is_none())))
    }

    fn check_loop(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.check(py, Closed::Refused)
    }

    fn wait_streams(&self, bidirectional: bool, waker: &Bound<'_, PyAny>) -> PyResult<()> {
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

    fn set_send_limit(&self, py: Python<'_>, session_id: u64, limit: u64) {
        self.shared.act(py, |engine, _| engine.set_send_limit(self.id, session_id, limit));
    }

    fn set_send_streams(&self, py: Python<'_>, session_id: u64, bidirectional: bool, limit: u64) {
        self.shared.act(py, |engine, _| engine.set_send_streams(self.id, session_id, bidirectional, limit));
    }

    fn end_session(&self, py: Python<'_>, session_id: u64, code: u64) {
        self.shared.act(py, |engine, now| engine.end_session(now, self.id, session_id, code));
    }

    fn unacked_streams(&self, session_id: u64) -> usize {
        self.shared.look(|engine| engine.unacked_streams(self.id, session_id))
    }

    fn core_streams(&self) -> Option<[u64; 3]> {
        self.shared.look(|engine| engine.core_streams(self.id))
    }

    fn wait_session_acked(&self, session_id: u64, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.shared.wait(waker, self.id, Wait::SessionAcked(session_id), |engine| {
            engine.want_session_acked(self.id, session_id)
        })
    }

    fn send_datagram(&self, session_id: u64, data: &Bound<'_, PyAny>) -> PyResult<i64> {
        self.shared.check(data.py(), Closed::Refused)?;
        with_bytes(data, |bytes| {
            self.shared.act(data.py(), |engine, now| engine.send_datagram(now, self.id, session_id, bytes))
        })
    }

    fn receive_datagram<'py>(&self, py: Python<'py>, session_id: u64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.shared.check(py, Closed::Refused)?;
        let data = self.shared.look(|engine| engine.receive_datagram(self.id, session_id));
        Ok(data.map(|data| PyBytes::new(py, &data)))
    }

    fn receive_datagrams<'py>(&self, py: Python<'py>, session_id: u64, most: usize) -> Vec<Bound<'py, PyBytes>> {
        let mut batch = Vec::new();
        self.shared.look(|engine| {
            while batch.len() < most {
                let Some(data) = engine.receive_datagram(self.id, session_id) else { break };
                batch.push(data);
            }
        });
        batch.iter().map(|data| PyBytes::new(py, data)).collect()
    }

    fn wait_datagram(&self, session_id: u64, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.shared.wait(waker, self.id, Wait::Datagram(session_id), |engine| engine.want_datagram(self.id, session_id))
    }

    fn credit(&self, session_id: u64) -> Credit {
        Credit::new(&self.shared.look(|engine| engine.credit(self.id, session_id)).unwrap_or_default())
    }

    fn datagram_stats(&self, session_id: u64) -> DatagramStats {
        DatagramStats::new(&self.shared.look(|engine| engine.datagram_stats(self.id, session_id)).unwrap_or_default())
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
    ) -> Option<Bound<'py, PyBytes>> {
        self.shared
            .look(|engine| engine.export_keying_material(self.id, label, context, length))
            .map(|material| PyBytes::new(py, &material))
    }

    fn stats(&self) -> ConnectionStats {
        self.shared
            .look(|engine| engine.connection_stats(self.id))
            .map_or_else(ConnectionStats::default, |stats| ConnectionStats::new(&stats))
    }
}
