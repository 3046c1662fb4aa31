//! Which certificate a client is shown, and on what terms, where its server name does not
//! decide alone: addresses, and policies beside certificates. With the real binary, and
//! openssl and rustls as clients.

mod support;

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use support::certificates::{Key, self_signed};
use support::echo::EchoBackend;
use support::forebay::Forebay;
use support::openssl::{OpensslClient, only};
use support::ports::free_address_of;
use support::program::Finished;
use support::tls_client;

const NAMELESS: &str = "198.51.100.1";

/// A directory with the certificates of a forebay that listens on every address.
struct Site {
    directory: TempDir,
    port: u16,
    backend: EchoBackend,
}

impl Site {
    /// The first of the certificates, each a file and what it is for, is the default.
    fn new(certificates: &[(&str, &[&str])]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        fs::create_dir(directory.path().join("served")).expect("directory");
        for (file, names) in certificates {
            self_signed(&directory.path().join("served"), file, Key::EcdsaP256, names);
        }
        let port = free_address_of(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).port();
        Self { directory, port, backend: EchoBackend::start() }
    }

    fn served(&self, file: &str) -> PathBuf {
        self.directory.path().join("served").join(file)
    }

    fn configuration(&self, listener: &str) -> String {
        format!(
            "[[listener]]\naddress = \"[::]:{}\"\ncertificates = [{:?}]\npool = \"a\"\n{listener}\n\
             [[pool]]\nname = \"a\"\nbackends = [\"{}\"]\n",
            self.port,
            self.directory.path().join("served"),
            self.backend.address,
        )
    }

    fn start(&self, listener: &str) -> Forebay {
        Forebay::start(self.directory.path(), &self.configuration(listener))
    }

    fn at(&self, address: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::from((address.into(), self.port))
    }

    /// Puts a policy in place, in one step.
    fn set_policy(&self, file: &str, text: &str) {
        let beside = self.directory.path().join("beside");
        fs::write(&beside, text).expect("write");
        fs::rename(beside, self.served(file)).expect("rename");
    }

    /// What becomes of an openssl that asks for `name`, shakes hands, and leaves.
    fn openssl(&self, name: &str, arguments: &[&str]) -> Finished {
        greet(OpensslClient::new(self.at(Ipv4Addr::LOCALHOST)).name(name).with(arguments))
    }

    /// What a client of the forebay command with this configuration is told.
    fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let file = self.directory.path().join("asked.toml");
        fs::write(&file, self.configuration("")).expect("write");
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(arguments)
            .arg("-c")
            .arg(&file)
            .output()
            .expect("forebay starts");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// Shakes hands and leaves.
fn greet(client: OpensslClient) -> Finished {
    client.with(&["-no_ign_eof"]).run("Q\n")
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).expect("a certificate")
}

/// The certificate that a client over this connection is shown; it sends no server name.
fn shown_over(stream: TcpStream) -> CertificateDer<'static> {
    let mut client = tls_client::over(stream, Arc::new(tls_client::config()), NAMELESS);
    client.conn.complete_io(&mut client.sock).expect("handshake");
    tls_client::shown(&client)
}

#[test]
fn who_connects_by_address_is_shown_the_certificate_for_it() {
    let site = Site::new(&[
        ("1.pem", &["a.test"]),
        ("2.pem", &["127.0.0.2", "b.test"]),
        ("6.pem", &["::1"]),
    ]);
    let _forebay = site.start("unknown_sni = \"reject\"");
    for (address, file) in [
        (IpAddr::from([127, 0, 0, 2]), "2.pem"),
        (IpAddr::from(Ipv6Addr::LOCALHOST), "6.pem"),
        (IpAddr::from([127, 0, 0, 1]), "1.pem"),
    ] {
        let stream = TcpStream::connect(site.at(address)).expect("connect");
        assert_eq!(shown_over(stream), certificate(&site.served(file)), "{address}");
        let trusted = site.served(file);
        let client = OpensslClient::new(site.at(address)).with_file("-CAfile", &trusted);
        let verified = greet(client.with(&["-verify_return_error"]));
        verified.assert_success(&["Verify return code: 0 (ok)"]);
    }
    let destination = ["--destination", "127.0.0.2"];
    let (status, said) = site.ask(&[&["explain"][..], &destination].concat());
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("2.pem") && said.contains("it is for the address"), "{said}");
}

#[test]
fn behind_a_balancer_the_address_is_that_of_the_proxy_header() {
    let site = Site::new(&[("1.pem", &["a.test"]), ("2.pem", &["192.0.2.2"])]);
    let _forebay = site.start("accept_proxy_from = [\"127.0.0.1\"]");
    for (destination, file) in [("192.0.2.2", "2.pem"), ("192.0.2.3", "1.pem")] {
        let mut stream = TcpStream::connect(site.at(Ipv4Addr::LOCALHOST)).expect("connect");
        let header = format!("PROXY TCP4 198.51.100.9 {destination} 4000 443\r\n");
        stream.write_all(header.as_bytes()).expect("write");
        assert_eq!(shown_over(stream), certificate(&site.served(file)), "{destination}");
    }
}

#[test]
fn a_policy_holds_for_the_clients_of_its_certificate_and_a_bad_one_changes_nothing() {
    let site = Site::new(&[("1.pem", &["a.test"]), ("2.pem", &["b.test"])]);
    site.set_policy("2.policy", "minimum_version = \"1.3\"\nalpn = [\"http/1.1\"]\n");
    let mut forebay = site.start("alpn = [\"h2\", \"http/1.1\"]");
    let old = only("TLSv1.2");
    let protocols = ["-alpn", "h2,http/1.1"];
    site.openssl("a.test", &[old]).assert_success(&[]);
    site.openssl("a.test", &protocols).assert_success(&["ALPN protocol: h2"]);
    let of_policy = ["ALPN protocol: http/1.1"];
    site.openssl("b.test", &protocols).assert_success(&of_policy);
    let refused = ["alert protocol version"];
    site.openssl("b.test", &[old]).assert_failure(&refused);

    site.set_policy("2.policy", "minimum_version = \"1.3\"\nalpn = \"h2\"\n");
    let line = forebay.wait_for_log("the certificate and the policy read before stay in use");
    assert!(line.contains("2.policy: line 2: alpn: write a list"), "{line}");
    site.openssl("b.test", &[old]).assert_failure(&refused);
    site.openssl("b.test", &protocols).assert_success(&of_policy);
    assert_eq!(forebay.metric("forebay_last_reload_succeeded", &[]) as u64, 1);

    fs::remove_file(site.served("2.policy")).expect("remove");
    forebay.wait_until("the policy is gone", |_| site.openssl("b.test", &[old]).success);
}

#[test]
fn a_policy_that_cannot_be_understood_keeps_forebay_from_starting() {
    let site = Site::new(&[("1.pem", &["a.test"])]);
    site.set_policy("1.policy", "# new clients only\nminimum_versoin = \"1.3\"\n");
    let (status, said) = site.ask(&["check"]);
    assert_eq!(status, Some(2), "{said}");
    let place = "1.policy: line 2: minimum_versoin: unknown key";
    assert!(said.contains(place), "{said}");
    site.set_policy("1.policy", "minimum_version = \"1.3\"\n");
    assert_eq!(site.ask(&["check"]).0, Some(0));
    let (_, said) = site.ask(&["explain", "--sni", "a.test"]);
    assert!(said.contains("1.policy: TLSv1.3 or newer"), "{said}");
    let (status, said) = site.ask(&["explain", "--sni", "a.test", "--tls", "1.2"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("no protocol version in common"), "{said}");
}
