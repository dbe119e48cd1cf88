//! The sans-IO engine of wtio.
//!
//! It takes UDP payloads and the time, and gives UDP payloads and events: no socket, no clock, no thread, no Python.
//! It carries bytes and counts credit; what a session is, who may open one and what an error means is decided above it.
//! What it knows of WebTransport is only what is hot: the two varints at the head of a data stream, the quarter stream
//! id at the head of a datagram, and the byte and stream credit of a session.
//!
//! Only [`quic`] names types of the QUIC core, so that the core can be exchanged.

#![warn(missing_docs)]

// What the tests share names the crate as its users do.
#[cfg(test)]
extern crate self as wtio_engine;

mod backlog;
mod buffer;
pub mod config;
pub mod connection;
mod datagrams;
pub mod engine;
pub mod error;
pub mod event;
#[cfg(test)]
mod fuzzing;
mod header;
mod identities;
mod key_exchange;
mod key_log;
mod members;
pub mod memory;
pub mod newcomers;
mod pace;
mod peer_credit;
mod qlog;
mod quic;
mod rate;
pub mod receiving;
mod schedule;
mod secret;
pub mod sending;
pub mod session;
pub mod session_datagrams;
pub mod stream;
pub mod tls;
pub mod totals;
pub mod varint;
mod window;

pub use config::Options;
pub use connection::ConnectionMut;
pub use datagrams::SharedDatagram;
pub use engine::{Engine, OutgoingDatagram};
pub use error::SetupError;
pub use event::{CloseCause, ConnectionFacts, ConnectionStats, Event};
pub use memory::{Holding, Memory};
pub use newcomers::{NewcomerFigures, NewcomerLimits, Prefix};
pub use receiving::Receiving;
pub use secret::Secret;
pub use sending::Sending;
pub use session_datagrams::SessionDatagrams;
pub use stream::{ReadOutcome, ReceiveState, SendState, StreamStats};
pub use totals::{Ending, Totals};
