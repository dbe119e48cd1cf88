//! What cannot be seen from outside, or what no engine sends, with switches in the sender's tap: that the tap takes the
//! packets that the core takes, resets that promise more than a header, the streams that are listed for each session, the
//! order of frames in packets, and PATH_CHALLENGE from an address that is not the client's.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use self::shortcuts::Shortcuts as _;
use super::Engine;
use crate::{
    Event, Options, ReadOutcome, ReceiveState, SendState,
    quic::frames::Reset,
    session::SessionLimits,
    tls::{ClientTls, ServerTls, Trust, generate_certificate},
    varint,
};

const HEADER: &[u8] = &[0x40, 0x54, 0x00];
const DATA: &[u8] = b"0123456789";

mod credit;
#[path = "../../tests/support/shortcuts.rs"]
mod shortcuts;

struct Pair {
    client: Engine,
    server: Engine,
    ids: [u64; 2],
    addresses: [SocketAddr; 2],
    now: Instant,
    events: Vec<Event>,
}

impl Pair {
    fn new() -> Self {
        Self::with_streams(10, 1)
    }

    fn with_streams(bidirectional: u64, unidirectional: u64) -> Self {
        let options = Options {
            idle_timeout: Duration::from_secs(30),
            keep_alive: None,
            max_bidirectional_streams: bidirectional,
            max_unidirectional_streams: unidirectional,
            stream_receive_window: 65_536,
            connection_receive_window: 65_536,
            stream_send_buffer: 65_536,
            connection_send_buffer: 65_536,
            datagram_send_buffer: 65_536,
            datagram_send_age: None,
            datagram_receive_buffer: 65_536,
            early_datagrams: 4,
            max_connections: 10,
            memory: None,
            initial_mtu: 1200,
            max_mtu: 1200,
            congestion: "tolerant".into(),
            gso: false,
            reset_stream_at: true,
            secret: None,
            id_prefix: Vec::new(),
            id_length: 8,
            seed: Some([7; 32]),
        };
        let (certificate, key, _) =
            generate_certificate(&["localhost".into()], 1_700_000_000, 1_700_000_000 + 86_400).unwrap();
        let tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        let now = Instant::now();
        let addresses = ["10.0.0.1:1000".parse().unwrap(), "10.0.0.2:443".parse().unwrap()];
        let mut client = Engine::new(options.clone(), None).unwrap();
        let server = Engine::new(options, Some(&tls)).unwrap();
        let trust = ClientTls::new(Trust::Insecure, None).unwrap();
        let id = client.connect(now, addresses[1], "localhost", &trust).unwrap();
        let mut pair = Self { client, server, ids: [id, 0], addresses, now, events: Vec::new() };
        for _ in 0..20 {
            pair.exchange();
        }
        let connected = pair.events.iter().find_map(|e| match e {
            Event::Connected { connection } => Some(*connection),
            _ => None,
        });
        pair.ids[1] = connected.expect("the handshake is over");
        pair.server.add_session(pair.ids[1], 0, SessionLimits::default());
        pair.client.add_session(pair.ids[0], 0, SessionLimits::default());
        // No packet after the handshake is on its way.
        for _ in 0..20 {
            pair.exchange();
        }
        pair
    }

    fn client_packets(&mut self) -> Vec<Vec<u8>> {
        self.now += Duration::from_millis(30);
        let mut packets = Vec::new();
        self.client.process(self.now, 1, usize::MAX, |packet| {
            packets.push(packet.contents.to_vec());
            true
        });
        packets
    }

    fn give_server(&mut self, packet: &[u8]) {
        self.server.receive(self.now, self.addresses[0], None, 0, packet.into());
        self.server.take_events(&mut self.events);
    }

    fn answer(&mut self) {
        let mut packets = Vec::new();
        self.server.process(self.now, 1, usize::MAX, |packet| {
            packets.push(packet.contents.to_vec());
            true
        });
        self.server.take_events(&mut self.events);
        for packet in packets {
            self.client.receive(self.now, self.addresses[1], None, 0, packet.as_slice().into());
        }
    }

    fn exchange(&mut self) {
        for packet in self.client_packets() {
            self.give_server(&packet);
        }
        self.answer();
    }

    /// Make the client's resets promise this many bytes beyond the header.
    fn promise(&mut self, bytes: u64) {
        let tap = &self.client.connections[&self.ids[0]].core.tap();
        tap.promise.store(bytes, Ordering::Relaxed);
    }

    fn open(&mut self) -> Option<u64> {
        self.client.open_stream(self.now, self.ids[0], false, HEADER, Some(0))
    }

    fn read(&mut self, stream: u64) -> Vec<u8> {
        match self.server.prepare_read(self.now, self.ids[1], stream, usize::MAX) {
            ReadOutcome::Ready(length) => {
                let mut out = vec![0; length];
                self.server.take(self.now, self.ids[1], stream, &mut out);
                out
            }
            _ => Vec::new(),
        }
    }

    /// The peer allows one stream at a time: a second one shows that the first has been settled everywhere.
    fn assert_settled(&mut self, stream: u64) {
        self.server.release(self.now, self.ids[1], stream, 0);
        self.client.release(self.now, self.ids[0], stream, 0);
        for _ in 0..5 {
            self.exchange();
        }
        assert!(self.open().is_some(), "the credit of the first stream has come back");
        assert!(!self.events.iter().any(|e| matches!(e, Event::Closed { .. })));
    }
}

#[test]
fn promised_bytes_come_before_the_reset() {
    let mut pair = Pair::new();
    pair.promise(DATA.len() as u64);
    let stream = pair.open().unwrap();
    pair.client.write(pair.ids[0], stream, DATA);
    pair.exchange();
    assert!(pair.open().is_none(), "one stream at a time");
    pair.client.reset(pair.now, pair.ids[0], stream, 9);
    pair.exchange();
    assert_eq!(pair.read(stream), DATA);
    assert_eq!(pair.server.receive_state(pair.ids[1], stream), ReceiveState::Reset(9));
    pair.assert_settled(stream);
}

#[test]
fn a_reset_that_overtakes_what_it_promised_waits_for_it() {
    let mut pair = Pair::new();
    pair.promise(5);
    let stream = pair.open().unwrap();
    pair.client.write(pair.ids[0], stream, DATA);
    let data = pair.client_packets();
    pair.client.reset(pair.now, pair.ids[0], stream, 9);
    for packet in pair.client_packets() {
        pair.give_server(&packet);
    }
    pair.answer();
    assert_eq!(pair.read(stream), b"");
    assert_eq!(pair.server.receive_state(pair.ids[1], stream), ReceiveState::Open);
    assert!(pair.server.want_read(pair.ids[1], stream), "there is something to wait for");
    for packet in data {
        pair.give_server(&packet);
    }
    assert!(pair.events.contains(&Event::Readable { connection: pair.ids[1], stream }), "{:?}", pair.events);
    assert!(pair.read(stream).starts_with(b"01234"));
    assert_eq!(pair.read(stream), b"");
    assert_eq!(pair.server.receive_state(pair.ids[1], stream), ReceiveState::Reset(9));
    pair.assert_settled(stream);
}

#[test]
fn a_stopped_stream_does_not_wait_for_what_was_promised() {
    let mut pair = Pair::new();
    pair.promise(5);
    let stream = pair.open().unwrap();
    pair.client.write(pair.ids[0], stream, DATA);
    let lost = pair.client_packets();
    assert!(!lost.is_empty());
    pair.client.reset(pair.now, pair.ids[0], stream, 9);
    pair.exchange();
    pair.server.stop(pair.now, pair.ids[1], stream, 1);
    pair.exchange();
    pair.assert_settled(stream);
}

#[test]
fn the_tap_takes_exactly_the_packets_that_the_core_takes() {
    let mut pair = Pair::new();
    let taken = |pair: &Pair| pair.server.connections[&pair.ids[1]].core.tap().taken.load(Ordering::Relaxed);
    // Changes with every packet that the core processes: each has a frame other than PADDING.
    let frames = |pair: &Pair| pair.server.connections[&pair.ids[1]].core.frames_received();
    let mut random = 7_u64;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    let before = taken(&pair);
    let mut sent: Vec<Vec<u8>> = Vec::new();
    let mut given = 0_u64;
    for _ in 0..400 {
        for _ in 0..below(6) {
            pair.client.connections.get_mut(&pair.ids[0]).unwrap().core.ping();
            pair.client.list(pair.ids[0]);
            sent.append(&mut pair.client_packets());
        }
        for _ in 0..below(12) {
            let farthest = if below(4) == 0 { 400 } else { 20 };
            let recent = 1 + below(farthest);
            let Some(packet) = sent.len().checked_sub(recent).map(|place| sent[place].clone()) else { continue };
            let (in_tap, in_core) = (taken(&pair), frames(&pair));
            pair.give_server(&packet);
            given += 1;
            assert_eq!(taken(&pair) != in_tap, frames(&pair) != in_core, "packet {recent} before the last");
        }
        if below(10) == 0 {
            pair.answer();
        }
    }
    let taken = taken(&pair) - before;
    assert!(taken > 300 && given > taken + 300, "{taken} of {given}");
}

/// The streams of each session, as looking at every stream finds them, are those that are listed for it.
fn assert_listed(engine: &Engine, id: u64) {
    let connection = &engine.connections[&id];
    let mut sessions = 0;
    for session in [0, 4, 8, 12] {
        let mut found: Vec<u64> = connection
            .streams
            .iter()
            .filter(|(_, stream)| stream.life.session_id == Some(session))
            .map(|(id, _)| *id)
            .collect();
        let mut listed = connection.sessions.members().of(session).to_vec();
        for (place, stream) in listed.iter().enumerate() {
            assert_eq!(connection.streams[stream].life.place, place);
        }
        sessions += usize::from(!listed.is_empty());
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, found, "streams of session {session}");
    }
    assert_eq!(connection.sessions.members().sessions(), sessions, "nothing is listed for any other session");
}

#[test]
fn every_stream_is_listed_with_its_session_until_it_is_forgotten() {
    let mut pair = Pair::new();
    // The streams of one session come before it is registered, and one session never is.
    let limits = SessionLimits::default();
    let mut random = 1_u64;
    let mut dice = |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    let mut open = Vec::new();
    for round in 0..300 {
        match dice(6) {
            0 | 1 => {
                let session = dice(4) * 4;
                let header = [0x40, 0x41, session as u8];
                if let Some(stream) = pair.client.open_stream(pair.now, pair.ids[0], true, &header, Some(session)) {
                    pair.client.write(pair.ids[0], stream, DATA);
                    open.push(stream);
                }
            }
            2 if !open.is_empty() => {
                let stream = open[dice(open.len() as u64) as usize];
                pair.client.finish(pair.ids[0], stream);
            }
            3 if !open.is_empty() => {
                let stream = open.swap_remove(dice(open.len() as u64) as usize);
                pair.client.release(pair.now, pair.ids[0], stream, 7);
                pair.server.release(pair.now, pair.ids[1], stream, 7);
            }
            4 if round % 10 == 0 => {
                let session = dice(3) * 4;
                pair.client.end_session(pair.now, pair.ids[0], session, 0);
                pair.server.end_session(pair.now, pair.ids[1], session, 0);
                pair.client.add_session(pair.ids[0], session, limits);
            }
            _ => pair.server.add_session(pair.ids[1], dice(3) * 4, limits),
        }
        pair.exchange();
        assert_listed(&pair.client, pair.ids[0]);
        assert_listed(&pair.server, pair.ids[1]);
        assert_eq!(
            pair.client.unacked_streams(pair.ids[0], 0),
            pair.client.connections[&pair.ids[0]]
                .streams
                .values()
                .filter(|stream| stream.life.session_id == Some(0) && stream.sending.state == SendState::Finished)
                .count()
        );
    }
    for stream in open {
        pair.client.release(pair.now, pair.ids[0], stream, 7);
        pair.server.release(pair.now, pair.ids[1], stream, 7);
    }
    for (engine, id) in [(&mut pair.client, pair.ids[0]), (&mut pair.server, pair.ids[1])] {
        for session in [0, 4, 8, 12] {
            engine.end_session(pair.now, id, session, 0);
        }
    }
    for _ in 0..20 {
        pair.exchange();
    }
    assert_eq!(pair.client.connections[&pair.ids[0]].sessions.members().sessions(), 0);
    assert!(!pair.events.iter().any(|e| matches!(e, Event::Closed { .. })));
}

#[test]
fn a_path_challenge_is_answered_elsewhere_with_no_more_than_three_times_its_bytes() {
    let mut pair = Pair::new();
    let elsewhere: SocketAddr = "10.0.0.7:1000".parse().unwrap();
    for (size, is_answered) in [(20, false), (300, false), (1100, true)] {
        // As the only frame: a packet that probes a path, and does not move the client there.
        let challenge = [0x1a, 1, 2, 3, 4, 5, 6, 7, 8];
        *pair.client.connections[&pair.ids[0]].core.tap().instead.lock().unwrap() = challenge.to_vec();
        assert_eq!(pair.client.send_datagram(pair.now, pair.ids[0], 0, &vec![0; size]), 0);
        let packets = pair.client_packets();
        let (packet, others) = packets.split_first().unwrap();
        for packet in others {
            pair.give_server(packet);
        }
        pair.answer();
        pair.server.receive(pair.now, elsewhere, None, 0, packet.as_slice().into());
        let mut answered = 0;
        pair.server.process(pair.now, 1, usize::MAX, |packet| {
            if packet.destination == elsewhere {
                answered += packet.contents.len();
            }
            true
        });
        assert!(answered <= 3 * packet.len(), "{answered} bytes for {}", packet.len());
        assert_eq!(answered > 0, is_answered);
        assert_eq!(pair.server.remote_address(pair.ids[1]), Some(pair.addresses[0]));
        pair.exchange();
    }
}

/// Frames of the packets that the server has sent since the last call.
fn server_frames(pair: &Pair) -> Vec<Vec<(u8, u64)>> {
    let sent = std::mem::take(&mut *pair.server.connections[&pair.ids[1]].core.tap().sent.lock().unwrap());
    sent.iter().map(|payload| stops_and_resets(payload)).filter(|frames| !frames.is_empty()).collect()
}

fn stops_and_resets(payload: &[u8]) -> Vec<(u8, u64)> {
    let mut found = Vec::new();
    let mut place = 0;
    while let Some(kind) = payload.get(place) {
        let mut end = place + 1;
        // In our tests nothing but these frames, PADDING, PING, IMMEDIATE_ACK and ACK comes before the last of them.
        let varints = match kind {
            0x04 => 3,
            0x05 => 2,
            0x24 => 4,
            0x00 | 0x01 | 0x1f => 0,
            0x02 => {
                let mut fields = Vec::new();
                while fields.len() < 3 || fields.len() < 4 + 2 * fields[2] as usize {
                    let (value, length) = varint::read(&payload[end..]).unwrap();
                    fields.push(value);
                    end += length;
                }
                0
            }
            _ => break,
        };
        if let Some((stream, _)) = varint::read(&payload[end..]).filter(|_| varints > 0) {
            found.push((*kind, stream));
        }
        for _ in 0..varints {
            end += varint::read(&payload[end..]).unwrap().1;
        }
        place = end;
    }
    found
}

/// Have the client open streams, and the server stop and reset them before it sends.
fn stop_and_reset(pair: &mut Pair, count: usize, is_stop_first: bool) -> Vec<u64> {
    let streams: Vec<u64> = (0..count)
        .map(|_| {
            let id = pair.client.open_stream(pair.now, pair.ids[0], true, &[0x40, 0x41, 0x00], Some(0)).unwrap();
            pair.client.write(pair.ids[0], id, DATA);
            id
        })
        .collect();
    for _ in 0..10 {
        pair.exchange();
    }
    server_frames(pair);
    for &id in &streams {
        if is_stop_first {
            assert!(pair.server.stop(pair.now, pair.ids[1], id, 7));
        }
        assert!(pair.server.reset(pair.now, pair.ids[1], id, 7));
        if !is_stop_first {
            assert!(pair.server.stop(pair.now, pair.ids[1], id, 7));
        }
    }
    streams
}

fn assert_stops_come_first(packets: &[Vec<(u8, u64)>], streams: &[u64]) {
    let order: Vec<(u8, u64)> = packets.concat();
    for &id in streams {
        let place = |kind| order.iter().position(|frame| *frame == (kind, id)).expect("it was sent");
        assert!(place(0x05) < place(0x04), "stream {id}: {packets:?}");
    }
}

#[test]
fn a_stream_that_is_stopped_and_reset_is_stopped_first_also_when_both_are_sent_again() {
    for is_stop_first in [true, false] {
        for count in [1, 16] {
            let mut pair = Pair::with_streams(100, 1);
            let streams = stop_and_reset(&mut pair, count, is_stop_first);
            let mut sent = 0;
            for _ in 0..20 {
                // Every packet is lost, and its frames come again in another one.
                pair.server.process(pair.now, 1, usize::MAX, |_| true);
                for packet in server_frames(&pair) {
                    assert_stops_come_first(&[packet], &streams);
                    sent += 1;
                }
                // Until the connection is given up.
                let Some(timer) = pair.server.next_timer() else { break };
                pair.now = timer.max(pair.now);
            }
            assert!(sent > 3, "{sent}");
        }
    }
}

/// How the connection of a server ends whose client sends these frames, one packet each, while the reader of stream 2
/// does something in between.
fn end_after(packets: &[Vec<u8>], mut between: impl FnMut(&mut Pair)) -> Option<u64> {
    let mut pair = Pair::with_streams(10, 10);
    for frames in packets {
        *pair.client.connections[&pair.ids[0]].core.tap().instead.lock().unwrap() = frames.clone();
        if pair.client.send_datagram(pair.now, pair.ids[0], 0, &[0; 300]) != 0 {
            break;
        }
        pair.exchange();
        between(&mut pair);
    }
    pair.exchange();
    pair.events.iter().find_map(|event| match event {
        Event::Closed { code, .. } => Some(*code),
        _ => None,
    })
}

#[test]
fn a_peer_that_changes_a_final_size_or_exceeds_its_credit_loses_the_connection_whatever_the_reader_does() {
    const FLOW_CONTROL_ERROR: u64 = 0x03;
    const STREAM_STATE_ERROR: u64 = 0x05;
    const FINAL_SIZE_ERROR: u64 = 0x06;
    const FRAME_ENCODING_ERROR: u64 = 0x07;
    let stream = |offset: u64, length: usize, is_last: bool| {
        let mut out = vec![if is_last { 0x0f } else { 0x0e }];
        for field in [2, offset, length as u64] {
            varint::write(field, &mut out);
        }
        let data = [HEADER, &[b'x'; 100]].concat();
        out.extend_from_slice(&data[offset.min(50) as usize..][..length]);
        out
    };
    let reset = |code: u64, size: u64, reliable: Option<u64>| {
        let mut out = Vec::new();
        Reset { stream: 2, code, size, reliable }.write(&mut out);
        out
    };
    let (window, far) = (65_536, (1 << 62) - 1);
    let cases: Vec<(Vec<Vec<u8>>, Option<u64>)> = vec![
        // Harmless: repetitions, and a promise that is lowered.
        (vec![stream(0, 13, false), reset(9, 20, Some(3)), reset(9, 20, Some(3)), stream(3, 10, false)], None),
        (vec![stream(0, 13, false), reset(9, 20, Some(13)), reset(9, 20, Some(5)), reset(9, 20, None)], None),
        (vec![stream(0, 13, true), stream(3, 10, true), reset(9, 13, Some(3))], None),
        // Data beyond a reset's final size, another end, another reset, an end below what has come.
        (vec![stream(0, 13, false), reset(9, 20, None), stream(20, 1, false)], Some(FINAL_SIZE_ERROR)),
        (vec![stream(0, 13, false), reset(9, 20, Some(3)), stream(20, 1, false)], Some(FINAL_SIZE_ERROR)),
        (vec![stream(0, 13, false), reset(9, 20, Some(13)), stream(15, 20, false)], Some(FINAL_SIZE_ERROR)),
        (vec![stream(0, 13, false), reset(9, 20, Some(3)), stream(15, 2, true)], Some(FINAL_SIZE_ERROR)),
        (vec![stream(0, 13, false), reset(9, 20, Some(3)), reset(9, 21, Some(3))], Some(FINAL_SIZE_ERROR)),
        (vec![stream(0, 13, false), reset(9, 20, Some(13)), reset(9, 19, Some(13))], Some(FINAL_SIZE_ERROR)),
        (vec![[stream(0, 13, false), reset(9, 20, Some(3)), reset(9, 21, Some(3))].concat()], Some(FINAL_SIZE_ERROR)),
        (vec![stream(0, 13, false), reset(9, 12, Some(3))], Some(FINAL_SIZE_ERROR)),
        (vec![stream(0, 13, true), stream(13, 1, false)], Some(FINAL_SIZE_ERROR)),
        (vec![stream(0, 13, true), reset(9, 14, None)], Some(FINAL_SIZE_ERROR)),
        (vec![reset(9, 20, Some(3)), stream(19, 2, false)], Some(FINAL_SIZE_ERROR)),
        // Beyond the credit, at once, promised or not.
        (vec![stream(0, 13, false), reset(9, window + 1, Some(3))], Some(FLOW_CONTROL_ERROR)),
        (vec![stream(0, 13, false), reset(9, window + 1, Some(13))], Some(FLOW_CONTROL_ERROR)),
        (vec![reset(9, window + 1, Some(3))], Some(FLOW_CONTROL_ERROR)),
        (vec![reset(9, far, Some(3))], Some(FLOW_CONTROL_ERROR)),
        (vec![reset(9, far, None)], Some(FLOW_CONTROL_ERROR)),
        // Another code, and more promised than there is.
        (vec![stream(0, 13, false), reset(9, 20, Some(13)), reset(8, 20, Some(13))], Some(STREAM_STATE_ERROR)),
        (vec![stream(0, 13, false), reset(9, 20, Some(21))], Some(FRAME_ENCODING_ERROR)),
    ];
    for (packets, expected) in cases {
        assert_eq!(end_after(&packets, |_| ()), expected, "nobody reads: {packets:?}");
        let reading = end_after(&packets, |pair| drop(pair.read(2)));
        assert_eq!(reading, expected, "somebody reads: {packets:?}");
        let stopped = end_after(&packets, |pair| {
            pair.server.stop(pair.now, pair.ids[1], 2, 1);
        });
        assert_eq!(stopped, expected, "stopped: {packets:?}");
    }
}

/// The code with which the server closes the connection when the client sends these frames, one packet each.
fn code_for(pair: &mut Pair, packets: &[&[u8]]) -> Option<u64> {
    for frames in packets {
        *pair.client.connections[&pair.ids[0]].core.tap().instead.lock().unwrap() = frames.to_vec();
        // Something to take the place of.
        if pair.client.send_datagram(pair.now, pair.ids[0], 0, &[0; 100]) != 0 {
            break;
        }
        pair.exchange();
    }
    for _ in 0..5 {
        pair.exchange();
    }
    pair.events.iter().find_map(|event| match event {
        Event::Closed { code, .. } => Some(*code),
        _ => None,
    })
}

const FLOW_CONTROL_ERROR: u64 = 3;
const STREAM_STATE_ERROR: u64 = 5;
const FINAL_SIZE_ERROR: u64 = 6;

/// STREAM with offset, length and maybe the end, of a stream and offset below 64.
fn stream_frame(stream: u8, offset: u8, data: &[u8], is_last: bool) -> Vec<u8> {
    let mut out = vec![0x0e | u8::from(is_last), stream, offset, data.len() as u8];
    out.extend_from_slice(data);
    out
}

fn reset_frame(stream: u8, code: u8, size: u64) -> Vec<u8> {
    let mut out = vec![4, stream, code];
    varint::write(size, &mut out);
    out
}

fn reset_at_frame(stream: u8, code: u8, size: u64, reliable: u64) -> Vec<u8> {
    let mut out = vec![0x24, stream, code];
    varint::write(size, &mut out);
    varint::write(reliable, &mut out);
    out
}

#[test]
fn a_final_size_that_changes_is_named_so_whatever_the_peer_may_still_open() {
    let begin = stream_frame(2, 0, &[HEADER, DATA].concat(), false);
    let cases: Vec<(&str, Vec<Vec<u8>>, u64)> = vec![
        (
            "data behind the end",
            vec![stream_frame(2, 13, b"", true), stream_frame(2, 13, b"x", false)],
            FINAL_SIZE_ERROR,
        ),
        ("two ends", vec![stream_frame(2, 13, b"", true), stream_frame(2, 14, b"", true)], FINAL_SIZE_ERROR),
        ("end below data", vec![stream_frame(2, 5, b"", true)], FINAL_SIZE_ERROR),
        ("reset below data", vec![reset_frame(2, 9, 12)], FINAL_SIZE_ERROR),
        ("reset at below data", vec![reset_at_frame(2, 9, 12, 5)], FINAL_SIZE_ERROR),
        ("data behind a reset", vec![reset_frame(2, 9, 20), stream_frame(2, 20, b"x", false)], FINAL_SIZE_ERROR),
        (
            "data behind a reset at",
            vec![reset_at_frame(2, 9, 20, 13), stream_frame(2, 20, b"x", false)],
            FINAL_SIZE_ERROR,
        ),
        ("two resets", vec![reset_frame(2, 9, 20), reset_frame(2, 9, 21)], FINAL_SIZE_ERROR),
        ("two resets at", vec![reset_at_frame(2, 9, 20, 15), reset_at_frame(2, 9, 21, 15)], FINAL_SIZE_ERROR),
        ("reset at and reset", vec![reset_at_frame(2, 9, 20, 15), reset_frame(2, 9, 21)], FINAL_SIZE_ERROR),
        ("reset and reset at", vec![reset_frame(2, 9, 21), reset_at_frame(2, 9, 20, 15)], FINAL_SIZE_ERROR),
        ("end and reset at", vec![stream_frame(2, 13, b"", true), reset_at_frame(2, 9, 20, 15)], FINAL_SIZE_ERROR),
        ("same packet", vec![[reset_at_frame(2, 9, 20, 15), reset_at_frame(2, 9, 21, 15)].concat()], FINAL_SIZE_ERROR),
        ("beyond credit", vec![reset_at_frame(2, 9, 70_000, 15)], FLOW_CONTROL_ERROR),
        ("beyond credit, nothing promised", vec![reset_at_frame(2, 9, 70_000, 0)], FLOW_CONTROL_ERROR),
        ("plain beyond credit", vec![reset_frame(2, 9, 70_000)], FLOW_CONTROL_ERROR),
        ("codes", vec![reset_at_frame(2, 9, 20, 15), reset_at_frame(2, 8, 20, 14)], STREAM_STATE_ERROR),
        ("codes, nothing promised", vec![reset_at_frame(2, 9, 20, 0), reset_at_frame(2, 8, 20, 0)], STREAM_STATE_ERROR),
        ("reliable above size", vec![reset_at_frame(2, 9, 20, 21)], 7),
        ("on our stream", vec![reset_at_frame(3, 9, 0, 0)], STREAM_STATE_ERROR),
        ("beyond the limit", vec![reset_at_frame(62, 9, 0, 0)], 4),
        ("bidirectional of ours that is not there", vec![reset_at_frame(1, 9, 0, 0)], STREAM_STATE_ERROR),
    ];
    let mut wrong = Vec::new();
    for unidirectional in [1, 2, 10] {
        for before in ["nothing", "read", "stopped"] {
            for (name, packets, expected) in &cases {
                let mut pair = Pair::with_streams(10, unidirectional);
                assert_eq!(pair.open(), Some(2));
                code_for(&mut pair, &[&begin]);
                match before {
                    "read" => assert_eq!(pair.read(2), DATA),
                    "stopped" => assert!(pair.server.stop(pair.now, pair.ids[1], 2, 1)),
                    _ => {}
                }
                let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
                let code = code_for(&mut pair, &packets);
                if code != Some(*expected) {
                    wrong.push(format!("{unidirectional} {before} {name}: {code:?} instead of {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn packets_for_another_slot_are_astray_and_no_others() {
    let ours = [0xf1, 7, 3];
    for (packet, is_astray) in [
        (&[0x40, 0xf1, 7, 4, 1, 2][..], true),
        (&[0x40, 0xf1, 7, 3, 1, 2], false),
        (&[0x40, 0xf1, 8, 4, 1, 2], false),
        (&[0xc0, 0xf1, 7, 4, 1, 2], false),
        (&[0x40, 0xf1, 7], false),
        (&[], false),
    ] {
        assert_eq!(super::is_astray(packet, &ours), is_astray, "{packet:?}");
        assert!(!super::is_astray(packet, &[]));
    }
}

#[test]
fn a_timer_that_is_put_off_is_the_one_that_is_due_and_leaves_no_heap() {
    let mut pair = Pair::new();
    let mut most = 0;
    for _ in 0..500 {
        // A packet and its acknowledgement put the timer off, and set an earlier one in between.
        assert_eq!(pair.server.connection(pair.now, pair.ids[1]).unwrap().datagrams(0).send(b"tick"), 0);
        for _ in 0..2 {
            pair.answer();
            let due = pair.server.next_timer();
            assert_eq!(due, pair.server.connections[&pair.ids[1]].timer);
            assert!(due.is_some_and(|due| due > pair.now));
            pair.exchange();
        }
        most = most.max(pair.server.timers.len());
    }
    assert!(most <= 2 + super::SPARE_TIMERS, "{most}");
    // Nothing comes any more: it is due when it says, and no earlier.
    while let Some(due) = pair.server.next_timer() {
        let state = |server: &Engine| server.connections.get(&pair.ids[1]).map(|connection| connection.timer);
        pair.server.process(due - Duration::from_micros(1), 1, usize::MAX, |_| panic!("too early"));
        assert_eq!(state(&pair.server), Some(Some(due)));
        pair.server.process(due, 1, usize::MAX, |_| true);
        assert_ne!(state(&pair.server), Some(Some(due)));
        pair.now = due;
    }
    assert_eq!(pair.server.connection_count(), 0);
}
