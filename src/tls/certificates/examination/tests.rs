//! With chains that openssl makes.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

use super::*;
use crate::tls::certificates::test_files::P256;
use crate::tls::certificates::unix_seconds;
use crate::tls::test_support::{LIBRARIES, openssl, openssl_certificate};

/// root → middle → leaf, and a stranger of middle's name.
static CHAIN: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    openssl_certificate(at, "root", P256, "DNS:root.example");
    issue(at, "middle", "middle", "root", P256, "basicConstraints=CA:TRUE", "");
    issue(at, "leaf", "leaf", "middle", P256, "subjectAltName=DNS:a.example,DNS:*.b.example", "");
    openssl_certificate(at, "middle2", P256, "DNS:root.example");
    issue(at, "stranger", "middle", "middle2", P256, "basicConstraints=CA:TRUE", "");
    directory
});

fn issue(
    at: &Path,
    name: &str,
    subject: &str,
    issuer: &str,
    key: &str,
    extensions: &str,
    more: &str,
) {
    let request = format!("req -new -newkey {key} -nodes -keyout {name}.key -out {name}.csr");
    openssl(at, &format!("{request} -subj /CN={subject}"));
    fs::write(at.join("extensions"), format!("{extensions}\n")).unwrap();
    openssl(
        at,
        &format!(
            "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -days 365 {more} \
             -extfile extensions -out {name}.crt"
        ),
    );
}

fn chain(at: &Path, names: &[&str]) -> Vec<CertificateDer<'static>> {
    let read = |name: &&str| CertificateDer::from_pem_file(at.join(format!("{name}.crt"))).unwrap();
    names.iter().map(read).collect()
}

/// Not before the certificates are made, which are valid from then on.
fn now() -> i64 {
    LazyLock::force(&CHAIN);
    unix_seconds(SystemTime::now())
}

/// The flaws of a chain of [`CHAIN`], under its root.
fn flaws(names: &[&str], now: i64, days: i64) -> Vec<Flaw> {
    let at = CHAIN.path();
    let roots = Roots::new(chain(at, &["root"]));
    let standard = Standard { roots: Some(&roots), now, days };
    let flaws = LIBRARIES.map(|library| examine(&chain(at, names), library, standard).flaws);
    assert_eq!(flaws[0], flaws[1]);
    flaws[0].clone()
}

#[test]
fn a_complete_chain_has_no_flaw_with_or_without_its_root() {
    assert_eq!(flaws(&["leaf", "middle"], now(), 30), []);
    assert_eq!(flaws(&["leaf", "middle", "root"], now(), 30), []);
}

#[test]
fn a_chain_without_its_intermediate_certificate_is_incomplete() {
    let [Flaw::Incomplete { issuer }] = &flaws(&["leaf"], now(), 30)[..] else { panic!("one") };
    assert_eq!(issuer, "CN=middle");
}

#[test]
fn certificates_out_of_order_or_of_others_are_named() {
    let found = flaws(&["leaf", "root", "middle"], now(), 30);
    assert_eq!(found, [Flaw::OutOfOrder { position: 1 }]);
    let found = flaws(&["leaf", "middle2", "middle"], now(), 30);
    assert_eq!(found, [Flaw::OutOfOrder { position: 1 }]);
    let found = flaws(&["leaf", "middle", "middle2"], now(), 30);
    let subject = "CN=middle2".to_owned();
    assert_eq!(found, [Flaw::Unrelated { position: 3, subject }]);
}

#[test]
fn an_issuer_of_the_right_name_that_has_not_signed_is_named() {
    let found = flaws(&["leaf", "stranger"], now(), 30);
    let wrong = Flaw::WrongIssuer { position: 2, subject: "CN=middle".to_owned() };
    let incomplete = Flaw::Incomplete { issuer: "CN=middle2".to_owned() };
    assert_eq!(found, [wrong, incomplete]);
}

#[test]
fn a_self_signed_certificate_is_not_trusted_unless_it_is_a_root() {
    assert!(flaws(&["root"], now(), 30).is_empty());
    let [Flaw::SelfSigned { subject }] = &flaws(&["middle2"], now(), 30)[..] else { panic!("one") };
    assert_eq!(subject, "CN=middle2");
}

#[test]
fn every_certificate_of_the_chain_must_be_in_its_time() {
    const DAY: i64 = 86_400;
    let what: Vec<String> = flaws(&["leaf", "middle"], now() + 350 * DAY, 30)
        .into_iter()
        .map(|flaw| match flaw {
            Flaw::Expiring { what, days: 14 | 15, .. } => what,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(what, ["the certificate", "certificate number 2 (CN=middle)"]);
    let expired = flaws(&["leaf", "middle"], now() + 400 * DAY, 30);
    assert!(expired.iter().all(|flaw| matches!(flaw, Flaw::Expired { .. })), "{expired:?}");
    assert_eq!(expired.len(), 2);
    let early = flaws(&["leaf"], now() - 2 * DAY, 30);
    assert!(matches!(early[0], Flaw::NotYetValid { .. }), "{early:?}");
    assert_eq!(flaws(&["leaf", "middle"], now() + 350 * DAY, 10), []);
}

#[test]
fn weak_signatures_short_keys_and_missing_names_are_found() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    openssl_certificate(at, "root", "rsa:2048", "DNS:root.example");
    issue(at, "weak", "weak.example", "root", "rsa:1024", "keyUsage=digitalSignature", "-sha1");
    let standard = Standard { roots: None, now: now(), days: 30 };
    let examined = examine(&chain(at, &["weak", "root"]), CryptoLibrary::AwsLc, standard);
    let what = || "the certificate".to_owned();
    assert_eq!(
        examined.flaws,
        [
            Flaw::WeakSignature { what: what(), hash: "SHA-1" },
            Flaw::ShortKey { what: what(), bits: 1_024 },
            Flaw::NoAlternativeName,
        ]
    );
}

#[test]
fn names_cover_themselves_and_a_wildcard_covers_one_label() {
    let standard = Standard { roots: None, now: now(), days: 30 };
    let examined = examine(&chain(CHAIN.path(), &["leaf"]), CryptoLibrary::AwsLc, standard);
    for name in ["a.example", "A.Example", "a.example.", "x.b.example", "*.b.example"] {
        assert!(examined.covers(name), "{name}");
    }
    for name in ["b.example", "x.y.b.example", "x.a.example", ".b.example", "192.0.2.1", ""] {
        assert!(!examined.covers(name), "{name}");
    }
    assert_eq!(examined.key, "ECDSA P-256");
    assert_eq!(examined.issuer, "CN=middle");
}

#[test]
fn the_leaf_is_found_in_any_order() {
    for order in [["leaf", "middle", "root"], ["root", "middle", "leaf"]] {
        let chain = chain(CHAIN.path(), &order);
        assert_eq!(leaf_issuer(&chain).as_deref(), Some("CN=middle"));
    }
    assert_eq!(leaf_issuer(&[]), None);
}

#[test]
fn what_is_no_certificate_is_a_flaw_and_no_panic() {
    let standard = Standard { roots: None, now: now(), days: 30 };
    let library = CryptoLibrary::AwsLc;
    assert_eq!(examine(&[], library, standard).flaws, [Flaw::Empty]);
    let rubbish = [CertificateDer::from(vec![1, 2, 3])];
    let flaws = examine(&rubbish, library, standard).flaws;
    assert!(matches!(flaws[..], [Flaw::Broken { position: 1, .. }]), "{flaws:?}");
}
