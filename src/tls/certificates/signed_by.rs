//! What a certificate was signed with, under the names that PROXY protocol receivers know.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use x509_parser::oid_registry::Oid;

/// The algorithm of a certificate's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CertificateSignature {
    /// RSA (PKCS #1 v1.5) with SHA-1.
    RsaSha1,
    /// The same with SHA-256.
    RsaSha256,
    /// The same with SHA-384.
    RsaSha384,
    /// The same with SHA-512.
    RsaSha512,
    /// RSASSA-PSS, whatever its hash.
    RsaPss,
    /// ECDSA with SHA-1.
    EcdsaSha1,
    /// ECDSA with SHA-256.
    EcdsaSha256,
    /// ECDSA with SHA-384.
    EcdsaSha384,
    /// ECDSA with SHA-512.
    EcdsaSha512,
    /// Ed25519.
    Ed25519,
    /// Another one: nothing is said of it.
    Other,
}

/// Object identifiers (RFC 8017 appendix C, RFC 5758, RFC 8410) and OpenSSL's short names.
const KNOWN: [(&str, CertificateSignature, &str); 10] = [
    ("1.2.840.113549.1.1.5", CertificateSignature::RsaSha1, "RSA-SHA1"),
    ("1.2.840.113549.1.1.11", CertificateSignature::RsaSha256, "RSA-SHA256"),
    ("1.2.840.113549.1.1.12", CertificateSignature::RsaSha384, "RSA-SHA384"),
    ("1.2.840.113549.1.1.13", CertificateSignature::RsaSha512, "RSA-SHA512"),
    ("1.2.840.113549.1.1.10", CertificateSignature::RsaPss, "RSASSA-PSS"),
    ("1.2.840.10045.4.1", CertificateSignature::EcdsaSha1, "ecdsa-with-SHA1"),
    ("1.2.840.10045.4.3.2", CertificateSignature::EcdsaSha256, "ecdsa-with-SHA256"),
    ("1.2.840.10045.4.3.3", CertificateSignature::EcdsaSha384, "ecdsa-with-SHA384"),
    ("1.2.840.10045.4.3.4", CertificateSignature::EcdsaSha512, "ecdsa-with-SHA512"),
    ("1.3.101.112", CertificateSignature::Ed25519, "ED25519"),
];

impl CertificateSignature {
    /// The longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 17;

    /// The algorithm with this object identifier.
    pub(super) fn of(identifier: &Oid<'_>) -> Self {
        let text = identifier.to_id_string();
        let known = KNOWN.iter().find(|(known, ..)| *known == text);
        known.map_or(Self::Other, |(_, algorithm, _)| *algorithm)
    }

    /// OpenSSL's short name, which is what HAProxy sends; `None` for another algorithm.
    pub fn name(self) -> Option<&'static str> {
        KNOWN.iter().find(|(_, known, _)| *known == self).map(|(.., name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_longer_than_the_longest() {
        let longest = KNOWN.iter().map(|(.., name)| name.len()).max();
        assert_eq!(longest, Some(CertificateSignature::NAME_BYTES_MAX));
        assert_eq!(CertificateSignature::Other.name(), None);
    }
}
