//! Congestion control that lets the last packet of a connection pass.
//!
//! A packet with CONNECTION_CLOSE does not count for congestion control (RFC 9002, section 3). But if there is data left to
//! send, the core asks congestion control and its pacer all the same. A closed connection takes no acknowledgments, which
//! would make room. So the packet would never leave, and the peer would learn of the end by its own idle timeout.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics},
};

/// Makes controllers that let the last packet pass.
pub(super) struct LastPacketConfig(pub(super) Arc<dyn ControllerFactory + Send + Sync>);

impl ControllerFactory for LastPacketConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LastPacket { inner: self.0.clone().build(now, current_mtu), is_passing: Arc::default() })
    }
}

/// A controller that can be told to let everything pass.
struct LastPacket {
    /// The controller that decides otherwise.
    inner: Box<dyn Controller>,
    /// There is no window, and so no pacing either. Shared with copies, which the core makes when the path changes.
    is_passing: Arc<AtomicBool>,
}

/// As long as this lives, the controller of a connection lets everything pass.
pub(super) struct Pass(Arc<AtomicBool>);

impl Pass {
    /// For the controller of a connection that is closed and sends nothing else. `None` for a controller of another kind.
    pub(super) fn new(controller: &dyn Controller) -> Option<Self> {
        // The core lends its controller for reading only.
        let copy = controller.clone_box().into_any().downcast::<LastPacket>().ok()?;
        copy.is_passing.store(true, Ordering::Relaxed);
        Some(Self(copy.is_passing))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Controller for LastPacket {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent, lost);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        // The core does not pace windows of more than 32 bits.
        if self.is_passing.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), is_passing: self.is_passing.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
