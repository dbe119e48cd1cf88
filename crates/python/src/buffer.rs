//! The bytes of Python's buffers, looked at without a copy.

use pyo3::{
    buffer::PyBuffer,
    exceptions::PyBufferError,
    prelude::*,
    sync::critical_section::with_critical_section,
    types::{PyByteArray, PyBytes},
};

/// Show the bytes of a buffer to `look`, without a copy.
#[expect(unsafe_code, reason = "the buffer protocol hands out a pointer")]
pub(crate) fn with_bytes<R>(data: &Bound<'_, PyAny>, look: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(look(bytes.as_bytes()));
    }
    if let Ok(array) = data.cast::<PyByteArray>() {
        // SAFETY: the GIL is held, or without one the array's own lock, and `look` runs no Python code, so nobody resizes the
        // array meanwhile.
        return Ok(with_critical_section(array, || look(unsafe { array.as_bytes() })));
    }
    let buffer = PyBuffer::<u8>::get(data)?;
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not contiguous; pass bytes(data)"));
    }
    if buffer.len_bytes() == 0 {
        return Ok(look(&[]));
    }
    // SAFETY: the view is contiguous and stays exported while `buffer` lives, so that its memory stays where it is. The GIL is
    // held and `look` runs no Python code, so nobody writes to it meanwhile. Without a GIL another thread might; Python's own
    // `bytes(data)` would read it just so, and programs have to see to it themselves.
    Ok(look(unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes()) }))
}
