//! One listener's TLS policy: what it negotiates, with which certificates.
//!
//! ```text
//!   ClientHello ──▶ admit (engine: look-ups only) ──▶ Admission ──▶ worker ──▶ rustls
//!                      │                                              │
//!                      └────────── Selection::choose ◀── resolve ─────┘
//! ```
//!
//! The engine and rustls reach the same certificate because both ask the same function
//! with the same facts. What [`Policy::admit`] refuses, rustls would have refused too,
//! only later and dearer; what it admits, rustls may still refuse.
#![forbid(unsafe_code)]

pub mod candidate;
mod doors;
mod selection;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::compress::CompressionCache;
use rustls::server::{
    ClientHello as RustlsClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig, SupportedProtocolVersion};

use super::certificate_compression::Compression;
use super::certificates::index::{CertificateIndex, Siblings};
use super::certificates::{
    CertificateKind, CertificateName, CertificatePolicy, KeyType, LoadedCertificate, policy_file,
};
use super::client_auth::Gate;
use super::client_hello::ClientHello;
use super::destination;
use super::names::{CipherSuite, Group};
use super::provider::{self, ProviderError};
use super::secrets::CaptureSecrets;
use super::server_name::ServerName;
use super::{CryptoLibrary, Refusal, Version};
use doors::{Door, Doors};
use selection::{Limits, Offer, Selection};
use terms::{AllTerms, Terms};

/// What a [`Policy`] is made of.
#[derive(Debug)]
pub struct PolicySettings {
    /// Who does the cryptography.
    pub library: CryptoLibrary,
    /// The oldest version allowed, where a certificate's policy says nothing else.
    pub minimum_version: Version,
    /// The suites allowed, in the server's order of preference, both versions in one list.
    pub cipher_suites: Vec<CipherSuite>,
    /// The key-exchange groups allowed. The client's order decides among them.
    pub groups: Vec<Group>,
    /// Ways to compress certificates, in the server's order of preference; none: they are
    /// sent as they are.
    pub compression: Vec<Compression>,
    /// Application protocols, in the server's order of preference; none: no ALPN. A
    /// certificate's policy may have others.
    pub alpn: Vec<Vec<u8>>,
    /// The certificates, at least one.
    pub certificates: CertificateIndex,
    /// Which of them serves clients that name no server, or one that is not known.
    pub default_certificate: DefaultCertificate,
    /// What becomes of a client that names a server we have no certificate for.
    pub unknown_sni: UnknownServerName,
    /// Makes session tickets. Share it between policies only if they have the same
    /// certificates and client authentication: see [`super::tickets`].
    pub tickets: Arc<dyn ProducesTickets>,
    /// Decides on the client's certificate; `None`: it is not asked for one.
    pub gate: Option<Arc<Gate>>,
    /// The same for clients that ask for certain names.
    pub gates_of_names: Vec<NamedGate>,
}

/// How clients are authenticated that ask for one of these names.
#[derive(Debug)]
pub struct NamedGate {
    /// The names: exact ones go before wildcards, whatever the order of the list. None is
    /// in two lists.
    pub names: Vec<CertificateName>,
    /// As [`PolicySettings::gate`].
    pub gate: Option<Arc<Gate>>,
    /// As [`PolicySettings::tickets`], of a domain of their own.
    pub tickets: Arc<dyn ProducesTickets>,
}

impl PolicySettings {
    /// The defaults for `library`: TLS 1.2 and 1.3, every suite and group, no ALPN, the
    /// first certificate where no name matches.
    pub fn new(
        library: CryptoLibrary,
        certificates: impl Into<CertificateIndex>,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Self {
        Self {
            library,
            minimum_version: Version::Tls12,
            cipher_suites: CipherSuite::DEFAULT_ORDER.to_vec(),
            groups: provider::default_groups(library).to_vec(),
            compression: Vec::new(),
            alpn: Vec::new(),
            certificates: certificates.into(),
            default_certificate: DefaultCertificate::First,
            unknown_sni: UnknownServerName::Default,
            tickets,
            gate: None,
            gates_of_names: Vec::new(),
        }
    }
}

/// Which certificate is the default, together with those of other key types for the
/// same names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DefaultCertificate {
    /// The first one.
    #[default]
    First,
    /// The one that a client asking for this name would get.
    Name(String),
}

/// What becomes of a client that asks for a name without a certificate. A client that
/// asks for no name gets the default certificate in any case: it may know us by address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownServerName {
    /// It is shown the default certificate.
    #[default]
    Default,
    /// It is refused with unrecognized_name (RFC 6066 section 3).
    Reject,
}

/// Why settings make no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Nothing to show to clients.
    #[error("no certificate is configured")]
    NoCertificates,
    /// The suites or groups cannot be had.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// All suites belong to a version that is not allowed, or the other way round.
    #[error(
        "no cipher suite of the list belongs to an allowed version (the oldest is {0}); \
         add one of TLS 1.3, such as TLS_AES_128_GCM_SHA256"
    )]
    NoUsableVersion(Version),
    /// Not an ALPN name.
    #[error("the ALPN name {0:?} must have 1 to 255 bytes")]
    BadProtocolName(String),
    /// A policy file leaves nothing to negotiate.
    #[error(
        "{}: minimum_version: no cipher suite of the listener belongs to {minimum_version} \
         or newer; add one, such as TLS_AES_128_GCM_SHA256", .file.display()
    )]
    NoVersionForPolicy {
        /// The policy file.
        file: PathBuf,
        /// What it demands.
        minimum_version: Version,
    },
    /// More kinds of client than there should be.
    #[error(
        "the policy files of its certificates say {count} different things; at most \
         {POLICIES_MAX} can be told apart"
    )]
    TooManyPolicies {
        /// How many there are.
        count: usize,
    },
    /// The name of the default certificate is not among the certificates.
    #[error("no certificate is valid for the default name \"{name}\"{advice}")]
    UnknownDefault {
        /// The name that was configured.
        name: String,
        /// The nearest name there is.
        advice: String,
    },
    /// rustls does not take the settings.
    #[error("rustls refuses the settings: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Different policies among the certificates of a listener: each has a configuration of
/// rustls for either version, and a handshake looks for the one among all.
const POLICIES_MAX: usize = 64;

/// A connection that may go to a handshake worker.
#[derive(Clone)]
pub struct Admission<'p> {
    /// What the worker begins the handshake with.
    pub config: Arc<ServerConfig>,
    /// Who decides on the client's certificate; `None`: it is not asked for one.
    pub gate: Option<&'p Arc<Gate>>,
    /// The version that will be negotiated.
    pub version: Version,
    /// What will sign, unless a session is resumed.
    pub key: KeyKind,
    /// The certificate that goes with it.
    pub certificate: CertificateKind,
    /// Very likely a TLS 1.2 resumption: no asymmetric cryptography at all.
    pub symmetric_only: bool,
}

impl fmt::Debug for Admission<'_> {
    /// Leaves the configuration out: it prints all certificates of the listener.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Admission")
            .field("version", &self.version)
            .field("key", &self.key)
            .field("symmetric_only", &self.symmetric_only)
            .finish_non_exhaustive()
    }
}

/// The two costs of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA or Ed25519: tens of microseconds.
    EllipticCurve,
    /// RSA: ten times that.
    Rsa,
}

impl From<KeyType> for KeyKind {
    fn from(key_type: KeyType) -> Self {
        match key_type {
            KeyType::Rsa => Self::Rsa,
            _ => Self::EllipticCurve,
        }
    }
}

/// What a listener negotiates, with which certificates. Immutable: a reload makes a new
/// one, and connections under way keep theirs.
#[derive(Debug)]
pub struct Policy {
    selection: Arc<Selection>,
    doors: Doors,
}

impl Policy {
    /// Checks the settings and prepares everything that a handshake needs.
    ///
    /// # Errors
    /// The settings contradict themselves or the crypto library; see [`PolicyError`].
    pub fn new(settings: PolicySettings) -> Result<Self, PolicyError> {
        let PolicySettings {
            library,
            minimum_version,
            cipher_suites,
            groups,
            compression,
            alpn,
            certificates: index,
            default_certificate,
            unknown_sni,
            tickets,
            gate,
            gates_of_names,
        } = settings;
        if index.certificates().is_empty() {
            return Err(PolicyError::NoCertificates);
        }
        if let Some(name) = alpn.iter().find(|name| !(1..=255).contains(&name.len())) {
            return Err(PolicyError::BadProtocolName(String::from_utf8_lossy(name).into_owned()));
        }
        let provider = Arc::new(provider::crypto_provider(library, &cipher_suites, &groups)?);
        let is_usable = |minimum_version| {
            let versions = versions(minimum_version);
            provider.cipher_suites.iter().any(|suite| versions.contains(&suite.version()))
        };
        if !is_usable(minimum_version) {
            return Err(PolicyError::NoUsableVersion(minimum_version));
        }
        let policies = distinct_policies(index.certificates())?;
        for (policy, certificate) in &policies {
            if let Some(minimum_version) = policy.minimum_version
                && !is_usable(minimum_version)
            {
                let file = policy_file::path_of(&certificate.source);
                return Err(PolicyError::NoVersionForPolicy { file, minimum_version });
            }
        }
        let policies: Vec<_> = policies.into_keys().cloned().collect();

        let default = default_candidates(&index, &default_certificate)?;
        let limits = Limits::new(&provider, minimum_version);
        let selection = Arc::new(Selection::new(index, default, unknown_sni, limits));

        let compressors: Vec<_> = compression.iter().map(|one| one.compressor()).collect();
        let config = |way: &Way<'_>, version| -> Result<_, rustls::Error> {
            let resolver = Resolver { selection: Arc::clone(&selection), version };
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions(way.minimum_version))?;
            let builder = match way.gate {
                Some(gate) => builder.with_client_cert_verifier(Arc::clone(gate.verifier()) as _),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(Arc::new(resolver));
            config.ignore_client_order = true;
            config.alpn_protocols = way.alpn.to_vec();
            config.cert_compressors = compressors.clone();
            // They have a cache of their own.
            config.cert_compression_cache = Arc::new(CompressionCache::Disabled);
            // What clients send is not unpacked.
            config.cert_decompressors = Vec::new();
            config.ticketer = Arc::clone(way.tickets);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            // One: a second would cost every client a flight's worth of bytes for the
            // few that open a second connection before they have seen a new ticket.
            config.send_tls13_tickets = 1;
            // 0-RTT data can be replayed, and nothing at this layer can tell whether that
            // would do harm (RFC 8446 section 8).
            config.max_early_data_size = 0;
            // Our own record layer takes over after the handshake.
            config.enable_secret_extraction = true;
            config.key_log = Arc::new(CaptureSecrets);
            Ok(Arc::new(config))
        };
        let terms = |way: Way<'_>| -> Result<Terms, rustls::Error> {
            let tls12 = config(&way, Version::Tls12)?;
            let tls13 = config(&way, Version::Tls13)?;
            Ok(Terms { alpn: way.alpn.to_vec(), tls12, tls13 })
        };
        let door = |gate: Option<Arc<Gate>>, tickets| -> Result<Door, rustls::Error> {
            let own = Way { minimum_version, alpn: &alpn, gate: gate.as_ref(), tickets: &tickets };
            let of_policy = |policy: &Arc<CertificatePolicy>| {
                let minimum_version = policy.minimum_version.unwrap_or(minimum_version);
                let alpn = policy.alpn.as_ref().unwrap_or(&alpn);
                Ok((Arc::clone(policy), terms(Way { minimum_version, alpn, ..own })?))
            };
            let by_policy: Result<_, rustls::Error> = policies.iter().map(of_policy).collect();
            let terms = AllTerms::new(terms(own)?, by_policy?);
            Ok(Door { gate, terms })
        };
        let mut doors = Doors::new(door(gate, tickets)?);
        for NamedGate { names, gate, tickets } in gates_of_names {
            doors.add(names, door(gate, tickets)?);
        }
        Ok(Self { selection, doors })
    }

    /// The certificates of the listener.
    pub fn certificates(&self) -> &[Arc<LoadedCertificate>] {
        self.selection.index().certificates()
    }

    /// The same, by name.
    pub fn index(&self) -> &CertificateIndex {
        self.selection.index()
    }

    /// What a TLS 1.3 handshake begins with, if its ClientHello asks for no name.
    pub fn tls13(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.doors.of(None).terms.own.tls13)
    }

    /// Who decides on the certificate of a client that asks for this name, which is in
    /// lower case; `None`: it is not asked for one.
    pub fn gate(&self, server_name: Option<&str>) -> Option<&Arc<Gate>> {
        self.doors.of(server_name).gate.as_ref()
    }

    /// Decides from the ClientHello alone, with a few look-ups and no cryptography,
    /// whether a handshake can succeed, what it begins with, and what it will cost.
    ///
    /// `destination` is the address that the client has connected to. Only clients without
    /// a server name are told apart by it, and only if [`Self::chooses_by_address`]; the
    /// handshake then has to know it too ([`super::destination`]).
    ///
    /// # Errors
    /// It cannot succeed; the refusal says what to tell the client.
    pub fn admit(
        &self,
        hello: &ClientHello<'_>,
        destination: Option<IpAddr>,
    ) -> Result<Admission<'_>, Refusal> {
        let version = self.selection.negotiate_version(hello)?;
        let selected = self.selection.choose_for(version, hello, destination);
        // An unknown name is said before everything else: the other parameters belong
        // to a server that is not here.
        if matches!(selected, Err(Refusal::UnknownServerName)) {
            return Err(Refusal::UnknownServerName);
        }
        // RFC 8446 section 9.2. Under TLS 1.2 the extension may be left out, which means
        // SHA-1 (RFC 5246 section 7.4.1.4.1), which we do not have.
        if version == Version::Tls13
            && hello.signature_schemes.is_none()
            && !hello.offers_pre_shared_key
        {
            return Err(Refusal::NoSignatureSchemes);
        }
        let certificate = selected?;
        if !self.selection.shares_group(version, hello) {
            return Err(Refusal::NoSharedGroup);
        }
        let door = self.door(hello);
        let terms = door.terms.of(certificate);
        terms.check_alpn(hello)?;
        Ok(Admission {
            config: Arc::clone(terms.config(version)),
            gate: door.gate.as_ref(),
            version,
            key: certificate.key_type.into(),
            certificate: certificate.kind(),
            symmetric_only: version == Version::Tls12 && hello.offers_session_ticket,
        })
    }

    /// The certificate that [`Self::admit`] counts on.
    ///
    /// # Errors
    /// There is none for this client.
    pub fn certificate(
        &self,
        hello: &ClientHello<'_>,
        destination: Option<IpAddr>,
    ) -> Result<&LoadedCertificate, Refusal> {
        let version = self.selection.negotiate_version(hello)?;
        self.selection.choose_for(version, hello, destination)
    }

    /// Whether it matters to clients without a server name to which address they have
    /// connected.
    pub fn chooses_by_address(&self) -> bool {
        self.selection.index().has_addresses()
    }

    /// Whether there is a certificate for a name, whatever its kind.
    pub fn has_certificate_for(&self, name: &str) -> bool {
        !self.selection.index().find(name).is_empty()
    }

    /// Whether there is a certificate for an address, whatever its kind.
    pub fn has_certificate_for_address(&self, address: IpAddr) -> bool {
        !self.selection.index().find_address(address.to_canonical()).is_empty()
    }

    fn door(&self, hello: &ClientHello<'_>) -> &Door {
        self.doors.of(hello.server_name.as_ref().map(ServerName::as_str))
    }

    /// What would be chosen for the client, as far as its ClientHello decides: the version,
    /// and the application protocol.
    pub fn preview(
        &self,
        hello: &ClientHello<'_>,
        destination: Option<IpAddr>,
    ) -> (Option<Version>, Option<&[u8]>) {
        let Ok(version) = self.selection.negotiate_version(hello) else { return (None, None) };
        let terms = &self.door(hello).terms;
        match self.selection.choose_for(version, hello, destination) {
            Ok(certificate) => (Some(version), terms.of(certificate).protocol(hello)),
            Err(Refusal::NoSharedVersion) => (None, None),
            Err(_) => (Some(version), terms.own.protocol(hello)),
        }
    }
}

/// What a configuration of rustls differs in from the others of a listener.
#[derive(Clone, Copy)]
struct Way<'a> {
    minimum_version: Version,
    alpn: &'a [Vec<u8>],
    gate: Option<&'a Arc<Gate>>,
    tickets: &'a Arc<dyn ProducesTickets>,
}

/// Gives rustls the certificate that [`Policy::admit`] counted on.
#[derive(Debug)]
struct Resolver {
    selection: Arc<Selection>,
    version: Version,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: RustlsClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offer = Offer {
            server_name: hello.server_name(),
            destination: destination::get(),
            offers_suite: |suite| {
                hello.cipher_suites().iter().any(|code| u16::from(*code) == suite)
            },
            offers_scheme: |scheme| {
                hello.signature_schemes().iter().any(|code| u16::from(*code) == scheme)
            },
        };
        let certificate = self.selection.choose(self.version, &offer).ok()?;
        certificate.signing.certified()
    }
}

fn versions(minimum: Version) -> &'static [&'static SupportedProtocolVersion] {
    const ALL: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    match minimum {
        Version::Tls12 => ALL,
        Version::Tls13 => &ALL[..1],
    }
}

/// The different policies of certificates, each with the first certificate that has it.
fn distinct_policies(
    certificates: &[Arc<LoadedCertificate>],
) -> Result<BTreeMap<&Arc<CertificatePolicy>, &LoadedCertificate>, PolicyError> {
    let mut policies = BTreeMap::new();
    for certificate in certificates {
        if let Some(policy) = &certificate.policy {
            policies.entry(policy).or_insert(&**certificate);
        }
    }
    match policies.len() {
        0..=POLICIES_MAX => Ok(policies),
        count => Err(PolicyError::TooManyPolicies { count }),
    }
}

fn default_candidates(
    index: &CertificateIndex,
    default: &DefaultCertificate,
) -> Result<Siblings, PolicyError> {
    let name = match default {
        DefaultCertificate::First => return Ok(index.siblings(0)),
        DefaultCertificate::Name(name) => name,
    };
    let found = ServerName::try_from(name.as_str()).ok().map(|name| index.find(&name).siblings());
    found.flatten().ok_or_else(|| {
        let nearest = index
            .certificates()
            .iter()
            .flat_map(|certificate| certificate.names.iter())
            .map(CertificateName::to_string)
            .max_by(|left, right| {
                strsim::jaro_winkler(left, name).total_cmp(&strsim::jaro_winkler(right, name))
            });
        let advice = nearest.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"));
        PolicyError::UnknownDefault { name: name.clone(), advice }
    })
}

impl From<Version> for ProtocolVersion {
    fn from(version: Version) -> Self {
        match version {
            Version::Tls12 => Self::TLSv1_2,
            Version::Tls13 => Self::TLSv1_3,
        }
    }
}
