//! A tap between the QUIC core and its packet keys.
//!
//! The core does not report which bytes of a stream were sent or acknowledged, and it does not know RESET_STREAM_AT.
//! Its packet keys, however, are public traits: wrapped, they show the plaintext of every packet just before sealing
//! and just after opening.
//!
//! Watching, the tap notes the STREAM frames of each packet that leaves and looks them up when an ACK for that packet
//! arrives. That gives `wait_acked()` and the byte counts of diagnostics.
//!
//! Rewriting, it gives the core reliable resets (draft-ietf-quic-reliable-stream-reset), so that no reset hides the
//! header of a stream (draft-ietf-webtrans-http3, section 4.4):
//!
//! - Outgoing, RESET_STREAM of a stream with a header becomes RESET_STREAM_AT. The core forgets the data of a stream
//!   that it resets, so as long as the header is not known to be acknowledged it travels in a STREAM frame in front of
//!   the reset, in the same packet: whoever gets the one has the other, however often the core sends it again. The room
//!   for both is taken from the packet in advance, by claiming a longer authentication tag while a reset is under way;
//!   what is not needed becomes PADDING at the front.
//! - Outgoing, STOP_SENDING goes in front of the resets of its packet: the core writes them the other way round.
//! - Incoming, RESET_STREAM_AT becomes an empty STREAM frame that ends the stream at the reset's final size: the core
//!   checks it against the stream's id, its credit and any other final size, and keeps what has arrived. The engine
//!   then reads what the reset promised, and stops the stream in the core, which with a known final size settles state
//!   and credit at once. The STOP_SENDING that the core wants to send for that is of no use to a peer that has reset
//!   the stream, and leaves as a PING ([`STOP_UNSEEN`]). Where nothing of the promise is left to read, the frame
//!   becomes a plain RESET_STREAM instead.
//! - Outgoing, a packet that asks whether the peer is at its new address is shortened to 1200 bytes ([`Tap::set_spare`]).
//!   The room is claimed in the same way, and sealed is only what comes before it.
//! - What breaks a rule of the draft is given to the core in a form that makes it close the connection with the right
//!   error. What cannot be read is left to the core as it is.
//!
//! One rule holds all of this together: a frame never leaves its packet. What the core acknowledges is what it has
//! processed, and a packet that it drops after opening it, such as a duplicate, has no effect here either
//! ([`Tap::is_taken`]).

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use quinn_proto::Side;
use rustc_hash::FxHashMap;

use super::{
    SMALLEST_MTU,
    frames::{self, Frame, Reset},
    opened::Opened,
    progress::Progress,
};
use crate::stream::{Extent, direction};

/// Packets below the largest acknowledged one by this distance are forgotten; the core has long declared them lost.
const FORGET_DISTANCE: u64 = 8192;
/// Bits of [`Tap::changes`]: streams whose acknowledged prefix grew; resets to act on; receiving halves whose extent changed.
const ADVANCED: u8 = 1;
const RESETS: u8 = 2;
const GROWN: u8 = 4;
/// Bytes of each packet that resets under way may claim at most; further resets wait.
const RESERVE_LIMIT: usize = 256;
/// Bytes by which packets may be shortened: enough for any Ethernet. Packets of 1200 bytes, of which this is taken, too,
/// still have room for frames.
const SPARE_LIMIT: usize = 300;

/// With this code the core stops a stream that its peer has reset; the tap makes that frame a PING. It is neither
/// a code of HTTP/3, one of those that it reserves, nor one of WebTransport.
pub(crate) const STOP_UNSEEN: u64 = (1 << 62) - 0x77;

/// What is known of one stream's receiving half.
#[derive(Debug, Default)]
struct Arrival {
    progress: Progress,
    extent: Extent,
    /// Bytes at the start of the stream that the engine has read as its header.
    header: u64,
    /// The first reset, with the smallest reliable size of all; 0 for RESET_STREAM.
    reset: Option<Reset>,
    /// Nobody reads on: the stream was stopped here, or the core has its reset. Only its extent still counts.
    is_settled: bool,
}

#[derive(Debug)]
struct SentFrame {
    packet: u64,
    stream: u64,
    content: Content,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    Bytes { start: u64, end: u64 },
    Reset,
}

/// A reset of ours that is not acknowledged.
#[derive(Debug)]
struct Departure {
    /// Size of the stream's header, which must arrive.
    reliable: u64,
    /// The header, unless it was acknowledged when the reset was given.
    header: Vec<u8>,
    claimed: usize,
    /// Last packet in which it was written, to write it once per packet.
    packet: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    opened: Opened,
    streams: FxHashMap<u64, Progress>,
    /// Receiving halves: those that the engine has registered, and streams of the peer that came with the packet that is
    /// being handled. The core's limits of streams bound it, and a packet for those that break them.
    arrivals: FxHashMap<u64, Box<Arrival>>,
    /// Streams of the peer (bidirectional, unidirectional) that were registered at one time or another. A stream below
    /// that without an arrival is one that the engine has forgotten.
    registered: [u64; 2],
    /// Bounded by RESERVE_LIMIT: each claims at least a byte.
    departures: FxHashMap<u64, Departure>,
    /// Receiving halves whose extent changed, since the engine looked last, which is after each packet.
    grown: Vec<u64>,
    /// STREAM and reset frames in flight, by rising packet number. Bounded by the congestion window and FORGET_DISTANCE.
    flight: VecDeque<SentFrame>,
    largest_acked: u64,
    /// Bytes that came on all streams: up to the highest offset of each.
    came: u64,
    /// Bytes of all streams that the peer has acknowledged and before which none is missing.
    delivered: u64,
    /// Streams whose acknowledged prefix grew, since the engine looked last, which is after each packet.
    advanced: Vec<u64>,
    /// Streams with a reset that the engine has to act on; the same.
    resets: Vec<u64>,
    scratch: Vec<u8>,
}

/// Shared by the engine and the packet keys of one connection.
#[derive(Debug)]
pub(crate) struct Tap {
    state: Mutex<State>,
    side: Side,
    /// Whether we take RESET_STREAM_AT, and have said so.
    accepts_resets: bool,
    /// Transport parameters of the peer as they came, and whether it takes RESET_STREAM_AT.
    peer: OnceLock<(Vec<u8>, bool)>,
    /// Bytes of each packet claimed by resets, and spare ones. Constant while the core builds packets: it only changes when
    /// the engine gives a reset or asks for spare bytes, and when a packet arrives.
    reserve: AtomicUsize,
    /// Those of them by which packets that ask for the peer's address are shortened.
    spare: AtomicUsize,
    /// By how much the last such packet was.
    cut: AtomicUsize,
    /// The core is through with the handshake and takes packets with application data.
    is_established: AtomicBool,
    /// A stop was given to the core that the peer must not see.
    has_unseen_stops: AtomicBool,
    /// A reset came that promised bytes. On most connections none ever does, and then nobody has to look for one.
    has_promises: AtomicBool,
    /// What there is to take. Most packets bring little of it, and then nobody has to lock.
    changes: AtomicU8,
    /// Largest packet number that the peer has acknowledged.
    acknowledged: AtomicU64,
    /// The state's `came` and `delivered`, after the last packet.
    came: AtomicU64,
    delivered: AtomicU64,
    /// A server's: a packet with the keys of the handshake came, and only who received ours can have those.
    is_client_heard: AtomicBool,
    /// Bytes beyond the header that resets promise, for tests of the receiving side.
    #[cfg(test)]
    pub(crate) promise: std::sync::atomic::AtomicU64,
    /// Packets that had an effect here.
    #[cfg(test)]
    pub(crate) taken: std::sync::atomic::AtomicU64,
    /// What the next packet holds in place of what the core has put into it, for tests.
    #[cfg(test)]
    pub(crate) instead: Mutex<Vec<u8>>,
    /// Frames of the packets that left.
    #[cfg(test)]
    pub(crate) sent: Mutex<Vec<Vec<u8>>>,
}

impl Tap {
    pub(crate) fn new(side: Side, accepts_resets: bool) -> Self {
        Self {
            state: Mutex::default(),
            side,
            accepts_resets,
            peer: OnceLock::new(),
            reserve: AtomicUsize::new(0),
            spare: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            is_established: AtomicBool::new(false),
            has_unseen_stops: AtomicBool::new(false),
            has_promises: AtomicBool::new(false),
            changes: AtomicU8::new(0),
            acknowledged: AtomicU64::new(0),
            came: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            is_client_heard: AtomicBool::new(false),
            #[cfg(test)]
            promise: std::sync::atomic::AtomicU64::new(0),
            #[cfg(test)]
            taken: std::sync::atomic::AtomicU64::new(0),
            #[cfg(test)]
            instead: Mutex::default(),
            #[cfg(test)]
            sent: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_peer(&self, parameters: &[u8], takes_resets: bool) {
        let _ = self.peer.set((parameters.to_vec(), takes_resets));
    }

    /// The peer's transport parameters as they came, once they are known.
    pub(crate) fn peer_parameters(&self) -> Option<&[u8]> {
        self.peer.get().map(|(parameters, _)| parameters.as_slice())
    }

    /// Whether both sides speak RESET_STREAM_AT towards the peer. The directions are independent; a switch of ours turns
    /// off both.
    pub(crate) fn sends_resets(&self) -> bool {
        self.accepts_resets && self.peer.get().is_some_and(|(_, takes_resets)| *takes_resets)
    }

    /// Whether there is anything to take.
    pub(crate) fn has_changes(&self) -> bool {
        self.changes.load(Ordering::Relaxed) != 0
    }

    /// Whether there are changes of this kind; not again before the next.
    fn take_change(&self, kind: u8) -> bool {
        self.changes.load(Ordering::Relaxed) & kind != 0 && self.changes.fetch_and(!kind, Ordering::Relaxed) & kind != 0
    }

    /// Largest packet number, of those for application data, that the peer has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether the client has shown that it receives what is sent to its address (RFC 9000, section 8.1).
    pub(crate) fn is_client_heard(&self) -> bool {
        self.is_client_heard.load(Ordering::Relaxed)
    }

    /// A packet with the keys of the handshake came.
    pub(super) fn set_client_heard(&self) {
        self.is_client_heard.store(true, Ordering::Relaxed);
    }

    /// The handshake is complete: from this packet on the core takes application data.
    pub(crate) fn set_established(&self) {
        self.is_established.store(true, Ordering::Relaxed);
    }

    /// A stop with the code [`STOP_UNSEEN`] is given to the core.
    pub(crate) fn expect_unseen_stop(&self) {
        self.has_unseen_stops.store(true, Ordering::Relaxed);
    }

    pub(crate) fn register(&self, stream: u64) {
        self.state().streams.insert(stream, Progress::default());
    }

    /// Count what arrives on a stream, also what came with the packet that opened it, until it is forgotten.
    pub(crate) fn register_receiving(&self, stream: u64) {
        let mut state = self.state();
        state.arrivals.entry(stream).or_default();
        if is_from_peer(stream, self.side) {
            let registered = &mut state.registered[direction(stream)];
            *registered = (*registered).max((stream >> 2) + 1);
        }
    }

    /// Nobody reads the stream any more: of what still arrives only the extent counts, and a reset need keep no promise.
    pub(crate) fn settle(&self, stream: u64) {
        if let Some(arrival) = self.state().arrivals.get_mut(&stream) {
            arrival.settle();
        }
    }

    /// The engine has read the header of a peer's stream: a reset can no longer hide it.
    pub(crate) fn set_header(&self, stream: u64, length: u64) {
        if let Some(arrival) = self.state().arrivals.get_mut(&stream) {
            arrival.header = length;
        }
    }

    /// Forget a stream; how many of the `pushed` bytes that were to be sent are not delivered, and never will be.
    pub(crate) fn forget(&self, stream: u64, pushed: u64) -> u64 {
        let mut state = self.state();
        state.arrivals.remove(&stream);
        state.streams.remove(&stream).map_or(0, |progress| pushed.saturating_sub(progress.acked))
    }

    /// Bytes that came on all streams: up to the highest offset of each.
    #[inline]
    pub(crate) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Bytes of all streams that the peer has acknowledged and before which none is missing.
    #[inline]
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Contiguous bytes of a stream that arrived, header included.
    pub(crate) fn received(&self, stream: u64) -> u64 {
        self.state().arrivals.get(&stream).map_or(0, |arrival| arrival.progress.acked)
    }

    /// How far a stream of the peer reaches, as far as is known.
    pub(crate) fn extent(&self, stream: u64) -> Extent {
        self.state().arrivals.get(&stream).map_or_else(Extent::default, |arrival| arrival.extent)
    }

    /// Streams whose extent changed since the last call, and how far they reach now.
    pub(crate) fn take_grown(&self, into: &mut Vec<(u64, Extent)>) {
        if !self.take_change(GROWN) {
            return;
        }
        let mut state = self.state();
        let state = &mut *state;
        for stream in state.grown.drain(..) {
            if let Some(arrival) = state.arrivals.get(&stream) {
                into.push((stream, arrival.extent));
            }
        }
    }

    /// Offsets (sent, acknowledged) of a stream.
    pub(crate) fn progress(&self, stream: u64) -> (u64, u64) {
        self.state().streams.get(&stream).map_or((0, 0), |p| (p.sent, p.acked))
    }

    /// Streams whose acknowledged prefix grew since the last call.
    pub(crate) fn take_advanced(&self, into: &mut Vec<u64>) {
        if !self.take_change(ADVANCED) {
            return;
        }
        into.append(&mut self.state().advanced);
    }

    /// Announce a reset that the engine is about to give to the core. `header` is what the peer may not have yet. False:
    /// too many resets are under way, try again when packets have arrived.
    pub(crate) fn send_reset(&self, stream: u64, reliable: u64, header: &[u8]) -> bool {
        #[cfg(test)]
        let reliable = reliable + self.promise.load(Ordering::Relaxed);
        let mut room = Vec::new();
        crate::varint::write(reliable, &mut room);
        if !header.is_empty() {
            frames::write_start(stream, header, &mut room);
        }
        let claimed = room.len();
        let mut state = self.state();
        if self.reserve.load(Ordering::Relaxed) - self.spare.load(Ordering::Relaxed) + claimed > RESERVE_LIMIT {
            return false;
        }
        self.reserve.fetch_add(claimed, Ordering::Relaxed);
        // The room of a reset is freed with it, once.
        debug_assert!(!state.departures.contains_key(&stream));
        let departure = Departure { reliable, header: header.to_vec(), claimed, packet: None };
        state.departures.insert(stream, departure);
        true
    }

    /// The reset announced last for a stream will not be sent.
    pub(crate) fn cancel_reset(&self, stream: u64) {
        if let Some(departure) = self.state().departures.remove(&stream) {
            self.reserve.fetch_sub(departure.claimed, Ordering::Relaxed);
        }
    }

    /// Bytes of each packet that resets under way claim, and spare ones.
    pub(crate) fn reserve(&self) -> usize {
        self.reserve.load(Ordering::Relaxed)
    }

    /// Shorten packets that ask whether the peer is where it seems to be by this much, if that leaves 1200 bytes.
    pub(crate) fn set_spare(&self, bytes: usize) {
        let bytes = bytes.min(SPARE_LIMIT);
        let before = self.spare.swap(bytes, Ordering::Relaxed);
        self.reserve.fetch_add(bytes, Ordering::Relaxed);
        self.reserve.fetch_sub(before, Ordering::Relaxed);
    }

    /// Bytes at the end of a packet that is about to be sealed which are left out. `payload` begins with its frames.
    pub(super) fn cut(&self, size: usize, payload: &[u8]) -> usize {
        let spare = self.spare.load(Ordering::Relaxed);
        // What probes for an MTU has to keep its size.
        if spare == 0 || !frames::has_challenge(payload) {
            return 0;
        }
        let cut = spare.min(size.saturating_sub(SMALLEST_MTU));
        self.cut.store(cut, Ordering::Relaxed);
        cut
    }

    /// By how much the packet that was just made is shorter than the core knows.
    pub(crate) fn take_cut(&self) -> usize {
        self.cut.swap(0, Ordering::Relaxed)
    }

    /// Streams with a reliable reset that the engine has not acted on.
    pub(crate) fn take_resets(&self, into: &mut Vec<u64>) {
        if self.take_change(RESETS) {
            into.append(&mut self.state().resets);
        }
    }

    /// The reset of a stream, if it promised bytes and the engine has not settled it.
    #[inline]
    pub(crate) fn reset_of(&self, stream: u64) -> Option<Reset> {
        if !self.has_promises.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state();
        let arrival = state.arrivals.get(&stream)?;
        arrival.reset.filter(|_| !arrival.is_settled)
    }

    /// Whether the core processes a packet that it has just opened. It drops what it has seen before, also what it cannot
    /// tell from that, and application data that overtook the end of the handshake.
    fn is_taken(&self, state: &mut State, packet: u64) -> bool {
        state.opened.is_new(packet) && self.is_established.load(Ordering::Relaxed)
    }

    /// See a packet just before it is sealed. The last `reserve` bytes of `payload` are unused as yet.
    pub(super) fn packet_leaves(&self, packet: u64, payload: &mut [u8], reserve: usize) {
        #[cfg(test)]
        {
            let frames = std::mem::take(&mut *self.instead.lock().unwrap_or_else(PoisonError::into_inner));
            if !frames.is_empty() {
                payload.fill(0);
                payload[..frames.len()].copy_from_slice(&frames);
            }
        }
        let mut state = self.state();
        let state = &mut *state;
        let used = payload.len().saturating_sub(reserve);
        if reserve > 0 {
            let mut out = std::mem::take(&mut state.scratch);
            out.clear();
            frames::replace_resets(&payload[..used], &mut out, |reset, out| state.write_reset(packet, reset, out));
            if out.len() > payload.len() {
                // Cannot be, as every reset under way claimed its room; a plain RESET_STREAM is the way out.
                out.clear();
                out.extend_from_slice(&payload[..used]);
            }
            let padding = payload.len() - out.len();
            payload[..padding].fill(0);
            payload[padding..].copy_from_slice(&out);
            state.scratch = out;
        }
        let has_unseen_stops = self.has_unseen_stops.load(Ordering::Relaxed);
        if state.streams.is_empty() && !has_unseen_stops {
            return;
        }
        let mut unseen = Vec::new();
        let mut has_resets = false;
        // With room claimed, the frames stand at the end and PADDING in front of them.
        frames::walk(payload, |place, frame| match frame {
            Frame::Stream { stream, start, end, .. } => {
                if let Some(progress) = state.streams.get_mut(&stream) {
                    progress.sent = progress.sent.max(end);
                    state.flight.push_back(SentFrame { packet, stream, content: Content::Bytes { start, end } });
                }
            }
            Frame::Stop { code: STOP_UNSEEN } if has_unseen_stops => unseen.push(place),
            Frame::Reset(_) => has_resets = true,
            _ => {}
        });
        for place in unseen {
            // The core waits for an acknowledgement of the packet, so something in it has to ask for one.
            payload[place.clone()].fill(frames::PADDING);
            payload[place.start] = frames::PING;
        }
        if has_resets {
            // Chromium forgets the code of a STOP_SENDING that comes behind the reset of the same stream.
            frames::stops_before_resets(payload);
        }
        #[cfg(test)]
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(payload.to_vec());
    }

    /// See a packet just after it was opened, and change it where the core cannot take it as it is.
    pub(super) fn packet_arrives(&self, packet: u64, payload: &mut BytesMut) {
        let mut state = self.state();
        let state = &mut *state;
        if !self.is_taken(state, packet) {
            return;
        }
        #[cfg(test)]
        self.taken.fetch_add(1, Ordering::Relaxed);
        let mut has_resets = false;
        // The first stream whose final size changes.
        let mut violating = None;
        frames::walk(payload, |_, frame| match frame {
            Frame::Acked { first, last } => state.acknowledge(first, last, &self.reserve),
            Frame::Stream { stream, start, end, is_last } => {
                let Some(arrival) = state.arrival(self.side, stream) else { return };
                if arrival.contradicts(end, is_last) {
                    violating.get_or_insert(stream);
                }
                if !arrival.is_settled {
                    arrival.progress.acknowledge(start, end);
                }
                let before = arrival.extent.end;
                if arrival.reach(end, is_last, false) {
                    let more = arrival.extent.end - before;
                    state.came += more;
                    if state.grown.last() != Some(&stream) {
                        state.grown.push(stream);
                    }
                }
            }
            Frame::Stop { .. } => {}
            Frame::Reset(reset) => {
                has_resets = true;
                if reset.reliable.is_some() && !self.accepts_resets {
                    return;
                }
                let Some(arrival) = state.arrival(self.side, reset.stream) else { return };
                if arrival.contradicts(reset.size, true) {
                    violating.get_or_insert(reset.stream);
                }
                let is_plain = arrival.is_settled || reset.reliable.unwrap_or(0) <= arrival.header;
                let before = arrival.extent.end;
                if arrival.reach(reset.size, true, is_plain) {
                    let more = arrival.extent.end - before;
                    state.came += more;
                    state.grown.push(reset.stream);
                }
            }
        });
        if has_resets || violating.is_some() {
            let mut out = Vec::with_capacity(payload.len() + 64);
            if let Some(stream) = violating {
                state.write_final_size_error(self.side, stream, &mut out);
            }
            frames::replace_resets(payload, &mut out, |reset, out| {
                (self.accepts_resets || reset.reliable.is_none()) && state.read_reset(self.side, reset, out)
            });
            *payload = BytesMut::from(&out[..]);
        }
        let mut changes = 0;
        if !state.advanced.is_empty() {
            changes |= ADVANCED;
        }
        if !state.resets.is_empty() {
            changes |= RESETS;
            self.has_promises.store(true, Ordering::Relaxed);
        }
        if !state.grown.is_empty() {
            changes |= GROWN;
        }
        if changes != 0 {
            self.changes.fetch_or(changes, Ordering::Relaxed);
        }
        self.acknowledged.store(state.largest_acked, Ordering::Relaxed);
        self.came.store(state.came, Ordering::Relaxed);
        self.delivered.store(state.delivered, Ordering::Relaxed);
        let horizon = state.largest_acked.saturating_sub(FORGET_DISTANCE);
        while state.flight.front().is_some_and(|f| f.packet < horizon) {
            state.flight.pop_front();
        }
    }
}

/// Whether the peer opened a stream (RFC 9000, section 2.1).
fn is_from_peer(stream: u64, side: Side) -> bool {
    (stream & 1 == 1) == side.is_client()
}

impl Arrival {
    /// Whether a frame that reaches to `end` breaks the rule that a final size never changes (RFC 9000, section 4.5).
    fn contradicts(&self, end: u64, is_final: bool) -> bool {
        let known = self.extent;
        known.is_final && (end > known.end || is_final && end != known.end) || is_final && end < known.end
    }

    fn settle(&mut self) {
        self.is_settled = true;
        self.progress.beyond = None;
    }

    /// Note how far the stream reaches; whether that changed.
    fn reach(&mut self, end: u64, is_final: bool, is_reset: bool) -> bool {
        let before = self.extent;
        self.extent.end = before.end.max(end);
        self.extent.is_final |= is_final;
        self.extent.is_reset |= is_reset;
        self.extent != before
    }

    /// Note a reset that agrees with those before it.
    fn note(&mut self, reset: Reset) {
        let known = self.reset.get_or_insert(reset);
        // Draft, section 5.2: the reliable size only falls; a frame that would raise it was overtaken.
        known.reliable = known.reliable.min(reset.reliable);
    }
}

impl State {
    /// The receiving half of a stream, unless it is one that the engine has forgotten or that is not there.
    fn arrival(&mut self, side: Side, stream: u64) -> Option<&mut Arrival> {
        if is_from_peer(stream, side) && stream >> 2 >= self.registered[direction(stream)] {
            // New: the engine will register it when the core is through with the packet.
            return Some(self.arrivals.entry(stream).or_default());
        }
        self.arrivals.get_mut(&stream).map(|arrival| &mut **arrival)
    }

    /// Write frames for which the core closes the connection with FINAL_SIZE_ERROR, whether or not it remembers the stream
    /// in question: two resets at different sizes. They come for that stream, for one that has not ended, and for the peer's
    /// next one, of which the core knows at least one: where the peer may open none, others are open.
    fn write_final_size_error(&self, side: Side, violating: u64, out: &mut Vec<u8>) {
        let initiator = if side.is_client() { 1 } else { 0 };
        let next = self.registered[1] << 2 | 2 | initiator;
        let is_known = |stream: u64| !is_from_peer(stream, side) || stream >> 2 < self.registered[direction(stream)];
        let open = self
            .arrivals
            .iter()
            .find(|(stream, arrival)| is_known(**stream) && !arrival.extent.is_final && !arrival.is_settled)
            .map(|(stream, _)| *stream);
        for stream in [Some(violating), open, Some(next)].into_iter().flatten() {
            for size in [0, 1] {
                Reset { stream, code: 0, size, reliable: None }.write(out);
            }
        }
    }

    fn acknowledge(&mut self, first: u64, last: u64, reserve: &AtomicUsize) {
        self.largest_acked = self.largest_acked.max(last);
        let from = self.flight.partition_point(|f| f.packet < first);
        let to = self.flight.partition_point(|f| f.packet <= last);
        for index in from..to {
            let SentFrame { stream, content, .. } = self.flight[index];
            match content {
                Content::Bytes { start, end } => {
                    let Some(progress) = self.streams.get_mut(&stream) else { continue };
                    let before = progress.acked;
                    if progress.acknowledge(start, end) {
                        self.delivered += progress.acked - before;
                        if self.advanced.last() != Some(&stream) {
                            self.advanced.push(stream);
                        }
                    }
                }
                Content::Reset => {
                    if let Some(departure) = self.departures.remove(&stream) {
                        reserve.fetch_sub(departure.claimed, Ordering::Relaxed);
                    }
                }
            }
        }
        if from == 0 {
            self.flight.drain(..to);
        } else if from < to {
            self.flight.drain(from..to);
        }
    }

    /// Write a reset of ours with what the peer needs to make sense of it.
    fn write_reset(&mut self, packet: u64, reset: Reset, out: &mut Vec<u8>) -> bool {
        let Some(departure) = self.departures.get_mut(&reset.stream) else { return false };
        if departure.packet.replace(packet) == Some(packet) {
            // The core wrote it twice into this packet, having lost it twice.
            return true;
        }
        if !departure.header.is_empty() {
            frames::write_start(reset.stream, &departure.header, out);
        }
        Reset { reliable: Some(departure.reliable), ..reset }.write(out);
        self.flight.push_back(SentFrame { packet, stream: reset.stream, content: Content::Reset });
        true
    }

    /// Note a reset of the peer and write what the core is to see in its place; false if that is the frame itself.
    fn read_reset(&mut self, side: Side, reset: Reset, out: &mut Vec<u8>) -> bool {
        let reliable = reset.reliable.unwrap_or(0);
        if reliable > reset.size {
            // The core takes the unknown frame type for what this is: FRAME_ENCODING_ERROR.
            return false;
        }
        let plain = Reset { reliable: None, ..reset };
        let Some(arrival) = self.arrivals.get_mut(&reset.stream) else {
            // The engine has forgotten the stream, and stopped it before: what the core lacks is its final size.
            plain.write(out);
            return true;
        };
        if arrival.reset.is_some_and(|known| known.code != reset.code) {
            // STREAM_STATE_ERROR: as if it were for a stream on which only we send.
            Reset { stream: if side.is_client() { 2 } else { 3 }, ..plain }.write(out);
            return true;
        }
        arrival.note(Reset { reliable: Some(reliable), ..reset });
        if arrival.is_settled || reliable <= arrival.header {
            arrival.settle();
            plain.write(out);
        } else {
            frames::write_end(reset.stream, reset.size, out);
            self.resets.push(reset.stream);
        }
        true
    }
}

#[cfg(test)]
mod tests;
