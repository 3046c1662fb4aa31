//! Servers to which connections fail are given none for a while.

use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::ports::free_address;
use crate::support::sockets::reset_on_close;
use crate::{Setting, setting};

/// Waits until so many servers have been ejected since the start.
fn wait_for_ejections(setting: &mut Setting, count: u64) {
    setting.forebay.wait_until("a server is ejected", |forebay| {
        forebay.metric("forebay_server_ejections_total", &[]) as u64 == count
    });
}

fn connect_failures(setting: &Setting) -> u64 {
    setting.forebay.metric("forebay_server_connect_failures_total", &[]) as u64
}

/// A server, and an address that refuses until the second one is put there.
fn setting_with_one_dead(pool: &str) -> (Setting, Vec<Backend>, SocketAddr) {
    let address = free_address();
    let servers = vec![Backend::listen()];
    let setting = setting(&[&servers[0].address, &address.to_string()], pool);
    (setting, servers, address)
}

#[test]
fn a_server_that_refuses_is_given_no_more_connections() {
    let pool = "eject_after = 3\neject_time = \"1h\"";
    let (mut setting, servers, address) = setting_with_one_dead(pool);
    for _ in 0..12 {
        setting.choice(&servers);
    }
    wait_for_ejections(&mut setting, 1);
    let line = setting.forebay.wait_for_log("server ejected");
    assert!(line.contains(&format!("server=\"{address}\"")), "{line}");
    let failures = connect_failures(&setting);
    assert!(failures >= 3);
    for _ in 0..4 {
        setting.choice(&servers);
    }
    // The page of the metrics is printed ten times a second at most.
    thread::sleep(Duration::from_millis(150));
    assert_eq!(connect_failures(&setting), failures, "nobody was sent there");
}

#[test]
fn an_ejected_server_is_given_connections_again_when_its_time_is_over() {
    let pool = "eject_after = 3\neject_time = \"1s\"";
    let (mut setting, mut servers, address) = setting_with_one_dead(pool);
    for _ in 0..12 {
        setting.choice(&servers);
    }
    wait_for_ejections(&mut setting, 1);
    servers.push(Backend::listen_at(address));
    setting.forebay.wait_for_log("server no longer ejected");
    let chosen = [setting.choice(&servers).0, setting.choice(&servers).0];
    assert!(chosen.contains(&1), "it is back: {chosen:?}");
}

#[test]
fn a_server_that_resets_before_its_first_byte_is_ejected() {
    let servers = [Backend::listen(), Backend::listen()];
    let pool = "eject_after = 2\neject_time = \"1h\"";
    let mut setting = setting(&[&servers[0].address, &servers[1].address], pool);
    let mut resets = 0;
    while resets < 2 {
        let (index, mut client, server) = setting.choice(&servers);
        if index == 1 {
            resets += 1;
            reset_on_close(&server);
            drop(server);
            client.read(&mut [0]).expect_err("a reset");
        }
    }
    wait_for_ejections(&mut setting, 1);
    for _ in 0..4 {
        assert_eq!(setting.choice(&servers).0, 0);
    }
}

#[test]
fn the_last_server_is_never_ejected() {
    let address = free_address();
    let mut setting = setting(&[&address.to_string()], "eject_after = 1\neject_share_max = 99");
    for _ in 0..3 {
        setting.client().read(&mut [0]).expect_err("no server");
    }
    let servers = [Backend::listen_at(address)];
    assert_eq!(setting.choice(&servers).0, 0, "it serves as soon as it can");
    assert_eq!(setting.forebay.metric("forebay_server_ejections_total", &[]) as u64, 0);
}
