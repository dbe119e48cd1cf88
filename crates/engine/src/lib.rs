//! The sans-IO engine of wtio.
//!
//! It takes UDP payloads and the time, and gives UDP payloads and events: no socket, no clock, no thread, no Python.
//! It carries bytes and counts credit; what a session is, who may open one and what an error means is decided above it.
//! What it knows of WebTransport is only what is hot: the two varints at the head of a data stream, the quarter stream
//! id at the head of a datagram, and the byte and stream credit of a session.
//!
//! Only [`quic`] names types of the QUIC core, so that the core can be exchanged.

#![warn(missing_docs)]

mod buffer;
pub mod config;
pub mod error;
pub mod event;
#[cfg(test)]
mod fuzzing;
mod header;
mod members;
pub mod quic;
pub mod session;
pub mod stream;
pub mod tls;
pub mod varint;

pub use config::Options;
pub use error::SetupError;
pub use event::{CloseCause, ConnectionFacts, Event};
pub use quic::{ConnectionStats, Engine, OutgoingDatagram};
pub use stream::{ReadOutcome, ReceiveState, SendState, StreamStats};
