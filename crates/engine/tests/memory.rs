//! The memory budget of a server: what is charged, how windows grow, who finds no room, and when it is said to be short.

use std::{sync::Arc, time::Duration};

use crate::support::{
    self, CLEAN, CLIENT, DATA_STREAM, GONE, Pair, ROUGH, SERVER, Shortcuts as _, UNIDIRECTIONAL_STREAM, pattern,
};
use wtio_engine::{
    CloseCause, Event, Holding, Memory,
    tls::{ClientTls, Trust},
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// A connection with its first window, and with a session.
const ALONE: u64 = 80 * KIB;
const WITH_SESSION: u64 = 96 * KIB;

/// A connected pair of which the server has a budget of `most` bytes, and windows of at most 4 MiB.
fn pair(link: support::Link, most: u64) -> (Pair, Arc<Memory>) {
    let memory = Memory::new(most);
    let budget = memory.clone();
    let mut pair = Pair::unconnected(1, link, move |options| {
        options.memory = Some(budget.clone());
        options.stream_receive_window = MIB;
        options.max_connections = 10_000;
        options.idle_timeout = Duration::ZERO;
    });
    pair.connect();
    pair.run_for(Duration::from_secs(1));
    (pair, memory)
}

/// Write as much as is taken to a new stream of `side`.
fn fill(pair: &mut Pair, side: usize, id: u64, header: &[u8], bytes: usize) -> u64 {
    let now = pair.now;
    let stream = pair.engines[side].open_stream(now, id, true, header, None).unwrap();
    let data = pattern(bytes);
    let mut written = pair.engines[side].write(id, stream, &data).unwrap();
    for _ in 0..2000 {
        pair.run_for(Duration::from_millis(5));
        written += pair.engines[side].write(id, stream, &data[written..]).unwrap_or(0);
    }
    stream
}

#[test]
fn an_idle_connection_is_charged_for_itself_its_session_and_its_first_window() {
    let (mut pair, memory) = pair(CLEAN, 64 * MIB);
    assert_eq!(memory.used(), WITH_SESSION);
    assert_eq!(pair.engines[SERVER].holding(), Holding { held: 48 * KIB, promised: 48 * KIB });
    let (id, now) = (pair.ids[SERVER], pair.now);
    pair.engines[SERVER].close(now, id, 0, b"");
    pair.run_for(Duration::from_millis(1));
    assert_eq!(memory.used(), 0, "a connection that is closing does not count");
}

#[test]
fn a_window_grows_with_what_is_read_also_over_a_rough_network() {
    let (mut pair, memory) = pair(ROUGH, 64 * MIB);
    let stream = pair.open(CLIENT, DATA_STREAM);
    let data = pattern(3_000_000);
    assert_eq!(pair.transfer(CLIENT, stream, &data), data);
    pair.run_for(Duration::from_secs(1));
    let Holding { held, promised } = pair.engines[SERVER].holding();
    assert!((192 * KIB..=4 * MIB).contains(&promised), "{promised}");
    assert_eq!(held, 48 * KIB, "all was read");
    assert_eq!(memory.used(), held + promised);
}

#[test]
fn a_slow_reader_keeps_a_small_window() {
    let (mut pair, _) = pair(CLEAN, 64 * MIB);
    let stream = pair.open(CLIENT, DATA_STREAM);
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    for _ in 0..400 {
        assert_eq!(pair.engines[CLIENT].write(client, stream, &[0; 1000]), Some(1000));
        pair.run_for(Duration::from_millis(20));
        pair.read(SERVER, stream);
    }
    assert!(pair.engines[SERVER].stream_stats(pair.now, server, stream).unwrap().read >= 390_000);
    assert_eq!(pair.engines[SERVER].holding().promised, 48 * KIB);
}

#[test]
fn a_stream_that_nobody_reads_does_not_stop_the_others_while_memory_is_free() {
    let (mut pair, memory) = pair(CLEAN, 1024 * MIB);
    let client = pair.ids[CLIENT];
    fill(&mut pair, CLIENT, client, DATA_STREAM, 2 * MIB as usize);
    let Holding { held, promised } = pair.engines[SERVER].holding();
    assert!(held >= MIB, "{held}: as much as one stream may bring");
    assert!(promised > 0, "and others may go on");
    assert!(memory.used() <= 4 * MIB + WITH_SESSION);
    let stream = pair.open(CLIENT, UNIDIRECTIONAL_STREAM);
    let data = pattern(300_000);
    assert_eq!(pair.transfer(CLIENT, stream, &data), data);
}

#[test]
fn connections_that_nobody_reads_stay_within_the_budget_and_further_ones_are_refused() {
    let (mut pair, memory) = pair(CLEAN, 3 * MIB);
    let tls = ClientTls::new(Trust::Insecure, None).unwrap();
    let mut ids = vec![pair.ids[CLIENT]];
    for _ in 1..10 {
        let (now, to) = (pair.now, pair.addresses[SERVER]);
        ids.push(pair.engines[CLIENT].connect(now, to, "localhost", &tls).unwrap());
        pair.run_for(Duration::from_millis(200));
    }
    for id in &ids {
        fill(&mut pair, CLIENT, *id, DATA_STREAM, MIB as usize);
        assert!(memory.used() <= memory.most());
    }
    assert_eq!(memory.refused(), 0);
    assert!(pair.engines[SERVER].holding().held >= 10 * 70 * KIB, "{:?}", pair.engines[SERVER].holding());
    let mut last = 0;
    for _ in 0..40 {
        let (now, to) = (pair.now, pair.addresses[SERVER]);
        last = pair.engines[CLIENT].connect(now, to, "localhost", &tls).unwrap();
        pair.run_for(Duration::from_millis(200));
    }
    let for_newcomers = memory.most() - memory.most() / 16;
    assert!(memory.used() <= for_newcomers && memory.used() > for_newcomers - 2 * ALONE);
    assert!(memory.refused() > 0);
    let is_refused = |event: &Event| matches!(event, Event::Closed { connection, cause: CloseCause::Refused, .. } if *connection == last);
    assert!(pair.seen(CLIENT, is_refused));
    assert!(!pair.seen(SERVER, |event| matches!(event, Event::MemoryShort)));
}

#[test]
fn what_waits_to_be_sent_is_charged_until_it_is_acknowledged() {
    let (mut pair, memory) = pair(CLEAN, 64 * MIB);
    let server = pair.ids[SERVER];
    let stream = pair.open(SERVER, UNIDIRECTIONAL_STREAM);
    let data = pattern(200_000);
    assert_eq!(pair.engines[SERVER].write(server, stream, &data), Some(200_000));
    pair.run_for(Duration::from_millis(1));
    assert!(memory.used() >= WITH_SESSION + 200_000);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(memory.used(), WITH_SESSION);
    // And a stream that is reset takes with it what was not acknowledged.
    assert_eq!(pair.engines[SERVER].write(server, stream, &data), Some(200_000));
    pair.run_for(Duration::from_millis(1));
    let now = pair.now;
    pair.engines[SERVER].reset(now, server, stream, 7);
    pair.engines[SERVER].release(now, server, stream, GONE);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(memory.used(), WITH_SESSION);
}

#[test]
fn received_datagrams_are_charged_until_they_are_taken() {
    let (mut pair, memory) = pair(CLEAN, 64 * MIB);
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    for _ in 0..100 {
        let now = pair.now;
        assert_eq!(pair.engines[CLIENT].send_datagram(now, client, support::SESSION, &[0; 1000]), 0);
        pair.run_for(Duration::from_millis(10));
    }
    pair.run_for(Duration::from_millis(100));
    assert!(memory.used() >= WITH_SESSION + 100_000);
    while pair.engines[SERVER].receive_datagram(server, support::SESSION).is_some() {}
    let now = pair.now;
    pair.engines[CLIENT].send_datagram(now, client, support::SESSION, &[0; 10]);
    pair.run_for(Duration::from_millis(100));
    assert!(memory.used() <= WITH_SESSION + 4 * KIB);
}

#[test]
fn above_the_budget_the_largest_holder_is_named_and_frees_what_it_holds_when_it_is_closed() {
    let (mut pair, memory) = pair(CLEAN, MIB);
    let server = pair.ids[SERVER];
    let now = pair.now;
    // What the application itself lets grow: bytes for a client that is not there any more.
    pair.link.loss = 1.0;
    for _ in 0..6 {
        let stream = pair.engines[SERVER].open_stream(now, server, true, DATA_STREAM, None).unwrap();
        pair.engines[SERVER].write(server, stream, &pattern(256 * 1024));
    }
    pair.run_for(Duration::from_millis(50));
    assert!(memory.is_short());
    assert!(pair.seen(SERVER, |event| matches!(event, Event::MemoryShort)));
    let (id, held) = pair.engines[SERVER].largest_holder().unwrap();
    assert_eq!(id, server);
    assert!(held > MIB, "{held}");
    let now = pair.now;
    pair.engines[SERVER].close(now, id, 0x107, b"");
    pair.engines[SERVER].connection(now, id).unwrap().drop_received();
    assert_eq!(memory.used(), 0);
    assert_eq!(pair.engines[SERVER].largest_holder(), None);
}

#[test]
fn what_a_lost_connection_brought_is_charged_until_it_is_read_or_dropped() {
    let (mut pair, memory) = pair(CLEAN, 64 * MIB);
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    fill(&mut pair, CLIENT, client, DATA_STREAM, 40_000);
    let now = pair.now;
    pair.engines[CLIENT].close(now, client, 0, b"");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(memory.used(), 40 * KIB, "in steps of 4 KiB");
    let now = pair.now;
    pair.engines[SERVER].connection(now, server).unwrap().drop_received();
    assert_eq!(memory.used(), 0);
}
