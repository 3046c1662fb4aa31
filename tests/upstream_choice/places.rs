//! Limits of connections, and who waits for a place.

use std::io::{Read, Write};
use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::sockets::reset_on_close;
use crate::support::tls_client;
use crate::{Setting, setting_with};

/// One server with so many places; `rest` is more keys of the pool, then of `[timeouts]`.
fn setting(server: &Backend, places: usize, pool: &str, timeouts: &str) -> Setting {
    let directory = tempfile::tempdir().expect("directory");
    let pool = format!("connections_max = {places}\n{pool}");
    let rest = format!("[timeouts]\n{timeouts}");
    setting_with(directory, &format!("[\"{}\"]", server.address), &pool, &rest)
}

fn wait_for_queue(setting: &mut Setting, length: u64) {
    setting.forebay.wait_until("so many wait", |forebay| {
        forebay.metric("forebay_server_queue", &[]) as u64 == length
    });
}

#[test]
fn who_finds_every_server_full_waits_for_a_place_in_the_order_of_coming() {
    let servers = [Backend::listen()];
    let mut setting = setting(&servers[0], 2, "", "");
    let first = setting.choice(&servers);
    let second = setting.choice(&servers);
    let mut waiting = Vec::new();
    for length in 1..=3 {
        let mut client = setting.client();
        client.write_all(&[length]).expect("write");
        waiting.push(client);
        wait_for_queue(&mut setting, length.into());
    }
    assert!(servers[0].try_accept().is_none(), "nobody goes beyond the limit");
    drop(first);
    for number in [1, 2, 3] {
        let (_, mut server) = setting.heard_by(&servers);
        let mut said = [0];
        server.read_exact(&mut said).expect("what it said while it waited");
        assert_eq!(said, [number]);
        server.write_all(b"served").expect("write");
        let client = &mut waiting[0];
        client.read_exact(&mut [0; 6]).expect("the answer");
        drop(waiting.remove(0));
    }
    wait_for_queue(&mut setting, 0);
    assert_eq!(setting.forebay.metric("forebay_server_queued_total", &[]) as u64, 3);
    drop(second);
}

#[test]
fn a_client_that_leaves_while_it_waits_gives_up_its_turn() {
    let servers = [Backend::listen()];
    let mut setting = setting(&servers[0], 1, "", "queue = \"60s\"");
    let kept = setting.choice(&servers);
    let mut leaving = tls_client::connect(Arc::clone(&setting.config), setting.address, "a.test");
    while leaving.conn.is_handshaking() {
        leaving.conn.complete_io(&mut leaving.sock).expect("a handshake");
    }
    wait_for_queue(&mut setting, 1);
    reset_on_close(&leaving.sock);
    drop(leaving);
    wait_for_queue(&mut setting, 0);
    drop(kept);
    assert_eq!(setting.choice(&servers).0, 0, "the place is the next one's");
}

/// The alert that the client gets instead of a server.
fn alert(client: &mut impl Read) -> String {
    client.read(&mut [0]).expect_err("an alert").to_string()
}

/// Waits until one connection is counted as shed for that cause.
fn wait_for_shed(setting: &mut Setting, cause: &str) {
    setting.forebay.wait_until("it is counted as shed", |forebay| {
        forebay.metric("forebay_connections_shed_total", &[cause]) as u64 == 1
    });
}

#[test]
fn who_has_waited_for_too_long_is_told_so_by_an_alert() {
    let servers = [Backend::listen()];
    let mut setting = setting(&servers[0], 1, "", "queue = \"50ms\"");
    let kept = setting.choice(&servers);
    let mut client = setting.client();
    assert!(alert(&mut client).contains("InternalError"));
    let line = setting.forebay.wait_for_log("connections were shed");
    assert!(line.contains("pool=\"servers\"") && line.contains("timeouts.queue"), "{line}");
    wait_for_shed(&mut setting, "server_queue_timeout");
    assert_eq!(setting.forebay.metric("forebay_connections_ended_total", &["shed"]) as u64, 1);
    drop(kept);
    assert_eq!(setting.choice(&servers).0, 0, "and the next one is served");
}

#[test]
fn beyond_the_queue_clients_are_turned_away_at_once() {
    let servers = [Backend::listen()];
    let mut setting = setting(&servers[0], 1, "queue_max = 1", "queue = \"60s\"");
    let kept = setting.choice(&servers);
    let waiting = setting.client();
    wait_for_queue(&mut setting, 1);
    let mut client = setting.client();
    assert!(alert(&mut client).contains("InternalError"));
    wait_for_shed(&mut setting, "server_queue_full");
    drop(kept);
    setting.heard_by(&servers);
    drop(waiting);
}

#[test]
fn a_place_that_a_removed_server_still_fills_counts_when_it_comes_back() {
    let servers = [Backend::listen()];
    let mut setting = setting(&servers[0], 1, "", "queue = \"60s\"");
    let with = std::fs::read_to_string(&setting.forebay.configuration_file).expect("readable");
    let (with, _) = with.split_once("[admin]").expect("the admin address is last");
    let with = with.to_owned();
    let other = Backend::listen();
    let without = with.replace(&servers[0].address, &other.address);
    let kept = setting.choice(&servers);
    setting.reload(&without);
    setting.reload(&with);
    let waiting = setting.client();
    wait_for_queue(&mut setting, 1);
    drop(kept);
    setting.heard_by(&servers);
    drop(waiting);
}
