//! Where a stream socket leads, an internet address or a UNIX path, and where it comes from.
//!
//! Knows nothing of the rest of the crate; `config` parses it, `upstream` chooses
//! one, `driver` turns it into what the kernel wants.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The far end of a connection, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP over IPv4 or IPv6.
    Inet(SocketAddr),
    /// A UNIX stream socket by path, at most [`Endpoint::UNIX_PATH_BYTES_MAX`] long.
    Unix(PathBuf),
}

impl Endpoint {
    /// The longest path of a UNIX socket: `sun_path` has 108 bytes, the last of them
    /// zero (unix(7)).
    pub const UNIX_PATH_BYTES_MAX: usize = 107;
}

/// The near end of a connection, where that is not for the kernel to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address; its port is for the kernel to choose.
    pub address: IpAddr,
    /// It need not be one of this machine's: IP_TRANSPARENT (ip(7)).
    pub is_foreign: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}
