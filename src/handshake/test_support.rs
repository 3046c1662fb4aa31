//! Real clients and configurations for this module's tests.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, NamedGroup, RootCertStore, ServerConfig,
    SupportedProtocolVersion,
};

use super::step::step;
use super::{Established, HandshakeFailure, StepOutcome, Task};
use crate::clock::Moment;
use crate::tls::record::Opened;
use crate::tls::secrets::CaptureSecrets;
use crate::tls::{CryptoLibrary, Version};

pub(super) const LIBRARIES: [CryptoLibrary; 2] = [CryptoLibrary::AwsLc, CryptoLibrary::Ring];
pub(super) const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];
pub(super) const HOST: &str = "forebay.test";

/// What one side may negotiate; `None` is whatever the library has.
#[derive(Clone, Debug, Default)]
pub(super) struct Offer {
    pub(super) version: Option<Version>,
    pub(super) suites: Option<Vec<CipherSuite>>,
    pub(super) groups: Option<Vec<NamedGroup>>,
    pub(super) alpn: Vec<&'static [u8]>,
}

impl Offer {
    pub(super) fn version(version: Version) -> Self {
        Self { version: Some(version), ..Self::default() }
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let mut versions = Vec::new();
        if self.version != Some(Version::Tls12) {
            versions.push(&rustls::version::TLS13);
        }
        if self.version != Some(Version::Tls13) {
            versions.push(&rustls::version::TLS12);
        }
        versions
    }

    fn provider(&self, library: CryptoLibrary) -> Arc<CryptoProvider> {
        let (mut provider, groups) = match library {
            CryptoLibrary::AwsLc => (aws_lc_rs::default_provider(), aws_lc_rs::ALL_KX_GROUPS),
            CryptoLibrary::Ring => (ring::default_provider(), ring::ALL_KX_GROUPS),
        };
        if let Some(suites) = &self.suites {
            provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
        }
        if let Some(wanted) = &self.groups {
            provider.kx_groups = wanted
                .iter()
                .map(|name| *groups.iter().find(|group| group.name() == *name).unwrap())
                .collect();
        }
        Arc::new(provider)
    }

    fn alpn(&self) -> Vec<Vec<u8>> {
        self.alpn.iter().map(|protocol| protocol.to_vec()).collect()
    }
}

/// A self-signed certificate, made once for all tests.
pub(super) fn identity() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    static IDENTITY: OnceLock<(CertificateDer<'static>, Vec<u8>)> = OnceLock::new();
    let (certificate, key) = IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        (made.cert.der().clone(), made.signing_key.serialize_der())
    });
    (certificate.clone(), PrivatePkcs8KeyDer::from(key.clone()).into())
}

pub(super) fn server_config_raw(library: CryptoLibrary, offer: &Offer) -> ServerConfig {
    server_config_asking(library, offer, WebPkiClientVerifier::no_client_auth())
}

pub(super) fn server_config_asking(
    library: CryptoLibrary,
    offer: &Offer,
    verifier: Arc<dyn ClientCertVerifier>,
) -> ServerConfig {
    let (certificate, key) = identity();
    let mut config = ServerConfig::builder_with_provider(offer.provider(library))
        .with_protocol_versions(&offer.versions())
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = offer.alpn();
    config.cert_compressors = Vec::new();
    config.key_log = Arc::new(CaptureSecrets);
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = match library {
        CryptoLibrary::AwsLc => aws_lc_rs::Ticketer::new().unwrap(),
        CryptoLibrary::Ring => ring::Ticketer::new().unwrap(),
    };
    config
}

pub(super) fn server_config(library: CryptoLibrary, offer: &Offer) -> Arc<ServerConfig> {
    Arc::new(server_config_raw(library, offer))
}

/// A client that trusts the certificate. It remembers tickets, so a second connection
/// of the same configuration resumes.
pub(super) fn client_config(offer: &Offer) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(identity().0).unwrap();
    client_config_trusting(roots, offer)
}

pub(super) fn client_config_trusting(roots: RootCertStore, offer: &Offer) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(offer.provider(CryptoLibrary::AwsLc))
        .with_protocol_versions(&offer.versions())
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offer.alpn();
    config.resumption = Resumption::in_memory_sessions(8);
    config
}

/// A client and the task that serves it.
pub(super) struct Pair {
    pub(super) client: ClientConnection,
    pub(super) task: Box<Task>,
    pub(super) library: CryptoLibrary,
}

impl Pair {
    pub(super) fn new(
        library: CryptoLibrary,
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> Self {
        let name = ServerName::try_from(HOST).unwrap();
        let mut task = Box::new(Task::new(0, 0));
        task.config = Some(Arc::clone(server));
        task.server_name = HOST.try_into().ok();
        Self { client: ClientConnection::new(Arc::clone(client), name).unwrap(), task, library }
    }

    /// What the client has to send now.
    pub(super) fn client_flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut flight).unwrap();
        }
        flight
    }

    pub(super) fn step_with(&mut self, bytes: &[u8]) {
        self.task.input.extend_from_slice(bytes);
        step(&mut self.task, self.library);
    }

    /// Gives the client what the server has to send.
    pub(super) fn answer(&mut self) -> Result<(), rustls::Error> {
        let flight = std::mem::take(&mut self.task.output);
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Goes on flight by flight until the handshake is decided on our side. What the
    /// client says about it is in the second half.
    pub(super) fn run(&mut self) -> Result<(), rustls::Error> {
        let mut client_says = Ok(());
        loop {
            let flight = self.client_flight();
            assert!(!flight.is_empty(), "both sides wait for the other");
            self.step_with(&flight);
            let answered = self.answer();
            if client_says.is_ok() {
                client_says = answered;
            }
            match self.task.outcome {
                StepOutcome::NeedsInput => {}
                _ => return client_says,
            }
        }
    }

    /// Takes the task out to be submitted, with what the client has to send now.
    pub(super) fn take_task(&mut self) -> Box<Task> {
        let flight = self.client_flight();
        let mut task = std::mem::replace(&mut self.task, Box::new(Task::new(0, 0)));
        task.submitted = Moment::now();
        task.deadline = task.submitted.after(Duration::from_secs(600));
        task.input.extend_from_slice(&flight);
        task
    }

    pub(super) fn established(&mut self) -> Box<Established> {
        match std::mem::take(&mut self.task.outcome) {
            StepOutcome::Established(established) => established,
            other => panic!("established was expected, not {other:?}"),
        }
    }

    pub(super) fn failure(&self) -> &HandshakeFailure {
        match &self.task.outcome {
            StepOutcome::Failed(failure) => failure,
            other => panic!("a failure was expected, not {other:?}"),
        }
    }
}

/// Sends bytes both ways through the record layer that the handshake ended in.
pub(super) fn exchange(client: &mut ClientConnection, established: &mut Established) {
    let question: Vec<u8> = (0..20_000_u32).map(|index| index as u8).collect();
    client.writer().write_all(&question).unwrap();
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    assert_eq!(open_all(established, &mut wire), question);

    let answer = b"an answer in one record";
    let front = established.sealer.header_bytes();
    let mut buffer = vec![0; front];
    buffer.extend_from_slice(answer);
    let end = buffer.len();
    buffer.resize(end + established.sealer.trailer_bytes(), 0);
    let sealed = established.sealer.seal_run(&mut buffer, front..end, 16_384).unwrap();
    client.read_tls(&mut &buffer[sealed]).unwrap();
    client.process_new_packets().unwrap();
    let mut received = vec![0; answer.len()];
    client.reader().read_exact(&mut received).unwrap();
    assert_eq!(received, answer);
}

/// The plaintext of whole records.
pub(super) fn open_all(established: &mut Established, wire: &mut [u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    let mut offset = 0;
    while offset < wire.len() {
        let rest = &mut wire[offset..];
        offset += match established.opener.open(rest).unwrap() {
            Opened::Data { plaintext: range, record_bytes } => {
                plaintext.extend_from_slice(&rest[range]);
                record_bytes
            }
            Opened::KeyUpdate { record_bytes, .. } => record_bytes,
            other => panic!("data was expected, not {other:?}"),
        };
    }
    plaintext
}
