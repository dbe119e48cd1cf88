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

    /// The key for one purpose (HKDF, RFC 5869), of one holder; an empty holder is everybody who has the secret.
    pub(crate) fn key(&self, purpose: &str, holder: &[u8]) -> [u8; 32] {
        let mut key = [0; 32];
        self.0
            .expand(&[purpose.as_bytes(), holder], hkdf::HKDF_SHA256)
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
    fn each_secret_purpose_and_holder_has_a_key_of_its_own_and_always_the_same() {
        let key = |secret: &[u8], purpose, holder: &[u8]| Secret::new(secret).key(purpose, holder);
        assert_eq!(key(b"one", "a", b""), key(b"one", "a", b""));
        assert_ne!(key(b"one", "a", b""), key(b"one", "b", b""));
        assert_ne!(key(b"one", "a", b""), key(b"two", "a", b""));
        assert_ne!(key(b"one", "a", b""), key(b"one", "a", &[0]));
        assert_ne!(key(b"one", "a", &[1]), key(b"one", "a", &[0]));
        assert_eq!(format!("{:?}", Secret::new(b"one")), "Secret");
    }
}
