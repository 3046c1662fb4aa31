//! Real clients through forebay to real servers: over TCP and UNIX sockets, by both
//! versions of the PROXY protocol, in HTTP/1.1 and HTTP/2. The servers must log the
//! client's own address, and nothing of forebay's.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::site;
use crate::support;
use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::Forebay;
use crate::support::haproxy::{self, Haproxy};
use crate::support::nginx::{self, Nginx};
use crate::support::openssl::{OpensslClient, only};
use crate::support::ports::free_address_of;
use crate::support::program::{Finished, command, run};
use crate::support::seen::Seen;
use crate::support::varnish::{self, Varnish};

const NAME: &str = "shop.example";

/// Where clients come from that can choose: not where forebay comes from.
const CLIENT_IP: &str = "127.0.0.5";

/// Where forebay listens: not where servers do.
const FOREBAY_IP: [u8; 4] = [127, 0, 0, 9];

/// A server that demands the PROXY protocol.
trait Backend: Sized {
    fn start(directory: &Path) -> Self;

    /// Where it listens over TCP and over a UNIX socket, and what it speaks there.
    fn endpoints(&self) -> Vec<([String; 2], &'static [&'static str])>;

    /// What it answers with.
    fn answer(&self) -> &'static str;

    /// Whether it can log the header's AUTHORITY; else it logs the request's host.
    fn logs_authority(&self) -> bool;

    /// What it logs of the request for `path`.
    fn seen(&mut self, path: &str) -> Seen;
}

impl Backend for Haproxy {
    fn start(directory: &Path) -> Self {
        Self::start(directory)
    }

    fn endpoints(&self) -> Vec<([String; 2], &'static [&'static str])> {
        vec![(self.endpoints(), &["h2", "http/1.1"])]
    }

    fn answer(&self) -> &'static str {
        haproxy::ANSWER
    }

    fn logs_authority(&self) -> bool {
        true
    }

    fn seen(&mut self, path: &str) -> Seen {
        self.seen(path)
    }
}

impl Backend for Nginx {
    fn start(directory: &Path) -> Self {
        Self::start(directory)
    }

    fn endpoints(&self) -> Vec<([String; 2], &'static [&'static str])> {
        vec![(self.http1_endpoints(), &["http/1.1"]), (self.http2_endpoints(), &["h2"])]
    }

    fn answer(&self) -> &'static str {
        nginx::ANSWER
    }

    fn logs_authority(&self) -> bool {
        false
    }

    fn seen(&mut self, path: &str) -> Seen {
        self.seen(path)
    }
}

impl Backend for Varnish {
    fn start(directory: &Path) -> Self {
        Self::start(directory)
    }

    fn endpoints(&self) -> Vec<([String; 2], &'static [&'static str])> {
        vec![(self.endpoints(), &["h2", "http/1.1"])]
    }

    fn answer(&self) -> &'static str {
        varnish::ANSWER
    }

    fn logs_authority(&self) -> bool {
        true
    }

    fn seen(&mut self, path: &str) -> Seen {
        self.seen(path)
    }
}

/// A forebay with a listener for each way to a server.
struct Stage<B> {
    backend: B,
    routes: Vec<Route>,
    certificate: PathBuf,
    _forebay: Forebay,
    _directory: TempDir,
}

/// A listener for one way to the server.
#[derive(Clone)]
struct Route {
    address: SocketAddr,
    /// Says in a request's path which way it went.
    label: String,
    proxy_protocol: &'static str,
    alpn: &'static [&'static str],
}

impl<B: Backend> Stage<B> {
    /// Every endpoint of the server by both versions of the PROXY protocol.
    fn new(ip: IpAddr) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &[NAME]);
        let backend = B::start(directory.path());
        let (mut text, mut routes) = (site::SMALL.to_owned(), Vec::new());
        for (transports, alpn) in backend.endpoints() {
            for (transport, endpoint) in ["tcp", "unix"].into_iter().zip(transports) {
                for proxy_protocol in ["v1", "v2"] {
                    let address = free_address_of(ip);
                    let pool = format!("pool-{}", routes.len());
                    let alpn_key = format!("alpn = {alpn:?}");
                    text += &site::listener(address, &[&certificate], &pool, &alpn_key);
                    text += &site::pool(&pool, &endpoint, proxy_protocol);
                    let label = format!("over-{transport}-with-{proxy_protocol}");
                    routes.push(Route { address, label, proxy_protocol, alpn });
                }
            }
        }
        let forebay = Forebay::start(directory.path(), &text);
        Self { backend, routes, certificate, _forebay: forebay, _directory: directory }
    }

    /// Compares what the server logs of a request with what the client did.
    fn check(&mut self, path: &str, route: &Route, client: IpAddr, port: Option<u16>, http: &str) {
        // Version 1 has no place for the server name.
        let name_is_known = !self.backend.logs_authority() || route.proxy_protocol == "v2";
        let seen = self.backend.seen(path);
        let expected = Seen {
            client: SocketAddr::new(client, port.unwrap_or(seen.client.port())),
            connected_to: route.address,
            name: if name_is_known { NAME } else { "-" }.to_owned(),
            http: http.to_owned(),
        };
        assert_eq!(seen, expected, "{path}");
    }
}

/// Fetches by every route in every HTTP version.
fn curl_is_known<B: Backend>(listen: IpAddr, client: &str) {
    let mut stage = Stage::<B>::new(listen);
    let mut fetched = 0;
    for route in stage.routes.clone() {
        for (protocol, option, version, logged) in
            [("http/1.1", "--http1.1", "1.1", "HTTP/1.1"), ("h2", "--http2", "2", "HTTP/2.0")]
        {
            if !route.alpn.contains(&protocol) {
                continue;
            }
            let path = format!("/curl-{version}-{}", route.label);
            let arguments = ["--interface", client, option];
            let finished = curl(route.address, &stage.certificate, &path, &arguments);
            let (body, facts) = finished.text.rsplit_once('\n').expect("facts");
            let [ip, port, http] = facts.split(' ').collect::<Vec<_>>()[..] else {
                panic!("curl wrote {facts:?}");
            };
            assert_eq!((body, http, ip), (stage.backend.answer(), version, client), "{path}");
            let port = port.parse().expect("a port");
            stage.check(&path, &route, ip.parse().expect("an address"), Some(port), logged);
            fetched += 1;
        }
    }
    assert_eq!(fetched, 8, "HTTP versions × transports × PROXY protocols");
}

/// Runs curl, which trusts one certificate only, and appends to what it fetches a line
/// with its own address, its own port and the HTTP version.
fn curl(address: SocketAddr, certificate: &Path, path: &str, arguments: &[&str]) -> Finished {
    let mut curl = support::curl::curl(address, NAME, certificate, path);
    curl.args(["--write-out", "\n%{local_ip} %{local_port} %{http_version}"]).args(arguments);
    let finished = run(curl, "");
    finished.assert_success(&[]);
    finished
}

/// Asks by every route that takes HTTP/1.1, in every TLS version.
fn openssl_is_known<B: Backend>() {
    let mut stage = Stage::<B>::new(IpAddr::from(FOREBAY_IP));
    for route in stage.routes.clone() {
        for version in ["TLSv1.2", "TLSv1.3"] {
            if !route.alpn.contains(&"http/1.1") {
                continue;
            }
            let path = format!("/openssl-{version}-{}", route.label);
            OpensslClient::new(route.address)
                .name(NAME)
                .verify(&stage.certificate, NAME)
                .with(&["-bind", &format!("{CLIENT_IP}:0"), only(version)])
                .run(&site::request(&path, NAME))
                .assert_success(&[&format!("New, {version}, Cipher is"), stage.backend.answer()]);
            let client = CLIENT_IP.parse().expect("an address");
            stage.check(&path, &route, client, None, "HTTP/1.1");
        }
    }
}

/// Asks by every route that takes HTTP/1.1, in every TLS version. The client cannot choose
/// where it comes from; that the header was read shows in where it connected to.
fn gnutls_is_known<B: Backend>() {
    let mut stage = Stage::<B>::new(IpAddr::from(FOREBAY_IP));
    for route in stage.routes.clone() {
        for version in ["TLS1.2", "TLS1.3"] {
            if !route.alpn.contains(&"http/1.1") {
                continue;
            }
            let path = format!("/gnutls-{version}-{}", route.label);
            let mut gnutls = command("gnutls-cli");
            gnutls
                .arg("--x509cafile")
                .arg(&stage.certificate)
                .args(["--sni-hostname", NAME, "--verify-hostname", NAME])
                .args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-{version}")])
                .args(["--alpn", "http/1.1"])
                .args(["--port", &route.address.port().to_string()])
                .arg(route.address.ip().to_string());
            run(gnutls, &site::request(&path, NAME)).assert_success(&[
                &format!("Description: ({version}"),
                "Application protocol: http/1.1",
                stage.backend.answer(),
            ]);
            stage.check(&path, &route, [127, 0, 0, 1].into(), None, "HTTP/1.1");
        }
    }
}

#[test]
fn haproxy_knows_the_client_of_curl_by_every_route() {
    curl_is_known::<Haproxy>(IpAddr::from(FOREBAY_IP), CLIENT_IP);
}

#[test]
fn nginx_knows_the_client_of_curl_by_every_route() {
    curl_is_known::<Nginx>(IpAddr::from(FOREBAY_IP), CLIENT_IP);
}

#[test]
fn varnish_knows_the_client_of_curl_by_every_route() {
    curl_is_known::<Varnish>(IpAddr::from(FOREBAY_IP), CLIENT_IP);
}

#[test]
fn varnish_knows_a_client_over_ipv6() {
    if host_has_ipv6() {
        curl_is_known::<Varnish>(IpAddr::V6(Ipv6Addr::LOCALHOST), "::1");
    }
}

#[test]
fn haproxy_knows_a_client_over_ipv6() {
    if host_has_ipv6() {
        curl_is_known::<Haproxy>(IpAddr::V6(Ipv6Addr::LOCALHOST), "::1");
    }
}

#[test]
fn nginx_knows_a_client_over_ipv6() {
    if host_has_ipv6() {
        curl_is_known::<Nginx>(IpAddr::V6(Ipv6Addr::LOCALHOST), "::1");
    }
}

fn host_has_ipv6() -> bool {
    let bound = TcpListener::bind((Ipv6Addr::LOCALHOST, 0));
    if let Err(error) = &bound {
        eprintln!("skipped: this host has no IPv6 loopback address ({error})");
    }
    bound.is_ok()
}

#[test]
fn haproxy_knows_the_client_of_openssl_in_both_tls_versions() {
    openssl_is_known::<Haproxy>();
}

#[test]
fn nginx_knows_the_client_of_openssl_in_both_tls_versions() {
    openssl_is_known::<Nginx>();
}

#[test]
fn haproxy_knows_the_client_of_gnutls_in_both_tls_versions() {
    gnutls_is_known::<Haproxy>();
}

#[test]
fn nginx_knows_the_client_of_gnutls_in_both_tls_versions() {
    gnutls_is_known::<Nginx>();
}

#[test]
fn a_file_put_and_fetched_again_is_the_same_in_every_http_version() {
    let stage = Stage::<Nginx>::new(IpAddr::from(FOREBAY_IP));
    let directory = tempfile::tempdir().expect("tempdir");
    let (original, copy) = (directory.path().join("original"), directory.path().join("copy"));
    // Nothing that repeats at the size of a record, a frame or a buffer.
    let bytes: Vec<u8> = (0..3_000_001_u32).flat_map(|number| number.to_le_bytes()).collect();
    fs::write(&original, &bytes).expect("write");
    for route in &stage.routes {
        let name = format!("{}-{}", route.label, route.alpn.join("-").replace('/', "-"));
        let path = format!("/files/{name}");
        let upload = ["--upload-file", original.to_str().expect("UTF-8")];
        curl(route.address, &stage.certificate, &path, &upload);
        assert!(fs::read(stage.backend.files.join(&name)).expect("stored") == bytes, "{name} up");
        let download = ["--output", copy.to_str().expect("UTF-8")];
        curl(route.address, &stage.certificate, &path, &download);
        assert!(fs::read(&copy).expect("fetched") == bytes, "{name} down");
    }
}
