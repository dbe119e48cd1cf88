//! Certificates and trust: the configurations that rustls gets, checked early so that a mistake is named at start.

use std::{cell::RefCell, fmt, net::IpAddr, path::Path, sync::Arc};

use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, InconsistentKeys, KeyLog, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use x509_parser::{
    extensions::GeneralName,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519},
    prelude::{FromDer, X509Certificate},
};

use crate::{
    identities::{Identities, Identity},
    key_exchange::X25519MLKEM768,
    key_log::KeyFile,
};

/// Longest validity of a certificate that is trusted by its hash (W3C WebTransport, custom certificate requirements).
const HASH_VALIDITY_LIMIT: i64 = 14 * 24 * 3600;
const ALPN_H3: &[u8] = b"h3";

/// What cannot be used, and why in words. The kind says whose file is at fault.
#[derive(Debug, Clone)]
pub enum TlsError {
    /// A private key, or it does not belong to its certificate.
    PrivateKey(String),
    /// The authorities whose clients a server takes.
    ClientAuthorities(String),
    /// Anything else: a certificate or a trust setting.
    Other(String),
}

impl TlsError {
    /// The error in words.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::PrivateKey(words) | Self::ClientAuthorities(words) | Self::Other(words) => words,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl std::error::Error for TlsError {}

fn error(words: impl Into<String>) -> TlsError {
    TlsError::Other(words.into())
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // rustls puts AES-256 first; AES-128 is what browsers prefer, what QUIC starts with, and a quarter faster.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups.insert(0, X25519MLKEM768);
    Arc::new(provider)
}

/// Whom a client trusts.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The operating system's roots.
    System,
    /// These roots (PEM), and no others.
    Roots(Vec<u8>),
    /// A leaf whose SHA-256 is one of these, under the browsers' rules.
    Hashes(Vec<[u8; 32]>),
    /// Anybody. For tests.
    Insecure,
}

/// Client configuration, shared by all connections with the same trust.
#[derive(Clone)]
pub struct ClientTls(pub(crate) Arc<rustls::ClientConfig>);

/// Server configuration.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) config: Arc<rustls::ServerConfig>,
    pub(crate) identities: Arc<Identities>,
    /// Whose clients are taken; `None` asks for no certificate.
    clients: Option<Arc<ClientPolicy>>,
}

/// Which certificates of clients a server takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPolicy {
    authorities: Vec<CertificateDer<'static>>,
    is_required: bool,
}

impl ClientPolicy {
    /// Take certificates that one of these authorities (PEM) has issued; with `is_required`, no client without one.
    ///
    /// # Errors
    /// Names what cannot be used.
    pub fn new(authorities_pem: &[u8], is_required: bool) -> Result<Self, TlsError> {
        let policy = Self { authorities: certificates(authorities_pem)?, is_required };
        policy.verifier(provider())?;
        Ok(policy)
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let unfit =
            |why: String| TlsError::ClientAuthorities(format!("the authorities of clients cannot be used: {why}"));
        let roots = root_store(&self.authorities).map_err(|e| unfit(e.to_string()))?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if self.is_required { builder } else { builder.allow_unauthenticated() };
        let inner = builder.build().map_err(|e| unfit(e.to_string()))?;
        Ok(Arc::new(ClientWitness(inner)))
    }
}

fn root_store(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone()).map_err(|_| error("a root certificate is damaged: it is not X.509"))?;
    }
    Ok(roots)
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls({} certificates)", self.identities.all().len())
    }
}

impl ClientTls {
    /// Build from a trust setting and, where the server asks for one, a certificate of the client's own (PEM).
    ///
    /// # Errors
    /// Names what cannot be used: no certificate in the PEM, no roots on the system, key and certificate apart.
    pub fn new(trust: Trust, own: Option<(&[u8], &[u8])>) -> Result<Self, TlsError> {
        Self::build(trust, own, provider())
    }

    /// One that trusts anybody and does not know X25519MLKEM768, so that its hello fits into one packet: what an attacker
    /// would rather send. For tests.
    ///
    /// # Errors
    /// None that is known.
    pub fn with_a_small_hello() -> Result<Self, TlsError> {
        Self::build(Trust::Insecure, None, Arc::new(rustls::crypto::ring::default_provider()))
    }

    fn build(trust: Trust, own: Option<(&[u8], &[u8])>, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let verifier: Arc<dyn ServerCertVerifier> = match trust {
            Trust::System => Arc::new(
                rustls_platform_verifier::Verifier::new(provider.clone())
                    .map_err(|e| {
                        error(format!(
                            "the system's trust store is empty or cannot be used ({e}); install it, often as the package \
                             ca-certificates, let SSL_CERT_FILE or SSL_CERT_DIR name one, or trust the server's authority \
                             itself with ClientTLS(cafile=...)"
                        ))
                    })?,
            ),
            Trust::Roots(pem) => {
                let roots = root_store(&certificates(&pem)?)?;
                rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|e| error(format!("the root certificates cannot be used: {e}")))?
            }
            Trust::Hashes(hashes) => Arc::new(HashVerifier { hashes, provider: provider.clone() }),
            Trust::Insecure => Arc::new(AnyVerifier { provider: provider.clone() }),
        };
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| error(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Witness(verifier)));
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let own = certified(certificates(certificate)?, private_key(key)?, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
        };
        config.alpn_protocols = vec![ALPN_H3.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// The same, whose secrets are appended to a file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn logging_keys(mut self, path: &Path) -> Result<Self, TlsError> {
        Arc::make_mut(&mut self.0).key_log = key_log(path)?;
        Ok(self)
    }
}

impl ServerTls {
    /// Build from a chain and a key in PEM. No client is asked for a certificate.
    ///
    /// # Errors
    /// Names what cannot be used: nothing in the PEM, a key that does not belong to the certificate, a chain in another
    /// order, a CA as leaf, a leaf that is not for servers.
    pub fn new(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(certificate_pem)?;
        let key = private_key(key_pem)?;
        let certified = certified(chain.clone(), key, &provider())?;
        let leaf = parse(chain[0].as_ref())?;
        if leaf.is_ca() {
            // rustls clients refuse it (CaUsedAsEndEntity), browsers too.
            return Err(error(
                "the certificate is a certificate authority (CA:TRUE) and cannot serve as a server's own; issue a leaf",
            ));
        }
        // RFC 5280, section 4.2.1.12: a certificate with this extension is for what it names only.
        if let Ok(Some(usage)) = leaf.extended_key_usage()
            && !usage.value.server_auth
            && !usage.value.any
        {
            let only = if usage.value.client_auth { "for clients only" } else { "not for servers" };
            return Err(error(format!(
                "the certificate is {only} (its extended key usage lacks serverAuth), and clients would refuse it; issue \
                 one with serverAuth"
            )));
        }
        let names = certificate_facts(chain[0].as_ref())?.names;
        Self::build(Arc::new(Identities::new(vec![Identity::new(certified, &names)])), None)
    }

    fn build(identities: Arc<Identities>, clients: Option<Arc<ClientPolicy>>) -> Result<Self, TlsError> {
        let provider = provider();
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| error(e.to_string()))?;
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(clients.verifier(provider)?),
        };
        let mut config = builder.with_cert_resolver(identities.clone());
        config.alpn_protocols = vec![ALPN_H3.to_vec()];
        // One is enough to resume with; each costs both sides a key derivation.
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), identities, clients })
    }

    /// The same, which asks clients for certificates.
    ///
    /// # Errors
    /// For authorities that cannot be used.
    pub fn asking_clients(&self, policy: ClientPolicy) -> Result<Self, TlsError> {
        let mut asking = Self::build(self.identities.clone(), Some(Arc::new(policy)))?;
        Arc::make_mut(&mut asking.config).key_log = self.config.key_log.clone();
        Ok(asking)
    }

    /// The same, whose secrets are appended to a file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn logging_keys(mut self, path: &Path) -> Result<Self, TlsError> {
        Arc::make_mut(&mut self.config).key_log = key_log(path)?;
        Ok(self)
    }

    /// The same, with the certificates of others behind its own. The server name that a client asks for (SNI) chooses
    /// among them; the first of all is for clients that ask for none, or for one that no certificate has.
    #[must_use]
    pub fn with_further(&self, others: &[&Self]) -> Self {
        let all = [self].into_iter().chain(others.iter().copied());
        let identities = Arc::new(Identities::new(all.flat_map(|tls| tls.identities.all()).cloned().collect()));
        let mut config = (*self.config).clone();
        config.cert_resolver = identities.clone();
        Self { config: Arc::new(config), identities, clients: self.clients.clone() }
    }

    /// The same, in place of `before` on a running server: tickets that `before` has given out stay good if both take the
    /// same clients. If not, they are worthless, because a resumed session is not checked again (RFC 8446, section 4.6.1).
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        let mut next = self.clone();
        if self.has_same_clients(before) {
            Arc::make_mut(&mut next.config).session_storage = before.config.session_storage.clone();
        }
        next
    }

    /// Whether both take the same clients.
    #[must_use]
    pub fn has_same_clients(&self, other: &Self) -> bool {
        self.clients == other.clients
    }

    /// The chain of the first certificate in DER, leaf first.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        self.identities.chosen(None).chain()
    }
}

fn key_log(path: &Path) -> Result<Arc<dyn KeyLog>, TlsError> {
    let file = KeyFile::open(path)
        .map_err(|e| error(format!("the file for TLS secrets `{}` cannot be opened: {e}", path.display())))?;
    Ok(Arc::new(file))
}

/// Join a chain with the key of its first certificate.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        TlsError::PrivateKey(
            "the private key cannot be used: it is damaged, or of a kind that TLS 1.3 does not take here; use ECDSA P-256 \
             or P-384, Ed25519, or RSA of 2048 to 8192 bits"
                .into(),
        )
    })?;
    for (position, certificate) in chain.iter().enumerate() {
        parse(certificate.as_ref()).map_err(|_| {
            error(format!("certificate {} of {} is damaged: it is not X.509", position + 1, chain.len()))
        })?;
    }
    let is_of = |certificate: &CertificateDer<'static>| {
        let one = CertifiedKey::new(vec![certificate.clone()], key.clone());
        matches!(one.keys_match(), Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)))
    };
    match chain.iter().position(is_of) {
        Some(0) => Ok(CertifiedKey::new(chain, key)),
        Some(position) => Err(error(format!(
            "the chain is in the wrong order: the certificate of the private key is number {} of {} and must be the first, \
             with those of its authorities behind it",
            position + 1,
            chain.len()
        ))),
        None => Err(TlsError::PrivateKey(
            "the private key does not belong to the certificate; give the key that it was issued for".into(),
        )),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| error("the certificate file is not valid PEM: it is cut off or damaged"))?;
    if found.is_empty() {
        return Err(error("no certificate found; expected PEM with `-----BEGIN CERTIFICATE-----`"));
    }
    Ok(found)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        TlsError::PrivateKey("no private key found; expected PEM with `-----BEGIN PRIVATE KEY-----`".into())
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, TlsError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| error(format!("not an X.509 certificate: {e}")))
}

/// What a person wants to know of a certificate. Times are Unix seconds.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct CertificateFacts {
    pub not_before: i64,
    pub not_after: i64,
    pub key_algorithm: String,
    pub subject: String,
    pub issuer: String,
    pub names: Vec<String>,
}

/// Read the facts of a certificate in DER.
///
/// # Errors
/// When it is no X.509 certificate.
pub fn certificate_facts(der: &[u8]) -> Result<CertificateFacts, TlsError> {
    let certificate = parse(der)?;
    let mut names = Vec::new();
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        for name in &alternative.value.general_names {
            match name {
                GeneralName::DNSName(dns) => names.push((*dns).to_owned()),
                GeneralName::IPAddress(raw) => match raw.len() {
                    4 => names.push(IpAddr::from(<[u8; 4]>::try_from(*raw).unwrap_or_default()).to_string()),
                    16 => names.push(IpAddr::from(<[u8; 16]>::try_from(*raw).unwrap_or_default()).to_string()),
                    _ => {}
                },
                _ => {}
            }
        }
    }
    Ok(CertificateFacts {
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        key_algorithm: key_algorithm(&certificate),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names,
    })
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> String {
    let algorithm = &certificate.public_key().algorithm;
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        "RSA".into()
    } else if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        match algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()) {
            Some(curve) if curve == OID_EC_P256 => "ECDSA P-256".into(),
            Some(curve) => format!("ECDSA {curve}"),
            None => "ECDSA".into(),
        }
    } else if algorithm.algorithm == OID_SIG_ED25519 {
        "Ed25519".into()
    } else {
        algorithm.algorithm.to_string()
    }
}

/// SHA-256.
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, data);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Make a self-signed ECDSA P-256 leaf for development: certificate PEM, key PEM, certificate DER.
///
/// # Errors
/// For a name that is neither an IP address nor a DNS name, or times outside the calendar.
pub fn generate_certificate(
    names: &[String],
    not_before: i64,
    not_after: i64,
) -> Result<(String, String, Vec<u8>), TlsError> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| error(e.to_string()))?;
    let mut params = rcgen::CertificateParams::new(names.to_vec())
        .map_err(|e| error(format!("names {names:?} cannot be put into a certificate: {e}")))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, names.first().map_or("wtio development", String::as_str));
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let time = |seconds: i64| {
        let (year, month, day, rest) = civil(seconds);
        let day_start = rcgen::date_time_ymd(year, month, day);
        day_start + std::time::Duration::from_secs(rest)
    };
    params.not_before = time(not_before);
    params.not_after = time(not_after);
    let certificate = params.self_signed(&key).map_err(|e| error(e.to_string()))?;
    Ok((certificate.pem(), key.serialize_pem(), certificate.der().to_vec()))
}

/// Year, month, day and second of the day of a Unix time (proleptic Gregorian calendar).
fn civil(seconds: i64) -> (i32, u8, u8, u64) {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400) as u64;
    // Shift the epoch to 1 March of year 0, so that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u8;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u8;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as i32, month, day, rest)
}

/// A certificate that our verifier did not accept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusal {
    /// The chain in DER, leaf first.
    pub(crate) chain: Vec<Vec<u8>>,
    /// Why, for people.
    pub(crate) words: String,
}

thread_local! {
    /// The last refusal on this thread. Neither rustls nor the QUIC core keeps the certificate, so it waits here until
    /// the call that fed them returns to the engine, which asks for it then.
    static REFUSED: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// The refusal that has just ended a handshake on this thread, if one did.
pub(crate) fn take_refusal() -> Option<Refusal> {
    REFUSED.take()
}

/// Whether a certificate names itself as its issuer.
fn is_self_signed(der: &[u8]) -> bool {
    parse(der).is_ok_and(|certificate| certificate.subject().as_raw() == certificate.issuer().as_raw())
}

/// Say why a certificate is refused, without the names of Rust's types where that can be had.
fn words(error: &rustls::Error, der: &[u8]) -> String {
    use rustls::CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidYet, NotValidYetContext, Other, Revoked, UnknownIssuer,
        UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    let rustls::Error::InvalidCertificate(reason) = error else { return error.to_string() };
    match reason {
        Expired | ExpiredContext { .. } => "it has expired".into(),
        NotValidYet | NotValidYetContext { .. } => "it is not valid yet".into(),
        // Somebody else's trusted certificate may have the same name, CN=localhost for instance: then it is BadSignature.
        UnknownIssuer | BadSignature if is_self_signed(der) => "it is signed by itself and by no authority".into(),
        UnknownIssuer => "no trusted authority has signed it".into(),
        Revoked => "it was revoked".into(),
        // A trusted authority has the name of the issuer, but not its key.
        BadSignature | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it was not signed by the trusted authority that it names".into()
        }
        Other(inner) => match inner.0.to_string().as_str() {
            "CaUsedAsEndEntity" => "it is the certificate of an authority (CA:TRUE), not of a server".into(),
            text => text.into(),
        },
        other => other.to_string(),
    }
}

fn remember(error: &rustls::Error, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) {
    let chain = std::iter::once(end_entity).chain(intermediates);
    let chain = chain.map(|certificate| certificate.as_ref().to_vec()).collect();
    REFUSED.set(Some(Refusal { chain, words: words(error, end_entity) }));
}

/// Let the verifier inside look at signatures. Two traits of rustls ask for it in the same words.
macro_rules! pass_on_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    };
}

/// Lets another verifier decide, and remembers what it refuses: people want to see that certificate.
#[derive(Debug)]
struct Witness(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verdict.inspect_err(|error| remember(error, end_entity, intermediates))
    }

    pass_on_signatures!();
}

/// As [`Witness`], for certificates of clients.
#[derive(Debug)]
struct ClientWitness(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ClientWitness {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(end_entity, intermediates, now).inspect_err(|error| {
            remember(error, end_entity, intermediates);
        })
    }

    pass_on_signatures!();
}

fn refuse(text: String) -> rustls::Error {
    let other = rustls::OtherError(Arc::new(error(text)));
    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))
}

/// Trust by hash, with the custom certificate requirements of the W3C API: X.509v3, valid now, at most two weeks of
/// validity, ECDSA P-256. Chain and host name are not consulted.
#[derive(Debug)]
struct HashVerifier {
    hashes: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl HashVerifier {
    fn check(&self, der: &[u8], now: UnixTime) -> Result<(), String> {
        let digest = sha256(der);
        if !self.hashes.contains(&digest) {
            return Err(format!(
                "the server's certificate has SHA-256 {}, which is not among the {} pinned",
                digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                self.hashes.len()
            ));
        }
        let certificate = parse(der).map_err(|e| e.to_string())?;
        if certificate.version() != x509_parser::x509::X509Version::V3 {
            return Err("a pinned certificate must be X.509 version 3".into());
        }
        let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
        let now = now.as_secs() as i64;
        if to - from > HASH_VALIDITY_LIMIT {
            return Err(format!(
                "a pinned certificate may be valid for at most 14 days, this one is for {:.1} days",
                (to - from) as f64 / 86_400.0
            ));
        }
        if now < from || now > to {
            return Err(format!(
                "the pinned certificate is {}: valid from Unix time {from} to {to}, now is {now}",
                if now < from { "not valid yet" } else { "expired" }
            ));
        }
        match key_algorithm(&certificate).as_str() {
            "ECDSA P-256" => Ok(()),
            other => Err(format!("a pinned certificate must have an ECDSA P-256 key, this one has {other}")),
        }
    }
}

macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(refuse("QUIC needs TLS 1.3".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for HashVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity.as_ref(), now).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

/// Trust anybody: only that the peer holds the key of the certificate it shows is checked.
#[derive(Debug)]
struct AnyVerifier {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_vectors() {
        assert_eq!(civil(0), (1970, 1, 1, 0));
        assert_eq!(civil(951_782_400), (2000, 2, 29, 0));
        assert_eq!(civil(1_795_305_599), (2026, 11, 21, 86_399));
    }

    fn issue(days: i64, from: i64) -> Vec<u8> {
        generate_certificate(&["localhost".into(), "127.0.0.1".into()], from, from + days).unwrap().2
    }

    fn verdict(der: &[u8], hashes: Vec<[u8; 32]>, now: i64) -> Result<(), String> {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now as u64));
        HashVerifier { hashes, provider: provider() }.check(der, now)
    }

    #[test]
    fn hash_pinning_follows_the_browsers_rules() {
        let start = 1_795_000_000;
        let exact = issue(HASH_VALIDITY_LIMIT, start);
        assert_eq!(verdict(&exact, vec![sha256(&exact)], start), Ok(()));
        assert!(verdict(&exact, vec![[0; 32]], start).unwrap_err().contains("not among the 1 pinned"));
        assert!(verdict(&exact, vec![sha256(&exact)], start - 1).unwrap_err().contains("not valid yet"));
        assert!(verdict(&exact, vec![sha256(&exact)], start + 15 * 86_400).unwrap_err().contains("expired"));
        let long = issue(HASH_VALIDITY_LIMIT + 1, start);
        assert!(verdict(&long, vec![sha256(&long)], start).unwrap_err().contains("at most 14 days"));
    }

    #[test]
    fn facts_of_a_generated_certificate() {
        let facts = certificate_facts(&issue(86_400, 1_795_000_000)).unwrap();
        assert_eq!(facts.key_algorithm, "ECDSA P-256");
        assert_eq!(facts.names, ["localhost", "127.0.0.1"]);
        assert_eq!((facts.not_before, facts.not_after), (1_795_000_000, 1_795_086_400));
    }

    #[test]
    fn key_of_another_certificate_is_refused() {
        let names = ["localhost".to_string()];
        let (certificate, _, _) = generate_certificate(&names, 1_795_000_000, 1_795_086_400).unwrap();
        let (_, key, _) = generate_certificate(&names, 1_795_000_000, 1_795_086_400).unwrap();
        let refused = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(refused.words().contains("does not belong"), "{refused}");
    }
}
