//! Session tickets that any node of a tier opens: keys from a shared secret and the
//! clock, nothing asked of anybody (RFC 5077, RFC 8446 section 4.6.1).
//!
//! ```text
//!   secret file ──▶ Secret ──epoch──▶ root ──domain──▶ name, key      (control thread)
//!                                                        │ KeySet, put in force
//!                                                        ▼
//!   rustls' session ──▶ name │ salt │ sealed(issued at, session) │ tag     (workers)
//! ```
//!
//! | file | job |
//! |---|---|
//! | `secret` | a secret, fixed or ratcheted, and the keys of an epoch |
//! | `secret_file` | the files secrets come in: forebay's, HAProxy's, nginx' |
//! | `domain` | what sessions may not cross |
//! | `key_set` | the keys of one domain at one time: sealing, look-up, opening |
//! | `key_ring` | the set in force, as rustls asks for it |
//! | `uses` | what became of the tickets offered, for the metrics |
//!
//! What is sealed is rustls' own encoding of a session, so no other TLS library can read
//! it, whatever keys it has. rustls resumes only under the same server name and cipher
//! suite, hence never across versions.
#![forbid(unsafe_code)]

mod domain;
mod key_ring;
mod key_set;
mod secret;
pub mod secret_file;
#[cfg(test)]
mod tests;
pub mod uses;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::server::ProducesTickets;

use super::CryptoLibrary;
pub use domain::DomainId;
pub use key_ring::KeyRing;
pub use key_set::{KeySet, TICKET_BYTES_MAX, sealing};
pub use secret::{EpochTooFar, NoRandomness, RATCHET_STEPS_MAX, Secret, SecretKind};

/// When keys change, and for how long they open. Equal on every node of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long one key seals, in seconds; at least 1. Epochs are counted from
    /// 1970-01-01 UTC.
    pub epoch_seconds: u64,
    /// How long a key still opens after its epoch, in seconds, and how long a ticket
    /// lives; at most an epoch.
    pub overlap_seconds: u64,
}

impl Timing {
    /// What holds without configuration: a new key every 12 hours, tickets that live as
    /// long.
    pub const DEFAULT: Self = Self { epoch_seconds: 12 * 3_600, overlap_seconds: 12 * 3_600 };

    /// The epoch at `now`, in seconds since 1970.
    pub const fn epoch(self, now: u64) -> u64 {
        now / self.epoch_seconds
    }

    /// The first epoch whose key still opens at `now`.
    pub const fn oldest_epoch(self, now: u64) -> u64 {
        now.saturating_sub(self.overlap_seconds) / self.epoch_seconds
    }
}

/// Seconds since 1970 by the system's clock, which Linux does not let anybody set to an
/// earlier time (clock_settime(2)).
pub fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
}

/// A ring of its own, under a random secret that nobody else has; its keys stay as they
/// are. For handshakes that end before a key must.
///
/// # Errors
/// The system's random generator gave no secret.
pub fn per_process(library: CryptoLibrary) -> Result<Arc<dyn ProducesTickets>, NoRandomness> {
    let secret = Secret::random(library)?;
    let (domain, timing, now) = (DomainId::of_names([]), Timing::DEFAULT, unix_seconds());
    let ring = KeyRing::new(library);
    // A fixed secret has the keys of every epoch.
    if let Ok(keys) = KeySet::new(library, &[&secret], &domain, timing, now) {
        ring.put_in_force(keys);
    }
    Ok(Arc::new(ring))
}
