//! What clients offer and accept: versions, suites, groups, ALPN, certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::tls::CryptoLibrary;
use forebay::tls::names::{CipherSuite, Group};
use forebay::tls::provider::{ProviderError, crypto_provider};
use forebay::tls::unverified;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};

use crate::tickets::Tickets;

/// Where the certificates of authorities usually are: Debian, Red Hat, Alpine and SUSE.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// Groups offered unless chosen, the first with a key share. X25519MLKEM768 is left to be
/// asked for: it costs both sides more.
pub(crate) const DEFAULT_GROUPS: [Group; 3] = [Group::X25519, Group::SECP256R1, Group::SECP384R1];

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsChoice {
    /// `None`: 1.2 and 1.3.
    pub(crate) version: Option<TlsVersion>,
    /// Empty: all.
    pub(crate) suites: Vec<CipherSuite>,
    /// Empty: [`DEFAULT_GROUPS`].
    pub(crate) groups: Vec<Group>,
    pub(crate) alpn: Vec<String>,
    pub(crate) verify: bool,
    pub(crate) authorities: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TlsVersion {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

/// Why it cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("none of the --suite names belongs to the version of --tls")]
    SuiteOfOtherVersion,
    #[error("--ca {}: {reason}", path.display())]
    Authorities { path: PathBuf, reason: String },
    #[error(
        "no certificates of authorities are where systems keep them ({}): name a file by --ca",
        SYSTEM_AUTHORITIES.join(", ")
    )]
    NoSystemAuthorities,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl TlsChoice {
    /// The configuration of clients that do not resume sessions.
    ///
    /// # Errors
    /// The choice contradicts itself, or certificates cannot be read.
    pub(crate) fn config(&self) -> Result<ClientConfig, TlsError> {
        let suites = if self.suites.is_empty() {
            CipherSuite::DEFAULT_ORDER.to_vec()
        } else {
            self.suites.clone()
        };
        let groups =
            if self.groups.is_empty() { DEFAULT_GROUPS.to_vec() } else { self.groups.clone() };
        let provider = crypto_provider(CryptoLibrary::AwsLc, &suites, &groups)?;
        let versions: Vec<&'static SupportedProtocolVersion> = match self.version {
            Some(TlsVersion::Tls12) => vec![&rustls::version::TLS12],
            Some(TlsVersion::Tls13) => vec![&rustls::version::TLS13],
            None => rustls::ALL_VERSIONS.to_vec(),
        };
        // rustls does not take a version without a suite for it.
        let usable = |version: &&'static SupportedProtocolVersion| {
            provider.cipher_suites.iter().any(|suite| suite.version() == *version)
        };
        let versions: Vec<_> = versions.into_iter().filter(usable).collect();
        if versions.is_empty() {
            return Err(TlsError::SuiteOfOtherVersion);
        }
        let provider = Arc::new(provider);
        let verifier: Arc<dyn ServerCertVerifier> = if self.verify {
            Arc::new(Trusted::new(self.authorities.as_deref(), &provider)?)
        } else {
            unverified::any_certificate(&provider)
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = self.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        config.resumption = Resumption::disabled();
        // Servers are compared by the same work, and few of them compress.
        config.cert_decompressors = Vec::new();
        Ok(config)
    }
}

/// `config` for one thread, with sessions of its own to resume if there are `tickets`.
pub(crate) fn of_thread(
    config: &ClientConfig,
    tickets: Option<&Arc<Tickets>>,
) -> Arc<ClientConfig> {
    let mut config = config.clone();
    if let Some(tickets) = tickets {
        let tickets: Arc<Tickets> = Arc::clone(tickets);
        config.resumption = Resumption::store(tickets);
    }
    Arc::new(config)
}

/// Takes certificates that an authority vouches for, and those that are trusted
/// themselves, as other clients do: self-signed ones of one's own.
#[derive(Debug)]
struct Trusted {
    authorities: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn new(path: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let path = match path {
            Some(path) => path,
            None => SYSTEM_AUTHORITIES
                .iter()
                .map(Path::new)
                .find(|path| path.is_file())
                .ok_or(TlsError::NoSystemAuthorities)?,
        };
        let failed = |reason: String| TlsError::Authorities { path: path.to_owned(), reason };
        let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if added == 0 {
            return Err(failed("there is no certificate in it".to_owned()));
        }
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| failed(error.to_string()))?;
        Ok(Self { authorities, certificates })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificates.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let authorities = &self.authorities;
        authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
