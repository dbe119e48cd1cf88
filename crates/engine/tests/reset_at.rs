//! Reliable resets (draft-ietf-quic-reliable-stream-reset) between two engines over a simulated network.

use std::{collections::HashSet, time::Duration};

use crate::support::{
    CLEAN, CLIENT, DATA_STREAM, Link, Pair, ROUGH, SERVER, SESSION, Shortcuts as _, UNIDIRECTIONAL_STREAM, pattern,
};
use wtio_engine::{Event, Options, ReceiveState};

/// Of ten packets three never arrive, and hardly one in its order.
const AWFUL: Link = Link {
    latency: Duration::from_millis(10),
    jitter: Duration::from_millis(40),
    loss: 0.3,
    duplicate: 0.1,
    replay: 0.2,
};

/// A step on a quiet network goes on to the next timer, and a connection must not die of idleness in it.
fn kept_alive(options: &mut Options) {
    options.keep_alive = Some(Duration::from_secs(5));
}

/// Streams of a random life, each ended with a reset that names it; each must be seen by the peer.
struct Churn {
    pair: Pair,
    given: [HashSet<u64>; 2],
    seen: [HashSet<u64>; 2],
}

impl Churn {
    fn new(pair: Pair) -> Self {
        Self { pair, given: Default::default(), seen: Default::default() }
    }

    fn run(&mut self, rounds: u64, mut between: impl FnMut(&mut Pair, u64)) {
        for round in 0..rounds {
            for side in [CLIENT, SERVER] {
                self.live(side, round);
            }
            between(&mut self.pair, round);
            self.take_in();
        }
        for _ in 0..200_000 {
            if self.given[CLIENT] == self.seen[SERVER] && self.given[SERVER] == self.seen[CLIENT] {
                break;
            }
            assert!(self.pair.step(), "the network fell silent before every stream was seen");
            self.take_in();
        }
        self.pair.run_for(Duration::from_secs(10));
        for side in [CLIENT, SERVER] {
            assert_eq!(self.given[side].len(), self.seen[1 - side].len());
            assert!(!self.pair.seen(side, |e| matches!(e, Event::Closed { .. })), "{:?}", self.pair.events[side]);
            assert_eq!(self.pair.engines[side].stream_count(self.pair.ids[side]), 0, "side {side} keeps streams");
        }
    }

    /// Open a stream, write, and reset it sooner or later.
    fn live(&mut self, side: usize, round: u64) {
        let header = if round.is_multiple_of(3) { UNIDIRECTIONAL_STREAM } else { DATA_STREAM };
        let id = self.pair.ids[side];
        let stream = loop {
            let pair = &mut self.pair;
            let is_bidirectional = header == DATA_STREAM;
            match pair.engines[side].open_stream(pair.now, id, is_bidirectional, header, Some(SESSION)) {
                Some(stream) => break stream,
                None => assert!(pair.step(), "no credit for a stream comes back: {:?}", pair.ends()),
            }
            self.take_in();
        };
        let pair = &mut self.pair;
        let data = pattern((pair.chance() * 5000.0) as usize);
        pair.engines[side].write(id, stream, &data);
        for _ in 0..(pair.chance() * 4.0) as usize {
            pair.step();
        }
        pair.engines[side].reset(pair.now, id, stream, 1000 + stream);
        pair.engines[side].release(pair.now, id, stream, 0);
        self.given[side].insert(stream);
    }

    /// What the peer does: read for a while, notice the reset, let go.
    fn take_in(&mut self) {
        for side in [CLIENT, SERVER] {
            let pair = &mut self.pair;
            let id = pair.ids[side];
            for stream in pair.incoming(side) {
                pair.read(side, stream);
                match pair.engines[side].receive_state(id, stream) {
                    ReceiveState::Open => continue,
                    state => assert_eq!(state, ReceiveState::Reset(1000 + stream), "side {side}"),
                }
                pair.engines[side].release(pair.now, id, stream, 1);
                pair.events[side].retain(|e| !matches!(e, Event::Stream { stream: seen, .. } if *seen == stream));
                assert!(self.seen[side].insert(stream), "stream {stream} came twice");
            }
        }
    }
}

fn offers_resets(pair: &mut Pair, side: usize) -> bool {
    let parameters = pair.engines[side].peer_parameters(pair.ids[side]).expect("the handshake is over");
    [0x1d, 0x17_f758_6d2c_b571].iter().all(|id| parameters.contains(&(*id, Vec::new())))
}

/// Time from a reset right after the stream was opened until the peer sees it.
fn time_of_a_reset(is_on: bool) -> Duration {
    let mut pair = Pair::new(1, CLEAN, |options| options.reset_stream_at = is_on);
    assert_eq!(offers_resets(&mut pair, CLIENT), is_on);
    assert_eq!(offers_resets(&mut pair, SERVER), is_on);
    pair.run_for(Duration::from_secs(1));
    let started = pair.now;
    let stream = pair.open(CLIENT, DATA_STREAM);
    let id = pair.ids[CLIENT];
    pair.engines[CLIENT].reset(started, id, stream, 5);
    pair.run_until("the reset arrives", |p| {
        p.read(SERVER, stream);
        p.engines[SERVER].receive_state(p.ids[SERVER], stream) == ReceiveState::Reset(5)
    });
    pair.now - started
}

#[test]
fn a_reset_goes_along_with_the_header_and_waits_for_it_only_where_the_peer_lacks_the_frame() {
    // 10 ms each way: with the frame, one way; without, the header's acknowledgement comes before.
    assert_eq!(time_of_a_reset(true), Duration::from_millis(10));
    assert!(time_of_a_reset(false) >= Duration::from_millis(30));
}

#[test]
fn every_stream_that_was_reset_is_seen_over_a_rough_and_an_awful_network() {
    for (seed, link) in (0..8).flat_map(|seed| [(seed, CLEAN), (seed, ROUGH), (seed, AWFUL)]) {
        for segments in [1, 10] {
            let mut pair = Pair::new(seed, link, |options| {
                kept_alive(options);
                options.gso = true;
            });
            pair.segments = segments;
            Churn::new(pair).run(80, |_, _| ());
        }
    }
}

#[test]
fn many_resets_at_once_share_packets_and_all_arrive() {
    for link in [CLEAN, ROUGH] {
        let mut churn = Churn::new(Pair::new(2, link, kept_alive));
        let id = churn.pair.ids[CLIENT];
        let streams: Vec<u64> = (0..100).map(|_| churn.pair.open(CLIENT, UNIDIRECTIONAL_STREAM)).collect();
        for stream in streams {
            churn.pair.engines[CLIENT].write(id, stream, b"x");
            churn.pair.engines[CLIENT].reset(churn.pair.now, id, stream, 1000 + stream);
            churn.pair.engines[CLIENT].release(churn.pair.now, id, stream, 0);
            churn.given[CLIENT].insert(stream);
        }
        churn.run(0, |_, _| ());
    }
}

#[test]
fn resets_survive_key_updates() {
    for seed in 0..4 {
        Churn::new(Pair::new(seed, ROUGH, kept_alive)).run(60, |pair, round| {
            if round % 20 == 10 {
                let side = (round / 20 % 2) as usize;
                let id = pair.ids[side];
                pair.engines[side].update_keys(id);
            }
        });
    }
}

#[test]
fn resets_survive_a_change_of_the_path() {
    for seed in 0..4 {
        Churn::new(Pair::new(seed, ROUGH, kept_alive)).run(60, |pair, round| {
            if round % 15 == 7 {
                pair.addresses[CLIENT].set_port(2000 + round as u16);
            }
        });
    }
}

#[test]
fn turned_off_resets_wait_for_the_header_and_all_arrive() {
    for seed in 0..4 {
        let mut churn = Churn::new(Pair::new(seed, ROUGH, |options| {
            kept_alive(options);
            options.reset_stream_at = false;
        }));
        churn.run(60, |_, _| ());
    }
}

#[test]
fn datagrams_keep_their_size_and_arrive_while_resets_are_under_way() {
    let mut pair = Pair::new(3, CLEAN, |_| ());
    pair.run_for(Duration::from_secs(2));
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let most = pair.engines[CLIENT].max_datagram(client).unwrap();
    for _ in 0..20 {
        let stream = pair.open(CLIENT, UNIDIRECTIONAL_STREAM);
        pair.engines[CLIENT].reset(pair.now, client, stream, 1);
    }
    assert_eq!(pair.engines[CLIENT].max_datagram(client), Some(most));
    let data = pattern(most - 1);
    assert_eq!(pair.engines[CLIENT].send_datagram(pair.now, client, SESSION, &data), 0);
    pair.run_for(Duration::from_secs(1));
    let arrived = pair.engines[SERVER].receive_datagram(server, SESSION);
    assert!(arrived.as_deref() == Some(&data[..]), "{:?} of {} bytes arrived", arrived.map(|d| d.len()), data.len());
}
