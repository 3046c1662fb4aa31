//! Connections that are held.

use serde_json::json;

use crate::program::{load, number, report};
use crate::site::Site;

#[test]
fn connections_are_held_and_their_memory_is_told() {
    let site = Site::start();
    let server = format!("--server-pid={}", site.pid());
    let report = report(&[
        "idle",
        &site.at(),
        "--connections=200",
        "--baseline=20",
        "--settle=200ms",
        "--duration=300ms",
        "--request=/files/small",
        &server,
    ]);
    assert_eq!(number(&report, "/idle/alive"), 200.0);
    assert_eq!(number(&report, "/idle/established"), 200.0);
    assert_eq!(number(&report, "/operations"), 200.0);
    let memory = number(&report, "/server/memory_bytes_per_connection");
    assert!((0.0..64.0 * 1_024.0).contains(&memory), "{memory}");
    // Each has made a request at the beginning and another at the end.
    let bytes = number(&report, "/bytes");
    assert!(bytes > 400.0 * crate::site::SMALL_BYTES as f64, "{bytes}");
}

#[test]
fn connections_that_end_meanwhile_are_missing_at_the_end() {
    let site = Site::with("[timeouts]\nidle = \"1s\"\n");
    let at = site.at();
    let arguments = ["idle", &at, "--connections=20", "--duration=4s", "--settle=0s", "--json"];
    let run = load(&arguments);
    assert_eq!(run.code, Some(1));
    assert_eq!(number(&run.json(), "/idle/established"), 20.0);
    assert_eq!(number(&run.json(), "/idle/alive"), 0.0);
    assert_eq!(run.json()["failed"], json!({"closed early": 20}));
}

#[test]
fn what_the_descriptor_limit_does_not_allow_is_not_tried_and_said() {
    let address = crate::support::ports::free_address().to_string();
    let run = load(&["idle", &address, "--connections=100000000", "--json"]);
    assert_eq!(run.code, Some(1), "nobody listens there");
    let report = run.json();
    let limit = number(&report, "/idle/descriptor_limit");
    assert!(number(&report, "/connections") < limit);
    assert!(run.errors.contains("the descriptor limit is"), "{}", run.errors);
    assert!(run.errors.contains("the server takes no more"), "{}", run.errors);
}
