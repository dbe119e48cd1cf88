//! Whether packets are marked as ECN-capable (RFC 9000, section 13.4).
//!
//! The core marks every packet with ECT(0) until an ACK shows that the marks do not arrive, or not as they left. It takes
//! no notice of marked packets that do not arrive at all, as on a path that drops them: such a connection never comes
//! about, or dies of its idle timeout. So the engine takes the marks off as RFC 9000, section 13.4.2 and appendix A.4
//! advise. It cannot put them on again: an ACK of a packet that left without its mark is to the core the sign that marks
//! get lost, and it marks none any more.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn_proto::{Connection, Transmit};

use super::tap::Tap;

/// How long a peer may hold an acknowledgment back (RFC 9000, section 18.2, the default of max_ack_delay).
const ACK_DELAY: Duration = Duration::from_millis(25);
/// Bursts after which the peer is asked for an acknowledgment so early: more than one message and the ACK of its answer.
const EARLY: u32 = 3;
/// What is not acknowledged for less than this counts as no loss: a busy peer may take a moment.
const PATIENCE: Duration = Duration::from_millis(250);
/// A burst that comes so long after the one before, such as the ACK of a keep-alive, does not ask for an acknowledgment.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was acknowledged.
    Testing,
    /// Marked packets arrive. What becomes of the marks is seen by the core.
    Capable,
    /// Marked packets were lost, or the path is another one.
    Failed,
}

/// The marks of one connection.
#[derive(Debug)]
pub(crate) struct Marking {
    path: SocketAddr,
    state: State,
    /// How far the acknowledgments had come at the last look.
    progress: u64,
    /// When the first burst since then left, or the PING that asks for an acknowledgment.
    since: Option<Instant>,
    /// Until then a peer whose acknowledgments come owes none: most bursts need no arithmetic with times.
    calm_until: Option<Instant>,
    /// Bursts since then.
    bursts: u32,
    /// Whether a PING asks for an acknowledgment since.
    has_asked: bool,
}

impl Marking {
    pub(crate) fn new(path: SocketAddr) -> Self {
        Self { path, state: State::Testing, progress: 0, since: None, calm_until: None, bursts: 0, has_asked: false }
    }

    /// The ECN bits with which a burst leaves.
    pub(crate) fn bits(&mut self, now: Instant, transmit: &Transmit, core: &mut Connection, tap: &Tap) -> u8 {
        let Some(mark) = transmit.ecn else { return 0 };
        if self.state == State::Failed {
            return 0;
        }
        if transmit.destination != self.path {
            // The peer has moved. Whether the new path takes marks could only be found out with the packets that
            // validate it, and if these were lost, the core would go back to a path that is no more.
            self.state = State::Failed;
            return 0;
        }
        // The tap does not see the packets of the handshake. A peer acknowledges them at once, and repeats no ACK.
        let progress = if self.state == State::Testing || core.is_handshaking() {
            core.stats().frame_rx.acks
        } else {
            tap.acknowledged()
        };
        if progress != self.progress {
            self.progress = progress;
            self.state = State::Capable;
            self.has_asked = false;
            self.begin(now, 1);
            return mark as u8;
        }
        self.bursts = self.bursts.saturating_add(1);
        if self.calm_until.is_some_and(|until| now < until) {
            return mark as u8;
        }
        let waited = now - *self.since.get_or_insert(now);
        let due = core.rtt() + ACK_DELAY;
        match self.state {
            // Before it knows of any round trip, the core sends again after three times the one it assumes.
            State::Testing if waited > core.rtt() * 2 => self.state = State::Failed,
            State::Capable if self.has_asked && waited >= PATIENCE.max(due * 2) => self.state = State::Failed,
            State::Capable if !self.has_asked && waited > PAUSE => self.begin(now, 1),
            // What was lost is sent again after this time or later. And who only reads sends nothing but ACKs, which
            // nobody acknowledges (RFC 9000, section 13.2.4).
            State::Capable if !self.has_asked && waited >= due && (self.bursts >= EARLY || waited >= PATIENCE) => {
                self.has_asked = true;
                self.begin(now, self.bursts);
                core.ping();
            }
            _ => {}
        }
        if self.state == State::Failed { 0 } else { mark as u8 }
    }

    /// Wait from now on.
    fn begin(&mut self, now: Instant, bursts: u32) {
        self.since = Some(now);
        self.calm_until = Some(now + ACK_DELAY);
        self.bursts = bursts;
    }
}
