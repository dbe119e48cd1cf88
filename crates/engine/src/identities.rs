//! The certificates of a server, and which of them a client gets.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// A certificate chain with the key of its first certificate, and the names for which that is valid.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Chain and key, as rustls wants them.
    key: Arc<CertifiedKey>,
    /// The same chain in DER for reports, the server's own certificate first.
    chain: Arc<[Vec<u8>]>,
    /// DNS names and IP addresses, in lower case. `*` as the first label stands for any one label (RFC 9525, section 6.3).
    names: Vec<String>,
}

impl Identity {
    pub(crate) fn new(key: CertifiedKey, names: &[String]) -> Self {
        let chain = key.cert.iter().map(|certificate| certificate.as_ref().to_vec()).collect();
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { key: Arc::new(key), chain, names }
    }

    /// In DER, the server's own certificate first.
    pub(crate) fn chain(&self) -> &Arc<[Vec<u8>]> {
        &self.chain
    }
}

/// The certificates of a server, at least one.
#[derive(Debug)]
pub(crate) struct Identities {
    /// The default one first.
    all: Vec<Identity>,
    /// For each name the position of the first certificate that has it.
    by_name: FxHashMap<String, usize>,
}

impl Identities {
    /// The first of `all` is for clients that ask for no name, or for one that no certificate has.
    ///
    /// # Panics
    /// If `all` is empty.
    pub(crate) fn new(all: Vec<Identity>) -> Self {
        assert!(!all.is_empty(), "a server has a certificate");
        let mut by_name = FxHashMap::default();
        for (position, identity) in all.iter().enumerate() {
            for name in &identity.names {
                by_name.entry(name.clone()).or_insert(position);
            }
        }
        Self { all, by_name }
    }

    pub(crate) fn all(&self) -> &[Identity] {
        &self.all
    }

    /// The certificate for a client that asks for this name (SNI). An exact name comes before a wildcard.
    pub(crate) fn chosen(&self, server_name: Option<&str>) -> &Identity {
        let position = match server_name {
            Some(name) if self.all.len() > 1 => {
                let name = name.to_ascii_lowercase();
                let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
                let found = self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard?));
                found.copied().unwrap_or(0)
            }
            _ => 0,
        };
        &self.all[position]
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.chosen(hello.server_name()).key.clone())
    }
}
