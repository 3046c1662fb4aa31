//! More clients than forebay can shake hands with: those who are in go on as if nothing
//! were, and of those outside as many get in as ever could.
//!
//! `cargo test` runs a small storm of fixed size and judges bytes, not times. The
//! measured one is `scripts/storm`.
//!
//! | file | job |
//! |---|---|
//! | `clients` | offers handshakes at a rate, whatever becomes of them, on one thread |
//! | `probes` | how long a KiB takes there and back on established connections |
//! | `report` | the measured storm |

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod probes;
mod report;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clients::{Clients, Load, Tally};
use support::certificates::{Key, self_signed};
use support::echo::EchoBackend;
use support::forebay::{Forebay, PATIENCE};
use support::ports::free_address;
use support::tls_client;

const NAME: &str = "forebay.example";

/// Starts forebay with one engine, one worker and an echoing backend.
fn start(directory: &Path, key: Key, backend: &EchoBackend, more: &str) -> (Forebay, SocketAddr) {
    self_signed(directory, "certificate.pem", key, &[NAME]);
    let address = free_address();
    let configuration = format!(
        r#"
        [[listener]]
        address = "{address}"
        certificates = ["certificate.pem"]
        pool = "echo"

        [[pool]]
        name = "echo"
        backends = ["{}"]

        {more}
        "#,
        backend.address
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
    let few_credits = "[engine]\nengines = 1\n[handshake]\nworkers = 1\ncredits = 8";
    let (mut forebay, address) = start(directory.path(), Key::Rsa2048, &backend, few_credits);
    let over = AtomicBool::new(false);
    let over = &over;
    let tally = thread::scope(|scope| {
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
        let mut clients = Clients::new(address, NAME);
        let load = Load { in_flight_max: 400, connections_max: 1_500, ..Load::default() };
        let mut tally = clients.run(&Load { patience: Duration::from_millis(40), ..load });
        tally += clients.run(&Load { patience: PATIENCE, ..load });
        drop(until);
        for relay in relays {
            relay.join().expect("every byte was relayed");
        }
        tally
    });
    let Tally { offered, completed, refused, given_up, .. } = tally;
    assert_eq!(offered, 3_000);
    assert_eq!(completed + refused + given_up, offered, "each came to some end");
    // Of the second half nobody leaves by himself.
    assert!(completed + refused >= 1_500, "{completed} completed, {refused} refused");
    assert!(completed > 0, "handshakes are completed during the storm");

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
