//! Everything at once: streams of every life over loss, reordering, duplication, replays of older packets, key updates of
//! both sides and changes of the path, with the session's flow control and without, with RESET_STREAM_AT and without.
//!
//! Whatever the network does, bytes that were ended arrive whole, resets and stops arrive with their code, and when all
//! is closed everything is back where it began: no stream is remembered, in the engine or in the QUIC core, all streams
//! can be opened again, and the connection's and the session's windows are whole.
//!
//! `WTIO_SEEDS` is the number of seeds (default 300), `WTIO_SEED` runs a single one.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::support::{
    CLIENT, DATA_STREAM, Link, Pair, SERVER, SESSION, Shortcuts as _, UNIDIRECTIONAL_STREAM, pattern,
};
use wtio_engine::{Event, ReadOutcome, ReceiveState, SendState, session::SessionLimits};

const STREAMS: [u64; 2] = [40, 30];
const STREAM_WINDOW: u64 = 64 * 1024;
const CONNECTION_WINDOW: u64 = 256 * 1024;
const SESSION_WINDOW: u64 = 128 * 1024;
const WRITER_CODE: u64 = 1000;
const READER_CODE: u64 = 2000;
/// Code with which a handle that is let go resets and stops what is open.
const LET_GO: u64 = 7;

/// How one end of a stream deals with what it sends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Writer {
    Finish,
    Reset,
    FinishThenReset,
    /// Lets go of the whole stream without a word.
    LetGo,
}

/// How the other end deals with what it receives.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reader {
    ReadAll,
    Stop,
    StopAfterSome,
    /// Reads nothing, and lets go of the stream in the end.
    Ignore,
}

#[derive(Debug)]
struct Sending {
    size: usize,
    accepted: usize,
    writer: Writer,
    is_ended: bool,
    reset_after: usize,
}

#[derive(Debug)]
struct Receiving {
    reader: Reader,
    data: Vec<u8>,
    is_over: bool,
}

/// One side's view of a stream.
#[derive(Debug, Default)]
struct End {
    sending: Option<Sending>,
    receiving: Option<Receiving>,
    is_released: bool,
}

struct Life {
    pair: Pair,
    flow_control: bool,
    ends: [BTreeMap<u64, End>; 2],
    /// Streams opened by each side.
    opened: [Vec<u64>; 2],
    /// Key updates that each side had seen when it was last looked, and packets that it had received then.
    key_updates: [u64; 2],
    at_key_update: [u64; 2],
}

fn payload(stream: u64, from: usize, size: usize) -> Vec<u8> {
    let mut data = pattern(size);
    for byte in &mut data {
        *byte = byte.wrapping_add(stream as u8).wrapping_add(101 * from as u8);
    }
    data
}

impl Life {
    fn new(seed: u64) -> Self {
        let link = Link {
            latency: Duration::from_millis(1 + seed % 40),
            jitter: Duration::from_millis([0, 5, 40][seed as usize % 3]),
            loss: [0.0, 0.02, 0.15][seed as usize / 3 % 3],
            duplicate: [0.0, 0.05, 0.4][seed as usize / 9 % 3],
            replay: [0.0, 0.1, 0.4][seed as usize / 27 % 3],
        };
        let mut pair = Pair::new(seed as u8, link, |options| {
            options.max_bidirectional_streams = STREAMS[0];
            options.max_unidirectional_streams = STREAMS[1];
            options.stream_receive_window = STREAM_WINDOW;
            options.connection_receive_window = CONNECTION_WINDOW;
            options.reset_stream_at = !seed.is_multiple_of(4);
            options.gso = seed.is_multiple_of(2);
            options.keep_alive = Some(Duration::from_secs(5));
        });
        pair.reseed(seed);
        pair.segments = if seed.is_multiple_of(2) { 10 } else { 1 };
        let flow_control = !(seed / 2).is_multiple_of(3);
        if flow_control {
            for side in [CLIENT, SERVER] {
                let id = pair.ids[side];
                let limits = SessionLimits {
                    flow_control,
                    send_limit: SESSION_WINDOW,
                    receive_window: SESSION_WINDOW,
                    send_streams: STREAMS.map(|most| most - 5),
                    receive_streams: STREAMS.map(|most| most - 5),
                    ..SessionLimits::default()
                };
                pair.engines[side].add_session(id, SESSION, limits);
            }
        }
        Self {
            pair,
            flow_control,
            ends: Default::default(),
            opened: Default::default(),
            key_updates: [0; 2],
            at_key_update: [0; 2],
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.pair.chance() * limit as f64) as usize
    }

    fn sending(&mut self) -> Sending {
        let size = match self.below(4) {
            0 => 0,
            1 => self.below(20),
            2 => self.below(3000),
            _ => self.below(90_000),
        };
        let writer = [Writer::Finish, Writer::Finish, Writer::Reset, Writer::FinishThenReset, Writer::LetGo];
        let writer = writer[self.below(writer.len())];
        Sending { size, accepted: 0, writer, is_ended: false, reset_after: self.below(size + 1) }
    }

    fn receiving(&mut self) -> Receiving {
        let reader = [Reader::ReadAll, Reader::ReadAll, Reader::Stop, Reader::StopAfterSome, Reader::Ignore];
        Receiving { reader: reader[self.below(reader.len())], data: Vec::new(), is_over: false }
    }

    fn open(&mut self, side: usize) {
        let bidirectional = self.pair.chance() < 0.5;
        let header = if bidirectional { DATA_STREAM } else { UNIDIRECTIONAL_STREAM };
        let id = self.pair.ids[side];
        let now = self.pair.now;
        let Some(stream) = self.pair.engines[side].open_stream(now, id, bidirectional, header, Some(SESSION)) else {
            return;
        };
        let end = End {
            sending: Some(self.sending()),
            receiving: bidirectional.then(|| self.receiving()),
            is_released: false,
        };
        self.ends[side].insert(stream, end);
        self.opened[side].push(stream);
    }

    /// Take over what the engines report, as the layers above would.
    fn take_events(&mut self) {
        for side in [CLIENT, SERVER] {
            let other = 1 - side;
            let id = self.pair.ids[other];
            for event in std::mem::take(&mut self.pair.events[side]) {
                match event {
                    Event::Stream { stream, session, .. } => {
                        assert_eq!(session, SESSION);
                        let end = End {
                            sending: (stream & 2 == 0).then(|| self.sending()),
                            receiving: Some(self.receiving()),
                            is_released: false,
                        };
                        assert!(self.ends[side].insert(stream, end).is_none(), "stream {stream} came twice");
                    }
                    Event::CreditDue { limit, .. } => self.pair.engines[other].set_send_limit(id, SESSION, limit),
                    Event::StreamsDue { bidirectional, limit, .. } => {
                        self.pair.engines[other].set_send_streams(id, SESSION, bidirectional, limit);
                    }
                    Event::CreditExceeded { .. } => panic!("side {side} reports that its peer broke a limit"),
                    Event::Closed { cause, code, reason, .. } => panic!("side {side}: {cause:?} {code:#x} {reason}"),
                    _ => {}
                }
            }
        }
    }

    /// Let every stream do a little of what it was made for. `is_last`: nothing new begins, everything ends.
    fn act(&mut self, is_last: bool) {
        for side in [CLIENT, SERVER] {
            let streams: Vec<u64> = self.ends[side].keys().copied().collect();
            for stream in streams {
                let mut end = self.ends[side].remove(&stream).unwrap();
                if !end.is_released {
                    let is_sent = end.sending.as_mut().is_none_or(|sending| self.send(side, stream, sending));
                    let is_read =
                        end.receiving.as_mut().is_none_or(|receiving| self.receive(side, stream, receiving, is_last));
                    let lets_go =
                        end.sending.as_ref().is_some_and(|sending| sending.is_ended && sending.writer == Writer::LetGo);
                    if is_sent && is_read || lets_go {
                        end.is_released = true;
                        let id = self.pair.ids[side];
                        self.pair.engines[side].release(self.pair.now, id, stream, LET_GO);
                    }
                }
                self.ends[side].insert(stream, end);
            }
        }
    }

    /// Whether this half is done with.
    fn send(&mut self, side: usize, stream: u64, sending: &mut Sending) -> bool {
        let id = self.pair.ids[side];
        let now = self.pair.now;
        let engine = &mut self.pair.engines[side];
        if sending.is_ended {
            return true;
        }
        if engine.send_state(id, stream) != SendState::Open {
            assert!(matches!(engine.send_state(id, stream), SendState::Stopped(READER_CODE | LET_GO)));
            return true;
        }
        let data = payload(stream, side, sending.size);
        if let Some(accepted) = engine.write(id, stream, &data[sending.accepted..]) {
            sending.accepted += accepted;
        }
        let is_through = sending.accepted == sending.size;
        match sending.writer {
            Writer::Finish if is_through => assert!(engine.finish(id, stream)),
            Writer::FinishThenReset if is_through => {
                assert!(engine.finish(id, stream));
                engine.reset(now, id, stream, WRITER_CODE);
            }
            Writer::Reset if sending.accepted >= sending.reset_after => {
                assert!(engine.reset(now, id, stream, WRITER_CODE));
            }
            Writer::LetGo if sending.accepted >= sending.reset_after => {}
            _ => return false,
        }
        sending.is_ended = true;
        true
    }

    /// Whether this half is done with.
    fn receive(&mut self, side: usize, stream: u64, receiving: &mut Receiving, is_last: bool) -> bool {
        if receiving.is_over {
            return true;
        }
        let is_stopping = match receiving.reader {
            Reader::ReadAll => false,
            Reader::Stop => true,
            Reader::StopAfterSome => receiving.data.len() > 500 || is_last,
            Reader::Ignore => return is_last,
        };
        let id = self.pair.ids[side];
        if is_stopping {
            self.pair.engines[side].stop(self.pair.now, id, stream, READER_CODE);
            receiving.is_over = true;
            return true;
        }
        let outcome = self.pair.engines[side].prepare_read(self.pair.now, id, stream, 8192);
        match outcome {
            ReadOutcome::Ready(length) => {
                let start = receiving.data.len();
                receiving.data.resize(start + length, 0);
                self.pair.engines[side].take(self.pair.now, id, stream, &mut receiving.data[start..]);
            }
            ReadOutcome::Ended => receiving.is_over = true,
            _ => {}
        }
        if receiving.is_over {
            let whole = self.pair.engines[side].receive_state(id, stream);
            // What the sender did is known to this test, for it is all one process.
            match self.ends[1 - side].get(&stream).and_then(|end| end.sending.as_ref()) {
                Some(sending) => {
                    let data = payload(stream, 1 - side, sending.size);
                    assert!(data.starts_with(&receiving.data), "stream {stream} brings other bytes");
                    match whole {
                        ReceiveState::Ended => assert_eq!(receiving.data.len(), sending.size, "stream {stream} is cut"),
                        ReceiveState::Reset(code) => {
                            let expected = if sending.writer == Writer::LetGo { LET_GO } else { WRITER_CODE };
                            assert_eq!(code, expected, "stream {stream}: {sending:?}");
                            assert_ne!(sending.writer, Writer::Finish, "stream {stream} was ended, not reset");
                        }
                        other => panic!("stream {stream} ends as {other:?}"),
                    }
                }
                None => assert!(matches!(whole, ReceiveState::Reset(LET_GO)), "stream {stream} ends as {whole:?}"),
            }
        }
        receiving.is_over
    }

    fn run(&mut self, seed: u64) {
        let rounds = 60 + seed % 60;
        for round in 0..rounds {
            for side in [CLIENT, SERVER] {
                for _ in 0..self.below(4) {
                    self.open(side);
                }
            }
            if self.pair.chance() < 0.2 {
                self.update_keys();
            }
            if self.pair.chance() < 0.02 {
                self.pair.addresses[CLIENT].set_port(2000 + round as u16);
            }
            for _ in 0..self.below(12) {
                self.pair.step();
                self.take_events();
            }
            self.act(false);
        }
        for _ in 0..400_000 {
            if self.is_over() {
                break;
            }
            assert!(self.pair.step(), "the network fell silent before all streams were over: {}", self.open_ones());
            self.take_events();
            self.act(true);
        }
        assert!(self.is_over(), "never over: {}", self.open_ones());
        self.pair.link = Link { loss: 0.0, ..self.pair.link };
        self.pair.run_for(Duration::from_secs(8));
        self.take_events();
        for side in [CLIENT, SERVER] {
            for (stream, end) in &self.ends[1 - side] {
                assert!(self.ends[side].contains_key(stream), "side {side} has no event of stream {stream}: {end:?}");
            }
        }
        self.check_credit();
    }

    /// Let a side begin to use new keys. It must not before it knows that the peer has those in use (RFC 9001, section 6.1),
    /// which the core leaves to whoever forces an update: also after the update that the core begins by itself, once.
    fn update_keys(&mut self) {
        let side = self.below(2);
        let received = [CLIENT, SERVER].map(|side| {
            self.pair.engines[side].connection_stats(self.pair.ids[side]).expect("it lives").packets_received
        });
        let updates = [CLIENT, SERVER].map(|side| self.pair.engines[side].key_updates(self.pair.ids[side]));
        if updates != self.key_updates {
            (self.key_updates, self.at_key_update) = (updates, received);
        }
        if updates[CLIENT] == updates[SERVER] && (0..2).all(|side| received[side] > self.at_key_update[side] + 50) {
            self.pair.engines[side].update_keys(self.pair.ids[side]);
        }
    }

    fn is_over(&self) -> bool {
        let of = |side: usize| self.ends[side].values().all(|end| end.is_released);
        // A stream that was opened comes up on the other side, however it ended.
        let is_known = |side: usize| self.opened[side].iter().all(|stream| self.ends[1 - side].contains_key(stream));
        of(CLIENT) && of(SERVER) && is_known(CLIENT) && is_known(SERVER)
    }

    fn open_ones(&mut self) -> String {
        let mut open = Vec::new();
        for side in [CLIENT, SERVER] {
            let id = self.pair.ids[side];
            for (stream, end) in self.ends[side].iter().filter(|(_, end)| !end.is_released) {
                let engine = &mut self.pair.engines[side];
                let state = (engine.send_state(id, *stream), engine.receive_state(id, *stream));
                open.push(format!("side {side}, stream {stream}: {end:?} {state:?}"));
            }
            for stream in self.opened[side].iter().filter(|stream| !self.ends[1 - side].contains_key(stream)) {
                open.push(format!("stream {stream} never came up on side {}", 1 - side));
            }
        }
        open.join("\n")
    }

    /// The streams that an engine has not forgotten.
    fn kept(&mut self, side: usize) -> String {
        let (id, engine) = (self.pair.ids[side], &mut self.pair.engines[side]);
        let mut kept = String::new();
        for (stream, end) in &self.ends[side] {
            let state = (engine.send_state(id, *stream), engine.receive_state(id, *stream));
            if state != (SendState::Gone, ReceiveState::Gone) {
                kept.push_str(&format!(
                    "{stream}: {state:?} {end:?}, on the other side {:?}\n",
                    self.ends[1 - side].get(stream)
                ));
            }
        }
        kept
    }

    /// Everything is closed: all that can be counted is back where it began.
    fn check_credit(&mut self) {
        for side in [CLIENT, SERVER] {
            let id = self.pair.ids[side];
            let kept = self.kept(side);
            assert!(kept.is_empty(), "side {side} keeps streams:\n{kept}");
            let streams = self.pair.engines[side].core_streams(id);
            assert_eq!(streams, Some([0; 3]), "the core of side {side} keeps streams");
        }
        for side in [CLIENT, SERVER] {
            for (header, most) in [(DATA_STREAM, STREAMS[0]), (UNIDIRECTIONAL_STREAM, STREAMS[1])] {
                let most = if self.flow_control { most - 5 } else { most };
                let id = self.pair.ids[side];
                let mut opened = Vec::new();
                for _ in 0..most {
                    let now = self.pair.now;
                    let bidirectional = header == DATA_STREAM;
                    match self.pair.engines[side].open_stream(now, id, bidirectional, header, Some(SESSION)) {
                        Some(stream) => opened.push(stream),
                        None => break,
                    }
                }
                // Up to an eighth (the core) or a half (the session) is announced only with what comes next.
                let least = if self.flow_control { most / 2 } else { most - most / 8 - 1 };
                assert!(opened.len() as u64 >= least, "side {side} may open {} of {most} streams", opened.len());
                let most = if self.flow_control { SESSION_WINDOW } else { CONNECTION_WINDOW };
                let mut sent = 0;
                for stream in &opened {
                    sent += self.pair.engines[side].write(id, *stream, &vec![1; 30_000]).unwrap();
                }
                assert!(sent as u64 > most, "enough is written");
                self.pair.run_for(Duration::from_secs(4));
                let mut arrived = 0;
                let far = self.pair.ids[1 - side];
                for stream in self.pair.incoming(1 - side) {
                    let stats = self.pair.engines[1 - side].stream_stats(self.pair.now, far, stream).unwrap();
                    arrived += stats.received;
                }
                let least = if self.flow_control { most / 2 } else { most - most / 8 - 1 };
                let least = least - 3 * opened.len() as u64;
                assert!(arrived >= least, "side {side}: {arrived} of {most} bytes of credit came back");
                for stream in &opened {
                    self.pair.engines[side].release(self.pair.now, id, *stream, LET_GO);
                }
                for _ in 0..4 {
                    for stream in self.pair.incoming(1 - side) {
                        self.pair.engines[1 - side].release(self.pair.now, far, stream, LET_GO);
                    }
                    self.pair.events[1 - side].retain(|event| !matches!(event, Event::Stream { .. }));
                    self.take_events();
                    self.pair.run_for(Duration::from_secs(2));
                }
            }
        }
        for side in [CLIENT, SERVER] {
            let id = self.pair.ids[side];
            assert_eq!(self.pair.engines[side].stream_count(id), 0, "side {side} keeps streams");
            assert_eq!(self.pair.engines[side].core_streams(id), Some([0; 3]), "the core of side {side} keeps streams");
        }
    }
}

#[test]
fn whatever_the_network_does_streams_arrive_whole_and_all_credit_comes_back() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    let seeds = match number("WTIO_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WTIO_SEEDS").unwrap_or(300),
    };
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| Life::new(seed).run(seed)));
        assert!(result.is_ok(), "to run it again: WTIO_SEED={seed} cargo test -p wtio-engine --test all rough::");
    }
}
