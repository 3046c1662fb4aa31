//! Private keys under a passphrase: PKCS#8's `EncryptedPrivateKeyInfo` (RFC 5958 section 3)
//! in the scheme PBES2 (RFC 8018 section 6.2), opened with one of the configured
//! passphrases.
//!
//! Must not know where passphrases come from: `control::key_passphrases` reads the file.

use std::fmt;
use std::sync::Arc;

use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// The most passphrases that are tried on one key: each costs a derivation.
pub const PASSPHRASES_MAX: usize = 16;

/// The most iterations of PBKDF2: seconds of a CPU. OpenSSL writes 2,048.
const ITERATIONS_MAX: u32 = 10_000_000;

/// The most memory that scrypt may ask for (128 · N · r, RFC 7914 section 2): 256 MiB.
const SCRYPT_BYTES_MAX: u64 = 256 << 20;

/// The most lanes of scrypt, which run one after the other.
const SCRYPT_LANES_MAX: u16 = 16;

/// Passphrases that private keys may be encrypted with. Clones share them; the last one
/// wipes them.
#[derive(Clone, Default)]
pub struct Passphrases(Arc<[Zeroizing<Vec<u8>>]>);

/// Why text is not a list of passphrases. The file's path goes in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassphrasesError {
    /// There is none.
    #[error("holds no passphrase; write one a line")]
    Empty,
    /// More than are tried.
    #[error("holds more than {PASSPHRASES_MAX} passphrases; take out those not in use")]
    TooMany,
}

impl Passphrases {
    /// Reads one passphrase from each line, as nginx' `ssl_password_file` has them: all of
    /// the line counts, spaces too; empty lines do not.
    ///
    /// # Errors
    /// There is none, or there are more than [`PASSPHRASES_MAX`].
    pub fn parse(content: &[u8]) -> Result<Self, PassphrasesError> {
        let lines = content.split(|byte| *byte == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let passphrases: Vec<Zeroizing<Vec<u8>>> = lines
            .filter(|line| !line.is_empty())
            .map(|line| Zeroizing::new(line.to_vec()))
            .collect();
        match passphrases.len() {
            0 => Err(PassphrasesError::Empty),
            1..=PASSPHRASES_MAX => Ok(Self(passphrases.into())),
            _ => Err(PassphrasesError::TooMany),
        }
    }
}

impl fmt::Debug for Passphrases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Passphrases({})", self.0.len())
    }
}

/// Why an encrypted key stays closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// No passphrase is configured.
    NoPassphrase,
    /// None of so many fits.
    WrongPassphrases(usize),
    /// The encryption is one that we do not have, in these words.
    Unsupported(String),
}

/// Whether the content of a section "PRIVATE KEY" or "ENCRYPTED PRIVATE KEY" is encrypted:
/// then the first element is the algorithm, a SEQUENCE, and not the version, an INTEGER.
pub(super) fn is_encrypted(der: &[u8]) -> bool {
    super::der::sequence_content(der).is_some_and(|content| content.first() == Some(&0x30))
}

/// The key in `der`, an `EncryptedPrivateKeyInfo`.
pub(super) fn open(
    der: &[u8],
    passphrases: &Passphrases,
) -> Result<PrivateKeyDer<'static>, Closed> {
    let info = EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|error| Closed::Unsupported(error.to_string()))?;
    check_cost(&info.encryption_algorithm)?;
    if passphrases.0.is_empty() {
        return Err(Closed::NoPassphrase);
    }
    passphrases
        .0
        .iter()
        .find_map(|passphrase| {
            let key = info.decrypt(passphrase).ok()?;
            // A wrong passphrase passes for right in one of 256 cases (the padding alone
            // is checked), and leaves rubbish.
            PrivateKeyInfoRef::try_from(key.as_bytes()).ok()?;
            Some(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec())))
        })
        .ok_or(Closed::WrongPassphrases(passphrases.0.len()))
}

/// Who can write the file decides what opening it costs: within reason.
fn check_cost(scheme: &EncryptionScheme) -> Result<(), Closed> {
    let unsupported = |what: String| Err(Closed::Unsupported(what));
    let EncryptionScheme::Pbes2(parameters) = scheme else {
        return unsupported("the old scheme PBES1".to_owned());
    };
    match &parameters.kdf {
        Kdf::Pbkdf2(kdf) if kdf.iteration_count > ITERATIONS_MAX => {
            unsupported(format!("PBKDF2 with {} iterations", kdf.iteration_count))
        }
        Kdf::Scrypt(kdf) => {
            let cost = kdf.cost_parameter;
            let bytes = u64::from(kdf.block_size).saturating_mul(128).saturating_mul(cost);
            // A cost of 0 would make the library panic.
            let within = cost.is_power_of_two()
                && bytes <= SCRYPT_BYTES_MAX
                && kdf.parallelization <= SCRYPT_LANES_MAX;
            if within { Ok(()) } else { unsupported(format!("scrypt with {bytes} bytes")) }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
