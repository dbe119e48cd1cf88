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
//! - Incoming, RESET_STREAM_AT becomes an empty STREAM frame, on which the core checks the stream's id, and is noted.
//!   When the engine has what the reset promised, it asks for a plain RESET_STREAM in front of the next packet that is
//!   opened (`feed`), with which the core settles state and credit. Where the header was read before, the frame is
//!   turned into a plain RESET_STREAM at once.
//! - What breaks a rule of the draft is given to the core in a form that makes it close the connection with the right
//!   error. What cannot be read is left to the core as it is.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
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
/// Bits of [`Tap::news`]: streams whose acknowledged prefix grew, or frames of streams that the engine may register now;
/// resets to act on; receiving halves whose extent changed.
const ADVANCED: u8 = 1;
const RESETS: u8 = 2;
const GROWN: u8 = 4;
/// Bytes of each packet that resets under way may claim at most; further resets wait.
const RESERVE_LIMIT: usize = 256;

/// What is known of one stream's sending half, in stream offsets (header included).
#[derive(Debug, Default)]
struct Progress {
    sent: u64,
    acked: u64,
    beyond: BTreeMap<u64, u64>,
}

impl Progress {
    /// Note an acknowledged range; whether the contiguous prefix grew.
    fn acknowledge(&mut self, start: u64, end: u64) -> bool {
        if end <= self.acked {
            return false;
        }
        if start > self.acked {
            let longest = self.beyond.entry(start).or_insert(end);
            *longest = (*longest).max(end);
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
    /// The core has the reset too, or is about to.
    is_core_told: bool,
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

#[derive(Debug, Default)]
struct State {
    streams: FxHashMap<u64, Progress>,
    arrivals: FxHashMap<u64, Box<Arrival>>,
    departures: FxHashMap<u64, Departure>,
    /// Frames of streams the engine has not heard of yet; it will before the next packet.
    unknown: Vec<(u64, u64, u64, bool)>,
    unknown_resets: Vec<Reset>,
    /// Receiving halves whose extent changed.
    grown: Vec<u64>,
    /// STREAM and reset frames in flight, by rising packet number.
    flight: VecDeque<SentFrame>,
    largest_acked: u64,
    advanced: Vec<u64>,
    /// Streams with a reset that the engine has to act on.
    resets: Vec<u64>,
    /// Streams whose reset goes to the core with the next packets.
    feed: Vec<u64>,
    scratch: Vec<u8>,
    /// Streams of the peer (bidirectional, unidirectional) for which the core has room; `MAX` for all that are allowed.
    room: [u64; 2],
    /// Frames that concern streams beyond that. They come in front of the next packet, when there will be room, or in
    /// its place.
    postponed: Vec<u8>,
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
    /// Frames were postponed, and the core was not given room since.
    needs_room: AtomicBool,
    /// What there is to take. Most packets bring little of it, and then nobody has to lock.
    news: AtomicU8,
    /// Bytes beyond the header that resets promise, for tests of the receiving side.
    #[cfg(test)]
    pub(super) promise: std::sync::atomic::AtomicU64,
}

impl Tap {
    pub(crate) fn new(side: Side, accepts_resets: bool, streams: [u64; 2], room: [u64; 2]) -> Self {
        // Where there is room for all, the core sees to it that there are no more.
        let room =
            [0, 1].map(|direction| if room[direction] < streams[direction] { room[direction] } else { u64::MAX });
        Self {
            state: Mutex::new(State { room, ..State::default() }),
            needs_room: AtomicBool::new(false),
            news: AtomicU8::new(0),
            side,
            accepts_resets,
            peer: OnceLock::new(),
            reserve: AtomicUsize::new(0),
            #[cfg(test)]
            promise: std::sync::atomic::AtomicU64::new(0),
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

    /// Whether there are such news; not again before the next.
    fn take_news(&self, kind: u8) -> bool {
        self.news.load(Ordering::Relaxed) & kind != 0 && self.news.fetch_and(!kind, Ordering::Relaxed) & kind != 0
    }

    /// Whether a packet came that the core has no room for; not again before the next.
    pub(crate) fn take_needs_room(&self) -> bool {
        self.needs_room.load(Ordering::Relaxed) && self.needs_room.swap(false, Ordering::Relaxed)
    }

    /// The core has room for all the streams of a direction that the peer may open.
    pub(crate) fn note_room(&self, direction: usize) {
        self.state().room[direction] = u64::MAX;
    }

    pub(crate) fn register(&self, stream: u64) {
        self.state().streams.insert(stream, Progress::default());
    }

    /// Count what arrives on a stream from now on, and what came with the packet that is being handled.
    pub(crate) fn register_receiving(&self, stream: u64) {
        let mut state = self.state();
        let state = &mut *state;
        let mut arrival = Box::<Arrival>::default();
        for &(_, start, end, is_last) in state.unknown.iter().filter(|frame| frame.0 == stream) {
            arrival.progress.acknowledge(start, end);
            arrival.reach(end, is_last, false);
        }
        for reset in state.unknown_resets.iter().filter(|reset| reset.stream == stream) {
            arrival.note(*reset);
            arrival.reach(reset.size, true, false);
            state.resets.push(stream);
            self.news.fetch_or(RESETS, Ordering::Relaxed);
        }
        state.arrivals.insert(stream, arrival);
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
        let mut state = self.state();
        into.append(&mut state.advanced);
        // Whatever was new is registered by now; the rest belongs to streams that are over.
        state.unknown.clear();
        state.unknown_resets.clear();
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

    /// The reset of a stream that the core has not been told of.
    pub(crate) fn reset_of(&self, stream: u64) -> Option<Reset> {
        let state = self.state();
        let arrival = state.arrivals.get(&stream)?;
        arrival.reset.filter(|_| !arrival.is_core_told)
    }

    /// Put the reset of a stream in front of the packets that are opened next, until [`Tap::stop_feeding`].
    pub(crate) fn feed(&self, stream: u64) {
        self.state().feed.push(stream);
    }

    pub(crate) fn stop_feeding(&self, stream: u64) {
        let mut state = self.state();
        state.feed.retain(|fed| *fed != stream);
        if let Some(arrival) = state.arrivals.get_mut(&stream) {
            arrival.is_core_told = true;
        }
    }

    /// See a packet just before it is sealed. The last `reserve` bytes of `payload` are unused as yet.
    fn packet_leaves(&self, packet: u64, payload: &mut [u8], reserve: usize) {
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
        if state.streams.is_empty() {
            return;
        }
        // With room claimed, the frames stand at the end and PADDING in front of them.
        frames::walk(payload, |_, frame| {
            if let Frame::Stream { stream, start, end, .. } = frame
                && let Some(progress) = state.streams.get_mut(&stream)
            {
                progress.sent = progress.sent.max(end);
                state.flight.push_back(SentFrame { packet, stream, content: Content::Bytes { start, end } });
            }
        });
    }

    /// See a packet just after it was opened, and change it where the core cannot take it as it is.
    fn packet_arrives(&self, payload: &mut BytesMut) {
        let mut state = self.state();
        let state = &mut *state;
        if !state.postponed.is_empty() {
            let mut whole = std::mem::take(&mut state.postponed);
            if frames::resets_any_of(payload, &whole) {
                // The sender waited with the reset until the header was acknowledged, and it was, with the packet that
                // brought it. Handed on together, the core would drop the header.
                state.postponed = frames::with_length(payload);
                self.needs_room.store(true, Ordering::Relaxed);
            } else {
                whole.extend_from_slice(payload);
            }
            *payload = BytesMut::from(&whole[..]);
        }
        if state.room != [u64::MAX; 2] {
            let (room, is_client) = (state.room, self.side.is_client());
            let is_beyond = |stream: u64| {
                // RFC 9000, section 2.1.
                (stream & 1 == 1) == is_client && stream >> 2 >= room[usize::from(stream & 2 != 0)]
            };
            if let Some(place) = frames::first_about(payload, is_beyond) {
                state.postponed = frames::with_length(&payload[place..]);
                payload.truncate(place);
                // A packet without frames would be an error, and this one has to be acknowledged.
                payload.extend_from_slice(&[frames::PING]);
                self.needs_room.store(true, Ordering::Relaxed);
            }
        }
        let mut has_resets = false;
        // Resets whose stream got data that contradicts them: the core must know of them first, to see that.
        let mut contradicted = Vec::new();
        frames::walk(payload, |_, frame| match frame {
            Frame::Acked { first, last } => state.acknowledge(first, last, &self.reserve),
            Frame::Stream { stream, start, end, is_last } => match state.arrivals.get_mut(&stream) {
                Some(arrival) => {
                    if let Some(reset) = arrival.reset
                        && !arrival.is_core_told
                        && (end > reset.size || is_last && end != reset.size)
                    {
                        contradicted.push(stream);
                    }
                    arrival.progress.acknowledge(start, end);
                    if arrival.reach(end, is_last, false) && state.grown.last() != Some(&stream) {
                        state.grown.push(stream);
                    }
                }
                None => state.unknown.push((stream, start, end, is_last)),
            },
            Frame::About { .. } => {}
            Frame::Reset(reset) => {
                has_resets = true;
                if let Some(arrival) = state.arrivals.get_mut(&reset.stream) {
                    let is_plain = reset.reliable.unwrap_or(0) <= arrival.header;
                    if arrival.reach(reset.size, true, is_plain) {
                        state.grown.push(reset.stream);
                    }
                }
            }
        });
        if has_resets || !contradicted.is_empty() || !state.feed.is_empty() {
            let mut out = Vec::with_capacity(payload.len() + 64);
            for stream in state.feed.iter().chain(&contradicted) {
                if let Some(reset) = state.arrivals.get(stream).and_then(|arrival| arrival.reset) {
                    Reset { reliable: None, ..reset }.write(&mut out);
                }
            }
            frames::replace_resets(payload, &mut out, |reset, out| {
                (self.accepts_resets || reset.reliable.is_none()) && state.read_reset(self.side, reset, out)
            });
            *payload = BytesMut::from(&out[..]);
        }
        let mut news = 0;
        if !(state.advanced.is_empty() && state.unknown.is_empty() && state.unknown_resets.is_empty()) {
            news |= ADVANCED;
        }
        if !state.resets.is_empty() {
            news |= RESETS;
        }
        if !state.grown.is_empty() {
            news |= GROWN;
        }
        if news != 0 {
            self.news.fetch_or(news, Ordering::Relaxed);
        }
        let horizon = state.largest_acked.saturating_sub(FORGET_DISTANCE);
        while state.flight.front().is_some_and(|f| f.packet < horizon) {
            state.flight.pop_front();
        }
    }
}

impl Arrival {
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
        let noted = Reset { reliable: Some(reliable), ..reset };
        let Some(arrival) = self.arrivals.get_mut(&reset.stream) else {
            if reliable == 0 {
                plain.write(out);
            } else {
                frames::write_start(reset.stream, &[], out);
                self.unknown_resets.push(noted);
            }
            return true;
        };
        if let Some(known) = arrival.reset {
            if known.code != reset.code {
                // STREAM_STATE_ERROR: as if it were for a stream on which only we send.
                Reset { stream: if side.is_client() { 2 } else { 3 }, ..plain }.write(out);
                return true;
            }
            if known.size != reset.size && !arrival.is_core_told {
                // FINAL_SIZE_ERROR: let the core compare the two.
                Reset { reliable: None, ..known }.write(out);
                plain.write(out);
                return true;
            }
        }
        arrival.note(noted);
        if arrival.is_core_told || reliable <= arrival.header {
            arrival.is_core_told = true;
            plain.write(out);
        } else {
            frames::write_start(reset.stream, &[], out);
            self.resets.push(reset.stream);
        }
        true
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
        self.tap.packet_arrives(payload);
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

    fn arrives(tap: &Tap, payload: &[u8]) -> Vec<u8> {
        let mut buffer = BytesMut::from(payload);
        tap.packet_arrives(&mut buffer);
        buffer.to_vec()
    }

    fn client() -> Tap {
        Tap::new(Side::Client, true, [100; 2], [100; 2])
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
        assert_eq!(grown.iter().map(|(stream, extent)| (*stream, extent.end)).collect::<Vec<_>>(), [(3, 20), (7, 30)]);
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
    fn reset_that_promises_bytes_waits_for_the_engine() {
        let tap = client();
        tap.register_receiving(3);
        assert_eq!(arrives(&tap, &at(3, 9, 8, 5)), [0x0a, 3, 0]);
        let mut resets = Vec::new();
        tap.take_resets(&mut resets);
        assert_eq!(resets, [3]);
        // Lowered, then "raised" by a packet that was overtaken.
        arrives(&tap, &at(3, 9, 8, 4));
        arrives(&tap, &at(3, 9, 8, 6));
        assert_eq!(tap.reset_of(3).and_then(|reset| reset.reliable), Some(4));
        tap.feed(3);
        assert_eq!(arrives(&tap, &[0x01]), [plain(3, 9, 8), vec![0x01]].concat());
        tap.stop_feeding(3);
        assert_eq!(arrives(&tap, &[0x01]), [0x01]);
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
        // What no stream came for is not kept.
        arrives(&tap, &at(7, 9, 8, 3));
        tap.take_advanced(&mut Vec::new());
        tap.register_receiving(7);
        assert_eq!(tap.reset_of(7), None);
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
        // Another final size: both, for the core to compare.
        assert_eq!(arrives(&tap, &at(3, 9, 7, 5)), [plain(3, 9, 8), plain(3, 9, 7)].concat());
        // Data beyond the final size, and another end.
        let beyond = [0x0e, 3, 8, 1, 0xff];
        assert_eq!(arrives(&tap, &beyond), [plain(3, 9, 8), beyond.to_vec()].concat());
        let end = [0x0f, 3, 6, 1, 0xff];
        assert_eq!(arrives(&tap, &end), [plain(3, 9, 8), end.to_vec()].concat());
    }

    #[test]
    fn turned_off_nothing_is_rewritten() {
        let tap = Tap::new(Side::Server, false, [100; 2], [100; 2]);
        tap.register_receiving(2);
        assert_eq!(arrives(&tap, &at(2, 9, 8, 3)), at(2, 9, 8, 3));
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
                    3 => tap.feed(below(8)),
                    4 => tap.stop_feeding(below(8)),
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
