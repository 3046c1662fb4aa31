//! Certificates, the server's policy and the clients' configurations.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use forebay::tls::certificates::{
    CertificateName, CertificateSignature, KeyType, LoadedCertificate, Signing,
};
use forebay::tls::names::CipherSuite;
use forebay::tls::policy::{Policy, PolicySettings};
use forebay::tls::provider::default_groups;
use forebay::tls::to_servers::{NameSource, ToServers, ToServersSettings};
use forebay::tls::{CryptoLibrary, Version, tickets};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::crypto::{aws_lc_rs, ring};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::client::SERVER_NAME;
use crate::tls_client;

pub(crate) struct ClientConfigs {
    pub(crate) both: Arc<ClientConfig>,
    pub only_tls12: Arc<ClientConfig>,
    pub only_tls13: Arc<ClientConfig>,
}

/// Fresh for every run: sessions are resumed within one.
pub(crate) fn client_configs(library: CryptoLibrary) -> ClientConfigs {
    let provider = Arc::new(match library {
        CryptoLibrary::AwsLc => aws_lc_rs::default_provider(),
        CryptoLibrary::Ring => ring::default_provider(),
    });
    let config = |versions: &[&'static SupportedProtocolVersion]| {
        let provider = Arc::clone(&provider);
        let mut config = tls_client::config_of(provider, versions);
        config.enable_early_data = false;
        Arc::new(config)
    };
    ClientConfigs {
        both: config(rustls::ALL_VERSIONS),
        only_tls12: config(&[&rustls::version::TLS12]),
        only_tls13: config(&[&rustls::version::TLS13]),
    }
}

/// The server's policy: an Ed25519 certificate, since ECDSA signatures vary in length
/// and would make two runs of one seed differ.
pub(crate) fn policy(library: CryptoLibrary) -> Arc<Policy> {
    static POLICIES: LazyLock<[Arc<Policy>; 2]> =
        LazyLock::new(|| [CryptoLibrary::AwsLc, CryptoLibrary::Ring].map(make_policy));
    Arc::clone(&POLICIES[usize::from(library == CryptoLibrary::Ring)])
}

/// The certificate of everybody, and its key in PKCS #8.
fn identity() -> (CertificateDer<'static>, Vec<u8>) {
    static IDENTITY: LazyLock<(CertificateDer<'static>, Vec<u8>)> = LazyLock::new(|| {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut parameters = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        // Of one length, too.
        parameters.serial_number = Some(SerialNumber::from(1));
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.der().clone(), key.serialize_der())
    });
    IDENTITY.clone()
}

/// What backends with TLS are made of. Fresh for every run, as are the sessions with them.
pub(crate) fn server_config(library: CryptoLibrary) -> Arc<ServerConfig> {
    let (certificate, key) = identity();
    let config = ServerConfig::builder_with_provider(Arc::new(match library {
        CryptoLibrary::AwsLc => aws_lc_rs::default_provider(),
        CryptoLibrary::Ring => ring::default_provider(),
    }));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivatePkcs8KeyDer::from(key).into();
    Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
}

/// What is negotiated with so many backends.
pub(crate) fn to_servers(library: CryptoLibrary, count: usize) -> Arc<ToServers> {
    let settings = ToServersSettings {
        library,
        minimum_version: Version::Tls12,
        cipher_suites: CipherSuite::DEFAULT_ORDER.to_vec(),
        groups: default_groups(library).to_vec(),
        roots: Some(vec![identity().0]),
        certificate: None,
        name: NameSource::Server,
        hosts: vec![SERVER_NAME.try_into().ok(); count],
    };
    Arc::new(ToServers::new(settings).unwrap())
}

fn make_policy(library: CryptoLibrary) -> Arc<Policy> {
    let (certificate, key) = identity();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let signer = match library {
        CryptoLibrary::AwsLc => aws_lc_rs::sign::any_supported_type(&key),
        CryptoLibrary::Ring => ring::sign::any_supported_type(&key),
    };
    let loaded = LoadedCertificate {
        source: Path::new("simulated").into(),
        names: [CertificateName::parse(SERVER_NAME).unwrap()].into(),
        key_type: KeyType::Ed25519,
        key_bits: 256,
        signature: CertificateSignature::Ed25519,
        not_before: 0,
        not_after: i64::MAX,
        staple_ends: None,
        policy: None,
        signing: Signing::in_memory(Arc::new(CertifiedKey::new(
            vec![certificate],
            signer.unwrap(),
        ))),
    };
    let tickets = tickets::per_process(library).unwrap();
    Arc::new(Policy::new(PolicySettings::new(library, vec![loaded], tickets)).unwrap())
}
