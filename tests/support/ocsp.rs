//! OCSP responses for any time, which `openssl ocsp` makes for now only.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::time::ASN1Time;

/// A response that says "good" of the certificate in `leaf` until `ends`, signed by the
/// P-256 key in `issuer_key` of the certificate in `issuer`; all PEM files.
pub fn response(leaf: &Path, issuer: &Path, issuer_key: &Path, ends: SystemTime) -> Vec<u8> {
    let leaf = CertificateDer::from_pem_file(leaf).expect("a certificate");
    let issuer = CertificateDer::from_pem_file(issuer).expect("a certificate");
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).expect("X.509");
    let (_, issuer) = x509_parser::parse_x509_certificate(&issuer).expect("X.509");
    let sha1 = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
    let key_hash = sha1(&issuer.public_key().subject_public_key.data);

    let id = sequence(&[
        &sequence(&[&[0x06, 5, 0x2b, 0x0e, 3, 2, 0x1a]]),
        &element(0x04, &sha1(issuer.subject().as_raw())),
        &element(0x04, &key_hash),
        &element(0x02, leaf.raw_serial()),
    ]);
    let begin = ends - Duration::from_secs(86_400);
    let single = sequence(&[&id, &[0x80, 0], &time(begin), &element(0xa0, &time(ends))]);
    let responder = element(0xa2, &element(0x04, &key_hash));
    let signed = sequence(&[&responder, &time(begin), &sequence(&[&single])]);

    let key = PrivatePkcs8KeyDer::from_pem_file(issuer_key).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_pkcs8_der());
    let signature = key.expect("P-256").sign(&SystemRandom::new(), &signed).expect("signed");
    // ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
    let algorithm = sequence(&[&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let basic =
        sequence(&[&signed, &algorithm, &element(0x03, &[&[0], signature.as_ref()].concat())]);
    let kind = [0x06, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    let bytes = sequence(&[&kind, &element(0x04, &basic)]);
    sequence(&[&[0x0a, 1, 0], &element(0xa0, &bytes)])
}

fn time(at: SystemTime) -> Vec<u8> {
    let seconds = at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let at = ASN1Time::from_timestamp(i64::try_from(seconds).expect("small")).expect("a time");
    let at = at.to_datetime();
    let (date, time) = (at.date(), at.time());
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    element(0x18, text.as_bytes())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// Tag, length, content (X.690 section 8.1).
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut element = vec![tag];
    match u8::try_from(length) {
        Ok(short @ ..0x80) => element.push(short),
        Ok(long) => element.extend([0x81, long]),
        Err(_) => {
            element.push(0x82);
            element.extend(u16::try_from(length).expect("under 64 KiB").to_be_bytes());
        }
    }
    element.extend_from_slice(content);
    element
}
