//! More handshakes are asked for than the worker can do: whoever asks for much gets what is
//! left by those who ask for little.
//!
//! The certificates are RSA-4096, so that a few thousand clients a second are a flood on
//! any machine.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use support::certificates::{Key, self_signed};
use support::echo::EchoBackend;
use support::forebay::Forebay;
use support::ports::free_address;

const FLOODED: &str = "flooded.example";
const QUIET: &str = "quiet.example";

/// Honest clients, and those of them that may fail: 1 %.
const HONEST: u64 = 300;
const FAILURES_MAX: u64 = 3;

/// One flood at a time: two are more than a small machine can make.
static ALONE: Mutex<()> = Mutex::new(());

struct Site {
    _alone: MutexGuard<'static, ()>,
    forebay: Forebay,
    address: SocketAddr,
    directory: tempfile::TempDir,
    _backend: EchoBackend,
}

impl Site {
    /// One engine, one worker, two names, and whatever else is configured.
    fn start(more: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a directory");
        self_signed(directory.path(), "flooded.pem", Key::Rsa4096, &[FLOODED]);
        self_signed(directory.path(), "quiet.pem", Key::Rsa4096, &[QUIET]);
        let backend = EchoBackend::start();
        let address = free_address();
        let configuration = format!(
            r#"
            [[listener]]
            address = "{address}"
            certificates = ["flooded.pem", "quiet.pem"]
            pool = "echo"

            [[pool]]
            name = "echo"
            backends = ["{}"]

            [engine]
            engines = 1

            [handshake]
            workers = 1
            {more}
            "#,
            backend.address
        );
        let forebay = Forebay::start(directory.path(), &configuration);
        Self { _alone: alone, forebay, address, directory, _backend: backend }
    }

    /// Lets honest clients come while a flood goes on; what became of them. They are patient:
    /// who is not served is reset, and the machine may have other work.
    fn honest_beside_a_flood(&self, flooding: &[String], flooded_name: &str) -> Value {
        let mut flood = self.load(&["--rate", "2000", "--duration", "10s"], flooded_name);
        flood.args(["--connections", "1000", "--timeout", "1s", "--allow-failures", "100%"]);
        for source in flooding {
            flood.args(["--source", source]);
        }
        let mut flood = flood.stdout(Stdio::null()).spawn().expect("forebay-load runs");
        // Comes into a flood that is there already.
        std::thread::sleep(std::time::Duration::from_secs(2));
        let honest = ["--rate", "50", "--operations", &HONEST.to_string(), "--timeout", "5s"];
        let mut honest = self.load(&honest, QUIET);
        // From many places, as the users of a site do: by source each asks for little.
        honest.args(
            (1..=100).flat_map(|number| ["--source".to_owned(), format!("127.0.2.{number}")]),
        );
        honest.args(["--connections", "50", "--json"]);
        let output = honest.args(["--allow-failures", "100%"]).output().expect("it runs");
        assert!(flood.try_wait().expect("it waits").is_none(), "the flood went on to the end");
        flood.kill().expect("it ends");
        flood.wait().expect("it has ended");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn load(&self, arguments: &[&str], server_name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-load"));
        command
            .args(["handshakes", &self.address.to_string(), "--server-name", server_name])
            .args(["--tls", "1.3", "--group", "x25519", "--close", "reset", "--quiet"])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .current_dir::<&Path>(self.directory.path());
        command
    }

    fn shed(&self, cause: &str) -> f64 {
        self.forebay.metric("forebay_connections_shed_total", &[&format!("cause=\"{cause}\"")])
    }
}

fn failed(report: &Value) -> u64 {
    let failed = report["failed"].as_object().expect("failures by cause");
    assert_eq!(report["offered"].as_u64(), Some(HONEST), "{report}");
    failed.values().filter_map(Value::as_u64).sum()
}

#[test]
fn a_source_that_floods_makes_no_other_fail() {
    let mut site = Site::start("");
    let report = site.honest_beside_a_flood(&["127.0.0.66".to_owned()], FLOODED);
    assert!(failed(&report) <= FAILURES_MAX, "{report}");
    assert!(site.shed("source_share") > 1_000.0, "it was a flood");
    site.forebay.wait_for_log("source=127.0.0.66/32 cause=\"source_share\"");
}

#[test]
fn a_name_that_many_sources_flood_makes_no_other_fail() {
    let mut site = Site::start("");
    // More of them than steps can wait: each has less than its share.
    let flooding: Vec<_> = (1..=200).map(|number| format!("127.0.1.{number}")).collect();
    let report = site.honest_beside_a_flood(&flooding, FLOODED);
    assert!(failed(&report) <= FAILURES_MAX, "{report}");
    assert!(site.shed("name_share") > 1_000.0, "it was a flood");
    site.forebay.wait_for_log("server_name=\"flooded.example\" cause=\"name_share\"");
}

#[test]
fn a_crowd_that_can_only_be_refused_waits_outside_until_it_is_gone() {
    let mut site = Site::start("");
    let mut flood = site.load(&["--rate", "8000", "--duration", "30s"], FLOODED);
    flood.args(["--connections", "2000", "--timeout", "1s", "--allow-failures", "100%"]);
    let mut flood = flood.stdout(Stdio::null()).spawn().expect("forebay-load runs");
    let crowded = |forebay: &Forebay| forebay.metric("forebay_crowded", &[]);
    site.forebay.wait_until("there is a crowd", |forebay| crowded(forebay) == 1.0);
    flood.kill().expect("it ends");
    flood.wait().expect("it has ended");
    site.forebay.wait_until("the crowd is gone", |forebay| crowded(forebay) == 0.0);
}

#[test]
fn a_burst_from_one_source_is_served_late_and_not_refused() {
    const BURST: &str = "700";
    let site = Site::start("");
    let mut burst = site.load(&["--operations", BURST, "--connections", BURST], QUIET);
    let output = burst.arg("--json").output().expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(output.status.success(), "{report}");
    assert_eq!(site.forebay.metric("forebay_connections_shed_total", &[]), 0.0);
}

#[test]
fn what_handshakes_cost_is_measured_at_start_and_told() {
    let mut site = Site::start("");
    let measured = site.forebay.wait_for_log("handshakes measured");
    assert!(measured.contains("key=\"rsa-4096\""), "{measured}");
    let settled = site.forebay.wait_for_log("handshake capacity");
    assert!(settled.contains("credits=1024") && settled.contains("measured=true"), "{settled}");
    let rate = site.forebay.metric("forebay_handshake_capacity_per_second", &["rsa-4096"]);
    assert!(rate > 1.0, "{rate}");
}

#[test]
fn nothing_is_measured_if_that_is_not_wanted() {
    let mut site = Site::start("calibrate = false");
    let settled = site.forebay.wait_for_log("handshake capacity");
    assert!(settled.contains("credits=1563") && settled.contains("measured=false"), "{settled}");
    assert!(!site.forebay.log().iter().any(|line| line.contains("handshakes measured")));
}
