//! Names of servers: what they stand for is asked again and again, of a real nameserver, and
//! no change of it costs anybody his connection.

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig, ServerConnection};
use tempfile::TempDir;

use support::authority::Authority;
use support::backend::Backend;
use support::certificates::{Key, self_signed};
use support::configuration::configuration_with;
use support::dnsmasq::Dnsmasq;
use support::forebay::{Forebay, PATIENCE};
use support::ports::free_address;
use support::proxy_header;
use support::tls_client::{self, TlsStream};

/// A running forebay whose servers have names.
struct Setting {
    forebay: Forebay,
    address: SocketAddr,
    dnsmasq: Dnsmasq,
    config: Arc<ClientConfig>,
    _directory: TempDir,
}

/// The configuration with backends as they are written in TOML.
fn text(
    directory: &TempDir,
    address: SocketAddr,
    nameserver: SocketAddr,
    backends: &str,
    pool: &str,
) -> String {
    let certificate = directory.path().join("a.pem");
    if !certificate.exists() {
        self_signed(directory.path(), "a.pem", Key::EcdsaP256, &["a.test"]);
    }
    let rest = format!(
        "[engine]\nengines = 1\nmax_connections = 64\n\
         [resolver]\nnameservers = [\"{nameserver}\"]\ntimeout = \"1s\"\nattempts = 1\n\
         resolv_conf = \"none\"\nhosts = \"none\"\n"
    );
    configuration_with(address, &[&certificate], backends, pool, &rest)
}

impl Setting {
    fn start(backends: &str, hosts: &str, services: &[String]) -> Self {
        Self::with_pool(backends, "", hosts, services)
    }

    /// The same with more keys for the pool.
    fn with_pool(backends: &str, pool: &str, hosts: &str, services: &[String]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let dnsmasq = Dnsmasq::start(directory.path(), hosts, services);
        let address = free_address();
        let text = text(&directory, address, dnsmasq.address, backends, pool);
        let forebay = Forebay::start(directory.path(), &text);
        let config = Arc::new(tls_client::config());
        Self { forebay, address, dnsmasq, config, _directory: directory }
    }

    /// A client that says hello, and the server that hears it, by its place among `servers`.
    fn choice(&mut self, servers: &[Backend]) -> (usize, TlsStream, TcpStream) {
        let mut client = tls_client::connect(Arc::clone(&self.config), self.address, "a.test");
        client.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
        client.write_all(b"hello").expect("write");
        let mut found = None;
        self.forebay.wait_until("a server is chosen", |_| {
            let servers = servers.iter().enumerate();
            found =
                servers.filter_map(|(place, server)| Some((place, server.try_accept()?))).next();
            found.is_some()
        });
        let (place, mut server) = found.expect("found");
        server.read_exact(&mut [0; 5]).expect("hello");
        (place, client, server)
    }

    /// Which servers so many clients get, which leave at once.
    fn choices(&mut self, servers: &[Backend], count: usize) -> Vec<usize> {
        (0..count).map(|_| self.choice(servers).0).collect()
    }

    fn wait_for_servers(&mut self, name: &str, count: u64) {
        let label = format!("name=\"{name}\"");
        self.forebay.wait_until(&format!("{name} stands for {count} servers"), |forebay| {
            forebay.metric("forebay_name_servers", &[&label]) as u64 == count
        });
    }

    fn wait_for_pool(&mut self, servers: u64) {
        self.forebay.wait_until(&format!("the pool has {servers} servers"), |forebay| {
            forebay.metric("forebay_pool_servers", &[]) as u64 == servers
        });
    }
}

/// So many servers on one port of 127.0.0.2, 127.0.0.3 and so on.
fn servers<const COUNT: usize>() -> ([Backend; COUNT], u16) {
    let port = free_address().port();
    let address = |place: usize| SocketAddr::from(([127, 0, 0, 2 + place as u8], port));
    (std::array::from_fn(|place| Backend::listen_at(address(place))), port)
}

/// Both ends of a connection still hear each other.
fn talk(client: &mut TlsStream, server: &mut TcpStream) {
    let mut heard = [0; 4];
    client.write_all(b"ping").expect("write");
    server.read_exact(&mut heard).expect("read");
    assert_eq!(&heard, b"ping");
    server.write_all(b"pong").expect("write");
    client.read_exact(&mut heard).expect("read");
    assert_eq!(&heard, b"pong");
}

#[test]
fn another_answer_moves_new_connections_and_leaves_the_old_ones_where_they_are() {
    let (servers, port) = servers::<2>();
    let mut setting =
        Setting::start(&format!("[\"app.test:{port}\"]"), "127.0.0.2 app.test\n", &[]);
    let (place, mut client, mut server) = setting.choice(&servers);
    assert_eq!(place, 0);

    setting.dnsmasq.answer("127.0.0.3 app.test\n", &[]);
    let line = setting.forebay.wait_for_log("127.0.0.3");
    assert!(line.contains("name=app.test") && line.contains("removed=\"127.0.0.2\""), "{line}");
    setting.forebay.wait_until("the pool has the other server", |forebay| {
        forebay.page("/metrics").is_some_and(|page| page.contains("(127.0.0.3)"))
    });
    assert_eq!(setting.choices(&servers, 3), [1, 1, 1]);
    talk(&mut client, &mut server);
    let generation = setting.forebay.metric("forebay_configuration_generation", &[]);
    assert_eq!(generation as u64, 1, "this is no reload");
}

#[test]
fn an_answer_with_more_servers_spreads_connections_over_all_of_them() {
    let (servers, port) = servers::<2>();
    let backends = format!("[\"127.0.0.2:{port}\", \"app.test:{port}\"]");
    let mut setting = Setting::start(&backends, "", &[]);
    let line = setting.forebay.wait_for_log("cannot be resolved");
    assert!(line.contains("there is no such name; its pool does without it"), "{line}");
    assert_eq!(setting.choices(&servers, 2), [0, 0]);
    setting.dnsmasq.answer("127.0.0.3 app.test\n::1 app.test\n", &[]);
    setting.wait_for_pool(3);
    let chosen = setting.choices(&servers, 6);
    assert!(chosen.contains(&0) && chosen.contains(&1), "{chosen:?}");
}

#[test]
fn what_a_name_stood_for_stays_while_nobody_answers_or_says_that_it_is_gone() {
    let (servers, port) = servers::<1>();
    let hosts = "127.0.0.2 app.test\n";
    let mut setting = Setting::start(&format!("[\"app.test:{port}\"]"), hosts, &[]);
    setting.dnsmasq.stop();
    let line = setting.forebay.wait_for_log("is not resolved: its servers stay");
    assert!(line.contains("no nameserver can be reached (A)"), "{line}");
    assert_eq!(setting.forebay.metric("forebay_name_current", &["app.test"]) as u64, 0);
    assert_eq!(setting.choices(&servers, 1), [0]);

    setting.dnsmasq.answer("", &[]);
    setting.forebay.wait_for_log("there is no such name");
    assert_eq!(setting.choices(&servers, 1), [0]);
    assert!(setting.forebay.metric("forebay_name_lookups_total", &["absent"]) >= 1.0);

    setting.dnsmasq.answer(hosts, &[]);
    setting.forebay.wait_for_log("the name is resolved");
    assert_eq!(setting.forebay.metric("forebay_name_current", &["app.test"]) as u64, 1);
    assert_eq!(setting.choices(&servers, 1), [0]);
}

#[test]
fn an_answer_that_fits_no_datagram_comes_whole() {
    let hosts: String = (1..=60).map(|last| format!("127.0.1.{last} app.test\n")).collect();
    let mut setting = Setting::start("[\"app.test:80\"]", &hosts, &[]);
    setting.wait_for_servers("app.test", 60);
    setting.wait_for_pool(60);
}

#[test]
fn a_service_gives_ports_weights_and_backups() {
    let servers = [Backend::listen(), Backend::listen(), Backend::listen()];
    let ports = servers.each_ref().map(|server| server.address.rsplit_once(':').expect("a port").1);
    let hosts = "127.0.0.1 one.test two.test three.test\n";
    let service = |host: &str, port: &str, priority: u16, weight: u16| {
        format!("_app._tcp.test,{host}.test,{port},{priority},{weight}")
    };
    let three = service("three", ports[2], 20, 10);
    let services =
        [service("one", ports[0], 10, 10), service("two", ports[1], 10, 30), three.clone()];
    let mut setting = Setting::start("[\"srv:_app._tcp.test\"]", hosts, &services);
    let mut chosen = setting.choices(&servers, 8);
    chosen.sort_unstable();
    assert_eq!(chosen, [0, 0, 1, 1, 1, 1, 1, 1]);

    setting.dnsmasq.answer(hosts, &[three]);
    setting.wait_for_pool(1);
    assert_eq!(setting.choices(&servers, 2), [2, 2], "the backup is all there is");
}

/// A server behind TLS with the certificate in `pem`, and what it was asked for.
fn accept(server: &Backend, pem: &Path) -> io::Result<(ServerConnection, TcpStream)> {
    let chain = CertificateDer::pem_file_iter(pem).expect("PEM").collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(pem).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.expect("a chain"), key)
        .expect("a certificate");
    let mut stream = server.accept();
    let mut connection = ServerConnection::new(Arc::new(config)).expect("a server");
    connection.complete_io(&mut stream)?;
    Ok((connection, stream))
}

#[test]
fn whatever_a_name_stands_for_has_to_show_a_certificate_for_it() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().expect("directory");
    let issue = |name: &str| {
        let pem = directory.path().join(format!("{name}.pem"));
        authority.issue(&pem, &[name]);
        pem
    };
    let (genuine, other) = (issue("app.test"), issue("other.test"));
    let (servers, port) = servers::<2>();
    let tls = format!("[pool.tls]\nca = {:?}", authority.certificate());
    let backends = format!("[\"app.test:{port}\"]");
    let mut setting = Setting::with_pool(&backends, &tls, "127.0.0.2 app.test\n", &[]);
    let hello = |setting: &Setting| {
        let config = Arc::clone(&setting.config);
        let mut client = tls_client::connect(config, setting.address, "a.test");
        client.write_all(b"hello").expect("write");
        client
    };
    let client = hello(&setting);
    let (server, _) = accept(&servers[0], &genuine).expect("a handshake with forebay");
    assert_eq!(server.server_name(), Some("app.test"));
    drop(client);

    setting.dnsmasq.answer("127.0.0.3 app.test\n", &[]);
    setting.forebay.wait_until("the pool has the new server", |forebay| {
        forebay.page("/metrics").is_some_and(|page| page.contains("(127.0.0.3)"))
    });
    let client = hello(&setting);
    let (server, _) = accept(&servers[1], &genuine).expect("a handshake with the new server");
    assert_eq!(server.server_name(), Some("app.test"));
    drop(client);
    let _client = hello(&setting);
    accept(&servers[1], &other).expect_err("it is somebody else");
    setting.forebay.wait_until("that was noticed", |forebay| {
        let wrong_name = &["reason=\"wrong_name\""];
        forebay.metric("forebay_server_handshake_failures_total", wrong_name) == 1.0
    });
}

#[test]
fn servers_that_come_with_another_answer_get_signed_headers_too() {
    let directory = tempfile::tempdir().expect("directory");
    let key = directory.path().join("header.key");
    fs::write(&key, "0123456789abcdef".repeat(4)).expect("write");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("mode");
    let pool = format!("proxy_protocol = \"v2\"\nproxy_key_file = {key:?}");
    let (servers, port) = servers::<2>();
    let backends = format!("[\"app.test:{port}\"]");
    let mut setting = Setting::with_pool(&backends, &pool, "127.0.0.2 app.test\n", &[]);
    for (server, next) in servers.iter().zip(["127.0.0.3", "127.0.0.2"]) {
        let config = Arc::clone(&setting.config);
        let mut client = tls_client::connect(config, setting.address, "a.test");
        client.write_all(b"hello").expect("write");
        let mut received = Vec::new();
        let mut stream = server.accept();
        while !received.ends_with(b"hello") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a header, and what the client says");
            received.push(byte[0]);
        }
        let header = proxy_header::parse(&received);
        assert!(header.others.iter().any(|(kind, _)| *kind == 0xe7), "{header:?}");
        setting.dnsmasq.answer(&format!("{next} app.test\n"), &[]);
        setting.forebay.wait_until("the pool has the other server", |forebay| {
            forebay.page("/metrics").is_some_and(|page| page.contains(&format!("({next})")))
        });
    }
}

#[test]
fn the_servers_of_a_service_are_asked_for_the_name_that_is_configured() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().expect("directory");
    let pem = directory.path().join("app.pem");
    authority.issue(&pem, &["app.test"]);
    let server = Backend::listen();
    let port = server.address.rsplit_once(':').expect("a port").1;
    let services = [format!("_app._tcp.test,one.test,{port},10,10")];
    let tls = format!("[pool.tls]\nca = {:?}\nserver_name = \"app.test\"", authority.certificate());
    let hosts = "127.0.0.1 one.test\n";
    let setting = Setting::with_pool("[\"srv:_app._tcp.test\"]", &tls, hosts, &services);
    let config = Arc::clone(&setting.config);
    let mut client = tls_client::connect(config, setting.address, "a.test");
    client.write_all(b"hello").expect("write");
    let (server, _stream) = accept(&server, &pem).expect("a handshake with forebay");
    assert_eq!(server.server_name(), Some("app.test"));
}

#[test]
fn a_pool_without_any_address_keeps_the_process_from_starting() {
    let directory = tempfile::tempdir().expect("directory");
    let nobody = free_address();
    let text = text(&directory, free_address(), nobody, "[\"app.test:80\", \"srv:b.test\"]", "");
    let file = directory.path().join("forebay.toml");
    std::fs::write(&file, text).expect("write");
    for subcommand in ["check", "run"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        let output = command.arg(subcommand).arg("-c").arg(&file).output().expect("runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(
            told.contains(
                "forebay.toml:8:13: error: pool[0].backends[0]: app.test:80 cannot be resolved, \
                 and its pool has no other: no nameserver can be reached (A); check the name and \
                 [resolver], or write an IP address"
            ),
            "{told}"
        );
        assert!(told.contains("srv:b.test cannot be resolved"), "{told}");
    }
}

#[test]
fn a_reload_that_is_refused_and_one_that_is_not_both_know_their_names() {
    let (servers, port) = servers::<2>();
    let hosts = "127.0.0.2 app.test\n127.0.0.3 other.test\n";
    let mut setting = Setting::start(&format!("[\"app.test:{port}\"]"), hosts, &[]);
    let configure = |setting: &Setting, name: &str| {
        let backends = format!("[\"{name}:{port}\"]");
        let directory = &setting._directory;
        let text = text(directory, setting.address, setting.dnsmasq.address, &backends, "");
        setting.forebay.write_configuration(&text);
        setting.forebay.signal(libc::SIGHUP);
    };
    configure(&setting, "none.test");
    setting.forebay.wait_for_log("none.test:");
    setting.forebay.wait_for_log("reload refused");
    assert_eq!(setting.choices(&servers, 1), [0]);
    configure(&setting, "other.test");
    setting.wait_for_servers("other.test", 1);
    setting.forebay.wait_for_log("reloaded");
    assert_eq!(setting.choices(&servers, 1), [1]);
    let page = setting.forebay.page("/metrics").expect("metrics");
    assert!(!page.contains("name=\"app.test\"") && !page.contains("none.test"), "{page}");
}
