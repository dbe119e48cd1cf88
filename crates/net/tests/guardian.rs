//! Two endpoints on loopback, one of which nobody drives.

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use wtio_engine::{
    Engine, Event,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
};
use wtio_net::{Endpoint, Io};

const DATA_STREAM: &[u8] = &[0x40, 0x41, 0x00];
/// Everything here takes milliseconds; this is for machines that are busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

struct Side {
    endpoint: Arc<Endpoint>,
    events: Vec<Event>,
}

impl Side {
    fn new(server: Option<&ServerTls>, io: Io) -> Self {
        let endpoint = Endpoint::new(Engine::new(common::options(), server).unwrap(), io).unwrap();
        endpoint.bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        Self { endpoint, events: Vec::new() }
    }

    fn drive(&mut self) {
        self.endpoint.drive(true, None, &mut self.events).unwrap();
    }

    fn seen(&self, test: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(test)
    }
}

/// Connect, then leave the server alone while the client sends; the client's bytes must be acknowledged all the same.
fn server_left_alone(io: Io) -> (Side, u64) {
    let (certificate, key, _) = generate_certificate(&["localhost".into()], 1_700_000_000, 2_500_000_000).unwrap();
    let tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
    let mut server = Side::new(Some(&tls), io);
    let mut client = Side::new(None, Io::Loop);
    let address = server.endpoint.local_address().unwrap();
    let trust = ClientTls::new(Trust::Insecure, None).unwrap();
    let (connection, _) = client.endpoint.act(None, |engine, now| engine.connect(now, address, "localhost", &trust));
    let connection = connection.unwrap();
    let start = Instant::now();
    while !client.seen(|e| matches!(e, Event::Connected { .. })) {
        client.drive();
        server.drive();
        assert!(start.elapsed() < PATIENCE, "no handshake");
    }
    let (stream, _) = client.endpoint.act(None, |engine, now| {
        let mut connection = engine.connection(now, connection).unwrap();
        let stream = connection.open_stream(true, DATA_STREAM, Some(0)).unwrap();
        let mut half = connection.sending(stream).unwrap();
        half.write(&[7; 100_000]);
        assert!(half.want_acked());
        stream
    });
    let _ = stream;
    let start = Instant::now();
    while !client.seen(|e| matches!(e, Event::Acked { .. })) {
        client.drive();
        assert!(start.elapsed() < PATIENCE, "nobody acknowledged for the server");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The events are kept for the loop that comes back.
    server.drive();
    assert!(server.seen(|e| matches!(e, Event::Stream { .. })));
    let late = server.endpoint.late();
    (server, late)
}

#[test]
fn the_guardian_acknowledges_for_a_late_loop_and_counts_it() {
    let (_server, late) = server_left_alone(Io::Loop);
    assert!(late >= 1);
}

#[test]
fn the_io_thread_receives_without_a_loop() {
    let (_server, late) = server_left_alone(Io::Thread);
    assert_eq!(late, 0);
}

#[test]
fn a_late_loop_among_many_endpoints_is_stood_in_for() {
    let idle: Vec<_> = (0..200).map(|_| Side::new(None, Io::Loop)).collect();
    let (_server, late) = server_left_alone(Io::Loop);
    assert!(late >= 1);
    assert_eq!(idle.iter().map(|side| side.endpoint.late()).sum::<u64>(), 0);
}

#[test]
fn a_guardian_that_met_a_panic_goes_on_with_the_others() {
    let failed = Side::new(None, Io::Loop);
    failed.endpoint.sabotage();
    let start = Instant::now();
    while failed.endpoint.late() == 0 {
        assert!(start.elapsed() < PATIENCE, "the guardian does not look");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (_server, late) = server_left_alone(Io::Loop);
    assert!(late >= 1);
    let panicked = failed.endpoint.drive(false, None, &mut Vec::new()).unwrap_err();
    assert!(panicked.0.contains("sabotage"), "{panicked:?}");
}
