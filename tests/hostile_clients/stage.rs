//! forebay between a client and an echoing backend, and what must hold after each act.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tempfile::TempDir;

use crate::support::certificates::{Key, self_signed};
use crate::support::echo::EchoBackend;
use crate::support::forebay::{Forebay, PATIENCE};
use crate::support::ports::free_address;
use crate::support::tls_client::{self, TlsStream};

/// The name that the certificate is for.
pub(crate) const NAME: &str = "forebay.example";

/// Gauges that are 0 when nobody is there.
const GAUGES: [&str; 5] = [
    "forebay_connections",
    "forebay_connections_established",
    "forebay_handshakes_in_progress",
    "forebay_upstream_connections",
    "forebay_buffers_in_use",
];

pub(crate) struct Stage {
    pub(crate) forebay: Forebay,
    pub(crate) backend: EchoBackend,
    pub(crate) address: SocketAddr,
    /// Ends of backend connections that a test has looked at.
    pub(crate) endings_judged: usize,
    /// Holds the configuration and the certificates.
    _directory: TempDir,
}

impl Stage {
    /// Starts both, with whole sections of TOML besides those of listener, pool and
    /// engine.
    pub(crate) fn set(sections: &str) -> Self {
        Self::set_with("", "", sections)
    }

    /// The same with more keys for the listener and for the engine.
    pub(crate) fn set_with(listener: &str, engine: &str, sections: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        self_signed(directory.path(), "ec.pem", Key::EcdsaP256, &[NAME]);
        self_signed(directory.path(), "rsa.pem", Key::Rsa2048, &[NAME]);
        let backend = EchoBackend::start();
        let address = free_address();
        let configuration = format!(
            r#"
            [[listener]]
            name = "hostile"
            address = "{address}"
            certificates = ["ec.pem", "rsa.pem"]
            pool = "echo"
            {listener}

            [[pool]]
            name = "echo"
            backends = ["{}"]

            [engine]
            engines = 1
            max_connections = 2048
            {engine}

            {sections}
            "#,
            backend.address
        );
        let forebay = Forebay::start(directory.path(), &configuration);
        Self { forebay, backend, address, endings_judged: 0, _directory: directory }
    }

    /// A connection on which the test gives up when nothing comes for very long.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream
    }

    /// A TLS connection over which something was echoed, so that handshake and backend
    /// connection are done.
    pub(crate) fn established(&self, config: ClientConfig) -> TlsStream {
        let mut tls = tls_client::connect(Arc::new(config), self.address, NAME);
        tls.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
        echo(&mut tls, b"all is well");
        tls
    }

    /// An honest client is served.
    pub(crate) fn serves(&self) {
        let mut tls = self.established(tls_client::config());
        tls.conn.send_close_notify();
        tls.flush().expect("close_notify is sent");
        let mut rest = Vec::new();
        tls.read_to_end(&mut rest).expect("close_notify comes back");
        assert!(rest.is_empty(), "nothing but the echo");
    }

    /// Failed handshakes with this reason so far.
    pub(crate) fn failures(&self, reason: &str) -> f64 {
        let label = format!("reason=\"{reason}\"");
        self.forebay.metric("forebay_handshake_failures_total", &[&label])
    }

    /// Waits until so many handshakes have failed with this reason.
    pub(crate) fn wait_for_failures(&mut self, reason: &str, count: usize) {
        let label = format!("reason=\"{reason}\"");
        self.forebay.wait_until(&format!("{count} failures are {reason}"), |forebay| {
            forebay.metric("forebay_handshake_failures_total", &[&label]) == count as f64
        });
    }

    /// What must hold after every act: an honest client is served, everything that was
    /// held is given back, nothing panicked, and nothing was forebay's own fault.
    pub(crate) fn is_as_before(&mut self) {
        self.serves();
        self.forebay.wait_until("all gauges are back at 0", |forebay| {
            GAUGES.iter().all(|gauge| forebay.metric(gauge, &[]) == 0.0)
        });
        assert_eq!(self.failures("internal"), 0.0, "a client's fault is not forebay's");
        let log = self.forebay.log();
        assert!(!log.iter().any(|line| line.contains("panicked")), "{}", log.join("\n"));
    }
}

/// Sends `text` and receives it again.
pub(crate) fn echo(tls: &mut TlsStream, text: &[u8]) {
    tls.write_all(text).expect("sent");
    tls.flush().expect("sent");
    let mut back = vec![0; text.len()];
    tls.read_exact(&mut back).expect("echoed");
    assert_eq!(back, text);
}

/// Everything that comes until the end of the stream, or until its reset.
pub(crate) fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("neither answered nor closed: {error}"),
    }
    received
}

/// The error with which a TLS stream ends.
pub(crate) fn failure(tls: &mut TlsStream) -> rustls::Error {
    let mut received = Vec::new();
    match tls.read_to_end(&mut received) {
        Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => rustls::Error::clone(error),
            None => panic!("ended without an alert: {error}"),
        },
        Ok(_) => panic!("ended in order after {} bytes", received.len()),
    }
}

/// A ClientHello as one record.
pub(crate) fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from(NAME).expect("a name");
    let config = Arc::new(tls_client::config());
    let mut client = ClientConnection::new(config, name).expect("client");
    let mut record = Vec::new();
    client.write_tls(&mut record).expect("a ClientHello");
    record
}

/// Bytes that look random and are the same in every run (xorshift64*).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}
