//! Free ports on the loopback address.

use std::net::{SocketAddr, TcpListener};

/// An address that nobody listens on just now.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address")
}
