//! What was sent before an end arrives, whichever side ends first; and an end that is
//! none, a reset or a cut stream, never looks like one.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
};

use support::exchange::End;
use support::payload;
use support::scene::{Scene, read_to_end};
use support::sockets::reset_on_close;
use support::tls_client::{self, TlsStream};

/// More than all buffers on the way hold.
const LARGE: usize = 20_000_000;

/// Less than the sockets' buffers hold.
const SMALL: usize = 60_000;

fn both_versions() -> [ClientConfig; 2] {
    [TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256].map(tls_client::config_for)
}

fn close_notify(client: &mut TlsStream) {
    client.conn.send_close_notify();
    client.flush().expect("flush");
}

/// Exactly the first `length` bytes of the stream, and then its end in order.
fn assert_whole((bytes, end): (Vec<u8>, End), seed: u64, length: usize) {
    assert_eq!((bytes.len(), end), (length, End::Orderly));
    assert!(payload::matches(seed, 0, &bytes), "bytes are wrong");
}

/// Reads the rest in the background.
fn reader(mut stream: TcpStream) -> thread::JoinHandle<(Vec<u8>, End)> {
    thread::spawn(move || read_to_end(&mut stream))
}

#[test]
fn what_the_server_sends_after_the_clients_end_arrives() {
    for config in both_versions() {
        let mut scene = Scene::start("");
        let (mut client, mut server) = scene.connect_with(config);
        let upload = reader(server.try_clone().expect("clone"));
        client.write_all(&payload::bytes(1, LARGE)).expect("write");
        close_notify(&mut client);
        assert_whole(upload.join().expect("reader"), 1, LARGE);

        let download = thread::spawn(move || {
            server.write_all(&payload::bytes(2, LARGE)).expect("write");
        });
        assert_whole(read_to_end(&mut client), 2, LARGE);
        download.join().expect("writer");
        scene.ends_by("finished");
    }
}

#[test]
fn what_the_client_sends_after_the_servers_end_arrives() {
    for config in both_versions() {
        let mut scene = Scene::start("");
        let (mut client, mut server) = scene.connect_with(config);
        let download = thread::spawn(move || {
            server.write_all(&payload::bytes(2, LARGE)).expect("write");
            server.shutdown(Shutdown::Write).expect("shutdown");
            server
        });
        assert_whole(read_to_end(&mut client), 2, LARGE);

        let upload = reader(download.join().expect("writer"));
        client.write_all(&payload::bytes(1, LARGE)).expect("write");
        close_notify(&mut client);
        assert_whole(upload.join().expect("reader"), 1, LARGE);
        scene.ends_by("finished");
    }
}

#[test]
fn a_reader_that_comes_after_the_end_finds_everything() {
    let mut scene = Scene::start("");
    let (mut client, mut server) = scene.connect();
    server.write_all(&payload::bytes(2, SMALL)).expect("write");
    server.shutdown(Shutdown::Write).expect("shutdown");
    client.write_all(&payload::bytes(1, SMALL)).expect("write");
    close_notify(&mut client);
    // Nobody reads until forebay is done with both.
    scene.ends_by("finished");
    assert_whole(read_to_end(&mut server), 1, SMALL);
    assert_whole(read_to_end(&mut client), 2, SMALL);
}

#[test]
fn an_end_without_a_byte_before_it_is_carried() {
    let mut scene = Scene::start("");
    let (mut client, mut server) = scene.connect();
    close_notify(&mut client);
    assert_eq!(read_to_end(&mut server), (Vec::new(), End::Orderly));
    drop(server);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Orderly));
    scene.ends_by("finished");
}

#[test]
fn a_client_that_says_nothing_but_its_end_reaches_the_server() {
    let mut scene = Scene::start("");
    let config = std::sync::Arc::new(tls_client::config());
    let mut client = tls_client::connect(config, scene.address, "a.test");
    client.conn.complete_io(&mut client.sock).expect("handshake");
    close_notify(&mut client);
    let mut server = scene.backend.accept();
    assert_eq!(read_to_end(&mut server), (Vec::new(), End::Orderly));
    drop(server);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Orderly));
    scene.ends_by("finished");
}

#[test]
fn a_client_that_ends_tcp_without_close_notify_is_taken_at_its_word_and_counted() {
    let mut scene = Scene::start("");
    let (mut client, mut server) = scene.connect();
    client.write_all(&payload::bytes(1, SMALL)).expect("write");
    client.sock.shutdown(Shutdown::Write).expect("shutdown");
    assert_whole(read_to_end(&mut server), 1, SMALL);
    server.write_all(b"bye").expect("write");
    drop(server);
    assert_eq!(read_to_end(&mut client), (b"bye".to_vec(), End::Orderly));
    scene.ends_by("finished");
    assert_eq!(scene.forebay.metric("forebay_truncations_total", &[]) as u64, 1);
}

#[test]
fn with_strict_truncation_a_missing_close_notify_is_a_cut_to_the_server() {
    let mut scene = Scene::start("[tls]\nstrict_truncation = true\n");
    let (client, mut server) = scene.connect();
    client.sock.shutdown(Shutdown::Write).expect("shutdown");
    let (bytes, end) = read_to_end(&mut server);
    assert!(bytes.is_empty() && matches!(end, End::Cut(_)), "{end:?}");
    scene.ends_by("client_reset");
    assert_eq!(scene.forebay.metric("forebay_truncations_total", &[]) as u64, 1);
}

#[test]
fn a_record_cut_in_two_by_the_end_of_tcp_is_a_cut_to_the_server() {
    let mut scene = Scene::start("");
    let (mut client, mut server) = scene.connect();
    client.conn.writer().write_all(b"whole").expect("buffers");
    let mut ciphertext = Vec::new();
    client.conn.write_tls(&mut ciphertext).expect("a record");
    client.sock.write_all(&ciphertext).expect("write");
    client.conn.writer().write_all(b"cut in two").expect("buffers");
    ciphertext.clear();
    client.conn.write_tls(&mut ciphertext).expect("a record");
    client.sock.write_all(&ciphertext[..ciphertext.len() - 3]).expect("write");
    let mut whole = [0; 5];
    server.read_exact(&mut whole).expect("read");
    assert_eq!(&whole, b"whole");
    client.sock.shutdown(Shutdown::Write).expect("shutdown");
    let (bytes, end) = read_to_end(&mut server);
    assert!(bytes.is_empty() && matches!(end, End::Cut(_)), "{end:?}");
    scene.ends_by("client_reset");
}

#[test]
fn a_client_that_resets_is_a_reset_to_the_server() {
    let mut scene = Scene::start("");
    let (client, mut server) = scene.connect();
    reset_on_close(&client.sock);
    drop(client);
    let (bytes, end) = read_to_end(&mut server);
    assert!(bytes.is_empty() && matches!(end, End::Cut(_)), "{end:?}");
    scene.ends_by("client_reset");
}

#[test]
fn a_client_that_resets_in_the_middle_of_a_download_stops_the_server() {
    let mut scene = Scene::start("");
    let (mut client, mut server) = scene.connect();
    let writer = thread::spawn(move || {
        loop {
            if let Err(error) = server.write_all(payload::piece(2, 0)) {
                return error.kind();
            }
        }
    });
    client.read_exact(&mut vec![0; LARGE]).expect("read");
    reset_on_close(&client.sock);
    drop(client);
    let kind = writer.join().expect("writer");
    assert!(
        matches!(kind, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "{kind:?}"
    );
    scene.ends_by("client_reset");
}

#[test]
fn a_server_that_resets_is_never_an_orderly_end_to_the_client() {
    for config in both_versions() {
        let mut scene = Scene::start("");
        let (mut client, mut server) = scene.connect_with(config);
        server.write_all(b"half of it").expect("write");
        let mut half = [0; 10];
        client.read_exact(&mut half).expect("read");
        reset_on_close(&server);
        drop(server);
        let (bytes, end) = read_to_end(&mut client);
        assert!(bytes.is_empty() && end != End::Orderly, "{end:?}");
        scene.ends_by("upstream_reset");
    }
}

#[test]
fn a_server_that_resets_in_the_middle_of_an_upload_is_never_an_orderly_end() {
    let mut scene = Scene::start("");
    let (mut client, mut server) = scene.connect();
    let upload = thread::spawn(move || {
        while client.write_all(payload::piece(1, 0)).is_ok() {}
        read_to_end(&mut client).1
    });
    server.read_exact(&mut vec![0; LARGE]).expect("read");
    reset_on_close(&server);
    drop(server);
    assert_ne!(upload.join().expect("writer"), End::Orderly);
    scene.ends_by("upstream_reset");
}

#[test]
fn an_answer_before_the_upload_is_over_arrives() {
    let mut scene = Scene::start("");
    let (mut client, mut server) = scene.connect();
    // A server that refuses a request by its head alone answers, ends its stream, and
    // reads on.
    server.write_all(b"413").expect("write");
    server.shutdown(Shutdown::Write).expect("shutdown");
    let upload = reader(server);
    client.write_all(&payload::bytes(1, LARGE)).expect("write");
    let (bytes, end) = read_to_end(&mut client);
    assert_eq!((bytes.as_slice(), end), (&b"413"[..], End::Orderly));
    close_notify(&mut client);
    assert_eq!(upload.join().expect("reader").1, End::Orderly);
    scene.ends_by("finished");
}
