//! Servers that share a secret and an address: each has a prefix of its own in its connection IDs, and somebody else may answer
//! for one that is gone.

use std::time::Duration;

use crate::support::{CLEAN, CLIENT, Pair, SERVER, SESSION, Shortcuts as _, options};
use wtio_engine::{
    CloseCause, Engine, Event, Options, Secret,
    tls::{ServerTls, generate_certificate},
};

const PREFIX: &[u8] = b"place 1";

fn at(prefix: &[u8], options: &mut Options) {
    options.secret = Some(Secret::new(b"the secret of all"));
    options.id_prefix = prefix.to_vec();
    options.id_length = 19;
}

/// The client has the same options: nothing is wrong with that.
fn pair() -> Pair {
    Pair::new(3, CLEAN, |options| at(PREFIX, options))
}

/// Somebody who accepts no connections.
fn stand_in(prefix: &[u8], most: usize) -> Engine {
    let mut settings = options(77);
    at(prefix, &mut settings);
    settings.max_connections = most;
    settings.memory = None;
    Engine::new(settings, None).unwrap()
}

fn server(prefix: &[u8]) -> Engine {
    let mut settings = options(78);
    at(prefix, &mut settings);
    let (certificate, key, _) = generate_certificate(&["localhost".into()], 1_700_000_000, 2_500_000_000).unwrap();
    Engine::new(settings, Some(&ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap())).unwrap()
}

/// What an engine makes, or what it answers to a packet from the client.
fn sent(engine: &mut Engine, pair: &Pair, packet: Option<&[u8]>) -> Vec<Vec<u8>> {
    if let Some(packet) = packet {
        engine.receive(pair.now, pair.addresses[CLIENT], None, 0, packet.into());
    }
    let mut sent = Vec::new();
    engine.process(pair.now, 1, usize::MAX, |outgoing| {
        sent.push(outgoing.contents.to_vec());
        true
    });
    sent
}

fn packet(pair: &mut Pair) -> Vec<u8> {
    pair.engines[CLIENT].send_datagram(pair.now, pair.ids[CLIENT], SESSION, &[1; 100]);
    let engine = &mut pair.engines[CLIENT];
    let mut packets = Vec::new();
    engine.process(pair.now, 1, usize::MAX, |outgoing| {
        packets.push(outgoing.contents.to_vec());
        true
    });
    packets.pop().unwrap()
}

#[test]
fn packets_show_where_they_belong() {
    let mut pair = pair();
    assert_eq!(&packet(&mut pair)[1..1 + PREFIX.len()], PREFIX);
}

#[test]
fn a_client_learns_from_whoever_stands_in_that_its_server_is_gone() {
    let mut pair = pair();
    pair.engines[SERVER] = stand_in(PREFIX, 10);
    pair.engines[CLIENT].send_datagram(pair.now, pair.ids[CLIENT], SESSION, b"x");
    pair.run_for(Duration::from_millis(50));
    let ends = pair.ends();
    assert!(matches!(ends[..], [Event::Closed { cause: CloseCause::Reset, .. }]), "{ends:?}");
}

#[test]
fn nobody_answers_a_packet_that_belongs_elsewhere() {
    let mut pair = pair();
    let packet = packet(&mut pair);
    for other in [&b"place 2"[..], b"place 10", b"place", b""] {
        assert!(sent(&mut server(other), &pair, Some(&packet)).is_empty());
        assert!(sent(&mut stand_in(other, 10), &pair, Some(&packet)).is_empty());
    }
    assert_eq!(sent(&mut server(PREFIX), &pair, Some(&packet)).len(), 1);
}

#[test]
fn a_stand_in_answers_no_newcomer_and_only_so_many_others() {
    let mut unconnected = Pair::unconnected(3, CLEAN, |options| at(PREFIX, options));
    let first = sent(&mut unconnected.engines[CLIENT], &Pair::unconnected(4, CLEAN, |_| {}), None).pop().unwrap();
    let mut pair = pair();
    let mut stand_in = stand_in(PREFIX, 40);
    assert!(first.len() >= 1200 && sent(&mut stand_in, &pair, Some(&first)).is_empty());
    let packet = packet(&mut pair);
    let mut flood = |pair: &Pair| (0..500).map(|_| sent(&mut stand_in, pair, Some(&packet)).len()).sum::<usize>();
    assert_eq!(flood(&pair), 40);
    pair.now += Duration::from_millis(7);
    assert_eq!(flood(&pair), 7);
}
