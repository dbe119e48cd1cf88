//! A tap between the QUIC core and its packet keys.
//!
//! The core does not tell which bytes of a stream were sent or acknowledged. Its packet keys, however, are public
//! traits: wrapped, they show the plaintext of every packet just before sealing and just after opening. The tap notes
//! the STREAM frames of each packet that leaves and looks them up when an ACK for that packet arrives. That gives
//! `wait_acked()`, the byte counts of diagnostics, and the moment from which a reset can no longer hide a stream's
//! header (draft-ietf-webtrans-http3, section 4.4).

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
use quinn_proto::{
    ConnectError, ConnectionId, Side, TransportError,
    crypto::{
        ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig,
        Session, UnsupportedVersion,
    },
    transport_parameters::TransportParameters,
};
use rustc_hash::FxHashMap;

use crate::varint;

/// Packets below the largest acknowledged one by this distance are forgotten; the core has long declared them lost.
const FORGET_DISTANCE: u64 = 8192;

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

#[derive(Debug)]
struct SentFrame {
    packet: u64,
    stream: u64,
    start: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct State {
    streams: FxHashMap<u64, Progress>,
    /// Receiving halves: the contiguous prefix that arrived is their `acked`.
    received: FxHashMap<u64, Progress>,
    /// Frames of streams the engine has not heard of yet; it will before the next packet.
    unknown: Vec<(u64, u64, u64)>,
    /// STREAM frames in flight, by rising packet number.
    flight: VecDeque<SentFrame>,
    largest_acked: u64,
    advanced: Vec<u64>,
}

/// Shared by the engine and the packet keys of one connection.
#[derive(Debug, Default)]
pub(crate) struct Tap(Mutex<State>);

impl Tap {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, stream: u64) {
        self.state().streams.insert(stream, Progress::default());
    }

    /// Count what arrives on a stream from now on, and what came with the packet that is being handled.
    pub(crate) fn register_receiving(&self, stream: u64) {
        let mut state = self.state();
        let state = &mut *state;
        let mut progress = Progress::default();
        for &(_, start, end) in state.unknown.iter().filter(|frame| frame.0 == stream) {
            progress.acknowledge(start, end);
        }
        state.received.insert(stream, progress);
    }

    pub(crate) fn forget(&self, stream: u64) {
        let mut state = self.state();
        state.streams.remove(&stream);
        state.received.remove(&stream);
    }

    /// Contiguous bytes of a stream that arrived, header included.
    pub(crate) fn received(&self, stream: u64) -> u64 {
        self.state().received.get(&stream).map_or(0, |p| p.acked)
    }

    /// Offsets (sent, acknowledged) of a stream.
    pub(crate) fn progress(&self, stream: u64) -> (u64, u64) {
        self.state().streams.get(&stream).map_or((0, 0), |p| (p.sent, p.acked))
    }

    /// Streams whose acknowledged prefix grew since the last call.
    pub(crate) fn take_advanced(&self, into: &mut Vec<u64>) {
        let mut state = self.state();
        into.append(&mut state.advanced);
        // Whatever was new is registered by now; the rest belongs to streams that are over.
        state.unknown.clear();
    }

    fn packet_leaves(&self, packet: u64, payload: &[u8]) {
        let mut state = self.state();
        let state = &mut *state;
        if state.streams.is_empty() {
            return;
        }
        walk(payload, |frame| {
            if let Frame::Stream { stream, start, end } = frame
                && let Some(progress) = state.streams.get_mut(&stream)
            {
                progress.sent = progress.sent.max(end);
                state.flight.push_back(SentFrame { packet, stream, start, end });
            }
        });
    }

    fn packet_arrives(&self, payload: &[u8]) {
        let mut state = self.state();
        let state = &mut *state;
        walk(payload, |frame| match frame {
            Frame::Acked { first, last } => state.acknowledge(first, last),
            Frame::Stream { stream, start, end } => match state.received.get_mut(&stream) {
                Some(progress) => {
                    progress.acknowledge(start, end);
                }
                None => state.unknown.push((stream, start, end)),
            },
        });
        let horizon = state.largest_acked.saturating_sub(FORGET_DISTANCE);
        while state.flight.front().is_some_and(|f| f.packet < horizon) {
            state.flight.pop_front();
        }
    }
}

impl State {
    fn acknowledge(&mut self, first: u64, last: u64) {
        self.largest_acked = self.largest_acked.max(last);
        let from = self.flight.partition_point(|f| f.packet < first);
        let to = self.flight.partition_point(|f| f.packet <= last);
        for index in from..to {
            let SentFrame { stream, start, end, .. } = self.flight[index];
            if let Some(progress) = self.streams.get_mut(&stream)
                && progress.acknowledge(start, end)
                && self.advanced.last() != Some(&stream)
            {
                self.advanced.push(stream);
            }
        }
        if from == 0 {
            self.flight.drain(..to);
        } else if from < to {
            self.flight.drain(from..to);
        }
    }
}

/// The frames that matter here.
enum Frame {
    Stream { stream: u64, start: u64, end: u64 },
    Acked { first: u64, last: u64 },
}

/// Walk the frames of a packet in the application data space. Stops silently at anything it cannot read: the core
/// judges packets, this only watches.
fn walk(payload: &[u8], mut see: impl FnMut(Frame)) {
    let mut reader = Reader(payload);
    while let Some(kind) = reader.varint() {
        if reader.frame(kind, &mut see).is_none() {
            return;
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (value, length) = varint::read(self.0)?;
        self.0 = &self.0[length..];
        Some(value)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    fn skip_varints(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            self.varint()?;
        }
        Some(())
    }

    fn frame(&mut self, kind: u64, see: &mut impl FnMut(Frame)) -> Option<()> {
        match kind {
            // PADDING, PING, HANDSHAKE_DONE, IMMEDIATE_ACK
            0x00 | 0x01 | 0x1e | 0x1f => Some(()),
            0x02 | 0x03 => self.ack(kind == 0x03, see),
            0x08..=0x0f => {
                let stream = self.varint()?;
                let start = if kind & 0x04 == 0 { 0 } else { self.varint()? };
                let length = if kind & 0x02 == 0 { self.0.len() as u64 } else { self.varint()? };
                self.skip(length)?;
                see(Frame::Stream { stream, start, end: start.checked_add(length)? });
                Some(())
            }
            // RESET_STREAM (3 fields), RESET_STREAM_AT and ACK_FREQUENCY (4)
            0x04 => self.skip_varints(3),
            0x24 | 0xaf => self.skip_varints(4),
            // STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED
            0x05 | 0x11 | 0x15 => self.skip_varints(2),
            // MAX_DATA, MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED, RETIRE_CONNECTION_ID
            0x10 | 0x12 | 0x13 | 0x14 | 0x16 | 0x17 | 0x19 => self.skip_varints(1),
            0x06 => {
                self.varint()?;
                let length = self.varint()?;
                self.skip(length)
            }
            // NEW_TOKEN, DATAGRAM with length
            0x07 | 0x31 => {
                let length = self.varint()?;
                self.skip(length)
            }
            0x30 => self.skip(self.0.len() as u64),
            0x18 => {
                self.skip_varints(2)?;
                let length = u64::from(*self.0.first()?);
                self.skip(1 + length + 16)
            }
            0x1a | 0x1b => self.skip(8),
            _ => None,
        }
    }

    /// RFC 9000, section 19.3.
    fn ack(&mut self, ecn: bool, see: &mut impl FnMut(Frame)) -> Option<()> {
        let mut last = self.varint()?;
        self.varint()?;
        let ranges = self.varint()?;
        let mut first = last.checked_sub(self.varint()?)?;
        see(Frame::Acked { first, last });
        for _ in 0..ranges {
            last = first.checked_sub(self.varint()?.checked_add(2)?)?;
            first = last.checked_sub(self.varint()?)?;
            see(Frame::Acked { first, last });
        }
        if ecn { self.skip_varints(3) } else { Some(()) }
    }
}

struct TapKey {
    inner: Box<dyn PacketKey>,
    tap: Arc<Tap>,
}

impl PacketKey for TapKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        if let Some(end) = buf.len().checked_sub(self.inner.tag_len())
            && let Some(payload) = buf.get(header_len..end)
        {
            self.tap.packet_leaves(packet, payload);
        }
        self.inner.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.inner.decrypt(packet, header, payload)?;
        self.tap.packet_arrives(payload);
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

/// What [`Session::handshake_data`] of a tapped session returns.
pub(crate) struct TapHandle {
    pub(crate) tap: Arc<Tap>,
    pub(crate) inner: Option<Box<dyn Any>>,
}

struct TapSession {
    inner: Box<dyn Session>,
    tap: Arc<Tap>,
    /// Key sets handed out: the first is for the handshake, the second for application data.
    key_sets: u8,
}

impl TapSession {
    fn wrap(&self, keys: KeyPair<Box<dyn PacketKey>>) -> KeyPair<Box<dyn PacketKey>> {
        let wrap = |inner| Box::new(TapKey { inner, tap: self.tap.clone() }) as Box<dyn PacketKey>;
        KeyPair { local: wrap(keys.local), remote: wrap(keys.remote) }
    }
}

impl Session for TapSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(TapHandle { tap: self.tap.clone(), inner: self.inner.handshake_data() }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.inner.write_handshake(buf)?;
        self.key_sets = self.key_sets.saturating_add(1);
        if self.key_sets < 2 {
            return Some(keys);
        }
        Some(Keys { header: keys.header, packet: self.wrap(keys.packet) })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.inner.next_1rtt_keys()?;
        Some(self.wrap(keys))
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

pub(crate) struct TapClientConfig<C>(pub(crate) Arc<C>);

impl<C: ClientConfig> ClientConfig for TapClientConfig<C> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = self.0.clone().start_session(version, server_name, params)?;
        Ok(Box::new(TapSession { inner, tap: Arc::default(), key_sets: 0 }))
    }
}

pub(crate) struct TapServerConfig<C>(pub(crate) Arc<C>);

impl<C: ServerConfig> ServerConfig for TapServerConfig<C> {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let inner = self.0.clone().start_session(version, params);
        Box::new(TapSession { inner, tap: Arc::default(), key_sets: 0 })
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

    #[test]
    fn stream_frames_are_matched_with_their_acknowledgement() {
        let tap = Tap::default();
        tap.register(0);
        // STREAM with offset and length: stream 0, offset 0, 3 bytes; then one without length to the packet's end.
        tap.packet_leaves(7, &[0x01, 0x0e, 0x00, 0x00, 0x03, 1, 2, 3]);
        tap.packet_leaves(9, &[0x0d, 0x00, 0x03, 4, 5]);
        assert_eq!(tap.progress(0), (5, 0));
        // ACK of 9 only, then of 7 in a second range.
        tap.packet_arrives(&[0x02, 9, 0, 0, 0]);
        assert_eq!(tap.progress(0), (5, 0));
        tap.packet_arrives(&[0x02, 9, 0, 1, 0, 0, 0]);
        assert_eq!(tap.progress(0), (5, 5));
        let mut advanced = Vec::new();
        tap.take_advanced(&mut advanced);
        assert_eq!(advanced, [0]);
    }

    #[test]
    fn walker_survives_any_bytes() {
        let mut state = 0x1234_5678_u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..(state >> 58) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push((state >> 33) as u8);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            walk(&bytes, |_| ());
        }
    }
}
