//! The adapter to the QUIC core, quinn-proto. No other module names its types.
//!
//! [`core`] is one connection of it and [`endpoint`] what all of them share; both speak to the engine in plain types. Behind
//! `core` is what the QUIC core lacks: [`tap`] watches and rewrites the frames of packets, [`ecn`] takes marks off where
//! they do harm, [`allowance`] bounds what goes to addresses that nobody has proved to be his. [`congestion`],
//! [`handshake`], [`ids`] and [`tokens`] stand behind traits of the QUIC core's.

mod allowance;
mod congestion;
pub(crate) mod core;
mod ecn;
pub(crate) mod endpoint;
pub(crate) mod frames;
mod handshake;
mod ids;
mod keys;
mod opened;
mod progress;
mod resets;
mod tap;
mod tokens;

/// Bytes of UDP payload that every path has to carry (RFC 9000, section 14).
const SMALLEST_MTU: usize = 1200;
