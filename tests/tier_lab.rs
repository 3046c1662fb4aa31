//! A whole tier of real parts keeps what `docs/TIER.md` says: `scripts/tier-lab test` with
//! this build. Where no network namespaces can be made it says so and tests nothing.

use std::process::Command;

/// The trials take less than a minute.
const SECONDS_MAX: &str = "180";

fn assert_tier_lab_succeeds(arguments: &[&str]) {
    let output = Command::new("timeout")
        .arg(SECONDS_MAX)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/tier-lab"))
        .args(["test", "--forebay", env!("CARGO_BIN_EXE_forebay")])
        .args(arguments)
        .output()
        .expect("timeout(1) runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
    println!("{said}");
}

#[test]
fn a_tier_loses_nothing_while_its_nodes_come_and_go() {
    assert_tier_lab_succeeds(&[]);
}

#[test]
fn a_tier_that_frr_routes_for_follows_its_nodes_as_soon() {
    assert_tier_lab_succeeds(&["--routing", "frr"]);
}
