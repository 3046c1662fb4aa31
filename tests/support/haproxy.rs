//! HAProxy behind forebay: demands the PROXY protocol, answers every request by itself
//! and logs who asked. It takes HTTP/1.1 and HTTP/2 on the same socket, and tells them
//! apart by HTTP/2's preface.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ports::free_address;
use super::program::{Server, command};
use super::seen::{Seen, value};

/// What it answers with.
pub const ANSWER: &str = "this is haproxy";

/// A running HAProxy.
pub struct Haproxy {
    server: Server,
    address: SocketAddr,
    socket: PathBuf,
}

impl Haproxy {
    /// Starts it with its files in `directory`.
    pub fn start(directory: &Path) -> Self {
        let (address, socket) = (free_address(), directory.join("haproxy.sock"));
        let text = format!(
            "global\n\
             \x20 log stdout format raw local0\n\
             defaults\n\
             \x20 mode http\n\
             \x20 log global\n\
             \x20 timeout connect 10s\n\
             \x20 timeout client 60s\n\
             \x20 timeout server 60s\n\
             frontend plaintext\n\
             \x20 bind {address} accept-proxy\n\
             \x20 bind unix@{socket} accept-proxy\n\
             \x20 log-format \"client=%ci:%cp connected_to=%fi:%fp name=%[fc_pp_authority] \
             http=%HV path=%HPO id=%[fc_pp_unique_id]\"\n\
             \x20 http-request return status 200 content-type text/plain string \"{ANSWER}\"\n",
            socket = socket.display(),
        );
        let file = directory.join("haproxy.cfg");
        fs::write(&file, text).expect("write");
        let mut haproxy = command("haproxy");
        haproxy.arg("-db").arg("-f").arg(file);
        Self { server: Server::start(haproxy, address), address, socket }
    }

    /// Where it listens, in the configuration's words: over TCP and over a UNIX socket.
    pub fn endpoints(&self) -> [String; 2] {
        [self.address.to_string(), format!("unix:{}", self.socket.display())]
    }

    /// The name of the connection on which `path` was asked for (PP2_TYPE_UNIQUE_ID).
    pub fn unique_id(&mut self, path: &str) -> String {
        self.server.wait_for_line(&format!("{path} is logged"), |line| {
            let id = value(line, "id").filter(|_| value(line, "path") == Some(path));
            id.map(str::to_owned)
        })
    }

    /// What it logs of the request for `path`.
    pub fn seen(&mut self, path: &str) -> Seen {
        self.server.wait_for_line(&format!("{path} is logged"), |line| Seen::of(path, line))
    }
}
