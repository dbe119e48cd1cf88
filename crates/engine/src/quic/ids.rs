//! Connection IDs: a prefix, random bytes, and a tag by which an endpoint recognizes its own IDs.
//!
//! The prefix is Python's (`_connection_ids.py`): who steers packets among several servers reads in it whose they are. Most
//! servers, and all clients, have none.
//!
//! The core's generator has only three random bytes. A Retry uses an ID without reserving it. With ten thousand connections
//! of several IDs each, one Retry in two hundred would have the ID of another connection, and its client could not connect.
//! With five random bytes it is less than one in ten million.

use std::{sync::Arc, time::Duration};

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::{
    aead::quic::{AES_256, HeaderProtectionKey},
    rand::{SecureRandom, SystemRandom},
};

use crate::error::SetupError;

/// Least random bytes of a connection ID. To reset a connection without knowing its ID, an attacker would have to learn the
/// tokens of as many IDs as they allow: 2^40.
const RANDOM: usize = 5;
/// Bytes of its tag. Of packets with foreign IDs, one in 16 million passes for ours and is answered with a stateless reset.
const TAG: usize = 3;
/// Bytes of the longest connection ID (RFC 9000, section 17.2).
const LONGEST: usize = 20;
/// Bytes of a block of AES.
const BLOCK: usize = 16;

/// Makes connection IDs, and recognizes those that were made with the same key.
///
/// The core has such a generator, too, but anybody who sees a few IDs can compute the key of its hash.
#[derive(Clone)]
pub(super) struct ConnectionIds {
    /// Makes the tags. To encrypt a block takes a tenth of the time of an HMAC, and eleven IDs are made for a connection.
    key: Arc<HeaderProtectionKey>,
    /// The system's random bytes: IDs must not be predictable.
    random: SystemRandom,
    /// What each ID begins with.
    prefix: Box<[u8]>,
    /// Bytes of an ID without its tag.
    untagged: usize,
}

impl ConnectionIds {
    /// IDs of `length` bytes that begin with `prefix`.
    ///
    /// # Errors
    /// If that leaves too few random bytes, or is too long.
    pub(super) fn new(key: &[u8; 32], prefix: &[u8], length: usize) -> Result<Self, SetupError> {
        let least = prefix.len() + RANDOM + TAG;
        if !(least..=LONGEST).contains(&length) {
            return Err(SetupError::Option(format!("connection IDs of {length} bytes: not {least} to {LONGEST}")));
        }
        let key = HeaderProtectionKey::new(&AES_256, key).expect("a key of AES-256");
        Ok(Self { key: Arc::new(key), random: SystemRandom::new(), prefix: prefix.into(), untagged: length - TAG })
    }

    fn tag(&self, untagged: &[u8]) -> [u8; TAG] {
        // All IDs have the same length, so no padding has to tell them apart.
        let mut tag = [0; TAG];
        for piece in untagged.chunks(BLOCK) {
            let mut block = [0; BLOCK];
            block[..piece.len()].copy_from_slice(piece);
            for (byte, so_far) in block.iter_mut().zip(tag) {
                *byte ^= so_far;
            }
            tag.copy_from_slice(&self.key.new_mask(&block).expect("a block")[..TAG]);
        }
        tag
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut buffer = [0; LONGEST];
        let id = &mut buffer[..self.untagged + TAG];
        id[..self.prefix.len()].copy_from_slice(&self.prefix);
        self.random.fill(&mut id[self.prefix.len()..self.untagged]).expect("the system has random bytes");
        let tag = self.tag(&id[..self.untagged]);
        id[self.untagged..].copy_from_slice(&tag);
        ConnectionId::new(id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(self.untagged) {
            Some((untagged, tag)) if tag == self.tag(untagged) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        self.untagged + TAG
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids_with(key: &[u8], prefix: &[u8], length: usize) -> ConnectionIds {
        let mut whole = [0; 32];
        whole[..key.len()].copy_from_slice(key);
        ConnectionIds::new(&whole, prefix, length).unwrap()
    }

    fn ids(key: &[u8]) -> ConnectionIds {
        ids_with(key, &[], RANDOM + TAG)
    }

    fn changed(id: &ConnectionId, at: usize) -> ConnectionId {
        let mut other = id.to_vec();
        other[at] ^= 1;
        ConnectionId::new(&other)
    }

    #[test]
    fn ids_are_recognized_by_whoever_has_the_key() {
        let mut first = ids(b"a key");
        for _ in 0..100 {
            let id = first.generate_cid();
            assert_eq!(id.len(), first.cid_len());
            assert!(ids(b"a key").validate(&id).is_ok());
            assert!(ids(b"another key").validate(&id).is_err());
            assert!(first.validate(&changed(&id, 0)).is_err());
        }
        assert!(first.validate(&ConnectionId::new(&[1, 2, 3])).is_err());
    }

    #[test]
    fn ids_begin_with_the_prefix_and_every_byte_of_them_counts() {
        for length in [16, 19, 20] {
            let mut first = ids_with(b"a key", b"server 7", length);
            for _ in 0..100 {
                let id = first.generate_cid();
                assert_eq!((&id[..8], id.len()), (&b"server 7"[..], length));
                assert!(ids_with(b"a key", b"server 7", length).validate(&id).is_ok());
                for at in 0..id.len() {
                    assert!(first.validate(&changed(&id, at)).is_err());
                }
            }
        }
    }

    #[test]
    fn a_prefix_that_leaves_too_few_random_bytes_is_refused() {
        let made = |prefix, length| ConnectionIds::new(&[0; 32], prefix, length).is_ok();
        assert!(made(&[0; 10], 18) && made(&[0; 12], 20));
        assert!(!made(&[0; 10], 17) && !made(&[], 7) && !made(&[], 21));
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut ids = ids(b"a key");
        let made: HashSet<Vec<u8>> = (0..50_000).map(|_| ids.generate_cid().to_vec()).collect();
        // With three random bytes, there would be some seventy pairs among as many.
        assert!(made.len() > 49_990);
    }
}
