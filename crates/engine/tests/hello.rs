//! A client's hello has a key of ML-KEM in it and takes two packets: what becomes of it if they are lost, swapped or doubled,
//! with and without Retry, and what it costs a server until both have come.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::support::{CLIENT, Pair, ROUGH, SERVER, options};
use wtio_engine::{
    Engine, Event, NewcomerLimits,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
};

const GROUP: Option<&str> = Some("X25519MLKEM768");
const TRIP: Duration = Duration::from_millis(20);

fn home() -> SocketAddr {
    SocketAddr::from(([10, 9, 9, 9], 443))
}

fn away() -> SocketAddr {
    SocketAddr::from(([11, 0, 0, 1], 1000))
}

fn limits(retry_from: usize) -> NewcomerLimits {
    NewcomerLimits {
        half_open: 2,
        unvalidated: 2,
        retry_from,
        connections_per_address: None,
        handshakes_per_address: None,
        handshake_timeout: Duration::from_secs(10),
    }
}

/// A client and a server, of which every packet is carried by hand.
struct Carried {
    client: Engine,
    server: Engine,
    now: Instant,
    client_id: u64,
    server_id: u64,
    events: Vec<Event>,
    /// Bytes to the server and from it, by the client's address.
    bytes: HashMap<SocketAddr, [usize; 2]>,
}

impl Carried {
    fn new(retry_from: usize) -> Self {
        let (certificate, key, _) = generate_certificate(&["localhost".into()], 1_700_000_000, 2_500_000_000).unwrap();
        let tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        let mut server = Engine::new(options(3), Some(&tls)).unwrap();
        server.limit_newcomers(limits(retry_from));
        let mut client = Engine::new(options(4), None).unwrap();
        let now = Instant::now();
        let trust = ClientTls::new(Trust::Insecure, None).unwrap();
        let client_id = client.connect(now, home(), "localhost", &trust).unwrap();
        Self { client, server, now, client_id, server_id: u64::MAX, events: Vec::new(), bytes: HashMap::new() }
    }

    fn hello(&mut self) -> Vec<Vec<u8>> {
        packets(&mut self.client, self.now)
    }

    /// Bring packets to the server, and return its answers.
    fn bring(&mut self, packets_of_the_client: &[&[u8]]) -> Vec<Vec<u8>> {
        for packet in packets_of_the_client {
            self.server.receive(self.now, away(), None, 0, (*packet).into());
            self.bytes.entry(away()).or_default()[0] += packet.len();
        }
        let answers = packets(&mut self.server, self.now);
        let is_known = self.server_knows_the_address();
        let [sent, received] = self.bytes.entry(away()).or_default();
        *received += answers.iter().map(Vec::len).sum::<usize>();
        assert!(is_known || *received <= 3 * *sent, "{received} bytes for {sent}");
        self.server.take_events(&mut self.events);
        if let Some(Event::Incoming { connection }) = self.events.iter().find(|e| matches!(e, Event::Incoming { .. })) {
            self.server_id = *connection;
        }
        answers
    }

    /// Whether the client showed its address, by a token or with the whole handshake.
    fn server_knows_the_address(&self) -> bool {
        self.server.newcomers().validated > 0 || self.server.newcomers().open > 0
    }

    fn answer(&mut self, packets_of_the_server: &[Vec<u8>]) {
        self.now += TRIP;
        for packet in packets_of_the_server {
            self.client.receive(self.now, home(), None, 0, packet.as_slice().into());
        }
    }

    fn is_connected(&mut self) -> bool {
        let mut events = Vec::new();
        self.client.take_events(&mut events);
        let is_connected = events.iter().any(|e| matches!(e, Event::Connected { .. }));
        self.events.append(&mut events);
        is_connected
    }

    /// Carry everything from now on, and let time pass if there is nothing. Returns after how long the client is connected.
    fn finish(&mut self, began: Instant) -> Duration {
        for _ in 0..200 {
            let out = packets(&mut self.client, self.now);
            let out: Vec<&[u8]> = out.iter().map(Vec::as_slice).collect();
            let answers = self.bring(&out);
            if out.is_empty() && answers.is_empty() {
                let timers = [self.client.next_timer(), self.server.next_timer()];
                self.now = self.now.max(timers.into_iter().flatten().min().expect("somebody waits for something"));
            } else {
                self.answer(&answers);
            }
            if self.is_connected() {
                return self.now - began;
            }
        }
        panic!("no connection");
    }
}

fn packets(engine: &mut Engine, now: Instant) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    engine.process(now, 1, usize::MAX, |outgoing| {
        packets.push(outgoing.contents.to_vec());
        true
    });
    packets
}

/// In which order the two packets of a hello come, if at all.
const FATES: [&[usize]; 9] =
    [&[0, 1], &[1, 0], &[0], &[1], &[], &[0, 0, 1, 1], &[1, 1, 0, 0], &[0, 1, 0, 1], &[1, 0, 1, 0]];

#[test]
fn a_hello_of_two_packets_takes_one_round_trip() {
    let mut pair = Carried::new(1000);
    let hello = pair.hello();
    assert_eq!(hello.iter().map(Vec::len).collect::<Vec<_>>(), [1200, 1200]);
    let answers = pair.bring(&[&hello[0], &hello[1]]);
    pair.answer(&answers);
    assert_eq!(pair.finish(pair.now), TRIP, "it has all that it needs");
    let (id, now) = (pair.client_id, pair.now);
    assert_eq!(pair.client.connection(now, id).unwrap().facts().key_exchange, GROUP);
}

#[test]
fn each_packet_of_a_hello_may_be_lost_or_doubled_and_both_may_be_swapped() {
    for retry_from in [1000, 0] {
        for fate in FATES {
            let mut pair = Carried::new(retry_from);
            let began = pair.now;
            let mut hello = pair.hello();
            if retry_from == 0 {
                // The answer to the first is a Retry, after which the client says it again, with a token.
                let answers = pair.bring(&[&hello[0], &hello[1]]);
                assert!(answers.iter().all(|answer| answer[0] & 0xf0 == 0xf0), "only Retry");
                assert_eq!(pair.server.connection_count(), 0);
                pair.answer(&answers);
                hello = pair.hello();
            }
            assert_eq!(hello.len(), 2);
            let fated: Vec<&[u8]> = fate.iter().map(|which| hello[*which].as_slice()).collect();
            let answers = pair.bring(&fated);
            assert_eq!(pair.server.connection_count(), usize::from(!fate.is_empty()), "however many packets came");
            pair.answer(&answers);
            let took = pair.finish(began);
            let is_whole = fate.contains(&0) && fate.contains(&1);
            assert!(took <= if is_whole { 4 * TRIP } else { Duration::from_secs(4) }, "{fate:?}: {took:?}");
            let figures = pair.server.newcomers();
            assert_eq!((figures.accepted, figures.displaced), (1, 0), "{fate:?}");
            let (id, now) = (pair.client_id, pair.now);
            assert_eq!(pair.client.connection(now, id).unwrap().facts().key_exchange, GROUP);
        }
    }
}

#[test]
fn half_a_hello_is_a_half_open_connection_that_ends_in_time() {
    for half in [0, 1] {
        let mut pair = Carried::new(1000);
        let hello = pair.hello();
        let answers = pair.bring(&[&hello[half]]);
        assert!(answers.iter().map(Vec::len).sum::<usize>() <= 3600);
        assert_eq!(pair.server.newcomers().half_open, 1);
        let end = pair.now + Duration::from_secs(11);
        while let Some(at) = pair.server.next_timer().filter(|at| *at <= end) {
            pair.now = pair.now.max(at);
            pair.bring(&[]);
        }
        let figures = pair.server.newcomers();
        assert_eq!((figures.half_open, figures.handshake_timeouts), (0, 1));
    }
}

#[test]
fn it_comes_through_a_rough_network() {
    for seed in 0..60 {
        let mut pair = Pair::unconnected(seed, ROUGH, |_| ());
        pair.connect();
        for side in [CLIENT, SERVER] {
            let (id, now) = (pair.ids[side], pair.now);
            assert_eq!(pair.engines[side].connection(now, id).unwrap().facts().key_exchange, GROUP, "seed {seed}");
        }
    }
}
