//! Connection IDs: random bytes, and a few by which the endpoint knows its own.
//!
//! The core's generator has only three random bytes. A Retry takes an ID without reserving it; among some ten thousand
//! connections, each with several IDs, one client in two hundred would have got the ID of another connection, and would have
//! been unable to get in with it. With five it is less than one in ten million.

use std::hash::Hasher as _;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustc_hash::FxHasher;

const LENGTH: usize = 8;
const RANDOM: usize = 5;

/// Makes IDs, and recognizes those of the same key.
pub(super) struct ConnectionIds {
    key: u64,
    random: SystemRandom,
}

impl ConnectionIds {
    pub(super) fn new(key: u64) -> Self {
        Self { key, random: SystemRandom::new() }
    }

    /// Not for secrecy: it spares an answer to most packets that were never for us.
    fn mark(&self, random: &[u8]) -> [u8; LENGTH - RANDOM] {
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.key);
        hasher.write(random);
        let [a, b, c, ..] = hasher.finish().to_be_bytes();
        [a, b, c]
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LENGTH];
        self.random.fill(&mut id[..RANDOM]).expect("the system has random bytes, as every handshake needs");
        let mark = self.mark(&id[..RANDOM]);
        id[RANDOM..].copy_from_slice(&mark);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let (random, mark) = id.split_at(RANDOM.min(id.len()));
        if self.mark(random) == mark { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_recognized_by_the_same_key_and_do_not_repeat() {
        let mut ids = ConnectionIds::new(7);
        let again = ConnectionIds::new(7);
        let other = ConnectionIds::new(8);
        let made: Vec<ConnectionId> = (0..50_000).map(|_| ids.generate_cid()).collect();
        assert!(made.iter().all(|id| id.len() == ids.cid_len() && again.validate(id).is_ok()));
        assert!(made.iter().filter(|id| other.validate(id).is_ok()).count() < 5);
        // With three random bytes, there would be some seventy pairs among as many.
        assert!(made.iter().map(|id| id.to_vec()).collect::<HashSet<_>>().len() > 49_990);
        assert!(ids.validate(&ConnectionId::new(&[1, 2, 3])).is_err());
    }
}
