//! The endpoint: one engine and, outside of simulations, one socket.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyOSError, PyRuntimeError, PyValueError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyTuple},
};
use wtio_engine::{Engine, Event};

use crate::{
    connection::{Connection, ConnectionFacts},
    home::{Closed, Home},
    options::EndpointOptions,
    stream::Stream,
    tls::{ClientTls, ServerTls, raise},
    waiters::{Wait, Waiters},
};

/// Names of the event kinds, in the order of their numbers.
pub(crate) const EVENT_NAMES: [&str; 18] = [
    "EVENT_INCOMING",
    "EVENT_CONNECTED",
    "EVENT_CLOSED",
    "EVENT_STREAM",
    "EVENT_RAW_STREAM",
    "EVENT_RAW_READABLE",
    "EVENT_RAW_STOPPED",
    "EVENT_DATAGRAM_ERROR",
    "EVENT_CREDIT_DUE",
    "EVENT_STREAMS_DUE",
    "EVENT_CREDIT_EXCEEDED",
    "EVENT_CREDIT_BLOCKED",
    "EVENT_DATAGRAM_ID",
    "EVENT_READY",
    "EVENT_STREAMS_BLOCKED",
    "EVENT_UNREACHABLE",
    "EVENT_SEND_FAILED",
    "EVENT_ERRORS_READ",
];

/// What all objects of an endpoint share.
pub(crate) struct Shared {
    endpoint: Arc<wtio_net::Endpoint>,
    pub(crate) waiters: Waiters,
    /// What asks for a drive, and the event loop that does it.
    scheduler: Mutex<Option<(Py<PyAny>, Py<PyAny>)>>,
    home: Home,
    is_scheduled: AtomicBool,
    start: Instant,
    /// Forks this process had seen when the endpoint was made.
    generation: u64,
}

/// Forks seen by this process, as the child.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// End the guardian and all I/O threads, and wait for them: at interpreter exit.
#[pyfunction]
pub(crate) fn shut_down(py: Python<'_>) {
    // The threads never take the GIL; it is let go so that nobody has to wonder.
    py.detach(wtio_net::shut_down);
}

/// Around a fork: "before", then "parent" or "child". Endpoints the child inherited would speak over its parent's
/// sockets, and threads are not inherited at all.
#[pyfunction]
pub(crate) fn note_fork(stage: &str) -> PyResult<()> {
    match stage {
        "before" => wtio_net::before_fork(),
        "parent" => wtio_net::after_fork(false),
        "child" => {
            GENERATION.fetch_add(1, Ordering::Relaxed);
            wtio_net::after_fork(true);
        }
        other => return Err(PyValueError::new_err(format!("`{other}` is no stage of a fork"))),
    }
    Ok(())
}

impl Shared {
    /// Do something with the engine, then ask Python for a drive if there is output or news.
    pub(crate) fn act<R>(&self, py: Python<'_>, act: impl FnOnce(&mut Engine, Instant) -> R) -> R {
        let (result, has_work) = self.endpoint.act(None, act);
        if has_work {
            self.schedule(py);
        }
        result
    }

    /// As `act`, for what changes nothing.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Engine) -> R) -> R {
        self.endpoint.act(None, |engine, _| look(engine)).0
    }

    /// As `look`, for what depends on the time.
    pub(crate) fn look_now<R>(&self, look: impl FnOnce(&mut Engine, Instant) -> R) -> R {
        self.endpoint.act(None, look).0
    }

    /// Raise RuntimeError unless the caller is on the endpoint's event loop.
    pub(crate) fn check(&self, py: Python<'_>, closed: Closed) -> PyResult<()> {
        if self.home.is_known() {
            return Ok(());
        }
        let event_loop = self.scheduler().as_ref().map(|(_, event_loop)| event_loop.clone_ref(py));
        self.home.look(py, event_loop, closed)
    }

    fn scheduler(&self) -> MutexGuard<'_, Option<(Py<PyAny>, Py<PyAny>)>> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    /// As `act`, from a destructor. The collector may run it on any thread; and the objects of a whole driver may be in
    /// the middle of being collected, and then there is nobody left to ask for a drive.
    pub(crate) fn act_in_drop(&self, py: Python<'_>, act: impl FnOnce(&mut Engine, Instant)) {
        let ((), has_work) = self.endpoint.act(None, act);
        if has_work {
            let asked = if self.home.is_own_thread() { self.call_scheduler(py) } else { self.hand_over(py) };
            if asked.is_err() {
                // The loop is closed.
                self.is_scheduled.store(false, Ordering::Relaxed);
            }
        }
    }

    /// As `call_scheduler`, from another thread than the loop's.
    fn hand_over(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_scheduled.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let scheduler =
            self.scheduler().as_ref().map(|(callback, event_loop)| (callback.clone_ref(py), event_loop.clone_ref(py)));
        if let Some((callback, event_loop)) = scheduler {
            event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (callback,))?;
        }
        Ok(())
    }

    fn schedule(&self, py: Python<'_>) {
        if let Err(error) = self.call_scheduler(py) {
            error.write_unraisable(py, None);
        }
    }

    fn call_scheduler(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_scheduled.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let callback = self.scheduler().as_ref().map(|(callback, _)| callback.clone_ref(py));
        if let Some(callback) = callback {
            callback.call0(py)?;
        }
        Ok(())
    }

    /// Let `waker` wait, or complete it at once where there is nothing to wait for.
    pub(crate) fn wait(
        &self,
        waker: &Bound<'_, PyAny>,
        connection: u64,
        wait: Wait,
        want: impl FnOnce(&mut Engine) -> bool,
    ) -> PyResult<()> {
        let py = waker.py();
        if self.act(py, |engine, _| want(engine)) {
            self.waiters.add(py, connection, wait, waker.clone().unbind());
            return Ok(());
        }
        if !waker.call_method0("done")?.is_truthy()? {
            waker.call_method1("set_result", (py.None(),))?;
        }
        Ok(())
    }
}

/// An OSError with its `errno`, which pyo3's own conversion leaves out.
#[expect(clippy::needless_pass_by_value, reason = "used as map_err(raise_os)")]
fn raise_os(error: std::io::Error) -> PyErr {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => {
            let words = text.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((code, words))
        }
        None => PyOSError::new_err(text),
    }
}

pub(crate) fn address(value: (String, u16)) -> PyResult<SocketAddr> {
    let ip: IpAddr =
        value.0.parse().map_err(|_| PyValueError::new_err(format!("`{}` is not an IP address", value.0)))?;
    Ok(SocketAddr::new(ip, value.1))
}

pub(crate) fn pair(address: SocketAddr) -> (String, u16) {
    // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    (address.ip().to_canonical().to_string(), address.port())
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
        let options = options.for_engine(server_tls.is_some(), seed)?;
        let engine = Engine::new(options, server_tls.map(|tls| &tls.0)).map_err(raise)?;
        Ok(Self {
            shared: Arc::new(Shared {
                endpoint: wtio_net::Endpoint::new(engine, io).map_err(raise_os)?,
                waiters: Waiters::default(),
                scheduler: Mutex::new(None),
                home: Home::default(),
                is_scheduled: AtomicBool::new(false),
                start: Instant::now(),
                generation: GENERATION.load(Ordering::Relaxed),
            }),
        })
    }

    #[pyo3(signature = (ip, port, *, dual_stack = false))]
    fn bind(&self, ip: String, port: u16, dual_stack: bool) -> PyResult<()> {
        self.shared.endpoint.bind(address((ip, port))?, dual_stack).map_err(raise_os)
    }

    fn fileno(&self) -> PyResult<i32> {
        self.shared.endpoint.socket_descriptor().ok_or_else(|| PyOSError::new_err("no socket is open"))
    }

    fn wake_fileno(&self) -> PyResult<i32> {
        self.shared.endpoint.wake_descriptor().ok_or_else(|| PyOSError::new_err("the endpoint is closed"))
    }

    // The scheduler usually belongs to the object that owns this endpoint: a cycle that only the collector can see.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(scheduler) = self.shared.scheduler.try_lock()
            && let Some((callback, event_loop)) = &*scheduler
        {
            visit.call(callback)?;
            visit.call(event_loop)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.forget_scheduler();
    }

    #[getter]
    fn local_address(&self) -> PyResult<(String, u16)> {
        let address = self.shared.endpoint.local_address().map_err(raise_os)?;
        Ok((address.ip().to_string(), address.port()))
    }

    fn set_scheduler(&self, callback: Py<PyAny>, event_loop: &Bound<'_, PyAny>) {
        self.shared.home.settle(event_loop);
        let old = self.shared.scheduler().replace((callback, event_loop.clone().unbind()));
        drop(old);
    }

    #[pyo3(signature = (readable, now_ns = None))]
    fn drive<'py>(&self, py: Python<'py>, readable: bool, now_ns: Option<u64>) -> PyResult<Driven<'py>> {
        if self.shared.generation != GENERATION.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err(
                "this endpoint was made before a fork and belongs to the parent process; make a new one in the child",
            ));
        }
        let mut events = Vec::new();
        let driven = self.shared.endpoint.drive(readable, self.now(now_ns), &mut events);
        self.shared.home.forget();
        let driven = driven.map_err(|panicked| {
            PyRuntimeError::new_err(format!("the QUIC engine panicked, a defect of wtio: {}", panicked.0))
        })?;
        // Whatever Python does with what it gets may need another drive.
        self.shared.is_scheduled.store(false, Ordering::Relaxed);
        let wakes = PyList::empty(py);
        let news = PyList::empty(py);
        for event in events {
            match self.shared.waiters.take(&event) {
                Some(wakers) => {
                    for waker in wakers {
                        wakes.append(waker)?;
                    }
                }
                None => news.append(self.tuple(py, event)?)?,
            }
        }
        Ok((wakes, news, driven.timer.map(|time| time.as_secs_f64()), driven.has_more, driven.is_blocked))
    }

    fn hear(&self) {
        self.shared.endpoint.hear();
    }

    fn flush(&self) {
        // In a child process the drive that follows says what is wrong; nothing may leave over the parent's socket.
        if self.shared.generation == GENERATION.load(Ordering::Relaxed) {
            self.shared.endpoint.flush();
        }
    }

    fn set_now(&self, now_ns: u64) {
        self.shared.endpoint.set_now(self.shared.start + Duration::from_nanos(now_ns));
    }

    #[pyo3(signature = (now_ns, data, source, destination, ecn = 0))]
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
        let now = self.shared.start + Duration::from_nanos(now_ns);
        let has_events = self.shared.endpoint.collect(now, |destination, contents, ecn| {
            out.push((destination, contents.to_vec(), ecn));
        });
        if has_events {
            self.shared.schedule(py);
        }
        out.into_iter().map(|(to, data, ecn)| (pair(to), PyBytes::new(py, &data), ecn)).collect()
    }

    #[pyo3(signature = (address, server_name, tls, now_ns = None))]
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

    fn refuse_new(&self) {
        self.shared.look(Engine::refuse_new);
    }

    fn close(&self) {
        self.shared.endpoint.close();
        self.forget_scheduler();
    }

    #[getter]
    fn connections(&self) -> usize {
        self.shared.look(|engine| engine.connection_count())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let segments = self.shared.endpoint.segments();
        let connections = self.shared.look(|engine| engine.connection_count());
        dict.set_item("connections", connections)?;
        dict.set_item("gso_segments", segments)?;
        Ok(dict)
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
    fn forget_scheduler(&self) {
        // Dropped when the lock is free again: that may run Python code.
        let old = self.shared.scheduler().take();
        drop(old);
    }

    /// Virtual time, where the caller gives it.
    fn now(&self, now_ns: Option<u64>) -> Option<Instant> {
        now_ns.map(|ns| self.shared.start + Duration::from_nanos(ns))
    }

    fn tuple<'py>(&self, py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyTuple>> {
        match event {
            Event::Incoming { connection } => {
                (0, connection, Connection::new(self.shared.clone(), connection)).into_pyobject(py)
            }
            Event::Connected { connection } => (1, connection).into_pyobject(py),
            Event::Closed { connection, cause, code, reason, facts } => {
                (2, connection, cause.name(), code, reason, ConnectionFacts(*facts)).into_pyobject(py)
            }
            Event::Stream { connection, stream: id, session } => {
                (3, connection, Stream::new(self.shared.clone(), connection, id, false), session).into_pyobject(py)
            }
            Event::RawStream { connection, stream: id } => {
                (4, connection, Stream::new(self.shared.clone(), connection, id, true)).into_pyobject(py)
            }
            Event::RawReadable { connection, stream } => (5, connection, stream).into_pyobject(py),
            Event::RawStopped { connection, stream, code } => (6, connection, stream, code).into_pyobject(py),
            Event::DatagramError { connection } => (7, connection).into_pyobject(py),
            Event::CreditDue { connection, session, limit } => (8, connection, session, limit).into_pyobject(py),
            Event::StreamsDue { connection, session, bidirectional, limit } => {
                (9, connection, session, bidirectional, limit).into_pyobject(py)
            }
            Event::CreditExceeded { connection, session } => (10, connection, session).into_pyobject(py),
            Event::CreditBlocked { connection, session, limit } => (11, connection, session, limit).into_pyobject(py),
            Event::DatagramId { connection, session } => (12, connection, session).into_pyobject(py),
            Event::Ready { connection } => (13, connection).into_pyobject(py),
            Event::StreamsBlocked { connection, session, bidirectional, limit } => {
                (14, connection, session, bidirectional, limit).into_pyobject(py)
            }
            Event::Unreachable { connection, errno, is_remote } => (15, connection, errno, is_remote).into_pyobject(py),
            Event::SendFailed { destination, errno, count } => {
                (16, py.None(), errno, count, pair(destination)).into_pyobject(py)
            }
            Event::ErrorsRead => (17, py.None()).into_pyobject(py),
            other => Err(PyRuntimeError::new_err(format!("{other:?} is for waiters only"))),
        }
    }
}
