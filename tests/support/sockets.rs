//! Sockets with options that the standard library does not offer.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// Listens on a free port of the loopback address.
pub fn listen_tcp(backlog: i32) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).expect("bind");
    socket.listen(backlog).expect("listen");
    let address = socket.local_addr().expect("address").as_socket().expect("an IP address");
    (socket, address)
}

/// Listens on a UNIX socket.
pub fn listen_unix(path: &Path) -> Socket {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
    socket.bind(&SockAddr::unix(path).expect("a path")).expect("bind");
    socket.listen(4_096).expect("listen");
    socket
}

/// Connects from an address of the test's choosing.
pub fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if source.is_ipv6() {
        // An address that is routed here, but on no interface (ipv6(7)).
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
    socket.connect(&SockAddr::from(address))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes the coming close a reset (socket(7), SO_LINGER).
pub fn reset_on_close(socket: &impl AsFd) {
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("linger");
}

/// Raises the soft limit on descriptors as far as the process may.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("setrlimit");
}
