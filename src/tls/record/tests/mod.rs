//! Tests of the record layer as a whole, and what they share.

mod differential;
mod lifetime;
mod properties;
mod refusals;
mod rfc8448;
mod servers;

use std::ops::Range;

use super::*;
use crate::tls::aead::AeadKey;
use crate::tls::{CryptoLibrary, Version};

const LIBRARIES: [CryptoLibrary; 2] = [CryptoLibrary::AwsLc, CryptoLibrary::Ring];
const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];
const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305];

/// Every combination of version, algorithm and library.
fn every_suite() -> impl Iterator<Item = (Version, Algorithm, CryptoLibrary)> {
    VERSIONS.into_iter().flat_map(|version| {
        ALGORITHMS.into_iter().flat_map(move |algorithm| {
            LIBRARIES.into_iter().map(move |library| (version, algorithm, library))
        })
    })
}

/// The same keys every time, so that both ends of a test agree.
fn test_keys(
    version: Version,
    algorithm: Algorithm,
    library: CryptoLibrary,
    sequence: u64,
) -> DirectionKeys {
    let secret = [0x5a; 48];
    match version {
        Version::Tls13 => {
            let secret = &secret[..Hash::of_suite(algorithm).output_bytes()];
            let secret = TrafficSecret::copy_of(secret).unwrap();
            DirectionKeys::from_traffic_secret(algorithm, library, secret, sequence).unwrap()
        }
        Version::Tls12 => DirectionKeys {
            version,
            algorithm,
            hash: Hash::of_suite(algorithm),
            library,
            key: KeyBytes::copy_of(&secret[..algorithm.key_bytes()]).unwrap(),
            iv: IvBytes::copy_of(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).unwrap(),
            sequence,
            traffic_secret: None,
            key_update_bytes: 0,
            ended: false,
        },
    }
}

fn test_pair(version: Version, algorithm: Algorithm, library: CryptoLibrary) -> (Sealer, Opener) {
    let sealer = Sealer::new(test_keys(version, algorithm, library, 0)).unwrap();
    let opener = Opener::new(test_keys(version, algorithm, library, 0)).unwrap();
    (sealer, opener)
}

/// A peer that seals whatever it is told, legal or not, written apart from the sealer.
struct Peer {
    version: Version,
    algorithm: Algorithm,
    key: AeadKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Peer {
    /// A peer and the opener that listens to it.
    fn new(version: Version, algorithm: Algorithm) -> (Self, Opener) {
        let library = CryptoLibrary::AwsLc;
        let keys = test_keys(version, algorithm, library, 0);
        let peer = Self {
            version,
            algorithm,
            key: AeadKey::new(library, algorithm, keys.key.as_slice()).unwrap(),
            iv: keys.iv.as_slice().try_into().unwrap(),
            sequence: 0,
        };
        (peer, Opener::new(keys).unwrap())
    }

    /// A server, and the opener of its client.
    fn server(version: Version) -> (Self, Opener) {
        let (peer, _) = Self::new(version, Algorithm::Aes128Gcm);
        let keys = test_keys(version, Algorithm::Aes128Gcm, CryptoLibrary::AwsLc, 0);
        (peer, Opener::from_server(keys).unwrap())
    }

    fn tls12() -> (Self, Opener) {
        Self::new(Version::Tls12, Algorithm::Aes128Gcm)
    }

    fn tls13() -> (Self, Opener) {
        Self::new(Version::Tls13, Algorithm::Aes128Gcm)
    }

    /// A record of this type and content.
    fn record(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        match self.version {
            Version::Tls12 => self.sealed(content_type, content.to_vec()),
            Version::Tls13 => self.record_tls13(content_type, content, 0),
        }
    }

    /// A TLS 1.3 record with padding.
    fn record_tls13(&mut self, content_type: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut inner = content.to_vec();
        inner.push(content_type);
        inner.resize(inner.len() + padding, 0);
        self.sealed(content_type::APPLICATION_DATA, inner)
    }

    /// A record whose plaintext, inner type included, is `text`.
    fn sealed(&mut self, outer_type: u8, mut text: Vec<u8>) -> Vec<u8> {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        (0..8).for_each(|at| nonce[4 + at] ^= sequence[at]);
        let explicit: &[u8] = match self.version {
            Version::Tls12 if self.algorithm != Algorithm::Chacha20Poly1305 => {
                // Any unique value will do: TLS 1.2 leaves it to the sender.
                nonce[4..].copy_from_slice(&(!self.sequence).to_be_bytes());
                &nonce[4..]
            }
            _ => &[],
        };
        let length = u16::try_from(explicit.len() + text.len() + 16).unwrap().to_be_bytes();
        let mut record = vec![outer_type, 3, 3, length[0], length[1]];
        let additional = match self.version {
            Version::Tls13 => record.clone(),
            Version::Tls12 => {
                let text_length = u16::try_from(text.len()).unwrap().to_be_bytes();
                [&sequence[..], &[outer_type, 3, 3], &text_length].concat()
            }
        };
        let mut tag = [0; 16];
        self.key.seal(nonce, &additional, &mut text, &mut tag).unwrap();
        self.sequence += 1;
        record.extend_from_slice(explicit);
        record.extend_from_slice(&text);
        record.extend_from_slice(&tag);
        record
    }
}

/// Opens the one record in `bytes` and returns the data in it.
fn open_data(opener: &mut Opener, bytes: &mut [u8]) -> Vec<u8> {
    let all = bytes.len();
    match opener.open(bytes).unwrap() {
        Opened::Data { plaintext, record_bytes } => {
            assert_eq!(record_bytes, all);
            bytes[plaintext].to_vec()
        }
        other => panic!("{other:?}"),
    }
}

/// Opens all records in `bytes` and returns the data in them.
fn open_all(opener: &mut Opener, mut bytes: &mut [u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while !bytes.is_empty() {
        let Opened::Data { plaintext, record_bytes } = opener.open(bytes).unwrap() else {
            panic!("only data was expected");
        };
        data.extend_from_slice(&bytes[plaintext]);
        bytes = &mut bytes[record_bytes..];
    }
    data
}

/// Seals `data` into a vector of its own.
fn seal(sealer: &mut Sealer, data: &[u8], record_plaintext_max: usize) -> Vec<u8> {
    let front = sealer.header_bytes();
    let room = sealer.sealed_bytes(data.len(), record_plaintext_max);
    let mut buffer = vec![0; room.max(front)];
    buffer[front..front + data.len()].copy_from_slice(data);
    let sealed =
        sealer.seal_run(&mut buffer, front..front + data.len(), record_plaintext_max).unwrap();
    buffer[sealed].to_vec()
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn in_range(&mut self, range: Range<usize>) -> usize {
        range.start + usize::try_from(self.next() % (range.len() as u64)).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
