//! The tap with packets that the tests make up, and no core behind it.

use std::collections::BTreeMap;

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
    assert_eq!(progress.beyond.as_deref(), Some(&BTreeMap::from([(10, 10_000)])));
    progress.acknowledge(20_000, 20_001);
    progress.acknowledge(5, 7);
    progress.acknowledge(6, 9);
    progress.acknowledge(3, 30_000);
    assert_eq!(progress.beyond.as_deref(), Some(&BTreeMap::from([(3, 30_000)])));
    assert!(progress.acknowledge(0, 3));
    assert_eq!((progress.acked, progress.beyond), (30_000, None));
}

#[test]
fn what_nobody_reads_leaves_no_fragments() {
    let tap = client();
    let fragments = |stream: u64| tap.state().arrivals[&stream].progress.beyond.as_ref().map_or(0, |gaps| gaps.len());
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
    tap.forget(3, 0);
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
    for packet in [at(3, 9, 7, 5), at(3, 9, 9, 5), plain(3, 9, 7), vec![0x0e, 3, 8, 1, 0xff], vec![0x0f, 3, 6, 1, 0]] {
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
    tap.forget(3, 0);
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
                2 => {
                    tap.forget(below(8), 0);
                }
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
