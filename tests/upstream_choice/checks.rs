//! Servers are checked, and those that fail get no clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::haproxy::Haproxy;
use crate::support::nginx::Nginx;
use crate::support::ports::free_address;
use crate::support::tls_client;
use crate::{Setting, setting, setting_in, text};

/// Quick enough for a test.
const CHECK: &str = "[pool.check]\ninterval = \"100ms\"\nrise = 2\nfall = 2\n";

fn count(setting: &Setting, state: &str) -> u64 {
    let label = format!("state=\"{state}\"");
    setting.forebay.metric("forebay_pool_servers", &[&label]) as u64
}

/// Waits until so many servers are in that state.
fn wait_for(setting: &mut Setting, state: &str, servers: u64) {
    let label = format!("state=\"{state}\"");
    setting.forebay.wait_until(&format!("{servers} are {state}"), |forebay| {
        forebay.metric("forebay_pool_servers", &[&label]) as u64 == servers
    });
}

fn total(setting: &Setting, name: &str) -> u64 {
    setting.forebay.metric(name, &[]) as u64
}

fn wait_for_total(setting: &mut Setting, name: &str, total: u64) {
    setting.forebay.wait_until(&format!("{name} is {total}"), |forebay| {
        forebay.metric(name, &[]) as u64 == total
    });
}

#[test]
fn real_servers_take_the_checks_for_what_they_are_and_one_that_stops_costs_no_client_anything() {
    let directory = tempfile::tempdir().expect("directory");
    let (haproxy, nginx) = (Haproxy::start(directory.path()), Nginx::start(directory.path()));
    let [over_tcp, over_unix] = haproxy.endpoints();
    let [nginx_over_tcp, _] = nginx.http1_endpoints();
    for version in ["v1", "v2"] {
        let pool = format!(
            "proxy_protocol = \"{version}\"\n{CHECK}\
             send = 'GET /check HTTP/1.1\\r\\nHost: check\\r\\nConnection: close\\r\\n\\r\\n'\n\
             expect = \"HTTP/1.1 200 OK\\r\\n\"\n"
        );
        let own = tempfile::tempdir().expect("directory");
        let mut setting = setting_in(own, &[&over_tcp, &over_unix, &nginx_over_tcp], &pool);
        setting.forebay.wait_until("all of them are checked", |forebay| {
            forebay.metric("forebay_server_checks_passed_total", &[]) as u64 >= 9
        });
        assert_eq!(total(&setting, "forebay_server_checks_failed_total"), 0, "{version}");
        assert_eq!(count(&setting, "up"), 3);
        if version == "v2" {
            stop_and_ask(&mut setting, haproxy);
            break;
        }
    }
    drop(nginx);
}

/// HAProxy stops; once that is noticed every client is served by who is left, at once.
fn stop_and_ask(setting: &mut Setting, haproxy: Haproxy) {
    drop(haproxy);
    wait_for(setting, "down", 2);
    let line = setting.forebay.wait_for_log("server fails its checks");
    assert!(line.contains("cause=cannot connect: "), "{line}");
    let failures = total(setting, "forebay_server_connect_failures_total");
    for number in 0..6 {
        let mut client =
            tls_client::connect(Arc::clone(&setting.config), setting.address, "a.test");
        let request =
            format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let answer = tls_client::exchange(&mut client, &request);
        assert!(answer.contains("this is nginx"), "{answer}");
    }
    thread::sleep(Duration::from_millis(150));
    assert_eq!(total(setting, "forebay_server_connect_failures_total"), failures);
}

#[test]
fn a_server_that_comes_back_is_given_clients_again() {
    let address = free_address();
    let servers = [Backend::listen_at(address)];
    // The first check is that of another port, where nobody listens.
    let other = free_address();
    let pool = format!("{CHECK}port = {}\n", other.port());
    let mut setting = setting(&[&address.to_string()], &pool);
    wait_for(&mut setting, "down", 1);
    let mut client = setting.client();
    let error = client.read(&mut [0]).expect_err("no server");
    assert!(error.to_string().contains("InternalError"), "{error}");
    wait_for_total(&mut setting, "forebay_pools_out", 1);
    setting.forebay.wait_for_log("pool has no server that takes connections");
    assert_eq!(total(&setting, "forebay_server_connect_failures_total"), 0, "nobody tried");

    let _listener = TcpListener::bind(other).expect("bind");
    wait_for(&mut setting, "up", 1);
    assert_eq!(setting.choice(&servers).0, 0);
    setting.forebay.wait_for_log("pool has a server again");
    setting.forebay.wait_for_log("server passes its checks again");
}

#[test]
fn a_server_that_is_out_is_out_after_a_reload_and_its_connections_live_on() {
    let address = free_address();
    let servers = [Backend::listen(), Backend::listen_at(address)];
    let other = TcpListener::bind(free_address()).expect("bind");
    let port = other.local_addr().expect("address").port();
    let backends = format!("[{:?}, {:?}]", servers[0].address, servers[1].address);
    let pool = format!("{CHECK}port = {port}\n");
    let mut setting = setting(&[&servers[0].address, &servers[1].address], &pool);
    let first = setting.choice(&servers);
    let mut second = setting.choice(&servers);
    drop(other);
    wait_for(&mut setting, "down", 2);

    let pool = format!("[pool.check]\ninterval = \"1h\"\nport = {port}\n");
    let text = text(&setting.directory, setting.address, &backends, &pool, "");
    setting.reload(&text);
    assert_eq!(count(&setting, "down"), 2, "nobody has looked since");
    let (_, client, server) = &mut second;
    client.write_all(b"more").expect("write");
    let mut said = [0; 4];
    server.read_exact(&mut said).expect("it came through");
    assert_eq!(&said, b"more");
    drop(first);
}

/// Says the same line to whoever asks, until it is told to say another.
struct Agent {
    address: SocketAddr,
    line: Arc<Mutex<&'static str>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(line: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("address");
        let line = Arc::new(Mutex::new(line));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (line, stop) = (Arc::clone(&line), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        // Who asks may have given up.
                        Ok((mut asking, _)) => {
                            let _ = asking.write_all(line.lock().expect("line").as_bytes());
                        }
                        Err(_) => thread::sleep(Duration::from_millis(5)),
                    }
                }
            }
        });
        Self { address, line, stop, thread: Some(thread) }
    }

    fn says(&self, line: &'static str) {
        *self.line.lock().expect("line") = line;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn an_agent_has_its_server_drained_limited_and_given_a_weight() {
    let servers = [Backend::listen()];
    let agent = Agent::start("drain\n");
    // The check itself goes there too, so that the server sees nobody but clients.
    let port = agent.address.port();
    let pool = format!("queue_max = 0\n{CHECK}port = {port}\nagent_port = {port}\n");
    let mut setting = setting(&[&servers[0].address], &pool);
    wait_for(&mut setting, "drain", 1);
    setting.client().read(&mut [0]).expect_err("no server");

    agent.says("ready maxconn:1 50%\n");
    wait_for(&mut setting, "up", 1);
    let kept = setting.choice(&servers);
    let error = setting.client().read(&mut [0]).expect_err("it has as many as it may have");
    assert!(error.to_string().contains("InternalError"), "{error}");
    wait_for_total(&mut setting, "forebay_connections_shed_total", 1);

    agent.says("maint\n");
    wait_for(&mut setting, "maintenance", 1);
    agent.says("ready down # for a while\n");
    wait_for(&mut setting, "down", 1);
    agent.says("up maxconn:0\n");
    wait_for(&mut setting, "up", 1);
    assert_eq!(setting.choice(&servers).0, 0);
    drop(kept);
}
