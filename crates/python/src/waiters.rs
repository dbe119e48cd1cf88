//! Python objects that wait for something of the engine.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use rustc_hash::FxHashMap;
use wtio_engine::Event;

/// What a waker waits for: a stream ID or session ID, or whether the streams are bidirectional.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    Readable(u64),
    Writable(u64),
    Acked(u64),
    Stopped(u64),
    Datagram(u64),
    SessionAcked(u64),
    Streams(bool),
}

type Waiting = FxHashMap<(u64, Wait), Vec<Py<PyAny>>>;

/// Wakers by connection and kind. Several may wait for the same thing.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<Waiting>);

/// From this many wakers on, cancelled ones are looked for each time their count doubles.
const PRUNE_FROM: usize = 16;

impl Waiters {
    /// Register a waker. Cancelled ones are dropped, so that waiting with timeouts in a loop leaves nothing behind:
    /// there is only ever one reader and one writer, and other lists are swept as they grow.
    pub(crate) fn add(&self, py: Python<'_>, connection: u64, wait: Wait, waker: Py<PyAny>) {
        let key = (connection, wait);
        let is_single = matches!(wait, Wait::Readable(_) | Wait::Writable(_));
        let mut old = Vec::new();
        {
            let mut waiting = self.lock();
            let list = waiting.entry(key).or_default();
            if is_single || (list.len() >= PRUNE_FROM && list.len().is_power_of_two()) {
                old = std::mem::take(list);
            }
            list.push(waker);
        }
        // Python is asked, and Python objects are dropped, with no lock held.
        if is_single {
            return;
        }
        old.retain(|waker| waker.call_method0(py, "done").and_then(|done| done.is_truthy(py)).is_ok_and(|done| !done));
        if !old.is_empty() {
            let mut waiting = self.lock();
            let list = waiting.entry(key).or_default();
            old.append(list);
            *list = old;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakers that `event` completes; `None` for an event that Python handles itself.
    pub(crate) fn take(&self, event: &Event) -> Option<Vec<Py<PyAny>>> {
        let key = match *event {
            Event::Readable { connection, stream } => (connection, Wait::Readable(stream)),
            Event::Writable { connection, stream } => (connection, Wait::Writable(stream)),
            Event::Acked { connection, stream } => (connection, Wait::Acked(stream)),
            Event::Stopped { connection, stream } => (connection, Wait::Stopped(stream)),
            Event::DatagramReadable { connection, session } => (connection, Wait::Datagram(session)),
            Event::SessionAcked { connection, session } => (connection, Wait::SessionAcked(session)),
            Event::StreamsAvailable { connection, bidirectional } => (connection, Wait::Streams(bidirectional)),
            _ => return None,
        };
        Some(self.remove(key.0, key.1))
    }

    /// Take out all wakers there are; the caller drops or completes them.
    pub(crate) fn take_all(&self) -> Vec<Py<PyAny>> {
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_values().flatten().collect()
    }

    /// Take out all wakers of one kind; the caller drops or completes them.
    pub(crate) fn remove(&self, connection: u64, wait: Wait) -> Vec<Py<PyAny>> {
        let mut waiting = self.lock();
        if waiting.is_empty() {
            return Vec::new();
        }
        waiting.remove(&(connection, wait)).unwrap_or_default()
    }
}
