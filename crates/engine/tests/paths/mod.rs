//! Flows over one bottleneck in virtual time: rate, delay, random loss and a queue of bytes that drops what does not fit.
//!
//! Two engines for each flow, the sender's packets of all flows through the same queue. Nothing depends on the machine:
//! the same path and flows give the same figures, but for the core's BBR, whose phases are random.

#![allow(dead_code, unreachable_pub, reason = "each program uses a part of this")]

use std::{
    collections::BinaryHeap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::shortcuts::Shortcuts as _;
use wtio_engine::{
    Engine, Event, Memory, Options, ReadOutcome,
    session::SessionLimits,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
};

const SENDER: usize = 0;
const RECEIVER: usize = 1;
const SESSION: u64 = 0;
const DATA_STREAM: &[u8] = &[0x40, 0x41, 0x00];
/// IPv4 and UDP.
const HEADERS: usize = 28;
/// The default. What a flow sends is spread over streams, for one stream cannot fill a long path that loses packets:
/// what waits for a lost one counts as well.
const WINDOW: u64 = 4 * 1024 * 1024;
const STREAMS: usize = 8;
const CHUNK: usize = 64 * 1024;
/// Packets that the sender hands over at once, as with GSO.
const SEGMENTS: usize = 10;

pub const DEFAULT: &str = "tolerant";
pub const CONTROLLERS: [&str; 4] = ["tolerant", "cubic", "newreno", "bbr"];
/// For how long flows are looked at.
pub const SECONDS: usize = 60;

/// What congestion control is chosen by.
pub const SET: &[Path] = &[
    Path::new("far-lossy", 200.0, 50.0, 0.01, 1_000_000),
    Path::new("near-lossy", 100.0, 20.0, 0.001, 64_000),
    Path::new("thin-lossy", 5.0, 100.0, 0.02, 128_000),
    Path::new("wild", 50.0, 40.0, 0.05, 500_000),
    Path::new("satellite", 50.0, 300.0, 0.001, 2_000_000),
    Path::new("short", 100.0, 20.0, 0.0, 64_000),
    Path::new("home", 50.0, 20.0, 0.0, 250_000),
    Path::new("bloat", 20.0, 20.0, 0.0, 2_000_000),
    Path::new("metro", 100.0, 5.0, 0.0, 250_000),
    Path::new("lan", 100.0, 0.2, 0.0, 50_000),
];

/// A path of the set.
pub fn path(name: &str) -> Path {
    *SET.iter().find(|path| path.name == name).expect("a path of the set")
}

/// A bottleneck in the direction of the data. Acknowledgements come back with the same delay and loss, at any rate.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    pub name: &'static str,
    /// Mbit/s, headers of IP and UDP included.
    pub rate: f64,
    /// Milliseconds, each way.
    pub delay: f64,
    /// Share of packets that is lost at random, each way.
    pub loss: f64,
    /// Bytes that wait at most.
    pub queue: usize,
    /// Milliseconds by which the delay varies, up and down, at random; packets keep their order.
    pub jitter: f64,
}

impl Path {
    pub const fn new(name: &'static str, rate: f64, delay: f64, loss: f64, queue: usize) -> Self {
        Self { name, rate, delay, loss, queue, jitter: 0.0 }
    }

    pub const fn with_jitter(mut self, milliseconds: f64) -> Self {
        self.jitter = milliseconds;
        self
    }

    /// In words.
    pub fn describe(&self) -> String {
        let Self { name, rate, delay, .. } = self;
        let (loss, queue) = (self.loss * 100.0, self.queue / 1000);
        format!("{name}: {rate} Mbit/s, {delay} ms, {loss} %, {queue} KB")
    }
}

/// What a sender has to send.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// Always something.
    Bulk,
    /// So many bytes, in each such period.
    Bursts(usize, Duration),
}

#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub congestion: &'static str,
    /// Seconds after which it begins.
    pub start: f64,
    /// Milliseconds each way beside the path's own.
    pub detour: f64,
    pub load: Load,
}

impl Flow {
    pub const fn bulk(congestion: &'static str) -> Self {
        Self { congestion, start: 0.0, detour: 0.0, load: Load::Bulk }
    }

    pub const fn after(mut self, seconds: f64) -> Self {
        self.start = seconds;
        self
    }

    /// Farther away than the path says, by so many milliseconds each way.
    pub const fn beyond(mut self, milliseconds: f64) -> Self {
        self.detour = milliseconds;
        self
    }
}

#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Payload bytes that each flow delivered in each second.
    pub delivered: Vec<Vec<u64>>,
    /// Milliseconds that packets waited in the queue: the mean, and what 95 of 100 stayed below.
    pub wait: f64,
    pub wait95: f64,
    /// Share of packets that found no room in the queue.
    pub dropped: f64,
}

impl Outcome {
    /// Mbit/s of payload of one flow from one second to another.
    pub fn goodput(&self, flow: usize, from: usize, to: usize) -> f64 {
        let bytes: u64 = self.delivered[flow][from..to].iter().sum();
        bytes as f64 * 8.0 / 1e6 / (to - from) as f64
    }
}

struct Flying {
    at: Instant,
    sequence: u64,
    flow: usize,
    to: usize,
    ecn: u8,
    data: Vec<u8>,
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Flying {}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

struct Peer {
    engines: [Engine; 2],
    ids: [u64; 2],
    touched: [bool; 2],
    streams: Vec<u64>,
    /// Bytes that the load has released and that are not written yet.
    due: usize,
    next_burst: Option<Instant>,
}

struct Simulation {
    path: Path,
    flows: Vec<Flow>,
    peers: Vec<Peer>,
    now: Instant,
    /// When the bottleneck has sent everything that waits.
    idle_at: Instant,
    is_ideal: bool,
    random: u64,
    flying: BinaryHeap<Flying>,
    sequence: u64,
    /// When the last packet of each flow arrives, by direction: jitter lets none overtake another.
    last_arrival: Vec<[Instant; 2]>,
    /// Packets by the tenths of a millisecond that they waited.
    waits: Vec<u64>,
    dropped: u64,
}

fn options(congestion: &str, memory: Option<u64>, seed: u8) -> Options {
    Options {
        idle_timeout: Duration::ZERO,
        keep_alive: None,
        max_bidirectional_streams: 100,
        max_unidirectional_streams: 100,
        stream_receive_window: WINDOW,
        connection_receive_window: 4 * WINDOW,
        stream_send_buffer: 256 * 1024,
        connection_send_buffer: 4 * WINDOW as usize,
        datagram_send_buffer: 64 * 1024,
        datagram_send_age: None,
        datagram_receive_buffer: 64 * 1024,
        early_datagrams: 4,
        max_connections: 10,
        memory: memory.map(Memory::new),
        initial_mtu: 1200,
        max_mtu: 1452,
        congestion: congestion.into(),
        gso: true,
        reset_stream_at: true,
        secret: None,
        id_prefix: Vec::new(),
        id_length: 8,
        seed: Some([seed; 32]),
    }
}

fn address(side: usize) -> SocketAddr {
    (["10.0.0.1:1000", "10.0.0.2:443"][side]).parse().expect("an address")
}

/// Let `flows` share `path` for so many seconds. The receivers are servers with the default budget.
pub fn run(path: Path, flows: &[Flow], seconds: usize, seed: u64) -> Outcome {
    run_with(path, flows, seconds, seed, Some(1 << 30))
}

/// The same with another memory budget, or none: then windows are full from the beginning.
pub fn run_with(path: Path, flows: &[Flow], seconds: usize, seed: u64, budget: Option<u64>) -> Outcome {
    let now = Instant::now();
    let (certificate, key, _) =
        generate_certificate(&["localhost".into()], 1_700_000_000, 1_700_000_000 + 86_400).expect("a certificate");
    let server_tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).expect("usable");
    let client_tls = ClientTls::new(Trust::Insecure, None).expect("usable");
    let peers = flows.iter().enumerate().map(|(index, flow)| {
        let options = |side| {
            let memory = budget.filter(|_| side == RECEIVER);
            options(flow.congestion, memory, (4 * index + 2 * seed as usize + side + 1) as u8)
        };
        let mut client = Engine::new(options(0), None).expect("known options");
        let server = Engine::new(options(1), Some(&server_tls)).expect("known options");
        let id = client.connect(now, address(RECEIVER), "localhost", &client_tls).expect("a connection");
        Peer {
            engines: [client, server],
            ids: [id, u64::MAX],
            touched: [true, true],
            streams: Vec::new(),
            due: 0,
            next_burst: None,
        }
    });
    let mut simulation = Simulation {
        path,
        flows: flows.to_vec(),
        peers: peers.collect(),
        now,
        idle_at: now,
        is_ideal: true,
        random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        flying: BinaryHeap::new(),
        sequence: 0,
        last_arrival: vec![[now; 2]; flows.len()],
        waits: vec![0; 100_000],
        dropped: 0,
    };
    // Handshakes differ by bytes from run to run. What is measured begins after them, on a clean path until then.
    simulation.advance(now + Duration::from_secs(5), &mut |_, _| ());
    simulation.is_ideal = false;
    simulation.measure(seconds)
}

impl Simulation {
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn measure(&mut self, seconds: usize) -> Outcome {
        let begin = self.now;
        for index in 0..self.peers.len() {
            let limits = SessionLimits::default();
            for side in [SENDER, RECEIVER] {
                let peer = &mut self.peers[index];
                assert_ne!(peer.ids[side], u64::MAX, "connected");
                peer.engines[side].add_session(peer.ids[side], SESSION, limits);
            }
            self.peers[index].next_burst = Some(begin + Duration::from_secs_f64(self.flows[index].start));
        }
        let mut delivered = vec![Vec::with_capacity(seconds); self.peers.len()];
        for second in 1..=seconds {
            let mut read = vec![0; self.peers.len()];
            self.advance(begin + Duration::from_secs(second as u64), &mut |flow, bytes| read[flow] += bytes as u64);
            for (flow, bytes) in delivered.iter_mut().zip(read) {
                flow.push(bytes);
            }
        }
        let packets: u64 = self.waits.iter().sum();
        let mut below = 0;
        let wait95 = self.waits.iter().position(|count| {
            below += count;
            below * 100 >= packets * 95
        });
        let total: u64 = self.waits.iter().enumerate().map(|(tenths, count)| tenths as u64 * count).sum();
        Outcome {
            delivered,
            wait: total as f64 / 10.0 / packets.max(1) as f64,
            wait95: wait95.unwrap_or(0) as f64 / 10.0,
            dropped: self.dropped as f64 / (packets + self.dropped).max(1) as f64,
        }
    }

    fn advance(&mut self, end: Instant, on_delivery: &mut impl FnMut(usize, usize)) {
        let mut out = Vec::new();
        loop {
            let mut next = end;
            for index in 0..self.peers.len() {
                self.release(index);
                next = next.min(self.peers[index].next_burst.unwrap_or(end));
                for side in [SENDER, RECEIVER] {
                    let peer = &mut self.peers[index];
                    let is_due = peer.engines[side].next_timer().is_some_and(|at| at <= self.now);
                    if std::mem::take(&mut peer.touched[side]) || is_due {
                        if side == SENDER {
                            self.write(index);
                        }
                        let peer = &mut self.peers[index];
                        peer.engines[side].process(self.now, SEGMENTS, usize::MAX, |outgoing| {
                            let size = outgoing.segment_size.unwrap_or(outgoing.contents.len());
                            out.extend(outgoing.contents.chunks(size).map(|data| (data.to_vec(), outgoing.ecn)));
                            true
                        });
                        for (data, ecn) in out.drain(..) {
                            self.send(index, side, data, ecn);
                        }
                        self.take_in(index, side, on_delivery);
                    }
                    let peer = &mut self.peers[index];
                    if peer.touched[side] || peer.engines[side].has_work() {
                        peer.touched[side] = true;
                        next = self.now;
                    } else if let Some(at) = peer.engines[side].next_timer() {
                        next = next.min(at);
                    }
                }
            }
            next = next.min(self.flying.peek().map_or(end, |flying| flying.at));
            self.now = self.now.max(next);
            if self.now >= end {
                return;
            }
            while self.flying.peek().is_some_and(|flying| flying.at <= self.now) {
                let flying = self.flying.pop().expect("just seen");
                let peer = &mut self.peers[flying.flow];
                let from = address(1 - flying.to);
                peer.engines[flying.to].receive(self.now, from, None, flying.ecn, flying.data.as_slice().into());
                peer.touched[flying.to] = true;
            }
        }
    }

    /// Look whether the load has something new to send.
    fn release(&mut self, index: usize) {
        let now = self.now;
        let peer = &mut self.peers[index];
        if peer.next_burst.is_some_and(|at| at <= now) {
            peer.touched[SENDER] = true;
            let id = peer.ids[SENDER];
            while peer.streams.len() < STREAMS {
                let stream = peer.engines[SENDER].open_stream(now, id, true, DATA_STREAM, Some(SESSION));
                peer.streams.push(stream.expect("credit"));
            }
            match self.flows[index].load {
                Load::Bulk => (peer.due, peer.next_burst) = (usize::MAX, None),
                Load::Bursts(bytes, period) => {
                    peer.due += bytes;
                    peer.next_burst = Some(now + period);
                }
            }
        }
    }

    /// Hand the engine what it has room for.
    fn write(&mut self, index: usize) {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        let peer = &mut self.peers[index];
        for &stream in &peer.streams {
            while peer.due > 0 {
                let most = peer.due.min(CHUNK);
                let written = peer.engines[SENDER].write(peer.ids[SENDER], stream, &ZEROS[..most]).expect("open");
                if peer.due != usize::MAX {
                    peer.due -= written;
                }
                if written < most {
                    break;
                }
            }
        }
    }

    /// Put a packet on its way.
    fn send(&mut self, flow: usize, from: usize, data: Vec<u8>, ecn: u8) {
        let mut leaves = self.now;
        if !self.is_ideal {
            let size = data.len() + HEADERS;
            let (lost, bits) = (self.chance() < self.path.loss, self.path.rate * 1e6);
            if lost {
                return;
            }
            if from == SENDER {
                let starts = self.idle_at.max(self.now);
                let wait = (starts - self.now).as_secs_f64();
                if wait * bits / 8.0 + size as f64 > self.path.queue as f64 {
                    self.dropped += 1;
                    return;
                }
                let last = self.waits.len() - 1;
                self.waits[((wait * 1e4) as usize).min(last)] += 1;
                self.idle_at = starts + Duration::from_secs_f64(size as f64 * 8.0 / bits);
                leaves = self.idle_at;
            }
        }
        let mut delay = self.path.delay + self.flows[flow].detour;
        if self.path.jitter > 0.0 && !self.is_ideal {
            delay += (2.0 * self.chance() - 1.0) * self.path.jitter;
        }
        let mut at = leaves + Duration::from_secs_f64(delay / 1e3);
        if self.path.jitter > 0.0 {
            at = at.max(self.last_arrival[flow][from]);
            self.last_arrival[flow][from] = at;
        }
        self.sequence += 1;
        self.flying.push(Flying { at, sequence: self.sequence, flow, to: 1 - from, ecn, data });
    }

    fn take_in(&mut self, index: usize, side: usize, on_delivery: &mut impl FnMut(usize, usize)) {
        let now = self.now;
        let mut events = Vec::new();
        let peer = &mut self.peers[index];
        peer.engines[side].take_events(&mut events);
        for event in events {
            match event {
                Event::Incoming { connection } => peer.ids[side] = connection,
                Event::Closed { .. } => panic!("flow {index} ended: {event:?}"),
                _ => {}
            }
        }
        let id = peer.ids[side];
        for &stream in peer.streams.iter().filter(|_| side == RECEIVER) {
            while let ReadOutcome::Ready(length) = peer.engines[side].prepare_read(now, id, stream, usize::MAX) {
                let mut read = vec![0; length];
                peer.engines[side].take(now, id, stream, &mut read);
                on_delivery(index, length);
                peer.touched[side] = true;
            }
        }
    }
}
