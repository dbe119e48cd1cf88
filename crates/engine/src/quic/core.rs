//! One connection of the QUIC core, with all that the engine adds to it below streams: the tap around its packet keys, ECN
//! marks, and a server's limit for addresses that are not validated.
//!
//! [`Core`] takes and returns plain types. The parts above it ([`connection`](crate::connection),
//! [`receiving`](crate::receiving), [`sending`](crate::sending)) own flush order, queues, ledgers and wake-ups. They name no
//! type of the QUIC core and know no packet. Another core, such as an ordered byte pipe, has to answer the same questions:
//!
//! - streams: [`open`](Core::open), [`accept`](Core::accept), [`read`](Core::read), [`stop`](Core::stop),
//!   [`discard`](Core::discard), [`write`](Core::write), [`finish`](Core::finish), [`reset`](Core::reset),
//!   [`set_priority`](Core::set_priority), [`forget`](Core::forget);
//! - what became of their bytes: [`progress`](Core::progress), [`received`](Core::received), [`extent`](Core::extent),
//!   [`promise`](Core::promise), and which of these changed: [`take_advanced`](Core::take_advanced),
//!   [`take_grown`](Core::take_grown), [`take_resets`](Core::take_resets);
//! - datagrams: [`send_datagram`](Core::send_datagram), [`receive_datagram`](Core::receive_datagram);
//! - what happened: [`poll`](Core::poll), and facts and figures for reports.
//!
//! An ordered pipe answers `promise` with nothing and `reset` always with true, because in it no reset overtakes the header
//! of its stream. Packets and timers, which only the [`Engine`](crate::Engine) deals with, are not among the questions.

mod cause;
mod log;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{
    ConnectionHandle, Dir, ReadError, SendDatagramError, Side, StreamEvent, StreamId, VarInt, WriteError,
};
use rustls::pki_types::CertificateDer;

use super::{
    allowance::{Allowance, CREDIT},
    ecn::Marking,
    handshake::{self, TapHandle},
    last_packet::Pass,
    qlog::{ConnectionLog, Half},
    tap::{STOP_UNSEEN, Tap},
};
use crate::{
    datagrams::Offer,
    event::{CloseCause, ConnectionFacts, ConnectionStats},
    stream::Extent,
    window::Flow,
};

/// What the core reports after a packet or a timer.
#[derive(Debug)]
pub(crate) enum Report {
    /// The handshake has shown what the peer asks for.
    HandshakeDataReady,
    Connected,
    /// The connection is over. `is_by_peer`: the peer said so.
    Lost {
        cause: CloseCause,
        code: u64,
        reason: String,
        is_by_peer: bool,
    },
    /// [`Core::accept`] has streams.
    Opened,
    /// [`Core::receive_datagram`] has datagrams.
    Datagrams,
    /// [`Core::open`] may succeed again.
    StreamsAvailable {
        bidirectional: bool,
    },
    /// There is something to read, or the end.
    Readable(u64),
    /// A stream that was blocked is not any more.
    Writable(u64),
    /// The peer has acknowledged all of a stream that was finished.
    Finished(u64),
    /// STOP_SENDING: the stream, and the peer's code.
    Stopped(u64, u64),
}

/// Why a read of the core ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// There is no more for now, or as much as was wanted.
    Blocked,
    /// The end of the stream.
    Ended,
    /// The peer's reset, with its code. All that it promised was read.
    Reset(u64),
    /// The core does not know the stream.
    Gone,
}

/// How the core takes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// So many of them; the rest was put back.
    Some(usize),
    /// None for now; [`Report::Writable`] follows.
    Blocked,
    /// None any more. A report says why, or did.
    Gone,
}

/// Packets that leave together. They are in the buffer that the core was given.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) destination: SocketAddr,
    /// From which of our addresses; `None` leaves it to the system.
    pub(crate) source: Option<std::net::IpAddr>,
    /// ECN bits of the IP header.
    pub(crate) ecn: u8,
    /// Size of each packet, of which the last may be shorter; `None` for a single one.
    pub(crate) segment_size: Option<usize>,
    /// Bytes of all of them.
    pub(crate) size: usize,
}

impl Burst {
    /// What the core's endpoint sends by itself.
    pub(super) fn unmarked(transmit: &quinn_proto::Transmit) -> Self {
        Self {
            destination: transmit.destination,
            source: transmit.src_ip,
            ecn: 0,
            segment_size: transmit.segment_size,
            size: transmit.size,
        }
    }
}

/// What there is to send.
#[derive(Debug)]
pub(crate) enum Transmit {
    Nothing,
    /// A burst that must not leave, see [`Allowance`].
    Discarded,
    Burst(Burst),
}

pub(crate) struct Core {
    /// The connection itself.
    inner: quinn_proto::Connection,
    /// By which the core's endpoint knows the connection. Reused by the core once the connection is drained.
    handle: ConnectionHandle,
    /// Sees and rewrites frames. Shared with the packet keys.
    tap: Arc<Tap>,
    /// Decides which packets have ECN marks.
    marking: Marking,
    /// A server's: bounds what is sent to addresses that are not validated. Boxed, because clients have none.
    allowance: Option<Box<Allowance>>,
    /// Datagrams of [`CREDIT`] bytes that the core has counted, and that never came.
    credits: u64,
    /// The core's endpoint has forgotten the connection.
    is_settled: bool,
    /// [`Core::cut_short`] had the endpoint forget it early.
    is_cut_short: bool,
    /// There may be something to send, such as credit that was freed. Set by whatever may cause that; reset by the engine
    /// when it serves the connection.
    pub(crate) wants_transmit: bool,
    /// The peer has little of the connection's credit left, and what is read counts for
    /// [`PeerCredit::relieve`](crate::peer_credit::PeerCredit::relieve), which sets this.
    pub(crate) is_scarce: bool,
    /// Since it is, a read found all there was to read on its stream.
    has_drained: bool,
    /// What `taken` was when that was noted last.
    taken_when_drained: u64,
    /// A stream was stopped or thrown away, and its bytes may have come back.
    has_released: bool,
    /// Bytes of all streams that were read from the core so far.
    taken: u64,
    /// Bytes of all streams that were given to the core to send so far.
    given: u64,
    /// Bytes of those that will never be acknowledged, because their streams were forgotten first.
    forgotten: u64,
    /// When what happens now happens: for the log, and kept also without one, because that costs less than to ask.
    now: Instant,
    /// The file that events are written to, if somebody wants one. Boxed, because hardly anybody does.
    log: Option<Box<ConnectionLog>>,
}

/// A code or size as the core wants it; what is too large for a varint becomes the largest.
fn wire(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

fn stream(stream_id: u64) -> StreamId {
    StreamId::from(wire(stream_id))
}

fn dir(bidirectional: bool) -> Dir {
    if bidirectional { Dir::Bi } else { Dir::Uni }
}

impl Core {
    pub(super) fn new(handle: ConnectionHandle, inner: quinn_proto::Connection, now: Instant) -> Self {
        let tap = inner
            .crypto_session()
            .handshake_data()
            .and_then(|data| data.downcast::<TapHandle>().ok())
            .map_or_else(|| Arc::new(Tap::new(inner.side(), false)), |handle| handle.tap);
        let marking = Marking::new(inner.remote_address());
        Self {
            inner,
            handle,
            tap,
            marking,
            allowance: None,
            credits: 0,
            is_settled: false,
            is_cut_short: false,
            wants_transmit: false,
            is_scarce: false,
            has_drained: false,
            taken_when_drained: 0,
            has_released: false,
            taken: 0,
            given: 0,
            forgotten: 0,
            now,
            log: None,
        }
    }

    /// Bound what is sent to addresses of a client that are not validated. Its first datagram had `size` bytes, and perhaps
    /// a token that validates its address.
    pub(super) fn limit(&mut self, size: usize, is_validated: bool) {
        self.allowance = Some(Box::new(Allowance::new(&self.inner, size, is_validated)));
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        self.handle
    }

    // ---------------------------------------------------------------- packets and time

    /// Take a datagram of `size` bytes that the core's endpoint found to be for this connection.
    #[inline]
    pub(super) fn receive(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        size: usize,
        event: quinn_proto::ConnectionEvent,
    ) {
        if let Some(allowance) = &mut self.allowance {
            allowance.receive(now, remote, size);
        }
        self.inner.handle_event(event);
        if self.log.is_some() {
            self.log_packet(now);
        }
        if let Some(allowance) = &mut self.allowance {
            allowance.review(now, &mut self.inner, &self.tap);
        }
    }

    /// Whether the core is to be told that [`CREDIT`] bytes more came from an address than did.
    #[inline]
    pub(super) fn wants_credit(&self, from: SocketAddr) -> bool {
        self.allowance.as_ref().is_some_and(|allowance| allowance.is_asking(from))
    }

    /// Take a datagram of [`CREDIT`] bytes that never came.
    pub(super) fn take_credit(&mut self, event: quinn_proto::ConnectionEvent) {
        self.credits += 1;
        self.inner.handle_event(event);
    }

    /// Pass on what connection and endpoint of the core have to tell each other.
    #[inline]
    pub(super) fn settle(&mut self, endpoint: &mut quinn_proto::Endpoint) {
        if self.is_settled {
            return;
        }
        self.is_settled = self.inner.is_drained();
        while let Some(event) = self.inner.poll_endpoint_events() {
            if let Some(event) = endpoint.handle_event(self.handle, event) {
                self.inner.handle_event(event);
            }
        }
    }

    /// Make packets in `buffer`: at most `segments` of one size, or a single one of at most `largest` bytes that probes for
    /// an MTU.
    #[inline]
    pub(crate) fn transmit(&mut self, now: Instant, segments: usize, largest: usize, buffer: &mut Vec<u8>) -> Transmit {
        let segments = match &mut self.allowance {
            Some(allowance) => allowance.datagrams(now, &mut self.inner, &self.tap, largest, segments),
            None => segments,
        };
        let _pass = if self.inner.is_closed() { Pass::new(self.inner.congestion_state()) } else { None };
        buffer.clear();
        let transmit = match segments {
            0 => None,
            _ => self.inner.poll_transmit(now, segments, buffer),
        };
        let cut = match &self.allowance {
            Some(allowance) if allowance.is_limited() => self.tap.end_asking(),
            _ => 0,
        };
        let Some(mut transmit) = transmit else { return Transmit::Nothing };
        if let Some(allowance) = &mut self.allowance {
            transmit.size -= cut;
            if !allowance.send(now, transmit.destination, transmit.size) {
                return Transmit::Discarded;
            }
        }
        Transmit::Burst(Burst {
            destination: transmit.destination,
            source: transmit.src_ip,
            ecn: self.marking.bits(now, &transmit, &mut self.inner, &self.tap),
            segment_size: transmit.segment_size,
            size: transmit.size,
        })
    }

    #[inline]
    pub(crate) fn next_timer(&mut self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    /// A timer is due. If it is passed over because the peer has just moved, it is due again after the next packets.
    pub(crate) fn handle_timer(&mut self, now: Instant) {
        if !self.allowance.as_mut().is_some_and(|allowance| allowance.take_move()) {
            self.inner.handle_timeout(now);
        }
    }

    /// Whether the connection is over and no packet of it is expected any more.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.is_cut_short || self.inner.is_drained()
    }

    /// Whether [`Core::cut_short`] ended the connection: nothing of it leaves any more.
    #[inline]
    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// Have the core's endpoint forget at once a connection that is over. Packets that come late for it are then treated as
    /// those of unknown connections.
    pub(super) fn cut_short(&mut self, endpoint: &mut quinn_proto::Endpoint) {
        if !self.is_drained() {
            self.is_cut_short = true;
            self.is_settled = true;
            endpoint.handle_event(self.handle, quinn_proto::EndpointEvent::drained());
        }
    }

    pub(crate) fn close(&mut self, now: Instant, code: u64, reason: &[u8]) {
        self.now = now;
        if let Some(log) = self.log()
            && !self.inner.is_closed()
        {
            log.closing(code);
        }
        self.inner.close(now, wire(code), Bytes::copy_from_slice(reason));
    }

    /// How many updates of the keys for application data have begun, by either side.
    pub(crate) fn key_updates(&self) -> u64 {
        // The first ones come from the handshake, and those that follow are taken with them.
        self.tap.keys_taken().saturating_sub(1)
    }

    /// Begin to use new keys for application data.
    pub(crate) fn update_keys(&mut self) {
        self.inner.force_key_update();
    }

    /// The next thing that happened.
    #[inline]
    pub(crate) fn poll(&mut self) -> Option<Report> {
        use quinn_proto::Event;
        loop {
            return Some(match self.inner.poll()? {
                Event::HandshakeDataReady => Report::HandshakeDataReady,
                Event::Connected => {
                    self.log_connected();
                    Report::Connected
                }
                Event::ConnectionLost { reason } => {
                    use quinn_proto::ConnectionError::{ApplicationClosed, ConnectionClosed};
                    let is_by_peer = matches!(reason, ConnectionClosed(_) | ApplicationClosed(_));
                    let (cause, code, reason) = cause::describe(reason);
                    if let Some(log) = self.log() {
                        log.lost(cause, code, is_by_peer);
                    }
                    Report::Lost { cause, code, reason, is_by_peer }
                }
                Event::Stream(StreamEvent::Opened { .. }) => Report::Opened,
                Event::Stream(StreamEvent::Readable { id }) => Report::Readable(id.into()),
                Event::Stream(StreamEvent::Writable { id }) => Report::Writable(id.into()),
                Event::Stream(StreamEvent::Finished { id }) => {
                    self.note_stream(id.into(), Half::Sending, "data_received", false);
                    Report::Finished(id.into())
                }
                Event::Stream(StreamEvent::Stopped { id, error_code }) => Report::Stopped(id.into(), error_code.into()),
                Event::Stream(StreamEvent::Available { dir }) => {
                    Report::StreamsAvailable { bidirectional: dir == Dir::Bi }
                }
                Event::DatagramReceived => Report::Datagrams,
                Event::DatagramsUnblocked => continue,
            });
        }
    }

    // ---------------------------------------------------------------- streams

    /// Open a stream, if the peer's credit allows it.
    pub(crate) fn open(&mut self, bidirectional: bool) -> Option<u64> {
        let stream_id = u64::from(self.inner.streams().open(dir(bidirectional))?);
        self.tap.register(stream_id);
        if bidirectional {
            self.tap.register_receiving(stream_id);
        }
        self.note_stream(stream_id, Half::Sending, "open", true);
        Some(stream_id)
    }

    /// The next stream that the peer has opened.
    pub(crate) fn accept(&mut self, bidirectional: bool) -> Option<u64> {
        let stream_id = u64::from(self.inner.streams().accept(dir(bidirectional))?);
        if bidirectional {
            self.tap.register(stream_id);
        }
        self.tap.register_receiving(stream_id);
        self.note_stream(stream_id, Half::Receiving, "open", false);
        Some(stream_id)
    }

    /// Forget a stream, of which the core was given `pushed` bytes to send. Nothing may be asked of it any more.
    pub(crate) fn forget(&mut self, stream_id: u64, pushed: u64) {
        self.forgotten += self.tap.forget(stream_id, pushed);
    }

    /// Take one piece of the head of a stream.
    #[inline]
    pub(crate) fn read_head(&mut self, stream_id: u64, most: usize) -> Result<Bytes, ReadEnd> {
        let mut half = self.inner.recv_stream(stream(stream_id));
        let mut chunks = half.read(true).map_err(|_| ReadEnd::Gone)?;
        let result = match chunks.next(most) {
            Ok(Some(chunk)) => {
                self.taken += chunk.bytes.len() as u64;
                Ok(chunk.bytes)
            }
            Ok(None) => Err(self.tap.reset_of(stream_id).map_or(ReadEnd::Ended, |reset| ReadEnd::Reset(reset.code))),
            Err(ReadError::Blocked) => Err(ReadEnd::Blocked),
            Err(ReadError::Reset(code)) => Err(ReadEnd::Reset(code.into())),
        };
        // A head is too short for its credit to be worth announcing.
        let _ = chunks.finalize();
        result
    }

    /// Take contiguous bytes of a stream, at most `want` and in pieces as they arrived.
    #[inline]
    pub(crate) fn read(&mut self, stream_id: u64, want: usize, mut take: impl FnMut(Bytes)) -> ReadEnd {
        let mut half = self.inner.recv_stream(stream(stream_id));
        let Ok(mut chunks) = half.read(true) else { return ReadEnd::Gone };
        let mut left = want;
        let mut end = ReadEnd::Blocked;
        while left > 0 {
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    take(chunk.bytes);
                }
                Ok(None) => {
                    // To the core it is the end of the stream, but the tap may have made that of a reset.
                    let reset = self.tap.reset_of(stream_id);
                    end = reset.map_or(ReadEnd::Ended, |reset| ReadEnd::Reset(reset.code));
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => {
                    end = ReadEnd::Reset(code.into());
                    break;
                }
            }
        }
        // The end of a stream may make room for another one, which `PeerCredit` looks at.
        self.wants_transmit |= chunks.finalize().should_transmit() | (end != ReadEnd::Blocked);
        self.taken += (want - left) as u64;
        if self.is_scarce {
            self.note_scarce_read(want > left, left > 0);
        }
        if self.log.is_some() {
            self.log_read(stream_id, end);
        }
        end
    }

    /// Have credit looked at, unless the read found nothing that is new: who asks in vain again must not cause work again.
    #[cold]
    fn note_scarce_read(&mut self, has_read: bool, is_all: bool) {
        let has_drained = is_all && self.taken_when_drained != self.taken;
        if has_drained {
            self.taken_when_drained = self.taken;
        }
        self.has_drained |= has_drained;
        self.wants_transmit |= has_read | has_drained;
    }

    /// Ask the peer to stop a stream whose end is not known.
    pub(crate) fn stop(&mut self, stream_id: u64, code: u64) {
        let mut half = self.inner.recv_stream(stream(stream_id));
        // A stream that was reset is not stopped: the core would give its credit back only when the next packet arrives,
        // and a peer that waits for credit may send none.
        if !matches!(half.received_reset(), Ok(Some(_))) {
            let _ = half.stop(wire(code));
        }
        self.has_released = true;
        self.wants_transmit = true;
    }

    /// Nobody reads a stream any more: of what still arrives only its extent counts, and a reset need keep no promise.
    pub(crate) fn settle_receiving(&mut self, stream_id: u64) {
        self.tap.settle(stream_id);
    }

    /// Throw away what is left of a stream that the peer has reset, and give the peer its credit back.
    pub(crate) fn discard(&mut self, stream_id: u64) {
        self.has_released = true;
        self.wants_transmit = true;
        let mut half = self.inner.recv_stream(stream(stream_id));
        let Ok(mut chunks) = half.read(true) else { return };
        let is_read_out = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(_)) => {}
                Ok(None) | Err(ReadError::Reset(_)) => break true,
                Err(ReadError::Blocked) => break false,
            }
        };
        let _ = chunks.finalize();
        if !is_read_out {
            // The rest may never come; the core has to know that nobody waits for it.
            self.tap.expect_unseen_stop();
            let _ = half.stop(wire(STOP_UNSEEN));
        }
    }

    /// The header of a peer's stream was read, and had this length: a reset can no longer hide it.
    pub(crate) fn set_header(&mut self, stream_id: u64, length: u64) {
        self.tap.set_header(stream_id, length);
    }

    /// Give bytes to the core. It leaves in `chunk` what it does not take.
    #[inline]
    pub(crate) fn write(&mut self, stream_id: u64, chunk: &mut Bytes) -> Written {
        match self.inner.send_stream(stream(stream_id)).write_chunks(std::slice::from_mut(chunk)) {
            Ok(written) => {
                self.given += written.bytes as u64;
                Written::Some(written.bytes)
            }
            Err(WriteError::Blocked) => Written::Blocked,
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => Written::Gone,
        }
    }

    /// Give the core a copy of bytes; how many of them it takes.
    pub(crate) fn write_copy(&mut self, stream_id: u64, data: &[u8]) -> usize {
        let written = self.inner.send_stream(stream(stream_id)).write(data).unwrap_or(0);
        self.given += written as u64;
        written
    }

    /// End a stream behind all that was written.
    #[inline]
    pub(crate) fn finish(&mut self, stream_id: u64) {
        let _ = self.inner.send_stream(stream(stream_id)).finish();
        self.note_stream(stream_id, Half::Sending, "data_sent", true);
    }

    /// Reset a stream, if the peer is sure to get its header. With RESET_STREAM_AT, the header must have been given to the
    /// core; without, it must be acknowledged. False: try again when packets have arrived.
    ///
    /// `header` is empty for a raw stream, `pushed` is how many bytes of the stream the core was given, and `is_acked` says
    /// that the whole stream is acknowledged.
    pub(crate) fn reset(&mut self, stream_id: u64, code: u64, header: &[u8], pushed: u64, is_acked: bool) -> bool {
        if !header.is_empty() {
            let length = header.len() as u64;
            let (_, acked) = self.tap.progress(stream_id);
            let is_delivered = acked >= length || is_acked;
            if self.tap.sends_resets() {
                let missing = if is_delivered { &[] } else { header };
                if pushed < length || !self.tap.send_reset(stream_id, length, missing) {
                    return false;
                }
            } else if !is_delivered {
                return false;
            }
        }
        if self.inner.send_stream(stream(stream_id)).reset(wire(code)).is_err() {
            // The core has let go of the stream, and will send no reset.
            self.tap.cancel_reset(stream_id);
        }
        self.note_stream(stream_id, Half::Sending, "reset_sent", true);
        true
    }

    /// Reset a stream of which the peer need not know anything.
    pub(crate) fn reset_at_once(&mut self, stream_id: u64, code: u64) {
        let _ = self.inner.send_stream(stream(stream_id)).reset(wire(code));
        self.note_stream(stream_id, Half::Sending, "reset_sent", true);
    }

    /// Streams with a higher priority go first.
    pub(crate) fn set_priority(&mut self, stream_id: u64, priority: i32) {
        let _ = self.inner.send_stream(stream(stream_id)).set_priority(priority);
    }

    // ---------------------------------------------------------------- what became of bytes

    /// Whether [`Core::take_advanced`], [`Core::take_grown`] or [`Core::take_resets`] have anything.
    #[inline]
    pub(crate) fn has_changes(&self) -> bool {
        self.tap.has_changes()
    }

    /// Offsets (sent, acknowledged) of a stream, header included.
    #[inline]
    pub(crate) fn progress(&self, stream_id: u64) -> (u64, u64) {
        self.tap.progress(stream_id)
    }

    /// Contiguous bytes of a stream that arrived, header included.
    #[inline]
    pub(crate) fn received(&self, stream_id: u64) -> u64 {
        self.tap.received(stream_id)
    }

    /// How far a stream of the peer reaches, as far as is known.
    #[inline]
    pub(crate) fn extent(&self, stream_id: u64) -> Extent {
        self.tap.extent(stream_id)
    }

    /// Code and number of promised bytes of the peer's reset, if it promised any and is not settled.
    #[inline]
    pub(crate) fn promise(&self, stream_id: u64) -> Option<(u64, u64)> {
        self.tap.reset_of(stream_id).map(|reset| (reset.code, reset.reliable.unwrap_or(0)))
    }

    /// Streams whose acknowledged prefix grew since the last call.
    #[inline]
    pub(crate) fn take_advanced(&mut self, into: &mut Vec<u64>) {
        self.tap.take_advanced(into);
    }

    /// Streams whose extent changed since the last call, and how far they reach now.
    #[inline]
    pub(crate) fn take_grown(&mut self, into: &mut Vec<(u64, Extent)>) {
        self.tap.take_grown(into);
    }

    /// Streams with a reset that promises bytes, since the last call.
    #[inline]
    pub(crate) fn take_resets(&mut self, into: &mut Vec<u64>) {
        self.tap.take_resets(into);
    }

    /// Streams that the core keeps: those on which we send, and the peer's, bidirectional and unidirectional.
    pub(crate) fn streams(&mut self) -> [u64; 3] {
        let streams = self.inner.streams();
        [streams.send_streams() as u64, streams.remote_open_streams(Dir::Bi), streams.remote_open_streams(Dir::Uni)]
    }

    // ---------------------------------------------------------------- credit of the connection

    /// Streams of the peer, of a direction, that were accepted so far.
    pub(crate) fn opened(&self, direction: usize) -> u64 {
        self.tap.registered(direction)
    }

    /// Let the peer have so many streams open, and tell it at once how many it may open in all.
    pub(crate) fn announce_streams(&mut self, bidirectional: bool, most: u64) {
        // The core keeps small differences to itself. From a limit of 0, any difference is large; the peer sees only the
        // second one.
        self.inner.set_max_concurrent_streams(dir(bidirectional), wire(0));
        self.inner.set_max_concurrent_streams(dir(bidirectional), wire(most));
    }

    /// Let the peer be `window` bytes ahead, and tell it at once.
    pub(crate) fn widen(&mut self, window: u64) {
        self.inner.set_receive_window(wire(window));
        self.wants_transmit = true;
    }

    /// What was read and what came so far, on all streams together.
    #[inline]
    pub(crate) fn flow(&self) -> Flow {
        Flow { read: self.taken, came: self.tap.came() }
    }

    /// How many bytes the peer may send on all streams, as far as a frame that left says so; 0 before the first.
    #[inline]
    pub(crate) fn window_end(&self) -> u64 {
        self.tap.window_end()
    }

    /// Whether a read since the last call found all there was to read on its stream, while credit was scarce.
    pub(crate) fn take_drained(&mut self) -> bool {
        std::mem::take(&mut self.has_drained)
    }

    /// Whether bytes may have come back since the last call that nobody read.
    pub(crate) fn take_released(&mut self) -> bool {
        std::mem::take(&mut self.has_released) | self.tap.take_released()
    }

    /// Bytes that the core was given to send and that are not acknowledged.
    #[inline]
    pub(crate) fn outstanding(&self) -> u64 {
        self.given.saturating_sub(self.forgotten + self.tap.delivered())
    }

    /// Smoothed round-trip time.
    pub(crate) fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// Tell the peer at once how many bytes it may send in all, `window` more than were read.
    pub(crate) fn announce_window(&mut self, window: u64) {
        self.inner.set_receive_window(wire(window + 1));
        self.inner.set_receive_window(wire(window));
    }

    // ---------------------------------------------------------------- datagrams

    /// The next datagram that arrived, as its frame holds it.
    #[inline]
    pub(crate) fn receive_datagram(&mut self) -> Option<Bytes> {
        let data = self.inner.datagrams().recv()?;
        if self.log.is_some() {
            self.log_datagram("http3:datagram_parsed", &data);
        }
        Some(data)
    }

    /// Largest datagram that can be sent, in bytes of its frame's data. Room that resets in flight claim is counted in: it is
    /// free again soon.
    #[inline]
    pub(crate) fn max_datagram(&mut self) -> Option<usize> {
        self.inner.datagrams().max_size().map(|size| size + self.tap.reserve())
    }

    #[inline]
    pub(crate) fn send_datagram(&mut self, data: Bytes) -> Offer {
        if self.tap.reserve() > 0 && self.inner.datagrams().max_size().is_some_and(|most| data.len() > most) {
            // It fits again when the resets in flight are acknowledged.
            return Offer::Full(data);
        }
        if self.log.is_some() {
            return self.send_logged(data);
        }
        self.send_to_core(data)
    }

    #[inline]
    fn send_to_core(&mut self, data: Bytes) -> Offer {
        match self.inner.datagrams().send(data, false) {
            Ok(()) => Offer::Taken,
            Err(SendDatagramError::Blocked(data)) => Offer::Full(data),
            // The path's limit shrank below this datagram since it was accepted.
            Err(_) => Offer::Refused,
        }
    }

    // ---------------------------------------------------------------- facts

    pub(crate) fn is_client(&self) -> bool {
        self.inner.side() == Side::Client
    }

    /// The peer's address.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// UDP datagrams that came.
    pub(crate) fn datagrams_received(&self) -> u64 {
        self.inner.stats().udp_rx.datagrams - self.credits
    }

    fn tap_handle(&self) -> Option<Box<TapHandle>> {
        self.inner.crypto_session().handshake_data()?.downcast::<TapHandle>().ok()
    }

    pub(crate) fn server_name(&self) -> Option<String> {
        self.tap_handle()?.server_name
    }

    /// The peer's transport parameters in the order in which they came: (id, value).
    pub(crate) fn peer_parameters(&self) -> Option<Vec<(u64, Vec<u8>)>> {
        let raw = self.tap.peer_parameters()?;
        Some(handshake::parameters(raw).into_iter().map(|(id, value)| (id, value.to_vec())).collect())
    }

    /// The peer's certificate chain in DER, leaf first.
    pub(crate) fn peer_certificates(&self) -> Vec<Vec<u8>> {
        self.inner
            .crypto_session()
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|chain| chain.iter().map(|certificate| certificate.as_ref().to_vec()).collect())
            .unwrap_or_default()
    }

    pub(crate) fn export_keying_material(&self, label: &[u8], context: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; length];
        self.inner.crypto_session().export_keying_material(&mut out, label, context).ok()?;
        Some(out)
    }

    /// What is known by now, for people. What only the engine knows of the end is left out.
    pub(crate) fn facts(&mut self) -> ConnectionFacts {
        let handle = self.tap_handle();
        let cipher = handle.as_ref().and_then(|handle| handle.cipher);
        let key_exchange = handle.as_ref().and_then(|handle| handle.key_exchange);
        let (alpn, server_name, own_chain) =
            handle.map_or((None, None, None), |handle| (handle.alpn, handle.server_name, handle.own_chain));
        let stats = self.inner.stats();
        ConnectionFacts {
            remote: self.inner.remote_address(),
            alpn,
            cipher,
            key_exchange,
            server_name,
            own_chain,
            parameters: self.peer_parameters(),
            certificates: self.peer_certificates(),
            is_refused: false,
            is_closed_by_peer: false,
            max_datagram: self.inner.datagrams().max_size(),
            mtu: stats.path.current_mtu,
            datagrams_sent: stats.udp_tx.datagrams,
            datagrams_received: stats.udp_rx.datagrams - self.credits,
        }
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let stats = self.inner.stats();
        ConnectionStats {
            rtt: stats.path.rtt,
            min_rtt: stats.path.min_rtt,
            congestion_window: stats.path.cwnd,
            congestion_events: stats.path.congestion_events,
            mtu: stats.path.current_mtu,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes - self.credits * CREDIT as u64,
            packets_sent: stats.path.sent_packets,
            packets_received: stats.udp_rx.datagrams - self.credits,
            acks_received: stats.frame_rx.acks,
            packets_lost: stats.path.lost_packets,
            bytes_lost: stats.path.lost_bytes,
            send_calls: stats.udp_tx.ios,
        }
    }

    #[cfg(test)]
    pub(crate) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Counts of the frames that the core has processed, in words.
    #[cfg(test)]
    pub(crate) fn frames_received(&self) -> String {
        format!("{:?}", self.inner.stats().frame_rx)
    }

    #[cfg(test)]
    pub(crate) fn ping(&mut self) {
        self.inner.ping();
    }
}

#[cfg(test)]
mod tests;
