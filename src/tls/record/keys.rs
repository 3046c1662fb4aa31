//! The state of one direction as plain data: what a handshake ends with, and what a
//! connection is handed on as.

use rustls::ConnectionTrafficSecrets;

use crate::tls::aead::{Algorithm, NONCE_BYTES};
use crate::tls::key_schedule::{Hash, IvBytes, KeyBytes, TrafficSecret, traffic_keys};
use crate::tls::{CryptoLibrary, Version};

/// Everything that opening or sealing one direction of a connection needs.
///
/// Not `Clone`: two sealers with the same keys would use every nonce twice.
#[derive(Debug)]
pub struct DirectionKeys {
    /// Protocol version.
    pub version: Version,
    /// AEAD of the suite.
    pub algorithm: Algorithm,
    /// Hash of the suite, which derives the next keys in TLS 1.3. Not used by TLS 1.2.
    pub hash: Hash,
    /// The library to do it with.
    pub library: CryptoLibrary,
    /// The AEAD key, [`Algorithm::key_bytes`] long.
    pub key: KeyBytes,
    /// The IV, 12 bytes.
    ///
    /// For AES-GCM in TLS 1.2 these are the 4 bytes of salt (RFC 5288 section 3) and the
    /// 8 bytes with which the sequence number is masked to make the explicit nonce.
    pub iv: IvBytes,
    /// Sequence number of the next record.
    pub sequence: u64,
    /// TLS 1.3 only, and there mandatory: the secret that the key comes from, and from
    /// which the next one is derived.
    pub traffic_secret: Option<TrafficSecret>,
    /// Opener in TLS 1.3: bytes of a KeyUpdate that have arrived in earlier records. At
    /// most 4; 0 at a message boundary, which is nearly always.
    pub key_update_bytes: u8,
    /// The direction has ended: by close_notify, or by a fatal error.
    pub ended: bool,
}

/// Why keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// rustls negotiated an AEAD that we do not speak.
    #[error("the negotiated suite is none of AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305")]
    UnsupportedSuite,
    /// The key has the wrong length.
    #[error(transparent)]
    Key(#[from] crate::tls::aead::KeyLengthError),
    /// The IV has the wrong length.
    #[error("an IV has 12 bytes, not {0}")]
    IvLength(usize),
    /// TLS 1.3 without the traffic secret: no KeyUpdate could be followed.
    #[error("TLS 1.3 needs the traffic secret, and none was captured in the handshake")]
    TrafficSecretMissing,
    /// The traffic secret is not as long as the suite's hash.
    #[error("the traffic secret of this suite has {expected_bytes} bytes, not {actual_bytes}")]
    TrafficSecretLength {
        /// Bytes of the suite's hash.
        expected_bytes: usize,
        /// Bytes that were given.
        actual_bytes: usize,
    },
    /// More bytes of a KeyUpdate than may be outstanding.
    #[error("{0} bytes of a KeyUpdate outstanding; it has 5")]
    KeyUpdateBytes(u8),
}

impl DirectionKeys {
    /// One direction of a connection that rustls has finished shaking hands for.
    ///
    /// `sequence` and `secrets` are what `dangerous_into_kernel_connection` gives.
    /// `traffic_secret` is what the key log saw as `CLIENT_TRAFFIC_SECRET_0` or
    /// `SERVER_TRAFFIC_SECRET_0`; TLS 1.2 has no such thing and does not look at it.
    ///
    /// # Errors
    /// An unknown suite; TLS 1.3 without a secret, or with one of another suite.
    pub fn from_rustls(
        secrets: ConnectionTrafficSecrets,
        sequence: u64,
        version: Version,
        library: CryptoLibrary,
        traffic_secret: Option<&[u8]>,
    ) -> Result<Self, KeysError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Algorithm::Chacha20Poly1305, key, iv)
            }
            _ => return Err(KeysError::UnsupportedSuite),
        };
        let (key, iv) = (key.as_ref(), iv.as_ref());
        let hash = Hash::of_suite(algorithm);
        let traffic_secret = match version {
            Version::Tls12 => None,
            Version::Tls13 => {
                let bytes = traffic_secret.ok_or(KeysError::TrafficSecretMissing)?;
                Some(TrafficSecret::copy_of(bytes).ok_or(KeysError::TrafficSecretLength {
                    expected_bytes: hash.output_bytes(),
                    actual_bytes: bytes.len(),
                })?)
            }
        };
        let keys = Self {
            version,
            algorithm,
            hash,
            library,
            key: KeyBytes::copy_of(key)
                .ok_or(crate::tls::aead::KeyLengthError { algorithm, actual_bytes: key.len() })?,
            iv: IvBytes::copy_of(iv).ok_or(KeysError::IvLength(iv.len()))?,
            sequence,
            traffic_secret,
            key_update_bytes: 0,
            ended: false,
        };
        keys.check()?;
        // A secret of another connection would go unnoticed until the first KeyUpdate.
        debug_assert!(keys.secret_matches_key(), "the traffic secret is another connection's");
        Ok(keys)
    }

    /// A TLS 1.3 direction at `sequence`, its key and IV derived from `traffic_secret`.
    ///
    /// # Errors
    /// The secret is not as long as the suite's hash.
    pub fn from_traffic_secret(
        algorithm: Algorithm,
        library: CryptoLibrary,
        traffic_secret: TrafficSecret,
        sequence: u64,
    ) -> Result<Self, KeysError> {
        let hash = Hash::of_suite(algorithm);
        if traffic_secret.length() != hash.output_bytes() {
            return Err(KeysError::TrafficSecretLength {
                expected_bytes: hash.output_bytes(),
                actual_bytes: traffic_secret.length(),
            });
        }
        let (key, iv) = traffic_keys(library, hash, traffic_secret.as_slice(), algorithm);
        Ok(Self {
            version: Version::Tls13,
            algorithm,
            hash,
            library,
            key,
            iv,
            sequence,
            traffic_secret: Some(traffic_secret),
            key_update_bytes: 0,
            ended: false,
        })
    }

    /// Whether key and IV are those of the traffic secret, if there is one.
    fn secret_matches_key(&self) -> bool {
        self.traffic_secret.as_ref().is_none_or(|secret| {
            let (key, iv) =
                traffic_keys(self.library, self.hash, secret.as_slice(), self.algorithm);
            key.as_slice() == self.key.as_slice() && iv.as_slice() == self.iv.as_slice()
        })
    }

    /// Whether every length is what version and suite make it.
    pub(super) fn check(&self) -> Result<(), KeysError> {
        if self.key.length() != self.algorithm.key_bytes() {
            return Err(KeysError::Key(crate::tls::aead::KeyLengthError {
                algorithm: self.algorithm,
                actual_bytes: self.key.length(),
            }));
        }
        if self.iv.length() != NONCE_BYTES {
            return Err(KeysError::IvLength(self.iv.length()));
        }
        if self.key_update_bytes > 4 {
            return Err(KeysError::KeyUpdateBytes(self.key_update_bytes));
        }
        match (self.version, &self.traffic_secret) {
            (Version::Tls12, _) => Ok(()),
            (Version::Tls13, None) => Err(KeysError::TrafficSecretMissing),
            (Version::Tls13, Some(secret)) if secret.length() != self.hash.output_bytes() => {
                Err(KeysError::TrafficSecretLength {
                    expected_bytes: self.hash.output_bytes(),
                    actual_bytes: secret.length(),
                })
            }
            (Version::Tls13, Some(_)) => Ok(()),
        }
    }
}
