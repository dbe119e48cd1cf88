//! The qlog of one connection: what the QUIC core writes, and what [`core`](super::core) adds for streams, datagrams and the
//! connection's life.
//!
//! The core writes the events of packets, loss and recovery by itself, in the words of older drafts, and with round-trip times
//! in seconds. [`CoreWriter`] puts them into the words and units of draft-ietf-quic-qlog-quic-events-12.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use quinn_proto::{QlogConfig, QlogStream};

use crate::{event::CloseCause, qlog::Qlog, stream::is_bidirectional, varint};

/// What the core says, and what it is called now.
const NEW_WORDS: [(&str, &str); 4] = [
    ("\"transport:packet_sent\"", "\"quic:packet_sent\""),
    ("\"transport:packet_received\"", "\"quic:packet_received\""),
    (LOST, "\"quic:packet_lost\""),
    ("\"recovery:metrics_updated\"", "\"quic:recovery_metrics_updated\""),
];
const LOST: &str = "\"recovery:packet_lost\"";
/// The size of a packet, which is beside its header now, and nowhere if the packet is lost.
const SIZE: &str = ",\"length\":";
/// Times in seconds that are to be milliseconds.
const SECONDS: [&str; 4] = ["\"min_rtt\":", "\"smoothed_rtt\":", "\"latest_rtt\":", "\"rtt_variance\":"];
/// A threshold that is not set.
const NO_THRESHOLD: &str = ",\"ssthresh\":18446744073709551615";

/// An event of the core in the words of today. What it says of the connection's ID is left out: there is one connection in a
/// file, and the core calls it by different ones.
fn translated(record: &str) -> String {
    let mut record = record.replacen(NO_THRESHOLD, "", 1);
    if let Some(start) = record.find(SIZE) {
        let end = start + SIZE.len();
        if record.contains(LOST) {
            let digits = record[end..].find(|one: char| !one.is_ascii_digit()).unwrap_or(0);
            record.replace_range(start..end + digits, "");
        } else {
            record.replace_range(start..end, "},\"raw\":{\"length\":");
        }
    }
    for (old, new) in NEW_WORDS {
        if record.contains(old) {
            record = record.replacen(old, new, 1);
        }
    }
    if let Some(start) = record.find(",\"group_id\":\"")
        && let Some(end) = record[start..].rfind('"')
    {
        record.replace_range(start..=start + end, "");
    }
    for name in SECONDS {
        if let Some(found) = record.find(name) {
            let start = found + name.len();
            let end = start + record[start..].find([',', '}']).unwrap_or(0);
            if let Ok(seconds) = record[start..end].parse::<f64>() {
                record.replace_range(start..end, &format!("{:.3}", seconds * 1000.0));
            }
        }
    }
    record
}

/// What the core writes on. It never fails, so the core never stops writing.
struct CoreWriter {
    qlog: Qlog,
    /// The event that is being written.
    record: String,
    /// The head of a file was left out; ours is there already.
    has_begun: bool,
}

impl Write for CoreWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.record.push_str(&String::from_utf8_lossy(piece));
            if piece.ends_with(b"\n") {
                if std::mem::replace(&mut self.has_begun, true) {
                    self.qlog.record(translated(&self.record).as_bytes());
                }
                self.record.clear();
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the core of a new connection writes its events.
pub(super) fn stream(qlog: &Qlog) -> Option<QlogStream> {
    let mut config = QlogConfig::default();
    config.writer(Box::new(CoreWriter { qlog: qlog.clone(), record: String::new(), has_begun: false }));
    config.start_time(qlog.start());
    config.into_stream()
}

/// Which half of a stream an event is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Half {
    Sending,
    Receiving,
}

/// A qlog, and what was last written on it.
pub(super) struct ConnectionLog {
    qlog: Qlog,
    /// The core writes on it, too.
    has_core: bool,
    /// Smoothed round-trip time, congestion window and MTU.
    seen: (Duration, u64, u16),
}

impl ConnectionLog {
    /// What a connection begins with: `remote` is the peer.
    pub(super) fn of_connection(qlog: Qlog, remote: SocketAddr) -> Self {
        let version = if remote.is_ipv4() { 4 } else { 6 };
        qlog.event(
            "quic:connection_started",
            format_args!(
                "{{\"local\":{{}},\"remote\":{{\"ip_v{version}\":\"{}\",\"port_v{version}\":{}}}}}",
                remote.ip(),
                remote.port()
            ),
        );
        qlog.event("quic:connection_state_updated", format_args!("{{\"new\":\"attempted\"}}"));
        Self { qlog, has_core: true, seen: (Duration::ZERO, 0, 0) }
    }

    /// Begin a file for a connection that is under way.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn of_own_layer(path: &Path, now: Instant, is_client: bool) -> io::Result<Self> {
        let qlog = Qlog::create(path, now, is_client)?;
        Ok(Self { qlog, has_core: false, seen: (Duration::ZERO, 0, 0) })
    }

    pub(super) fn has_core(&self) -> bool {
        self.has_core
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.qlog.set_now(now);
    }

    /// An event of the layers above.
    pub(super) fn event(&self, name: &str, data: std::fmt::Arguments<'_>) {
        self.qlog.event(name, data);
    }

    pub(super) fn flush(&self) {
        self.qlog.flush();
    }

    pub(super) fn connected(&self, alpn: Option<&[u8]>) {
        self.event("quic:connection_state_updated", format_args!("{{\"new\":\"handshake_complete\"}}"));
        // All that is ever offered is "h3".
        if alpn == Some(b"h3") {
            self.event("quic:alpn_information", format_args!("{{\"chosen_alpn\":{{\"string_value\":\"h3\"}}}}"));
        }
        self.flush();
    }

    /// CONNECTION_CLOSE leaves.
    pub(super) fn closing(&self, code: u64) {
        self.event(
            "quic:connection_closed",
            format_args!(
                "{{\"initiator\":\"local\",\"application_error\":\"unknown\",\"error_code\":{code},\
                 \"trigger\":\"application\"}}"
            ),
        );
        self.event("quic:connection_state_updated", format_args!("{{\"new\":\"closing\"}}"));
        self.flush();
    }

    /// The connection is over. The reasons of peers are left out: they may contain anything.
    pub(super) fn lost(&self, cause: CloseCause, code: u64, is_by_peer: bool) {
        let trigger = match cause {
            CloseCause::Application => "application",
            CloseCause::Idle => "idle_timeout",
            CloseCause::Reset => "stateless_reset",
            CloseCause::Version => "version_mismatch",
            CloseCause::Transport | CloseCause::Protocol | CloseCause::Tls | CloseCause::Refused => "error",
            CloseCause::Local => "unspecified",
        };
        let initiator = if is_by_peer { "remote" } else { "local" };
        let error = match cause {
            CloseCause::Application => "\"application_error\":\"unknown\",".to_owned(),
            CloseCause::Tls => format!("\"connection_error\":\"crypto_error_0x1{:02x}\",", code & 0xff),
            CloseCause::Transport | CloseCause::Protocol | CloseCause::Refused => {
                "\"connection_error\":\"unknown\",".to_owned()
            }
            CloseCause::Idle | CloseCause::Reset | CloseCause::Version | CloseCause::Local => String::new(),
        };
        if cause != CloseCause::Local {
            // What this side closes was written when it did.
            self.event(
                "quic:connection_closed",
                format_args!(
                    "{{\"initiator\":\"{initiator}\",{error}\"error_code\":{code},\"trigger\":\"{trigger}\"}}"
                ),
            );
        }
        self.event("quic:connection_state_updated", format_args!("{{\"new\":\"closed\"}}"));
        self.flush();
    }

    pub(super) fn stream(&self, stream_id: u64, half: Half, new: &str, is_local: bool) {
        let kind = if is_bidirectional(stream_id) { "bidirectional" } else { "unidirectional" };
        let side = match half {
            Half::Sending => "sending",
            Half::Receiving => "receiving",
        };
        let trigger = if is_local { "local" } else { "remote" };
        self.event(
            "quic:stream_state_updated",
            format_args!(
                "{{\"stream_id\":{stream_id},\"stream_type\":\"{kind}\",\"new\":\"{new}\",\"stream_side\":\"{side}\",\
                 \"trigger\":\"{trigger}\"}}"
            ),
        );
    }

    /// A datagram of a session, as its frame holds it: the quarter stream ID is in front (RFC 9297, section 2.1).
    pub(super) fn datagram(&self, name: &str, data: &[u8]) {
        let Some((quarter, payload)) = varint::split(data) else { return };
        self.event(
            name,
            format_args!(
                "{{\"quarter_stream_id\":{quarter},\"raw\":{{\"length\":{},\"payload_length\":{}}}}}",
                data.len(),
                payload.len()
            ),
        );
    }

    /// Write what has changed since the last packet. Of the rest the core writes by itself.
    pub(super) fn note(&mut self, path: &quinn_proto::PathStats) {
        let (rtt, window, mtu) = self.seen;
        if path.current_mtu != mtu {
            self.event("quic:mtu_updated", format_args!("{{\"new\":{}}}", path.current_mtu));
        }
        if !self.has_core && (path.rtt != rtt || path.cwnd != window) {
            self.event(
                "quic:recovery_metrics_updated",
                format_args!(
                    "{{\"smoothed_rtt\":{:.3},\"min_rtt\":{:.3},\"congestion_window\":{}}}",
                    path.rtt.as_secs_f64() * 1000.0,
                    path.min_rtt.as_secs_f64() * 1000.0,
                    path.cwnd
                ),
            );
        }
        self.seen = (path.rtt, path.cwnd, path.current_mtu);
    }
}

#[cfg(test)]
mod tests {
    use super::translated;

    #[test]
    fn events_of_the_core_get_the_words_and_units_of_today() {
        for (old, new) in [
            (
                r#"{"time":1.5,"name":"transport:packet_sent","data":{"header":{"packet_type":"1RTT","packet_number":7,"length":60}},"group_id":"ab"}"#,
                r#"{"time":1.5,"name":"quic:packet_sent","data":{"header":{"packet_type":"1RTT","packet_number":7},"raw":{"length":60}}}"#,
            ),
            (
                r#"{"time":1.5,"name":"transport:packet_received","data":{"header":{"packet_type":"initial","packet_number":7}},"group_id":"ab"}"#,
                r#"{"time":1.5,"name":"quic:packet_received","data":{"header":{"packet_type":"initial","packet_number":7}}}"#,
            ),
            (
                r#"{"time":1.5,"name":"recovery:packet_lost","data":{"header":{"packet_type":"1RTT","packet_number":7,"length":60},"trigger":"time_threshold"},"group_id":"ab"}"#,
                r#"{"time":1.5,"name":"quic:packet_lost","data":{"header":{"packet_type":"1RTT","packet_number":7},"trigger":"time_threshold"}}"#,
            ),
            (
                r#"{"time":1.5,"name":"recovery:metrics_updated","data":{"min_rtt":0.02,"smoothed_rtt":0.0215,"rtt_variance":1e-5,"congestion_window":12000,"ssthresh":18446744073709551615},"group_id":"ab"}"#,
                r#"{"time":1.5,"name":"quic:recovery_metrics_updated","data":{"min_rtt":20.000,"smoothed_rtt":21.500,"rtt_variance":0.010,"congestion_window":12000}}"#,
            ),
        ] {
            assert_eq!(translated(&format!("\x1e{old}\n")), format!("\x1e{new}\n"));
        }
    }
}
