//! Errors of the system, as Python has them.

use pyo3::{exceptions::PyOSError, prelude::*};

/// Windows' own numbers that Python has as errno, too: errors of sockets. Those of files have another errno.
const SOCKETS: std::ops::Range<i32> = 10_000..12_000;

/// An OSError with its `errno`, which pyo3's own conversion leaves out.
#[expect(clippy::needless_pass_by_value, reason = "used as map_err(raise_os)")]
pub(crate) fn raise_os(error: std::io::Error) -> PyErr {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => {
            let words = text.split(" (os error").next().unwrap_or_default().to_owned();
            if cfg!(windows) && !SOCKETS.contains(&code) {
                // Python finds the errno and the class.
                PyOSError::new_err((code, words, None::<String>, code))
            } else {
                PyOSError::new_err((code, words))
            }
        }
        None => PyOSError::new_err(text),
    }
}
