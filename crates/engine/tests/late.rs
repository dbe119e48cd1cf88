//! What a peer can pile up at an engine whose events nobody takes.

use std::time::{Duration, Instant};

use crate::support::{CLEAN, CLIENT, DATA_STREAM, Pair, SERVER, Shortcuts as _, options};
use wtio_engine::{
    Engine, Event,
    session::SessionLimits,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
};

/// Far more than an iteration of the loop brings, and far less than what is sent here.
const FEW: usize = 4096;

/// Let both sides speak for a while; the events of the server stay where they are.
fn run_late(pair: &mut Pair) {
    for _ in 0..20 {
        pair.now += Duration::from_millis(10);
        for side in [CLIENT, SERVER, CLIENT] {
            let mut out = Vec::new();
            pair.engines[side].process(pair.now, 1, usize::MAX, |outgoing| {
                out.push(outgoing.contents.to_vec());
                true
            });
            for data in out {
                let from = pair.addresses[side];
                pair.engines[1 - side].receive(pair.now, from, None, 0, data.as_slice().into());
            }
        }
    }
}

fn events_of(pair: &mut Pair) -> Vec<Event> {
    let mut events = Vec::new();
    pair.engines[SERVER].take_events(&mut events);
    events
}

#[test]
fn datagrams_for_sessions_that_nobody_knows_leave_one_event() {
    let mut pair = Pair::new(1, CLEAN, |_| ());
    let id = pair.ids[CLIENT];
    let sessions: Vec<u64> = (1..=100).map(|number| number * 4).collect();
    for &session in &sessions {
        pair.engines[CLIENT].add_session(id, session, SessionLimits::default());
    }
    let mut sent = 0;
    for _ in 0..200 {
        for &session in &sessions {
            assert_eq!(pair.engines[CLIENT].send_datagram(pair.now, id, session, b""), 0);
            sent += 1;
        }
        run_late(&mut pair);
    }
    let events = events_of(&mut pair);
    assert!(events.len() < FEW, "{} events for {sent} datagrams", events.len());
    assert!(events.iter().any(|e| matches!(e, Event::DatagramId { session: 400, .. })), "the largest ID is reported");
}

#[test]
fn stream_credit_that_is_due_is_one_event_however_many_streams_were_over() {
    let mut pair = Pair::new(2, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    // A limit of two is due again with every stream; a client that does not care goes on.
    let limits = SessionLimits { flow_control: true, receive_streams: [2, 0], ..SessionLimits::default() };
    pair.engines[SERVER].add_session(server, 4, limits);
    pair.engines[CLIENT].add_session(client, 4, SessionLimits::default());
    let header = [DATA_STREAM[0], DATA_STREAM[1], 4];
    let mut due = 0;
    for _ in 0..2000 {
        let Some(stream) = pair.engines[CLIENT].open_stream(pair.now, client, true, &header, Some(4)) else { break };
        pair.engines[CLIENT].finish(client, stream);
        pair.engines[CLIENT].stop(pair.now, client, stream, 0);
        run_late(&mut pair);
        // The server's program still works on its streams.
        pair.engines[SERVER].prepare_all(pair.now, server, stream, None);
        pair.engines[SERVER].release(pair.now, server, stream, 0);
        due += 1;
    }
    run_late(&mut pair);
    assert!(due > 1000, "{due}");
    let events = events_of(&mut pair);
    let count = events.iter().filter(|e| matches!(e, Event::StreamsDue { .. })).count();
    assert!(count < 1024, "{count} events of stream credit after {due} streams");
}

#[test]
fn connections_that_come_and_go_unseen_are_turned_away_once_there_are_as_many_as_may_be() {
    let (certificate, key, _) = generate_certificate(&["localhost".into()], 1_700_000_000, 2_500_000_000).unwrap();
    let tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
    let mut server = Engine::new(options(3), Some(&tls)).unwrap();
    let trust = ClientTls::new(Trust::Insecure, None).unwrap();
    let address = "10.0.0.2:443".parse().unwrap();
    let mut now = Instant::now();
    for seed in 0..50 {
        let mut client = Engine::new(options(100 + seed), None).unwrap();
        let id = client.connect(now, address, "localhost", &trust).unwrap();
        let from = format!("10.0.0.1:{}", 1000 + u16::from(seed)).parse().unwrap();
        for round in 0..12 {
            if round == 4 {
                client.close(now, id, 0, b"");
            }
            now += Duration::from_millis(100);
            let mut out = Vec::new();
            client.process(now, 1, usize::MAX, |o| {
                out.push(o.contents.to_vec());
                true
            });
            for data in out.drain(..) {
                server.receive(now, from, None, 0, data.as_slice().into());
            }
            server.process(now, 1, usize::MAX, |o| {
                out.push(o.contents.to_vec());
                true
            });
            for data in out {
                client.receive(now, address, None, 0, data.as_slice().into());
            }
        }
        now += Duration::from_secs(5);
        server.process(now, 1, usize::MAX, |_| true);
    }
    assert!(server.connection_count() <= 1, "they are gone");
    let mut events = Vec::new();
    server.take_events(&mut events);
    let incoming = events.iter().filter(|e| matches!(e, Event::Incoming { .. })).count();
    assert_eq!(incoming, options(3).max_connections);
    assert!(events.len() <= 4 * incoming, "{events:?}");
}
