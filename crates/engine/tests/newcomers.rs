//! What an engine lets strangers begin: floods from forged and from true addresses, and clients that want in meanwhile.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::support::options;
use wtio_engine::{
    CloseCause, Engine, Event, NewcomerFigures, NewcomerLimits, Options,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
};

const LIMITS: NewcomerLimits = NewcomerLimits {
    half_open: 100,
    unvalidated: 20,
    retry_from: 700,
    connections_per_address: None,
    handshakes_per_address: None,
    handshake_timeout: Duration::from_secs(10),
};
const FLOOD: usize = 20_000;
const TRIP: Duration = Duration::from_millis(20);

fn home() -> SocketAddr {
    SocketAddr::from(([10, 9, 9, 9], 443))
}

/// Another address for each number.
fn address(number: usize) -> SocketAddr {
    let [_, a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
    SocketAddr::from(([11, a, b, c], 1000))
}

fn is_retry(datagram: &[u8]) -> bool {
    // RFC 9000, section 17.2.5.
    datagram[0] & 0xf0 == 0xf0
}

struct Server {
    engine: Engine,
    now: Instant,
    events: Vec<Event>,
    /// Bytes from each address to the server, and back.
    bytes: HashMap<SocketAddr, [usize; 2]>,
    /// Addresses that got a Retry, and those of them that sent again.
    retried: HashSet<SocketAddr>,
    shown: HashSet<SocketAddr>,
}

impl Server {
    fn new(limits: NewcomerLimits, change: impl Fn(&mut Options)) -> Self {
        let mut options = options(3);
        options.max_connections = 1000;
        change(&mut options);
        let (certificate, key, _) = generate_certificate(&["localhost".into()], 1_700_000_000, 2_500_000_000).unwrap();
        let tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        let mut engine = Engine::new(options, Some(&tls)).unwrap();
        engine.limit_newcomers(limits);
        Self {
            engine,
            now: Instant::now(),
            events: Vec::new(),
            bytes: HashMap::new(),
            retried: HashSet::new(),
            shown: HashSet::new(),
        }
    }

    fn figures(&self) -> NewcomerFigures {
        self.engine.newcomers()
    }

    /// Take a datagram from somewhere, and return the answers to there.
    fn send(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.engine.receive(self.now, from, None, 0, datagram.into());
        self.bytes.entry(from).or_default()[0] += datagram.len();
        if self.retried.contains(&from) {
            self.shown.insert(from);
        }
        let mut answers = Vec::new();
        for (to, data) in self.process() {
            if to == from {
                answers.push(data);
            }
        }
        if answers.iter().any(|answer| is_retry(answer)) {
            self.retried.insert(from);
        }
        answers
    }

    fn process(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        self.engine.process(self.now, 1, usize::MAX, |outgoing| {
            out.push((outgoing.destination, outgoing.contents.to_vec()));
            true
        });
        for (to, data) in &out {
            self.bytes.entry(*to).or_default()[1] += data.len();
        }
        self.engine.take_events(&mut self.events);
        out
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_timer().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.process();
        }
        self.now = end;
        self.process();
    }

    /// By how much an address got more than three times its bytes, at the most. Those that were shown by a token have no
    /// limit (RFC 9000, section 8.1).
    fn excess(&self) -> usize {
        let others = self.bytes.iter().filter(|(address, _)| !self.shown.contains(address));
        others.map(|(_, [sent, received])| received.saturating_sub(3 * sent)).max().unwrap_or(0)
    }
}

/// A client at an address of its own.
struct Client {
    engine: Engine,
    id: u64,
    at: SocketAddr,
    events: Vec<Event>,
}

impl Client {
    fn new(at: SocketAddr, now: Instant) -> Self {
        let engine = Engine::new(Options { seed: None, ..options(0) }, None).unwrap();
        let mut client = Self { engine, id: 0, at, events: Vec::new() };
        client.connect(now);
        client
    }

    /// Begin a connection, maybe another one.
    fn connect(&mut self, now: Instant) {
        let trust = ClientTls::new(Trust::Insecure, None).unwrap();
        self.id = self.engine.connect(now, home(), "localhost", &trust).unwrap();
        self.events.clear();
    }

    fn packets(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        self.engine.process(now, 1, usize::MAX, |outgoing| {
            packets.push(outgoing.contents.to_vec());
            true
        });
        self.engine.take_events(&mut self.events);
        packets
    }

    /// Send what there is to send and take the answers, for so many round trips.
    fn talk(&mut self, server: &mut Server, trips: usize) {
        for _ in 0..trips {
            let mut answers = Vec::new();
            for packet in self.packets(server.now) {
                answers.append(&mut server.send(self.at, &packet));
            }
            server.now += TRIP;
            for answer in answers {
                self.engine.receive(server.now, home(), None, 0, answer.as_slice().into());
            }
            self.engine.take_events(&mut self.events);
        }
    }

    fn is_connected(&self) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Connected { .. }))
    }

    /// Why the connection is over.
    fn cause(&self) -> Option<CloseCause> {
        self.events.iter().find_map(|e| match e {
            Event::Closed { cause, .. } => Some(*cause),
            _ => None,
        })
    }

    /// Show the address if that is asked for, and say no more: the connection stays half open.
    fn begin(at: SocketAddr, server: &mut Server) -> Vec<Vec<u8>> {
        let mut client = Self::new(at, server.now);
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.clear();
            for packet in client.packets(server.now) {
                answers.append(&mut server.send(at, &packet));
            }
            if !answers.first().is_some_and(|answer| is_retry(answer)) {
                break;
            }
            for answer in &answers {
                client.engine.receive(server.now, home(), None, 0, answer.as_slice().into());
            }
        }
        answers
    }
}

fn connected(at: SocketAddr, server: &mut Server) -> Client {
    let mut client = Client::new(at, server.now);
    client.talk(server, 4);
    client
}

#[test]
fn a_flood_from_forged_addresses_keeps_nobody_out_and_leaves_little_behind() {
    let mut server = Server::new(LIMITS, |_| ());
    let mut initial = Vec::new();
    for number in 0..FLOOD {
        if number <= LIMITS.unvalidated {
            // What begins a connection is known by its ID; what is answered with Retry is forgotten.
            initial = Client::new(address(number), server.now).packets(server.now).remove(0);
        }
        let answers = server.send(address(number), &initial);
        assert_eq!(is_retry(&answers[0]), number >= LIMITS.unvalidated, "{number}");
    }
    let figures = server.figures();
    assert_eq!((figures.half_open, figures.addresses), (LIMITS.unvalidated, LIMITS.unvalidated));
    assert_eq!(figures.retried as usize, FLOOD - LIMITS.unvalidated);
    assert_eq!(server.engine.connection_count(), LIMITS.unvalidated);
    for number in 0..50 {
        assert!(connected(address(FLOOD + number), &mut server).is_connected());
    }
    assert_eq!(server.figures().open, 50);
    assert_eq!(server.excess(), 0);
}

#[test]
fn a_flood_from_one_address_that_is_shown_keeps_nobody_else_out() {
    let mut server = Server::new(LIMITS, |_| ());
    let flooder = |port: usize| SocketAddr::from(([10, 0, 0, 1], port as u16));
    for port in 1..=3 * LIMITS.half_open {
        Client::begin(flooder(port), &mut server);
    }
    let figures = server.figures();
    assert_eq!(figures.half_open, LIMITS.half_open);
    assert_eq!(figures.refused_address as usize, 2 * LIMITS.half_open);
    for number in 0..60 {
        assert!(connected(address(number), &mut server).is_connected(), "{number}");
        Client::begin(flooder(number + 1), &mut server);
    }
    assert!(server.figures().displaced >= 59);
    assert_eq!(server.excess(), 0);
}

#[test]
fn handshakes_that_their_clients_give_up_are_soon_forgotten() {
    let mut server = Server::new(LIMITS, |_| ());
    for number in 0..2000 {
        let mut client = Client::new(address(number), server.now);
        for _ in 0..2 {
            for packet in client.packets(server.now) {
                server.send(address(number), &packet);
            }
            client.engine.connection(server.now, client.id).unwrap().close(0, b"");
        }
        assert_eq!(server.figures().half_open, 0);
    }
    assert_eq!(server.figures().accepted, 2000);
    assert!(server.engine.connection_count() <= 257, "{}", server.engine.connection_count());
    server.wait(Duration::from_secs(60));
    assert_eq!(server.engine.connection_count(), 0);
    assert_eq!(server.figures().half_open, 0);
    assert_eq!(server.excess(), 0);
    assert!(connected(address(1), &mut server).is_connected());
}

#[test]
fn a_handshake_that_takes_too_long_ends_before_the_idle_timeout() {
    let mut server = Server::new(LIMITS, |_| ());
    let mut client = Client::new(address(1), server.now);
    let initial = client.packets(server.now).remove(0);
    assert!(!server.send(address(1), &initial).is_empty());
    server.wait(Duration::from_millis(9_900));
    assert_eq!(server.figures().half_open, 1);
    server.wait(Duration::from_millis(200));
    let figures = server.figures();
    assert_eq!((figures.half_open, figures.handshake_timeouts, figures.addresses), (0, 1, 0));
    let closed = server.events.iter().find_map(|e| match e {
        Event::Closed { cause, reason, .. } => Some((*cause, reason.as_str())),
        _ => None,
    });
    assert_eq!(closed, Some((CloseCause::Local, "the handshake took too long")));
    assert_eq!(server.excess(), 0);
    server.wait(Duration::from_secs(10));
    assert_eq!(server.engine.connection_count(), 0);
    // A complete handshake has no such end.
    let mut client = connected(address(2), &mut server);
    server.wait(Duration::from_secs(15));
    client.talk(&mut server, 2);
    assert_eq!(client.cause(), None);
    assert_eq!(server.figures().open, 1);
}

#[test]
fn everybody_is_asked_for_his_address_if_that_is_wanted() {
    for limits in [NewcomerLimits { retry_from: 0, ..LIMITS }, NewcomerLimits { unvalidated: 0, ..LIMITS }] {
        let mut server = Server::new(limits, |_| ());
        assert!(connected(address(1), &mut server).is_connected());
        let figures = server.figures();
        assert_eq!((figures.retried, figures.accepted, figures.validated), (1, 1, 1));
        assert_eq!(server.excess(), 0);
    }
}

#[test]
fn a_client_that_comes_back_is_not_asked_for_its_address_again() {
    let mut server = Server::new(NewcomerLimits { retry_from: 0, ..LIMITS }, |_| ());
    let mut client = connected(address(1), &mut server);
    client.talk(&mut server, 2);
    for round in 1..4 {
        client.connect(server.now);
        client.talk(&mut server, 5);
        assert!(client.is_connected());
        assert_eq!(server.figures().validated, 1 + round);
        assert_eq!(server.figures().retried, 1, "round {round}");
    }
    // From elsewhere its token says nothing.
    client.at = address(2);
    client.connect(server.now);
    client.talk(&mut server, 5);
    assert!(client.is_connected());
    assert_eq!(server.figures().retried, 2);
}

#[test]
fn a_token_that_was_used_says_nothing() {
    let mut server = Server::new(NewcomerLimits { retry_from: 0, ..LIMITS }, |_| ());
    let mut client = connected(address(1), &mut server);
    client.talk(&mut server, 2);
    client.connect(server.now);
    let initial = client.packets(server.now).into_iter().find(|packet| packet.len() >= 1200).unwrap();
    assert!(!is_retry(&server.send(address(1), &initial)[0]));
    // The connection of that packet has to be over, or the packet belongs to it.
    server.wait(Duration::from_secs(60));
    assert_eq!(server.engine.connection_count(), 0);
    assert!(is_retry(&server.send(address(1), &initial)[0]));
}

#[test]
fn an_address_has_so_many_connections_and_those_that_are_over_do_not_count() {
    let limits = NewcomerLimits { connections_per_address: Some(4), ..LIMITS };
    let mut server = Server::new(limits, |options| options.max_connections = 8);
    for round in 0..5 {
        let mut clients: Vec<Client> = (0..4)
            .map(|number| connected(SocketAddr::from(([10, 0, 0, 1], 1 + 10 * round + number)), &mut server))
            .collect();
        assert!(clients.iter().all(Client::is_connected), "round {round}");
        let refused = connected(SocketAddr::from(([10, 0, 0, 1], 9 + 10 * round)), &mut server);
        assert_eq!(refused.cause(), Some(CloseCause::Refused));
        let other = connected(SocketAddr::from(([10, 0, 0, 2], 9)), &mut server);
        assert!(other.is_connected());
        clients.push(other);
        for mut client in clients {
            client.engine.connection(server.now, client.id).unwrap().close(0, b"");
            client.talk(&mut server, 1);
        }
        assert_eq!(server.figures().open, 0);
        assert!(server.engine.connection_count() > 0, "they wait for packets that come late");
    }
    assert_eq!(server.figures().refused_address, 5);
}

#[test]
fn of_many_handshakes_only_those_that_are_completed_are_told_of() {
    let mut server = Server::new(LIMITS, |_| ());
    for number in 0..60 {
        Client::begin(address(number), &mut server);
    }
    let count = |server: &Server, wanted: fn(&Event) -> bool| server.events.iter().filter(|e| wanted(e)).count();
    let told = count(&server, |e| matches!(e, Event::Incoming { .. }));
    assert_eq!(told, LIMITS.half_open / 4);
    assert_eq!(count(&server, |e| matches!(e, Event::Ready { .. })), told);
    assert!(connected(address(100), &mut server).is_connected());
    let last: Vec<&Event> = server.events[server.events.len() - 2..].iter().collect();
    assert!(matches!(last[..], [Event::Incoming { .. }, Event::Connected { .. }]), "{last:?}");
    server.wait(Duration::from_secs(60));
    assert_eq!(server.engine.connection_count(), 0);
    // Those that nobody was told of have no end for anybody.
    assert_eq!(count(&server, |e| matches!(e, Event::Closed { .. })), told + 1);
}

#[test]
fn a_thousand_clients_behind_one_address_get_in_at_once() {
    let limits = NewcomerLimits {
        half_open: 1000,
        unvalidated: 250,
        retry_from: 7500,
        connections_per_address: Some(4000),
        handshakes_per_address: Some(1000),
        handshake_timeout: Duration::from_secs(10),
    };
    let mut server = Server::new(limits, |options| options.max_connections = 10_000);
    let mut clients: Vec<Client> =
        (1..=1000).map(|port| Client::new(SocketAddr::from(([10, 0, 0, 1], port)), server.now)).collect();
    for _ in 0..5 {
        let now = server.now;
        for client in &mut clients {
            client.talk(&mut server, 1);
            server.now = now;
        }
        server.now += TRIP;
    }
    let connected = clients.iter().filter(|client| client.is_connected()).count();
    assert_eq!(connected, 1000, "{:?}", server.figures());
    assert_eq!(server.figures().open, 1000);
    assert_eq!(server.figures().retried, 750);
}
