//! Where a stream socket leads: an internet address or a UNIX path.
//!
//! Knows nothing of the rest of the crate; `config` parses it, `upstream` chooses
//! one, `driver` turns it into what the kernel wants.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The far end of a connection, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP over IPv4 or IPv6.
    Inet(SocketAddr),
    /// A UNIX stream socket by path (at most 107 bytes, unix(7)).
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}
