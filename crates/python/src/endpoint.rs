//! The endpoint: one engine and, outside of simulations, one socket.

use std::{sync::Arc, time::Instant};

use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyOSError, PyRuntimeError},
    prelude::*,
    types::{PyBytes, PyList},
};
use wtio_engine::Engine;

use crate::{
    address::{address, pair},
    connection::Connection,
    event::EngineEvent,
    figures::{EndpointStats, EndpointTotals, MemoryStats, SocketBuffers},
    options::EndpointOptions,
    os_error::raise_os,
    shared::{Shared, note_child},
    states::ForkStage,
    tls::{ClientTls, ServerTls, raise},
};

/// End the guardian and all I/O threads, and wait for them: at interpreter exit.
#[pyfunction]
pub(crate) fn shut_down(py: Python<'_>) {
    // The threads never take the GIL, so this could not deadlock. Released, it lets other Python threads run meanwhile.
    py.detach(wtio_net::shut_down);
}

/// Note a stage of a fork. Endpoints that a child inherits would send over its parent's sockets, and threads are not
/// inherited at all.
#[pyfunction]
pub(crate) fn note_fork(stage: ForkStage) {
    match stage {
        ForkStage::Before => wtio_net::before_fork(),
        ForkStage::Parent => wtio_net::after_fork(false),
        ForkStage::Child => {
            note_child();
            wtio_net::after_fork(true);
        }
    }
}

#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct Endpoint {
    shared: Arc<Shared>,
}

type Driven<'py> = (Bound<'py, PyList>, Bound<'py, PyList>, Option<f64>, bool, bool);
type Payload<'py> = ((String, u16), Bound<'py, PyBytes>, u8);

#[pymethods]
impl Endpoint {
    #[new]
    #[pyo3(signature = (options, *, server_tls, seed))]
    #[expect(clippy::needless_pass_by_value, reason = "what is extracted from an argument is owned")]
    fn new(options: EndpointOptions<'_>, server_tls: Option<&ServerTls>, seed: Option<&[u8]>) -> PyResult<Self> {
        let io = options.io()?;
        let of_engine = options.for_engine(server_tls.is_some(), seed)?;
        let mut engine = Engine::new(of_engine, server_tls.map(|tls| &tls.0)).map_err(raise)?;
        if server_tls.is_some() {
            engine.limit_newcomers(options.for_newcomers()?);
        }
        if let Some(directory) = options.qlog_directory()? {
            engine.write_qlogs(directory);
        }
        Ok(Self { shared: Arc::new(Shared::new(wtio_net::Endpoint::new(engine, io).map_err(raise_os)?)) })
    }

    #[pyo3(signature = (ip, port, *, dual_stack))]
    fn bind(&self, ip: String, port: u16, dual_stack: bool) -> PyResult<()> {
        self.shared.endpoint.bind(address((ip, port))?, dual_stack).map_err(raise_os)
    }

    #[expect(unsafe_code, reason = "the caller vouches for the descriptor")]
    fn adopt(&self, descriptor: wtio_net::Descriptor) -> PyResult<()> {
        #[cfg(unix)]
        use std::os::fd::FromRawFd as _;
        #[cfg(windows)]
        use std::os::windows::io::FromRawSocket as _;

        // SAFETY: Python has detached the descriptor from its socket object, so it is open, and nobody else's.
        #[cfg(unix)]
        let socket = unsafe { std::net::UdpSocket::from_raw_fd(descriptor) };
        // SAFETY: as above.
        #[cfg(windows)]
        let socket = unsafe { std::net::UdpSocket::from_raw_socket(descriptor) };
        self.shared.endpoint.adopt(socket).map_err(raise_os)
    }

    fn fileno(&self) -> PyResult<wtio_net::Descriptor> {
        self.shared.endpoint.socket_descriptor().ok_or_else(|| PyOSError::new_err("no socket is open"))
    }

    fn wake_fileno(&self) -> PyResult<wtio_net::Descriptor> {
        self.shared.endpoint.wake_descriptor().ok_or_else(|| PyOSError::new_err("the endpoint is closed"))
    }

    fn take_wake_fileno(&self) -> PyResult<wtio_net::Descriptor> {
        self.shared.endpoint.take_wake_descriptor().ok_or_else(|| PyOSError::new_err("the endpoint is closed"))
    }

    // The scheduler usually belongs to the object that owns this endpoint: a cycle that only the collector can see.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.shared.traverse(&visit)
    }

    fn __clear__(&self) {
        self.shared.forget_scheduler();
    }

    #[getter]
    fn local_address(&self) -> PyResult<(String, u16)> {
        Ok(pair(self.shared.endpoint.local_address().map_err(raise_os)?))
    }

    fn set_scheduler(&self, callback: Py<PyAny>, event_loop: &Bound<'_, PyAny>) {
        self.shared.set_scheduler(callback, event_loop);
    }

    #[pyo3(signature = (readable, now_ns))]
    fn drive<'py>(&self, py: Python<'py>, readable: bool, now_ns: Option<u64>) -> PyResult<Driven<'py>> {
        if self.shared.is_inherited() {
            return Err(PyRuntimeError::new_err(
                "this endpoint was made before a fork and belongs to the parent process; make a new one in the child",
            ));
        }
        let mut events = Vec::new();
        let driven = self.shared.endpoint.drive(readable, self.now(now_ns), &mut events);
        self.shared.forget_home();
        let driven = driven.map_err(|panicked| {
            PyRuntimeError::new_err(format!("the QUIC engine panicked, a defect of wtio: {}", panicked.0))
        })?;
        // What Python does with wakers and events may make output, which needs another drive.
        self.shared.rearm_scheduler();
        let wakes = PyList::empty(py);
        let for_python = PyList::empty(py);
        for event in events {
            match self.shared.waiters.take(&event) {
                Some(wakers) => {
                    for waker in wakers {
                        wakes.append(waker)?;
                    }
                }
                None => for_python.append(EngineEvent::of(py, &self.shared, event)?)?,
            }
        }
        Ok((wakes, for_python, driven.timer.map(|time| time.as_secs_f64()), driven.has_more, driven.is_blocked))
    }

    fn clear_wake_up(&self) {
        self.shared.endpoint.clear_wake_up();
    }

    fn flush(&self) {
        // In a child process the drive that follows says what is wrong; nothing may leave over the parent's socket.
        if !self.shared.is_inherited() {
            self.shared.endpoint.flush();
        }
    }

    fn set_now(&self, now_ns: u64) {
        self.shared.endpoint.set_now(self.shared.at(now_ns));
    }

    #[pyo3(signature = (now_ns, data, source, destination, ecn))]
    fn deliver(
        &self,
        py: Python<'_>,
        now_ns: u64,
        data: &[u8],
        source: (String, u16),
        destination: (String, u16),
        ecn: u8,
    ) -> PyResult<()> {
        let (source, destination) = (address(source)?, address(destination)?);
        self.shared.endpoint.act(self.now(Some(now_ns)), |engine, now| {
            engine.receive(now, source, Some(destination.ip()), ecn, data.into());
        });
        self.shared.schedule(py);
        Ok(())
    }

    fn collect<'py>(&self, py: Python<'py>, now_ns: u64) -> Vec<Payload<'py>> {
        let mut out = Vec::new();
        let now = self.shared.at(now_ns);
        let has_events = self.shared.endpoint.collect(now, |destination, contents, ecn| {
            out.push((destination, contents.to_vec(), ecn));
        });
        if has_events {
            self.shared.schedule(py);
        }
        out.into_iter().map(|(to, data, ecn)| (pair(to), PyBytes::new(py, &data), ecn)).collect()
    }

    #[pyo3(signature = (address, server_name, tls, now_ns))]
    fn connect(
        &self,
        py: Python<'_>,
        address: (String, u16),
        server_name: &str,
        tls: &ClientTls,
        now_ns: Option<u64>,
    ) -> PyResult<Connection> {
        let remote = self::address(address)?;
        let (id, _) =
            self.shared.endpoint.act(self.now(now_ns), |engine, now| engine.connect(now, remote, server_name, &tls.0));
        let id = id.map_err(raise)?;
        self.shared.schedule(py);
        Ok(Connection::new(self.shared.clone(), id))
    }

    fn set_server_tls(&self, tls: &ServerTls) -> PyResult<()> {
        self.shared.look(|engine| engine.set_server_tls(&tls.0)).map_err(raise)
    }

    fn refuse_new(&self) {
        self.shared.look(Engine::refuse_new);
    }

    fn close(&self) {
        self.shared.endpoint.close();
        self.shared.forget_scheduler();
    }

    #[getter]
    fn has_output(&self) -> bool {
        self.shared.endpoint.has_output()
    }

    #[getter]
    fn connections(&self) -> usize {
        self.shared.look(|engine| engine.connection_count())
    }

    fn stats(&self) -> EndpointStats {
        let (newcomers, astray) = self.shared.look(|engine| (engine.newcomers(), engine.packets_astray()));
        EndpointStats::new(self.connections(), self.shared.endpoint.segments(), &newcomers, astray)
    }

    fn totals(&self, py: Python<'_>) -> PyResult<EndpointTotals> {
        let (totals, accepted) = self.shared.look(|engine| (engine.totals(), engine.newcomers().accepted));
        EndpointTotals::new(py, &totals, accepted)
    }

    fn socket_buffers(&self) -> Option<SocketBuffers> {
        self.shared.endpoint.kernel_buffers().map(SocketBuffers::new)
    }

    fn memory(&self) -> Option<MemoryStats> {
        self.shared.look(|engine| Some(MemoryStats::new(engine.memory()?, engine.holding())))
    }

    fn share_memory(&self, other: &Self) {
        let memory = other.shared.look(|engine| engine.memory().cloned());
        if let Some(memory) = memory {
            self.shared.look(|engine| engine.share_memory(&memory));
        }
    }

    #[getter]
    fn memory_excess(&self) -> u64 {
        self.shared.look(|engine| engine.memory().map_or(0, |memory| memory.used().saturating_sub(memory.most())))
    }

    fn largest_holder(&self) -> Option<(u64, u64)> {
        self.shared.look(|engine| engine.largest_holder())
    }

    fn send_failures(&self) -> Vec<(i32, u64)> {
        self.shared.endpoint.send_failures()
    }

    fn take_wakers(&self) -> Vec<Py<PyAny>> {
        self.shared.waiters.take_all()
    }

    fn sabotage(&self) {
        self.shared.endpoint.sabotage();
    }

    #[getter]
    fn loop_late_total(&self) -> u64 {
        self.shared.endpoint.late()
    }
}

impl Endpoint {
    /// Virtual time, where the caller gives it.
    fn now(&self, now_ns: Option<u64>) -> Option<Instant> {
        now_ns.map(|ns| self.shared.at(ns))
    }
}
