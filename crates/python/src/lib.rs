//! The border between wtio's Python and its Rust: classes, conversions and nothing else.
//!
//! Lock order: a thread may hold the GIL and then take a lock of ours; nothing here asks for the GIL, drops a Python
//! object or calls into Python while it holds one, except for `bytes` that travel without a copy: letting them go runs no
//! code, and without the GIL it is put off until somebody has it. What is waited for lies in [`waiters`] as Python
//! objects, which `Endpoint.drive` hands back in batches, so that Python sets them on the loop's own thread.

mod address;
mod buffer;
mod connection;
mod endpoint;
mod home;
mod options;
mod shared;
mod stream;
mod tls;
mod waiter;
mod waiters;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::{
        connection::{Connection, ConnectionFacts},
        endpoint::{Endpoint, note_fork, shut_down},
        stream::Stream,
        tls::{ClientTls, ServerTls, TlsError, certificate_facts, generate_certificate, sha256},
        waiter::{Waiter, collect_woken, run_woken},
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        for (name, value) in [("WAIT", super::stream::WAIT), ("ENDED", super::stream::ENDED)] {
            module.add(name, value)?;
        }
        module.add("OVER_LIMIT", super::stream::OVER_LIMIT)?;
        for (value, name) in super::endpoint::EVENT_NAMES.iter().enumerate() {
            module.add(*name, value)?;
        }
        Ok(())
    }
}
