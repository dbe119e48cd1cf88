//! What an engine sends to an address that did not prove to be its peer's: at most three times what came from there
//! (RFC 9000, section 8). A raw peer counts the bytes of both directions, datagram by datagram.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::support::{SESSION, Shortcuts as _, UNIDIRECTIONAL_STREAM, options, pattern};
use wtio_engine::{
    Engine, Event, Options,
    session::SessionLimits,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
};

const DAY: i64 = 86_400;

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 1000))
}

fn certificate(names: usize) -> ServerTls {
    let names: Vec<String> = (0..names).map(|number| format!("host-{number}.a.rather.long.name.example")).collect();
    let (certificate, key, _) = generate_certificate(&names, 1_700_000_000, 1_700_000_000 + 9000 * DAY).unwrap();
    ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap()
}

/// A server, and somebody who sends it whatever he likes from any address.
struct Stranger {
    server: Engine,
    now: Instant,
    /// Bytes from each address to the server, and back.
    bytes: HashMap<SocketAddr, [usize; 2]>,
    /// Addresses that have shown that they receive.
    validated: Vec<SocketAddr>,
    /// By how much the most was sent beyond three times what had come.
    excess: usize,
    segments: usize,
    /// What the server sent last.
    answers: Vec<(SocketAddr, Vec<u8>)>,
    events: Vec<Event>,
}

impl Stranger {
    fn new(change: impl Fn(&mut Options)) -> Self {
        Self::with_certificate(1, change)
    }

    fn with_certificate(names: usize, change: impl Fn(&mut Options)) -> Self {
        let mut settings = options(3);
        change(&mut settings);
        Self {
            server: Engine::new(settings, Some(&certificate(names))).unwrap(),
            now: Instant::now(),
            bytes: HashMap::new(),
            validated: Vec::new(),
            excess: 0,
            segments: 1,
            answers: Vec::new(),
            events: Vec::new(),
        }
    }

    fn send(&mut self, from: SocketAddr, data: &[u8]) {
        self.bytes.entry(from).or_default()[0] += data.len();
        self.server.receive(self.now, from, None, 0, data.into());
        self.pump();
    }

    fn pump(&mut self) {
        let Self { server, now, bytes, validated, excess, segments, answers, events } = self;
        server.process(*now, *segments, usize::MAX, |outgoing| {
            let to = outgoing.destination;
            for datagram in outgoing.contents.chunks(outgoing.segment_size.unwrap_or(outgoing.contents.len())) {
                let [sent, received] = bytes.entry(to).or_default();
                *received += datagram.len();
                if !validated.contains(&to) {
                    *excess = (*excess).max(received.saturating_sub(3 * *sent));
                }
                answers.push((to, datagram.to_vec()));
            }
            true
        });
        server.take_events(events);
    }

    /// Say nothing for this long.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.server.next_timer().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.pump();
        }
        self.now = end;
        self.pump();
    }

    /// Let a client exchange packets with the server until both have nothing to say.
    fn talk(&mut self, client: &mut Engine, from: SocketAddr) {
        for _ in 0..20 {
            for packet in packets(client, self.now) {
                if has_handshake(&packet) {
                    self.validated.push(from);
                }
                self.send(from, &packet);
            }
            self.now += Duration::from_millis(10);
            for (_, packet) in std::mem::take(&mut self.answers) {
                client.receive(self.now, address(99), None, 0, packet.as_slice().into());
            }
        }
    }

    fn received(&self, from: SocketAddr) -> usize {
        self.bytes.get(&from).map_or(0, |bytes| bytes[1])
    }
}

/// A client whose packets the stranger takes.
fn client(change: impl Fn(&mut Options), now: Instant) -> (Engine, u64) {
    let mut settings = options(9);
    change(&mut settings);
    let mut client = Engine::new(settings, None).unwrap();
    let trust = ClientTls::new(Trust::Insecure, None).unwrap();
    let id = client.connect(now, address(99), "localhost", &trust).unwrap();
    (client, id)
}

fn packets(client: &mut Engine, now: Instant) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    client.process(now, 1, usize::MAX, |outgoing| {
        packets.push(outgoing.contents.to_vec());
        true
    });
    packets
}

/// The whole hello of a client in one datagram, for which a server answers with all that it has.
fn initial(now: Instant) -> Vec<u8> {
    let mut client = Engine::new(options(9), None).unwrap();
    client.connect(now, address(99), "localhost", &ClientTls::with_a_small_hello().unwrap()).unwrap();
    let packets = packets(&mut client, now);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].len(), 1200);
    packets.into_iter().next().unwrap()
}

/// The same, with a token of this many bytes.
fn with_token(initial: &[u8], token: usize) -> Vec<u8> {
    // Flags, version, and the two connection ids; then the length of the token, which is none.
    let destination = usize::from(initial[5]);
    let source = usize::from(initial[6 + destination]);
    let place = 7 + destination + source;
    assert_eq!(initial[place], 0);
    let length = [0x40, u8::try_from(token).unwrap()];
    [&initial[..place], &length, &vec![7; token], &initial[place + 1..]].concat()
}

fn with_version(initial: &[u8], version: u32) -> Vec<u8> {
    [&initial[..1], &version.to_be_bytes(), &initial[5..]].concat()
}

/// Whether one of the packets in a datagram is of the handshake, for which its sender must have received something.
fn has_handshake(mut datagram: &[u8]) -> bool {
    // RFC 9000, section 17.2. Lengths are of two bytes, as the core writes them.
    while datagram.first().is_some_and(|first| first & 0x80 != 0) {
        let is_handshake = datagram[0] & 0x30 == 0x20;
        if is_handshake {
            return true;
        }
        let destination = usize::from(datagram[5]);
        let source = usize::from(datagram[6 + destination]);
        let token = 7 + destination + source;
        assert_eq!(datagram[token], 0);
        let length = usize::from(u16::from_be_bytes([datagram[token + 1], datagram[token + 2]]) & 0x3fff);
        datagram = &datagram[token + 3 + length..];
    }
    false
}

#[test]
fn a_client_that_falls_silent_is_sent_three_times_its_bytes() {
    for names in [1, 30, 200] {
        for mtu in [1200, 1350, 1452] {
            for segments in [1, 10] {
                for padding in [0, 1, 50, 51, 150, 252, 300] {
                    let change = |options: &mut Options| {
                        options.initial_mtu = mtu;
                        options.gso = segments > 1;
                    };
                    let mut stranger = Stranger::with_certificate(names, change);
                    stranger.segments = segments;
                    let mut datagram = initial(stranger.now);
                    datagram.resize(1200 + padding, 0);
                    stranger.send(address(1), &datagram);
                    stranger.wait(Duration::from_secs(100));
                    assert_eq!(stranger.excess, 0);
                    assert!(stranger.received(address(1)) > 600, "it answers");
                    assert_eq!(stranger.server.connection_count(), 0, "and gives up");
                }
            }
        }
    }
}

#[test]
fn a_client_that_answers_gets_a_chain_of_any_length() {
    for names in [1, 200] {
        for mtu in [1200, 1452, 9000] {
            let change = |options: &mut Options| (options.initial_mtu, options.max_mtu) = (mtu, mtu.max(1452));
            let mut stranger = Stranger::with_certificate(names, change);
            let (mut client, _) = client(change, stranger.now);
            stranger.talk(&mut client, address(1));
            assert!(stranger.events.iter().any(|e| matches!(e, Event::Connected { .. })), "{names} names, {mtu} bytes");
            assert!(stranger.excess == 0 || mtu > 3600, "{names} names, {mtu} bytes: {}", stranger.excess);
        }
    }
}

#[test]
fn answers_to_strangers_are_no_larger_than_what_they_sent() {
    let now = Instant::now();
    let initial = initial(now);
    let mut short = vec![0x40; 1200];
    short[1..9].copy_from_slice(&[1; 8]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an Initial that is too short", initial[..1199].to_vec()),
        ("a piece of an Initial", initial[..50].to_vec()),
        ("an unknown version", with_version(&initial, 0x0a0a_0a0a)),
        ("an unknown version, too short", with_version(&initial, 0x0a0a_0a0a)[..1199].to_vec()),
        ("version negotiation", with_version(&initial, 0)),
        ("a token that is not ours", with_token(&initial, 40)),
        ("a long token that is not ours", with_token(&initial, 255)),
        ("an Initial that was forged", [&initial[..1199], &[initial[1199] ^ 1]].concat()),
        ("an unknown connection", short.clone()),
        ("an unknown connection, short", short[..43].to_vec()),
        ("an unknown connection, shorter", short[..30].to_vec()),
        ("zeros", vec![0; 1200]),
        ("ones", vec![0xff; 1200]),
        ("one byte", vec![0x40]),
        ("nothing", vec![]),
    ];
    for (name, datagram) in cases {
        let mut stranger = Stranger::new(|_| ());
        for number in 0..100 {
            let from = address(number);
            stranger.send(from, &datagram);
            assert!(stranger.received(from) <= datagram.len(), "{name}: {} bytes", stranger.received(from));
            // Longer than any interval between resets.
            stranger.wait(Duration::from_secs(1));
        }
        assert_eq!(stranger.server.connection_count(), 0, "{name}");
    }
}

#[test]
fn a_refusal_is_smaller_than_what_is_refused() {
    for is_full in [true, false] {
        let mut stranger = Stranger::new(|options| options.max_connections = usize::from(is_full));
        if is_full {
            let now = stranger.now;
            let mut first = client(|options| options.seed = Some([77; 32]), now).0;
            stranger.send(address(200), &packets(&mut first, now)[0]);
            assert_eq!(stranger.server.connection_count(), 1);
        } else {
            stranger.server.refuse_new();
        }
        let datagram = initial(stranger.now);
        for number in 0..100 {
            stranger.send(address(number), &datagram);
            let received = stranger.received(address(number));
            assert!((20..200).contains(&received), "{received}");
        }
    }
}

#[test]
fn an_initial_that_is_replayed_brings_no_more_than_three_times_its_bytes() {
    let mut stranger = Stranger::new(|_| ());
    let datagram = [&initial(stranger.now)[..], &[0; 50]].concat();
    for round in 0..300 {
        // From one address over and over, from others while the connection stands, and after it has died.
        stranger.send(address(if round % 3 == 0 { 1 } else { round as u8 }), &datagram);
        assert_eq!(stranger.excess, 0, "round {round}");
        stranger.wait(Duration::from_millis(300));
        assert_eq!(stranger.excess, 0, "round {round}");
    }
    stranger.wait(Duration::from_secs(100));
    assert_eq!(stranger.excess, 0);
    assert_eq!(stranger.server.connection_count(), 0);
}

#[test]
fn a_connection_that_is_closed_before_its_client_answered_keeps_within_three_times() {
    for padding in [0, 51, 252] {
        let mut stranger = Stranger::new(|_| ());
        let mut datagram = initial(stranger.now);
        datagram.resize(1200 + padding, 0);
        stranger.send(address(1), &datagram);
        let Some(Event::Incoming { connection }) = stranger.events.first() else { panic!("a connection") };
        stranger.server.close(stranger.now, *connection, 0x100, b"the reason, in quite some words");
        stranger.pump();
        // What is addressed to a closed connection is answered with its end.
        let id = stranger.answers[0].1.clone();
        let (length, peer) = (usize::from(id[5]), usize::from(id[6 + usize::from(id[5])]));
        let own = &id[7 + length..7 + length + peer];
        for size in [21, 30, 60, 1200] {
            let mut packet = [&[0x40][..], own].concat();
            packet.resize(size, 0x77);
            for _ in 0..20 {
                stranger.send(address(1), &packet);
                stranger.send(address(2), &packet);
            }
        }
        stranger.wait(Duration::from_secs(100));
        assert_eq!(stranger.excess, 0, "padding {padding}");
    }
}

/// A client at `address(1)`: its connection, and the server's.
fn acquainted(mtu: u16) -> (Stranger, Engine, [u64; 2]) {
    let change = |options: &mut Options| options.max_mtu = mtu;
    let mut stranger = Stranger::new(change);
    let (mut client, id) = client(change, stranger.now);
    for _ in 0..3 {
        stranger.talk(&mut client, address(1));
    }
    let Some(Event::Incoming { connection }) = stranger.events.first().cloned() else { panic!("a connection") };
    client.add_session(id, SESSION, SessionLimits::default());
    stranger.server.add_session(connection, SESSION, SessionLimits::default());
    (stranger, client, [id, connection])
}

/// The same, and the server has a lot to share with it.
fn at_home(mtu: u16) -> (Stranger, Engine, u64) {
    let (mut stranger, client, [id, connection]) = acquainted(mtu);
    stranger.write(connection, 200_000);
    stranger.answers.clear();
    (stranger, client, id)
}

impl Stranger {
    /// Write this much to a stream of its own.
    fn write(&mut self, connection: u64, size: usize) {
        let stream = self.server.open_stream(self.now, connection, false, UNIDIRECTIONAL_STREAM, Some(SESSION));
        self.server.write(connection, stream.unwrap(), &pattern(size));
    }

    /// Send a packet of the client's with this much in it from somewhere.
    fn send_from(&mut self, client: &mut Engine, id: u64, size: usize, from: SocketAddr) {
        assert_eq!(client.send_datagram(self.now, id, SESSION, &pattern(size)), 0);
        for packet in packets(client, self.now) {
            self.send(from, &packet);
        }
    }
}

/// What may go to an address beyond three times what came, when a client seems to move there: RFC 9000, section 8.2.1,
/// wants a PATH_CHALLENGE in 1200 bytes unless that is too much, and the core always pads it. Without that a client could
/// not go on behind a NAT that gave it another port. It is one datagram, and once a second for each connection, wherever it
/// seems to move.
const CHALLENGE: usize = 1200;

#[test]
fn an_address_to_which_a_client_seems_to_move_gets_one_datagram_beyond_three_times() {
    for mtu in [1200, 1452] {
        for port_only in [false, true] {
            let (mut stranger, mut client, id) = at_home(mtu);
            for number in 2..8 {
                let elsewhere =
                    if port_only { SocketAddr::from(([10, 0, 0, 1], number)) } else { address(number as u8) };
                for size in [1, 400, 1100] {
                    stranger.send_from(&mut client, id, size, elsewhere);
                }
                // Until the server has given up on the address.
                stranger.wait(Duration::from_secs(4));
                let [sent, received] = stranger.bytes[&elsewhere];
                assert!(received >= 1200, "it is asked whether it is there");
                assert!(received <= 3 * sent + CHALLENGE, "{received} bytes for {sent}");
            }
            assert!(stranger.excess <= CHALLENGE);
        }
    }
}

#[test]
fn a_client_that_seems_to_move_everywhere_has_one_datagram_a_second_sent_beyond_three_times() {
    let (mut stranger, mut client, id) = at_home(1452);
    let home = stranger.received(address(1));
    let (mut sent, mut received) = (0, 0);
    for number in 0..100 {
        let elsewhere = SocketAddr::from(([10, 0, 1, number], 1000));
        stranger.send_from(&mut client, id, 1, elsewhere);
        stranger.wait(Duration::from_millis(49));
        sent += stranger.bytes[&elsewhere][0];
        received += stranger.received(elsewhere);
    }
    assert!(received <= 3 * sent + 5 * CHALLENGE, "{received} bytes for {sent}");
    assert!(stranger.received(address(1)) - home < 20_000, "home gets no more than what is lost there");
}

#[test]
fn a_client_goes_on_from_another_address_with_its_smallest_packet() {
    for elsewhere in [address(2), SocketAddr::from(([10, 0, 0, 1], 4000))] {
        let (mut stranger, mut client, id) = at_home(1452);
        let before = stranger.received(elsewhere);
        client.send_datagram(stranger.now, id, SESSION, b"x");
        for _ in 0..20 {
            stranger.talk(&mut client, elsewhere);
        }
        assert!(stranger.received(elsewhere) - before > 200_000, "all of it arrives there");
    }
}

#[test]
fn a_client_is_found_at_another_address_although_the_path_there_takes_smaller_packets() {
    let elsewhere = SocketAddr::from(([10, 0, 0, 1], 4000));
    let (mut stranger, mut client, id) = at_home(1452);
    assert!(stranger.bytes[&address(1)][1] > 0);
    client.send_datagram(stranger.now, id, SESSION, b"x");
    for _ in 0..400 {
        for packet in packets(&mut client, stranger.now) {
            stranger.send(elsewhere, &packet);
        }
        stranger.wait(Duration::from_millis(10));
        for (to, packet) in std::mem::take(&mut stranger.answers) {
            if to == elsewhere && packet.len() <= 1232 {
                client.receive(stranger.now, address(99), None, 0, packet.as_slice().into());
            }
        }
    }
    assert!(stranger.received(elsewhere) > 50_000, "{} bytes", stranger.received(elsewhere));
}

#[test]
fn what_went_to_an_address_that_is_given_up_is_sent_again_to_the_one_before() {
    let (mut stranger, mut client, [id, connection]) = acquainted(1452);
    stranger.talk(&mut client, address(1));
    for _ in 0..10 {
        stranger.send_from(&mut client, id, 1000, address(2));
    }
    stranger.write(connection, 100);
    // It is not there, and for longer than the server waits for it nothing arrives where it is.
    stranger.wait(Duration::from_secs(4));
    stranger.answers.clear();
    let mut events = Vec::new();
    for _ in 0..1000 {
        stranger.wait(Duration::from_millis(10));
        for (to, packet) in std::mem::take(&mut stranger.answers) {
            assert_eq!(to, address(1));
            client.receive(stranger.now, address(99), None, 0, packet.as_slice().into());
            for packet in packets(&mut client, stranger.now) {
                stranger.send(address(1), &packet);
            }
        }
        client.take_events(&mut events);
    }
    assert!(events.iter().any(|event| matches!(event, Event::Stream { .. })), "{events:?}");
}

#[test]
fn a_client_that_moves_on_and_on_with_its_smallest_packets_is_answered_each_time_within_three_times() {
    for mtu in [1200, 1452] {
        let (mut stranger, mut client, [id, connection]) = acquainted(mtu);
        for number in 2..30 {
            let elsewhere = SocketAddr::from(([10, 0, 0, 1], number));
            // What it is asked there is lost, several times before the server goes back.
            for _ in 0..3 {
                let before = stranger.received(elsewhere);
                stranger.send_from(&mut client, id, 1, elsewhere);
                stranger.wait(Duration::from_millis(30));
                assert!(stranger.received(elsewhere) > before, "it is asked with each of its packets");
            }
            assert_eq!(stranger.excess, 0, "{mtu} bytes, port {number}");
            stranger.answers.clear();
            client.send_datagram(stranger.now, id, SESSION, b"x");
            stranger.talk(&mut client, elsewhere);
            assert_eq!(stranger.excess, 0, "{mtu} bytes, port {number}");
            stranger.validated.push(elsewhere);
            let before = stranger.received(elsewhere);
            stranger.write(connection, 20_000);
            for _ in 0..20 {
                stranger.wait(Duration::from_millis(30));
                stranger.talk(&mut client, elsewhere);
            }
            assert!(stranger.received(elsewhere) - before > 20_000, "it has been found there");
        }
    }
}

#[test]
fn what_the_core_is_told_has_come_is_not_in_the_counts() {
    let (mut stranger, mut client, [id, connection]) = acquainted(1452);
    let before = stranger.server.connection_stats(connection).unwrap();
    let mut sent = 0;
    for _ in 0..10 {
        client.send_datagram(stranger.now, id, SESSION, b"x");
        for packet in packets(&mut client, stranger.now) {
            sent += packet.len() as u64;
            stranger.send(address(2), &packet);
        }
    }
    let after = stranger.server.connection_stats(connection).unwrap();
    assert_eq!(after.packets_received - before.packets_received, 10);
    assert_eq!(after.bytes_received - before.bytes_received, sent);
}
