//! A stream, as Python sees it.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use pyo3::{
    IntoPyObjectExt, buffer::PyBuffer, exceptions::PyBufferError, prelude::*, pybacked::PyBackedBytes, types::PyBytes,
};
use wtio_engine::{Engine, ReadOutcome};

use crate::{
    buffer::with_bytes,
    figures::StreamStats,
    home::Closed,
    shared::Shared,
    states::{HalfState, ReadAnswer},
    waiters::Wait,
};

/// Sizes of `bytes` that travel without a copy. Smaller ones are not worth it; of larger ones, the last bytes would keep
/// more in memory than a stream's queue may hold.
const WHOLE: RangeInclusive<usize> = 64 * 1024..=256 * 1024;

#[pyclass(frozen, weakref, module = "wtio._core")]
pub(crate) struct Stream {
    shared: Arc<Shared>,
    connection: u64,
    #[pyo3(get)]
    id: u64,
    abandon: AtomicU64,
    send_order: AtomicI32,
    /// The library's own: used from callbacks of its loop, and while that loop is being taken down.
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

    /// Find what is ready, make a `bytes` of that size, and copy once.
    fn read_with<'py>(
        &self,
        py: Python<'py>,
        prepare: impl FnOnce(&mut Engine, Instant) -> ReadOutcome,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check(py, Closed::Refused)?;
        match self.shared.act(py, prepare) {
            ReadOutcome::Ready(length) => {
                // Clearing the memory first is no loss: without it, the copy is slower by more than that.
                let bytes = PyBytes::new_with(py, length, |out| {
                    self.shared.act(py, |engine, now| engine.take(now, self.connection, self.id, out));
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
        self.read_with(py, |engine, now| engine.prepare_read(now, self.connection, self.id, most(max_bytes)))
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
        let outcome = self.shared.act(py, |engine, now| engine.prepare_read(now, self.connection, self.id, room));
        match outcome {
            ReadOutcome::Ready(length) => {
                // SAFETY: the view is writable, contiguous, at least `length` long and exported while `view` lives;
                // the GIL is held, so no Python code touches it.
                let out = unsafe { std::slice::from_raw_parts_mut(view.buf_ptr().cast::<u8>(), length) };
                self.shared.act(py, |engine, now| engine.take(now, self.connection, self.id, out));
                length.into_bound_py_any(py)
            }
            ReadOutcome::Wait => ReadAnswer::Wait.into_bound_py_any(py),
            ReadOutcome::Ended | ReadOutcome::OverLimit => ReadAnswer::Ended.into_bound_py_any(py),
        }
    }

    fn read_exactly<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyAny>> {
        self.read_with(py, |engine, now| engine.prepare_exactly(now, self.connection, self.id, count))
    }

    fn read_until<'py>(&self, py: Python<'py>, separator: &[u8], limit: usize) -> PyResult<Bound<'py, PyAny>> {
        self.read_with(py, |engine, now| engine.prepare_until(now, self.connection, self.id, separator, limit))
    }

    fn read_all<'py>(&self, py: Python<'py>, limit: i64) -> PyResult<Bound<'py, PyAny>> {
        let limit = usize::try_from(limit).ok();
        self.read_with(py, |engine, now| engine.prepare_all(now, self.connection, self.id, limit))
    }

    fn receive_state(&self) -> HalfState {
        self.shared.look(|engine| engine.receive_state(self.connection, self.id)).into()
    }

    fn wait_readable(&self, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(waker.py(), Closed::Refused)?;
        self.shared
            .wait(waker, self.connection, Wait::Readable(self.id), |engine| engine.want_read(self.connection, self.id))
    }

    fn stop(&self, py: Python<'_>, code: u64) -> PyResult<bool> {
        self.check(py, Closed::Ignored)?;
        Ok(self.shared.act(py, |engine, now| engine.stop(now, self.connection, self.id, code)))
    }

    // ---------------------------------------------------------------- sending

    #[pyo3(signature = (data, start = 0))]
    fn write(&self, data: &Bound<'_, PyAny>, start: usize) -> PyResult<i64> {
        self.check(data.py(), Closed::Refused)?;
        if let Ok(bytes) = data.cast_exact::<PyBytes>()
            && WHOLE.contains(&bytes.as_bytes().len())
        {
            let data = Bytes::from_owner(PyBackedBytes::from(bytes.clone()));
            let rest = data.slice(start.min(data.len())..);
            return Ok(self
                .shared
                .act(bytes.py(), |engine, _| engine.write_whole(self.connection, self.id, &rest))
                .map_or(-1, |accepted| accepted as i64));
        }
        with_bytes(data, |bytes| {
            let rest = bytes.get(start..).unwrap_or_default();
            self.shared
                .act(data.py(), |engine, _| engine.write(self.connection, self.id, rest))
                .map_or(-1, |accepted| accepted as i64)
        })
    }

    fn finish(&self, py: Python<'_>) -> PyResult<bool> {
        self.check(py, Closed::Ignored)?;
        Ok(self.shared.act(py, |engine, _| engine.finish(self.connection, self.id)))
    }

    fn reset(&self, py: Python<'_>, code: u64) -> PyResult<bool> {
        self.check(py, Closed::Ignored)?;
        Ok(self.shared.act(py, |engine, now| engine.reset(now, self.connection, self.id, code)))
    }

    fn send_state(&self) -> HalfState {
        self.shared.look(|engine| engine.send_state(self.connection, self.id)).into()
    }

    fn wait_writable(&self, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(waker.py(), Closed::Refused)?;
        self.shared
            .wait(waker, self.connection, Wait::Writable(self.id), |engine| engine.want_write(self.connection, self.id))
    }

    fn wait_acked(&self, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(waker.py(), Closed::Refused)?;
        self.shared
            .wait(waker, self.connection, Wait::Acked(self.id), |engine| engine.want_acked(self.connection, self.id))
    }

    fn wait_stopped(&self, waker: &Bound<'_, PyAny>) -> PyResult<()> {
        self.shared.wait(waker, self.connection, Wait::Stopped(self.id), |engine| {
            engine.want_stopped(self.connection, self.id)
        })
    }

    #[getter]
    fn unacked(&self) -> u64 {
        self.shared.look(|engine| engine.unacked(self.connection, self.id))
    }

    #[getter]
    fn send_order(&self) -> i32 {
        self.send_order.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_send_order(&self, py: Python<'_>, send_order: i32) -> PyResult<()> {
        self.check(py, Closed::Refused)?;
        self.send_order.store(send_order, Ordering::Relaxed);
        self.shared.look(|engine| engine.set_priority(self.connection, self.id, send_order));
        Ok(())
    }

    fn stats(&self) -> StreamStats {
        self.shared
            .look_now(|engine, now| engine.stream_stats(now, self.connection, self.id))
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
        // At interpreter exit there is nobody left to tell.
        let _ = Python::try_attach(|py| {
            drop(wakers);
            self.shared.act_in_drop(py, |engine, now| engine.release(now, self.connection, self.id, code));
        });
    }
}
