//! A rustls client that trusts everybody: the tests look at bytes, not at trust.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    SupportedCipherSuite, SupportedProtocolVersion,
};

/// A blocking TLS stream.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A client configuration with every version and suite of aws-lc-rs.
pub fn config() -> ClientConfig {
    config_with(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client configuration that offers one suite only.
pub fn config_for(suite: SupportedCipherSuite) -> ClientConfig {
    config_with(CryptoProvider {
        cipher_suites: vec![suite],
        ..rustls::crypto::aws_lc_rs::default_provider()
    })
}

/// A client configuration on `provider`, with the versions that its suites serve.
pub fn config_with(provider: CryptoProvider) -> ClientConfig {
    let provider = Arc::new(provider);
    let versions: Vec<_> = rustls::ALL_VERSIONS
        .iter()
        .copied()
        .filter(|version| provider.cipher_suites.iter().any(|suite| suite.version() == *version))
        .collect();
    config_of(provider, &versions)
}

/// A client configuration on `provider` with just those versions.
pub fn config_of(
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("suites and versions fit")
        .dangerous()
        .with_custom_certificate_verifier(trust_everybody(provider))
        .with_no_client_auth()
}

/// For a configuration that none of the above makes.
pub fn trust_everybody(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(TrustEverybody(provider))
}

/// Connects and leaves the handshake to the first read or write.
pub fn connect(config: Arc<ClientConfig>, address: SocketAddr, name: &str) -> TlsStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    over(stream, config, name)
}

/// The same over a connection that stands.
pub fn over(stream: TcpStream, config: Arc<ClientConfig>, name: &str) -> TlsStream {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(config, name).expect("client"), stream)
}

/// Sends a request and reads until the server's close_notify; anything else that ends the
/// stream fails the test.
pub fn exchange(stream: &mut TlsStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

#[derive(Debug)]
struct TrustEverybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustEverybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate that the server showed in the handshake.
pub fn shown(client: &TlsStream) -> CertificateDer<'static> {
    let chain = client.conn.peer_certificates().expect("after the handshake");
    chain.first().expect("a certificate").clone().into_owned()
}
