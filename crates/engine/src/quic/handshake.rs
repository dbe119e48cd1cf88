//! The TLS session of a connection, as the QUIC core wants it.
//!
//! The core has one of its own, which offers the core's transport parameters and no others. This one adds reset_stream_at,
//! keeps the peer's parameters for reports, and wraps the keys for application data, so that the [tap](super::tap) sees
//! packets.

use std::{
    any::Any,
    io::Cursor,
    sync::{Arc, Mutex, PoisonError},
};

use quinn_proto::{
    ConnectError, ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{
        self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion,
        rustls::QuicServerConfig,
    },
    transport_parameters::TransportParameters,
};
use ring::aead;
use rustls::{
    CipherSuite,
    pki_types::{CertificateDer, ServerName},
    quic::{ClientConnection, Connection, KeyChange, ServerConnection, Suite, Version},
};

use super::{
    keys::{FirstKey, HandshakeKey, InitialKey, NextKey, NextKeys, TapKey},
    tap::Tap,
};
use crate::{
    identities::Identities,
    tls::{ClientTls, ServerTls, TlsError},
    varint,
};

/// reset_stream_at as in draft-ietf-quic-reliable-stream-reset from -08 on, and as in -05 to -07, which Safari wants.
const RESET_STREAM_AT: [u64; 2] = [0x1d, 0x17_f758_6d2c_b571];

/// Transport parameters as they stand in the TLS extension: (id, value).
pub(crate) fn parameters(mut raw: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    while let Some((id, used)) = varint::read(raw)
        && let Some((length, more)) = varint::read(&raw[used..])
        && let Some(value) = raw[used + more..].get(..usize::try_from(length).unwrap_or(usize::MAX))
    {
        found.push((id, value));
        raw = &raw[used + more + value.len()..];
    }
    found
}

/// What [`crypto::Session::handshake_data`] returns.
pub(crate) struct TapHandle {
    pub(crate) tap: Arc<Tap>,
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Option<Vec<u8>>,
    /// Name of the cipher suite.
    pub(crate) cipher: Option<&'static str>,
    /// Name of the group of the key exchange.
    pub(crate) key_exchange: Option<&'static str>,
    /// The chain that a server shows, leaf first.
    pub(crate) own_chain: Option<Arc<[Vec<u8>]>>,
}

struct TlsSession {
    inner: Connection,
    /// A server's: the certificates from which it chooses.
    identities: Option<Arc<Identities>>,
    /// Makes the keys of the first packets, before TLS has chosen a suite.
    suite: Suite,
    version: Version,
    /// A server's: the keys that opened the first packet.
    first: Option<Arc<FirstKeys>>,
    /// Sees packets with application data. Shared with the connection and its keys.
    tap: Arc<Tap>,
    /// [`crypto::Session::read_handshake`] has said that the handshake data is ready. It does so once.
    has_reported: bool,
    /// The keys that follow the first ones for application data; `None` before there are those.
    next: Option<Arc<NextKeys>>,
}

impl TlsSession {
    fn side(&self) -> Side {
        match self.inner {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        }
    }

    fn server_name(&self) -> Option<String> {
        match &self.inner {
            Connection::Client(_) => None,
            Connection::Server(inner) => inner.server_name().map(str::to_owned),
        }
    }

    /// Keys for application data. The first ones to open packets see to it that those are made which `follow`.
    fn tapped(&self, keys: KeyPair<Box<dyn PacketKey>>, follow: Option<Arc<NextKeys>>) -> KeyPair<Box<dyn PacketKey>> {
        let tap = |key, follow| Box::new(TapKey::new(key, follow, self.tap.clone())) as Box<dyn PacketKey>;
        KeyPair { local: tap(keys.local, None), remote: tap(keys.remote, follow) }
    }
}

fn violation(code: TransportErrorCode, reason: String) -> TransportError {
    TransportError { code, frame: None, reason }
}

fn shared_keys(keys: &Arc<rustls::quic::Keys>) -> Keys {
    let key = |is_local| FirstKey { keys: keys.clone(), is_local };
    Keys {
        header: KeyPair { local: Box::new(key(true)), remote: Box::new(key(false)) },
        packet: KeyPair { local: Box::new(key(true)), remote: Box::new(key(false)) },
    }
}

/// The keys of the first packets that a server made last.
///
/// The core asks for them twice: to open the packet that begins a connection, and for the connection, which comes next as a rule.
/// To make them takes a 70th of a handshake.
#[derive(Default)]
struct FirstKeys(Mutex<Option<(ConnectionId, Arc<rustls::quic::Keys>)>>);

impl FirstKeys {
    fn keep(&self, id: ConnectionId, keys: Arc<rustls::quic::Keys>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, keys));
    }

    fn take(&self, id: &ConnectionId) -> Option<Arc<rustls::quic::Keys>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|kept| kept.0 == *id).map(|kept| kept.1)
    }
}

fn untapped(keys: rustls::quic::Keys) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) },
        packet: KeyPair { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) },
    }
}

impl crypto::Session for TlsSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        let kept = self.first.as_ref().and_then(|first| first.take(dst_cid));
        let keys = kept.unwrap_or_else(|| Arc::new(self.suite.keys(dst_cid, side.into(), self.version)));
        let mut keys = shared_keys(&keys);
        keys.packet.remote = Box::new(InitialKey(keys.packet.remote));
        keys
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let server_name = self.server_name();
        let own_chain = self.identities.as_ref().map(|all| all.chosen(server_name.as_deref()).chain().clone());
        Some(Box::new(TapHandle {
            tap: self.tap.clone(),
            own_chain,
            server_name,
            alpn: self.inner.alpn_protocol().map(<[u8]>::to_vec),
            cipher: self.inner.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()),
            key_exchange: self.inner.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
        }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let chain: Vec<CertificateDer<'static>> =
            self.inner.peer_certificates()?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Box::new(chain))
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        // No 0-RTT: a CONNECT request must not be replayed (draft-ietf-webtrans-http3, section 3.2).
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        match self.inner {
            Connection::Client(_) => Some(false),
            Connection::Server(_) => None,
        }
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_hs(buf).map_err(|error| match self.inner.alert() {
            Some(alert) => violation(TransportErrorCode::crypto(alert.into()), error.to_string()),
            None => violation(TransportErrorCode::PROTOCOL_VIOLATION, format!("TLS error: {error}")),
        })?;
        if !self.inner.is_handshaking() {
            // The core asks at the end of this packet whether the handshake is complete, and takes application data then.
            self.tap.set_established();
        }
        // Whether a server has the client's hello, and a client the server's choice of protocol.
        let is_ready = self.inner.alpn_protocol().is_some() || self.server_name().is_some() || !self.is_handshaking();
        Ok(is_ready && !std::mem::replace(&mut self.has_reported, true))
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(raw) = self.inner.quic_transport_parameters() else { return Ok(None) };
        let parsed = TransportParameters::read(self.side(), &mut Cursor::new(raw))?;
        let mut takes_resets = false;
        for (id, value) in parameters(raw) {
            if RESET_STREAM_AT.contains(&id) {
                // draft-ietf-quic-reliable-stream-reset, section 3.
                if !value.is_empty() {
                    let reason = "reset_stream_at with a value".to_owned();
                    return Err(violation(TransportErrorCode::TRANSPORT_PARAMETER_ERROR, reason));
                }
                takes_resets = true;
            }
        }
        self.tap.set_peer(raw, takes_resets);
        Ok(Some(parsed))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        Some(match self.inner.write_hs(buf)? {
            KeyChange::Handshake { keys } => {
                let mut keys = untapped(keys);
                if self.side() == Side::Server {
                    keys.packet.remote = Box::new(HandshakeKey::new(keys.packet.remote, self.tap.clone()));
                }
                keys
            }
            KeyChange::OneRtt { keys, next } => {
                let Keys { header, packet } = untapped(keys);
                let next = Arc::new(NextKeys::new(next, packet.remote.tag_len()));
                self.next = Some(next.clone());
                Keys { header, packet: self.tapped(packet, Some(next)) }
            }
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        // The core asks as soon as the first keys are there, and again whenever the keys are updated.
        let next = self.next.as_ref()?;
        let keys: KeyPair<Box<dyn PacketKey>> = if self.tap.note_keys() == 0 {
            let key = |is_local| Box::new(NextKey { keys: next.clone(), is_local }) as Box<dyn PacketKey>;
            KeyPair { local: key(true), remote: key(false) }
        } else {
            let keys = next.after();
            KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) }
        };
        Some(self.tapped(keys, None))
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, Some(context)).map_err(|_| ExportKeyingMaterialError)?;
        Ok(())
    }
}

/// RFC 9001, section 5.8. `payload` ends with the integrity tag.
fn is_valid_retry(original: &[u8], header: &[u8], payload: &[u8]) -> bool {
    const KEY: [u8; 16] =
        [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e];
    const NONCE: [u8; 12] = [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];
    let Some(token_length) = payload.len().checked_sub(aead::AES_128_GCM.tag_len()) else { return false };
    let Ok(key) = aead::UnboundKey::new(&aead::AES_128_GCM, &KEY) else { return false };
    let (token, tag) = payload.split_at(token_length);
    let pseudo_packet = [&[original.len() as u8], original, header, token].concat();
    let mut tag = tag.to_vec();
    aead::LessSafeKey::new(key)
        .open_in_place(aead::Nonce::assume_unique_for_key(NONCE), aead::Aad::from(pseudo_packet), &mut tag)
        .is_ok()
}

fn version(version: u32) -> Result<Version, UnsupportedVersion> {
    // QUIC version 1 is RFC 9000. Versions of its drafts are not spoken.
    if version == 1 { Ok(Version::V1) } else { Err(UnsupportedVersion) }
}

fn initial_suite(provider: &rustls::crypto::CryptoProvider) -> Result<Suite, TlsError> {
    provider
        .cipher_suites
        .iter()
        .find(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
        .and_then(|suite| suite.tls13()?.quic_suite())
        .ok_or_else(|| TlsError::Other("TLS configuration without a QUIC cipher suite".into()))
}

/// The core's transport parameters as they are sent, with ours behind them.
fn offer(core: &TransportParameters, accepts_resets: bool) -> Vec<u8> {
    let mut out = Vec::new();
    core.write(&mut out);
    if accepts_resets {
        for id in RESET_STREAM_AT {
            varint::write(id, &mut out);
            varint::write(0, &mut out);
        }
    }
    out
}

/// Makes the TLS sessions of a client.
pub(crate) struct ClientCrypto {
    config: Arc<rustls::ClientConfig>,
    /// For the keys of the first packets.
    suite: Suite,
    /// Whether RESET_STREAM_AT is offered.
    accepts_resets: bool,
}

impl ClientCrypto {
    pub(crate) fn new(tls: &ClientTls, accepts_resets: bool) -> Result<Self, TlsError> {
        Ok(Self { config: tls.0.clone(), suite: initial_suite(tls.0.crypto_provider())?, accepts_resets })
    }
}

impl crypto::ClientConfig for ClientCrypto {
    fn start_session(
        self: Arc<Self>,
        number: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let refused = || ConnectError::InvalidServerName(server_name.into());
        let version = version(number)?;
        let name = ServerName::try_from(server_name).map_err(|_| refused())?.to_owned();
        let offer = offer(params, self.accepts_resets);
        let inner = ClientConnection::new(self.config.clone(), version, name, offer).map_err(|_| refused())?;
        Ok(Box::new(TlsSession {
            inner: Connection::Client(inner),
            identities: None,
            suite: self.suite,
            version,
            first: None,
            tap: Arc::new(Tap::new(Side::Client, self.accepts_resets)),
            has_reported: false,
            next: None,
        }))
    }
}

/// Makes the TLS sessions of a server.
pub(crate) struct ServerCrypto {
    config: Arc<rustls::ServerConfig>,
    /// The certificates from which `config` chooses.
    identities: Arc<Identities>,
    /// The core's own, which protects Retry packets: these belong to no session.
    core: Arc<QuicServerConfig>,
    /// For the keys of the first packets.
    suite: Suite,
    first: Arc<FirstKeys>,
    /// Whether RESET_STREAM_AT is offered.
    accepts_resets: bool,
}

impl ServerCrypto {
    pub(crate) fn new(tls: &ServerTls, accepts_resets: bool) -> Result<Self, TlsError> {
        let unfit = |why: String| TlsError::Other(format!("TLS configuration that is unfit for QUIC: {why}"));
        let core = QuicServerConfig::try_from(tls.config.clone()).map_err(|e| unfit(e.to_string()))?;
        // `start_session` cannot return an error, so a configuration that does not work has to fail here.
        ServerConnection::new(tls.config.clone(), Version::V1, Vec::new()).map_err(|e| unfit(e.to_string()))?;
        let suite = initial_suite(tls.config.crypto_provider())?;
        Ok(Self {
            config: tls.config.clone(),
            identities: tls.identities.clone(),
            core: Arc::new(core),
            suite,
            first: Arc::default(),
            accepts_resets,
        })
    }
}

impl crypto::ServerConfig for ServerCrypto {
    fn initial_keys(&self, number: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        // They open the packet that begins a connection. The core counts its length for what may be sent to an address that is
        // not validated, so its PADDING stays.
        let keys = Arc::new(self.suite.keys(dst_cid, Side::Server.into(), version(number)?));
        self.first.keep(*dst_cid, keys.clone());
        Ok(shared_keys(&keys))
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.core.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, _: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        let offer = offer(params, self.accepts_resets);
        let inner = ServerConnection::new(self.config.clone(), Version::V1, offer)
            .expect("the configuration was tried when the endpoint was made");
        Box::new(TlsSession {
            inner: Connection::Server(inner),
            identities: Some(self.identities.clone()),
            suite: self.suite,
            version: Version::V1,
            first: Some(self.first.clone()),
            tap: Arc::new(Tap::new(Side::Server, self.accepts_resets)),
            has_reported: false,
            next: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rustls::{
        HandshakeKind, NamedGroup,
        crypto::{CryptoProvider, SupportedKxGroup, ring as ring_provider, ring::kx_group},
        pki_types::{PrivateKeyDer, pem::PemObject},
        quic::Secrets,
    };

    use super::*;
    use crate::tls::{Trust, generate_certificate};

    /// Let one side say what it has to say, piece by piece, each with the keys of its own. Returns its keys for application
    /// data, if it has them now.
    fn speak(speaker: &mut Connection, listener: &mut Connection) -> Option<(rustls::quic::Keys, Secrets)> {
        let mut application = None;
        loop {
            let mut said = Vec::new();
            let change = speaker.write_hs(&mut said);
            listener.read_hs(&said).unwrap();
            match change {
                None => return application,
                Some(KeyChange::Handshake { .. }) => {}
                Some(KeyChange::OneRtt { keys, next }) => application = Some((keys, next)),
            }
        }
    }

    /// A handshake: both sides after it, each with its keys for application data.
    fn shaken(
        client: Arc<rustls::ClientConfig>,
        server: Arc<rustls::ServerConfig>,
    ) -> [(Connection, (rustls::quic::Keys, Secrets)); 2] {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = Connection::from(ClientConnection::new(client, Version::V1, name, Vec::new()).unwrap());
        let mut server = Connection::from(ServerConnection::new(server, Version::V1, Vec::new()).unwrap());
        let (mut of_client, mut of_server) = (None, None);
        while client.is_handshaking() || server.is_handshaking() {
            of_client = speak(&mut client, &mut server).or(of_client);
            of_server = speak(&mut server, &mut client).or(of_server);
        }
        [(client, of_client.unwrap()), (server, of_server.unwrap())]
    }

    /// The group that both agree on, and whether the server had to ask again.
    fn agreed(client: Arc<rustls::ClientConfig>, server: Arc<rustls::ServerConfig>) -> (NamedGroup, bool) {
        let [group, other] = shaken(client, server).map(|(side, _)| {
            let is_asked_again = side.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
            (side.negotiated_key_exchange_group().unwrap().name(), is_asked_again)
        });
        assert_eq!(group, other);
        group
    }

    #[test]
    fn the_next_keys_are_made_when_a_packet_says_so() {
        let (certificate, key, _) = generate_certificate(&["localhost".into()], 1_700_000_000, 2_500_000_000).unwrap();
        let client = ClientTls::new(Trust::Insecure, None).unwrap().0;
        let server = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap().config;
        let header = [7; 9];
        let seal = |key: &dyn PacketKey, number| {
            let mut packet = [&header[..], &[0x01], &[0; 16]].concat();
            key.encrypt(number, &mut packet, header.len());
            BytesMut::from(&packet[header.len()..])
        };
        let forged = || BytesMut::from(&[9; 40][..]);
        let [(_, (of_client, secrets)), (_, (of_server, server_secrets))] = shaken(client, server);
        let first = Arc::new(of_server);
        // What comes, from which packet number on the next keys are there.
        for (number, is_forged, is_due) in [(0, false, false), (15, false, false), (16, false, true), (0, true, true)] {
            let next = Arc::new(NextKeys::new(server_secrets.clone(), 16));
            let first = Box::new(FirstKey { keys: first.clone(), is_local: false });
            let key = TapKey::new(first, Some(next.clone()), Arc::new(Tap::new(Side::Server, true)));
            let mut payload = if is_forged { forged() } else { seal(&of_client.local.packet, number) };
            assert_eq!(key.decrypt(number, &header, &mut payload).is_err(), is_forged);
            assert_eq!(next.is_made(), is_due, "packet {number}");
        }
        // A forged packet that says it was sealed with the next keys costs as much, and a real one is opened.
        let client_next = Arc::new(NextKeys::new(secrets, 16));
        let server_next = Arc::new(NextKeys::new(server_secrets, 16));
        let pair = |keys: &Arc<NextKeys>| [true, false].map(|is_local| NextKey { keys: keys.clone(), is_local });
        let (client_pair, server_pair) = (pair(&client_next), pair(&server_next));
        assert_eq!(PacketKey::tag_len(&server_pair[1]), PacketKey::tag_len(&of_client.local.packet));
        assert!(!server_next.is_made());
        assert!(server_pair[1].decrypt(3, &header, &mut forged()).is_err());
        assert!(server_next.is_made());
        assert!(server_pair[1].decrypt(3, &header, &mut seal(&client_pair[0], 3)).is_ok());
        assert!(client_pair[1].decrypt(3, &header, &mut seal(&server_pair[0], 3)).is_ok());
        // So are those that follow, update after update.
        for number in 4..7 {
            let (client, server) = (client_next.after(), server_next.after());
            assert!(server.remote.decrypt(number, &header, &mut seal(&client.local, number)).is_ok());
            assert!(server_pair[1].decrypt(number, &header, &mut seal(&client.local, number)).is_err());
        }
    }

    #[test]
    fn keys_are_kept_once_for_the_connection_that_they_are_of() {
        let suite = initial_suite(&ring_provider::default_provider()).unwrap();
        let ids = [1, 2].map(|byte| ConnectionId::new(&[byte; 8]));
        let keys = ids.map(|id| Arc::new(suite.keys(&id, rustls::Side::Server, Version::V1)));
        let first = FirstKeys::default();
        first.keep(ids[0], keys[0].clone());
        first.keep(ids[1], keys[1].clone());
        assert!(first.take(&ids[0]).is_none(), "the last ones are kept");
        assert!(first.take(&ids[1]).is_some_and(|kept| Arc::ptr_eq(&kept, &keys[1])));
        assert!(first.take(&ids[1]).is_none());
    }

    #[test]
    fn peers_without_ml_kem_cost_no_round_trip() {
        let (certificate, key, _) = generate_certificate(&["localhost".into()], 1_700_000_000, 2_500_000_000).unwrap();
        let client = || ClientTls::new(Trust::Insecure, None).unwrap().0;
        let server = || ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap().config;
        let provider = |groups: &[&'static dyn SupportedKxGroup]| {
            Arc::new(CryptoProvider { kx_groups: groups.to_vec(), ..ring_provider::default_provider() })
        };
        let other_server = |groups: &[&'static dyn SupportedKxGroup]| {
            let mut config = rustls::ServerConfig::builder_with_provider(provider(groups))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap();
            config.alpn_protocols = vec![b"h3".to_vec()];
            Arc::new(config)
        };
        let other_client = |groups: &[&'static dyn SupportedKxGroup]| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
            let mut config = rustls::ClientConfig::builder_with_provider(provider(groups))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![b"h3".to_vec()];
            Arc::new(config)
        };
        let classical = [kx_group::X25519, kx_group::SECP256R1];
        assert_eq!(agreed(client(), server()), (NamedGroup::X25519MLKEM768, false));
        assert_eq!(agreed(client(), other_server(&classical)), (NamedGroup::X25519, false));
        assert_eq!(agreed(other_client(&classical), server()), (NamedGroup::X25519, false));
        // Who knows no X25519 either is asked once more, as before.
        assert_eq!(agreed(client(), other_server(&[kx_group::SECP256R1])), (NamedGroup::secp256r1, true));
        assert_eq!(agreed(other_client(&[kx_group::SECP256R1]), server()), (NamedGroup::secp256r1, false));
    }

    #[test]
    fn padding_is_cut_off_but_for_the_packet_that_begins_a_connection() {
        use quinn_proto::crypto::{ClientConfig as _, ServerConfig as _};

        let (certificate, key, _) = generate_certificate(&["localhost".into()], 1_700_000_000, 2_500_000_000).unwrap();
        let server = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        let server = Arc::new(ServerCrypto::new(&server, true).unwrap());
        let client = Arc::new(ClientCrypto::new(&ClientTls::new(Trust::Insecure, None).unwrap(), true).unwrap());
        let parameters = TransportParameters::read(Side::Server, &mut Cursor::new(&[][..])).unwrap();
        let client = client.start_session(1, "localhost", &parameters).unwrap();
        let session = server.clone().start_session(1, &parameters);
        let id = ConnectionId::new(&[7; 8]);
        let (header, frame) = ([9; 20], [0x01]);
        let mut packet = [&header[..], &frame, &[0; 1000], &[0; 16]].concat();
        client.initial_keys(&id, Side::Client).packet.local.encrypt(1, &mut packet, header.len());
        let opened = |keys: Keys| {
            let mut payload = packet[header.len()..].into();
            keys.packet.remote.decrypt(1, &header, &mut payload).unwrap();
            payload.len()
        };
        assert_eq!(opened(server.initial_keys(1, &id).ok().unwrap()), 1001);
        assert_eq!(opened(session.initial_keys(&id, Side::Server)), 1);
    }

    #[test]
    fn retry_of_rfc_9001_is_valid() {
        // Appendix A.4.
        let original = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        let header = [0xff, 0, 0, 0, 1, 0, 8, 0xf0, 0x67, 0xa5, 0x50, 0x2a, 0x42, 0x62, 0xb5];
        let mut payload = b"token".to_vec();
        payload.extend_from_slice(&[
            0x04, 0xa2, 0x65, 0xba, 0x2e, 0xff, 0x4d, 0x82, 0x90, 0x58, 0xfb, 0x3f, 0x0f, 0x24, 0x96, 0xba,
        ]);
        assert!(is_valid_retry(&original, &header, &payload));
        payload[0] ^= 1;
        assert!(!is_valid_retry(&original, &header, &payload));
        assert!(!is_valid_retry(&original, &header, &payload[..3]));
    }

    #[test]
    fn parameters_are_split_as_they_came() {
        let raw = [0x1d, 0x00, 0x20, 0x02, 0x7f, 0xff, 0xc0, 0x17, 0xf7, 0x58, 0x6d, 0x2c, 0xb5, 0x71, 0x00, 0x05];
        let expected: [(u64, &[u8]); 3] = [(0x1d, &[]), (0x20, &[0x7f, 0xff]), (RESET_STREAM_AT[1], &[])];
        assert_eq!(parameters(&raw), expected);
        assert!(parameters(&[0x01, 0x05, 0x00]).is_empty());
    }
}
