//! What fails is counted, told, and seen in the exit code.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::program::{command, load, number, report};
use crate::site::Site;
use crate::support::forebay::PATIENCE;
use crate::support::ports::free_address;

#[test]
fn a_closed_port_fails_every_connection_and_ends() {
    let address = free_address().to_string();
    let run = load(&["handshakes", &address, "--operations=30", "--warm-up=0s", "--json"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.json()["failed"], json!({"connection refused": 30}));
    assert_eq!(number(&run.json(), "/operations"), 0.0);
    let run = load(&["requests", &address, "--json"]);
    assert_eq!(run.code, Some(1));
    assert!(run.errors.contains("connection refused"), "{}", run.errors);
}

#[test]
fn certificates_are_checked_if_asked_for() {
    let site = Site::start();
    let (at, file) = (site.at(), site.certificate.display().to_string());
    let arguments = ["handshakes", &at, "--operations=10", "--warm-up=0s", "--verify"];
    let trusted = [&arguments[..], &["--ca", &file, "--server-name=a.test"]].concat();
    assert_eq!(number(&report(&trusted), "/operations"), 10.0);

    let other_name = [&arguments[..], &["--ca", &file, "--server-name=b.test", "--json"]].concat();
    let run = load(&other_name);
    assert_eq!((run.code, &run.json()["failed"]), (Some(1), &json!({"certificate": 10})));

    let untrusted = [&arguments[..], &["--server-name=a.test", "--json"]].concat();
    let run = load(&untrusted);
    assert_eq!((run.code, &run.json()["failed"]), (Some(1), &json!({"certificate": 10})));
    assert!(run.errors.contains("invalid peer certificate"), "{}", run.errors);
}

#[test]
fn error_statuses_are_failures_that_may_be_allowed() {
    let site = Site::start();
    let at = site.at();
    let arguments = ["requests", &at, "--path=/files/none", "--operations=20", "--warm-up=0s"];
    let run = load(&[&arguments[..], &["--json"]].concat());
    assert_eq!((run.code, &run.json()["failed"]), (Some(1), &json!({"status 404": 20})));
    let allowed = [&arguments[..], &["--allow-failures=100%"]].concat();
    assert_eq!(number(&report(&allowed), "/operations"), 0.0);
}

#[test]
fn a_refused_offer_is_counted_by_its_alert() {
    let site = Site::start();
    // forebay's certificate is for ECDSA.
    let arguments = ["--tls=1.2", "--suite=ECDHE-RSA-AES128-GCM-SHA256", "--operations=5"];
    let run =
        load(&[&["handshakes", &site.at(), "--json", "--warm-up=0s"], &arguments[..]].concat());
    assert_eq!(run.code, Some(1));
    assert_eq!(run.json()["failed"], json!({"alert HandshakeFailure": 5}));
}

#[test]
fn mistakes_in_the_command_line_are_told_with_what_to_write() {
    for (arguments, words) in [
        ("handshakes localhost", "HOST:PORT"),
        ("handshakes 127.0.0.1:1 --suite TLS_AES_128_GCM", "did you mean"),
        ("handshakes 127.0.0.1:1 --cpus 0,4000", "CPU 4000"),
        ("requests 127.0.0.1:1 --duration 4x", "4s"),
    ] {
        let words_of_arguments: Vec<_> = arguments.split(' ').collect();
        let run = load(&words_of_arguments);
        assert_eq!(run.code, Some(2), "{arguments}");
        assert!(run.errors.contains(words), "{arguments}: {}", run.errors);
    }
    let run = load(&["handshakes", "127.0.0.1:1", "--server-pid=4194305"]);
    assert_eq!(run.code, Some(1));
    assert!(run.errors.contains("4194305"), "{}", run.errors);
    let run = load(&["handshakes", "127.0.0.1:1", "--connections=100000000"]);
    assert_eq!(run.code, Some(1));
    assert!(run.errors.contains("descriptor limit"), "{}", run.errors);
}

#[test]
fn an_interrupt_ends_the_run_with_what_was_measured() {
    let site = Site::start();
    let at = site.at();
    let arguments = ["requests", &at, "--path=/files/small", "--duration=1h", "--warm-up=0s"];
    let child = command(&[&arguments[..], &["--json"]].concat())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("forebay-load runs");
    let begin = std::time::Instant::now();
    while site.forebay.metric("forebay_relayed_bytes_total", &[]) < 100_000.0 {
        assert!(begin.elapsed() < PATIENCE, "no load comes");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = Pid::from_raw(child.id() as i32).expect("a process");
    kill_process(pid, Signal::INT).expect("kill");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(number(&report, "/operations") > 0.0, "{report}");
    assert!(number(&report, "/duration_seconds") < 3_600.0, "{report}");
}
