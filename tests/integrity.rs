//! Bytes arrive exactly as they were sent, however many and however the connections
//! come, pause and go; and when they are gone, so is everything that they cost.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::version::TLS12;

use support::certificates::{Key, self_signed};
use support::configuration::configuration;
use support::exchange::Plan;
use support::exchange_client::ExchangeClient;
use support::exchange_server::ExchangeServer;
use support::forebay::{Forebay, PATIENCE};
use support::load::Load;
use support::peers::{scratch, turn};
use support::ports::free_address;
use support::process::{descriptors, resident_bytes};
use support::sockets::raise_descriptor_limit;
use support::tls_client;

#[test]
fn each_suite_of_aws_lc_rs_moves_200_mb_each_way_at_once() {
    every_suite_moves_bulk_both_ways("aws-lc-rs");
}

#[test]
fn each_suite_of_ring_moves_200_mb_each_way_at_once() {
    every_suite_moves_bulk_both_ways("ring");
}

fn every_suite_moves_bulk_both_ways(provider: &str) {
    const BYTES_EACH_WAY: u64 = 200_000_000;
    let directory = tempfile::tempdir().expect("directory");
    let names = ["exchange.test"];
    let ec = self_signed(directory.path(), "ec.pem", Key::EcdsaP256, &names);
    let rsa = self_signed(directory.path(), "rsa.pem", Key::Rsa2048, &names);
    let server = ExchangeServer::tcp();
    let address = free_address();
    let pool = "proxy_protocol = \"v2\"";
    let rest = format!("[tls]\nprovider = \"{provider}\"\n[engine]\nmax_connections = 64\n");
    let text = configuration(address, &[&ec, &rsa], &[&server.address], pool, &rest);
    let forebay = Forebay::start(directory.path(), &text);
    for (number, suite) in (0..).zip(ALL_CIPHER_SUITES) {
        let plan = Plan::bulk(number, BYTES_EACH_WAY);
        let config = Arc::new(tls_client::config_for(*suite));
        let client = ExchangeClient::connect(&config, address, plan).expect("connect");
        let client = client.finish(3 * PATIENCE);
        let judged = plan.judge(&client, server.wait_for_outcome(&plan).as_ref());
        judged.unwrap_or_else(|error| panic!("{suite:?}: {error}"));
    }
    let suites = ALL_CIPHER_SUITES.len() as u64;
    let relayed = forebay.metric("forebay_relayed_bytes_total", &["direction=\"to_clients\""]);
    assert_eq!(relayed as u64, suites * BYTES_EACH_WAY);
    assert_eq!(forebay.metric("forebay_completion_overflows_total", &[]) as u64, 0);
}

#[test]
fn handshakes_on_the_engines_themselves_serve_the_same_bytes() {
    let directory = tempfile::tempdir().expect("directory");
    let certificate = self_signed(directory.path(), "ec.pem", Key::EcdsaP256, &["exchange.test"]);
    let server = Arc::new(ExchangeServer::tcp());
    let address = free_address();
    let rest = "[handshake]\ninline = true\n[engine]\nengines = 2\nmax_connections = 512\n";
    let text = configuration(address, &[&certificate], &[&server.address], "", rest);
    let forebay = Forebay::start(directory.path(), &text);
    assert_eq!(forebay.metric("forebay_workers", &[]) as u64, 0);
    let load = Load::start(address, &[server], 40);
    load.goes_on(400);
    load.finish();
}

/// Connections that are open at once.
const CONNECTIONS: u64 = 2_000;

#[test]
fn two_thousand_connections_are_exact_and_leave_nothing_behind() {
    raise_descriptor_limit();
    let directory = tempfile::tempdir().expect("directory");
    let certificate = self_signed(directory.path(), "ec.pem", Key::EcdsaP256, &["exchange.test"]);
    let server = ExchangeServer::tcp();
    let address = free_address();
    let pool = "proxy_protocol = \"v2\"";
    // Two engines also where there is one CPU for both. The handshakes of a storm on slow
    // machines are to be done, not shed.
    let rest = "[engine]\nengines = 2\nmax_connections = 4096\n\
                [handshake]\nworkers = 1\n\
                [timeouts]\nclient_hello = \"2m\"\nhandshake = \"2m\"\nhalf_closed = \"2m\"\n";
    let text = configuration(address, &[&certificate], &[&server.address], pool, rest);
    let mut forebay = Forebay::start(directory.path(), &text);
    let at_rest = gauges(&forebay);
    let descriptors_at_rest = descriptors(forebay.pid());

    // A leak grows with every round. What the allocator keeps of a round that happened to
    // have more connections at once than any before does not come again.
    let mut resident_bytes = Vec::new();
    for round in 0..=ROUNDS_MAX {
        storm(&mut forebay, &server, address, round);
        resident_bytes.push(settle(&forebay, &at_rest, &descriptors_at_rest));
        if let [.., before, after] = resident_bytes[..]
            && after < before + GROWTH_MAX_BYTES
        {
            return;
        }
    }
    panic!("memory grew in every round: {resident_bytes:?} bytes resident");
}

/// Rounds after the first, which touches the pools and fills the allocator's caches.
const ROUNDS_MAX: u64 = 5;

/// Half a kilobyte lost with each connection is as much.
const GROWTH_MAX_BYTES: u64 = CONNECTIONS * 500;

/// Opens all connections, lets them go at once when all stand, and judges each.
fn storm(forebay: &mut Forebay, server: &ExchangeServer, address: SocketAddr, round: u64) {
    const BYTES_EACH_WAY_MAX: u64 = 300_000;
    let configs = [tls_client::config(), tls_12()].map(Arc::new);
    let mut clients: Vec<ExchangeClient> = (0..CONNECTIONS)
        .map(|index| {
            let plan = Plan::random(round * CONNECTIONS + index, BYTES_EACH_WAY_MAX);
            let config = &configs[usize::from(index % 4 == 3)];
            ExchangeClient::connect(config, address, plan).expect("connect").held()
        })
        .collect();
    let mut scratch = scratch();
    drive(&mut clients, &mut scratch, "every handshake is done", |clients| {
        let failed = clients.iter().find_map(ExchangeClient::outcome);
        assert!(failed.is_none(), "a handshake failed: {failed:?}");
        !clients.iter().any(ExchangeClient::is_handshaking)
    });
    forebay.wait_until("all connections stand", |forebay| {
        forebay.metric("forebay_connections_established", &[]) as u64 == CONNECTIONS
    });
    for client in &mut clients {
        client.release();
    }
    let mut judged = 0;
    drive(&mut clients, &mut scratch, "every exchange is over", |clients| {
        clients.retain(|client| {
            let Some(outcome) = client.outcome() else { return true };
            let server = server.wait_for_outcome(&client.plan);
            client.plan.judge(&outcome, server.as_ref()).unwrap_or_else(|error| panic!("{error}"));
            judged += 1;
            false
        });
        clients.is_empty()
    });
    assert_eq!(judged, CONNECTIONS);
}

/// Lets `clients` go on until `condition` holds.
fn drive(
    clients: &mut Vec<ExchangeClient>,
    scratch: &mut [u8],
    what: &str,
    mut condition: impl FnMut(&mut Vec<ExchangeClient>) -> bool,
) {
    let begin = Instant::now();
    while !condition(clients) {
        assert!(
            begin.elapsed() < 2 * PATIENCE,
            "waiting until {what}, for {} of which the first is {:?}",
            clients.len(),
            clients.first()
        );
        turn(clients, None, Duration::from_millis(100), scratch);
    }
}

/// Waits until everything but memory is as it was, and returns the memory.
fn settle(
    forebay: &Forebay,
    gauges_at_rest: &BTreeMap<String, String>,
    descriptors_at_rest: &[String],
) -> u64 {
    let begin = Instant::now();
    loop {
        let gauges = gauges(forebay);
        let differing: Vec<String> = gauges_at_rest
            .iter()
            .filter(|(name, was)| gauges.get(*name) != Some(was))
            .map(|(name, was)| format!("{name} was {was}, is {:?}", gauges.get(name)))
            // A socket's number is not used twice.
            .chain(
                descriptors(forebay.pid())
                    .into_iter()
                    .filter(|one| !descriptors_at_rest.contains(one)),
            )
            .collect();
        if differing.is_empty() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "not as at rest: {differing:?}");
        thread::sleep(Duration::from_millis(10));
    }
    resident_bytes(forebay.pid())
}

/// Every gauge by its name and labels, but for memory and time.
fn gauges(forebay: &Forebay) -> BTreeMap<String, String> {
    let page = forebay.page("/metrics").expect("metrics");
    let names: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"))
        .filter(|name| !["memory", "seconds"].iter().any(|what| name.contains(what)))
        .collect();
    let gauges: BTreeMap<String, String> = page
        .lines()
        .filter(|line| names.contains(&line.split(['{', ' ']).next().unwrap_or_default()))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(gauges.len() > 10, "{page}");
    gauges
}

fn tls_12() -> ClientConfig {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.version() == &TLS12);
    tls_client::config_with(provider)
}
