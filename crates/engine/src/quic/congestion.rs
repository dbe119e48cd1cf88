//! Congestion control that tells random losses from a full queue: CUBIC (RFC 9438) with HyStart++ (RFC 9406), but it does not
//! take every loss for congestion.
//!
//! CUBIC does. On a path that loses one packet in a hundred at random, its window stays at some twenty packets, however much
//! the path could carry. But a full queue shows in round-trip times: packets that pass it are late. So there are four rules:
//!
//! - A loss is congestion if the packets around it waited in a queue. If flows share a queue that drops what does not fit,
//!   this is so for each loss, and the window is that of CUBIC. That makes it fair to other flows with CUBIC.
//! - A loss is congestion if more than [`TOLERATED`] is lost. Then the queue was shorter than thought, and from then on half
//!   of the wait at that moment counts as a queue. A policer has no queue at all: there every loss counts from then on.
//! - If the window was cut for that reason, and as much is lost as before, then the window does not cause the losses. The
//!   cut is taken back, and this share of losses is attributed to the path.
//! - A queue can be so long that losses come seconds after their cause. If all packets of a round wait longer than
//!   [`LONG_WAIT`], the window is cut to what the path holds without a queue. If they wait as long as before, other flows
//!   fill the queue, and the cut is taken back.
//!
//! Marks of ECN and persistent congestion (RFC 9002, section 7.6) are always congestion. On a path whose delay varies a lot,
//! nearly every loss looks like congestion, and what remains is CUBIC.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics},
};

/// RFC 9438, section 4.6: what is left of the window after congestion.
const BETA: f64 = 0.7;
/// RFC 9438, section 5: packets per second cubed.
const C: f64 = 0.4;
/// RFC 9438, section 4.3: growth in packets per round trip that equals that of Reno, as long as the window is below its last
/// maximum.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// Share of bytes that may be lost although no queue is seen, in addition to the path's own.
const TOLERATED: f64 = 0.02;
/// No larger share of losses is ever attributed to the path.
const MOST_BY_CHANCE: f64 = 0.15;
/// Packets over which a share of losses is computed; after a cut that may be taken back, more of them.
const SAMPLE: f64 = 100.0;
const TRIAL_SAMPLE: f64 = 200.0;
/// How long a queue is taken to be short; twice as long each time that this is confirmed, up to the second value.
const FIRST_DISTRUST: Duration = Duration::from_secs(10);
const MOST_DISTRUST: Duration = Duration::from_secs(160);
/// The least round-trip time is forgotten after this time or up to twice as much, because routes change.
const RTT_MEMORY: Duration = Duration::from_secs(30);
/// The wait in a queue is measured over so many packets and so much time at least. That is more than one burst of the core
/// (10 packets, or what leaves in 2 ms), whose packets wait for each other.
const BURST_PACKETS: u64 = 16;
const BURST_TIME: Duration = Duration::from_millis(3);
/// A wait from which a queue counts as long, if it is also longer than the least round-trip time.
const LONG_WAIT: Duration = Duration::from_millis(100);
/// Packets of its own that a flow may have in a queue without this counting as congestion.
const FEW: u64 = 3;
/// RFC 9406, section 4.3: samples in a round; by how much growth is slower in conservative slow start; rounds of that.
const ROUND_SAMPLES: u32 = 8;
const CSS_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

/// Makes [`Tolerant`].
pub(super) struct TolerantConfig;

impl ControllerFactory for TolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Tolerant::new(now, current_mtu))
    }
}

/// Bytes that were acknowledged and lost since a share was last computed. Only of packets that were sent after the last cut:
/// losses of earlier ones would make it look as if the cut had not helped.
#[derive(Debug, Clone, Copy, Default)]
struct Losses {
    acked: u64,
    lost: u64,
}

impl Losses {
    fn total(self) -> u64 {
        self.acked + self.lost
    }

    fn share(self) -> f64 {
        self.lost as f64 / self.total().max(1) as f64
    }
}

/// A measurement of [`Tolerant::wait`] that is under way.
#[derive(Debug, Clone, Copy)]
struct Burst {
    since: Instant,
    /// Bytes that were acknowledged since then.
    bytes: u64,
    /// The least round-trip time since then.
    least: Duration,
}

impl Burst {
    fn new(since: Instant) -> Self {
        Self { since, bytes: 0, least: Duration::MAX }
    }
}

/// A cut because of losses without a queue. It is taken back if as much is lost afterwards. The fields say how things were
/// before it.
#[derive(Debug, Clone, Copy)]
struct Trial {
    window: u64,
    ssthresh: u64,
    w_max: f64,
    /// The share of bytes that was lost.
    before: f64,
    /// How long packets waited.
    wait: Duration,
}

/// A cut that shall empty a long queue. It is taken back if the queue stays. The fields but the last say how things were
/// before it.
#[derive(Debug, Clone, Copy)]
struct Drain {
    window: u64,
    w_max: f64,
    w_est: f64,
    k: f64,
    epoch: Option<Instant>,
    /// How long packets waited.
    wait: Duration,
    /// Rounds since the cut.
    rounds: u32,
}

/// The controller of one path. Windows, `acked` and `mtu` are bytes.
#[derive(Debug, Clone)]
pub(super) struct Tolerant {
    /// UDP payload of a full packet; path MTU discovery changes it.
    mtu: u64,
    /// How much may be in flight.
    window: u64,
    /// Below this window growth is that of slow start. Every cut sets it.
    ssthresh: u64,
    /// When the window was last cut. Losses of packets that were sent before it belong to that cut.
    recovery_start: Option<Instant>,

    // CUBIC, by the names of RFC 9438, section 4.1.2.
    /// The window before the last cut, or a little less if it was cut twice in a row.
    w_max: f64,
    /// The window that Reno would have.
    w_est: f64,
    /// Seconds from the beginning of the epoch until the window is `w_max` again.
    k: f64,
    /// When growth began after the last cut; `None` until it does. Moved on by the time in which the application had too
    /// little to send (section 5.8).
    epoch: Option<Instant>,
    /// Since when the application has too little to send; `None` if it has enough.
    idle_since: Option<Instant>,

    // The acknowledgment that is being processed, from `on_ack` to `on_end_acks`.
    /// What it acknowledges and lets the window grow.
    acked: u64,
    /// When the newest of its packets was sent.
    acked_sent: Option<Instant>,
    /// The core's smoothed round-trip time.
    smoothed_rtt: Duration,

    // Round-trip times and waits.
    /// When the newest packet was sent whose round-trip time is known.
    sampled: Option<Instant>,
    /// The least round-trip time lately; `Duration::MAX` before the first.
    min_rtt: Duration,
    /// The least one since the last change of `min_rtt_until`. It becomes `min_rtt` then.
    next_min_rtt: Duration,
    /// When older round-trip times are forgotten.
    min_rtt_until: Instant,
    /// How long packets waited in a queue at least, of all packets of the last measurement. The least, because the first
    /// packets of a burst do not wait for those of their own flow. 0 after a cut, until the next measurement.
    wait: Duration,
    /// The measurement that is under way.
    burst: Burst,
    /// The longest wait since losses showed that the queue is short; `Duration::MAX` if nothing has shown that. Half of it
    /// counts as a queue.
    longest_wait: Duration,
    /// Until when the queue is taken to be short, and for how long the next time.
    distrust_until: Option<Instant>,
    distrust: Duration,

    // Rounds: a round ends when a packet is acknowledged that was sent after its start.
    round_start: Instant,
    /// The least round-trip time of this round, of how many samples, and the least one of the round before.
    round_min: Duration,
    round_samples: u32,
    last_round_min: Duration,
    /// Conservative slow start (RFC 9406): the least round-trip time of the round in which it began, and its rounds so far.
    css: Option<(Duration, u32)>,

    // Losses without a queue.
    /// Those since a share was last computed.
    losses: Losses,
    /// The share of bytes that this path loses whatever we do, as measured so far.
    floor: f64,
    /// Boxed, as `drain` is: few connections ever have one.
    trial: Option<Box<Trial>>,

    // Long queues.
    drain: Option<Box<Drain>>,
    /// Until when other flows are taken to fill the queue, and for how long the next time.
    crowded_until: Option<Instant>,
    patience: Duration,
}

impl Tolerant {
    fn new(now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            window: initial_window(mtu),
            ssthresh: u64::MAX,
            recovery_start: None,
            w_max: 0.0,
            w_est: 0.0,
            k: 0.0,
            epoch: None,
            idle_since: None,
            acked: 0,
            acked_sent: None,
            smoothed_rtt: Duration::ZERO,
            sampled: None,
            min_rtt: Duration::MAX,
            next_min_rtt: Duration::MAX,
            min_rtt_until: now + RTT_MEMORY,
            wait: Duration::ZERO,
            burst: Burst::new(now),
            longest_wait: Duration::MAX,
            distrust_until: None,
            distrust: FIRST_DISTRUST,
            round_start: now,
            round_min: Duration::MAX,
            round_samples: 0,
            last_round_min: Duration::MAX,
            css: None,
            losses: Losses::default(),
            floor: 0.0,
            trial: None,
            drain: None,
            crowded_until: None,
            patience: FIRST_DISTRUST,
        }
    }

    fn least_window(&self) -> u64 {
        2 * self.mtu
    }

    fn is_after_cut(&self, sent: Instant) -> bool {
        self.recovery_start.is_none_or(|start| sent > start)
    }

    fn is_slow_start(&self) -> bool {
        self.window < self.ssthresh
    }

    /// Learn from the newest packet of an acknowledgment how long packets wait.
    fn sample(&mut self, now: Instant, sent: Instant) {
        if self.sampled.is_some_and(|sampled| sent <= sampled) {
            return;
        }
        self.sampled = Some(sent);
        let rtt = now.saturating_duration_since(sent);
        if now > self.min_rtt_until {
            self.min_rtt = self.next_min_rtt;
            self.next_min_rtt = Duration::MAX;
            self.min_rtt_until = now + RTT_MEMORY;
        }
        self.min_rtt = self.min_rtt.min(rtt);
        self.next_min_rtt = self.next_min_rtt.min(rtt);
        if self.is_after_cut(sent) {
            self.burst.least = self.burst.least.min(rtt);
            if self.burst.bytes >= BURST_PACKETS * self.mtu
                && now.saturating_duration_since(self.burst.since) >= BURST_TIME.min(self.smoothed_rtt)
            {
                self.wait = self.burst.least.saturating_sub(self.min_rtt);
                self.longest_wait = self.longest_wait.max(self.wait);
                self.burst = Burst::new(now);
            }
        }
        self.round_min = self.round_min.min(rtt);
        self.round_samples += 1;
        if self.is_slow_start() && self.round_samples >= ROUND_SAMPLES {
            self.watch_slow_start();
        }
        if sent >= self.round_start {
            self.end_round(now);
        }
    }

    /// RFC 9406, section 4.2.
    fn watch_slow_start(&mut self) {
        match self.css {
            None => {
                let step = (self.last_round_min / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
                if self.last_round_min != Duration::MAX && self.round_min >= self.last_round_min + step {
                    self.css = Some((self.round_min, 0));
                }
            }
            Some((baseline, _)) if self.round_min < baseline => self.css = None,
            Some(_) => {}
        }
    }

    fn end_round(&mut self, now: Instant) {
        self.round_start = now;
        if self.round_samples >= ROUND_SAMPLES {
            self.watch_queue(now);
        }
        self.last_round_min = self.round_min;
        self.round_min = Duration::MAX;
        self.round_samples = 0;
        if let Some((baseline, rounds)) = self.css {
            self.css = Some((baseline, rounds + 1));
            if rounds + 1 >= CSS_ROUNDS && self.is_slow_start() {
                self.ssthresh = self.window;
            }
        }
        let sample = if self.trial.is_some() { TRIAL_SAMPLE } else { SAMPLE };
        if self.losses.total() as f64 >= sample * self.mtu as f64 {
            self.judge(now);
            self.losses = Losses::default();
        }
    }

    /// Bound the wait in a queue that is long enough to hold all that is sent, unless other flows fill it.
    fn watch_queue(&mut self, now: Instant) {
        let wait = self.round_min.saturating_sub(self.min_rtt);
        if let Some(drain) = &mut self.drain {
            // What is acknowledged in the first round was sent before the cut.
            drain.rounds += 1;
            if drain.rounds >= 2 {
                if wait > drain.wait / 2 {
                    self.end_drain(now);
                } else {
                    self.drain = None;
                    self.patience = FIRST_DISTRUST;
                }
            }
        } else if wait > LONG_WAIT.max(self.min_rtt) && self.crowded_until.is_none_or(|until| now > until) {
            let Self { window, w_max, w_est, k, epoch, .. } = *self;
            self.drain = Some(Box::new(Drain { window, w_max, w_est, k, epoch, wait, rounds: 0 }));
            self.trial = None;
            let fits = self.min_rtt.as_secs_f64() / self.round_min.as_secs_f64();
            let window = (self.window as f64 * fits) as u64;
            self.cut(now);
            self.window = window.max(self.least_window());
            self.ssthresh = self.window;
            self.w_max = self.window as f64;
        }
    }

    /// Take the cut for a long queue back, if there was one: other flows fill it.
    fn end_drain(&mut self, now: Instant) {
        if let Some(drain) = self.drain.take() {
            self.window = self.window.max(drain.window);
            self.ssthresh = self.window;
            self.w_max = drain.w_max;
            self.w_est = drain.w_est;
            self.k = drain.k;
            self.epoch = drain.epoch;
            self.crowded_until = Some(now + self.patience);
            self.patience = (2 * self.patience).min(MOST_DISTRUST);
        }
    }

    /// A share of losses is known. Decide whether the last cut has changed anything.
    fn judge(&mut self, now: Instant) {
        let share = self.losses.share();
        if let Some(trial) = self.trial.take() {
            // If the losses were congestion, hardly any are left, because the cut was by more than was lost. A share between
            // the two bounds decides nothing.
            if share > trial.before / 3.0 {
                self.floor = share.min(MOST_BY_CHANCE);
                self.distrust = FIRST_DISTRUST;
                self.window = self.window.max(trial.window);
                self.ssthresh = trial.ssthresh;
                self.w_max = trial.w_max;
                self.epoch = None;
            } else if share < trial.before / 8.0 {
                self.learn_queue(now, trial.wait);
            }
        } else if share < self.floor {
            self.floor += (share - self.floor) / 8.0;
        }
    }

    /// Packets were lost because of congestion although no queue was seen: it must be shorter than thought.
    fn learn_queue(&mut self, now: Instant, wait: Duration) {
        self.longest_wait = wait;
        self.distrust_until = Some(now + self.distrust);
        self.distrust = (2 * self.distrust).min(MOST_DISTRUST);
    }

    /// Whether the packets around a loss waited in a queue.
    fn is_queue(&mut self, now: Instant) -> bool {
        if self.min_rtt == Duration::MAX {
            return true;
        }
        let usual = (self.min_rtt / 4).clamp(Duration::from_millis(1), Duration::from_millis(4)).max(self.min_rtt / 24);
        let few = self.min_rtt.mul_f64((FEW * self.mtu) as f64 / self.window as f64).min(self.min_rtt / 4);
        if self.distrust_until.is_some_and(|until| now > until) {
            self.distrust_until = None;
            self.longest_wait = Duration::MAX;
        }
        self.wait >= (usual + few).min(self.longest_wait / 2)
    }

    /// Whether more is lost than chance explains: above what is tolerated by more than three standard deviations.
    fn is_heavy(&self) -> bool {
        let mtu = self.mtu as f64;
        let packets = (self.losses.total().max(self.window) as f64 / mtu).max(SAMPLE);
        let expected = packets * (TOLERATED + 1.25 * self.floor);
        self.losses.lost as f64 / mtu > expected + 3.0 * expected.sqrt()
    }

    /// Make the window smaller, as CUBIC does after congestion.
    fn cut(&mut self, now: Instant) {
        let window = self.window as f64;
        // RFC 9438, section 4.7.
        self.w_max = if window < self.w_max { window * (1.0 + BETA) / 2.0 } else { window };
        self.ssthresh = ((window * BETA) as u64).max(self.least_window());
        self.window = self.ssthresh;
        self.recovery_start = Some(now);
        self.wait = Duration::ZERO;
        self.burst = Burst::new(now);
        self.epoch = None;
        self.css = None;
    }

    /// Make the window larger for so many acknowledged bytes (RFC 9438, section 4).
    fn grow(&mut self, now: Instant, acked: u64) {
        if self.is_slow_start() {
            self.window += if self.css.is_some() { acked / CSS_DIVISOR } else { acked };
            return;
        }
        let mtu = self.mtu as f64;
        let window = self.window as f64;
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.w_max = self.w_max.max(window);
            self.k = ((self.w_max - window) / mtu / C).cbrt();
            self.w_est = window;
            now
        });
        let elapsed = now.saturating_duration_since(epoch).as_secs_f64();
        let cubic = |seconds: f64| C * (seconds - self.k).powi(3) * mtu + self.w_max;
        let alpha = if self.w_est < self.w_max { ALPHA } else { 1.0 };
        self.w_est += alpha * mtu * acked as f64 / window;
        let next = if cubic(elapsed) < self.w_est {
            window.max(self.w_est)
        } else {
            let target = cubic(elapsed + self.smoothed_rtt.as_secs_f64()).clamp(window, 1.5 * window);
            window + (target - window) * acked as f64 / window
        };
        self.window = next as u64;
    }
}

impl Controller for Tolerant {
    fn on_ack(&mut self, _now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.smoothed_rtt = rtt.get();
        self.acked_sent = self.acked_sent.max(Some(sent));
        if self.is_after_cut(sent) {
            self.losses.acked += bytes;
            self.burst.bytes += bytes;
            if !app_limited {
                self.acked += bytes;
            }
        }
    }

    fn on_end_acks(&mut self, now: Instant, _in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        let acked = std::mem::take(&mut self.acked);
        if let Some(sent) = self.acked_sent.take() {
            self.sample(now, sent);
        }
        if app_limited {
            self.idle_since.get_or_insert(now);
        } else if let Some(since) = self.idle_since.take()
            && let Some(epoch) = &mut self.epoch
        {
            *epoch += now.saturating_duration_since(since.max(*epoch));
        }
        if acked > 0 {
            self.grow(now, acked);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost: u64) {
        if !self.is_after_cut(sent) {
            return;
        }
        self.losses.lost += lost;
        if is_persistent {
            self.cut(now);
            self.trial = None;
            self.drain = None;
            self.window = self.least_window();
            return;
        }
        // ECN marks come with no lost bytes.
        if lost == 0 || self.is_queue(now) {
            self.end_drain(now);
            self.cut(now);
            self.trial = None;
            return;
        }
        if self.trial.is_none() && self.drain.is_none() && self.is_heavy() {
            let before = self.losses.lost as f64 / (self.losses.total() as f64).max(SAMPLE * self.mtu as f64);
            let (window, ssthresh, w_max) = (self.window, self.ssthresh, self.w_max);
            let wait = self.wait;
            self.cut(now);
            self.losses = Losses::default();
            if before <= MOST_BY_CHANCE {
                self.trial = Some(Box::new(Trial { window, ssthresh, w_max, before, wait }));
            } else {
                self.learn_queue(now, wait);
            }
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(self.least_window());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.ssthresh = Some(self.ssthresh);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        initial_window(self.mtu)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// RFC 9002, section 7.2.
fn initial_window(mtu: u64) -> u64 {
    (10 * mtu).min(14_720.max(2 * mtu))
}
