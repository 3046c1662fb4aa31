//! What is negotiated with those who are shown a certificate, beyond the choice of it: the
//! listener's own terms, and those of each policy file.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::tls::certificates::{CertificatePolicy, LoadedCertificate};
use crate::tls::client_hello::ClientHello;
use crate::tls::{Refusal, Version};

/// The oldest version and the application protocols, and what rustls makes of them.
#[derive(Debug)]
pub(super) struct Terms {
    /// Application protocols, in the server's order of preference; none: no ALPN.
    pub(super) alpn: Vec<Vec<u8>>,
    /// One configuration for each version that a client may end up with: rustls tells a
    /// certificate resolver all about the client but that, and a TLS 1.2 suite binds the
    /// kind of key where a TLS 1.3 suite does not.
    pub(super) tls12: Arc<ServerConfig>,
    /// The same for TLS 1.3.
    pub(super) tls13: Arc<ServerConfig>,
}

impl Terms {
    /// What rustls begins with.
    pub(super) const fn config(&self, version: Version) -> &Arc<ServerConfig> {
        match version {
            Version::Tls12 => &self.tls12,
            Version::Tls13 => &self.tls13,
        }
    }

    /// The protocol that the client is answered: the server's order counts, as in rustls.
    pub(super) fn protocol(&self, hello: &ClientHello<'_>) -> Option<&[u8]> {
        let offered = hello.alpn?;
        let offers = |ours: &&Vec<u8>| offered.iter().any(|theirs| theirs == &ours[..]);
        self.alpn.iter().find(offers).map(Vec::as_slice)
    }

    /// RFC 7301 section 3.2, as rustls does it: no ALPN on either side is no error.
    pub(super) fn check_alpn(&self, hello: &ClientHello<'_>) -> Result<(), Refusal> {
        let asked = hello.alpn.is_some() && !self.alpn.is_empty();
        match asked && self.protocol(hello).is_none() {
            true => Err(Refusal::NoSharedProtocol),
            false => Ok(()),
        }
    }
}

/// The terms of every policy among a listener's certificates.
#[derive(Debug)]
pub(super) struct AllTerms {
    /// Of certificates without a policy.
    pub(super) own: Terms,
    /// Sorted by policy. A look-up compares with a few of them.
    by_policy: Vec<(Arc<CertificatePolicy>, Terms)>,
}

impl AllTerms {
    /// The listener's own terms and, each once and in order, those of policies.
    pub(super) const fn new(own: Terms, by_policy: Vec<(Arc<CertificatePolicy>, Terms)>) -> Self {
        Self { own, by_policy }
    }

    /// The terms of a certificate of the listener.
    pub(super) fn of(&self, certificate: &LoadedCertificate) -> &Terms {
        let Some(policy) = &certificate.policy else { return &self.own };
        let place = self.by_policy.binary_search_by(|(known, _)| known.cmp(policy));
        place.map_or(&self.own, |place| &self.by_policy[place].1)
    }
}
