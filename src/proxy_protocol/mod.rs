//! The PROXY protocol, versions 1 and 2: who the client is, told in front of its bytes.
//!
//! ```text
//!   balancer in front ──header──▶ decode ─▶ engine ─▶ encode ──header──▶ server behind
//! ```
//!
//! Source: HAProxy's `doc/proxy-protocol.txt`, "the specification" in these files.
//!
//! Sans-I/O: bytes in, facts out, and the other way round. May know: what a handshake
//! negotiated. Must not know: pools, listeners, sockets.

pub mod authentication;
pub mod contents;
pub mod decode;
pub mod encode;
pub mod passed_on;
pub mod template;

pub use contents::Contents;
pub use encode::{
    CertificateFacts, Encoded, HEADER_BYTES_MAX, Header, HeaderTooLarge, ProxyProtocol, encode,
};

/// Section 2.2: what every version 2 header begins with.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;
/// Two addresses and two ports.
const V2_INET_BYTES: usize = 2 * 4 + 2 * 2;
const V2_INET6_BYTES: usize = 2 * 16 + 2 * 2;
/// Two paths.
const V2_UNIX_BYTES: usize = 2 * 108;

/// Type and length in front of each value.
const TLV_BYTES: usize = 3;
const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_NOOP: u8 = 0x04;
pub(crate) const TYPE_UNIQUE_ID: u8 = 0x05;
const TYPE_SSL: u8 = 0x20;
pub(crate) const TYPE_NETNS: u8 = 0x30;
/// Section 2.2.8: types for applications and, behind them, for experiments.
const TYPE_MIN_CUSTOM: u8 = 0xe0;
const TYPE_MAX_EXPERIMENT: u8 = 0xf7;

/// Section 2.2.3: CRC32C (RFC 4960 appendix B) of `header` with zeros in the four bytes
/// at `place`.
fn sum_without(header: &[u8], place: usize) -> u32 {
    let (before, rest) = header.split_at(place);
    let sum = crc32c::crc32c(before);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    crc32c::crc32c_append(sum, &rest[4..])
}
