//! Free ports on the loopback addresses.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Below `net.ipv4.ip_local_port_range`: a port that the kernel hands out itself may be
/// a client's source port by the time the server under test listens on it.
const PORTS: Range<usize> = 10_240..32_768;

/// An address that nobody listens on just now.
pub fn free_address() -> SocketAddr {
    free_address_of(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A port of `ip` that nobody listens on just now. No two calls in a process get the
/// same, and test processes that run side by side begin at random places.
pub fn free_address_of(ip: IpAddr) -> SocketAddr {
    static NEXT: LazyLock<AtomicUsize> =
        LazyLock::new(|| AtomicUsize::new(RandomState::new().hash_one(()) as usize % PORTS.len()));
    for _ in PORTS {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len();
        let address = SocketAddr::from((ip, port as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free in {PORTS:?}");
}
