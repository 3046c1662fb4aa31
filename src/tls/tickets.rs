//! Session tickets under keys that live and die with this process.
//!
//! The sealing is the crypto library's own, through rustls: aws-lc-rs makes RFC 5077
//! section 4 tickets (AES-256-CBC, then HMAC-SHA-256), ring ChaCha20-Poly1305 ones.
//! Keys are random, change every [`ROTATION`], and the previous one still opens, so a
//! ticket is good for at least one rotation and at most two. A ticket longer than any
//! that was made is refused unread. Workers share one read lock, taken for writing once
//! a rotation: in front of a handshake of tens of microseconds it does not show.
//!
//! One producer serves one **security domain**: a set of certificates with one
//! client-authentication policy. Listeners that differ in either must not share one, or
//! a session of one could be resumed at the other (rustls checks the server name, and
//! nothing else).
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{aws_lc_rs, ring};
use rustls::server::ProducesTickets;

use super::CryptoLibrary;

/// How long one key seals tickets; fixed by rustls.
pub const ROTATION: Duration = Duration::from_secs(6 * 60 * 60);

/// The system's random generator gave no key.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a session ticket key: {0}")]
pub struct TicketKeyError(#[from] rustls::Error);

/// A producer of tickets with fresh random keys.
///
/// # Errors
/// The random generator failed.
pub fn per_process(library: CryptoLibrary) -> Result<Arc<dyn ProducesTickets>, TicketKeyError> {
    Ok(match library {
        CryptoLibrary::AwsLc => aws_lc_rs::Ticketer::new()?,
        CryptoLibrary::Ring => ring::Ticketer::new()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_support::LIBRARIES;

    #[test]
    fn a_ticket_opens_where_it_was_sealed_and_nowhere_else() {
        for library in LIBRARIES {
            let (one, other) = (per_process(library).unwrap(), per_process(library).unwrap());
            let ticket = one.encrypt(b"session").unwrap();
            assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
            other.encrypt(b"session").unwrap();
            assert_eq!(other.decrypt(&ticket), None);
        }
    }

    #[test]
    fn a_changed_a_cut_or_an_overlong_ticket_does_not_open() {
        for library in LIBRARIES {
            let tickets = per_process(library).unwrap();
            let ticket = tickets.encrypt(b"session").unwrap();
            for index in 0..ticket.len() {
                let mut changed = ticket.clone();
                changed[index] ^= 1;
                assert_eq!(tickets.decrypt(&changed), None, "byte {index}");
                assert_eq!(tickets.decrypt(&ticket[..index]), None, "cut at {index}");
            }
            assert_eq!(tickets.decrypt(&[0; 100_000]), None);
        }
    }

    #[test]
    fn a_ticket_lives_two_rotations_at_most() {
        for library in LIBRARIES {
            let lifetime = per_process(library).unwrap().lifetime();
            assert_eq!(u64::from(lifetime), 2 * ROTATION.as_secs());
        }
    }
}
