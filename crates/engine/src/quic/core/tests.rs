//! What the engine relies on in the QUIC core, apart from what QUIC demands of any: tried on the core alone, with keys that
//! write down what they see. When another version of the core fails here, the test says which part of the tap
//! ([`tap`](crate::quic::tap)) or of [`core`](super) has to change. The list, with reasons, is in docs/decisions.md.

mod spy;

use std::{collections::BTreeMap, time::Duration};

use self::spy::{CLIENT, Packet, Pair, SERVER, frames};
use crate::varint;
use quinn_proto::{ConnectionError, Dir, Event, ReadError, StreamId, VarInt};

const RESET_STREAM: u64 = 0x04;
const STOP_SENDING: u64 = 0x05;
const MAX_DATA: u64 = 0x10;
const MAX_STREAMS_UNI: u64 = 0x13;
const DATA: &[u8] = b"0123456789";

fn is_stream(kind: u64) -> bool {
    matches!(kind, 0x08..=0x0f)
}

fn is_datagram(kind: u64) -> bool {
    matches!(kind, 0x30 | 0x31)
}

fn kinds(packet: &Packet) -> Vec<u64> {
    frames(&packet.payload).into_iter().map(|(kind, _)| kind).collect()
}

fn sent_kinds(pair: &mut Pair, side: usize) -> Vec<u64> {
    pair.spies[side].sealed().iter().flat_map(kinds).collect()
}

fn open(pair: &mut Pair, side: usize, dir: Dir) -> StreamId {
    pair.core(side).streams().open(dir).expect("credit")
}

fn write(pair: &mut Pair, side: usize, stream: StreamId, data: &[u8]) {
    assert_eq!(pair.core(side).send_stream(stream).write(data), Ok(data.len()));
}

/// Read what is there; how it ends.
fn read(pair: &mut Pair, side: usize, stream: StreamId) -> (Vec<u8>, Option<ReadError>) {
    let mut half = pair.core(side).recv_stream(stream);
    let mut chunks = half.read(true).expect("the core knows the stream");
    let mut data = Vec::new();
    let end = loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => data.extend_from_slice(&chunk.bytes),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let _ = chunks.finalize();
    (data, end)
}

/// Code with which a side has closed the connection for what its peer sent.
fn violation(pair: &mut Pair, side: usize) -> Option<u64> {
    while let Some(event) = pair.core(side).poll() {
        if let Event::ConnectionLost { reason: ConnectionError::TransportError(error) } = event {
            return Some(error.code.into());
        }
    }
    None
}

fn accept(pair: &mut Pair, side: usize, dir: Dir) -> Option<StreamId> {
    pair.core(side).streams().accept(dir)
}

fn remote_open(pair: &mut Pair, side: usize) -> u64 {
    pair.core(side).streams().remote_open_streams(Dir::Uni)
}

/// STREAM with offset and length, of a stream, offset and length below 64.
fn stream_frame(stream: StreamId, offset: u8, data: &[u8], is_last: bool) -> Vec<u8> {
    let mut out = vec![0x0e | u8::from(is_last), u64::from(stream) as u8, offset, data.len() as u8];
    out.extend_from_slice(data);
    out
}

#[test]
fn keys_see_each_packet_once_with_its_number_and_all_of_its_frames() {
    let mut pair = Pair::new();
    let stream = open(&mut pair, CLIENT, Dir::Uni);
    for round in 0..6 {
        // Also with the keys that follow.
        if round == 3 {
            pair.core(CLIENT).force_key_update();
        }
        write(&mut pair, CLIENT, stream, DATA);
        pair.pass(CLIENT);
        let (sealed, opened) = (pair.spies[CLIENT].sealed(), pair.spies[SERVER].opened());
        assert_eq!(sealed, opened, "round {round}");
        let found: Vec<&Packet> =
            sealed.iter().filter(|p| frames(&p.payload).iter().any(|(kind, _)| is_stream(*kind))).collect();
        assert_eq!(found.len(), 1);
        let carried = frames(&found[0].payload).iter().any(|(kind, frame)| is_stream(*kind) && frame.ends_with(DATA));
        assert!(carried, "round {round}: {:x?}", found[0]);
        // An ACK names the number that the key has seen.
        pair.settle();
        let acked = pair.spies[SERVER].sealed().iter().any(|packet| {
            frames(&packet.payload).iter().any(|(kind, frame)| {
                matches!(kind, 2 | 3)
                    && varint::read(&frame[1..]).is_some_and(|(largest, _)| largest >= found[0].number)
            })
        });
        assert!(acked, "round {round}");
        pair.spies[CLIENT].sealed();
        pair.spies[SERVER].opened();
    }
}

#[test]
fn what_the_tag_claims_stays_free_at_the_end_of_each_packet_and_fits_into_the_path() {
    for claimed in [1, 40, 256] {
        let mut pair = Pair::new();
        let most = pair.core(CLIENT).datagrams().max_size().unwrap();
        pair.spies[CLIENT].claim(claimed);
        assert_eq!(pair.core(CLIENT).datagrams().max_size(), Some(most - claimed), "asked for each time");
        let stream = open(&mut pair, CLIENT, Dir::Uni);
        let data: Vec<u8> = (0..30_000_u32).map(|n| (n % 251) as u8).collect();
        write(&mut pair, CLIENT, stream, &data);
        let mut largest = 0;
        for _ in 0..20 {
            for datagram in pair.sent(CLIENT) {
                largest = largest.max(datagram.len());
                pair.give(SERVER, &datagram);
            }
            pair.settle();
        }
        assert_eq!(largest, 1200, "packets are as full as the path lets them be");
        // The spies moved all frames behind PADDING, and a frame without a length still ends its packet.
        assert_eq!(accept(&mut pair, SERVER, Dir::Uni), Some(stream));
        assert_eq!(read(&mut pair, SERVER, stream).0, data);
        // What the core wrote ends in front of what is claimed: it can be read as frames.
        assert!(pair.spies[CLIENT].sealed().iter().any(|packet| kinds(packet).into_iter().any(is_stream)));
        pair.spies[CLIENT].claim(0);
        assert_eq!(pair.core(CLIENT).datagrams().max_size(), Some(most));
    }
}

#[test]
fn a_packet_holds_resets_then_stops_then_datagrams_then_stream_data() {
    let mut pair = Pair::new();
    let (both, other) = (open(&mut pair, CLIENT, Dir::Bi), open(&mut pair, CLIENT, Dir::Uni));
    write(&mut pair, CLIENT, both, DATA);
    pair.settle();
    pair.spies[CLIENT].sealed();
    write(&mut pair, CLIENT, other, DATA);
    pair.core(CLIENT).datagrams().send(DATA.into(), false).unwrap();
    pair.core(CLIENT).recv_stream(both).stop(VarInt::from_u32(7)).unwrap();
    pair.core(CLIENT).send_stream(both).reset(VarInt::from_u32(7)).unwrap();
    pair.pass(CLIENT);
    let order: Vec<u64> = sent_kinds(&mut pair, CLIENT)
        .into_iter()
        .filter(|kind| matches!(*kind, RESET_STREAM | STOP_SENDING) || is_stream(*kind) || is_datagram(*kind))
        .collect();
    assert_eq!(order[..2], [RESET_STREAM, STOP_SENDING]);
    assert!(is_datagram(order[2]) && is_stream(order[3]), "{order:x?}");
}

#[test]
fn a_reset_forgets_the_data_of_its_stream_and_is_sent_until_it_is_acknowledged() {
    let mut pair = Pair::new();
    let stream = open(&mut pair, CLIENT, Dir::Uni);
    write(&mut pair, CLIENT, stream, DATA);
    // The first packet is lost.
    pair.sent(CLIENT);
    assert!(sent_kinds(&mut pair, CLIENT).into_iter().any(is_stream));
    pair.core(CLIENT).send_stream(stream).reset(VarInt::from_u32(7)).unwrap();
    let mut resets = 0;
    for _ in 0..6 {
        pair.sent(CLIENT);
        let sent = sent_kinds(&mut pair, CLIENT);
        assert!(!sent.iter().any(|kind| is_stream(*kind)), "{sent:x?}");
        resets += sent.iter().filter(|kind| **kind == RESET_STREAM).count();
        pair.now = pair.core(CLIENT).poll_timeout().unwrap();
        let now = pair.now;
        pair.core(CLIENT).handle_timeout(now);
    }
    assert!(resets >= 3, "{resets}");
}

#[test]
fn an_empty_end_at_the_final_size_keeps_what_has_arrived_and_fixes_the_size() {
    const FINAL_SIZE_ERROR: u64 = 0x06;
    let mut pair = Pair::new();
    let stream = open(&mut pair, CLIENT, Dir::Uni);
    pair.send_instead(
        CLIENT,
        &[stream_frame(stream, 0, &DATA[..5], false), stream_frame(stream, 8, b"", true)].concat(),
    );
    assert_eq!(accept(&mut pair, SERVER, Dir::Uni), Some(stream));
    assert_eq!(read(&mut pair, SERVER, stream), (DATA[..5].to_vec(), Some(ReadError::Blocked)));
    pair.send_instead(CLIENT, &stream_frame(stream, 5, &DATA[5..8], false));
    assert_eq!(read(&mut pair, SERVER, stream), (DATA[5..8].to_vec(), None));
    let mut pair = Pair::new();
    let stream = open(&mut pair, CLIENT, Dir::Uni);
    pair.send_instead(CLIENT, &stream_frame(stream, 8, b"", true));
    pair.send_instead(CLIENT, &stream_frame(stream, 8, b"x", false));
    assert_eq!(violation(&mut pair, SERVER), Some(FINAL_SIZE_ERROR));
}

#[test]
fn a_stopped_stream_of_known_size_is_settled_at_once_and_another_one_is_kept_until_its_size_is_known() {
    let mut pair = Pair::new();
    let (known, unknown) = (open(&mut pair, CLIENT, Dir::Uni), open(&mut pair, CLIENT, Dir::Uni));
    pair.send_instead(
        CLIENT,
        &[
            stream_frame(known, 0, &DATA[..5], false),
            stream_frame(known, 8, b"", true),
            stream_frame(unknown, 0, &DATA[..5], false),
        ]
        .concat(),
    );
    assert_eq!([(); 2].map(|()| accept(&mut pair, SERVER, Dir::Uni)), [Some(known), Some(unknown)]);
    assert_eq!(remote_open(&mut pair, SERVER), 2);
    pair.core(SERVER).recv_stream(known).stop(VarInt::from_u32(1)).unwrap();
    assert_eq!(remote_open(&mut pair, SERVER), 1);
    pair.core(SERVER).recv_stream(unknown).stop(VarInt::from_u32(1)).unwrap();
    assert_eq!(remote_open(&mut pair, SERVER), 1);
    // A plain reset, also of a stream of which nobody keeps anything else.
    pair.send_instead(CLIENT, &[0x04, u64::from(unknown) as u8, 7, 20]);
    assert_eq!(remote_open(&mut pair, SERVER), 0);
    // Both peers are asked to stop, also the one that has given its end.
    pair.pass(SERVER);
    assert_eq!(sent_kinds(&mut pair, SERVER).iter().filter(|kind| **kind == STOP_SENDING).count(), 2);
}

#[test]
fn a_reset_stream_is_let_go_when_its_reset_is_seen_and_not_before() {
    let mut pair = Pair::new();
    let stream = open(&mut pair, CLIENT, Dir::Uni);
    pair.send_instead(
        CLIENT,
        &[stream_frame(stream, 0, DATA, false), vec![0x04, u64::from(stream) as u8, 7, 20]].concat(),
    );
    assert_eq!(accept(&mut pair, SERVER, Dir::Uni), Some(stream));
    assert_eq!(remote_open(&mut pair, SERVER), 1);
    // What had arrived is gone with it.
    assert_eq!(read(&mut pair, SERVER, stream), (Vec::new(), Some(ReadError::Reset(VarInt::from_u32(7)))));
    assert_eq!(remote_open(&mut pair, SERVER), 0);
    let stream = open(&mut pair, CLIENT, Dir::Uni);
    pair.send_instead(CLIENT, &[0x04, u64::from(stream) as u8, 7, 20]);
    assert_eq!(accept(&mut pair, SERVER, Dir::Uni), Some(stream));
    assert_eq!(pair.core(SERVER).recv_stream(stream).received_reset(), Ok(Some(VarInt::from_u32(7))));
    assert_eq!(remote_open(&mut pair, SERVER), 0);
}

#[test]
fn packets_are_opened_before_they_are_dropped_as_seen_or_as_too_old_to_tell() {
    let mut pair = Pair::new();
    let stats = |pair: &mut Pair| pair.core(SERVER).stats().frame_rx.ping;
    // By number, for the core leaves out a number now and then.
    let mut sent = BTreeMap::new();
    for _ in 0..450 {
        pair.core(CLIENT).ping();
        let datagrams = pair.sent(CLIENT);
        let numbers = pair.spies[CLIENT].sealed().into_iter().map(|packet| packet.number);
        sent.extend(numbers.zip(datagrams));
    }
    pair.spies[SERVER].opened();
    let before = stats(&mut pair);
    let is_there = |highest: &u64| [0, 1, 128, 129].iter().all(|below| sent.contains_key(&(highest - below)));
    // Far from the last acknowledged one, where a header has two bytes of the number: one byte would be taken for a later one.
    let highest = (300..sent.len() as u64).find(is_there).expect("some numbers follow each other");
    for (below, is_taken) in [(0, true), (0, false), (128, true), (129, false), (1, true), (1, false)] {
        let taken = stats(&mut pair);
        pair.give(SERVER, &sent[&(highest - below)]);
        assert_eq!(stats(&mut pair) > taken, is_taken, "{below} below the highest");
        assert_eq!(pair.spies[SERVER].opened().len(), 1, "{below} below the highest");
    }
    assert_eq!(stats(&mut pair) - before, 3);
}

#[test]
fn application_data_before_the_end_of_the_handshake_is_opened_and_dropped() {
    let mut pair = Pair::unconnected();
    pair.pass(CLIENT);
    pair.pass(SERVER);
    // The client is through, and the server is not.
    let finished = pair.sent(CLIENT);
    assert!(!pair.core(CLIENT).is_handshaking() && pair.core(SERVER).is_handshaking());
    let stream = open(&mut pair, CLIENT, Dir::Uni);
    write(&mut pair, CLIENT, stream, DATA);
    let early = pair.sent(CLIENT);
    pair.spies[SERVER].opened();
    for datagram in &early {
        pair.give(SERVER, datagram);
    }
    let opened = pair.spies[SERVER].opened();
    assert!(opened.iter().any(|packet| kinds(packet).into_iter().any(is_stream)), "{opened:?}");
    assert_eq!(pair.core(SERVER).stats().frame_rx.stream, 0);
    for datagram in finished {
        pair.give(SERVER, &datagram);
    }
    assert!(!pair.core(SERVER).is_handshaking());
    // It counts as seen.
    for datagram in &early {
        pair.give(SERVER, datagram);
    }
    assert_eq!(pair.core(SERVER).stats().frame_rx.stream, 0);
    pair.now += Duration::from_millis(1);
    pair.settle();
    assert_eq!(accept(&mut pair, SERVER, Dir::Uni), Some(stream));
    assert_eq!(read(&mut pair, SERVER, stream).0, DATA);
}

#[test]
fn a_limit_that_is_set_anew_is_announced_at_once_however_little_it_grew() {
    let mut pair = Pair::new();
    let stream = open(&mut pair, CLIENT, Dir::Uni);
    write(&mut pair, CLIENT, stream, DATA);
    pair.core(CLIENT).send_stream(stream).finish().unwrap();
    pair.settle();
    assert_eq!(accept(&mut pair, SERVER, Dir::Uni), Some(stream));
    assert_eq!(read(&mut pair, SERVER, stream), (DATA.to_vec(), None));
    pair.settle();
    let sent = sent_kinds(&mut pair, SERVER);
    assert!(!sent.contains(&MAX_DATA) && !sent.contains(&MAX_STREAMS_UNI), "left to itself, it waits: {sent:x?}");
    for most in [0_u32, 16] {
        pair.core(SERVER).set_max_concurrent_streams(Dir::Uni, most.into());
    }
    for window in [65_537_u32, 65_536] {
        pair.core(SERVER).set_receive_window(window.into());
    }
    pair.pass(SERVER);
    let sent = pair.spies[SERVER].sealed();
    let limit = |wanted: u64| {
        let all: Vec<u64> = sent
            .iter()
            .flat_map(|packet| frames(&packet.payload))
            .filter(|(kind, _)| *kind == wanted)
            .map(|(_, frame)| varint::read(&frame[1..]).unwrap().0)
            .collect();
        assert_eq!(all.len(), 1, "one frame of type {wanted:#x}");
        all[0]
    };
    assert_eq!(limit(MAX_STREAMS_UNI), 17);
    // The byte that was given for a moment is not taken back; the next credit is less by it.
    assert_eq!(limit(MAX_DATA), 65_537 + DATA.len() as u64);
}

#[test]
fn what_the_peer_may_not_send_closes_the_connection_with_the_code_that_the_tap_counts_on() {
    const STREAM_STATE_ERROR: u64 = 0x05;
    const FINAL_SIZE_ERROR: u64 = 0x06;
    const FRAME_ENCODING_ERROR: u64 = 0x07;
    let two_sizes = |stream: u8| vec![0x04, stream, 0, 0, 0x04, stream, 0, 1];
    // A frame type that the core does not know, as RESET_STREAM_AT is; a reset for a stream on which only the server sends;
    // and two resets at different sizes, for a stream that is there and for the peer's next one.
    for (frames, code) in [
        (vec![0x24, 2, 7, 9, 10], FRAME_ENCODING_ERROR),
        (vec![0x04, 3, 7, 9], STREAM_STATE_ERROR),
        (two_sizes(2), FINAL_SIZE_ERROR),
        (two_sizes(6), FINAL_SIZE_ERROR),
    ] {
        let mut pair = Pair::new();
        let stream = open(&mut pair, CLIENT, Dir::Uni);
        write(&mut pair, CLIENT, stream, DATA);
        pair.settle();
        assert_eq!(violation(&mut pair, SERVER), None);
        pair.send_instead(CLIENT, &frames);
        assert_eq!(violation(&mut pair, SERVER), Some(code), "{frames:x?}");
    }
}
