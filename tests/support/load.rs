//! Exchanges without pause, a given number of them at any time, each judged to the byte.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::exchange::{Outcome, Plan};
use super::exchange_client::ExchangeClient;
use super::exchange_server::ExchangeServer;
use super::forebay::PATIENCE;
use super::peers::{scratch, turn};
use super::tls_client;

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    refusal_expected: Arc<AtomicBool>,
    judged: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Keeps `at_once` exchanges going through `address`, which come out at one of
    /// `servers`.
    pub fn start(address: SocketAddr, servers: &[Arc<ExchangeServer>], at_once: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let refusal_expected = Arc::new(AtomicBool::new(false));
        let judged = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let running = Running {
                address,
                servers: servers.to_vec(),
                at_once,
                stop: Arc::clone(&stop),
                refusal_expected: Arc::clone(&refusal_expected),
                judged: Arc::clone(&judged),
            };
            move || running.run()
        });
        Self { stop, refusal_expected, judged, thread: Some(thread) }
    }

    /// Waits until so many more exchanges are over, each of them in full.
    pub fn goes_on(&self, count: u64) {
        let begin = Instant::now();
        let before = self.judged.load(Ordering::Relaxed);
        while self.judged.load(Ordering::Relaxed) < before + count {
            assert!(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "it failed");
            assert!(begin.elapsed() < PATIENCE, "the load stalls");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// From now on a connection may be refused, which ends the load when what it has
    /// begun is over.
    pub fn expect_refusal(&self) {
        self.refusal_expected.store(true, Ordering::SeqCst);
    }

    /// Begins nothing new, and waits for what it has begun.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("runs");
        assert!(thread.join().is_ok(), "the load failed");
        self.judged.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Running {
    address: SocketAddr,
    servers: Vec<Arc<ExchangeServer>>,
    at_once: usize,
    stop: Arc<AtomicBool>,
    refusal_expected: Arc<AtomicBool>,
    judged: Arc<AtomicU64>,
}

impl Running {
    fn run(self) {
        const BYTES_EACH_WAY_MAX: u64 = 400_000;
        let config = Arc::new(tls_client::config());
        let mut clients: Vec<ExchangeClient> = Vec::new();
        let mut scratch = scratch();
        let mut number = 0;
        let mut stopped = false;
        while !(stopped && clients.is_empty()) {
            stopped |= self.stop.load(Ordering::Relaxed);
            while !stopped && clients.len() < self.at_once {
                // Cut ones could not be told from lost ones.
                let plan = Plan::random(number, BYTES_EACH_WAY_MAX).kept_whole();
                number += 1;
                match ExchangeClient::connect(&config, self.address, plan) {
                    Ok(client) => clients.push(client),
                    Err(error) => {
                        let expected = self.refusal_expected.load(Ordering::SeqCst);
                        assert_eq!(
                            (error.kind(), expected),
                            (io::ErrorKind::ConnectionRefused, true)
                        );
                        stopped = true;
                    }
                }
            }
            turn(&mut clients, None, Duration::from_millis(20), &mut scratch);
            clients.retain(|client| {
                let Some(outcome) = client.outcome() else { return true };
                self.judge(&client.plan, &outcome);
                self.judged.fetch_add(1, Ordering::Relaxed);
                false
            });
        }
    }

    fn judge(&self, plan: &Plan, client: &Outcome) {
        let begin = Instant::now();
        let server = loop {
            let found = self.servers.iter().find_map(|server| server.outcome(plan.number));
            if found.is_some() || begin.elapsed() > PATIENCE / 4 {
                break found;
            }
            thread::sleep(Duration::from_millis(2));
        };
        plan.judge(client, server.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    }
}
