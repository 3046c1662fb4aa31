//! curl.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::program::command;

/// A curl that will ask `name` at `address` for `path`, trusts one certificate only, and
/// fails unless it is served; its other arguments are to be added.
pub fn curl(address: SocketAddr, name: &str, trusted: &Path, path: &str) -> Command {
    let (ip, port) = (address.ip(), address.port());
    let ip = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"])
        .arg(trusted)
        .args(["--resolve", &format!("{name}:{port}:{ip}")])
        .arg(format!("https://{name}:{port}{path}"));
    curl
}
