//! Tokens from NEW_TOKEN frames that clients have used (RFC 9000, section 8.1.3). None validates an address twice. Otherwise
//! whoever copies one could have the server send to that address again and again.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use quinn_proto::{TokenLog, TokenReuseError};

/// Tokens in one generation; two are kept. Some 16 bytes each.
const GENERATION: usize = 32_768;

/// Used tokens by their nonces. When `current` is full, it replaces `previous`.
#[derive(Debug)]
struct Generations {
    current: HashSet<u64>,
    /// No token of `current` was used before this.
    began: SystemTime,
    previous: HashSet<u64>,
    /// Tokens that were issued before this are refused, because they may have been used and forgotten.
    oldest: SystemTime,
}

/// The used tokens of a server.
#[derive(Debug)]
pub(super) struct UsedTokens(Mutex<Generations>);

impl Default for UsedTokens {
    fn default() -> Self {
        Self(Mutex::new(Generations {
            current: HashSet::new(),
            began: SystemTime::UNIX_EPOCH,
            previous: HashSet::new(),
            oldest: SystemTime::UNIX_EPOCH,
        }))
    }
}

impl TokenLog for UsedTokens {
    fn check_and_insert(&self, nonce: u128, issued: SystemTime, _: Duration) -> Result<(), TokenReuseError> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let generations = &mut *generations;
        // Half of a random nonce. If two agree by chance, one client has to validate its address with a Retry.
        let nonce = nonce as u64;
        if issued < generations.oldest || generations.previous.contains(&nonce) || !generations.current.insert(nonce) {
            return Err(TokenReuseError);
        }
        if generations.current.len() >= GENERATION {
            generations.previous = mem::take(&mut generations.current);
            // What is forgotten now was used, and so issued, before the generation that is kept began. Issue times are whole
            // seconds, rounded down, so this refuses too many tokens rather than too few.
            generations.oldest = mem::replace(&mut generations.began, SystemTime::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_counts_twice_however_many_are_used() {
        let log = UsedTokens::default();
        let first = SystemTime::now();
        let is_new = |nonce, issued| log.check_and_insert(nonce, issued, Duration::MAX).is_ok();
        assert!(is_new(1, first));
        assert!(!is_new(1, first));
        let later = first + Duration::from_secs(1000);
        for nonce in 2..4 * GENERATION as u128 {
            assert!(is_new(nonce, later));
            assert!(nonce % 1000 != 0 || !is_new(nonce - 1, later));
        }
        assert!(!is_new(1, first), "it is forgotten, and so are all that were issued then");
        let generations = log.0.lock().unwrap();
        assert!(generations.current.len() + generations.previous.len() <= 2 * GENERATION);
    }
}
