//! What opener and sealer have in common: a key, its sequence numbers and its nonces.

use std::fmt;

use zeroize::Zeroize;

use super::keys::{DirectionKeys, KeysError};
use super::limits::{EXPLICIT_NONCE_BYTES, HEADER_BYTES};
use crate::tls::Version;
use crate::tls::aead::{AeadError, AeadKey, Algorithm, NONCE_BYTES, TAG_BYTES};
use crate::tls::key_schedule::{Hash, IvBytes, KeyBytes, SecretBytes};
use crate::tls::key_schedule::{next_traffic_secret, traffic_keys};

/// One direction of a connection, ready to use.
pub(super) struct Direction {
    key: AeadKey,
    /// Sequence number of the next record. Private, and advanced before it is used: a
    /// failure in between skips a number, which is safe, and never repeats one.
    sequence: u64,
    iv: [u8; NONCE_BYTES],
    /// What `key` can be made of again: in TLS 1.3 the traffic secret, in TLS 1.2 the
    /// key itself. Kept so that the keys can be updated and handed on.
    origin: SecretBytes<48>,
    version: Version,
    algorithm: Algorithm,
    hash: Hash,
}

/// All sequence numbers of the key are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SequenceEnd;

impl Direction {
    pub(super) fn new(keys: DirectionKeys) -> Result<Self, KeysError> {
        keys.check()?;
        let mut iv = [0; NONCE_BYTES];
        iv.copy_from_slice(keys.iv.as_slice());
        let origin = match (keys.version, &keys.traffic_secret) {
            (Version::Tls13, Some(secret)) => SecretBytes::copy_of(secret.as_slice()),
            (Version::Tls13, None) => return Err(KeysError::TrafficSecretMissing),
            (Version::Tls12, _) => SecretBytes::copy_of(keys.key.as_slice()),
        };
        Ok(Self {
            key: AeadKey::new(keys.library, keys.algorithm, keys.key.as_slice())?,
            sequence: keys.sequence,
            iv,
            origin: origin.expect("keys and secrets are at most 48 bytes by their types"),
            version: keys.version,
            algorithm: keys.algorithm,
            hash: keys.hash,
        })
    }

    pub(super) const fn version(&self) -> Version {
        self.version
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Sequence number of the next record.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes of the nonce that each record carries after its header.
    pub(super) const fn explicit_nonce_bytes(&self) -> usize {
        match self.version {
            Version::Tls12 if self.algorithm.is_aes_gcm() => EXPLICIT_NONCE_BYTES,
            Version::Tls12 | Version::Tls13 => 0,
        }
    }

    /// Takes `count` sequence numbers out of use and returns the first.
    ///
    /// Where the number would wrap, one "MUST either rekey ... or terminate the
    /// connection" (RFC 8446 section 5.3; so too RFC 5246 section 6.1).
    #[inline]
    pub(super) fn take_sequence_numbers(&mut self, count: u64) -> Result<u64, SequenceEnd> {
        let first = self.sequence;
        self.sequence = first.checked_add(count).ok_or(SequenceEnd)?;
        Ok(first)
    }

    /// The nonce of the record with this sequence number: the IV, masked with it (RFC
    /// 8446 section 5.3, RFC 7905 section 2).
    ///
    /// AES-GCM in TLS 1.2 leaves the explicit part to the sender, on condition that it
    /// never repeats (RFC 5288 section 3). rustls makes it in this same way, and has
    /// made some already in the handshake: ours must continue its series.
    #[inline]
    pub(super) fn nonce(&self, sequence: u64) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        for (byte, mask) in nonce[NONCE_BYTES - 8..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= mask;
        }
        nonce
    }

    /// The nonce of a received record that carries its explicit part (RFC 5288 section 3).
    #[inline]
    pub(super) fn nonce_with_explicit(
        &self,
        explicit: &[u8; EXPLICIT_NONCE_BYTES],
    ) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        nonce[NONCE_BYTES - EXPLICIT_NONCE_BYTES..].copy_from_slice(explicit);
        nonce
    }

    #[inline]
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        additional: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8; TAG_BYTES],
    ) -> Result<(), AeadError> {
        self.key.seal(nonce, additional, in_out, tag)
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        additional: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), AeadError> {
        self.key.open(nonce, additional, in_out, tag)
    }

    /// Moves on to the next generation of TLS 1.3 keys and starts its sequence numbers
    /// at 0 (RFC 8446 sections 5.3 and 7.2). The old key and secret are cleared.
    pub(super) fn roll(&mut self) {
        debug_assert_eq!(self.version, Version::Tls13);
        let library = self.key.library();
        self.origin = next_traffic_secret(library, self.hash, self.origin.as_slice());
        let (key, iv) = traffic_keys(library, self.hash, self.origin.as_slice(), self.algorithm);
        self.key = AeadKey::new(library, self.algorithm, key.as_slice())
            .expect("traffic_keys makes keys of the algorithm's length");
        self.iv.copy_from_slice(iv.as_slice());
        self.sequence = 0;
    }

    /// This direction as plain data.
    pub(super) fn export(&self) -> DirectionKeys {
        const PROOF: &str = "origin was copied from a value of this type";
        let library = self.key.library();
        let (key, traffic_secret) = match self.version {
            Version::Tls13 => {
                let secret = self.origin.as_slice();
                let (key, _) = traffic_keys(library, self.hash, secret, self.algorithm);
                (key, Some(SecretBytes::copy_of(secret).expect(PROOF)))
            }
            Version::Tls12 => (KeyBytes::copy_of(self.origin.as_slice()).expect(PROOF), None),
        };
        DirectionKeys {
            version: self.version,
            algorithm: self.algorithm,
            hash: self.hash,
            library,
            key,
            iv: IvBytes::copy_of(&self.iv).expect("an IV has 12 bytes"),
            sequence: self.sequence,
            traffic_secret,
            key_update_bytes: 0,
            ended: false,
        }
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

impl fmt::Debug for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Direction")
            .field("version", &self.version)
            .field("algorithm", &self.algorithm)
            .field("library", &self.key.library())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// A record header (RFC 8446 sections 5.1 and 5.2, RFC 5246 section 6.2.1). Both
/// versions write 3.3 into its version field.
#[inline]
pub(super) const fn header(content_type: u8, length: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(length <= u16::MAX as usize);
    let [high, low] = (length as u16).to_be_bytes();
    [content_type, 3, 3, high, low]
}

/// The additional data of a TLS 1.2 AEAD record: sequence number, type, version, and the
/// length of the plaintext (RFC 5246 section 6.2.3.3). In TLS 1.3 it is the header.
#[inline]
pub(super) fn additional_data_tls12(
    sequence: u64,
    header: [u8; HEADER_BYTES],
    plaintext_bytes: usize,
) -> [u8; 13] {
    debug_assert!(plaintext_bytes <= u16::MAX as usize);
    let mut data = [0; 13];
    data[..8].copy_from_slice(&sequence.to_be_bytes());
    data[8..11].copy_from_slice(&header[..3]);
    data[11..].copy_from_slice(&(plaintext_bytes as u16).to_be_bytes());
    data
}
