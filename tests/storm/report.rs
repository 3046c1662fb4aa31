//! The measured storm: forebay on one CPU, everybody else on another, and figures that
//! are ratios of one and the same run.

use std::thread;
use std::time::Duration;

use core_affinity::CoreId;
use rustix::process::setpriority_process;

use crate::clients::{Clients, Load, Tally};
use crate::probes::Probes;
use crate::support::certificates::Key;
use crate::support::echo::EchoBackend;
use crate::support::forebay::Forebay;
use crate::{NAME, start};

const CPU_OF_FOREBAY: usize = 0;
const CPU_OF_CLIENTS: usize = 1;

/// Rounds, of which the median is reported.
const ROUNDS: usize = 3;

const WARM_UP: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(4);

/// Offered load in multiples of the capacity.
const LOADS: [u32; 3] = [1, 3, 10];

/// Handshakes in flight when the capacity is measured.
const CONCURRENCY: usize = 64;

/// Below the probes, above the fair share of nobody: the clients must not make the
/// probes wait for a CPU.
const NICENESS_OF_CLIENTS: i32 = 10;

/// One phase of one round.
struct Phase {
    p50_us: f64,
    p99_us: f64,
    tally: Tally,
    /// What forebay says of it, by name.
    counts: Vec<(&'static str, f64)>,
}

/// Prints the report. Run by `scripts/storm`.
#[test]
#[ignore = "measures; run it by scripts/storm"]
fn measured_storm() {
    let key = match std::env::var("STORM_KEY").as_deref() {
        Err(_) | Ok("rsa2048") => Key::Rsa2048,
        Ok("ec") => Key::EcdsaP256,
        Ok(other) => panic!("STORM_KEY={other}: rsa2048 or ec"),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let (forebay, address, backend) = {
        // The backend's thread inherits the CPU; forebay is started from a thread that
        // may use all, and pins itself.
        let backend = thread::spawn(|| {
            pin();
            EchoBackend::start()
        });
        let backend = backend.join().expect("the backend starts");
        let engine = format!(
            "[engine]\nengines = 1\ncpus = [{CPU_OF_FOREBAY}]\nmax_connections = 8192\n\
             [handshake]\nworkers = 1\ncpus = [{CPU_OF_FOREBAY}]\n{}",
            std::env::var("STORM_HANDSHAKE").unwrap_or_default(),
        );
        let (forebay, address) = start(directory.path(), key, &backend, &engine);
        (forebay, address, backend)
    };
    pin();
    let mut probes = Probes::connect(address, NAME);
    let mut clients = Clients::new(address, NAME);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round(&forebay, &mut probes, &mut clients));
    }
    print(key, &rounds);
    drop(backend);
}

fn pin() {
    assert!(core_affinity::set_for_current(CoreId { id: CPU_OF_CLIENTS }), "two CPUs");
}

/// Quiet, capacity, then each load.
struct Round {
    quiet: Phase,
    capacity_per_second: f64,
    storms: Vec<Phase>,
}

fn round(forebay: &Forebay, probes: &mut Probes, clients: &mut Clients) -> Round {
    let quiet = phase(forebay, probes, || {
        thread::sleep(WINDOW);
        Tally::default()
    });
    let full = Load {
        in_flight_max: CONCURRENCY,
        warm_up: WARM_UP,
        duration: WARM_UP + WINDOW / 2,
        ..Load::default()
    };
    let tally = nicely(|| clients.run(&full));
    let capacity_per_second = tally.completed as f64 / (WINDOW / 2).as_secs_f64();
    let storms = LOADS
        .iter()
        .map(|times| {
            let interval = Duration::from_secs_f64(1.0 / (capacity_per_second * f64::from(*times)));
            let load = Load {
                interval: Some(interval),
                warm_up: WARM_UP,
                duration: WARM_UP + WINDOW,
                ..Load::default()
            };
            let storm = phase(forebay, probes, || nicely(|| clients.run(&load)));
            // What waits in forebay's backlog from clients long gone.
            thread::sleep(Duration::from_millis(500));
            storm
        })
        .collect();
    Round { quiet, capacity_per_second, storms }
}

/// Runs `what` on a thread that yields to the probes.
fn nicely<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let nice = scope.spawn(|| {
            setpriority_process(None, NICENESS_OF_CLIENTS).expect("nicer is always allowed");
            what()
        });
        nice.join().expect("the clients ran")
    })
}

fn phase(forebay: &Forebay, probes: &mut Probes, what: impl FnOnce() -> Tally) -> Phase {
    let before = counts(forebay);
    let (times, tally) = probes.during(what);
    let counts = counts(forebay)
        .into_iter()
        .zip(before)
        .map(|((name, after), (_, before))| (name, after - before))
        .collect();
    let microseconds = |quantile| times.value_at_quantile(quantile) as f64 / 1_000.0;
    Phase { p50_us: microseconds(0.5), p99_us: microseconds(0.99), tally, counts }
}

fn counts(forebay: &Forebay) -> Vec<(&'static str, f64)> {
    [
        ("accepted", "forebay_connections_accepted_total", ""),
        ("steps run", "forebay_handshake_steps_total", ""),
        ("first steps run", "forebay_handshake_steps_total", "rsa"),
        ("done", "forebay_handshakes_total", ""),
        ("gone", "forebay_handshake_failures_total", "client_gone"),
        ("shed: queue full", "forebay_handshakes_shed_total", "queue_full"),
        ("shed: expired", "forebay_handshakes_shed_total", "expired"),
        ("shed: client gone", "forebay_handshakes_shed_total", "client_gone"),
        ("newest first", "forebay_handshake_newest_first_total", ""),
    ]
    .map(|(name, metric, label)| (name, forebay.metric(metric, &[label])))
    .to_vec()
}

fn print(key: Key, rounds: &[Round]) {
    let median = |value: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let capacity = median(&|round| round.capacity_per_second);
    let seconds = WINDOW.as_secs_f64();
    println!();
    println!(
        "One engine and one worker, both on CPU {CPU_OF_FOREBAY}; clients, probes and backend on \
         CPU {CPU_OF_CLIENTS}. {key:?}, TLS 1.3, X25519, full handshakes. Medians of {ROUNDS} \
         rounds. Capacity ({CONCURRENCY} handshakes in flight): {capacity:.0} a second."
    );
    println!();
    println!(
        "| offered load | 1 KiB echo p50 µs | p99 µs | p99 to quiet | completed handshakes a second | to capacity | gave up after 1 s | refused |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let quiet_p99 = median(&|round| round.quiet.p99_us);
    println!(
        "| none | {:.0} | {quiet_p99:.0} | 1.0 | | | | |",
        median(&|round| round.quiet.p50_us)
    );
    for (index, times) in LOADS.iter().enumerate() {
        let p50 = median(&|round| round.storms[index].p50_us);
        let p99 = median(&|round| round.storms[index].p99_us);
        let p99_ratio = median(&|round| round.storms[index].p99_us / round.quiet.p99_us);
        let completed = median(&|round| round.storms[index].tally.completed as f64 / seconds);
        let ratio = median(&|round| {
            round.storms[index].tally.completed as f64 / seconds / round.capacity_per_second
        });
        let share = |part: &dyn Fn(&Tally) -> u64| {
            100.0
                * median(&|round| {
                    let tally = &round.storms[index].tally;
                    part(tally) as f64 / tally.offered.max(1) as f64
                })
        };
        let gave_up = share(&|tally| tally.given_up);
        let refused = share(&|tally| tally.refused);
        println!(
            "| {times} × | {p50:.0} | {p99:.0} | {p99_ratio:.1} | {completed:.0} | {ratio:.2} | {gave_up:.0} % | {refused:.0} % |"
        );
    }
    println!();
    for (number, round) in rounds.iter().enumerate() {
        for (times, storm) in LOADS.iter().zip(&round.storms) {
            let due = round.capacity_per_second * f64::from(*times) * seconds;
            println!(
                "round {number}, {times} ×: echo p50 {:.0} µs, p99 {:.0} µs (quiet {:.0}, {:.0}); {} of \
                 {due:.0} due came, {} found no room, at most {} ms late; {} completed; {}",
                storm.p50_us,
                storm.p99_us,
                round.quiet.p50_us,
                round.quiet.p99_us,
                storm.tally.offered,
                storm.tally.no_room,
                storm.tally.late.as_millis(),
                storm.tally.completed,
                storm
                    .counts
                    .iter()
                    .map(|(name, count)| format!("{name} {count}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
    }
}
