//! X25519MLKEM768, the key exchange that browsers offer first (draft-ietf-tls-ecdhe-mlkem, group 0x11ec).
//!
//! The secret is made of two, of ML-KEM-768 (FIPS 203) and of X25519. Whoever wants to read what was recorded today needs to break
//! both; a large quantum computer breaks the second. ML-KEM is of libcrux, X25519 of ring, as everywhere else. In all shares and
//! secrets ML-KEM is in front (section 4 of the draft).

use libcrux_ml_kem::mlkem768::{
    self, MlKem768Ciphertext, MlKem768PrivateKey, MlKem768PublicKey, decapsulate, encapsulate, generate_key_pair,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::{
    Error, NamedGroup, PeerMisbehaved, ProtocolVersion,
    crypto::{
        ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup, ring::kx_group,
    },
    ffdhe_groups::FfdheGroup,
};

/// Bytes of ML-KEM in the client's share: a key to encapsulate to.
const ENCAPSULATION_KEY: usize = 1184;
/// Bytes of ML-KEM in the server's share.
const CIPHERTEXT: usize = 1088;

/// The peer's share has another length, or what it holds is not a key. rustls sends illegal_parameter, as the draft demands.
const INVALID_SHARE: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

/// For the list of groups of a provider.
pub(crate) static X25519MLKEM768: &dyn SupportedKxGroup = &Hybrid;

#[derive(Debug)]
struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let classical = kx_group::X25519.start()?;
        let (decapsulation_key, encapsulation_key) = generate_key_pair(random()?).into_parts();
        let share = [encapsulation_key.as_slice(), classical.pub_key()].concat();
        Ok(Box::new(Begun { classical, decapsulation_key, share }))
    }

    /// The server's side: its share depends on the client's.
    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (key, point) = share.split_at_checked(ENCAPSULATION_KEY).ok_or(INVALID_SHARE)?;
        // This one looks at the length of its own, and costs less than the check of the key.
        let classical = kx_group::X25519.start_and_complete(point)?;
        let key = MlKem768PublicKey::try_from(key).map_err(|_| INVALID_SHARE)?;
        // FIPS 203, section 7.2: the modulus check. The length was checked before.
        if !mlkem768::validate_public_key(&key) {
            return Err(INVALID_SHARE);
        }
        let (ciphertext, secret) = encapsulate(&key, random()?);
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [ciphertext.as_slice(), &classical.pub_key[..]].concat(),
            secret: joined(&secret, &classical.secret),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// A client's, between its share and that of the server.
struct Begun {
    classical: Box<dyn ActiveKeyExchange>,
    decapsulation_key: MlKem768PrivateKey,
    /// What is sent.
    share: Vec<u8>,
}

impl ActiveKeyExchange for Begun {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, point) = share.split_at_checked(CIPHERTEXT).ok_or(INVALID_SHARE)?;
        let ciphertext = MlKem768Ciphertext::try_from(ciphertext).map_err(|_| INVALID_SHARE)?;
        let classical = self.classical.complete(point)?;
        // A ciphertext that was not made for this key gives another secret, and the handshake fails (FIPS 203, section 6.3).
        Ok(joined(&decapsulate(&self.decapsulation_key, &ciphertext), &classical))
    }

    /// X25519 is offered alone, too, with the same key: a server that knows no ML-KEM takes that without another round trip.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

fn random<const SIZE: usize>() -> Result<[u8; SIZE], Error> {
    let mut bytes = [0; SIZE];
    SystemRandom::new().fill(&mut bytes).map_err(|_| GetRandomFailed)?;
    Ok(bytes)
}

fn joined(post_quantum: &[u8], classical: &SharedSecret) -> SharedSecret {
    SharedSecret::from([post_quantum, classical.secret_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::sha256;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes that count up from `first`.
    fn counting<const SIZE: usize>(first: u8) -> [u8; SIZE] {
        std::array::from_fn(|index| first + index as u8)
    }

    /// Key, ciphertext and secrets of an independent implementation (crypto/mlkem of Go 1.26) with the same random bytes.
    #[test]
    fn ml_kem_gives_the_known_answers() {
        let (private, public) = generate_key_pair(counting(0)).into_parts();
        assert_eq!(hex(&sha256(public.as_slice())), "0b7934c83125c788995e2ba6bd761e33046b3e40571be53e023309a29f398cc9");
        let (ciphertext, secret) = encapsulate(&public, counting(64));
        assert_eq!(
            hex(&sha256(ciphertext.as_slice())),
            "dbf4e9aa48b078ad46ec1c9c47bda8c2d2fec9d0e7a21bd48d2238a2abedb856"
        );
        assert_eq!(hex(&secret), "9cddd089ffe70e3996e76f7c8d06746df34d07e8657bc0fcf2bb0e1c3084aea1");
        assert_eq!(decapsulate(&private, &ciphertext), secret);
        let mut other = *ciphertext.as_slice();
        other[0] ^= 1;
        let rejected = decapsulate(&private, &MlKem768Ciphertext::from(other));
        assert_eq!(hex(&rejected), "dcfc80c6db46ff7028e3a4398651c063ae7a42c107a6dc8cb07141861698ab92");
    }

    #[test]
    fn both_sides_get_the_same_secret_with_ml_kem_in_front() {
        let client = X25519MLKEM768.start().unwrap();
        assert_eq!(client.pub_key().len(), 1184 + 32);
        let server = X25519MLKEM768.start_and_complete(client.pub_key()).unwrap();
        assert_eq!((server.group, server.pub_key.len()), (NamedGroup::X25519MLKEM768, 1088 + 32));
        let (group, point) = client.hybrid_component().unwrap();
        assert_eq!((group, point), (NamedGroup::X25519, &client.pub_key()[1184..]));
        let secret = client.complete(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
        assert_eq!(secret.secret_bytes().len(), 64);
    }

    #[test]
    fn the_secret_of_ml_kem_is_the_first_half() {
        let (private, public) = generate_key_pair(counting(0)).into_parts();
        let classical = kx_group::X25519.start().unwrap();
        let share = [public.as_slice(), classical.pub_key()].concat();
        let server = X25519MLKEM768.start_and_complete(&share).unwrap();
        let (ciphertext, point) = server.pub_key.split_at(CIPHERTEXT);
        let halves = server.secret.secret_bytes().split_at(32);
        assert_eq!(decapsulate(&private, &MlKem768Ciphertext::try_from(ciphertext).unwrap()), halves.0);
        assert_eq!(classical.complete(point).unwrap().secret_bytes(), halves.1);
    }

    #[test]
    fn a_server_without_ml_kem_takes_the_other_half() {
        let client = X25519MLKEM768.start().unwrap();
        let (_, point) = client.hybrid_component().unwrap();
        let server = kx_group::X25519.start_and_complete(point).unwrap();
        let secret = client.complete_hybrid_component(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
    }

    #[test]
    fn shares_that_are_no_keys_are_refused() {
        let begin = || X25519MLKEM768.start().unwrap();
        let good = begin().pub_key().to_vec();
        let invalid = |error: Error| matches!(error, Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare));
        let mut coefficient = good.clone();
        // A coefficient of 4095, where all are below 3329.
        coefficient[0] = 0xff;
        coefficient[1] |= 0x0f;
        let mut small_order = good.clone();
        small_order[1184..].fill(0);
        let long = [&good[..], &[0]].concat();
        for share in [&[][..], &good[..1184], &good[..1215], &long, &coefficient, &small_order] {
            assert!(X25519MLKEM768.start_and_complete(share).is_err_and(invalid), "{} bytes", share.len());
        }
        let answer = X25519MLKEM768.start_and_complete(&good).unwrap().pub_key;
        let mut small_order = answer.clone();
        small_order[1088..].fill(0);
        let long = [&answer[..], &[0]].concat();
        for share in [&[][..], &answer[..1088], &answer[..1119], &long, &small_order] {
            assert!(begin().complete(share).is_err_and(invalid), "{} bytes", share.len());
        }
    }
}
