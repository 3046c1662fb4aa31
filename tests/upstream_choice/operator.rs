//! `forebay servers`: an operator takes servers out and in again.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::{Setting, setting, text};

/// `forebay servers …` for the process of this setting: its exit code, and what it printed.
fn servers(setting: &Setting, arguments: &[&str]) -> (Option<i32>, String) {
    let (action, rest) = arguments.split_first().expect("an action");
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["servers", action, "-c"])
        .arg(&setting.forebay.configuration_file)
        .args(rest)
        .output()
        .expect("forebay starts");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

#[test]
fn a_server_that_is_drained_keeps_its_connections_and_gets_no_more_until_it_is_ready() {
    let backends = [Backend::listen(), Backend::listen()];
    let [first, second] = backends.each_ref().map(|one| one.address.clone());
    let mut setting = setting(&[&first, &second], "");
    let (_, mut client, mut server) = setting.choice(&backends);
    for action in ["drain", "maintain"] {
        let (code, printed) = servers(&setting, &[action, "servers", &first]);
        assert_eq!(code, Some(0), "{printed}");
        let state = if action == "drain" { "drain" } else { "maintenance" };
        assert_eq!(printed, format!("servers {first}: {state}, with 1 connections\n"));
        for _ in 0..4 {
            assert_eq!(setting.choice(&backends).0, 1);
        }
    }
    client.write_all(b"more").expect("write");
    let mut said = [0; 4];
    server.read_exact(&mut said).expect("it came through");
    assert_eq!(&said, b"more", "the connection goes on");

    let reloaded = text(
        &setting.directory,
        setting.address,
        &format!("[{first:?}, {second:?}]"),
        "balance = \"least_connections\"",
        "",
    );
    setting.reload(&reloaded);
    assert_eq!(setting.choice(&backends).0, 1, "it is out after a reload too");
    assert_eq!(servers(&setting, &["ready", "servers", &first]).0, Some(0));
    let mut kept = Vec::new();
    let mut chosen = Vec::new();
    for _ in 0..4 {
        let (index, client, server) = setting.choice(&backends);
        chosen.push(index);
        kept.push((client, server));
    }
    assert!(chosen.contains(&0), "it is back: {chosen:?}");
}

#[test]
fn the_list_shows_each_server_and_why_it_is_out() {
    let backends = [Backend::listen(), Backend::listen()];
    let [first, second] = backends.each_ref().map(|one| one.address.clone());
    let setting = setting(&[&first, &second], "connections_max = 7");
    servers(&setting, &["drain", "servers", &second]);
    let (code, printed) = servers(&setting, &["list"]);
    assert_eq!(code, Some(0), "{printed}");
    let words: Vec<Vec<&str>> =
        printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[1], ["servers", &first, "up", "ready", "1", "0/7", "-"]);
    assert_eq!(words[2], ["servers", &second, "drain", "drain", "1", "0/7", "-"]);

    let (_, printed) = servers(&setting, &["list", "--json"]);
    let listed: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(listed[1]["server"], *second);
    assert_eq!(listed[1]["operator"], "drain");
}

#[test]
fn a_server_that_there_is_not_is_told_and_nobody_is_changed() {
    let backend = Backend::listen();
    let setting = setting(&[&backend.address], "");
    let (code, printed) = servers(&setting, &["drain", "servers", "10.0.0.1:80"]);
    assert_eq!(code, Some(1));
    assert!(printed.contains("the pool \"servers\" has no server \"10.0.0.1:80\""), "{printed}");
    let (code, printed) = servers(&setting, &["maintain", "other", &backend.address]);
    assert_eq!(code, Some(1));
    assert!(printed.contains("there is no pool \"other\""), "{printed}");
    let up = setting.forebay.metric("forebay_pool_servers", &["state=\"up\""]);
    assert_eq!(up as u64, 1);
}
