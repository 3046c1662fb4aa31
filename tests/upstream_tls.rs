//! TLS towards servers: bytes arrive whole, nobody is spoken to who is not the server, and
//! ends and cuts come out on the other side as what they were.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, ALL_CIPHER_SUITES};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use tempfile::TempDir;

use support::authority::Authority;
use support::exchange::End;
use support::forebay::PATIENCE;
use support::payload;
use support::ports::free_address;
use support::program::{Server, command};
use support::proxy_header;
use support::scene::{Scene, read_to_end};
use support::tls_client::{self, TlsStream};

/// What the servers' certificates are for.
const NAME: &str = "app.test";

type ServerStream = StreamOwned<ServerConnection, TcpStream>;

/// An authority, and what it has issued to the servers.
struct Site {
    authority: Authority,
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        Self { authority: Authority::new(), directory: tempfile::tempdir().expect("directory") }
    }

    fn at(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A chain and key for `name`.
    fn issue(&self, file: &str, name: &str) -> PathBuf {
        self.issue_to(&self.at(file), name)
    }

    /// A chain and key in a file of another site.
    fn issue_to(&self, file: &Path, name: &str) -> PathBuf {
        self.authority.issue(file, &[name]);
        file.to_owned()
    }

    /// `[pool.tls]` that trusts the authority, with more keys.
    fn pool_tls(&self, keys: &str) -> String {
        let ca = self.authority.certificate();
        format!("[pool.tls]\nca = {ca:?}\nserver_name = \"{NAME}\"\n{keys}\n")
    }

    /// A scene whose own server the pool speaks TLS with.
    fn scene(&self, keys: &str) -> Scene {
        Scene::with_pool(&self.pool_tls(keys), "")
    }

    /// A server with a certificate for its name.
    fn server(&self) -> ServerConfig {
        server_config(&self.issue("app.pem", NAME), ALL_CIPHER_SUITES)
    }
}

fn server_config(pem: &Path, suites: &[SupportedCipherSuite]) -> ServerConfig {
    let provider =
        CryptoProvider { cipher_suites: suites.to_vec(), ..aws_lc_rs::default_provider() };
    let has = |version| suites.iter().any(|suite| suite.version() == version);
    let versions: Vec<_> =
        rustls::ALL_VERSIONS.iter().copied().filter(|version| has(*version)).collect();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain(pem), key(pem))
        .expect("certificate");
    config.ticketer = aws_lc_rs::Ticketer::new().expect("ticketer");
    config
}

fn chain(pem: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(pem).expect("PEM").collect::<Result<_, _>>().expect("chain")
}

fn key(pem: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(pem).expect("key")
}

/// A client that has shaken hands.
fn client(scene: &Scene, config: ClientConfig) -> TlsStream {
    let mut client = tls_client::connect(Arc::new(config), scene.address, "a.test");
    client.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
    client.sock.set_write_timeout(Some(PATIENCE)).expect("timeout");
    client.conn.complete_io(&mut client.sock).expect("handshake");
    client
}

/// The server's end, which has yet to shake hands.
fn accept(scene: &Scene, config: &Arc<ServerConfig>) -> ServerStream {
    let stream = scene.backend.accept();
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).expect("server"), stream)
}

/// A connection that stands on both sides.
fn connect(
    scene: &Scene,
    config: ClientConfig,
    server: &Arc<ServerConfig>,
) -> (TlsStream, ServerStream) {
    let client = client(scene, config);
    let mut server = accept(scene, server);
    server.conn.complete_io(&mut server.sock).expect("handshake with forebay");
    (client, server)
}

fn close_notify_from_server(server: &mut ServerStream) {
    server.conn.send_close_notify();
    server.flush().expect("flush");
}

fn close_notify_from_client(client: &mut TlsStream) {
    client.conn.send_close_notify();
    client.flush().expect("flush");
}

fn assert_whole((bytes, end): (Vec<u8>, End), seed: u64, length: usize) {
    assert_eq!((bytes.len(), end), (length, End::Orderly));
    assert!(payload::matches(seed, 0, &bytes), "bytes are wrong");
}

/// A client that is told by an alert that no server could be spoken to, while `serve` does
/// what the server does; returns what that says.
fn turned_away<T: Send>(
    scene: &Scene,
    config: ClientConfig,
    serve: impl FnOnce(TcpStream) -> T + Send,
) -> T {
    let backend = &scene.backend;
    thread::scope(|scope| {
        let server = scope.spawn(move || serve(backend.accept()));
        let mut client = client(scene, config);
        let answer = client.read(&mut [0; 1]).expect_err("an alert");
        assert!(answer.to_string().contains("InternalError"), "{answer}");
        server.join().expect("server")
    })
}

/// Shakes hands as the server, and reads; returns what the end of it is.
fn shake(stream: TcpStream, config: ServerConfig) -> String {
    let connection = ServerConnection::new(Arc::new(config)).expect("server");
    match StreamOwned::new(connection, stream).read_exact(&mut [0]) {
        Ok(()) => "a session".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A server that demands a certificate of the site's authority.
fn demanding_server(site: &Site, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(chain(&site.authority.certificate()).remove(0)).expect("root");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let pem = site.issue("app.pem", NAME);
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("verifier"))
        .with_single_cert(chain(&pem), key(&pem))
        .expect("certificate")
}

/// Says hello on a connection that stands, to be sure that it does.
fn says_hello(client: &mut TlsStream, server: &mut ServerStream) {
    client.write_all(b"hello").expect("write");
    let mut hello = [0; 5];
    server.read_exact(&mut hello).expect("read");
    assert_eq!(&hello, b"hello");
}

/// Waits until the configuration was read anew, as often in all.
fn reloaded(scene: &mut Scene, times: f64) {
    scene.forebay.wait_until("it is read anew", |forebay| {
        forebay.metric("forebay_reloads_succeeded_total", &[]) == times
    });
}

/// Waits until so many handshakes with servers have failed for `reason`.
fn failed(scene: &mut Scene, count: f64, reason: &str) {
    let label = format!("reason=\"{reason}\"");
    scene.forebay.wait_until(&format!("{count} fail for {reason}"), |forebay| {
        forebay.metric("forebay_server_handshake_failures_total", &[&label]) == count
    });
}

// ── Bytes ───────────────────────────────────────────────────────────────────────────

#[test]
fn bytes_arrive_both_ways_whatever_suites_the_two_sides_have() {
    const LENGTH: usize = 400_000;
    let site = Site::new();
    let pem = site.issue("app.pem", NAME);
    let suites: Vec<_> = ALL_CIPHER_SUITES.iter().filter(|suite| !is_rsa(suite)).copied().collect();
    let mut scene = site.scene("");
    for with_server in &suites {
        let server = Arc::new(server_config(&pem, &[*with_server]));
        for with_client in &suites {
            let (mut client, mut server) =
                connect(&scene, tls_client::config_for(*with_client), &server);
            let upload = thread::spawn(move || {
                let received = read_to_end(&mut server);
                server.write_all(&payload::bytes(2, LENGTH)).expect("write");
                close_notify_from_server(&mut server);
                received
            });
            client.write_all(&payload::bytes(1, LENGTH)).expect("write");
            close_notify_from_client(&mut client);
            assert_whole(read_to_end(&mut client), 2, LENGTH);
            assert_whole(upload.join().expect("server"), 1, LENGTH);
        }
    }
    let all = (suites.len() * suites.len()) as f64;
    scene.forebay.wait_until("all have ended in order", |forebay| {
        forebay.metric("forebay_connections_ended_total", &["reason=\"finished\""]) == all
    });
}

fn is_rsa(suite: &SupportedCipherSuite) -> bool {
    format!("{:?}", suite.suite()).contains("_RSA_")
}

#[test]
fn both_directions_flow_at_once() {
    const LENGTH: usize = 20_000_000;
    let site = Site::new();
    let mut scene = site.scene("");
    let server = Arc::new(site.server());
    let (mut client, mut server) = connect(&scene, tls_client::config(), &server);
    // An end for each direction: rustls streams cannot be shared by threads, so each side
    // writes a piece and reads a piece in turn.
    let server = thread::spawn(move || {
        take_turns(&mut server, 2, 1, LENGTH);
        server
    });
    take_turns(&mut client, 1, 2, LENGTH);
    let mut server = server.join().expect("server");
    close_notify_from_client(&mut client);
    assert_eq!(read_to_end(&mut server), (Vec::new(), End::Orderly));
    close_notify_from_server(&mut server);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Orderly));
    scene.ends_by("finished");
}

fn take_turns(stream: &mut (impl Read + Write), sent: u64, received: u64, length: usize) {
    const PIECE: usize = 100_000;
    let outgoing = payload::bytes(sent, length);
    let mut piece = vec![0; PIECE];
    for (number, part) in outgoing.chunks(PIECE).enumerate() {
        stream.write_all(part).expect("write");
        stream.flush().expect("flush");
        stream.read_exact(&mut piece).expect("read");
        assert!(payload::matches(received, (number * PIECE) as u64, &piece), "bytes are wrong");
    }
}

#[test]
fn key_updates_of_the_server_are_followed_and_answered() {
    let site = Site::new();
    let mut scene = site.scene("");
    let server = Arc::new(site.server());
    let (mut client, mut server) = connect(&scene, tls_client::config(), &server);
    let mut bytes = [0; 4];
    for _ in 0..3 {
        server.conn.refresh_traffic_keys().expect("TLS 1.3");
        server.write_all(b"down").expect("write");
        client.read_exact(&mut bytes).expect("read");
        assert_eq!(&bytes, b"down");
        client.write_all(b"upup").expect("write");
        server.read_exact(&mut bytes).expect("read");
        assert_eq!(&bytes, b"upup");
    }
    close_notify_from_client(&mut client);
    close_notify_from_server(&mut server);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Orderly));
    scene.ends_by("finished");
}

#[test]
fn the_proxy_header_goes_in_front_of_the_tls_stream_in_clear() {
    let site = Site::new();
    let pool = format!("proxy_protocol = \"v1\"\n{}", site.pool_tls(""));
    let scene = Scene::with_pool(&pool, "");
    let mut client = client(&scene, tls_client::config());
    let mut stream = scene.backend.accept();
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("read");
        line.push(byte[0]);
    }
    let local = client.sock.local_addr().expect("address");
    let wanted =
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", local.port(), scene.address.port());
    assert_eq!(String::from_utf8(line).expect("text"), wanted);
    let connection = ServerConnection::new(Arc::new(site.server())).expect("server");
    let mut server = StreamOwned::new(connection, stream);
    says_hello(&mut client, &mut server);
}

// ── Who the server is ───────────────────────────────────────────────────────────────

/// What comes of a server with the certificate in `pem`.
fn refused(site: &Site, pem: &Path, reason: &str) {
    let mut scene = site.scene("");
    let config = server_config(pem, ALL_CIPHER_SUITES);
    let told = turned_away(&scene, tls_client::config(), |stream| shake(stream, config));
    assert!(told.contains("received fatal alert"), "the server is told: {told}");
    failed(&mut scene, 1.0, reason);
    let line = scene.forebay.wait_for_log("handshake with a server failed");
    assert!(line.contains(&format!("reason=\"{reason}\"")), "{line}");
    let line = scene.forebay.wait_for_log("no backend could be connected");
    assert!(line.contains(reason), "{line}");
    scene.ends_by("no_backend");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let site = Site::new();
    refused(&site, &site.issue("other.pem", "other.test"), "wrong_name");
}

#[test]
fn a_certificate_of_an_authority_that_is_not_trusted_is_refused() {
    let site = Site::new();
    let other = Site::new();
    refused(&site, &other.issue("app.pem", NAME), "unknown_issuer");
}

#[test]
fn an_expired_certificate_is_refused() {
    let site = Site::new();
    site.issue("app.pem", NAME);
    // The same key and names, signed anew for a time that was over before it began.
    site.authority.openssl(&[
        "x509",
        "-req",
        "-in",
        "leaf.csr",
        "-days",
        "-1",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "0x77",
        "-extfile",
        "extensions",
        "-out",
        "old.crt",
    ]);
    let directory = site.authority.certificate();
    let directory = directory.parent().expect("directory");
    let mut pem = fs::read(directory.join("old.crt")).expect("certificate");
    pem.extend(fs::read(directory.join("leaf.key")).expect("key"));
    let old = site.at("old.pem");
    fs::write(&old, pem).expect("write");
    refused(&site, &old, "certificate_dates");
}

#[test]
fn a_server_without_tls_is_refused() {
    let site = Site::new();
    let mut scene = site.scene("");
    turned_away(&scene, tls_client::config(), |mut stream| {
        stream.write_all(b"220 mail.test ESMTP\r\n").expect("write");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    failed(&mut scene, 1.0, "not_tls");
}

#[test]
fn anybody_is_taken_for_the_server_only_if_that_is_said_in_so_many_words() {
    let site = Site::new();
    let pool =
        format!("[pool.tls]\nserver_name = \"{NAME}\"\nverify = \"dangerously_accept_anyone\"\n");
    let mut scene = Scene::with_pool(&pool, "");
    let pem = site.issue("any.pem", "any.test");
    let server = Arc::new(server_config(&pem, ALL_CIPHER_SUITES));
    let (mut client, mut server) = connect(&scene, tls_client::config(), &server);
    says_hello(&mut client, &mut server);
    scene.forebay.wait_for_log("servers are not verified");
}

#[test]
fn the_next_server_is_tried_when_one_is_not_who_it_should_be() {
    let site = Site::new();
    let wrong = Site::new().issue_to(&site.at("wrong.pem"), NAME);
    let address = free_address();
    let mut impostor = command("openssl");
    impostor.args(["s_server", "-quiet", "-accept", &address.to_string(), "-cert"]);
    impostor.arg(&wrong).arg("-key").arg(&wrong);
    let _impostor = Server::start(impostor, address);
    let mut scene = Scene::with("", &[&address.to_string()], true, &site.pool_tls(""), "");
    let server = Arc::new(site.server());
    for _ in 0..2 {
        let (mut client, mut server) = connect(&scene, tls_client::config(), &server);
        says_hello(&mut client, &mut server);
    }
    scene.forebay.wait_for_log("handshake with a server failed: the next one is tried");
    failed(&mut scene, 1.0, "unknown_issuer");
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time_and_harms_nobody() {
    let site = Site::new();
    let pool = site.pool_tls("");
    let mut scene = Scene::with_pool(&pool, "[timeouts]\nconnect = \"300ms\"\n");
    drop(turned_away(&scene, tls_client::config(), |stream| stream));
    failed(&mut scene, 1.0, "timeout");
    scene.ends_by("no_backend");
}

#[test]
fn servers_that_do_not_answer_yet_keep_no_client_from_its_handshake() {
    let site = Site::new();
    let rest = "[handshake]\ncredits = 2\n[timeouts]\nconnect = \"120s\"\n";
    let scene = Scene::with_pool(&site.pool_tls(""), rest);
    let mut clients: Vec<_> = (0..4).map(|_| client(&scene, tls_client::config())).collect();
    // Each server answers only when all clients have shaken hands; then its turn comes.
    let server = Arc::new(site.server());
    let mut servers: Vec<_> = clients.iter().map(|_| accept(&scene, &server)).collect();
    for (client, server) in clients.iter_mut().zip(&mut servers) {
        says_hello(client, server);
    }
}

// ── What is negotiated ──────────────────────────────────────────────────────────────

#[test]
fn the_clients_protocol_is_asked_of_the_server() {
    let site = Site::new();
    let scene = Scene::with("alpn = [\"h2\", \"http/1.1\"]", &[], true, &site.pool_tls(""), "");
    let mut config = site.server();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let mut from = tls_client::config();
    from.alpn_protocols = vec![b"h2".to_vec()];
    let (_client, server) = connect(&scene, from, &Arc::new(config));
    assert_eq!(server.conn.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(server.conn.server_name(), Some(NAME));
}

#[test]
fn a_server_that_does_not_choose_the_clients_protocol_is_refused() {
    let site = Site::new();
    let mut scene = Scene::with("alpn = [\"h2\"]", &[], true, &site.pool_tls(""), "");
    let mut config = tls_client::config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // It chooses none.
    let server = site.server();
    let told = turned_away(&scene, config, |stream| shake(stream, server));
    assert!(told.contains("NoApplicationProtocol"), "the server is told: {told}");
    failed(&mut scene, 1.0, "no_shared_protocol");
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_it() {
    let site = Site::new();
    let mine = site.issue("client.pem", "forebay.test");
    let mut scene = site.scene(&format!("certificate = {mine:?}"));
    let config = Arc::new(demanding_server(&site, rustls::ALL_VERSIONS));
    for renewals in 0..2 {
        if renewals > 0 {
            site.issue("client.pem", "forebay.test");
            reloaded(&mut scene, 1.0);
        }
        let (mut client, mut server) = connect(&scene, tls_client::config(), &config);
        says_hello(&mut client, &mut server);
        let shown = server.conn.peer_certificates().expect("a certificate");
        assert_eq!(shown[0], chain(&mine)[0]);
    }
}

#[test]
fn what_we_sign_for_a_server_is_not_told_of_the_next_client() {
    let site = Site::new();
    let mine = site.issue("client.pem", "forebay.test");
    let values = "proxy_protocol = \"v2\"\nproxy_tlvs = [\"ssl\", \"ssl_sig_scheme\"]";
    let pool = format!("{values}\n{}", site.pool_tls(&format!("certificate = {mine:?}")));
    // One thread shakes hands with everybody.
    let scene = Scene::with_pool(&pool, "[handshake]\nworkers = 1\n");
    let server = Arc::new(demanding_server(&site, rustls::ALL_VERSIONS));
    let config = tls_client::config();
    let told = [HandshakeKind::Full, HandshakeKind::Resumed].map(|kind| {
        let mut client = client(&scene, config.clone());
        assert_eq!(client.conn.handshake_kind(), Some(kind));
        let mut stream = scene.backend.accept();
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut header = vec![0; 16];
        stream.read_exact(&mut header).expect("a header");
        let length = u16::from_be_bytes([header[14], header[15]]);
        header.resize(16 + usize::from(length), 0);
        stream.read_exact(&mut header[16..]).expect("the rest of it");
        let connection = ServerConnection::new(Arc::clone(&server)).expect("server");
        let mut server = StreamOwned::new(connection, stream);
        says_hello(&mut client, &mut server);
        // With it come the tickets for the next time.
        server.write_all(b"hello").expect("write");
        client.read_exact(&mut [0; 5]).expect("read");
        proxy_header::parse(&header).text(0x27)
    });
    assert_eq!(told, [Some("ecdsa_secp256r1_sha256".to_owned()), None]);
}

#[test]
fn a_server_that_gets_no_certificate_is_heard_in_either_version() {
    let site = Site::new();
    let mut scene = site.scene("");
    let config = demanding_server(&site, &[&rustls::version::TLS12]);
    turned_away(&scene, tls_client::config(), |stream| shake(stream, config));
    failed(&mut scene, 1.0, "server_alert");

    // It says so when our side has finished.
    let mut scene = site.scene("");
    let config = Arc::new(demanding_server(&site, &[&rustls::version::TLS13]));
    let mut client = client(&scene, tls_client::config());
    let mut server = accept(&scene, &config);
    server.conn.complete_io(&mut server.sock).expect_err("a certificate is demanded");
    drop(server);
    let (bytes, end) = read_to_end(&mut client);
    assert!(bytes.is_empty() && end != End::Orderly, "{end:?}");
    failed(&mut scene, 1.0, "server_alert");
    let line = scene.forebay.wait_for_log("it did so after ours, and the client was reset");
    assert!(line.contains("CertificateRequired"), "{line}");
    scene.ends_by("upstream_reset");
}

#[test]
fn authorities_are_read_anew_when_their_file_changes() {
    let site = Site::new();
    let mut scene = site.scene("");
    let config = Arc::new(site.server());
    let (mut client, mut server) = connect(&scene, tls_client::config(), &config);
    says_hello(&mut client, &mut server);
    let other = fs::read(Authority::new().certificate()).expect("read");
    fs::write(site.authority.certificate(), other).expect("write");
    reloaded(&mut scene, 1.0);
    let config = server_config(&site.at("app.pem"), ALL_CIPHER_SUITES);
    turned_away(&scene, tls_client::config(), |stream| shake(stream, config));
    failed(&mut scene, 1.0, "unknown_issuer");
}

#[test]
fn the_clients_name_is_passed_on_if_that_is_wanted() {
    let site = Site::new();
    let ca = site.authority.certificate();
    let pool = format!("[pool.tls]\nca = {ca:?}\nserver_name_from = \"client\"\n");
    let scene = Scene::with_pool(&pool, "");
    let pem = site.issue("a.pem", "a.test");
    let server = Arc::new(server_config(&pem, ALL_CIPHER_SUITES));
    let (_client, server) = connect(&scene, tls_client::config(), &server);
    assert_eq!(server.conn.server_name(), Some("a.test"));
}

#[test]
fn sessions_with_a_server_are_resumed() {
    let site = Site::new();
    let pem = site.issue("app.pem", NAME);
    for suite in [
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        let mut scene = site.scene("");
        let config = Arc::new(server_config(&pem, &[suite]));
        let (mut kinds, mut bytes) = (Vec::new(), [0; 4]);
        for _ in 0..3 {
            let (mut client, mut server) = connect(&scene, tls_client::config(), &config);
            server.write_all(b"down").expect("write");
            client.read_exact(&mut bytes).expect("read");
            kinds.push(server.conn.handshake_kind().expect("a handshake"));
            // The ticket is put away on another thread.
            scene.forebay.wait_until("no handshake is in progress", |forebay| {
                forebay.metric("forebay_handshakes_in_progress", &[]) == 0.0
            });
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed]);
        scene.forebay.wait_until("two are counted as resumed", |forebay| {
            forebay.metric("forebay_server_handshakes_total", &["resumed=\"true\""]) == 2.0
        });
    }
}

// ── Ends ────────────────────────────────────────────────────────────────────────────

#[test]
fn what_the_client_sends_after_the_servers_close_notify_arrives() {
    const LENGTH: usize = 3_000_000;
    let site = Site::new();
    let mut scene = site.scene("");
    let server = Arc::new(site.server());
    let (mut client, mut server) = connect(&scene, tls_client::config(), &server);
    server.write_all(&payload::bytes(2, 60_000)).expect("write");
    close_notify_from_server(&mut server);
    server.sock.shutdown(Shutdown::Write).expect("shutdown");
    assert_whole(read_to_end(&mut client), 2, 60_000);
    let upload = thread::spawn(move || read_to_end(&mut server));
    client.write_all(&payload::bytes(1, LENGTH)).expect("write");
    close_notify_from_client(&mut client);
    assert_whole(upload.join().expect("server"), 1, LENGTH);
    scene.ends_by("finished");
}

#[test]
fn a_server_that_ends_without_close_notify_cuts_the_client_off() {
    let site = Site::new();
    let mut scene = site.scene("");
    let server = Arc::new(site.server());
    let (mut client, mut server) = connect(&scene, tls_client::config(), &server);
    server.write_all(b"a part").expect("write");
    let mut part = [0; 6];
    client.read_exact(&mut part).expect("read");
    server.sock.shutdown(Shutdown::Both).expect("shutdown");
    drop(server);
    let (rest, end) = read_to_end(&mut client);
    assert!(rest.is_empty() && end != End::Orderly, "{end:?}");
    scene.ends_by("upstream_reset");
    scene.forebay.wait_until("it is counted", |forebay| {
        forebay.metric("forebay_server_truncations_total", &[]) == 1.0
    });
}

#[test]
fn a_server_whose_record_is_forged_is_told_and_its_client_cut_off() {
    let site = Site::new();
    let mut scene = site.scene("");
    let server = Arc::new(site.server());
    let (mut client, mut server) = connect(&scene, tls_client::config(), &server);
    // Application data that nobody has sealed.
    let mut forged = vec![23, 3, 3, 0, 32];
    forged.resize(5 + 32, 0x5a);
    server.sock.write_all(&forged).expect("write");
    let told = server.read(&mut [0]).expect_err("an alert").to_string();
    assert!(told.contains("BadRecordMac"), "the server is told: {told}");
    let (bytes, end) = read_to_end(&mut client);
    assert!(bytes.is_empty() && end != End::Orderly, "{end:?}");
    scene.ends_by("upstream_reset");
    scene.forebay.wait_until("it counts for who judges servers", |forebay| {
        forebay.metric("forebay_server_early_resets_total", &[]) == 1.0
    });
}

#[test]
fn a_client_that_ends_without_close_notify_is_not_said_to_have_finished() {
    let site = Site::new();
    let scene = site.scene("");
    let server = Arc::new(site.server());
    let (mut client, mut server) = connect(&scene, tls_client::config(), &server);
    client.write_all(b"a part").expect("write");
    client.sock.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(read_to_end(&mut server), (b"a part".to_vec(), End::Truncated));
}

// ── Servers of others ───────────────────────────────────────────────────────────────

fn asks(scene: &Scene, path: &str) -> String {
    let mut client = client(scene, tls_client::config());
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    tls_client::exchange(&mut client, &request)
}

#[test]
fn nginx_serves_a_large_file_behind_the_proxy_header_and_tls() {
    const LENGTH: usize = 30_000_000;
    let site = Site::new();
    let pem = site.issue("app.pem", NAME);
    let (address, own) = (free_address(), site.directory.path());
    fs::write(own.join("large"), payload::bytes(9, LENGTH)).expect("write");
    let text = format!(
        "daemon off; master_process off; pid {own}/pid; error_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off;\n\
         client_body_temp_path {own}/b; proxy_temp_path {own}/p; fastcgi_temp_path {own}/f;\n\
         uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;\n\
         server {{ listen {address} ssl proxy_protocol; root {own}; ssl_protocols TLSv1.3;\n\
         ssl_certificate {pem}; ssl_certificate_key {pem};\n\
         location = /who {{ return 200 \"client=$proxy_protocol_addr tls=$ssl_protocol\"; }} }} }}\n",
        own = own.display(),
        pem = pem.display(),
    );
    let file = own.join("nginx.conf");
    fs::write(&file, text).expect("write");
    let mut nginx = command("nginx");
    nginx.arg("-p").arg(own).arg("-c").arg(&file);
    let _nginx = Server::start(nginx, address);
    let pool = format!("proxy_protocol = \"v2\"\n{}", site.pool_tls(""));
    let mut scene = Scene::with("", &[&address.to_string()], false, &pool, "");
    let answer = asks(&scene, "/who");
    assert!(answer.ends_with("client=127.0.0.1 tls=TLSv1.3"), "{answer}");
    let mut client = client(&scene, tls_client::config());
    client
        .write_all(b"GET /large HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        .expect("write");
    let (answer, end) = read_to_end(&mut client);
    assert_eq!(end, End::Orderly);
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(answer.len() - body, LENGTH);
    assert!(payload::matches(9, 0, &answer[body..]), "bytes are wrong");
    scene.forebay.wait_until("the second connection is resumed", |forebay| {
        forebay.metric("forebay_server_handshakes_total", &["resumed=\"true\""]) == 1.0
    });
}

#[test]
fn haproxy_takes_the_proxy_header_and_then_tls() {
    let site = Site::new();
    let pem = site.issue("app.pem", NAME);
    let address = free_address();
    let text = format!(
        "defaults\n mode http\n timeout client 60s\n timeout connect 60s\n timeout server 60s\n\
         frontend f\n bind {address} accept-proxy ssl crt {} ssl-min-ver TLSv1.2\n\
         http-request return status 200 content-type text/plain lf-string \
         \"client=%[src] tls=%[ssl_fc_protocol]\"\n",
        pem.display()
    );
    let file = site.at("haproxy.cfg");
    fs::write(&file, text).expect("write");
    let mut haproxy = command("haproxy");
    haproxy.arg("-db").arg("-f").arg(&file);
    let _haproxy = Server::start(haproxy, address);
    let pool = format!("proxy_protocol = \"v2\"\n{}", site.pool_tls(""));
    let scene = Scene::with("", &[&address.to_string()], false, &pool, "");
    for _ in 0..3 {
        let answer = asks(&scene, "/");
        assert!(answer.ends_with("client=127.0.0.1 tls=TLSv1.3"), "{answer}");
    }
}

#[test]
fn openssl_serves_in_both_versions() {
    let site = Site::new();
    let pem = site.issue("app.pem", NAME);
    for (version, named) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let address = free_address();
        let mut openssl = command("openssl");
        openssl.args(["s_server", "-www", version, "-accept", &address.to_string(), "-cert"]);
        openssl.arg(&pem).arg("-key").arg(&pem);
        let _openssl = Server::start(openssl, address);
        let scene = Scene::with("", &[&address.to_string()], false, &site.pool_tls(""), "");
        let answer = asks(&scene, "/");
        assert!(answer.contains(named), "{answer}");
    }
}

#[test]
fn openssl_may_ask_for_new_keys_or_for_another_handshake() {
    let site = Site::new();
    let pem = site.issue("app.pem", NAME);
    // A HelloRequest, which a client may ignore; a KeyUpdate with an answer, and without.
    for (version, wish) in [("-tls1_2", "r"), ("-tls1_3", "K"), ("-tls1_3", "k")] {
        let address = free_address();
        let mut openssl = command("openssl");
        openssl.args(["s_server", version, "-accept", &address.to_string(), "-cert"]);
        openssl.arg(&pem).arg("-key").arg(&pem);
        let mut openssl = Server::start_interactive(openssl, address);
        let scene = Scene::with("", &[&address.to_string()], false, &site.pool_tls(""), "");
        let mut client = client(&scene, tls_client::config());
        client.write_all(b"before\n").expect("write");
        openssl.wait_for_line("bytes arrive", |line| line.contains("before").then_some(()));
        openssl.tell(wish);
        // It looks at its input first: what comes by then is a line of its own.
        client.write_all(b"meanwhile\n").expect("write");
        openssl.wait_for_line("the wish is read", |line| line.contains("meanwhile").then_some(()));
        openssl.tell("and an answer");
        let mut answer = [0; 14];
        client.read_exact(&mut answer).expect("read");
        assert_eq!(&answer, b"and an answer\n");
        client.write_all(b"after\n").expect("write");
        openssl.wait_for_line("more arrive", |line| line.contains("after").then_some(()));
    }
}

#[test]
fn stunnel_gets_the_certificate_that_it_demands() {
    const LENGTH: usize = 3_000_000;
    let site = Site::new();
    let pem = site.issue("app.pem", NAME);
    let mine = site.issue("client.pem", "forebay.test");
    let address = free_address();
    let pool = site.pool_tls(&format!("certificate = {mine:?}"));
    let scene = Scene::with("", &[&address.to_string()], false, &pool, "");
    let text = format!(
        "foreground = yes\npid =\n[s]\naccept = {address}\nconnect = {}\ncert = {}\n\
         CAfile = {}\nverifyChain = yes\n",
        scene.backend.address,
        pem.display(),
        site.authority.certificate().display()
    );
    let file = site.at("stunnel.conf");
    fs::write(&file, text).expect("write");
    let mut stunnel = command("stunnel4");
    stunnel.arg(&file);
    let _stunnel = Server::start(stunnel, address);
    let mut client = client(&scene, tls_client::config());
    let mut server = scene.backend.accept();
    let upload = thread::spawn(move || {
        let mut received = vec![0; LENGTH];
        server.read_exact(&mut received).expect("read");
        server.write_all(&payload::bytes(2, LENGTH)).expect("write");
        received
    });
    client.write_all(&payload::bytes(1, LENGTH)).expect("write");
    let (received, end) = read_to_end(&mut client);
    assert_eq!((received.len(), end), (LENGTH, End::Orderly));
    assert!(payload::matches(2, 0, &received), "bytes are wrong");
    assert!(payload::matches(1, 0, &upload.join().expect("server")), "bytes are wrong");
}
