//! Why a connection is over, in plain words.

use quinn_proto::ConnectionError;

use crate::event::CloseCause;

/// The cause, code and reason of what the core reports as the end of a connection.
pub(super) fn describe(error: ConnectionError) -> (CloseCause, u64, String) {
    /// RFC 9001, section 4.8: TLS alerts are transport errors 0x100 to 0x1ff.
    fn tls(code: u64) -> Option<u64> {
        code.checked_sub(0x100).filter(|alert| *alert < 0x100)
    }
    const CONNECTION_REFUSED: u64 = 0x2;
    match error {
        ConnectionError::VersionMismatch => (CloseCause::Version, 0, "the peer speaks no QUIC version 1".into()),
        ConnectionError::TransportError(e) => {
            let code = u64::from(e.code);
            match tls(code) {
                Some(alert) => (CloseCause::Tls, alert, e.reason),
                None => (CloseCause::Protocol, code, e.to_string()),
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            match tls(code) {
                Some(alert) => (CloseCause::Tls, alert, reason),
                None if code == CONNECTION_REFUSED => (CloseCause::Refused, code, reason),
                None => (CloseCause::Transport, code, reason),
            }
        }
        ConnectionError::ApplicationClosed(close) => {
            (CloseCause::Application, close.error_code.into(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        ConnectionError::Reset => (CloseCause::Reset, 0, "stateless reset by the peer".into()),
        ConnectionError::TimedOut => (CloseCause::Idle, 0, "no packet within the idle timeout".into()),
        ConnectionError::LocallyClosed => (CloseCause::Local, 0, String::new()),
        ConnectionError::CidsExhausted => (CloseCause::Protocol, 0, "connection ids are exhausted".into()),
    }
}
