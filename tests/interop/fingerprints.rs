//! Clients by their JA4 fingerprints: counted, and named where a handshake fails.

use std::io::Write;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
};

use crate::proxy_header::NAME;
use crate::proxy_values::fingerprint_of;
use crate::site;
use crate::support::backend::Backend;
use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::Forebay;
use crate::support::ports::free_address;
use crate::support::tls_client;

#[test]
fn fingerprints_are_counted_and_named_where_handshakes_fail_wherever_those_are_done() {
    for handshakes in ["workers = 1", "inline = true"] {
        let directory = tempfile::tempdir().expect("a directory");
        let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &[NAME]);
        let (address, backend) = (free_address(), Backend::listen());
        let text = [
            format!("[engine]\nengines = 1\n[handshake]\n{handshakes}\nfingerprints = true\n"),
            site::listener(address, &[&certificate], "server", "minimum_version = \"1.3\""),
            site::pool("server", &backend.address, "none"),
        ];
        let mut forebay = Forebay::start(directory.path(), &text.concat());
        let served = Arc::new(tls_client::config_for(TLS13_AES_128_GCM_SHA256));
        let known_by = fingerprint_of(&served, &[]);
        for _ in 0..3 {
            // A ticket would make another client of it.
            let mut client =
                tls_client::connect(Arc::new(ClientConfig::clone(&served)), address, NAME);
            client.flush().expect("a handshake");
        }
        let label = format!("ja4=\"{known_by}\"");
        forebay.wait_until("all are counted", |forebay| {
            forebay.metric("forebay_client_fingerprint_handshakes", &[&label]) == 3.0
        });
        let uncertain =
            forebay.metric("forebay_client_fingerprint_handshakes_uncertain", &[&label]);
        assert_eq!(uncertain, 0.0);

        // By the engine already.
        let too_old = Arc::new(tls_client::config_for(TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256));
        let known_by = fingerprint_of(&too_old, &[]);
        let mut client = tls_client::connect(too_old, address, NAME);
        client.flush().expect_err("refused");
        let line = forebay.wait_for_log("no_shared_version");
        assert!(line.contains(&format!("ja4=\"{known_by}\"")), "{line}");

        // By a worker, in whose handshake it says no.
        let known_by = fingerprint_of(&served, &[]);
        let mut client = tls_client::connect(served, address, NAME);
        client.conn.write_tls(&mut client.sock).expect("a ClientHello");
        client.conn.read_tls(&mut client.sock).expect("an answer");
        client.sock.write_all(&[21, 3, 3, 0, 2, 2, 48]).expect("an alert");
        let line = forebay.wait_for_log("client_alert");
        assert!(line.contains(&format!("ja4=\"{known_by}\"")), "{line}");
    }
}
