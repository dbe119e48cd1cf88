//! What `make gate` counts instructions of: two engines on the simulated network, in steady state.
//!
//! `instructions WORKLOAD` runs one; `instructions --list` says on one line each what there is and how many operations
//! it does, and on the first what the counts depend on. The first connection and the warm-up are made outside of
//! `collected`, the only function that callgrind is told to collect in.

#![allow(clippy::print_stdout, reason = "its output is read by benchmarks/gate.py")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{hint::black_box, time::Duration};

use support::{CLIENT, DATA_STREAM, Link, Pair, SERVER, SESSION, Shortcuts as _, pattern};
use wtio_engine::{
    Event, ReceiveState,
    tls::{ClientTls, Trust},
};

const SMALL: &[u8] = &[0xa5; 64];
const BULK_CHUNK: usize = 64 * 1024;
const BURST: usize = 64;
const WARM_UP: usize = 100;

const LINK: Link =
    Link { latency: Duration::from_millis(1), jitter: Duration::ZERO, loss: 0.0, duplicate: 0.0, replay: 0.0 };

struct Workload {
    name: &'static str,
    operations: usize,
    warm_up: usize,
    run: fn(&mut Pair, u64, usize),
}

const WORKLOADS: [Workload; 5] = [
    Workload { name: "echo", operations: 2000, warm_up: WARM_UP, run: echo },
    Workload { name: "requests", operations: 1000, warm_up: WARM_UP, run: requests },
    Workload { name: "bulk", operations: 128, warm_up: 32, run: bulk },
    Workload { name: "datagrams", operations: 200 * BURST, warm_up: 10 * BURST, run: datagrams },
    Workload { name: "handshake", operations: 40, warm_up: 4, run: handshake },
];

fn main() {
    let argument = std::env::args().skip(1).find(|argument| argument != "--bench").unwrap_or_default();
    if argument == "--list" {
        println!("{}", surroundings());
        for workload in WORKLOADS {
            println!("{} {}", workload.name, workload.operations);
        }
        return;
    }
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == argument) else {
        println!("usage: instructions --list | WORKLOAD");
        std::process::exit(2);
    };
    let mut pair = Pair::new(1, LINK, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    send(&mut pair, CLIENT, stream, SMALL);
    pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
    receive(&mut pair, SERVER, stream, SMALL.len());
    (workload.run)(&mut pair, stream, workload.warm_up);
    collected(workload, &mut pair, stream);
}

/// The name that callgrind looks for. What follows the call keeps it from becoming a jump out of this function.
#[inline(never)]
fn collected(workload: &Workload, pair: &mut Pair, stream: u64) {
    (workload.run)(pair, stream, workload.operations);
    black_box(pair);
}

/// The processor as it looks from here: libraries choose their code by it, and valgrind shows one of its own.
fn surroundings() -> String {
    let mut features = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! ask {
            ($($name:tt),*) => { $(if std::is_x86_feature_detected!($name) { features.push($name); })* };
        }
        ask!("aes", "pclmulqdq", "sha", "ssse3", "avx", "avx2", "bmi2", "adx", "vaes", "vpclmulqdq", "avx512f");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! ask {
            ($($name:tt),*) => { $(if std::arch::is_aarch64_feature_detected!($name) { features.push($name); })* };
        }
        ask!("aes", "pmull", "sha2");
    }
    features.join(" ")
}

fn send(pair: &mut Pair, side: usize, stream: u64, data: &[u8]) {
    let id = pair.ids[side];
    assert_eq!(pair.engines[side].write(id, stream, data), Some(data.len()), "there is room");
}

fn receive(pair: &mut Pair, side: usize, stream: u64, length: usize) {
    let mut received = 0;
    loop {
        received += pair.read(side, stream).len();
        if received >= length {
            break;
        }
        assert!(pair.step(), "silent after {received} of {length} bytes");
    }
    assert_eq!(received, length);
    forget_events(pair);
}

fn forget_events(pair: &mut Pair) {
    for events in &mut pair.events {
        events.clear();
    }
}

/// 64 bytes there and back on an open stream, one after the other.
fn echo(pair: &mut Pair, stream: u64, operations: usize) {
    for _ in 0..operations {
        send(pair, CLIENT, stream, SMALL);
        receive(pair, SERVER, stream, SMALL.len());
        send(pair, SERVER, stream, SMALL);
        receive(pair, CLIENT, stream, SMALL.len());
    }
}

/// A new stream with 64 bytes and an end each way, one after the other.
fn requests(pair: &mut Pair, _stream: u64, operations: usize) {
    let [client, server] = pair.ids;
    for _ in 0..operations {
        let stream = loop {
            let open = pair.engines[CLIENT].open_stream(pair.now, client, true, DATA_STREAM, Some(SESSION));
            if let Some(stream) = open {
                break stream;
            }
            assert!(pair.step(), "silent without credit for a stream");
        };
        send(pair, CLIENT, stream, SMALL);
        assert!(pair.engines[CLIENT].finish(client, stream));
        pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
        for (side, id) in [(SERVER, server), (CLIENT, client)] {
            receive(pair, side, stream, SMALL.len());
            pair.run_until("the end arrives", |p| {
                p.read(side, stream);
                p.engines[side].receive_state(id, stream) == ReceiveState::Ended
            });
            if side == SERVER {
                send(pair, SERVER, stream, SMALL);
                assert!(pair.engines[SERVER].finish(server, stream));
            }
        }
        pair.engines[SERVER].release(pair.now, server, stream, 0);
        pair.engines[CLIENT].release(pair.now, client, stream, 0);
        forget_events(pair);
    }
}

/// Chunks of 64 KiB one way on one stream, as fast as the windows let them through.
fn bulk(pair: &mut Pair, stream: u64, operations: usize) {
    let id = pair.ids[CLIENT];
    let chunk = pattern(BULK_CHUNK);
    let total = operations * BULK_CHUNK;
    let (mut sent, mut received) = (0, 0);
    while received < total {
        if sent < total {
            let from = sent % BULK_CHUNK;
            sent += pair.engines[CLIENT].write(id, stream, &chunk[from..]).expect("open");
        }
        received += pair.read(SERVER, stream).len();
        forget_events(pair);
        assert!(pair.step(), "silent after {received} of {total} bytes");
    }
}

/// Datagrams of 64 bytes one way, in bursts, each burst received before the next leaves.
fn datagrams(pair: &mut Pair, _stream: u64, operations: usize) {
    let [client, server] = pair.ids;
    for _ in 0..operations / BURST {
        for _ in 0..BURST {
            let mut connection = pair.engines[CLIENT].connection(pair.now, client).expect("it is there");
            assert_eq!(connection.datagrams(SESSION).send(SMALL), 0);
        }
        let mut received = 0;
        while received < BURST {
            assert!(pair.step(), "silent after {received} of {BURST} datagrams");
            let mut connection = pair.engines[SERVER].connection(pair.now, server).expect("it is there");
            while let Some(data) = connection.datagrams(SESSION).receive() {
                assert_eq!(data.len(), SMALL.len());
                received += 1;
            }
        }
        forget_events(pair);
    }
}

/// A connection of its own from the ClientHello to the last trace of it, one after the other. TLS does not resume.
fn handshake(pair: &mut Pair, _stream: u64, operations: usize) {
    let first = pair.ids;
    for _ in 0..operations {
        // A client remembers the tickets of servers in its configuration.
        let tls = ClientTls::new(Trust::Insecure, None).expect("usable");
        let client = pair.engines[CLIENT].connect(pair.now, pair.addresses[SERVER], "localhost", &tls).expect("room");
        pair.run_until("both are connected", |p| {
            [CLIENT, SERVER].iter().all(|&side| p.seen(side, |e| matches!(e, Event::Connected { .. })))
        });
        pair.engines[CLIENT].close(pair.now, client, 0, b"");
        pair.run_until("both have forgotten it", |p| p.engines.iter().all(|engine| engine.connection_count() == 1));
        forget_events(pair);
    }
    pair.ids = first;
}
