//! The load generator's own server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use crate::program::{command, number, report};
use crate::support::certificates::{Key, self_signed};
use crate::support::configuration::configuration;
use crate::support::forebay::Forebay;
use crate::support::ports::free_address;

/// A running backend, ended when it goes out of scope.
pub(crate) struct Backend {
    child: Child,
    /// Where it listens, in its own words.
    pub(crate) listens: String,
}

impl Backend {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = command(&[&["backend"], arguments].concat())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let listens = line.trim().strip_prefix("listening on ").expect("its address").to_owned();
        Self { child, listens }
    }

    pub(crate) fn on_any_port(more: &[&str]) -> Self {
        Self::start(&[&["--listen=127.0.0.1:0"], more].concat())
    }

    fn address(&self) -> SocketAddr {
        self.listens.parse().expect("an address")
    }

    /// Sends `request` and reads until the backend closes.
    fn ask(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address()).expect("connect");
        stream.write_all(request).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn answers_have_the_size_that_was_asked_for() {
    let backend = Backend::on_any_port(&[]);
    for (path, bytes) in
        [("/bytes/0", 0), ("/1k", 1_024), ("/bytes/65537", 65_537), ("/3m", 3 << 20)]
    {
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
        let answer = backend.ask(request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains(&format!("Content-Length: {bytes}")), "{head}");
        assert_eq!(body.len(), bytes, "{path}");
    }
    assert!(backend.ask(b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n").contains(" 404 "));
    assert!(backend.ask(b"nonsense\r\n\r\n").contains(" 400 "));
}

#[test]
fn requests_behind_one_another_are_answered_in_order() {
    let backend = Backend::on_any_port(&[]);
    let body = "y".repeat(300_000);
    let requests = format!(
        "POST /2 HTTP/1.1\r\nContent-Length: 300000\r\n\r\n{body}\
         GET /200k HTTP/1.1\r\n\r\n\
         GET /3 HTTP/1.1\r\nConnection: close\r\n\r\n"
    );
    let answer = backend.ask(requests.as_bytes());
    let lengths: Vec<_> =
        answer.lines().filter_map(|line| line.strip_prefix("Content-Length: ")).collect();
    assert_eq!(lengths, ["2", "204800", "3"]);
    assert!(answer.ends_with("\r\n\r\nxxx"));
}

#[test]
fn proxy_headers_are_passed_over_if_that_was_asked_for() {
    let request = b"GET /3 HTTP/1.1\r\nConnection: close\r\n\r\n";
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n".to_vec();
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[1; 12]].concat();
    let backend = Backend::on_any_port(&["--proxy-protocol"]);
    for header in [v1.clone(), v2, Vec::new()] {
        let answer = backend.ask(&[&header[..], request].concat());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let strict = Backend::on_any_port(&[]);
    assert!(strict.ask(&[&v1[..], request].concat()).starts_with("HTTP/1.1 400 "));
}

#[test]
fn transfers_both_ways_go_through_forebay_to_several_threads() {
    let directory = tempfile::tempdir().expect("directory");
    let certificate = self_signed(directory.path(), "main.pem", Key::EcdsaP256, &["a.test"]);
    let backend = Backend::on_any_port(&["--proxy-protocol", "--threads=2"]);
    let address = free_address();
    let (pool, rest) = ("proxy_protocol = \"v2\"", "[engine]\nengines = 1\nmax_connections = 64\n");
    let text = configuration(address, &[&certificate], &[&backend.listens], pool, rest);
    let _forebay = Forebay::start(directory.path(), &text);
    let at = address.to_string();
    let more = ["--bytes=5m", "--operations=6", "--connections=2", "--warm-up=0s"];
    for direction in ["--direction=down", "--direction=up"] {
        let report = report(&[&["bulk", &at, direction], &more[..]].concat());
        assert_eq!(number(&report, "/operations"), 6.0, "{direction}");
        let (bytes, bodies) = (number(&report, "/bytes"), 6.0 * 5_242_880.0);
        assert!((bodies..bodies * 1.1).contains(&bytes), "{direction}: {bytes}");
    }
    let sizes = ["--request-bytes=100", "--response-bytes=2k", "--operations=50", "--warm-up=0s"];
    let report = report(&[&["requests", &at], &sizes[..]].concat());
    assert_eq!(number(&report, "/operations"), 50.0);
    assert!(number(&report, "/bytes") > 50.0 * (100.0 + 2_048.0));
}

#[test]
fn without_tls_the_same_modes_work() {
    let backend = Backend::on_any_port(&[]);
    let at = &backend.listens;
    let more = ["--plain", "--operations=40", "--warm-up=0s", "--connections=4"];
    for mode in [
        &["handshakes"][..],
        &["handshakes", "--request=/1k"],
        &["handshakes", "--close=reset"],
        &["requests", "--path=/1k"],
        &["bulk", "--bytes=1m"],
        &["bulk", "--bytes=1m", "--direction=up"],
    ] {
        let report = report(&[mode, &[at], &more[..]].concat());
        assert_eq!(number(&report, "/operations"), 40.0, "{mode:?}");
        assert!(report.get("tls").is_none(), "{report}");
    }
}

#[test]
fn a_unix_socket_serves_too_and_is_taken_over_from_one_that_ended() {
    let directory = tempfile::tempdir().expect("directory");
    let listen = format!("--listen=unix:{}/backend.sock", directory.path().display());
    for _ in 0..2 {
        let backend = Backend::start(&[&listen]);
        let path = backend.listens.strip_prefix("unix:").expect("a path").to_owned();
        let mut stream = std::os::unix::net::UnixStream::connect(path).expect("connect");
        let body = "y".repeat(200_000);
        let request = format!(
            "POST /5 HTTP/1.1\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        assert!(answer.ends_with("\r\n\r\nxxxxx"), "{answer}");
    }
}
