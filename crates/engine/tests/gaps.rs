//! Bulk with large windows over paths that lose much: every packet that is lost leaves a gap in its stream, and the core
//! closes a connection with more than 1024 of them in one stream.

use std::time::Duration;

use crate::support::{CLEAN, CLIENT, Link, Pair, SERVER, Shortcuts as _, UNIDIRECTIONAL_STREAM, pattern};

/// The most that `Limits.stream_receive_window` takes.
const LARGEST_WINDOW: u64 = 16 << 20;

/// Move bytes with `bbr`, which keeps a window full whatever is lost, over 100 ms there and back.
fn bulk(seed: u8, window: u64, loss: f64, size: usize) {
    let mut pair = Pair::new(seed, CLEAN, |options| {
        options.congestion = "bbr".into();
        options.stream_receive_window = window;
        options.connection_receive_window = 4 * window;
        options.stream_send_buffer = window as usize;
        options.connection_send_buffer = 4 * window as usize;
    });
    pair.link = Link { latency: Duration::from_millis(50), loss, ..CLEAN };
    let stream = pair.open(CLIENT, UNIDIRECTIONAL_STREAM);
    let data = pattern(size);
    let id = pair.ids[CLIENT];
    let (mut sent, mut received) = (0, 0);
    while received < data.len() {
        sent += pair.engines[CLIENT].write(id, stream, &data[sent..]).expect("open");
        assert!(pair.step(), "silent after {received} bytes");
        assert!(pair.ends().is_empty(), "seed {seed}, {window}, {loss}, after {received} bytes: {:?}", pair.ends());
        if pair.incoming(SERVER).contains(&stream) {
            let more = pair.read(SERVER, stream);
            assert!(more == data[received..received + more.len()]);
            received += more.len();
        }
    }
}

#[test]
fn the_largest_window_carries_bulk_where_a_thirteenth_is_lost() {
    // On the average that makes 850 gaps. With a tenth there are 1060 at times, which two of twelve seeds met.
    for seed in 1..5 {
        bulk(seed, LARGEST_WINDOW, 0.05, 60 << 20);
        bulk(seed, LARGEST_WINDOW, 1.0 / 13.0, 60 << 20);
    }
}

#[test]
fn the_default_window_carries_bulk_where_a_third_is_lost() {
    bulk(1, 4 << 20, 0.33, 40 << 20);
}
