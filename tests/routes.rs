//! Clients that go another way than others of the same listener: to another pool, through
//! to a server that ends TLS itself, or away.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::AlertDescription;
use tempfile::TempDir;

use support::backend::Backend;
use support::certificates::{Key, self_signed};
use support::echo::EchoBackend;
use support::forebay::{Forebay, PATIENCE};
use support::haproxy::Haproxy;
use support::ports::free_address;
use support::proxy_header::parse;
use support::seen::Seen;
use support::sockets::connect_from;
use support::tls_client::{self, TlsStream};

const SMALL: &str = "[engine]\nengines = 1\nmax_connections = 64\n[handshake]\nworkers = 1\n";

/// A listener for `*.a.test` with these routes; a pool for each of `pools`, the first of
/// which is the listener's.
fn text(
    directory: &Path,
    address: SocketAddr,
    routes: &str,
    pools: &[(&str, &str, &str)],
) -> String {
    let certificate = self_signed(directory, "a.pem", Key::EcdsaP256, &["*.a.test", "a.test"]);
    let mut text = format!(
        "{SMALL}[[listener]]\naddress = \"{address}\"\ncertificates = [{certificate:?}]\n\
         alpn = [\"h2\", \"http/1.1\"]\npool = \"{}\"\n{routes}\n",
        pools[0].0
    );
    for (name, backend, more) in pools {
        text += &format!("[[pool]]\nname = \"{name}\"\nbackends = [\"{backend}\"]\n{more}\n");
    }
    text
}

/// Connects and leaves the handshake to the first read or write.
fn connect(address: SocketAddr, name: &str, alpn: &[&str]) -> TlsStream {
    let mut config = tls_client::config();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = tls_client::connect(Arc::new(config), address, name);
    stream.sock.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Says hello, and which of the servers hears it.
fn heard_by(address: SocketAddr, name: &str, alpn: &[&str], servers: &[&Backend]) -> usize {
    let mut client = connect(address, name, alpn);
    client.write_all(b"hello").expect("written");
    let begin = std::time::Instant::now();
    loop {
        let found = servers.iter().position(|server| {
            server.try_accept().is_some_and(|mut stream| {
                let mut words = [0; 5];
                stream.read_exact(&mut words).expect("words");
                words == *b"hello"
            })
        });
        if let Some(found) = found {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "nobody hears of {name}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn names_protocols_and_sources_lead_to_pools_of_their_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let servers = [Backend::listen(), Backend::listen(), Backend::listen(), Backend::listen()];
    let routes = "[[listener.route]]\nsni = \"api.a.test\"\npool = \"api\"\n\
                  [[listener.route]]\nalpn = [\"http/1.1\"]\npool = \"old\"\n\
                  [[listener.route]]\nsource = [\"127.0.0.8\"]\npool = \"near\"\n";
    let pools: Vec<_> = ["web", "api", "old", "near"]
        .into_iter()
        .zip(&servers)
        .map(|(name, server)| (name, server.address.as_str(), ""))
        .collect();
    let address = free_address();
    let _forebay =
        Forebay::start(directory.path(), &text(directory.path(), address, routes, &pools));
    let servers: Vec<&Backend> = servers.iter().collect();
    assert_eq!(heard_by(address, "www.a.test", &["h2"], &servers), 0);
    assert_eq!(heard_by(address, "api.a.test", &["h2"], &servers), 1);
    assert_eq!(heard_by(address, "api.a.test", &["http/1.1"], &servers), 1, "the first decides");
    assert_eq!(heard_by(address, "www.a.test", &["http/1.1"], &servers), 2);
    // What the listener would choose counts, and it prefers h2.
    assert_eq!(heard_by(address, "www.a.test", &["http/1.1", "h2"], &servers), 0);

    let stream = connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 8)), address).expect("connected");
    let mut client = tls_client::over(stream, Arc::new(tls_client::config()), "www.a.test");
    client.write_all(b"hello").expect("written");
    let mut words = [0; 5];
    servers[3].accept().read_exact(&mut words).expect("words");
    assert_eq!(&words, b"hello");
}

#[test]
fn a_client_that_a_route_rejects_is_told_so_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let echo = EchoBackend::start();
    let address = free_address();
    let routes = "[[listener.route]]\nsni = \"old.a.test\"\naction = \"reject\"\n";
    let pools = [("web", &*echo.address.to_string(), "")];
    let mut forebay =
        Forebay::start(directory.path(), &text(directory.path(), address, routes, &pools));
    let mut client = connect(address, "old.a.test", &[]);
    let error = client.conn.complete_io(&mut client.sock).expect_err("it is rejected");
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert_eq!(told, Some(&rustls::Error::AlertReceived(AlertDescription::AccessDenied)));
    let reason = ["reason=\"rejected_by_route\""];
    assert_eq!(forebay.metric("forebay_handshake_failures_total", &reason), 1.0);
    let line = forebay.wait_for_log("rejected_by_route");
    assert!(line.contains("old.a.test"), "{line}");
}

/// A node that passes `inner.a.test` through to one that ends TLS, and tells it for whom.
struct Chain {
    outer: Forebay,
    _inner: Forebay,
    address: SocketAddr,
    inner_certificate: Vec<u8>,
    _directories: [TempDir; 2],
}

impl Chain {
    fn start(backend: &str, backend_protocol: &str) -> Self {
        let directories = [0, 1].map(|_| tempfile::tempdir().expect("a directory"));
        let [outer_directory, inner_directory] = &directories;
        let (address, inner_address) = (free_address(), free_address());
        let certificate =
            self_signed(inner_directory.path(), "inner.pem", Key::Rsa2048, &["inner.a.test"]);
        let inner_text = format!(
            "{SMALL}[[listener]]\naddress = \"{inner_address}\"\ncertificates = [{certificate:?}]\n\
             accept_proxy_from = [\"127.0.0.0/8\"]\nalpn = [\"h2\", \"http/1.1\"]\npool = \"web\"\n\
             [[pool]]\nname = \"web\"\nbackends = [\"{backend}\"]\n{backend_protocol}\n"
        );
        let inner = Forebay::start(inner_directory.path(), &inner_text);
        let routes = "[[listener.route]]\nsni = \"inner.a.test\"\naction = \"passthrough\"\n\
                      pool = \"inner\"\n";
        let inner_address = inner_address.to_string();
        let pools =
            [("web", backend, ""), ("inner", inner_address.as_str(), "proxy_protocol = \"v2\"")];
        let outer_text = text(outer_directory.path(), address, routes, &pools);
        let outer = Forebay::start(outer_directory.path(), &outer_text);
        let pem = std::fs::read(certificate).expect("the certificate");
        let inner_certificate = rustls_pki_types::pem::PemObject::from_pem_slice(&pem)
            .map(|der: rustls_pki_types::CertificateDer<'static>| der.to_vec())
            .expect("a certificate");
        Self { outer, _inner: inner, address, inner_certificate, _directories: directories }
    }
}

#[test]
fn a_stream_that_is_passed_through_ends_at_the_server_behind_which_knows_the_client() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut haproxy = Haproxy::start(directory.path());
    let [endpoint, _] = haproxy.endpoints();
    let chain = Chain::start(&endpoint, "proxy_protocol = \"v2\"");
    let mut client = connect(chain.address, "inner.a.test", &["http/1.1"]);
    let request = "GET /through HTTP/1.1\r\nHost: inner.a.test\r\nConnection: close\r\n\r\n";
    let answer = tls_client::exchange(&mut client, request);
    assert!(answer.ends_with(support::haproxy::ANSWER), "{answer}");
    assert_eq!(&*tls_client::shown(&client), &*chain.inner_certificate);
    let expected = Seen {
        client: client.sock.local_addr().expect("an address"),
        connected_to: chain.address,
        name: "inner.a.test".to_owned(),
        http: "HTTP/1.1".to_owned(),
    };
    assert_eq!(haproxy.seen("/through"), expected);
    assert_eq!(chain.outer.metric("forebay_connections_passed_through_total", &[]), 1.0);
    assert_eq!(chain.outer.metric("forebay_handshakes_total", &[]), 0.0, "no TLS of its own");
}

#[test]
fn megabytes_pass_through_both_ways_unaltered() {
    let echo = EchoBackend::start();
    let chain = Chain::start(&echo.address.to_string(), "");
    let mut client = connect(chain.address, "inner.a.test", &[]);
    let mut sent = 0_u64;
    let mut expected = vec![0_u8; 64 * 1024];
    let mut heard = vec![0_u8; 64 * 1024];
    for round in 0..64_u64 {
        for (place, word) in expected.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(round << 32 | place as u64).to_be_bytes());
        }
        client.write_all(&expected).expect("written");
        sent += expected.len() as u64;
        client.read_exact(&mut heard).expect("heard");
        assert_eq!(heard, expected, "round {round}");
    }
    client.conn.send_close_notify();
    client.flush().expect("the end");
    assert_eq!(client.read(&mut heard).expect("a clean end"), 0);
    assert_eq!(sent, 4 << 20);
}

#[test]
fn a_client_hello_in_many_segments_passes_through_byte_for_byte() {
    let directory = tempfile::tempdir().expect("a directory");
    let (web, inner) = (Backend::listen(), Backend::listen());
    let address = free_address();
    let routes =
        "[[listener.route]]\nsni = \"inner.a.test\"\naction = \"passthrough\"\npool = \"inner\"\n";
    let pools = [
        ("web", web.address.as_str(), ""),
        ("inner", inner.address.as_str(), "proxy_protocol = \"v2\""),
    ];
    let _forebay =
        Forebay::start(directory.path(), &text(directory.path(), address, routes, &pools));
    let mut hello = Vec::new();
    let name = rustls_pki_types::ServerName::try_from("inner.a.test").expect("a name");
    let mut client =
        rustls::ClientConnection::new(Arc::new(tls_client::config()), name).expect("a client");
    client.write_tls(&mut hello).expect("a ClientHello");

    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("nodelay");
    for segment in hello.chunks(97) {
        stream.write_all(segment).expect("sent");
        thread::sleep(Duration::from_millis(1));
    }
    let mut server = inner.accept();
    let mut header = vec![0; 16];
    server.read_exact(&mut header).expect("the fixed part of a header");
    let length = 16 + usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(length, 0);
    server.read_exact(&mut header[16..]).expect("the rest of it");
    let header = parse(&header);
    assert_eq!(header.source, stream.local_addr().ok());
    assert_eq!(header.authority.as_deref(), Some("inner.a.test"));
    assert_eq!(header.tls_version, None, "TLS did not end here");
    let mut heard = vec![0; hello.len()];
    server.read_exact(&mut heard).expect("a ClientHello");
    assert_eq!(heard, hello);
    // The end of the client's stream is the end of the server's, and the other way round.
    stream.shutdown(std::net::Shutdown::Write).expect("shut down");
    assert_eq!(server.read(&mut [0; 1]).expect("an end"), 0);
    server.write_all(b"goodbye").expect("written");
    drop(server);
    let mut rest = String::new();
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_to_string(&mut rest).expect("an end in order");
    assert_eq!(rest, "goodbye");
}

#[test]
fn a_server_that_resets_a_passed_stream_has_it_reset_at_the_client() {
    let directory = tempfile::tempdir().expect("a directory");
    let inner = Backend::listen();
    let address = free_address();
    let routes = "[[listener.route]]\naction = \"passthrough\"\npool = \"inner\"\n";
    let pools = [("inner", inner.address.as_str(), "")];
    let _forebay =
        Forebay::start(directory.path(), &text(directory.path(), address, routes, &pools));
    let mut client = connect(address, "any.a.test", &[]);
    client.conn.write_tls(&mut client.sock).expect("a ClientHello");
    let server = inner.accept();
    server.peek(&mut [0; 1]).expect("bytes");
    support::sockets::reset_on_close(&server);
    drop(server);
    let error = client.sock.read(&mut [0; 16]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reload_changes_where_new_clients_go_and_leaves_the_others_where_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, other) = (Backend::listen(), Backend::listen());
    let address = free_address();
    let pools = [("one", one.address.as_str(), ""), ("other", other.address.as_str(), "")];
    let mut forebay =
        Forebay::start(directory.path(), &text(directory.path(), address, "", &pools));
    let mut client = connect(address, "www.a.test", &[]);
    client.write_all(b"early").expect("written");
    let mut stays = one.accept();

    let routes = "[[listener.route]]\nsni = \"www.a.test\"\npool = \"other\"\n";
    forebay.write_configuration(&text(directory.path(), address, routes, &pools));
    forebay.signal(libc::SIGHUP);
    forebay.wait_for_log("reloaded");
    assert_eq!(heard_by(address, "www.a.test", &[], &[&one, &other]), 1);
    client.write_all(b" bird").expect("written");
    let mut words = [0; 10];
    stays.read_exact(&mut words).expect("words");
    assert_eq!(&words, b"early bird");
}

#[test]
fn the_check_warns_of_a_route_that_nobody_reaches() {
    let directory = tempfile::tempdir().expect("a directory");
    let routes = "[[listener.route]]\nname = \"all\"\nsni = \"*.a.test\"\npool = \"web\"\n\
                  [[listener.route]]\nname = \"api\"\nsni = \"api.a.test\"\npool = \"web\"\n";
    let pools = [("web", "127.0.0.1:9", "")];
    let file = directory.path().join("forebay.toml");
    std::fs::write(&file, text(directory.path(), free_address(), routes, &pools)).expect("written");
    let checked = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["check", "-c"])
        .arg(&file)
        .output()
        .expect("the binary runs");
    let findings = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{findings}");
    assert!(findings.contains("no client reaches \"api\": \"all\" before it"), "{findings}");
}
