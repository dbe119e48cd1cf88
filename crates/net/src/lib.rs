//! The engine's contact with the machine: UDP sockets, and the guardian thread that keeps connections alive while
//! Python's loop is late.
//!
//! Nothing here knows Python. An [`Endpoint`] is an engine and its socket behind one mutex. The loop's thread drives
//! it, and the guardian does so when the loop does not. A thread that holds the mutex never waits for anything else.

#![warn(missing_docs)]

mod atomic;
mod batch;
mod endpoint;
mod guardian;
mod handoff;
#[cfg(target_os = "linux")]
mod icmp;
mod packets;
mod pipe;
mod poller;
mod sending;
mod udp;
mod watch;

pub use endpoint::{Driven, Endpoint, Io, Panicked};
pub use guardian::{after_fork, before_fork, shut_down};
pub use pipe::Descriptor;
pub use udp::{KernelBuffers, Received, UdpEndpoint};
