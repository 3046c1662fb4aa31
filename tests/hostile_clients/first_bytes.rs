//! Bytes that are no ClientHello, or less or more than one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConnection, Stream};

use crate::stage::{NAME, Noise, Stage, client_hello, rest};
use crate::support::tls_client;

/// Bytes of a record header (RFC 8446 section 5.1).
const HEADER_BYTES: usize = 5;

fn fatal(description: AlertDescription) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, u8::from(description)]
}

#[test]
fn garbage_is_closed_without_a_word() {
    let mut stage = Stage::set("");
    let mut noise = Noise::new(1);
    for round in 0..100 {
        let length = 1 + noise.below(20_000);
        let mut garbage = noise.bytes(length);
        match round % 2 {
            // Neither a handshake record nor a letter.
            0 => garbage[0] |= 0x80,
            // The type of a handshake record, but no version of TLS.
            _ => garbage.splice(..1, [22, 4]).for_each(drop),
        }
        let mut stream = stage.connect();
        // It may be closed before all of it is taken.
        let _ = stream.write_all(&garbage);
        assert_eq!(rest(&mut stream), [0_u8; 0], "round {round}");
    }
    stage.wait_for_failures("not_tls", 100);
    stage.is_as_before();
}

#[test]
fn plain_http_is_closed_at_its_first_byte_without_an_alert() {
    let mut stage = Stage::set("");
    let requests = ["G", "GET / HTTP/1.1\r\nHost: forebay.example\r\n\r\n", "PRI * HTTP/2.0\r\n"];
    for request in requests {
        let mut stream = stage.connect();
        stream.write_all(request.as_bytes()).expect("sent");
        assert_eq!(rest(&mut stream), [0_u8; 0], "{request:?}");
    }
    stage.wait_for_failures("plain_http", requests.len());
    stage.is_as_before();
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_client_hello_is_counted_as_gone() {
    let mut stage = Stage::set("");
    let hello = client_hello();
    let cuts = [1, 4, 5, 6, 9, 43, hello.len() / 2, hello.len() - 1];
    for cut in cuts {
        let mut stream = stage.connect();
        stream.write_all(&hello[..cut]).expect("sent");
        stream.shutdown(Shutdown::Write).expect("ended");
        assert_eq!(rest(&mut stream), [0_u8; 0], "cut at {cut}");
    }
    stage.wait_for_failures("client_gone", cuts.len());
    stage.is_as_before();
}

#[test]
fn a_client_that_leaves_before_its_first_byte_has_not_failed() {
    let mut stage = Stage::set("");
    for _ in 0..10 {
        let mut stream = stage.connect();
        stream.shutdown(Shutdown::Write).expect("ended");
        assert_eq!(rest(&mut stream), [0_u8; 0]);
    }
    stage.is_as_before();
    assert_eq!(stage.forebay.metric("forebay_handshake_failures_total", &[]), 0.0);
}

#[test]
fn a_client_that_stalls_in_the_middle_of_its_client_hello_is_closed_in_time() {
    let mut stage = Stage::set("[timeouts]\nclient_hello = \"200ms\"");
    let hello = client_hello();
    let cuts = [0, 1, hello.len() / 2, hello.len() - 1];
    for cut in cuts {
        let mut stream = stage.connect();
        stream.write_all(&hello[..cut]).expect("sent");
        assert_eq!(rest(&mut stream), [0_u8; 0], "cut at {cut}");
    }
    stage.wait_for_failures("client_hello_timeout", cuts.len());
}

#[test]
fn a_client_that_falls_silent_after_its_client_hello_is_closed_in_time() {
    let mut stage = Stage::set("[timeouts]\nhandshake = \"300ms\"");
    let mut stream = stage.connect();
    stream.write_all(&client_hello()).expect("sent");
    let flight = rest(&mut stream);
    assert_eq!(flight.first(), Some(&22), "a ServerHello came before the end");
    stage.wait_for_failures("timeout", 1);
}

#[test]
fn a_handshake_that_comes_byte_by_byte_succeeds() {
    let mut stage = Stage::set("[timeouts]\nclient_hello = \"60s\"\nhandshake = \"60s\"");
    let mut transport = ByteByByte(stage.connect());
    let name = ServerName::try_from(NAME).expect("a name");
    let config = Arc::new(tls_client::config());
    let mut client = ClientConnection::new(config, name).expect("client");
    let mut tls = Stream::new(&mut client, &mut transport);
    tls.write_all(b"drop by drop").expect("sent");
    let mut back = [0; 12];
    tls.read_exact(&mut back).expect("echoed");
    assert_eq!(&back, b"drop by drop");
    drop(transport);
    stage.is_as_before();
}

#[test]
fn a_client_hello_in_many_records_succeeds() {
    let mut stage = Stage::set("");
    for fragment_bytes in [1, 7, 100] {
        let mut stream = stage.connect();
        let name = ServerName::try_from(NAME).expect("a name");
        let config = Arc::new(tls_client::config());
        let mut client = ClientConnection::new(config, name).expect("client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a ClientHello");
        stream.write_all(&in_records(&hello[HEADER_BYTES..], fragment_bytes)).expect("sent");
        let mut tls = Stream::new(&mut client, &mut stream);
        tls.write_all(b"piece by piece").expect("sent");
        let mut back = [0; 14];
        tls.read_exact(&mut back).expect("echoed");
        assert_eq!(&back, b"piece by piece", "fragments of {fragment_bytes}");
    }
    stage.is_as_before();
}

#[test]
fn a_client_hello_in_too_many_records_is_refused() {
    let mut stage = Stage::set("");
    // A ClientHello of 4,000 bytes, of which 3,000 come.
    let mut message = vec![1, 0, 0x0f, 0x9c, 3, 3];
    message.resize(3_000, 0);
    let mut stream = stage.connect();
    let _ = stream.write_all(&in_records(&message, 1));
    assert_eq!(rest(&mut stream), fatal(AlertDescription::IllegalParameter));
    stage.wait_for_failures("client_hello_too_large", 1);
    stage.is_as_before();
}

#[test]
fn a_client_hello_that_is_too_large_is_refused_by_its_header() {
    let mut stage = Stage::set("");
    let mut stream = stage.connect();
    // 64 KiB announced.
    stream.write_all(&[22, 3, 1, 0x40, 0, 1, 1, 0, 0]).expect("sent");
    assert_eq!(rest(&mut stream), fatal(AlertDescription::IllegalParameter));
    stage.wait_for_failures("client_hello_too_large", 1);
    stage.is_as_before();
}

#[test]
fn an_oversized_first_record_is_refused_with_record_overflow() {
    let mut stage = Stage::set("");
    let mut stream = stage.connect();
    stream.write_all(&[22, 3, 1, 0x40, 0x01, 1, 0]).expect("sent");
    assert_eq!(rest(&mut stream), fatal(AlertDescription::RecordOverflow));
    stage.wait_for_failures("client_hello_malformed", 1);
    stage.is_as_before();
}

#[test]
fn an_oversized_record_in_the_middle_of_the_handshake_is_closed() {
    let mut stage = Stage::set("");
    let mut stream = stage.connect();
    stream.write_all(&client_hello()).expect("sent");
    let mut first = [0];
    stream.read_exact(&mut first).expect("a ServerHello");
    // In the place of the client's Finished, and longer than any record may be.
    let mut record = vec![23, 3, 3, 0x41, 0x01];
    record.resize(5 + 0x4101, 0);
    let _ = stream.write_all(&record);
    rest(&mut stream);
    stage.wait_for_failures("protocol", 1);
    stage.is_as_before();
}

#[test]
fn client_hellos_with_any_byte_changed_are_answered_or_closed() {
    let mut stage = Stage::set("");
    let hello = client_hello();
    let mut noise = Noise::new(2);
    for _ in 0..400 {
        let mut changed = hello.clone();
        for _ in 0..=noise.below(3) {
            let place = noise.below(changed.len());
            changed[place] = noise.below(256) as u8;
        }
        let mut stream = stage.connect();
        let _ = stream.write_all(&changed);
        let _ = stream.shutdown(Shutdown::Write);
        let answer = rest(&mut stream);
        assert!(
            matches!(answer.first(), None | Some(21 | 22)),
            "neither alert nor handshake: {answer:?}"
        );
    }
    stage.is_as_before();
}

/// A message in handshake records of `fragment_bytes` each.
fn in_records(message: &[u8], fragment_bytes: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for fragment in message.chunks(fragment_bytes) {
        records.extend([22, 3, 1]);
        records.extend((fragment.len() as u16).to_be_bytes());
        records.extend(fragment);
    }
    records
}

/// Sends every byte by itself.
struct ByteByByte(TcpStream);

impl Write for ByteByByte {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0.write_all(&[*byte])?;
            // Long enough that most arrive alone.
            thread::sleep(Duration::from_micros(100));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Read for ByteByByte {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
