//! What the tests of this module share: real clients, real handshakes, openssl.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection,
    SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::CryptoLibrary;
use super::names::{CipherSuite, Group};
use super::provider::{crypto_provider, default_groups};

pub(crate) const LIBRARIES: [CryptoLibrary; 2] = [CryptoLibrary::AwsLc, CryptoLibrary::Ring];

pub(crate) type Versions = &'static [&'static SupportedProtocolVersion];
pub(crate) const ONLY_TLS12: Versions = &[&rustls::version::TLS12];
pub(crate) const ONLY_TLS13: Versions = &[&rustls::version::TLS13];

/// What a test client is made of.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) library: CryptoLibrary,
    pub(crate) versions: Versions,
    pub(crate) suites: Vec<CipherSuite>,
    pub(crate) groups: Vec<Group>,
    /// Signature schemes to offer; empty: all that the library has.
    pub(crate) schemes: Vec<SignatureScheme>,
    pub(crate) alpn: Vec<Vec<u8>>,
    /// A name, or an address for a client that sends no name.
    pub(crate) server_name: &'static str,
}

impl Client {
    pub(crate) fn new(library: CryptoLibrary) -> Self {
        Self {
            library,
            versions: rustls::ALL_VERSIONS,
            suites: CipherSuite::DEFAULT_ORDER.to_vec(),
            groups: default_groups(library).to_vec(),
            schemes: Vec::new(),
            alpn: Vec::new(),
            server_name: "www.example.com",
        }
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let provider = crypto_provider(self.library, &self.suites, &self.groups).unwrap();
        let provider = Arc::new(provider);
        let verifier =
            TrustEverything { provider: Arc::clone(&provider), schemes: self.schemes.clone() };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }

    pub(crate) fn connection(&self) -> ClientConnection {
        connect(&self.config(), self.server_name)
    }

    /// The first bytes that such a client sends.
    pub(crate) fn hello(&self) -> Vec<u8> {
        first_flight(&mut self.connection())
    }
}

pub(crate) fn connect(config: &Arc<ClientConfig>, server_name: &'static str) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from(server_name).unwrap()).unwrap()
}

pub(crate) fn first_flight(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Runs a handshake to its end in memory, tickets included. `flight` is what was taken
/// from the client before.
pub(crate) fn shake(
    client: &mut ClientConnection,
    config: Arc<ServerConfig>,
    mut flight: Vec<u8>,
) -> Result<ServerConnection, rustls::Error> {
    let mut server = ServerConnection::new(config).unwrap();
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        let bytes = std::mem::take(&mut flight);
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(server)
}

/// Checks signatures, since they are what is under test, and no chain.
#[derive(Debug)]
struct TrustEverything {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for TrustEverything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        if self.schemes.is_empty() {
            self.provider.signature_verification_algorithms.supported_schemes()
        } else {
            self.schemes.clone()
        }
    }
}

/// Runs `openssl` with `arguments`, split at spaces, in `directory`.
pub(crate) fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_ascii_whitespace())
        .current_dir(directory)
        .output()
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes a self-signed `NAME.crt` and `NAME.key` with openssl.
///
/// `key` is what `openssl req -newkey` takes: `rsa:2048`, `ec -pkeyopt ec_paramgen_curve:P-256`,
/// `ed25519`; `names` is a subjectAltName such as `DNS:example.com`.
pub(crate) fn openssl_certificate(directory: &Path, name: &str, key: &str, names: &str) {
    openssl(
        directory,
        &format!(
            "req -x509 -newkey {key} -nodes -keyout {name}.key -out {name}.crt -days 365 \
             -subj /CN={name} -addext subjectAltName={names}"
        ),
    );
    restrict(&directory.join(format!("{name}.key")));
}

/// Takes the rights of other users away.
pub(crate) fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
