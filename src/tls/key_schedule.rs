//! The part of the TLS 1.3 key schedule that outlives the handshake: from a traffic
//! secret to its keys, and to the secret that follows it (RFC 8446 sections 7.1 to 7.3).
//!
//! With it, an established connection needs nothing of the library that shook hands.
#![forbid(unsafe_code)]

use std::fmt;

use zeroize::Zeroize;

use super::CryptoLibrary;
use super::aead::{Algorithm, NONCE_BYTES};

/// A secret of at most `CAPACITY` bytes, cleared when dropped and never copied or printed.
pub struct SecretBytes<const CAPACITY: usize> {
    bytes: [u8; CAPACITY],
    length: u8,
}

/// An AEAD key.
pub type KeyBytes = SecretBytes<32>;

/// A static initialisation vector, from which nonces are made.
pub type IvBytes = SecretBytes<NONCE_BYTES>;

/// A TLS 1.3 application traffic secret, as long as the suite's hash.
pub type TrafficSecret = SecretBytes<48>;

impl<const CAPACITY: usize> SecretBytes<CAPACITY> {
    /// A copy of `bytes`; `None` if they are more than `CAPACITY`.
    pub fn copy_of(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self::zeros(bytes.len())?;
        secret.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(secret)
    }

    /// `length` zeros to be filled in; `None` if that is more than `CAPACITY`.
    pub(super) fn zeros(length: usize) -> Option<Self> {
        if length > CAPACITY {
            return None;
        }
        Some(Self { bytes: [0; CAPACITY], length: u8::try_from(length).ok()? })
    }

    /// The secret.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Bytes of the secret.
    pub const fn length(&self) -> usize {
        self.length as usize
    }

    /// The secret, to be filled in.
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.length)]
    }
}

impl<const CAPACITY: usize> Drop for SecretBytes<CAPACITY> {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl<const CAPACITY: usize> fmt::Debug for SecretBytes<CAPACITY> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretBytes({} bytes)", self.length)
    }
}

/// The hash of a suite, which drives its key schedule (RFC 8446 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
}

impl Hash {
    /// The hash that goes with `algorithm` in the suites we speak: RFC 8446 appendix B.4
    /// for TLS 1.3; TLS 1.2 pairs them alike.
    pub const fn of_suite(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Aes128Gcm | Algorithm::Chacha20Poly1305 => Self::Sha256,
            Algorithm::Aes256Gcm => Self::Sha384,
        }
    }

    /// Bytes of a digest, and so of a traffic secret.
    pub const fn output_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

/// The key and IV of a traffic secret (RFC 8446 section 7.3).
pub fn traffic_keys(
    library: CryptoLibrary,
    hash: Hash,
    secret: &[u8],
    algorithm: Algorithm,
) -> (KeyBytes, IvBytes) {
    let mut key = KeyBytes { bytes: [0; 32], length: algorithm.key_bytes() as u8 };
    expand_label(library, hash, secret, b"key", key.as_mut_slice());
    let mut iv = IvBytes { bytes: [0; NONCE_BYTES], length: NONCE_BYTES as u8 };
    expand_label(library, hash, secret, b"iv", iv.as_mut_slice());
    (key, iv)
}

/// `application_traffic_secret_N+1` from `application_traffic_secret_N` (RFC 8446
/// section 7.2).
pub fn next_traffic_secret(library: CryptoLibrary, hash: Hash, secret: &[u8]) -> TrafficSecret {
    let mut next = TrafficSecret { bytes: [0; 48], length: hash.output_bytes() as u8 };
    expand_label(library, hash, secret, b"traffic upd", next.as_mut_slice());
    next
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand_label(
    library: CryptoLibrary,
    hash: Hash,
    secret: &[u8],
    label: &'static [u8],
    output: &mut [u8],
) {
    const PREFIX: &[u8] = b"tls13 ";
    debug_assert_eq!(secret.len(), hash.output_bytes());
    // struct { uint16 length; opaque label<7..255>; opaque context<0..255>; } HkdfLabel.
    // No output here is longer than a hash, so the first byte of the length is 0.
    let length = [0, output.len() as u8];
    let label_length = [(PREFIX.len() + label.len()) as u8];
    hkdf_expand(library, hash, secret, &[&length, &label_length, PREFIX, label, &[0]], output);
}

/// HKDF-Expand (RFC 5869 section 2.3) of the concatenated `info` into `output`, at most
/// 48 bytes.
pub(super) fn hkdf_expand(
    library: CryptoLibrary,
    hash: Hash,
    secret: &[u8],
    info: &[&[u8]],
    output: &mut [u8],
) {
    debug_assert!(output.len() <= 48);
    // HKDF-Expand fails only for more than 255 hashes of output (RFC 5869 section 2.3).
    const PROOF: &str = "an output of at most 48 bytes is within the 255 hashes of HKDF-Expand";
    match library {
        CryptoLibrary::AwsLc => {
            use aws_lc_rs::hkdf;
            struct Length(usize);
            impl hkdf::KeyType for Length {
                fn len(&self) -> usize {
                    self.0
                }
            }
            let algorithm = match hash {
                Hash::Sha256 => hkdf::HKDF_SHA256,
                Hash::Sha384 => hkdf::HKDF_SHA384,
            };
            hkdf::Prk::new_less_safe(algorithm, secret)
                .expand(info, Length(output.len()))
                .expect(PROOF)
                .fill(output)
                .expect(PROOF);
        }
        CryptoLibrary::Ring => {
            use ring::hkdf;
            struct Length(usize);
            impl hkdf::KeyType for Length {
                fn len(&self) -> usize {
                    self.0
                }
            }
            let algorithm = match hash {
                Hash::Sha256 => hkdf::HKDF_SHA256,
                Hash::Sha384 => hkdf::HKDF_SHA384,
            };
            hkdf::Prk::new_less_safe(algorithm, secret)
                .expand(info, Length(output.len()))
                .expect(PROOF)
                .fill(output)
                .expect(PROOF);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8448 section 3, "derive write traffic keys for application data".
    #[test]
    fn the_keys_of_rfc_8448_follow_from_its_secrets() {
        let secret = [
            0xa1, 0x1a, 0xf9, 0xf0, 0x55, 0x31, 0xf8, 0x56, 0xad, 0x47, 0x11, 0x6b, 0x45, 0xa9,
            0x50, 0x32, 0x82, 0x04, 0xb4, 0xf4, 0x4b, 0xfb, 0x6b, 0x3a, 0x4b, 0x4f, 0x1f, 0x3f,
            0xcb, 0x63, 0x16, 0x43,
        ];
        for library in [CryptoLibrary::AwsLc, CryptoLibrary::Ring] {
            let (key, iv) = traffic_keys(library, Hash::Sha256, &secret, Algorithm::Aes128Gcm);
            assert_eq!(
                key.as_slice(),
                [
                    0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef, 0xc2, 0x6b, 0xb9, 0xf2, 0xac,
                    0x92, 0xe3, 0x56
                ]
            );
            assert_eq!(
                iv.as_slice(),
                [0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84]
            );
        }
    }

    #[test]
    fn both_libraries_derive_the_same_next_secret() {
        for hash in [Hash::Sha256, Hash::Sha384] {
            let secret = [9; 48];
            let secret = &secret[..hash.output_bytes()];
            let aws_lc = next_traffic_secret(CryptoLibrary::AwsLc, hash, secret);
            let ring = next_traffic_secret(CryptoLibrary::Ring, hash, secret);
            assert_eq!(aws_lc.as_slice(), ring.as_slice());
            assert_eq!(aws_lc.length(), hash.output_bytes());
            assert_ne!(aws_lc.as_slice(), secret);
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = KeyBytes::copy_of(&[0xab; 16]).unwrap();
        assert_eq!(format!("{secret:?}"), "SecretBytes(16 bytes)");
        assert!(KeyBytes::copy_of(&[0; 33]).is_none());
    }
}
