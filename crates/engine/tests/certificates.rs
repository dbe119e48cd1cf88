//! Certificates that change while connections live, several for different names, and those of clients.

use std::{fs, time::Duration};

use crate::support::{CLEAN, CLIENT, DATA_STREAM, Pair, SERVER, pattern};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use wtio_engine::{
    CloseCause, Event,
    tls::{ClientPolicy, ClientTls, ServerTls, Trust, generate_certificate},
};

const BEGIN: i64 = 1_700_000_000;
const END: i64 = BEGIN + 9000 * 86_400;

fn server(names: &[&str]) -> ServerTls {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let (certificate, key, _) = generate_certificate(&names, BEGIN, END).unwrap();
    ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap()
}

fn anyone() -> ClientTls {
    ClientTls::new(Trust::Insecure, None).unwrap()
}

/// An authority: its certificate in PEM, and what issues others.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), Issuer::new(params, key))
}

fn client_of(issuer: &Issuer<'static, KeyPair>) -> ClientTls {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["alice.example".into()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    let (certificate, key) = (certificate.pem(), key.serialize_pem());
    ClientTls::new(Trust::Insecure, Some((certificate.as_bytes(), key.as_bytes()))).unwrap()
}

/// Connect once more, on the server's side as `ids[SERVER]`: the chain that the client was shown, or how it was refused.
fn attempt(pair: &mut Pair, name: &str, tls: &ClientTls) -> Result<Vec<Vec<u8>>, (CloseCause, u64)> {
    let id = pair.engines[CLIENT].connect(pair.now, pair.addresses[SERVER], name, tls).unwrap();
    pair.events = [Vec::new(), Vec::new()];
    pair.run_for(Duration::from_secs(1));
    for event in &pair.events[CLIENT] {
        if let Event::Closed { connection, cause, code, .. } = event
            && *connection == id
        {
            return Err((*cause, *code));
        }
    }
    Ok(pair.engines[CLIENT].connection(pair.now, id).unwrap().peer_certificates())
}

#[test]
fn a_server_shows_another_certificate_and_its_connections_go_on() {
    let mut pair = Pair::new(1, CLEAN, |_| ());
    let next = server(&["localhost"]);
    let first = pair.ids;
    pair.engines[SERVER].set_server_tls(&next).unwrap();
    assert_eq!(attempt(&mut pair, "localhost", &anyone()).unwrap(), next.certificates());
    pair.ids = first;
    pair.events = [Vec::new(), Vec::new()];
    let stream = pair.open(CLIENT, DATA_STREAM);
    let data = pattern(100_000);
    assert_eq!(pair.transfer(CLIENT, stream, &data), data);
}

#[test]
fn the_name_chooses_the_certificate_and_both_sides_know_which() {
    let mut pair = Pair::new(2, CLEAN, |_| ());
    let (first, second) = (server(&["a.example"]), server(&["*.b.example"]));
    pair.engines[SERVER].set_server_tls(&first.with_further(&[&second])).unwrap();
    for (name, shown) in [("a.example", &first), ("x.b.example", &second), ("c.example", &first)] {
        assert_eq!(attempt(&mut pair, name, &anyone()).unwrap(), shown.certificates(), "{name}");
        let id = pair.ids[SERVER];
        let own = pair.engines[SERVER].connection(pair.now, id).unwrap().facts().own_chain.unwrap();
        assert_eq!(&own[..], shown.certificates());
    }
}

#[test]
fn clients_are_taken_by_their_authority_and_nothing_is_resumed_once_it_changes() {
    let ((pem, issuer), (other_pem, other)) = (authority(), authority());
    let plain = server(&["localhost"]);
    let policy = |pem: &str, is_required| ClientPolicy::new(pem.as_bytes(), is_required).unwrap();
    let required = plain.asking_clients(policy(&pem, true)).unwrap();
    let mut pair = Pair::new(3, CLEAN, |_| ());
    pair.engines[SERVER].set_server_tls(&required.after(&plain)).unwrap();
    let known = client_of(&issuer);
    assert!(attempt(&mut pair, "localhost", &known).is_ok());
    let id = pair.ids[SERVER];
    assert_eq!(pair.engines[SERVER].connection(pair.now, id).unwrap().peer_certificates().len(), 1);
    // certificate_required; the stranger's authority is not known.
    assert_eq!(attempt(&mut pair, "localhost", &anyone()).unwrap_err(), (CloseCause::Tls, 116));
    assert_eq!(attempt(&mut pair, "localhost", &client_of(&other)).unwrap_err().0, CloseCause::Tls);
    // Whoever resumes is not checked again, so a ticket must not outlive what it was given out for.
    let changed = plain.asking_clients(policy(&other_pem, true)).unwrap();
    assert!(!changed.has_same_clients(&required));
    pair.engines[SERVER].set_server_tls(&changed.after(&required)).unwrap();
    assert_eq!(attempt(&mut pair, "localhost", &known).unwrap_err().0, CloseCause::Tls);
    let requested = plain.asking_clients(policy(&pem, false)).unwrap();
    pair.engines[SERVER].set_server_tls(&requested.after(&changed)).unwrap();
    let guest = anyone();
    assert!(attempt(&mut pair, "localhost", &guest).is_ok());
    assert!(attempt(&mut pair, "localhost", &client_of(&other)).is_err());
    pair.engines[SERVER].set_server_tls(&required.after(&requested)).unwrap();
    assert_eq!(attempt(&mut pair, "localhost", &guest).unwrap_err(), (CloseCause::Tls, 116));
}

#[test]
fn secrets_are_appended_to_a_file_that_only_its_owner_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::temp_dir().join(format!("wtio-keys-{}", std::process::id()));
    let tls = server(&["localhost"]).logging_keys(&path).unwrap();
    let mut pair = Pair::new(4, CLEAN, |_| ());
    pair.engines[SERVER].set_server_tls(&tls).unwrap();
    for _ in 0..2 {
        attempt(&mut pair, "localhost", &anyone().logging_keys(&path).unwrap()).unwrap();
    }
    let (text, mode) = (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap().permissions().mode());
    fs::remove_file(&path).unwrap();
    assert_eq!(mode & 0o777, 0o600);
    let secret = text.lines().filter(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 "));
    assert_eq!(secret.clone().count(), 4, "of two connections on both sides");
    for line in secret {
        let fields: Vec<usize> = line.split(' ').map(str::len).collect();
        assert!(fields[1] == 64 && (fields[2] == 64 || fields[2] == 96), "{line}");
    }
    assert!(server(&["localhost"]).logging_keys(std::path::Path::new("/nowhere/keys")).is_err());
}
