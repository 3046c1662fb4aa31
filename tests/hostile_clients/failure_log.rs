//! What the log says of failed handshakes: one line each, with who, what name, and why;
//! not more of them than it may, and the rest counted.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};

use crate::stage::{NAME, Stage, client_hello, failure, rest};
use crate::support::tls_client;

#[test]
fn each_failure_is_one_line_with_peer_name_and_reason() {
    let listener = "unknown_sni = \"reject\"\nalpn = [\"h2\"]\nminimum_version = \"1.3\"\n\
                    groups = [\"x25519\"]";
    let mut stage = Stage::set_with(listener, "", "[timeouts]\nhandshake = \"500ms\"");

    let raw: [(&[u8], &str); 4] = [
        (b"\x80\x2e\x01\x03\x01", "not_tls"),
        (b"GET / HTTP/1.1\r\n\r\n", "plain_http"),
        (&[22, 3, 1, 0, 4, 2, 0, 0, 0], "client_hello_malformed"),
        (&client_hello()[..100], "client_gone"),
    ];
    for (bytes, reason) in raw {
        let mut stream = stage.connect();
        let peer = stream.local_addr().expect("address");
        stream.write_all(bytes).expect("sent");
        let _ = stream.shutdown(Shutdown::Write);
        rest(&mut stream);
        says(&mut stage, peer, "", reason);
    }

    let tls12 = tls_client::config_for(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let p256 = tls_client::config_with(CryptoProvider {
        kx_groups: vec![kx_group::SECP256R1],
        ..default_provider()
    });
    let mut http11 = tls_client::config();
    http11.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refused: [(ClientConfig, &str, &str); 4] = [
        (tls_client::config(), "other.example", "unknown_server_name"),
        (tls12, NAME, "no_shared_version"),
        (p256, NAME, "no_shared_group"),
        (http11, NAME, "no_shared_protocol"),
    ];
    for (config, name, reason) in refused {
        let mut tls = tls_client::connect(Arc::new(config), stage.address, name);
        let peer = tls.sock.local_addr().expect("address");
        failure(&mut tls);
        says(&mut stage, peer, name, reason);
    }

    // A client that does not like what it is shown, as if it did not trust it.
    let mut tls = tls_client::connect(Arc::new(tls_client::config()), stage.address, NAME);
    let peer = tls.sock.local_addr().expect("address");
    tls.conn.write_tls(&mut tls.sock).expect("the ClientHello is sent");
    tls.conn.read_tls(&mut tls.sock).expect("an answer");
    tls.sock.write_all(&[21, 3, 3, 0, 2, 2, 48]).expect("sent");
    says(&mut stage, peer, NAME, "client_alert");

    // A client that gets its answer and falls silent.
    let mut stream = stage.connect();
    let peer = stream.local_addr().expect("address");
    stream.write_all(&client_hello()).expect("sent");
    rest(&mut stream);
    says(&mut stage, peer, NAME, "timeout");
}

/// Waits for the line about `peer` and holds it to the rest.
fn says(stage: &mut Stage, peer: SocketAddr, server_name: &str, reason: &str) {
    let line = stage.forebay.wait_for_log(&format!("peer={peer} "));
    for part in [
        "handshake failed",
        "listener=\"hostile\"",
        &format!("server_name=\"{server_name}\""),
        &format!("reason=\"{reason}\""),
        "detail=",
        "suppressed=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let of_peer = format!("peer={peer} ");
    let lines = stage.forebay.log().iter().filter(|line| line.contains(&of_peer)).count();
    assert_eq!(lines, 1, "one failure, one line");
}

#[test]
fn lines_beyond_the_limit_are_counted_and_not_written() {
    const FAILURES: usize = 500;
    const PER_SECOND: usize = 5;
    let mut stage = Stage::set(&format!("[log]\nfailures_per_second = {PER_SECOND}"));
    for _ in 0..FAILURES {
        let mut stream = stage.connect();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        rest(&mut stream);
    }
    stage.wait_for_failures("plain_http", FAILURES);
    // What found no line to be counted in gets one of its own a little later.
    stage.forebay.wait_until("every failure is logged or counted", |forebay| {
        let lines = failure_lines(&forebay.log());
        lines.iter().map(|line| line.count).sum::<usize>() == FAILURES
    });
    let lines = failure_lines(&stage.forebay.log());
    let (first, last) = (lines[0].second, lines[lines.len() - 1].second);
    // A second's worth at once, and so many in each second after that.
    let allowed = PER_SECOND * (last - first + 2);
    assert!(lines.len() <= allowed, "{} lines where {allowed} are allowed", lines.len());
    stage.is_as_before();
}

struct FailureLine {
    /// Of the day.
    second: usize,
    /// The failures that it stands for.
    count: usize,
}

fn failure_lines(log: &[String]) -> Vec<FailureLine> {
    log.iter()
        .filter(|line| line.contains("suppressed="))
        .map(|line| {
            let (_, suppressed) = line.split_once("suppressed=").expect("just looked for");
            let digits = suppressed.split(|letter: char| !letter.is_ascii_digit()).next();
            let suppressed: usize =
                digits.and_then(|digits| digits.parse().ok()).expect("a number");
            FailureLine {
                second: second_of_the_day(line),
                count: suppressed + usize::from(line.contains("peer=")),
            }
        })
        .collect()
}

/// From a line that begins like `2026-11-22T21:28:07.123456Z`.
fn second_of_the_day(line: &str) -> usize {
    let (_, time) = line.split_once('T').expect("a time");
    let part = |place: usize| time[place..place + 2].parse::<usize>().expect("a time");
    (part(0) * 60 + part(3)) * 60 + part(6)
}
