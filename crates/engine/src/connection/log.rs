//! The qlog of a connection, for the layers above.

use std::{io, path::Path};

use super::ConnectionMut;

impl ConnectionMut<'_> {
    /// Whether there is a qlog of the connection.
    #[must_use]
    pub fn has_qlog(&self) -> bool {
        self.connection.core.has_log()
    }

    /// Write an event into the qlog, if there is one: its name, and its data as a JSON object.
    pub fn note(&mut self, name: &str, data: &str) {
        self.connection.core.note(name, format_args!("{data}"));
        self.connection.core.flush_log();
    }

    /// Begin a qlog from our own layer. False: there is one already.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn start_qlog(&mut self, path: &Path) -> io::Result<bool> {
        self.connection.core.start_log(path, self.now)
    }

    /// End what [`ConnectionMut::start_qlog`] has begun. False: there is nothing to end.
    pub fn stop_qlog(&mut self) -> bool {
        self.connection.core.stop_log()
    }
}
