//! The configurations of these tests, put together from parts, and the requests.

use std::net::SocketAddr;
use std::path::Path;

/// One engine and one worker: what is tested here does not depend on their number.
pub(crate) const SMALL: &str =
    "[engine]\nengines = 1\nmax_connections = 256\n[handshake]\nworkers = 1\n";

/// `[tls]` with this provider.
pub(crate) fn provider(name: &str) -> String {
    format!("[tls]\nprovider = \"{name}\"\n")
}

/// A listener; `more` is keys of its own.
pub(crate) fn listener(
    address: SocketAddr,
    certificates: &[&Path],
    pool: &str,
    more: &str,
) -> String {
    format!(
        "[[listener]]\naddress = \"{address}\"\ncertificates = {certificates:?}\n\
         pool = \"{pool}\"\n{more}\n"
    )
}

/// A pool of one backend.
pub(crate) fn pool(name: &str, backend: &str, proxy_protocol: &str) -> String {
    format!(
        "[[pool]]\nname = \"{name}\"\nbackends = [\"{backend}\"]\n\
         proxy_protocol = \"{proxy_protocol}\"\n"
    )
}

/// An HTTP/1.1 request after which the server closes.
pub(crate) fn request(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}
