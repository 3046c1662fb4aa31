//! Every limit of the record layer, with its reason.

use crate::tls::aead::{Algorithm, TAG_BYTES};

/// Bytes of a record header: type, version, length (RFC 8446 section 5.1).
pub const HEADER_BYTES: usize = 5;

/// Bytes of the part of an AES-GCM nonce that travels in each TLS 1.2 record (RFC 5288
/// section 3).
pub(super) const EXPLICIT_NONCE_BYTES: usize = 8;

/// Bytes of the content type that ends the plaintext of TLS 1.3 (RFC 8446 section 5.2).
pub(super) const INNER_TYPE_BYTES: usize = 1;

/// Most bytes in front of a record's plaintext, over all suites: the headroom to leave.
pub const HEADER_BYTES_MAX: usize = HEADER_BYTES + EXPLICIT_NONCE_BYTES;

/// Most bytes behind a record's plaintext, over all suites: the tailroom to leave.
pub const TRAILER_BYTES_MAX: usize = INNER_TYPE_BYTES + TAG_BYTES;

/// Most bytes that a record carries: 2^14 (RFC 8446 section 5.1, RFC 5246 section 6.2.1).
pub const PLAINTEXT_BYTES_MAX: usize = 1 << 14;

/// Most bytes that may follow a record header: 2^14 + 256 (RFC 8446 section 5.2).
///
/// TLS 1.2 allows 2^14 + 2,048 (RFC 5246 section 6.2.3), for suites with long MACs, block
/// padding and compression. Ours add 24 bytes at most, so whatever is longer than this
/// would open to more than [`PLAINTEXT_BYTES_MAX`] and be refused with the same alert:
/// refusing it by its header keeps one bound on the receive buffer for both versions.
pub const CIPHERTEXT_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 256;

/// Most bytes of a whole record: what a receive buffer must hold.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + CIPHERTEXT_BYTES_MAX;

/// Bytes of the longest alert or KeyUpdate record: an alert in TLS 1.2 AES-GCM.
pub const CONTROL_RECORD_BYTES_MAX: usize = HEADER_BYTES_MAX + 2 + TAG_BYTES;

/// Records that one AES-GCM key may seal: 2^24.
///
/// RFC 8446 section 5.5 allows 2^24.5 full-size records for a distinguishing advantage of
/// 2^-57. Short records count as full ones here, which errs on the safe side.
/// ChaCha20-Poly1305 has no such limit: its sequence number ends first (same section).
pub const AES_GCM_RECORDS_MAX: u64 = 1 << 24;

/// Records of one key after which a TLS 1.3 sealer asks for a KeyUpdate: 2^22.
///
/// A quarter of [`AES_GCM_RECORDS_MAX`], so that an engine which is slow to follow loses
/// nothing; at 64 GiB of full records per update, its cost is not measurable.
pub const KEY_UPDATE_AFTER_RECORDS: u64 = 1 << 22;

/// The last records of a key, kept for alerts and KeyUpdate: data may not use them.
pub const CONTROL_RECORDS_RESERVED: u64 = 64;

/// Empty records in a row that a peer may send.
///
/// They are legal padding against traffic analysis (RFC 8446 section 5.1) but cost us
/// work and yield nothing. 32, as in BoringSSL and rustls.
pub const EMPTY_RECORDS_MAX: u8 = 32;

/// KeyUpdates that a peer may send without a byte of application data in between.
///
/// Each costs a few key derivations, and an answer if it asks for one. 32, as in
/// BoringSSL and rustls; no peer needs two.
pub const KEY_UPDATES_MAX: u8 = 32;

/// Warning alerts that a peer may send without a byte of application data in between.
///
/// 4, as in BoringSSL and rustls: a closing TLS 1.3 peer sends one `user_canceled`.
pub const WARNING_ALERTS_MAX: u8 = 4;

/// Session tickets of a server without application data between: servers send two to four.
pub const SESSION_TICKETS_MAX: u8 = 16;

/// The longest NewSessionTicket (RFC 8446 section 4.6.1): lifetime and age, a nonce, a
/// ticket and extensions of the greatest lengths.
pub const SESSION_TICKET_BYTES_MAX: u32 = 4 + 4 + 256 + 2 + 0xffff + 2 + 0xfffe;

/// TLS 1.2 renegotiations that a connection refuses politely before it ends.
///
/// 1, as in rustls: a client that was told `no_renegotiation` knows.
pub const RENEGOTIATIONS_MAX: u8 = 1;

/// Records that `algorithm` may seal with one key.
pub(super) const fn records_max(algorithm: Algorithm) -> u64 {
    if algorithm.is_aes_gcm() { AES_GCM_RECORDS_MAX } else { u64::MAX }
}

/// Records of one key after which it should be updated.
pub(super) const fn key_update_after(algorithm: Algorithm) -> u64 {
    if algorithm.is_aes_gcm() { KEY_UPDATE_AFTER_RECORDS } else { u64::MAX / 4 }
}

const _: () = {
    assert!(KEY_UPDATE_AFTER_RECORDS < AES_GCM_RECORDS_MAX - CONTROL_RECORDS_RESERVED);
    // The length field of a header takes the longest record that we seal and accept.
    assert!(CIPHERTEXT_BYTES_MAX <= u16::MAX as usize);
    assert!(EXPLICIT_NONCE_BYTES + PLAINTEXT_BYTES_MAX + TAG_BYTES <= CIPHERTEXT_BYTES_MAX);
};
