//! Varnish behind forebay: demands the PROXY protocol, answers every request by itself and
//! logs who asked, with all that its `vmod_proxy` knows. It takes HTTP/1.1 and HTTP/2 on the
//! same socket.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use super::forebay::PATIENCE;
use super::ports::free_address;
use super::program::{Server, command};
use super::seen::{Seen, value};

/// What it answers with.
pub const ANSWER: &str = "this is varnish";

/// A value that the header does not have.
pub const NOTHING: &str = "-";

/// The functions of `vmod_proxy` whose values it logs.
pub const FUNCTIONS: [&str; 7] =
    ["alpn", "authority", "ssl_version", "ssl_cipher", "client_cert_cn", "cert_sign", "cert_key"];

/// Asked for until it is logged.
const FIRST_PATH: &str = "/first";

/// A running Varnish.
pub struct Varnish {
    log: Server,
    _server: Server,
    address: SocketAddr,
    socket: PathBuf,
}

impl Varnish {
    /// Starts it with its files in `directory`.
    pub fn start(directory: &Path) -> Self {
        let (address, socket) = (free_address(), directory.join("varnish.sock"));
        let (own, program) = (directory.join("varnish"), directory.join("varnish.vcl"));
        fs::write(&program, vcl()).expect("write");
        let mut varnish = command("varnishd");
        // In the foreground, without a user of its own, a command line and a port for it.
        varnish.args(["-F", "-j", "none", "-T", "none", "-s", "malloc,16m"]);
        varnish.args(["-p", "feature=+http2", "-p", "thread_pool_min=5"]);
        varnish.arg("-n").arg(&own).arg("-f").arg(&program);
        varnish.arg("-a").arg(format!("inet={address},PROXY"));
        varnish.arg("-a").arg(format!("unix={},PROXY", socket.display()));
        let server = Server::start(varnish, address);
        let mut log = command("varnishncsa");
        log.arg("-n").arg(&own).args(["-F", "%{VCL_Log:seen}x"]);
        let mut log = Server::start(log, address);
        // What was asked for before it had found the log, it never tells.
        log.wait_until("it reads the log", |lines| {
            let found = lines.iter().any(|line| value(line, "path") == Some(FIRST_PATH));
            if !found {
                ask(address, FIRST_PATH);
            }
            found.then_some(())
        });
        Self { log, _server: server, address, socket }
    }

    /// Where it listens, in the configuration's words: over TCP and over a UNIX socket.
    pub fn endpoints(&self) -> [String; 2] {
        [self.address.to_string(), format!("unix:{}", self.socket.display())]
    }

    /// What it logs of the request for `path`.
    pub fn seen(&mut self, path: &str) -> Seen {
        self.log.wait_for_line(&format!("{path} is logged"), |line| Seen::of(path, line))
    }

    /// What it knows of the TLS connection on which `path` was asked for: by the name of the
    /// function in `vmod_proxy`, [`NOTHING`] for what it does not know.
    pub fn knows(&mut self, path: &str, functions: &[&str]) -> Vec<String> {
        self.log.wait_for_line(&format!("{path} is logged"), |line| {
            if value(line, "path")? != path {
                return None;
            }
            functions.iter().map(|name| Some(value(line, name)?.to_owned())).collect()
        })
    }
}

/// Asks for a path, and waits for the end of the answer.
fn ask(address: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let request = format!(
        "PROXY TCP4 192.0.2.1 192.0.2.2 1024 443\r\n\
         GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("write");
    stream.read_to_end(&mut Vec::new()).expect("an answer");
}

fn vcl() -> String {
    let known = |name: &str| {
        format!(
            "  if (proxy.{name}()) {{ set req.http.seen-{name} = proxy.{name}(); }}\n\
             \x20 else {{ set req.http.seen-{name} = \"{NOTHING}\"; }}\n"
        )
    };
    let values: String = FUNCTIONS.map(known).concat();
    let logged: String =
        FUNCTIONS.map(|name| format!(" + \" {name}=\" + req.http.seen-{name}")).concat();
    format!(
        "vcl 4.1;\n\
         import std;\n\
         import proxy;\n\
         backend none none;\n\
         sub vcl_recv {{\n\
         {values}\
         \x20 std.log(\"seen:client=\" + client.ip + \":\" + std.port(client.ip)\n\
         \x20   + \" connected_to=\" + server.ip + \":\" + std.port(server.ip)\n\
         \x20   + \" name=\" + req.http.seen-authority + \" http=\" + req.proto\n\
         \x20   + \" path=\" + req.url{logged}\n\
         \x20   + \" shown_now=\" + proxy.client_has_cert_conn()\n\
         \x20   + \" shown=\" + proxy.client_has_cert_sess());\n\
         \x20 return (synth(200));\n\
         }}\n\
         sub vcl_synth {{ set resp.body = \"{ANSWER}\"; return (deliver); }}\n"
    )
}
