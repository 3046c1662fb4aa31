//! What can be wrong with a certificate file, in words that say what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{PolicyFileProblem, StapleProblem};
use crate::tls::CryptoLibrary;

/// Something found wrong with a certificate, a key or the path to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether forebay can start with it.
    pub severity: Severity,
    /// The file or directory it concerns.
    pub path: PathBuf,
    /// What is wrong and what to do.
    pub problem: Problem,
}

impl Finding {
    pub(super) fn new(path: &Path, problem: Problem) -> Self {
        Self { severity: problem.severity(), path: path.to_owned(), problem }
    }

    /// What is wrong and what to do, without the path.
    pub fn message(&self) -> String {
        self.problem.to_string()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path.display(), self.problem)
    }
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The certificate is loaded, and something about it should be looked at.
    Warning,
    /// The certificate cannot be loaded.
    Error,
}

/// What is wrong. Each message ends with what to do where that is not plain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file or directory cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Neither a file nor a directory.
    #[error("is neither a file nor a directory")]
    NotAFile,
    /// Far larger than any certificate chain.
    #[error("is larger than {limit_bytes} bytes: not a certificate file")]
    TooLarge {
        /// The bound.
        limit_bytes: u64,
    },
    /// No bytes, or only white space.
    #[error("is empty")]
    Empty,
    /// No PEM section in it.
    #[error(
        "is not PEM: no line begins with \"-----BEGIN \"; \
         give the certificate chain and its private key in PEM form"
    )]
    NotPem,
    /// A binary certificate.
    #[error(
        "is a certificate in DER form; convert it: openssl x509 -inform der -in {path} -out {path}.pem",
        path = .0.display()
    )]
    DerCertificate(PathBuf),
    /// A binary private key.
    #[error(
        "is a private key in DER form; convert it: openssl pkey -inform der -in {path} -out {path}.pem",
        path = .0.display()
    )]
    DerKey(PathBuf),
    /// A PKCS#12 container (.p12, .pfx).
    #[error(
        "is a PKCS#12 container; convert it: openssl pkcs12 -in {path} -nodes -out {path}.pem",
        path = .0.display()
    )]
    Pkcs12(PathBuf),
    /// A PEM section of a kind that must be converted.
    #[error("holds a PEM section \"{label}\"; convert it: {command}")]
    ForeignSection {
        /// What stands between BEGIN and the dashes.
        label: &'static str,
        /// The command that converts it.
        command: String,
    },
    /// The PEM framing or its base64 is broken.
    #[error("holds broken PEM: {0}")]
    BrokenPem(String),
    /// No certificate among the sections.
    #[error(
        "holds no certificate{}",
        if *.has_key { ", only a private key; put the certificate chain in front of it" } else { "" }
    )]
    NoCertificate {
        /// Whether there was at least a key.
        has_key: bool,
    },
    /// No private key in the file and none beside it.
    #[error(
        "holds no private key, and there is no {}; \
         append the key to the certificate file or put it there", .expected.display()
    )]
    NoKey {
        /// Where it was looked for.
        expected: PathBuf,
    },
    /// The file beside the certificate holds no key.
    #[error("holds no private key")]
    KeyFileWithoutKey,
    /// Which of them is meant?
    #[error("holds {count} private keys; leave only the one that belongs to the certificate")]
    SeveralKeys {
        /// How many there are.
        count: usize,
    },
    /// The key needs a passphrase, which nobody types at a server.
    #[error(
        "holds an encrypted private key, and there is no passphrase for it: name a file with it \
         in tls.key_passphrase_file, or decrypt the key: openssl pkey -in {path} \
         -out {path}.plain, and keep the result readable by forebay's user only",
        path = .0.display()
    )]
    EncryptedKey(PathBuf),
    /// The key needs another passphrase.
    #[error(
        "holds an encrypted private key that no passphrase of tls.key_passphrase_file opens \
         (tried: {tried}); add the right one there, and try it: openssl pkey -noout -in {path}",
        path = .path.display()
    )]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
        /// How many passphrases there are.
        tried: usize,
    },
    /// The key is encrypted by means that we do not have.
    #[error(
        "holds a private key under an encryption that is not supported ({what}); \
         convert it: openssl pkey -aes256 -in {path} -out {path}.pkcs8",
        path = .path.display()
    )]
    UnsupportedEncryption {
        /// The file.
        path: PathBuf,
        /// The encryption in words.
        what: String,
    },
    /// A key with the header lines of RFC 1421, whose key derivation is one round of MD5.
    #[error(
        "holds a private key in OpenSSL's old encryption (Proc-Type: 4,ENCRYPTED), which \
         is weak and not read; convert it: openssl pkey -aes256 -in {path} -out {path}.pkcs8",
        path = .0.display()
    )]
    OldEncryption(PathBuf),
    /// A certificate does not parse.
    #[error("certificate number {position} in it is not valid X.509: {detail}")]
    BrokenCertificate {
        /// Place in the file, from 1.
        position: usize,
        /// The parser's words.
        detail: String,
    },
    /// A kind of key that cannot sign here.
    #[error(
        "has {what}, which {library} cannot sign with; \
         use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to {rsa_bits_max} bits",
        rsa_bits_max = super::identity::rsa_bits_max(*.library)
    )]
    UnsupportedKey {
        /// The kind of key in words.
        what: String,
        /// The library that was to sign.
        library: CryptoLibrary,
    },
    /// The key does not parse.
    #[error("holds a private key that cannot be used: {0}; look at it: openssl pkey -check")]
    UnusableKey(String),
    /// The key is that of another certificate.
    #[error(
        "holds a private key that does not belong to the certificate \
         (the key is {key}, the certificate's is {certificate}); compare the output of: \
         openssl x509 -noout -pubkey, and: openssl pkey -pubout"
    )]
    KeyMismatch {
        /// The kind of the private key.
        key: String,
        /// The kind of the first certificate's key.
        certificate: String,
    },
    /// A directory without certificates.
    #[error("is a directory without any *.pem or *.crt file")]
    EmptyDirectory,

    /// What would be an error, were there nothing to fall back on.
    #[error("{problem}; {outcome}")]
    Tolerated {
        /// What is wrong.
        problem: Box<Problem>,
        /// What is done instead.
        outcome: &'static str,
    },

    /// Clients will refuse it.
    #[error("expired on {0}; clients will refuse it: renew it")]
    Expired(String),
    /// Clients will soon refuse it.
    #[error("expires in {days} days, on {date}; renew it")]
    ExpiresSoon {
        /// Whole days left.
        days: i64,
        /// The date.
        date: String,
    },
    /// Clients will refuse it until then.
    #[error("is not valid before {0}; clients will refuse it until then: is the clock right?")]
    NotYetValid(String),
    /// Anyone on the machine can take the key.
    #[error("holds a private key that every user can read (mode {mode:04o}); chmod o-rwx")]
    KeyReadableByOthers {
        /// The permission bits.
        mode: u32,
    },
    /// Browsers have ignored the common name since 2017.
    #[error(
        "has no subjectAltName, only the common name {0:?}; it is served for that name, \
         but today's clients will refuse it"
    )]
    CommonNameOnly(String),
    /// The file beside it is no staple for it.
    #[error("is not sent as OCSP staple: {0}")]
    UnusableStaple(StapleProblem),
    /// The file beside it does not say what its clients are held to.
    #[error("{0}")]
    UnusablePolicy(PolicyFileProblem),
    /// The issuer's word has grown old.
    #[error(
        "is not sent as OCSP staple any more: its time was over at {0}; fetch it anew, \
         and look why that was not done"
    )]
    StapleOver(String),
    /// Clients insist on one.
    #[error(
        "demands an OCSP staple (must-staple), and there is no {}; clients will refuse it \
         until there is", .expected.display()
    )]
    NoStaple {
        /// Where it was looked for.
        expected: PathBuf,
    },
    /// Served only where no name matches.
    #[error("is valid for no DNS name and no address; it can only serve as the default")]
    NoNames,
    /// A name that no client can ask for.
    #[error("is valid for {0:?}, which is not a DNS name (a \"*\" must be the whole first label)")]
    UnusableName(String),
    /// A chain with a hole or a stray certificate.
    #[error(
        "holds a certificate (number {position}: {subject}) that is not in the leaf's chain; \
         it is sent all the same"
    )]
    UnlinkedCertificate {
        /// Place in the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
}

impl Problem {
    /// Whether forebay can start with it.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Tolerated { .. }
            | Self::Expired(_)
            | Self::ExpiresSoon { .. }
            | Self::NotYetValid(_)
            | Self::KeyReadableByOthers { .. }
            | Self::CommonNameOnly(_)
            | Self::NoNames
            | Self::UnusableStaple(_)
            | Self::StapleOver(_)
            | Self::NoStaple { .. }
            | Self::UnusableName(_)
            | Self::UnlinkedCertificate { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// Whether it is said of the file that holds the key.
    pub(super) const fn concerns_key(&self) -> bool {
        matches!(self, Self::UnusableKey(_) | Self::KeyMismatch { .. })
    }
}
