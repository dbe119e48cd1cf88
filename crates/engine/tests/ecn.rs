//! ECN marks (RFC 9000, section 13.4) over links that keep them, take them off, or drop what carries one.

use std::time::Duration;

use crate::support::{
    CLEAN, CLIENT, DATA_STREAM, Link, Marks, Pair, ROUGH, SERVER, SESSION, Shortcuts as _, UNIDIRECTIONAL_STREAM,
    pattern,
};

const SIDES: [usize; 2] = [CLIENT, SERVER];
/// Marked packets are dropped on the way of the client, of the server, of both.
const DROPPED: [[Marks; 2]; 3] =
    [[Marks::Dropped, Marks::Kept], [Marks::Kept, Marks::Dropped], [Marks::Dropped, Marks::Dropped]];

fn slow(latency: u64) -> Link {
    Link { latency: Duration::from_millis(latency), ..CLEAN }
}

/// Packets of a side that left with a mark from now on, while `act` runs.
fn marked(pair: &mut Pair, side: usize, act: impl FnOnce(&mut Pair)) -> usize {
    let before = pair.left[side][1];
    act(pair);
    pair.left[side][1] - before
}

#[test]
fn all_packets_are_marked_where_marks_arrive() {
    for (latency, lag) in [(1, 0), (10, 0), (200, 0), (0, 10)] {
        let mut pair = Pair::unconnected(1, slow(latency), |_| ());
        pair.lag = Duration::from_millis(lag);
        pair.connect();
        let stream = pair.open(CLIENT, DATA_STREAM);
        let data = pattern(1 << 20);
        assert_eq!(pair.transfer(CLIENT, stream, &data), data);
        assert_eq!(pair.transfer(SERVER, stream, &data), data);
        pair.run_for(Duration::from_secs(10));
        for side in SIDES {
            let [all, marked] = pair.left[side];
            assert_eq!(all, marked, "latency {latency}, side {side}");
        }
    }
}

#[test]
fn packets_are_marked_again_after_a_pause_and_for_one_that_only_reads() {
    let mut pair = Pair::new(2, CLEAN, |options| options.keep_alive = Some(Duration::from_secs(10)));
    for _ in 0..5 {
        pair.run_for(Duration::from_secs(100));
        let stream = pair.open(SERVER, UNIDIRECTIONAL_STREAM);
        let data = pattern(3 << 20);
        assert_eq!(pair.transfer(SERVER, stream, &data), data);
    }
    for side in SIDES {
        let [all, marked] = pair.left[side];
        assert_eq!(all, marked, "side {side}");
    }
}

#[test]
fn marks_that_are_taken_off_on_the_way_are_given_up() {
    let mut pair = Pair::unconnected(3, CLEAN, |_| ());
    pair.marks = [Marks::Bleached; 2];
    pair.connect();
    let stream = pair.open(CLIENT, DATA_STREAM);
    let data = pattern(100_000);
    for side in SIDES {
        assert_eq!(marked(&mut pair, side, |p| assert_eq!(p.transfer(side, stream, &data), data)), 0);
    }
}

#[test]
fn a_path_that_drops_marked_packets_connects_with_the_first_probes() {
    for marks in DROPPED {
        for (latency, most) in [(1, 2.5), (100, 3.5), (300, 5.0)] {
            let mut pair = Pair::unconnected(4, slow(latency), |_| ());
            let start = pair.now;
            pair.marks = marks;
            pair.connect();
            // 0.9 s until a side sends without marks; the server may have to do so twice.
            let took = pair.now - start;
            assert!(took < Duration::from_secs_f64(most), "{took:?} with a latency of {latency} ms");
            let stream = pair.open(CLIENT, DATA_STREAM);
            let data = pattern(300_000);
            for side in SIDES {
                assert_eq!(pair.transfer(side, stream, &data), data);
            }
            assert!(pair.ends().is_empty());
        }
    }
}

#[test]
fn a_path_that_drops_marked_packets_and_loses_others_connects() {
    for seed in 0..30 {
        let mut pair = Pair::unconnected(seed, ROUGH, |_| ());
        pair.marks = DROPPED[usize::from(seed) % 3];
        pair.connect();
        let stream = pair.open(CLIENT, DATA_STREAM);
        let data = pattern(100_000);
        for side in SIDES {
            assert_eq!(pair.transfer(side, stream, &data), data);
        }
    }
}

/// Send while the link begins to drop marked packets, at once or a while after the beginning; for how long nothing came.
fn longest_gap(pair: &mut Pair, side: usize, marks: [Marks; 2], after: Duration) -> Duration {
    let stream = pair.open(side, UNIDIRECTIONAL_STREAM);
    let data = pattern(4 << 20);
    let id = pair.ids[side];
    let (begin, mut sent, mut received) = (pair.now, 0, Vec::new());
    let (mut last, mut longest) = (begin, Duration::ZERO);
    while received.len() < data.len() {
        if pair.now >= begin + after {
            pair.marks = marks;
        }
        sent += pair.engines[side].write(id, stream, &data[sent..]).expect("open");
        assert!(pair.step(), "silent after {} bytes", received.len());
        assert!(pair.ends().is_empty(), "after {} bytes: {:?}", received.len(), pair.ends());
        if pair.incoming(1 - side).contains(&stream) {
            let mut more = pair.read(1 - side, stream);
            if !more.is_empty() {
                longest = longest.max(pair.now - last);
                last = pair.now;
                received.append(&mut more);
            }
        }
    }
    assert_eq!(received, data);
    longest
}

#[test]
fn a_connection_goes_on_when_its_path_begins_to_drop_marked_packets() {
    for marks in DROPPED {
        for side in SIDES {
            for latency in [1, 10, 50] {
                for (pause, after) in [(0, 0), (20, 0), (0, 3), (0, 9)] {
                    let mut pair = Pair::new(5, slow(latency), |_| ());
                    pair.run_for(Duration::from_secs(pause));
                    let after = pair.link.latency * after;
                    let gap = longest_gap(&mut pair, side, marks, after);
                    // Of three probes, each at twice the distance of the one before, the last one arrives, or, where
                    // the acknowledgments do not come through, one or two after it.
                    let most = pair.link.latency * 45 + Duration::from_secs(3);
                    assert!(gap < most, "side {side}, {latency} ms, pause {pause}, after {after:?}: {gap:?}");
                }
            }
        }
    }
}

#[test]
fn datagrams_go_on_when_a_path_begins_to_drop_marked_packets() {
    for marks in DROPPED {
        for side in SIDES {
            let mut pair = Pair::new(6, slow(20), |_| ());
            let id = pair.ids[side];
            let mut arrived = 0;
            for number in 0..500 {
                if number == 100 {
                    pair.marks = marks;
                }
                assert_eq!(pair.engines[side].send_datagram(pair.now, id, SESSION, b"twenty a second"), 0);
                pair.run_for(Duration::from_millis(50));
                let other = pair.ids[1 - side];
                arrived += std::iter::from_fn(|| pair.engines[1 - side].receive_datagram(other, SESSION)).count();
            }
            assert!(pair.ends().is_empty());
            assert!(arrived > 480, "{arrived} of 500 arrived");
        }
    }
}

#[test]
fn a_client_that_moves_to_a_path_that_drops_marked_packets_goes_on() {
    // To another port, as behind a NAT, and to another address.
    for address in ["10.0.0.1:2000", "10.0.9.9:1000"] {
        for marks in DROPPED.into_iter().chain([[Marks::Kept; 2]]) {
            for first in SIDES {
                let mut pair = Pair::new(7, slow(20), |_| ());
                let stream = pair.open(CLIENT, DATA_STREAM);
                let data = pattern(100_000);
                pair.run_for(Duration::from_secs(3));
                pair.addresses[CLIENT] = address.parse().unwrap();
                pair.marks = marks;
                let start = pair.now;
                // The server cannot know before the client's first packet.
                pair.engines[CLIENT].send_datagram(pair.now, pair.ids[CLIENT], SESSION, b"from elsewhere");
                for side in [first, 1 - first] {
                    assert_eq!(pair.transfer(side, stream, &data), data);
                }
                let took = pair.now - start;
                assert!(took < Duration::from_secs(5), "{took:?}");
                let id = pair.ids[SERVER];
                assert_eq!(pair.engines[SERVER].remote_address(id), Some(pair.addresses[CLIENT]));
            }
        }
    }
}
