//! A server that was killed and started again, and the clients of the one before: with the same secret it tells them that
//! their connections are gone (RFC 9000, section 10.3).

use std::time::Duration;

use crate::support::{CLEAN, CLIENT, Pair, SERVER, SESSION, Shortcuts as _, options};
use wtio_engine::{
    CloseCause, Engine, Event, Secret,
    tls::{ServerTls, generate_certificate},
};

fn server(secret: Option<&[u8]>, connections: usize) -> Engine {
    let (certificate, key, _) =
        generate_certificate(&["localhost".into()], 1_700_000_000, 1_700_000_000 + 9000 * 86_400).unwrap();
    let mut settings = options(77);
    settings.secret = secret.map(Secret::new);
    settings.max_connections = connections;
    Engine::new(settings, Some(&ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap())).unwrap()
}

fn pair() -> Pair {
    Pair::new(3, CLEAN, |options| options.secret = Some(Secret::new(b"the secret of both")))
}

/// A packet of the client's.
fn packet(pair: &mut Pair, size: usize) -> Vec<u8> {
    let mut sent = Vec::new();
    pair.engines[CLIENT].send_datagram(pair.now, pair.ids[CLIENT], SESSION, &vec![1; size]);
    pair.engines[CLIENT].process(pair.now, 1, usize::MAX, |outgoing| {
        sent = outgoing.contents.to_vec();
        true
    });
    sent
}

/// What a server sends when it gets a packet from somewhere.
fn answers(server: &mut Engine, pair: &Pair, from: usize, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    server.receive(pair.now, pair.addresses[from], None, 0, packet.into());
    server.process(pair.now, 1, usize::MAX, |outgoing| {
        sent.push(outgoing.contents.to_vec());
        true
    });
    sent
}

#[test]
fn a_client_learns_with_its_next_packet_that_a_server_with_the_same_secret_was_restarted() {
    let mut pair = pair();
    pair.engines[SERVER] = server(Some(b"the secret of both"), 10);
    let id = pair.ids[CLIENT];
    pair.engines[CLIENT].send_datagram(pair.now, id, SESSION, b"x");
    pair.run_for(Duration::from_millis(50));
    let ends = pair.ends();
    assert!(matches!(ends[..], [Event::Closed { cause: CloseCause::Reset, .. }]), "{ends:?}");
}

#[test]
fn a_server_with_another_secret_or_none_says_nothing() {
    for secret in [Some(&b"another secret"[..]), None] {
        let mut pair = pair();
        let mut server = server(secret, 10);
        for size in [1, 1000] {
            let packet = packet(&mut pair, size);
            assert!(answers(&mut server, &pair, CLIENT, &packet).is_empty());
        }
    }
}

#[test]
fn a_reset_is_smaller_than_what_it_answers_and_is_not_answered() {
    let mut pair = pair();
    // Two with the same secret, each of which takes the other for a client that it has forgotten.
    let mut servers = [0, 1].map(|_| server(Some(b"the secret of both"), 1000));
    let full = packet(&mut pair, 1100);
    for size in 1..=full.len() {
        let packet = &full[..size];
        let mut found = answers(&mut servers[0], &pair, CLIENT, packet);
        assert_eq!(found.len(), usize::from(size >= 22), "{size} bytes");
        let Some(reset) = found.pop() else { continue };
        assert!(reset.len() < size, "{} bytes for {size}", reset.len());
        assert!(answers(&mut servers[1], &pair, SERVER, &reset).is_empty());
        pair.now += Duration::from_millis(1);
    }
}

#[test]
fn even_resets_that_are_taken_for_packets_end() {
    let mut pair = pair();
    let mut server = server(Some(b"the secret of both"), 1000);
    let mut packet = packet(&mut pair, 1100);
    let id = packet[1..9].to_vec();
    let mut rounds = 0;
    while let Some(mut reset) = answers(&mut server, &pair, SERVER, &packet).pop() {
        // As if chance had made it one of the server's.
        reset[1..9].copy_from_slice(&id);
        packet = reset;
        rounds += 1;
        assert!(rounds < 1200);
    }
    assert!(rounds > 0 && packet.len() <= 22, "{rounds} rounds");
}

#[test]
fn resets_are_as_many_as_there_may_be_connections_and_then_one_each_millisecond() {
    let mut pair = pair();
    let mut server = server(Some(b"the secret of both"), 40);
    let packet = packet(&mut pair, 100);
    let mut flood = |pair: &Pair| (0..5000).map(|_| answers(&mut server, pair, CLIENT, &packet).len()).sum::<usize>();
    assert_eq!(flood(&pair), 40);
    pair.now += Duration::from_millis(7);
    assert_eq!(flood(&pair), 7);
    pair.now += Duration::from_secs(60);
    assert_eq!(flood(&pair), 40);
}
