//! Listening sockets: one for each engine and address, by SO_REUSEPORT.
//!
//! The kernel spreads connections over the engines' sockets by a hash of the
//! addresses, or gives each to the engine on the CPU that received it. Options set here are inherited by every accepted socket (tcp(7)), which
//! saves the engine system calls for each connection.

#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// One address of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Listening<'a> {
    /// The listener's name, for errors.
    pub name: &'a str,
    /// The address. `[::]` takes IPv4 as well; such clients then have IPv4-mapped
    /// addresses (RFC 4291 section 2.5.5.2).
    pub address: SocketAddr,
    /// Connections that may wait to be accepted; the kernel lowers it to
    /// `net.core.somaxconn`.
    pub backlog: i32,
}

/// After this long without a byte the kernel probes whether the client is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Bytes sent and not acknowledged for this long end the connection, as do unanswered
/// probes (TCP_USER_TIMEOUT, tcp(7)); without it a vanished client keeps its buffers
/// for 15 minutes of retransmissions.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {name:?}: cannot listen on {address}: {source}{}", advice(source))]
pub struct ListenError {
    name: String,
    address: SocketAddr,
    source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    // EAFNOSUPPORT has no kind of its own.
    if error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        return "; this machine has no IPv6: write 0.0.0.0 instead of [::]";
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE \
             (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE) \
             or a lower net.ipv4.ip_unprivileged_port_start"
        }
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it first (ss -ltnp shows which)"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has that address (yet): \
             net.ipv4.ip_nonlocal_bind=1 allows to listen before it comes"
        }
        _ => "",
    }
}

/// The sockets of every listening address.
#[derive(Debug)]
pub struct Listeners {
    /// For each engine, a socket for each address, in the order asked for.
    pub of_engines: Vec<Vec<OwnedFd>>,
    /// The addresses, which differ from those asked for where the port was 0.
    pub addresses: Vec<SocketAddr>,
}

/// Listens on every address, with a socket for each of `engines`.
///
/// # Errors
/// An address cannot be listened on, or another process listens on it already. The
/// latter is checked because SO_REUSEPORT would otherwise share the port silently with
/// a forgotten process of the same user.
pub fn listen(listening: &[Listening<'_>], engines: usize) -> Result<Listeners, ListenError> {
    let failed = |on: &Listening<'_>, source| ListenError {
        name: on.name.to_owned(),
        address: on.address,
        source,
    };
    // All of them before the first one listens: our own addresses may overlap (one
    // interface beside the wildcard).
    for on in listening {
        bound(on.address, Sharing::Exclusive).map_err(|source| failed(on, source))?;
    }
    let mut listeners =
        Listeners { of_engines: (0..engines).map(|_| Vec::new()).collect(), addresses: Vec::new() };
    for on in listening {
        let mut address = on.address;
        for sockets in &mut listeners.of_engines {
            let mut open = || {
                let socket = bound(address, Sharing::AmongEngines)?;
                // The first one settles the port for the others.
                address = socket.local_addr()?.as_socket().unwrap_or(address);
                socket.listen(on.backlog)?;
                Ok(OwnedFd::from(socket))
            };
            sockets.push(open().map_err(|source| failed(on, source))?);
        }
        listeners.addresses.push(address);
    }
    Ok(listeners)
}

/// Has the kernel give a connection to the engine on the CPU that received its SYN:
/// `engine_cpus` are the engines' CPUs, in their order.
///
/// By SO_INCOMING_CPU (socket(7)) on each socket, which a group of SO_REUSEPORT heeds since
/// Linux 6.2 and 6.1.2. From the socket that the hash chose, the kernel goes on to the
/// first one of that CPU; if none is, the one that the hash chose has it. So it does not
/// matter where SYNs arrive that have no engine, whether engines share a CPU, and which
/// sockets are closed first. A program that computes the socket's place in the group
/// (SO_ATTACH_REUSEPORT_CBPF) would have to know each of these: closing a socket moves
/// another one into its place.
///
/// # Errors
/// The kernel refused; connections are then spread by hash.
pub fn steer_by_cpu(listeners: &Listeners, engine_cpus: &[usize]) -> io::Result<()> {
    for (sockets, cpu) in listeners.of_engines.iter().zip(engine_cpus) {
        for socket in sockets {
            SockRef::from(socket).set_cpu_affinity(*cpu)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    AmongEngines,
}

/// A socket with its options, bound. It stays in blocking mode: io_uring answers
/// EAGAIN instead of waiting on a non-blocking listener.
fn bound(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process in TIME_WAIT must not keep the address.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::AmongEngines {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // Said either way: net.ipv6.bindv6only must not decide it.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::cpus;
    use std::net::{TcpListener, TcpStream};

    fn on(address: SocketAddr) -> Listening<'static> {
        Listening { name: "main", address, backlog: 64 }
    }

    fn loopback() -> Listening<'static> {
        on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    #[test]
    fn every_engine_gets_a_socket_for_each_address() {
        let listeners = listen(&[loopback(), loopback()], 3).expect("sockets");
        assert_eq!(listeners.of_engines.len(), 3);
        assert_ne!(listeners.addresses[0].port(), 0);
        assert_ne!(listeners.addresses[0], listeners.addresses[1]);
        for sockets in listeners.of_engines {
            for (socket, address) in sockets.into_iter().zip(&listeners.addresses) {
                let listener = TcpListener::from(socket);
                assert_eq!(listener.local_addr().expect("an address"), *address);
            }
        }
    }

    #[test]
    fn the_kernel_spreads_connections_over_the_engines() {
        let listeners = listen(&[loopback()], 2).expect("sockets");
        let address = listeners.addresses[0];
        let clients: Vec<_> =
            (0..64).map(|_| TcpStream::connect(address).expect("connected")).collect();
        let accepted = listeners.of_engines.into_iter().flatten().map(|socket| {
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(true).expect("non-blocking");
            std::iter::from_fn(|| listener.accept().ok()).count()
        });
        let accepted: Vec<usize> = accepted.collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
    }

    #[test]
    fn steered_connections_go_to_the_engine_on_their_cpu_and_any_others_by_hash() {
        // That one of four sockets gets none of them by hash happens once in 10¹⁵ runs.
        const CLIENTS: usize = 128;
        let mut cpus = cpus::allowed();
        cpus.truncate(2);
        // Two engines on each CPU but the last, which has none: a stranger's takes its turn.
        let (stranger, of_engines) = cpus.split_last().expect("a CPU");
        let stranger_cpu = stranger + 1;
        let engine_cpus: Vec<usize> = of_engines
            .iter()
            .flat_map(|cpu| [*cpu, *cpu])
            .chain([stranger_cpu, stranger_cpu])
            .collect();
        let backlog = Listening { backlog: 1024, ..loopback() };
        let listeners = listen(&[backlog], engine_cpus.len()).expect("sockets");
        steer_by_cpu(&listeners, &engine_cpus).expect("SO_INCOMING_CPU");
        let address = listeners.addresses[0];
        let sockets: Vec<TcpListener> =
            listeners.of_engines.into_iter().flatten().map(TcpListener::from).collect();
        for cpu in &cpus {
            // A packet on loopback is received by the CPU that sent it.
            let clients = std::thread::spawn({
                let cpu = *cpu;
                move || {
                    assert!(cpus::pin_current_thread(cpu));
                    let connect = |_| TcpStream::connect(address).expect("connected");
                    (0..CLIENTS).map(connect).collect::<Vec<_>>()
                }
            });
            let clients = clients.join().expect("the clients' thread");
            let accepted: Vec<usize> = sockets
                .iter()
                .map(|listener| {
                    listener.set_nonblocking(true).expect("non-blocking");
                    std::iter::from_fn(|| listener.accept().ok()).count()
                })
                .collect();
            assert_eq!(accepted.iter().sum::<usize>(), clients.len());
            for (engine_cpu, count) in engine_cpus.iter().zip(&accepted) {
                let expected = cpu == stranger || engine_cpu == cpu;
                assert_eq!(*count > 0, expected, "CPU {cpu}: {accepted:?} on {engine_cpus:?}");
            }
        }
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let mut listeners = listen(&[loopback()], 1).expect("sockets");
        let _client = TcpStream::connect(listeners.addresses[0]).expect("connected");
        let listener = TcpListener::from(listeners.of_engines[0].remove(0));
        let (accepted, _) = listener.accept().expect("accepted");
        let accepted = Socket::from(accepted);
        assert!(accepted.tcp_nodelay().expect("an option"));
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_user_timeout().expect("an option"), Some(USER_TIMEOUT));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), KEEPALIVE_IDLE);
    }

    #[test]
    fn the_wildcard_of_ipv6_takes_ipv4_too() {
        let six = on("[::]:0".parse().expect("an address"));
        let Ok(mut listeners) = listen(&[six], 1) else {
            return; // This machine has no IPv6.
        };
        let port = listeners.addresses[0].port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        let listener = TcpListener::from(listeners.of_engines[0].remove(0));
        let (_, peer) = listener.accept().expect("accepted");
        assert_eq!(peer.ip().to_canonical(), client.local_addr().expect("an address").ip());
    }

    #[test]
    fn one_address_and_the_wildcard_can_have_the_same_port() {
        let port = {
            let held = listen(&[loopback()], 1).expect("a free port");
            held.addresses[0].port()
        };
        let one = on(SocketAddr::from(([127, 0, 0, 1], port)));
        let all = on(SocketAddr::from(([0, 0, 0, 0], port)));
        let listeners = listen(&[one, all], 1).expect("both");
        assert_eq!(listeners.addresses, [one.address, all.address]);
    }

    #[test]
    fn a_port_that_another_process_would_share_is_refused_by_name() {
        let held = listen(&[loopback()], 1).expect("sockets");
        let address = held.addresses[0];
        let again = Listening { name: "shop", address, backlog: 64 };
        let text = listen(&[again], 1).expect_err("taken").to_string();
        assert!(text.contains("listener \"shop\""), "{text}");
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("another process listens there"), "{text}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_advice() {
        let elsewhere = on("192.0.2.1:0".parse().expect("an address"));
        let text = listen(&[elsewhere], 1).expect_err("not ours").to_string();
        assert!(text.contains("192.0.2.1") && text.contains("ip_nonlocal_bind"), "{text}");
    }

    #[test]
    fn a_port_without_permission_says_what_to_do() {
        let text = ListenError {
            name: "main".to_owned(),
            address: "0.0.0.0:443".parse().expect("an address"),
            source: io::Error::from(io::ErrorKind::PermissionDenied),
        }
        .to_string();
        assert!(text.contains("CAP_NET_BIND_SERVICE"), "{text}");
    }
}
