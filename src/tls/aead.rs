//! The AEADs of TLS, in place, from whichever library configuration chose.
//!
//! Knows bytes, keys and nonces. Must not know records: what a nonce is made of, and
//! that it is never used twice, is the record layer's business.
#![forbid(unsafe_code)]

use std::fmt;

use aws_lc_rs::aead as aws_lc;
use ring::aead as ring_aead;

use super::CryptoLibrary;

/// Bytes of an authentication tag; the same for every suite we speak (RFC 5116
/// section 5, RFC 8439 section 2.8).
pub const TAG_BYTES: usize = 16;

/// Bytes of a nonce; the same for every suite we speak (RFC 8446 section 5.3).
pub const NONCE_BYTES: usize = 12;

/// A key made ready for sealing or opening.
///
/// Both libraries keep the expanded key (about 550 bytes) on the heap: aws-lc does so by
/// itself, and ring's is boxed so that the value costs the same few words either way and
/// the default library does not pay for the size of the other.
///
/// aws-lc clears its key when it frees it. ring does not, so [`RingKey`] does.
///
/// aws-lc's record-aware `TlsRecordSealingKey` is of no use here: it takes the first
/// nonce that it sees for sequence number 0, but our keys come from a handshake that has
/// already sealed records with them.
pub enum AeadKey {
    /// A key of aws-lc-rs.
    AwsLc(aws_lc::LessSafeKey),
    /// A key of ring.
    Ring(RingKey),
}

/// The AEAD algorithms of the suites that forebay speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// AES-128 in Galois/Counter Mode (RFC 5288, RFC 8446 appendix B.4).
    Aes128Gcm,
    /// AES-256 in Galois/Counter Mode (RFC 5288, RFC 8446 appendix B.4).
    Aes256Gcm,
    /// ChaCha20 with Poly1305 (RFC 7905, RFC 8446 appendix B.4).
    Chacha20Poly1305,
}

impl Algorithm {
    /// Bytes of a key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    /// Whether this is AES-GCM, which has a confidentiality limit that matters and, in
    /// TLS 1.2, an explicit nonce.
    pub const fn is_aes_gcm(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes256Gcm)
    }
}

/// Why a key was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{algorithm:?} takes a key of {} bytes, not {actual_bytes}", algorithm.key_bytes())]
pub struct KeyLengthError {
    /// The algorithm asked for.
    pub algorithm: Algorithm,
    /// Bytes that were given.
    pub actual_bytes: usize,
}

/// The bytes are not authentic, or longer than the algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("AEAD operation failed")]
pub struct AeadError;

impl AeadKey {
    /// Expands `key` for `algorithm`.
    ///
    /// # Errors
    /// The key is not as long as the algorithm needs.
    pub fn new(
        library: CryptoLibrary,
        algorithm: Algorithm,
        key: &[u8],
    ) -> Result<Self, KeyLengthError> {
        let wrong_length = KeyLengthError { algorithm, actual_bytes: key.len() };
        match library {
            CryptoLibrary::AwsLc => {
                let algorithm = match algorithm {
                    Algorithm::Aes128Gcm => &aws_lc::AES_128_GCM,
                    Algorithm::Aes256Gcm => &aws_lc::AES_256_GCM,
                    Algorithm::Chacha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
                };
                aws_lc::UnboundKey::new(algorithm, key)
                    .map(|key| Self::AwsLc(aws_lc::LessSafeKey::new(key)))
                    .map_err(|_| wrong_length)
            }
            CryptoLibrary::Ring => {
                let algorithm = match algorithm {
                    Algorithm::Aes128Gcm => &ring_aead::AES_128_GCM,
                    Algorithm::Aes256Gcm => &ring_aead::AES_256_GCM,
                    Algorithm::Chacha20Poly1305 => &ring_aead::CHACHA20_POLY1305,
                };
                ring_aead::UnboundKey::new(algorithm, key)
                    .map(|key| Self::Ring(RingKey(Box::new(ring_aead::LessSafeKey::new(key)))))
                    .map_err(|_| wrong_length)
            }
        }
    }

    /// The library that this key belongs to.
    pub const fn library(&self) -> CryptoLibrary {
        match self {
            Self::AwsLc(_) => CryptoLibrary::AwsLc,
            Self::Ring(_) => CryptoLibrary::Ring,
        }
    }

    /// Encrypts `in_out` in place and writes the tag. `nonce` must never have been used
    /// with this key before.
    ///
    /// # Errors
    /// `in_out` is longer than the algorithm takes (64 GiB): not reachable with records.
    #[inline]
    pub fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        additional: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8; TAG_BYTES],
    ) -> Result<(), AeadError> {
        match self {
            Self::AwsLc(key) => key
                .seal_in_place_scatter(
                    aws_lc::Nonce::assume_unique_for_key(nonce),
                    aws_lc::Aad::from(additional),
                    in_out,
                    &[],
                    tag,
                )
                .map_err(|_| AeadError),
            Self::Ring(key) => key
                .0
                .seal_in_place_separate_tag(
                    ring_aead::Nonce::assume_unique_for_key(nonce),
                    ring_aead::Aad::from(additional),
                    in_out,
                )
                .map(|sealed| tag.copy_from_slice(sealed.as_ref()))
                .map_err(|_| AeadError),
        }
    }

    /// Authenticates and decrypts `in_out` in place.
    ///
    /// The tag is taken apart from the ciphertext because that is the one form which
    /// neither library follows with a move of the plaintext.
    ///
    /// # Errors
    /// The bytes are not authentic; `in_out` then holds nothing of meaning.
    #[inline]
    pub fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        additional: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), AeadError> {
        match self {
            Self::AwsLc(key) => key
                .open_in_place_separate_tag(
                    aws_lc::Nonce::assume_unique_for_key(nonce),
                    aws_lc::Aad::from(additional),
                    tag,
                    in_out,
                )
                .map(|_| ())
                .map_err(|_| AeadError),
            Self::Ring(key) => key
                .0
                .open_in_place_separate_tag(
                    ring_aead::Nonce::assume_unique_for_key(nonce),
                    ring_aead::Aad::from(additional),
                    ring_aead::Tag::from(*tag),
                    in_out,
                    0..,
                )
                .map(|_| ())
                .map_err(|_| AeadError),
        }
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AeadKey({})", self.library())
    }
}

/// A key of ring that does not stay behind in freed memory. What the stack held while it
/// was made is out of reach for safe code.
pub struct RingKey(Box<ring_aead::LessSafeKey>);

impl Drop for RingKey {
    fn drop(&mut self) {
        // ring neither clears its keys nor lets us at their bytes. What safe code can do
        // is put the expansion of a public key in the same place; the black box keeps
        // the compiler from dropping that store as dead.
        let algorithm = self.0.algorithm();
        let zeros = [0; 32];
        if let Some(zeros) = zeros.get(..algorithm.key_len())
            && let Ok(key) = ring_aead::UnboundKey::new(algorithm, zeros)
        {
            *self.0 = ring_aead::LessSafeKey::new(key);
            std::hint::black_box(&mut *self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARIES: [CryptoLibrary; 2] = [CryptoLibrary::AwsLc, CryptoLibrary::Ring];
    const ALGORITHMS: [Algorithm; 3] =
        [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305];

    #[test]
    fn what_one_library_seals_the_other_opens() {
        for algorithm in ALGORITHMS {
            let key = [7; 32];
            let key = &key[..algorithm.key_bytes()];
            for (sealing, opening) in [
                (CryptoLibrary::AwsLc, CryptoLibrary::Ring),
                (CryptoLibrary::Ring, CryptoLibrary::AwsLc),
            ] {
                let mut text = *b"in place, both ways";
                let mut tag = [0; TAG_BYTES];
                let sealer = AeadKey::new(sealing, algorithm, key).unwrap();
                sealer.seal([1; NONCE_BYTES], b"header", &mut text, &mut tag).unwrap();
                assert_ne!(&text, b"in place, both ways");
                let opener = AeadKey::new(opening, algorithm, key).unwrap();
                opener.open([1; NONCE_BYTES], b"header", &mut text, &tag).unwrap();
                assert_eq!(&text, b"in place, both ways");
            }
        }
    }

    #[test]
    fn a_changed_tag_or_header_is_refused() {
        for library in LIBRARIES {
            for algorithm in ALGORITHMS {
                let key = [7; 32];
                let key = AeadKey::new(library, algorithm, &key[..algorithm.key_bytes()]).unwrap();
                let mut text = [3; 40];
                let mut tag = [0; TAG_BYTES];
                key.seal([1; NONCE_BYTES], b"header", &mut text, &mut tag).unwrap();
                let sealed = text;
                assert_eq!(key.open([1; NONCE_BYTES], b"footer", &mut text, &tag), Err(AeadError));
                text = sealed;
                tag[15] ^= 1;
                assert_eq!(key.open([1; NONCE_BYTES], b"header", &mut text, &tag), Err(AeadError));
            }
        }
    }

    #[test]
    fn a_key_of_the_wrong_length_is_named_in_the_error() {
        for library in LIBRARIES {
            let error = AeadKey::new(library, Algorithm::Aes128Gcm, &[0; 32]).unwrap_err();
            assert_eq!(error.to_string(), "Aes128Gcm takes a key of 16 bytes, not 32");
        }
    }

    #[test]
    fn a_key_costs_the_connection_a_few_words() {
        assert!(size_of::<AeadKey>() <= 32, "{}", size_of::<AeadKey>());
    }
}
