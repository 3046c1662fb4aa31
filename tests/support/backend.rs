//! A server that the test itself plays, one connection after the other.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::forebay::PATIENCE;

/// A listening server.
pub struct Backend {
    listener: TcpListener,
    /// As it is written in a configuration.
    pub address: String,
}

impl Backend {
    pub fn listen() -> Self {
        Self::listen_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where somebody expects it.
    pub fn listen_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("address").to_string();
        Self { listener, address }
    }

    /// The next connection; reads and writes on it give up some time.
    pub fn accept(&self) -> TcpStream {
        let begin = Instant::now();
        loop {
            if let Some(stream) = self.try_accept() {
                return stream;
            }
            assert!(begin.elapsed() < PATIENCE, "nobody connects to the server");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The next connection, if there is one now.
    pub fn try_accept(&self) -> Option<TcpStream> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Some(stream)
    }
}
