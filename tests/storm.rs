//! More clients than forebay can shake hands with: those who are in go on as if nothing
//! were, and of those outside as many get in as ever could.
//!
//! Bytes are judged here, not times: how long those who are in have to wait, and how many
//! get in, `scripts/compare` measures.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use support::certificates::{Key, self_signed};
use support::echo::EchoBackend;
use support::forebay::{Forebay, PATIENCE};
use support::ports::free_address;
use support::tls_client;

const NAME: &str = "forebay.example";

/// Handshakes in progress that are let in.
const CREDITS: u32 = 8;

/// Clients that come in each half of the storm.
const CLIENTS: u64 = 1_500;

/// Starts forebay with one engine, one worker, few credits, and a pool of this server.
fn start(directory: &Path, backend: &str, pool: &str, credits: u32) -> (Forebay, SocketAddr) {
    self_signed(directory, "certificate.pem", Key::Rsa2048, &[NAME]);
    let address = free_address();
    let configuration = format!(
        r#"
        [[listener]]
        address = "{address}"
        certificates = ["certificate.pem"]
        pool = "echo"

        [[pool]]
        name = "echo"
        backends = ["{backend}"]
        {pool}

        [engine]
        engines = 1

        [handshake]
        workers = 1
        credits = {credits}
        "#
    );
    (Forebay::start(directory, &configuration), address)
}

/// Ends a thread's loop when it goes out of scope, also by a panic.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn established_connections_relay_every_byte_through_a_storm() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = EchoBackend::start();
    let (forebay, address) = start(directory.path(), &backend.address.to_string(), "", CREDITS);
    weathers_a_storm(forebay, address, "reset");
}

#[test]
fn they_do_so_when_every_new_client_has_a_handshake_with_a_server_made_too() {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let backend = EchoBackend::start();
    // Another forebay, which can do more.
    let backend = backend.address.to_string();
    let (behind, server) = start(directories[1].path(), &backend, "", 100 * CREDITS);
    let tls = "[pool.tls]\nverify = \"dangerously_accept_anyone\"";
    let (forebay, address) = start(directories[0].path(), &server.to_string(), tls, CREDITS);
    // Clients that stay until the server has seen their end.
    let forebay = weathers_a_storm(forebay, address, "wait");
    assert!(forebay.metric("forebay_server_handshakes_total", &[]) > 100.0, "in the storm");
    assert_eq!(forebay.metric("forebay_server_handshake_failures_total", &[]), 0.0);
    drop(behind);
}

/// Some are in, and many more want to be, and end their connections so.
fn weathers_a_storm(mut forebay: Forebay, address: SocketAddr, close: &str) -> Forebay {
    let over = AtomicBool::new(false);
    let over = &over;
    let (impatient, patient) = thread::scope(|scope| {
        let relays: Vec<_> = (0..4_u8)
            .map(|number| {
                let mut tls = tls_client::connect(Arc::new(tls_client::config()), address, NAME);
                tls.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
                // In before the storm begins.
                relay(&mut tls, number, 0);
                scope.spawn(move || {
                    let mut rounds = 0_u64;
                    while !over.load(Ordering::Relaxed) || rounds < 20 {
                        rounds += 1;
                        relay(&mut tls, number, rounds);
                    }
                })
            })
            .collect();
        let until = Until(over);
        // Half of them will not wait, so that forebay has work to throw away.
        let storms = (storm(address, "40ms", close), storm(address, "60s", close));
        drop(until);
        for relay in relays {
            relay.join().expect("every byte was relayed");
        }
        storms
    });
    for report in [&impatient, &patient] {
        let failed = report["failed"].as_object().expect("failures by cause");
        let failed: u64 = failed.values().filter_map(Value::as_u64).sum();
        let completed = report["operations"].as_u64().expect("a number");
        assert_eq!(completed + failed, CLIENTS, "each came to some end: {report}");
    }
    assert!(patient["failed"].get("timed out").is_none(), "nobody is left waiting: {patient}");
    assert!(patient["operations"].as_u64() > Some(0), "handshakes go on in the storm: {patient}");

    let mut tls = tls_client::connect(Arc::new(tls_client::config()), address, NAME);
    relay(&mut tls, 9, 0);
    drop(tls);
    forebay.wait_until("all gauges are back at 0", |forebay| {
        ["connections", "handshakes_in_progress", "upstream_connections", "buffers_in_use"]
            .iter()
            .all(|gauge| forebay.metric(&format!("forebay_{gauge}"), &[]) == 0.0)
    });
    let log = forebay.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{}", log.join("\n"));
    forebay
}

/// Lets 400 clients at a time come, each with so much patience; what the load generator
/// says became of them.
fn storm(address: SocketAddr, patience: &str, close: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay-load"))
        .args(["handshakes", &address.to_string(), "--server-name", NAME])
        .args(["--connections", "400", "--operations", &CLIENTS.to_string()])
        .args(["--timeout", patience, "--close", close, "--allow-failures", "100%"])
        .args(["--json", "--quiet"])
        .stdin(Stdio::null())
        .output()
        .expect("forebay-load runs");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Sends a text of its own and receives exactly that.
fn relay(tls: &mut tls_client::TlsStream, number: u8, round: u64) {
    let length = 1 + (round as usize * 7_919) % 40_000;
    let text: Vec<u8> = (0..length).map(|index| (index as u8) ^ number ^ (round as u8)).collect();
    tls.write_all(&text).expect("sent");
    tls.flush().expect("sent");
    let mut back = vec![0; length];
    tls.read_exact(&mut back).expect("echoed");
    assert!(back == text, "relay {number}, round {round}: not the bytes that were sent");
}
