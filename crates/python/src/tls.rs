//! Certificates and trust, as Python sees them.

use pyo3::{
    create_exception,
    exceptions::{PyException, PyOSError, PyValueError},
    prelude::*,
    types::PyBytes,
};
use wtio_engine::{SetupError, tls};

use crate::figures::CertificateFacts;

create_exception!(_core, TlsError, PyException, "A certificate, key or trust setting that cannot be used.");

/// The one place where the engine's errors become Python's.
pub(crate) fn raise(error: impl Into<SetupError>) -> PyErr {
    match error.into() {
        SetupError::Option(text) => PyValueError::new_err(text),
        SetupError::Tls(error) => TlsError::new_err(error.0),
        SetupError::Destination(text) => PyOSError::new_err(text),
    }
}

#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct ClientTls(pub(crate) tls::ClientTls);

#[pymethods]
impl ClientTls {
    #[new]
    #[pyo3(signature = (*, mode, roots_pem, hashes, certificate_pem, key_pem))]
    fn new(
        mode: &str,
        roots_pem: Option<&[u8]>,
        hashes: Vec<Vec<u8>>,
        certificate_pem: &[u8],
        key_pem: &[u8],
    ) -> PyResult<Self> {
        let trust = match mode {
            "system" => tls::Trust::System,
            "roots" => tls::Trust::Roots(roots_pem.unwrap_or_default().to_vec()),
            "hashes" => tls::Trust::Hashes(
                hashes
                    .into_iter()
                    .map(|hash| {
                        <[u8; 32]>::try_from(hash.as_slice()).map_err(|_| {
                            PyValueError::new_err(format!("a SHA-256 hash has 32 bytes, this one has {}", hash.len()))
                        })
                    })
                    .collect::<PyResult<_>>()?,
            ),
            "insecure" => tls::Trust::Insecure,
            other => return Err(PyValueError::new_err(format!("unknown trust mode `{other}`"))),
        };
        let own = match (certificate_pem, key_pem) {
            ([], []) => None,
            pair => Some(pair),
        };
        tls::ClientTls::new(trust, own).map(Self).map_err(raise)
    }
}

#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct ServerTls(pub(crate) tls::ServerTls);

#[pymethods]
impl ServerTls {
    #[new]
    #[pyo3(signature = (*, certificate_pem, key_pem))]
    fn new(certificate_pem: &[u8], key_pem: &[u8]) -> PyResult<Self> {
        tls::ServerTls::new(certificate_pem, key_pem).map(Self).map_err(raise)
    }

    #[getter]
    fn certificates<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.certificates().iter().map(|der| PyBytes::new(py, der)).collect()
    }
}

type Generated<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

#[pyfunction]
pub(crate) fn generate_certificate(
    py: Python<'_>,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
) -> PyResult<Generated<'_>> {
    let (certificate, key, der) = tls::generate_certificate(&names, not_before, not_after).map_err(raise)?;
    Ok((PyBytes::new(py, certificate.as_bytes()), PyBytes::new(py, key.as_bytes()), PyBytes::new(py, &der)))
}

#[pyfunction]
pub(crate) fn certificate_facts(der: &[u8]) -> PyResult<CertificateFacts> {
    tls::certificate_facts(der).map(CertificateFacts::new).map_err(raise)
}

#[pyfunction]
pub(crate) fn sha256<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &tls::sha256(data))
}
