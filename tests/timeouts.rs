//! Whoever stalls is ended by the timeout of the phase it stalls in, with that reason,
//! and nobody else notices.
//!
//! Nothing here looks at a clock: a timeout that never comes fails the test by its
//! patience, one that comes for the wrong reason by the metric.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConnection};

use support::exchange::End;
use support::forebay::PATIENCE;
use support::scene::{Scene, read_to_end, write_until_stuck};
use support::tls_client::{self, TlsStream};
use support::unconnectable::Unconnectable;

/// A ClientHello as it is on the wire.
fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("a.test").expect("a name");
    let mut client = ClientConnection::new(Arc::new(tls_client::config()), name).expect("client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a ClientHello");
    bytes
}

fn tcp_client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

fn handshake_failures(scene: &Scene, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    scene.forebay.metric("forebay_handshake_failures_total", &[&label]) as u64
}

#[test]
fn a_client_that_says_nothing_is_ended_by_the_client_hello_timeout() {
    let mut scene = Scene::start("[timeouts]\nclient_hello = \"200ms\"\n");
    let mut client = tcp_client(scene.address);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Orderly));
    scene.ends_by("handshake_failed");
    assert_eq!(handshake_failures(&scene, "client_hello_timeout"), 1);
    let line = scene.forebay.wait_for_log("client_hello_timeout");
    let peer = client.local_addr().expect("address").to_string();
    assert!(line.contains(&peer), "{line}");
}

#[test]
fn a_client_hello_that_comes_byte_by_byte_gains_no_time() {
    let mut scene = Scene::start("[timeouts]\nclient_hello = \"300ms\"\n");
    let mut client = tcp_client(scene.address);
    for byte in client_hello() {
        if client.write_all(&[byte]).is_err() {
            break;
        }
        // The whole would take many times the timeout.
        thread::sleep(Duration::from_millis(10));
    }
    scene.ends_by("handshake_failed");
    assert_eq!(handshake_failures(&scene, "client_hello_timeout"), 1);
}

#[test]
fn a_client_that_stops_after_its_client_hello_is_ended_by_the_handshake_timeout() {
    let mut scene = Scene::start("[timeouts]\nhandshake = \"500ms\"\n");
    let mut client = tcp_client(scene.address);
    client.write_all(&client_hello()).expect("write");
    let (flight, end) = read_to_end(&mut client);
    assert!(!flight.is_empty(), "the server's flight");
    assert_eq!(end, End::Orderly);
    scene.ends_by("handshake_failed");
    assert_eq!(handshake_failures(&scene, "timeout"), 1);
    let line = scene.forebay.wait_for_log("reason=\"timeout\"");
    assert!(line.contains("a.test"), "{line}");
}

#[test]
fn a_quiet_connection_is_ended_by_the_idle_timeout() {
    let mut scene = Scene::start("[timeouts]\nidle = \"2s\"\n");
    let (mut client, mut server) = scene.connect();
    // Nobody has said that it is complete.
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Truncated));
    let (bytes, end) = read_to_end(&mut server);
    assert!(bytes.is_empty() && matches!(end, End::Cut(_)), "{end:?}");
    scene.ends_by("idle_timeout");
}

#[test]
fn a_server_that_never_reads_is_ended_by_the_idle_timeout() {
    let mut scene = Scene::start("[timeouts]\nidle = \"2s\"\n");
    let (mut client, server) = scene.connect();
    // Until the client itself is stuck, which is until forebay lets it go.
    let upload = thread::spawn(move || {
        while client.write_all(&[7; 16_384]).is_ok() {}
        read_to_end(&mut client).1
    });
    scene.forebay.wait_until("the connection is ended", |forebay| {
        let buffers = forebay.metric("forebay_buffers_in_use", &[]) as u64;
        assert!(buffers <= BUFFERS_OF_TWO_CONNECTIONS, "{buffers} buffers in use");
        forebay.metric("forebay_connections_ended_total", &[]) as u64 == 1
    });
    scene.ends_by("idle_timeout");
    assert_ne!(upload.join().expect("the client is told"), End::Orderly);
    drop(server);
}

/// A buffer for each direction of the stalled connection and of the bystander's.
const BUFFERS_OF_TWO_CONNECTIONS: u64 = 4;

#[test]
fn a_client_that_never_reads_is_ended_by_the_idle_timeout() {
    let mut scene = Scene::start("[timeouts]\nidle = \"2s\"\n");
    let (client, mut server) = scene.connect();
    write_until_stuck(&server).expect("the server gets stuck");
    let buffers = scene.forebay.metric("forebay_buffers_in_use", &[]) as u64;
    assert!(buffers <= BUFFERS_OF_TWO_CONNECTIONS, "{buffers} buffers in use");
    let (_, end) = read_to_end(&mut server);
    assert!(matches!(end, End::Cut(_)), "{end:?}");
    scene.ends_by("idle_timeout");
    // What reached the client is no orderly end.
    let (_, end) = read_to_end(&mut { client });
    assert_ne!(end, End::Orderly);
}

#[test]
fn a_server_that_does_not_end_after_the_client_did_is_ended_by_the_half_closed_timeout() {
    let mut scene = Scene::start("[timeouts]\nhalf_closed = \"300ms\"\n");
    let (mut client, mut server) = scene.connect();
    client.conn.send_close_notify();
    client.flush().expect("flush");
    assert_eq!(read_to_end(&mut server), (Vec::new(), End::Orderly));
    // The server keeps its side open; forebay gives up on it.
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Truncated));
    scene.ends_by("half_closed_timeout");
}

#[test]
fn a_client_that_does_not_end_after_the_server_did_is_ended_by_the_half_closed_timeout() {
    let mut scene = Scene::start("[timeouts]\nhalf_closed = \"300ms\"\n");
    let (mut client, mut server) = scene.connect();
    server.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Orderly));
    let (bytes, end) = read_to_end(&mut server);
    assert!(bytes.is_empty() && matches!(end, End::Cut(_)), "{end:?}");
    scene.ends_by("half_closed_timeout");
}

/// Connects a client of a pool with these backends only.
fn client_of(scene: &Scene) -> TlsStream {
    let config = Arc::new(tls_client::config());
    let client = tls_client::connect(config, scene.address, "a.test");
    client.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
    client
}

#[test]
fn a_backend_that_does_not_answer_is_passed_over_after_the_connect_timeout() {
    let stuck = Unconnectable::new();
    let timeouts = "[timeouts]\nconnect = \"200ms\"\n";
    let scene = Scene::with_backends(&[&stuck.address], true, timeouts);
    let (mut client, mut server) = scene.connect();
    server.write_all(b"served").expect("write");
    let mut served = [0; 6];
    client.read_exact(&mut served).expect("read");
    let metric = |name| scene.forebay.metric(name, &[]) as u64;
    assert_eq!(metric("forebay_upstream_failed_total"), 1);
    // The other one is the bystander's.
    assert_eq!(metric("forebay_upstream_connected_total"), 2);
    scene.bystander_goes_on();
}

#[test]
fn a_client_of_a_pool_that_does_not_answer_gets_an_alert_and_the_log_names_the_pool() {
    let stuck = [Unconnectable::new(), Unconnectable::new()];
    let addresses = [stuck[0].address.as_str(), stuck[1].address.as_str()];
    let timeouts = "[timeouts]\nconnect = \"200ms\"\n";
    let mut scene = Scene::with_backends(&addresses, false, timeouts);
    let mut client = client_of(&scene);
    let error = client.read(&mut [0]).expect_err("an alert");
    let alert = rustls::Error::AlertReceived(AlertDescription::InternalError);
    assert_eq!(error.to_string(), alert.to_string());
    scene.ends_by("no_backend");
    assert_eq!(scene.forebay.metric("forebay_upstream_failed_total", &[]) as u64, 2);
    let line = scene.forebay.wait_for_log("no backend could be connected");
    assert!(line.contains("pool=\"servers\"") && line.contains("attempts=2"), "{line}");
    assert!(line.contains("timed out"), "{line}");
}

#[test]
fn a_proxy_header_waits_for_the_first_data_no_longer_than_it_may() {
    for wait in ["0ms", "200ms"] {
        let mut scene = Scene::with_pool(
            "proxy_protocol = \"v1\"",
            &format!("[timeouts]\nfirst_data_wait = \"{wait}\"\n"),
        );
        // A server that speaks first, as of SMTP, to a client that waits for it.
        let mut client = client_of(&scene);
        client.conn.complete_io(&mut client.sock).expect("handshake");
        let mut server = scene.backend.accept();
        let header = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
            client.sock.local_addr().expect("address").port(),
            scene.address.port()
        );
        let mut received = vec![0; header.len()];
        server.read_exact(&mut received).expect("the header");
        assert_eq!(String::from_utf8_lossy(&received), header);
        server.write_all(b"220 ready").expect("write");
        let mut greeting = [0; 9];
        client.read_exact(&mut greeting).expect("read");
        assert_eq!(&greeting, b"220 ready");
        client.write_all(b"EHLO").expect("write");
        let mut hello = [0; 4];
        server.read_exact(&mut hello).expect("read");
        assert_eq!(&hello, b"EHLO");
        client.conn.send_close_notify();
        client.flush().expect("flush");
        drop(server);
        scene.ends_by("finished");
    }
}

#[test]
fn a_proxy_header_leaves_together_with_the_first_data() {
    let mut scene =
        Scene::with_pool("proxy_protocol = \"v1\"", "[timeouts]\nfirst_data_wait = \"1s\"\n");
    let mut client = client_of(&scene);
    client.conn.complete_io(&mut client.sock).expect("handshake");
    let mut server = scene.backend.accept();
    let first_read = thread::spawn(move || {
        let mut received = [0; 200];
        let count = server.read(&mut received).expect("read");
        (received[..count].to_vec(), server)
    });
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
    let (received, server) = first_read.join().expect("reader");
    let text = String::from_utf8_lossy(&received);
    assert!(
        text.starts_with("PROXY TCP4 ") && text.ends_with("\r\nGET / HTTP/1.1\r\n\r\n"),
        "{text}"
    );
    drop(server);
    client.conn.send_close_notify();
    client.flush().expect("flush");
    scene.ends_by("finished");
}
