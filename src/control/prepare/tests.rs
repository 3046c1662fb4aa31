//! With certificates in memory and on disk, and pools that need no resolver.

use rustls::server::ProducesTickets;

use super::*;
use crate::config::{BackendAddress, ClientAuthSettings, PoolSettings};
use crate::endpoint::Endpoint;
use crate::proxy_protocol::ProxyProtocol;
use crate::tls::CryptoLibrary;
use crate::tls::policy::UnknownServerName;
use crate::tls::self_signed::self_signed;
use crate::tls::tickets::KeyRing;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn listener(name: &str, port: u16) -> ListenerSettings {
    ListenerSettings {
        name: name.to_owned(),
        addresses: vec![address(port).into()],
        certificates: Vec::new(),
        default_certificate: None,
        unknown_sni: UnknownServerName::Default,
        alpn: Vec::new(),
        accept_proxy_from: Vec::new(),
        routes: Vec::new(),
        session_domain: None,
        client_auth: ClientAuthSettings::default(),
        client_auth_for: Vec::new(),
        pool: 0,
        shadow: None,
        policy: config::TlsPolicy::new(CryptoLibrary::AwsLc),
    }
}

fn settings(listeners: Vec<ListenerSettings>) -> Settings {
    let backend = BackendAddress::Endpoint(Endpoint::Inet(address(80)));
    Settings {
        listeners,
        pools: vec![PoolSettings {
            proxy_protocol: ProxyProtocol::V2,
            ..PoolSettings::new("web".to_owned(), vec![backend])
        }],
        ..Settings::default()
    }
}

fn in_memory() -> Preparer {
    let certificate = self_signed(&["a.example"], CryptoLibrary::AwsLc).expect("a certificate");
    Preparer::new(CertificateSource::InMemory(vec![Arc::new(certificate)]), SessionKeys::default())
}

/// The errors among `findings`, as text.
fn error_texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect()
}

#[test]
fn every_bound_address_gets_its_listener_in_order() {
    let settings = settings(vec![listener("one", 1), listener("two", 2)]);
    let mut bound = addresses(&settings);
    bound.reverse();
    let (prepared, findings) = in_memory().prepare(&settings, &bound, 7);
    assert_eq!(error_texts(&findings), Vec::<String>::new());
    let snapshot = prepared.expect("a configuration").snapshot;
    assert_eq!(snapshot.generation, 7);
    let names: Vec<&str> = snapshot.listeners.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["two", "one"]);
    assert_eq!(snapshot.pools.len(), 1);
}

#[test]
fn new_and_missing_addresses_are_errors_that_ask_for_a_restart() {
    let bound = addresses(&settings(vec![listener("one", 1)]));
    let changed = settings(vec![listener("one", 3)]);
    let (prepared, findings) = in_memory().prepare(&changed, &bound, 2);
    assert!(prepared.is_none());
    let errors = error_texts(&findings);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("is new on 127.0.0.1:3") && errors[0].contains("restart"));
    assert!(errors[1].contains("\"one\" on 127.0.0.1:1 is gone"), "{errors:?}");
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let bad = directory.path().join("bad.pem");
    std::fs::write(&bad, "not a certificate").expect("a file");
    let mut one = listener("one", 1);
    one.certificates = vec![bad.clone().into(), directory.path().join("none.pem").into()];
    let mut two = listener("two", 2);
    two.certificates = vec![bad.into()];
    let settings = settings(vec![one, two]);
    let mut preparer = Preparer::new(CertificateSource::Files, SessionKeys::default());
    let (prepared, findings) = preparer.prepare(&settings, &addresses(&settings), 1);
    assert!(prepared.is_none());
    let errors = error_texts(&findings);
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].contains("bad.pem") && errors[2].contains("bad.pem"), "{errors:?}");
    assert!(errors[1].contains("none.pem"), "{errors:?}");
}

/// The rings by domain.
fn rings(preparer: &Preparer) -> std::collections::HashMap<DomainId, Arc<KeyRing>> {
    preparer.session_keys.rings()
}

#[test]
fn ticket_keys_survive_a_reload() {
    let settings = settings(vec![listener("one", 1)]);
    let bound = addresses(&settings);
    let mut preparer = in_memory();
    preparer.prepare(&settings, &bound, 1).0.expect("a configuration");
    let before = rings(&preparer);
    let ring = before.values().next().expect("a ring");
    let ticket = ring.encrypt(b"session").expect("a ticket");
    preparer.prepare(&settings, &bound, 2).0.expect("a configuration");
    for (domain, ring) in &before {
        assert!(Arc::ptr_eq(ring, &rings(&preparer)[domain]), "the same after the reload");
    }
    assert_eq!(ring.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
}

#[test]
fn listeners_with_the_same_names_are_one_domain_unless_one_has_its_own() {
    let (one, two, mut three) = (listener("one", 1), listener("two", 2), listener("three", 3));
    three.session_domain = Some("staging".to_owned());
    let settings = settings(vec![one, two, three]);
    let mut preparer = in_memory();
    preparer.prepare(&settings, &addresses(&settings), 1).0.expect("a configuration");
    assert_eq!(rings(&preparer).len(), 2);
}

#[test]
fn other_names_are_another_domain() {
    let settings = settings(vec![listener("one", 1)]);
    let bound = addresses(&settings);
    let mut preparer = in_memory();
    preparer.prepare(&settings, &bound, 1).0.expect("a configuration");
    let before = rings(&preparer);
    let other = self_signed(&["b.example"], CryptoLibrary::AwsLc).expect("a certificate");
    preparer.source = CertificateSource::InMemory(vec![Arc::new(other)]);
    preparer.prepare(&settings, &bound, 2).0.expect("a configuration");
    let after = rings(&preparer);
    assert_eq!(after.len(), 1);
    assert!(after.keys().all(|domain| !before.contains_key(domain)));
}

#[test]
fn a_reload_that_fails_keeps_the_ticket_keys() {
    let good = settings(vec![listener("one", 1)]);
    let bound = addresses(&good);
    let mut preparer = in_memory();
    preparer.prepare(&good, &bound, 1).0.expect("a configuration");
    let bad = settings(vec![listener("one", 9)]);
    assert!(preparer.prepare(&bad, &bound, 2).0.is_none());
    assert_eq!(rings(&preparer).len(), 1);
}

#[test]
fn what_needs_a_restart_is_told_and_another_library_is_refused() {
    let old = settings(vec![listener("one", 1)]);
    assert_eq!(needs_restart(&old, &old.clone()), []);
    let mut new = old.clone();
    new.engine.backlog += 1;
    let findings = needs_restart(&old, &new);
    assert_eq!(findings.len(), 1);
    assert!(!findings[0].is_error() && findings[0].to_string().contains("engine"));
    new.tls.provider = CryptoLibrary::Ring;
    let errors = error_texts(&needs_restart(&old, &new));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("tls.provider") && errors[0].contains("restart"), "{errors:?}");
}
