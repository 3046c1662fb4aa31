//! A policy that is only tried on clients: who would be refused is counted, and nobody is.

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use support::certificates::{Key, self_signed};
use support::configuration::configuration;
use support::echo::EchoBackend;
use support::forebay::{Forebay, PATIENCE};
use support::ports::free_address;
use support::program::Finished;
use support::tls_client;

/// A listener with two kinds of certificate for `*.a.test` and one of RSA for `rsa.test`.
struct Site {
    forebay: Forebay,
    address: SocketAddr,
    directory: TempDir,
    certificates: [PathBuf; 3],
    echo: EchoBackend,
}

const EVERYTHING: &str = "minimum_version = \"1.3\"\nrequire_pq = true\nno_rsa = true\n";

impl Site {
    fn start(shadow: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let certificate = |file, key, name| self_signed(directory.path(), file, key, &[name]);
        let certificates = [
            certificate("ec.pem", Key::EcdsaP256, "*.a.test"),
            certificate("rsa.pem", Key::Rsa2048, "*.a.test"),
            certificate("only-rsa.pem", Key::Rsa2048, "rsa.test"),
        ];
        let (echo, address) = (EchoBackend::start(), free_address());
        let text = text(address, &certificates, &echo, shadow);
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, address, directory, certificates, echo }
    }

    fn reload(&mut self, shadow: &str) {
        let text = text(self.address, &self.certificates, &self.echo, shadow);
        self.forebay.write_configuration(&text);
        let file = self.forebay.configuration_file.clone();
        let (code, said) = forebay(&["reload", "-c", file.to_str().expect("text")]);
        assert_eq!(code, Some(0), "{said}");
    }

    /// A client of OpenSSL, which has no post-quantum group, is served.
    #[track_caller]
    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &self.address.to_string()])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        Finished { success: output.status.success(), text }.assert_success(&["Cipher is "]);
    }

    /// A client that has all that is new.
    fn modern(&self, name: &str) {
        let mut client = tls_client::connect(Arc::new(tls_client::config()), self.address, name);
        client.sock.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.write_all(b"hello").expect("served");
    }

    /// The page once so many clients are counted.
    fn page(&mut self, clients: u64) -> Value {
        let mut page = Value::Null;
        self.forebay.wait_until(&format!("{clients} clients are counted"), |forebay| {
            page = serde_json::from_str(&forebay.page("/shadow").expect("a page")).expect("JSON");
            page["listeners"][0]["all"]["clients"] == clients
        });
        page["listeners"][0].take()
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let file = self.forebay.configuration_file.to_str().expect("text");
        forebay(&[&["shadow", "-c", file], arguments].concat())
    }
}

fn text(
    address: SocketAddr,
    certificates: &[PathBuf; 3],
    echo: &EchoBackend,
    shadow: &str,
) -> String {
    let certificates = certificates.each_ref().map(PathBuf::as_path);
    let small = "[engine]\nengines = 2\nmax_connections = 64\n[handshake]\nworkers = 1\n";
    let mut text = configuration(address, &certificates, &[&echo.address.to_string()], "", small);
    if !shadow.is_empty() {
        let table = format!("[listener.shadow]\n{shadow}\n[[pool]]");
        text = text.replacen("[[pool]]", &table, 1);
    }
    text
}

/// The exit code, and what is said, with single spaces.
fn forebay(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(arguments)
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    let mut text = String::new();
    for line in String::from_utf8_lossy(&said).lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        writeln!(text, "{}", words.join(" ")).expect("written");
    }
    (output.status.code(), text)
}

#[test]
fn everybody_is_served_and_who_would_not_be_is_counted_by_name_and_cause() {
    let mut site = Site::start(EVERYTHING);
    site.openssl(&["-servername", "old.a.test", "-tls1_2"]);
    site.openssl(&["-servername", "old.a.test", "-tls1_2"]);
    site.openssl(&["-servername", "www.a.test", "-tls1_3"]);
    let rsa_only = ["-servername", "www.a.test", "-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"];
    site.openssl(&rsa_only);
    site.openssl(&["-servername", "unknown.test", "-tls1_2"]);
    site.openssl(&["-noservername", "-tls1_3"]);
    site.modern("www.a.test");
    site.modern("new.a.test");
    site.modern("rsa.test");

    let page = site.page(9);
    let clients = |all: u64, causes: &[(&str, u64)]| {
        let mut by_cause = serde_json::json!({
            "version": 0, "certificate": 0, "cipher_suite": 0, "signature_scheme": 0, "group": 0,
        });
        causes.iter().for_each(|(cause, clients)| by_cause[*cause] = (*clients).into());
        let would_fail: u64 = causes.iter().map(|(_, clients)| clients).sum();
        serde_json::json!({ "clients": all, "would_fail": would_fail, "by_cause": by_cause })
    };
    let causes = [("version", 3), ("certificate", 1), ("signature_scheme", 1), ("group", 2)];
    assert_eq!(page["all"], clients(9, &causes));
    assert_eq!(page["no_name"], clients(1, &[("group", 1)]));
    let refusals = |name: &str, cause: &str| {
        let (name, cause) = (format!("name=\"{name}\""), format!("cause=\"{cause}\""));
        site.forebay.metric("forebay_shadow_name_refusals", &["listener=\"main\"", &name, &cause])
    };
    assert_eq!(refusals("old.a.test", "version"), 2.0);
    assert_eq!(refusals("www.a.test", "group"), 1.0);
    assert_eq!(refusals("www.a.test", "signature_scheme"), 1.0);
    let of_served = site.forebay.metric("forebay_shadow_name_refusals", &["name=\"new.a.test\""]);
    assert_eq!(of_served, 0.0, "a name whose clients would all be served has none");
    assert_eq!(page["other"], clients(1, &[("version", 1)]));
    let named = |name: &str, counted: Value| {
        let mut row = counted;
        row["name"] = name.into();
        row["is_partial"] = false.into();
        row["missed_max"] = 0.into();
        row
    };
    let expected = [
        named("www.a.test", clients(3, &[("group", 1), ("signature_scheme", 1)])),
        named("old.a.test", clients(2, &[("version", 2)])),
        named("rsa.test", clients(1, &[("certificate", 1)])),
        named("new.a.test", clients(1, &[])),
    ];
    assert_eq!(page["names"], Value::from(expected.to_vec()));

    let metric = |verdict: &str| {
        let labels = ["listener=\"main\"", &format!("verdict=\"{verdict}\"")];
        site.forebay.metric("forebay_shadow_clients_total", &labels)
    };
    assert_eq!((metric("served"), metric("version"), metric("cipher_suite")), (2.0, 3.0, 0.0));
    assert_eq!(site.forebay.metric("forebay_shadow_clients_total", &[]), 9.0);
    assert_eq!(site.forebay.metric("forebay_handshake_failures_total", &[]), 0.0);

    let (code, said) = site.command(&[]);
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "listener main\nNAME CLIENTS WOULD FAIL SHARE CAUSES\n",
        "www.a.test 3 2 66.67% signature_scheme 1, group 1\n",
        "new.a.test 1 0 0.00% -\n",
        "(other names) 1 1 100.00% version 1\n",
        "(all) 9 7 77.78% version 3, certificate 1, signature_scheme 1, group 2\n",
    ] {
        assert!(said.contains(line), "no {line:?} in:\n{said}");
    }
    let (_, said) = site.command(&["--limit", "1"]);
    assert!(!said.contains("old.a.test") && said.contains("3 more names"), "{said}");
    let (_, said) = site.command(&["--json", "--limit", "0"]);
    let json: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(json["listeners"][0]["names_total"], 4);
}

#[test]
fn the_metrics_have_the_twenty_names_with_the_most_refusals_and_the_page_has_all() {
    let mut site = Site::start(EVERYTHING);
    let name = |number: u64| format!("n{number}.a.test");
    for number in 0..22 {
        // Two of each but the first two, which are to have no series.
        for _ in 0..if number < 2 { 1 } else { 2 } {
            site.openssl(&["-servername", &name(number), "-tls1_2"]);
        }
    }
    assert_eq!(site.page(42)["names_total"], 22);
    let refusals = |number: u64| {
        let name = format!("name=\"{}\"", name(number));
        site.forebay.metric("forebay_shadow_name_refusals", &["listener=\"main\"", &name])
    };
    let left_out: Vec<_> = (0..22).filter(|number| refusals(*number) == 0.0).collect();
    assert_eq!(left_out, [0, 1]);
}

#[test]
fn a_handshake_that_fails_anyway_is_not_counted() {
    let mut site = Site::start(EVERYTHING);
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &site.address.to_string(), "-servername", "www.a.test"])
        .args(["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl runs");
    assert!(!output.status.success());
    site.modern("www.a.test");
    assert_eq!(site.page(1)["all"]["would_fail"], 0);
    assert_eq!(site.command(&[]).0, Some(0));
}

#[test]
fn a_reload_keeps_the_counts_unless_something_else_is_tried() {
    let mut site = Site::start(EVERYTHING);
    site.openssl(&["-servername", "www.a.test", "-tls1_2"]);
    site.page(1);
    // Another line for the table, and the certificate is a new one.
    self_signed(site.directory.path(), "ec.pem", Key::EcdsaP256, &["*.a.test"]);
    site.reload(&format!("# a remark\n\n{EVERYTHING}"));
    site.openssl(&["-servername", "www.a.test", "-tls1_2"]);
    assert_eq!(site.page(2)["names"][0]["by_cause"]["version"], 2);
    site.reload("no_rsa = true\n");
    site.openssl(&["-servername", "www.a.test", "-tls1_2"]);
    assert_eq!(site.page(1)["names"][0]["would_fail"], 0);
    site.reload("");
    let (code, said) = site.command(&[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nothing is tried"), "{said}");
}

#[test]
fn without_certificates_that_would_do_the_check_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let certificate = self_signed(directory.path(), "rsa.pem", Key::Rsa2048, &["a.test"]);
    let text = configuration(
        "127.0.0.1:443".parse().expect("an address"),
        &[&certificate],
        &["127.0.0.1:80"],
        "",
        "",
    )
    .replacen("[[pool]]", "[listener.shadow]\nno_rsa = true\n[[pool]]", 1);
    let file = directory.path().join("forebay.toml");
    std::fs::write(&file, text).expect("written");
    let (code, said) = forebay(&["check", "-c", file.to_str().expect("text")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("listener[0].shadow: every client would fail"), "{said}");
    let (_, said) = forebay(&["explain", "-c", file.to_str().expect("text"), "--sni", "a.test"]);
    assert!(said.contains("\nshadow would fail (certificate)"), "{said}");
}
