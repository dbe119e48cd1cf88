//! A tap between the QUIC core and its packet keys.
//!
//! The core does not report which bytes of a stream were sent or acknowledged, and it does not know RESET_STREAM_AT.
//! Its packet keys, however, are public traits. [Wrapped](super::keys), they show the plaintext of every packet just before
//! it is sealed and just after it is opened.
//!
//! The tap notes the STREAM frames of each packet that leaves, and looks them up when an ACK for that packet arrives. That
//! gives `wait_acked()` and the byte counts of diagnostics.
//!
//! It also rewrites frames. That gives the core reliable resets (draft-ietf-quic-reliable-stream-reset), so that no reset
//! hides the header of a stream (draft-ietf-webtrans-http3, section 4.4). In packets that leave:
//!
//! - RESET_STREAM of a stream with a header becomes RESET_STREAM_AT. The core forgets the data of a stream that it resets,
//!   so until the header is acknowledged, a copy of it is in a STREAM frame in front of the reset. Both are in the same
//!   packet, so that the peer never gets one without the other, however often the core sends the reset again. Room for both
//!   is kept free in each packet while a reset is in flight, by claiming a longer authentication tag ([`Tap::reserve`]);
//!   what is not needed becomes PADDING at the front.
//! - STOP_SENDING is moved in front of the resets of its packet, because Chromium forgets the code of one that follows.
//! - A packet that asks a client for an answer from its new address is shortened to what may be sent there
//!   ([`Tap::begin_asking`]). Room is claimed in the same way, so that it has few frames, and is left out with the core's
//!   PADDING when the packet is sealed.
//!
//! In packets that arrive:
//!
//! - RESET_STREAM_AT becomes an empty STREAM frame that ends the stream at the reset's final size. The core checks it
//!   against the stream's ID, its credit and any other final size, and keeps what has arrived. The engine reads what the
//!   reset promised, and then stops the stream in the core, which gives state and credit back at once since it knows the
//!   final size. The core also wants to send STOP_SENDING then. A peer that has reset the stream does not need it, so it
//!   leaves as a PING ([`STOP_UNSEEN`]).
//! - RESET_STREAM_AT becomes RESET_STREAM if no byte of the promise is left to read.
//! - A frame that breaks a rule of the draft is replaced by one for which the core closes the connection with the right
//!   error. What cannot be read is left as it is.
//!
//! One rule is behind all of this: a frame never leaves its packet. The core acknowledges packets, so what it acknowledges
//! must be what it has processed. A packet that it opens and drops, such as a duplicate, has no effect here either
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
/// Bits of [`Tap::changes`]: [`State::advanced`], [`State::resets`], [`State::grown`] have streams; bytes came that
/// nobody will read, for which the core gives credit at once.
const ADVANCED: u8 = 1;
const RESETS: u8 = 2;
const GROWN: u8 = 4;
const RELEASED: u8 = 8;
/// Bytes of each packet that resets in flight may claim; further resets wait.
const RESERVE_LIMIT: usize = 256;
/// Bytes of each packet that resets and `spare` may claim together. The core makes packets of 1200 bytes on any path, which
/// need room for their header, an ACK and a PATH_CHALLENGE.
const CLAIM_LIMIT: usize = SMALLEST_MTU - 116;

/// The code with which the engine stops, in the core, a stream that the peer has reset. The tap makes such a frame a PING.
/// HTTP/3 neither uses nor reserves this code, and WebTransport does not map to it, so no other stop has it.
pub(crate) const STOP_UNSEEN: u64 = (1 << 62) - 0x77;

/// What is known of one stream's receiving half.
#[derive(Debug, Default)]
struct Arrival {
    progress: Progress,
    extent: Extent,
    /// Bytes at the start of the stream that the engine has read as its header.
    header: u64,
    /// The peer's first reset, with the smallest reliable size of all that came; 0 for RESET_STREAM.
    reset: Option<Reset>,
    /// Nobody reads on: the stream was stopped here, or the core has its reset. Only its extent still counts.
    is_settled: bool,
}

/// A frame of ours that the peer may still acknowledge.
#[derive(Debug)]
struct SentFrame {
    packet: u64,
    stream: u64,
    content: Content,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    /// A STREAM frame with these offsets.
    Bytes { start: u64, end: u64 },
    /// RESET_STREAM_AT.
    Reset,
}

/// A reset of ours that is not acknowledged.
#[derive(Debug)]
struct Departure {
    /// Size of the stream's header, which must arrive.
    reliable: u64,
    /// The header; empty if it was acknowledged before the reset.
    header: Vec<u8>,
    /// Bytes that the reset claims of each packet beyond those of RESET_STREAM.
    claimed: usize,
    /// The last packet in which it was written. The core may write it twice into one.
    packet: Option<u64>,
}

/// What the tap knows of the packets so far.
#[derive(Debug, Default)]
struct State {
    /// Packets that arrived.
    opened: Opened,
    /// Sending halves that the engine has registered, until it forgets them.
    streams: FxHashMap<u64, Progress>,
    /// Receiving halves that the engine has registered, until it forgets them, and streams of the peer that came with the
    /// packet that is being handled. Bounded by the core's limits of streams; if a packet breaks these, by its size.
    arrivals: FxHashMap<u64, Box<Arrival>>,
    /// Streams that the engine has forgotten and the peer has not ended, each with how far it reaches: for the core they
    /// are there, and what comes on them counts. Bounded by the core's limits of streams.
    trailing: FxHashMap<u64, u64>,
    /// How many streams of the peer (bidirectional, unidirectional) were ever registered. A stream below that without an
    /// arrival is one that the engine has forgotten.
    registered: [u64; 2],
    /// Resets of ours by stream. Bounded by RESERVE_LIMIT, because each claims at least a byte.
    departures: FxHashMap<u64, Departure>,
    /// STREAM and reset frames in flight, by rising packet number. Bounded by the congestion window and FORGET_DISTANCE.
    flight: VecDeque<SentFrame>,
    /// The largest packet number that the peer has acknowledged.
    largest_acked: u64,
    /// Bytes that came on all streams: up to the highest offset of each.
    came: u64,
    /// Bytes of all streams that the peer has acknowledged and before which none is missing.
    delivered: u64,
    /// Streams whose acknowledged prefix grew. The engine takes these, and those of the next two lists, after each packet.
    advanced: Vec<u64>,
    /// Streams with a reset that promises bytes.
    resets: Vec<u64>,
    /// Receiving halves whose extent changed.
    grown: Vec<u64>,
    /// Memory in which packets are rewritten; empty between calls.
    scratch: Vec<u8>,
}

/// Shared by the engine and the packet keys of one connection. The endpoint's mutex is held whenever either uses it, so
/// that no thread ever waits here; the core only demands of its keys that threads may share them. What is asked often is
/// kept outside of `state`, to be read without locking.
#[derive(Debug)]
pub(crate) struct Tap {
    state: Mutex<State>,
    /// Which side we are: it says which streams are the peer's.
    side: Side,
    /// Whether we take RESET_STREAM_AT, and have said so.
    accepts_resets: bool,
    /// Transport parameters of the peer as they came, and whether it takes RESET_STREAM_AT. Set once, in the handshake.
    peer: OnceLock<(Vec<u8>, bool)>,
    /// Bytes that are kept free in each packet: what resets claim, and `spare`. Constant while the core makes a packet. It
    /// only changes when the engine gives a reset or sets `spare`, and when a packet arrives.
    reserve: AtomicUsize,
    /// Bytes that are kept free for packets with a PATH_CHALLENGE to be short; 0 unless the core is asked for one.
    spare: AtomicUsize,
    /// Bytes to which packets with a PATH_CHALLENGE are shortened, if there are no more frames; 0: they are not.
    target: AtomicUsize,
    /// By how much the last packet was shortened, until the engine takes that.
    cut: AtomicUsize,
    /// The handshake is complete, and the core takes packets with application data. Never reset.
    is_established: AtomicBool,
    /// The engine has stopped a stream with [`STOP_UNSEEN`]. Never reset.
    has_unseen_stops: AtomicBool,
    /// A reset came that promised bytes. Never reset. On most connections none ever comes, and nobody has to look for one.
    has_promises: AtomicBool,
    /// What there is to take: bits as above.
    changes: AtomicU8,
    /// The last limit of all bytes that left for the peer in a frame; 0 before the first.
    window_end: AtomicU64,
    /// The state's `largest_acked`, `came` and `delivered`, after the last packet.
    acknowledged: AtomicU64,
    came: AtomicU64,
    delivered: AtomicU64,
    /// A server's: the client has used keys of the handshake, which only a client has that receives our packets. Never reset.
    is_client_heard: AtomicBool,
    /// How often the core has taken the next keys for application data.
    keys_taken: AtomicU64,
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
            target: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            is_established: AtomicBool::new(false),
            has_unseen_stops: AtomicBool::new(false),
            has_promises: AtomicBool::new(false),
            changes: AtomicU8::new(0),
            acknowledged: AtomicU64::new(0),
            window_end: AtomicU64::new(0),
            keys_taken: AtomicU64::new(0),
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

    /// Whether RESET_STREAM_AT may be sent. The peer's parameter is enough for this direction, but who turns the extension
    /// off here wants it in neither.
    pub(crate) fn sends_resets(&self) -> bool {
        self.accepts_resets && self.peer.get().is_some_and(|(_, takes_resets)| *takes_resets)
    }

    /// Whether there is anything to take for streams.
    pub(crate) fn has_changes(&self) -> bool {
        self.changes.load(Ordering::Relaxed) & (ADVANCED | RESETS | GROWN) != 0
    }

    /// Whether bytes came since the last call that nobody will read.
    pub(crate) fn take_released(&self) -> bool {
        self.take_change(RELEASED)
    }

    /// The core takes the next keys. Returns how often it has done so before.
    pub(super) fn note_keys(&self) -> u64 {
        self.keys_taken.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn keys_taken(&self) -> u64 {
        self.keys_taken.load(Ordering::Relaxed)
    }

    /// Whether there are changes of this kind. They count as taken then.
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

    /// A packet of the handshake came from the client.
    pub(super) fn set_client_heard(&self) {
        self.is_client_heard.store(true, Ordering::Relaxed);
    }

    /// The handshake is complete: from this packet on the core takes application data.
    pub(crate) fn set_established(&self) {
        self.is_established.store(true, Ordering::Relaxed);
    }

    /// The engine is about to stop a stream with [`STOP_UNSEEN`].
    pub(crate) fn expect_unseen_stop(&self) {
        self.has_unseen_stops.store(true, Ordering::Relaxed);
    }

    /// Note what is sent on a stream, and what of it is acknowledged, until it is forgotten.
    pub(crate) fn register(&self, stream: u64) {
        self.state().streams.insert(stream, Progress::default());
    }

    /// Note what arrives on a stream, also what came with the packet that opened it, until it is forgotten.
    pub(crate) fn register_receiving(&self, stream: u64) {
        let mut state = self.state();
        state.arrivals.entry(stream).or_default();
        if is_from_peer(stream, self.side) {
            let registered = &mut state.registered[direction(stream)];
            *registered = (*registered).max((stream >> 2) + 1);
        }
    }

    /// How many streams of the peer, of a direction, were ever registered.
    pub(crate) fn registered(&self, direction: usize) -> u64 {
        self.state().registered[direction]
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

    /// Forget a stream, of which the core was given `pushed` bytes to send. Returns how many of them are not acknowledged, and
    /// never will be.
    pub(crate) fn forget(&self, stream: u64, pushed: u64) -> u64 {
        let mut state = self.state();
        if let Some(arrival) = state.arrivals.remove(&stream)
            && !arrival.extent.is_final
        {
            state.trailing.insert(stream, arrival.extent.end);
        }
        state.streams.remove(&stream).map_or(0, |progress| pushed.saturating_sub(progress.acked))
    }

    /// Bytes that came on all streams: up to the highest offset of each.
    #[inline]
    pub(crate) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// How many bytes the peer may send on all streams, as far as a frame that left says so; 0 before the first.
    #[inline]
    pub(crate) fn window_end(&self) -> u64 {
        self.window_end.load(Ordering::Relaxed)
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

    /// Announce a reset that the engine is about to give to the core. `reliable` is the length of the stream's header;
    /// `header` is the header, or empty if the peer has acknowledged it. False: too many resets are in flight, try again when
    /// packets have arrived.
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
        // A stream is reset once, so what a reset claims cannot be freed twice.
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

    /// Bytes that are kept free in each packet: those that resets in flight claim, and spare ones.
    pub(crate) fn reserve(&self) -> usize {
        self.reserve.load(Ordering::Relaxed)
    }

    /// Have the core make packets that can be shortened to this many bytes, at most 1200, if they have a PATH_CHALLENGE. `mtu`
    /// is the size of the largest. Until [`Tap::end_asking`], the engine asks for nothing else.
    pub(crate) fn begin_asking(&self, mtu: usize, bytes: usize) {
        let target = bytes.min(SMALLEST_MTU);
        let claimed = self.reserve.load(Ordering::Relaxed);
        let spare = mtu.saturating_sub(target).min(CLAIM_LIMIT.saturating_sub(claimed));
        self.spare.store(spare, Ordering::Relaxed);
        self.reserve.fetch_add(spare, Ordering::Relaxed);
        self.target.store(target, Ordering::Relaxed);
    }

    /// Keep no more room free. Returns by how much the packet that was made is shorter than the core knows.
    pub(crate) fn end_asking(&self) -> usize {
        self.reserve.fetch_sub(self.spare.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.target.store(0, Ordering::Relaxed);
        self.cut.swap(0, Ordering::Relaxed)
    }

    /// To how many bytes a packet of `size` bytes is to be shortened, and how many of them are free then. `payload` has its
    /// frames, and ends with `reserve` free bytes.
    pub(super) fn shorten(&self, size: usize, payload: &[u8], reserve: usize) -> (usize, usize) {
        let target = self.target.load(Ordering::Relaxed);
        let room = payload.len().saturating_sub(reserve);
        // Only packets with a PATH_CHALLENGE are shortened; one that probes for an MTU has to keep its size.
        if target == 0 || size <= target {
            return (size, reserve);
        }
        let Some(end) = frames::end_with_challenge(&payload[..room]) else { return (size, reserve) };
        // Resets may still need what they have claimed.
        let claimed = reserve - self.spare.load(Ordering::Relaxed);
        let cut = (size - target).min(payload.len() - end - claimed);
        self.cut.store(cut, Ordering::Relaxed);
        let rest = payload.len() - cut;
        (size - cut, rest - room.min(rest - claimed))
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

    /// See a packet just before it is sealed, and rewrite it. The last `reserve` bytes of `payload` are free.
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
                // This cannot happen, because every reset in flight has claimed its room. If it did, the frames of the core
                // would leave as they are, with a plain RESET_STREAM.
                out.clear();
                out.extend_from_slice(&payload[..used]);
            }
            let padding = payload.len() - out.len();
            payload[..padding].fill(0);
            payload[padding..].copy_from_slice(&out);
            state.scratch = out;
        }
        let has_unseen_stops = self.has_unseen_stops.load(Ordering::Relaxed);
        let mut unseen = Vec::new();
        let mut has_resets = false;
        // Where room was claimed, PADDING is in front of the frames by now.
        frames::walk(payload, |place, frame| match frame {
            Frame::Stream { stream, start, end, .. } => {
                if let Some(progress) = state.streams.get_mut(&stream) {
                    progress.sent = progress.sent.max(end);
                    state.flight.push_back(SentFrame { packet, stream, content: Content::Bytes { start, end } });
                }
            }
            Frame::Stop { code: STOP_UNSEEN } if has_unseen_stops => unseen.push(place),
            Frame::Reset(_) => has_resets = true,
            Frame::MaxData { limit } => self.window_end.store(limit, Ordering::Relaxed),
            Frame::Stop { .. } | Frame::Acked { .. } => {}
        });
        for place in unseen {
            // The core waits for an acknowledgment of this packet. PADDING alone would not be acknowledged, a PING is.
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

    /// See a packet just after it was opened, and rewrite it if the core cannot take it as it is.
    pub(super) fn packet_arrives(&self, packet: u64, payload: &mut BytesMut) {
        let mut state = self.state();
        let state = &mut *state;
        if !self.is_taken(state, packet) {
            return;
        }
        #[cfg(test)]
        self.taken.fetch_add(1, Ordering::Relaxed);
        let mut changes = 0;
        let mut has_resets = false;
        // The first stream whose final size changes.
        let mut violating = None;
        frames::walk(payload, |_, frame| match frame {
            Frame::Acked { first, last } => state.acknowledge(first, last, &self.reserve),
            Frame::Stream { stream, start, end, is_last } => {
                let Some(arrival) = state.arrival(self.side, stream) else {
                    changes |= state.trail(stream, end, is_last);
                    return;
                };
                if arrival.contradicts(end, is_last) {
                    violating.get_or_insert(stream);
                }
                if !arrival.is_settled {
                    arrival.progress.acknowledge(start, end);
                }
                if let Some(more) = arrival.reach(end, is_last, false) {
                    if arrival.is_settled {
                        changes |= RELEASED;
                    }
                    state.came += more;
                    if state.grown.last() != Some(&stream) {
                        state.grown.push(stream);
                    }
                }
            }
            Frame::Stop { .. } | Frame::MaxData { .. } => {}
            Frame::Reset(reset) => {
                has_resets = true;
                if reset.reliable.is_some() && !self.accepts_resets {
                    return;
                }
                changes |= RELEASED;
                let Some(arrival) = state.arrival(self.side, reset.stream) else {
                    state.trail(reset.stream, reset.size, true);
                    return;
                };
                if arrival.contradicts(reset.size, true) {
                    violating.get_or_insert(reset.stream);
                }
                let is_plain = arrival.is_settled || reset.reliable.unwrap_or(0) <= arrival.header;
                if let Some(more) = arrival.reach(reset.size, true, is_plain) {
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

    /// Nobody reads on.
    fn settle(&mut self) {
        self.is_settled = true;
        self.progress.beyond = None;
    }

    /// Note how far the stream reaches. Returns by how many bytes that is further, or `None` if nothing about its end is new.
    fn reach(&mut self, end: u64, is_final: bool, is_reset: bool) -> Option<u64> {
        let before = self.extent;
        self.extent.end = before.end.max(end);
        self.extent.is_final |= is_final;
        self.extent.is_reset |= is_reset;
        (self.extent != before).then(|| self.extent.end - before.end)
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

    /// Write frames for which the core closes the connection with FINAL_SIZE_ERROR: two resets of one stream with different
    /// sizes. The core ignores them if it has forgotten the stream. So they are written for three: the stream in question,
    /// one that has not ended, and the next one that the peer may open. The core knows one of these at least, because if the
    /// peer may open no more, streams of its are open.
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

    /// Count what comes on a stream that the engine has forgotten.
    fn trail(&mut self, stream: u64, end: u64, is_final: bool) -> u8 {
        let Some(before) = self.trailing.get_mut(&stream) else { return 0 };
        self.came += end.saturating_sub(*before);
        *before = end.max(*before);
        if is_final {
            self.trailing.remove(&stream);
        }
        RELEASED
    }

    /// Note that the peer has acknowledged packets `first` to `last`.
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

    /// Write a reset of ours as RESET_STREAM_AT, behind the stream's header if the peer may lack that. False: it is a plain
    /// reset.
    fn write_reset(&mut self, packet: u64, reset: Reset, out: &mut Vec<u8>) -> bool {
        let Some(departure) = self.departures.get_mut(&reset.stream) else { return false };
        if departure.packet.replace(packet) == Some(packet) {
            // The core has lost it twice, and writes it into this packet twice. Once is enough, and all that room was claimed
            // for.
            return true;
        }
        if !departure.header.is_empty() {
            frames::write_start(reset.stream, &departure.header, out);
        }
        Reset { reliable: Some(departure.reliable), ..reset }.write(out);
        self.flight.push_back(SentFrame { packet, stream: reset.stream, content: Content::Reset });
        true
    }

    /// Note a reset of the peer, and write what the core is to see in its place. False: it is to see the frame itself.
    fn read_reset(&mut self, side: Side, reset: Reset, out: &mut Vec<u8>) -> bool {
        let reliable = reset.reliable.unwrap_or(0);
        if reliable > reset.size {
            // The core takes the unknown frame type for what this is: FRAME_ENCODING_ERROR.
            return false;
        }
        let plain = Reset { reliable: None, ..reset };
        let Some(arrival) = self.arrivals.get_mut(&reset.stream) else {
            // The engine has forgotten the stream, after stopping it. The core may still wait for its final size.
            plain.write(out);
            return true;
        };
        if arrival.reset.is_some_and(|known| known.code != reset.code) {
            // STREAM_STATE_ERROR, which the core has for a reset of a stream on which only we send.
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
