//! A browser: another TLS library, a ClientHello in two segments, connections opened ahead
//! of need, HTTP/2 with several requests at once.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::Forebay;
use crate::support::nginx::Nginx;
use crate::support::ports::free_address;
use crate::support::program::{command, run};
use crate::{site, with_each_provider};

with_each_provider!(chromium_loads_a_page_with_its_parts_over_http2);

const PAGE: &str = r#"<!DOCTYPE html>
<title>forebay</title>
<p id="result">the script did not run</p>
<script src="script.js"></script>
"#;

/// Says in the page what the browser itself thinks that the page came by, and what else it
/// could load.
const SCRIPT: &str = r#"
const [navigation] = performance.getEntriesByType("navigation");
const part = new XMLHttpRequest();
part.open("GET", "part.txt", false);
part.send();
document.getElementById("result").textContent =
    `came by ${navigation.nextHopProtocol}, part of ${part.responseText.length} bytes`;
"#;

fn chromium_loads_a_page_with_its_parts_over_http2(provider: &str) {
    let mut version = command("chromium");
    if !starts(version.arg("--version")) {
        eprintln!("skipped: chromium is not installed; scripts/test installs it as root");
        return;
    }
    let directory = tempfile::tempdir().expect("tempdir");
    let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &["localhost"]);
    let mut nginx = Nginx::start(directory.path());
    fs::write(nginx.files.join("page.html"), PAGE).expect("write");
    fs::write(nginx.files.join("script.js"), SCRIPT).expect("write");
    fs::write(nginx.files.join("part.txt"), "x".repeat(300_000)).expect("write");
    let address = free_address();
    let text = [
        site::SMALL.to_owned(),
        site::provider(provider),
        site::listener(address, &[&certificate], "nginx", "alpn = [\"h2\"]"),
        site::pool("nginx", &nginx.http2_endpoints()[0], "v2"),
    ]
    .concat();
    let mut forebay = Forebay::start(directory.path(), &text);

    let mut chromium = command("chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
        .args(["--disable-component-update", "--disable-dev-shm-usage", "--no-proxy-server"])
        .arg("--ignore-certificate-errors")
        .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
        .arg("--dump-dom")
        .arg(format!("https://localhost:{}/files/page.html", address.port()));
    run(chromium, "").assert_success(&["came by h2, part of 300000 bytes"]);

    let seen = nginx.seen("/files/part.txt");
    assert!(seen.client.ip().is_loopback() && seen.connected_to == address, "{seen:?}");
    assert_eq!((seen.http.as_str(), seen.name.as_str()), ("HTTP/2.0", "localhost"));
    let group = if provider == "ring" { "group=\"x25519\"" } else { "group=\"X25519MLKEM768\"" };
    forebay.wait_until("the browser's group is counted", |forebay| {
        forebay.metric("forebay_handshakes_total", &["version=\"TLSv1.3\"", group]) >= 1.0
    });
}

fn starts(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
