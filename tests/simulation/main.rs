//! The engine in the simulated world: thousands of runs, each from its own seed, with
//! faults of every kind; see [`verdict`] for what must hold in all of them.
//!
//! A failing run prints the command that repeats it, with everything that happens.
//!
//! | file | job |
//! |---|---|
//! | `run` | builds a world, drives an engine in it |
//! | `setting` | draws from the seed what the run is like |
//! | `servers` | the servers of the pool, which die and come back |
//! | `verdict` | what must hold after it |
//! | `conversation` | what the ends of a connection are to say, and what they saw |
//! | `client`, `backend` | the programs on the far ends |
//! | `delayed_service` | handshake workers on simulated time |
//! | `tls` | certificates and configurations |

mod backend;
mod client;
mod conversation;
mod delayed_service;
mod run;
mod servers;
mod setting;
mod tls;
mod tls_backend;
#[allow(dead_code, unreachable_pub)]
#[path = "../support/tls_client.rs"]
mod tls_client;
mod verdict;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use run::{Summary, run};

/// Seeds that every test run goes through.
const SEEDS: u64 = 3000;

const SEED_VARIABLE: &str = "FOREBAY_SIMULATION_SEED";
const SEEDS_VARIABLE: &str = "FOREBAY_SIMULATION_SEEDS";

/// `FOREBAY_SIMULATION_SEEDS=100000` makes it a soak.
#[test]
fn every_seed_keeps_its_promises() {
    let seeds = variable(SEEDS_VARIABLE).unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<(Vec<u64>, Summary)> = thread::scope(|scope| {
        let work = || {
            let (mut failed, mut sum) = (Vec::new(), Summary::default());
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return (failed, sum);
                }
                match panic::catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
                    Ok(summary) => {
                        sum.conversations += summary.conversations;
                        sum.complete += summary.complete;
                        sum.bytes += summary.bytes;
                    }
                    Err(_) => {
                        // The panic has printed its message a line above.
                        eprintln!(
                            "seed {seed} failed; to repeat it:\n    {SEED_VARIABLE}={seed} \
                             cargo test --test simulation one_seed -- --nocapture"
                        );
                        failed.push(seed);
                    }
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut failed: Vec<_> = results.iter().flat_map(|(failed, _)| failed.clone()).collect();
    failed.sort_unstable();
    let complete: usize = results.iter().map(|(_, sum)| sum.complete).sum();
    let conversations: usize = results.iter().map(|(_, sum)| sum.conversations).sum();
    let bytes: usize = results.iter().map(|(_, sum)| sum.bytes).sum();
    println!("{complete} of {conversations} conversations complete, {bytes} bytes");
    assert!(failed.is_empty(), "seeds failed: {failed:?}; see above for each");
    // Faults must not be so many that nothing is tested but endings.
    assert!(complete * 3 > conversations, "{complete} of {conversations} complete");
}

/// Repeats the run that `FOREBAY_SIMULATION_SEED` names, and prints all of it.
#[test]
fn one_seed() {
    if let Some(seed) = variable(SEED_VARIABLE) {
        run(seed, true);
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..20 {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}
