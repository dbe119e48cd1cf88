//! Two engines on a simulated network with virtual time: latency, loss, reordering, duplication; seeded.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of this")]

pub mod shortcuts;

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    net::{SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

pub use self::shortcuts::Shortcuts;
use wtio_engine::{
    Engine, Event, Memory, Options, ReadOutcome, ReceiveState,
    session::SessionLimits,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
};

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;
pub const SESSION: u64 = 0;
/// `WT_SESSION_GONE`
pub const GONE: u64 = 0x170d_7b68;
pub const DATA_STREAM: &[u8] = &[0x40, 0x41, 0x00];
pub const UNIDIRECTIONAL_STREAM: &[u8] = &[0x40, 0x54, 0x00];

pub fn options(seed: u8) -> Options {
    Options {
        idle_timeout: Duration::from_secs(30),
        keep_alive: None,
        max_bidirectional_streams: 100,
        max_unidirectional_streams: 100,
        stream_receive_window: 256 * 1024,
        connection_receive_window: 4 * 1024 * 1024,
        stream_send_buffer: 256 * 1024,
        connection_send_buffer: 4 * 1024 * 1024,
        datagram_send_buffer: 64 * 1024,
        datagram_send_age: None,
        datagram_receive_buffer: 64 * 1024,
        early_datagrams: 4,
        max_connections: 10,
        memory: Some(Memory::new(1 << 30)),
        initial_mtu: 1200,
        max_mtu: 1452,
        congestion: "tolerant".into(),
        gso: false,
        reset_stream_at: true,
        secret: None,
        id_prefix: Vec::new(),
        id_length: 8,
        seed: Some([seed; 32]),
    }
}

#[derive(Clone, Copy)]
pub struct Link {
    pub latency: Duration,
    pub jitter: Duration,
    pub loss: f64,
    pub duplicate: f64,
    /// Chance, for each packet that is sent, that an older one of the same direction comes once more behind it.
    pub replay: f64,
}

pub const CLEAN: Link =
    Link { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0.0, duplicate: 0.0, replay: 0.0 };
pub const ROUGH: Link = Link {
    latency: Duration::from_millis(10),
    jitter: Duration::from_millis(15),
    loss: 0.1,
    duplicate: 0.05,
    replay: 0.05,
};

/// Packets of each direction that may be replayed.
const REPLAYABLE: usize = 1000;

/// What the link does with packets marked as ECN-capable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    Kept,
    /// The mark is taken off.
    Bleached,
    /// The packet is.
    Dropped,
}

/// ECT(0)
pub const MARK: u8 = 0b10;

struct Flying {
    /// When it arrives, and which of those that left it is.
    at: (Instant, u64),
    to: usize,
    path: Path,
    ecn: u8,
    data: Vec<u8>,
}

/// Addresses that a packet came from and goes to. Small, because what the link does counts among the instructions.
type Path = [SocketAddrV4; 2];

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Flying {}

impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flying {
    /// What arrives first is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

/// A packet as it left: from where to where, its ECN bits, its bytes.
type Sent = (Path, u8, Vec<u8>);

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => unreachable!("{address}: the link carries IPv4"),
    }
}

pub struct Pair {
    pub engines: [Engine; 2],
    pub ids: [u64; 2],
    pub addresses: [SocketAddr; 2],
    pub now: Instant,
    pub link: Link,
    /// What happens to marked packets of either side.
    pub marks: [Marks; 2],
    /// Packets of either side that left, and those of them with a mark.
    pub left: [[usize; 2]; 2],
    /// Time that an engine takes for what has arrived.
    pub lag: Duration,
    /// Packets that an engine may build at once, as for a kernel that cuts them apart.
    pub segments: usize,
    random: u64,
    flying: BinaryHeap<Flying>,
    /// What was sent to each side, for replays.
    sent: [Vec<Sent>; 2],
    sequence: u64,
    pub events: [Vec<Event>; 2],
}

impl Pair {
    pub fn new(seed: u8, link: Link, change: impl Fn(&mut Options)) -> Self {
        let mut pair = Self::unconnected(seed, link, change);
        pair.connect();
        pair
    }

    pub fn unconnected(seed: u8, link: Link, change: impl Fn(&mut Options)) -> Self {
        Self::prepared(seed, link, change, |_| ())
    }

    /// As `unconnected`; `prepare` gets both engines before anything happens.
    pub fn prepared(seed: u8, link: Link, change: impl Fn(&mut Options), prepare: impl Fn(&mut Engine)) -> Self {
        let now = Instant::now();
        let day = 86_400;
        let (certificate, key, der) =
            generate_certificate(&["localhost".into()], 1_700_000_000, 1_700_000_000 + 9000 * day).unwrap();
        let _ = der;
        let server_tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        let client_tls = ClientTls::new(Trust::Insecure, None).unwrap();
        let mut settings = options(seed);
        change(&mut settings);
        let mut server = Engine::new(settings.clone(), Some(&server_tls)).unwrap();
        settings.seed = Some([seed.wrapping_add(1); 32]);
        // A budget is a server's.
        settings.memory = None;
        let mut client = Engine::new(settings, None).unwrap();
        prepare(&mut server);
        prepare(&mut client);
        let addresses = ["10.0.0.1:1000".parse().unwrap(), "10.0.0.2:443".parse().unwrap()];
        let id = client.connect(now, addresses[SERVER], "localhost", &client_tls).unwrap();
        Self {
            engines: [client, server],
            ids: [id, u64::MAX],
            addresses,
            now,
            link,
            marks: [Marks::Kept; 2],
            left: [[0; 2]; 2],
            lag: Duration::ZERO,
            segments: 1,
            random: u64::from(seed) + 1,
            flying: BinaryHeap::new(),
            sent: [Vec::new(), Vec::new()],
            sequence: 0,
            events: [Vec::new(), Vec::new()],
        }
    }

    pub fn connect(&mut self) {
        self.run_until("both are connected", |p| {
            p.seen(CLIENT, |e| matches!(e, Event::Connected { .. }))
                && p.seen(SERVER, |e| matches!(e, Event::Connected { .. }))
        });
        for side in [CLIENT, SERVER] {
            let limits = SessionLimits { datagram_buffer: 1 << 20, datagram_count: 1024, ..SessionLimits::default() };
            let id = self.ids[side];
            self.engines[side].add_session(id, SESSION, limits);
        }
    }

    pub fn seen(&self, side: usize, test: impl Fn(&Event) -> bool) -> bool {
        self.events[side].iter().any(test)
    }

    /// What is random from now on depends on `seed`.
    pub fn reseed(&mut self, seed: u64) {
        self.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    }

    pub fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn fly(&mut self, to: usize, path: Path, mut ecn: u8, data: Vec<u8>) {
        match self.marks[1 - to] {
            Marks::Dropped if ecn != 0 => return,
            Marks::Bleached => ecn = 0,
            Marks::Kept | Marks::Dropped => {}
        }
        let jitter = self.link.jitter.mul_f64(self.chance());
        self.sequence += 1;
        let at = (self.now + self.link.latency + jitter, self.sequence);
        self.flying.push(Flying { at, to, path, ecn, data });
    }

    /// Send an older packet once more, now and then, and note this one as one of those.
    fn replay(&mut self, to: usize, path: Path, ecn: u8, data: &[u8]) {
        if self.link.replay == 0.0 {
            return;
        }
        let (chance, which) = (self.chance(), self.chance());
        let older = &mut self.sent[to];
        let place = (which * older.len() as f64) as usize;
        let again = older.get(place).filter(|_| chance < self.link.replay).cloned();
        if older.len() < REPLAYABLE {
            older.push((path, ecn, data.to_vec()));
        } else {
            older[place] = (path, ecn, data.to_vec());
        }
        if let Some((path, ecn, data)) = again {
            self.fly(to, path, ecn, data);
        }
    }

    /// One step of virtual time: send what wants to leave, then jump to the next arrival or timer.
    pub fn step(&mut self) -> bool {
        self.step_before(None)
    }

    /// As `step`, but time goes no further than `end`.
    fn step_before(&mut self, end: Option<Instant>) -> bool {
        for side in [CLIENT, SERVER] {
            let mut out = Vec::new();
            self.engines[side].process(self.now, self.segments, usize::MAX, |outgoing| {
                let size = outgoing.segment_size.unwrap_or(outgoing.contents.len());
                let (to, ecn) = (v4(outgoing.destination), outgoing.ecn);
                out.extend(outgoing.contents.chunks(size).map(|data| (to, ecn, data.to_vec())));
                true
            });
            for (to, ecn, data) in out {
                self.left[side][0] += 1;
                self.left[side][1] += usize::from(ecn != 0);
                let path = [v4(self.addresses[side]), to];
                if self.chance() < self.link.duplicate {
                    self.fly(1 - side, path, ecn, data.clone());
                }
                self.replay(1 - side, path, ecn, &data);
                if self.chance() >= self.link.loss {
                    self.fly(1 - side, path, ecn, data);
                }
            }
            let events = &mut self.events[side];
            self.engines[side].take_events(events);
        }
        if let Some(Event::Incoming { connection }) =
            self.events[SERVER].iter().find(|e| matches!(e, Event::Incoming { .. }))
        {
            self.ids[SERVER] = *connection;
        }
        let arrival = self.flying.peek().map(|f| f.at.0);
        let timer = self.engines.iter_mut().filter_map(Engine::next_timer).min();
        let Some(next) = arrival.into_iter().chain(timer).min() else { return false };
        if let Some(end) = end.filter(|end| *end <= next) {
            self.now = end;
            return true;
        }
        self.now = self.now.max(next);
        while self.flying.peek().is_some_and(|f| f.at.0 <= self.now) {
            let flying = self.flying.pop().unwrap();
            // Nothing arrives at an address that its side has left.
            let [from, to] = flying.path;
            if to == v4(self.addresses[flying.to]) {
                self.engines[flying.to].receive(self.now, from.into(), None, flying.ecn, flying.data.as_slice().into());
            }
        }
        self.now += self.lag;
        true
    }

    pub fn run_until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            let is_alive = self.step();
            assert!(is_alive || done(self), "the network fell silent before {what}");
        }
        panic!("never happened: {what}");
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.step_before(Some(end)) {}
    }

    /// How the connection ended, on either side, if it did.
    pub fn ends(&self) -> Vec<&Event> {
        self.events.iter().flatten().filter(|e| matches!(e, Event::Closed { .. })).collect()
    }

    pub fn incoming(&self, side: usize) -> Vec<u64> {
        self.events[side]
            .iter()
            .filter_map(|e| if let Event::Stream { stream, .. } = e { Some(*stream) } else { None })
            .collect()
    }

    pub fn read(&mut self, side: usize, stream: u64) -> Vec<u8> {
        let id = self.ids[side];
        match self.engines[side].prepare_read(self.now, id, stream, usize::MAX) {
            ReadOutcome::Ready(length) => {
                let mut out = vec![0; length];
                self.engines[side].take(self.now, id, stream, &mut out);
                out
            }
            _ => Vec::new(),
        }
    }

    pub fn open(&mut self, side: usize, header: &[u8]) -> u64 {
        let id = self.ids[side];
        self.engines[side].open_stream(self.now, id, header == DATA_STREAM, header, Some(SESSION)).expect("credit")
    }

    /// Write `data` as the queue takes it, read it on the other side, until everything and the end has arrived.
    pub fn transfer(&mut self, from: usize, stream: u64, data: &[u8]) -> Vec<u8> {
        let mut sent = 0;
        let mut received = Vec::new();
        for _ in 0..200_000 {
            let id = self.ids[from];
            if sent < data.len() {
                sent += self.engines[from].write(id, stream, &data[sent..]).expect("open");
                if sent == data.len() {
                    assert!(self.engines[from].finish(id, stream));
                }
            }
            if self.incoming(1 - from).contains(&stream) || stream % 2 != from as u64 {
                received.append(&mut self.read(1 - from, stream));
                if self.engines[1 - from].receive_state(self.ids[1 - from], stream) == ReceiveState::Ended {
                    return received;
                }
            }
            assert!(self.step(), "silent after {} of {} bytes", received.len(), data.len());
        }
        panic!("transfer of {} bytes stalled at {}", data.len(), received.len());
    }
}

pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}
