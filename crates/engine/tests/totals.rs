//! Totals of an engine stay when sessions and connections go.

use std::time::Duration;

use crate::support::{CLEAN, CLIENT, DATA_STREAM, Pair, SERVER, SESSION, Shortcuts as _, pattern};
use wtio_engine::{CloseCause, Ending, Totals, session::SessionLimits};

fn count(counts: [u64; Ending::ALL.len()], wanted: Ending) -> u64 {
    Ending::ALL.into_iter().zip(counts).find(|(ending, _)| *ending == wanted).map_or(0, |(_, count)| count)
}

/// What sessions have moved, and how many connections there were.
fn of_sessions(totals: Totals) -> (u64, u64, u64, [u64; 2], u64, u64) {
    let sessions = totals.sessions;
    let datagrams = sessions.datagrams;
    (
        totals.connected,
        sessions.bytes_sent,
        sessions.bytes_received,
        sessions.peer_opened,
        datagrams.received,
        datagrams.bytes_received,
    )
}

#[test]
fn totals_stay_when_sessions_end_and_connections_are_forgotten() {
    let mut pair = Pair::new(2, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    for side in [CLIENT, SERVER] {
        let limits = SessionLimits { datagram_buffer: 10_000, datagram_count: 100, ..SessionLimits::default() };
        pair.engines[side].add_session(pair.ids[side], SESSION, limits);
    }
    let stream = pair.engines[CLIENT].open_stream(pair.now, client, true, DATA_STREAM, Some(SESSION)).unwrap();
    let data = pattern(50_000);
    assert_eq!(pair.transfer(CLIENT, stream, &data), data);
    pair.engines[CLIENT].send_datagram(pair.now, client, SESSION, b"twelve bytes");
    pair.run_for(Duration::from_secs(1));
    let expected = (1, 0, 50_000, [1, 0], 1, 12);
    let before = pair.engines[SERVER].totals();
    assert_eq!(of_sessions(before), expected);
    assert!(before.bytes_received > 50_000);
    for side in [CLIENT, SERVER] {
        pair.engines[side].end_session(pair.now, pair.ids[side], SESSION, 0);
    }
    assert_eq!(of_sessions(pair.engines[SERVER].totals()), expected);
    pair.engines[CLIENT].close(pair.now, client, 0x100, b"");
    pair.run_for(Duration::from_secs(60));
    pair.engines[SERVER].release(pair.now, server, stream, 0);
    pair.run_for(Duration::from_secs(60));
    assert!(pair.engines[SERVER].connection(pair.now, server).is_none(), "the connection is forgotten");
    let after = pair.engines[SERVER].totals();
    assert_eq!(of_sessions(after), expected);
    assert!(after.bytes_received > before.bytes_received);
    assert_eq!(count(after.ended, Ending::Closed(CloseCause::Application)), 1);
    assert_eq!(after.ended.iter().sum::<u64>() + after.failed.iter().sum::<u64>(), 1);
    // An engine that has failed forgets everything but that.
    let kept = pair.engines[CLIENT].totals();
    pair.engines[CLIENT].abandon();
    assert_eq!(pair.engines[CLIENT].totals(), kept);
    assert_eq!(count(kept.ended, Ending::Closed(CloseCause::Local)), 1);
}
