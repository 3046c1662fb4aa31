//! Which server of a pool a client gets: each in turn, the one with the fewest open
//! connections, the next if one refuses, over TCP and UNIX sockets alike.
//!
//! | file | what must hold |
//! |---|---|
//! | `checks` | servers that fail their checks are left alone |
//! | `ejection` | servers to which connections fail are left alone |
//! | `preference` | weights, backups, the server that is a client's own |
//! | `operator` | servers that an operator takes out and in again |
//! | `places` | limits of connections, and who waits for a place |

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod ejection;
mod operator;
mod places;
mod preference;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::ClientConfig;
use tempfile::TempDir;

use support::backend::Backend;
use support::certificates::{Key, self_signed};
use support::configuration::configuration_with;
use support::exchange::{Close, Plan};
use support::exchange_client::ExchangeClient;
use support::exchange_server::ExchangeServer;
use support::forebay::{Forebay, PATIENCE};
use support::ports::free_address;
use support::sockets::connect_from;
use support::tls_client::{self, TlsStream};

const ONE_ENGINE: &str = "[engine]\nengines = 1\nmax_connections = 64\n";

struct Setting {
    forebay: Forebay,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    directory: TempDir,
}

fn setting(backends: &[&str], pool: &str) -> Setting {
    let directory = tempfile::tempdir().expect("directory");
    setting_in(directory, backends, pool)
}

fn setting_in(directory: TempDir, backends: &[&str], pool: &str) -> Setting {
    setting_with(directory, &format!("{backends:?}"), pool, "")
}

/// With backends as they are written in TOML, and more sections.
fn setting_with(directory: TempDir, backends: &str, pool: &str, rest: &str) -> Setting {
    let address = free_address();
    let text = text(&directory, address, backends, pool, rest);
    let forebay = Forebay::start(directory.path(), &text);
    Setting { forebay, address, config: Arc::new(tls_client::config()), directory }
}

fn text(
    directory: &TempDir,
    address: SocketAddr,
    backends: &str,
    pool: &str,
    rest: &str,
) -> String {
    let certificate = directory.path().join("a.pem");
    if !certificate.exists() {
        self_signed(directory.path(), "a.pem", Key::EcdsaP256, &["*.test"]);
    }
    let rest = format!("{ONE_ENGINE}{rest}");
    configuration_with(address, &[&certificate], backends, pool, &rest)
}

impl Setting {
    fn client(&self) -> TlsStream {
        self.client_from(Ipv4Addr::LOCALHOST.into(), "a.test")
    }

    /// Says hello without waiting for anybody to hear it.
    fn client_from(&self, source: IpAddr, name: &str) -> TlsStream {
        let stream = connect_from(source, self.address).expect("connect");
        let mut client = tls_client::over(stream, Arc::clone(&self.config), name);
        client.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
        client.write_all(b"hello").expect("write");
        client
    }

    /// Connects and tells at which of the servers the connection came out.
    fn choice(&mut self, servers: &[Backend]) -> (usize, TlsStream, TcpStream) {
        let client = self.client();
        let (index, server) = self.heard_by(servers);
        (index, client, server)
    }

    /// Which of the servers hears the client's hello.
    fn heard_by(&mut self, servers: &[Backend]) -> (usize, TcpStream) {
        let mut found = None;
        self.forebay.wait_until("a server is chosen", |_| {
            found = servers
                .iter()
                .enumerate()
                .find_map(|(index, server)| Some((index, server.try_accept()?)));
            found.is_some()
        });
        let (index, mut server) = found.expect("found");
        server.read_exact(&mut [0; 5]).expect("hello");
        (index, server)
    }

    fn reload(&mut self, text: &str) {
        let generation = self.forebay.metric("forebay_configuration_generation", &[]);
        self.forebay.write_configuration(text);
        self.forebay.signal(libc::SIGHUP);
        self.forebay.wait_until("it has reloaded", |forebay| {
            forebay.metric("forebay_configuration_generation", &[]) > generation
        });
    }

    fn exchange(&self, number: u64) -> ExchangeClient {
        let plan = Plan::bulk(number, 500_000);
        ExchangeClient::connect(&self.config, self.address, plan).expect("connect")
    }
}

#[test]
fn round_robin_gives_each_server_its_turn() {
    let servers = [Backend::listen(), Backend::listen()];
    let mut setting =
        setting(&[&servers[0].address, &servers[1].address], "balance = \"round_robin\"");
    let mut kept = Vec::new();
    for turn in 0..6 {
        let (index, client, server) = setting.choice(&servers);
        assert_eq!(index, turn % 2);
        kept.push((client, server));
    }
}

#[test]
fn least_connections_fills_up_the_server_that_has_lost_some() {
    let servers = [Backend::listen(), Backend::listen()];
    let mut setting =
        setting(&[&servers[0].address, &servers[1].address], "balance = \"least_connections\"");
    let mut open: [Vec<_>; 2] = Default::default();
    for _ in 0..6 {
        let (index, client, server) = setting.choice(&servers);
        open[index].push((client, server));
    }
    assert_eq!([open[0].len(), open[1].len()], [3, 3]);

    open[1].drain(..2);
    setting.forebay.wait_until("the connections are gone", |forebay| {
        forebay.metric("forebay_upstream_connections", &[]) as u64 == 4
    });
    for _ in 0..2 {
        let (index, client, server) = setting.choice(&servers);
        assert_eq!(index, 1, "it has fewer");
        open[index].push((client, server));
    }
}

#[test]
fn a_server_that_refuses_costs_no_client_its_connection() {
    let refusing = free_address().to_string();
    let server = ExchangeServer::tcp();
    let setting = setting(&[&refusing, &server.address], "");
    for number in 0..5 {
        let client = setting.exchange(number);
        let plan = client.plan;
        let client = client.finish(PATIENCE);
        let judged = plan.judge(&client, server.wait_for_outcome(&plan).as_ref());
        judged.unwrap_or_else(|error| panic!("{error}"));
    }
    let metric = |name| setting.forebay.metric(name, &[]) as u64;
    assert_eq!(metric("forebay_upstream_connected_total"), 5);
    assert!(metric("forebay_upstream_failed_total") >= 1);
}

#[test]
fn a_pool_that_refuses_as_a_whole_is_named_in_the_log_and_serves_again_when_it_is_back() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("server.sock");
    let refusing = free_address().to_string();
    let socket = format!("unix:{}", path.display());
    let mut setting = setting_in(directory, &[&refusing, &socket], "");
    let mut client = setting.client();
    let error = client.read(&mut [0]).expect_err("no server");
    assert!(error.to_string().contains("InternalError"), "{error}");
    let line = setting.forebay.wait_for_log("no backend could be connected");
    assert!(line.contains("pool=\"servers\"") && line.contains("attempts=2"), "{line}");
    let ended = setting.forebay.metric("forebay_connections_ended_total", &["no_backend"]);
    assert_eq!(ended as u64, 1);

    let server = ExchangeServer::unix(&path);
    let client = setting.exchange(1);
    let plan = client.plan;
    let client = client.finish(PATIENCE);
    let judged = plan.judge(&client, server.wait_for_outcome(&plan).as_ref());
    judged.unwrap_or_else(|error| panic!("{error}"));
    drop(server);
    drop(setting.directory);
}

#[test]
fn tcp_and_unix_servers_share_a_pool() {
    let directory = tempfile::tempdir().expect("directory");
    let servers =
        [ExchangeServer::tcp(), ExchangeServer::unix(&directory.path().join("server.sock"))];
    let pool = "proxy_protocol = \"v2\"";
    let setting = setting_in(directory, &[&servers[0].address, &servers[1].address], pool);
    for number in 0..8 {
        let mut plan = Plan::random(number, 2_000_000).kept_whole();
        if number < 3 {
            plan.close =
                [Close::ServerFirst, Close::ClientFirst, Close::EachWhenDone][number as usize];
        }
        let client = ExchangeClient::connect(&setting.config, setting.address, plan);
        let client = client.expect("connect").finish(PATIENCE);
        let server = servers[number as usize % 2].wait_for_outcome(&plan);
        plan.judge(&client, server.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(servers.each_ref().map(ExchangeServer::served), [4, 4]);
}
