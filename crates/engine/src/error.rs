//! Why an engine or a connection cannot be made.

use std::fmt;

use crate::tls::TlsError;

/// Why an engine or a connection cannot be made.
#[derive(Debug, Clone)]
pub enum SetupError {
    /// An option has a value that the QUIC core does not take.
    Option(String),
    /// A certificate, key or trust setting cannot be used.
    Tls(TlsError),
    /// No connection can be made to this address or server name.
    Destination(String),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(text) | Self::Destination(text) => f.write_str(text),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SetupError {}

impl From<TlsError> for SetupError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}
