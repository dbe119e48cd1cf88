//! Events of the engine as Python sees them: one class each, `EngineEvent.Name`, with attributes.

use std::sync::Arc;

use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyType};
use wtio_engine::Event;

use crate::{
    address::pair, connection::Connection, figures::ConnectionFacts, shared::Shared, states::CloseCause, stream::Stream,
};

/// Something that happened, for Python to handle. Each kind of it is a subclass.
#[pyclass(frozen, subclass, get_all, module = "wtio._core")]
pub(crate) struct EngineEvent {
    /// `None` if the event is the endpoint's own.
    connection_id: Option<u64>,
}

/// Declare the events by rows: what the engine reports => the class that stands for it, its `connection_id` and what its
/// other attributes are made of. Of a class with `new`, Python can make objects, too: tests do.
macro_rules! events {
    ($py:ident, $shared:ident; $(
        $reported:pat => $name:ident($id:expr) { $($field:ident: $type:ty = $value:expr),* $(,)? } $($new:ident)?,
    )*) => {
        $(
            #[pyclass(extends = EngineEvent, frozen, get_all, module = "wtio._core")]
            pub(crate) struct $name {
                $($field: $type),*
            }

            constructor! { $($new)? $name { $($field: $type),* } }
        )*

        #[pymethods]
        impl EngineEvent {
            $(
                #[classattr]
                #[expect(non_snake_case, reason = "the name of a class")]
                fn $name(py: Python<'_>) -> Bound<'_, PyType> {
                    py.get_type::<$name>()
                }
            )*
        }

        impl EngineEvent {
            /// Make Python's event of the engine's.
            pub(crate) fn of<'py>(
                $py: Python<'py>, $shared: &Arc<Shared>, event: Event
            ) -> PyResult<Bound<'py, PyAny>> {
                match event {
                    $($reported => {
                        let base = Self { connection_id: $id.into() };
                        let event = PyClassInitializer::from(base).add_subclass($name { $($field: $value),* });
                        Ok(Bound::new($py, event)?.into_any())
                    })*
                    other => Err(PyRuntimeError::new_err(format!("{other:?} is for waiters only"))),
                }
            }
        }
    };
}

macro_rules! constructor {
    ($name:ident $fields:tt) => {};
    (new $name:ident { $($field:ident: $type:ty),* }) => {
        #[pymethods]
        impl $name {
            #[new]
            fn new(connection_id: u64, $($field: $type),*) -> PyClassInitializer<Self> {
                PyClassInitializer::from(EngineEvent { connection_id: Some(connection_id) })
                    .add_subclass(Self { $($field),* })
            }
        }
    };
}

events! { py, shared;
    Event::Incoming { connection } => Incoming(connection) {
        connection: Py<Connection> = Py::new(py, Connection::new(shared.clone(), connection))?,
    },
    Event::Ready { connection } => Ready(connection) {},
    Event::Connected { connection } => Connected(connection) {},
    Event::Closed { connection, cause, code, reason, facts } => Closed(connection) {
        cause: CloseCause = cause.into(),
        code: u64 = code,
        reason: String = reason,
        facts: Py<ConnectionFacts> = Py::new(py, ConnectionFacts(*facts))?,
    },
    Event::Unreachable { connection, errno, is_remote } => Unreachable(connection) {
        errno: i32 = errno,
        is_remote: bool = is_remote,
    },
    Event::Stream { connection, stream, session } => DataStream(connection) {
        stream: Py<Stream> = Py::new(py, Stream::new(shared.clone(), connection, stream, false))?,
        session_id: u64 = session,
    },
    Event::RawStream { connection, stream } => RawStream(connection) {
        stream: Py<Stream> = Py::new(py, Stream::new(shared.clone(), connection, stream, true))?,
    },
    Event::RawReadable { connection, stream } => RawReadable(connection) { stream_id: u64 = stream },
    Event::RawStopped { connection, stream, code } => RawStopped(connection) {
        stream_id: u64 = stream,
        wire_code: u64 = code,
    },
    Event::DatagramError { connection } => DatagramError(connection) {},
    Event::DatagramId { connection, session } => DatagramId(connection) { session_id: u64 = session },
    Event::CreditDue { connection, session, limit } => CreditDue(connection) {
        session_id: u64 = session,
        limit: u64 = limit,
    } new,
    Event::StreamsDue { connection, session, bidirectional, limit } => StreamsDue(connection) {
        session_id: u64 = session,
        bidirectional: bool = bidirectional,
        limit: u64 = limit,
    } new,
    Event::CreditExceeded { connection, session } => CreditExceeded(connection) { session_id: u64 = session } new,
    Event::BytesExceeded { connection, session } => BytesExceeded(connection) { session_id: u64 = session },
    Event::CreditBlocked { connection, session, limit } => CreditBlocked(connection) {
        session_id: u64 = session,
        limit: u64 = limit,
    } new,
    Event::StreamsBlocked { connection, session, bidirectional, limit } => StreamsBlocked(connection) {
        session_id: u64 = session,
        bidirectional: bool = bidirectional,
        limit: u64 = limit,
    },
    Event::SendFailed { destination, errno, count } => SendFailed(None) {
        destination: (String, u16) = pair(destination),
        errno: i32 = errno,
        count: u64 = count,
    },
    Event::ErrorsRead => ErrorsRead(None) {},
    Event::MemoryShort => MemoryShort(None) {},
}
