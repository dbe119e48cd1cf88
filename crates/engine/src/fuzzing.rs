//! The fuzz targets of the engine: each takes any bytes and panics where a promise is broken.
//!
//! The binaries in `fuzz/` take this file and those that it tests by their paths, so that nothing else needs to be built
//! for them; the tests below run the inputs that are kept in `fuzz/corpus`.

// Public for the crate in fuzz/.
#![allow(unreachable_pub)]

use crate::{
    header::{self, HEADER_LIMIT, Header},
    quic::frames::{Frame, Reset, replace_resets, stops_before_resets, unpadded, walk},
    varint,
};

/// A varint by RFC 9000, section 16, in another way than [`varint::read`]: the value and what follows it.
fn reference_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let size = match bytes.first()? {
        0x00..=0x3f => 1,
        0x40..=0x7f => 2,
        0x80..=0xbf => 4,
        0xc0..=0xff => 8,
    };
    let (raw, rest) = bytes.split_at_checked(size)?;
    let mut wide = [0; 8];
    wide[8 - size..].copy_from_slice(raw);
    Some((u64::from_be_bytes(wide) & (u64::MAX >> (66 - 8 * size)), rest))
}

/// The head of a stream: the same verdict from every prefix that is long enough, and the right one.
pub fn read_stream_header(data: &[u8]) {
    for bidirectional in [false, true] {
        let kind = if bidirectional { 0x41 } else { 0x54 };
        let expected = match reference_varint(data) {
            None => Header::Incomplete,
            Some((first, _)) if first != kind => Header::Raw,
            Some((_, rest)) => match reference_varint(rest) {
                None => Header::Incomplete,
                Some((session, payload)) => Header::Data { session, length: data.len() - payload.len() },
            },
        };
        assert_eq!(header::read(data, bidirectional), expected);
        let mut verdict = Header::Incomplete;
        for length in 0..=data.len().min(HEADER_LIMIT) {
            let next = header::read(&data[..length], bidirectional);
            assert!(verdict == Header::Incomplete || verdict == next, "{verdict:?} became {next:?}");
            verdict = next;
        }
        assert_eq!(verdict, expected, "{HEADER_LIMIT} bytes are enough");
        if let Header::Data { session, length } = verdict {
            let mut written = Vec::new();
            varint::write(kind, &mut written);
            varint::write(session, &mut written);
            assert!(written.len() <= length, "the shortest form is not the longest");
            assert_eq!(header::read(&written, bidirectional), Header::Data { session, length: written.len() });
        }
    }
}

/// The frames of a packet: any bytes are survived, and frames that were written by the book are all found.
pub fn walk_frames(data: &[u8]) {
    let mut count = 0;
    walk(data, |place, frame| {
        count += 1;
        match frame {
            Frame::Stream { start, end, .. } => {
                assert!(start <= end && end - start <= data.len() as u64, "a frame within its packet");
            }
            Frame::Acked { first, last } => assert!(first <= last),
            Frame::Reset(reset) => {
                let mut written = Vec::new();
                reset.write(&mut written);
                assert!(written.len() <= data[place].len(), "the shortest form is not the longest");
            }
            Frame::Stop { code } => {
                assert!(data[place].len() > 2, "a stop names its stream and its code, here {code}");
            }
            Frame::MaxData { limit } => assert!(limit < 1 << 62, "it was a varint"),
        }
    });
    // Every frame has a type, and every range of an ACK two numbers.
    assert!(count <= data.len());
    let seen = |payload: &[u8]| {
        let mut found = Vec::new();
        walk(payload, |_, frame| found.push(frame));
        found
    };
    let (packet, expected) = written_packet(data);
    assert_eq!(seen(&packet), expected);
}

/// The rewriting of resets: nothing but resets changes, however often, and whatever stands between them.
pub fn rewrite_frames(data: &[u8]) {
    let seen = |payload: &[u8]| {
        let mut frames = Vec::new();
        walk(payload, |_, frame| frames.push(frame));
        frames
    };
    let rewritten = |payload: &[u8], replace: &mut dyn FnMut(Reset, &mut Vec<u8>) -> bool| {
        let mut out = Vec::new();
        replace_resets(payload, &mut out, replace);
        out
    };
    let (packet, expected) = written_packet(data);
    for payload in [data, &packet] {
        assert_eq!(rewritten(payload, &mut |_, _| false), payload, "nothing to replace, nothing changed");
    }
    // Every second reset becomes a reliable one, or a plain one.
    let mut count = 0_u64;
    let turned = |reset: Reset| Reset { reliable: if reset.reliable.is_some() { None } else { Some(1) }, ..reset };
    let out = rewritten(&packet, &mut |reset, out| {
        count += 1;
        if count % 2 == 1 {
            turned(reset).write(out);
        }
        count % 2 == 1
    });
    let mut number = 0;
    let wanted: Vec<Frame> = expected
        .iter()
        .map(|frame| match frame {
            Frame::Reset(reset) => {
                number += 1;
                Frame::Reset(if number % 2 == 1 { turned(*reset) } else { *reset })
            }
            other => *other,
        })
        .collect();
    assert_eq!(number, count);
    assert_eq!(seen(&out), wanted);
    // Stops move, and nothing else; their own order stays.
    let is_stop = |frame: &Frame| matches!(frame, Frame::Stop { .. });
    let parted = |payload: &[u8]| seen(payload).into_iter().partition::<Vec<Frame>, _>(is_stop);
    for payload in [data, &packet] {
        let mut moved = payload.to_vec();
        stops_before_resets(&mut moved);
        assert_eq!(parted(&moved), parted(payload));
    }
    // PADDING goes, and no zeros of a frame.
    for payload in [data, &packet] {
        let (kept, cut) = payload.split_at(unpadded(payload));
        assert!(cut.iter().all(|byte| *byte == 0) && kept.is_empty() == payload.is_empty());
        assert_eq!(seen(kept), seen(payload));
    }
}

/// Read `data` as instructions: a packet of well-formed frames, and what a walk over it has to see.
fn written_packet(data: &[u8]) -> (Vec<u8>, Vec<Frame>) {
    let mut source = Source(data);
    let mut packet = Vec::new();
    let mut expected = Vec::new();
    while !source.0.is_empty() {
        // What has no length of its own reaches to the end of the packet and comes last.
        let is_last = source.0.len() < 8;
        match source.byte() {
            kind @ 0x08..=0x0f => {
                let (stream, start) = (source.number(), if kind & 4 == 0 { 0 } else { source.number() });
                let payload = source.bytes();
                let kind = if is_last { kind } else { kind | 2 };
                write_all(&mut packet, &[u64::from(kind), stream]);
                if kind & 4 != 0 {
                    varint::write(start, &mut packet);
                }
                if kind & 2 != 0 {
                    varint::write(payload.len() as u64, &mut packet);
                }
                packet.extend_from_slice(payload);
                expected.push(Frame::Stream {
                    stream,
                    start,
                    end: start + payload.len() as u64,
                    is_last: kind & 1 != 0,
                });
                if kind & 2 == 0 {
                    break;
                }
            }
            kind @ 0x02..=0x03 => write_ack(&mut source, kind, &mut packet, &mut expected),
            kind @ (0x00 | 0x01 | 0x1e | 0x1f) => packet.push(kind),
            0x10 => {
                let limit = source.number();
                write_all(&mut packet, &[0x10, limit]);
                expected.push(Frame::MaxData { limit });
            }
            kind @ (0x12 | 0x13 | 0x14 | 0x16 | 0x17 | 0x19) => {
                write_all(&mut packet, &[u64::from(kind), source.number()]);
            }
            0x05 => {
                let (stream, code) = (source.number(), source.number());
                write_all(&mut packet, &[0x05, stream, code]);
                expected.push(Frame::Stop { code });
            }
            kind @ (0x11 | 0x15) => {
                write_all(&mut packet, &[u64::from(kind), source.number(), source.number()]);
            }
            kind @ (0x04 | 0x24) => {
                let (stream, code, size) = (source.number(), source.number(), source.number());
                let reliable = (kind == 0x24).then(|| source.number());
                write_all(&mut packet, &[u64::from(kind), stream, code, size]);
                if let Some(reliable) = reliable {
                    varint::write(reliable, &mut packet);
                }
                expected.push(Frame::Reset(Reset { stream, code, size, reliable }));
            }
            kind @ 0xaf => {
                write_all(
                    &mut packet,
                    &[u64::from(kind), source.number(), source.number(), source.number(), source.number()],
                );
            }
            0x06 => {
                let offset = source.number();
                let payload = source.bytes();
                write_all(&mut packet, &[0x06, offset, payload.len() as u64]);
                packet.extend_from_slice(payload);
            }
            kind @ (0x07 | 0x31) => {
                let payload = source.bytes();
                write_all(&mut packet, &[u64::from(kind), payload.len() as u64]);
                packet.extend_from_slice(payload);
            }
            0x30 => {
                packet.push(0x30);
                packet.extend_from_slice(source.bytes());
                break;
            }
            0x18 => {
                let payload = source.bytes();
                let id = &payload[..payload.len().min(20)];
                write_all(&mut packet, &[0x18, source.number(), source.number()]);
                packet.push(id.len() as u8);
                packet.extend_from_slice(id);
                packet.extend_from_slice(&[0xab; 16]);
            }
            kind @ (0x1a | 0x1b) => {
                packet.push(kind);
                packet.extend_from_slice(&[0xcd; 8]);
            }
            _ => {}
        }
    }
    (packet, expected)
}

fn write_ack(source: &mut Source<'_>, kind: u8, packet: &mut Vec<u8>, expected: &mut Vec<Frame>) {
    let mut last = source.number();
    let mut first = last - source.number().min(last);
    let mut ranges = vec![(first, last)];
    for _ in 0..source.byte() % 4 {
        let gap = source.number();
        // Two numbers below the last range at least: a gap of 0 means that one packet is missing.
        let Some(next) = first.checked_sub(gap).and_then(|n| n.checked_sub(2)) else { break };
        last = next;
        first = last - source.number().min(last);
        ranges.push((first, last));
    }
    write_all(packet, &[u64::from(kind), ranges[0].1, source.number(), ranges.len() as u64 - 1]);
    varint::write(ranges[0].1 - ranges[0].0, packet);
    for pair in ranges.windows(2) {
        write_all(packet, &[pair[0].0 - pair[1].1 - 2, pair[1].1 - pair[1].0]);
    }
    if kind == 0x03 {
        write_all(packet, &[source.number(), source.number(), source.number()]);
    }
    expected.extend(ranges.into_iter().map(|(first, last)| Frame::Acked { first, last }));
}

fn write_all(packet: &mut Vec<u8>, numbers: &[u64]) {
    for &number in numbers {
        varint::write(number, packet);
    }
}

/// Takes an input apart; at the end there are only zeros.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A number of any size that a varint can hold.
    fn number(&mut self) -> u64 {
        let form = self.byte();
        let number = (0..form % 8).fold(0, |number, _| number << 8 | u64::from(self.byte()));
        (number << (form >> 5)).min((1 << 62) - 1)
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run a target on every input that is kept for it.
    fn replay(name: &str, target: fn(&[u8])) {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", directory.display());
    }

    #[test]
    fn kept_stream_headers() {
        replay("stream_header", read_stream_header);
    }

    #[test]
    fn kept_packets() {
        replay("frame_walker", walk_frames);
    }

    #[test]
    fn kept_resets() {
        replay("frame_rewriter", rewrite_frames);
    }
}
