//! `forebay explain`: what would become of a client, without one.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use support::certificates::{Key, self_signed};
use support::tls_client;

struct Files {
    directory: TempDir,
    configuration: PathBuf,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let certificate = self_signed(directory.path(), "a.pem", Key::EcdsaP256, &["*.a.test"]);
        let text = format!(
            "[[listener]]\nname = \"main\"\naddress = \"127.0.0.1:443\"\n\
             certificates = [{certificate:?}]\nalpn = [\"h2\", \"http/1.1\"]\n\
             unknown_sni = \"reject\"\npool = \"web\"\n\
             [[listener.route]]\nname = \"office\"\nsource = [\"192.0.2.0/24\"]\npool = \"staging\"\n\
             [[listener.route]]\nname = \"inner\"\nsni = \"inner.a.test\"\naction = \"passthrough\"\npool = \"inner\"\n\
             [[listener.route]]\nname = \"old\"\nversion = \"1.2\"\naction = \"reject\"\n\
             [[pool]]\nname = \"web\"\nbackends = [\"127.0.0.1:81\"]\n\
             [[pool]]\nname = \"staging\"\nbackends = [\"127.0.0.1:82\"]\n\
             [[pool]]\nname = \"inner\"\nbackends = [\"127.0.0.1:83\"]\n"
        );
        let configuration = directory.path().join("forebay.toml");
        fs::write(&configuration, text).expect("written");
        Self { directory, configuration }
    }

    /// The exit status, and what is said, with single spaces.
    fn explain(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["explain", "-c"])
            .arg(&self.configuration)
            .args(arguments)
            .output()
            .expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let words = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        (output.status.code(), words.collect::<Vec<_>>().join("\n"))
    }

    #[track_caller]
    fn expect(&self, arguments: &[&str], status: i32, parts: &[&str]) {
        let (code, said) = self.explain(arguments);
        assert_eq!(code, Some(status), "{said}");
        for part in parts {
            assert!(said.contains(part), "no {part:?} in:\n{said}");
        }
    }
}

#[test]
fn who_must_show_a_certificate_is_said_and_where_that_could_lead() {
    let files = Files::new();
    let text = fs::read_to_string(&files.configuration).expect("read").replacen(
        "[[pool]]",
        "[[listener.route]]\nname = \"partners\"\nclient_certificate = [\"cn:partner\"]\n\
         pool = \"staging\"\n\
         [listener.client_auth]\nmode = \"required\"\nca = \"a.pem\"\n[[pool]]",
        1,
    );
    fs::write(&files.configuration, text).expect("written");
    let parts = [
        "route \"partners\" if its certificate is meant: pool \"staging\"",
        "asked must show a certificate",
        "pool \"web\"",
    ];
    files.expect(&["--sni", "www.a.test"], 0, &parts);
}

#[test]
fn a_client_that_no_route_takes_goes_to_the_listeners_pool() {
    let parts = [
        "client from 127.0.0.1, asks for www.a.test",
        "not route \"office\": source does not hold",
        "not route \"inner\": sni does not hold",
        "not route \"old\": version does not hold",
        "route none takes it",
        "version TLSv1.3",
        "protocol http/1.1",
        "a.pem (*.a.test, ECDSA P-256): it is for the name",
        "pool \"web\": each server in turn, by weight",
        "server 127.0.0.1:81, weight 1",
    ];
    Files::new().expect(&["--sni", "www.a.test", "--alpn", "http/1.1"], 0, &parts);
}

#[test]
fn a_route_that_takes_the_client_is_named_with_what_it_does() {
    let files = Files::new();
    let office = ["--sni", "www.a.test", "--source", "192.0.2.7"];
    files.expect(&office, 0, &["route \"office\": its conditions hold", "pool \"staging\""]);
    let parts = ["route \"inner\"", "passthrough: TLS ends at the server", "server 127.0.0.1:83"];
    files.expect(&["--sni", "inner.a.test"], 0, &parts);
    let parts = ["route \"old\"", "refused a route rejects this client; alert AccessDenied"];
    files.expect(&["--sni", "www.a.test", "--tls", "1.2"], 1, &parts);
}

#[test]
fn a_client_that_is_refused_is_told_by_which_alert() {
    let files = Files::new();
    let parts = ["refused no certificate for this server name; alert UnrecognisedName"];
    files.expect(&["--sni", "www.b.test"], 1, &parts);
    let parts = ["alert NoApplicationProtocol"];
    files.expect(&["--sni", "www.a.test", "--alpn", "spdy/3"], 1, &parts);
}

#[test]
fn a_client_without_a_name_gets_the_default_certificate() {
    let parts = ["asks for no name", "the default, since no name is asked for"];
    Files::new().expect(&[], 0, &parts);
}

#[test]
fn a_client_hello_from_a_file_is_looked_at_as_it_is() {
    let files = Files::new();
    let name = rustls_pki_types::ServerName::try_from("inner.a.test").expect("a name");
    let config = Arc::new(tls_client::config());
    let mut client = rustls::ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a ClientHello");
    let file = files.directory.path().join("hello");
    fs::write(&file, &hello).expect("written");
    let path = file.to_str().expect("text");
    files.expect(&["--clienthello", path], 0, &["asks for inner.a.test", "route \"inner\""]);

    fs::write(&file, &hello[..hello.len() - 1]).expect("written");
    files.expect(&["--clienthello", path], 2, &["the ClientHello in it is incomplete"]);
    fs::write(&file, "GET / HTTP/1.1\r\n").expect("written");
    files.expect(&["--clienthello", path], 1, &["plain HTTP on a TLS port; closed in silence"]);
}

#[test]
fn a_listener_that_is_not_there_is_an_error_that_names_those_that_are() {
    Files::new().expect(&["--listener", "mian"], 2, &["\"mian\"", "the listeners are main"]);
}
