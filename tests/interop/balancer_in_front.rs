//! A real HAProxy in front, which balances TCP and tells by the PROXY protocol whom it
//! speaks for: the server behind must hear of the client, and nothing of the balancer.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::site;
use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::{Forebay, PATIENCE};
use crate::support::haproxy::Haproxy;
use crate::support::ports::{free_address, free_address_of};
use crate::support::program::{Server, command};
use crate::support::seen::Seen;
use crate::support::sockets::connect_from;
use crate::support::tls_client::{self, TlsStream};

const NAME: &str = "shop.example";

/// Where the balancer's connections come from.
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
/// Where clients come from.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
const OTHER_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));

/// HAProxy ──PROXY──▶ forebay ──PROXY v2──▶ HAProxy, which logs.
struct Tier {
    /// Where the balancer takes connections, by the version of the header it sends.
    entries: Vec<(&'static str, SocketAddr)>,
    _balancer: Server,
    forebay: Forebay,
    /// Where forebay takes them.
    address: SocketAddr,
    backend: Haproxy,
    _directory: TempDir,
}

impl Tier {
    fn start(more: &str) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &[NAME]);
        let backend = Haproxy::start(directory.path());
        let address = free_address_of(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
        let [endpoint, _] = backend.endpoints();
        let text = site::SMALL.to_owned()
            + more
            + &site::listener(
                address,
                &[&certificate],
                "web",
                &format!("accept_proxy_from = [\"{BALANCER}\"]"),
            )
            + &site::pool("web", &endpoint, "v2")
            + "proxy_pass_tlvs = [\"unique_id\"]\n";
        let forebay = Forebay::start(directory.path(), &text);
        let entries = vec![
            ("send-proxy", free_address()),
            ("send-proxy-v2", free_address()),
            ("send-proxy-v2 proxy-v2-options crc32c,unique-id", free_address()),
        ];
        let balancer = balancer(directory.path(), &entries, address);
        Self { entries, _balancer: balancer, forebay, address, backend, _directory: directory }
    }
}

/// Starts a balancer with a way to forebay for each version, which checks its health.
fn balancer(directory: &Path, entries: &[(&str, SocketAddr)], forebay: SocketAddr) -> Server {
    let mut text = "global\n log stdout format raw local0\n\
                    defaults\n mode tcp\n log global\n timeout connect 10s\n\
                    \x20timeout client 60s\n timeout server 60s\n\
                    \x20unique-id-format %ci-%cp\n"
        .to_owned();
    for (index, (option, entry)) in entries.iter().enumerate() {
        let _ = write!(
            text,
            "listen entry-{index}\n bind {entry}\n\
             \x20server forebay {forebay} source {BALANCER} {option} check inter 100ms\n"
        );
    }
    let file: PathBuf = directory.join("balancer.cfg");
    fs::write(&file, text).expect("write");
    let mut haproxy = command("haproxy");
    haproxy.arg("-db").arg("-f").arg(file);
    Server::start(haproxy, entries[0].1)
}

/// A client from `source`, by way of `entry`.
fn connect(source: IpAddr, entry: SocketAddr) -> TlsStream {
    let stream = connect_from(source, entry).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut config = tls_client::config();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls_client::over(stream, Arc::new(config), NAME)
}

#[test]
fn the_server_behind_hears_of_the_client_and_not_of_the_balancer() {
    let mut tier = Tier::start("");
    for (index, (option, entry)) in tier.entries.clone().into_iter().enumerate() {
        let path = format!("/by-entry-{index}");
        let mut client = connect(CLIENT, entry);
        tls_client::exchange(&mut client, &site::request(&path, NAME));
        let expected = Seen {
            client: client.sock.local_addr().expect("an address"),
            connected_to: entry,
            name: NAME.to_owned(),
            http: "HTTP/1.1".to_owned(),
        };
        assert_eq!(tier.backend.seen(&path), expected, "{option}");
    }
}

#[test]
fn the_balancers_name_for_the_connection_is_what_the_server_behind_knows() {
    let mut tier = Tier::start("");
    let (_, entry) = tier.entries[2];
    let mut client = connect(CLIENT, entry);
    tls_client::exchange(&mut client, &site::request("/named", NAME));
    let port = client.sock.local_addr().expect("an address").port();
    assert_eq!(tier.backend.unique_id("/named"), format!("{CLIENT}-{port}"));
}

#[test]
fn a_client_that_comes_by_itself_is_served_as_itself() {
    let mut tier = Tier::start("");
    let mut client = connect(CLIENT, tier.address);
    tls_client::exchange(&mut client, &site::request("/direct", NAME));
    let seen = tier.backend.seen("/direct");
    assert_eq!(seen.client, client.sock.local_addr().expect("an address"));
    assert_eq!(seen.connected_to, tier.address);
}

#[test]
fn a_balancers_health_checks_are_no_failures() {
    let mut tier = Tier::start("");
    tier.forebay.wait_until("it has been checked", |forebay| {
        forebay.metric("forebay_proxy_headers_received_total", &[]) > 5.0
    });
    assert_eq!(tier.forebay.metric("forebay_handshake_failures_total", &[]), 0.0);
    let healthy = tier.entries.iter().all(|(_, entry)| {
        let mut client = connect(CLIENT, *entry);
        !tls_client::exchange(&mut client, &site::request("/", NAME)).is_empty()
    });
    assert!(healthy);
}

#[test]
fn from_a_balancer_a_header_must_come() {
    let mut tier = Tier::start("");
    let mut stream = connect_from(BALANCER, tier.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(&[22, 3, 1, 2, 0]).expect("sent");
    assert!(is_ended(&mut stream));
    let reason = ["reason=\"proxy_header\""];
    assert_eq!(tier.forebay.metric("forebay_handshake_failures_total", &reason), 1.0);
    tier.forebay.wait_for_log("no PROXY protocol header");
}

/// Whether the other side has ended the connection, in whatever way.
fn is_ended(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn from_others_no_header_is_taken() {
    let tier = Tier::start("");
    let mut stream = connect_from(CLIENT, tier.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.9 54321 443\r\n").expect("sent");
    assert!(is_ended(&mut stream));
    let not_tls = ["reason=\"not_tls\""];
    assert_eq!(tier.forebay.metric("forebay_handshake_failures_total", &not_tls), 1.0);
}

#[test]
fn limits_of_a_source_are_held_by_the_client_behind_the_balancer() {
    let tier = Tier::start("[limits]\nsource_connections = 1\n");
    let (_, entry) = tier.entries[1];
    // The balancer has two connections, each client one.
    let mut clients = [connect(CLIENT, entry), connect(OTHER_CLIENT, entry)];
    for client in &mut clients {
        client.conn.complete_io(&mut client.sock).expect("a handshake");
    }
    let mut second = connect(CLIENT, entry);
    second.conn.complete_io(&mut second.sock).expect_err("one is all it may have");
    let cause = ["cause=\"source_connections\""];
    assert_eq!(tier.forebay.metric("forebay_connections_shed_total", &cause), 1.0);
}
