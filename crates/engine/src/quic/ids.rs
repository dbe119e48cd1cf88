//! Connection IDs: random bytes, and a few by which an endpoint knows its own.
//!
//! The core's generator has only three random bytes. A Retry takes an ID without reserving it; among some ten thousand
//! connections, each with several IDs, one client in two hundred would have got the ID of another connection, and would have
//! been unable to get in with it. With five it is less than one in ten million.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// Bytes of a connection ID that are random. As many IDs as that one would have to learn the tokens of, to reset a
/// connection without knowing its ID.
const RANDOM: usize = 5;
/// Bytes of it that show that the ID is one of ours: of packets with any other, one in 16 million gets an answer.
const TAG: usize = 3;

/// Makes connection IDs that are recognized by whoever has the same key.
///
/// The core has a generator that does as much, with a hash that gives its key away to whoever sees a few IDs.
pub(super) struct ConnectionIds {
    key: hmac::Key,
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
