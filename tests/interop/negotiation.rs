//! Every version, cipher suite, key-exchange group and application protocol, with clients
//! that offer nothing else, so that only the one in question can have been used.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::NamedGroup;
use tempfile::TempDir;

use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::Forebay;
use crate::support::haproxy::{ANSWER, Haproxy};
use crate::support::openssl::{OpensslClient, only};
use crate::support::ports::free_address;
use crate::support::tls_client;
use crate::{site, with_each_provider};

with_each_provider!(
    every_cipher_suite_serves_openssl_with_each_kind_of_certificate,
    every_curve_serves_openssl_in_both_versions,
    a_client_that_guessed_another_group_is_asked_again,
    the_servers_order_of_suites_decides,
    the_servers_order_of_application_protocols_decides,
    a_client_with_the_hybrid_group_gets_the_best_there_is,
);

const ECDSA_NAME: &str = "ecdsa.example";
const RSA_NAME: &str = "rsa.example";

/// A forebay with an ECDSA and an RSA certificate in front of HAProxy.
struct Stage {
    forebay: Forebay,
    address: SocketAddr,
    ecdsa: PathBuf,
    rsa: PathBuf,
    _haproxy: Haproxy,
    _directory: TempDir,
}

impl Stage {
    /// `more` is keys of the listener.
    fn new(provider: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let ecdsa = self_signed(directory.path(), "ecdsa.pem", Key::EcdsaP256, &[ECDSA_NAME]);
        let rsa = self_signed(directory.path(), "rsa.pem", Key::Rsa2048, &[RSA_NAME]);
        let haproxy = Haproxy::start(directory.path());
        let address = free_address();
        let text = [
            site::SMALL.to_owned(),
            site::provider(provider),
            site::listener(address, &[&ecdsa, &rsa], "haproxy", more),
            site::pool("haproxy", &haproxy.endpoints()[0], "v2"),
        ]
        .concat();
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, address, ecdsa, rsa, _haproxy: haproxy, _directory: directory }
    }

    fn openssl(&self, name: &str, certificate: &Path) -> OpensslClient {
        OpensslClient::new(self.address).name(name).verify(certificate, name)
    }

    /// Waits until so many handshakes with all these labels are counted.
    fn counts(&mut self, count: u32, labels: &[(&str, &str)]) {
        let what = format!("{count} handshakes with {labels:?} are counted");
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        self.forebay.wait_until(&what, |forebay| {
            forebay.metric("forebay_handshakes_total", &labels) == f64::from(count)
        });
    }
}

/// The certificate's name, the version, and the suite in OpenSSL's words.
const SUITES: [(&str, &str, &str); 12] = [
    (ECDSA_NAME, "TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    (ECDSA_NAME, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    (ECDSA_NAME, "TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
    (RSA_NAME, "TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    (RSA_NAME, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    (RSA_NAME, "TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
    (ECDSA_NAME, "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (ECDSA_NAME, "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (ECDSA_NAME, "TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (RSA_NAME, "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"),
    (RSA_NAME, "TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"),
    (RSA_NAME, "TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305"),
];

fn every_cipher_suite_serves_openssl_with_each_kind_of_certificate(provider: &str) {
    let mut stage = Stage::new(provider, "");
    for (name, version, suite) in SUITES {
        let certificate = if name == RSA_NAME { &stage.rsa } else { &stage.ecdsa };
        stage
            .openssl(name, certificate)
            .with(&[only(version), suites_option(version), suite])
            .run(&site::request("/", name))
            .assert_success(&[&format!("New, {version}, Cipher is {suite}"), ANSWER]);
    }
    for (_, version, suite) in SUITES {
        let count = SUITES.iter().filter(|(_, _, other)| *other == suite).count();
        stage.counts(count as u32, &[("version", version), ("cipher", suite)]);
    }
}

fn suites_option(version: &str) -> &'static str {
    if version == "TLSv1.3" { "-ciphersuites" } else { "-cipher" }
}

/// Our names of the groups, and OpenSSL's.
const CURVES: [(&str, &str); 3] =
    [("x25519", "X25519"), ("secp256r1", "P-256"), ("secp384r1", "P-384")];

fn every_curve_serves_openssl_in_both_versions(provider: &str) {
    let mut stage = Stage::new(provider, "");
    for version in ["TLSv1.3", "TLSv1.2"] {
        for (ours, theirs) in CURVES {
            // RSA, because under TLS 1.2 the offer limits the curves of certificates too
            // (RFC 8422 section 5.1.1).
            stage
                .openssl(RSA_NAME, &stage.rsa)
                .with(&[only(version), "-groups", theirs])
                .run(&site::request("/", RSA_NAME))
                .assert_success(&[&format!("New, {version}"), ANSWER]);
            stage.counts(1, &[("version", version), ("group", ours)]);
        }
    }
}

fn a_client_that_guessed_another_group_is_asked_again(provider: &str) {
    let mut stage = Stage::new(provider, "groups = [\"secp384r1\"]");
    let finished = stage
        .openssl(ECDSA_NAME, &stage.ecdsa)
        .with(&["-tls1_3", "-groups", "X25519:P-384", "-msg"])
        .run(&site::request("/", ECDSA_NAME));
    finished.assert_success(&["New, TLSv1.3", ANSWER]);
    assert_eq!(finished.text.matches("ClientHello").count(), 2, "{}", finished.text);
    stage.counts(1, &[("group", "secp384r1")]);
}

fn the_servers_order_of_suites_decides(provider: &str) {
    let stage = Stage::new(
        provider,
        "cipher_suites = [\"TLS_AES_256_GCM_SHA384\", \"TLS_AES_128_GCM_SHA256\", \
         \"ECDHE-RSA-AES256-GCM-SHA384\", \"ECDHE-RSA-AES128-GCM-SHA256\"]",
    );
    for (version, theirs, chosen) in [
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        (
            "TLSv1.2",
            "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
        ),
    ] {
        stage
            .openssl(RSA_NAME, &stage.rsa)
            .with(&[only(version), suites_option(version), theirs])
            .run(&site::request("/", RSA_NAME))
            .assert_success(&[&format!("New, {version}, Cipher is {chosen}"), ANSWER]);
    }
}

fn the_servers_order_of_application_protocols_decides(provider: &str) {
    let stage = Stage::new(provider, "alpn = [\"http/1.1\", \"h2\"]");
    for version in ["TLSv1.3", "TLSv1.2"] {
        let protocol = |offered: &[&str]| {
            stage
                .openssl(ECDSA_NAME, &stage.ecdsa)
                .with(&[only(version)])
                .with(offered)
                .run(&site::request("/", ECDSA_NAME))
        };
        protocol(&["-alpn", "h2,http/1.1"]).assert_success(&["ALPN protocol: http/1.1", ANSWER]);
        protocol(&["-alpn", "spdy/3,http/1.1"])
            .assert_success(&["ALPN protocol: http/1.1", ANSWER]);
        // A client that knows nothing of ALPN is served all the same.
        protocol(&[]).assert_success(&["No ALPN negotiated", ANSWER]);
    }
}

fn a_client_with_the_hybrid_group_gets_the_best_there_is(provider: &str) {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};

    let mut stage = Stage::new(provider, "");
    let mut client = default_provider();
    client.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    let config = Arc::new(tls_client::config_with(client));
    let mut stream = tls_client::connect(config, stage.address, ECDSA_NAME);
    let text = tls_client::exchange(&mut stream, &site::request("/", ECDSA_NAME));
    assert!(text.contains(ANSWER), "{text}");
    let (negotiated, name) = match provider {
        "aws-lc-rs" => (NamedGroup::X25519MLKEM768, "X25519MLKEM768"),
        _ => (NamedGroup::X25519, "x25519"),
    };
    let group = stream.conn.negotiated_key_exchange_group().expect("a group");
    assert_eq!(group.name(), negotiated);
    stage.counts(1, &[("group", name)]);
}
