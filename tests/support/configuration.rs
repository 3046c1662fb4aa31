//! The plainest configuration that serves: one listener, one pool.

use std::net::SocketAddr;
use std::path::Path;

/// A listener on `address` whose plaintext goes to `backends`; `pool` is more keys of the
/// pool, `rest` more sections.
pub fn configuration(
    address: SocketAddr,
    certificates: &[&Path],
    backends: &[&str],
    pool: &str,
    rest: &str,
) -> String {
    configuration_with(address, certificates, &format!("{backends:?}"), pool, rest)
}

/// The same with backends as they are written in TOML, some of them in tables.
pub fn configuration_with(
    address: SocketAddr,
    certificates: &[&Path],
    backends: &str,
    pool: &str,
    rest: &str,
) -> String {
    format!(
        "[[listener]]\n\
         name = \"main\"\n\
         address = \"{address}\"\n\
         certificates = {certificates:?}\n\
         pool = \"servers\"\n\
         [[pool]]\n\
         name = \"servers\"\n\
         backends = {backends}\n\
         {pool}\n\
         {rest}\n"
    )
}
