//! One handshake with a server: what it shows, and whether it resumes a session.
//!
//! Any certificate is taken, but the server must have its key.

use std::io::{self, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, SupportedProtocolVersion};

use crate::tls::{Version, unverified};

/// How long a server is given to send a ticket after the handshake: forebay keeps it back
/// for the first data, for some milliseconds.
const TICKET_WAIT: Duration = Duration::from_secs(1);

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("cannot be resolved: {0}")]
    Unresolved(io::Error),
    #[error("cannot be connected: {0}")]
    NotConnected(io::Error),
    #[error("{0:?} is not a name that a client can ask for")]
    BadName(String),
    #[error("the handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the handshake failed: {0}")]
    Tls(#[from] rustls::Error),
}

impl ProbeError {
    /// Whether the server was there, and refused.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Handshake(_) | Self::Tls(_))
    }
}

/// What a server showed.
#[derive(Debug)]
pub(super) struct Seen {
    /// Leaf first; of a resumed session what it began with.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) version: Version,
    pub(super) alpn: Option<String>,
    pub(super) resumed: bool,
}

/// What is asked of a server.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// `HOST:PORT`.
    pub(super) server: &'a str,
    /// The name asked for, if any.
    pub(super) name: Option<&'a str>,
    /// The only version offered; `None`: both.
    pub(super) version: Option<Version>,
    /// The protocols offered.
    pub(super) alpn: &'a [String],
}

/// Makes handshakes.
pub(super) struct Prober {
    both: ClientConfig,
    tls12: ClientConfig,
    tls13: ClientConfig,
    timeout: Duration,
}

impl Prober {
    /// Every handshake is given up after `timeout`.
    pub(super) fn new(timeout: Duration) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // One for all: rustls does not resume what another verifier has seen.
        let verifier = unverified::any_certificate_with_its_key(&provider);
        let config = |versions: &[&'static SupportedProtocolVersion]| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)?;
            Ok::<_, rustls::Error>(
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::clone(&verifier))
                    .with_no_client_auth(),
            )
        };
        Ok(Self {
            both: config(rustls::ALL_VERSIONS)?,
            tls12: config(&[&rustls::version::TLS12])?,
            tls13: config(&[&rustls::version::TLS13])?,
            timeout,
        })
    }

    /// Shakes hands. `sessions` are offered, and keep what the server gives.
    fn look(&self, question: Question<'_>, sessions: &Arc<Sessions>) -> Result<Seen, ProbeError> {
        let Question { server, name, version, alpn } = question;
        let mut config = match version {
            None => self.both.clone(),
            Some(Version::Tls12) => self.tls12.clone(),
            Some(Version::Tls13) => self.tls13.clone(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
        let store: Arc<Sessions> = Arc::clone(sessions);
        config.resumption = Resumption::store(store);
        // Without a name: an address is not asked for (RFC 6066 section 3).
        let asked = name.map_or_else(|| "0.0.0.0".to_owned(), asked_for);
        let asked = ServerName::try_from(asked.clone()).map_err(|_| ProbeError::BadName(asked))?;
        let mut connection = ClientConnection::new(Arc::new(config), asked)?;

        let deadline = Instant::now() + self.timeout;
        let mut stream = self.connect(server)?;
        while connection.is_handshaking() {
            set_timeout(&stream, deadline).map_err(ProbeError::Handshake)?;
            connection.complete_io(&mut stream).map_err(ProbeError::Handshake)?;
        }
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => Version::Tls12,
            _ => Version::Tls13,
        };
        if version == Version::Tls13 && sessions.lock().wanted {
            wait_for_ticket(&mut connection, &mut stream, sessions);
        }
        connection.send_close_notify();
        // Who has closed already has seen enough of us.
        let _ = connection.write_tls(&mut stream);
        let chain = connection.peer_certificates().unwrap_or_default();
        Ok(Seen {
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            version,
            alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// Shakes hands, once more without ALPN if the server refuses with it. `sessions` are
    /// offered, and keep what the server gives.
    pub(super) fn ask(
        &self,
        question: Question<'_>,
        sessions: &Arc<Sessions>,
    ) -> Result<Seen, ProbeError> {
        match self.look(question, sessions) {
            Err(error) if error.is_refusal() && !question.alpn.is_empty() => {
                self.look(Question { alpn: &[], ..question }, sessions).map_err(|_| error)
            }
            result => result,
        }
    }

    fn connect(&self, server: &str) -> Result<TcpStream, ProbeError> {
        let addresses = server.to_socket_addrs().map_err(ProbeError::Unresolved)?;
        let mut failure = io::ErrorKind::AddrNotAvailable.into();
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(stream) => {
                    // The flight of a handshake is whole: nothing is gained by waiting.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(ProbeError::NotConnected(failure))
    }
}

/// The name to ask for to be shown what `name` gets: any label for a wildcard.
fn asked_for(name: &str) -> String {
    match name.strip_prefix("*.") {
        Some(suffix) => format!("www.{suffix}"),
        None => name.to_owned(),
    }
}

fn set_timeout(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))
}

/// Reads until a ticket has come or none will.
fn wait_for_ticket(connection: &mut ClientConnection, stream: &mut TcpStream, sessions: &Sessions) {
    let deadline = Instant::now() + TICKET_WAIT;
    let mut plaintext = [0; 4_096];
    while sessions.lock().tls13.is_none() && set_timeout(stream, deadline).is_ok() {
        match connection.read_tls(stream) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if connection.process_new_packets().is_err() {
            return;
        }
        // What a server says unasked is none of ours, but must make room.
        while connection.reader().read(&mut plaintext).is_ok_and(|count| count > 0) {}
    }
}

/// Sessions of one server. A TLS 1.3 ticket is offered once (RFC 8446 appendix C.4).
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Whether the server's ticket is worth waiting for.
    wanted: bool,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: Option<Tls13ClientSessionValue>,
    group: Option<NamedGroup>,
}

impl Sessions {
    /// Offers none and keeps none.
    pub(super) fn none() -> Arc<Self> {
        Arc::default()
    }

    /// Offers none and waits for one.
    pub(super) fn wanted() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Kept { wanted: true, ..Kept::default() })))
    }

    /// What was kept, to be offered to another server; `None` if there is nothing.
    pub(super) fn take(&self) -> Option<Arc<Self>> {
        let kept = std::mem::take(&mut *self.lock());
        let any = kept.tls12.is_some() || kept.tls13.is_some();
        any.then(|| Arc::new(Self(Mutex::new(Kept { wanted: false, ..kept }))))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.lock().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.lock().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.lock().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.lock().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.lock().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.lock().tls13 = Some(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().tls13.take()
    }
}
