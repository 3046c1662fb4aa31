//! The one place that chooses a certificate for a client.

use std::net::IpAddr;
use std::time::SystemTime;

use rustls::ProtocolVersion;
use rustls::crypto::CryptoProvider;

use super::UnknownServerName;
use crate::tls::certificates::index::{CertificateIndex, Found, Siblings};
use crate::tls::certificates::{KeyType, LoadedCertificate, unix_seconds};
use crate::tls::client_hello::ClientHello;
use crate::tls::{Refusal, Version};

/// What a client offers, as far as the choice of a certificate goes.
pub(super) struct Offer<'a, Suites, Schemes> {
    /// The name asked for, in lower case.
    pub(super) server_name: Option<&'a str>,
    /// The address of ours that it has connected to, if that is known.
    pub(super) destination: Option<IpAddr>,
    /// Whether it offers a cipher suite.
    pub(super) offers_suite: Suites,
    /// Whether it offers a signature scheme.
    pub(super) offers_scheme: Schemes,
}

/// The certificates and what limits the choice among them.
#[derive(Debug)]
pub(super) struct Selection {
    index: CertificateIndex,
    default: Siblings,
    unknown_sni: UnknownServerName,
    limits: Limits,
}

/// What may be negotiated.
#[derive(Debug)]
pub(super) struct Limits {
    /// Of certificates without a policy of their own.
    minimum_version: Version,
    /// What may be signed with; `None`: all that the keys can.
    schemes: Option<Box<[u16]>>,
    tls12: Allowed,
    tls13: Allowed,
}

impl Limits {
    pub(super) fn new(provider: &CryptoProvider, minimum_version: Version) -> Self {
        Self {
            minimum_version,
            schemes: None,
            tls12: Allowed::new(provider, Version::Tls12),
            tls13: Allowed::new(provider, Version::Tls13),
        }
    }

    /// The same, and only these signature schemes.
    pub(super) fn signed_with(self, schemes: Box<[u16]>) -> Self {
        Self { schemes: Some(schemes), ..self }
    }

    const fn allowed(&self, version: Version) -> &Allowed {
        match version {
            Version::Tls12 => &self.tls12,
            Version::Tls13 => &self.tls13,
        }
    }

    fn allows_scheme(&self, scheme: u16) -> bool {
        self.schemes.as_ref().is_none_or(|schemes| schemes.contains(&scheme))
    }
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
        default: Siblings,
        unknown_sni: UnknownServerName,
        limits: Limits,
    ) -> Self {
        Self { index, default, unknown_sni, limits }
    }

    /// The same certificates under other limits.
    pub(super) fn under(&self, limits: Limits) -> Self {
        Self::new(self.index.clone(), self.default.clone(), self.unknown_sni, limits)
    }

    pub(super) fn index(&self) -> &CertificateIndex {
        &self.index
    }

    /// The newest version that both have (RFC 8446 section 4.2.1), as rustls finds it.
    /// Whether it is new enough is for the certificate to say.
    pub(super) fn negotiate_version(&self, hello: &ClientHello<'_>) -> Result<Version, Refusal> {
        // Without a suite there is no version.
        let have = |version| !self.limits.allowed(version).suites.is_empty();
        if hello.offers_tls13() && have(Version::Tls13) {
            Ok(Version::Tls13)
        } else if hello.offers_tls12() && have(Version::Tls12) {
            Ok(Version::Tls12)
        } else {
            Err(Refusal::NoSharedVersion)
        }
    }

    /// Whether the client offers a key-exchange group that is allowed under `version`.
    pub(super) fn shares_group(&self, version: Version, hello: &ClientHello<'_>) -> bool {
        let groups = &self.limits.allowed(version).groups;
        hello.groups.is_some_and(|offered| groups.iter().any(|group| offered.contains(*group)))
    }

    /// The best certificate for a client among those that it can verify.
    pub(super) fn choose_for(
        &self,
        version: Version,
        hello: &ClientHello<'_>,
        destination: Option<IpAddr>,
    ) -> Result<&LoadedCertificate, Refusal> {
        let offer = Offer {
            server_name: hello.server_name.as_deref(),
            destination,
            offers_suite: |suite| hello.cipher_suites.contains(suite),
            offers_scheme: |scheme| {
                hello.signature_schemes.is_some_and(|schemes| schemes.contains(scheme))
            },
        };
        self.choose(version, &offer)
    }

    /// Whether any certificate can be shown under any version, whatever the client.
    pub(super) fn has_any_certificate(&self) -> bool {
        [Version::Tls13, Version::Tls12].into_iter().any(|version| {
            let suites = &self.limits.allowed(version).suites;
            self.index.certificates().iter().any(|certificate| {
                let key_type = certificate.key_type;
                let mut schemes = signature_schemes(key_type, version).iter();
                version >= self.minimum_version_of(certificate)
                    && suites.iter().any(|suite| suite_takes(*suite, key_type))
                    && schemes.any(|scheme| self.limits.allows_scheme(*scheme))
            })
        })
    }

    /// The best certificate for the name among those that the client can verify.
    pub(super) fn choose(
        &self,
        version: Version,
        offer: &Offer<'_, impl Fn(u16) -> bool, impl Fn(u16) -> bool>,
    ) -> Result<&LoadedCertificate, Refusal> {
        let found = match offer.server_name {
            Some(name) => Some(self.index.find(name)),
            None => self.found_by_address(offer.destination),
        };
        match found.filter(|found| !found.is_empty()) {
            Some(found) => {
                let found = match version {
                    Version::Tls12 => self.binding(found, version),
                    // There is nothing newer to demand.
                    Version::Tls13 => found,
                };
                self.first_usable(found.iter(), version, offer)
            }
            None if offer.server_name.is_some()
                && self.unknown_sni == UnknownServerName::Reject =>
            {
                Err(Refusal::UnknownServerName)
            }
            None => self.first_usable(self.index.resolve(&self.default), version, offer),
        }
    }

    #[cold]
    fn found_by_address(&self, address: Option<IpAddr>) -> Option<Found<'_>> {
        address.map(|address| self.index.find_address(address.to_canonical()))
    }

    /// Where a certificate for just this name demands a newer version, one with a wildcard
    /// is no way around that.
    #[cold]
    fn binding<'a>(&self, found: Found<'a>, version: Version) -> Found<'a> {
        let demanding = |certificate| version < self.minimum_version_of(certificate);
        let exact = found.exact();
        match exact.iter().any(demanding) {
            true => exact,
            false => found,
        }
    }

    /// The oldest version in which a certificate is shown.
    pub(super) fn minimum_version_of(&self, certificate: &LoadedCertificate) -> Version {
        let own = certificate.policy.as_ref().and_then(|policy| policy.minimum_version);
        own.unwrap_or(self.limits.minimum_version)
    }

    /// The first candidate that is shown in this version, that the client can verify, and
    /// that is in its time; or, if none is, the first: it may still be better than nothing.
    fn first_usable<'a>(
        &self,
        candidates: impl Iterator<Item = &'a LoadedCertificate>,
        version: Version,
        offer: &Offer<'_, impl Fn(u16) -> bool, impl Fn(u16) -> bool>,
    ) -> Result<&'a LoadedCertificate, Refusal> {
        let suites = &self.limits.allowed(version).suites;
        let mut version_in_common = false;
        let mut suite_in_common = false;
        let mut first: Option<&LoadedCertificate> = None;
        for candidate in candidates {
            if version != Version::Tls13 && version < self.minimum_version_of(candidate) {
                continue;
            }
            version_in_common = true;
            let key_type = candidate.key_type;
            let usable_suite = suites
                .iter()
                .any(|suite| suite_takes(*suite, key_type) && (offer.offers_suite)(*suite));
            suite_in_common |= usable_suite;
            let schemes = signature_schemes(key_type, version);
            let verifiable =
                |scheme: &u16| (offer.offers_scheme)(*scheme) && self.limits.allows_scheme(*scheme);
            if usable_suite && schemes.iter().any(verifiable) {
                let Some(first) = first else {
                    first = Some(candidate);
                    continue;
                };
                // Only where there is a choice does the time matter.
                let now = unix_seconds(SystemTime::now());
                if first.is_in_time(now) {
                    return Ok(first);
                }
                if candidate.is_in_time(now) {
                    return Ok(candidate);
                }
            }
        }
        first.ok_or(match (version_in_common, suite_in_common) {
            (false, _) => Refusal::NoSharedVersion,
            (true, false) => Refusal::NoSharedCipherSuite,
            (true, true) => Refusal::NoSharedSignatureScheme,
        })
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
