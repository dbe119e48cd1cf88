//! Packet keys that tell the [tap](super::tap) what they seal and open. The core uses them as if they were TLS's own.
//!
//! The core reads PADDING byte by byte, and that costs more than a key exchange where a packet is filled up: the first ones of a
//! connection, and those that probe for a larger MTU. So what these keys open has no PADDING at its end.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::BytesMut;
use quinn_proto::crypto::{CryptoError, HeaderKey, PacketKey};
use rustls::quic::{DirectionalKeys, Keys, PacketKeySet, Secrets};

use super::{frames, tap::Tap};

/// A key for the first packets of either side, before TLS has made any.
pub(crate) struct FirstKey {
    pub(crate) keys: Arc<Keys>,
    /// For packets that leave.
    pub(crate) is_local: bool,
}

impl FirstKey {
    fn keys(&self) -> &DirectionalKeys {
        if self.is_local { &self.keys.local } else { &self.keys.remote }
    }
}

impl HeaderKey for FirstKey {
    fn decrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        self.keys().header.decrypt(pn_offset, packet);
    }

    fn encrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        self.keys().header.encrypt(pn_offset, packet);
    }

    fn sample_size(&self) -> usize {
        HeaderKey::sample_size(&self.keys().header)
    }
}

impl PacketKey for FirstKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.keys().packet.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.keys().packet.decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        PacketKey::tag_len(&self.keys().packet)
    }

    fn confidentiality_limit(&self) -> u64 {
        PacketKey::confidentiality_limit(&self.keys().packet)
    }

    fn integrity_limit(&self) -> u64 {
        PacketKey::integrity_limit(&self.keys().packet)
    }
}

/// A key for the peer's first packets.
pub(crate) struct InitialKey(pub(crate) Box<dyn PacketKey>);

impl PacketKey for InitialKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.0.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.0.decrypt(packet, header, payload)?;
        payload.truncate(frames::unpadded(payload));
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.0.integrity_limit()
    }
}

/// A server's key for the client's packets of the handshake. Only a client that received the server's first packets can
/// have it, so the first packet that it opens validates the client's address (RFC 9000, section 8.1).
pub(crate) struct HandshakeKey {
    /// The key that TLS has made.
    inner: Box<dyn PacketKey>,
    tap: Arc<Tap>,
}

impl HandshakeKey {
    pub(crate) fn new(inner: Box<dyn PacketKey>, tap: Arc<Tap>) -> Self {
        Self { inner, tap }
    }
}

impl PacketKey for HandshakeKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.inner.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.inner.decrypt(packet, header, payload)?;
        self.tap.set_client_heard();
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

/// The keys for application data that follow the first ones, made when they are due.
///
/// To make them takes a 40th of a handshake, and a peer that sends a few packets never uses them.
pub(crate) struct NextKeys {
    /// From which they are made. Afterwards, from which those are made that follow them.
    secrets: Mutex<Secrets>,
    /// How many bytes they add to a packet: as many as the first ones.
    tag: usize,
    made: OnceLock<PacketKeySet>,
}

impl NextKeys {
    /// Number of the packet with which they are due.
    const DUE: u64 = 16;

    pub(crate) fn new(secrets: Secrets, tag: usize) -> Self {
        Self { secrets: Mutex::new(secrets), tag, made: OnceLock::new() }
    }

    pub(crate) fn made(&self) -> &PacketKeySet {
        self.made.get_or_init(|| self.make())
    }

    /// Make the keys that follow all that were made.
    pub(crate) fn after(&self) -> PacketKeySet {
        self.made();
        self.make()
    }

    fn make(&self) -> PacketKeySet {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).next_packet_keys()
    }

    #[cfg(test)]
    pub(crate) fn is_made(&self) -> bool {
        self.made.get().is_some()
    }

    /// The first key has tried to open a packet.
    ///
    /// How long a packet takes must not tell which keys it was for (RFC 9001, section 9.5). A forged packet fails with either,
    /// and whichever it is tried with, these are made then, if they are not yet. Returns whether they are.
    fn note_packet(&self, number: u64, is_opened: bool) -> bool {
        let are_due = number >= Self::DUE || !is_opened;
        if are_due {
            self.made();
        }
        are_due
    }
}

/// One of the [`NextKeys`].
pub(crate) struct NextKey {
    pub(crate) keys: Arc<NextKeys>,
    /// For packets that leave.
    pub(crate) is_local: bool,
}

impl NextKey {
    #[expect(clippy::borrowed_box, reason = "the core's trait is for the box")]
    fn key(&self) -> &Box<dyn rustls::quic::PacketKey> {
        let keys = self.keys.made();
        if self.is_local { &keys.local } else { &keys.remote }
    }
}

impl PacketKey for NextKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.key().encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.key().decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.keys.tag
    }

    fn confidentiality_limit(&self) -> u64 {
        PacketKey::confidentiality_limit(self.key())
    }

    fn integrity_limit(&self) -> u64 {
        PacketKey::integrity_limit(self.key())
    }
}

/// The key of one direction for application data.
pub(crate) struct TapKey {
    /// The key that TLS has made.
    inner: Box<dyn PacketKey>,
    /// How many bytes that adds to a packet. The core asks often.
    tag: usize,
    /// The keys that follow, if `inner` is the first to open packets.
    next: Option<Arc<NextKeys>>,
    /// There is nothing to do for those any more. Here, because to look at them costs a cache miss for each packet.
    is_next_done: AtomicBool,
    tap: Arc<Tap>,
}

impl TapKey {
    pub(crate) fn new(inner: Box<dyn PacketKey>, next: Option<Arc<NextKeys>>, tap: Arc<Tap>) -> Self {
        let is_next_done = AtomicBool::new(next.is_none());
        Self { tag: inner.tag_len(), inner, next, is_next_done, tap }
    }

    /// As [`NextKeys::note_packet`].
    fn note_packet(&self, number: u64, is_opened: bool) {
        if !self.is_next_done.load(Ordering::Relaxed)
            && let Some(next) = &self.next
            && next.note_packet(number, is_opened)
        {
            self.is_next_done.store(true, Ordering::Relaxed);
        }
    }
}

impl PacketKey for TapKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let mut reserve = self.tap.reserve();
        let mut size = buf.len();
        if reserve > 0 {
            let payload = size.checked_sub(self.tag).and_then(|end| buf.get(header_len..end));
            (size, reserve) = self.tap.shorten(size, payload.unwrap_or_default(), reserve);
        }
        let buf = &mut buf[..size];
        if let Some(end) = size.checked_sub(self.tag)
            && let Some(payload) = buf.get_mut(header_len..end)
        {
            self.tap.packet_leaves(packet, payload, reserve);
        }
        self.inner.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let opened = self.inner.decrypt(packet, header, payload);
        self.note_packet(packet, opened.is_ok());
        opened?;
        payload.truncate(frames::unpadded(payload));
        self.tap.packet_arrives(packet, payload);
        Ok(())
    }

    /// The core keeps this many bytes free at the end of a packet; see [`Tap::reserve`].
    fn tag_len(&self) -> usize {
        self.tag + self.tap.reserve()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}
