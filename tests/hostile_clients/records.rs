//! Records that no honest client sends after the handshake. Each ends with the alert
//! that the protocol prescribes, and the backend sees a reset: what it has must not look
//! like all that there was.

use std::io::{Read, Write};

use forebay::tls::record::{EMPTY_RECORDS_MAX, KEY_UPDATES_MAX};
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::{AlertDescription, Error};

use crate::forged_records::Forger;
use crate::stage::{Stage, echo, failure};
use crate::support::tls_client::{self, TlsStream};

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Bytes that the backend has had when `Stage::established` is done.
const GREETING_BYTES: usize = b"all is well".len();

/// Records that `Stage::established` has sealed with the application keys: one echo.
const SEALED_SO_FAR: u64 = 1;

/// The client is told `alert`, and its backend connection, the next one of the stage to
/// end, is reset after `bytes`.
#[track_caller]
fn is_refused(stage: &mut Stage, tls: &mut TlsStream, alert: AlertDescription, bytes: usize) {
    assert_eq!(failure(tls), Error::AlertReceived(alert));
    let mut ending = None;
    let backend = &stage.backend;
    stage.forebay.wait_until("the backend's connection ends", |_| {
        ending = backend.endings().get(stage.endings_judged).copied();
        ending.is_some()
    });
    stage.endings_judged += 1;
    let ending = ending.expect("waited for");
    assert!(!ending.in_order, "the backend must not take it for the end of the stream");
    assert_eq!(ending.bytes, bytes as u64, "nothing of the bad record is passed on");
}

/// Seals `content` by rustls, without sending it.
fn sealed(tls: &mut TlsStream, content: &[u8]) -> Vec<u8> {
    tls.conn.writer().write_all(content).expect("sealed");
    let mut record = Vec::new();
    tls.conn.write_tls(&mut record).expect("a record");
    record
}

#[test]
fn a_record_with_any_bit_changed_is_refused_in_every_suite() {
    let mut stage = Stage::set("");
    for suite in ALL_CIPHER_SUITES {
        for place in [Place::Nonce, Place::Text, Place::Tag] {
            let mut tls = stage.established(tls_client::config_for(*suite));
            let mut record = sealed(&mut tls, b"pay 10 pounds");
            let index = match place {
                Place::Nonce => 5,
                Place::Text => record.len() - 20,
                Place::Tag => record.len() - 1,
            };
            record[index] ^= 1;
            tls.sock.write_all(&record).expect("sent");
            is_refused(&mut stage, &mut tls, AlertDescription::BadRecordMac, GREETING_BYTES);
        }
    }
    stage.is_as_before();
}

enum Place {
    /// Of TLS 1.2 with AES-GCM; elsewhere the first byte of the text.
    Nonce,
    Text,
    Tag,
}

#[test]
fn a_record_that_comes_twice_is_refused() {
    let mut stage = Stage::set("");
    let mut tls = stage.established(tls_client::config());
    let record = sealed(&mut tls, b"pay 10 pounds");
    tls.sock.write_all(&record).expect("sent");
    // Once the first has passed, its double comes alone.
    echoed(&mut tls, b"pay 10 pounds");
    tls.sock.write_all(&record).expect("sent");
    let bytes = GREETING_BYTES + b"pay 10 pounds".len();
    is_refused(&mut stage, &mut tls, AlertDescription::BadRecordMac, bytes);
    stage.is_as_before();
}

fn echoed(tls: &mut TlsStream, text: &[u8]) {
    let mut back = vec![0; text.len()];
    tls.read_exact(&mut back).expect("echoed");
    assert_eq!(back, text);
}

#[test]
fn a_record_whose_header_announces_too_much_is_refused() {
    let mut stage = Stage::set("");
    for suite in ALL_CIPHER_SUITES {
        let mut tls = stage.established(tls_client::config_for(*suite));
        // 2^14 + 257, and not a byte of it follows.
        tls.sock.write_all(&[APPLICATION_DATA, 3, 3, 0x41, 0x01]).expect("sent");
        is_refused(&mut stage, &mut tls, AlertDescription::RecordOverflow, GREETING_BYTES);
    }
    stage.is_as_before();
}

#[test]
fn a_record_that_opens_to_too_much_is_refused() {
    let mut stage = Stage::set("");
    let (config, secret) = Forger::client_config_tls13();
    let mut tls = stage.established(config);
    let mut forger = Forger::tls13(&secret, SEALED_SO_FAR);
    let most = vec![b'x'; 1 << 14];
    tls.sock.write_all(&forger.seal(APPLICATION_DATA, &most)).expect("sent");
    echoed(&mut tls, &most);
    let record = forger.seal(APPLICATION_DATA, &vec![b'x'; (1 << 14) + 1]);
    tls.sock.write_all(&record).expect("sent");
    let bytes = GREETING_BYTES + most.len();
    is_refused(&mut stage, &mut tls, AlertDescription::RecordOverflow, bytes);
    stage.is_as_before();
}

#[test]
fn a_record_of_a_type_that_has_no_business_here_is_refused() {
    let mut stage = Stage::set("");
    let plaintext: [&[u8]; 3] = [
        &[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1],
        &[ALERT, 3, 3, 0, 2, 1, 0],
        &[HANDSHAKE, 3, 3, 0, 4, 0, 0, 0, 0],
    ];
    for record in plaintext {
        let (config, _) = Forger::client_config_tls13();
        let mut tls = stage.established(config);
        tls.sock.write_all(record).expect("sent");
        is_refused(&mut stage, &mut tls, AlertDescription::UnexpectedMessage, GREETING_BYTES);
    }
    // Sealed: a ClientHello, a NewSessionTicket, a change of cipher, a type of nobody.
    let within: [(u8, &[u8]); 4] = [
        (HANDSHAKE, &[1, 0, 0, 0]),
        (HANDSHAKE, &[4, 0, 0, 0]),
        (CHANGE_CIPHER_SPEC, &[1]),
        (99, b"?"),
    ];
    for (content_type, content) in within {
        let (config, secret) = Forger::client_config_tls13();
        let mut tls = stage.established(config);
        let mut forger = Forger::tls13(&secret, SEALED_SO_FAR);
        tls.sock.write_all(&forger.seal(content_type, content)).expect("sent");
        is_refused(&mut stage, &mut tls, AlertDescription::UnexpectedMessage, GREETING_BYTES);
    }
    stage.is_as_before();
}

#[test]
fn something_that_is_no_record_is_refused() {
    let mut stage = Stage::set("");
    let mut tls = stage.established(tls_client::config());
    tls.sock.write_all(b"\x17GET / HTTP/1.1\r\n").expect("sent");
    is_refused(&mut stage, &mut tls, AlertDescription::ProtocolVersion, GREETING_BYTES);
    stage.is_as_before();
}

#[test]
fn key_updates_between_data_go_on_for_ever() {
    let mut stage = Stage::set("");
    let mut tls = stage.established(tls_client::config());
    for _ in 0..10 * usize::from(KEY_UPDATES_MAX) {
        tls.conn.refresh_traffic_keys().expect("TLS 1.3");
        echo(&mut tls, b"under new keys");
    }
    drop(tls);
    stage.is_as_before();
}

#[test]
fn a_flood_of_key_updates_is_refused() {
    let mut stage = Stage::set("");
    let mut tls = stage.established(tls_client::config());
    for _ in 0..KEY_UPDATES_MAX {
        tls.conn.refresh_traffic_keys().expect("TLS 1.3");
        tls.flush().expect("sent");
    }
    echo(&mut tls, b"still with you");
    for _ in 0..=KEY_UPDATES_MAX {
        tls.conn.refresh_traffic_keys().expect("TLS 1.3");
        tls.flush().expect("sent");
    }
    let bytes = GREETING_BYTES + b"still with you".len();
    is_refused(&mut stage, &mut tls, AlertDescription::UnexpectedMessage, bytes);
    stage.is_as_before();
}

#[test]
fn a_flood_of_empty_records_is_refused() {
    let mut stage = Stage::set("");
    let (config, secret) = Forger::client_config_tls13();
    let mut tls = stage.established(config);
    let mut forger = Forger::tls13(&secret, SEALED_SO_FAR);
    let mut send = |tls: &mut TlsStream, count: u8, text: &[u8]| {
        let mut records: Vec<u8> =
            (0..count).flat_map(|_| forger.seal(APPLICATION_DATA, b"")).collect();
        records.extend(forger.seal(APPLICATION_DATA, text));
        tls.sock.write_all(&records).expect("sent");
    };
    send(&mut tls, EMPTY_RECORDS_MAX, b"after as many as are allowed");
    echoed(&mut tls, b"after as many as are allowed");
    send(&mut tls, EMPTY_RECORDS_MAX + 1, b"after one too many");
    let bytes = GREETING_BYTES + b"after as many as are allowed".len();
    is_refused(&mut stage, &mut tls, AlertDescription::UnexpectedMessage, bytes);
    stage.is_as_before();
}

#[test]
fn a_flood_of_warning_alerts_is_refused() {
    let mut stage = Stage::set("");
    let (config, secret) = Forger::client_config_tls13();
    let mut tls = stage.established(config);
    let mut forger = Forger::tls13(&secret, SEALED_SO_FAR);
    let user_canceled = [1, 90];
    let records: Vec<u8> = (0..5).flat_map(|_| forger.seal(ALERT, &user_canceled)).collect();
    tls.sock.write_all(&records).expect("sent");
    is_refused(&mut stage, &mut tls, AlertDescription::UnexpectedMessage, GREETING_BYTES);
    stage.is_as_before();
}

#[test]
fn a_fatal_alert_of_the_client_resets_the_backend() {
    let mut stage = Stage::set("");
    let (config, secret) = Forger::client_config_tls13();
    let mut tls = stage.established(config);
    let mut forger = Forger::tls13(&secret, SEALED_SO_FAR);
    tls.sock.write_all(&forger.seal(ALERT, &[2, 80])).expect("sent");
    let backend = &stage.backend;
    stage.forebay.wait_until("the backend is reset", |_| {
        backend.endings().first().is_some_and(|ending| !ending.in_order)
    });
    stage.is_as_before();
}
