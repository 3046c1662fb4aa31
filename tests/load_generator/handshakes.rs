//! Connections.

use crate::program::{assert_plausible, number, report, text};
use crate::site::Site;

#[test]
fn as_many_connections_are_made_as_asked_for_and_the_server_saw_them() {
    let site = Site::start();
    let report = report(&[
        "handshakes",
        &site.at(),
        "--connections=8",
        "--operations=60",
        "--warm-up=0s",
        "--group=x25519",
        "--suite=TLS_AES_128_GCM_SHA256",
        &format!("--server-pid={}", site.pid()),
    ]);
    assert_eq!(text(&report, "/mode"), "handshakes");
    assert_eq!(text(&report, "/address"), site.at());
    assert_eq!(number(&report, "/operations"), 60.0);
    assert_eq!(report["failed"], serde_json::json!({}));
    assert_eq!(text(&report, "/tls/version"), "1.3");
    assert_eq!(text(&report, "/tls/suite"), "TLS_AES_128_GCM_SHA256");
    assert_eq!(text(&report, "/tls/group"), "x25519");
    assert_eq!(number(&report, "/tls/resumed_share"), 0.0);
    assert_plausible(&report["latency_us"]);
    assert!(number(&report, "/rate_per_second") > 0.0);
    // No full handshake costs less than 10 µs of CPU on either side, nor 100 ms.
    for side in ["client", "server"] {
        let cost = number(&report, &format!("/{side}/cpu_us_per_operation"));
        assert!((10.0..100_000.0).contains(&cost), "{side}: {cost}");
    }
    let (user, system) = (number(&report, "/server/user_us"), number(&report, "/server/system_us"));
    let total = number(&report, "/server/cpu_us_per_operation") * 60.0;
    assert!(((user + system) / total - 1.0).abs() < 0.01, "{user} + {system} of {total}");
    assert_eq!(site.forebay.metric("forebay_handshakes_total", &[]), 60.0);
}

#[test]
fn sessions_are_resumed_in_both_versions() {
    let site = Site::start();
    for version in ["1.2", "1.3"] {
        let tls = format!("--tls={version}");
        let at = site.at();
        let arguments =
            ["handshakes", &at, "--resumed", "--connections=4", "--operations=40", "--warm-up=0s"];
        let report = report(&[&arguments[..], &[&tls]].concat());
        assert_eq!(text(&report, "/tls/version"), version);
        assert_eq!(number(&report, "/tls/resumed_share"), 1.0, "{version}");
        assert_eq!(number(&report, "/operations"), 40.0);
    }
    let resumed = site.forebay.metric("forebay_handshakes_total", &["resumed=\"true\""]);
    assert!(resumed >= 80.0, "{resumed}");
}

#[test]
fn every_way_to_close_is_a_success() {
    let site = Site::start();
    for close in ["wait", "leave", "reset"] {
        let (at, close) = (site.at(), format!("--close={close}"));
        let report = report(&["handshakes", &at, "--operations=20", "--warm-up=0s", &close]);
        assert_eq!(number(&report, "/operations"), 20.0, "{close}");
    }
}

#[test]
fn a_connection_may_carry_a_request() {
    let site = Site::start();
    let arguments = ["--request=/files/small", "--operations=20", "--warm-up=0s"];
    let report = report(&[&["handshakes", &site.at()], &arguments[..]].concat());
    assert_eq!(number(&report, "/operations"), 20.0);
    assert!(number(&report, "/bytes") >= 20.0 * crate::site::SMALL_BYTES as f64);
    assert_plausible(&report["handshake_latency_us"]);
    let (whole, handshake) = (&report["latency_us"], &report["handshake_latency_us"]);
    assert!(number(whole, "/mean") > number(handshake, "/mean"), "{report}");
}

#[test]
fn an_open_loop_offers_the_rate_that_was_asked_for() {
    let site = Site::start();
    let arguments = ["--rate=100", "--duration=1s", "--warm-up=100ms"];
    let report = report(&[&["handshakes", &site.at()], &arguments[..]].concat());
    assert_eq!(number(&report, "/offered_rate_per_second"), 100.0);
    // The ends of the window may each take one or leave it.
    assert!((number(&report, "/offered") - 100.0).abs() <= 1.0, "{report}");
    assert_eq!(number(&report, "/operations"), number(&report, "/offered"));
}

#[test]
fn several_threads_share_the_connections() {
    let site = Site::start();
    let arguments = ["--threads=3", "--connections=7", "--operations=50", "--warm-up=0s"];
    let report = report(&[&["handshakes", &site.at()], &arguments[..]].concat());
    assert_eq!(number(&report, "/client/threads"), 3.0);
    assert_eq!(number(&report, "/operations"), 50.0);
}
