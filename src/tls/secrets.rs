//! The traffic secrets of a TLS 1.3 handshake, caught from rustls' key-log hook.
//!
//! A KeyUpdate derives the next keys from them (RFC 8446 section 7.2), so with the
//! secrets at hand nothing of rustls needs to outlive the handshake. The hook has no
//! way to say which connection it speaks of but the thread it is called on: rustls
//! calls it synchronously inside `process_tls_records`.
//!
//! **rustls derives both secrets as it sends the server's Finished**: in the step that
//! answers the ClientHello, not in the one that completes the handshake, which another
//! worker may run. So the worker calls [`take`] after *every* step and keeps what it
//! gets with the handshake.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt;

use rustls::KeyLog;
use zeroize::Zeroize;

/// The longest traffic secret: the output of SHA-384.
pub const TRAFFIC_SECRET_BYTES_MAX: usize = 48;

/// One direction's application traffic secret. Wiped on drop.
pub struct TrafficSecret {
    bytes: [u8; TRAFFIC_SECRET_BYTES_MAX],
    length: usize,
}

impl TrafficSecret {
    /// `None` if it is longer than any hash of TLS 1.3 puts out.
    fn new(secret: &[u8]) -> Option<Self> {
        let mut copy = Self { bytes: [0; TRAFFIC_SECRET_BYTES_MAX], length: secret.len() };
        copy.bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        Some(copy)
    }

    /// The secret: 32 bytes for a suite with SHA-256, 48 for SHA-384.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for TrafficSecret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for TrafficSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TrafficSecret({} bytes)", self.length)
    }
}

/// The first application traffic secrets of a session.
#[derive(Debug)]
pub struct TrafficSecrets {
    /// `client_application_traffic_secret_0`: what the client seals with.
    pub client: TrafficSecret,
    /// `server_application_traffic_secret_0`: what we seal with.
    pub server: TrafficSecret,
}

/// What this thread has caught since the last [`take`].
#[derive(Default)]
struct Caught {
    client: Option<TrafficSecret>,
    server: Option<TrafficSecret>,
}

thread_local! {
    static CAUGHT: RefCell<Caught> = RefCell::default();
}

/// The secrets caught on this thread since the last call; `None` if there were not
/// both. Nothing stays behind.
pub fn take() -> Option<TrafficSecrets> {
    let Caught { client, server } = CAUGHT.take();
    Some(TrafficSecrets { client: client?, server: server? })
}

/// The hook: hands secrets to [`take`] on the same thread.
#[derive(Debug)]
pub struct CaptureSecrets;

impl KeyLog for CaptureSecrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        // Checked here too: rustls logs the TLS 1.2 master secret of a resumption
        // without asking `will_log`.
        CAUGHT.with_borrow_mut(|caught| match label {
            CLIENT => caught.client = TrafficSecret::new(secret),
            SERVER => caught.server = TrafficSecret::new(secret),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT | SERVER)
    }
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_secrets_are_taken_once() {
        CaptureSecrets.log(CLIENT, &[0; 32], &[1; 32]);
        CaptureSecrets.log(SERVER, &[0; 32], &[2; 48]);
        let secrets = take().unwrap();
        assert_eq!(secrets.client.as_bytes(), [1; 32]);
        assert_eq!(secrets.server.as_bytes(), [2; 48]);
        assert!(take().is_none());
    }

    #[test]
    fn half_a_pair_is_not_left_for_the_next_handshake() {
        CaptureSecrets.log(CLIENT, &[0; 32], &[1; 32]);
        assert!(take().is_none());
        CaptureSecrets.log(SERVER, &[0; 32], &[2; 32]);
        assert!(take().is_none());
    }

    #[test]
    fn other_secrets_are_neither_asked_for_nor_kept() {
        for label in ["CLIENT_RANDOM", "EXPORTER_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET"] {
            assert!(!CaptureSecrets.will_log(label));
            CaptureSecrets.log(label, &[0; 32], &[9; 48]);
        }
        assert!(take().is_none());
        assert!(CaptureSecrets.will_log(CLIENT) && CaptureSecrets.will_log(SERVER));
    }

    #[test]
    fn a_secret_of_impossible_length_is_not_caught() {
        CaptureSecrets.log(CLIENT, &[0; 32], &[1; 49]);
        CaptureSecrets.log(SERVER, &[0; 32], &[2; 48]);
        assert!(take().is_none());
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = TrafficSecret::new(&[0xaa; 32]).unwrap();
        assert_eq!(format!("{secret:?}"), "TrafficSecret(32 bytes)");
    }
}
