//! What a client's certificate says about the client.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// A client's own certificate, read but not verified: rustls has done that.
#[derive(Debug)]
pub struct ClientCertificate<'a> {
    parsed: X509Certificate<'a>,
    key_digest: [u8; 32],
}

/// Why nothing can be said about a certificate. The client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableCertificate {
    /// Larger than any that is in use, and every rule reads it.
    #[error("has {bytes} bytes, more than {}", ClientCertificate::BYTES_MAX)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not X.509 (RFC 5280 section 4.1).
    #[error("is no X.509 certificate")]
    NotX509,
    /// The names cannot be told, or the extension is there twice, and two readers could
    /// take different ones for the client's.
    #[error("has no readable subject alternative names")]
    BrokenNames,
}

impl<'a> ClientCertificate<'a> {
    /// The largest certificate that is read. With RSA keys of 4096 bits and a dozen names
    /// they have 3 KiB.
    pub const BYTES_MAX: usize = 16 << 10;

    /// Reads a certificate.
    ///
    /// # Errors
    /// It is too large or broken; see [`UnreadableCertificate`].
    pub fn parse(der: &'a [u8]) -> Result<Self, UnreadableCertificate> {
        if der.len() > Self::BYTES_MAX {
            return Err(UnreadableCertificate::TooLarge { bytes: der.len() });
        }
        let parsed = match x509_parser::parse_x509_certificate(der) {
            Ok(([], parsed)) => parsed,
            _ => return Err(UnreadableCertificate::NotX509),
        };
        if parsed.subject_alternative_name().is_err() {
            return Err(UnreadableCertificate::BrokenNames);
        }
        let mut key_digest = [0; 32];
        key_digest.copy_from_slice(digest(&SHA256, parsed.public_key().raw).as_ref());
        Ok(Self { parsed, key_digest })
    }

    /// The common name, if the subject has just one. Of several each reader would take
    /// another for the client's.
    pub fn common_name(&self) -> Option<&str> {
        let mut names = self.parsed.subject().iter_common_name();
        match (names.next(), names.next()) {
            (Some(name), None) => name.as_str().ok(),
            _ => None,
        }
    }

    /// The DNS names as written: of any case, and perhaps wildcards.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.names().filter_map(|name| match name {
            GeneralName::DNSName(text) => Some(*text),
            _ => None,
        })
    }

    /// The URIs.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.names().filter_map(|name| match name {
            GeneralName::URI(text) => Some(*text),
            _ => None,
        })
    }

    /// The mail addresses.
    pub fn emails(&self) -> impl Iterator<Item = &str> {
        self.names().filter_map(|name| match name {
            GeneralName::RFC822Name(text) => Some(*text),
            _ => None,
        })
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the same after a renewal with the same key
    /// (RFC 7469 section 2.4).
    pub const fn key_digest(&self) -> &[u8; 32] {
        &self.key_digest
    }

    fn names(&self) -> impl Iterator<Item = &GeneralName<'a>> {
        let extension = self.parsed.subject_alternative_name().ok().flatten();
        extension.into_iter().flat_map(|extension| &extension.value.general_names)
    }
}
