//! Connections to servers that come from an address of choice: one of the machine's, or the
//! client's own. On machines in networks of their own: a client, forebay's, and the servers'.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use support::certificates::{Key, self_signed};
use support::forebay::{Forebay, PATIENCE};
use support::network::{Neighbour, in_a_network_of_its_own, ip};
use support::ports::free_address;
use support::tls_client;

/// What else is forebay's machine, of no use here.
const NOTHING_ELSE: &str = "203.0.113.0/24";

/// A client on the one side, servers on the other, forebay between.
struct Lab {
    client: Neighbour,
    servers: Neighbour,
}

const FOREBAY: &str = "198.51.100.1:443";
const FOREBAY_IPV6: &str = "[2001:db8:1::1]:443";
const SERVER: &str = "192.0.2.9:8080";
const SECOND_SERVER: &str = "192.0.2.10:8080";
const SERVER_IPV6: &str = "[2001:db8:2::9]:8080";

/// How forebay's machine keeps the servers' answers: that block of
/// `docs/TRANSPARENT_SOURCE.md` that has these words.
#[derive(Clone, Copy, Debug)]
enum Kept {
    ByPort,
    BySocket,
}

impl Kept {
    /// As an operator does it, with what the document says.
    fn arrange(self) {
        let words = match self {
            Self::ByPort => "sport 8080 lookup",
            Self::BySocket => "socket transparent",
        };
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/TRANSPARENT_SOURCE.md");
        let document = fs::read_to_string(document).expect("the document");
        let mut blocks = document.split("```sh\n").skip(1).map(|rest| {
            let block = rest.split("```").next().unwrap_or_default();
            block.lines().map(|line| line.trim_start().to_owned() + "\n").collect::<String>()
        });
        let block = blocks.find(|block| block.contains(words)).expect("the block");
        let output = Command::new("sh").args(["-e", "-c", &block]).output().expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{block}: {said}");
    }
}

impl Lab {
    fn new(kept: Kept) -> Self {
        let client = Neighbour::new(
            "clients",
            &["198.51.100.1/24", "2001:db8:1::1/64"],
            &["198.51.100.7/24", "2001:db8:1::7/64"],
        );
        let servers = Neighbour::new(
            "servers",
            &["192.0.2.1/24", "192.0.2.5/24", "2001:db8:2::1/64"],
            &["192.0.2.9/24", "192.0.2.10/24", "2001:db8:2::9/64"],
        );
        servers.run(|| {
            ip(&["route", "add", "default", "via", "192.0.2.1"]);
            ip(&["route", "add", "default", "via", "2001:db8:2::1"]);
            for address in [SERVER, SECOND_SERVER, SERVER_IPV6] {
                tell_clients_who_they_are(TcpListener::bind(address).expect("a server"));
            }
        });
        kept.arrange();
        Self { client, servers }
    }

    /// Whom a server took the client for, who asked forebay at `address` for `name`; `None` if
    /// it did not come to a server.
    fn seen(&self, address: &'static str, name: &'static str) -> Option<String> {
        self.client.run(move || ask(address, name).map(|(_, seen)| seen))
    }

    /// The same, and the client stays.
    fn stays(&self, name: &'static str) -> Option<tls_client::TlsStream> {
        self.client.run(move || ask(FOREBAY, name).map(|(stream, _)| stream))
    }
}

/// Each server says hello to every client by its address, and waits for its end.
fn tell_clients_who_they_are(listener: TcpListener) {
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            thread::spawn(move || {
                let peer = client.peer_addr().expect("a peer");
                let _ = client.write_all(format!("{}\n", peer.ip()).as_bytes());
                let _ = client.read(&mut [0; 1]);
            });
        }
    });
}

fn ask(address: &str, name: &str) -> Option<(tls_client::TlsStream, String)> {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut stream = tls_client::over(stream, Arc::new(tls_client::config()), name);
    let mut seen = String::new();
    let mut byte = [0; 1];
    while stream.read(&mut byte).is_ok_and(|count| count == 1) {
        match byte[0] {
            b'\n' => return Some((stream, seen)),
            byte => seen.push(char::from(byte)),
        }
    }
    None
}

/// A listener whose clients come to the pool that they ask for by name.
fn text(directory: &Path, pools: &[(&str, &str, &str)]) -> String {
    let certificate = self_signed(directory, "a.pem", Key::EcdsaP256, &["*.a.test"]);
    let mut text = format!(
        "[engine]\nengines = 1\nmax_connections = 64\n[handshake]\nworkers = 1\n\
         [[listener]]\naddress = [\"{FOREBAY}\", \"{FOREBAY_IPV6}\"]\n\
         certificates = [{certificate:?}]\npool = \"{}\"\n",
        pools[0].0
    );
    for (name, _, _) in pools {
        text += &format!("[[listener.route]]\nsni = \"{name}.a.test\"\npool = \"{name}\"\n");
    }
    for (name, backends, source) in pools {
        text += &format!("[[pool]]\nname = \"{name}\"\nbackends = {backends}\n{source}\n");
    }
    text
}

#[test]
fn servers_see_the_address_that_is_wanted_and_their_answers_come_back_by_their_port() {
    servers_see_the_address_that_is_wanted(Kept::ByPort);
}

#[test]
fn servers_see_the_address_that_is_wanted_and_their_answers_come_back_by_their_socket() {
    servers_see_the_address_that_is_wanted(Kept::BySocket);
}

fn servers_see_the_address_that_is_wanted(kept: Kept) {
    in_a_network_of_its_own(NOTHING_ELSE, move || {
        let lab = Lab::new(kept);
        let directory = tempfile::tempdir().expect("a directory");
        let both = format!("[{SERVER:?}, {SERVER_IPV6:?}]");
        let ipv4 = format!("[{SERVER:?}]");
        let pools = [
            ("plain", &*ipv4, ""),
            ("bound", &ipv4, "bind = \"192.0.2.5\""),
            ("itself", &both, "transparent = true"),
            ("older", &ipv4, "transparent = true"),
        ];
        let mut forebay = Forebay::start(directory.path(), &text(directory.path(), &pools));
        for (address, name, expected) in [
            (FOREBAY, "plain.a.test", "192.0.2.1"),
            (FOREBAY, "bound.a.test", "192.0.2.5"),
            (FOREBAY_IPV6, "bound.a.test", "192.0.2.5"),
            // Two each, so that both servers are first once.
            (FOREBAY, "itself.a.test", "198.51.100.7"),
            (FOREBAY, "itself.a.test", "198.51.100.7"),
            (FOREBAY_IPV6, "itself.a.test", "2001:db8:1::7"),
            (FOREBAY_IPV6, "itself.a.test", "2001:db8:1::7"),
        ] {
            assert_eq!(lab.seen(address, name).as_deref(), Some(expected), "{name} at {address}");
        }
        // It is not shown to the server as somebody else.
        assert_eq!(lab.seen(FOREBAY_IPV6, "older.a.test"), None);
        let line = forebay.wait_for_log("no backend could be connected");
        assert!(line.contains("addresses of different families"), "{line}");
        let failures = "forebay_server_connect_failures_total";
        assert_eq!(forebay.metric(failures, &[]), 0.0, "no server has failed");
        drop(lab.servers);
    });
}

#[test]
fn when_no_port_is_left_towards_a_server_the_next_one_is_taken_and_the_log_says_why() {
    in_a_network_of_its_own(NOTHING_ELSE, || {
        let lab = Lab::new(Kept::ByPort);
        let directory = tempfile::tempdir().expect("a directory");
        let both = format!("[{SERVER:?}, {SECOND_SERVER:?}]");
        let pools = [("bound", &*both, "bind = \"192.0.2.5\"\neject_after = 1")];
        let mut forebay = Forebay::start(directory.path(), &text(directory.path(), &pools));
        // Two ports, which each of two servers can have once.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").expect("a range");
        let stay: Vec<_> = (0..4).map(|_| lab.stays("bound.a.test").expect("served")).collect();
        assert_eq!(lab.seen(FOREBAY, "bound.a.test"), None);
        let line = forebay.wait_for_log("no backend could be connected");
        assert!(line.contains("no port is left towards the server"), "{line}");
        assert_eq!(forebay.metric("forebay_server_ejections_total", &[]), 0.0);
        drop(stay);
    });
}

#[test]
fn without_the_right_to_it_the_check_says_what_to_give() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = text(directory.path(), &[("web", "[\"127.0.0.1:80\"]", "transparent = true")]);
    let file = directory.path().join("forebay.toml");
    fs::write(&file, text.replace(FOREBAY, &free_address().to_string())).expect("written");
    let output = Command::new("setpriv")
        .args(["--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"])
        .arg(env!("CARGO_BIN_EXE_forebay"))
        .args(["check", "-c"])
        .arg(&file)
        .output()
        .expect("setpriv runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error: pool[0].transparent: not possible here"), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
}

#[test]
fn an_address_that_is_not_here_is_told_and_the_service_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = text(directory.path(), &[("web", "[\"127.0.0.1:80\"]", "bind = \"192.0.2.77\"")]);
    let file = directory.path().join("forebay.toml");
    fs::write(&file, text).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["check", "-c"])
        .arg(&file)
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("warning: pool[0].bind: 192.0.2.77 cannot be had now"), "{said}");
}
