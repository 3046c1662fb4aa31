//! The one place that chooses a certificate for a client.

use std::time::SystemTime;

use rustls::ProtocolVersion;
use rustls::crypto::CryptoProvider;

use super::UnknownServerName;
use crate::tls::certificates::index::{Candidates, CertificateIndex};
use crate::tls::certificates::{KeyType, LoadedCertificate, unix_seconds};
use crate::tls::{Refusal, Version};

/// What a client offers, as far as the choice of a certificate goes.
pub(super) struct Offer<'a, Suites, Schemes> {
    /// The name asked for, in lower case.
    pub(super) server_name: Option<&'a str>,
    /// Whether it offers a cipher suite.
    pub(super) offers_suite: Suites,
    /// Whether it offers a signature scheme.
    pub(super) offers_scheme: Schemes,
}

/// The certificates and what limits the choice among them.
#[derive(Debug)]
pub(super) struct Selection {
    index: CertificateIndex,
    default: Candidates,
    unknown_sni: UnknownServerName,
    tls12: Allowed,
    tls13: Allowed,
}

/// What the listener allows under one version, by code point.
#[derive(Debug)]
struct Allowed {
    suites: Vec<u16>,
    groups: Vec<u16>,
}

impl Allowed {
    fn new(provider: &CryptoProvider, version: Version) -> Self {
        let version = ProtocolVersion::from(version);
        let suites = provider.cipher_suites.iter();
        let groups = provider.kx_groups.iter();
        Self {
            suites: suites
                .filter(|suite| suite.version().version == version)
                .map(|suite| u16::from(suite.suite()))
                .collect(),
            groups: groups
                .filter(|group| group.usable_for_version(version))
                .map(|group| u16::from(group.name()))
                .collect(),
        }
    }
}

impl Selection {
    pub(super) fn new(
        index: CertificateIndex,
        default: Candidates,
        unknown_sni: UnknownServerName,
        provider: &CryptoProvider,
    ) -> Self {
        Self {
            index,
            default,
            unknown_sni,
            tls12: Allowed::new(provider, Version::Tls12),
            tls13: Allowed::new(provider, Version::Tls13),
        }
    }

    pub(super) fn index(&self) -> &CertificateIndex {
        &self.index
    }

    /// Whether any suite of this version is allowed.
    pub(super) fn has_version(&self, version: Version) -> bool {
        !self.allowed(version).suites.is_empty()
    }

    /// The key-exchange groups allowed under `version`.
    pub(super) fn groups(&self, version: Version) -> &[u16] {
        &self.allowed(version).groups
    }

    /// The best certificate for the name among those that the client can verify.
    pub(super) fn choose(
        &self,
        version: Version,
        offer: &Offer<'_, impl Fn(u16) -> bool, impl Fn(u16) -> bool>,
    ) -> Result<&LoadedCertificate, Refusal> {
        let found = offer.server_name.map(|name| self.index.find(name));
        match found.filter(|found| !found.is_empty()) {
            Some(found) => self.first_usable(found.iter(), version, offer),
            None if found.is_some() && self.unknown_sni == UnknownServerName::Reject => {
                Err(Refusal::UnknownServerName)
            }
            None => self.first_usable(self.index.resolve(&self.default), version, offer),
        }
    }

    /// The first candidate that the client can verify and that has not expired; or, if
    /// all have, the first: it may still be better than nothing.
    fn first_usable<'a>(
        &self,
        candidates: impl Iterator<Item = &'a LoadedCertificate>,
        version: Version,
        offer: &Offer<'_, impl Fn(u16) -> bool, impl Fn(u16) -> bool>,
    ) -> Result<&'a LoadedCertificate, Refusal> {
        let suites = &self.allowed(version).suites;
        let mut suite_in_common = false;
        let mut first: Option<&LoadedCertificate> = None;
        for candidate in candidates {
            let key_type = candidate.key_type;
            let usable_suite = suites
                .iter()
                .any(|suite| suite_takes(*suite, key_type) && (offer.offers_suite)(*suite));
            suite_in_common |= usable_suite;
            let schemes = signature_schemes(key_type, version);
            if usable_suite && schemes.iter().any(|scheme| (offer.offers_scheme)(*scheme)) {
                let Some(first) = first else {
                    first = Some(candidate);
                    continue;
                };
                // Only where there is a choice does the time matter.
                let now = unix_seconds(SystemTime::now());
                if first.not_after >= now {
                    return Ok(first);
                }
                if candidate.not_after >= now {
                    return Ok(candidate);
                }
            }
        }
        first.ok_or(match suite_in_common {
            true => Refusal::NoSharedSignatureScheme,
            false => Refusal::NoSharedCipherSuite,
        })
    }

    const fn allowed(&self, version: Version) -> &Allowed {
        match version {
            Version::Tls12 => &self.tls12,
            Version::Tls13 => &self.tls13,
        }
    }
}

/// Whether a suite can be used with a kind of key: TLS 1.3 suites with any, those of
/// TLS 1.2 name it (RFC 8422 section 2.2, RFC 8446 section 1.2).
const fn suite_takes(suite: u16, key_type: KeyType) -> bool {
    match suite {
        0xc02f | 0xc030 | 0xcca8 => matches!(key_type, KeyType::Rsa),
        0xc02b | 0xc02c | 0xcca9 => !matches!(key_type, KeyType::Rsa),
        _ => true,
    }
}

/// The schemes that a kind of key can sign with (RFC 8446 section 4.2.3). TLS 1.3 takes
/// RSA in PSS padding only.
const fn signature_schemes(key_type: KeyType, version: Version) -> &'static [u16] {
    match (key_type, version) {
        (KeyType::EcdsaP256, _) => &[0x0403],
        (KeyType::EcdsaP384, _) => &[0x0503],
        (KeyType::EcdsaP521, _) => &[0x0603],
        (KeyType::Ed25519, _) => &[0x0807],
        (KeyType::Rsa, Version::Tls12) => &[0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601],
        (KeyType::Rsa, Version::Tls13) => &[0x0804, 0x0805, 0x0806],
    }
}
