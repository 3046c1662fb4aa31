//! TLS 1.2 clients that want to shake hands again: they are told no by a warning, and
//! may go on (RFC 5246 section 7.2.2).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use forebay::tls::record::{Algorithm, DirectionKeys, Hash, Opened, Opener};
use forebay::tls::{CryptoLibrary, Version};

use crate::forged_records::Forger;
use crate::stage::{NAME, Stage};
use crate::support::tls_client::TlsStream;

const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The shortest message that is a ClientHello by its header.
const CLIENT_HELLO: [u8; 4] = [1, 0, 0, 0];

#[test]
fn openssl_is_told_that_there_is_no_renegotiation() {
    let mut stage = Stage::set("");
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-servername", NAME, "-connect"])
        .arg(stage.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let mut input = client.stdin.take().expect("piped");
    stage.forebay.wait_until("openssl has shaken hands", |forebay| {
        forebay.metric("forebay_handshakes_total", &["TLSv1.2"]) == 1.0
    });
    // s_client takes a line that begins with R for the order to renegotiate.
    input.write_all(b"R\n").expect("written");
    // OpenSSL takes the warning for the end of the connection, as it may.
    let output = client.wait_with_output().expect("openssl ends");
    drop(input);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("no renegotiation"), "{words}");
    stage.is_as_before();
}

#[test]
fn a_client_that_takes_no_for_an_answer_goes_on() {
    let mut stage = Stage::set("");
    let mut client = Client::of(stage.established(Forger::client_config_tls12()));
    client.send(HANDSHAKE, &CLIENT_HELLO);
    assert_eq!(client.receive(), Received::Warning);
    client.send(APPLICATION_DATA, b"then as before");
    assert_eq!(client.receive(), Received::Data(b"then as before".to_vec()));
    drop(client);
    stage.is_as_before();
}

#[test]
fn a_client_that_asks_twice_is_refused() {
    let mut stage = Stage::set("");
    let mut client = Client::of(stage.established(Forger::client_config_tls12()));
    client.send(HANDSHAKE, &CLIENT_HELLO);
    assert_eq!(client.receive(), Received::Warning);
    client.send(HANDSHAKE, &CLIENT_HELLO);
    assert_eq!(client.receive(), Received::Refusal("UnexpectedMessage".to_owned()));
    let backend = &stage.backend;
    stage.forebay.wait_until("the backend is reset", |_| {
        backend.endings().first().is_some_and(|ending| !ending.in_order)
    });
    stage.is_as_before();
}

/// A TLS 1.2 client that says what it likes.
struct Client {
    stream: TcpStream,
    forger: Forger,
    opener: Opener,
}

#[derive(Debug, PartialEq, Eq)]
enum Received {
    Data(Vec<u8>),
    Warning,
    Refusal(String),
}

impl Client {
    fn of(tls: TlsStream) -> Self {
        let secrets = tls.conn.dangerous_extract_secrets().expect("extraction is enabled");
        let (sequence, keys) = secrets.tx;
        let forger = Forger::tls12(&keys, sequence);
        let (sequence, keys) = secrets.rx;
        let library = CryptoLibrary::AwsLc;
        let keys = DirectionKeys::from_rustls(keys, sequence, Version::Tls12, library, None);
        let keys = keys.expect("AES-128-GCM");
        assert_eq!((keys.algorithm, keys.hash), (Algorithm::Aes128Gcm, Hash::Sha256));
        let opener = Opener::new(keys).expect("an opener");
        Self { stream: tls.sock, forger, opener }
    }

    fn send(&mut self, content_type: u8, content: &[u8]) {
        self.stream.write_all(&self.forger.seal(content_type, content)).expect("sent");
    }

    fn receive(&mut self) -> Received {
        let mut record = vec![0; 5];
        self.stream.read_exact(&mut record).expect("a record");
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(5 + length, 0);
        self.stream.read_exact(&mut record[5..]).expect("a record");
        match self.opener.open(&mut record) {
            Ok(Opened::Data { plaintext, .. }) => Received::Data(record[plaintext].to_vec()),
            Ok(Opened::Ignored { .. } | Opened::SessionTicket { .. }) => Received::Warning,
            Err(forebay::tls::record::RecordError::PeerAlert(alert)) => {
                Received::Refusal(format!("{alert:?}"))
            }
            other => panic!("{other:?}"),
        }
    }
}
