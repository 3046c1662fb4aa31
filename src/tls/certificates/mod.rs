//! Certificates: from files to something that a handshake can sign with.
//!
//! ```text
//!   paths ──▶ sources ──▶ pem_file ──▶ identity ──▶ LoadedCertificate ──▶ index
//!            (which files)  (sections)  (names, key,      │             (by server
//!                                        chain, dates)    ▼               name)
//!      store: what was read before    findings: every error and warning, not the first
//!             is not read again
//! ```
//!
//! A process with many certificates keeps chain and key of those in use only: `signing`
//! reads them again when a client asks.
//!
//! May read files. Must not know listeners or handshakes: `policy` joins them.
#![forbid(unsafe_code)]

mod der;
mod encrypted_key;
pub mod examination;
pub mod file_index;
mod finding;
mod identity;
pub mod index;
mod ocsp;
mod pem_file;
pub mod policy_file;
mod signature;
mod signed_by;
mod signing;
mod sources;
pub mod store;
#[cfg(test)]
mod test_files;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use encrypted_key::{PASSPHRASES_MAX, Passphrases, PassphrasesError};
pub use finding::{Finding, Problem, Severity};
pub(crate) use identity::{assemble, unix_seconds};
pub use identity::{date as day, minute, unix_now};
pub use ocsp::StapleProblem;
pub use policy_file::{CertificatePolicy, PolicyFileProblem};
pub use signed_by::CertificateSignature;
use signing::KeyCache;
pub use signing::Signing;

use super::CryptoLibrary;
use super::server_name::ServerName;

/// What is to be known of a certificate without its chain and key, and the way to them.
/// Clones share everything.
#[derive(Clone, Debug)]
pub struct LoadedCertificate {
    /// The file it came from.
    pub source: Arc<Path>,
    /// The names it is valid for. May be empty: it then serves as default only.
    pub names: Arc<[CertificateName]>,
    /// The kind of its key.
    pub key_type: KeyType,
    /// The size of its key, in bits: of the modulus or the field.
    pub key_bits: u16,
    /// What its issuer has signed it with.
    pub signature: CertificateSignature,
    /// The start of its validity, in seconds since the UNIX epoch.
    pub not_before: i64,
    /// The end of its validity, in seconds since the UNIX epoch.
    pub not_after: i64,
    /// The end of the time of the OCSP staple that lies beside it, in seconds since the
    /// UNIX epoch; `None` without a usable one.
    pub staple_ends: Option<i64>,
    /// What its clients are held to in place of the listener's settings.
    pub policy: Option<Arc<CertificatePolicy>>,
    /// The chain, leaf first, and the key.
    pub signing: Signing,
}

impl LoadedCertificate {
    /// Whether clients find it neither expired nor too young at `now`, in seconds since the
    /// UNIX epoch.
    pub const fn is_in_time(&self, now: i64) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// What is told of it to servers.
    pub const fn kind(&self) -> CertificateKind {
        let Self { key_type, key_bits, signature, .. } = *self;
        CertificateKind { key_type, key_bits, signature }
    }

    /// Reports what is wrong with the validity, and that of the staple, at `now`.
    fn check_dates(&self, now: SystemTime, findings: &mut Vec<Finding>) {
        identity::check_dates(self.not_before, self.not_after, now, &mut |problem| {
            findings.push(Finding::new(&self.source, problem));
        });
        if let Some(ends) = self.staple_ends
            && ends <= unix_seconds(now)
        {
            let problem = Problem::StapleOver(ocsp::time_text(ends));
            findings.push(Finding::new(&ocsp::path_of(&self.source), problem));
        }
    }
}

/// A certificate's key and signature, as plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateKind {
    /// The kind of its key.
    pub key_type: KeyType,
    /// The size of its key, in bits.
    pub key_bits: u16,
    /// What its issuer has signed it with.
    pub signature: CertificateSignature,
}

/// A name that a certificate is valid for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// A DNS name, in lower case.
    Exact(Box<str>),
    /// Any one label in front of this DNS name, in lower case (RFC 6125 section 6.4.3).
    Wildcard(Box<str>),
    /// An address, in its plain form: IPv4 is not mapped into IPv6. Clients send no server
    /// name for it; what they connect to chooses.
    Address(IpAddr),
}

impl CertificateName {
    /// Reads a name as it stands in a certificate: `example.com`, `*.example.com`, or
    /// an address.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        match text.strip_prefix("*.") {
            Some(suffix) => {
                ServerName::try_from(suffix).ok().map(|name| Self::Wildcard(name.as_str().into()))
            }
            None => ServerName::try_from(text).ok().map(|name| Self::Exact(name.as_str().into())),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => formatter.write_str(name),
            Self::Wildcard(suffix) => write!(formatter, "*.{suffix}"),
            Self::Address(address) => write!(formatter, "{address}"),
        }
    }
}

/// The kinds of key that a certificate may have, in the order in which they are
/// preferred when a client takes several: cheap signatures first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// ECDSA on NIST P-256.
    EcdsaP256,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on NIST P-384.
    EcdsaP384,
    /// ECDSA on NIST P-521; with aws-lc-rs only.
    EcdsaP521,
    /// RSA.
    Rsa,
}

impl KeyType {
    /// Every kind, in order of preference.
    pub const ALL: [Self; 5] =
        [Self::EcdsaP256, Self::Ed25519, Self::EcdsaP384, Self::EcdsaP521, Self::Rsa];
}

impl fmt::Display for KeyType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::Ed25519 => "Ed25519",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::EcdsaP521 => "ECDSA P-521",
            Self::Rsa => "RSA",
        })
    }
}

/// Loads every certificate that `paths` lead to: files, and directories of files.
///
/// A file holds a PEM chain and its key in any order; or the chain only, the key being
/// in the file of the same name with the ending `.key`. An OCSP staple is in the file with
/// the ending `.ocsp`, a policy in the one with the ending `.policy`. Of a directory every
/// `*.pem` and `*.crt` is loaded, in order of name, without descending; dotfiles and other endings
/// are none of ours. `passphrases` open encrypted keys; `now` is what validity is judged by.
///
/// Returns what could be loaded and *everything* found wrong: a caller that must be
/// right gives up on any finding of [`Severity::Error`].
pub fn load(
    paths: &[PathBuf],
    library: CryptoLibrary,
    passphrases: &Passphrases,
    now: SystemTime,
) -> (Vec<LoadedCertificate>, Vec<Finding>) {
    let mut findings = Vec::new();
    let files = sources::expand(paths, &mut findings);
    let mut certificates = Vec::new();
    for file in &files {
        let loaded = load_file(file, library, passphrases, &mut findings);
        let policy = read_policy(file, &mut findings);
        let (Some(certificate), Ok(policy)) = (loaded, policy) else { continue };
        certificate.check_dates(now, &mut findings);
        certificates.push(LoadedCertificate { policy, ..certificate });
    }
    (certificates, findings)
}

/// Reads `contents` as if it were a file, key and all, and throws the result away.
pub(crate) fn load_bytes(contents: &[u8], library: CryptoLibrary) {
    let path = Path::new("bytes");
    let Ok((certificates, keys)) = pem_file::parse(path, contents, &Passphrases::default()) else {
        return;
    };
    if let Some(key) = keys.into_iter().next() {
        assemble(path, certificates, key, library, &mut |problem| drop(problem.to_string()));
    }
}

/// Judges `response` as staple of the first certificate of `chain`, which is PEM, and throws
/// the result away.
pub(crate) fn check_staple(response: &[u8], chain: &[u8], library: CryptoLibrary) {
    let path = Path::new("bytes");
    if let Ok((chain, _)) = pem_file::parse(path, chain, &Passphrases::default()) {
        let _ = ocsp::check_in_chain(response, &chain, library, unix_now());
    }
}

/// Reads `bytes` as if they were a policy file, and throws the result away.
pub(crate) fn check_policy(bytes: &[u8]) {
    for problem in policy_file::parse(bytes).err().into_iter().flatten() {
        drop(problem.to_string());
    }
}

/// The policy beside a certificate.
fn read_policy(
    path: &Path,
    findings: &mut Vec<Finding>,
) -> Result<Option<Arc<CertificatePolicy>>, policy_file::Refused> {
    policy_file::read(path, &mut |path, problem| findings.push(Finding::new(path, problem)))
}

/// Loads one file and, if the key is not in it, its neighbour; without its policy.
fn load_file(
    path: &Path,
    library: CryptoLibrary,
    passphrases: &Passphrases,
    findings: &mut Vec<Finding>,
) -> Option<LoadedCertificate> {
    let mut report = |path: &Path, problem: Problem| findings.push(Finding::new(path, problem));
    let mut file =
        pem_file::read(path, passphrases).map_err(|problem| report(path, problem)).ok()?;

    let mut key_path = path.to_owned();
    let mut keys = std::mem::take(&mut file.keys);
    let mut readable_by_others = file.readable_by_others;
    if file.certificates.is_empty() {
        report(path, Problem::NoCertificate { has_key: !keys.is_empty() });
        return None;
    }
    if keys.is_empty() {
        key_path = path.with_extension("key");
        if !key_path.exists() {
            report(path, Problem::NoKey { expected: key_path });
            return None;
        }
        let key_file =
            pem_file::read(&key_path, passphrases).map_err(|problem| report(&key_path, problem));
        let key_file = key_file.ok()?;
        keys = key_file.keys;
        readable_by_others = key_file.readable_by_others;
        if keys.is_empty() {
            report(&key_path, Problem::KeyFileWithoutKey);
            return None;
        }
    }
    if let Some(mode) = readable_by_others {
        report(&key_path, Problem::KeyReadableByOthers { mode });
    }
    if keys.len() > 1 {
        report(&key_path, Problem::SeveralKeys { count: keys.len() });
        return None;
    }
    let key = keys.pop()?;
    let certificate = assemble(path, file.certificates, key, library, &mut |problem| {
        // What concerns the key is said of the file that holds the key.
        let path = if problem.concerns_key() { &key_path } else { path };
        report(path, problem);
    })?;
    Some(ocsp::attach(certificate, path, library, &mut report))
}
