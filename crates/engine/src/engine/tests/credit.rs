//! Bytes that the peer may send on all streams, and streams that it may open: what is announced, and how often.

use std::time::Duration;

use super::{HEADER, Pair, shortcuts::Shortcuts as _};
use crate::{
    ReadOutcome,
    peer_credit::FIRST_STREAMS,
    quic::frames::{self, Frame},
};

/// Of the pair's engines, for a connection and for a stream.
const WINDOW: u64 = 65_536;
/// Streams that the client may have open.
const STREAMS: u64 = 4;

impl Pair {
    /// Limits that left the server since the last call.
    fn limits_sent(&mut self) -> Vec<u64> {
        let packets = std::mem::take(&mut *self.server.connections[&self.ids[1]].core.tap().sent.lock().unwrap());
        let mut limits = Vec::new();
        for packet in packets {
            frames::walk(&packet, |_, frame| {
                if let Frame::MaxData { limit } = frame {
                    limits.push(limit);
                }
            });
        }
        limits
    }

    /// Write as much as the client takes; what that was.
    fn write(&mut self, stream: u64, length: u64) -> u64 {
        self.client.write(self.ids[0], stream, &vec![0x5a; length as usize]).unwrap() as u64
    }

    /// Read at most so much at the server; how much there was.
    fn read_some(&mut self, stream: u64, most: u64) -> u64 {
        let [_, id] = self.ids;
        match self.server.prepare_read(self.now, id, stream, most as usize) {
            ReadOutcome::Ready(length) => {
                self.server.take(self.now, id, stream, &mut vec![0; length]);
                length as u64
            }
            _ => 0,
        }
    }

    /// Send `length` bytes on a stream of which nobody reads anything.
    fn hold(&mut self, length: u64) -> u64 {
        let before = self.came();
        let stream = self.open().unwrap();
        let payload = length - HEADER.len() as u64;
        let mut sent = 0;
        for _ in 0..20 {
            if sent < payload {
                sent += self.write(stream, payload - sent);
            }
            self.exchange();
        }
        assert_eq!((sent, self.came() - before), (payload, length));
        stream
    }

    /// Open as many streams as a side may at this moment, but no more than `most`; how many that were.
    fn open_streams(&mut self, is_client: bool, bidirectional: bool, most: u64) -> u64 {
        let (engine, id) = if is_client { (&mut self.client, self.ids[0]) } else { (&mut self.server, self.ids[1]) };
        (0..most).take_while(|_| engine.open_stream(self.now, id, bidirectional, HEADER, Some(0)).is_some()).count()
            as u64
    }

    fn came(&self) -> u64 {
        self.server.connections[&self.ids[1]].core.flow().came
    }

    /// Move `total` bytes on a stream, of which `step` are read at a time; the limits that were announced for that.
    fn transfer(&mut self, stream: u64, total: u64, step: u64) -> Vec<u64> {
        self.limits_sent();
        let (mut sent, mut read) = (0, 0);
        for _ in 0..10_000 {
            if read == total {
                break;
            }
            if sent < total {
                sent += self.write(stream, total - sent);
            }
            self.exchange();
            read += self.read_some(stream, step);
        }
        assert_eq!(read, total, "the stream stalls");
        self.limits_sent()
    }
}

#[test]
fn a_stream_that_is_read_steadily_has_its_credit_announced_in_eighths() {
    let mut pair = Pair::with_streams(10, STREAMS);
    let stream = pair.open().unwrap();
    for step in [WINDOW, WINDOW / 4, 5000] {
        let total = 16 * WINDOW;
        let limits = pair.transfer(stream, total, step);
        assert!(limits.len() as u64 <= 8 * total / WINDOW, "{step}: {}", limits.len());
        assert!(limits.windows(2).all(|pair| pair[1] - pair[0] >= WINDOW / 8), "{step}: {limits:?}");
    }
}

#[test]
fn what_is_read_slowly_is_announced_once_in_a_while() {
    let mut pair = Pair::with_streams(10, STREAMS);
    let stream = pair.open().unwrap();
    let begin = pair.now;
    let total = WINDOW + 100 * 200;
    let limits = pair.transfer(stream, total, 200);
    let time = pair.now - begin;
    assert!(limits.len() as u32 <= time.div_duration_f64(Duration::from_millis(100)) as u32 + 2, "{}", limits.len());
}

#[test]
fn streams_go_on_while_another_one_holds_almost_all_of_the_window() {
    for free in [10, 100, 5000, WINDOW / 8 - 1, WINDOW / 8, WINDOW / 7, WINDOW / 4] {
        let mut pair = Pair::with_streams(10, STREAMS);
        pair.hold(WINDOW - free);
        let stream = pair.open().unwrap();
        let total = 40 * free;
        let limits = pair.transfer(stream, total, WINDOW);
        // Each is for half of what is free, at least, or for an eighth of the window.
        let most = if free > WINDOW / 7 { 8 * total / WINDOW } else { 2 * 40 + 2 };
        assert!(limits.len() as u64 <= most, "{free}: {}", limits.len());
    }
}

#[test]
fn who_asks_in_vain_for_more_while_credit_is_scarce_causes_no_work() {
    for free in [100, 5000, WINDOW / 8] {
        let mut pair = Pair::with_streams(10, STREAMS);
        pair.hold(WINDOW - free);
        let stream = pair.open().unwrap();
        let sent = pair.write(stream, free / 2);
        pair.exchange();
        // What came may be worth announcing, and that all of it was read.
        assert_eq!(pair.read_some(stream, WINDOW), sent);
        assert_eq!(pair.read_some(stream, WINDOW), 0);
        for _ in 0..10 {
            pair.exchange();
        }
        for _ in 0..3 {
            assert!(!pair.server.has_work(), "{free}");
            assert_eq!(pair.read_some(stream, WINDOW), 0);
        }
    }
}

#[test]
fn a_part_that_is_read_of_a_full_window_comes_back() {
    let mut pair = Pair::with_streams(10, STREAMS);
    let held = pair.hold(WINDOW);
    assert_eq!(pair.read_some(held, 1000), 1000);
    let other = pair.open().unwrap();
    pair.write(other, 500);
    for _ in 0..10 {
        pair.exchange();
    }
    assert_eq!(pair.read_some(other, 1000), 500);
    assert_eq!(pair.came(), WINDOW + 500 + HEADER.len() as u64);
}

#[test]
fn what_a_stopped_stream_held_of_a_full_window_comes_back() {
    let mut pair = Pair::with_streams(10, STREAMS);
    let held = pair.hold(WINDOW - 1000);
    let stopped = pair.hold(1000);
    assert!(pair.server.stop(pair.now, pair.ids[1], stopped, 7));
    let other = pair.open().unwrap();
    pair.write(other, 500);
    for _ in 0..10 {
        pair.exchange();
    }
    assert_eq!(pair.read_some(other, 1000), 500);
    assert!(pair.server.stop(pair.now, pair.ids[1], held, 7));
    for _ in 0..10 {
        pair.exchange();
    }
    pair.hold(WINDOW - 500);
}

#[test]
fn what_comes_on_a_stream_that_nobody_knows_any_more_is_counted() {
    let mut pair = Pair::with_streams(10, STREAMS);
    let stream = pair.open().unwrap();
    pair.write(stream, 1000);
    pair.exchange();
    // Of a session without flow control the engine need not remember a stream that it has stopped.
    pair.server.release(pair.now, pair.ids[1], stream, 0);
    pair.write(stream, 5000);
    for packet in pair.client_packets() {
        pair.give_server(&packet);
    }
    assert_eq!(pair.server.stream_count(pair.ids[1]), 0);
    assert_eq!(pair.came(), 6000 + HEADER.len() as u64);
    for _ in 0..10 {
        pair.exchange();
    }
    pair.hold(WINDOW);
}

#[test]
fn a_peer_may_open_all_that_it_is_allowed_once_it_has_a_few_streams_open() {
    for (is_client, bidirectional) in [(true, true), (true, false), (false, true), (false, false)] {
        for few in [FIRST_STREAMS / 4, FIRST_STREAMS] {
            let mut pair = Pair::with_streams(300, 300);
            assert_eq!(pair.open_streams(is_client, bidirectional, few - 1), few - 1);
            for _ in 0..5 {
                pair.exchange();
            }
            if few < FIRST_STREAMS {
                let rest = FIRST_STREAMS - few;
                assert_eq!(pair.open_streams(is_client, bidirectional, 300), rest + 1, "no more than the first");
            }
            pair.open_streams(is_client, bidirectional, 1);
            for _ in 0..5 {
                pair.exchange();
            }
            assert_eq!(
                pair.open_streams(is_client, bidirectional, 1000),
                300 - FIRST_STREAMS,
                "{is_client} {bidirectional}"
            );
        }
    }
}

#[test]
fn a_peer_with_few_streams_open_gets_no_more_when_the_limit_changes() {
    for (before, after, most) in
        [(50, 300, FIRST_STREAMS), (300, 50, FIRST_STREAMS), (300, 500, FIRST_STREAMS), (10, 20, 20)]
    {
        let mut pair = Pair::with_streams(before, 1);
        let id = pair.ids[1];
        pair.server.set_concurrent_streams(id, true, after);
        for _ in 0..5 {
            pair.exchange();
        }
        assert_eq!(pair.open_streams(true, true, 1000), most, "{before} {after}");
        for _ in 0..5 {
            pair.exchange();
        }
        assert_eq!(pair.open_streams(true, true, 1000), after.saturating_sub(most), "{before} {after}");
    }
}

#[test]
fn streams_that_end_one_by_one_never_make_the_first_streams_more() {
    let mut pair = Pair::with_streams(300, 300);
    for _ in 0..1000 {
        let id = pair.ids[0];
        let stream = pair.client.open_stream(pair.now, id, false, HEADER, Some(0)).unwrap();
        pair.client.reset(pair.now, id, stream, 0);
        pair.exchange();
        let id = pair.ids[1];
        pair.server.release(pair.now, id, stream, 0);
        pair.client.release(pair.now, pair.ids[0], stream, 0);
        pair.exchange();
    }
    for _ in 0..5 {
        pair.exchange();
    }
    let allowed = pair.open_streams(true, false, 1000);
    assert!((FIRST_STREAMS - FIRST_STREAMS / 8..=FIRST_STREAMS).contains(&allowed), "{allowed}");
}
