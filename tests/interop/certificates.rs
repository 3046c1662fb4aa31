//! Which certificate a client is shown. It trusts exactly one, so a handshake that
//! succeeds tells which it was.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::Forebay;
use crate::support::haproxy::{ANSWER, Haproxy};
use crate::support::openssl::{OpensslClient, only};
use crate::support::ports::free_address;
use crate::support::program::{command, run};
use crate::{site, with_each_provider};

with_each_provider!(
    a_name_with_two_keys_serves_each_client_what_it_supports,
    the_server_name_chooses_exact_then_wildcard_then_default,
    every_kind_of_key_serves_openssl_and_gnutls,
);

/// A forebay in front of HAProxy with certificates of these keys and names, the first of
/// which is the default.
struct Stage {
    address: SocketAddr,
    certificates: Vec<PathBuf>,
    haproxy: Haproxy,
    _forebay: Forebay,
    _directory: TempDir,
}

impl Stage {
    fn new(provider: &str, certificates: &[(Key, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let certificates: Vec<PathBuf> = (0..)
            .zip(certificates)
            .map(|(number, (key, name))| {
                self_signed(directory.path(), &format!("{number}.pem"), *key, &[name])
            })
            .collect();
        let paths: Vec<_> = certificates.iter().map(PathBuf::as_path).collect();
        let haproxy = Haproxy::start(directory.path());
        let address = free_address();
        let text = [
            site::SMALL.to_owned(),
            site::provider(provider),
            site::listener(address, &paths, "haproxy", ""),
            site::pool("haproxy", &haproxy.endpoints()[0], "v2"),
        ]
        .concat();
        let forebay = Forebay::start(directory.path(), &text);
        Self { address, certificates, haproxy, _forebay: forebay, _directory: directory }
    }
}

fn a_name_with_two_keys_serves_each_client_what_it_supports(provider: &str) {
    const NAME: &str = "shop.example";
    const RSA: usize = 0;
    const ECDSA: usize = 1;
    let stage = Stage::new(provider, &[(Key::Rsa2048, NAME), (Key::EcdsaP256, NAME)]);
    for (offer, shown) in [
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"][..], RSA),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], ECDSA),
        (&["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], RSA),
        (&["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256"], ECDSA),
        // Those that take both get the one that costs less.
        (&["-tls1_2"], ECDSA),
        (&["-tls1_3"], ECDSA),
    ] {
        OpensslClient::new(stage.address)
            .name(NAME)
            .verify(&stage.certificates[shown], NAME)
            .with(offer)
            .run(&site::request("/", NAME))
            .assert_success(&[ANSWER]);
    }
}

fn the_server_name_chooses_exact_then_wildcard_then_default(provider: &str) {
    const DEFAULT: (usize, &str) = (0, "default.example");
    const EXACT: (usize, &str) = (1, "www.shop.example");
    const WILDCARD: (usize, &str) = (2, "*.shop.example");
    let names = [DEFAULT, EXACT, WILDCARD].map(|(_, name)| (Key::EcdsaP256, name));
    let mut stage = Stage::new(provider, &names);
    for (number, (asked, (shown, valid_for))) in [
        (Some("www.shop.example"), EXACT),
        // Case does not matter (RFC 4343).
        (Some("WWW.Shop.Example"), EXACT),
        (Some("other.shop.example"), (WILDCARD.0, "other.shop.example")),
        (Some("default.example"), DEFAULT),
        // A wildcard stands for one label.
        (Some("a.b.shop.example"), DEFAULT),
        (Some("shop.example"), DEFAULT),
        (Some("unknown.example"), DEFAULT),
        (None, DEFAULT),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client =
            OpensslClient::new(stage.address).verify(&stage.certificates[shown], valid_for);
        if let Some(name) = asked {
            client = client.name(name);
        }
        let path = format!("/{number}");
        client.run(&site::request(&path, "any.example")).assert_success(&[ANSWER]);
        // The server is told what was asked for, whatever was shown.
        let logged = stage.haproxy.seen(&path).name;
        assert_eq!(logged, asked.map_or("-".to_owned(), str::to_lowercase));
    }
}

fn every_kind_of_key_serves_openssl_and_gnutls(provider: &str) {
    const KEYS: [(Key, &str); 4] = [
        (Key::EcdsaP256, "p256.example"),
        (Key::EcdsaP384, "p384.example"),
        (Key::Rsa2048, "rsa.example"),
        (Key::Ed25519, "ed25519.example"),
    ];
    let stage = Stage::new(provider, &KEYS);
    for ((_, name), certificate) in KEYS.iter().zip(&stage.certificates) {
        for (version, theirs) in [("TLSv1.2", "TLS1.2"), ("TLSv1.3", "TLS1.3")] {
            OpensslClient::new(stage.address)
                .name(name)
                .verify(certificate, name)
                .with(&[only(version)])
                .run(&site::request("/", name))
                .assert_success(&[&format!("New, {version}"), ANSWER]);
            let mut gnutls = command("gnutls-cli");
            gnutls
                .arg("--x509cafile")
                .arg(certificate)
                .args(["--sni-hostname", name, "--verify-hostname", name])
                .args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-{theirs}")])
                .args(["--port", &stage.address.port().to_string()])
                .arg(stage.address.ip().to_string());
            run(gnutls, &site::request("/", name))
                .assert_success(&["Status: The certificate is trusted", ANSWER]);
        }
    }
}
