//! Files of connections (qlog), opened by somebody else's reader: the `qlog` crate of quiche, which knows the drafts' events.
//!
//! Its newest version reads what ours says it is; the one in the core writes older drafts, and is another crate here.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::support::{
    CLEAN, CLIENT, DATA_STREAM, Link, Pair, SERVER, SESSION, Shortcuts as _, UNIDIRECTIONAL_STREAM, pattern,
};
use qlog::{
    VantagePointType,
    events::EventData,
    reader::{Event, QlogSeqReader},
};

const LOSSY: Link = Link { loss: 0.05, ..CLEAN };

/// A directory of its own for a test, which is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wtio-qlog-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the reader makes of a file: whose it is, and the names of events, each of which it must know unless it is ours.
fn read(path: &Path) -> (VantagePointType, String, Vec<String>) {
    let reader = QlogSeqReader::with_file(path).unwrap();
    let head = reader.qlog.clone();
    assert_eq!(head.file_schema, "urn:ietf:params:qlog:file:sequential");
    assert!(head.trace.event_schemas.contains(&qlog::events::QUIC_URI.to_owned()));
    assert!(head.trace.event_schemas.contains(&qlog::events::HTTP3_URI.to_owned()));
    let mut names = Vec::new();
    let mut last = 0.0;
    for event in reader {
        let (name, time) = match event {
            Event::Qlog(event) => {
                if let EventData::QuicMetricsUpdated(metrics) = &event.data {
                    // The path takes 10 ms each way, and the core supposes 333 ms before it knows.
                    assert!(metrics.min_rtt.is_none_or(|rtt| (19.9..340.0).contains(&rtt)), "{metrics:?}");
                }
                (serde_json_name(&event.data), event.time)
            }
            Event::Json(event) => {
                // The draft has this word; the reader has `handshake_completed`.
                let is_of_the_draft = event.data["new"] == "handshake_complete";
                let is_known = event.name.starts_with("webtransport:") || is_of_the_draft;
                assert!(is_known, "the reader does not know {} {}", event.name, event.data);
                (event.name, event.time)
            }
        };
        // The core has the time in fewer digits.
        assert!(time >= last - 0.01, "{name} at {time} comes behind {last}");
        last = time;
        names.push(name);
    }
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(names.len() + 1, text.lines().count(), "the reader has left out events");
    (head.trace.vantage_point.unwrap().ty, head.title.unwrap(), names)
}

/// The name that an event has in the file.
fn serde_json_name(data: &EventData) -> String {
    // Debug output begins with the variant.
    let text = format!("{data:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

fn run_session(pair: &mut Pair) {
    let stream = pair.open(CLIENT, DATA_STREAM);
    pair.transfer(CLIENT, stream, &pattern(100_000));
    let other = pair.open(SERVER, UNIDIRECTIONAL_STREAM);
    pair.transfer(SERVER, other, b"hidden words");
    pair.run_for(Duration::from_secs(2));
    for side in [CLIENT, SERVER] {
        let (id, now) = (pair.ids[side], pair.now);
        if let Some(mut connection) = pair.engines[side].connection(now, id) {
            let _ = connection.datagrams(SESSION).send(b"hidden words");
            connection.note("webtransport:session_opened", "{\"session_id\":0}");
        }
    }
    pair.run_for(Duration::from_secs(2));
    let (id, now) = (pair.ids[CLIENT], pair.now);
    pair.engines[CLIENT].close(now, id, 0x100, b"hidden words");
    // The link may lose that; then the idle timeout ends the other side.
    pair.run_for(Duration::from_secs(40));
}

#[test]
fn new_connections_write_files_that_another_reader_understands() {
    let directory = Directory::new("new");
    let mut pair = Pair::prepared(7, LOSSY, |_| (), |engine| engine.write_qlogs(directory.0.clone()));
    pair.connect();
    run_session(&mut pair);
    let mut sides = Vec::new();
    for path in directory.files() {
        let (side, title, names) = read(&path);
        let kinds: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for kind in [
            "QuicConnectionStarted",
            "QuicConnectionStateUpdated",
            "QuicConnectionClosed",
            "QuicPacketSent",
            "QuicPacketReceived",
            "QuicPacketLost",
            "QuicMetricsUpdated",
            "QuicMtuUpdated",
            "QuicStreamStateUpdated",
            "webtransport:stream_opened",
            "webtransport:session_opened",
        ] {
            assert!(kinds.contains(kind), "{title}: no {kind} among {kinds:?}");
        }
        assert!(!fs::read_to_string(&path).unwrap().contains("hidden"));
        sides.push(side);
    }
    assert_eq!(sides.len(), 2);
    assert!(sides.contains(&VantagePointType::Client));
    assert!(sides.contains(&VantagePointType::Server));
}

#[test]
fn a_file_of_a_live_connection_says_that_it_is_from_our_layer() {
    let directory = Directory::new("live");
    let mut pair = Pair::new(7, LOSSY, |_| ());
    let (id, now) = (pair.ids[CLIENT], pair.now);
    let path = directory.0.join("live.sqlog");
    let mut connection = pair.engines[CLIENT].connection(now, id).unwrap();
    assert!(!connection.has_qlog());
    assert!(connection.start_qlog(&path).unwrap());
    assert!(!connection.start_qlog(&path).unwrap());
    drop(connection);
    run_session(&mut pair);
    let (side, title, names) = read(&path);
    assert_eq!(side, VantagePointType::Client);
    assert!(title.contains("own layer"));
    assert!(!names.iter().any(|name| name.starts_with("QuicPacket")));
    for kind in ["QuicMetricsUpdated", "QuicStreamStateUpdated", "Http3DatagramCreated", "QuicConnectionClosed"] {
        assert!(names.iter().any(|name| name == kind), "no {kind} among {names:?}");
    }
    assert!(!fs::read_to_string(&path).unwrap().contains("hidden"));
}

#[test]
fn a_file_that_is_there_is_left_alone() {
    let directory = Directory::new("there");
    let mut pair = Pair::new(7, LOSSY, |_| ());
    let path = directory.0.join("live.sqlog");
    fs::write(&path, "something else").unwrap();
    let (id, now) = (pair.ids[CLIENT], pair.now);
    let mut connection = pair.engines[CLIENT].connection(now, id).unwrap();
    assert_eq!(connection.start_qlog(&path).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert!(!connection.has_qlog());
    assert_eq!(fs::read_to_string(&path).unwrap(), "something else");
}

#[test]
fn a_directory_that_is_gone_ends_no_connection() {
    let mut pair = Pair::prepared(7, LOSSY, |_| (), |engine| engine.write_qlogs("/nowhere/at/all".into()));
    pair.connect();
    run_session(&mut pair);
}
