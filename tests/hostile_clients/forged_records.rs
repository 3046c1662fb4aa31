//! Seals whatever it is told to with the keys of a client, right or wrong.
//!
//! Written against the RFCs with a library's AEAD, not with the record layer under test,
//! which would refuse to seal most of this.

use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use forebay::tls::CryptoLibrary;
use forebay::tls::key_schedule::{Hash, traffic_keys};
use forebay::tls::record::Algorithm;
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::{ClientConfig, ConnectionTrafficSecrets, KeyLog};

use crate::support::tls_client;

/// A client's side of a connection with AES-128-GCM.
pub(crate) struct Forger {
    key: LessSafeKey,
    /// The whole nonce of TLS 1.3 before the sequence number; the salt of TLS 1.2 and
    /// anything behind it.
    iv: [u8; 12],
    sequence: u64,
    tls13: bool,
}

impl Forger {
    /// A client configuration for TLS 1.3 that tells its secret to the second value.
    pub(crate) fn client_config_tls13() -> (ClientConfig, CaughtSecret) {
        let mut config = tls_client::config_for(cipher_suite::TLS13_AES_128_GCM_SHA256);
        let caught = CaughtSecret::default();
        config.key_log = Arc::new(caught.clone());
        (config, caught)
    }

    /// A client configuration for TLS 1.2 whose connections give their secrets away.
    pub(crate) fn client_config_tls12() -> ClientConfig {
        let suite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
        let mut config = tls_client::config_for(suite);
        config.enable_secret_extraction = true;
        config
    }

    /// Goes on after `sequence` records of a TLS 1.3 connection.
    pub(crate) fn tls13(caught: &CaughtSecret, sequence: u64) -> Self {
        let secret = caught.0.lock().expect("secret").clone().expect("the handshake is done");
        let algorithm = Algorithm::Aes128Gcm;
        let (key, iv) = traffic_keys(CryptoLibrary::AwsLc, Hash::Sha256, &secret, algorithm);
        Self::new(key.as_slice(), iv.as_slice(), sequence, true)
    }

    /// Goes on after `sequence` records of a TLS 1.2 connection.
    pub(crate) fn tls12(secrets: &ConnectionTrafficSecrets, sequence: u64) -> Self {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            panic!("the configuration allows no other")
        };
        Self::new(key.as_ref(), iv.as_ref(), sequence, false)
    }

    fn new(key: &[u8], iv: &[u8], sequence: u64, tls13: bool) -> Self {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("16 bytes"));
        Self { key, iv: iv.try_into().expect("12 bytes"), sequence, tls13 }
    }

    /// The next record, properly sealed.
    pub(crate) fn seal(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        let sequence = self.sequence.to_be_bytes();
        self.sequence += 1;
        if self.tls13 {
            self.seal_tls13(content_type, content, sequence)
        } else {
            self.seal_tls12(content_type, content, sequence)
        }
    }

    /// RFC 8446 sections 5.2 and 5.3.
    fn seal_tls13(&self, content_type: u8, content: &[u8], sequence: [u8; 8]) -> Vec<u8> {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(sequence).for_each(|(byte, part)| *byte ^= part);
        let mut inner = content.to_vec();
        inner.push(content_type);
        let length = (inner.len() + 16) as u16;
        let mut record = vec![23, 3, 3];
        record.extend(length.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&record), &mut inner).expect("sealed");
        record.extend(inner);
        record
    }

    /// RFC 5288 section 3, RFC 5246 section 6.2.3.3.
    fn seal_tls12(&self, content_type: u8, content: &[u8], sequence: [u8; 8]) -> Vec<u8> {
        let mut nonce = self.iv;
        nonce[4..].copy_from_slice(&sequence);
        let mut additional = sequence.to_vec();
        additional.extend([content_type, 3, 3]);
        additional.extend((content.len() as u16).to_be_bytes());
        let mut sealed = content.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, Aad::from(additional), &mut sealed)
            .expect("sealed");
        let length = (8 + sealed.len()) as u16;
        let mut record = vec![content_type, 3, 3];
        record.extend(length.to_be_bytes());
        record.extend(&nonce[4..]);
        record.extend(sealed);
        record
    }
}

/// The client's first application traffic secret, once there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct CaughtSecret(Arc<Mutex<Option<Vec<u8>>>>);

impl KeyLog for CaughtSecret {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().expect("secret") = Some(secret.to_vec());
        }
    }
}
