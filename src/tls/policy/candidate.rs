//! A policy that is only tried: who would be refused under it?
//!
//! It has the certificates of the listener's own policy, and is asked by the code that
//! decides for that one, with other terms.

use std::net::IpAddr;

use super::selection::{Limits, Offer, Selection};
use super::{Policy, PolicyError};
use crate::tls::client_hello::ClientHello;
use crate::tls::names::{CipherSuite, Group, SignatureScheme};
use crate::tls::provider::crypto_provider;
use crate::tls::{CryptoLibrary, Refusal, Version};

/// What would be negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateTerms {
    /// The oldest version allowed.
    pub minimum_version: Version,
    /// The suites allowed, of both versions.
    pub cipher_suites: Vec<CipherSuite>,
    /// The key-exchange groups allowed.
    pub groups: Vec<Group>,
    /// What servers may sign with; `None`: all that their keys can.
    pub signature_schemes: Option<Vec<SignatureScheme>>,
}

/// What would become of a client that the listener's own policy admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It would be served as well.
    Served,
    /// It offers no protocol version that would be allowed.
    Version,
    /// No client would be served in this version that asks for this name: none of its
    /// certificates has a key that would be allowed.
    Certificate,
    /// It offers no cipher suite that would be allowed and that a certificate for its name
    /// can be used with.
    CipherSuite,
    /// It cannot verify any signature that would be allowed by a certificate for its name.
    SignatureScheme,
    /// It offers no key-exchange group that would be allowed.
    Group,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Served,
        Self::Version,
        Self::Certificate,
        Self::CipherSuite,
        Self::SignatureScheme,
        Self::Group,
    ];

    /// For metrics and pages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Version => "version",
            Self::CipherSuite => "cipher_suite",
            Self::Certificate => "certificate",
            Self::SignatureScheme => "signature_scheme",
            Self::Group => "group",
        }
    }
}

/// A policy that is only tried.
#[derive(Debug)]
pub struct Candidate(Selection);

impl Candidate {
    /// What `policy` would be under other terms.
    ///
    /// # Errors
    /// The library does not have them, or they contradict each other.
    pub fn new(
        policy: &Policy,
        library: CryptoLibrary,
        terms: &CandidateTerms,
    ) -> Result<Self, PolicyError> {
        let provider = crypto_provider(library, &terms.cipher_suites, &terms.groups)?;
        let mut limits = Limits::new(&provider, terms.minimum_version);
        if let Some(schemes) = &terms.signature_schemes {
            let schemes = schemes.iter().map(|scheme| scheme.code_point());
            limits = limits.signed_with(schemes.collect());
        }
        Ok(Self(policy.selection.under(limits)))
    }

    /// What would become of a client that has connected to `destination`, as far as that is
    /// known, and that the listener's own policy admits. Where several things stand against
    /// it, the first of [`Verdict::ALL`]. A few look-ups; no allocation.
    pub fn judge(&self, hello: &ClientHello<'_>, destination: Option<IpAddr>) -> Verdict {
        let Ok(version) = self.0.negotiate_version(hello) else { return Verdict::Version };
        let everything = Offer {
            server_name: hello.server_name.as_deref(),
            destination,
            offers_suite: |_| true,
            offers_scheme: |_| true,
        };
        match self.0.choose_for(version, hello, destination) {
            Ok(_) if self.0.shares_group(version, hello) => Verdict::Served,
            Ok(_) => Verdict::Group,
            Err(Refusal::NoSharedVersion) => Verdict::Version,
            // Whatever else it might offer would be no use.
            Err(_) if self.0.choose(version, &everything).is_err() => Verdict::Certificate,
            Err(Refusal::NoSharedCipherSuite) => Verdict::CipherSuite,
            Err(_) => Verdict::SignatureScheme,
        }
    }

    /// Whether any certificate could be shown to any client.
    pub fn has_any_certificate(&self) -> bool {
        self.0.has_any_certificate()
    }
}

#[cfg(test)]
mod tests;
