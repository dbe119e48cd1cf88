//! The Rust fuzz targets with no more of the engine than they test: pure functions, taken by their paths.

#![allow(dead_code, missing_docs)]

#[path = "../../crates/engine/src/quic/frames.rs"]
mod frames;
#[path = "../../crates/engine/src/fuzzing.rs"]
pub mod fuzzing;
#[path = "../../crates/engine/src/header.rs"]
mod header;
#[path = "../../crates/engine/src/varint.rs"]
mod varint;

/// Where the engine has them.
mod quic {
    pub(crate) use crate::frames;
}
