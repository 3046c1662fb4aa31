//! A server that neither accepts nor refuses: its backlog is full, so the kernel drops
//! what comes (tcp(7), listen(2)).

use socket2::{Domain, SockAddr, Socket, Type};

use super::sockets::listen_tcp;

pub struct Unconnectable {
    pub address: String,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Unconnectable {
    pub fn new() -> Self {
        let (listener, address) = listen_tcp(0);
        // A backlog of 0 has room for one; the rest make sure.
        let waiting = (0..4)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
                socket.set_nonblocking(true).expect("nonblocking");
                // In progress, which is an error here.
                let _ = socket.connect(&SockAddr::from(address));
                socket
            })
            .collect();
        Self { address: address.to_string(), _listener: listener, _waiting: waiting }
    }
}
