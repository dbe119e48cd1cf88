//! A qlog: what happens on one connection, in a file for tools that draw it (draft-ietf-quic-qlog-main-schema-13).
//!
//! Events are JSON text sequences (RFC 7464), written here one by one. What they say is decided where they happen: by the
//! core, of which [`quic::qlog`](crate::quic) has the events, by the engine, and by the layers above. None of them gives
//! payload, header fields or tokens.
//!
//! Nothing here fails: a file that cannot be written on, because the disk is full for instance, ends where it is.

use std::{
    fmt::{self, Write as _},
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Bytes of one file. The last event says that it was reached.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;
/// Bytes and number of the files that one process makes by itself. Each first packet of a stranger may be one.
const PROCESS_LIMIT: u64 = 1024 * 1024 * 1024;
const FILES_LIMIT: u64 = 10_000;
/// Bytes that wait to be written together.
const BUFFER: usize = 16 * 1024;

/// What this process has made by itself so far: files, and bytes in them.
static FILES: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// What events of ours are called after. There are tools that know the first two.
const SCHEMAS: &str = concat!(
    "\"urn:ietf:params:qlog:events:quic-12\",\"urn:ietf:params:qlog:events:http3-12\",",
    "\"urn:ietf:params:qlog:events:loglevel-13\",\"https://github.com/wtio/wtio/112026/webtransport\""
);

/// Whose events a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The core's and ours, of a connection from its beginning.
    Everything,
    /// Ours, of a connection that has been there before.
    OwnLayer,
}

/// A file that events are appended to. Copies are the same file.
#[derive(Clone)]
pub(crate) struct Qlog(Arc<Mutex<Sink>>);

struct Sink {
    /// `None` once it cannot be written on, or is full.
    out: Option<BufWriter<Box<dyn Write + Send>>>,
    /// Zero of all times in the file.
    start: Instant,
    /// The moment of the events that come next.
    now: Instant,
    written: u64,
    most: u64,
    /// Where it is, if this process made it by itself and counts it.
    counted: Option<PathBuf>,
    /// The event that is being put together; empty between calls.
    line: String,
}

impl Qlog {
    /// Begin a file for a new connection in a directory. `None`: the system refuses, or there are enough.
    pub(crate) fn in_directory(directory: &Path, now: Instant, is_client: bool) -> Option<Self> {
        if BYTES.load(Ordering::Relaxed) >= PROCESS_LIMIT {
            return None;
        }
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        if number >= FILES_LIMIT {
            return None;
        }
        let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let name = format!("{began}-{}-{number}-{}.sqlog", std::process::id(), side(is_client));
        let path = directory.join(name);
        let file = open(&path).ok()?;
        Some(Self::begin(Box::new(file), now, is_client, Source::Everything, Some(path)))
    }

    /// Begin a file for a connection that is under way.
    ///
    /// # Errors
    /// When the system refuses, for instance because the file is there already.
    pub(crate) fn create(path: &Path, now: Instant, is_client: bool) -> io::Result<Self> {
        Ok(Self::begin(Box::new(open(path)?), now, is_client, Source::OwnLayer, None))
    }

    fn begin(
        out: Box<dyn Write + Send>,
        now: Instant,
        is_client: bool,
        source: Source,
        counted: Option<PathBuf>,
    ) -> Self {
        let (title, description, place) = match source {
            Source::Everything => (
                "wtio: a connection",
                "Packets, loss and recovery as the QUIC core has them; streams, datagrams, HTTP/3 and sessions as wtio \
                 has them. No payload, no header fields.",
                "wtio",
            ),
            Source::OwnLayer => (
                "wtio: a connection from its own layer",
                "Begun in the middle of the connection, above the QUIC core: there are no packets. Streams, datagrams, \
                 sessions, and how round-trip time and congestion window change. No payload, no header fields.",
                "wtio, above QUIC",
            ),
        };
        let qlog = Self(Arc::new(Mutex::new(Sink {
            out: Some(BufWriter::with_capacity(BUFFER, out)),
            start: now,
            now,
            written: 0,
            most: FILE_LIMIT,
            counted,
            line: String::new(),
        })));
        let side = side(is_client);
        let moment = moment(SystemTime::now());
        qlog.record(
            format!(
                "\x1e{{\"file_schema\":\"urn:ietf:params:qlog:file:sequential\",\
                 \"serialization_format\":\"application/qlog+json-seq\",\"title\":\"{title} ({side})\",\
                 \"description\":\"{description}\",\"trace\":{{\"common_fields\":{{\
                 \"time_format\":\"relative_to_epoch\",\"reference_time\":{{\"clock_type\":\"monotonic\",\
                 \"epoch\":\"unknown\",\"wall_clock_time\":\"{moment}\"}}}},\
                 \"vantage_point\":{{\"name\":\"{place}\",\"type\":\"{side}\"}},\"event_schemas\":[{SCHEMAS}]}}}}\n"
            )
            .as_bytes(),
        );
        qlog.flush();
        qlog
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens from now on happens at this moment.
    pub(crate) fn set_now(&self, now: Instant) {
        self.sink().now = now;
    }

    pub(crate) fn start(&self) -> Instant {
        self.sink().start
    }

    /// Write an event: its name, and its data as a JSON object.
    pub(crate) fn event(&self, name: &str, data: fmt::Arguments<'_>) {
        self.sink().event(name, data);
    }

    /// Write a whole event, from its record separator to its line feed.
    pub(crate) fn record(&self, record: &[u8]) {
        self.sink().record(record);
    }

    /// Write what waits, so that it is there if the process ends.
    pub(crate) fn flush(&self) {
        let mut sink = self.sink();
        if sink.out.as_mut().is_some_and(|out| out.flush().is_err()) {
            sink.give_up();
        }
    }

    /// Remove the file: there was no connection.
    pub(crate) fn discard(&self) {
        let mut sink = self.sink();
        sink.give_up();
        if let Some(path) = sink.counted.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Sink {
    fn event(&mut self, name: &str, data: fmt::Arguments<'_>) {
        let time = self.now.saturating_duration_since(self.start).as_secs_f64() * 1000.0;
        let mut line = std::mem::take(&mut self.line);
        let _ = writeln!(line, "\x1e{{\"time\":{time:.3},\"name\":\"{name}\",\"data\":{data}}}");
        self.record(line.as_bytes());
        line.clear();
        self.line = line;
    }

    fn record(&mut self, record: &[u8]) {
        if self.out.is_none() {
            return;
        }
        let size = record.len() as u64;
        if self.written + size > self.most {
            // Room for this one was never counted.
            self.most = u64::MAX;
            let most = FILE_LIMIT;
            self.event(
                "loglevel:warning",
                format_args!("{{\"message\":\"the file has its largest size of {most} bytes, and ends here\"}}"),
            );
            if let Some(out) = &mut self.out {
                let _ = out.flush();
            }
            self.give_up();
            return;
        }
        self.written += size;
        if self.counted.is_some() && BYTES.fetch_add(size, Ordering::Relaxed) >= PROCESS_LIMIT {
            return;
        }
        if self.out.as_mut().is_some_and(|out| out.write_all(record).is_err()) {
            self.give_up();
        }
    }

    /// Write nothing more, not even what waits: that would only be tried again.
    fn give_up(&mut self) {
        if let Some(out) = self.out.take() {
            drop(out.into_parts());
        }
    }
}

fn side(is_client: bool) -> &'static str {
    if is_client { "client" } else { "server" }
}

/// Make a file that only its owner can read (on Windows, whoever its directory says).
fn open(path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A moment as RFC 3339 has it, in UTC.
fn moment(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years begin in March here, so that the day that is left over is the last one; an era is 400 of them.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared {
        content: Arc<Mutex<Vec<u8>>>,
        /// Bytes that it takes before it is full.
        room: Option<usize>,
    }

    impl Write for Shared {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let mut content = self.content.lock().unwrap();
            if self.room.is_some_and(|room| content.len() + data.len() > room) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            content.extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn begun(out: &Shared, source: Source) -> (Qlog, Instant) {
        let now = Instant::now();
        (Qlog::begin(Box::new(out.clone()), now, true, source, None), now)
    }

    fn text(out: &Shared) -> String {
        String::from_utf8(out.content.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, words) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(moment(UNIX_EPOCH + Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn times_are_milliseconds_since_the_beginning() {
        let out = Shared::default();
        let (qlog, start) = begun(&out, Source::Everything);
        qlog.set_now(start + Duration::from_micros(12_345));
        qlog.event("quic:mtu_updated", format_args!("{{\"new\":1200}}"));
        qlog.flush();
        assert!(text(&out).ends_with("\x1e{\"time\":12.345,\"name\":\"quic:mtu_updated\",\"data\":{\"new\":1200}}\n"));
    }

    #[test]
    fn a_file_ends_with_a_warning_at_its_largest_size() {
        let out = Shared::default();
        let (qlog, _) = begun(&out, Source::OwnLayer);
        let event = [b'x'; 60_000];
        for _ in 0..400 {
            qlog.record(&event);
        }
        qlog.flush();
        let content = text(&out);
        assert!(content.len() as u64 <= FILE_LIMIT + 200);
        assert!(content.len() as u64 > FILE_LIMIT - 60_000);
        assert!(content.ends_with("and ends here\"}}\n"));
    }

    #[test]
    fn a_process_makes_no_more_files_than_it_may() {
        let directory = std::env::temp_dir().join(format!("wtio-qlogs-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let now = Instant::now();
        let first = Qlog::in_directory(&directory, now, true).unwrap();
        assert!(Qlog::in_directory(Path::new("/nowhere/at/all"), now, true).is_none());
        FILES.store(FILES_LIMIT, Ordering::Relaxed);
        assert!(Qlog::in_directory(&directory, now, true).is_none());
        FILES.store(0, Ordering::Relaxed);
        BYTES.fetch_add(PROCESS_LIMIT, Ordering::Relaxed);
        assert!(Qlog::in_directory(&directory, now, true).is_none());
        first.event("quic:mtu_updated", format_args!("{{\"new\":1200}}"));
        first.flush();
        BYTES.fetch_sub(PROCESS_LIMIT, Ordering::Relaxed);
        let files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        assert!(!std::fs::read_to_string(&files[0]).unwrap().contains("mtu_updated"));
        first.discard();
        assert!(std::fs::read_dir(&directory).unwrap().next().is_none());
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn a_disk_that_is_full_ends_the_file_and_nothing_else() {
        let out = Shared { room: Some(20_000), ..Shared::default() };
        let (qlog, _) = begun(&out, Source::Everything);
        for number in 0..2000 {
            qlog.event("quic:mtu_updated", format_args!("{{\"new\":{number}}}"));
        }
        qlog.flush();
        assert!(qlog.sink().out.is_none());
        assert!(text(&out).len() <= 20_000);
    }
}
