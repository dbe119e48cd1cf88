//! The frames of a decrypted packet, as far as the engine looks at them, and how resets and stops in it are rewritten. The
//! [tap](super::tap) says what for.
//!
//! Pure functions over bytes: no key, no connection. Any input is fine. What cannot be read is left as it is, for the QUIC
//! core to judge.

use std::ops::Range;

use crate::varint;

pub(crate) const PADDING: u8 = 0x00;
pub(crate) const PING: u8 = 0x01;
pub(crate) const RESET_STREAM: u64 = 0x04;
pub(crate) const RESET_STREAM_AT: u64 = 0x24;
const STOP_SENDING: u64 = 0x05;
const MAX_DATA: u64 = 0x10;
const PATH_CHALLENGE: u64 = 0x1a;
/// STREAM with a length, without an offset (it is 0) and without an end.
const STREAM_FROM_START: u64 = 0x0a;
/// STREAM with an offset, a length and the end.
const STREAM_LAST: u64 = 0x0f;

/// A frame that matters here. Offsets and sizes are those of the stream, its header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    Stream {
        stream: u64,
        start: u64,
        end: u64,
        is_last: bool,
    },
    Acked {
        first: u64,
        last: u64,
    },
    Reset(Reset),
    /// STOP_SENDING.
    Stop {
        code: u64,
    },
    MaxData {
        limit: u64,
    },
}

/// RESET_STREAM or RESET_STREAM_AT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) stream: u64,
    /// The application's error code.
    pub(crate) code: u64,
    /// The final size of the stream.
    pub(crate) size: u64,
    /// How many bytes are delivered before the reset; `None` for RESET_STREAM.
    pub(crate) reliable: Option<u64>,
}

impl Reset {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        varint::write(if self.reliable.is_some() { RESET_STREAM_AT } else { RESET_STREAM }, out);
        for field in [self.stream, self.code, self.size] {
            varint::write(field, out);
        }
        if let Some(reliable) = self.reliable {
            varint::write(reliable, out);
        }
    }
}

/// Append a STREAM frame without data that ends a stream at `size`.
pub(crate) fn write_end(stream: u64, size: u64, out: &mut Vec<u8>) {
    for field in [STREAM_LAST, stream, size, 0] {
        varint::write(field, out);
    }
}

/// Append a STREAM frame with the first bytes of a stream. Without bytes it only opens the stream.
pub(crate) fn write_start(stream: u64, data: &[u8], out: &mut Vec<u8>) {
    varint::write(STREAM_FROM_START, out);
    varint::write(stream, out);
    varint::write(data.len() as u64, out);
    out.extend_from_slice(data);
}

/// Walk the frames of a packet with application data, and show those that matter to `see`. Resets and STOP_SENDING come with
/// the bytes that they occupy, other frames with an empty range. Stops silently at anything that cannot be read.
#[inline]
pub(crate) fn walk(payload: &[u8], mut see: impl FnMut(Range<usize>, Frame)) {
    let mut reader = Reader(payload);
    loop {
        let start = payload.len() - reader.0.len();
        let Some(kind) = reader.varint() else { return };
        let mut placed = None;
        let read = reader.frame(kind, &mut placed, &mut |frame| see(start..start, frame));
        if read.is_none() {
            return;
        }
        if let Some(frame) = placed {
            see(start..payload.len() - reader.0.len(), frame);
        }
    }
}

/// How long a packet is without the PADDING at its end. One frame of it stays if there is nothing else: a packet without
/// frames is a violation. Anything that cannot be read, and what follows it, stays.
#[inline]
pub(crate) fn unpadded(payload: &[u8]) -> usize {
    // Most packets have none. A few zeros may also be what a frame ends with.
    if payload.last_chunk::<8>().is_none_or(|end| *end != [PADDING; 8]) {
        return payload.len();
    }
    let mut reader = Reader(payload);
    let mut end = 0;
    while let Some(first) = reader.0.first().copied()
        && let Some(kind) = reader.varint()
    {
        if reader.frame(kind, &mut None, &mut |_| ()).is_none() {
            return payload.len();
        }
        // A type of 0 in more than one byte is left to the core.
        if first != PADDING {
            end = payload.len() - reader.0.len();
        }
    }
    if reader.0.is_empty() { end.max(1) } else { payload.len() }
}

/// Where the frames of a packet end behind which there is only PADDING, if there is a PATH_CHALLENGE among them.
pub(crate) fn end_with_challenge(payload: &[u8]) -> Option<usize> {
    let mut reader = Reader(payload);
    let mut has_challenge = false;
    let mut end = 0;
    while let Some(kind) = reader.varint() {
        has_challenge |= kind == PATH_CHALLENGE;
        if reader.frame(kind, &mut None, &mut |_| ()).is_none() {
            // What cannot be read is left as it is.
            end = payload.len();
            break;
        }
        if kind != u64::from(PADDING) {
            end = payload.len() - reader.0.len();
        }
    }
    has_challenge.then_some(end)
}

/// Copy `payload` into `out`, with each reset replaced by what `replace` writes. If `replace` answers false, having written
/// nothing, the frame is copied as it is.
pub(crate) fn replace_resets(payload: &[u8], out: &mut Vec<u8>, mut replace: impl FnMut(Reset, &mut Vec<u8>) -> bool) {
    let mut copied = 0;
    walk(payload, |place, frame| {
        if let Frame::Reset(reset) = frame {
            out.extend_from_slice(&payload[copied..place.start]);
            copied = place.end;
            if !replace(reset, out) {
                out.extend_from_slice(&payload[place]);
            }
        }
    });
    out.extend_from_slice(&payload[copied..]);
}

/// Move each STOP_SENDING behind a reset to the front of the first reset. Otherwise the order stays, and so does the length.
pub(crate) fn stops_before_resets(payload: &mut [u8]) {
    let mut first = None;
    let mut place = 0;
    loop {
        let mut reader = Reader(&payload[place..]);
        let Some(kind) = reader.varint() else { return };
        if reader.frame(kind, &mut None, &mut |_| ()).is_none() {
            return;
        }
        let end = payload.len() - reader.0.len();
        match (kind, first) {
            (RESET_STREAM | RESET_STREAM_AT, None) => first = Some(place),
            (STOP_SENDING, Some(start)) => {
                payload[start..end].rotate_right(end - place);
                first = Some(start + end - place);
            }
            _ => {}
        }
        place = end;
    }
}

/// The bytes of a packet that were not read yet. All methods answer `None` if they are not what they should be.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (value, rest) = varint::split(self.0)?;
        self.0 = rest;
        Some(value)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    #[inline]
    fn skip_varints(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            self.skip(1 << (self.0.first()? >> 6))?;
        }
        Some(())
    }

    /// Read a frame behind its type. Those that are shown with their place are put into `placed`, all others that matter are
    /// shown to `see` at once: an ACK may contain many.
    fn frame(&mut self, kind: u64, placed: &mut Option<Frame>, see: &mut impl FnMut(Frame)) -> Option<()> {
        match kind {
            // PADDING, of which there are many at once
            0x00 => self.skip(self.0.iter().take_while(|byte| **byte == PADDING).count() as u64),
            // PING, HANDSHAKE_DONE, IMMEDIATE_ACK
            0x01 | 0x1e | 0x1f => Some(()),
            // ACK, without and with counts of ECN marks
            0x02 | 0x03 => self.ack(kind == 0x03, see),
            // STREAM
            0x08..=0x0f => {
                let stream = self.varint()?;
                let start = if kind & 0x04 == 0 { 0 } else { self.varint()? };
                let length = if kind & 0x02 == 0 { self.0.len() as u64 } else { self.varint()? };
                self.skip(length)?;
                see(Frame::Stream { stream, start, end: start.checked_add(length)?, is_last: kind & 0x01 != 0 });
                Some(())
            }
            RESET_STREAM | RESET_STREAM_AT => {
                let (stream, code, size) = (self.varint()?, self.varint()?, self.varint()?);
                let reliable = if kind == RESET_STREAM_AT { Some(self.varint()?) } else { None };
                *placed = Some(Frame::Reset(Reset { stream, code, size, reliable }));
                Some(())
            }
            // ACK_FREQUENCY
            0xaf => self.skip_varints(4),
            STOP_SENDING => {
                self.varint()?;
                *placed = Some(Frame::Stop { code: self.varint()? });
                Some(())
            }
            // MAX_STREAM_DATA, STREAM_DATA_BLOCKED
            0x11 | 0x15 => self.skip_varints(2),
            MAX_DATA => {
                see(Frame::MaxData { limit: self.varint()? });
                Some(())
            }
            // MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED, RETIRE_CONNECTION_ID
            0x12 | 0x13 | 0x14 | 0x16 | 0x17 | 0x19 => self.skip_varints(1),
            // CRYPTO
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
            // DATAGRAM without length
            0x30 => self.skip(self.0.len() as u64),
            // NEW_CONNECTION_ID: two varints, the ID, and a token of 16 bytes
            0x18 => {
                self.skip_varints(2)?;
                let length = u64::from(*self.0.first()?);
                self.skip(1 + length + 16)
            }
            // PATH_RESPONSE
            PATH_CHALLENGE | 0x1b => self.skip(8),
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

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = &[0x04, 0x02, 0x07, 0x09];
    const RELIABLE: &[u8] = &[0x24, 0x02, 0x07, 0x09, 0x03];

    fn frames(payload: &[u8]) -> Vec<(Range<usize>, Frame)> {
        let mut seen = Vec::new();
        walk(payload, |place, frame| seen.push((place, frame)));
        seen
    }

    #[test]
    fn resets_are_seen_with_their_place() {
        let mut payload = vec![0x01];
        payload.extend_from_slice(PLAIN);
        payload.extend_from_slice(RELIABLE);
        let plain = Reset { stream: 2, code: 7, size: 9, reliable: None };
        let reliable = Reset { reliable: Some(3), ..plain };
        assert_eq!(frames(&payload), [(1..5, Frame::Reset(plain)), (5..10, Frame::Reset(reliable))]);
        let mut written = Vec::new();
        plain.write(&mut written);
        assert_eq!(written, PLAIN);
        written.clear();
        reliable.write(&mut written);
        assert_eq!(written, RELIABLE);
    }

    #[test]
    fn replacing_keeps_every_other_byte() {
        // PING, RESET_STREAM, RESET_STREAM_AT, and a STREAM frame without a length to the packet's end.
        let mut payload = vec![0x01];
        payload.extend_from_slice(PLAIN);
        payload.extend_from_slice(RELIABLE);
        payload.extend_from_slice(&[0x08, 0x04, 0x24, 0x04, 0x00]);
        let mut out = Vec::new();
        replace_resets(&payload, &mut out, |_, _| false);
        assert_eq!(out, payload);
        out.clear();
        replace_resets(&payload, &mut out, |reset, out| {
            reset.reliable.is_some() && {
                Reset { reliable: None, ..reset }.write(out);
                true
            }
        });
        assert_eq!(out, [&[0x01], PLAIN, PLAIN, &[0x08, 0x04, 0x24, 0x04, 0x00]].concat());
    }

    #[test]
    fn a_challenge_is_found_behind_other_frames_and_not_inside_them_and_padding_does_not_count() {
        let challenge: &[u8] = &[0x1a, 1, 2, 3, 4, 5, 6, 7, 0];
        assert_eq!(end_with_challenge(challenge), Some(9));
        let among = [&[PING, PADDING], RELIABLE, challenge, PLAIN].concat();
        assert_eq!(end_with_challenge(&[&among[..], &[PADDING; 9]].concat()), Some(among.len()));
        // A STREAM frame with a length, and one without, which has all that follows.
        let with_length = [challenge, &[0x0a, 0x04, 2, 0, 0]].concat();
        assert_eq!(end_with_challenge(&[&with_length[..], &[PADDING; 9]].concat()), Some(with_length.len()));
        assert_eq!(end_with_challenge(&[challenge, &[0x08, 0x04], &[0; 9]].concat()), Some(20));
        // An unknown frame type may have all that follows.
        assert_eq!(end_with_challenge(&[challenge, &[0x3f], &[0; 9]].concat()), Some(19));
        // A response, and a STREAM frame without a length.
        assert_eq!(end_with_challenge(&[0x1b, 0x1a, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(end_with_challenge(&[&[0x08, 0x04], challenge].concat()), None);
        assert_eq!(end_with_challenge(&[&[0x3f], challenge].concat()), None);
        assert_eq!(end_with_challenge(&[PING, PADDING, PADDING]), None);
    }

    #[test]
    fn padding_at_the_end_is_found_and_no_zeros_of_frames() {
        let padding = [PADDING; 1000];
        // CRYPTO with zeros in it, STREAM with and without a length.
        let crypto: &[u8] = &[&[0x06, 0x00, 0x09][..], &[0; 9]].concat();
        let stream: &[u8] = &[&[0x0a, 0x04, 0x09][..], &[0; 9]].concat();
        let to_the_end: &[u8] = &[0x08, 0x04];
        for frames in [&[PING][..], crypto, stream, PLAIN, &[&[PADDING, PADDING], crypto, &[PADDING], stream].concat()]
        {
            assert_eq!(unpadded(frames), frames.len());
            assert_eq!(unpadded(&[frames, &padding].concat()), frames.len());
        }
        let whole = [to_the_end, &padding].concat();
        assert_eq!(unpadded(&whole), whole.len());
        let unreadable = [&[PING, 0x3f], &padding[..]].concat();
        assert_eq!(unpadded(&unreadable), unreadable.len());
        let long_type = [&[PING, 0x40, 0x00], &padding[..]].concat();
        assert_eq!(unpadded(&long_type), long_type.len());
        // A CRYPTO frame that is cut off.
        let cut_off = [&[0x06, 0x00, 0x7f, 0xff], &padding[..]].concat();
        assert_eq!(unpadded(&cut_off), cut_off.len());
        assert_eq!((unpadded(&padding), unpadded(&[])), (1, 0));
    }

    #[test]
    fn what_follows_an_unreadable_frame_is_left_alone() {
        // An unknown frame type, then what looks like a reset.
        let payload = [&[0x3f], RELIABLE].concat();
        assert!(frames(&payload).is_empty());
        let mut out = Vec::new();
        replace_resets(&payload, &mut out, |_, _| true);
        assert_eq!(out, payload);
    }

    #[test]
    fn first_bytes_of_a_stream_are_a_stream_frame() {
        let mut out = Vec::new();
        write_start(4, &[0x40, 0x54, 0x00], &mut out);
        assert_eq!(frames(&out), [(0..0, Frame::Stream { stream: 4, start: 0, end: 3, is_last: false })]);
    }

    #[test]
    fn an_end_without_data_is_a_stream_frame_and_a_stop_has_its_place() {
        let mut out = vec![PING];
        write_end(7, 300, &mut out);
        out.extend_from_slice(&[0x05, 0x07, 0x40, 0x80, PING]);
        assert_eq!(
            frames(&out),
            [
                (1..1, Frame::Stream { stream: 7, start: 300, end: 300, is_last: true }),
                (6..10, Frame::Stop { code: 0x80 }),
            ]
        );
    }

    #[test]
    fn stops_come_before_resets_and_nothing_else_moves() {
        let (stop, other): (&[u8], &[u8]) = (&[0x05, 0x02, 0x07], &[0x05, 0x06, 0x40, 0x08]);
        let (window, data): (&[u8], &[u8]) = (&[0x11, 0x02, 0x07], &[0x08, 0x05, 0x05, 0x02, 0x07]);
        for (frames, expected) in [
            (&[PLAIN, stop][..], &[stop, PLAIN][..]),
            (&[RELIABLE, stop], &[stop, RELIABLE]),
            (
                &[&[0x01], PLAIN, RELIABLE, stop, window, other, data],
                &[&[0x01], stop, other, PLAIN, RELIABLE, window, data],
            ),
            (&[stop, PLAIN, other], &[stop, other, PLAIN]),
            (&[stop, window, PLAIN, data], &[stop, window, PLAIN, data]),
            (&[stop, other], &[stop, other]),
            (&[PLAIN, data], &[PLAIN, data]),
            // What cannot be read ends it.
            (&[PLAIN, stop, &[0x3f], other], &[stop, PLAIN, &[0x3f], other]),
            (&[PLAIN, &[0x05, 0x02]], &[PLAIN, &[0x05, 0x02]]),
            (&[], &[]),
        ] {
            let mut payload = frames.concat();
            stops_before_resets(&mut payload);
            assert_eq!(payload, expected.concat());
            stops_before_resets(&mut payload);
            assert_eq!(payload, expected.concat());
        }
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
            walk(&bytes, |_, _| ());
            let mut out = Vec::new();
            replace_resets(&bytes, &mut out, |_, _| false);
            assert_eq!(out, bytes);
            assert!(unpadded(&bytes) <= bytes.len());
            stops_before_resets(&mut out);
            let count = |payload: &[u8]| frames(payload).len();
            assert_eq!(count(&out), count(&bytes));
        }
    }
}
