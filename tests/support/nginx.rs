//! nginx behind forebay: demands the PROXY protocol, serves and takes files below
//! `/files/`, answers every other request by itself, and logs who asked. A socket of it
//! takes either HTTP/1.1 or HTTP/2 as long as there is no TLS.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ports::free_address;
use super::program::{Server, command};
use super::seen::Seen;

/// What it answers with, except for files.
pub const ANSWER: &str = "this is nginx";

/// A running nginx.
pub struct Nginx {
    server: Server,
    /// What is below `/files/`: served by GET, taken by PUT.
    pub files: PathBuf,
    http1: [String; 2],
    http2: [String; 2],
}

impl Nginx {
    /// Starts it with its files in `directory`.
    pub fn start(directory: &Path) -> Self {
        let (address, http2_address) = (free_address(), free_address());
        let own = directory.join("nginx");
        let files = own.join("files");
        fs::create_dir_all(&files).expect("directory");
        // One process: the user that runs the tests may have no other to give it.
        let text = format!(
            "daemon off;\n\
             master_process off;\n\
             pid {own}/pid;\n\
             error_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
             \x20 client_body_temp_path {own}/body;\n\
             \x20 proxy_temp_path {own}/proxy;\n\
             \x20 fastcgi_temp_path {own}/fastcgi;\n\
             \x20 uwsgi_temp_path {own}/uwsgi;\n\
             \x20 scgi_temp_path {own}/scgi;\n\
             \x20 types {{ text/html html; text/javascript js; text/plain txt; }}\n\
             \x20 log_format seen 'client=$proxy_protocol_addr:$proxy_protocol_port '\n\
             \x20   'connected_to=$proxy_protocol_server_addr:$proxy_protocol_server_port '\n\
             \x20   'name=$host http=$server_protocol path=$request_uri';\n\
             \x20 access_log /dev/stdout seen;\n\
             \x20 server {{\n\
             \x20   listen {address} proxy_protocol;\n\
             \x20   listen unix:{own}/http1.sock proxy_protocol;\n\
             \x20   listen {http2_address} http2 proxy_protocol;\n\
             \x20   listen unix:{own}/http2.sock http2 proxy_protocol;\n\
             \x20   location / {{ default_type text/plain; return 200 \"{ANSWER}\"; }}\n\
             \x20   location /files/ {{ root {own}; dav_methods PUT; }}\n\
             \x20   client_max_body_size 64m;\n\
             \x20 }}\n\
             }}\n",
            own = own.display(),
        );
        let file = own.join("nginx.conf");
        fs::write(&file, text).expect("write");
        let mut nginx = command("nginx");
        nginx.arg("-p").arg(&own).arg("-c").arg(file);
        let endpoints = |address: SocketAddr, socket: &str| {
            [address.to_string(), format!("unix:{}/{socket}", own.display())]
        };
        Self {
            server: Server::start(nginx, address),
            files,
            http1: endpoints(address, "http1.sock"),
            http2: endpoints(http2_address, "http2.sock"),
        }
    }

    /// Where it takes HTTP/1.1, in the configuration's words: over TCP and over a UNIX
    /// socket.
    pub fn http1_endpoints(&self) -> [String; 2] {
        self.http1.clone()
    }

    /// Where it takes HTTP/2: over TCP and over a UNIX socket.
    pub fn http2_endpoints(&self) -> [String; 2] {
        self.http2.clone()
    }

    /// What it logs of the request for `path`.
    pub fn seen(&mut self, path: &str) -> Seen {
        self.server.wait_for_line(&format!("{path} is logged"), |line| Seen::of(path, line))
    }
}
