//! TLS without I/O: providers, certificates, ClientHello, record layer.
//!
//! Bytes and states in, bytes and states out. May know: rustls, ring, aws-lc-rs,
//! X.509. Must not know: sockets, rings, threads, the engine. `certificates` alone reads
//! files, at start and on reload.

pub mod aead;
pub mod certificate_compression;
pub mod certificates;
pub mod client_auth;
pub mod client_hello;
pub mod destination;
pub mod key_schedule;
pub mod names;
pub mod policy;
pub mod provider;
pub mod record;
pub mod secrets;
pub mod self_signed;
pub mod server_name;
pub mod signed_with;
pub mod tickets;
pub mod to_servers;
pub mod unverified;

pub(crate) mod digits;
mod refusal;
#[cfg(test)]
pub(crate) mod test_support;

use std::fmt;

pub use refusal::Refusal;

/// The protocol versions that forebay speaks (RFC 5246, RFC 8446).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// TLS 1.2, RFC 5246.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // OpenSSL's spelling, which is what PROXY protocol receivers expect.
        formatter.write_str(match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        })
    }
}

/// Which library does the cryptography. Both are built in; configuration chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CryptoLibrary {
    /// aws-lc-rs: the default; less CPU per handshake, X25519MLKEM768.
    #[default]
    AwsLc,
    /// ring: no C build, no post-quantum key exchange.
    Ring,
}

impl fmt::Display for CryptoLibrary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::AwsLc => "aws-lc-rs",
            Self::Ring => "ring",
        })
    }
}
