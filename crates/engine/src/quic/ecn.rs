//! Whether packets are marked as ECN-capable (RFC 9000, section 13.4).
//!
//! The core marks every packet with ECT(0) until an ACK shows that the marks are lost or changed on the way. It does not
//! notice a path that drops marked packets: there, a connection is never established, or ends with its idle timeout. So
//! the engine takes the marks off, as RFC 9000, section 13.4.2 and appendix A.4 advise. It cannot put them on again. When a
//! packet without its mark is acknowledged, the core concludes that marks get lost, and marks none any more.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn_proto::{Connection, Transmit};

use super::tap::Tap;

/// How long a peer may hold an acknowledgment back (RFC 9000, section 18.2, the default of max_ack_delay).
const ACK_DELAY: Duration = Duration::from_millis(25);
/// After so many bursts, the peer is asked for an acknowledgment as soon as one is due; with fewer only after [`PATIENCE`].
/// One message and the ACK of its answer are two bursts, and an exchange of messages should not cost further packets.
const EARLY: u32 = 3;
/// How long at least an acknowledgment may be missing before packets count as lost: a busy peer may take a moment.
const PATIENCE: Duration = Duration::from_millis(250);
/// After a pause of this length, the wait for an acknowledgment begins anew. The first burst then may be an ACK of the
/// peer's keep-alive, which is never acknowledged.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was acknowledged so far.
    Testing,
    /// Marked packets arrive. Whether their marks do is for the core to see.
    Capable,
    /// Marked packets were lost, or the peer has moved. No packet is marked any more.
    Failed,
}

/// The marks of one connection.
#[derive(Debug)]
pub(crate) struct Marking {
    /// The peer's address at the start of the connection, the only one to which marked packets are sent.
    path: SocketAddr,
    state: State,
    /// How far the peer's acknowledgments have come: ACK frames during the handshake, the largest acknowledged packet
    /// afterwards. Renewed with each burst.
    progress: u64,
    /// When the first burst after the last progress left, or after that the PING that asks for an acknowledgment. `None`
    /// before the first burst.
    since: Option<Instant>,
    /// Before this time nothing is decided, because the peer may hold its acknowledgment back so long. It saves most bursts
    /// the questions below. `None` before the first progress.
    calm_until: Option<Instant>,
    /// Bursts since the last progress, or the last pause.
    bursts: u32,
    /// Whether a PING has asked for an acknowledgment since the last progress.
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
            // The peer has moved. Only the packets that validate the new path could show whether it takes marks, and if
            // they were lost, the core would go back to a path that no longer exists.
            self.state = State::Failed;
            return 0;
        }
        // The tap does not see the packets of the handshake. There, ACK frames can be counted: a peer acknowledges at once,
        // and each ACK is for something new.
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
            // Until a round trip is measured, the core assumes one, and sends again after three and nine times that. The
            // first time it may only be early, on a long path. What it sends the second time shall have no mark.
            State::Testing if waited > core.rtt() * 5 => self.state = State::Failed,
            State::Capable if self.has_asked && waited >= PATIENCE.max(due * 2) => self.state = State::Failed,
            State::Capable if !self.has_asked && waited > PAUSE => self.begin(now, 1),
            // Losses are sent again after this time or later, so the question comes first. It needs a PING: a side that
            // only reads sends nothing but ACKs, which its peer does not acknowledge (RFC 9000, section 13.2.4).
            State::Capable if !self.has_asked && waited >= due && (self.bursts >= EARLY || waited >= PATIENCE) => {
                self.has_asked = true;
                self.begin(now, self.bursts);
                core.ping();
            }
            _ => {}
        }
        if self.state == State::Failed { 0 } else { mark as u8 }
    }

    /// Wait for an acknowledgment from now on, with so many bursts counted already.
    fn begin(&mut self, now: Instant, bursts: u32) {
        self.since = Some(now);
        self.calm_until = Some(now + ACK_DELAY);
        self.bursts = bursts;
    }
}
