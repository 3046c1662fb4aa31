//! Free ports on the loopback address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// An address that nobody listens on just now.
pub fn free_address() -> SocketAddr {
    free_address_of(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A port of `ip` that nobody listens on just now.
pub fn free_address_of(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("bind");
    listener.local_addr().expect("address")
}
