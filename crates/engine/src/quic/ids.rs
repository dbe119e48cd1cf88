//! Connection IDs: random bytes, and a tag by which an endpoint recognizes its own IDs.
//!
//! The core's generator has only three random bytes. A Retry uses an ID without reserving it. With ten thousand connections
//! of several IDs each, one Retry in two hundred would have the ID of another connection, and its client could not connect.
//! With five random bytes it is less than one in ten million.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// Random bytes of a connection ID. To reset a connection without knowing its ID, an attacker would have to learn the
/// tokens of as many IDs as they allow: 2^40.
const RANDOM: usize = 5;
/// Bytes of its tag. Of packets with foreign IDs, one in 16 million passes for ours and is answered with a stateless reset.
const TAG: usize = 3;

/// Makes connection IDs, and recognizes those that were made with the same key.
///
/// The core has such a generator, too, but anybody who sees a few IDs can compute the key of its hash.
pub(super) struct ConnectionIds {
    /// Makes the tags.
    key: hmac::Key,
    /// The system's random bytes: IDs must not be predictable.
    random: SystemRandom,
}

impl ConnectionIds {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self { key, random: SystemRandom::new() }
    }

    fn tag(&self, random: &[u8]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hmac::sign(&self.key, random).as_ref()[..TAG]);
        tag
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; RANDOM + TAG];
        self.random.fill(&mut id[..RANDOM]).expect("the system has random bytes");
        let tag = self.tag(&id[..RANDOM]);
        id[RANDOM..].copy_from_slice(&tag);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(RANDOM) {
            Some((random, tag)) if tag == self.tag(random) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        RANDOM + TAG
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids(key: &[u8]) -> ConnectionIds {
        ConnectionIds::new(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    #[test]
    fn ids_are_recognized_by_whoever_has_the_key() {
        let mut first = ids(b"a key");
        for _ in 0..100 {
            let id = first.generate_cid();
            assert_eq!(id.len(), first.cid_len());
            assert!(ids(b"a key").validate(&id).is_ok());
            assert!(ids(b"another key").validate(&id).is_err());
            let mut other = [0; RANDOM + TAG];
            other.copy_from_slice(&id);
            other[0] ^= 1;
            assert!(first.validate(&ConnectionId::new(&other)).is_err());
        }
        assert!(first.validate(&ConnectionId::new(&[1, 2, 3])).is_err());
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut ids = ids(b"a key");
        let made: HashSet<Vec<u8>> = (0..50_000).map(|_| ids.generate_cid().to_vec()).collect();
        // With three random bytes, there would be some seventy pairs among as many.
        assert!(made.len() > 49_990);
    }
}
