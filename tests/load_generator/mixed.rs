//! Requests beside a storm.

use crate::program::{assert_plausible, load, number, report};
use crate::site::Site;

#[test]
fn requests_are_measured_alone_and_beside_new_clients() {
    let site = Site::start();
    let server = format!("--server-pid={}", site.pid());
    let report = report(&[
        "mixed",
        &site.at(),
        "--path=/files/small",
        "--connections=4",
        "--rate=100",
        "--storm-rate=50",
        "--patience=20s",
        "--duration=1s",
        "--warm-up=200ms",
        &server,
    ]);
    for phase in ["quiet", "storm"] {
        assert_plausible(&report[phase]["latency_us"]);
        assert!((number(&report[phase], "/requests") - 100.0).abs() <= 1.0, "{report}");
        assert!(number(&report[phase], "/server/cpu_us_per_operation") > 0.0);
    }
    let storm = &report["storm"];
    assert!((number(storm, "/offered") - 50.0).abs() <= 1.0, "{storm}");
    assert_eq!(number(storm, "/completed"), number(storm, "/offered"));
    assert_eq!((number(storm, "/gave_up"), number(storm, "/refused")), (0.0, 0.0));
    assert!(number(storm, "/goodput_per_second") > 40.0);
    assert_plausible(&storm["handshake_latency_us"]);
    let ratio = number(storm, "/latency_us/p99") / number(&report, "/quiet/latency_us/p99");
    assert!((number(&report, "/ratio_p99") - ratio).abs() < 0.01 * ratio + 0.002, "{report}");
}

#[test]
fn both_phases_are_kept_and_drawn() {
    let site = Site::start();
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (plot, histogram) = (format!("--plot={}", file("a.png")), file("a.hgrm"));
    let histogram = format!("--histogram={histogram}");
    let at = site.at();
    let times = ["--duration=500ms", "--warm-up=100ms", "--rate=100", "--storm-rate=20"];
    report(&[&["mixed", &at, "--path=/files/small", &plot, &histogram], &times[..]].concat());
    let png = std::fs::read(file("a.png")).expect("a picture");
    assert!(png.starts_with(b"\x89PNG"));
    let curves =
        ["quiet", "storm"].map(|phase| format!("{phase}={}", file(&format!("a-{phase}.hgrm"))));
    let run = load(&["plot", &file("b.svg"), &curves[0], &curves[1]]);
    assert_eq!(run.code, Some(0), "{}", run.errors);
    let svg = std::fs::read_to_string(file("b.svg")).expect("a picture");
    assert!(svg.contains(">quiet<") && svg.contains(">storm<"), "{svg}");
}

#[test]
fn new_clients_that_are_not_served_in_time_give_up() {
    let site = Site::start();
    let run = load(&[
        "mixed",
        &site.at(),
        "--path=/files/small",
        "--rate=50",
        "--storm-rate=100",
        "--storm-connections=1",
        // Nobody is as quick as that.
        "--patience=1us",
        "--duration=1s",
        "--warm-up=100ms",
        "--json",
    ]);
    assert_eq!(run.code, Some(0), "those that give up are no failure of the run: {}", run.errors);
    let storm = &run.json()["storm"];
    assert_eq!(number(storm, "/completed"), 0.0);
    assert!(number(storm, "/gave_up") > 90.0, "{storm}");
    assert_eq!(number(storm, "/offered"), number(storm, "/gave_up"));
}
