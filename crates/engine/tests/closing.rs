//! The end of a connection that has more to send: CONNECTION_CLOSE waits for nothing (RFC 9000, section 10.2).

use std::time::Duration;

use crate::support::{CLEAN, CLIENT, Link, Pair, SERVER, Shortcuts as _, UNIDIRECTIONAL_STREAM, pattern};
use wtio_engine::{CloseCause, Event};

const CODE: u64 = 0x100;

/// Let the server close after `time` of bulk, and return what the client has learned one way of the link later.
fn closed_after(time: Duration, link: Link, congestion: &str) -> Vec<Event> {
    let mut pair = Pair::new(5, link, |options| options.congestion = congestion.into());
    let stream = pair.open(SERVER, UNIDIRECTIONAL_STREAM);
    let id = pair.ids[SERVER];
    let data = pattern(256 * 1024);
    let end = pair.now + time;
    loop {
        let _ = pair.engines[SERVER].write(id, stream, &data);
        if pair.now >= end {
            break;
        }
        pair.run_for(Duration::from_millis(1));
        if pair.incoming(CLIENT).contains(&stream) {
            pair.read(CLIENT, stream);
        }
    }
    // Let what may leave do so, so that the window is full.
    pair.run_for(Duration::from_micros(1));
    pair.engines[SERVER].close(pair.now, id, CODE, b"over");
    pair.run_for(link.latency + Duration::from_micros(100));
    let events = std::mem::take(&mut pair.events[CLIENT]);
    events.into_iter().filter(|event| matches!(event, Event::Closed { .. })).collect()
}

#[test]
fn a_close_leaves_at_once_however_much_is_under_way() {
    for congestion in ["tolerant", "cubic", "newreno", "bbr"] {
        for step in 0..30 {
            let time = Duration::from_millis(7) * step;
            let ends = closed_after(time, CLEAN, congestion);
            assert!(
                matches!(&ends[..], [Event::Closed { cause: CloseCause::Application, code: CODE, .. }]),
                "{congestion} after {time:?}: {ends:?}"
            );
        }
    }
}
