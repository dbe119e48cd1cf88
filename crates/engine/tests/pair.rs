//! Two engines on a simulated network with virtual time: latency, loss, reordering, duplication; seeded.

use std::{
    collections::BinaryHeap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use wtio_engine::{
    Engine, Event, Options, ReadOutcome, ReceiveState, SendState,
    session::SessionLimits,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
};

const CLIENT: usize = 0;
const SERVER: usize = 1;
const SESSION: u64 = 0;
/// `WT_SESSION_GONE`
const GONE: u64 = 0x170d_7b68;
const DATA_STREAM: &[u8] = &[0x40, 0x41, 0x00];
const UNIDIRECTIONAL_STREAM: &[u8] = &[0x40, 0x54, 0x00];

fn options(seed: u8) -> Options {
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
        initial_mtu: 1200,
        max_mtu: 1452,
        congestion: "cubic".into(),
        gso: false,
        reset_stream_at: true,
        seed: Some([seed; 32]),
    }
}

#[derive(Clone, Copy)]
struct Link {
    latency: Duration,
    jitter: Duration,
    loss: f64,
    duplicate: f64,
}

const CLEAN: Link = Link { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0.0, duplicate: 0.0 };
const ROUGH: Link =
    Link { latency: Duration::from_millis(10), jitter: Duration::from_millis(15), loss: 0.1, duplicate: 0.05 };

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: std::cmp::Reverse<(Instant, u64)>,
    to: usize,
    data: Vec<u8>,
}

struct Pair {
    engines: [Engine; 2],
    ids: [u64; 2],
    addresses: [SocketAddr; 2],
    now: Instant,
    link: Link,
    random: u64,
    flying: BinaryHeap<Flying>,
    sequence: u64,
    events: [Vec<Event>; 2],
}

impl Pair {
    fn new(seed: u8, link: Link, change: impl Fn(&mut Options)) -> Self {
        let now = Instant::now();
        let day = 86_400;
        let (certificate, key, der) =
            generate_certificate(&["localhost".into()], 1_700_000_000, 1_700_000_000 + 9000 * day).unwrap();
        let _ = der;
        let server_tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        let client_tls = ClientTls::new(Trust::Insecure, None).unwrap();
        let mut settings = options(seed);
        change(&mut settings);
        let server = Engine::new(settings.clone(), Some(&server_tls)).unwrap();
        settings.seed = Some([seed.wrapping_add(1); 32]);
        let mut client = Engine::new(settings, None).unwrap();
        let addresses = ["10.0.0.1:1000".parse().unwrap(), "10.0.0.2:443".parse().unwrap()];
        let id = client.connect(now, addresses[SERVER], "localhost", &client_tls).unwrap();
        let mut pair = Self {
            engines: [client, server],
            ids: [id, u64::MAX],
            addresses,
            now,
            link,
            random: u64::from(seed) + 1,
            flying: BinaryHeap::new(),
            sequence: 0,
            events: [Vec::new(), Vec::new()],
        };
        pair.run_until("both are connected", |p| {
            p.seen(CLIENT, |e| matches!(e, Event::Connected { .. }))
                && p.seen(SERVER, |e| matches!(e, Event::Connected { .. }))
        });
        for side in [CLIENT, SERVER] {
            let limits = SessionLimits { datagram_buffer: 1 << 20, datagram_count: 1024, ..SessionLimits::default() };
            let id = pair.ids[side];
            pair.engines[side].add_session(id, SESSION, limits);
        }
        pair
    }

    fn seen(&self, side: usize, test: impl Fn(&Event) -> bool) -> bool {
        self.events[side].iter().any(test)
    }

    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn fly(&mut self, to: usize, data: Vec<u8>) {
        let jitter = self.link.jitter.mul_f64(self.chance());
        self.sequence += 1;
        let at = std::cmp::Reverse((self.now + self.link.latency + jitter, self.sequence));
        self.flying.push(Flying { at, to, data });
    }

    /// One step of virtual time: send what wants to leave, then jump to the next arrival or timer.
    fn step(&mut self) -> bool {
        for side in [CLIENT, SERVER] {
            let mut out = Vec::new();
            self.engines[side].process(self.now, 1, usize::MAX, |outgoing| {
                out.push(outgoing.contents.to_vec());
                true
            });
            for data in out {
                if self.chance() < self.link.duplicate {
                    self.fly(1 - side, data.clone());
                }
                if self.chance() >= self.link.loss {
                    self.fly(1 - side, data);
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
        let arrival = self.flying.peek().map(|f| f.at.0.0);
        let timer = self.engines.iter_mut().filter_map(Engine::next_timer).min();
        let Some(next) = arrival.into_iter().chain(timer).min() else { return false };
        self.now = self.now.max(next);
        while self.flying.peek().is_some_and(|f| f.at.0.0 <= self.now) {
            let flying = self.flying.pop().unwrap();
            let from = self.addresses[1 - flying.to];
            self.engines[flying.to].receive(self.now, from, None, 0, flying.data.as_slice().into());
        }
        true
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            let is_alive = self.step();
            assert!(is_alive || done(self), "the network fell silent before {what}");
        }
        panic!("never happened: {what}");
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.step() {}
    }

    fn incoming(&self, side: usize) -> Vec<u64> {
        self.events[side]
            .iter()
            .filter_map(|e| if let Event::Stream { stream, .. } = e { Some(*stream) } else { None })
            .collect()
    }

    fn read(&mut self, side: usize, stream: u64) -> Vec<u8> {
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

    fn open(&mut self, side: usize, header: &[u8]) -> u64 {
        let id = self.ids[side];
        self.engines[side].open_stream(self.now, id, header == DATA_STREAM, header, Some(SESSION)).expect("credit")
    }

    /// Write `data` as the queue takes it, read it on the other side, until everything and the end has arrived.
    fn transfer(&mut self, from: usize, stream: u64, data: &[u8]) -> Vec<u8> {
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

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn a_megabyte_arrives_whole_over_a_clean_link() {
    let mut pair = Pair::new(1, CLEAN, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    let data = pattern(1 << 20);
    assert_eq!(pair.transfer(CLIENT, stream, &data), data);
}

#[test]
fn data_arrives_whole_over_loss_reordering_and_duplication() {
    for seed in 0..12 {
        let mut pair = Pair::new(seed, ROUGH, |_| ());
        let data = pattern(200_000 + usize::from(seed) * 777);
        let stream = pair.open(SERVER, UNIDIRECTIONAL_STREAM);
        assert_eq!(pair.transfer(SERVER, stream, &data), data, "seed {seed}");
        let stream = pair.open(CLIENT, DATA_STREAM);
        assert_eq!(pair.transfer(CLIENT, stream, &data), data, "seed {seed}");
        assert_eq!(pair.transfer(SERVER, stream, &data[..5000]), &data[..5000], "seed {seed}");
    }
}

#[test]
fn reset_without_data_still_shows_the_peer_the_stream_and_the_code() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed, ROUGH, |_| ());
        let stream = pair.open(CLIENT, DATA_STREAM);
        let id = pair.ids[CLIENT];
        assert!(pair.engines[CLIENT].reset(pair.now, id, stream, 4242));
        assert!(!pair.engines[CLIENT].reset(pair.now, id, stream, 1), "a second reset is a no-op");
        pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
        pair.run_until("the reset arrives", |p| {
            p.read(SERVER, stream);
            let id = p.ids[SERVER];
            p.engines[SERVER].receive_state(id, stream) == ReceiveState::Reset(4242)
        });
    }
}

#[test]
fn stop_sending_ends_the_writer_with_the_code() {
    let mut pair = Pair::new(3, ROUGH, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    assert_eq!(pair.engines[CLIENT].write(client, stream, b"hello"), Some(5));
    pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
    assert!(pair.engines[SERVER].stop(pair.now, server, stream, 77));
    assert!(!pair.engines[SERVER].stop(pair.now, server, stream, 78), "a second stop is a no-op");
    pair.run_until("the writer is told", |p| p.engines[CLIENT].send_state(client, stream) == SendState::Stopped(77));
    assert_eq!(pair.engines[CLIENT].write(client, stream, b"more"), None);
}

#[test]
fn unacknowledged_bytes_fall_to_zero_and_the_waiter_wakes() {
    let mut pair = Pair::new(5, ROUGH, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    let id = pair.ids[CLIENT];
    pair.engines[CLIENT].write(id, stream, &pattern(50_000));
    assert_eq!(pair.engines[CLIENT].unacked(id, stream), 50_000);
    assert!(pair.engines[CLIENT].want_acked(id, stream));
    pair.run_until("everything is acknowledged", |p| p.seen(CLIENT, |e| matches!(e, Event::Acked { .. })));
    assert_eq!(pair.engines[CLIENT].unacked(id, stream), 0);
    assert!(!pair.engines[CLIENT].want_acked(id, stream), "nothing is outstanding");
}

#[test]
fn a_reader_that_pauses_bounds_the_writer() {
    let mut pair = Pair::new(6, CLEAN, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    let id = pair.ids[CLIENT];
    let chunk = pattern(64 * 1024);
    let mut accepted = 0;
    for _ in 0..2000 {
        accepted += pair.engines[CLIENT].write(id, stream, &chunk).unwrap();
        if !pair.step() {
            break;
        }
    }
    // The peer's stream window plus our queue, and not a byte beyond.
    assert!(accepted <= 256 * 1024 + 256 * 1024 + 3, "{accepted}");
    assert!(accepted >= 256 * 1024, "{accepted}");
}

#[test]
fn short_streams_leave_nothing_behind() {
    for how in ["end", "reset", "unread"] {
        let mut pair = Pair::new(7, CLEAN, |_| ());
        let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
        for _ in 0..1000 {
            let stream = loop {
                let open = pair.engines[CLIENT].open_stream(pair.now, client, true, DATA_STREAM, Some(SESSION));
                match open {
                    Some(stream) => break stream,
                    None => assert!(pair.step()),
                }
            };
            pair.engines[CLIENT].write(client, stream, b"0123456789");
            if how == "reset" {
                pair.engines[CLIENT].reset(pair.now, client, stream, 1);
            } else {
                pair.engines[CLIENT].finish(client, stream);
            }
            pair.run_until("the stream arrives", |p| p.incoming(SERVER).contains(&stream));
            pair.events[SERVER].clear();
            if how == "end" {
                pair.run_until("the end arrives", |p| {
                    p.read(SERVER, stream);
                    p.engines[SERVER].receive_state(server, stream) == ReceiveState::Ended
                });
                pair.engines[SERVER].finish(server, stream);
            }
            pair.engines[SERVER].release(pair.now, server, stream, 0);
            pair.engines[CLIENT].release(pair.now, client, stream, 0);
        }
        pair.run_for(Duration::from_secs(5));
        for side in [CLIENT, SERVER] {
            assert_eq!(pair.engines[side].stream_count(pair.ids[side]), 0, "{how}, side {side}");
        }
    }
}

#[test]
fn datagrams_arrive_and_early_ones_are_kept_within_bounds() {
    let mut pair = Pair::new(8, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    assert_eq!(pair.engines[CLIENT].send_datagram(pair.now, client, SESSION, b""), 0);
    assert_eq!(pair.engines[CLIENT].send_datagram(pair.now, client, SESSION, b"one"), 0);
    let limit = pair.engines[CLIENT].send_datagram(pair.now, client, SESSION, &[0; 5000]);
    assert!((1000..1500).contains(&limit), "{limit}");
    assert!(pair.engines[SERVER].want_datagram(server, SESSION));
    pair.run_until("a datagram arrives", |p| p.seen(SERVER, |e| matches!(e, Event::DatagramReadable { .. })));
    assert_eq!(pair.engines[SERVER].receive_datagram(server, SESSION).as_deref(), Some(&b""[..]));
    assert_eq!(pair.engines[SERVER].receive_datagram(server, SESSION).as_deref(), Some(&b"one"[..]));
    // Session 4 is registered late: the last four datagrams for it are kept.
    pair.engines[CLIENT].add_session(client, 4, SessionLimits::default());
    for number in 0..6u8 {
        pair.engines[CLIENT].send_datagram(pair.now, client, 4, &[number]);
    }
    pair.run_for(Duration::from_millis(100));
    assert!(pair.seen(SERVER, |e| matches!(e, Event::DatagramId { session: 4, .. })));
    let limits = SessionLimits { datagram_buffer: 1000, datagram_count: 100, ..SessionLimits::default() };
    pair.engines[SERVER].add_session(server, 4, limits);
    assert_eq!(pair.engines[SERVER].receive_datagram(server, 4).as_deref(), Some(&[2][..]));
}

#[test]
fn the_end_of_a_session_wakes_everybody_and_keeps_what_arrived_whole() {
    let mut pair = Pair::new(9, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let whole = pair.open(CLIENT, UNIDIRECTIONAL_STREAM);
    pair.engines[CLIENT].write(client, whole, b"complete");
    pair.engines[CLIENT].finish(client, whole);
    let open = pair.open(CLIENT, DATA_STREAM);
    pair.engines[CLIENT].write(client, open, b"part");
    pair.run_until("both arrive", |p| p.incoming(SERVER).len() == 2);
    assert_eq!(pair.read(SERVER, open), b"part");
    assert!(pair.engines[SERVER].want_read(server, open));
    assert!(pair.engines[SERVER].want_datagram(server, SESSION));
    pair.engines[SERVER].end_session(pair.now, server, SESSION, GONE);
    pair.run_until("the waiters wake", |p| {
        p.seen(SERVER, |e| matches!(e, Event::Readable { .. }))
            && p.seen(SERVER, |e| matches!(e, Event::DatagramReadable { .. }))
    });
    assert_eq!(pair.read(SERVER, whole), b"complete");
    assert_eq!(pair.engines[SERVER].receive_state(server, open), ReceiveState::Stopped(GONE));
    pair.run_until("the peer's half is stopped", |p| {
        p.engines[CLIENT].send_state(client, open) == SendState::Stopped(GONE)
    });
    // A stream that comes after the end is reset without a word to Python.
    let late = pair.open(CLIENT, DATA_STREAM);
    pair.engines[CLIENT].write(client, late, b"late");
    pair.run_until("the late stream is refused", |p| {
        p.engines[CLIENT].send_state(client, late) == SendState::Stopped(GONE)
    });
    assert_eq!(pair.incoming(SERVER).len(), 2);
}

#[test]
fn session_credit_holds_the_writer_back_and_is_refilled_by_reading() {
    let mut pair = Pair::new(10, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let limits = SessionLimits {
        flow_control: true,
        send_limit: 1000,
        receive_window: 1000,
        send_streams: [1, 0],
        receive_streams: [1, 0],
        ..SessionLimits::default()
    };
    pair.engines[CLIENT].add_session(client, SESSION, limits);
    pair.engines[SERVER].add_session(server, SESSION, limits);
    let stream = pair.open(CLIENT, DATA_STREAM);
    assert_eq!(pair.engines[CLIENT].open_stream(pair.now, client, true, DATA_STREAM, Some(SESSION)), None);
    pair.engines[CLIENT].write(client, stream, &pattern(5000));
    pair.run_until("the credit is used up", |p| {
        p.seen(CLIENT, |e| matches!(e, Event::CreditBlocked { limit: 1000, .. }))
    });
    let mut received = 0;
    for _ in 0..10_000 {
        received += pair.read(SERVER, stream).len();
        let due = std::mem::take(&mut pair.events[SERVER]);
        for event in due {
            if let Event::CreditDue { limit, .. } = event {
                pair.engines[CLIENT].set_send_limit(client, SESSION, limit);
            }
        }
        if received == 5000 {
            break;
        }
        pair.step();
    }
    assert_eq!(received, 5000);
}

#[test]
fn a_silent_peer_ends_the_connection_in_bounded_time() {
    let mut pair = Pair::new(11, CLEAN, |_| ());
    pair.link.loss = 1.0;
    let stream = pair.open(CLIENT, DATA_STREAM);
    let id = pair.ids[CLIENT];
    pair.engines[CLIENT].write(id, stream, b"anybody there");
    assert!(pair.engines[CLIENT].want_read(id, stream));
    pair.run_until("the client gives up", |p| {
        p.seen(CLIENT, |e| matches!(e, Event::Closed { .. })) && p.seen(CLIENT, |e| matches!(e, Event::Readable { .. }))
    });
    assert_eq!(pair.engines[CLIENT].send_state(id, stream), SendState::Gone);
}

#[test]
fn other_streams_come_up_whole_with_their_type() {
    let mut pair = Pair::new(12, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let control = pair.engines[CLIENT].open_stream(pair.now, client, false, b"", None).unwrap();
    pair.engines[CLIENT].write(client, control, &[0x00, 0x04, 0x00]);
    pair.run_until("the raw stream arrives", |p| {
        p.seen(SERVER, |e| matches!(e, Event::RawReadable { stream, .. } if *stream == control))
    });
    assert_eq!(pair.read(SERVER, control), [0x00, 0x04, 0x00]);
    let _ = server;
}

#[test]
fn a_handle_kept_from_a_gone_connection_does_not_hurt_the_next_one() {
    let mut pair = Pair::new(13, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let stream = pair.open(CLIENT, DATA_STREAM);
    pair.engines[CLIENT].write(client, stream, b"x");
    pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
    pair.engines[CLIENT].close(pair.now, client, 0x100, b"");
    pair.run_until("the connection is gone", |p| {
        p.engines[SERVER].connection_count() == 0 && p.engines[CLIENT].connection_count() == 0
    });
    // The core reuses the number of the connection; a stream of the old one is still held.
    pair.events = [Vec::new(), Vec::new()];
    let trust = ClientTls::new(Trust::Insecure, None).unwrap();
    let address = pair.addresses[SERVER];
    pair.ids[CLIENT] = pair.engines[CLIENT].connect(pair.now, address, "localhost", &trust).unwrap();
    pair.run_until("the next one is connected", |p| {
        p.seen(CLIENT, |e| matches!(e, Event::Connected { .. }))
            && p.seen(SERVER, |e| matches!(e, Event::Connected { .. }))
    });
    pair.engines[SERVER].release(pair.now, server, stream, 0);
    let second = pair.ids[CLIENT];
    let data = pattern(10_000);
    let limits = SessionLimits::default();
    pair.engines[CLIENT].add_session(second, SESSION, limits);
    let stream = pair.open(CLIENT, DATA_STREAM);
    assert_eq!(pair.transfer(CLIENT, stream, &data), data);
}

#[test]
fn a_wait_does_not_begin_when_something_came_after_the_last_read() {
    let mut pair = Pair::new(14, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let stream = pair.open(CLIENT, DATA_STREAM);
    pair.engines[CLIENT].write(client, stream, b"first");
    pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
    pair.run_until("the first bytes are read", |p| p.read(SERVER, stream) == b"first");
    assert_eq!(pair.engines[SERVER].prepare_read(pair.now, server, stream, 10), ReadOutcome::Wait);
    // Another thread receives between the read that found nothing and the wait.
    pair.engines[CLIENT].write(client, stream, b"second");
    pair.run_for(Duration::from_millis(200));
    assert!(!pair.engines[SERVER].want_read(server, stream), "there is something to read");
    assert_eq!(pair.read(SERVER, stream), b"second");
    assert!(pair.engines[SERVER].want_read(server, stream));
}

#[test]
fn facts_outlive_a_connection_and_show_a_refused_certificate() {
    let mut pair = Pair::new(15, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let trusted = pair.engines[CLIENT].connection_facts(client).unwrap();
    assert_eq!((trusted.alpn.as_deref(), trusted.is_refused), (Some(&b"h3"[..]), false));
    assert_eq!(trusted.certificates.len(), 1);
    assert_eq!(pair.engines[SERVER].connection_facts(server).unwrap().certificates.len(), 0);
    pair.engines[SERVER].close(pair.now, server, 0x100, b"enough");
    pair.run_until("both ends are gone", |p| {
        p.engines[SERVER].connection_count() == 0 && p.engines[CLIENT].connection_count() == 0
    });
    assert_eq!(pair.engines[CLIENT].connection_facts(client), None);
    let end = |p: &Pair, side: usize| {
        p.events[side].iter().find_map(|event| match event {
            Event::Closed { facts, .. } => Some(facts.clone()),
            _ => None,
        })
    };
    assert!(end(&pair, CLIENT).unwrap().is_closed_by_peer);
    assert!(!end(&pair, SERVER).unwrap().is_closed_by_peer);
    assert_eq!(end(&pair, CLIENT).unwrap().certificates, trusted.certificates);

    pair.events = [Vec::new(), Vec::new()];
    let trust = ClientTls::new(Trust::Hashes(vec![[0; 32]]), None).unwrap();
    let address = pair.addresses[SERVER];
    pair.engines[CLIENT].connect(pair.now, address, "localhost", &trust).unwrap();
    pair.run_until("the certificate is refused", |p| end(p, CLIENT).is_some());
    let refused = end(&pair, CLIENT).unwrap();
    assert!(refused.is_refused && !refused.is_closed_by_peer);
    assert_eq!(refused.certificates, trusted.certificates);
}
