//! Mistakes of the operator: what `forebay check` finds, and what a start says that
//! cannot succeed.

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use support::certificates::{Key, self_signed};
use support::configuration::configuration;
use support::forebay::Forebay;
use support::ports::free_address;

/// A directory with a certificate, and a configuration that is good.
struct Files {
    directory: TempDir,
    certificate: PathBuf,
    good: String,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let certificate = self_signed(directory.path(), "a.pem", Key::EcdsaP256, &["a.test"]);
        let rest = "[engine]\nmax_connections = 64\n";
        let good = configuration(free_address(), &[&certificate], &["127.0.0.1:9"], "", rest);
        Self { directory, certificate, good }
    }

    fn write(&self, text: &str) -> PathBuf {
        let file = self.directory.path().join("forebay.toml");
        fs::write(&file, text).expect("write");
        file
    }

    fn check(&self, text: &str) -> (Option<i32>, String) {
        ended(&forebay("check", &self.write(text)))
    }

    fn run(&self, text: &str) -> (Option<i32>, String) {
        ended(&forebay("run", &self.write(text)))
    }
}

fn forebay(command: &str, file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args([command, "-c"])
        .arg(file)
        .output()
        .expect("forebay starts")
}

/// The exit status and everything that was said.
fn ended(output: &Output) -> (Option<i32>, String) {
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    (output.status.code(), said.concat())
}

#[test]
fn the_example_in_the_documentation_has_no_mistake_but_its_certificates() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/forebay.toml");
    let (_, said) = ended(&forebay("check", &file));
    for line in said.lines().filter(|line| line.contains("error:")) {
        assert!(line.contains("certificate"), "{line}");
    }
}

#[test]
fn the_check_lists_every_mistake_with_its_place() {
    let files = Files::new();
    let missing = files.directory.path().join("missing.pem");
    let text = files
        .good
        .replacen("pool = \"servers\"", "pool = \"server\"\nalpm = [\"h2\"]", 1)
        .replacen("127.0.0.1:9", "127.0.0.1:99999", 1)
        .replacen(files.certificate.to_str().expect("UTF-8"), missing.to_str().expect("UTF-8"), 1)
        + "[timeouts]\nidle = \"5 minutes\"\n";
    let (status, said) = files.check(&text);
    assert_eq!(status, Some(2), "{said}");
    for (key, says) in [
        ("pool = \"server\"", "servers"),
        ("alpm", "alpn"),
        // Files are read in spite of the rest.
        ("certificates", "missing.pem"),
        ("backends", "127.0.0.1:99999"),
        ("idle", "5 minutes"),
    ] {
        let line = 1 + text.lines().position(|line| line.starts_with(key)).expect("is there");
        let place = format!("forebay.toml:{line}:");
        let found = said.lines().any(|line| line.contains(&place) && line.contains(says));
        assert!(found, "{place} … {says} in\n{said}");
    }
}

#[test]
fn the_check_reads_the_certificates() {
    let files = Files::new();
    let other = self_signed(files.directory.path(), "other.pem", Key::EcdsaP256, &["b.test"]);
    let chain = fs::read_to_string(&files.certificate).expect("read");
    let (chain, _) = chain.split_once("-----BEGIN PRIVATE KEY").expect("a key");
    let key = fs::read_to_string(&other).expect("read");
    let (_, key) = key.split_once("-----BEGIN PRIVATE KEY").expect("a key");
    let mixed = format!("{chain}-----BEGIN PRIVATE KEY{key}");
    for (content, says) in [
        (mixed.as_str(), "key"),
        (chain, "key"),
        ("", "empty"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a.pem"),
    ] {
        fs::write(&files.certificate, content).expect("write");
        let (status, said) = files.check(&files.good);
        assert_eq!(status, Some(2), "{said}");
        let line = said.lines().find(|line| line.contains("error:")).expect("an error");
        assert!(line.contains("a.pem") && line.contains(says), "{says} in {line}");
        // A start says the same.
        let (status, said) = files.run(&files.good);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("a.pem"), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let file = Path::new("/nonexistent/forebay.toml");
    for command in ["check", "run"] {
        let (status, said) = ended(&forebay(command, file));
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("/nonexistent/forebay.toml"), "{said}");
    }
}

#[test]
fn a_missing_certificate_is_named_at_start() {
    let files = Files::new();
    fs::remove_file(&files.certificate).expect("remove");
    let (status, said) = files.run(&files.good);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("a.pem") && said.contains("No such file"), "{said}");
}

#[test]
fn an_address_in_use_is_named_at_start() {
    let files = Files::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    let text = configuration(address, &[&files.certificate], &["127.0.0.1:9"], "", "");
    let (status, said) = files.run(&text);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
    assert!(said.contains("listener") && said.contains("main"), "{said}");

    // So is the admin address.
    let text = format!("{}[admin]\naddress = \"{address}\"\n", files.good);
    let (status, said) = files.run(&text);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("admin") && said.contains(&address.to_string()), "{said}");
}

#[test]
fn a_second_forebay_does_not_share_the_first_ones_address() {
    let files = Files::new();
    let address = free_address();
    let rest = "[engine]\nmax_connections = 64\n";
    let text = configuration(address, &[&files.certificate], &["127.0.0.1:9"], "", rest);
    let first = tempfile::tempdir().expect("directory");
    let _running = Forebay::start(first.path(), &text);
    let (status, said) = files.run(&text);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}
