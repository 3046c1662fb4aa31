//! What a fuzzer feeds: functions that take any bytes and return, whatever the bytes are.
//!
//! `fuzz/` runs them under libFuzzer, and `tests/fuzz_corpus.rs` on the committed corpus and
//! on mutations of it, so that both are about the same code. For nobody else.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::dns::message::{Answer, Query, RecordType, read_answer};
use crate::proxy_protocol::authentication::{AuthenticationKey, KEY_BYTES, verify};
use crate::proxy_protocol::contents::{Contents, TypeSet, Value, ValueSet, can_be_passed_on};
use crate::proxy_protocol::decode::{Decoded, Received, Values, decode};
use crate::proxy_protocol::passed_on::PassedOn;
use crate::proxy_protocol::{HEADER_BYTES_MAX, Header, ProxyProtocol, encode};
use crate::tls::CryptoLibrary;
use crate::tls::certificates;
use crate::tls::certificates::examination::{Standard, examine, leaf_issuer};
use crate::tls::certificates::file_index::FileIndex;
use crate::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Ja4, Scan, scan};
use crate::tls::tickets::secret_file::SecretFile;
use crate::tls::tickets::{DomainId, KeySet, Timing};

/// A target's name, and what takes any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. Its name is that of its file in `fuzz/fuzz_targets` and of its directory in
/// `fuzz/corpus`.
pub const TARGETS: [Target; 10] = [
    ("certificate", certificate),
    ("client_hello", client_hello),
    ("dns_answer", dns_answer),
    ("file_index", file_index),
    ("ocsp", ocsp),
    ("pem", pem),
    ("policy_file", policy_file),
    ("proxy_header", proxy_header),
    ("secret_file", secret_file),
    ("ticket", ticket),
];

const LIBRARIES: [CryptoLibrary; 2] = [CryptoLibrary::AwsLc, CryptoLibrary::Ring];

/// A file of certificates and keys, as loading reads it.
pub fn pem(bytes: &[u8]) {
    for library in LIBRARIES {
        certificates::load_bytes(bytes, library);
    }
}

/// A policy file that lies beside a certificate.
pub fn policy_file(bytes: &[u8]) {
    certificates::check_policy(bytes);
}

/// A certificate in DER, as `forebay certs check` looks at one that a server has sent.
pub fn certificate(bytes: &[u8]) {
    let chain = [CertificateDer::from(bytes), CertificateDer::from(bytes)];
    for library in LIBRARIES {
        let standard = Standard { roots: None, now: 1_800_000_000, days: 30 };
        let examined = examine(&chain, library, standard);
        let _ = examined.covers("www.example.com");
        for flaw in &examined.flaws {
            let _ = flaw.to_string();
        }
    }
    let _ = leaf_issuer(&chain);
}

/// What a client sends first, and the fingerprint of it.
pub fn client_hello(bytes: &[u8]) {
    let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
    let Scan::Complete(hello) = scan(bytes, &mut scratch) else { return };
    assert!(hello.stream_bytes <= bytes.len(), "no more than there is");
    let fingerprint = Ja4::of(&hello);
    assert!(fingerprint.is_none_or(|made| made.as_str().parse() == Ok(made)), "it is one");
}

/// What a nameserver answers, to a question of each type: as it is, and as the answer to that
/// question, since its number and name would keep everything out.
pub fn dns_answer(bytes: &[u8]) {
    for record_type in [RecordType::A, RecordType::Aaaa, RecordType::Srv] {
        let query = Query::new(0x1234, "app.example", record_type).expect("a name");
        let _ = read_answer(&query, bytes);
        let mut message = bytes.to_vec();
        let question = &query.message()[12..];
        let Some(place) = message.get_mut(12..12 + question.len()) else { continue };
        place.copy_from_slice(question);
        message[..2].copy_from_slice(&query.message()[..2]);
        message[2] = 0x80;
        message[4..6].copy_from_slice(&[0, 1]);
        if let Ok(Answer::Records { records, .. }) = read_answer(&query, &message) {
            // A record has 11 bytes at least.
            assert!(
                !records.is_empty() && records.len() <= bytes.len() / 11,
                "as many as there are"
            );
        }
    }
}

/// An index of certificate files, as it stands on the disk; and any lines behind a head that
/// fits them, since a checksum would keep everything out.
pub fn file_index(bytes: &[u8]) {
    let _ = FileIndex::read(bytes.to_vec());
    let body = bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or(bytes);
    let lines = body.split_inclusive(|byte| *byte == b'\n').count();
    let crc32 = crc32fast::hash(body);
    let head = format!(
        "{{\"format\":1,\"library\":\"ring\",\"files\":{lines},\"crc32\":\"{crc32:08x}\"}}\n"
    );
    match FileIndex::read([head.as_bytes(), body].concat()) {
        Ok(index) => assert!(index.understand_all() <= lines, "no more than there is"),
        Err(error) => drop(error.to_string()),
    }
}

/// What a balancer in front sends first, whether it is believed for its signature, and what
/// goes on to a server.
pub fn proxy_header(bytes: &[u8]) {
    match decode(bytes) {
        Decoded::Complete(header) => {
            let values: usize = header.values.iter().map(|(_, value)| value.len()).sum();
            assert!(values <= header.bytes && header.bytes <= bytes.len(), "no more than there is");
            pass_on(header);
        }
        Decoded::Refused(error) => drop(error.to_string()),
        Decoded::Incomplete => {}
    }
    if let Err(error) = verify(bytes, &*PROXY_KEYS, PROXY_NOW, Duration::MAX) {
        let _ = error.to_string();
    }
}

const PROXY_NOW: Duration = Duration::from_secs(1_800_000_000);
static PROXY_KEYS: LazyLock<[AuthenticationKey; 1]> =
    LazyLock::new(|| [AuthenticationKey::new(&[7; KEY_BYTES])]);

/// Everything that can go on does, in a header that is whole, summed and signed.
fn pass_on(received: Received<'_>) {
    let Some((source, destination)) = received.addresses else { return };
    let mut types = TypeSet::default();
    (0..=u8::MAX).filter(|kind| can_be_passed_on(*kind)).for_each(|kind| types.insert(kind));
    let (kept, _) = PassedOn::of(received.values, &types);
    let contents = Contents {
        values: ValueSet::NONE.with(Value::Crc32c),
        alignment: 1 + usize::from(source.port()) % Contents::ALIGNMENT_MAX,
        passed_on: types,
        key: Some(Arc::new(AuthenticationKey::new(&[7; KEY_BYTES]))),
        ..Contents::default()
    };
    let header =
        Header { passed_on: kept.values(), now: PROXY_NOW, ..Header::new(source, destination) };
    let mut out = [0; HEADER_BYTES_MAX];
    let encoded = encode(ProxyProtocol::V2, &contents, &header, &mut out).expect("there is room");
    assert_eq!(encoded.bytes % contents.alignment, 0, "filled up");
    let verified = verify(&out[..encoded.bytes], &*PROXY_KEYS, PROXY_NOW, Duration::ZERO);
    let again = verified.expect("what was signed is genuine").header;
    let sent = |values: Values<'_>| {
        let of_types = values.iter().filter(|(kind, _)| types.contains(*kind));
        of_types.map(|(kind, value)| (kind, value.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(sent(again.values), sent(kept.values()), "all that was kept goes on");
}

/// An OCSP response, about a certificate whose issuer is at hand.
pub fn ocsp(bytes: &[u8]) {
    for library in LIBRARIES {
        certificates::check_staple(bytes, include_bytes!("../fuzz/ocsp-chain.pem"), library);
    }
}

/// A file of ticket secrets, in any of the forms that are read.
pub fn secret_file(bytes: &[u8]) {
    if let Err(error) = SecretFile::parse(bytes) {
        let _ = error.to_string();
    }
}

/// A session ticket, as a client sends it, and what a ticket holds.
pub fn ticket(bytes: &[u8]) {
    const NOW: u64 = 1_800_000_000;
    const NAME_BYTES: usize = 16;
    static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
        let file = SecretFile::parse(&[7; 48]).expect("48 bytes are a file of nginx");
        let secrets: Vec<_> = file.secrets.iter().collect();
        let domain = DomainId::of_names(["fuzz.example"]);
        KeySet::new(CryptoLibrary::AwsLc, &secrets, &domain, Timing::DEFAULT, NOW)
            .expect("a fixed secret has every epoch")
    });
    let _ = KEYS.open(bytes, NOW);
    let Some(sealed) = KEYS.seal(bytes, NOW) else { return };
    // With the name of a key that there is, so that what follows is looked at.
    let _ = KEYS.open(&[&sealed[..NAME_BYTES], bytes].concat(), NOW);
    let opened = KEYS.open(&sealed, NOW).map(|opened| opened.state);
    assert!(opened.is_ok_and(|state| state == bytes), "what was sealed is opened");
    let mut forged = sealed;
    let place = bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_add(usize::from(*byte)));
    let place = place % forged.len();
    forged[place] ^= 1;
    assert!(KEYS.open(&forged, NOW).is_err(), "a forged ticket is opened");
}
