//! The connection's qlog, if somebody wants one.

use std::{io, path::Path, time::Instant};

use super::Core;
use crate::{
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
    pub(crate) fn set_now(&self, now: Instant) {
        if let Some(log) = &self.log {
            log.set_now(now);
        }
    }

    /// Write an event of the engine, or of the layers above.
    #[inline]
    pub(crate) fn note(&self, name: &str, data: std::fmt::Arguments<'_>) {
        if let Some(log) = &self.log {
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
        if let Some(log) = &self.log {
            log.stream(stream_id, half, state, is_local);
        }
    }
}
