//! What a task awaits, as asyncio's futures are, but one that may run its task on the spot.
//!
//! asyncio's tasks take anything with `_asyncio_future_blocking` and the methods below for a future. It is written here
//! because every read that waits uses it: as a Python class it would cost more than it saves.

use std::cell::RefCell;

use pyo3::{
    PyTraverseError, PyVisit, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyType},
};

use crate::home;

thread_local! {
    /// The waiters set since `collect_woken`, in their order; `None` if the loop is to run their tasks.
    static WOKEN: RefCell<Option<Vec<Py<Waiter>>>> = const { RefCell::new(None) };
}

/// Those of asyncio's futures; a waiter has no result and no exception of its own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Set,
    Cancelled,
}

#[pyclass(module = "wtio._core")]
pub(crate) struct Waiter {
    /// The loop of the waiting task; `None` only once the collector has taken the waiter apart.
    event_loop: Option<Py<PyAny>>,
    state: State,
    /// asyncio's mark of a future that was yielded by `await`; the task clears it.
    is_blocking: bool,
    /// The task's next step and its context, from when it waits until it is run or scheduled.
    callback: Option<Py<PyAny>>,
    context: Option<Py<PyAny>>,
    /// What `cancel` was given, for CancelledError.
    message: Option<Py<PyAny>>,
}

#[pymethods]
impl Waiter {
    #[new]
    fn new(event_loop: Py<PyAny>) -> Self {
        Self {
            event_loop: Some(event_loop),
            state: State::Waiting,
            is_blocking: false,
            callback: None,
            context: None,
            message: None,
        }
    }

    fn done(&self) -> bool {
        self.state != State::Waiting
    }

    fn cancelled(&self) -> bool {
        self.state == State::Cancelled
    }

    #[pyo3(signature = (value, /))]
    fn set_result(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = value;
        {
            let mut this = slf.borrow_mut();
            this.state = State::Set;
            if this.callback.is_none() {
                return Ok(());
            }
        }
        let is_collected = WOKEN.with_borrow_mut(|woken| match woken {
            Some(woken) => {
                woken.push(slf.clone().unbind());
                true
            }
            None => false,
        });
        if is_collected { Ok(()) } else { Self::run_soon(slf) }
    }

    #[pyo3(signature = (msg = None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        {
            let mut this = slf.borrow_mut();
            if this.state != State::Waiting {
                return Ok(false);
            }
            this.state = State::Cancelled;
            this.message = msg;
        }
        Self::run_soon(slf)?;
        Ok(true)
    }

    fn result(&self, py: Python<'_>) -> PyResult<()> {
        static CANCELLED_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        if self.state != State::Cancelled {
            return Ok(());
        }
        let class = CANCELLED_ERROR.import(py, "asyncio", "CancelledError")?;
        Err(PyErr::from_value(match &self.message {
            Some(message) => class.call1((message,))?,
            None => class.call0()?,
        }))
    }

    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        self.is_blocking
    }

    #[setter(_asyncio_future_blocking)]
    fn set_is_blocking(&mut self, value: bool) {
        self.is_blocking = value;
    }

    fn get_loop(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.event_loop.as_ref().map(|event_loop| event_loop.clone_ref(py))
    }

    #[pyo3(signature = (callback, *, context))]
    fn add_done_callback(slf: &Bound<'_, Self>, callback: Py<PyAny>, context: Py<PyAny>) -> PyResult<()> {
        let is_done = {
            let mut this = slf.borrow_mut();
            this.callback = Some(callback);
            this.context = Some(context);
            this.state != State::Waiting
        };
        if is_done { Self::run_soon(slf) } else { Ok(()) }
    }

    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// Yields itself to the task until it is done.
    fn __next__(slf: Bound<'_, Self>) -> PyResult<Option<Bound<'_, Self>>> {
        {
            let mut this = slf.borrow_mut();
            if this.state != State::Waiting {
                return this.result(slf.py()).map(|()| None);
            }
            this.is_blocking = true;
        }
        Ok(Some(slf))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in [&self.event_loop, &self.callback, &self.context, &self.message].into_iter().flatten() {
            visit.call(object)?;
        }
        Ok(())
    }

    fn __clear__(&mut self) {
        self.event_loop = None;
        self.callback = None;
        self.context = None;
        self.message = None;
    }
}

impl Waiter {
    /// The task that waits, once.
    fn take(&mut self) -> Option<(Py<PyAny>, Py<PyAny>)> {
        Some((self.callback.take()?, self.context.take()?))
    }

    /// Let the loop run the task.
    fn run_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (task, event_loop) = {
            let mut this = slf.borrow_mut();
            (this.take(), this.get_loop(py))
        };
        let (Some((callback, context)), Some(event_loop)) = (task, event_loop) else { return Ok(()) };
        let options = PyDict::new(py);
        options.set_item(intern!(py, "context"), context)?;
        event_loop.bind(py).call_method(intern!(py, "call_soon"), (callback, slf), Some(&options))?;
        Ok(())
    }

    /// Run the task: its next step, until it waits again.
    fn run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let task = slf.borrow_mut().take();
        let Some((callback, context)) = task else { return Ok(()) };
        context.bind(py).call_method1(intern!(py, "run"), (callback, slf))?;
        Ok(())
    }
}

/// From now on, waiters that are set on this thread wait for `run_woken`.
#[pyfunction]
pub(crate) fn collect_woken() {
    WOKEN.set(Some(Vec::new()));
}

/// Run the tasks of the waiters set since `collect_woken`. Later ones run when the loop comes to them.
#[pyfunction]
pub(crate) fn run_woken(py: Python<'_>) -> PyResult<()> {
    let mut woken = WOKEN.take().unwrap_or_default().into_iter();
    let outcome = woken.try_for_each(|waiter| Waiter::run(waiter.bind(py)));
    // Nothing but KeyboardInterrupt and SystemExit leaves a task like this. The others go on if the loop does.
    for waiter in woken {
        Waiter::run_soon(waiter.bind(py))?;
    }
    home::end_callback();
    outcome
}
