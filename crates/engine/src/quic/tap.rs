//! A tap between the QUIC core and its packet keys.
//!
//! The core does not tell which bytes of a stream were sent or acknowledged, and it does not know RESET_STREAM_AT. Its
//! packet keys, however, are public traits: wrapped, they show the plaintext of every packet just before sealing and just
//! after opening.
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
//! - What breaks a rule of the draft is given to the core in a form that makes it close the connection with the right
//!   error. What cannot be read is left to the core as it is.
//!
//! One rule holds all of this together: a frame never leaves its packet. What the core acknowledges is what it has
//! processed, and a packet that it drops after opening it, such as a duplicate, has no effect here either
//! ([`Tap::is_taken`]).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use quinn_proto::{
    Side,
    crypto::{CryptoError, PacketKey},
};
use rustc_hash::FxHashMap;

use super::frames::{self, Frame, Reset};

/// Packets below the largest acknowledged one by this distance are forgotten; the core has long declared them lost.
const FORGET_DISTANCE: u64 = 8192;
/// Bits of [`Tap::news`]: streams whose acknowledged prefix grew; resets to act on; receiving halves whose extent changed.
const ADVANCED: u8 = 1;
const RESETS: u8 = 2;
const GROWN: u8 = 4;
/// Bytes of each packet that resets under way may claim at most; further resets wait.
const RESERVE_LIMIT: usize = 256;

/// With this code the core is told to stop a stream that its peer has reset, and the peer need not hear of it. It is neither
/// a code of HTTP/3, one of those that it reserves, nor one of WebTransport.
pub(crate) const STOP_UNSEEN: u64 = (1 << 62) - 0x77;

/// Bytes of one half of a stream that have arrived, here or at the peer's, in stream offsets (header included).
#[derive(Debug, Default)]
struct Progress {
    sent: u64,
    acked: u64,
    /// Ranges above `acked` with gaps between them, by their start. Bounded by what the stream's sender may have under way:
    /// sending, by our own send buffer; receiving, by the gaps that the core allows before it closes the connection. It
    /// allows any after a stop or a reset, so from then on nothing is kept here ([`Arrival::is_settled`]).
    beyond: BTreeMap<u64, u64>,
}

impl Progress {
    /// Note a range; whether the contiguous prefix grew.
    fn acknowledge(&mut self, start: u64, end: u64) -> bool {
        if end <= self.acked {
            return false;
        }
        if start > self.acked {
            self.keep_beyond(start, end);
            return false;
        }
        self.acked = end;
        while let Some((&start, &end)) = self.beyond.first_key_value() {
            if start > self.acked {
                break;
            }
            self.acked = self.acked.max(end);
            self.beyond.pop_first();
        }
        true
    }

    /// Keep a range behind a gap, joined with those that it touches.
    fn keep_beyond(&mut self, mut start: u64, mut end: u64) {
        if let Some((&before, &until)) = self.beyond.range(..=start).next_back()
            && until >= start
        {
            if until >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &until)) = self.beyond.range(start..).next() {
            if next > end {
                break;
            }
            end = end.max(until);
            self.beyond.remove(&next);
        }
        self.beyond.insert(start, end);
    }
}

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

/// How far a stream reaches, as its peer counts it: what is missing below the end is part of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Highest offset seen, stream header included.
    pub(crate) end: u64,
    /// Whether that is the final size.
    pub(crate) is_final: bool,
    /// Whether the core was given a reset, with which it drops what nobody took from it.
    pub(crate) is_reset: bool,
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

/// The packet numbers that were opened, remembered just as the core does it, so that both take the same packets: the
/// highest, and which of the 128 below it came. What is older counts as seen.
#[derive(Debug, Default)]
struct Opened {
    /// Bit `n` stands for the packet `n + 1` below the highest.
    window: u128,
    /// One more than the highest; 0 before the first.
    next: u64,
}

impl Opened {
    /// Note a packet; whether it is the first time.
    fn is_new(&mut self, packet: u64) -> bool {
        if packet >= self.next {
            // The one that was the highest so far gets a bit of its own.
            let distance = packet - self.next + 1;
            let shifted = u32::try_from(distance).ok().and_then(|by| self.window.checked_shl(by)).unwrap_or(0);
            let last = u32::try_from(distance - 1).ok().and_then(|by| 1u128.checked_shl(by)).unwrap_or(0);
            self.window = shifted | if self.next > 0 { last } else { 0 };
            self.next = packet + 1;
            return true;
        }
        let Some(below) = (self.next - 1 - packet).checked_sub(1) else { return false };
        let Some(bit) = u32::try_from(below).ok().and_then(|by| 1u128.checked_shl(by)) else { return false };
        let is_new = self.window & bit == 0;
        self.window |= bit;
        is_new
    }
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
    /// Bytes of each packet claimed by resets. Constant while the core builds packets: it only changes when the engine
    /// gives a reset and when a packet arrives.
    reserve: AtomicUsize,
    /// The core is through with the handshake and takes packets with application data.
    is_established: AtomicBool,
    /// A stop was given to the core that the peer must not see.
    has_unseen_stops: AtomicBool,
    /// A reset came that promised bytes. On most connections none ever does, and then nobody has to look for one.
    has_promises: AtomicBool,
    /// What there is to take. Most packets bring little of it, and then nobody has to lock.
    news: AtomicU8,
    /// Largest packet number that the peer has acknowledged.
    acknowledged: AtomicU64,
    /// A server's: a packet with the keys of the handshake came, and only who received ours can have those.
    is_client_heard: AtomicBool,
    /// Bytes beyond the header that resets promise, for tests of the receiving side.
    #[cfg(test)]
    pub(super) promise: std::sync::atomic::AtomicU64,
    /// Packets that had an effect here.
    #[cfg(test)]
    pub(super) taken: std::sync::atomic::AtomicU64,
    /// What the next packet holds in place of what the core has put into it, for tests.
    #[cfg(test)]
    pub(super) instead: Mutex<Vec<u8>>,
    /// Frames of the packets that left.
    #[cfg(test)]
    pub(super) sent: Mutex<Vec<Vec<u8>>>,
}

impl Tap {
    pub(crate) fn new(side: Side, accepts_resets: bool) -> Self {
        Self {
            state: Mutex::default(),
            side,
            accepts_resets,
            peer: OnceLock::new(),
            reserve: AtomicUsize::new(0),
            is_established: AtomicBool::new(false),
            has_unseen_stops: AtomicBool::new(false),
            has_promises: AtomicBool::new(false),
            news: AtomicU8::new(0),
            acknowledged: AtomicU64::new(0),
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
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) != 0
    }

    /// Whether there are such news; not again before the next.
    fn take_news(&self, kind: u8) -> bool {
        self.news.load(Ordering::Relaxed) & kind != 0 && self.news.fetch_and(!kind, Ordering::Relaxed) & kind != 0
    }

    /// Largest packet number, of those for application data, that the peer has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether the client has shown that it receives what is sent to its address (RFC 9000, section 8.1).
    pub(crate) fn is_client_heard(&self) -> bool {
        self.is_client_heard.load(Ordering::Relaxed)
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

    pub(crate) fn forget(&self, stream: u64) {
        let mut state = self.state();
        state.streams.remove(&stream);
        state.arrivals.remove(&stream);
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
        if !self.take_news(GROWN) {
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
        if !self.take_news(ADVANCED) {
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
        if self.reserve.load(Ordering::Relaxed) + claimed > RESERVE_LIMIT {
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

    /// Bytes of each packet that resets under way claim.
    pub(crate) fn reserve(&self) -> usize {
        self.reserve.load(Ordering::Relaxed)
    }

    /// Streams with a reliable reset that the engine has not acted on.
    pub(crate) fn take_resets(&self, into: &mut Vec<u64>) {
        if self.take_news(RESETS) {
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
    fn packet_leaves(&self, packet: u64, payload: &mut [u8], reserve: usize) {
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
    fn packet_arrives(&self, packet: u64, payload: &mut BytesMut) {
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
                if arrival.reach(end, is_last, false) && state.grown.last() != Some(&stream) {
                    state.grown.push(stream);
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
                if arrival.reach(reset.size, true, is_plain) {
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
        let mut news = 0;
        if !state.advanced.is_empty() {
            news |= ADVANCED;
        }
        if !state.resets.is_empty() {
            news |= RESETS;
            self.has_promises.store(true, Ordering::Relaxed);
        }
        if !state.grown.is_empty() {
            news |= GROWN;
        }
        if news != 0 {
            self.news.fetch_or(news, Ordering::Relaxed);
        }
        self.acknowledged.store(state.largest_acked, Ordering::Relaxed);
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

/// 0 for a bidirectional stream, 1 for a unidirectional one (RFC 9000, section 2.1).
fn direction(stream: u64) -> usize {
    usize::from(stream & 2 != 0)
}

impl Arrival {
    /// Whether a frame that reaches to `end` breaks the rule that a final size never changes (RFC 9000, section 4.5).
    fn contradicts(&self, end: u64, is_final: bool) -> bool {
        let known = self.extent;
        known.is_final && (end > known.end || is_final && end != known.end) || is_final && end < known.end
    }

    fn settle(&mut self) {
        self.is_settled = true;
        self.progress.beyond = BTreeMap::new();
    }

    /// Note how far the stream reaches; whether that is news.
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
                    if let Some(progress) = self.streams.get_mut(&stream)
                        && progress.acknowledge(start, end)
                        && self.advanced.last() != Some(&stream)
                    {
                        self.advanced.push(stream);
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

/// A server's key for what the client sends in the handshake.
pub(crate) struct HandshakeKey {
    inner: Box<dyn PacketKey>,
    tap: Arc<Tap>,
}

impl HandshakeKey {
    pub(crate) fn new(inner: Box<dyn PacketKey>, tap: Arc<Tap>) -> Self {
        Self { inner, tap }
    }
}

impl PacketKey for HandshakeKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.inner.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.inner.decrypt(packet, header, payload)?;
        self.tap.is_client_heard.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

/// The key of one direction, with the tap in front of it.
pub(crate) struct TapKey {
    inner: Box<dyn PacketKey>,
    tap: Arc<Tap>,
}

impl TapKey {
    pub(crate) fn new(inner: Box<dyn PacketKey>, tap: Arc<Tap>) -> Self {
        Self { inner, tap }
    }
}

impl PacketKey for TapKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        if let Some(end) = buf.len().checked_sub(self.inner.tag_len())
            && let Some(payload) = buf.get_mut(header_len..end)
        {
            self.tap.packet_leaves(packet, payload, self.tap.reserve());
        }
        self.inner.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.inner.decrypt(packet, header, payload)?;
        self.tap.packet_arrives(packet, payload);
        Ok(())
    }

    /// The core keeps this many bytes free at the end of a packet; see [`Tap::reserve`].
    fn tag_len(&self) -> usize {
        self.inner.tag_len() + self.tap.reserve()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_prefix_grows_over_gaps() {
        let mut progress = Progress::default();
        assert!(!progress.acknowledge(10, 20));
        assert!(!progress.acknowledge(30, 40));
        assert!(progress.acknowledge(0, 10));
        assert_eq!(progress.acked, 20);
        assert!(progress.acknowledge(20, 30));
        assert_eq!(progress.acked, 40);
        assert!(!progress.acknowledge(0, 40));
    }

    fn leaves(tap: &Tap, packet: u64, payload: &[u8]) -> Vec<u8> {
        let reserve = tap.reserve();
        let mut buffer = payload.to_vec();
        buffer.resize(payload.len() + reserve, 0xee);
        tap.packet_leaves(packet, &mut buffer, reserve);
        buffer
    }

    /// What the core gets of the next packet.
    fn arrives(tap: &Tap, payload: &[u8]) -> Vec<u8> {
        let next = tap.state().opened.next;
        arrives_as(tap, next, payload)
    }

    fn arrives_as(tap: &Tap, packet: u64, payload: &[u8]) -> Vec<u8> {
        let mut buffer = BytesMut::from(payload);
        tap.packet_arrives(packet, &mut buffer);
        buffer.to_vec()
    }

    fn tap(side: Side, accepts_resets: bool) -> Tap {
        let tap = Tap::new(side, accepts_resets);
        tap.set_established();
        tap
    }

    fn client() -> Tap {
        tap(Side::Client, true)
    }

    fn end(stream: u64, size: u64) -> Vec<u8> {
        let mut out = Vec::new();
        frames::write_end(stream, size, &mut out);
        out
    }

    #[test]
    fn each_packet_is_taken_once_and_never_when_it_is_too_old_to_tell() {
        let mut opened = Opened::default();
        let mut seen = std::collections::HashSet::new();
        let mut random = 1_u64;
        let mut highest = 0;
        for _ in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let packet = match random >> 60 {
                0 => highest + (random >> 33) % 300,
                _ => (highest + 3).saturating_sub((random >> 33) % 150),
            };
            let is_new = opened.is_new(packet);
            let is_tellable = packet + 128 >= highest;
            assert_eq!(is_new, is_tellable && !seen.contains(&packet), "{packet} below {highest}");
            seen.insert(packet);
            highest = highest.max(packet);
        }
    }

    #[test]
    fn a_packet_that_the_core_drops_has_no_effect() {
        let tap = client();
        tap.register(0);
        tap.register_receiving(3);
        leaves(&tap, 7, &[0x0e, 0x00, 0x00, 0x03, 1, 2, 3]);
        let packet = [at(3, 9, 8, 5), vec![0x02, 7, 0, 0, 0]].concat();
        assert_eq!(arrives_as(&tap, 5, &[0x01]), [0x01]);
        // Seen before, whatever it contains; and too old to tell.
        assert_eq!(arrives_as(&tap, 5, &packet), packet);
        assert_eq!(arrives_as(&tap, 500, &[0x01]), [0x01]);
        assert_eq!(arrives_as(&tap, 6, &packet), packet);
        assert_eq!((tap.reset_of(3), tap.progress(0)), (None, (3, 0)));
        assert_ne!(arrives_as(&tap, 501, &packet), packet);
        assert_eq!(tap.progress(0), (3, 3));
        // Application data that overtakes the end of the handshake comes again, with another number.
        let tap = Tap::new(Side::Server, true);
        assert_eq!(arrives_as(&tap, 0, &at(2, 9, 8, 3)), at(2, 9, 8, 3));
        tap.set_established();
        assert_eq!(arrives_as(&tap, 0, &at(2, 9, 8, 3)), at(2, 9, 8, 3));
        assert_eq!(arrives_as(&tap, 1, &at(2, 9, 8, 3)), end(2, 8));
    }

    #[test]
    fn ranges_behind_a_gap_are_joined() {
        let mut progress = Progress::default();
        for start in (10..10_000).rev() {
            progress.acknowledge(start, start + 1);
        }
        assert_eq!(progress.beyond, BTreeMap::from([(10, 10_000)]));
        progress.acknowledge(20_000, 20_001);
        progress.acknowledge(5, 7);
        progress.acknowledge(6, 9);
        progress.acknowledge(3, 30_000);
        assert_eq!(progress.beyond, BTreeMap::from([(3, 30_000)]));
        assert!(progress.acknowledge(0, 3));
        assert_eq!((progress.acked, progress.beyond.len()), (30_000, 0));
    }

    #[test]
    fn what_nobody_reads_leaves_no_fragments() {
        let tap = client();
        let fragments = |stream: u64| tap.state().arrivals[&stream].progress.beyond.len();
        let send_gaps = |stream: u64| {
            for n in 0..1000_u64 {
                let mut frame = vec![0x0e, stream as u8];
                crate::varint::write(2 * n + 1, &mut frame);
                frame.extend_from_slice(&[1, 0xff]);
                arrives(&tap, &frame);
            }
        };
        tap.register_receiving(3);
        send_gaps(3);
        assert_eq!(fragments(3), 1000);
        // Stopped here.
        tap.settle(3);
        assert_eq!(fragments(3), 0);
        send_gaps(3);
        assert_eq!(fragments(3), 0);
        assert_eq!(tap.extent(3).end, 2000);
        // Reset by its peer, who goes on all the same.
        arrives(&tap, &plain(7, 1, 2000));
        tap.register_receiving(7);
        send_gaps(7);
        assert_eq!(fragments(7), 0);
    }

    #[test]
    fn a_stop_that_only_the_core_needs_leaves_as_a_ping() {
        let tap = client();
        let mut stop = vec![0x05, 0x03];
        crate::varint::write(STOP_UNSEEN, &mut stop);
        let packet = [&[0x05, 0x07, 0x01][..], &stop, &[0x0d, 0x00, 0x03, 4, 5]].concat();
        assert_eq!(leaves(&tap, 5, &packet), packet);
        tap.expect_unseen_stop();
        let expected = [&[0x05, 0x07, 0x01][..], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x0d, 0x00, 0x03, 4, 5]].concat();
        assert_eq!(leaves(&tap, 6, &packet), expected);
    }

    #[test]
    fn the_extent_of_a_stream_counts_gaps_and_what_a_reset_cut_off() {
        let tap = client();
        // A stream that is not registered yet: 3 bytes at offset 5.
        arrives(&tap, &[0x0e, 0x03, 0x05, 0x03, 1, 2, 3]);
        tap.register_receiving(3);
        assert_eq!(tap.extent(3), Extent { end: 8, is_final: false, is_reset: false });
        assert_eq!(tap.received(3), 0);
        // The same again, then RESET_STREAM with code 1 and final size 20.
        arrives(&tap, &[0x0e, 0x03, 0x05, 0x03, 1, 2, 3]);
        arrives(&tap, &[0x04, 0x03, 0x01, 20]);
        assert_eq!(tap.extent(3), Extent { end: 20, is_final: true, is_reset: true });
        // RESET_STREAM_AT: what it promises is still to be read.
        tap.register_receiving(7);
        arrives(&tap, &[0x24, 0x07, 0x01, 30, 4]);
        assert_eq!(tap.extent(7), Extent { end: 30, is_final: true, is_reset: false });
        let mut grown = Vec::new();
        tap.take_grown(&mut grown);
        assert_eq!(
            grown.iter().map(|(stream, extent)| (*stream, extent.end)).collect::<Vec<_>>(),
            [(3, 20), (3, 20), (7, 30)]
        );
    }

    fn at(stream: u64, code: u64, size: u64, reliable: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Reset { stream, code, size, reliable: Some(reliable) }.write(&mut out);
        out
    }

    fn plain(stream: u64, code: u64, size: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Reset { stream, code, size, reliable: None }.write(&mut out);
        out
    }

    #[test]
    fn stream_frames_are_matched_with_their_acknowledgement() {
        let tap = client();
        tap.register(0);
        // STREAM with offset and length: stream 0, offset 0, 3 bytes; then one without length to the packet's end.
        leaves(&tap, 7, &[0x01, 0x0e, 0x00, 0x00, 0x03, 1, 2, 3]);
        leaves(&tap, 9, &[0x0d, 0x00, 0x03, 4, 5]);
        assert_eq!(tap.progress(0), (5, 0));
        // ACK of 9 only, then of 7 in a second range.
        arrives(&tap, &[0x02, 9, 0, 0, 0]);
        assert_eq!(tap.progress(0), (5, 0));
        arrives(&tap, &[0x02, 9, 0, 1, 0, 0, 0]);
        assert_eq!(tap.progress(0), (5, 5));
        let mut advanced = Vec::new();
        tap.take_advanced(&mut advanced);
        assert_eq!(advanced, [0]);
    }

    #[test]
    fn reset_takes_the_header_along_until_it_is_acknowledged() {
        let tap = client();
        assert!(tap.send_reset(2, 3, &[0x40, 0x54, 0x00]));
        // The frame without a length at the end of the packet must stay at its end.
        let packet = [plain(2, 9, 8), vec![0x08, 0x04, 1, 2, 3]].concat();
        let sent = leaves(&tap, 5, &packet);
        let expected = [vec![0x0a, 0x02, 3, 0x40, 0x54, 0x00], at(2, 9, 8, 3), vec![0x08, 0x04, 1, 2, 3]].concat();
        assert_eq!(sent, expected);
        // Sent again: whole again, once per packet.
        let twice = [plain(2, 9, 8), plain(2, 9, 8)].concat();
        let sent = leaves(&tap, 6, &twice);
        assert!(sent.ends_with(&[vec![0x0a, 0x02, 3, 0x40, 0x54, 0x00], at(2, 9, 8, 3)].concat()));
        assert!(sent[..sent.len() - 11].iter().all(|byte| *byte == 0));
        // Acknowledged: nothing is claimed any more.
        arrives(&tap, &[0x02, 6, 0, 0, 0]);
        assert_eq!(tap.reserve(), 0);
        assert_eq!(leaves(&tap, 7, &[0x01]), [0x01]);
    }

    #[test]
    fn a_stop_goes_before_the_reset_of_the_same_packet() {
        let tap = client();
        tap.register(2);
        let stop = vec![0x05, 0x02, 9];
        let frames = [plain(2, 9, 8), plain(6, 9, 8), stop.clone(), vec![0x08, 0x06, 1, 2]];
        let expected = [stop.clone(), plain(2, 9, 8), plain(6, 9, 8), vec![0x08, 0x06, 1, 2]].concat();
        assert_eq!(leaves(&tap, 1, &frames.concat()), expected);
        // Also before a reset that takes its header along.
        assert!(tap.send_reset(2, 3, &[0x40, 0x54, 0x00]));
        let sent = leaves(&tap, 2, &[plain(2, 9, 8), stop.clone()].concat());
        assert!(sent.ends_with(&[vec![0x0a, 0x02, 3, 0x40, 0x54, 0x00], stop, at(2, 9, 8, 3)].concat()));
    }

    #[test]
    fn several_resets_share_a_packet() {
        let tap = client();
        assert!(tap.send_reset(2, 3, &[]));
        assert!(tap.send_reset(6, 3, &[]));
        let sent = leaves(&tap, 1, &[plain(2, 9, 8), plain(6, 1, 3), plain(10, 4, 4)].concat());
        assert_eq!(sent, [at(2, 9, 8, 3), at(6, 1, 3, 3), plain(10, 4, 4)].concat());
    }

    #[test]
    fn claimed_room_is_bounded() {
        let tap = client();
        let given = (0..10_000).filter(|n| tap.send_reset(n * 4 + 2, 3, &[0x40, 0x54, 0x00])).count();
        assert!(given > 10 && tap.reserve() <= RESERVE_LIMIT, "{given} resets claim {}", tap.reserve());
    }

    #[test]
    fn reset_behind_a_header_that_was_read_is_plain_for_the_core() {
        let tap = client();
        tap.register_receiving(3);
        tap.set_header(3, 3);
        assert_eq!(arrives(&tap, &at(3, 9, 8, 3)), plain(3, 9, 8));
        assert_eq!(tap.reset_of(3), None);
    }

    #[test]
    fn reset_that_promises_bytes_is_an_end_for_the_core_and_waits_for_the_engine() {
        let tap = client();
        tap.register_receiving(3);
        assert_eq!(arrives(&tap, &at(3, 9, 8, 5)), end(3, 8));
        let mut resets = Vec::new();
        tap.take_resets(&mut resets);
        assert_eq!(resets, [3]);
        // Lowered, then "raised" by a packet that was overtaken.
        arrives(&tap, &at(3, 9, 8, 4));
        arrives(&tap, &at(3, 9, 8, 6));
        assert_eq!(tap.reset_of(3).and_then(|reset| reset.reliable), Some(4));
        tap.settle(3);
        assert_eq!(tap.reset_of(3), None);
        // RESET_STREAM_AT from then on is a repetition.
        assert_eq!(arrives(&tap, &at(3, 9, 8, 4)), plain(3, 9, 8));
    }

    #[test]
    fn reset_of_a_stream_that_comes_with_it_is_found_again() {
        let tap = client();
        arrives(&tap, &[vec![0x0a, 3, 3, 0x40, 0x54, 0x00], at(3, 9, 8, 3)].concat());
        tap.register_receiving(3);
        let mut resets = Vec::new();
        tap.take_resets(&mut resets);
        assert_eq!(resets, [3]);
        assert_eq!(tap.received(3), 3);
    }

    #[test]
    fn reset_of_a_forgotten_stream_tells_the_core_its_final_size() {
        let tap = client();
        tap.register_receiving(3);
        tap.register_receiving(7);
        tap.forget(3);
        assert_eq!(arrives(&tap, &at(3, 9, 8, 5)), plain(3, 9, 8));
        assert_eq!(tap.reset_of(3), None);
        assert_eq!(tap.state().arrivals.len(), 1);
    }

    #[test]
    fn broken_rules_are_shown_to_the_core() {
        // Reliable size beyond the final size: left as it is, an unknown frame to the core.
        let tap = client();
        tap.register_receiving(3);
        assert_eq!(arrives(&tap, &at(3, 9, 8, 9)), at(3, 9, 8, 9));
        // Another code: a reset for a stream on which only we send.
        arrives(&tap, &at(3, 9, 8, 5));
        assert_eq!(arrives(&tap, &at(3, 10, 8, 5)), plain(2, 10, 8));
        assert_eq!(arrives(&tap, &plain(3, 10, 8)), plain(2, 10, 8));
        // Another final size, data beyond it, and another end: the stream and the next one are reset at two sizes each.
        let twice = |stream: u64| [plain(stream, 0, 0), plain(stream, 0, 1)].concat();
        let error = [twice(3), twice(7)].concat();
        for packet in
            [at(3, 9, 7, 5), at(3, 9, 9, 5), plain(3, 9, 7), vec![0x0e, 3, 8, 1, 0xff], vec![0x0f, 3, 6, 1, 0]]
        {
            let tap = client();
            tap.register_receiving(3);
            arrives(&tap, &at(3, 9, 8, 5));
            assert!(arrives(&tap, &packet).starts_with(&error), "{packet:?}");
        }
        // The same once the reset is settled, for streams that come with it, and for an end below what came before.
        let tap = client();
        tap.register_receiving(3);
        arrives(&tap, &plain(3, 9, 8));
        assert!(arrives(&tap, &[0x0e, 3, 8, 1, 0xff]).starts_with(&error));
        let tap = client();
        let error = twice(3);
        assert!(arrives(&tap, &[at(3, 9, 8, 5), at(3, 9, 9, 5)].concat()).starts_with(&error));
        let tap = client();
        assert!(arrives(&tap, &[vec![0x0e, 3, 8, 1, 0xff], at(3, 9, 8, 5)].concat()).starts_with(&error));
        // Where the peer may open none, a stream that is open serves.
        let tap = client();
        tap.register_receiving(3);
        tap.register_receiving(7);
        tap.forget(3);
        arrives(&tap, &plain(11, 9, 8));
        let error = [twice(11), twice(7)].concat();
        assert!(arrives(&tap, &plain(11, 9, 7)).starts_with(&error));
        // Repetitions are none.
        let tap = client();
        tap.register_receiving(3);
        assert_eq!(arrives(&tap, &at(3, 9, 8, 5)), end(3, 8));
        assert_eq!(arrives(&tap, &[0x0f, 3, 7, 1, 0xff]), [0x0f, 3, 7, 1, 0xff]);
        assert_eq!(arrives(&tap, &at(3, 9, 8, 5)), end(3, 8));
    }

    #[test]
    fn turned_off_nothing_is_rewritten() {
        let tap = tap(Side::Server, false);
        tap.register_receiving(2);
        assert_eq!(arrives(&tap, &at(2, 9, 8, 3)), at(2, 9, 8, 3));
        assert_eq!(tap.reset_of(2), None);
        tap.set_peer(&[], true);
        assert!(!tap.sends_resets());
    }

    #[test]
    fn any_frames_in_any_order_leave_the_core_nothing_it_does_not_know() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        for _ in 0..200 {
            let tap = client();
            for packet in 0..200 {
                let mut payload = Vec::new();
                for _ in 0..below(6) {
                    let (stream, size) = (below(8), below(12));
                    match below(5) {
                        0 => Reset { stream, code: below(2), size, reliable: Some(below(14)) }.write(&mut payload),
                        1 => Reset { stream, code: below(2), size, reliable: None }.write(&mut payload),
                        2 => frames::write_start(stream, &[0x40, 0x54, 0][..below(4) as usize], &mut payload),
                        3 => payload.extend_from_slice(&[0x02, below(64) as u8, 0, 0, 0]),
                        _ => payload.extend((0..below(9)).map(|_| below(256) as u8)),
                    }
                }
                match below(8) {
                    0 => tap.register_receiving(below(8)),
                    1 => tap.set_header(below(8), below(4)),
                    2 => tap.forget(below(8)),
                    3 => tap.settle(below(8)),
                    4 => tap.expect_unseen_stop(),
                    5 => tap.cancel_reset(below(8)),
                    6 => tap.take_advanced(&mut Vec::new()),
                    _ => {
                        let stream = below(8);
                        tap.cancel_reset(stream);
                        tap.send_reset(stream, 3, &[0x40, 0x54, 0][..3 * below(2) as usize]);
                    }
                }
                let seen = arrives(&tap, &payload);
                frames::walk(&seen, |_, frame| {
                    if let Frame::Reset(Reset { reliable: Some(reliable), size, .. }) = frame {
                        assert!(reliable > size, "only what the core has to refuse is left");
                    }
                });
                let reserve = tap.reserve();
                assert!(reserve <= RESERVE_LIMIT);
                assert_eq!(leaves(&tap, packet, &payload).len(), payload.len() + reserve);
            }
        }
    }
}
