//! The border between wtio's Python and its Rust: classes, conversions and nothing else.
//!
//! Lock order: a thread may hold the GIL and then take a lock of ours; nothing here asks for the GIL, drops a Python
//! object or calls into Python while it holds one, except for `bytes` that travel without a copy: letting them go runs no
//! code, and without the GIL it is put off until somebody has it. Wakers are kept in [`waiters`] as Python objects.
//! `Endpoint.drive` hands them back in batches, so that Python sets them on the loop's own thread.
//!
//! None of that needs the GIL to be there: a Python without one gets a module that says so. What several threads may reach is
//! behind a lock or atomic, and a call from another thread than that of the loop is refused ([`home`]). Where no lock of ours
//! helps, because Python's own objects may change meanwhile, [`buffer`] asks Python for theirs.

mod address;
mod buffer;
mod connection;
mod endpoint;
mod event;
mod figures;
mod home;
#[cfg(target_os = "linux")]
mod memory;
mod options;
mod os_error;
mod shared;
mod states;
mod stream;
mod tls;
mod waiter;
mod waiters;

use pyo3::prelude::*;

/// Only where its effect was measured.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: memory::Split = memory::Split;

#[pymodule(gil_used = false)]
mod _core {
    /// The version of the whole project, which is written in Cargo.toml alone.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::{
        connection::{Connection, send_datagrams},
        endpoint::{Endpoint, note_fork, shut_down},
        event::EngineEvent,
        figures::{
            CertificateFacts, ConnectionFacts, ConnectionStats, Credit, DatagramStats, EndpointStats, EndpointTotals,
            MemoryStats, SocketBuffers, StreamStats,
        },
        states::{CloseCause, ForkStage, HalfState, ReadAnswer},
        stream::Stream,
        tls::{
            ClientAuthorityError, ClientTls, PrivateKeyError, ServerTls, TlsError, certificate_facts,
            generate_certificate, sha256,
        },
        waiter::{Waiter, collect_woken, run_woken},
    };
}
