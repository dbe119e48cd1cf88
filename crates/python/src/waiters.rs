//! Python futures that wait for something of the engine.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use rustc_hash::FxHashMap;
use wtio_engine::Event;

/// What a future waits for. The number is a stream, a session or a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    Readable(u64),
    Writable(u64),
    Acked(u64),
    Datagram(u64),
    SessionAcked(u64),
    Streams(bool),
}

type Waiting = FxHashMap<(u64, Wait), Vec<Py<PyAny>>>;

/// Futures by connection and kind. Several may wait for the same thing.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<Waiting>);

impl Waiters {
    pub(crate) fn add(&self, connection: u64, wait: Wait, future: Py<PyAny>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((connection, wait)).or_default().push(future);
    }

    /// Futures that `event` completes; `None` for an event that Python handles itself.
    pub(crate) fn take(&self, event: &Event) -> Option<Vec<Py<PyAny>>> {
        let key = match *event {
            Event::Readable { connection, stream } => (connection, Wait::Readable(stream)),
            Event::Writable { connection, stream } => (connection, Wait::Writable(stream)),
            Event::Acked { connection, stream } => (connection, Wait::Acked(stream)),
            Event::DatagramReadable { connection, session } => (connection, Wait::Datagram(session)),
            Event::SessionAcked { connection, session } => (connection, Wait::SessionAcked(session)),
            Event::StreamsAvailable { connection, bidirectional } => (connection, Wait::Streams(bidirectional)),
            _ => return None,
        };
        Some(self.remove(key.0, key.1))
    }

    /// Take out all futures of one kind; the caller drops or completes them.
    pub(crate) fn remove(&self, connection: u64, wait: Wait) -> Vec<Py<PyAny>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return Vec::new();
        }
        waiting.remove(&(connection, wait)).unwrap_or_default()
    }
}
