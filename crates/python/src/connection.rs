//! A QUIC connection, as Python sees it.

use std::sync::Arc;

use pyo3::{prelude::*, types::PyBytes};
use wtio_engine::{ConnectionMut, SharedDatagram};

use crate::{
    address::pair,
    buffer::with_bytes,
    figures::{ConnectionFacts, ConnectionStats, Credit, DatagramStats},
    home::Closed,
    options::EndpointOptions,
    os_error::raise_os,
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

    /// Do something with the engine's connection, then ask for a drive if that is needed. `None`: the engine has forgotten it.
    fn act<R>(&self, py: Python<'_>, act: impl FnOnce(&mut ConnectionMut<'_>) -> R) -> Option<R> {
        self.shared.act(py, |engine, now| engine.connection(now, self.id).map(|mut connection| act(&mut connection)))
    }

    /// As `act`, for what changes nothing.
    fn look<R>(&self, look: impl FnOnce(&mut ConnectionMut<'_>) -> R) -> Option<R> {
        self.shared.look_now(|engine, now| engine.connection(now, self.id).map(|mut connection| look(&mut connection)))
    }

    /// Register `waker` if `want`, called with the engine's connection, says that there is something to wait for.
    fn wait(
        &self,
        waker: &Bound<'_, PyAny>,
        wait: Wait,
        want: impl FnOnce(&mut ConnectionMut<'_>) -> bool,
    ) -> PyResult<()> {
        self.shared.wait(waker, self.id, wait, |engine, now| {
            engine.connection(now, self.id).is_some_and(|mut connection| want(&mut connection))
        })
    }
}

/// Send the same datagram on many sessions, with one lock for neighbours of one endpoint. A result of -1: it is over.
#[pyfunction]
pub(crate) fn send_datagrams(
    py: Python<'_>,
    targets: Vec<(Bound<'_, Connection>, u64)>,
    data: &Bound<'_, PyAny>,
) -> PyResult<Vec<i64>> {
    let targets: Vec<_> = targets.iter().map(|(connection, session_id)| (connection.get(), *session_id)).collect();
    let neighbours = || targets.chunk_by(|one, other| Arc::ptr_eq(&one.0.shared, &other.0.shared));
    for group in neighbours() {
        group[0].0.shared.check(py, Closed::Refused)?;
    }
    with_bytes(data, |bytes| {
        let mut results = Vec::with_capacity(targets.len());
        let mut data = SharedDatagram::new(bytes);
        for group in neighbours() {
            group[0].0.shared.act(py, |engine, now| {
                results.extend(group.iter().map(|(connection, session_id)| {
                    let connection = engine.connection(now, connection.id);
                    connection.map_or(-1, |mut one| one.datagrams(*session_id).send_shared(&mut data))
                }));
            });
        }
        results
    })
}

#[pymethods]
impl Connection {
    #[getter]
    fn remote_address(&self) -> (String, u16) {
        self.look(|connection| connection.remote_address()).map_or_else(|| (String::new(), 0), pair)
    }

    #[getter]
    fn address_prefix(&self) -> String {
        self.shared.look(|engine| engine.address_prefix(self.id)).map_or_else(String::new, |one| one.to_string())
    }

    #[getter]
    fn server_name(&self) -> Option<String> {
        self.look(|connection| connection.server_name())?
    }

    #[getter]
    fn peer_certificates<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let chain = self.look(|connection| connection.peer_certificates()).unwrap_or_default();
        chain.iter().map(|der| PyBytes::new(py, der)).collect()
    }

    fn peer_parameters<'py>(&self, py: Python<'py>) -> Option<Vec<(u64, Bound<'py, PyBytes>)>> {
        let parameters = self.look(|connection| connection.peer_parameters())??;
        Some(parameters.iter().map(|(id, value)| (*id, PyBytes::new(py, value))).collect())
    }

    fn facts(&self) -> Option<ConnectionFacts> {
        self.look(|connection| connection.facts()).map(ConnectionFacts)
    }

    #[getter]
    fn max_datagram_payload(&self) -> Option<usize> {
        self.look(|connection| connection.max_datagram())?
    }

    #[pyo3(signature = (bidirectional, header, session_id))]
    fn open_stream(
        &self,
        py: Python<'_>,
        bidirectional: bool,
        header: &[u8],
        session_id: Option<u64>,
    ) -> PyResult<Option<Stream>> {
        self.shared.check(py, Closed::Refused)?;
        let id = self.act(py, |connection| connection.open_stream(bidirectional, header, session_id)).flatten();
        Ok(id.map(|id| Stream::new(self.shared.clone(), self.id, id, session_id.is_none())))
    }

    fn check_loop(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.check(py, Closed::Refused)
    }

    fn wait_streams(&self, bidirectional: bool, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.wait(waker, Wait::Streams(bidirectional), |connection| connection.want_streams(bidirectional))
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
        self.act(py, |connection| connection.add_session(session_id, limits));
        Ok(())
    }

    fn set_concurrent_streams(&self, py: Python<'_>, bidirectional: bool, count: u64) {
        self.act(py, |connection| connection.set_concurrent_streams(bidirectional, count));
    }

    fn set_send_limit(&self, py: Python<'_>, session_id: u64, limit: u64) {
        self.act(py, |connection| connection.set_send_limit(session_id, limit));
    }

    fn set_send_streams(&self, py: Python<'_>, session_id: u64, bidirectional: bool, limit: u64) {
        self.act(py, |connection| connection.set_send_streams(session_id, bidirectional, limit));
    }

    fn end_session(&self, py: Python<'_>, session_id: u64, code: u64) {
        self.act(py, |connection| connection.end_session(session_id, code));
    }

    fn unacked_streams(&self, session_id: u64) -> usize {
        self.look(|connection| connection.unacked_streams(session_id)).unwrap_or(0)
    }

    fn core_streams(&self) -> Option<[u64; 3]> {
        self.look(|connection| connection.core_streams())
    }

    fn wait_session_acked(&self, session_id: u64, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.wait(waker, Wait::SessionAcked(session_id), |connection| connection.want_session_acked(session_id))
    }

    fn send_datagram(&self, session_id: u64, data: &Bound<'_, PyAny>) -> PyResult<i64> {
        self.shared.check(data.py(), Closed::Refused)?;
        with_bytes(data, |bytes| {
            self.act(data.py(), |connection| connection.datagrams(session_id).send(bytes)).unwrap_or(-1)
        })
    }

    fn receive_datagram<'py>(&self, py: Python<'py>, session_id: u64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.shared.check(py, Closed::Refused)?;
        let data = self.look(|connection| connection.datagrams(session_id).receive()).flatten();
        Ok(data.map(|data| PyBytes::new(py, &data)))
    }

    fn receive_datagrams<'py>(&self, py: Python<'py>, session_id: u64, most: usize) -> Vec<Bound<'py, PyBytes>> {
        let mut batch = Vec::new();
        self.look(|connection| {
            while batch.len() < most {
                let Some(data) = connection.datagrams(session_id).receive() else { break };
                batch.push(data);
            }
        });
        batch.iter().map(|data| PyBytes::new(py, data)).collect()
    }

    fn wait_datagram(&self, session_id: u64, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.wait(waker, Wait::Datagram(session_id), |connection| connection.datagrams(session_id).want())
    }

    fn credit(&self, session_id: u64) -> Credit {
        Credit::new(&self.look(|connection| connection.credit(session_id)).flatten().unwrap_or_default())
    }

    fn datagram_stats(&self, session_id: u64) -> DatagramStats {
        DatagramStats::new(
            &self.look(|connection| connection.datagrams(session_id).stats()).flatten().unwrap_or_default(),
        )
    }

    fn close(&self, py: Python<'_>, code: u64, reason: &[u8]) {
        self.act(py, |connection| connection.close(code, reason));
    }

    fn drop_received(&self, py: Python<'_>) {
        self.act(py, |connection| connection.drop_received());
    }

    fn export_keying_material<'py>(
        &self,
        py: Python<'py>,
        label: &[u8],
        context: &[u8],
        length: usize,
    ) -> Option<Bound<'py, PyBytes>> {
        self.look(|connection| connection.export_keying_material(label, context, length))
            .flatten()
            .map(|material| PyBytes::new(py, &material))
    }

    #[getter]
    fn has_qlog(&self) -> bool {
        self.look(|connection| connection.has_qlog()).unwrap_or(false)
    }

    fn note(&self, name: &str, data: &str) {
        self.look(|connection| connection.note(name, data));
    }

    #[expect(clippy::needless_pass_by_value, reason = "what is extracted from an argument is owned")]
    fn start_qlog(&self, path: std::path::PathBuf) -> PyResult<bool> {
        self.look(|connection| connection.start_qlog(&path))
            .transpose()
            .map_err(raise_os)
            .map(Option::unwrap_or_default)
    }

    fn stop_qlog(&self) -> bool {
        self.look(|connection| connection.stop_qlog()).unwrap_or(false)
    }

    fn stats(&self) -> ConnectionStats {
        self.look(|connection| connection.stats())
            .map_or_else(ConnectionStats::default, |stats| ConnectionStats::new(&stats))
    }
}
