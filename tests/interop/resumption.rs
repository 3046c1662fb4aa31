//! Session tickets: they resume with the clients that people use, and nowhere else than
//! where they were given.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::Forebay;
use crate::support::haproxy::{ANSWER, Haproxy};
use crate::support::openssl::{OpensslClient, only};
use crate::support::ports::free_address;
use crate::support::program::{Finished, command, run};
use crate::{site, with_each_provider};

with_each_provider!(
    openssl_resumes_in_both_versions,
    gnutls_resumes_in_both_versions,
    a_ticket_of_one_name_is_not_taken_under_another,
    a_ticket_of_one_domain_is_not_taken_in_another,
    a_ticket_of_another_process_is_not_taken_but_the_client_is_served,
);

const NAME: &str = "shop.example";
const OTHER_NAME: &str = "bank.example";

/// A forebay with two listeners in front of HAProxy, the second with a certificate of its
/// own.
struct Stage {
    forebay: Forebay,
    address: SocketAddr,
    other_address: SocketAddr,
    certificate: PathBuf,
    directory: TempDir,
    _haproxy: Haproxy,
}

impl Stage {
    fn new(provider: &str) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let names = [NAME, OTHER_NAME];
        let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &names);
        let other = self_signed(directory.path(), "other.pem", Key::EcdsaP256, &names);
        let haproxy = Haproxy::start(directory.path());
        let (address, other_address) = (free_address(), free_address());
        let text = [
            site::SMALL.to_owned(),
            site::provider(provider),
            site::listener(address, &[&certificate], "haproxy", ""),
            site::listener(other_address, &[&other], "haproxy", "session_domain = \"other\""),
            site::pool("haproxy", &haproxy.endpoints()[0], "v2"),
        ]
        .concat();
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, address, other_address, certificate, directory, _haproxy: haproxy }
    }

    /// One request by a client that keeps its session, or offers the one it has.
    fn openssl(&self, version: &str, address: SocketAddr, name: &str, keep: Keep) -> Finished {
        let session = self.directory.path().join(format!("session-{version}"));
        let option = match keep {
            Keep::Store => "-sess_out",
            Keep::Offer => "-sess_in",
        };
        OpensslClient::new(address)
            .name(name)
            .with(&[only(version)])
            .with_file(option, &session)
            .run(&site::request("/", name))
    }

    /// Waits until all these handshakes are counted, and no other.
    fn counts(&mut self, version: &str, full: u32, resumed: u32) {
        let version = format!("version=\"{version}\"");
        let what = format!("{full} full and {resumed} resumed handshakes are counted");
        self.forebay.wait_until(&what, |forebay| {
            let count =
                |resumed| forebay.metric("forebay_handshakes_total", &[version.as_str(), resumed]);
            count("resumed=\"false\"") == f64::from(full)
                && count("resumed=\"true\"") == f64::from(resumed)
        });
    }
}

#[derive(Clone, Copy)]
enum Keep {
    Store,
    Offer,
}

const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

fn openssl_resumes_in_both_versions(provider: &str) {
    let mut stage = Stage::new(provider);
    for version in VERSIONS {
        stage
            .openssl(version, stage.address, NAME, Keep::Store)
            .assert_success(&[&format!("New, {version}"), ANSWER]);
        // A ticket serves more than once: browsers open several connections with it.
        for _ in 0..2 {
            stage
                .openssl(version, stage.address, NAME, Keep::Offer)
                .assert_success(&[&format!("Reused, {version}"), ANSWER]);
        }
        stage.counts(version, 1, 2);
    }
}

fn gnutls_resumes_in_both_versions(provider: &str) {
    let mut stage = Stage::new(provider);
    for (version, ours) in [("TLS1.2", "TLSv1.2"), ("TLS1.3", "TLSv1.3")] {
        let mut gnutls = command("gnutls-cli");
        gnutls
            .args(["--resume", "--waitresumption"])
            .arg("--x509cafile")
            .arg(&stage.certificate)
            .args(["--sni-hostname", NAME, "--verify-hostname", NAME])
            .args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-{version}")])
            .args(["--port", &stage.address.port().to_string()])
            .arg(stage.address.ip().to_string());
        run(gnutls, &site::request("/", NAME))
            .assert_success(&["This is a resumed session", ANSWER]);
        stage.counts(ours, 1, 1);
    }
}

fn a_ticket_of_one_name_is_not_taken_under_another(provider: &str) {
    let mut stage = Stage::new(provider);
    for version in VERSIONS {
        stage.openssl(version, stage.address, NAME, Keep::Store).assert_success(&[ANSWER]);
        stage
            .openssl(version, stage.address, OTHER_NAME, Keep::Offer)
            .assert_success(&[&format!("New, {version}"), ANSWER]);
        stage.counts(version, 2, 0);
    }
}

fn a_ticket_of_one_domain_is_not_taken_in_another(provider: &str) {
    let mut stage = Stage::new(provider);
    for version in VERSIONS {
        stage.openssl(version, stage.address, NAME, Keep::Store).assert_success(&[ANSWER]);
        stage
            .openssl(version, stage.other_address, NAME, Keep::Offer)
            .assert_success(&[&format!("New, {version}"), ANSWER]);
        stage.counts(version, 2, 0);
    }
}

fn a_ticket_of_another_process_is_not_taken_but_the_client_is_served(provider: &str) {
    let (stage, mut later) = (Stage::new(provider), Stage::new(provider));
    for version in VERSIONS {
        let keep = Keep::Store;
        stage.openssl(version, stage.address, NAME, keep).assert_success(&[ANSWER]);
        stage
            .openssl(version, later.address, NAME, Keep::Offer)
            .assert_success(&[&format!("New, {version}"), ANSWER]);
        later.counts(version, 1, 0);
    }
}
