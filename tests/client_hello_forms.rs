//! ClientHellos of honest clients that look unlike most: with values that mean nothing, with
//! a second one sealed inside, without a name.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::{EchConfig, EchGreaseConfig, EchMode};
use rustls::crypto::aws_lc_rs::{default_provider, hpke};
use rustls::crypto::hpke::Hpke;
use rustls::pki_types::{EchConfigListBytes, ServerName};
use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, PeerIncompatible};

use support::backend::Backend;
use support::certificates::{Key, self_signed};
use support::echo::EchoBackend;
use support::forebay::{Forebay, PATIENCE};
use support::ports::free_address;
use support::tls_client::{self, TlsStream};

/// A listener for `*.a.test` with these routes, its own pool, and one called `inner`.
fn start(
    directory: &Path,
    address: SocketAddr,
    routes: &str,
    servers: [&dyn std::fmt::Display; 2],
) -> Forebay {
    let certificate = self_signed(directory, "a.pem", Key::EcdsaP256, &["*.a.test"]);
    let [web, inner] = servers;
    let text = format!(
        "[engine]\nengines = 1\nmax_connections = 64\n[handshake]\nworkers = 1\n\
         [[listener]]\naddress = \"{address}\"\ncertificates = [{certificate:?}]\n\
         alpn = [\"h2\"]\npool = \"web\"\n{routes}\n\
         [[pool]]\nname = \"web\"\nbackends = [\"{web}\"]\n\
         [[pool]]\nname = \"inner\"\nbackends = [\"{inner}\"]\n"
    );
    Forebay::start(directory, &text)
}

fn connect(config: ClientConfig, address: SocketAddr, name: &str) -> TlsStream {
    let stream = tls_client::connect(Arc::new(config), address, name);
    stream.sock.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// What ends the handshake, if anything does.
fn handshake_error(client: &mut TlsStream) -> Option<Error> {
    while client.conn.is_handshaking() {
        if let Err(error) = client.conn.complete_io(&mut client.sock) {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer");
            let inner = error.into_inner().expect("an error of TLS");
            return Some(*inner.downcast::<Error>().expect("an error of rustls"));
        }
    }
    None
}

fn rejected() -> Option<Error> {
    Some(Error::AlertReceived(AlertDescription::AccessDenied))
}

#[test]
fn a_client_that_asks_for_no_name_takes_the_route_of_those() {
    let directory = tempfile::tempdir().expect("a directory");
    let (echo, address) = (EchoBackend::start(), free_address());
    let routes = "[[listener.route]]\nsni = \"\"\naction = \"reject\"\n";
    let _forebay = start(directory.path(), address, routes, [&echo.address, &"127.0.0.1:9"]);
    // An address is no name, and rustls sends none for it.
    let mut nameless = connect(tls_client::config(), address, "127.0.0.1");
    assert_eq!(handshake_error(&mut nameless), rejected());
    let mut named = connect(tls_client::config(), address, "www.a.test");
    assert_eq!(handshake_error(&mut named), None);
}

#[test]
fn the_outer_name_of_an_encrypted_client_hello_decides() {
    let directory = tempfile::tempdir().expect("a directory");
    let (echo, address) = (EchoBackend::start(), free_address());
    let routes = "[[listener.route]]\nsni = \"closed.a.test\"\naction = \"reject\"\n";
    let _forebay = start(directory.path(), address, routes, [&echo.address, &"127.0.0.1:9"]);
    let mut outer_is_closed = connect(encrypting("closed.a.test"), address, "open.a.test");
    assert_eq!(handshake_error(&mut outer_is_closed), rejected());
    // It is served as the outer name, which is how it learns that nobody here has the key.
    let mut inner_is_closed = connect(encrypting("open.a.test"), address, "closed.a.test");
    let error = handshake_error(&mut inner_is_closed);
    assert!(
        matches!(
            error,
            Some(Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(
                None
            )))
        ),
        "{error:?}"
    );
}

#[test]
fn a_client_that_only_seems_to_encrypt_its_client_hello_is_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let (echo, address) = (EchoBackend::start(), free_address());
    let _forebay = start(directory.path(), address, "", [&echo.address, &"127.0.0.1:9"]);
    let suite = hpke::ALL_SUPPORTED_SUITES[0];
    let (public, _) = suite.generate_key_pair().expect("a key");
    let config = with_ech(EchMode::Grease(EchGreaseConfig::new(suite, public)));
    let mut client = connect(config, address, "www.a.test");
    client.write_all(b"as ever").expect("written");
    let mut back = [0; 7];
    client.read_exact(&mut back).expect("echoed");
    assert_eq!(&back, b"as ever");
}

#[test]
fn values_that_mean_nothing_decide_nothing_and_pass_through_as_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let (echo, inner, address) = (EchoBackend::start(), Backend::listen(), free_address());
    let routes = "[[listener.route]]\nsni = \"inner.a.test\"\nversion = \"1.3\"\n\
                  alpn = [\"h2\"]\naction = \"passthrough\"\npool = \"inner\"\n";
    let _forebay = start(directory.path(), address, routes, [&echo.address, &inner.address]);

    let mut passed = TcpStream::connect(address).expect("connected");
    let hello = greased(&client_hello("inner.a.test"));
    passed.write_all(&hello).expect("sent");
    let mut heard = vec![0; hello.len()];
    inner.accept().read_exact(&mut heard).expect("a ClientHello");
    assert_eq!(heard, hello);

    let mut ended = TcpStream::connect(address).expect("connected");
    ended.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    ended.write_all(&greased(&client_hello("www.a.test"))).expect("sent");
    let mut answer = [0; 6];
    ended.read_exact(&mut answer).expect("an answer");
    assert_eq!((answer[0], answer[5]), (22, 2), "a ServerHello in a handshake record");
}

/// A client that seals its ClientHello for a key that nobody has, behind `public_name`.
fn encrypting(public_name: &str) -> ClientConfig {
    let (public, _) = hpke::DH_KEM_P256_HKDF_SHA256_AES_128.generate_key_pair().expect("a key");
    // RFC 9849 section 4: ECHConfigContents with one suite, HKDF-SHA256 with AES-128-GCM.
    let mut contents = vec![1, 0x00, 0x10];
    contents.extend(with_length(&public.0));
    contents.extend(with_length(&[0, 1, 0, 1]));
    contents.extend([0, public_name.len() as u8]);
    contents.extend(public_name.as_bytes());
    contents.extend([0, 0]);
    let mut config = vec![0xfe, 0x0d];
    config.extend(with_length(&contents));
    let list = EchConfigListBytes::from(with_length(&config));
    with_ech(EchConfig::new(list, hpke::ALL_SUPPORTED_SUITES).expect("a configuration").into())
}

fn with_ech(mode: EchMode) -> ClientConfig {
    let provider = Arc::new(default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_ech(mode)
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(tls_client::trust_everybody(provider))
        .with_no_client_auth()
}

fn client_hello(name: &str) -> Vec<u8> {
    let mut config = tls_client::config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    client.write_tls(&mut hello).expect("a ClientHello");
    hello
}

/// The ClientHello with a GREASE value (RFC 8701 section 3.1) at the head of every list that
/// may have one, as browsers send it.
fn greased(hello: &[u8]) -> Vec<u8> {
    let body = &hello[9..];
    let (fixed, rest) = body.split_at(34);
    let (session_id, rest) = rest.split_at(1 + usize::from(rest[0]));
    let (suites, rest) = take_list(rest);
    let (compression, rest) = rest.split_at(1 + usize::from(rest[0]));
    let (mut extensions, _) = take_list(rest);

    let mut out = fixed.to_vec();
    out.extend(session_id);
    out.extend(with_length(&[&[0x0a, 0x0a], suites].concat()));
    out.extend(compression);
    let mut all = vec![0x1a, 0x1a, 0, 0];
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_at(2);
        let (content, rest) = take_list(rest);
        let number = u16::from_be_bytes([kind[0], kind[1]]);
        extensions = rest;
        let content = match number {
            // Groups and signature schemes; then ALPN, versions and key shares.
            10 | 13 => with_length(&[&[0x2a, 0x2a], take_list(content).0].concat()),
            16 => with_length(&[&[2, 0x3a, 0x3a], take_list(content).0].concat()),
            43 => [&[content[0] + 2, 0xfa, 0xfa], &content[1..]].concat(),
            51 => with_length(&[&[0x2a, 0x2a, 0, 1, 0], take_list(content).0].concat()),
            _ => content.to_vec(),
        };
        all.extend(kind);
        all.extend(with_length(&content));
    }
    out.extend(with_length(&all));
    let mut message = vec![1, 0];
    message.extend(with_length(&out));
    [&[22, 3, 1][..], &with_length(&message)].concat()
}

/// What a length of two bytes stands in front of, and what comes behind.
fn take_list(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    bytes[2..].split_at(length)
}

/// The bytes behind their length in two.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}
