//! The record layer after the handshake: open and seal in place.
//!
//! ```text
//!   ciphertext ──▶ Opener::open ──▶ plaintext, where it lay      (one record a call)
//!   plaintext with headroom ──▶ Sealer::seal_run ──▶ ciphertext  (a run of records)
//!
//!   TLS 1.3            ┌────────┬───────────────────┬──────┬─────┐
//!   RFC 8446 5.2       │ header │ content           │ type │ tag │
//!                      └────────┴───────────────────┴──────┴─────┘
//!                        5        up to 16,384        1      16
//!   TLS 1.2 AES-GCM    ┌────────┬───────┬───────────────────┬─────┐
//!   RFC 5288 3         │ header │ nonce │ content           │ tag │
//!                      └────────┴───────┴───────────────────┴─────┘
//!                        5        8       up to 16,384        16
//!   TLS 1.2 ChaCha20-Poly1305 (RFC 7905): as AES-GCM, without the nonce.
//! ```
//!
//! A connection holds one [`Opener`] and one [`Sealer`]. Each is made of
//! [`DirectionKeys`], which are plain data, and turns back into them with `export`, so
//! that a connection can be handed to another process.
//!
//! No allocation and no copy per record. May know: keys, records, limits. Must not know:
//! handshakes, sockets, buffers of the engine, the clock (the sizer is told the time).
#![forbid(unsafe_code)]

mod alert;
mod direction;
mod keys;
mod limits;
mod opener;
mod sealer;
mod sizer;
#[cfg(test)]
mod tests;

pub use rustls::AlertDescription;

pub use self::alert::{LEGACY_RECORD_VERSION, plaintext_alert};
pub use self::keys::{DirectionKeys, KeysError};
pub use self::limits::{
    AES_GCM_RECORDS_MAX, CIPHERTEXT_BYTES_MAX, CONTROL_RECORD_BYTES_MAX, CONTROL_RECORDS_RESERVED,
    EMPTY_RECORDS_MAX, HEADER_BYTES, HEADER_BYTES_MAX, KEY_UPDATE_AFTER_RECORDS, KEY_UPDATES_MAX,
    PLAINTEXT_BYTES_MAX, RECORD_BYTES_MAX, RENEGOTIATIONS_MAX, SESSION_TICKET_BYTES_MAX,
    SESSION_TICKETS_MAX, TRAILER_BYTES_MAX, WARNING_ALERTS_MAX,
};
pub use self::opener::{Opened, Opener, RecordError};
pub use self::sealer::{SealError, Sealer};
pub use self::sizer::{
    RecordSizer, SEGMENT_PLAINTEXT_BYTES, SMALL_BYTES_DEFAULT, SMALL_STEP_IDLE_DEFAULT,
    THREE_SEGMENTS_PLAINTEXT_BYTES,
};
pub use super::aead::Algorithm;
pub use super::key_schedule::{Hash, IvBytes, KeyBytes, TrafficSecret};

/// The content types of records (RFC 8446 section 5.1, RFC 5246 section 6.2.1).
mod content_type {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}

/// The types of handshake messages that mean something after the handshake (RFC 8446
/// section 4, RFC 5246 section 7.4).
mod handshake_type {
    pub(super) const HELLO_REQUEST: u8 = 0;
    pub(super) const CLIENT_HELLO: u8 = 1;
    pub(super) const NEW_SESSION_TICKET: u8 = 4;
    pub(super) const KEY_UPDATE: u8 = 24;
}
