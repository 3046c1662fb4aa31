//! What a backend's log says of one request.

use std::net::{IpAddr, SocketAddr};

/// One line of a backend's log: `client=… connected_to=… name=… http=… path=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The client's address, from the PROXY header.
    pub client: SocketAddr,
    /// The address that the client connected to, from the PROXY header.
    pub connected_to: SocketAddr,
    /// The server name: what the header's AUTHORITY says where the backend can log it,
    /// else the request's own.
    pub name: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub http: String,
}

impl Seen {
    /// Reads the line if it is about `path`.
    pub fn of(path: &str, line: &str) -> Option<Self> {
        if value(line, "path")? != path {
            return None;
        }
        Some(Self {
            client: address(value(line, "client")?)?,
            connected_to: address(value(line, "connected_to")?)?,
            name: value(line, "name")?.to_owned(),
            http: value(line, "http")?.to_owned(),
        })
    }
}

/// The value of `key` in a line of such pairs.
pub fn value<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// Servers print IPv6 addresses without brackets here.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
}
