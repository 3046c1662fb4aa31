//! Weights, backups, and the server that is a client's own.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::process::Command;

use crate::support::backend::Backend;
use crate::support::forebay::Forebay;
use crate::support::ports::free_address;
use crate::{Setting, setting, setting_with, text};

fn two() -> [Backend; 2] {
    [Backend::listen(), Backend::listen()]
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("directory")
}

/// Which of the servers gets each of so many clients, which leave at once.
fn choices(setting: &mut Setting, servers: &[Backend], count: usize) -> Vec<usize> {
    (0..count).map(|_| setting.choice(servers).0).collect()
}

#[test]
fn a_heavier_server_gets_more_connections_and_one_without_weight_none() {
    let servers = [Backend::listen(), Backend::listen(), Backend::listen()];
    let [one, two, three] = servers.each_ref().map(|server| &server.address);
    let backends = format!(
        "[\"{one}\", {{ address = \"{two}\", weight = 3 }}, \
         {{ address = \"{three}\", weight = 0 }}]"
    );
    let mut setting = setting_with(directory(), &backends, "", "");
    assert_eq!(choices(&mut setting, &servers, 8), [1, 0, 1, 1, 1, 0, 1, 1]);
}

#[test]
fn the_better_of_two_servers_is_the_one_with_fewer_connections() {
    let servers = two();
    let addresses = servers.each_ref().map(|server| server.address.as_str());
    let mut setting = setting(&addresses, "balance = \"random_two\"");
    // Of two servers both are always drawn.
    let mut open: [Vec<_>; 2] = Default::default();
    for _ in 0..8 {
        let (index, client, server) = setting.choice(&servers);
        open[index].push((client, server));
    }
    assert_eq!([open[0].len(), open[1].len()], [4, 4]);
}

#[test]
fn a_backup_stands_in_for_a_server_that_refuses_and_only_then() {
    let refusing = free_address();
    let servers = [Backend::listen()];
    let backup = &servers[0].address;
    let backends =
        |first: &str| format!("[\"{first}\", {{ address = \"{backup}\", backup = true }}]");
    let mut setting = setting_with(directory(), &backends(&refusing.to_string()), "", "");
    assert_eq!(choices(&mut setting, &servers, 3), [0, 0, 0], "the backup");

    let regular = Backend::listen();
    let configuration =
        text(&setting.directory, setting.address, &backends(&regular.address), "", "");
    setting.reload(&configuration);
    let [backup] = servers;
    assert_eq!(choices(&mut setting, &[backup, regular], 3), [1, 1, 1], "the regular one");
}

/// Where the clients of sources 127.0.0.1 to `count` come out.
fn by_source(setting: &mut Setting, servers: &[Backend], count: u8) -> Vec<usize> {
    let source = |last| IpAddr::from([127, 0, 0, last]);
    (1..=count)
        .map(|last| {
            let _client = setting.client_from(source(last), "a.test");
            setting.heard_by(servers).0
        })
        .collect()
}

#[test]
fn a_client_has_the_same_server_after_a_restart_a_reload_and_on_another_node() {
    const CLIENTS: u8 = 24;
    let servers = [Backend::listen(), Backend::listen(), Backend::listen()];
    let addresses = servers.each_ref().map(|server| server.address.as_str());
    let pool = "balance = \"maglev\"";
    let mut first = setting(&addresses, pool);
    let chosen = by_source(&mut first, &servers, CLIENTS);
    for server in 0..3 {
        assert!(chosen.contains(&server), "every server has clients: {chosen:?}");
    }
    assert_eq!(by_source(&mut first, &servers, CLIENTS), chosen);
    assert_eq!(explained(&first.forebay, &addresses), chosen[..8], "as `explain` says");

    let listed = format!("{addresses:?}");
    let same = text(&first.directory, first.address, &listed, pool, "");
    first.reload(&same);
    assert_eq!(by_source(&mut first, &servers, CLIENTS), chosen, "after a reload");

    let [one, two, three] = addresses;
    let mut second = setting(&[three, one, two], pool);
    assert_eq!(by_source(&mut second, &servers, CLIENTS), chosen, "on another node");
}

/// The servers that `forebay explain` names for the first 8 clients.
fn explained(forebay: &Forebay, addresses: &[&str]) -> Vec<usize> {
    let server = |last: u8| {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["explain", "--sni", "a.test", "--source", &format!("127.0.0.{last}"), "-c"])
            .arg(&forebay.configuration_file)
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("the server of the client's address"), "{said}");
        let line = said.lines().find(|line| line.contains("chosen")).expect("a server is chosen");
        addresses.iter().position(|address| line.contains(address)).expect("one of ours")
    };
    (1..=8).map(server).collect()
}

#[test]
fn clients_of_a_server_that_refuses_go_to_the_next_one_of_their_own_and_nobody_else_moves() {
    const CLIENTS: u8 = 24;
    let mut servers = vec![Backend::listen(), Backend::listen(), Backend::listen()];
    let addresses: Vec<String> = servers.iter().map(|server| server.address.clone()).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut setting = setting(&addresses, "balance = \"maglev\"");
    let before = by_source(&mut setting, &servers, CLIENTS);
    // Its address refuses from now on.
    drop(servers.pop());
    let during = by_source(&mut setting, &servers, CLIENTS);
    for (before, during) in before.iter().zip(&during) {
        assert!(*before == 2 || before == during, "{before} became {during}");
    }
    assert_eq!(by_source(&mut setting, &servers, CLIENTS), during);
    assert!(setting.forebay.metric("forebay_server_connect_failures_total", &[addresses[2]]) > 0.0);
}

#[test]
fn by_name_all_clients_of_a_name_have_one_server() {
    let servers = [Backend::listen(), Backend::listen(), Backend::listen()];
    let addresses = servers.each_ref().map(|server| server.address.as_str());
    let mut setting = setting(&addresses, "balance = \"maglev\"\nhash = \"sni\"");
    let mut of_name = |name: &str, last: u8| {
        let _client = setting.client_from([127, 0, 0, last].into(), name);
        setting.heard_by(&servers).0
    };
    let mut chosen = Vec::new();
    for name in ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"] {
        let first = of_name(name, 1);
        assert_eq!((of_name(name, 2), of_name(name, 3)), (first, first), "{name}");
        chosen.push(first);
    }
    chosen.sort_unstable();
    chosen.dedup();
    assert!(chosen.len() > 1, "names are apart");
}

#[test]
fn a_reload_of_the_pool_moves_no_connection_that_stands() {
    let servers = two();
    let addresses = servers.each_ref().map(|server| server.address.as_str());
    let mut setting = setting(&addresses, "");
    let mut standing: Vec<_> = (0..4).map(|_| setting.choice(&servers)).collect();
    let other = Backend::listen();
    let listed = format!("[\"{}\"]", other.address);
    let configuration =
        text(&setting.directory, setting.address, &listed, "balance = \"maglev\"", "");
    setting.reload(&configuration);
    for (_, client, server) in &mut standing {
        client.write_all(b"still").expect("write");
        server.read_exact(&mut [0; 5]).expect("the same server hears it");
        server.write_all(b"here").expect("write");
        client.read_exact(&mut [0; 4]).expect("its answer");
    }
    let servers = [other];
    assert_eq!(setting.choice(&servers).0, 0, "new ones go to the new server");
}
