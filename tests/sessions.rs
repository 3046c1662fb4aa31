//! Sessions across nodes: begun on one forebay, resumed on another that has the same
//! secrets, and on no other.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::client::Resumption;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tempfile::TempDir;

use support::backend::Backend;
use support::certificates::{Key, self_signed};
use support::configuration::configuration;
use support::echo::EchoBackend;
use support::forebay::{Forebay, PATIENCE};
use support::openssl::{OpensslClient, only};
use support::ports::free_address;
use support::tls_client;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A forebay with a certificate and a secret file of its own.
struct Node {
    forebay: Forebay,
    address: SocketAddr,
    secrets: PathBuf,
    _directory: TempDir,
}

/// What a node is made of.
struct Plan<'a> {
    /// The content of the secret file; `None`: no file.
    secrets: Option<&'a [u8]>,
    /// The names of its certificate.
    names: &'a [&'a str],
    /// More keys of the listener.
    listener: &'a str,
    /// More keys of `[session]`.
    session: &'a str,
}

impl<'a> Plan<'a> {
    fn with(secrets: &'a [u8]) -> Self {
        Self { secrets: Some(secrets), names: &["a.test"], listener: "", session: "" }
    }

    fn start(self, echo: &EchoBackend) -> Node {
        self.start_before(&echo.address.to_string())
    }

    fn start_before(self, backend: &str) -> Node {
        let directory = tempfile::tempdir().expect("directory");
        let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, self.names);
        let secrets = directory.path().join("tier.secrets");
        let mut session = format!("[session]\n{}", self.session);
        if let Some(content) = self.secrets {
            write_secrets(&secrets, content);
            session.push_str("\nsecrets = \"tier.secrets\"");
        }
        let address = free_address();
        let text = configuration(address, &[&certificate], &[backend], "", &session).replacen(
            "[[pool]]",
            &format!("{}\n[[pool]]", self.listener),
            1,
        );
        let forebay = Forebay::start(directory.path(), &text);
        Node { forebay, address, secrets, _directory: directory }
    }
}

impl Node {
    fn refused(&self, cause: &str) -> f64 {
        let label = format!("cause=\"{cause}\"");
        self.forebay.metric("forebay_session_tickets_refused_total", &[&label])
    }

    fn tickets(&self, what: &str) -> f64 {
        self.forebay.metric(&format!("forebay_session_tickets_{what}_total"), &[])
    }

    fn wait_for_epochs(&mut self, count: f64) {
        let epoch = |forebay: &Forebay| forebay.metric("forebay_session_epoch", &[]);
        let until = epoch(&self.forebay) + count;
        self.forebay.wait_until("epochs are over", |forebay| epoch(forebay) >= until);
    }
}

/// As an operator's tools do: beside, then in its place.
fn write_secrets(path: &Path, content: &[u8]) {
    let beside = path.with_extension("beside");
    fs::write(&beside, content).expect("write");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("permissions");
    fs::rename(beside, path).expect("rename");
}

fn ticket_secret(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .arg("ticket-secret")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("forebay runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("text"))
}

/// The content of a new file.
fn generated(options: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("new.secrets");
    let file = path.to_str().expect("a path");
    let (made, text) = ticket_secret(&[&["generate", file], options].concat());
    assert!(made, "{text}");
    assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
    fs::read(path).expect("read")
}

fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = tls_client::config_of(provider, &[version]);
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// One connection over which something is echoed; whether its session was resumed.
fn resumes(client: &Arc<ClientConfig>, address: SocketAddr) -> bool {
    let mut stream = tls_client::connect(Arc::clone(client), address, "a.test");
    stream.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"hello").expect("write");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("read");
    assert_eq!(&back, b"hello");
    stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// How many of so many connections that go to one node after the other are resumed.
fn alternate(nodes: &[&Node], version: &'static SupportedProtocolVersion, count: usize) -> usize {
    let client = client(version);
    resumes(&client, nodes[0].address);
    (1..=count).filter(|turn| resumes(&client, nodes[turn % nodes.len()].address)).count()
}

#[test]
fn a_session_resumes_on_every_node_with_the_same_secret_whatever_its_certificate() {
    let (echo, secrets) = (EchoBackend::start(), generated(&[]));
    let nodes = [(); 3].map(|()| Plan::with(&secrets).start(&echo));
    let nodes: Vec<&Node> = nodes.iter().collect();
    for version in VERSIONS {
        let resumed = alternate(&nodes, version, 200);
        assert!(resumed >= 198, "{version:?}: {resumed} of 200");
    }
    let sum = |what| nodes.iter().map(|node| node.tickets(what)).sum::<f64>();
    assert!(sum("accepted") >= 396.0, "{}", sum("accepted"));
    assert_eq!(sum("offered"), sum("accepted") + sum("refused"));
    assert_eq!(sum("ahead"), 0.0);
}

#[test]
fn no_session_resumes_on_a_node_with_another_secret() {
    let echo = EchoBackend::start();
    let nodes = [(); 2].map(|()| Plan::with(&generated(&[])).start(&echo));
    for version in VERSIONS {
        assert_eq!(alternate(&[&nodes[0], &nodes[1]], version, 50), 0, "{version:?}");
    }
    assert_eq!(nodes[0].tickets("accepted") + nodes[1].tickets("accepted"), 0.0);
    assert!(nodes[1].refused("unknown_secret") > 0.0);
}

/// What `openssl s_client` says of a connection to `node`, with `option` for the file
/// that keeps the session. `backend` ends it.
fn openssl(
    node: &Node,
    backend: &Backend,
    version: &str,
    (option, session): (&str, &Path),
) -> String {
    let client = OpensslClient::new(node.address).name("a.test").with(&[only(version)]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = backend.accept();
            stream.read_exact(&mut [0; 5]).expect("read");
        });
        client.with_file(option, session).run("hello").text
    })
}

#[test]
fn openssl_resumes_on_the_other_node() {
    let (backend, secrets) = (Backend::listen(), generated(&[]));
    let nodes = [(); 2].map(|()| Plan::with(&secrets).start_before(&backend.address));
    let directory = tempfile::tempdir().expect("directory");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let session = directory.path().join(version);
        let first = openssl(&nodes[0], &backend, version, ("-sess_out", &session));
        assert!(first.contains(&format!("New, {version}")), "{first}");
        let second = openssl(&nodes[1], &backend, version, ("-sess_in", &session));
        assert!(second.contains(&format!("Reused, {version}")), "{second}");
    }
}

#[test]
fn a_rotated_secret_seals_after_a_change_of_the_file_and_the_old_one_still_opens() {
    let (echo, secrets) = (EchoBackend::start(), generated(&[]));
    let mut nodes = [(); 2].map(|()| Plan::with(&secrets).start(&echo));
    let client = client(&rustls::version::TLS12);
    assert!(!resumes(&client, nodes[0].address));
    let file = nodes[1].secrets.to_str().expect("a path").to_owned();
    let (done, text) = ticket_secret(&["rotate", "--delay", "0", &file]);
    assert!(done, "{text}");
    nodes[1].forebay.wait_for_log("ticket secrets changed");
    assert!(resumes(&client, nodes[1].address), "sealed with the old secret");
    // TLS 1.2 renews the ticket, now with the new secret, which the first node has not got.
    assert!(!resumes(&client, nodes[0].address), "sealed with the new secret");
    write_secrets(&nodes[0].secrets, &fs::read(&nodes[1].secrets).expect("read"));
    nodes[0].forebay.wait_for_log("ticket secrets changed");
    assert!(resumes(&client, nodes[1].address) && resumes(&client, nodes[0].address));
}

#[test]
fn a_secret_whose_time_has_not_come_opens_and_does_not_seal() {
    let (echo, secrets) = (EchoBackend::start(), generated(&[]));
    let mut nodes = [(); 2].map(|()| Plan::with(&secrets).start(&echo));
    let file = nodes[1].secrets.to_str().expect("a path").to_owned();
    ticket_secret(&["rotate", &file]);
    let (_, text) = ticket_secret(&["inspect", &file]);
    assert!(text.contains("opens; seals in") && text.contains("seals and opens"), "{text}");
    nodes[1].forebay.wait_for_log("ticket secrets changed");
    assert_eq!(alternate(&[&nodes[0], &nodes[1]], &rustls::version::TLS13, 10), 10);

    // On the other node its time has come.
    let content = fs::read_to_string(&nodes[1].secrets).expect("read");
    let new = content.lines().find(|line| line.starts_with("secret")).expect("a secret");
    let from = new.split(' ').nth(1).expect("a time");
    write_secrets(&nodes[0].secrets, content.replacen(from, "1", 1).as_bytes());
    nodes[0].forebay.wait_for_log("ticket secrets changed");
    let client = client(&rustls::version::TLS12);
    resumes(&client, nodes[0].address);
    assert!(resumes(&client, nodes[1].address), "sealed with the new secret");
}

/// A clock that stands: its client offers a ticket however old it is.
#[derive(Debug)]
struct StoppedClock(UnixTime);

impl TimeProvider for StoppedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[test]
fn a_ticket_does_not_open_when_its_epoch_and_the_overlap_are_over() {
    let (echo, secrets) = (EchoBackend::start(), generated(&[]));
    let mut plan = Plan::with(&secrets);
    plan.session = "epoch = \"2s\"";
    let mut node = plan.start(&echo);
    let clients = VERSIONS.map(|version| {
        let mut config = ClientConfig::clone(&client(version));
        config.time_provider = Arc::new(StoppedClock(UnixTime::now()));
        Arc::new(config)
    });
    for client in &clients {
        resumes(client, node.address);
    }
    node.wait_for_epochs(3.0);
    for client in &clients {
        assert!(!resumes(client, node.address));
    }
    // The page may be some moments old.
    let label = "cause=\"unknown_epoch\"";
    let name = "forebay_session_tickets_refused_total";
    node.forebay.wait_until("both are counted", |forebay| forebay.metric(name, &[label]) >= 2.0);
}

#[test]
fn a_session_does_not_cross_into_another_domain() {
    let (echo, secrets) = (EchoBackend::start(), generated(&[]));
    let one = Plan::with(&secrets).start(&echo);
    let mut plan = Plan::with(&secrets);
    plan.names = &["a.test", "more.test"];
    let other = plan.start(&echo);
    for version in VERSIONS {
        assert_eq!(alternate(&[&one, &other], version, 20), 0, "{version:?}");
    }
    assert!(other.refused("other_domain") > 0.0);
}

#[test]
fn nodes_with_names_of_their_own_share_a_domain_that_has_a_name() {
    let (echo, secrets) = (EchoBackend::start(), generated(&[]));
    let nodes = [["a.test", "node1.test"], ["a.test", "node2.test"]].map(|names| {
        let mut plan = Plan::with(&secrets);
        plan.names = &names;
        plan.listener = "session_domain = \"site\"";
        plan.start(&echo)
    });
    assert_eq!(alternate(&[&nodes[0], &nodes[1]], &rustls::version::TLS13, 20), 20);
}

#[test]
fn a_ratchet_goes_on_in_its_file_and_nodes_resume_across_it() {
    let (echo, secrets) = (EchoBackend::start(), generated(&["--ratchet", "--epoch", "2"]));
    let mut nodes = [(); 2].map(|()| {
        let mut plan = Plan::with(&secrets);
        plan.session = "epoch = \"2s\"";
        plan.start(&echo)
    });
    nodes[0].wait_for_epochs(3.0);
    let file = nodes[0].secrets.clone();
    nodes[0].forebay.wait_until("the file has gone on", |_| {
        let content = fs::read_to_string(&file).expect("read");
        let value = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("ratchet")).expect("a ratchet");
            line.split(' ').nth(2).expect("a value").to_owned()
        };
        value(&content) != value(std::str::from_utf8(&secrets).expect("text"))
    });
    let mode = fs::metadata(&file).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Both were made from the same file, and each has rewritten its own.
    let resumed = alternate(&[&nodes[0], &nodes[1]], &rustls::version::TLS13, 50);
    assert!(resumed >= 49, "{resumed} of 50");
    assert_eq!(nodes[0].forebay.metric("forebay_session_ratchet_failures_total", &[]), 0.0);
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_secrets_as_they_are() {
    let (echo, secrets) = (EchoBackend::start(), generated(&[]));
    let mut node = Plan::with(&secrets).start(&echo);
    let client = client(&rustls::version::TLS12);
    resumes(&client, node.address);
    let usable = |forebay: &Forebay| forebay.metric("forebay_session_secrets_usable", &[]) > 0.0;
    node.forebay.wait_until("it is usable", usable);
    write_secrets(&node.secrets, b"forebay ticket secrets 1\nsecret 0 abc\n");
    let line = node.forebay.wait_for_log("line 2: a secret has 64 hexadecimal digits");
    assert!(line.contains("tier.secrets") && !line.contains("abc"), "{line}");
    node.forebay.wait_until("it is not usable", |forebay| !usable(forebay));
    assert!(resumes(&client, node.address));
    write_secrets(&node.secrets, &secrets);
    node.forebay.wait_until("it is usable again", usable);
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_the_command_that_helps() {
    let directory = tempfile::tempdir().expect("directory");
    let secrets = directory.path().join("tier.secrets");
    write_secrets(&secrets, &generated(&[]));
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o640)).expect("permissions");
    let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &["a.test"]);
    let session = "[session]\nsecrets = \"tier.secrets\"";
    let text = configuration(free_address(), &[&certificate], &["127.0.0.1:1"], "", session);
    let mut forebay = Forebay::spawn(directory.path(), &text, |_| ());
    assert_eq!(forebay.wait_for_exit().code(), Some(2));
    let log = forebay.log().join("\n");
    let wanted = format!("chmod 600 {}", secrets.display());
    assert!(log.contains(&wanted) && log.contains("session.secrets"), "{log}");
    let (done, text) = ticket_secret(&["inspect", secrets.to_str().expect("a path")]);
    assert!(!done && text.contains(&wanted), "{text}");
}

#[test]
fn key_files_of_haproxy_and_nginx_serve_as_secrets() {
    let echo = EchoBackend::start();
    let haproxy = ["AAAA", "BBBB", "CCCC"].map(|part| part.repeat(16)).join("\n");
    for content in [haproxy.as_bytes(), &[7; 48], &[7; 80]] {
        let nodes = [(); 2].map(|()| Plan::with(content).start(&echo));
        assert_eq!(alternate(&[&nodes[0], &nodes[1]], &rustls::version::TLS13, 10), 10);
    }
}

#[test]
fn generate_does_not_overwrite_and_rotate_keeps_as_many_as_told() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("tier.secrets");
    let file = path.to_str().expect("a path");
    assert!(ticket_secret(&["generate", file]).0);
    let before = fs::read(&path).expect("read");
    let (made, text) = ticket_secret(&["generate", file]);
    assert!(!made && text.contains("exists"), "{text}");
    assert_eq!(fs::read(&path).expect("read"), before);
    for _ in 0..4 {
        assert!(ticket_secret(&["rotate", "--keep", "2", file]).0);
    }
    let (_, text) = ticket_secret(&["inspect", file]);
    assert_eq!(text.lines().count(), 3, "the form and two secrets: {text}");
    let secret = String::from_utf8(fs::read(&path).expect("read")).expect("text");
    let value = secret.lines().nth(2).and_then(|line| line.split(' ').nth(2)).expect("a value");
    assert!(!text.contains(value), "no secret is shown");
}
