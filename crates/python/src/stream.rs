//! A stream, as Python sees it.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use pyo3::{
    IntoPyObjectExt, buffer::PyBuffer, exceptions::PyBufferError, prelude::*, pybacked::PyBackedBytes, types::PyBytes,
};
use wtio_engine::{ReadOutcome, ReceiveState, Receiving, SendState, Sending};

use crate::{
    buffer::with_bytes,
    figures::StreamStats,
    home::Closed,
    shared::Shared,
    states::{HalfState, ReadAnswer},
    waiters::Wait,
};

/// Sizes of `bytes` objects that are sent without a copy. For smaller ones a copy is cheaper. A larger one would stay
/// in memory as a whole until its last byte is acknowledged, which is more than a stream's queue may hold.
const WHOLE: RangeInclusive<usize> = 64 * 1024..=256 * 1024;

#[pyclass(frozen, weakref, module = "wtio._core")]
pub(crate) struct Stream {
    shared: Arc<Shared>,
    /// ID of its connection.
    connection: u64,
    #[pyo3(get)]
    id: u64,
    /// Error code with which an unfinished stream is reset when its last reference is gone. Python sets it.
    abandon: AtomicU64,
    /// As Python set it last; the engine does not give it back.
    send_order: AtomicI32,
    /// A control, request or QPACK stream. It is used from callbacks and while the loop is being closed, so calls are
    /// not checked for the running loop.
    is_raw: bool,
}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, connection: u64, id: u64, is_raw: bool) -> Self {
        Self { shared, connection, id, abandon: AtomicU64::new(0), send_order: AtomicI32::new(0), is_raw }
    }

    /// Raise RuntimeError unless the caller is on the stream's event loop.
    fn check(&self, py: Python<'_>, closed: Closed) -> PyResult<()> {
        if self.is_raw { Ok(()) } else { self.shared.check(py, closed) }
    }

    /// Do something with the receiving half in the engine, then ask for a drive if that is needed. `None`: it is gone.
    fn receiving<R>(&self, py: Python<'_>, act: impl FnOnce(&mut Receiving<'_>) -> R) -> Option<R> {
        self.shared.act(py, |engine, now| {
            engine.connection(now, self.connection)?.receiving(self.id).map(|mut half| act(&mut half))
        })
    }

    /// The same for the sending half.
    fn sending<R>(&self, py: Python<'_>, act: impl FnOnce(&mut Sending<'_>) -> R) -> Option<R> {
        self.shared.act(py, |engine, now| {
            engine.connection(now, self.connection)?.sending(self.id).map(|mut half| act(&mut half))
        })
    }

    /// As `sending`, for what changes nothing.
    fn look_sending<R>(&self, look: impl FnOnce(&mut Sending<'_>) -> R) -> Option<R> {
        self.shared.look_now(|engine, now| {
            engine.connection(now, self.connection)?.sending(self.id).map(|mut half| look(&mut half))
        })
    }

    /// Register `waker` if `want`, called with the sending half, says that there is something to wait for.
    fn wait_sending(
        &self,
        waker: &Bound<'_, PyAny>,
        wait: Wait,
        want: impl FnOnce(&mut Sending<'_>) -> bool,
    ) -> PyResult<()> {
        self.shared.wait(waker, self.connection, wait, |engine, now| {
            let mut connection = engine.connection(now, self.connection);
            let half = connection.as_mut().and_then(|connection| connection.sending(self.id));
            half.is_some_and(|mut half| want(&mut half))
        })
    }

    /// Find what is ready, make a `bytes` of that size, and copy once.
    fn read_with<'py>(
        &self,
        py: Python<'py>,
        prepare: impl FnOnce(&mut Receiving<'_>) -> ReadOutcome,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check(py, Closed::Refused)?;
        match self.receiving(py, prepare).unwrap_or(ReadOutcome::Ended) {
            ReadOutcome::Ready(length) => {
                // Clearing the memory first is no loss: without it, the copy is slower by more than that.
                let bytes = PyBytes::new_with(py, length, |out| {
                    self.receiving(py, |half| half.take(out));
                    Ok(())
                })?;
                Ok(bytes.into_any())
            }
            ReadOutcome::Wait => ReadAnswer::Wait.into_bound_py_any(py),
            ReadOutcome::Ended => ReadAnswer::Ended.into_bound_py_any(py),
            ReadOutcome::OverLimit => ReadAnswer::OverLimit.into_bound_py_any(py),
        }
    }
}

fn most(max_bytes: i64) -> usize {
    usize::try_from(max_bytes).unwrap_or(usize::MAX)
}

#[pymethods]
impl Stream {
    #[getter]
    fn abandon_code(&self) -> u64 {
        self.abandon.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_abandon_code(&self, code: u64) {
        self.abandon.store(code, Ordering::Relaxed);
    }

    // ---------------------------------------------------------------- receiving

    fn read<'py>(&self, py: Python<'py>, max_bytes: i64) -> PyResult<Bound<'py, PyAny>> {
        self.read_with(py, |half| half.prepare_read(most(max_bytes)))
    }

    #[expect(unsafe_code, reason = "the buffer protocol hands out a pointer")]
    fn read_into<'py>(&self, buffer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = buffer.py();
        let view = PyBuffer::<u8>::get(buffer)?;
        if view.readonly() || !view.is_c_contiguous() {
            return Err(PyBufferError::new_err("readinto needs a writable, contiguous buffer"));
        }
        self.check(py, Closed::Refused)?;
        let room = view.len_bytes();
        match self.receiving(py, |half| half.prepare_read(room)).unwrap_or(ReadOutcome::Ended) {
            ReadOutcome::Ready(length) => {
                // SAFETY: the view is writable, contiguous, at least `length` long and exported while `view` lives;
                // the GIL is held, so no Python code touches it. Without a GIL, see `with_bytes`.
                let out = unsafe { std::slice::from_raw_parts_mut(view.buf_ptr().cast::<u8>(), length) };
                self.receiving(py, |half| half.take(out));
                length.into_bound_py_any(py)
            }
            ReadOutcome::Wait => ReadAnswer::Wait.into_bound_py_any(py),
            ReadOutcome::Ended | ReadOutcome::OverLimit => ReadAnswer::Ended.into_bound_py_any(py),
        }
    }

    fn read_exactly<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyAny>> {
        self.read_with(py, |half| half.prepare_exactly(count))
    }

    fn read_until<'py>(&self, py: Python<'py>, separator: &[u8], limit: usize) -> PyResult<Bound<'py, PyAny>> {
        self.read_with(py, |half| half.prepare_until(separator, limit))
    }

    fn read_all<'py>(&self, py: Python<'py>, limit: i64) -> PyResult<Bound<'py, PyAny>> {
        let limit = usize::try_from(limit).ok();
        self.read_with(py, |half| half.prepare_all(limit))
    }

    fn receive_state(&self) -> HalfState {
        let state = self.shared.look_now(|engine, now| {
            engine.connection(now, self.connection)?.receiving(self.id).map(|half| half.state())
        });
        state.unwrap_or(ReceiveState::Gone).into()
    }

    fn wait_readable(&self, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(waker.py(), Closed::Refused)?;
        self.shared.wait(waker, self.connection, Wait::Readable(self.id), |engine, now| {
            let mut connection = engine.connection(now, self.connection);
            let half = connection.as_mut().and_then(|connection| connection.receiving(self.id));
            half.is_some_and(|mut half| half.want_read())
        })
    }

    fn stop(&self, py: Python<'_>, code: u64) -> PyResult<bool> {
        self.check(py, Closed::Ignored)?;
        Ok(self.receiving(py, |half| half.stop(code)).unwrap_or(false))
    }

    // ---------------------------------------------------------------- sending

    #[pyo3(signature = (data, start))]
    fn write(&self, data: &Bound<'_, PyAny>, start: usize) -> PyResult<i64> {
        self.check(data.py(), Closed::Refused)?;
        if let Ok(bytes) = data.cast_exact::<PyBytes>()
            && WHOLE.contains(&bytes.as_bytes().len())
        {
            let data = Bytes::from_owner(PyBackedBytes::from(bytes.clone()));
            let rest = data.slice(start.min(data.len())..);
            return Ok(self
                .sending(bytes.py(), |half| half.write_whole(&rest))
                .flatten()
                .map_or(-1, |accepted| accepted as i64));
        }
        with_bytes(data, |bytes| {
            let rest = bytes.get(start..).unwrap_or_default();
            self.sending(data.py(), |half| half.write(rest)).flatten().map_or(-1, |accepted| accepted as i64)
        })
    }

    fn finish(&self, py: Python<'_>) -> PyResult<bool> {
        self.check(py, Closed::Ignored)?;
        Ok(self.sending(py, |half| half.finish()).unwrap_or(false))
    }

    fn reset(&self, py: Python<'_>, code: u64) -> PyResult<bool> {
        self.check(py, Closed::Ignored)?;
        Ok(self.sending(py, |half| half.reset(code)).unwrap_or(false))
    }

    fn send_state(&self) -> HalfState {
        self.look_sending(|half| half.state()).unwrap_or(SendState::Gone).into()
    }

    fn wait_writable(&self, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(waker.py(), Closed::Refused)?;
        self.wait_sending(waker, Wait::Writable(self.id), |half| half.want_write())
    }

    fn wait_acked(&self, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(waker.py(), Closed::Refused)?;
        self.wait_sending(waker, Wait::Acked(self.id), |half| half.want_acked())
    }

    fn wait_stopped(&self, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.wait_sending(waker, Wait::Stopped(self.id), |half| half.want_stopped())
    }

    #[getter]
    fn unacked(&self) -> u64 {
        self.look_sending(|half| half.unacked()).unwrap_or(0)
    }

    #[getter]
    fn send_order(&self) -> i32 {
        self.send_order.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_send_order(&self, py: Python<'_>, send_order: i32) -> PyResult<()> {
        self.check(py, Closed::Refused)?;
        self.send_order.store(send_order, Ordering::Relaxed);
        self.look_sending(|half| half.set_priority(send_order));
        Ok(())
    }

    fn stats(&self) -> StreamStats {
        self.shared
            .look_now(|engine, now| engine.connection(now, self.connection)?.stream_stats(self.id))
            .map_or_else(StreamStats::default, |stats| StreamStats::new(&stats, &self.shared))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let code = self.abandon.load(Ordering::Relaxed);
        // Wakers still registered are dropped after the locks are free again; dropping them may run Python code.
        let mut wakers = Vec::new();
        for wait in [Wait::Readable, Wait::Writable, Wait::Acked, Wait::Stopped].map(|kind| kind(self.id)) {
            wakers.append(&mut self.shared.waiters.remove(self.connection, wait));
        }
        // At interpreter exit there is no Python left, and with it no task that could be woken.
        let _ = Python::try_attach(|py| {
            drop(wakers);
            self.shared.act_in_drop(py, |engine, now| {
                if let Some(mut connection) = engine.connection(now, self.connection) {
                    connection.release(self.id, code);
                }
            });
        });
    }
}
