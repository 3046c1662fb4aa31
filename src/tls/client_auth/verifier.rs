//! Verifies clients: the chain, its revocation, and the rules.
//!
//! rustls asks when a client shows a certificate. Whoever resumes a session shows none: what
//! it once showed is in its ticket, and [`Verifier::check`] holds it against the
//! authorities, lists and rules of today.
//!
//! Runs on handshake workers, never on an engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{ClientCertificate, Rules, UnreadableCertificate};

#[cfg(test)]
mod tests;

/// Whether a client may come without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It may. If it shows one, that must be good.
    Optional,
    /// It may not.
    Required,
}

/// How revocation is checked once there are lists. Strict unless said otherwise: what cannot
/// be known counts as revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// Only the client's own certificate is looked up, not those of the authorities in
    /// between, whose issuers may publish no lists.
    pub end_entity_only: bool,
    /// A certificate whose issuer has no list here counts as good.
    pub unknown_is_good: bool,
    /// A list past its next update still counts (RFC 5280 section 5.1.2.5).
    pub outdated_list_counts: bool,
}

/// What a [`Verifier`] is made of.
#[derive(Debug)]
pub struct VerifierSettings {
    /// Whether there must be a certificate.
    pub demand: Demand,
    /// Whom clients' certificates must lead to.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Lists of revoked certificates; none: nothing is looked up.
    pub revocation_lists: Vec<CertificateRevocationListDer<'static>>,
    /// How they are used.
    pub revocation: Revocation,
    /// Who may come in.
    pub rules: Rules,
}

/// Why settings make no verifier.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// An authority cannot be one.
    #[error("certificate {place} of the authorities cannot be used: {error}")]
    Authority {
        /// Which, from 1.
        place: usize,
        /// rustls' words.
        error: Error,
    },
    /// A list cannot be read.
    #[error("revocation list {place} cannot be read")]
    RevocationList {
        /// Which, from 1.
        place: usize,
    },
    /// rustls does not take them.
    #[error("{0}")]
    Rustls(#[from] VerifierBuilderError),
}

/// What of a client's chain rustls would not mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedChain {
    /// Each certificate costs a signature check, and room in every ticket.
    #[error("the client sent {certificates} certificates, more than {}", Verifier::CHAIN_MAX)]
    TooLong {
        /// How many.
        certificates: usize,
    },
    /// The client's own certificate says nothing that can be relied on.
    #[error("the client's certificate {0}")]
    Unreadable(#[from] UnreadableCertificate),
}

/// Verifies the clients of a listener or a name. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct Verifier {
    chains: Arc<dyn ClientCertVerifier>,
    rules: Rules,
    id: [u8; 32],
}

impl Verifier {
    /// The most certificates of a chain, the client's own included.
    pub const CHAIN_MAX: usize = 8;

    /// Reads the authorities and lists.
    ///
    /// # Errors
    /// One of them cannot be used, or there is no authority; see [`VerifierError`].
    pub fn new(
        settings: VerifierSettings,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierError> {
        let id = policy_id(&settings)?;
        let VerifierSettings { demand, authorities, revocation_lists, revocation, rules } =
            settings;
        let mut roots = RootCertStore::empty();
        for (index, authority) in authorities.into_iter().enumerate() {
            roots
                .add(authority)
                .map_err(|error| VerifierError::Authority { place: index + 1, error })?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(revocation_lists);
        if demand == Demand::Optional {
            builder = builder.allow_unauthenticated();
        }
        if revocation.end_entity_only {
            builder = builder.only_check_end_entity_revocation();
        }
        if revocation.unknown_is_good {
            builder = builder.allow_unknown_revocation_status();
        }
        if !revocation.outdated_list_counts {
            builder = builder.enforce_revocation_expiration();
        }
        Ok(Self { chains: builder.build()?, rules, id })
    }

    /// What stands for this verifier in the security domain of sessions: a digest of the
    /// demand, the authorities, what is revoked, and the rules. The same on every node with
    /// the same files, in whatever order; a list that was issued anew with the same content
    /// does not change it.
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Whether nobody comes in without a certificate.
    pub fn requires_a_certificate(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    /// Whether a client that shows this chain, its own certificate first, may come in.
    ///
    /// # Errors
    /// What rustls is to tell the client: the alert follows from it.
    pub fn check(
        &self,
        chain: &[CertificateDer<'_>],
        now_since_epoch: Duration,
    ) -> Result<(), Error> {
        let [own, intermediates @ ..] = chain else { return Err(Error::NoCertificatesPresented) };
        let now = UnixTime::since_unix_epoch(now_since_epoch);
        self.verify_client_cert(own, intermediates, now).map(|_| ())
    }
}

fn refused(why: RefusedChain) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.chains.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Before anything is computed with them.
        let certificates = intermediates.len() + 1;
        if certificates > Self::CHAIN_MAX {
            return Err(refused(RefusedChain::TooLong { certificates }));
        }
        let client = ClientCertificate::parse(own).map_err(|error| refused(error.into()))?;
        let verified = self.chains.verify_client_cert(own, intermediates, now)?;
        if self.rules.allow(&client) {
            Ok(verified)
        } else {
            // The alert is access_denied (RFC 8446 section 6.2).
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

fn policy_id(settings: &VerifierSettings) -> Result<[u8; 32], VerifierError> {
    // Sets, so that neither order nor repetition matters.
    let mut parts = BTreeSet::new();
    let mut add = |kind: &str, content: &[u8]| {
        let mut part = Vec::with_capacity(kind.len() + 1 + content.len());
        part.extend_from_slice(kind.as_bytes());
        part.push(b':');
        part.extend_from_slice(content);
        parts.insert(part);
    };
    let Revocation { end_entity_only, unknown_is_good, outdated_list_counts } = settings.revocation;
    add("required", &[u8::from(settings.demand == Demand::Required)]);
    add("end entity only", &[u8::from(end_entity_only)]);
    add("unknown is good", &[u8::from(unknown_is_good)]);
    add("outdated list counts", &[u8::from(outdated_list_counts)]);
    for authority in &settings.authorities {
        add("authority", digest(&SHA256, authority).as_ref());
    }
    for rule in settings.rules.as_slice() {
        add("rule", rule.to_string().as_bytes());
    }
    for (index, der) in settings.revocation_lists.iter().enumerate() {
        let unreadable = VerifierError::RevocationList { place: index + 1 };
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(unreadable);
        };
        let serials: BTreeSet<&[u8]> =
            list.iter_revoked_certificates().map(|one| one.raw_serial()).collect();
        let issuer = list.issuer().as_raw();
        add("revocation list", &digest_of(std::iter::once(issuer).chain(serials)));
    }
    Ok(digest_of(parts.iter().map(Vec::as_slice)))
}

/// The length in front of each part keeps ["ab"] and ["a", "b"] apart.
fn digest_of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    id
}
