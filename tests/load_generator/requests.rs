//! Requests and bulk transfers on connections that stay.

use crate::program::{assert_plausible, load, number, report, text};
use crate::site::{LARGE_BYTES, SMALL_BYTES, Site};

#[test]
fn requests_share_a_few_connections() {
    let site = Site::start();
    let report = report(&[
        "requests",
        &site.at(),
        "--path=/files/small",
        "--connections=4",
        "--operations=400",
        "--warm-up=0s",
        "--tls=1.2",
        &format!("--server-pid={}", site.pid()),
    ]);
    assert_eq!(number(&report, "/operations"), 400.0);
    assert_plausible(&report["latency_us"]);
    let bytes = number(&report, "/bytes");
    let bodies = 400.0 * SMALL_BYTES as f64;
    assert!((bodies..bodies * 2.0).contains(&bytes), "{bytes}");
    // The handshakes came before.
    assert_eq!(text(&report, "/tls/version"), "1.2");
    assert_eq!(number(&report, "/tls/handshakes"), 4.0);
    for path in ["/client/cpu_ms_per_gb", "/server/cpu_ms_per_gb", "/server/cpu_us_per_operation"] {
        assert!(number(&report, path) > 0.0, "{path}");
    }
    assert!(number(&report, "/server/memory_bytes_per_connection") >= 0.0);
}

#[test]
fn an_open_loop_of_requests_offers_the_rate_that_was_asked_for() {
    let site = Site::start();
    let arguments = ["--path=/files/small", "--rate=500", "--duration=1s", "--warm-up=100ms"];
    let report = report(&[&["requests", &site.at()], &arguments[..]].concat());
    assert!((number(&report, "/offered") - 500.0).abs() <= 1.0, "{report}");
    assert_eq!(number(&report, "/operations"), number(&report, "/offered"));
    assert_plausible(&report["client"]["lateness_us"]);
}

#[test]
fn large_transfers_are_counted_by_their_bytes() {
    let site = Site::start();
    let arguments = ["--path=/files/large", "--operations=8", "--warm-up=0s", "--connections=2"];
    let report = report(&[&["bulk", &site.at()], &arguments[..]].concat());
    assert_eq!(number(&report, "/operations"), 8.0);
    let (bytes, bodies) = (number(&report, "/bytes"), 8.0 * LARGE_BYTES as f64);
    assert!((bodies..bodies * 1.1).contains(&bytes), "{bytes}");
    assert!(number(&report, "/client/cpu_ms_per_gb") > 0.0);
}

#[test]
fn people_are_shown_a_table() {
    let site = Site::start();
    let arguments = ["--path=/files/small", "--operations=1000", "--warm-up=0s"];
    let run = load(&[&["requests", &site.at()], &arguments[..]].concat());
    assert_eq!(run.code, Some(0), "{}", run.errors);
    for part in ["1.3, TLS_", "1,000 in", "p99.9", "this program's CPU", "µs an operation"] {
        assert!(run.output.contains(part), "no {part:?} in\n{}", run.output);
    }
}
