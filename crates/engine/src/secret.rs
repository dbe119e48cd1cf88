//! What keys are derived from that have to be the same after a restart.

use ring::hkdf;

/// A secret of the operator's. Each key that is derived from it has a label of its own, so that none tells of another.
#[derive(Clone)]
pub struct Secret(hkdf::Prk);

impl Secret {
    /// Keep what the secret is good for, not the secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hkdf::Salt::new(hkdf::HKDF_SHA256, b"wtio").extract(secret))
    }

    /// The key for one purpose (HKDF, RFC 5869).
    pub(crate) fn key(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        self.0
            .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|material| material.fill(&mut key))
            .expect("32 bytes are no more than HKDF-SHA256 can derive");
        key
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_and_each_purpose_has_a_key_of_its_own_and_always_the_same() {
        let key = |secret: &[u8], purpose| Secret::new(secret).key(purpose);
        assert_eq!(key(b"one", "a"), key(b"one", "a"));
        assert_ne!(key(b"one", "a"), key(b"one", "b"));
        assert_ne!(key(b"one", "a"), key(b"two", "a"));
        assert_eq!(format!("{:?}", Secret::new(b"one")), "Secret");
    }
}
