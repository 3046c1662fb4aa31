//! Clients that cannot be served are told why, in the alert that the protocol has for it;
//! so are the operator's log and metrics.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::{AlertDescription, ClientConfig, ProtocolVersion};
use tempfile::TempDir;

use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::Forebay;
use crate::support::haproxy::{ANSWER, Haproxy};
use crate::support::openssl::OpensslClient;
use crate::support::ports::free_address;
use crate::support::tls_client;
use crate::{site, with_each_provider};

with_each_provider!(
    an_unknown_name_is_refused_with_unrecognized_name_where_that_is_asked_for,
    a_client_with_other_application_protocols_only_gets_no_application_protocol,
    a_client_below_the_minimum_version_gets_protocol_version,
    a_client_with_nothing_in_common_gets_handshake_failure,
);

const NAME: &str = "shop.example";

/// A forebay in front of HAProxy that refuses somebody.
struct Stage {
    forebay: Forebay,
    address: SocketAddr,
    _haproxy: Haproxy,
    _directory: TempDir,
}

impl Stage {
    /// `more` is keys of the listener.
    fn new(provider: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &[NAME]);
        let haproxy = Haproxy::start(directory.path());
        let address = free_address();
        let certificates: [&Path; 1] = [&certificate];
        let text = [
            site::SMALL.to_owned(),
            site::provider(provider),
            site::listener(address, &certificates, "haproxy", more),
            site::pool("haproxy", &haproxy.endpoints()[0], "v2"),
        ]
        .concat();
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, address, _haproxy: haproxy, _directory: directory }
    }

    fn openssl(&self, arguments: &[&str]) -> OpensslClient {
        OpensslClient::new(self.address).name(NAME).with(arguments)
    }

    fn serves_openssl(&self, arguments: &[&str]) {
        self.openssl(arguments).run(&site::request("/", NAME)).assert_success(&[ANSWER]);
    }

    fn refuses_openssl(&self, arguments: &[&str], alert: AlertDescription) {
        let number = format!("SSL alert number {}", u8::from(alert));
        self.openssl(arguments).run("").assert_failure(&[&number]);
    }

    fn refuses_rustls(&self, config: ClientConfig, name: &str, alert: AlertDescription) {
        let mut stream = tls_client::connect(Arc::new(config), self.address, name);
        let error = stream.write_all(b"hello").and_then(|()| stream.flush()).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        let error = error.into_inner().expect("an error of rustls'");
        let error = error.downcast::<rustls::Error>().expect("an error of rustls'");
        assert_eq!(*error, rustls::Error::AlertReceived(alert));
    }

    /// Waits until each of `count` failures is counted under `reason` and logged with all
    /// of `parts`.
    fn reports(&mut self, reason: &str, count: usize, parts: &[&str]) {
        let label = format!("reason=\"{reason}\"");
        self.forebay.wait_until(&format!("{count} failures are reported"), |forebay| {
            let log = forebay.log();
            let lines = log.iter().filter(|line| {
                line.contains("handshake failed")
                    && line.contains(&label)
                    && parts.iter().all(|part| line.contains(part))
            });
            lines.count() == count
                && forebay.metric("forebay_handshake_failures_total", &[&label]) == count as f64
        });
    }
}

fn an_unknown_name_is_refused_with_unrecognized_name_where_that_is_asked_for(provider: &str) {
    let mut stage = Stage::new(provider, "unknown_sni = \"reject\"");
    let alert = AlertDescription::UnrecognisedName;
    for version in ["-tls1_2", "-tls1_3"] {
        let number = format!("SSL alert number {}", u8::from(alert));
        OpensslClient::new(stage.address)
            .name("unknown.example")
            .with(&[version])
            .run("")
            .assert_failure(&[&number]);
        stage.serves_openssl(&[version]);
        // A client that asks for no name may know us by address.
        OpensslClient::new(stage.address)
            .with(&[version])
            .run(&site::request("/", NAME))
            .assert_success(&[ANSWER]);
    }
    stage.refuses_rustls(tls_client::config(), "unknown.example", alert);
    let parts = ["server_name=\"unknown.example\"", "peer=127.0.0.1:"];
    stage.reports("unknown_server_name", 3, &parts);
}

fn a_client_with_other_application_protocols_only_gets_no_application_protocol(provider: &str) {
    let mut stage = Stage::new(provider, "alpn = [\"http/1.1\"]");
    let alert = AlertDescription::NoApplicationProtocol;
    for version in ["-tls1_2", "-tls1_3"] {
        stage.refuses_openssl(&[version, "-alpn", "h2,spdy/3"], alert);
        stage.serves_openssl(&[version, "-alpn", "h2,http/1.1"]);
    }
    let mut config = tls_client::config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    stage.refuses_rustls(config, NAME, alert);
    stage.reports("no_shared_protocol", 3, &["server_name=\"shop.example\""]);
}

fn a_client_below_the_minimum_version_gets_protocol_version(provider: &str) {
    let mut stage = Stage::new(provider, "minimum_version = \"1.3\"");
    let alert = AlertDescription::ProtocolVersion;
    stage.refuses_openssl(&["-tls1_2"], alert);
    stage.serves_openssl(&["-tls1_3"]);
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    assert_eq!(suite.version().version, ProtocolVersion::TLSv1_3);
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    stage.refuses_rustls(tls_client::config_for(suite), NAME, alert);
    stage.reports("no_shared_version", 2, &[]);

    // Older ones we never speak; a client has to lower its own guard to offer them.
    let mut stage = Stage::new(provider, "");
    for version in ["-tls1", "-tls1_1"] {
        stage.refuses_openssl(&[version, "-cipher", "ALL:@SECLEVEL=0"], alert);
    }
    stage.reports("no_shared_version", 2, &[]);
}

fn a_client_with_nothing_in_common_gets_handshake_failure(provider: &str) {
    let alert = AlertDescription::HandshakeFailure;
    let mut stage = Stage::new(
        provider,
        "cipher_suites = [\"TLS_AES_128_GCM_SHA256\", \"ECDHE-ECDSA-AES128-GCM-SHA256\"]\n\
         groups = [\"x25519\"]",
    );
    stage.refuses_openssl(&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], alert);
    stage.refuses_openssl(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], alert);
    // There is no RSA certificate for it.
    stage.refuses_openssl(&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], alert);
    stage.reports("no_shared_cipher_suite", 3, &[]);
    stage.refuses_openssl(&["-tls1_3", "-groups", "P-384"], alert);
    stage.refuses_openssl(&["-tls1_2", "-groups", "P-384:P-256"], alert);
    stage.reports("no_shared_group", 2, &[]);
    stage.refuses_openssl(&["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], alert);
    stage.reports("no_shared_signature_scheme", 1, &[]);
    stage.serves_openssl(&[]);
}
