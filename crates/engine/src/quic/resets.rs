//! Stateless resets (RFC 9000, section 10.3): which packets are answered with one, and how many.
//!
//! A server that was restarted gets packets for connections of the process before. It can tell its clients that these are
//! gone if it has the same [`Secret`](crate::Secret): then it recognizes its old connection IDs, and knows their tokens.

use std::time::{Duration, Instant};

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
/// How long one reset takes to be earned, beyond those that may be sent at once.
const INTERVAL: Duration = Duration::from_millis(1);

/// Makes connection IDs that are recognized by whoever has the same key.
///
/// The core has a generator that does as much, with a hash that gives its key away to whoever sees a few IDs, and three
/// random bytes. That is enough for a key that lives as long as its process.
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

/// How many resets may be sent. A reset is smaller than the packet that it answers, so this bounds work, not traffic.
///
/// All clients of a server that was killed ask for theirs at about the same time, so there is one for each connection that
/// it may have had at once, and one more each millisecond.
#[derive(Debug)]
pub(super) struct Budget {
    most: usize,
    left: usize,
    /// Until when what was earned is counted; `None` while nothing is missing.
    counted: Option<Instant>,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Self { most, left: most, counted: None }
    }

    /// Take one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let counted = self.counted.get_or_insert(now);
        let earned = u32::try_from(now.saturating_duration_since(*counted).as_millis()).unwrap_or(u32::MAX);
        *counted += INTERVAL * earned;
        self.left = self.most.min(self.left.saturating_add(earned as usize));
        if self.left == self.most {
            *counted = now;
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }
}

#[cfg(test)]
mod tests {
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
    fn resets_are_bounded_at_once_and_by_time() {
        let begin = Instant::now();
        let mut budget = Budget::new(500);
        let mut taken = |at: u64| (0..5000).filter(|_| budget.take(begin + Duration::from_micros(at))).count();
        assert_eq!(taken(0), 500);
        assert_eq!(taken(999), 0);
        assert_eq!(taken(1999), 1);
        assert_eq!(taken(2000), 1);
        assert_eq!(taken(100_000), 98);
        assert_eq!(taken(3_600_000_000), 500);
        assert_eq!(taken(3_600_000_000), 0);
    }
}
