//! rustls as the other end: a real handshake, then our record layer on one side of the
//! connection and a whole rustls client, on the other library, on the other.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::{CipherSuite, ClientConfig, ClientConnection, ServerConfig, SupportedCipherSuite};

use super::*;
use crate::tls::unverified;

#[test]
fn bytes_arrive_whole_from_rustls_and_at_rustls_in_every_suite() {
    for (version, algorithm, library) in every_suite() {
        let mut ends = establish(version, algorithm, library);
        let mut random = Random(ends.seed());
        for _ in 0..60 {
            let size = random_size(&mut random);
            let data = random.bytes(size);
            assert_eq!(ends.client_sends(&data, &mut random), data);
            let size = random_size(&mut random);
            let data = random.bytes(size);
            assert_eq!(ends.server_sends(&data, &mut random), data);
        }
    }
}

#[test]
fn an_export_in_mid_connection_goes_unnoticed_by_rustls() {
    for (version, algorithm, library) in every_suite() {
        let mut ends = establish(version, algorithm, library);
        let mut random = Random(ends.seed());
        for _ in 0..4 {
            ends.opener = Opener::new(ends.opener.export()).unwrap();
            ends.sealer = Sealer::new(ends.sealer.export()).unwrap();
            let data = random.bytes(5_000);
            assert_eq!(ends.client_sends(&data, &mut random), data);
            assert_eq!(ends.server_sends(&data, &mut random), data);
        }
    }
}

#[test]
fn a_key_update_of_rustls_is_followed_and_answered() {
    for (algorithm, library) in tls13_suites() {
        let mut ends = establish(Version::Tls13, algorithm, library);
        let mut random = Random(ends.seed());
        for _ in 0..5 {
            ends.client.refresh_traffic_keys().unwrap();
            let data = random.bytes(3_000);
            assert_eq!(ends.client_sends(&data, &mut random), data);
            assert!(std::mem::take(&mut ends.respond), "rustls asks for an update in return");
            ends.key_update(false);
            assert_eq!(ends.server_sends(&data, &mut random), data);
        }
    }
}

#[test]
fn our_key_update_is_followed_and_answered_by_rustls() {
    for (algorithm, library) in tls13_suites() {
        let mut ends = establish(Version::Tls13, algorithm, library);
        let mut random = Random(ends.seed());
        for request in [true, false, true, true] {
            ends.key_update(request);
            let data = random.bytes(3_000);
            assert_eq!(ends.server_sends(&data, &mut random), data);
            ends.key_updates = 0;
            assert_eq!(ends.client_sends(&data, &mut random), data);
            assert_eq!(ends.key_updates, usize::from(request));
            assert!(!ends.respond, "an answer asks for nothing");
        }
    }
}

#[test]
fn both_sides_may_update_their_keys_at_once() {
    for (algorithm, library) in tls13_suites() {
        let mut ends = establish(Version::Tls13, algorithm, library);
        let mut random = Random(ends.seed());
        ends.client.refresh_traffic_keys().unwrap();
        ends.key_update(true);
        let data = random.bytes(100);
        assert_eq!(ends.server_sends(&data, &mut random), data);
        assert_eq!(ends.client_sends(&data, &mut random), data);
        assert!(ends.respond);
        ends.key_update(false);
        assert_eq!(ends.server_sends(&data, &mut random), data);
    }
}

#[test]
fn close_notify_is_understood_both_ways() {
    for (version, algorithm, library) in every_suite() {
        let mut ends = establish(version, algorithm, library);
        let mut control = [0; CONTROL_RECORD_BYTES_MAX];
        let bytes = ends.sealer.alert(AlertDescription::CloseNotify, &mut control).unwrap();
        ends.client.read_tls(&mut &control[..bytes]).unwrap();
        assert!(ends.client.process_new_packets().unwrap().peer_has_closed());

        // Our side is closed; theirs is not yet.
        let mut random = Random(1);
        assert_eq!(ends.client_sends(b"still here", &mut random), b"still here");
        ends.client.send_close_notify();
        let mut wire = Vec::new();
        ends.client.write_tls(&mut wire).unwrap();
        let record_bytes = wire.len();
        assert_eq!(ends.opener.open(&mut wire), Ok(Opened::CloseNotify { record_bytes }));
    }
}

#[test]
fn our_fatal_alert_reaches_rustls_by_name() {
    for (version, algorithm, library) in every_suite() {
        let mut ends = establish(version, algorithm, library);
        let mut control = [0; CONTROL_RECORD_BYTES_MAX];
        let bytes = ends.sealer.alert(AlertDescription::RecordOverflow, &mut control).unwrap();
        ends.client.read_tls(&mut &control[..bytes]).unwrap();
        assert_eq!(
            ends.client.process_new_packets().unwrap_err(),
            rustls::Error::AlertReceived(AlertDescription::RecordOverflow)
        );
    }
}

#[test]
fn the_alert_that_rustls_sends_on_a_broken_record_is_reported() {
    for (version, algorithm, library) in every_suite() {
        let mut ends = establish(version, algorithm, library);
        let mut record = seal(&mut ends.sealer, b"to be broken", 16_384);
        *record.last_mut().unwrap() ^= 1;
        ends.client.read_tls(&mut &record[..]).unwrap();
        ends.client.process_new_packets().unwrap_err();
        let mut wire = Vec::new();
        ends.client.write_tls(&mut wire).unwrap();
        assert_eq!(
            ends.opener.open(&mut wire),
            Err(RecordError::PeerAlert(AlertDescription::BadRecordMac))
        );
    }
}

#[test]
fn rustls_puts_up_with_our_refusal_to_renegotiate() {
    for algorithm in ALGORITHMS {
        let mut ends = establish(Version::Tls12, algorithm, CryptoLibrary::AwsLc);
        let mut control = [0; CONTROL_RECORD_BYTES_MAX];
        let bytes = ends.sealer.alert(AlertDescription::NoRenegotiation, &mut control).unwrap();
        ends.client.read_tls(&mut &control[..bytes]).unwrap();
        ends.client.process_new_packets().unwrap();
        assert_eq!(ends.server_sends(b"carried on", &mut Random(2)), b"carried on");
    }
}

#[test]
fn a_tls13_connection_without_its_secret_is_refused() {
    let (secrets, _) = handshake(Version::Tls13, Algorithm::Aes128Gcm, CryptoLibrary::AwsLc);
    let keys = DirectionKeys::from_rustls(
        secrets.extracted.tx.1,
        secrets.extracted.tx.0,
        Version::Tls13,
        CryptoLibrary::AwsLc,
        None,
    );
    assert_eq!(keys.unwrap_err(), KeysError::TrafficSecretMissing);
}

fn tls13_suites() -> impl Iterator<Item = (Algorithm, CryptoLibrary)> {
    every_suite()
        .filter(|(version, ..)| *version == Version::Tls13)
        .map(|(_, algorithm, library)| (algorithm, library))
}

/// Mostly small, sometimes on the edges of records, sometimes several records.
fn random_size(random: &mut Random) -> usize {
    match random.in_range(0..6) {
        0 => 1,
        1 => random.in_range(16_383..16_386),
        2 => random.in_range(20_000..60_000),
        _ => random.in_range(1..2_000),
    }
}

/// An established connection: rustls here, our record layer there.
struct Ends {
    client: ClientConnection,
    opener: Opener,
    sealer: Sealer,
    /// The client has asked for a KeyUpdate.
    respond: bool,
    /// KeyUpdates that the client has sent.
    key_updates: usize,
}

impl Ends {
    /// A seed that differs by suite and is the same in every run.
    fn seed(&self) -> u64 {
        format!("{:?}", self.sealer)
            .bytes()
            .fold(0, |seed, byte| seed * 31 % 65_521 + u64::from(byte))
    }

    /// What our side receives when the client sends `data`, in pieces of any size.
    fn client_sends(&mut self, data: &[u8], random: &mut Random) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut unsent = data;
        loop {
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            if unsent.is_empty() {
                break;
            }
            let piece = random.in_range(1..unsent.len() + 1);
            let written = self.client.writer().write(&unsent[..piece]).unwrap();
            unsent = &unsent[written..];
        }

        let (mut received, mut buffer) = (Vec::new(), Vec::new());
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            let piece = random.in_range(1..wire.len().min(20_000) + 1);
            buffer.extend_from_slice(&wire[..piece]);
            wire = &wire[piece..];
            loop {
                let record_bytes = match self.opener.open(&mut buffer).unwrap() {
                    Opened::Incomplete { total_bytes } => {
                        assert!(total_bytes > buffer.len());
                        break;
                    }
                    Opened::Data { plaintext, record_bytes } => {
                        received.extend_from_slice(&buffer[plaintext]);
                        record_bytes
                    }
                    Opened::KeyUpdate { record_bytes, respond } => {
                        self.respond |= respond;
                        self.key_updates += 1;
                        record_bytes
                    }
                    other => panic!("{other:?}"),
                };
                buffer.drain(..record_bytes);
            }
        }
        assert!(buffer.is_empty(), "rustls writes whole records");
        received
    }

    /// What the client receives when our side sends `data`, in records and pieces of any
    /// size.
    fn server_sends(&mut self, data: &[u8], random: &mut Random) -> Vec<u8> {
        let record_plaintext_max = match random.in_range(0..4) {
            0 => SEGMENT_PLAINTEXT_BYTES,
            1 => random.in_range(200..16_384),
            _ => PLAINTEXT_BYTES_MAX,
        };
        let wire = seal(&mut self.sealer, data, record_plaintext_max);
        let mut received = Vec::new();
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            let piece = random.in_range(1..wire.len().min(20_000) + 1);
            self.deliver(&wire[..piece], &mut received);
            wire = &wire[piece..];
        }
        received
    }

    fn deliver(&mut self, mut wire: &[u8], received: &mut Vec<u8>) {
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).unwrap();
            let state = self.client.process_new_packets().unwrap();
            let start = received.len();
            received.resize(start + state.plaintext_bytes_to_read(), 0);
            self.client.reader().read_exact(&mut received[start..]).unwrap();
        }
    }

    /// Sends a KeyUpdate to the client.
    fn key_update(&mut self, request: bool) {
        let mut control = [0; CONTROL_RECORD_BYTES_MAX];
        let bytes = self.sealer.key_update(request, &mut control).unwrap();
        let mut received = Vec::new();
        self.deliver(&control[..bytes], &mut received);
        assert!(received.is_empty());
    }
}

fn establish(version: Version, algorithm: Algorithm, library: CryptoLibrary) -> Ends {
    let (secrets, client) = handshake(version, algorithm, library);
    let SecretsOfServer { extracted, log } = secrets;
    let from_client = log.client.lock().unwrap();
    let from_server = log.server.lock().unwrap();
    if version == Version::Tls13 {
        assert!(extracted.tx.0 > 0, "tickets were sent under these keys");
    }
    let keys = |(sequence, secrets), traffic_secret| {
        DirectionKeys::from_rustls(secrets, sequence, version, library, traffic_secret).unwrap()
    };
    let opener = Opener::new(keys(extracted.rx, from_client.as_deref())).unwrap();
    let sealer = Sealer::new(keys(extracted.tx, from_server.as_deref())).unwrap();
    assert_eq!(sealer.export().algorithm, algorithm);
    Ends { client, opener, sealer, respond: false, key_updates: 0 }
}

struct SecretsOfServer {
    extracted: rustls::ExtractedSecrets,
    log: Arc<SecretLog>,
}

/// Catches the application traffic secrets of TLS 1.3.
#[derive(Debug, Default)]
struct SecretLog {
    client: Mutex<Option<Vec<u8>>>,
    server: Mutex<Option<Vec<u8>>>,
}

impl rustls::KeyLog for SecretLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => *self.client.lock().unwrap() = Some(secret.to_vec()),
            "SERVER_TRAFFIC_SECRET_0" => *self.server.lock().unwrap() = Some(secret.to_vec()),
            _ => {}
        }
    }
}

/// Shakes hands between an unbuffered rustls server, on `library`, and a rustls client
/// on the other one.
fn handshake(
    version: Version,
    algorithm: Algorithm,
    library: CryptoLibrary,
) -> (SecretsOfServer, ClientConnection) {
    let suite = match (version, algorithm) {
        (Version::Tls13, Algorithm::Aes128Gcm) => CipherSuite::TLS13_AES_128_GCM_SHA256,
        (Version::Tls13, Algorithm::Aes256Gcm) => CipherSuite::TLS13_AES_256_GCM_SHA384,
        (Version::Tls13, Algorithm::Chacha20Poly1305) => {
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        }
        (Version::Tls12, Algorithm::Aes128Gcm) => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        (Version::Tls12, Algorithm::Aes256Gcm) => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        (Version::Tls12, Algorithm::Chacha20Poly1305) => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
    };
    let versions: &[&rustls::SupportedProtocolVersion] = match version {
        Version::Tls12 => &[&rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let (server_provider, client_provider) = match library {
        CryptoLibrary::AwsLc => (aws_lc_provider(suite), ring_provider(suite)),
        CryptoLibrary::Ring => (ring_provider(suite), aws_lc_provider(suite)),
    };

    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let log = Arc::new(SecretLog::default());
    let mut config = ServerConfig::builder_with_provider(server_provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    config.enable_secret_extraction = true;
    config.key_log = Arc::clone(&log) as Arc<dyn rustls::KeyLog>;
    let mut server = UnbufferedServerConnection::new(Arc::new(config)).unwrap();

    let verifier = unverified::any_certificate(&client_provider);
    let client_config = ClientConfig::builder_with_provider(client_provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config), name).unwrap();

    let mut to_server = Vec::new();
    let mut to_client = Vec::new();
    loop {
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        let status = server.process_tls_records(&mut to_server);
        let discard = status.discard;
        let done = match status.state.unwrap() {
            ConnectionState::EncodeTlsData(mut data) => {
                let mut flight = vec![0; 16_384];
                let bytes = data.encode(&mut flight).unwrap();
                to_client.extend_from_slice(&flight[..bytes]);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                let mut flight = to_client.as_slice();
                while !flight.is_empty() {
                    client.read_tls(&mut flight).unwrap();
                    client.process_new_packets().unwrap();
                }
                to_client.clear();
                false
            }
            ConnectionState::BlockedHandshake => false,
            ConnectionState::WriteTraffic(_) => true,
            other => panic!("{other:?}"),
        };
        to_server.drain(..discard);
        if done {
            break;
        }
    }
    assert!(to_server.is_empty() && to_client.is_empty());
    assert!(!client.is_handshaking());
    assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), suite);
    let (extracted, _) = server.dangerous_into_kernel_connection().unwrap();
    (SecretsOfServer { extracted, log }, client)
}

fn aws_lc_provider(suite: CipherSuite) -> Arc<CryptoProvider> {
    with_suite(rustls::crypto::aws_lc_rs::default_provider(), suite)
}

fn ring_provider(suite: CipherSuite) -> Arc<CryptoProvider> {
    with_suite(rustls::crypto::ring::default_provider(), suite)
}

fn with_suite(mut provider: CryptoProvider, suite: CipherSuite) -> Arc<CryptoProvider> {
    provider.cipher_suites.retain(|supported: &SupportedCipherSuite| supported.suite() == suite);
    Arc::new(provider)
}
