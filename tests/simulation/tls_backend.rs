//! A backend's TLS, if it has any: rustls as anybody would use it, behind the PROXY header.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use forebay::driver::simulator::Line;
use rustls::{ServerConfig, ServerConnection};

use crate::conversation::Ending;

pub(crate) struct TlsBackend {
    connection: ServerConnection,
    /// close_notify is among what is to be written.
    end_queued: bool,
}

impl TlsBackend {
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Self {
        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
        Self { connection, end_queued: false }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Opens what came; what was said in it goes to `heard`. How the stream ended, if it did.
    pub(crate) fn open(
        &mut self,
        mut bytes: &[u8],
        mut heard: impl FnMut(&[u8]),
    ) -> Option<Ending> {
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).unwrap();
            if let Err(error) = self.connection.process_new_packets() {
                return Some(Ending::Broken(error.to_string()));
            }
            let mut chunk = [0; 16 * 1024];
            loop {
                match self.connection.reader().read(&mut chunk) {
                    Ok(0) => return Some(Ending::Clean),
                    Ok(count) => heard(&chunk[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return Some(Ending::Truncated),
                }
            }
        }
        None
    }

    /// Writes what is sealed; `Ok(false)`: there is more than the line takes now.
    pub(crate) fn flush(&mut self, line: &mut Line<'_>) -> std::io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(line) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Seals what is said.
    pub(crate) fn say(&mut self, words: &[u8]) -> usize {
        self.connection.writer().write(words).unwrap()
    }

    /// Seals close_notify, once; `true` if that was done before.
    pub(crate) fn end(&mut self) -> bool {
        let queued = std::mem::replace(&mut self.end_queued, true);
        if !queued {
            self.connection.send_close_notify();
        }
        queued
    }
}
