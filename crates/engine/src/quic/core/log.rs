//! The connection's qlog, if somebody wants one.

use std::{io, path::Path, time::Instant};

use bytes::Bytes;

use super::{Core, ReadEnd};
use crate::{
    datagrams::Offer,
    qlog::Qlog,
    quic::qlog::{ConnectionLog, Half},
};

impl Core {
    /// Write events to a new connection's file from now on. The core writes on it, too.
    pub(in crate::quic) fn begin_log(&mut self, qlog: Qlog) {
        self.log = Some(Box::new(ConnectionLog::of_connection(qlog, self.inner.remote_address())));
    }

    /// Write events to a file from now on, of a connection that may be under way. False: there is one already.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn start_log(&mut self, path: &Path, now: Instant) -> io::Result<bool> {
        if self.log.is_some() {
            return Ok(false);
        }
        self.log = Some(Box::new(ConnectionLog::of_own_layer(path, now, self.is_client())?));
        Ok(true)
    }

    /// Write no more events to a file that [`Core::start_log`] has begun. False: there is none.
    pub(crate) fn stop_log(&mut self) -> bool {
        self.log.take_if(|log| !log.has_core()).is_some()
    }

    pub(crate) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// What happens from now on happens at this moment.
    #[inline]
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// The log, with the time set.
    pub(super) fn log(&self) -> Option<&ConnectionLog> {
        self.log.as_deref().inspect(|log| log.set_now(self.now))
    }

    /// Write an event of the engine, or of the layers above.
    #[inline]
    pub(crate) fn note(&self, name: &str, data: std::fmt::Arguments<'_>) {
        if let Some(log) = self.log() {
            log.event(name, data);
        }
    }

    /// Have what was noted in the file at once.
    pub(crate) fn flush_log(&self) {
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    #[inline]
    pub(super) fn note_stream(&self, stream_id: u64, half: Half, state: &str, is_local: bool) {
        if self.log.is_some() {
            self.log_stream(stream_id, half, state, is_local);
        }
    }

    /// Note to which session a stream belongs that was opened.
    #[inline]
    pub(crate) fn note_session_stream(&self, stream_id: u64, session_id: u64, is_local: bool) {
        if self.log.is_some() {
            self.log_session_stream(stream_id, session_id, is_local);
        }
    }

    // What follows is out of the way of those who want no log.

    #[cold]
    #[inline(never)]
    fn log_stream(&self, stream_id: u64, half: Half, state: &str, is_local: bool) {
        if let Some(log) = self.log() {
            log.stream(stream_id, half, state, is_local);
        }
    }

    /// What a read found at the end of what it took.
    #[cold]
    #[inline(never)]
    pub(super) fn log_read(&self, stream_id: u64, end: ReadEnd) {
        match end {
            ReadEnd::Ended => self.log_stream(stream_id, Half::Receiving, "data_read", true),
            ReadEnd::Reset(_) => self.log_stream(stream_id, Half::Receiving, "reset_read", true),
            ReadEnd::Blocked | ReadEnd::Gone => {}
        }
    }

    #[cold]
    #[inline(never)]
    fn log_session_stream(&self, stream_id: u64, session_id: u64, is_local: bool) {
        let initiator = if is_local { "local" } else { "remote" };
        self.note(
            "webtransport:stream_opened",
            format_args!("{{\"session_id\":{session_id},\"stream_id\":{stream_id},\"initiator\":\"{initiator}\"}}"),
        );
    }

    /// A packet came.
    #[cold]
    #[inline(never)]
    pub(super) fn log_packet(&mut self, now: Instant) {
        self.now = now;
        if let Some(log) = &mut self.log {
            log.set_now(now);
            log.note(&self.inner.stats().path);
        }
    }

    /// The handshake is complete.
    #[cold]
    #[inline(never)]
    pub(super) fn log_connected(&self) {
        if let Some(log) = self.log() {
            log.connected(self.tap_handle().and_then(|handle| handle.alpn).as_deref());
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn log_datagram(&self, name: &str, data: &[u8]) {
        if let Some(log) = self.log() {
            log.datagram(name, data);
        }
    }

    /// Give the core a datagram, and note it if it is taken.
    #[cold]
    #[inline(never)]
    pub(super) fn send_logged(&mut self, data: Bytes) -> Offer {
        let noted = data.clone();
        let offer = self.send_to_core(data);
        if matches!(offer, Offer::Taken) {
            self.log_datagram("http3:datagram_created", &noted);
        }
        offer
    }
}
