//! The workloads of the benchmarks with no Python and no HTTP/3: what is left is the limit for a library.
//!
//! `bare server` and `bare client` take the options of the Python peers. The sizes come from the caller, so that they
//! are written once, in `benchmarks/workloads.py`.

mod client;
mod peer;
mod server;

use std::{
    collections::HashMap,
    error::Error,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    ClientConfig, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    CipherSuite, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// One write of a bulk transfer.
static CHUNK: [u8; 65_536] = [0x5a; 65_536];
/// How often a receiver of datagrams reports.
const DATAGRAM_REPORT: u64 = 32;
const WORKLOADS: [&str; 6] = ["echo", "request", "datagrams", "datagram-echo", "upload", "download"];

type Options = HashMap<String, String>;

fn text<'a>(options: &'a Options, name: &str) -> Result<&'a str, String> {
    options.get(name).map(String::as_str).ok_or_else(|| format!("--{name} is missing"))
}

fn value<T: std::str::FromStr>(options: &Options, name: &str) -> Result<T, String> {
    let given = text(options, name)?;
    given.parse().map_err(|_| format!("--{name} cannot be `{given}`"))
}

/// A number in network order.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// AES-128 first, as in wtio.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn server_config(options: &Options) -> Result<ServerConfig, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(text(options, "certificate")?)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(text(options, "key")?)?;
    let provider = provider();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = WORKLOADS.map(|name| name.as_bytes().to_vec()).to_vec();
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(peer::transport());
    Ok(config)
}

fn client_configs(options: &Options) -> Result<HashMap<&'static str, ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(text(options, "cafile")?)? {
        roots.add(certificate?)?;
    }
    let provider = provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut configs = HashMap::new();
    for workload in WORKLOADS {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![workload.as_bytes().to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(peer::transport());
        configs.insert(workload, config);
    }
    Ok(configs)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let side = arguments.next().ok_or("usage: bare server|client --name value ...")?;
    let mut options = Options::new();
    while let Some(name) = arguments.next() {
        let name = name.strip_prefix("--").ok_or("options are --name value")?.to_owned();
        options.insert(name, arguments.next().ok_or("an option has no value")?);
    }
    let end = Instant::now() + Duration::from_secs_f64(value(&options, "seconds")?);
    match side.as_str() {
        "server" => {
            let peer = peer::Peer::new(Some(server_config(&options)?))?;
            writeln!(io::stdout(), "{{\"port\": {}}}", peer.port()?)?;
            server::serve(peer, end)?;
        }
        "client" => client::run(&options, &client_configs(&options)?, end)?,
        other => return Err(format!("no side `{other}`").into()),
    }
    Ok(())
}
