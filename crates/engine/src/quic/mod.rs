//! The adapter to the QUIC core, quinn-proto. No other module names its types.
//!
//! [`core`] is one connection of it, and [`endpoint`] what all connections share; both offer plain types to the engine. Each
//! uses parts that the QUIC core lacks. Of `core`: [`tap`] watches and rewrites the frames of packets, with [`frames`],
//! [`opened`] and [`progress`]; [`ecn`] takes marks off if the path drops marked packets; [`allowance`] bounds what is sent
//! to addresses that are not validated; [`qlog`] writes what happens into a file. Of `endpoint`: [`resets`] bounds stateless resets. [`congestion`] with
//! [`last_packet`], [`handshake`] with [`keys`], [`ids`] and [`tokens`] implement traits of the QUIC core, which calls them.

mod allowance;
mod congestion;
pub(crate) mod core;
mod ecn;
pub(crate) mod endpoint;
pub(crate) mod frames;
mod handshake;
mod ids;
mod keys;
mod last_packet;
mod opened;
mod progress;
mod qlog;
mod resets;
mod tap;
mod tokens;

/// Bytes of UDP payload that every path has to carry (RFC 9000, section 14).
const SMALLEST_MTU: usize = 1200;
