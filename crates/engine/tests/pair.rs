//! What two engines do with each other over a simulated network.

use std::time::Duration;

use crate::support::{
    CLEAN, CLIENT, DATA_STREAM, GONE, Pair, ROUGH, SERVER, SESSION, Shortcuts as _, UNIDIRECTIONAL_STREAM, pattern,
};
use wtio_engine::{
    CloseCause, Event, ReadOutcome, ReceiveState, SendState,
    session::SessionLimits,
    tls::{ClientTls, Trust},
};

#[test]
fn a_megabyte_arrives_whole_over_a_clean_link() {
    let mut pair = Pair::new(1, CLEAN, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    let data = pattern(1 << 20);
    assert_eq!(pair.transfer(CLIENT, stream, &data), data);
}

#[test]
fn a_lost_first_flight_of_either_side_costs_less_than_half_a_second() {
    for lost in [CLIENT, SERVER] {
        let mut pair = Pair::unconnected(1, CLEAN, |_| ());
        let began = pair.now;
        for side in [CLIENT, SERVER] {
            pair.link.loss = if side == lost { 1.0 } else { 0.0 };
            pair.step();
        }
        pair.link.loss = 0.0;
        pair.connect();
        let took = pair.now - began;
        assert!(took < Duration::from_millis(500), "{took:?} with the flight of side {lost} lost");
        assert!(took > Duration::from_millis(250), "{took:?}: nothing was lost");
    }
}

#[test]
fn data_arrives_whole_over_loss_reordering_and_duplication() {
    for seed in 0..12 {
        let mut pair = Pair::new(seed, ROUGH, |_| ());
        let data = pattern(200_000 + usize::from(seed) * 777);
        let stream = pair.open(SERVER, UNIDIRECTIONAL_STREAM);
        assert_eq!(pair.transfer(SERVER, stream, &data), data, "seed {seed}");
        let stream = pair.open(CLIENT, DATA_STREAM);
        assert_eq!(pair.transfer(CLIENT, stream, &data), data, "seed {seed}");
        assert_eq!(pair.transfer(SERVER, stream, &data[..5000]), &data[..5000], "seed {seed}");
    }
}

#[test]
fn reset_without_data_still_shows_the_peer_the_stream_and_the_code() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed, ROUGH, |_| ());
        let stream = pair.open(CLIENT, DATA_STREAM);
        let id = pair.ids[CLIENT];
        assert!(pair.engines[CLIENT].reset(pair.now, id, stream, 4242));
        assert!(!pair.engines[CLIENT].reset(pair.now, id, stream, 1), "a second reset is a no-op");
        pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
        pair.run_until("the reset arrives", |p| {
            p.read(SERVER, stream);
            let id = p.ids[SERVER];
            p.engines[SERVER].receive_state(id, stream) == ReceiveState::Reset(4242)
        });
    }
}

#[test]
fn stop_sending_ends_the_writer_with_the_code() {
    let mut pair = Pair::new(3, ROUGH, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    assert_eq!(pair.engines[CLIENT].write(client, stream, b"hello"), Some(5));
    pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
    assert!(pair.engines[SERVER].stop(pair.now, server, stream, 77));
    assert!(!pair.engines[SERVER].stop(pair.now, server, stream, 78), "a second stop is a no-op");
    pair.run_until("the writer learns of it", |p| {
        p.engines[CLIENT].send_state(client, stream) == SendState::Stopped(77)
    });
    assert_eq!(pair.engines[CLIENT].write(client, stream, b"more"), None);
}

#[test]
fn unacknowledged_bytes_fall_to_zero_and_the_waiter_wakes() {
    let mut pair = Pair::new(5, ROUGH, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    let id = pair.ids[CLIENT];
    pair.engines[CLIENT].write(id, stream, &pattern(50_000));
    assert_eq!(pair.engines[CLIENT].unacked(id, stream), 50_000);
    assert!(pair.engines[CLIENT].want_acked(id, stream));
    pair.run_until("everything is acknowledged", |p| p.seen(CLIENT, |e| matches!(e, Event::Acked { .. })));
    assert_eq!(pair.engines[CLIENT].unacked(id, stream), 0);
    assert!(!pair.engines[CLIENT].want_acked(id, stream), "nothing is outstanding");
}

#[test]
fn a_reader_that_pauses_bounds_the_writer() {
    let mut pair = Pair::new(6, CLEAN, |_| ());
    let stream = pair.open(CLIENT, DATA_STREAM);
    let id = pair.ids[CLIENT];
    let chunk = pattern(64 * 1024);
    let mut accepted = 0;
    for _ in 0..2000 {
        accepted += pair.engines[CLIENT].write(id, stream, &chunk).unwrap();
        if !pair.step() {
            break;
        }
    }
    // The peer's stream window plus our queue, and not a byte beyond.
    assert!(accepted <= 256 * 1024 + 256 * 1024 + 3, "{accepted}");
    assert!(accepted >= 256 * 1024, "{accepted}");
}

#[test]
fn all_the_streams_that_a_new_connection_allows_may_come_at_once_and_in_any_order() {
    for seed in 0..30 {
        let mut pair = Pair::new(seed, if seed < 10 { CLEAN } else { ROUGH }, |options| {
            options.max_bidirectional_streams = 60;
            options.max_unidirectional_streams = 6;
        });
        let id = pair.ids[CLIENT];
        // All at once, the last ones first on the wire, without an end, with data, reset, and with a request to stop.
        let mut opened = Vec::new();
        for (header, all) in [(DATA_STREAM, 60), (UNIDIRECTIONAL_STREAM, 6)] {
            for number in 0..all {
                let stream = pair.open(CLIENT, header);
                let size = if number % 7 == 0 { 3000 } else { number };
                assert_eq!(pair.engines[CLIENT].write(id, stream, &pattern(size)), Some(size));
                if number % 3 == 0 {
                    assert!(pair.engines[CLIENT].finish(id, stream));
                }
                if number % 11 == 10 && header == DATA_STREAM {
                    assert!(pair.engines[CLIENT].stop(pair.now, id, stream, 5));
                }
                opened.push((stream, size));
            }
            let more = pair.engines[CLIENT].open_stream(pair.now, id, header == DATA_STREAM, header, Some(SESSION));
            assert_eq!(more, None, "the limit that was announced holds");
        }
        let mut received: Vec<Vec<u8>> = vec![Vec::new(); opened.len()];
        let streams = opened.clone();
        for (place, (stream, size)) in streams.iter().enumerate() {
            for _ in 0..10_000 {
                if pair.incoming(SERVER).contains(stream) {
                    received[place].append(&mut pair.read(SERVER, *stream));
                    if received[place].len() == *size {
                        break;
                    }
                }
                assert!(pair.step(), "silent before stream {stream} with {size} bytes was whole");
            }
            assert_eq!(received[place], pattern(*size), "seed {seed}, stream {stream}");
        }
        assert!(pair.ends().is_empty(), "{:?}", pair.ends());
    }
}

#[test]
fn short_streams_leave_nothing_behind() {
    for how in ["end", "reset", "unread"] {
        let mut pair = Pair::new(7, CLEAN, |_| ());
        let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
        for _ in 0..1000 {
            let stream = loop {
                let open = pair.engines[CLIENT].open_stream(pair.now, client, true, DATA_STREAM, Some(SESSION));
                match open {
                    Some(stream) => break stream,
                    None => assert!(pair.step()),
                }
            };
            pair.engines[CLIENT].write(client, stream, b"0123456789");
            if how == "reset" {
                pair.engines[CLIENT].reset(pair.now, client, stream, 1);
            } else {
                pair.engines[CLIENT].finish(client, stream);
            }
            pair.run_until("the stream arrives", |p| p.incoming(SERVER).contains(&stream));
            pair.events[SERVER].clear();
            if how == "end" {
                pair.run_until("the end arrives", |p| {
                    p.read(SERVER, stream);
                    p.engines[SERVER].receive_state(server, stream) == ReceiveState::Ended
                });
                pair.engines[SERVER].finish(server, stream);
            }
            pair.engines[SERVER].release(pair.now, server, stream, 0);
            pair.engines[CLIENT].release(pair.now, client, stream, 0);
        }
        pair.run_for(Duration::from_secs(5));
        for side in [CLIENT, SERVER] {
            assert_eq!(pair.engines[side].stream_count(pair.ids[side]), 0, "{how}, side {side}");
        }
    }
}

#[test]
fn datagrams_arrive_and_early_ones_are_kept_within_bounds() {
    let mut pair = Pair::new(8, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    assert_eq!(pair.engines[CLIENT].send_datagram(pair.now, client, SESSION, b""), 0);
    assert_eq!(pair.engines[CLIENT].send_datagram(pair.now, client, SESSION, b"one"), 0);
    let limit = pair.engines[CLIENT].send_datagram(pair.now, client, SESSION, &[0; 5000]);
    assert!((1000..1500).contains(&limit), "{limit}");
    assert!(pair.engines[SERVER].want_datagram(server, SESSION));
    pair.run_until("a datagram arrives", |p| p.seen(SERVER, |e| matches!(e, Event::DatagramReadable { .. })));
    assert_eq!(pair.engines[SERVER].receive_datagram(server, SESSION).as_deref(), Some(&b""[..]));
    assert_eq!(pair.engines[SERVER].receive_datagram(server, SESSION).as_deref(), Some(&b"one"[..]));
    // Session 4 is registered late: the last four datagrams for it are kept.
    pair.engines[CLIENT].add_session(client, 4, SessionLimits::default());
    for number in 0..6u8 {
        pair.engines[CLIENT].send_datagram(pair.now, client, 4, &[number]);
    }
    pair.run_for(Duration::from_millis(100));
    assert!(pair.seen(SERVER, |e| matches!(e, Event::DatagramId { session: 4, .. })));
    let limits = SessionLimits { datagram_buffer: 1000, datagram_count: 100, ..SessionLimits::default() };
    pair.engines[SERVER].add_session(server, 4, limits);
    assert_eq!(pair.engines[SERVER].receive_datagram(server, 4).as_deref(), Some(&[2][..]));
}

#[test]
fn the_end_of_a_session_wakes_everybody_and_keeps_what_arrived_whole() {
    let mut pair = Pair::new(9, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let whole = pair.open(CLIENT, UNIDIRECTIONAL_STREAM);
    pair.engines[CLIENT].write(client, whole, b"complete");
    pair.engines[CLIENT].finish(client, whole);
    let open = pair.open(CLIENT, DATA_STREAM);
    pair.engines[CLIENT].write(client, open, b"part");
    pair.run_until("both arrive", |p| p.incoming(SERVER).len() == 2);
    assert_eq!(pair.read(SERVER, open), b"part");
    assert!(pair.engines[SERVER].want_read(server, open));
    assert!(pair.engines[SERVER].want_datagram(server, SESSION));
    pair.engines[SERVER].end_session(pair.now, server, SESSION, GONE);
    pair.run_until("the waiters wake", |p| {
        p.seen(SERVER, |e| matches!(e, Event::Readable { .. }))
            && p.seen(SERVER, |e| matches!(e, Event::DatagramReadable { .. }))
    });
    assert_eq!(pair.read(SERVER, whole), b"complete");
    assert_eq!(pair.engines[SERVER].receive_state(server, open), ReceiveState::Stopped(GONE));
    pair.run_until("the peer's half is stopped", |p| {
        p.engines[CLIENT].send_state(client, open) == SendState::Stopped(GONE)
    });
    // A stream that comes after the end is reset without a word to Python.
    let late = pair.open(CLIENT, DATA_STREAM);
    pair.engines[CLIENT].write(client, late, b"late");
    pair.run_until("the late stream is refused", |p| {
        p.engines[CLIENT].send_state(client, late) == SendState::Stopped(GONE)
    });
    assert_eq!(pair.incoming(SERVER).len(), 2);
}

#[test]
fn session_credit_holds_the_writer_back_and_is_refilled_by_reading() {
    let mut pair = Pair::new(10, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let limits = SessionLimits {
        flow_control: true,
        send_limit: 1000,
        receive_window: 1000,
        send_streams: [1, 0],
        receive_streams: [1, 0],
        ..SessionLimits::default()
    };
    pair.engines[CLIENT].add_session(client, SESSION, limits);
    pair.engines[SERVER].add_session(server, SESSION, limits);
    let stream = pair.open(CLIENT, DATA_STREAM);
    assert_eq!(pair.engines[CLIENT].open_stream(pair.now, client, true, DATA_STREAM, Some(SESSION)), None);
    pair.engines[CLIENT].write(client, stream, &pattern(5000));
    pair.run_until("the credit is used up", |p| {
        p.seen(CLIENT, |e| matches!(e, Event::CreditBlocked { limit: 1000, .. }))
    });
    let mut received = 0;
    for _ in 0..10_000 {
        received += pair.read(SERVER, stream).len();
        let due = std::mem::take(&mut pair.events[SERVER]);
        for event in due {
            if let Event::CreditDue { limit, .. } = event {
                pair.engines[CLIENT].set_send_limit(client, SESSION, limit);
            }
        }
        if received == 5000 {
            break;
        }
        pair.step();
    }
    assert_eq!(received, 5000);
}

#[test]
fn a_silent_peer_ends_the_connection_in_bounded_time() {
    let mut pair = Pair::new(11, CLEAN, |_| ());
    pair.link.loss = 1.0;
    let stream = pair.open(CLIENT, DATA_STREAM);
    let id = pair.ids[CLIENT];
    pair.engines[CLIENT].write(id, stream, b"anybody there");
    assert!(pair.engines[CLIENT].want_read(id, stream));
    pair.run_until("the client gives up", |p| {
        p.seen(CLIENT, |e| matches!(e, Event::Closed { .. })) && p.seen(CLIENT, |e| matches!(e, Event::Readable { .. }))
    });
    assert_eq!(pair.engines[CLIENT].send_state(id, stream), SendState::Gone);
}

#[test]
fn other_streams_come_up_whole_with_their_type() {
    let mut pair = Pair::new(12, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let control = pair.engines[CLIENT].open_stream(pair.now, client, false, b"", None).unwrap();
    pair.engines[CLIENT].write(client, control, &[0x00, 0x04, 0x00]);
    pair.run_until("the raw stream arrives", |p| {
        p.seen(SERVER, |e| matches!(e, Event::RawReadable { stream, .. } if *stream == control))
    });
    assert_eq!(pair.read(SERVER, control), [0x00, 0x04, 0x00]);
    let _ = server;
}

#[test]
fn a_handle_kept_from_a_gone_connection_does_not_hurt_the_next_one() {
    let mut pair = Pair::new(13, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let stream = pair.open(CLIENT, DATA_STREAM);
    pair.engines[CLIENT].write(client, stream, b"x");
    pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
    pair.engines[CLIENT].close(pair.now, client, 0x100, b"");
    pair.run_until("the connection is gone", |p| {
        p.engines[SERVER].connection_count() == 0 && p.engines[CLIENT].connection_count() == 0
    });
    // The core reuses the index of the connection; a stream of the old one is still held.
    pair.events = [Vec::new(), Vec::new()];
    let trust = ClientTls::new(Trust::Insecure, None).unwrap();
    let address = pair.addresses[SERVER];
    pair.ids[CLIENT] = pair.engines[CLIENT].connect(pair.now, address, "localhost", &trust).unwrap();
    pair.run_until("the next one is connected", |p| {
        p.seen(CLIENT, |e| matches!(e, Event::Connected { .. }))
            && p.seen(SERVER, |e| matches!(e, Event::Connected { .. }))
    });
    pair.engines[SERVER].release(pair.now, server, stream, 0);
    let second = pair.ids[CLIENT];
    let data = pattern(10_000);
    let limits = SessionLimits::default();
    pair.engines[CLIENT].add_session(second, SESSION, limits);
    let stream = pair.open(CLIENT, DATA_STREAM);
    assert_eq!(pair.transfer(CLIENT, stream, &data), data);
}

#[test]
fn a_wait_does_not_begin_when_something_came_after_the_last_read() {
    let mut pair = Pair::new(14, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let stream = pair.open(CLIENT, DATA_STREAM);
    pair.engines[CLIENT].write(client, stream, b"first");
    pair.run_until("the stream arrives", |p| p.incoming(SERVER) == [stream]);
    pair.run_until("the first bytes are read", |p| p.read(SERVER, stream) == b"first");
    assert_eq!(pair.engines[SERVER].prepare_read(pair.now, server, stream, 10), ReadOutcome::Wait);
    // Another thread receives between the read that found nothing and the wait.
    pair.engines[CLIENT].write(client, stream, b"second");
    pair.run_for(Duration::from_millis(200));
    assert!(!pair.engines[SERVER].want_read(server, stream), "there is something to read");
    assert_eq!(pair.read(SERVER, stream), b"second");
    assert!(pair.engines[SERVER].want_read(server, stream));
}

#[test]
fn facts_outlive_a_connection_and_show_a_refused_certificate() {
    let mut pair = Pair::new(15, CLEAN, |_| ());
    let (client, server) = (pair.ids[CLIENT], pair.ids[SERVER]);
    let trusted = pair.engines[CLIENT].connection_facts(client).unwrap();
    assert_eq!((trusted.alpn.as_deref(), trusted.is_refused), (Some(&b"h3"[..]), false));
    assert_eq!(trusted.certificates.len(), 1);
    assert_eq!(pair.engines[SERVER].connection_facts(server).unwrap().certificates.len(), 0);
    pair.engines[SERVER].close(pair.now, server, 0x100, b"enough");
    pair.run_until("both ends are gone", |p| {
        p.engines[SERVER].connection_count() == 0 && p.engines[CLIENT].connection_count() == 0
    });
    assert_eq!(pair.engines[CLIENT].connection_facts(client), None);
    let end = |p: &Pair, side: usize| {
        p.events[side].iter().find_map(|event| match event {
            Event::Closed { facts, .. } => Some(facts.clone()),
            _ => None,
        })
    };
    assert!(end(&pair, CLIENT).unwrap().is_closed_by_peer);
    assert!(!end(&pair, SERVER).unwrap().is_closed_by_peer);
    assert_eq!(end(&pair, CLIENT).unwrap().certificates, trusted.certificates);

    pair.events = [Vec::new(), Vec::new()];
    let trust = ClientTls::new(Trust::Hashes(vec![[0; 32]]), None).unwrap();
    let address = pair.addresses[SERVER];
    pair.engines[CLIENT].connect(pair.now, address, "localhost", &trust).unwrap();
    pair.run_until("the certificate is refused", |p| end(p, CLIENT).is_some());
    let refused = end(&pair, CLIENT).unwrap();
    assert!(refused.is_refused && !refused.is_closed_by_peer);
    assert_eq!(refused.certificates, trusted.certificates);
}

#[test]
fn a_client_that_slept_goes_on_or_learns_from_its_next_packet_that_its_server_gave_it_up() {
    for (seconds, lives) in [(20, true), (60, false)] {
        let mut pair = Pair::new(16, CLEAN, |_| ());
        pair.run_for(Duration::from_secs(1));
        let id = pair.ids[CLIENT];
        // The client's clock stands still meanwhile, as a monotonic clock does while a laptop is suspended.
        let (asleep, awake) = (pair.now, pair.now + Duration::from_secs(seconds));
        while let Some(timer) = pair.engines[SERVER].next_timer().filter(|timer| *timer <= awake) {
            pair.engines[SERVER].process(timer, 1, usize::MAX, |_| true);
        }
        assert_eq!(pair.engines[SERVER].connection_count() > 0, lives);
        let stream = pair.open(CLIENT, DATA_STREAM);
        pair.engines[CLIENT].write(id, stream, &pattern(100));
        let mut packets = Vec::new();
        let addresses = pair.addresses;
        pair.engines[CLIENT].process(asleep, 1, usize::MAX, |packet| {
            packets.push(packet.contents.to_vec());
            true
        });
        let mut answers = Vec::new();
        for packet in packets {
            pair.engines[SERVER].receive(awake, addresses[CLIENT], None, 0, packet.as_slice().into());
        }
        pair.engines[SERVER].process(awake, 1, usize::MAX, |packet| {
            answers.push(packet.contents.to_vec());
            true
        });
        for answer in answers {
            pair.engines[CLIENT].receive(asleep, addresses[SERVER], None, 0, answer.as_slice().into());
        }
        let mut events = Vec::new();
        pair.engines[CLIENT].take_events(&mut events);
        let end = events.iter().find_map(|event| match event {
            Event::Closed { cause, .. } => Some(*cause),
            _ => None,
        });
        assert_eq!(end, (!lives).then_some(CloseCause::Reset));
    }
}
