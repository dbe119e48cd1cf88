//! The file of TLS secrets with which other programs decrypt recorded packets (SSLKEYLOGFILE, RFC 9850).

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use rustls::KeyLog;

/// Appends the secrets of every handshake to a file, each line in one write, so that several processes may share the file.
#[derive(Debug)]
pub(crate) struct KeyFile(File);

impl KeyFile {
    /// Open a file, or make it, readable by its owner only (on Windows, by whoever its directory says).
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map(Self)
    }
}

impl KeyLog for KeyFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = label.to_owned();
        for field in [client_random, secret] {
            line.push(' ');
            for byte in field {
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push('\n');
        // A full disk must not end connections.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}
