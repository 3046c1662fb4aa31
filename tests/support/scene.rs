//! A running forebay between clients and servers that the test plays itself, with a
//! bystander on the same engine.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::ClientConfig;
use tempfile::TempDir;

use super::backend::Backend;
use super::bystander::Bystander;
use super::certificates::{Key, self_signed};
use super::configuration::configuration;
use super::echo::EchoBackend;
use super::exchange::End;
use super::forebay::{Forebay, PATIENCE};
use super::ports::free_address;
use super::tls_client::{self, TlsStream};

/// Everything that takes part. The bystander has a listener and a pool of its own.
pub struct Scene {
    /// Before forebay, so that it can end in order.
    bystander: Bystander,
    pub forebay: Forebay,
    /// Where the test's own clients connect.
    pub address: SocketAddr,
    /// What they connect to.
    pub backend: Backend,
    _echo: EchoBackend,
    _directory: TempDir,
}

impl Scene {
    /// `rest` is more of the configuration.
    pub fn start(rest: &str) -> Self {
        Self::with("", &[], true, "", rest)
    }

    /// The same with more keys for the pool.
    pub fn with_pool(pool: &str, rest: &str) -> Self {
        Self::with("", &[], true, pool, rest)
    }

    /// The same with more servers in the pool, before the test's own if that is in it.
    pub fn with_backends(others: &[&str], own: bool, rest: &str) -> Self {
        Self::with("", others, own, "", rest)
    }

    /// The same with more keys for the listener and for the pool.
    pub fn with(listener: &str, others: &[&str], own: bool, pool: &str, rest: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let certificate = self_signed(directory.path(), "main.pem", Key::EcdsaP256, &["a.test"]);
        let (address, bystanders) = (free_address(), free_address());
        let (backend, echo) = (Backend::listen(), EchoBackend::start());
        let mut backends = others.to_vec();
        if own {
            backends.push(&backend.address);
        }
        let main = configuration(address, &[&certificate], &backends, pool, rest);
        let main = main.replacen("[[listener]]", &format!("[[listener]]\n{listener}"), 1);
        let text = format!(
            "{main}\n\
             [[listener]]\n\
             name = \"bystander\"\n\
             address = \"{bystanders}\"\n\
             certificates = [{certificate:?}]\n\
             pool = \"echo\"\n\
             [[pool]]\n\
             name = \"echo\"\n\
             backends = [\"{}\"]\n\
             [engine]\n\
             engines = 1\n\
             max_connections = 64\n",
            echo.address
        );
        let forebay = Forebay::start(directory.path(), &text);
        let bystander = Bystander::start(bystanders);
        Self { forebay, address, backend, bystander, _echo: echo, _directory: directory }
    }

    /// A connection that stands: the client, and the server's end of it.
    pub fn connect(&self) -> (TlsStream, TcpStream) {
        self.connect_with(tls_client::config())
    }

    /// The same with this client configuration.
    pub fn connect_with(&self, config: ClientConfig) -> (TlsStream, TcpStream) {
        let mut client = tls_client::connect(Arc::new(config), self.address, "a.test");
        client.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
        client.sock.set_write_timeout(Some(PATIENCE)).expect("timeout");
        client.write_all(b"hello").expect("write");
        let mut server = self.backend.accept();
        let mut hello = [0; 5];
        server.read_exact(&mut hello).expect("read");
        assert_eq!(&hello, b"hello");
        (client, server)
    }

    /// Waits until exactly one connection has ended for `reason` and none for another,
    /// nothing of it is left, and the bystander has not noticed.
    pub fn ends_by(&mut self, reason: &str) {
        let label = format!("reason=\"{reason}\"");
        let name = "forebay_connections_ended_total";
        self.forebay.wait_until(&format!("one ends by {reason}"), |forebay| {
            forebay.metric(name, &[]) as u64 > 0
        });
        assert_eq!(
            (self.forebay.metric(name, &[&label]), self.forebay.metric(name, &[])),
            (1.0, 1.0),
            "ended by {reason} and in all"
        );
        self.forebay.wait_until("only the bystander is left", |forebay| {
            forebay.metric("forebay_connections", &[]) as u64 == 1
                && forebay.metric("forebay_upstream_connections", &[]) as u64 == 1
        });
        self.bystander.goes_on();
    }

    /// The bystander exchanges still.
    pub fn bystander_goes_on(&self) {
        self.bystander.goes_on();
    }
}

/// Reads a stream to its end, however that comes.
pub fn read_to_end(stream: &mut impl Read) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let end = match stream.read_to_end(&mut bytes) {
        Ok(_) => End::Orderly,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => End::Truncated,
        Err(error) => {
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "no end comes");
            End::Cut(error.to_string())
        }
    };
    (bytes, end)
}

/// Writes until the other side takes no more for the moment, or fails.
pub fn write_until_stuck(stream: &TcpStream) -> io::Result<()> {
    const STUCK_AFTER: u32 = 20;
    stream.set_nonblocking(true)?;
    let mut refused = 0;
    while refused < STUCK_AFTER {
        match (&*stream).write(super::payload::piece(7, 0)) {
            Ok(_) => refused = 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                refused += 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)
}
