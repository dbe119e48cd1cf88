//! Certificates and trust, as Python sees them.

use std::path::PathBuf;

use pyo3::{
    create_exception,
    exceptions::{PyException, PyOSError, PyValueError},
    prelude::*,
    types::PyBytes,
};
use wtio_engine::{SetupError, tls};

use crate::figures::CertificateFacts;

create_exception!(_core, TlsError, PyException, "A certificate, key or trust setting that cannot be used.");
create_exception!(_core, PrivateKeyError, TlsError, "A private key that cannot be used.");
create_exception!(_core, ClientAuthorityError, TlsError, "Authorities of clients that cannot be used.");

/// The one place where the engine's errors become Python's.
pub(crate) fn raise(error: impl Into<SetupError>) -> PyErr {
    match error.into() {
        SetupError::Option(text) => PyValueError::new_err(text),
        SetupError::Tls(tls::TlsError::PrivateKey(words)) => PrivateKeyError::new_err(words),
        SetupError::Tls(tls::TlsError::ClientAuthorities(words)) => ClientAuthorityError::new_err(words),
        SetupError::Tls(tls::TlsError::Other(words)) => TlsError::new_err(words),
        SetupError::Destination(text) => PyOSError::new_err(text),
    }
}

#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct ClientTls(pub(crate) tls::ClientTls);

#[pymethods]
impl ClientTls {
    #[new]
    #[pyo3(signature = (*, mode, roots_pem, hashes, certificate_pem, key_pem, key_log_file))]
    #[expect(clippy::needless_pass_by_value, reason = "what is extracted from an argument is owned")]
    fn new(
        mode: &str,
        roots_pem: Option<&[u8]>,
        hashes: Vec<Vec<u8>>,
        certificate_pem: &[u8],
        key_pem: &[u8],
        key_log_file: Option<PathBuf>,
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
        let tls = tls::ClientTls::new(trust, own).map_err(raise)?;
        let tls = match &key_log_file {
            None => tls,
            Some(path) => tls.logging_keys(path).map_err(raise)?,
        };
        Ok(Self(tls))
    }
}

#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct ServerTls(pub(crate) tls::ServerTls);

#[pymethods]
impl ServerTls {
    #[new]
    #[pyo3(signature = (*, certificate_pem, key_pem, client_roots_pem, requires_client, key_log_file))]
    #[expect(clippy::needless_pass_by_value, reason = "what is extracted from an argument is owned")]
    fn new(
        certificate_pem: &[u8],
        key_pem: &[u8],
        client_roots_pem: Option<&[u8]>,
        requires_client: bool,
        key_log_file: Option<PathBuf>,
    ) -> PyResult<Self> {
        let mut tls = tls::ServerTls::new(certificate_pem, key_pem).map_err(raise)?;
        if let Some(roots) = client_roots_pem {
            let policy = tls::ClientPolicy::new(roots, requires_client).map_err(raise)?;
            tls = tls.asking_clients(policy).map_err(raise)?;
        }
        if let Some(path) = &key_log_file {
            tls = tls.logging_keys(path).map_err(raise)?;
        }
        Ok(Self(tls))
    }

    #[expect(clippy::needless_pass_by_value, reason = "what is extracted from an argument is owned")]
    fn with_further(&self, others: Vec<PyRef<'_, Self>>) -> Self {
        let others: Vec<&tls::ServerTls> = others.iter().map(|tls| &tls.0).collect();
        Self(self.0.with_further(&others))
    }

    fn after(&self, before: &Self) -> Self {
        Self(self.0.after(&before.0))
    }

    fn has_same_clients(&self, other: &Self) -> bool {
        self.0.has_same_clients(&other.0)
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
