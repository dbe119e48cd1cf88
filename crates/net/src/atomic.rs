//! The atomics of the handoff, which are the standard library's. In its model (tests/handoff.rs) they are loom's.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
