//! One listener with a certificate, one backend that echoes, and what their operator
//! sees: the log's fields, the process's CPUs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use super::certificates::{Key, self_signed};
use super::forebay::{Forebay, PATIENCE};
use super::ports::free_address;
use super::tls_client;

/// One listener with a certificate, one backend that echoes, and a directory for them.
pub struct Site {
    directory: tempfile::TempDir,
    pub address: SocketAddr,
    backend: SocketAddr,
}

impl Site {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        self_signed(directory.path(), "shop.pem", Key::EcdsaP256, &["shop.example"]);
        Self { directory, address: free_address(), backend: echo_backend() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn configuration(&self, settings: &str) -> String {
        let Self { address, backend, .. } = self;
        format!(
            "[[listener]]\nname = \"shop\"\naddress = \"{address}\"\n\
             certificates = [\"shop.pem\"]\npool = \"web\"\n\
             [[pool]]\nname = \"web\"\nbackends = [\"{backend}\"]\n{settings}"
        )
    }

    pub fn start(&self, settings: &str) -> Forebay {
        self.start_with(settings, |_| ())
    }

    pub fn start_with(&self, settings: &str, prepare: impl FnOnce(&mut Command)) -> Forebay {
        Forebay::start_with(self.path(), &self.configuration(settings), prepare)
    }

    /// The one error line of a start that is refused.
    pub fn refusal(&self, settings: &str, prepare: impl FnOnce(&mut Command)) -> String {
        let mut forebay = Forebay::spawn(self.path(), &self.configuration(settings), prepare);
        let status = forebay.wait_for_exit();
        let log = forebay.log();
        assert_eq!(status.code(), Some(1), "{log:#?}");
        let mut errors = log.iter().filter(|line| line.contains(" ERROR "));
        let error = errors.next().expect("an error line").clone();
        assert_eq!(errors.next(), None, "one error, not several: {log:#?}");
        assert!(error.contains("not started: "), "{error}");
        error
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("connect")
    }

    pub fn tls_client(&self) -> tls_client::TlsStream {
        tls_client::connect(Arc::new(tls_client::config()), self.address, "shop.example")
    }

    /// One client from handshake to answer.
    pub fn exchange(&self) {
        exchange(&mut self.tls_client());
    }
}

pub fn exchange(client: &mut tls_client::TlsStream) {
    client.sock.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(b"hello").expect("sent");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"hello");
}

/// Sends back what it gets, until the test ends.
fn echo_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

/// The number behind `name=` in a line of the log.
pub fn field(line: &str, name: &str) -> u64 {
    line.split(' ')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        .unwrap_or_else(|| panic!("{name}= in {line}"))
}

pub fn cpus_allowed_list(status: impl AsRef<Path>) -> String {
    let status = fs::read_to_string(status).expect("proc_pid_status(5)");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("the line").trim().to_owned()
}

/// The CPUs that this test, and so what it starts, may run on.
pub fn allowed_cpus() -> Vec<usize> {
    let list = cpus_allowed_list("/proc/self/status");
    list.split(',')
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse().expect("a number")..=last.parse().expect("a number")
        })
        .collect()
}
