//! Errors of the system, as Python has them.

use pyo3::{exceptions::PyOSError, prelude::*};

/// An OSError with its `errno`, which pyo3's own conversion leaves out.
#[expect(clippy::needless_pass_by_value, reason = "used as map_err(raise_os)")]
pub(crate) fn raise_os(error: std::io::Error) -> PyErr {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => {
            let words = text.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((code, words))
        }
        None => PyOSError::new_err(text),
    }
}
