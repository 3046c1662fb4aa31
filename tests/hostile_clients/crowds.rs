//! A thousand connections that go no further, while others are served.

use std::io::Write;
use std::net::TcpStream;

use crate::stage::{Stage, client_hello};

const CROWD: usize = 1_000;

/// Opens a crowd that sends `first_bytes` and waits until all are accepted.
fn gather(stage: &mut Stage, first_bytes: &[u8]) -> Vec<TcpStream> {
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let mut stream = stage.connect();
            stream.write_all(first_bytes).expect("sent");
            stream
        })
        .collect();
    stage.forebay.wait_until("the crowd is accepted", |forebay| {
        forebay.metric("forebay_connections", &[]) == CROWD as f64
    });
    crowd
}

#[test]
fn a_thousand_silent_connections_keep_nobody_from_being_served() {
    let mut stage = Stage::set("[timeouts]\nclient_hello = \"60s\"");
    let crowd = gather(&mut stage, b"");
    assert_eq!(
        stage.forebay.metric("forebay_buffers_in_use", &[]),
        0.0,
        "a connection without a byte holds no buffer"
    );
    for _ in 0..20 {
        stage.serves();
    }
    drop(crowd);
    stage.is_as_before();
    assert_eq!(stage.forebay.metric("forebay_handshake_failures_total", &[]), 0.0);
}

#[test]
fn a_thousand_silent_connections_are_closed_in_time() {
    let mut stage = Stage::set("[timeouts]\nclient_hello = \"3s\"");
    let crowd: Vec<TcpStream> = (0..CROWD).map(|_| stage.connect()).collect();
    stage.wait_for_failures("client_hello_timeout", CROWD);
    stage.is_as_before();
    drop(crowd);
}

#[test]
fn a_thousand_halves_of_a_client_hello_keep_nobody_from_being_served() {
    let mut stage = Stage::set("[timeouts]\nclient_hello = \"60s\"");
    let hello = client_hello();
    let crowd = gather(&mut stage, &hello[..hello.len() / 2]);
    for _ in 0..20 {
        stage.serves();
    }
    assert_eq!(
        stage.forebay.metric("forebay_handshakes_in_progress", &[]),
        0.0,
        "half a ClientHello takes no credit"
    );
    drop(crowd);
    stage.wait_for_failures("client_gone", CROWD);
    stage.is_as_before();
}

#[test]
fn clients_that_fall_silent_in_mid_handshake_do_not_keep_the_credits_from_others() {
    let mut stage = Stage::set("[handshake]\ncredits = 8\n[timeouts]\nhandshake = \"10m\"");
    let hello = client_hello();
    let silent: Vec<TcpStream> = (0..24)
        .map(|_| {
            let mut stream = stage.connect();
            stream.write_all(&hello).expect("sent");
            stream
        })
        .collect();
    // Whoever comes now would wait for ten minutes if nobody made room.
    stage.serves();
    assert!(stage.failures("silent") > 0.0);
    drop(silent);
    stage.forebay.wait_until("the silent are gone", |forebay| {
        forebay.metric("forebay_handshakes_in_progress", &[]) == 0.0
    });
}

#[test]
fn a_crowd_that_takes_every_buffer_holds_them_no_longer_than_a_client_hello_may_take() {
    // A quarter of what the crowd asks for.
    let mut stage = Stage::set_with("", "buffers = 256", "[timeouts]\nclient_hello = \"1s\"");
    let hello = client_hello();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut stream = stage.connect();
        // Who comes late may find its predecessors' time over, and itself reset.
        let _ = stream.write_all(&hello[..hello.len() / 2]);
        crowd.push(stream);
    }
    stage.forebay.wait_until("the crowd is gone", |forebay| {
        forebay.metric("forebay_connections_accepted_total", &[]) == CROWD as f64
            && forebay.metric("forebay_connections", &[]) == 0.0
    });
    assert!(stage.forebay.metric("forebay_buffers_exhausted_total", &[]) > 0.0);
    stage.is_as_before();
    drop(crowd);
}

#[test]
fn a_crowd_that_leaves_after_its_client_hello_costs_nobody_else_anything() {
    let mut stage = Stage::set("[handshake]\ncredits = 32");
    let hello = client_hello();
    for _ in 0..CROWD {
        let mut stream = stage.connect();
        stream.write_all(&hello).expect("sent");
    }
    stage.is_as_before();
}
