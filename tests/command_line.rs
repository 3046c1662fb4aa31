//! The real binary: exit codes, and the whole way of a request through the demo.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::tls_client::{self, TlsStream};
use tempfile::TempDir;

fn forebay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).env_remove("FOREBAY_LOG").env_remove("RUST_LOG");
    command
}

fn output(arguments: &[&str]) -> Output {
    forebay(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How long to wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// For what is not asked for its address.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The demo, killed when dropped.
struct Demo {
    child: Child,
    /// For what it would remove at its end.
    _temporary: TempDir,
    /// Kept open, as a terminal would be.
    _stdout: Option<BufReader<ChildStdout>>,
    tls: SocketAddr,
    admin: SocketAddr,
}

impl Demo {
    fn start(provider: &str) -> Self {
        let arguments = ["demo", "--port", "0", "--admin", "127.0.0.1:0", "--provider", provider];
        let temporary = tempfile::tempdir().expect("a directory");
        let mut child = forebay(&arguments)
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (mut tls, mut admin) = (None, None);
        for line in stdout.by_ref().lines() {
            let line = line.expect("text");
            if let Some((_, rest)) = line.split_once("https://forebay.example:") {
                let port = rest.trim_end_matches('/').parse().expect("a port");
                tls = Some(SocketAddr::from(([127, 0, 0, 1], port)));
            }
            if let Some((_, rest)) = line.split_once("curl http://") {
                admin = rest.trim_end_matches("/metrics").parse().ok();
            }
            if tls.is_some() && admin.is_some() {
                break;
            }
        }
        let (tls, admin) = (tls.expect("the command line"), admin.expect("the admin address"));
        Self { child, _temporary: temporary, _stdout: Some(stdout), tls, admin }
    }

    /// Waits until the health page ends with `word`.
    fn wait_for_health(&mut self, word: &str) {
        let begin = Instant::now();
        while !self.admin("/health").is_ok_and(|answer| answer.trim_end().ends_with(word)) {
            let ended = self.child.try_wait().expect("wait");
            assert!(ended.is_none(), "the demo ended ({ended:?}) before it was {word}");
            assert!(begin.elapsed() < PATIENCE, "the demo never was {word}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the process to end by itself.
    fn wait_for_end(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the demo does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_child(&self.child);
        kill_process(process, signal).expect("the process is there");
    }

    fn admin(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }

    fn connect(&self) -> TlsStream {
        let mut config = tls_client::config();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = tls_client::connect(Arc::new(config), self.tls, "forebay.example");
        stream.sock.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_demo_shows_a_client_what_its_backend_was_handed() {
    for provider in ["aws-lc-rs", "ring"] {
        let demo = Demo::start(provider);
        let mut stream = demo.connect();
        let request = b"GET /hello HTTP/1.1\r\nHost: forebay.example\r\n\
                        Accept: application/json\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response and a clean end");
        let client = stream.sock.local_addr().expect("an address");
        for fact in [
            format!("\"client\": \"{client}\""),
            format!("\"destination\": \"{}\"", demo.tls),
            "\"server_name\": \"forebay.example\"".to_owned(),
            "\"alpn\": \"http/1.1\"".to_owned(),
            "\"tls_version\": \"TLSv1.3\"".to_owned(),
            "\"target\": \"/hello\"".to_owned(),
        ] {
            assert!(response.contains(&fact), "{provider}: {fact} in {response}");
        }
    }
}

#[test]
fn the_demo_drains_on_the_first_signal_and_ends_well() {
    let mut demo = Demo::start("aws-lc-rs");
    // It says where it is before it serves.
    demo.wait_for_health("ok");
    let mut open = demo.connect();
    open.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    open.read_exact(&mut [0; 12]).expect("an answer");
    demo.signal(Signal::TERM);
    // The open connection goes on while the balancer is told to look elsewhere.
    demo.wait_for_health("draining");
    open.write_all(b"GET /again HTTP/1.1\r\nConnection: close\r\n\r\n").expect("sent");
    let mut rest = String::new();
    open.read_to_string(&mut rest).expect("both answers");
    assert!(rest.contains("/again"), "{rest}");
    // Or the process would wait for our side of the connection.
    drop(open);
    assert_eq!(demo.wait_for_end().code(), Some(0));
}

#[test]
fn the_demo_goes_on_when_nobody_reads_what_it_prints() {
    let (reader, stdout) = std::io::pipe().expect("a pipe");
    drop(reader);
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = forebay(&["demo", "--port", "0", "--admin", "127.0.0.1:0"]);
    command.env("TMPDIR", temporary.path()).stdout(stdout).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let mut demo =
        Demo { child, _temporary: temporary, _stdout: None, tls: NOWHERE, admin: NOWHERE };
    let mut log = log.lines().map_while(Result::ok);
    assert!(log.by_ref().any(|line| line.contains("admin address served")));
    demo.signal(Signal::TERM);
    assert_eq!(demo.wait_for_end().code(), Some(0), "{:?}", log.collect::<Vec<_>>());
}

#[test]
fn a_second_signal_ends_the_demo_at_once() {
    let mut demo = Demo::start("aws-lc-rs");
    let mut open = demo.connect();
    open.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    open.read_exact(&mut [0; 12]).expect("an answer");
    demo.signal(Signal::TERM);
    demo.signal(Signal::INT);
    assert_eq!(demo.wait_for_end().code(), Some(0));
}

#[test]
fn a_taken_port_is_a_failure_that_names_it() {
    let demo = Demo::start("aws-lc-rs");
    let port = demo.tls.port().to_string();
    let second = output(&["demo", "--port", &port, "--admin", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let log = text(&second.stderr);
    assert!(log.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{log}");
}

#[test]
fn a_configuration_with_mistakes_is_refused_with_all_of_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("forebay.toml");
    let mistakes = "[[listener]]\naddress = \":0\"\ncertificats = [\"a.pem\"]\npool = \"wbe\"\n\
                    [[pool]]\nname = \"web\"\nbackends = [\"127.0.0.1:1\"]\n";
    std::fs::write(&file, mistakes).expect("written");
    let file = file.to_str().expect("text");
    for command in ["check", "run"] {
        let refused = output(&[command, "-c", file]);
        assert_eq!(refused.status.code(), Some(2), "{command}");
        let findings = text(&refused.stderr);
        for part in ["did you mean `certificates`?", "did you mean \"web\"?"] {
            assert!(findings.contains(part), "{command}: {part} in {findings}");
        }
    }
}

#[test]
fn a_good_configuration_passes_the_check() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
    let pem = format!("{}{}", key.cert.pem(), key.signing_key.serialize_pem());
    std::fs::write(directory.path().join("a.pem"), pem).expect("written");
    let file = directory.path().join("forebay.toml");
    let good = "[[listener]]\naddress = \"127.0.0.1:443\"\ncertificates = [\"a.pem\"]\n\
                pool = \"web\"\n[[pool]]\nname = \"web\"\nbackends = [\"127.0.0.1:1\"]\n";
    std::fs::write(&file, good).expect("written");
    let checked = output(&["check", "-c", file.to_str().expect("text")]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("good"));
}

#[test]
fn the_version_and_the_help_end_well_and_a_wrong_command_does_not() {
    let version = output(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).contains("aws-lc-rs"));
    assert_eq!(output(&["--help"]).status.code(), Some(0));
    assert_eq!(output(&["serve"]).status.code(), Some(2));
}
