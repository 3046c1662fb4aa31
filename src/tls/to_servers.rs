//! What a pool's connections negotiate with its servers: a rustls client configuration for
//! each server, and the name that the server has to prove.
//!
//! One configuration for each server, because rustls keeps sessions by name, and servers of
//! one name do not take each other's tickets. Everything else they share.
//!
//! May know: rustls, certificates, providers. Must not know: pools, files, handshakes.
#![forbid(unsafe_code)]

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use super::certificates::Signing;
use super::names::{CipherSuite, Group};
use super::provider::{self, ProviderError};
use super::secrets::CaptureSecrets;
use super::unverified;
use super::{CryptoLibrary, Version};

/// Sessions kept for each server: those of 32 names, of each the last 8 tickets of TLS 1.3
/// or one session of TLS 1.2. A ticket is of use once, so with more handshakes at one time
/// than that some are full ones. Beyond it the oldest are forgotten.
pub const SESSIONS_MAX: usize = 256;

/// What [`ToServers`] is made of.
#[derive(Clone, Debug)]
pub struct ToServersSettings {
    /// Which library does the cryptography.
    pub library: CryptoLibrary,
    /// Older versions are refused.
    pub minimum_version: Version,
    /// Suites to offer, in order of preference.
    pub cipher_suites: Vec<CipherSuite>,
    /// Groups to offer, in order of preference.
    pub groups: Vec<Group>,
    /// Who is trusted to say who a server is; `None`: a server may be anybody.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// What is shown to servers that ask for a certificate.
    pub certificate: Option<Signing>,
    /// The name to ask for, and to find in the certificate.
    pub name: NameSource,
    /// What each server is called if `name` does not say: a DNS name or an address.
    pub hosts: Vec<Option<ServerName<'static>>>,
}

/// Where the name comes from that a server is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NameSource {
    /// The host part of the server as configured.
    #[default]
    Server,
    /// What the client asked for; without, as [`Self::Server`].
    Client,
    /// This.
    Fixed(ServerName<'static>),
}

/// Why connections to servers cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum ToServersError {
    /// Suites or groups that cannot be had.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// No suite of a version that is allowed.
    #[error("no cipher suite of TLS {0} or later is configured")]
    NoUsableVersion(Version),
    /// None of the certificates can be a trust anchor.
    #[error("none of the certificates in the file can be an authority to trust")]
    NoRoots,
    /// rustls does not take it.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Ready for handshakes with the servers of one pool.
#[derive(Debug)]
pub struct ToServers {
    /// Of which that of every server is a copy with sessions of its own.
    shared: ClientConfig,
    /// By server.
    configs: Box<[Arc<ClientConfig>]>,
    hosts: Box<[Option<ServerName<'static>>]>,
    name: NameSource,
}

impl ToServers {
    /// Prepares the configurations.
    ///
    /// # Errors
    /// The settings do not fit the library, or each other.
    pub fn new(settings: ToServersSettings) -> Result<Self, ToServersError> {
        let ToServersSettings {
            library,
            minimum_version,
            cipher_suites,
            groups,
            roots,
            certificate,
            name,
            hosts,
        } = settings;
        let provider = Arc::new(provider::crypto_provider(library, &cipher_suites, &groups)?);
        let versions: &[&rustls::SupportedProtocolVersion] = match minimum_version {
            Version::Tls12 => rustls::ALL_VERSIONS,
            Version::Tls13 => &[&rustls::version::TLS13],
        };
        if !provider.cipher_suites.iter().any(|suite| versions.contains(&suite.version())) {
            return Err(ToServersError::NoUsableVersion(minimum_version));
        }
        let verifier = match roots {
            None => unverified::any_certificate_with_its_key(&provider),
            Some(certificates) => {
                let mut roots = RootCertStore::empty();
                // Bundles of systems hold the odd one that webpki cannot read.
                if roots.add_parsable_certificates(certificates).0 == 0 {
                    return Err(ToServersError::NoRoots);
                }
                let builder = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&provider),
                );
                builder.build().map_err(|error| rustls::Error::General(error.to_string()))?
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut shared = match certificate {
            Some(signing) => builder.with_client_cert_resolver(Arc::new(Shown(signing))),
            None => builder.with_no_client_auth(),
        };
        shared.key_log = Arc::new(CaptureSecrets);
        shared.enable_secret_extraction = true;
        // What servers send is not unpacked.
        shared.cert_decompressors = Vec::new();
        let configs = hosts.iter().map(|_| of_new_server(&shared)).collect();
        Ok(Self { shared, configs, hosts: hosts.into(), name })
    }

    /// The same for other servers: for each its place among those here, if it is one of them
    /// and so has sessions, and what it is called.
    #[must_use]
    pub fn followed_by(
        &self,
        servers: impl IntoIterator<Item = (Option<usize>, Option<ServerName<'static>>)>,
    ) -> Self {
        let (configs, hosts): (Vec<_>, Vec<_>) = servers
            .into_iter()
            .map(|(before, host)| {
                let known = before.and_then(|place| self.configs.get(place)).map(Arc::clone);
                (known.unwrap_or_else(|| of_new_server(&self.shared)), host)
            })
            .unzip();
        let (shared, name) = (self.shared.clone(), self.name.clone());
        Self { shared, configs: configs.into(), hosts: hosts.into(), name }
    }

    /// The configuration for the server, and the name to ask it for, given what the client
    /// asked for; `None` if there is neither.
    pub fn begin(
        &self,
        server: usize,
        client_name: Option<&str>,
    ) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        let host = || self.hosts.get(server)?.clone();
        let name = match &self.name {
            NameSource::Fixed(name) => Some(name.clone()),
            NameSource::Server => host(),
            NameSource::Client => client_name
                .and_then(|name| ServerName::try_from(name).ok())
                .map(|name| name.to_owned())
                .or_else(host),
        };
        Some((Arc::clone(self.configs.get(server)?), name?))
    }
}

/// A session is of use with the server that gave it only.
fn of_new_server(shared: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = shared.clone();
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Arc::new(config)
}

/// The certificate for servers that ask for one.
#[derive(Debug)]
struct Shown(Signing);

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        // On a worker, where files may be read.
        self.0.certified().filter(|certified| certified.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::provider::default_groups;

    fn to_servers(name: NameSource, hosts: &[Option<&'static str>]) -> ToServers {
        let library = CryptoLibrary::AwsLc;
        let host = |host: &Option<&'static str>| host.map(|host| host.try_into().unwrap());
        ToServers::new(ToServersSettings {
            library,
            minimum_version: Version::Tls12,
            cipher_suites: CipherSuite::DEFAULT_ORDER.to_vec(),
            groups: default_groups(library).to_vec(),
            roots: None,
            certificate: None,
            name,
            hosts: hosts.iter().map(host).collect(),
        })
        .unwrap()
    }

    fn name_of(to_servers: &ToServers, server: usize, client: Option<&str>) -> Option<String> {
        to_servers.begin(server, client).map(|(_, name)| name.to_str().into_owned())
    }

    #[test]
    fn a_server_is_asked_for_its_host() {
        let to_servers = to_servers(NameSource::Server, &[Some("a.test"), Some("192.0.2.1"), None]);
        assert_eq!(name_of(&to_servers, 0, Some("shop.test")).as_deref(), Some("a.test"));
        assert_eq!(name_of(&to_servers, 1, None).as_deref(), Some("192.0.2.1"));
        assert_eq!(name_of(&to_servers, 2, None), None);
    }

    #[test]
    fn the_clients_name_is_passed_on_and_the_host_stands_in_for_none() {
        let to_servers = to_servers(NameSource::Client, &[Some("a.test")]);
        assert_eq!(name_of(&to_servers, 0, Some("shop.test")).as_deref(), Some("shop.test"));
        assert_eq!(name_of(&to_servers, 0, None).as_deref(), Some("a.test"));
    }

    #[test]
    fn a_fixed_name_goes_before_both() {
        let fixed = NameSource::Fixed("fixed.test".try_into().unwrap());
        let to_servers = to_servers(fixed, &[Some("a.test")]);
        assert_eq!(name_of(&to_servers, 0, Some("shop.test")).as_deref(), Some("fixed.test"));
    }

    #[test]
    fn who_stays_keeps_his_sessions_and_who_comes_has_none() {
        let before = to_servers(NameSource::Server, &[Some("a.internal"), Some("b.internal")]);
        let named = |name: &'static str| Some(ServerName::try_from(name).unwrap());
        let after =
            before.followed_by([(Some(1), named("b.internal")), (None, named("c.internal"))]);
        let [of_b, of_c] = [0, 1].map(|place| after.begin(place, None).expect("a server"));
        assert_eq!((of_b.1, of_c.1), (named("b.internal").unwrap(), named("c.internal").unwrap()));
        assert!(Arc::ptr_eq(&of_b.0, &before.begin(1, None).expect("a server").0));
        assert!(before.configs.iter().all(|config| !Arc::ptr_eq(config, &of_c.0)));
        assert!(after.begin(2, None).is_none());
    }

    #[test]
    fn servers_of_one_pool_do_not_share_sessions() {
        let to_servers = to_servers(NameSource::Server, &[Some("a.test"), Some("a.test")]);
        let (one, _) = to_servers.begin(0, None).unwrap();
        let (other, _) = to_servers.begin(1, None).unwrap();
        assert!(!Arc::ptr_eq(&one, &other));
    }
}
